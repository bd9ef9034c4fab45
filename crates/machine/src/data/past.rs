//! Old contents of memory that some load may still see, and what a load may return of them.
//!
//! Kept by granules of 64 bytes: what each store replaced, when, and by whom. Bounds on memory: the
//! last [`MAX_KEPT`] stores of a granule, and [`MAX_GRANULES`] granules; what is forgotten is seen
//! by every load.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use textbed_arch::{CpuId, PhysAddr};

use crate::Machine;
use crate::state::{Part, Take};

/// `log2` of the granule by which old data is kept.
const GRANULE: u32 = 6;
/// Stores to one granule of which the old bytes are kept.
const MAX_KEPT: usize = 16;
/// Granules with a past beyond which those of no use are looked for.
const SWEEP: usize = 4096;
/// Granules that are kept at most; beyond it the past is forgotten (a load then sees more).
const MAX_GRANULES: usize = 1 << 16;

/// What a store replaced in one granule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Replaced {
    pub(crate) phys: u64,
    pub(crate) old: Box<[u8]>,
    /// When.
    pub(crate) at: u64,
    pub(crate) by: CpuId,
    /// Number of the store's event.
    pub(crate) seq: u64,
}

/// One granule's stores, the oldest first.
#[derive(Clone, Default, Debug)]
pub(crate) struct Granule {
    pub(crate) stores: VecDeque<Replaced>,
    /// What lies before this moment is not known any more.
    pub(crate) since: u64,
}

/// Old contents of memory that some load may still see.
#[derive(Clone, Default, Debug)]
pub(crate) struct Past {
    pub(crate) granules: FxHashMap<u64, Granule>,
    /// No load sees less than at this moment.
    pub(crate) floor: u64,
    sweep_at: usize,
}

/// What a load could return.
pub(crate) struct Seen {
    pub(crate) bytes: Vec<u8>,
    /// Earliest moment at which it could.
    pub(crate) moment: u64,
    /// The oldest event of a store that it misses; `u64::MAX` = none.
    pub(crate) misses: u64,
}

pub(crate) fn overlap(a: u64, a_len: u64, b: u64, b_len: u64) -> Option<(u64, u64)> {
    let (first, end) = (a.max(b), (a + a_len).min(b + b_len));
    (first < end).then_some((first, end))
}

/// Copies the part of `from` (at `from_at`) that lies in `to` (at `to_at`).
pub(crate) fn lay(to: &mut [u8], to_at: u64, from: &[u8], from_at: u64) {
    if let Some((first, end)) = overlap(to_at, to.len() as u64, from_at, from.len() as u64) {
        let (t, f) = ((first - to_at) as usize, (first - from_at) as usize);
        let len = (end - first) as usize;
        to[t..t + len].copy_from_slice(&from[f..f + len]);
    }
}

fn granules(phys: u64, len: u64) -> std::ops::RangeInclusive<u64> {
    phys >> GRANULE..=(phys + len.max(1) - 1) >> GRANULE
}

impl Past {
    /// Notes what a store is about to replace. Its event's number is not known yet.
    pub(crate) fn replace(&mut self, phys: u64, old: &[u8], at: u64, by: CpuId) {
        for number in granules(phys, old.len() as u64) {
            let start = number << GRANULE;
            let Some((first, end)) = overlap(phys, old.len() as u64, start, 1 << GRANULE) else {
                continue;
            };
            let part = &old[(first - phys) as usize..(end - phys) as usize];
            let granule = self.granules.entry(number).or_default();
            if granule.stores.len() >= MAX_KEPT
                && let Some(gone) = granule.stores.pop_front()
            {
                granule.since = granule.since.max(gone.at);
            }
            granule.stores.push_back(Replaced { phys: first, old: part.into(), at, by, seq: 0 });
        }
    }

    /// The store of the moment `at` has this event.
    pub(crate) fn name(&mut self, phys: u64, len: u64, at: u64, seq: u64) {
        for number in granules(phys, len) {
            let last = self.granules.get_mut(&number).and_then(|g| g.stores.back_mut());
            if let Some(store) = last.filter(|s| s.at == at) {
                store.seq = seq;
            }
        }
    }

    /// Every part, for [`Machine::fingerprint`].
    pub(crate) fn visit(&self, take: Take<'_>) {
        take(Part::Known(self.floor));
        let mut numbers: Vec<u64> = self.granules.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            let Some(granule) = self.granules.get(&number) else { continue };
            take(Part::Value(number));
            take(Part::Known(granule.since));
            take(Part::Value(granule.stores.len() as u64));
            for s in &granule.stores {
                take(Part::Value(s.phys));
                take(Part::Bytes(&s.old));
                take(Part::Event(s.at));
                take(Part::Value(u64::from(s.by.0)));
            }
        }
    }

    /// Bytes were written by other means than a store: every load sees them.
    pub(crate) fn overwritten(&mut self, phys: u64, len: u64, now: u64) {
        if self.granules.is_empty() || len == 0 {
            return;
        }
        let within = granules(phys, len);
        if within.end() - within.start() > self.granules.len() as u64 {
            self.granules.retain(|n, _| !within.contains(n));
            self.floor = self.floor.max(now);
            return;
        }
        for number in within {
            if let Some(granule) = self.granules.get_mut(&number) {
                *granule = Granule { since: now, ..Granule::default() };
            }
        }
    }

    /// Forgets what no load can see any more.
    pub(crate) fn sweep(&mut self, floor: u64, now: u64) {
        self.floor = self.floor.max(floor);
        if self.granules.len() < self.sweep_at.max(SWEEP) {
            return;
        }
        self.granules.retain(|_, g| g.stores.back().is_some_and(|last| last.at > floor));
        if self.granules.len() > MAX_GRANULES {
            self.granules.clear();
            self.floor = now;
        }
        self.sweep_at = self.granules.len() * 2;
    }
}

impl Machine {
    /// Everything that a load could return at `floor` or later, the newest first.
    pub(crate) fn visible(&self, cpu: CpuId, phys: u64, newest: &[u8], floor: u64) -> Vec<Seen> {
        let len = newest.len() as u64;
        let mut stores: Vec<&Replaced> = Vec::new();
        let mut floor = floor;
        for number in granules(phys, len) {
            if let Some(granule) = self.past.granules.get(&number) {
                floor = floor.max(granule.since);
                stores.extend(
                    granule
                        .stores
                        .iter()
                        .filter(|s| overlap(s.phys, s.old.len() as u64, phys, len).is_some()),
                );
            }
        }
        stores.sort_by_key(|s| s.at);
        // Own stores are seen whatever the moment.
        let own = |s: &Replaced| s.by == cpu;
        let others: Vec<usize> = (0..stores.len()).filter(|n| !own(stores[*n])).rev().collect();
        let waits = self.waits_for(cpu, phys, len).unwrap_or(u64::MAX);
        let misses = |from: u64| {
            let missed = stores.iter().filter(|s| !own(s) && s.at >= from);
            missed.map(|s| s.seq).min().unwrap_or(u64::MAX).min(waits)
        };
        let moment = |n: usize| others.get(n).map_or(floor, |n| stores[*n].at.max(floor));
        let mut out = vec![Seen { bytes: newest.to_vec(), moment: moment(0), misses: waits }];
        for (nth, n) in others.iter().enumerate() {
            let at = stores[*n].at;
            if at <= floor {
                break;
            }
            // Memory before that moment: undo what came since, but for own stores.
            let mut bytes = newest.to_vec();
            for s in stores.iter().rev().take_while(|s| s.at >= at) {
                lay(&mut bytes, phys, &s.old, s.phys);
            }
            for s in stores.iter().filter(|s| s.at >= at && own(s)) {
                if let Some(stored) = self.stored_by(s, &stores) {
                    lay(&mut bytes, phys, &stored, s.phys);
                }
            }
            let moment = moment(nth + 1);
            let misses = misses(at);
            if out.last().is_some_and(|last| last.bytes == bytes) {
                if let Some(last) = out.last_mut() {
                    (last.moment, last.misses) = (moment, misses);
                }
            } else {
                out.push(Seen { bytes, moment, misses });
            }
        }
        out
    }

    /// What a store stored: what the next ones replaced, else what memory has.
    fn stored_by(&self, store: &Replaced, stores: &[&Replaced]) -> Option<Vec<u8>> {
        let mut bytes = vec![0; store.old.len()];
        self.memory.read(PhysAddr(store.phys), &mut bytes).ok()?;
        for later in stores.iter().rev().take_while(|s| s.at > store.at) {
            lay(&mut bytes, store.phys, &later.old, later.phys);
        }
        Some(bytes)
    }
}
