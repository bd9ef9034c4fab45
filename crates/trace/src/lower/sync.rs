//! Order between CPUs: cross-calls sent, taken and done, translations dropped, contexts
//! synchronised.
//!
//! A cross-call is known by the function that it makes others run (`do_sync_core`): its callers may
//! be inlined. Receivers are all other CPUs, for the functions in the table are sent so. A receiver
//! takes the newest call of that function that it has not taken. A CPU that runs it outside an
//! interrupt (polling idle) gets no synchronisation from it.
//!
//! Interrupt entry is context synchronising on arm64 and powerpc, return from it on all three
//! (architecture-rules; x86 `iret`). Not modelled: interrupts that are not cross-calls.

use super::Lower;
use super::text::Open;
use crate::accounting::{Class, Reason};
use crate::bounds::Bound;
use crate::ftrace::{Fields, number};
use crate::functions::{Function, Meaning, Runs};
use crate::side::below;
use std::collections::VecDeque;
use textbed_arch::effect::{Reach, SyncCause, TlbScope};
use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::{CallRef, Context, CpuState, Flags, Provenance, View};

#[derive(Debug, Clone)]
struct Pending {
    ipi: u32,
    function: &'static Function,
    runs: Runs,
    /// The range that it flushes, once somebody showed it.
    range: Option<(u64, u64)>,
    sender: CpuId,
    /// Receivers that have not taken it.
    waiting: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pending: VecDeque<Pending>,
    sent: u32,
    /// The inner half of a cross-call whose outer half was just seen: sender and function.
    outer: Option<(CpuId, &'static str)>,
    /// CPUs that nothing has shown.
    gaps: u64,
}

impl State {
    /// Nothing is under way any more; numbers go on.
    pub(super) fn restart(&mut self) {
        *self = Self { sent: self.sent, gaps: self.gaps, ..Self::default() };
    }
}

impl Lower<'_> {
    pub(super) fn sync_entry(&mut self, f: &'static Function, e: &Fields<'_>) -> Class {
        let bad = Class::NotUnderstood(Reason::BadArguments);
        match f.meaning {
            Meaning::CrossCall { inner } => self.cross_call(f, inner, e),
            Meaning::IpiSend => self.ipi_send(e),
            Meaning::Remote(runs) => {
                let range = match runs {
                    Runs::FlushRange => match e.number(b"start").zip(e.number(b"end")) {
                        None => return bad,
                        range => range,
                    },
                    _ => None,
                };
                self.remote(f, runs, range);
                Class::Used
            }
            Meaning::LocalFlushAll => {
                self.flush(TlbScope::All, Reach::Local, 0, 0, Provenance::Recorded);
                Class::Used
            }
            Meaning::LocalFlushOne => {
                let Some(addr) = e.number(b"addr") else { return bad };
                let page = 1u64 << self.mappings.page_shift();
                self.flush(TlbScope::Address, Reach::Local, addr, page, Provenance::Recorded);
                Class::Used
            }
            Meaning::BroadcastFlush => {
                // Radix drops all of the kernel's PID, whatever the range.
                self.flush(TlbScope::All, Reach::Broadcast, 0, 0, Provenance::Inferred);
                Class::Used
            }
            _ => Class::Used,
        }
    }

    fn flush(&mut self, scope: TlbScope, reach: Reach, virt: u64, len: u64, known_by: Provenance) {
        let virt = VirtAddr(virt);
        self.emit(View::TlbInvalidate { scope, reach, virt, len, asid: 0, leaf: None }, known_by);
    }

    fn cross_call(&mut self, f: &'static Function, inner: bool, e: &Fields<'_>) -> Class {
        let Some(func) = e.arg(b"func") else { return Class::NotUnderstood(Reason::BadArguments) };
        let target = self.recent.pointer(func);
        let Some(target) = target.filter(|t| matches!(t.meaning, Meaning::Remote(_))) else {
            return Class::NotNeeded;
        };
        let this = Some((self.now.cpu, target.name));
        let outer = std::mem::replace(&mut self.sync.outer, this.filter(|_| !inner));
        if inner && outer == this {
            return Class::NotNeeded;
        }
        // kick_all_cpus_sync waits, and shows no argument that says so.
        let waits =
            e.number(b"wait").map_or(target.meaning == Meaning::Remote(Runs::Nothing), |w| w != 0);
        let others = self.other_cpus();
        self.send_ipi(target, others, waits.then_some(f.name), Provenance::Inferred);
        Class::Used
    }

    /// The machine has no CPUs of these numbers, as far as is known: before the first line.
    pub(crate) fn without_cpus(&mut self, gaps: u64) {
        self.sync.gaps = gaps | !below(u32::from(self.header.cpus.wrapping_sub(1)) + 1);
        for cpu in (0..63).map(CpuId).filter(|cpu| gaps & View::cpu_bit(*cpu) != 0) {
            self.state_of(cpu, CpuState::Offline);
        }
    }

    /// A line is of this CPU: it is there.
    pub(super) fn cpu_shows(&mut self) {
        let (cpu, bit) = (self.now.cpu, View::cpu_bit(self.now.cpu));
        if self.sync.gaps & bit != 0 {
            self.sync.gaps &= !bit;
            self.state_of(cpu, CpuState::Online);
        }
    }

    fn state_of(&mut self, cpu: CpuId, state: CpuState) {
        let (cause, flags) = (CallRef::NONE, Flags::default());
        self.emit_of(cpu, cause, View::Cpu { state }, Provenance::Inferred, flags);
    }

    /// All CPUs but this one; all bits but this CPU's where their number is not known.
    fn other_cpus(&self) -> u64 {
        let own = View::cpu_bit(self.now.cpu);
        let all = match self.header.cpus {
            n @ 1..=63 => (1u64 << n) - 1,
            _ => u64::MAX,
        };
        all & !own & !self.sync.gaps
    }

    fn send_ipi(
        &mut self,
        target: &'static Function,
        targets: u64,
        waits: Option<&'static str>,
        known_by: Provenance,
    ) {
        self.sync.sent = self.sync.sent.wrapping_add(1);
        match target.meaning {
            Meaning::Remote(Runs::SyncCore) => {
                self.synced();
                self.patch_syncs(true);
            }
            Meaning::Remote(Runs::Nothing) => {
                self.copy_maintained();
                self.patch_syncs(true);
            }
            _ => {}
        }
        let ipi = self.sync.sent;
        self.counts.ipis_sent += 1;
        let function = self.name(target.name);
        self.emit(View::IpiSent { ipi, function, targets }, known_by);
        if self.sync.pending.len() >= Bound::CrossCalls.most()
            && let Some(oldest) = self.sync.pending.pop_front()
        {
            self.dropped.add(Bound::CrossCalls, usize::from(oldest.waiting != 0));
        }
        self.sync.pending.push_back(Pending {
            ipi,
            function: target,
            runs: match target.meaning {
                Meaning::Remote(runs) => runs,
                _ => Runs::Nothing,
            },
            range: None,
            sender: self.now.cpu,
            waiting: targets,
        });
        if let Some(creator) = waits {
            self.leave_open(Open::Wait { ipi, cpu: self.now.cpu, creator });
        }
    }

    /// A tracepoint that says who is sent to. Where the callback is a function of the table and no
    /// function probe showed the call, it is the call.
    fn ipi_send(&mut self, e: &Fields<'_>) -> Class {
        if self.seen.cross_call {
            return Class::NotNeeded;
        }
        let target = e.arg(b"callback").and_then(|text| self.recent.pointer(text));
        let Some(target) = target.filter(|t| matches!(t.meaning, Meaning::Remote(_))) else {
            return Class::NotNeeded;
        };
        let one = e.number(b"cpu").map(|c| 1u64 << c.min(63));
        let Some(targets) = one.or_else(|| e.arg(b"cpumask").and_then(cpu_list)) else {
            return Class::NotUnderstood(Reason::BadArguments);
        };
        self.send_ipi(target, targets, None, Provenance::Recorded);
        Class::Used
    }

    /// The sender of a cross-call went on after it had waited for all receivers: those of which the
    /// log does not show it (a kprobe misses hits while another one runs on its CPU) ran it too.
    /// One that ran `do_nothing` may have polled, and gets no synchronisation from it.
    pub(super) fn waited_for(&mut self, ipi: u32) {
        let found = self.sync.pending.iter_mut().rev().find(|p| p.ipi == ipi);
        let Some((waiting, runs, range)) =
            found.map(|p| (std::mem::take(&mut p.waiting), p.runs, p.range))
        else {
            return;
        };
        let cpus = self.header.cpus.min(63);
        for cpu in (0..cpus).filter(|cpu| waiting & View::cpu_bit(CpuId(*cpu)) != 0) {
            let (scope, virt, len) = match (runs, range) {
                (Runs::FlushAll, _) => (TlbScope::All, 0, 0),
                (Runs::FlushRange, Some((start, end))) => {
                    (TlbScope::Address, start, end.saturating_sub(start))
                }
                (Runs::FlushRange, None) | (Runs::Nothing, _) => continue,
                (Runs::SyncCore | Runs::Isync, _) => {
                    let cause = match runs {
                        Runs::SyncCore => SyncCause::Serialising,
                        _ => SyncCause::Instruction,
                    };
                    self.unseen_on(cpu, View::ContextSync { cause });
                    continue;
                }
            };
            let (reach, virt) = (Reach::Local, VirtAddr(virt));
            self.unseen_on(
                cpu,
                View::TlbInvalidate { scope, reach, virt, len, asid: 0, leaf: None },
            );
        }
    }

    fn unseen_on(&mut self, cpu: u16, view: View) {
        self.counts.waited_unseen += 1;
        self.emit_of(CpuId(cpu), CallRef::NONE, view, Provenance::Inferred, Flags::default());
    }

    fn remote(&mut self, f: &'static Function, runs: Runs, range: Option<(u64, u64)>) {
        if runs == Runs::SyncCore {
            self.synced();
            self.patch_syncs(false);
        }
        let by_interrupt = self.now.flags.context() == Context::Irq;
        let own = View::cpu_bit(self.now.cpu);
        let cpu = self.now.cpu;
        // The sender runs it too, and shows the range.
        let same = |p: &Pending| p.sender == cpu && std::ptr::eq(p.function, f);
        if range.is_some()
            && let Some(own) = self.sync.pending.iter_mut().rev().find(|p| same(p))
        {
            own.range = own.range.or(range);
        }
        let taken = self
            .sync
            .pending
            .iter_mut()
            .rev()
            .find(|p| p.waiting & own != 0 && p.sender != cpu && std::ptr::eq(p.function, f))
            .map(|p| {
                p.waiting &= !own;
                p.range = p.range.or(range);
                p.ipi
            });
        if let Some(ipi) = taken {
            self.counts.ipis_taken += 1;
            self.emit(View::IpiTaken { ipi, by_interrupt }, Provenance::Inferred);
            if by_interrupt && self.kernel.arch != Arch::X86_64 {
                let cause = SyncCause::ExceptionEntry;
                self.emit(View::ContextSync { cause }, Provenance::Inferred);
            }
        } else if !self.sync.pending.iter().any(same) {
            self.counts.remote_without_call += 1;
        }
        match runs {
            Runs::SyncCore => {
                let cause = SyncCause::Serialising;
                self.emit(View::ContextSync { cause }, Provenance::Recorded);
            }
            Runs::Isync => {
                let cause = SyncCause::Instruction;
                self.emit(View::ContextSync { cause }, Provenance::Recorded);
            }
            Runs::FlushAll => self.flush(TlbScope::All, Reach::Local, 0, 0, Provenance::Recorded),
            Runs::FlushRange => {
                let (start, end) = range.unwrap_or((0, 0));
                let len = end.saturating_sub(start);
                self.flush(TlbScope::Address, Reach::Local, start, len, Provenance::Recorded);
            }
            Runs::Nothing => {}
        }
        if let Some(ipi) = taken {
            self.emit(View::IpiDone { ipi, waited: false }, Provenance::Inferred);
            if by_interrupt {
                let cause = SyncCause::ExceptionReturn;
                self.emit(View::ContextSync { cause }, Provenance::Inferred);
            }
        }
    }
}

/// `0,2-3` as a mask; CPUs from 63 on share the top bit.
fn cpu_list(text: &[u8]) -> Option<u64> {
    let mut mask = 0u64;
    for part in text.split(|c| *c == b',') {
        let (first, last) = match memchr::memchr(b'-', part) {
            Some(dash) => (number(part.get(..dash)?)?, number(part.get(dash + 1..)?)?),
            None => (number(part)?, number(part)?),
        };
        for cpu in first..=last.min(first.saturating_add(4096)) {
            mask |= 1u64 << cpu.min(63);
        }
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    use super::cpu_list;

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpu_list(b"0,2-3"), Some(0b1101));
        assert_eq!(cpu_list(b"62-70"), Some(3 << 62));
        assert_eq!(cpu_list(b"x"), None);
        assert_eq!(cpu_list(b""), None);
    }
}
