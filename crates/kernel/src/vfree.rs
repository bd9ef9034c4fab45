//! vfree: taking areas down, and the lazy flush of what was taken down.
//!
//! Modelled: entries cleared without a flush, frames freed before any flush unless the area carries
//! VM_FLUSH_RESET_PERMS, the reset of the direct map for those, the purge over all lazily freed
//! areas. From: Linux 5.19 (`__vunmap`) and 6.12 (`vm_reset_perms`) mm/vmalloc.c, which do the
//! same. Not modelled: freeing from interrupts (a work item frees later); the work item that
//! purges when too many pages wait runs at once, on the CPU that frees.

use textbed_arch::{Arch, CpuId, FRAME_BYTES, Pfn, SpaceId, VirtAddr};
use textbed_event::{View, WarnReason};
use textbed_machine::Span;

use crate::area::{Area, vm_flags};
use crate::call::Args;
use crate::error::Stop;
use crate::kernel::Kernel;

/// `vfree(addr)`.
pub(crate) fn vfree(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.vfree(cpu, args.addr(0))?;
    Ok(0)
}

/// `vm_unmap_aliases()`.
pub(crate) fn vm_unmap_aliases_call(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    let waiting = k.areas.lazy().collect();
    k.purge(cpu, None)?;
    k.noted = waiting;
    Ok(0)
}

impl Kernel {
    /// `vfree`: any page-aligned address inside an area frees the whole area.
    pub(crate) fn vfree(&mut self, cpu: CpuId, virt: VirtAddr) -> Result<(), Stop> {
        self.reset_frames.clear();
        if virt.0 == 0 {
            return Ok(());
        }
        if !virt.is_aligned(self.pages.shift()) {
            self.warn(cpu, WarnReason::Unaligned, virt);
            return Ok(());
        }
        let start = self.areas.find(virt).map(|a| a.start);
        if start.is_some_and(|s| self.patch_areas.contains(&s)) {
            return Err(Stop::not_modelled("vfree of the page that a CPU patches through"));
        }
        let Some(area) = start.and_then(|s| self.areas.remove(s)) else {
            self.warn(cpu, WarnReason::NoArea, virt);
            return Ok(());
        };
        self.vunmap_range(cpu, area.start, area.size)?;
        if self.config.on("debug_pagealloc") {
            self.flush_kernel_range(cpu, area.start.0, area.start.0.saturating_add(area.len))?;
        }
        self.emit(
            cpu,
            textbed_event::Flags::default(),
            View::AreaRemoved { virt: area.start, len: area.len },
        );
        self.users.kept_small.retain(|r| !(area.start..VirtAddr(area.end())).contains(&r.start));
        let reset = area.flags & vm_flags::VM_FLUSH_RESET_PERMS != 0;
        if reset {
            self.reset_perms(cpu, &area)?;
        }
        for run in &area.frames {
            self.free_frames(cpu, run.pfn, run.count)?;
        }
        if reset {
            self.reset_frames.clone_from(&area.frames);
        }
        self.drain_if_many(cpu)
    }

    /// `vunmap_range_noflush`, guard page included: an entry that is neither empty nor present is
    /// complained of.
    fn vunmap_range(&mut self, cpu: CpuId, start: VirtAddr, len: u64) -> Result<(), Stop> {
        for span in self.machine.leaves(SpaceId::KERNEL, start, len) {
            match span {
                Span::Mapped(leaf) if leaf.shift == self.pages.shift() && leaf.perm.is_empty() => {
                    self.warn(cpu, WarnReason::OddEntry, leaf.virt);
                }
                // p?d_none_or_clear_bad: no leaf of the area's own.
                Span::Mapped(leaf) if leaf.virt < start || leaf.shift > self.pages.pmd_shift() => {
                    return Err(Stop::not_modelled("page tables that were overwritten"));
                }
                _ => {}
            }
        }
        self.unmapped = true;
        self.unmap_kernel(cpu, start, len)
    }

    /// Above `lazy_max_pages()` a work item flushes what was freed; here it runs at once.
    fn drain_if_many(&mut self, cpu: CpuId) -> Result<(), Stop> {
        let bits = u64::from(16 - self.cpus.leading_zeros());
        let most = bits * (32 << 20);
        if self.areas.lazy_bytes() > most { self.purge(cpu, None) } else { Ok(()) }
    }

    /// `vm_reset_perms`: direct map away, one flush over lazy areas and direct map, direct map
    /// back. Results of the single steps are ignored, as in Linux.
    fn reset_perms(&mut self, cpu: CpuId, area: &Area) -> Result<(), Stop> {
        let addresses = area.frames.iter().filter_map(|run| {
            let start = self.direct_map_of(run.pfn)?.0;
            Some((start, start.saturating_add(run.count * FRAME_BYTES)))
        });
        let extent = addresses.fold(None, |extent: Option<(u64, u64)>, (start, end)| {
            Some(extent.map_or((start, end), |(s, e)| (s.min(start), e.max(end))))
        });
        let pages: Vec<Pfn> = self.pages_of(&area.frames).collect();
        for pfn in &pages {
            self.set_direct_map(cpu, *pfn, false)?;
        }
        self.purge(cpu, extent)?;
        for pfn in &pages {
            self.set_direct_map(cpu, *pfn, true)?;
        }
        Ok(())
    }

    /// `_vm_unmap_aliases`: flushes all lazily freed areas, and `extra` with them, by one range;
    /// without either it does nothing but take its lock.
    pub(crate) fn purge(&mut self, cpu: CpuId, extra: Option<(u64, u64)>) -> Result<(), Stop> {
        self.purge_lazy(cpu, extra, false)
    }

    /// `reclaim_and_purge_vmap_areas`: the same, and nothing is kept in pools.
    pub(crate) fn purge_all(&mut self, cpu: CpuId) -> Result<(), Stop> {
        self.purge_lazy(cpu, None, true)
    }

    fn purge_lazy(
        &mut self,
        cpu: CpuId,
        extra: Option<(u64, u64)>,
        everything: bool,
    ) -> Result<(), Stop> {
        self.lock(cpu, "vmap_purge_lock")?;
        let range = match (self.areas.lazy_extent(), extra) {
            (Some((s, e)), Some((xs, xe))) => Some((s.min(xs), e.max(xe))),
            (one, other) => one.or(other),
        };
        if let Some((start, end)) = range {
            self.flush_kernel_range(cpu, start, end)?;
        }
        self.areas.purge(everything, self.pages.bytes());
        self.unlock(cpu, "vmap_purge_lock")
    }

    /// `set_direct_map_{invalid,default}_noflush` of one frame: 0, or what went wrong.
    pub(crate) fn set_direct_map(
        &mut self,
        cpu: CpuId,
        pfn: Pfn,
        present: bool,
    ) -> Result<i64, Stop> {
        match self.arch {
            Arch::X86_64 => self.x86_set_direct_map(cpu, pfn, present),
            Arch::Arm64 => self.arm64_set_direct_map(cpu, pfn, present),
            _ => Ok(0),
        }
    }
}
