//! Maintenance that was issued, and the barriers that complete it.
//!
//! Modelled: a clean or invalidation takes effect somewhere between what its CPU had ordered before
//! it (`base`) and the barrier that completes it, on each CPU by itself; without that barrier it is
//! never sure to. Cleans are completed by a full DSB or DMB, IC by a full DSB, TLBI by a full DSB
//! (not of the non-shareable domain if it was broadcast); on Power `sync` or `ptesync`, `tlbsync`
//! and `ptesync`; x86 INVLPGB by TLBSYNC. Until then a fetch or access may get old or new: that is
//! a choice of the access. A clean that happens by itself earlier is no choice of its own: it only
//! takes old bytes away that a fetch need not get. Not modelled: nXS domains.

use textbed_arch::effect::{Barrier, CacheScope, Domain, Reach, TlbScope};
use textbed_arch::sync::translation::{TlbieStage, walks_in_order};
use textbed_arch::{Arch, CpuId, Features, PhysAddr, VirtAddr};
use textbed_event::{Flags, OpId, View};

use crate::Machine;
use crate::choice::Choice;
use crate::iside::Performed;
use crate::state::{Part, Take};
use crate::tlb::{PendingTlbi, Second, TlbTarget};

/// A clean that no barrier has completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PendingClean {
    /// Physical range; `None` = everything.
    range: Option<(u64, u64)>,
    issued: u64,
    pub(crate) base: u64,
}

impl PendingClean {
    /// Whether it is about one of these bytes.
    pub(crate) fn covers(self, phys: u64, len: u64) -> bool {
        self.range.is_none_or(|(first, size)| first < phys + len && phys < first + size)
    }
}

/// An instruction cache invalidation that no barrier has completed.
#[derive(Clone, Copy, Debug)]
struct PendingInvalidate {
    /// The address; `None` = everything. Each cache drops its own line of it.
    at: Option<u64>,
    reach: Reach,
    base: u64,
}

/// Invalidations kept that an erratum left half done, each until a second one; what is given up
/// stays half done.
const MAX_HALVES: usize = 1024;

/// What a CPU has issued, and the moments of its last barriers.
#[derive(Clone, Default, Debug)]
pub(crate) struct Pending {
    cleans: Vec<PendingClean>,
    invalidates: Vec<PendingInvalidate>,
    tlbis: Vec<PendingTlbi>,
    /// Last barrier that orders everything before maintenance.
    full: u64,
    /// Last barrier that orders cleans.
    memory: u64,
    /// Last barrier that orders stores before invalidations.
    stores: u64,
    /// Last barrier that orders table stores before TLB invalidations.
    tables: u64,
    /// Last moment at which the CPU learned of others' doings: a load, a lock, a cross-call.
    learned: u64,
    /// When the youngest version was stored that it fetched: a fetch is before all that follows.
    fetched: u64,
}

impl Pending {
    /// A version stored at this moment was fetched.
    pub(crate) fn saw(&mut self, born: u64) {
        self.fetched = self.fetched.max(born);
    }

    /// An invalidation that reaches all: those behind whose barrier it comes have their second.
    fn second_tlbi(&mut self) {
        for t in self.tlbis.iter_mut().filter(|t| t.second == Second::Fenced) {
            t.second = Second::Issued;
        }
    }

    /// An invalidation that an erratum left half done; the oldest is given up for it, if need be.
    fn keep_half(&mut self, tlbi: PendingTlbi) {
        let halves = self.tlbis.iter().filter(|t| t.half).count();
        if halves >= MAX_HALVES
            && let Some(eldest) = self.tlbis.iter().position(|t| t.half)
        {
            self.tlbis.remove(eldest);
        }
        self.tlbis.push(tlbi);
    }

    /// When the youngest version was stored that the CPU fetched.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched
    }

    /// Every part, for [`Machine::fingerprint`].
    pub(crate) fn visit(&self, take: Take<'_>) {
        let range = |range: Option<(u64, u64)>, take: Take<'_>| {
            let (first, len) = range.unwrap_or((u64::MAX, 0));
            take(Part::Value(first));
            take(Part::Value(len));
        };
        take(Part::Value(self.cleans.len() as u64));
        for c in &self.cleans {
            range(c.range, take);
            take(Part::Event(c.issued));
            take(Part::Known(c.base));
        }
        take(Part::Value(self.invalidates.len() as u64));
        for i in &self.invalidates {
            take(Part::Value(i.at.unwrap_or(u64::MAX)));
            take(Part::Value(i.reach as u64));
            take(Part::Known(i.base));
        }
        take(Part::Value(self.tlbis.len() as u64));
        for t in &self.tlbis {
            let TlbTarget { scope, virt, len, asid, any, leaf } = t.target;
            for value in [scope as u64, virt, len, u64::from(asid), u64::from(any)] {
                take(Part::Value(value));
            }
            let leaf = u64::from(leaf.unwrap_or(0)) << 32;
            let errata = (t.second as u64) << 16 | u64::from(t.half) << 24 | leaf;
            take(Part::Value(t.reach as u64 | (t.stage as u64) << 8 | errata));
            take(Part::Known(t.own));
            take(Part::Known(t.base));
        }
        let moments =
            [self.full, self.memory, self.stores, self.tables, self.learned, self.fetched];
        moments.into_iter().for_each(|moment| take(Part::Known(moment)));
    }

    /// Maintenance from here on comes after what happened until `moment`.
    pub(crate) fn knows(&mut self, moment: u64) {
        self.learned = self.learned.max(moment);
    }
}

impl Machine {
    /// The CPU knows from here on what happened before.
    pub(crate) fn learned(&mut self, cpu: CpuId) {
        let now = self.tick;
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.pending.learned = now;
        }
        self.stores_performed(cpu, Performed::ByNow);
        self.data_learned(cpu);
    }

    /// The moment up to which a CPU knows of others' stores.
    pub(crate) fn known_until(&self, cpu: CpuId) -> u64 {
        let loaded = if self.reorders() { self.last_load(cpu).0 } else { 0 };
        self.cpus.get(cpu.index()).map_or(0, |c| c.pending.learned.max(loaded))
    }

    /// Cleans data to the point of unification.
    pub(crate) fn clean(
        &mut self,
        cpu: CpuId,
        scope: CacheScope,
        virt: VirtAddr,
        phys: PhysAddr,
        op: OpId,
    ) {
        let range = line_of(address_of(scope, phys), self.lines.geometry().0);
        let issued = self.advance();
        if let Some(c) = self.cpus.get(cpu.index()) {
            let p = &c.pending;
            let base = p.memory.max(p.full).max(p.learned).max(p.fetched).max(c.data.fed());
            let clean = PendingClean { range, issued, base };
            // Stores to the line come before its clean; where a clean does nothing both may wait.
            if self.lines.unified || !self.clean_waits(cpu, clean) {
                self.pend_clean(cpu, clean);
            }
        }
        let space = self.space_of(cpu);
        let view = View::CacheClean { scope, virt, phys };
        self.emit_in(cpu, space, Flags::default(), op, view);
    }

    /// The store that a clean waited for was performed just now.
    pub(crate) fn clean_follows(&mut self, cpu: CpuId, clean: PendingClean) {
        let issued = self.advance();
        self.pend_clean(cpu, PendingClean { issued, ..clean });
    }

    fn pend_clean(&mut self, cpu: CpuId, clean: PendingClean) {
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.pending.cleans.push(clean);
        }
    }

    /// Invalidates instruction caches.
    pub(crate) fn invalidate_icache(
        &mut self,
        cpu: CpuId,
        scope: CacheScope,
        reach: Reach,
        virt: VirtAddr,
        phys: PhysAddr,
        op: OpId,
    ) {
        self.advance();
        let at = address_of(scope, phys);
        let unified = self.lines.unified;
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            let fed = c.data.fed();
            let p = &mut c.pending;
            // A store barrier orders stores before the IC, but no clean.
            let stores = if unified { p.stores } else { 0 };
            let base = p.full.max(stores).max(p.learned).max(p.fetched).max(fed);
            p.invalidates.push(PendingInvalidate { at, reach, base });
        }
        let space = self.space_of(cpu);
        let view = View::IcacheInvalidate { scope, reach, virt, phys };
        self.emit_in(cpu, space, Flags::default(), op, view);
    }

    /// Invalidates translations. On x86 a local one is done at once.
    pub(crate) fn invalidate_tlb(&mut self, cpu: CpuId, target: TlbTarget, reach: Reach, op: OpId) {
        let now = self.advance();
        let x86 = self.arch() == Arch::X86_64;
        let ordered = walks_in_order(self.arch(), self.config.features);
        if ordered && (reach == Reach::Local || !x86) {
            let missed = self.has(Features::X86_INVLPG_MISS) && self.has(Features::X86_PCID);
            let keeps_global = missed && target.scope == TlbScope::Address;
            self.drop_translations(cpu, &target, now, keeps_global);
        } else if let Some(c) = self.cpus.get_mut(cpu.index()) {
            let p = &mut c.pending;
            // x86: an earlier table store is taken to be ordered before INVLPGB, as Linux 7.0
            // flush_tlb_kernel_range() does, which has no fence between; no text was found.
            let own = if x86 { now } else { p.tables };
            let base = own.max(p.learned);
            if reach == Reach::Broadcast {
                p.second_tlbi();
            }
            let (second, half) = (Second::Wanted, false);
            p.tlbis.push(PendingTlbi {
                target,
                reach,
                own,
                base,
                stage: TlbieStage::Issued,
                second,
                half,
            });
        }
        let TlbTarget { scope, virt, len, asid, leaf, .. } = target;
        let space = self.space_tagged(cpu, asid);
        let view = View::TlbInvalidate { scope, reach, virt: VirtAddr(virt), len, asid, leaf };
        self.emit_in(cpu, space, Flags::default(), op, view);
    }

    /// A barrier.
    pub(crate) fn barrier(&mut self, cpu: CpuId, barrier: Barrier, domain: Domain, op: OpId) {
        self.stores_before(cpu, barrier);
        let now = self.advance();
        self.data_barrier(cpu, barrier);
        let space = self.space_of(cpu);
        let view = View::Barrier { barrier, domain };
        self.emit_in(cpu, space, Flags::default(), op, view);
        let stores = [Barrier::DsbFull, Barrier::DsbStore, Barrier::Sync, Barrier::Ptesync];
        if stores.contains(&barrier) {
            self.stores_performed(cpu, Performed::ByNow);
        }
        let reorders = self.reorders();
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return };
        let stored = c.data.stored;
        let p = &mut c.pending;
        p.tlbis.iter_mut().for_each(|t| t.stage = t.stage.behind(barrier));
        match barrier {
            Barrier::DsbFull => {
                (p.full, p.memory, p.stores, p.tables) = (now, now, now, now);
                self.complete_cleans(cpu);
                self.complete_invalidates(cpu);
                let shared = domain != Domain::NonShareable;
                self.complete_tlbis(cpu, |t| shared || t.reach == Reach::Local);
                if shared {
                    self.fence_tlbis(cpu);
                }
            }
            // Nothing after it, a clean neither, comes before the stores that it waits for.
            // It waits for stores alone: a load before it may come after what follows it.
            Barrier::DsbStore => {
                let at = if reorders { stored } else { now };
                (p.memory, p.stores) = (p.memory.max(at), p.stores.max(at));
                p.tables = now;
            }
            Barrier::DmbFull => {
                p.memory = now;
                self.complete_cleans(cpu);
            }
            Barrier::Sync | Barrier::Ptesync => {
                (p.full, p.memory, p.stores) = (now, now, now);
                let tables = barrier.orders_tables(self.config.arch);
                if tables {
                    p.tables = now;
                }
                self.complete_cleans(cpu);
                self.complete_invalidates(cpu);
                if tables {
                    self.complete_tlbis(cpu, |t| {
                        t.stage == TlbieStage::Announced || t.reach == Reach::Local
                    });
                    self.fence_tlbis(cpu);
                }
            }
            Barrier::Tlbsync => {
                if self.arch() == Arch::X86_64 {
                    self.complete_tlbis(cpu, |_| true);
                }
            }
            Barrier::DmbLoad
            | Barrier::DmbStore
            | Barrier::DsbLoad
            | Barrier::Mfence
            | Barrier::Lfence
            | Barrier::Sfence
            | Barrier::Lwsync
            | Barrier::Eieio => {}
        }
    }

    /// Every clean that the CPU issued has taken effect.
    fn complete_cleans(&mut self, cpu: CpuId) {
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return };
        let cleans = std::mem::take(&mut c.pending.cleans);
        if self.lines.unified {
            return;
        }
        for clean in cleans {
            for number in self.lines.in_range(clean.range) {
                self.complete_clean(cpu, number, &clean);
            }
        }
    }

    /// A CPU is about to store: its own cleans of these lines come before that, without a barrier.
    pub(crate) fn clean_before_store(&mut self, cpu: CpuId, phys: u64, len: u64) {
        let pending = self.cpus.get(cpu.index()).map_or(&[][..], |c| &c.pending.cleans);
        let cleans: Vec<PendingClean> =
            pending.iter().copied().filter(|c| c.covers(phys, len)).collect();
        for clean in cleans {
            for number in self.lines.in_range(Some((phys, len))) {
                let (shift, first) = (self.lines.shift(), number << self.lines.shift());
                if clean.covers(first, 1 << shift) {
                    self.complete_clean(cpu, number, &clean);
                }
            }
        }
    }

    /// One line of a clean: at the latest when it was issued, at the earliest after what is ordered
    /// before it. Stores of other CPUs in between may be missed.
    fn complete_clean(&mut self, cpu: CpuId, number: u64, clean: &PendingClean) {
        let Some(line) = self.lines.get_mut(number) else { return };
        let own = line.last_access(cpu);
        let own = if own <= clean.issued { own } else { clean.issued };
        let base = clean.base.max(own);
        line.touch(cpu, clean.issued.max(line.last_access(cpu)));
        let dirty = |v: &&crate::lines::Version| v.cleaned.is_none() && v.ended <= clean.issued;
        let mut moments: Vec<u64> =
            line.versions.iter().filter(dirty).map(|v| v.ended).filter(|e| *e > base).collect();
        moments.reverse();
        let options = moments.len() + 1;
        let phys = PhysAddr(number << self.lines.shift());
        let answer = self.choices.ask(Choice::CleanTook { cpu, phys, options });
        let took = match answer.checked_sub(1).and_then(|n| moments.get(n)) {
            Some(ended) => ended - 1,
            None => clean.issued,
        };
        let Some(line) = self.lines.get_mut(number) else { return };
        let mut cleaned = (usize::MAX, 0);
        for (n, v) in line.versions.iter_mut().enumerate() {
            if v.cleaned.is_none() && v.ended <= took {
                v.cleaned = Some(clean.issued);
                cleaned = (cleaned.0.min(n), n + 1);
            }
        }
        if cleaned.1 > 0 {
            self.hold_cleaned(number, cleaned.0, cleaned.1);
        }
    }

    /// Every instruction cache invalidation that the CPU issued has reached the CPUs in its reach.
    fn complete_invalidates(&mut self, by: CpuId) {
        let Some(c) = self.cpus.get_mut(by.index()) else { return };
        let invalidates = std::mem::take(&mut c.pending.invalidates);
        if self.lines.coherent {
            return;
        }
        for i in invalidates {
            for cpu in self.reached(by, i.reach).iter() {
                self.complete_invalidate(by, cpu, &i);
            }
        }
    }

    fn complete_invalidate(&mut self, by: CpuId, cpu: CpuId, i: &PendingInvalidate) {
        let range = line_of(i.at, self.config.geometry_of(cpu).iline_bytes);
        let numbers = self.lines.in_range(range);
        let versions = || {
            let lines = numbers.iter().filter_map(|n| self.lines.get(*n));
            lines.flat_map(|l| &l.versions).filter_map(|v| {
                let held = v.held.iter().find(|h| h.cpu == cpu)?;
                Some((v.cleaned?, held))
            })
        };
        // Not before a fetch of the CPU that got what the invalidation drops.
        let earliest = versions().map(|(_, held)| held.got).fold(i.base, u64::max);
        let open = versions().filter(|(cleaned, h)| *cleaned > earliest && h.until > earliest);
        let mut moments: Vec<u64> = open.map(|(cleaned, _)| cleaned).collect();
        moments.sort_unstable_by(|a, b| b.cmp(a));
        moments.dedup();
        let options = moments.len() + 1;
        let answer = self.choices.ask(Choice::InvalidateReached { by, cpu, options });
        let moment = match answer.checked_sub(1).and_then(|n| moments.get(n)) {
            Some(cleaned) => cleaned - 1,
            None => self.tick,
        };
        self.drop_lines(cpu, range, moment);
    }

    /// Those TLB invalidations of the CPU that the barrier completes. What an erratum leaves open
    /// stays until a second one is complete.
    fn complete_tlbis(&mut self, by: CpuId, completes: impl Fn(&PendingTlbi) -> bool) {
        let errata = self.has(Features::ARM_REPEAT_TLBI) || self.has(Features::PPC_TLBIE_STQ);
        let Some(c) = self.cpus.get_mut(by.index()) else { return };
        let again = |t: &PendingTlbi| completes(t) && !(t.half && t.second != Second::Issued);
        let (done, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut c.pending.tlbis).into_iter().partition(again);
        c.pending.tlbis = left;
        for tlbi in done {
            self.complete_tlbi(by, &tlbi);
            if errata
                && tlbi.reach == Reach::Broadcast
                && tlbi.second != Second::Issued
                && let Some(c) = self.cpus.get_mut(by.index())
            {
                c.pending.keep_half(PendingTlbi { half: true, stage: TlbieStage::Issued, ..tlbi });
            }
        }
    }

    /// A barrier stands between the CPU's TLB invalidations and what follows.
    fn fence_tlbis(&mut self, by: CpuId) {
        let Some(c) = self.cpus.get_mut(by.index()) else { return };
        for t in c.pending.tlbis.iter_mut().filter(|t| t.second == Second::Wanted) {
            t.second = Second::Fenced;
        }
    }
}

/// The address that maintenance names; `None` = it is about everything.
fn address_of(scope: CacheScope, phys: PhysAddr) -> Option<u64> {
    match scope {
        CacheScope::Line => Some(phys.0),
        CacheScope::All => None,
    }
}

/// The line of `bytes` around an address.
fn line_of(at: Option<u64>, bytes: u32) -> Option<(u64, u64)> {
    let bytes = u64::from(bytes);
    at.map(|at| (at & !(bytes - 1), bytes))
}
