//! Vector clocks: for each CPU the number of its newest event that is known to be past.
//!
//! Enough for x86-64, where program order between stores, between loads, and from loads to stores
//! is order (TSO). Weakly ordered architectures need views instead ([`super::views`]).

use std::rc::Rc;

use textbed_arch::CpuId;

/// What is known of each CPU, by its number; shared until it changes. Nothing where nothing is
/// known.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Clock(Option<Rc<Vec<(CpuId, u64)>>>);

impl Clock {
    /// Nothing is known.
    pub(crate) const NONE: Self = Self(None);

    fn all(&self) -> &[(CpuId, u64)] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Number of the newest event of `cpu` known.
    pub(crate) fn of(&self, cpu: CpuId) -> u64 {
        let all = self.all();
        // Mostly all CPUs from the first on are known, each in its place.
        match all.get(usize::from(cpu.0)) {
            Some((there, seq)) if *there == cpu => *seq,
            _ => all.binary_search_by_key(&cpu, |e| e.0).map_or(0, |at| all[at].1),
        }
    }

    /// `cpu` is known up to event `seq`.
    pub(crate) fn set(&mut self, cpu: CpuId, seq: u64) {
        let place = self.all().binary_search_by_key(&cpu, |e| e.0);
        if place.is_ok_and(|at| self.all()[at].1 >= seq) {
            return;
        }
        let all = Rc::make_mut(self.0.get_or_insert_default());
        match place {
            Ok(at) => all[at].1 = seq,
            Err(at) => all.insert(at, (cpu, seq)),
        }
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
        self.same(other) || other.all().iter().all(|(cpu, seq)| self.of(*cpu) >= *seq)
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
        for (cpu, seq) in other.all() {
            self.set(*cpu, *seq);
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
