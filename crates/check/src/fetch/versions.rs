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

use std::cell::Cell;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::{CallRef, Kind, Origin};

pub(crate) use super::history::{History, Kept, Unit, Version, key_of};
use super::history::{Past, Traps};
use crate::mark::{ChainId, Mark};
use crate::shortcuts::{Shortcut, open};
use crate::span::{Piece, Span, WordMap};

/// A store of a few bytes of which nothing is known but the event itself: what is kept of most, and
/// made a [`Version`] when somebody asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    /// See [`Version::key`].
    key: u64,
    at_ns: u64,
    virt: u64,
    phys: u64,
    bytes: [u8; 8],
    /// Place in [`Versions::contexts`].
    context: u32,
    len: u8,
    kind: Kind,
}

/// What many stores share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Context {
    cause: CallRef,
    chain: ChainId,
    origin: Option<Origin>,
    sure: bool,
}

/// Contexts kept; with one more a store is kept as a version.
const MAX_CONTEXTS: usize = 1 << 16;

impl Note {
    fn stamp(&self) -> u64 {
        self.key >> 16
    }

    fn cpu(&self) -> CpuId {
        CpuId(self.key as u16)
    }

    fn delta(&self) -> u64 {
        self.virt.wrapping_sub(self.phys)
    }

    fn unit(&self) -> Unit {
        Unit { phys: self.phys, len: self.len, bytes: self.bytes }
    }

    fn version(&self, contexts: &[Context]) -> Rc<Version> {
        let context = contexts.get(self.context as usize);
        let (stamp, cpu) = (self.stamp(), self.cpu());
        let mark = Mark {
            seq: stamp,
            at_ns: self.at_ns,
            virt: Some(VirtAddr(self.virt)),
            origin: context.and_then(|c| c.origin),
            cause: context.map_or(CallRef::NONE, |c| c.cause),
            chain: context.map_or(ChainId::EMPTY, |c| c.chain),
            cpu,
            kind: self.kind,
            sure: context.is_some_and(|c| c.sure),
        };
        Rc::new(Version {
            stamp,
            cpu,
            mark,
            delta: self.delta(),
            nontemporal: false,
            fenced: Cell::new(0),
            unit: Some(self.unit()),
            view: None,
            clock: None,
        })
    }
}

/// What is kept of one range.
#[derive(Clone, Debug)]
enum Entry {
    /// One store, and what there was before it.
    Noted(Past, Note),
    Kept(History),
}

impl Entry {
    fn history(&self, contexts: &[Context]) -> History {
        match self {
            Entry::Noted(forgotten, note) => {
                let versions = Kept::One(note.version(contexts));
                History { forgotten: *forgotten, versions }
            }
            Entry::Kept(history) => history.clone(),
        }
    }

    /// The stamp of the newest version.
    fn newest(&self) -> u64 {
        match self {
            Entry::Noted(_, note) => note.stamp(),
            Entry::Kept(history) => history.newest().map_or(0, |v| v.stamp),
        }
    }

    /// It as the past of what comes next; nothing where something about it has to stay.
    fn past(&self, arch: Arch) -> Option<Past> {
        match self {
            Entry::Noted(past, note) => {
                let traps = past.traps.and(Traps::of(arch, &note.unit())?);
                Some(Past { count: past.count + 1, traps })
            }
            Entry::Kept(history) => history.past(arch),
        }
    }

    /// Whether it is this version and nothing else.
    fn is_only(&self, stamp: u64) -> bool {
        match self {
            Entry::Noted(past, note) => *past == Past::default() && note.stamp() == stamp,
            Entry::Kept(h) => {
                h.forgotten == Past::default()
                    && h.versions.len() == 1
                    && h.versions[0].stamp == stamp
            }
        }
    }
}

impl Piece for Entry {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        // A stamp names one version.
        match (self, next) {
            (Entry::Noted(f, a), Entry::Noted(g, b)) => (f, a.key) == (g, b.key),
            (Entry::Kept(a), Entry::Kept(b)) => {
                a.forgotten == b.forgotten
                    && a.versions.len() == b.versions.len()
                    && a.versions.iter().zip(b.versions.iter()).all(|(a, b)| a.stamp == b.stamp)
            }
            (Entry::Noted(f, a), Entry::Kept(b)) | (Entry::Kept(b), Entry::Noted(f, a)) => {
                b.forgotten == *f && b.versions.len() == 1 && b.versions[0].stamp == a.stamp()
            }
        }
    }
}

/// A store: a new version, or one that goes on.
#[derive(Debug)]
pub(crate) enum Made {
    New(Version),
    /// One that a note says.
    Noted(Note),
    /// What [`Versions::going_on`] gave.
    GoesOn(Rc<Version>),
    /// A version that somebody else holds, too.
    Held(Rc<Version>),
}

/// A new version, as it is entered.
#[derive(Debug)]
enum Fresh {
    Note(Note),
    Version(Rc<Version>),
}

impl Fresh {
    /// It as the newest of a range, of which `there` was known.
    fn over(
        &self,
        there: Option<&Entry>,
        contexts: &[Context],
        arch: Arch,
        settled: impl Fn(&Entry) -> bool,
    ) -> Entry {
        let past = there.map(|entry| if settled(entry) { entry.past(arch) } else { None });
        let forgotten = match (there, past) {
            (Some(entry), Some(None)) => {
                let mut history = entry.history(contexts);
                history.push(arch, &self.version(contexts));
                return Entry::Kept(history);
            }
            (_, past) => past.flatten().unwrap_or_default(),
        };
        match self {
            Fresh::Note(note) => Entry::Noted(forgotten, *note),
            Fresh::Version(version) => {
                Entry::Kept(History { forgotten, versions: Kept::One(Rc::clone(version)) })
            }
        }
    }

    fn version(&self, contexts: &[Context]) -> Rc<Version> {
        match self {
            Fresh::Note(note) => note.version(contexts),
            Fresh::Version(version) => Rc::clone(version),
        }
    }

    fn stamp(&self) -> u64 {
        match self {
            Fresh::Note(note) => note.stamp(),
            Fresh::Version(version) => version.stamp,
        }
    }
}

/// The versions of all memory.
#[derive(Default, Debug)]
pub(crate) struct Versions {
    map: WordMap<Entry>,
    /// The run of stores that may go on: its version, and the address that would continue it.
    run: Option<(Fresh, u64)>,
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

    /// Has the processor read what a store to `phys` will read; what that is says nothing.
    #[inline]
    pub(crate) fn touch(&self, phys: u64) -> u64 {
        self.map.touch(phys)
    }

    /// The version that a store at `span` by `cpu` would go on with.
    pub(crate) fn going_on(&self, cpu: CpuId, span: Span, delta: u64) -> Option<Rc<Version>> {
        let (version, next) = self.run.as_ref()?;
        if *next != span.first {
            return None;
        }
        let same = match version {
            Fresh::Note(note) => note.cpu() == cpu && note.delta() == delta,
            Fresh::Version(v) => v.cpu == cpu && v.delta == delta && !v.nontemporal,
        };
        same.then(|| version.version(&self.contexts))
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

    /// The note that says all of a plain store of one unit, of which it is not asked what its CPU
    /// knew, if there is room for what it shares with others.
    pub(crate) fn note(&mut self, mark: &Mark, unit: &Unit) -> Option<Made> {
        let virt = mark.virt?.0;
        if !open(Shortcut::Noted) {
            return None;
        }
        let Unit { phys, len, bytes } = *unit;
        let (at_ns, kind, key) = (mark.at_ns, mark.kind, key_of(mark.seq, mark.cpu));
        let context = self.context(mark)?;
        Some(Made::Noted(Note { key, at_ns, virt, phys, bytes, context, len, kind }))
    }

    /// `span` holds a version from now on; a plain one may go on. `settled` says of a stamp, and
    /// where it is, that it and what came before are forgotten with the next version.
    pub(crate) fn store(
        &mut self,
        arch: Arch,
        span: Span,
        made: Made,
        plain: bool,
        settled: impl Fn(Span, u64) -> bool,
    ) {
        let (fresh, goes_on) = match made {
            Made::GoesOn(version) => (Fresh::Version(version), true),
            Made::Held(version) => (Fresh::Version(version), false),
            Made::New(version) => (Fresh::Version(Rc::new(version)), false),
            Made::Noted(note) => (Fresh::Note(note), false),
        };
        let next = span.last.checked_add(1);
        if goes_on && self.map.extend(span, |entry| entry.is_only(fresh.stamp())) {
            self.run = self.run.take().and_then(|(run, _)| Some((run, next?)));
            return;
        }
        let contexts = &self.contexts;
        let done =
            |part: Span, entry: &Entry| open(Shortcut::Settled) && settled(part, entry.newest());
        let over =
            |part, entry: Option<&Entry>| fresh.over(entry, contexts, arch, |e| done(part, e));
        // A version that was just made is in no neighbour: there is nothing to join.
        if goes_on {
            self.map.update(span, |part, entry| Some(over(part, entry)));
        } else if !self.map.put_cell(span, |entry| over(span, entry)) {
            if let Some(entry) = self.map.exact_mut(span) {
                *entry = over(span, Some(entry));
            } else if self.map.meets(span) {
                self.map.update(span, |part, entry| Some(over(part, entry)));
            } else {
                self.map.enter(span, over(span, None));
            }
        }
        self.run = match goes_on {
            true => self.run.take().and_then(|(run, _)| Some((run, next?))),
            false => next.filter(|_| plain).map(|next| (fresh, next)),
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
        self.map.meets(span)
    }

    /// Hands the stamp of every version that is kept to `take`, in no order.
    pub(crate) fn stamps(&self, mut take: impl FnMut(u64)) {
        for entry in self.map.values() {
            match entry {
                Entry::Noted(_, note) => take(note.stamp()),
                Entry::Kept(history) => history.versions.iter().for_each(|v| take(v.stamp)),
            }
        }
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
        match self.map.get(phys)?.1 {
            Entry::Noted(_, note) => Some(note.version(&self.contexts)),
            Entry::Kept(history) => history.newest().cloned(),
        }
    }
}
