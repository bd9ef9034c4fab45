//! By which TLBIs arm64 flushes a range of kernel addresses, and which calls flush or maintain
//! where their names or arguments do not look like it.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::boot_with;
use textbed_arch::{Arch, Features, SpaceId, insn};
use textbed_event::{Event, View};

const ARM64: Arch = Arch::Arm64;

/// TLBIs of a flush of `pages` from page `from` of the vmalloc area on: name, first address, bytes.
fn tlbis(
    version: &str,
    options: &[(&str, &str)],
    ranges: bool,
    (from, pages): (u64, u64),
) -> Vec<(&'static str, u64, u64)> {
    let more = if ranges { Features::ARM_TLBIRANGE } else { Features::empty() };
    let mut bed = boot_with(version, ARM64, options, Features::default_for(ARM64) | more, 1);
    let area = bed.kernel.layout().vmalloc.start.0;
    let start = area + (from << 12);
    bed.call("flush_tlb_kernel_range", &[start, start + (pages << 12)]);
    let name = |e: &Event| insn::by_id(insn::OpId(e.op.0)).unwrap().name;
    let flush = |e: &Event| match e.view() {
        View::TlbInvalidate { virt, len, .. } => Some((name(e), virt.0.saturating_sub(area), len)),
        _ => None,
    };
    bed.events().iter().filter_map(flush).collect()
}

/// Worked out from __flush_tlb_range_op() and __flush_tlb_range_limit_excess() of Linux 6.18.2 and
/// 7.0: (NUM + 1) << (5 * SCALE + 1) pages each, the largest SCALE first.
#[test]
fn flushes_are_by_range_from_6_13_on_where_cpus_can() {
    let range = |at: u64, len: u64| ("tlbi rvaale1is", at, len);
    let one = |page: u64| ("tlbi vaale1is", page << 12, 0x1000);
    let is_all = |found: &[(&str, u64, u64)]| found.len() == 1 && found[0].0 == "tlbi vmalle1is";
    for version in ["6.18", "7.0"] {
        let by_range = |from, pages| tlbis(version, &[], true, (from, pages));
        // 0x243 = 9 * 64 + 2 + 1.
        let parts = [range(0, 0x24_0000), range(0x24_0000, 0x2000), one(0x242)];
        assert_eq!(by_range(0, 0x243), parts);
        assert_eq!(by_range(0, 1), [one(0)]);
        // As many as one covers, and one more.
        assert_eq!(by_range(0, 1 << 21), [range(0, 1 << 33)]);
        assert!(is_all(&by_range(0, (1 << 21) + 1)));
        assert!(is_all(&tlbis(version, &[], false, (0, 512))));
        // LPA2: BaseADDR is in units of 64 KiB.
        let lpa2 = tlbis(version, &[("va_bits", "52")], true, (13, 7));
        assert_eq!(lpa2, [one(13), one(14), one(15), range(0x1_0000, 0x4000)]);
    }
    assert_eq!(tlbis("6.12", &[], true, (0, 2)), [one(0), one(1)]);
    assert!(is_all(&tlbis("6.12", &[], true, (0, 513))));
}

/// set_direct_map_valid_noflush() is set_memory_valid() of the range: taken away with a flush,
/// given back without. Neither takes no page.
#[test]
fn pages_of_the_direct_map_go_with_a_flush_in_spite_of_the_name() {
    for version in ["6.18", "7.0"] {
        let mut bed = boot_with(version, ARM64, &[], Features::default_for(ARM64), 1);
        let a = bed.area("a", "vmalloc", 2 << 12);
        bed.trace();
        let call = "set_direct_map_valid_noflush";
        assert_eq!(bed.call(call, &[a, 2, 0]), 0);
        let trace = bed.trace();
        let tlbis = trace.iter().filter(|l| l.contains("tlbi vaale1is"));
        assert_eq!(tlbis.count(), 2, "{version}: {trace:#?}");
        let gone = trace.iter().filter(|l| l.contains("leaf dm(a)") && l.contains("rw->---"));
        assert_eq!(gone.count(), 2, "{trace:#?}");
        assert_eq!(bed.call(call, &[a, 2, 1]), 0);
        assert!(!bed.trace().iter().any(|l| l.contains("tlbi")), "{version}");
        assert_eq!(bed.call(call, &[a, 0, 0]), -22, "{version}");
        assert_eq!(bed.call("set_memory_valid", &[a, 0, 1]), -22, "{version}");
        assert!(
            !bed.trace().iter().any(|l| l.contains("WARN")),
            "{version}: from 6.18 on in silence"
        );
    }
}

/// arch/arm64/mm/mmu.c: the pool of 6.6 and later is mapped by pages for itself, if it is made
/// while booting.
#[test]
fn kfence_has_the_linear_map_made_of_pages_for_a_late_pool_alone_from_6_4_on() {
    for (version, pool, pages) in [
        ("5.18", "y", false),
        ("6.1", "y", true),
        ("6.1", "late", true),
        ("6.6", "y", false),
        ("6.12", "y", false),
        ("6.12", "late", true),
        ("7.0", "y", false),
        ("7.0", "late", true),
    ] {
        let options = [("rodata", "noalias"), ("kfence", pool)];
        let bed = boot_with(version, ARM64, &options, Features::default_for(ARM64), 1);
        let at = bed.kernel.layout().direct_map.start.offset(64 << 20);
        let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, at).unwrap();
        assert_eq!(leaf.shift == 12, pages, "{version} {pool}");
    }
}

/// __text_poke() flushes the icache range whatever its length, and the macros of cache.S do a line
/// before they look at the end.
#[test]
fn no_bytes_are_maintained_as_a_line_and_told_to_all() {
    for call in ["aarch64_insn_set", "flush_icache_range"] {
        let mut bed = boot_with("6.12", ARM64, &[], Features::default_for(ARM64), 2);
        let a = bed.area("a", "vmalloc", 1 << 12);
        bed.trace();
        let args = if call == "flush_icache_range" { vec![a, a] } else { vec![a, 0, 0] };
        bed.call(call, &args);
        let trace = bed.trace();
        let count = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
        assert_eq!((count("dc cvau"), count("ic ivau")), (1, 1), "{call}: {trace:#?}");
        assert_eq!(count("0 ipi do_nothing"), 1, "{call}: {trace:#?}");
    }
}
