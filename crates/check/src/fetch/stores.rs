//! Sets of stores: what of them a view holds, as known stored, cleaned or invalidated
//! ([`super::views`]).
//!
//! Kept as prefixes of the stores of each CPU and, beside them, single words with the key of a
//! version; join is the pointwise maximum.

use std::rc::Rc;

use textbed_arch::CpuId;

use super::clock::Clock;
use super::index::{Fetched, by_virt};
use super::known::Known;
use super::versions::{History, Version, Versions};
use crate::span::Span;

/// A set of stores: a prefix of the stores of each CPU, and single words beside it.
///
/// What a CPU gathers is a prefix of its own stores, and barriers hand on what was gathered; only
/// what comes by reading one word, or by order of one line, stands beside the prefixes. So the size
/// does not grow with the number of stores.
#[derive(Clone, Default, Debug)]
pub(crate) struct Stores {
    pub(super) prefix: Clock,
    pub(super) words: Option<Rc<Known>>,
    /// The word that was added last, if it is not among these: what one store adds to what many
    /// have in common.
    pub(super) last: Option<(Span, u64)>,
}

/// Words kept beside the prefixes before those that the prefixes cover are dropped.
const TIDY: usize = 4;

/// No store.
pub(super) const NO_STORES: &Stores = &Stores { prefix: Clock::NONE, words: None, last: None };

const NO_WORDS: &Known = &Known(Vec::new());

impl Stores {
    fn words(&self) -> &Known {
        self.words.as_deref().unwrap_or(NO_WORDS)
    }

    /// Whether version `v` of all of `span` is in it.
    fn has(&self, v: &Version, span: Span) -> bool {
        self.prefix.of(v.cpu) >= v.stamp || self.knows(span, v.key())
    }

    /// Whether all of `span` is known by itself up to the version with this key.
    fn knows(&self, span: Span, key: u64) -> bool {
        self.knows_with(self.last, span, key)
    }

    /// The same with another word that was added last.
    pub(super) fn knows_with(&self, last: Option<(Span, u64)>, span: Span, key: u64) -> bool {
        let words = |span: Span| self.words().least(span).0 >= key;
        match last {
            Some((last, k)) if k >= key && last.meet(span).is_some() => {
                (span.first >= last.first || words(Span { last: last.first - 1, ..span }))
                    && (span.last <= last.last || words(Span { first: last.last + 1, ..span }))
            }
            _ => words(span),
        }
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
        let newer = |(last, k): &(Span, u64)| last.meet(span) == Some(*last) && *k <= key;
        if let Some((last, k)) = self.last.filter(|last| !newer(last)) {
            Rc::make_mut(self.words.get_or_insert_default()).raise(last, k);
        }
        self.last = Some((span, key));
    }

    /// Adds the stores of `cpu` up to `stamp`.
    pub(super) fn add_prefix(&mut self, cpu: CpuId, stamp: u64) {
        self.prefix.set(cpu, stamp);
    }

    /// Whether the prefixes have the version with this key.
    pub(super) fn covered(&self, key: u64) -> bool {
        self.prefix.of(CpuId(key as u16)) >= key >> 16
    }

    /// Whether all that `other` has is in it. A word whose version a prefix has needs no entry of
    /// its own: older versions of the word come before that one.
    pub(super) fn covers(&self, other: &Stores) -> bool {
        self.prefix.covers(&other.prefix) && self.covers_words(other)
    }

    pub(super) fn covers_words(&self, other: &Stores) -> bool {
        let has = |span: Span, key: u64| self.covered(key) || self.knows(span, key);
        if other.last.is_some_and(|(span, key)| !has(span, key)) {
            return false;
        }
        match (&self.words, &other.words) {
            (_, None) => true,
            (Some(mine), Some(theirs)) if Rc::ptr_eq(mine, theirs) => true,
            (_, Some(theirs)) => self.words().covers(theirs, has),
        }
    }

    pub(super) fn join(&mut self, other: &Stores) {
        self.prefix.join(&other.prefix);
        if self.covers_words(other) {
            return;
        }
        let here = Stores { prefix: self.prefix.clone(), ..other.clone() };
        if here.covers_words(self) {
            *self = here;
        } else {
            if other.words.is_some() {
                Rc::make_mut(self.words.get_or_insert_default()).join(other.words());
            }
            if let Some((span, key)) = other.last {
                self.add_word(span, key);
            }
        }
        if self.words().entries() > TIDY && self.words().0.iter().any(|(_, k)| self.covered(*k)) {
            let prefix = self.prefix.clone();
            let covered = |key: u64| prefix.of(CpuId(key as u16)) >= key >> 16;
            let words = Rc::make_mut(self.words.get_or_insert_default());
            words.0.retain(|(_, key)| !covered(*key));
        }
    }

    /// Adds what `other` has of `line`, or all that it has.
    pub(super) fn copy(&mut self, other: &Stores, line: Option<Span>, versions: &Versions) {
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
    pub(super) fn copy_by_virt(
        &mut self,
        other: &Stores,
        line: Span,
        virt: u64,
        versions: &Versions,
    ) {
        for (part, history) in versions.within(line) {
            let known = history.versions.iter().rev().find(|v| other.has(v, part));
            if let Some(version) = known {
                let place = by_virt(part, virt.wrapping_add(part.first - line.first));
                self.add_word(place, version.key());
            }
        }
    }

    /// What was added last goes to the other words: many are about to have it in common.
    pub(super) fn settle(&mut self) {
        if let Some((span, key)) = self.last.take() {
            Rc::make_mut(self.words.get_or_insert_default()).raise(span, key);
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.words().entries() + usize::from(self.last.is_some())
    }

    /// Whether no store is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries() == 0 && self.prefix.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Sets of stores that share what they have in common, against arrays.
        #[test]
        fn sets_of_stores_agree_with_arrays(
            ops in prop::collection::vec((0usize..3, 0usize..6, 0u64..56, 1u64..9, 1u64..9), 1..40),
        ) {
            let mut sets = [const { Stores { prefix: Clock::NONE, words: None, last: None } }; 3];
            let mut cells = [[0u64; 64]; 3];
            for (at, from, first, len, key) in ops {
                let span = Span { first, last: first + len - 1 };
                let range = first as usize..(first + len) as usize;
                if from < 3 {
                    let (other, theirs) = (sets[from].clone(), cells[from]);
                    let had = cells[at].iter().zip(theirs).all(|(mine, theirs)| *mine >= theirs);
                    prop_assert_eq!(sets[at].covers(&other), had);
                    sets[at].join(&other);
                    cells[at].iter_mut().zip(theirs).for_each(|(a, b)| *a = b.max(*a));
                } else {
                    sets[at].add_word(span, key << 16);
                    cells[at][range.clone()].iter_mut().for_each(|c| *c = (key << 16).max(*c));
                }
                for (set, cells) in sets.iter().zip(&cells) {
                    let least = cells[range.clone()].iter().min().copied().unwrap_or(0);
                    prop_assert!(least == 0 || set.knows(span, least));
                    prop_assert!(!set.knows(span, least + 1));
                }
            }
        }
    }
}
