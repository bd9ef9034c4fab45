//! Where CPUs meet: locks, published values, interrupts between CPUs. What one released, the other
//! acquires; the knowledge that travels is a clock or a view.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use textbed_event::NameId;

/// Values of a published variable kept: a later one replaces the oldest.
const MAX_VALUES: usize = 16;
/// Interrupts kept until their sender has waited for them.
const MAX_IPIS: usize = 4096;
/// Locks and variables kept.
const MAX_NAMES: usize = 1 << 16;

/// Knowledge that can be added up.
pub(crate) trait Join: Clone + Default {
    fn join(&mut self, other: &Self);
}

impl Join for super::clock::Clock {
    fn join(&mut self, other: &Self) {
        super::clock::Clock::join(self, other);
    }
}

impl Join for super::views::View {
    fn join(&mut self, other: &Self) {
        super::views::View::join(self, other);
    }
}

/// One interrupt to other CPUs.
#[derive(Clone, Debug)]
struct Ipi<T> {
    id: u32,
    sent: T,
    done: T,
}

/// What the holders of a lock released.
#[derive(Clone, Default, Debug)]
struct Lock<T> {
    /// Those that had it alone.
    alone: T,
    /// Those that shared it, who learn nothing from each other.
    shared: T,
}

/// What was released and where.
#[derive(Debug)]
pub(crate) struct Edges<T> {
    locks: FxHashMap<NameId, Lock<T>>,
    slots: FxHashMap<NameId, VecDeque<(u64, T)>>,
    ipis: VecDeque<Ipi<T>>,
}

impl<T> Default for Edges<T> {
    fn default() -> Self {
        Self { locks: FxHashMap::default(), slots: FxHashMap::default(), ipis: VecDeque::new() }
    }
}

impl<T: Join> Edges<T> {
    pub(crate) fn lock_released(&mut self, lock: NameId, shared: bool, knowledge: T) {
        if self.locks.len() < MAX_NAMES || self.locks.contains_key(&lock) {
            let lock = self.locks.entry(lock).or_default();
            let of = if shared { &mut lock.shared } else { &mut lock.alone };
            of.join(&knowledge);
        }
    }

    /// What who takes a lock learns.
    pub(crate) fn lock_acquired(&self, lock: NameId, shared: bool) -> impl Iterator<Item = &T> {
        let lock = self.locks.get(&lock);
        let from_sharers = lock.filter(|_| !shared).map(|lock| &lock.shared);
        lock.map(|lock| &lock.alone).into_iter().chain(from_sharers)
    }

    pub(crate) fn published(&mut self, slot: NameId, value: u64, knowledge: T) {
        if self.slots.len() >= MAX_NAMES && !self.slots.contains_key(&slot) {
            return;
        }
        let values = self.slots.entry(slot).or_default();
        values.push_back((value, knowledge));
        if values.len() > MAX_VALUES {
            values.pop_front();
        }
    }

    /// What the publisher of the value seen had released.
    pub(crate) fn observed(&self, slot: NameId, value: u64) -> Option<&T> {
        self.slots.get(&slot)?.iter().rev().find(|(v, _)| *v == value).map(|(_, t)| t)
    }

    pub(crate) fn ipi_sent(&mut self, id: u32, knowledge: T) {
        if self.ipis.len() >= MAX_IPIS {
            self.ipis.pop_front();
        }
        self.ipis.push_back(Ipi { id, sent: knowledge, done: T::default() });
    }

    pub(crate) fn ipi_taken(&self, id: u32) -> Option<&T> {
        self.ipis.iter().rev().find(|i| i.id == id).map(|i| &i.sent)
    }

    /// A receiver is done.
    pub(crate) fn ipi_served(&mut self, id: u32, knowledge: &T) {
        if let Some(ipi) = self.ipis.iter_mut().rev().find(|i| i.id == id) {
            ipi.done.join(knowledge);
        }
    }

    /// The sender waited for all receivers: what they knew.
    pub(crate) fn ipi_waited(&mut self, id: u32) -> Option<T> {
        let at = self.ipis.iter().rposition(|i| i.id == id)?;
        self.ipis.remove(at).map(|i| i.done)
    }
}
