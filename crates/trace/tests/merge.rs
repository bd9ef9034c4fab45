//! Files of single CPUs merged by time, and logs with several boots, overwritten buffers, or a
//! beginning in the middle.

#![allow(clippy::unwrap_used)] // tests may

mod common;

use common::*;
use proptest::prelude::*;
use std::io::Cursor;
use std::path::Path;
use textbed_arch::Arch;
use textbed_event::{Kind, Order, Provenance};
use textbed_trace::merge::{Lines, Merged, in_folder};
use textbed_trace::reader::{LineReader, ReadError};
use textbed_trace::replay::replay_reader;
use textbed_trace::sections::Begins;
use textbed_trace::side::SideFiles;
use textbed_trace::{Options, Replayed};

fn reader(name: &str, text: &str) -> LineReader {
    LineReader::from_read(name, Cursor::new(text.as_bytes().to_vec())).unwrap()
}

fn merged(texts: &[String]) -> Result<Lines, ReadError> {
    let named = texts.iter().enumerate().map(|(i, t)| reader(&format!("cpu{i}"), t));
    Ok(Lines::Merged(Merged::from_readers(named.collect())?))
}

fn all_lines(mut lines: Lines) -> Vec<(u32, u64, String)> {
    let mut out = Vec::new();
    while let Some(line) = lines.next_line().unwrap() {
        out.push((line.file, line.number, String::from_utf8_lossy(line.bytes).into_owned()));
    }
    out
}

fn replayed(lines: impl Into<Lines>) -> (Replayed, Keep) {
    let options =
        Options { arch: Some(Arch::X86_64), kernel: Some("6.12".into()), ..Options::default() };
    let mut keep = Keep::default();
    let done = replay_reader(lines, &options, nokaslr(), None, &mut keep).unwrap();
    assert!(done.summary.accounting.adds_up());
    (done, keep)
}

fn at(cpu: u32, seconds: &str, event: &str) -> String {
    format!("            init-1       [{cpu:03}] ..... {seconds:>12}: {event}\n")
}

const FREE: &str = "vfree: (vfree+0x4/0x50) addr=0x0";
const MAP: &str = "__vmap_pages_range_noflush: (__vmap_pages_range_noflush+0x4/0xf0) \
                   start=0xffffffffc020f000 end=0xffffffffc0211000 prot=0x163";
const SYNC: &str = "do_sync_core: (do_sync_core+0x4/0x30)";

#[test]
fn a_recorded_log_split_by_cpu_comes_together_again() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs/amd64-6.12");
    let mut log = LineReader::open(&dir.join("trace.txt.zst")).unwrap();
    let (mut whole, mut parts) = (String::new(), [String::new(), String::new()]);
    while let Some(line) = log.next_line().unwrap() {
        // From where modules are loaded: before, the same patch goes on and on.
        if line.number > 4000 && line.number <= 40_000 {
            let text = format!("{}\n", std::str::from_utf8(line.bytes).unwrap());
            parts[usize::from(text.contains(" [001] "))] += &text;
            whole += &text;
        }
    }
    let (one, one_events) = replayed(reader("whole", &whole));
    let (two, two_events) = replayed(merged(&parts).unwrap());
    let counts = two.summary.merged.unwrap();
    assert_eq!((counts.files, counts.late), (2, 0));
    assert_eq!(one.summary.accounting.lines, two.summary.accounting.lines);
    assert_eq!(leaves(&one_events), leaves(&two_events));
    assert_eq!(one.areas, two.areas);
    // All but what happened in the very microsecond on both CPUs is in the order it was.
    let order = |keep: &Keep| -> Vec<_> { keep.events.iter().map(|e| (e.at_ns, e.cpu)).collect() };
    let (a, b) = (order(&one_events), order(&two_events));
    let differ = a.iter().zip(&b).filter(|(x, y)| x != y).count();
    assert!(a.len().abs_diff(b.len()) as u64 <= counts.ties, "{} {}", a.len(), b.len());
    assert!(two_events.events.windows(2).all(|w| w[0].at_ns <= w[1].at_ns));
    assert!(differ < a.len(), "{differ} of {}", a.len());
}

#[test]
fn ties_and_late_lines_are_counted_and_said() {
    let first = at(0, "10.000001", FREE) + " => vfree\n" + &at(0, "10.000005", FREE);
    let second = at(1, "10.000001", SYNC) + &at(1, "10.000004", SYNC) + &at(1, "10.000002", SYNC);
    let lines = all_lines(merged(&[first.clone(), second.clone()]).unwrap());
    let order: Vec<(u32, u64)> = lines.iter().map(|l| (l.0, l.1)).collect();
    // The first file's stack trace stays behind its event; a late line comes as soon as it can.
    assert_eq!(order, [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (0, 3)]);
    let (done, keep) = replayed(merged(&[first, second]).unwrap());
    let counts = done.summary.merged.unwrap();
    assert_eq!((counts.ties, counts.late), (1, 1));
    assert_eq!(done.summary.counts.time_backwards, 1);
    for what in ["very time", "behind a later one", "whose time is before"] {
        assert!(done.summary.not_seen.iter().any(|s| s.contains(what)), "{what}");
    }
    // From there on nobody relies on the order between CPUs.
    assert_eq!(keep.events.last().unwrap().flags.order(), Order::PerCpu);
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let seconds = at(0, "10.000001", FREE);
    let ticks = "            init-1       [001] ..... 77123: vfree: (vfree+0x4/0x50) addr=0x0\n";
    let mut mixed = merged(&[seconds.clone(), ticks.into()]).unwrap();
    let error = mixed.next_line().unwrap_err();
    assert!(error.to_string().contains("cpu1: cannot be merged"), "{error}");
    let mut timeless = merged(&[seconds, "no time here\n".into()]).unwrap();
    let error = std::iter::from_fn(|| Some(timeless.next_line().map(|l| l.is_some())))
        .find_map(Result::err)
        .unwrap();
    assert!(error.to_string().contains("no line of it has a time"), "{error}");
    let error = Lines::open(&["-".into(), "x".into()]).unwrap_err();
    assert!(matches!(error, ReadError::Unmergeable { .. }), "{error}");
}

#[test]
fn a_folder_is_the_recording_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let write = |name: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x\n").unwrap();
    };
    let found = || -> Vec<String> {
        let name = |p: &std::path::PathBuf| p.strip_prefix(root).unwrap().display().to_string();
        in_folder(root).unwrap().iter().map(name).collect()
    };
    write("version");
    write("cpus");
    assert!(found().is_empty());
    write("per_cpu/cpu10/trace");
    write("per_cpu/cpu2/trace");
    write("per_cpu/cpu2/stats");
    assert_eq!(found(), ["per_cpu/cpu2/trace", "per_cpu/cpu10/trace"]);
    std::fs::remove_dir_all(root.join("per_cpu")).unwrap();
    for name in ["trace.cpu1.gz", "trace.cpu0.gz", "trace-notes.txt"] {
        write(name);
    }
    assert_eq!(found(), ["trace.cpu0.gz", "trace.cpu1.gz"]);
    write("trace.txt.zst");
    assert_eq!(found(), ["trace.txt.zst"]);
}

#[test]
fn another_boot_begins_with_nothing() {
    let log = at(0, "90.000001", MAP)
        + &at(1, "95.000001", SYNC)
        + &at(0, "1.000001", SYNC)
        + &at(0, "1.000002", "remove_vm_area: (remove_vm_area+0x4/0x70) addr=0xffffffffc020f000")
        + &at(1, "3.000002", SYNC);
    let (done, keep) = replayed(reader("log", &log));
    let s = &done.summary;
    assert_eq!(s.sections.len(), 2);
    assert_eq!((s.sections[1].line, s.sections[1].begins), ((0, 3), Begins::ClockBack));
    assert_eq!(s.covered_ns(), Some(5_000_000_000 + 2_000_001_000));
    assert_eq!((s.counts.time_backwards, s.areas.removed_unknown), (0, 1));
    assert_eq!(done.mappings.runs().count(), 0);
    let changes = leaves(&keep);
    assert_eq!(changes.len(), 2);
    assert_eq!((changes[1].0, changes[1].3), (A, "---"), "taken down");
    let down = keep.events.iter().filter(|e| e.kind == Kind::Leaf).nth(1).unwrap();
    // At the last moment of the boot before, so that no length is made up.
    assert_eq!((down.at_ns, down.flags.provenance()), (95_000_001_000, Provenance::Inferred));
    assert!(s.not_seen.iter().any(|t| t.contains("line 3") && t.contains("another boot")));
}

#[test]
fn files_of_cpus_put_behind_each_other_are_told_from_boots() {
    let first: String = (0..5).map(|i| at(0, &format!("{}.5", 10 + i), FREE)).collect();
    let second: String = (0..5).map(|i| at(1, &format!("{}.6", 10 + i), SYNC)).collect();
    let (done, _) = replayed(reader("log", &(first.clone() + &second)));
    assert_eq!(done.summary.sections[1].begins, Begins::OtherCpu);
    assert!(done.summary.not_seen.iter().any(|t| t.contains("--merge")));
    let (done, _) = replayed(merged(&[first, second]).unwrap());
    assert_eq!((done.summary.sections.len(), done.summary.counts.time_backwards), (1, 0));
}

#[test]
fn thousands_of_boots_take_no_more_memory_than_sixty() {
    let log: String = (0..5000).map(|i| at(0, &format!("{}.0", 100_000 - 2 * i), MAP)).collect();
    let (done, _) = replayed(reader("log", &log));
    assert_eq!((done.summary.sections.len(), done.summary.sections_more), (64, 5000 - 64));
}

#[test]
fn a_log_that_begins_in_the_middle_says_so() {
    let log = String::from("# entries-in-buffer/entries-written: 4/104   #P:2\n")
        + &at(0, "10.1", "set_memory_ro__ret: (f+0x1/0x2 <- set_memory_ro) ret=0x0")
        + &at(0, "10.2", "remove_vm_area: (remove_vm_area+0x4/0x70) addr=0xffffffffc020f000")
        + &at(
            0,
            "10.3",
            "set_memory_x: (set_memory_x+0x4/0x40) addr=0xffffffffc0213000 numpages=1",
        )
        + &at(0, "10.4", "set_memory_x__ret: (f+0x1/0x2 <- set_memory_x) ret=0x0")
        + &at(
            0,
            "10.5",
            "set_memory_ro: (set_memory_ro+0x4/0x40) addr=0xffffffffc0213000 numpages=1",
        );
    let (done, _) = replayed(reader("log", &log));
    let s = &done.summary;
    assert_eq!(s.accounting.overwritten, 100);
    assert_eq!(s.calls["set_memory_ro"].return_without_entry, 1);
    assert_eq!(s.calls["set_memory_ro"].entry_without_return, 1);
    for what in ["100 oldest events", "behind 1 returns", "returns of 1 calls", "1 areas that were"]
    {
        assert!(s.not_seen.iter().any(|t| t.contains(what)), "{what}: {:?}", s.not_seen);
    }
}

proptest! {
    /// Every line comes once, each file in its own order, and times ascend where they do so in
    /// the files.
    #[test]
    fn nothing_is_lost_and_times_ascend(
        lines in prop::collection::vec((0..4u32, 0..50u64), 1..120), stacks in 0..5usize,
    ) {
        let mut texts = vec![String::new(); 4];
        let mut sorted = lines.clone();
        sorted.sort_by_key(|l| l.1);
        for (cpu, t) in &sorted {
            texts[*cpu as usize] += &at(*cpu, &format!("10.{t:06}"), FREE);
            if *t as usize % 7 < stacks {
                texts[*cpu as usize] += " => vfree\n";
            }
        }
        texts.retain(|t| !t.is_empty());
        let out = all_lines(merged(&texts).unwrap());
        prop_assert_eq!(out.len(), texts.iter().map(|t| t.lines().count()).sum::<usize>());
        let mut next = [1u64; 4];
        let mut last = String::new();
        for (file, number, text) in out {
            prop_assert_eq!(number, next[file as usize]);
            next[file as usize] += 1;
            if let Some((_, rest)) = text.split_once(" ..... ") {
                let time = rest.split(':').next().unwrap().trim().to_string();
                prop_assert!(last <= time);
                last = time;
            }
        }
    }
}

#[test]
fn side_files_of_cpu_folders_lie_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for cpu in ["cpu0", "cpu1"] {
        std::fs::create_dir_all(dir.path().join("per_cpu").join(cpu)).unwrap();
        paths.push(dir.path().join("per_cpu").join(cpu).join("trace"));
    }
    std::fs::write(dir.path().join("version"), "Linux version 6.1.0-56-amd64 (x)\n").unwrap();
    let side = SideFiles::of(&paths[0], &paths).unwrap();
    assert_eq!(side.used, ["version"]);
}
