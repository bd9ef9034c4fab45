//! Rules of the house: the checker knows events, not Linux.

#![allow(clippy::unwrap_used)] // tests may

use std::path::Path;

/// Beginnings and parts of names of kernel functions: none of them may decide anything here.
const NAMES: &[&str] = &[
    "set_memory_",
    "text_poke",
    "vmalloc",
    "vfree",
    "module_alloc",
    "execmem",
    "bpf_",
    "flush_icache",
    "kick_all",
    "stop_machine(",
    "set_direct_map",
    "patch_instruction",
    "aarch64_insn",
    "kprobe",
    "ftrace",
    "static_key",
    "jump_label",
    "change_page_attr",
    "apply_to_page",
];

fn sources(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn no_source_names_a_kernel_function() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 30, "the sources were found");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for name in NAMES {
            assert!(!text.contains(name), "{} names {name}", file.display());
        }
    }
}
