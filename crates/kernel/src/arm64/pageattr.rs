//! arm64 page attributes.
//!
//! Modelled: the checks of change_memory_common in order, the direct map of the whole area first
//! (with rodata=full), the purge, the range itself, one flush, others let in behind each entry's
//! change and behind the flush. From: Linux 5.19, 6.1, 6.6, 6.12, 6.18.2 and 7.0
//! arch/arm64/mm/pageattr.c. Not modelled: the entry behind the end of the array of pages that 6.19
//! and later read for a guard page (said by name), the GP bit (BTI). How entries change is in
//! `range`, how 6.18 splits blocks first in `split`.

use std::collections::VecDeque;

use textbed_arch::{CpuId, Perm, Pfn, VirtAddr};
use textbed_event::{Flags, RefusalReason, WarnReason};

use crate::area::{Frames, vm_flags};
use crate::arm64::range::Bits;
use crate::caps::Fact;
use crate::errno::{EINVAL, ENOMEM};
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::set_memory::Change;
use crate::steps::{Step, Then, once};
use crate::vfree::purge_steps;

/// The direct map's pages, each with a flush of its own; `behind` gets the first error, if any.
fn alias_step(mut pages: VecDeque<VirtAddr>, bits: Bits, first: i64, behind: Then<i64>) -> Step {
    once(move |k, cpu| {
        let Some(start) = pages.pop_front() else { return behind(k, cpu, first) };
        let rest = Box::new(move |k: &mut Kernel, _, error| {
            let first = if first == 0 { error } else { first };
            k.later([alias_step(pages, bits, first, behind)]);
            Ok(())
        });
        k.later([Bits { start, ..bits }.step(true, rest)]);
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
        if self.rodata_full() && writes {
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
        let own = Bits { start, bytes, set, clear };
        let changed = Box::new(move |k: &mut Kernel, cpu, error| {
            if error == -ENOMEM {
                k.refuse(cpu, Flags::default(), what, RefusalReason::NoMemory, start, bytes);
            } else if error != 0 {
                let flags = k.flags_of(&[Fact::HugeRefusal]);
                k.refuse(cpu, flags, what, RefusalReason::HugeMapping, start, bytes);
            }
            k.returns(error);
            Ok(())
        });
        let aliases = Bits { bytes: self.pages.bytes(), ..own };
        let behind = Box::new(move |k: &mut Kernel, _, error| {
            if error != 0 && k.caps.yes(Fact::AliasErrorChecked) {
                k.returns(error);
            } else {
                k.later(purge_steps(None, false));
                k.later([own.step(true, changed)]);
            }
            Ok(())
        });
        self.with_steps(vec![alias_step(pages, aliases, 0, behind)])
    }

    /// Frames behind pages of an area; pages without a frame are left out.
    fn frames_of_range(&self, start: VirtAddr, pages: u64) -> Vec<Frames> {
        let area = self.areas.find(start);
        let (bytes, count) = (self.pages.bytes(), self.pages.frames());
        let frame = |page: u64| area.and_then(|a| a.frame_at(start.offset(page * bytes)));
        (0..pages).filter_map(frame).map(|pfn| Frames { pfn, count }).collect()
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
        let returned = |k: &mut Kernel, _, error| {
            k.returns(error);
            Ok(())
        };
        Bits { start, bytes, set, clear }.step(flushed, Box::new(returned))
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
    /// mapped by pages. `then` gets 0 or an error.
    pub(crate) fn arm64_set_direct_map(&mut self, pfn: Pfn, present: bool, then: Then<i64>) {
        let virt = self.direct_map_of(pfn).filter(|_| self.can_set_direct_map());
        let Some(start) = virt else { return self.later([once(move |k, cpu| then(k, cpu, 0))]) };
        let (set, clear) = if present {
            (Perm::PRESENT | Perm::WRITE, Perm::empty())
        } else {
            (Perm::empty(), Perm::PRESENT)
        };
        let bits = Bits { start, bytes: self.pages.bytes(), set, clear };
        self.later([bits.update(then)]);
    }
}
