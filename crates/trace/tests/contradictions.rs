//! Where a log and the modelled kernel contradict each other: each kind on small logs, each with a
//! twin that has none; and none in recorded logs but for pages that change after the last line.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may

mod common;

use common::*;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use textbed_arch::Arch;
use textbed_event::{Batch, Sink};
use textbed_trace::conflicts::Kind;
use textbed_trace::side::SideFiles;
use textbed_trace::{Options, Replayed, replay};

const X86_RO: &str = "set_memory_ro: (set_memory_ro+0x4/0x40) addr=0xffffffffc020f000 numpages=1";

fn returned(value: &str) -> String {
    format!("set_memory_ro__ret: (f+0x1/0x2 <- set_memory_ro) ret={value}")
}

fn x86(rest: &[(&str, u32, &str, &str)]) -> Replayed {
    run_as(Arch::X86_64, "6.12", nokaslr(), &with(X86_PROT, rest)).0
}

/// arm64 with an area of these flags, and a call on so many of its 16 pages.
fn arm64(kernel: &str, flags: &str, pages: u32, value: &str) -> Replayed {
    let bytes = if flags == "0x400" { 0x40_0000 } else { 0x1_0000 };
    let make = format!(
        "__vmalloc_node_range_noprof: (__vmalloc_node_range_noprof+0x0/0x7b0) size={bytes:#x} \
         align=0x1000 start=0xffff800080000000 end=0xfffffdffbf800000 gfp=0xdc0 \
         prot=0xe8000000000703 vmflags={flags} node=-1"
    );
    let ret = "__vmalloc_node_range_noprof__ret: (f+0x1/0x2 <- __vmalloc_node_range_noprof) \
               ret=0xffff800084c00000";
    let ro =
        format!("set_memory_ro: (set_memory_ro+0x0/0x40) addr=0xffff800084c00000 numpages={pages}");
    let log =
        text(&[(T, 0, ON, &make), (T, 0, ON, ret), (T, 0, ON, &ro), (T, 0, ON, &returned(value))]);
    run_as(Arch::Arm64, kernel, SideFiles::default(), &log).0
}

fn only(done: &Replayed, kind: Kind) -> &textbed_trace::conflicts::Conflict {
    let all = &done.summary.conflicts;
    assert_eq!((all.total(), all.count(kind)), (1, 1), "{all:?}");
    all.iter().next().unwrap()
}

fn none(done: &Replayed) {
    assert_eq!(done.summary.conflicts.total(), 0, "{:?}", done.summary.conflicts);
}

#[test]
fn a_call_that_fails_where_the_model_succeeds() {
    let done = x86(&[(T, 0, ON, X86_RO), (T, 0, ON, &returned("0xffffffea"))]);
    let found = only(&done, Kind::Failed);
    // The line of the return, and that of the area (three lines of header come first).
    assert_eq!((found.line, found.other), (Some((0, 9)), Some((0, 5))));
    assert!(found.recorded.contains("returned -22 (EINVAL)"), "{}", found.recorded);
    assert!(found.modelled.contains("6.12 returns 0"), "{}", found.modelled);
    none(&x86(&[(T, 0, ON, X86_RO), (T, 0, ON, &returned("0x0"))]));
    // Memory may run out anywhere.
    none(&x86(&[(T, 0, ON, X86_RO), (T, 0, ON, &returned("0xfffffff4"))]));
}

#[test]
fn a_call_that_succeeds_where_the_model_refuses() {
    // arm64 refuses ranges that reach out of their area, and to 6.14 areas with large pages.
    none(&arm64("6.12", "0x0", 2, "0x0"));
    let done = arm64("6.12", "0x0", 200, "0x0");
    assert!(only(&done, Kind::Succeeded).modelled.contains("EINVAL"));
    none(&arm64("6.12", "0x0", 200, "0xffffffea"));
    only(&arm64("6.12", "0x400", 2, "0x0"), Kind::Succeeded);
    none(&arm64("6.12", "0x400", 2, "0xffffffea"));
    // A kernel that is older than all that are simulated is not judged.
    none(&arm64("4.19", "0x0", 200, "0x0"));
}

#[test]
fn an_area_where_another_one_lives() {
    let again = "alloc_vmap_area: va_start: 18446744072637972480 size=12288 align=4096 \
                 vstart=0xffffffffc0000000 vend=0xffffffffff000000 failed=0";
    let done = x86(&[(T, 0, ON, again)]);
    let found = only(&done, Kind::Overlap);
    assert_eq!((found.line, found.other), (Some((0, 8)), Some((0, 5))));
    let removed = "remove_vm_area: (remove_vm_area+0x4/0x70) addr=0xffffffffc020f000";
    none(&x86(&[(T, 0, ON, removed), (T, 0, ON, again)]));
}

#[test]
fn memory_for_a_module_outside_of_the_modules_region() {
    let of = |address: &str| {
        let exit = format!(
            "execmem_alloc__ret: (load_module+0x784/0x21b0 <- execmem_alloc) ret={address}"
        );
        let log = text(&[
            (T, 0, ON, "execmem_alloc: (execmem_alloc+0x4/0xe0) type=0 size=0x1800"),
            (T, 0, ON, &exit),
            (T, 0, ON, "do_sync_core: (do_sync_core+0x4/0x30)"),
        ]);
        run_as(Arch::X86_64, "6.12", SideFiles::default(), &log).0
    };
    only(&of("0xffffc90000213000"), Kind::OutsideRegion);
    none(&of("0xffffffffc0213000"));
    // A smaller image leaves more room for modules.
    none(&of("0xffffffffa0213000"));
}

#[test]
fn stores_of_a_patch_without_a_synchronisation_between_them() {
    let batch = include_str!("twelve/batch-x86.txt");
    let run = |lines: &str| {
        let header = "# entries-in-buffer/entries-written: 9/9   #P:2\n";
        run_as(Arch::X86_64, "6.12", nokaslr(), &format!("{header}{lines}")).0
    };
    none(&run(batch));
    // The recorded batch: trap, synchronise (four lines), rest, synchronise, first byte.
    let lines: Vec<&str> = batch.lines().collect();
    let stores: Vec<usize> =
        (0..lines.len()).filter(|i| lines[*i].contains("__text_poke:")).collect();
    let [trap, rest, first] = stores[..] else { panic!("{stores:?}") };
    let without = |from: usize, to: usize| -> String {
        let kept = lines.iter().enumerate().filter(|(i, _)| *i <= from || *i >= to);
        kept.map(|(_, l)| format!("{l}\n")).collect()
    };
    // A batch before: until a synchronisation is seen, its probe may not be armed.
    let done = run(&(batch.to_owned() + &without(trap, rest) + batch));
    let found = only(&done, Kind::Protocol);
    let before = lines.len() as u64 + 1;
    assert_eq!(found.line.map(|l| l.1 - before), Some(trap as u64 + 2));
    assert_eq!(found.other.map(|l| l.1 - before), Some(trap as u64 + 1));
    // The last byte over a trap that all CPUs know of, beside a rest that they may not.
    let done = run(&(without(rest, first) + batch));
    assert_eq!(done.summary.conflicts.count(Kind::Protocol), 1);
    // As recorded when probes were disarmed, that of synchronisations first: nothing is missing.
    let stores_alone: String = stores.iter().map(|i| format!("{}\n", lines[*i])).collect();
    none(&run(&(batch.to_owned() + &stores_alone)));
    // Code that never ran is copied without.
    none(&run(include_str!("twelve/bpf-x86.txt")));
}

struct Nothing;

impl Sink for Nothing {
    fn batch(&mut self, _: &Batch) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

fn recorded(dir: &Path) -> Replayed {
    replay(&dir.join("trace.txt.zst"), &Options::default(), &mut Nothing).unwrap()
}

#[test]
fn recorded_logs_contradict_the_model_nowhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs");
    for name in ["amd64-6.12", "arm64-6.12", "ppc64el-6.12"] {
        let done = recorded(&root.join(name));
        let all = &done.summary.conflicts;
        println!("{name}: {:#?}", all.iter().collect::<Vec<_>>());
        assert_eq!(all.total(), 0, "{name}");
        // Areas from before the log that went before removals were recorded are none.
        assert!(name != "amd64-6.12" || done.summary.areas.replaced == 8, "{name}");
    }
}

#[test]
#[ignore = "reads the directory named by TEXTBED_LOGS"]
fn all_logs_contradict_the_model_only_in_pages_at_the_end() {
    let root = PathBuf::from(std::env::var_os("TEXTBED_LOGS").expect("TEXTBED_LOGS"));
    for dir in std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()) {
        if !dir.join("trace.txt.zst").exists() {
            continue;
        }
        let done = recorded(&dir);
        let all = &done.summary.conflicts;
        let counts: Vec<_> = Kind::ALL.map(|k| (k.name(), all.count(k))).to_vec();
        println!("{}: {counts:?}", dir.display());
        for c in all.iter() {
            println!("  {c:?}");
        }
        assert_eq!(all.total(), all.count(Kind::Tables), "{dir:?}");
        assert!(all.count(Kind::Tables) <= 100, "{dir:?}");
    }
}
