//! What CPUs did with blocks, and when that was judged.

use prefetch_index::prefetch_index;
use textbed_arch::CpuId;

use super::blocks::Id;
use crate::hashed::NONE;

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
pub(super) const MAX_LEN: u32 = (1 << 15) - 1;

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
    pub(super) fn is_clean_of(self, len: u64, since: u64) -> bool {
        self.0 >> 48 == len && self.last() >= since
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

/// What CPUs did with blocks, by the blocks' numbers: what one never ran costs it nothing.
#[derive(Default, Debug)]
pub(super) struct Kept {
    /// By CPU the number of its chunk for each so many blocks; [`NONE`] where it ran none of them.
    chunks: Vec<Vec<Id>>,
    /// What was done, chunk by chunk, and beside it, because few ask for that, when it was judged.
    ran: Vec<Ran>,
    judged: Vec<Judged>,
}

impl Kept {
    /// The place of what `cpu` did with a block, if it ran it or one with a number near by.
    #[inline]
    pub(super) fn slot(&self, cpu: CpuId, id: Id) -> Option<usize> {
        let chunks = self.chunks.get(usize::from(cpu.0))?;
        let chunk = *chunks.get(id as usize / CHUNK)?;
        (chunk != NONE).then_some(chunk as usize * CHUNK + id as usize % CHUNK)
    }

    /// What was done in that place, and when it was judged.
    #[inline]
    pub(super) fn at(&self, slot: usize) -> Option<(Ran, Judged)> {
        Some((*self.ran.get(slot)?, *self.judged.get(slot)?))
    }

    #[inline]
    pub(super) fn at_mut(&mut self, slot: usize) -> Option<(&mut Ran, &mut Judged)> {
        Some((self.ran.get_mut(slot)?, self.judged.get_mut(slot)?))
    }

    /// Prefetches what `cpu` did with a block.
    #[inline]
    pub(super) fn prefetch(&self, cpu: CpuId, id: Id) {
        if let Some(slot) = self.slot(cpu, id) {
            prefetch_index(&self.ran, slot);
        }
    }

    /// Puts in what `cpu` did with a block.
    pub(super) fn put(&mut self, cpu: CpuId, id: Id, ran: Ran, judged: Judged) {
        let slot = self.slot(cpu, id).unwrap_or_else(|| self.make_room(cpu, id));
        if let Some((was, when)) = self.at_mut(slot) {
            (*was, *when) = (ran, judged);
        }
    }

    /// Room for what `cpu` does with a block that has none: its place.
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

    /// The CPUs that ran any block.
    pub(super) fn cpus(&self) -> impl Iterator<Item = CpuId> + use<> {
        (0..self.chunks.len()).map(|cpu| CpuId(cpu as u16))
    }

    pub(super) fn len(&self) -> usize {
        self.ran.len()
    }

    pub(super) fn forget(&mut self) {
        self.chunks.iter_mut().for_each(Vec::clear);
        self.ran.clear();
        self.judged.clear();
    }
}
