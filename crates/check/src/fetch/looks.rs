//! What was already looked at: a block that ran and was judged is not judged again until something
//! about it changes: bytes of its frame, the frame's owner, or the mapping of its page.
//!
//! Most events of a stream are fetches of blocks that are known. A block is *plain* if nothing is
//! known of it but that somebody ran it: no store, no owner that gave it back, no other translation
//! that anybody may hold. Then there is nothing to judge for any CPU, and nothing that depends on
//! which one it is: one look-up, two counts that are as they were, and the note when it ran.

use rustc_hash::FxHashMap;
use textbed_arch::CpuId;

use super::blocks::Id;
use super::blocks::{ALL, Block, Blocks, Judged, LAST, NONE, Ran, is_plain, plain};
use super::regions::Regions;
use crate::per_cpu::PerCpu;
use crate::span::Span;

/// What was found of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing is known of it but that it ran.
    Plain,
    /// Nothing, and all of it is settled for this CPU.
    Clean,
    /// Something was found, or what the CPU may learn changes what is found.
    Unclean,
}

/// What is kept of blocks, by CPU; past it all is forgotten and judged again.
const MAX_LOOKS: usize = 1 << 22;
/// Pages of a store that are counted one by one; a longer one changes everything.
const MAX_PAGES: u64 = 16;

/// A frame or a virtual page in which blocks lie.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// How often something about it changed.
    changes: u32,
    /// The first of a frame's blocks, of a page's those that were found plain through it.
    blocks: Id,
}

/// The blocks, and what became of the frames and pages in which they lie.
#[derive(Default, Debug)]
pub(crate) struct Looks {
    blocks: Blocks,
    /// For blocks that are not clean the CPU's fetch view when they were judged, and what it had
    /// learnt from others then, as a count: with more of either the verdict may be another.
    unclean: FxHashMap<(CpuId, u64), (u64, u32)>,
    /// The frames and virtual pages of blocks, by key, with their number in `places`.
    index: FxHashMap<u64, Id>,
    followed: Regions,
    places: Vec<Place>,
    all: u32,
    /// See [`Looks::changes`].
    changes: u32,
    /// How often each CPU learnt from another.
    learnt: PerCpu<u32>,
}

/// The key of a frame.
fn frame_key(phys: u64) -> u64 {
    phys >> 12
}

/// The key of a virtual page. Addresses shifted by twelve leave the top bits free.
fn page_key(virt: u64) -> u64 {
    virt >> 12 | 1 << 63
}

impl Looks {
    /// Whether this block is plain; if so, notes that it ran at `now`. What changes makes blocks
    /// that it concerns plain no longer, so nothing but the block is asked.
    pub(crate) fn plain(
        &mut self,
        cpu: CpuId,
        (virt, phys): (u64, u64),
        len: u32,
        now: u64,
    ) -> bool {
        let Some((id, block)) = self.blocks.find(phys) else { return false };
        let Block { page, page_key: key, sum, plain, .. } = *block;
        if key != page_key(virt) || !is_plain(plain, len, self.all) {
            return false;
        }
        let slot = self.blocks.slot(cpu, id);
        if !slot.is_some_and(|slot| self.ran_again(slot, len, now)) {
            self.ran_otherwise(cpu, id, len, now, Judged { page, sum });
        }
        true
    }

    /// The place of what the CPU did with this block, if that is plain and has just so many bytes
    /// for the CPU, as it is now. Whatever [`Looks::ran_again`] will read was read then; for a
    /// block that is not known that is where its frame and its page are looked for. What was read
    /// stands beside it, and says nothing.
    #[inline]
    pub(crate) fn ahead(
        &self,
        cpu: CpuId,
        (virt, phys): (u64, u64),
        len: u32,
    ) -> (Option<usize>, u64) {
        let Some((id, block)) = self.blocks.find(phys) else {
            return (None, self.places_ahead(virt, phys));
        };
        let plain = is_plain(block.plain, len, self.all) && block.page_key == page_key(virt);
        let slot = self.blocks.slot(cpu, id);
        let again = |slot: &usize| self.blocks.ran_at(*slot).is_some_and(|r| r.is_clean_of(len));
        (slot.filter(|slot| again(slot) && plain), 0)
    }

    #[inline(never)]
    fn places_ahead(&self, virt: u64, phys: u64) -> u64 {
        let read = |key| self.index.get(&key).copied().unwrap_or(NONE);
        u64::from(read(frame_key(phys)) ^ read(page_key(virt)))
    }

    /// How often a block that was plain became otherwise: as long as that stays the same,
    /// [`Looks::ahead`] would say so again.
    #[inline]
    pub(crate) fn changes(&self) -> u32 {
        self.changes
    }

    /// A plain block ran again, if it has just so many bytes for the CPU, whose place it is.
    #[inline]
    pub(crate) fn ran_again(&mut self, slot: usize, len: u32, now: u64) -> bool {
        match self.blocks.ran_at_mut(slot) {
            Some(ran) if ran.is_clean_of(len) => {
                ran.again(now);
                true
            }
            _ => false,
        }
    }

    /// A plain block ran with fewer or more bytes than before, or for the first time.
    #[cold]
    fn ran_otherwise(&mut self, cpu: CpuId, id: Id, len: u32, now: u64, judged: Judged) {
        let same = self.blocks.judged(cpu, id).is_some_and(|there| there.sum == judged.sum);
        match self.blocks.ran_mut(cpu, id) {
            Some(ran) if same && ran.len() >= len => ran.again(now),
            _ => self.blocks.put(cpu, id, Ran::of(now, len, true), judged),
        }
    }

    /// Whether any block lies in the frame of `phys`.
    #[inline]
    pub(crate) fn follows(&self, phys: u64) -> bool {
        let key = frame_key(phys);
        self.followed.may_hold(key) && self.index.contains_key(&key)
    }

    /// With how many bytes this block was judged, if nothing changed since and these are no fewer
    /// than now; then notes that it ran at `now`. `moment` is the CPU's fetch view.
    pub(crate) fn known(
        &mut self,
        cpu: CpuId,
        phys: u64,
        len: u32,
        moment: impl FnOnce() -> u64,
        now: u64,
    ) -> Option<u32> {
        let (id, block) = self.blocks.find(phys).map(|(id, block)| (id, *block))?;
        let ran = self.blocks.ran(cpu, id).filter(|ran| ran.len() != 0)?;
        let judged = self.blocks.judged(cpu, id)?;
        let known = ran.len() >= len
            && judged.sum == self.sum(block.frame, judged.page)
            && (ran.is_clean() || {
                let learnt = self.learnt.get(cpu).copied().unwrap_or(0);
                self.unclean.get(&(cpu, phys)) == Some(&(moment(), learnt))
            });
        if known && let Some(ran) = self.blocks.ran_mut(cpu, id) {
            ran.again(now);
        }
        known.then_some(ran.len())
    }

    /// A block that was looked at ran again at `now`, which may lie back; whether it is known.
    pub(crate) fn ran_late(&mut self, cpu: CpuId, phys: u64, len: u32, now: u64) -> bool {
        let Some((id, _)) = self.blocks.find(phys) else { return false };
        let Some(ran) = self.blocks.ran_mut(cpu, id).filter(|ran| ran.len() != 0) else {
            return false;
        };
        ran.again(ran.last().max(now));
        ran.len() >= len
    }

    /// The number of a frame or page, from now on followed.
    fn place(&mut self, key: u64) -> Id {
        let next = self.places.len() as Id;
        let place = *self.index.entry(key).or_insert(next);
        if place == next {
            self.places.push(Place { changes: 0, blocks: NONE });
            self.followed.add(key);
        }
        place
    }

    /// A CPU learnt from another what that knew.
    pub(crate) fn learnt(&mut self, cpu: CpuId) {
        let count = self.learnt.of(cpu);
        *count = count.wrapping_add(1);
    }

    /// What was counted for a frame and a page, and for everybody.
    fn sum(&self, frame: Id, page: Id) -> u32 {
        let count = |place: Id| self.places.get(place as usize).map_or(0, |p| p.changes);
        count(frame).wrapping_add(count(page)).wrapping_add(self.all)
    }

    /// The block at `phys`, fetched through `virt`, was judged.
    pub(crate) fn judged(
        &mut self,
        cpu: CpuId,
        (virt, phys): (u64, u64),
        len: u32,
        moment: u64,
        verdict: Verdict,
        now: u64,
    ) {
        if self.blocks.len() >= MAX_LOOKS {
            let (all, learnt) = (self.all, std::mem::take(&mut self.learnt));
            let changes = self.changes.wrapping_add(1);
            *self = Self { all, learnt, changes, ..Self::default() };
        }
        let frame = self.place(frame_key(phys));
        let page = self.place(page_key(virt));
        let sum = self.sum(frame, page);
        let id = self.blocks.find(phys).map(|(id, _)| id).unwrap_or_else(|| {
            let first = self.places.get_mut(frame as usize).map(|place| &mut place.blocks);
            let behind = first.as_deref().copied().unwrap_or(NONE);
            let block = Block { phys, page_key: 0, plain: 0, sum, frame, page };
            let id = self.blocks.add(block, behind);
            if let Some(first) = first {
                *first = id;
            }
            id
        });
        if verdict == Verdict::Plain {
            self.plain_through(id, page);
            if let Some(block) = self.blocks.get_mut(id) {
                self.changes = self.changes.wrapping_add(u32::from(block.plain != 0));
                let plain = plain(len, self.all);
                *block = Block { page_key: page_key(virt), plain, sum, page, ..*block };
            }
        }
        let clean = verdict != Verdict::Unclean;
        self.blocks.put(cpu, id, Ran::of(now, len, clean), Judged { page, sum });
        if !clean {
            let learnt = self.learnt.get(cpu).copied().unwrap_or(0);
            self.unclean.insert((cpu, phys), (moment, learnt));
        }
    }

    /// The block is among those that were found plain through `page`, and through no other.
    fn plain_through(&mut self, id: Id, page: Id) {
        let before = self.blocks.get(id).map_or(page, |block| block.page);
        if self.blocks.next_mut(id).is_some_and(|next| next.in_page != NONE) {
            if before == page {
                return;
            }
            let all = self.take_plain(before);
            all.into_iter().filter(|other| *other != id).for_each(|id| self.enter(id, before));
        }
        self.enter(id, page);
    }

    fn enter(&mut self, id: Id, page: Id) {
        if let (Some(place), Some(next)) =
            (self.places.get_mut(page as usize), self.blocks.next_mut(id))
        {
            next.in_page = if place.blocks == NONE { LAST } else { place.blocks };
            place.blocks = id;
        }
    }

    /// Takes out the blocks that were found plain through `page`.
    fn take_plain(&mut self, page: Id) -> Vec<Id> {
        let Some(place) = self.places.get_mut(page as usize) else { return Vec::new() };
        let mut id = std::mem::replace(&mut place.blocks, NONE);
        let mut all = Vec::new();
        while let Some(next) = self.blocks.next_mut(id) {
            all.push(id);
            id = std::mem::replace(&mut next.in_page, NONE);
        }
        all
    }

    /// Whether `cpu` executed a block that meets `span` after event `after` and before `before`.
    /// Only the last execution of each block is known.
    pub(crate) fn executed(&self, cpu: CpuId, span: Span, after: u64, before: u64) -> bool {
        self.executions(cpu, span).any(|last| (after..before).contains(&last))
    }

    /// The last event in which `cpu` executed a block that meets `span`.
    pub(crate) fn last_executed(&self, cpu: CpuId, span: Span) -> Option<u64> {
        self.executions(cpu, span).max()
    }

    /// The last execution by `cpu` of each block that meets `span`.
    fn executions(&self, cpu: CpuId, span: Span) -> impl Iterator<Item = u64> + '_ {
        // A block never crosses a page, and `span` is a part of one.
        let place = self.index.get(&frame_key(span.first));
        let first = place.and_then(|place| self.places.get(*place as usize)).map(|p| p.blocks);
        let ids = self.blocks.in_frame(first);
        ids.filter_map(move |id| {
            let (block, ran) = (self.blocks.get(id)?, self.blocks.ran(cpu, id)?);
            Span::of(block.phys, ran.len().into())?.meet(span)?;
            Some(ran.last())
        })
    }

    /// Bytes of `span`, or whose they are, changed.
    #[inline]
    pub(crate) fn stored(&mut self, span: Span) {
        self.changed(span, frame_key, |looks, place| {
            let first = looks.places.get(place as usize).map(|place| place.blocks);
            let ids: Vec<Id> = looks.blocks.in_frame(first).collect();
            ids.into_iter().for_each(|id| looks.not_plain(id));
        });
    }

    /// The mapping of `virt` changed.
    pub(crate) fn remapped(&mut self, virt: Span) {
        self.changed(virt, page_key, |looks, place| {
            looks.take_plain(place).into_iter().for_each(|id| looks.not_plain(id));
        });
    }

    fn not_plain(&mut self, id: Id) {
        self.changes = self.changes.wrapping_add(1);
        if let Some(block) = self.blocks.get_mut(id) {
            block.plain = 0;
        }
    }

    #[inline]
    fn changed(&mut self, span: Span, key: fn(u64) -> u64, blocks: fn(&mut Self, Id)) {
        let (first, last) = (span.first >> 12, span.last >> 12);
        if last - first >= MAX_PAGES {
            self.everything_changed();
            return;
        }
        for page in first..=last {
            let key = key(page << 12);
            if self.followed.may_hold(key)
                && let Some(id) = self.index.get(&key).copied()
                && let Some(place) = self.places.get_mut(id as usize)
            {
                place.changes = place.changes.wrapping_add(1);
                blocks(self, id);
            }
        }
    }

    pub(crate) fn everything_changed(&mut self) {
        self.all = self.all.wrapping_add(1);
        self.changes = self.changes.wrapping_add(1);
        if self.all & ALL == 0 {
            // What is plain is known by the count's lower half alone.
            self.blocks.none_is_plain();
        }
    }
}
