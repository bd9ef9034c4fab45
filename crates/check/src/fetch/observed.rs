//! Fetch windows in the order of the stream (*observed*, R15).
//!
//! Whatever stands earlier in the stream is known to everybody, but for the two things that no
//! order of events gives: an IC counts from its completion on, and fetches see completions only
//! through context synchronisation or the anchor (R8, R10). So a CPU's fetch view is a moment of
//! the stream: its last context synchronisation, or the youngest store whose version it fetched.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use textbed_arch::{
    Arch, CpuId,
    effect::{Barrier, Domain},
};

use super::caches::Caches;
use super::index::{Fetched, by_virt};
use super::versions::Versions;
use crate::per_cpu::PerCpu;
use crate::span::{Piece, Span, SpanMap};

/// Newest stamp for a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp(u64);
crate::span::flat_piece!(Stamp);

/// Completed invalidations of a range: when, and up to which version. Youngest last.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Done(Vec<(u64, u64)>);

impl Piece for Done {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        self == next
    }
}

/// Completions kept for one range.
const MAX_DONE: usize = 8;
/// Completions of everything kept: past it a CPU that synchronised its context before the oldest of
/// them counts as one that may run what was replaced before that.
const MAX_EVERYWHERE: usize = 4096;

/// Invalidations by range, and of everything: those of all that was stored up to a version are one
/// number, whatever was stored.
#[derive(Default, Debug)]
struct Stamps {
    by_range: SpanMap<Stamp>,
    everywhere: u64,
}

impl Stamps {
    fn is_empty(&self) -> bool {
        self.by_range.is_empty() && self.everywhere == 0
    }

    fn reaches(&self, span: Span, stamp: u64) -> bool {
        self.everywhere >= stamp && self.everywhere != 0 || reaches(&self.by_range, span, stamp)
    }
}

/// The same, when they were complete.
#[derive(Default, Debug)]
struct Completed {
    by_range: SpanMap<Done>,
    /// When, and up to which version; youngest last.
    everywhere: VecDeque<(u64, u64)>,
}

/// What a CPU invalidated for itself alone.
#[derive(Default, Debug)]
struct Own {
    issued: Stamps,
    pending: Stamps,
    done: Completed,
}

impl Done {
    fn add(&mut self, now: u64, stamp: u64) {
        if self.0.last().is_none_or(|(_, s)| *s < stamp) {
            self.0.push((now, stamp));
            if self.0.len() > MAX_DONE {
                self.0.remove(0);
            }
        }
    }

    /// When version `stamp` or a younger one was.
    fn when(&self, stamp: u64) -> Option<u64> {
        self.0.iter().find(|(_, s)| *s >= stamp).map(|(when, _)| *when)
    }
}

impl Completed {
    /// Invalidations up to the versions of `pending` were complete at event `now`.
    fn complete(&mut self, pending: &Stamps, now: u64) {
        for (span, stamp) in pending.by_range.iter() {
            self.by_range.update(span, |_, there| {
                let mut done = there.cloned().unwrap_or(Done(Vec::new()));
                done.add(now, stamp.0);
                Some(done)
            });
        }
        if pending.everywhere > self.everywhere.back().map_or(0, |(_, stamp)| *stamp) {
            self.everywhere.push_back((now, pending.everywhere));
            if self.everywhere.len() > MAX_EVERYWHERE {
                self.everywhere.pop_front();
            }
        }
    }

    /// The event by which all of `span` was invalidated with version `stamp` or a younger one.
    fn by(&self, span: Span, stamp: u64) -> Option<u64> {
        let first = self.everywhere.partition_point(|(_, s)| *s < stamp);
        let everywhere = self.everywhere.get(first).map(|(when, _)| *when);
        let mut bytes = 0u64;
        let mut latest = 0;
        for (part, done) in self.by_range.parts(span) {
            let when = done.when(stamp).into_iter().chain(everywhere).min()?;
            latest = latest.max(when);
            bytes = bytes.saturating_add(part.len());
        }
        if bytes == span.len() { Some(latest) } else { Some(latest.max(everywhere?)) }
    }
}

/// What happened, in the order of the stream.
#[derive(Debug)]
pub(crate) struct Observed {
    arch: Arch,
    caches: Caches,
    /// Newest version cleaned.
    cleaned: SpanMap<Stamp>,
    /// Newest version for which an invalidation was issued.
    issued: Stamps,
    /// The same for invalidations that reach their own CPU alone.
    own: FxHashMap<CpuId, Own>,
    pending: FxHashMap<CpuId, Stamps>,
    done: Completed,
    /// The fetch view of each CPU, as a moment.
    view: PerCpu<u64>,
}

/// Raises the stamps in `span` of `to` to `stamp`.
fn raise(to: &mut SpanMap<Stamp>, span: Span, stamp: u64) {
    to.update(span, |_, old| Some(Stamp(old.map_or(stamp, |o| o.0.max(stamp)))));
}

/// Whether all of `span` has at least `stamp`.
fn reaches(map: &SpanMap<Stamp>, span: Span, stamp: u64) -> bool {
    let parts = map.within(span).filter(|(_, s)| s.0 >= stamp);
    parts.fold(0u64, |sum, (part, _)| sum.saturating_add(part.len())) == span.len()
}

impl Observed {
    pub(crate) fn new(arch: Arch, caches: Caches) -> Self {
        Self {
            arch,
            caches,
            cleaned: SpanMap::default(),
            issued: Stamps::default(),
            own: FxHashMap::default(),
            pending: FxHashMap::default(),
            done: Completed::default(),
            view: PerCpu::default(),
        }
    }

    pub(crate) fn clean(&mut self, versions: &Versions, span: Span) {
        for (part, newest) in versions.newest_in(span) {
            raise(&mut self.cleaned, part, newest);
        }
    }

    /// An invalidation of a line, or of everything; `alone`: on this CPU only.
    pub(crate) fn invalidate(
        &mut self,
        p: CpuId,
        versions: &Versions,
        line: Option<Span>,
        virt: Option<u64>,
        alone: bool,
        now: u64,
    ) {
        let everything = Span { first: 0, last: u64::MAX };
        let span = line.filter(|_| !self.caches.any_line).unwrap_or(everything);
        let all = span == everything && !self.caches.clean;
        let parts: Vec<(Span, u64)> = if all {
            Vec::new()
        } else if self.caches.clean {
            self.cleaned.within(span).map(|(part, stamp)| (part, stamp.0)).collect()
        } else {
            versions.newest_in(span).collect()
        };
        let (pending, issued) = if alone {
            let own = self.own.entry(p).or_default();
            (&mut own.pending, &mut own.issued)
        } else {
            (self.pending.entry(p).or_default(), &mut self.issued)
        };
        if all {
            // What is stored by now, whatever it is.
            pending.everywhere = pending.everywhere.max(now);
            issued.everywhere = issued.everywhere.max(now);
        }
        for (part, stamp) in parts {
            // In a cache that is indexed by virtual address, for this one alone.
            let part = match (line, virt) {
                (Some(line), Some(virt)) => {
                    by_virt(part, virt.wrapping_add(part.first.saturating_sub(line.first)))
                }
                _ => part,
            };
            raise(&mut pending.by_range, part, stamp);
            raise(&mut issued.by_range, part, stamp);
        }
    }

    /// A barrier of `p` completes its invalidations, if it is one that does; whether there were
    /// any.
    pub(crate) fn barrier(&mut self, p: CpuId, barrier: Barrier, domain: Domain, now: u64) -> bool {
        let completes = match barrier {
            Barrier::DsbFull => self.arch == Arch::Arm64,
            Barrier::Sync | Barrier::Ptesync => self.arch.is_powerpc(),
            _ => false,
        };
        if !completes {
            return false;
        }
        let mut any = false;
        if domain == Domain::NonShareable {
            // Complete for this CPU; for the others only with a barrier that reaches them.
            if let Some(pending) = self.pending.get(&p) {
                self.own.entry(p).or_default().done.complete(pending, now);
                any = true;
            }
        } else if let Some(pending) = self.pending.remove(&p) {
            self.done.complete(&pending, now);
            any = true;
        }
        if let Some(own) = self.own.get_mut(&p).filter(|own| !own.pending.is_empty()) {
            own.done.complete(&std::mem::take(&mut own.pending), now);
            any = true;
        }
        any
    }

    pub(crate) fn sync(&mut self, p: CpuId, now: u64) {
        if self.caches.sync_completes
            && let Some(pending) = self.pending.get(&p)
        {
            // For this CPU; the others need its barrier.
            self.own.entry(p).or_default().done.complete(pending, now);
        }
        self.view.set(p, now);
    }

    /// A fetch of `p` returned the version with this stamp (the anchor).
    pub(crate) fn fetched(&mut self, p: CpuId, stamp: u64) {
        if self.caches.fetch_orders {
            let view = self.view.of(p);
            *view = (*view).max(stamp);
        }
    }

    /// The fetch view of `p`, as a moment of the stream.
    pub(crate) fn moment(&self, p: CpuId) -> u64 {
        self.view.get(p).copied().unwrap_or(0)
    }

    /// Whether all of `span` was cleaned with version `stamp` or a younger one.
    pub(crate) fn cleaned(&self, span: Span, stamp: u64) -> bool {
        !self.caches.clean || reaches(&self.cleaned, span, stamp)
    }

    /// Whether any of `span` was ever cleaned.
    pub(crate) fn was_cleaned(&self, span: Span) -> bool {
        self.cleaned.meets(span)
    }

    /// Whether an invalidation that reaches `p` was issued after that.
    pub(crate) fn issued(&self, p: CpuId, at: Fetched, stamp: u64) -> bool {
        let own = |span| self.own.get(&p).is_some_and(|own| own.issued.reaches(span, stamp));
        !self.caches.invalidate
            || at.places().any(|span| self.issued.reaches(span, stamp) || own(span))
    }

    /// The event by which version `stamp` of all of it could no longer be missed by a fetch of
    /// `p` that knows of it.
    pub(crate) fn completed(&self, p: CpuId, at: Fetched, stamp: u64) -> Option<u64> {
        if !self.caches.invalidate {
            return Some(stamp);
        }
        let done = |span| {
            let own = self.own.get(&p).and_then(|own| own.done.by(span, stamp));
            self.done.by(span, stamp).into_iter().chain(own).min()
        };
        at.places().filter_map(done).min()
    }

    /// The oldest version that a fetch of `p` from there may return: stamp 0 = from before the
    /// first one.
    pub(crate) fn low(&self, p: CpuId, at: Fetched, stamps: &[u64]) -> u64 {
        let moment = self.moment(p);
        let known = |stamp: &&u64| self.completed(p, at, **stamp).is_some_and(|at| at <= moment);
        stamps.iter().rev().find(known).copied().unwrap_or(0)
    }
}
