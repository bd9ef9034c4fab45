//! Tests of the formats against values that the kernel computes, and of lookup by cases.

use super::field::{Part, get};
use super::*;
use crate::addr::VirtAddr;
use crate::paging::{Attempt, Privilege, Syndrome};
use crate::perm::Perm;

const VMALLOC: VirtAddr = VirtAddr(0xc008_0000_0012_3000);

fn kernel_segment(shift: u32, base_shift: u32) -> Segment {
    Segment {
        first: VirtAddr(VMALLOC.0 >> shift << shift),
        shift,
        id: if shift == 28 { 0x81_2345 } else { 0x1_2345 },
        kernel_key: false,
        user_key: true,
        no_execute: false,
        base_shift,
        direct_store: false,
    }
}

fn entry(shift: u32, protection: u64, no_execute: bool) -> HashEntry {
    HashEntry {
        frame: PhysAddr(0x300_0000),
        shift,
        rights: Rights { protection, no_execute, guarded: false, key: 0 },
        referenced: true,
        changed: false,
        software: 0,
    }
}

#[test]
fn every_bit_has_one_owner() {
    let mut n = 0;
    for f in HASH_FORMATS {
        for (what, fields) in [("entry", f.entry), ("segment", f.segment), ("block", f.block)] {
            for word in 0..2 {
                let mut owned = 0u64;
                for field in fields.iter().filter(|field| field.word == word) {
                    let name = format!("{} {what} {}", f.name, field.name);
                    assert_eq!(owned & field.mask(), 0, "{name} overlaps another field");
                    owned |= field.mask();
                    n += 1;
                }
                let all = if f.word_bytes == 8 { u64::MAX } else { u64::from(u32::MAX) };
                if !fields.is_empty() {
                    assert_eq!(owned, all, "{} {what} word {word}", f.name);
                }
            }
        }
    }
    assert!(n > 80, "{n}");
}

/// Linux's hpte_encode_avpn() and hpt_hash(), by their own arithmetic, which is of page numbers.
#[test]
fn tags_and_hashes_are_the_kernels() {
    for (shift, base_shift) in
        [(28, 12), (28, 16), (28, 24), (40, 12), (40, 16), (40, 24), (40, 34)]
    {
        let segment = kernel_segment(shift, base_shift);
        let page = (VMALLOC.0 >> 12) & ((1 << (shift - 12)) - 1);
        let vpn = segment.id << (shift - 12) | page;
        let avpnm = if base_shift <= 23 { 0 } else { (1u64 << (base_shift - 23)) - 1 };
        let v = ((vpn >> 11) & !avpnm) << 7 | u64::from(shift == 40) << 62;
        let made = HashEntry { frame: PhysAddr(0), ..entry(base_shift, 0, true) };
        let words = HPT_2_07.encode_entry(&segment, VMALLOC, &made, false).unwrap();
        assert_eq!(words[0] & !0x7f, v, "1 << {shift}, pages 1 << {base_shift}");
        let vsid = vpn >> (shift - 12);
        let low = (vpn & ((1 << (shift - 12)) - 1)) >> (base_shift - 12);
        let hash = if shift == 28 { vsid ^ low } else { vsid ^ vsid << 25 ^ low };
        let table = HashTable { base: PhysAddr(0), group_bits: 28 };
        let group = HPT_2_07.group(table, &segment, VMALLOC, false).unwrap();
        assert_eq!(group.0, (hash & 0xfff_ffff) * 8 * 16);
        let second = HPT_2_07.group(table, &segment, VMALLOC, true).unwrap();
        assert_eq!(second.0, (!hash & 0xfff_ffff) * 8 * 16);
        // hpte_old_to_new_v(), hpte_old_to_new_r().
        let new = HPT_3_0.encode_entry(&segment, VMALLOC, &made, false).unwrap();
        assert_eq!(new[0], words[0] & 0x000f_ffff_ffff_ffff);
        assert_eq!(new[1], words[1] & !(3 << 58) | (words[0] >> 62) << 58);
    }
}

#[test]
fn values_as_linux_writes_them() {
    // SLB_VSID_KERNEL of 1 TiB segments with 64 KiB pages: 1T, Kp, L with LP 1.
    let words = HPT_3_0.encode_segment(&kernel_segment(40, 16)).unwrap();
    assert_eq!(words[0], 0xc008_0000_0800_0000);
    assert_eq!(words[1] & 0xfff, 0x400 | 0x110);
    assert_eq!(words[1] >> 62, 1);
    assert_eq!(HPT_3_0.segment(words), Some(kernel_segment(40, 16)));
    assert_eq!(HPT_3_0.segment([words[0] & !(1 << 27), words[1]]), None, "not valid");
    assert_eq!(HPT_3_0.segment([words[0], words[1] | 3 << 62]), None, "no such size");
    assert_eq!(HPT_3_0.segment([words[0], words[1] & !0x100]), None, "no such pages");
    // Protection 6 (the kernel reads, a process has nothing), N, R, in a 64 KiB page of a segment
    // with 64 KiB pages.
    let words = HPT_2_07.encode_entry(&kernel_segment(40, 16), VMALLOC, &entry(16, 6, true), false);
    assert_eq!(words.unwrap()[1], 1 << 63 | 0x300_0000 | 1 << 12 | 0x106);
    // A segment register and an entry of 32 bits: VSID by Linux's 0x111 of the segment's number.
    let segment = HPT_32.segment([0xb000_0000, 0x2000_0bbb]).unwrap();
    assert_eq!((segment.id, segment.user_key, segment.kernel_key), (0xbbb, true, false));
    let words = HPT_32.encode_entry(&segment, VirtAddr(0xbf12_3000), &entry(12, 2, false), true);
    assert_eq!(words.unwrap(), [1 << 31 | 0xbbb << 7 | 1 << 6 | 0x3c, 0x300_0102]);
    // It has no N.
    let refused = HPT_32.encode_entry(&segment, VirtAddr(0xbf12_3000), &entry(12, 2, true), true);
    assert_eq!(refused, Err(HashError::TooLarge { what: "N", value: 1 }));
    let outside = HPT_32.encode_entry(&segment, VirtAddr(0xc000_0000), &entry(12, 2, false), true);
    assert!(matches!(outside, Err(HashError::OutsideSegment { .. })));
    let size = HPT_3_0.encode_entry(&kernel_segment(40, 16), VMALLOC, &entry(12, 2, false), false);
    assert!(matches!(size, Err(HashError::PageSize { base_shift: 16, shift: 12 })));
}

/// The smallest table, with one entry.
fn one(
    f: &HashFormat,
    segment: &Segment,
    e: &HashEntry,
    secondary: bool,
) -> impl FnMut(PhysAddr) -> Option<u64> {
    let table = HashTable { base: PhysAddr(0x4_0000), group_bits: 11 };
    let words = f.encode_entry(segment, VMALLOC, e, secondary).unwrap();
    let at = f.group(table, segment, VMALLOC, secondary).unwrap().0 + 3 * f.entry_bytes();
    let end = table.base.0 + f.table_bytes(table);
    let word_bytes = f.word_bytes;
    move |addr| match addr.0 {
        a if a == at => Some(words[0]),
        a if a == at + word_bytes => Some(words[1]),
        a if (0x4_0000..end).contains(&a) => Some(0),
        _ => None,
    }
}

#[test]
fn an_access_goes_by_segment_group_and_rights() {
    let table = HashTable { base: PhysAddr(0x4_0000), group_bits: 11 };
    let f = &HPT_3_0;
    let segment = kernel_segment(40, 16);
    let ask = |segment: Segment, e: &HashEntry, secondary, keys, who, what| {
        let segments = [segment];
        let mmu = HashMmu { table, segments: &segments, data_blocks: &[], fetch_blocks: &[], keys };
        let mut read = one(f, &segment, e, secondary);
        f.access(&mmu, VMALLOC, who, what, &mut read).map(|found| found.phys.0)
    };
    let (kernel, user) = (Privilege::Kernel, Privilege::User);
    let (r, w, x) = (Attempt::Read, Attempt::Write, Attempt::Exec);
    let none = Keys::default();
    let protection = HashRefusal::Rights { no_execute: false, protection: true, key: false };
    let no_execute = HashRefusal::Rights { no_execute: true, protection: false, key: false };
    let by_key = HashRefusal::Rights { no_execute: false, protection: false, key: true };
    for secondary in [false, true] {
        // The kernel's text: PP 110 without N. The address keeps its offset in the page.
        let text = entry(16, 6, false);
        assert_eq!(ask(segment, &text, secondary, none, kernel, x), Ok(0x300_3000));
        assert_eq!(ask(segment, &text, secondary, none, kernel, r), Ok(0x300_3000));
        assert_eq!(ask(segment, &text, secondary, none, kernel, w), Err(protection));
        assert_eq!(ask(segment, &text, secondary, none, user, r), Err(protection));
    }
    let data = entry(16, 0, true);
    assert_eq!(ask(segment, &data, false, none, kernel, w), Ok(0x300_3000));
    assert_eq!(ask(segment, &data, false, none, kernel, x), Err(no_execute));
    let shut = Segment { no_execute: true, ..segment };
    assert_eq!(ask(shut, &entry(16, 6, false), false, none, kernel, x), Err(HashRefusal::Segment));
    let amr = Keys { amr: 1 << 63, iamr: 0 };
    assert_eq!(ask(segment, &data, false, amr, kernel, w), Err(by_key));
    assert_eq!(ask(segment, &data, false, amr, kernel, r), Ok(0x300_3000));
    // Numbers without a row grant nothing.
    assert_eq!(ask(segment, &entry(16, 5, false), false, none, kernel, r), Err(protection));
    let no_segment = Segment { first: VirtAddr(0), ..segment };
    let segments = [no_segment];
    let mmu =
        HashMmu { table, segments: &segments, data_blocks: &[], fetch_blocks: &[], keys: none };
    let nowhere = f.access(&mmu, VMALLOC, kernel, r, &mut |_| None);
    assert_eq!(nowhere, Err(HashRefusal::NoSegment));
    assert_eq!(f.effective(&data.rights, &segment).letters(), "rw-");
    assert_eq!(
        f.effective(&entry(16, 2, false).rights, &segment),
        (Perm::KERNEL_RWX - Perm::GLOBAL) | Perm::USER | Perm::USER_EXEC
    );
}

#[test]
fn what_does_not_match_is_not_found() {
    let (f, segment) = (&HPT_2_07, kernel_segment(40, 16));
    let words = f.encode_entry(&segment, VMALLOC, &entry(16, 0, true), false).unwrap();
    assert!(f.matches(words, &segment, VMALLOC, false));
    // Valid, secondary, large, tag, segment size; the page size.
    for (word, bit) in [(0, 0), (0, 1), (0, 2), (0, 7), (0, 50), (0, 62), (1, 12), (1, 15)] {
        let mut other = words;
        other[word] ^= 1 << bit;
        assert!(!f.matches(other, &segment, VMALLOC, false), "word {word} bit {bit}");
    }
    assert!(!f.matches(words, &segment, VMALLOC, true));
    // Software bits, rights, R and C are not compared.
    let same = [words[0] | 0x78, words[1] ^ (1 << 63 | 0xf9f)];
    assert!(f.matches(same, &segment, VMALLOC, false));
    let small = kernel_segment(40, 12);
    assert!(!f.matches(words, &small, VMALLOC, false), "another base page size");
}

#[test]
fn blocks_go_before_segments() {
    // 8 MiB at 0xc0000000, for the kernel, read only; another for all.
    let words = [0xc000_0000 | 0x3f << 2 | 2, 0x0180_0000 | 1];
    let block = HPT_32.block(words).unwrap();
    assert_eq!((block.mask, block.phys), (0x7f_ffff, PhysAddr(0x180_0000)));
    assert!(block.holds(VirtAddr(0xc07f_ffff), Privilege::Kernel));
    assert!(!block.holds(VirtAddr(0xc080_0000), Privilege::Kernel));
    assert!(!block.holds(VirtAddr(0xc000_0000), Privilege::User));
    assert_eq!(HPT_32.block([words[0] & !3, words[1]]), None);
    assert_eq!(HPT_3_0.block(words), None, "64-bit has none");
    let segments: Vec<Segment> =
        (0..16).filter_map(|n| HPT_32.segment([n << 28, 1 << 31 | n])).collect();
    let mmu = HashMmu {
        table: HashTable { base: PhysAddr(0), group_bits: 10 },
        segments: &segments,
        data_blocks: &[block],
        fetch_blocks: &[],
        keys: Keys::default(),
    };
    let ask =
        |what| HPT_32.access(&mmu, VirtAddr(0xc012_3456), Privilege::Kernel, what, &mut |_| None);
    let found = ask(Attempt::Read).unwrap();
    assert_eq!((found.phys, found.shift, found.slot), (PhysAddr(0x192_3456), 23, None));
    let refused = HashRefusal::Rights { no_execute: false, protection: true, key: false };
    assert_eq!(ask(Attempt::Write), Err(refused));
    // Fetches have blocks of their own, and here none: the segment is a direct-store one.
    assert_eq!(ask(Attempt::Exec), Err(HashRefusal::DirectStore));
}

#[test]
fn handlers_are_told_the_cause() {
    let told =
        |why, what| HPT_3_0.syndrome(why, what).map(|Syndrome { vector, code }| (vector, code));
    let (r, w, x) = (Attempt::Read, Attempt::Write, Attempt::Exec);
    assert_eq!(told(HashRefusal::NoEntry, w), Some((0x300, 0x4200_0000)));
    assert_eq!(told(HashRefusal::NoSegment, w), Some((0x380, 0)));
    assert_eq!(told(HashRefusal::NoSegment, x), Some((0x480, 0)));
    assert_eq!(told(HashRefusal::Segment, x), Some((0x400, 0x1000_0000)));
    let all = HashRefusal::Rights { no_execute: true, protection: true, key: true };
    assert_eq!(told(all, x), Some((0x400, 0x1020_0000)));
    let both = HashRefusal::Rights { no_execute: false, protection: true, key: true };
    assert_eq!(told(both, r), Some((0x300, 0x0820_0000)));
    assert_eq!(told(HashRefusal::OutsideMemory { addr: PhysAddr(0) }, r), None);
    assert_eq!(told(HashRefusal::DirectStore, r), None);
}

#[test]
fn fields_of_a_part_do_not_share_bits_of_its_value() {
    for f in HASH_FORMATS {
        for field in f.entry {
            let mut one = [0; 2];
            one[field.word] = field.mask();
            let others: Vec<HashField> = f.entry.iter().filter(|o| *o != field).copied().collect();
            let rest = get(&others, [u64::MAX; 2], field.part);
            if !matches!(field.part, Part::Reserved) {
                assert_eq!(get(f.entry, one, field.part) & rest, 0, "{} {}", f.name, field.name);
            }
        }
    }
}
