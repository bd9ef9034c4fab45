//! Habits of the house, checked over the files of the tree: who may use whom, module headers, where
//! `unsafe` may be, that `check` names no function of Linux, the width of text, and texts that have
//! no business in the repository.
//!
//! The files are those that git knows or would add; without git (an unpacked archive) all files but
//! build output. Not checked: whether what a header or a comment says is true.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Widest line of text, in characters.
const WIDTH: usize = 100;

/// Which packages of the workspace each of them may use, by normal and build dependencies. What
/// only its tests use is free. `None`: sits on top, anything goes.
const MAY_USE: [(&str, Option<&[&str]>); 19] = [
    ("textbed-arch", Some(&[])),
    ("textbed-firmware", Some(&["textbed-arch"])),
    ("textbed-event", Some(&["textbed-arch"])),
    ("textbed-machine", Some(&["textbed-arch", "textbed-event"])),
    ("textbed-kernel", Some(&["textbed-arch", "textbed-event", "textbed-machine"])),
    ("textbed-vcpu", Some(&["textbed-arch", "textbed-event", "textbed-machine"])),
    ("textbed-codegen", Some(&["textbed-arch"])),
    ("textbed-check", Some(&["textbed-arch", "textbed-event"])),
    ("textbed-litmus", Some(&["textbed-arch", "textbed-check"])),
    (
        "textbed-explore",
        Some(&["textbed-arch", "textbed-event", "textbed-machine", "textbed-check"]),
    ),
    (
        "textbed-trace",
        Some(&["textbed-arch", "textbed-event", "textbed-machine", "textbed-kernel"]),
    ),
    (
        "textbed-watch",
        Some(&["textbed-arch", "textbed-event", "textbed-machine", "textbed-kernel"]),
    ),
    ("textbed-qemu-plugin", Some(&["textbed-watch"])),
    ("textbed-report", Some(&["textbed-arch", "textbed-event", "textbed-check"])),
    ("textbed-scenario", None),
    ("textbed", None),
    ("textbed-cli", None),
    ("textbed-tests", None),
    ("textbed-mmu", None),
];

/// Packages from outside that only these packages of the workspace may use, tests included. The
/// tests of formats ask the engine's own MMU.
const ONLY_IN: [(&str, &[&str]); 2] = [
    ("unicorn-engine", &["textbed-vcpu", "textbed-mmu"]),
    ("unicorn-engine-sys", &["textbed-vcpu"]),
];

/// Folders whose code may be `unsafe`.
const MAY_BE_UNSAFE: [&str; 2] = ["crates/vcpu/", "crates/qemu-plugin/"];

/// Functions of Linux, as whole identifiers or, with a trailing `_`, as beginnings of identifiers.
/// What is Linux reaches `check` as events, so none of these has a place in its code or texts.
const LINUX_NAMES: [&str; 48] = [
    "set_memory_",
    "set_direct_map_",
    "set_vm_flush_reset_perms",
    "set_pages_",
    "change_page_attr",
    "change_page_attr_set_clr",
    "change_memory_common",
    "apply_to_page_range",
    "vmalloc",
    "vmalloc_huge",
    "vmalloc_node_range",
    "__vmalloc_node_range",
    "vfree",
    "vunmap",
    "vm_unmap_aliases",
    "vm_reset_perms",
    "module_alloc",
    "module_memfree",
    "execmem_",
    "text_poke",
    "text_poke_",
    "smp_text_poke_",
    "bpf_",
    "__bpf_",
    "patch_instruction",
    "patch_instructions",
    "patch_branch",
    "raw_patch_instruction",
    "aarch64_insn_",
    "flush_icache_range",
    "flush_icache_",
    "caches_clean_inval_pou",
    "kick_all_cpus_sync",
    "on_each_cpu",
    "on_each_cpu_",
    "smp_call_function",
    "smp_call_function_",
    "flush_tlb_",
    "static_key",
    "static_key_",
    "static_branch_",
    "static_call_",
    "jump_label_",
    "arch_jump_label_",
    "ftrace_",
    "kprobe_",
    "alternative_instructions",
    "apply_alternatives",
];

/// Texts that no file may have, in pieces, so that this file hasn't them either.
const FORBIDDEN: [(&str, &str); 11] = [
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/tm", "p/tb"), "a path of one machine"),
    (concat!("../sh", "ared"), "a path outside of the repository"),
    (concat!("crates", ".io"), "a registry's host"),
    (concat!("pypi", ".org"), "a registry's host"),
    (concat!("python", "hosted.org"), "a registry's host"),
    (concat!("deb.", "debian.org"), "a registry's host"),
    (concat!("proxy.", "golang.org"), "a registry's host"),
    (concat!("npmjs", ".org"), "a registry's host"),
    (concat!("todo", "!("), "unfinished code"),
    (concat!("unimple", "mented!("), "unfinished code"),
];

/// A crate that has been set up and not begun has one of these files, and no header yet.
const PLACEHOLDERS: [&str; 2] = ["//! placeholder", "fn main() {}"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A text file of the tree, its path relative to the root with `/`.
struct Text {
    path: String,
    text: String,
}

/// All text files: what git tracks or would add, else what a walk finds.
fn texts() -> Vec<Text> {
    let root = root();
    let git = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output();
    let mut paths: Vec<String> = match git {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout)
            .split('\0')
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect(),
        _ => walk(&root),
    };
    paths.sort();
    paths.dedup();
    let texts: Vec<Text> = paths
        .into_iter()
        // A file that is tracked and deleted is not there to read; binary files are no text.
        .filter_map(|path| Some((std::fs::read(root.join(&path)).ok()?, path)))
        .filter(|(bytes, _)| !bytes.contains(&0))
        .filter_map(|(bytes, path)| Some(Text { text: String::from_utf8(bytes).ok()?, path }))
        .collect();
    assert!(texts.iter().any(|t| t.path == "Cargo.toml"), "the tree's files were not found");
    texts
}

/// All files below `root` but for git's own, build output and the local environment.
fn walk(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(root.join(&folder)).expect("a readable folder");
        for entry in entries.flatten() {
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().expect("a file has a type");
            if kind.is_dir() {
                let top = folder.as_os_str().is_empty();
                let skipped = [".git", "target", ".venv"].map(Some);
                if !(top && skipped.contains(&path.to_str())) {
                    open.push(path);
                }
            } else if kind.is_file() {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .expect("cargo metadata answers")
}

/// Fails with one line for each complaint.
fn assert_none(what: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{what}:\n{}", complaints.join("\n"));
}

/// Rust source without its comments; strings stay.
fn without_comments(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::new();
    let mut i = 0;
    while i < chars.len() {
        match (at(i), at(i + 1)) {
            ('/', '/') => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 1;
                i += 2;
                while i < chars.len() && depth > 0 {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                }
                out.push(' ');
            }
            ('"', _) => {
                // How many `#` of a raw string came before: r#"..."#.
                let hashes = out.chars().rev().take_while(|c| *c == '#').count();
                let raw = out.chars().rev().nth(hashes) == Some('r');
                out.push('"');
                i += 1;
                while i < chars.len() {
                    if !raw && at(i) == '\\' {
                        out.push(at(i));
                        out.push(at(i + 1));
                        i += 2;
                        continue;
                    }
                    out.push(at(i));
                    i += 1;
                    let closed = !raw || (0..hashes).all(|h| at(i + h) == '#');
                    if at(i - 1) == '"' && closed {
                        break;
                    }
                }
            }
            // A character literal, not a lifetime: '"' must not open a string.
            ('\'', second) if second == '\\' || at(i + 2) == '\'' => {
                let length = if second == '\\' { 4 } else { 3 };
                (0..length).for_each(|k| out.push(at(i + k)));
                i += length;
            }
            (c, _) => {
                out.push(c);
                i += 1;
            }
        }
    }
    out
}

/// Identifiers of `code` that are functions of Linux.
fn linux_names(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| {
            LINUX_NAMES.iter().any(|name| {
                *word == *name || (name.ends_with('_') && word.starts_with(name) && word != name)
            })
        })
        .collect()
}

/// A line without link targets and bare addresses, which can't be wrapped.
fn without_links(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        text.push(']');
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text.split(' ').filter(|word| !word.contains("://")).collect::<Vec<_>>().join(" ")
}

/// Numbers of the lines (from 1) of a Markdown text that are too wide: outside of code blocks,
/// tables and links.
fn wide_prose(text: &str) -> Vec<usize> {
    let mut fence = None;
    let mut wide = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|m| start.starts_with(m));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) if !start.starts_with('|') && too_wide(line) => wide.push(number + 1),
            _ => {}
        }
    }
    wide
}

fn too_wide(line: &str) -> bool {
    line.chars().count() > WIDTH && without_links(line).chars().count() > WIDTH
}

/// Numbers of the lines of Rust source that are comments and too wide. Code is rustfmt's business.
fn wide_comments(text: &str) -> Vec<usize> {
    let comment = |line: &str| {
        let start = line.trim_start();
        let words = start.trim_start_matches(['/', '!']).trim_start();
        start.starts_with("//") && !words.starts_with('|')
    };
    numbered(text, |line| comment(line) && too_wide(line))
}

fn numbered(text: &str, test: impl Fn(&str) -> bool) -> Vec<usize> {
    text.lines().enumerate().filter(|(_, line)| test(line)).map(|(n, _)| n + 1).collect()
}

/// Whether Rust source opens with a module header: a `//!` line that says something, after nothing
/// but blank lines and inner attributes.
fn has_header(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with("#!["))
        .and_then(|line| line.strip_prefix("//!"))
        .is_some_and(|words| words.trim().len() >= 10)
}

#[test]
fn packages_use_only_what_they_may() {
    let metadata = metadata();
    let ours: BTreeSet<&str> =
        metadata.workspace_packages().iter().map(|p| p.name.as_str()).collect();
    let mut complaints = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let Some((_, allowed)) = MAY_USE.iter().find(|(n, _)| *n == name) else {
            complaints.push(format!("{name} has no row in MAY_USE"));
            continue;
        };
        for dependency in &package.dependencies {
            let used = dependency.name.as_str();
            let row = ONLY_IN.iter().find(|(n, only)| *n == used && !only.contains(&name));
            if let Some((_, only)) = row {
                complaints.push(format!("{name} uses {used}, which only {} may", only.join(", ")));
            }
            let counts = dependency.kind != DependencyKind::Development && ours.contains(used);
            if counts && allowed.is_some_and(|allowed| !allowed.contains(&used)) {
                complaints.push(format!("{name} may not use {used}"));
            }
        }
    }
    assert_none("dependencies against DESIGN.md, \"who may use whom\"", &complaints);
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    let mut complaints = Vec::new();
    for package in metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest");
        if !manifest.contains("[lints]\nworkspace = true") {
            complaints.push(package.name.to_string());
        }
    }
    assert_none("no `[lints] workspace = true` in", &complaints);
}

#[test]
fn every_source_file_has_a_module_header() {
    let complaints: Vec<String> = texts()
        .into_iter()
        // A file of unit tests belongs to the module beside it.
        .filter(|t| t.path.ends_with(".rs") && !t.path.ends_with("/tests.rs"))
        .filter(|t| !has_header(&t.text) && !PLACEHOLDERS.contains(&t.text.trim()))
        .map(|t| t.path)
        .collect();
    assert_none("no module header (//! what it models and what not)", &complaints);
    assert!(has_header("\n#![no_std]\n//! What this is.\n"));
    assert!(!has_header("//! x\n"), "says nothing");
    assert!(!has_header("//!\nuse std::fs;\n"));
    assert!(!has_header("// A comment is not a header.\n"));
    assert!(!has_header("use std::fs;\n//! Too late for a header.\n"));
}

#[test]
fn unsafe_code_is_allowed_only_where_the_design_says() {
    let complaints: Vec<String> = texts()
        .into_iter()
        .filter(|t| t.path.ends_with(".rs") && t.path != "tests/tests/house.rs")
        .filter(|t| !MAY_BE_UNSAFE.iter().any(|folder| t.path.starts_with(folder)))
        .filter(|t| without_comments(&t.text).contains("(unsafe_code"))
        .map(|t| t.path)
        .collect();
    assert_none("the lint unsafe_code is changed in", &complaints);
}

#[test]
fn check_names_no_function_of_linux() {
    let mut complaints = Vec::new();
    let mut files = 0;
    for t in texts() {
        if t.path.starts_with("crates/check/src/") {
            files += 1;
            for name in linux_names(&without_comments(&t.text)) {
                complaints.push(format!("{}: {name}", t.path));
            }
        }
    }
    assert!(files > 0, "crates/check/src was not found");
    assert_none("`check` knows events, not Linux", &complaints);
}

#[test]
fn names_of_linux_are_found_in_code_and_strings_but_not_in_comments() {
    let source = r##"
        // set_memory_ro is what closes it
        /* vfree /* nested */ bpf_prog_pack */
        fn a<'a>(q: char) -> bool { q == '"' && q != '\'' } // vmalloc
        const HELP: &str = "use \" set_memory_rox // not a comment";
        const RAW: &str = r#"a " quote; text_poke"#; fn vmalloc_area() {} // module_alloc
    "##;
    let code = without_comments(source);
    assert_eq!(linux_names(&code), BTreeSet::from(["set_memory_rox", "text_poke"]));
    assert_eq!(linux_names("vmalloc(x); my_vmalloc; set_memory_; bpf; VmallocArea").len(), 2);
}

#[test]
fn no_file_has_a_forbidden_text() {
    let mut complaints = Vec::new();
    for t in texts() {
        for (text, why) in FORBIDDEN {
            // The lock file names where each package is from.
            let lock = t.path.ends_with("Cargo.lock") && text == concat!("crates", ".io");
            if !lock {
                let lines = numbered(&t.text, |line| line.contains(text));
                complaints.extend(lines.iter().map(|n| format!("{}:{n}: {text}: {why}", t.path)));
            }
        }
    }
    assert_none("forbidden", &complaints);
}

#[test]
fn text_wraps() {
    let mut complaints = Vec::new();
    for t in texts() {
        let (folder, name) = t.path.rsplit_once('/').unwrap_or(("", &t.path));
        let whole = name == "Makefile"
            || [".tb", ".s", ".S"].iter().any(|end| name.ends_with(end))
            || [".ci", "tools"].contains(&folder);
        let lines = if name.ends_with(".md") {
            wide_prose(&t.text)
        } else if name.ends_with(".rs") {
            wide_comments(&t.text)
        } else if whole {
            numbered(&t.text, too_wide)
        } else {
            Vec::new()
        };
        complaints.extend(lines.iter().map(|n| format!("{}:{n}", t.path)));
    }
    assert_none("lines of text wider than 100 columns", &complaints);
}

#[test]
fn wide_lines_are_found_where_they_can_be_wrapped() {
    let long = "word ".repeat(30);
    let wide = |text: String| wide_prose(&text);
    assert_eq!(wide(format!("{long}\nshort\n{long}")), [1, 3]);
    assert_eq!(wide(format!("```\n{long}\n```\n{long}\n~~~ text\n{long}\n```\n{long}")), [4]);
    assert!(wide(format!("| {long} |")).is_empty());
    assert!(wide(format!("see [this](https://example.invalid/{})", "x".repeat(100))).is_empty());
    assert!(wide(format!("see https://example.invalid/{} there", "x".repeat(100))).is_empty());
    assert_eq!(wide(format!("[a](b) {long}")), [1]);
    // Characters, not bytes.
    assert!(wide("é".repeat(100)).is_empty());
    assert_eq!(wide("é".repeat(101)), [1]);

    let comments = |text: String| wide_comments(&text);
    assert_eq!(comments(format!("    // {long}\nlet x = \"{long}\";\n//! {long}")), [1, 3]);
    assert_eq!(comments(format!("//! | {long} |\n/// https://example.invalid/{long}")), [2]);
}
