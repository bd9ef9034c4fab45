//! One run's decisions, of the schedule and of the machine, as one list.

use std::cell::RefCell;
use std::rc::Rc;

use textbed_machine::{Choice, Policy};

/// One list of decisions: a prefix that is given, then zeros; and how many options each had.
#[derive(Default)]
pub(super) struct Script {
    pub(super) given: Vec<usize>,
    pub(super) taken: Vec<(usize, usize)>,
    /// The store that is executed may be overtaken by another one of its thread.
    pub(super) overtaken: bool,
}

impl Script {
    pub(super) fn ask(&mut self, options: usize) -> usize {
        if options < 2 {
            return 0;
        }
        let answer = self.given.get(self.taken.len()).copied().unwrap_or(0).min(options - 1);
        self.taken.push((answer, options));
        answer
    }

    /// The next list depth first; `None` after the last.
    pub(super) fn next(&self) -> Option<Vec<usize>> {
        let last = self.taken.iter().rposition(|(answer, options)| answer + 1 < *options)?;
        let mut given: Vec<usize> = self.taken[..=last].iter().map(|(a, _)| *a).collect();
        given[last] += 1;
        Some(given)
    }
}

pub(super) struct Shared(pub(super) Rc<RefCell<Script>>);

impl Policy for Shared {
    fn choose(&mut self, choice: &Choice) -> usize {
        let mut script = self.0.borrow_mut();
        match choice {
            // Once a store waits, the schedule decides when it is performed.
            Choice::StoreWaits { still: true, .. } => 1,
            // What no later store of its thread can overtake need not wait.
            Choice::StoreWaits { .. } if !script.overtaken => 0,
            // The records ask for outcomes; that a test has none that is promised is a flag there.
            Choice::Torn { .. } => 0,
            _ => script.ask(choice.options()),
        }
    }
}
