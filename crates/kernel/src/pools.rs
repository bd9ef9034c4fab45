//! Pools of purged addresses: what a node of vmalloc (6.9 on) keeps for areas of the same size.
//!
//! Modelled: a pool for each size up to 256 pages (guard page included), the last one added is the
//! first one taken, a first one of wrong alignment goes to the end, a quarter of each pool decays
//! at every purge. From: Linux 6.12 mm/vmalloc.c node_pool_add_va(), node_pool_del_va(),
//! decay_va_pool_node(). Not modelled: the shrinker that empties pools under memory pressure, the
//! lists and locks of nodes (nobody waits for them here), that nodes purge side by side.

use std::collections::{BTreeMap, VecDeque};

/// Most pages of an area whose addresses are kept (`MAX_VA_SIZE_PAGES`).
const MAX_PAGES: u64 = 256;

/// The pools of all nodes.
#[derive(Clone, Default, Debug)]
pub(crate) struct Pools {
    /// Starts, by node and bytes.
    by_size: BTreeMap<(u16, u64), VecDeque<u64>>,
    /// The same by address: start to end.
    taken: BTreeMap<u64, u64>,
}

impl Pools {
    /// Keeps a range for its node; one that is too large is free again.
    pub(crate) fn add(&mut self, node: u16, start: u64, end: u64, page_bytes: u64) {
        let size = end.saturating_sub(start);
        if size <= MAX_PAGES * page_bytes {
            self.by_size.entry((node, size)).or_default().push_front(start);
            self.taken.insert(start, end);
        }
    }

    /// The first range of a node's pool, if it is aligned.
    pub(crate) fn take(&mut self, node: u16, size: u64, align: u64) -> Option<u64> {
        let pool = self.by_size.get_mut(&(node, size))?;
        let start = pool.pop_front()?;
        if !start.is_multiple_of(align.max(1)) {
            pool.push_back(start);
            return None;
        }
        self.taken.remove(&start);
        Some(start)
    }

    /// End of the last kept range that begins below an address.
    pub(crate) fn last_below(&self, end: u64) -> Option<u64> {
        self.taken.range(..end).next_back().map(|(_, end)| *end)
    }

    /// Frees a quarter of every pool, or all of all.
    pub(crate) fn decay(&mut self, everything: bool) {
        for pool in self.by_size.values_mut() {
            let count = if everything { pool.len() } else { pool.len() / 4 };
            for start in pool.drain(..count) {
                self.taken.remove(&start);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use textbed_arch::FRAME_BYTES;

    use super::*;

    #[test]
    fn the_last_one_added_is_taken_first_and_a_quarter_decays() {
        let mut pools = Pools::default();
        for n in 0..5 {
            pools.add(1, n * 0x4000, n * 0x4000 + 0x3000, FRAME_BYTES);
        }
        pools.add(1, 0x10_0000, 0x10_0000 + MAX_PAGES * FRAME_BYTES + 1, FRAME_BYTES);
        assert_eq!(pools.last_below(u64::MAX), Some(0x1_3000), "too large to be kept");
        assert_eq!(pools.take(0, 0x3000, 1), None);
        assert_eq!(pools.take(1, 0x2000, 1), None);
        assert_eq!(pools.take(1, 0x3000, 1), Some(0x1_0000));
        // 0xc000 is not aligned so, and goes to the end.
        assert_eq!(pools.take(1, 0x3000, 0x8000), None);
        pools.decay(false);
        assert_eq!(pools.take(1, 0x3000, 1), Some(0x4000), "0x8000 went: one of four");
        pools.decay(true);
        assert_eq!((pools.take(1, 0x3000, 1), pools.last_below(u64::MAX)), (None, None));
    }
}
