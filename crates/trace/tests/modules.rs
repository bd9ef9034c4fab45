//! `/proc/modules` beside a log: whose memory it was before the first line.

#![allow(clippy::unwrap_used, missing_docs)] // tests

mod common;

use common::{ON, T, run_as, text, views};
use std::path::{Path, PathBuf};
use textbed_arch::Arch;
use textbed_event::{Kind, View};
use textbed_trace::side::SideFiles;

const BASE: u64 = 0xffff_ffff_c020_1000;
/// As a 6.12 kernel printed it: the bytes of four parts.
const MODULES: &str = "virtio_blk 32768 0 - Live 0xffffffffc0201000\n";
/// The list of areas of the same moment, each with its guard page.
const AREAS: &str = "\
0xffffffffc0201000-0xffffffffc0205000   16384 load_module+0x784/0x21b0 pages=3 vmalloc N0=3
0xffffffffc0205000-0xffffffffc0208000   12288 load_module+0x784/0x21b0 pages=2 vmalloc N0=2
0xffffffffc0208000-0xffffffffc020b000   12288 load_module+0x784/0x21b0 pages=2 vmalloc N0=2
0xffffffffc020b000-0xffffffffc020d000    8192 load_module+0x784/0x21b0 pages=1 vmalloc N0=1
";

/// Addresses, lengths and owners of what was there before, and what could not be seen.
fn before(side: SideFiles) -> (Vec<(u64, u64, String)>, Vec<String>) {
    let log = text(&[(T, 0, ON, "vfree: (vfree+0x4/0x90) addr=0x0")]);
    let (done, keep) = run_as(Arch::X86_64, "6.12", side, &log);
    let name = |id| keep.names.get(id);
    let regions = views(&keep, Kind::Region).into_iter().map(|v| match v {
        View::Region { virt, len, owner, name: of } => {
            (virt.0, len, format!("{} {}", name(owner), name(of)))
        }
        _ => unreachable!(),
    });
    (regions.collect(), done.summary.not_seen)
}

fn beside(files: &[(&str, &str)]) -> SideFiles {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    SideFiles::beside(&dir.path().join("trace.txt")).unwrap()
}

/// Page tables of a 6.12 kernel at the moment of [`AREAS`].
fn side_tables() -> Option<PathBuf> {
    let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs");
    Some(logs.join("amd64-6.12/ptpages.pre.bin.zst"))
}

/// A file of many modules at one address costs no more than its lines.
#[test]
fn an_address_is_one_modules() {
    let side = beside(&[("modules", &MODULES.repeat(3))]);
    assert_eq!(side.modules.len(), 1);
}

fn says(not_seen: &[String], what: &str) -> bool {
    not_seen.iter().any(|s| s.contains(what))
}

#[test]
fn the_parts_of_a_module_have_its_name() {
    let part = |at: u64, pages: u64| (BASE + at, pages << 12, "module virtio_blk".to_owned());
    let parts = [part(0, 3), part(0x4000, 2), part(0x7000, 2), part(0xa000, 1)];
    for name in ["modules", "modules.pre"] {
        let side = beside(&[(name, MODULES), ("vmallocinfo.pre", AREAS)]);
        assert_eq!(side.used, [name, "vmallocinfo.pre"]);
        assert_eq!(before(side).0, parts);
    }
    // Without the file they have an owner and no name.
    let (regions, _) = before(beside(&[("vmallocinfo.pre", AREAS)]));
    assert!(regions.iter().all(|(_, _, owner)| owner == "module loaded before the log"));
    assert_eq!(regions.len(), 4);
}

#[test]
fn a_module_is_known_where_vmallocinfo_has_a_return_probe_for_its_caller() {
    let areas = AREAS.replace("load_module+0x784/0x21b0", "kretprobe_trampoline+0x0/0x50");
    let (regions, not_seen) = before(beside(&[("modules", MODULES), ("vmallocinfo.pre", &areas)]));
    assert_eq!(regions, [(BASE, 0x3000, "module virtio_blk".to_owned())]);
    assert!(says(&not_seen, "owners of 3 areas"), "{not_seen:?}");
}

#[test]
fn page_tables_say_where_a_module_ends_that_no_list_of_areas_has() {
    let side = SideFiles { tables: side_tables(), ..beside(&[("modules", MODULES)]) };
    let (regions, not_seen) = before(side);
    // The executable part alone, as the list of areas has it.
    assert_eq!(regions, [(BASE, 0x3000, "module virtio_blk".to_owned())]);
    assert!(!says(&not_seen, "modules from before the log whose"), "{not_seen:?}");
    // What lies right behind it and is not executable is no text: the kernel's own, which the
    // tables have up to `_etext`, stands in for a module here.
    let image =
        MODULES.replace("ffffffffc0201000", "ffffffff81000000").replace("32768", "33554432");
    let side = SideFiles { tables: side_tables(), ..beside(&[("modules", &image)]) };
    let text = (0xffff_ffff_8100_0000, 0x100_0000, "module virtio_blk".to_owned());
    assert_eq!(before(side).0, [text]);
    // With neither of them nothing is guessed, and that is said.
    let (regions, not_seen) = before(beside(&[("modules", MODULES)]));
    assert!(regions.is_empty());
    assert!(says(&not_seen, "page tables beside it show: 1"), "{not_seen:?}");
}

#[test]
fn hidden_addresses_are_said() {
    let hidden = MODULES.replace("ffffffffc0201000", "0000000000000000");
    let (_, not_seen) = before(beside(&[("modules", &hidden)]));
    assert!(says(&not_seen, "without an address, which only root is shown: 1"), "{not_seen:?}");
}
