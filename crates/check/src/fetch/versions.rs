//! Versions of memory: which stores a word has seen, in coherence order.
//!
//! A version is a store, or a run of plain stores of one CPU to ascending addresses with nothing in
//! between that could tell them apart (a copy loop is one version of a range). Its *stamp* is the
//! number of its first event; stamps of one byte ascend in coherence order, because a stream holds
//! the stores of a byte in that order.
//!
//! Kept per range: the newest versions, up to [`MAX_VERSIONS`], and how many older ones there were.
//! Those that no verdict can reach any more go when the next one comes (see `Fetches::settled`), so
//! that what is kept follows the memory that was stored to, not the number of stores.
//! Not modelled: the bytes of long stores (only single code units are kept, for live patching).

use std::cell::Cell;
use std::rc::Rc;

use textbed_arch::{Arch, CpuId, trap};

use super::clock::Clock;
use super::views::View;
use crate::mark::Mark;
use crate::span::{Piece, Span, WordMap};

/// Versions kept for one range.
const MAX_VERSIONS: usize = 8;

/// What a store made.
#[derive(Debug)]
pub(crate) struct Version {
    /// Number of its first event.
    pub(crate) stamp: u64,
    pub(crate) cpu: CpuId,
    pub(crate) mark: Mark,
    /// The virtual address used minus the physical one.
    pub(crate) delta: u64,
    /// x86: a non-temporal store, which needs a fence.
    pub(crate) nontemporal: bool,
    /// Number of the fence after it; 0 = none yet.
    pub(crate) fenced: Cell<u64>,
    /// The bytes, if they are one code unit.
    pub(crate) unit: Option<Unit>,
    /// What its CPU knew (weakly ordered architectures, predicted).
    pub(crate) view: Option<View>,
    /// What its CPU knew of others (x86).
    pub(crate) clock: Option<Clock>,
}

impl Version {
    /// Its stamp and its CPU in one word; keys of one byte ascend as stamps do. Stamps are below
    /// 2^48: the checker takes no other events.
    #[inline]
    pub(crate) fn key(&self) -> u64 {
        self.stamp << 16 | u64::from(self.cpu.0)
    }
}

impl Version {
    /// A non-temporal store that no fence followed.
    pub(crate) fn waits_for_fence(&self) -> bool {
        self.nontemporal && self.fenced.get() == 0
    }

    /// Whether its bytes are, or hold, a trap.
    pub(crate) fn may_trap(&self, arch: Arch) -> bool {
        let unit = if arch == Arch::X86_64 { 1 } else { 4 };
        self.unit.is_some_and(|u| {
            let bytes = u.bytes.get(..usize::from(u.len)).unwrap_or(&[]);
            bytes.windows(unit).any(|b| trap::is_trap_fill(arch, b))
        })
    }
}

/// A stored code unit: address and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unit {
    pub(crate) phys: u64,
    pub(crate) len: u8,
    pub(crate) bytes: [u8; 8],
}

/// The versions of one range, oldest first; version 0, what was there before the first one, has no
/// entry.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Versions that are not kept any more.
    pub(crate) forgotten: u32,
    pub(crate) versions: Kept,
}

/// The versions kept of a history: most memory is stored to once between two looks.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    One(Rc<Version>),
    Many(Rc<Vec<Rc<Version>>>),
}

impl std::ops::Deref for Kept {
    type Target = [Rc<Version>];

    fn deref(&self) -> &[Rc<Version>] {
        match self {
            Kept::One(version) => std::slice::from_ref(version),
            Kept::Many(versions) => versions,
        }
    }
}

impl History {
    pub(crate) fn newest(&self) -> Option<&Rc<Version>> {
        self.versions.last()
    }

    /// Number of the newest version known at `stamp`, counted from 0 = before all stores.
    pub(crate) fn number_at(&self, stamp: u64) -> u32 {
        let known = self.versions.iter().filter(|v| v.stamp <= stamp).count() as u32;
        if known == 0 { 0 } else { self.forgotten + known }
    }

    /// Number of the newest version.
    pub(crate) fn newest_number(&self) -> u32 {
        self.forgotten + self.versions.len() as u32
    }

    /// One version more; the oldest is forgotten where there are too many, and all of them where
    /// `settled` says so of the newest.
    fn push(&mut self, version: &Rc<Version>, settled: bool) {
        if settled {
            self.forgotten += self.versions.len() as u32;
            self.versions = Kept::One(Rc::clone(version));
            return;
        }
        match &mut self.versions {
            Kept::One(first) => {
                let mut versions = Vec::with_capacity(2);
                versions.extend([Rc::clone(first), Rc::clone(version)]);
                self.versions = Kept::Many(Rc::new(versions));
            }
            Kept::Many(versions) => {
                let versions = Rc::make_mut(versions);
                if versions.len() >= MAX_VERSIONS {
                    versions.remove(0);
                    self.forgotten += 1;
                }
                versions.push(Rc::clone(version));
            }
        }
    }
}

impl Piece for History {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        self.forgotten == next.forgotten
            && self.versions.len() == next.versions.len()
            && self.versions.iter().zip(next.versions.iter()).all(|(a, b)| Rc::ptr_eq(a, b))
    }
}

/// The versions of all memory.
#[derive(Default, Debug)]
pub(crate) struct Versions {
    map: WordMap<History>,
    /// The run of stores that may go on: its version, and the address that would continue it.
    run: Option<(Rc<Version>, u64)>,
}

impl Versions {
    /// Something happened after which a store is no longer part of the run before it.
    pub(crate) fn end_run(&mut self) {
        self.run = None;
    }

    /// The version that a store at `span` by `cpu` would go on with.
    pub(crate) fn going_on(&self, cpu: CpuId, span: Span, delta: u64) -> Option<Rc<Version>> {
        let (version, next) = self.run.as_ref()?;
        let same = version.cpu == cpu && *next == span.first && version.delta == delta;
        (same && !version.nontemporal).then(|| Rc::clone(version))
    }

    /// `span` holds `version` from now on; a plain one may go on. `settled` says of a version, and
    /// where it is, that it and those before it are forgotten as soon as there is a newer one.
    pub(crate) fn store(
        &mut self,
        span: Span,
        version: Rc<Version>,
        plain: bool,
        settled: impl Fn(Span, &Version) -> bool,
    ) {
        let settled = |part: Span, h: &History| h.newest().is_some_and(|v| settled(part, v));
        let alone = |h: &History| {
            h.forgotten == 0 && h.versions.len() == 1 && Rc::ptr_eq(&h.versions[0], &version)
        };
        let goes_on = self.run.as_ref().is_some_and(|(v, _)| Rc::ptr_eq(v, &version));
        if plain && goes_on && self.map.extend(span, alone) {
            self.run = span.last.checked_add(1).map(|next| (version, next));
            return;
        }
        match self.map.exact_mut(span).filter(|_| !goes_on) {
            // A version that was just made is in no neighbour: there is nothing to join.
            Some(history) => {
                let settled = settled(span, history);
                history.push(&version, settled);
            }
            _ => self.map.update(span, |part, history| {
                Some(match history.cloned() {
                    Some(mut history) => {
                        let settled = settled(part, &history);
                        history.push(&version, settled);
                        history
                    }
                    None => History { forgotten: 0, versions: Kept::One(Rc::clone(&version)) },
                })
            }),
        }
        self.run = span.last.checked_add(1).filter(|_| plain).map(|next| (version, next));
    }

    /// Nothing asks for the versions of `span` any more.
    pub(crate) fn forget(&mut self, span: Span) {
        self.run = None;
        self.map.remove(span);
    }

    /// Ranges with a history.
    pub(crate) fn entries(&self) -> usize {
        self.map.entries()
    }

    pub(crate) fn within(&self, span: Span) -> impl Iterator<Item = (Span, History)> + '_ {
        self.map.within(span)
    }

    /// The newest version of the byte at `phys` among those of events up to `stamp`.
    pub(crate) fn newest_at(&self, phys: u64, stamp: u64) -> Option<Rc<Version>> {
        let (_, history) = self.map.get(phys)?;
        history.versions.iter().rev().find(|v| v.stamp <= stamp).cloned()
    }

    /// The newest version of the byte at `phys`.
    pub(crate) fn newest(&self, phys: u64) -> Option<Rc<Version>> {
        self.map.get(phys).and_then(|(_, history)| history.newest().cloned())
    }
}
