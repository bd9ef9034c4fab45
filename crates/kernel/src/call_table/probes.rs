//! Rows: kprobes and the debugger's breakpoints.

use textbed_arch::Cite;

use super::{ALL_64 as ALL, FLUSHES, NOT_ARM64_OF_64 as NOT_ARM64, STOPPED, call, needs, p, takes};
use crate::calls::ParamKind::Addr;
use crate::calls::{CallSpec, Param, Returns};
use crate::{kgdb, probes};

const KPROBES: Cite = Cite::read(
    "Linux 6.1, 6.12, 6.18.2 kernel/kprobes.c, arch/x86/kernel/kprobes/core.c, \
     arch/arm64/kernel/probes/kprobes.c, arch/powerpc/kernel/kprobes.c",
);
const RETURNS: Cite = Cite::read(
    "Linux 5.19, 6.12, 7.0 kernel/kprobes.c; 6.12 arch/x86/kernel/rethook.c, \
     arch/arm64/kernel/probes/kprobes.c, arch/powerpc/kernel/rethook.c",
);
const OPTIMISER: Cite = Cite::read(
    "Linux 6.12 kernel/kprobes.c, arch/x86/kernel/kprobes/opt.c, arch/powerpc/kernel/optprobes.c",
);
const KGDB: Cite = Cite::read("Linux 6.12 arch/*/kernel/kgdb.c, kernel/debug/debug_core.c");
const PROBE: &[Param] = &[p("addr", Addr)];
const LOCKS: &[&str] = &["kprobe_mutex", "text_mutex"];

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    takes(
        call(
            "register_kprobe",
            PROBE,
            Returns::Errno,
            ALL,
            "copies an instruction to a slot and puts a breakpoint in its place",
            KPROBES,
            probes::register_kprobe,
        )
        .steps(ALL)
        .sends(FLUSHES),
        LOCKS,
    ),
    takes(
        call(
            "unregister_kprobe",
            PROBE,
            Returns::Void,
            ALL,
            "puts the instruction back, waits, and frees the slot",
            KPROBES,
            probes::unregister_kprobe,
        )
        .steps(ALL),
        LOCKS,
    ),
    takes(
        call(
            "register_kretprobe",
            PROBE,
            Returns::Errno,
            ALL,
            "puts a probe at a function's entry, which has the function return to a trampoline",
            RETURNS,
            probes::register_kretprobe,
        )
        .steps(ALL)
        .sends(FLUSHES),
        LOCKS,
    ),
    takes(
        call(
            "unregister_kretprobe",
            PROBE,
            Returns::Void,
            ALL,
            "takes such a probe away; who is in the function still returns to the trampoline",
            RETURNS,
            probes::unregister_kretprobe,
        )
        .steps(ALL),
        LOCKS,
    ),
    takes(
        call(
            "disable_kprobe",
            PROBE,
            Returns::Errno,
            ALL,
            "puts the instruction back; the probe stays registered",
            KPROBES,
            probes::disable_kprobe,
        )
        .steps(ALL),
        LOCKS,
    ),
    takes(
        call(
            "enable_kprobe",
            PROBE,
            Returns::Errno,
            ALL,
            "puts the breakpoint of a disabled probe in place",
            KPROBES,
            probes::enable_kprobe,
        )
        .steps(ALL),
        LOCKS,
    ),
    takes(
        call(
            "kprobe_optimizer",
            &[],
            Returns::Void,
            NOT_ARM64,
            "the work item that makes jumps of breakpoints and takes them back, with a grace \
             period between",
            OPTIMISER,
            probes::kprobe_optimizer,
        )
        .steps(ALL),
        LOCKS,
    ),
    takes(
        call(
            "wait_for_kprobe_optimizer",
            &[],
            Returns::Void,
            NOT_ARM64,
            "has the work item run until nothing waits for it",
            OPTIMISER,
            probes::wait_for_kprobe_optimizer,
        )
        .steps(ALL),
        LOCKS,
    ),
    needs(
        call(
            "kgdb_arch_set_breakpoint",
            PROBE,
            Returns::Errno,
            ALL,
            "puts a debugger's breakpoint in place, all other CPUs held; who flushes its line is \
             the caller",
            KGDB,
            kgdb::set_breakpoint,
        ),
        STOPPED,
    ),
    needs(
        call(
            "kgdb_arch_remove_breakpoint",
            PROBE,
            Returns::Errno,
            ALL,
            "takes a debugger's breakpoint away again",
            KGDB,
            kgdb::remove_breakpoint,
        ),
        STOPPED,
    ),
];
