//! wrong-range: a call writes on where somebody else's room begins.
//!
//! Who divides an area among others (a pack of programs, a cache of code) hands out *rooms* in it:
//! areas made inside of an area. Between two of them there is no guard page, so what runs past the
//! end of one is in the next. A *run* is what one call of one CPU stores in ascending order without
//! a gap; it goes by the addresses of the rooms, whatever alias it is stored through. A run that
//! begins in a room is meant for that room. It may go on into another if whoever made one made the
//! other too, or is storing: a module's loader fills all of its parts.
//!
//! Not modelled: runs that begin where no room is, stores that other calls go on with (a call that
//! emits one instruction), stores that leave the bytes as they are (nobody loses anything by them).

use rustc_hash::FxHashMap;
use textbed_arch::{Cite, CpuId, VirtAddr};
use textbed_event::{CallRef, Flags};

use crate::book::Draft;
use crate::finding::Blame;
use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::operation::Operation;
use crate::rules::RuleId;
use crate::span::{Piece, Span, SpanMap};
use crate::words;

const SIDE_BY_SIDE: Cite =
    Cite::deduced("Linux 5.19 to 7.0, kernel/bpf/core.c: the rooms of a pack lie side by side");

/// Areas and rooms kept; past it nothing is known of any.
const MAX_ROOMS: usize = 1 << 16;

/// A part of an area that was handed out.
#[derive(Clone, Copy, Debug)]
struct Room {
    at: Mark,
    span: Span,
    /// The outermost call inside which it was.
    maker: CallRef,
}

impl Piece for Room {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, next: &Self) -> bool {
        self.at.seq == next.at.seq
    }
}

/// An area, whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Area(Span);
crate::span::flat_piece!(Area);

/// What one call has stored without a gap.
#[derive(Clone, Copy, Debug)]
struct Run {
    call: CallRef,
    /// The first address, and the one behind the last.
    first: u64,
    next: u64,
    /// The room in which it began.
    home: Option<Room>,
    /// It went too far, and that was said.
    said: bool,
}

/// The rooms of a stream.
#[derive(Default, Debug)]
pub(crate) struct Rooms {
    areas: SpanMap<Area>,
    rooms: SpanMap<Room>,
    runs: FxHashMap<CpuId, Run>,
}

impl Rooms {
    fn made(&mut self, span: Span, at: Mark, maker: CallRef) {
        if self.areas.entries() + self.rooms.entries() >= MAX_ROOMS {
            *self = Self::default();
        }
        let around = self.areas.get(span.first).map(|(_, area)| area.0);
        if around.is_some_and(|a| a != span && a.meet(span) == Some(span)) {
            self.rooms.insert(span, Room { at, span, maker });
        } else {
            self.rooms.remove(span);
            self.areas.insert(span, Area(span));
        }
    }

    fn removed(&mut self, span: Span) {
        self.rooms.remove(span);
        if self.areas.get(span.first).is_some_and(|(_, area)| area.0.meet(span) == Some(area.0)) {
            self.areas.remove(span);
        }
    }

    fn at(&self, virt: u64) -> Option<Room> {
        self.rooms.get(virt).map(|(_, room)| *room)
    }
}

impl Live {
    /// A range of addresses was handed out.
    pub(crate) fn room_made(&mut self, now: Now<'_>, virt: u64, len: u64) {
        if let Some(span) = Span::of(virt, len) {
            let mark = self.mark(now);
            let maker = self.calls.outermost(mark.cause);
            self.patching.rooms.made(span, mark, maker);
        }
    }

    /// It was given back.
    pub(crate) fn room_removed(&mut self, virt: u64, len: u64) {
        if let Some(span) = Span::of(virt, len) {
            self.patching.rooms.removed(span);
        }
    }

    /// Bytes were stored: does the call go on where another's room begins?
    pub(crate) fn stored_in_rooms(
        &mut self,
        now: Now<'_>,
        virt: u64,
        frames: Option<Span>,
        len: u64,
    ) {
        let rooms = &self.patching.rooms;
        let call = now.event.cause;
        if rooms.rooms.is_empty() || call == CallRef::NONE {
            return;
        }
        let Some(span) = Span::of(virt, len).and_then(|span| self.as_roomed(span, frames)) else {
            self.patching.rooms.runs.remove(&now.cpu());
            return;
        };
        let known = rooms.runs.get(&now.cpu()).filter(|r| r.call == call && r.next == span.first);
        let (first, next) = (span.first, span.last.wrapping_add(1));
        let begins = || Run { call, first, next, home: rooms.at(first), said: false };
        let mut run = known.map_or_else(begins, |run| Run { next, ..*run });
        let writer = self.calls.outermost(call);
        let other = |room: &Room| {
            run.home.is_some_and(|home| {
                home.at.seq != room.at.seq && home.maker != room.maker && writer != room.maker
            })
        };
        let into = rooms.rooms.within(span).map(|(_, room)| room).find(other);
        if let (Some(into), Some(home), false) = (into, run.home, run.said)
            && !now.event.flags.has(Flags::EQUAL_BYTES)
        {
            run.said = true;
            self.past_the_room(now, (run, span), home, into);
        }
        self.patching.rooms.runs.insert(now.cpu(), run);
    }

    /// The same bytes by the addresses at which rooms have them.
    fn as_roomed(&self, span: Span, frames: Option<Span>) -> Option<Span> {
        let rooms = &self.patching.rooms.rooms;
        if rooms.meets(span) {
            return Some(span);
        }
        let frames = frames?;
        for (part, aliases) in self.tables.aliases(frames) {
            for virt in aliases.iter().filter_map(|alias| part.moved(alias.delta)) {
                if rooms.meets(virt) {
                    return Span::of(
                        virt.first.checked_sub(part.first - frames.first)?,
                        span.len(),
                    );
                }
            }
        }
        None
    }

    fn past_the_room(&mut self, now: Now<'_>, (run, span): (Run, Span), home: Room, into: Room) {
        self.occasions.looked(RuleId::WrongRange);
        if !self.checkable(RuleId::WrongRange) {
            return;
        }
        let Some(over) = into.span.meet(span) else { return };
        let mark = self.mark(now).about(over.first);
        let message = format!(
            "{} writes past the end of the {} at {} that the code was given, into the {} at {}",
            now.cpu(),
            words::size(home.span.len()),
            VirtAddr(home.span.first),
            words::size(into.span.len()),
            self.address(into.span.first)
        );
        let site = self.site(&mark, "the first byte that is another's");
        let mut draft = Draft::new(RuleId::WrongRange, Operation::Room, message, site);
        draft.because = Some(self.site(&into.at, "handed out to another here"));
        draft.sure = mark.sure && home.at.sure && into.at.sure;
        draft.blame = Blame::Caller;
        draft.cites.push(SIDE_BY_SIDE);
        draft.missing.push("room for all of the code".to_owned());
        draft.notes.push(format!(
            "one call stores from {} on without a gap, {} bytes to here",
            VirtAddr(run.first),
            over.first.saturating_sub(run.first)
        ));
        draft.help = Some(
            "find out how long the code is before room is asked for it, at the address at which \
             it will be, and copy no more than that"
                .to_owned(),
        );
        self.report(draft);
    }
}
