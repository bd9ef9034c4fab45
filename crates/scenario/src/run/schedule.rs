//! Which CPU goes next.

use textbed_machine::SplitMix64;

/// How the next CPU is chosen among those that can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheduler {
    /// The current one until it waits or ends, then the lowest-numbered.
    Lowest,
    /// By chance, at each statement.
    Random(SplitMix64),
}

impl Scheduler {
    /// One of `ready`, which is in ascending order; `None` if that is empty.
    pub(crate) fn next(&mut self, ready: &[usize], current: Option<usize>) -> Option<usize> {
        match self {
            Scheduler::Lowest => {
                current.filter(|c| ready.contains(c)).or_else(|| ready.first().copied())
            }
            Scheduler::Random(numbers) => {
                let many = u64::try_from(ready.len()).ok().filter(|n| *n > 0)?;
                let index = usize::try_from(numbers.below(many)).ok()?;
                ready.get(index).copied()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_keeps_the_current_one() {
        let mut lowest = Scheduler::Lowest;
        assert_eq!(lowest.next(&[0, 2, 5], Some(2)), Some(2));
        assert_eq!(lowest.next(&[0, 5], Some(2)), Some(0));
        assert_eq!(lowest.next(&[], Some(2)), None);
    }
}
