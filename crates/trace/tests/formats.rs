//! One run in every format: a recorded log, rewritten as other tools print it, gives equal events.
//!
//! The rewriting is done here, line by line, and knows nothing of the reader: columns as `trace-cmd
//! report` (tracecmd/trace-read.c, lib/traceevent) and `perf script` (tools/perf/builtin-script.c)
//! write them, and bpftrace's JSON around the lines of the recorder's program. Both tools print
//! addresses where tracefs prints symbols; `kallsyms` is rewritten to fit.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may

mod common;

use common::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Cursor;
use std::path::Path;
use textbed_event::Event;
use textbed_trace::reader::LineReader;
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;
use textbed_trace::{Options, Replayed};

/// Rewrites a log, and adds to the side files what the format leaves to them.
type Rewriter = fn(&str, &mut SideFiles) -> String;

/// Lines of the log that are rewritten.
const LINES: usize = 60_000;

fn log(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs").join(name);
    let mut reader = LineReader::open(&dir.join("trace.txt.zst")).unwrap();
    let mut text = String::new();
    let mut lines = 0;
    while let Some(line) = reader.next_line().unwrap() {
        text.push_str(std::str::from_utf8(line.bytes).unwrap());
        text.push('\n');
        lines += 1;
        if lines == LINES {
            break;
        }
    }
    text
}

fn side(name: &str) -> SideFiles {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs").join(name);
    SideFiles::beside(&dir.join("trace.txt.zst")).unwrap()
}

/// Columns of a tracefs line: task, pid, CPU, time, name and body.
struct Columns<'a> {
    task: &'a str,
    pid: &'a str,
    cpu: &'a str,
    time: &'a str,
    name: &'a str,
    body: &'a str,
}

fn columns(line: &str) -> Option<Columns<'_>> {
    let (before, rest) = line.split_at_checked(16)?;
    let (pid, rest) = rest.strip_prefix('-')?.split_once(" [").or_else(|| {
        let (pid, rest) = rest.strip_prefix('-')?.split_once('[')?;
        Some((pid, rest))
    })?;
    let (cpu, rest) = rest.split_once("] ")?;
    let (_flags, rest) = rest.split_once(' ')?;
    let (time, rest) = rest.trim_start().split_once(": ")?;
    let (name, body) = rest.split_once(": ").unwrap_or((rest.trim_end_matches(':'), ""));
    Some(Columns { task: before.trim(), pid: pid.trim(), cpu, time, name, body })
}

/// Symbols in a probe's place become addresses, which `kallsyms` then has.
#[derive(Default)]
struct Addresses(BTreeMap<String, u64>);

impl Addresses {
    fn place(&mut self, body: &str) -> String {
        let Some((inner, rest)) = body.strip_prefix('(').and_then(|b| b.split_once(')')) else {
            return body.to_owned();
        };
        let places: Vec<String> = inner.split(" <- ").map(|p| self.address(p)).collect();
        format!("({}){rest}", places.join(" <- "))
    }

    fn address(&mut self, place: &str) -> String {
        let (symbol, offset) = match place.split_once('+') {
            Some((symbol, rest)) => (symbol, rest.split('/').next().unwrap()),
            None => (place, "0x0"),
        };
        let symbol = symbol.split('.').next().unwrap();
        let offset = u64::from_str_radix(&offset[2..], 16).unwrap();
        let next = 0xffff_ffff_8100_0000 + 0x10000 * self.0.len() as u64;
        let first = *self.0.entry(symbol.to_owned()).or_insert(next);
        format!("{:x}", first + offset)
    }

    fn fill(&self, side: &mut SideFiles) {
        for (symbol, address) in &self.0 {
            side.symbols.add_symbol(&format!("{address:x} t {symbol}"));
        }
    }
}

fn trace_cmd(text: &str, side: &mut SideFiles) -> String {
    let mut addresses = Addresses::default();
    let mut out = String::from("cpus=2\n");
    for c in text.lines().filter_map(columns) {
        let body = addresses.place(c.body);
        let name = format!("{}:", c.name);
        let _ = writeln!(
            out,
            "{:>16}-{:<5} [{}] {:>12}: {name:<20} {body}",
            c.task, c.pid, c.cpu, c.time
        );
    }
    addresses.fill(side);
    out
}

fn perf_script(text: &str, side: &mut SideFiles) -> String {
    let mut addresses = Addresses::default();
    let mut out = String::from("# captured on: somewhere\n#\n");
    for c in text.lines().filter_map(columns) {
        // perf probe calls returns NAME__return.
        let name = c.name.replace("__ret", "__return");
        let body = addresses.place(c.body);
        let _ = writeln!(
            out,
            "{:>16} {:>6}/{:<6} [{}] {:>15}: probe:{name}: {body}",
            c.task, c.pid, c.pid, c.cpu, c.time
        );
    }
    side.cpus = Some(2);
    addresses.fill(side);
    out
}

fn bpftrace_json(text: &str, side: &mut SideFiles) -> String {
    let mut out = String::from("{\"type\": \"attached_probes\", \"data\": {\"probes\": 9}}\n");
    for c in text.lines().filter_map(columns) {
        let line = format!(
            "{:>16}-{} [{}] ..... {}: {}: {}\\n",
            c.task, c.pid, c.cpu, c.time, c.name, c.body
        );
        let line = line.replace('"', "\\\"");
        let _ = writeln!(out, "{{\"type\": \"printf\", \"data\": \"{line}\"}}");
    }
    side.cpus = Some(2);
    out
}

fn replayed(text: String, side: SideFiles) -> (Replayed, Keep) {
    let reader = LineReader::from_read("log", Cursor::new(text.into_bytes())).unwrap();
    let mut keep = Keep::default();
    let done = replay_reader(reader, &Options::default(), side, None, &mut keep).unwrap();
    assert!(done.summary.accounting.adds_up());
    (done, keep)
}

/// What an event says, but for its place in the log and what the flag characters told.
fn bare(event: &Event) -> String {
    format!("{} {} {:?}", event.cpu.0, event.at_ns, event.view())
}

#[test]
fn a_run_means_the_same_in_every_format() {
    let rewriters: [(&str, Rewriter); 3] = [
        ("trace-cmd report", trace_cmd),
        ("perf script", perf_script),
        ("bpftrace", bpftrace_json),
    ];
    let (mut compared, mut equal) = (0, 0);
    for name in ["amd64-6.12", "arm64-6.12", "ppc64el-6.12"] {
        // Without flags nobody knows where interrupts were off: compared with a log that has none.
        let text: String = log(name)
            .lines()
            .filter_map(columns)
            .map(|c| {
                format!(
                    "{:>16}-{:<7} [{}] {}: {}: {}\n",
                    c.task, c.pid, c.cpu, c.time, c.name, c.body
                )
            })
            .collect();
        let mut with_cpus = side(name);
        with_cpus.cpus = Some(2);
        let (_, plain) = replayed(text, with_cpus);
        let plain: Vec<String> = plain.events.iter().map(bare).collect();
        assert!(plain.len() > 5_000, "{name}: {}", plain.len());
        for (format, rewrite) in rewriters {
            let mut side = side(name);
            let text = rewrite(&log(name), &mut side);
            let (done, other) = replayed(text, side);
            let accounting = &done.summary.accounting;
            let reasons: Vec<_> = accounting.reasons().filter(|(_, t)| t.lines > 0).collect();
            assert_eq!(accounting.not_understood_lines(), 0, "{name} as {format}: {reasons:?}");
            let other: Vec<String> = other.events.iter().map(bare).collect();
            compared += plain.len().max(other.len());
            equal += plain.iter().zip(&other).filter(|(a, b)| a == b).count();
            if let Some((a, b)) = plain.iter().zip(&other).find(|(a, b)| a != b) {
                println!("{name} as {format}:\n  {a}\n  {b}");
            }
        }
    }
    println!("events in other formats: {compared} compared, {equal} equal");
    assert_eq!(compared, equal);
}
