//! What went away unseen: mappings that tables taken before the log have, and that were removed
//! before the probe that shows removals was armed.
//!
//! An area of the allocator's own pages shares no frame with another such area (its pages come
//! from the page allocator and go back there after the entries are cleared; Linux 6.1 and 6.12
//! mm/vmalloc.c `__vmalloc_area_node`, `vfree`). So when the frame of a page that the allocator
//! mapped in this log becomes known, and an older mapping has it too, the older one is gone: it is
//! taken out, as inferred, and counted. Areas made for pages that somebody else has (`vmap`,
//! `ioremap` and the like, by the words of `vmallocinfo`) may share frames and are left alone.
//!
//! Not modelled: the same for mappings of which no frame is known.

use super::Lower;
use rustc_hash::FxHashMap;
use textbed_event::Provenance;

/// The word of `vmallocinfo` for an area of the allocator's own pages (VM_ALLOC).
const OWN_PAGES: &str = " vmalloc";

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Frames of pages that may have gone unseen: physical to virtual address.
    old: FxHashMap<u64, u64>,
}

impl Lower<'_> {
    /// Looks at what the tables have in `areas` (first address, bytes, words) and between them,
    /// outside of the direct map. Large leaves and what is executable are no thread's stack and no
    /// buffer of the loader: they are left alone.
    pub(crate) fn may_have_gone(&mut self, areas: &[(u64, u64, String)]) {
        let shift = self.mappings.page_shift();
        let Some(direct) = self.direct_map() else { return };
        let mut shared: Vec<(u64, u64)> = areas
            .iter()
            .filter(|(_, _, words)| !format!(" {words}").contains(OWN_PAGES))
            .map(|(virt, len, _)| (*virt, virt.saturating_add(*len)))
            .collect();
        let (Some(first), Some(last)) =
            (areas.iter().map(|a| a.0).min(), areas.iter().map(|a| a.0.saturating_add(a.1)).max())
        else {
            return;
        };
        shared.sort_unstable();
        let is_shared = |virt: u64| {
            let at = shared.partition_point(|(from, _)| *from <= virt);
            at.checked_sub(1).and_then(|i| shared.get(i)).is_some_and(|(_, end)| virt < *end)
        };
        for run in self.mappings.runs_in(first, last) {
            let Some(phys) = run.phys else { continue };
            let in_direct_map = run.virt.wrapping_sub(direct) == phys;
            if run.shift != shift || run.perm.executable() || in_direct_map {
                continue;
            }
            for virt in (run.virt..run.end).step_by(1 << shift) {
                if !is_shared(virt) {
                    self.unseen.old.insert(phys.wrapping_add(virt - run.virt), virt);
                }
            }
        }
    }

    /// The frame of a page that is mapped is known from here on.
    pub(super) fn learn_frame(&mut self, virt: u64, page: u64, phys: u64) {
        if !self.unseen.old.is_empty() {
            self.gone(virt, page, phys);
        }
        self.mappings.learn_phys(virt, page, phys);
    }

    fn gone(&mut self, virt: u64, page: u64, phys: u64) {
        let by_allocator = self.areas.holding(virt, 0).is_some_and(|(_, a)| a.flags.is_some());
        let fresh = self.mappings.at(virt).is_some_and(|run| run.phys.is_none());
        if !by_allocator || !fresh {
            return;
        }
        let Some(old) = self.unseen.old.remove(&phys) else { return };
        let still = self.mappings.at(old).and_then(|r| r.phys?.checked_add(old - r.virt));
        if old != virt && still == Some(phys) {
            self.counts.gone_unseen += 1;
            self.mappings.unmap(old, old.saturating_add(page), &mut self.changed);
            self.emit_changed(Provenance::Inferred);
        }
    }
}
