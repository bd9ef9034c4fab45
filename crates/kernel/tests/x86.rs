//! Traces on x86-64, worked out by hand from the descriptions of Linux 5.19, 6.1 and 6.12.

mod common;

use common::{Bed, boot, boot_with, expect, values};
use textbed_arch::{Arch, CpuId, Features, SpaceId, VirtAddr};
use textbed_event::View;
use textbed_kernel::{Arg, CallError};

const X86: Arch = Arch::X86_64;

/// A full flush of everything on two CPUs, as `flush_tlb_all` does it.
const FLUSH: &str = "
        0 ipi do_flush_tlb_all to 0b10
        1-taken
        1-invpcid: tlb All local
        1-sync Serialising invpcid
        1-done
        1-sync ExceptionReturn
        0 waited
        0 invpcid: tlb All local
        0 sync Serialising invpcid
";

#[test]
fn set_memory_ro_of_small_pages_takes_the_direct_map_along_and_flushes_everything() {
    let mut bed = boot("6.12", X86, &[]);
    let a = bed.area("a", "vmalloc", 3 << 12);
    bed.trace();
    assert_eq!(bed.call("set_memory_ro", &[a, 3]), 0);
    // One page after the other, the direct map's behind it. There a 2 MiB leaf is split first: its
    // own global flush.
    let page = |at: u64| {
        format!(
            "
        0 lock cpa_lock
        0 leaf a+{at:#x} 1x4K rw->r--
        0 unlock cpa_lock
        0 lock cpa_lock
        0 leaf dm(a)+{at:#x} 1x4K rw->r--
        0 unlock cpa_lock"
        )
    };
    let golden = format!(
        "
        0 call set_memory_ro
        0 lock vmap_purge_lock
        0 unlock vmap_purge_lock
        0 lock cpa_lock
        0 leaf a+0x0 1x4K rw->r--
        0 unlock cpa_lock
        0 lock cpa_lock
        0 unlock cpa_lock
        0 lock cpa_lock
        0 leaf dm+0x0 512x2M>4K rw->rw-
        {FLUSH}
        0 leaf dm(a)+0x0 1x4K rw->r--
        0 unlock cpa_lock
        {}
        {}
        {FLUSH}
        0 promised NoWrite a+0x0 0x3000
        0 return 0
        ",
        page(0x1000),
        page(0x2000)
    );
    expect(&bed.trace(), &golden);
}

/// The direct map's pages change one by one with those of an area: a large leaf of it never changes
/// whole for small pages, however they lie.
#[test]
fn pages_of_an_area_split_the_large_leaf_that_they_fill() {
    for version in ["5.18", "6.1", "6.6", "6.12", "6.18", "7.0"] {
        let mut bed = boot(version, X86, &[]);
        let large = bed.area("a", "vmalloc_huge", 2 << 20);
        let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").map_or(0, |m| m.1);
        let leaf = |bed: &common::Bed, at| {
            let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at));
            leaf.map(|leaf| (leaf.shift, leaf.perm.letters()))
        };
        assert_eq!((leaf(&bed, large), leaf(&bed, dm)), (Some((21, "rw-")), Some((21, "rw-"))));
        // Small pages over the frames of the large one, which fill a table.
        let mut last = 0;
        while last < large {
            last = bed.call("vmalloc", &[4096]) as u64;
        }
        bed.call("vmalloc", &[(2 << 20) - ((last + 0x2000) & 0x1f_ffff) - 4096]);
        let small = bed.call("vmap", &[large, 512]) as u64;
        assert_eq!(small & 0x1f_ffff, 0, "{version}");
        assert_eq!(leaf(&bed, small), Some((12, "rw-")), "{version}");
        assert_eq!(bed.call("set_memory_ro", &[small, 512]), 0);
        assert_eq!((leaf(&bed, small), leaf(&bed, dm)), (Some((12, "r--")), Some((12, "r--"))));
        assert_eq!(leaf(&bed, large), Some((21, "rw-")), "{version}");
    }
}

#[test]
fn nx_alone_flushes_by_page_before_6_2_and_everything_later() {
    let mut bed = boot("5.18", X86, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.trace();
    assert_eq!(bed.call("set_memory_x", &[a, 1]), 0);
    expect(
        &bed.trace(),
        "
        0 call set_memory_x
        0 lock vmap_purge_lock
        0 unlock vmap_purge_lock
        0 lock cpa_lock
        0 leaf a+0x0 1x4K rw->rwx
        0 unlock cpa_lock
        0 ipi do_kernel_range_flush to 0b10
        1-taken
        1-invlpg: tlb Address local a+0x0
        1-sync Serialising invlpg
        1-done
        1-sync ExceptionReturn
        0 waited
        0 invlpg: tlb Address local a+0x0
        0 sync Serialising invlpg
        0 promised Exec a+0x0 0x1000
        0 return 0
        ",
    );
    let mut bed = boot("6.12", X86, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.trace();
    assert_eq!(bed.call("set_memory_x", &[a, 1]), 0);
    let golden = format!(
        "
        0 call set_memory_x
        0 lock vmap_purge_lock
        0 unlock vmap_purge_lock
        0 lock cpa_lock
        0 WARN WriteExec
        0 leaf a+0x0 1x4K rw->rwx
        0 unlock cpa_lock
        {FLUSH}
        0 promised Exec a+0x0 0x1000
        0 return 0
        "
    );
    expect(&bed.trace(), &golden);
}

#[test]
fn a_part_of_a_huge_area_is_split_and_a_whole_leaf_is_not() {
    let mut bed = boot("6.12", X86, &[]);
    let a = bed.area("a", "vmalloc_huge", 2 << 20);
    bed.trace();
    assert_eq!(bed.call("set_memory_rox", &[a, 512]), 0);
    let golden = format!(
        "
        0 call set_memory_rox
        0 lock vmap_purge_lock
        0 unlock vmap_purge_lock
        0 lock cpa_lock
        0 leaf a+0x0 1x2M rw->r-x
        0 unlock cpa_lock
        0 lock cpa_lock
        0 leaf dm(a)+0x0 1x2M rw->r--
        0 unlock cpa_lock
        {FLUSH}
        0 promised ReadOnlyExec a+0x0 0x200000
        0 return 0
        "
    );
    expect(&bed.trace(), &golden);
    assert_eq!(bed.call("set_memory_nx", &[a + 0x1000, 1]), 0);
    // NX is masked out of the alias, but looking at it makes the flush a full one.
    let golden = format!(
        "
        0 call set_memory_nx
        0 lock vmap_purge_lock
        0 unlock vmap_purge_lock
        0 lock cpa_lock
        0 unlock cpa_lock
        0 lock cpa_lock
        0 leaf a+0x0 512x2M>4K r-x>r-x
        {FLUSH}
        0 leaf a+0x1000 1x4K r-x>r--
        0 unlock cpa_lock
        {FLUSH}
        0 promised NoExec a+0x1000 0x1000
        0 return 0
        "
    );
    expect(&bed.trace(), &golden);
}

#[test]
fn a_gigabyte_leaf_of_the_direct_map_takes_two_splits_to_reach_a_page() {
    let mut bed = boot("6.12", X86, &[("memory_mib", "3072")]);
    let dm = bed.kernel.layout().direct_map.start.0;
    bed.mark("g", dm + (2 << 30), 1 << 30);
    assert_eq!(bed.call("set_memory_ro", &[dm + (2 << 30) + 0x5000, 1]), 0);
    let golden = format!(
        "
        0 call set_memory_ro
        0 lock vmap_purge_lock
        0 unlock vmap_purge_lock
        0 lock cpa_lock
        0 unlock cpa_lock
        0 lock cpa_lock
        0 leaf g+0x0 512x1G>2M rw->rw-
        {FLUSH}
        0 unlock cpa_lock
        0 lock cpa_lock
        0 leaf g+0x0 512x2M>4K rw->rw-
        {FLUSH}
        0 leaf g+0x5000 1x4K rw->r--
        0 unlock cpa_lock
        0 ipi do_kernel_range_flush to 0b10
        1-taken
        1-invlpg: tlb Address local g+0x5000
        1-sync Serialising invlpg
        1-done
        1-sync ExceptionReturn
        0 waited
        0 invlpg: tlb Address local g+0x5000
        0 sync Serialising invlpg
        0 promised NoWrite g+0x5000 0x1000
        0 return 0
        "
    );
    expect(&bed.trace(), &golden);
}

#[test]
fn past_the_end_warns_and_keeps_what_was_changed() {
    let mut bed = boot("6.12", X86, &[]);
    let a = bed.area("a", "vmalloc", 2 << 12);
    assert_eq!(bed.call("set_memory_ro", &[a, 3]), -14);
    let trace = bed.trace();
    assert!(trace.contains(&"0 WARN NotMapped".to_owned()), "{trace:#?}");
    let refused = trace.iter().find(|l| l.contains("refused")).unwrap();
    assert!(refused.contains("NoWrite NotMapped") && refused.contains("0x1000"), "{refused}");
    let first = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap();
    assert_eq!(first.perm.letters(), "r--");
    // On the first page: nothing changed, so nothing is flushed, though it is an error.
    assert_eq!(bed.call("set_memory_ro", &[a + 0x2000, 1]), -14);
    assert!(!bed.trace().iter().any(|l| l.contains("ipi")));
}

#[test]
fn a_split_without_memory_fails_and_says_so() {
    let mut bed = boot("6.12", X86, &[]);
    let a = bed.area("a", "vmalloc_huge", 2 << 20);
    bed.kernel.fail("set_memory_ro", 1, 12).unwrap();
    assert_eq!(bed.call("set_memory_ro", &[a, 1]), -12);
    assert!(bed.trace().iter().any(|l| l.contains("refused NoWrite NoMemory")));
    assert!(bed.kernel.unused_failures().is_empty());
    assert_eq!(bed.call("set_memory_ro", &[a, 1]), 0);
}

/// T3: page offset 4000, 6000 bytes: chunks of 4192 and 1808 bytes. The flush of the alias is that
/// of the next switch to the poking space, as recorded kernels show.
#[test]
fn text_poke_copy_goes_by_two_pages_at_most() {
    for version in ["5.18", "6.12"] {
        let mut bed = boot(version, X86, &[]);
        let a = bed.area("a", "vmalloc", 4 << 12);
        bed.trace();
        bed.call_code("text_poke_copy", &[a + 4000], &[0x90; 6000]);
        expect(
            &bed.trace(),
            "
        0 call text_poke_copy
        0 needs MaySleep
        0 lock text_mutex
        0-window PatchPrivate 0x1000
        0-window PatchPrivate 0x1000
        0-leaf alias+0x0 1x4K --->rw-
        0-leaf 0x555555555000 1x4K --->rw-
        0-space 1
        0-sync SpaceSwitch
        0-store alias+0xfa0 96
        0-store 0x555555555000 4096
        0-leaf alias+0x0 2x4K rw->---
        0-space 0 noflush
        0-sync SpaceSwitch
        0-window closed
        0-window closed
        0-load a+0xfa0 96
        0-compared a+0xfa0 96 equal
        0-load a+0x1000 4096
        0-compared a+0x1000 4096 equal
        0-window PatchPrivate 0x1000
        0-leaf alias+0x0 1x4K --->rw-
        0-space 1
        0-sync SpaceSwitch
        0-store alias+0x0 1808
        0-leaf alias+0x0 1x4K rw->---
        0-space 0 noflush
        0-sync SpaceSwitch
        0-window closed
        0-load a+0x2000 1808
        0-compared a+0x2000 1808 equal
        0 unlock text_mutex
        0 return a+0xfa0
            ",
        );
    }
}

#[test]
fn text_poke_refuses_core_text_and_dies_on_what_is_not_mapped() {
    let mut bed = boot("6.12", X86, &[]);
    let text = bed.kernel.layout().text.start.0;
    assert_eq!(bed.call_code("text_poke_copy", &[text], &[0x90]), 0);
    assert!(bed.trace().contains(&"0 WARN BadArgument".to_owned()));
    let vm = bed.kernel.layout().vmalloc.start.0 + (1 << 30);
    let args = [Arg::Value(vm), Arg::Code(vec![0xcc])];
    let died = bed.try_call("text_poke_copy", &args).unwrap_err();
    assert!(matches!(died, CallError::Died { .. }), "{died}");
}

#[test]
fn text_poke_sync_serialises_every_cpu_and_text_poke_none() {
    let mut bed = boot_with("6.12", X86, &[], Features::default_for(X86), 3);
    bed.call("text_poke_sync", &[]);
    let synced: Vec<CpuId> = bed
        .events()
        .iter()
        .filter(|e| matches!(e.view(), View::ContextSync { .. }) && e.op.0 != 0)
        .map(|e| e.cpu)
        .collect();
    assert_eq!(synced, [CpuId(1), CpuId(2), CpuId(0)]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.trace();
    bed.call_code("text_poke", &[a], &[0xcc]);
    assert!(bed.events().iter().all(|e| e.cpu == CpuId(0)));
}

/// T9.
#[test]
fn vfree_with_reset_takes_the_direct_map_away_flushes_once_and_gives_it_back() {
    let mut bed = boot("6.12", X86, &[("debug_pagealloc", "n")]);
    let a = bed.area("a", "vmalloc", 2 << 12);
    bed.call("set_memory_ro", &[a, 2]);
    bed.call("set_vm_flush_reset_perms", &[a]);
    bed.trace();
    bed.call("vfree", &[a]);
    let golden = format!(
        "
        0 call vfree
        0 leaf a+0x0 2x4K r-->---
        0 area gone a+0x0 0x2000
        0 lock cpa_lock
        0 leaf dm(a)+0x0 1x4K r-->---
        0 unlock cpa_lock
        0 lock cpa_lock
        0 leaf dm(a)+0x1000 1x4K r-->---
        0 unlock cpa_lock
        0 lock vmap_purge_lock
        {FLUSH}
        0 unlock vmap_purge_lock
        0 lock cpa_lock
        0 leaf dm(a)+0x0 1x4K --->rw-
        0 unlock cpa_lock
        0 lock cpa_lock
        0 leaf dm(a)+0x1000 1x4K --->rw-
        0 unlock cpa_lock
        0 frames -2
        0 promised NoAccess {:#x} 0x2000
        0 return 0
        ",
        frame_of(&bed, a)
    );
    expect(&bed.trace(), &golden);
}

/// Physical address behind the mark "dm(a)".
#[allow(clippy::unwrap_used)]
fn frame_of(bed: &common::Bed, _a: u64) -> u64 {
    let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
    dm - bed.kernel.layout().direct_map.start.0
}

/// T10.
#[test]
fn plain_vfree_frees_before_any_flush_and_leaves_the_direct_map_read_only() {
    let mut bed = boot("5.18", X86, &[]);
    let a = bed.area("a", "vmalloc", 2 << 12);
    bed.call("set_memory_ro", &[a, 2]);
    bed.trace();
    bed.call("vfree", &[a]);
    expect(
        &bed.trace(),
        "
        0 call vfree
        0 leaf a+0x0 2x4K r-->---
        0 area gone a+0x0 0x2000
        0 frames -2
        0 return 0
        ",
    );
    let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
    let alias = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(dm)).unwrap();
    assert_eq!(alias.perm.letters(), "r--");
    bed.call("vm_unmap_aliases", &[]);
    assert!(bed.trace().iter().any(|l| l.contains("invlpg")));
}

#[test]
fn huge_by_default_until_rc3_and_by_request_from_rc4_on() {
    let shift = |version: &str, call: &str, options: &[(&str, &str)]| {
        let mut bed = boot(version, X86, options);
        let a = bed.call(call, &[2 << 20]) as u64;
        bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap().shift
    };
    assert_eq!(shift("5.18-rc3", "vmalloc", &[]), 21);
    assert_eq!(shift("5.18-rc3", "vmalloc_huge", &[]), 21);
    assert_eq!(shift("5.18-rc3", "vmalloc_no_huge", &[]), 12);
    assert_eq!(shift("5.18-rc3", "module_alloc", &[]), 21);
    assert_eq!(shift("5.18", "vmalloc", &[]), 12);
    assert_eq!(shift("5.18", "vmalloc_huge", &[]), 21);
    assert_eq!(shift("5.18", "module_alloc", &[]), 12);
    assert_eq!(shift("5.18", "module_alloc_huge", &[]), 21);
    assert_eq!(shift("6.12", "vmalloc_huge", &[]), 21);
    assert_eq!(shift("6.12", "vmalloc_huge", &[("nr_nodes", "2")]), 12);
    assert_eq!(shift("6.12", "vmalloc_huge", &[("nohugevmalloc", "y")]), 12);
}

/// Injected ENOMEM: a huge allocation falls back to small pages, a small one gives NULL.
#[test]
fn an_allocation_that_fails_is_tried_again_by_small_pages() {
    let mut bed = boot("6.12", X86, &[]);
    bed.kernel.fail("vmalloc_huge", 1, 12).unwrap();
    bed.kernel.fail("vmalloc", 2, 12).unwrap();
    bed.kernel.fail("set_memory_nx", 1, 12).unwrap();
    let a = bed.call("vmalloc_huge", &[2 << 20]) as u64;
    assert_eq!(bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap().shift, 12);
    assert_ne!(bed.call("vmalloc", &[4096]), 0);
    assert_eq!(bed.call("vmalloc", &[4096]), 0);
    assert_eq!(bed.call("set_memory_nx", &[a, 1]), 0);
    let unused = bed.kernel.unused_failures();
    assert_eq!(unused.len(), 1);
    assert!(unused[0].contains("set_memory_nx #1 with ENOMEM"), "{unused:?}");
}

#[test]
fn interrupts_off_are_a_bug_for_page_attributes() {
    let mut bed = boot("6.12", X86, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.kernel.machine_mut().set_irqs(CpuId(0), false);
    let died = bed.try_call("set_memory_x", &values(&[a, 1])).unwrap_err();
    assert!(matches!(died, CallError::Died { .. }), "{died}");
}

/// The step for the direct map has nothing to do, but has asked for a full flush by then (6.2 on).
#[test]
fn one_page_made_not_executable_flushes_everything_since_6_2() {
    for (version, full) in [("6.1", false), ("6.6", true), ("7.0", true)] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        bed.call("set_memory_x", &[a, 1]);
        bed.trace();
        assert_eq!(bed.call("set_memory_nx", &[a, 1]), 0);
        let trace = bed.trace();
        let scopes = |scope: &str| trace.iter().filter(|l| l.contains(scope)).count();
        let (pages, all) = (scopes("tlb Address"), scopes("tlb All"));
        assert_eq!((pages > 0, all > 0), (!full, full), "{version}: {trace:#?}");
    }
}

/// cpa_flush_all() interrupts whatever flush_tlb_all() can do without.
#[test]
fn an_error_flushes_by_interrupts_with_invlpgb_too() {
    let features = Features::default_for(X86) | Features::X86_INVLPGB;
    let mut bed = boot_with("6.18", X86, &[], features, 2);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.trace();
    assert_eq!(bed.call("set_memory_ro", &[a, 2]), -14);
    let trace = bed.trace();
    let ipis: Vec<&String> = trace.iter().filter(|l| l.starts_with("0 ipi")).collect();
    assert_eq!(ipis, ["0 ipi __cpa_flush_all to 0b10"], "{trace:#?}");
    assert_eq!(bed.call("set_memory_nx", &[a, 1]), 0);
    assert!(!bed.trace().iter().any(|l| l.starts_with("0 ipi")));
}

/// Linux 6.13.2, 7.0 set_direct_map_valid_noflush(): __set_pages_np() of all pages in one walk, so
/// a leaf that they fill is changed in place; one page less splits it.
#[test]
fn a_range_of_the_direct_map_that_fills_a_leaf_is_not_split() {
    for version in ["6.18", "7.0"] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let leaf = |bed: &Bed, at| bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at));
        let dm = bed.kernel.layout().direct_map.start.0 + (64 << 20);
        assert_eq!(leaf(&bed, dm).map(|l| l.shift), Some(21), "{version}");
        assert_eq!(bed.call("set_direct_map_valid_noflush", &[dm, 512, 0]), 0, "{version}");
        assert!(leaf(&bed, dm).is_none() && leaf(&bed, dm + (2 << 20)).is_some(), "{version}");
        assert_eq!(bed.call("set_direct_map_valid_noflush", &[dm, 512, 1]), 0, "{version}");
        let back = leaf(&bed, dm).unwrap();
        assert_eq!((back.shift, back.perm.letters().to_string()), (21, "rw-".to_owned()));
        assert_eq!(bed.call("set_direct_map_valid_noflush", &[dm, 511, 0]), 0, "{version}");
        assert_eq!(leaf(&bed, dm + (511 << 12)).map(|l| l.shift), Some(12), "{version}");
        assert!(leaf(&bed, dm + (510 << 12)).is_none(), "{version}");
        assert_eq!(bed.call("set_direct_map_valid_noflush", &[dm, 0, 0]), 0, "{version}");
    }
}
