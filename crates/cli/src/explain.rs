//! `textbed explain RULE`: the rule's page, a worked example that can be run, and the sources.

use anyhow::Result;
use textbed_check::rules;
use textbed_report::text::page;

use crate::options;
use crate::output::Out;
use crate::status::Status;

/// A scenario that fires a rule, and its twin that does not.
struct Pair {
    rule: &'static str,
    bad: &'static str,
    good: &'static str,
}

macro_rules! pair {
    ($rule:literal) => {
        Pair {
            rule: $rule,
            bad: include_str!(concat!("../../../scenarios/rules/", $rule, "/bad.tb")),
            good: include_str!(concat!("../../../scenarios/rules/", $rule, "/good.tb")),
        }
    };
}

/// The pairs of `scenarios/rules`, one for each rule; a test holds them to the table of rules.
const PAIRS: &[Pair] = &[
    pair!("break-before-make"),
    pair!("broken-promise"),
    pair!("direct-map-leak"),
    pair!("exec-after-free"),
    pair!("huge-mapping-refused"),
    pair!("ignored-error"),
    pair!("live-mapping-hole"),
    pair!("misaligned-patch"),
    pair!("missing-context-sync"),
    pair!("missing-icache-maintenance"),
    pair!("missing-landing-pad"),
    pair!("missing-pte-order"),
    pair!("missing-publication-order"),
    pair!("missing-trap-fill"),
    pair!("no-quiescence"),
    pair!("patch-metadata"),
    pair!("self-patch"),
    pair!("stale-translation"),
    pair!("torn-patch"),
    pair!("unlocked-patch"),
    pair!("verify-mismatch"),
    pair!("write-through-read-only"),
    pair!("walk-after-free"),
    pair!("wrong-alias"),
    pair!("wrong-context"),
    pair!("wrong-range"),
    pair!("wx-alias"),
    pair!("wx-mapping"),
    pair!("wx-stale-translation"),
];

/// `textbed explain RULE`.
pub(crate) fn explain(rule: &str, out: &mut Out) -> Result<Status> {
    let row = rules::by_name(rule).ok_or_else(|| options::unknown_rule(rule))?;
    let style = out.style();
    let mut text = row.explain.to_owned();
    for pair in PAIRS.iter().filter(|p| p.rule == row.name) {
        text.push_str(&worked(pair, style.width));
    }
    text.push_str("\n## What findings cite\n\n");
    for cite in row.cites {
        text.push_str(&format!("- {cite}\n"));
    }
    text.push_str(&format!(
        "\n{} where it is certain, {} where it is possible. Findings name the sources of their \
         architecture; `read` and `deduced` were checked against the text, `memory` was not.\n",
        row.certain.name(),
        row.possible.name()
    ));
    out.text(&page(&text, style))?;
    Ok(Status::Clean)
}

/// The pair as a section of the page.
fn worked(pair: &Pair, width: usize) -> String {
    let ((about, bad), (instead, good)) = (parts(pair.bad, width), parts(pair.good, width));
    let path = format!("scenarios/rules/{}", pair.rule);
    format!(
        "\n## A worked example\n\n{about}\n```\n{}\n```\n\n`textbed run {path}/bad.tb` shows the \
         finding. Its twin `{path}/good.tb` has none. {instead}\n```\n{}\n```\n",
        bad.join("\n"),
        changes(&bad, &good).join("\n")
    )
}

/// The comment in front of a scenario as prose, and its program. A comment behind a statement is
/// left out where it has no room.
fn parts(text: &str, width: usize) -> (String, Vec<&str>) {
    let mut prose = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next_if(|l| l.starts_with('#')) {
        prose.push_str(line.trim_start_matches('#').trim_start());
        prose.push('\n');
    }
    let head = |l: &&str| l.is_empty() || l.starts_with("scenario ") || l.starts_with("about ");
    // Two columns are for the marks of what differs.
    let program = lines.skip_while(head).map(|line| match line.find("  #") {
        Some(at) if line.chars().count() + 2 > width => line[..at].trim_end(),
        _ => line,
    });
    (prose, program.collect())
}

/// The lines that differ, `-` for those of `old`, `+` for those of `new`.
fn changes(old: &[&str], new: &[&str]) -> Vec<String> {
    // common[i][j]: lines in common of what follows line i of one and line j of the other.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", old[i]));
            i += 1;
        } else {
            lines.push(format!("+ {}", new[j]));
            j += 1;
        }
    }
    lines.retain(|line| line.len() > 2);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_pair() {
        let names: Vec<&str> = rules::RULES.iter().map(|r| r.name).collect();
        assert_eq!(PAIRS.len(), names.len());
        for pair in PAIRS {
            assert!(names.contains(&pair.rule), "{}", pair.rule);
            let (about, program) = parts(pair.bad, 80);
            assert!(about.len() > 40, "{}: what does it show?", pair.rule);
            assert!(program.iter().any(|l| l.starts_with("cpu 0 {")), "{}", pair.rule);
            assert!(!changes(&program, &parts(pair.good, 80).1).is_empty(), "{}", pair.rule);
        }
    }

    #[test]
    fn changes_are_the_lines_that_differ() {
        assert_eq!(changes(&["a", "b", "c"], &["a", "x", "", "c", "d"]), ["- b", "+ x", "+ d"]);
        assert_eq!(changes(&["a"], &["a"]), [""; 0]);
    }
}
