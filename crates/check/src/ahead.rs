//! Reading ahead: what events concern is fetched into the processor's caches before their turn.
//!
//! Memory that the processor does not have at hand it waits for, one read after the other, where
//! the one says where the next is; and which event comes next it cannot foretell. So events are
//! looked at twice before their turn, some dozens of them together: at first the places that their
//! addresses give are prefetched (of blocks, and where words and pages are noted), and a step
//! later, when these have come, what stands there says where the rest is. Which events are fetches
//! and which are stores is sorted out before.
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

/// Numbers of the events of one sort.
#[derive(Clone, Copy, Debug)]
struct Picked {
    numbers: [u8; STEP],
    count: usize,
}

impl Picked {
    const NONE: Self = Self { numbers: [0; STEP], count: 0 };

    /// These events, with their numbers.
    #[inline]
    fn of<'a>(&'a self, events: &'a [Event]) -> impl Iterator<Item = (usize, &'a Event)> {
        let numbers = self.numbers[..self.count.min(STEP)].iter();
        numbers.filter_map(|n| Some((usize::from(*n) % STEP, events.get(usize::from(*n))?)))
    }
}

/// Events of a step, sorted, and where what is known of the block or word of each may be;
/// [`NOWHERE`] where nobody looked.
#[derive(Clone, Copy, Debug)]
struct Step {
    sorts: [Picked; 4],
    places: [u32; STEP],
}

/// Steps that are under way: one whose turn it is, one that is looked at for the second time, and
/// one for the first.
const UNDER_WAY: usize = 3;

/// What was found of the events that come next.
#[derive(Debug)]
pub(crate) struct Ahead {
    steps: Box<[Step; UNDER_WAY]>,
}

impl Default for Ahead {
    fn default() -> Self {
        let step = Step { sorts: [Picked::NONE; 4], places: [NOWHERE; STEP] };
        Self { steps: Box::new([step; UNDER_WAY]) }
    }
}

impl Ahead {
    /// A batch of events begins.
    pub(crate) fn begin(&mut self, live: &Live, events: &[Event]) {
        self.first(live, events, 0);
        self.first(live, events, 1);
        self.second(live, events, 0);
    }

    /// It is the turn of step `number` of these events.
    #[inline]
    pub(crate) fn turn(&mut self, live: &Live, events: &[Event], number: usize) {
        self.first(live, events, number + 2);
        self.second(live, events, number + 1);
        let Step { sorts, places } = &self.steps[number % UNDER_WAY];
        for (n, _) in sorts[STORES].of(events.get(number * STEP..).unwrap_or(&[])) {
            live.fetches.versions.prefetch_there(places[n]);
        }
    }

    /// Where what is known of the block or word of event `at` of step `number` may be.
    #[inline]
    pub(crate) fn place(&self, number: usize, at: usize) -> u32 {
        self.steps[number % UNDER_WAY].places[at % STEP]
    }

    /// A step is sorted, and the places that addresses give are prefetched.
    #[inline]
    fn first(&mut self, live: &Live, events: &[Event], number: usize) {
        let Some(events) = events.get(number * STEP..) else { return };
        let Step { sorts, .. } = &mut self.steps[number % UNDER_WAY];
        sorts.iter_mut().for_each(|picked| picked.count = 0);
        for (n, event) in events.iter().take(STEP).enumerate() {
            prefetch_index(events, n + STEP);
            let picked = &mut sorts[usize::from(SORTS[event.kind as usize & 255]) % 4];
            picked.numbers[picked.count % STEP] = n as u8;
            picked.count += 1;
        }
        for (_, event) in sorts[FETCHES].of(events) {
            live.fetches.looks.prefetch(event.b);
        }
        for (_, event) in sorts[STORES].of(events) {
            live.fetches.versions.prefetch(event.b);
            live.fetches.prefetch_known(event.b);
            live.tables.prefetch_stored(event.a);
        }
        for (_, event) in sorts[LEAVES].of(events) {
            live.tables.prefetch(event.space, event.a, event.b);
        }
    }

    /// What stands there is looked at, and what it leads to is prefetched.
    #[inline]
    fn second(&mut self, live: &Live, events: &[Event], number: usize) {
        let Some(events) = events.get(number * STEP..) else { return };
        let Step { sorts, places } = &mut self.steps[number % UNDER_WAY];
        let mut read = 0;
        for (n, event) in sorts[FETCHES].of(events) {
            let looks = &live.fetches.looks;
            places[n] = looks.near(event.cpu, event.b);
            if places[n] == NOWHERE {
                read ^= looks.places_ahead(event.a, event.b);
            }
        }
        for (n, event) in sorts[STORES].of(events) {
            places[n] = live.fetches.versions.near(event.b);
            live.fetches.prefetch_known_there(event.b);
            live.tables.prefetch_stored_there(event.a);
        }
        for (_, event) in sorts[LEAVES].of(events) {
            live.tables.prefetch_there(event.space, event.a, event.b);
        }
        std::hint::black_box(read);
    }
}
