//! The table: fields with width and base, where they lie, and its interpreter.
//!
//! A packed key is a row of 64-bit words. Bits 0 to 23 of word 0 are the header (length in words,
//! format, type); the fields lie behind each other from the most significant bit of the last word
//! down. A field's value is its bits plus its base. From: Linux 6.12 fs/bcachefs/bkey.c, bkey.h,
//! as they are on little-endian CPUs (read). Not modelled: see the crate's header.

use textbed_arch::Arch;

/// Bits that the header takes in word 0.
pub const HEADER_BITS: u32 = 24;
/// Length of an unpacked key in 64-bit words.
pub const UNPACKED_WORDS: u32 = 5;
/// Length of an unpacked key in bytes.
pub const UNPACKED_BYTES: usize = 40;

/// A field of the unpacked key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldSpec {
    /// Its name.
    pub name: &'static str,
    /// Its width there, 32 or 64 bits.
    pub bits: u32,
    /// Its offset there, in bytes.
    pub offset: u32,
}

const fn spec(name: &'static str, bits: u32, offset: u32) -> FieldSpec {
    FieldSpec { name, bits, offset }
}

/// The fields, in the order in which they are packed, the most significant first.
pub const FIELDS: [FieldSpec; 6] = [
    spec("inode", 64, 32),
    spec("offset", 64, 24),
    spec("snapshot", 32, 20),
    spec("size", 32, 16),
    spec("version_hi", 32, 12),
    spec("version_lo", 64, 4),
];

impl FieldSpec {
    /// The greatest value.
    #[must_use]
    pub const fn max(&self) -> u64 {
        ones(self.bits)
    }
}

/// The lowest `bits` bits set; up to 64.
pub(crate) const fn ones(bits: u32) -> u64 {
    if bits == 0 { 0 } else { u64::MAX >> (64 - bits) }
}

/// Width and base of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Bits in the packed key; 0: the value is the base.
    pub bits: u32,
    /// What is added to them.
    pub base: u64,
}

/// Why a table is no format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("field {field} ({bits} bits from {base:#x}) can exceed its {room} bits")]
pub struct FormatError {
    /// The field's name.
    pub field: &'static str,
    /// Its width.
    pub bits: u32,
    /// Its base.
    pub base: u64,
    /// Its width when unpacked.
    pub room: u32,
}

/// A checked table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Format {
    fields: [Field; 6],
}

/// An unpacked key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unpacked {
    /// Length in words (bits 0 to 7), format and flag (8 to 15), type (16 to 23).
    pub header: u32,
    /// Values, in the order of [`FIELDS`].
    pub values: [u64; 6],
}

impl Unpacked {
    /// As it lies in memory.
    #[must_use]
    pub fn bytes(&self, arch: Arch) -> [u8; UNPACKED_BYTES] {
        let mut out = [0; UNPACKED_BYTES];
        let mut put = |at: u32, bits: u32, value: u64| {
            let (le, be) = (value.to_le_bytes(), value.to_be_bytes());
            let n = (bits / 8) as usize;
            let from = if arch.is_little_endian() { le.get(..n) } else { be.get(8 - n..) };
            let at = at as usize;
            if let (Some(to), Some(from)) = (out.get_mut(at..at + n), from) {
                to.copy_from_slice(from);
            }
        };
        put(0, 32, u64::from(self.header));
        for (field, value) in FIELDS.iter().zip(self.values) {
            put(field.offset, field.bits, value);
        }
        out
    }
}

impl Format {
    /// A format.
    ///
    /// # Errors
    /// A field that can exceed what it unpacks to.
    pub fn new(fields: [Field; 6]) -> Result<Format, FormatError> {
        for (f, s) in fields.iter().zip(&FIELDS) {
            let fits = f.bits <= s.bits
                && f.base.checked_add(ones(f.bits)).is_some_and(|most| most <= s.max());
            if !fits {
                let (bits, base) = (f.bits, f.base);
                return Err(FormatError { field: s.name, bits, base, room: s.bits });
            }
        }
        Ok(Format { fields })
    }

    /// The fields, in the order of [`FIELDS`].
    #[must_use]
    pub fn fields(&self) -> &[Field; 6] {
        &self.fields
    }

    /// Length of a packed key in 64-bit words, 1 to 5.
    #[must_use]
    pub fn key_words(&self) -> u32 {
        (HEADER_BITS + self.fields.iter().map(|f| f.bits).sum::<u32>()).div_ceil(64)
    }

    /// Number of the lowest bit of field `index` in the packed key; bit 0 is word 0's lowest.
    #[must_use]
    pub fn position(&self, index: usize) -> u32 {
        let above: u32 = self.fields.iter().take(index + 1).map(|f| f.bits).sum();
        self.key_words() * 64 - above
    }

    /// What a function adds to the header: the length's difference, and the number of the format
    /// of unpacked keys.
    pub(crate) fn header_addend(&self) -> u32 {
        UNPACKED_WORDS - self.key_words() + 0x100
    }

    /// Packs a key; `None` if a value does not fit.
    #[must_use]
    pub fn pack(&self, kind: u8, values: &[u64; 6]) -> Option<Vec<u64>> {
        let words = self.key_words();
        let mut key = vec![0; words as usize];
        *key.first_mut()? = u64::from(words) | u64::from(kind) << 16;
        for (i, (f, value)) in self.fields.iter().zip(values).enumerate() {
            let bits = value.checked_sub(f.base).filter(|v| *v <= ones(f.bits))?;
            let position = self.position(i);
            let spread = u128::from(bits) << (position % 64);
            let word = (position / 64) as usize;
            for (word, part) in [(word, spread as u64), (word + 1, (spread >> 64) as u64)] {
                if part != 0 {
                    *key.get_mut(word)? |= part;
                }
            }
        }
        Some(key)
    }

    /// The interpreter: unpacks a key by the table. Missing words count as 0.
    #[must_use]
    pub fn unpack(&self, key: &[u64]) -> Unpacked {
        let word = |n: usize| u128::from(key.get(n).copied().unwrap_or(0));
        let mut values = [0; 6];
        for (i, (f, value)) in self.fields.iter().zip(&mut values).enumerate() {
            let position = self.position(i);
            let at = (position / 64) as usize;
            let both = word(at) | word(at + 1) << 64;
            *value = f.base + ((both >> (position % 64)) as u64 & ones(f.bits));
        }
        let header = (word(0) as u32).wrapping_add(self.header_addend()) & 0xff_ffff;
        Unpacked { header, values }
    }

    /// A format as a file system makes one from the smallest and greatest keys of a node, here from
    /// a seed; fields are rounded up to bytes while there is room.
    #[must_use]
    pub fn seeded(seed: u64) -> Format {
        let mut state = seed;
        let mut random = || {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        };
        let mut fields = [Field { bits: 0, base: 0 }; 6];
        for (f, s) in fields.iter_mut().zip(&FIELDS) {
            let bits =
                if random() % 4 == 0 { 0 } else { (random() % u64::from(s.bits + 1)) as u32 };
            let base = match random() % 4 {
                0 => 0,
                1 => random() >> 52,
                2 => random() >> (64 - s.bits + 1),
                _ => random() >> (64 - s.bits),
            };
            *f = Field { bits, base: base.min(s.max() - ones(bits)) };
        }
        let format = Format { fields };
        let mut spare = format.key_words() * 64 - HEADER_BITS;
        spare -= fields.iter().map(|f| f.bits).sum::<u32>();
        for (f, s) in fields.iter_mut().zip(&FIELDS) {
            let more = f.bits.next_multiple_of(8) - f.bits;
            if more <= spare {
                f.bits += more;
                f.base = f.base.min(s.max() - ones(f.bits));
                spare -= more;
            }
        }
        Format { fields }
    }
}
