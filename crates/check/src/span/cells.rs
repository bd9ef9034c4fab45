//! Values of cells: spans of one size, aligned to it, found by a hash of the region that they lie
//! in and the number of cells before them there.
//!
//! Page tables and stores consist of such spans for the most part (a page, a word). A region is 64
//! cells; its values stand in the order in which they came, with the place of each beside, so that
//! a look-up touches two places, a walk none in vain, and a new value moves no other.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

/// Cells of a region, as a power of two.
const REGION: u32 = 6;

/// The cells of one region that have a value.
#[derive(Clone, Debug)]
struct Region<V> {
    bits: u64,
    /// The place of each cell's value.
    places: [u8; 64],
    values: Vec<V>,
}

impl<V> Default for Region<V> {
    fn default() -> Self {
        Self { bits: 0, places: [0; 64], values: Vec::new() }
    }
}

impl<V> Region<V> {
    /// The place of the value of a cell, if it has one.
    fn place(&self, cell: u64) -> Option<usize> {
        let at = cell & 63;
        (self.bits & 1 << at != 0).then(|| usize::from(self.places[at as usize]))
    }

    fn add(&mut self, cell: u64, value: V) {
        self.bits |= 1 << (cell & 63);
        self.places[(cell & 63) as usize] = self.values.len() as u8;
        self.values.push(value);
    }

    /// Takes the value of a cell out; the youngest one takes its place.
    fn take(&mut self, cell: u64) -> Option<V> {
        let place = self.place(cell)?;
        self.bits &= !(1 << (cell & 63));
        let last = self.values.len() - 1;
        let moved = |at: &usize| self.bits & 1 << at != 0 && usize::from(self.places[*at]) == last;
        if let Some(at) = (0..64).find(moved) {
            self.places[at] = place as u8;
        }
        Some(self.values.swap_remove(place))
    }

    /// The first cell from `cell` on that has a value, with its place.
    fn next(&self, cell: u64) -> Option<(u64, usize)> {
        let later = self.bits & (u64::MAX << (cell & 63));
        let at = u64::from(later.trailing_zeros());
        (later != 0).then(|| (cell & !63 | at, usize::from(self.places[at as usize])))
    }
}

/// Values by number of cell.
#[derive(Clone, Debug)]
pub(super) struct Cells<V> {
    regions: FxHashMap<u64, Region<V>>,
    /// The numbers of the regions, in order.
    order: BTreeSet<u64>,
    len: usize,
}

impl<V> Default for Cells<V> {
    fn default() -> Self {
        Self { regions: FxHashMap::default(), order: BTreeSet::new(), len: 0 }
    }
}

impl<V> Cells<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, cell: u64) -> Option<&V> {
        if self.len == 0 {
            return None;
        }
        let region = self.regions.get(&(cell >> REGION))?;
        region.values.get(region.place(cell)?)
    }

    pub(super) fn get_mut(&mut self, cell: u64) -> Option<&mut V> {
        if self.len == 0 {
            return None;
        }
        let region = self.regions.get_mut(&(cell >> REGION))?;
        let place = region.place(cell)?;
        region.values.get_mut(place)
    }

    /// Puts a value there, made of what was there.
    pub(super) fn put(&mut self, cell: u64, value: impl FnOnce(Option<&V>) -> V) {
        let order = &mut self.order;
        let region = self.regions.entry(cell >> REGION).or_insert_with(|| {
            order.insert(cell >> REGION);
            Region::default()
        });
        match region.place(cell).and_then(|place| region.values.get_mut(place)) {
            Some(there) => *there = value(Some(there)),
            None => {
                region.add(cell, value(None));
                self.len += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, cell: u64) -> Option<V> {
        if self.len == 0 {
            return None;
        }
        let region = self.regions.get_mut(&(cell >> REGION))?;
        let value = region.take(cell)?;
        if region.bits == 0 {
            self.regions.remove(&(cell >> REGION));
            self.order.remove(&(cell >> REGION));
        }
        self.len -= 1;
        Some(value)
    }

    /// The first cell with a value from `cell` on, up to `last`.
    fn next(&self, cell: u64, last: u64) -> Option<(u64, &V)> {
        if self.len == 0 || cell > last {
            return None;
        }
        let (mut from, end) = (cell, last >> REGION);
        loop {
            if let Some(region) = self.regions.get(&(from >> REGION))
                && let Some((at, place)) = region.next(from)
            {
                return (at <= last).then(|| Some((at, region.values.get(place)?)))?;
            }
            let next = (from >> REGION) + 1;
            if next > end {
                return None;
            }
            // The next one is looked for only where it is not the one beside.
            let next = match next == end {
                true => next,
                false => *self.order.range(next..=end).next()?,
            };
            from = next << REGION;
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
