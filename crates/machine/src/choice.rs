//! What hardware is free to do, who decides it, and the list of decisions of a run.
//!
//! Options of every choice are ordered from the newest outcome (index 0) to the stalest (the last).
//! A run is repeated by replaying its list with [`Scripted`]: that is a *witness*.

use textbed_arch::{CpuId, PhysAddr, VirtAddr};

use crate::numbers::SplitMix64;

/// One freedom of the hardware, with the number of its options.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Choice {
    /// Bytes are about to become old where fetches look: had this CPU fetched them ahead?
    /// 0 no, 1 yes: what it holds is kept by its instruction side.
    Prefetch {
        /// The CPU.
        cpu: CpuId,
        /// An address at which it could have fetched them.
        virt: VirtAddr,
        /// First byte that changes.
        phys: PhysAddr,
        /// Bytes that change.
        len: u64,
    },
    /// Table entries are about to change: does this CPU's TLB hold the old ones? 0 no, 1 yes.
    TlbFill {
        /// The CPU.
        cpu: CpuId,
        /// First address of the leaves.
        virt: VirtAddr,
        /// Bytes that they cover.
        len: u64,
    },
    /// A table entry that points to a table is about to be replaced: does this CPU hold it in a
    /// cache of upper levels? 0 no, 1 yes.
    UpperFill {
        /// The CPU.
        cpu: CpuId,
        /// First address that the entry covers.
        virt: VirtAddr,
        /// Bytes that it covers.
        len: u64,
    },
    /// Which of several translations an access uses: 0 what the tables say now, then held ones from
    /// the youngest to the oldest.
    Translation {
        /// The CPU.
        cpu: CpuId,
        /// The address.
        virt: VirtAddr,
        /// Number of translations.
        options: usize,
    },
    /// Which version of a line a fetch gets, among those that the translation used leads to: 0 the
    /// newest.
    Version {
        /// The CPU.
        cpu: CpuId,
        /// The address.
        virt: VirtAddr,
        /// Number of versions.
        options: usize,
    },
    /// Whether a fetch that may get an old version or a new one, and is promised neither, gets
    /// something else: 0 no, then mixtures of the two (torn), then, where anything can happen,
    /// that it does (unpredictable).
    Torn {
        /// The CPU.
        cpu: CpuId,
        /// The address.
        virt: VirtAddr,
        /// Number of outcomes.
        options: usize,
    },
    /// Which line of a full set leaves a CPU's instruction cache for another: 0 of those with old
    /// bytes the one longest not used, the last of the others the one used last.
    Evict {
        /// The CPU.
        cpu: CpuId,
        /// The address whose line needs the way.
        phys: PhysAddr,
        /// Number of ways.
        options: usize,
    },
    /// What the point of unification returns for the rest of a line that an instruction cache is
    /// filled with, where its neighbour was fetched: 0 the newest, then older and older bytes.
    LineFill {
        /// The CPU.
        cpu: CpuId,
        /// The part of the line.
        phys: PhysAddr,
        /// Number of versions.
        options: usize,
    },
    /// How much of a line a clean (that a barrier now completes) had reached: 0 every store to it,
    /// then without the last store of another CPU, and so on.
    CleanTook {
        /// The CPU that cleaned.
        cpu: CpuId,
        /// The line.
        phys: PhysAddr,
        /// Number of outcomes.
        options: usize,
    },
    /// When an instruction cache invalidation (that a barrier now completes) reached a CPU: 0 at
    /// the barrier, then earlier and earlier, as far as outcomes differ.
    InvalidateReached {
        /// The CPU that invalidated.
        by: CpuId,
        /// The CPU reached.
        cpu: CpuId,
        /// Number of outcomes.
        options: usize,
    },
    /// When a translation invalidation (that a barrier now completes) reached a CPU: 0 at the
    /// barrier, then earlier and earlier, as far as outcomes differ.
    TlbiReached {
        /// The CPU that invalidated.
        by: CpuId,
        /// The CPU reached.
        cpu: CpuId,
        /// Number of outcomes.
        options: usize,
    },
    /// What a load returns: 0 the newest bytes, then those of earlier and earlier moments, as far
    /// as they differ and nothing orders the load later.
    LoadSees {
        /// The CPU.
        cpu: CpuId,
        /// The address.
        virt: VirtAddr,
        /// Number of outcomes.
        options: usize,
    },
    /// Whether a store that need not keep its order is performed now (0) or waits (1).
    StoreWaits {
        /// The CPU.
        cpu: CpuId,
        /// The address.
        virt: VirtAddr,
        /// It waits already, and a younger store was issued; else it is issued just now.
        still: bool,
        /// Some CPU can execute the bytes.
        code: bool,
    },
}

impl Choice {
    /// Number of options, at least 1.
    #[must_use]
    pub fn options(&self) -> usize {
        match *self {
            Choice::Prefetch { .. }
            | Choice::TlbFill { .. }
            | Choice::UpperFill { .. }
            | Choice::StoreWaits { .. } => 2,
            Choice::Translation { options, .. }
            | Choice::Version { options, .. }
            | Choice::LoadSees { options, .. }
            | Choice::Torn { options, .. }
            | Choice::Evict { options, .. }
            | Choice::LineFill { options, .. }
            | Choice::CleanTook { options, .. }
            | Choice::InvalidateReached { options, .. }
            | Choice::TlbiReached { options, .. } => options.max(1),
        }
    }
}

/// Answers choices.
pub trait Policy {
    /// An index below [`Choice::options`]; a larger one counts as the last.
    fn choose(&mut self, choice: &Choice) -> usize;

    /// Whether every answer is 0, so that what no answer leads to need not be kept.
    fn always_newest(&self) -> bool {
        false
    }

    /// Whether equal choices get equal answers, however often they are asked.
    fn is_steady(&self) -> bool {
        false
    }
}

/// Everything is as new as it can be.
#[derive(Clone, Copy, Default, Debug)]
pub struct Newest;

impl Policy for Newest {
    fn choose(&mut self, _: &Choice) -> usize {
        0
    }

    fn always_newest(&self) -> bool {
        true
    }

    fn is_steady(&self) -> bool {
        true
    }
}

/// Everything is as old as it may be. Of stores those to code wait; others are performed in order,
/// so that what announces the code is seen before it. Old code is got whole.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stalest;

impl Policy for Stalest {
    fn choose(&mut self, choice: &Choice) -> usize {
        match choice {
            Choice::StoreWaits { code, .. } => usize::from(*code),
            Choice::Torn { .. } => 0,
            _ => choice.options() - 1,
        }
    }

    fn is_steady(&self) -> bool {
        true
    }
}

/// Any option, evenly, from a seed.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    numbers: SplitMix64,
}

impl Random {
    /// Equal seeds give equal runs.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { numbers: SplitMix64(seed) }
    }
}

impl Policy for Random {
    fn choose(&mut self, choice: &Choice) -> usize {
        // The product's upper half is even enough for the few options there are.
        ((u128::from(self.numbers.number()) * choice.options() as u128) >> 64) as usize
    }
}

/// Replays a list of answers; when it is used up, answers `newest`.
#[derive(Clone, Default, Debug)]
pub struct Scripted {
    answers: Vec<usize>,
    next: usize,
}

impl Scripted {
    /// The answers in order, for example [`Choices::answers`] of an earlier run.
    #[must_use]
    pub fn new(answers: Vec<usize>) -> Self {
        Self { answers, next: 0 }
    }
}

impl Policy for Scripted {
    fn choose(&mut self, _: &Choice) -> usize {
        let answer = self.answers.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        answer
    }
}

/// A choice with its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// What was to be decided.
    pub choice: Choice,
    /// The option taken.
    pub answer: usize,
}

/// The decisions of a run, and who makes them. Never shown to rules.
pub struct Choices {
    policy: Box<dyn Policy>,
    taken: Vec<Taken>,
}

impl Choices {
    /// An empty list.
    #[must_use]
    pub fn new(policy: Box<dyn Policy>) -> Self {
        Self { policy, taken: Vec::new() }
    }

    /// Whether equal choices get equal answers.
    pub(crate) fn is_steady(&self) -> bool {
        self.policy.is_steady()
    }

    /// Asks the policy, unless there is but one option, and notes the answer.
    pub(crate) fn ask(&mut self, choice: Choice) -> usize {
        let options = choice.options();
        if options < 2 {
            return 0;
        }
        let answer = self.policy.choose(&choice).min(options - 1);
        self.taken.push(Taken { choice, answer });
        answer
    }

    /// A choice between 0 = no and 1 = yes.
    pub(crate) fn yes(&mut self, choice: Choice) -> bool {
        self.ask(choice) == 1
    }

    /// The decisions so far, in order.
    #[must_use]
    pub fn taken(&self) -> &[Taken] {
        &self.taken
    }

    /// The answers alone: what [`Scripted`] replays.
    #[must_use]
    pub fn answers(&self) -> Vec<usize> {
        self.taken.iter().map(|t| t.answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Choice = Choice::Version { cpu: CpuId(0), virt: VirtAddr(0), options: 3 };

    #[test]
    fn policies_answer_in_range_and_replay() {
        assert_eq!(Newest.choose(&THREE), 0);
        assert_eq!(Stalest.choose(&THREE), 2);
        let mut run = Choices::new(Box::new(Random::new(7)));
        let first: Vec<usize> = (0..200).map(|_| run.ask(THREE)).collect();
        assert!((0..3).all(|n| first.contains(&n)) && first.iter().all(|n| *n < 3));
        let mut again = Choices::new(Box::new(Scripted::new(run.answers())));
        let second: Vec<usize> = (0..200).map(|_| again.ask(THREE)).collect();
        assert_eq!(first, second);
    }

    #[test]
    fn a_single_option_is_no_choice_and_a_wild_answer_is_the_last() {
        let one = Choice::Version { cpu: CpuId(0), virt: VirtAddr(0), options: 1 };
        let mut run = Choices::new(Box::new(Scripted::new(vec![99])));
        assert_eq!(run.ask(one), 0);
        assert!(run.taken().is_empty());
        assert_eq!(run.ask(THREE), 2);
    }
}
