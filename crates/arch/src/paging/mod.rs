//! Page-table formats as tables, and the one codec and walker that read them.
//!
//! A [`Format`] is levels and [`Field`]s; its methods decode and encode entries from the fields'
//! roles, follow a tree ([`Format::walk`]) and list its leaves ([`Format::for_each_leaf`]).
//!
//! Modelled: x86-64 with 4 and 5 levels, arm64 with 4, 16 and 64 KiB granules and 36 to 52 bits,
//! powerpc radix with 4 KiB and 64 KiB base pages, and the trees that Linux keeps beside powerpc's
//! hashed tables and on 32-bit Power, which no CPU walks ([`crate::hashed`] has what the CPU
//! reads). What each is held against: `tests/mmu/ORACLE.md`.
//!
//! Not modelled: x86 32-bit paging and shadow-stack pages; arm64 permission overlays, stage 2,
//! guarded pages; powerpc's partition-scoped (second) translation, AMR and IAMR keys other than
//! key 0, memory types of x86, of hashed and of 32-bit formats.

mod access;
mod arm64;
mod arm64_lower;
mod attributes;
mod codec;
mod controls;
mod fault;
mod field;
mod hash;
mod indirection;
mod power32;
mod power64;
mod radix;
mod scan;
mod shape;
mod walk;
mod x86;

use crate::addr::{PhysAddr, VirtAddr};
use crate::cite::Cite;
use crate::isa::Arch;

pub use access::{ACCESS_RULES, AccessRule, Attempt, Privilege};
pub use arm64::{ARM64_4K, ARM64_4K_LPA2, ARM64_16K, ARM64_16K_LPA2, ARM64_64K, ARM64_64K_LPA};
pub use arm64_lower::{ARM64_4K_39, ARM64_16K_36, ARM64_16K_47, ARM64_64K_42};
pub use attributes::{Attributes, GROUP_ROWS, GROUPS, GroupRow, MemoryType, group_shift};
pub use codec::{DirtyRule, EncodeError, Entry, KernelStyle, LeafStyle, Why};
pub use controls::Controls;
pub use fault::{Refusal, Refused, SYNDROME_ROWS, Syndrome, SyndromeRow, VECTOR_ROWS, VectorRow};
pub use field::{Field, Kinds, Role};
pub use hash::{HASH_TREE_4K, HASH_TREE_64K};
pub use indirection::Indirection;
pub use power32::{BOOK3S32_TREE, BOOK3S32_TREE_6_6, MPC8XX_TREE, MPC8XX_TREE_6_10};
pub use radix::{RADIX_4K, RADIX_64K};
pub use scan::{DEFAULT_ENTRY_LIMIT, Half, MappedLeaf, Scan, ScanEnd};
pub use walk::{Step, Translation, Walk, WalkFault};
pub use x86::{X86_64_4LEVEL, X86_64_5LEVEL};

/// Most levels of any format here.
pub const MAX_LEVELS: usize = 5;

/// Every format.
pub static FORMATS: [&Format; 20] = [
    &X86_64_4LEVEL,
    &X86_64_5LEVEL,
    &ARM64_4K,
    &ARM64_16K,
    &ARM64_64K,
    &ARM64_4K_LPA2,
    &ARM64_16K_LPA2,
    &ARM64_64K_LPA,
    &ARM64_4K_39,
    &ARM64_16K_36,
    &ARM64_16K_47,
    &ARM64_64K_42,
    &RADIX_4K,
    &RADIX_64K,
    &HASH_TREE_4K,
    &HASH_TREE_64K,
    &BOOK3S32_TREE,
    &BOOK3S32_TREE_6_6,
    &MPC8XX_TREE,
    &MPC8XX_TREE_6_10,
];

/// One level of a tree of tables. Level 0 is the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    /// The kernel's name: `PGD`, `PUD`, `PMD`, `PTE`.
    pub name: &'static str,
    /// The manual's name: `PML4E`, `level 0`.
    pub manual_name: &'static str,
    /// Lowest bit of the virtual address that selects an entry; also `log2` of the bytes that one
    /// entry maps, so the leaf's shift.
    pub index_shift: u32,
    /// Number of address bits that select an entry.
    pub index_bits: u32,
    /// Bytes of an entry: 8, or 4 on 32-bit Power.
    pub entry_bytes: u64,
    /// Whether an entry of this level may be a leaf.
    pub leaf_allowed: bool,
    /// Whether an entry of this level may point to a table.
    pub table_allowed: bool,
}

/// A row of a format's table of levels: its names, where its index is, and whether its entries may
/// be leaves and tables. Entries have 8 bytes.
const fn level(
    name: &'static str,
    manual_name: &'static str,
    index_shift: u32,
    index_bits: u32,
    leaf_allowed: bool,
    table_allowed: bool,
) -> Level {
    Level {
        name,
        manual_name,
        index_shift,
        index_bits,
        entry_bytes: 8,
        leaf_allowed,
        table_allowed,
    }
}

impl Level {
    /// Number of entries in a table of this level.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        1 << self.index_bits
    }

    /// Bytes of one table of this level; also the alignment of such a table.
    #[must_use]
    pub const fn table_bytes(&self) -> u64 {
        self.entry_bytes << self.index_bits
    }

    /// Bytes that one entry of this level covers.
    #[must_use]
    pub const fn span_bytes(&self) -> u64 {
        1 << self.index_shift
    }
}

/// A page-table format.
#[derive(Debug)]
pub struct Format {
    /// Short name for options and reports: `x86-64 4-level`.
    pub name: &'static str,
    /// The architecture; every Power shares `ppc64le`'s.
    pub arch: Arch,
    /// The kernel's base page, as `log2` of bytes.
    pub page_shift: u32,
    /// Address bits that the tree translates.
    pub va_bits: u32,
    /// Bits of a physical address that an entry can hold.
    pub pa_bits: u32,
    /// Whether entries are stored most significant byte first, whatever the kernel's byte order.
    pub big_endian: bool,
    /// From the root down.
    pub levels: &'static [Level],
    /// Every bit of an entry that means something, or must be zero.
    pub fields: &'static [Field],
    /// Which virtual addresses the tree can be asked for.
    pub canonical: Canonical,
    /// How Linux writes kernel entries.
    pub style: KernelStyle,
    /// The fields again, gathered per level for the codec.
    shapes: [shape::LevelShapes; MAX_LEVELS],
    /// The manual that defines it.
    pub cite: Cite,
}

/// What makes a virtual address one that the tables translate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Canonical {
    /// Bits above `va_bits` repeat bit `va_bits - 1` (x86-64).
    SignExtended,
    /// Bits above `va_bits` are all equal (arm64: ones select TTBR1, zeros TTBR0).
    AllEqual,
    /// Bits 63:62 are 00 (the process) or 11 (the kernel), bits between are zero (radix).
    Quadrant,
    /// Bits above `va_bits` are zero (32-bit).
    ZeroAbove,
}

impl Format {
    /// Whether it is one of arm64's with FEAT_LPA2: 52 bits with granules of 4 and 16 KiB.
    #[must_use]
    pub fn has_lpa2(&self) -> bool {
        self.arch == Arch::Arm64 && self.va_bits == 52 && self.page_shift < 16
    }

    /// The format that Linux uses on `arch` with base pages of `1 << page_shift` bytes; `None`
    /// where there is none. Of those with other numbers of address bits
    /// ([`Format::with_va_bits`]) it is the one of 48.
    #[must_use]
    pub fn for_kernel(arch: Arch, page_shift: u32) -> Option<&'static Format> {
        Some(match (arch, page_shift) {
            (Arch::X86_64, 12) => &X86_64_4LEVEL,
            (Arch::Arm64, 12) => &ARM64_4K,
            (Arch::Arm64, 14) => &ARM64_16K,
            (Arch::Arm64, 16) => &ARM64_64K,
            (Arch::Ppc64le | Arch::Ppc64, 12) => &RADIX_4K,
            (Arch::Ppc64le | Arch::Ppc64, 16) => &RADIX_64K,
            (Arch::Ppc32, 12) => &MPC8XX_TREE,
            _ => return None,
        })
    }

    /// The format of the same pages that translates so many bits of an address; `None` where no
    /// kernel has it.
    #[must_use]
    pub fn with_va_bits(&'static self, va_bits: u32) -> Option<&'static Format> {
        // Powerpc's other trees stand beside hashed tables.
        if self.va_bits == va_bits || self.arch.is_powerpc() {
            return Some(self).filter(|f| f.va_bits == va_bits);
        }
        FORMATS
            .into_iter()
            .find(|f| (f.arch, f.page_shift, f.va_bits) == (self.arch, self.page_shift, va_bits))
    }

    /// The format called `name`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Format> {
        FORMATS.into_iter().find(|f| f.name == name)
    }

    /// This format with other fields: what a wrong table would say. For tests of the tables.
    #[must_use]
    pub const fn with_fields(&self, fields: &'static [Field]) -> Format {
        Format { fields, shapes: shape::shapes(fields), ..self.again() }
    }

    /// The same.
    const fn again(&self) -> Format {
        Format { ..*self }
    }

    /// Index of the last level.
    #[must_use]
    pub fn last_level(&self) -> usize {
        self.levels.len() - 1
    }

    /// Level at which a leaf maps `1 << shift` bytes; `None` if no leaf has that size.
    #[must_use]
    pub fn level_for_shift(&self, shift: u32) -> Option<usize> {
        self.levels.iter().position(|l| l.leaf_allowed && l.index_shift == shift)
    }

    /// Shifts of the leaf sizes, largest first.
    pub fn leaf_shifts(&self) -> impl Iterator<Item = u32> {
        self.levels.iter().filter(|l| l.leaf_allowed).map(|l| l.index_shift)
    }

    /// Number of the entry that translates `va` in a table of `level`; 0 for a level that does not
    /// exist.
    #[must_use]
    pub fn index(&self, level: usize, va: VirtAddr) -> u64 {
        match self.levels.get(level) {
            Some(l) => (va.0 >> l.index_shift) & (l.entries() - 1),
            None => 0,
        }
    }

    /// Address of the entry that translates `va` in the table of `level` at `table`; `None` past
    /// the end of the physical space.
    #[must_use]
    pub fn entry_addr(&self, table: PhysAddr, level: usize, va: VirtAddr) -> Option<PhysAddr> {
        table.checked_add(self.index(level, va) * self.entry_bytes(level))
    }

    /// Bytes of an entry of `level`.
    #[must_use]
    pub fn entry_bytes(&self, level: usize) -> u64 {
        self.levels.get(level).map_or(8, |l| l.entry_bytes)
    }

    /// The value of an entry of 8 bytes from its bytes in memory.
    #[must_use]
    pub fn entry_from_bytes(&self, bytes: [u8; 8]) -> u64 {
        if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) }
    }

    /// The bytes in memory of an entry of 8 bytes.
    #[must_use]
    pub fn entry_to_bytes(&self, value: u64) -> [u8; 8] {
        if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Of the bytes that [`Format::entry_to_bytes`] makes, those that memory has: of entries of 4
    /// bytes, half.
    #[must_use]
    pub fn stored<'a>(&self, bytes: &'a [u8; 8]) -> &'a [u8] {
        match (self.entry_bytes(0), self.big_endian) {
            (4, true) => &bytes[4..],
            (4, false) => &bytes[..4],
            _ => bytes,
        }
    }

    /// The field called `name`, for the first level and kind that has one.
    #[must_use]
    pub const fn field(&self, name: &str) -> Option<&'static Field> {
        let mut n = 0;
        while n < self.fields.len() {
            if self.fields[n].is_called(name) {
                return Some(&self.fields[n]);
            }
            n += 1;
        }
        None
    }

    /// Whether the tree can be asked for `va` at all.
    #[must_use]
    pub fn is_canonical(&self, va: VirtAddr) -> bool {
        let above = 64 - self.va_bits;
        match self.canonical {
            Canonical::SignExtended => ((va.0 << above) as i64) >> above == va.0 as i64,
            Canonical::AllEqual => {
                let top = (va.0 as i64) >> self.va_bits;
                top == 0 || top == -1
            }
            Canonical::Quadrant => {
                let quadrant = va.0 >> 62;
                let between = (va.0 << 2) >> (2 + self.va_bits);
                (quadrant == 0 || quadrant == 3) && between == 0
            }
            Canonical::ZeroAbove => va.0 >> self.va_bits == 0,
        }
    }
}

#[cfg(test)]
mod tests;
