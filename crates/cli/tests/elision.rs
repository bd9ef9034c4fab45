//! Withheld events change no finding: every scenario of the repository, on each of its
//! architectures and under two policies, with and without elision.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may

use std::path::{Path, PathBuf};
use textbed_check::{Checker, Options, Report};
use textbed_event::{Tee, elide::Elided};
use textbed_scenario::{PolicyChoice, RunOptions};

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true => files(&path, found),
            false if path.extension().is_some_and(|e| e == "tb") => found.push(path),
            false => {}
        }
    }
}

fn said(report: &Report) -> String {
    format!("{:#?}\n{:#?}\n{:?}", report.findings, report.windows, report.notes)
}

#[test]
fn findings_of_all_scenarios_are_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut all = Vec::new();
    files(&root, &mut all);
    let rules: Vec<&str> = textbed_check::rules::RULES.iter().map(|r| r.name).collect();
    let (mut compared, mut events, mut withheld) = (0, 0, 0);
    for path in all {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let Ok((loaded, _)) = textbed_scenario::load(&shown, text, &rules) else { continue };
        for arch in loaded.archs() {
            let kernel = *loaded.kernels().first().unwrap();
            for policy in [PolicyChoice::Newest, PolicyChoice::Random(7)] {
                let options = RunOptions { policy, ..RunOptions::new(arch, kernel) };
                let mut full = Checker::new(Options::default());
                let mut less = Checker::new(Options::default());
                let mut elided = Elided::new(&mut less);
                let ran =
                    textbed_scenario::run(&loaded, &options, &mut Tee(&mut full, &mut elided));
                withheld += elided.finish();
                if ran.is_err() {
                    continue;
                }
                let (full, less) = (full.finish(), less.finish());
                assert_eq!(said(&full), said(&less), "{shown} {arch} {policy:?}");
                compared += 1;
                events += full.events;
            }
        }
    }
    println!("{compared} runs compared, {compared} equal; {withheld} of {events} events withheld");
    assert!(compared > 100, "{compared} runs");
}
