//! One field of a page-table entry, and what it means to the codec.
//!
//! Modelled: position, the levels and kinds of entry that have it, and its role; software bits are
//! listed so that every bit has an owner. What values of memory types mean is in
//! [`super::attributes`].

use crate::cite::Cite;
use crate::perm::Perm;

/// Kinds of entry that have a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kinds {
    /// Entries that point to a table.
    Table,
    /// Entries that map memory.
    Leaf,
    /// Both.
    Both,
}

impl Kinds {
    /// Whether a leaf (else: a table entry) has the field.
    #[must_use]
    pub const fn has(self, leaf: bool) -> bool {
        match self {
            Kinds::Table => !leaf,
            Kinds::Leaf => leaf,
            Kinds::Both => true,
        }
    }
}

/// What a field does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The entry is valid if the bit is 1.
    Valid,
    /// Distinguishes a leaf from a table: the value that a leaf has.
    LeafIf(u64),
    /// Physical address of the page or of the next table, in place.
    Address,
    /// The same, of an entry that is valid unless these bits are 0.
    AddressIfValid,
    /// Bits of that address that are elsewhere in the entry: from this bit of the address on.
    AddressFrom(u32),
    /// Grants these permissions if 1. In a table entry: takes them away below if 0.
    Grant(Perm),
    /// Takes these permissions away if 1, here or (in a table entry) below.
    Deny(Perm),
    /// arm64 DBM: hardware may clear RDONLY by itself on a store, so it grants WRITE where
    /// hardware management of dirty state is on.
    GrantIfHardwareDirty(Perm),
    /// An access faults unless 1 (arm64 AF), or hardware sets it.
    Accessed,
    /// Written to (dirty); hardware or software sets it.
    Dirty,
    /// The entries of a naturally aligned group translate contiguously.
    Contiguous,
    /// Number of index bits of the next level (radix); must equal that level's.
    NextLevelBits,
    /// Memory type, shareability, cacheability.
    MemoryType,
    /// Kept, not interpreted (protection keys, guarded page).
    Attribute,
    /// Free for software; the kernel's use is in the meaning.
    Software,
    /// Ignored by hardware.
    Ignored,
    /// Must be zero; else the entry is malformed.
    Reserved,
}

/// A field of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The manual's or the kernel's name.
    pub name: &'static str,
    /// Lowest bit.
    pub lo_bit: u32,
    /// Width in bits, at least 1.
    pub bits: u32,
    /// Levels that have it, as a mask: bit N for level N.
    pub levels: u8,
    /// Kinds of entry that have it.
    pub kinds: Kinds,
    /// What it does.
    pub role: Role,
    /// What it means.
    pub meaning: &'static str,
    /// Where it is defined.
    pub cite: Cite,
}

/// A row of a format's table of fields, in the order in which [`Field`] has them.
#[allow(clippy::too_many_arguments)]
pub(super) const fn field(
    name: &'static str,
    lo_bit: u32,
    bits: u32,
    levels: u8,
    kinds: Kinds,
    role: Role,
    meaning: &'static str,
    cite: Cite,
) -> Field {
    Field { name, lo_bit, bits, levels, kinds, role, meaning, cite }
}

impl Field {
    /// The bits of the field in place.
    #[must_use]
    pub const fn mask(&self) -> u64 {
        (u64::MAX >> (64 - self.bits)) << self.lo_bit
    }

    /// The value of the field in `raw`, shifted down.
    #[must_use]
    pub const fn get(&self, raw: u64) -> u64 {
        (raw & self.mask()) >> self.lo_bit
    }

    /// `raw` with the field set to `value`, whose bits above the width are dropped.
    #[must_use]
    pub const fn put(&self, raw: u64, value: u64) -> u64 {
        (raw & !self.mask()) | ((value << self.lo_bit) & self.mask())
    }

    /// Whether that is its name, at compile time too.
    pub(super) const fn is_called(&self, name: &str) -> bool {
        let (own, name) = (self.name.as_bytes(), name.as_bytes());
        let mut same = 0;
        while same < own.len() && same < name.len() && own[same] == name[same] {
            same += 1;
        }
        same == own.len() && same == name.len()
    }

    /// Whether an entry of `level` and kind has the field.
    #[must_use]
    pub fn is_in(&self, level: usize, leaf: bool) -> bool {
        level < 8 && self.levels & (1 << level) != 0 && self.kinds.has(leaf)
    }
}
