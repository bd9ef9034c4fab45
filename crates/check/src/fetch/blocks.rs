//! Blocks of code by where they begin, and which CPU ran each when.
//!
//! A block has a number, by which everything else about it is found: what all CPUs share, and for
//! each CPU its last execution. So it is looked up once, and what a CPU never ran costs it nothing.

use textbed_arch::CpuId;

use crate::per_cpu::PerCpu;

/// Number of a block, or of a place in [`super::looks`].
pub(super) type Id = u32;
/// No block.
pub(super) const NONE: Id = u32::MAX;

/// One block, whoever ran it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    /// Where it begins.
    pub(super) phys: u64,
    /// The places of its frame, and of the page through which it was found plain.
    pub(super) frame: Id,
    pub(super) page: Id,
    /// The sum of what was counted there when it was found plain.
    pub(super) sum: u32,
    /// Bytes that are plain; 0 = none.
    pub(super) plain: u32,
    /// The next block in its frame.
    pub(super) next: Id,
}

/// What one CPU did with a block.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Seen {
    /// The event of its last execution (48 bits: the checker takes no other events), the block's
    /// bytes (15) and whether it is unclean.
    packed: u64,
    /// The page through which it was judged.
    pub(super) page: Id,
    /// The sum of what was counted there and for its frame, and of everybody's count, when it was
    /// judged. Counts only rise, so the sum is the same only while each of them is.
    pub(super) sum: u32,
}

const LAST: u64 = (1 << 48) - 1;
const UNCLEAN: u64 = 1 << 63;
/// A longer block is judged each time. No block crosses a page.
const MAX_LEN: u32 = (1 << 15) - 1;

impl Seen {
    /// It ran, with so many bytes. `clean`: nothing was found, and what the CPU may learn does not
    /// change that.
    pub(super) fn judged(last: u64, len: u32, clean: bool, page: Id, sum: u32) -> Self {
        let unclean = if clean { 0 } else { UNCLEAN };
        let packed = last & LAST | u64::from(len.min(MAX_LEN)) << 48 | unclean;
        Self { packed, page, sum }
    }

    /// The event of its last execution.
    pub(super) fn last(&self) -> u64 {
        self.packed & LAST
    }

    /// Its bytes; 0 = this CPU never ran it.
    pub(super) fn len(&self) -> u32 {
        (self.packed >> 48) as u32 & MAX_LEN
    }

    pub(super) fn is_clean(&self) -> bool {
        self.packed & UNCLEAN == 0
    }

    /// It ran again.
    pub(super) fn ran(&mut self, last: u64) {
        self.packed = self.packed & !LAST | last & LAST;
    }
}

/// Blocks of which what a CPU did is kept together.
const CHUNK: usize = 64;
type Chunk = Option<Box<[Seen; CHUNK]>>;

/// All blocks.
#[derive(Default, Debug)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    /// Numbers of blocks, each where the hash of its beginning says or close behind: a power of two
    /// of them, at most half in use.
    index: Vec<Id>,
    shift: u32,
    seen: PerCpu<Vec<Chunk>>,
    chunks: usize,
}

impl Blocks {
    /// Where in the index a block at `phys`, which is in none, would be.
    fn free_slot(&self, phys: u64) -> usize {
        let mask = self.index.len().wrapping_sub(1);
        let mut at = self.first_slot(phys) & mask;
        while self.index.get(at).is_some_and(|id| *id != NONE) {
            at = (at + 1) & mask;
        }
        at
    }

    /// The block that begins at `phys`.
    #[inline]
    pub(super) fn find(&self, phys: u64) -> Option<(Id, &Block)> {
        let mask = self.index.len().wrapping_sub(1);
        let mut at = self.first_slot(phys);
        loop {
            let id = *self.index.get(at & mask)?;
            let block = self.blocks.get(id as usize)?;
            if block.phys == phys {
                return Some((id, block));
            }
            at += 1;
        }
    }

    #[inline]
    fn first_slot(&self, phys: u64) -> usize {
        (phys.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (self.shift & 63)) as usize
    }

    pub(super) fn get(&self, id: Id) -> Option<&Block> {
        self.blocks.get(id as usize)
    }

    pub(super) fn get_mut(&mut self, id: Id) -> Option<&mut Block> {
        self.blocks.get_mut(id as usize)
    }

    /// Puts in a block that begins where none does.
    pub(super) fn add(&mut self, block: Block) -> Id {
        let id = self.blocks.len() as Id;
        if (self.blocks.len() + 1) * 2 > self.index.len() {
            let room = (self.index.len() * 2).max(64);
            self.shift = 64 - room.trailing_zeros();
            self.index = vec![NONE; room];
            for id in 0..id {
                let slot = self.free_slot(self.blocks[id as usize].phys);
                self.index[slot] = id;
            }
        }
        let slot = self.free_slot(block.phys);
        self.index[slot] = id;
        self.blocks.push(block);
        id
    }

    /// What `cpu` did with a block, if it ran it or one with a number near by.
    pub(super) fn seen(&self, cpu: CpuId, id: Id) -> Option<&Seen> {
        let chunk = self.seen.get(cpu)?.get(id as usize / CHUNK)?.as_ref()?;
        chunk.get(id as usize % CHUNK)
    }

    #[inline]
    pub(super) fn seen_mut(&mut self, cpu: CpuId, id: Id) -> Option<&mut Seen> {
        let chunk = self.seen.get_mut(cpu)?.get_mut(id as usize / CHUNK)?.as_mut()?;
        chunk.get_mut(id as usize % CHUNK)
    }

    /// Room for what `cpu` does with a block.
    #[cold]
    pub(super) fn make_room(&mut self, cpu: CpuId, id: Id) {
        let chunks = self.seen.of(cpu);
        let at = id as usize / CHUNK;
        if chunks.len() <= at {
            chunks.resize_with(at + 1, || None);
        }
        if chunks[at].is_none() {
            chunks[at] = Some(Box::new([Seen::default(); CHUNK]));
            self.chunks += 1;
        }
    }

    /// What is kept: blocks, and what CPUs may have done with each.
    pub(super) fn len(&self) -> usize {
        self.blocks.len() + self.chunks * CHUNK
    }
}
