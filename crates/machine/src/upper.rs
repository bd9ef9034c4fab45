//! Caches of upper table levels: a walk that starts from an entry that the tables no longer have.
//!
//! When an entry that pointed to a table is replaced (a collapse, a leaf made where a table was),
//! or takes more away from what is below than it did, a CPU that uses these tables may still hold
//! it, as a [`Choice`]. A walk through it reads what the table's memory holds now, whoever owns
//! that by then, under the rights that the held entry leaves. It goes with an invalidation that
//! covers the address at every level: on x86-64 any INVLPG of the identifier (SDM 3A 4.10.4.1; AMD
//! without EFER.TCE likewise), elsewhere one that covers the address; operations on the last level
//! alone leave it (Arm ARM DDI 0487 D8.17.5.4). Entries of lower levels are cached with the rights
//! that those above leave (SDM 3A 4.10.3.1), by their own addresses: an invalidation of one address
//! leaves what serves the other last-level tables.
//!
//! What a walk by such an entry finds can be in the TLB from the moment at which it can be found:
//! it comes back behind an invalidation that left the entry, and is there when the leaf goes. Not
//! modelled: entries that left less possible than they do now (they would be spurious faults),
//! walks that find nothing (likewise), capacity.

use textbed_arch::effect::TlbScope;
use textbed_arch::{Arch, CpuId, PhysAddr, SpaceId, VirtAddr};

use crate::Machine;
use crate::choice::Choice;
use crate::exec_map::overlap;
use crate::machine::PerCpu;
use crate::tlb::{Replaced, TlbEntry, TlbTarget};

/// Upper entries kept for one CPU; the oldest goes first.
const MOST: usize = 64;

/// An entry that pointed to a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Upper {
    /// Where it stood, and what it was.
    pub(crate) entry: PhysAddr,
    pub(crate) raw: u64,
    /// What it covers.
    pub(crate) virt: u64,
    pub(crate) len: u64,
    /// Identifier; `None` = every one.
    pub(crate) tag: Option<u16>,
    pub(crate) space: SpaceId,
    /// When the tables ceased to have it.
    pub(crate) replaced: Replaced,
    /// It points to where the tables' does, with more rights.
    pub(crate) limited: bool,
}

impl Upper {
    /// Whether a walk for an address may use it.
    pub(crate) fn serves(&self, virt: u64, asid: u16) -> bool {
        virt.wrapping_sub(self.virt) < self.len && self.tag.is_none_or(|tag| tag == asid)
    }

    /// Whether an invalidation takes it away.
    pub(crate) fn goes(&self, target: &TlbTarget, x86: bool) -> bool {
        let same = target.any || self.tag.is_none_or(|tag| tag == target.asid);
        match target.scope {
            TlbScope::All => true,
            TlbScope::AllButGlobal => x86 || self.tag.is_some(),
            TlbScope::Space => same && (x86 || self.tag.is_some()),
            TlbScope::AddressLastLevel => false,
            TlbScope::Address => {
                same && (x86 || overlap(self.virt, self.len, target.virt, target.len).is_some())
            }
        }
    }

    /// What of it serves addresses outside of a range, in steps of `1 << shift` bytes: lower
    /// entries are cached with its rights.
    fn outside(&self, (virt, len): (u64, u64), shift: u32) -> Vec<Upper> {
        if !self.limited {
            return Vec::new();
        }
        let mask = (1u64 << shift) - 1;
        let (first, last) = (virt & !mask, virt.saturating_add(len.saturating_sub(1)) | mask);
        let end = self.virt + (self.len - 1);
        let before = (self.virt < first).then(|| Upper { len: first - self.virt, ..*self });
        let behind = (last < end).then(|| Upper { virt: last + 1, len: end - last, ..*self });
        before.into_iter().chain(behind).collect()
    }
}

/// Adds an entry to runs, unless it is there.
pub(crate) fn join(runs: &mut Vec<TlbEntry>, e: TlbEntry) {
    let like =
        |r: &TlbEntry| (r.perm, r.shift, r.tag, r.replaced) == (e.perm, e.shift, e.tag, e.replaced);
    if runs.iter().any(|r| like(r) && r.covers(e.virt) && r.phys_of(e.virt) == e.phys) {
        return;
    }
    let before = |r: &&mut TlbEntry| {
        like(r) && r.virt.wrapping_add(r.len) == e.virt && r.phys.wrapping_add(r.len) == e.phys
    };
    match runs.iter_mut().rev().find(before) {
        Some(run) => run.len += e.len,
        None => runs.push(e),
    }
}

impl Machine {
    /// An entry that pointed to a table is about to be replaced: who may still hold it?
    pub(crate) fn uppers_notice(
        &mut self,
        by: CpuId,
        space: SpaceId,
        entry: PhysAddr,
        raw: u64,
        (virt, len): (VirtAddr, u64),
        limited: bool,
    ) {
        let replaced = Replaced { at: self.advance(), by };
        let x86 = self.arch() == Arch::X86_64;
        for cpu in self.all_cpus() {
            let Some(c) = self.cpus.get(cpu.index()) else { continue };
            if space != SpaceId::KERNEL && c.space != space {
                continue;
            }
            let tag = (x86 || space != SpaceId::KERNEL).then_some(c.asid);
            if !self.choices.yes(Choice::UpperFill { cpu, virt, len }) {
                continue;
            }
            let virt = virt.0;
            let upper = Upper { entry, raw, virt, len, tag, space, replaced, limited };
            if let Some(c) = self.cpus.get_mut(cpu.index()) {
                if c.uppers.len() >= MOST {
                    c.uppers.remove(0);
                }
                c.uppers.push(upper);
            }
        }
    }

    /// Leaves are about to go: what a CPU finds of them by entries that it holds with more rights
    /// its TLB may have, up to now.
    pub(crate) fn fill_by_uppers(
        &mut self,
        by: CpuId,
        space: SpaceId,
        leaves: impl Iterator<Item = u64>,
    ) {
        let replaced = Some(Replaced { at: self.advance(), by });
        self.fill_found(space, leaves, replaced);
    }

    /// Leaves are there, or grant what they did not: what a CPU finds of them by entries that it
    /// holds with more rights its TLB may have, as long as nothing tells it that these went
    /// (`replaced`, or the first change that made one of them old).
    pub(crate) fn fill_found(
        &mut self,
        space: SpaceId,
        leaves: impl Iterator<Item = u64>,
        replaced: Option<Replaced>,
    ) {
        let reaches = |c: &PerCpu| {
            let here = space == SpaceId::KERNEL || c.space == space;
            here && c.uppers.iter().any(|u| u.limited)
        };
        let cpus: Vec<CpuId> =
            self.all_cpus().filter(|p| self.cpus.get(p.index()).is_some_and(reaches)).collect();
        if cpus.is_empty() {
            return;
        }
        let leaves: Vec<VirtAddr> = leaves.map(VirtAddr).collect();
        for cpu in cpus {
            let mut filled = Vec::new();
            for virt in &leaves {
                let now = self.walk(cpu, *virt).map(|e| (e.phys, e.perm));
                for (e, first) in self.held_walks(cpu, *virt) {
                    if now != Ok((e.phys, e.perm)) {
                        join(&mut filled, TlbEntry { replaced: replaced.or(Some(first)), ..e });
                    }
                }
            }
            self.may_hold(cpu, filled);
        }
    }

    /// What an invalidation dropped from a CPU's TLB comes back by upper entries that it left
    /// there.
    pub(crate) fn fill_again(&mut self, cpu: CpuId, dropped: &[TlbEntry]) {
        let mut filled = Vec::new();
        for e in dropped.iter().filter(|e| e.replaced.is_some()) {
            let Some(c) = self.cpus.get(cpu.index()) else { return };
            if !c.uppers.iter().any(|u| overlap(u.virt, u.len, e.virt, e.len).is_some()) {
                continue;
            }
            let size = 1u64 << e.shift;
            for n in 0..e.len >> e.shift {
                let virt = e.virt + n * size;
                let part = TlbEntry { virt, len: size, phys: e.phys_of(virt), ..*e };
                let found = self.held_walks(cpu, VirtAddr(virt)).iter().any(|(w, _)| {
                    (w.phys_of(virt), w.perm, w.shift, w.tag)
                        == (part.phys, part.perm, part.shift, part.tag)
                });
                if found {
                    join(&mut filled, part);
                }
            }
        }
        self.may_hold(cpu, filled);
    }

    /// A CPU's chance to have these entries.
    pub(crate) fn may_hold(&mut self, cpu: CpuId, entries: Vec<TlbEntry>) {
        for e in entries {
            let (virt, len) = (VirtAddr(e.virt), e.len);
            if self.choices.yes(Choice::TlbFill { cpu, virt, len })
                && let Some(c) = self.cpus.get_mut(cpu.index())
            {
                c.tlb.insert(e);
            }
        }
    }

    /// An invalidation reached a CPU as of `moment`.
    pub(crate) fn drop_uppers(&mut self, cpu: CpuId, target: &TlbTarget, moment: u64) {
        let x86 = self.arch() == Arch::X86_64;
        let one = target.scope == TlbScope::Address && !x86;
        let around = one.then_some((target.virt, target.len));
        self.forget_uppers(cpu, around, |u| u.replaced.at <= moment && u.goes(target, x86));
    }

    /// A page fault drops what led to its address (SDM 3A 4.10.4.1).
    pub(crate) fn drop_uppers_of(&mut self, cpu: CpuId, virt: u64, asid: u16) {
        self.forget_uppers(cpu, Some((virt, 1)), |u| u.serves(virt, asid));
    }

    /// Drops uppers; of those whose rights lower entries have, what is not around a range.
    fn forget_uppers(
        &mut self,
        cpu: CpuId,
        around: Option<(u64, u64)>,
        goes: impl Fn(&Upper) -> bool,
    ) {
        let level = self.format.last_level().saturating_sub(1);
        let shift = self.format.levels.get(level).map_or(0, |l| l.index_shift);
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return };
        let mut left = Vec::new();
        c.uppers.retain(|u| {
            let gone = goes(u);
            if let Some(range) = around.filter(|_| gone) {
                left.extend(u.outside(range, shift));
            }
            !gone
        });
        c.uppers.append(&mut left);
    }
}
