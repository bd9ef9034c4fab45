//! Frames that go back to the page allocator.
//!
//! `vfree` and its kin give an area's own pages back as the last thing they do, behind the removal
//! of the area and what is flushed for it (Linux 6.1 mm/vmalloc.c `__vunmap`, 6.12 `vfree`). What
//! is given is remembered by its address, because the removal is often a worker's, and later: the
//! one who removes an area that was given back frees its frames. That is over at the return of the
//! function, or where no probe is there, when that task does something else than what belongs to a
//! removal. So the moment may come too late, never too early; it is marked as modelled. Frames that
//! went back may be somebody's code by then: where anything becomes executable in between, nothing
//! is said of them.
//!
//! The page allocator's own tracepoints say it exactly, where they were recorded: such frames are
//! not said again. Not modelled: pages that somebody else holds a reference to; memory of the
//! kernel image that is freed after boot.

use super::Lower;
use crate::bounds::Bound;
use crate::calls::Stack;
use crate::ftrace::Event as LogEvent;
use crate::functions::{Hit, Meaning};
use rustc_hash::{FxHashMap, FxHashSet};
use textbed_arch::Pfn;
use textbed_event::{Flags, Provenance, View};

/// The largest order of the page allocator (MAX_PAGE_ORDER of the largest configuration).
const MAX_ORDER: u64 = 14;
/// Bytes of the frames that events count.
const FRAME_BYTES: u64 = 4096;

/// A run of pages: first address, bytes, and frame where it is known.
type Pages = (u64, u64, Option<u64>);

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    given: FxHashSet<u64>,
    under_way: FxHashMap<Stack, Vec<Pages>>,
}

impl Lower<'_> {
    /// An area is given back: its pages go when it is removed, by whomever.
    pub(super) fn give_back(&mut self, addr: u64) {
        if addr == 0 {
            return;
        }
        if self.frees.given.len() >= Bound::GivenBack.most() {
            self.dropped.add(Bound::GivenBack, self.frees.given.len());
            self.frees.given.clear();
        }
        self.frees.given.insert(addr);
    }

    /// An area is being removed; what is mapped there still is.
    pub(super) fn removing(&mut self, virt: u64, end: u64) {
        if !self.frees.given.remove(&virt) || !self.seen.frees {
            return;
        }
        let pages: Vec<Pages> = self
            .mappings
            .runs_in(virt, end)
            .take(Bound::FreedFrames.most())
            .map(|run| {
                let (from, to) = (run.virt.max(virt), run.end.min(end));
                (from, to.saturating_sub(from), run.phys.map(|p| p.wrapping_add(from - run.virt)))
            })
            .collect();
        if self.frees.under_way.len() >= Bound::Removals.most() {
            self.dropped.add(Bound::Removals, self.frees.under_way.len());
            self.frees.under_way.clear();
        }
        self.frees.under_way.entry(self.now.stack).or_default().extend(pages);
    }

    /// Ends the removals that this event shows to be over for its task.
    pub(super) fn settle_frees(&mut self, hit: &Hit) {
        use Meaning::*;
        if self.frees.under_way.is_empty() || !self.frees.under_way.contains_key(&self.now.stack) {
            return;
        }
        let inside = match hit {
            Hit::Entry(f) => matches!(
                f.meaning,
                UnmapPages
                    | PurgeCall
                    | Purged
                    | DirectMap(_)
                    | CpaCall
                    | CpaWalk
                    | CpaFlush
                    | ChangeMemoryApply
                    | ChangeMemoryCall
                    | CrossCall { .. }
                    | IpiSend
                    | Remote(_)
                    | LocalFlushAll
                    | LocalFlushOne
                    | BroadcastFlush
                    | PagesFreed
                    | FreeStep
                    | NotNeeded
            ),
            // The returns of what is inside; that of the function itself ends it.
            Hit::Return(f) => f.meaning != GiveBack,
            Hit::Inside(_) | Hit::Unknown => true,
        };
        if !inside {
            self.frames_went();
        }
    }

    /// Something becomes executable, by the task at hand: what others free may be in it.
    pub(super) fn others_may_have(&mut self) {
        if !self.frees.under_way.is_empty() {
            let now = self.now.stack;
            let before = self.frees.under_way.len();
            self.frees.under_way.retain(|stack, _| *stack == now);
            self.counts.frees_unsaid += (before - self.frees.under_way.len()) as u64;
        }
    }

    fn frames_went(&mut self) {
        let Some(pages) = self.frees.under_way.remove(&self.now.stack) else { return };
        for (virt, len, phys) in pages {
            let (first, more) = match phys {
                Some(phys) => (phys, Flags::default()),
                None => (virt, Flags::PHYS_UNKNOWN),
            };
            let view = View::FrameFree { pfn: Pfn(first / FRAME_BYTES), count: len / FRAME_BYTES };
            self.emit_flagged(view, Provenance::Modelled, more);
        }
    }

    /// The page allocator says that it has pages back, or that it hands some out.
    pub(super) fn pages_of_allocator(&mut self, e: &LogEvent<'_>, freed: bool) -> Option<()> {
        let (pfn, order) = (e.number(b"pfn")?, e.number(b"order").unwrap_or(0));
        if order > MAX_ORDER {
            return None;
        }
        let per_page = (1u64 << self.mappings.page_shift()) / FRAME_BYTES;
        let first = pfn.checked_mul(per_page).filter(|f| f.checked_mul(FRAME_BYTES).is_some())?;
        let count = per_page << order;
        if freed {
            let said = (first * FRAME_BYTES, count * FRAME_BYTES);
            if let Some(pages) = self.frees.under_way.get_mut(&self.now.stack) {
                without(pages, said);
            }
            self.emit(View::FrameFree { pfn: Pfn(first), count }, Provenance::Recorded);
        } else {
            let zeroed = false;
            self.emit(View::FrameAlloc { pfn: Pfn(first), count, zeroed }, Provenance::Recorded);
        }
        Some(())
    }

    /// Nothing is under way any more.
    pub(super) fn frees_restart(&mut self) {
        self.frees = State::default();
    }
}

/// Takes frames off what is still to be said.
fn without(pages: &mut Vec<Pages>, (first, len): (u64, u64)) {
    let end = first.saturating_add(len);
    let mut left = Vec::with_capacity(pages.len() + 1);
    for (virt, bytes, phys) in pages.drain(..) {
        let Some(phys) = phys else {
            left.push((virt, bytes, None));
            continue;
        };
        let stop = phys.saturating_add(bytes);
        if end <= phys || first >= stop {
            left.push((virt, bytes, Some(phys)));
            continue;
        }
        if first > phys {
            left.push((virt, first - phys, Some(phys)));
        }
        if end < stop {
            left.push((virt.wrapping_add(end - phys), stop - end, Some(end)));
        }
    }
    *pages = left;
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn what_the_allocator_said_is_not_said_again() {
        let mut pages = vec![(0x10000, 0x3000, Some(0x5000)), (0x20000, 0x1000, None)];
        without(&mut pages, (0x6000, 0x1000));
        assert_eq!(
            pages,
            [
                (0x10000, 0x1000, Some(0x5000)),
                (0x12000, 0x1000, Some(0x7000)),
                (0x20000, 0x1000, None)
            ]
        );
        without(&mut pages, (0, 0x10000));
        assert_eq!(pages, [(0x20000, 0x1000, None)]);
    }
}
