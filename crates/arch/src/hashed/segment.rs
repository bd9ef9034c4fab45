//! Segments: an SLB entry, or a segment register.

use super::field::{Part, get, put};
use super::{HashError, HashFormat, Words};
use crate::addr::VirtAddr;

/// A segment, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its first address.
    pub first: VirtAddr,
    /// `log2` of its bytes: 28 or 40.
    pub shift: u32,
    /// Number of the virtual segment.
    pub id: u64,
    /// The key of the kernel's accesses.
    pub kernel_key: bool,
    /// The key of a process's accesses.
    pub user_key: bool,
    /// Nothing in it is executed.
    pub no_execute: bool,
    /// `log2` of its base page.
    pub base_shift: u32,
    /// 32-bit: not memory.
    pub direct_store: bool,
}

/// Segments of 256 MiB and 1 TiB.
const SHIFTS: [u32; 2] = [28, 40];

impl Segment {
    /// Whether an address lies in it.
    #[must_use]
    pub fn holds(&self, va: VirtAddr) -> bool {
        (va.0 ^ self.first.0) >> self.shift == 0
    }

    /// The offset of an address in it.
    #[must_use]
    pub fn offset(&self, va: VirtAddr) -> u64 {
        va.0 & ((1 << self.shift) - 1)
    }

    /// The virtual address of an address in it.
    pub(super) fn virtual_address(&self, va: VirtAddr) -> u128 {
        u128::from(self.id) << self.shift | u128::from(self.offset(va))
    }

    /// The hash of an address in it, of which the secondary group has the complement. Of a segment
    /// of 1 TiB the number goes in twice.
    pub(super) fn hash(&self, va: VirtAddr) -> u64 {
        let page = self.offset(va) >> self.base_shift;
        let id = if self.shift == 40 { self.id ^ self.id << 25 } else { self.id };
        id ^ page
    }
}

impl HashFormat {
    /// The segment that the operands RB and RS of the instruction make; `None` for one that is not
    /// valid, or of no size that there is.
    #[must_use]
    pub fn segment(&self, words: Words) -> Option<Segment> {
        let of = |part| get(self.segment, words, part);
        let has_valid = self.segment.iter().any(|f| f.part == Part::Valid);
        if has_valid && of(Part::Valid) == 0 {
            return None;
        }
        let shift = *SHIFTS.get(usize::try_from(of(Part::SegmentSize)).ok()?)?;
        let size = self.sizes.iter().find(|size| size.segment == of(Part::PageSize))?;
        // A number of 50 bits has those of 1 TiB above 12 bits that do not count.
        let id = of(Part::Id) >> (shift - 28);
        Some(Segment {
            first: VirtAddr(of(Part::Address) >> shift << shift),
            shift,
            id,
            kernel_key: of(Part::KernelKey) != 0,
            user_key: of(Part::UserKey) != 0,
            no_execute: of(Part::NoExecute) != 0,
            base_shift: size.base_shift,
            direct_store: of(Part::DirectStore) != 0,
        })
    }

    /// The operands RB and RS that make a segment (in slot 0).
    ///
    /// # Errors
    /// [`HashError::Segment`] if the format has no such segment.
    pub fn encode_segment(&self, segment: &Segment) -> Result<Words, HashError> {
        let bad = HashError::Segment { first: segment.first };
        let size_code = SHIFTS.iter().position(|s| *s == segment.shift).ok_or(bad)? as u64;
        let size = self.sizes.iter().find(|s| s.base_shift == segment.base_shift).ok_or(bad)?;
        let mut words = [0; 2];
        for (part, value) in [
            (Part::Address, segment.first.0),
            (Part::SegmentSize, size_code),
            (Part::Id, segment.id << (segment.shift - 28)),
            (Part::KernelKey, u64::from(segment.kernel_key)),
            (Part::UserKey, u64::from(segment.user_key)),
            (Part::NoExecute, u64::from(segment.no_execute)),
            (Part::PageSize, size.segment),
            (Part::DirectStore, u64::from(segment.direct_store)),
        ] {
            if !put(self.segment, &mut words, part, value) {
                return Err(bad);
            }
        }
        put(self.segment, &mut words, Part::Valid, 1);
        // A number that is too large, or a first address inside of the segment.
        if self.segment(words) == Some(*segment) { Ok(words) } else { Err(bad) }
    }
}
