//! Powerpc's hashed page tables: what the CPU reads where no radix tree is.
//!
//! An effective address lies in a segment (an SLB entry; a segment register on 32-bit), which gives
//! a virtual address; that hashes to two groups of eight entries, of which one may match. On 32-bit
//! a block (BAT) goes first. A [`HashFormat`] is tables of [`HashField`]s for entries, segments and
//! blocks; encoding, decoding, lookup ([`HashFormat::access`]), and making, changing and removing
//! entries (`edit`) are generic over them.
//!
//! Modelled: entries of Power ISA 2.07 and 3.0 with segments of 256 MiB and 1 TiB and base and
//! actual page sizes, entries of 32-bit Power; protection by PP and the segment's keys, N and G,
//! virtual page class keys, what the fault handler is told. Held against QEMU's MMU:
//! `tests/mmu/ORACLE.md`.
//!
//! Not modelled: segment tables and segment caching, LPCR\[ISL\], virtual real mode, 601's unified
//! blocks, extended blocks (XBL), the bits that 74xx adds to 32-bit addresses, direct-store
//! segments (an access there is refused by name), multiple matches (the first one counts). What
//! Linux puts into entries is `textbed-kernel`'s.

mod block;
mod edit;
mod entry;
mod fault;
mod field;
mod lookup;
mod protection;
mod segment;
mod tables;

use crate::addr::PhysAddr;
use crate::cite::Cite;

pub use block::Block;
pub use edit::{HashMemory, Placed};
pub use entry::{HashEntry, HashError, Rights};
pub use fault::{HASH_SYNDROME_ROWS, HashSyndromeRow};
pub use field::{HashField, Part};
pub use lookup::{Found, HashMmu, HashRefusal, Slot};
pub use protection::{BLOCK_ROWS, Keys, PROTECTION_ROWS, ProtectionRow};
pub use segment::Segment;
pub use tables::{HPT_2_07, HPT_3_0, HPT_32};

/// Every format.
pub static HASH_FORMATS: [&HashFormat; 3] = [&HPT_2_07, &HPT_3_0, &HPT_32];

/// Entries of a group.
pub const GROUP: u64 = 8;

/// Two words: of an entry, of a segment (the operands RB and RS of the instruction that makes it),
/// or of a block (upper and lower).
pub type Words = [u64; 2];

/// A format of hashed entries with its segments and blocks.
#[derive(Debug)]
pub struct HashFormat {
    /// Short name for reports: `powerpc HPT 3.0`.
    pub name: &'static str,
    /// Bytes of a word: 8 or 4; words are big-endian.
    pub word_bytes: u64,
    /// Fields of an entry.
    pub entry: &'static [HashField],
    /// Fields of a segment.
    pub segment: &'static [HashField],
    /// Fields of a block; none on 64-bit.
    pub block: &'static [HashField],
    /// Base and actual page sizes.
    pub sizes: &'static [PageSize],
    /// Lowest bit of the virtual address that an entry compares; those below, down to the page's,
    /// all select the group.
    pub tag_shift: u32,
    /// The manual that defines it.
    pub cite: Cite,
}

/// A page of a size in a segment of a base size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSize {
    /// `log2` of the segment's base page, which is what is hashed.
    pub base_shift: u32,
    /// `log2` of the page.
    pub shift: u32,
    /// What the segment says: L, LP.
    pub segment: u64,
    /// What the entry says in the bits of the frame's address below the page's size, in units of
    /// 4 KiB; not looked at without the entry's L.
    pub entry: u64,
}

/// A hashed table in memory: its address is a multiple of its size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashTable {
    /// Its first byte.
    pub base: PhysAddr,
    /// `log2` of the number of groups: at least [`HashFormat::least_group_bits`].
    pub group_bits: u32,
}

impl HashFormat {
    /// This format with other fields of entries: what a wrong table would say. For tests.
    #[must_use]
    pub const fn with_entry(&self, entry: &'static [HashField]) -> HashFormat {
        HashFormat { entry, ..*self }
    }

    /// The same with other fields of segments.
    #[must_use]
    pub const fn with_segment(&self, segment: &'static [HashField]) -> HashFormat {
        HashFormat { segment, ..*self }
    }

    /// The same with other fields of blocks.
    #[must_use]
    pub const fn with_block(&self, block: &'static [HashField]) -> HashFormat {
        HashFormat { block, ..*self }
    }

    /// Bytes of an entry.
    #[must_use]
    pub const fn entry_bytes(&self) -> u64 {
        2 * self.word_bytes
    }

    /// The smallest table, as `log2` of its groups. In a smaller one two pages would be one, as the
    /// bits of an address below the tag's would be told by nothing.
    #[must_use]
    pub const fn least_group_bits(&self) -> u32 {
        self.tag_shift - 12
    }

    /// Bytes of a table.
    #[must_use]
    pub const fn table_bytes(&self, table: HashTable) -> u64 {
        (GROUP * self.entry_bytes()) << table.group_bits
    }
}

#[cfg(test)]
mod tests;
