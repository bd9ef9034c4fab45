//! arm64 trees whose root is a lower level: 39 bits with 4 KiB pages, 36 and 47 with 16 KiB, 42
//! with 64 KiB.
//!
//! The walk starts at the level that TCR_EL1.TxSZ and the granule give; entries mean what they mean
//! at that level of the 48-bit trees. So each is one of those without its first levels.

use super::Format;
use super::arm64::{ARM64_4K, ARM64_16K, ARM64_64K};
use super::field::{Field, Kinds, Role, field};
use super::level;
use super::shape::shapes;
use crate::cite::Cite;

const SIZES: Cite = Cite::read(
    "Arm ARM DDI 0487 D8.2 (translation table walk: TxSZ and the initial lookup level); Linux 6.12, \
     7.0 arch/arm64/Kconfig (ARM64_VA_BITS, PGTABLE_LEVELS)",
);

/// 4 KiB granule from level 1.
pub static ARM64_4K_39: Format = Format {
    name: "arm64 4k 39-bit",
    va_bits: 39,
    levels: &[
        level("PGD", "level 1", 30, 9, true, true),
        level("PMD", "level 2", 21, 9, true, true),
        level("PTE", "level 3", 12, 9, true, false),
    ],
    fields: FIELDS_4K,
    shapes: shapes(FIELDS_4K),
    cite: SIZES,
    ..ARM64_4K.again()
};

/// 16 KiB granule from level 2.
pub static ARM64_16K_36: Format = Format {
    name: "arm64 16k 36-bit",
    va_bits: 36,
    levels: &[
        level("PGD", "level 2", 25, 11, true, true),
        level("PTE", "level 3", 14, 11, true, false),
    ],
    fields: FIELDS_16K_36,
    shapes: shapes(FIELDS_16K_36),
    cite: SIZES,
    ..ARM64_16K.again()
};

/// 16 KiB granule from level 1.
pub static ARM64_16K_47: Format = Format {
    name: "arm64 16k 47-bit",
    va_bits: 47,
    levels: &[
        level("PGD", "level 1", 36, 11, false, true),
        level("PMD", "level 2", 25, 11, true, true),
        level("PTE", "level 3", 14, 11, true, false),
    ],
    fields: FIELDS_16K_47,
    shapes: shapes(FIELDS_16K_47),
    cite: SIZES,
    ..ARM64_16K.again()
};

/// 64 KiB granule from level 2.
pub static ARM64_64K_42: Format = Format {
    name: "arm64 64k 42-bit",
    va_bits: 42,
    levels: &[
        level("PGD", "level 2", 29, 13, true, true),
        level("PTE", "level 3", 16, 13, true, false),
    ],
    fields: FIELDS_64K,
    shapes: shapes(FIELDS_64K),
    cite: SIZES,
    ..ARM64_64K.again()
};

const FIELDS_4K: &[Field] = &below::<{ left(ARM64_4K.fields, 1) }>(ARM64_4K.fields, 1);
const FIELDS_16K_36: &[Field] = &below::<{ left(ARM64_16K.fields, 2) }>(ARM64_16K.fields, 2);
const FIELDS_16K_47: &[Field] = &below::<{ left(ARM64_16K.fields, 1) }>(ARM64_16K.fields, 1);
const FIELDS_64K: &[Field] = &below::<{ left(ARM64_64K.fields, 1) }>(ARM64_64K.fields, 1);

/// How many of the fields are of some level behind the first `levels`.
const fn left(fields: &[Field], levels: u32) -> usize {
    let (mut n, mut count) = (0, 0);
    while n < fields.len() {
        if fields[n].levels >> levels != 0 {
            count += 1;
        }
        n += 1;
    }
    count
}

/// These fields, by the levels that are left.
const fn below<const N: usize>(fields: &[Field], levels: u32) -> [Field; N] {
    let none = field("", 0, 1, 0, Kinds::Both, Role::Ignored, "", SIZES);
    let mut all = [none; N];
    let (mut n, mut at) = (0, 0);
    while n < fields.len() {
        if fields[n].levels >> levels != 0 {
            all[at] = Field { levels: fields[n].levels >> levels, ..fields[n] };
            at += 1;
        }
        n += 1;
    }
    all
}
