//! What becomes of the results of calls: looked at, or dropped.
//!
//! `f()` drops the result at once. `r = f()` looks at it when `r` is read in an `if`, an `assert`
//! or a `try`; it drops it when `r` is overwritten before that, or when no program that has `r` can
//! look any more. A program that died or waits for ever has not dropped what it would still have
//! looked at; then nothing is said.

use textbed_arch::CpuId;
use textbed_event::CallRef;

use crate::span::Span;

/// A call whose result has to be looked at.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) call: CallRef,
    pub(crate) cpu: CpuId,
    /// The statement that called.
    pub(crate) place: Span,
    /// The note about it, if there is one.
    pub(crate) note: Option<usize>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Settled,
}

/// All results of a run.
#[derive(Debug, Default)]
pub(crate) struct Results(Vec<Pending>);

impl Results {
    /// A result that nobody looked at yet.
    pub(crate) fn open(
        &mut self,
        call: CallRef,
        cpu: CpuId,
        place: Span,
        note: Option<usize>,
    ) -> usize {
        self.0.push(Pending { call, cpu, place, note, fate: Fate::Open });
        self.0.len() - 1
    }

    /// Settles a result; `None` if it was settled before.
    pub(crate) fn settle(&mut self, index: usize) -> Option<Pending> {
        let pending = self.0.get_mut(index).filter(|pending| pending.fate == Fate::Open)?;
        pending.fate = Fate::Settled;
        Some(pending.clone())
    }
}
