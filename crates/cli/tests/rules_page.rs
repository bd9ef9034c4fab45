//! docs/rules.md is true: each of its tables is what the command above it prints.

use std::path::Path;
use std::process::Command;

/// The command and the table of each block of the page that begins with one.
fn blocks(page: &str) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for block in page.split("```console\n$ textbed ").skip(1) {
        let (command, rest) = block.split_once("\n```\n").expect("a block of one command");
        let table = rest.lines().skip_while(|l| l.is_empty()).take_while(|l| l.starts_with('|'));
        all.push((command.to_owned(), table.map(str::to_owned).collect()));
    }
    all
}

fn check(file: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/rules.md")).expect("the page");
    let about: Vec<_> = blocks(&page).into_iter().filter(|(c, _)| c.contains(file)).collect();
    assert_eq!(about.len(), 1, "one table of {file}");
    for (command, table) in about {
        let output = Command::new(env!("CARGO_BIN_EXE_textbed"))
            .args(command.split_whitespace())
            .current_dir(&root)
            .output()
            .expect("the command starts");
        assert!(output.status.success(), "textbed {command}: {:?}", output.status);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let printed: Vec<&str> = printed.lines().collect();
        assert!(printed.len() > 4, "textbed {command}: a table");
        for (line, wanted) in printed.iter().zip(&table) {
            assert_eq!(line, wanted, "textbed {command}: put what it prints into docs/rules.md");
        }
        assert_eq!(printed.len(), table.len(), "textbed {command}: rows");
    }
}

#[test]
fn a_pack_of_programs() {
    check("bpf-prog-pack-fixed.tb");
}

#[test]
fn a_small_pack_on_arm64() {
    check("bpf-prog-pack-64k.tb");
}

#[test]
fn functions_generated_for_nodes() {
    check("bcachefs-jit-synced.tb");
}

#[test]
fn a_byte_and_a_function_poked_on_x86_64() {
    check("text-poke-sync.tb");
}

#[test]
fn a_branch_patched_on_arm64() {
    check("text-poke-arm64-kick.tb");
}

#[test]
fn a_branch_patched_on_powerpc() {
    check("text-poke-power-kick.tb");
}

#[test]
fn every_table_of_the_page_is_checked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/rules.md")).expect("the page");
    assert_eq!(blocks(&page).len(), 7);
}

#[test]
fn a_page_made_read_only_with_hashed_tables() {
    check("hash-entry-flush.tb");
}
