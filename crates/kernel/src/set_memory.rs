//! Changes of kernel page permissions: what is asked for, and whose code answers.
//!
//! The implementations are `x86::cpa`, `arm64::pageattr` and `powerpc::pageattr`. From: Linux 5.19
//! and 6.12 include/linux/set_memory.h.

use std::collections::VecDeque;

use textbed_arch::{Arch, CpuId, FRAME_BYTES, Perm, Pfn, SpaceId, VirtAddr};
use textbed_event::Promise;

use crate::call::Args;
use crate::caps::Fact;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{Step, call_step, once, step};
use crate::vfree::direct_map_change;

/// A change of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Ro,
    Rw,
    X,
    Nx,
    Rox,
    /// Not present.
    Np,
    /// The same, but only at this address.
    NpNoalias,
    /// Present again.
    P,
    /// Kept by switches of address spaces.
    Global,
    Nonglobal,
}

impl Change {
    /// Permissions that it grants and takes away.
    pub(crate) fn set_clear(self) -> (Perm, Perm) {
        match self {
            Change::Ro => (Perm::empty(), Perm::WRITE),
            Change::Rw => (Perm::WRITE, Perm::empty()),
            Change::X => (Perm::EXEC, Perm::empty()),
            Change::Nx => (Perm::empty(), Perm::EXEC),
            Change::Rox => (Perm::EXEC, Perm::WRITE),
            // Without PRESENT the global bit would read as PROTNONE on x86: it goes too.
            Change::Np | Change::NpNoalias => (Perm::empty(), Perm::PRESENT | Perm::GLOBAL),
            Change::P => (Perm::PRESENT, Perm::empty()),
            Change::Global => (Perm::GLOBAL, Perm::empty()),
            Change::Nonglobal => (Perm::empty(), Perm::GLOBAL),
        }
    }

    /// What success promises, and what a refusal refuses.
    pub(crate) fn promise(self) -> Promise {
        match self {
            Change::Ro => Promise::NoWrite,
            Change::Rw => Promise::Write,
            Change::X => Promise::Exec,
            Change::Nx => Promise::NoExec,
            Change::Rox => Promise::ReadOnlyExec,
            Change::Np | Change::NpNoalias => Promise::NoAccess,
            Change::P | Change::Global | Change::Nonglobal => Promise::Other,
        }
    }
}

/// `set_memory_ro(addr, numpages)`.
pub(crate) fn ro(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    change(k, cpu, args, Change::Ro)
}

/// `set_memory_rw(addr, numpages)`.
pub(crate) fn rw(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    change(k, cpu, args, Change::Rw)
}

/// `set_memory_x(addr, numpages)`.
pub(crate) fn x(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    change(k, cpu, args, Change::X)
}

/// `set_memory_nx(addr, numpages)`.
pub(crate) fn nx(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    change(k, cpu, args, Change::Nx)
}

/// `set_memory_rox(addr, numpages)`: one pass, or set_memory_ro and then set_memory_x.
pub(crate) fn rox(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    if k.caps.yes(Fact::RoxOnePass) {
        return change(k, cpu, args, Change::Rox);
    }
    let again = args.clone();
    let second = once(move |k, cpu| {
        let error = k.nested_result(cpu).unwrap_or(0);
        k.returns(error);
        if error == 0 {
            k.later([call_step("set_memory_x", again), step(returned)]);
        }
        Ok(())
    });
    k.with_steps(vec![call_step("set_memory_ro", args.clone()), second])
}

/// The call of the step before says what this one returns.
fn returned(k: &mut Kernel, cpu: CpuId) -> Result<(), Stop> {
    let value = k.nested_result(cpu).unwrap_or(0);
    k.returns(value);
    Ok(())
}

/// `set_memory_np(addr, numpages)`.
pub(crate) fn np(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    change(k, cpu, args, Change::Np)
}

/// `set_memory_np_noalias(addr, numpages)` on x86.
pub(crate) fn np_noalias(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    change(k, cpu, args, Change::NpNoalias)
}

/// `set_memory_global(addr, numpages)` on x86.
pub(crate) fn global(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    change(k, cpu, args, Change::Global)
}

/// `set_memory_nonglobal(addr, numpages)` on x86.
pub(crate) fn nonglobal(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    change(k, cpu, args, Change::Nonglobal)
}

/// `set_memory_p(addr, numpages)`.
pub(crate) fn p(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    change(k, cpu, args, Change::P)
}

/// `set_memory_4k(addr, numpages)` on x86.
pub(crate) fn small(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.x86_set_small(cpu, args.addr(0), args.get(1))
}

/// `set_memory_valid(addr, numpages, enable)` on arm64: no check of areas, no alias, no purge.
pub(crate) fn valid(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.arm64_set_valid(args.addr(0), args.get(1), args.get(2) == 1)
}

/// `set_direct_map_valid_noflush(page, nr, valid)`, the first page given by an address that maps
/// it, the others behind it in memory.
pub(crate) fn direct_map_valid(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let first = k
        .page_behind(args.addr(0))
        .ok_or_else(|| Stop::not_modelled("a struct page behind an address that maps none"))?;
    let (frames, pages) = (k.machine.memory_bytes() / FRAME_BYTES, args.get(1));
    let count = pages.saturating_mul(k.pages.frames());
    if first.0.checked_add(count).is_none_or(|end| end > frames) {
        return Err(Stop::not_modelled("frames behind the end of memory"));
    }
    let valid = args.get(2) == 1;
    match k.arch {
        Arch::Arm64 => k.arm64_direct_map_valid(first, pages, valid),
        Arch::X86_64 if pages == 0 => Ok(0),
        Arch::X86_64 => {
            let changed = Box::new(|k: &mut Kernel, _, error| {
                k.returns(error);
                Ok(())
            });
            let change = once(move |k, _| {
                k.x86_set_direct_map(first, pages, valid, changed);
                Ok(())
            });
            k.with_steps(vec![change])
        }
        // Nobody does anything there.
        _ => Ok(0),
    }
}

/// The direct map's pages of frames, up to the first error.
fn direct_map_pages(mut pages: VecDeque<Pfn>, present: bool) -> Step {
    once(move |k, _| {
        let Some(pfn) = pages.pop_front() else { return Ok(()) };
        let changed = move |k: &mut Kernel, _, error| {
            k.returns(error);
            k.later((error == 0).then(|| direct_map_pages(pages, present)));
            Ok(())
        };
        k.later([direct_map_change(pfn, present, Box::new(changed))]);
        Ok(())
    })
}

fn change(k: &mut Kernel, cpu: CpuId, args: &Args, change: Change) -> Result<i64, Stop> {
    let (addr, pages) = (args.addr(0), args.get(1));
    match k.arch {
        Arch::X86_64 => k.x86_set_memory(cpu, addr, pages, change),
        Arch::Arm64 => k.arm64_set_memory(cpu, addr, pages, change),
        _ => k.power_set_memory(cpu, addr, pages, change),
    }
}

/// `set_direct_map_invalid_noflush(page)`, the page given by an address that maps it.
pub(crate) fn direct_map_invalid(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    direct_map(k, args, false)
}

/// `set_direct_map_default_noflush(page)`, the page given by an address that maps it.
pub(crate) fn direct_map_default(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    direct_map(k, args, true)
}

/// `kernel_page_present(page)`, the page given by an address that maps it.
pub(crate) fn kernel_page_present(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let pfn = k
        .page_behind(args.addr(0))
        .ok_or_else(|| Stop::not_modelled("a struct page behind an address that maps none"))?;
    let virt = k.direct_map_of(pfn).filter(|_| !k.arch.is_powerpc());
    Ok(i64::from(virt.is_none_or(|virt| k.machine.lookup(SpaceId::KERNEL, virt).is_some())))
}

fn direct_map(k: &mut Kernel, args: &Args, present: bool) -> Result<i64, Stop> {
    let pfn = k
        .page_behind(args.addr(0))
        .ok_or_else(|| Stop::not_modelled("a struct page behind an address that maps none"))?;
    k.with_steps(vec![direct_map_pages([pfn].into(), present)])
}

impl Kernel {
    /// The first frame of the page behind an address: of an area, of the direct map (whether
    /// present or not), or of whatever else is mapped there.
    pub(crate) fn page_behind(&self, virt: VirtAddr) -> Option<Pfn> {
        let virt = self.pages.start_of(virt);
        if self.layout.direct_map.contains(virt) {
            let offset = virt.0 - self.layout.direct_map.start.0;
            return Some(Pfn(offset / FRAME_BYTES));
        }
        let area = self.areas.find(virt).and_then(|a| a.frame_at(virt));
        area.or_else(|| {
            let mapping = self.machine.lookup(SpaceId::KERNEL, virt)?;
            let offset = virt.0.checked_sub(mapping.virt.0)?;
            Some(mapping.phys.checked_add(offset)?.pfn())
        })
    }
}
