//! One piece of work, run once: for counting instructions (`tools/count`), which no load of the
//! machine changes, for profiles, and for making logs of any length.
//!
//! `count WORK [ARGUMENT]`, where WORK is one of
//!
//! - `replay FILE`: the log FILE, parsed, lowered and checked; `parse FILE`: parsed only;
//! - `replay-made [BYTES]`, `parse-made [BYTES]`: the same of a log that is made on the way;
//! - `make BYTES`: prints such a log;
//! - `a-ARCH-MODE [EVENTS]`, `b-ARCH-MODE [EVENTS]`: stream A or B through the checker.
//!
//! Prints what the work was made of, as `NUMBER UNIT`, and on stderr how fast it was: a log by the
//! time that the processor spent on it, a stream by the clock.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // benches may

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use textbed_arch::Arch;
use textbed_check::{Checker, Mode, Options};
use textbed_event::Sink;
use textbed_trace::reader::LineReader;
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;
use textbed_trace::{Replayed, ftrace};

mod logs;
#[path = "../../check/benches/streams/mod.rs"]
mod streams;

/// Bytes of a log that is made, if not said otherwise.
const BYTES: u64 = 4 << 20;
/// Bytes of a log that are made before it is read.
const MOST_AHEAD: u64 = 256 << 20;
/// Events of a stream that are counted.
const EVENTS: usize = 1 << 18;
/// Events of a stream that pass before: a compromise, for under callgrind each costs microseconds.
const WARM: usize = 500_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let bytes = || args.get(1).map_or(BYTES, |n| n.parse().unwrap());
    match args.as_slice() {
        ["replay", file] => replay(|checker| {
            textbed_trace::replay(Path::new(file), &textbed_trace::Options::default(), checker)
                .unwrap()
        }),
        ["replay-made", ..] => {
            let log = made(bytes());
            replay(|checker| {
                let options = textbed_trace::Options {
                    arch: Some(Arch::X86_64),
                    kernel: Some("6.12".to_owned()),
                    ..textbed_trace::Options::default()
                };
                replay_reader(log, &options, SideFiles::default(), None, checker).unwrap()
            });
        }
        ["parse", file] => parse(LineReader::open(Path::new(file)).unwrap()),
        ["parse-made", ..] => parse(made(bytes())),
        ["make", ..] => {
            let mut out = std::io::stdout().lock();
            // Whoever reads it may have enough.
            let _ = std::io::copy(&mut logs::Log::new(bytes()), &mut out);
        }
        [work, ..] if work.starts_with("a-") || work.starts_with("b-") => {
            stream(work, args.get(1).map_or(EVENTS, |n| n.parse().unwrap()));
        }
        // `cargo bench` runs every bench: this one has nothing to say by itself.
        [] => {}
        _ => eprintln!("count: unknown work: see the head of benches/count.rs"),
    }
}

/// A made log: all of it beforehand, so that only reading it is counted, if it is short enough.
fn made(bytes: u64) -> LineReader {
    let mut log = logs::Log::new(bytes);
    if bytes > MOST_AHEAD {
        return LineReader::from_read("made", log).unwrap();
    }
    let mut text = Vec::new();
    log.read_to_end(&mut text).unwrap();
    LineReader::from_read("made", std::io::Cursor::new(text)).unwrap()
}

/// What is to be counted, under a name that a tool can select.
#[inline(never)]
fn run<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Runs it and says how fast it was; `count` and `unit` tell of what it is made.
fn timed<T>(unit: &str, scale: f64, count: impl Fn(&T) -> u64, work: impl FnOnce() -> T) -> T {
    let begin = processor_seconds();
    let result = run(work);
    let seconds = processor_seconds() - begin;
    let count = count(&result);
    eprintln!("{:.1} {unit}/s", count as f64 / seconds / scale);
    result
}

fn replay(work: impl FnOnce(&mut Checker) -> Replayed) {
    let bytes = |(_, replayed): &(Checker, Replayed)| replayed.summary.accounting.bytes;
    let (checker, replayed) = timed("MB", 1e6, bytes, || {
        let mut checker = Checker::new(Options::default());
        let replayed = work(&mut checker);
        (checker, replayed)
    });
    let report = checker.finish();
    let a = &replayed.summary.accounting;
    eprintln!(
        "{} lines, {} not understood; {} events, {} findings; {}",
        a.lines,
        a.not_understood_lines(),
        report.events,
        report.findings.len(),
        memory()
    );
    println!("{} bytes", a.bytes);
}

fn parse(mut reader: LineReader) {
    let bytes = timed(
        "MB",
        1e6,
        |bytes| *bytes,
        || {
            let (mut bytes, mut events) = (0, 0u64);
            while let Some(line) = reader.next_line().unwrap() {
                bytes += line.taken;
                events += u64::from(matches!(ftrace::parse(line.bytes), ftrace::Parsed::Event(_)));
            }
            assert!(events > 0);
            bytes
        },
    );
    println!("{bytes} bytes");
}

fn stream(work: &str, events: usize) {
    let mut words = work.split('-').skip(1);
    let arch: Arch = words.next().unwrap_or("x86_64").parse().unwrap();
    let mode = if words.next() == Some("predicted") { Mode::Predicted } else { Mode::Observed };
    let mut stream = match work.starts_with("b-") {
        true => streams::b(arch, 1_000_000),
        false => streams::a(arch),
    };
    let mut checker = Checker::new(Options { mode, ..Options::default() });
    let _ = checker.begin(&stream.header());
    stream.set_up(|batch| {
        let _ = checker.batch(batch);
    });
    let (mut warm, mut count, mut seconds) = (0, 0, 0.0);
    while warm < WARM {
        for batch in stream.next(streams::CHUNK.min(WARM)) {
            warm += batch.events.len();
            let _ = checker.batch(&batch);
        }
    }
    while count < events {
        let batches = stream.next(streams::CHUNK.min(events));
        let begin = Instant::now();
        run(|| {
            for batch in &batches {
                let _ = checker.batch(batch);
            }
        });
        seconds += begin.elapsed().as_secs_f64();
        count += batches.iter().map(|b| b.events.len()).sum::<usize>();
    }
    eprintln!("{:.1} million events/s", count as f64 / seconds / 1e6);
    let report = checker.finish();
    eprintln!("{} events, {} findings; {}", report.events, report.findings.len(), memory());
    println!("{count} events");
}

/// Seconds of processor time that this process had (Linux).
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// The most memory that this process had (Linux).
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("VmHWM: not known");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
