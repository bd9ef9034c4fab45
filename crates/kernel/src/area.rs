//! Areas of kernel virtual memory: which are in use, which wait for a purge.
//!
//! Modelled: lowest fit in a range with alignment, guard pages, lookup by any address inside an
//! area (its guard page too), areas that were freed and not yet purged. From: Linux 5.19 and 6.12
//! mm/vmalloc.c. What a purge gives back to a node's pool (6.9 on) is in `pools`. Not modelled:
//! preloading, sizes of the free tree, the work item that purges when too many pages wait.

use std::collections::BTreeMap;

use textbed_arch::{FRAME_BYTES, Pfn, VirtAddr};

use crate::layout::Range;
use crate::pools::Pools;

/// Flags of an area, by their numbers in Linux.
pub mod vm_flags {
    /// Set on every area that vmalloc made.
    pub const VM_ALLOC: u64 = 0x2;
    /// The caller's own pages, mapped by vmap.
    pub const VM_MAP: u64 = 0x4;
    /// No guard page behind it.
    pub const VM_NO_GUARD: u64 = 0x40;
    /// Reset the direct map and flush before the frames go back.
    pub const VM_FLUSH_RESET_PERMS: u64 = 0x100;
    /// Large leaves allowed (from 5.18-rc4 on).
    pub const VM_ALLOW_HUGE_VMAP: u64 = 0x400;
    /// Large leaves forbidden (up to 5.18-rc3; bit 0x400 in Linux, another one here).
    pub const VM_NO_HUGE_VMAP: u64 = 0x1_0000_0000;

    /// Names that calls accept.
    pub const NAMES: &[(&str, u64)] = &[
        ("VM_ALLOC", VM_ALLOC),
        ("VM_NO_GUARD", VM_NO_GUARD),
        ("VM_FLUSH_RESET_PERMS", VM_FLUSH_RESET_PERMS),
        ("VM_ALLOW_HUGE_VMAP", VM_ALLOW_HUGE_VMAP),
        ("VM_NO_HUGE_VMAP", VM_NO_HUGE_VMAP),
    ];
}

/// A run of frames that back an area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frames {
    /// First.
    pub pfn: Pfn,
    /// How many.
    pub count: u64,
}

/// An area in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Area {
    /// First address.
    pub start: VirtAddr,
    /// Bytes, guard page included (`vm_struct.size`).
    pub size: u64,
    /// Bytes of memory mapped.
    pub len: u64,
    /// [`vm_flags`].
    pub flags: u64,
    /// Order of its allocations: 0 = small pages; with pages of 4 KiB 9 = 2 MiB.
    pub page_order: u32,
    /// What backs it, in address order.
    pub frames: Vec<Frames>,
    /// The node whose pool its addresses go to once they are purged.
    pub node: Option<u16>,
}

impl Area {
    /// First address behind it, guard page included.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start.0.saturating_add(self.size)
    }

    /// Number of its 4 KiB frames.
    #[must_use]
    pub fn nr_pages(&self) -> u64 {
        self.frames.iter().map(|f| f.count).sum()
    }

    /// The frame that backs an address of it.
    #[must_use]
    pub fn frame_at(&self, virt: VirtAddr) -> Option<Pfn> {
        let mut index = virt.0.checked_sub(self.start.0)? / FRAME_BYTES;
        for run in &self.frames {
            if index < run.count {
                return Some(Pfn(run.pfn.0 + index));
            }
            index -= run.count;
        }
        None
    }
}

/// Every area.
#[derive(Clone, Default, Debug)]
pub struct Areas {
    busy: BTreeMap<u64, Area>,
    /// Freed, unmapped, not yet flushed: start, then end and node.
    lazy: BTreeMap<u64, (u64, Option<u16>)>,
    /// What a purge under way took from these: it is being flushed.
    purging: BTreeMap<u64, (u64, Option<u16>)>,
    /// Purged addresses that nodes keep for themselves.
    pools: Pools,
    /// Out of the tree, with their addresses still taken: start and end.
    hidden: BTreeMap<u64, u64>,
}

impl Areas {
    /// The area that holds the address, guard page included (`find_vm_area`).
    #[must_use]
    pub fn find(&self, virt: VirtAddr) -> Option<&Area> {
        let (_, area) = self.busy.range(..=virt.0).next_back()?;
        (virt.0 < area.end()).then_some(area)
    }

    /// As [`Areas::find`], to change it.
    pub fn find_mut(&mut self, virt: VirtAddr) -> Option<&mut Area> {
        let (_, area) = self.busy.range_mut(..=virt.0).next_back()?;
        (virt.0 < area.end()).then_some(area)
    }

    /// The lowest address in `range` where `size` bytes fit at this alignment (a power of two, at
    /// least a page).
    #[must_use]
    pub fn fit(&self, range: Range, size: u64, align: u64) -> Option<VirtAddr> {
        let mask = align.max(FRAME_BYTES).checked_sub(1)?;
        let up = |at: u64| at.checked_add(mask).map(|a| a & !mask);
        let mut at = up(range.start.0)?;
        loop {
            let end = at.checked_add(size)?;
            if end > range.end() {
                return None;
            }
            match self.blocker(at, end) {
                Some(behind) => at = up(behind)?,
                None => return Some(VirtAddr(at)),
            }
        }
    }

    /// End of an area, busy or lazy, that overlaps `[start, end)`.
    fn blocker(&self, start: u64, end: u64) -> Option<u64> {
        let busy = self.busy.range(..end).next_back().map(|(_, a)| a.end());
        let lazy = self.lazy.range(..end).next_back().map(|(_, (e, _))| *e);
        let purging = self.purging.range(..end).next_back().map(|(_, (e, _))| *e);
        let hidden = self.hidden.range(..end).next_back().map(|(_, e)| *e);
        let pooled = self.pools.last_below(end);
        let all = busy.into_iter().chain(lazy).chain(purging).chain(hidden).chain(pooled);
        all.filter(|e| *e > start).max()
    }

    /// The address that a node's pool has for this size and alignment.
    pub fn pooled(&mut self, node: u16, size: u64, align: u64) -> Option<VirtAddr> {
        self.pools.take(node, size, align).map(VirtAddr)
    }

    /// Takes an area into use; its place came from [`Areas::fit`].
    pub fn insert(&mut self, area: Area) {
        self.busy.insert(area.start.0, area);
    }

    /// Takes an area out of use; its addresses stay reserved until a purge.
    pub fn remove(&mut self, start: VirtAddr) -> Option<Area> {
        let area = self.busy.remove(&start.0)?;
        self.lazy.insert(area.start.0, (area.end(), area.node));
        Some(area)
    }

    /// Takes an area out of the tree; nobody finds it, and nobody gets its addresses.
    pub fn hide(&mut self, start: VirtAddr) -> Option<Area> {
        let area = self.busy.remove(&start.0)?;
        self.hidden.insert(area.start.0, area.end());
        Some(area)
    }

    /// A hidden area waits for the next purge.
    pub fn retire(&mut self, area: &Area) {
        self.hidden.remove(&area.start.0);
        self.lazy.insert(area.start.0, (area.end(), area.node));
    }

    /// Puts a hidden area back.
    pub fn show(&mut self, area: Area) {
        self.hidden.remove(&area.start.0);
        self.busy.insert(area.start.0, area);
    }

    /// Gives the place of a never mapped area back at once.
    pub fn forget(&mut self, start: VirtAddr) {
        self.busy.remove(&start.0);
    }

    /// Areas that wait for a flush: start and length.
    pub(crate) fn lazy(&self) -> impl Iterator<Item = (VirtAddr, u64)> {
        self.lazy.iter().map(|(start, (end, _))| (VirtAddr(*start), end.saturating_sub(*start)))
    }

    /// Takes what was lazily freed to be flushed, and says where it lies (`[start, end)`), if there
    /// is any. What is freed from then on is the next purge's.
    pub fn begin_purge(&mut self) -> Option<(u64, u64)> {
        self.purging.append(&mut self.lazy);
        let start = *self.purging.keys().next()?;
        let end = self.purging.values().map(|(end, _)| *end).max()?;
        Some((start, end))
    }

    /// Bytes of lazily freed areas, guard pages included.
    #[must_use]
    pub fn lazy_bytes(&self) -> u64 {
        self.lazy.iter().map(|(start, (end, _))| end.saturating_sub(*start)).sum()
    }

    /// Makes the addresses that [`Areas::begin_purge`] took free again, or puts them into the pools
    /// of their nodes; with `everything` (where addresses are short) the pools are emptied too.
    /// The pools count in pages of `page_bytes`.
    pub fn end_purge(&mut self, everything: bool, page_bytes: u64) {
        self.pools.decay(everything);
        for (start, (end, node)) in std::mem::take(&mut self.purging) {
            if let Some(node) = node.filter(|_| !everything) {
                self.pools.add(node, start, end, page_bytes);
            }
        }
    }

    /// Number of areas in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.busy.len()
    }

    /// Whether none is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.busy.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(start: u64, pages: u64) -> Area {
        Area {
            start: VirtAddr(start),
            size: (pages + 1) * FRAME_BYTES,
            len: pages * FRAME_BYTES,
            flags: vm_flags::VM_ALLOC,
            page_order: 0,
            frames: vec![
                Frames { pfn: Pfn(7), count: 1 },
                Frames { pfn: Pfn(100), count: pages - 1 },
            ],
            node: None,
        }
    }

    #[test]
    fn lowest_fit_skips_busy_and_lazy_areas() {
        let range = Range::between(0x10000, 0x40000);
        let mut areas = Areas::default();
        areas.insert(area(0x10000, 3));
        assert_eq!(areas.fit(range, 0x2000, 1), Some(VirtAddr(0x14000)));
        assert_eq!(areas.fit(range, 0x2000, 0x8000), Some(VirtAddr(0x18000)));
        areas.remove(VirtAddr(0x10000));
        assert_eq!(areas.fit(range, 0x2000, 1), Some(VirtAddr(0x14000)));
        assert_eq!(areas.begin_purge(), Some((0x10000, 0x14000)));
        assert_eq!(areas.fit(range, 0x2000, 1), Some(VirtAddr(0x14000)));
        areas.end_purge(false, FRAME_BYTES);
        assert_eq!(areas.fit(range, 0x2000, 1), Some(VirtAddr(0x10000)));
        assert_eq!(areas.fit(range, 0x30001, 1), None);
        assert_eq!(areas.fit(range, u64::MAX, 1), None);
    }

    #[test]
    fn what_is_freed_while_a_purge_flushes_is_the_next_ones() {
        let range = Range::between(0x10000, 0x40000);
        let mut areas = Areas::default();
        areas.insert(area(0x10000, 3));
        areas.insert(area(0x14000, 3));
        areas.remove(VirtAddr(0x10000));
        assert_eq!(areas.begin_purge(), Some((0x10000, 0x14000)));
        let second = areas.hide(VirtAddr(0x14000)).unwrap();
        areas.retire(&second);
        areas.end_purge(false, FRAME_BYTES);
        assert_eq!(areas.fit(range, 0x8000, 1), Some(VirtAddr(0x18000)));
        assert_eq!(areas.begin_purge(), Some((0x14000, 0x18000)));
        areas.end_purge(false, FRAME_BYTES);
        assert_eq!(areas.fit(range, 0x8000, 1), Some(VirtAddr(0x10000)));
    }

    #[test]
    fn an_area_is_found_by_any_of_its_addresses_and_its_guard_page() {
        let mut areas = Areas::default();
        areas.insert(area(0x10000, 3));
        for at in [0x10000, 0x12fff, 0x13000, 0x13fff] {
            assert!(areas.find(VirtAddr(at)).is_some(), "{at:#x}");
        }
        assert!(areas.find(VirtAddr(0x14000)).is_none() && areas.find(VirtAddr(0xffff)).is_none());
        let found = areas.find(VirtAddr(0x11000)).unwrap();
        assert_eq!(found.frame_at(VirtAddr(0x11000)), Some(Pfn(100)));
        assert_eq!(found.frame_at(VirtAddr(0x13000)), None);
        assert_eq!(found.nr_pages(), 3);
    }
}
