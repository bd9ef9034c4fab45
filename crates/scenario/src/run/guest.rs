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

        use textbed_machine::{CallEnd, Step};

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
        let CallEnd { end, steps } =
            textbed_machine::call(cpu, machine, call.entry, stack, call.args, call.max_steps)
                .map_err(refused)?;
        match end {
            Step::Returned(value) => Ok(value),
            Step::Faulted(fault) => {
                Err(Stop::Died(format!("{}: guest fault: {fault}", call.written)))
            }
            Step::Trapped { name, virt, .. } if call.traps_handled => {
                Err(Stop::NotModelled(format!("a trap handler (for {name} at {virt})")))
            }
            Step::Trapped { name, virt, vector } => Err(Stop::Died(format!(
                "{}: guest trap: {name} (vector {vector}) at {virt}",
                call.written
            ))),
            Step::Ran | Step::Limit => {
                Err(Stop::Limit(format!("{} did not return in {steps} steps", call.written)))
            }
        }
    }
}

#[cfg(feature = "vcpu")]
fn refused(error: textbed_machine::CpuError) -> Stop {
    Stop::NotModelled(format!("call(): {error}"))
}
