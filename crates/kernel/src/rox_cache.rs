//! x86's cache of read-only executable memory, from which execmem hands out text (6.15 on).
//!
//! Modelled: free and busy ranges, first fit, filling up by 2 MiB (by exactly what is asked if that
//! cannot be had), breakpoints in what nobody uses, the way to temporarily writable memory and
//! back, freeing with merging, and giving whole blocks back. From: Linux 6.18.2 and 7.0
//! mm/execmem.c. Not modelled: the work item that retries a failed free (the range stays pending),
//! areas outside the range of who asks (one module range serves all), STRICT_MODULE_RWX=n and
//! machines without PSE (there the cache is not used).
//!
//! As in Linux, a block of free addresses is given back as the whole area that it lies in, even if
//! other parts of that area are in use.

use std::collections::BTreeMap;

use textbed_arch::{CpuId, Features, Perm, VirtAddr};

use crate::area::vm_flags;
use crate::call::Args;
use crate::caps::Fact;
use crate::error::Stop;
use crate::free_ranges::FreeRanges;
use crate::kernel::Kernel;
use crate::vmalloc::Request;

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
}

/// `execmem_alloc_rw(type, size)`.
pub(crate) fn execmem_alloc_rw(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let got = k.inner(cpu, "execmem_alloc", args)?;
    let ptr = k.used(cpu, got) as u64;
    if ptr == 0 || !k.rox_cache.busy.contains_key(&ptr) {
        return Ok(ptr as i64);
    }
    let size = page_align(k, args.get(1));
    if k.force_rw(cpu, ptr, size)? != 0 {
        k.inner(cpu, "execmem_free", &Args::of(&[ptr]))?;
        return Ok(0);
    }
    Ok(ptr as i64)
}

/// `execmem_restore_rox(ptr, size)`.
pub(crate) fn execmem_restore_rox(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.restore_rox(cpu, args.get(0), page_align(k, args.get(1)))
}

/// Rounded up to whole pages; wraps around, as PAGE_ALIGN does.
fn page_align(k: &Kernel, size: u64) -> u64 {
    let page = k.pages.bytes();
    size.wrapping_add(page - 1) & !(page - 1)
}

impl Kernel {
    /// Whether execmem hands out a type of memory from the cache.
    pub(crate) fn uses_rox_cache(&self, kind: &str) -> bool {
        self.caps.yes(Fact::RoxCache)
            && self.config.on("STRICT_MODULE_RWX")
            && self.config.on("STRICT_KERNEL_RWX")
            && self.features.contains(Features::X86_PSE)
            && ["EXECMEM_MODULE_TEXT", "EXECMEM_KPROBES", "EXECMEM_FTRACE"].contains(&kind)
    }

    /// Memory from the cache; 0 where it cannot be had.
    pub(crate) fn rox_alloc(&mut self, cpu: CpuId, size: u64) -> Result<i64, Stop> {
        let Some(size) = size.checked_next_multiple_of(self.pages.bytes()).filter(|s| *s > 0)
        else {
            return Ok(0);
        };
        if size > self.layout.modules.len {
            return Ok(0);
        }
        let mut got = self.rox_take(cpu, size)?;
        if got.is_none() && self.populate(cpu, size)? {
            got = self.rox_take(cpu, size)?;
        }
        Ok(got.map_or(0, |start| start as i64))
    }

    /// `__execmem_cache_alloc`.
    fn rox_take(&mut self, cpu: CpuId, size: u64) -> Result<Option<u64>, Stop> {
        self.lock(cpu, "execmem_cache.mutex")?;
        let mut cache = std::mem::take(&mut self.rox_cache);
        let got = cache.take(size, || self.allocation_fails());
        self.rox_cache = cache;
        self.unlock(cpu, "execmem_cache.mutex")?;
        Ok(got)
    }

    /// Fills the cache up; `false` where that cannot be done.
    fn populate(&mut self, cpu: CpuId, size: u64) -> Result<bool, Stop> {
        let range = self.layout.module_window;
        let mut request = Request {
            size: size.next_multiple_of(self.pages.pmd_bytes()),
            align: 1,
            range,
            perm: Perm::KERNEL_RW,
            flags: vm_flags::VM_ALLOW_HUGE_VMAP,
        };
        let mut start = self.vmalloc_range(cpu, request)? as u64;
        if start == 0 {
            request.size = size;
            start = self.vmalloc_range(cpu, request)? as u64;
        }
        if start == 0 {
            return Ok(false);
        }
        let len = request.size;
        self.zone(cpu, VirtAddr(start), len, "execmem", "cache");
        self.fill_plain(cpu, VirtAddr(start), len, &[0xcc])?;
        if self.restore_rox(cpu, start, len)? != 0 {
            self.inner(cpu, "vfree", &Args::of(&[start]))?;
            return Ok(false);
        }
        self.lock(cpu, "execmem_cache.mutex")?;
        let refused = self.allocation_fails();
        if !refused {
            self.rox_cache.free.add(start, len);
        }
        self.unlock(cpu, "execmem_cache.mutex")?;
        if refused {
            self.direct_map_back(cpu, start)?;
            self.inner(cpu, "vfree", &Args::of(&[start]))?;
        }
        Ok(!refused)
    }

    /// `execmem_set_direct_map_valid(vm, true)` of the whole area that an address lies in.
    fn direct_map_back(&mut self, cpu: CpuId, at: u64) -> Result<(), Stop> {
        let frames = self.areas.find(VirtAddr(at)).map(|a| a.frames.clone());
        for page in self.pages_of(&frames.unwrap_or_default()) {
            self.set_direct_map(cpu, page, true)?;
        }
        Ok(())
    }

    /// `execmem_force_rw`: not executable first, then writable.
    fn force_rw(&mut self, cpu: CpuId, ptr: u64, size: u64) -> Result<i64, Stop> {
        let range = Args::of(&[ptr, self.pages.holding(size)]);
        let done = self.inner(cpu, "set_memory_nx", &range)?;
        match self.used(cpu, done) {
            0 => {
                let done = self.inner(cpu, "set_memory_rw", &range)?;
                Ok(self.used(cpu, done))
            }
            error => Ok(error),
        }
    }

    fn restore_rox(&mut self, cpu: CpuId, ptr: u64, size: u64) -> Result<i64, Stop> {
        let done =
            self.inner(cpu, "set_memory_rox", &Args::of(&[ptr, self.pages.holding(size)]))?;
        Ok(self.used(cpu, done))
    }

    /// Gives a range back to the cache; `false` if it is none of its.
    pub(crate) fn rox_free(&mut self, cpu: CpuId, ptr: u64) -> Result<bool, Stop> {
        let Some(size) = self.rox_cache.busy.remove(&ptr) else { return Ok(false) };
        self.lock(cpu, "execmem_cache.mutex")?;
        if self.force_rw(cpu, ptr, size)? == 0 {
            self.fill_plain(cpu, VirtAddr(ptr), size, &[0xcc])?;
            let done =
                self.inner(cpu, "set_memory_rox", &Args::of(&[ptr, self.pages.holding(size)]))?;
            self.dropped(cpu, done);
            if self.allocation_fails() {
                self.rox_cache.pending.insert(ptr, size);
            } else {
                self.rox_cache.free.add(ptr, size);
                self.clean_cache(cpu)?;
            }
        } else {
            self.rox_cache.pending.insert(ptr, size);
        }
        self.unlock(cpu, "execmem_cache.mutex")?;
        Ok(true)
    }

    /// `execmem_cache_clean`: free ranges that are whole blocks go back to the system, each with
    /// the whole area that it lies in.
    fn clean_cache(&mut self, cpu: CpuId) -> Result<(), Stop> {
        let block = self.pages.pmd_bytes();
        let whole =
            |(start, len): &(u64, u64)| start.is_multiple_of(block) && len.is_multiple_of(block);
        let blocks: Vec<(u64, u64)> = self.rox_cache.free.iter().filter(whole).collect();
        for (start, len) in blocks {
            self.direct_map_back(cpu, start)?;
            self.rox_cache.free.cut(start, len);
            self.inner(cpu, "vfree", &Args::of(&[start]))?;
        }
        Ok(())
    }
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
