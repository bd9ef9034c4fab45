//! unlocked-patch and wrong-context: what a call's own contract asks of where it runs.

use textbed_event::{CallRef, Context, Flags, NameId, Need, View};

use crate::book::Draft;
use crate::finding::Blame;
use crate::live::{Live, Now};
use crate::operation::Operation;
use crate::rules::RuleId;

/// The kind of operation that gives a call what it needs.
fn lack(what: Need) -> Operation {
    match what {
        Need::LockHeld => Operation::Lock,
        Need::IrqsOff => Operation::IrqsOff,
        Need::NotInNmi => Operation::OutsideNmi,
        Need::OthersStopped | Need::AloneAtBoot => Operation::OthersStopped,
        Need::MaySleep | Need::IrqsOn | Need::TaskContext | Need::Other => Operation::TaskContext,
    }
}

impl Live {
    /// A lock was taken or released.
    pub(crate) fn lock_held(&mut self, now: Now<'_>, lock: NameId, taken: bool) {
        let held = self.patching.held.entry(now.cpu()).or_default();
        if !taken {
            if let Some(at) = held.iter().rposition(|l| *l == lock) {
                held.remove(at);
            }
        } else if held.len() < 64 {
            held.push(lock);
        }
    }

    /// A call needs something of its context.
    pub(crate) fn needs(&mut self, now: Now<'_>, call: CallRef, what: Need, lock: NameId) {
        let rule =
            if what == Need::LockHeld { RuleId::UnlockedPatch } else { RuleId::WrongContext };
        self.occasions.looked(rule);
        if !self.checkable(rule) || self.has(now, what, lock) {
            return;
        }
        let mark = self.mark(now);
        let name = self.call_name(call);
        let message = match what {
            Need::LockHeld => format!(
                "{name} changes text on {} without the lock '{}' that it needs",
                now.cpu(),
                self.names.get(lock)
            ),
            _ => format!("{name} runs on {} and needs {}, but {}", now.cpu(), what.text(), {
                self.context_text(now)
            }),
        };
        let site = self.site(&mark, format!("needs {}", what.text()));
        let mut draft = Draft::new(rule, lack(what), message, site);
        draft.sure = mark.sure;
        draft.blame = Blame::Caller;
        draft.missing.push(match what {
            Need::LockHeld => format!("lock '{}'", self.names.get(lock)),
            _ => what.text().to_owned(),
        });
        draft.help = Some(match what {
            Need::LockHeld => format!("hold '{}' around {name}", self.names.get(lock)),
            Need::MaySleep | Need::IrqsOn | Need::TaskContext => {
                format!("call {name} from a task, with interrupts on and nobody standing still")
            }
            _ => format!("give {name} {}", what.text()),
        });
        self.report(draft);
    }

    /// Whether the context has what is needed.
    fn has(&self, now: Now<'_>, what: Need, lock: NameId) -> bool {
        let flags = now.event.flags;
        let (off, context) = (flags.has(Flags::IRQS_OFF), flags.context());
        match what {
            Need::LockHeld => {
                lock == NameId::NONE
                    || flags.has(Flags::BOOT)
                    || self.patching.held.get(&now.cpu()).is_some_and(|h| h.contains(&lock))
            }
            Need::MaySleep => !off && context == Context::Task && !self.watch.stopped,
            Need::IrqsOn => !off,
            Need::IrqsOff => off,
            Need::NotInNmi => context != Context::Nmi,
            Need::TaskContext => context == Context::Task,
            Need::OthersStopped => self.watch.stopped || self.alone(now),
            Need::AloneAtBoot => self.alone(now),
            Need::Other => true,
        }
    }

    /// No other CPU runs.
    fn alone(&self, now: Now<'_>) -> bool {
        let others = self.cpus.online & !View::cpu_bit(now.cpu());
        now.event.flags.has(Flags::BOOT) || others == 0
    }

    fn context_text(&self, now: Now<'_>) -> String {
        let flags = now.event.flags;
        let mut words = vec![match flags.context() {
            Context::Task => "it runs in a task",
            Context::SoftIrq => "it runs in a soft interrupt",
            Context::Irq => "it runs in an interrupt",
            Context::Nmi => "it runs in a non-maskable interrupt",
            Context::Guest => "it runs in a guest",
        }];
        words.push(if flags.has(Flags::IRQS_OFF) { "interrupts off" } else { "interrupts on" });
        words.push(if self.watch.stopped { "all others stopped" } else { "other CPUs running" });
        words.join(", ")
    }
}
