//! x86-64 paging with 4 and 5 levels: 4 KiB, 2 MiB and 1 GiB leaves.
//!
//! Source: Intel SDM 3A 4.5 and AMD APM vol 2 5.3 and 5.4, the entry of a 4 KiB page by the latter.
//! Where they differ, Intel's: bit 8 of a PML4E is ignored, to AMD it must be 0. Bits 9 to 11, 57
//! and 58 are software's; the kernel's uses are from `pgtable_types.h`. Not modelled: the
//! shadow-stack reading of D without R/W. The bit of memory encryption is a control
//! ([`super::Controls::x86_encryption_bit`]), for each CPU says which one it is.

use super::codec::{DirtyRule, KernelStyle};
use super::field::{Field, Kinds, Role, field as f};
use super::shape::shapes;
use super::{Canonical, Format, level};
use crate::cite::Cite;
use crate::isa::Arch;
use crate::perm::Perm;

const SDM: Cite = Cite::read(
    "SDM 3A 4.5, tables 4-14, 4-15, 4-17, 4-18 (325384-059); AMD APM vol 2 5.3.3 to 5.4.1 (3.44)",
);
const SDM_RIGHTS: Cite =
    Cite::read("SDM 3A 4.10.3 (325384-059): R/W, U/S, XD combined over levels");
const LINUX: Cite = Cite::read("Linux 7.0 arch/x86/include/asm/pgtable_types.h");

/// The format.
pub static X86_64_4LEVEL: Format = Format {
    name: "x86-64 4-level",
    arch: Arch::X86_64,
    page_shift: 12,
    va_bits: 48,
    pa_bits: 52,
    big_endian: false,
    levels: &[
        level("PGD", "PML4E", 39, 9, false, true),
        level("PUD", "PDPTE", 30, 9, true, true),
        level("PMD", "PDE", 21, 9, true, true),
        level("PTE", "PTE", 12, 9, true, false),
    ],
    fields: FIELDS,
    style: STYLE,
    shapes: shapes(FIELDS),
    canonical: Canonical::SignExtended,
    cite: Cite::deduced("SDM 3A 4.5; leaves of real kernels compared with QEMU 7.2's listing"),
};

/// The format with CR4.LA57: one more level on top, of the same form as the one below it.
pub static X86_64_5LEVEL: Format = Format {
    name: "x86-64 5-level",
    va_bits: 57,
    levels: &[
        level("PGD", "PML5E", 48, 9, false, true),
        level("P4D", "PML4E", 39, 9, false, true),
        level("PUD", "PDPTE", 30, 9, true, true),
        level("PMD", "PDE", 21, 9, true, true),
        level("PTE", "PTE", 12, 9, true, false),
    ],
    fields: &FIELDS_5LEVEL,
    shapes: shapes(&FIELDS_5LEVEL),
    arch: Arch::X86_64,
    page_shift: 12,
    pa_bits: 52,
    big_endian: false,
    style: STYLE,
    canonical: Canonical::SignExtended,
    cite: Cite::deduced("SDM 3A 4.5 (5-level paging); held against QEMU 5.0.1 (ORACLE.md)"),
};

/// The fields with a level above: what every level has, it has too; what the root had, it and the
/// level below it have.
static FIELDS_5LEVEL: [Field; FIELDS.len()] = deeper(FIELDS);

const fn deeper<const N: usize>(from: &[Field]) -> [Field; N] {
    let mut fields = [from[0]; N];
    let mut i = 0;
    while i < N {
        fields[i] = from[i];
        fields[i].levels = match from[i].levels {
            ALL => 0b1_1111,
            PGD => 0b0_0011,
            other => other << 1,
        };
        i += 1;
    }
    fields
}

/// Kernel leaves have A; kernel table entries (_KERNPG_TABLE) have P, RW, A and D and no US.
const STYLE: KernelStyle = KernelStyle {
    leaf_bits: 1 << 5,
    table_bits: 1 << 5 | 1 << 6,
    table_denies: Perm::USER.union(Perm::USER_EXEC),
    dirty_recent: DirtyRule::IfWritable,
    dirty_older: DirtyRule::Always,
};

const ALL: u8 = 0b1111;
const PGD: u8 = 0b0001;
const PUD: u8 = 0b0010;
const PMD: u8 = 0b0100;
const PTE: u8 = 0b1000;
const EXECUTE: Perm = Perm::EXEC.union(Perm::USER_EXEC);
const USER: Perm = Perm::USER.union(Perm::USER_EXEC);

#[rustfmt::skip]
const FIELDS: &[Field] = &[
    f("P", 0, 1, ALL, Kinds::Both, Role::Valid, "present", SDM),
    f("RW", 1, 1, ALL, Kinds::Both, Role::Grant(Perm::WRITE), "writable, and over all levels",
        SDM_RIGHTS),
    f("US", 2, 1, ALL, Kinds::Both, Role::Grant(USER), "user, and over all levels", SDM_RIGHTS),
    f("PWT", 3, 1, ALL, Kinds::Both, Role::MemoryType, "write-through (PAT index bit 0)", SDM),
    f("PCD", 4, 1, ALL, Kinds::Both, Role::MemoryType, "cache disable (PAT index bit 1)", SDM),
    f("A", 5, 1, ALL, Kinds::Both, Role::Ignored, "accessed; hardware sets it", SDM),
    f("D", 6, 1, ALL, Kinds::Leaf, Role::Dirty, "dirty; hardware sets it", SDM),
    f("D (ignored)", 6, 1, ALL, Kinds::Table, Role::Ignored,
        "ignored; the kernel sets it in table entries", LINUX),
    f("PS (reserved)", 7, 1, PGD, Kinds::Both, Role::Reserved, "must be 0 in a PML4E", SDM),
    f("PS", 7, 1, PUD | PMD, Kinds::Both, Role::LeafIf(1), "page size: this entry is a leaf", SDM),
    f("PAT", 7, 1, PTE, Kinds::Leaf, Role::MemoryType, "PAT index bit 2 of a 4 KiB leaf", SDM),
    f("G", 8, 1, ALL, Kinds::Leaf, Role::Grant(Perm::GLOBAL), "global, if CR4.PGE", SDM),
    f("G (ignored)", 8, 1, ALL, Kinds::Table, Role::Ignored, "ignored", SDM),
    f("SOFTW1", 9, 1, ALL, Kinds::Both, Role::Software, "special", LINUX),
    f("SOFTW2", 10, 1, ALL, Kinds::Both, Role::Software, "userfaultfd write-protect", LINUX),
    f("SOFTW3", 11, 1, ALL, Kinds::Both, Role::Software, "soft dirty", LINUX),
    f("ADDR", 12, 40, ALL, Kinds::Table, Role::Address, "next table", SDM),
    f("ADDR", 12, 40, PTE, Kinds::Leaf, Role::Address, "4 KiB frame", SDM),
    f("PAT_LARGE", 12, 1, PUD | PMD, Kinds::Leaf, Role::MemoryType,
        "PAT index bit 2 of a large leaf", SDM),
    f("RESERVED", 13, 8, PMD, Kinds::Leaf, Role::Reserved, "must be 0 in a 2 MiB leaf", SDM),
    f("ADDR", 21, 31, PMD, Kinds::Leaf, Role::Address, "2 MiB frame", SDM),
    f("RESERVED", 13, 17, PUD, Kinds::Leaf, Role::Reserved, "must be 0 in a 1 GiB leaf", SDM),
    f("ADDR", 30, 22, PUD, Kinds::Leaf, Role::Address, "1 GiB frame", SDM),
    f("IGNORED", 52, 5, ALL, Kinds::Both, Role::Ignored, "ignored", SDM),
    f("SOFTW5", 57, 1, ALL, Kinds::Both, Role::Software, "devmap, or saved dirty", LINUX),
    f("SOFTW4", 58, 1, ALL, Kinds::Both, Role::Software,
        "no page-table-isolation copy, or saved dirty", LINUX),
    f("PKEY", 59, 4, ALL, Kinds::Leaf, Role::Attribute, "protection key", SDM),
    f("IGNORED", 59, 4, ALL, Kinds::Table, Role::Ignored, "ignored", SDM),
    f("NX", 63, 1, ALL, Kinds::Both, Role::Deny(EXECUTE), "execute disable, or over all levels",
        SDM_RIGHTS),
];
