//! QEMU's `max` CPU (pc), at CPL 0 and 3, with 4 or 5 levels.

use textbed_arch::VirtAddr;
use textbed_arch::paging::{Attempt, Format, Privilege, Refusal, Syndrome};
use textbed_mmu::cases::{CODE, CODE_TABLES, Case, LEVELS, Rng, TABLES, USER_CODE};
use textbed_mmu::x86;

use crate::ask::{Arch, End, Outcome, Seen};
use crate::qemu::{Answer, Guest, MEMORY, Machine};

pub(crate) static MACHINE: Machine = Machine {
    program: "qemu-system-x86_64",
    package: "qemu-system-x86",
    arguments: &["-machine", "pc,memory-backend=m"],
    image: ("-kernel", "elf/x86_64.elf"),
    base: 0,
    big_endian: false,
};

/// CPUs: without and with 5 levels.
pub(crate) const CPU: [[&str; 2]; 2] = [["-cpu", "max,la57=off"], ["-cpu", "max"]];

/// Memory that the guest is in and uses, in pages of 2 MiB: all before the frames' own end.
const OWN: u64 = MEMORY;

/// Of the error code: a reserved bit is set.
const RSVD: u64 = 1 << 3;
const AC: u64 = 1 << 18;

pub(crate) struct X86;

/// Writes what is always there: code, the tables that lead to it, and the guest's own memory.
pub(crate) fn prepare(format: &Format, guest: &Guest) {
    // mov rax, [rbx]; int3 and mov [rbx], rax; int3
    guest.put(CODE, 0xcc_038b48);
    guest.put(CODE + 8, 0xcc_038948);
    // Below entry 0 of the root: pages of code, the kernel's and a process's of the same bytes,
    // and the guest's memory for the kernel.
    let last = format.last_level();
    for level in 0..last {
        guest.put(CODE_TABLES[level], CODE_TABLES[level + 1] | 0x67);
    }
    for (at, flags) in [(CODE, 0x63u64), (CODE + USER_CODE, 0x67)] {
        let entry = CODE_TABLES[last] + format.index(last, VirtAddr(at)) * 8;
        guest.put(entry, CODE | flags);
    }
    for at in (1 << 21..OWN).step_by(1 << 21) {
        let entry = CODE_TABLES[last - 1] + format.index(last - 1, VirtAddr(at)) * 8;
        guest.put(entry, at | 0xe3);
    }
    guest.set_own(TABLES[0]);
}

impl Arch for X86 {
    /// `mov` into EAX, then `int3`.
    fn mark(&self, phys: u64) -> u64 {
        0xb8 | self.loaded(phys) << 8 | 0xcc << 40 | 0x9090 << 48
    }

    fn loaded(&self, phys: u64) -> u64 {
        phys >> 3
    }

    /// CR0, CR4, EFER, PKRU, IA32_PKRS, RFLAGS. PAE and SMAP are always on; AC switches SMAP.
    fn settings(&self, f: &Format, case: &Case) -> (u64, Vec<u64>) {
        let c = &case.controls;
        let bit = |on: bool, n: u32| u64::from(on) << n;
        let cr0 = 1 << 31 | 1 << 4 | 1 | bit(c.x86_wp, 16);
        let keys = bit(c.x86_pkru.is_some(), 22) | bit(c.x86_pkrs.is_some(), 24);
        let la57 = bit(f.levels.len() == 5, 12);
        let cr4 = 1 << 5 | 1 << 21 | la57 | bit(c.x86_smep, 20) | keys;
        let efer = 1 << 8 | 1 << 10 | bit(c.x86_nxe, 11);
        let [pkru, pkrs] = [c.x86_pkru, c.x86_pkrs].map(|keys| u64::from(keys.unwrap_or(0)));
        let rflags = 2 | if c.x86_smap { 0 } else { AC };
        (u64::from(case.who == Privilege::User), vec![cr0, cr4, efer, pkru, pkrs, rflags])
    }

    fn ended(&self, _: &Case, answer: &Answer) -> End {
        let [vector, code, _, cr2, ..] = *answer;
        match vector {
            3 => End::Done,
            13 | 14 => End::Fault(Syndrome { vector: vector as u32, code }, cr2),
            _ => End::Strange,
        }
    }

    /// CR2, which a general protection fault leaves alone.
    fn tells_address(&self, told: Syndrome) -> bool {
        told.vector == 14
    }

    /// Reserved bits: without P, which the manual says is set then.
    fn known(&self, _: &Format, _: &Case, ours: Outcome) -> Outcome {
        match ours.seen {
            Seen::Fault(told, at) if told.vector == 14 && told.code & RSVD != 0 => {
                let told = Syndrome { code: told.code & !1, ..told };
                Outcome { seen: Seen::Fault(told, at), ..ours }
            }
            _ => ours,
        }
    }

    /// A: an entry that the rights refuse was used or was not.
    fn may_change(&self) -> u64 {
        1 << 5
    }

    /// A is set in each entry that was used, and D in the leaf by a store. A walk that ends uses
    /// those above the entry that ended it; one that the rights end, the tables.
    fn entries_after(
        &self,
        _: &Format,
        case: &Case,
        result: Result<u64, Refusal>,
    ) -> [u64; LEVELS] {
        let mut entries = case.entries;
        let used = match result {
            Ok(_) => case.leaf + 1,
            Err(why) => why.level().unwrap_or(0),
        };
        for entry in entries.iter_mut().take(used) {
            *entry |= 1 << 5;
        }
        if result.is_ok() && case.what == Attempt::Write {
            entries[case.leaf] |= 1 << 6;
        }
        entries
    }
}

/// Cases at random, as Unicorn is asked and more: keys in half of the leaves, keys of the kernel,
/// and addresses that are not canonical.
pub(crate) fn sample(f: &'static Format, n: usize) -> impl Iterator<Item = Case> {
    let mut rng = Rng(0x7465_7874_6265_6405);
    let (mut pkru, mut pkrs) = (None, None);
    x86::sample(f, n).enumerate().map(move |(i, mut case)| {
        // Key 0, which the guest's own pages have, is always open.
        if i % 64 == 0 {
            pkru = rng.one_in(2).then(|| rng.next() as u32 & !3);
            pkrs = rng.one_in(2).then(|| rng.next() as u32 & !3);
        }
        case.controls.x86_pkru = pkru;
        case.controls.x86_pkrs = pkrs;
        if rng.one_in(2) {
            let leaf = &mut case.entries[case.leaf];
            *leaf = *leaf & !(0xf << 59) | (rng.below(16) as u64) << 59;
        }
        if rng.one_in(32) {
            let above = [f.va_bits - 1, f.va_bits, 60, 63];
            case.high = 1 << above[rng.below(above.len())];
        }
        case
    })
}
