//! `textbed caps`: what an architecture and kernel version are modelled to do, with sources.

use anyhow::Result;
use textbed_arch::Arch;
use textbed_kernel::{CALLS, Caps, OPTIONS, Version, find_call, promises_of, simulated};
use textbed_report::text::Table;

use crate::args::CapsArgs;
use crate::options;
use crate::output::Out;
use crate::status::Status;

/// `textbed caps`.
pub(crate) fn caps(args: &CapsArgs, out: &mut Out) -> Result<Status> {
    let kernel = options::kernel(&args.kernel)?;
    let archs = options::archs(&args.arch)?.unwrap_or_else(|| options::SIMULATED.to_vec());
    for (n, arch) in archs.into_iter().enumerate() {
        if n > 0 {
            out.text("\n")?;
        }
        let mut table = Table::new(["fact", "value", "since", "until", "source"]);
        for row in Caps::new(kernel, arch).rows() {
            let version =
                |v: Option<textbed_kernel::Version>| v.map_or(String::new(), |v| v.to_string());
            table.row([
                row.fact.name().to_owned(),
                row.value.to_string(),
                version(row.since),
                version(row.until),
                row.cite.to_string(),
            ]);
        }
        let can_run = simulated().any(|v| v == kernel);
        let how = if can_run { "scenarios and logs" } else { "logs; scenarios are not modelled" };
        out.text(&format!("{arch}, kernel {kernel} ({how})\n{}", table.render()))?;
        out.text(&format!("\n{}", options_table(arch)))?;
        out.text(&format!("\n{}", promises_table(arch, kernel)))?;
    }
    Ok(Status::Clean)
}

/// The options of an architecture, with their defaults.
fn options_table(arch: Arch) -> String {
    let mut table = Table::new(["option", "default", "what it changes", "source"]);
    for option in OPTIONS.iter().filter(|o| o.archs.contains(&arch)) {
        table.row([
            option.name.to_owned(),
            option.default_for(arch).to_owned(),
            option.doc.to_owned(),
            option.cite.to_string(),
        ]);
    }
    table.render()
}

/// What calls promise when they succeed.
fn promises_table(arch: Arch, kernel: Version) -> String {
    let mut table = Table::new(["call", "promises", "source"]);
    for call in CALLS.iter().filter(|c| find_call(c.name, kernel, arch).is_ok()) {
        for row in promises_of(call.name, arch, kernel) {
            table.row([call.name.to_owned(), row.promise.text().to_owned(), row.cite.to_string()]);
        }
    }
    table.render()
}
