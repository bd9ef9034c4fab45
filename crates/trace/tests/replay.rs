//! Recorded logs replayed: against the page tables of the machine that wrote them, and against
//! what their README says of them.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests and benches may

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use textbed_arch::effect::SyncCause;
use textbed_arch::{Arch, Perm};
use textbed_event::{Batch, Event, Header, Kind, Promise, Sink, View, WindowPurpose};
use textbed_trace::mappings::Mappings;
use textbed_trace::{Options, Replayed, replay, tables};

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs").join(name)
}

/// Keeps events, without their payloads.
#[derive(Default)]
struct Keep {
    header: Option<Header>,
    events: Vec<Event>,
}

impl Sink for Keep {
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        self.header = Some(header.clone());
        ControlFlow::Continue(())
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.events.extend_from_slice(&batch.events);
        ControlFlow::Continue(())
    }
}

fn run(dir: &Path, stop: Option<&str>) -> (Replayed, Keep) {
    let mut keep = Keep::default();
    let options = Options { stop_at_marker: stop.map(str::to_string), ..Options::default() };
    let done = replay(&dir.join("trace.txt.zst"), &options, &mut keep).unwrap();
    (done, keep)
}

const COMMITTED: [&str; 3] = ["amd64-6.12", "arm64-6.12", "ppc64el-6.12"];

/// Committed logs replayed to the moment at which the `live` tables were taken.
static LIVE: LazyLock<Vec<Replayed>> =
    LazyLock::new(|| COMMITTED.iter().map(|n| to_live(&committed(n))).collect());

fn to_live(dir: &Path) -> Replayed {
    let (done, _) = run(dir, Some("WL DUMP live"));
    assert!(done.summary.stopped_at.is_some(), "{dir:?}");
    done
}

/// Pages of `[from, to)` by address, with their letters.
fn pages(m: &Mappings, from: u64, to: u64) -> BTreeMap<u64, &'static str> {
    let page = 1u64 << m.page_shift();
    m.runs_in(from, to)
        .filter(|r| r.perm.contains(Perm::PRESENT))
        .flat_map(|r| (r.virt..r.end).step_by(page as usize).map(move |v| (v, r.perm.letters())))
        .collect()
}

/// Where vmalloc and modules lie, and the direct map.
fn ranges(arch: Arch) -> &'static [(&'static str, u64, u64)] {
    match arch {
        Arch::X86_64 => &[
            ("direct map", 0xffff_8880_0000_0000, 0xffff_8881_0000_0000),
            ("modules", 0xffff_ffff_a000_0000, 0xffff_ffff_ff00_0000),
            ("vmalloc", 0xffff_c900_0000_0000, 0xffff_e900_0000_0000),
        ],
        Arch::Arm64 => &[
            ("modules and vmalloc", 0xffff_8000_0000_0000, 0xffff_fdff_bf80_0000),
            ("linear map", 0xffff_0000_0000_0000, 0xffff_0000_4000_0000),
        ],
        _ => &[
            ("vmalloc", 0xc008_0000_0000_0000, 0xc00a_0000_0000_0000),
            ("linear map", 0xc000_0000_0000_0000, 0xc000_0001_0000_0000),
        ],
    }
}

struct Agreement {
    compared: usize,
    equal: usize,
    executable: usize,
    executable_equal: usize,
    frames: usize,
    frames_equal: usize,
}

/// Compares page by page with the `live` tables.
fn agreement(dir: &Path, done: &Replayed) -> Agreement {
    let arch = done.summary.arch;
    let mut live = Mappings::new(done.mappings.bits());
    tables::read(&dir.join("ptpages.live.bin.zst"), arch, &mut live).unwrap();
    let mut sum = Agreement {
        compared: 0,
        equal: 0,
        executable: 0,
        executable_equal: 0,
        frames: 0,
        frames_equal: 0,
    };
    for &(name, from, to) in ranges(arch) {
        let (ours, theirs) = (pages(&done.mappings, from, to), pages(&live, from, to));
        let all: std::collections::BTreeSet<u64> =
            ours.keys().chain(theirs.keys()).copied().collect();
        let differ: Vec<_> = all
            .iter()
            .filter(|v| ours.get(v) != theirs.get(v))
            .map(|v| (format!("{v:#x}"), ours.get(v), theirs.get(v)))
            .collect();
        println!(
            "{}: {name}: {} pages compared, {} equal; differ: {:?}",
            dir.file_name().unwrap().display(),
            all.len(),
            all.len() - differ.len(),
            &differ[..differ.len().min(6)]
        );
        sum.compared += all.len();
        sum.equal += all.len() - differ.len();
        let exec: Vec<u64> =
            ours.iter().filter(|(_, l)| l.ends_with('x')).map(|(v, _)| *v).collect();
        sum.executable += exec.len();
        for v in ours.keys().filter(|v| theirs.contains_key(v)) {
            if let Some(frame) = done.mappings.phys(*v, 1) {
                sum.frames += 1;
                sum.frames_equal += usize::from(live.phys(*v, 1) == Some(frame));
            }
        }
        sum.executable_equal += exec.iter().filter(|v| ours.get(v) == theirs.get(v)).count();
    }
    sum
}

fn report<'a>(dirs: impl Iterator<Item = (PathBuf, &'a Replayed)>) {
    for (dir, done) in dirs {
        let a = agreement(&dir, done);
        println!(
            "{}: {} pages compared, {} equal; executable: {} compared, {} equal; frames known: {} \
             compared, {} equal",
            dir.display(),
            a.compared,
            a.equal,
            a.executable,
            a.executable_equal,
            a.frames,
            a.frames_equal
        );
        assert_eq!(a.frames, a.frames_equal, "{dir:?}");
        assert!(a.executable > 100, "{dir:?}");
        assert_eq!(a.executable, a.executable_equal, "{dir:?}");
        // What was mapped before the probes were armed cannot be known.
        assert!(a.compared - a.equal <= 120, "{dir:?}: {} differ", a.compared - a.equal);
    }
}

#[test]
fn live_page_tables_of_committed_logs() {
    report(COMMITTED.iter().map(|n| committed(n)).zip(&*LIVE));
}

#[test]
#[ignore = "reads the directory named by TEXTBED_LOGS"]
fn live_page_tables_of_all_logs() {
    let root = PathBuf::from(std::env::var_os("TEXTBED_LOGS").expect("TEXTBED_LOGS"));
    let mut dirs: Vec<_> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    dirs.retain(|d| d.join("ptpages.live.bin.zst").exists() && d.join("trace.txt.zst").exists());
    dirs.sort();
    for dir in dirs {
        let done = to_live(&dir);
        report(std::iter::once((dir, &done)));
    }
}

fn tsv(dir: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(dir.join("event-counts.tsv")).unwrap();
    let split = |l: &str| l.split_once('\t').map(|(n, e)| (e.to_string(), n.parse().unwrap()));
    text.lines().filter_map(split).collect()
}

/// What the logs are known to hold, from the counts made when they were recorded and from their
/// description: every line understood, no leaf both writable and executable, no lost lines.
#[test]
fn committed_logs_as_described() {
    for name in COMMITTED {
        let dir = committed(name);
        let (done, keep) = run(&dir, None);
        let (s, counts) = (&done.summary, tsv(&dir));
        let count = |event: &str| counts.get(event).copied().unwrap_or(0);
        let a = &s.accounting;
        assert!(a.adds_up() && a.not_understood_lines() == 0 && a.lost_notices.lines == 0);
        assert_eq!(a.lines, counts.values().sum::<u64>() + a.comments, "{name}");
        assert_eq!(s.event_count(), keep.events.len() as u64);
        assert_eq!(s.marker_count, count("tracing_mark_write"));
        assert_eq!(s.counts.time_backwards, 0);
        // Each call of the log is one call here, and returned but for what the log lacks.
        for (function, n) in &s.calls {
            let returns = count(&format!("{function}__ret"));
            assert_eq!(n.returned + n.return_without_entry, returns, "{name} {function}");
            let trace = ["alloc_vmap_area", "free_vmap_area_noflush"].contains(function);
            assert!(trace || n.entered == count(function), "{name} {function}");
        }
        let writable_code = keep.events.iter().filter_map(|e| match e.view() {
            View::Leaf { change: c, .. } => Some(c.new),
            _ => None,
        });
        let both = Perm::PRESENT | Perm::WRITE | Perm::EXEC;
        assert_eq!(writable_code.filter(|p| p.contains(both)).count(), 0, "{name}");
        let kind = |k: Kind| s.events.get(&k).copied().unwrap_or(0);
        // What the platform never protects stays open; it is powerpc's linear map alone.
        let platform = keep.events.iter().filter(|e| {
            matches!(e.view(), View::WindowOpened { purpose: WindowPurpose::Platform, .. })
        });
        let platform = platform.count() as u64;
        assert_eq!(platform > 0, s.arch.is_powerpc());
        assert_eq!(kind(Kind::WindowOpened), kind(Kind::WindowClosed) + platform);
        match s.arch {
            Arch::X86_64 => {
                assert_eq!(kind(Kind::WindowOpened), count("__text_poke"));
                assert_eq!(kind(Kind::PatchSite), count("text_poke_bp") + count("text_poke_queue"));
                // One hit of do_sync_core was missed (kprobe_profile): the sender waited for it.
                let runs = keep.events.iter().filter(|e| match e.view() {
                    View::ContextSync { cause } => cause == SyncCause::Serialising,
                    _ => false,
                });
                assert_eq!(runs.count() as u64, count("do_sync_core") + 1);
                assert!(s.counts.ipis_sent - s.counts.ipis_taken <= 3);
            }
            Arch::Arm64 => {
                assert_eq!(kind(Kind::WindowOpened), count("__text_poke"));
                assert_eq!(s.counts.ipis_taken, count("do_nothing"));
                assert!(!s.records.contains(Kind::WindowOpened));
            }
            _ => {
                let copies = count("bpf_arch_text_copy") + count("bpf_arch_text_invalidate");
                assert_eq!(kind(Kind::WindowOpened) - platform, copies);
                let flushes = count("radix__flush_tlb_kernel_range");
                assert_eq!(kind(Kind::TlbInvalidate), flushes);
            }
        }
        let of_code =
            |e: &&Event| matches!(e.view(), View::Promised { what: Promise::NoStaleCode, .. });
        let about_code = keep.events.iter().filter(of_code).count() as u64;
        assert_eq!(kind(Kind::Promised) - about_code, promises(&counts), "{name}");
        // Patches are judged, but for the first and last ones.
        let patches = match s.arch {
            Arch::X86_64 => count("text_poke_bp_batch"),
            Arch::Arm64 => count("bpf_arch_text_copy__ret"),
            _ => 0,
        };
        let judged = s.counts.patches_judged;
        assert!(judged + patches / 50 >= patches, "{name}: {judged} of {patches}");
    }
}

/// Returns of permission changes, all of which succeeded.
fn promises(counts: &BTreeMap<String, u64>) -> u64 {
    let names = ["ro", "rw", "x", "nx", "rox", "np", "p", "valid"];
    names.iter().filter_map(|n| counts.get(&format!("set_memory_{n}__ret"))).sum()
}

#[test]
fn two_runs_give_the_same_events() {
    let dir = committed("ppc64el-6.12");
    let (a, b) = (run(&dir, None), run(&dir, None));
    assert!(a.1.events == b.1.events && a.1.header == b.1.header);
    assert_eq!(format!("{:?}", a.0.summary), format!("{:?}", b.0.summary));
}

/// Areas alive at the moment `live` against the kernel's own list of that moment.
#[test]
fn living_areas_of_committed_logs() {
    let mut sum = (0, 0);
    for (name, done) in COMMITTED.iter().zip(&*LIVE) {
        let dir = committed(name);
        let page = 1u64 << done.mappings.page_shift();
        let text = std::fs::read_to_string(dir.join("vmallocinfo.live")).unwrap();
        let hex = |t: &str| u64::from_str_radix(t.trim_start_matches("0x"), 16).unwrap();
        let theirs: BTreeMap<u64, (u64, &str)> = text
            .lines()
            .map(|l| {
                let (first, rest) = l.split_once('-').unwrap();
                let (end, words) = rest.split_once(char::is_whitespace).unwrap();
                (hex(first), (hex(end) - page - hex(first), words))
            })
            .collect();
        let ours: BTreeMap<u64, u64> = done.areas.iter().copied().collect();
        let known: Vec<u64> = ours.keys().filter(|v| theirs.contains_key(v)).copied().collect();
        let equal = known.iter().filter(|v| ours[*v] == theirs[*v].0).count();
        let only_ours: Vec<_> = ours.iter().filter(|(v, _)| !theirs.contains_key(v)).collect();
        let only_theirs: Vec<_> = theirs.iter().filter(|(v, _)| !ours.contains_key(v)).collect();
        println!(
            "{name}: {} areas compared, {equal} equal; only in the log {only_ours:x?}; only in \
             vmallocinfo {}: {:x?}",
            known.len(),
            only_theirs.len(),
            &only_theirs[..only_theirs.len().min(4)]
        );
        sum = (sum.0 + known.len(), sum.1 + equal);
    }
    println!("areas: {} compared, {} equal", sum.0, sum.1);
    assert_eq!(sum.0, sum.1);
    assert!(sum.0 > 100);
}

/// Every log of the directory, boot logs too: each line is accounted for and understood.
#[test]
#[ignore = "reads the directory named by TEXTBED_LOGS and prints"]
fn all_logs_are_understood() {
    let root = PathBuf::from(std::env::var_os("TEXTBED_LOGS").expect("TEXTBED_LOGS"));
    let mut logs: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().path())
        .flat_map(|d| [d.join("trace.txt.zst"), d.join("boottrace.txt")])
        .filter(|f| f.exists())
        .collect();
    logs.sort();
    for log in logs {
        let mut keep = Keep::default();
        let done = replay(&log, &Options::default(), &mut keep).unwrap();
        println!("{:#?}", done.summary);
        let a = &done.summary.accounting;
        assert!(a.adds_up() && a.not_understood_lines() == 0, "{log:?}: {:?}", a.not_understood);
    }
}
