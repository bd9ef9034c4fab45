//! Single words with the key of a version: what is known beside the prefixes of stores
//! ([`super::views`]).

use std::cmp::Ordering;

use crate::span::Span;

/// Keys of versions by range, sorted and disjoint; neighbours with one key are one entry.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Known(pub(super) Vec<(Span, u64)>);

impl Known {
    /// The stamp at `at`; 0 = nothing known.
    #[cfg(test)]
    fn at(&self, at: u64) -> u64 {
        let place = self.0.partition_point(|(span, _)| span.last < at);
        self.0.get(place).filter(|(span, _)| span.first <= at).map_or(0, |(_, stamp)| *stamp)
    }

    /// The least stamp in `span`, and where; 0 where something in it is not known.
    pub(crate) fn least(&self, span: Span) -> (u64, u64) {
        let mut least = (u64::MAX, span.first);
        let mut next = Some(span.first);
        for (part, stamp) in self.within(span) {
            if let Some(gap) = next.filter(|n| *n < part.first) {
                return (0, gap);
            }
            if stamp < least.0 {
                least = (stamp, part.first);
            }
            next = part.last.checked_add(1);
        }
        match next {
            Some(gap) if gap <= span.last => (0, gap),
            _ => least,
        }
    }

    /// The parts in `span`, clipped.
    pub(crate) fn within(&self, span: Span) -> impl Iterator<Item = (Span, u64)> + '_ {
        let from = self.0.partition_point(|(s, _)| s.last < span.first);
        self.0[from..].iter().map_while(move |(s, stamp)| Some((s.meet(span)?, *stamp)))
    }

    /// Raises `span` to at least `stamp`. Returns whether anything changed.
    pub(crate) fn raise(&mut self, span: Span, stamp: u64) -> bool {
        if stamp == 0 || self.least(span).0 >= stamp {
            return false;
        }
        let from = self.0.partition_point(|(s, _)| s.last < span.first);
        let to = from + self.0[from..].partition_point(|(s, _)| s.first <= span.last);
        let mut parts: Vec<(Span, u64)> = Vec::with_capacity(to - from + 2);
        let mut next = Some(span.first);
        for (s, old) in &self.0[from..to] {
            if s.first < span.first {
                parts.push((Span { first: s.first, last: span.first - 1 }, *old));
            }
            let meet = Span { first: s.first.max(span.first), last: s.last.min(span.last) };
            if let Some(gap) = next.filter(|n| *n < meet.first) {
                push(&mut parts, Span { first: gap, last: meet.first - 1 }, stamp);
            }
            push(&mut parts, meet, stamp.max(*old));
            next = meet.last.checked_add(1);
            if s.last > span.last {
                push(&mut parts, Span { first: span.last + 1, last: s.last }, *old);
            }
        }
        if let Some(gap) = next.filter(|n| *n <= span.last) {
            push(&mut parts, Span { first: gap, last: span.last }, stamp);
        }
        self.0.splice(from..to, parts);
        self.merge_around(from, to);
        true
    }

    /// Merges equal neighbours near places `from..to`.
    fn merge_around(&mut self, from: usize, to: usize) {
        let mut at = from.saturating_sub(1);
        let mut steps = to - from + 4;
        while at + 1 < self.0.len() && steps > 0 {
            let ((a, x), (b, y)) = (self.0[at], self.0[at + 1]);
            if x == y && a.last.checked_add(1) == Some(b.first) {
                self.0[at].0.last = b.last;
                self.0.remove(at + 1);
            } else {
                at += 1;
            }
            steps -= 1;
        }
    }

    /// Whether all that `other` has is known here, but for what need not be.
    pub(super) fn covers(&self, other: &Known, needless: impl Fn(Span, u64) -> bool) -> bool {
        let mut rest = self.0.as_slice();
        other.0.iter().all(|(span, key)| {
            while let [(s, _), after @ ..] = rest
                && s.last < span.first
            {
                rest = after;
            }
            let mut next = Some(span.first);
            for (s, known) in rest {
                if next.is_none_or(|n| n > span.last || s.first > n) || known < key {
                    break;
                }
                next = s.last.checked_add(1);
            }
            next.is_none_or(|n| n > span.last) || needless(*span, *key)
        })
    }

    /// The pointwise maximum.
    pub(super) fn join(&mut self, other: &Known) {
        if let [(span, key)] = other.0[..] {
            self.raise(span, key);
            return;
        }
        let mut all = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut mine, mut theirs) = (self.0.iter().copied(), other.0.iter().copied());
        let (mut a, mut b) = (mine.next(), theirs.next());
        while let (Some((s, x)), Some((t, y))) = (a, b) {
            let first = s.first.min(t.first);
            // Up to where one begins or ends.
            let (last, key) = match s.first.cmp(&t.first) {
                Ordering::Less => (s.last.min(t.first - 1), x),
                Ordering::Greater => (t.last.min(s.first - 1), y),
                Ordering::Equal => (s.last.min(t.last), x.max(y)),
            };
            push(&mut all, Span { first, last }, key);
            let rest = |span: Span| span.meet(Span { first: last.checked_add(1)?, last: u64::MAX });
            a = rest(s).map(|s| (s, x)).or_else(|| mine.next());
            b = rest(t).map(|t| (t, y)).or_else(|| theirs.next());
        }
        for (span, key) in a.into_iter().chain(mine).chain(b).chain(theirs) {
            push(&mut all, span, key);
        }
        self.0 = all;
    }

    /// Number of entries.
    pub(crate) fn entries(&self) -> usize {
        self.0.len()
    }
}

fn push(parts: &mut Vec<(Span, u64)>, span: Span, stamp: u64) {
    match parts.last_mut() {
        Some((last, s)) if *s == stamp && last.last.checked_add(1) == Some(span.first) => {
            last.last = span.last;
        }
        _ => parts.push((span, stamp)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn least_is_zero_where_anything_is_unknown() {
        let mut known = Known::default();
        known.raise(Span { first: 0, last: 63 }, 5);
        known.raise(Span { first: 16, last: 19 }, 9);
        assert_eq!(known.least(Span { first: 16, last: 19 }), (9, 16));
        assert_eq!(known.least(Span { first: 12, last: 19 }).0, 5);
        assert_eq!(known.least(Span { first: 60, last: 64 }), (0, 64));
        assert_eq!((known.at(17), known.at(64)), (9, 0));
    }

    /// Ranges with keys, and the same cell by cell.
    fn known(ops: &[(u64, u64, u64)]) -> (Known, [u64; 64]) {
        let (mut known, mut cells) = (Known::default(), [0; 64]);
        for (first, len, key) in ops {
            known.raise(Span { first: *first, last: first + len - 1 }, *key);
            for cell in &mut cells[*first as usize..(first + len) as usize] {
                *cell = (*cell).max(*key);
            }
        }
        (known, cells)
    }

    fn ops() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
        prop::collection::vec((0u64..48, 1u64..16, 1u64..6), 0..12)
    }

    proptest! {
        #[test]
        fn joins_and_comparisons_agree_with_arrays(a in ops(), b in ops(), needless in 0u64..4) {
            let ((a, mine), (b, theirs)) = (known(&a), known(&b));
            let mut all = a.clone();
            all.join(&b);
            let most: Vec<u64> = mine.iter().zip(theirs).map(|(x, y)| *x.max(&y)).collect();
            prop_assert_eq!((0..64).map(|at| all.at(at)).collect::<Vec<u64>>(), most.clone());
            let runs = most.chunk_by(|a, b| a == b).filter(|run| run[0] != 0).count();
            prop_assert_eq!(all.entries(), runs);
            let had = |(span, key): &(Span, u64)| {
                *key <= needless
                    || (span.first..=span.last).all(|at| mine[at as usize] >= *key)
            };
            prop_assert_eq!(a.covers(&b, |_, key| key <= needless), b.0.iter().all(had));
            prop_assert!(all.covers(&a, |_, _| false) && all.covers(&b, |_, _| false));
        }

        #[test]
        fn agrees_with_an_array(ops in prop::collection::vec((0u64..48, 1u64..16, 1u64..6), 1..40)) {
            let mut known = Known::default();
            let mut cells = [0u64; 64];
            for (first, len, stamp) in ops {
                let span = Span { first, last: first + len - 1 };
                known.raise(span, stamp);
                for cell in &mut cells[first as usize..(first + len) as usize] {
                    *cell = (*cell).max(stamp);
                }
                for (at, cell) in cells.iter().enumerate() {
                    prop_assert_eq!(known.at(at as u64), *cell);
                }
                let runs = cells.chunk_by(|a, b| a == b).filter(|r| r[0] != 0).count();
                prop_assert_eq!(known.entries(), runs);
            }
        }
    }
}
