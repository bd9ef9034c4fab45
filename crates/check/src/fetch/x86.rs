//! Fetch windows on x86-64.
//!
//! Fetches see stores of every CPU without maintenance; what may be old is what a CPU fetched ahead
//! before the store and has not dropped since. It drops it when it executes a serialising
//! instruction. So a version is in the *fetch view* of a CPU if it was known there at its last one;
//! on AMD also if the CPU fetched something that was stored later (7.6.1: fetchers see stores in
//! order, and read on between taken branches).
//!
//! - Same CPU, same linear address: the jump to the new code is enough (Intel, option 1 of 8.1.3;
//!   the text stands, a request to drop it is on record). Same CPU, other linear address: Intel
//!   needs a serialising instruction (11.6), AMD compares physical addresses and needs nothing.
//! - A non-temporal store counts from the writer's next fence on.
//! - Interrupt and exception entry do not serialise; IRET does.
//!
//! Order between CPUs is TSO, so clocks carry it: program order, reads-from, coherence, and that a
//! fetch is before later stores of its CPU. Not modelled: FRED returns; order that only a load
//! shows which missed a store (windows are wider then, never narrower).
//!
//! Sources: Intel SDM 3A 8.1.3, 8.2.2, 8.3, 11.6 (325384-059); AMD APM vol 2 7.6.1, 7.6.4 (3.44).

use std::collections::VecDeque;
use std::rc::Rc;

use textbed_arch::{CpuId, effect::Barrier};

use super::clock::Clock;
use super::edges::Knows;
use super::versions::{History, Newest, Version};
use crate::mistakes::{Mistake, made};
use crate::per_cpu::PerCpu;
#[cfg(test)]
use crate::span::Span;

/// Non-temporal stores without a fence kept by CPU; past it the oldest count as fenced.
const MAX_UNFENCED: usize = 1024;
/// Serialising instructions of a CPU kept, for the question what others know of them.
const MAX_SYNCS: usize = 64;

/// What a CPU knows: of itself all that it did, of the others what reached it.
#[derive(Clone, Default, Debug)]
struct Knowledge {
    own: u64,
    others: Clock,
}

impl Knowledge {
    /// Number of the newest event of `cpu` that is known to `p`, whose knowledge this is.
    fn of(&self, p: CpuId, cpu: CpuId) -> u64 {
        if cpu == p { self.own } else { self.others.of(cpu) }
    }
}

/// A CPU's last serialising instruction.
#[derive(Clone, Default, Debug)]
struct Synced {
    at: u64,
    known: Knowledge,
    /// The last ones, oldest first, and the newest of those that are not kept.
    recent: VecDeque<u64>,
    dropped: u64,
}

/// The CPUs of an x86-64 machine.
#[derive(Debug)]
pub(crate) struct X86 {
    pub(crate) amd: bool,
    /// Real edges count: who knew of what is kept. Else the order of the stream is all there is.
    pub(crate) by_edges: bool,
    clocks: PerCpu<Knowledge>,
    /// What is before a CPU's next stores: what it knows of the others, and by coherence more,
    /// which is known to itself once they are drained.
    stored: PerCpu<Clock>,
    synced: PerCpu<Synced>,
    unfenced: PerCpu<Vec<Rc<Version>>>,
    /// By CPU, its newest event that every CPU knew of when it last serialised, as of some time.
    floors: Vec<u64>,
    /// Fetches that a later store may still widen: CPU, number of the event, bytes. Streams are
    /// judged at the fetch, so only tests follow them.
    #[cfg(test)]
    open: Vec<(CpuId, u64, Span)>,
}

impl Knows<Clock> for X86 {
    /// What `p` knows, itself included.
    fn release(&mut self, p: CpuId, seq: u64, _full: bool) -> Clock {
        let mut known = self.store(p, seq, None);
        known.set(p, seq);
        known
    }

    fn acquire(&mut self, p: CpuId, from: &Clock) {
        self.clocks.of(p).others.join(from);
        self.stored.of(p).join(from);
    }
}

impl X86 {
    pub(crate) fn new(amd: bool, by_edges: bool) -> Self {
        Self {
            amd,
            by_edges,
            clocks: PerCpu::default(),
            stored: PerCpu::default(),
            synced: PerCpu::default(),
            unfenced: PerCpu::default(),
            floors: Vec::new(),
            #[cfg(test)]
            open: Vec::new(),
        }
    }

    /// `p` stored: what it knows of the others (of itself it knows everything up to `seq`).
    /// `older` is the version before it, if another CPU stored that one: it is before this store,
    /// and so is all that its CPU stored before.
    pub(crate) fn store(&mut self, p: CpuId, seq: u64, older: Option<Newest<'_>>) -> Clock {
        let stored = self.stored.of(p);
        // What it knows of it is never less than all that was before it.
        if let Some(older) = older
            && let Some(clock) = older.clock
            && stored.of(older.cpu) < older.stamp
            && !made(Mistake::NoCoherence)
        {
            stored.join(clock);
            stored.set(older.cpu, older.stamp);
        }
        let known = self.clocks.of(p);
        known.own = known.own.max(seq);
        stored.clone()
    }

    /// The stores of `p` are drained: it knows what is before them.
    fn drain(&mut self, p: CpuId) {
        if let Some(stored) = self.stored.get(p).filter(|s| !s.is_empty()) {
            self.clocks.of(p).others = stored.clone();
        }
    }

    /// A non-temporal store waits for its fence.
    pub(crate) fn wait_for_fence(&mut self, version: Rc<Version>) {
        let list = self.unfenced.of(version.cpu);
        if list.len() < MAX_UNFENCED {
            list.push(version);
        }
    }

    pub(crate) fn barrier(&mut self, p: CpuId, barrier: Barrier, now: u64) {
        if matches!(barrier, Barrier::Mfence | Barrier::Sfence) {
            self.fence(p, now);
        }
        let serialises = self.amd || made(Mistake::FenceSerialises);
        if serialises && barrier == Barrier::Mfence {
            self.sync(p, now);
        }
    }

    fn fence(&mut self, p: CpuId, now: u64) {
        self.drain(p);
        if let Some(unfenced) = self.unfenced.get_mut(p) {
            unfenced.drain(..).for_each(|version| version.fenced.set(now));
        }
    }

    /// A serialising instruction of `p`; it drains stores too.
    pub(crate) fn sync(&mut self, p: CpuId, now: u64) {
        self.fence(p, now);
        if !self.by_edges {
            self.synced.of(p).at = now;
            return;
        }
        let mut known = self.clocks.get(p).cloned().unwrap_or_default();
        let amd = self.amd;
        let synced = self.synced.of(p);
        if amd {
            // What earlier fetches showed stays.
            known.own = known.own.max(synced.known.own);
            known.others.join(&synced.known.others);
        }
        (synced.at, synced.known) = (now, known);
        if synced.recent.len() >= MAX_SYNCS {
            synced.dropped = synced.recent.pop_front().unwrap_or(synced.dropped);
        }
        synced.recent.push_back(now);
    }

    /// Whether `q` knows, by real edges if they count, that `p` serialised after event `since`.
    pub(crate) fn sync_is_known(&self, q: CpuId, p: CpuId, since: u64) -> bool {
        let Some(synced) = self.synced.get(p) else { return false };
        if !self.by_edges {
            return synced.at >= since;
        }
        let knows = self.clocks.get(q).map_or(0, |known| known.of(q, p));
        let told = |at: &u64| (since..=knows).contains(at);
        told(&synced.dropped) || synced.recent.iter().any(told)
    }

    /// AMD: `p` fetched something stored at `stamp` by `version`'s CPU.
    pub(crate) fn fetched(&mut self, p: CpuId, version: &Version) {
        if self.amd && version.cpu != p && !made(Mistake::NoAnchor) {
            let synced = self.synced.of(p);
            synced.at = synced.at.max(version.stamp);
            if let Some(clock) = &version.clock {
                // It may know of what `p` itself stored since.
                synced.known.own = synced.known.own.max(clock.of(p));
                synced.known.others.join(clock);
                synced.known.others.set(version.cpu, version.stamp);
            }
        }
    }

    /// `p` read `version`, which another CPU stored.
    pub(crate) fn saw(&mut self, p: CpuId, version: &Version) {
        if let Some(clock) = &version.clock {
            for known in [&mut self.clocks.of(p).others, self.stored.of(p)] {
                known.join(clock);
                known.set(version.cpu, version.stamp);
            }
        }
    }

    /// Everybody knows what everybody knew: the CPUs named, and those that did anything yet.
    pub(crate) fn meet(&mut self, everybody: impl Iterator<Item = CpuId>, now: u64) {
        let mut names: Vec<CpuId> = self.clocks.iter().map(|(p, _)| p).chain(everybody).collect();
        names.sort_unstable();
        names.dedup();
        let mut all = Clock::default();
        for p in &names {
            all.join(&self.release(*p, now, true));
        }
        for p in &names {
            self.acquire(*p, &all);
        }
    }

    /// The moment of `p`'s last serialising instruction, 0 if there was none.
    pub(crate) fn moment(&self, p: CpuId) -> u64 {
        self.synced.get(p).map_or(0, |s| s.at)
    }

    /// Whether `p` knows of the store by real edges.
    pub(crate) fn knows(&self, p: CpuId, version: &Version) -> bool {
        self.clocks.get(p).is_some_and(|c| c.of(p, version.cpu) >= version.stamp)
    }

    /// Whether `p` knew of the store, by real edges, when it last serialised.
    pub(crate) fn in_view(&self, p: CpuId, version: &Version) -> bool {
        let stream = made(Mistake::SyncTakesStream) && self.moment(p) >= version.stamp;
        stream || self.synced.get(p).is_some_and(|s| s.known.of(p, version.cpu) >= version.stamp)
    }

    /// Finds out what the view of each of these CPUs has.
    pub(crate) fn settle(&mut self, everybody: impl Iterator<Item = CpuId> + Clone) {
        let in_view = |p, q| self.synced.get(p).map_or(0, |synced| synced.known.of(p, q));
        let floor = |q| everybody.clone().map(|p| in_view(p, q)).min().unwrap_or(0);
        self.floors = everybody.clone().map(floor).collect();
    }

    /// Whether the version with this key is in the view of every CPU.
    pub(crate) fn in_every_view(&self, key: u64) -> bool {
        self.floors.get(usize::from(key as u16)).is_some_and(|floor| key >> 16 <= *floor)
    }

    /// Whether the store is `p`'s own and comes before its fetches without more: on Intel if it
    /// used the linear address that is executed, which is the physical one plus `delta`.
    pub(crate) fn own(&self, p: CpuId, version: &Version, delta: u64) -> bool {
        let physical = self.amd || made(Mistake::LinearIsPhysical);
        version.cpu == p && (physical || version.delta == delta)
    }

    /// Stamp of the oldest version that a fetch of `p` may return; 0 = from before the first one.
    pub(crate) fn low(&self, p: CpuId, history: &History, delta: u64) -> u64 {
        let closes = |v: &&Rc<Version>| self.in_view(p, v) || self.own(p, v, delta);
        history.versions.iter().rev().find(closes).map_or(0, |v| v.stamp)
    }

    /// Keeps a fetch open for stores that come later in the stream.
    #[cfg(test)]
    pub(crate) fn remember_fetch(&mut self, p: CpuId, span: Span, seq: u64) {
        self.open.push((p, seq, span));
    }

    /// `p` stores, knowing `clock`: the fetches that may still meet this. A fetch that is before
    /// the store is closed for good, because later stores come after this one.
    #[cfg(test)]
    pub(crate) fn late_store(&mut self, p: CpuId, span: Span, clock: &Clock) -> Vec<u64> {
        let mut met = Vec::new();
        self.open.retain(|(q, seq, at)| {
            if at.meet(span).is_none() {
                return true;
            }
            let past = p == *q || clock.of(*q) >= *seq;
            let open = !past || made(Mistake::FetchOrdersNothing);
            if open && !made(Mistake::NoLateStores) {
                met.push(*seq);
            }
            open
        });
        met
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::versions::key_of;

    #[test]
    fn what_everybody_knew_when_they_serialised_is_in_every_view() {
        let (p, q) = (CpuId(0), CpuId(1));
        let mut machine = X86::new(false, true);
        machine.store(p, 1, None);
        let released = machine.release(p, 2, false);
        machine.sync(p, 3);
        machine.sync(q, 4);
        machine.settle([p, q].into_iter());
        assert!(!machine.in_every_view(key_of(1, p)), "nothing told the other");
        machine.acquire(q, &released);
        machine.settle([p, q].into_iter());
        assert!(!machine.in_every_view(key_of(1, p)), "it knows, and did not serialise since");
        machine.sync(q, 5);
        machine.settle([p, q].into_iter());
        assert!(machine.in_every_view(key_of(1, p)) && machine.in_every_view(key_of(2, p)));
        assert!(!machine.in_every_view(key_of(3, p)) && !machine.in_every_view(key_of(1, q)));
    }
}
