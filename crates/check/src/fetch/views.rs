//! Views: for each word the newest version known stored, known cleaned and known invalidated, and
//! for each CPU how many of its fetches are known to be past.
//!
//! Join is the pointwise maximum. Views, and their parts ([`super::stores`]), are shared until one
//! of them changes; where one has all of the other, the join of both is that one itself, so that
//! what a barrier hands to many is compared once and is one thing from then on.

use std::rc::Rc;

use prefetch_index::prefetch_index;
use textbed_arch::CpuId;

use super::clock::Clock;
use super::stores::{NO_STORES, Stores};
use super::versions::Versions;
use crate::span::Span;

/// A word with the key of a version; key 0 says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Word {
    span: Span,
    key: u64,
}

impl Word {
    const NONE: Self = Self { span: Span { first: 0, last: 0 }, key: 0 };

    fn get(self) -> Option<(Span, u64)> {
        (self.key != 0).then_some((self.span, self.key))
    }

    fn of(word: Option<(Span, u64)>) -> Self {
        word.map_or(Self::NONE, |(span, key)| Self { span, key })
    }
}

/// What an effect knows; nothing at first.
///
/// Stores between two barriers of their CPU know the same but for themselves: that is shared, and
/// the word that each adds stands beside it.
#[derive(Clone, Debug)]
pub(crate) struct View {
    parts: Option<Rc<Parts>>,
    /// The last word that is known stored, if it is not among the parts.
    word: Word,
}

impl Default for View {
    fn default() -> Self {
        Self::NOTHING
    }
}

/// A view without the word of the store whose view it is: what stores between two barriers share.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Option<Rc<Parts>>);

impl Shared {
    /// Prefetches it.
    #[inline]
    pub(crate) fn prefetch(&self) {
        if let Some(parts) = &self.0 {
            prefetch_index(std::slice::from_ref(&**parts), 0);
        }
    }

    /// The view of the store that made the version with this key, of `span`.
    pub(crate) fn of_store(&self, span: Span, key: u64) -> View {
        View { parts: self.0.clone(), word: Word { span, key } }
    }
}

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

impl View {
    pub(crate) const NOTHING: Self = Self { parts: None, word: Word::NONE };

    fn parts(&mut self) -> &mut Parts {
        Rc::make_mut(self.parts.get_or_insert_default())
    }

    /// Known stored.
    pub(crate) fn w(&self) -> Stores {
        let shared = self.parts.as_ref().map_or(NO_STORES, |parts| &parts.w);
        Stores { last: self.word.get(), ..shared.clone() }
    }

    /// Known cleaned.
    fn c(&self) -> &Stores {
        self.parts.as_ref().map_or(NO_STORES, |parts| &parts.c)
    }

    /// Known invalidated after it was cleaned.
    pub(crate) fn i(&self) -> &Stores {
        self.parts.as_ref().map_or(NO_STORES, |parts| &parts.i)
    }

    /// Number of the newest store of `cpu` up to which all are known stored.
    pub(crate) fn stored_by(&self, cpu: CpuId) -> u64 {
        self.parts.as_ref().map_or(0, |parts| parts.w.prefix.of(cpu))
    }

    /// It without the word that was added last, which its store says by itself.
    pub(crate) fn shared(&self) -> Shared {
        Shared(self.parts.clone())
    }

    /// Whether nothing is known.
    pub(crate) fn is_nothing(&self) -> bool {
        self.parts.is_none() && self.word.key == 0
    }

    /// Whether `word` is known.
    fn has(&self, word: Word) -> bool {
        let Word { span, key } = word;
        let shared = self.parts.as_ref().map_or(NO_STORES, |parts| &parts.w);
        key == 0 || shared.covered(key) || shared.knows_with(self.word.get(), span, key)
    }

    /// Whether all that `other` knows is known here; both have parts.
    fn covers(&self, other: &View) -> bool {
        let (Some(mine), Some(theirs)) = (&self.parts, &other.parts) else { return false };
        if !mine.w.prefix.covers(&theirs.w.prefix)
            || !mine.f.covers(&theirs.f)
            || !self.has(other.word)
        {
            return false;
        }
        let words = match (&mine.w.words, &theirs.w.words) {
            (_, None) => true,
            (Some(a), Some(b)) if Rc::ptr_eq(a, b) => true,
            _ => self.w().covers_words(&theirs.w),
        };
        words && mine.c.covers(&theirs.c) && mine.i.covers(&theirs.i)
    }

    /// Adds what `other` knows.
    #[inline]
    pub(crate) fn join(&mut self, other: &View) {
        if !other.is_nothing() {
            self.join_something(other);
        }
    }

    fn join_something(&mut self, other: &View) {
        match (&self.parts, &other.parts) {
            (_, None) => {}
            (None, _) if self.word.key == 0 => {
                *self = other.clone();
                return;
            }
            (Some(mine), Some(theirs)) if Rc::ptr_eq(mine, theirs) => {}
            _ => return self.join_parts(other),
        }
        // They differ by their words alone.
        if self.has(other.word) {
            return;
        }
        if other.has(self.word) {
            self.word = other.word;
        } else {
            self.stored(other.word.span, other.word.key);
        }
    }

    /// Adds the view of a store, which has what it knew and the store itself. Whoever has that
    /// store among the prefixes has all of it: what a CPU gathered of its stores up to one is what
    /// each of them knew.
    #[inline]
    pub(crate) fn join_store(&mut self, other: &View) {
        let key = other.word.key;
        if key == 0 || !self.parts.as_ref().is_some_and(|parts| parts.w.covered(key)) {
            self.join(other);
        }
    }

    fn join_parts(&mut self, other: &View) {
        if self.covers(other) {
            return;
        }
        if other.covers(self) {
            *self = other.clone();
            return;
        }
        self.join_but_fetches(other);
        if let Some(theirs) = &other.parts {
            self.parts().f.join(&theirs.f);
        }
    }

    /// It is the view of no store: all of it is shared.
    pub(crate) fn forget_store(&mut self) {
        let word = std::mem::replace(&mut self.word, Word::NONE);
        if let Some((span, key)) = word.get() {
            let words = self.parts().w.words.get_or_insert_default();
            Rc::make_mut(words).raise(span, key);
        }
    }

    /// Adds what `other` knows to each of `views`; what was one and the same stays so.
    pub(crate) fn join_each<'a>(views: impl Iterator<Item = &'a mut View>, mut other: View) {
        other.settle();
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

    /// What was added last goes to the other words: many are about to have it in common.
    fn settle(&mut self) {
        let last = |stores: &Stores| stores.last.is_some();
        if self.word.key == 0 && !last(self.c()) && !last(self.i()) {
            return;
        }
        let word = std::mem::replace(&mut self.word, Word::NONE);
        let Parts { w, c, i, .. } = self.parts();
        w.last = word.get();
        [w, c, i].into_iter().for_each(Stores::settle);
    }

    /// Adds what `other` knows but for fetches.
    pub(crate) fn join_but_fetches(&mut self, other: &View) {
        if other.is_nothing() {
            return;
        }
        let word = self.word;
        let mine = self.parts();
        mine.w.last = word.get();
        mine.w.join(&other.w());
        mine.c.join(other.c());
        mine.i.join(other.i());
        self.word = Word::of(self.parts().w.last.take());
    }

    /// All of them together.
    pub(crate) fn all(views: &[&View]) -> View {
        let mut all = View::default();
        views.iter().for_each(|view| all.join(view));
        all
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
        self.parts.as_ref().map_or(0, |parts| parts.f.of(cpu) as u32)
    }

    /// The version with this key, of `span`, is known stored.
    pub(crate) fn stored(&mut self, span: Span, key: u64) {
        let Word { span: last, key: before } = self.word;
        let newer = last.meet(span) == Some(last) && before <= key;
        if before != 0 && !newer {
            let words = self.parts().w.words.get_or_insert_default();
            Rc::make_mut(words).raise(last, before);
        }
        self.word = Word { span, key };
    }

    /// All stores of `cpu` up to `stamp` are known.
    pub(crate) fn stored_up_to(&mut self, cpu: CpuId, stamp: u64) {
        self.parts().w.add_prefix(cpu, stamp);
    }

    /// What is known stored in `line` is known cleaned.
    pub(crate) fn clean(&mut self, line: Option<Span>, versions: &Versions) {
        let w = self.w();
        self.parts().c.copy(&w, line, versions);
    }

    /// What is known cleaned (`stored`: stored) in `line`, or everywhere, is known invalidated.
    pub(crate) fn invalidate(&mut self, line: Option<Span>, stored: bool, versions: &Versions) {
        let from = if stored { self.w() } else { self.c().clone() };
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
        let from = if stored { self.w() } else { self.c().clone() };
        self.parts().i.copy_by_virt(&from, line, virt, versions);
    }

    /// Words that stand for themselves.
    pub(crate) fn entries(&self) -> usize {
        let stored = self.parts.as_ref().map_or(0, |parts| parts.w.entries());
        stored + usize::from(self.word.key != 0) + self.c().entries() + self.i().entries()
    }

    /// Whether both are one and the same (not only equal).
    pub(crate) fn same(&self, other: &View) -> bool {
        self.word == other.word && self.same_but_word(other)
    }

    /// Whether both are one and the same but for the last word of each.
    fn same_but_word(&self, other: &View) -> bool {
        match (&self.parts, &other.parts) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    /// Whether it is `other`, or that with one word more, whose version is a store of `cpu` up to
    /// `stamp`.
    pub(crate) fn is_with_own_store(&self, other: &View, cpu: CpuId, stamp: u64) -> bool {
        let Word { key, .. } = self.word;
        let own = key as u16 == cpu.0 && key >> 16 <= stamp;
        self.same_but_word(other) && (own || key == 0 || self.word == other.word)
    }
}
