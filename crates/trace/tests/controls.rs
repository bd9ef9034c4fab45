//! Page tables of real kernels through the reader and the checker: how many executable frames are
//! also writable, against what a walker that is no part of this repository counted. Kernels booted
//! with `rodata=off` (and arm64's `rodata=on`, which leaves the linear map alone) are positive
//! controls: hundreds to thousands of such frames have to come out; stock kernels have none but
//! for what powerpc never protects.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may

use std::io::Cursor;
use std::path::{Path, PathBuf};
use textbed_arch::Arch;
use textbed_check::{Checker, Confidence, Options as CheckOptions, Report, WindowStatus};
use textbed_trace::Options;
use textbed_trace::reader::LineReader;
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;

/// A log of one line: what is found is found in the tables.
const LOG: &str = "            init-1       [001] .....    15.132627: tracing_mark_write: begin\n";

fn check(dir: &Path, tables: &Path) -> Report {
    let name = dir.file_name().unwrap().to_string_lossy().into_owned();
    let arch = match name.split('-').next() {
        Some("amd64") => Arch::X86_64,
        Some("arm64") => Arch::Arm64,
        _ => Arch::Ppc64le,
    };
    let options = Options {
        arch: Some(arch),
        kernel: Some("6.12".into()),
        page_shift: Some(if name.ends_with("64k") { 16 } else { 12 }),
        ..Options::default()
    };
    let side = SideFiles {
        cmdline: Some("nokaslr".into()),
        tables: Some(tables.to_owned()),
        ..SideFiles::default()
    };
    let reader = LineReader::from_read("log", Cursor::new(LOG.as_bytes())).unwrap();
    let mut checker = Checker::new(CheckOptions::default());
    replay_reader(reader, &options, side, None, &mut checker).unwrap();
    checker.finish()
}

/// The number behind "also writable" in the walker's text, in frames of 4 KiB.
fn walked(text: &str) -> Option<u64> {
    let rest = text.split("also writable").nth(1)?;
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Compares all moments of a folder; (compared, equal).
fn folder(dir: &Path) -> (usize, usize) {
    let mut sum = (0, 0);
    for moment in ["pre", "live", "post"] {
        let tables = dir.join(format!("ptpages.{moment}.bin.zst"));
        let walk = std::fs::read_to_string(dir.join(format!("walk.{moment}.txt")));
        let (true, Some(theirs)) = (tables.exists(), walk.ok().as_deref().and_then(walked)) else {
            continue;
        };
        let report = check(dir, &tables);
        let ours: u64 = report.windows.iter().map(|w| w.frames).sum();
        sum.0 += 1;
        sum.1 += usize::from(ours == theirs);
        let place = dir.file_name().unwrap().display();
        println!(
            "{place}, {moment}: {ours} frames writable and executable, by the walker {theirs}"
        );
        let stock = !dir.to_string_lossy().contains("rodata");
        let certain = report.findings.iter().filter(|f| f.confidence == Confidence::Certain);
        if stock {
            assert_eq!(certain.count(), 0, "{dir:?}");
            let power = dir.to_string_lossy().contains("ppc64");
            let allowed = |s| s == WindowStatus::Platform && power;
            // arm64 6.1: the linear alias of the kprobes' page stays writable (see docs/logs.md).
            let others = report.windows.iter().filter(|w| !allowed(w.status)).count();
            assert!(others <= usize::from(dir.ends_with("arm64-6.1")), "{dir:?}");
        } else {
            assert!(ours > 500 && !report.findings.is_empty(), "{dir:?}");
        }
    }
    sum
}

fn all(dirs: impl Iterator<Item = PathBuf>) -> (usize, usize) {
    let mut dirs: Vec<PathBuf> = dirs.collect();
    dirs.sort();
    let each = dirs.iter().map(|d| folder(d));
    let sum = each.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!("tables: {} compared, {} equal", sum.0, sum.1);
    sum
}

#[test]
fn committed_tables_have_what_a_walker_counted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs");
    let names = ["amd64-6.12", "arm64-6.12", "ppc64el-6.12"];
    assert_eq!(all(names.iter().map(|n| root.join(n))), (6, 6));
}

#[test]
#[ignore = "reads the directory named by TEXTBED_LOGS"]
fn all_tables_have_what_a_walker_counted() {
    let root = PathBuf::from(std::env::var_os("TEXTBED_LOGS").expect("TEXTBED_LOGS"));
    let dirs = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path());
    let (compared, equal) = all(dirs.filter(|d| d.is_dir()));
    assert!(compared > 15);
    assert_eq!(compared, equal);
}
