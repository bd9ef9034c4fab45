//! Unicorn's arm64 MMU: stage 1 of EL1&0 with each granule and root level, real accesses at EL1
//! and EL0.
//!
//! Not asked: what QEMU 5.0.1 does not check (reserved descriptor bits, blocks at level 0) or lacks
//! (hardware management of the Access flag and of dirty state, LPA2, permission indirection).

use textbed_arch::VirtAddr;
use textbed_arch::paging::{Attempt, Controls, Format, Privilege};
use unicorn_engine::{Arch, Mode, Prot, RegisterARM64, RegisterARM64CP, Unicorn};

use textbed_mmu::cases::{CODE, CODE_TABLES, Case, MEMORY, TABLES, USER_CODE, reached, va};

use crate::Mmu;

/// The model with every feature.
const MODEL: i32 = 3;
const LDR: u32 = 0xf940_0020;
const STR: u32 = 0xf900_0020;
const NOP: u32 = 0xd503_201f;
const PAN: u64 = 1 << 22;

pub(crate) struct Cpu {
    uc: Unicorn<'static, ()>,
    format: &'static Format,
    set: Option<(Controls, Privilege)>,
}

/// Marks of the frame at `phys`: an instruction that loads part of its address into X0.
fn marked(phys: u64) -> [u8; 8] {
    let movz = 0xd280_0000 | ((phys >> 8 & 0xffff) as u32) << 5;
    (u64::from(movz) | u64::from(NOP) << 32).to_le_bytes()
}

impl Cpu {
    pub(crate) fn new(format: &'static Format) -> Self {
        let mut uc = Unicorn::new(Arch::ARM64, Mode::LITTLE_ENDIAN).unwrap();
        uc.ctl_set_cpu_model(MODEL).unwrap();
        uc.ctl_set_page_size(4096).unwrap();
        uc.mem_map(0, MEMORY, Prot::ALL).unwrap();
        let code = u64::from(LDR) | u64::from(STR) << 32;
        uc.mem_write(CODE, &code.to_le_bytes()).unwrap();
        // Pages with AF, read-only, below entry 0 of the root: EL1's, and EL0's of the same bytes.
        let last = format.last_level();
        for level in 0..last {
            let next = CODE_TABLES[level + 1] | 3;
            uc.mem_write(CODE_TABLES[level], &next.to_le_bytes()).unwrap();
        }
        for (at, flags) in [(CODE, 0x783 | 1u64 << 54), (CODE + USER_CODE, 0x7c3)] {
            let entry = CODE_TABLES[last] + format.index(last, VirtAddr(at)) * 8;
            uc.mem_write(entry, &(CODE | flags).to_le_bytes()).unwrap();
        }
        let mut cpu = Self { uc, format, set: None };
        // EL1 is AArch64 and not secure: SCR_EL3.RW and NS, HCR_EL2.RW.
        cpu.system_of(6, 1, 1, 0, 1 << 10 | 1);
        cpu.system_of(4, 1, 1, 0, 1 << 31);
        // MAIR: index 0 is normal memory. TTBR0 and TTBR1: the root.
        cpu.system(10, 2, 0, 0xff);
        cpu.system(2, 0, 0, TABLES[0]);
        cpu.system(2, 0, 1, TABLES[0]);
        cpu
    }

    /// Writes a system register of op0 = 3, op1 = 0.
    fn system(&mut self, crn: u32, crm: u32, op2: u32, val: u64) {
        self.system_of(0, crn, crm, op2, val);
    }

    fn system_of(&mut self, op1: u32, crn: u32, crm: u32, op2: u32, val: u64) {
        let register = RegisterARM64CP { crn, crm, op0: 3, op1, op2, val };
        self.uc.reg_write_arm64_coproc(&register).unwrap();
    }

    fn set_controls(&mut self, c: &Controls, who: Privilege) {
        if self.set == Some((*c, who)) {
            return;
        }
        let mode = if who == Privilege::User { 0 } else { 5 };
        let pstate = mode | if c.arm_pan { PAN } else { 0 };
        self.uc.reg_write(RegisterARM64::PSTATE, pstate).unwrap();
        // The same bits on both sides, the granule, 48 bits of physical address, HPD0 and HPD1.
        let hpd = if c.arm_hpd { 3 << 41 } else { 0 };
        let (tg0, tg1) = match self.format.page_shift {
            14 => (2, 1),
            16 => (1, 3),
            _ => (0, 2),
        };
        let size = u64::from(64 - self.format.va_bits);
        self.system(2, 0, 2, size | size << 16 | tg0 << 14 | tg1 << 30 | 5 << 32 | hpd);
        // M, C, SA, I and what is RES1; WXN.
        let wxn = u64::from(c.arm_wxn) << 19;
        self.system(1, 0, 0, 0x30d0_0800 | 1 | 1 << 2 | 1 << 12 | wxn);
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
        self.uc.reg_write(RegisterARM64::X1, va).unwrap();
        let mark = marked(reached);
        let (before, x0, start) = match case.what {
            Attempt::Read => (mark, 0, base + CODE),
            Attempt::Write => ([0; 8], u64::from_le_bytes(mark), base + CODE + 4),
            Attempt::Exec => (mark, 0, va),
        };
        self.uc.mem_write(reached, &before).unwrap();
        self.uc.reg_write(RegisterARM64::X0, x0).unwrap();
        if self.uc.emu_start(start, 0, 0, 1).is_err() {
            return None;
        }
        // A fetch that faults ends the run with neither error nor progress.
        if self.uc.reg_read(RegisterARM64::PC).unwrap() == start {
            return None;
        }
        let x0 = self.uc.reg_read(RegisterARM64::X0).unwrap();
        let seen = match case.what {
            Attempt::Read => x0 == u64::from_le_bytes(mark),
            Attempt::Write => self.uc.mem_read_as_vec(reached, 8).unwrap() == mark,
            Attempt::Exec => x0 == reached >> 8 & 0xffff,
        };
        Some(if seen { reached } else { u64::MAX })
    }
}
