//! How far the invalidation of an old answer came: what a finding says of it, step by step, and of
//! the invalidation that came nearest why it was not enough.
//!
//! Nothing is judged here ([`super::complete`] does). Kept: the last invalidations as they were
//! issued, [`KEPT`] of them, ranges as one where they follow each other.

use std::collections::VecDeque;

use textbed_arch::effect::Reach;
use textbed_arch::sync::translation::TlbieStage;
use textbed_arch::{CpuId, Perm, SpaceId};
use textbed_event::{CallRef, Facts, View};

use super::complete::Leaves;
use super::{Old, Target};
use crate::book::Draft;
use crate::finding::{ChainStep, StepState};
use crate::live::Live;
use crate::mark::Mark;
use crate::span::Span;
use crate::words::{self, TlbFlush};

/// Invalidations kept.
const KEPT: usize = 128;
/// How many bytes beside an address an invalidation is taken to be meant for it.
const BESIDE: u64 = 1 << 16;

/// An invalidation as it was issued.
#[derive(Clone, Copy, Debug)]
struct Tried {
    target: Target,
    reach: Reach,
    mark: Mark,
    /// The outermost call around it.
    outer: CallRef,
}

/// The last ones.
#[derive(Default, Debug)]
pub(crate) struct Attempts(VecDeque<Tried>);

impl Attempts {
    /// An invalidation was issued.
    pub(crate) fn issued(&mut self, target: Target, reach: Reach, mark: Mark, outer: CallRef) {
        if let Some(last) = self.0.back_mut()
            && last.mark.same_call(&mark)
            && last.reach == reach
            && let (Some(before), Some(span)) = (last.target.span, target.span)
            && before.last.checked_add(1) == Some(span.first)
            && last.target == (Target { span: Some(before), ..target })
        {
            last.target.span = Some(Span { first: before.first, last: span.last });
            return;
        }
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Tried { target, reach, mark, outer });
    }
}

/// Why an invalidation does not take an answer from those who hold it, the nearest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Miss {
    /// It reaches its own CPU alone.
    Local,
    /// It names leaves of another size, of so many address bits.
    Size(u8),
    /// It leaves global entries.
    Global,
    /// It is about another address space.
    Space,
    /// It is about other addresses.
    Address(u64),
    /// It was issued when walks could still find the answer.
    Before,
}

impl Miss {
    /// As it goes on behind "event 7 of cpu 1".
    fn text(self, live: &Live, old: &Old) -> String {
        match self {
            Miss::Before => {
                "invalidated it before the change, when walks still led to the old entry".to_owned()
            }
            Miss::Local => "invalidated it on that CPU alone".to_owned(),
            Miss::Size(bits) => format!(
                "named leaves of {}, and this one is of {}: it may stay",
                words::size(1 << bits.min(63)),
                words::size(1 << old.shift.min(63))
            ),
            Miss::Global => "leaves global translations, and this is one".to_owned(),
            Miss::Space => "was about another address space".to_owned(),
            Miss::Address(at) => {
                format!("invalidated another address, {}", live.address(at))
            }
        }
    }
}

/// Why an invalidation of a CPU, issued by an event, is none for `old`, which translates `at` of a
/// space; `None` if it is one.
fn missed(
    (target, reach): (&Target, Reach),
    (cpu, seq): (CpuId, u64),
    (space, at): (SpaceId, u64),
    old: &Old,
) -> Option<Miss> {
    let leaf = Span { first: at, last: at }.rounded(1 << old.shift.min(48));
    let Target { span, leaf: size, space: of, .. } = *target;
    if let Some(span) = span.filter(|span| span.meet(leaf).is_none()) {
        return Some(Miss::Address(span.first));
    }
    if !target.hits(space, old.perm, old.shift) {
        return Some(match size.filter(|size| *size != old.shift) {
            Some(size) => Miss::Size(size),
            None if of != space && space != SpaceId::KERNEL => Miss::Space,
            None if old.perm.contains(Perm::GLOBAL) => Miss::Global,
            None => Miss::Space,
        });
    }
    if seq < old.since.seq {
        return Some(Miss::Before);
    }
    let own = View::cpu_bit(cpu);
    (reach == Reach::Local && old.cpus & !own != 0).then_some(Miss::Local)
}

/// How many of what completes powerpc's invalidation came already.
fn came(stage: TlbieStage) -> usize {
    match stage {
        TlbieStage::Issued => 0,
        TlbieStage::Ordered => 1,
        TlbieStage::Announced => 2,
    }
}

impl Live {
    /// Says in a draft what of the invalidation of `old` (at `at`) is there, and what is missing.
    pub(crate) fn say_what_closes(&self, draft: &mut Draft, space: SpaceId, at: u64, old: &Old) {
        let who = self.cpus_text(old.cpus);
        if old.left.is_some_and(|(_, leaves)| leaves != Leaves::Nothing) {
            draft.missing.push(format!("{} for {who}", words::tlb_flush(self.arch())));
            return;
        }
        let TlbFlush { orders, drops, completes } = TlbFlush::of(self.arch());
        let ordered = orders.is_empty() || old.unwalkable_at != u64::MAX;
        let pending = self.issued.iter().filter_map(|(cpu, issued)| {
            let is = |target: &Target, reach, seq| {
                missed((target, reach), (*cpu, seq), (space, at), old).is_none()
            };
            issued.waits(is).map(|p| (*cpu, p))
        });
        let pending = pending.min_by_key(|(_, (seq, _))| *seq);
        let stage = pending.map(|(_, (_, stage))| stage).filter(|_| self.arch().is_powerpc());
        let mut missing: Vec<&str> = Vec::new();
        missing.extend(orders.iter().filter(|_| !ordered));
        missing.extend(pending.is_none().then_some(drops));
        missing.extend(completes.iter().skip(stage.map_or(0, came)));
        draft.missing.push(format!("{} for {who}", words::sequence(missing)));
        if self.header.facts.contains(Facts::MAINTENANCE) && !orders.is_empty() {
            let cite = draft.rule.row().cites.iter().find(|c| c.concerns(self.arch())).copied();
            let Some(cite) = cite else { return };
            let step = |what, operations: &[&'static str], done| ChainStep {
                what,
                operation: words::sequence(operations.iter().copied()),
                state: if done { StepState::Done } else { StepState::Missing },
                site: None,
                cite,
            };
            draft.chain.push(step("walks no longer find the old entry", orders, ordered));
            let mut dropped = step("CPUs drop what they hold of it", &[drops], pending.is_some());
            if let Some((cpu, (seq, _))) = pending {
                let issued = Mark::by_hand(seq, cpu);
                dropped.site = Some(self.site(&issued, "issued here"));
            }
            draft.chain.push(dropped);
            draft.chain.push(step("the invalidation is complete", completes, false));
        }
        if pending.is_none()
            && let Some((tried, miss)) = self.nearest(space, at, old)
        {
            let (seq, cpu) = (tried.mark.seq, tried.mark.cpu);
            draft.notes.push(format!("event {seq} of {cpu} {}", miss.text(self, old)));
        }
    }

    /// The invalidation that came nearest to one for `old`.
    fn nearest(&self, space: SpaceId, at: u64, old: &Old) -> Option<(Tried, Miss)> {
        // Of a call that is over its own name is left.
        let change = [old.since.cause, self.calls.outermost(old.since.cause)];
        let meant = |tried: &Tried, miss: Miss| {
            let same = tried.outer != CallRef::NONE && change.contains(&tried.outer);
            let later = tried.mark.seq > old.since.seq;
            match miss {
                Miss::Before => tried.mark.seq > old.made_at && same,
                Miss::Address(first) => later && (same || first.abs_diff(at) < BESIDE),
                _ => later,
            }
        };
        let mut near: Option<(Tried, Miss)> = None;
        for tried in self.attempts.0.iter().rev() {
            let Tried { target, reach, mark, .. } = tried;
            let miss = missed((target, *reach), (mark.cpu, mark.seq), (space, at), old);
            let miss = miss.filter(|miss| meant(tried, *miss));
            if let Some(miss) = miss
                && near.as_ref().is_none_or(|(_, before)| miss < *before)
            {
                near = Some((*tried, miss));
            }
        }
        near
    }
}

#[cfg(test)]
mod tests {
    use textbed_arch::Arch;

    use super::*;

    #[test]
    fn of_a_completion_the_rest_is_named() {
        let rest = |stage| &TlbFlush::of(Arch::Ppc64le).completes[came(stage)..];
        assert_eq!(rest(TlbieStage::Issued), ["eieio", "tlbsync", "ptesync"]);
        assert_eq!(rest(TlbieStage::Ordered), ["tlbsync", "ptesync"]);
        assert_eq!(rest(TlbieStage::Announced), ["ptesync"]);
    }
}
