//! Versions of memory: which stores a word has seen, in coherence order.
//!
//! A version is a store, or a run of plain stores of one CPU to ascending addresses with nothing in
//! between that could tell them apart (a copy loop is one version of a range). Its *stamp* is the
//! number of its first event; stamps of one byte ascend in coherence order, because a stream holds
//! the stores of a byte in that order.
//!
//! Kept per range ([`super::history`]): the newest versions, up to a number, and how many older
//! ones there were. Those that no verdict can reach any more go when the next one comes (see
//! [`super::Settling`]), so that what is kept follows the memory that was stored to, not the
//! number of stores.
//! Not modelled: the bytes of long stores (only single code units are kept, for live patching).

use std::rc::Rc;

use prefetch_index::prefetch_index;
use rustc_hash::FxHashMap;
use textbed_arch::{Arch, CpuId};
use textbed_event::{Batch, Event};

use super::history::Past;
pub(crate) use super::history::{History, Unit, Version, key_of};
use super::notes::{Context, Entry, Fresh};
pub(crate) use super::notes::{Forgotten, Knew, Newest, Note};
use super::regions::Regions;
use crate::mark::{ChainId, Mark};
use crate::shortcuts::{Shortcut, open};
use crate::span::{Span, Spot, WordMap};

/// Contexts kept; with one more a store is kept as a version.
const MAX_CONTEXTS: usize = 1 << 16;

/// A store: a new version, or one that goes on.
#[derive(Debug)]
pub(crate) enum Made {
    New(Version),
    /// One that a note says.
    Noted(Note, Knew),
    /// What [`Versions::going_on`] gave.
    GoesOn(Rc<Version>),
    /// A version that somebody else holds, too.
    Held(Rc<Version>),
}

/// A run of stores that may go on.
#[derive(Debug)]
enum Run {
    /// Its version is the newest one at this address.
    At(u64),
    Version(Rc<Version>),
}

/// The versions of all memory.
#[derive(Default, Debug)]
pub(crate) struct Versions {
    map: WordMap<Entry>,
    /// Where there may be any.
    regions: Regions,
    /// The run of stores that may go on, and the address that would continue it.
    run: Option<(Run, u64)>,
    contexts: Vec<Context>,
    index: FxHashMap<Context, u32>,
    /// The context of the store before.
    last: u32,
}

impl Versions {
    /// Something happened after which a store is no longer part of the run before it.
    pub(crate) fn end_run(&mut self) {
        self.run = None;
    }

    /// Prefetches where the word at `phys` is noted.
    #[inline]
    pub(crate) fn prefetch(&self, phys: u64) {
        self.map.prefetch(phys);
    }

    /// The place where the versions of the word may be, which is prefetched.
    #[inline]
    pub(crate) fn near(&self, phys: u64) -> u32 {
        self.map.near(phys)
    }

    /// Prefetches what the versions in that place keep elsewhere.
    #[inline]
    pub(crate) fn prefetch_there(&self, place: u32) {
        if let Some(Entry::Several(_, notes)) = self.map.at_place(place) {
            // Notes lie across lines; the last one ends where the next would begin.
            (0..=notes.len()).for_each(|at| prefetch_index(notes, at));
        }
    }

    /// And what CPUs knew, which these notes lead to.
    #[inline]
    pub(crate) fn prefetch_known(&self, place: u32) {
        if let Some(Entry::Several(_, notes)) = self.map.at_place(place) {
            notes.iter().for_each(|held| held.knew.prefetch());
        }
    }

    /// Where the store of the word at `phys` is noted, perhaps at `place`, if it is no part of a
    /// run and nothing but words is kept there: for [`Versions::note_at`].
    #[inline]
    pub(crate) fn spot(&mut self, place: u32, phys: u64) -> Option<Spot> {
        let goes_on = self.run.as_ref().is_some_and(|(_, next)| *next == phys);
        let span = Span { first: phys, last: phys | 7 };
        if goes_on { None } else { self.map.spot(place, span) }
    }

    /// The key of the newest version there.
    #[inline]
    pub(crate) fn newest_key(&self, spot: Spot) -> Option<u64> {
        self.map.at_spot(spot).map(Entry::newest_key)
    }

    /// Who stored it, and what it knew, if another CPU than `p` did.
    #[inline]
    pub(crate) fn another_at(&self, spot: Spot, p: CpuId) -> Option<Newest<'_>> {
        let entry = self.map.at_spot(spot).filter(|entry| entry.newest_key() as u16 != p.0)?;
        entry.newest_known()
    }

    /// A plain store of the eight aligned bytes of a unit: as [`Versions::store`] has it, where it
    /// shares its context with the store before ([`Versions::same_context`] has to be asked), and
    /// `spot` is where it is noted.
    #[inline]
    pub(crate) fn note_at(
        &mut self,
        spot: Spot,
        arch: Arch,
        event: &Event,
        bytes: [u8; 8],
        (knew, forgotten): (Knew, Forgotten),
    ) {
        let (at_ns, kind, key) = (event.at_ns, event.kind, key_of(event.seq, event.cpu));
        let (virt, phys, context) = (event.a, event.b, self.last);
        let note = Note { key, at_ns, virt, phys, bytes, context, len: 8, kind };
        match self.map.at_spot_mut(spot) {
            None => {
                self.regions.add(phys >> 12);
                let span = Span { first: phys, last: phys | 7 };
                self.map.fill(spot, span, Fresh::Note(note, knew).alone(Past::default()));
            }
            Some(entry) => {
                let settled = open(Shortcut::Settled);
                let over = settled && matches!((&knew, forgotten), (Knew::Nothing, Forgotten::All));
                if !over || !entry.take_place(&note, arch) {
                    entry.push(&Fresh::Note(note, knew), &self.contexts, arch, |_| match settled {
                        true => forgotten,
                        false => Forgotten::None,
                    });
                }
            }
        }
        self.run = (phys | 7).checked_add(1).map(|next| (Run::At(phys), next));
    }

    /// Whether the event, a store, shares its context with the store before. `chain` gives its
    /// chain of calls.
    #[inline]
    pub(crate) fn same_context(
        &self,
        event: &Event,
        batch: &Batch,
        chain: impl FnOnce() -> ChainId,
    ) -> bool {
        let Some(last) = self.contexts.get(self.last as usize) else { return false };
        let (cause, sure) = (event.cause, Mark::is_sure(event));
        if (cause, sure) != (last.cause, last.sure) {
            return false;
        }
        last.chain == chain() && last.origin == batch.origin(event.origin)
    }

    /// The version that a store at `span` by `cpu` would go on with.
    pub(crate) fn going_on(&self, cpu: CpuId, span: Span, delta: u64) -> Option<Rc<Version>> {
        let (run, next) = self.run.as_ref()?;
        if *next != span.first {
            return None;
        }
        let version = match run {
            Run::At(first) => self.newest(*first)?,
            Run::Version(version) => Rc::clone(version),
        };
        let same = version.cpu == cpu && version.delta == delta && !version.nontemporal;
        same.then_some(version)
    }

    /// The place of a context, if there is room for it.
    fn context(&mut self, mark: &Mark) -> Option<u32> {
        let Mark { cause, chain, origin, sure, .. } = *mark;
        let context = Context { cause, chain, origin, sure };
        if self.contexts.get(self.last as usize) == Some(&context) {
            return Some(self.last);
        }
        let next = self.contexts.len();
        let place = match self.index.get(&context) {
            Some(place) => *place,
            None if next >= MAX_CONTEXTS => return None,
            None => {
                self.contexts.push(context);
                self.index.insert(context, next as u32);
                next as u32
            }
        };
        self.last = place;
        Some(place)
    }

    /// The note that says all of a plain store of one unit, if there is room for what it shares
    /// with others.
    pub(crate) fn note(&mut self, mark: &Mark, unit: &Unit) -> Option<Note> {
        let virt = mark.virt?.0;
        if !open(Shortcut::Noted) {
            return None;
        }
        let Unit { phys, len, bytes } = *unit;
        let (at_ns, kind, key) = (mark.at_ns, mark.kind, key_of(mark.seq, mark.cpu));
        let context = self.context(mark)?;
        Some(Note { key, at_ns, virt, phys, bytes, context, len, kind })
    }

    /// `span` holds a version from now on; a plain one may go on. `settled` says of the newest one
    /// until now, by its place and its key, what is forgotten with the next.
    pub(crate) fn store(
        &mut self,
        arch: Arch,
        span: Span,
        made: Made,
        plain: bool,
        settled: impl Fn(Span, u64) -> Forgotten,
    ) {
        let (fresh, goes_on) = match made {
            Made::GoesOn(version) => (Fresh::Version(version), true),
            Made::Held(version) => (Fresh::Version(version), false),
            Made::New(version) => (Fresh::Version(Rc::new(version)), false),
            Made::Noted(note, knew) => (Fresh::Note(note, knew), false),
        };
        let next = span.last.checked_add(1);
        self.regions.add_span(span);
        if goes_on && self.map.extend(span, |entry| entry.is_only(fresh.stamp())) {
            self.run = self.run.take().and_then(|(run, _)| Some((run, next?)));
            return;
        }
        let contexts = &self.contexts;
        let done = |part, key| match open(Shortcut::Settled) {
            true => settled(part, key),
            false => Forgotten::None,
        };
        let push =
            |part, entry: &mut Entry| entry.push(&fresh, contexts, arch, |key| done(part, key));
        let over = |part, entry: Option<&Entry>| match entry.cloned() {
            Some(mut entry) => {
                push(part, &mut entry);
                Some(entry)
            }
            None => Some(fresh.alone(Past::default())),
        };
        // A version that was just made is in no neighbour: there is nothing to join.
        if goes_on {
            self.map.update(span, over);
        } else if !self.map.put_cell(span, |there| match there {
            Some(entry) => {
                push(span, entry);
                None
            }
            None => Some(fresh.alone(Past::default())),
        }) {
            if let Some(entry) = self.map.exact_mut(span) {
                push(span, entry);
            } else if self.map.meets(span) {
                self.map.update(span, over);
            } else {
                self.map.enter(span, fresh.alone(Past::default()));
            }
        }
        self.run = match goes_on {
            true => self.run.take().and_then(|(run, _)| Some((run, next?))),
            false => next.filter(|_| plain).map(|next| match fresh {
                Fresh::Note(..) => (Run::At(span.first), next),
                Fresh::Version(version) => (Run::Version(version), next),
            }),
        };
    }

    /// The newest stamps in `span`, with where they are.
    pub(crate) fn newest_in(&self, span: Span) -> impl Iterator<Item = (Span, u64)> + '_ {
        self.map.parts(span).map(|(part, entry)| (part, entry.newest()))
    }

    /// Nothing asks for the versions of `span` any more.
    pub(crate) fn forget(&mut self, span: Span) {
        self.run = None;
        self.map.remove(span);
    }

    /// Whether anybody stored to any of `span`.
    pub(crate) fn any_in(&self, span: Span) -> bool {
        self.regions.may_meet(span) && self.map.meets(span)
    }

    /// Hands the stamp of every version that is kept to `take`, in no order.
    pub(crate) fn stamps(&self, mut take: impl FnMut(u64)) {
        self.map.values().for_each(|entry| entry.stamps().1.for_each(&mut take));
    }

    /// Ranges with a history.
    pub(crate) fn entries(&self) -> usize {
        self.map.entries()
    }

    pub(crate) fn within(&self, span: Span) -> impl Iterator<Item = (Span, History)> + '_ {
        self.map.parts(span).map(|(part, entry)| (part, entry.history(&self.contexts)))
    }

    /// The newest version of the byte at `phys` among those of events up to `stamp`.
    pub(crate) fn newest_at(&self, phys: u64, stamp: u64) -> Option<Rc<Version>> {
        let history = self.map.get(phys)?.1.history(&self.contexts);
        history.versions.iter().rev().find(|v| v.stamp <= stamp).cloned()
    }

    /// The newest version of the byte at `phys`.
    pub(crate) fn newest(&self, phys: u64) -> Option<Rc<Version>> {
        self.map.get(phys)?.1.newest_version(&self.contexts)
    }

    /// Who stored the newest version of the byte at `phys`, if `p` did not, and what it knew.
    pub(crate) fn newest_of_another(&self, phys: u64, p: CpuId) -> Option<Newest<'_>> {
        self.map.get(phys)?.1.newest_known().filter(|newest| newest.cpu != p)
    }
}
