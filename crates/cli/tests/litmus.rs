//! The scenarios of `scenarios/litmus`: what is allowed is reached, and what is forbidden is not,
//! in the three configurations of caches.
//!
//! A file asserts what its litmus test forbids, or would. What an assertion may see fail is allowed
//! by the models of instruction fetch and of translation (Simner et al., ESOP 2020 and 2022; Arm
//! ARM DDI 0487 B2.7.4.2, D8.17); which findings there are is what the files expect (`textbed
//! test`). Here for what a scenario can say; the same tests and others as litmus text, with loads
//! and stores out of order and every run enumerated, are in `crates/litmus/tests`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may
#![cfg(feature = "vcpu")]

mod common;

use common::{files, read, root};
use textbed_arch::Arch;
use textbed_event::Collect;
use textbed_kernel::Version;
use textbed_scenario::{Loaded, Outcome, PolicyChoice, RunOptions, run};

/// IDC and DIC.
const CACHES: [(&str, &str); 3] = [("0", "0"), ("1", "0"), ("1", "1")];
/// Seeds beside the two policies, until what is allowed was reached, and for what is not. The
/// rarest needs three choices among three and the right order of two CPUs' statements.
const SEEDS: u64 = 2000;
const SEEDS_IN_VAIN: u64 = 60;

const A: bool = true;
const F: bool = false;

/// The outcome against which a file asserts: allowed with neither IDC nor DIC, with IDC, with both.
const VERDICTS: [(&str, [bool; 3]); 21] = [
    ("coff", [A, A, F]),
    ("cofr", [F, F, F]),
    ("corr-pte-bbm", [F, F, F]),
    ("corr-pte", [A, A, A]),
    ("fow", [A, F, F]),
    ("isa2-dc-ic-ctrl-isb", [F, F, F]),
    ("mp-ff-cachesync", [F, F, F]),
    ("mp-ff-dmb", [A, A, F]),
    ("mp-fr-dmb", [F, F, F]),
    ("mp-rf-cachesync-ctrl-isb", [F, F, F]),
    ("mp-rf-cachesync-ctrl", [A, A, A]),
    ("mp-rf-dc-ctrl-isb-isb", [A, A, F]),
    ("mp-rf-dmb-ctrl-isb", [A, A, F]),
    ("sm-cachesync-isb", [F, F, F]),
    ("sm-f-ic", [A, F, F]),
    ("sm-without-dc", [A, F, F]),
    ("sm-without-dsb-1", [A, A, F]),
    ("sm-without-dsb-2", [A, A, F]),
    ("sm-without-ic", [A, A, F]),
    ("sm-without-isb", [A, A, A]),
    ("sm", [A, A, A]),
];

/// Whether some run fails an assertion.
fn reached(loaded: &Loaded, (idc, dic): (&str, &str), seeds: u64) -> bool {
    let policies = [PolicyChoice::Newest, PolicyChoice::Stalest];
    policies.into_iter().chain((0..seeds).map(PolicyChoice::Random)).any(|policy| {
        let features = [("arm64.idc", idc), ("arm64.dic", dic)];
        let options = RunOptions {
            policy,
            features: features.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..RunOptions::new(Arch::Arm64, Version::parse("6.12").unwrap())
        };
        let end = run(loaded, &options, &mut Collect::default()).unwrap();
        assert_eq!(end.outcome, Outcome::Ended, "{}: {policy:?}", loaded.path());
        end.asserts_failed > 0
    })
}

#[test]
fn the_simulator_reaches_what_is_allowed_and_nothing_else() {
    let (mut compared, mut wrong) = (0, Vec::new());
    let paths = files(&root().join("scenarios/litmus"));
    let names = paths.iter().map(|path| path.file_stem().unwrap().to_str().unwrap());
    assert_eq!(
        names.collect::<Vec<_>>(),
        VERDICTS.map(|(name, _)| name),
        "a verdict for each file"
    );
    for (path, (name, allowed)) in paths.iter().zip(VERDICTS) {
        let loaded = read(path);
        for (caches, allowed) in CACHES.into_iter().zip(allowed) {
            compared += 1;
            let seeds = if allowed { SEEDS } else { SEEDS_IN_VAIN };
            if reached(&loaded, caches, seeds) != allowed {
                wrong.push(format!("{name} with IDC, DIC {caches:?}: allowed is {allowed}"));
            }
        }
    }
    println!("{compared} compared, {} equal", compared - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
