//! x86: other types of memory for pages that are in use.
//!
//! Modelled: the type is reserved first, for the address that `__pa()` makes of what was given;
//! then entries get the type's bits, write-combining by way of uncached, and give the reservation
//! back if that fails; going back to write-back clears all bits, and then frees. What the walk does
//! (`walk`, `cpa`): aliases, splits, the flush, behind which what was cached goes out line by line,
//! but not on the way back to write-back. Pages by their structs: the direct map's address of each,
//! page by page, so that a large leaf never changes whole. From: Linux 5.19, 6.1, 6.6, 6.12, 6.18.2
//! and 7.0 arch/x86/mm/pat/set_memory.c set_memory_uc(), _set_memory_wc(), set_memory_wb(),
//! _set_pages_array(), set_pages_array_wb(), cpa_flush(). Not modelled: what caches hold (a line
//! that is flushed has no effect), `_set_memory_wt()` (`ioremap()`'s alone).

use textbed_arch::{CpuId, FRAME_BYTES, VirtAddr};

use crate::call::Args;
use crate::errno::EINVAL;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{Step, Then, once, pause};
use crate::x86::memtype::CacheMode;
use crate::x86::walk::{Cpa, Outcome, Pages};

/// All bits of the index into the PAT (`_PAGE_CACHE_MASK`).
const ALL_BITS: u8 = 7;

/// `set_memory_uc(addr, numpages)`.
pub(crate) fn set_memory_uc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.reserved_range(args.addr(0), args.get(1), CacheMode::UcMinus)
}

/// `set_memory_wc(addr, numpages)`.
pub(crate) fn set_memory_wc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.reserved_range(args.addr(0), args.get(1), CacheMode::Wc)
}

/// `set_memory_wb(addr, numpages)`.
pub(crate) fn set_memory_wb(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.write_back_range(cpu, args.addr(0), args.get(1))
}

/// `set_pages_uc(page, numpages)`, the page given by an address that maps it.
pub(crate) fn set_pages_uc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let at = k.page_address_of(args.addr(0))?;
    k.reserved_range(at, args.get(1), CacheMode::UcMinus)
}

/// `set_pages_wb(page, numpages)`, the page given by an address that maps it.
pub(crate) fn set_pages_wb(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let at = k.page_address_of(args.addr(0))?;
    k.write_back_range(cpu, at, args.get(1))
}

/// `set_pages_array_uc(pages, numpages)`, the pages given by addresses that map them, one after the
/// other.
pub(crate) fn set_pages_array_uc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.reserved_pages(args, CacheMode::UcMinus)
}

/// `set_pages_array_wc(pages, numpages)`.
pub(crate) fn set_pages_array_wc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.reserved_pages(args, CacheMode::Wc)
}

/// `set_pages_array_wb(pages, numpages)`.
pub(crate) fn set_pages_array_wb(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let pages = k.page_addresses(args.addr(0), args.get(1))?;
    let ranges = k.ranges_of(&pages);
    let freed = move |k: &mut Kernel, _, Outcome { error, .. }| {
        k.returns(error);
        if error == 0 {
            ranges.into_iter().try_for_each(|range| k.memtype_free(range))?;
        }
        Ok(())
    };
    k.with_steps(vec![Cpa::caching(0, ALL_BITS).steps(Pages::Array(pages), Box::new(freed))])
}

/// Bits of a type go in, write-combining behind those of uncached; `then` gets 0 or an error.
fn mode_steps(pages: Pages, mode: CacheMode, then: Then<i64>) -> Step {
    let uncached = Cpa::caching(CacheMode::UcMinus.pat_bits(), 0);
    let again = pages.clone();
    let changed = move |k: &mut Kernel, cpu, Outcome { error, .. }| {
        if error != 0 || mode == CacheMode::UcMinus {
            return then(k, cpu, error);
        }
        let combining = Cpa::caching(mode.pat_bits(), ALL_BITS);
        let changed = move |k: &mut Kernel, cpu, outcome: Outcome| then(k, cpu, outcome.error);
        k.later([pause(), combining.steps(again, Box::new(changed))]);
        Ok(())
    };
    uncached.steps(pages, Box::new(changed))
}

impl Kernel {
    /// A type for a range: reserved, then set.
    fn reserved_range(&mut self, addr: VirtAddr, pages: u64, mode: CacheMode) -> Result<i64, Stop> {
        self.canonical_pages(addr, pages)?;
        let range = (self.x86_pa(addr), pages.saturating_mul(FRAME_BYTES));
        let reserve = once(move |k: &mut Kernel, cpu| {
            let error = k.memtype_reserve(cpu, range, mode)?;
            if error != 0 {
                k.returns(error);
                return Ok(());
            }
            let done = move |k: &mut Kernel, _, error| {
                k.returns(error);
                if error != 0 { k.memtype_free(range) } else { Ok(()) }
            };
            let pages = Pages::Range(k.whole_pages(cpu, addr), pages);
            k.later([pause(), mode_steps(pages, mode, Box::new(done))]);
            Ok(())
        });
        self.with_steps(vec![reserve])
    }

    /// A range that is write-back again.
    fn write_back_range(&mut self, cpu: CpuId, addr: VirtAddr, pages: u64) -> Result<i64, Stop> {
        self.canonical_pages(addr, pages)?;
        let range = (self.x86_pa(addr), pages.saturating_mul(FRAME_BYTES));
        let done = move |k: &mut Kernel, _, Outcome { error, .. }| {
            k.returns(error);
            if error == 0 { k.memtype_free(range) } else { Ok(()) }
        };
        let pages = Pages::Range(self.whole_pages(cpu, addr), pages);
        self.with_steps(vec![Cpa::caching(0, ALL_BITS).steps(pages, Box::new(done))])
    }

    /// A type for pages: each reserved, then all set; whatever goes wrong is -EINVAL.
    fn reserved_pages(&mut self, args: &Args, mode: CacheMode) -> Result<i64, Stop> {
        let pages = self.page_addresses(args.addr(0), args.get(1))?;
        let ranges = self.ranges_of(&pages);
        let reserve = once(move |k: &mut Kernel, cpu| {
            for (n, range) in ranges.iter().enumerate() {
                if k.memtype_reserve(cpu, *range, mode)? != 0 {
                    k.returns(-EINVAL);
                    return ranges.iter().take(n).try_for_each(|range| k.memtype_free(*range));
                }
            }
            let done = move |k: &mut Kernel, _, error| {
                if error == 0 {
                    return Ok(());
                }
                k.returns(-EINVAL);
                ranges.into_iter().try_for_each(|range| k.memtype_free(range))
            };
            k.later([pause(), mode_steps(Pages::Array(pages), mode, Box::new(done))]);
            Ok(())
        });
        self.with_steps(vec![reserve])
    }

    /// `page_address` of the page behind an address.
    fn page_address_of(&self, addr: VirtAddr) -> Result<VirtAddr, Stop> {
        let page = self.page_behind(addr).and_then(|pfn| self.direct_map_of(pfn));
        page.ok_or_else(|| Stop::not_modelled("a struct page behind an address that maps none"))
    }

    /// The same of pages one behind the other.
    fn page_addresses(&self, addr: VirtAddr, pages: u64) -> Result<Vec<VirtAddr>, Stop> {
        let at = |n: u64| VirtAddr(addr.0.saturating_add(n.saturating_mul(FRAME_BYTES)));
        (0..pages).map(|n| self.page_address_of(at(n))).collect()
    }

    /// The frames of pages of the direct map, as physical ranges.
    fn ranges_of(&self, pages: &[VirtAddr]) -> Vec<(u64, u64)> {
        pages.iter().map(|at| (self.x86_pa(*at), FRAME_BYTES)).collect()
    }

    /// Refuses what is no range of canonical addresses.
    pub(super) fn canonical_pages(&self, addr: VirtAddr, pages: u64) -> Result<(), Stop> {
        let len = pages.saturating_mul(FRAME_BYTES);
        let last = VirtAddr(addr.0.saturating_add(len.saturating_sub(1)));
        let format = self.machine.format();
        if format.is_canonical(addr) && format.is_canonical(last) {
            return Ok(());
        }
        Err(Stop::not_modelled("page attributes of non-canonical addresses"))
    }
}
