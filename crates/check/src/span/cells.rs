//! Values of cells: spans of one size, aligned to it, found by a hash of the region that they lie
//! in and the number of cells before them there.
//!
//! Page tables and stores consist of such spans for the most part (a page, a word). A region is
//! 512 cells; its values stand in order, so that a look-up touches three places and a walk none in
//! vain.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

/// Cells of a region, as a power of two.
const REGION: u32 = 9;
/// Values for which an empty region keeps room.
const KEPT: usize = 8;

/// The cells of one region that have a value.
#[derive(Clone, Debug)]
struct Region<V> {
    bits: [u64; 8],
    /// In order of their cells.
    values: Vec<V>,
}

impl<V> Region<V> {
    fn has(&self, at: usize) -> bool {
        self.bits[at >> 6] & (1 << (at & 63)) != 0
    }

    /// Values of cells before `at`.
    fn rank(&self, at: usize) -> usize {
        let whole: u32 = self.bits[..at >> 6].iter().map(|b| b.count_ones()).sum();
        (whole + (self.bits[at >> 6] & ((1 << (at & 63)) - 1)).count_ones()) as usize
    }

    /// The first cell with a value from `at` on.
    fn next(&self, at: usize) -> Option<usize> {
        let first = self.bits[at >> 6] & (u64::MAX << (at & 63));
        if first != 0 {
            return Some((at & !63) + first.trailing_zeros() as usize);
        }
        let more = self.bits.iter().enumerate().skip((at >> 6) + 1);
        more.into_iter().find(|(_, b)| **b != 0).map(|(n, b)| n * 64 + b.trailing_zeros() as usize)
    }
}

/// Values by number of cell.
#[derive(Clone, Debug)]
pub(super) struct Cells<V> {
    /// The place of each region in `regions`.
    index: FxHashMap<u64, u32>,
    /// The numbers of the regions, in order.
    order: BTreeSet<u64>,
    regions: Vec<Region<V>>,
    len: usize,
}

impl<V> Default for Cells<V> {
    fn default() -> Self {
        let (index, order) = (FxHashMap::default(), BTreeSet::new());
        Self { index, order, regions: Vec::new(), len: 0 }
    }
}

fn place(cell: u64) -> usize {
    (cell & ((1 << REGION) - 1)) as usize
}

impl<V> Cells<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn region(&self, cell: u64) -> Option<&Region<V>> {
        if self.len == 0 {
            return None;
        }
        self.regions.get(*self.index.get(&(cell >> REGION))? as usize)
    }

    fn region_mut(&mut self, cell: u64) -> Option<&mut Region<V>> {
        if self.len == 0 {
            return None;
        }
        self.regions.get_mut(*self.index.get(&(cell >> REGION))? as usize)
    }

    pub(super) fn get(&self, cell: u64) -> Option<&V> {
        let region = self.region(cell)?;
        let at = place(cell);
        region.has(at).then(|| region.values.get(region.rank(at)))?
    }

    pub(super) fn get_mut(&mut self, cell: u64) -> Option<&mut V> {
        let region = self.region_mut(cell)?;
        let at = place(cell);
        if !region.has(at) {
            return None;
        }
        let rank = region.rank(at);
        region.values.get_mut(rank)
    }

    /// Puts a value there, replacing what was there.
    pub(super) fn insert(&mut self, cell: u64, value: V) {
        let (index, order, regions) = (&mut self.index, &mut self.order, &mut self.regions);
        let slot = *index.entry(cell >> REGION).or_insert_with(|| {
            order.insert(cell >> REGION);
            regions.push(Region { bits: [0; 8], values: Vec::new() });
            regions.len() as u32 - 1
        });
        let region = &mut regions[slot as usize];
        let (at, rank) = (place(cell), region.rank(place(cell)));
        if region.has(at) {
            region.values[rank] = value;
        } else {
            region.bits[at >> 6] |= 1 << (at & 63);
            region.values.insert(rank, value);
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, cell: u64) -> Option<V> {
        let region = self.region_mut(cell)?;
        let at = place(cell);
        if !region.has(at) {
            return None;
        }
        let value = region.values.remove(region.rank(at));
        region.bits[at >> 6] &= !(1 << (at & 63));
        if region.values.is_empty() {
            region.values.shrink_to(KEPT);
        }
        self.len -= 1;
        Some(value)
    }

    /// The first cell with a value from `cell` on.
    fn next(&self, cell: u64, last: u64) -> Option<(u64, &V)> {
        if self.len == 0 || cell > last {
            return None;
        }
        let found = |region: &'_ Region<V>, from: u64| {
            let at = region.next(place(from))?;
            Some(((from >> REGION) << REGION | at as u64, region.rank(at)))
        };
        let mut from = cell;
        if let Some(region) = self.region(cell)
            && let Some((at, rank)) = found(region, from)
        {
            return (at <= last).then(|| Some((at, region.values.get(rank)?)))?;
        }
        loop {
            let next = (from >> REGION) + 1;
            if next > last >> REGION {
                return None;
            }
            from = *self.order.range(next..=last >> REGION).next()? << REGION;
            if let Some(region) = self.region(from)
                && let Some((at, rank)) = found(region, from)
            {
                return (at <= last).then(|| Some((at, region.values.get(rank)?)))?;
            }
        }
    }

    /// The cells from `first` to `last` that have a value, in order.
    pub(super) fn range(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, &V)> + '_ {
        let mut from = Some(first);
        std::iter::from_fn(move || {
            let (cell, value) = self.next(from?, last)?;
            from = cell.checked_add(1);
            Some((cell, value))
        })
    }
}
