//! Events that concern entries in the making: told to [`crate::translation::watch`], judged by
//! [`crate::rules::breaks`].

use textbed_arch::sync::translation::{HeldRefusal, held_refusal};
use textbed_arch::{CpuId, Features, Perm, SpaceId, VirtAddr};
use textbed_event::{Access, CallRef, FaultReason, Flags, LeafChange};

use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::rules::{RuleId, breaks, translations};
use crate::span::Span;
use crate::tables::{Mapping, UNKNOWN_PHYS};
use crate::translation::Old;
use crate::translation::watch::{Answer, needs_break};

/// Early invalidations kept until their call returns.
const MAX_EARLY: usize = 4096;

impl Live {
    /// Leaves are about to change: `before` is what the tables said, `base` where the first byte of
    /// the range leads afterwards.
    pub(crate) fn watch_entries(
        &mut self,
        now: Now<'_>,
        (space, span): (SpaceId, Span),
        base: u64,
        before: &[(Span, Mapping)],
        change: LeafChange,
        mark: &Mark,
    ) {
        let present = change.new.contains(Perm::PRESENT);
        let outer = self.calls.outermost(mark.cause);
        if !present {
            self.watch.unmade(space, span);
            let checkable = self.checkable(RuleId::LiveMappingHole);
            for (part, m) in before.iter().filter(|_| checkable) {
                self.watch.broke(space, *part, Answer::of(m), *mark);
            }
            return;
        }
        if before.iter().any(|(_, m)| m.perm.executable()) {
            self.occasions.looked(RuleId::LiveMappingHole);
        }
        // Where a missed access has its entry made there was no hole for it.
        let on_demand = now.event.flags.has(Flags::ON_DEMAND);
        for (part, hole) in self.watch.mended(space, span, base) {
            if !on_demand {
                breaks::live_mapping_hole(self, space, part, &hole, mark);
            }
        }
        let by_hand = self.made_visible_by_hand();
        // What is mapped outside calls is taken as given: sources set up their world so.
        let given = outer == CallRef::NONE;
        if by_hand && !given && before.is_empty() && self.checkable(RuleId::MissingPteOrder) {
            self.occasions.looked(RuleId::MissingPteOrder);
            self.watch.made(space, span, *mark);
        }
        if self.checkable(RuleId::BreakBeforeMake)
            && now.phys(textbed_arch::PhysAddr(base)).is_some()
        {
            self.judge_break((space, span), base, before, change, mark);
        }
    }

    /// Whether a new valid entry replaces one that CPUs may hold, where that needs a break.
    fn judge_break(
        &mut self,
        (space, span): (SpaceId, Span),
        base: u64,
        before: &[(Span, Mapping)],
        change: LeafChange,
        mark: &Mark,
    ) {
        let holding = self.cpus.holding(space);
        if holding == 0 || base >= UNKNOWN_PHYS {
            return;
        }
        self.occasions.looked(RuleId::BreakBeforeMake);
        let (arch, features) = (self.arch(), self.header.features);
        let new_at = |at: u64| Answer {
            phys: base.wrapping_add(at - span.first),
            perm: change.new,
            shift: change.shift,
            attributes: change.attributes,
        };
        let mut found: Option<(Span, breaks::Unbroken)> = None;
        for (part, m) in before {
            let old = Answer { shift: change.old_shift, ..Answer::of(m) };
            if let Some((row, which, sure)) = needs_break(arch, features, old, new_at(part.first)) {
                let granted = m.perm.letters();
                let (old, held) = (m.since, 0);
                let unbroken = breaks::Unbroken { row, change: which, sure, old, granted, held };
                found = Some((*part, unbroken));
                break;
            }
        }
        if found.is_none() {
            for (part, olds) in self.stale.within(space, span) {
                // What is valid right before was judged above.
                if before.iter().any(|(b, _)| b.meet(part).is_some()) {
                    continue;
                }
                for o in olds.0.iter().filter(|o| o.cpus & holding != 0) {
                    let Old { phys, perm, shift, attributes, .. } = *o;
                    let old = Answer { phys, perm, shift, attributes };
                    let Some((row, which, sure)) =
                        needs_break(arch, features, old, new_at(part.first))
                    else {
                        continue;
                    };
                    let (granted, held) = (o.perm.letters(), o.cpus & holding);
                    let old = o.since;
                    let u = breaks::Unbroken { row, change: which, sure, old, granted, held };
                    found = Some((part, u));
                    break;
                }
            }
        }
        if let Some((part, unbroken)) = found {
            breaks::break_before_make(self, part, &unbroken, mark);
        }
    }

    /// Somebody used an address: is its entry new, or was it gone?
    #[inline]
    pub(crate) fn entry_used(&mut self, now: Now<'_>, virt: VirtAddr, exec: bool) {
        if !exec && self.watch.is_idle() {
            return;
        }
        let space = self.space_at(now, virt);
        if exec {
            self.watch.runs(now.cpu(), now.seq(), space, virt.0);
        }
        if !self.watch.is_idle() && self.watch.concerns(space, virt.0) {
            self.watched_is_used(now, space, virt, exec);
        }
    }

    fn watched_is_used(&mut self, now: Now<'_>, space: SpaceId, virt: VirtAddr, exec: bool) {
        let mark = self.mark(now);
        self.watch.used(space, virt.0, &mark);
        let Some((span, fresh)) = self.watch.fresh_at(space, virt.0) else { return };
        self.occasions.looked(RuleId::MissingPteOrder);
        // After its barrier the maker's fetches wait for a context synchronisation, and without
        // FEAT_ETS2 its loads and stores too: a walk for them may have been made ahead. (On powerpc
        // nothing is fresh after its barrier.)
        let early = exec || !self.header.features.contains(Features::ARM_ETS2);
        if !fresh.visible || early && fresh.made.cpu == now.cpu() {
            breaks::new_entry_used(self, virt.0, &fresh, &mark, exec);
            self.watch.unmade(space, span);
        }
    }

    /// It is told late that code ran at an address.
    pub(crate) fn ran_at(&mut self, now: Now<'_>, virt: VirtAddr) {
        let space = self.space_at(now, virt);
        self.watch.runs(now.cpu(), now.seq(), space, virt.0);
    }

    /// An access was refused: a hole, if there is one, was met.
    pub(crate) fn faulted(&mut self, now: Now<'_>, virt: VirtAddr) {
        let space = self.space_at(now, virt);
        if self.watch.concerns(space, virt.0) {
            let mark = self.mark(now);
            self.watch.used(space, virt.0, &mark);
        }
    }

    /// An access was refused for want of a right: by what its CPU held, if the tables grant it.
    pub(crate) fn refused(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        access: Access,
        reason: FaultReason,
    ) {
        let faults = held_refusal(self.arch(), self.header.features) == HeldRefusal::Fault;
        if reason != FaultReason::Permission || !faults {
            return;
        }
        let space = self.space_at(now, virt);
        let Some((space, mapping)) = self.tables.lookup(space, virt.0) else { return };
        let granted = match access {
            Access::Read => mapping.perm.contains(Perm::PRESENT | Perm::READ),
            Access::Write => mapping.perm.writable(),
            Access::Exec => mapping.perm.executable(),
        };
        self.occasions.looked(RuleId::StaleTranslation);
        if granted && self.checkable(RuleId::StaleTranslation) {
            let mark = self.mark(now);
            translations::stale_refusal(self, space, virt.0, &mapping, &mark);
        }
    }

    /// The space that an address belongs to on the event's CPU.
    #[inline]
    pub(crate) fn space_at(&self, now: Now<'_>, virt: VirtAddr) -> SpaceId {
        self.space_of(now.cpu(), virt)
    }

    /// The space that an address belongs to on a CPU.
    #[inline]
    pub(crate) fn space_of(&self, cpu: CpuId, virt: VirtAddr) -> SpaceId {
        self.cpus.space_at(self.arch(), cpu, virt)
    }

    /// A call returned: were its invalidations that came too early made good?
    pub(crate) fn judge_entries(&mut self, call: CallRef) {
        self.early.truncate(MAX_EARLY);
        if !self.early.iter().any(|(outer, _, _)| *outer == call) {
            return;
        }
        let (mine, others) = self.early.drain(..).partition(|(outer, _, _)| *outer == call);
        self.early = others;
        let mine: Vec<(CallRef, SpaceId, Span)> = mine;
        for (_, space, span) in mine {
            self.judge_early(Some(call), space, span);
        }
    }

    /// The end of the stream: early invalidations outside calls.
    pub(crate) fn finish_entries(&mut self) {
        for (_, space, span) in std::mem::take(&mut self.early) {
            self.judge_early(None, space, span);
        }
    }

    /// Those that were to be made good by the end of `call`, or all.
    fn judge_early(&mut self, call: Option<CallRef>, space: SpaceId, span: Span) {
        if !self.checkable(RuleId::MissingPteOrder) {
            return;
        }
        self.occasions.looked(RuleId::MissingPteOrder);
        let due = |old: &&Old| {
            old.too_early().is_some_and(|early| call.is_none_or(|call| early.until == call))
        };
        let open: Vec<_> = self
            .stale
            .within(space, span)
            .filter_map(|(at, olds)| Some((at.first, *olds.0.iter().find(due)?)))
            .collect();
        for (first, old) in open {
            breaks::early_invalidation(self, space, first, &old);
        }
    }
}
