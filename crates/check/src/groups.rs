//! Entries that translate together (arm64's contiguous bit): whether those of a group agree.
//!
//! A CPU may hold a group as one translation that it made of any of its entries (Arm ARM D8.7.1
//! RCBXXM), and has what any of them says where they do not agree (D8.7.1.1 RNGLXZ, RJQQTC). A
//! bit, frame or memory type of its own is wrong at once. Rights of its own are what each change of
//! a group, entry by entry, comes by; then it is the first invalidation of an address of the group
//! that finds them so (or the end of the stream), because what it drops may come back from an entry
//! that still says the old. The same with an entry that is not valid: no misprogramming by itself
//! (IPGVGZ), but nothing keeps a CPU from holding the group whole.
//!
//! What entries with the bit said for the rest of a group that does not agree is an old answer
//! there when they change. Not modelled: rules do not look at what they say for it until then; the
//! group is reported instead.

use std::collections::{BTreeMap, BTreeSet};

use textbed_arch::paging::group_shift;
use textbed_arch::sync::translation::{Change, wants_break};
use textbed_arch::{Perm, SpaceId};
use textbed_event::LeafChange;

use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::rules::{RuleId, breaks};
use crate::span::Span;
use crate::tables::{Mapping, UNKNOWN_PHYS};

/// Groups kept at once; past it no further one waits.
const MAX_OPEN: usize = 4096;

/// What entries of a group have of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Differs {
    Bit,
    Frame,
    Type,
    Rights,
    Validity,
}

/// A group whose entries do not agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disagreement {
    pub(crate) group: Span,
    /// `log2` of a leaf's size.
    pub(crate) shift: u8,
    pub(crate) differs: Differs,
    /// One with the contiguous bit.
    pub(crate) joined: Mapping,
    /// The one that differs from it, and where it is.
    pub(crate) at: u64,
    pub(crate) other: Option<Mapping>,
}

/// Groups that are watched.
#[derive(Default, Debug)]
pub(crate) struct Groups {
    /// A leaf had the bit.
    any: bool,
    /// Groups whose entries differ in what may yet be made good, by space and first address: the
    /// leaves' size, and the last change.
    open: BTreeMap<(SpaceId, u64), (u8, Mark)>,
    /// Those that were reported.
    told: BTreeSet<(SpaceId, u64)>,
}

impl Live {
    /// Leaves have changed, in `tables` too: do those that translate with them agree?
    pub(crate) fn groups_changed(
        &mut self,
        now: Now<'_>,
        (space, span): (SpaceId, Span),
        change: LeafChange,
        mark: &Mark,
    ) {
        self.groups.any |= change.attributes.contiguous;
        let checkable = self.checkable(RuleId::BreakBeforeMake) && now.knows_phys();
        if !self.groups.any || !checkable {
            return;
        }
        let mut sizes = vec![change.shift, change.old_shift];
        sizes.dedup();
        for shift in sizes {
            // What lies between the two is whole and of one kind.
            let mut ends = vec![self.group_at(span.first, shift), self.group_at(span.last, shift)];
            ends.dedup();
            for group in ends.into_iter().flatten() {
                self.group_changed(space, group, shift, mark);
            }
        }
    }

    /// The addresses that leaves of `1 << shift` bytes around one may translate together.
    fn group_at(&self, at: u64, shift: u8) -> Option<Span> {
        let group = group_shift(self.arch(), self.header.page_shift.into(), shift.into())?;
        Some(Span { first: at, last: at }.rounded(1 << group))
    }

    fn group_changed(&mut self, space: SpaceId, group: Span, shift: u8, mark: &Mark) {
        let key = (space, group.first);
        let Some(found) = self.disagreement(space, group, shift) else {
            self.groups.open.remove(&key);
            return;
        };
        match found.differs {
            Differs::Bit | Differs::Frame | Differs::Type => {
                self.groups.open.remove(&key);
                self.tell_group(space, &found, mark);
            }
            Differs::Rights | Differs::Validity if self.groups.open.len() < MAX_OPEN => {
                self.groups.open.insert(key, (shift, *mark));
            }
            _ => {}
        }
    }

    /// In what the entries of a group do not agree, if one of them has the contiguous bit.
    fn disagreement(&self, space: SpaceId, group: Span, shift: u8) -> Option<Disagreement> {
        let members: Vec<(Span, Mapping)> = self.tables.within(space, group).collect();
        let joins = |m: &Mapping| m.attributes.contiguous && m.shift == shift;
        let eldest = members.iter().filter(|(_, m)| joins(m)).min_by_key(|(_, m)| m.since.seq);
        let (at, joined) = *eldest?;
        let to = |(at, m): &(Span, Mapping)| m.phys.wrapping_sub(at.first);
        let found =
            |differs, at: u64, other| Disagreement { group, shift, differs, joined, at, other };
        let known = |m: &Mapping| m.phys < UNKNOWN_PHYS;
        if known(&joined) && to(&(at, joined)) & (group.len() - 1) != 0 {
            return Some(found(Differs::Frame, at.first, Some(joined)));
        }
        let tolerant = wants_break(self.arch(), self.header.features, Change::Contiguous).is_none();
        let mut lesser = None;
        for member in &members {
            let (part, m) = *member;
            let rights = (m.perm ^ joined.perm) - Perm::BOLTED;
            let differs = if !joins(&m) && !tolerant {
                Differs::Bit
            } else if known(&m) && known(&joined) && to(member) != to(&(at, joined)) {
                Differs::Frame
            } else if m.attributes.memory != joined.attributes.memory {
                Differs::Type
            } else if !rights.is_empty() {
                lesser.get_or_insert(found(Differs::Rights, part.first, Some(m)));
                continue;
            } else {
                continue;
            };
            return Some(found(differs, part.first, Some(m)));
        }
        let mut next = group.first;
        for (part, _) in &members {
            if part.first != next {
                break;
            }
            next = part.last.wrapping_add(1);
        }
        let hole = (next.wrapping_sub(1) != group.last && next <= group.last)
            .then(|| found(Differs::Validity, next, None));
        lesser.or(hole)
    }

    /// Leaves are about to change: what of them a CPU may hold for the rest of a group that does
    /// not agree is an old answer there.
    pub(crate) fn groups_change(
        &mut self,
        (space, span): (SpaceId, Span),
        base: u64,
        before: &[(Span, Mapping)],
        change: LeafChange,
        mark: &Mark,
    ) {
        if !self.groups.any {
            return;
        }
        let rights = Perm::READ | Perm::WRITE | Perm::EXEC;
        for (part, old) in before.iter().filter(|(_, old)| old.attributes.contiguous) {
            let moved = old.phys != base.wrapping_add(part.first - span.first);
            let kept = change.attributes.contiguous && !moved;
            if kept && change.new.contains(old.perm & rights) {
                continue;
            }
            for at in [part.first, part.last] {
                let Some(group) = self.group_at(at, old.shift) else { continue };
                if self.disagreement(space, group, old.shift).is_none() {
                    continue;
                }
                for (rest, carried) in self.carried(space, group, (*part, old)) {
                    let size = (old.shift, None);
                    self.answer_is_old(space, rest, &carried, size, mark);
                }
            }
        }
    }

    /// What a leaf says for those parts of its group that are something else.
    fn carried(
        &self,
        space: SpaceId,
        group: Span,
        (part, leaf): (Span, &Mapping),
    ) -> Vec<(Span, Mapping)> {
        let size = 1u64 << leaf.shift.min(63);
        let starts = (0..group.len() / size).map(|n| group.first + n * size);
        let said = |at: u64| Mapping {
            phys: leaf.phys.wrapping_add(at.wrapping_sub(part.first)),
            ..*leaf
        };
        let others = starts.filter(|at| *at < part.first || *at > part.last);
        let differs = others.filter(|at| {
            let own = self.tables.lookup(space, *at).map(|(_, m)| (m.phys, m.perm));
            own != Some((said(*at).phys, leaf.perm))
        });
        differs.filter_map(|at| Some((Span::of(at, size)?, said(at)))).collect()
    }

    /// What other leaves of its group, which have the contiguous bit, say of an address now.
    #[cfg(test)]
    pub(crate) fn group_answers(&self, space: SpaceId, virt: u64) -> Vec<(u64, Perm)> {
        let Some(group) = self.group_at(virt, self.header.page_shift) else { return Vec::new() };
        let joined = self.tables.within(space, group).filter(|(_, m)| m.attributes.contiguous);
        joined.map(|(at, m)| (m.phys.wrapping_add(virt.wrapping_sub(at.first)), m.perm)).collect()
    }

    /// An invalidation of addresses is complete: groups that it is about agree by now.
    pub(crate) fn groups_flushed(&mut self, space: SpaceId, span: Span) {
        if self.groups.open.is_empty() {
            return;
        }
        let open = self.groups.open.iter();
        let about = open.filter(|((of, first), (shift, _))| {
            let group = self.group_at(*first, *shift);
            (*of == space || *of == SpaceId::KERNEL)
                && group.is_some_and(|g| g.meet(span).is_some())
        });
        let about: Vec<(SpaceId, u64)> = about.map(|(key, _)| *key).collect();
        about.into_iter().for_each(|key| self.judge_group(key));
    }

    /// The end of the stream: what did not come to agree.
    pub(crate) fn finish_groups(&mut self) {
        let open: Vec<(SpaceId, u64)> = self.groups.open.keys().copied().collect();
        open.into_iter().for_each(|key| self.judge_group(key));
    }

    fn judge_group(&mut self, key: (SpaceId, u64)) {
        let Some((shift, mark)) = self.groups.open.remove(&key) else { return };
        let Some(group) = self.group_at(key.1, shift) else { return };
        if let Some(found) = self.disagreement(key.0, group, shift) {
            self.tell_group(key.0, &found, &mark);
        }
    }

    fn tell_group(&mut self, space: SpaceId, found: &Disagreement, mark: &Mark) {
        self.occasions.looked(RuleId::BreakBeforeMake);
        let first = self.groups.told.len() < MAX_OPEN
            && self.groups.told.insert((space, found.group.first));
        if first && self.cpus.holding(space) != 0 {
            breaks::group_disagrees(self, found, mark);
        }
    }
}
