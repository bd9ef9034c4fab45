//! Who may write and who may execute a frame, by the tables and by old answers that go beyond them,
//! and which of these pairs is worst.

use textbed_arch::{Perm, SpaceId};

use crate::finding::WindowStatus;
use crate::live::Live;
use crate::mark::Mark;
use crate::rules::RuleId;
use crate::span::{Piece, Span, SpanMap};
use crate::tables::Alias;

/// One way to write or to execute a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) space: SpaceId,
    /// Virtual minus physical address.
    pub(crate) delta: u64,
    /// The tables say so now; else a CPU may still hold it.
    pub(crate) now: bool,
    pub(crate) status: WindowStatus,
    pub(crate) cpus: u64,
    /// What made it; for an old answer: what made it old.
    pub(crate) since: Mark,
}

impl Piece for Grant {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        (self.space, self.delta, self.now, self.status, self.cpus)
            == (next.space, next.delta, next.now, next.status, next.cpus)
            && self.since.same_call(&next.since)
    }
}

/// A pair of grants on the same frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) rule: RuleId,
    pub(super) status: WindowStatus,
    pub(super) write: Grant,
    pub(super) exec: Grant,
}

impl Piece for Pair {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, len: u64, next: &Self) -> bool {
        (self.rule, self.status) == (next.rule, next.status)
            && self.write.goes_on_as(len, &next.write)
            && self.exec.goes_on_as(len, &next.exec)
    }
}

/// What a frame has at most one of in each layer: by what the tables say now, and by old answers.
pub(super) type Layers<T> = [SpanMap<T>; 2];

/// The layer of windows of `rule`.
pub(super) fn layer(rule: RuleId) -> usize {
    usize::from(rule == RuleId::WxStaleTranslation)
}

impl Live {
    /// Which of write and execute any alias of `frames`, or any old answer, may grant now: most
    /// changes are of frames that lack one of them. And the aliases that lead nowhere any more.
    pub(super) fn grants(&self, frames: Span) -> (Perm, Vec<(Span, Alias)>) {
        let mut grants = Perm::empty();
        let mut nowhere = Vec::new();
        for (part, aliases) in self.tables.alias_parts(frames) {
            for alias in aliases.iter() {
                let Some(virt) = part.moved(alias.delta) else { continue };
                let mut leads = false;
                for (whole, mapping) in self.tables.whole(alias.space, virt) {
                    if whole.first.wrapping_sub(alias.delta) == mapping.phys {
                        leads = true;
                        grants |= mapping.perm;
                    }
                }
                for (whole, olds) in self.stale.whole(alias.space, virt) {
                    for old in &olds.0 {
                        if whole.first.wrapping_sub(alias.delta) == old.phys {
                            leads = true;
                            grants |= old.perm;
                        }
                    }
                }
                if !leads {
                    nowhere.push((part, *alias));
                }
            }
        }
        (grants & (Perm::WRITE | Perm::EXEC), nowhere)
    }

    /// The pairs of grants on `frames` now.
    pub(super) fn pairs(&self, frames: Span) -> Layers<Pair> {
        let mut both = SpanMap::<Grant>::default();
        // To write and to execute: by the tables, or by old answers that go beyond them.
        let mut now = <[SpanMap<Grant>; 2]>::default();
        let mut old_only = <[SpanMap<Grant>; 2]>::default();
        for (part, aliases) in self.tables.alias_parts(frames) {
            for (place, alias) in aliases.iter().enumerate() {
                let Some(virt) = part.moved(alias.delta) else { continue };
                let using = self.cpus.using(alias.space);
                let grant = |here: Span, now, made_at, cpus, since| Grant {
                    space: alias.space,
                    delta: alias.delta,
                    now,
                    status: self.authorised.status(here, made_at, place == 0),
                    cpus,
                    since,
                };
                for (at, mapping) in self.tables.within(alias.space, virt) {
                    if at.first.wrapping_sub(alias.delta) != mapping.phys || using == 0 {
                        continue;
                    }
                    let here =
                        Span { first: mapping.phys, last: mapping.phys + (at.last - at.first) };
                    let grant = grant(here, true, mapping.since.seq, using, mapping.since);
                    if mapping.perm.writable() && mapping.perm.executable() {
                        offer(&mut both, here, grant, |g| g.status);
                    }
                    offer_each(&mut now, here, mapping.perm, grant);
                }
                for (at, olds) in self.stale.within(alias.space, virt) {
                    for old in olds.0 {
                        let cpus = old.cpus & using;
                        if at.first.wrapping_sub(alias.delta) != old.phys || cpus == 0 {
                            continue;
                        }
                        for (part, still) in self.still_granted(alias, at) {
                            let first = part.first.wrapping_sub(alias.delta);
                            let here = Span { first, last: first + (part.last - part.first) };
                            let grant = grant(here, false, old.made_at, cpus, old.since);
                            offer_each(&mut old_only, here, old.perm - still, grant);
                        }
                    }
                }
            }
        }
        let mut pairs = <Layers<Pair>>::default();
        let mut enter = |rule, span: Span, write: &Grant, exec: &Grant| {
            let pair = Pair { rule, status: write.status, write: *write, exec: *exec };
            offer(&mut pairs[layer(rule)], span, pair, |p| p.status);
        };
        both.iter().for_each(|(span, g)| enter(RuleId::WxMapping, span, g, g));
        let ([write, exec], [old_write, old_exec]) = (&now, &old_only);
        meetings(write, exec, |span, w, x| enter(RuleId::WxAlias, span, w, x));
        for (write, exec) in [(old_write, exec), (write, old_exec), (old_write, old_exec)] {
            meetings(write, exec, |span, w, x| enter(RuleId::WxStaleTranslation, span, w, x));
        }
        pairs
    }

    /// Which of write and execute the tables grant now where `alias` leads to its frames, for each
    /// part of `virt`.
    fn still_granted(&self, alias: &Alias, virt: Span) -> Vec<(Span, Perm)> {
        let mut granted = SpanMap::<Granted>::default();
        granted.insert(virt, Granted(Perm::empty()));
        for (at, mapping) in self.tables.within(alias.space, virt) {
            if at.first.wrapping_sub(alias.delta) == mapping.phys {
                granted.insert(at, Granted(mapping.perm & (Perm::WRITE | Perm::EXEC)));
            }
        }
        granted.iter().map(|(part, granted)| (part, granted.0)).collect()
    }
}

/// Rights that the tables grant at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Granted(Perm);

crate::span::flat_piece!(Granted);

/// Enters `what` where its status, which `of` gives, is worse than what is there.
fn offer<T: Piece + Copy>(
    map: &mut SpanMap<T>,
    frames: Span,
    what: T,
    of: impl Fn(&T) -> WindowStatus,
) {
    map.update(frames, |_, there| match there {
        Some(there) if of(there) >= of(&what) => Some(*there),
        _ => Some(what),
    });
}

/// Enters it among those that write and those that execute, as `perm` has it.
fn offer_each([write, exec]: &mut [SpanMap<Grant>; 2], frames: Span, perm: Perm, grant: Grant) {
    if perm.writable() {
        offer(write, frames, grant, |g| g.status);
    }
    if perm.executable() {
        offer(exec, frames, grant, |g| g.status);
    }
}

/// Where a grant to write and one to execute meet.
fn meetings(
    write: &SpanMap<Grant>,
    exec: &SpanMap<Grant>,
    mut each: impl FnMut(Span, &Grant, &Grant),
) {
    for (span, w) in write.iter() {
        for (span, x) in exec.within(span) {
            each(span, w, &x);
        }
    }
}
