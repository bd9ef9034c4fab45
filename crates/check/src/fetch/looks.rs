//! What was already looked at: a block that ran and was judged is not judged again until something
//! about it changes: bytes of its frame, the frame's owner, or the mapping of its page.
//!
//! Most events of a stream are fetches of blocks that are known. A block is *plain* if nothing is
//! known of it but that somebody ran it: no store, no owner that gave it back, no other translation
//! that anybody may hold. Then there is nothing to judge for any CPU, and nothing that depends on
//! which one it is: one look-up, two counts that are as they were, and the note when it ran.

use rustc_hash::FxHashMap;
use textbed_arch::CpuId;
use textbed_event::Event;

use super::blocks::{ALL, Block, Blocks, Id, LAST, Listed, MAX_KEPT};
use super::ran::{Judged, Ran};
use super::regions::{self, Regions};
use crate::hashed::NONE;
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

/// Pages of a change that are looked for one by one, wherever they are.
const MAX_PAGES: u64 = 16;
/// Regions of a longer one, and those of them in which any block may be; one that has more changes
/// everything.
const MAX_REGIONS: u64 = 1 << 14;
const MAX_FOLLOWED: usize = 8;

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
    /// How often each CPU learnt from another.
    learnt: PerCpu<u32>,
}

/// How a CPU runs a block that may be plain.
enum Runs {
    /// It is another block, or not plain, or not so.
    Otherwise,
    /// For the first time since it is plain, with just so many bytes.
    First,
    Again,
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
    /// that it concerns plain no longer, so nothing but the block is asked, and what the CPU did
    /// with it. Once a CPU ran it since it is plain, with just so many bytes, a note is all: what
    /// was judged for the CPU is of that time. The first time it is as if it were judged.
    #[inline]
    pub(crate) fn plain(
        &mut self,
        cpu: CpuId,
        (virt, phys): (u64, u64),
        len: u32,
        moment: impl FnOnce() -> u64,
        now: u64,
    ) -> bool {
        let Some(id) = self.blocks.find(phys) else { return false };
        match self.runs((cpu, id), (virt, phys), len.into(), now) {
            Runs::Otherwise => return false,
            Runs::First => self.ran_first(cpu, id, phys, len, moment, now),
            Runs::Again => {}
        }
        true
    }

    /// Whether this fetch is of a plain block that the CPU ran since it is so, with just so many
    /// bytes; if so, notes it: what [`Looks::plain`] does of most, where the number that was found
    /// ahead ([`Looks::near`]) is that of the block.
    #[inline]
    pub(crate) fn runs_again(&mut self, event: &Event, id: Id) -> bool {
        let Event { a: virt, b: phys, c: len, seq, .. } = *event;
        matches!(self.runs((event.cpu, id), (virt, phys), len, seq), Runs::Again)
    }

    /// How the CPU runs the block with this number; again is noted.
    #[inline]
    fn runs(
        &mut self,
        (cpu, id): (CpuId, Id),
        (virt, phys): (u64, u64),
        len: u64,
        now: u64,
    ) -> Runs {
        let plain = |block: &Block| block.virt == virt && block.is_plain(len as u32, self.all);
        if !self.blocks.at(id, phys).is_some_and(plain) {
            Runs::Otherwise
        } else if self.blocks.runs_again(cpu, id, len, now) {
            Runs::Again
        } else {
            Runs::First
        }
    }

    /// A plain block ran for the first time since it is so, or with fewer or more bytes than
    /// before: as [`Looks::known`] has it, else as it would be judged.
    #[inline(never)]
    fn ran_first(
        &mut self,
        cpu: CpuId,
        id: Id,
        phys: u64,
        len: u32,
        moment: impl FnOnce() -> u64,
        now: u64,
    ) {
        // Mostly it never did.
        let ran = self.blocks.ran(cpu, id).is_some_and(|(ran, _)| ran.len() != 0);
        if !ran || self.known(cpu, phys, len, moment, now).is_none() {
            self.blocks.put(cpu, id, Ran::of(now, len, true), Judged::PLAIN);
        }
    }

    /// Prefetches where a block that begins at `phys` is looked for.
    #[inline]
    pub(crate) fn prefetch(&self, phys: u64) {
        self.blocks.prefetch(phys);
    }

    /// The number that the block at `phys` may have; that block, and what the CPU did with it, are
    /// prefetched. It has to be asked whether it is it.
    #[inline]
    pub(crate) fn near(&self, cpu: CpuId, phys: u64) -> Id {
        let id = self.blocks.near(phys);
        self.blocks.prefetch_there(cpu, id);
        id
    }

    /// Has the processor read where the frame and the page of a block that is new are looked for.
    #[inline(never)]
    pub(crate) fn places_ahead(&self, virt: u64, phys: u64) -> u64 {
        let read = |key| self.index.get(&key).copied().unwrap_or(NONE);
        u64::from(read(frame_key(phys)) ^ read(page_key(virt)))
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
        let id = self.blocks.find(phys)?;
        let block = *self.blocks.get(id)?;
        let (ran, judged) = self.blocks.ran(cpu, id).filter(|(ran, _)| ran.len() != 0)?;
        let as_it_is = match judged {
            Judged::PLAIN => self.is_plain(&block) && ran.last() >= block.since(),
            Judged { page, sum } => sum == self.sum(self.blocks.listed(id)?.frame, page),
        };
        let known = as_it_is
            && ran.len() >= len
            && (ran.is_clean() || {
                let learnt = self.learnt.get(cpu).copied().unwrap_or(0);
                self.unclean.get(&(cpu, phys)) == Some(&(moment(), learnt))
            });
        if known {
            self.blocks.again(cpu, id, now);
        }
        known.then_some(ran.len())
    }

    /// A block that was looked at ran again at `now`, which may lie back; whether it is known.
    pub(crate) fn ran_late(&mut self, cpu: CpuId, phys: u64, len: u32, now: u64) -> bool {
        let Some(id) = self.blocks.find(phys) else { return false };
        let Some((ran, _)) = self.blocks.ran(cpu, id).filter(|(ran, _)| ran.len() != 0) else {
            return false;
        };
        self.blocks.again(cpu, id, ran.last().max(now));
        // What was judged for the CPU is not of this time: nobody goes by that it ran since.
        if self.blocks.get(id).is_some_and(|block| ran.last() < block.since()) {
            self.say_when(id);
            self.blocks.counts_from(id, now + 1);
        }
        ran.len() >= len
    }

    /// Whether some of this block is plain now.
    fn is_plain(&self, block: &Block) -> bool {
        block.is_plain(1, self.all)
    }

    /// Writes down when a plain block was judged for each CPU that ran it since it is plain.
    fn say_when(&mut self, id: Id) {
        let (Some(&block), Some(&Listed { frame, page, .. })) =
            (self.blocks.get(id), self.blocks.listed(id))
        else {
            return;
        };
        let judged = Judged { page, sum: self.sum(frame, page) };
        if self.is_plain(&block) {
            self.blocks.say_when(id, judged);
        }
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

    /// Forgets all blocks; room for as many stays, for they come again.
    #[cold]
    fn forget(&mut self) {
        self.blocks.forget();
        self.unclean.clear();
        self.index.clear();
        self.followed = Regions::default();
        self.places.clear();
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
        if self.blocks.len() >= MAX_KEPT {
            self.forget();
        }
        let frame = self.place(frame_key(phys));
        let page = self.place(page_key(virt));
        let sum = self.sum(frame, page);
        let id = self.blocks.find(phys).unwrap_or_else(|| {
            let first = self.places.get_mut(frame as usize).map(|place| &mut place.blocks);
            let behind = first.as_deref().copied().unwrap_or(NONE);
            let id = self.blocks.add(phys, frame, behind);
            if let Some(first) = first {
                *first = id;
            }
            id
        });
        if verdict == Verdict::Plain {
            let plain_already = |block: &Block| self.is_plain(block);
            let goes_on = self.blocks.get(id).is_some_and(plain_already)
                && self.blocks.listed(id).is_some_and(|listed| listed.page == page);
            if !goes_on {
                self.say_when(id);
            }
            self.plain_through(id, page);
            let since = self.blocks.get(id).map(Block::since).filter(|_| goes_on).unwrap_or(now);
            self.blocks.is_now_plain(id, virt, since, (len, self.all));
        }
        let clean = verdict != Verdict::Unclean;
        let plain = verdict == Verdict::Plain;
        let judged = if plain { Judged::PLAIN } else { Judged { page, sum } };
        self.blocks.put(cpu, id, Ran::of(now, len, clean), judged);
        if !clean {
            let learnt = self.learnt.get(cpu).copied().unwrap_or(0);
            self.unclean.insert((cpu, phys), (moment, learnt));
        }
    }

    /// The block is among those that were found plain through `page`, and through no other.
    fn plain_through(&mut self, id: Id, page: Id) {
        let Some(listed) = self.blocks.listed_mut(id) else { return };
        let before = std::mem::replace(&mut listed.page, page);
        if listed.in_page != NONE {
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
            (self.places.get_mut(page as usize), self.blocks.listed_mut(id))
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
        while let Some(next) = self.blocks.listed_mut(id) {
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
            let (block, (ran, _)) = (self.blocks.get(id)?, self.blocks.ran(cpu, id)?);
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
        if let Some(block) = self.blocks.get_mut(id) {
            block.not_plain();
        }
    }

    #[inline]
    fn changed(&mut self, span: Span, key: fn(u64) -> u64, blocks: fn(&mut Self, Id)) {
        let (first, last) = (key(span.first), key(span.last));
        if last - first >= MAX_PAGES {
            return self.many_changed(first, last, blocks);
        }
        self.each_changed(first, last, blocks);
    }

    /// Looks only where any block is; there are few such regions, or else everything changed.
    fn many_changed(&mut self, first: u64, last: u64, blocks: fn(&mut Self, Id)) {
        let (from, to) = (first >> regions::PAGES, last >> regions::PAGES);
        let followed = |region: &u64| self.followed.may_hold(region << regions::PAGES);
        let room = if to - from < MAX_REGIONS { MAX_FOLLOWED + 1 } else { 0 };
        let regions: Vec<u64> = (from..=to).filter(followed).take(room).collect();
        if room == 0 || regions.len() > MAX_FOLLOWED {
            return self.everything_changed();
        }
        for region in regions {
            let (begin, end) = (region << regions::PAGES, ((region + 1) << regions::PAGES) - 1);
            self.each_changed(first.max(begin), last.min(end), blocks);
        }
    }

    #[inline]
    fn each_changed(&mut self, first: u64, last: u64, blocks: fn(&mut Self, Id)) {
        for key in first..=last {
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
        if self.all & ALL == 0 {
            // What is plain is known by the count's lower half alone.
            self.blocks.none_is_plain();
        }
    }
}

#[cfg(test)]
mod tests;
