//! Translation lookaside buffers: what each CPU may still use whatever the tables say.
//!
//! Modelled: entries with leaf size, identifier, global bit and the permission as it was when they
//! were filled; filled by walks, and (as a [`Choice`]) ahead of a change of the tables; entries
//! with neighbours' attributes are kept as runs. Caches of upper levels are in [`crate::upper`];
//! what the contiguous bit does is in `tables/groups.rs`. Not modelled: separate instruction and
//! data TLBs, and capacity, but for a bound on memory.

use textbed_arch::effect::{Reach, TlbScope};
use textbed_arch::paging::Attributes;
use textbed_arch::sync::translation::TlbieStage;
use textbed_arch::{Arch, CpuId, Features, Perm, SpaceId, VirtAddr};

use crate::choice::Choice;
use crate::exec_map::overlap;
use crate::iside::Past;
use crate::tables::Run;
use crate::{CpuMask, Machine};

/// Entries that a TLB keeps; the oldest goes first.
const CAPACITY: usize = 4096;

/// A run of leaves, all alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TlbEntry {
    pub(crate) virt: u64,
    pub(crate) len: u64,
    pub(crate) phys: u64,
    /// `log2` of the leaf size.
    pub(crate) shift: u8,
    pub(crate) attributes: Attributes,
    /// As all levels granted when it was filled.
    pub(crate) perm: Perm,
    /// Identifier; `None` = global.
    pub(crate) tag: Option<u16>,
    /// The space whose tables it came from.
    pub(crate) space: SpaceId,
    /// Since when its addresses were executable (meaningless if they are not).
    pub(crate) since: u64,
    /// When the tables stopped to say so.
    pub(crate) replaced: Option<Replaced>,
}

/// A change of the tables: the moment, and the CPU that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Replaced {
    pub(crate) at: u64,
    pub(crate) by: CpuId,
}

impl TlbEntry {
    pub(crate) fn covers(&self, virt: u64) -> bool {
        virt.wrapping_sub(self.virt) < self.len
    }

    pub(crate) fn phys_of(&self, virt: u64) -> u64 {
        self.phys.wrapping_add(virt.wrapping_sub(self.virt))
    }

    fn serves(&self, asid: u16) -> bool {
        self.tag.is_none_or(|tag| tag == asid)
    }

    /// The part from `virt` to `last`, which lies in it.
    fn part(&self, virt: u64, last: u64) -> TlbEntry {
        TlbEntry { virt, len: last - virt + 1, phys: self.phys_of(virt), ..*self }
    }
}

/// What an invalidation names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TlbTarget {
    pub(crate) scope: TlbScope,
    pub(crate) virt: u64,
    pub(crate) len: u64,
    pub(crate) asid: u16,
    /// In every space, for scopes with an address.
    pub(crate) any: bool,
    /// `log2` of the leaves that it says it is about, if it does: others stay for every access that
    /// wants them, which is no other choice than that of whom the invalidation does not reach.
    pub(crate) leaf: Option<u8>,
}

impl TlbTarget {
    /// The part of an entry that it hits.
    fn hits(&self, e: &TlbEntry) -> Option<(u64, u64)> {
        let whole = Some((e.virt, e.virt + (e.len - 1)));
        match self.scope {
            TlbScope::All => whole,
            TlbScope::AllButGlobal => whole.filter(|_| e.tag.is_some()),
            TlbScope::Space => whole.filter(|_| e.tag == Some(self.asid)),
            TlbScope::Address | TlbScope::AddressLastLevel => {
                let other = self.leaf.is_some_and(|shift| shift != e.shift);
                if !(self.any || e.serves(self.asid)) || self.len == 0 || other {
                    return None;
                }
                // Whole leaves go.
                let mask = (1u64 << e.shift) - 1;
                let first = self.virt & !mask;
                let last = self.virt.saturating_add(self.len - 1) | mask;
                let (a, b) = (e.virt.max(first), (e.virt + (e.len - 1)).min(last));
                (a <= b).then_some((a, b))
            }
        }
    }
}

/// One CPU's TLB; the youngest entry is the last.
#[derive(Clone, Default, Debug)]
pub(crate) struct Tlb {
    entries: Vec<TlbEntry>,
    /// Where the last hit was: code runs on in one page.
    hint: usize,
    /// Counts what may change how an address is translated that an entry served.
    changes: u64,
}

impl Tlb {
    /// Every entry.
    pub(crate) fn entries(&self) -> &[TlbEntry] {
        &self.entries
    }

    /// Changes whenever an address that one entry served may be translated otherwise.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn insert(&mut self, entry: TlbEntry) {
        let beside = |e: &TlbEntry| overlap(e.virt, e.len, entry.virt, entry.len).is_some();
        if self.entries.len() >= CAPACITY {
            self.changes += 1;
            self.entries.remove(0);
        } else if self.entries.iter().any(beside) {
            self.changes += 1;
        }
        self.hint = self.entries.len();
        self.entries.push(entry);
    }

    /// The one entry for an address, if it is the only one and the tables still say so.
    pub(crate) fn only(&mut self, virt: u64, asid: u16) -> Option<TlbEntry> {
        let fits = |e: &TlbEntry| e.covers(virt) && e.serves(asid);
        let mut found = None;
        if !self.entries.get(self.hint).is_some_and(fits) {
            self.hint = self.entries.iter().position(fits)?;
        }
        for (n, e) in self.entries.iter().enumerate() {
            if fits(e) {
                if found.is_some() || e.replaced.is_some() {
                    return None;
                }
                found = Some((n, *e));
            }
        }
        found.map(|(n, e)| {
            self.hint = n;
            e
        })
    }

    /// Entries for an address, the youngest first.
    pub(crate) fn matching(&self, virt: u64, asid: u16) -> impl Iterator<Item = &TlbEntry> {
        self.entries.iter().rev().filter(move |e| e.covers(virt) && e.serves(asid))
    }

    /// Marks what lies in a range of a space's addresses as no longer said by the tables.
    pub(crate) fn mark_replaced(&mut self, space: SpaceId, virt: u64, len: u64, now: Replaced) {
        self.rewrite(
            |e| {
                let mine = e.space == space && e.replaced.is_none();
                let at = overlap(e.virt, e.len, virt, len).filter(|_| mine)?;
                Some((at, (e.virt + (e.len - 1)).min(virt + (len - 1))))
            },
            |part| Some(TlbEntry { replaced: Some(now), ..part }),
        );
    }

    /// Marks everything as perhaps no longer said by the tables.
    pub(crate) fn distrust(&mut self, now: Replaced) {
        self.changes += 1;
        for e in &mut self.entries {
            e.replaced.get_or_insert(now);
        }
    }

    /// Drops every entry of an identifier (x86 MOV to CR3).
    pub(crate) fn drop_space(&mut self, asid: u16) {
        self.changes += 1;
        self.entries.retain(|e| e.tag != Some(asid));
    }

    /// Drops entries for one address (what a page fault does on x86).
    pub(crate) fn drop_address(&mut self, virt: u64, asid: u16) {
        let scope = TlbScope::Address;
        let target = TlbTarget { scope, virt, len: 1, asid, any: false, leaf: None };
        self.rewrite(|e| target.hits(e), |_| None);
    }

    /// Carries out an invalidation as of `moment`: what the tables ceased to say later stays, for a
    /// walk could have filled it again. Returns what was dropped.
    pub(crate) fn invalidate(
        &mut self,
        target: &TlbTarget,
        moment: u64,
        keeps_global: bool,
    ) -> Vec<TlbEntry> {
        let mut dropped = Vec::new();
        self.rewrite(
            |e| {
                let kept = keeps_global && e.tag.is_none();
                target.hits(e).filter(|_| !kept && e.replaced.is_none_or(|r| r.at <= moment))
            },
            |part| {
                dropped.push(part);
                None
            },
        );
        dropped
    }

    /// When the tables ceased to say what the target hits.
    fn replaced(&self, target: &TlbTarget) -> impl Iterator<Item = Replaced> {
        self.entries.iter().filter(|e| target.hits(e).is_some()).filter_map(|e| e.replaced)
    }

    /// Replaces the part of each entry that `select` names by what `change` makes of it.
    fn rewrite(
        &mut self,
        select: impl Fn(&TlbEntry) -> Option<(u64, u64)>,
        mut change: impl FnMut(TlbEntry) -> Option<TlbEntry>,
    ) {
        if !self.entries.iter().any(|e| select(e).is_some()) {
            return;
        }
        self.changes += 1;
        let mut out = Vec::with_capacity(self.entries.len() + 2);
        for e in self.entries.drain(..) {
            let Some((first, last)) = select(&e) else {
                out.push(e);
                continue;
            };
            let e_last = e.virt + (e.len - 1);
            if e.virt < first {
                out.push(e.part(e.virt, first - 1));
            }
            out.extend(change(e.part(first, last)));
            if last < e_last {
                out.push(e.part(last + 1, e_last));
            }
        }
        self.entries = out;
        self.hint = 0;
    }
}

/// An invalidation that was issued and that no barrier has completed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingTlbi {
    pub(crate) target: TlbTarget,
    pub(crate) reach: Reach,
    /// Walks see, before it, what the CPU itself changed in the tables until then: the last
    /// barrier that waits for that.
    pub(crate) own: u64,
    /// And what others had changed: that barrier, or how the CPU learned of it.
    pub(crate) base: u64,
    /// powerpc: what came after it.
    pub(crate) stage: TlbieStage,
    /// What errata ask for behind it.
    pub(crate) second: Second,
    /// A barrier completed it as far as the erratum lets it: for its own CPU, or but for stores.
    pub(crate) half: bool,
}

/// How far the second invalidation is that errata want behind a barrier behind the first. Any one
/// that reaches the same CPUs will do: Linux repeats the first (to 6.18 on arm64), or adds one of
/// an address that nobody uses (arm64 from 7.0 on, powerpc).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Second {
    /// Nothing that counts came behind the first.
    Wanted,
    /// A barrier did.
    Fenced,
    /// And an invalidation behind that: the next barrier that completes it completes the first.
    Issued,
}

impl Machine {
    /// The tables of a space changed: what each CPU that uses them holds is now old, and what it
    /// does not hold it may have filled before.
    pub(crate) fn tlbs_notice(&mut self, space: SpaceId, run: &Run, now: Replaced) {
        let (len, old) = (run.change.len(), run.change.old);
        let same = run.change.old == run.change.new
            && run.phys == run.old_phys
            && !self.may_conflict(run.old_attributes, run.change.attributes);
        if !old.contains(Perm::PRESENT) || same || len == 0 {
            return;
        }
        for cpu in self.all_cpus() {
            let Some(c) = self.cpus.get_mut(cpu.index()) else { continue };
            c.tlb.mark_replaced(space, run.virt, len, now);
            // Under which identifiers could it have walked these tables?
            let mut tags: Vec<Option<u16>> = Vec::new();
            if old.contains(Perm::GLOBAL) {
                let uses = space == SpaceId::KERNEL
                    || c.space == space
                    || c.known.iter().any(|(s, _)| *s == space);
                if uses {
                    tags.push(None);
                }
            } else {
                if space == SpaceId::KERNEL || c.space == space {
                    tags.push(Some(c.asid));
                }
                for (s, asid) in &c.known {
                    if (space == SpaceId::KERNEL || *s == space) && !tags.contains(&Some(*asid)) {
                        tags.push(Some(*asid));
                    }
                }
            }
            for tag in tags {
                self.fill_before(cpu, space, run, tag, now);
            }
        }
    }

    /// One CPU's chance to have filled the old leaves of a run under one identifier.
    fn fill_before(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        run: &Run,
        tag: Option<u16>,
        now: Replaced,
    ) {
        let len = run.change.len();
        let Some(c) = self.cpus.get(cpu.index()) else { return };
        let held = c.tlb.entries.iter().any(|e| {
            e.replaced == Some(now)
                && e.tag == tag
                && e.covers(run.virt)
                && e.covers(run.virt + (len - 1))
        });
        if held {
            return;
        }
        let virt = VirtAddr(run.virt);
        if !self.choices.yes(Choice::TlbFill { cpu, virt, len }) {
            return;
        }
        let exec = self.spaces.get(space.0 as usize).and_then(|s| s.exec.lookup(run.virt));
        let entry = TlbEntry {
            virt: run.virt,
            len,
            phys: run.old_phys,
            shift: run.change.old_shift,
            attributes: run.old_attributes,
            perm: run.change.old,
            tag,
            space,
            since: exec.map_or(0, |(_, since)| since),
            replaced: Some(now),
        };
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.tlb.insert(entry);
        }
    }

    /// Carries out an invalidation on one CPU as of `moment`. What was dropped may still have been
    /// used for instructions fetched ahead.
    pub(crate) fn drop_translations(
        &mut self,
        cpu: CpuId,
        target: &TlbTarget,
        moment: u64,
        keeps_global: bool,
    ) {
        self.drop_uppers(cpu, target, moment);
        let now = self.tick;
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return };
        let dropped = c.tlb.invalidate(target, moment, keeps_global);
        for e in &dropped {
            if e.perm.executable() {
                c.ahead.went(Past {
                    virt: e.virt,
                    len: e.len,
                    phys: e.phys,
                    tag: e.tag,
                    since: e.since,
                    until: now,
                });
            }
        }
        self.fill_again(cpu, &dropped);
    }

    /// A barrier of `by` completes an invalidation: each CPU in reach takes it, at the barrier or
    /// before changes of the tables that it may overtake.
    pub(crate) fn complete_tlbi(&mut self, by: CpuId, pending: &PendingTlbi) {
        for cpu in self.reached(by, pending.reach).iter() {
            let other = cpu != by && pending.second != Second::Issued;
            if other && self.has(Features::ARM_REPEAT_TLBI) {
                continue;
            }
            // Accesses through the old translation are complete first.
            if !(other && self.has(Features::PPC_TLBIE_STQ)) {
                self.perform_all(cpu);
            }
            let Some(c) = self.cpus.get(cpu.index()) else { continue };
            let x86 = self.arch() == Arch::X86_64;
            let uppers = c.uppers.iter().filter(|u| u.goes(&pending.target, x86));
            let changes = c.tlb.replaced(&pending.target).chain(uppers.map(|u| u.replaced));
            // Latest first.
            let overtaken =
                |r: &Replaced| r.at > if r.by == by { pending.own } else { pending.base };
            let mut moments: Vec<u64> = changes.filter(overtaken).map(|r| r.at).collect();
            moments.sort_unstable_by(|a, b| b.cmp(a));
            moments.dedup();
            let options = moments.len() + 1;
            let answer = self.choices.ask(Choice::TlbiReached { by, cpu, options });
            let moment = match answer.checked_sub(1).and_then(|n| moments.get(n)) {
                Some(replaced) => replaced - 1,
                None => self.tick,
            };
            self.drop_translations(cpu, &pending.target, moment, false);
        }
    }

    /// The CPUs that an operation of `by` reaches.
    pub(crate) fn reached(&self, by: CpuId, reach: Reach) -> CpuMask {
        match reach {
            Reach::Local => CpuMask::one(by),
            Reach::Broadcast => CpuMask::first(self.config.cpus),
        }
    }
}
