//! vmalloc: making areas.
//!
//! Modelled: size and alignment checks, choice of leaf size by version, architecture and flags,
//! lowest fit, guard page, frames and mapping, the retry by small pages. From: Linux 5.19 and 6.12
//! mm/vmalloc.c, arch/*/include/asm/vmalloc.h, 6.18.2 arch/arm64/include/asm/vmalloc.h (areas by
//! groups of pages with the contiguous bit). Not modelled: allocation flags, KASAN, retries with
//! sleep, MTRR refusals, kmemleak, leaves above a PMD's (vmalloc never chooses them).

use textbed_arch::paging::{Attributes, MemoryType};
use textbed_arch::{Arch, CpuId, FRAME_BYTES, FRAME_SHIFT, Features, Perm, SpaceId, VirtAddr};
use textbed_event::{View, WarnReason};
use textbed_machine::MapError;

use crate::area::{Area, Frames, vm_flags};
use crate::call::Args;
use crate::call_table::PROTS;
use crate::caps::Fact;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::layout::Range;
use crate::powerpc::PowerMmu;

/// From this size on 8xx has pages of 16 and 512 KiB for it (`arch_vmap_pte_supported_shift`).
const MPC8XX_LARGER_BYTES: u64 = 16 << 10;
/// Most nodes of vmalloc (6.9 on), one for each CPU.
const MOST_NODES: u16 = 128;

/// What an area is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub size: u64,
    pub align: u64,
    pub range: Range,
    pub perm: Perm,
    pub flags: u64,
}

/// `vmalloc(size)`.
pub(crate) fn vmalloc(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    plain(k, cpu, args.get(0), 0)
}

/// `vmalloc_huge(size)`.
pub(crate) fn vmalloc_huge(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    plain(k, cpu, args.get(0), vm_flags::VM_ALLOW_HUGE_VMAP)
}

/// `vmalloc_no_huge(size)`.
pub(crate) fn vmalloc_no_huge(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    plain(k, cpu, args.get(0), vm_flags::VM_NO_HUGE_VMAP)
}

fn plain(k: &mut Kernel, cpu: CpuId, size: u64, flags: u64) -> Result<i64, Stop> {
    let range = k.layout.vmalloc;
    k.vmalloc_range(cpu, Request { size, align: 1, range, perm: Perm::KERNEL_RW, flags })
}

/// `__vmalloc_node_range(size, align, start, end, prot, vm_flags)`.
pub(crate) fn vmalloc_node_range(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let range = Range::between(args.get(2), args.get(3));
    let inside = |r: Range| r.start <= range.start && range.end() <= r.end();
    if range.len > 0 && !inside(k.layout.vmalloc) && !inside(k.layout.modules) {
        return Err(Stop::not_modelled("areas outside the vmalloc and module ranges"));
    }
    let perm = perm_of(args.get(4))
        .ok_or_else(|| Stop::not_modelled("a protection that is not exactly one of the named"))?;
    let align = args.get(1).max(1);
    if !align.is_power_of_two() {
        return Err(Stop::not_modelled("an alignment that is no power of two"));
    }
    k.vmalloc_range(cpu, Request { size: args.get(0), align, range, perm, flags: args.get(5) })
}

/// The permission behind one name of [`PROTS`]; no name is `PAGE_KERNEL`.
pub(crate) fn perm_of(mask: u64) -> Option<Perm> {
    let names: Vec<&str> = PROTS.iter().filter(|(_, b)| mask & b != 0).map(|(n, _)| *n).collect();
    match names.as_slice() {
        [] | ["PAGE_KERNEL"] => Some(Perm::KERNEL_RW),
        ["PAGE_KERNEL_RO"] => Some(Perm::KERNEL_RO),
        ["PAGE_KERNEL_ROX"] => Some(Perm::KERNEL_ROX),
        ["PAGE_KERNEL_EXEC"] => Some(Perm::KERNEL_RWX),
        _ => None,
    }
}

/// What [`PROTS`] say of one entry: a permission by its name, or of memory of another type, with
/// arm64's contiguous bit or without.
pub(crate) fn entry_of(mask: u64) -> Option<(Perm, Attributes)> {
    let bit = |name: &str| PROTS.iter().find(|(n, _)| *n == name).map_or(0, |(_, bit)| *bit);
    let contiguous = mask & bit("PTE_CONT") != 0;
    let rest = mask & !bit("PTE_CONT");
    let (perm, memory) = if rest == bit("PROT_NORMAL_NC") {
        (Perm::KERNEL_RW, MemoryType::NonCacheable)
    } else {
        (perm_of(rest)?, MemoryType::default())
    };
    Some((perm, Attributes { contiguous, memory }))
}

/// `set_vm_flush_reset_perms(addr)`.
pub(crate) fn set_vm_flush_reset_perms(
    k: &mut Kernel,
    _cpu: CpuId,
    args: &Args,
) -> Result<i64, Stop> {
    if let Some(area) = k.areas.find_mut(args.addr(0)) {
        area.flags |= vm_flags::VM_FLUSH_RESET_PERMS;
    }
    Ok(0)
}

/// `is_vm_area_hugepages(addr)`: without a check for an area that is not there, as in Linux.
pub(crate) fn is_vm_area_hugepages(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.is_vm_area_hugepages(args.addr(0)).map(i64::from)
}

/// `vmalloc_exec(size)` as it was until 5.7 and as it was proposed again in 2023: writable and
/// executable at once.
pub(crate) fn vmalloc_exec(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (size, range) = (args.get(0), k.layout.vmalloc);
    let flags = vm_flags::VM_FLUSH_RESET_PERMS;
    k.vmalloc_range(cpu, Request { size, align: 1, range, perm: Perm::KERNEL_RWX, flags })
}

/// `vmap(pages, count)`, the pages given by an address that maps the first of them, the others
/// behind it.
pub(crate) fn vmap(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (page, shift) = (k.pages.bytes(), k.pages.shift());
    let (from, count) = (k.pages.start_of(args.addr(0)), args.get(1));
    if count > k.machine.memory_bytes() / page {
        return Ok(0);
    }
    let len = count * page;
    let mut pages = Vec::new();
    for n in 0..count {
        let at = from.0.checked_add(n * page).map(VirtAddr);
        match at.and_then(|at| k.page_behind(at)) {
            Some(pfn) => pages.push(pfn),
            None => return Err(Stop::not_modelled("a struct page behind an address without one")),
        }
    }
    if count == 0 {
        return Ok(0);
    }
    let size = len + page;
    let place = k.place_for(cpu, k.layout.vmalloc, size, page)?;
    let Some((start, node)) = place else { return Ok(0) };
    if k.allocation_fails() {
        return Ok(0);
    }
    let (flags, page_order, frames) = (vm_flags::VM_MAP, 0, Vec::new());
    k.areas.insert(Area { start, size, len, flags, page_order, frames, node });
    if k.allocation_fails() {
        k.undo_area(cpu, start, start)?;
        return Ok(0);
    }
    for (n, pfn) in pages.iter().enumerate() {
        let at = start.offset(n as u64 * page);
        let (space, perm) = (SpaceId::KERNEL, Perm::KERNEL_RW);
        match k.machine.map(cpu, space, at, pfn.addr(), page, shift, perm) {
            Ok(()) => {}
            Err(MapError::OutOfMemory) => {
                k.undo_area(cpu, start, at)?;
                return Ok(0);
            }
            Err(other) => return Err(other.into()),
        }
    }
    k.after_new_mapping(cpu)?;
    let shift = u8::try_from(shift).unwrap_or(u8::MAX);
    k.emit(cpu, textbed_event::Flags::default(), View::AreaMade { virt: start, len, shift });
    Ok(start.0 as i64)
}

impl Kernel {
    /// Whether the area of an address was allocated by huge pages. An address without area is
    /// dereferenced as NULL where huge vmalloc is configured.
    pub(crate) fn is_vm_area_hugepages(&self, virt: VirtAddr) -> Result<bool, Stop> {
        if !self.caps.yes(Fact::HugeVmalloc) {
            return Ok(false);
        }
        match self.areas.find(virt) {
            Some(area) => Ok(area.page_order > 0),
            None => Err(Stop::died("NULL dereference in is_vm_area_hugepages", virt)),
        }
    }

    /// `__vmalloc_node_range`: a pointer, or 0.
    pub(crate) fn vmalloc_range(&mut self, cpu: CpuId, request: Request) -> Result<i64, Stop> {
        let pages = self.pages.holding(request.size);
        if request.size == 0 {
            self.warn_once(cpu, "vmalloc: size 0", WarnReason::BadArgument, VirtAddr(0));
            return Ok(0);
        }
        if pages > self.machine.memory_bytes() / self.pages.bytes() {
            self.warn(cpu, WarnReason::BadArgument, VirtAddr(0));
            return Ok(0);
        }
        let mut shift = self.vmap_shift(&request)?;
        loop {
            let align = request.align.max(1 << shift);
            let Some(size) = request.size.checked_next_multiple_of(1 << shift) else {
                return Ok(0);
            };
            if let Some(start) = self.make_area(cpu, &request, size, align, shift)? {
                return Ok(start.0 as i64);
            }
            if shift == self.pages.shift() {
                self.warn(cpu, WarnReason::Other, VirtAddr(0));
                return Ok(0);
            }
            shift = self.pages.shift();
        }
    }

    /// `log2` of the leaves that an allocation aims at.
    fn vmap_shift(&self, request: &Request) -> Result<u32, Stop> {
        let asked = if self.caps.yes(Fact::HugeVmallocOptOut) {
            request.flags & vm_flags::VM_NO_HUGE_VMAP == 0
        } else {
            request.flags & vm_flags::VM_ALLOW_HUGE_VMAP != 0
        };
        let supported = match self.arch {
            Arch::X86_64 => self.features.contains(Features::X86_PSE),
            Arch::Arm64 => true,
            _ => self.features.contains(Features::PPC_RADIX),
        };
        let allowed = self.caps.yes(Fact::HugeVmalloc) && !self.config.on("nohugevmalloc");
        let nodes = self.config.count("nr_nodes").max(1);
        let share =
            if self.caps.yes(Fact::SizePerNode) { request.size / nodes } else { request.size };
        let larger =
            self.power_mmu() == Some(PowerMmu::Soft8xx) && !self.config.on("nohugevmalloc");
        if larger && asked && request.size >= MPC8XX_LARGER_BYTES {
            return Err(Stop::not_modelled("areas made of 8xx's larger pages"));
        }
        let small = self.pages.shift();
        Ok(if !asked || !allowed {
            small
        } else if supported && share >= self.pages.pmd_bytes() {
            self.pages.pmd_shift()
        } else {
            let group = self.pages.cont_shift().filter(|_| self.caps.yes(Fact::ContPte));
            group.filter(|group| share >= 1 << group).unwrap_or(small)
        })
    }

    /// Reserves, allocates and maps; `None` if any of it fails.
    fn make_area(
        &mut self,
        cpu: CpuId,
        request: &Request,
        size: u64,
        align: u64,
        shift: u32,
    ) -> Result<Option<VirtAddr>, Stop> {
        let guard = if request.flags & vm_flags::VM_NO_GUARD == 0 { self.pages.bytes() } else { 0 };
        let Some(total) = size.checked_add(guard) else { return Ok(None) };
        let place = self.place_for(cpu, request.range, total, align)?;
        let Some((start, node)) = place else { return Ok(None) };
        // What describes the area, then the array of its pages with the pages.
        if self.allocation_fails() || self.allocation_fails() {
            return Ok(None);
        }
        let Some(frames) = self.area_frames(cpu, size, shift)? else { return Ok(None) };
        self.areas.insert(Area {
            start,
            size: total,
            len: size,
            flags: request.flags | vm_flags::VM_ALLOC,
            page_order: shift - self.pages.shift(),
            frames: frames.clone(),
            node,
        });
        // The tables that it needs.
        if self.allocation_fails() {
            self.undo_area(cpu, start, start)?;
            return Ok(None);
        }
        let mut at = start;
        for run in &frames {
            let len = run.count * FRAME_BYTES;
            let phys = run.pfn.addr();
            // A group of pages by the contiguous bit (`arch_vmap_pte_range_map_size`).
            let contiguous = self.pages.cont_shift() == Some(shift);
            let leaf = if contiguous { self.pages.shift() } else { shift };
            self.free_empty_tables(cpu, at, len, leaf)?;
            let entry = (request.perm, Attributes { contiguous, ..Attributes::default() });
            match self.machine.map_as(cpu, SpaceId::KERNEL, (at, phys, len), leaf, entry) {
                Ok(()) => at = at.offset(len),
                Err(MapError::OutOfMemory) => {
                    self.undo_area(cpu, start, at)?;
                    return Ok(None);
                }
                Err(other) => return Err(other.into()),
            }
        }
        self.after_new_mapping(cpu)?;
        let shift = u8::try_from(shift).unwrap_or(u8::MAX);
        let flags = self.flags_of(&[Fact::HugeVmalloc, Fact::HugeVmallocOptOut]);
        self.emit(cpu, flags, View::AreaMade { virt: start, len: size, shift });
        Ok(Some(start))
    }

    /// `alloc_vmap_area`'s place: one from the pool of this CPU's node, else the lowest that fits,
    /// if need be after what was freed is flushed and pools are emptied; and the node that gets it
    /// back, if there are any and the range is vmalloc's own.
    fn place_for(
        &mut self,
        cpu: CpuId,
        range: Range,
        size: u64,
        align: u64,
    ) -> Result<Option<(VirtAddr, Option<u16>)>, Stop> {
        let nodes = self.cpus.clamp(1, MOST_NODES);
        let own = self.caps.yes(Fact::VmapNodes) && nodes > 1 && range == self.layout.vmalloc;
        let node = own.then_some(cpu.0 % nodes);
        let pooled = node.and_then(|node| self.areas.pooled(node, size, align));
        let mut place = pooled.or_else(|| self.areas.fit(range, size, align));
        if place.is_none() {
            self.purge_all(cpu)?;
            place = self.areas.fit(range, size, align);
        }
        Ok(place.map(|start| (start, node)))
    }

    /// Gives an area back whose mapping failed for want of a table at `reached`.
    fn undo_area(&mut self, cpu: CpuId, start: VirtAddr, reached: VirtAddr) -> Result<(), Stop> {
        if reached > start {
            self.unmapped = true;
            self.unmap_kernel(cpu, start, reached.0 - start.0)?;
        }
        let frames = self.areas.remove(start).map(|a| a.frames).unwrap_or_default();
        for run in frames {
            self.free_frames(cpu, run.pfn, run.count)?;
        }
        Ok(())
    }

    /// Frames for an area: blocks of the leaf size, or runs of small pages as long as they can be
    /// had (the bulk allocator's usual luck). What was got before a failure goes back.
    fn area_frames(
        &mut self,
        cpu: CpuId,
        size: u64,
        shift: u32,
    ) -> Result<Option<Vec<Frames>>, Stop> {
        let mut runs: Vec<Frames> = Vec::new();
        let mut left = size / FRAME_BYTES;
        let (page, block) = (self.pages.frames(), 1u64 << (shift - FRAME_SHIFT));
        let mut step = if block > page { block } else { left.max(page) };
        while left > 0 {
            match self.alloc_frames(cpu, step.min(left), shift)? {
                Some(pfn) => {
                    runs.push(Frames { pfn, count: step.min(left) });
                    left -= step.min(left);
                }
                // Half of it, in whole pages.
                None if block == page && step > page => step = (step / 2).next_multiple_of(page),
                None => {
                    for run in runs {
                        self.free_frames(cpu, run.pfn, run.count)?;
                    }
                    return Ok(None);
                }
            }
        }
        Ok(Some(runs))
    }
}
