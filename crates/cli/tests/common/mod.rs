//! Runs of scenario files in one process, for tests over folders of them.
#![allow(dead_code, clippy::unwrap_used)] // tests may; not every test uses all of it

use std::path::{Path, PathBuf};

use textbed_arch::Arch;
use textbed_check::rules::RULES;
use textbed_check::{Checker, Confidence, Level, Options, Reading, Report};
use textbed_event::{Collect, Header, Sink};
use textbed_kernel::Version;
use textbed_scenario::expect::Finding;
use textbed_scenario::syntax::ast::Reading as Asked;
use textbed_scenario::{
    Difference, Loaded, Outcome, PolicyChoice, RunEnd, RunOptions, compare, load, run,
};

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The scenario files below a folder, in order.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "tb") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A scenario, read.
pub(crate) fn read(path: &Path) -> Loaded {
    let rules: Vec<&str> = RULES.iter().map(|r| r.name).collect();
    let text = std::fs::read_to_string(path).unwrap();
    match load(&path.display().to_string(), text, &rules) {
        Ok((loaded, _)) => loaded,
        Err(errors) => panic!("{}: {}", path.display(), errors[0].message),
    }
}

/// Two policies and two seeds.
pub(crate) const POLICIES: [PolicyChoice; 4] =
    [PolicyChoice::Newest, PolicyChoice::Stalest, PolicyChoice::Random(1), PolicyChoice::Random(2)];

/// The three readings, as scenarios and as the checker have them.
pub(crate) const READINGS: [(Asked, Reading); 3] = [
    (Asked::Strict, Reading::Strict),
    (Asked::Mapped, Reading::Mapped),
    (Asked::Fresh, Reading::Fresh),
];

/// The machines that a scenario names.
pub(crate) fn machines(loaded: &Loaded) -> Vec<(Arch, Version)> {
    let kernels = loaded.kernels();
    loaded.archs().into_iter().flat_map(|a| kernels.iter().map(move |k| (a, *k))).collect()
}

/// One run: its events and its end.
pub(crate) fn events(
    loaded: &Loaded,
    on: (Arch, Version),
    policy: PolicyChoice,
) -> (Collect, RunEnd) {
    let mut seen = Collect::default();
    let options = RunOptions { policy, ..RunOptions::new(on.0, on.1) };
    let end = run(loaded, &options, &mut seen)
        .unwrap_or_else(|e| panic!("{} on {}: {e:?}", loaded.path(), on.0));
    (seen, end)
}

/// What the checker makes of events.
pub(crate) fn check(seen: &Collect, reading: Reading) -> Report {
    let header: &Header = seen.header.as_ref().unwrap();
    let mut checker = Checker::new(Options { reading, ..Options::default() });
    let _ = checker.begin(header);
    for batch in &seen.batches {
        let _ = checker.batch(batch);
    }
    checker.finish()
}

/// Findings in the words of `expect`.
pub(crate) fn found(loaded: &Loaded, report: &Report) -> Vec<Finding> {
    let shown = report.findings.iter().filter(|f| f.level != Level::Allow);
    shown
        .map(|f| Finding {
            rule: f.rule.name().to_owned(),
            possible: f.confidence == Confidence::Possible,
            missing: f.missing.clone(),
            label: f.at.origin.and_then(|o| loaded.label_at(o.offset)).map(str::to_owned),
            count: 1,
        })
        .collect()
}

/// What differs from what the file expects, over all machines, its readings and [`POLICIES`]; each
/// report is handed to `look`.
pub(crate) fn differences(
    loaded: &Loaded,
    mut look: impl FnMut((Arch, Version), Asked, PolicyChoice, &Report, &Outcome),
) -> Vec<(Arch, Difference)> {
    let mut all = Vec::new();
    for on in machines(loaded) {
        for policy in POLICIES {
            let (seen, end) = events(loaded, on, policy);
            for (asked, reading) in READINGS {
                if !loaded.readings().contains(&asked) {
                    continue;
                }
                let report = check(&seen, reading);
                look(on, asked, policy, &report, &end.outcome);
                let found = found(loaded, &report);
                let ended = end.outcome.end();
                let differ = compare(loaded, on.0, on.1, asked, ended, &found);
                all.extend(differ.into_iter().map(|d| (on.0, d)));
            }
        }
    }
    all
}
