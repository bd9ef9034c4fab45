//! Elision: events that cannot alter any verdict are withheld between a source and a sink.
//!
//! A loop executes the same blocks and reads the same words thousands of times between two events
//! that mean something. Withheld are
//!
//! - a **fetch** of a block that this CPU fetched before through the same page, if since then
//!   nothing was passed on but plain loads, stores and fetches, nobody stored to its frame, and
//!   nobody stored there since this CPU's last context synchronisation either;
//! - a plain **load** of bytes that this CPU loaded before, if since then nothing was passed on but
//!   the same, nobody else stored to the frame, and the CPU fetched nothing that was passed on.
//!
//! Every other event is passed on as it is, with its own number. When something has to know when a
//! withheld block ran last, that is passed on first, as [`View::FetchLate`] with the number of the
//! last fetch withheld; numbers of these alone do not ascend. They are passed on before every event
//! that is no plain load or store, before a fetch that is passed on, before a store to their frame,
//! and at the end.
//!
//! Why no verdict changes: between the two fetches the checker's state differs only by what plain
//! loads, stores to other frames and other fetches did. The second one finds its block looked at
//! with nothing changed since, and a fetch view that is the same: other fetches move that view only
//! by frames that were stored to after the CPU's context synchronisation; such fetches are passed
//! on, and make every block of the CPU count as new. What remains of the second one is the number
//! of the last execution. A load repeated so brings its CPU no knowledge that it lacks.
//!
//! Not withheld: stores. Each makes a version, versions are numbered in messages, and a frame that
//! holds data now may hold code later. While a place is being patched ([`View::PatchSite`] until
//! its call returns) nothing is withheld, for then every fetch is looked at. What a rule counts as
//! *occasions* may be less than with all events, and the checker's memory of blocks (2^22) is
//! taken not to overflow.

use std::collections::HashMap;
use std::ops::ControlFlow;

use textbed_arch::{CpuId, SpaceId, effect::SyncCause};

use crate::{Batch, CallRef, Event, Flags, Header, MemOrder, Sink, View};

/// Blocks and words followed; past it all are forgotten and passed on once more.
const MAX_SEEN: usize = 1 << 16;
/// Frames whose stores are followed; past it all count as stored to by now.
const MAX_FRAMES: usize = 1 << 18;
/// Frames of one store that are noted one by one.
const MAX_PAGES: u64 = 16;

/// What was passed on: whose, and where.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    cpu: CpuId,
    fetch: bool,
    virt: u64,
    phys: u64,
    len: u32,
    space: SpaceId,
}

/// When it was passed on, in the counts of [`Elide`].
#[derive(Clone, Copy, Debug)]
struct Seen {
    round: u64,
    /// Stores to its frame by then.
    stores: u64,
    /// For a fetch [`Cpu::moved`], for a load [`Cpu::fetched`].
    news: u64,
    /// Number of the last one withheld.
    late: Option<u64>,
}

/// The stores to one frame.
#[derive(Clone, Copy, Default, Debug)]
struct Frame {
    /// How many; those that all frames share count too.
    stores: u64,
    /// Number of the last one, plus one; 0 = never stored to.
    last: u64,
    /// Who stored last, and how many stores there were before his.
    owner: Option<CpuId>,
    before_owner: u64,
}

/// What one CPU did.
#[derive(Clone, Copy, Default, Debug)]
struct Cpu {
    /// Number of its last context synchronisation, plus one; 0 = none yet.
    synced: u64,
    /// Fetches passed on that may have moved its fetch view.
    moved: u64,
    /// Fetches passed on.
    fetched: u64,
}

/// Decides which events to withhold. [`Elided`] is a sink made of it.
#[derive(Default, Debug)]
pub struct Elide {
    seen: HashMap<Key, Seen>,
    /// Fetches withheld whose number is to be passed on late.
    late: Vec<Key>,
    frames: HashMap<u64, Frame>,
    /// What holds for frames that are not followed.
    others: Frame,
    cpus: HashMap<CpuId, Cpu>,
    /// Counts the events after which everything is new.
    round: u64,
    /// Calls whose patches are not done.
    patching: Vec<CallRef>,
    withheld: u64,
}

impl Elide {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Events withheld so far.
    #[must_use]
    pub fn withheld(&self) -> u64 {
        self.withheld
    }

    /// Takes the next event; `pass` gets what is passed on now.
    pub fn event(&mut self, event: &Event, pass: &mut impl FnMut(&Event)) {
        if self.seen.len() >= MAX_SEEN {
            self.flush(pass);
            self.seen.clear();
        }
        let may = self.patching.is_empty() && !event.flags.has(Flags::PHYS_UNKNOWN);
        match event.view() {
            View::Fetch { virt, phys, len } if may => {
                self.fetch(event, (virt.0, phys.0), len, pass);
            }
            View::Load { virt, phys, len, order: MemOrder::Plain } if may => {
                self.load(event, (virt.0, phys.0), u32::from(len), pass);
            }
            View::Store { phys, bytes, order: MemOrder::Plain, .. } if may => {
                self.stored(event, phys.0, u64::from(bytes.len), pass);
                pass(event);
            }
            view => {
                self.flush(pass);
                self.round += 1;
                self.other(event, view, pass);
                pass(event);
            }
        }
    }

    /// Passes on what is still to be said of events withheld: the stream ends.
    pub fn flush(&mut self, pass: &mut impl FnMut(&Event)) {
        for key in std::mem::take(&mut self.late) {
            self.pass_late(key, pass);
        }
    }

    fn pass_late(&mut self, key: Key, pass: &mut impl FnMut(&Event)) {
        let Some(seq) = self.seen.get_mut(&key).and_then(|seen| seen.late.take()) else { return };
        let (virt, phys) = (textbed_arch::VirtAddr(key.virt), textbed_arch::PhysAddr(key.phys));
        let view = View::FetchLate { virt, phys, len: key.len };
        pass(&Event { seq, space: key.space, ..Event::new(key.cpu, view) });
    }

    /// An event after which everything is new.
    fn other(&mut self, event: &Event, view: View, pass: &mut impl FnMut(&Event)) {
        match view {
            // On x86 entering an exception synchronises nothing.
            View::ContextSync { cause } if cause != SyncCause::ExceptionEntry => {
                self.cpus.entry(event.cpu).or_default().synced = event.seq + 1;
            }
            View::Store { phys, bytes, .. } if !event.flags.has(Flags::PHYS_UNKNOWN) => {
                self.stored(event, phys.0, u64::from(bytes.len), pass);
            }
            // Of any length, or at a place that is not told.
            View::Store { .. } | View::Fill { .. } | View::StoreLate { .. } | View::Dma { .. } => {
                self.all_stored(event);
            }
            View::PatchSite { .. } => self.patching.push(event.cause),
            View::CallReturned { call, .. } => {
                self.patching.retain(|c| *c != call || *c == CallRef::NONE);
            }
            _ => {}
        }
    }

    fn frame(&self, phys: u64) -> Frame {
        self.frames.get(&(phys >> 12)).copied().unwrap_or(self.others)
    }

    fn fetch(
        &mut self,
        event: &Event,
        (virt, phys): (u64, u64),
        len: u32,
        pass: &mut impl FnMut(&Event),
    ) {
        let key = Key { cpu: event.cpu, fetch: true, virt, phys, len, space: event.space };
        let frame = self.frame(phys);
        let cpu = self.cpus.entry(event.cpu).or_default();
        let quiet = frame.last == 0 || frame.last < cpu.synced;
        let (round, stores) = (self.round, frame.stores);
        if quiet && let Some(seen) = self.seen.get_mut(&key) {
            let same = (seen.round, seen.stores, seen.news) == (round, stores, cpu.moved);
            if same {
                self.withheld += 1;
                if seen.late.replace(event.seq).is_none() {
                    self.late.push(key);
                }
                return;
            }
        }
        cpu.fetched += 1;
        cpu.moved += u64::from(!quiet);
        let news = cpu.moved;
        self.flush(pass);
        self.seen.insert(key, Seen { round, stores, news, late: None });
        pass(event);
    }

    fn load(
        &mut self,
        event: &Event,
        (virt, phys): (u64, u64),
        len: u32,
        pass: &mut impl FnMut(&Event),
    ) {
        let key = Key { cpu: event.cpu, fetch: false, virt, phys, len, space: event.space };
        let frame = self.frame(phys);
        let news = self.cpus.entry(event.cpu).or_default().fetched;
        let (round, stores) = (self.round, frame.stores);
        // Bytes beyond the frame are another frame's.
        let inside = (phys & 0xfff) + u64::from(len) <= 4096;
        if inside && let Some(seen) = self.seen.get(&key) {
            let own = frame.owner == Some(event.cpu) && frame.before_owner <= seen.stores;
            let same = (seen.round, seen.news) == (round, news);
            if same && (seen.stores == stores || own) {
                self.withheld += 1;
                return;
            }
        }
        self.seen.insert(key, Seen { round, stores, news, late: None });
        pass(event);
    }

    /// `event` stores to `len` bytes at `phys`.
    fn stored(&mut self, event: &Event, phys: u64, len: u64, pass: &mut impl FnMut(&Event)) {
        let (first, last) = (phys >> 12, phys.saturating_add(len.max(1) - 1) >> 12);
        if last - first >= MAX_PAGES || self.frames.len() >= MAX_FRAMES {
            self.flush(pass);
            self.round += 1;
            self.all_stored(event);
            return;
        }
        for page in first..=last {
            let others = self.others;
            let frame = self.frames.entry(page).or_insert(others);
            if frame.owner != Some(event.cpu) {
                frame.owner = Some(event.cpu);
                frame.before_owner = frame.stores;
            }
            frame.stores += 1;
            frame.last = event.seq + 1;
        }
        let (mine, kept): (Vec<Key>, Vec<Key>) =
            self.late.iter().partition(|key| (first..=last).contains(&(key.phys >> 12)));
        if !mine.is_empty() {
            self.late = kept;
            for key in mine {
                self.pass_late(key, pass);
            }
        }
    }

    /// `event` may have stored anywhere.
    fn all_stored(&mut self, event: &Event) {
        let most = self.frames.drain().map(|(_, f)| f.stores).max().unwrap_or(0);
        let stores = self.others.stores.max(most) + 1;
        self.others = Frame { stores, last: event.seq + 1, ..Frame::default() };
    }
}

/// A sink before another one: what may be withheld is not passed on.
pub struct Elided<'a> {
    stage: Elide,
    sink: &'a mut dyn Sink,
}

impl<'a> Elided<'a> {
    /// In front of `sink`.
    pub fn new(sink: &'a mut dyn Sink) -> Self {
        Self { stage: Elide::new(), sink }
    }

    /// The stream ends; how many events were withheld.
    pub fn finish(mut self) -> u64 {
        let mut batch = Batch::default();
        self.stage.flush(&mut |event| batch.events.push(*event));
        if !batch.is_empty() {
            // Who reads it may stop; nothing follows.
            let _ = self.sink.batch(&batch);
        }
        self.stage.withheld()
    }
}

impl Sink for Elided<'_> {
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        self.sink.begin(header)
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        let mut events = Vec::with_capacity(batch.events.len());
        for event in &batch.events {
            self.stage.event(event, &mut |passed| {
                // Origins are numbers of this batch, and a late event has none.
                events.push(*passed);
            });
        }
        let passed = Batch { events, ..batch.clone() };
        match passed.is_empty() {
            true => ControlFlow::Continue(()),
            false => self.sink.batch(&passed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, Kind};
    use textbed_arch::{PhysAddr, VirtAddr};

    const CODE: u64 = 0x10_0000;
    const DATA: u64 = 0x20_0000;

    fn numbered(views: &[(u16, View)]) -> Vec<Event> {
        let event = |(n, (cpu, view)): (usize, &(u16, View))| {
            let seq = n as u64;
            Event { seq, ..Event::new(CpuId(*cpu), *view) }
        };
        views.iter().enumerate().map(event).collect()
    }

    fn passed(views: &[(u16, View)]) -> Vec<(Kind, u64)> {
        let (mut stage, mut out) = (Elide::new(), Vec::new());
        let mut pass = |e: &Event| out.push((e.kind, e.seq));
        numbered(views).iter().for_each(|e| stage.event(e, &mut pass));
        stage.flush(&mut pass);
        out
    }

    fn fetch(at: u64) -> View {
        View::Fetch { virt: VirtAddr(CODE + at), phys: PhysAddr(CODE + at), len: 4 }
    }

    fn load(at: u64) -> View {
        let order = MemOrder::Plain;
        View::Load { virt: VirtAddr(DATA + at), phys: PhysAddr(DATA + at), len: 8, order }
    }

    fn store(at: u64) -> View {
        let bytes = Bytes { offset: 0, len: 8 };
        let (virt, phys) = (VirtAddr(at), PhysAddr(at));
        View::Store { virt, phys, bytes, order: MemOrder::Plain }
    }

    const SYNC: View = View::ContextSync { cause: SyncCause::Instruction };

    #[test]
    fn a_loop_is_passed_on_once_and_its_last_turn_late() {
        let turn = [(0, fetch(0)), (0, load(0)), (0, fetch(8)), (0, store(DATA + 64))];
        let mut all = [turn; 3].concat();
        all.push((0, SYNC));
        let stores = [(Kind::Store, 3), (Kind::Store, 7), (Kind::Store, 11)];
        let late = [(Kind::FetchLate, 8), (Kind::FetchLate, 10), (Kind::ContextSync, 12)];
        // The fetch behind the load counts as news for loads: they are withheld from turn three on.
        let first = [(Kind::Fetch, 0), (Kind::Load, 1), (Kind::Fetch, 2), stores[0]];
        let rest = [(Kind::Load, 5), stores[1], stores[2]];
        assert_eq!(passed(&all), [&first[..], &rest, &late].concat());
    }

    #[test]
    fn what_matters_is_passed_on() {
        let kinds =
            |views: &[(u16, View)]| passed(views).iter().map(|(k, _)| *k).collect::<Vec<_>>();
        use Kind::{ContextSync, Fetch, FetchLate, Load, Store};
        // A store to the frame; and from then on all, for the CPU has not synchronised since.
        let all = [(0, fetch(0)), (1, store(CODE + 64)), (0, fetch(0)), (0, fetch(0))];
        assert_eq!(kinds(&all), [Fetch, Store, Fetch, Fetch]);
        let all = [(1, store(CODE + 64)), (0, SYNC), (0, fetch(0)), (0, fetch(0)), (0, fetch(0))];
        assert_eq!(kinds(&all), [Store, ContextSync, Fetch, FetchLate]);
        // Entering an exception synchronises nothing everywhere.
        let entry = View::ContextSync { cause: SyncCause::ExceptionEntry };
        let all = [(1, store(CODE + 64)), (0, entry), (0, fetch(0)), (0, fetch(0))];
        assert_eq!(kinds(&all), [Store, ContextSync, Fetch, Fetch]);
        // Another CPU's fetch, another length.
        assert_eq!(kinds(&[(0, fetch(0)), (1, fetch(0)), (0, fetch(4))]), [Fetch, Fetch, Fetch]);
        // Loads: another CPU stored; its own stores tell it nothing.
        assert_eq!(kinds(&[(0, load(0)), (1, store(DATA)), (0, load(0))]), [Load, Store, Load]);
        assert_eq!(kinds(&[(0, load(0)), (0, store(DATA)), (0, load(0))]), [Load, Store]);
        // The last fetch before a store to its frame is told before it.
        let all = [(0, fetch(0)), (0, fetch(0)), (1, store(CODE + 64))];
        assert_eq!(passed(&all), [(Fetch, 0), (FetchLate, 1), (Store, 2)]);
    }

    #[test]
    fn nothing_is_withheld_while_a_place_is_patched() {
        let site = View::PatchSite { virt: VirtAddr(CODE), old_len: 4, new_len: 4, handler: false };
        let all = [(0, fetch(0)), (1, site), (0, fetch(0)), (0, fetch(0))];
        assert_eq!(passed(&all).len(), 4);
    }
}
