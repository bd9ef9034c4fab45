//! powerpc page attributes.
//!
//! Modelled: the checks of change_memory_attr in order, page by page changes with a full flush of
//! the kernel's PID each, holes skipped in silence, large leaves refused with a WARN; with hashed
//! tables entries that were made flushed in batches, and whatever is not vmalloc's refused. On
//! 32-bit each page is flushed by itself, and what blocks map has no leaf: it is skipped silently.
//! From: Linux 5.19, 6.8, 6.12 and 7.0 arch/powerpc/mm/pageattr.c. Not modelled: the dirty bit, the
//! IO region, batches that end with a page of the tables, larger pages of 8xx. The direct map is
//! never touched, and nothing is purged.

use textbed_arch::{Arch, CpuId, SpaceId, VirtAddr};
use textbed_event::{Flags, RefusalReason, WarnReason};
use textbed_machine::Span;

use crate::errno::EINVAL;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::powerpc::PowerMmu;
use crate::set_memory::Change;

impl Kernel {
    /// `set_memory_*` on powerpc.
    pub(crate) fn power_set_memory(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        pages: u64,
        change: Change,
    ) -> Result<i64, Stop> {
        if pages == 0 {
            return Ok(0);
        }
        let start = self.pages.start_of(addr);
        let bytes = self.pages.in_bytes(pages);
        let what = change.promise();
        let no_flags = Flags::default();
        let vmalloc = self.layout.is_vmalloc_or_module(start);
        if vmalloc && self.is_vm_area_hugepages(start)? {
            self.warn_once(cpu, "pageattr: huge area", WarnReason::HugeMapping, addr);
            self.refuse(cpu, no_flags, what, RefusalReason::HugeMapping, start, bytes);
            return Ok(-EINVAL);
        }
        let Some(end) = start.0.checked_add(bytes) else {
            self.warn_once(cpu, "mm: start >= end", WarnReason::BadArgument, addr);
            self.refuse(cpu, no_flags, what, RefusalReason::Other, start, bytes);
            return Ok(-EINVAL);
        };
        // Linux takes the table index from the low bits alone: other quadrants would alias the
        // kernel's tables. On 32-bit the size of a range wraps.
        let kernels = if self.arch == Arch::Ppc32 {
            self.arch.is_kernel_address(start)
        } else {
            start.0 >> 60 == 0xc
        };
        if !kernels || !self.machine.format().is_canonical(VirtAddr(end - 1)) {
            return Err(Stop::not_modelled("page attributes outside the kernel's quadrant"));
        }
        if self.power_mmu() == Some(PowerMmu::Soft8xx) && self.layout.direct_map.contains(start) {
            return Err(Stop::not_modelled("permissions of 8xx's larger pages"));
        }
        if self.power_mmu() == Some(PowerMmu::Hash64) && !self.layout.vmalloc.contains(start) {
            self.warn_once(cpu, "pageattr: region", WarnReason::BadArgument, addr);
            self.refuse(cpu, no_flags, what, RefusalReason::NotAnArea, start, bytes);
            return Ok(-EINVAL);
        }
        let (set, clear) = change.set_clear();
        let made = self.hash_made(start, bytes);
        for span in self.machine.leaves(SpaceId::KERNEL, start, bytes) {
            let Span::Mapped(leaf) = span else { continue };
            if leaf.shift > self.pages.shift() {
                let at = leaf.virt.max(start);
                self.warn_once(cpu, "mm: leaf in the walk", WarnReason::HugeMapping, at);
                self.refuse(cpu, no_flags, what, RefusalReason::HugeMapping, at, end - at.0);
                return Ok(-EINVAL);
            }
            let at = leaf.virt;
            self.machine.protect(cpu, SpaceId::KERNEL, at, self.pages.bytes(), set, clear)?;
            if self.power_mmu() == Some(PowerMmu::Radix) {
                self.machine.op_named(cpu, "ptesync", 0)?;
            }
            self.power_flush_kernel(cpu, at.0, at.0 + self.pages.bytes())?;
        }
        // Leaves are changed in lazy mode: their entries go together at its end.
        self.hash_flush(cpu, &made, true)?;
        Ok(0)
    }
}
