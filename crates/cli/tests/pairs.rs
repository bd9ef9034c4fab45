//! Every rule has a scenario that triggers it and a twin that does not, `scenarios/rules/RULE/
//! {bad,good}.tb`. The bad one has a finding of its rule wherever it expects one, under every
//! policy; the good one has no finding anywhere, though its rule had something to look at.
#![allow(clippy::unwrap_used)] // tests may

mod common;

use std::collections::BTreeSet;

use textbed_check::Coverage;
use textbed_check::rules::RULES;
use textbed_scenario::Outcome;

#[test]
fn every_rule_has_its_pair_and_each_runs_as_it_expects() {
    let dir = common::root().join("scenarios/rules");
    let there: BTreeSet<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let names: BTreeSet<String> = RULES.iter().map(|r| r.name.to_owned()).collect();
    assert_eq!(there, names, "one folder for each rule and no other");
    let (mut runs, mut idle) = (0, Vec::new());
    for rule in RULES {
        for (file, bad) in [("bad.tb", true), ("good.tb", false)] {
            let loaded = common::read(&dir.join(rule.name).join(file));
            let (mut found, mut exercised) = (false, false);
            let wrong = common::differences(&loaded, |on, _, policy, report, outcome| {
                runs += 1;
                let what = format!("{}/{file} on {} under {policy:?}", rule.name, on.0);
                assert!(*outcome == Outcome::Ended, "{what}: {outcome:?}");
                found |= report.findings.iter().any(|f| f.rule == rule.id);
                assert!(bad || report.findings.is_empty(), "{what}: {:?}", report.findings);
                exercised |= report
                    .coverage
                    .iter()
                    .any(|(r, c)| *r == rule.id && matches!(c, Coverage::Checked(_)));
            });
            assert!(wrong.is_empty(), "{}/{file}: {wrong:?}", rule.name);
            assert_eq!(found, bad, "{}/{file}: whether its rule finds something", rule.name);
            if !exercised {
                idle.push(format!("{}/{file}", rule.name));
            }
        }
    }
    assert!(idle.is_empty(), "their rule had nothing to look at: {idle:?}");
    println!("{} rules, {} scenarios, {runs} runs, all as expected", RULES.len(), 2 * RULES.len());
}
