//! What recorded logs do to a reader: a test for each point, on lines of recorded logs (`twelve/`,
//! taken from logs of unmodified kernels as `tests/logs/README.md` describes them).

#![allow(clippy::unwrap_used)] // tests may

mod common;

use common::*;
use std::io::Cursor;
use textbed_arch::Arch;
use textbed_check::{Checker, Coverage, Options as CheckOptions, Report, WindowStatus};
use textbed_event::{CallRef, Event, Kind, Provenance, View};
use textbed_trace::ftrace::{self, Parsed};
use textbed_trace::functions::{Hit, Symbols, classify};
use textbed_trace::reader::LineReader;
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;
use textbed_trace::{Options, Replayed};

const BATCH_X86: &str = include_str!("twelve/batch-x86.txt");
const BPF_X86: &str = include_str!("twelve/bpf-x86.txt");
const BPF_ARM64: &str = include_str!("twelve/bpf-arm64.txt");
const BPF_POWER: &str = include_str!("twelve/bpf-power.txt");
const ATTR_POWER: &str = include_str!("twelve/attr-power.txt");
const VFREE_X86: &str = include_str!("twelve/vfree-x86.txt");
const CPA_X86: &str = include_str!("twelve/cpa-x86.txt");
const KPROBE_X86: &str = include_str!("twelve/kprobe-x86.txt");
const AREAS_ARM64: &str = include_str!("twelve/vmallocinfo-arm64.txt");
const AREAS_HASHED: &str = include_str!("twelve/vmallocinfo-hashed.txt");
const PROBES_POWER: &str = include_str!("twelve/kprobe_events-power.txt");

/// Two CPUs, as the header of each of these logs says.
const HEADER: &str = "# tracer: nop\n# entries-in-buffer/entries-written: 9/9   #P:2\n";

fn log(arch: Arch, lines: &str) -> (Replayed, Keep) {
    let text = format!("{HEADER}{lines}");
    let (done, keep) = run_as(arch, "6.12", nokaslr(), &text);
    assert_eq!(done.summary.accounting.not_understood_lines(), 0);
    (done, keep)
}

fn checked(arch: Arch, lines: &str) -> Report {
    let text = format!("{HEADER}{lines}");
    let reader = LineReader::from_read("log", Cursor::new(text.into_bytes())).unwrap();
    let options = Options { arch: Some(arch), kernel: Some("6.12".into()), ..Options::default() };
    let mut checker = Checker::new(CheckOptions::default());
    replay_reader(reader, &options, nokaslr(), None, &mut checker).unwrap();
    checker.finish()
}

fn count(keep: &Keep, kind: Kind) -> usize {
    keep.events.iter().filter(|e| e.kind == kind).count()
}

/// Side files in a folder of their own, read as beside a log.
fn beside(files: &[(&str, &str)]) -> SideFiles {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    SideFiles::beside(&dir.path().join("trace.txt")).unwrap()
}

#[test]
fn point_1_an_inlined_sync_is_known_by_what_the_cpus_run() {
    assert!(!BATCH_X86.contains("text_poke_sync"));
    let (done, keep) = log(Arch::X86_64, BATCH_X86);
    assert_eq!(count(&keep, Kind::WindowOpened), 3, "three stores of the batch");
    assert_eq!((done.summary.counts.ipis_sent, done.summary.counts.ipis_taken), (3, 3));
    let sender = |e: &&Event| e.kind == Kind::ContextSync && e.cpu.0 == 1;
    assert_eq!(keep.events.iter().filter(sender).count(), 3);
    // By the inner function alone, where the outer one was inlined too.
    let inner: String = BATCH_X86
        .lines()
        .filter(|l| !l.contains("on_each_cpu_cond_mask:"))
        .map(|l| format!("{l}\n"))
        .collect();
    let (done, _) = log(Arch::X86_64, &inner);
    assert_eq!((done.summary.counts.ipis_sent, done.summary.counts.ipis_taken), (3, 3));
}

#[test]
fn point_2_bpf_on_x86_has_no_sync_by_design_and_arm64_two() {
    let (done, keep) = log(Arch::X86_64, BPF_X86);
    assert_eq!(done.summary.counts.windows, 2, "a load and a free");
    assert_eq!((count(&keep, Kind::IpiSent), count(&keep, Kind::ContextSync)), (0, 0));
    let report = checked(Arch::X86_64, BPF_X86);
    assert_eq!(report.findings, []);
    let sync = report.coverage.iter().find(|(r, _)| r.name() == "missing-context-sync").unwrap();
    assert!(matches!(sync.1, Coverage::NotCheckable(_)), "nothing was executed as far as is seen");
    let (_, keep) = log(Arch::Arm64, BPF_ARM64);
    assert_eq!(count(&keep, Kind::IpiSent), 2);
    assert_eq!(count(&keep, Kind::IpiTaken), 2);
}

#[test]
fn point_3_maintenance_of_a_patchers_alias_reaches_the_code_behind_it() {
    let (done, keep) = log(Arch::Ppc64le, BPF_POWER);
    assert_eq!(done.summary.counts.icache_by_alias, 6);
    let mut lines: Vec<u64> = views(&keep, Kind::IcacheInvalidate)
        .iter()
        .map(|v| match v {
            View::IcacheInvalidate { virt, .. } => virt.0,
            _ => unreachable!(),
        })
        .collect();
    // The three programs of these lines, each line of their code, and nothing at the alias.
    let wanted = [(0xc008_0000_0000_4a40, 384), (0xc008_0000_0000_4bc0, 3648)];
    let wanted = wanted.into_iter().chain([(0xc008_0000_0000_5a00u64, 6848)]);
    let mut all: Vec<u64> =
        wanted.flat_map(|(at, len): (u64, u64)| (at & !127..at + len).step_by(128)).collect();
    lines.dedup();
    all.dedup();
    lines.sort_unstable();
    all.sort_unstable();
    lines.dedup();
    all.dedup();
    assert_eq!(lines, all);
}

#[test]
fn point_4_probes_print_several_offsets() {
    let symbols = Symbols::default();
    for (lines, offset) in [
        (BPF_X86, "+0x4/"),
        (BATCH_X86, "+0x0/"),
        (BPF_POWER, "+0xc/"),
        (BPF_POWER, "(flush_icache_range+0x4/"),
    ] {
        let line = lines.lines().find(|l| l.contains(offset)).unwrap();
        let Parsed::Event(event) = ftrace::parse(line.as_bytes()) else { panic!("{line}") };
        assert!(matches!(classify(&event, &symbols), Hit::Entry(_)), "{line}");
        // Inside the function it is another probe.
        let moved = line.replacen(offset, &offset.replace("+0x", "+0x12"), 1);
        let Parsed::Event(event) = ftrace::parse(moved.as_bytes()) else { panic!("{moved}") };
        assert!(matches!(classify(&event, &symbols), Hit::Inside(_)), "{moved}");
    }
}

#[test]
fn point_5_one_event_prints_decimal_and_counts_the_guard_page() {
    let line = BPF_X86.lines().find(|l| l.contains("alloc_vmap_area")).unwrap();
    assert!(line.contains("va_start: 18446683600571846656 size=8192"));
    let (_, keep) = log(Arch::X86_64, BPF_X86);
    let made = views(&keep, Kind::AreaMade);
    let areas: Vec<(u64, u64)> = made
        .iter()
        .map(|v| match v {
            View::AreaMade { virt, len, .. } => (virt.0, *len),
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(areas, [(0xffff_c900_001b_d000, 0x1000)]);
}

#[test]
fn point_6_a_worker_unmaps_what_somebody_freed_and_the_purge_comes_later() {
    let mut side = nokaslr();
    let own = "bpf_prog_alloc_no_stats+0x1/0x2 pages=5 vmalloc N0=5".to_string();
    for virt in [0xffff_c900_0122_c000, 0xffff_c900_0129_c000, 0xffff_c900_012a_c000] {
        side.areas.push((virt, 0x6000, own.clone()));
    }
    let text = format!("{HEADER}{VFREE_X86}");
    let (done, keep) = run_as(Arch::X86_64, "6.12", side, &text);
    let areas = done.summary.areas;
    assert_eq!((areas.before, areas.removed, areas.removed_unknown), (3, 3, 0));
    // The caller is modprobe on CPU 0, in a softirq; the worker removes in no call of that task.
    for removed in keep.events.iter().filter(|e| e.kind == Kind::AreaRemoved) {
        assert_eq!(removed.cause, CallRef::NONE);
    }
    let seq = |kind: Kind| keep.events.iter().filter(move |e| e.kind == kind).map(|e| e.seq);
    let last_removed = seq(Kind::AreaRemoved).max().unwrap();
    assert!(seq(Kind::TlbInvalidate).all(|flush| flush > last_removed), "lazily");
    assert!(seq(Kind::TlbInvalidate).count() >= 2);
}

#[test]
fn point_7_vmallocinfo_without_callers_or_addresses() {
    let side = beside(&[("vmallocinfo.pre", AREAS_ARM64)]);
    assert_eq!(side.areas.len(), AREAS_ARM64.lines().count());
    let first = side.areas[0].0;
    let (done, keep) = run_as(Arch::Arm64, "6.1", side, &format!("{HEADER}{BPF_ARM64}"));
    // Whose they are is not guessed from the return probe that stands in the caller's place.
    let regions = views(&keep, Kind::Region);
    let old = |v: &View| matches!(v, View::Region { virt, .. } if virt.0 >> 28 == first >> 28);
    assert!(!regions.iter().any(old), "{regions:?}");
    assert!(done.summary.not_seen.iter().any(|s| s.contains("return probe")));
    let side = beside(&[("vmallocinfo.pre", AREAS_HASHED)]);
    assert_eq!((side.areas.len(), side.areas_hashed), (0, AREAS_HASHED.lines().count() as u64));
    let (done, _) = run_as(Arch::Arm64, "6.12", side, &format!("{HEADER}{BPF_ARM64}"));
    assert!(done.summary.not_seen.iter().any(|s| s.contains("kptr_restrict")));
}

#[test]
fn point_8_arm64s_irqs_off_flag_is_the_breakpoints() {
    assert!(
        BPF_ARM64
            .lines()
            .filter(|l| l.contains(": (") && l.contains("+0x0/"))
            .all(|l| { l.contains(" d....") || l.contains(" d.h..") })
    );
    let (_, keep) = log(Arch::Arm64, BPF_ARM64);
    let off = |e: &&Event| e.flags.has(textbed_event::Flags::IRQS_OFF);
    assert_eq!(keep.events.iter().filter(off).count(), 0);
    // On x86 the flag is the task's own.
    let (_, keep) = log(Arch::X86_64, BATCH_X86);
    assert!(keep.events.iter().any(|e| e.flags.has(textbed_event::Flags::IRQS_OFF)));
}

#[test]
fn point_9_powerpc_changes_permissions_by_number_and_probes_name_registers() {
    let (_, keep) = log(Arch::Ppc64le, ATTR_POWER);
    let changes = leaves(&keep);
    // Action 0 is read-only; 2 takes away an execute permission that was not there.
    assert_eq!(changes, [(0xc008_0000_003a_f000, 1, "rw-", "r--")]);
    let side = beside(&[("kprobe_events", PROBES_POWER)]);
    assert!(PROBES_POWER.contains("%gpr3"));
    assert!(side.entry_probes.contains("module_alloc") && side.has_probes);
    assert!(side.return_probes.contains("module_alloc"));
}

#[test]
fn point_10_the_tracers_own_pages_and_patches_are_the_tracers() {
    let (done, keep) = log(Arch::X86_64, KPROBE_X86);
    let owners: Vec<&str> = views(&keep, Kind::Region)
        .iter()
        .map(|v| match v {
            View::Region { owner, .. } => keep.names.get(*owner),
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(owners, ["kprobes", "kprobes"]);
    assert_eq!(done.summary.counts.windows, 3, "two slots filled, one breakpoint");
    let report = checked(Arch::X86_64, KPROBE_X86);
    assert_eq!(report.findings, []);
    assert!(report.windows.iter().all(|w| w.status != WindowStatus::Violation));
}

#[test]
fn point_11_volume_leaves_no_state_behind() {
    let mut text = String::from(HEADER);
    for i in 0..2000 {
        for line in BATCH_X86.lines() {
            let (before, after) = line.split_once("    15.").unwrap();
            text += &format!("{before} {:>5}.{after}\n", 15 + i);
        }
    }
    let (done, keep) = run_as(Arch::X86_64, "6.12", nokaslr(), &text);
    let windows = done.summary.counts.windows;
    assert_eq!((windows, count(&keep, Kind::WindowClosed) as u64), (6000, 6000));
    assert_eq!((done.areas.len(), done.mappings.runs().count()), (0, 0));
    assert_eq!(done.summary.counts.ipis_taken, 6000);
    let report = checked(Arch::X86_64, text.strip_prefix(HEADER).unwrap());
    assert!(report.findings.is_empty() && report.windows.len() <= 3);
}

#[test]
fn point_12_a_mislabelled_mask_is_no_number_of_pages() {
    let walk = CPA_X86.lines().find(|l| l.contains("__change_page_attr_set_clr:")).unwrap();
    assert!(walk.contains("numpages=66"), "that is _PAGE_RW | _PAGE_DIRTY");
    let (_, keep) = log(Arch::X86_64, CPA_X86);
    let changes = leaves(&keep);
    assert!(changes.iter().all(|c| c.1 == 1), "{changes:?}");
    let ro = keep.events.iter().find(|e| e.kind == Kind::Leaf).unwrap();
    assert_eq!(ro.flags.provenance(), Provenance::Modelled, "its bits before are assumed");
}
