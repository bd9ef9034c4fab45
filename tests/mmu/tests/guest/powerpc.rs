//! QEMU's POWER9 in hypervisor state (powernv): process-scoped radix trees of LPID 0.
//!
//! Its partition-scoped tree, which finds the process table, is there and never varied.

use textbed_arch::VirtAddr;
use textbed_arch::paging::{Attempt, Controls, Format, Privilege, Refusal, Syndrome};
use textbed_mmu::cases::{
    CODE, CODE_TABLES, Case, LEVELS, Rng, TABLES, USER_CODE, WHAT, WHO, choose, frame, leaves,
};

use crate::ask::{Arch, End};
use crate::qemu::{Answer, Guest, Machine};

pub(crate) static MACHINE: Machine = MACHINE_9;

pub(crate) const MACHINE_9: Machine = Machine {
    program: "qemu-system-ppc64",
    package: "qemu-system-ppc",
    arguments: &["-machine", "powernv9,memory-backend=m"],
    image: ("-bios", "elf/powerpc.bin"),
    base: 0,
    big_endian: true,
};

pub(crate) const LD: u32 = 0xe864_0000;
pub(crate) const STD: u32 = 0xf864_0000;
pub(crate) const SC: u32 = 0x4400_0002;

pub(crate) const PARTITION_TABLE: u64 = 0x50_0000;
const PARTITION_TREE: [u64; 2] = [0x52_0000, 0x51_0000];
const PROCESS_TABLE: u64 = 0x53_0000;
/// Trees of 52 bits, with 13 bits of index in the root.
const ROOT: u64 = 1 << 62 | 5 << 5 | 13;
const VALID: u64 = 1 << 63;
const LEAF: u64 = 1 << 62;
const R: u64 = 0x100;
const C: u64 = 0x80;

/// 64-bit, hypervisor, machine checks, relocation of both kinds, recoverable.
pub(crate) const MSR: u64 = 1 << 63 | 1 << 60 | 0x1032;
/// Problem state, which has external interrupts on.
pub(crate) const MSR_USER: u64 = 0xc000;

/// Radix trees (HR) by a process table (UPRT).
const LPCR: u64 = 0x50_0000;

/// Bits of SRR1 that say why a fetch was refused.
pub(crate) const SRR1_TOLD: u64 = 0x7fff_0000;

pub(crate) struct Powerpc;

/// Writes what is always there: code, the tables that lead to it, and what leads to the root.
pub(crate) fn prepare(format: &Format, guest: &Guest) {
    let last = format.last_level();
    for (at, word) in [
        (CODE, u64::from(LD) << 32 | u64::from(SC)),
        (CODE + 8, u64::from(STD) << 32 | u64::from(SC)),
        (PARTITION_TABLE, VALID | ROOT | PARTITION_TREE[0]),
        (PARTITION_TABLE + 8, PROCESS_TABLE),
        (PARTITION_TREE[0], VALID | PARTITION_TREE[1] | 9),
        (PARTITION_TREE[1], VALID | LEAF | R | C | 7),
        // The kernel's process and the one that runs have the same tree.
        (PROCESS_TABLE, ROOT | TABLES[0]),
        (PROCESS_TABLE + 16, ROOT | TABLES[0]),
    ] {
        guest.put(at, word);
    }
    for level in 0..last {
        let bits = format.levels[level + 1].index_bits;
        guest.put(CODE_TABLES[level], VALID | CODE_TABLES[level + 1] | u64::from(bits));
    }
    for (at, privileged) in [(CODE, 8), (CODE + USER_CODE, 0)] {
        let entry = CODE_TABLES[last] + format.index(last, VirtAddr(at)) * 8;
        guest.put(entry, VALID | LEAF | CODE | R | privileged | 5);
    }
    guest.set_own(PARTITION_TABLE);
    guest.set_second(LPCR);
}

impl Arch for Powerpc {
    /// `li` into r3, then `sc`.
    fn mark(&self, phys: u64) -> u64 {
        (0x3860_0000 | self.loaded(phys)) << 32 | u64::from(SC)
    }

    fn loaded(&self, phys: u64) -> u64 {
        phys >> 3 & 0x7fff
    }

    /// AMR and IAMR of key 0: neither stores nor loads; no fetches.
    fn settings(&self, _: &Format, case: &Case) -> (u64, Vec<u64>) {
        let mode = MSR | if case.who == Privilege::User { MSR_USER } else { 0 };
        let amr = if case.controls.ppc_kuap { 3 << 62 } else { 0 };
        let iamr = if case.controls.ppc_kuep { 1 << 62 } else { 0 };
        (mode, vec![amr, iamr])
    }

    fn ended(&self, case: &Case, answer: &Answer) -> End {
        let [vector, srr1, dsisr, dar, ..] = *answer;
        let told = |code| Syndrome { vector: vector as u32, code };
        let srr0 = answer[11];
        match (vector, case.what) {
            (0xc00, _) => End::Done,
            (0x300, Attempt::Read | Attempt::Write) => End::Fault(told(dsisr), dar),
            (0x380, Attempt::Read | Attempt::Write) => End::Fault(told(0), dar),
            (0x400 | 0x480, Attempt::Exec) => End::Fault(told(srr1 & SRR1_TOLD), srr0),
            _ => End::Strange,
        }
    }

    /// This CPU sets R and C itself.
    fn entries_after(
        &self,
        f: &Format,
        case: &Case,
        result: Result<u64, Refusal>,
    ) -> [u64; LEVELS] {
        let mut entries = case.entries;
        if result.is_ok() {
            let flag = |name| f.field(name).map_or(0, |field| field.mask());
            let changed = if case.what == Attempt::Write { flag("DIRTY") } else { 0 };
            entries[case.leaf] |= flag("ACCESSED") | changed;
        }
        entries
    }
}

/// EXEC, WRITE, READ, PRIVILEGED, DIRTY and ACCESSED of leaves.
const LEAF_BITS: [u32; 6] = [0, 1, 2, 3, 7, 8];

fn entries(f: &Format, leaf: usize, mut choice: u64) -> [u64; LEVELS] {
    let mut all = [0; LEVELS];
    for (level, entry) in all.iter_mut().enumerate().take(leaf + 1) {
        *entry = if level == leaf {
            choose(VALID | LEAF | frame(f, leaf, 0), &LEAF_BITS, &mut choice)
        } else {
            VALID | TABLES[level + 1] | u64::from(f.levels[level + 1].index_bits)
        };
    }
    all
}

fn controls(choice: usize) -> Controls {
    Controls { ppc_kuep: choice & 1 != 0, ppc_kuap: choice & 2 != 0, ..Controls::LINUX }
}

/// Bits of addresses of the process and of the kernel.
const QUADRANTS: [u64; 2] = [0, 3 << 62];

/// Every combination of the leaf's permission bits, R and C, leaf size, keys, quadrant, privilege
/// and access; the tables above have no such bits.
pub(crate) fn every(f: &'static Format) -> impl Iterator<Item = Case> {
    WHO.into_iter().flat_map(move |who| {
        (0..4).flat_map(move |c| {
            leaves(f).flat_map(move |leaf| {
                (0..64).flat_map(move |choice| {
                    QUADRANTS.into_iter().flat_map(move |high| {
                        WHAT.into_iter().map(move |what| {
                            let (entries, controls) = (entries(f, leaf, choice), controls(c));
                            Case { leaf, entries, high, controls, who, what }
                        })
                    })
                })
            })
        })
    })
}

/// Entries that grant everything to everybody, and control bits that take nothing.
pub(crate) fn open(f: &'static Format, leaf: usize) -> ([u64; LEVELS], Controls) {
    (entries(f, leaf, 7), controls(0))
}

/// Cases at random: some entries not valid, with other bits set, of the wrong kind, or pointing to
/// a table of another size.
pub(crate) fn sample(f: &'static Format, n: usize) -> impl Iterator<Item = Case> {
    let mut rng = Rng(0x7465_7874_6265_6403);
    (0..n).map(move |_| {
        let sizes: Vec<usize> = leaves(f).collect();
        let leaf = sizes[rng.below(sizes.len())];
        let mut all = entries(f, leaf, rng.next());
        for (level, entry) in all.iter_mut().enumerate().take(leaf + 1) {
            if rng.one_in(32) {
                *entry &= !VALID;
            }
            if rng.one_in(4) {
                // Of a leaf: RSV1, software's bits, keys. A table has none without a meaning.
                let free = [6, 9, 10, 11, 57, 58, 59, 60, 61];
                if level == leaf {
                    *entry ^= 1 << free[rng.below(free.len())];
                }
            }
            if rng.one_in(32) && level < leaf {
                *entry ^= 1 << rng.below(5);
            }
        }
        let (who, what) = (WHO[rng.below(2)], WHAT[rng.below(3)]);
        // Memory type: what is not idempotent is not executed, which is not modelled.
        if what != Attempt::Exec && rng.one_in(4) {
            all[leaf] ^= 1 << (4 + rng.below(2));
        }
        // Bits between the tree's and the quadrant's must be 0.
        let outside = if rng.one_in(16) { 1 << (52 + rng.below(10)) } else { 0 };
        let high = QUADRANTS[rng.below(2)] | outside;
        Case { leaf, entries: all, high, controls: controls(rng.below(4)), who, what }
    })
}
