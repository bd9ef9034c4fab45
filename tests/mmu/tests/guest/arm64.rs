//! QEMU's `max` CPU at EL1 and EL0 (virt): stage 1 by TTBR0 with each granule, of 48 and 52 bits.

use textbed_arch::VirtAddr;
use textbed_arch::paging::{Attempt, Controls, Format, Privilege, Refusal, Syndrome};
use textbed_mmu::arm64;
use textbed_mmu::cases::{CODE, CODE_TABLES, Case, LEVELS, Rng, TABLES, USER_CODE};

use crate::ask::{Arch, End, Outcome, ours as say};
use crate::qemu::{Answer, Guest, Machine};

pub(crate) static MACHINE: Machine = Machine {
    program: "qemu-system-aarch64",
    package: "qemu-system-arm",
    arguments: &["-machine", "virt,memory-backend=m", "-cpu", "max"],
    image: ("-device", "elf/arm64.elf"),
    base: BASE,
    big_endian: false,
};

pub(crate) const BASE: u64 = 0x4000_0000;

const LDR: u64 = 0xf940_0020;
const STR: u64 = 0xf900_0020;
const SVC: u64 = 0xd400_0001;
const PAN: u64 = 1 << 22;
/// All interrupts masked; EL1 with its own stack, or EL0.
const EL1: u64 = 0x3c5;
const EL0: u64 = 0x3c0;
/// What the other side, where the guest is, has of TCR: 39 bits, 4 KiB.
const TCR_HIGH: u64 = 25 << 16 | 2 << 30;
/// M, C, I and what is RES1.
const SCTLR: u64 = 0x30d0_1805;

/// Physical sizes in bits, as IPS numbers them.
const SIZES: [u32; 7] = [32, 36, 40, 42, 44, 48, 52];

/// Class of a system call.
const EC_SVC: u64 = 0x15;
/// Kinds of abort that come from the bus: of the access, and of a walk.
const EXTERNAL: [u64; 6] = [0x10, 0x13, 0x14, 0x15, 0x16, 0x17];

pub(crate) struct Arm64;

/// Writes what is always there: code, and the tables that lead to it.
pub(crate) fn prepare(format: &Format, guest: &Guest) {
    guest.put(CODE, LDR | SVC << 32);
    guest.put(CODE + 8, STR | SVC << 32);
    // Pages with AF, read-only, below entry 0 of the root: EL1's, and EL0's of the same bytes.
    let last = format.last_level();
    for level in 0..last {
        guest.put(CODE_TABLES[level], (BASE + CODE_TABLES[level + 1]) | 3);
    }
    for (at, flags) in [(CODE, 0x483 | 1 << 54), (CODE + USER_CODE, 0x4c3)] {
        let entry = CODE_TABLES[last] + format.index(last, VirtAddr(at)) * 8;
        guest.put(entry, (BASE + CODE) | flags);
    }
}

/// TCR of a format and a physical size.
fn tcr(f: &Format, pa_bits: u32) -> u64 {
    let granule = match f.page_shift {
        14 => 2,
        16 => 1,
        _ => 0,
    };
    let lpa2 = f.va_bits == 52 && f.page_shift != 16;
    let size = SIZES.iter().position(|bits| *bits == pa_bits).unwrap() as u64;
    let own = u64::from(64 - f.va_bits) | granule << 14 | u64::from(lpa2) << 59;
    TCR_HIGH | own | size << 32
}

impl Arch for Arm64 {
    fn base(&self) -> u64 {
        BASE
    }

    /// `movz` into X0, then `svc`.
    fn mark(&self, phys: u64) -> u64 {
        0xd280_0000 | self.loaded(phys) << 5 | SVC << 32
    }

    fn loaded(&self, phys: u64) -> u64 {
        phys >> 8 & 0xffff
    }

    fn settings(&self, f: &Format, case: &Case) -> (u64, Vec<u64>) {
        let c = &case.controls;
        let level = if case.who == Privilege::User { EL0 } else { EL1 };
        let mode = level | if c.arm_pan { PAN } else { 0 };
        let bit = |on: bool, n: u32| u64::from(on) << n;
        let managed = bit(c.arm_ha, 39) | bit(c.arm_hd, 40) | bit(c.arm_hpd, 41);
        let tcr = tcr(f, c.arm_pa_bits) | managed;
        (mode, vec![tcr, SCTLR | bit(c.arm_wxn, 19), BASE + TABLES[0]])
    }

    fn ended(&self, case: &Case, answer: &Answer) -> End {
        let [vector, esr, _, far, ..] = *answer;
        let class = esr >> 26;
        let abort = if case.what == Attempt::Exec { 0x20 } else { 0x24 };
        if class == EC_SVC {
            End::Done
        } else if class & !1 != abort {
            End::Strange
        } else if EXTERNAL.contains(&(esr & 0x3f)) {
            End::Nowhere
        } else {
            End::Fault(Syndrome { vector: vector as u32, code: esr }, far)
        }
    }

    fn is_memory(&self, phys: u64) -> bool {
        phys >> 30 == 1
    }

    /// This MMU takes a page with DBM for writable only when it is stored to: WXN and the rule
    /// about pages that EL0 may write do not see it when it is executed.
    fn known(&self, format: &Format, case: &Case, ours: Outcome) -> Outcome {
        if case.what != Attempt::Exec {
            return ours;
        }
        let mut taken = *case;
        taken.controls.arm_hd = false;
        say(format, self, &taken)
    }

    /// AF is set, and RDONLY cleared by a store to a page with DBM, where hardware may.
    fn entries_after(
        &self,
        _: &Format,
        case: &Case,
        result: Result<u64, Refusal>,
    ) -> [u64; LEVELS] {
        let mut entries = case.entries;
        let leaf = &mut entries[case.leaf];
        if case.controls.arm_ha && result.is_ok() {
            *leaf |= 1 << 10;
            if case.controls.arm_hd && case.what == Attempt::Write && *leaf >> 51 & 1 == 1 {
                *leaf &= !(1 << 7);
            }
        }
        entries
    }
}

/// Entries that grant all data accesses to everybody, and control bits that take nothing.
pub(crate) fn open(f: &'static Format, leaf: usize) -> ([u64; LEVELS], Controls) {
    // USER and AF.
    let controls = Controls { arm_pa_bits: f.pa_bits, ..arm64::controls(0) };
    (arm64::entries(f, BASE, leaf, 5 << (4 * leaf)), controls)
}

/// Bits of an entry that hold bits of the address where there is no memory.
fn far_bits(f: &Format) -> Vec<u32> {
    match (f.va_bits, f.page_shift) {
        (52, 16) => (42..48).chain(12..16).collect(),
        (52, _) => (42..50).chain(8..10).collect(),
        // Not bit 39, where devices are; each size of 32 bits and more ends below another one.
        _ => vec![33, 37, 41, 43, 45, 47],
    }
}

/// Cases at random, as Unicorn is asked and more: addresses outside of the tree, and physical ones
/// outside of memory, with each physical size where a format has 48 bits.
pub(crate) fn sample(f: &'static Format, n: usize) -> impl Iterator<Item = Case> {
    let mut rng = Rng(0x7465_7874_6265_6404);
    let far = far_bits(f);
    let mut size = 0;
    arm64::sample(f, BASE, n, arm64::ALL_CONTROLS).enumerate().map(move |(i, mut case)| {
        if i % 64 == 0 {
            size = if f.va_bits == 52 { 52 } else { SIZES[rng.below(6)] };
        }
        case.controls.arm_pa_bits = size;
        if rng.one_in(32) {
            // Bit 55 would be the other side.
            let above = [f.va_bits, 54, 56, 63];
            case.high = 1 << above[rng.below(above.len())];
        }
        if rng.one_in(8) {
            let level = rng.below(case.leaf + 1);
            case.entries[level] ^= 1 << far[rng.below(far.len())];
        }
        case
    })
}

/// Every combination of one table's and the leaf's permission bits, with every control bit.
pub(crate) fn every(f: &'static Format) -> impl Iterator<Item = Case> {
    arm64::every(f, BASE, 1, arm64::ALL_CONTROLS).map(|mut case| {
        case.controls.arm_pa_bits = f.pa_bits;
        case
    })
}
