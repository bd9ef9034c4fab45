//! arm64 page attributes from 6.18 on: live blocks are split, whole ones changed in place.
//!
//! Modelled: when a split is possible (BBML2_NOABORT, and not everything mapped by pages), at which
//! of the two ends of a range, one table a step with the barrier before the entry that points to
//! it, no invalidation, the mutex; the walk over what is left, which refuses a block that the range
//! covers in part. From: Linux 6.18.2 arch/arm64/mm/mmu.c split_kernel_leaf_mapping(),
//! arch/arm64/mm/pageattr.c update_range_prot(). Not modelled: contiguous entries (a block goes to
//! pages at once, where Linux goes by groups of 16), KFENCE's pool, realms, CPUs without
//! BBML2_NOABORT that come up later.

use textbed_arch::{CpuId, FRAME_SHIFT, Features, Perm, SpaceId, VirtAddr};
use textbed_event::{Need, WarnReason};
use textbed_machine::{MapError, Mapping, Span};

use crate::caps::Fact;
use crate::errno::{EINVAL, ENOMEM};
use crate::error::Stop;
use crate::kernel::Kernel;

/// The lock of those who split, which may be waited for and under which tables are allocated.
const SPLIT_LOCK: &str = "pgtable_split_lock";

impl Kernel {
    /// Whether this version changes blocks, and splits them where it can.
    pub(crate) fn arm64_splits(&self) -> bool {
        self.caps.word(Fact::SplitsLive) == "if-bbml2-noabort"
    }

    /// `force_pte_mapping` for the linear map: all of it by pages.
    pub(crate) fn arm64_by_pages(&self) -> bool {
        if !self.arm64_splits() {
            return self.can_set_direct_map();
        }
        let bbml2 = self.features.contains(Features::ARM_BBML2_NOABORT);
        self.config.on("debug_pagealloc") || !bbml2 && self.can_set_direct_map()
    }

    /// `update_range_prot`: 0, or an error with what lies before its cause changed.
    pub(super) fn arm64_update_range(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        bytes: u64,
        set: Perm,
        clear: Perm,
    ) -> Result<i64, Stop> {
        if !self.arm64_splits() {
            return self.arm64_walk(cpu, start, bytes, set, clear);
        }
        let end = start.0 + bytes;
        let error = self.split_leaf_mapping(cpu, start, VirtAddr(end))?;
        if error != 0 {
            self.warn_once(cpu, "pageattr: split", WarnReason::Other, start);
            return Ok(error);
        }
        let part = |leaf: &Mapping| {
            let last = leaf.virt.0.saturating_add((1 << leaf.shift) - 1);
            leaf.shift > FRAME_SHIFT && (leaf.virt < start || last >= end)
        };
        let leaves = self.machine.leaves(SpaceId::KERNEL, start, bytes);
        let refused = leaves.into_iter().find_map(|span| match span {
            Span::Mapped(leaf) if part(&leaf) => Some(leaf.virt.max(start)),
            _ => None,
        });
        let len = refused.map_or(end, |at| at.0) - start.0;
        if len > 0 {
            self.machine.protect(cpu, SpaceId::KERNEL, start, len, set, clear)?;
            self.machine.stain(cpu, SpaceId::KERNEL, start, len, set, clear)?;
            self.arm64_after_set_pte(cpu)?;
        }
        if let Some(at) = refused {
            self.warn_once(cpu, "pageattr: part of a block", WarnReason::HugeMapping, at);
            return Ok(-EINVAL);
        }
        Ok(0)
    }

    /// `split_kernel_leaf_mapping`: 0, or -ENOMEM.
    fn split_leaf_mapping(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        end: VirtAddr,
    ) -> Result<i64, Stop> {
        let bbml2 = self.features.contains(Features::ARM_BBML2_NOABORT);
        if !bbml2 || self.arm64_by_pages() {
            return Ok(0);
        }
        self.machine.needs(cpu, Need::MaySleep);
        self.lock(cpu, SPLIT_LOCK)?;
        // Of the two ends of one page, splitting at the one that is aligned less splits at both.
        let ends = if end.0 - start.0 == 1 << FRAME_SHIFT {
            let less = start.0.trailing_zeros() < end.0.trailing_zeros();
            vec![if less { start } else { end }]
        } else {
            vec![start, end]
        };
        let mut error = 0;
        for at in ends {
            error = self.split_at(cpu, at)?;
            if error != 0 {
                break;
            }
        }
        self.unlock(cpu, SPLIT_LOCK)?;
        Ok(error)
    }

    /// `split_kernel_leaf_mapping_locked`: no leaf goes across an address any more.
    fn split_at(&mut self, cpu: CpuId, at: VirtAddr) -> Result<i64, Stop> {
        let mut split = false;
        loop {
            let leaf = self.machine.lookup(SpaceId::KERNEL, at);
            let Some(leaf) = leaf.filter(|l| l.shift > FRAME_SHIFT && l.virt != at) else { break };
            if self.allocation_fails() {
                return Ok(-ENOMEM);
            }
            self.machine.op_named(cpu, "dsb ishst", 0)?;
            match self.machine.split(cpu, SpaceId::KERNEL, leaf.virt) {
                Ok(()) => split = true,
                Err(MapError::OutOfMemory) => return Ok(-ENOMEM),
                Err(other) => return Err(other.into()),
            }
        }
        if split {
            self.arm64_after_set_pte(cpu)?;
        }
        Ok(0)
    }
}
