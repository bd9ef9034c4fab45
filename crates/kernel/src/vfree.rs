//! vfree: taking areas down, and the lazy flush of what was taken down.
//!
//! Modelled: entries cleared without a flush, frames freed before any flush unless the area carries
//! VM_FLUSH_RESET_PERMS, the reset of the direct map for those, the purge over all lazily freed
//! areas; others may run between any two of these. From: Linux 5.19, 6.1 (`__vunmap`), 6.12 and 7.0
//! (`remove_vm_area`, `vm_reset_perms`, `vunmap`) mm/vmalloc.c, which do the same. Not modelled:
//! freeing from interrupts (a work item frees later); the work item that purges when too many pages
//! wait runs at once, on the CPU that frees.

use textbed_arch::{Arch, CpuId, FRAME_BYTES, Pfn, SpaceId, VirtAddr};
use textbed_event::{View, WarnReason};
use textbed_machine::{CpuMask, Span};

use crate::area::{Area, Frames, vm_flags};
use crate::call::Args;
use crate::caps::Fact;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{
    Step, Then, flush_step, lock_step, once, pause, step, step_then_others, unlock_step,
};

/// The lock of those who purge.
const PURGE_LOCK: &str = "vmap_purge_lock";

/// Where unmapped areas wait.
const LAZY: &str = "list of unmapped areas";

/// `vfree(addr)`.
pub(crate) fn vfree(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.vfree(cpu, args.addr(0))
}

/// `vunmap(addr)`: of an area of `vmalloc`, too, whose frames then belong to nobody.
pub(crate) fn vunmap(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.remove_vm_area(cpu, args.addr(0), false)
}

/// `vm_unmap_aliases()`.
pub(crate) fn vm_unmap_aliases_call(
    k: &mut Kernel,
    _cpu: CpuId,
    _args: &Args,
) -> Result<i64, Stop> {
    let waiting: Vec<(VirtAddr, u64)> = k.areas.lazy().collect();
    let mut steps = purge_steps(None, false);
    steps.push(once(move |k, _| {
        k.noted = waiting;
        Ok(())
    }));
    k.with_steps(steps)
}

/// `_vm_unmap_aliases` in steps: flushes what was lazily freed when it begins, and `extra` with it,
/// by one range; without either it does nothing but take its lock. With `everything`
/// (`reclaim_and_purge_vmap_areas`) nothing is kept in pools.
pub(crate) fn purge_steps(extra: Option<(u64, u64)>, everything: bool) -> Vec<Step> {
    let flush = once(move |k, cpu| {
        k.machine.observe(cpu, LAZY);
        let range = hull(k.areas.begin_purge(), extra);
        if let Some((start, end)) = range {
            k.later([flush_step(move |k, cpu| k.flush_kernel_range(cpu, start, end))]);
        }
        Ok(())
    });
    let free = step(move |k, _| {
        k.areas.end_purge(everything, k.pages.bytes());
        Ok(())
    });
    vec![lock_step(PURGE_LOCK), flush, free, unlock_step(PURGE_LOCK)]
}

/// `set_direct_map_{invalid,default}_noflush` of one frame: `then` gets 0, or what went wrong.
pub(crate) fn direct_map_change(pfn: Pfn, present: bool, then: Then<i64>) -> Step {
    once(move |k, _| {
        match k.arch {
            Arch::X86_64 => k.x86_set_direct_map(pfn, 1, present, then),
            Arch::Arm64 => k.arm64_set_direct_map(pfn, present, then),
            _ => k.later([pause(), once(move |k, cpu| then(k, cpu, 0))]),
        }
        Ok(())
    })
}

/// The same where nobody looks at the answer.
pub(crate) fn direct_map_step(pfn: Pfn, present: bool) -> Step {
    direct_map_change(pfn, present, Box::new(|_, _, _| Ok(())))
}

/// The range that holds both.
fn hull(one: Option<(u64, u64)>, other: Option<(u64, u64)>) -> Option<(u64, u64)> {
    match (one, other) {
        (Some((s, e)), Some((xs, xe))) => Some((s.min(xs), e.max(xe))),
        (one, other) => one.or(other),
    }
}

impl Kernel {
    /// `vfree`.
    pub(crate) fn vfree(&mut self, cpu: CpuId, virt: VirtAddr) -> Result<i64, Stop> {
        self.remove_vm_area(cpu, virt, true)
    }

    /// `vfree`, and `vunmap`, which frees no frames: any page-aligned address inside an area takes
    /// the whole area. Nobody finds it from then on, and its addresses wait for a purge once it is
    /// unmapped.
    fn remove_vm_area(&mut self, cpu: CpuId, virt: VirtAddr, frees: bool) -> Result<i64, Stop> {
        if virt.0 == 0 {
            return Ok(0);
        }
        if !virt.is_aligned(self.pages.shift()) {
            self.warn(cpu, WarnReason::Unaligned, virt);
            return Ok(0);
        }
        let start = self.areas.find(virt).map(|a| a.start);
        if start.is_some_and(|s| self.patch_areas.contains(&s)) {
            return Err(Stop::not_modelled("vfree of the page that a CPU patches through"));
        }
        let Some(area) = start.and_then(|s| self.areas.hide(s)) else {
            self.warn(cpu, WarnReason::NoArea, virt);
            return Ok(0);
        };
        let (start, size, len) = (area.start, area.size, area.len);
        let mut steps =
            vec![pause(), step(move |k, cpu| k.vunmap_range(cpu, start, size)), pause()];
        if self.config.on("debug_pagealloc") {
            let end = start.0.saturating_add(len);
            steps.push(flush_step(move |k, cpu| k.flush_kernel_range(cpu, start.0, end)));
        }
        steps.push(once(move |k, cpu| {
            k.areas.retire(&area);
            k.tell_lazy(cpu);
            let gone = View::AreaRemoved { virt: start, len };
            k.emit(cpu, textbed_event::Flags::default(), gone);
            k.users.kept_small.retain(|r| !(start..VirtAddr(area.end())).contains(&r.start));
            let steps = if frees { k.freeing_steps(area) } else { k.kept_steps(&area) };
            k.later(steps);
            Ok(())
        }));
        self.with_steps(steps)
    }

    /// The lock of the list of unmapped areas orders who unmapped before who flushes, and before
    /// who unmaps next (`purge_vmap_area_lock`, from 6.9 on one for each node). It is told where
    /// several CPUs make calls.
    pub(crate) fn tell_lazy(&mut self, cpu: CpuId) {
        if self.callers.without(cpu) != CpuMask::EMPTY {
            self.machine.observe(cpu, LAZY);
            self.machine.publish(cpu, LAZY, 1);
        } else {
            self.untold = Some(cpu);
        }
    }

    /// The first call of a second CPU: what the only one so far unmapped is told now.
    pub(crate) fn tell_late(&mut self, cpu: CpuId) {
        if let Some(first) = self.untold.take_if(|first| *first != cpu) {
            self.machine.publish(first, LAZY, 1);
        }
    }

    /// What follows once an area is unmapped: the reset of the direct map, if that was asked for,
    /// then the frames go back, flushed or not.
    pub(crate) fn freeing_steps(&self, area: Area) -> Vec<Step> {
        let reset = area.flags & vm_flags::VM_FLUSH_RESET_PERMS != 0;
        let mut steps = vec![pause()];
        if reset {
            steps.extend(self.reset_steps(&area));
        }
        // With debug_pagealloc the direct map changes, and may have to be split for that.
        let splits = self.config.on("debug_pagealloc");
        // What is promised of them holds until somebody else has them: nobody is let in before it
        // is told.
        let groups: Vec<Vec<Frames>> = match reset {
            true => vec![area.frames],
            false => area.frames.into_iter().map(|run| vec![run]).collect(),
        };
        for frames in groups {
            let free = move |k: &mut Kernel, cpu| {
                for run in &frames {
                    k.free_frames(cpu, run.pfn, run.count)?;
                }
                if reset {
                    k.promise_frames(cpu, &frames);
                }
                Ok(())
            };
            steps.push(if splits { flush_step(free) } else { step_then_others(free) });
        }
        steps.push(step(|k, _| {
            k.drain_if_many();
            Ok(())
        }));
        steps
    }

    /// What follows where the frames stay: up to 6.1 a purge, if a reset was asked for.
    fn kept_steps(&self, area: &Area) -> Vec<Step> {
        let reset = area.flags & vm_flags::VM_FLUSH_RESET_PERMS != 0;
        let purges = reset && self.caps.yes(Fact::VunmapPurges);
        let mut steps = if purges { purge_steps(None, false) } else { Vec::new() };
        steps.push(step(|k, _| {
            k.drain_if_many();
            Ok(())
        }));
        steps
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
    fn drain_if_many(&mut self) {
        let bits = u64::from(16 - self.cpus.leading_zeros());
        let most = bits * (32 << 20);
        if self.areas.lazy_bytes() > most {
            self.later(purge_steps(None, false));
        }
    }

    /// `vm_reset_perms`: direct map away, one flush over lazy areas and direct map, direct map
    /// back. Results of the single steps are ignored, as in Linux.
    fn reset_steps(&self, area: &Area) -> Vec<Step> {
        let pages: Vec<Pfn> = self.pages_of(&area.frames).collect();
        let addresses = area.frames.iter().filter_map(|run| {
            let start = self.direct_map_of(run.pfn)?.0;
            Some((start, start.saturating_add(run.count * FRAME_BYTES)))
        });
        let extent = addresses.fold(None, |extent, one| hull(extent, Some(one)));
        let each = |present: bool| {
            pages.iter().map(|pfn| direct_map_step(*pfn, present)).collect::<Vec<Step>>()
        };
        let mut steps = each(false);
        steps.extend(purge_steps(extent, false));
        steps.extend(each(true));
        steps
    }
}
