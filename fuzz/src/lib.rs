//! What each fuzz target does with its bytes: the whole way from a line to the verdict, and what
//! has to hold of it whatever the bytes are.
//!
//! Held: no panic, every line accounted for, events valid and numbered without gaps, names interned
//! once. libFuzzer itself watches time and memory.

use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use textbed_arch::Arch;
use textbed_check::{Checker, Options as CheckOptions};
use textbed_event::{Batch, Header, Sink};
use textbed_trace::merge::{Lines, Merged};
use textbed_trace::reader::LineReader;
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;
use textbed_trace::{Options, ReplayError, functions};

/// What kind of text a target reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// With symbols.
    Tracefs,
    /// With addresses, which symbols beside it name.
    Addresses,
    /// Function graph.
    Graph,
}

/// Checks what any stream must be, and passes it on to the checker.
struct Check {
    checker: Checker,
    next: u64,
    names: usize,
}

impl Sink for Check {
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        self.checker.begin(header)
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        assert_eq!(batch.name_base as usize, self.names + 1);
        self.names += batch.names.len();
        for event in &batch.events {
            assert_eq!(event.seq, self.next);
            self.next += 1;
            assert!(event.is_valid(), "{:?}", event.view());
        }
        self.checker.batch(batch)
    }
}

/// First address of the text in which the symbols of [`Format::Addresses`] lie, 64 KiB apart.
const TEXT: u64 = 0xffff_ffff_8100_0000;

static SYMBOLS: LazyLock<SideFiles> = LazyLock::new(|| {
    let mut side = SideFiles::default();
    for (i, f) in functions::all().enumerate() {
        let at = TEXT + 0x10000 * i as u64;
        side.symbols.add_symbol(&format!("{at:x} t {}", f.name));
    }
    side
});

fn arch(bytes: usize) -> Arch {
    [Arch::X86_64, Arch::Arm64, Arch::Ppc64le][bytes % 3]
}

fn run(lines: impl Into<Lines>, bytes: usize, side: SideFiles) {
    let side = SideFiles {
        cmdline: Some("nokaslr".into()),
        areas: vec![(0xffff_c900_0000_0000, 0x5000, "fork pages=4 vmalloc".into())],
        ..side
    };
    let options = Options {
        arch: Some(arch(bytes)),
        kernel: Some(if bytes.is_multiple_of(2) { "6.12" } else { "6.1" }.into()),
        ..Options::default()
    };
    let mut check = Check { checker: Checker::new(CheckOptions::default()), next: 0, names: 0 };
    if let Ok(done) = replay_reader(lines, &options, side, None, &mut check) {
        assert!(done.summary.accounting.adds_up());
        let _ = check.checker.finish();
    }
}

/// Replays and checks a text.
pub fn replayed(data: &[u8], format: Format) {
    let Ok(reader) = LineReader::from_read("log", Cursor::new(data.to_vec())) else { return };
    let side = match format {
        Format::Addresses => SYMBOLS.clone(),
        Format::Tracefs | Format::Graph => SideFiles::default(),
    };
    run(reader, data.len(), side);
}

/// Replays two files as one.
pub fn merged(data: &[u8]) {
    let at = data.windows(2).position(|w| w == b"\n\n").map_or(data.len() / 2, |at| at + 2);
    let (a, b) = data.split_at(at);
    let mut readers = Vec::new();
    for (name, part) in [("a", a), ("b", b)] {
        match LineReader::from_read(name, Cursor::new(part.to_vec())) {
            Ok(reader) => readers.push(reader),
            Err(_) => return,
        }
    }
    if let Ok(merged) = Merged::from_readers(readers) {
        run(Lines::Merged(merged), data.len(), SideFiles::default());
    }
}

/// Reads all lines of a stream that may be packed. What unpacks to more than 64 MiB is left.
pub fn packed(data: &[u8]) {
    let Ok(mut reader) = LineReader::from_read("log", Cursor::new(data.to_vec())) else { return };
    let (mut number, mut offset) = (0, 0);
    while let Ok(Some(line)) = reader.next_line() {
        number += 1;
        assert_eq!((line.number, line.offset), (number, offset));
        offset += line.taken;
        if offset > 64 << 20 {
            return;
        }
    }
}

/// A folder of this process.
fn folder() -> PathBuf {
    let dir = std::env::temp_dir().join(format!("textbed-fuzz-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&dir);
    dir
}

const LOG: &[u8] =
    b"            init-1       [001] .....    15.132627: vfree: (vfree+0x4/0x50) addr=0x0\n";

/// Reads the bytes as one of the files beside a log, and replays a line with it.
pub fn side(data: &[u8]) {
    const NAMES: [&str; 11] = [
        "version",
        "cmdline",
        "cpus",
        "kprobe_events",
        "kprobe_profile",
        "event-counts.tsv",
        "iomem",
        "kallsyms",
        "vmallocinfo.pre",
        "config-6.12",
        "modules.pre",
    ];
    let Some((first, rest)) = data.split_first() else { return };
    let dir = folder();
    let path = dir.join(NAMES[usize::from(*first) % NAMES.len()]);
    if std::fs::write(&path, rest).is_err() {
        return;
    }
    let side = SideFiles::beside(Path::new(&dir.join("trace.txt")));
    let _ = std::fs::remove_file(&path);
    if let Ok(side) = side
        && let Ok(reader) = LineReader::from_read("log", Cursor::new(LOG))
    {
        let options = Options { arch: Some(arch(data.len())), ..Options::default() };
        let mut checker = Checker::new(CheckOptions::default());
        let _: Result<_, ReplayError> = replay_reader(reader, &options, side, None, &mut checker);
        let _ = checker.finish();
    }
}

/// Reads the bytes as page tables, and replays a line with them.
pub fn tables(data: &[u8]) {
    let path = folder().join("ptpages.pre.bin");
    if std::fs::write(&path, data).is_err() {
        return;
    }
    let side = SideFiles { tables: Some(path), ..SideFiles::default() };
    if let Ok(reader) = LineReader::from_read("log", Cursor::new(LOG)) {
        run(reader, data.len(), side);
    }
}
