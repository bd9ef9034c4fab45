//! By which TLBIs arm64 flushes a range of kernel addresses.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::boot_with;
use textbed_arch::{Arch, Features, insn};
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
