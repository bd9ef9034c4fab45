//! no-quiescence: code is replaced or freed while a task stands in it.
//!
//! A task that was preempted inside code goes on where it stood. It may stand at the first byte of
//! what is replaced (it runs all of the new code), never behind it. A grace period that does not
//! count preempted tasks does not help; neither does stopping all CPUs.

use textbed_event::NameId;

use crate::book::Draft;
use crate::finding::Blame;
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;
use crate::tables::UNKNOWN_PHYS;

/// Where a task goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    virt: u64,
    phys: Option<u64>,
    mark: Mark,
}

/// Tasks kept.
const MAX_TASKS: usize = 1 << 14;
/// From so many bytes on a store replaces a routine rather than an instruction.
const ROUTINE_BYTES: u64 = 16;

impl Live {
    pub(crate) fn task_stands(&mut self, now: Now<'_>, task: NameId, virt: u64, stands: bool) {
        if !stands {
            self.patching.tasks.remove(&task);
        } else if self.patching.tasks.len() < MAX_TASKS {
            self.occasions.looked(RuleId::NoQuiescence);
            let space = self.cpus.space_of(now.cpu());
            let phys = self.tables.lookup(space, virt).map(|(_, m)| m.phys);
            let phys = phys.filter(|p| *p < UNKNOWN_PHYS);
            let mark = self.mark(now).about(virt);
            self.patching.tasks.insert(task, Standing { virt, phys, mark });
        }
    }

    /// Bytes of `frames` were replaced.
    pub(crate) fn replaced_under_tasks(&mut self, mark: &Mark, frames: Span) {
        if self.patching.tasks.is_empty() {
            return;
        }
        let start = self.patching.sites.iter().filter(|s| s.cpu == mark.cpu);
        let site = start.filter_map(|s| s.frames).find(|f| f.meet(frames).is_some());
        let whole = site.unwrap_or(frames);
        let from = if whole.len() > ROUTINE_BYTES { whole.first } else { whole.first + 1 };
        self.judge_standing(mark, |s| s.phys.is_some_and(|p| (from..=whole.last).contains(&p)), {
            "is replaced"
        });
    }

    /// Frames went back.
    pub(crate) fn freed_under_tasks(&mut self, mark: &Mark, frames: Span) {
        let inside =
            |s: &Standing| s.phys.is_some_and(|p| (frames.first..=frames.last).contains(&p));
        self.judge_standing(mark, inside, "is freed");
    }

    fn judge_standing(&mut self, mark: &Mark, inside: impl Fn(&Standing) -> bool, what: &str) {
        if self.patching.tasks.is_empty() {
            return;
        }
        self.occasions.looked(RuleId::NoQuiescence);
        let mut found: Vec<(NameId, Standing)> =
            self.patching.tasks.iter().filter(|(_, s)| inside(s)).map(|(t, s)| (*t, *s)).collect();
        found.sort_unstable_by_key(|(task, _)| *task);
        for (task, standing) in found {
            // Once for each stay.
            self.patching.tasks.remove(&task);
            if !self.checkable(RuleId::NoQuiescence) {
                continue;
            }
            let at = self.address(standing.virt);
            let message = format!(
                "code {what} while the task '{}' stands in it and will go on at {at}",
                self.names.get(task)
            );
            let site = self.site(&mark.about(standing.virt), format!("{what} here"));
            let mut draft = Draft::new(RuleId::NoQuiescence, Operation::Quiescence, message, site);
            draft.because = Some(self.site(&standing.mark, "the task stands there since"));
            draft.sure = mark.sure && standing.mark.sure;
            draft.blame = Blame::Caller;
            draft.missing.push("a grace period that waits for preempted tasks".to_owned());
            draft.help = Some(
                "unpublish the code, wait until every task that may stand in it has left (a grace \
                 period of the tasks flavour, or a check of stacks), then replace or free it"
                    .to_owned(),
            );
            self.report(draft);
        }
    }
}
