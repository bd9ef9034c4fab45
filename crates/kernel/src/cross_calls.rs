//! Cross-calls, and which calls send one.
//!
//! Modelled: an interrupt to every other CPU that is waited for; a sender with interrupts off warns
//! (as with CONFIG_PROVE_LOCKING) and sends all the same; a receiver with interrupts off is waited
//! for. Who sends stands in the call table ([`CallSpec::sends`]): what sends and does not say so
//! there fails where it is begun, in debug builds. From: Linux 5.18 to 7.0 kernel/smp.c
//! smp_call_function_many_cond(), which asserts with lockdep since 5.13. Not modelled: callbacks
//! that nobody waits for; a wait in the middle of a call that is not made of steps: such a call
//! begins when all others take interrupts, as if it had come later, so what others do while it
//! waits is not seen from inside. Who can never begin is begun all the same
//! ([`Kernel::begin_anyway`]), which shows whether it has to wait.

use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::WarnReason;
use textbed_machine::{CpuMask, Machine, MachineError};

use crate::calls::CallSpec;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::phases::Wait;

/// What runs on each CPU of a cross-call.
pub(crate) type OnCpu<'a> = &'a mut dyn FnMut(&mut Machine, CpuId) -> Result<(), MachineError>;

/// For what a call interrupts others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// To invalidate translations, where the hardware does not broadcast that.
    Flush,
    /// To have code run there.
    Itself,
    /// To invalidate translations of what was freed before, or of a table that this left empty:
    /// not before anything was unmapped.
    Unmapped,
}

impl Kernel {
    /// Whether a flush of kernel translations interrupts other CPUs.
    pub(crate) fn flushes_by_interrupt(&self) -> bool {
        match self.arch {
            Arch::X86_64 => !self.uses_invlpgb(),
            Arch::Arm64 => false,
            _ => !self.features.contains(textbed_arch::Features::PPC_TLBIE),
        }
    }

    /// Whether a call may interrupt other CPUs.
    pub(crate) fn may_interrupt(&self, call: &CallSpec) -> bool {
        call.sends.iter().any(|(by, archs)| {
            archs.contains(&self.arch)
                && match by {
                    By::Itself => true,
                    By::Flush => self.flushes_by_interrupt(),
                    By::Unmapped => self.flushes_by_interrupt() && self.unmapped,
                }
        })
    }

    /// What a call waits for before it begins: one of steps waits where it comes to it.
    pub(crate) fn held_back(&self, cpu: CpuId, spec: &CallSpec) -> Option<Wait> {
        let whole = !spec.steps.contains(&self.arch);
        if whole && self.may_interrupt(spec) { self.receivers_off(cpu) } else { None }
    }

    /// What is to stand where others are interrupted: `Waits` unless all of them take it now.
    pub(crate) fn interrupts_others(&self, cpu: CpuId) -> Result<(), Stop> {
        debug_assert!(
            self.beginning.is_none_or(|call| self.may_interrupt(call)),
            "{:?} interrupts others on {}, of which its row says nothing",
            self.beginning.map(|call| call.name),
            self.arch
        );
        self.receivers_off(cpu).map_or(Ok(()), |wait| Err(Stop::Waits(wait)))
    }

    /// `on_each_cpu(function, wait)`.
    pub(crate) fn on_each_cpu(
        &mut self,
        cpu: CpuId,
        function: &str,
        handler: OnCpu<'_>,
    ) -> Result<(), Stop> {
        self.on_other_cpus(cpu, function, handler)?;
        Ok(handler(&mut self.machine, cpu)?)
    }

    /// `smp_call_function(function, wait)`.
    pub(crate) fn on_other_cpus(
        &mut self,
        cpu: CpuId,
        function: &str,
        handler: OnCpu<'_>,
    ) -> Result<(), Stop> {
        let targets = self.online().collect::<CpuMask>().without(cpu);
        if targets == CpuMask::EMPTY {
            return Ok(());
        }
        if !self.machine.irqs_on(cpu) {
            self.warn_once(cpu, "smp: irqs off", WarnReason::WrongContext, VirtAddr(0));
        }
        self.interrupts_others(cpu)?;
        Ok(self.machine.ipi(cpu, targets, function, true, handler)?)
    }
}

#[cfg(test)]
mod tests {
    use textbed_event::Need;

    use crate::calls::CALLS;
    use crate::needs::NEEDS;

    #[test]
    fn who_needs_interrupts_on_is_a_sender() {
        for row in NEEDS.iter().filter(|row| row.need == Need::IrqsOn) {
            for (call, arch) in row.calls.iter().flat_map(|c| row.archs.iter().map(move |a| (c, a)))
            {
                let rows = CALLS.iter().filter(|c| c.name == *call && c.archs.contains(arch));
                let mut sends = rows.map(|c| c.sends.iter().any(|(_, on)| on.contains(arch)));
                let (first, rest) = (sends.next(), sends.all(|sends| sends));
                assert!(first == Some(true) && rest, "{call} on {arch}");
            }
        }
    }
}
