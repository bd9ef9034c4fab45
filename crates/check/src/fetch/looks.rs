//! What was already looked at: a block that ran and was judged is not judged again until something
//! about it changes: bytes of its frame, the frame's owner, or the mapping of its page.
//!
//! Most events of a stream are fetches of blocks that are known, so this is kept small: one record
//! of half a cache line by CPU and block, found by its address alone, and two counts that others
//! share.

use rustc_hash::FxHashMap;
use textbed_arch::CpuId;

use crate::per_cpu::PerCpu;
use crate::span::Span;

/// One block that a CPU executed.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
struct Block {
    /// Where it begins; [`FREE`] = nothing is here.
    phys: u64,
    /// The event of its last execution.
    last: u64,
    /// Its bytes; [`UNCLEAN`] says that something was found, or that what the CPU may learn changes
    /// what is found.
    len: u32,
    /// Places in [`Looks::changes`] of the frame, and of the page through which it was fetched.
    frame: u32,
    page: u32,
    /// The sum of what was counted there, and of everybody's count, when it was judged. Counts only
    /// rise, so the sum is the same only while each of them is.
    sum: u32,
}

/// No block begins there: physical addresses are below 2^63.
const FREE: u64 = u64::MAX;
const UNCLEAN: u32 = 1 << 31;
const NOTHING: Block = Block { phys: FREE, last: 0, len: 0, frame: 0, page: 0, sum: 0 };

/// The blocks of one CPU by their beginning: a block is found where its hash says, or close behind.
#[derive(Clone, Default, Debug)]
struct Table {
    /// A power of two of them, at most three quarters in use.
    blocks: Vec<Block>,
    used: usize,
    shift: u32,
}

impl Table {
    /// Where the block at `phys` is, or would be.
    fn place(&self, phys: u64) -> usize {
        let mask = self.blocks.len().wrapping_sub(1);
        let mut at = (phys.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize & mask;
        while let Some(block) = self.blocks.get(at)
            && block.phys != phys
            && block.phys != FREE
        {
            at = (at + 1) & mask;
        }
        at
    }

    fn get(&self, phys: u64) -> Option<&Block> {
        self.blocks.get(self.place(phys)).filter(|b| b.phys == phys)
    }

    fn get_mut(&mut self, phys: u64) -> Option<&mut Block> {
        let at = self.place(phys);
        self.blocks.get_mut(at).filter(|b| b.phys == phys)
    }

    /// Puts a block in, or another in its place; whether it is a new one.
    fn put(&mut self, block: Block) -> bool {
        if (self.used + 1) * 4 > self.blocks.len() * 3 {
            let room = (self.blocks.len() * 2).max(64);
            let old = std::mem::replace(&mut self.blocks, vec![NOTHING; room]);
            self.shift = 64 - room.trailing_zeros();
            for block in old.into_iter().filter(|b| b.phys != FREE) {
                let at = self.place(block.phys);
                self.blocks[at] = block;
            }
        }
        let at = self.place(block.phys);
        let fresh = self.blocks[at].phys == FREE;
        self.blocks[at] = block;
        self.used += usize::from(fresh);
        fresh
    }
}

/// Regions of 2 MiB of which any frame or page is followed, by a hash: most memory is in none.
#[derive(Clone, Debug)]
struct Followed(Box<[u64; 1024]>);

impl Default for Followed {
    fn default() -> Self {
        Self(Box::new([0; 1024]))
    }
}

impl Followed {
    fn bit(key: u64) -> (usize, u64) {
        let hash = (key >> 9).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        ((hash >> 6) as usize, 1 << (hash & 63))
    }

    fn add(&mut self, key: u64) {
        let (word, bit) = Self::bit(key);
        self.0[word] |= bit;
    }

    fn may_hold(&self, key: u64) -> bool {
        let (word, bit) = Self::bit(key);
        self.0[word] & bit != 0
    }
}

/// Blocks kept; past it all are forgotten and judged again.
const MAX_LOOKS: usize = 1 << 22;
/// Pages of a store that are counted one by one; a longer one changes everything.
const MAX_PAGES: u64 = 16;

/// The blocks by CPU, and what became of the frames and pages in which they lie.
#[derive(Default, Debug)]
pub(crate) struct Looks {
    ran: PerCpu<Table>,
    blocks: usize,
    /// Where blocks begin in each frame, whoever ran them.
    begins: FxHashMap<u64, Vec<u16>>,
    /// For blocks that are not clean the CPU's fetch view when they were judged, and what it had
    /// learnt from others then, as a count: with more of either the verdict may be another.
    unclean: FxHashMap<(CpuId, u64), (u64, u32)>,
    /// The frames and virtual pages of blocks, by key, with their place in `changes`.
    places: FxHashMap<u64, u32>,
    followed: Followed,
    /// How often each changed.
    changes: Vec<u32>,
    all: u32,
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

/// Where in its frame an address lies.
fn offset_of(phys: u64) -> u16 {
    (phys & 0xfff) as u16
}

impl Looks {
    /// Whether this block was judged and nothing changed since; if so, notes that it ran at `now`.
    /// `moment` is the CPU's fetch view.
    pub(crate) fn known(
        &mut self,
        cpu: CpuId,
        phys: u64,
        len: u32,
        moment: impl FnOnce() -> u64,
        now: u64,
    ) -> bool {
        let Some(block) = self.ran.get_mut(cpu).and_then(|r| r.get_mut(phys)) else {
            return false;
        };
        let count = |place: u32| self.changes.get(place as usize).copied().unwrap_or(0);
        let sum = count(block.frame).wrapping_add(count(block.page)).wrapping_add(self.all);
        let clean = block.len & UNCLEAN == 0;
        let learnt = || self.learnt.get(cpu).copied().unwrap_or(0);
        let known = block.sum == sum
            && block.len & !UNCLEAN >= len
            && (clean || self.unclean.get(&(cpu, phys)) == Some(&(moment(), learnt())));
        if known {
            block.last = now;
        }
        known
    }

    /// A block that was looked at ran again at `now`, which may lie back; whether it is known.
    pub(crate) fn ran_late(&mut self, cpu: CpuId, phys: u64, len: u32, now: u64) -> bool {
        let Some(block) = self.ran.get_mut(cpu).and_then(|r| r.get_mut(phys)) else {
            return false;
        };
        block.last = block.last.max(now);
        block.len & !UNCLEAN >= len
    }

    /// The place of a frame or page in `changes`, from now on followed.
    fn place(&mut self, key: u64) -> u32 {
        let next = self.changes.len() as u32;
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.changes.push(0);
            self.followed.add(key);
        }
        place
    }

    /// A CPU learnt from another what that knew.
    pub(crate) fn learnt(&mut self, cpu: CpuId) {
        let count = self.learnt.of(cpu);
        *count = count.wrapping_add(1);
    }

    fn count(&self, place: u32) -> u32 {
        self.changes.get(place as usize).copied().unwrap_or(0)
    }

    /// The block at `phys`, fetched through `virt`, was judged; `clean` if nothing was found and
    /// all of it is settled.
    pub(crate) fn judged(
        &mut self,
        cpu: CpuId,
        (virt, phys): (u64, u64),
        len: u32,
        moment: u64,
        clean: bool,
        now: u64,
    ) {
        if self.blocks >= MAX_LOOKS {
            let (all, learnt) = (self.all, std::mem::take(&mut self.learnt));
            *self = Self { all, learnt, ..Self::default() };
        }
        let frame = self.place(frame_key(phys));
        let page = self.place(page_key(virt));
        let sum = self.count(frame).wrapping_add(self.count(page)).wrapping_add(self.all);
        // A longer one is judged each time.
        let len = len.min(UNCLEAN - 1) | if clean { 0 } else { UNCLEAN };
        let block = Block { phys, last: now, len, frame, page, sum };
        if self.ran.of(cpu).put(block) {
            self.blocks += 1;
            let begins = self.begins.entry(frame_key(phys)).or_default();
            if let Err(at) = begins.binary_search(&offset_of(phys)) {
                begins.insert(at, offset_of(phys));
            }
        }
        if !clean {
            let learnt = self.learnt.get(cpu).copied().unwrap_or(0);
            self.unclean.insert((cpu, phys), (moment, learnt));
        }
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
        let frame = frame_key(span.first);
        let both = self.ran.get(cpu).zip(self.begins.get(&frame));
        both.into_iter().flat_map(move |(ran, begins)| {
            let blocks = begins.iter().filter_map(move |at| ran.get(frame << 12 | u64::from(*at)));
            let meets = move |block: &&Block| {
                Span::of(block.phys, u64::from(block.len & !UNCLEAN))
                    .is_some_and(|s| s.meet(span).is_some())
            };
            blocks.filter(meets).map(|block| block.last)
        })
    }

    /// Bytes of `span`, or whose they are, changed.
    pub(crate) fn stored(&mut self, span: Span) {
        self.changed(span, frame_key);
    }

    /// The mapping of `virt` changed.
    pub(crate) fn remapped(&mut self, virt: Span) {
        self.changed(virt, page_key);
    }

    fn changed(&mut self, span: Span, key: fn(u64) -> u64) {
        let (first, last) = (span.first >> 12, span.last >> 12);
        if last - first >= MAX_PAGES {
            self.everything_changed();
            return;
        }
        for page in first..=last {
            let key = key(page << 12);
            if self.followed.may_hold(key)
                && let Some(place) = self.places.get(&key)
                && let Some(count) = self.changes.get_mut(*place as usize)
            {
                *count = count.wrapping_add(1);
            }
        }
    }

    pub(crate) fn everything_changed(&mut self) {
        self.all = self.all.wrapping_add(1);
    }
}
