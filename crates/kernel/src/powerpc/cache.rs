//! powerpc cache maintenance for code: local to the CPU that runs it.
//!
//! From: Linux 5.19 and 6.12 arch/powerpc/mm/cacheflush.c. Not modelled: 44x (iccci), flushing by
//! physical address on 32-bit.

use textbed_arch::{CpuId, Features, VirtAddr};

use crate::error::Stop;
use crate::kernel::Kernel;

impl Kernel {
    /// `flush_icache_range` on powerpc.
    pub(crate) fn power_flush_icache(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        len: u64,
    ) -> Result<(), Stop> {
        if self.features.contains(Features::PPC_COHERENT_ICACHE) {
            // One icbi of any address is enough; the kernel uses the start of the direct map.
            let any = self.layout.direct_map.start;
            self.machine.op_named(cpu, "sync", 0)?;
            self.machine.op_named(cpu, "icbi", any.0)?;
        } else {
            let header = self.machine.header();
            self.by_line(cpu, "dcbst", start, len, header.dline_bytes)?;
            self.machine.op_named(cpu, "sync", 0)?;
            self.by_line(cpu, "icbi", start, len, header.iline_bytes)?;
        }
        self.machine.op_named(cpu, "sync", 0)?;
        self.machine.op_named(cpu, "isync", 0)?;
        Ok(())
    }
}
