//! The recorder as a bpftrace program, for machines where tracefs may not be touched.
//!
//! It prints lines of the form that tracefs has, so that the log is read like one: task, CPU, time
//! (the monotonic clock), event. Flags are not known and printed as dots. bpftrace itself refuses
//! symbols that a kernel lacks, or warns (its `missing_probes`, since 0.21); [`super::survey`] says
//! beforehand which they are.
//!
//! Not recorded by it: byte strings of patches (fields of an array type), which the reader does
//! not need.

use super::Plan;
use super::probes::Field;
use std::fmt::Write as _;

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
         // /proc/vmallocinfo as vmallocinfo.pre beside the log.\n\
         // Symbols that a kernel lacks stop it: `textbed record --check` names them.\n\n",
        plan.arch.name(),
        plan.version_text()
    );
    for planned in &plan.probes {
        let probe = planned.probe;
        let name = probe.function;
        let mut format = String::new();
        let mut values = String::new();
        for field in probe.fields() {
            let Some((conversion, value)) = value(field) else { continue };
            let _ = write!(format, " {}={conversion}", field.name);
            let _ = write!(values, ", {value}");
        }
        let _ = writeln!(
            out,
            "kprobe:{name} {{\n    \
             printf(\"%16s-%d [%03d] ..... %d.%09d: {name}: ({name}+0x0/0x0){format}\\n\",\n        \
             comm, tid, cpu, nsecs / 1000000000, nsecs % 1000000000{values});\n}}"
        );
        if probe.returns {
            let _ = writeln!(
                out,
                "kretprobe:{name} {{\n    \
                 printf(\"%16s-%d [%03d] ..... %d.%09d: {name}__ret: (0x0 <- {name}) ret=0x%lx\\n\",\n        \
                 comm, tid, cpu, nsecs / 1000000000, nsecs % 1000000000, retval);\n}}"
            );
        }
    }
    out
}

/// The conversion and the expression of a field; `None` for types that are left out.
fn value(field: Field<'_>) -> Option<(&'static str, String)> {
    let place = place(field.place)?;
    Some(match field.kind {
        "symbol" => ("%s", format!("ksym({place})")),
        "string" => ("%s", format!("str({})", address(field.place)?)),
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
fn place(text: &str) -> Option<String> {
    match argument(text) {
        Some(argument) => Some(argument),
        None => Some(format!("*(uint64 *)({})", address(text)?)),
    }
}

/// The address of `+8($1)`.
fn address(text: &str) -> Option<String> {
    let (offset, inner) = text.strip_prefix('+')?.split_once('(')?;
    let inner = place(inner.strip_suffix(')')?)?;
    Some(if offset == "0" { inner } else { format!("{inner} + {offset}") })
}

fn argument(text: &str) -> Option<String> {
    let number: usize = text.strip_prefix('$')?.parse().ok()?;
    Some(format!("arg{}", number.checked_sub(1)?))
}
