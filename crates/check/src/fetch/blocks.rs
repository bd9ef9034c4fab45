//! Blocks of code by where they begin, and which CPU ran each when.
//!
//! Blocks have numbers in the order in which they came, so that those that run most, which come
//! early, lie together; an index ([`crate::hashed`]) says by where one begins which it is. By its
//! number everything else about a block is found: the lists in which it is, and for each CPU its
//! last execution. So it is looked up once.
//!
//! Most blocks are plain, and of a CPU that ran such a one since it is so only the last event in
//! which it did is to be kept: of the first CPUs that is four bytes with the block. All else, and
//! what other CPUs did, stands in [`super::ran`].

use prefetch_index::prefetch_index;
use textbed_arch::CpuId;

use super::ran::{Judged, Kept, MAX_LEN, Ran};
use crate::hashed::{Hashed, NONE};

/// Number of a block, or of a place in [`super::looks`].
pub(crate) type Id = u32;
/// The end of a list that has blocks.
pub(super) const LAST: Id = u32::MAX - 1;
/// What is kept of blocks, by CPU; past it all is forgotten and judged again.
pub(super) const MAX_KEPT: usize = 1 << 22;
/// CPUs of which it stands with a block when they ran it, those with the lowest numbers.
const NEAR: usize = 8;

/// One block: what is asked and noted each time that it runs, in a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Block {
    /// Where it begins.
    pub(super) phys: u64,
    /// Its address when it was found plain.
    pub(super) virt: u64,
    /// The event since which it is plain through that, if it is.
    since: u64,
    /// Bytes that are plain, with the count of what changed everything when they were (above); see
    /// [`plain`].
    plain: u32,
    /// The bytes with which it ran, where `runs` says that it did: all that were found plain last.
    len: u32,
    /// The last event, from [`Blocks::base`] on, in which each of the first CPUs ran it, if it was
    /// plain then and ran with so many bytes; else 0, and what the CPU did is kept elsewhere.
    runs: [u32; NEAR],
}

const _: () = assert!(size_of::<Block>() == 64, "one line");

impl Block {
    /// Whether its first `len` bytes are plain when everything changed `all` times.
    #[inline]
    pub(super) fn is_plain(&self, len: u32, all: u32) -> bool {
        self.plain >> 16 == all & ALL && len.wrapping_sub(1) < self.plain & MAX_LEN
    }

    /// The event since which it is plain, if it is.
    #[inline]
    pub(super) fn since(&self) -> u64 {
        self.since
    }

    /// Nothing of it is plain any more.
    pub(super) fn not_plain(&mut self) {
        self.plain = 0;
    }
}

/// What of the count of changes of everything is kept with a block.
pub(super) const ALL: u32 = 0xffff;

/// What a block has of which the first `len` bytes were found plain when everything had changed
/// `all` times; 0 = not plain.
fn plain(len: u32, all: u32) -> u32 {
    if len > MAX_LEN { 0 } else { all << 16 | len }
}

/// The event that stands with a block as `run`, counted from `base` on.
#[inline]
fn event(base: u64, run: u32) -> u64 {
    base.wrapping_add(u64::from(run) - 1)
}

/// What else is known of a block, by its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    /// The places of its frame, and of the page through which it was found plain.
    pub(super) frame: Id,
    pub(super) page: Id,
    /// The block behind it in its frame.
    in_frame: Id,
    /// And among those that were found plain through the same page.
    pub(super) in_page: Id,
}

/// All blocks.
#[derive(Default, Debug)]
pub(super) struct Blocks {
    index: Hashed,
    /// By number, as what follows.
    blocks: Vec<Block>,
    listed: Vec<Listed>,
    kept: Kept,
    /// The event from which on they are counted where they stand with blocks: 0 until there are
    /// more than four bytes can count.
    base: u64,
}

impl Blocks {
    /// The number of the block that begins at `phys`.
    #[inline]
    pub(super) fn find(&self, phys: u64) -> Option<Id> {
        let found = self.index.find(phys, |id| self.at(id, phys).is_some());
        found.ok().map(|(_, id)| id)
    }

    /// The block with this number, if it begins at `phys`.
    #[inline]
    pub(super) fn at(&self, id: Id, phys: u64) -> Option<&Block> {
        self.blocks.get(id as usize).filter(|block| block.phys == phys)
    }

    /// The number that a block which begins at `phys` may have, [`NONE`] where none is noted in the
    /// places that are looked at first.
    #[inline]
    pub(super) fn near(&self, phys: u64) -> Id {
        self.index.near(phys)
    }

    /// Prefetches where in the index `phys` is looked for first.
    #[inline]
    pub(super) fn prefetch(&self, phys: u64) {
        self.index.prefetch(phys);
    }

    /// Prefetches a block, and what `cpu` did with it.
    #[inline]
    pub(super) fn prefetch_there(&self, cpu: CpuId, id: Id) {
        prefetch_index(&self.blocks, id as usize);
        if usize::from(cpu.0) >= NEAR {
            self.kept.prefetch(cpu, id);
        }
    }

    pub(super) fn get(&self, id: Id) -> Option<&Block> {
        self.blocks.get(id as usize)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Block> {
        self.blocks.get_mut(id as usize)
    }

    /// The blocks of a frame, from the one with this number on.
    pub(super) fn in_frame(&self, first: Option<Id>) -> impl Iterator<Item = Id> + '_ {
        let first = first.filter(|id| *id != NONE);
        let next = |id: &Id| self.listed.get(*id as usize).map(|listed| listed.in_frame);
        std::iter::successors(first, move |id| next(id).filter(|id| *id != NONE))
    }

    pub(super) fn listed(&self, id: Id) -> Option<&Listed> {
        self.listed.get(id as usize)
    }

    pub(super) fn listed_mut(&mut self, id: Id) -> Option<&mut Listed> {
        self.listed.get_mut(id as usize)
    }

    /// None of what is known to be plain is so any more.
    pub(super) fn none_is_plain(&mut self) {
        self.blocks.iter_mut().for_each(Block::not_plain);
    }

    /// Puts in a block that begins at `phys`, where none does, in the frame with this place;
    /// `behind` it there is another.
    pub(super) fn add(&mut self, phys: u64, frame: Id, behind: Id) -> Id {
        let id = self.blocks.len() as Id;
        let runs = [0; NEAR];
        self.blocks.push(Block { phys, virt: 0, since: 0, plain: 0, len: 0, runs });
        self.listed.push(Listed { frame, page: NONE, in_frame: behind, in_page: NONE });
        if self.index.has_room(self.blocks.len()) {
            self.index.note(phys, id);
        } else {
            self.index.grow(self.blocks.iter().map(|block| block.phys));
        }
        id
    }

    /// The number of an event as it stands with blocks, if it can: never 0.
    #[inline]
    fn moment(&self, seq: u64) -> Option<u32> {
        u32::try_from(seq.wrapping_sub(self.base).wrapping_add(1)).ok().filter(|moment| *moment > 0)
    }

    /// `cpu` runs a block that is plain in event `now` with so many bytes; whether it did just so
    /// since that is so.
    #[inline]
    pub(super) fn runs_again(&mut self, cpu: CpuId, id: Id, len: u64, now: u64) -> bool {
        let (moment, base) = (self.moment(now), self.base);
        if let Some(block) = self.blocks.get_mut(id as usize)
            && let Some(run) = block.runs.get_mut(usize::from(cpu.0))
            && let Some(moment) = moment
            && *run != 0
            && event(base, *run) >= block.since
            && u64::from(block.len) == len
        {
            *run = moment;
            return true;
        }
        self.runs_kept(cpu, id, len, now)
    }

    /// The same of what does not stand with the block; from now on it does, if it can.
    #[inline(never)]
    fn runs_kept(&mut self, cpu: CpuId, id: Id, len: u64, now: u64) -> bool {
        let (moment, slot) = (self.moment(now), self.kept.slot(cpu, id));
        let Some(block) = self.blocks.get_mut(id as usize) else { return false };
        let mut run = block.runs.get_mut(usize::from(cpu.0));
        if run.as_ref().is_some_and(|run| **run != 0) {
            // With more bytes, or not since it is plain; what is kept is of before that.
            return false;
        }
        let Some((ran, judged)) = slot.and_then(|slot| self.kept.at_mut(slot)) else {
            return false;
        };
        let again = ran.is_clean_of(len, block.since);
        if again {
            ran.again(now);
            if let Some(run) = &mut run
                && u64::from(block.len) == len
                && *judged == Judged::PLAIN
            {
                **run = moment.unwrap_or(0);
            }
        }
        again
    }

    /// What `cpu` did with a block, and when that was judged, if it ran it or, where nothing is of
    /// any length, one with a number near by.
    pub(super) fn ran(&self, cpu: CpuId, id: Id) -> Option<(Ran, Judged)> {
        let block = self.get(id)?;
        match block.runs.get(usize::from(cpu.0)) {
            Some(run) if *run != 0 => {
                Some((Ran::of(event(self.base, *run), block.len, true), Judged::PLAIN))
            }
            _ => self.kept.at(self.kept.slot(cpu, id)?),
        }
    }

    /// A CPU ran a block in event `now`, about which nothing else changed.
    pub(super) fn again(&mut self, cpu: CpuId, id: Id, now: u64) {
        let Some((mut ran, judged)) = self.ran(cpu, id) else { return };
        ran.again(now);
        self.put(cpu, id, ran, judged);
    }

    /// What `cpu` did with a block, and when it was judged.
    pub(super) fn put(&mut self, cpu: CpuId, id: Id, ran: Ran, judged: Judged) {
        let moment = self.moment(ran.last());
        if let Some(block) = self.blocks.get_mut(id as usize)
            && let Some(run) = block.runs.get_mut(usize::from(cpu.0))
        {
            let stands = judged == Judged::PLAIN && ran.is_clean_of(block.len.into(), 0);
            *run = moment.filter(|_| stands).unwrap_or(0);
            if *run != 0 {
                return;
            }
            if moment.is_none() && ran.last() > self.base {
                // It will be one that stands with a block the next time.
                self.count_from(ran.last());
            }
        }
        self.kept.put(cpu, id, ran, judged);
    }

    /// From now on events are counted from this one on; what stands with blocks is kept elsewhere.
    #[cold]
    fn count_from(&mut self, seq: u64) {
        (0..self.blocks.len() as Id).for_each(|id| self.keep(id));
        self.base = seq;
    }

    /// What stands with a block of what CPUs did is kept elsewhere.
    fn keep(&mut self, id: Id) {
        let Some(block) = self.blocks.get_mut(id as usize) else { return };
        let (runs, len) = (std::mem::take(&mut block.runs), block.len);
        for (cpu, run) in (0..).map(CpuId).zip(runs).filter(|(_, run)| *run != 0) {
            let ran = Ran::of(event(self.base, run), len, true);
            self.kept.put(cpu, id, ran, Judged::PLAIN);
        }
    }

    /// What is plain of a block counts from event `since` on, if that is later.
    pub(super) fn counts_from(&mut self, id: Id, since: u64) {
        if let Some(block) = self.blocks.get_mut(id as usize) {
            block.since = block.since.max(since);
        }
    }

    /// The first `len` bytes of a block are plain through `virt` since event `since`, everything
    /// having changed `all` times.
    pub(super) fn is_now_plain(&mut self, id: Id, virt: u64, since: u64, (len, all): (u32, u32)) {
        if self.get(id).is_some_and(|block| block.len != len && block.len != 0) {
            self.keep(id);
        }
        if let Some(block) = self.blocks.get_mut(id as usize) {
            (block.virt, block.since) = (virt, since);
            (block.plain, block.len) = (plain(len, all), len.min(MAX_LEN));
        }
    }

    /// Writes down `judged` for each CPU that ran a block since it is plain, where nothing but
    /// [`Judged::PLAIN`] stands.
    pub(super) fn say_when(&mut self, id: Id, judged: Judged) {
        self.keep(id);
        let Some(since) = self.get(id).map(Block::since) else { return };
        for cpu in self.kept.cpus() {
            if let Some(slot) = self.kept.slot(cpu, id)
                && let Some((ran, when)) = self.kept.at_mut(slot)
                && ran.len() != 0
                && ran.last() >= since
                && *when == Judged::PLAIN
            {
                *when = judged;
            }
        }
    }

    /// Forgets all blocks, and keeps the room.
    pub(super) fn forget(&mut self) {
        self.index.clear();
        self.blocks.clear();
        self.listed.clear();
        self.kept.forget();
    }

    /// What is kept, by what one CPU did with a block: a block itself needs as much as five.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() * 5 + self.kept.len()
    }
}
