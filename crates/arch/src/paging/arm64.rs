//! arm64 VMSAv8-64 stage 1 at EL1&0: granules of 4, 16 and 64 KiB, with 48 and with 52 bits.
//!
//! Leaves: 4 KiB pages, 2 MiB and 1 GiB blocks; 16 KiB pages and 32 MiB blocks; 64 KiB pages and
//! 512 MiB blocks. With 52 bits also 512 GiB, 64 GiB and 4 TiB blocks. The additional address bits
//! lie elsewhere in an entry: with 4 and 16 KiB (LPA2, TCR_EL1.DS set) bits 50 and 51 in the place
//! of the shareability, which TCR_EL1 then has for all; with 64 KiB (LPA) bits 48 to 51 in bits 12
//! to 15. The contiguous bit groups 16 entries with 4 KiB, 128 pages or 32 blocks with
//! 16 KiB, 32 with 64 KiB granules. Source: Arm ARM DDI 0487 D8.3 'Translation table
//! descriptor formats'; the kernel's names and software bits from `pgtable-hwdef.h` and
//! `pgtable-prot.h`. WRITE is granted by RDONLY = 0; bit 51, which Linux calls PTE_WRITE and the
//! manual DBM, grants it as well where TCR_EL1.HA and HD are set, for then a store clears RDONLY
//! itself: to every rule the page is writable, to those about fetches too (Arm's pseudocode of the
//! permissions that stage 1 has).
//!
//! What bits 6, 51, 53 and 54 are under permission indirection: [`super::Indirection`].
//!
//! Not modelled: stage 2, the guarded page bit's effect, NS and NSTable.

use super::codec::{DirtyRule, KernelStyle};
use super::field::{Field, Kinds, Role, field as f};
use super::shape::shapes;
use super::{Canonical, Format, level};
use crate::cite::Cite;
use crate::isa::Arch;
use crate::perm::Perm;

const ARM: Cite =
    Cite::read("Arm ARM DDI 0487 D8.3.1 (VMSAv8-64 descriptor formats, tables D8-50 and D8-52)");
const LINUX: Cite = Cite::read("Linux 7.0 arch/arm64/include/asm/pgtable-hwdef.h, pgtable-prot.h");
const WIDE: Cite =
    Cite::read("Linux 7.0 arch/arm64/include/asm/pgtable-hwdef.h (PTE_ADDR_HIGH), pgtable.h");
const CONTIGUOUS: Cite = Cite::read("Arm ARM DDI 0487 D8.7.1 (Contiguous bit)");

/// The format.
pub static ARM64_4K: Format = Format {
    name: "arm64 4k 48-bit",
    arch: Arch::Arm64,
    page_shift: 12,
    va_bits: 48,
    pa_bits: 48,
    big_endian: false,
    levels: &[
        level("PGD", "level 0", 39, 9, false, true),
        level("PUD", "level 1", 30, 9, true, true),
        level("PMD", "level 2", 21, 9, true, true),
        level("PTE", "level 3", 12, 9, true, false),
    ],
    fields: FIELDS,
    style: STYLE,
    shapes: shapes(FIELDS),
    canonical: Canonical::AllEqual,
    cite: Cite::deduced(
        "Arm ARM DDI 0487 D8.3; leaves of real kernels compared with another walker",
    ),
};

/// 16 KiB granule.
pub static ARM64_16K: Format = Format {
    name: "arm64 16k 48-bit",
    page_shift: 14,
    levels: &[
        level("PGD", "level 0", 47, 1, false, true),
        level("PUD", "level 1", 36, 11, false, true),
        level("PMD", "level 2", 25, 11, true, true),
        level("PTE", "level 3", 14, 11, true, false),
    ],
    fields: FIELDS_16K,
    shapes: shapes(FIELDS_16K),
    ..OTHER
};

/// 64 KiB granule; the tree begins at level 1.
pub static ARM64_64K: Format = Format {
    name: "arm64 64k 48-bit",
    page_shift: 16,
    levels: &[
        level("PGD", "level 1", 42, 6, false, true),
        level("PMD", "level 2", 29, 13, true, true),
        level("PTE", "level 3", 16, 13, true, false),
    ],
    fields: FIELDS_64K,
    shapes: shapes(FIELDS_64K),
    ..OTHER
};

/// 4 KiB granule with LPA2.
pub static ARM64_4K_LPA2: Format = Format {
    name: "arm64 4k 52-bit",
    page_shift: 12,
    va_bits: 52,
    pa_bits: 52,
    levels: &[
        level("PGD", "level -1", 48, 4, false, true),
        level("P4D", "level 0", 39, 9, true, true),
        level("PUD", "level 1", 30, 9, true, true),
        level("PMD", "level 2", 21, 9, true, true),
        level("PTE", "level 3", 12, 9, true, false),
    ],
    fields: FIELDS_4K_LPA2,
    style: STYLE_LPA2,
    shapes: shapes(FIELDS_4K_LPA2),
    ..OTHER_52
};

/// 16 KiB granule with LPA2.
pub static ARM64_16K_LPA2: Format = Format {
    name: "arm64 16k 52-bit",
    page_shift: 14,
    levels: &[
        level("PGD", "level 0", 47, 5, false, true),
        level("PUD", "level 1", 36, 11, true, true),
        level("PMD", "level 2", 25, 11, true, true),
        level("PTE", "level 3", 14, 11, true, false),
    ],
    fields: FIELDS_16K_LPA2,
    style: STYLE_LPA2,
    shapes: shapes(FIELDS_16K_LPA2),
    ..OTHER_52
};

/// 64 KiB granule with LPA and LVA.
pub static ARM64_64K_LPA: Format = Format {
    name: "arm64 64k 52-bit",
    page_shift: 16,
    levels: &[
        level("PGD", "level 1", 42, 10, true, true),
        level("PMD", "level 2", 29, 13, true, true),
        level("PTE", "level 3", 16, 13, true, false),
    ],
    fields: FIELDS_64K_LPA,
    shapes: shapes(FIELDS_64K_LPA),
    ..OTHER_52
};

const OTHER_52: Format = Format {
    va_bits: 52,
    pa_bits: 52,
    cite: Cite::deduced(
        "Arm ARM DDI 0487 D8.3; Linux 7.0 pgtable-hwdef.h; held against QEMU 7.2 (ORACLE.md)",
    ),
    ..OTHER
};

const OTHER: Format = Format {
    name: "",
    arch: Arch::Arm64,
    page_shift: 0,
    va_bits: 48,
    pa_bits: 48,
    big_endian: false,
    levels: &[],
    fields: &[],
    style: STYLE,
    shapes: shapes(&[]),
    canonical: Canonical::AllEqual,
    cite: Cite::deduced("Arm ARM DDI 0487 D8.3; held against QEMU 5.0.1 (ORACLE.md)"),
};

/// Kernel leaves are inner shareable with the Access flag; kernel tables have UXNTable.
const STYLE: KernelStyle = KernelStyle {
    leaf_bits: 3 << 8 | 1 << 10,
    table_bits: 0,
    table_denies: Perm::USER_EXEC,
    dirty_recent: DirtyRule::Always,
    dirty_older: DirtyRule::Never,
};

/// The same where the shareability is TCR_EL1's.
const STYLE_LPA2: KernelStyle = KernelStyle { leaf_bits: 1 << 10, ..STYLE };

const ALL: u8 = 0b1111;
const PUD: u8 = 0b0010;
const PMD: u8 = 0b0100;
const PTE: u8 = 0b1000;
const UPPER: u8 = 0b0111;

/// The fields of a granule: those that all have, and those that depend on the sizes of leaves.
macro_rules! fields {
    ($all:expr, $upper:expr, $last:expr; $($own:expr),+ $(,)?) => {
        &[
            $($own,)+
            f("VALID", 0, 1, $all, Kinds::Both, Role::Valid, "valid", LINUX),
            f("TYPE", 1, 1, $upper, Kinds::Both, Role::LeafIf(0),
                "1 table, 0 block (no block at level 0)",
                LINUX),
            f("TYPE", 1, 1, $last, Kinds::Both, Role::LeafIf(1), "1 page, 0 reserved", LINUX),
            f("ATTR", 2, 3, $all, Kinds::Leaf, Role::MemoryType,
                "index into MAIR_EL1; 0 is normal memory",
                LINUX),
            f("NS", 5, 1, $all, Kinds::Leaf, Role::Attribute,
                "non-secure; RES0 outside Secure state", ARM),
            f("USER", 6, 1, $all, Kinds::Leaf, Role::Grant(Perm::USER),
                "AP[1]: EL0 may read and write",
                LINUX),
            f("RDONLY", 7, 1, $all, Kinds::Leaf, Role::Deny(Perm::WRITE),
                "AP[2]: read-only", LINUX),
            f("AF", 10, 1, $all, Kinds::Leaf, Role::Accessed, "Access flag", LINUX),
            f("NG", 11, 1, $all, Kinds::Leaf, Role::Deny(Perm::GLOBAL),
                "not global: tagged with the ASID",
                LINUX),
            f("GP", 50, 1, $all, Kinds::Leaf, Role::Attribute, "guarded page (FEAT_BTI)", LINUX),
            f("DBM", 51, 1, $all, Kinds::Leaf, Role::GrantIfHardwareDirty(Perm::WRITE),
                "dirty bit modifier; the kernel's WRITE", LINUX),
            f("CONT", 52, 1, $all, Kinds::Leaf, Role::Contiguous,
                "one of 16 entries that translate contiguously", CONTIGUOUS),
            f("PXN", 53, 1, $all, Kinds::Leaf, Role::Deny(Perm::EXEC),
                "EL1 may not execute", LINUX),
            f("UXN", 54, 1, $all, Kinds::Leaf, Role::Deny(Perm::USER_EXEC),
                "EL0 may not execute", LINUX),
            f("DIRTY", 55, 1, $all, Kinds::Leaf, Role::Dirty, "software dirty", LINUX),
            f("SPECIAL", 56, 1, $all, Kinds::Leaf, Role::Software, "special mapping", LINUX),
            f("SOFTW", 57, 2, $all, Kinds::Leaf, Role::Software, "free for software", ARM),
            f("PBHA", 59, 4, $all, Kinds::Leaf, Role::Ignored,
                "page-based hardware attributes, or ignored",
                ARM),
            f("SOFTW", 63, 1, $all, Kinds::Leaf, Role::Software,
                "free for software outside Secure state", ARM),
            f("IGNORED", 51, 8, $upper, Kinds::Table, Role::Ignored, "ignored", ARM),
            f("PXNTable", 59, 1, $upper, Kinds::Table, Role::Deny(Perm::EXEC),
                "nothing below is executable at EL1", LINUX),
            f("UXNTable", 60, 1, $upper, Kinds::Table, Role::Deny(Perm::USER_EXEC),
                "nothing below is executable at EL0", LINUX),
            f("APTable0", 61, 1, $upper, Kinds::Table, Role::Deny(EL0_DATA),
                "nothing below is accessible at EL0", ARM),
            f("APTable1", 62, 1, $upper, Kinds::Table, Role::Deny(Perm::WRITE),
                "nothing below is writable",
                ARM),
            f("NSTable", 63, 1, $upper, Kinds::Table, Role::Attribute,
                "next table is non-secure; RES0 outside Secure state", ARM),
        ]
    };
}

/// With the shareability in each entry, and addresses of 48 bits in place.
macro_rules! short {
    ($all:expr, $upper:expr, $last:expr; $($own:expr),+ $(,)?) => {
        fields!($all, $upper, $last;
            f("SH", 8, 2, $all, Kinds::Leaf, Role::MemoryType, "shareability; 3 is inner", LINUX),
            f("IGNORED", 2, 10, $upper, Kinds::Table, Role::Ignored,
                "ignored; software, bit 10 is the table Access flag with FEAT_HAFT", ARM),
            f("RESERVED", 48, 2, $all, Kinds::Leaf, Role::Reserved, "must be 0", ARM),
            f("RESERVED", 48, 3, $upper, Kinds::Table, Role::Reserved, "must be 0", ARM),
            $($own),+
        )
    };
}

/// With two bits of the address where the shareability was.
macro_rules! lpa2 {
    ($all:expr, $upper:expr, $last:expr; $($own:expr),+ $(,)?) => {
        fields!($all, $upper, $last;
            f("ADDR_HIGH", 8, 2, $all, Kinds::Both, Role::AddressFrom(50),
                "bits 50 and 51 of the address", WIDE),
            f("IGNORED", 2, 6, $upper, Kinds::Table, Role::Ignored, "ignored", ARM),
            f("IGNORED", 10, 2, $upper, Kinds::Table, Role::Ignored,
                "ignored; software, bit 10 is the table Access flag with FEAT_HAFT", ARM),
            f("RESERVED", 50, 1, $upper, Kinds::Table, Role::Reserved, "must be 0", ARM),
            $($own),+
        )
    };
}

#[rustfmt::skip]
const FIELDS: &[Field] = short!(ALL, UPPER, PTE;
    f("ADDR", 12, 36, ALL, Kinds::Table, Role::Address, "next table", ARM),
    f("ADDR", 12, 36, PTE, Kinds::Leaf, Role::Address, "4 KiB frame", ARM),
    f("RESERVED", 12, 4, PUD | PMD, Kinds::Leaf, Role::Reserved, "must be 0 in a block", ARM),
    f("NT", 16, 1, PUD | PMD, Kinds::Leaf, Role::Attribute,
        "block translation entry not to be cached (FEAT_BBML1)", ARM),
    f("RESERVED", 17, 4, PMD, Kinds::Leaf, Role::Reserved, "must be 0 in a 2 MiB block", ARM),
    f("ADDR", 21, 27, PMD, Kinds::Leaf, Role::Address, "2 MiB frame", ARM),
    f("RESERVED", 17, 13, PUD, Kinds::Leaf, Role::Reserved, "must be 0 in a 1 GiB block", ARM),
    f("ADDR", 30, 18, PUD, Kinds::Leaf, Role::Address, "1 GiB frame", ARM)
);

/// Levels 0 to 3; blocks at level 2 only.
#[rustfmt::skip]
const FIELDS_16K: &[Field] = short!(ALL, UPPER, PTE;
    f("RESERVED", 12, 2, ALL, Kinds::Table, Role::Reserved, "must be 0", ARM),
    f("ADDR", 14, 34, ALL, Kinds::Table, Role::Address, "next table", ARM),
    f("RESERVED", 12, 2, PTE, Kinds::Leaf, Role::Reserved, "must be 0", ARM),
    f("ADDR", 14, 34, PTE, Kinds::Leaf, Role::Address, "16 KiB frame", ARM),
    f("RESERVED", 12, 4, PMD, Kinds::Leaf, Role::Reserved, "must be 0 in a block", ARM),
    f("NT", 16, 1, PMD, Kinds::Leaf, Role::Attribute,
        "block translation entry not to be cached (FEAT_BBML1)", ARM),
    f("RESERVED", 17, 8, PMD, Kinds::Leaf, Role::Reserved, "must be 0 in a 32 MiB block", ARM),
    f("ADDR", 25, 23, PMD, Kinds::Leaf, Role::Address, "32 MiB frame", ARM)
);

/// Levels 1 to 3 of the manual are 0 to 2 here.
#[rustfmt::skip]
const FIELDS_64K: &[Field] = short!(0b111, 0b011, 0b100;
    f("RESERVED", 12, 4, 0b111, Kinds::Table, Role::Reserved, "must be 0 without LPA", ARM),
    f("ADDR", 16, 32, 0b111, Kinds::Table, Role::Address, "next table", ARM),
    f("RESERVED", 12, 4, 0b100, Kinds::Leaf, Role::Reserved, "must be 0 without LPA", ARM),
    f("ADDR", 16, 32, 0b100, Kinds::Leaf, Role::Address, "64 KiB frame", ARM),
    f("RESERVED", 12, 4, 0b010, Kinds::Leaf, Role::Reserved, "must be 0 without LPA", ARM),
    f("NT", 16, 1, 0b010, Kinds::Leaf, Role::Attribute,
        "block translation entry not to be cached (FEAT_BBML1)", ARM),
    f("RESERVED", 17, 12, 0b010, Kinds::Leaf, Role::Reserved, "must be 0 in a 512 MiB block", ARM),
    f("ADDR", 29, 19, 0b010, Kinds::Leaf, Role::Address, "512 MiB frame", ARM)
);

/// Levels -1 to 3 of the manual are 0 to 4 here.
#[rustfmt::skip]
const FIELDS_4K_LPA2: &[Field] = lpa2!(0b1_1111, 0b0_1111, 0b1_0000;
    f("ADDR", 12, 38, 0b0_1111, Kinds::Table, Role::Address, "next table", WIDE),
    f("ADDR", 12, 38, 0b1_0000, Kinds::Leaf, Role::Address, "4 KiB frame", WIDE),
    f("RESERVED", 12, 4, 0b0_1110, Kinds::Leaf, Role::Reserved, "must be 0 in a block", ARM),
    f("NT", 16, 1, 0b0_1110, Kinds::Leaf, Role::Attribute,
        "block translation entry not to be cached (FEAT_BBML1)", ARM),
    f("RESERVED", 17, 4, 0b0_1000, Kinds::Leaf, Role::Reserved, "must be 0 in a 2 MiB block", ARM),
    f("ADDR", 21, 29, 0b0_1000, Kinds::Leaf, Role::Address, "2 MiB frame", ARM),
    f("RESERVED", 17, 13, 0b0_0100, Kinds::Leaf, Role::Reserved, "must be 0 in a 1 GiB block", ARM),
    f("ADDR", 30, 20, 0b0_0100, Kinds::Leaf, Role::Address, "1 GiB frame", ARM),
    f("RESERVED", 17, 22, 0b0_0010, Kinds::Leaf, Role::Reserved,
        "must be 0 in a 512 GiB block", ARM),
    f("ADDR", 39, 11, 0b0_0010, Kinds::Leaf, Role::Address, "512 GiB frame", ARM)
);

/// Levels 0 to 3; blocks at levels 1 and 2.
#[rustfmt::skip]
const FIELDS_16K_LPA2: &[Field] = lpa2!(ALL, UPPER, PTE;
    f("RESERVED", 12, 2, UPPER, Kinds::Table, Role::Reserved, "must be 0", ARM),
    f("ADDR", 14, 36, UPPER, Kinds::Table, Role::Address, "next table", WIDE),
    f("RESERVED", 12, 2, PTE, Kinds::Leaf, Role::Reserved, "must be 0", ARM),
    f("ADDR", 14, 36, PTE, Kinds::Leaf, Role::Address, "16 KiB frame", WIDE),
    f("RESERVED", 12, 4, PUD | PMD, Kinds::Leaf, Role::Reserved, "must be 0 in a block", ARM),
    f("NT", 16, 1, PUD | PMD, Kinds::Leaf, Role::Attribute,
        "block translation entry not to be cached (FEAT_BBML1)", ARM),
    f("RESERVED", 17, 8, PMD, Kinds::Leaf, Role::Reserved, "must be 0 in a 32 MiB block", ARM),
    f("ADDR", 25, 25, PMD, Kinds::Leaf, Role::Address, "32 MiB frame", ARM),
    f("RESERVED", 17, 19, PUD, Kinds::Leaf, Role::Reserved, "must be 0 in a 64 GiB block", ARM),
    f("ADDR", 36, 14, PUD, Kinds::Leaf, Role::Address, "64 GiB frame", ARM)
);

/// Levels 1 to 3 of the manual are 0 to 2 here; blocks at levels 1 and 2.
#[rustfmt::skip]
const FIELDS_64K_LPA: &[Field] = short!(0b111, 0b011, 0b100;
    f("ADDR_HIGH", 12, 4, 0b111, Kinds::Both, Role::AddressFrom(48),
        "bits 48 to 51 of the address", WIDE),
    f("ADDR", 16, 32, 0b011, Kinds::Table, Role::Address, "next table", WIDE),
    f("ADDR", 16, 32, 0b100, Kinds::Leaf, Role::Address, "64 KiB frame", WIDE),
    f("NT", 16, 1, 0b011, Kinds::Leaf, Role::Attribute,
        "block translation entry not to be cached (FEAT_BBML1)", ARM),
    f("RESERVED", 17, 12, 0b010, Kinds::Leaf, Role::Reserved, "must be 0 in a 512 MiB block", ARM),
    f("ADDR", 29, 19, 0b010, Kinds::Leaf, Role::Address, "512 MiB frame", ARM),
    f("RESERVED", 17, 25, 0b001, Kinds::Leaf, Role::Reserved, "must be 0 in a 4 TiB block", ARM),
    f("ADDR", 42, 6, 0b001, Kinds::Leaf, Role::Address, "4 TiB frame", ARM)
);

/// What APTable\[0\] takes away: data accesses at EL0. Execute-only pages stay fetchable.
const EL0_DATA: Perm = Perm::USER;
