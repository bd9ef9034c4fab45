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

use super::blocks::{ALL, Block, Blocks, Id, LAST, Listed, MAX_KEPT, is_plain, plain};
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
        let Some(block) = self.blocks.at(id, phys) else { return Runs::Otherwise };
        let (since, plain) = (block.since, is_plain(block.plain, len as u32, self.all));
        if block.virt != virt || !plain {
            return Runs::Otherwise;
        }
        match self.blocks.ran_mut(cpu, id).filter(|ran| ran.is_clean_of(len, since)) {
            Some(ran) => {
                ran.again(now);
                Runs::Again
            }
            None => Runs::First,
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
        let ran = self.blocks.ran(cpu, id).is_some_and(|ran| ran.len() != 0);
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
        let ran = self.blocks.ran(cpu, id).filter(|ran| ran.len() != 0)?;
        let as_it_is = match self.blocks.judged(cpu, id)? {
            Judged::PLAIN => self.is_plain(&block) && ran.last() >= block.since,
            Judged { page, sum } => sum == self.sum(self.blocks.listed(id)?.frame, page),
        };
        let known = as_it_is
            && ran.len() >= len
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
        let Some(id) = self.blocks.find(phys) else { return false };
        let Some(ran) = self.blocks.ran_mut(cpu, id).filter(|ran| ran.len() != 0) else {
            return false;
        };
        let (before, known) = (*ran, ran.len() >= len);
        ran.again(ran.last().max(now));
        // What was judged for the CPU is not of this time: nobody goes by that it ran since.
        if self.blocks.get(id).is_some_and(|block| before.last() < block.since) {
            self.say_when(id);
            if let Some(block) = self.blocks.get_mut(id) {
                block.since = block.since.max(now + 1);
            }
        }
        known
    }

    /// Whether some of this block is plain now.
    fn is_plain(&self, block: &Block) -> bool {
        is_plain(block.plain, 1, self.all)
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
            self.blocks.say_when(id, block.since, judged);
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
            let plain = plain(len, self.all);
            if let Some(block) = self.blocks.get_mut(id) {
                let since = if goes_on { block.since } else { now };
                (block.virt, block.since, block.plain) = (virt, since, plain);
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
        if let Some(block) = self.blocks.get_mut(id) {
            block.plain = 0;
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
mod tests {
    use textbed_arch::{PhysAddr, VirtAddr};
    use textbed_event::View;

    use super::*;

    #[test]
    fn a_change_of_many_pages_concerns_what_lies_there() {
        let at = (0xffff_8000_0040_3000, 0x60_3000);
        let pages = |first, pages: u64| Span::of(first, pages << 12).unwrap();
        type Change = fn(&mut Looks, Span);
        let changes: [(Change, u64); 2] = [(Looks::remapped, at.0), (Looks::stored, at.1)];
        for (change, first) in changes {
            for (span, stays) in [
                (pages(first, 16), false),
                (pages(first, 17), false),
                (pages(first - (16 << 12), 17), false),
                (pages(first - (600 << 12), 1200), false),
                (Span { first: 0, last: u64::MAX }, false),
                (pages(first - (40 << 12), 40), true),
                (pages(first + 4096, 2000), true),
                (pages(first + 4096, 3), true),
            ] {
                let mut looks = Looks::default();
                // Another block in another region.
                let before = (at.0 - (550 << 12), at.1 - (550 << 12));
                for cpu in [CpuId(0), CpuId(70)] {
                    looks.judged(cpu, before, 8, 0, Verdict::Plain, 1);
                    looks.judged(cpu, at, 8, 0, Verdict::Plain, 1);
                    assert!(looks.plain(cpu, at, 8, || 0, 2));
                }
                change(&mut looks, span);
                for cpu in [CpuId(0), CpuId(70)] {
                    assert_eq!(looks.plain(cpu, at, 8, || 0, 3), stays, "{span:x?}");
                    assert_eq!(looks.known(cpu, at.1, 8, || 0, 4).is_some(), stays, "{span:x?}");
                }
            }
        }
    }

    /// Two CPUs: what they did stands with the block, by the CPU, or the one so and the other so.
    const PAIRS: [(CpuId, CpuId); 4] =
        [(CpuId(0), CpuId(1)), (CpuId(7), CpuId(8)), (CpuId(9), CpuId(70)), (CpuId(70), CpuId(3))];

    /// A CPU that found a block plain runs it when another one did so again, and then a part of it.
    #[test]
    fn what_ran_again_since_it_is_plain_was_judged_then() {
        let at = (0xffff_8000_0040_3000, 0x60_3000);
        for (p, q) in PAIRS {
            let mut looks = Looks::default();
            looks.judged(p, at, 16, 0, Verdict::Plain, 1);
            looks.remapped(Span::of(at.0, 4096).unwrap());
            looks.judged(q, at, 16, 0, Verdict::Plain, 2);
            assert!(looks.plain(p, at, 16, || 0, 3) && looks.plain(p, at, 8, || 0, 4));
            let tail = Span::of(at.1 + 8, 8).unwrap();
            assert_eq!(looks.last_executed(p, tail), Some(4), "nothing changed since");
        }
    }

    /// What a CPU ran is said of the block as it was then, through whichever page it is plain.
    #[test]
    fn what_ran_through_one_page_is_known_when_it_is_plain_through_another() {
        let phys = 0x60_3000;
        let [one, other] = [0xffff_8000_0040_3000, 0xffff_9000_0000_0000].map(|virt| (virt, phys));
        for (p, q) in PAIRS {
            let mut looks = Looks::default();
            looks.judged(p, one, 16, 0, Verdict::Plain, 1);
            assert!(looks.plain(q, one, 16, || 0, 2));
            looks.judged(p, other, 16, 0, Verdict::Plain, 3);
            assert!(looks.plain(q, other, 8, || 0, 4));
            let tail = Span::of(phys + 8, 8).unwrap();
            assert_eq!(looks.last_executed(q, tail), Some(4), "nothing changed where it ran");
            looks.remapped(Span::of(one.0, 4096).unwrap());
            assert!(looks.plain(q, other, 4, || 0, 5), "it is plain through the other");
            assert_eq!(looks.last_executed(q, tail), None, "judged anew, with fewer bytes");
        }
    }

    /// What was found ahead says only where to look: of a fetch with other bytes, through another
    /// address, of another CPU or of a block that changed it says nothing.
    #[test]
    fn a_block_runs_again_only_as_it_ran_before() {
        let fetch = |cpu: CpuId, (virt, phys): (u64, u64), len| {
            let (virt, phys) = (VirtAddr(virt), PhysAddr(phys));
            Event { seq: 9, ..Event::new(cpu, View::Fetch { virt, phys, len }) }
        };
        let at = |n: u64| (0xffff_8000_0040_3000 + n * 32, 0x60_3000 + n * 32);
        for (p, q) in PAIRS {
            let mut looks = Looks::default();
            // More than the index has room for at first.
            for n in 0..80 {
                looks.judged(p, at(n), 16, 0, Verdict::Plain, n + 1);
            }
            for n in 0..80 {
                let found = looks.near(p, at(n).1);
                let mut again = |event: Event| looks.runs_again(&event, found);
                assert!(!again(fetch(p, at(n), 12)) && !again(fetch(p, at(n), 20)));
                assert!(!again(fetch(p, (at(n).0 + 4096, at(n).1), 16)));
                assert!(!again(fetch(p, (at(n).0, at(n).1 + 16), 16)));
                assert!(again(fetch(p, at(n), 16)) || found == NONE, "{n}");
                let found = looks.near(q, at(n).1);
                assert!(!looks.runs_again(&fetch(q, at(n), 16), found), "never by this one");
            }
            let ran = (0..80).filter(|n| looks.near(p, at(*n).1) != NONE).count();
            assert!(ran > 60, "most are where they are looked for first: {ran}");
            let found = looks.near(p, at(5).1);
            assert_eq!(looks.last_executed(p, Span::of(at(5).1, 16).unwrap()), Some(9));
            looks.stored(Span::of(at(5).1, 8).unwrap());
            assert!(!looks.runs_again(&fetch(p, at(5), 16), found), "its bytes changed");
            looks.judged(p, at(6), 16, 0, Verdict::Plain, 85);
            assert!(looks.plain(p, at(6), 16, || 0, 86));
            let before = looks.near(p, at(6).1);
            looks.forget();
            looks.judged(q, at(6), 16, 0, Verdict::Plain, 90);
            for found in [before, looks.near(p, at(6).1)] {
                assert!(!looks.runs_again(&fetch(p, at(6), 16), found), "forgotten");
            }
        }
    }
}
