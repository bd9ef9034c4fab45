//! The sites that are open: what patchers said that they are about to replace.
//!
//! A site is closed when the call that it belongs to returns; one whose call is not known stays
//! until there are too many.

use std::collections::VecDeque;

use textbed_arch::CpuId;
use textbed_event::CallRef;

use crate::mark::Mark;
use crate::span::Span;

/// Sites that are open at once; past it the oldest is forgotten.
const MAX_SITES: usize = 512;

/// A place that a patcher is about to replace, or is replacing.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) cpu: CpuId,
    pub(crate) virt: Span,
    pub(crate) frames: Option<Span>,
    /// The call that ends the patch when it returns.
    pub(crate) cause: CallRef,
    pub(crate) mark: Mark,
    /// A handler knows what to do about a trap in its first unit, as its patcher says.
    pub(super) handler: bool,
    /// Parts of `frames` that were stored to.
    pub(crate) stored: Vec<Span>,
    pub(crate) last_store: Option<Mark>,
    /// A store at its offset in another page, to no open site.
    pub(super) elsewhere: Option<Mark>,
    /// Its first unit is a trap now.
    pub(crate) trapped: bool,
    /// The patcher ran bytes of it after a store.
    pub(super) ran: Option<Mark>,
}

impl Site {
    pub(crate) fn stores_in(&self, frames: Span) -> bool {
        self.stored.iter().any(|s| s.meet(frames).is_some())
    }

    /// Some of it was stored to, and some was not.
    pub(crate) fn is_partial(&self) -> bool {
        let Some(frames) = self.frames else { return false };
        let mut next = frames.first;
        let mut stored = self.stored.clone();
        stored.sort_unstable();
        for s in stored {
            if s.first > next {
                break;
            }
            next = next.max(s.last.saturating_add(1));
        }
        !self.stored.is_empty() && next <= frames.last
    }
}

/// The sites that are open, oldest first.
#[derive(Default, Debug)]
pub(crate) struct Sites {
    list: VecDeque<Site>,
    /// Those among them whose call is known: the others are never closed by one.
    in_calls: usize,
}

impl Sites {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Site> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Site> {
        self.list.iter_mut()
    }

    /// Those whose call is known: in a log of which no probe shows where calls end, none.
    pub(super) fn in_calls(&self) -> impl Iterator<Item = &Site> {
        let list = (self.in_calls > 0).then_some(&self.list);
        list.into_iter().flatten().filter(|s| s.cause != CallRef::NONE)
    }

    pub(super) fn open(&mut self, site: Site) {
        if self.list.len() >= MAX_SITES {
            let oldest = self.list.pop_front();
            self.in_calls -= usize::from(oldest.is_some_and(|s| s.cause != CallRef::NONE));
        }
        self.in_calls += usize::from(site.cause != CallRef::NONE);
        self.list.push_back(site);
    }

    /// The patches of `call` are done: those whose bytes went elsewhere come back.
    pub(super) fn close(&mut self, call: CallRef) -> Vec<Site> {
        let mut astray = Vec::new();
        if self.in_calls > 0 && call != CallRef::NONE {
            let before = self.list.len();
            self.list.retain(|s| {
                if s.cause == call && s.stored.is_empty() && s.elsewhere.is_some() {
                    astray.push(s.clone());
                }
                s.cause != call
            });
            self.in_calls -= before - self.list.len();
        }
        astray
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mark::ChainId;
    use textbed_event::Kind;

    fn site(seq: u64, cause: CallRef) -> Site {
        let virt = Span::of(seq * 16, 5).unwrap();
        let mark = Mark {
            seq,
            at_ns: 0,
            virt: None,
            origin: None,
            cause,
            chain: ChainId::EMPTY,
            cpu: CpuId(0),
            kind: Kind::PatchSite,
            sure: true,
        };
        Site {
            cpu: CpuId(0),
            virt,
            frames: None,
            cause,
            mark,
            handler: false,
            stored: Vec::new(),
            last_store: None,
            elsewhere: None,
            trapped: false,
            ran: None,
        }
    }

    fn numbers<'s>(sites: impl Iterator<Item = &'s Site>) -> Vec<u64> {
        sites.map(|s| s.mark.seq).collect()
    }

    #[test]
    fn a_call_closes_its_sites_and_no_others() {
        let mut sites = Sites::default();
        for (seq, call) in [(1, 7), (2, CallRef::NONE.0), (3, 8), (4, 7)] {
            sites.open(site(seq, CallRef(call)));
        }
        assert_eq!(numbers(sites.in_calls()), [1, 3, 4]);
        sites.close(CallRef(7));
        assert_eq!((numbers(sites.iter()), numbers(sites.in_calls())), (vec![2, 3], vec![3]));
        sites.close(CallRef::NONE);
        sites.close(CallRef(8));
        assert_eq!((numbers(sites.iter()), numbers(sites.in_calls())), (vec![2], vec![]));
    }

    #[test]
    fn the_oldest_goes_and_is_not_counted_any_more() {
        let mut sites = Sites::default();
        let most = MAX_SITES as u64;
        sites.open(site(0, CallRef(7)));
        (1..most).for_each(|seq| sites.open(site(seq, CallRef::NONE)));
        assert_eq!(numbers(sites.in_calls()), [0]);
        sites.open(site(most, CallRef::NONE));
        assert_eq!((sites.iter().count(), sites.in_calls), (MAX_SITES, 0));
        sites.open(site(most + 1, CallRef(9)));
        assert_eq!(numbers(sites.in_calls()), [most + 1]);
    }
}
