//! Single entries of page tables, stored by hand: what code that manages mappings itself does
//! (fixed maps, patchers, drivers, and bugs in these).
//!
//! Modelled: one small page of the vmalloc and module ranges or the direct map, or below the
//! kernel's half in the address space that the CPU has loaded (as patchers have their alias there);
//! its frame named by any address of an area that owns it, on arm64 with the contiguous bit or
//! uncached if asked for; the barriers that each architecture puts behind a new valid kernel entry
//! (arm64 `dsb ishst; isb` unless the caller defers them), and none behind a cleared one. powerpc
//! puts none behind either: its `ptesync` is in `__map_kernel_page()` and `flush_cache_vmap()`, the
//! caller's affair. From: Linux 6.12 arch/arm64/include/asm/pgtable.h,
//! arch/powerpc/include/asm/book3s/64/radix.h, arch/x86/include/asm/pgtable_64.h. Not modelled:
//! entries that grant a process anything (below the kernel's half, too, they are the kernel's),
//! such entries in hashed tables, large leaves, page-table checks, deferred barriers as a mode of a
//! task (arm64, 6.16 on).

use textbed_arch::paging::Attributes;
use textbed_arch::{Arch, CpuId, Perm, PhysAddr, SpaceId, VirtAddr};

use crate::call::Args;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::powerpc::PowerMmu;
use crate::vmalloc::entry_of;

/// `set_pte(addr, page, prot)`.
pub(crate) fn set_pte(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.store_entry(cpu, args)?;
    if k.arch == Arch::Arm64 {
        k.after_new_mapping(cpu)?;
    }
    Ok(0)
}

/// `__set_pte_nosync(addr, page, prot)`.
pub(crate) fn set_pte_nosync(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.store_entry(cpu, args)?;
    Ok(0)
}

/// `pte_clear(addr)`.
pub(crate) fn pte_clear(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (space, virt) = k.small_page(cpu, args.addr(0))?;
    if space != SpaceId::KERNEL {
        k.machine.unmap(cpu, space, virt, k.pages.bytes())?;
        return Ok(0);
    }
    k.unmapped = true;
    k.unmap_kernel(cpu, virt, k.pages.bytes())?;
    Ok(0)
}

impl Kernel {
    /// An address that no large leaf maps, rounded to its page, and the space that it belongs to:
    /// of a vmalloc or module range or the direct map, or of the space that the CPU has loaded.
    fn small_page(&self, cpu: CpuId, addr: VirtAddr) -> Result<(SpaceId, VirtAddr), Stop> {
        let virt = self.pages.start_of(addr);
        let lower = !self.arch.is_kernel_address(virt);
        let space = if lower { self.loaded_space(cpu)? } else { SpaceId::KERNEL };
        if !lower
            && !self.layout.is_vmalloc_or_module(virt)
            && !self.layout.direct_map.contains(virt)
        {
            let what = "kernel entries outside the vmalloc and module ranges and the direct map";
            return Err(Stop::not_modelled(what));
        }
        match self.machine.lookup(space, virt) {
            Some(leaf) if leaf.shift != self.pages.shift() => {
                Err(Stop::not_modelled("a single entry inside a large leaf"))
            }
            _ => Ok((space, virt)),
        }
    }

    /// The address space that a CPU has loaded, if it is not the kernel's own.
    pub(crate) fn loaded_space(&self, cpu: CpuId) -> Result<SpaceId, Stop> {
        let walked = !self.arch.is_powerpc() || self.power_mmu() == Some(PowerMmu::Radix);
        let space = self.machine.space_of(cpu);
        if space == SpaceId::KERNEL || !walked {
            return Err(Stop::not_modelled("a process's addresses where only the kernel's are"));
        }
        Ok(space)
    }

    /// The frame that an area has at an address, mapped there or not.
    fn frame_behind(&self, addr: VirtAddr) -> Result<PhysAddr, Stop> {
        let page = self.pages.start_of(addr);
        let owned = self.areas.find(page).and_then(|a| a.frame_at(page)).map(|pfn| pfn.addr());
        owned.ok_or_else(|| Stop::not_modelled("the frame of an address that no area owns"))
    }

    /// Stores a valid entry, over an old one or where none was.
    fn store_entry(&mut self, cpu: CpuId, args: &Args) -> Result<(), Stop> {
        let (space, virt) = self.small_page(cpu, args.addr(0))?;
        let (page, shift) = (self.pages.bytes(), self.pages.shift());
        let phys = self.frame_behind(args.addr(1))?;
        let mut entry = entry_of(args.get(2)).ok_or_else(|| {
            Stop::not_modelled("a protection that is not exactly one of the named")
        })?;
        if entry.1 != Attributes::default() && self.arch != Arch::Arm64 {
            return Err(Stop::not_modelled("a protection of arm64 elsewhere"));
        }
        if space != SpaceId::KERNEL {
            // As x86's patcher has it: a flush of the space has to find it.
            entry.0.remove(Perm::GLOBAL);
        }
        if self.machine.lookup(space, virt).is_some() {
            self.machine.replace_as(cpu, space, (virt, phys), shift, entry)?;
        } else {
            self.machine.map_as(cpu, space, (virt, phys, page), shift, entry)?;
        }
        Ok(())
    }
}
