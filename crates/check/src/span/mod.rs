//! Spans of addresses and maps from spans to values.
//!
//! A [`Span`] has an inclusive end, so that the last byte of the 64-bit space can be in one. A
//! [`SpanMap`] holds disjoint spans; what follows on without a change is one entry, so that a
//! direct map of a tebibyte costs a handful of entries. Nothing here walks byte by byte or page by
//! page.

mod cells;
#[cfg(test)]
mod tests;
mod wide;

pub(crate) use crate::hashed::NONE as NOWHERE;
use cells::Cells;
pub(crate) use cells::Spot;
use wide::Wide;

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

    /// Whether an address is in it.
    pub(crate) fn has(self, at: u64) -> bool {
        self.first <= at && at <= self.last
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

/// Disjoint spans with values; those of 2^`SHIFT` bytes, aligned to that, are kept as cells.
#[derive(Clone, Debug)]
pub(crate) struct Granular<V, const SHIFT: u32> {
    cells: Cells<V>,
    wide: Wide<V>,
}

/// Few spans, or spans of all sizes: none is a cell but of 2^48 bytes.
pub(crate) type SpanMap<V> = Granular<V, 48>;
/// Spans that are pages for the most part.
pub(crate) type PageMap<V> = Granular<V, 12>;
/// Spans that are words of eight bytes for the most part.
pub(crate) type WordMap<V> = Granular<V, 3>;

impl<V, const SHIFT: u32> Default for Granular<V, SHIFT> {
    fn default() -> Self {
        Self { cells: Cells::default(), wide: Wide::default() }
    }
}

impl<V: Piece, const SHIFT: u32> Granular<V, SHIFT> {
    pub(crate) fn is_empty(&self) -> bool {
        self.wide.is_empty() && self.cells.is_empty()
    }

    /// Number of entries.
    pub(crate) fn entries(&self) -> usize {
        self.wide.len() + self.cells.len()
    }

    /// The number of the cell that `span` is, if it is one.
    fn cell(span: Span) -> Option<u64> {
        let mask = (1 << SHIFT) - 1;
        (span.first & mask == 0 && span.last == span.first | mask).then_some(span.first >> SHIFT)
    }

    fn of_cell(cell: u64) -> Span {
        let first = cell << SHIFT;
        Span { first, last: first | ((1 << SHIFT) - 1) }
    }

    /// The entry that holds `at`, whole.
    pub(crate) fn get(&self, at: u64) -> Option<(Span, &V)> {
        match self.cells.get(at >> SHIFT) {
            Some(value) => Some((Self::of_cell(at >> SHIFT), value)),
            None => self.wide.at(at),
        }
    }

    /// Prefetches where the cell that holds `at` is noted.
    #[inline]
    pub(crate) fn prefetch(&self, at: u64) {
        self.cells.prefetch(at >> SHIFT);
    }

    /// The place where the value of that cell may be, which is prefetched; [`NOWHERE`] where none
    /// is noted of it in the first two places.
    #[inline]
    pub(crate) fn near(&self, at: u64) -> u32 {
        self.cells.near(at >> SHIFT)
    }

    /// The value in that place, whatever cell it is of.
    #[inline]
    pub(crate) fn at_place(&self, place: u32) -> Option<&V> {
        self.cells.at_place(place)
    }

    /// Whether any entry meets `span`.
    pub(crate) fn meets(&self, span: Span) -> bool {
        if self.wide.meets(span) {
            return true;
        }
        if span.first >> SHIFT == span.last >> SHIFT {
            return self.cells.get(span.first >> SHIFT).is_some();
        }
        self.cells.range(span.first >> SHIFT, span.last >> SHIFT).next().is_some()
    }

    /// The entries that meet `span`, whole, in order.
    pub(crate) fn whole(&self, span: Span) -> impl Iterator<Item = (Span, &V)> + '_ {
        let first = self.get(span.first);
        let in_cell = span.first >> SHIFT == span.last >> SHIFT;
        // Mostly it lies in one entry, or is a cell without one.
        let (mut one, many) = match first {
            Some((whole, _)) if whole.last >= span.last => (first, None),
            None if in_cell && !self.wide.meets(span) => (None, None),
            first => (None, Some(first.map_or(span.first, |(whole, _)| whole.first))),
        };
        let mut many = many.map(|from| {
            let mut wide = self.wide.from(Span { first: from, last: span.last });
            let cells = self.cells.range(span.first >> SHIFT, span.last >> SHIFT);
            let mut cells = cells.map(|(cell, value)| (Self::of_cell(cell), value));
            let next = (wide.next(), cells.next());
            // Elsewhere, for it is large, and few walks are over more than one.
            Box::new((wide, cells, next))
        });
        std::iter::from_fn(move || {
            let Some(many) = &mut many else { return one.take() };
            let (wide, cells, next) = &mut **many;
            let cell_first = match next {
                (Some((w, _)), Some((c, _))) => c.first < w.first,
                (wide, _) => wide.is_none(),
            };
            match cell_first {
                true => std::mem::replace(&mut next.1, cells.next()),
                false => std::mem::replace(&mut next.0, wide.next()),
            }
        })
    }

    /// Every entry, whole, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Span, &V)> {
        self.whole(Span { first: 0, last: u64::MAX })
    }

    /// The value of every entry, in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.cells.values().chain(self.wide.values())
    }

    /// The entries that meet `span`, clipped to it, in order; the values are those of the whole
    /// entries.
    pub(crate) fn parts(&self, span: Span) -> impl Iterator<Item = (Span, &V)> + '_ {
        self.whole(span).map(move |(whole, value)| {
            let (first, last) = (whole.first.max(span.first), whole.last.min(span.last));
            (Span { first, last }, value)
        })
    }

    /// The value of `span`, if it is an entry by itself.
    pub(crate) fn exact_mut(&mut self, span: Span) -> Option<&mut V> {
        if let Some(cell) = Self::cell(span) {
            return self.cells.get_mut(cell);
        }
        self.wide.get_mut(span)
    }

    /// Puts an entry over `span` by itself, or changes the one that is there, where no neighbour
    /// can be the same thing: if `span` is a cell and meets nothing that is none. Whether it was
    /// so; then `f` does it, or gives the entry where there is none.
    #[inline]
    pub(crate) fn put_cell(
        &mut self,
        span: Span,
        f: impl FnOnce(Option<&mut V>) -> Option<V>,
    ) -> bool {
        let Some(cell) = Self::cell(span) else { return false };
        if self.wide.meets(span) {
            return false;
        }
        self.cells.put(cell, f);
        true
    }

    /// Where the value of `span` is, perhaps at `place`, or is to be put, under the condition of
    /// [`Granular::put_cell`].
    #[inline]
    pub(crate) fn spot(&mut self, place: u32, span: Span) -> Option<Spot> {
        let cell = Self::cell(span).filter(|_| !self.wide.meets(span))?;
        Some(self.cells.spot(place, cell))
    }

    /// The value there, if there is any.
    #[inline]
    pub(crate) fn at_spot(&self, spot: Spot) -> Option<&V> {
        let Spot::There(place) = spot else { return None };
        self.cells.at_place(place)
    }

    #[inline]
    pub(crate) fn at_spot_mut(&mut self, spot: Spot) -> Option<&mut V> {
        let Spot::There(place) = spot else { return None };
        self.cells.at_place_mut(place)
    }

    /// Puts in the value of `span`, which has none, and whose spot that is.
    #[inline]
    pub(crate) fn fill(&mut self, spot: Spot, span: Span, value: V) {
        self.cells.fill(spot, span.first >> SHIFT, value);
    }

    fn exact(&self, span: Span) -> Option<&V> {
        if let Some(cell) = Self::cell(span) {
            return self.cells.get(cell);
        }
        self.wide.get(span)
    }

    /// What of the map `span` meets: most changes are of one entry, or of none.
    fn touched(&self, span: Span) -> Touched {
        match self.exact(span) {
            Some(_) => Touched::Whole,
            None if self.meets(span) => Touched::Other,
            None => Touched::Nothing,
        }
    }

    /// The entries that meet `span`, clipped to it, in order.
    pub(crate) fn within(&self, span: Span) -> impl Iterator<Item = (Span, V)> + '_ {
        self.whole(span).map(move |(whole, value)| {
            let mut value = value.clone();
            let (first, last) = (whole.first.max(span.first), whole.last.min(span.last));
            value.skip(first - whole.first);
            (Span { first, last }, value)
        })
    }

    /// Lets the entry that ends right before `span` go on over it, if `same` says that it is the
    /// one meant and nothing lies in `span`. Returns whether it did.
    pub(crate) fn extend(&mut self, span: Span, same: impl Fn(&V) -> bool) -> bool {
        let before = span.first.checked_sub(1).and_then(|at| self.get(at));
        let Some((whole, value)) = before else { return false };
        if whole.last >= span.first || !same(value) || self.meets(span) {
            return false;
        }
        let longer = Span { first: whole.first, last: span.last };
        if Self::cell(whole).or(Self::cell(longer)).is_some() {
            if let Some(value) = self.take(whole) {
                self.enter(longer, value);
            }
        } else {
            self.wide.extend(longer);
        }
        true
    }

    /// Puts an entry over a span that is free, where no neighbour can be the same thing.
    pub(crate) fn enter(&mut self, span: Span, value: V) {
        match Self::cell(span) {
            Some(cell) => self.cells.put(cell, |_| Some(value)),
            None => self.wide.insert(span, value),
        }
    }

    /// Takes the entry out that `span` is.
    fn take(&mut self, span: Span) -> Option<V> {
        match Self::cell(span) {
            Some(cell) => self.cells.remove(cell),
            None => self.wide.remove(span),
        }
    }

    /// Takes out what lies in `span`.
    pub(crate) fn remove(&mut self, span: Span) {
        match self.touched(span) {
            Touched::Nothing => return,
            Touched::Whole => {
                self.take(span);
                return;
            }
            Touched::Other => {}
        }
        self.cut(span.first);
        if let Some(after) = span.last.checked_add(1) {
            self.cut(after);
        }
        let gone: Vec<Span> = self.whole(span).map(|(whole, _)| whole).collect();
        gone.into_iter().for_each(|whole| {
            self.take(whole);
        });
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

    /// Whether `value` over `span` goes on from the entry before it, and into the one after it.
    fn joins(&self, span: Span, value: &V) -> (Option<Span>, Option<Span>) {
        let before = span.first.checked_sub(1).and_then(|at| self.get(at));
        let before = before.filter(|(b, v)| v.goes_on_as(span.first - b.first, value));
        let after = span.last.checked_add(1).and_then(|at| self.get(at));
        let base = before.as_ref().map_or((span.first, value), |(b, v)| (b.first, *v));
        let after = after.filter(|(a, v)| base.1.goes_on_as(a.first - base.0, v));
        (before.map(|(b, _)| b), after.map(|(a, _)| a))
    }

    /// Replaces the value of `span`, which is an entry by itself.
    fn replace(&mut self, span: Span, value: V) {
        if self.joins(span, &value) == (None, None) {
            if let Some(there) = self.exact_mut(span) {
                *there = value;
            }
        } else {
            self.take(span);
            self.put(span, value);
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
                match f(span, self.exact(span)) {
                    Some(value) => self.replace(span, value),
                    None => {
                        self.take(span);
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

    /// Changes the value of each part of `span` where there is one, or takes it out where `f` says
    /// that it does not stay.
    pub(crate) fn change(&mut self, span: Span, mut f: impl FnMut(Span, &mut V) -> bool) {
        match self.touched(span) {
            Touched::Nothing => {}
            Touched::Whole => {
                if !self.exact_mut(span).is_some_and(|there| f(span, there)) {
                    self.take(span);
                } else if self.exact(span).is_some_and(|v| self.joins(span, v) != (None, None))
                    && let Some(value) = self.take(span)
                {
                    self.put(span, value);
                }
            }
            Touched::Other => self.update(span, |part, there| {
                let mut value = there?.clone();
                f(part, &mut value).then_some(value)
            }),
        }
    }

    /// Puts `value` over a `span` that is free, and joins it to its neighbours.
    fn put(&mut self, mut span: Span, mut value: V) {
        let (before, after) = self.joins(span, &value);
        if let Some(before) = before
            && let Some(first) = self.take(before)
        {
            value = first;
            span.first = before.first;
        }
        if let Some(after) = after {
            self.take(after);
            span.last = after.last;
        }
        self.enter(span, value);
    }

    /// Makes sure that no entry reaches over the boundary before `at`.
    fn cut(&mut self, at: u64) {
        let Some(whole) = self.get(at).map(|(whole, _)| whole).filter(|w| w.first < at) else {
            return;
        };
        let Some(value) = self.take(whole) else { return };
        let mut rest = value.clone();
        rest.skip(at - whole.first);
        self.enter(Span { first: whole.first, last: at - 1 }, value);
        self.enter(Span { first: at, last: whole.last }, rest);
    }
}
