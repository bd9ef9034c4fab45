//! arm64: bits that change over a range of the kernel's page tables.
//!
//! Modelled: blocks split first where the version does that, then one entry after the other, others
//! let in behind each, and the flush; the barriers of set_pte() behind each valid entry, from 6.16
//! on once behind all; the walker's refusal of blocks, and from 6.18 on its silence about those
//! that are not valid, which stay so; the tables that it makes for holes (before 6.18), and the
//! bits that it leaves in entries that were empty (the guard page's). No lock is taken: nothing
//! keeps others from changing the same entries. From: Linux 5.19, 6.1, 6.6, 6.12, 6.18.2 and 7.0
//! arch/arm64/mm/pageattr.c __change_memory_common(), update_range_prot(); mm/memory.c
//! apply_to_page_range(); mm/pagewalk.c walk_pmd_range(); arch/arm64/include/asm/pgtable.h
//! pmd_sect(), pmd_present(), __set_pte_complete(). Not modelled: an update that is lost between
//! another one's load and store of the same entry.

use textbed_arch::{CpuId, Perm, SpaceId, VirtAddr};
use textbed_event::WarnReason;
use textbed_machine::{MapError, Mapping, Span};

use crate::caps::Fact;
use crate::errno::{EINVAL, ENOMEM};
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{Step, Then, once, pause, step_then_others};

/// Bits that change over a range.
#[derive(Clone, Copy)]
pub(super) struct Bits {
    pub(super) start: VirtAddr,
    pub(super) bytes: u64,
    pub(super) set: Perm,
    pub(super) clear: Perm,
}

/// What one turn of a walk did.
enum Turned {
    /// One leaf; whether it is valid now.
    Changed { next: VirtAddr, valid: bool },
    /// Nothing is translated up to there.
    Passed(VirtAddr),
    /// The walk is over, with 0 or an error.
    Ended(i64),
}

impl Bits {
    /// `__change_memory_common`: the change and its flush, if it has one, whatever came of it.
    pub(super) fn step(self, flushed: bool, then: Then<i64>) -> Step {
        let flush = step_then_others(move |k: &mut Kernel, cpu| {
            k.arm64_flush_kernel_range(cpu, self.start.0, self.start.0 + self.bytes)
        });
        self.update(Box::new(move |k, _, error| {
            k.later(flushed.then_some(flush));
            k.later([once(move |k, cpu| then(k, cpu, error))]);
            Ok(())
        }))
    }

    /// `update_range_prot`, up to 6.17 `apply_to_page_range`; `then` gets 0, or an error with what
    /// lies before its cause changed.
    pub(super) fn update(self, then: Then<i64>) -> Step {
        once(move |k, cpu| {
            let Bits { start, bytes, .. } = self;
            let walk = Box::new(move |k: &mut Kernel, cpu, error| {
                if error != 0 {
                    k.warn_once(cpu, "pageattr: split", WarnReason::Other, start);
                    return then(k, cpu, error);
                }
                k.later([self.walk(start, false, then)]);
                Ok(())
            });
            k.arm64_split_ends(cpu, start, VirtAddr(start.0 + bytes), walk)
        })
    }

    fn end(self) -> VirtAddr {
        VirtAddr(self.start.0 + self.bytes)
    }

    /// Entries from an address on; `owed` are barriers that are put off to the end.
    fn walk(self, at: VirtAddr, owed: bool, then: Then<i64>) -> Step {
        once(move |k, cpu| {
            let turned = match at < self.end() {
                true => self.turn(k, cpu, at)?,
                false if self.bytes == 0 => self.nothing(k, cpu),
                false => Turned::Ended(0),
            };
            match turned {
                Turned::Changed { next, valid } => {
                    let put_off = k.caps.yes(Fact::LazyBarriers);
                    if valid && !put_off {
                        k.arm64_after_set_pte(cpu)?;
                    }
                    let owed = owed || valid && put_off;
                    k.later([pause(), self.walk(next, owed, then)]);
                }
                Turned::Passed(next) => k.later([self.walk(next, owed, then)]),
                Turned::Ended(error) => {
                    if owed {
                        k.arm64_after_set_pte(cpu)?;
                    }
                    k.later([once(move |k, cpu| then(k, cpu, error))]);
                }
            }
            Ok(())
        })
    }

    /// Neither walker takes an empty range; `apply_to_page_range` complains of it.
    fn nothing(self, k: &mut Kernel, cpu: CpuId) -> Turned {
        if !k.arm64_splits() {
            k.warn(cpu, WarnReason::BadArgument, self.start);
        }
        Turned::Ended(-EINVAL)
    }

    fn turn(self, k: &mut Kernel, cpu: CpuId, at: VirtAddr) -> Result<Turned, Stop> {
        let left = self.end().0 - at.0;
        match k.machine.leaves(SpaceId::KERNEL, at, left.min(k.pages.bytes())).next() {
            Some(Span::Mapped(leaf)) => self.leaf(k, cpu, leaf),
            _ => self.hole(k, cpu, at, left),
        }
    }

    /// A block is refused where it is met: any up to 6.17, one that the range covers in part later.
    fn leaf(self, k: &mut Kernel, cpu: CpuId, leaf: Mapping) -> Result<Turned, Stop> {
        let bytes = 1u64 << leaf.shift;
        let next = VirtAddr(leaf.virt.0.saturating_add(bytes));
        let valid = |k: &Kernel| k.machine.lookup(SpaceId::KERNEL, leaf.virt).is_some();
        if leaf.shift > k.pages.shift() {
            // One that is not valid has neither a block's type nor the bit of what is present.
            if k.arm64_splits() && !valid(k) {
                return Ok(Turned::Passed(next));
            }
            let whole = leaf.virt >= self.start && next <= self.end();
            if !k.arm64_splits() || !whole {
                let at = leaf.virt.max(self.start);
                k.warn_once(cpu, "pageattr: block", WarnReason::HugeMapping, at);
                return Ok(Turned::Ended(-EINVAL));
            }
        }
        k.machine.protect(cpu, SpaceId::KERNEL, leaf.virt, bytes, self.set, self.clear)?;
        Ok(Turned::Changed { next, valid: valid(k) })
    }

    /// What has no entries up to the end of a table: before 6.18 a table is made, and empty entries
    /// of one get the bits, as neither walker looks whether an entry is empty.
    fn hole(self, k: &mut Kernel, cpu: CpuId, at: VirtAddr, left: u64) -> Result<Turned, Stop> {
        let room = k.pages.pmd_bytes() - (at.0 & (k.pages.pmd_bytes() - 1));
        let len = match k.machine.leaves(SpaceId::KERNEL, at, left.min(room)).next() {
            Some(Span::Gap { len, .. }) => len,
            _ => left.min(room),
        };
        if !k.arm64_splits() && k.machine.lacks_table(SpaceId::KERNEL, at) {
            if k.allocation_fails() {
                return Ok(Turned::Ended(-ENOMEM));
            }
            match k.machine.make_last_table(cpu, SpaceId::KERNEL, at) {
                Ok(_) => {}
                Err(MapError::OutOfMemory) => return Ok(Turned::Ended(-ENOMEM)),
                Err(other) => return Err(other.into()),
            }
        }
        k.machine.stain(cpu, SpaceId::KERNEL, at, len, self.set, self.clear)?;
        Ok(Turned::Passed(VirtAddr(at.0.saturating_add(len))))
    }
}
