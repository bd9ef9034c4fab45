//! Bugs that kernels, and JITs, had: `scenarios/bugs/ID-slug/{bad,good}.tb`. Each says where it
//! comes from; the bad variant has findings on every machine that it names, under every policy, and
//! the mended one has none of these. No rule knows of any of them.
#![allow(clippy::unwrap_used)] // tests may

mod common;

use std::collections::BTreeMap;

use textbed_check::Level;

#[test]
fn every_bug_is_found_and_its_fix_is_not() {
    let root = common::root().join("scenarios/bugs");
    let mut dirs: Vec<_> = std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().path()).collect();
    dirs.sort();
    let (mut runs, mut rules) = (0, BTreeMap::<&str, usize>::new());
    for dir in &dirs {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let mut of_bug: Vec<&str> = Vec::new();
        for (file, bad) in [("bad.tb", true), ("good.tb", false)] {
            let path = dir.join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("# Origin: "), "{name}/{file} says where it comes from");
            let loaded = common::read(&path);
            assert!(loaded.name().starts_with(&name), "{name}/{file} is called {}", loaded.name());
            let wrong = common::differences(&loaded, |on, _, policy, report, _| {
                runs += 1;
                let found: Vec<&str> = report
                    .findings
                    .iter()
                    .filter(|f| f.level != Level::Allow)
                    .map(|f| f.rule.name())
                    .collect();
                let what = format!("{name}/{file} on {} under {policy:?}", on.0);
                assert!(!bad || !found.is_empty(), "{what}: nothing found");
                if bad {
                    of_bug.extend(found);
                }
            });
            assert!(wrong.is_empty(), "{name}/{file}: {wrong:?}");
        }
        of_bug.sort_unstable();
        of_bug.dedup();
        for rule in of_bug {
            *rules.entry(rule).or_default() += 1;
        }
    }
    assert!(dirs.len() >= 45 && rules.len() >= 20, "{} bugs, {} rules", dirs.len(), rules.len());
    println!("{} bugs, {runs} runs, all as expected; by rule: {rules:?}", dirs.len());
}
