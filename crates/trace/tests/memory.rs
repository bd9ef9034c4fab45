//! Memory does not grow with the length of a log: a child process replays a made log of one length
//! and one of six times that length, and its peak is the same.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may

use std::process::Command;

use textbed_arch::Arch;
use textbed_check::{Checker, Options};
use textbed_trace::reader::LineReader;
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;

#[path = "../benches/logs/mod.rs"]
mod logs;

/// Names the bytes of text for the child.
const LENGTH: &str = "TEXTBED_MEMORY_BYTES";
/// Lengths: the first is past every bound that a reader fills up to.
const LENGTHS: [u64; 2] = [4 << 20, 24 << 20];

/// Peak of this process in KiB, where the system tells (Linux).
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
#[ignore = "the child of memory_does_not_grow_with_the_length_of_a_log"]
fn child() {
    let bytes = std::env::var(LENGTH).unwrap().parse().unwrap();
    let options = textbed_trace::Options {
        arch: Some(Arch::X86_64),
        kernel: Some("6.12".to_owned()),
        ..textbed_trace::Options::default()
    };
    let mut checker = Checker::new(Options::default());
    let reader = LineReader::from_read("made", logs::Log::new(bytes)).unwrap();
    let replayed =
        replay_reader(reader, &options, SideFiles::default(), None, &mut checker).unwrap();
    let a = replayed.summary.accounting;
    assert!(a.bytes >= bytes && a.not_understood_lines() == 0, "{a:?}");
    assert!(a.used > a.lines / 2, "{a:?}");
    assert!(checker.finish().events > a.lines / 4);
    println!("peak {} KiB", peak_kib().unwrap_or(0));
}

#[test]
fn memory_does_not_grow_with_the_length_of_a_log() {
    if peak_kib().is_none() {
        println!("SKIPPED: this system does not tell a process's peak of memory");
        return;
    }
    let peaks = LENGTHS.map(|bytes| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(LENGTH, bytes.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
        let kib = text.split("peak ").nth(1).and_then(|t| t.split(' ').next()?.parse::<u64>().ok());
        kib.unwrap()
    });
    println!(
        "{} and {} bytes of text: peaks of {} and {} KiB",
        LENGTHS[0], LENGTHS[1], peaks[0], peaks[1]
    );
    // A fifth of what a leak of one word a line would add; the allocator is not exact either.
    assert!(peaks[1] < peaks[0] + 512, "{peaks:?} KiB");
}
