//! `textbed replay`: recorded logs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use textbed_arch::Arch;
use textbed_check::{Level, Options, Report, Site};
use textbed_event::{NameTable, Tee};
use textbed_kernel::Version;
use textbed_report::text::Table;
use textbed_report::timeline::Timeline;
use textbed_report::{Excerpt, Input, InputKind, Outcome, Run};
use textbed_trace::Summary;
use textbed_trace::reader::LineReader;

use crate::args::ReplayArgs;
use crate::baseline::Baseline;
use crate::output::{self, Out};
use crate::status::Status;
use crate::watch::Watch;
use crate::{inputs, options};

/// Lines of a log that are kept for diagnostics at most.
const MAX_EXCERPTS: usize = 10_000;
/// Calls named in a summary.
const CALLS_SHOWN: usize = 12;

/// `textbed replay`.
pub(crate) fn replay(args: &ReplayArgs, out: &mut Out) -> Result<Status> {
    let formats = output::formats(&args.output.format)?;
    let check = options::check(&args.check)?;
    let log = textbed_trace::Options {
        arch: args.arch.as_deref().map(str::parse::<Arch>).transpose().context("--arch")?,
        kernel: args.kernel.clone(),
        ..textbed_trace::Options::default()
    };
    let mut overrides = Vec::new();
    overrides.extend(args.arch.as_ref().map(|a| format!("--arch {a}")));
    overrides.extend(args.kernel.as_ref().map(|k| format!("--kernel {k}")));
    let mut baseline = Baseline::read(args.output.baseline.as_deref())?;
    let mut timelines = output::Timelines::new(args.output.timeline.clone());
    let mut status = Status::Clean;
    let mut runs = Vec::new();
    for path in &args.inputs {
        let mut timeline = timelines.next();
        match one(path, &log, &check.with([]), &overrides, timeline.as_mut()) {
            Ok(mut run) => {
                baseline.apply(&mut run);
                timelines.keep(timeline, &run);
                if run.denied() {
                    status = status.and(Status::Findings);
                }
                runs.push(run);
            }
            Err(error) => {
                out.error(&format!("{error:#}"));
                status = status.and(Status::Unusable);
            }
        }
    }
    if !runs.is_empty() {
        output::reports(&runs, &formats, out)?;
    }
    timelines.write()?;
    if let Some(stale) = baseline.stale() {
        out.note(&stale);
    }
    Ok(status)
}

fn one(
    path: &Path,
    log: &textbed_trace::Options,
    check: &Options,
    overrides: &[String],
    timeline: Option<&mut Timeline>,
) -> Result<Run> {
    let (reading, cmodx) = (check.reading.name().to_owned(), check.cmodx);
    let mut watch = Watch::new(check.clone());
    let replayed = match timeline {
        Some(timeline) => textbed_trace::replay(path, log, &mut Tee(&mut watch, timeline)),
        None => textbed_trace::replay(path, log, &mut watch),
    }?;
    let (mut report, names) = watch.finish();
    // A log's version has what a distribution adds behind it.
    if let Ok(version) = Version::parse(&replayed.summary.kernel) {
        crate::remedy::complete(&mut report, replayed.summary.arch, version);
    }
    let shown = path.display().to_string();
    let stdin = shown == "-";
    let excerpts = if stdin { BTreeMap::new() } else { excerpts(path, &shown, &report, &names)? };
    let summary = &replayed.summary;
    let found = report.findings.iter().any(|f| f.level != Level::Allow);
    Ok(Run {
        input: Input {
            kind: InputKind::Log,
            sha256: if stdin { String::new() } else { inputs::sha256_of_file(path)? },
            path: shown,
        },
        name: "recorded log".to_owned(),
        arch: summary.arch,
        kernel: Some(summary.kernel.clone()),
        policy: None,
        seed: None,
        reading,
        cmodx,
        overrides: overrides.to_vec(),
        outcome: if found { Outcome::Findings } else { Outcome::Clean },
        notes: Vec::new(),
        summary: lines(summary),
        report,
        names,
        excerpts,
    })
}

/// The lines that findings and windows name, read from the log once more.
fn excerpts(
    path: &Path,
    shown: &str,
    report: &Report,
    names: &NameTable,
) -> Result<BTreeMap<String, Excerpt>> {
    let line =
        |site: &Site| site.origin.filter(|o| names.get(o.file) == shown).map(|o| u64::from(o.line));
    let sites = report.findings.iter().flat_map(|f| [Some(&f.at), f.because.as_ref()]).flatten();
    let wanted: BTreeSet<u64> = sites.filter_map(line).take(MAX_EXCERPTS).collect();
    let mut kept = BTreeMap::new();
    let Some(last) = wanted.last() else {
        return Ok(BTreeMap::new());
    };
    let mut reader = LineReader::open(path)?;
    while let Some(line) = reader.next_line()? {
        if wanted.contains(&line.number) {
            let text = String::from_utf8_lossy(line.bytes).trim_end().to_owned();
            kept.insert(u32::try_from(line.number).unwrap_or(u32::MAX), text);
        }
        if line.number >= *last {
            break;
        }
    }
    Ok(BTreeMap::from([(shown.to_owned(), Excerpt::Lines(kept))]))
}

/// The summary of a log as lines of text.
fn lines(s: &Summary) -> Vec<String> {
    let a = &s.accounting;
    let mut out = Vec::new();
    out.push(format!("  found by {}", s.because.join(", ")));
    if let Some((first, last)) = s.time_ns {
        out.push(format!("  {:.3} s of log", (last.saturating_sub(first)) as f64 / 1e9));
    }
    let not_understood = a.not_understood_lines();
    out.push(format!(
        "  {} lines: {} used, {} understood and not needed, {} comments, {not_understood} not \
         understood, {} notices of lost events",
        a.lines, a.used, a.not_needed, a.comments, a.lost_notices.lines
    ));
    for (reason, tally) in a.reasons().filter(|(_, tally)| tally.lines > 0) {
        out.push(format!("  not understood, {reason}: {} lines", tally.lines));
        for example in &tally.first {
            out.push(format!("    line {}: {}", example.line, example.text));
        }
    }
    let areas = &s.areas;
    out.push(format!(
        "  areas: {} known before, {} made, {} removed, {} alive at the end",
        areas.before, areas.made, areas.removed, areas.alive
    ));
    let windows = s.counts.windows;
    out.push(format!(
        "  authorised temporary aliases of patchers (status protocol): {windows}; the alias itself \
         is in no log"
    ));
    for (text, count) in [
        ("areas replaced (their removal was missed)", areas.replaced),
        (
            "pages mapped before the log and removed before their probe was armed",
            s.counts.gone_unseen,
        ),
        ("permission changes that failed", s.counts.changes_failed),
        ("mappings whose permission before is assumed", s.counts.leaves_assumed),
        ("timestamps that went backwards", s.counts.time_backwards),
    ] {
        if count > 0 {
            out.push(format!("  {text}: {count}"));
        }
    }
    let mut calls: Vec<_> = s.calls.iter().filter(|(_, c)| c.entered > 0).collect();
    calls.sort_by_key(|(name, c)| (std::cmp::Reverse(c.entered), **name));
    let mut table = Table::new(["call", "entered", "returned", "failed"]);
    for (name, c) in calls.iter().take(CALLS_SHOWN) {
        table.row([
            (**name).to_owned(),
            c.entered.to_string(),
            c.returned.to_string(),
            c.failed.to_string(),
        ]);
    }
    out.extend(table.render().lines().map(|line| format!("  {line}")));
    if calls.len() > CALLS_SHOWN {
        out.push(format!("  and {} calls more", calls.len() - CALLS_SHOWN));
    }
    if !s.not_seen.is_empty() {
        out.push("  what this log cannot show:".to_owned());
        out.extend(s.not_seen.iter().map(|what| format!("    {what}")));
    }
    out
}
