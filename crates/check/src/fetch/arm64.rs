//! Fetch windows on arm64 by real edges (*predicted*): rules R1 to R13.
//!
//! Per CPU five *bases* (what every later load, store, clean, IC and fetch inherits), the
//! *gathered* knowledge of all earlier effects of a type, and what the next context synchronisation
//! hands to fetches. An effect begins with the base of its type (R1); the rules say what else it
//! knows and to whom it hands that. A fetch window of a word is the interval of versions from the
//! newest that the fetch view (the base of fetches) knows to be invalidated up to the newest that
//! is not ordered after the fetch:
//!
//! - R2 store, R3 load, R4 clean, R5 IC, R6 DMB, R7 DSB, R8 context synchronisation, R9 fetch,
//! - R10 what the writer of a fetched version knew binds all later fetches of that CPU,
//! - R11 a store later in the stream widens windows of fetches that are not ordered before it,
//! - R12, R13 are what follows: an exclusion needs the whole chain.
//!
//! Power uses the same machine with its own settings ([`super::powerpc`]). A barrier that is not
//! shareable, and IALLU, count for their own CPU's fetches alone (the manual; the reference takes
//! IALLU as broadcast). Not modelled: such private order that leaves a CPU and comes back to it;
//! inner and outer domains that do not hold every CPU. The joint rule R14 is for outcomes
//! ([`crate::outcomes`]), not for streams.
//!
//! Sources: herdtools7 `aarch64.cat`, `aarch64hwreqs.cat` (M.a) and ESOP 2020 (Simner et al.),
//! read.

use textbed_arch::{
    CpuId,
    effect::{Barrier, Domain},
};
use textbed_event::MemOrder;

use super::caches::Caches;
use super::edges::Knows;
use super::index::Fetched;
use super::knowledge::{CLEAN, FETCH, INVALIDATE, Knowledge, LOAD, STORE};
use super::stores::Stores;
use super::touched::Touched;
use super::versions::{History, Version, Versions, key_of};
use super::views::View;
use crate::mistakes::{Mistake, made};
use crate::per_cpu::PerCpu;
use crate::span::Span;

/// What one CPU knows.
#[derive(Clone, Default, Debug)]
struct Cpu {
    /// What it hands on.
    public: Knowledge,
    /// The same with barriers that are not shareable, and invalidations of this CPU alone: it
    /// counts for this CPU's fetches, and is never handed on. None before the first of these.
    private: Option<Box<Knowledge>>,
    fetches: u32,
}

impl Cpu {
    fn both(&mut self) -> impl Iterator<Item = &mut Knowledge> {
        std::iter::once(&mut self.public).chain(self.private.as_deref_mut())
    }

    fn each(&self) -> impl Iterator<Item = &Knowledge> {
        std::iter::once(&self.public).chain(self.private.as_deref())
    }

    /// Its private knowledge; the same as the public one at first.
    fn private(&mut self) -> &mut Knowledge {
        self.private.get_or_insert_with(|| Box::new(self.public.clone()))
    }
}

/// A fetch whose window may still grow (R11).
#[derive(Clone, Copy, Debug)]
struct Open {
    cpu: CpuId,
    number: u32,
    span: Span,
    id: u64,
}

/// Fetches kept open; past it the oldest keep the window that they have.
const MAX_OPEN: usize = 1024;
/// Entries in one view past which the machine gives up, and says so.
const MAX_ENTRIES: usize = 1 << 16;

/// Adds what whoever sees `version` of `span` knows.
fn know(view: &mut View, version: &Version, span: Span) {
    if let Some(from) = &version.view {
        view.join_store(from);
    }
    view.stored(span, version.key());
}

/// The weakly ordered machine.
#[derive(Debug)]
pub(crate) struct Weak {
    caches: Caches,
    cpus: PerCpu<Box<Cpu>>,
    touched: Touched,
    open: Vec<Open>,
    /// Whether windows are followed after their fetch; streams are judged at the fetch.
    pub(crate) follow: bool,
    /// Windows that grew: fetch and new upper end.
    pub(crate) grown: Vec<(u64, u64)>,
    /// Too much to carry: knowledge is no longer derived.
    pub(crate) given_up: bool,
    /// By CPU, its newest store that every CPU knew, as of some time; see
    /// [`Settling::Known`](super::Settling::Known).
    floors: Vec<u64>,
}

impl Knows<View> for Weak {
    /// What a store-release carries, and with `full` what a DMB would.
    fn release(&mut self, p: CpuId, _seq: u64, full: bool) -> View {
        let mut public = None;
        for known in self.cpu(p).both() {
            known.gather_stores();
            let mut k = known.base[STORE].clone();
            let gathered = [&known.gathered[LOAD], &known.gathered[STORE]];
            for view in [&known.branch, &known.address].into_iter().chain(gathered) {
                k.join(view);
            }
            if full {
                k.join(&known.gathered[CLEAN]);
            }
            known.gathered[STORE].join(&k);
            public.get_or_insert(k);
        }
        public.unwrap_or_default()
    }

    /// An acquire that fed a branch: a waiting loop, a lock, the entry of an interrupt.
    fn acquire(&mut self, p: CpuId, from: &View) {
        for known in self.cpu(p).both() {
            let k = known.base[LOAD].clone().with(from);
            known.base[LOAD].join(&k);
            known.base[STORE].join(&k);
            known.branch.join(&k);
            known.gathered[LOAD].join(&k);
        }
    }
}

impl Weak {
    pub(crate) fn new(caches: Caches) -> Self {
        Self {
            caches,
            cpus: PerCpu::default(),
            touched: Touched::default(),
            open: Vec::new(),
            follow: false,
            grown: Vec::new(),
            given_up: false,
            floors: Vec::new(),
        }
    }

    /// What each CPU knew when it last touched a range.
    #[inline]
    pub(super) fn touched(&self) -> &Touched {
        &self.touched
    }

    fn cpu(&mut self, cpu: CpuId) -> &mut Cpu {
        self.cpus.of(cpu)
    }

    /// R2. Returns the version's view. `newest` is the view of the version before it, if another
    /// CPU stored that one; `taint` what fed address and data.
    pub(crate) fn store(
        &mut self,
        p: CpuId,
        span: Span,
        stamp: u64,
        order: MemOrder,
        newest: Option<&View>,
        taint: &View,
    ) -> View {
        let from_reads = self.caches.from_reads || made(Mistake::FromReadsOnPower);
        let newest = newest.filter(|_| from_reads);
        let Self { cpus, touched, .. } = self;
        let cpu = cpus.of(p);
        // It comes after its own accesses there.
        let k = touched.store(p, span, from_reads, |touched| {
            let mut public = None;
            for known in cpu.both() {
                let mut k = known.base[STORE].clone();
                for view in [taint, &known.branch, &known.address] {
                    k.join(view);
                }
                for view in [Some(touched), newest].into_iter().flatten() {
                    k.join_store(view);
                }
                if matches!(order, MemOrder::Release | MemOrder::Full) {
                    known.gather_stores();
                    k.join(&known.gathered[LOAD]);
                    k.join(&known.gathered[STORE]);
                }
                known.stored(&k, p, stamp);
                k.stored(span, key_of(stamp, p));
                if order == MemOrder::Release {
                    known.releases.join(&k);
                }
                public.get_or_insert(k);
            }
            public.unwrap_or_default()
        });
        self.given_up |= k.entries() > MAX_ENTRIES;
        if !self.open.is_empty() {
            self.late_store(span, stamp, &k);
        }
        k
    }

    /// A run of stores goes on: the same version covers `span` too.
    pub(crate) fn store_goes_on(&mut self, p: CpuId, span: Span, stamp: u64, view: &View) {
        let mut k = view.clone();
        k.stored(span, key_of(stamp, p));
        self.touched.note(p, span, |t| t.accesses.join(&k));
        self.late_store(span, stamp, &k);
    }

    /// Whether a store to `span` knows more than the store before it in its run: another CPU, or a
    /// clean, touched the range.
    pub(crate) fn touched_otherwise(&self, p: CpuId, span: Span) -> bool {
        self.touched.of(span).any(|(_, touch)| touch.cpu != p || touch.cleans().entries() != 0)
    }

    /// R11: fetches that are not known to be past when a later version is stored may return it.
    fn late_store(&mut self, span: Span, stamp: u64, k: &View) {
        let grown = &mut self.grown;
        self.open.retain(|open| {
            if open.span.meet(span).is_none() {
                return true;
            }
            let free = open.number > k.fetches(open.cpu);
            if free && !made(Mistake::NoLateStores) {
                grown.push((open.id, stamp));
            }
            free
        });
    }

    /// R3. `from` is the version returned, if another CPU stored it; `taint` what fed the address,
    /// if the source tells. Returns what the register knows.
    pub(crate) fn load(
        &mut self,
        p: CpuId,
        span: Span,
        order: MemOrder,
        from: Option<&Version>,
        taint: Option<&View>,
    ) -> View {
        let mut cleans = Vec::new();
        if self.caches.clean_before_load {
            let own = self.touched.of(span).filter(|(_, touch)| touch.cpu == p);
            cleans.extend(own.map(|(_, touch)| touch.cleans().clone()));
        }
        let cpu = self.cpu(p);
        let mut public = None;
        for known in cpu.both() {
            let mut k = known.base[LOAD].clone();
            cleans.iter().for_each(|clean| k.join(clean));
            if let Some(taint) = taint {
                k.join(taint);
            }
            if let Some(from) = from {
                know(&mut k, from, span);
            }
            if order == MemOrder::Full {
                k.join(&known.releases);
            }
            if matches!(order, MemOrder::Acquire | MemOrder::Full) {
                known.base[LOAD].join(&k);
                known.base[STORE].join(&k);
            }
            known.gathered[LOAD].join(&k);
            if order == MemOrder::Acquire && taint.is_none() {
                // No source tells what the value fed. An acquire is taken to have fed a branch, as
                // a waiting loop does; a plain load to have fed nothing.
                known.branch.join(&k);
            }
            public.get_or_insert(k);
        }
        let k = public.unwrap_or_default();
        self.touched.note(p, span, |touch| touch.loaded(&k));
        k
    }

    /// A branch was executed on a value with this taint.
    pub(crate) fn branch(&mut self, p: CpuId, taint: &View) {
        self.cpu(p).both().for_each(|known| known.branch.join(taint));
    }

    /// An access used an address with this taint.
    pub(crate) fn address(&mut self, p: CpuId, taint: &View) {
        self.cpu(p).both().for_each(|known| known.address.join(taint));
    }

    /// R4: a clean of a line.
    pub(crate) fn clean(
        &mut self,
        p: CpuId,
        line: Option<Span>,
        versions: &Versions,
        taint: &View,
    ) {
        let span = line.unwrap_or(Span { first: 0, last: u64::MAX });
        let mut own = Vec::new();
        for (_, touch) in self.touched.of(span) {
            if touch.cpu == p && !made(Mistake::NoOrderOfLine) {
                own.extend([touch.accesses.clone(), touch.cleans().clone()]);
            }
        }
        let line = match line {
            Some(line) if made(Mistake::CleanOfOneWord) => Span::of(line.first, 4),
            line => line,
        };
        let cpu = self.cpu(p);
        let mut public = None;
        for known in cpu.both() {
            let mut k = known.base[CLEAN].clone();
            for view in [taint, &known.branch].into_iter().chain(&own) {
                k.join(view);
            }
            k.clean(line, versions);
            known.gathered[CLEAN].join(&k);
            public.get_or_insert(k);
        }
        let k = public.unwrap_or_default();
        // Later stores anywhere in the line come after it, wherever in the line the earlier ones
        // were. Of everything, only what was touched is noted.
        match line {
            Some(line) => self.touched.note(p, line, |touch| touch.cleaned(&k)),
            None => self.touched.note_again(p, span, |touch| touch.cleaned(&k)),
        }
    }

    /// R5: an invalidation of instruction caches, of a line or of everything. `virt` is the line's
    /// address if the caches are indexed by it.
    pub(crate) fn invalidate(
        &mut self,
        p: CpuId,
        line: Option<Span>,
        virt: Option<u64>,
        versions: &Versions,
        taint: &View,
    ) {
        let caches = self.caches;
        self.cpu(p).both().for_each(|known| {
            let any_line = caches.any_line && !made(Mistake::IcbiOfOneLine);
            known.invalidate(caches, line.filter(|_| !any_line), virt, versions, taint);
        });
    }

    /// An invalidation of everything that reaches `p` alone. Nobody else learns anything from it.
    pub(crate) fn invalidate_own(&mut self, p: CpuId, versions: &Versions) {
        let caches = self.caches;
        if made(Mistake::AloneReachesAll) {
            self.invalidate(p, None, None, versions, &View::default());
        } else {
            self.cpu(p).private().invalidate(caches, None, None, versions, &View::default());
        }
    }

    /// R6 and R7, and the barriers of Power. One that is not shareable orders for `p` alone.
    pub(crate) fn barrier(&mut self, p: CpuId, barrier: Barrier, domain: Domain) {
        let cpu = self.cpu(p);
        if domain == Domain::NonShareable && !made(Mistake::NarrowIsWide) {
            cpu.private().barrier(barrier);
            return;
        }
        let done = cpu.public.gathered[INVALIDATE].clone();
        cpu.both().for_each(|known| known.barrier(barrier));
        if made(Mistake::CompletionCloses) && barrier == Barrier::DsbFull {
            let all: Vec<CpuId> = self.cpus.iter().map(|(p, _)| p).collect();
            all.into_iter().for_each(|p| self.cpu(p).public.base[FETCH].join(&done));
        }
    }

    /// R8: context synchronisation.
    pub(crate) fn sync(&mut self, p: CpuId) {
        let completes = self.caches.sync_completes;
        let cpu = self.cpu(p);
        if completes && !made(Mistake::IsyncCompletesNothing) {
            let issued = cpu.public.gathered[INVALIDATE].clone();
            if made(Mistake::IsyncCompletesForAll) {
                cpu.public.to_sync.join(&issued);
            } else if !issued.i().is_empty() {
                cpu.private().base[FETCH].join(&issued);
            }
        }
        cpu.both().for_each(Knowledge::sync);
    }

    /// Stamp of the oldest version that a fetch of `p` from there may return: R9.
    pub(crate) fn low(&self, p: CpuId, at: Fetched, history: &History) -> u64 {
        let low = |known: &Knowledge| self.excludes(&known.base[FETCH]).newest_of(history, at);
        self.cpus.get(p).map_or(0, |cpu| cpu.each().map(low).max().unwrap_or(0))
    }

    /// The part of a view below whose newest version nothing can be fetched.
    fn excludes(&self, view: &View) -> Stores {
        if self.caches.invalidate { view.i().clone() } else { view.w() }
    }

    /// R9 and R10: a fetch from `span` that returned the version with view `from`. `id` names the
    /// fetch in [`Weak::grown`].
    pub(crate) fn fetch(&mut self, p: CpuId, span: Span, from: Option<&Version>, id: u64) {
        let orders = self.caches.fetch_orders;
        let cpu = self.cpu(p);
        cpu.fetches = cpu.fetches.saturating_add(1);
        let number = cpu.fetches;
        for known in cpu.both() {
            if !orders {
                if !made(Mistake::FetchOrdersNothing) {
                    known.base[STORE].past(p, number);
                }
                continue;
            }
            let mut k = known.base[FETCH].clone();
            if let Some(from) = from {
                know(&mut k, from, span);
            }
            if !made(Mistake::NoAnchor) {
                known.base[FETCH].join_but_fetches(&k);
            }
            k.past(p, number);
            if !made(Mistake::FetchOrdersNothing) {
                known.base[..FETCH].iter_mut().for_each(|base| base.join(&k));
            }
        }
        if !self.follow {
            return;
        }
        if self.open.len() >= MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(Open { cpu: p, number, span, id });
    }

    /// Stamp of the newest version that the data side of `p` knows of: what its loads know, and its
    /// own accesses to `span`.
    pub(crate) fn data_knows(&self, p: CpuId, span: Span, history: &History) -> u64 {
        let loads =
            self.cpus.get(p).map_or(0, |cpu| cpu.public.base[LOAD].w().newest(history, span));
        let mut own = u64::MAX;
        for (part, touch) in self.touched.by(p, span) {
            own = own.min(touch.map_or(0, |t| t.accesses.w().newest(history, part)));
        }
        loads.max(if own == u64::MAX { 0 } else { own })
    }

    /// Stamp of the newest version of `span` that the next context synchronisation of `p` would put
    /// below all later fetches.
    pub(crate) fn would_exclude(&self, p: CpuId, at: Fetched, history: &History) -> u64 {
        let newest = |view: &View| self.excludes(view).newest_of(history, at);
        let handed = |known: &Knowledge| {
            newest(&known.to_sync).max(newest(&known.branch)).max(newest(&known.address))
        };
        self.cpus.get(p).map_or(0, |cpu| cpu.each().map(handed).max().unwrap_or(0))
    }

    /// Whether any CPU knows that `span` was invalidated with version `stamp` or newer, or `p`
    /// did it for itself.
    pub(crate) fn anybody_invalidated(
        &self,
        p: CpuId,
        at: Fetched,
        history: &History,
        stamp: u64,
    ) -> bool {
        let invalidated = |known: &Knowledge| {
            [&known.base[INVALIDATE], &known.gathered[INVALIDATE]]
                .into_iter()
                .any(|view| view.i().newest_of(history, at) >= stamp)
        };
        let own = |cpu: &Cpu| cpu.private.as_deref().is_some_and(invalidated);
        self.cpus.get(p).is_some_and(|cpu| own(cpu))
            || self.cpus.iter().any(|(_, cpu)| invalidated(&cpu.public))
    }

    /// Finds out what each of these CPUs knows. What it hands on is enough: the other knowledge of
    /// a CPU has all of that.
    pub(crate) fn settle(&mut self, everybody: impl Iterator<Item = CpuId> + Clone) {
        let other = if self.caches.invalidate { CLEAN } else { FETCH };
        let knows = |p: CpuId, q| {
            let base = self.cpus.get(p).map(|cpu| &cpu.public.base);
            base.map_or(0, |base| base[LOAD].stored_by(q).min(base[other].stored_by(q)))
        };
        let floor = |q| everybody.clone().map(|p| knows(p, q)).min().unwrap_or(0);
        self.floors = everybody.clone().map(floor).collect();
    }

    /// Whether every CPU knows the version with this key.
    #[inline]
    pub(crate) fn everybody_knows(&self, key: u64) -> bool {
        self.floors.get(usize::from(key as u16)).is_some_and(|floor| key >> 16 <= *floor)
    }

    /// Everybody knows what everybody knew: the CPUs named, and those that did anything yet.
    pub(crate) fn meet(&mut self, everybody: impl Iterator<Item = CpuId>) {
        let mut names: Vec<CpuId> = self.cpus.iter().map(|(p, _)| p).chain(everybody).collect();
        names.sort_unstable();
        names.dedup();
        let mut all = View::default();
        for p in &names {
            let known = self.release(*p, 0, true);
            all.join(&known);
        }
        for p in &names {
            self.acquire(*p, &all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_was_told_before_a_barrier_everybody_knows() {
        let (p, q) = (CpuId(0), CpuId(1));
        let mut weak = Weak::new(Caches::ARM);
        let (span, none) = (Span { first: 0, last: 7 }, View::default());
        weak.store(p, span, 1, MemOrder::Plain, None, &none);
        let dsb = |weak: &mut Weak, cpu| weak.barrier(cpu, Barrier::DsbFull, Domain::Inner);
        let everybody = [p, q].into_iter();
        [p, q].into_iter().for_each(|cpu| dsb(&mut weak, cpu));
        weak.settle(everybody.clone());
        assert!(!weak.everybody_knows(key_of(1, p)), "nothing told the other");
        weak.meet(everybody.clone());
        weak.settle(everybody.clone());
        assert!(!weak.everybody_knows(key_of(1, p)), "cleans wait for a barrier");
        [p, q].into_iter().for_each(|cpu| dsb(&mut weak, cpu));
        weak.settle(everybody.clone());
        assert!(weak.everybody_knows(key_of(1, p)));
        weak.store(p, span, 9, MemOrder::Plain, None, &none);
        weak.settle(everybody);
        assert!(!weak.everybody_knows(key_of(9, p)) && !weak.everybody_knows(key_of(1, q)));
    }
}
