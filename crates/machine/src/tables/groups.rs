//! Leaves that translate together by arm64's contiguous bit.
//!
//! A CPU may hold a group as one translation, made of any of its leaves (Arm ARM D8.7.1 RCBXXM).
//! As long as they agree nothing shows of that: an invalidation need not take more than the leaf
//! that it names (D8.17.6 RLQLSD, IJQPNP), as if each were held by itself. Where they do not agree
//! an access has what any leaf with the bit says of its own part, carried on (D8.7.1.1 RNGLXZ,
//! RJQQTC), one that is not valid too; where bits differ, it may end in a conflict abort unless the
//! CPU has FEAT_BBML2 without. Such groups are listed when they come to be. What a leaf of one said
//! may be held for all of it when that leaf changes, a [`Choice`]. Not modelled: values that nobody
//! programmed, and groups below an upper entry that a CPU holds with more rights.
//!
//! [`Choice`]: crate::choice::Choice

use textbed_arch::paging::{Attributes, Entry};
use textbed_arch::{CpuId, Perm, SpaceId, VirtAddr};
use textbed_event::{Access, FaultReason};

use super::edit::Runs;
use super::{Found, Run};
use crate::tlb::{Replaced, TlbEntry};
use crate::translate::{Way, grants};
use crate::upper::join;
use crate::{Machine, MapError};

/// A group of leaves that do not agree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Group {
    space: SpaceId,
    /// First address, and `log2` of the bytes of the group and of a leaf.
    virt: u64,
    shift: u32,
    leaf_shift: u32,
    /// One of them has the bit and another one has not.
    bits_differ: bool,
}

impl Group {
    fn covers(&self, space: SpaceId, virt: u64) -> bool {
        self.space == space && self.virt == virt & !((1 << self.shift) - 1)
    }
}

/// What is known of groups.
#[derive(Clone, Default, Debug)]
pub(crate) struct Groups {
    /// A leaf had the bit.
    any: bool,
    /// Those that do not agree.
    apart: Vec<Group>,
}

impl Machine {
    /// Gives every valid leaf of a range the contiguous bit, or takes it away, each in one store.
    /// Gaps are skipped. Returns how many changed.
    ///
    /// # Errors
    /// A leaf that has no such bit, or that the range covers in part, or a bad range; nothing was
    /// changed.
    pub fn set_contiguous(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        len: u64,
        contiguous: bool,
    ) -> Result<u64, MapError> {
        let (owner, found) = self.whole_leaves(cpu, space, virt, len)?;
        let mut edits = Vec::new();
        for f in &found {
            let m = self.mapping(f);
            if m.perm.is_empty() || m.attributes.contiguous == contiguous {
                continue;
            }
            let attributes = Attributes { contiguous, ..m.attributes };
            let raw = self.format.with_attributes(f.level, f.raw, attributes);
            edits.push((m, Found { raw: raw.ok_or(MapError::Attributes { attributes })?, ..*f }));
        }
        self.fill_by_groups(cpu, owner, &found);
        let mut runs = Runs::default();
        for (before, f) in &edits {
            self.set_entry(f.entry, f.raw)?;
            self.note(&mut runs, before, &self.mapping(f));
        }
        self.tree_changed(cpu, owner, runs);
        Ok(edits.len() as u64)
    }

    /// Leaves have changed: which of the groups that they are in agree?
    pub(crate) fn groups_changed(&mut self, space: SpaceId, run: &Run, now: Replaced) {
        self.groups.any |= run.change.attributes.contiguous;
        let last = run.virt.wrapping_add(run.change.len().wrapping_sub(1));
        if !self.groups.any || run.change.is_empty() {
            return;
        }
        let mut sizes = vec![run.change.shift, run.change.old_shift];
        sizes.dedup();
        for leaf_shift in sizes.into_iter().map(u32::from) {
            let Some(shift) = self.format.group_shift_of(leaf_shift) else { continue };
            let start = |at: u64| at & !((1 << shift) - 1);
            // What lies between the two is whole and of one kind.
            let mut ends = vec![start(run.virt), start(last)];
            ends.dedup();
            for virt in ends {
                let known = self.groups.apart.len();
                self.groups
                    .apart
                    .retain(|g| (g.space, g.virt, g.leaf_shift) != (space, virt, leaf_shift));
                let group = Group { space, virt, shift, leaf_shift, bits_differ: false };
                let Some(group) = self.apart(group) else { continue };
                self.groups.apart.push(group);
                if self.groups.apart.len() > known {
                    // What CPUs hold of it is not all that they may use.
                    for c in &mut self.cpus {
                        c.tlb.mark_replaced(space, virt, 1 << shift, now);
                    }
                }
            }
        }
    }

    /// The group, if its leaves do not agree.
    fn apart(&self, group: Group) -> Option<Group> {
        let Group { space, virt, shift, leaf_shift, .. } = group;
        let found = self.collect(space, virt, virt | ((1 << shift) - 1)).ok()?;
        let level = self.format.level_for_shift(leaf_shift)?;
        let joins = |f: &Found| {
            f.level == level
                && matches!(self.format.decode(f.level, f.raw), Entry::Leaf { .. })
                && self.format.attributes(f.level, f.raw).contiguous
        };
        let first = self.mapping(found.iter().find(|f| joins(f))?);
        let valid = found.iter().filter(|f| self.mapping(f).perm.contains(Perm::PRESENT));
        let bits_differ = valid.clone().any(|f| !joins(f));
        let to = |m: &super::Mapping| m.phys.0.wrapping_sub(m.virt.0);
        let alike = |f: &Found| {
            let m = self.mapping(f);
            joins(f) && (to(&m), m.perm, m.attributes) == (to(&first), first.perm, first.attributes)
        };
        let whole = valid.clone().count() as u64 == 1 << (shift - leaf_shift);
        let aligned = to(&first) & ((1 << shift) - 1) == 0;
        let agrees = whole && aligned && valid.clone().all(alike);
        (!agrees).then_some(Group { bits_differ, ..group })
    }

    /// What a CPU makes of an address by the leaves of its group: adds to the ways that there are.
    /// Whether it is in a group that does not agree.
    pub(crate) fn group_ways(
        &self,
        cpu: CpuId,
        virt: VirtAddr,
        access: Access,
        ways: &mut Vec<Way>,
    ) -> bool {
        if self.groups.apart.is_empty() {
            return false;
        }
        let Some(c) = self.cpus.get(cpu.index()) else { return false };
        let Some(space) = self.owner(c.space, virt) else { return false };
        let (wp, mut found) = (c.controls.x86_wp, false);
        for group in self.groups.apart.iter().filter(|g| g.covers(space, virt.0)) {
            found = true;
            for e in self.by_group(cpu, group, virt, |_| true) {
                let seen = ways.iter().flatten().any(|w| {
                    w.phys_of(virt.0) == e.phys_of(virt.0)
                        && grants(w.perm, access, wp) == grants(e.perm, access, wp)
                });
                if !seen {
                    ways.push(Ok(e));
                }
            }
            if group.bits_differ && self.bits_conflict() && !ways.contains(&CONFLICT) {
                ways.push(CONFLICT);
            }
        }
        found
    }

    /// What the leaves of a group that have the bit, and are wanted, make of an address.
    fn by_group(
        &self,
        cpu: CpuId,
        group: &Group,
        virt: VirtAddr,
        wanted: impl Fn(u64) -> bool,
    ) -> Vec<TlbEntry> {
        let size = 1u64 << group.leaf_shift;
        let own = virt.align_down(group.leaf_shift);
        let leaves = (0..1u64 << (group.shift - group.leaf_shift)).map(|n| group.virt + n * size);
        let carried = |at: u64| {
            let e = self.walk(cpu, VirtAddr(at)).ok()?;
            let fits = e.attributes.contiguous && u32::from(e.shift) == group.leaf_shift;
            let phys = e.phys.wrapping_add(own.0.wrapping_sub(e.virt));
            let there = self.memory.check(textbed_arch::PhysAddr(phys), size).is_ok();
            (fits && there).then_some(TlbEntry { virt: own.0, len: size, phys, ..e })
        };
        leaves.filter(|at| *at != own.0 && wanted(*at)).filter_map(carried).collect()
    }

    /// Leaves are about to change: a CPU may hold what they say for the rest of a group that does
    /// not agree.
    pub(super) fn fill_by_groups(&mut self, by: CpuId, space: SpaceId, leaves: &[Found]) {
        let about = |g: &Group| leaves.iter().any(|f| g.covers(space, f.virt));
        let apart: Vec<Group> = self.groups.apart.iter().copied().filter(about).collect();
        if apart.is_empty() {
            return;
        }
        let replaced = Some(Replaced { at: self.advance(), by });
        let uses = |p: &CpuId| {
            space == SpaceId::KERNEL || self.cpus.get(p.index()).is_some_and(|c| c.space == space)
        };
        let cpus: Vec<CpuId> = self.all_cpus().filter(uses).collect();
        for cpu in cpus {
            let mut filled = Vec::new();
            for group in &apart {
                for n in 0..1u64 << (group.shift - group.leaf_shift) {
                    let virt = VirtAddr(group.virt + (n << group.leaf_shift));
                    let changes = |at: u64| leaves.iter().any(|f| f.virt == at);
                    let now = self.walk(cpu, virt).map(|e| (e.phys, e.perm));
                    for e in self.by_group(cpu, group, virt, changes) {
                        if now != Ok((e.phys, e.perm)) {
                            join(&mut filled, TlbEntry { replaced, ..e });
                        }
                    }
                }
            }
            self.may_hold(cpu, filled);
        }
    }
}

/// Neither what one leaf says nor what another one does.
const CONFLICT: Way = Err(FaultReason::Conflict);
