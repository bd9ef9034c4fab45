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
use crate::steps::{Step, flush_step, once, pause, step};

/// `pmd_free_pte_page()`, for each large leaf that is to come in a range: the tables that are empty
/// there are unlinked, flushed at every level, and given back, others let in between.
pub(crate) fn empty_tables_step(virt: VirtAddr, len: u64, leaf_shift: u32) -> Step {
    once(move |k, cpu| {
        if leaf_shift == k.pages.shift() {
            return Ok(());
        }
        let bytes = 1_u64 << leaf_shift;
        for offset in (0..len.div_ceil(bytes)).map(|n| n * bytes) {
            let at = virt.offset(offset);
            let found = k.machine.unlink_empty_tables(cpu, SpaceId::KERNEL, at, 1, leaf_shift)?;
            if found == 0 {
                continue;
            }
            if !k.config.on("skip_table_flush") {
                k.later([pause(), flush_step(move |k, cpu| k.flush_tables(cpu, at, bytes))]);
            }
            let free = step(|k, cpu| {
                k.machine.free_tables(cpu);
                Ok(())
            });
            let rest = len.saturating_sub(offset + bytes);
            k.later([free, empty_tables_step(at.offset(bytes), rest, leaf_shift)]);
            break;
        }
        Ok(())
    })
}

impl Kernel {
    /// The flush in `pmd_free_pte_page()`.
    fn flush_tables(&mut self, cpu: CpuId, at: VirtAddr, len: u64) -> Result<(), Stop> {
        match self.arch {
            Arch::X86_64 => self.x86_flush_kernel_range(cpu, at.0, at.0 + FRAME_BYTES - 1),
            Arch::Arm64 => self.arm64_flush_kernel_table(cpu, at),
            _ => self.flush_kernel_range(cpu, at.0, at.offset(len).0),
        }
    }
}
