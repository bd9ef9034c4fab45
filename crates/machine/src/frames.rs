//! Who owns which frame: the page allocator, and the frames that hold page tables.
//!
//! Deterministic: pages come from the bottom of memory upwards, blocks that were freed are handed
//! out again last in, first out; tables come from the top downwards, and their own freed frames
//! first. A request that no freed block serves takes fresh memory; when that is used up, freed
//! neighbours are merged and searched again. Not modelled: zones, nodes, per-CPU lists.

use std::collections::BTreeMap;

use textbed_arch::{CpuId, FRAME_SHIFT, Pfn, PhysAddr};

use crate::{CpuMask, MachineError};

/// A block of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Block {
    start: u64,
    count: u64,
    /// Who gave parts of it back.
    by: CpuMask,
}

impl Block {
    fn end(self) -> u64 {
        self.start + self.count
    }

    /// The first aligned place in it for `count` frames.
    fn place(self, count: u64, align: u64) -> Option<u64> {
        let start = self.start.checked_next_multiple_of(align)?;
        (start.checked_add(count)? <= self.end()).then_some(start)
    }
}

/// The state of all frames.
#[derive(Clone)]
pub(crate) struct Frames {
    /// Frames below this were handed out at least once, or lie in `freed`.
    bottom: u64,
    /// Frames from this on are tables', or lie in `freed_tables`.
    top: u64,
    /// Allocated blocks: start to count; neighbours may be merged.
    allocated: BTreeMap<u64, u64>,
    /// Freed blocks, the last one freed last.
    freed: Vec<Block>,
    freed_tables: Vec<Block>,
    /// Tables that nothing points to any more, with who unlinked them, their levels and frames; not
    /// free yet.
    unlinked: Vec<(CpuId, PhysAddr, u8, u64)>,
}

impl Frames {
    /// So many frames, all free.
    pub(crate) fn new(frames: u64) -> Self {
        Self {
            bottom: 0,
            top: frames,
            allocated: BTreeMap::new(),
            freed: Vec::new(),
            freed_tables: Vec::new(),
            unlinked: Vec::new(),
        }
    }

    /// A block of `count` frames aligned to `1 << align_shift` bytes, and who had it before.
    pub(crate) fn alloc(
        &mut self,
        count: u64,
        align_shift: u32,
    ) -> Result<(Pfn, CpuMask), MachineError> {
        let bad = MachineError::BadBlock { frames: count, align_shift };
        if count == 0 || align_shift >= 63 {
            return Err(bad);
        }
        let align = 1u64 << align_shift.saturating_sub(FRAME_SHIFT);
        let found = match take(&mut self.freed, count, align) {
            Some(taken) => Some(taken),
            None => match self.fresh(count, align) {
                Some(start) => Some((start, CpuMask::EMPTY)),
                None => {
                    merge(&mut self.freed);
                    take(&mut self.freed, count, align)
                }
            },
        };
        let (start, by) = found.ok_or(MachineError::OutOfMemory { frames: count, align_shift })?;
        self.own(start, count);
        Ok((Pfn(start), by))
    }

    /// Takes exactly these frames, which must be free.
    pub(crate) fn claim(&mut self, pfn: Pfn, count: u64) -> Result<(), MachineError> {
        let error = MachineError::FrameState { pfn, frames: count, expected: "free" };
        let end = match pfn.0.checked_add(count) {
            Some(end) if count > 0 && end <= self.top => end,
            _ => return Err(error),
        };
        if end > self.bottom {
            // What lies between stays free, to be handed out later.
            let (start, count) = (self.bottom, end - self.bottom);
            self.freed.insert(0, Block { start, count, by: CpuMask::EMPTY });
            self.bottom = end;
        }
        merge(&mut self.freed);
        let Some(at) = self.freed.iter().position(|b| b.start <= pfn.0 && end <= b.end()) else {
            return Err(error);
        };
        cut(&mut self.freed, at, pfn.0, count);
        self.own(pfn.0, count);
        Ok(())
    }

    /// Takes back frames from a CPU, all of which must be allocated.
    pub(crate) fn free(&mut self, by: CpuId, pfn: Pfn, count: u64) -> Result<(), MachineError> {
        let error = MachineError::FrameState { pfn, frames: count, expected: "allocated" };
        let Some(end) = pfn.0.checked_add(count).filter(|_| count > 0) else { return Err(error) };
        match self.allocated.range(..=pfn.0).next_back().map(|(s, n)| (*s, *n)) {
            Some((start, n)) if start + n >= end => {
                self.allocated.remove(&start);
                if start < pfn.0 {
                    self.allocated.insert(start, pfn.0 - start);
                }
                if end < start + n {
                    self.allocated.insert(end, start + n - end);
                }
            }
            _ => return Err(error),
        }
        self.freed.push(Block { start: pfn.0, count, by: CpuMask::one(by) });
        Ok(())
    }

    /// Whether a frame is handed out.
    pub(crate) fn is_allocated(&self, pfn: Pfn) -> bool {
        self.allocated.range(..=pfn.0).next_back().is_some_and(|(s, n)| pfn.0 < s + n)
    }

    /// Whether a frame is, or was, a page table's.
    pub(crate) fn is_table(&self, pfn: Pfn) -> bool {
        pfn.0 >= self.top
    }

    /// Frames for a table, aligned to its size.
    pub(crate) fn alloc_table(&mut self, count: u64) -> Option<Pfn> {
        let align = count.checked_next_power_of_two()?;
        if let Some((start, _)) = take(&mut self.freed_tables, count, align) {
            return Some(Pfn(start));
        }
        let start = self.top.checked_sub(count)? / align * align;
        if start < self.bottom {
            return None;
        }
        let spare = self.top - start - count;
        if spare > 0 {
            self.freed_tables.push(Block {
                start: start + count,
                count: spare,
                by: CpuMask::EMPTY,
            });
        }
        self.top = start;
        Some(Pfn(start))
    }

    /// Nothing points to a table any more.
    pub(crate) fn unlink_table(&mut self, by: CpuId, phys: PhysAddr, level: u8, frames: u64) {
        self.unlinked.push((by, phys, level, frames));
    }

    /// How many such tables wait to be taken back.
    pub(crate) fn unlinked_tables(&self) -> usize {
        self.unlinked.len()
    }

    /// Those that a CPU unlinked, which are the caller's to take back.
    pub(crate) fn take_unlinked(&mut self, by: CpuId) -> Vec<(PhysAddr, u8, u64)> {
        let of = self.unlinked.extract_if(.., |(cpu, ..)| *cpu == by);
        of.map(|(_, phys, level, frames)| (phys, level, frames)).collect()
    }

    /// Takes back a table's frames.
    pub(crate) fn free_table(&mut self, pfn: Pfn, count: u64) {
        self.freed_tables.push(Block { start: pfn.0, count, by: CpuMask::EMPTY });
    }

    fn fresh(&mut self, count: u64, align: u64) -> Option<u64> {
        let all = Block { start: self.bottom, count: self.top - self.bottom, by: CpuMask::EMPTY };
        let start = all.place(count, align)?;
        if start > self.bottom {
            let skipped =
                Block { start: self.bottom, count: start - self.bottom, by: CpuMask::EMPTY };
            self.freed.insert(0, skipped);
        }
        self.bottom = start + count;
        Some(start)
    }

    /// Notes an allocation, merged with the neighbour below.
    fn own(&mut self, start: u64, count: u64) {
        if let Some((_, n)) =
            self.allocated.range_mut(..start).next_back().filter(|(s, n)| **s + **n == start)
        {
            *n += count;
        } else {
            self.allocated.insert(start, count);
        }
        let (mut first, mut n) = (start, count);
        if let Some((s, m)) = self.allocated.range(..=start).next_back() {
            (first, n) = (*s, *m);
        }
        if let Some(after) = self.allocated.remove(&(first + n)) {
            self.allocated.insert(first, n + after);
        }
    }
}

/// Takes the last freed block that has room; who gave it back.
fn take(blocks: &mut Vec<Block>, count: u64, align: u64) -> Option<(u64, CpuMask)> {
    let at = blocks.iter().rposition(|b| b.place(count, align).is_some())?;
    let block = blocks.get(at)?;
    let (start, by) = (block.place(count, align)?, block.by);
    cut(blocks, at, start, count);
    Some((start, by))
}

/// Removes a range from the block at `at`, whose rest keeps its place in the order.
fn cut(blocks: &mut Vec<Block>, at: usize, start: u64, count: u64) {
    let block = blocks.remove(at);
    let end = start + count;
    if end < block.end() {
        blocks.insert(at, Block { start: end, count: block.end() - end, ..block });
    }
    if block.start < start {
        blocks.insert(at, Block { count: start - block.start, ..block });
    }
}

/// Joins neighbours; the order of freeing is lost.
fn merge(blocks: &mut Vec<Block>) {
    blocks.sort_by_key(|b| std::cmp::Reverse(b.start));
    let mut out: Vec<Block> = Vec::with_capacity(blocks.len());
    for block in blocks.drain(..) {
        match out.last_mut() {
            Some(last) if block.end() == last.start => {
                let by = last.by.iter().fold(block.by, CpuMask::with);
                *last = Block { start: block.start, count: block.count + last.count, by };
            }
            _ => out.push(block),
        }
    }
    *blocks = out;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const P0: CpuId = CpuId(0);

    fn alloc(f: &mut Frames, count: u64, align_shift: u32) -> Result<Pfn, MachineError> {
        f.alloc(count, align_shift).map(|(pfn, _)| pfn)
    }

    #[test]
    fn freed_frames_come_back_last_in_first_out() {
        let mut f = Frames::new(100);
        let a = alloc(&mut f, 1, 12).unwrap();
        let b = alloc(&mut f, 1, 12).unwrap();
        let c = alloc(&mut f, 1, 12).unwrap();
        f.free(P0, a, 1).unwrap();
        f.free(P0, c, 1).unwrap();
        f.free(P0, b, 1).unwrap();
        assert_eq!(
            [alloc(&mut f, 1, 12), alloc(&mut f, 1, 12), alloc(&mut f, 1, 12)],
            [Ok(b), Ok(c), Ok(a)]
        );
        assert!(f.free(P0, Pfn(50), 1).is_err());
        f.free(P0, a, 3).unwrap();
        assert!(f.free(P0, b, 1).is_err(), "double free");
    }

    #[test]
    fn who_had_frames_before_is_known() {
        let mut f = Frames::new(4);
        let [(a, fresh), (b, _)] = [f.alloc(2, 12).unwrap(), f.alloc(2, 12).unwrap()];
        assert_eq!(fresh, CpuMask::EMPTY);
        f.free(P0, a, 2).unwrap();
        assert_eq!(f.alloc(1, 12), Ok((a, CpuMask::one(P0))));
        assert_eq!(f.alloc(1, 12), Ok((Pfn(a.0 + 1), CpuMask::one(P0))));
        f.free(P0, a, 2).unwrap();
        f.free(CpuId(1), b, 2).unwrap();
        assert_eq!(f.alloc(4, 12), Ok((a, CpuMask::first(2))));
    }

    #[test]
    fn claims_and_tables_keep_apart() {
        let mut f = Frames::new(64);
        f.claim(Pfn(16), 16).unwrap();
        assert!(f.claim(Pfn(20), 1).is_err());
        let t = f.alloc_table(16).unwrap();
        assert_eq!(t, Pfn(48));
        assert_eq!(f.alloc_table(1), Some(Pfn(47)));
        assert_eq!(alloc(&mut f, 16, 12), Ok(Pfn(0)));
        assert_eq!(alloc(&mut f, 15, 12), Ok(Pfn(32)));
        assert!(alloc(&mut f, 1, 12).is_err());
        f.free_table(t, 16);
        assert!(alloc(&mut f, 1, 12).is_err(), "a table's frames stay with the tables");
        assert_eq!(f.alloc_table(1), Some(Pfn(48)));
        assert!(f.is_table(Pfn(47)) && !f.is_table(Pfn(46)));
    }

    #[test]
    fn pages_and_tables_do_not_meet() {
        let mut f = Frames::new(8);
        alloc(&mut f, 6, 12).unwrap();
        assert_eq!((f.alloc_table(1), f.alloc_table(2)), (Some(Pfn(7)), None));
        assert_eq!((f.alloc_table(1), f.alloc_table(1)), (Some(Pfn(6)), None));
        assert!(alloc(&mut f, 1, 12).is_err());
    }

    #[test]
    fn fragments_are_merged_before_giving_up() {
        let mut f = Frames::new(16);
        for _ in 0..16 {
            alloc(&mut f, 1, 12).unwrap();
        }
        for n in [3, 1, 0, 2, 7, 5, 6, 4] {
            f.free(P0, Pfn(n), 1).unwrap();
        }
        assert_eq!(alloc(&mut f, 4, 14), Ok(Pfn(0)));
        assert_eq!(alloc(&mut f, 4, 14), Ok(Pfn(4)));
    }

    proptest! {
        #[test]
        fn no_frame_is_handed_out_twice(
            steps in prop::collection::vec((0u8..3, 1u64..20, 12u32..16), 1..120)
        ) {
            let mut f = Frames::new(256);
            let mut owned: BTreeSet<u64> = BTreeSet::new();
            let mut blocks = Vec::new();
            for (what, count, align) in steps {
                if what < 2 {
                    if let Ok(pfn) = alloc(&mut f, count, align) {
                        prop_assert_eq!(pfn.addr().0 % (1 << align), 0);
                        for n in pfn.0..pfn.0 + count {
                            prop_assert!(n < 256 && owned.insert(n));
                        }
                        blocks.push((pfn, count));
                    }
                } else if let Some((pfn, count)) = blocks.pop() {
                    prop_assert_eq!(f.free(P0, pfn, count), Ok(()));
                    prop_assert!(f.free(P0, pfn, 1).is_err());
                    for n in pfn.0..pfn.0 + count {
                        owned.remove(&n);
                    }
                }
                for n in 0..256 {
                    prop_assert_eq!(f.is_allocated(Pfn(n)), owned.contains(&n));
                }
            }
        }
    }
}
