//! What was already looked at: a block that ran and was judged is not judged again until something
//! about it changes: bytes of its frame, the frame's owner, or the mapping of its page.

use rustc_hash::FxHashMap;
use textbed_arch::CpuId;

use crate::per_cpu::PerCpu;
use crate::span::Span;

/// One block that a CPU executed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    len: u32,
    /// Places in [`Looks::changes`] of its frame and of the page through which it was fetched.
    places: [u32; 2],
    /// Their counts of changes, and everybody's, when it was judged.
    counts: [u32; 2],
    all: u32,
    /// The CPU's fetch view then; a later one can only be better.
    moment: u64,
    /// What the CPU had learnt from others then, as a count; matters unless it is clean.
    learnt: u32,
    /// Nothing was found, and nothing that it may learn changes that.
    clean: bool,
    /// The event of its last execution.
    pub(crate) last: u64,
}

/// Blocks kept; past it all are forgotten and judged again.
const MAX_LOOKS: usize = 1 << 20;
/// Pages of a store that are counted one by one; a longer one changes everything.
const MAX_PAGES: u64 = 16;

/// The blocks by CPU and physical address, and the frames in which they lie.
#[derive(Default, Debug)]
pub(crate) struct Looks {
    looks: FxHashMap<(CpuId, u64), Look>,
    /// Where the blocks of a frame begin, by CPU.
    by_frame: FxHashMap<(CpuId, u64), Vec<u64>>,
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

impl Looks {
    /// Whether this block was judged and nothing changed since; if so, notes that it ran at `now`.
    pub(crate) fn known(&mut self, cpu: CpuId, phys: u64, len: u32, moment: u64, now: u64) -> bool {
        let Some(look) = self.looks.get_mut(&(cpu, phys)) else { return false };
        let counts = look.places.map(|at| self.changes.get(at as usize).copied().unwrap_or(0));
        let learnt = self.learnt.get(cpu).copied().unwrap_or(0);
        let same = |look: &Look| look.moment == moment && look.learnt == learnt;
        let known = look.len >= len
            && look.counts == counts
            && look.all == self.all
            && (look.clean || same(look));
        if known {
            look.last = now;
        }
        known
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
        if self.looks.len() >= MAX_LOOKS {
            self.looks.clear();
            self.by_frame.clear();
            self.places.clear();
            self.changes.clear();
        }
        let places = [self.place(frame_key(phys)), self.place(page_key(virt))];
        let counts = places.map(|at| self.changes.get(at as usize).copied().unwrap_or(0));
        let learnt = self.learnt.get(cpu).copied().unwrap_or(0);
        let look = Look { len, places, counts, all: self.all, moment, learnt, clean, last: now };
        if self.looks.insert((cpu, phys), look).is_none() {
            self.by_frame.entry((cpu, phys >> 12)).or_default().push(phys);
        }
    }

    /// Whether `cpu` executed a block that meets `span` after event `after` and before `before`.
    /// Only the last execution of each block is known.
    pub(crate) fn executed(&self, cpu: CpuId, span: Span, after: u64, before: u64) -> bool {
        let meets = |phys: &u64| {
            self.looks.get(&(cpu, *phys)).is_some_and(|look| {
                (after..before).contains(&look.last)
                    && Span::of(*phys, u64::from(look.len)).is_some_and(|s| s.meet(span).is_some())
            })
        };
        // A block never crosses a page, and `span` is a part of one.
        let blocks = self.by_frame.get(&(cpu, span.first >> 12));
        blocks.is_some_and(|blocks| blocks.iter().any(meets))
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
