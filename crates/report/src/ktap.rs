//! KTAP version 1: runs as the kernel's own test format, for kunit.py, LAVA and kselftest readers.
//!
//! Each input is a test with one subtest for each run of it. A run is `not ok` if something was
//! found at deny level, or if a CPU waits for ever, which was not expected; what was found stands
//! before its line as diagnostics. What could not be run is skipped, by name. Source: Linux,
//! Documentation/dev-tools/ktap.rst.

use std::fmt::Write as _;

use textbed_check::Level;

use crate::run::{Outcome, Run, by_input};

/// A test: what subtests of one input say together.
pub(crate) struct Test<'a> {
    pub(crate) name: &'a str,
    pub(crate) ok: bool,
    /// Diagnostics of the input itself.
    pub(crate) said: Vec<String>,
    pub(crate) subtests: Vec<Subtest>,
}

/// A subtest with its diagnostics.
pub(crate) struct Subtest {
    pub(crate) name: String,
    pub(crate) ok: bool,
    /// Why it says nothing, if so.
    pub(crate) skip: Option<String>,
    pub(crate) said: Vec<String>,
}

/// The runs as one KTAP document.
#[must_use]
pub fn document(runs: &[Run]) -> String {
    let tests = by_input(runs).into_iter().map(|(path, runs)| Test {
        name: path,
        ok: runs.iter().all(|r| passed(r)),
        said: Vec::new(),
        subtests: runs.into_iter().map(subtest).collect(),
    });
    write(&tests.collect::<Vec<_>>())
}

fn passed(run: &Run) -> bool {
    !run.denied() && run.blocked().is_none()
}

fn subtest(run: &Run) -> Subtest {
    let mut said = Vec::new();
    for f in run.report.findings.iter().filter(|f| f.level != Level::Allow) {
        let level = if f.level == Level::Deny { "error" } else { "warning" };
        let at =
            f.at.origin
                .map_or_else(String::new, |o| format!(" at {}:{}", run.names.get(o.file), o.line));
        said.push(format!("{level}[{}]{at}: {}", f.rule.name(), f.message));
        if !f.missing.is_empty() {
            said.push(format!("  missing: {}", f.missing.join("; ")));
        }
    }
    said.extend(run.blocked());
    let skip = match &run.outcome {
        Outcome::Limit(what) => Some(format!("a limit was reached: {what}")),
        Outcome::NotModelled(what) => Some(format!("not modelled: {what}")),
        Outcome::Unchecked => Some("nothing could be checked".to_owned()),
        _ => None,
    };
    Subtest { name: run.title(), ok: passed(run), skip, said }
}

/// A document of these tests. One of which every subtest is skipped is skipped.
pub(crate) fn write(tests: &[Test<'_>]) -> String {
    let mut out = format!("KTAP version 1\n1..{}\n", tests.len());
    for (n, test) in tests.iter().enumerate() {
        if !test.subtests.is_empty() {
            let _ = writeln!(out, "  KTAP version 1\n  # Subtest: {}", word(test.name));
            let _ = writeln!(out, "  1..{}", test.subtests.len());
        }
        for (n, sub) in test.subtests.iter().enumerate() {
            for text in &sub.said {
                let _ = writeln!(out, "  # {}", line(text));
            }
            let skip = sub.skip.as_ref();
            let skip = skip.map_or_else(String::new, |why| format!(" # SKIP {}", line(why)));
            let _ = writeln!(out, "  {} {} {}{skip}", verdict(sub.ok), n + 1, word(&sub.name));
        }
        for text in &test.said {
            let _ = writeln!(out, "# {}", line(text));
        }
        let skip = match (test.ok, test.subtests.split_first()) {
            (true, Some((first, others))) if first.skip.is_some() => {
                match others.iter().all(|s| s.skip == first.skip) {
                    true => first.skip.clone(),
                    false => {
                        others.iter().all(|s| s.skip.is_some()).then(|| "no run was whole".into())
                    }
                }
            }
            _ => None,
        };
        let skip = skip.map_or_else(String::new, |why| format!(" # SKIP {}", line(&why)));
        let _ = writeln!(out, "{} {} {}{skip}", verdict(test.ok), n + 1, word(test.name));
    }
    out
}

fn verdict(ok: bool) -> &'static str {
    if ok { "ok" } else { "not ok" }
}

/// A test's name: `#` would begin a directive.
fn word(text: &str) -> String {
    line(text).replace('#', "-")
}

fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
