//! Writes the corpora that the fuzzers begin with: pieces of recorded logs in every format, packed
//! streams, files beside logs, page tables cut to a few pages.
//!
//! Usage: fuzz_seeds LOGS CORPORA      (a folder for each target is made in CORPORA)

#![allow(clippy::print_stdout)] // a command of its own

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use textbed_trace::functions;
use textbed_trace::reader::LineReader;

/// Where the fuzz targets have the symbols of functions, 64 KiB apart (`fuzz/src/lib.rs`).
const TEXT: u64 = 0xffff_ffff_8100_0000;
/// Lines of a piece.
const PIECE: usize = 24;
/// Pieces of a log at most.
const PIECES: usize = 120;
/// Bytes of a file beside a log, or of page tables, that are kept.
const BYTES: usize = 12_000;

type Done<T> = Result<T, Box<dyn Error>>;

fn main() -> Done<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(logs), Some(out)) = (args.next(), args.next()) else {
        return Err("usage: fuzz_seeds LOGS CORPORA".into());
    };
    let mut dirs: Vec<PathBuf> =
        fs::read_dir(&logs)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()).collect();
    dirs.sort();
    let mut written = 0;
    for (n, dir) in dirs.iter().enumerate() {
        if dir.join("trace.txt.zst").exists() {
            for (i, piece) in pieces(&dir.join("trace.txt.zst"))?.iter().enumerate() {
                written += of_piece(&out, &format!("{n}-{i}"), piece)?;
            }
        }
        written += beside(&out, n, dir)?;
    }
    written += symbols(&out)?;
    println!("{written} seeds");
    Ok(())
}

fn put(out: &Path, target: &str, name: &str, bytes: &[u8]) -> Done<usize> {
    let dir = out.join(target);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(name), bytes)?;
    Ok(1)
}

/// Pieces in which an event occurs that did not occur in that company before.
fn pieces(log: &Path) -> Done<Vec<Vec<String>>> {
    let mut reader = LineReader::open(log)?;
    let (mut piece, mut out) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    while let Some(line) = reader.next_line()? {
        let text = String::from_utf8_lossy(line.bytes).into_owned();
        piece.push(text);
        if piece.len() == PIECE {
            let names: BTreeSet<String> =
                piece.iter().filter_map(|l| Some(columns(l)?.3.to_owned())).collect();
            if out.len() < PIECES && seen.insert(names) {
                out.push(std::mem::take(&mut piece));
            }
            piece.clear();
        }
    }
    Ok(out)
}

/// Task with pid, CPU, time, name, body.
fn columns(line: &str) -> Option<(&str, &str, &str, &str, &str)> {
    let (before, rest) = line.split_once('[')?;
    let (cpu, rest) = rest.split_once("] ")?;
    let (_flags, rest) = rest.split_once(' ')?;
    let (time, rest) = rest.trim_start().split_once(": ")?;
    let (name, body) = rest.split_once(": ").unwrap_or((rest.trim_end_matches(':'), ""));
    Some((before.trim(), cpu, time, name, body))
}

/// The address that stands for a symbol with an offset.
fn address(place: &str) -> String {
    let (symbol, offset) = place.split_once('+').unwrap_or((place, "0x0/"));
    let offset = offset.split('/').next().unwrap_or("0x0");
    let offset = u64::from_str_radix(offset.trim_start_matches("0x"), 16).unwrap_or(0);
    let row = functions::all().position(|f| f.name == symbol).unwrap_or(9999) as u64;
    format!("{:x}", TEXT + 0x10000 * row + offset)
}

fn addresses(body: &str) -> String {
    let Some((inner, rest)) = body.strip_prefix('(').and_then(|b| b.split_once(')')) else {
        return body.to_owned();
    };
    let places: Vec<String> = inner.split(" <- ").map(address).collect();
    format!("({}){rest}", places.join(" <- "))
}

fn of_piece(out: &Path, name: &str, lines: &[String]) -> Done<usize> {
    let text = lines.join("\n") + "\n";
    let (mut cmd, mut perf, mut graph) = (String::from("cpus=2\n"), String::new(), String::new());
    let (mut bt, mut json) = (String::from("Attaching 99 probes...\n"), String::new());
    // What `trace_pipe` has in between, the column of thread groups, and the latency format.
    let mut tgid = String::from("CPU:1 [LOST 23 EVENTS]\n[   10.000001] printk: a line\n");
    let mut latency = String::from("# tracer: nop\n");
    for (task, cpu, time, event, body) in lines.iter().filter_map(|l| columns(l)) {
        let place = addresses(body);
        let (comm, pid) = task.rsplit_once('-').unwrap_or((task, "1"));
        writeln!(tgid, "{comm:>16}-{pid:<7} (    {pid}) [{cpu}] d..1. {time}: {event}: {body}")?;
        writeln!(tgid, " => {event}\n => entry_SYSCALL_64")?;
        let micros = time.split_once('.').map_or(time, |(_, micros)| micros);
        writeln!(latency, "{comm:>8}-{pid:<7} {}d.h1. {micros}us+: {event}: {body}", &cpu[2..])?;
        writeln!(cmd, "{task:>22} [{cpu}] {time:>12}: {:<20} {place}", format!("{event}:"))?;
        let returns = event.replace("__ret", "__return");
        writeln!(perf, "{comm:>16} {pid:>6} [{cpu}] {time:>12}: probe:{returns}: {place}")?;
        let line = format!("{task:>22} [{cpu}] ..... {time}: {event}: {body}");
        writeln!(bt, "{line}")?;
        let quoted = line.replace('\\', "\\\\").replace('"', "\\\"");
        writeln!(json, "{{\"type\": \"printf\", \"data\": \"{quoted}\\n\"}}")?;
        let number = cpu.trim_start_matches('0');
        let number = if number.is_empty() { "0" } else { number };
        let args = body.split_once(") ").map_or("", |(_, a)| a).replace(' ', ", ");
        let head = format!("{time} |   {number})  {task}  |");
        match event.strip_suffix("__ret") {
            Some(f) => {
                let value = args.trim_start_matches("ret=");
                writeln!(graph, "{head} + 12.345 us   |  }} /* {f} ret={value} */")?;
            }
            None => writeln!(graph, "{head}   0.123 us    |  {event}({args}); /* = 0x0 */")?,
        }
    }
    let half = lines.len() / 2;
    let two = format!("{}\n\n{}\n", lines[..half].join("\n"), lines[half..].join("\n"));
    let mut written = 0;
    for (target, text) in [
        ("tracefs", &text),
        ("trace_cmd", &cmd),
        ("perf", &perf),
        ("graph", &graph),
        ("bpftrace", &bt),
        ("bpftrace_json", &json),
        ("merge", &two),
    ] {
        written += put(out, target, name, text.as_bytes())?;
    }
    written += put(out, "tracefs", &format!("tgid-{name}"), tgid.as_bytes())?;
    written += put(out, "tracefs", &format!("latency-{name}"), latency.as_bytes())?;
    Ok(written)
}

/// Symbols of the functions of the table, as a file beside a log.
fn symbols(out: &Path) -> Done<usize> {
    let mut text = String::from("\u{7}");
    for (i, f) in functions::all().enumerate() {
        writeln!(text, "{:016x} t {}", TEXT + 0x10000 * i as u64, f.name)?;
    }
    put(out, "side", "kallsyms", text.as_bytes())
}

/// The files beside a log, and packed streams as they are.
fn beside(out: &Path, n: usize, dir: &Path) -> Done<usize> {
    const KINDS: [&str; 11] = [
        "version",
        "cmdline",
        "cpus",
        "kprobe_events",
        "kprobe_profile",
        "event-counts",
        "iomem",
        "kallsyms",
        "vmallocinfo",
        "config",
        "modules",
    ];
    let mut written = 0;
    for entry in fs::read_dir(dir)?.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let bytes = fs::read(entry.path())?;
        if name.ends_with(".zst") && bytes.len() < 64_000 {
            written += put(out, "packed", &format!("{n}-{name}"), &bytes)?;
        }
        let mut plain = Vec::new();
        let mut unpacked = LineReader::open(&entry.path())?.into_unpacked();
        std::io::Read::read_to_end(&mut unpacked, &mut plain)?;
        if name.starts_with("ptpages") {
            // Header, roots and the first few tables; the count no longer fits, which is a case.
            plain.truncate(40_000);
            written += put(out, "tables", &format!("{n}-{name}"), &plain)?;
        } else if let Some(kind) = KINDS.iter().position(|k| name.starts_with(k)) {
            plain.truncate(BYTES);
            plain.insert(0, kind as u8);
            written += put(out, "side", &format!("{n}-{name}"), &plain)?;
        }
    }
    Ok(written)
}
