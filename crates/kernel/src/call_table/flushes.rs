//! Rows: flushes and cross-calls.

use textbed_arch::Cite;
use textbed_event::Need;

use super::{
    ADDR_CODE, ALL, ARM64, ARM64_CROSS, CROSS, FLUSHES, IRQS_ON, SLEEPS, START_END, X86, call,
    needs,
};
use crate::calls::{CallNeed, CallSpec, Returns};
use crate::{generic, stop_machine};

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
    )
    .sends(FLUSHES),
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
    )
    .steps(ARM64)
    .sends(ARM64_CROSS),
    needs(
        call(
            "kick_all_cpus_sync",
            &[],
            Returns::Void,
            ALL,
            "interrupts all other CPUs and waits",
            Cite::read("Linux 6.12 kernel/smp.c"),
            generic::kick_all_cpus_sync,
        )
        .sends(CROSS),
        IRQS_ON,
    ),
    needs(
        call(
            "stop_machine",
            &[],
            Returns::Errno,
            ALL,
            "holds every CPU still, with interrupts off, for a function that does nothing; \
             synchronises no context",
            Cite::read("Linux 6.12 kernel/stop_machine.c multi_cpu_stop()"),
            stop_machine::stop_machine,
        )
        .steps(ALL)
        .sends(CROSS),
        SLEEPS,
    ),
    needs(
        call(
            "apply_alternatives",
            ADDR_CODE,
            Returns::Void,
            X86,
            "patches a site of the kernel's text while this CPU is the only one there is",
            Cite::read("Linux 6.12 arch/x86/kernel/alternative.c apply_alternatives()"),
            stop_machine::apply_alternatives,
        ),
        &[CallNeed::Context(Need::AloneAtBoot)],
    ),
    needs(
        call(
            "apply_alternatives_all",
            ADDR_CODE,
            Returns::Void,
            ARM64,
            "patches a site of the kernel's text through its linear alias, all CPUs stopped",
            Cite::read("Linux 6.12 arch/arm64/kernel/alternative.c"),
            stop_machine::apply_alternatives,
        )
        .steps(ARM64)
        .sends(ARM64_CROSS),
        SLEEPS,
    ),
];
