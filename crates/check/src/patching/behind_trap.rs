//! torn-patch behind a trap: bytes are replaced behind a trap that not every CPU is known to have,
//! or the trap goes before the bytes behind it are known to be seen.
//!
//! A trap in the first byte makes it safe to replace the rest of an instruction: whoever comes
//! there runs the trap. That holds for a CPU which dropped what it fetched before the trap was
//! stored, and the patcher has to know that it did: by an interrupt that the CPU answered after it
//! synchronised, say. A grace period is no such thing. In the same way the trap may go only when
//! the new rest is known to be seen. (Linux 7.0 arch/x86/kernel/alternative.c, the batch of
//! patches: a synchronisation of all CPUs behind the trap, behind the rest, behind the first byte;
//! Intel SDM 3A 8.1.3.) Judged at the store, for CPUs that ran the place; so
//! it is possible, never certain: that one of them comes by in between is another finding
//! ([`super::torn`]).
//!
//! Traps are known by their bytes and by being stored alone, over code that another CPU ran; the
//! bytes behind it by lying directly behind. Not modelled: architectures whose instructions are
//! single words, AMD (whose aligned quadwords are seen whole), traps that stood before the stream.

use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, Features, trap};
use textbed_event::View;

use crate::book::Draft;
use crate::fetch::Model;
use crate::finding::Blame;
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;

/// Traps kept; past it none is added.
const MAX_TRAPS: usize = 1 << 14;
/// Longest x86 instruction.
const LONGEST: u64 = 15;

/// A trap that stands in front of something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    mark: Mark,
    /// Where the bytes behind it begin that were not replaced since.
    next: u64,
    /// The last store behind it.
    rest: Option<Mark>,
}

/// By physical address.
pub(crate) type Traps = BTreeMap<u64, Standing>;

impl Live {
    /// A store changes `frames`, one unit or a few.
    pub(crate) fn stored_around_traps(&mut self, now: Now<'_>, frames: Span, bytes: &[u8]) {
        let arch = self.arch();
        let judged = arch == Arch::X86_64 && !self.header.features.contains(Features::X86_AMD);
        if !judged || frames.len() > LONGEST || self.fetches.is_off() {
            return;
        }
        let q = now.cpu();
        if frames.len() == 1 && trap::is_trap_fill(arch, bytes) {
            let traps = &self.patching.traps;
            if traps.len() < MAX_TRAPS && !self.watch.stopped && self.ran_elsewhere(q, frames) {
                let mark = self.mark(now);
                let next = frames.first + 1;
                self.patching.traps.insert(frames.first, Standing { mark, next, rest: None });
            }
            return;
        }
        if self.patching.traps.is_empty() {
            return;
        }
        let from = frames.first.saturating_sub(LONGEST);
        let near: Vec<(u64, Standing)> =
            self.patching.traps.range(from..=frames.last).map(|(at, t)| (*at, *t)).collect();
        for (at, standing) in near {
            if frames.first <= at {
                self.patching.traps.remove(&at);
                if let Some(rest) = standing.rest.filter(|_| frames.len() == 1) {
                    self.judge_trap(now, at, &rest, "the first byte");
                }
            } else if frames.first <= standing.next {
                self.judge_trap(now, at, &standing.mark, "the rest");
                let mark = self.mark(now);
                if let Some(standing) = self.patching.traps.get_mut(&at) {
                    standing.next = standing.next.max(frames.last.saturating_add(1));
                    standing.rest = Some(mark);
                }
            }
        }
    }

    /// Is it known of every CPU that ran the trap's place that it synchronised after `before`?
    fn judge_trap(&mut self, now: Now<'_>, at: u64, before: &Mark, what: &str) {
        self.occasions.looked(RuleId::TornPatch);
        if self.watch.stopped || !self.checkable(RuleId::TornPatch) {
            return;
        }
        let Model::X86 { machine, .. } = &self.fetches.model else { return };
        let q = now.cpu();
        let byte = Span { first: at, last: at };
        let mut open = (0..self.header.cpus.min(64)).map(CpuId).filter(|p| {
            *p != q
                && self.cpus.online & View::cpu_bit(*p) != 0
                && self.fetches.looks.executed(*p, byte, 0, u64::MAX)
                && !machine.sync_is_known(q, *p, before.seq)
        });
        let Some(p) = open.next() else { return };
        let others = open.count();
        let mark = self.mark(now);
        // The store goes through an alias; who said what it patches said where that runs.
        let run_at = self.patching.sites.iter().find_map(|s| {
            let frames = s.frames.filter(|f| f.first.abs_diff(at) <= LONGEST)?;
            Some(s.virt.first.wrapping_add(at.wrapping_sub(frames.first)))
        });
        let run_at = run_at.or(mark.virt.map(|v| v.0)).unwrap_or(at);
        let place = self.address(run_at);
        let trap = what == "the rest";
        let message = format!(
            "{q} replaces {what} of an instruction at {place}, and {} may run old bytes with new \
             ones: since the {} nothing tells that it dropped what it fetched",
            match others {
                0 => p.to_string(),
                1 => format!("{p} and another CPU"),
                n => format!("{p} and {n} other CPUs"),
            },
            if trap { "trap was put in front" } else { "rest was replaced" },
        );
        let site = self.site(&mark.about(run_at), "replaced here");
        let mut draft = Draft::new(RuleId::TornPatch, Operation::ContextSync, message, site);
        let label = if trap { "the trap was stored here" } else { "the rest was stored here" };
        draft.because = Some(self.site(&before.about(run_at), label));
        draft.sure = false;
        let outer = |m: &Mark| self.calls.outermost(m.cause);
        draft.blame = if outer(&mark) == outer(before) { Blame::Callee } else { Blame::Caller };
        draft.missing.push(format!("serialize on {p}"));
        draft.help = Some(format!(
            "between the two stores make every CPU execute a serialising instruction, and wait \
             until each did: {}",
            if trap {
                "only then does each run the trap instead of the instruction"
            } else {
                "only then has none of them old bytes behind the new first one"
            }
        ));
        self.report(draft);
    }
}
