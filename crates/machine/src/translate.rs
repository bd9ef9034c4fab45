//! Addresses translated as one CPU would at one moment: through its TLB, or by a walk.
//!
//! Modelled: kernel privilege; a choice among what the tables say and what the TLB holds; what each
//! architecture does when a held entry refuses what the tables allow: Intel reports a (spurious)
//! fault and forgets the entry, AMD and Power radix look again first (APM vol 2 5.5.3; Power ISA
//! 3.1B 6.10.1.2 as quoted by Linux), Arm reports the fault and keeps the entry. Not modelled: user
//! privilege; amalgamated entries.

use textbed_arch::paging::{Attributes, Controls, WalkFault};
use textbed_arch::sync::translation::{Change, HeldRefusal, held_refusal, wants_break};
use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Access, FaultReason, View};

use crate::choice::Choice;
use crate::tlb::{Replaced, TlbEntry};
use crate::upper::Upper;
use crate::{Fault, Machine};

/// Whether a permission lets the kernel access so. `protect` is x86 CR0.WP (true elsewhere), which
/// is looked at by each access, not when the TLB is filled.
pub(crate) fn grants(perm: Perm, access: Access, protect: bool) -> bool {
    perm.contains(match access {
        Access::Read => Perm::PRESENT | Perm::READ,
        Access::Write if protect => Perm::PRESENT | Perm::WRITE,
        Access::Write => Perm::PRESENT,
        Access::Exec => Perm::PRESENT | Perm::EXEC,
    })
}

/// Whether a held entry and what the tables say now may conflict: they differ in a way that the
/// architecture allows only after a break. An access may then end in an abort (arm64) or a machine
/// check (powerpc). An amalgamation of the two is not modelled.
fn conflicts(arch: Arch, features: Features, held: &TlbEntry, now: &TlbEntry) -> bool {
    let forbidden = |change| wants_break(arch, features, change).is_some();
    let writable = held.perm.writable() || now.perm.writable();
    let moved = held.phys.wrapping_sub(held.virt) != now.phys.wrapping_sub(now.virt);
    moved && writable && forbidden(Change::Frame)
        || held.shift != now.shift && forbidden(Change::Size)
        || differ(arch, features, held.attributes, now.attributes)
}

/// Whether leaves differ in attributes that may be exchanged only with a break.
fn differ(arch: Arch, features: Features, held: Attributes, now: Attributes) -> bool {
    let forbidden = |change| wants_break(arch, features, change).is_some();
    held.memory != now.memory && forbidden(Change::MemoryType)
        || held.contiguous != now.contiguous && forbidden(Change::Contiguous)
}

/// Walks by upper entries that are looked at for one address.
const MOST_WALKS: usize = 256;

/// A way in which an address may be translated now.
pub(crate) type Way = Result<TlbEntry, FaultReason>;

impl Machine {
    /// The entry that a walk of the tables gives now.
    pub(crate) fn walk(&self, cpu: CpuId, virt: VirtAddr) -> Result<TlbEntry, FaultReason> {
        self.walk_by(cpu, virt, &[])
    }

    /// The same, with upper entries that the tables no longer have.
    fn walk_by(
        &self,
        cpu: CpuId,
        virt: VirtAddr,
        uppers: &[Upper],
    ) -> Result<TlbEntry, FaultReason> {
        let c = self.cpus.get(cpu.index()).ok_or(FaultReason::BadAddress)?;
        if self.is_hashed() {
            return self.walk_hashed(virt);
        }
        let owner = self.owner(c.space, virt).ok_or(FaultReason::NotPresent)?;
        // On x86 the loaded root serves both halves; its kernel half is shared.
        let tree = if self.arch() == Arch::X86_64 { c.space } else { owner };
        let root = self.root(tree).ok_or(FaultReason::NotPresent)?;
        let controls = Controls { x86_wp: true, ..c.controls };
        let mut read = |addr| match uppers.iter().find(|u| u.entry == addr) {
            Some(upper) => Some(upper.raw),
            None => self.entry(addr),
        };
        let walk = self.format.walk_with(root, virt, &controls, &mut read);
        let t = walk.result.map_err(|e| match e {
            WalkFault::NonCanonical => FaultReason::BadAddress,
            WalkFault::NotPresent { .. } => FaultReason::NotPresent,
            WalkFault::Malformed { .. } | WalkFault::AddressSize { .. } => FaultReason::Malformed,
            WalkFault::AccessFlag { .. } => FaultReason::Permission,
            WalkFault::OutsideMemory { .. } => FaultReason::NoMemory,
        })?;
        if self.memory.check(t.frame, 1 << t.shift).is_err() {
            return Err(FaultReason::NoMemory);
        }
        let start = virt.align_down(t.shift).0;
        let space = if self.is_kernel(virt) { SpaceId::KERNEL } else { tree };
        let exec = self.spaces.get(space.0 as usize).and_then(|s| s.exec.lookup(virt.0));
        Ok(TlbEntry {
            virt: start,
            len: 1 << t.shift,
            phys: t.frame.0,
            shift: t.shift as u8,
            attributes: self.format.attributes(t.level, t.raw),
            perm: t.perm,
            tag: if t.perm.contains(Perm::GLOBAL) { None } else { Some(c.asid) },
            space,
            since: exec.map_or(self.tick, |(_, since)| since),
            replaced: None,
        })
    }

    /// Whether leaves of such attributes conflict with one another.
    pub(crate) fn may_conflict(&self, held: Attributes, now: Attributes) -> bool {
        differ(self.arch(), self.config.features, held, now)
    }

    /// Whether a group may not have its contiguous bits changed while it is in use.
    pub(crate) fn bits_conflict(&self) -> bool {
        wants_break(self.arch(), self.config.features, Change::Contiguous).is_some()
    }

    /// What walks of a CPU find by upper entries that it holds, with the first change that made one
    /// of those old, as what is told of that cannot find it again: some of them, the youngest
    /// first, down to the oldest of each place.
    pub(crate) fn held_walks(&self, cpu: CpuId, virt: VirtAddr) -> Vec<(TlbEntry, Replaced)> {
        let Some(c) = self.cpus.get(cpu.index()) else { return Vec::new() };
        let mut walks = vec![Vec::new()];
        let mut places: Vec<PhysAddr> = Vec::new();
        for upper in c.uppers.iter().filter(|u| u.serves(virt.0, c.asid)) {
            if !places.contains(&upper.entry) {
                places.push(upper.entry);
            }
        }
        for place in places {
            let held = c.uppers.iter().rev().filter(|u| u.entry == place);
            let held: Vec<&Upper> = held.filter(|u| u.serves(virt.0, c.asid)).collect();
            let more = |walk: &Vec<Upper>| {
                let with = held.iter().map(|upper| [walk.as_slice(), &[**upper]].concat());
                std::iter::once(walk.clone()).chain(with).collect::<Vec<_>>()
            };
            walks = walks.iter().flat_map(more).take(MOST_WALKS).collect();
        }
        let found = |walk: Vec<Upper>| {
            let replaced = walk.iter().map(|u| u.replaced).min_by_key(|r| r.at)?;
            Some((self.walk_by(cpu, virt, &walk).ok()?, replaced))
        };
        walks.into_iter().filter_map(found).collect()
    }

    /// Every way to translate `virt`: the walk first, then held entries that lead elsewhere or
    /// grant otherwise, the youngest first. The walk fills the TLB.
    pub(crate) fn ways(&mut self, cpu: CpuId, virt: VirtAddr, access: Access) -> Vec<Way> {
        let walked = self.walk(cpu, virt);
        let (arch, features) = (self.arch(), self.config.features);
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return vec![walked] };
        let (asid, wp) = (c.asid, c.controls.x86_wp);
        let mut ways = vec![walked];
        for e in c.tlb.matching(virt.0, asid) {
            let seen = ways.iter().any(|w| {
                w.as_ref().is_ok_and(|w| {
                    w.phys_of(virt.0) == e.phys_of(virt.0)
                        && grants(w.perm, access, wp) == grants(e.perm, access, wp)
                })
            });
            if !seen {
                ways.push(Ok(*e));
            }
        }
        for (e, replaced) in self.held_walks(cpu, virt) {
            let seen = ways.iter().any(|w| {
                w.as_ref().is_ok_and(|w| {
                    w.phys_of(virt.0) == e.phys_of(virt.0)
                        && grants(w.perm, access, wp) == grants(e.perm, access, wp)
                })
            });
            if !seen {
                // Nothing in the tables says so any more, and it can be held from now on.
                ways.push(Ok(TlbEntry { since: self.tick, replaced: Some(replaced), ..e }));
            }
        }
        let disagrees = self.group_ways(cpu, virt, access, &mut ways);
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return ways };
        if let Ok(entry) = walked
            && c.tlb.matching(virt.0, asid).any(|e| conflicts(arch, features, e, &entry))
        {
            // Neither one nor the other: the last way, as the worst.
            ways.push(Err(FaultReason::Conflict));
        }
        if let Ok(entry) = walked
            && !disagrees
        {
            let here = |e: &TlbEntry| {
                (e.virt, e.len, e.phys, e.perm, e.tag, e.replaced)
                    == (entry.virt, entry.len, entry.phys, entry.perm, entry.tag, None)
            };
            if !c.tlb.matching(virt.0, asid).any(here) {
                c.tlb.insert(entry);
            }
        }
        ways
    }

    /// Translates one address for a data access: where it leads, and how many bytes from there on
    /// belong to the same translation.
    pub(crate) fn translate(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        access: Access,
    ) -> Result<(PhysAddr, u64), FaultReason> {
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return Err(FaultReason::BadAddress) };
        let (asid, wp) = (c.asid, c.controls.x86_wp);
        if let Some(e) = c.tlb.only(virt.0, asid)
            && grants(e.perm, access, wp)
        {
            return Ok(lead(&e, virt));
        }
        let ways = self.ways(cpu, virt, access);
        let options = ways.len();
        let n = self.choices.ask(Choice::Translation { cpu, virt, options });
        let Some(way) = ways.get(n).copied() else { return Err(FaultReason::NotPresent) };
        let e = self.settle(cpu, virt, access, way, ways.first().copied())?;
        Ok(lead(&e, virt))
    }

    /// What comes of using `way` when a walk would give `walked`.
    pub(crate) fn settle(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        access: Access,
        way: Way,
        walked: Option<Way>,
    ) -> Result<TlbEntry, FaultReason> {
        let asid = self.asid_of(cpu);
        let wp = self.cpus.get(cpu.index()).is_none_or(|c| c.controls.x86_wp);
        // No hashed entry that grants it: software may make one, and the access is tried again.
        let refused = !way.is_ok_and(|e| grants(e.perm, access, wp));
        if refused && self.is_hashed() && self.refill(cpu, virt, access) {
            let now = self.walk(cpu, virt)?;
            if let Some(c) = self.cpus.get_mut(cpu.index()) {
                c.tlb.insert(now);
            }
            return if grants(now.perm, access, wp) {
                Ok(now)
            } else {
                Err(FaultReason::Permission)
            };
        }
        let reason = match way {
            Ok(e) if grants(e.perm, access, wp) => return Ok(e),
            Ok(_) => match walked {
                Some(Ok(now)) if grants(now.perm, access, wp) => {
                    match held_refusal(self.arch(), self.config.features) {
                        HeldRefusal::Spurious => FaultReason::Spurious,
                        HeldRefusal::Fault => FaultReason::Permission,
                        HeldRefusal::ReadAgain => return Ok(now),
                    }
                }
                _ => FaultReason::Permission,
            },
            Err(reason) => reason,
        };
        if self.arch() == Arch::X86_64
            && let Some(c) = self.cpus.get_mut(cpu.index())
        {
            // A page fault drops the entries of its page, and those above that led there (SDM 3A
            // 4.10.4.1).
            c.tlb.drop_address(virt.0, asid);
            self.drop_uppers_of(cpu, virt.0, asid);
        }
        Err(reason)
    }

    /// Emits a fault and returns it.
    pub(crate) fn fault(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        access: Access,
        reason: FaultReason,
    ) -> Fault {
        self.emit(cpu, View::Fault { virt, access, reason });
        Fault { virt, access, reason }
    }

    /// Where a CPU would load from now, by what the tables say: no event, no choice, no fill.
    #[must_use]
    pub fn probe(&self, cpu: CpuId, virt: VirtAddr) -> Option<PhysAddr> {
        let e = self.walk(cpu, virt).ok()?;
        Some(PhysAddr(e.phys_of(virt.0)))
    }
}

/// Where an entry leads for an address, and for how many bytes.
fn lead(e: &TlbEntry, virt: VirtAddr) -> (PhysAddr, u64) {
    (PhysAddr(e.phys_of(virt.0)), e.len - (virt.0 - e.virt))
}
