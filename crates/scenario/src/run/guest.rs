//! Machine code that runs on CPUs of its own: `call(entry, args…)`, and tasks that are preempted in
//! it (`preempt(entry, at)`) and go on later on the same CPU (`resume()`).
//!
//! A preempted task is interrupted, so its CPU enters an exception, and returns from one when it
//! goes on: both synchronise where the architecture has it so. Not modelled: what the interrupt
//! executes, tasks that move to another CPU.
//!
//! With [`GuestCall::free`] code runs freely between the instructions that matter
//! (`Vcpu::run_free`), after each was stepped once in this call; up to an address at which it is
//! preempted it is stepped.

#[cfg(feature = "vcpu")]
use std::collections::BTreeMap;

use textbed_arch::{CpuId, VirtAddr};
use textbed_kernel::Kernel;

#[cfg(feature = "vcpu")]
use super::returns;
use super::world::Stop;

/// The CPUs that execute code, each made at its first call.
#[cfg(feature = "vcpu")]
pub(super) struct Guests {
    cpus: BTreeMap<CpuId, textbed_vcpu::Vcpu>,
    /// Tasks that wait to go on, with their names, innermost last.
    preempted: BTreeMap<CpuId, Vec<(textbed_vcpu::Vcpu, String)>>,
}

/// No CPUs: this was built without them.
#[cfg(not(feature = "vcpu"))]
pub(super) struct Guests;

/// A call of machine code.
pub(super) struct GuestCall<'a> {
    pub(super) cpu: CpuId,
    /// The call as it is written.
    pub(super) written: String,
    pub(super) entry: VirtAddr,
    pub(super) args: &'a [u64],
    pub(super) max_steps: u64,
    /// It runs freely.
    pub(super) free: bool,
    /// The scenario has a handler for traps.
    pub(super) traps_handled: bool,
}

#[cfg(not(feature = "vcpu"))]
impl Guests {
    pub(super) fn new() -> Self {
        Guests
    }

    pub(super) fn call(&mut self, _: &mut Kernel, call: &GuestCall<'_>) -> Result<u64, Stop> {
        let GuestCall { cpu, written, entry, args, max_steps, free, traps_handled } = call;
        let _ = (cpu, written, entry, args, max_steps, free, traps_handled);
        Err(Stop::NotModelled("call(): built without CPUs".to_owned()))
    }

    pub(super) fn preempt(
        &mut self,
        kernel: &mut Kernel,
        call: &GuestCall<'_>,
        _: VirtAddr,
    ) -> Result<(), Stop> {
        self.call(kernel, call).map(|_| ())
    }

    pub(super) fn resume(
        &mut self,
        kernel: &mut Kernel,
        call: &GuestCall<'_>,
    ) -> Result<u64, Stop> {
        self.call(kernel, call)
    }
}

/// How far code ran.
#[cfg(feature = "vcpu")]
enum Ran {
    /// To its return.
    To(u64),
    /// To the instruction where it is preempted, which was not executed.
    Preempted,
}

/// x86's number of RSP.
#[cfg(feature = "vcpu")]
pub(super) const STACK_POINTER: u8 = 4;
/// Bytes below the stack of a preempted task that stay its own.
#[cfg(feature = "vcpu")]
const PREEMPTED_FRAME: u64 = 512;

#[cfg(feature = "vcpu")]
impl Guests {
    pub(super) fn new() -> Self {
        Guests { cpus: BTreeMap::new(), preempted: BTreeMap::new() }
    }

    /// Runs code to its return and gives what it returned.
    pub(super) fn call(&mut self, kernel: &mut Kernel, call: &GuestCall<'_>) -> Result<u64, Stop> {
        let mut cpu = match self.cpus.remove(&call.cpu) {
            Some(cpu) => cpu,
            None => textbed_vcpu::Vcpu::new(kernel.arch(), call.cpu).map_err(refused)?,
        };
        let ran = self.start(&mut cpu, kernel, call);
        let ran = ran.and_then(|()| run(&mut cpu, kernel, call, None));
        self.cpus.insert(call.cpu, cpu);
        match ran? {
            Ran::To(value) => Ok(value),
            Ran::Preempted => Err(Stop::NotModelled("preemption of a call()".to_owned())),
        }
    }

    /// Enters code; it ends above the tasks that were preempted on this CPU.
    fn start(
        &self,
        cpu: &mut textbed_vcpu::Vcpu,
        kernel: &mut Kernel,
        call: &GuestCall<'_>,
    ) -> Result<(), Stop> {
        let stack = match self.preempted.get(&call.cpu).and_then(|tasks| tasks.last()) {
            Some((task, _)) => {
                let below = task.stack_pointer().map_err(refused)?.0.wrapping_sub(PREEMPTED_FRAME);
                VirtAddr(below & !0xf)
            }
            None => kernel
                .stack_of(call.cpu)
                .ok_or_else(|| Stop::NotModelled(format!("{} has no stack", call.cpu)))?,
        };
        textbed_machine::Cpu::start(cpu, kernel.machine_mut(), call.entry, stack, call.args)
            .map_err(refused)
    }

    /// Runs code until it would execute `at`; its task is preempted there, by an interrupt.
    pub(super) fn preempt(
        &mut self,
        kernel: &mut Kernel,
        call: &GuestCall<'_>,
        at: VirtAddr,
    ) -> Result<(), Stop> {
        let mut cpu = textbed_vcpu::Vcpu::new(kernel.arch(), call.cpu).map_err(refused)?;
        self.start(&mut cpu, kernel, call)?;
        match run(&mut cpu, kernel, call, Some(at))? {
            Ran::To(value) => Err(Stop::Died(format!(
                "{}: returned {value} and never came to {at}",
                call.written
            ))),
            Ran::Preempted => {
                let tasks = self.preempted.entry(call.cpu).or_default();
                let name = format!("task {} of {}", tasks.len() + 1, call.cpu);
                let machine = kernel.machine_mut();
                machine.exception_entry(call.cpu);
                machine.task_stands(call.cpu, &name, at, true);
                tasks.push((cpu, name));
                Ok(())
            }
        }
    }

    /// The task that was preempted last on this CPU returns from its interrupt and runs to its end.
    pub(super) fn resume(
        &mut self,
        kernel: &mut Kernel,
        call: &GuestCall<'_>,
    ) -> Result<u64, Stop> {
        let task = self.preempted.get_mut(&call.cpu).and_then(Vec::pop);
        let Some((mut cpu, name)) = task else {
            return Err(Stop::Died(format!(
                "{}: no task was preempted on {}",
                call.written, call.cpu
            )));
        };
        let at = cpu.pc().map_err(refused)?;
        kernel.return_from_trap(call.cpu).map_err(|e| Stop::NotModelled(e.to_string()))?;
        kernel.machine_mut().task_stands(call.cpu, &name, at, false);
        match run(&mut cpu, kernel, call, None)? {
            Ran::To(value) => Ok(value),
            Ran::Preempted => Err(Stop::NotModelled("preemption of resume()".to_owned())),
        }
    }
}

/// Runs code until it returns or is about to execute `until`.
#[cfg(feature = "vcpu")]
fn run(
    cpu: &mut textbed_vcpu::Vcpu,
    kernel: &mut Kernel,
    call: &GuestCall<'_>,
    until: Option<VirtAddr>,
) -> Result<Ran, Stop> {
    use textbed_event::Access;
    use textbed_machine::{Cpu, Step};

    let free = call.free && until.is_none();
    // What happened since it ran last may have changed what its fetches mean.
    cpu.forget_known();
    cpu.set_budget(Some(call.max_steps));
    loop {
        if until.is_some() && until == Some(cpu.pc().map_err(refused)?) {
            return Ok(Ran::Preempted);
        }
        // Where returns are sent elsewhere, each address that is come to matters.
        let hooks = kernel.return_trampoline().is_some();
        if hooks {
            let at = cpu.pc().map_err(refused)?;
            returns::come_to(cpu, kernel, call, at)?;
        }
        let step = match free && !hooks {
            true => cpu.run_free(kernel.machine_mut(), u64::MAX),
            false => cpu.step(kernel.machine_mut()),
        };
        match step.map_err(refused)? {
            Step::Ran => {}
            Step::Returned(value) => return Ok(Ran::To(value)),
            Step::Faulted(fault) => {
                let by = match fault.access {
                    // Then the address says it.
                    Access::Exec => String::new(),
                    _ => format!(", by the instruction at {}", cpu.pc().map_err(refused)?),
                };
                return Err(Stop::Died(format!("{}: guest fault: {fault}{by}", call.written)));
            }
            Step::Trapped { name, virt, vector } => {
                if let Some(resume) = returns::trapped(cpu, kernel, call, virt, vector)? {
                    cpu.forget_known();
                    match apply(cpu, kernel, resume).map_err(refused)? {
                        Ok(()) => continue,
                        Err(fault) => {
                            let text = format!("{}: guest fault: {fault}", call.written);
                            return Err(Stop::Died(text));
                        }
                    }
                }
                if call.traps_handled {
                    let what = format!("a trap handler (for {name} at {virt})");
                    return Err(Stop::NotModelled(what));
                }
                let text =
                    format!("{}: guest trap: {name} (vector {vector}) at {virt}", call.written);
                return Err(Stop::Died(text));
            }
            Step::Unpredictable { virt } => {
                let text = format!(
                    "{}: unpredictable at {virt}: another CPU replaced the instruction meanwhile, \
                     and neither the old one nor the new one is promised",
                    call.written
                );
                return Err(Stop::Died(text));
            }
            Step::Waits { virt, until } => {
                let text = format!(
                    "{}: waits at {virt} for {until}, and nothing comes while it runs",
                    call.written
                );
                return Err(Stop::Died(text));
            }
            Step::Limit => break,
        }
    }
    let (steps, at) = (call.max_steps, cpu.pc().map_err(refused)?);
    Err(Stop::Limit(format!(
        "{} on {} did not return in {steps} instructions and is at {at} (`--max-steps` sets the limit)",
        call.written, call.cpu
    )))
}

/// Carries out what the kernel's handler of a trap decided, and returns from it.
#[cfg(feature = "vcpu")]
fn apply(
    cpu: &mut textbed_vcpu::Vcpu,
    kernel: &mut Kernel,
    resume: textbed_kernel::Resume,
) -> Result<Result<(), textbed_machine::Fault>, textbed_machine::CpuError> {
    use textbed_kernel::Resume;
    use textbed_machine::CpuError;

    let id = textbed_machine::Cpu::id(cpu);
    let sp = cpu.stack_pointer()?;
    match resume {
        Resume::At(to) => cpu.set_pc(to)?,
        Resume::Jump { condition, to, next } => {
            cpu.set_pc(if cpu.condition_holds(condition)? { to } else { next })?;
        }
        Resume::Call { to, back } => {
            let slot = VirtAddr(sp.0.wrapping_sub(8));
            let bytes = back.0.to_le_bytes();
            let plain = textbed_event::MemOrder::Plain;
            if let Err(fault) = kernel.machine_mut().store(id, slot, &bytes, plain) {
                return Ok(Err(fault));
            }
            cpu.set_general(STACK_POINTER, slot.0)?;
            cpu.set_pc(to)?;
        }
        Resume::Step { at, next } => {
            cpu.set_pc(at)?;
            kernel.return_from_trap(id).map_err(|e| CpuError::NotModelled(e.to_string()))?;
            // It is a part of what the handler does, and not counted.
            let budget = cpu.budget();
            cpu.set_budget(None);
            let step = textbed_machine::Cpu::step(cpu, kernel.machine_mut());
            cpu.set_budget(budget);
            return match step? {
                textbed_machine::Step::Ran => {
                    cpu.set_pc(next)?;
                    Ok(Ok(()))
                }
                textbed_machine::Step::Faulted(fault) => Ok(Err(fault)),
                _ => Err(CpuError::NotModelled("what a stepped instruction did".to_owned())),
            };
        }
        Resume::Return => {
            let mut bytes = [0; 8];
            if let Err(fault) = kernel.machine_mut().load(id, sp, &mut bytes) {
                return Ok(Err(fault));
            }
            cpu.set_general(STACK_POINTER, sp.0.wrapping_add(8))?;
            cpu.set_pc(VirtAddr(u64::from_le_bytes(bytes)))?;
        }
    }
    kernel.return_from_trap(id).map_err(|e| CpuError::NotModelled(e.to_string()))?;
    Ok(Ok(()))
}

#[cfg(feature = "vcpu")]
pub(super) fn refused(error: textbed_machine::CpuError) -> Stop {
    Stop::NotModelled(format!("call(): {error}"))
}
