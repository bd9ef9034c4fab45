//! Page-table pages that no entry points to any more, entries that lost rights, and who may still
//! walk through them.
//!
//! A CPU may hold the entry that pointed to such a page (Intel SDM 3A 4.10.3.1, Arm ARM DDI 0487
//! D8.16, Power ISA 3.1B: page walk cache) and go on from there. Until it is told otherwise, what
//! the page holds is translations for it. An invalidation of an address takes the entries above
//! that address with it, but on arm64 those of the last level alone do not (D8.17.5.4); INVLPG
//! takes all of them (SDM 3A 4.10.4.1), but on AMD with EFER.TCE those of its address (APM vol 2
//! 5.5.3).
//!
//! An entry that points to the same page with less rights is another such way: by the entry as it
//! was the page's leaves grant what they did, up to the moment at which they go. Lower entries are
//! cached with the rights of those above (SDM 3A 4.10.3.1), so an invalidation of one address
//! leaves the ways to other last-level pages.
//!
//! What is found by several entries that a CPU holds goes by the one that changed first: whatever
//! takes a later one takes that, too. Not modelled: rights that entries above give back over a page
//! that nothing points to; the kind of powerpc's invalidation (RIC), which is taken to reach the
//! page walk cache; ways to tables of the kernel that a CPU holds under several identifiers of
//! spaces, which go with those of any of them.

use smallvec::SmallVec;
use textbed_arch::{CpuId, Perm, SpaceId, effect::TlbScope};

use super::Flush;
use super::complete::Leaves;
use crate::mark::Mark;
use crate::span::Span;

/// What leads to leaves that the tables do not have, or not so.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Way {
    /// A page-table page that nothing points to.
    Page(Until),
    /// An entry as it was: the tables' leaves with more rights.
    Entry(Until),
    /// The same, and nothing points to the page that the leaf is in any more.
    EntryAndPage(Until),
}

/// A page-table page or an entry as it was up to an event. What it was when the same one changed
/// before is another way: who holds one need not hold the other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Until {
    /// The physical address.
    pub(crate) phys: u64,
    pub(crate) event: u64,
}

impl Way {
    /// Whether who holds one of them comes through the other.
    fn is(self, held: Way) -> bool {
        match (self, held) {
            (Way::Page(a), Way::Page(b)) => a == b,
            (Way::Entry(a) | Way::EntryAndPage(a), Way::Entry(b)) => a == b,
            _ => false,
        }
    }
}

/// A way that CPUs may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldWay {
    pub(crate) space: SpaceId,
    /// The addresses that it served.
    pub(crate) span: Span,
    pub(crate) way: Way,
    /// CPUs that may still walk through it.
    pub(crate) cpus: u64,
    /// Number of the event from which on no new walk comes there; MAX = not yet.
    pub(crate) unwalkable_at: u64,
    pub(crate) since: Mark,
    /// Of an entry that lost rights.
    pub(crate) limited: Option<Limited>,
}

/// An entry as it was before it lost rights.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Limited {
    /// An invalidation of one address takes so many bytes around it.
    pub(crate) part: u64,
    /// What it left possible below.
    pub(crate) granted: Perm,
    /// Nothing else points any more to the page that it points to.
    pub(crate) out: bool,
}

/// What no entry above takes away.
const KEPT: Perm = Perm::PRESENT.union(Perm::READ).union(Perm::GLOBAL);

/// An entry of the tables that points to a page, and changed what it leaves possible there.
#[derive(Debug)]
struct Place {
    space: SpaceId,
    span: Span,
    phys: u64,
    grants: Perm,
}

impl HeldWay {
    /// Whether it is an entry as it was at that place.
    fn is_at(&self, place: &Place) -> bool {
        let here = |at: &Until| at.phys == place.phys && self.space == place.space;
        matches!(&self.way, Way::Entry(at) if here(at))
    }

    /// What is outside of a span of its addresses, as ways of their own; it has the rest.
    fn cut(&mut self, span: Span) -> Vec<HeldWay> {
        let Some(mid) = self.span.meet(span) else { return Vec::new() };
        let whole = std::mem::replace(&mut self.span, mid);
        let before = mid.first.checked_sub(1).filter(|last| *last >= whole.first);
        let behind = mid.last.checked_add(1).filter(|first| *first <= whole.last);
        let before = before.map(|last| Span { first: whole.first, last });
        let behind = behind.map(|first| Span { first, last: whole.last });
        before.into_iter().chain(behind).map(|span| HeldWay { span, ..*self }).collect()
    }
}

/// Pages watched at once; past it nothing new is.
const MAX_WAYS: usize = 4096;

/// The ways that are watched.
#[derive(Default, Debug)]
pub(crate) struct HeldWays {
    held: Vec<HeldWay>,
    places: Vec<Place>,
}

impl HeldWays {
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether there is an entry with more rights than the tables' has.
    pub(crate) fn has_entries(&self) -> bool {
        self.held.iter().any(|way| way.limited.is_some())
    }

    pub(crate) fn add(&mut self, table: HeldWay) {
        if table.cpus != 0 && self.held.len() < MAX_WAYS {
            self.held.push(table);
        }
    }

    /// What an entry of the tables leaves possible from now on.
    pub(crate) fn place(&mut self, space: SpaceId, span: Span, phys: u64, grants: Perm) {
        self.places.retain(|place| place.phys != phys);
        if self.places.len() < MAX_WAYS {
            self.places.push(Place { space, span, phys, grants });
        }
    }

    /// Nothing points to the page any more that serves a range: who holds the entry that did goes
    /// where no later leaf will be.
    pub(crate) fn page_out(&mut self, space: SpaceId, span: Span) {
        let HeldWays { held, places } = self;
        places.retain(|place| {
            let out = (place.space, place.span) == (space, span);
            for way in held.iter_mut().filter(|way| out && way.is_at(place)) {
                if let Some(limited) = &mut way.limited {
                    limited.out = true;
                }
            }
            !out
        });
    }

    /// What CPUs make of a leaf that would grant `own` by entries above as they were, each with the
    /// one among these that changed first.
    pub(crate) fn found(&self, space: SpaceId, virt: u64, own: Perm) -> Vec<(Perm, HeldWay)> {
        let mut walks: Vec<(Perm, Option<&HeldWay>)> = vec![(own, None)];
        for place in self.places.iter().filter(|p| p.space == space && p.span.has(virt)) {
            let serves = |way: &&HeldWay| way.is_at(place) && way.span.has(virt);
            let held = self.held.iter().filter(serves).filter_map(|way| {
                let limited = way.limited.filter(|limited| !limited.out)?;
                Some((limited.granted, Some(way)))
            });
            let mut next: Vec<(Perm, Option<&HeldWay>)> = Vec::new();
            for (grants, way) in held.chain([(place.grants, None)]) {
                for (perm, eldest) in &walks {
                    let first = way.into_iter().chain(*eldest).min_by_key(|way| way.since.seq);
                    let walk = (*perm & (grants | KEPT), first);
                    let same = |(perm, way): &(Perm, Option<&HeldWay>)| {
                        *perm == walk.0 && way.map(|w| w.since.seq) == first.map(|w| w.since.seq)
                    };
                    if !next.iter().any(same) {
                        next.push(walk);
                    }
                }
            }
            walks = next;
        }
        walks.sort_by_key(|(_, way)| std::cmp::Reverse(way.map(|way| way.since.seq)));
        let mut found: Vec<(Perm, HeldWay)> = Vec::new();
        for (perm, way) in walks.into_iter().filter_map(|(perm, way)| Some((perm, *way?))) {
            let more = |(p, w): &(Perm, HeldWay)| p.contains(perm) && way.cpus & !w.cpus == 0;
            if !found.iter().any(more) {
                found.push((perm, way));
            }
        }
        found
    }

    /// An invalidation is complete.
    pub(super) fn close(&mut self, flush: &Flush) {
        let Flush { ref asked, cpus, own, leaves, every_upper } = *flush;
        let target = asked.target;
        let off = if leaves == Leaves::Others { own } else { cpus };
        let mut left = Vec::new();
        for table in &mut self.held {
            let same = table.space == target.space || table.space == SpaceId::KERNEL;
            let near = target.span.is_none_or(|span| span.meet(table.span).is_some());
            let hits = match target.scope {
                TlbScope::AddressLastLevel => every_upper,
                TlbScope::Address => same && (every_upper || near),
                TlbScope::Space => same,
                TlbScope::AllButGlobal | TlbScope::All => true,
            };
            if hits && flush.in_time(table.unwalkable_at, &table.since) {
                if let (Some(of), Some(span), false) = (table.limited, target.span, every_upper) {
                    left.extend(table.cut(span.rounded(of.part)));
                }
                table.cpus &= !off;
            }
        }
        self.held.append(&mut left);
        self.held.retain(|table| table.cpus != 0);
    }

    /// CPUs that may still come to the leaf of an address by a way.
    pub(super) fn walkers(&self, way: Way, virt: u64) -> u64 {
        let serves = |t: &&HeldWay| way.is(t.way) && t.span.has(virt);
        self.held.iter().filter(serves).fold(0, |cpus, table| cpus | table.cpus)
    }

    /// A range in parts, in each of which the same CPUs walk by the same ways.
    pub(crate) fn parts(&self, whole: Span) -> SmallVec<[Span; 1]> {
        let mut starts: SmallVec<[u64; 2]> = SmallVec::from_slice(&[whole.first]);
        let held = self.held.iter().filter(|table| table.limited.is_some());
        for span in held.map(|table| table.span).chain(self.places.iter().map(|p| p.span)) {
            let behind = span.last.checked_add(1);
            starts.extend(std::iter::once(span.first).chain(behind));
        }
        starts.retain(|at| whole.has(*at));
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([whole.last]);
        starts.iter().zip(ends).map(|(first, last)| Span { first: *first, last }).collect()
    }

    /// The entries above an address that a CPU may hold with more rights than they have.
    #[cfg(test)]
    pub(super) fn held(&self, virt: u64) -> Vec<Way> {
        self.held.iter().filter(|table| table.span.has(virt)).map(|table| table.way).collect()
    }

    /// `cpus` forgot every way that their translations of `space` took.
    pub(super) fn forgotten(&mut self, space: SpaceId, cpus: u64) {
        for table in &mut self.held {
            if table.space == space || table.space == SpaceId::KERNEL {
                table.cpus &= !cpus;
            }
        }
        self.held.retain(|table| table.cpus != 0);
    }

    /// What `cpu` stored to the tables is visible to every later walk.
    pub(crate) fn stores_done(&mut self, cpu: CpuId, now: u64) {
        for table in self.held.iter_mut().filter(|table| table.since.cpu == cpu) {
            table.unwalkable_at = table.unwalkable_at.min(now);
        }
    }

    /// The page went back; what was known of it, if a CPU may still walk there.
    pub(crate) fn freed(&mut self, phys: u64) -> Option<HeldWay> {
        let at = self
            .held
            .iter()
            .position(|table| matches!(table.way, Way::Page(page) if page.phys == phys))?;
        Some(self.held.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use textbed_arch::{Perm, effect::Reach, paging::Attributes};
    use textbed_event::CallRef;

    use super::super::complete::Asked;
    use super::super::{Heard, Old, Stale, Target};
    use super::*;
    use crate::fetch::clock::Clock;

    const RANGE: Span = Span { first: 0, last: 0x1f_ffff };

    fn way_of(phys: u64) -> Way {
        Way::Page(Until { phys, event: 5 })
    }

    /// A page that CPUs 0 and 1 may walk through, taken out by the fifth event, on CPU 0.
    fn out(space: SpaceId, phys: u64) -> HeldWay {
        let since = Mark::by_hand(5, CpuId(0));
        let (cpus, unwalkable_at, limited) = (0b11, u64::MAX, None);
        HeldWay { space, span: RANGE, way: way_of(phys), cpus, unwalkable_at, since, limited }
    }

    fn flush(scope: TlbScope, cpus: u64, at: u64) -> Flush {
        let target = Target::of(scope, Some(RANGE), SpaceId::KERNEL);
        let (own, leaves, every_upper) = (cpus, Leaves::Nothing, false);
        let asked = Asked { target, reach: Reach::Broadcast, at, shown: Clock::NONE, moved: 0 };
        Flush { asked, cpus, own, leaves, every_upper }
    }

    /// What a page was before the fifth event, on CPU 0.
    fn old(page: Span, unwalkable_at: u64, way: Option<Way>) -> Old {
        Old {
            phys: page.first,
            perm: Perm::KERNEL_RO,
            shift: 12,
            attributes: Attributes::default(),
            cpus: 0b11,
            unwalkable_at,
            made_at: 1,
            since: Mark::by_hand(5, CpuId(0)),
            early: None,
            left: None,
            way,
        }
    }

    #[test]
    fn a_flush_amid_a_change_counts_when_who_made_it_is_through_and_left_others_out() {
        let page = Span { first: 0, last: 0xfff };
        let now = Mark::by_hand(20, CpuId(1));
        let (mine, theirs) = (CallRef(1), CallRef(2));
        for amid in [false, true] {
            let mut stale = Stale::default();
            stale.add(SpaceId::KERNEL, page, old(page, u64::MAX, None));
            let counts = |stale: &Stale| {
                let olds = stale.within(SpaceId::KERNEL, page).next();
                olds.is_some_and(|(_, olds)| olds.0[0].too_early().is_some())
            };
            let early = flush(TlbScope::AddressLastLevel, u64::MAX, 9);
            let of = |_: &Mark| if amid { Heard::Amid(theirs) } else { Heard::Known };
            let until = stale.close(&early, (&now, mine), of).1[0].0;
            assert_eq!((until, counts(&stale)), if amid { (theirs, false) } else { (mine, true) });
            // CPU 0 flushes for itself alone.
            let own = flush(TlbScope::AddressLastLevel, 0b01, u64::MAX);
            stale.close(&own, (&Mark::by_hand(21, CpuId(0)), theirs), |_| Heard::Known);
            assert!(counts(&stale));
        }
    }

    #[test]
    fn who_loads_a_root_anew_forgets_the_ways_of_that_space() {
        let mut stale = Stale::default();
        for (space, phys) in [SpaceId(1), SpaceId(2), SpaceId::KERNEL].into_iter().zip(1..) {
            stale.ways.add(out(space, phys));
        }
        let left = |stale: &Stale| [1, 2, 3].map(|phys| stale.ways.walkers(way_of(phys), 0));
        stale.close_space(SpaceId(1), 0b01);
        assert_eq!(left(&stale), [0b10, 0b11, 0b10]);
        stale.close_space(SpaceId(1), 0b10);
        assert_eq!(left(&stale), [0, 0b11, 0]);
        assert!(stale.ways.freed(1).is_none() && stale.ways.freed(2).is_some());
    }

    #[test]
    fn a_way_is_closed_by_what_was_issued_when_walks_saw_the_change() {
        let mut stale = Stale::default();
        stale.ways.add(out(SpaceId::KERNEL, 1));
        let now = Mark::by_hand(20, CpuId(1));
        let told = |stale: &mut Stale, cpus, issued, until| {
            let mut flush = flush(TlbScope::Address, cpus, issued);
            flush.asked.shown.set(CpuId(0), until);
            stale.close(&flush, (&now, CallRef::NONE), |_| Heard::Known);
            stale.ways.walkers(way_of(1), 0)
        };
        let left = |stale: &mut Stale, cpus, issued| told(stale, cpus, issued, 0);
        assert_eq!(told(&mut stale, 0b10, 9, 5), 0b11, "told before the change");
        assert_eq!(told(&mut stale, 0b10, 9, 6), 0b01);
        stale.ways.stores_done(CpuId(0), 12);
        assert_eq!(left(&mut stale, 0b01, 11), 0b01);
        assert_eq!(left(&mut stale, 0b01, 12), 0);
    }

    #[test]
    fn rights_that_went_are_found_beside_an_invalidated_address() {
        let mut stale = Stale::default();
        let whole = Span { first: 0, last: 0x3fff_ffff };
        let way = Way::Entry(Until { phys: 0x5008, event: 5 });
        let limited = Some(Limited { part: 2 << 20, granted: Perm::all(), out: false });
        let held = HeldWay { span: whole, way, limited, ..out(SpaceId::KERNEL, 1) };
        stale.ways.add(HeldWay { unwalkable_at: 6, ..held });
        let now = Mark::by_hand(20, CpuId(0));
        let mid = Span { first: 0x0040_1000, last: 0x0040_1fff };
        let mut one = flush(TlbScope::Address, 0b11, 9);
        one.asked.target.span = Some(mid);
        stale.close(&one, (&now, CallRef::NONE), |_| Heard::Known);
        let left = |stale: &Stale| {
            [0, 0x003f_ffff, 0x0040_0000, 0x005f_ffff, 0x0060_0000, 0x3fff_ffff]
                .map(|virt| stale.ways.walkers(way, virt))
        };
        assert_eq!(left(&stale), [0b11, 0b11, 0, 0, 0b11, 0b11]);
        // So an invalidation of the last level ends what is found by that, and by that alone.
        stale.add(SpaceId::KERNEL, whole, old(whole, 6, Some(way)));
        let mut last = flush(TlbScope::AddressLastLevel, 0b11, 9);
        last.asked.target.span = Some(whole);
        stale.close(&last, (&now, CallRef::NONE), |_| Heard::Known);
        let kept: Vec<Span> = stale.within(SpaceId::KERNEL, whole).map(|(part, _)| part).collect();
        let [before, behind] = [(0, 0x003f_ffff), (0x0060_0000, whole.last)];
        assert_eq!(kept, [before, behind].map(|(first, last)| Span { first, last }));
        // INVLPG takes all of them, whatever address it names.
        one.every_upper = true;
        stale.close(&one, (&now, CallRef::NONE), |_| Heard::Known);
        assert_eq!(left(&stale), [0; 6]);
    }

    #[test]
    fn leaves_beside_each_other_are_those_of_their_tables() {
        let mut stale = Stale::default();
        stale.ways.add(out(SpaceId::KERNEL, 1));
        let pages = [0, 0x1000].map(|first| Span { first, last: first + 0xfff });
        for (page, table) in pages.into_iter().zip(1..) {
            stale.add(SpaceId::KERNEL, page, old(page, 6, Some(way_of(table))));
        }
        let now = Mark::by_hand(20, CpuId(0));
        stale.close(&flush(TlbScope::AddressLastLevel, u64::MAX, 9), (&now, CallRef::NONE), |_| {
            Heard::Known
        });
        let left = stale.within(SpaceId::KERNEL, RANGE).map(|(part, _)| part);
        assert_eq!(left.collect::<Vec<_>>(), pages[..1]);
    }
}
