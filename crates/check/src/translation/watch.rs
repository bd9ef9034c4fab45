//! What becomes of an entry between two changes of it: made and not yet ordered, broken while it is
//! in use, changed while valid.
//!
//! Three things are kept, all by range and forgotten as soon as they cannot matter: *fresh* entries
//! (invalid to valid, until their store is visible to walks and their maker synchronised its
//! context), *holes* (valid to invalid, until the area or its frames are given back), and the last
//! fetch of each CPU. On x86-64 nothing is fresh: entries with P = 0 are not cached and stores are
//! visible in order (SDM 3A 4.10.4.3). Breaks are judged by the rows of
//! [`textbed_arch::sync::translation`].
//!
//! What is mapped outside of calls is taken as set up, and is not fresh. Not modelled: stores to
//! tables that the source reports late; the context synchronisation that a *remote* CPU needs
//! before it uses a new entry. With FEAT_ETS2 a DSB is asked for all the same.

use std::collections::{BTreeMap, BTreeSet};

use textbed_arch::paging::Attributes;
use textbed_arch::sync::translation::{Change, TranslationRow, wants_break};
use textbed_arch::{Arch, CpuId, Features, Perm, SpaceId, effect::Barrier};

use crate::mark::Mark;
use crate::per_cpu::PerCpu;
use crate::span::{Piece, Span, SpanMap};
use crate::tables::{Mapping, UNKNOWN_PHYS};

/// Ranges kept at once of each kind; past it nothing new is watched.
const MAX_WATCHED: usize = 4096;

/// A new valid entry that walks, or what its maker does ahead, may not see yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fresh {
    pub(crate) made: Mark,
    /// A barrier of the maker followed: walks see it.
    pub(crate) visible: bool,
}

impl Piece for Fresh {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        self.visible == next.visible && self.made.same_call(&next.made)
    }
}

/// A valid entry that was made invalid, and whose frame was not given back since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hole {
    pub(crate) phys: u64,
    pub(crate) perm: Perm,
    pub(crate) broken: Mark,
    /// Somebody used the addresses while they were not mapped.
    pub(crate) used: Option<Mark>,
}

impl Piece for Hole {
    fn skip(&mut self, bytes: u64) {
        self.phys = self.phys.wrapping_add(bytes);
    }
    fn goes_on_as(&self, len: u64, next: &Self) -> bool {
        self.phys.wrapping_add(len) == next.phys
            && self.perm == next.perm
            && self.used.is_none()
            && next.used.is_none()
            && self.broken.same_call(&next.broken)
    }
}

/// An answer of the tables, for comparing two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) phys: u64,
    pub(crate) perm: Perm,
    pub(crate) shift: u8,
    pub(crate) attributes: Attributes,
}

impl Answer {
    /// What the tables say.
    pub(crate) fn of(m: &Mapping) -> Self {
        Self { phys: m.phys, perm: m.perm, shift: m.shift, attributes: m.attributes }
    }
}

/// The row that forbids changing `old` into `new` without a break, and which change it forbids;
/// the bool says whether the texts forbid it for certain (else it depends on the contents).
pub(crate) fn needs_break(
    arch: Arch,
    features: Features,
    old: Answer,
    new: Answer,
) -> Option<(&'static TranslationRow, Change, bool)> {
    let known = |phys: u64| phys < UNKNOWN_PHYS;
    let moved = known(old.phys) && known(new.phys) && old.phys != new.phys;
    let writable = old.perm.writable() || new.perm.writable();
    let resized = old.shift != new.shift;
    let global = new.perm.contains(Perm::GLOBAL) && !old.perm.contains(Perm::GLOBAL);
    let rights = Perm::READ | Perm::WRITE | Perm::EXEC;
    let other = moved || (old.perm ^ new.perm).intersects(rights);
    let found = |change, sure| wants_break(arch, features, change).map(|row| (row, change, sure));
    // Arm names a change of frame only where the old or the new one is writable, or the contents
    // differ, which is not known here.
    let frame = moved.then(|| found(Change::Frame, writable || arch != Arch::Arm64)).flatten();
    let size = resized.then(|| found(Change::Size, true)).flatten();
    // A split or collapse that says the same is what kernels do on x86, and no text forbids it.
    let upper = (resized && other).then(|| found(Change::UpperLevel, true)).flatten();
    let (was, is) = (old.attributes, new.attributes);
    let typed = (was.memory != is.memory).then(|| found(Change::MemoryType, true)).flatten();
    let joined = (was.contiguous != is.contiguous).then(|| found(Change::Contiguous, true));
    let tagged = global.then(|| found(Change::Global, true)).flatten();
    frame.or(size).or(upper).or(typed).or(joined.flatten()).or(tagged)
}

/// What is watched.
#[derive(Default, Debug)]
pub(crate) struct Watch {
    fresh: BTreeMap<SpaceId, SpanMap<Fresh>>,
    holes: BTreeMap<SpaceId, SpanMap<Hole>>,
    /// Last fetch of each CPU: its number and where it was.
    running: PerCpu<(u64, SpaceId, u64)>,
    /// All other CPUs stand still.
    pub(crate) stopped: bool,
    /// Changes whose early invalidation was reported, by the event that made them.
    told: BTreeSet<u64>,
}

impl Watch {
    /// Whether the early invalidation of a change was not reported before; it is from now on.
    pub(crate) fn tell_early(&mut self, change: u64) -> bool {
        self.told.len() < MAX_WATCHED && self.told.insert(change)
    }

    /// A new valid entry.
    pub(crate) fn made(&mut self, space: SpaceId, span: Span, made: Mark) {
        let map = self.fresh.entry(space).or_default();
        if map.entries() < MAX_WATCHED {
            map.insert(span, Fresh { made, visible: false });
        }
    }

    /// What is mapped there is gone, or ordered.
    pub(crate) fn unmade(&mut self, space: SpaceId, span: Span) {
        if let Some(map) = self.fresh.get_mut(&space) {
            map.remove(span);
        }
        self.tidy();
    }

    /// A barrier of `cpu` makes its changes visible to walks.
    pub(crate) fn barrier(&mut self, arch: Arch, cpu: CpuId, barrier: Barrier) {
        let (sees, done) = match barrier {
            Barrier::DsbFull | Barrier::DsbStore => (arch == Arch::Arm64, false),
            // On powerpc what follows the ptesync finds the entry, fetches too.
            barrier if barrier.orders_tables(arch) => (true, true),
            _ => (false, false),
        };
        if sees {
            self.progress(cpu, |fresh| (!done).then_some(Fresh { visible: true, ..*fresh }));
        }
    }

    /// `cpu` synchronised its context: its fetches and accesses see what is visible.
    pub(crate) fn context_sync(&mut self, cpu: CpuId) {
        self.progress(cpu, |fresh| (!fresh.visible).then_some(*fresh));
    }

    fn progress(&mut self, cpu: CpuId, f: impl Fn(&Fresh) -> Option<Fresh>) {
        if self.fresh.is_empty() {
            return;
        }
        for map in self.fresh.values_mut() {
            map.update(Span { first: 0, last: u64::MAX }, |_, fresh| {
                let fresh = fresh?;
                if fresh.made.cpu == cpu { f(fresh) } else { Some(*fresh) }
            });
        }
        self.tidy();
    }

    /// The fresh entry for an address.
    pub(crate) fn fresh_at(&self, space: SpaceId, virt: u64) -> Option<(Span, Fresh)> {
        self.fresh.get(&space)?.get(virt).map(|(span, fresh)| (span, *fresh))
    }

    /// A valid entry became invalid.
    pub(crate) fn broke(&mut self, space: SpaceId, span: Span, old: Answer, broken: Mark) {
        let map = self.holes.entry(space).or_default();
        if !self.stopped && old.phys < UNKNOWN_PHYS && map.entries() < MAX_WATCHED {
            map.insert(span, Hole { phys: old.phys, perm: old.perm, broken, used: None });
        }
        self.tidy();
    }

    /// Entries are valid again: the holes that are mended, with the frames that they had.
    pub(crate) fn mended(&mut self, space: SpaceId, span: Span, phys: u64) -> Vec<(Span, Hole)> {
        let Some(map) = self.holes.get_mut(&space) else { return Vec::new() };
        let same = |at: &Span, h: &Hole| h.phys == phys.wrapping_add(at.first - span.first);
        let mended = map.within(span).filter(|(at, h)| same(at, h)).collect();
        map.remove(span);
        self.tidy();
        mended
    }

    /// The addresses, or the frames, of holes were given back: they are no holes.
    pub(crate) fn given_back(&mut self, virt: Option<Span>, frames: Option<Span>) {
        for map in self.holes.values_mut() {
            if let Some(virt) = virt {
                map.remove(virt);
            }
            let Some(frames) = frames else { continue };
            let leads = |at: Span, h: &Hole| {
                Span::of(h.phys, at.len()).is_some_and(|p| p.meet(frames).is_some())
            };
            let gone: Vec<Span> =
                map.iter().filter(|(at, h)| leads(*at, h)).map(|(at, _)| at).collect();
            gone.into_iter().for_each(|at| map.remove(at));
        }
        self.tidy();
    }

    /// Somebody used an address.
    pub(crate) fn used(&mut self, space: SpaceId, virt: u64, mark: &Mark) {
        let Some(map) = self.holes.get_mut(&space) else { return };
        let Some((span, hole)) = map.get(virt).map(|(s, h)| (s, *h)) else { return };
        if hole.used.is_none() && hole.broken.cpu != mark.cpu {
            map.insert(span, Hole { used: Some(mark.about(virt)), ..hole });
        }
    }

    /// Whether there is no fresh entry and no hole anywhere.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.fresh.is_empty() && self.holes.is_empty()
    }

    /// Whether a fresh entry or a hole is there.
    pub(crate) fn concerns(&self, space: SpaceId, virt: u64) -> bool {
        self.fresh.get(&space).is_some_and(|map| map.get(virt).is_some())
            || self.holes.get(&space).is_some_and(|map| map.get(virt).is_some())
    }

    /// A CPU executed there, by event `seq`; it may be told late.
    #[inline]
    pub(crate) fn runs(&mut self, cpu: CpuId, seq: u64, space: SpaceId, virt: u64) {
        match self.running.get_mut(cpu) {
            Some(running) if running.0 <= seq => *running = (seq, space, virt),
            Some(_) => {}
            None => self.running.set(cpu, (seq, space, virt)),
        }
    }

    /// CPUs other than `but` whose last fetch lay in `span`, lowest first.
    pub(crate) fn running_in(
        &self,
        space: SpaceId,
        span: Span,
        but: CpuId,
    ) -> Option<(CpuId, u64)> {
        let inside = |at: u64| span.first <= at && at <= span.last;
        let cpus =
            self.running.iter().filter(|(c, (_, s, at))| *c != but && *s == space && inside(*at));
        cpus.map(|(c, (_, _, at))| (c, *at)).min()
    }

    fn tidy(&mut self) {
        self.fresh.retain(|_, map| !map.is_empty());
        self.holes.retain(|_, map| !map.is_empty());
    }
}
