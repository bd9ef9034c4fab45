//! A whole run as text: what happened, findings, windows, coverage.

use std::fmt::Write as _;

use textbed_check::{Coverage, Level, WxWindow};

use super::{Style, Table, finding, wrap};
use crate::log::grouped;
use crate::run::{InputKind, Outcome, Run};

/// The run as text: a headline, what happened, each finding as a diagnostic, then windows and
/// coverage as the style's detail asks.
#[must_use]
pub fn run_report(run: &Run, style: Style) -> String {
    let mut out = wrap(headline(run).trim_end(), style.width, 4);
    out.push('\n');
    // What a loop says in every round is said once.
    for same in run.notes.chunk_by(|a, b| a == b) {
        let Some(note) = same.first() else { continue };
        let place = note.place.as_ref().map(|(path, line)| format!("{path}:{line}: "));
        let times = if same.len() > 1 { format!(" ({} times)", same.len()) } else { String::new() };
        let text = format!("  {}{}{times}", place.unwrap_or_default(), note.text);
        let _ = writeln!(out, "{}", wrap(&text, style.width, 4));
    }
    for line in &run.summary {
        let _ = writeln!(out, "{}", wrap(line, style.width, 6));
    }
    for f in &run.report.findings {
        let shown = match f.level {
            Level::Deny => true,
            Level::Warn => style.detail >= 1,
            Level::Allow => style.detail >= 2,
        };
        if shown {
            out.push('\n');
            out.push_str(&finding(run, f, style));
        }
    }
    if run.report.left_off > 0 {
        let _ = writeln!(out, "\n{} more findings were left off (the limit)", run.report.left_off);
    }
    let has_windows = !run.report.windows.is_empty();
    if style.detail >= 1 && (has_windows || run.input.kind == InputKind::Log) {
        out.push('\n');
        out.push_str(&windows(run, style));
    }
    if style.detail >= 1 {
        out.push('\n');
        out.push_str(&coverage(run, style));
    }
    out
}

fn headline(run: &Run) -> String {
    let mut out = format!("{}: {}", run.input.path, run.title());
    if !run.overrides.is_empty() {
        let _ = write!(out, " [{}]", run.overrides.join(", "));
    }
    let (denied, warned) = (run.count_at(Level::Deny), run.count_at(Level::Warn));
    let _ = match &run.outcome {
        Outcome::Findings => writeln!(out, ": {denied} denied, {warned} possible"),
        Outcome::Limit(what) => writeln!(out, ": a limit was reached: {what}"),
        Outcome::NotModelled(what) => writeln!(out, ": not modelled: {what}"),
        Outcome::Unchecked => writeln!(out, ": nothing could be checked"),
        // What could not be looked at is no part of the verdict.
        other => match (run.coverage_counts(), run.report.coverage.len()) {
            ([_, _, 0], _) => writeln!(out, ": {}", other.text()),
            ([_, _, n], rules) if *other == Outcome::Clean => {
                writeln!(out, ": nothing found, but {n} of {rules} rules could not be checked")
            }
            ([_, _, n], rules) => {
                writeln!(out, ": {}, but {n} of {rules} rules could not be checked", other.text())
            }
        },
    };
    out
}

/// The W+X windows: counted by status, and the longest ones of each.
#[must_use]
pub fn windows(run: &Run, style: Style) -> String {
    if run.report.windows.is_empty() {
        return "W+X windows: none\n".to_owned();
    }
    let mut out = "W+X windows by status\n".to_owned();
    let mut table =
        Table::new(["status", "windows", "frames", "longest", "where (one of them)", "owner"]);
    for (status, count) in run.windows_by_status() {
        let mine = || run.report.windows.iter().filter(|w| w.status == status);
        let frames: u64 = mine().map(|w| w.frames).fold(0, u64::saturating_add);
        let Some(longest) = mine().max_by_key(|w| length(w).unwrap_or(u64::MAX)) else { continue };
        table.row([
            status.name().to_owned(),
            count.to_string(),
            frames.to_string(),
            length_text(longest),
            format!("w {} x {}", longest.write_at, longest.exec_at),
            longest.owner.clone(),
        ]);
        if style.detail >= 2 {
            for w in mine() {
                table.row([
                    String::new(),
                    w.count.to_string(),
                    w.frames.to_string(),
                    length_text(w),
                    format!("w {} x {}", w.write_at, w.exec_at),
                    w.owner.clone(),
                ]);
            }
        }
    }
    for line in table.render_within(style.width.saturating_sub(2)).lines() {
        let _ = writeln!(out, "  {line}");
    }
    if run.input.kind == InputKind::Log {
        out.push_str(&longest(run, style));
    }
    out
}

/// Groups of windows that are shown without being asked for all.
const GROUPS: usize = 10;

/// The windows by owner and call, the longest first.
fn longest(run: &Run, style: Style) -> String {
    let groups = grouped(&run.report.windows);
    let shown = if style.detail >= 2 { groups.len() } else { GROUPS };
    let mut out = "W+X windows by owner and call, the longest first\n".to_owned();
    let mut table = Table::new(["longest", "windows", "frames", "status", "owner", "call"]);
    for g in groups.iter().take(shown) {
        let length = match (g.open, g.longest_ns) {
            (true, _) => "still open".to_owned(),
            (false, Some(ns)) => duration(ns),
            (false, None) => "no times".to_owned(),
        };
        let call = if g.call.is_empty() { "none" } else { &g.call };
        table.row([
            length,
            g.windows.to_string(),
            g.frames.to_string(),
            g.status.to_owned(),
            g.owner.clone(),
            call.to_owned(),
        ]);
    }
    for line in table.render_within(style.width.saturating_sub(2)).lines() {
        let _ = writeln!(out, "  {line}");
    }
    if groups.len() > shown {
        let _ = writeln!(out, "  and {} more (-v shows all)", groups.len() - shown);
    }
    out
}

/// Length of a window in nanoseconds, of the longest where several are merged; none while it is
/// open or without times.
fn length(window: &WxWindow) -> Option<u64> {
    let closed = window.closed.as_ref()?;
    window.longest_ns.or_else(|| closed.at_ns?.checked_sub(window.opened.at_ns?))
}

fn length_text(window: &WxWindow) -> String {
    match (&window.closed, length(window)) {
        (None, _) => "still open".to_owned(),
        (Some(_), Some(ns)) => duration(ns),
        (Some(closed), None) => match closed.seq.saturating_sub(window.opened.seq) {
            1 => "1 event".to_owned(),
            n => format!("{n} events"),
        },
    }
}

fn duration(ns: u64) -> String {
    match ns {
        1_000_000.. => format!("{}.{:03} ms", ns / 1_000_000, ns / 1000 % 1000),
        _ => format!("{}.{:03} us", ns / 1000, ns % 1000),
    }
}

/// What each rule could see: counts, and with full detail or where something was not checkable,
/// the rules by name.
#[must_use]
pub fn coverage(run: &Run, style: Style) -> String {
    let [checked, idle, blind] = run.coverage_counts();
    let mut out = format!(
        "coverage: {checked} rules checked, {idle} not exercised, {blind} not checkable ({} events)\n",
        run.report.events
    );
    for note in &run.report.notes {
        let _ = writeln!(out, "{}", wrap(&format!("  {note}"), style.width, 4));
    }
    if style.detail >= 2 {
        let mut table = Table::new(["rule", "coverage"]);
        for (rule, coverage) in &run.report.coverage {
            let text = match coverage {
                Coverage::Checked(n) => format!("checked {n} times"),
                Coverage::NotExercised => "not exercised".to_owned(),
                Coverage::NotCheckable(why) => format!("not checkable: {why}"),
            };
            table.row([rule.name().to_owned(), text]);
        }
        for line in table.render_within(style.width.saturating_sub(2)).lines() {
            let _ = writeln!(out, "  {line}");
        }
    } else if blind > 0 {
        for (rule, coverage) in &run.report.coverage {
            if let Coverage::NotCheckable(why) = coverage {
                let text = format!("  not checkable: {}: {why}", rule.name());
                let _ = writeln!(out, "{}", wrap(&text, style.width, 4));
            }
        }
    }
    out
}
