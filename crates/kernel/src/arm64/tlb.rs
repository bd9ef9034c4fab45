//! arm64 kernel TLB flushes: broadcast by hardware, no interrupts.
//!
//! Modelled: which ranges are invalidated page by page, by ranges (FEAT_TLBIRANGE) or with all
//! else, and what is done on CPUs that want each TLBI twice. None of these names a level
//! (`TLBI_TTL_UNKNOWN` where they are by ranges). From: Linux 5.19, 6.1, 6.6, 6.12, 6.18.2 and 7.0
//! arch/arm64/include/asm/tlbflush.h. Not modelled: workarounds of other errata.

use textbed_arch::{CpuId, FRAME_BYTES, Features, VirtAddr};

use crate::caps::Fact;
use crate::error::Stop;
use crate::kernel::Kernel;

/// Pages that one TLBI of a range covers at most: NUM 31, SCALE 3 (`MAX_TLBI_RANGE_PAGES`).
const MAX_RANGE_PAGES: u64 = range_pages(31, 3);

/// Pages of a range operation (Arm ARM DDI 0487 C5.5, TLBI RVAALE1IS).
const fn range_pages(num: u64, scale: u64) -> u64 {
    (num + 1) << (5 * scale + 1)
}

impl Kernel {
    /// `flush_tlb_kernel_range` on arm64: page by page up to as many as a table has entries
    /// (`MAX_DVM_OPS`), or by ranges. Where ends are not rounded, they are numbers of frames of
    /// 4 KiB, and the steps are pages.
    pub(crate) fn arm64_flush_kernel_range(
        &mut self,
        cpu: CpuId,
        start: u64,
        end: u64,
    ) -> Result<(), Stop> {
        let (most, page) = (self.pages.pmd_bytes(), self.pages.bytes());
        let ranges = self.caps.word(Fact::FlushByRange) == "if-tlbirange"
            && self.features.contains(Features::ARM_TLBIRANGE);
        let (mut at, end, all) = if self.caps.yes(Fact::FlushRounds) {
            let (from, to) = (start & !(page - 1), end.saturating_add(page - 1) & !(page - 1));
            let len = to.saturating_sub(from);
            (from, to, if ranges { len / page > MAX_RANGE_PAGES } else { len >= most })
        } else {
            let frame = !(FRAME_BYTES - 1);
            (start & frame, end & frame, end.saturating_sub(start) > most)
        };
        self.machine.op_named(cpu, "dsb ishst", 0)?;
        if all {
            self.arm64_tlbi(cpu, |k| Ok(k.machine.op_named(cpu, "tlbi vmalle1is", 0)?))?;
        } else if ranges {
            self.arm64_tlbi_ranges(cpu, at, end.saturating_sub(at) / page)?;
        }
        while !all && !ranges && at < end {
            let page_of = self.pages.start_of(VirtAddr(at));
            self.arm64_tlbi(cpu, |k| k.tlbi_page(cpu, "tlbi vaale1is", page_of.0))?;
            at = at.saturating_add(page);
        }
        self.arm64_tlbi_done(cpu)
    }

    /// `__flush_tlb_range_op`: the largest ranges first, an odd page by itself, and with LPA2 pages
    /// up to where BaseADDR can begin.
    fn arm64_tlbi_ranges(&mut self, cpu: CpuId, mut at: u64, mut left: u64) -> Result<(), Stop> {
        let shift = self.pages.shift();
        let unit = if self.machine.format().has_lpa2() { 16 } else { shift };
        let granule = u64::from(shift / 2 - 5);
        let mut scale = 3;
        while left > 0 {
            if left == 1 || at & ((1 << unit) - 1) != 0 {
                self.arm64_tlbi(cpu, |k| k.tlbi_page(cpu, "tlbi vaale1is", at))?;
                at = at.saturating_add(1 << shift);
                left -= 1;
                continue;
            }
            if let Some(num) = (left / range_pages(0, scale)).min(32).checked_sub(1) {
                let base = at >> unit & ((1 << 37) - 1);
                let operand = base | num << 39 | scale << 44 | granule << 46;
                self.arm64_tlbi(cpu, |k| {
                    Ok(k.machine.op_named(cpu, "tlbi rvaale1is", operand)?)
                })?;
                at = at.saturating_add(range_pages(num, scale) << shift);
                left -= range_pages(num, scale);
            }
            scale = scale.saturating_sub(1);
        }
        Ok(())
    }

    /// `flush_tlb_mm` of the space that the CPU has loaded (without page-table isolation, whose
    /// second ASID is not modelled).
    pub(crate) fn arm64_flush_space(&mut self, cpu: CpuId) -> Result<(), Stop> {
        let asid = u64::from(self.machine.asid_of(cpu)) << 48;
        self.machine.op_named(cpu, "dsb ishst", 0)?;
        self.arm64_tlbi(cpu, |k| Ok(k.machine.op_named(cpu, "tlbi aside1is", asid)?))?;
        self.machine.op_named(cpu, "dsb ish", 0)?;
        if self.repeats_tlbi("one-more") {
            self.tlbi_page(cpu, "tlbi vale1is", 0)?;
            self.machine.op_named(cpu, "dsb ish", 0)?;
        }
        Ok(())
    }

    /// `__flush_tlb_kernel_pgtable`: every level of one address.
    pub(crate) fn arm64_flush_kernel_table(
        &mut self,
        cpu: CpuId,
        at: VirtAddr,
    ) -> Result<(), Stop> {
        self.machine.op_named(cpu, "dsb ishst", 0)?;
        self.arm64_tlbi(cpu, |k| k.tlbi_page(cpu, "tlbi vaae1is", at.0))?;
        self.arm64_tlbi_done(cpu)
    }

    /// What stands behind the last invalidation.
    fn arm64_tlbi_done(&mut self, cpu: CpuId) -> Result<(), Stop> {
        self.machine.op_named(cpu, "dsb ish", 0)?;
        if self.repeats_tlbi("one-more") {
            self.tlbi_page(cpu, "tlbi vale1is", 0)?;
            self.machine.op_named(cpu, "dsb ish", 0)?;
        }
        self.machine.op_named(cpu, "isb", 0)?;
        Ok(())
    }

    /// One invalidation, twice where the CPU and the version have it so.
    fn arm64_tlbi(
        &mut self,
        cpu: CpuId,
        issue: impl Fn(&mut Kernel) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        issue(self)?;
        if self.repeats_tlbi("each-twice") {
            self.machine.op_named(cpu, "dsb ish", 0)?;
            issue(self)?;
        }
        Ok(())
    }

    fn tlbi_page(&mut self, cpu: CpuId, name: &str, at: u64) -> Result<(), Stop> {
        Ok(self.machine.tlbi(cpu, name, VirtAddr(at), self.pages.bytes(), 0)?)
    }

    fn repeats_tlbi(&self, how: &str) -> bool {
        self.features.contains(Features::ARM_REPEAT_TLBI) && self.caps.word(Fact::RepeatTlbi) == how
    }

    /// What `set_pte` does after it wrote a valid kernel entry.
    pub(crate) fn arm64_after_set_pte(&mut self, cpu: CpuId) -> Result<(), Stop> {
        self.machine.op_named(cpu, "dsb ishst", 0)?;
        self.machine.op_named(cpu, "isb", 0)?;
        Ok(())
    }
}
