//! Reading ahead: what events concern is read for many of them at once.
//!
//! Memory that the processor does not have at hand it fetches for many at a time only where nothing
//! that it waits for says what comes next, and only within the few hundred instructions that it
//! looks ahead. So this goes by stages, and each of them either computes places, of what is at
//! hand by then, or does nothing but read there: blocks, and where words are noted; then what the
//! CPU did with a block, and the words themselves. Which events are fetches and which are stores is
//! sorted out before. Where the first places that are looked at are not the right ones, what the
//! event concerns is not read.
//!
//! What was read says nothing: each event is looked up when its turn comes. Only the place of a
//! store's word is handed on, and asked there whether it is that.

use textbed_arch::{CpuId, SpaceId};
use textbed_event::{Event, Kind};

use crate::live::Live;
use crate::span::NOWHERE;

/// Events that are read ahead together.
pub(crate) const AHEAD: usize = 128;

/// What of an event says where to look.
#[derive(Clone, Copy, Debug)]
struct Item {
    virt: u64,
    phys: u64,
    space: SpaceId,
    cpu: CpuId,
    number: u16,
}

/// Events of one kind, and a place for each.
#[derive(Clone, Debug)]
struct Picked {
    items: [Item; AHEAD],
    places: [u32; AHEAD],
    count: usize,
}

impl Picked {
    fn new() -> Self {
        let (space, cpu) = (SpaceId::KERNEL, CpuId(0));
        let nothing = Item { virt: 0, phys: 0, space, cpu, number: 0 };
        Self { items: [nothing; AHEAD], places: [NOWHERE; AHEAD], count: 0 }
    }

    #[inline]
    fn take(&mut self, item: Item) {
        self.items[self.count % AHEAD] = item;
        self.count += 1;
    }

    #[inline]
    fn items(&self) -> &[Item] {
        &self.items[..self.count.min(AHEAD)]
    }

    #[inline]
    fn places(&self) -> &[u32] {
        &self.places[..self.count.min(AHEAD)]
    }

    /// Computes each place anew.
    #[inline]
    fn compute(&mut self, f: impl Fn(&Item, u32) -> u32) {
        let count = self.count.min(AHEAD);
        for (place, item) in self.places[..count].iter_mut().zip(&self.items[..count]) {
            *place = f(item, *place);
        }
    }
}

/// Events that are read ahead, sorted by kind: fetches, stores, leaves, others. What stands there
/// is of the events before, too, for it need not be anything.
#[derive(Debug)]
pub(crate) struct Ahead {
    kinds: Box<[Picked; 4]>,
    places: Box<[u32; AHEAD]>,
}

impl Default for Ahead {
    fn default() -> Self {
        let kinds = Box::new([(); 4].map(|()| Picked::new()));
        Self { kinds, places: Box::new([NOWHERE; AHEAD]) }
    }
}

impl Ahead {
    /// Where what is known of the word of this event may be, if it is a store.
    #[inline]
    pub(crate) fn place(&self, number: usize) -> u32 {
        self.places[number % AHEAD]
    }

    /// Which kind comes next is anybody's guess, so there is no branch by that.
    #[inline]
    fn sort(&mut self, events: &[Event]) {
        self.kinds.iter_mut().for_each(|picked| picked.count = 0);
        for (number, event) in events.iter().take(AHEAD).enumerate() {
            let is = |kind| usize::from(event.kind == kind);
            let kind = 3 - 3 * is(Kind::Fetch) - 2 * is(Kind::Store) - is(Kind::Leaf);
            let Event { a: virt, b: phys, space, cpu, .. } = *event;
            self.kinds[kind & 3].take(Item { virt, phys, space, cpu, number: number as u16 });
        }
    }

    /// Reads what these events, at most [`AHEAD`] of them, will have looked up in `live`. What
    /// comes back is there so that it is read.
    pub(crate) fn read(&mut self, live: &Live, events: &[Event]) -> u64 {
        self.sort(events);
        let Self { kinds, places } = self;
        let [fetches, stores, leaves, _] = &mut **kinds;
        let (looks, versions) = (&live.fetches.looks, &live.fetches.versions);

        fetches.compute(|item, _| looks.home(item.phys));
        stores.compute(|item, _| versions.home(item.phys));
        let mut read = looks.touch(fetches.places()) ^ versions.touch_index(stores.places());

        fetches.compute(|item, home| looks.ran_near(home, item.cpu, item.phys));
        stores.compute(|item, home| versions.noted(home, item.phys));
        read ^= looks.touch_ran(fetches.places()) ^ versions.touch(stores.places());
        for (item, place) in stores.items().iter().zip(stores.places()) {
            places[usize::from(item.number) % AHEAD] = *place;
            read ^= live.fetches.touch_known(item.phys) ^ live.tables.touch_stored(item.virt);
        }
        for item in leaves.items() {
            read ^= live.tables.touch(item.space, item.virt, item.phys);
        }
        for (item, slot) in fetches.items().iter().zip(fetches.places()) {
            if *slot == NOWHERE {
                read ^= looks.places_ahead(item.virt, item.phys);
            }
        }
        read
    }
}
