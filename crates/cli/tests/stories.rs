//! docs/stories.md is true: each command in it prints the lines that stand below it, in that order.

use std::path::Path;
use std::process::Command;

#[test]
fn every_command_of_the_stories_prints_what_the_page_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/stories.md")).expect("the page");
    let mut commands = 0;
    let mut blocks = page.split("```console\n").skip(1);
    while let Some(block) = blocks.next().and_then(|b| b.split("```").next()) {
        let mut lines = block.lines().map(str::trim).filter(|l| !l.is_empty());
        let command = lines.next().and_then(|l| l.strip_prefix("$ textbed ")).expect("a command");
        let output = Command::new(env!("CARGO_BIN_EXE_textbed"))
            .args(command.split(' '))
            .current_dir(&root)
            .output()
            .expect("the command starts");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut rest = printed.as_str();
        let mut shown = 0;
        for line in lines {
            // A long line is cut on the page.
            let wanted = line.strip_suffix(" ...").unwrap_or(line);
            let at = rest.find(wanted);
            assert!(at.is_some(), "textbed {command}: no '{wanted}' in:\n{printed}");
            rest = &rest[at.unwrap_or(0) + wanted.len()..];
            shown += 1;
        }
        assert!(shown > 0, "textbed {command}: nothing to look for");
        commands += 1;
    }
    assert!(commands >= 12, "{commands} commands");
}
