//! What small logs mean: areas and permissions.

#![allow(clippy::unwrap_used)] // tests may

mod common;

use common::*;
use std::path::Path;
use textbed_arch::paging::Format;
use textbed_arch::{Arch, Perm};
use textbed_event::{Event, Flags, Kind, Promise, Provenance, View};
use textbed_trace::mappings::Mappings;
use textbed_trace::perms::Bits;
use textbed_trace::side::SideFiles;
use textbed_trace::tables;

#[test]
fn an_area_is_what_was_asked_for_without_its_guard_page() {
    let log = with(
        X86_PROT,
        &[
            (T, 0, ON, "remove_vm_area: (remove_vm_area+0x4/0x70) addr=0xffffffffc0210123"),
            (
                "kworker/0:0-9",
                1,
                ON,
                "__vunmap_range_noflush: (__vunmap_range_noflush+0x4/0x530) \
                                  start=0xffffffffc020f000 end=0xffffffffc0212000",
            ),
        ],
    );
    let (done, keep) = run_as(Arch::X86_64, "6.12", SideFiles::default(), &log);
    assert!(matches!(views(&keep, Kind::AreaMade)[..],
        [View::AreaMade { virt, len: 0x2000, shift: 12 }] if virt.0 == A));
    assert!(matches!(views(&keep, Kind::AreaRemoved)[..],
        [View::AreaRemoved { virt, len: 0x2000 }] if virt.0 == A));
    assert_eq!(leaves(&keep), [(A, 2, "---", "rw-"), (A, 2, "rw-", "---")]);
    let calls = done.summary.calls["__vmalloc_node_range_noprof"];
    assert_eq!((calls.entered, calls.returned, calls.failed), (1, 1, 0));
    // The mapping happened inside the call.
    let leaf = keep.events.iter().find(|e| e.kind == Kind::Leaf).unwrap();
    let entered = keep.events.iter().find(|e| e.kind == Kind::CallEntered).unwrap();
    match entered.view() {
        View::CallEntered { call, name, .. } => {
            assert_eq!(leaf.cause, call);
            assert_eq!(keep.names.get(name), "__vmalloc_node_range_noprof");
        }
        _ => unreachable!(),
    }
    assert!(leaf.flags.has(Flags::PHYS_UNKNOWN));
}

const ROX: [(&str, u32, &str, &str); 6] = [
    (T, 0, ON, "set_memory_rox: (set_memory_rox+0x4/0x50) addr=0xffffffffc020f000 numpages=2"),
    (
        T,
        0,
        ON,
        "change_page_attr_set_clr: (change_page_attr_set_clr+0x0/0x1a0) \
                addr=0xffffffffc020f000 numpages=2 set=0x0 clr=0x8000000000000042 force_split=0",
    ),
    (
        T,
        0,
        ON,
        "__change_page_attr_set_clr: (__change_page_attr_set_clr+0x0/0x1010) \
                cpa=0xffffc9000128fad8 primary=1 vaddr=0xffffffffc020f000 numpages=66",
    ),
    (
        T,
        0,
        ON,
        "__change_page_attr_set_clr: (__change_page_attr_set_clr+0x0/0x1010) \
                cpa=0xffffc9000128fa40 primary=0 vaddr=0xffff888008600000 numpages=66",
    ),
    (
        T,
        0,
        ON,
        "change_page_attr_set_clr__ret: (set_memory_rox+0x40/0x50 <- \
                change_page_attr_set_clr) ret=0x0",
    ),
    (T, 0, ON, "set_memory_rox__ret: (module_enable_text_rox+0x3a/0x50 <- set_memory_rox) ret=0x0"),
];

#[test]
fn x86_aliases_tell_the_frames_in_order_and_keep_nx() {
    let (_, keep) = run_as(Arch::X86_64, "6.12", nokaslr(), &with(X86_PROT, &ROX));
    // Page, its alias, then the page for which no alias was shown.
    assert_eq!(
        leaves(&keep),
        [
            (A, 2, "---", "rw-"),
            (A, 1, "rw-", "r-x"),
            (0xffff_8880_0860_0000, 1, "rw-", "r--"),
            (A + 0x1000, 1, "rw-", "r-x"),
        ]
    );
    let events: Vec<&Event> = keep.events.iter().filter(|e| e.kind == Kind::Leaf).collect();
    match events[1].view() {
        View::Leaf { phys, .. } => assert_eq!(phys.0, 0x860_0000),
        _ => unreachable!(),
    }
    assert!(!events[1].flags.has(Flags::PHYS_UNKNOWN));
    assert!(events[3].flags.has(Flags::PHYS_UNKNOWN));
    assert_eq!(events[1].flags.provenance(), Provenance::Recorded);
    // The alias's permission before is taken to be PAGE_KERNEL: no page tables were given.
    assert_eq!(events[2].flags.provenance(), Provenance::Modelled);
    assert!(matches!(views(&keep, Kind::Promised)[..],
        [View::Promised { what: Promise::ReadOnlyExec, virt, len: 0x2000, .. }] if virt.0 == A));
}

/// The tables taken before the log have a page in an area that was freed before the probes were
/// armed; its frame turns up in a new area.
#[test]
fn what_went_before_the_probes_were_armed_gives_its_frame_up() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/logs/amd64-6.12");
    let mut side = SideFiles::beside(&Path::new(dir).join("trace.txt.zst")).unwrap();
    side.entry_probes.clear();
    let (stack, _, _) = *side.areas.iter().find(|a| a.2.ends_with("pages=4 vmalloc N0=4")).unwrap();
    let format = Format::for_kernel(Arch::X86_64, 12).unwrap();
    let mut before = Mappings::new(Bits::new(format));
    tables::read(side.tables.as_ref().unwrap(), Arch::X86_64, &mut before).unwrap();
    let alias = 0xffff_8880_0000_0000 + before.phys(stack, 1).unwrap();
    let walk = format!(
        "__change_page_attr_set_clr: (__change_page_attr_set_clr+0x0/0x1010) \
         cpa=0xffffc9000128fa40 primary=0 vaddr={alias:#x} numpages=66"
    );
    let mut lines = ROX.to_vec();
    lines[3].3 = &walk;
    let log = with(X86_PROT, &lines);
    let (done, _) = run_as(Arch::X86_64, "6.12", side.clone(), &log);
    assert_eq!(done.summary.counts.gone_unseen, 1);
    assert!(before.at(stack).is_some() && done.mappings.at(stack).is_none());
    assert_eq!(done.mappings.phys(A, 1), before.phys(stack, 1));
    // An area of somebody else's pages may share a frame.
    side.areas.iter_mut().filter(|a| a.0 == stack).for_each(|a| a.2 = "somebody vmap".into());
    let (done, _) = run_as(Arch::X86_64, "6.12", side, &log);
    assert_eq!(done.summary.counts.gone_unseen, 0);
    assert!(done.mappings.at(stack).is_some());
}

#[test]
fn under_kaslr_no_frame_is_guessed() {
    let (done, keep) = run_as(Arch::X86_64, "6.12", SideFiles::default(), &with(X86_PROT, &ROX));
    assert!(
        keep.events
            .iter()
            .filter(|e| e.kind == Kind::Leaf)
            .all(|e| e.flags.has(Flags::PHYS_UNKNOWN))
    );
    assert!(done.summary.not_seen.iter().any(|s| s.contains("direct map")));
}

#[test]
fn a_failed_change_refuses_and_promises_nothing() {
    let mut lines = ROX.to_vec();
    lines[4].3 = "change_page_attr_set_clr__ret: (set_memory_rox+0x40/0x50 <- \
                  change_page_attr_set_clr) ret=0xfffffff4";
    lines[5].3 = "set_memory_rox__ret: (f+0x3a/0x50 <- set_memory_rox) ret=0xfffffff4";
    let (done, keep) = run_as(Arch::X86_64, "6.12", nokaslr(), &with(X86_PROT, &lines));
    assert!(views(&keep, Kind::Promised).is_empty());
    assert!(matches!(
        views(&keep, Kind::Refused)[..],
        [View::Refused { what: Promise::ReadOnlyExec, len: 0x2000, .. }]
    ));
    assert!(
        views(&keep, Kind::CallReturned)
            .iter()
            .any(|v| matches!(v, View::CallReturned { value: -12, failed: true, .. }))
    );
    assert_eq!(done.summary.counts.changes_failed, 1);
    // The second page was not shown to be changed.
    assert!(!leaves(&keep).contains(&(A + 0x1000, 1, "rw-", "r-x")));
}

#[test]
fn with_set_memory_alone_the_table_decides() {
    let lines = [ROX[0], ROX[5]];
    let (_, keep) = run_as(Arch::X86_64, "6.12", nokaslr(), &with(X86_PROT, &lines));
    assert_eq!(leaves(&keep)[1..], [(A, 2, "rw-", "r-x")]);
    let changed = keep.events.iter().filter(|e| e.kind == Kind::Leaf).nth(1).unwrap();
    assert_eq!(changed.flags.provenance(), Provenance::Inferred);
    let flush = keep.events.iter().find(|e| e.kind == Kind::TlbInvalidate).unwrap();
    assert_eq!(flush.flags.provenance(), Provenance::Modelled);
    assert!(!keep.header.unwrap().records.contains(Kind::TlbInvalidate));
}

#[test]
fn writable_and_executable_shows() {
    let lines = [
        (T, 0, ON, "set_memory_x: (set_memory_x+0x4/0x50) addr=0xffffffffc020f000 numpages=1"),
        (T, 0, ON, "set_memory_x__ret: (f+0x3a/0x50 <- set_memory_x) ret=0x0"),
    ];
    let (done, keep) = run_as(Arch::X86_64, "6.12", nokaslr(), &with(X86_PROT, &lines));
    assert_eq!(leaves(&keep)[1..], [(A, 1, "rw-", "rwx")]);
    let at = done.mappings.at(A).unwrap();
    assert!(at.perm.contains(Perm::WRITE | Perm::EXEC));
}

#[test]
fn arm64_aliases_come_first_and_flushes_are_modelled() {
    let log = text(&[
        (
            T,
            0,
            "d....",
            "__vmalloc_node_range_noprof: (__vmalloc_node_range_noprof+0x0/0x7b0) \
            size=0x2000 align=0x1000 start=0x1 end=0x2 gfp=0x1 prot=0xe8000000000703 \
            vmflags=0x100 node=-1",
        ),
        (
            T,
            0,
            "d....",
            "__vmap_pages_range_noflush: (__vmap_pages_range_noflush+0x0/0x140) \
            start=0xffff80007ab40000 end=0xffff80007ab42000 prot=0xe8000000000703",
        ),
        (
            T,
            0,
            "d....",
            "__vmalloc_node_range_noprof__ret: (execmem_alloc+0x1/0x2 <- \
            __vmalloc_node_range_noprof) ret=0xffff80007ab40000",
        ),
        (
            T,
            0,
            "d....",
            "change_memory_common: (change_memory_common+0x0/0x130) \
            addr=0xffff80007ab41000 numpages=1 set=0x80 clr=0x8000000000000",
        ),
        (
            T,
            0,
            "d....",
            "__change_memory_common: (__change_memory_common+0x0/0xf8) \
            start=0xffff000006576000 size=0x1000 set=0x80 clr=0x8000000000000",
        ),
        (
            T,
            0,
            "d....",
            "__change_memory_common: (__change_memory_common+0x0/0xf8) \
            start=0xffff000006999000 size=0x1000 set=0x80 clr=0x8000000000000",
        ),
        (
            T,
            0,
            "d....",
            "__change_memory_common: (__change_memory_common+0x0/0xf8) \
            start=0xffff80007ab41000 size=0x1000 set=0x80 clr=0x8000000000000",
        ),
    ]);
    let side = SideFiles { first_ram: Some(0x4000_0000), ..nokaslr() };
    let (done, keep) = run_as(Arch::Arm64, "6.12", side, &log);
    assert_eq!(
        leaves(&keep),
        [
            (0xffff_8000_7ab4_0000, 2, "---", "rw-"),
            (0xffff_0000_0657_6000, 1, "rw-", "r--"),
            (0xffff_0000_0699_9000, 1, "rw-", "r--"),
            (0xffff_8000_7ab4_1000, 1, "rw-", "r--"),
        ]
    );
    // Two aliases for an area of two pages: the second page's is the second.
    assert_eq!(done.mappings.phys(0xffff_8000_7ab4_1000, 1), Some(0x4699_9000));
    assert_eq!(done.mappings.phys(0xffff_8000_7ab4_0000, 1), Some(0x4657_6000));
    let flushes: Vec<&Event> =
        keep.events.iter().filter(|e| e.kind == Kind::TlbInvalidate).collect();
    assert_eq!(flushes.len(), 3);
    assert!(flushes.iter().all(|e| e.flags.provenance() == Provenance::Modelled));
    // The breakpoint of a kprobe masks interrupts: that says nothing.
    assert!(keep.events.iter().all(|e| !e.flags.has(Flags::IRQS_OFF)));
}

#[test]
fn powerpc_changes_page_by_page_and_has_no_alias() {
    let log = text(&[
        (
            T,
            0,
            ON,
            "__vmap_pages_range_noflush: (__vmap_pages_range_noflush+0xc/0x170) \
            start=0xc0080000003af000 end=0xc0080000003b1000 prot=0x800000000000018e",
        ),
        (
            T,
            0,
            ON,
            "change_memory_attr: (change_memory_attr+0xc/0x150) addr=0xc0080000003af000 \
            numpages=2 action=0x6",
        ),
        (
            T,
            0,
            ON,
            "change_page_attr: (change_page_attr+0xc/0x420) ptep=0xc000000004cdcd78 \
            addr=0xc0080000003af000 data=0x6",
        ),
        (
            T,
            0,
            ON,
            "radix__flush_tlb_kernel_range: (radix__flush_tlb_kernel_range+0xc/0x490) \
            start=0xc0080000003af000 end=0xc0080000003b0000",
        ),
        (
            T,
            0,
            ON,
            "change_page_attr: (change_page_attr+0xc/0x420) ptep=0xc000000004cdcd80 \
            addr=0xc0080000003b0000 data=0x63",
        ),
    ]);
    let (done, keep) = run_as(Arch::Ppc64le, "6.12", SideFiles::default(), &log);
    assert_eq!(
        leaves(&keep),
        [(0xc008_0000_003a_f000, 2, "---", "rw-"), (0xc008_0000_003a_f000, 1, "rw-", "r-x"),]
    );
    assert_eq!(views(&keep, Kind::TlbInvalidate).len(), 1);
    // An action that no kernel has.
    assert_eq!(done.summary.accounting.not_understood_lines(), 1);
}
