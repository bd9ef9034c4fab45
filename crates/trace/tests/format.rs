//! The format layer against recorded logs: every line is understood, and each event name occurs
//! as often as `event-counts.tsv`, which was counted when the log was recorded.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests and benches may

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use textbed_trace::ftrace::{self, Comment, Parsed};
use textbed_trace::reader::LineReader;

fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs")
}

/// Compares one log with its counts; returns (names compared, names equal).
fn compare(dir: &Path) -> (usize, usize) {
    let mut reader = LineReader::open(&dir.join("trace.txt.zst")).unwrap();
    let mut names: BTreeMap<String, u64> = BTreeMap::new();
    let (mut events, mut written, mut cpus) = (0u64, None, 0);
    while let Some(line) = reader.next_line().unwrap() {
        match ftrace::parse(line.bytes) {
            Parsed::Event(e) => {
                events += 1;
                cpus = cpus.max(e.cpu + 1);
                assert!(e.flags.is_some() && e.time.nanos().is_some(), "line {}", line.number);
                *names.entry(String::from_utf8_lossy(e.name).into_owned()).or_default() += 1;
            }
            Parsed::Comment(Comment::Entries { in_buffer, written: w, cpus: c }) => {
                assert_eq!((in_buffer, c), (w, Some(2)));
                written = Some(w);
            }
            Parsed::Comment(_) => {}
            other => panic!("line {}: {other:?}", line.number),
        }
    }
    assert_eq!((Some(events), cpus), (written, 2), "{dir:?}");
    let counts = std::fs::read_to_string(dir.join("event-counts.tsv")).unwrap();
    let expected: BTreeMap<String, u64> = counts
        .lines()
        .map(|l| l.split_once('\t').unwrap())
        .map(|(n, name)| (name.to_string(), n.parse().unwrap()))
        .collect();
    let all: std::collections::BTreeSet<_> = names.keys().chain(expected.keys()).collect();
    let differ: Vec<_> = all.iter().filter(|n| names.get(**n) != expected.get(**n)).collect();
    println!("{}: {} names, {events} events, differ: {differ:?}", dir.display(), all.len());
    (all.len(), all.len() - differ.len())
}

#[test]
fn committed_logs() {
    let mut all = (0, 0);
    for name in ["amd64-6.12", "arm64-6.12", "ppc64el-6.12"] {
        let (n, equal) = compare(&committed().join(name));
        all = (all.0 + n, all.1 + equal);
    }
    println!("event names: {} compared, {} equal", all.0, all.1);
    assert_eq!(all.0, all.1);
    assert!(all.0 > 200);
}

/// All logs of a directory that is not part of the repository.
#[test]
#[ignore = "reads the directory named by TEXTBED_LOGS"]
fn all_logs() {
    let root = PathBuf::from(std::env::var_os("TEXTBED_LOGS").expect("TEXTBED_LOGS"));
    let mut dirs: Vec<_> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    dirs.sort();
    let mut all = (0, 0);
    for dir in dirs.into_iter().filter(|d| d.join("event-counts.tsv").exists()) {
        let (n, equal) = compare(&dir);
        all = (all.0 + n, all.1 + equal);
    }
    println!("event names: {} compared, {} equal", all.0, all.1);
    assert_eq!(all.0, all.1);
}
