//! In which regions of memory anything is, by a hash: most memory is in none, and that is known
//! without a look-up.

use crate::span::Span;

/// Bytes of a region beyond those of a page, as a power of two: regions have 2 MiB.
pub(super) const PAGES: u32 = 9;
/// Regions of one span that are noted one by one; a longer one is everywhere.
const MAX_REGIONS: u64 = 64;
const WORDS: usize = 1024;

/// Regions that were noted, by numbers of pages.
#[derive(Clone, Debug)]
pub(super) struct Regions(Box<[u64; WORDS]>);

impl Default for Regions {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl Regions {
    #[inline]
    fn bit(region: u64) -> (usize, u64) {
        let hash = region.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        ((hash >> 6) as usize % WORDS, 1 << (hash & 63))
    }

    /// Something is in this page.
    #[inline]
    pub(super) fn add(&mut self, page: u64) {
        let (word, bit) = Self::bit(page >> PAGES);
        self.0[word] |= bit;
    }

    /// Something is in each page of `span`.
    pub(super) fn add_span(&mut self, span: Span) {
        let (first, last) = (span.first >> 12 >> PAGES, span.last >> 12 >> PAGES);
        if last - first >= MAX_REGIONS {
            *self.0 = [u64::MAX; WORDS];
            return;
        }
        (first..=last).for_each(|region| self.add(region << PAGES));
    }

    /// Whether anything may be in this page.
    #[inline]
    pub(super) fn may_hold(&self, page: u64) -> bool {
        let (word, bit) = Self::bit(page >> PAGES);
        self.0[word] & bit != 0
    }

    /// Whether anything may be in any page of `span`.
    #[inline]
    pub(super) fn may_meet(&self, span: Span) -> bool {
        let (first, last) = (span.first >> 12 >> PAGES, span.last >> 12 >> PAGES);
        last - first >= MAX_REGIONS || (first..=last).any(|region| self.may_hold(region << PAGES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_noted_may_be_there() {
        let mut regions = Regions::default();
        let span = |first, len| Span::of(first, len).unwrap();
        regions.add_span(span(0x3f_f000, 0x2000));
        regions.add(0x1_0000);
        for at in [0x3f_f000, 0x3f_ffff, 0x40_0fff, 0x1000_0000] {
            assert!(regions.may_meet(span(at, 1)) && regions.may_hold(at >> 12), "{at:#x}");
        }
        assert!(!regions.may_meet(span(0x8000_0000, 0x1000)) && !regions.may_hold(0x8_0000));
        assert!(regions.may_meet(span(0, u64::MAX)), "not looked for one by one");
        regions.add_span(span(0, 1 << 40));
        assert!(regions.may_meet(span(u64::MAX - 8, 8)));
    }
}
