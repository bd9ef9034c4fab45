//! A baseline written before an edit matches after it: fingerprints stay when lines, addresses,
//! names, comments, the path, the policy or the seed change, over all scenarios.
//! Different findings of one run have different ones.
#![allow(clippy::unwrap_used)] // tests may

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use textbed_arch::Arch;
use textbed_check::{Finding, Reading, Report};
use textbed_kernel::Version;
use textbed_scenario::{Loaded, PolicyChoice};

/// A text as another scenario that has the same bugs.
struct Edit {
    name: &'static str,
    edit: fn(&str) -> String,
}

const EDITS: [Edit; 4] = [
    Edit { name: "comments and blank lines", edit: with_comments },
    Edit { name: "an unrelated statement in front", edit: with_statement },
    Edit { name: "names", edit: with_other_names },
    Edit { name: "an unrelated allocation in front", edit: with_allocation },
];

fn is_program(line: &str) -> bool {
    (line.starts_with("cpu ") || line.starts_with("setup")) && line.trim_end().ends_with('{')
}

fn with_comments(text: &str) -> String {
    let mut out = "# moved\n\n\n".to_owned();
    for line in text.lines() {
        let _ = writeln!(out, "{line}");
        if is_program(line) {
            out.push_str("\n    # moved\n\n");
        }
    }
    out
}

/// Behind the first line that begins a program.
fn in_front(text: &str, statement: &str) -> String {
    let mut out = String::new();
    let mut done = false;
    for line in text.lines() {
        let _ = writeln!(out, "{line}");
        if is_program(line) && !done {
            out.push_str(statement);
            done = true;
        }
    }
    out
}

fn with_statement(text: &str) -> String {
    in_front(text, "    publish unrelated = 1\n    assert 1 == 1\n")
}

fn with_allocation(text: &str) -> String {
    in_front(text, "    unrelated_a = vmalloc(12288)\n    unrelated_b = vmalloc(4096)\n")
}

/// Labels, variables and slots under other names, comments and the title too. (`fail CALL #2` has
/// no comment.)
fn with_other_names(text: &str) -> String {
    let mut names = BTreeSet::new();
    let code = |line: &str| line.split("# ").next().unwrap_or("").to_owned();
    for line in text.lines().map(code) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, "=", ..] => _ = names.insert((*name).to_owned()),
            ["publish", name, "=", ..] | ["await", name, ..] => {
                names.insert((*name).to_owned());
            }
            [label, name, "=", ..] if label.ends_with(':') => {
                names.insert((*name).to_owned());
            }
            _ => {}
        }
        if let Some(label) = words.first().and_then(|w| w.strip_suffix(':'))
            && line.starts_with(' ')
        {
            names.insert(label.to_owned());
        }
    }
    names.retain(|n| n.chars().all(|c| c.is_alphanumeric() || c == '_'));
    let (mut out, mut expects) = (String::new(), false);
    for line in text.lines() {
        let (code, comment) = line.split_once("# ").unwrap_or((line, ""));
        let quoted = code.contains('"');
        expects = line.starts_with("expect") || expects && line.starts_with(' ');
        // Of an `expect` line only a label is a name; a line that is not indented has none.
        let (mut word, mut last) = (String::new(), String::new());
        for c in code.chars().chain(['\n']) {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            // A call keeps its name, though a variable may share it.
            let own = if expects { last == "at" } else { line.starts_with(' ') };
            let rename = names.contains(&word) && c != '(' && !quoted && own;
            out.push_str(&word);
            if rename {
                out.push_str("_q");
            }
            if !word.is_empty() {
                last = std::mem::take(&mut word);
            }
            if c != '\n' {
                out.push(c);
            }
        }
        if !comment.is_empty() {
            out.push_str("# other words");
        }
        out.push('\n');
    }
    out.replacen("scenario \"", "scenario \"another ", 1)
}

/// Fingerprints, each with what its findings are, but for addresses and order.
type Known = BTreeMap<String, Vec<String>>;

fn known(report: &Report) -> Known {
    let mut all = Known::new();
    for f in &report.findings {
        all.entry(f.fingerprint.clone()).or_default().push(what(f));
    }
    all
}

fn what(f: &Finding) -> String {
    let sites = [Some(&f.at), f.because.as_ref()];
    let calls: Vec<String> = sites
        .into_iter()
        .flatten()
        .map(|s| format!("{:?} {}", s.kind, s.calls.join(">")))
        .collect();
    format!("{} {} {:?}", f.rule.name(), calls.join(", "), f.confidence)
}

fn loaded(text: String, name: &str) -> Loaded {
    let rules: Vec<&str> = textbed_check::rules::RULES.iter().map(|r| r.name).collect();
    match textbed_scenario::load("elsewhere/another.tb", text.clone(), &rules) {
        Ok((loaded, _)) => loaded,
        Err(errors) => panic!("{name}: {} in:\n{text}", errors[0].message),
    }
}

fn ran(loaded: &Loaded, on: (Arch, Version), policy: PolicyChoice) -> Known {
    let (seen, _) = common::events(loaded, on, policy);
    known(&common::check(&seen, Reading::Mapped))
}

#[test]
fn a_baseline_survives_edits_policies_and_seeds() {
    let files = common::files(&common::root().join("scenarios"));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut distinct, mut wrong) = (0, Vec::new());
    for path in files {
        let before = common::read(&path);
        let text = std::fs::read_to_string(&path).unwrap();
        let edits: Vec<(&Edit, Loaded)> = EDITS
            .iter()
            .map(|e| (e, loaded((e.edit)(&text), &format!("{} ({})", path.display(), e.name))))
            .collect();
        for on in common::machines(&before) {
            let old = ran(&before, on, PolicyChoice::Newest);
            // Findings of one run have fingerprints of their own.
            let shared: Vec<_> = old.iter().filter(|(_, of)| of.len() > 1).collect();
            assert!(shared.is_empty(), "{} on {}: {shared:?}", path.display(), on.0);
            if old.is_empty() {
                continue;
            }
            distinct += old.len();
            let mut compare = |name: &'static str, new: Known| {
                *counts.entry(name).or_default() += 1;
                if old != new {
                    let only = |a: &Known, b: &Known| -> Vec<String> {
                        a.keys().filter(|f| !b.contains_key(*f)).cloned().collect()
                    };
                    let (lost, fresh) = (only(&old, &new), only(&new, &old));
                    let on = format!("{} on {} after: {name}", path.display(), on.0);
                    wrong.push(format!("{on}\n  lost {lost:?}\n  new {fresh:?}"));
                }
            };
            for (edit, after) in &edits {
                compare(edit.name, ran(after, on, PolicyChoice::Newest));
            }
            // Where stale bytes may end a program, its scenario has another CPU for what comes
            // later: no policy hides a finding.
            for policy in &common::POLICIES[1..] {
                compare("policy and seed", ran(&before, on, *policy));
            }
        }
    }
    println!("{distinct} findings; runs compared, by edit: {counts:?}");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(counts.len() == 5 && counts.values().all(|n| *n >= 150), "{counts:?}");
}
