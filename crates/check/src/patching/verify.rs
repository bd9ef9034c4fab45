//! verify-mismatch: memory is not what a patcher or generator expected.
//!
//! A mismatch is judged when the outermost call returns: another comparison of the same place in
//! that call that is equal settles it (a patcher may ask for several things that it accepts), but
//! for one that reads back what was written. A call that does not return, because its kernel died
//! of what it saw, is judged at the end of the stream. What was changed although it did not match,
//! or does not read back as written, is certain; what was only noticed and refused is possible.

use textbed_event::{Bytes, CallRef};

use crate::book::Draft;
use crate::finding::Blame;
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::Span;

/// A comparison that failed.
#[derive(Clone, Debug)]
pub(crate) struct Mismatch {
    virt: u64,
    frames: Option<Span>,
    expected: Vec<u8>,
    outer: CallRef,
    mark: Mark,
    /// It was stored to in this call: before the comparison, or after it.
    stored: Option<Mark>,
}

/// Comparisons kept.
const MAX_KEPT: usize = 256;

impl Live {
    /// A patcher compared memory with what it expected.
    pub(crate) fn compared(
        &mut self,
        now: Now<'_>,
        virt: u64,
        phys: Option<u64>,
        bytes: Bytes,
        equal: bool,
    ) {
        self.occasions.looked(RuleId::VerifyMismatch);
        let mark = self.mark(now).about(virt);
        let outer = self.calls.outermost(mark.cause);
        let frames = phys.and_then(|p| Span::of(p, u64::from(bytes.len)));
        let list = &mut self.patching.mismatches;
        if equal {
            list.retain(|m| m.virt != virt || m.outer != outer || m.mark.cpu != mark.cpu);
            if outer != CallRef::NONE && self.patching.matched.len() < MAX_KEPT {
                self.patching.matched.push((virt, outer, mark.cpu));
            }
            return;
        }
        let stored = self
            .patching
            .sites
            .iter()
            .filter(|s| s.cpu == mark.cpu)
            .filter(|s| frames.is_some_and(|f| s.stores_in(f)))
            .find_map(|s| s.last_store);
        // It is what the caller asked for first; this comparison asks for something else.
        if stored.is_none() && self.patching.matched.contains(&(virt, outer, mark.cpu)) {
            return;
        }
        let expected = now.batch.bytes(bytes).iter().take(16).copied().collect();
        let mismatch = Mismatch { virt, frames, expected, outer, mark, stored };
        if outer == CallRef::NONE {
            self.mismatch(&mismatch);
        } else if self.patching.mismatches.len() < MAX_KEPT {
            self.patching.mismatches.push(mismatch);
        }
    }

    /// A store, seen by comparisons that failed before.
    pub(crate) fn stored_after_mismatch(&mut self, mark: &Mark, frames: Span) {
        let outer = self.calls.outermost(mark.cause);
        for m in &mut self.patching.mismatches {
            let here = m.frames.is_some_and(|f| f.meet(frames).is_some());
            if here && m.outer == outer && m.mark.cpu == mark.cpu {
                m.stored = Some(*mark);
            }
        }
    }

    /// A call returned: what it left unsettled.
    pub(crate) fn judge_mismatches(&mut self, call: CallRef) {
        self.patching.matched.retain(|(_, outer, _)| *outer != call);
        if self.patching.mismatches.is_empty() {
            return;
        }
        let (mine, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.patching.mismatches)
            .into_iter()
            .partition(|m| m.outer == call);
        self.patching.mismatches = rest;
        for mismatch in &mine {
            self.mismatch(mismatch);
        }
    }

    /// The stream is over: what calls that did not return had noticed.
    pub(crate) fn finish_mismatches(&mut self) {
        for mismatch in std::mem::take(&mut self.patching.mismatches) {
            self.mismatch(&mismatch);
        }
    }

    fn mismatch(&mut self, m: &Mismatch) {
        if !self.checkable(RuleId::VerifyMismatch) {
            return;
        }
        let at = self.address(m.virt);
        let hex = |bytes: &[u8]| {
            let bytes: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
            bytes.join(" ")
        };
        let what = match m.stored {
            Some(s) if s.seq > m.mark.seq => "and was changed all the same",
            Some(_) => "after it was written",
            None => "and nothing was changed",
        };
        let message = format!("{at} does not hold what was expected there, {what}");
        let site = self.site(&m.mark, format!("expected {}", hex(&m.expected)));
        let mut draft = Draft::new(RuleId::VerifyMismatch, Operation::Agreement, message, site);
        let held = || {
            let (_, history) = self.fetches.versions.within(m.frames?).next()?;
            let held = history.versions.iter().rev().find(|v| v.stamp < m.mark.seq);
            held.map(|v| v.mark)
        };
        let found = self.bytes_before(m).map_or_else(
            || "last stored here".to_owned(),
            |bytes| format!("stored here, so that {} is there", hex(&bytes)),
        );
        // Who patches stores by an alias: what matters is the place.
        let why = m.stored.map(|s| (s, "stored here".to_owned()));
        let why = why.or_else(|| held().map(|s| (s.about(m.virt), found)));
        draft.because = why.map(|(mark, label)| self.site(&mark, label));
        draft.sure = m.mark.sure && m.stored.is_some();
        draft.blame = Blame::Caller;
        draft.missing.push("agreement on what is at the site".to_owned());
        draft.help = Some(
            "let whoever emits the code and whoever patches it use one description of the site: \
             its address, its length, its bytes"
                .to_owned(),
        );
        self.report(draft);
    }

    /// What was there when it was compared, as far as the stores of code units tell.
    fn bytes_before(&self, m: &Mismatch) -> Option<Vec<u8>> {
        let frames = m.frames?;
        let byte = |at: u64| {
            let (_, history) = self.fetches.versions.within(Span { first: at, last: at }).next()?;
            let held = history.versions.iter().rev().find(|v| v.stamp < m.mark.seq)?;
            let unit = held.unit?;
            let n = usize::try_from(at.checked_sub(unit.phys)?).ok()?;
            unit.bytes.get(..usize::from(unit.len))?.get(n).copied()
        };
        let most = m.expected.len() as u64;
        (frames.first..=frames.last).take_while(|at| at - frames.first < most).map(byte).collect()
    }
}
