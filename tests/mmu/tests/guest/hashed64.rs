//! QEMU's POWER8 and POWER9 in hypervisor state (powernv8, powernv9) with hashed tables: SDR1, or
//! the partition table's entry for LPID 0, has the table, `slbmte` makes the segments. The guest is
//! radix's.

use textbed_arch::hashed::{
    HPT_2_07, HPT_3_0, HashEntry, HashFormat, HashTable, Keys, Rights, Segment,
};
use textbed_arch::paging::{Attempt, Privilege, Syndrome};
use textbed_arch::{PhysAddr, VirtAddr};
use textbed_mmu::cases::{CODE, Rng, USER_CODE, WHAT, WHO};

use crate::ask::{Access, Arch as _, End};
use crate::hashed::{Case, Machine, Page, accesses, arrive, disturb, rights};
use crate::powerpc::{self, LD, MSR, MSR_USER, PARTITION_TABLE, Powerpc, SC, SRR1_TOLD, STD};
use crate::qemu::{Answer, Guest, Machine as Qemu};

/// 2048 groups: the smallest that there is.
const TABLE: HashTable = HashTable { base: PhysAddr(0x60_0000), group_bits: 11 };

/// The segment of the code: 256 MiB at 0, pages of 4 KiB.
const CODE_SEGMENT: Segment = Segment {
    first: VirtAddr(0),
    shift: 28,
    id: 0x777,
    kernel_key: false,
    user_key: true,
    no_execute: false,
    base_shift: 12,
    direct_store: false,
};

/// The code's key, which no case shuts: the lowest bits of its register.
const CODE_KEY: u64 = 31;

/// POWER8 has entries of Power ISA 2.07.
pub(crate) static POWER8: Qemu =
    Qemu { arguments: &["-machine", "powernv8,memory-backend=m"], ..powerpc::MACHINE_9 };

pub(crate) struct Power64;

/// Writes what is always there: code, entries for it, and what leads to the table.
pub(crate) fn prepare(format: &HashFormat, guest: &Guest) {
    guest.put(CODE, u64::from(LD) << 32 | u64::from(SC));
    guest.put(CODE + 8, u64::from(STD) << 32 | u64::from(SC));
    // No tree; the smallest table is size 0.
    guest.put(PARTITION_TABLE, TABLE.base.0);
    guest.put(PARTITION_TABLE + 8, 0);
    for at in (TABLE.base.0..TABLE.base.0 + format.table_bytes(TABLE)).step_by(8) {
        guest.put(at, 0);
    }
    for va in [CODE, CODE + USER_CODE] {
        // To be read and executed by all, in the last slot: cases use the first ones.
        let entry = HashEntry {
            frame: PhysAddr(CODE),
            shift: 12,
            rights: Rights { key: CODE_KEY, ..rights(8, 3) },
            referenced: true,
            changed: false,
            software: 0,
        };
        let words = format.encode_entry(&CODE_SEGMENT, VirtAddr(va), &entry, false).unwrap();
        let group = format.group(TABLE, &CODE_SEGMENT, VirtAddr(va), false).unwrap().0;
        let last = group + 7 * format.entry_bytes();
        guest.put(last, words[0]);
        guest.put(last + 8, words[1]);
    }
    let direct = std::ptr::eq(format, &HPT_2_07);
    guest.set_own(if direct { TABLE.base.0 } else { PARTITION_TABLE });
    guest.set_second(0);
}

impl Machine for Power64 {
    fn table(&self) -> HashTable {
        TABLE
    }

    fn access(&self, case: &Case) -> Access {
        let user = case.who == Privilege::User;
        let mark = Powerpc.mark(case.frame);
        Access {
            code: if user { CODE + USER_CODE } else { CODE },
            mode: MSR | if user { MSR_USER } else { 0 },
            va: case.va,
            frame: case.frame,
            mark,
            executed: Powerpc.loaded(case.frame),
            loaded: mark,
            what: case.what,
        }
    }

    fn controls(&self, case: &Case) -> Vec<u64> {
        let code = code_segment();
        // Slot 1 for what is tried.
        vec![case.keys.amr, case.keys.iamr, code[0], code[1], case.segment[0] | 1, case.segment[1]]
    }

    fn ended(&self, case: &Case, answer: &Answer) -> End {
        let [vector, srr1, dsisr, dar, ..] = *answer;
        let told = |code| Syndrome { vector: vector as u32, code };
        match (vector, case.what) {
            (0xc00, _) => End::Done,
            (0x300, Attempt::Read | Attempt::Write) => End::Fault(told(dsisr), dar),
            (0x380, Attempt::Read | Attempt::Write) => End::Fault(told(0), dar),
            (0x400, Attempt::Exec) => End::Fault(told(srr1 & SRR1_TOLD), answer[11]),
            (0x480, Attempt::Exec) => End::Fault(told(0), answer[11]),
            _ => End::Strange,
        }
    }

    fn stored(&self, mark: u64) -> u64 {
        mark
    }
}

fn code_segment() -> [u64; 2] {
    HPT_3_0.encode_segment(&CODE_SEGMENT).unwrap()
}

/// Key 0 takes stores, loads, fetches.
fn keys(n: u64) -> Keys {
    Keys { amr: (n & 3) << 62, iamr: (n >> 2 & 1) << 62 }
}

/// A page of each size in each size of segment.
fn pages(format: &HashFormat) -> Vec<Page> {
    let mut all = Vec::new();
    for segment_shift in [28, 40] {
        for size in format.sizes.iter().filter(|size| size.base_shift < segment_shift) {
            let frame = match size.shift {
                34 => 0,
                24 => 0x300_0000,
                _ => 0x38_0000,
            };
            let segment = Segment {
                first: VirtAddr(1 << 40),
                shift: segment_shift,
                id: 0x1_2345,
                kernel_key: false,
                user_key: false,
                no_execute: false,
                base_shift: size.base_shift,
                direct_store: false,
            };
            let entry = HashEntry {
                frame: PhysAddr(frame),
                shift: size.shift,
                rights: rights(8, 2),
                referenced: false,
                changed: false,
                software: 0,
            };
            let column = match size.shift {
                12 => "4k",
                16 => "64k",
                24 => "16m",
                _ => "16g",
            };
            all.push(Page { segment, va: 1 << 40 | 0x30_4128, entry, column });
        }
    }
    all
}

/// Every combination of protection number, N, G, R and C, the segment's keys and N, key 0 of AMR
/// and IAMR, page size and segment size, privilege and access; `step`: one of so many.
pub(crate) fn every(format: &'static HashFormat, step: usize) -> impl Iterator<Item = Case> {
    pages(format).into_iter().flat_map(move |page| {
        // 5 bits of rights, R, C, Ks, Kp, N, 3 bits of key registers.
        (0..1u64 << 13).step_by(step).flat_map(move |n| {
            let mut page = page;
            page.entry.rights = rights(8, n & 31);
            page.entry.referenced = n >> 5 & 1 == 1;
            page.entry.changed = n >> 6 & 1 == 1;
            page.segment.kernel_key = n >> 7 & 1 == 1;
            page.segment.user_key = n >> 8 & 1 == 1;
            page.segment.no_execute = n >> 9 & 1 == 1;
            accesses().map(move |(who, what)| {
                let place = (n % 6, n % 3 == 0);
                let mut case = page.case(format, TABLE, place, who, what);
                case.keys = keys(n >> 10);
                case
            })
        })
    })
}

/// Cases at random: other segments and pages, keys, entries that do not match or lie elsewhere, two
/// entries, segments that are not valid or for another address.
pub(crate) fn sample(format: &'static HashFormat, n: usize) -> impl Iterator<Item = Case> {
    let mut rng = Rng(0x7465_7874_6265_6407);
    let plain = pages(format);
    (0..n).map(move |_| {
        let mut page = plain[rng.below(plain.len())];
        page.segment.id = rng.next() & if page.segment.shift == 28 { 0x7f_ffff } else { 0x7_ffff };
        page.segment.kernel_key = rng.one_in(2);
        page.segment.user_key = rng.one_in(2);
        page.segment.no_execute = rng.one_in(8);
        // The offset in the page stays: it is where the frame is looked at.
        let offset = 1u64 << page.entry.shift;
        let within = rng.next() & ((1 << page.segment.shift) - 1) & !(offset - 1);
        page.va = page.segment.first.0 | within | page.va & (offset - 1);
        page.entry.rights = rights(8, rng.next() & 31);
        page.entry.rights.key = rng.next() & 31;
        page.entry.software = rng.next() & 15;
        let place = (rng.next() % 6, rng.one_in(2));
        let (who, what) = (WHO[rng.below(2)], WHAT[rng.below(3)]);
        let mut case = page.case(format, TABLE, place, who, what);
        case.keys = match rng.below(3) {
            0 => Keys { amr: rng.next() & !3, iamr: rng.next() & !3 },
            _ => Keys::default(),
        };
        if rng.one_in(3) {
            disturb(format, TABLE, &mut case, &mut rng);
        }
        match rng.below(32) {
            0 => case.segment[0] &= !(1 << 27),
            1 => case.segment[0] ^= 1 << (40 + rng.below(20)),
            // Not the bits of a number that segments of 1 TiB have no use for.
            2 => case.segment[1] ^= 1 << (24 + rng.below(28)),
            _ => {}
        }
        arrive(format, &Power64, &mut case);
        case
    })
}
