//! `stop_machine`, and boot-time alternatives, which arm64 patches under it.
//!
//! Modelled: every CPU arrives, spins until all have, stands still with interrupts off, and goes on
//! after the function, one by one; both ways are ordered by the state that they poll; no context is
//! synchronised by that itself. One stop at a time (`stop_cpus_mutex`).
//! Alternatives of the kernel's text: x86 plain stores by the only CPU there is yet, arm64 with all
//! CPUs stopped, through the linear alias, with a clean to the point of coherency and one broadcast
//! invalidation, `isb` on each CPU. From: Linux 6.12 kernel/stop_machine.c multi_cpu_stop(),
//! arch/arm64/kernel/alternative.c, arch/x86/kernel/alternative.c. Not modelled: the function (an
//! empty one; a scenario's own stands in `with stop_machine`), the stopper threads and what wakes
//! them, x86's stopped NMIs, powerpc's feature sections.

use textbed_arch::{Arch, CpuId};
use textbed_event::View;

use crate::call::Args;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::phases::Wait;
use crate::steps::{Step, Turn, once, step, step_then_others};

/// Bytes of a data cache line that arm64's alternatives step by.
const LINE_BYTES: u64 = 64;

/// `stop_machine()` of a function that does nothing.
pub(crate) fn stop_machine(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    let steps = k.stop_steps(cpu, None, Vec::new());
    k.with_steps(steps)
}

/// `apply_alternatives(addr, code)`: one site of the kernel's text.
pub(crate) fn apply_alternatives(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (addr, code) = (args.addr(0), args.code().to_vec());
    if k.arch == Arch::X86_64 {
        k.inner(cpu, "text_poke_early", &Args::with_code(&[addr.0], &code))?;
        return Ok(0);
    }
    let offset = addr.0.wrapping_sub(k.layout.text.start.0);
    if !k.is_core_text(addr) || offset + code.len() as u64 > k.layout.text.len {
        return Err(Stop::not_modelled("alternatives outside the kernel's text"));
    }
    let Some(alias) = k.direct_map_of(k.image.pfn) else {
        return Err(Stop::not_modelled("a kernel without a linear alias of its text"));
    };
    let alias = alias.offset(offset);
    let patch = once(move |k, cpu| {
        k.store_plain(cpu, alias, &code)?;
        let end = addr.0 + code.len() as u64;
        let mut line = addr.0 & !(LINE_BYTES - 1);
        while line < end {
            k.machine.op_named(cpu, "dc civac", line)?;
            line += LINE_BYTES;
        }
        k.machine.op_named(cpu, "dsb ish", 0)?;
        k.machine.op_named(cpu, "ic ialluis", 0)?;
        k.machine.op_named(cpu, "dsb ish", 0)?;
        k.machine.op_named(cpu, "isb", 0)?;
        Ok(())
    });
    let steps = k.stop_steps(cpu, Some("isb"), vec![patch]);
    k.with_steps(steps)
}

impl Kernel {
    /// Steps that run while all other CPUs stand still; `last` is what each of these executes
    /// before it goes on. They arrive one after another and leave one after another, and who has
    /// not arrived, or has left, runs meanwhile.
    pub(crate) fn stop_steps(
        &self,
        cpu: CpuId,
        last: Option<&'static str>,
        run: Vec<Step>,
    ) -> Vec<Step> {
        let irqs = self.machine.irqs_on(cpu);
        let first: Step = Box::new(|k, cpu| match k.stopping.filter(|by| *by != cpu) {
            Some(by) => Ok(Turn::Wait(Wait::CallOf(by))),
            None => {
                k.stopping = Some(cpu);
                Ok(Turn::Next)
            }
        });
        let mut steps = vec![first];
        steps.extend(self.online().filter(|c| *c != cpu).map(arrival_step));
        steps.push(step(|k, cpu| {
            k.all_stand_still(cpu);
            Ok(())
        }));
        steps.extend(run);
        steps.push(step(move |k, cpu| {
            let slot = k.stop_is_over(cpu);
            let others: Vec<CpuId> = k.online().filter(|c| *c != cpu).collect();
            for other in others {
                let slot = slot.clone();
                k.later([step_then_others(move |k, _| k.goes_on(other, &slot, last))]);
            }
            Ok(())
        }));
        steps.push(step(move |k, cpu| {
            k.stopping = None;
            k.machine.set_irqs(cpu, irqs);
            Ok(())
        }));
        steps
    }

    /// Runs something on this CPU while all others stand still, in one piece.
    pub(crate) fn stopped(
        &mut self,
        cpu: CpuId,
        run: impl FnOnce(&mut Kernel, CpuId) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.interrupts_others(cpu)?;
        let irqs = self.machine.irqs_on(cpu);
        self.all_stand_still(cpu);
        run(self, cpu)?;
        let slot = self.stop_is_over(cpu);
        for other in self.online().filter(|c| *c != cpu) {
            self.goes_on(other, &slot, None)?;
        }
        self.machine.set_irqs(cpu, irqs);
        Ok(())
    }

    /// All have arrived: interrupts go off everywhere, and each has seen that.
    fn all_stand_still(&mut self, cpu: CpuId) {
        let others: Vec<CpuId> = self.online().filter(|c| *c != cpu).collect();
        self.patch_rounds += 1;
        let round = self.patch_rounds;
        for other in &others {
            self.machine.set_irqs(*other, false);
            self.machine.publish(*other, &format!("stop_machine round {round}, {other}"), 1);
        }
        self.machine.set_irqs(cpu, false);
        for other in &others {
            self.machine.observe(cpu, &format!("stop_machine round {round}, {other}"));
        }
        self.emit(cpu, textbed_event::Flags::default(), View::StopMachine { begin: true });
    }

    /// The function is done, and from here on others run; where they see it.
    fn stop_is_over(&mut self, cpu: CpuId) -> String {
        let slot = format!("stop_machine round {}", self.patch_rounds);
        self.emit(cpu, textbed_event::Flags::default(), View::StopMachine { begin: false });
        self.machine.publish(cpu, &slot, 1);
        slot
    }

    /// Another CPU sees that it is over.
    fn goes_on(&mut self, other: CpuId, slot: &str, last: Option<&str>) -> Result<(), Stop> {
        self.machine.observe(other, slot);
        if let Some(op) = last {
            self.machine.op_named(other, op, 0)?;
        }
        self.machine.set_irqs(other, true);
        self.held = self.held.without(other);
        Ok(())
    }
}

/// Another CPU's stopper gets hold of it, which needs interrupts on and no spin lock held. Until
/// all have arrived it takes interrupts.
fn arrival_step(other: CpuId) -> Step {
    Box::new(move |k, _| {
        if !k.is_online(other) {
            return Ok(Turn::Next);
        }
        if !k.machine.irqs_on(other) || k.is_shut(other) {
            return Ok(Turn::Wait(Wait::Cpus(vec![other])));
        }
        k.held = k.held.with(other);
        Ok(Turn::Others)
    })
}
