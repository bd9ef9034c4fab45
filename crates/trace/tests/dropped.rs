//! Lines of a log that are gone, with nothing in their place: no certain finding comes of that.
//! Recorded logs give none as they are, so each one would be wrong.

#![allow(clippy::unwrap_used)] // tests may

use std::io::Cursor;
use std::path::{Path, PathBuf};
use textbed_check::{Checker, Confidence, Options as CheckOptions, Report};
use textbed_trace::reader::LineReader;
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;
use textbed_trace::{Options, Summary};

fn log(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs").join(name).join("trace.txt.zst")
}

fn lines(name: &str) -> Vec<Vec<u8>> {
    let mut reader = LineReader::open(&log(name)).unwrap();
    let mut out = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        out.push(line.bytes.to_vec());
    }
    out
}

fn judge<'a>(name: &str, lines: impl Iterator<Item = &'a Vec<u8>>) -> (Report, Summary) {
    let path = log(name);
    let side = SideFiles::of(&path, std::slice::from_ref(&path)).unwrap();
    let mut text = Vec::new();
    for line in lines {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    let reader = LineReader::from_read("log", Cursor::new(text)).unwrap();
    let mut checker = Checker::new(CheckOptions::default());
    let done = replay_reader(reader, &Options::default(), side, None, &mut checker).unwrap();
    (checker.finish(), done.summary)
}

fn certain(report: &Report) -> Vec<&str> {
    let certain = report.findings.iter().filter(|f| f.confidence == Confidence::Certain);
    certain.map(|f| f.message.as_str()).collect()
}

/// Numbers that are the same in each run (Knuth's linear congruence).
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn lines_that_are_gone_make_nothing_certain() {
    let mut possible = 0;
    for name in ["arm64-6.12", "ppc64el-6.12"] {
        let all = lines(name);
        let (whole, summary) = judge(name, all.iter());
        assert_eq!((certain(&whole).len(), summary.accounting.missing), (0, 0), "{name}");
        for seed in 1..=8 {
            let (mut state, share) = (seed, [2, 5, 20, 200][seed as usize % 4]);
            let drops: Vec<bool> =
                all.iter().map(|_| chance(&mut state).is_multiple_of(share)).collect();
            let kept = |header: bool| {
                let keep = move |(line, drop): &(&Vec<u8>, &bool)| {
                    if line.starts_with(b"#") { header } else { !**drop }
                };
                all.iter().zip(&drops).filter(keep).map(|(line, _)| line).collect::<Vec<_>>()
            };
            let (report, summary) = judge(name, kept(true).into_iter());
            assert!(summary.accounting.missing > 0, "{name}, seed {seed}");
            assert!(certain(&report).is_empty(), "{name}, seed {seed}: {:?}", certain(&report));
            possible += report.findings.len();
            // Without the header it takes calls that are torn.
            let (report, summary) = judge(name, kept(false).into_iter());
            let torn = summary.accounting.torn > 0;
            assert!(!torn || certain(&report).is_empty(), "{name}, seed {seed}");
        }
    }
    assert!(possible > 0, "nothing was found at all");
}
