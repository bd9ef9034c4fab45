//! x86 page attributes: the change_page_attr machinery.
//!
//! Modelled: the walk leaf by leaf (in `walk`), others let in after each, splitting with its global
//! flush, changes of whole large leaves in place, the alias in the direct map and (for frames of
//! the image) in the image, the flush at the end and when it is left out, that of caches behind it
//! where a memory type comes, errors without rollback, WARNs. From: Linux 5.19, 6.1, 6.4, 6.6,
//! 6.12, 6.18 and 7.0 arch/x86/mm/pat/set_memory.c. Not modelled: EFI page tables, CPUs without
//! CLFLUSHOPT, the dirty bit (cleared with RW from 6.6 on), protections of the PCI BIOS and of
//! .rodata apart from text.

use std::collections::VecDeque;

use textbed_arch::{
    CpuId, FRAME_BYTES, FRAME_SHIFT, Features, Perm, Pfn, PhysAddr, SpaceId, VirtAddr,
};
use textbed_event::{RefusalReason, WarnReason};
use textbed_machine::{MapError, Mapping, Span};

use crate::caps::Fact;
use crate::errno::{EFAULT, ENOMEM};
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::layout::Range;
use crate::set_memory::Change;
use crate::steps::{self, Step, Then, cross_step, flush_step, once, pause, step, step_then_others};
use crate::vfree::purge_steps;
use crate::x86::walk::{Alias, AtLeaf, Cpa, Outcome, Pages, Walk};

/// The lock of those who change attributes.
pub(super) const CPA_LOCK: &str = "cpa_lock";

/// Pages up to which a range is flushed page by page (`tlb_single_page_flush_ceiling`).
pub(crate) const FLUSH_CEILING_PAGES: u64 = 33;

/// `log2` of the largest leaf.
const PUD_SHIFT: u32 = 30;
/// `log2` of the leaf below it.
const PMD_SHIFT: u32 = 21;

impl Kernel {
    /// `set_memory_*` on x86.
    pub(crate) fn x86_set_memory(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        pages: u64,
        change: Change,
    ) -> Result<i64, Stop> {
        let start = self.whole_pages(cpu, addr);
        self.canonical_pages(start, pages)?;
        let bytes = pages.saturating_mul(FRAME_BYTES);
        let (set, clear) = change.set_clear();
        let nx_only = (set | clear) == Perm::EXEC;
        let skips = nx_only && self.caps.yes(Fact::AliasSkipsNx);
        let check_alias = change != Change::NpNoalias && !skips;
        let cpa = Cpa { check_alias, ..Cpa::rights(set, clear) };
        let done = move |k: &mut Kernel, _, outcome: Outcome| {
            if change == Change::Rox && outcome.changed && outcome.error == 0 {
                k.later([step(move |k, cpu| k.cpa_collapse(cpu, start, pages))]);
            }
            k.later([step(move |k, cpu| {
                k.cpa_returns(cpu, start, bytes, change, outcome);
                Ok(())
            })]);
            Ok(())
        };
        let change = cpa.steps(Pages::Range(start, pages), Box::new(done));
        self.with_steps(vec![change])
    }

    /// What the call returns, and refuses.
    fn cpa_returns(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        bytes: u64,
        change: Change,
        outcome: Outcome,
    ) {
        self.returns(outcome.error);
        if outcome.error != 0 {
            let reason = if outcome.error == -ENOMEM {
                RefusalReason::NoMemory
            } else {
                RefusalReason::NotMapped
            };
            let done = outcome.done.saturating_mul(FRAME_BYTES);
            let flags = textbed_event::Flags::default();
            let virt = start.offset(done);
            self.refuse(cpu, flags, change.promise(), reason, virt, bytes.saturating_sub(done));
        }
    }

    /// `set_memory_4k`: splits what is large, here and in the direct map, with the flush of each
    /// split; from 6.15 on the pages also carry a bit that keeps them small.
    pub(crate) fn x86_set_small(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        pages: u64,
    ) -> Result<i64, Stop> {
        let start = self.whole_pages(cpu, addr);
        self.canonical_pages(start, pages)?;
        let marks = self.caps.yes(Fact::CpaCollapse);
        let cpa = Cpa { split: true, ..Cpa::rights(Perm::empty(), Perm::empty()) };
        let mut steps = purge_steps(None, false);
        let range = Pages::Range(start, pages);
        steps.push(Walk::new(range.clone(), cpa).steps(move |mut outcome| {
            // The bit is a change of entries, as far as it got.
            let done = outcome.done;
            outcome.changed = marks && done > 0;
            let mut steps = vec![step(move |k, _| {
                if marks && done > 0 {
                    k.users.kept_small.push(Range { start, len: done * FRAME_BYTES });
                }
                k.returns(outcome.error);
                Ok(())
            })];
            steps.extend(cpa_flush(range, outcome, false));
            steps
        }));
        self.with_steps(steps)
    }

    /// The page of an address, which should be its beginning.
    pub(super) fn whole_pages(&mut self, cpu: CpuId, addr: VirtAddr) -> VirtAddr {
        let start = addr.align_down(FRAME_SHIFT);
        if start != addr {
            self.warn_once(cpu, "cpa: unaligned", WarnReason::Unaligned, addr);
        }
        start
    }

    /// `set_direct_map_*_noflush` of frames that follow each other, in one walk: what covers them
    /// whole is not split. No aliases, no flush but a split's own. `then` gets 0 or an error.
    pub(crate) fn x86_set_direct_map(
        &mut self,
        pfn: Pfn,
        pages: u64,
        present: bool,
        then: steps::Then<i64>,
    ) {
        let Some(start) = self.direct_map_of(pfn) else {
            return self.later([once(move |k, cpu| then(k, cpu, 0))]);
        };
        let (set, clear) = if present {
            (Perm::PRESENT | Perm::WRITE, Perm::empty())
        } else {
            // Without PRESENT the global bit would read as PROTNONE: it goes too, and stays away.
            (Perm::empty(), Perm::PRESENT | Perm::WRITE | Perm::GLOBAL)
        };
        let cpa = Cpa { check_alias: false, ..Cpa::rights(set, clear) };
        let walk = Walk::new(Pages::Range(start, pages), cpa);
        self.later([walk.steps(|outcome| vec![once(move |k, cpu| then(k, cpu, outcome.error))])]);
    }

    /// Whether changes of attributes exclude each other: debug_pagealloc has the direct map made of
    /// small pages, and its own changes come from any context.
    pub(super) fn has_cpa_lock(&self) -> bool {
        !self.config.on("debug_pagealloc")
    }

    /// The entry of an address, valid or not.
    pub(super) fn entry_at(&self, virt: VirtAddr) -> Option<Mapping> {
        match self.machine.leaves(SpaceId::KERNEL, virt, 1).next() {
            Some(Span::Mapped(mapping)) => Some(mapping),
            _ => None,
        }
    }

    /// `__change_page_attr`: one leaf.
    pub(super) fn cpa_step(
        &mut self,
        cpu: CpuId,
        at: VirtAddr,
        left: u64,
        cpa: Cpa,
        primary: bool,
        outcome: &mut Outcome,
    ) -> Result<AtLeaf, Stop> {
        let (set, clear) = self.static_protections(at, cpa);
        let Some(leaf) = self.entry_at(at) else {
            return Ok(self.cpa_fault(cpu, at, left, primary));
        };
        let format = self.machine.format();
        let level = format.level_for_shift(leaf.shift).unwrap_or(format.last_level());
        let pages = 1u64 << leaf.shift.saturating_sub(FRAME_SHIFT);
        let inside = at.0.wrapping_sub(leaf.virt.0) / FRAME_BYTES;
        let take = left.min(pages - inside);
        if leaf.shift > FRAME_SHIFT {
            if cpa.split {
                return Ok(AtLeaf::Split);
            }
            let new = format.with_perm(level, leaf.raw, set, clear);
            if format.with_pat_bits(level, new, cpa.pat_set, cpa.pat_clear) == leaf.raw {
                return Ok(AtLeaf::Done(take));
            }
            if take < pages {
                return Ok(AtLeaf::Split);
            }
        }
        let new = (leaf.perm - clear) | set;
        let touched = (leaf.perm ^ new) & (Perm::WRITE | Perm::EXEC);
        let insecure = new.writable() && new.executable() && !touched.is_empty();
        if insecure && self.caps.yes(Fact::WarnsWriteExec) {
            self.warn_once(cpu, "cpa: W^X", WarnReason::WriteExec, at);
        }
        let len = take * FRAME_BYTES;
        let (rights, pat) = ((set, clear), (cpa.pat_set, cpa.pat_clear));
        let changed = self.machine.protect_as(cpu, SpaceId::KERNEL, (at, len), rights, pat)?;
        if primary && changed > 0 {
            outcome.changed = true;
        }
        Ok(AtLeaf::Done(take))
    }

    /// `__cpa_process_fault`: nothing is mapped there.
    fn cpa_fault(&mut self, cpu: CpuId, at: VirtAddr, left: u64, primary: bool) -> AtLeaf {
        if !primary || self.layout.direct_map.contains(at) {
            let to_end = 512 - (at.page_number() & 511);
            let gap = self.machine.leaves(SpaceId::KERNEL, at, left.min(to_end) * FRAME_BYTES);
            let pages = match gap.into_iter().next() {
                Some(Span::Gap { len, .. }) => (len / FRAME_BYTES).max(1),
                _ => 1,
            };
            return AtLeaf::Done(pages.min(left));
        }
        self.warn(cpu, WarnReason::NotMapped, at);
        AtLeaf::Error(-EFAULT)
    }

    /// `cpa_process_alias`: the direct map follows, and the image for its own frames.
    pub(super) fn cpa_aliases(&self, at: VirtAddr, phys: PhysAddr, pages: u64) -> VecDeque<Alias> {
        let mut aliases = VecDeque::new();
        if !self.layout.direct_map.contains(at)
            && let Some(at) = self.direct_map_of(phys.pfn())
        {
            aliases.push_back(Alias { at, pages, checked: true });
        }
        let image = self.image.pfn.addr().0;
        let in_image = phys.0.checked_sub(image).filter(|o| *o < self.layout.text.len);
        if let Some(offset) = in_image.filter(|_| !self.is_core_text(at)) {
            // Its error is ignored.
            let at = self.layout.text.start.offset(offset);
            aliases.push_back(Alias { at, pages, checked: false });
        }
        aliases
    }

    /// `static_protections`: the image's text stays executable, and read-only.
    fn static_protections(&self, at: VirtAddr, cpa: Cpa) -> (Perm, Perm) {
        if self.is_core_text(at) && self.config.on("STRICT_KERNEL_RWX") {
            (cpa.set - Perm::WRITE, cpa.clear - Perm::EXEC)
        } else {
            (cpa.set, cpa.clear)
        }
    }

    /// Splits the large leaf at an address once, unless somebody else did meanwhile: whether it
    /// did, and then who calls flushes everything everywhere; or an error.
    pub(super) fn split_large(
        &mut self,
        cpu: CpuId,
        at: VirtAddr,
    ) -> Result<Result<bool, i64>, Stop> {
        if self.allocation_fails() {
            return Ok(Err(-ENOMEM));
        }
        if self.entry_at(at).is_none_or(|leaf| leaf.shift <= FRAME_SHIFT) {
            return Ok(Ok(false));
        }
        match self.machine.split(cpu, SpaceId::KERNEL, at) {
            Ok(()) => Ok(Ok(true)),
            Err(MapError::OutOfMemory) => Ok(Err(-ENOMEM)),
            Err(other) => Err(other.into()),
        }
    }

    /// `cpa_collapse_large_pages`: tables of 512 like entries become leaves again, and then what
    /// they lie in; one more flush of everything. The direct map stays as it is.
    fn cpa_collapse(&mut self, cpu: CpuId, start: VirtAddr, pages: u64) -> Result<(), Stop> {
        if !self.caps.yes(Fact::CpaCollapse) || !self.features.contains(Features::X86_PSE) {
            return Ok(());
        }
        let end = start.0.saturating_add(pages.saturating_mul(FRAME_BYTES));
        let mut joined = false;
        for shift in [PMD_SHIFT, PUD_SHIFT] {
            let large = shift == PMD_SHIFT || self.features.contains(Features::X86_GBPAGES);
            let mut at = start.0 & !((1 << shift) - 1);
            while large && at < end {
                let below = self.entry_at(VirtAddr(at)).map(|m| m.shift);
                let (from, to) = (at, at.saturating_add(1 << shift));
                let kept = |r: &Range| r.start.0 < to && from < r.end();
                if below == Some(shift - 9) && !self.users.kept_small.iter().any(kept) {
                    match self.machine.collapse(cpu, SpaceId::KERNEL, VirtAddr(at)) {
                        Ok(()) => joined = true,
                        Err(MapError::NotUniform { .. } | MapError::NoNextSize { .. }) => {}
                        Err(other) => return Err(other.into()),
                    }
                }
                let Some(next) = at.checked_add(1 << shift) else { break };
                at = next;
            }
        }
        if joined {
            let free = step(|k, cpu| {
                k.machine.free_tables(cpu);
                Ok(())
            });
            self.later([pause(), flush_step(|k, cpu| k.flush_tlb_all(cpu)), free]);
        }
        Ok(())
    }
}

impl Cpa {
    /// `change_page_attr_set_clr`: the purge, the walk, the flush. `then` gets what came of it.
    pub(super) fn steps(self, pages: Pages, then: Then<Outcome>) -> Step {
        once(move |k, _| {
            k.later(purge_steps(None, false));
            k.later([Walk::new(pages.clone(), self).steps(move |outcome| {
                let mut steps = cpa_flush(pages, outcome, self.pat_set != 0);
                steps.push(once(move |k, cpu| then(k, cpu, outcome)));
                steps
            })]);
            Ok(())
        })
    }
}

/// The flush at the end, that of caches behind it where a memory type comes. Nothing is flushed if
/// no entry of the range itself changed, even if an alias did.
fn cpa_flush(pages: Pages, outcome: Outcome, cache: bool) -> Vec<Step> {
    if !outcome.changed {
        return Vec::new();
    }
    let start = pages.at(0);
    let check = step(move |k, cpu| match k.machine.irqs_on(cpu) {
        true => Ok(()),
        false => Err(Stop::died("BUG_ON(irqs_disabled()) in cpa_flush", start)),
    });
    if outcome.error != 0 {
        // cpa_flush_all: by interrupts whatever the CPU can do.
        return vec![check, cross_step(move |k, cpu| k.cpa_flush_all(cpu, cache))];
    }
    let fence =
        || step_then_others(|k: &mut Kernel, cpu| Ok(k.machine.op_named(cpu, "mfence", 0)?));
    let lines = (0..if cache { pages.count() } else { 0 }).map(|page| pages.at(page));
    let lines: Vec<Step> =
        lines.map(|at| step_then_others(move |k, cpu| k.clflush(cpu, at))).collect();
    let flush = flush_step(move |k, cpu| k.cpa_flush_tlb(cpu, &pages, outcome.alias));
    let mut steps = vec![check, flush];
    if cache {
        steps.push(fence());
        steps.extend(lines);
        steps.push(fence());
    }
    steps
}

impl Kernel {
    /// Translations of pages, on all CPUs. From 6.15 on that is one range whatever pages they are.
    fn cpa_flush_tlb(&mut self, cpu: CpuId, pages: &Pages, all: bool) -> Result<(), Stop> {
        let count = pages.count();
        if all || count > FLUSH_CEILING_PAGES {
            return self.flush_tlb_all(cpu);
        }
        match pages {
            Pages::Array(pages) if !self.caps.yes(Fact::CpaFlushesRange) => {
                self.flush_tlb_each(cpu, pages)
            }
            _ => self.flush_tlb_pages(cpu, pages.at(0), count),
        }
    }

    /// `clflush_cache_range_opt` of a page, if it is mapped.
    fn clflush(&mut self, cpu: CpuId, at: VirtAddr) -> Result<(), Stop> {
        if self.machine.lookup(SpaceId::KERNEL, at).is_none() {
            return Ok(());
        }
        let line = self.machine.header().dline_bytes;
        self.by_line(cpu, "clflushopt", at, FRAME_BYTES, line)
    }
}
