//! What was already looked at: a block that ran and was judged is not judged again until something
//! about it changes: bytes of its frame, the frame's owner, or the mapping of its page.
//!
//! Most events of a stream are fetches of blocks that are known, so this is kept small: by CPU and
//! frame, the blocks in order of their place in the frame.

use rustc_hash::FxHashMap;
use textbed_arch::CpuId;

use crate::per_cpu::PerCpu;
use crate::span::Span;

/// One block that a CPU executed.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// The event of its last execution.
    last: u64,
    len: u32,
    /// Place in [`Looks::changes`] of the page through which it was fetched, and the count there
    /// when it was judged.
    page: u32,
    page_count: u32,
    /// Where in its frame it begins.
    offset: u16,
    /// Judged since the frame changed.
    judged: bool,
    /// Nothing was found, and nothing that the CPU may learn changes that.
    clean: bool,
}

/// The blocks of one frame that one CPU executed.
#[derive(Clone, Debug)]
struct Ran {
    /// Place of the frame in [`Looks::changes`].
    frame: u32,
    /// The count there, and everybody's, since which blocks were judged.
    count: u32,
    all: u32,
    /// In order of their offsets.
    blocks: Vec<Block>,
}

/// Blocks kept; past it all are forgotten and judged again.
const MAX_LOOKS: usize = 1 << 20;
/// Pages of a store that are counted one by one; a longer one changes everything.
const MAX_PAGES: u64 = 16;

/// The blocks by CPU and frame, and what became of the frames and pages in which they lie.
#[derive(Default, Debug)]
pub(crate) struct Looks {
    ran: PerCpu<FxHashMap<u64, Ran>>,
    blocks: usize,
    /// For blocks that are not clean the CPU's fetch view when they were judged, and what it had
    /// learnt from others then, as a count: with more of either the verdict may be another.
    unclean: FxHashMap<(CpuId, u64), (u64, u32)>,
    /// The frames and virtual pages of blocks, by key, with their place in `changes`.
    places: FxHashMap<u64, u32>,
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
    pub(crate) fn known(&mut self, cpu: CpuId, phys: u64, len: u32, moment: u64, now: u64) -> bool {
        let Some(ran) = self.ran.get_mut(cpu).and_then(|r| r.get_mut(&frame_key(phys))) else {
            return false;
        };
        if ran.all != self.all || self.changes.get(ran.frame as usize) != Some(&ran.count) {
            return false;
        }
        let at = ran.blocks.binary_search_by_key(&offset_of(phys), |b| b.offset);
        let Some(block) = at.ok().and_then(|at| ran.blocks.get_mut(at)) else { return false };
        let learnt = || self.learnt.get(cpu).copied().unwrap_or(0);
        let known = block.judged
            && block.len >= len
            && self.changes.get(block.page as usize) == Some(&block.page_count)
            && (block.clean || self.unclean.get(&(cpu, phys)) == Some(&(moment, learnt())));
        if known {
            block.last = now;
        }
        known
    }

    /// A block that was looked at ran again at `now`, which may lie back; whether it is known.
    pub(crate) fn ran_late(&mut self, cpu: CpuId, phys: u64, len: u32, now: u64) -> bool {
        let ran = self.ran.get_mut(cpu).and_then(|r| r.get_mut(&frame_key(phys)));
        let Some(ran) = ran else { return false };
        let at = ran.blocks.binary_search_by_key(&offset_of(phys), |b| b.offset);
        let Some(block) = at.ok().and_then(|at| ran.blocks.get_mut(at)) else { return false };
        block.last = block.last.max(now);
        block.len >= len
    }

    /// The place of a frame or page in `changes`, from now on followed.
    fn place(&mut self, key: u64) -> u32 {
        let next = self.changes.len() as u32;
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.changes.push(0);
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
        let (count, page_count, all) = (self.count(frame), self.count(page), self.all);
        let fresh = || Ran { frame, count, all, blocks: Vec::new() };
        let ran = self.ran.of(cpu).entry(frame_key(phys)).or_insert_with(fresh);
        if (ran.count, ran.all) != (count, all) {
            (ran.count, ran.all) = (count, all);
            ran.blocks.iter_mut().for_each(|b| b.judged = false);
        }
        let offset = offset_of(phys);
        let block = Block { last: now, len, page, page_count, offset, judged: true, clean };
        match ran.blocks.binary_search_by_key(&offset, |b| b.offset) {
            Ok(at) => ran.blocks[at] = block,
            Err(at) => {
                ran.blocks.insert(at, block);
                self.blocks += 1;
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
        // A block never crosses a page, and `span` is a part of one.
        let frame = frame_key(span.first);
        let meets = |block: &Block| {
            (after..before).contains(&block.last)
                && Span::of(frame << 12 | u64::from(block.offset), u64::from(block.len))
                    .is_some_and(|s| s.meet(span).is_some())
        };
        let ran = self.ran.get(cpu).and_then(|r| r.get(&frame));
        ran.is_some_and(|ran| ran.blocks.iter().any(meets))
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
            if let Some(place) = self.places.get(&key(page << 12))
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
