//! Reading ahead: what events concern is fetched into the processor's caches before their turn.
//!
//! Memory that the processor does not have at hand it waits for, one read after the other, where
//! the one says where the next is; and which event comes next it cannot foretell. So events are
//! looked at in steps before their turn, some dozens of them together: at first the places that
//! their addresses give are prefetched (of blocks, and where words and pages are noted), and a step
//! later, when these have come, what stands there says where the rest is; of stores that goes on
//! to what versions keep elsewhere, and by real edges to what their CPUs knew. Which events are
//! fetches and which are stores is sorted out before.
//!
//! What is found so says nothing: each event is looked up when its turn comes. Only places are
//! handed on, and asked there whether they are what the event concerns.

use prefetch_index::prefetch_index;
use textbed_event::{Event, Kind};

use crate::live::Live;
use crate::span::NOWHERE;

/// Events of a step.
pub(crate) const STEP: usize = 64;
const _: () = assert!(STEP.is_power_of_two() && STEP <= 256, "numbers in a step are bytes");

/// Sorts of events that are looked at, and [`OTHERS`].
const FETCHES: usize = 0;
const STORES: usize = 1;
const LEAVES: usize = 2;
const OTHERS: usize = 3;

/// The sort of each kind: a table, for which kind comes next is anybody's guess.
const SORTS: [u8; 256] = {
    let mut sorts = [OTHERS as u8; 256];
    sorts[Kind::Fetch as usize] = FETCHES as u8;
    sorts[Kind::Store as usize] = STORES as u8;
    sorts[Kind::Leaf as usize] = LEAVES as u8;
    sorts
};

/// Numbers of the events of a step, sort by sort.
#[derive(Clone, Copy, Debug)]
struct Sorted {
    numbers: [[u8; STEP]; 4],
    counts: [u8; 4],
}

impl Sorted {
    const NONE: Self = Self { numbers: [[0; STEP]; 4], counts: [0; 4] };

    /// The numbers of the events of one sort.
    #[inline]
    fn of(&self, sort: usize) -> impl Iterator<Item = usize> {
        let numbers = &self.numbers[sort % 4];
        let count = usize::from(self.counts[sort % 4]).min(STEP);
        numbers[..count].iter().map(|n| usize::from(*n) % STEP)
    }
}

/// The events of a step, sorted, and for each the number of its block or the place of its word, if
/// it was found; [`NOWHERE`] where nobody looked.
#[derive(Clone, Copy, Debug)]
struct Step {
    sorted: Sorted,
    places: [u32; STEP],
    /// Whether a store asks whether it may be, a bit each.
    asked: u64,
}

/// Steps that are under way: one whose turn it is, and those that are looked at for the third,
/// second and first time.
const UNDER_WAY: usize = 4;

/// What was found of the events that come next.
#[derive(Debug)]
pub(crate) struct Ahead {
    steps: Box<[Step; UNDER_WAY]>,
}

impl Default for Ahead {
    fn default() -> Self {
        let step = Step { sorted: Sorted::NONE, places: [NOWHERE; STEP], asked: 0 };
        Self { steps: Box::new([step; UNDER_WAY]) }
    }
}

/// The events of a step; nothing of the last one if it is not whole.
#[inline]
fn whole(events: &[Event], number: usize) -> Option<&[Event; STEP]> {
    events.get(number * STEP..)?.first_chunk()
}

impl Ahead {
    /// A batch of events begins.
    pub(crate) fn begin(&mut self, live: &Live, events: &[Event]) {
        (0..3).for_each(|number| self.first(live, events, number));
        (0..2).for_each(|number| self.second(live, events, number));
        self.third(live, 0);
    }

    /// It is the turn of step `number` of these events.
    #[inline]
    pub(crate) fn turn(&mut self, live: &Live, events: &[Event], number: usize) {
        self.first(live, events, number + 3);
        self.second(live, events, number + 2);
        self.third(live, number + 1);
        let Step { sorted, places, .. } = &self.steps[number % UNDER_WAY];
        if live.fetches.predicted {
            sorted.of(STORES).for_each(|n| live.fetches.versions.prefetch_known(places[n]));
        }
    }

    /// What versions keep elsewhere is prefetched, now that they have come.
    #[inline]
    fn third(&mut self, live: &Live, number: usize) {
        let Step { sorted, places, .. } = &self.steps[number % UNDER_WAY];
        sorted.of(STORES).for_each(|n| live.fetches.versions.prefetch_there(places[n]));
    }

    /// Where what is known of the events of step `number` may be.
    #[inline]
    pub(crate) fn places(&self, number: usize) -> &[u32; STEP] {
        &self.steps[number % UNDER_WAY].places
    }

    /// A step is sorted, and the places that addresses give are prefetched.
    #[inline]
    fn first(&mut self, live: &Live, events: &[Event], number: usize) {
        let step = &mut self.steps[number % UNDER_WAY];
        let sorted = &mut step.sorted;
        sorted.counts = [0; 4];
        let Some(events) = whole(events, number) else {
            step.places = [NOWHERE; STEP];
            return;
        };
        for (n, event) in events.iter().enumerate() {
            prefetch_index(events, n + STEP);
            let sort = usize::from(SORTS[event.kind as usize & 255]) % 4;
            let count = &mut sorted.counts[sort];
            sorted.numbers[sort][usize::from(*count) % STEP] = n as u8;
            *count += 1;
        }
        for n in sorted.of(FETCHES) {
            live.fetches.looks.prefetch(events[n].b);
        }
        step.asked = 0;
        for n in sorted.of(STORES) {
            live.fetches.versions.prefetch(events[n].b);
            let asks = live.tables.prefetch_stored(events[n].a);
            step.asked |= u64::from(asks) << n;
        }
        if let Some(touched) = live.fetches.touched() {
            sorted.of(STORES).for_each(|n| touched.prefetch(events[n].b));
        }
        for event in sorted.of(LEAVES).map(|n| &events[n]) {
            live.tables.prefetch(event.space, event.a, event.b);
        }
    }

    /// What stands there is looked at, and what it leads to is prefetched.
    #[inline]
    fn second(&mut self, live: &Live, events: &[Event], number: usize) {
        let Some(events) = whole(events, number) else { return };
        let Step { sorted, places, asked } = &mut self.steps[number % UNDER_WAY];
        let mut read = 0;
        for n in sorted.of(FETCHES) {
            let event = &events[n];
            places[n] = live.fetches.looks.near(event.cpu, event.b);
            if places[n] == NOWHERE {
                read ^= live.fetches.looks.places_ahead(event.a, event.b);
            }
        }
        for n in sorted.of(STORES) {
            places[n] = live.fetches.versions.near(events[n].b);
            if *asked >> n & 1 != 0 {
                live.tables.prefetch_stored_there(events[n].a);
            }
        }
        if let Some(touched) = live.fetches.touched() {
            sorted.of(STORES).for_each(|n| touched.near(events[n].b));
        }
        for event in sorted.of(LEAVES).map(|n| &events[n]) {
            live.tables.prefetch_there(event.space, event.a, event.b);
        }
        std::hint::black_box(read);
    }
}
