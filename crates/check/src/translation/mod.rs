//! Translation windows: answers of the page tables that a CPU may still use though they are gone.
//!
//! For each range whose leaf lost a permission or its frame there is one [`Old`] answer with the
//! CPUs that may still hold it. A completed invalidation takes CPUs off it ([`complete`] says by
//! architecture when one is complete); with no CPU left the answer is forgotten.
//!
//! [`watch`] has what concerns entries that are being changed: their order, breaks and holes;
//! [`ways`] the ways by upper entries that CPUs may still take.
//!
//! What a CPU may use is a set of walks: through what the tables say, through each page-table page
//! that nothing points to any more, and through each entry that lost rights as it was, for the CPUs
//! that may still hold the entry. The leaves of such a page are old answers that an invalidation of
//! leaves alone does not end.
//!
//! Where other CPUs run inside of a call, an invalidation of one of them between a change there and
//! its barrier says nothing yet: whoever changes tables invalidates afterwards (Linux 6.6
//! Documentation/core-api/cachetlb.rst, read), so it is judged at the end of that call ([`Early`]).
//!
//! Judged in the order of the stream. Not modelled: narrower answers after an upgrade (they grant
//! less); CPUs from number 63 on one by one, which share a bit.

#[cfg(test)]
mod bench;
pub(crate) mod closing;
pub(crate) mod complete;
#[cfg(test)]
mod random;
pub(crate) mod told;
pub(crate) mod watch;
pub(crate) mod ways;

use std::collections::BTreeMap;

use smallvec::SmallVec;
use textbed_arch::{CpuId, Perm, SpaceId, effect::TlbScope, paging::Attributes};
use textbed_event::{CallRef, View};

use crate::mark::Mark;
use crate::span::{Piece, Span, SpanMap};
use complete::{Asked, Leaves};
use ways::{HeldWays, Way};

/// An answer that the tables no longer give.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Old {
    pub(crate) phys: u64,
    pub(crate) perm: Perm,
    /// `log2` of the leaf: an invalidation anywhere in it drops all of it.
    pub(crate) shift: u8,
    pub(crate) attributes: Attributes,
    /// CPUs that may hold it.
    pub(crate) cpus: u64,
    /// Number of the event from which on no new walk can find it; MAX = not yet.
    pub(crate) unwalkable_at: u64,
    /// Number of the event that had made it.
    pub(crate) made_at: u64,
    /// The change that made it old.
    pub(crate) since: Mark,
    /// An invalidation that named it was issued before walks were bound to see the change.
    pub(crate) early: Option<Early>,
    /// The last invalidation (its event) that hit it and left it to some CPU, by an erratum.
    pub(crate) left: Option<(u64, Leaves)>,
    /// What led there, if the tables do no more: a CPU that still holds that finds it again.
    pub(crate) way: Option<Way>,
}

/// An invalidation that came too early for an old answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Early {
    /// Where it completed.
    pub(crate) done: Mark,
    /// A CPU invalidated that had heard nothing of the change, while the call that made it was
    /// under way on another one, or everything, which names nothing, or a range with changes in it
    /// that it had heard of. It may have been about something else.
    pub(crate) amid: bool,
    /// The call at whose end it has to have been made good: the one that invalidated, or where that
    /// may have been about something else the one that changed the tables, if that is not over.
    pub(crate) until: CallRef,
}

impl Old {
    /// The invalidation that came too early for it. One amid the change counts as one for it only
    /// if whoever made the change is through with that and left others out: who changes the tables
    /// invalidates afterwards (or has it done later, where nothing was promised yet), and until
    /// then nobody else's invalidation matters.
    pub(crate) fn too_early(&self) -> Option<Early> {
        let through = self.cpus & View::cpu_bit(self.since.cpu) == 0;
        self.early.filter(|early| !early.amid || through)
    }
}

/// The old answers for one range, oldest first.
#[derive(Clone, Default, Debug)]
pub(crate) struct Olds(pub(crate) SmallVec<[Old; 1]>);

impl Piece for Olds {
    fn skip(&mut self, bytes: u64) {
        for old in &mut self.0 {
            old.phys = old.phys.wrapping_add(bytes);
        }
    }
    fn goes_on_as(&self, len: u64, next: &Self) -> bool {
        self.0.len() == next.0.len()
            && self.0.iter().zip(&next.0).all(|(a, b)| {
                a.phys.wrapping_add(len) == b.phys
                    && (a.perm, a.shift, a.cpus, a.way) == (b.perm, b.shift, b.cpus, b.way)
                    && a.attributes == b.attributes
                    && a.unwalkable_at == b.unwalkable_at
                    && a.since.same_call(&b.since)
            })
    }
}

/// Old answers kept for one range: past it the oldest two become one.
const MAX_OLDS: usize = 16;

/// What who invalidates has heard of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// It made it, or learned of it.
    Known,
    /// Nothing, and it names nothing, or the call that changes is under way: it may be about
    /// something else until the end of that call ([`CallRef::NONE`]: of the stream).
    Amid(CallRef),
    /// Nothing, but it names the range of a change that is over.
    Named,
}

/// Frames that something concerned: mostly those of one leaf.
pub(crate) type Frames = SmallVec<[Span; 2]>;
/// Parts of a map, each with the leaf size (`log2`) that it is about, if it is about one.
type Parts = SmallVec<[(Span, Option<u8>); 2]>;

/// The old answers of all address spaces.
#[derive(Default, Debug)]
pub(crate) struct Stale {
    spaces: BTreeMap<SpaceId, SpanMap<Olds>>,
    pub(crate) ways: HeldWays,
}

/// Which old answers an invalidation is about.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Target {
    pub(crate) scope: TlbScope,
    /// The range, for scopes with an address.
    pub(crate) span: Option<Span>,
    pub(crate) space: SpaceId,
    /// `log2` of the leaves that it says it is about: those of other sizes may stay (Arm ARM
    /// DDI 0487, TLBI VAE1IS, TTL).
    pub(crate) leaf: Option<u8>,
}

/// An invalidation that is complete, as far as it goes.
#[derive(Clone, Debug)]
pub(crate) struct Flush {
    /// An event of `MAX`: whatever walks could find then.
    pub(crate) asked: Asked,
    /// CPUs that it reaches, and the one that issued it.
    pub(crate) cpus: u64,
    pub(crate) own: u64,
    pub(crate) leaves: Leaves,
    /// It takes every entry above the last level with it, whatever address it names.
    pub(crate) every_upper: bool,
}

impl Flush {
    /// Whether it was issued when walks had to see the change `since`, which all do from event
    /// `unwalkable_at` on.
    fn in_time(&self, unwalkable_at: u64, since: &Mark) -> bool {
        unwalkable_at <= self.asked.at || self.asked.shown.of(since.cpu) > since.seq
    }
}

impl Target {
    /// About leaves of every size.
    pub(crate) fn of(scope: TlbScope, span: Option<Span>, space: SpaceId) -> Self {
        Target { scope, span, space, leaf: None }
    }

    /// Whether it is sure to drop an answer of `space` with this permission and leaf size.
    fn hits(&self, space: SpaceId, perm: Perm, shift: u8) -> bool {
        if self.leaf.is_some_and(|leaf| leaf != shift) {
            return false;
        }
        let global = perm.contains(Perm::GLOBAL);
        match self.scope {
            TlbScope::Address | TlbScope::AddressLastLevel => {
                space == self.space || space == SpaceId::KERNEL
            }
            TlbScope::Space => !global && (space == self.space || space == SpaceId::KERNEL),
            TlbScope::AllButGlobal => !global,
            TlbScope::All => true,
        }
    }
}

impl Stale {
    /// The answer `old` for `span` is gone from the tables.
    pub(crate) fn add(&mut self, space: SpaceId, span: Span, old: Old) {
        if old.cpus == 0 {
            return;
        }
        let map = self.spaces.entry(space).or_default();
        map.update(span, |part, olds| {
            let mut olds = olds.cloned().unwrap_or_default();
            let mut old = old;
            old.phys = old.phys.wrapping_add(part.first - span.first);
            olds.0.push(old);
            if olds.0.len() > MAX_OLDS {
                let eldest = olds.0.remove(0);
                if let Some(next) = olds.0.first_mut() {
                    next.cpus |= eldest.cpus;
                    next.perm |= eldest.perm & Perm::EXEC | eldest.perm & Perm::WRITE;
                }
            }
            Some(olds)
        });
    }

    /// CPUs find an answer for `span` by an entry above that they hold; whether that is news.
    pub(crate) fn add_found(&mut self, space: SpaceId, span: Span, new: Old) -> bool {
        let known = |part: Span, olds: &Olds| {
            let phys = new.phys.wrapping_add(part.first - span.first);
            olds.0.iter().any(|old| {
                matches!(old.way, Some(Way::Entry(_)))
                    && old.since.seq >= new.since.seq
                    && (old.phys, old.shift) == (phys, new.shift)
                    && old.perm.contains(new.perm)
                    && new.cpus & !old.cpus == 0
            })
        };
        let known = self.within(space, span).filter(|(part, olds)| known(*part, olds));
        let news = known.map(|(part, _)| part.len()).sum::<u64>() < span.len();
        if news {
            self.add(space, span, new);
        }
        news
    }

    /// The old answers for `span`, clipped.
    pub(crate) fn within(
        &self,
        space: SpaceId,
        span: Span,
    ) -> impl Iterator<Item = (Span, Olds)> + '_ {
        self.spaces.get(&space).into_iter().flat_map(move |map| map.within(span))
    }

    /// The old answers that meet `span`, whole.
    pub(crate) fn whole(
        &self,
        space: SpaceId,
        span: Span,
    ) -> impl Iterator<Item = (Span, &Olds)> + '_ {
        self.spaces.get(&space).into_iter().flat_map(move |map| map.whole(span))
    }

    /// Whether there is an old answer for `virt` in any space.
    pub(crate) fn anywhere(&self, virt: u64) -> bool {
        self.spaces.values().any(|map| map.get(virt).is_some())
    }

    /// Takes CPUs off what `flush` hits and no walk could find when it was issued. Returns the
    /// frames that were concerned, and the ranges for which the invalidation came too early, each
    /// with the call that is to make that good: the one `around` the invalidation, or where that is
    /// [`Early::amid`] a change the one that `heard` names.
    ///
    /// A range that is named for changes that were heard of (a purge's, of many areas) may hold
    /// others that were not: it is not about those.
    pub(crate) fn close(
        &mut self,
        flush: &Flush,
        (mark, around): (&Mark, CallRef),
        heard: impl Fn(&Mark) -> Heard,
    ) -> (Frames, Vec<(CallRef, SpaceId, Span)>) {
        self.ways.close(flush);
        let Flush { ref asked, cpus, own, leaves, .. } = *flush;
        let (target, issued) = (asked.target, asked.at);
        let ways = &self.ways;
        let (mut frames, mut early) = (Frames::new(), Vec::new());
        let (mut knows_some, mut named) = (false, Vec::new());
        for (space, map) in &mut self.spaces {
            let spans = spans_of(&target, map).into_iter().flat_map(|(span, shift)| {
                ways.parts(span).into_iter().map(move |part| (part, shift))
            });
            for (span, shift) in spans.collect::<Parts>() {
                map.change(span, |part, olds| {
                    for old in &mut olds.0 {
                        let whole = shift.is_none_or(|s| s == old.shift);
                        if !whole || !target.hits(*space, old.perm, old.shift) {
                            continue;
                        }
                        let heard = heard(&old.since);
                        knows_some |= heard == Heard::Known;
                        if leaves == Leaves::Globals && old.perm.contains(Perm::GLOBAL) {
                            old.left = Some((mark.seq, leaves));
                            continue;
                        }
                        if flush.in_time(old.unwalkable_at, &old.since) {
                            let stores = leaves == Leaves::StoresOfOthers && old.perm.writable();
                            let some = stores || leaves == Leaves::Others;
                            let back = old.way.map_or(0, |way| ways.walkers(way, part.first));
                            old.cpus &= back | if some { !own } else { !cpus };
                            old.left = some.then_some((mark.seq, leaves));
                            let before = old.perm;
                            if stores {
                                old.perm -= Perm::EXEC;
                            }
                            if old.cpus == 0 || old.perm != before {
                                frames.extend(Span::of(old.phys, part.len()));
                            }
                        } else if old.cpus & cpus != 0 && old.since.seq < issued {
                            let (amid, until) = match heard {
                                Heard::Amid(theirs) => (true, theirs),
                                Heard::Known | Heard::Named => (false, around),
                            };
                            // What was meant for it is not forgotten over what may not have been.
                            let meant = heard == Heard::Known;
                            if meant || old.early.is_none_or(|before| before.amid) {
                                old.early = Some(Early { done: *mark, amid, until });
                                match heard {
                                    Heard::Named => named.push((*space, part)),
                                    _ => early.push((until, *space, part)),
                                }
                            }
                        }
                    }
                    olds.0.retain(|old| old.cpus != 0);
                    !olds.0.is_empty()
                });
            }
        }
        for (space, span) in named {
            if knows_some && let Some(map) = self.spaces.get_mut(&space) {
                map.change(span, |_, olds| {
                    let theirs = |early: &Early| early.done.seq == mark.seq && !early.amid;
                    for old in olds.0.iter_mut().filter(|old| heard(&old.since) == Heard::Named) {
                        if let Some(early) = old.early.as_mut().filter(|early| theirs(early)) {
                            (early.amid, early.until) = (true, CallRef::NONE);
                        }
                    }
                    true
                });
            }
            early.push((if knows_some { CallRef::NONE } else { around }, space, span));
        }
        (frames, early)
    }

    /// The tables have no such leaf any more, or not so, by the change `since`. Up to that moment
    /// (`now`, if walks see it at once) CPUs found it by entries that they hold with more rights;
    /// whether any did. What they find in a page that nothing points to stays as it is.
    pub(crate) fn leaf_gone(&mut self, space: SpaceId, span: Span, since: &Mark, now: u64) -> bool {
        let Some(map) = self.spaces.get_mut(&space) else { return false };
        let (ways, mut any) = (&self.ways, false);
        for span in if ways.is_empty() { SmallVec::new() } else { ways.parts(span) } {
            map.update(span, |part, olds| {
                let mut olds = olds?.clone();
                let mut found = Vec::new();
                for old in &mut olds.0 {
                    let Some(way @ Way::Entry(_)) = old.way else { continue };
                    let cpus = ways.walkers(way, part.first) & old.cpus;
                    let since = since.about(part.first);
                    let (early, left, way) = (None, None, None);
                    found.push(Old { cpus, unwalkable_at: now, since, early, left, way, ..*old });
                    old.cpus &= !cpus;
                    old.way = None;
                }
                any |= !found.is_empty();
                olds.0.extend(found);
                olds.0.retain(|old| old.cpus != 0);
                (!olds.0.is_empty()).then_some(olds)
            });
        }
        any
    }

    /// Nothing points to the page any more that the leaves of a range are in: they stay as they
    /// are.
    pub(crate) fn page_out(&mut self, space: SpaceId, span: Span) {
        let Some(map) = self.spaces.get_mut(&space) else { return };
        map.update(span, |_, olds| {
            let mut olds = olds?.clone();
            for old in &mut olds.0 {
                if let Some(Way::Entry(at)) = old.way {
                    old.way = Some(Way::EntryAndPage(at));
                }
            }
            Some(olds)
        });
    }

    /// The changes that `cpu` made up to now are visible to every later walk.
    pub(crate) fn stores_done(&mut self, cpu: CpuId, now: u64, changed: &[(SpaceId, Span)]) {
        for (space, span) in changed {
            let Some(map) = self.spaces.get_mut(space) else { continue };
            map.change(*span, |_, olds| {
                for old in &mut olds.0 {
                    if old.since.cpu == cpu && old.unwalkable_at == u64::MAX {
                        old.unwalkable_at = now;
                    }
                }
                true
            });
        }
    }

    /// Takes `cpus` off everything of one space: they forgot it (a load that flushes, offline).
    pub(crate) fn close_space(&mut self, space: SpaceId, cpus: u64) -> Frames {
        let target = Target::of(TlbScope::Space, None, space);
        self.ways.forgotten(space, cpus);
        let mut frames = Frames::new();
        if let Some(map) = self.spaces.get_mut(&space) {
            let all = Span { first: 0, last: u64::MAX };
            map.change(all, |part, olds| {
                for old in &mut olds.0 {
                    if target.hits(space, old.perm, old.shift) {
                        old.cpus &= !cpus;
                        if old.cpus == 0 {
                            frames.extend(Span::of(old.phys, part.len()));
                        }
                    }
                }
                olds.0.retain(|old| old.cpus != 0);
                !olds.0.is_empty()
            });
        }
        frames
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ways.is_empty() && self.spaces.values().all(SpanMap::is_empty)
    }
}

/// The parts of `map` that `target` is about: an address stands for the whole leaf around it, so
/// each part comes with the leaf size (`log2`) for which it holds.
fn spans_of(target: &Target, map: &SpanMap<Olds>) -> Parts {
    let mut spans = Parts::new();
    let Some(span) = target.span else {
        spans.push((Span { first: 0, last: u64::MAX }, None));
        return spans;
    };
    for (part, olds) in map.parts(span) {
        for old in &olds.0 {
            let leaf = part.rounded(1 << old.shift.min(48));
            if !spans.contains(&(leaf, Some(old.shift))) {
                spans.push((leaf, Some(old.shift)));
            }
        }
    }
    spans
}
