//! Vector clocks: for each CPU the number of its newest event that is known to be past.
//!
//! Enough for x86-64, where program order between stores, between loads, and from loads to stores
//! is order (TSO). Weakly ordered architectures need views instead ([`super::views`]).

use std::rc::Rc;

use prefetch_index::prefetch_index;
use textbed_arch::CpuId;

/// What is known of one CPU: its number above that of the event (48 bits: the checker takes no
/// other events).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known(u64);

const EVENT: u64 = (1 << 48) - 1;

impl Known {
    fn new(cpu: CpuId, seq: u64) -> Self {
        Self(u64::from(cpu.0) << 48 | seq.min(EVENT))
    }

    fn cpu(self) -> CpuId {
        CpuId((self.0 >> 48) as u16)
    }

    fn seq(self) -> u64 {
        self.0 & EVENT
    }
}

/// What is known of each CPU, by its number; shared until it changes. Nothing where nothing is
/// known.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Clock(Option<Rc<[Known]>>);

impl Clock {
    /// Nothing is known.
    pub(crate) const NONE: Self = Self(None);

    fn all(&self) -> &[Known] {
        self.0.as_deref().unwrap_or(&[])
    }

    /// Where a CPU stands, or would.
    fn place(&self, cpu: CpuId) -> Result<usize, usize> {
        // Mostly all CPUs from the first on are known, each in its place.
        let (all, at) = (self.all(), usize::from(cpu.0));
        match all.get(at) {
            Some(known) if known.cpu() == cpu => Ok(at),
            _ => all.binary_search_by_key(&cpu, |known| known.cpu()),
        }
    }

    /// Number of the newest event of `cpu` known.
    pub(crate) fn of(&self, cpu: CpuId) -> u64 {
        self.place(cpu).map_or(0, |at| self.all()[at].seq())
    }

    /// `cpu` is known up to event `seq`.
    pub(crate) fn set(&mut self, cpu: CpuId, seq: u64) {
        let (place, known) = (self.place(cpu), Known::new(cpu, seq));
        match (place, &mut self.0) {
            (Ok(at), Some(all)) if all[at].seq() < seq => Rc::make_mut(all)[at] = known,
            (Ok(_), _) => {}
            (Err(at), all) => {
                let (before, behind) = all.as_deref().unwrap_or(&[]).split_at(at);
                *all = Some(before.iter().chain([&known]).chain(behind).copied().collect());
            }
        }
    }

    /// Prefetches it.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch_index(self.all(), 0);
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether both are one and the same (not only equal).
    pub(crate) fn same(&self, other: &Clock) -> bool {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    /// Whether everything that `other` knows is known here.
    pub(crate) fn covers(&self, other: &Clock) -> bool {
        self.same(other) || other.all().iter().all(|known| self.of(known.cpu()) >= known.seq())
    }

    /// Adds what `other` knows. Where one has all of the other, both are one and the same then.
    pub(crate) fn join(&mut self, other: &Clock) {
        if self.covers(other) {
            return;
        }
        if other.covers(self) {
            self.0.clone_from(&other.0);
            return;
        }
        let (mine, theirs) = (self.all(), other.all());
        if mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(a, b)| a.cpu() == b.cpu()) {
            // The same CPUs, so what is more is known of the later event.
            let both = mine.iter().zip(theirs).map(|(a, b)| Known(a.0.max(b.0)));
            self.0 = Some(both.collect());
            return;
        }
        for known in other.all() {
            self.set(known.cpu(), known.seq());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_take_the_newer_of_each() {
        let mut a = Clock::default();
        a.set(CpuId(3), 10);
        a.set(CpuId(1), 5);
        let mut b = a.clone();
        b.set(CpuId(1), 9);
        b.set(CpuId(3), 2);
        a.join(&b);
        assert_eq!((a.of(CpuId(1)), a.of(CpuId(2)), a.of(CpuId(3))), (9, 0, 10));
        assert!(a.same(&b), "one that has all of the other is taken as it is");
        b.set(CpuId(2), 1);
        assert!(b.covers(&a) && !a.covers(&b) && !b.same(&a));
    }
}
