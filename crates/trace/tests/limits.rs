//! Every bound on the state of a replay, passed by a log that was made for it: the replay goes on,
//! and its report says what was dropped.

#![allow(clippy::unwrap_used)] // tests may

use std::fmt::Write as _;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use textbed_arch::Arch;
use textbed_event::{Batch, Sink};
use textbed_trace::accounting::Reason;
use textbed_trace::bounds::Bound;
use textbed_trace::merge::{Lines, MAX_FILES};
use textbed_trace::reader::{LineReader, ReadError};
use textbed_trace::replay::{ReplayError, replay_reader};
use textbed_trace::sections::MAX_SECTIONS;
use textbed_trace::side::SideFiles;
use textbed_trace::summary::MARKERS;
use textbed_trace::{Options, Summary, functions};

/// Takes everything and keeps nothing.
struct Nothing;

impl Sink for Nothing {
    fn batch(&mut self, _: &Batch) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Text that is made while it is read.
struct Made<I> {
    lines: I,
    text: Vec<u8>,
    at: usize,
}

impl<I: Iterator<Item = String>> Read for Made<I> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.text.len() {
            self.at = 0;
            self.text.clear();
            for line in self.lines.by_ref().take(256) {
                self.text.extend_from_slice(line.as_bytes());
                self.text.push(b'\n');
            }
        }
        let n = into.len().min(self.text.len() - self.at);
        into[..n].copy_from_slice(&self.text[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

type Log = Box<dyn Iterator<Item = String>>;

fn summary(arch: Arch, side: SideFiles, lines: Log) -> Summary {
    let made = Made { lines, text: Vec::new(), at: 0 };
    let reader = LineReader::from_read("made", made).unwrap();
    let options = Options { arch: Some(arch), kernel: Some("6.12".into()), ..Options::default() };
    let done = replay_reader(reader, &options, side, None, &mut Nothing).unwrap();
    assert!(done.summary.accounting.adds_up());
    done.summary
}

/// A hit of a probe at a function's entry, by a task of its own number.
fn hit(task: usize, function: &str, args: &str) -> String {
    format!("t-{task} [000] ..... 10.000001: {function}: ({function}+0x0/0x90) {args}")
}

fn back(task: usize, function: &str, value: &str) -> String {
    format!(
        "t-{task} [000] ..... 10.000001: {function}__ret: (f+0x1/0x2 <- {function}) ret={value}"
    )
}

/// Hits by as many tasks, behind lines that say what is probed.
fn tasks(count: usize, first: Vec<String>, of: impl Fn(usize) -> String + 'static) -> Log {
    Box::new(first.into_iter().chain((1..=count).map(of)))
}

/// `count` stores of one patcher without a synchronisation between them, but for those that show
/// that its probe is armed.
fn stores(count: usize, task: impl Fn(usize) -> usize + 'static, close: bool) -> Log {
    let sync = || hit(9_000_000, "do_sync_core", "");
    let store = move |i: usize| {
        // The first byte of an instruction, and the bytes behind it; or one of many.
        let (addr, len) = match close {
            true => (0xffff_ffff_8100_0000 + i / 2 * 16 + i % 2, 1 + i % 2 * 3),
            false => (0xffff_ffff_8100_0000 + i * 16, 4),
        };
        hit(task(i), "__text_poke", &format!("addr={addr:#x} len={len}"))
    };
    Box::new([sync()].into_iter().chain((0..count).map(store)).chain([sync()]))
}

const VMALLOC: u64 = 0xffff_c900_0000_0000;
const LINEAR: u64 = 0xffff_0000_0000_0000;

/// A log that passes the bound.
fn log_past(bound: Bound) -> (Arch, SideFiles, Log) {
    let most = bound.most();
    let none = SideFiles::default();
    let two = SideFiles { cpus: Some(2), ..SideFiles::default() };
    let x86 = |log| (Arch::X86_64, SideFiles::default(), log);
    match bound {
        // Of one mapping, pieces are made read-only: each makes two runs more.
        Bound::Mappings => {
            let map = hit(
                1,
                "__vmap_pages_range_noflush",
                &format!(
                    "start={VMALLOC:#x} end={:#x} prot=0x8000000000000163",
                    VMALLOC + (1 << 40)
                ),
            );
            x86(tasks(most / 2 + 10, vec![map], |i| {
                let addr = VMALLOC + 0x2000 * i as u64;
                let args = format!("addr={addr:#x} numpages=1 set=0x0 clr=0x2");
                hit(1, "change_page_attr_set_clr", &args)
            }))
        }
        // A few thousand pages, mapped in two ways by turns, are changed as one range.
        Bound::Pieces => {
            const PAGES: usize = 1 << 13;
            let map = |i: usize| {
                let (start, nx) = (VMALLOC + 0x1000 * i as u64, (i as u64 & 1) << 63);
                let (end, prot) = (start + 0x1000, nx | 0x163);
                let args = format!("start={start:#x} end={end:#x} prot={prot:#x}");
                hit(1, "__vmap_pages_range_noflush", &args)
            };
            let change = |i: usize| {
                let (set, clear) = if i.is_multiple_of(2) { (2, 0) } else { (0, 2) };
                let args =
                    format!("addr={VMALLOC:#x} numpages={PAGES} set={set:#x} clr={clear:#x}");
                hit(1, "change_page_attr_set_clr", &args)
            };
            x86(Box::new((0..PAGES).map(map).chain((0..3 * most / PAGES).map(change))))
        }
        Bound::Areas => {
            let area = |i: u64| (VMALLOC + 0x2000 * i, 0x2000, String::new());
            let areas = (0..most as u64 + 5).map(area).collect();
            let line = hit(1, "vfree", "addr=0x0");
            (Arch::X86_64, SideFiles { areas, ..none }, Box::new([line].into_iter()))
        }
        Bound::CallTasks => {
            let first = vec![back(1, "vmap", "0x0")];
            x86(tasks(most + 5, first, |i| hit(i, "vmap", "count=1")))
        }
        Bound::CallDepth => {
            let all = || functions::all().filter(|f| f.on.has(Arch::X86_64)).map(|f| f.name);
            let probed = all().map(|name| back(1, name, "0x0"));
            x86(Box::new(probed.chain(all().map(|name| hit(2, name, "addr=0x0")))))
        }
        Bound::ChangeTasks => {
            let walk = hit(1, "__change_page_attr_set_clr", "vaddr=0x0");
            x86(tasks(most + 5, vec![walk], |i| {
                hit(i, "change_page_attr_set_clr", "addr=0x1000 numpages=1 set=0x0 clr=0x2")
            }))
        }
        Bound::Aliases => {
            let call = hit(1, "change_memory_common", "addr=0x1000 numpages=4 set=0x0 clr=0x0");
            let log = tasks(most + 5, vec![call], |i| {
                let start = LINEAR + 0x1000 * i as u64;
                let args = format!("start={start:#x} size=0x1000 set=0x0 clr=0x0");
                hit(1, "__change_memory_common", &args)
            });
            (Arch::Arm64, none, log)
        }
        // Pages of the linear map, whose frames follow from their addresses, are called an area.
        Bound::FreedFrames => {
            let change = |i: usize| {
                let start = LINEAR + 0x2000 * (i / 2) as u64;
                let args = format!("start={start:#x} size=0x1000 set={:#x} clr=0x0", (i % 2) << 7);
                hit(1, "__change_memory_common", &args)
            };
            let area = format!(
                "t-1 [000] ..... 10.000001: alloc_vmap_area: va_start: {LINEAR} size={} align=1 \
                 vstart=0x0 vend=0x0 failed=0",
                0x4000 * most
            );
            let free = hit(1, "remove_vm_area", &format!("addr={LINEAR:#x}"));
            let side = SideFiles {
                cmdline: Some("nokaslr".into()),
                first_ram: Some(0),
                ..SideFiles::default()
            };
            let log = (0..2 * most + 20).map(change).chain([area, free]);
            (Arch::Arm64, side, Box::new(log))
        }
        Bound::OpenTasks => x86(tasks(most + 5, vec![], |i| hit(i, "stop_machine_cpuslocked", ""))),
        Bound::OpenDepth => {
            let first = vec![back(1, "bpf_arch_text_copy", "0x0")];
            let log = tasks(most + 5, first, |i| {
                hit(1, "bpf_arch_text_copy", &format!("dst={:#x} len=4", 0xc008 << 48 | i))
            });
            (Arch::Ppc64le, none, log)
        }
        // A CPU that no line is of is none that a cross-call waits for.
        Bound::CrossCalls => x86(tasks(most + 5, vec![marker("CPU 0")], |_| {
            hit(1, "on_each_cpu_cond_mask", "func=do_sync_core+0x0/0x30 wait=0")
                .replace("[000]", "[001]")
        })),
        Bound::Stores => x86(stores(most + 5, |_| 1, false)),
        Bound::StoreTasks => x86(stores(most + 5, |i| i + 1, false)),
        Bound::Held => x86(stores(2 * most + 20, |i| 1 + i / 64, true)),
        Bound::Nameless => {
            let piece = |i: usize| {
                let args = "type=0 size=0x1000";
                let addr = format!("{:#x}", 0xffff_ffff_c000_0000u64 + 0x1000 * i as u64);
                format!("{}\n{}", hit(i, "execmem_alloc", args), back(i, "execmem_alloc", &addr))
            };
            x86(tasks(most + 5, vec![back(1, "execmem_alloc", "0x0")], piece))
        }
        Bound::Owners => {
            let module = |i: usize| {
                let enter = hit(1, "execmem_alloc", "type=0 size=0x1000");
                let leave = back(1, "execmem_alloc", "0xffffffffc0000000");
                let name = hit(1, "module_finalize", &format!("name=\"m{i}\""));
                format!("{enter}\n{leave}\n{name}")
            };
            x86(tasks(most + 5, vec![back(1, "execmem_alloc", "0x0")], module))
        }
        Bound::Names => x86(tasks(most + 5, vec![], |i| marker(&format!("mark {i}")))),
        Bound::NameBytes => x86(tasks(1, vec![], |_| marker(&"\u{e9}".repeat(200)))),
        Bound::GraphOpen => {
            let first = vec![hit(1, "vmap", "count=1")];
            x86(tasks(most + 5, first, |i| format!(" {})               |  f{i}() {{", i % 7)))
        }
        Bound::GivenBack => x86(tasks(most + 5, vec![], |i| {
            hit(1, "vfree", &format!("addr={:#x}", VMALLOC + 0x2000 * i as u64))
        })),
        Bound::Removals => {
            let probes = vec![hit(1, "vunmap_range_noflush", "start=0x0 end=0x0")];
            let areas = (0..most as u64 + 5).map(|i| (VMALLOC + 0x2000 * i, 0x2000, String::new()));
            let side = SideFiles { areas: areas.collect(), ..none };
            let log = tasks(most + 5, probes, |i| {
                let addr = format!("addr={:#x}", VMALLOC + 0x2000 * (i as u64 - 1));
                format!("{}\n{}", hit(i, "vfree", &addr), hit(i, "remove_vm_area", &addr))
            });
            (Arch::X86_64, side, log)
        }
        Bound::Patches => {
            x86(tasks(most + 5, patching(), |i| hit(i, "text_poke_bp_batch", "nr_entries=1")))
        }
        // A synchronisation after each: the contradictions' own stores don't pile up.
        Bound::PatchStores => {
            let mut first = patching();
            first.push(hit(1, "text_poke_bp_batch", "nr_entries=1"));
            let log = tasks(most + 5, first, |i| {
                [[poke(1, 16 * i)].as_slice(), &sync(1)].concat().join("\n")
            });
            (Arch::X86_64, two, log)
        }
        Bound::HeldPatches => x86(tasks(most + 5, patching(), |i| {
            let patch = hit(i, "text_poke_bp_batch", "nr_entries=1");
            format!("{patch}\n{}\n{}", poke(i, 16 * i), hit(i, "vfree", "addr=0x0"))
        })),
        Bound::Copies => {
            let first = vec![
                back(1, "bpf_arch_text_copy", "0x0"),
                hit(9_000_000, "do_nothing", "").replace("[000]", "[001]"),
            ];
            let log = tasks(most + 5, first, |i| {
                let dst = format!("dst={:#x} len=4", 0xffff_8000_8000_0000u64 + 16 * i as u64);
                let copy = hit(i, "bpf_arch_text_copy", &dst);
                let kick = hit(i, "smp_call_function_many_cond", "func=do_nothing+0x0/0x8");
                let taken = hit(9_000_000, "do_nothing", "").replace("[000]", "[001]");
                format!("{copy}\n{kick}\n{taken}")
            });
            (Arch::Arm64, two, log)
        }
        Bound::TextPages => {
            let log = tasks(most + 5, patching(), |i| {
                [[poke(1, 0x1000 * i)].as_slice(), &sync(1)].concat().join("\n")
            });
            (Arch::X86_64, two, log)
        }
    }
}

/// A synchronisation of both CPUs that a patcher sends.
fn sync(task: usize) -> [String; 3] {
    [
        hit(task, "on_each_cpu_cond_mask", "func=do_sync_core+0x0/0x30 wait=0"),
        hit(9_000_001, "do_sync_core", "").replace("[000]", "[001]"),
        hit(task, "do_sync_core", ""),
    ]
}

/// Lines that show that all is probed by which x86's patches are judged.
fn patching() -> Vec<String> {
    [poke(9_000_000, 0)].into_iter().chain(sync(9_000_000)).collect()
}

/// A store of a patcher, so far into the kernel's text.
fn poke(task: usize, at: usize) -> String {
    let addr = 0xffff_ffff_8100_0000 + at;
    hit(task, "__text_poke", &format!("addr={addr:#x} len=4"))
}

fn marker(text: &str) -> String {
    format!("t-1 [000] ..... 10.000001: tracing_mark_write: {text}")
}

fn passed(bound: Bound) {
    let (arch, side, log) = log_past(bound);
    let summary = summary(arch, side, log);
    let count = summary.dropped.count(bound);
    assert!(count > 0, "{bound:?}: nothing was dropped: {:?}", summary.dropped);
    // Nothing else was in the way.
    let others: Vec<Bound> =
        summary.dropped.iter().map(|(b, _)| b).filter(|b| *b != bound).collect();
    assert!(others.is_empty(), "{bound:?}: {others:?} too");
    let said = bound.text(count);
    assert!(said.contains(&bound.most().to_string()) && !said.contains('{'), "{said}");
    assert!(summary.not_seen.contains(&said), "{bound:?}: {:?}", summary.not_seen);
}

/// A test for each, so that they run side by side.
macro_rules! bounds {
    ($($test:ident: $bound:ident,)*) => {
        $(#[test]
        fn $test() {
            passed(Bound::$bound);
        })*

        #[test]
        fn every_bound_has_its_test() {
            let tested = [$(Bound::$bound),*];
            assert!(Bound::ALL.iter().all(|bound| tested.contains(bound)), "{tested:?}");
        }
    };
}

bounds! {
    runs_of_mappings: Mappings,
    pieces_of_mappings_by_line: Pieces,
    areas: Areas,
    tasks_with_open_calls: CallTasks,
    depth_of_calls: CallDepth,
    tasks_that_change_permissions: ChangeTasks,
    aliases_of_a_change: Aliases,
    frames_of_a_freed_area: FreedFrames,
    tasks_with_something_open: OpenTasks,
    windows_of_a_task: OpenDepth,
    cross_calls_that_nobody_takes: CrossCalls,
    stores_of_a_task: Stores,
    tasks_that_store: StoreTasks,
    contradictions_held_back: Held,
    modules_without_a_name: Nameless,
    owners: Owners,
    names: Names,
    bytes_of_a_name: NameBytes,
    functions_of_the_graph_tracer: GraphOpen,
    areas_given_back: GivenBack,
    tasks_that_remove: Removals,
    patches_under_way: Patches,
    stores_of_a_patch: PatchStores,
    patches_that_wait: HeldPatches,
    copies_maintained: Copies,
    pages_of_text: TextPages,
}

#[test]
fn what_is_shown_one_by_one_is_counted_beyond() {
    let marks = tasks(MARKERS + 7, vec![], |i| marker(&format!("mark {}", i % 10)));
    let s = summary(Arch::X86_64, SideFiles::default(), marks);
    assert_eq!((s.markers.len(), s.marker_count), (MARKERS, MARKERS as u64 + 7));
    let boots = tasks(MAX_SECTIONS + 9, vec![], |i| {
        format!("t-1 [000] ..... {}.5: vfree: (vfree+0x0/0x1) addr=0x0", 10_000 - 10 * i)
    });
    let s = summary(Arch::X86_64, SideFiles::default(), boots);
    assert_eq!((s.sections.len(), s.sections_more), (MAX_SECTIONS, 9));
    let more = "the same at 9 more places".to_owned();
    assert!(s.not_seen.contains(&more), "{:?}", s.not_seen);
}

/// Counts what comes with events.
#[derive(Default)]
struct Beside {
    events: usize,
    origins: usize,
}

impl Sink for Beside {
    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.events += batch.events.len();
        self.origins += batch.origins.len();
        ControlFlow::Continue(())
    }
}

#[test]
fn lines_without_events_leave_nothing_behind() {
    let lines = (0..50_000).map(|i| hit(1, "tlb_flush", "pages:-1") + &format!(" {i}"));
    let lines = lines.chain([marker("end")]);
    let made = Made { lines, text: Vec::new(), at: 0 };
    let reader = LineReader::from_read("made", made).unwrap();
    let options =
        Options { arch: Some(Arch::X86_64), kernel: Some("6.12".into()), ..Options::default() };
    let mut beside = Beside::default();
    replay_reader(reader, &options, SideFiles::default(), None, &mut beside).unwrap();
    assert_eq!((beside.events, beside.origins), (1, 1));
}

#[test]
fn a_range_that_no_kernel_has_is_not_understood() {
    let args = format!("start=0x0 end={:#x} prot=0x163", (1u64 << 49) + 0x1000);
    let lines = vec![hit(1, "__vmap_pages_range_noflush", &args), hit(1, "vfree", "addr=0x0")];
    let s = summary(Arch::X86_64, SideFiles::default(), Box::new(lines.into_iter()));
    let bad = &s.accounting.not_understood[Reason::BadArguments as usize];
    assert_eq!((bad.lines, bad.first[0].line), (1, 1));
}

#[test]
fn a_cpu_that_no_machine_has_is_not_understood() {
    let lines = [hit(1, "vfree", "addr=0x0"), " 8192)            |  vmap() {".to_owned()];
    let s = summary(Arch::X86_64, SideFiles::default(), Box::new(lines.into_iter()));
    assert_eq!(s.accounting.not_understood_lines(), 1);
}

#[test]
fn more_files_than_cpus_are_refused() {
    let paths = vec![PathBuf::from("/nonexistent"); MAX_FILES + 1];
    let error = Lines::open(&paths).unwrap_err().to_string();
    assert!(error.contains("more files than a machine has CPUs"), "{error}");
}

/// A stream that is packed to a fraction of a thousandth.
fn bomb(line: &str, bytes: usize) -> Vec<u8> {
    let mut packed = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let many = line.repeat((1 << 20) / line.len());
    for _ in 0..bytes >> 20 {
        io::Write::write_all(&mut packed, many.as_bytes()).unwrap();
    }
    packed.finish().unwrap()
}

#[test]
fn files_beside_a_log_that_unpack_to_anything_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let area = "0xffffc90000000000-0xffffc90000005000   20480 fork+0x1/0x2 pages=4 vmalloc\n";
    std::fs::write(dir.path().join("vmallocinfo.pre.zst"), bomb(area, 66 << 20)).unwrap();
    let error = SideFiles::beside(&dir.path().join("trace.txt")).unwrap_err();
    assert!(matches!(error, ReadError::FileTooLong { .. }), "{error}");
    assert!(error.to_string().contains("vmallocinfo.pre.zst: more than 67108864 bytes"), "{error}");
}

#[test]
fn a_log_that_unpacks_to_anything_is_read_a_line_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log.gz");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    // One line without end: refused after a mebibyte, whatever follows.
    for _ in 0..64 {
        io::Write::write_all(&mut packed, &[b'a'; 1 << 20]).unwrap();
    }
    std::fs::write(&path, packed.finish().unwrap()).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 1 << 18);
    match textbed_trace::replay(Path::new(&path), &Options::default(), &mut Nothing) {
        Err(ReplayError::Read(ReadError::LineTooLong { line: 1, .. })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_text_of_a_bound_names_its_number() {
    let mut text = String::new();
    for bound in Bound::ALL {
        writeln!(text, "{}", bound.text(7)).unwrap();
    }
    assert!(text.lines().all(|line| line.starts_with("7 ")), "{text}");
}
