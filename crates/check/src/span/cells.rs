//! Values of cells: spans of one size, aligned to it, found by a hash of their number.
//!
//! Page tables and stores consist of such spans for the most part (a page, a word). Values stand in
//! the order in which they came; a look-up touches two places, one of the index
//! ([`crate::hashed`]) and that of the value, and a new value moves no other. Which cells of each
//! region there are is brought up to date by the first walk over more than a few of them, so that
//! it looks for none in vain.

use std::cell::RefCell;
use std::collections::BTreeSet;

use prefetch_index::prefetch_index;
use rustc_hash::FxHashMap;

use crate::hashed::{Hashed, NONE};

/// Cells of a region, as a power of two.
const REGION: u32 = 9;
/// Cells of a range that are looked for one by one.
const FEW: u64 = 16;
/// Where the value of a cell is, or where in the index it is to be noted: until the next one comes
/// or goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Spot {
    There(u32),
    Free(usize),
}

/// Values by number of cell.
#[derive(Clone, Debug)]
pub(super) struct Cells<V> {
    /// Places of values.
    index: Hashed,
    values: Vec<(u64, V)>,
    regions: RefCell<Regions>,
}

/// Which cells there are, for walks over ranges.
#[derive(Clone, Default, Debug)]
struct Regions {
    /// Of so many values it is known, those that came first.
    known: usize,
    /// Which cells of each region there are, by the number of the region.
    cells: FxHashMap<u64, [u64; 8]>,
    /// Which regions of each 64 there are, by the number of the first over 64.
    groups: FxHashMap<u64, u64>,
    /// The numbers of the groups, in order.
    order: BTreeSet<u64>,
}

impl<V> Default for Cells<V> {
    fn default() -> Self {
        Self { index: Hashed::default(), values: Vec::new(), regions: RefCell::default() }
    }
}

impl Regions {
    /// Learns of the values that came since.
    fn catch_up<V>(&mut self, values: &[(u64, V)]) {
        for (cell, _) in values.get(self.known..).unwrap_or(&[]) {
            self.add(*cell);
        }
        self.known = values.len();
    }

    fn add(&mut self, cell: u64) {
        let (groups, order) = (&mut self.groups, &mut self.order);
        let number = cell >> REGION;
        let region = self.cells.entry(number).or_insert_with(|| {
            let group = groups.entry(number >> 6).or_insert_with(|| {
                order.insert(number >> 6);
                0
            });
            *group |= 1 << (number & 63);
            [0; 8]
        });
        region[(cell >> 6 & 7) as usize] |= 1 << (cell & 63);
    }

    fn remove(&mut self, cell: u64) {
        let number = cell >> REGION;
        let Some(region) = self.cells.get_mut(&number) else { return };
        region[(cell >> 6 & 7) as usize] &= !(1 << (cell & 63));
        if *region != [0; 8] {
            return;
        }
        self.cells.remove(&number);
        if let Some(group) = self.groups.get_mut(&(number >> 6)) {
            *group &= !(1 << (number & 63));
            if *group == 0 {
                self.groups.remove(&(number >> 6));
                self.order.remove(&(number >> 6));
            }
        }
    }

    /// The first cell from `cell` on, up to `last`.
    fn next(&self, cell: u64, last: u64) -> Option<u64> {
        let (mut from, end) = (cell, last >> REGION);
        loop {
            if let Some(at) = self.cells.get(&(from >> REGION)).and_then(|r| first_in(r, from)) {
                return (at <= last).then_some(at);
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
}

/// The first cell of its region from `from` on.
fn first_in(region: &[u64; 8], from: u64) -> Option<u64> {
    let base = from & !63;
    let later = region[(from >> 6 & 7) as usize] & (u64::MAX << (from & 63));
    if later != 0 {
        return Some(base | u64::from(later.trailing_zeros()));
    }
    let next = (from >> 6 & 7) as usize + 1;
    let word = (next..8).find(|word| region[*word] != 0)?;
    let first = from >> REGION << REGION;
    Some(first | (word as u64) << 6 | u64::from(region[word].trailing_zeros()))
}

impl<V> Cells<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Where in the index a cell is, with its place; else where it is to be noted.
    #[inline]
    fn find(&self, cell: u64) -> Result<(usize, u32), usize> {
        let is = |place: u32| self.values.get(place as usize).is_some_and(|(c, _)| *c == cell);
        self.index.find(cell, is)
    }

    #[inline]
    pub(super) fn get(&self, cell: u64) -> Option<&V> {
        let (_, place) = self.find(cell).ok()?;
        self.at_place(place)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, cell: u64) -> Option<&mut V> {
        let (_, place) = self.find(cell).ok()?;
        self.at_place_mut(place)
    }

    /// Prefetches where in the index the cell is looked for first.
    #[inline]
    pub(super) fn prefetch(&self, cell: u64) {
        self.index.prefetch(cell);
    }

    /// The value in that place, whatever cell it is of.
    #[inline]
    pub(super) fn at_place(&self, place: u32) -> Option<&V> {
        self.values.get(place as usize).map(|(_, value)| value)
    }

    #[inline]
    pub(super) fn at_place_mut(&mut self, place: u32) -> Option<&mut V> {
        self.values.get_mut(place as usize).map(|(_, value)| value)
    }

    /// The place where the value of the cell may be, [`NONE`] where none is noted of it where
    /// it is looked for first; the value there is prefetched.
    #[inline]
    pub(super) fn near(&self, cell: u64) -> u32 {
        let place = self.index.near(cell);
        if place != NONE {
            // A value may lie in two cache lines: the second is that in which the next one begins.
            prefetch_index(&self.values, place as usize);
            prefetch_index(&self.values, place as usize + 1);
        }
        place
    }

    /// Every value, in no order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.iter().map(|(_, value)| value)
    }

    /// Puts a value there, or changes the one that is there: `f` does that, or gives the value if
    /// there is none.
    #[inline]
    pub(super) fn put(&mut self, cell: u64, f: impl FnOnce(Option<&mut V>) -> Option<V>) {
        match self.spot(NONE, cell) {
            Spot::There(place) => {
                if let Some(there) = self.at_place_mut(place) {
                    f(Some(there));
                }
            }
            free => {
                if let Some(value) = f(None) {
                    self.fill(free, cell, value);
                }
            }
        }
    }

    /// Where the value of the cell is, perhaps at `place`, or is to be noted.
    #[inline]
    pub(super) fn spot(&mut self, place: u32, cell: u64) -> Spot {
        if self.values.get(place as usize).is_some_and(|(there, _)| *there == cell) {
            return Spot::There(place);
        }
        if !self.index.has_room(self.values.len() + 1) {
            self.index.grow(self.values.iter().map(|(cell, _)| *cell));
        }
        self.find(cell).map_or_else(Spot::Free, |(_, place)| Spot::There(place))
    }

    /// Puts in the value of a cell that has none, and whose spot that is.
    #[inline]
    pub(super) fn fill(&mut self, spot: Spot, cell: u64, value: V) {
        if let Spot::Free(at) = spot {
            self.index.note_at(at, cell, self.values.len() as u32);
            self.values.push((cell, value));
        }
    }

    /// Takes the value of a cell out; the youngest one takes its place.
    pub(super) fn remove(&mut self, cell: u64) -> Option<V> {
        let (at, place) = self.find(cell).ok()?;
        let cell_of = |place: u32| Some(self.values.get(place as usize)?.0);
        self.index.forget(at, cell_of);
        let regions = self.regions.get_mut();
        regions.catch_up(&self.values);
        regions.remove(cell);
        regions.known -= 1;
        let (_, value) = self.values.swap_remove(place as usize);
        if let Some((moved, _)) = self.values.get(place as usize) {
            self.index.renumber(*moved, self.values.len() as u32, place);
        }
        Some(value)
    }

    /// The first cell with a value from `cell` on, up to `last`.
    fn next(&self, cell: u64, last: u64) -> Option<(u64, &V)> {
        if self.is_empty() || cell > last {
            return None;
        }
        if last - cell < FEW {
            return (cell..=last).find_map(|cell| Some((cell, self.get(cell)?)));
        }
        let mut regions = self.regions.borrow_mut();
        regions.catch_up(&self.values);
        let at = regions.next(cell, last)?;
        Some((at, self.get(at)?))
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
        let at = prop::sample::select(&[0u64, 1, 63, 64, 130, 511, 512][..]);
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
                    let there = matches!(cells.spot(other as u32, cell), Spot::There(_));
                    prop_assert_eq!(there, tree.contains_key(&cell), "wherever it is said to be");
                    cells.put(cell, |there| match there {
                        Some(there) => {
                            *there ^= value;
                            None
                        }
                        None => Some(value),
                    });
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
