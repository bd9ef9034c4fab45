//! What the page tables say now: by address space, and by frame (who maps it).
//!
//! Modelled: leaves as ranges with physical address, effective permission and attributes. Where the
//! source does not know physical addresses, a mapping stands for itself: its "frame" is a number
//! above [`UNKNOWN_PHYS`] made of its virtual address, so that only rules about one mapping see it.
//! Not modelled: upper levels.

use std::collections::BTreeMap;

use textbed_arch::paging::Attributes;
use textbed_arch::{Perm, SpaceId};

use crate::mark::Mark;
use crate::span::{PageMap, Piece, Span};

/// From here on a "physical address" is a virtual one whose frame is not known. No architecture
/// has physical addresses of 63 bits.
pub(crate) const UNKNOWN_PHYS: u64 = 1 << 63;

/// A leaf or a run of equal leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub(crate) phys: u64,
    pub(crate) perm: Perm,
    /// `log2` of the leaf size.
    pub(crate) shift: u8,
    pub(crate) attributes: Attributes,
    /// What entries above take away of what the leaf would grant.
    pub(crate) denied: Perm,
    /// The event that made it what it is.
    pub(crate) since: Mark,
    /// Number of the event since which it is executable without a break, for an executable one.
    pub(crate) exec_since: u64,
}

impl Piece for Mapping {
    fn skip(&mut self, bytes: u64) {
        self.phys = self.phys.wrapping_add(bytes);
    }
    fn goes_on_as(&self, len: u64, next: &Self) -> bool {
        self.phys.wrapping_add(len) == next.phys
            && (self.perm, self.shift, self.attributes) == (next.perm, next.shift, next.attributes)
            && self.denied == next.denied
            && self.since.same_call(&next.since)
            && self.exec_since == next.exec_since
    }
}

/// One way to reach a frame: `virt - phys` in an address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Alias {
    pub(crate) space: SpaceId,
    pub(crate) delta: u64,
}

/// The ways to reach a frame, the oldest first: most frames have one.
#[derive(Clone, Debug)]
pub(crate) enum Aliases {
    One(Alias),
    Several(Vec<Alias>),
}

impl std::ops::Deref for Aliases {
    type Target = [Alias];

    fn deref(&self) -> &[Alias] {
        match self {
            Aliases::One(alias) => std::slice::from_ref(alias),
            Aliases::Several(all) => all,
        }
    }
}

impl PartialEq for Aliases {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Aliases {
    /// One more.
    fn push(&mut self, alias: Alias) {
        match self {
            Aliases::One(one) => *self = Aliases::Several(vec![*one, alias]),
            Aliases::Several(all) => all.push(alias),
        }
    }

    /// Without this one, if any is left.
    fn without(&self, alias: Alias) -> Option<Self> {
        let mut others = self.iter().copied().filter(|other| *other != alias);
        let mut left = Aliases::One(others.next()?);
        others.for_each(|other| left.push(other));
        Some(left)
    }
}

crate::span::flat_piece!(Aliases);

/// Read-only, not executable ways to one frame that are kept. x86 maps the frames of its stacks for
/// returns to 16-bit code (espfix) tens of thousands of times: no rule needs them all.
const MAX_HARMLESS: usize = 16;

/// The tables of all address spaces.
#[derive(Default, Debug)]
pub(crate) struct Tables {
    now: BTreeMap<SpaceId, PageMap<Mapping>>,
    aliases: PageMap<Aliases>,
    writable: Writable,
}

/// Pages of the kernel's space that were found writable, 64 of them in each place, with the number
/// of the first over 64: most stores go where others went, and the tables are large. Where two
/// would have the same place the later one has it, so what is not found need not be otherwise.
#[derive(Default, Debug)]
struct Writable(Vec<(u64, u64)>);

/// Places there: with one for each 64 pages they are enough for a gibibyte.
const WRITABLE: usize = 4096;

impl Writable {
    #[inline]
    fn place(virt: u64) -> usize {
        ((virt >> 18).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize % WRITABLE
    }

    #[inline]
    fn has(&self, virt: u64) -> bool {
        let there = self.0.get(Self::place(virt));
        there.is_some_and(|(at, pages)| *at == virt >> 18 && pages >> (virt >> 12 & 63) & 1 != 0)
    }

    fn add(&mut self, virt: u64) {
        if self.0.is_empty() {
            self.0 = vec![(0, 0); WRITABLE];
        }
        let there = &mut self.0[Self::place(virt)];
        if there.0 != virt >> 18 {
            *there = (virt >> 18, 0);
        }
        there.1 |= 1 << (virt >> 12 & 63);
    }

    fn forget(&mut self, span: Span) {
        let (first, last) = (span.first >> 18, span.last >> 18);
        if last - first >= WRITABLE as u64 {
            self.0.clear();
            return;
        }
        for at in first..=last {
            let place = Self::place(at << 18);
            let Some((_, pages)) = self.0.get_mut(place).filter(|(there, _)| *there == at) else {
                continue;
            };
            let from = if at == first { span.first >> 12 & 63 } else { 0 };
            let to = if at == last { span.last >> 12 & 63 } else { 63 };
            *pages &= !((u64::MAX << from) & (u64::MAX >> (63 - to)));
        }
    }
}

impl Tables {
    /// The leaf that a CPU in `space` uses for `virt`: its own, else the kernel's.
    pub(crate) fn lookup(&self, space: SpaceId, virt: u64) -> Option<(SpaceId, Mapping)> {
        let (space, span, mapping) = self.leaf(space, virt)?;
        let mut mapping = *mapping;
        mapping.skip(virt - span.first);
        Some((space, mapping))
    }

    /// Whether that leaf, if it is present, grants stores.
    #[inline]
    pub(crate) fn is_writable(&mut self, space: SpaceId, virt: u64) -> Option<bool> {
        let kernel = space == SpaceId::KERNEL;
        if kernel && self.writable.has(virt) {
            return Some(true);
        }
        self.look_whether_writable(space, virt)
    }

    #[cold]
    fn look_whether_writable(&mut self, space: SpaceId, virt: u64) -> Option<bool> {
        let kernel = space == SpaceId::KERNEL;
        let perm = self.leaf(space, virt).map(|(_, _, mapping)| mapping.perm)?;
        let writable = perm.contains(Perm::PRESENT).then(|| perm.writable())?;
        if kernel && writable {
            self.writable.add(virt);
        }
        Some(writable)
    }

    /// Prefetches where a store to a page of the kernel's space looks, if that is not known to be
    /// writable; whether it was not.
    #[inline]
    pub(crate) fn prefetch_stored(&self, virt: u64) -> bool {
        let asks = !self.writable.has(virt);
        if let Some(map) = self.now.get(&SpaceId::KERNEL).filter(|_| asks) {
            map.prefetch(virt);
        }
        asks
    }

    /// And what that leads to.
    #[inline]
    pub(crate) fn prefetch_stored_there(&self, virt: u64) {
        if let Some(map) = self.now.get(&SpaceId::KERNEL) {
            map.near(virt);
        }
    }

    /// Prefetches where a change of a mapping looks.
    #[inline]
    pub(crate) fn prefetch(&self, space: SpaceId, virt: u64, phys: u64) {
        if let Some(map) = self.now.get(&space) {
            map.prefetch(virt);
        }
        self.aliases.prefetch(phys);
    }

    /// And what that leads to.
    #[inline]
    pub(crate) fn prefetch_there(&self, space: SpaceId, virt: u64, phys: u64) {
        if let Some(map) = self.now.get(&space) {
            map.near(virt);
        }
        self.aliases.near(phys);
    }

    fn leaf(&self, space: SpaceId, virt: u64) -> Option<(SpaceId, Span, &Mapping)> {
        let spaces = [space, SpaceId::KERNEL];
        let spaces = if space == SpaceId::KERNEL { &spaces[..1] } else { &spaces };
        spaces.iter().copied().find_map(|s| {
            let (span, mapping) = self.now.get(&s)?.get(virt)?;
            Some((s, span, mapping))
        })
    }

    /// The leaves over `span`, clipped.
    pub(crate) fn within(
        &self,
        space: SpaceId,
        span: Span,
    ) -> impl Iterator<Item = (Span, Mapping)> + '_ {
        self.now.get(&space).into_iter().flat_map(move |map| map.within(span))
    }

    /// The leaves that meet `span`, whole.
    pub(crate) fn whole(
        &self,
        space: SpaceId,
        span: Span,
    ) -> impl Iterator<Item = (Span, &Mapping)> + '_ {
        self.now.get(&space).into_iter().flat_map(move |map| map.whole(span))
    }

    /// Puts a mapping over `span`, or clears it.
    pub(crate) fn set(&mut self, space: SpaceId, span: Span, mapping: Option<Mapping>) {
        if space == SpaceId::KERNEL {
            self.writable.forget(span);
        }
        let map = self.now.entry(space).or_default();
        match mapping {
            Some(mapping) => {
                map.insert(span, mapping);
                if let Some(frames) = Span::of(mapping.phys, span.len()) {
                    let alias = Alias { space, delta: span.first.wrapping_sub(mapping.phys) };
                    let grants = mapping.perm.intersects(Perm::WRITE | Perm::EXEC);
                    self.remember(frames, alias, grants);
                }
            }
            None => map.remove(span),
        }
    }

    /// The ways to reach `frames`, clipped.
    pub(crate) fn aliases(&self, frames: Span) -> impl Iterator<Item = (Span, Aliases)> + '_ {
        self.aliases.within(frames)
    }

    /// The same, with the sets as they are.
    pub(crate) fn alias_parts(&self, frames: Span) -> impl Iterator<Item = (Span, &Aliases)> + '_ {
        self.aliases.parts(frames)
    }

    /// Adds a way to reach `frames`; of ways that grant neither write nor execute only the first
    /// [`MAX_HARMLESS`] are kept.
    fn remember(&mut self, frames: Span, alias: Alias, grants: bool) {
        let known = |set: &Aliases| set.contains(&alias) || (!grants && set.len() >= MAX_HARMLESS);
        let mut bytes = 0u64;
        let mut all_known = true;
        for (part, set) in self.aliases.parts(frames) {
            all_known &= known(set);
            bytes = bytes.wrapping_add(part.len());
        }
        if all_known && bytes == frames.len() {
            return;
        }
        self.aliases.update(frames, |_, set| {
            let Some(set) = set else { return Some(Aliases::One(alias)) };
            let mut set = set.clone();
            if !known(&set) {
                set.push(alias);
            }
            Some(set)
        });
    }

    /// Drops a way to reach `frames`: nothing leads there through it any more.
    pub(crate) fn forget(&mut self, frames: Span, alias: Alias) {
        self.aliases.update(frames, |_, set| set?.without(alias));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What it says is writable was found so and not forgotten since, whatever has its place.
        /// Far pages share places with near ones.
        #[test]
        fn no_page_is_writable_that_was_forgotten(
            ops in prop::collection::vec(
                (any::<bool>(), 0u64..3, 0u64..200, prop::sample::select(&[1u64, 2, 63, 64, 65, 130,
                1 << 20][..])),
                1..60,
            ),
        ) {
            let (mut writable, mut model) = (Writable::default(), BTreeSet::new());
            let mut last = None;
            for (add, far, page, count) in ops {
                let first = (far << 30) + page;
                if add {
                    writable.add(first << 12);
                    model.insert(first);
                    last = Some(first);
                } else {
                    writable.forget(Span::of(first << 12, count << 12).unwrap());
                    model.retain(|page| !(first..first + count).contains(page));
                    // After a long span nothing is known, wherever it was.
                    last = last.filter(|_| count < 1 << 20);
                }
                for page in (0..3u64).flat_map(|far| (0..340).map(move |page| (far << 30) + page)) {
                    prop_assert!(!writable.has(page << 12) || model.contains(&page), "{page:#x}");
                }
                if let Some(last) = last.filter(|last| model.contains(last)) {
                    prop_assert!(writable.has(last << 12), "what was found last is known");
                }
            }
        }
    }
}
