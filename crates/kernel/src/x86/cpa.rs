//! x86 page attributes: the change_page_attr machinery.
//!
//! Modelled: the walk leaf by leaf, splitting with its global flush, changes of whole large leaves
//! in place, the alias in the direct map and (for frames of the image) in the image, the flush at
//! the end and when it is left out, errors without rollback, WARNs. From: Linux 5.19, 6.1, 6.4 and
//! 6.12 arch/x86/mm/pat/set_memory.c. Not modelled: cache attributes, EFI page tables, the dirty
//! bit (cleared with RW from 6.6 on), protections of the PCI BIOS and of .rodata apart from text.

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

/// Pages up to which a range is flushed page by page (`tlb_single_page_flush_ceiling`).
pub(crate) const FLUSH_CEILING_PAGES: u64 = 33;

/// `log2` of the largest leaf.
const PUD_SHIFT: u32 = 30;
/// `log2` of the leaf below it.
const PMD_SHIFT: u32 = 21;

/// A change under way.
#[derive(Clone, Copy, Debug)]
struct Cpa {
    set: Perm,
    clear: Perm,
    /// Whether other mappings of the same frames follow.
    check_alias: bool,
}

/// What came of it.
#[derive(Clone, Copy, Default, Debug)]
struct Outcome {
    /// 0, or a negative error number.
    error: i64,
    /// Pages done before the error.
    done: u64,
    /// An entry of the range itself changed.
    changed: bool,
    /// Another mapping was looked at: the flush is a full one.
    alias: bool,
}

/// What one step did.
enum Step {
    Done(u64),
    Error(i64),
}

impl Kernel {
    /// `set_memory_*` on x86.
    pub(crate) fn x86_set_memory(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        pages: u64,
        change: Change,
    ) -> Result<i64, Stop> {
        let start = addr.align_down(FRAME_SHIFT);
        if start != addr {
            self.warn_once(cpu, "cpa: unaligned", WarnReason::Unaligned, addr);
        }
        let bytes = pages.saturating_mul(FRAME_BYTES);
        let last = VirtAddr(start.0.saturating_add(bytes.saturating_sub(1)));
        let format = self.machine.format();
        if !format.is_canonical(start) || !format.is_canonical(last) {
            return Err(Stop::not_modelled("page attributes of non-canonical addresses"));
        }
        self.purge(cpu, None)?;
        let (set, clear) = change.set_clear();
        let nx_only = (set | clear) == Perm::EXEC;
        let skips = nx_only && self.caps.yes(Fact::AliasSkipsNx);
        let check_alias = change != Change::NpNoalias && !skips;
        let outcome = self.cpa_range(cpu, start, pages, Cpa { set, clear, check_alias })?;
        self.cpa_flush(cpu, start, pages, outcome)?;
        if change == Change::Rox && outcome.changed && outcome.error == 0 {
            self.cpa_collapse(cpu, start, pages)?;
        }
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
        Ok(outcome.error)
    }

    /// `set_memory_4k`: splits what is large, with the flush of each split; from 6.15 on the pages
    /// also carry a bit that keeps them small.
    pub(crate) fn x86_set_small(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        pages: u64,
    ) -> Result<i64, Stop> {
        let start = addr.align_down(FRAME_SHIFT);
        if start != addr {
            self.warn_once(cpu, "cpa: unaligned", WarnReason::Unaligned, addr);
        }
        let len = pages.saturating_mul(FRAME_BYTES);
        let format = self.machine.format();
        let last = VirtAddr(start.0.saturating_add(len.saturating_sub(1)));
        if !format.is_canonical(start) || !format.is_canonical(last) {
            return Err(Stop::not_modelled("page attributes of non-canonical addresses"));
        }
        self.purge(cpu, None)?;
        self.lock(cpu, "cpa_lock")?;
        let (mut at, mut error) = (start, 0);
        while at.0 < start.0.saturating_add(len) && error == 0 {
            match self.entry_at(at) {
                None => {
                    self.warn(cpu, WarnReason::NotMapped, at);
                    error = -EFAULT;
                }
                Some(leaf) if leaf.shift > FRAME_SHIFT => error = self.split_large(cpu, at)?,
                Some(_) => at = at.offset(FRAME_BYTES),
            }
        }
        self.unlock(cpu, "cpa_lock")?;
        if error == 0 && len > 0 && self.caps.yes(Fact::CpaCollapse) {
            self.users.kept_small.push(Range { start, len });
            self.flush_tlb_all(cpu)?;
        }
        Ok(error)
    }

    /// `set_direct_map_*_noflush` of one frame: no aliases, no flush but a split's own.
    pub(crate) fn x86_set_direct_map(
        &mut self,
        cpu: CpuId,
        pfn: Pfn,
        present: bool,
    ) -> Result<i64, Stop> {
        let Some(start) = self.direct_map_of(pfn) else { return Ok(0) };
        let (set, clear) = if present {
            (Perm::PRESENT | Perm::WRITE, Perm::empty())
        } else {
            // Without PRESENT the global bit would read as PROTNONE: it goes too, and stays away.
            (Perm::empty(), Perm::PRESENT | Perm::WRITE | Perm::GLOBAL)
        };
        let outcome = self.cpa_range(cpu, start, 1, Cpa { set, clear, check_alias: false })?;
        Ok(outcome.error)
    }

    /// The loop over a range, aliases after each step.
    fn cpa_range(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        pages: u64,
        cpa: Cpa,
    ) -> Result<Outcome, Stop> {
        let mut outcome = Outcome::default();
        self.lock(cpu, "cpa_lock")?;
        while outcome.done < pages {
            let at = start.offset(outcome.done * FRAME_BYTES);
            let phys = self.entry_at(at).map(|m| m.phys.offset(at.0.wrapping_sub(m.virt.0)));
            match self.cpa_step(cpu, at, pages - outcome.done, cpa, true, &mut outcome)? {
                Step::Error(error) => {
                    outcome.error = error;
                    break;
                }
                Step::Done(n) => {
                    if let (true, Some(phys)) = (cpa.check_alias, phys) {
                        let error = self.cpa_alias(cpu, at, phys, n, cpa, &mut outcome)?;
                        if error != 0 {
                            outcome.error = error;
                            break;
                        }
                    }
                    outcome.done += n;
                }
            }
        }
        self.unlock(cpu, "cpa_lock")?;
        Ok(outcome)
    }

    /// The entry of an address, valid or not.
    fn entry_at(&self, virt: VirtAddr) -> Option<Mapping> {
        match self.machine.leaves(SpaceId::KERNEL, virt, 1).next() {
            Some(Span::Mapped(mapping)) => Some(mapping),
            _ => None,
        }
    }

    /// `__change_page_attr`: one leaf, or a run of small pages that look the same.
    fn cpa_step(
        &mut self,
        cpu: CpuId,
        at: VirtAddr,
        left: u64,
        cpa: Cpa,
        primary: bool,
        outcome: &mut Outcome,
    ) -> Result<Step, Stop> {
        let (set, clear) = self.static_protections(at, cpa);
        loop {
            let Some(leaf) = self.entry_at(at) else {
                return Ok(self.cpa_fault(cpu, at, left, primary));
            };
            let format = self.machine.format();
            let level = format.level_for_shift(leaf.shift).unwrap_or(format.last_level());
            let pages = 1u64 << leaf.shift.saturating_sub(FRAME_SHIFT);
            let inside = at.0.wrapping_sub(leaf.virt.0) / FRAME_BYTES;
            let take = left.min(pages - inside);
            if leaf.shift > FRAME_SHIFT {
                if format.with_perm(level, leaf.raw, set, clear) == leaf.raw {
                    return Ok(Step::Done(take));
                }
                if take < pages {
                    match self.split_large(cpu, at)? {
                        0 => continue,
                        error => return Ok(Step::Error(error)),
                    }
                }
            }
            let run =
                if leaf.shift > FRAME_SHIFT { take } else { self.run_of_pages(at, left, leaf) };
            let new = (leaf.perm - clear) | set;
            let touched = (leaf.perm ^ new) & (Perm::WRITE | Perm::EXEC);
            let insecure = new.writable() && new.executable() && !touched.is_empty();
            if insecure && self.caps.yes(Fact::WarnsWriteExec) {
                self.warn_once(cpu, "cpa: W^X", WarnReason::WriteExec, at);
            }
            let len = run * FRAME_BYTES;
            let changed = self.machine.protect(cpu, SpaceId::KERNEL, at, len, set, clear)?;
            if primary && changed > 0 {
                outcome.changed = true;
            }
            return Ok(Step::Done(run));
        }
    }

    /// Number of small pages from `at` on whose entries have the same permission, at most to the
    /// end of their table.
    fn run_of_pages(&self, at: VirtAddr, left: u64, first: Mapping) -> u64 {
        let to_end = 512 - (at.page_number() & 511);
        let len = left.min(to_end) * FRAME_BYTES;
        let mut run = 0;
        for span in self.machine.leaves(SpaceId::KERNEL, at, len) {
            match span {
                Span::Mapped(m) if m.shift == FRAME_SHIFT && m.perm == first.perm => {
                    let follows = m.phys.0 == first.phys.0.wrapping_add(run * FRAME_BYTES);
                    if !follows {
                        break;
                    }
                    run += 1;
                }
                _ => break,
            }
        }
        run.max(1)
    }

    /// `__cpa_process_fault`: nothing is mapped there.
    fn cpa_fault(&mut self, cpu: CpuId, at: VirtAddr, left: u64, primary: bool) -> Step {
        if !primary || self.layout.direct_map.contains(at) {
            let to_end = 512 - (at.page_number() & 511);
            let gap = self.machine.leaves(SpaceId::KERNEL, at, left.min(to_end) * FRAME_BYTES);
            let pages = match gap.into_iter().next() {
                Some(Span::Gap { len, .. }) => (len / FRAME_BYTES).max(1),
                _ => 1,
            };
            return Step::Done(pages.min(left));
        }
        self.warn(cpu, WarnReason::NotMapped, at);
        Step::Error(-EFAULT)
    }

    /// `cpa_process_alias`: the direct map follows, and the image for its own frames. NX is no
    /// alias's business: the direct map never executes.
    fn cpa_alias(
        &mut self,
        cpu: CpuId,
        at: VirtAddr,
        phys: PhysAddr,
        pages: u64,
        cpa: Cpa,
        outcome: &mut Outcome,
    ) -> Result<i64, Stop> {
        let alias = Cpa { set: cpa.set - Perm::EXEC, clear: cpa.clear - Perm::EXEC, ..cpa };
        if !self.layout.direct_map.contains(at)
            && let Some(start) = self.direct_map_of(phys.pfn())
        {
            outcome.alias = true;
            let error = self.cpa_alias_range(cpu, start, pages, alias, outcome)?;
            if error != 0 {
                return Ok(error);
            }
        }
        let image = self.image.pfn.addr().0;
        let in_image = phys.0.checked_sub(image).filter(|o| *o < self.layout.text.len);
        if let Some(offset) = in_image.filter(|_| !self.is_core_text(at)) {
            outcome.alias = true;
            let start = self.layout.text.start.offset(offset);
            // Its error is ignored.
            self.cpa_alias_range(cpu, start, pages, alias, outcome)?;
        }
        Ok(0)
    }

    fn cpa_alias_range(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        pages: u64,
        cpa: Cpa,
        outcome: &mut Outcome,
    ) -> Result<i64, Stop> {
        let mut done = 0;
        while done < pages && !(cpa.set | cpa.clear).is_empty() {
            let at = start.offset(done * FRAME_BYTES);
            match self.cpa_step(cpu, at, pages - done, cpa, false, outcome)? {
                Step::Done(n) => done += n,
                Step::Error(error) => return Ok(error),
            }
        }
        Ok(0)
    }

    /// `static_protections`: the image's text stays executable, and read-only.
    fn static_protections(&self, at: VirtAddr, cpa: Cpa) -> (Perm, Perm) {
        if self.is_core_text(at) && self.config.on("STRICT_KERNEL_RWX") {
            (cpa.set - Perm::WRITE, cpa.clear - Perm::EXEC)
        } else {
            (cpa.set, cpa.clear)
        }
    }

    /// Splits the large leaf at an address once and flushes everything everywhere: 0, or -ENOMEM.
    fn split_large(&mut self, cpu: CpuId, at: VirtAddr) -> Result<i64, Stop> {
        if self.allocation_fails() {
            return Ok(-ENOMEM);
        }
        match self.machine.split(cpu, SpaceId::KERNEL, at) {
            Ok(()) => {}
            Err(MapError::OutOfMemory) => return Ok(-ENOMEM),
            Err(other) => return Err(other.into()),
        }
        self.flush_tlb_all(cpu)?;
        Ok(0)
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
            self.flush_tlb_all(cpu)?;
            self.machine.free_tables(cpu);
        }
        Ok(())
    }

    /// The flush at the end. Nothing is flushed if no entry of the range itself changed, even if an
    /// alias did.
    fn cpa_flush(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        pages: u64,
        outcome: Outcome,
    ) -> Result<(), Stop> {
        if !outcome.changed {
            return Ok(());
        }
        if !self.machine.irqs_on(cpu) {
            return Err(Stop::died("BUG_ON(irqs_disabled()) in cpa_flush", start));
        }
        if outcome.error != 0 || outcome.alias || pages > FLUSH_CEILING_PAGES {
            self.flush_tlb_all(cpu)
        } else {
            self.flush_tlb_pages(cpu, start, pages)
        }
    }
}
