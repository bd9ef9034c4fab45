//! arm64 from 6.18 on: live blocks are split at the ends of a range of which attributes change.
//!
//! Modelled: when a split is possible (BBML2_NOABORT, and not everything mapped by pages), at which
//! of the two ends of a range, by groups of contiguous entries (each loses its bits one by one) and
//! by tables, whose leaves have the bit, one table a step with the barrier before the entry that
//! points to it, no invalidation, the mutex. From: Linux 6.18.2 arch/arm64/mm/mmu.c
//! split_kernel_leaf_mapping(), split_kernel_leaf_mapping_locked(), split_contpte(), split_pmd().
//! Not modelled: KFENCE's pool, realms, CPUs without BBML2_NOABORT that come up later.

use textbed_arch::{CpuId, Features, SpaceId, VirtAddr};
use textbed_event::Need;
use textbed_machine::MapError;

use crate::caps::Fact;
use crate::errno::ENOMEM;
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
        let splits = self.splits_while_in_use();
        self.config.on("debug_pagealloc") || !splits && self.can_set_direct_map()
    }

    /// Whether the CPUs allow another size of what is in use.
    fn splits_while_in_use(&self) -> bool {
        self.features.contains(Features::ARM_BBML2_NOABORT)
    }

    /// `split_kernel_leaf_mapping`: 0, or -ENOMEM.
    pub(super) fn arm64_split_ends(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        end: VirtAddr,
    ) -> Result<i64, Stop> {
        if !self.arm64_splits() || !self.splits_while_in_use() || self.arm64_by_pages() {
            return Ok(0);
        }
        self.machine.needs(cpu, Need::MaySleep);
        self.lock(cpu, SPLIT_LOCK)?;
        // Of the two ends of one page, splitting at the one that is aligned less splits at both.
        let ends = if end.0 - start.0 == self.pages.bytes() {
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

    /// `split_kernel_leaf_mapping_locked`: no leaf and no group goes across an address any more.
    fn split_at(&mut self, cpu: CpuId, at: VirtAddr) -> Result<i64, Stop> {
        let mut split = false;
        while let Some(leaf) = self.machine.lookup(SpaceId::KERNEL, at) {
            let group = self.machine.format().group_shift_of(leaf.shift);
            if let Some(group) = group.filter(|_| leaf.attributes.contiguous) {
                let start = at.align_down(group);
                if start == at {
                    break;
                }
                self.machine.set_contiguous(cpu, SpaceId::KERNEL, start, 1 << group, false)?;
                split = true;
            }
            if leaf.shift == self.pages.shift() || leaf.virt == at {
                break;
            }
            if self.allocation_fails() {
                return Ok(-ENOMEM);
            }
            self.machine.op_named(cpu, "dsb ishst", 0)?;
            match self.machine.split_as(cpu, SpaceId::KERNEL, leaf.virt, true) {
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
