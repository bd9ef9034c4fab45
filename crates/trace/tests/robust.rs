//! Damaged logs: whatever comes, each line is accounted for, nothing panics, and events are valid.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests and benches may

use proptest::prelude::*;
use std::io::{Cursor, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use textbed_arch::Arch;
use textbed_event::{Batch, Sink};
use textbed_trace::reader::{LineReader, ReadError};
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;
use textbed_trace::{Options, ReplayError, replay};

fn logs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs")
}

const LOGS: [(&str, Arch); 3] =
    [("amd64-6.12", Arch::X86_64), ("arm64-6.12", Arch::Arm64), ("ppc64el-6.12", Arch::Ppc64le)];

/// A few thousand lines of each log, from where modules are loaded and BPF programs are made.
static LINES: LazyLock<Vec<Vec<Vec<u8>>>> = LazyLock::new(|| {
    LOGS.iter()
        .map(|(name, _)| {
            let mut r = LineReader::open(&logs().join(name).join("trace.txt.zst")).unwrap();
            let mut out = Vec::new();
            let mut boring = 0u32;
            while let Some(line) = r.next_line().unwrap() {
                let kind = |w: &[u8]| memchr::memmem::find(line.bytes, w).is_some();
                if kind(b" tlb_flush:") || kind(b"text_poke") || kind(b"sync_core") {
                    boring += 1;
                    if !boring.is_multiple_of(64) {
                        continue;
                    }
                }
                out.push(line.bytes.to_vec());
                if out.len() == 4000 {
                    break;
                }
            }
            out
        })
        .collect()
});

/// Checks what any stream must be.
#[derive(Default)]
struct Check {
    next: u64,
    names: u32,
}

impl Sink for Check {
    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        assert_eq!(batch.name_base, self.names + 1);
        self.names += batch.names.len() as u32;
        for e in &batch.events {
            assert_eq!(e.seq, self.next);
            self.next += 1;
            assert!(e.is_valid(), "{:?}", e.view());
            assert!(e.origin.0 == 0 || batch.origin(e.origin).is_some());
        }
        ControlFlow::Continue(())
    }
}

#[derive(Debug, Clone)]
enum Harm {
    Drop(usize, usize),
    Twice(usize, usize),
    Swap(usize, usize),
    Byte(usize, usize, u8),
    Digits(usize, usize, u64),
    Cut(usize, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let (a, b) = (any::<usize>(), any::<usize>());
    prop_oneof![
        (a, 1..40usize).prop_map(|(a, n)| Harm::Drop(a, n)),
        (a, 1..40usize).prop_map(|(a, n)| Harm::Twice(a, n)),
        (a, b).prop_map(|(a, b)| Harm::Swap(a, b)),
        (a, b, 1u8..=255).prop_map(|(a, b, c)| Harm::Byte(a, b, c)),
        (a, b, any::<u64>()).prop_map(|(a, b, c)| Harm::Digits(a, b, c)),
        (a, b).prop_map(|(a, b)| Harm::Cut(a, b)),
    ]
}

/// Puts another number in the place of one of the line's.
fn other_number(line: &mut Vec<u8>, which: usize, number: u64) {
    let at: Vec<usize> = (0..line.len()).filter(|i| line[*i] == b'=' || line[*i] == b'[').collect();
    let Some(start) = at.get(which % at.len().max(1)).map(|i| i + 1) else { return };
    let end = (start..line.len())
        .find(|i| !(line[*i].is_ascii_hexdigit() || line[*i] == b'x'))
        .unwrap_or(line.len());
    let text = if number.is_multiple_of(3) { format!("{number}") } else { format!("{number:#x}") };
    line.splice(start..end, text.bytes());
}

fn damaged(mut lines: Vec<Vec<u8>>, harms: &[Harm]) -> Vec<u8> {
    for h in harms {
        let n = lines.len();
        if n < 2 {
            break;
        }
        match *h {
            Harm::Drop(a, k) => {
                lines.drain(a % n..(a % n + k).min(n));
            }
            Harm::Twice(a, k) => {
                let again = lines[a % n..(a % n + k).min(n)].to_vec();
                lines.splice(a % n..a % n, again);
            }
            Harm::Swap(a, b) => lines.swap(a % n, b % n),
            Harm::Byte(a, b, c) => {
                let line = &mut lines[a % n];
                if !line.is_empty() {
                    let at = b % line.len();
                    line[at] = c;
                }
            }
            Harm::Digits(a, b, c) => other_number(&mut lines[a % n], b, c),
            Harm::Cut(a, b) => {
                let len = lines[a % n].len().max(1);
                lines[a % n].truncate(b % len);
            }
        }
    }
    lines.join(&b'\n')
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn damaged_logs(which in 0usize..3, from in 0usize..3500, len in 10usize..500,
                    harms in prop::collection::vec(harm(), 0..60), newline: bool) {
        let all = &LINES[which];
        let from = from.min(all.len() - 10);
        let lines = all[from..(from + len).min(all.len())].to_vec();
        let mut text = damaged(lines, &harms);
        if newline { text.push(b'\n'); }
        prop_assume!(!text.is_empty());
        // Nothing behind the last newline is no line; a line cut to nothing may stand there.
        let ends = text.ends_with(b"\n");
        let expected = text.split(|c| *c == b'\n').count() as u64 - u64::from(ends);
        let reader = LineReader::from_read("damaged", Cursor::new(text.clone())).unwrap();
        let options = Options {
            arch: Some(LOGS[which].1),
            kernel: Some("6.12".into()),
            ..Options::default()
        };
        let side = SideFiles { cmdline: Some("nokaslr".into()), ..SideFiles::default() };
        match replay_reader(reader, &options, side, None, &mut Check::default()) {
            Ok(done) => {
                let a = &done.summary.accounting;
                prop_assert!(a.adds_up());
                prop_assert_eq!(a.lines, expected);
                prop_assert_eq!(a.bytes, text.len() as u64);
            }
            Err(e) => prop_assert!(matches!(e, ReplayError::NoEvents { .. }), "{}", e),
        }
    }
}

fn error_of(bytes: &[u8], name: &str) -> ReplayError {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    let options = Options { kernel: Some("6.12".into()), ..Options::default() };
    replay(&path, &options, &mut Check::default()).unwrap_err()
}

#[test]
fn unusable_input_is_named_with_its_place() {
    assert!(matches!(error_of(b"", "a"), ReplayError::Read(ReadError::Empty { .. })));
    let noise: Vec<u8> = (0..4096u32).map(|i| ((i * 7919) >> 3) as u8).collect();
    match error_of(&noise, "b") {
        ReplayError::Read(ReadError::Binary { .. }) | ReplayError::NoEvents { .. } => {}
        other => panic!("{other}"),
    }
    assert!(matches!(error_of(b"hello\nworld\n", "c"), ReplayError::NoEvents { lines: 2, .. }));
    let whole = std::fs::read(logs().join("ppc64el-6.12/trace.txt.zst")).unwrap();
    let text = error_of(&whole[..whole.len() / 2], "d.zst").to_string();
    assert!(text.contains("cut off at byte"), "{text}");
    assert!(matches!(
        replay(Path::new("/nonexistent/x"), &Options::default(), &mut Check::default()),
        Err(ReplayError::Read(ReadError::Open { .. }))
    ));
}

#[test]
fn without_anything_beside_it_a_log_needs_the_version_told() {
    let bytes = std::fs::read(logs().join("arm64-6.12/trace.txt.zst")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.zst");
    std::fs::write(&path, bytes).unwrap();
    let e = replay(&path, &Options::default(), &mut Check::default()).unwrap_err().to_string();
    assert!(e.contains("--kernel"), "{e}");
    let options = Options { kernel: Some("6.12".into()), ..Options::default() };
    let done = replay(&path, &options, &mut Check::default()).unwrap();
    assert_eq!(done.summary.arch, Arch::Arm64);
    // The whole file was looked at for probes: calls have their returns.
    let calls = done.summary.calls["set_memory_ro"];
    assert!(calls.entered > 50 && calls.entered == calls.returned);
}

/// Text that goes on for ever, or for a while.
struct Endless {
    left: u64,
    text: Vec<u8>,
    at: usize,
}

impl std::io::Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = buf.len().min(self.text.len() - self.at).min(self.left as usize);
        buf[..n].copy_from_slice(&self.text[self.at..self.at + n]);
        self.at = (self.at + n) % self.text.len();
        self.left -= n as u64;
        Ok(n)
    }
}

fn replayed(reader: LineReader) -> Result<textbed_trace::Replayed, ReplayError> {
    let options =
        Options { arch: Some(Arch::X86_64), kernel: Some("6.12".into()), ..Options::default() };
    replay_reader(reader, &options, SideFiles::default(), None, &mut Check::default())
}

fn text_of(lines: impl Iterator<Item = String>) -> LineReader {
    let all: String = lines.collect();
    LineReader::from_read("log", Cursor::new(all.into_bytes())).unwrap()
}

#[test]
fn a_line_without_end_is_refused_after_a_mebibyte() {
    let gib = Endless { left: 1 << 30, text: vec![b'a'; 4096], at: 0 };
    let reader = LineReader::from_read("log", gib).unwrap();
    let error = replayed(reader).unwrap_err();
    assert!(matches!(error, ReplayError::Read(ReadError::LineTooLong { line: 1, .. })), "{error}");
}

#[test]
fn numbers_of_pages_beyond_reason_are_no_numbers() {
    let head = "            init-1       [001] ..... 10.000001: ";
    let lines = [
        "set_memory_ro: (set_memory_ro+0x4/0x40) addr=0xffffffffc0213000 numpages=1152921504606846976",
        "set_memory_ro__ret: (f+0x1/0x2 <- set_memory_ro) ret=0x0",
        "set_memory_ro: (set_memory_ro+0x4/0x40) addr=0xffffffffffffffff numpages=2147483647",
        "set_memory_ro__ret: (f+0x1/0x2 <- set_memory_ro) ret=0x0",
        "__vmap_pages_range_noflush: (__vmap_pages_range_noflush+0x4/0xf0) start=0x0 \
         end=0xffffffffffffffff prot=0x163",
        "alloc_vmap_area: va_start: 18446744073709551615 size=18446744073709551615 align=1 \
         vstart=0x0 vend=0x0 failed=0",
        "__text_poke: (__text_poke+0x0/0x4c0) func=f+0x0/0x1 addr=0xffffffffffffffff src=0x0 \
         len=18446744073709551615",
        "flush_icache_range: (flush_icache_range+0x4/0x30) start=0x0 end=0xffffffffffffffff",
    ];
    let done = replayed(text_of(lines.iter().map(|l| format!("{head}{l}\n")))).unwrap();
    // Every one of them is understood or refused, in a handful of events.
    assert!(done.summary.event_count() < 50, "{:?}", done.summary.events);
    assert!(done.mappings.runs().count() < 10);
}

#[test]
fn millions_of_distinct_names_stay_a_bounded_state() {
    let line = |i: u32| match i % 4 {
        0 => format!("t{i:07}-{i} [000] ..... 10.1: tracing_mark_write: mark {i}\n"),
        1 => format!(
            "t{i:07}-{i} [000] ..... 10.1: module_finalize: (module_finalize+0x4/0x5) name=\"m{i}\"\n"
        ),
        2 => format!("t{i:07}-{i} [000] ..... 10.1: vmap: (vmap+0x4/0x10) count=1\n"),
        _ => format!("t{i:07}-{i} [000] ..... 10.1: f{i}: (f{i}+0x0/0x1) a=1\n"),
    };
    let done = replayed(text_of((0..300_000).map(line))).unwrap();
    let s = &done.summary;
    assert_eq!(s.accounting.lines, 300_000);
    assert!(s.markers.len() <= 1000 && s.marker_count == 75_000 && s.owners.len() <= 4096);
    assert_eq!(s.calls["vmap"].entered, 75_000);
}

#[test]
fn deep_nesting_of_calls_and_tasks_is_cut_off() {
    let deep = (0..200_000).map(|i| format!(" {})               |  vmap() {{\n", i % 2));
    let tasks = (0..50_000).map(|i| {
        format!(" 0)  t{i}-{i}  |               |  set_memory_x(addr=0x1000, numpages=1) {{\n")
    });
    let done = replayed(text_of(deep.chain(tasks))).unwrap();
    assert_eq!(done.summary.accounting.lines, 250_000);
    assert_eq!(done.summary.calls["vmap"].entered, 200_000);
    let json = "{\"type\":".repeat(20_000);
    let done = replayed(text_of(
        ["a-1 [000] ..... 10.1: vmap: (vmap+0x4/0x10) count=1\n".to_owned(), json + "\n"]
            .into_iter(),
    ))
    .unwrap();
    assert_eq!(done.summary.accounting.not_understood_lines(), 1);
}
