//! Views: for each word the newest version known stored, known cleaned and known invalidated, and
//! for each CPU how many of its fetches are known to be past.
//!
//! Knowledge of stores is kept as prefixes of the stores of each CPU and, beside them, single words
//! with the key of a version; join is the pointwise maximum. Views, and their parts, are shared
//! until one of them changes; where one has all of the other, the join of both is that one itself,
//! so that what a barrier hands to many is compared once and is one thing from then on.

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
    prefix: Clock,
    words: Option<Rc<Known>>,
    /// The word that was added last, if it is not among these: what one store adds to what many
    /// have in common.
    last: Option<(Span, u64)>,
}

/// Words kept beside the prefixes before those that the prefixes cover are dropped.
const TIDY: usize = 4;

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
        let words = |span: Span| self.words().least(span).0 >= key;
        match self.last {
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

    fn join(&mut self, other: &Stores) {
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

    /// What was added last goes to the other words: many are about to have it in common.
    fn settle(&mut self) {
        if let Some((span, key)) = self.last.take() {
            Rc::make_mut(self.words.get_or_insert_default()).raise(span, key);
        }
    }

    fn entries(&self) -> usize {
        self.words().entries() + usize::from(self.last.is_some())
    }

    /// Whether no store is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries() == 0 && self.prefix.is_empty()
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

const NO_STORES: &Stores = &Stores { prefix: Clock::NONE, words: None, last: None };

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
    pub(crate) fn join_each<'a>(views: impl Iterator<Item = &'a mut View>, mut other: View) {
        if [other.w(), other.c(), other.i()].iter().any(|stores| stores.last.is_some()) {
            let Parts { w, c, i, .. } = other.parts();
            [w, c, i].into_iter().for_each(Stores::settle);
        }
        let mut last: Option<(View, View)> = None;
        for view in views {
            match &last {
                Some((before, after)) if view.same(before) => *view = after.clone(),
                _ => {
                    let before = view.clone();
                    view.join(&other);
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
