//! What a `with` begins and ends on a kernel and its machine, and what has to be put back.

use std::collections::BTreeMap;

use textbed_arch::{CpuId, SpaceId, VirtAddr};
use textbed_event::{CallRef, View};
use textbed_kernel::HOTPLUG_LOCK;

use super::KernelWorld;
use super::stops::machine_stopped;
use crate::run::world::{Inside, Stop};

/// What was before each `with` that is under way.
#[derive(Default)]
pub(super) struct Contexts {
    /// Address spaces by the names that `with mm` gives them.
    spaces: BTreeMap<String, SpaceId>,
    /// What `with mm` goes back to: space and identifier, innermost last.
    loaded_before: BTreeMap<CpuId, Vec<(SpaceId, u16)>>,
    /// Whether interrupts were on before each `with stop_machine`, innermost last.
    irqs_before: BTreeMap<CpuId, Vec<bool>>,
    /// `with patch` that are under way, innermost last.
    patches: BTreeMap<CpuId, Vec<CallRef>>,
}

impl KernelWorld<'_> {
    /// Begins what a `with` says.
    pub(super) fn enter_context(&mut self, cpu: CpuId, inside: Inside<'_>) -> Result<(), Stop> {
        match inside {
            Inside::IrqsOff => self.kernel.machine_mut().set_irqs(cpu, false),
            Inside::Lock(name) => {
                self.kernel.machine_mut().lock(cpu, name).map_err(machine_stopped)?;
            }
            Inside::Mm(name) => {
                let space = self.space(cpu, name)?;
                let machine = self.kernel.machine_mut();
                let before = (machine.space_of(cpu), machine.asid_of(cpu));
                let asid = u16::try_from(space.0).unwrap_or(u16::MAX);
                machine.load_space(cpu, space, asid, false).map_err(machine_stopped)?;
                self.contexts.loaded_before.entry(cpu).or_default().push(before);
            }
            Inside::StopMachine => {
                let machine = self.kernel.machine_mut();
                machine.lock_shared(cpu, HOTPLUG_LOCK).map_err(machine_stopped)?;
                let before = machine.irqs_on(cpu);
                machine.emit(cpu, View::StopMachine { begin: true });
                machine.set_irqs(cpu, false);
                self.contexts.irqs_before.entry(cpu).or_default().push(before);
            }
            Inside::Rcu => self.kernel.machine_mut().read_side(cpu, true),
            Inside::Idle { polls } => {
                let polls = polls && self.kernel.idle_polls();
                self.kernel.machine_mut().cpu_idles(cpu, polls).map_err(machine_stopped)?;
            }
            Inside::Patch(addr, len) => {
                let bytes = u16::try_from(len).map_err(|_| {
                    Stop::NotModelled(format!("a patch of {len} bytes as one site"))
                })?;
                let machine = self.kernel.machine_mut();
                let call = machine.enter_call(cpu, "patch", &[addr, len]);
                self.contexts.patches.entry(cpu).or_default().push(call);
                let (virt, handler) = (VirtAddr(addr), false);
                machine
                    .emit(cpu, View::PatchSite { virt, old_len: bytes, new_len: bytes, handler });
            }
        }
        Ok(())
    }

    /// Ends it.
    pub(super) fn leave_context(&mut self, cpu: CpuId, inside: Inside<'_>) -> Result<(), Stop> {
        match inside {
            Inside::IrqsOff => self.kernel.machine_mut().set_irqs(cpu, true),
            Inside::Lock(name) => {
                self.kernel.machine_mut().unlock(cpu, name).map_err(machine_stopped)?;
            }
            Inside::Mm(_) => {
                let before = self.contexts.loaded_before.get_mut(&cpu).and_then(Vec::pop);
                let (space, asid) = before.unwrap_or((SpaceId::KERNEL, 0));
                let machine = self.kernel.machine_mut();
                machine.load_space(cpu, space, asid, false).map_err(machine_stopped)?;
            }
            Inside::StopMachine => {
                let before =
                    self.contexts.irqs_before.get_mut(&cpu).and_then(Vec::pop).unwrap_or(true);
                let machine = self.kernel.machine_mut();
                machine.set_irqs(cpu, before);
                machine.emit(cpu, View::StopMachine { begin: false });
                machine.unlock_shared(cpu, HOTPLUG_LOCK).map_err(machine_stopped)?;
            }
            Inside::Rcu => self.kernel.machine_mut().read_side(cpu, false),
            Inside::Idle { .. } => {
                self.kernel.machine_mut().cpu_wakes(cpu).map_err(machine_stopped)?;
            }
            Inside::Patch(..) => {
                if let Some(call) = self.contexts.patches.get_mut(&cpu).and_then(Vec::pop) {
                    self.kernel.machine_mut().leave_call(cpu, call, 0, false);
                }
            }
        }
        Ok(())
    }

    fn space(&mut self, cpu: CpuId, name: &str) -> Result<SpaceId, Stop> {
        if let Some(space) = self.contexts.spaces.get(name) {
            return Ok(*space);
        }
        let space = self.kernel.machine_mut().new_space(cpu).map_err(machine_stopped)?;
        self.contexts.spaces.insert(name.to_owned(), space);
        Ok(space)
    }
}
