//! CPUs that go away and come back, and that idle.
//!
//! Modelled: an offline CPU executes nothing and takes no interrupt; one that comes up starts from
//! reset, with interrupts off and nothing fetched ahead. Its translations and the lines of its
//! instruction cache are what they were: INIT leaves caches and TLBs unchanged (SDM 3A 9.1.1,
//! table 9-1), the contents at an arm64 reset are IMPLEMENTATION DEFINED (Arm ARM D1.3), and it is
//! what the CPU executes next that invalidates them. Not modelled: who powers it, parked CPUs that
//! still run, cleaning of its data caches (data is coherent here).
//!
//! A CPU that idles until an interrupt (`hlt`, `wfi`, `stop`) is woken by one, which synchronises
//! its context as the architecture has it; one that polls memory meanwhile (`mwait` on the flags of
//! its task, a loop) is not interrupted for that.

use textbed_arch::effect::SyncCause;
use textbed_arch::{Arch, CpuId};
use textbed_event::{CpuState, OpId};

use crate::{Machine, MachineError};

impl Machine {
    /// A CPU goes away: its stores are performed, it takes no interrupts.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn cpu_goes_down(&mut self, cpu: CpuId) -> Result<(), MachineError> {
        self.perform_all(cpu);
        self.watch_nothing(cpu);
        self.cpu_mut(cpu)?.irqs_on = false;
        self.set_cpu_state(cpu, CpuState::Offline)
    }

    /// A CPU idles from now on, with interrupts on; `polls`: whoever wakes it need only store.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn cpu_idles(&mut self, cpu: CpuId, polls: bool) -> Result<(), MachineError> {
        self.perform_all(cpu);
        self.set_cpu_state(cpu, if polls { CpuState::PollingIdle } else { CpuState::Idle })
    }

    /// A CPU that idles was woken: by an interrupt, unless it polls.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn cpu_wakes(&mut self, cpu: CpuId) -> Result<(), MachineError> {
        if self.cpu(cpu)?.state == CpuState::Idle {
            self.exception_entry(cpu);
            self.exception_return(cpu, self.arch() == Arch::X86_64, OpId::NONE);
        }
        self.set_cpu_state(cpu, CpuState::Running)
    }

    /// A CPU comes up from reset, with interrupts off.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn cpu_comes_up(&mut self, cpu: CpuId) -> Result<(), MachineError> {
        self.cpu_mut(cpu)?.irqs_on = false;
        self.set_cpu_state(cpu, CpuState::Online)?;
        self.context_sync(cpu, SyncCause::Reset, OpId::NONE);
        Ok(())
    }
}
