//! Facts: who patches text or makes it: modules, probes, tracers, static calls, trampolines.

use textbed_arch::Cite;

use super::{
    ALL, ARM64, NOT_ARM64, NOT_X86, POWER, V6_1, V6_2, V6_3, V6_4, V6_10, V6_11, V6_13, V6_15,
    V6_18, V7_0, X86, row,
};
use crate::caps::Value::{No, Word, Yes};
use crate::caps::{Fact, FactRow};
use crate::version::Version;

const V6_8: Version = Version::candidate(6, 8, 1);
const V6_12: Version = Version::candidate(6, 12, 1);
const V6_14: Version = Version::candidate(6, 14, 1);

const MODULE: Cite = Cite::read("Linux 6.1, 6.4, 6.12, 6.18.2 kernel/module/main.c, strict_rwx.c");
const AFTER_INIT: Cite = Cite::deduced(
    "Linux 6.12 and 6.18.2 kernel/module/main.c do_init_module(); which version between them is \
     from memory",
);
const X86_PAGE: Cite = Cite::read("Linux 6.1, 6.12, 6.18.2 arch/x86/kernel/kprobes/core.c");
const POWER_PAGE: Cite = Cite::read("Linux 6.1, 6.12 arch/powerpc/kernel/kprobes.c");
const ARM64_SLOT: Cite = Cite::deduced(
    "Linux 5.19 (aarch64_insn_patch_text()), 6.1.20, 6.6, 6.12, 6.18.2, 7.0 (nosync) \
     arch/arm64/kernel/probes/kprobes.c arch_prepare_ss_slot()",
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
const CALL_OPS: Cite = Cite::read("Linux 6.12 arch/arm64/kernel/ftrace.c; with 6.3 from memory");
const IMAGE: Cite = Cite::read("Linux 6.1, 6.12, 6.18.2 arch/*/net/bpf_jit_comp*.c");

/// The rows.
pub(super) const ROWS: &[FactRow] = &[
    row(Fact::ModuleSections, ALL, None, Some(V6_4), Word("core-and-init"), MODULE),
    row(Fact::ModuleSections, ALL, Some(V6_4), None, Word("by-type"), MODULE),
    row(Fact::ModuleText, ALL, None, Some(V6_10), Word("ro-then-x"), MODULE),
    row(Fact::ModuleText, NOT_X86, Some(V6_10), None, Word("rox-checked"), MODULE),
    row(Fact::ModuleText, X86, Some(V6_10), Some(V6_15), Word("rox-checked"), MODULE),
    row(Fact::ModuleText, X86, Some(V6_15), None, Word("restore-rox"), MODULE),
    row(Fact::AfterInitChecked, ALL, None, Some(V6_10), No, MODULE),
    row(Fact::AfterInitChecked, ALL, Some(V6_10), Some(V6_14), Yes, AFTER_INIT),
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
    row(
        Fact::KprobePage,
        POWER,
        Some(V6_2),
        Some(V6_10),
        Word("alloc-rox"),
        Cite::deduced("Linux 6.1 and 6.12 arch/powerpc/kernel/kprobes.c, which has it no longer"),
    ),
    row(Fact::KprobePage, POWER, Some(V6_10), None, Word("as-allocated"), POWER_PAGE),
    row(Fact::KprobeSlotStops, ARM64, None, Some(V6_1), Yes, ARM64_SLOT),
    row(Fact::KprobeSlotStops, ARM64, Some(V6_1), None, No, ARM64_SLOT),
    row(Fact::KprobeSlotStops, NOT_ARM64, None, None, No, Cite::deduced("an arm64 function")),
    row(Fact::KprobesOptimise, NOT_ARM64, None, None, Yes, OPTPROBES),
    row(Fact::KprobesOptimise, ARM64, None, None, No, OPTPROBES),
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
        Cite::deduced("Linux 6.18.2 arch/arm64/kernel/probes/decode-insn.c; 6.12 steps it"),
    ),
    row(Fact::Arm64SimulatesNop, NOT_ARM64, None, None, No, Cite::deduced("an arm64 function")),
    row(Fact::ReturnProbe, X86, None, None, Word("rethook"), RETURNS),
    row(Fact::ReturnProbe, ARM64, None, Some(V6_12), Word("kretprobe"), RETURNS),
    row(
        Fact::ReturnProbe,
        ARM64,
        Some(V6_12),
        None,
        Word("kretprobe-brk"),
        Cite::deduced("Linux 6.6 and 6.12 arch/arm64/kernel/probes/kprobes_trampoline.S"),
    ),
    row(Fact::ReturnProbe, POWER, None, Some(V6_11), Word("kretprobe"), RETURNS),
    row(
        Fact::ReturnProbe,
        POWER,
        Some(V6_11),
        None,
        Word("rethook"),
        Cite::deduced("Linux 6.6 and 6.12 arch/powerpc/Kconfig (HAVE_RETHOOK)"),
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
    row(Fact::StaticCall, X86, None, None, Word("inline"), STATIC_CALL),
    row(Fact::StaticCall, ARM64, None, Some(V7_0), Word("indirect"), STATIC_CALL),
    row(Fact::StaticCall, ARM64, Some(V7_0), None, Word("indirect-unless-cfi"), STATIC_CALL),
    row(Fact::StaticCall, POWER, None, None, Word("indirect"), STATIC_CALL),
    row(Fact::TrampolineImage, X86, None, Some(V6_8), Word("page"), IMAGE),
    row(Fact::TrampolineImage, X86, Some(V6_8), None, Word("pack"), IMAGE),
    row(Fact::TrampolineImage, ARM64, None, Some(V6_10), Word("page"), IMAGE),
    row(Fact::TrampolineImage, ARM64, Some(V6_10), None, Word("pack"), IMAGE),
    row(Fact::TrampolineImage, POWER, None, Some(V6_13), Word("none"), IMAGE),
    row(Fact::TrampolineImage, POWER, Some(V6_13), None, Word("pack"), IMAGE),
];
