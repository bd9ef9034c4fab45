//! Page-table pages that are empty where a large leaf is to come: `pmd_free_pte_page()`.
//!
//! A page-table page stays when what it mapped is unmapped, and CPUs may walk through it as long as
//! they may hold the entry that pointed to it. So the entry is cleared, the addresses are flushed
//! at every level, and the page goes back. From: Linux 6.12 arch/x86/mm/pgtable.c (INVLPG of one
//! page, which drops all cached upper levels), arch/arm64/mm/mmu.c and asm/tlbflush.h
//! `__flush_tlb_kernel_pgtable()`, arch/powerpc/mm/book3s64/radix_pgtable.c. Not modelled: the same
//! one level up, and page-table pages that are freed later than that by an IOMMU's wish (7.0).

use textbed_arch::{Arch, CpuId, FRAME_BYTES, SpaceId, VirtAddr};

use crate::error::Stop;
use crate::kernel::Kernel;

impl Kernel {
    /// `pmd_free_pte_page()`, for each large leaf that is to come: the tables that are empty there
    /// are unlinked, flushed at every level, and given back.
    pub(crate) fn free_empty_tables(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        len: u64,
        leaf_shift: u32,
    ) -> Result<(), Stop> {
        if leaf_shift == self.pages.shift() {
            return Ok(());
        }
        let step = 1_u64 << leaf_shift;
        for at in (0..len.div_ceil(step)).map(|n| n * step).map(|offset| virt.offset(offset)) {
            let found =
                self.machine.unlink_empty_tables(cpu, SpaceId::KERNEL, at, 1, leaf_shift)?;
            if found > 0 {
                if !self.config.on("skip_table_flush") {
                    self.flush_tables(cpu, at, step)?;
                }
                self.machine.free_tables(cpu);
            }
        }
        Ok(())
    }

    /// The flush in `pmd_free_pte_page()`.
    fn flush_tables(&mut self, cpu: CpuId, at: VirtAddr, len: u64) -> Result<(), Stop> {
        match self.arch {
            Arch::X86_64 => self.x86_flush_kernel_range(cpu, at.0, at.0 + FRAME_BYTES - 1),
            Arch::Arm64 => self.arm64_flush_kernel_table(cpu, at),
            _ => self.flush_kernel_range(cpu, at.0, at.offset(len).0),
        }
    }
}
