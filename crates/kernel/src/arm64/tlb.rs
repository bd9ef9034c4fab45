//! arm64 kernel TLB flushes: broadcast by hardware, no interrupts.
//!
//! From: Linux 5.19, 6.12 and 6.18.2 arch/arm64/include/asm/tlbflush.h, with what it does on CPUs
//! that want each TLBI twice. Not modelled: range invalidation (FEAT_TLBIRANGE, which 6.18 uses for
//! kernel ranges where CPUs have it), workarounds of other errata.

use textbed_arch::{CpuId, FRAME_BYTES, Features, VirtAddr};

use crate::caps::Fact;
use crate::error::Stop;
use crate::kernel::Kernel;

impl Kernel {
    /// `flush_tlb_kernel_range` on arm64: page by page up to as many as a table has entries
    /// (`MAX_DVM_OPS`). Where ends are not rounded, they are numbers of frames of 4 KiB, and the
    /// steps are pages.
    pub(crate) fn arm64_flush_kernel_range(
        &mut self,
        cpu: CpuId,
        start: u64,
        end: u64,
    ) -> Result<(), Stop> {
        let (most, page) = (self.pages.pmd_bytes(), self.pages.bytes());
        let (mut at, end, all) = if self.caps.yes(Fact::FlushRounds) {
            let (from, to) = (start & !(page - 1), end.saturating_add(page - 1) & !(page - 1));
            (from, to, to.saturating_sub(from) >= most)
        } else {
            let frame = !(FRAME_BYTES - 1);
            (start & frame, end & frame, end.saturating_sub(start) > most)
        };
        self.machine.op_named(cpu, "dsb ishst", 0)?;
        if all {
            self.arm64_tlbi(cpu, |k| Ok(k.machine.op_named(cpu, "tlbi vmalle1is", 0)?))?;
        }
        while !all && at < end {
            let page_of = self.pages.start_of(VirtAddr(at));
            self.arm64_tlbi(cpu, |k| k.tlbi_page(cpu, "tlbi vaale1is", page_of.0))?;
            at = at.saturating_add(page);
        }
        self.arm64_tlbi_done(cpu)
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
