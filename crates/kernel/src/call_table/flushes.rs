//! Rows: flushes and cross-calls.

use textbed_arch::Cite;

use super::{ALL, IRQS_ON, START_END, call, needs};
use crate::calls::{CallSpec, Returns};
use crate::generic;

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    call(
        "flush_tlb_kernel_range",
        START_END,
        Returns::Void,
        ALL,
        "invalidates kernel translations on all CPUs",
        Cite::read("Linux 5.19, 6.12 arch/*/mm, arch/arm64/include/asm/tlbflush.h"),
        generic::flush_tlb_kernel_range,
    ),
    call(
        "flush_icache_range",
        START_END,
        Returns::Void,
        ALL,
        "makes stored code visible to instruction fetches, as far as the architecture does",
        Cite::read(
            "Linux 5.19, 6.12 arch/*/include/asm/cacheflush.h, arch/powerpc/mm/cacheflush.c",
        ),
        generic::flush_icache_range,
    ),
    needs(
        call(
            "kick_all_cpus_sync",
            &[],
            Returns::Void,
            ALL,
            "interrupts all other CPUs and waits",
            Cite::read("Linux 6.12 kernel/smp.c"),
            generic::kick_all_cpus_sync,
        ),
        IRQS_ON,
    ),
];
