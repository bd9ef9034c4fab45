//! The recorder as a bpftrace program, for machines where tracefs may not be touched.
//!
//! It prints lines of the form that tracefs has, so that the log is read like one: task, CPU, time
//! (the monotonic clock), event. Flags are not known and left out. bpftrace itself refuses
//! symbols that a kernel lacks, or warns (its `missing_probes`, since 0.21); [`super::survey`] says
//! beforehand which they are.
//!
//! Probes are attached one after the other, which patches code and loads programs itself: nothing
//! is printed before all of them are there. The first and the last probe of the program are of a
//! function that is hit all the time, and both have been hit then, in whichever order a version
//! attaches (0.17: kretprobes, and then kprobes from the last one of the program to the first).
//!
//! Of the tracepoints those are recorded that belong to a function: while the same task is in it.
//!
//! Not recorded by it: the other tracepoints; byte strings of patches (fields of an array type),
//! which the reader does not need.

use super::Plan;
use super::probes::Field;
use std::fmt::Write as _;
use textbed_arch::Arch;

/// The columns that stand before an event, and their values.
const COLUMNS: &str = "%16s-%d [%03d] %d.%09d: ";
const VALUES: &str = "comm, tid, cpu, $t / 1000000000, $t % 1000000000";

/// A function that every process hits, on every kernel and architecture.
const OFTEN: &str = "vfs_read";

/// How a tracepoint's arguments are printed: as the kernel prints them, as far as they are read.
fn arguments_of(event: &str) -> Option<(&'static str, &'static str)> {
    match event {
        "mm_page_free" => Some((" pfn=0x%lx order=%u", ", args->pfn, args->order")),
        _ => None,
    }
}

/// The program for that plan.
#[must_use]
pub fn program(plan: &Plan) -> String {
    let mut out = format!(
        "#!/usr/bin/env bpftrace\n\
         // Records what a kernel does with executable memory, for `textbed replay`.\n\
         // Printed by `textbed record --via bpftrace` for {}, kernel {}.\n\
         //\n\
         // Usage: bpftrace -o trace.txt FILE     (stop it with Ctrl-C)\n\
         // Put /proc/version, /proc/cmdline, /proc/iomem and, from before the start,\n\
         // /proc/modules as modules.pre, /proc/vmallocinfo as vmallocinfo.pre beside the log.\n\
         // Symbols that a kernel lacks stop it: --symbols /proc/kallsyms leaves them out.\n\
         // If it says that events were lost: BPFTRACE_PERF_RB_PAGES=1024 before the command.\n\n\
         BEGIN {{\n    printf(\"# textbed: recorded by bpftrace, {} {}\\n\");\n}}\n\
         kprobe:{OFTEN} /!@first/ {{\n    @first = 1;\n}}\n",
        plan.arch.name(),
        plan.version_text(),
        plan.arch.name(),
        plan.version_text()
    );
    let mut maps = String::new();
    for planned in &plan.probes {
        let probe = planned.probe;
        let name = probe.function;
        let mut format = String::new();
        let mut values = String::new();
        for field in probe.fields() {
            let Some((conversion, value)) = value(field, plan.arch) else { continue };
            let _ = write!(format, " {}={conversion}", field.name);
            let _ = write!(values, ", {value}");
        }
        let inside: Vec<_> =
            plan.tracepoints.iter().filter(|t| t.within == Some(name) && probe.returns).collect();
        let (mut enters, mut leaves) = (String::new(), String::new());
        for t in &inside {
            let _ = writeln!(enters, "    @{}[tid] = 1;", t.event);
            let _ = writeln!(leaves, "    delete(@{}[tid]);", t.event);
        }
        let _ = writeln!(
            out,
            "kprobe:{name} /@armed/ {{\n    $t = nsecs;\n    \
             printf(\"{COLUMNS}{name}: ({name}+0x0/0x0){format}\\n\",\n        \
             {VALUES}{values});\n{enters}}}"
        );
        if probe.returns {
            let _ = writeln!(
                out,
                "kretprobe:{name} /@armed/ {{\n    $t = nsecs;\n{leaves}    \
                 printf(\"{COLUMNS}{name}__ret: (0x0 <- {name}) ret=0x%lx\\n\",\n        \
                 {VALUES}, retval);\n}}"
            );
        }
        for t in inside {
            let Some((format, values)) = arguments_of(t.event) else { continue };
            let (system, event) = (t.system, t.event);
            let _ = writeln!(
                out,
                "tracepoint:{system}:{event} /@{event}[tid]/ {{\n    $t = nsecs;\n    \
                 printf(\"{COLUMNS}{event}:{format}\\n\",\n        {VALUES}{values});\n}}"
            );
            let _ = writeln!(maps, "    clear(@{event});");
        }
    }
    let _ = writeln!(
        out,
        "kprobe:{OFTEN} /@first && !@armed/ {{\n    @armed = 1;\n    $t = nsecs;\n    \
         printf(\"{COLUMNS}tracing_mark_write: textbed: all probes attached\\n\",\n        \
         {VALUES});\n}}\n\
         END {{\n    clear(@armed);\n    clear(@first);\n{maps}}}"
    );
    out
}

/// The conversion and the expression of a field; `None` for types that are left out.
fn value(field: Field<'_>, arch: Arch) -> Option<(&'static str, String)> {
    let place = place(field.place, arch)?;
    Some(match field.kind {
        "symbol" => ("%s", format!("ksym({place})")),
        "string" => ("%s", format!("str({})", address(field.place, arch)?)),
        "x64" => ("0x%lx", place),
        "x32" => ("0x%x", format!("(uint32){place}")),
        "u64" => ("%lu", place),
        "u32" => ("%u", format!("(uint32){place}")),
        "u8" => ("%u", format!("(uint8){place}")),
        "s32" => ("%d", format!("(int32){place}")),
        _ => return None,
    })
}

/// `$1` is `arg0`; `+8($1)` is what stands 8 bytes behind where it points.
fn place(text: &str, arch: Arch) -> Option<String> {
    match argument(text, arch) {
        Some(argument) => Some(argument),
        None => Some(format!("*(uint64 *)({})", address(text, arch)?)),
    }
}

/// The address of `+8($1)`.
fn address(text: &str, arch: Arch) -> Option<String> {
    let (offset, inner) = text.strip_prefix('+')?.split_once('(')?;
    let inner = place(inner.strip_suffix(')')?, arch)?;
    Some(if offset == "0" { inner } else { format!("{inner} + {offset}") })
}

/// `$1` is the first argument. x86-64 passes six in registers, and bpftrace has another name for
/// those on the stack (refused by bpftrace 0.17: "x86_64 doesn't support arg6").
fn argument(text: &str, arch: Arch) -> Option<String> {
    let number = text.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)?;
    Some(match (arch, number.checked_sub(6)) {
        (Arch::X86_64, Some(on_stack)) => format!("sarg{on_stack}"),
        _ => format!("arg{number}"),
    })
}
