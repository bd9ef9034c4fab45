//! Page-table pages taken from a machine before a log began: what was mapped at its start.
//!
//! A file is `"PTPG"`, u32 version 1, u32 n, u32 roots, u64 root[], n times (u64 physical address,
//! 4096 bytes), little-endian; or `"PTPR"` (powerpc): n times (u64 physical address, u64 size,
//! bytes), with the tables' own words big-endian and roots as process-table words. The walker is
//! `textbed-arch`'s.
//!
//! Modelled: kernel addresses of the first root. Not modelled: user addresses, other roots.

use crate::mappings::Mappings;
use crate::reader::{LineReader, ReadError};
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use textbed_arch::paging::{Half, ScanEnd};
use textbed_arch::{Arch, PhysAddr};

/// Tables larger than this are refused, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// Why page tables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is not of this form.
    #[error("{file}: no page-table file: {what} at byte {offset}")]
    Form {
        /// The file.
        file: String,
        /// What is wrong.
        what: &'static str,
        /// Where.
        offset: usize,
    },
    /// It could not be walked to its end.
    #[error("{file}: page tables cannot be walked: {what}")]
    Walk {
        /// The file.
        file: String,
        /// Why not.
        what: String,
    },
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TablesSummary {
    /// Kernel leaves put into the mappings.
    pub leaves: u64,
    /// Table pages in the file.
    pub pages: u64,
    /// Distance from physical to virtual address in the direct map: that of the leaves through
    /// which most of the table pages themselves are mapped.
    pub direct_map: Option<u64>,
}

struct Pages {
    file: String,
    bytes: Vec<u8>,
    /// Physical address to (offset in `bytes`, length).
    at: BTreeMap<u64, (usize, usize)>,
    roots: Vec<u64>,
}

impl Pages {
    fn word(&self, addr: PhysAddr) -> Option<[u8; 8]> {
        let (start, (offset, len)) = self.at.range(..=addr.0).next_back()?;
        let inside = usize::try_from(addr.0 - start).ok()?;
        let end = inside.checked_add(8)?;
        if end > *len {
            return None;
        }
        self.bytes.get(offset + inside..offset + end)?.try_into().ok()
    }

    fn parse(file: String, bytes: Vec<u8>) -> Result<Self, TablesError> {
        let fail = |what, offset| TablesError::Form { file: file.clone(), what, offset };
        let mut pos = 0usize;
        let mut take = |n: usize| -> Option<&[u8]> {
            let part = bytes.get(pos..pos.checked_add(n)?)?;
            pos += n;
            Some(part)
        };
        let magic = take(4).ok_or_else(|| fail("no header", 0))?.to_vec();
        let sized = match magic.as_slice() {
            b"PTPG" => false,
            b"PTPR" => true,
            _ => return Err(fail("unknown magic number", 0)),
        };
        let u32_of = |b: &[u8]| b.try_into().map(u32::from_le_bytes).unwrap_or(0);
        let u64_of = |b: &[u8]| b.try_into().map(u64::from_le_bytes).unwrap_or(0);
        let header = take(12).ok_or_else(|| fail("cut off in the header", 4))?;
        let (version, count, root_count) = (
            u32_of(header.get(..4).unwrap_or_default()),
            u32_of(header.get(4..8).unwrap_or_default()),
            u32_of(header.get(8..12).unwrap_or_default()),
        );
        if version != 1 {
            return Err(fail("unknown version", 4));
        }
        let mut roots = Vec::new();
        for _ in 0..root_count {
            roots.push(u64_of(take(8).ok_or_else(|| fail("cut off in the roots", 16))?));
        }
        let mut at = BTreeMap::new();
        for _ in 0..count {
            let phys = u64_of(take(8).ok_or_else(|| fail("cut off between pages", bytes.len()))?);
            let len = match sized {
                true => u64_of(take(8).ok_or_else(|| fail("cut off between pages", bytes.len()))?),
                false => 4096,
            };
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            take(len).ok_or_else(|| fail("cut off in a page", bytes.len()))?;
            at.insert(phys, (0, len));
        }
        // Offsets in a second pass: the closure above borrows the position.
        let mut offset = 16 + 8 * roots.len();
        for _ in 0..count {
            let phys = u64_of(bytes.get(offset..offset + 8).unwrap_or_default());
            offset += if sized { 16 } else { 8 };
            if let Some(place) = at.get_mut(&phys) {
                place.0 = offset;
                offset += place.1;
            }
        }
        Ok(Self { file, bytes, at, roots })
    }
}

/// Reads page tables into `mappings`.
///
/// # Errors
/// [`TablesError`].
pub fn read(
    path: &Path,
    arch: Arch,
    mappings: &mut Mappings,
) -> Result<TablesSummary, TablesError> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    LineReader::open(path)?
        .into_unpacked()
        .take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Io { input: file.clone(), packed_bytes: 0, source })?;
    let pages = Pages::parse(file, bytes)?;
    walk(&pages, arch, mappings)
}

fn walk(pages: &Pages, arch: Arch, mappings: &mut Mappings) -> Result<TablesSummary, TablesError> {
    let format = mappings.bits().format();
    let fail = |what: String| TablesError::Walk { file: pages.file.clone(), what };
    let root = pages.roots.first().ok_or_else(|| fail("no root".to_string()))?;
    // A word of the process table: the root's address is in the middle (Power ISA, RPDB).
    let root = if arch.is_powerpc() { root & 0x0fff_ffff_ffff_ff00 } else { *root };
    let mut summary = TablesSummary { pages: pages.at.len() as u64, ..Default::default() };
    let mut distances: BTreeMap<u64, u64> = BTreeMap::new();
    let scan = format.for_each_leaf(
        PhysAddr(root),
        Half::High,
        &mut |addr| pages.word(addr).map(|b| format.entry_from_bytes(b)),
        &mut |leaf| {
            if leaf.va.0 >> 63 == 1 {
                let len = 1u64 << leaf.shift;
                let (va, phys) = (leaf.va.0, leaf.phys.0);
                mappings.insert_leaf(va, len, leaf.shift as u8, phys, leaf.raw, leaf.perm);
                summary.leaves += 1;
                let tables = pages.at.range(phys..phys.saturating_add(len)).count();
                if tables > 0 {
                    *distances.entry(va.wrapping_sub(phys)).or_default() += tables as u64;
                }
            }
            ControlFlow::Continue(())
        },
    );
    if scan.end != ScanEnd::Complete || summary.leaves == 0 {
        return Err(fail(format!("{:?} after {} leaves", scan.end, summary.leaves)));
    }
    // The direct map is where the tables themselves can be reached.
    summary.direct_map = distances.into_iter().max_by_key(|(_, tables)| *tables).map(|(d, _)| d);
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perms::Bits;
    use textbed_arch::paging::Format;

    fn dir(name: &str) -> String {
        format!("{}/../../tests/logs/{name}/", env!("CARGO_MANIFEST_DIR"))
    }

    fn load(name: &str, arch: Arch) -> (Mappings, TablesSummary) {
        let mut m = Mappings::new(Bits::new(Format::for_kernel(arch, 12).unwrap()));
        let s = read((dir(name) + "ptpages.pre.bin.zst").as_ref(), arch, &mut m).unwrap();
        (m, s)
    }

    #[test]
    fn direct_maps_are_found_where_they_are() {
        for (name, arch, distance) in [
            ("amd64-6.12", Arch::X86_64, 0xffff_8880_0000_0000),
            ("arm64-6.12", Arch::Arm64, 0xffff_0000_0000_0000 - 0x4000_0000),
            ("ppc64el-6.12", Arch::Ppc64le, 0xc000_0000_0000_0000),
        ] {
            let (_, s) = load(name, arch);
            assert_eq!(s.direct_map, Some(distance), "{name}");
        }
    }

    /// `walk.pre.txt` was counted by another walker when the tables were taken.
    #[test]
    fn executable_pages_as_counted_elsewhere() {
        for (name, arch, from, to, expected) in [
            ("amd64-6.12", Arch::X86_64, 0xffff_ffff_a000_0000, 0xffff_ffff_ff00_0000, 515),
            ("ppc64el-6.12", Arch::Ppc64le, 0xc008 << 48, 0xc00a << 48, 518u64),
        ] {
            let (m, _) = load(name, arch);
            let pages: u64 = m
                .runs()
                .filter(|r| r.virt >= from && r.end <= to && r.perm.letters() == "r-x")
                .map(|r| (r.end - r.virt) >> 12)
                .sum();
            assert_eq!(pages, expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_table_file_is_refused() {
        let m = || Mappings::new(Bits::new(Format::for_kernel(Arch::X86_64, 12).unwrap()));
        let whole = {
            let mut b = Vec::new();
            LineReader::open((dir("amd64-6.12") + "ptpages.pre.bin.zst").as_ref())
                .unwrap()
                .into_unpacked()
                .read_to_end(&mut b)
                .unwrap();
            b
        };
        for cut in [0, 3, 10, 20, 40, 5000] {
            let r = Pages::parse("f".into(), whole[..cut].to_vec());
            assert!(matches!(r, Err(TablesError::Form { .. })), "{cut}");
        }
        let mut bad = whole.clone();
        bad[4] = 9;
        assert!(Pages::parse("f".into(), bad).is_err());
        let mut no_root = whole[..16].to_vec();
        no_root[8..16].fill(0);
        let pages = Pages::parse("f".into(), no_root).unwrap();
        assert!(matches!(walk(&pages, Arch::X86_64, &mut m()), Err(TablesError::Walk { .. })));
    }
}
