//! What entries of both trees of 64-bit powerpc have in common: bits to which Linux gives the same
//! meaning, whether CPUs walk the tree (`radix`) or not (`hash`).

use super::codec::{DirtyRule, KernelStyle};
use crate::perm::Perm;

/// Leaves have ACCESSED (R), and DIRTY (C) where writable; tables nothing of the kernel's own.
pub(super) const STYLE: KernelStyle = KernelStyle {
    leaf_bits: 1 << 8,
    table_bits: 0,
    table_denies: Perm::empty(),
    dirty_recent: DirtyRule::IfWritable,
    dirty_older: DirtyRule::IfWritable,
};

pub(super) const ALL: u8 = 0b1111;
pub(super) const UPPER: u8 = 0b0111;
pub(super) const PUD: u8 = 0b0010;
pub(super) const PMD: u8 = 0b0100;
pub(super) const PTE: u8 = 0b1000;
pub(super) const EXECUTE: Perm = Perm::EXEC.union(Perm::USER_EXEC);
pub(super) const USER: Perm = Perm::USER.union(Perm::USER_EXEC);
/// What may be written may be read.
pub(super) const STORE: Perm = Perm::READ.union(Perm::WRITE);

/// The fields of a tree: the common ones, as `$cite` has them, and its own.
macro_rules! fields {
    ($cite:expr; $($own:expr),+ $(,)?) => {
        &[
            f("EXEC", 0, 1, ALL, Kinds::Leaf, Role::Grant(EXECUTE), "execute", $cite),
            f("WRITE", 1, 1, ALL, Kinds::Leaf, Role::Grant(STORE), "read and write", $cite),
            f("READ", 2, 1, ALL, Kinds::Leaf, Role::Grant(Perm::READ), "read", $cite),
            f("PRIVILEGED", 3, 1, ALL, Kinds::Leaf, Role::Deny(USER), "kernel only", $cite),
            f("ATT", 4, 2, ALL, Kinds::Leaf, Role::MemoryType, "SAO, non-idempotent, tolerant",
                $cite),
            f("DIRTY", 7, 1, ALL, Kinds::Leaf, Role::Dirty, "C: changed", $cite),
            f("ACCESSED", 8, 1, ALL, Kinds::Leaf, Role::Ignored, "R: referenced", $cite),
            $($own,)+
            f("PTE", 62, 1, UPPER, Kinds::Both, Role::LeafIf(1), "this entry is a leaf", $cite),
            f("PTE", 62, 1, PTE, Kinds::Both, Role::LeafIf(1), "this entry is a leaf", $cite),
            f("PRESENT", 63, 1, ALL, Kinds::Both, Role::Valid, "valid", $cite),
        ]
    };
}
pub(super) use fields;
