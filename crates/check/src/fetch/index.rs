//! Instruction caches that are indexed by virtual address (CTR_EL0.L1Ip: VIPT, AIVIVT).
//!
//! There an invalidation of a line by address is promised for the lines of that address alone; what
//! other addresses led to the same bytes may stay. Only an invalidation of everything reaches all.
//! So what is known by a line is kept under the virtual address, beside what is known of physical
//! ones: the two do not overlap, because physical addresses have at most 52 bits.
//!
//! Not modelled: that such caches have few index bits, so that many addresses share one (no text
//! promises it); two frames one after the other under one address count as one.
//!
//! Source: Arm ARM, "instruction caches", as quoted by Arm's engineers (VIPT: the whole cache);
//! Linux `arm64/mm/flush.c`, which invalidates everything where the cache is aliasing.

use crate::span::Span;

/// Bytes that are fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetched {
    pub(crate) span: Span,
    /// Where the cache keeps them, if that depends on the virtual address.
    by: Option<Span>,
}

impl Fetched {
    /// Physical bytes, and their virtual address if the cache is indexed by it.
    pub(crate) fn of(span: Span, virt: Option<u64>) -> Self {
        Self { span, by: virt.map(|virt| by_virt(span, virt)) }
    }

    /// The places under which something may be known of them.
    pub(crate) fn places(self) -> impl Iterator<Item = Span> {
        std::iter::once(self.span).chain(self.by)
    }
}

impl From<Span> for Fetched {
    fn from(span: Span) -> Self {
        Self::of(span, None)
    }
}

/// The place of `span`, which begins at `virt`.
pub(crate) fn by_virt(span: Span, virt: u64) -> Span {
    let first = virt | 1 << 62;
    Span { first, last: first.saturating_add(span.last - span.first) }
}
