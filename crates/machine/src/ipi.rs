//! Cross-calls: an interrupt to other CPUs, and what they run.
//!
//! Modelled: the interrupt as context synchronisation where the architecture has it so, a CPU that
//! polls while idle and picks the call up without an interrupt, a sender that waits or not. Who
//! interrupts one CPU alone sees that it polls and sends it nothing; several are interrupted
//! together, polling or not (Linux 6.12 kernel/smp.c smp_call_function_many_cond() and
//! kernel/sched/core.c call_function_single_prep_ipi()). A CPU with interrupts off takes nothing:
//! what was sent to it stays pending, in order, until it takes it ([`Machine::serve_ipis`], or a
//! CPU that runs code and has handlers of its own). [`Machine::ipi`] has each receiver serve it at
//! once, in CPU order, before the sender goes on, whether or not the sender waits. Not modelled:
//! priorities, coalescing of equal calls, a CPU that leaves its idle loop for another reason
//! between the call and its interrupt, and serves the call there.

use textbed_arch::{Arch, CpuId};
use textbed_event::{Context, CpuState, OpId, View};

use crate::leave_out::SyncKind;
use crate::state::{Part, Take};
use crate::{CpuMask, Machine, MachineError};

/// What a receiver runs.
pub type Handler<'a> = dyn FnMut(&mut Machine, CpuId) -> Result<(), MachineError> + 'a;

/// A cross-call that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipi {
    number: u32,
    from: CpuId,
}

/// A cross-call that a CPU has yet to take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    ipi: Ipi,
    /// The CPU polled while idle and was sent no interrupt.
    polled: bool,
}

/// A cross-call that a CPU is serving, and what the CPU goes back to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serving {
    ipi: Ipi,
    before: (Context, bool),
}

impl Ipi {
    pub(crate) fn visit(self, take: Take<'_>) {
        take(Part::Value(u64::from(self.number) << 16 | u64::from(self.from.0)));
    }
}

impl Queued {
    pub(crate) fn visit(self, take: Take<'_>) {
        self.ipi.visit(take);
        take(Part::Value(u64::from(self.polled)));
    }
}

impl Serving {
    pub(crate) fn visit(self, take: Take<'_>) {
        self.ipi.visit(take);
        take(Part::Value((self.before.0 as u64) << 1 | u64::from(self.before.1)));
    }
}

impl Machine {
    /// Has `handler` run on every CPU of `targets` that exists; the sender runs it too if it is
    /// among them, without an interrupt and last.
    ///
    /// # Errors
    /// `WrongContext`: the sender waits for a receiver that has interrupts off and would never take
    /// it here, or that would take earlier calls first, of which nobody here knows what they run.
    /// What the handler returns ends the call. Without waiting, the call stays pending for such
    /// receivers. A sender may have interrupts off itself: that is a deadlock only if one of the
    /// others waits for it too.
    pub fn ipi(
        &mut self,
        from: CpuId,
        targets: CpuMask,
        function: &str,
        wait: bool,
        handler: &mut Handler<'_>,
    ) -> Result<(), MachineError> {
        let all = self.all_cpus().filter(|cpu| targets.has(*cpu) && *cpu != from);
        let others: Vec<CpuId> = all.collect();
        let takes = |cpu: CpuId| self.irqs_on(cpu) && self.pending_ipis(cpu) == 0;
        if wait && let Some(cpu) = others.iter().find(|cpu| !takes(**cpu)) {
            return Err(MachineError::WrongContext { cpu: *cpu });
        }
        if let Some(ipi) = self.send_ipi(from, targets, function)? {
            let serving = self.serves_for(Some(from));
            for cpu in others {
                if self.pending_ipis(cpu) == 1 {
                    self.serve_ipis(cpu, handler)?;
                }
            }
            self.serves_for(serving);
            if wait {
                self.join_ipi(ipi);
            }
        }
        if targets.has(from) { handler(self, from) } else { Ok(()) }
    }

    /// Sends a cross-call to those CPUs of `targets` that exist, without the sender; it is pending
    /// there. `None`: there is no such CPU, or the interrupt is left out.
    ///
    /// # Errors
    /// There is no such sender.
    pub fn send_ipi(
        &mut self,
        from: CpuId,
        targets: CpuMask,
        function: &str,
    ) -> Result<Option<Ipi>, MachineError> {
        self.cpu(from)?;
        self.perform_all(from);
        let all = self.all_cpus().filter(|cpu| targets.has(*cpu));
        let others: CpuMask = all.filter(|cpu| *cpu != from).collect();
        if others.iter().next().is_none()
            || self.left_out(from, || SyncKind::Ipi(function.to_owned()))
        {
            return Ok(None);
        }
        self.next_ipi += 1;
        let ipi = Ipi { number: self.next_ipi, from };
        let name = self.recorder.name(function);
        self.advance();
        let targets = others.event_bits();
        self.emit(from, View::IpiSent { ipi: ipi.number, function: name, targets });
        self.stirs += 1;
        // Where earlier calls are pending, their interrupt is under way.
        let mut interrupted = others.iter().filter(|cpu| self.pending_ipis(*cpu) == 0);
        let alone = interrupted.next().filter(|_| interrupted.next().is_none());
        for cpu in others.iter() {
            let c = self.cpu_mut(cpu)?;
            let polled = alone == Some(cpu) && c.state == CpuState::PollingIdle;
            c.ipis.push(Queued { ipi, polled });
        }
        Ok(Some(ipi))
    }

    /// Cross-calls that were sent to a CPU and that it has not taken.
    #[must_use]
    pub fn pending_ipis(&self, cpu: CpuId) -> usize {
        self.cpus.get(cpu.index()).map_or(0, |c| c.ipis.len())
    }

    /// Whether every receiver has served a cross-call.
    #[must_use]
    pub fn ipi_is_served(&self, ipi: Ipi) -> bool {
        let serves = |serving: &Serving| serving.ipi == ipi;
        self.cpus
            .iter()
            .all(|c| !c.ipis.iter().any(|p| p.ipi == ipi) && !c.serving.iter().any(serves))
    }

    /// The sender saw that every receiver has served it, if that is so.
    pub fn join_ipi(&mut self, ipi: Ipi) -> bool {
        let served = self.ipi_is_served(ipi);
        if served {
            self.learned(ipi.from);
            self.emit(ipi.from, View::IpiDone { ipi: ipi.number, waited: true });
        }
        served
    }

    /// A CPU serves what is pending there, if it can take it; how many.
    ///
    /// # Errors
    /// What the handler returns.
    pub fn serve_ipis(
        &mut self,
        cpu: CpuId,
        handler: &mut Handler<'_>,
    ) -> Result<usize, MachineError> {
        let mut served = 0;
        while self.irqs_on(cpu) && self.pending_ipis(cpu) > 0 {
            let by_interrupt = !self.cpu(cpu)?.ipis.first().is_some_and(|pending| pending.polled);
            if !self.accept(cpu, by_interrupt, by_interrupt) {
                break;
            }
            let result = handler(self, cpu);
            self.finish(cpu, by_interrupt);
            result?;
            served += 1;
        }
        Ok(served)
    }

    /// A CPU that runs code has entered its handler for the oldest cross-call that is pending; it
    /// has entered the exception itself, and says when it is done ([`Machine::finish_ipi`]).
    /// Whether there was one.
    pub fn accept_ipi(&mut self, cpu: CpuId) -> bool {
        self.accept(cpu, true, false)
    }

    /// A CPU that runs code has returned from its handler for the cross-call that it accepted last.
    pub fn finish_ipi(&mut self, cpu: CpuId) {
        self.finish(cpu, false);
    }

    fn accept(&mut self, cpu: CpuId, by_interrupt: bool, enters: bool) -> bool {
        let Some(c) = self.cpus.get_mut(cpu.index()).filter(|c| !c.ipis.is_empty()) else {
            return false;
        };
        let ipi = c.ipis.remove(0).ipi;
        let before = (c.context, c.irqs_on);
        if by_interrupt {
            c.context = Context::Irq;
        }
        c.irqs_on = false;
        c.serving.push(Serving { ipi, before });
        if enters {
            self.exception_entry(cpu);
        }
        self.advance();
        self.learned(cpu);
        self.emit(cpu, View::IpiTaken { ipi: ipi.number, by_interrupt });
        true
    }

    fn finish(&mut self, cpu: CpuId, returns: bool) {
        let last = self.cpus.get(cpu.index()).and_then(|c| c.serving.last().copied());
        let Some(serving) = last else { return };
        self.emit(cpu, View::IpiDone { ipi: serving.ipi.number, waited: false });
        if returns {
            let iret = self.arch() == Arch::X86_64;
            self.exception_return(cpu, iret, OpId::NONE);
        }
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            (c.context, c.irqs_on) = serving.before;
            c.serving.pop();
        }
    }
}
