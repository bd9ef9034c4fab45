//! KTAP version 1: runs as the kernel's own test format, for kunit.py, LAVA and kselftest readers.
//!
//! Each input is a test with one subtest for each run of it. A run is `not ok` if something was
//! found at deny level; what was found stands before its line as diagnostics. What could not be run
//! is skipped, by name. Source: Linux, Documentation/dev-tools/ktap.rst.

use std::fmt::Write as _;

use textbed_check::Level;

use crate::run::{Outcome, Run, by_input};

/// The runs as one KTAP document.
#[must_use]
pub fn document(runs: &[Run]) -> String {
    let inputs = by_input(runs);
    let mut out = format!("KTAP version 1\n1..{}\n", inputs.len());
    for (n, (path, runs)) in inputs.iter().enumerate() {
        let _ = writeln!(out, "  KTAP version 1\n  # Subtest: {}", word(path));
        let _ = writeln!(out, "  1..{}", runs.len());
        for (n, run) in runs.iter().enumerate() {
            for f in run.report.findings.iter().filter(|f| f.level != Level::Allow) {
                let level = if f.level == Level::Deny { "error" } else { "warning" };
                let at = f.at.origin.map_or_else(String::new, |o| {
                    format!(" at {}:{}", run.names.get(o.file), o.line)
                });
                let _ = writeln!(out, "  # {level}[{}]{at}: {}", f.rule.name(), line(&f.message));
                if !f.missing.is_empty() {
                    let _ = writeln!(out, "  #   missing: {}", line(&f.missing.join("; ")));
                }
            }
            let verdict = if run.denied() { "not ok" } else { "ok" };
            let skip = match &run.outcome {
                Outcome::Limit(what) => format!(" # SKIP a limit was reached: {}", line(what)),
                Outcome::NotModelled(what) => format!(" # SKIP not modelled: {}", line(what)),
                Outcome::Unchecked => " # SKIP nothing could be checked".to_owned(),
                _ => String::new(),
            };
            let _ = writeln!(out, "  {verdict} {} {}{skip}", n + 1, word(&run.title()));
        }
        let failed = runs.iter().any(|r| r.denied());
        let unchecked = |r: &Run| r.outcome == Outcome::Unchecked;
        let all_skipped = runs.iter().all(|r| {
            matches!(r.outcome, Outcome::Limit(_) | Outcome::NotModelled(_)) || unchecked(r)
        });
        let verdict = if failed { "not ok" } else { "ok" };
        let skip = match (all_skipped && !failed, runs.iter().all(|r| unchecked(r))) {
            (true, true) => " # SKIP nothing could be checked",
            (true, false) => " # SKIP no run was whole",
            _ => "",
        };
        let _ = writeln!(out, "{verdict} {} {}{skip}", n + 1, word(path));
    }
    out
}

/// A test's name: `#` would begin a directive.
fn word(text: &str) -> String {
    line(text).replace('#', "-")
}

fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
