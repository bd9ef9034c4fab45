//! Blocks of code by where they begin, and which CPU ran each when.
//!
//! A block has a number, by which everything else about it is found: what all CPUs share, and for
//! each CPU its last execution. So it is looked up once, and what a CPU never ran costs it nothing.

use textbed_arch::CpuId;

/// Number of a block, or of a place in [`super::looks`].
pub(crate) type Id = u32;
/// No block.
pub(crate) const NONE: Id = u32::MAX;
/// The end of a list that has blocks.
pub(super) const LAST: Id = u32::MAX - 1;

/// One block, whoever ran it: what is asked each time that it runs, half a cache line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Where it begins.
    pub(super) phys: u64,
    /// The key of the page through which it was found plain.
    pub(super) page_key: u64,
    /// Bytes that are plain, with the count of what changed everything when they were (above); see
    /// [`plain`].
    pub(super) plain: u32,
    /// The sum of what was counted for its frame and page when it was found plain.
    pub(super) sum: u32,
    /// The places of its frame, and of the page through which it was found plain.
    pub(super) frame: Id,
    pub(super) page: Id,
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

/// The blocks behind a block, in two lists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    /// In its frame.
    pub(super) in_frame: Id,
    /// Among those that were found plain through the same page.
    pub(super) in_page: Id,
}

/// What one CPU did with a block: the event of its last execution (48 bits: the checker takes no
/// other events), the block's bytes (15) and whether it is unclean.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Ran(u64);

/// When it was judged for that CPU. It says less for what is plain, which ran since without being
/// judged: then a sum is of an earlier time, or of now, and nothing changed since.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Judged {
    /// The page through which.
    pub(super) page: Id,
    /// The sum of what was counted there and for its frame, and of everybody's count. Counts only
    /// rise, so the sum is the same only while each of them is.
    pub(super) sum: u32,
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
    pub(super) fn last(self) -> u64 {
        self.0 & EVENT
    }

    /// Its bytes; 0 = this CPU never ran it.
    #[inline]
    pub(super) fn len(self) -> u32 {
        (self.0 >> 48) as u32 & MAX_LEN
    }

    /// Whether it ran with just so many bytes, and nothing was found.
    #[inline]
    pub(super) fn is_clean_of(self, len: u32) -> bool {
        self.0 >> 48 == u64::from(len)
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
    blocks: Vec<Block>,
    next: Vec<Next>,
    /// Numbers of blocks, each where the hash of its beginning says or close behind, with a part of
    /// that hash, so that no other block is looked at: a power of two of them, at most half in use.
    index: Vec<(u32, Id)>,
    shift: u32,
    /// By CPU the number of its chunk for each so many blocks; [`NONE`] where it ran none of them.
    chunks: Vec<Vec<Id>>,
    /// What was done, chunk by chunk, and beside it, because few ask for that, when it was judged.
    ran: Vec<Ran>,
    judged: Vec<Judged>,
}

impl Blocks {
    /// Where in the index a block is looked for first, and what stands there with its number.
    #[inline]
    fn home(&self, phys: u64) -> (usize, u32) {
        let hash = phys.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash >> (self.shift & 63)) as usize, hash as u32)
    }

    /// The block that begins at `phys`.
    #[inline]
    pub(super) fn find(&self, phys: u64) -> Option<(Id, &Block)> {
        let mask = self.index.len().wrapping_sub(1);
        let (mut at, tag) = self.home(phys);
        loop {
            let (there, id) = *self.index.get(at & mask)?;
            if there == tag
                && let Some(block) = self.blocks.get(id as usize)
                && block.phys == phys
            {
                return Some((id, block));
            }
            if id == NONE {
                return None;
            }
            at += 1;
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
        let next = |id: &Id| self.next.get(*id as usize).map(|next| next.in_frame);
        std::iter::successors(first, move |id| next(id).filter(|id| *id != NONE))
    }

    pub(super) fn next_mut(&mut self, id: Id) -> Option<&mut Next> {
        self.next.get_mut(id as usize)
    }

    /// None of what is known to be plain is so any more.
    pub(super) fn none_is_plain(&mut self) {
        self.blocks.iter_mut().for_each(|block| block.plain = 0);
    }

    /// Puts in a block that begins where none does; `behind` it in its frame is another.
    pub(super) fn add(&mut self, block: Block, behind: Id) -> Id {
        let id = self.blocks.len() as Id;
        if (self.blocks.len() + 1) * 2 > self.index.len() {
            let room = (self.index.len() * 2).max(64);
            self.shift = 64 - room.trailing_zeros();
            self.index = vec![(0, NONE); room];
            for id in 0..id {
                self.note(self.blocks[id as usize].phys, id);
            }
        }
        self.note(block.phys, id);
        self.blocks.push(block);
        self.next.push(Next { in_frame: behind, in_page: NONE });
        id
    }

    /// Notes in the index where a block is that is not in it.
    fn note(&mut self, phys: u64, id: Id) {
        let mask = self.index.len().wrapping_sub(1);
        let (home, tag) = self.home(phys);
        let mut at = home & mask;
        while self.index.get(at).is_some_and(|(_, there)| *there != NONE) {
            at = (at + 1) & mask;
        }
        if let Some(there) = self.index.get_mut(at) {
            *there = (tag, id);
        }
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

    /// What is kept: blocks, and what CPUs may have done with each.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() + self.ran.len()
    }
}
