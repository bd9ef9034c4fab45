//! QEMU's `max` CPU (pc), at CPL 0 and 3, with 4 or 5 levels.

use textbed_arch::VirtAddr;
use textbed_arch::paging::{Attempt, Format, Privilege, Refusal, Syndrome};
use textbed_mmu::cases::{CODE, CODE_TABLES, Case, LEVELS, Rng, TABLES, USER_CODE, reached, va};
use textbed_mmu::x86;

use crate::qemu::{AFTER, Answer, BEFORE, CONTROLS, FRAME, Guest, MODE, Machine, PC, REGISTER};
use crate::qemu::{MEMORY, Raw, VA};
use crate::{Arch, Outcome, Seen};

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

pub(crate) struct X86 {
    format: &'static Format,
}

/// Marks of the frame at `phys`: an instruction that loads it into EAX, then `int3`.
fn mark(phys: u64) -> u64 {
    0xb8 | loaded(phys) << 8 | 0xcc << 40 | 0x9090 << 48
}

fn loaded(phys: u64) -> u64 {
    phys >> 3
}

impl X86 {
    pub(crate) fn new(format: &'static Format, guest: &Guest) -> Self {
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
        Self { format }
    }
}

impl Arch for X86 {
    fn va(&self, format: &Format, case: &Case) -> u64 {
        va(format, 0) | case.high
    }

    fn told(&self, format: &Format, case: &Case, told: Syndrome) -> u64 {
        // CR2, which a general protection fault leaves alone.
        if told.vector == 14 { self.va(format, case) } else { 0 }
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

    fn ask(&self, case: &Case) -> Raw {
        let (f, c) = (self.format, &case.controls);
        let mut raw = [0; 24];
        let va = self.va(f, case);
        for (level, table) in TABLES.iter().enumerate() {
            // Levels below the leaf: something to write that nobody reads.
            let at = if level <= case.leaf { f.index(level, VirtAddr(va)) * 8 } else { 0xfff8 };
            raw[2 * level] = table + at;
            raw[2 * level + 1] = case.entries[level];
        }
        let frame = reached(f, case.leaf, 0);
        let user = case.who == Privilege::User;
        let code = if user { CODE + USER_CODE } else { CODE };
        let (pc, register, before) = match case.what {
            Attempt::Read => (code, 0, mark(frame)),
            Attempt::Write => (code + 8, mark(frame), 0),
            Attempt::Exec => (va, 0, mark(frame)),
        };
        raw[PC] = pc;
        raw[MODE] = u64::from(user);
        raw[VA] = va;
        raw[REGISTER] = register;
        raw[FRAME] = frame;
        raw[BEFORE] = before;
        let bit = |on: bool, n: u32| u64::from(on) << n;
        raw[CONTROLS] = 1 << 31 | 1 << 4 | 1 | bit(c.x86_wp, 16);
        // PAE and SMAP are always on; AC switches SMAP.
        raw[CONTROLS + 1] = 1 << 5
            | 1 << 21
            | bit(f.levels.len() == 5, 12)
            | bit(c.x86_smep, 20)
            | bit(c.x86_pkru.is_some(), 22)
            | bit(c.x86_pkrs.is_some(), 24);
        raw[CONTROLS + 2] = 1 << 8 | 1 << 10 | bit(c.x86_nxe, 11);
        raw[CONTROLS + 3] = u64::from(c.x86_pkru.unwrap_or(0));
        raw[CONTROLS + 4] = u64::from(c.x86_pkrs.unwrap_or(0));
        raw[CONTROLS + 5] = 2 | if c.x86_smap { 0 } else { AC };
        raw
    }

    fn read(&self, case: &Case, answer: &Answer) -> Seen {
        let [vector, code, _, cr2, rax, ..] = *answer;
        match vector {
            3 => {
                let frame = reached(self.format, case.leaf, 0);
                let seen = match case.what {
                    Attempt::Read => rax == mark(frame),
                    Attempt::Write => answer[AFTER] == mark(frame),
                    Attempt::Exec => rax == loaded(frame),
                };
                // An access that went elsewhere is an answer too, and a wrong one.
                Seen::Reached(if seen { frame } else { u64::MAX })
            }
            13 | 14 => Seen::Fault(Syndrome { vector: vector as u32, code }, cr2),
            _ => Seen::Strange(*answer),
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
