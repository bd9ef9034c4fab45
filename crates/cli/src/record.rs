//! `textbed record`: the recorder for a kernel, or what that kernel lacks for it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use textbed_arch::Arch;
use textbed_kernel::Version;
use textbed_report::text::Table;
use textbed_trace::reader::LineReader;
use textbed_trace::record::survey::{Evidence, Survey, Why, survey};
use textbed_trace::record::{Plan, Purpose, bpftrace, tracefs};

use crate::args::{Means, RecordArgs};
use crate::output::Out;
use crate::status::Status;

/// Bytes of a list of symbols or a configuration that are read at most.
const MAX_BYTES: usize = 256 << 20;

/// `textbed record`.
pub(crate) fn record(args: &RecordArgs, out: &mut Out) -> Result<Status> {
    let arch: Arch = args.arch.parse().context("--arch")?;
    let version = args.kernel.as_deref().map(Version::parse).transpose().context("--kernel")?;
    let mut plan = Plan::new(arch, version);
    if let Some(path) = &args.symbols {
        let found = survey(&plan, &text(path)?)
            .with_context(|| format!("{} is not what --symbols reads", path.display()))?;
        if found.evidence != Evidence::Symbols {
            bail!("{}: a configuration, not a list of symbols", path.display());
        }
        let missing = |name: &str| found.missing.iter().any(|m| m.what == name);
        plan.probes.retain(|p| !missing(p.probe.function));
    }
    if let Some(path) = &args.check {
        let found = survey(&plan, &text(path)?)
            .with_context(|| format!("{} is not what --check reads", path.display()))?;
        out.text(&said(&found, &plan, path, out))?;
        return Ok(if found.impossible { Status::NotModelled } else { Status::Clean });
    }
    out.text(&match args.via {
        Means::Tracefs => tracefs::script(&plan),
        Means::Bpftrace => bpftrace::program(&plan),
    })?;
    Ok(Status::Clean)
}

fn text(path: &Path) -> Result<String> {
    let mut reader = LineReader::open(path)?;
    let mut all = String::new();
    while let Some(line) = reader.next_line()? {
        if all.len() + line.bytes.len() > MAX_BYTES {
            bail!("{}: more than {} MiB", path.display(), MAX_BYTES >> 20);
        }
        all.push_str(&String::from_utf8_lossy(line.bytes));
        all.push('\n');
    }
    Ok(all)
}

fn said(found: &Survey, plan: &Plan, path: &Path, out: &Out) -> String {
    let there = found.wanted - found.missing.len();
    let what = match found.evidence {
        Evidence::Symbols => "functions to probe are there",
        Evidence::Config => "things that a recording asks of a configuration are set",
    };
    let mut text = format!(
        "{}: {there} of {} {what} ({}, kernel {})\n",
        path.display(),
        found.wanted,
        plan.arch.name(),
        plan.version_text()
    );
    if !found.missing.is_empty() {
        let mut table = Table::new(["missing", "recorded for", "why"]);
        for missing in &found.missing {
            let why = match &missing.why {
                Why::NoSymbol => "no such symbol".to_string(),
                Why::Renamed(name) => format!("only {name}, with other arguments"),
                Why::Unset(option) => format!("{option} is not set"),
            };
            let purpose = missing.purpose.map_or("", Purpose::name);
            table.row([missing.what.as_str(), purpose, &why]);
        }
        text += "\n";
        text += &out.laid_out(&table);
    }
    for purpose in &found.blind {
        text += &format!("the log will not show {}\n", purpose.without());
    }
    if found.impossible {
        text += "this kernel cannot be recorded\n";
    }
    text
}
