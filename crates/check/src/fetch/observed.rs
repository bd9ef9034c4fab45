//! Fetch windows in the order of the stream (*observed*, R15).
//!
//! Whatever stands earlier in the stream is known to everybody, but for the two things that no
//! order of events gives: an IC counts from its completion on, and fetches see completions only
//! through context synchronisation or the anchor (R8, R10). So a CPU's fetch view is a moment of
//! the stream: its last context synchronisation, or the youngest store whose version it fetched.

use rustc_hash::FxHashMap;

use textbed_arch::{
    Arch, CpuId,
    effect::{Barrier, Domain},
};

use super::caches::Caches;
use super::completed::{Completed, Stamp, Stamps, raise, reaches};
use super::index::{Fetched, by_virt};
use super::versions::Versions;
use crate::per_cpu::PerCpu;
use crate::span::{Span, SpanMap};

/// What a CPU invalidated for itself alone.
#[derive(Default, Debug)]
struct Own {
    issued: Stamps,
    pending: Stamps,
    done: Completed,
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

    /// Forgets what no version asks for any more, from time to time.
    pub(crate) fn tidy(&mut self, p: CpuId, versions: &Versions) {
        self.done.tidy(versions);
        if let Some(own) = self.own.get_mut(&p) {
            own.done.tidy(versions);
        }
    }

    /// Completions of everything that are kept.
    #[cfg(test)]
    pub(super) fn completions_of_everything(&self) -> usize {
        self.done.kept_of_everything()
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

    /// Whether fetches need more than stores: caches that are invalidated.
    pub(crate) fn needs_maintenance(&self) -> bool {
        self.caches.invalidate
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
