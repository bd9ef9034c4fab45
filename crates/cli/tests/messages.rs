//! What a finding tells a person: both of its sites, and all of it within the width.
#![allow(clippy::expect_used, clippy::unwrap_used)] // tests may

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use textbed_check::rules::RULES;
use unicode_width::UnicodeWidthStr;

fn textbed(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_textbed"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .args(args)
        .output()
        .expect("the command runs");
    String::from_utf8(output.stdout).expect("text")
}

/// Rules of which a finding may have one site, and why.
const ONE_SITE: &[(&str, &str)] = &[
    ("wx-mapping", "one store to the tables gives both rights"),
    ("unlocked-patch", "what is missing is a lock, unless two patchers meet"),
    ("wrong-context", "a call and where it runs"),
    ("misaligned-patch", "how a site is cut, where nobody is known to have run it"),
    ("verify-mismatch", "what is there was there before the stream"),
];

/// Rules whose events are calls, locks and tables as a whole: no one address.
const NO_ADDRESS: &[&str] = &["ignored-error", "unlocked-patch", "wrong-context"];

#[test]
fn every_rule_fires_and_tells_both_sites() {
    let report: Value = serde_json::from_str(&textbed(&["run", "scenarios", "--format", "json"]))
        .expect("a report");
    let mut fired = BTreeMap::new();
    let (mut single, mut wrong) = (BTreeSet::new(), Vec::new());
    for run in report["runs"].as_array().expect("runs") {
        for finding in run["findings"].as_array().expect("findings") {
            let rule = finding["rule"].as_str().expect("a rule").to_owned();
            let sites = finding["events"].as_array().expect("events");
            let mut say = |what: &str| {
                wrong.push(format!(
                    "{} on {}: {}: {what}",
                    run["input"]["path"], run["arch"], finding["message"]
                ));
            };
            if sites.len() < 2 {
                if !ONE_SITE.iter().any(|(name, _)| *name == rule) {
                    say("one site alone");
                }
                single.insert(rule.clone());
            }
            for site in sites {
                if site["label"].as_str().is_none_or(|label| label.len() < 8) {
                    say("a site that does not say what happened there");
                }
                if site["virt"].is_null() && !NO_ADDRESS.contains(&rule.as_str()) {
                    say("a site without an address");
                }
            }
            // Not a temporary alias of a patcher, which nobody owns.
            let owned = |site: &Value| !site["symbol"].is_null() || site["virt"].is_null();
            if !sites.iter().any(owned) {
                say("addresses of which nobody says whose they are");
            }
            let cites = finding["cite"].as_array().expect("sources");
            if cites.is_empty() || cites.iter().any(|c| c["verified"].is_null()) {
                say("a source that does not say whether it was read");
            }
            let memory = cites.iter().any(|c| c["verified"] == "memory");
            if finding["confidence"] == "certain" && memory {
                say("certain, by a source that was not read");
            }
            if finding["help"].is_null() || finding["missing"].as_array().is_none_or(Vec::is_empty)
            {
                say("nothing to do about it");
            }
            *fired.entry(rule).or_insert(0) += 1;
        }
    }
    let silent: Vec<&str> =
        RULES.iter().map(|r| r.name).filter(|name| !fired.contains_key(*name)).collect();
    assert_eq!(silent, [""; 0], "no scenario fires them");
    assert!(wrong.is_empty(), "{} of {fired:?}:\n{}", wrong.len(), wrong.join("\n"));
    let listed: BTreeSet<String> = ONE_SITE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(single, listed);
}

#[test]
fn a_flush_that_an_erratum_defeats_is_told_from_none() {
    let defeated = "invalidated it, but on these CPUs";
    for bug in ["X05-invlpg-global", "R11-repeated-tlbi", "W16-tlbie-store-queue"] {
        let file = format!("scenarios/bugs/{bug}/bad.tb");
        let report: Value =
            serde_json::from_str(&textbed(&["run", &file, "--format", "json"])).expect("a report");
        let finding = &report["runs"][0]["findings"][0];
        let notes = finding["notes"].as_array().expect("notes");
        let told = |note: &&Value| note.as_str().is_some_and(|text| text.contains(defeated));
        assert_eq!(notes.iter().filter(told).count(), 1, "{bug}: {finding}");
    }
    assert!(!textbed(&["run", "scenarios/bugs/X01-cpa-alias-flush/bad.tb"]).contains(defeated));
}

/// Text without escapes.
fn bare(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    out + rest
}

/// The lines that are wider than they may be. A path is never broken.
fn too_wide(text: &str, width: usize) -> Vec<&str> {
    let path = |line: &str| line.trim_start().starts_with("--> ");
    text.lines().filter(|line| line.width() > width && !path(line)).collect()
}

#[test]
fn findings_of_every_rule_stay_within_the_width_with_colours_and_without() {
    for width in ["80", "120"] {
        let run = |colour: &str| {
            textbed(&["run", "scenarios/rules", "-v", "--width", width, "--color", colour])
        };
        let (plain, coloured) = (run("never"), run("always"));
        let wide = too_wide(&plain, width.parse().unwrap());
        assert!(wide.is_empty(), "wider than {width}:\n{}", wide.join("\n"));
        assert!(coloured.contains("\x1b[") && !plain.contains('\x1b'));
        assert_eq!(bare(&coloured), plain);
        for rule in RULES {
            let name = rule.name;
            assert!(plain.contains(&format!("[{name}]: ")), "{name} in no message");
        }
    }
}

#[test]
fn tables_of_commands_stay_within_a_width_that_is_asked_for() {
    let results = ["run", "--results", "scenarios/rules/missing-context-sync/bad.tb"];
    let tables = [
        ("100", &["list", "rules"][..]),
        ("80", &["list", "options"]),
        ("100", &["caps", "--arch", "arm64"]),
        ("100", &results),
    ];
    for (width, command) in tables {
        let text = textbed(&[command, &["--width", width]].concat());
        let wide = too_wide(&text, width.parse().unwrap());
        assert!(wide.is_empty(), "{command:?}, wider than {width}:\n{}", wide.join("\n"));
        assert!(text.lines().count() > 4, "{command:?}: {text}");
    }
    // A program gets a row a line.
    assert_eq!(textbed(&["list", "rules"]).lines().count(), RULES.len() + 2);
}

#[test]
fn every_rule_is_explained_with_a_time_line_and_a_program() {
    for rule in RULES {
        let name = rule.name;
        for width in [80, 120] {
            let page = |colour: &str| {
                let columns = width.to_string();
                textbed(&["explain", name, "--width", &columns, "--color", colour])
            };
            let (plain, coloured) = (page("never"), page("always"));
            let wide = too_wide(&plain, width);
            assert!(wide.is_empty(), "{name}, wider than {width}:\n{}", wide.join("\n"));
            assert!(coloured.contains("\x1b[1m# ") && !plain.contains('\x1b'), "{name}");
            // Marks of code spans are colours there.
            assert_eq!(bare(&coloured).replace('`', ""), plain.replace('`', ""), "{name}");
            let section = |title: &str| {
                let (_, rest) = plain.split_once(&format!("\n## {title}\n")).expect(title);
                rest.split("\n## ").next().unwrap().to_owned()
            };
            let line = section("Example");
            assert!(line.contains("```\n") && line.contains("cpu 0"), "{name}: no CPU in:\n{line}");
            let worked = section("A worked example");
            assert!(worked.contains("\ncpu 0 {\n") && worked.contains(name), "{name}: {worked}");
            assert!(worked.contains("\n+ ") && worked.contains("good.tb"), "{name}: {worked}");
            for cite in rule.cites {
                assert!(section("What findings cite").contains(&cite.evidence.to_string()));
            }
        }
    }
}
