//! arm64 kernel TLB flushes: broadcast by hardware, no interrupts.
//!
//! From: Linux 5.19 and 6.12 arch/arm64/include/asm/tlbflush.h. Not modelled: range invalidation
//! (FEAT_TLBIRANGE, not used for kernel ranges in these versions), errata workarounds.

use textbed_arch::{CpuId, FRAME_BYTES, FRAME_SHIFT, VirtAddr};

use crate::error::Stop;
use crate::kernel::Kernel;

/// Pages above which everything is invalidated (`MAX_DVM_OPS`, PTRS_PER_PTE).
const MAX_DVM_OPS: u64 = 512;

impl Kernel {
    /// `flush_tlb_kernel_range` on arm64.
    pub(crate) fn arm64_flush_kernel_range(
        &mut self,
        cpu: CpuId,
        start: u64,
        end: u64,
    ) -> Result<(), Stop> {
        self.machine.op_named(cpu, "dsb ishst", 0)?;
        if end.saturating_sub(start) > MAX_DVM_OPS << FRAME_SHIFT {
            self.machine.op_named(cpu, "tlbi vmalle1is", 0)?;
        } else {
            let mut at = start & !(FRAME_BYTES - 1);
            while at < end {
                self.machine.tlbi(cpu, "tlbi vaale1is", VirtAddr(at), FRAME_BYTES, 0)?;
                at += FRAME_BYTES;
            }
        }
        self.machine.op_named(cpu, "dsb ish", 0)?;
        self.machine.op_named(cpu, "isb", 0)?;
        Ok(())
    }

    /// What `set_pte` does after it wrote a valid kernel entry.
    pub(crate) fn arm64_after_set_pte(&mut self, cpu: CpuId) -> Result<(), Stop> {
        self.machine.op_named(cpu, "dsb ishst", 0)?;
        self.machine.op_named(cpu, "isb", 0)?;
        Ok(())
    }
}
