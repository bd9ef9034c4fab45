//! Calls that are the same everywhere, or that only choose the architecture's code.
//!
//! Modelled: flushes and cache maintenance by architecture; grace periods, which wait for tasks
//! that were preempted and for read-side sections (`textbed_machine::Stays`). Not modelled:
//! callbacks.

use textbed_arch::{Arch, CpuId, insn};
use textbed_event::{Flags, RcuFlavour, View};
use textbed_machine::OpError;

use crate::call::Args;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::phases::Wait;
use crate::steps::{Step, Turn, cross_step, step_then_others};

/// An instruction of the architecture's table.
pub(crate) fn instruction(arch: Arch, name: &str) -> Result<&'static insn::Row, OpError> {
    insn::by_name(arch, name).ok_or_else(|| OpError::Unknown { name: name.to_owned(), arch })
}

/// `flush_tlb_kernel_range(start, end)`.
pub(crate) fn flush_tlb_kernel_range(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.flush_kernel_range(cpu, args.get(0), args.get(1))?;
    Ok(0)
}

/// `flush_tlb_mm(mm)`, of the address space that the CPU has loaded.
pub(crate) fn flush_tlb_mm(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    let space = k.loaded_space(cpu)?;
    match k.arch {
        Arch::X86_64 => k.x86_flush_space(cpu, space)?,
        Arch::Arm64 => k.arm64_flush_space(cpu)?,
        _ => {
            let pid = k.machine.asid_of(cpu);
            k.radix_flush_pid(cpu, pid)?;
        }
    }
    Ok(0)
}

/// `flush_icache_range(start, end)`.
pub(crate) fn flush_icache_range(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let start = args.addr(0);
    let len = args.get(1).saturating_sub(args.get(0));
    k.check_maintained(len)?;
    match k.arch {
        Arch::X86_64 => Ok(0),
        // The maintenance, and an interrupt to all other CPUs.
        Arch::Arm64 => k.with_steps(vec![
            step_then_others(move |k, cpu| k.arm64_clean_inval(cpu, start, len)),
            cross_step(|k, cpu| k.kick_all_cpus(cpu)),
        ]),
        _ => k.power_flush_icache(cpu, start, len).map(|()| 0),
    }
}

/// Longest range that is maintained line by line.
const MAX_MAINTAINED_BYTES: u64 = 64 << 20;

/// `kick_all_cpus_sync()`.
pub(crate) fn kick_all_cpus_sync(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    k.kick_all_cpus(cpu)?;
    Ok(0)
}

/// `synchronize_rcu()`.
pub(crate) fn synchronize_rcu(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    grace_period(k, cpu, RcuFlavour::Normal)
}

/// `synchronize_rcu_tasks()`.
pub(crate) fn synchronize_rcu_tasks(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    grace_period(k, cpu, RcuFlavour::Tasks)
}

/// `synchronize_rcu_tasks_rude()`.
pub(crate) fn synchronize_rcu_rude(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    grace_period(k, cpu, RcuFlavour::TasksRude)
}

/// `synchronize_rcu_tasks_trace()`.
pub(crate) fn synchronize_rcu_trace(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    grace_period(k, cpu, RcuFlavour::TasksTrace)
}

/// A grace period orders every CPU's earlier work before what follows; it synchronises no context.
fn grace_period(k: &mut Kernel, cpu: CpuId, flavour: RcuFlavour) -> Result<i64, Stop> {
    let Some(stays) = k.machine.grace_begins(cpu, flavour) else { return Ok(0) };
    if !matches!(flavour, RcuFlavour::Normal | RcuFlavour::Tasks) {
        k.emit(cpu, Flags::default(), View::GracePeriod { flavour });
        return Ok(0);
    }
    let waits: Step = Box::new(move |k, cpu| {
        if let Some(stay) = stays.iter().find(|stay| k.machine.still_stays(**stay)) {
            return Ok(Turn::Wait(Wait::Stays(*stay)));
        }
        k.emit(cpu, Flags::default(), View::GracePeriod { flavour });
        Ok(Turn::Next)
    });
    k.with_steps(vec![waits])
}

impl Kernel {
    /// Whether so many bytes can be maintained line by line.
    pub(crate) fn check_maintained(&self, len: u64) -> Result<(), Stop> {
        if len <= MAX_MAINTAINED_BYTES {
            return Ok(());
        }
        Err(Stop::not_modelled(format!(
            "cache maintenance of {len:#x} bytes, line by line (at most {MAX_MAINTAINED_BYTES:#x})"
        )))
    }

    /// `flush_tlb_kernel_range` of the architecture.
    pub(crate) fn flush_kernel_range(
        &mut self,
        cpu: CpuId,
        start: u64,
        end: u64,
    ) -> Result<(), Stop> {
        match self.arch {
            Arch::X86_64 => self.x86_flush_kernel_range(cpu, start, end),
            Arch::Arm64 => self.arm64_flush_kernel_range(cpu, start, end),
            _ => self.power_flush_kernel(cpu, start, end),
        }
    }

    /// What an architecture does after new kernel entries: nothing on x86 and 32-bit powerpc.
    pub(crate) fn after_new_mapping(&mut self, cpu: CpuId) -> Result<(), Stop> {
        match self.arch {
            Arch::X86_64 => Ok(()),
            Arch::Arm64 => self.arm64_after_set_pte(cpu),
            Arch::Ppc32 => Ok(()),
            _ => Ok(self.machine.op_named(cpu, "ptesync", 0)?),
        }
    }

    /// `kick_all_cpus_sync`: an interrupt to all other CPUs that does nothing.
    pub(crate) fn kick_all_cpus(&mut self, cpu: CpuId) -> Result<(), Stop> {
        match self.arch {
            Arch::X86_64 => self.machine.op_named(cpu, "mfence", 0)?,
            Arch::Arm64 => self.machine.op_named(cpu, "dmb ish", 0)?,
            _ => self.machine.op_named(cpu, "sync", 0)?,
        }
        self.on_other_cpus(cpu, "do_nothing", &mut |_, _| Ok(()))
    }
}
