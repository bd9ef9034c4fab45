//! Views: for each word the newest version known stored, known cleaned and known invalidated, and
//! for each CPU how many of its fetches are known to be past.
//!
//! Knowledge of stores is kept as prefixes of the stores of each CPU and, beside them, single words
//! with the key of a version; join is the pointwise maximum. Views, and their parts, are shared
//! until one of them changes; where one has all of the other, the join of both is that one itself,
//! so that what a barrier hands to many is compared once and is one thing from then on.

use std::cmp::Ordering;
use std::rc::Rc;

use textbed_arch::CpuId;

use super::clock::Clock;
use super::index::{Fetched, by_virt};
use super::versions::{History, Version, Versions};
use crate::span::Span;

/// Keys of versions by range, sorted and disjoint; neighbours with one key are one entry.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Known(Vec<(Span, u64)>);

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

    /// Whether all that `other` has is known here, but for the keys that need not be.
    fn covers(&self, other: &Known, needless: impl Fn(u64) -> bool) -> bool {
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
            next.is_none_or(|n| n > span.last) || needless(*key)
        })
    }

    /// The pointwise maximum.
    fn join(&mut self, other: &Known) {
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

/// A set of stores: a prefix of the stores of each CPU, and single words beside it.
///
/// What a CPU gathers is a prefix of its own stores, and barriers hand on what was gathered; only
/// what comes by reading one word, or by order of one line, stands beside the prefixes. So the size
/// does not grow with the number of stores.
#[derive(Clone, Default, Debug)]
pub(crate) struct Stores {
    prefix: Clock,
    words: Option<Rc<Known>>,
}

/// Words kept beside the prefixes before those that the prefixes cover are dropped.
const TIDY: usize = 16;

const NO_WORDS: &Known = &Known(Vec::new());

impl Stores {
    fn words(&self) -> &Known {
        self.words.as_deref().unwrap_or(NO_WORDS)
    }

    /// Whether version `v` of all of `span` is in it.
    fn has(&self, v: &Version, span: Span) -> bool {
        self.prefix.of(v.cpu) >= v.stamp || self.words().least(span).0 >= v.key()
    }

    /// Stamp of the newest version of `span` in it; 0 = none.
    pub(crate) fn newest(&self, history: &History, span: Span) -> u64 {
        let found = history.versions.iter().rev().find(|v| self.has(v, span));
        found.map_or(0, |v| v.stamp)
    }

    /// The same for bytes that may be known under more than one place.
    pub(crate) fn newest_of(&self, history: &History, at: Fetched) -> u64 {
        at.places().map(|span| self.newest(history, span)).max().unwrap_or(0)
    }

    fn add_word(&mut self, span: Span, key: u64) {
        Rc::make_mut(self.words.get_or_insert_default()).raise(span, key);
    }

    /// Adds the stores of `cpu` up to `stamp`.
    fn add_prefix(&mut self, cpu: CpuId, stamp: u64) {
        self.prefix.set(cpu, stamp);
    }

    /// Whether the prefixes have the version with this key.
    fn covered(&self, key: u64) -> bool {
        self.prefix.of(CpuId(key as u16)) >= key >> 16
    }

    /// Whether all that `other` has is in it. A word whose version a prefix has needs no entry of
    /// its own: older versions of the word come before that one.
    fn covers(&self, other: &Stores) -> bool {
        self.prefix.covers(&other.prefix) && self.covers_words(other)
    }

    fn covers_words(&self, other: &Stores) -> bool {
        match (&self.words, &other.words) {
            (_, None) => true,
            (Some(mine), Some(theirs)) if Rc::ptr_eq(mine, theirs) => true,
            (_, Some(theirs)) => self.words().covers(theirs, |key| self.covered(key)),
        }
    }

    fn join(&mut self, other: &Stores) {
        self.prefix.join(&other.prefix);
        if self.covers_words(other) {
            return;
        }
        if other.words().covers(self.words(), |key| self.covered(key)) {
            self.words.clone_from(&other.words);
        } else {
            Rc::make_mut(self.words.get_or_insert_default()).join(other.words());
        }
        if self.words().entries() > TIDY && self.words().0.iter().any(|(_, k)| self.covered(*k)) {
            let prefix = self.prefix.clone();
            let covered = |key: u64| prefix.of(CpuId(key as u16)) >= key >> 16;
            let words = Rc::make_mut(self.words.get_or_insert_default());
            words.0.retain(|(_, key)| !covered(*key));
        }
    }

    /// Adds what `other` has of `line`, or all that it has.
    fn copy(&mut self, other: &Stores, line: Option<Span>, versions: &Versions) {
        let Some(line) = line else {
            self.join(other);
            return;
        };
        for (part, history) in versions.within(line) {
            let known = history.versions.iter().rev().find(|v| other.has(v, part));
            if let Some(version) = known
                && !self.has(version, part)
            {
                self.add_word(part, version.key());
            }
        }
    }

    /// Adds what `other` has of `line` under the place that the virtual address `virt` of the line
    /// gives it.
    fn copy_by_virt(&mut self, other: &Stores, line: Span, virt: u64, versions: &Versions) {
        for (part, history) in versions.within(line) {
            let known = history.versions.iter().rev().find(|v| other.has(v, part));
            if let Some(version) = known {
                let place = by_virt(part, virt.wrapping_add(part.first - line.first));
                self.add_word(place, version.key());
            }
        }
    }

    fn entries(&self) -> usize {
        self.words().entries()
    }

    /// Whether no store is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.words().entries() == 0 && self.prefix.is_empty()
    }
}

/// What an effect knows; nothing at first.
#[derive(Clone, Default, Debug)]
pub(crate) struct View(Option<Rc<Parts>>);

#[derive(Clone, Default, Debug)]
struct Parts {
    /// Known stored.
    w: Stores,
    /// Known cleaned.
    c: Stores,
    /// Known invalidated after it was cleaned.
    i: Stores,
    /// Fetches known to be past, by CPU.
    f: Clock,
}

impl Parts {
    fn covers(&self, other: &Parts) -> bool {
        self.w.prefix.covers(&other.w.prefix)
            && self.f.covers(&other.f)
            && self.w.covers_words(&other.w)
            && self.c.covers(&other.c)
            && self.i.covers(&other.i)
    }
}

const NO_STORES: &Stores = &Stores { prefix: Clock::NONE, words: None };

impl View {
    fn parts(&mut self) -> &mut Parts {
        Rc::make_mut(self.0.get_or_insert_default())
    }

    /// Known stored.
    pub(crate) fn w(&self) -> &Stores {
        self.0.as_ref().map_or(NO_STORES, |parts| &parts.w)
    }

    /// Known cleaned.
    fn c(&self) -> &Stores {
        self.0.as_ref().map_or(NO_STORES, |parts| &parts.c)
    }

    /// Known invalidated after it was cleaned.
    pub(crate) fn i(&self) -> &Stores {
        self.0.as_ref().map_or(NO_STORES, |parts| &parts.i)
    }

    /// Adds what `other` knows.
    pub(crate) fn join(&mut self, other: &View) {
        let Some(theirs) = &other.0 else { return };
        let Some(mine) = &mut self.0 else {
            self.0 = Some(Rc::clone(theirs));
            return;
        };
        if Rc::ptr_eq(mine, theirs) || mine.covers(theirs) {
            return;
        }
        if theirs.covers(mine) {
            *mine = Rc::clone(theirs);
            return;
        }
        let mine = Rc::make_mut(mine);
        mine.w.join(&theirs.w);
        mine.c.join(&theirs.c);
        mine.i.join(&theirs.i);
        mine.f.join(&theirs.f);
    }

    /// Adds what `other` knows to each of `views`; what was one and the same stays so.
    pub(crate) fn join_each<'a>(views: impl Iterator<Item = &'a mut View>, other: &View) {
        let mut last: Option<(View, View)> = None;
        for view in views {
            match &last {
                Some((before, after)) if view.same(before) => *view = after.clone(),
                _ => {
                    let before = view.clone();
                    view.join(other);
                    last = Some((before, view.clone()));
                }
            }
        }
    }

    /// Adds what `other` knows but for fetches.
    pub(crate) fn join_but_fetches(&mut self, other: &View) {
        let Some(theirs) = &other.0 else { return };
        let mine = self.parts();
        mine.w.join(&theirs.w);
        mine.c.join(&theirs.c);
        mine.i.join(&theirs.i);
    }

    /// Both together.
    pub(crate) fn with(mut self, other: &View) -> View {
        self.join(other);
        self
    }

    /// Fetch `n` of `cpu` is past.
    pub(crate) fn past(&mut self, cpu: CpuId, n: u32) {
        self.parts().f.set(cpu, n.into());
    }

    /// Fetches of `cpu` known to be past.
    pub(crate) fn fetches(&self, cpu: CpuId) -> u32 {
        self.0.as_ref().map_or(0, |parts| parts.f.of(cpu) as u32)
    }

    /// The version with this key, of `span`, is known stored.
    pub(crate) fn stored(&mut self, span: Span, key: u64) {
        self.parts().w.add_word(span, key);
    }

    /// All stores of `cpu` up to `stamp` are known.
    pub(crate) fn stored_up_to(&mut self, cpu: CpuId, stamp: u64) {
        self.parts().w.add_prefix(cpu, stamp);
    }

    /// What is known stored in `line` is known cleaned.
    pub(crate) fn clean(&mut self, line: Option<Span>, versions: &Versions) {
        let w = self.w().clone();
        self.parts().c.copy(&w, line, versions);
    }

    /// What is known cleaned (`stored`: stored) in `line`, or everywhere, is known invalidated.
    pub(crate) fn invalidate(&mut self, line: Option<Span>, stored: bool, versions: &Versions) {
        let from = if stored { self.w() } else { self.c() }.clone();
        self.parts().i.copy(&from, line, versions);
    }

    /// The same for a line of a cache that is indexed by virtual address: by this one alone.
    pub(crate) fn invalidate_by_virt(
        &mut self,
        line: Span,
        virt: u64,
        stored: bool,
        versions: &Versions,
    ) {
        let from = if stored { self.w() } else { self.c() }.clone();
        self.parts().i.copy_by_virt(&from, line, virt, versions);
    }

    /// Words that stand for themselves.
    pub(crate) fn entries(&self) -> usize {
        self.w().entries() + self.c().entries() + self.i().entries()
    }

    /// Whether both are one and the same (not only equal).
    pub(crate) fn same(&self, other: &View) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
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
            prop_assert_eq!(all.entries(), most.chunk_by(|a, b| a == b).filter(|r| r[0] != 0).count());
            let had = |(span, key): &(Span, u64)| {
                *key <= needless
                    || (span.first..=span.last).all(|at| mine[at as usize] >= *key)
            };
            prop_assert_eq!(a.covers(&b, |key| key <= needless), b.0.iter().all(had));
            prop_assert!(all.covers(&a, |_| false) && all.covers(&b, |_| false));
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
