//! Views: for each word the newest version known stored, known cleaned and known invalidated, and
//! for each CPU how many of its fetches are known to be past.
//!
//! Knowledge of stores is kept as prefixes of the stores of each CPU and, beside them, single words
//! with the key of a version; join is the pointwise maximum. Parts are shared between views until
//! one of them changes.

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

    /// Whether everything in `other` is known here.
    fn covers(&self, other: &Known) -> bool {
        other.0.iter().all(|(span, stamp)| self.least(*span).0 >= *stamp)
    }

    fn join(&mut self, other: &Known) {
        for (span, stamp) in &other.0 {
            self.raise(*span, *stamp);
        }
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
    words: Rc<Known>,
}

/// Words kept beside the prefixes before those that the prefixes cover are dropped.
const TIDY: usize = 16;

impl Stores {
    /// Whether version `v` of all of `span` is in it.
    fn has(&self, v: &Version, span: Span) -> bool {
        self.prefix.of(v.cpu) >= v.stamp || self.words.least(span).0 >= v.key()
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
        Rc::make_mut(&mut self.words).raise(span, key);
    }

    /// Adds the stores of `cpu` up to `stamp`.
    fn add_prefix(&mut self, cpu: CpuId, stamp: u64) {
        self.prefix.set(cpu, stamp);
    }

    pub(crate) fn join(&mut self, other: &Stores) {
        self.prefix.join(&other.prefix);
        if Rc::ptr_eq(&self.words, &other.words) || self.words.covers(&other.words) {
            return;
        }
        if other.words.covers(&self.words) {
            self.words = Rc::clone(&other.words);
        } else {
            Rc::make_mut(&mut self.words).join(&other.words);
        }
        if self.words.entries() > TIDY {
            let prefix = &self.prefix;
            let covered = |key: u64| prefix.of(CpuId(key as u16)) >= key >> 16;
            if self.words.0.iter().any(|(_, key)| covered(*key)) {
                Rc::make_mut(&mut self.words).0.retain(|(_, key)| !covered(*key));
            }
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
        self.words.entries()
    }

    /// Whether no store is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.entries() == 0 && self.prefix.is_empty()
    }

    pub(crate) fn same(&self, other: &Stores) -> bool {
        Rc::ptr_eq(&self.words, &other.words) && self.prefix.same(&other.prefix)
    }
}

/// What an effect knows.
#[derive(Clone, Default, Debug)]
pub(crate) struct View {
    /// Known stored.
    pub(crate) w: Stores,
    /// Known cleaned.
    pub(crate) c: Stores,
    /// Known invalidated after it was cleaned.
    pub(crate) i: Stores,
    /// Fetches known to be past, by CPU.
    f: Rc<Vec<(CpuId, u32)>>,
}

impl View {
    /// Adds what `other` knows.
    pub(crate) fn join(&mut self, other: &View) {
        self.join_but_fetches(other);
        if !Rc::ptr_eq(&self.f, &other.f) {
            for (cpu, n) in other.f.iter() {
                self.past(*cpu, *n);
            }
        }
    }

    /// Adds what `other` knows but for fetches.
    pub(crate) fn join_but_fetches(&mut self, other: &View) {
        self.w.join(&other.w);
        self.c.join(&other.c);
        self.i.join(&other.i);
    }

    /// Both together.
    pub(crate) fn with(mut self, other: &View) -> View {
        self.join(other);
        self
    }

    /// Fetch `n` of `cpu` is past.
    pub(crate) fn past(&mut self, cpu: CpuId, n: u32) {
        match self.f.binary_search_by_key(&cpu, |e| e.0) {
            Ok(at) if self.f[at].1 >= n => {}
            Ok(at) => Rc::make_mut(&mut self.f)[at].1 = n,
            Err(at) => Rc::make_mut(&mut self.f).insert(at, (cpu, n)),
        }
    }

    /// Fetches of `cpu` known to be past.
    pub(crate) fn fetches(&self, cpu: CpuId) -> u32 {
        self.f.binary_search_by_key(&cpu, |e| e.0).map_or(0, |at| self.f[at].1)
    }

    /// The version with this key, of `span`, is known stored.
    pub(crate) fn stored(&mut self, span: Span, key: u64) {
        self.w.add_word(span, key);
    }

    /// All stores of `cpu` up to `stamp` are known.
    pub(crate) fn stored_up_to(&mut self, cpu: CpuId, stamp: u64) {
        self.w.add_prefix(cpu, stamp);
    }

    /// What is known stored in `line` is known cleaned.
    pub(crate) fn clean(&mut self, line: Option<Span>, versions: &Versions) {
        self.c.copy(&self.w, line, versions);
    }

    /// What is known cleaned (`stored`: stored) in `line`, or everywhere, is known invalidated.
    pub(crate) fn invalidate(&mut self, line: Option<Span>, stored: bool, versions: &Versions) {
        self.i.copy(if stored { &self.w } else { &self.c }, line, versions);
    }

    /// The same for a line of a cache that is indexed by virtual address: by this one alone.
    pub(crate) fn invalidate_by_virt(
        &mut self,
        line: Span,
        virt: u64,
        stored: bool,
        versions: &Versions,
    ) {
        self.i.copy_by_virt(if stored { &self.w } else { &self.c }, line, virt, versions);
    }

    /// Words that stand for themselves.
    pub(crate) fn entries(&self) -> usize {
        self.w.entries() + self.c.entries() + self.i.entries()
    }

    /// Whether both are one and the same (not only equal).
    pub(crate) fn same(&self, other: &View) -> bool {
        self.w.same(&other.w) && self.c.same(&other.c) && self.i.same(&other.i)
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

    proptest! {
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
