//! The recorder as a POSIX shell script over tracefs.
//!
//! The script is `record.sh`; its lists are filled in from the plan. It was run on Debian kernels
//! under QEMU by `tools/lab`.

use super::{Plan, Purpose, machine};
use std::fmt::Write as _;
use textbed_arch::Arch;

const TEMPLATE: &str = include_str!("record.sh");

/// The script for that plan.
#[must_use]
pub fn script(plan: &Plan) -> String {
    let mut probes = String::new();
    for planned in &plan.probes {
        let probe = planned.probe;
        let returns = if probe.returns { "yes" } else { "no" };
        let purpose = planned.purpose().name();
        let fields = fields(probe.fields, plan.arch);
        let _ = writeln!(probes, "{}|{purpose}|{returns}|{fields}", probe.function);
    }
    let mut tracepoints = String::new();
    for t in &plan.tracepoints {
        let within = t.within.unwrap_or_default();
        let _ = writeln!(tracepoints, "{}/{}|{}|{within}", t.system, t.event, t.purpose().name());
    }
    let mut purposes = String::new();
    for purpose in Purpose::ALL {
        if plan.probes.iter().any(|p| p.purpose() == purpose) {
            let _ = writeln!(purposes, "{}|{}", purpose.name(), purpose.without());
        }
    }
    TEMPLATE
        .replace("@PROBES@\n", &probes)
        .replace("@TRACEPOINTS@\n", &tracepoints)
        .replace("@PURPOSES@\n", &purposes)
        .replace("@MACHINE@", machine(plan.arch))
        .replace("@ARCH@", plan.arch.name())
        .replace("@VERSION@", &plan.version_text())
}

/// The fields as that architecture's kprobe events take them. Linux 6.1 on powerpc has no `$argN`
/// (recorded: the definition is refused), so there the registers are named in which arguments come:
/// r3 is the first.
#[must_use]
pub fn fields(template: &str, arch: Arch) -> String {
    let argument = if arch.is_powerpc() { "%gpr" } else { "$arg" };
    let first = if arch.is_powerpc() { 3 } else { 1 };
    let mut out = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('$') {
        let digits = behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = behind.split_at(digits);
        let number: usize = number.parse().unwrap_or(1);
        let _ = write!(out, "{before}{argument}{}", number - 1 + first);
        rest = after;
    }
    out + rest
}
