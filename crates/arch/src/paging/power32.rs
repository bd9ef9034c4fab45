//! The trees that Linux keeps on 32-bit powerpc: book3s with a hashed table (6xx, 7xx, 74xx), and
//! 8xx. Two levels, entries of 4 bytes, pages of 4 KiB.
//!
//! No CPU walks them. On book3s a fault makes a hashed entry of a leaf ([`crate::hashed`]); blocks
//! (BATs) map the kernel's image and the direct map, which are not in the tree. On 8xx a TLB miss
//! loads the leaf, nearly as it is. What such a leaf grants is the kernel's intention: a hashed
//! entry of book3s has no bit against execution, which is a segment's, and makes what the kernel
//! may read writable to it (see there).
//!
//! Which pages are a process's: up to 6.6 a bit of book3s says so, later the address does and the
//! leaf does not tell; whether a process may execute is not told on book3s. Not modelled: entries
//! of 64 bits (CONFIG_PTE_64BIT), 16 KiB pages and larger ones of 8xx, and its user pages without
//! any access.

use super::codec::{DirtyRule, KernelStyle};
use super::field::{Field, Kinds, Role, field as f};
use super::shape::shapes;
use super::{Canonical, Format, Level, level};
use crate::cite::Cite;
use crate::isa::Arch;
use crate::perm::Perm;

const OLD: Cite = Cite::read(
    "Linux arch/powerpc/include/asm/book3s/32/hash.h, pgtable.h (as of 5.10: _PAGE_USER, _PAGE_RW)",
);
const NEW: Cite = Cite::read(
    "linuxppc-dev 2023-09-25, powerpc/32s: Introduce _PAGE_READ and remove _PAGE_USER (6.7)",
);
const MPC8XX: Cite = Cite::read("Linux 5.19, 6.12 arch/powerpc/include/asm/nohash/32/pte-8xx.h");

/// book3s from 6.7 on.
pub static BOOK3S32_TREE: Format =
    Format { name: "powerpc book3s32", fields: BOOK3S, shapes: shapes(BOOK3S), ..COMMON };

/// book3s up to 6.6.
pub static BOOK3S32_TREE_6_6: Format = Format {
    name: "powerpc book3s32 to 6.6",
    fields: BOOK3S_6_6,
    shapes: shapes(BOOK3S_6_6),
    cite: OLD,
    ..COMMON
};

/// 8xx.
pub static MPC8XX_TREE: Format = Format {
    name: "powerpc 8xx",
    fields: FIELDS_8XX,
    shapes: shapes(FIELDS_8XX),
    style: KernelStyle { leaf_bits: 1 << 5, ..STYLE },
    cite: MPC8XX,
    ..COMMON
};

const COMMON: Format = Format {
    name: "",
    arch: Arch::Ppc32,
    page_shift: 12,
    va_bits: 32,
    pa_bits: 32,
    big_endian: true,
    levels: &[
        Level { entry_bytes: 4, ..level("PGD", "PGD", 22, 10, false, true) },
        Level { entry_bytes: 4, ..level("PTE", "PTE", 12, 10, true, false) },
    ],
    fields: &[],
    style: STYLE,
    shapes: shapes(&[]),
    canonical: Canonical::ZeroAbove,
    cite: NEW,
};

/// Kernel leaves are coherent and have ACCESSED, and DIRTY where writable.
const STYLE: KernelStyle = KernelStyle {
    leaf_bits: 0x110,
    table_bits: 0,
    table_denies: Perm::empty(),
    dirty_recent: DirtyRule::IfWritable,
    dirty_older: DirtyRule::IfWritable,
};

const PGD: u8 = 0b01;
const PTE: u8 = 0b10;
const BOTH: u8 = 0b11;
const EXECUTE: Perm = Perm::EXEC.union(Perm::USER_EXEC);
const USER: Perm = Perm::USER.union(Perm::USER_EXEC);
const STORE: Perm = Perm::READ.union(Perm::WRITE);

macro_rules! book3s {
    ($cite:expr, $($own:expr),+) => {
        &[
            f("LOW", 0, 12, PGD, Kinds::Table, Role::Reserved, "must be 0 (_PMD_BAD)", OLD),
            f("TABLE", 12, 20, PGD, Kinds::Table, Role::AddressIfValid, "table, valid unless 0",
                OLD),
            f("PRESENT", 0, 1, PTE, Kinds::Leaf, Role::Valid, "valid", OLD),
            f("HASHPTE", 1, 1, PTE, Kinds::Leaf, Role::Software, "a hashed entry was made", OLD),
            $($own,)+
            f("WIMG", 3, 4, PTE, Kinds::Leaf, Role::MemoryType, "G, M, I, W", OLD),
            f("DIRTY", 7, 1, PTE, Kinds::Leaf, Role::Dirty, "changed", OLD),
            f("ACCESSED", 8, 1, PTE, Kinds::Leaf, Role::Ignored, "referenced", OLD),
            f("EXEC", 9, 1, PTE, Kinds::Leaf, Role::Grant(Perm::EXEC),
                "software: not in a hashed entry", OLD),
            f("SPECIAL", 11, 1, PTE, Kinds::Leaf, Role::Software, "special", OLD),
            f("RPN", 12, 20, PTE, Kinds::Leaf, Role::Address, "4 KiB frame", OLD),
            f("NONE", 32, 32, BOTH, Kinds::Both, Role::Reserved, "no such bits", $cite),
        ]
    };
}

#[rustfmt::skip]
const BOOK3S: &[Field] = book3s!(NEW,
    f("READ", 2, 1, PTE, Kinds::Leaf, Role::Grant(Perm::READ), "read", NEW),
    f("WRITE", 10, 1, PTE, Kinds::Leaf, Role::Grant(STORE), "read and write", NEW)
);
#[rustfmt::skip]
const BOOK3S_6_6: &[Field] = book3s!(OLD,
    f("USER", 2, 1, PTE, Kinds::Leaf, Role::Grant(Perm::USER), "a process's too", OLD),
    f("WRITE", 10, 1, PTE, Kinds::Leaf, Role::Grant(Perm::WRITE), "write (_PAGE_RW)", OLD)
);

#[rustfmt::skip]
const FIELDS_8XX: &[Field] = &[
    f("PRESENT", 0, 1, BOTH, Kinds::Both, Role::Valid, "valid", MPC8XX),
    f("PMD_1", 1, 1, PGD, Kinds::Table, Role::Ignored, "of no use", MPC8XX),
    f("PAGE_SIZE", 2, 2, PGD, Kinds::Table, Role::Reserved, "0 for a table", MPC8XX),
    f("PMD_4", 4, 1, PGD, Kinds::Table, Role::Reserved, "must be 0 (_PMD_BAD)", MPC8XX),
    f("APG", 5, 1, PGD, Kinds::Table, Role::Attribute, "a process's table", MPC8XX),
    f("PMD_6", 6, 6, PGD, Kinds::Table, Role::Reserved, "must be 0 (_PMD_BAD)", MPC8XX),
    f("TABLE", 12, 20, PGD, Kinds::Table, Role::Address, "table", MPC8XX),
    f("NO_CACHE", 1, 1, PTE, Kinds::Leaf, Role::MemoryType, "CI: cache inhibited", MPC8XX),
    f("SH", 2, 1, PTE, Kinds::Leaf, Role::Deny(USER), "shared by all contexts: the kernel's",
        MPC8XX),
    f("SPS", 3, 1, PTE, Kinds::Leaf, Role::Attribute, "larger than 4 KiB", MPC8XX),
    f("GUARDED", 4, 1, PTE, Kinds::Leaf, Role::MemoryType, "guarded", MPC8XX),
    f("ACCESSED", 5, 1, PTE, Kinds::Leaf, Role::Ignored, "referenced", MPC8XX),
    f("EXEC", 6, 1, PTE, Kinds::Leaf, Role::Grant(EXECUTE), "execute", MPC8XX),
    f("SPECIAL", 7, 1, PTE, Kinds::Leaf, Role::Software, "special", MPC8XX),
    f("DIRTY", 8, 1, PTE, Kinds::Leaf, Role::Dirty, "changed", MPC8XX),
    f("RO", 9, 2, PTE, Kinds::Leaf, Role::Deny(Perm::WRITE), "3: read only; 0: writable",
        MPC8XX),
    f("HUGE", 11, 1, PTE, Kinds::Leaf, Role::Attribute, "of a huge page", MPC8XX),
    f("RPN", 12, 20, PTE, Kinds::Leaf, Role::Address, "4 KiB frame", MPC8XX),
    f("NONE", 32, 32, BOTH, Kinds::Both, Role::Reserved, "no such bits", MPC8XX),
];
