//! Hashed tables of real kernels: Debian's powerpc64le kernels 6.1 (64 KiB pages) and 6.12 (4 KiB)
//! on QEMU 7.2's powernv9 with `disable_radix`.
//!
//! A dump has the SLB as QEMU's monitor listed it, every word that is not zero of the kernel's
//! tree, and the valid entries of the hashed table (of the bolted ones of 6.12, which are one for
//! each 4 KiB of memory, the first four of each 16 MiB), written down by a script that knows of
//! neither hashes nor rights. Asked here: is each hashed leaf's entry where our lookup looks for
//! it, with the leaf's frame and rights, in the slot that the leaf notes; and the linear map's,
//! read-only where the kernel's text is.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use textbed_arch::hashed::{HPT_3_0, HashTable, Segment};
use textbed_arch::paging::{Format, HASH_TREE_4K, HASH_TREE_64K, Half, ScanEnd};
use textbed_arch::{Perm, PhysAddr, VirtAddr};

/// HPTE_V_BOLTED among software's bits.
const BOLTED: u64 = 2;
/// Where both kernels' images end: `__init_begin`.
const TEXT_END: u64 = 0x200_0000;
/// And memory.
const MEMORY: u64 = 2 << 30;

struct Dump {
    root: PhysAddr,
    table: HashTable,
    segments: Vec<Segment>,
    words: BTreeMap<u64, u64>,
}

impl Dump {
    fn read(bytes: &[u8]) -> Dump {
        let text = String::from_utf8(zstd::decode_all(bytes).unwrap()).unwrap();
        let mut dump = Dump {
            root: PhysAddr(0),
            table: HashTable { base: PhysAddr(0), group_bits: 0 },
            segments: Vec::new(),
            words: BTreeMap::new(),
        };
        for line in text.lines() {
            let mut words = line.split(' ');
            let kind = words.next().unwrap();
            let numbers: Vec<u64> =
                words.filter_map(|word| u64::from_str_radix(word, 16).ok()).collect();
            match (kind, numbers.as_slice()) {
                ("root", [root]) => dump.root = PhysAddr(*root),
                // The number of groups is decimal.
                ("table", [base, _]) => {
                    let bits = line.rsplit(' ').next().unwrap().parse().unwrap();
                    dump.table = HashTable { base: PhysAddr(*base), group_bits: bits };
                }
                ("segment", [rb, rs]) => {
                    dump.segments.push(HPT_3_0.segment([*rb, *rs]).unwrap());
                }
                ("tree", [at, value]) => {
                    dump.words.insert(*at, *value);
                }
                ("entry", [at, first, second]) => {
                    dump.words.insert(*at, *first);
                    dump.words.insert(at + 8, *second);
                }
                ("kernel" | "valid", _) => {}
                _ => panic!("{line}"),
            }
        }
        dump
    }

    /// Words that were not written down are zero.
    fn word(&self, addr: PhysAddr) -> Option<u64> {
        Some(self.words.get(&addr.0).copied().unwrap_or(0))
    }

    fn segment(&self, va: VirtAddr) -> &Segment {
        self.segments.iter().find(|s| s.holds(va)).unwrap()
    }
}

/// What was counted in a dump.
#[derive(PartialEq, Eq, Debug)]
struct Counts {
    leaves: u64,
    /// Leaves that say that an entry was made; and those that have one.
    noted: u64,
    hashed: u64,
    linear: u64,
}

fn compare(format: &Format, dump: &Dump) -> Counts {
    let mut counts = Counts { leaves: 0, noted: 0, hashed: 0, linear: 0 };
    let hashed = format.field("H_HASHED").unwrap();
    let scan =
        format.for_each_leaf(dump.root, Half::High, &mut |addr| dump.word(addr), &mut |leaf| {
            counts.leaves += 1;
            let noted = hashed.get(leaf.raw) == 1;
            counts.noted += u64::from(noted);
            let Some(segment) = dump.segments.iter().find(|s| s.holds(leaf.va)) else {
                assert!(!noted, "{}: no segment was loaded for it", leaf.va);
                return ControlFlow::Continue(());
            };
            let found = HPT_3_0.find(dump.table, segment, leaf.va, &mut |a| dump.word(a));
            let Ok(slot) = found else { return ControlFlow::Continue(()) };
            assert!(noted, "{}: an entry that its leaf does not know of", leaf.va);
            let entry = HPT_3_0.decode_entry(slot.words, segment).unwrap();
            assert_eq!((entry.frame, entry.shift), (leaf.phys, leaf.shift), "{}", leaf.va);
            let perm = HPT_3_0.effective(&entry.rights, segment) | Perm::GLOBAL;
            assert_eq!(perm, leaf.perm, "{}", leaf.va);
            if let Some(noted) = format.field("H_SLOT") {
                let number = ((slot.addr.0 - dump.table.base.0) / 16) & 7;
                assert_eq!(noted.get(leaf.raw), number, "{}", leaf.va);
                let second = format.field("H_SECOND").unwrap().get(leaf.raw) == 1;
                assert_eq!(second, slot.secondary, "{}", leaf.va);
            }
            counts.hashed += 1;
            ControlFlow::Continue(())
        });
    assert_eq!((scan.end, scan.malformed_count), (ScanEnd::Complete, 0), "{}", format.name);
    let linear = VirtAddr(0xc000_0000_0000_0000);
    let segment = *dump.segment(linear);
    for large in (0..MEMORY).step_by(16 << 20) {
        for page in 0..if segment.base_shift == 24 { 1 } else { 4 } {
            let phys = large + (page << segment.base_shift);
            let va = linear.offset(phys);
            let slot = HPT_3_0.find(dump.table, &segment, va, &mut |a| dump.word(a)).unwrap();
            let entry = HPT_3_0.decode_entry(slot.words, &segment).unwrap();
            assert_eq!((entry.frame, entry.software & BOLTED), (PhysAddr(phys), BOLTED), "{va}");
            let letters = HPT_3_0.effective(&entry.rights, &segment).letters();
            assert_eq!(letters, if phys < TEXT_END { "r-x" } else { "rw-" }, "{va}");
            counts.linear += 1;
        }
    }
    counts
}

#[test]
fn hashed_tables_of_real_kernels() {
    let dumps: [(&Format, &[u8], Counts); 2] = [
        (
            &HASH_TREE_64K,
            include_bytes!("ppc64el-6.1-64k-hash.txt.zst"),
            Counts { leaves: 80, noted: 33, hashed: 33, linear: 128 },
        ),
        // A pack of BPF programs became read-only and executable and was not used since: 512
        // leaves that note an entry that was flushed.
        (
            &HASH_TREE_4K,
            include_bytes!("ppc64el-6.12-4k-hash.txt.zst"),
            Counts { leaves: 809, noted: 545, hashed: 33, linear: 512 },
        ),
    ];
    for (format, bytes, counts) in dumps {
        let found = compare(format, &Dump::read(bytes));
        println!("{}: {found:?}", format.name);
        assert_eq!(found, counts, "{}", format.name);
    }
}
