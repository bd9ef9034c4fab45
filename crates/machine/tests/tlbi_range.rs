//! What a TLBI covers, by its register: BaseADDR, NUM, SCALE and TG of a range, and the level that
//! it names (Arm ARM DDI 0487 C5.5, TLBI RVAE1IS and VAE1IS; Linux 6.12
//! arch/arm64/include/asm/tlbflush.h, `__TLBI_VADDR_RANGE` and `__tlbi_level`).

#![allow(clippy::unwrap_used)]

use textbed_arch::{Arch, CpuId, Features};
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

/// The size of leaves that an invalidation says it is about.
fn named(name: &str, ttl: bool, page_shift: u8, va_bits: u8, operand: u64) -> Option<u8> {
    let features = if ttl { Features::ARM_TTL } else { Features::empty() };
    let config = MachineConfig { page_shift, va_bits, features, ..MachineConfig::new(Arch::Arm64) };
    let mut m = Machine::new(config, Box::new(Newest)).unwrap();
    m.op_named(CpuId(0), name, operand).unwrap();
    let batch = m.take_batch();
    let leaf = batch.events.iter().map(Event::view).find_map(|view| match view {
        View::TlbInvalidate { leaf, .. } => Some(leaf),
        _ => None,
    });
    leaf.unwrap()
}

/// TTL: no granule, no level; level 0 of 4 KiB and level 1 of 16 KiB have leaves with LPA2 alone,
/// level 0 of the others has none.
#[test]
fn a_level_is_named_by_granule_where_it_has_leaves() {
    let rows: [(u8, u64, [Option<u8>; 4]); 6] = [
        (48, 0, [None; 4]),
        (48, 1, [None, Some(30), Some(21), Some(12)]),
        (48, 2, [None, None, Some(25), Some(14)]),
        (48, 3, [None, Some(42), Some(29), Some(16)]),
        (52, 1, [Some(39), Some(30), Some(21), Some(12)]),
        (52, 2, [None, Some(36), Some(25), Some(14)]),
    ];
    for (va_bits, granule, leaves) in rows {
        let page_shift = if va_bits == 52 { [12, 14][granule as usize - 1] } else { 12 };
        for (level, leaf) in (0..).zip(leaves) {
            let operand = granule << 46 | level << 44 | 0x123;
            for name in ["tlbi vae1is", "tlbi vaale1"] {
                let found = |ttl| named(name, ttl, page_shift, va_bits, operand);
                assert_eq!(found(true), leaf, "{name} {va_bits} {granule} {level}");
                assert_eq!(found(false), None, "{name}: reserved without FEAT_TTL");
            }
            // A range's has a field of its own, and the granule is the tables'.
            if u64::from(page_shift / 2 - 5) == granule {
                let operand = granule << 46 | level << 37;
                let leaf = leaf.filter(|_| level != 0);
                let found = named("tlbi rvaae1is", false, page_shift, va_bits, operand);
                assert_eq!(found, leaf, "range {va_bits} {granule} {level}");
            }
        }
    }
}
