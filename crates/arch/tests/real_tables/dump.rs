//! Reader of the dumps: every page-table page of one moment.

use std::collections::BTreeMap;
use std::path::Path;

use textbed_arch::PhysAddr;
use textbed_arch::paging::{ARM64_4K, Entry, Format, Half, RADIX_4K, RADIX_64K, X86_64_4LEVEL};

/// A dump.
pub(crate) struct Dump {
    /// Its format.
    pub(crate) format: &'static Format,
    /// The root of CPU 0, or of the kernel where it has one of its own.
    pub(crate) root: PhysAddr,
    /// Which half of the addresses the root translates.
    pub(crate) half: Half,
    /// Tables by address.
    tables: BTreeMap<u64, Vec<u8>>,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().unwrap()
}

impl Dump {
    /// Reads a dump; the architecture follows from the folder's name and the file's magic.
    pub(crate) fn read(path: &Path, dir: &Path) -> Dump {
        let bytes = zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap();
        let u32_at = |at| u32::from_le_bytes(number(&bytes, at)) as usize;
        let u64_at = |at| u64::from_le_bytes(number(&bytes, at));
        let with_size = match &bytes[..4] {
            b"PTPG" => false,
            b"PTPR" => true,
            other => panic!("{}: magic {other:?}", path.display()),
        };
        assert_eq!(u32_at(4), 1, "version");
        let (n, n_roots) = (u32_at(8), u32_at(12));
        let roots: Vec<u64> = (0..n_roots).map(|i| u64_at(16 + 8 * i)).collect();
        let mut at = 16 + 8 * n_roots;
        let mut tables = BTreeMap::new();
        for _ in 0..n {
            let addr = u64_at(at);
            let size = if with_size { u64_at(at + 8) as usize } else { 4096 };
            at += if with_size { 16 } else { 8 };
            tables.insert(addr, bytes[at..at + size].to_vec());
            at += size;
        }
        assert_eq!(at, bytes.len(), "{}: bytes left over", path.display());
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        // A powerpc root is an entry of the process table: its base is bits 8 to 59.
        let (format, root, half) = match (with_size, name.starts_with("amd64")) {
            (true, _) if name.contains("64k") => {
                (&RADIX_64K, roots[0] & 0x0fff_ffff_ffff_ff00, Half::High)
            }
            (true, _) => (&RADIX_4K, roots[0] & 0x0fff_ffff_ffff_ff00, Half::High),
            // The root of CPU 0, or the next CPU's if the dump lacks that table.
            (false, true) => {
                let there = roots.iter().find(|r| tables.contains_key(r));
                (&X86_64_4LEVEL, *there.unwrap(), Half::High)
            }
            (false, false) => (&ARM64_4K, roots[0], Half::High),
        };
        Dump { format, root: PhysAddr(root), half, tables }
    }

    /// The entry at an address.
    pub(crate) fn entry(&self, format: &Format, addr: PhysAddr) -> Option<u64> {
        let (start, bytes) = self.tables.range(..=addr.0).next_back()?;
        let at = usize::try_from(addr.0 - start).ok()?;
        Some(format.entry_from_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    }

    /// Different tables that the root reaches, itself included.
    pub(crate) fn tables_below(&self, format: &Format) -> u64 {
        let mut seen = std::collections::BTreeSet::new();
        let mut todo = vec![(self.root, 0)];
        while let Some((table, level)) = todo.pop() {
            if !seen.insert(table) {
                continue;
            }
            for i in 0..format.levels[level].entries() {
                let raw = self.entry(format, table.offset(8 * i)).unwrap();
                if let Entry::Table { next, .. } = format.decode(level, raw) {
                    todo.push((next, level + 1));
                }
            }
        }
        seen.len() as u64
    }
}
