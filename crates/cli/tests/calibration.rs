//! Every row of the calibration table is shown: its scenario is quiet under all policies, readings
//! and both ways of reading live patches that its row allows, and for the reason that it gives.
#![allow(clippy::unwrap_used)] // tests may

mod common;

use std::collections::BTreeSet;

use textbed_check::calibration::{CALIBRATION, Proof, Shown};
use textbed_check::{Checker, Options};
use textbed_event::Sink;
use textbed_scenario::Outcome;

#[test]
fn every_row_is_quiet_and_for_its_reason() {
    let root = common::root();
    let mut shown = BTreeSet::new();
    let mut runs = 0;
    for row in CALIBRATION {
        if let Proof::Near(path) = row.proof {
            let near = common::read(&root.join(path));
            let mut found = false;
            let wrong = common::differences(&near, |_, _, _, report, _| {
                found |= !report.findings.is_empty();
            });
            assert!(wrong.is_empty() && found, "{}: {path} has no findings", row.what);
        }
        let path = match row.shown {
            Shown::Scenario(path) => path,
            Shown::Test(file, name) => {
                let text = std::fs::read_to_string(root.join(file)).unwrap();
                let wanted = format!("#[test]\nfn {name}(");
                assert!(text.contains(&wanted), "{}: no test {name} in {file}", row.what);
                continue;
            }
        };
        shown.insert(root.join(path));
        let loaded = common::read(&root.join(path));
        assert_eq!(loaded.readings().len(), 3, "{path}: under every reading");
        let archs: BTreeSet<_> = loaded.archs().into_iter().collect();
        assert!(archs.iter().all(|a| row.archs.contains(a)), "{path}: {archs:?}");
        let mut status = false;
        let wrong = common::differences(&loaded, |on, reading, policy, report, outcome| {
            runs += 1;
            let what = format!("{path} on {} under {policy:?}, {reading:?}", on.0);
            assert!(*outcome == Outcome::Ended, "{what}: {outcome:?}");
            assert!(report.findings.is_empty(), "{what}: {}", report.findings[0].message);
            status |= report.windows.iter().any(|w| Proof::Status(w.status) == row.proof);
        });
        assert!(wrong.is_empty(), "{path}: {wrong:?}");
        match row.proof {
            Proof::Status(_) => assert!(status, "{path}: {:?} not seen", row.proof),
            Proof::LivePatching => {
                for on in common::machines(&loaded) {
                    let seen = common::POLICIES.map(|p| common::events(&loaded, on, p).0);
                    let found = seen.iter().any(|seen| {
                        let options = Options { cmodx: false, ..Options::default() };
                        let mut checker = Checker::new(options);
                        let _ = checker.begin(seen.header.as_ref().unwrap());
                        seen.batches.iter().for_each(|b| {
                            let _ = checker.batch(b);
                        });
                        !checker.finish().findings.is_empty()
                    });
                    assert!(found, "{path} on {}: nothing without live patching", on.0);
                }
            }
            Proof::Near(_) => {}
        }
    }
    let there: BTreeSet<_> =
        common::files(&root.join("scenarios/calibration")).into_iter().collect();
    assert_eq!(there, shown, "every scenario there belongs to a row");
    println!("{} rows, {runs} runs, all quiet", CALIBRATION.len());
}
