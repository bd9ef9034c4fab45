//! What a TLBI of a range covers, by its register: BaseADDR, NUM, SCALE and TG (Arm ARM DDI 0487
//! C5.5, TLBI RVAE1IS; Linux 6.12 arch/arm64/include/asm/tlbflush.h, `__TLBI_VADDR_RANGE`).

#![allow(clippy::unwrap_used)]

use textbed_arch::{Arch, CpuId};
use textbed_event::{Event, View};
use textbed_machine::{Machine, MachineConfig, Newest};

/// First address and bytes of the invalidation; `None` if it is refused.
fn covered(page_shift: u8, va_bits: u8, operand: u64) -> Option<(u64, u64)> {
    let config = MachineConfig { page_shift, va_bits, ..MachineConfig::new(Arch::Arm64) };
    let mut m = Machine::new(config, Box::new(Newest)).unwrap();
    m.op_named(CpuId(0), "tlbi rvaae1is", operand).ok()?;
    let batch = m.take_batch();
    batch.events.iter().map(Event::view).find_map(|view| match view {
        View::TlbInvalidate { virt, len, .. } => Some((virt.0, len)),
        _ => None,
    })
}

/// (NUM + 1) << (5 * SCALE + 1) pages from BaseADDR on, which is in pages; with 52 bits and pages
/// of 4 and 16 KiB (TCR_EL1.DS) in units of 64 KiB.
#[test]
fn the_base_is_in_pages_or_with_lpa2_in_64_kib() {
    let at = 0xffff_8000_8123_0000u64;
    let operand = |unit: u32, tg: u64| at >> unit & ((1 << 37) - 1) | tg << 46;
    let (num, scale) = (2 << 39, 1 << 44);
    for (page_shift, va_bits, unit, tg) in
        [(12, 48, 12, 1), (14, 48, 14, 2), (16, 48, 16, 3), (12, 52, 16, 1), (14, 52, 16, 2)]
    {
        let base = at >> unit << unit;
        let found = covered(page_shift, va_bits, operand(unit, tg) | num | scale);
        assert_eq!(found, Some((base, (3 << 6) << page_shift)), "{page_shift} {va_bits}");
        // A granule that is not the tables' need not invalidate anything.
        let other = operand(unit, tg % 3 + 1);
        assert_eq!(covered(page_shift, va_bits, other), None, "{page_shift} {va_bits}");
    }
}
