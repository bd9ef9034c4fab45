//! arm64 page attributes.
//!
//! Modelled: the checks of change_memory_common in order, the direct map of the whole area first
//! (with rodata=full), the purge, the range itself, one flush, others let in between an entry's
//! change and its flush and behind both; the walker's refusal of block
//! mappings, the tables that it makes for holes (before 6.18), and the bits that it leaves in
//! entries that were empty (the guard page's). From: Linux 5.19, 6.1, 6.6, 6.12, 6.18.2 and 7.0
//! arch/arm64/mm/pageattr.c, mm/memory.c, mm/pagewalk.c. Not modelled: the entry behind the end of
//! the array of pages that 6.19 and later read for a guard page (said by name), the GP bit (BTI),
//! lost updates of concurrent callers. How 6.18 splits blocks first is in `split`.

use std::collections::VecDeque;

use textbed_arch::{CpuId, Perm, Pfn, SpaceId, VirtAddr};
use textbed_event::{Flags, RefusalReason, WarnReason};
use textbed_machine::{MapError, Mapping, Span};

use crate::area::{Frames, vm_flags};
use crate::caps::Fact;
use crate::errno::{EINVAL, ENOMEM};
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::set_memory::Change;
use crate::steps::{Step, once, pause, step_then_others};
use crate::vfree::purge_steps;

/// Bits that change over a range.
#[derive(Clone, Copy)]
struct Bits {
    start: VirtAddr,
    bytes: u64,
    set: Perm,
    clear: Perm,
    flushed: bool,
}

impl Bits {
    /// The change and its flush, if it has one, others let in before and behind it; what came of it
    /// is `behind`'s.
    fn step(self, behind: impl FnOnce(&mut Kernel, CpuId, i64) + 'static) -> Step {
        once(move |k, cpu| {
            let Bits { start, bytes, set, clear, flushed } = self;
            let error = k.arm64_update_range(cpu, start, bytes, set, clear)?;
            k.later([pause()]);
            if flushed {
                k.later([step_then_others(move |k, cpu| {
                    k.arm64_flush_kernel_range(cpu, start.0, start.0 + bytes)
                })]);
            }
            k.later([once(move |k, cpu| {
                behind(k, cpu, error);
                Ok(())
            })]);
            Ok(())
        })
    }
}

/// The direct map's pages, each with a flush of its own; `behind` gets the first error, if any, and
/// says what follows.
fn alias_step(
    mut pages: VecDeque<VirtAddr>,
    bits: Bits,
    first: i64,
    behind: impl FnOnce(&mut Kernel, i64) -> Vec<Step> + 'static,
) -> Step {
    once(move |k, _| {
        let Some(start) = pages.pop_front() else {
            let steps = behind(k, first);
            k.later(steps);
            return Ok(());
        };
        k.later([Bits { start, ..bits }.step(move |k, _, error| {
            let first = if first == 0 { error } else { first };
            k.later([alias_step(pages, bits, first, behind)]);
        })]);
        Ok(())
    })
}

impl Kernel {
    /// `set_memory_*` on arm64.
    pub(crate) fn arm64_set_memory(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        pages: u64,
        change: Change,
    ) -> Result<i64, Stop> {
        let start = self.pages.start_of(addr);
        if start != addr {
            self.warn_once(cpu, "pageattr: unaligned", WarnReason::Unaligned, addr);
        }
        let bytes = self.pages.in_bytes(pages);
        let what = change.promise();
        let refused = |k: &mut Self, flags: Flags, reason| {
            k.refuse(cpu, flags, what, reason, start, bytes);
            Ok(-EINVAL)
        };
        let Some(area) = self.areas.find(start).cloned() else {
            return refused(self, Flags::default(), RefusalReason::NotAnArea);
        };
        if start.0.checked_add(bytes).is_none_or(|end| end > area.end()) {
            return refused(self, Flags::default(), RefusalReason::OutOfArea);
        }
        if area.flags & vm_flags::VM_ALLOC == 0 {
            return refused(self, Flags::default(), RefusalReason::NotAnArea);
        }
        let by_flag = self.caps.word(Fact::HugeRefusal) == "silent-by-flag";
        if by_flag && area.flags & vm_flags::VM_ALLOW_HUGE_VMAP != 0 {
            let flags = self.flags_of(&[Fact::HugeRefusal]);
            return refused(self, flags, RefusalReason::HugeMapping);
        }
        if pages == 0 {
            return Ok(0);
        }
        let (set, clear) = change.set_clear();
        let writes = !((set | clear) & Perm::WRITE).is_empty();
        let mut alias = Vec::new();
        if self.config.rodata_full() && writes {
            alias = if self.caps.yes(Fact::AliasWholeArea) {
                area.frames
            } else if start.0 + bytes > area.start.0 + area.len {
                return Err(Stop::not_modelled(
                    "the page behind the last of an area's array of pages, which is read for a \
                     guard page",
                ));
            } else {
                self.frames_of_range(start, pages)
            };
        }
        let pages: VecDeque<VirtAddr> =
            self.pages_of(&alias).filter_map(|pfn| self.direct_map_of(pfn)).collect();
        let page_bytes = self.pages.bytes();
        let own = Bits { start, bytes, set, clear, flushed: true };
        let first = alias_step(pages, Bits { bytes: page_bytes, ..own }, 0, move |k, error| {
            if error != 0 && k.caps.yes(Fact::AliasErrorChecked) {
                k.returns(error);
                return Vec::new();
            }
            let mut steps = purge_steps(None, false);
            steps.push(own.step(move |k, cpu, error| {
                let flags = k.flags_of(&[Fact::HugeRefusal]);
                let no_flags = Flags::default();
                if error == -ENOMEM {
                    k.refuse(cpu, no_flags, what, RefusalReason::NoMemory, start, bytes);
                } else if error != 0 {
                    k.refuse(cpu, flags, what, RefusalReason::HugeMapping, start, bytes);
                }
                k.returns(error);
            }));
            steps
        });
        self.with_steps(vec![first])
    }

    /// Frames behind pages of an area; pages without a frame are left out.
    fn frames_of_range(&self, start: VirtAddr, pages: u64) -> Vec<Frames> {
        let area = self.areas.find(start);
        let (bytes, count) = (self.pages.bytes(), self.pages.frames());
        let frame = |page: u64| area.and_then(|a| a.frame_at(start.offset(page * bytes)));
        (0..pages).filter_map(frame).map(|pfn| Frames { pfn, count }).collect()
    }

    /// `apply_to_page_range` with a change of bits, from 6.18 on `update_range_prot`: 0, or an
    /// error with what lies before its cause changed. A block is refused where it is met: any up to
    /// 6.17, one that the range covers in part later.
    fn arm64_update_range(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        bytes: u64,
        set: Perm,
        clear: Perm,
    ) -> Result<i64, Stop> {
        let end = VirtAddr(start.0 + bytes);
        if bytes == 0 {
            // Neither walker takes an empty range; apply_to_page_range complains of it.
            if !self.arm64_splits() {
                self.warn(cpu, WarnReason::BadArgument, start);
            }
            return Ok(-EINVAL);
        }
        let error = self.arm64_split_ends(cpu, start, end)?;
        if error != 0 {
            self.warn_once(cpu, "pageattr: split", WarnReason::Other, start);
            return Ok(error);
        }
        let whole = self.arm64_splits();
        let refuses = |leaf: &Mapping| {
            let last = leaf.virt.0.saturating_add((1 << leaf.shift) - 1);
            leaf.shift > self.pages.shift() && !(whole && leaf.virt >= start && last < end.0)
        };
        let mut leaves = self.machine.leaves(SpaceId::KERNEL, start, bytes);
        let block = leaves.find_map(|span| match span {
            Span::Mapped(leaf) if refuses(&leaf) => Some(leaf.virt.max(start)),
            _ => None,
        });
        let stop = block.unwrap_or(end);
        let lacking = self.arm64_tables(cpu, start, stop)?;
        let len = lacking.unwrap_or(stop).0 - start.0;
        if len > 0 {
            self.machine.protect(cpu, SpaceId::KERNEL, start, len, set, clear)?;
            // The walker does not look whether an entry was empty.
            self.machine.stain(cpu, SpaceId::KERNEL, start, len, set, clear)?;
            self.arm64_after_set_pte(cpu)?;
        }
        if lacking.is_some() {
            return Ok(-ENOMEM);
        }
        if let Some(at) = block {
            self.warn_once(cpu, "pageattr: block", WarnReason::HugeMapping, at);
            return Ok(-EINVAL);
        }
        Ok(0)
    }

    /// Tables for what a range has none for, which `apply_to_page_range` makes (before 6.18): where
    /// there was no memory for one, if so.
    fn arm64_tables(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        end: VirtAddr,
    ) -> Result<Option<VirtAddr>, Stop> {
        if self.arm64_splits() {
            return Ok(None);
        }
        let spans: Vec<Span> =
            self.machine.leaves(SpaceId::KERNEL, start, end.0 - start.0).collect();
        for span in spans {
            let Span::Gap { virt, len } = span else { continue };
            let behind = virt.0.saturating_add(len);
            let mut at = virt;
            while at.0 < behind {
                if self.machine.lacks_table(SpaceId::KERNEL, at) {
                    if self.allocation_fails() {
                        return Ok(Some(at));
                    }
                    match self.machine.make_last_table(cpu, SpaceId::KERNEL, at) {
                        Ok(_) => {}
                        Err(MapError::OutOfMemory) => return Ok(Some(at)),
                        Err(other) => return Err(other.into()),
                    }
                }
                let block = at.align_down(self.pages.pmd_shift());
                let Some(next) = block.checked_add(self.pages.pmd_bytes()) else {
                    break;
                };
                at = next;
            }
        }
        Ok(None)
    }

    /// `set_memory_valid`.
    pub(crate) fn arm64_set_valid(
        &mut self,
        addr: VirtAddr,
        pages: u64,
        valid: bool,
    ) -> Result<i64, Stop> {
        let bytes = self.pages.in_bytes(pages);
        let end = addr.0.checked_add(bytes).map(|end| VirtAddr(end.saturating_sub(1)));
        let format = self.machine.format();
        let kernel = |at: VirtAddr| at.0 >> 63 == 1 && format.is_canonical(at);
        if !addr.is_aligned(self.pages.shift()) || !end.is_some_and(kernel) || !kernel(addr) {
            return Err(Stop::not_modelled("a range that is not of kernel pages"));
        }
        let step = self.arm64_valid_step(addr, bytes, valid);
        self.with_steps(vec![step])
    }

    /// `set_memory_valid` in a step, and what it returns.
    fn arm64_valid_step(&self, start: VirtAddr, bytes: u64, valid: bool) -> Step {
        let bit = Perm::PRESENT;
        let (set, clear) = if valid { (bit, Perm::empty()) } else { (Perm::empty(), bit) };
        // What was not valid is in no TLB.
        let flushed = !valid || self.caps.yes(Fact::ValidFlushed);
        Bits { start, bytes, set, clear, flushed }.step(|k, _, error| k.returns(error))
    }

    /// `set_direct_map_valid_noflush` of pages that follow each other: in spite of its name with
    /// the flush of `set_memory_valid`.
    pub(crate) fn arm64_direct_map_valid(
        &mut self,
        first: Pfn,
        pages: u64,
        valid: bool,
    ) -> Result<i64, Stop> {
        let Some(start) = self.direct_map_of(first).filter(|_| self.can_set_direct_map()) else {
            return Ok(0);
        };
        let step = self.arm64_valid_step(start, self.pages.in_bytes(pages), valid);
        self.with_steps(vec![step])
    }

    /// `set_direct_map_*_noflush` of one frame: nothing, and success, unless the direct map is
    /// mapped by pages.
    pub(crate) fn arm64_set_direct_map(
        &mut self,
        cpu: CpuId,
        pfn: Pfn,
        present: bool,
    ) -> Result<i64, Stop> {
        let Some(virt) = self.direct_map_of(pfn) else { return Ok(0) };
        if !self.can_set_direct_map() {
            return Ok(0);
        }
        let (set, clear) = if present {
            (Perm::PRESENT | Perm::WRITE, Perm::empty())
        } else {
            (Perm::empty(), Perm::PRESENT)
        };
        self.arm64_update_range(cpu, virt, self.pages.bytes(), set, clear)
    }
}
