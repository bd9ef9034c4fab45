//! Events about physical memory: frames handed out and taken back, bytes written, and ranges that
//! became executable while nobody wrote them.

use textbed_arch::{Pfn, SpaceId};
use textbed_event::CallRef;

use crate::frames::{Frame, Home, Unwritten};
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::rules::{RuleId, contents, permissions, translations};
use crate::span::Span;
use crate::tables::UNKNOWN_PHYS;

/// A range that became executable, until the call that did it returns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BecameExec {
    pub(crate) space: SpaceId,
    pub(crate) span: Span,
    pub(crate) phys: u64,
    pub(crate) mark: Mark,
    /// The outermost call open then.
    pub(crate) outer: CallRef,
}

/// Ranges that wait for their call's return; past it they are judged at once.
const MAX_BECAME: usize = 1 << 16;

/// The bytes of `count` frames from `pfn` on.
pub(crate) fn frames_span(pfn: Pfn, count: u64) -> Option<Span> {
    let first = pfn.0.checked_mul(4096).filter(|f| *f < UNKNOWN_PHYS)?;
    let span = Span::of(first, count.saturating_mul(4096))?;
    Some(Span { first: span.first, last: span.last.min(UNKNOWN_PHYS - 1) })
}

impl Live {
    pub(crate) fn frame_alloc(&mut self, now: Now<'_>, pfn: Pfn, count: u64, zeroed: bool) {
        let Some(span) = frames_span(pfn, count) else { return };
        let since = self.mark(now);
        let mut parts: Vec<(Span, Vec<Home>)> = vec![];
        let mut next = span.first;
        for (part, aliases) in self.tables.aliases(span) {
            if next < part.first {
                parts.push((Span { first: next, last: part.first - 1 }, Vec::new()));
            }
            next = part.last.saturating_add(1);
            let mut cuts: Vec<(Span, Home)> = Vec::new();
            for alias in aliases.iter() {
                let Some(virt) = part.moved(alias.delta) else { continue };
                for (at, mapping) in self.tables.within(alias.space, virt) {
                    if let Some(here) = at.moved(alias.delta.wrapping_neg())
                        && here.first == mapping.phys
                    {
                        cuts.push((here, (*alias, mapping.perm)));
                    }
                }
            }
            match cuts.as_slice() {
                [] => parts.push((part, Vec::new())),
                cuts => parts.extend(cuts.iter().map(|(s, home)| (*s, vec![*home]))),
            }
        }
        if next <= span.last {
            parts.push((Span { first: next, last: span.last }, Vec::new()));
        }
        for (part, homes) in parts {
            // With several aliases of one frame the first one, which is the oldest, is its home.
            if let Some((_, Frame::Taken { since: s, .. })) = self.frames.state.get(part.first)
                && s.seq == since.seq
            {
                continue;
            }
            self.frames.state.insert(part, Frame::Taken { since, homes: homes.into() });
        }
        self.frames.unwritten.insert(span, Unwritten { zeroed, since });
        self.fetches.frames_changed(span);
    }

    pub(crate) fn frame_free(&mut self, now: Now<'_>, pfn: Pfn, count: u64) {
        let since = self.mark(now);
        if !now.knows_phys() {
            self.unknown_frames_free(pfn, count, &since);
            return;
        }
        let Some(span) = frames_span(pfn, count) else { return };
        self.occasions.looked(RuleId::DirectMapLeak);
        self.occasions.looked(RuleId::ExecAfterFree);
        if self.checkable(RuleId::DirectMapLeak) {
            permissions::direct_map_leak(self, span, &since);
        }
        if self.checkable(RuleId::ExecAfterFree) {
            translations::exec_after_free(self, span, &since);
        }
        self.freed_under_tasks(&since, span);
        self.frames.state.insert(span, Frame::Free { since });
        self.frames.unwritten.remove(span);
        self.fetches.frames_changed(span);
    }

    /// The frames behind a range of addresses go back, whichever they are: `pfn` counts addresses.
    fn unknown_frames_free(&mut self, pfn: Pfn, count: u64, since: &Mark) {
        let first = pfn.0.wrapping_mul(4096) | UNKNOWN_PHYS;
        let Some(span) = Span::of(first, count.saturating_mul(4096)) else { return };
        self.occasions.looked(RuleId::ExecAfterFree);
        if self.checkable(RuleId::ExecAfterFree) {
            translations::exec_after_free(self, span, since);
        }
    }

    /// A range became executable: judged when the outermost open call returns.
    pub(crate) fn became_exec(&mut self, became: BecameExec) {
        if !self.checkable(RuleId::MissingTrapFill) {
            return;
        }
        if became.outer == CallRef::NONE || self.became_exec.len() >= MAX_BECAME {
            contents::missing_trap_fill(self, &[became]);
        } else {
            self.became_exec.push(became);
        }
    }

    /// The outermost call `call` returned.
    pub(crate) fn judge_became_exec(&mut self, call: CallRef) {
        if self.became_exec.is_empty() {
            return;
        }
        let (mine, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.became_exec).into_iter().partition(|b| b.outer == call);
        self.became_exec = rest;
        if !mine.is_empty() {
            contents::missing_trap_fill(self, &mine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_ranges_beyond_memory_are_cut() {
        assert_eq!(frames_span(Pfn(1), 2), Some(Span { first: 4096, last: 3 * 4096 - 1 }));
        assert_eq!(frames_span(Pfn(u64::MAX), 1), None);
        assert_eq!(frames_span(Pfn(1), u64::MAX).map(|s| s.last), Some(UNKNOWN_PHYS - 1));
    }
}
