//! The verdict on what a CPU may fetch: which arrow of the chain is the first that is missing?
//!
//! - *stale*: the window reaches below a version of which the CPU's data side knows. The first
//!   arrow that is missing names the rule.
//! - *race*: nothing tells the CPU of the last store. Legal only where both instructions are in the
//!   architecture's list (`--cmodx`), or where a calibration row says so.
//!
//! A step that only real edges show to be missing, while the order of the stream has it, is
//! `possible`, with the event that saved this run.

use std::rc::Rc;

use textbed_arch::{
    Arch, CpuId, SpaceId,
    effect::SyncCause,
    insn,
    sync::{self, Action, Applies, FetchRow},
};

use super::Model;
use super::arm64::Weak;
use super::observed::Observed;
use super::versions::{History, Unit, Version};
use super::x86::X86;
use crate::finding::StepState;
use crate::live::Live;
use crate::mark::Mark;
use crate::options::Reading;
use crate::rules::RuleId;
use crate::span::Span;

/// A chain that is broken, at a fetch.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) rule: RuleId,
    /// The first arrow that is missing.
    pub(crate) first: Action,
    /// What became of each arrow.
    pub(crate) steps: Vec<(&'static FetchRow, StepState)>,
    /// The version that may be missed.
    pub(crate) version: Rc<Version>,
    pub(crate) low: u32,
    pub(crate) high: u32,
    pub(crate) sure: bool,
    /// Nothing tells the CPU of the store (else it could know).
    pub(crate) race: bool,
    /// The context synchronisation that saved this run.
    pub(crate) saved: Option<(Mark, Option<SyncCause>)>,
    /// The barrier that completed the maintenance.
    pub(crate) completed: Option<Mark>,
}

/// What a verdict is asked of.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(super) p: CpuId,
    pub(super) space: SpaceId,
    pub(super) virt: u64,
    pub(super) span: Span,
    /// What of the fetched bytes the newest store there wrote, `span` being a part of it.
    pub(super) stored: Span,
    pub(super) history: &'a History,
    /// Stamp of the oldest version in the window.
    pub(super) low: u64,
    /// The rows that allow live patching apply.
    pub(super) live: bool,
}

impl<'a> Place<'a> {
    /// What `p` may fetch of `span`, which is at `virt` and has one history, alone and where no row
    /// allows live patching.
    pub(crate) fn of(
        p: CpuId,
        space: SpaceId,
        virt: u64,
        span: Span,
        history: &'a History,
    ) -> Self {
        Self { p, space, virt, span, stored: span, history, low: 0, live: false }
    }
}

impl Live {
    /// What is wrong with what may be fetched there.
    pub(crate) fn verdict(&self, at: Place<'_>) -> Option<Broken> {
        let Place { p, span, virt, history, .. } = at;
        match &self.fetches.model {
            Model::Off => None,
            Model::X86 { machine, .. } => self.x86_verdict(machine, at),
            Model::Weak { observed, predicted, .. } => {
                let weak = predicted.as_deref().filter(|w| !w.given_up);
                let newest = history.newest()?;
                let stamps: Vec<u64> = history.versions.iter().map(|v| v.stamp).collect();
                let fetched = self.fetches.fetched(span, virt);
                let seen = observed.low(p, fetched, &stamps);
                let low = weak.map_or(seen, |w| w.low(p, fetched, history));
                if low >= newest.stamp {
                    return None;
                }
                let knows = weak.map_or(newest.stamp, |w| w.data_knows(p, span, history));
                let stale =
                    history.versions.iter().rev().find(|v| v.stamp <= knows && v.stamp > low);
                let at = Place { low, ..at };
                let known = match stale {
                    Some(version) => match self.stale(&at, observed, weak, version) {
                        Some(broken) => return Some(broken),
                        // As good as excluded: it is the oldest that may be met.
                        None => version.stamp,
                    },
                    None => low,
                };
                let at = Place { low: known, ..at };
                if newest.stamp > known { self.race(&at, observed, seen, newest) } else { None }
            }
        }
    }

    /// The CPU could know of `version` and may still run older code.
    fn stale(
        &self,
        at: &Place<'_>,
        observed: &Observed,
        weak: Option<&Weak>,
        version: &Rc<Version>,
    ) -> Option<Broken> {
        let Place { p, span, virt, .. } = *at;
        let fetched = self.fetches.fetched(span, virt);
        let stamp = version.stamp;
        let features = self.header.features;
        let cleaned = observed.cleaned(span, stamp);
        let issued = observed.issued(p, fetched, stamp);
        let completed = observed.completed(p, fetched, stamp);
        // Whether anybody knows that the invalidation came after the clean.
        let in_order = weak.is_none_or(|w| w.anybody_invalidated(p, fetched, at.history, stamp));
        let no_ic =
            sync::chain(self.arch(), features).iter().all(|r| r.action != Action::Invalidate);
        let handed = weak.map(|w| w.would_exclude(p, fetched, at.history));
        let published = handed.map_or(completed.is_some(), |stamp| stamp >= version.stamp);
        let moment = observed.moment(p);
        let synced_after = completed.is_some_and(|at| moment >= at);
        let state = |done: bool| if done { StepState::Done } else { StepState::Missing };
        let steps: Vec<(&FetchRow, StepState)> = sync::chain(self.arch(), features)
            .into_iter()
            .map(|row| {
                let state = match row.action {
                    Action::StoreFence => StepState::NotNeeded,
                    Action::Clean => state(cleaned),
                    Action::CompleteClean if !issued && !cleaned => StepState::Missing,
                    Action::CompleteClean if !issued => StepState::Unknown,
                    Action::CompleteClean => state(in_order),
                    Action::Invalidate => state(issued),
                    Action::CompleteInvalidate if no_ic && version.cpu == p => state(published),
                    Action::CompleteInvalidate => state(completed.is_some()),
                    Action::Publish if version.cpu == p => StepState::NotNeeded,
                    // It knows of the store, though nobody could tell it of the maintenance.
                    Action::Publish if completed.is_none() || !in_order => match weak {
                        Some(_) => StepState::Done,
                        None => StepState::Unknown,
                    },
                    Action::Publish => state(published),
                    Action::ContextSync => state(synced_after && weak.is_none()),
                };
                (row, state)
            })
            .collect();
        let first = steps.iter().find(|(_, s)| *s == StepState::Missing).map(|(r, _)| *r)?;
        let mut sure = true;
        let mut saved = None;
        match first.action {
            Action::ContextSync => {
                let done_at = completed.unwrap_or(stamp);
                let (needed, firm) = self.sync_needed(at, done_at, moment);
                if !needed {
                    return None;
                }
                sure = firm && !synced_after;
                if synced_after {
                    saved = self.fetches.last_sync.get(p).copied();
                }
            }
            Action::Publish => {
                sure = !synced_after;
                if synced_after {
                    saved = self.fetches.last_sync.get(p).copied();
                }
            }
            _ => {}
        }
        sure &= first.rule.is_firm();
        let done = completed.and_then(|seq| self.fetches.completions.get(&seq)).copied();
        let broken = self.broken(at, first.action, steps, version, sure, false, saved);
        Some(Broken { completed: done, ..broken })
    }

    /// Nothing tells the CPU of the last store.
    fn race(
        &self,
        at: &Place<'_>,
        observed: &Observed,
        seen: u64,
        newest: &Rc<Version>,
    ) -> Option<Broken> {
        // Whatever the window holds may be met: each of it has to be in the list.
        let window = at.history.versions.iter().filter(|v| v.stamp >= at.low);
        let others: Vec<Unit> = window.filter_map(|v| v.unit).collect();
        if at.live && self.patchable(at.span, newest, &others) {
            return None;
        }
        let steps = self.unpublished(at, observed, newest.stamp);
        let synced = seen >= newest.stamp;
        let firm = steps.iter().find(|(r, _)| r.action == Action::Publish);
        // Whether the instruction is in the list is known only if its bytes are.
        let sure = !synced && newest.unit.is_some() && firm.is_some_and(|(r, _)| r.rule.is_firm());
        let saved = self.fetches.last_sync.get(at.p).copied().filter(|_| synced);
        Some(self.broken(at, Action::Publish, steps, newest, sure, true, saved))
    }

    /// The arrows, with the publication missing; of the others the order of the stream shows some.
    fn unpublished(
        &self,
        at: &Place<'_>,
        observed: &Observed,
        stamp: u64,
    ) -> Vec<(&'static FetchRow, StepState)> {
        let fetched = self.fetches.fetched(at.span, at.virt);
        let completed = observed.completed(at.p, fetched, stamp).is_some();
        let done = |action| match action {
            Action::Clean => observed.cleaned(at.span, stamp),
            Action::Invalidate => observed.issued(at.p, fetched, stamp),
            Action::CompleteClean | Action::CompleteInvalidate => completed,
            _ => false,
        };
        let state = |row: &FetchRow| match row.action {
            Action::Publish => StepState::Missing,
            action if done(action) => StepState::Done,
            _ => StepState::Unknown,
        };
        let chain = sync::chain(self.arch(), self.header.features);
        chain.into_iter().map(|row| (row, state(row))).collect()
    }

    /// Whether a store may be met by a CPU that runs the code: it and all that it may meet instead
    /// are in the list. Of code that was there before the stream the instruction is not known, and
    /// taken to be in; so is what came by a longer store.
    fn patchable(&self, span: Span, new: &Version, others: &[Unit]) -> bool {
        let (arch, list) = (self.arch(), self.fetches.cmodx_list);
        let listed = |unit: &Unit| {
            let bytes = unit.bytes.get(..usize::from(unit.len)).unwrap_or(&[]);
            unit.len == 4
                && unit.phys.is_multiple_of(4)
                && insn::decode(arch, bytes).is_some_and(|i| i.row.live_patchable_as_of(list))
        };
        let Some(unit) = new.unit else { return false };
        let inside =
            Span::of(unit.phys, u64::from(unit.len)).is_some_and(|u| u.meet(span).is_some());
        inside && listed(&unit) && others.iter().all(|o| o.phys != unit.phys || listed(o))
    }

    fn x86_verdict(&self, machine: &X86, at: Place<'_>) -> Option<Broken> {
        let Place { p, virt, span, history, .. } = at;
        let moment = machine.moment(p);
        let delta = virt.wrapping_sub(span.first);
        let low = if self.fetches.predicted { machine.low(p, history, delta) } else { 0 };
        let at = Place { low, ..at };
        for version in history.versions.iter().rev() {
            let seen = moment >= version.stamp;
            let in_view = if self.fetches.predicted { machine.in_view(p, version) } else { seen };
            let waits = version.nontemporal && version.fenced.get() == 0 && version.cpu != p;
            if waits {
                let steps = self.x86_steps(Action::StoreFence, Applies::NonTemporalStore);
                return Some(self.broken(
                    &at,
                    Action::StoreFence,
                    steps,
                    version,
                    true,
                    false,
                    None,
                ));
            }
            if in_view {
                return None;
            }
            let own = version.cpu == p;
            if machine.own(p, version, delta) {
                // It excludes what is older, too.
                return None;
            }
            let knows = own || !self.fetches.predicted || machine.knows(p, version);
            if !knows && at.live && x86_live(machine.amd, version) {
                continue;
            }
            let (needed, firm) = self.sync_needed(&at, version.stamp, moment);
            if !needed {
                continue;
            }
            let applies = if own { Applies::SameCpu } else { Applies::Always };
            let first = if knows { Action::ContextSync } else { Action::Publish };
            let steps = self.x86_steps(first, applies);
            let row = steps.iter().find(|(r, _)| r.action == first);
            let sure = firm && !seen && row.is_some_and(|(r, _)| r.rule.is_firm());
            let saved = self.fetches.last_sync.get(p).copied().filter(|_| seen);
            return Some(self.broken(&at, first, steps, version, sure, !knows, saved));
        }
        None
    }

    /// The arrows on x86, the one named missing, those before it done.
    fn x86_steps(&self, first: Action, applies: Applies) -> Vec<(&'static FetchRow, StepState)> {
        let features = self.header.features;
        let mut rows = sync::chain(self.arch(), features);
        if first == Action::StoreFence {
            let fences = sync::closers(self.arch(), features, first);
            rows.splice(0..0, fences.filter(|r| r.applies == applies).take(1));
        }
        let state = |row: &FetchRow| match row.action.cmp(&first) {
            std::cmp::Ordering::Less if applies == Applies::SameCpu => StepState::NotNeeded,
            std::cmp::Ordering::Less => StepState::Done,
            std::cmp::Ordering::Equal => StepState::Missing,
            std::cmp::Ordering::Greater => StepState::Unknown,
        };
        rows.into_iter().map(|row| (row, state(row))).collect()
    }

    /// Whether the reading asks for context synchronisation, if the chain before it was complete at
    /// event `done_at` and the CPU's last one was at `moment`; and whether that is firm.
    fn sync_needed(&self, at: &Place<'_>, done_at: u64, moment: u64) -> (bool, bool) {
        let fresh = self.fetches.looks.executed(at.p, at.stored, moment, done_at);
        let exec_since = self.tables.lookup(at.space, at.virt).map_or(0, |(_, m)| m.exec_since);
        let mapped = fresh
            || exec_since < done_at
            || self.fetches.executable_until(at.space, at.virt) > moment;
        let needed = match self.options.reading {
            Reading::Strict => true,
            Reading::Mapped => mapped,
            Reading::Fresh => fresh,
        };
        (needed, fresh || self.arch() != Arch::X86_64)
    }

    #[allow(clippy::too_many_arguments)] // what a broken chain is made of
    fn broken(
        &self,
        at: &Place<'_>,
        first: Action,
        steps: Vec<(&'static FetchRow, StepState)>,
        version: &Rc<Version>,
        sure: bool,
        race: bool,
        saved: Option<(Mark, Option<SyncCause>)>,
    ) -> Broken {
        let rule = match first {
            Action::Publish => RuleId::MissingPublicationOrder,
            Action::ContextSync => RuleId::MissingContextSync,
            _ => RuleId::MissingIcacheMaintenance,
        };
        let low =
            at.history.number_at(at.low).min(at.history.number_at(version.stamp.saturating_sub(1)));
        let high = at.history.newest_number();
        let version = Rc::clone(version);
        let completed = None;
        Broken { rule, first, steps, version, low, high, sure, race, saved, completed }
    }
}

/// Whether a store on x86 may be met by a CPU that runs the code: one byte (what kernels do with
/// INT3), on AMD anything inside an aligned quadword.
fn x86_live(amd: bool, version: &Version) -> bool {
    let Some(unit) = version.unit else { return false };
    unit.len == 1 || amd && unit.phys / 8 == (unit.phys + u64::from(unit.len) - 1) / 8
}
