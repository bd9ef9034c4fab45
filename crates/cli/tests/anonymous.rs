//! Names decide nothing: with every name of a stream replaced by noise (calls, locks, slots,
//! owners, tasks, files) each scenario has the findings that it had, at the same events.
//! Comments and texts of a scenario do not reach the stream at all but for its path.
#![allow(clippy::unwrap_used)] // tests may

use std::path::{Path, PathBuf};

use textbed_check::{Checker, Confidence, Options, rules::RULES};
use textbed_event::{Batch, Collect, Header, Sink};
use textbed_scenario::{RunOptions, load, run};

fn scenarios(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            scenarios(&path, found);
        } else if path.extension().is_some_and(|e| e == "tb") {
            found.push(path);
        }
    }
}

/// What is found, but for words.
type Found = Vec<(&'static str, Confidence, u64, Option<u64>, u64)>;

fn check(header: &Header, batches: &[Batch]) -> Found {
    let mut checker = Checker::new(Options::default());
    let _ = checker.begin(&Header { kernel: None, ..header.clone() });
    for batch in batches {
        let _ = checker.batch(batch);
    }
    let report = checker.finish();
    let mut found: Found = report
        .findings
        .iter()
        .map(|f| {
            (f.rule.name(), f.confidence, f.at.seq, f.because.as_ref().map(|b| b.seq), f.count)
        })
        .collect();
    found.sort();
    found
}

/// Each name becomes another one, distinct names distinct ones.
fn scrambled(batch: &Batch) -> Batch {
    let mut batch = batch.clone();
    for (i, name) in batch.names.iter_mut().enumerate() {
        *name = format!("q{}", (u64::from(batch.name_base) + i as u64).wrapping_mul(2_654_435_761));
    }
    batch
}

#[test]
fn scrambled_names_change_no_finding() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut files = Vec::new();
    scenarios(&root, &mut files);
    files.sort();
    let rules: Vec<&str> = RULES.iter().map(|r| r.name).collect();
    let (mut compared, mut with_findings) = (0, 0);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let Ok((loaded, _)) = load(&path.display().to_string(), text, &rules) else { continue };
        let Some(kernel) = loaded.kernels().last().copied() else { continue };
        for arch in loaded.archs() {
            let mut seen = Collect::default();
            if run(&loaded, &RunOptions::new(arch, kernel), &mut seen).is_err() {
                continue;
            }
            let Some(header) = seen.header.take() else { continue };
            let before = check(&header, &seen.batches);
            let noise: Vec<Batch> = seen.batches.iter().map(scrambled).collect();
            assert_eq!(before, check(&header, &noise), "{} on {arch}", path.display());
            compared += 1;
            with_findings += usize::from(!before.is_empty());
        }
    }
    assert!(compared >= 40 && with_findings >= 15, "{compared} compared, {with_findings} of them");
    println!("{compared} compared, {compared} equal; {with_findings} have findings");
}
