//! arm64 cache maintenance for code.
//!
//! From: Linux 5.19, 6.12 and 7.0 arch/arm64/mm/cache.S, arch/arm64/include/asm/assembler.h,
//! arch/arm64/include/asm/cacheflush.h. Not modelled: errata that force maintenance (IDC or DIC
//! hidden by the kernel), KGDB.

use textbed_arch::{CpuId, Features, VirtAddr};

use crate::error::Stop;
use crate::kernel::Kernel;

impl Kernel {
    /// `caches_clean_inval_pou`: cleans to the point of unification and invalidates instruction
    /// caches, by the lines of a range (of none, too, one line), as far as IDC and DIC leave it to
    /// do.
    pub(crate) fn arm64_clean_inval(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        len: u64,
    ) -> Result<(), Stop> {
        let (header, len) = (self.machine.header(), len.max(1));
        if self.features.contains(Features::ARM_IDC) {
            self.machine.op_named(cpu, "dsb ishst", 0)?;
        } else {
            self.by_line(cpu, "dc cvau", start, len, header.dline_bytes)?;
            self.machine.op_named(cpu, "dsb ish", 0)?;
        }
        if self.features.contains(Features::ARM_DIC) {
            self.machine.op_named(cpu, "isb", 0)?;
        } else {
            self.by_line(cpu, "ic ivau", start, len, header.iline_bytes)?;
            self.machine.op_named(cpu, "dsb ish", 0)?;
            self.machine.op_named(cpu, "isb", 0)?;
        }
        Ok(())
    }

    /// One operation for each line of a range.
    pub(crate) fn by_line(
        &mut self,
        cpu: CpuId,
        op: &str,
        start: VirtAddr,
        len: u64,
        line_bytes: u32,
    ) -> Result<(), Stop> {
        let line = u64::from(line_bytes).max(4);
        let end = start
            .0
            .checked_add(len)
            .ok_or_else(|| Stop::not_modelled("cache maintenance that wraps around"))?;
        let mut at = start.0 & !(line - 1);
        while at < end {
            self.machine.op_named(cpu, op, at)?;
            at = match at.checked_add(line) {
                Some(next) => next,
                None => break,
            };
        }
        Ok(())
    }
}
