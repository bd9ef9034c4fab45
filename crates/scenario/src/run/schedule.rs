//! Which CPU goes next.

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
                let index = usize::try_from(numbers.next() % many).ok()?;
                ready.get(index).copied()
            }
        }
    }
}

/// The generator SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators",
/// 2014): small, and the same everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_reference() {
        // The first outputs for the seed 1234567, as the author's C program prints them.
        let mut numbers = SplitMix64(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| numbers.next()).collect();
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn the_lowest_keeps_the_current_one() {
        let mut lowest = Scheduler::Lowest;
        assert_eq!(lowest.next(&[0, 2, 5], Some(2)), Some(2));
        assert_eq!(lowest.next(&[0, 5], Some(2)), Some(0));
        assert_eq!(lowest.next(&[], Some(2)), None);
    }
}
