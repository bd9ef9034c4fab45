//! The tree that Linux keeps where 64-bit powerpc translates by a hashed table, with 4 KiB and
//! 64 KiB base pages.
//!
//! No CPU walks it: an access that finds no hashed entry faults, and the kernel makes one from the
//! leaf that it finds here ([`crate::hashed`] has the format of those). So what a leaf grants is
//! what a fault may make of it, not what a CPU may still use. The direct map and the kernel's image
//! are not in it at all: their hashed entries are bolted.
//!
//! Entries are big-endian in both kernel byte orders, and the permission bits are radix's. The
//! bits that say which hashed entry belongs to a leaf are software's; with 64 KiB pages the slot
//! stands in a second half of the table, which has no format here. Not modelled: hugepd tables
//! (large pages of 4 KiB kernels), 4 KiB parts of 64 KiB pages (COMBO, 4K_PFN), swap entries.

use super::field::{Field, Kinds, Role, field as f};
use super::power64::{ALL, EXECUTE, PMD, PTE, PUD, STORE, STYLE, UPPER, USER, fields};
use super::shape::shapes;
use super::{Canonical, Format, level};
use crate::cite::Cite;
use crate::isa::Arch;
use crate::perm::Perm;

const LINUX: Cite = Cite::read(
    "Linux arch/powerpc/include/asm/book3s/64/pgtable.h (as of 5.11: _RPAGE_PKEY_BIT, \
     _PAGE_PA_MAX, PMD_MASKED_BITS)",
);
const HASH: Cite = Cite::read(
    "Linux arch/powerpc/include/asm/book3s/64/hash.h (HASH_PMD_VAL_BITS, H_PMD_BAD_BITS)",
);
const HASH_4K: Cite = Cite::read(
    "Linux arch/powerpc/include/asm/book3s/64/hash-4k.h (as of 5.11: H_PAGE_F_SECOND is \
     _RPAGE_PKEY_BIT0)",
);
const HASH_64K: Cite =
    Cite::read("Linux arch/powerpc/include/asm/book3s/64/hash-64k.h (as of 5.11)");
const WITHOUT: Cite = Cite::deduced("Linux arch/powerpc/include/asm/book3s/64/hash-64k.h");

/// 4 KiB base pages: index bits 9, 9, 7, 9.
pub static HASH_TREE_4K: Format = Format {
    name: "powerpc hash 4k",
    page_shift: 12,
    va_bits: 46,
    levels: &[
        level("PGD", "PGD", 37, 9, false, true),
        level("PUD", "PUD", 28, 9, false, true),
        level("PMD", "PMD", 21, 7, false, true),
        level("PTE", "PTE", 12, 9, true, false),
    ],
    fields: FIELDS_4K,
    shapes: shapes(FIELDS_4K),
    ..COMMON
};

/// 64 KiB base pages: index bits 8, 10, 10, 8; leaves of 16 MiB and 16 GiB are huge pages.
pub static HASH_TREE_64K: Format = Format {
    name: "powerpc hash 64k",
    page_shift: 16,
    va_bits: 52,
    levels: &[
        level("PGD", "PGD", 44, 8, false, true),
        level("PUD", "PUD", 34, 10, true, true),
        level("PMD", "PMD", 24, 10, true, true),
        level("PTE", "PTE", 16, 8, true, false),
    ],
    fields: FIELDS_64K,
    shapes: shapes(FIELDS_64K),
    ..COMMON
};

const COMMON: Format = Format {
    name: "",
    arch: Arch::Ppc64le,
    page_shift: 12,
    va_bits: 52,
    pa_bits: 53,
    big_endian: true,
    levels: &[],
    fields: &[],
    style: STYLE,
    shapes: shapes(&[]),
    canonical: Canonical::Quadrant,
    cite: LINUX,
};

/// The fields of the tree: those of either base page, and those of one.
macro_rules! own {
    ($($own:expr),+) => {
        fields!(LINUX;
            f("H_BUSY", 6, 1, ALL, Kinds::Leaf, Role::Software, "being hashed", HASH_4K),
            f("SW", 9, 3, ALL, Kinds::Leaf, Role::Software, "soft dirty, special, device map",
                LINUX),
            f("LOW", 0, 8, UPPER, Kinds::Table, Role::Reserved, "must be 0", HASH),
            f("TABLE", 8, 54, UPPER, Kinds::Table, Role::Address, "next table", LINUX),
            $($own,)+
            f("SW0", 61, 1, ALL, Kinds::Leaf, Role::Software, "being split, if not present",
                LINUX),
        )
    };
}

// No leaf but the last level's has a use with 4 KiB pages; bits are given to all, as one table.
#[rustfmt::skip]
const FIELDS_4K: &[Field] = own!(
    f("RPN", 12, 41, PTE, Kinds::Leaf, Role::Address, "4 KiB frame", LINUX),
    f("H_SLOT", 53, 3, ALL, Kinds::Leaf, Role::Software, "slot in the group", HASH_4K),
    f("H_SECOND", 56, 1, ALL, Kinds::Leaf, Role::Software, "in the secondary group", HASH_4K),
    f("PKEY", 57, 3, ALL, Kinds::Leaf, Role::Attribute, "key bits 0 to 2", HASH_4K),
    f("H_HASHED", 60, 1, ALL, Kinds::Leaf, Role::Software, "a hashed entry was made", HASH_4K)
);
#[rustfmt::skip]
const FIELDS_64K: &[Field] = own!(
    f("RPN", 16, 37, PTE, Kinds::Leaf, Role::Address, "64 KiB frame", LINUX),
    f("RPN", 24, 29, PMD, Kinds::Leaf, Role::Address, "16 MiB frame", LINUX),
    f("RPN", 34, 19, PUD, Kinds::Leaf, Role::Address, "16 GiB frame", LINUX),
    f("H_COMBO", 12, 1, ALL, Kinds::Leaf, Role::Software, "hashed by 4 KiB parts", HASH_64K),
    f("H_4K_PFN", 13, 1, ALL, Kinds::Leaf, Role::Software, "one 4 KiB page, or THP", HASH_64K),
    f("LOW_RPN", 14, 2, PTE, Kinds::Leaf, Role::Ignored, "of no use", WITHOUT),
    f("LOW_RPN", 14, 10, PMD, Kinds::Leaf, Role::Ignored, "of no use", WITHOUT),
    f("LOW_RPN", 14, 20, PUD, Kinds::Leaf, Role::Ignored, "of no use", WITHOUT),
    f("HIGH_RPN", 53, 2, ALL, Kinds::Leaf, Role::Ignored, "of no use", WITHOUT),
    f("H_HASHED", 55, 1, ALL, Kinds::Leaf, Role::Software, "a hashed entry was made", HASH_64K),
    f("PKEY", 56, 5, ALL, Kinds::Leaf, Role::Attribute, "key", HASH_64K)
);
