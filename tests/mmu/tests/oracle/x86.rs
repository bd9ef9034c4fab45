//! Unicorn's x86-64 MMU: 4-level tables, real accesses at CPL 0 and 3.
//!
//! Code runs from pages of its own (root index 0 for the kernel, 1 for a process). Not asked: error
//! codes (the engine does not show them), and accesses through other than the one address.

use textbed_arch::VirtAddr;
use textbed_arch::paging::{Attempt, Controls, Format, Privilege};
use unicorn_engine::{Arch, Context, Mode, Prot, RegisterX86, Unicorn};

use textbed_mmu::cases::{
    CODE, CODE_TABLES, Case, LEVELS, MEMORY, Rng, TABLES, USER_CODE, WHAT, WHO, choose, frame,
    reached, va,
};

use crate::Mmu;

const GDT: u64 = 0x9000;
const STACK: u64 = 0xa800;
/// Icelake-Server: SMEP, SMAP, NX, 1 GiB pages, protection keys.
const MODEL: i32 = 26;
const EFER: u32 = 0xc000_0080;
const AC: u64 = 1 << 18;

pub(crate) struct Cpu {
    uc: Unicorn<'static, ()>,
    format: &'static Format,
    contexts: [Context; 2],
    /// What the control registers hold.
    set: Option<(Controls, Privilege)>,
}

/// Marks of the frame at `phys`: an instruction that loads it into EAX.
fn marked(phys: u64) -> [u8; 8] {
    let [a, b, c, d] = ((phys >> 3) as u32).to_le_bytes();
    [0xb8, a, b, c, d, 0x90, 0x90, 0x90]
}

fn control_bytes(value: u64) -> [u8; 16] {
    // The engine's structure for a model-specific register: number, padding, value.
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&EFER.to_le_bytes());
    bytes[8..].copy_from_slice(&value.to_le_bytes());
    bytes
}

impl Cpu {
    pub(crate) fn new(format: &'static Format) -> Self {
        let mut uc = Unicorn::new(Arch::X86, Mode::MODE_64).unwrap();
        uc.ctl_set_cpu_model(MODEL).unwrap();
        uc.mem_map(0, MEMORY, Prot::ALL).unwrap();
        // mov rax, [rbx]; mov [rbx], rax; iretq; wrpkru
        let code = [0x48, 0x8b, 0x03, 0x48, 0x89, 0x03, 0x48, 0xcf, 0x0f, 0x01, 0xef];
        uc.mem_write(CODE, &code).unwrap();
        let gdt: [u64; 5] = [
            0,
            0x00af_9a00_0000_ffff,
            0x00cf_9200_0000_ffff,
            0x00cf_f200_0000_ffff,
            0x00af_fa00_0000_ffff,
        ];
        for (i, descriptor) in gdt.iter().enumerate() {
            uc.mem_write(GDT + 8 * i as u64, &descriptor.to_le_bytes()).unwrap();
        }
        let mut gdtr = [0u8; 24];
        gdtr[8..16].copy_from_slice(&GDT.to_le_bytes());
        gdtr[16..20].copy_from_slice(&0x27u32.to_le_bytes());
        uc.reg_write_long(RegisterX86::GDTR, &gdtr).unwrap();
        // Code pages that are always there, below entry 0 of the root: the kernel's, and a
        // process's of the same bytes.
        let last = format.last_level();
        for level in 0..last {
            let next = CODE_TABLES[level + 1] | 0x67;
            uc.mem_write(CODE_TABLES[level], &next.to_le_bytes()).unwrap();
        }
        for (at, flags) in [(CODE, 0x63u64), (CODE + USER_CODE, 0x67)] {
            let entry = CODE_TABLES[last] + format.index(last, VirtAddr(at)) * 8;
            uc.mem_write(entry, &(CODE | flags).to_le_bytes()).unwrap();
        }
        let kernel = {
            let mut c = uc.context_alloc().unwrap();
            uc.context_save(&mut c).unwrap();
            c
        };
        for (i, value) in [CODE, 0x23, 2, STACK, 0x1b].into_iter().enumerate() {
            uc.mem_write(STACK - 64 + 8 * i as u64, &u64::to_le_bytes(value)).unwrap();
        }
        uc.reg_write(RegisterX86::RSP, STACK - 64).unwrap();
        uc.emu_start(CODE + 6, 0, 0, 1).unwrap();
        let mut user = uc.context_alloc().unwrap();
        uc.context_save(&mut user).unwrap();
        Self { uc, format, contexts: [kernel, user], set: None }
    }

    fn set_controls(&mut self, c: &Controls, who: Privilege) {
        if self.set == Some((*c, who)) {
            return;
        }
        self.uc.context_restore(&self.contexts[usize::from(who == Privilege::User)]).unwrap();
        let bit = |on: bool, n: u32| u64::from(on) << n;
        let la57 = bit(self.format.levels.len() == 5, 12);
        let cr4 = 1 << 5 | la57 | bit(c.x86_smep, 20) | 1 << 21 | bit(c.x86_pkru.is_some(), 22);
        self.uc.reg_write(RegisterX86::CR4, cr4).unwrap();
        self.uc.reg_write(RegisterX86::CR3, TABLES[0]).unwrap();
        let efer = 1 << 8 | 1 << 10 | bit(c.x86_nxe, 11);
        self.uc.reg_write_long(RegisterX86::MSR, &control_bytes(efer)).unwrap();
        self.uc.reg_write(RegisterX86::CR0, 1 << 31 | 1 | bit(c.x86_wp, 16)).unwrap();
        // SMAP is always on; AC switches it.
        self.uc.reg_write(RegisterX86::RFLAGS, 2 | if c.x86_smap { 0 } else { AC }).unwrap();
        if let Some(pkru) = c.x86_pkru {
            let base = if who == Privilege::User { USER_CODE } else { 0 };
            self.uc.reg_write(RegisterX86::RAX, u64::from(pkru)).unwrap();
            self.uc.reg_write(RegisterX86::RCX, 0).unwrap();
            self.uc.reg_write(RegisterX86::RDX, 0).unwrap();
            self.uc.emu_start(base + CODE + 8, 0, 0, 1).unwrap();
        }
        self.set = Some((*c, who));
    }
}

impl Mmu for Cpu {
    fn answer(&mut self, case: &Case) -> Option<u64> {
        self.set_controls(&case.controls, case.who);
        let f = self.format;
        for (level, table) in TABLES.iter().enumerate().take(case.leaf + 1) {
            let at = table + f.index(level, VirtAddr(va(f, 0))) * 8;
            self.uc.mem_write(at, &case.entries[level].to_le_bytes()).unwrap();
        }
        let (va, reached) = (va(f, 0), reached(f, case.leaf, 0));
        self.uc.ctl_flush_tlb().unwrap();
        let base = if case.who == Privilege::User { USER_CODE } else { 0 };
        self.uc.reg_write(RegisterX86::RBX, va).unwrap();
        let mark = marked(reached);
        let start = match case.what {
            Attempt::Read => {
                self.uc.mem_write(reached, &mark).unwrap();
                self.uc.reg_write(RegisterX86::RAX, 0).unwrap();
                base + CODE
            }
            Attempt::Write => {
                self.uc.mem_write(reached, &[0; 8]).unwrap();
                self.uc.reg_write(RegisterX86::RAX, u64::from_le_bytes(mark)).unwrap();
                base + CODE + 3
            }
            Attempt::Exec => {
                self.uc.mem_write(reached, &mark).unwrap();
                self.uc.reg_write(RegisterX86::RAX, 0).unwrap();
                va
            }
        };
        if self.uc.emu_start(start, 0, 0, 1).is_err() {
            return None;
        }
        // A fetch that faults ends the run with neither error nor progress.
        if self.uc.reg_read(RegisterX86::RIP).unwrap() == start {
            return None;
        }
        let seen = match case.what {
            Attempt::Read => {
                self.uc.reg_read(RegisterX86::RAX).unwrap() == u64::from_le_bytes(mark)
            }
            Attempt::Write => self.uc.mem_read_as_vec(reached, 8).unwrap() == mark,
            Attempt::Exec => self.uc.reg_read(RegisterX86::RAX).unwrap() == reached >> 3,
        };
        // An access that went elsewhere is an answer too, and a wrong one.
        Some(if seen { reached } else { u64::MAX })
    }
}

/// Bits of every level that concern permissions: P, RW, US, NX.
const BITS: [u32; 4] = [0, 1, 2, 63];

/// An entry with everything else right: A and D set, the table or frame, PS.
fn plain(f: &Format, level: usize, leaf: usize) -> u64 {
    let size = if level < f.last_level() && level == leaf { 1 << 7 } else { 0 };
    let to = if level == leaf { frame(f, leaf, 0) } else { TABLES[level + 1] };
    to | 1 << 5 | 1 << 6 | size
}

fn entries(f: &Format, leaf: usize, mut choice: u64) -> [u64; LEVELS] {
    let mut all = [0; LEVELS];
    for (level, entry) in all.iter_mut().enumerate().take(leaf + 1) {
        *entry = choose(plain(f, level, leaf), &BITS, &mut choice);
    }
    all
}

/// Levels of leaves.
fn leaves(f: &'static Format) -> impl Iterator<Item = usize> {
    (0..f.levels.len()).filter(|l| f.levels[*l].leaf_allowed)
}

fn controls(choice: usize) -> Controls {
    Controls {
        x86_wp: choice & 1 != 0,
        x86_smep: choice & 2 != 0,
        x86_smap: choice & 4 != 0,
        x86_nxe: choice & 8 != 0,
        // The engine's physical addresses have 40 bits.
        x86_pa_bits: 40,
        ..Controls::LINUX
    }
}

/// Every combination of permission bits of every level, leaf size, control bits, privilege and
/// access. With NXE off the bits of NX are reserved, and one setting of the others is enough.
pub(crate) fn every(f: &'static Format) -> impl Iterator<Item = Case> {
    WHO.into_iter().flat_map(move |who| {
        (0..16).flat_map(move |c| {
            leaves(f).flat_map(move |leaf| {
                (0..1u64 << (4 * (leaf + 1))).flat_map(move |choice| {
                    WHAT.into_iter().map(move |what| {
                        let (entries, controls) = (entries(f, leaf, choice), controls(c));
                        Case { leaf, entries, high: 0, controls, who, what }
                    })
                })
            })
        })
    })
}

/// Cases at random, most of them present at every level; some with other bits set: reserved ones,
/// accessed and dirty clear, software bits, global, memory types, keys.
pub(crate) fn sample(f: &'static Format, n: usize) -> impl Iterator<Item = Case> {
    let mut rng = Rng(0x7465_7874_6265_6401);
    let mut setting = (controls(15), WHO[0]);
    (0..n).map(move |i| {
        // Controls change seldom: that is what costs.
        if i % 64 == 0 {
            setting = (controls(rng.below(16)), WHO[rng.below(2)]);
            if rng.one_in(4) {
                setting.0.x86_pkru = Some(rng.next() as u32 & !3);
            }
        }
        let last = f.last_level();
        let leaf = last - rng.below(3);
        let mut all = entries(f, leaf, rng.next());
        for (level, entry) in all.iter_mut().enumerate().take(leaf + 1) {
            if !rng.one_in(32) {
                *entry |= 1;
            }
            if !rng.one_in(4) {
                *entry &= !(1 << 63);
            }
            if !rng.one_in(3) {
                *entry |= 4;
            }
            if rng.one_in(8) {
                let others = [3, 4, 5, 6, 8, 9, 10, 11, 52, 55, 57, 58, 59, 60, 61, 62];
                *entry ^= 1 << others[rng.below(others.len())];
            }
            // Malformed: bits of the address beyond the CPU's, PS where there is none, bits of a
            // large leaf's address that must be zero.
            if rng.one_in(40) {
                *entry |= [1 << 41, 1 << 51, 1 << 45][rng.below(3)];
            }
            if rng.one_in(40) && (level + 3 < last + 1 || level == leaf && leaf < last) {
                *entry |= if level + 3 < last + 1 { 1 << 7 } else { 1 << (13 + rng.below(7)) };
            }
            if rng.one_in(40) && level == last {
                *entry ^= 1 << 7;
            }
        }
        let (controls, who) = setting;
        Case { leaf, entries: all, high: 0, controls, who, what: WHAT[rng.below(3)] }
    })
}
