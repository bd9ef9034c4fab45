//! One piece of work after the other, each run once: for counting instructions (`tools/count`),
//! which no load of the machine changes, and for profiles.
//!
//! `count WORK [FILE]`, where WORK is one of
//!
//! - `replay`: the log FILE, parsed, lowered and checked;
//! - `parse`: the log FILE, parsed only;
//! - `a-ARCH-MODE[-EVENTS]`, `b-…`: stream A or B through the checker.
//!
//! Prints what the work was made of, as `NUMBER UNIT`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // benches may

use std::path::Path;
use textbed_arch::Arch;
use textbed_check::{Checker, Mode, Options};
use textbed_event::Sink;
use textbed_trace::{ftrace, reader::LineReader};

#[path = "../../check/benches/streams/mod.rs"]
mod streams;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["replay", file] => replay(Path::new(file)),
        ["parse", file] => parse(Path::new(file)),
        [work] => stream(work),
        _ => eprintln!("count: replay FILE | parse FILE | a-ARCH-MODE | b-ARCH-MODE"),
    }
}

fn replay(file: &Path) {
    let options =
        textbed_trace::Options { arch: None, kernel: None, ..textbed_trace::Options::default() };
    let mut checker = Checker::new(Options::default());
    let begin = processor_seconds();
    let replayed = textbed_trace::replay(file, &options, &mut checker).unwrap();
    let report = checker.finish();
    eprintln!("{} events, {} findings", report.events, report.findings.len());
    let bytes = replayed.summary.accounting.bytes;
    eprintln!("{:.1} MB/s", bytes as f64 / (processor_seconds() - begin) / 1e6);
    println!("{bytes} bytes");
}

fn parse(file: &Path) {
    let mut reader = LineReader::open(file).unwrap();
    let (mut bytes, mut events) = (0, 0);
    while let Some(line) = reader.next_line().unwrap() {
        bytes += line.taken;
        events += u64::from(matches!(ftrace::parse(line.bytes), ftrace::Parsed::Event(_)));
    }
    eprintln!("{events} events");
    println!("{bytes} bytes");
}

fn stream(work: &str) {
    let mut words = work.split('-');
    let (which, arch, mode) = (words.next(), words.next(), words.next());
    let arch: Arch = arch.unwrap_or("x86_64").parse().unwrap();
    let mode = if mode == Some("predicted") { Mode::Predicted } else { Mode::Observed };
    let events = match words.next() {
        Some(events) => events.parse().unwrap(),
        None => 400_000,
    };
    let stream = match which {
        Some("b") => streams::b(arch, 1_000_000, events),
        _ => streams::a(arch, events),
    };
    let mut checker = Checker::new(Options { mode, ..Options::default() });
    let _ = checker.begin(&stream.header);
    for batch in &stream.setup {
        let _ = checker.batch(batch);
    }
    let begin = processor_seconds();
    run(&mut checker, &stream);
    let seconds = processor_seconds() - begin;
    eprintln!("{:.2} M events/s", stream.events() as f64 / seconds / 1e6);
    let report = checker.finish();
    eprintln!("{} events, {} findings", report.events, report.findings.len());
    println!("{} events", stream.events());
}

/// What is to be counted, under a name that a tool can select.
#[inline(never)]
fn run(checker: &mut Checker, stream: &streams::Stream) {
    for batch in &stream.batches {
        let _ = checker.batch(batch);
    }
}

/// Seconds of processor time that this process had (Linux).
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}
