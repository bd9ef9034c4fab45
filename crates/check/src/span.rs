//! Spans of addresses and maps from spans to values.
//!
//! A [`Span`] has an inclusive end, so that the last byte of the 64-bit space can be in one. A
//! [`SpanMap`] holds disjoint spans; what follows on without a change is one entry, so that a
//! direct map of a tebibyte costs a handful of entries. Nothing here walks byte by byte or page by
//! page.

use std::collections::BTreeMap;

/// Addresses `first..=last`; never empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Span {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Span {
    /// `len` bytes from `first` on, cut at the end of the 64-bit space; nothing for `len` 0.
    pub(crate) fn of(first: u64, len: u64) -> Option<Self> {
        let more = len.checked_sub(1)?;
        Some(Self { first, last: first.saturating_add(more) })
    }

    /// Number of bytes; the whole space saturates.
    pub(crate) fn len(self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }

    /// What both have.
    pub(crate) fn meet(self, other: Span) -> Option<Span> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (first <= last).then_some(Span { first, last })
    }

    /// The same span moved by `delta` (wrapping); nothing if the end would wrap and the start not.
    pub(crate) fn moved(self, delta: u64) -> Option<Span> {
        let first = self.first.wrapping_add(delta);
        let last = self.last.wrapping_add(delta);
        (first <= last).then_some(Span { first, last })
    }

    /// Rounded out to multiples of `bytes`, a power of two.
    pub(crate) fn rounded(self, bytes: u64) -> Span {
        let mask = bytes.wrapping_sub(1);
        Span { first: self.first & !mask, last: self.last | mask }
    }
}

/// A value that can be cut and merged with its neighbour.
pub(crate) trait Piece: Clone {
    /// Becomes the value of what is left after `bytes` were cut off the front.
    fn skip(&mut self, bytes: u64);
    /// Whether `next`, which begins `len` bytes after this, is the same thing going on.
    fn goes_on_as(&self, len: u64, next: &Self) -> bool;
}

/// Makes a type whose value does not depend on the place a [`Piece`].
macro_rules! flat_piece {
    ($type:ty) => {
        impl $crate::span::Piece for $type {
            fn skip(&mut self, _bytes: u64) {}
            fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
                self == next
            }
        }
    };
}
pub(crate) use flat_piece;

/// What of a map a span meets.
enum Touched {
    Nothing,
    /// One entry, which is the span.
    Whole,
    Other,
}

/// Disjoint spans with values.
#[derive(Clone, Debug)]
pub(crate) struct SpanMap<V> {
    map: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for SpanMap<V> {
    fn default() -> Self {
        Self { map: BTreeMap::new() }
    }
}

impl<V: Piece> SpanMap<V> {
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Number of entries.
    pub(crate) fn entries(&self) -> usize {
        self.map.len()
    }

    /// The entry that holds `at`, whole.
    pub(crate) fn get(&self, at: u64) -> Option<(Span, &V)> {
        let (first, (last, value)) = self.map.range(..=at).next_back()?;
        (*last >= at).then_some((Span { first: *first, last: *last }, value))
    }

    /// Whether any entry meets `span`.
    pub(crate) fn meets(&self, span: Span) -> bool {
        self.map.range(..=span.last).next_back().is_some_and(|(_, (last, _))| *last >= span.first)
    }

    /// Every entry, whole, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Span, &V)> {
        self.map.iter().map(|(first, (last, v))| (Span { first: *first, last: *last }, v))
    }

    /// The entries that meet `span`, clipped to it, in order; the values are those of the whole
    /// entries.
    pub(crate) fn parts(&self, span: Span) -> impl Iterator<Item = (Span, &V)> + '_ {
        let from = match self.get(span.first) {
            Some((whole, _)) => whole.first,
            None => span.first,
        };
        self.map.range(from..=span.last).map(move |(first, (last, value))| {
            (Span { first: (*first).max(span.first), last: (*last).min(span.last) }, value)
        })
    }

    /// The value of `span`, if it is an entry by itself.
    pub(crate) fn exact_mut(&mut self, span: Span) -> Option<&mut V> {
        self.map.get_mut(&span.first).filter(|(last, _)| *last == span.last).map(|(_, v)| v)
    }

    /// What of the map `span` meets: most changes are of one entry, or of none.
    fn touched(&self, span: Span) -> Touched {
        match self.map.range(..=span.last).next_back() {
            Some((_, (last, _))) if *last < span.first => Touched::Nothing,
            Some((first, (last, _))) if (*first, *last) == (span.first, span.last) => {
                Touched::Whole
            }
            Some(_) => Touched::Other,
            None => Touched::Nothing,
        }
    }

    /// The entries that meet `span`, clipped to it, in order.
    pub(crate) fn within(&self, span: Span) -> impl Iterator<Item = (Span, V)> + '_ {
        let from = match self.get(span.first) {
            Some((whole, _)) => whole.first,
            None => span.first,
        };
        self.map.range(from..=span.last).map(move |(first, (last, value))| {
            let mut value = value.clone();
            let clipped = Span { first: (*first).max(span.first), last: (*last).min(span.last) };
            value.skip(clipped.first - first);
            (clipped, value)
        })
    }

    /// Lets the entry that ends right before `span` go on over it, if `same` says that it is the
    /// one meant and nothing lies in `span`. Returns whether it did.
    pub(crate) fn extend(&mut self, span: Span, same: impl Fn(&V) -> bool) -> bool {
        if self.map.range(span.first..=span.last).next().is_some() {
            return false;
        }
        match self.map.range_mut(..span.first).next_back() {
            Some((_, (last, value))) if last.checked_add(1) == Some(span.first) && same(value) => {
                *last = span.last;
                true
            }
            _ => false,
        }
    }

    /// Takes out what lies in `span`.
    pub(crate) fn remove(&mut self, span: Span) {
        match self.touched(span) {
            Touched::Nothing => return,
            Touched::Whole => {
                self.map.remove(&span.first);
                return;
            }
            Touched::Other => {}
        }
        self.cut(span.first);
        if let Some(after) = span.last.checked_add(1) {
            self.cut(after);
        }
        while let Some(first) = self.map.range(span.first..=span.last).next().map(|(f, _)| *f) {
            self.map.remove(&first);
        }
    }

    /// Puts `value` over `span`, replacing what was there.
    pub(crate) fn insert(&mut self, span: Span, value: V) {
        match self.touched(span) {
            Touched::Nothing => self.put(span, value),
            Touched::Whole => self.replace(span, value),
            Touched::Other => {
                self.remove(span);
                self.put(span, value);
            }
        }
    }

    /// Replaces the value of `span`, which is an entry by itself.
    fn replace(&mut self, span: Span, value: V) {
        let before = self.map.range(..span.first).next_back();
        let joins = before.is_some_and(|(first, (last, before))| {
            last.checked_add(1) == Some(span.first) && before.goes_on_as(span.first - first, &value)
        }) || span.last.checked_add(1).is_some_and(|next| {
            let after = self.map.get(&next);
            after.is_some_and(|(_, after)| value.goes_on_as(next - span.first, after))
        });
        if joins {
            self.map.remove(&span.first);
            self.put(span, value);
        } else {
            self.map.insert(span.first, (span.last, value));
        }
    }

    /// Replaces the value of each part of `span`, gaps too, by what `f` says (nothing = a gap).
    pub(crate) fn update(&mut self, span: Span, mut f: impl FnMut(Span, Option<&V>) -> Option<V>) {
        match self.touched(span) {
            Touched::Nothing => {
                if let Some(value) = f(span, None) {
                    self.put(span, value);
                }
                return;
            }
            Touched::Whole => {
                let old = self.map.get(&span.first).map(|(_, value)| value);
                match f(span, old) {
                    Some(value) => self.replace(span, value),
                    None => {
                        self.map.remove(&span.first);
                    }
                }
                return;
            }
            Touched::Other => {}
        }
        let parts: Vec<(Span, V)> = self.within(span).collect();
        let mut results = Vec::with_capacity(parts.len() * 2 + 1);
        let mut next = Some(span.first);
        for (part, value) in &parts {
            if let Some(start) = next
                && start < part.first
            {
                let gap = Span { first: start, last: part.first - 1 };
                results.push((gap, f(gap, None)));
            }
            results.push((*part, f(*part, Some(value))));
            next = part.last.checked_add(1);
        }
        if let Some(start) = next
            && start <= span.last
        {
            let gap = Span { first: start, last: span.last };
            results.push((gap, f(gap, None)));
        }
        self.remove(span);
        for (part, value) in results {
            if let Some(value) = value {
                self.put(part, value);
            }
        }
    }

    /// Puts `value` over a `span` that is free, and joins it to its neighbours.
    fn put(&mut self, mut span: Span, mut value: V) {
        if let Some((first, (last, before))) = self.map.range(..span.first).next_back()
            && last.checked_add(1) == Some(span.first)
            && before.goes_on_as(span.first - first, &value)
        {
            let first = *first;
            value = before.clone();
            self.map.remove(&first);
            span.first = first;
        }
        if let Some(next) = span.last.checked_add(1)
            && let Some((last, after)) = self.map.get(&next)
            && value.goes_on_as(next - span.first, after)
        {
            span.last = *last;
            self.map.remove(&next);
        }
        self.map.insert(span.first, (span.last, value));
    }

    /// Makes sure that no entry reaches over the boundary before `at`.
    fn cut(&mut self, at: u64) {
        let Some((first, (last, value))) = self.map.range_mut(..at).next_back() else { return };
        if *last < at {
            return;
        }
        let (first, end) = (*first, *last);
        *last = at - 1;
        let mut rest = value.clone();
        rest.skip(at - first);
        self.map.insert(at, (end, rest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    flat_piece!(u8);

    /// A value that moves with its address, as a physical address does.
    #[derive(Clone, PartialEq, Debug)]
    struct Moving(u64);
    impl Piece for Moving {
        fn skip(&mut self, bytes: u64) {
            self.0 += bytes;
        }
        fn goes_on_as(&self, len: u64, next: &Self) -> bool {
            self.0 + len == next.0
        }
    }

    #[test]
    fn the_last_byte_of_the_space_can_be_mapped() {
        let mut map = SpanMap::<u8>::default();
        map.insert(Span::of(u64::MAX - 4095, 1 << 60).unwrap(), 7);
        assert_eq!(map.get(u64::MAX).map(|(s, v)| (s.len(), *v)), Some((4096, 7)));
        map.remove(Span { first: u64::MAX, last: u64::MAX });
        assert!(map.get(u64::MAX).is_none() && map.get(u64::MAX - 1).is_some());
    }

    #[test]
    fn moving_values_merge_only_where_they_go_on() {
        let mut map = SpanMap::default();
        map.insert(Span::of(0x1000, 0x1000).unwrap(), Moving(0x9000));
        map.insert(Span::of(0x2000, 0x1000).unwrap(), Moving(0xa000));
        assert_eq!(map.entries(), 1);
        map.insert(Span::of(0x3000, 0x1000).unwrap(), Moving(0x5000));
        assert_eq!(map.entries(), 2);
        let clipped: Vec<_> = map.within(Span::of(0x1800, 8).unwrap()).collect();
        assert_eq!(clipped, [(Span { first: 0x1800, last: 0x1807 }, Moving(0x9800))]);
    }

    proptest! {
        /// Against an array of 64 cells.
        #[test]
        fn agrees_with_an_array(ops in prop::collection::vec((0u64..64, 1u64..20, 0u8..4, 0u8..3), 1..60)) {
            let mut map = SpanMap::<u8>::default();
            let mut cells = [None::<u8>; 64];
            for (first, len, value, what) in ops {
                let span = Span::of(first, len.min(64 - first)).unwrap();
                let range = span.first as usize..=span.last as usize;
                match what {
                    0 => {
                        map.insert(span, value);
                        cells[range].fill(Some(value));
                    }
                    1 => {
                        map.remove(span);
                        cells[range].fill(None);
                    }
                    _ => {
                        let next = |v: Option<u8>| match v {
                            None => Some(value),
                            Some(3) => None,
                            Some(v) => Some(v + 1),
                        };
                        map.update(span, |_, v| next(v.copied()));
                        for cell in &mut cells[range] {
                            *cell = next(*cell);
                        }
                    }
                }
                for (at, cell) in cells.iter().enumerate() {
                    prop_assert_eq!(map.get(at as u64).map(|(_, v)| *v), *cell);
                }
                // Equal neighbours are one entry.
                let runs = cells.chunk_by(|a, b| a == b).filter(|run| run[0].is_some()).count();
                prop_assert_eq!(map.entries(), runs);
            }
        }
    }
}
