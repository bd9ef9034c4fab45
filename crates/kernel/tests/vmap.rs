//! Pages mapped twice, pages that are not present, and when freed areas are flushed by themselves.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, values};
use textbed_arch::{Arch, CpuId, SpaceId, VirtAddr};
use textbed_kernel::Arg;

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

fn letters(bed: &Bed, at: u64) -> &'static str {
    let found = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at));
    found.map_or("---", |m| m.perm.letters())
}

#[test]
fn a_second_mapping_has_the_same_frames_and_arm64_refuses_to_change_it() {
    for (arch, changed) in ARCHS.into_iter().zip([0, -22, 0]) {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.area("a", "vmalloc", 2 << 12);
        let b = bed.call("vmap", &[a, 2]) as u64;
        bed.call("memset", &[a + 0x1000, 0x5a, 4]);
        let mut seen = [0; 4];
        let cpu = CpuId(0);
        bed.kernel.machine_mut().load(cpu, VirtAddr(b + 0x1000), &mut seen).unwrap();
        assert_eq!(seen, [0x5a; 4], "{arch}");
        assert_eq!(bed.call("set_memory_ro", &[b, 1]), changed, "{arch}");
        bed.trace();
        bed.call("vunmap", &[b]);
        assert_eq!((letters(&bed, b), letters(&bed, a)), ("---", "rw-"), "{arch}");
        assert!(!bed.trace().iter().any(|l| l.contains("frames -")), "{arch}: not its own");
        assert_eq!(bed.call("vmap", &[a, 0]), 0);
    }
}

#[test]
fn pages_go_away_and_come_back() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.area("a", "vmalloc", 2 << 12);
        let (away, back) = if arch == Arch::Arm64 {
            (bed.call("set_memory_valid", &[a, 1, 0]), "set_memory_valid")
        } else {
            (bed.call("set_memory_np", &[a, 1]), "set_memory_p")
        };
        assert_eq!(away, 0, "{arch}");
        assert!(!letters(&bed, a).contains('r'), "{arch} {}", letters(&bed, a));
        let args: &[u64] = if arch == Arch::Arm64 { &[a, 1, 1] } else { &[a, 1] };
        assert_eq!(bed.call(back, args), 0, "{arch}");
        assert_eq!(letters(&bed, a), "rw-", "{arch}");
    }
}

#[test]
fn many_freed_pages_are_flushed_by_themselves() {
    // Two CPUs: twice 32 MiB may wait.
    let mut bed = boot("6.12", Arch::X86_64, &[]);
    let purges = |bed: &mut Bed, mib: u64| {
        let a = bed.call("vmalloc", &[mib << 20]) as u64;
        bed.trace();
        bed.call("vfree", &[a]);
        bed.trace().iter().any(|l| l.contains("lock vmap_purge_lock"))
    };
    assert!(!purges(&mut bed, 60));
    assert!(purges(&mut bed, 5));
    assert!(!purges(&mut bed, 60), "the count begins again");
}

#[test]
fn memory_that_is_writable_and_executable_at_once() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        let a = bed.area("a", "vmalloc_exec", 1 << 12);
        assert_eq!(letters(&bed, a), "rwx", "{arch}");
    }
}

/// Linux 6.12 mm/vmalloc.c: what a purge frees stays with the node of the CPU that allocated it,
/// for areas of its size; before 6.9, and where another range is asked for, it is simply free.
#[test]
fn purged_addresses_stay_with_their_node() {
    for (version, pools) in [("6.6", false), ("6.12", true)] {
        let mut bed = boot(version, Arch::Arm64, &[]);
        let on = |bed: &mut Bed, cpu, size| {
            let args = [Arg::Value(size)];
            bed.kernel.call(CpuId(cpu), "vmalloc", &args).unwrap().value as u64
        };
        let low = on(&mut bed, 0, 0x2000);
        let high = on(&mut bed, 0, 0x2000);
        for area in [low, high] {
            bed.call("vfree", &[area]);
        }
        bed.call("vm_unmap_aliases", &[]);
        let other = on(&mut bed, 1, 0x2000);
        let larger = on(&mut bed, 0, 0x5000);
        let same = on(&mut bed, 0, 0x2000);
        if pools {
            assert!(other > high && larger > high, "{version}: {other:#x} {larger:#x}");
            assert_eq!(same, high, "{version}: the last one that was added");
        } else {
            assert_eq!(other, low, "{version}");
            assert!(same > low && larger > low, "{version}");
        }
        assert!(on(&mut bed, 0, 0x2000) == low || !pools, "{version}");
    }
}

/// `alloc_vmap_area`: where no address is left in the range, the pools of all nodes are emptied
/// too.
#[test]
fn pools_are_emptied_where_addresses_are_short() {
    let mut bed = boot("6.12", Arch::Arm64, &[]);
    let low = bed.call("vmalloc", &[0x2000]) as u64;
    bed.call("vfree", &[low]);
    bed.call("vm_unmap_aliases", &[]);
    let mut args = values(&[0x2000, 0x1000, low, low + 0x3000]);
    args.extend([Arg::Flags(vec!["PAGE_KERNEL".to_owned()]), Arg::Value(0)]);
    assert_eq!(bed.try_call("__vmalloc_node_range", &args).unwrap().value as u64, low);
}

/// What waits for a flush can be reached by nobody afterwards, and that is promised; a second call
/// finds nothing that waits.
#[test]
fn flushing_what_was_freed_is_a_promise() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        for name in ["a", "b"] {
            let area = bed.area(name, "vmalloc", 2 << 12);
            bed.call("vfree", &[area]);
        }
        for areas in [2, 0] {
            bed.trace();
            bed.call("vm_unmap_aliases", &[]);
            let trace = bed.trace();
            let of = |area: &str| trace.contains(&format!("0 promised NoAccess {area}+0x0 0x3000"));
            let promised = trace.iter().filter(|l| l.contains("promised")).count();
            assert_eq!(promised, areas, "{arch} {trace:#?}");
            assert!(areas == 0 || of("a") && of("b"), "{arch} {trace:#?}");
        }
    }
}

/// vunmap() looks at no pages (vfree() frees those of the area); to 6.1 it purged for an area that
/// asked for a reset.
#[test]
fn frames_of_an_area_that_vunmap_takes_away_stay_allocated() {
    for (version, purges) in [("5.18", true), ("6.1", true), ("6.6", false), ("7.0", false)] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let a = bed.area("a", "vmalloc", 4096);
        bed.call("set_vm_flush_reset_perms", &[a]);
        bed.trace();
        bed.call("vunmap", &[a]);
        let trace = bed.trace();
        assert!(
            !trace.iter().any(|l| l.contains("frames -") || l.contains("leaf dm")),
            "{version}"
        );
        let purged = trace.iter().any(|l| l.contains("lock vmap_purge_lock"));
        assert_eq!(purged, purges, "{version}: {trace:#?}");
    }
}
