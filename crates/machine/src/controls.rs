//! Control registers that change translation, on each CPU.
//!
//! Modelled: CR0.WP; CR4.PGE (a change drops everything), PCIDE 1 to 0 (the same), SMEP (0 to 1
//! drops the current PCID); EFER.NXE; SCTLR_EL1.WXN; TCR_EL1.HA, HD, HPD1. A permission that a TLB
//! entry holds is as the registers were when it was filled, but for CR0.WP. Not modelled: paging
//! off, keys (their writes are events only), SCTLR_EL1.EIS and EOS (those are features of the
//! machine), LPCR.

use textbed_arch::effect::TlbScope;
use textbed_arch::{CpuId, SpaceId};
use textbed_event::{ControlRegister, Flags, OpId, View};

use crate::Machine;
use crate::tlb::TlbTarget;

const CR0_WP: u64 = 1 << 16;
const CR4_PGE: u64 = 1 << 7;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_SMEP: u64 = 1 << 20;
const EFER_NXE: u64 = 1 << 11;
const SCTLR_WXN: u64 = 1 << 19;
const TCR_HA: u64 = 1 << 39;
const TCR_HD: u64 = 1 << 40;
const TCR_HPD1: u64 = 1 << 42;

/// CR4 as Linux runs: PAE, PGE, PCIDE, SMEP.
const CR4_LINUX: u64 = 1 << 5 | CR4_PGE | CR4_PCIDE | CR4_SMEP;

/// The registers whose changes matter beyond the bits kept in `Controls`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    cr4: u64,
}

impl Default for Registers {
    fn default() -> Self {
        Self { cr4: CR4_LINUX }
    }
}

impl Machine {
    /// Writes a control register of a CPU: emits `Control` and does what a change of its modelled
    /// bits does.
    pub fn set_control(&mut self, cpu: CpuId, register: ControlRegister, value: u64) {
        self.write_control(cpu, register, value, OpId::NONE);
    }

    /// CR4 of a CPU (x86), as last written.
    #[must_use]
    pub fn cr4(&self, cpu: CpuId) -> u64 {
        self.cpus.get(cpu.index()).map_or(CR4_LINUX, |c| c.registers.cr4)
    }

    pub(crate) fn write_control(
        &mut self,
        cpu: CpuId,
        register: ControlRegister,
        value: u64,
        op: OpId,
    ) {
        let now = self.advance();
        let view = View::Control { register, value };
        self.emit_in(cpu, SpaceId::KERNEL, Flags::default(), op, view);
        let mut drop = None;
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            let on = |bit: u64| value & bit != 0;
            match register {
                ControlRegister::Cr0 => c.controls.x86_wp = on(CR0_WP),
                ControlRegister::Cr4 => {
                    let old = std::mem::replace(&mut c.registers.cr4, value);
                    c.controls.x86_smep = on(CR4_SMEP);
                    if (old ^ value) & CR4_PGE != 0 || old & !value & CR4_PCIDE != 0 {
                        drop = Some(TlbScope::All);
                    } else if !old & value & CR4_SMEP != 0 {
                        drop = Some(TlbScope::Space);
                    }
                }
                ControlRegister::Efer => c.controls.x86_nxe = on(EFER_NXE),
                ControlRegister::Sctlr => c.controls.arm_wxn = on(SCTLR_WXN),
                ControlRegister::Tcr => {
                    c.controls.arm_ha = on(TCR_HA);
                    c.controls.arm_hd = on(TCR_HD);
                    c.controls.arm_hpd = on(TCR_HPD1);
                }
                ControlRegister::Lpcr | ControlRegister::Keys | ControlRegister::Other => {}
            }
        }
        if let Some(scope) = drop {
            let asid = self.asid_of(cpu);
            let target = TlbTarget { scope, virt: 0, len: 0, asid, any: false, leaf: None };
            self.drop_translations(cpu, &target, now, false);
        }
    }
}
