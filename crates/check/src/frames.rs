//! Physical memory: which frames are handed out, what their aliases granted then, and which bytes
//! nobody wrote since.
//!
//! Modelled: what the stream tells. Frames whose allocation was not seen are nobody's business.

use std::rc::Rc;

use textbed_arch::Perm;

use crate::mark::Mark;
use crate::span::{PageMap, Piece, Span, SpanMap};
use crate::tables::Alias;

/// An alias that existed when a frame was handed out, and what it granted.
pub(crate) type Home = (Alias, Perm);

/// Who has a frame.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// It was handed out, with these aliases.
    Taken { since: Mark, homes: Rc<[Home]> },
    /// It went back.
    Free { since: Mark },
}

impl Piece for Frame {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        match (self, next) {
            (Frame::Taken { since: a, homes: h }, Frame::Taken { since: b, homes: k }) => {
                a.seq == b.seq && h == k
            }
            (Frame::Free { since: a }, Frame::Free { since: b }) => a.seq == b.seq,
            _ => false,
        }
    }
}

/// Bytes that nobody wrote since their frame was handed out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwritten {
    pub(crate) zeroed: bool,
    pub(crate) since: Mark,
}

impl Piece for Unwritten {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        self.zeroed == next.zeroed && self.since.same_call(&next.since)
    }
}

/// All frames.
#[derive(Default, Debug)]
pub(crate) struct Frames {
    pub(crate) state: PageMap<Frame>,
    pub(crate) unwritten: SpanMap<Unwritten>,
}

impl Frames {
    /// `span` holds bytes that somebody wrote.
    pub(crate) fn written(&mut self, span: Span) {
        self.unwritten.remove(span);
    }

    /// The event that gave the frame of `phys` back, if it is free.
    pub(crate) fn freed(&self, phys: u64) -> Option<Mark> {
        match self.state.get(phys) {
            Some((_, Frame::Free { since })) => Some(*since),
            _ => None,
        }
    }
}
