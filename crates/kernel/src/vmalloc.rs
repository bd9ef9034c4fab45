//! vmalloc: making areas.
//!
//! Modelled: size and alignment checks, choice of leaf size by version, architecture and flags,
//! lowest fit, guard page, frames and mapping, the retry by small pages. Others may run once the
//! addresses are reserved (from when on the area is found, without pages), after each run of frames
//! and after each run of pages that was mapped; what fails is taken down as by vfree. From: Linux
//! 5.19 and 6.12 mm/vmalloc.c, arch/*/include/asm/vmalloc.h, 6.18.2
//! arch/arm64/include/asm/vmalloc.h (areas by groups of pages with the contiguous bit). Not
//! modelled: allocation flags, KASAN, retries with sleep, MTRR refusals, kmemleak, leaves above a
//! PMD's (vmalloc never chooses them), the work item that frees what failed (7.0).

use std::collections::VecDeque;

use textbed_arch::paging::{Attributes, MemoryType};
use textbed_arch::{Arch, CpuId, FRAME_BYTES, FRAME_SHIFT, Features, Perm, SpaceId, VirtAddr};
use textbed_event::{Flags, View, WarnReason};
use textbed_machine::MapError;

use crate::area::{Area, Frames, vm_flags};
use crate::call::Args;
use crate::call_table::PROTS;
use crate::caps::Fact;
use crate::empty_tables::empty_tables_step;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::layout::Range;
use crate::powerpc::PowerMmu;
use crate::steps::{Step, Then, flush_listen_step, once, pause, step, step_then_others};
use crate::vfree::purge_steps;

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
pub(crate) fn vmalloc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    plain(k, args.get(0), 0)
}

/// `vmalloc_huge(size)`.
pub(crate) fn vmalloc_huge(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    plain(k, args.get(0), vm_flags::VM_ALLOW_HUGE_VMAP)
}

/// `vmalloc_no_huge(size)`.
pub(crate) fn vmalloc_no_huge(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    plain(k, args.get(0), vm_flags::VM_NO_HUGE_VMAP)
}

fn plain(k: &mut Kernel, size: u64, flags: u64) -> Result<i64, Stop> {
    let range = k.layout.vmalloc;
    given(k, Request { size, align: 1, range, perm: Perm::KERNEL_RW, flags })
}

/// A call that is one allocation.
fn given(k: &mut Kernel, request: Request) -> Result<i64, Stop> {
    let returned = |k: &mut Kernel, _, start: u64| {
        k.returns(start as i64);
        Ok(())
    };
    k.with_steps(vec![request.steps(Box::new(returned))])
}

/// `__vmalloc_node_range(size, align, start, end, prot, vm_flags)`.
pub(crate) fn vmalloc_node_range(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
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
    given(k, Request { size: args.get(0), align, range, perm, flags: args.get(5) })
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
pub(crate) fn vmalloc_exec(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (size, range) = (args.get(0), k.layout.vmalloc);
    let flags = vm_flags::VM_FLUSH_RESET_PERMS;
    given(k, Request { size, align: 1, range, perm: Perm::KERNEL_RWX, flags })
}

/// `vmap(pages, count)`, the pages given by an address that maps the first of them, the others
/// behind it.
pub(crate) fn vmap(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (page, leaf) = (k.pages.bytes(), k.pages.shift());
    let shift = u8::try_from(leaf).unwrap_or(u8::MAX);
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
    let vmap = once(move |k, cpu| {
        // What describes the area.
        if k.allocation_fails() {
            return Ok(());
        }
        let (size, range) = (len + page, k.layout.vmalloc);
        let reserved = move |k: &mut Kernel, _, place: Option<Place>| {
            let Some((start, node)) = place else { return Ok(()) };
            let (flags, page_order, frames) = (vm_flags::VM_MAP, 0, Vec::new());
            k.areas.insert(Area { start, size, len, flags, page_order, frames, node });
            let runs = pages.into_iter().map(|pfn| Frames { pfn, count: page / FRAME_BYTES });
            let runs = runs.collect();
            let made = Box::new(move |k: &mut Kernel, cpu, made: bool| {
                if made {
                    k.emit(cpu, Flags::default(), View::AreaMade { virt: start, len, shift });
                    k.returns(start.0 as i64);
                }
                Ok(())
            });
            let entry = (Perm::KERNEL_RW, Attributes::default());
            k.later([pause(), mapping_steps(start, runs, (leaf, entry), made)]);
            Ok(())
        };
        k.place_for(cpu, (range, size, page), Box::new(reserved))
    });
    k.with_steps(vec![vmap])
}

/// What an entry says beside where it leads.
type Entry = (Perm, Attributes);

/// A place among the areas, and the node that gets it back.
type Place = (VirtAddr, Option<u16>);

impl Request {
    /// `__vmalloc_node_range` in steps; `then` gets a pointer, or 0.
    pub(crate) fn steps(self, then: Then<u64>) -> Step {
        once(move |k, cpu| {
            let pages = k.pages.holding(self.size);
            if self.size == 0 {
                k.warn_once(cpu, "vmalloc: size 0", WarnReason::BadArgument, VirtAddr(0));
                return then(k, cpu, 0);
            }
            if pages > k.machine.memory_bytes() / k.pages.bytes() {
                k.warn(cpu, WarnReason::BadArgument, VirtAddr(0));
                return then(k, cpu, 0);
            }
            let shift = k.vmap_shift(&self)?;
            k.later([self.by_leaves(shift, then)]);
            Ok(())
        })
    }

    /// With leaves of `1 << shift` bytes, and if that fails by small pages.
    fn by_leaves(self, shift: u32, then: Then<u64>) -> Step {
        once(move |k, cpu| {
            let Some(size) = self.size.checked_next_multiple_of(1 << shift) else {
                return then(k, cpu, 0);
            };
            let small = k.pages.shift();
            let made = move |k: &mut Kernel, cpu, made: Option<VirtAddr>| match made {
                Some(start) => then(k, cpu, start.0),
                None if shift == small => {
                    k.warn(cpu, WarnReason::Other, VirtAddr(0));
                    then(k, cpu, 0)
                }
                None => {
                    k.later([self.by_leaves(small, then)]);
                    Ok(())
                }
            };
            k.make_area(cpu, self, (size, shift), Box::new(made))
        })
    }
}

/// Runs of frames for an area whose addresses are reserved, one a step, entered with it as they
/// come: blocks of the leaf size, or runs of small pages as long as they can be had (the bulk
/// allocator's usual luck). `then` gets whether all are there.
fn frames_step(start: VirtAddr, left: u64, at_once: u64, shift: u32, then: Then<bool>) -> Step {
    once(move |k, _| {
        // With debug_pagealloc the direct map changes, and may have to be split for that.
        if k.config.on("debug_pagealloc") {
            k.later([flush_listen_step()]);
        }
        k.later([once(move |k, cpu| {
            if left == 0 {
                return then(k, cpu, true);
            }
            let (page, count) = (k.pages.frames(), at_once.min(left));
            let (left, at_once) = match k.alloc_frames(cpu, count, shift)? {
                Some(pfn) => {
                    if let Some(area) = k.areas.find_mut(start) {
                        area.frames.push(Frames { pfn, count });
                    }
                    (left - count, at_once)
                }
                // Half of it, in whole pages.
                None if shift == k.pages.shift() && at_once > page => {
                    (left, (at_once / 2).next_multiple_of(page))
                }
                None => return then(k, cpu, false),
            };
            k.later([pause(), frames_step(start, left, at_once, shift, then)]);
            Ok(())
        })]);
        Ok(())
    })
}

/// Maps runs of frames one after the other from the start of an area on, by leaves of a size with
/// the same permission and attributes. `then` gets whether that succeeded; if not, the area is
/// gone.
fn mapping_steps(
    start: VirtAddr,
    runs: VecDeque<Frames>,
    how: (u32, Entry),
    then: Then<bool>,
) -> Step {
    once(move |k, _| {
        // The tables that it needs.
        if k.allocation_fails() {
            k.undo_area((start, start), then);
        } else {
            k.later([map_step(start, start, runs, how, then)]);
        }
        Ok(())
    })
}

/// The next run, mapped at `at`.
fn map_step(
    start: VirtAddr,
    at: VirtAddr,
    mut runs: VecDeque<Frames>,
    (leaf, entry): (u32, Entry),
    then: Then<bool>,
) -> Step {
    once(move |k, _| {
        let Some(run) = runs.pop_front() else {
            k.later([
                step_then_others(|k, cpu| k.after_new_mapping(cpu)),
                once(move |k, cpu| then(k, cpu, true)),
            ]);
            return Ok(());
        };
        let (len, phys) = (run.count * FRAME_BYTES, run.pfn.addr());
        let map = once(move |k, cpu| {
            match k.machine.map_as(cpu, SpaceId::KERNEL, (at, phys, len), leaf, entry) {
                Ok(()) => {
                    let next = map_step(start, at.offset(len), runs, (leaf, entry), then);
                    k.later([pause(), next]);
                }
                Err(MapError::OutOfMemory) => k.undo_area((start, at), then),
                Err(other) => return Err(other.into()),
            }
            Ok(())
        });
        k.later([empty_tables_step(at, len, leaf), map]);
        Ok(())
    })
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

    /// Reserves, allocates and maps; `then` gets where, if none of it fails.
    fn make_area(
        &mut self,
        cpu: CpuId,
        request: Request,
        (size, shift): (u64, u32),
        then: Then<Option<VirtAddr>>,
    ) -> Result<(), Stop> {
        let guard = if request.flags & vm_flags::VM_NO_GUARD == 0 { self.pages.bytes() } else { 0 };
        let Some(total) = size.checked_add(guard) else { return then(self, cpu, None) };
        // What describes the area.
        if self.allocation_fails() {
            return then(self, cpu, None);
        }
        let reserved = move |k: &mut Kernel, cpu, place: Option<Place>| {
            let Some((start, node)) = place else { return then(k, cpu, None) };
            let (flags, len) = (request.flags | vm_flags::VM_ALLOC, size);
            let (page_order, frames) = (shift - k.pages.shift(), Vec::new());
            k.areas.insert(Area { start, size: total, len, flags, page_order, frames, node });
            let made = move |k: &mut Kernel, cpu, made: bool| {
                if !made {
                    return then(k, cpu, None);
                }
                let shift = u8::try_from(shift).unwrap_or(u8::MAX);
                let flags = k.flags_of(&[Fact::HugeVmalloc, Fact::HugeVmallocOptOut]);
                k.emit(cpu, flags, View::AreaMade { virt: start, len, shift });
                then(k, cpu, Some(start))
            };
            k.later([pause(), pages_step(start, size, (shift, request.perm), Box::new(made))]);
            Ok(())
        };
        let align = request.align.max(1 << shift);
        self.place_for(cpu, (request.range, total, align), Box::new(reserved))
    }

    /// `alloc_vmap_area`'s place: one from the pool of this CPU's node, else the lowest that fits,
    /// if need be after what was freed is flushed and pools are emptied; and the node that gets it
    /// back, if there are any and the range is vmalloc's own. `then` takes it in the same step.
    fn place_for(
        &mut self,
        cpu: CpuId,
        (range, size, align): (Range, u64, u64),
        then: Then<Option<Place>>,
    ) -> Result<(), Stop> {
        let nodes = self.cpus.clamp(1, MOST_NODES);
        let own = self.caps.yes(Fact::VmapNodes) && nodes > 1 && range == self.layout.vmalloc;
        let node = own.then_some(cpu.0 % nodes);
        let pooled = node.and_then(|node| self.areas.pooled(node, size, align));
        let place = pooled.or_else(|| self.areas.fit(range, size, align));
        if let Some(start) = place {
            return then(self, cpu, Some((start, node)));
        }
        self.later(purge_steps(None, true));
        self.later([once(move |k, cpu| {
            let place = k.areas.fit(range, size, align);
            then(k, cpu, place.map(|start| (start, node)))
        })]);
        Ok(())
    }

    /// Takes an area down that is mapped up to `reached` and could not be made, as vfree does.
    fn undo_area(&mut self, (start, reached): (VirtAddr, VirtAddr), then: Then<bool>) {
        let Some(area) = self.areas.hide(start) else { return };
        if reached > start {
            let unmap = step(move |k, cpu| {
                k.unmapped = true;
                k.unmap_kernel(cpu, start, reached.0 - start.0)
            });
            self.later([unmap, pause()]);
        }
        let free = once(move |k, cpu| {
            k.areas.retire(&area);
            if reached > start {
                k.tell_lazy(cpu);
            }
            let steps = k.freeing_steps(area);
            k.later(steps);
            Ok(())
        });
        self.later([free, once(move |k, cpu| then(k, cpu, false))]);
    }
}

/// The pages of an area whose addresses are reserved, and then its mapping.
fn pages_step(start: VirtAddr, size: u64, (shift, perm): (u32, Perm), then: Then<bool>) -> Step {
    once(move |k, _| {
        // The array of the pages, with the pages.
        if k.allocation_fails() {
            k.undo_area((start, start), then);
            return Ok(());
        }
        let left = size / FRAME_BYTES;
        let (page, block) = (k.pages.frames(), 1u64 << (shift - FRAME_SHIFT));
        let at_once = if block > page { block } else { left.max(page) };
        let mapped = move |k: &mut Kernel, _, all: bool| {
            if !all {
                k.undo_area((start, start), then);
                return Ok(());
            }
            // A group of pages by the contiguous bit (`arch_vmap_pte_range_map_size`).
            let contiguous = k.pages.cont_shift() == Some(shift);
            let leaf = if contiguous { k.pages.shift() } else { shift };
            let entry = (perm, Attributes { contiguous, ..Attributes::default() });
            let runs = k.areas.find(start).map(|a| a.frames.clone()).unwrap_or_default();
            k.later([mapping_steps(start, runs.into(), (leaf, entry), then)]);
            Ok(())
        };
        k.later([frames_step(start, left, at_once, shift, Box::new(mapped))]);
        Ok(())
    })
}
