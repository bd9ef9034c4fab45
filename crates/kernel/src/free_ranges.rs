//! Free ranges of addresses, merged with their neighbours: what the trees of text allocators hold.
//!
//! Not modelled: what a node of such a tree costs, which is the caller's to ask for.

use std::collections::BTreeMap;

/// Start to length; no two touch.
#[derive(Clone, Default, Debug)]
pub(crate) struct FreeRanges(BTreeMap<u64, u64>);

impl FreeRanges {
    /// Adds a range that is not in it: start and length of what it became with its neighbours.
    pub(crate) fn add(&mut self, mut start: u64, mut len: u64) -> (u64, u64) {
        if let Some((before, size)) = self.0.range(..start).next_back()
            && before + size == start
        {
            (start, len) = (*before, size + len);
        }
        if let Some(size) = self.0.remove(&(start + len)) {
            len += size;
        }
        self.0.insert(start, len);
        (start, len)
    }

    /// The lowest range with room for `size` bytes at a multiple of `align`, and where.
    pub(crate) fn first_fit(&self, size: u64, align: u64) -> Option<u64> {
        self.0.iter().find_map(|(start, len)| {
            let at = start.checked_next_multiple_of(align)?;
            (at.checked_add(size)? <= start.checked_add(*len)?).then_some(at)
        })
    }

    /// The range that an address lies in.
    pub(crate) fn holding(&self, at: u64) -> Option<(u64, u64)> {
        let (start, len) = self.0.range(..=at).next_back()?;
        (at - start < *len).then_some((*start, *len))
    }

    /// Takes bytes out of the range that they lie in; what is left of it stays.
    pub(crate) fn cut(&mut self, start: u64, len: u64) {
        let Some((at, size)) = self.holding(start) else { return };
        self.0.remove(&at);
        if start > at {
            self.0.insert(at, start - at);
        }
        let rest = (at + size).saturating_sub(start + len);
        if rest > 0 {
            self.0.insert(start + len, rest);
        }
    }

    /// Start and length of each, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(start, len)| (*start, *len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_merge_are_cut_and_the_first_that_fits_is_named() {
        let mut free = FreeRanges::default();
        assert_eq!(free.add(0x1000, 0x1000), (0x1000, 0x1000));
        assert_eq!(free.add(0x3000, 0x1000), (0x3000, 0x1000));
        assert_eq!(free.first_fit(0x1001, 1), None);
        assert_eq!(free.first_fit(0x800, 0x3000), Some(0x3000));
        assert_eq!(free.add(0x2000, 0x1000), (0x1000, 0x3000));
        assert_eq!(free.holding(0x3fff), Some((0x1000, 0x3000)));
        assert_eq!(free.holding(0x4000), None);
        free.cut(0x1800, 0x800);
        assert_eq!(free.iter().collect::<Vec<_>>(), [(0x1000, 0x800), (0x2000, 0x2000)]);
        free.cut(0x8000, 0x1000);
        assert_eq!(free.iter().count(), 2);
    }
}
