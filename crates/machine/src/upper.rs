//! Caches of upper table levels: a walk that starts from an entry that the tables no longer have.
//!
//! When an entry that pointed to a table is replaced (a collapse, a leaf made where a table was), a
//! CPU that uses these tables may still hold it, as a [`Choice`]. A walk through it reads what the
//! old table's memory holds now, whoever owns that by then. It goes with an invalidation that
//! covers the address at every level: on x86-64 any INVLPG of the identifier (SDM 3A 4.10.4.1; AMD
//! without EFER.TCE likewise), elsewhere one that covers the address; operations on the last level
//! alone leave it (Arm ARM DDI 0487 D8.14). Not modelled: upper entries whose permissions alone
//! changed, walks through it that find nothing (they would be spurious faults), capacity.

use textbed_arch::effect::TlbScope;
use textbed_arch::{Arch, CpuId, PhysAddr, SpaceId, VirtAddr};

use crate::Machine;
use crate::choice::Choice;
use crate::exec_map::overlap;
use crate::tlb::{Replaced, TlbTarget};

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
            let upper = Upper { entry, raw, virt: virt.0, len, tag, space, replaced };
            if let Some(c) = self.cpus.get_mut(cpu.index()) {
                if c.uppers.len() >= MOST {
                    c.uppers.remove(0);
                }
                c.uppers.push(upper);
            }
        }
    }

    /// An invalidation reached a CPU as of `moment`.
    pub(crate) fn drop_uppers(&mut self, cpu: CpuId, target: &TlbTarget, moment: u64) {
        let x86 = self.arch() == Arch::X86_64;
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.uppers.retain(|u| u.replaced.at > moment || !u.goes(target, x86));
        }
    }
}
