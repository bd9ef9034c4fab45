//! powerpc radix trees, process-scoped, with 4 KiB and 64 KiB base pages.
//!
//! Entries are big-endian in memory in both kernel byte orders. Leaves: base page, 2 MiB, 1 GiB.
//! Source: Power ISA 3.1B Book III 'Radix Tree Translation'; bits and Linux's names from
//! `book3s/64/pgtable.h` and `radix.h`. There is no global bit: a page is common to all processes
//! because its address is in quadrant 3, whose tables are process 0's.
//!
//! Not modelled: partition-scoped trees, that non-idempotent storage is not executed
//! (ATT), and reference and change faults (R and C are kept as bits; Linux sets both in kernel
//! entries).

use super::field::{Field, Kinds, Role, field as f};
use super::power64::{ALL, EXECUTE, PMD, PTE, PUD, STORE, STYLE, UPPER, USER, fields};
use super::shape::shapes;
use super::{Canonical, Format, level};
use crate::cite::Cite;
use crate::isa::Arch;
use crate::perm::Perm;

const QEMU: Cite =
    Cite::read("QEMU 5.0.1 target/ppc/mmu-radix64.h (R_PDE_NLB, R_PDE_NLS, R_PTE_RPN)");
const ISA: Cite = Cite::deduced(
    "Power ISA 3.0C Book III 6.7.10.1 and 6.7.10.2, as libre-soc's MMU (RTPDE, RTPTE) has them",
);
/// QEMU 7.2 ignores these bits; that they must be 0 was not found.
const ALIGNED: Cite = Cite::memory("Power ISA 3.1B Book III, RPN of a large leaf");
const LINUX: Cite = Cite::read("Linux 7.0 arch/powerpc/include/asm/book3s/64/pgtable.h, radix.h");

/// 4 KiB base pages: index bits 13, 9, 9, 9.
pub static RADIX_4K: Format = Format {
    name: "powerpc radix 4k",
    page_shift: 12,
    levels: &[
        level("PGD", "PDE", 39, 13, false, true),
        level("PUD", "PDE", 30, 9, true, true),
        level("PMD", "PDE", 21, 9, true, true),
        level("PTE", "PTE", 12, 9, true, false),
    ],
    fields: FIELDS_4K,
    shapes: shapes(FIELDS_4K),
    ..COMMON
};

/// 64 KiB base pages: index bits 13, 9, 9, 5.
pub static RADIX_64K: Format = Format {
    name: "powerpc radix 64k",
    page_shift: 16,
    levels: &[
        level("PGD", "PDE", 39, 13, false, true),
        level("PUD", "PDE", 30, 9, true, true),
        level("PMD", "PDE", 21, 9, true, true),
        level("PTE", "PTE", 16, 5, true, false),
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
    pa_bits: 57,
    big_endian: true,
    levels: &[],
    fields: &[],
    style: STYLE,
    shapes: shapes(&[]),
    canonical: Canonical::Quadrant,
    cite: Cite::deduced("Power ISA 3.1B Book III; held against QEMU 7.2 (tests/mmu/ORACLE.md)"),
};

/// The fields of the tree: those of either base page, and those of one.
macro_rules! own {
    ($($last:expr),+) => {
        fields!(LINUX;
            f("RSV1", 6, 1, ALL, Kinds::Leaf, Role::Ignored, "reserved", ISA),
            f("RSV4", 9, 1, ALL, Kinds::Leaf, Role::Software, "special, or soft dirty", LINUX),
            f("RSV3", 10, 1, ALL, Kinds::Leaf, Role::Software, "device map", LINUX),
            f("RSV2", 11, 1, ALL, Kinds::Leaf, Role::Software, "soft dirty, or huge", LINUX),
            f("NLS", 0, 5, UPPER, Kinds::Table, Role::NextLevelBits, "index bits of the next table",
                QEMU),
            f("RESERVED", 5, 3, UPPER, Kinds::Table, Role::Reserved, "must be 0", ISA),
            f("NLB", 8, 52, UPPER, Kinds::Table, Role::Address, "next table, 256-byte aligned",
                QEMU),
            f("RESERVED", 60, 2, UPPER, Kinds::Table, Role::Reserved, "must be 0", ISA),
            f("RPN", 21, 36, PMD, Kinds::Leaf, Role::Address, "2 MiB frame", QEMU),
            f("RESERVED", 12, 9, PMD, Kinds::Leaf, Role::Reserved, "must be 0 in a 2 MiB leaf",
                ALIGNED),
            f("RPN", 30, 27, PUD, Kinds::Leaf, Role::Address, "1 GiB frame", QEMU),
            f("RESERVED", 12, 18, PUD, Kinds::Leaf, Role::Reserved, "must be 0 in a 1 GiB leaf",
                ALIGNED),
            $($last,)+
            f("PKEY", 57, 2, ALL, Kinds::Leaf, Role::Attribute, "key bits 0 and 1", LINUX),
            f("PKEY", 59, 1, ALL, Kinds::Leaf, Role::Attribute, "key bit 2", LINUX),
            f("RSV0", 60, 2, ALL, Kinds::Leaf, Role::Software, "software, key bits", LINUX),
        )
    };
}

#[rustfmt::skip]
const FIELDS_4K: &[Field] = own!(
    f("RPN", 12, 45, PTE, Kinds::Leaf, Role::Address, "4 KiB frame", QEMU)
);
#[rustfmt::skip]
const FIELDS_64K: &[Field] = own!(
    f("RESERVED", 12, 4, PTE, Kinds::Leaf, Role::Reserved, "must be 0 in a 64 KiB leaf",
        ALIGNED),
    f("RPN", 16, 41, PTE, Kinds::Leaf, Role::Address, "64 KiB frame", QEMU)
);
