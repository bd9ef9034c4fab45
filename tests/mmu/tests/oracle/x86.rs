//! Unicorn's x86-64 MMU: 4-level tables, real accesses at CPL 0 and 3.
//!
//! Code runs from pages of its own (root index 0 for the kernel, 1 for a process). Not asked: error
//! codes (the engine does not show them), and accesses through other than the one address.

use textbed_arch::VirtAddr;
use textbed_arch::paging::{Attempt, Controls, Format, Privilege};
use unicorn_engine::{Arch, Context, Mode, Prot, RegisterX86, Unicorn};

use textbed_mmu::cases::{CODE, CODE_TABLES, Case, MEMORY, TABLES, USER_CODE, reached, va};

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
