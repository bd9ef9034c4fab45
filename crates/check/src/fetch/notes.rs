//! Stores as notes: what is kept of a version until somebody asks for all of it.
//!
//! A note is a fourth of a version, and a range with several needs no more than a list of them.
//! What does not fit (long and non-temporal stores, runs of stores) is kept as versions
//! ([`super::history`]).

use std::cell::Cell;
use std::rc::Rc;

use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::{CallRef, Kind, Origin};

use super::clock::Clock;
use super::history::{History, Kept, MAX_VERSIONS, Past, Traps, Unit, Version};
use super::views::{Shared, View};
use crate::mark::{ChainId, Mark};
use crate::span::{Piece, Span};

/// A store of a few bytes of which nothing is known but the event itself: what is kept of most, and
/// made a [`Version`] when somebody asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Note {
    /// See [`Version::key`].
    pub(super) key: u64,
    pub(super) at_ns: u64,
    pub(super) virt: u64,
    pub(super) phys: u64,
    pub(super) bytes: [u8; 8],
    /// Its place among [`Context`]s.
    pub(super) context: u32,
    pub(super) len: u8,
    pub(super) kind: Kind,
}

/// What the CPU of a store knew, by real edges.
#[derive(Clone, Debug)]
pub(crate) enum Knew {
    /// Nobody asks.
    Nothing,
    /// On x86, of others.
    Clock(Clock),
    /// On weakly ordered architectures, besides of the store itself.
    View(Shared),
}

impl Knew {
    pub(crate) fn clock(&self) -> Option<&Clock> {
        match self {
            Knew::Clock(clock) => Some(clock),
            _ => None,
        }
    }

    /// Prefetches what it leads to.
    #[inline]
    pub(super) fn prefetch(&self) {
        match self {
            Knew::Nothing => {}
            Knew::Clock(clock) => clock.prefetch(),
            Knew::View(shared) => shared.prefetch(),
        }
    }

    /// The view of the store that this is of.
    fn view(&self, note: &Note) -> Option<View> {
        match self {
            Knew::View(shared) => Some(shared.of_store(note.span()?, note.key)),
            _ => None,
        }
    }
}

/// A note with what its CPU knew.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) note: Note,
    pub(super) knew: Knew,
}

/// What many stores share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Context {
    pub(super) cause: CallRef,
    pub(super) chain: ChainId,
    pub(super) origin: Option<Origin>,
    pub(super) sure: bool,
}

impl Note {
    pub(super) fn stamp(&self) -> u64 {
        self.key >> 16
    }

    pub(super) fn cpu(&self) -> CpuId {
        CpuId(self.key as u16)
    }

    fn span(&self) -> Option<Span> {
        Span::of(self.phys, u64::from(self.len))
    }

    pub(super) fn delta(&self) -> u64 {
        self.virt.wrapping_sub(self.phys)
    }

    fn unit(&self) -> Unit {
        Unit { phys: self.phys, len: self.len, bytes: self.bytes }
    }

    fn version(&self, contexts: &[Context], knew: &Knew) -> Rc<Version> {
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
            view: knew.view(self),
            clock: knew.clock().cloned(),
        })
    }
}

/// Which versions of a range no verdict can reach any more, now that another one comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Forgotten {
    None,
    /// Those before the newest.
    Older,
    All,
}

/// What is kept of one range.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// One store of which nobody asks what its CPU knew, and what there was before it.
    Noted(Past, Note),
    /// Some stores, oldest first, and what there was before them.
    Several(Past, Vec<Held>),
    Kept(History),
}

/// What is said of the newest version of a range.
#[derive(Debug)]
pub(crate) struct Newest<'a> {
    pub(crate) cpu: CpuId,
    pub(crate) stamp: u64,
    pub(crate) clock: Option<&'a Clock>,
    pub(crate) view: Option<View>,
}

impl<'a> From<&'a Version> for Newest<'a> {
    fn from(v: &'a Version) -> Self {
        Self { cpu: v.cpu, stamp: v.stamp, clock: v.clock.as_ref(), view: v.view.clone() }
    }
}

impl Entry {
    pub(super) fn history(&self, contexts: &[Context]) -> History {
        match self {
            Entry::Noted(forgotten, note) => {
                let versions = Kept::One(note.version(contexts, &Knew::Nothing));
                History { forgotten: *forgotten, versions }
            }
            Entry::Several(forgotten, notes) => {
                let all = notes.iter().map(|held| held.note.version(contexts, &held.knew));
                History { forgotten: *forgotten, versions: Kept::of(all) }
            }
            Entry::Kept(history) => history.clone(),
        }
    }

    /// The key of the newest version.
    pub(super) fn newest_key(&self) -> u64 {
        match self {
            Entry::Noted(_, note) => note.key,
            Entry::Several(_, notes) => notes.last().map_or(0, |held| held.note.key),
            Entry::Kept(history) => history.newest().map_or(0, |v| v.key()),
        }
    }

    /// The stamp of the newest version.
    pub(super) fn newest(&self) -> u64 {
        self.newest_key() >> 16
    }

    /// Who stored the newest version, and what it knew.
    pub(super) fn newest_known(&self) -> Option<Newest<'_>> {
        match self {
            Entry::Noted(_, note) => {
                Some(Newest { cpu: note.cpu(), stamp: note.stamp(), clock: None, view: None })
            }
            Entry::Several(_, notes) => {
                let Held { note, knew } = notes.last()?;
                let (clock, view) = (knew.clock(), knew.view(note));
                Some(Newest { cpu: note.cpu(), stamp: note.stamp(), clock, view })
            }
            Entry::Kept(history) => history.newest().map(|v| Newest::from(&**v)),
        }
    }

    /// The newest version.
    pub(super) fn newest_version(&self, contexts: &[Context]) -> Option<Rc<Version>> {
        match self {
            Entry::Noted(_, note) => Some(note.version(contexts, &Knew::Nothing)),
            Entry::Several(_, notes) => {
                notes.last().map(|held| held.note.version(contexts, &held.knew))
            }
            Entry::Kept(history) => history.newest().cloned(),
        }
    }

    /// It as the past of what comes next; nothing where something about it has to stay.
    fn past(&self, arch: Arch) -> Option<Past> {
        match self {
            Entry::Noted(past, note) => past.and(arch, note),
            Entry::Several(past, notes) => {
                notes.iter().try_fold(*past, |past, held| past.and(arch, &held.note))
            }
            Entry::Kept(history) => history.past(arch),
        }
    }

    /// The stamps of its versions, and what there was before them.
    pub(super) fn stamps(&self) -> (Past, impl Iterator<Item = u64> + '_) {
        let (past, one, some, kept) = match self {
            Entry::Noted(past, note) => (*past, Some(note.stamp()), &[][..], &[][..]),
            Entry::Several(past, notes) => (*past, None, notes.as_slice(), &[][..]),
            Entry::Kept(history) => (history.forgotten, None, &[][..], &history.versions[..]),
        };
        let some = some.iter().map(|held| held.note.stamp());
        (past, one.into_iter().chain(some).chain(kept.iter().map(|version| version.stamp)))
    }

    /// Whether it is this version and nothing else.
    pub(super) fn is_only(&self, stamp: u64) -> bool {
        let (past, stamps) = self.stamps();
        past == Past::default() && stamps.eq([stamp])
    }

    /// One version more, of which `settled` says which of those before it are forgotten; the oldest
    /// is, where there are too many.
    pub(super) fn push(
        &mut self,
        fresh: &Fresh,
        contexts: &[Context],
        arch: Arch,
        settled: impl FnOnce(u64) -> Forgotten,
    ) {
        match settled(self.newest_key()) {
            Forgotten::None => {}
            Forgotten::Older => self.forget_older(arch),
            Forgotten::All => {
                if let Some(past) = self.past(arch) {
                    *self = fresh.alone(past);
                    return;
                }
            }
        }
        if let (Fresh::Note(note, knew), Entry::Noted(past, first)) = (fresh, &*self) {
            let (first, next) = (Held { note: *first, knew: Knew::Nothing }, knew.clone());
            let mut notes = Vec::with_capacity(2);
            notes.extend([first, Held { note: *note, knew: next }]);
            *self = Entry::Several(*past, notes);
            return;
        }
        if let (Fresh::Note(note, knew), Entry::Several(past, notes)) = (fresh, &mut *self) {
            if notes.len() >= MAX_VERSIONS {
                let oldest = notes.remove(0).note;
                *past = past.and(arch, &oldest).unwrap_or(Past { count: past.count + 1, ..*past });
            } else if notes.len() == notes.capacity() {
                notes.reserve_exact(notes.len());
            }
            notes.push(Held { note: *note, knew: knew.clone() });
            return;
        }
        let mut history = self.history(contexts);
        history.push(arch, &fresh.version(contexts));
        *self = Entry::Kept(history);
    }
}

impl Entry {
    /// A note takes the place of the only one that there is, if that may be forgotten; whether it
    /// did.
    #[inline]
    pub(super) fn take_place(&mut self, note: &Note, arch: Arch) -> bool {
        let Entry::Noted(past, only) = self else { return false };
        let Some(older) = past.and(arch, only) else { return false };
        (*past, *only) = (older, *note);
        true
    }

    /// Only the newest of some notes is kept, if what there was before it may be forgotten.
    fn forget_older(&mut self, arch: Arch) {
        let Entry::Several(past, notes) = self else { return };
        let Some((_, older)) = notes.split_last() else { return };
        let all = older.iter().try_fold(*past, |past, held| past.and(arch, &held.note));
        if let Some(all) = all {
            *past = all;
            notes.drain(..older.len());
            notes.shrink_to(2);
        }
    }
}

impl Past {
    /// The same with one version more, which may be forgotten.
    fn and(self, arch: Arch, note: &Note) -> Option<Self> {
        let traps = self.traps.and(Traps::of(arch, &note.unit())?);
        Some(Past { count: self.count + 1, traps })
    }
}

impl Piece for Entry {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        // A stamp names one version.
        let ((past, stamps), (other, others)) = (self.stamps(), next.stamps());
        past == other && stamps.eq(others)
    }
}

/// A new version, as it is entered.
#[derive(Debug)]
pub(super) enum Fresh {
    Note(Note, Knew),
    Version(Rc<Version>),
}

impl Fresh {
    /// It alone, with what there was before it.
    pub(super) fn alone(&self, past: Past) -> Entry {
        match self {
            Fresh::Note(note, Knew::Nothing) => Entry::Noted(past, *note),
            Fresh::Note(note, knew) => {
                // With room for one: most words are stored to once.
                Entry::Several(past, vec![Held { note: *note, knew: knew.clone() }])
            }
            Fresh::Version(version) => {
                let versions = Kept::One(Rc::clone(version));
                Entry::Kept(History { forgotten: past, versions })
            }
        }
    }

    pub(super) fn version(&self, contexts: &[Context]) -> Rc<Version> {
        match self {
            Fresh::Note(note, knew) => note.version(contexts, knew),
            Fresh::Version(version) => Rc::clone(version),
        }
    }

    pub(super) fn stamp(&self) -> u64 {
        match self {
            Fresh::Note(note, _) => note.stamp(),
            Fresh::Version(version) => version.stamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(stamp: u64) -> Fresh {
        let (key, kind, bytes) = (stamp << 16 | 1, Kind::Store, [0x90; 8]);
        let (virt, phys, len) = (0xffff_8000_0000_1000, 0x1000, 8);
        let at_ns = textbed_event::Event::NO_TIME;
        Fresh::Note(Note { key, at_ns, virt, phys, bytes, context: 0, len, kind }, Knew::Nothing)
    }

    /// Stores one behind the other, each with what is forgotten then: the stamps that are left, and
    /// how many are not.
    fn left(stores: &[(u64, Forgotten)]) -> (Vec<u64>, u32) {
        let mut entry = store(1).alone(Past::default());
        for (stamp, forgotten) in stores {
            entry.push(&store(*stamp), &[], Arch::X86_64, |key| {
                assert!(key >> 16 < *stamp && key as u16 == 1);
                *forgotten
            });
        }
        let (past, stamps) = entry.stamps();
        (stamps.collect(), past.count)
    }

    #[test]
    fn older_ones_go_and_the_newest_stays_where_windows_may_begin_with_it() {
        use Forgotten::{All, None, Older};
        assert_eq!(left(&[(2, None), (3, None)]), (vec![1, 2, 3], 0));
        assert_eq!(left(&[(2, None), (3, Older)]), (vec![2, 3], 1));
        assert_eq!(left(&[(2, None), (3, None), (4, Older), (5, Older)]), (vec![4, 5], 3));
        assert_eq!(left(&[(2, Older)]), (vec![1, 2], 0), "one is all that there is");
        assert_eq!(left(&[(2, None), (3, Older), (4, All)]), (vec![4], 3));
    }
}
