//! Events about stores, maintenance and order, handed to the model of fetch windows.

use std::cell::Cell;
use std::rc::Rc;

use textbed_arch::{
    Arch, CpuId, Features, PhysAddr, VirtAddr,
    effect::{Barrier, CacheScope, Domain, Reach, SyncCause},
};
use textbed_event::{Bytes, Flags, MemOrder};

use super::versions::{Forgotten, Knew, Made, Unit, Version, Versions};
use super::views::View;
use super::{Model, edges};
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::span::Span;

/// Ranges with stores of which no call has promised anything yet, in a source that does not show
/// what is executed; past it they are forgotten.
const MAX_UNPROMISED: usize = 1 << 14;

impl Live {
    pub(crate) fn store(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        phys: PhysAddr,
        range: Bytes,
        order: MemOrder,
    ) {
        let len = u64::from(range.len);
        if let Some(phys) = self.frame_of(now, virt, phys)
            && let Some(span) = Span::of(phys, len)
        {
            let unit = (len <= 8).then(|| {
                let mut unit = [0; 8];
                let bytes = now.batch.bytes(range);
                let whole = bytes.len() as u64 == len;
                for (to, from) in unit.iter_mut().zip(bytes) {
                    *to = *from;
                }
                whole.then_some(Unit { phys, len: len as u8, bytes: unit })
            });
            self.stored(now, virt, span, order, unit.flatten(), true);
        }
    }

    pub(crate) fn fill(&mut self, now: Now<'_>, virt: VirtAddr, phys: PhysAddr, len: u64) {
        if let Some(phys) = self.frame_of(now, virt, phys)
            && let Some(span) = Span::of(phys, len)
        {
            self.stored(now, virt, span, MemOrder::Plain, None, false);
        }
    }

    /// A device wrote: the bytes are somebody's. Who may fetch them is not followed.
    pub(crate) fn dma(&mut self, _now: Now<'_>, phys: u64, len: u64) {
        if let Some(span) = Span::of(phys, len) {
            self.frames.written(span);
        }
    }

    /// The physical address of an access: as told, else by the tables.
    fn frame_of(&self, now: Now<'_>, virt: VirtAddr, phys: PhysAddr) -> Option<u64> {
        now.phys(phys).or_else(|| {
            let space = self.cpus.space_of(now.cpu());
            // A mapping of an unknown frame stands for itself.
            self.tables.lookup(space, virt.0).map(|(_, mapping)| mapping.phys)
        })
    }

    fn stored(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        span: Span,
        order: MemOrder,
        unit: Option<Unit>,
        may_go_on: bool,
    ) {
        if !self.frames.unwritten.is_empty() {
            self.frames.written(span);
        }
        if self.fetches.is_off() || now.event.flags.has(Flags::EQUAL_BYTES) {
            return;
        }
        if !self.fetches.fetches_are_seen && self.fetches.versions.entries() >= MAX_UNPROMISED {
            self.fetches.versions = Versions::default();
            self.fetches.unpromised_forgotten = true;
        }
        let (p, seq) = (now.cpu(), now.seq());
        let delta = virt.0.wrapping_sub(span.first);
        let nontemporal = self.arch() == Arch::X86_64 && now.event.flags.has(Flags::NONTEMPORAL);
        let plain = order == MemOrder::Plain && may_go_on && !nontemporal;
        self.fetches.looks.stored(span);
        let going_on = self.fetches.versions.going_on(p, span, delta).filter(|_| plain);
        let fetches = &mut self.fetches;
        let (version, plain) = match (&mut fetches.model, going_on) {
            (Model::Off, _) => return,
            (Model::X86 { machine, .. }, Some(version)) => {
                if fetches.predicted {
                    machine.store(p, seq, None);
                }
                (Made::GoesOn(version), true)
            }
            (Model::Weak { predicted, .. }, Some(version))
                if predicted.as_ref().is_none_or(|w| !w.touched_otherwise(p, span)) =>
            {
                if let (Some(weak), Some(view)) = (predicted, &version.view) {
                    weak.store_goes_on(p, span, version.stamp, view);
                }
                (Made::GoesOn(version), true)
            }
            (model, _) => {
                let mark = Mark::of(now.event, now.batch, self.calls.chain(now.event.cause));
                // In the order of the stream nobody asks what a CPU knew.
                let (versions, predicted) = (&fetches.versions, fetches.predicted);
                let (clock, view) = match model {
                    Model::X86 { machine, .. } if predicted => {
                        let older = versions.newest_of_another(span.first, p);
                        (Some(machine.store(p, seq, older)), None)
                    }
                    Model::Weak { predicted: Some(weak), .. } => {
                        let other = versions.newest_of_another(span.first, p);
                        let from = other.and_then(|newest| newest.view);
                        let none = View::default();
                        (None, Some(weak.store(p, span, seq, order, from.as_ref(), &none)))
                    }
                    _ => (None, None),
                };
                let unit_alone = unit.as_ref().filter(|_| !nontemporal);
                if let Some(note) = unit_alone.and_then(|unit| fetches.versions.note(&mark, unit)) {
                    let shared = view.map(|view| Knew::View(view.shared()));
                    let knew = shared.or(clock.map(Knew::Clock)).unwrap_or(Knew::Nothing);
                    return self.enter_version(span, Made::Noted(note, knew), plain);
                }
                let fenced = Cell::new(0);
                let version = Version {
                    stamp: seq,
                    cpu: p,
                    mark,
                    delta,
                    nontemporal,
                    fenced,
                    unit,
                    view,
                    clock,
                };
                match &mut fetches.model {
                    Model::X86 { machine, .. } if nontemporal => {
                        let version = Rc::new(version);
                        machine.wait_for_fence(Rc::clone(&version));
                        (Made::Held(version), plain)
                    }
                    _ => (Made::New(version), plain),
                }
            }
        };
        self.enter_version(span, version, plain);
    }

    fn enter_version(&mut self, span: Span, version: Made, plain: bool) {
        let fetches = &mut self.fetches;
        let (arch, settling) = (self.header.arch, fetches.settling);
        let model = &fetches.model;
        let settled = |part: Span, key: u64| match model {
            Model::Off => Forgotten::None,
            Model::X86 { machine, .. } => settling.at(machine, key),
            Model::Weak { observed, predicted, .. } => {
                settling.within(observed, predicted.as_deref(), part, key)
            }
        };
        fetches.versions.store(arch, span, version, plain, settled);
    }

    /// A load that saw stores up to the event numbered `from`.
    pub(crate) fn load(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        phys: PhysAddr,
        len: u16,
        order: MemOrder,
        from: u64,
    ) {
        if self.fetches.is_off() || !self.fetches.predicted {
            return;
        }
        let Some(span) = self.frame_of(now, virt, phys).and_then(|p| Span::of(p, u64::from(len)))
        else {
            return;
        };
        let p = now.cpu();
        let newest = self.fetches.versions.newest_at(span.first, from).filter(|v| v.cpu != p);
        match &mut self.fetches.model {
            Model::X86 { machine, .. } => {
                if let Some(version) = &newest {
                    machine.saw(p, version);
                }
            }
            Model::Weak { predicted: Some(weak), .. } => {
                weak.load(p, span, order, newest.as_deref(), None);
            }
            _ => {}
        }
    }

    /// The bytes that maintenance of a line, or of everything, is about.
    fn maintained(
        &self,
        now: Now<'_>,
        scope: CacheScope,
        virt: VirtAddr,
        phys: PhysAddr,
        line: u64,
    ) -> Option<Span> {
        match scope {
            CacheScope::All => Some(Span { first: 0, last: u64::MAX }),
            CacheScope::Line => {
                let phys = self.frame_of(now, virt, phys)?;
                Span::of(phys, 1).map(|s| s.rounded(line))
            }
        }
    }

    pub(crate) fn cache_clean(
        &mut self,
        now: Now<'_>,
        scope: CacheScope,
        virt: VirtAddr,
        phys: PhysAddr,
    ) {
        let Some(span) = self.maintained(now, scope, virt, phys, self.fetches.dline) else {
            return;
        };
        self.fetches.versions.end_run();
        if let Model::Weak { observed, predicted, .. } = &mut self.fetches.model {
            observed.clean(&self.fetches.versions, span);
            let line = (scope == CacheScope::Line).then_some(span);
            if let Some(weak) = predicted {
                weak.clean(now.cpu(), line, &self.fetches.versions, &View::default());
            }
        }
    }

    pub(crate) fn icache_invalidate(
        &mut self,
        now: Now<'_>,
        scope: CacheScope,
        reach: Reach,
        virt: VirtAddr,
        phys: PhysAddr,
    ) {
        // What is said to be local reaches this CPU alone, but where a control bit widens it.
        let widened = self.header.features.contains(Features::ARM_FB);
        let alone = self.arch() == Arch::Arm64
            && (scope, reach) == (CacheScope::All, Reach::Local)
            && !widened;
        let line = match scope {
            CacheScope::All => None,
            CacheScope::Line => {
                let span = self.maintained(now, scope, virt, phys, self.fetches.iline);
                // With no address known it can stand for nothing.
                let Some(span) = span else { return };
                Some(span)
            }
        };
        self.fetches.versions.end_run();
        let by = self.fetches.by_virt.then_some(virt.0 & !(self.fetches.iline - 1));
        if let Model::Weak { observed, predicted, .. } = &mut self.fetches.model {
            let versions = &self.fetches.versions;
            observed.invalidate(now.cpu(), versions, line, by, alone, now.seq());
            if let Some(weak) = predicted.as_mut().filter(|_| alone) {
                weak.invalidate_own(now.cpu(), versions);
            } else if let Some(weak) = predicted {
                weak.invalidate(now.cpu(), line, by, versions, &View::default());
            }
        }
    }

    /// A barrier, as far as fetch windows are concerned.
    pub(crate) fn order_barrier(&mut self, now: Now<'_>, barrier: Barrier, domain: Domain) {
        let (p, seq) = (now.cpu(), now.seq());
        self.fetches.versions.end_run();
        let mut completed = false;
        match &mut self.fetches.model {
            Model::Off => {}
            Model::X86 { machine, .. } => machine.barrier(p, barrier, seq),
            Model::Weak { observed, predicted, .. } => {
                completed = observed.barrier(p, barrier, domain, seq);
                if completed {
                    observed.tidy(p, &self.fetches.versions);
                }
                if let Some(weak) = predicted {
                    weak.barrier(p, barrier, domain);
                }
            }
        }
        if completed {
            let mark = self.mark(now);
            self.fetches.remember_completion(mark);
        }
    }

    pub(crate) fn context_sync(&mut self, now: Now<'_>, cause: SyncCause) {
        if self.fetches.is_off() {
            return;
        }
        if self.arch() == Arch::X86_64 && cause == SyncCause::ExceptionEntry {
            // Interrupt and exception entry are in neither vendor's list.
            return;
        }
        let mark = self.mark(now);
        self.synchronised(now.cpu(), mark, Some(cause));
    }

    /// `cause`: where an event of its own says so.
    pub(crate) fn synchronised(&mut self, p: CpuId, mark: Mark, cause: Option<SyncCause>) {
        self.fetches.settle();
        self.fetches.versions.end_run();
        self.fetches.last_sync.set(p, (mark, cause));
        match &mut self.fetches.model {
            Model::Off => {}
            Model::X86 { machine, .. } => machine.sync(p, mark.seq),
            Model::Weak { observed, predicted, .. } => {
                observed.sync(p, mark.seq);
                observed.tidy(p, &self.fetches.versions);
                if let Some(weak) = predicted {
                    weak.sync(p);
                }
            }
        }
    }

    /// CPUs meet, or one leaves something for another: an interrupt, a lock, a published value,
    /// frames.
    pub(crate) fn meeting(&mut self, now: Now<'_>) {
        let (view, at) = (now.event.view(), (now.cpu(), now.seq()));
        let shared = now.event.flags.has(Flags::SHARED);
        if self.made_visible_by_hand() {
            self.told.hear(&view, at, shared);
        }
        if edges::learns(&view) {
            self.fetches.looks.learnt(at.0);
        }
        self.fetches.versions.end_run();
        match &mut self.fetches.model {
            Model::X86 { machine, edges } if machine.by_edges => {
                edges.hear(&view, at, shared, machine);
            }
            Model::Weak { predicted: Some(weak), edges, .. } => {
                edges.hear(&view, at, shared, &mut **weak);
            }
            _ => {}
        }
    }

    /// A stopped machine, or a grace period: everybody knows what everybody knew.
    pub(crate) fn everybody_meets(&mut self, now: Now<'_>) {
        if self.made_visible_by_hand() {
            self.told.all_meet(now.seq(), self.header.cpus);
        }
        self.fetches.versions.end_run();
        (0..self.header.cpus.min(64)).for_each(|p| self.fetches.looks.learnt(CpuId(p)));
        self.fetches.meet(now.seq());
    }
}
