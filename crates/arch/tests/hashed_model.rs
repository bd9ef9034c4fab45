//! Hashed tables edited at random against a flat map, and hostile ones.
//!
//! The model is a map from page to (frame, rights). After every operation a lookup of every page
//! says what the model says; pages are of segments whose numbers hash alike, so that groups
//! overflow into secondary ones and fill.

// A test fails by panicking.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use textbed_arch::hashed::{
    GROUP, HASH_FORMATS, HashEntry, HashError, HashFormat, HashMemory, HashMmu, HashTable, Keys,
    Rights, Segment,
};
use textbed_arch::paging::{Attempt, Privilege};
use textbed_arch::{PhysAddr, VirtAddr};

#[derive(Default)]
struct Memory(HashMap<u64, u64>);

impl HashMemory for Memory {
    fn word(&self, addr: PhysAddr) -> Option<u64> {
        self.0.get(&addr.0).copied()
    }

    fn set_word(&mut self, addr: PhysAddr, value: u64) -> bool {
        self.0.get_mut(&addr.0).map(|word| *word = value).is_some()
    }
}

/// The smallest table.
fn table(f: &HashFormat) -> HashTable {
    HashTable { base: PhysAddr(0x4_0000), group_bits: f.least_group_bits() }
}

fn memory(f: &HashFormat) -> Memory {
    let table = table(f);
    let words = f.table_bytes(table) / f.word_bytes;
    Memory((0..words).map(|n| (table.base.0 + n * f.word_bytes, 0)).collect())
}

/// Page `page`: an even one and an odd one side by side in each of many segments.
fn place(f: &HashFormat, n: usize, page: u64) -> (Segment, VirtAddr) {
    let plain = segment(f, n);
    let segment = Segment { id: plain.id + (page >> 1 << 12), ..plain };
    (segment, segment.first.offset((page & 1) << segment.base_shift | 0x128))
}

/// Segments that a format has, by number.
fn segment(f: &HashFormat, n: usize) -> Segment {
    let wide = f.word_bytes == 8 && n & 1 == 1;
    let sizes: Vec<u32> = f.sizes.iter().map(|s| s.base_shift).collect();
    let shift = if wide { 40 } else { 28 };
    // A segment of 256 MiB has no pages of 16 GiB.
    let fitting: Vec<u32> = sizes.into_iter().filter(|s| *s < shift).collect();
    Segment {
        first: VirtAddr(if f.word_bytes == 8 { 0xc008_0000_0000_0000 } else { 0xb000_0000 }),
        shift,
        id: 0x1234 + n as u64,
        kernel_key: n & 2 == 2,
        user_key: n & 4 == 4,
        no_execute: false,
        base_shift: fitting[n / 2 % fitting.len()],
        direct_store: false,
    }
}

/// Page sizes of a segment.
fn shifts(f: &HashFormat, s: &Segment) -> Vec<u32> {
    f.sizes.iter().filter(|size| size.base_shift == s.base_shift).map(|size| size.shift).collect()
}

fn rights(f: &HashFormat, bits: u64) -> Rights {
    let wide = f.word_bytes == 8;
    Rights {
        protection: bits & if wide { 7 } else { 3 },
        no_execute: wide && bits & 8 != 0,
        guarded: bits & 16 != 0,
        key: if wide { bits >> 5 & 31 } else { 0 },
    }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u64, u64),
    Protect(u64, u64),
    Remove(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..PAGES, 0..4096u64, any::<u64>()).prop_map(|(p, f, r)| Op::Insert(p, f, r)),
        1 => (0..PAGES, any::<u64>()).prop_map(|(p, r)| Op::Protect(p, r)),
        1 => (0..PAGES).prop_map(Op::Remove),
    ]
}

/// More than four groups have entries.
const PAGES: u64 = 40;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None,
        ..ProptestConfig::default() })]

    #[test]
    fn tables_follow_the_model(
        which in 0..HASH_FORMATS.len(),
        n in 0..64usize,
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let f = HASH_FORMATS[which];
        let table = table(f);
        let base = segment(f, n).base_shift;
        let mut memory = memory(f);
        let mut model: BTreeMap<u64, (u64, Rights)> = BTreeMap::new();
        for op in &ops {
            let (Op::Insert(page, ..) | Op::Protect(page, _) | Op::Remove(page)) = *op;
            let (segment, va) = place(f, n, page);
            match *op {
                Op::Insert(_, frame, bits) => {
                    if model.contains_key(&page) {
                        continue;
                    }
                    let (phys, rights) = (frame << base, rights(f, bits));
                    if f.word_bytes == 4 && phys >> 32 != 0 {
                        continue;
                    }
                    let entry = HashEntry {
                        frame: PhysAddr(phys),
                        shift: base,
                        rights,
                        referenced: false,
                        changed: false,
                        software: 0,
                    };
                    match f.insert(&mut memory, table, &segment, va, &entry) {
                        Ok(_) => { model.insert(page, (phys, rights)); }
                        // Both groups are full of pages that hash alike.
                        Err(e) => {
                            prop_assert_eq!(e, HashError::Full);
                            let alike = model.keys().filter(|p| *p & 1 == page & 1).count();
                            prop_assert_eq!(alike as u64, 2 * GROUP);
                        }
                    }
                }
                Op::Protect(_, bits) => {
                    let found = f.find_in(&memory, table, &segment, va);
                    prop_assert_eq!(found.is_ok(), model.contains_key(&page));
                    let (Ok(slot), rights) = (found, rights(f, bits)) else { continue };
                    f.protect(&mut memory, &slot, &rights).unwrap();
                    model.get_mut(&page).unwrap().1 = rights;
                }
                Op::Remove(_) => {
                    let found = f.find_in(&memory, table, &segment, va);
                    prop_assert_eq!(found.is_ok(), model.remove(&page).is_some());
                    if let Ok(slot) = found {
                        f.remove(&mut memory, &slot).unwrap();
                    }
                }
            }
            for page in 0..PAGES {
                let (segment, va) = place(f, n, page);
                let found = f.find_in(&memory, table, &segment, va).ok();
                let said = found.and_then(|slot| f.decode_entry(slot.words, &segment));
                let said = said.map(|e| (e.frame.0, e.rights));
                prop_assert_eq!(said, model.get(&page).copied(), "{} page {}", f.name, page);
            }
        }
    }

    /// An entry decodes to what was encoded, in its segment and no other.
    #[test]
    fn entries_round_trip(
        which in 0..HASH_FORMATS.len(),
        n in 0..64usize,
        size in 0..8usize,
        frame: u64,
        bits: u64,
        page: u64,
        secondary: bool,
    ) {
        let f = HASH_FORMATS[which];
        let segment = segment(f, n);
        prop_assert_eq!(f.segment(f.encode_segment(&segment).unwrap()), Some(segment));
        let shifts = shifts(f, &segment);
        let shift = shifts[size % shifts.len()];
        let va = segment.first.offset(page & ((1 << segment.shift) - 1));
        let bound = if f.word_bytes == 8 { 1u64 << 57 } else { 1 << 32 };
        let entry = HashEntry {
            frame: PhysAddr(((frame % bound) >> shift) << shift),
            shift,
            rights: rights(f, bits),
            referenced: bits >> 40 & 1 == 1,
            changed: bits >> 41 & 1 == 1,
            software: if f.word_bytes == 8 { bits >> 42 & 15 } else { 0 },
        };
        let words = f.encode_entry(&segment, va, &entry, secondary).unwrap();
        prop_assert!(f.matches(words, &segment, va, secondary));
        prop_assert!(!f.matches(words, &segment, va, !secondary));
        prop_assert_eq!(f.decode_entry(words, &segment), Some(entry));
        let other = Segment { id: segment.id ^ 0x100, ..segment };
        prop_assert!(!f.matches(words, &other, va, secondary));
        prop_assert!(f.word_bytes == 8 || (words[0] | words[1]) >> 32 == 0);
    }

    /// Whatever is in memory, a lookup reads each group once and ends.
    #[test]
    fn hostile_tables_end(which in 0..HASH_FORMATS.len(), seed: u64, va: u64, bits in 0..64u32) {
        let f = HASH_FORMATS[which];
        let segments: Vec<Segment> = (0..8).map(|n| segment(f, n)).collect();
        let mmu = HashMmu {
            table: HashTable { base: PhysAddr(seed & !0xffff), group_bits: bits % 40 },
            segments: &segments,
            data_blocks: &[],
            fetch_blocks: &[],
            keys: Keys { amr: seed, iamr: !seed },
        };
        let mut reads = 0u64;
        let mut read = |addr: PhysAddr| {
            reads += 1;
            let mix = (addr.0 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (!mix.is_multiple_of(64)).then_some(mix)
        };
        let at = segments[0].first.offset(va & 0xfff_ffff);
        let _ = f.access(&mmu, at, Privilege::Kernel, Attempt::Read, &mut read);
        prop_assert!(reads <= 2 * 2 * GROUP);
    }
}
