//! Waiting: `hlt`, `mwait`, `wfi`, `wfe`, `wait`, `waitrsv` and `stop`.
//!
//! The CPU stands behind the instruction, is idle and takes no step ([`Step::Waits`]) until what
//! [`Wake`] names is there, which the machine knows, or an interrupt: one that can be taken ends
//! every wait, one that is masked those that heed it ([`Wake::by_masked`], and `mwait` with bit 0
//! of ECX). A loop around a wait for interrupts goes round once for each.
//!
//! Not modelled: waits that end early, or after a time: `mwaitx` with a timer does not wait. Hints
//! about how deeply to sleep have no effect.

use textbed_arch::{VirtAddr, effect::Wake};
use textbed_event::CpuState;
use textbed_machine::{CpuError, Machine, Step};

use crate::vcpu::Vcpu;

/// Number of x86's RCX.
const RCX: u8 = 1;
/// Bits of ECX: interrupts end the wait though they are masked; MWAITX: EBX has a time.
const BY_MASKED: u64 = 1;
const TIMED: u64 = 2;

/// What a CPU waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    /// The instruction.
    pc: u64,
    wake: Wake,
    /// An interrupt that is masked ends it, too.
    by_masked: bool,
}

impl Vcpu {
    /// The instruction at `pc` waits, unless what it waits for is there.
    pub(crate) fn wait(&mut self, m: &mut Machine, pc: u64, wake: Wake) -> Result<Step, CpuError> {
        let extensions = if wake == Wake::Line { self.general(RCX)? } else { 0 };
        let by_masked = wake.by_masked() || extensions & BY_MASKED != 0;
        let wait = Wait { pc, wake, by_masked };
        if extensions & TIMED != 0 || self.is_woken(m, wait)? {
            return Ok(Step::Ran);
        }
        self.interrupts.wait = Some(wait);
        m.set_cpu_state(self.id, CpuState::Idle)?;
        Ok(Step::Waits { virt: VirtAddr(pc), until: wake })
    }

    /// What a step of a CPU that waits comes to, if nothing has ended that.
    pub(crate) fn still_waits(&mut self, m: &mut Machine) -> Result<Option<Step>, CpuError> {
        let Some(wait) = self.interrupts.wait else { return Ok(None) };
        if !self.is_woken(m, wait)? {
            return Ok(Some(Step::Waits { virt: VirtAddr(wait.pc), until: wait.wake }));
        }
        self.stop_waiting(m)?;
        Ok(None)
    }

    pub(crate) fn waits(&self) -> bool {
        self.interrupts.wait.is_some()
    }

    /// If the CPU waits, it does no more.
    pub(crate) fn stop_waiting(&mut self, m: &mut Machine) -> Result<(), CpuError> {
        if self.interrupts.wait.take().is_some() {
            m.set_cpu_state(self.id, CpuState::Running)?;
        }
        Ok(())
    }

    fn is_woken(&self, m: &mut Machine, wait: Wait) -> Result<bool, CpuError> {
        let there = self.pending_interrupts() > 0 || m.pending_ipis(self.id) > 0;
        if there && (wait.by_masked || self.interrupts_enabled()?) {
            m.watch_nothing(self.id);
            return Ok(true);
        }
        Ok(m.wait_ends(self.id, wait.wake))
    }
}
