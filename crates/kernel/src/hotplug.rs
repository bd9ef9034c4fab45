//! CPUs that go offline and come online, and the lock against that.
//!
//! Modelled: `cpu_hotplug_lock`, which those who keep CPUs where they are share, and which a change
//! takes alone; a change that waits for it keeps new sharers out. Going down: all CPUs stop, and
//! the one that goes takes no interrupt from then on. Coming up: reset, what the startup code
//! executes before the kernel's own address space is used (x86: CR4.PGE off and on; arm64: `tlbi
//! vmalle1`, and `ic iallu` when the MMU goes on; radix: `tlbiel` of everything), and only later
//! the place in `cpu_online_mask`. In between the CPU runs, and no cross-call is sent to it. From:
//! Linux 5.19, 6.1, 6.6, 6.12, 6.18.2 and 7.0 kernel/cpu.c, arch/x86/kernel/head_64.S and
//! smpboot.c, arch/arm64/mm/proc.S, include/asm/assembler.h set_sctlr and kernel/smp.c,
//! arch/powerpc/mm/book3s64/radix_pgtable.c and kernel/smp.c.
//!
//! A program of a CPU that is offline goes on when it is up again, as what is bound to a CPU does.
//! Not modelled: the states in between and their callbacks, failures of these, tasks that move to
//! other CPUs (so a CPU with a call under way is waited for, and none takes itself down), powerpc's
//! page or space for patching, made anew each time, `cpu_add_remove_lock`, suspend.

use textbed_arch::{Arch, Cite, CpuId, SpaceId, VirtAddr};
use textbed_event::ControlRegister;
use textbed_machine::CpuMask;

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::{EBUSY, EPERM};
use crate::error::Stop;
use crate::generic::instruction;
use crate::kernel::Kernel;
use crate::phases::Wait;
use crate::steps::{Step, Turn, step, step_then_others};

/// The lock that keeps CPUs where they are.
pub const HOTPLUG_LOCK: &str = "cpu_hotplug_lock";

/// CR4.PGE.
const CR4_PGE: u64 = 1 << 7;
/// RB of a tlbiel of everything (IS = 3).
const RB_IS_ALL: u64 = 3 << 10;

/// Which CPUs are there.
#[derive(Clone, Debug)]
pub(crate) struct Hotplug {
    /// `cpu_online_mask`.
    online: CpuMask,
    /// The CPU that runs and is not in it yet.
    starting: Option<CpuId>,
    /// Who waits to have the lock alone.
    writer: Option<CpuId>,
}

impl Hotplug {
    /// All of `cpus` CPUs are online.
    pub(crate) fn new(cpus: u16) -> Self {
        Self { online: CpuMask::first(cpus), starting: None, writer: None }
    }
}

/// When a call shares the lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shares {
    /// From its beginning to its end.
    Whole,
    /// Inside: its body takes it, which must not have to wait at its beginning.
    Inside,
}

/// Calls that keep CPUs where they are; who needs that of its caller says so in the call table.
struct Row {
    calls: &'static [&'static str],
    archs: &'static [Arch],
    shares: Shares,
    /// Where that is to be seen.
    #[allow(dead_code)] // for readers, and for the test of the table
    cite: Cite,
}

const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];

/// From 5.19 to 7.0 there is no difference. Without the lock: x86's batches and single pokes,
/// ftrace, BPF, `kick_all_cpus_sync`, and flushes.
const SHARERS: &[Row] = &[
    Row {
        calls: &["static_key_enable", "static_key_disable"],
        archs: ALL,
        shares: Shares::Whole,
        cite: Cite::read("Linux 5.19 to 7.0 kernel/jump_label.c static_key_enable()"),
    },
    Row {
        calls: &["static_call_update"],
        archs: &[Arch::X86_64],
        shares: Shares::Whole,
        cite: Cite::read("Linux 5.19 to 7.0 kernel/static_call_inline.c __static_call_update()"),
    },
    Row {
        calls: &["stop_machine"],
        archs: ALL,
        shares: Shares::Whole,
        cite: Cite::read("Linux 5.19 to 7.0 kernel/stop_machine.c stop_machine()"),
    },
    Row {
        calls: &["apply_alternatives_all"],
        archs: &[Arch::Arm64],
        shares: Shares::Whole,
        cite: Cite::read("Linux 5.19 to 7.0 arch/arm64/kernel/alternative.c: stop_machine()"),
    },
    Row {
        calls: &["register_kprobe", "register_kretprobe", "kprobe_optimizer"],
        archs: ALL,
        shares: Shares::Inside,
        cite: Cite::read("Linux 5.19 to 7.0 kernel/kprobes.c: kprobe_mutex is outside of it"),
    },
];

/// When a call shares the lock on an architecture.
pub(crate) fn shares(call: &str, arch: Arch) -> Option<Shares> {
    let row = SHARERS.iter().find(|r| r.calls.contains(&call) && r.archs.contains(&arch));
    row.map(|r| r.shares)
}

/// `cpus_read_lock()`.
pub(crate) fn cpus_read_lock(k: &mut Kernel, _cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    k.with_steps(vec![share_step()])
}

/// `cpus_read_unlock()`.
pub(crate) fn cpus_read_unlock(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    k.unshare(cpu)?;
    Ok(0)
}

impl Kernel {
    /// Whether an idle CPU that polls says so, and is woken without an interrupt.
    #[must_use]
    pub fn idle_polls(&self) -> bool {
        self.caps.yes(Fact::PollingIdle)
    }
}

/// `remove_cpu(cpu)`.
pub(crate) fn remove_cpu(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let gone = k.device_of(args)?;
    if gone == CpuId(0) && !k.caps.yes(Fact::BootCpuRemovable) {
        return Ok(-EPERM);
    }
    if !k.is_online(gone) {
        return Ok(1);
    }
    if k.online().count() == 1 {
        return Ok(-EBUSY);
    }
    if gone == cpu {
        return Err(Stop::not_modelled(format!("{cpu} taking itself down")));
    }
    k.with_steps(vec![
        Box::new(move |k, cpu| {
            if let Some(wait) = k.change_waits(cpu)? {
                return Ok(Turn::Wait(wait));
            }
            if k.is_under_way(gone) {
                return Ok(Turn::Wait(Wait::CallOf(gone)));
            }
            if let Some(wait) = k.receivers_off(cpu) {
                return Ok(Turn::Wait(wait));
            }
            k.change_begins(cpu)?;
            k.take_down(cpu, gone)?;
            k.unlock(cpu, HOTPLUG_LOCK)?;
            Ok(Turn::Next)
        }),
        step(|k, _| {
            k.returns(0);
            Ok(())
        }),
    ])
}

/// `add_cpu(cpu)`: others may run while the CPU starts.
pub(crate) fn add_cpu(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let added = k.device_of(args)?;
    if k.is_online(added) {
        return Ok(1);
    }
    k.with_steps(vec![
        start_step(added),
        step(move |k, cpu| {
            k.comes_online(cpu, added)?;
            k.returns(0);
            Ok(())
        }),
    ])
}

/// `cpu_up_begin(cpu)`: stands for the first half of `add_cpu`.
pub(crate) fn cpu_up_begin(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let added = k.device_of(args)?;
    if k.is_online(added) {
        return Err(Stop::not_modelled(format!("a start of {added}, which is online")));
    }
    k.with_steps(vec![start_step(added)])
}

/// `cpu_up_end(cpu)`: stands for the second half, on the CPU that made the first.
pub(crate) fn cpu_up_end(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let added = k.device_of(args)?;
    let began = k.hotplug.starting == Some(added);
    if !began || k.machine.lock_holder(HOTPLUG_LOCK) != Some(cpu) {
        let what = format!("the end of a start of {added} that {cpu} did not begin");
        return Err(Stop::not_modelled(what));
    }
    k.comes_online(cpu, added)?;
    Ok(0)
}

/// A step that begins to share the lock, once it can.
pub(crate) fn share_step() -> Step {
    Box::new(|k, cpu| match k.share_waits(cpu) {
        Some(wait) => Ok(Turn::Wait(wait)),
        None => k.share(cpu).map(|()| Turn::Next),
    })
}

/// A step that ends it.
pub(crate) fn unshare_step() -> Step {
    step(|k, cpu| k.unshare(cpu))
}

/// A step that does nothing, once the lock can be shared: before a body that takes it inside.
pub(crate) fn shareable_step() -> Step {
    Box::new(|k, cpu| Ok(k.share_waits(cpu).map_or(Turn::Next, Turn::Wait)))
}

/// A step that takes the lock alone and starts a CPU.
fn start_step(added: CpuId) -> Step {
    Box::new(move |k, cpu| {
        if let Some(wait) = k.change_waits(cpu)? {
            return Ok(Turn::Wait(wait));
        }
        k.change_begins(cpu)?;
        k.later([step_then_others(move |k, cpu| k.start_up(cpu, added))]);
        Ok(Turn::Next)
    })
}

impl Kernel {
    /// Whether a CPU is in `cpu_online_mask`.
    #[must_use]
    pub fn is_online(&self, cpu: CpuId) -> bool {
        self.hotplug.online.has(cpu)
    }

    /// The CPUs that are online, in order.
    pub(crate) fn online(&self) -> impl Iterator<Item = CpuId> + use<> {
        let (online, cpus) = (self.hotplug.online, self.cpus);
        (0..cpus).map(CpuId).filter(move |cpu| online.has(*cpu))
    }

    /// Whether a lock is not to be had now: alone, or (`shared`) with others. What the CPU holds
    /// alone itself it does not wait for: that is an error.
    #[must_use]
    pub fn lock_waits(&self, cpu: CpuId, lock: &str, shared: bool) -> bool {
        let alone = self.machine.lock_holder(lock).is_some_and(|by| by != cpu);
        let change = self.hotplug.writer.filter(|_| lock == HOTPLUG_LOCK);
        alone
            || (shared && change.is_some_and(|by| by != cpu))
            || (!shared && !self.machine.lock_sharers(lock).is_empty())
    }

    /// The CPU that a call names; a number that no CPU can have makes `get_cpu_device` return NULL.
    fn device_of(&self, args: &Args) -> Result<CpuId, Stop> {
        let cpu = u16::try_from(args.get(0)).ok().filter(|n| *n < self.cpus);
        cpu.map(CpuId).ok_or_else(|| Stop::died("no such CPU: a NULL device is used", VirtAddr(0)))
    }

    /// What one who shares the lock waits for.
    pub(crate) fn share_waits(&self, cpu: CpuId) -> Option<Wait> {
        let waits = self.lock_waits(cpu, HOTPLUG_LOCK, true);
        waits.then(|| Wait::SharedLock(HOTPLUG_LOCK.to_owned()))
    }

    /// `cpus_read_lock`, where it does not have to wait.
    pub(crate) fn share(&mut self, cpu: CpuId) -> Result<(), Stop> {
        if self.machine.lock_holder(HOTPLUG_LOCK) == Some(cpu) {
            let how = format!("deadlock: {HOTPLUG_LOCK} is held by the caller");
            return Err(Stop::died(how, VirtAddr(0)));
        }
        match self.share_waits(cpu) {
            Some(_) => Err(Stop::not_modelled(format!("waiting for {HOTPLUG_LOCK} inside"))),
            None => Ok(self.machine.lock_shared(cpu, HOTPLUG_LOCK)?),
        }
    }

    /// `cpus_read_unlock`.
    pub(crate) fn unshare(&mut self, cpu: CpuId) -> Result<(), Stop> {
        if !self.machine.lock_sharers(HOTPLUG_LOCK).contains(&cpu) {
            let what = format!("the end of a share of {HOTPLUG_LOCK} that {cpu} has not");
            return Err(Stop::not_modelled(what));
        }
        Ok(self.machine.unlock_shared(cpu, HOTPLUG_LOCK)?)
    }

    /// What a change waits for. Who waits keeps new sharers out.
    fn change_waits(&mut self, cpu: CpuId) -> Result<Option<Wait>, Stop> {
        if self.machine.lock_sharers(HOTPLUG_LOCK).contains(&cpu) {
            let how = format!("deadlock: {HOTPLUG_LOCK} is held by the caller");
            return Err(Stop::died(how, VirtAddr(0)));
        }
        if !self.lock_waits(cpu, HOTPLUG_LOCK, false) {
            return Ok(None);
        }
        self.hotplug.writer.get_or_insert(cpu);
        Ok(Some(Wait::Lock(HOTPLUG_LOCK.to_owned())))
    }

    /// `cpus_write_lock`.
    fn change_begins(&mut self, cpu: CpuId) -> Result<(), Stop> {
        if self.hotplug.writer == Some(cpu) {
            self.hotplug.writer = None;
        }
        self.lock(cpu, HOTPLUG_LOCK)
    }

    /// `takedown_cpu`.
    fn take_down(&mut self, cpu: CpuId, gone: CpuId) -> Result<(), Stop> {
        self.stopped(cpu, move |k, _| {
            k.hotplug.online = k.hotplug.online.without(gone);
            Ok(k.machine.cpu_goes_down(gone)?)
        })
    }

    /// A CPU starts from reset, and executes what comes before C code.
    fn start_up(&mut self, by: CpuId, cpu: CpuId) -> Result<(), Stop> {
        self.hotplug.starting = Some(cpu);
        let slot = format!("start of {cpu}");
        self.machine.publish(by, &slot, 1);
        self.machine.cpu_comes_up(cpu)?;
        self.machine.observe(cpu, &slot);
        match self.arch {
            Arch::X86_64 => {
                self.machine.load_space(cpu, SpaceId::KERNEL, 0, false)?;
                let cr4 = self.machine.cr4(cpu);
                for value in [cr4 & !CR4_PGE, cr4 | CR4_PGE] {
                    self.machine.set_control(cpu, ControlRegister::Cr4, value);
                }
            }
            Arch::Arm64 => {
                self.machine.op_named(cpu, "tlbi vmalle1", 0)?;
                self.machine.op_named(cpu, "dsb nsh", 0)?;
                self.machine.load_space(cpu, SpaceId::KERNEL, 0, false)?;
                for op in ["isb", "ic iallu", "dsb nsh", "isb"] {
                    self.machine.op_named(cpu, op, 0)?;
                }
            }
            _ => {
                self.machine.load_space(cpu, SpaceId::KERNEL, 0, false)?;
                self.machine.op_named(cpu, "isync", 0)?;
                self.machine.op_named(cpu, "ptesync", 0)?;
                let tlbiel = instruction(self.arch, "tlbiel")?;
                self.machine.op_with(cpu, tlbiel, &[RB_IS_ALL, 0])?;
                self.machine.op_named(cpu, "ptesync", 0)?;
                // Stands for the rfid that turns translation on.
                self.machine.op_named(cpu, "isync", 0)?;
            }
        }
        Ok(())
    }

    /// `set_cpu_online`, interrupts on, and the end of the change.
    fn comes_online(&mut self, by: CpuId, cpu: CpuId) -> Result<(), Stop> {
        self.hotplug.starting = None;
        self.hotplug.online = self.hotplug.online.with(cpu);
        let slot = format!("{cpu} online");
        self.machine.publish(cpu, &slot, 1);
        self.machine.set_irqs(cpu, true);
        self.machine.observe(by, &slot);
        self.unlock(by, HOTPLUG_LOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{CALLS, CallSpec};

    #[test]
    fn sharers_are_calls_and_none_is_there_twice() {
        let mut seen = Vec::new();
        for row in SHARERS {
            for call in row.calls {
                let known =
                    |c: &CallSpec| c.name == *call && row.archs.iter().any(|a| c.archs.contains(a));
                assert!(CALLS.iter().any(known), "{call}");
                assert!(!seen.contains(call), "{call}");
                seen.push(call);
            }
        }
    }
}
