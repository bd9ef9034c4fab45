//! arm64 from 6.18 on: live blocks are split at the ends of a range of which attributes change.
//!
//! Modelled: when a split is possible (BBML2_NOABORT, and not everything mapped by pages), at which
//! of the two ends of a range, by groups of contiguous entries (each loses its bits one by one) and
//! by tables, whose leaves have the bit, one table a step with the barrier before the entry that
//! points to it, no invalidation, one barrier behind all, the mutex; others let in behind each.
//! From: Linux 6.18.2 and 7.0 arch/arm64/mm/mmu.c split_kernel_leaf_mapping(),
//! split_kernel_leaf_mapping_locked(), split_contpte(), split_pmd(). Not modelled: KFENCE's pool,
//! realms, CPUs without BBML2_NOABORT that come up later.

use std::collections::VecDeque;

use textbed_arch::{CpuId, Features, SpaceId, VirtAddr};
use textbed_event::Need;
use textbed_machine::MapError;

use crate::caps::Fact;
use crate::errno::ENOMEM;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{Step, Then, lock_step, once, pause, step_then_others};

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

    /// `split_kernel_leaf_mapping`; `then` gets 0, or -ENOMEM.
    pub(super) fn arm64_split_ends(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        end: VirtAddr,
        then: Then<i64>,
    ) -> Result<(), Stop> {
        if !self.arm64_splits() || !self.splits_while_in_use() || self.arm64_by_pages() {
            return then(self, cpu, 0);
        }
        self.machine.needs(cpu, Need::MaySleep);
        // Of the two ends of one page, splitting at the one that is aligned less splits at both.
        let ends = if end.0 - start.0 == self.pages.bytes() {
            let less = start.0.trailing_zeros() < end.0.trailing_zeros();
            vec![if less { start } else { end }]
        } else {
            vec![start, end]
        };
        let done = Box::new(|k: &mut Kernel, cpu, (error, split)| {
            if split {
                k.arm64_after_set_pte(cpu)?;
            }
            k.unlock(cpu, SPLIT_LOCK)?;
            k.later([once(move |k, cpu| then(k, cpu, error))]);
            Ok(())
        });
        self.later([lock_step(SPLIT_LOCK), split_step(ends.into(), false, done)]);
        Ok(())
    }

    /// The leaf at an address, if that or its group goes across it.
    fn across(&self, at: VirtAddr) -> Option<Cut> {
        let leaf = self.machine.lookup(SpaceId::KERNEL, at)?;
        let group = self.machine.format().group_shift_of(leaf.shift);
        if let Some(group) = group.filter(|_| leaf.attributes.contiguous) {
            let start = at.align_down(group);
            return (start != at).then_some(Cut::Group { start, group, leaf: leaf.shift });
        }
        let large = leaf.shift != self.pages.shift() && leaf.virt != at;
        large.then_some(Cut::Leaf(leaf.virt))
    }
}

/// What goes across an address.
enum Cut {
    /// Entries that translate together: sizes as `log2`.
    Group { start: VirtAddr, group: u32, leaf: u32 },
    /// One leaf.
    Leaf(VirtAddr),
}

/// `split_kernel_leaf_mapping_locked` at one address after the other: no leaf and no group goes
/// across these any more. `then` gets 0 or -ENOMEM, and whether an entry changed.
fn split_step(mut ends: VecDeque<VirtAddr>, split: bool, then: Then<(i64, bool)>) -> Step {
    once(move |k, cpu| {
        let cut = loop {
            let Some(at) = ends.front() else { return then(k, cpu, (0, split)) };
            match k.across(*at) {
                Some(cut) => break cut,
                None => ends.pop_front(),
            };
        };
        match cut {
            Cut::Group { start, group, leaf } => {
                let entries = (0..1u64 << (group - leaf)).map(|n| start.offset(n << leaf));
                k.later(entries.map(|at| {
                    step_then_others(move |k, cpu| {
                        k.machine.set_contiguous(cpu, SpaceId::KERNEL, at, 1 << leaf, false)?;
                        Ok(())
                    })
                }));
            }
            Cut::Leaf(virt) => {
                if k.allocation_fails() {
                    return then(k, cpu, (-ENOMEM, split));
                }
                k.machine.op_named(cpu, "dsb ishst", 0)?;
                match k.machine.split_as(cpu, SpaceId::KERNEL, virt, true) {
                    Ok(()) => k.later([pause()]),
                    Err(MapError::OutOfMemory) => return then(k, cpu, (-ENOMEM, split)),
                    Err(other) => return Err(other.into()),
                }
            }
        }
        k.later([split_step(ends, true, then)]);
        Ok(())
    })
}
