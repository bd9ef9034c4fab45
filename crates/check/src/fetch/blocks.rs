//! Blocks of code by where they begin, and which CPU ran each when.
//!
//! What is asked each time that a block runs stands where the hash of its beginning says. It has a
//! number, by which everything else about it is found: the lists in which it is, and for each CPU
//! its last execution. So it is looked up once, and what a CPU never ran costs it nothing.

use prefetch_index::prefetch_index;
use textbed_arch::CpuId;

/// Number of a block, or of a place in [`super::looks`].
pub(crate) type Id = u32;
/// No block.
pub(crate) const NONE: Id = u32::MAX;
/// The end of a list that has blocks.
pub(super) const LAST: Id = u32::MAX - 1;

/// One block, whoever ran it: what is asked each time that it runs, half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Block {
    /// Where it begins.
    pub(super) phys: u64,
    /// The key of the page through which it was found plain.
    pub(super) page_key: u64,
    /// The event since which it is plain through that page, if it is.
    pub(super) since: u64,
    /// Bytes that are plain, with the count of what changed everything when they were (above); see
    /// [`plain`].
    pub(super) plain: u32,
    /// Its number; [`NONE`] where no block is.
    pub(super) id: Id,
}

const _: () = assert!(size_of::<Block>() == 32, "two in a cache line");

impl Block {
    /// Where none is.
    const NO_BLOCK: Self = Self { phys: 0, page_key: 0, since: 0, plain: 0, id: NONE };
}

/// What of the count of changes of everything is kept with a block.
pub(super) const ALL: u32 = 0xffff;

/// What a block has whose first `len` bytes were found plain when everything had changed `all`
/// times; 0 = not plain.
pub(super) fn plain(len: u32, all: u32) -> u32 {
    if len > MAX_LEN { 0 } else { all << 16 | len }
}

/// Whether `len` bytes of a block with that are plain now.
#[inline]
pub(super) fn is_plain(plain: u32, len: u32, all: u32) -> bool {
    plain >> 16 == all & ALL && len.wrapping_sub(1) < plain & MAX_LEN
}

/// What else is known of a block, by its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    /// Where it is among the blocks.
    at: u32,
    /// The places of its frame, and of the page through which it was found plain.
    pub(super) frame: Id,
    pub(super) page: Id,
    /// The block behind it in its frame.
    in_frame: Id,
    /// And among those that were found plain through the same page.
    pub(super) in_page: Id,
}

/// What one CPU did with a block: the event of its last execution (48 bits: the checker takes no
/// other events), the block's bytes (15) and whether it is unclean.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Ran(u64);

/// When it was judged for that CPU.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Judged {
    /// The page through which.
    pub(super) page: Id,
    /// The sum of what was counted there and for its frame, and of everybody's count. Counts only
    /// rise, so the sum is the same only while each of them is.
    pub(super) sum: u32,
}

impl Judged {
    /// When it ran, the block being plain: that says it as long as it is so, and where it is no
    /// longer the sum is another.
    pub(super) const PLAIN: Self = Self { page: NONE, sum: 0 };
}

const EVENT: u64 = (1 << 48) - 1;
const UNCLEAN: u64 = 1 << 63;
/// A longer block is judged each time. No block crosses a page.
const MAX_LEN: u32 = (1 << 15) - 1;

impl Ran {
    /// It ran, with so many bytes. `clean`: nothing was found, and what the CPU may learn does not
    /// change that.
    #[inline]
    pub(super) fn of(last: u64, len: u32, clean: bool) -> Self {
        let unclean = if clean { 0 } else { UNCLEAN };
        Self(last & EVENT | u64::from(len.min(MAX_LEN)) << 48 | unclean)
    }

    /// The event of its last execution.
    #[inline]
    pub(super) fn last(self) -> u64 {
        self.0 & EVENT
    }

    /// Its bytes; 0 = this CPU never ran it.
    #[inline]
    pub(super) fn len(self) -> u32 {
        (self.0 >> 48) as u32 & MAX_LEN
    }

    /// Whether it ran with just so many bytes, in that event or later, and nothing was found.
    #[inline]
    pub(super) fn is_clean_of(self, len: u32, since: u64) -> bool {
        self.0 >> 48 == u64::from(len) && self.last() >= since
    }

    pub(super) fn is_clean(self) -> bool {
        self.0 & UNCLEAN == 0
    }

    /// It ran again.
    #[inline]
    pub(super) fn again(&mut self, last: u64) {
        self.0 = self.0 & !EVENT | last & EVENT;
    }
}

/// Blocks of which what a CPU did is kept together, in a chunk.
const CHUNK: usize = 64;

/// All blocks.
#[derive(Default, Debug)]
pub(super) struct Blocks {
    /// Blocks, each where the hash of its beginning says or close behind, so that finding one reads
    /// nothing else: a power of two of places, at most two thirds in use.
    blocks: Vec<Block>,
    shift: u32,
    listed: Vec<Listed>,
    /// By CPU the number of its chunk for each so many blocks; [`NONE`] where it ran none of them.
    chunks: Vec<Vec<Id>>,
    /// What was done, chunk by chunk, and beside it, because few ask for that, when it was judged.
    ran: Vec<Ran>,
    judged: Vec<Judged>,
}

impl Blocks {
    fn mask(&self) -> usize {
        self.blocks.len().wrapping_sub(1)
    }

    /// Where a block that begins at `phys` is looked for first: the first of two places that are in
    /// one cache line.
    #[inline]
    pub(super) fn home(&self, phys: u64) -> u32 {
        let hash = phys.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> (self.shift & 63)) as u32 & !1
    }

    /// The block that begins at `phys`.
    #[inline]
    pub(super) fn find(&self, phys: u64) -> Option<&Block> {
        let mut at = self.home(phys) as usize;
        loop {
            let block = self.blocks.get(at & self.mask())?;
            if block.id == NONE {
                return None;
            }
            if block.phys == phys {
                return Some(block);
            }
            at += 1;
        }
    }

    /// The block in this place, if it begins at `phys`.
    #[inline]
    pub(super) fn at(&self, place: u32, phys: u64) -> Option<&Block> {
        self.blocks.get(place as usize).filter(|block| block.phys == phys && block.id != NONE)
    }

    /// The block that begins at `phys` with its place, if that is one of the two that are looked at
    /// first.
    #[inline]
    pub(super) fn near(&self, phys: u64) -> Option<(u32, &Block)> {
        let home = self.home(phys);
        let first = self.blocks.get(home as usize)?;
        let at = if first.phys == phys { home } else { home | 1 };
        Some((at, self.at(at, phys)?))
    }

    /// Prefetches the two places that are looked at first for `phys`.
    #[inline]
    pub(super) fn prefetch(&self, phys: u64) {
        prefetch_index(&self.blocks, self.home(phys) as usize);
    }

    /// Prefetches what was done in that place.
    #[inline]
    pub(super) fn prefetch_ran(&self, slot: usize) {
        prefetch_index(&self.ran, slot);
    }

    pub(super) fn get(&self, id: Id) -> Option<&Block> {
        self.blocks.get(self.listed.get(id as usize)?.at as usize)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Block> {
        self.blocks.get_mut(self.listed.get(id as usize)?.at as usize)
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
        self.blocks.iter_mut().for_each(|block| block.plain = 0);
    }

    /// Puts in a block that begins at `phys`, where none does, in the frame with this place;
    /// `behind` it there is another.
    pub(super) fn add(&mut self, phys: u64, frame: Id, behind: Id) -> Id {
        let id = self.listed.len() as Id;
        if (self.listed.len() + 1) * 3 > self.blocks.len() * 2 {
            let room = (self.blocks.len() * 2).max(64);
            self.shift = 64 - room.trailing_zeros();
            let before = std::mem::replace(&mut self.blocks, vec![Block::NO_BLOCK; room]);
            for block in before.into_iter().filter(|block| block.id != NONE) {
                let at = self.enter(block);
                self.listed[block.id as usize].at = at;
            }
        }
        let at = self.enter(Block { phys, id, ..Block::NO_BLOCK });
        self.listed.push(Listed { at, frame, page: NONE, in_frame: behind, in_page: NONE });
        id
    }

    /// Puts in a block that is not there: where it is.
    fn enter(&mut self, block: Block) -> u32 {
        let mut at = self.home(block.phys) as usize;
        while self.blocks.get(at & self.mask()).is_some_and(|there| there.id != NONE) {
            at += 1;
        }
        at &= self.mask();
        if let Some(there) = self.blocks.get_mut(at) {
            *there = block;
        }
        at as u32
    }

    /// The place of what `cpu` did with a block, if it ran it or one with a number near by.
    #[inline]
    pub(super) fn slot(&self, cpu: CpuId, id: Id) -> Option<usize> {
        let chunk = *self.chunks.get(usize::from(cpu.0))?.get(id as usize / CHUNK)?;
        (chunk != NONE).then_some(chunk as usize * CHUNK + id as usize % CHUNK)
    }

    /// What was done in that place.
    #[inline]
    pub(super) fn ran_at(&self, slot: usize) -> Option<Ran> {
        self.ran.get(slot).copied()
    }

    #[inline]
    pub(super) fn ran_at_mut(&mut self, slot: usize) -> Option<&mut Ran> {
        self.ran.get_mut(slot)
    }

    /// What `cpu` did with a block, if it ran it or one with a number near by.
    pub(super) fn ran(&self, cpu: CpuId, id: Id) -> Option<Ran> {
        self.ran_at(self.slot(cpu, id)?)
    }

    /// When it was judged for `cpu`.
    pub(super) fn judged(&self, cpu: CpuId, id: Id) -> Option<Judged> {
        self.judged.get(self.slot(cpu, id)?).copied()
    }

    pub(super) fn ran_mut(&mut self, cpu: CpuId, id: Id) -> Option<&mut Ran> {
        let slot = self.slot(cpu, id)?;
        self.ran_at_mut(slot)
    }

    pub(super) fn put(&mut self, cpu: CpuId, id: Id, ran: Ran, judged: Judged) {
        let slot = self.slot(cpu, id).unwrap_or_else(|| self.make_room(cpu, id));
        if let (Some(was), Some(when)) = (self.ran.get_mut(slot), self.judged.get_mut(slot)) {
            (*was, *when) = (ran, judged);
        }
    }

    /// Writes down `judged` for each CPU that ran a block in event `since` or later, where nothing
    /// but [`Judged::PLAIN`] stands.
    pub(super) fn say_when(&mut self, id: Id, since: u64, judged: Judged) {
        for cpu in (0..self.chunks.len()).map(|cpu| CpuId(cpu as u16)) {
            let Some(slot) = self.slot(cpu, id) else { continue };
            if self.ran_at(slot).is_some_and(|ran| ran.len() != 0 && ran.last() >= since)
                && let Some(when) = self.judged.get_mut(slot).filter(|w| **w == Judged::PLAIN)
            {
                *when = judged;
            }
        }
    }

    /// Room for what `cpu` does with a block: its place.
    #[cold]
    fn make_room(&mut self, cpu: CpuId, id: Id) -> usize {
        let (cpu, at) = (usize::from(cpu.0), id as usize / CHUNK);
        if self.chunks.len() <= cpu {
            self.chunks.resize(cpu + 1, Vec::new());
        }
        let chunks = &mut self.chunks[cpu];
        if chunks.len() <= at {
            chunks.resize(at + 1, NONE);
        }
        let first = self.ran.len();
        if first == self.ran.capacity() {
            // By an eighth: twice as much would be more than all that the blocks themselves need.
            self.ran.reserve_exact(first / 8 + 16 * CHUNK);
            self.judged.reserve_exact(first / 8 + 16 * CHUNK);
        }
        chunks[at] = (first / CHUNK) as Id;
        self.ran.resize(first + CHUNK, Ran::default());
        self.judged.resize(first + CHUNK, Judged::default());
        first + id as usize % CHUNK
    }

    /// Forgets all blocks, and keeps the room.
    pub(super) fn forget(&mut self) {
        self.blocks.fill(Block::NO_BLOCK);
        self.listed.clear();
        self.chunks.iter_mut().for_each(Vec::clear);
        self.ran.clear();
        self.judged.clear();
    }

    /// What is kept: blocks, and what CPUs may have done with each.
    pub(super) fn len(&self) -> usize {
        self.listed.len() + self.ran.len()
    }
}
