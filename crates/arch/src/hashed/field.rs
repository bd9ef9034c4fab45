//! One field of a hashed entry, of a segment or of a block, and what it means.
//!
//! A value may lie in several fields (the protection number, keys, a 32-bit entry's tag): each has
//! the bits of the value from `at` on.

use super::Words;
use crate::cite::Cite;

/// What a field is part of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// Entry or segment: it is valid if 1.
    Valid,
    /// Entry: it is in its secondary group.
    Secondary,
    /// Entry: its page is larger than 4 KiB (L).
    Large,
    /// Entry: bits of the virtual address that are compared (AVPN; VSID and API).
    Tag,
    /// Entry, segment: 0 for 256 MiB, 1 for 1 TiB (B).
    SegmentSize,
    /// Entry, block: the frame's address, and a code of the page's size below it.
    Frame,
    /// Entry, block: the protection number (PP).
    Protection,
    /// Entry, segment: no execution (N).
    NoExecute,
    /// Entry: guarded storage, which is not executed (G).
    Guarded,
    /// Entry: referenced (R).
    Referenced,
    /// Entry: changed (C).
    Changed,
    /// Entry: virtual page class key.
    Key,
    /// Segment: the first address (ESID).
    Address,
    /// Segment: number of the virtual segment (VSID).
    Id,
    /// Segment: the key of the kernel's accesses (Ks).
    KernelKey,
    /// Segment: the key of a process's accesses (Kp).
    UserKey,
    /// Segment: base page size (L, LP).
    PageSize,
    /// Segment: a direct-store segment (T).
    DirectStore,
    /// Block: its first address (BEPI).
    BlockAddress,
    /// Block: its length: bits of the address that are not compared (BL).
    BlockLength,
    /// Block: valid for the kernel (Vs).
    KernelValid,
    /// Block: valid for a process (Vp).
    UserValid,
    /// Memory type (W, I, M): kept, not interpreted.
    MemoryType,
    /// Class, slot: kept, not interpreted.
    Attribute,
    /// Free for software.
    Software,
    /// Ignored by hardware, to be 0.
    Reserved,
}

/// A field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashField {
    /// The manual's name.
    pub name: &'static str,
    /// Which of the two words.
    pub word: usize,
    /// Lowest bit.
    pub lo_bit: u32,
    /// Width in bits, at least 1.
    pub bits: u32,
    /// Lowest bit of the value that it holds.
    pub at: u32,
    /// What it is part of.
    pub part: Part,
    /// What it means.
    pub meaning: &'static str,
    /// Where it is defined.
    pub cite: Cite,
}

/// A row of a table, in the order in which [`HashField`] has the fields.
#[allow(clippy::too_many_arguments)]
pub(super) const fn field(
    name: &'static str,
    word: usize,
    lo_bit: u32,
    bits: u32,
    at: u32,
    part: Part,
    meaning: &'static str,
    cite: Cite,
) -> HashField {
    HashField { name, word, lo_bit, bits, at, part, meaning, cite }
}

impl HashField {
    /// Its bits in place.
    #[must_use]
    pub const fn mask(&self) -> u64 {
        (u64::MAX >> (64 - self.bits)) << self.lo_bit
    }

    fn get(&self, words: Words) -> u64 {
        ((words[self.word] & self.mask()) >> self.lo_bit) << self.at
    }

    fn put(&self, words: &mut Words, value: u64) {
        let bits = (value >> self.at) << self.lo_bit;
        words[self.word] = words[self.word] & !self.mask() | bits & self.mask();
    }
}

/// The value of a part; 0 where there is no such field.
pub(super) fn get(fields: &[HashField], words: Words, part: Part) -> u64 {
    fields.iter().filter(|f| f.part == part).fold(0, |value, f| value | f.get(words))
}

/// Writes the value of a part; whether the fields could hold it.
pub(super) fn put(fields: &[HashField], words: &mut Words, part: Part, value: u64) -> bool {
    for f in fields.iter().filter(|f| f.part == part) {
        f.put(words, value);
    }
    get(fields, *words, part) == value
}

/// Bits of a value that the fields can hold.
pub(super) fn capacity(fields: &[HashField], part: Part) -> u64 {
    get(fields, [u64::MAX; 2], part)
}
