//! Machine code that runs on CPUs of its own: `call(entry, args…)`.

use textbed_arch::{CpuId, VirtAddr};
use textbed_kernel::Kernel;

use super::world::Stop;

/// The CPUs that execute code, each made at its first call.
#[cfg(feature = "vcpu")]
pub(super) struct Guests {
    cpus: std::collections::BTreeMap<CpuId, textbed_vcpu::Vcpu>,
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
    /// The scenario has a handler for traps.
    pub(super) traps_handled: bool,
}

#[cfg(not(feature = "vcpu"))]
impl Guests {
    pub(super) fn new() -> Self {
        Guests
    }

    pub(super) fn call(&mut self, _: &mut Kernel, call: &GuestCall<'_>) -> Result<u64, Stop> {
        let GuestCall { cpu, written, entry, args, max_steps, traps_handled } = call;
        let _ = (cpu, written, entry, args, max_steps, traps_handled);
        Err(Stop::NotModelled("call(): built without CPUs".to_owned()))
    }
}

#[cfg(feature = "vcpu")]
impl Guests {
    pub(super) fn new() -> Self {
        Guests { cpus: std::collections::BTreeMap::new() }
    }

    /// Runs code to its return and gives what it returned.
    pub(super) fn call(&mut self, kernel: &mut Kernel, call: &GuestCall<'_>) -> Result<u64, Stop> {
        use std::collections::btree_map::Entry;

        use textbed_machine::{Cpu, Step};

        let cpu = match self.cpus.entry(call.cpu) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let new = textbed_vcpu::Vcpu::new(kernel.arch(), call.cpu).map_err(refused)?;
                entry.insert(new)
            }
        };
        let stack = kernel
            .stack_of(call.cpu)
            .ok_or_else(|| Stop::NotModelled(format!("{} has no stack", call.cpu)))?;
        let machine = kernel.machine_mut();
        cpu.start(machine, call.entry, stack, call.args).map_err(refused)?;
        for _ in 0..call.max_steps {
            match cpu.step(kernel.machine_mut()).map_err(refused)? {
                Step::Ran => {}
                Step::Returned(value) => return Ok(value),
                Step::Faulted(fault) => {
                    return Err(Stop::Died(format!("{}: guest fault: {fault}", call.written)));
                }
                Step::Trapped { name, virt, vector } => {
                    if let Some(resume) = kernel.trap(call.cpu, virt, vector) {
                        let done = apply(cpu, kernel, resume).map_err(refused)?;
                        match done {
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
                Step::Limit => break,
            }
        }
        let steps = call.max_steps;
        Err(Stop::Limit(format!("{} did not return in {steps} steps", call.written)))
    }
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

    /// x86's number of RSP.
    const STACK_POINTER: u8 = 4;
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
            return match textbed_machine::Cpu::step(cpu, kernel.machine_mut())? {
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
fn refused(error: textbed_machine::CpuError) -> Stop {
    Stop::NotModelled(format!("call(): {error}"))
}
