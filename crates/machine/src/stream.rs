//! The stream: events with their context, and the calls inside which they happen.

use textbed_arch::{CpuId, SpaceId};
use textbed_event::{Batch, CallRef, Event, Flags, OpId, Recorder, View};

use crate::Machine;

impl Machine {
    /// The stream under construction: for names and origins.
    pub fn recorder(&mut self) -> &mut Recorder {
        &mut self.recorder
    }

    /// Takes the events since the last call.
    pub fn take_batch(&mut self) -> Batch {
        self.recorder.take()
    }

    /// Emits an event of the kernel's space and returns its number (the next one's, if it is left
    /// out). Cause, context and "interrupts off" come from the CPU's state.
    pub fn emit(&mut self, cpu: CpuId, view: View) -> u64 {
        self.emit_in(cpu, SpaceId::KERNEL, Flags::default(), OpId::NONE, view)
    }

    /// As [`Machine::emit`], with a space, more flags and the instruction behind the event.
    pub fn emit_in(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        flags: Flags,
        op: OpId,
        view: View,
    ) -> u64 {
        if self.syncs.is_some() && self.leaves_out_event(cpu, view) {
            return self.recorder.next_seq();
        }
        let (mut flags, mut cause) = (flags, CallRef::NONE);
        if let Some(c) = self.cpus.get(cpu.index()) {
            cause = c.calls.last().copied().unwrap_or(CallRef::NONE);
            flags = flags.in_context(c.context);
            if !c.irqs_on {
                flags = flags.with(Flags::IRQS_OFF);
            }
        }
        self.recorder.push(Event { cause, space, flags, op, ..Event::new(cpu, view) })
    }

    /// A call begins: later events of the CPU carry it as their cause, until it is left.
    pub fn enter_call(&mut self, cpu: CpuId, name: &str, args: &[u64]) -> CallRef {
        let call = self.recorder.new_call();
        let id = self.recorder.name(name);
        let payload: Vec<u8> = args.iter().flat_map(|a| a.to_le_bytes()).collect();
        let args = self.recorder.bytes(&payload);
        self.emit(cpu, View::CallEntered { call, name: id, args });
        if let Some(watch) = self.syncs.as_mut() {
            watch.entered(call, name);
        }
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.calls.push(call);
        }
        call
    }

    /// A call returned. Calls entered inside it and not left end with it.
    pub fn leave_call(&mut self, cpu: CpuId, call: CallRef, value: i64, failed: bool) {
        if let Some(c) = self.cpus.get_mut(cpu.index())
            && let Some(at) = c.calls.iter().rposition(|open| *open == call)
        {
            c.calls.truncate(at);
        }
        self.emit(cpu, View::CallReturned { call, value, failed });
    }

    /// The innermost call that the CPU is in.
    #[must_use]
    pub fn current_call(&self, cpu: CpuId) -> CallRef {
        let calls = self.cpus.get(cpu.index()).map(|c| c.calls.as_slice());
        calls.and_then(<[CallRef]>::last).copied().unwrap_or(CallRef::NONE)
    }

    /// Switches interrupts of a CPU on or off; no event, later ones carry the flag.
    pub fn set_irqs(&mut self, cpu: CpuId, on: bool) {
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.irqs_on = on;
        }
    }

    /// Whether interrupts of a CPU are on; false for a CPU that does not exist.
    #[must_use]
    pub fn irqs_on(&self, cpu: CpuId) -> bool {
        self.cpus.get(cpu.index()).is_some_and(|c| c.irqs_on)
    }
}
