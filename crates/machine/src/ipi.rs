//! Cross-calls: an interrupt to other CPUs, and what they run.
//!
//! Modelled: the interrupt as context synchronisation where the architecture has it so, CPUs that
//! poll while idle and pick the call up without an interrupt (a choice), a sender that waits or
//! not. Not modelled: delivery later than the send: each receiver serves it before the sender goes
//! on, in CPU order, whether or not the sender waits.

use textbed_arch::{Arch, CpuId};
use textbed_event::{Context, CpuState, OpId, View};

use crate::choice::Choice;
use crate::leave_out::SyncKind;
use crate::{CpuMask, Machine, MachineError};

/// What a receiver runs.
pub type Handler<'a> = dyn FnMut(&mut Machine, CpuId) -> Result<(), MachineError> + 'a;

impl Machine {
    /// Has `handler` run on every CPU of `targets` that exists; the sender runs it too if it is
    /// among them, without an interrupt and last.
    ///
    /// # Errors
    /// `WrongContext`: the sender waits with interrupts off (a deadlock on hardware), or a receiver
    /// has them off and cannot take it. What the handler returns ends the call.
    pub fn ipi(
        &mut self,
        from: CpuId,
        targets: CpuMask,
        function: &str,
        wait: bool,
        handler: &mut Handler<'_>,
    ) -> Result<(), MachineError> {
        self.cpu(from)?;
        self.perform_all(from);
        let all = self.all_cpus().filter(|cpu| targets.has(*cpu));
        let others: Vec<CpuId> = all.filter(|cpu| *cpu != from).collect();
        if !others.is_empty() {
            let mut off = std::iter::once(from).filter(|_| wait).chain(others.iter().copied());
            if let Some(cpu) = off.find(|cpu| !self.irqs_on(*cpu)) {
                return Err(MachineError::WrongContext { cpu });
            }
            if self.left_out(from, || SyncKind::Ipi(function.to_owned())) {
                return if targets.has(from) { handler(self, from) } else { Ok(()) };
            }
            self.next_ipi += 1;
            let ipi = self.next_ipi;
            let mask: CpuMask = others.iter().copied().collect();
            let name = self.recorder.name(function);
            self.advance();
            let view = View::IpiSent { ipi, function: name, targets: mask.event_bits() };
            self.emit(from, view);
            let serving = self.serves_for(Some(from));
            for cpu in others {
                self.serve(cpu, ipi, handler)?;
            }
            self.serves_for(serving);
            if wait {
                self.learned(from);
                self.emit(from, View::IpiDone { ipi, waited: true });
            }
        }
        if targets.has(from) { handler(self, from) } else { Ok(()) }
    }

    /// One receiver serves a cross-call.
    fn serve(
        &mut self,
        cpu: CpuId,
        ipi: u32,
        handler: &mut Handler<'_>,
    ) -> Result<(), MachineError> {
        let polls = self.cpu(cpu)?.state == CpuState::PollingIdle;
        let by_interrupt = !(polls && self.choices.yes(Choice::IpiByPoll { cpu }));
        let before = {
            let c = self.cpu_mut(cpu)?;
            let before = (c.context, c.irqs_on);
            if by_interrupt {
                c.context = Context::Irq;
            }
            c.irqs_on = false;
            before
        };
        if by_interrupt {
            self.exception_entry(cpu);
        }
        self.advance();
        self.learned(cpu);
        self.emit(cpu, View::IpiTaken { ipi, by_interrupt });
        let result = handler(self, cpu);
        self.emit(cpu, View::IpiDone { ipi, waited: false });
        if by_interrupt {
            let iret = self.arch() == Arch::X86_64;
            self.exception_return(cpu, iret, OpId::NONE);
        }
        let c = self.cpu_mut(cpu)?;
        (c.context, c.irqs_on) = before;
        result
    }
}
