//! `run --results`: what the table of one call on three architectures says besides the value.
#![allow(clippy::unwrap_used)] // tests may

use std::path::Path;
use std::process::Command;

/// The rows of a scenario on 6.12, each with the lines that belong to it.
fn rows(scenario: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_textbed"))
        .args(["run", "--results", scenario, "--arch", "all", "--kernel", "6.12"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.split("\n\n").map(|row| {
        let words = row.lines().map(|l| l.split("  ").map(str::trim).filter(|w| !w.is_empty()));
        words.map(|line| line.collect::<Vec<_>>().join(" | ")).collect::<Vec<_>>().join("\n")
    });
    rows.collect()
}

#[test]
fn each_row_says_what_was_changed_flushed_and_who_synchronised() {
    let rows = rows("scenarios/same-call.tb");
    let row = |call: &str| {
        let found = rows.iter().find(|row| row.contains(call));
        found.unwrap_or_else(|| panic!("no {call} in {rows:#?}")).clone()
    };
    let says = |call: &str, lines: &[&str]| {
        let row = row(call);
        for line in lines {
            assert!(row.lines().any(|l| l == *line), "no '{line}' in\n{row}");
        }
    };
    // No rollback: pages and an error. arm64 refuses first, and where it does not, its alias stays.
    says(
        "across = set_memory_rw(a, 1024 pages)",
        &[
            "across = set_memory_rw(a, 1024 pages) | -EFAULT | -EINVAL | -EINVAL",
            "WARN nothing is mapped there | 4 pages r-- to rw-",
            "2 pages r-- to rw- | flushes all translations",
            "direct map: 2 pages r-- to rw- | 15 broadcasts",
        ],
    );
    says(
        "block = set_memory_ro(huge, 512 pages)",
        &["1 leaf of 2 MiB rw- to r-- | WARN permission \
         change over a huge mapping | WARN permission change over a huge mapping"],
    );
    // Interrupts synchronise others; broadcasts do not.
    says(
        "shut = set_memory_ro(code, 1 pages)",
        &["1 interrupt | 2 broadcasts", "2 other CPUs synchronise"],
    );
    // By whom translations are forgotten: all CPUs by interrupts or by broadcast, or one.
    says(
        "nx = set_memory_nx(text, 1 pages)",
        &[
            "under vmap_purge_lock, cpa_lock | under vmap_purge_lock | flushes all translations",
            "flushes all translations | flushes translations of addresses | 1 broadcast",
        ],
    );
    says(
        "copied = bpf_arch_text_copy",
        &[
            "under text_mutex | under patch_lock | under text_mutex",
            "flushes translations of addresses | flushes translations of addresses of its CPU",
        ],
    );
    // Patchers' aliases.
    says("poked = text_poke_copy", &["by a patcher's alias in a private address space"]);
    says("placed = aarch64_insn_copy", &["by a patcher's alias visible to all CPUs"]);
    let split = row("ro = set_memory_ro(a, 1 pages)");
    assert!(split.contains("direct map: 512 pages split from 2 MiB"), "{split}");
    assert!(!split.contains("joined"), "{split}");
}

#[test]
fn a_halt_of_all_cpus_is_said() {
    let rows = rows("scenarios/text-poke-arm64-stop-machine.tb");
    let halts = rows.iter().filter(|row| row.contains("1 halt of all CPUs"));
    assert_eq!(halts.count(), 1, "{rows:#?}");
}
