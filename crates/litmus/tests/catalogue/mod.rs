//! The catalogue of recorded litmus tests below the directory that TEXTBED_LITMUS names.

// Each test file uses a part.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use textbed_litmus::kinds::{self, Kind};
use textbed_litmus::{Test, parse};

/// The files of tests in the order of their names, and the recorded verdicts.
pub(crate) fn files() -> (Vec<PathBuf>, BTreeMap<String, Kind>) {
    let root = std::env::var("TEXTBED_LITMUS").expect("TEXTBED_LITMUS names a directory");
    let (mut files, mut verdicts) = (Vec::new(), BTreeMap::new());
    let mut open = vec![PathBuf::from(root)];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => open.push(path),
                Some("litmus") => files.push(path),
                _ if path.ends_with("kinds.txt") => {
                    verdicts = kinds::read(&std::fs::read_to_string(&path).unwrap()).unwrap();
                }
                _ => {}
            }
        }
    }
    files.sort();
    (files, verdicts)
}

/// The tests and the recorded verdicts.
pub(crate) fn catalogue() -> (Vec<Test>, BTreeMap<String, Kind>) {
    let (files, verdicts) = files();
    let read = |p: &PathBuf| parse(&std::fs::read_to_string(p).unwrap()).unwrap();
    (files.iter().map(read).collect(), verdicts)
}
