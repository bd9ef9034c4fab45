//! Facts: who patches text or makes it: modules, probes, tracers, static calls, trampolines.

use textbed_arch::Cite;

use super::{
    ALL, ARM64, ARM64_ALONE, NOT_ARM64, NOT_POWER, NOT_X86, POWER, POWER_64, PPC32, V5_19, V6_0,
    V6_1, V6_2, V6_3, V6_4, V6_8, V6_9, V6_10, V6_12, V6_13, V6_15, V6_18, V7_0, X86, row,
};
use crate::caps::Value::{No, Word, Yes};
use crate::caps::{Fact, FactRow};
use crate::version::Version;

const V6_5: Version = Version::candidate(6, 5, 1);
const V6_14: Version = Version::candidate(6, 14, 1);

const MODULE: Cite = Cite::read(
    "Linux 6.1, 6.3.8, 6.4, 6.8, 6.9, 6.12, 6.14, 6.18.2 kernel/module/main.c, strict_rwx.c",
);
const AFTER_INIT: Cite = Cite::read(
    "Linux 6.8 (no), 6.9, 6.12 (yes), 6.14, 6.18.2 (no) kernel/module/main.c do_init_module(); \
     110b1e070f1d module: Don't fail module loading when setting ro_after_init section RO failed \
     (6.14, and in 6.13.2)",
);
const X86_PAGE: Cite = Cite::read("Linux 6.1, 6.12, 6.18.2 arch/x86/kernel/kprobes/core.c");
const POWER_PAGE: Cite =
    Cite::read("Linux 6.1, 6.2, 6.8, 6.9, 6.10, 6.12 arch/powerpc/kernel/kprobes.c");
const ARM64_SLOT: Cite = Cite::read(
    "Linux 5.19, 6.0-rc1 (aarch64_insn_patch_text()), 6.1.20, 6.6, 6.12, 6.18.2, 7.0 (nosync) \
     arch/arm64/kernel/probes/kprobes.c arch_prepare_ss_slot()",
);
const STEPPABLE: Cite = Cite::read(
    "Linux 5.18.12 (IS_MTMSRD(), IS_RFID()), 5.19, 7.0 (can_single_step()) \
     arch/powerpc/kernel/kprobes.c arch_prepare_kprobe()",
);
const FORCED: Cite = Cite::read(
    "4fbd2f83fda0 kprobes: Fix to handle forcibly unoptimized kprobes on freeing_list (6.3); Linux \
     6.12 kernel/kprobes.c do_unoptimize_kprobes()",
);
const RETURNS: Cite = Cite::read(
    "Linux 5.19, 6.1, 6.6, 6.12, 7.0 arch/Kconfig and arch/*/Kconfig (KRETPROBE_ON_RETHOOK)",
);
const OPTPROBES: Cite = Cite::read("Linux 6.12 arch/*/Kconfig (HAVE_OPTPROBES), kernel/kprobes.c");
const X86_TRAMPOLINE: Cite = Cite::read("Linux 6.1, 6.12, 6.18.2 arch/x86/kernel/ftrace.c");
const STATIC_CALL: Cite = Cite::read("Linux 6.1, 6.12, 6.18.2, 7.0 arch/*/Kconfig, static_call.c");
const PPC32_CALL: Cite = Cite::read(
    "Linux 5.18.12 to 6.14 (HAVE_STATIC_CALL), 6.18.2, 7.0 (HAVE_STATIC_CALL_INLINE) \
     arch/powerpc/Kconfig; f50b45626e05 powerpc/static_call: Implement inline static calls, in \
     powerpc-6.15-1",
);
const CALL_OPS: Cite =
    Cite::read("Linux 6.2 (no), 6.3.8, 6.12 (yes) arch/arm64/Kconfig, arch/arm64/kernel/ftrace.c");
const DIRECT: Cite = Cite::read(
    "Linux 5.18.12 to 7.0 arch/*/Kconfig (HAVE_DYNAMIC_FTRACE_WITH_DIRECT_CALLS; arm64: 6.3.8 no, 6.4 \
     yes; powerpc: 6.12 no, 6.13.2 yes), include/linux/ftrace.h for those that have it not",
);
const IMAGE: Cite = Cite::read(
    "Linux 5.19, 6.0-rc1, 6.1, 6.7, 6.8, 6.9, 6.12, 6.13.2, 6.18.2 arch/*/net/bpf_jit_comp*.c \
     arch_prepare_bpf_trampoline()",
);
const IMAGE_FREED: Cite = Cite::read(
    "Linux 6.1, 6.4 (no), 6.6, 7.0 (yes) kernel/bpf/trampoline.c bpf_trampoline_update(); \
     108598c39eef bpf: Fix memleak due to fentry attach failure (bpf-next of May 2023, for 6.5)",
);

/// The rows.
pub(super) const ROWS: &[FactRow] = &[
    row(Fact::ModuleSections, ALL, None, Some(V6_4), Word("core-and-init"), MODULE),
    row(Fact::ModuleSections, ALL, Some(V6_4), None, Word("by-type"), MODULE),
    row(Fact::ModuleText, ALL, None, Some(V6_9), Word("ro-then-x"), MODULE),
    row(Fact::ModuleText, NOT_X86, Some(V6_9), None, Word("rox-checked"), MODULE),
    row(Fact::ModuleText, X86, Some(V6_9), Some(V6_15), Word("rox-checked"), MODULE),
    row(Fact::ModuleText, X86, Some(V6_15), None, Word("restore-rox"), MODULE),
    row(Fact::AfterInitChecked, ALL, None, Some(V6_9), No, AFTER_INIT),
    row(Fact::AfterInitChecked, ALL, Some(V6_9), Some(V6_14), Yes, AFTER_INIT),
    row(Fact::AfterInitChecked, ALL, Some(V6_14), None, No, AFTER_INIT),
    row(Fact::KprobePage, X86, None, Some(V6_2), Word("alloc-ro-x"), X86_PAGE),
    row(
        Fact::KprobePage,
        X86,
        Some(V6_2),
        Some(V6_18),
        Word("alloc-rox"),
        Cite::read("Linux 6.4, 6.12 arch/x86/kernel/kprobes/core.c alloc_insn_page()"),
    ),
    row(
        Fact::KprobePage,
        X86,
        Some(V6_18),
        None,
        Word("as-allocated"),
        Cite::read("Linux 6.18.2 kernel/kprobes.c alloc_insn_page(): execmem gives it executable"),
    ),
    row(
        Fact::KprobePage,
        ARM64,
        None,
        Some(V6_10),
        Word("vmalloc-rox"),
        Cite::read("Linux 6.1, 6.8 arch/arm64/kernel/probes/kprobes.c alloc_insn_page()"),
    ),
    row(
        Fact::KprobePage,
        ARM64,
        Some(V6_10),
        Some(V6_18),
        Word("as-allocated"),
        Cite::read("Linux 6.12 kernel/kprobes.c alloc_insn_page(), arch/arm64/mm/init.c"),
    ),
    row(
        Fact::KprobePage,
        ARM64,
        Some(V6_18),
        None,
        Word("alloc-rox-checked"),
        Cite::read("Linux 6.18.2, 7.0 arch/arm64/kernel/probes/kprobes.c; 6.12 has none"),
    ),
    row(Fact::KprobePage, POWER, None, Some(V6_2), Word("alloc-ro-x"), POWER_PAGE),
    row(Fact::KprobePage, POWER, Some(V6_2), Some(V6_9), Word("alloc-rox"), POWER_PAGE),
    row(Fact::KprobePage, POWER, Some(V6_9), Some(V6_10), Word("alloc-rox-checked"), POWER_PAGE),
    row(Fact::KprobePage, POWER, Some(V6_10), None, Word("as-allocated"), POWER_PAGE),
    row(Fact::KprobeSlotStops, ARM64, None, Some(V6_1), Yes, ARM64_SLOT),
    row(Fact::KprobeSlotStops, ARM64, Some(V6_1), None, No, ARM64_SLOT),
    row(Fact::KprobeSlotStops, NOT_ARM64, None, None, No, ARM64_ALONE),
    row(Fact::KprobesOptimise, NOT_ARM64, None, None, Yes, OPTPROBES),
    row(Fact::KprobesOptimise, ARM64, None, None, No, OPTPROBES),
    row(Fact::KprobeSteppable, NOT_POWER, None, None, No, STEPPABLE),
    row(Fact::KprobeSteppable, POWER, None, Some(V5_19), No, STEPPABLE),
    row(Fact::KprobeSteppable, POWER, Some(V5_19), None, Yes, STEPPABLE),
    row(Fact::OptimiserSeesForced, ALL, None, Some(V6_3), No, FORCED),
    row(Fact::OptimiserSeesForced, ALL, Some(V6_3), None, Yes, FORCED),
    row(
        Fact::Arm64SimulatesNop,
        ARM64,
        None,
        Some(V6_13),
        No,
        Cite::read("Linux 6.12 arch/arm64/kernel/probes/decode-insn.c"),
    ),
    row(
        Fact::Arm64SimulatesNop,
        ARM64,
        Some(V6_13),
        None,
        Yes,
        Cite::read("Linux 6.13.2, 6.18.2 arch/arm64/kernel/probes/decode-insn.c; 6.12 steps it"),
    ),
    row(Fact::Arm64SimulatesNop, NOT_ARM64, None, None, No, ARM64_ALONE),
    row(Fact::ReturnProbe, X86, None, None, Word("rethook"), RETURNS),
    row(Fact::ReturnProbe, ARM64, None, Some(V6_9), Word("kretprobe"), RETURNS),
    row(
        Fact::ReturnProbe,
        ARM64,
        Some(V6_9),
        None,
        Word("kretprobe-brk"),
        Cite::read("Linux 6.8 (no), 6.9, 6.12, 7.0 arch/arm64/kernel/probes/kprobes_trampoline.S"),
    ),
    row(Fact::ReturnProbe, POWER, None, Some(V6_12), Word("kretprobe"), RETURNS),
    row(
        Fact::ReturnProbe,
        POWER,
        Some(V6_12),
        None,
        Word("rethook"),
        Cite::read("Linux 6.11.11 (no), 6.12, 7.0 arch/powerpc/Kconfig (HAVE_RETHOOK)"),
    ),
    row(Fact::FtraceTrampoline, X86, None, Some(V6_2), Word("alloc-ro-x"), X86_TRAMPOLINE),
    row(Fact::FtraceTrampoline, X86, Some(V6_2), Some(V6_18), Word("alloc-rox"), X86_TRAMPOLINE),
    row(Fact::FtraceTrampoline, X86, Some(V6_18), None, Word("alloc-rw-rox"), X86_TRAMPOLINE),
    row(
        Fact::FtraceTrampoline,
        NOT_X86,
        None,
        None,
        Word("none"),
        Cite::read("Linux 6.12 kernel/trace/ftrace.c arch_ftrace_update_trampoline() is weak"),
    ),
    row(Fact::FtraceCallOps, ARM64, None, Some(V6_3), No, CALL_OPS),
    row(Fact::FtraceCallOps, ARM64, Some(V6_3), None, Yes, CALL_OPS),
    row(Fact::FtraceCallOps, NOT_ARM64, None, None, No, CALL_OPS),
    row(Fact::FtraceDirect, X86, None, None, Yes, DIRECT),
    row(Fact::FtraceDirect, ARM64, None, Some(V6_4), No, DIRECT),
    row(Fact::FtraceDirect, ARM64, Some(V6_4), None, Yes, DIRECT),
    row(Fact::FtraceDirect, POWER, None, Some(V6_13), No, DIRECT),
    row(Fact::FtraceDirect, POWER, Some(V6_13), None, Yes, DIRECT),
    row(Fact::StaticCall, X86, None, None, Word("inline"), STATIC_CALL),
    row(Fact::StaticCall, ARM64, None, Some(V7_0), Word("indirect"), STATIC_CALL),
    row(Fact::StaticCall, ARM64, Some(V7_0), None, Word("indirect-unless-cfi"), STATIC_CALL),
    row(Fact::StaticCall, POWER_64, None, None, Word("indirect"), STATIC_CALL),
    row(Fact::StaticCall, PPC32, None, Some(V6_15), Word("trampoline"), PPC32_CALL),
    row(Fact::StaticCall, PPC32, Some(V6_15), None, Word("inline"), PPC32_CALL),
    row(Fact::TrampolineImage, X86, None, Some(V6_8), Word("page"), IMAGE),
    row(Fact::TrampolineImage, X86, Some(V6_8), None, Word("pack"), IMAGE),
    row(Fact::TrampolineImage, ARM64, None, Some(V6_0), Word("none"), IMAGE),
    row(Fact::TrampolineImage, ARM64, Some(V6_0), Some(V6_9), Word("page"), IMAGE),
    row(Fact::TrampolineImage, ARM64, Some(V6_9), None, Word("pack"), IMAGE),
    row(Fact::TrampolineImage, POWER, None, Some(V6_13), Word("none"), IMAGE),
    row(Fact::TrampolineImage, POWER, Some(V6_13), None, Word("pack"), IMAGE),
    row(Fact::ImageFreedOnError, ALL, None, Some(V6_5), No, IMAGE_FREED),
    row(Fact::ImageFreedOnError, ALL, Some(V6_5), None, Yes, IMAGE_FREED),
];
