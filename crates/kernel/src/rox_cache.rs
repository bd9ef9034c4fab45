//! x86's cache of read-only executable memory, from which execmem hands out text (6.15 on).
//!
//! Modelled: free and busy ranges, first fit, filling up by 2 MiB (by exactly what is asked if that
//! cannot be had), breakpoints in what nobody uses, the way to temporarily writable memory and
//! back, freeing with merging, and giving whole blocks back. The cache's mutex is held while a
//! range is taken, while new memory is added, and while one is freed; others run wherever memory is
//! filled or changes its permissions, and may take what was added. From: Linux 6.18.2 and 7.0
//! mm/execmem.c. Not modelled: the work item that retries a failed free (the range stays pending),
//! areas outside the range of who asks (one module range serves all), STRICT_MODULE_RWX=n and
//! machines without PSE (there the cache is not used).
//!
//! As in Linux, a block of free addresses is given back as the whole area that it lies in, even if
//! other parts of that area are in use.

use std::collections::BTreeMap;

use textbed_arch::{CpuId, Features, Perm, Pfn, VirtAddr};
use textbed_event::{Flags, View};

use crate::area::vm_flags;
use crate::call::Args;
use crate::caps::Fact;
use crate::error::Stop;
use crate::free_ranges::FreeRanges;
use crate::kernel::Kernel;
use crate::steps::{
    Fate, Step, Then, call_step, call_then, calls_then, lock_step, once, pause, step, unlock_step,
};
use crate::vmalloc::Request;

/// The cache's lock.
const MUTEX: &str = "execmem_cache.mutex";

/// Ranges of the cache: start to length.
#[derive(Clone, Default, Debug)]
pub(crate) struct RoxCache {
    free: FreeRanges,
    busy: BTreeMap<u64, u64>,
    /// Freed, and not brought back to read-only: lost until somebody retries.
    pending: BTreeMap<u64, u64>,
}

impl RoxCache {
    /// Takes the first free range that is long enough. The trees allocate their nodes: what is
    /// taken is entered as busy first, then goes out of the free ones, and then what is left of it
    /// goes in again. `fails` says whether the next allocation does; if it is the last one's, what
    /// was left is in neither tree any more.
    fn take(&mut self, size: u64, mut fails: impl FnMut() -> bool) -> Option<u64> {
        let start = self.free.first_fit(size, 1)?;
        let (_, len) = self.free.holding(start)?;
        if fails() {
            return None;
        }
        self.free.cut(start, len);
        if len > size {
            if fails() {
                return None;
            }
            self.free.add(start + size, len - size);
        }
        self.busy.insert(start, size);
        Some(start)
    }

    /// The range in use that an address lies in, its first or not.
    fn busy_at(&self, at: u64) -> Option<(u64, u64)> {
        holding(&self.busy, at)
    }
}

/// The range that an address lies in.
fn holding(ranges: &BTreeMap<u64, u64>, at: u64) -> Option<(u64, u64)> {
    let (start, len) = ranges.range(..=at).next_back()?;
    (at - start < *len).then_some((*start, *len))
}

/// `execmem_alloc_rw(type, size)`.
pub(crate) fn execmem_alloc_rw(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let size = page_align(k, args.get(1));
    let alloc = call_then("execmem_alloc", args.clone(), move |k, _, ptr| {
        k.returns(ptr);
        let ptr = ptr as u64;
        // What does not come from the cache (data, say) too, where the cache is compiled in.
        if ptr == 0 || !k.has_rox_cache() {
            return Ok(());
        }
        let writable = move |k: &mut Kernel, _, error| {
            if error != 0 {
                k.returns(0);
                k.later([call_step("execmem_free", Args::of(&[ptr]))]);
            }
            Ok(())
        };
        k.later([force_rw_steps(k, ptr, size, Box::new(writable))]);
        Ok(())
    });
    k.with_steps(alloc.into())
}

/// `execmem_restore_rox(ptr, size)`.
pub(crate) fn execmem_restore_rox(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    if !k.has_rox_cache() {
        return Ok(0);
    }
    let range = pages_of(k, args.get(0), page_align(k, args.get(1)));
    let rox = call_then("set_memory_rox", range, |k, _, error| {
        k.returns(error);
        Ok(())
    });
    k.with_steps(rox.into())
}

/// The arguments of a change of permissions.
fn pages_of(k: &Kernel, ptr: u64, size: u64) -> Args {
    Args::of(&[ptr, k.pages.holding(size)])
}

/// `execmem_force_rw`: not executable first, then writable.
fn force_rw_steps(k: &Kernel, ptr: u64, size: u64, then: Then<i64>) -> Step {
    let range = pages_of(k, ptr, size);
    let calls = vec![
        ("set_memory_nx", range.clone(), Fate::Checked),
        ("set_memory_rw", range, Fate::Checked),
    ];
    calls_then(calls, then)
}

/// Rounded up to whole pages; wraps around, as PAGE_ALIGN does.
fn page_align(k: &Kernel, size: u64) -> u64 {
    let page = k.pages.bytes();
    size.wrapping_add(page - 1) & !(page - 1)
}

impl Kernel {
    /// Whether the cache is compiled in (CONFIG_ARCH_HAS_EXECMEM_ROX).
    fn has_rox_cache(&self) -> bool {
        self.caps.yes(Fact::RoxCache) && self.config.on("STRICT_MODULE_RWX")
    }

    /// Whether execmem hands out a type of memory from the cache.
    pub(crate) fn uses_rox_cache(&self, kind: &str) -> bool {
        self.has_rox_cache()
            && self.config.on("STRICT_KERNEL_RWX")
            && self.features.contains(Features::X86_PSE)
            && ["EXECMEM_MODULE_TEXT", "EXECMEM_KPROBES", "EXECMEM_FTRACE"].contains(&kind)
    }

    /// Memory from the cache; 0 where it cannot be had.
    pub(crate) fn rox_alloc(&mut self, size: u64) -> Result<i64, Stop> {
        let Some(size) = size.checked_next_multiple_of(self.pages.bytes()).filter(|s| *s > 0)
        else {
            return Ok(0);
        };
        if size > self.layout.modules.len {
            return Ok(0);
        }
        self.with_steps(vec![take_step(size, move |k, got| match got {
            Some(start) => k.returns(start as i64),
            None => k.later([pause(), populate_step(size)]),
        })])
    }

    /// `__execmem_cache_alloc`, the mutex held. The area around it stays as it is: that this part
    /// has an owner is told here, and that it has none any more in [`free_step`].
    fn rox_take(&mut self, cpu: CpuId, size: u64) -> Option<u64> {
        let mut cache = std::mem::take(&mut self.rox_cache);
        let got = cache.take(size, || self.allocation_fails());
        self.rox_cache = cache;
        if let Some(start) = got {
            let (virt, shift) = (VirtAddr(start), self.pages.shift() as u8);
            self.emit(cpu, Flags::default(), View::AreaMade { virt, len: size, shift });
        }
        got
    }

    /// `execmem_set_direct_map_valid(vm, true)` of the whole area that an address lies in: one
    /// change for each of the pages that it was allocated by.
    fn direct_map_back(&self, at: u64) -> Vec<Step> {
        let Some(area) = self.areas.find(VirtAddr(at)) else { return Vec::new() };
        let pages: Vec<Pfn> = self.pages_of(&area.frames).collect();
        let firsts = pages.chunks(1 << area.page_order).filter_map(|pages| pages.first().copied());
        let count = 1 << area.page_order;
        let change = |pfn| {
            once(move |k: &mut Kernel, _| {
                k.x86_set_direct_map(pfn, count, true, Box::new(|_, _, _| Ok(())));
                Ok(())
            })
        };
        firsts.map(change).collect()
    }

    /// Steps that give the range that an address lies in back to the cache; `None` if it is none of
    /// its.
    pub(crate) fn rox_free_steps(&mut self, ptr: u64) -> Option<Vec<Step>> {
        let known = self.rox_cache.busy_at(ptr).or_else(|| holding(&self.rox_cache.pending, ptr));
        known.map(|_| vec![lock_step(MUTEX), free_step(ptr)])
    }

    /// Free ranges of the cache that are whole blocks.
    fn whole_blocks(&self) -> Vec<(u64, u64)> {
        let block = self.pages.pmd_bytes();
        let whole =
            |(start, len): &(u64, u64)| start.is_multiple_of(block) && len.is_multiple_of(block);
        self.rox_cache.free.iter().filter(whole).collect()
    }
}

/// `__execmem_cache_alloc`; `then` gets what it found.
fn take_step(size: u64, then: impl FnOnce(&mut Kernel, Option<u64>) + 'static) -> Step {
    once(move |k, _| {
        let take = once(move |k, cpu| {
            let got = k.rox_take(cpu, size);
            k.unlock(cpu, MUTEX)?;
            then(k, got);
            Ok(())
        });
        k.later([lock_step(MUTEX), take]);
        Ok(())
    })
}

/// `execmem_cache_populate`: new memory, and then what was asked for, unless somebody took it.
fn populate_step(size: u64) -> Step {
    once(move |k, _| {
        let whole = size.next_multiple_of(k.pages.pmd_bytes());
        let (range, perm) = (k.layout.module_window, Perm::KERNEL_RW);
        let flags = vm_flags::VM_ALLOW_HUGE_VMAP;
        let request = Request { size: whole, align: 1, range, perm, flags };
        let made = move |k: &mut Kernel, _, start| {
            if start != 0 {
                k.later([add_step(start, whole, size)]);
                return Ok(());
            }
            let made = move |k: &mut Kernel, _, start| {
                k.later((start != 0).then(|| add_step(start, size, size)));
                Ok(())
            };
            k.later([Request { size, ..request }.steps(Box::new(made))]);
            Ok(())
        };
        k.later([request.steps(Box::new(made))]);
        Ok(())
    })
}

/// Fills new memory with breakpoints, makes it read-only and executable, and adds it.
fn add_step(start: u64, len: u64, size: u64) -> Step {
    once(move |k, cpu| {
        k.zone(cpu, VirtAddr(start), len, "execmem", "cache");
        k.fill_plain(cpu, VirtAddr(start), len, &[0xcc])?;
        let add = once(move |k, cpu| {
            let refused = k.allocation_fails();
            if !refused {
                k.rox_cache.free.add(start, len);
            }
            k.unlock(cpu, MUTEX)?;
            if refused {
                let back = k.direct_map_back(start);
                k.later(back);
                k.later([call_step("vfree", Args::of(&[start]))]);
            } else {
                let taken = take_step(size, |k, got| k.returns(got.map_or(0, |at| at as i64)));
                k.later([pause(), taken]);
            }
            Ok(())
        });
        let protected = call_then("set_memory_rox", pages_of(k, start, len), move |k, _, error| {
            match error {
                0 => k.later([lock_step(MUTEX), add]),
                _ => k.later([call_step("vfree", Args::of(&[start]))]),
            }
            Ok(())
        });
        k.later([pause()]);
        k.later(protected);
        Ok(())
    })
}

/// `execmem_cache_free`, its mutex held: the whole range that an address lies in.
fn free_step(at: u64) -> Step {
    once(move |k, cpu| {
        if holding(&k.rox_cache.pending, at).is_some() {
            return Err(Stop::not_modelled("freeing text again of which a first freeing failed"));
        }
        let Some((ptr, size)) = k.rox_cache.busy_at(at) else {
            // Somebody else freed it while this one waited.
            k.unlock(cpu, MUTEX)?;
            return match k.vfree(cpu, VirtAddr(at)) {
                Ok(_) | Err(Stop::Later) => Ok(()),
                Err(stop) => Err(stop),
            };
        };
        k.rox_cache.busy.remove(&ptr);
        let freed = move |k: &mut Kernel, cpu, error| {
            if error != 0 || k.allocation_fails() {
                k.rox_cache.pending.insert(ptr, size);
                return k.unlock(cpu, MUTEX);
            }
            k.rox_cache.free.add(ptr, size);
            let gone = View::AreaRemoved { virt: VirtAddr(ptr), len: size };
            k.emit(cpu, Flags::default(), gone);
            k.unlock(cpu, MUTEX)?;
            // The work item; one that has nothing to give back is not told of.
            if !k.whole_blocks().is_empty() {
                k.later([pause(), lock_step(MUTEX), clean_step()]);
            }
            Ok(())
        };
        let writable = move |k: &mut Kernel, cpu, error| {
            if error != 0 {
                return freed(k, cpu, error);
            }
            k.fill_plain(cpu, VirtAddr(ptr), size, &[0xcc])?;
            let rox = vec![("set_memory_rox", pages_of(k, ptr, size), Fate::Dropped)];
            k.later([pause(), calls_then(rox, Box::new(freed))]);
            Ok(())
        };
        k.later([force_rw_steps(k, ptr, size, Box::new(writable))]);
        Ok(())
    })
}

/// `execmem_cache_clean`, the mutex held: free ranges that are whole blocks go back to the system,
/// each with the whole area that it lies in.
fn clean_step() -> Step {
    once(|k, _| {
        for (start, len) in k.whole_blocks() {
            let back = k.direct_map_back(start);
            k.later(back);
            let cut = step(move |k, _| {
                k.rox_cache.free.cut(start, len);
                Ok(())
            });
            k.later([cut, call_step("vfree", Args::of(&[start]))]);
        }
        k.later([unlock_step(MUTEX)]);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ranges_merge_and_the_first_that_fits_is_taken() {
        let mut cache = RoxCache::default();
        cache.free.add(0x20_0000, 0x20_0000);
        assert_eq!(cache.take(0x1000, || false), Some(0x20_0000));
        assert_eq!(cache.take(0x2000, || false), Some(0x20_1000));
        assert_eq!(cache.take(0x20_0000, || false), None);
        for (start, len) in [(0x20_0000, 0x1000), (0x20_1000, 0x2000)] {
            cache.busy.remove(&start);
            cache.free.add(start, len);
        }
        assert_eq!(cache.free.iter().collect::<Vec<_>>(), [(0x20_0000, 0x20_0000)]);
    }
}
