//! QEMU's 750 (g3beige): a hashed table by SDR1, segment registers, and a block each of data and of
//! fetches. The guest is of its own.

use textbed_arch::hashed::{HashEntry, HashFormat, HashRefusal, HashTable, Keys, Segment, Words};
use textbed_arch::paging::{Attempt, Privilege, Syndrome};
use textbed_arch::{PhysAddr, VirtAddr};
use textbed_mmu::cases::{CODE, Rng, USER_CODE, WHAT, WHO};

use crate::ask::{Access, End, Outcome, Seen};
use crate::hashed::{Case, Machine, Page, accesses, arrive, disturb, ours, result, rights};
use crate::qemu::{Answer, Guest, Machine as Qemu};

pub(crate) static MACHINE: Qemu = Qemu {
    program: "qemu-system-ppc",
    package: "qemu-system-ppc",
    arguments: &["-machine", "g3beige,memory-backend=m", "-cpu", "750"],
    image: ("-bios", "elf/powerpc32.elf"),
    base: 0,
    big_endian: true,
};

const LWZ: u64 = 0x8064_0000;
const STW: u64 = 0x9064_0000;
const LI: u64 = 0x3860_0000;
const SC: u64 = 0x4400_0002;

/// Machine checks, vectors above, relocation of both kinds, recoverable.
const MSR: u64 = 0x1072;
const MSR_USER: u64 = 0x4000;

/// 1024 groups: the smallest that there is.
const TABLE: HashTable = HashTable { base: PhysAddr(0x60_0000), group_bits: 10 };

/// The segment of the code.
const CODE_SEGMENT: Words = [0, 0x2000_0777];

pub(crate) struct Power32;

pub(crate) fn prepare(format: &HashFormat, guest: &Guest) {
    guest.put(CODE, LWZ << 32 | SC);
    guest.put(CODE + 8, STW << 32 | SC);
    for at in (TABLE.base.0..TABLE.base.0 + format.table_bytes(TABLE)).step_by(8) {
        guest.put(at, 0);
    }
    let segment = format.segment(CODE_SEGMENT).unwrap();
    for va in [CODE, CODE + USER_CODE] {
        let entry = HashEntry { frame: PhysAddr(CODE), ..plain().entry };
        let entry = HashEntry { rights: rights(4, 3), ..entry };
        let words = format.encode_entry(&segment, VirtAddr(va), &entry, false).unwrap();
        let group = format.group(TABLE, &segment, VirtAddr(va), false).unwrap().0;
        guest.put(group + 7 * format.entry_bytes(), words[0] << 32 | words[1]);
    }
    guest.set_own(TABLE.base.0);
}

impl Machine for Power32 {
    fn table(&self) -> HashTable {
        TABLE
    }

    fn access(&self, case: &Case) -> Access {
        let user = case.who == Privilege::User;
        let part = case.frame >> 3 & 0x7fff;
        Access {
            code: if user { CODE + USER_CODE } else { CODE },
            mode: MSR | if user { MSR_USER } else { 0 },
            va: case.va,
            frame: case.frame,
            mark: (LI | part) << 32 | SC,
            executed: part,
            loaded: LI | part,
            what: case.what,
        }
    }

    fn controls(&self, case: &Case) -> Vec<u64> {
        [case.segment, CODE_SEGMENT, case.blocks[0], case.blocks[1]].concat()
    }

    fn ended(&self, case: &Case, answer: &Answer) -> End {
        let [vector, srr1, dsisr, dar, ..] = *answer;
        let told = |code| Syndrome { vector: vector as u32, code };
        match (vector, case.what) {
            (0xc00, _) => End::Done,
            (0x300, Attempt::Read | Attempt::Write) => End::Fault(told(dsisr), dar),
            (0x400, Attempt::Exec) => End::Fault(told(srr1 & 0x7fff_0000), answer[11]),
            _ => End::Strange,
        }
    }

    /// The upper half.
    fn stored(&self, mark: u64) -> u64 {
        mark & !0xffff_ffff
    }

    /// This MMU executes whatever is not in a segment with N: what PP grants to nobody, and what
    /// is guarded.
    fn known(&self, format: &HashFormat, case: &Case, ours_says: Outcome) -> Outcome {
        let why = result(format, self, case);
        let refused = matches!(why, Err(HashRefusal::Rights { .. }));
        if case.what != Attempt::Exec || !refused || in_block(format, case) {
            return ours_says;
        }
        let read = Case { what: Attempt::Read, ..open(format, case) };
        let as_read = ours(format, self, &read);
        match as_read.seen {
            Seen::Reached(_) => as_read,
            _ => ours_says,
        }
    }
}

/// Whether the block of fetches translates the case.
fn in_block(format: &HashFormat, case: &Case) -> bool {
    let block = format.block(case.blocks[1]);
    block.is_some_and(|block| block.holds(VirtAddr(case.va), case.who))
}

/// The case with keys that refuse nothing, and without blocks: PP 0 to 2 grant all under key 0, 3
/// grants reading.
fn open(_: &HashFormat, case: &Case) -> Case {
    let mut open = *case;
    open.segment[1] &= !(3 << 29);
    open.blocks = [[0; 2]; 2];
    open
}

fn plain() -> Page {
    Page {
        segment: Segment {
            first: VirtAddr(0xb000_0000),
            shift: 28,
            id: 0x1_2345,
            kernel_key: false,
            user_key: false,
            no_execute: false,
            base_shift: 12,
            direct_store: false,
        },
        va: 0xb030_4128,
        entry: HashEntry {
            frame: PhysAddr(0x38_0000),
            shift: 12,
            rights: rights(4, 2),
            referenced: false,
            changed: false,
            software: 0,
        },
        column: "page",
    }
}

/// Every combination of PP, G, R and C, the segment's keys and N, privilege and access, in each
/// slot of both groups; and every one of a block's PP, Vs, Vp and a page below it.
pub(crate) fn every(format: &'static HashFormat) -> impl Iterator<Item = Case> {
    let pages = (0..1u64 << 12).flat_map(move |n| {
        let mut page = plain();
        page.entry.rights = rights(4, n & 3);
        page.entry.rights.guarded = n >> 2 & 1 == 1;
        page.entry.referenced = n >> 3 & 1 == 1;
        page.entry.changed = n >> 4 & 1 == 1;
        page.segment.kernel_key = n >> 5 & 1 == 1;
        page.segment.user_key = n >> 6 & 1 == 1;
        page.segment.no_execute = n >> 7 & 1 == 1;
        let place = (n >> 8 & 7, n >> 11 & 1 == 1);
        accesses().map(move |(who, what)| page.case(format, TABLE, place, who, what))
    });
    let blocks = (0..1u64 << 8).flat_map(move |n| {
        accesses().map(move |(who, what)| {
            let mut case = plain().case(format, TABLE, (0, false), who, what);
            let block = [0xb000_0000 | 0x7ff << 2 | n & 3, n >> 2 & 3];
            let other = [0xb000_0000 | 0x1f << 2 | n >> 4 & 3, n >> 6 & 3];
            case.blocks = if n & 1 == 0 { [block, other] } else { [other, block] };
            case.column = "block";
            arrive(format, &Power32, &mut case);
            case
        })
    });
    pages.chain(blocks)
}

/// Cases at random: other segments and pages, entries that do not match or lie elsewhere, two
/// entries, blocks of each size near the address.
pub(crate) fn sample(format: &'static HashFormat, n: usize) -> impl Iterator<Item = Case> {
    let mut rng = Rng(0x7465_7874_6265_6408);
    (0..n).map(move |_| {
        let mut page = plain();
        let number = 1 + rng.below(15) as u64;
        page.segment.first = VirtAddr(number << 28);
        page.segment.id = rng.next() & 0xff_ffff;
        page.segment.kernel_key = rng.one_in(2);
        page.segment.user_key = rng.one_in(2);
        page.segment.no_execute = rng.one_in(8);
        page.va = number << 28 | rng.next() & 0xfff_f000 | 0x128;
        page.entry.frame = PhysAddr(0x30_0000 | (rng.next() & 0xff) << 12);
        page.entry.rights = rights(4, rng.next() & 3);
        page.entry.rights.guarded = rng.one_in(16);
        let place = (rng.next() % 6, rng.one_in(2));
        let (who, what) = (WHO[rng.below(2)], WHAT[rng.below(3)]);
        let mut case = page.case(format, TABLE, place, who, what);
        if rng.one_in(3) {
            disturb(format, TABLE, &mut case, &mut rng);
        }
        if rng.one_in(4) {
            // Frames where there is memory and nothing else.
            for block in &mut case.blocks {
                let length = (1u64 << rng.below(12)) - 1;
                let mask = length << 17 | 0x1_ffff;
                let near = case.va ^ if rng.one_in(3) { 1 << (17 + rng.below(11)) } else { 0 };
                let valid = rng.next() & 3;
                let frame = 0x1000_0000 | rng.next() & 0x1ffe_0000;
                *block = [
                    near & !mask & 0xfffe_0000 | length << 2 | valid,
                    frame & !mask | rng.next() & 3,
                ];
            }
            case.column = "block";
        }
        if rng.one_in(32) {
            case.segment[1] ^= 1 << rng.below(24);
        }
        arrive(format, &Power32, &mut case);
        case.keys = Keys::default();
        case
    })
}
