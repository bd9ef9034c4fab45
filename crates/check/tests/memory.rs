//! Memory follows what is live, not the length of the stream: a child process checks a stream over
//! few pages and one eight times as long over the same ones, and its peak is the same.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may

use std::process::Command;

use textbed_arch::Arch;
use textbed_check::{Checker, Mode, Options};
use textbed_event::Sink;

#[path = "../benches/streams/mod.rs"]
#[allow(dead_code)] // a test needs one of the streams
mod streams;

/// Names the stream for the child: architecture and number of events.
const STREAM: &str = "TEXTBED_MEMORY_STREAM";
/// Lengths: with the first all that there is was fetched and stored to, for the most part.
const LENGTHS: [usize; 2] = [150_000, 1_200_000];
/// Pages that are mapped: two thirds of them are stored to, in 512 words each.
const MAPPINGS: u64 = 24;

/// Peak of this process in KiB, where the system tells (Linux).
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
#[ignore = "the child of memory_does_not_grow_with_the_length_of_a_stream"]
fn child() {
    let wanted = std::env::var(STREAM).unwrap();
    let (arch, events) = wanted.split_once(' ').unwrap();
    let (arch, events): (Arch, usize) = (arch.parse().unwrap(), events.parse().unwrap());
    let mut stream = streams::b(arch, MAPPINGS);
    let mut checker = Checker::new(Options { mode: Mode::Observed, ..Options::default() });
    let _ = checker.begin(&stream.header());
    stream.set_up(|batch| {
        let _ = checker.batch(batch);
    });
    let mut count = 0;
    while count < events {
        for batch in stream.next(1 << 14) {
            count += batch.events.len();
            let _ = checker.batch(&batch);
        }
    }
    assert!(checker.finish().events > events as u64);
    println!("peak {} KiB", peak_kib().unwrap_or(0));
}

#[test]
fn memory_does_not_grow_with_the_length_of_a_stream() {
    if peak_kib().is_none() {
        println!("SKIPPED: this system does not tell a process's peak of memory");
        return;
    }
    // On arm64 stores of zeros are stores of traps.
    [Arch::X86_64, Arch::Arm64].into_iter().for_each(does_not_grow);
}

fn does_not_grow(arch: Arch) {
    let peaks = LENGTHS.map(|events| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(STREAM, format!("{arch} {events}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
        let kib = text.split("peak ").nth(1);
        kib.and_then(|t| t.split(' ').next()?.parse::<u64>().ok()).unwrap()
    });
    println!("{arch}: {LENGTHS:?} events: peaks of {peaks:?} KiB");
    // Versions that are never forgotten would add 40 bytes and more for each of 200 000 stores.
    assert!(peaks[1] < peaks[0] + 4096, "{arch}: {peaks:?} KiB");
}
