//! powerpc page attributes.
//!
//! Modelled: the checks of change_memory_attr in order, page by page changes with a full flush of
//! the kernel's PID each (others let in before and behind it), holes skipped in silence, large
//! leaves refused with a WARN; with hashed tables entries that were made flushed in batches, and
//! whatever is not vmalloc's refused. On 32-bit each page is flushed by itself, and what blocks map
//! has no leaf: it is skipped silently. From: Linux 5.19, 6.8, 6.12 and 7.0
//! arch/powerpc/mm/pageattr.c. Not modelled: the dirty bit, the IO region, batches that end with a
//! page of the tables, larger pages of 8xx. The direct map is never touched, and nothing is purged.

use textbed_arch::{Arch, CpuId, Perm, SpaceId, VirtAddr};
use textbed_event::{Flags, Promise, RefusalReason, WarnReason};
use textbed_machine::Span;

use crate::errno::EINVAL;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::powerpc::PowerMmu;
use crate::set_memory::Change;
use crate::steps::{Step, flush_step, once, pause};

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
        let change = Walk { what, set, clear, start, end: VirtAddr(end) };
        if self.power_mmu() == Some(PowerMmu::Hash64) {
            let made = self.hash_made(start, bytes);
            let mut result = Turned::Changed(start);
            while let Turned::Changed(next) = result {
                result = change.turn(self, cpu, next)?;
            }
            if let Turned::Refused = result {
                return Ok(-EINVAL);
            }
            // Leaves are changed in lazy mode: their entries go together at its end.
            let flush = once(move |k, cpu| k.hash_flush(cpu, &made, true));
            return self.with_steps(vec![pause(), flush]);
        }
        self.with_steps(vec![change.step(start)])
    }
}

/// A change of a range, page by page.
#[derive(Clone, Copy)]
struct Walk {
    what: Promise,
    set: Perm,
    clear: Perm,
    start: VirtAddr,
    end: VirtAddr,
}

/// What one turn of it did.
enum Turned {
    /// One page; the next is not before this.
    Changed(VirtAddr),
    Refused,
    Ended,
}

impl Walk {
    /// The first page from an address on.
    fn turn(self, k: &mut Kernel, cpu: CpuId, from: VirtAddr) -> Result<Turned, Stop> {
        let left = self.end.0 - from.0;
        let mapped = |len: u64| {
            let mut leaves = k.machine.leaves(SpaceId::KERNEL, from, len);
            leaves.find_map(|span| match span {
                Span::Mapped(leaf) => Some(leaf),
                Span::Gap { .. } => None,
            })
        };
        // Most often the very next page.
        let near = mapped(left.min(k.pages.bytes()));
        let Some(leaf) = near.or_else(|| mapped(left)) else { return Ok(Turned::Ended) };
        if leaf.shift > k.pages.shift() {
            let at = leaf.virt.max(self.start);
            k.warn_once(cpu, "mm: leaf in the walk", WarnReason::HugeMapping, at);
            let (reason, len) = (RefusalReason::HugeMapping, self.end.0 - at.0);
            k.refuse(cpu, Flags::default(), self.what, reason, at, len);
            return Ok(Turned::Refused);
        }
        let bytes = k.pages.bytes();
        k.machine.protect(cpu, SpaceId::KERNEL, leaf.virt, bytes, self.set, self.clear)?;
        Ok(Turned::Changed(leaf.virt.offset(bytes)))
    }

    /// Pages from an address on, each with its flush, others let in before and behind that.
    fn step(self, from: VirtAddr) -> Step {
        once(move |k, cpu| {
            match self.turn(k, cpu, from)? {
                Turned::Changed(next) => {
                    let flush = flush_step(move |k, cpu| {
                        if k.power_mmu() == Some(PowerMmu::Radix) {
                            k.machine.op_named(cpu, "ptesync", 0)?;
                        }
                        k.power_flush_kernel(cpu, next.0 - k.pages.bytes(), next.0)
                    });
                    k.later([pause(), flush, self.step(next)]);
                }
                Turned::Refused => k.returns(-EINVAL),
                Turned::Ended => {}
            }
            Ok(())
        })
    }
}
