//! Which call of the kernel mends what: for everything that can be missing, on each architecture
//! where it can, in each version, one call, of that architecture.
#![allow(clippy::expect_used, clippy::unwrap_used)] // tests may

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use textbed_arch::Arch;
use textbed_check::Operation;
use textbed_check::operation::KINDS;
use textbed_kernel::{KERNELS, REMEDIES, Remedy, remedies};

/// What no call mends.
const BY_HAND: &[(Operation, &str)] = &[
    (Operation::Promise, "whoever wrote the call that promised"),
    (Operation::Agreement, "whoever wrote the two descriptions that differ"),
];

/// Calls that one architecture has.
const OWN: &[(&str, &str)] = &[
    ("wmb()", "x86_64"),
    ("sync_core", "x86_64"),
    ("text_poke", "x86_64"),
    ("smp_text_poke", "x86_64"),
    ("gen_endbr", "x86_64"),
    ("flush_tlb_all", "x86_64"),
    ("aarch64_", "arm64"),
    ("isb()", "arm64"),
    ("kick_all_cpus_sync", "arm64"),
    ("CONFIG_ARM64", "arm64"),
    ("isync()", "powerpc"),
    ("patch_instruction", "powerpc"),
];

fn is_of(arch: Arch, name: &str) -> bool {
    arch.name() == name || name == "powerpc" && arch.is_powerpc()
}

fn key(row: &Remedy) -> String {
    format!("{} {:?} {:?} {:?} {}", row.operation, row.rules, row.archs, row.since, row.call)
}

#[test]
fn everything_that_can_be_missing_has_one_call_of_that_architecture() {
    let (mut cells, mut used) = (0, BTreeSet::new());
    for row in KINDS {
        let by_hand = BY_HAND.iter().any(|(operation, _)| *operation == row.operation);
        for arch in row.archs {
            for kernel in KERNELS {
                let (rule, operation) = (row.rule.name(), row.operation.name());
                let calls: Vec<_> = remedies(rule, operation, *arch, kernel.version).collect();
                let place = format!("{rule}, {operation}, {arch}, {}", kernel.version);
                assert_eq!(calls.len(), usize::from(!by_hand), "{place}: {calls:#?}");
                for call in calls {
                    // The name as a whole: `text_poke` is a part of another one.
                    let own = OWN.iter().find(|(name, _)| {
                        let words = call.call.split(|c: char| !c.is_alphanumeric() && c != '_');
                        let name = name.trim_end_matches("()");
                        words.into_iter().any(|word| word.starts_with(name))
                    });
                    assert!(own.is_none_or(|(_, a)| is_of(*arch, a)), "{place}: {}", call.call);
                    used.insert(key(call));
                }
                cells += 1;
            }
        }
    }
    assert!(cells > 1500, "{cells}");
    for row in REMEDIES {
        assert!(used.contains(&key(row)), "nothing asks for {}", row.call);
        let known = |name: &str| Operation::ALL.iter().any(|o| o.name() == name);
        assert!(known(row.operation), "{}", row.operation);
    }
}

fn help(scenario: &str, arch: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_textbed"))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .args(["run", scenario, "--arch", arch, "--format", "json"])
        .output()
        .expect("the command runs");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    let findings = report["runs"].as_array().expect("runs").iter();
    let findings = findings.flat_map(|run| run["findings"].as_array().expect("findings"));
    let help: Vec<&str> = findings.filter_map(|finding| finding["help"].as_str()).collect();
    help.join("\n")
}

#[test]
fn what_an_erratum_defeats_is_not_what_is_advised() {
    let global = help("scenarios/bugs/X05-invlpg-global/bad.tb", "x86_64");
    assert!(global.contains("flush_tlb_all()"), "{global}");
    assert!(!global.contains(": flush_tlb_kernel_range"), "{global}");
    let plain = help("scenarios/rules/stale-translation/bad.tb", "x86_64");
    assert!(plain.contains(": flush_tlb_kernel_range"), "{plain}");
    let twice = help("scenarios/bugs/R11-repeated-tlbi/bad.tb", "arm64");
    assert!(twice.contains("REPEAT_TLBI"), "{twice}");
    let stores = help("scenarios/bugs/W16-tlbie-store-queue/bad.tb", "ppc64le");
    assert!(stores.contains("repeats tlbie"), "{stores}");
}
