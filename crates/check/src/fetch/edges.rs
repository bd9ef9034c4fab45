//! Where CPUs meet: locks, published values, interrupts between CPUs, frames that change hands (an
//! allocator hands on under locks of its own, which no stream shows). What one released, the other
//! acquires; the knowledge that travels is a clock or a view.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use textbed_arch::{CpuId, Pfn};
use textbed_event::{Kind, KindSet, NameId, View};

use crate::span::{Piece, Span, SpanMap};

/// The events by which CPUs meet, but for those at which all do.
pub(crate) const MEETINGS: KindSet = KindSet::of(&[
    Kind::IpiSent,
    Kind::IpiTaken,
    Kind::IpiDone,
    Kind::LockAcquired,
    Kind::LockReleased,
    Kind::Publish,
    Kind::Observe,
    Kind::FrameAlloc,
    Kind::FrameFree,
]);

/// Values of a published variable kept: a later one replaces the oldest.
const MAX_VALUES: usize = 16;
/// Interrupts kept until their sender has waited for them.
const MAX_IPIS: usize = 4096;
/// Locks and variables kept.
const MAX_NAMES: usize = 1 << 16;

/// Ranges of frames that went back kept.
const MAX_FRAMES: usize = 1 << 16;

/// What CPUs know, as they release and acquire it.
pub(crate) trait Knows<T> {
    /// What `p` hands on by its event `seq`; `full`: all that it did, as an interrupt does.
    fn release(&mut self, p: CpuId, seq: u64, full: bool) -> T;
    /// `p` knows that, too.
    fn acquire(&mut self, p: CpuId, from: &T);
}

/// Whether the CPU of an event learns something by it.
pub(crate) fn learns(view: &View) -> bool {
    matches!(
        view,
        View::IpiTaken { .. }
            | View::IpiDone { waited: true, .. }
            | View::LockAcquired { .. }
            | View::Observe { .. }
            | View::FrameAlloc { .. }
    )
}

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

/// What who gave frames back knew.
#[derive(Clone, Debug)]
struct Left<T>(T);

impl<T: Clone> Piece for Left<T> {
    fn skip(&mut self, _bytes: u64) {}
    fn goes_on_as(&self, _len: u64, _next: &Self) -> bool {
        false
    }
}

/// What was released and where.
#[derive(Debug)]
pub(crate) struct Edges<T: Clone> {
    locks: FxHashMap<NameId, Lock<T>>,
    slots: FxHashMap<NameId, VecDeque<(u64, T)>>,
    ipis: VecDeque<Ipi<T>>,
    frames: SpanMap<Left<T>>,
}

impl<T: Clone> Default for Edges<T> {
    fn default() -> Self {
        Self {
            locks: FxHashMap::default(),
            slots: FxHashMap::default(),
            ipis: VecDeque::new(),
            frames: SpanMap::default(),
        }
    }
}

fn span_of(pfn: Pfn, count: u64) -> Option<Span> {
    Span::of(pfn.0.checked_mul(4096)?, count.saturating_mul(4096))
}

impl<T: Join> Edges<T> {
    /// Event `seq` of `p`; `shared`: the lock is held with others.
    pub(crate) fn hear(
        &mut self,
        view: &View,
        (p, seq): (CpuId, u64),
        shared: bool,
        cpus: &mut impl Knows<T>,
    ) {
        match *view {
            View::IpiSent { ipi, .. } => self.ipi_sent(ipi, cpus.release(p, seq, true)),
            View::IpiTaken { ipi, .. } => {
                self.ipi_taken(ipi).into_iter().for_each(|from| cpus.acquire(p, from));
            }
            View::IpiDone { ipi, waited: false } => {
                self.ipi_served(ipi, &cpus.release(p, seq, true));
            }
            View::IpiDone { ipi, waited: true } => {
                self.ipi_waited(ipi).iter().for_each(|from| cpus.acquire(p, from));
            }
            View::LockReleased { lock } => {
                self.lock_released(lock, shared, cpus.release(p, seq, false));
            }
            View::LockAcquired { lock } => {
                self.lock_acquired(lock, shared).for_each(|from| cpus.acquire(p, from));
            }
            View::Publish { slot, value } => {
                self.published(slot, value, cpus.release(p, seq, false));
            }
            View::Observe { slot, value } => {
                self.observed(slot, value).into_iter().for_each(|from| cpus.acquire(p, from));
            }
            View::FrameFree { pfn, count } => {
                if let Some(span) = span_of(pfn, count)
                    && self.frames.entries() < MAX_FRAMES
                {
                    self.frames.insert(span, Left(cpus.release(p, seq, false)));
                }
            }
            View::FrameAlloc { pfn, count, .. } => {
                let Some(span) = span_of(pfn, count).filter(|_| !self.frames.is_empty()) else {
                    return;
                };
                self.frames.parts(span).for_each(|(_, Left(from))| cpus.acquire(p, from));
                self.frames.remove(span);
            }
            _ => {}
        }
    }

    fn lock_released(&mut self, lock: NameId, shared: bool, knowledge: T) {
        if self.locks.len() < MAX_NAMES || self.locks.contains_key(&lock) {
            let lock = self.locks.entry(lock).or_default();
            let of = if shared { &mut lock.shared } else { &mut lock.alone };
            of.join(&knowledge);
        }
    }

    /// What who takes a lock learns.
    fn lock_acquired(&self, lock: NameId, shared: bool) -> impl Iterator<Item = &T> {
        let lock = self.locks.get(&lock);
        let from_sharers = lock.filter(|_| !shared).map(|lock| &lock.shared);
        lock.map(|lock| &lock.alone).into_iter().chain(from_sharers)
    }

    fn published(&mut self, slot: NameId, value: u64, knowledge: T) {
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
    fn observed(&self, slot: NameId, value: u64) -> Option<&T> {
        self.slots.get(&slot)?.iter().rev().find(|(v, _)| *v == value).map(|(_, t)| t)
    }

    fn ipi_sent(&mut self, id: u32, knowledge: T) {
        if self.ipis.len() >= MAX_IPIS {
            self.ipis.pop_front();
        }
        self.ipis.push_back(Ipi { id, sent: knowledge, done: T::default() });
    }

    fn ipi_taken(&self, id: u32) -> Option<&T> {
        self.ipis.iter().rev().find(|i| i.id == id).map(|i| &i.sent)
    }

    /// A receiver is done.
    fn ipi_served(&mut self, id: u32, knowledge: &T) {
        if let Some(ipi) = self.ipis.iter_mut().rev().find(|i| i.id == id) {
            ipi.done.join(knowledge);
        }
    }

    /// The sender waited for all receivers: what they knew.
    fn ipi_waited(&mut self, id: u32) -> Option<T> {
        let at = self.ipis.iter().rposition(|i| i.id == id)?;
        self.ipis.remove(at).map(|i| i.done)
    }
}
