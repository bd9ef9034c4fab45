//! Facts: text patching.

use textbed_arch::Cite;

use super::{
    ARM64, ARM64_ALONE, NOT_ARM64, NOT_POWER, NOT_X86, POWER, POWER_ALONE, V5_19, V6_2, V6_3, V6_7,
    V6_10, V6_11, V6_19, X86, X86_ALONE, row,
};
use crate::caps::Value::{No, Word, Yes};
use crate::caps::{Fact, FactRow};

const KICKS: Cite = Cite::read(
    "cfb00a357864 arm64: jump_label: Ensure patched jump_labels are visible to all CPUs; pull \
     request of arm64's fixes to 6.11-rc1 (2024-08-02)",
);
const LASS: Cite = Cite::read(
    "b3a7e973abe6 x86/alternatives: Disable LASS when patching kernel code; Linux 6.19.10 \
     arch/x86/kernel/alternative.c",
);
const PPC_PATCH: Cite =
    Cite::read("Linux 6.1, 6.2, 6.4, 6.8, 6.9, 6.10, 6.12 arch/powerpc/lib/code-patching.c");

const PPC_FAULT: Cite = Cite::read(
    "Linux 5.18.12 (-EFAULT), 5.19, 6.1, 6.2, 6.6 (-EPERM), 6.7.3, 6.12 (and mb()) \
     arch/powerpc/lib/code-patching.c __patch_instruction(), __do_patch_instruction_mm()",
);

const POLLS: Cite = Cite::read(
    "Linux 5.19, 6.1, 6.12, 6.18.2, 7.0 arch/*/include/asm/thread_info.h (TIF_POLLING_NRFLAG); 5.19 \
     kernel/sched/core.c send_call_function_single_ipi(), 6.12 kernel/smp.c, kernel/sched/idle.c; \
     6.12 arch/x86/kernel/process.c mwait_idle(), drivers/cpuidle/cpuidle-{powernv,pseries}.c",
);

/// The rows.
pub(super) const ROWS: &[FactRow] = &[
    row(
        Fact::PatchAlias,
        X86,
        None,
        None,
        Word("poking-mm"),
        Cite::read("Linux 5.19, 6.12 arch/x86/kernel/alternative.c"),
    ),
    row(
        Fact::PatchAlias,
        ARM64,
        None,
        None,
        Word("fixmap"),
        Cite::read("Linux 5.19, 6.12 arch/arm64/kernel/patching.c"),
    ),
    row(Fact::PatchAlias, POWER, None, Some(V6_2), Word("vm-area"), PPC_PATCH),
    row(Fact::PatchAlias, POWER, Some(V6_2), None, Word("mm-if-radix-smp"), PPC_PATCH),
    row(Fact::PatchFault, NOT_POWER, None, None, No, POWER_ALONE),
    row(Fact::PatchFault, POWER, None, Some(V5_19), Word("EFAULT"), PPC_FAULT),
    row(Fact::PatchFault, POWER, Some(V5_19), None, Word("EPERM"), PPC_FAULT),
    row(Fact::PatchFaultSyncs, NOT_POWER, None, None, No, POWER_ALONE),
    row(Fact::PatchFaultSyncs, POWER, None, Some(V6_7), No, PPC_FAULT),
    row(Fact::PatchFaultSyncs, POWER, Some(V6_7), None, Yes, PPC_FAULT),
    row(Fact::PatchNofault, NOT_POWER, None, None, No, POWER_ALONE),
    row(Fact::PatchNofault, POWER, None, Some(V6_10), No, PPC_PATCH),
    row(Fact::PatchNofault, POWER, Some(V6_10), None, Yes, PPC_PATCH),
    row(Fact::PokesConditional, NOT_X86, None, None, No, X86_ALONE),
    row(
        Fact::PokesConditional,
        X86,
        None,
        Some(V6_3),
        No,
        Cite::read(
            "ac0ee0a9560c x86/alternatives: Teach text_poke_bp() to patch Jcc.d32 (2023-01-23); \
             asked for as a backport to 6.2",
        ),
    ),
    row(
        Fact::PokesConditional,
        X86,
        Some(V6_3),
        None,
        Yes,
        Cite::read("Linux 7.0 arch/x86/kernel/alternative.c __smp_text_poke_batch_add()"),
    ),
    row(Fact::PokesLiftLass, X86, None, Some(V6_19), No, LASS),
    row(Fact::PokesLiftLass, X86, Some(V6_19), None, Yes, LASS),
    row(Fact::PokesLiftLass, NOT_X86, None, None, No, X86_ALONE),
    row(Fact::JumpLabelKicks, ARM64, None, Some(V6_11), No, KICKS),
    row(Fact::JumpLabelKicks, ARM64, Some(V6_11), None, Yes, KICKS),
    row(Fact::JumpLabelKicks, NOT_ARM64, None, None, No, ARM64_ALONE),
    row(
        Fact::BootCpuRemovable,
        X86,
        None,
        None,
        No,
        Cite::read(
            "Linux 6.1 arch/x86/kernel/topology.c (cpu0_hotplug is off by default), 6.6, 6.12, 7.0 \
             arch_cpu_is_hotpluggable()",
        ),
    ),
    row(
        Fact::BootCpuRemovable,
        NOT_X86,
        None,
        None,
        Yes,
        Cite::read(
            "Linux 6.12 arch/arm64/kernel/setup.c (PSCI, unless a trusted OS resides there), \
             arch/powerpc/kernel/sysfs.c",
        ),
    ),
    row(Fact::PollingIdle, ARM64, None, None, No, POLLS),
    row(Fact::PollingIdle, NOT_ARM64, None, None, Yes, POLLS),
];
