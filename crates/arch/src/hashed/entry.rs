//! Hashed entries, encoded and decoded.

use super::field::{Part, capacity, get, put};
use super::{HashFormat, PageSize, Segment, Words};
use crate::addr::{PhysAddr, VirtAddr};

/// What an entry says of rights.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rights {
    /// Protection number (pp0, PP).
    pub protection: u64,
    /// N.
    pub no_execute: bool,
    /// G.
    pub guarded: bool,
    /// Virtual page class key.
    pub key: u64,
}

/// What an entry says besides the address that it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashEntry {
    /// First byte of the page's frame.
    pub frame: PhysAddr,
    /// `log2` of the page.
    pub shift: u32,
    /// Rights.
    pub rights: Rights,
    /// R.
    pub referenced: bool,
    /// C.
    pub changed: bool,
    /// Bits that are software's: Linux has one for `bolted`.
    pub software: u64,
}

/// What cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HashError {
    /// A segment that the format has not.
    #[error("the format has no such segment at {first}")]
    Segment {
        /// Its first address.
        first: VirtAddr,
    },
    /// The address lies outside of the segment.
    #[error("{va} is not in the segment")]
    OutsideSegment {
        /// The address.
        va: VirtAddr,
    },
    /// No such page size in segments of this base page size.
    #[error("no page of 1 << {shift} bytes in a segment with pages of 1 << {base_shift}")]
    PageSize {
        /// The segment's.
        base_shift: u32,
        /// The page's.
        shift: u32,
    },
    /// A value does not fit the entry: the address, the tag of a virtual address, a right.
    #[error("{what} {value:#x} does not fit an entry")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// Both groups are full.
    #[error("no free entry in either group")]
    Full,
    /// A group lies where there is no memory.
    #[error("{phys} is outside memory")]
    OutsideMemory {
        /// The address.
        phys: PhysAddr,
    },
}

impl HashFormat {
    /// The tag that entries for `va` have.
    pub(super) fn tag(&self, segment: &Segment, va: VirtAddr) -> u128 {
        let low = segment.base_shift.saturating_sub(self.tag_shift);
        segment.virtual_address(va) >> self.tag_shift >> low << low
    }

    /// The page size of an entry in a segment; `None` if it has none of the segment's: then it is
    /// not the entry that is looked for.
    #[must_use]
    pub fn page_size(&self, words: Words, segment: &Segment) -> Option<&'static PageSize> {
        let large = get(self.entry, words, Part::Large) != 0;
        let frame = get(self.entry, words, Part::Frame);
        self.sizes.iter().filter(|s| s.base_shift == segment.base_shift).find(|s| {
            let code = frame & ((1 << s.shift) - 1);
            if s.shift == 12 { !large } else { large && code == s.entry << 12 }
        })
    }

    /// Whether an entry is for `va` in `segment` as one of the primary or of the secondary group.
    #[must_use]
    pub fn matches(&self, words: Words, segment: &Segment, va: VirtAddr, secondary: bool) -> bool {
        let of = |part| get(self.entry, words, part);
        let size_known = capacity(self.entry, Part::SegmentSize) != 0;
        of(Part::Valid) == 1
            && (of(Part::Secondary) == 1) == secondary
            && u128::from(of(Part::Tag)) == self.tag(segment, va)
            && (!size_known || of(Part::SegmentSize) == u64::from(segment.shift == 40))
            && self.page_size(words, segment).is_some()
    }

    /// What an entry in a segment says; `None` if its page size is none of the segment's. Whether
    /// it is valid is not looked at.
    #[must_use]
    pub fn decode_entry(&self, words: Words, segment: &Segment) -> Option<HashEntry> {
        let size = self.page_size(words, segment)?;
        let of = |part| get(self.entry, words, part);
        Some(HashEntry {
            frame: PhysAddr(of(Part::Frame) >> size.shift << size.shift),
            shift: size.shift,
            rights: self.rights(words),
            referenced: of(Part::Referenced) != 0,
            changed: of(Part::Changed) != 0,
            software: of(Part::Software),
        })
    }

    /// What an entry says of rights.
    #[must_use]
    pub fn rights(&self, words: Words) -> Rights {
        let of = |part| get(self.entry, words, part);
        Rights {
            protection: of(Part::Protection),
            no_execute: of(Part::NoExecute) != 0,
            guarded: of(Part::Guarded) != 0,
            key: of(Part::Key),
        }
    }

    /// `words` with other rights.
    ///
    /// # Errors
    /// [`HashError::TooLarge`] if the format has no bits for them: 32-bit entries have neither N
    /// nor keys.
    pub fn with_rights(&self, words: Words, rights: &Rights) -> Result<Words, HashError> {
        let mut new = words;
        for (what, part, value) in [
            ("protection", Part::Protection, rights.protection),
            ("N", Part::NoExecute, u64::from(rights.no_execute)),
            ("G", Part::Guarded, u64::from(rights.guarded)),
            ("key", Part::Key, rights.key),
        ] {
            if !put(self.entry, &mut new, part, value) {
                return Err(HashError::TooLarge { what, value });
            }
        }
        Ok(new)
    }

    /// The words of a valid entry for `va` in `segment`, for the primary or the secondary group.
    ///
    /// # Errors
    /// [`HashError`] if the page size is none of the segment's, or something does not fit.
    pub fn encode_entry(
        &self,
        segment: &Segment,
        va: VirtAddr,
        entry: &HashEntry,
        secondary: bool,
    ) -> Result<Words, HashError> {
        if !segment.holds(va) {
            return Err(HashError::OutsideSegment { va });
        }
        let (base_shift, shift) = (segment.base_shift, entry.shift);
        let mut sizes = self.sizes.iter();
        let size = sizes.find(|s| (s.base_shift, s.shift) == (base_shift, shift));
        let size = size.ok_or(HashError::PageSize { base_shift, shift })?;
        if !entry.frame.0.is_multiple_of(1 << shift) {
            return Err(HashError::TooLarge { what: "frame", value: entry.frame.0 });
        }
        let tag = self.tag(segment, va);
        let Ok(tag) = u64::try_from(tag) else {
            return Err(HashError::TooLarge { what: "tag", value: u64::MAX });
        };
        let mut words = [0; 2];
        for (what, part, value) in [
            ("tag", Part::Tag, tag),
            ("frame", Part::Frame, entry.frame.0 | size.entry << 12),
            ("software bits", Part::Software, entry.software),
            ("R", Part::Referenced, u64::from(entry.referenced)),
            ("C", Part::Changed, u64::from(entry.changed)),
            ("H", Part::Secondary, u64::from(secondary)),
            ("L", Part::Large, u64::from(shift != 12)),
        ] {
            if !put(self.entry, &mut words, part, value) {
                return Err(HashError::TooLarge { what, value });
            }
        }
        if capacity(self.entry, Part::SegmentSize) != 0 {
            put(self.entry, &mut words, Part::SegmentSize, u64::from(segment.shift == 40));
        }
        put(self.entry, &mut words, Part::Valid, 1);
        self.with_rights(words, &entry.rights)
    }
}
