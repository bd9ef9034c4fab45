//! Addresses that were given back: who still runs there?
//!
//! A range is remembered from the event that gave it back on, also when it was handed out again:
//! then whoever is refused a fetch there may have meant what was there before. Not modelled: what
//! was there; if it was never code, nobody runs there.

use textbed_arch::{SpaceId, VirtAddr};
use textbed_event::Access;

use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::rules::RuleId;
use crate::rules::translations::{self, After};
use crate::span::{Piece, Span, SpanMap};

/// Ranges that are remembered.
const MAX_GONE: usize = 1 << 16;

/// A range of addresses that was given back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone {
    /// The event that did it.
    pub(super) at: Mark,
    /// It was handed out again since.
    pub(super) reused: bool,
}

impl Piece for Gone {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        self.reused == next.reused && self.at.same_call(&next.at)
    }
}

impl Live {
    /// A range of addresses was given back.
    pub(crate) fn area_gone(&mut self, now: Now<'_>, virt: u64, len: u64) {
        let Some(span) = Span::of(virt, len) else { return };
        let at = self.mark(now);
        self.room_for_gone().insert(span, Gone { at, reused: false });
        // Blocks that were looked at there are looked at again.
        self.fetches.looks.remapped(span);
    }

    /// A range of addresses was handed out.
    pub(crate) fn area_made(&mut self, virt: u64, len: u64) {
        if !self.patching.gone.is_empty()
            && let Some(span) = Span::of(virt, len)
        {
            let reused = |_, gone: Option<&Gone>| Some(Gone { reused: true, ..*gone? });
            self.room_for_gone().update(span, reused);
        }
    }

    fn room_for_gone(&mut self) -> &mut SpanMap<Gone> {
        let gone = &mut self.patching.gone;
        if gone.entries() >= MAX_GONE {
            *gone = SpanMap::default();
        }
        gone
    }

    /// A fetch was refused: whoever ran there, was the code given back?
    pub(crate) fn run_fault(&mut self, now: Now<'_>, virt: VirtAddr, access: Access) {
        if access != Access::Exec || !self.checkable(RuleId::ExecAfterFree) {
            return;
        }
        let Some((_, gone)) = self.patching.gone.get(virt.0) else { return };
        let (at, reused, space) = (gone.at, gone.reused, self.cpus.space_of(now.cpu()));
        let (wrong, after) = if reused {
            // Where the tables allow it the fault is spurious: the CPU had an old answer.
            let mapped = self.tables.lookup(space, virt.0);
            (!mapped.is_some_and(|(_, mapping)| mapping.perm.executable()), After::Reuse)
        } else {
            (self.given_back(space, virt.0).is_some(), After::Free)
        };
        if wrong {
            let mark = self.mark(now).about(virt.0);
            translations::executed_after_free(self, virt.0, &at, after, &mark);
        }
    }

    /// The event that gave the memory at `virt` back, unless it was handed out or mapped since.
    pub(crate) fn given_back(&self, space: SpaceId, virt: u64) -> Option<Mark> {
        if self.patching.gone.is_empty() {
            return None;
        }
        let (_, gone) = self.patching.gone.get(virt).filter(|(_, gone)| !gone.reused)?;
        let mapped = self.tables.lookup(space, virt).map(|(_, m)| m.since.seq);
        mapped.is_none_or(|since| since < gone.at.seq).then_some(gone.at)
    }
}
