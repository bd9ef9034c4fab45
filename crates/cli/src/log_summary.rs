//! What a log was and what came of its lines: text in front of the verdict, and the same for
//! machines.

use textbed_check::WxWindow;
use textbed_report::log::{
    Contradiction, LineCounts, LogCall, LogLine, LogOwner, LogPlace, LogSummary, NotUnderstood,
    grouped,
};
use textbed_report::text::Table;
use textbed_trace::Summary;
use textbed_trace::conflicts::Kind;

/// Calls named in a summary.
const CALLS_SHOWN: usize = 12;
/// Owners named in a summary.
const OWNERS_SHOWN: usize = 12;

/// The summary of a log as lines of text.
pub(crate) fn lines(s: &Summary) -> Vec<String> {
    let a = &s.accounting;
    let mut out = Vec::new();
    out.push(format!("  found by {}", s.because.join(", ")));
    if let Some(covered) = s.covered_ns() {
        let mut text = format!("  {:.3} s of log", covered as f64 / 1e9);
        let parts = s.sections.len() as u64 + s.sections_more;
        if parts > 1 {
            text += &format!(" in {parts} parts, each with a clock of its own");
        }
        if let Some(merged) = s.merged {
            text += &match merged.files {
                1 => ", put in order of time (each CPU's buffer was written by itself)".to_owned(),
                n => format!(", merged by time out of {n} files"),
            };
        }
        out.push(text);
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
            let at = place(s, (example.file, example.line));
            out.push(format!("    {at}: {}", example.text));
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
        ("areas in the way of new ones (their removal was missed)", areas.replaced),
        (
            "pages mapped before the log and removed before their probe was armed",
            s.counts.gone_unseen,
        ),
        ("permission changes that failed", s.counts.changes_failed),
        ("mappings whose permission before is assumed", s.counts.leaves_assumed),
    ] {
        if count > 0 {
            out.push(format!("  {text}: {count}"));
        }
    }
    out.extend(contradictions(s));
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
    out.extend(owners(s));
    if !s.not_seen.is_empty() {
        out.push("  what this log cannot show:".to_owned());
        out.extend(s.not_seen.iter().map(|what| format!("    {what}")));
    }
    out
}

/// Who got executable memory.
fn owners(s: &Summary) -> Vec<String> {
    let mut owners: Vec<_> = s.owners.iter().collect();
    owners.sort_by_key(|(key, pieces)| (std::cmp::Reverse(**pieces), *key));
    if owners.is_empty() {
        return Vec::new();
    }
    let mut table = Table::new(["owner of executable memory", "pieces"]);
    for ((owner, name), pieces) in owners.iter().take(OWNERS_SHOWN) {
        table.row([format!("{owner} {name}").trim_end().to_owned(), pieces.to_string()]);
    }
    let mut out: Vec<String> = table.render().lines().map(|line| format!("  {line}")).collect();
    if owners.len() > OWNERS_SHOWN {
        out.push(format!("  and {} owners more", owners.len() - OWNERS_SHOWN));
    }
    out
}

/// The summary for machines.
pub(crate) fn for_machines(s: &Summary, windows: &[WxWindow]) -> LogSummary {
    let file = |file: u32| s.inputs.get(file as usize).cloned().unwrap_or_default();
    let at = |(f, line): (u32, u64)| LogPlace { file: file(f), line };
    let a = &s.accounting;
    let mut calls: Vec<LogCall> = s
        .calls
        .iter()
        .map(|(name, c)| LogCall {
            name: (*name).to_owned(),
            entered: c.entered,
            returned: c.returned,
            failed: c.failed,
            return_without_entry: c.return_without_entry,
            entry_without_return: c.entry_without_return,
        })
        .collect();
    calls.sort_by_key(|c| std::cmp::Reverse(c.entered));
    LogSummary {
        files: s.inputs.clone(),
        side_files: s.side_files.clone(),
        found_by: s.because.clone(),
        covered_ns: s.covered_ns(),
        parts: s.sections.len() as u64 + s.sections_more,
        lines: LineCounts {
            all: a.lines,
            used: a.used,
            not_needed: a.not_needed,
            comments: a.comments,
            not_understood: a.not_understood_lines(),
            lost_notices: a.lost_notices.lines,
        },
        lost_events: a.lost_events,
        not_understood: a
            .reasons()
            .map(|(reason, tally)| NotUnderstood {
                reason: reason.to_string(),
                lines: tally.lines,
                first: tally
                    .first
                    .iter()
                    .map(|e| LogLine { place: at((e.file, e.line)), text: e.text.clone() })
                    .collect(),
            })
            .collect(),
        calls,
        owners: s
            .owners
            .iter()
            .map(|((owner, name), pieces)| LogOwner {
                owner: owner.clone(),
                name: name.clone(),
                pieces: *pieces,
            })
            .collect(),
        windows: grouped(windows),
        contradictions: s
            .conflicts
            .iter()
            .map(|c| Contradiction {
                kind: c.kind.name().to_owned(),
                recorded: c.recorded.clone(),
                modelled: c.modelled.clone(),
                at: c.line.map(at),
                against: c.other.map(at),
            })
            .collect(),
        contradictions_counted: s.conflicts.total(),
        not_seen: s.not_seen.clone(),
    }
}

/// Where the log and the modelled kernel contradict each other, with both lines.
fn contradictions(s: &Summary) -> Vec<String> {
    let mut out = Vec::new();
    if s.conflicts.total() == 0 {
        return out;
    }
    out.push(format!(
        "  contradictions between the log and the modelled kernel: {} (the log is believed)",
        s.conflicts.total()
    ));
    for kind in Kind::ALL {
        let count = s.conflicts.count(kind);
        if count == 0 {
            continue;
        }
        out.push(format!("    {}: {count}", kind.text()));
        for conflict in s.conflicts.of(kind) {
            let at = conflict.line.map_or_else(|| "at the end".to_owned(), |l| place(s, l));
            let other = conflict.other.map_or_else(String::new, |l| format!(" ({})", place(s, l)));
            out.push(format!("      {at}: {}; {}{other}", conflict.recorded, conflict.modelled));
        }
    }
    out
}

/// `line 12`, with the file's name where there are several.
fn place(s: &Summary, (file, line): (u32, u64)) -> String {
    match s.inputs.as_slice() {
        [_] => format!("line {line}"),
        many => format!("{}:{line}", many.get(file as usize).map_or("", String::as_str)),
    }
}
