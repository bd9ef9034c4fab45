//! Areas and their pages: made, mapped, unmapped, removed, purged.
//!
//! An area's size in `alloc_vmap_area` includes the guard page; the size asked for does not.
//! Removing is what a worker does long after `vfree`, and purging comes later still: addresses
//! tie them together, never tasks.

use super::Lower;
use crate::areas::{Area, VM_ALLOW_HUGE_VMAP};
use crate::calls::Frame;
use crate::ftrace::Fields;
use crate::functions::Meaning;
use crate::mappings::Changed;
use textbed_arch::effect::{Reach, TlbScope};
use textbed_arch::{Arch, Perm, VirtAddr};
use textbed_event::{Provenance, View};

/// `log2` of the large leaf that huge vmalloc uses on all three architectures.
const PMD_SHIFT: u8 = 21;

/// Ranges longer than this are no kernel's: 512 TiB is powerpc's whole vmalloc space.
const MAX_RANGE_BYTES: u64 = 1 << 49;

/// Whether a range runs forward and can be one of a kernel.
pub(super) fn sane(start: u64, end: u64) -> Option<()> {
    (end.checked_sub(start)? <= MAX_RANGE_BYTES).then_some(())
}

fn in_vmalloc(f: &Frame) -> bool {
    f.function.meaning == Meaning::VmallocRange
}

impl Lower<'_> {
    fn page(&self) -> u64 {
        1 << self.mappings.page_shift()
    }

    fn round_up(&self, bytes: u64) -> u64 {
        bytes.checked_next_multiple_of(self.page()).unwrap_or(bytes)
    }

    pub(super) fn area_entry(&mut self, meaning: Meaning, e: &Fields<'_>) -> Option<()> {
        match meaning {
            Meaning::VmallocRange => {
                e.number(b"size")?;
            }
            Meaning::AllocArea => {
                let (virt, size) = (e.number(b"va_start")?, e.number(b"size")?);
                sane(virt, virt.checked_add(size)?)?;
                if e.number(b"failed").unwrap_or(0) == 0 {
                    self.alloc_area(virt, size);
                }
            }
            Meaning::MapPages => {
                let (start, end) = (e.number(b"start")?, e.number(b"end")?);
                sane(start, end)?;
                self.map_pages(start, end, e.number(b"prot")?);
            }
            Meaning::UnmapPages => {
                let (start, end) = (e.number(b"start")?, e.number(b"end")?);
                sane(start, end)?;
                self.lazily_freed(start, end);
                self.mappings.unmap(start, end, &mut self.changed);
                self.emit_changed(Provenance::Recorded);
            }
            Meaning::RemoveArea => self.remove_area(e.number(b"addr")?),
            Meaning::PurgeCall => {
                let own = e.number(b"start").zip(e.number(b"end"));
                if !self.seen.purged {
                    self.purged(own.filter(|(s, t)| s < t));
                }
            }
            Meaning::Purged => {
                let (start, end) = (e.number(b"start")?, e.number(b"end")?);
                e.number(b"num_purged")?;
                if start < end {
                    self.change.lazy = Some((start, end));
                    self.purged(None);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn alloc_area(&mut self, virt: u64, size_with_guard: u64) {
        let page = self.page();
        let asked = self.calls.find(self.now.stack, in_vmalloc);
        let size = asked.and_then(|f| f.arg("size"));
        let flags = asked.and_then(|f| f.arg("vmflags"));
        match size.map(|s| self.round_up(s)) {
            Some(len) if len <= size_with_guard => {
                self.area_made(virt, len, flags, Provenance::Recorded);
            }
            _ => {
                let len = size_with_guard.saturating_sub(page);
                self.area_made(virt, len, flags, Provenance::Inferred);
            }
        }
    }

    /// `log2` of the leaves that a mapping aims at.
    fn aimed_shift(&self, start: u64, end: u64, flags: Option<u64>) -> u8 {
        let size = 1u64 << PMD_SHIFT;
        let huge = flags.is_some_and(|f| f & VM_ALLOW_HUGE_VMAP != 0)
            && end.saturating_sub(start) >= size
            && start.is_multiple_of(size);
        if huge { PMD_SHIFT } else { self.mappings.page_shift() }
    }

    fn area_made(&mut self, virt: u64, len: u64, flags: Option<u64>, known_by: Provenance) {
        if len == 0 {
            return;
        }
        let made = Area { len, flags, line: self.line };
        let Some(stale) = self.areas.make(virt, made) else { return };
        for (old, area) in stale {
            self.overlap((virt, len), (old, area));
            let virt = old;
            let view = View::AreaRemoved { virt: VirtAddr(virt), len: area.len };
            self.emit(view, Provenance::Inferred);
        }
        let shift = self.aimed_shift(virt, virt.saturating_add(len), flags);
        self.emit(View::AreaMade { virt: VirtAddr(virt), len, shift }, known_by);
    }

    fn map_pages(&mut self, start: u64, end: u64, prot: u64) {
        let mut flags = None;
        let mut area = None;
        if let Some(f) = self.calls.find(self.now.stack, in_vmalloc) {
            flags = f.arg("vmflags");
            area = f.arg("size");
        } else if self.calls.find(self.now.stack, |f| f.function.meaning == Meaning::Vmap).is_some()
        {
            area = end.checked_sub(start);
        }
        // Where no tracepoint showed the area: its pages are mapped from its start.
        if let Some(len) = area.map(|s| self.round_up(s))
            && self.areas.holding(start, 0).is_none()
        {
            self.area_made(start, len, flags, Provenance::Recorded);
        }
        let shift = self.aimed_shift(start, end, flags);
        let large_end = end & !((1u64 << shift) - 1);
        self.mappings.map(start, large_end, shift, prot, &mut self.changed);
        if large_end < end {
            let page = self.mappings.page_shift();
            self.mappings.map(large_end.max(start), end, page, prot, &mut self.changed);
        }
        self.emit_changed(Provenance::Recorded);
    }

    /// An area that was there before the log began, a module's if that is known.
    pub(super) fn area_before(&mut self, virt: u64, len: u64, words: &str, module: Option<&str>) {
        if len == 0 {
            return;
        }
        self.areas.before(virt, Area { len, flags: None, line: (0, 0) });
        let shift = self.mappings.page_shift();
        self.emit(View::AreaMade { virt: VirtAddr(virt), len, shift }, Provenance::Recorded);
        self.owner_before(virt, len, words, module);
    }

    /// Emits everything that is mapped, as leaves that come to be.
    pub(crate) fn emit_mapped(&mut self) {
        let all: Vec<Changed> = self
            .mappings
            .runs()
            .map(|r| Changed {
                virt: r.virt,
                len: r.end - r.virt,
                phys: r.phys,
                shift: r.shift,
                old_shift: r.shift,
                old: Perm::empty(),
                new: r.perm,
                assumed: false,
            })
            .collect();
        for changed in &all {
            self.emit_leaf(changed, Provenance::Recorded);
            self.send_if_full();
        }
    }

    pub(super) fn area_return(&mut self, frame: &Frame, address: u64, failed: bool) {
        if frame.function.meaning != Meaning::VmallocRange || failed {
            return;
        }
        let Some(size) = frame.arg("size") else { return };
        let len = self.round_up(size);
        let flags = frame.arg("vmflags");
        if self.areas.holding(address, 0).is_none() {
            self.area_made(address, len, flags, Provenance::Recorded);
        }
        let maps_seen = self.seen.maps;
        if let Some(prot) = frame.arg("prot").filter(|_| !maps_seen) {
            let end = address.saturating_add(len);
            let shift = self.aimed_shift(address, end, flags);
            self.mappings.map(address, end, shift, prot, &mut self.changed);
            self.emit_changed(Provenance::Inferred);
        }
    }

    fn remove_area(&mut self, addr: u64) {
        let page = self.page();
        let Some((virt, area)) = self.areas.remove(addr, page) else { return };
        self.emit(View::AreaRemoved { virt: VirtAddr(virt), len: area.len }, Provenance::Recorded);
        let end = virt.saturating_add(area.len);
        self.removing(virt, end);
        self.remember_freed(virt, end);
        if !self.seen.unmaps {
            self.lazily_freed(virt, end);
            self.mappings.unmap(virt, end, &mut self.changed);
            self.emit_changed(Provenance::Inferred);
        }
    }

    /// Adds a range to what the next purge flushes.
    fn lazily_freed(&mut self, start: u64, end: u64) {
        let (a, b) = self.change.lazy.unwrap_or((start, end));
        self.change.lazy = Some((a.min(start), b.max(end)));
    }

    /// The purge flushes one range over all that was freed. Where no probe sees flushes (arm64:
    /// broadcast instructions), that is modelled.
    fn purged(&mut self, own: Option<(u64, u64)>) {
        let range = match (self.change.lazy.take(), own) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (a, b) => a.or(b),
        };
        if let Some((start, end)) = range {
            self.model_flush(start, end);
        }
    }

    /// What the kernel's `flush_tlb_kernel_range` does, where the log cannot show it.
    pub(super) fn model_flush(&mut self, start: u64, end: u64) {
        if self.seen.flushes {
            return;
        }
        // Beyond 512 pages arm64 drops everything; other architectures' flushes, unseen because
        // not probed, are taken to be as wide.
        let pages = end.saturating_sub(start) >> self.mappings.page_shift();
        let all = self.kernel.arch != Arch::Arm64 || pages >= 512;
        let (scope, len) = match all {
            true => (TlbScope::All, 0),
            false => (TlbScope::AddressLastLevel, end.saturating_sub(start)),
        };
        let view = View::TlbInvalidate {
            scope,
            reach: Reach::Broadcast,
            virt: VirtAddr(if all { 0 } else { start }),
            len,
            asid: 0,
            leaf: None,
        };
        self.emit(view, Provenance::Modelled);
    }
}
