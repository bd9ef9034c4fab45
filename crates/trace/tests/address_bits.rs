//! Recorded logs as kernels with other bits of addresses would have written them: every address
//! moved to where it lies there (by the headers, see `textbed_kernel::MAPS`), without page tables
//! and configuration. The bits have to be found, and the same has to come out, moved.

#![allow(clippy::unwrap_used)] // tests may

mod common;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::{Keep, leaves};
use textbed_trace::reader::LineReader;
use textbed_trace::{Options, Replayed, replay};

/// First address, end, and where it is in the other kernel: each with its own bits.
struct Moves<'a>(&'a [(u64, u64, u64)]);

/// arm64 with 4 KiB: linear map, image with modules and vmalloc, vmalloc's end with the array of
/// pages.
const TO_39: Moves<'_> = Moves(&[
    (0xffff_0000_0000_0000, 0xffff_0010_0000_0000, 0xffff_ff80_0000_0000),
    (0xffff_8000_0000_0000, 0xffff_8010_0000_0000, 0xffff_ffc0_0000_0000),
    (0xffff_fdff_0000_0000, 0xffff_fe00_0000_0000, 0xffff_fffe_0000_0000),
]);

/// x86-64: direct map, vmalloc, the array of pages.
const TO_57: Moves<'_> = Moves(&[
    (0xffff_8880_0000_0000, 0xffff_c900_0000_0000, 0xff11_0000_0000_0000),
    (0xffff_c900_0000_0000, 0xffff_e900_0000_0000, 0xffa0_0000_0000_0000),
    (0xffff_ea00_0000_0000, 0xffff_eb00_0000_0000, 0xffd4_0000_0000_0000),
]);

impl Moves<'_> {
    fn address(&self, address: u64) -> u64 {
        let row = self.0.iter().find(|(start, end, _)| (*start..*end).contains(&address));
        row.map_or(address, |(start, _, there)| address - start + there)
    }

    /// A word: hexadecimal with `0x` or of 16 digits, or decimal.
    fn word(&self, word: &str) -> String {
        let bare = || (word.len() == 16).then(|| u64::from_str_radix(word, 16).ok()).flatten();
        if let Some(value) = word.strip_prefix("0x").and_then(|h| u64::from_str_radix(h, 16).ok()) {
            return format!("{:#x}", self.address(value));
        }
        if let Ok(value) = word.parse::<u64>() {
            return self.address(value).to_string();
        }
        bare().map_or_else(|| word.to_owned(), |value| format!("{:x}", self.address(value)))
    }

    fn line(&self, line: &str) -> String {
        let (mut out, mut word) = (String::new(), String::new());
        for c in line.chars().chain([' ']) {
            if c.is_ascii_alphanumeric() {
                word.push(c);
            } else {
                out += &self.word(&word);
                word.clear();
                out.push(c);
            }
        }
        out.pop();
        out
    }

    fn file(&self, from: &Path, to: &Path) {
        let (mut reader, mut out) = (LineReader::open(from).unwrap(), String::new());
        while let Some(line) = reader.next_line().unwrap() {
            let text = std::str::from_utf8(line.bytes).unwrap();
            writeln!(out, "{}", self.line(text)).unwrap();
        }
        fs::write(to, out).unwrap();
    }
}

fn replayed(dir: &Path) -> (Replayed, Keep) {
    let mut keep = Keep::default();
    (replay(&dir.join("trace.txt"), &Options::default(), &mut keep).unwrap(), keep)
}

fn compare(name: &str, moves: &Moves<'_>, format: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs").join(name);
    let scratch = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|dir| scratch.path().join(dir));
    for (dir, moves) in [(&here, &Moves(&[])), (&there, moves)] {
        fs::create_dir(dir).unwrap();
        for file in ["version", "cmdline", "kprobe_events"] {
            fs::copy(from.join(file), dir.join(file)).unwrap();
        }
        // Physical addresses are not moved, though they look like others.
        fs::copy(from.join("iomem.live"), dir.join("iomem.live")).unwrap();
        for file in ["vmallocinfo.pre", "modules.pre"] {
            moves.file(&from.join(file), &dir.join(file));
        }
        moves.file(&from.join("trace.txt.zst"), &dir.join("trace.txt"));
    }
    let ((a, here), (b, there)) = (replayed(&here), replayed(&there));
    assert!(b.summary.because.iter().any(|line| line.contains(format)), "{:?}", b.summary.because);
    assert!(here.events.len() > 10_000);
    assert_eq!(a.summary.events, b.summary.events);
    assert_eq!(a.summary.areas, b.summary.areas);
    assert_eq!(a.summary.counts, b.summary.counts);
    assert_eq!(a.summary.conflicts.total(), b.summary.conflicts.total());
    let moved =
        leaves(&here).into_iter().map(|leaf| (moves.address(leaf.0), leaf.1, leaf.2, leaf.3));
    // Where neighbours lie further apart runs of pages end elsewhere; here none do.
    assert!(moved.eq(leaves(&there)), "{name}: leaves");
}

#[test]
fn a_log_of_39_bits() {
    compare("arm64-6.12", &TO_39, "39 bits of addresses");
}

#[test]
fn a_log_of_57_bits() {
    compare("amd64-6.12", &TO_57, "57 bits of addresses");
}
