//! Small logs written by hand in the form of recorded ones, and what a replay makes of them.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)] // shared by several tests

use std::io::Cursor;
use std::ops::ControlFlow;
use textbed_arch::Arch;
use textbed_event::{Batch, Event, Header, Kind, NameTable, Sink, View};
use textbed_trace::reader::LineReader;
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;
use textbed_trace::{Options, Replayed};

#[derive(Default)]
pub struct Keep {
    pub header: Option<Header>,
    pub events: Vec<Event>,
    pub names: NameTable,
}

impl Sink for Keep {
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        self.header = Some(header.clone());
        ControlFlow::Continue(())
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.names.absorb(batch);
        self.events.extend_from_slice(&batch.events);
        ControlFlow::Continue(())
    }
}

/// `TASK-PID CPU FLAGS EVENT` lines, one microsecond apart.
pub fn text(lines: &[(&str, u32, &str, &str)]) -> String {
    let entries = lines.len();
    let mut out = String::from("# tracer: nop\n#\n");
    out += &format!("# entries-in-buffer/entries-written: {entries}/{entries}   #P:2\n");
    for (i, (task, cpu, flags, event)) in lines.iter().enumerate() {
        let (name, pid) = task.rsplit_once('-').unwrap();
        out += &format!("{name:>16}-{pid:<7} [{cpu:03}] {flags}    10.{i:06}: {event}\n");
    }
    out
}

pub fn run_as(arch: Arch, kernel: &str, side: SideFiles, text: &str) -> (Replayed, Keep) {
    let reader = LineReader::from_read("log", Cursor::new(text.to_string().into_bytes())).unwrap();
    let options =
        Options { arch: Some(arch), kernel: Some(kernel.to_string()), ..Options::default() };
    let mut keep = Keep::default();
    let done = replay_reader(reader, &options, side, None, &mut keep).unwrap();
    assert!(done.summary.accounting.adds_up());
    (done, keep)
}

pub fn views(keep: &Keep, kind: Kind) -> Vec<View> {
    keep.events.iter().filter(|e| e.kind == kind).map(Event::view).collect()
}

/// `(address, pages, before, after)` of the leaf changes.
pub fn leaves(keep: &Keep) -> Vec<(u64, u32, &'static str, &'static str)> {
    views(keep, Kind::Leaf)
        .into_iter()
        .map(|v| match v {
            View::Leaf { virt, change: c, .. } => {
                (virt.0, c.count, c.old.letters(), c.new.letters())
            }
            _ => unreachable!(),
        })
        .collect()
}

pub const T: &str = "modprobe-873";
pub const ON: &str = ".....";

pub fn vmalloc(prot: &str) -> Vec<(&'static str, u32, &'static str, String)> {
    vec![
        (
            T,
            0,
            ON,
            format!(
                "__vmalloc_node_range_noprof: (__vmalloc_node_range_noprof+0x4/0x850) size=0x1800 \
             align=0x1000 start=0xffffffffc0000000 end=0xffffffffff000000 gfp=0x2cc0 prot={prot} \
             vmflags=0x100 node=-1"
            ),
        ),
        (
            T,
            0,
            ON,
            "alloc_vmap_area: va_start: 18446744072637968384 size=12288 align=4096 \
                    vstart=0xffffffffc0000000 vend=0xffffffffff000000 failed=0"
                .into(),
        ),
        (
            T,
            0,
            ON,
            format!(
                "__vmap_pages_range_noflush: (__vmap_pages_range_noflush+0x4/0xf0) \
             start=0xffffffffc020f000 end=0xffffffffc0211000 prot={prot}"
            ),
        ),
        (
            T,
            0,
            ON,
            "__vmalloc_node_range_noprof__ret: (execmem_alloc+0x58/0xe0 <- \
                    __vmalloc_node_range_noprof) ret=0xffffffffc020f000"
                .into(),
        ),
    ]
}

pub fn with(prot: &str, rest: &[(&str, u32, &str, &str)]) -> String {
    let first = vmalloc(prot);
    let mut all: Vec<(&str, u32, &str, &str)> =
        first.iter().map(|(t, c, f, e)| (*t, *c, *f, e.as_str())).collect();
    all.extend_from_slice(rest);
    text(&all)
}

pub const X86_PROT: &str = "0x8000000000000163";
pub const A: u64 = 0xffff_ffff_c020_f000;

pub fn nokaslr() -> SideFiles {
    SideFiles { cmdline: Some("console=ttyS0 nokaslr".into()), ..SideFiles::default() }
}
