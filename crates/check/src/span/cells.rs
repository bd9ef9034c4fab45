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
    /// Which regions of each 64 there are, by the number of the first over 64.
    groups: FxHashMap<u64, u64>,
    /// The numbers of the groups, in order.
    order: BTreeSet<u64>,
    len: usize,
}

impl<V> Default for Cells<V> {
    fn default() -> Self {
        let (regions, groups) = (FxHashMap::default(), FxHashMap::default());
        Self { regions, groups, order: BTreeSet::new(), len: 0 }
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
        let (groups, order) = (&mut self.groups, &mut self.order);
        let number = cell >> REGION;
        let region = self.regions.entry(number).or_insert_with(|| {
            let group = groups.entry(number >> 6).or_insert_with(|| {
                order.insert(number >> 6);
                0
            });
            *group |= 1 << (number & 63);
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
            let number = cell >> REGION;
            self.regions.remove(&number);
            if let Some(group) = self.groups.get_mut(&(number >> 6)) {
                *group &= !(1 << (number & 63));
                if *group == 0 {
                    self.groups.remove(&(number >> 6));
                    self.order.remove(&(number >> 6));
                }
            }
        }
        self.len -= 1;
        Some(value)
    }

    /// Every value, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.regions.values().flat_map(|region| &region.values)
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
                false => self.next_region(next).filter(|next| *next <= end)?,
            };
            from = next << REGION;
        }
    }

    /// The first region from `number` on.
    fn next_region(&self, number: u64) -> Option<u64> {
        let first = |group: u64, from: u64| {
            let later = self.groups.get(&group)? & (u64::MAX << from);
            (later != 0).then(|| group << 6 | u64::from(later.trailing_zeros()))
        };
        first(number >> 6, number & 63).or_else(|| {
            let group = self.order.range((number >> 6) + 1..).next()?;
            first(*group, 0)
        })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Cells near to each other, in neighbouring regions, and in regions far away.
    fn cell() -> impl Strategy<Value = u64> {
        let at = prop::sample::select(&[0u64, 1, 63, 64][..]);
        (0u64..3, 0u64..3, at).prop_map(|(far, near, at)| far << 30 | near << 11 | at)
    }

    proptest! {
        #[test]
        fn agrees_with_a_tree(ops in prop::collection::vec((cell(), cell(), any::<u8>()), 1..80)) {
            let (mut cells, mut tree) = (Cells::default(), BTreeMap::new());
            for (cell, other, value) in ops {
                if value < 100 {
                    prop_assert_eq!(cells.remove(cell), tree.remove(&cell));
                } else {
                    cells.put(cell, |there| there.map_or(value, |there| there ^ value));
                    tree.entry(cell).and_modify(|there| *there ^= value).or_insert(value);
                }
                prop_assert_eq!(cells.get(other), tree.get(&other));
                prop_assert_eq!((cells.len(), cells.is_empty()), (tree.len(), tree.is_empty()));
                let (first, last) = (cell.min(other), cell.max(other));
                let range: Vec<(u64, u8)> = cells.range(first, last).map(|(c, v)| (c, *v)).collect();
                let there: Vec<(u64, u8)> =
                    tree.range(first..=last).map(|(c, v)| (*c, *v)).collect();
                prop_assert_eq!(range, there);
            }
        }
    }
}
