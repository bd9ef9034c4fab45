//! x86's other types of memory: reservations, entries, aliases, flushes.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, run, values};
use textbed_arch::paging::MemoryType::{self, Device, NonCacheable, WriteBack};
use textbed_arch::{Arch, CpuId, FRAME_BYTES, SpaceId, VirtAddr};
use textbed_kernel::{CALLS, Kernel};

const VERSIONS: [&str; 6] = ["5.18", "6.1", "6.6", "6.12", "6.18", "7.0"];
const X86: Arch = Arch::X86_64;
const OTHER: CpuId = CpuId(1);
const EBUSY: i64 = -16;

fn leaf(bed: &Bed, at: u64) -> (u32, MemoryType) {
    let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).unwrap();
    (leaf.shift, leaf.attributes.memory)
}

fn count(trace: &[String], what: &str) -> usize {
    trace.iter().filter(|l| l.contains(what)).count()
}

/// An address of the direct map where a large leaf begins, in memory that nobody has.
fn large(bed: &Bed) -> u64 {
    bed.kernel.layout().direct_map.start.0 + (64 << 20)
}

#[test]
fn a_page_of_the_direct_map_is_split_off_changed_and_flushed_from_caches() {
    for version in VERSIONS {
        let mut bed = boot(version, X86, &[]);
        let at = large(&bed) + FRAME_BYTES;
        bed.trace();
        assert_eq!(bed.call("set_memory_uc", &[at, 1]), 0);
        let trace = bed.trace();
        assert_eq!(leaf(&bed, at), (12, Device), "{version}");
        assert_eq!(leaf(&bed, at + FRAME_BYTES), (12, WriteBack), "{version}");
        assert_eq!(count(&trace, "lock vmap_purge_lock"), 2, "{version}");
        let order =
            ["2M>4K", "1x4K rw->rw-", "invlpg", "mfence", "clflushopt", "mfence", "return 0"];
        let mut rest = trace.iter();
        for what in order {
            assert!(rest.any(|l| l.contains(what)), "{version}: {what} in {trace:#?}");
        }
        assert_eq!(count(&trace, "clflushopt"), 64, "{version}");
        // On the way back no line goes out.
        assert_eq!(bed.call("set_memory_wb", &[at, 1]), 0);
        let trace = bed.trace();
        assert_eq!(leaf(&bed, at), (12, WriteBack), "{version}");
        assert_eq!((count(&trace, "clflush"), count(&trace, "invlpg: tlb")), (0, 2), "{version}");
    }
}

#[test]
fn a_type_is_reserved_once_and_given_back_with_write_back() {
    for version in VERSIONS {
        let mut bed = boot(version, X86, &[]);
        let at = large(&bed);
        assert_eq!(bed.call("set_memory_wc", &[at, 2]), 0);
        assert_eq!(leaf(&bed, at), (12, NonCacheable), "{version}");
        for call in ["set_memory_uc", "set_memory_wc"] {
            bed.trace();
            assert_eq!(bed.call(call, &[at + FRAME_BYTES, 2]), EBUSY, "{version}");
            let trace = bed.trace();
            assert_eq!(trace.len(), 2, "nothing else is done: {trace:#?}");
        }
        // The page behind is not reserved: the failed ones left nothing.
        assert_eq!(bed.call("set_memory_uc", &[at + 2 * FRAME_BYTES, 1]), 0);
        assert_eq!(bed.call("set_memory_wb", &[at, 3]), 0);
        assert_eq!(bed.call("set_memory_uc", &[at, 3]), 0);
        assert_eq!(leaf(&bed, at + 2 * FRAME_BYTES), (12, Device), "{version}");
    }
}

/// What an area's address makes of `__pa()` is no RAM: reservations of one type may meet there.
#[test]
fn an_area_takes_its_alias_along_and_is_reserved_apart_from_it() {
    for version in VERSIONS {
        let mut bed = boot(version, X86, &[]);
        let a = bed.area("a", "vmalloc", 2 * FRAME_BYTES);
        let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
        assert_eq!(bed.call("set_memory_uc", &[a, 2]), 0);
        assert_eq!((leaf(&bed, a), leaf(&bed, dm)), ((12, Device), (12, Device)), "{version}");
        assert_eq!(bed.call("set_memory_wc", &[a, 1]), EBUSY, "{version}");
        assert_eq!(bed.call("set_memory_uc", &[a, 1]), 0, "{version}");
        // The frames are free to be reserved; their entry is uncached before.
        assert_eq!(bed.call("set_memory_wc", &[dm, 1]), 0, "{version}");
        assert_eq!((leaf(&bed, a).1, leaf(&bed, dm).1), (Device, NonCacheable), "{version}");
        // The direct map's own call leaves the area's entry as it is.
        assert_eq!(bed.call("set_memory_wb", &[dm, 2]), 0, "{version}");
        assert_eq!((leaf(&bed, a).1, leaf(&bed, dm).1), (Device, WriteBack), "{version}");
    }
}

#[test]
fn a_whole_large_leaf_stays_one_and_pages_by_themselves_do_not() {
    for version in VERSIONS {
        let mut bed = boot(version, X86, &[]);
        let at = large(&bed);
        assert_eq!(bed.call("set_memory_uc", &[at, 512]), 0);
        assert_eq!(leaf(&bed, at), (21, Device), "{version}");
        let next = at + (2 << 20);
        assert_eq!(bed.call("set_pages_array_wc", &[next, 512]), 0);
        assert_eq!(leaf(&bed, next), (12, NonCacheable), "{version}");
        assert_eq!(bed.call("set_pages_array_wb", &[next, 512]), 0);
        assert_eq!(leaf(&bed, next), (12, WriteBack), "{version}");
        assert_eq!(bed.call("set_pages_wb", &[at, 512]), 0);
        assert_eq!(leaf(&bed, at), (21, WriteBack), "{version}");
        assert_eq!(bed.call("set_pages_uc", &[at, 1]), 0);
        assert_eq!(leaf(&bed, at), (12, Device), "{version}");
        assert_eq!(bed.call("set_pages_array_uc", &[at, 1]), -22, "{version}: reserved");
    }
}

#[test]
fn what_cannot_be_reserved() {
    for version in VERSIONS {
        let mut bed = boot(version, X86, &[]);
        let dm = bed.kernel.layout().direct_map.start.0;
        bed.trace();
        assert_eq!(bed.call("set_memory_uc", &[dm + (64 << 20), 0]), -22);
        assert!(bed.trace().contains(&"0 WARN BadArgument".to_owned()), "{version}");
        // RAM behind the range of ISA, with a part of that.
        assert_eq!(bed.call("set_memory_uc", &[dm + 0xf_f000, 2]), -22, "{version}");
        // All of it below 1 MiB is no RAM; what is ISA's nobody tracks.
        assert_eq!(bed.call("set_memory_uc", &[dm + 0x1000, 1]), 0, "{version}");
        assert_eq!(bed.call("set_memory_wc", &[dm + 0x1000, 1]), EBUSY, "{version}");
        for call in ["set_memory_uc", "set_memory_wc"] {
            assert_eq!(bed.call(call, &[dm + 0xa_0000, 1]), 0, "{version}");
        }
    }
}

#[test]
fn an_error_gives_the_reservation_back_and_flushes_everything_that_is_cached() {
    for version in VERSIONS {
        let mut bed = boot(version, X86, &[]);
        let at = large(&bed);
        bed.kernel.fail_allocation("set_memory_uc", 1, 1).unwrap();
        bed.trace();
        // One large leaf changes, the next one cannot be split.
        assert_eq!(bed.call("set_memory_uc", &[at, 513]), -12);
        let trace = bed.trace();
        assert_eq!(leaf(&bed, at), (21, Device), "{version}");
        assert_eq!(count(&trace, "wbinvd"), 4, "{version}: {trace:#?}");
        assert_eq!(count(&trace, "clflush"), 0, "{version}");
        assert_eq!(bed.call("set_memory_wc", &[at, 513]), 0, "{version}");
        // An area's reservation allocates, too.
        let a = bed.area("a", "vmalloc", FRAME_BYTES);
        bed.kernel.fail_allocation("set_memory_wc", 2, 1).unwrap();
        assert_eq!(bed.call("set_memory_wc", &[a, 1]), -12, "{version}");
        assert_eq!(leaf(&bed, a), (12, WriteBack), "{version}");
    }
}

/// Pages of an area that lie apart: from 6.15 on what is flushed is one range from the first on.
#[test]
fn pages_that_lie_apart_are_flushed_one_by_one_up_to_6_14() {
    for (version, all) in [("5.18", true), ("6.12", true), ("6.18", false), ("7.0", false)] {
        let mut bed = boot(version, X86, &[]);
        let [a, _, c] = [0; 3].map(|_| bed.call("vmalloc_huge", &[2 << 20]) as u64);
        for area in [a, c] {
            bed.call("vfree", &[area]);
        }
        // The last page of one block, the first one of another.
        let pages = bed.call("vmalloc_huge", &[4 << 20]) as u64 + (2 << 20) - FRAME_BYTES;
        let frame = |bed: &Bed, at| {
            let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).unwrap();
            let frame = leaf.phys.offset(at - leaf.virt.0).pfn();
            bed.kernel.direct_map_of(frame).unwrap().0
        };
        let dm = [0, 1].map(|n| frame(&bed, pages + n * FRAME_BYTES));
        assert_ne!(dm[0] + FRAME_BYTES, dm[1], "they lie apart");
        bed.mark("first", dm[0], FRAME_BYTES);
        bed.mark("second", dm[1], FRAME_BYTES);
        // A split would flush everything.
        bed.call("set_memory_4k", &[dm[0], 1]);
        bed.call("set_memory_4k", &[dm[1], 1]);
        bed.trace();
        assert_eq!(bed.call("set_pages_array_uc", &[pages, 2]), 0);
        let trace = bed.trace();
        assert_eq!((leaf(&bed, dm[0]).1, leaf(&bed, dm[1]).1), (Device, Device), "{version}");
        let flushed = |name: &str| trace.iter().any(|l| l.contains("invlpg") && l.contains(name));
        assert!(flushed("first+0x0"), "{version}: {trace:#?}");
        assert_eq!(flushed("second+0x0"), all, "{version}: {trace:#?}");
        assert_eq!(count(&trace, "clflushopt second"), 64, "{version}");
    }
}

/// A reservation is there before anything changes, and the area's entry changes before its alias.
#[test]
fn others_run_between_reservation_entries_and_flushes() {
    for version in VERSIONS {
        let mut bed = boot(version, X86, &[]);
        let a = bed.area("a", "vmalloc", FRAME_BYTES);
        let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
        let mut seen = Vec::new();
        run(&mut bed, CpuId(0), ("set_memory_uc", &values(&[a, 1])), |bed| {
            seen.push((leaf(bed, a).1, leaf(bed, dm).1));
        });
        for state in [(WriteBack, WriteBack), (Device, WriteBack), (Device, Device)] {
            assert!(seen.contains(&state), "{version}: {state:?} in {seen:?}");
        }
        let at = large(&bed);
        let mut answers = Vec::new();
        run(&mut bed, CpuId(0), ("set_memory_uc", &values(&[at, 1])), |bed| {
            let got = run(bed, OTHER, ("set_memory_wc", &values(&[at, 1])), |_| {});
            answers.push(got);
        });
        assert!(!answers.is_empty() && answers.iter().all(|got| *got == EBUSY), "{version}");
        assert_eq!(leaf(&bed, at).1, Device, "{version}");
    }
}

/// arch/arm64 and arch/powerpc have no such functions.
#[test]
fn others_have_no_such_call() {
    let names = CALLS.iter().filter(|c| c.name.contains("_uc") || c.name.ends_with("_wb"));
    let names: Vec<&str> = names.map(|c| c.name).collect();
    assert!(names.len() >= 5, "{names:?}");
    for arch in [Arch::Arm64, Arch::Ppc64le, Arch::Ppc32] {
        let version = "6.12".parse().unwrap();
        for name in &names {
            let got = Kernel::check_call(version, arch, name, &values(&[0, 1])).unwrap_err();
            assert!(got.to_string().contains("x86_64"), "{got}");
        }
    }
}
