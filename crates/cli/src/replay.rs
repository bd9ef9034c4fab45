//! `textbed replay`: recorded logs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use textbed_arch::Arch;
use textbed_check::{Level, Options, Report, Site};
use textbed_event::{NameTable, Tee};
use textbed_kernel::{PAGE_SIZES, Version};
use textbed_report::timeline::Timeline;
use textbed_report::{Excerpt, Input, InputKind, Outcome, Run};
use textbed_trace::merge;
use textbed_trace::reader::LineReader;

use crate::args::ReplayArgs;
use crate::baseline::Baseline;
use crate::output::{self, Form, Out};
use crate::status::Status;
use crate::watch::Watch;
use crate::{inputs, log_summary, options};

/// Columns of a line that a diagnostic shows: what is left of a hundred beside its margin.
const EXCERPT_COLUMNS: usize = 84;
/// Lines of a log that are kept for diagnostics at most.
const MAX_EXCERPTS: usize = 10_000;

/// `log2` of the bytes of a page, by the word for it.
fn page_shift(word: &str) -> Result<u8> {
    let row = PAGE_SIZES.iter().find(|row| row.word == word);
    let row = row.with_context(|| format!("--page-size {word}: expected 4K, 16K or 64K"))?;
    Ok(row.shift as u8)
}

/// `textbed replay`.
pub(crate) fn replay(args: &ReplayArgs, out: &mut Out) -> Result<Status> {
    let formats = output::formats(&args.output.format)?;
    let check = options::check(&args.check)?;
    let log = textbed_trace::Options {
        arch: args.arch.as_deref().map(str::parse::<Arch>).transpose().context("--arch")?,
        kernel: args.kernel.clone(),
        page_shift: args.page_size.as_deref().map(page_shift).transpose()?,
        va_bits: args.va_bits,
        ..textbed_trace::Options::default()
    };
    let mut overrides = Vec::new();
    overrides.extend(args.arch.as_ref().map(|a| format!("--arch {a}")));
    overrides.extend(args.kernel.as_ref().map(|k| format!("--kernel {k}")));
    overrides.extend(args.page_size.as_ref().map(|size| format!("--page-size {size}")));
    overrides.extend(args.va_bits.map(|bits| format!("--va-bits {bits}")));
    let mut baseline = Baseline::read(args.output.baseline.as_deref())?;
    let mut timelines = output::Timelines::new(args.output.timeline.clone());
    let mut status = Status::Clean;
    let mut runs = Vec::new();
    for recording in recordings(args)? {
        let mut timeline = timelines.next();
        let run = recording.and_then(|paths| {
            let mut run = one(&paths, &log, &check.with([]), &overrides, timeline.as_mut())?;
            // It reads the log once more: only for the one format that has it.
            if formats.iter().any(|format| format.form == Form::Json) && !from_stdin(&paths) {
                run.input.sha256 = inputs::sha256_of_files(&paths)?;
            }
            Ok(run)
        });
        match run {
            Ok(mut run) => {
                baseline.apply(&mut run);
                timelines.keep(timeline, &run);
                if run.denied() {
                    status = status.and(Status::Findings);
                } else if run.outcome == Outcome::Unchecked {
                    status = status.and(Status::NotModelled);
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

/// The recordings to replay: each input, or all of them merged; a folder is the recording in it.
fn recordings(args: &ReplayArgs) -> Result<Vec<Result<Vec<PathBuf>>>> {
    let each: Vec<Result<Vec<PathBuf>>> = args.inputs.iter().map(|input| files(input)).collect();
    if !args.merge {
        return Ok(each);
    }
    let all: Vec<PathBuf> = each.into_iter().collect::<Result<Vec<_>>>()?.concat();
    if all.len() < 2 {
        bail!("--merge takes the files of one recording, two or more");
    }
    Ok(vec![Ok(all)])
}

/// The files of one input.
fn files(input: &Path) -> Result<Vec<PathBuf>> {
    if !input.is_dir() {
        return Ok(vec![input.to_owned()]);
    }
    let found = merge::in_folder(input)
        .with_context(|| format!("{}: cannot read the folder", input.display()))?;
    if found.is_empty() {
        bail!(
            "{}: no log in this folder: none called trace or trace.txt, and none of single CPUs \
             (cpu0/trace, trace.cpu0)",
            input.display()
        );
    }
    Ok(found)
}

fn one(
    paths: &[PathBuf],
    log: &textbed_trace::Options,
    check: &Options,
    overrides: &[String],
    timeline: Option<&mut Timeline>,
) -> Result<Run> {
    let (reading, cmodx) = (check.reading.name().to_owned(), check.cmodx);
    let mut watch = Watch::new(check.clone());
    let replayed = match timeline {
        Some(timeline) => textbed_trace::replay_files(paths, log, &mut Tee(&mut watch, timeline)),
        None => textbed_trace::replay_files(paths, log, &mut watch),
    }?;
    let (mut report, names) = watch.finish();
    // A log's version has what a distribution adds behind it.
    if let Ok(version) = Version::parse(&replayed.summary.kernel) {
        crate::remedy::complete(&mut report, replayed.summary.arch, version);
    }
    let shown: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    let mut kept = BTreeMap::new();
    for path in paths.iter().filter(|_| !from_stdin(paths)) {
        excerpts(path, &report, &names, &mut kept)?;
    }
    let summary = &replayed.summary;
    let found = report.findings.iter().any(|f| f.level != Level::Allow);
    Ok(Run {
        input: Input { kind: InputKind::Log, sha256: String::new(), path: shown.join(" + ") },
        name: "recorded log".to_owned(),
        arch: summary.arch,
        kernel: Some(summary.kernel.clone()),
        policy: None,
        seed: None,
        reading,
        cmodx,
        overrides: overrides.to_vec(),
        outcome: match (found, report.nothing_checkable()) {
            (true, _) => Outcome::Findings,
            (false, true) => Outcome::Unchecked,
            (false, false) => Outcome::Clean,
        },
        notes: Vec::new(),
        summary: log_summary::lines(summary),
        log: Some(log_summary::for_machines(summary, &report.windows)),
        report,
        names,
        excerpts: kept,
    })
}

/// Whether they are standard input, which cannot be read a second time.
fn from_stdin(paths: &[PathBuf]) -> bool {
    paths.iter().any(|path| path.as_os_str() == "-")
}

/// A line of a log as a diagnostic shows it: no wider than the reports, the rest left off.
fn shortened(line: &str) -> String {
    match line.char_indices().nth(EXCERPT_COLUMNS) {
        Some((at, _)) => format!("{} ...", line.get(..at).unwrap_or(line).trim_end()),
        None => line.to_owned(),
    }
}

/// The lines that findings and windows name, read from the log once more.
fn excerpts(
    path: &Path,
    report: &Report,
    names: &NameTable,
    into: &mut BTreeMap<String, Excerpt>,
) -> Result<()> {
    let shown = path.display().to_string();
    let line =
        |site: &Site| site.origin.filter(|o| names.get(o.file) == shown).map(|o| u64::from(o.line));
    let sites = report.findings.iter().flat_map(|f| [Some(&f.at), f.because.as_ref()]).flatten();
    let wanted: BTreeSet<u64> = sites.filter_map(line).take(MAX_EXCERPTS).collect();
    let mut kept = BTreeMap::new();
    let Some(last) = wanted.last() else {
        return Ok(());
    };
    let mut reader = LineReader::open(path)?;
    while let Some(line) = reader.next_line()? {
        if wanted.contains(&line.number) {
            let text = shortened(String::from_utf8_lossy(line.bytes).trim());
            kept.insert(u32::try_from(line.number).unwrap_or(u32::MAX), text);
        }
        if line.number >= *last {
            break;
        }
    }
    into.insert(shown, Excerpt::Lines(kept));
    Ok(())
}
