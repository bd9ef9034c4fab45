//! Vector clocks: for each CPU the number of its newest event that is known to be past.
//!
//! Enough for x86-64, where program order between stores, between loads, and from loads to stores
//! is order (TSO). Weakly ordered architectures need views instead ([`super::views`]).

use std::rc::Rc;

use textbed_arch::CpuId;

/// What is known of each CPU; shared until it changes.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Clock(Rc<Vec<(CpuId, u64)>>);

impl Clock {
    /// Number of the newest event of `cpu` known.
    pub(crate) fn of(&self, cpu: CpuId) -> u64 {
        self.0.binary_search_by_key(&cpu, |e| e.0).map_or(0, |at| self.0[at].1)
    }

    /// `cpu` is known up to event `seq`.
    pub(crate) fn set(&mut self, cpu: CpuId, seq: u64) {
        match self.0.binary_search_by_key(&cpu, |e| e.0) {
            Ok(at) if self.0[at].1 >= seq => {}
            Ok(at) => Rc::make_mut(&mut self.0)[at].1 = seq,
            Err(at) => Rc::make_mut(&mut self.0).insert(at, (cpu, seq)),
        }
    }

    /// Whether nothing is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are one and the same (not only equal).
    pub(crate) fn same(&self, other: &Clock) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Adds what `other` knows.
    pub(crate) fn join(&mut self, other: &Clock) {
        if Rc::ptr_eq(&self.0, &other.0) {
            return;
        }
        for (cpu, seq) in other.0.iter() {
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
    }
}
