//! Values of spans that are no cells, in order, with a quick answer where there are none.
//!
//! Where most spans are cells, most look-ups of what is no cell find nothing: a bit for each block
//! of addresses in which a wide span lies says so without a walk down a tree. A few spans need no
//! tree at all: they stand one behind the other, and their room stays when they go.

use std::collections::BTreeMap;

use super::Span;

/// Bytes of a block, as a power of two.
const BLOCK: u32 = 12;
/// Blocks of one span that are noted one by one; a longer span is looked for from everywhere.
const MAX_BLOCKS: u64 = 16;
const WORDS: usize = 64;

/// Spans kept one behind the other, without a tree: mostly there are few, which come and go.
const FEW: usize = 8;

/// Values by first address, with the last one.
#[derive(Clone, Debug)]
pub(super) struct Wide<V> {
    /// In order, while there are few, and room for these stays; else none.
    few: Vec<(u64, (u64, V))>,
    map: BTreeMap<u64, (u64, V)>,
    /// By a hash of the block: whether a span may lie there. Bits go when the last span does.
    blocks: Option<Box<[u64; WORDS]>>,
    everywhere: bool,
}

impl<V> Default for Wide<V> {
    fn default() -> Self {
        Self { few: Vec::new(), map: BTreeMap::new(), blocks: None, everywhere: false }
    }
}

fn bit(block: u64) -> (usize, u64) {
    let hash = block.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
    ((hash >> 6) as usize % WORDS, 1 << (hash & 63))
}

impl<V> Wide<V> {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.few.is_empty() && self.map.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.few.len() + self.map.len()
    }

    /// Where among the few a span begins, or would.
    fn place(&self, first: u64) -> Result<usize, usize> {
        let at = self.few.iter().position(|(there, _)| *there >= first).unwrap_or(self.few.len());
        let is = self.few.get(at).is_some_and(|(there, _)| *there == first);
        if is { Ok(at) } else { Err(at) }
    }

    /// What begins last up to `at`.
    fn last_up_to(&self, at: u64) -> Option<(u64, &(u64, V))> {
        if self.map.is_empty() {
            let few = self.few.iter().rev().find(|(first, _)| *first <= at);
            return few.map(|(first, rest)| (*first, rest));
        }
        self.map.range(..=at).next_back().map(|(first, rest)| (*first, rest))
    }

    /// What begins just there.
    fn there(&self, first: u64) -> Option<&(u64, V)> {
        match self.place(first) {
            Ok(at) => self.few.get(at).map(|(_, rest)| rest),
            Err(_) => self.map.get(&first),
        }
    }

    fn there_mut(&mut self, first: u64) -> Option<&mut (u64, V)> {
        match self.place(first) {
            Ok(at) => self.few.get_mut(at).map(|(_, rest)| rest),
            Err(_) => self.map.get_mut(&first),
        }
    }

    /// Whether any span may meet this one.
    fn may_meet(&self, span: Span) -> bool {
        let Some(blocks) = self.blocks.as_ref().filter(|_| !self.is_empty()) else { return false };
        let (first, last) = (span.first >> BLOCK, span.last >> BLOCK);
        let noted = |block| {
            let (word, bit) = bit(block);
            blocks[word] & bit != 0
        };
        self.everywhere || last - first >= MAX_BLOCKS || (first..=last).any(noted)
    }

    fn note(&mut self, span: Span) {
        let (first, last) = (span.first >> BLOCK, span.last >> BLOCK);
        let blocks = self.blocks.get_or_insert_with(|| Box::new([0; WORDS]));
        self.everywhere |= last - first >= MAX_BLOCKS;
        for block in (first..=last).take(MAX_BLOCKS as usize) {
            let (word, bit) = bit(block);
            blocks[word] |= bit;
        }
    }

    /// The entry that holds `at`.
    pub(super) fn at(&self, at: u64) -> Option<(Span, &V)> {
        if !self.may_meet(Span { first: at, last: at }) {
            return None;
        }
        let (first, (last, value)) = self.last_up_to(at)?;
        (*last >= at).then_some((Span { first, last: *last }, value))
    }

    /// Whether any entry meets `span`.
    #[inline]
    pub(super) fn meets(&self, span: Span) -> bool {
        if self.is_empty() {
            return false;
        }
        let last = || self.last_up_to(span.last);
        self.may_meet(span) && last().is_some_and(|(_, (last, _))| *last >= span.first)
    }

    /// Every value.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        let few = self.few.iter().map(|(_, (_, value))| value);
        few.chain(self.map.values().map(|(_, value)| value))
    }

    /// The entries that begin in `span`, in order.
    pub(super) fn from(&self, span: Span) -> impl Iterator<Item = (Span, &V)> {
        let few = self.few.iter().filter(move |(first, _)| span.has(*first));
        let few = few.map(|(first, rest)| (first, rest));
        let some = self.may_meet(span).then(|| self.map.range(span.first..=span.last));
        let entries = few.chain(some.into_iter().flatten());
        entries.map(|(first, (last, value))| (Span { first: *first, last: *last }, value))
    }

    /// The value of `span`, if it is an entry by itself.
    pub(super) fn get(&self, span: Span) -> Option<&V> {
        if !self.may_meet(span) {
            return None;
        }
        self.there(span.first).filter(|(last, _)| *last == span.last).map(|(_, v)| v)
    }

    pub(super) fn get_mut(&mut self, span: Span) -> Option<&mut V> {
        if !self.may_meet(span) {
            return None;
        }
        self.there_mut(span.first).filter(|(last, _)| *last == span.last).map(|(_, v)| v)
    }

    /// Lets the entry that begins where `span` does end where that ends.
    pub(super) fn extend(&mut self, span: Span) {
        if let Some((last, _)) = self.there_mut(span.first) {
            let more = Span { first: *last, last: span.last };
            *last = span.last;
            self.note(more);
        }
    }

    /// Puts an entry over a span that is free.
    pub(super) fn insert(&mut self, span: Span, value: V) {
        self.note(span);
        let entry = (span.last, value);
        if !self.map.is_empty() || self.few.len() == FEW {
            self.map.extend(self.few.drain(..));
            self.map.insert(span.first, entry);
        } else if let Err(at) = self.place(span.first) {
            self.few.insert(at, (span.first, entry));
        }
    }

    /// Takes the entry out that begins where `span` does.
    pub(super) fn remove(&mut self, span: Span) -> Option<V> {
        let gone = match self.place(span.first) {
            Ok(at) => self.few.remove(at).1,
            Err(_) => self.map.remove(&span.first)?,
        };
        if self.is_empty() {
            if let Some(blocks) = &mut self.blocks {
                blocks.fill(0);
            }
            self.everywhere = false;
        }
        Some(gone.1)
    }
}
