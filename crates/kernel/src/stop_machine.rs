//! `stop_machine`, and boot-time alternatives, which arm64 patches under it.
//!
//! Modelled: every CPU arrives, stands still with interrupts off, and goes on after the function;
//! both ways are ordered by the state that they poll; no context is synchronised by that itself.
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

/// Bytes of a data cache line that arm64's alternatives step by.
const LINE_BYTES: u64 = 64;

/// `stop_machine()` of a function that does nothing.
pub(crate) fn stop_machine(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    k.stopped(cpu, None, |_, _| Ok(()))?;
    Ok(0)
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
    k.stopped(cpu, Some("isb"), move |k, cpu| {
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
    })?;
    Ok(0)
}

impl Kernel {
    /// Runs something on this CPU while all others stand still; `last` is what each of them
    /// executes before it goes on.
    pub(crate) fn stopped(
        &mut self,
        cpu: CpuId,
        last: Option<&str>,
        run: impl FnOnce(&mut Kernel, CpuId) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.interrupts_others(cpu)?;
        let irqs = self.machine.irqs_on(cpu);
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
        run(self, cpu)?;
        let slot = format!("stop_machine round {round}");
        self.machine.publish(cpu, &slot, 1);
        for other in self.online().filter(|c| *c != cpu) {
            self.machine.observe(other, &slot);
            if let Some(op) = last {
                self.machine.op_named(other, op, 0)?;
            }
            self.machine.set_irqs(other, true);
        }
        self.machine.set_irqs(cpu, irqs);
        self.emit(cpu, textbed_event::Flags::default(), View::StopMachine { begin: false });
        Ok(())
    }
}
