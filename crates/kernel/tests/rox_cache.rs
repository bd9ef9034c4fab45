//! Executable memory on x86 from 6.18 on: traces T1 and T2 of what mm/execmem.c and
//! arch/x86/mm/pat/set_memory.c do, in outline, and what comes back from the cache.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, expect, run, values};
use textbed_arch::{Arch, CpuId, SpaceId, VirtAddr};
use textbed_kernel::Arg;

const TEXT: &str = "EXECMEM_MODULE_TEXT";

fn alloc(bed: &mut Bed, call: &str, kind: &str, size: u64) -> u64 {
    let args = [Arg::Flags(vec![kind.to_owned()]), Arg::Value(size)];
    bed.try_call(call, &args).unwrap().value as u64
}

/// Leaf changes, purges, fills and full flushes (one line each).
fn outline(bed: &mut Bed) -> Vec<String> {
    let mut lines = Vec::new();
    for line in bed.trace() {
        let text = &line[2..];
        let kept = if text.starts_with("ipi do_flush_tlb_all") {
            Some("flush".to_owned())
        } else if text == "lock vmap_purge_lock" {
            Some("purge".to_owned())
        } else if text.starts_with("leaf") || text.starts_with("fill") || text.starts_with("call") {
            Some(text.to_owned())
        } else {
            None
        };
        lines.extend(kept);
    }
    lines
}

/// The same without addresses: which mapping, what, from what to what.
fn short(lines: &[String]) -> Vec<String> {
    let line = |l: &String| match l.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["leaf", at, what, perm] => {
            format!("{} {what} {perm}", at.split('+').next().unwrap_or_default())
        }
        ["fill", ..] => "fill".to_owned(),
        _ => l.clone(),
    };
    lines.iter().map(line).collect()
}

fn letters(bed: &Bed, at: u64) -> (u32, String) {
    let m = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).unwrap();
    (m.shift, m.perm.letters().to_string())
}

#[test]
fn t1_text_that_is_writable_for_now_splits_its_block_and_twice_the_direct_map() {
    for version in ["6.18", "7.0"] {
        let mut bed = boot(version, Arch::X86_64, &[("memory_mib", "4096")]);
        // Frames from the second gigabyte on: a leaf of the direct map without the image in it.
        let machine = bed.kernel.machine_mut();
        while machine.alloc_frames(CpuId(0), 512, 21, false).unwrap().0 < 1 << 18 {}
        bed.trace();
        let a = alloc(&mut bed, "execmem_alloc_rw", TEXT, 1 << 12);
        let plain = short(&outline(&mut bed));
        expect(
            &plain,
            "
        call execmem_alloc_rw
        call execmem_alloc
        mod 1x2M --->rw-
        fill
        call set_memory_rox
        purge
        mod 1x2M rw->r-x
        dm 512x1G>2M rw->rw-
        flush
        dm 1x2M rw->r--
        flush
        call set_memory_nx
        purge
        mod 512x2M>4K r-x>r-x
        flush
        mod 1x4K r-x>r--
        flush
        call set_memory_rw
        purge
        mod 1x4K r-->rw-
        dm 512x2M>4K r-->r--
        flush
        dm 1x4K r-->rw-
        flush
        ",
        );
        assert_eq!(letters(&bed, a), (12, "rw-".to_owned()));
        // T2: back to one leaf, with a second flush; the direct map stays split.
        assert_eq!(bed.call("execmem_restore_rox", &[a, 1 << 12]), 0);
        let plain = short(&outline(&mut bed));
        expect(
            &plain,
            "
        call execmem_restore_rox
        call set_memory_rox
        purge
        mod 1x4K rw->r-x
        dm 1x4K rw->r--
        flush
        mod 1x4K>2M r-x>r-x
        flush
        ",
        );
        assert_eq!(letters(&bed, a), (21, "r-x".to_owned()));
        let frame = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap().phys;
        let alias = bed.kernel.direct_map_of(frame.pfn()).unwrap();
        assert_eq!(letters(&bed, alias.0), (12, "r--".to_owned()));
    }
}

#[test]
fn the_cache_serves_text_and_nothing_else_and_gives_whole_blocks_back() {
    let mut bed = boot("6.18", Arch::X86_64, &[]);
    let a = alloc(&mut bed, "execmem_alloc", TEXT, 1 << 12);
    let b = alloc(&mut bed, "execmem_alloc", "EXECMEM_KPROBES", 1 << 12);
    assert_eq!(b, a + 4096, "one block serves both");
    assert_eq!(letters(&bed, b).1, "r-x");
    for kind in ["EXECMEM_BPF", "EXECMEM_MODULE_DATA"] {
        let other = alloc(&mut bed, "execmem_alloc", kind, 1 << 12);
        assert_eq!(letters(&bed, other), (12, "rw-".to_owned()), "{kind}");
    }
    bed.call("execmem_free", &[a]);
    assert_eq!(letters(&bed, a).1, "r-x");
    bed.call("execmem_free", &[b]);
    assert!(bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).is_none());
    let mut plain = boot("6.18", Arch::X86_64, &[("STRICT_MODULE_RWX", "n")]);
    let p = alloc(&mut plain, "execmem_alloc", TEXT, 1 << 12);
    assert_eq!(letters(&plain, p).1, "rw-", "not without STRICT_MODULE_RWX");
}

#[test]
fn a_cache_that_cannot_be_filled_gives_null() {
    let mut bed = boot("6.18", Arch::X86_64, &[]);
    for size in [0, 1 << 40, u64::MAX] {
        assert_eq!(alloc(&mut bed, "execmem_alloc", TEXT, size), 0, "{size:#x}");
    }
    assert_eq!(bed.try_call("execmem_restore_rox", &values(&[0, 0])).unwrap().value, 0);
}

/// execmem_alloc_rw() calls execmem_force_rw() whatever the type: data of modules, which is no
/// code, has its permissions set again, and what was freed before is purged by that.
#[test]
fn memory_for_data_is_made_writable_once_more() {
    for version in ["6.18", "7.0"] {
        for (strict, again) in [("y", true), ("n", false)] {
            let mut bed = boot(version, Arch::X86_64, &[("STRICT_MODULE_RWX", strict)]);
            let freed = bed.call("vmalloc", &[4096]) as u64;
            bed.call("vfree", &[freed]);
            bed.trace();
            let args = [Arg::Flags(vec!["EXECMEM_MODULE_DATA".to_owned()]), Arg::Value(4096)];
            assert_ne!(bed.try_call("execmem_alloc_rw", &args).unwrap().value, 0);
            let trace = bed.trace();
            let calls: Vec<&str> = trace.iter().filter_map(|l| l.strip_prefix("0 call ")).collect();
            let all = ["execmem_alloc_rw", "execmem_alloc", "set_memory_nx", "set_memory_rw"];
            assert_eq!(calls, all[..if again { 4 } else { 2 }], "{version}");
            assert_eq!(trace.iter().any(|l| l.contains("tlb ")), again, "{version}: a purge");
        }
    }
}

/// Where the cache is not compiled in, force_rw and restore_rox are stubs that say 0.
#[test]
fn elsewhere_memory_stays_as_it_was_allocated() {
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        let mut bed = boot("6.18", arch, &[]);
        let args = [Arg::Flags(vec!["EXECMEM_MODULE_TEXT".to_owned()]), Arg::Value(4096)];
        let a = bed.try_call("execmem_alloc_rw", &args).unwrap().value as u64;
        assert_eq!(bed.call("execmem_restore_rox", &[a, 4096]), 0, "{arch}");
        assert!(!bed.trace().iter().any(|l| l.contains("call set_memory")), "{arch}");
        let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap();
        assert_eq!(leaf.perm.letters(), "rw-", "{arch}");
    }
}

/// Linux 6.18.2, 7.0 execmem_cache_alloc(): what was added to the cache is looked for again, under
/// another hold of the mutex; who takes it meanwhile leaves nothing.
#[test]
fn what_was_added_to_the_cache_may_be_taken_by_another_cpu() {
    for version in ["6.18", "7.0"] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let args = [Arg::Flags(vec![TEXT.to_owned()]), Arg::Value(4096)];
        let whole = [Arg::Flags(vec![TEXT.to_owned()]), Arg::Value(2 << 20)];
        let (mut seen, mut taken) = (Vec::new(), None);
        let got = run(&mut bed, CpuId(0), ("execmem_alloc", &args), |bed| {
            seen.extend(bed.trace());
            let ended = seen.iter().filter(|l| *l == "0 unlock execmem_cache.mutex").count();
            if ended == 2 && taken.is_none() {
                let other = bed.kernel.call(CpuId(1), "execmem_alloc", &whole).unwrap();
                taken = Some(other.value);
            }
        });
        assert_ne!(taken, Some(0), "{version}: the block that was added");
        assert!(taken.is_some() && got == 0, "{version}: {got:#x}");
    }
}

/// Linux 6.18.2, 7.0 execmem_cache_free(): the tree is asked for what an address lies in, so the
/// whole range goes by any of its addresses. The second time it is nobody's, and the cache's area
/// goes with what others have there.
#[test]
fn any_address_of_a_range_frees_all_of_it() {
    for version in ["6.18", "7.0"] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let keep = alloc(&mut bed, "execmem_alloc", TEXT, 4096);
        let a = alloc(&mut bed, "execmem_alloc", TEXT, 3 * 4096);
        bed.mark("a", a, 3 * 4096);
        bed.trace();
        bed.call("execmem_free", &[a + 0x2000]);
        let filled = bed.trace().iter().any(|l| l.starts_with("0 fill a+0x0 0x3000"));
        assert!(filled, "{version}: from its first byte on");
        assert_eq!(alloc(&mut bed, "execmem_alloc", TEXT, 3 * 4096), a, "{version}");
        // Once more than it was handed out: vfree() of an address in the cache's own area.
        bed.call("execmem_free", &[a]);
        bed.trace();
        bed.call("execmem_free", &[a]);
        assert!(bed.trace().iter().any(|l| l.contains("area gone")), "{version}");
        assert!(bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(keep)).is_none());
    }
}
