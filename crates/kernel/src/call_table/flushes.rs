//! Rows: flushes and cross-calls.

use textbed_arch::{Arch, Cite};
use textbed_event::Need;

use super::{
    ADDR_CODE, ALL, ARM64, ARM64_CROSS, CROSS, FLUSHES, IRQS_ON, SLEEPS, START_END, X86, call,
    needs,
};
use crate::calls::{CallNeed, CallSpec, Returns};
use crate::{generic, stop_machine};

/// Where address spaces beside the kernel's have trees of tables.
const WALKED: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];

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
        "flush_tlb_mm",
        &[],
        Returns::Void,
        WALKED,
        "invalidates what CPUs hold of the address space that this one has loaded",
        Cite::read(
            "Linux 6.3 and 6.18 arch/x86/mm/tlb.c flush_tlb_mm_range(), arch/arm64/include/asm/\
             tlbflush.h, arch/powerpc/mm/book3s64/radix_tlb.c _tlbie_pid()",
        ),
        generic::flush_tlb_mm,
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
