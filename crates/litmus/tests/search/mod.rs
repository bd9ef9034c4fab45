//! Every run of a litmus test on the simulator, within a bound: schedules and the machine's own
//! choices are one list of decisions, and lists are enumerated depth first by running again. A run
//! that comes to a state in which another one was ends there.
//!
//! A thread's steps between two accesses that others can see are one step, as are the parts whose
//! moment the machine chooses itself: a clean or invalidation is issued with the step before it
//! (it takes effect anywhere up to its barrier), and an ISB is executed as early as possible (the
//! earlier, the older what a later fetch may return). Only words that some thread stores to are
//! fetched through the machine; which these are is found by running. Lines are of 4 bytes, so that
//! no two words share one, as in the models that the recorded verdicts come from.
//!
//! What registers depend on is followed, so that the machine knows which loads order what comes
//! after them; a waiting store is performed when the schedule says so.
//!
//! Not modelled: constrained unpredictable behaviour where instructions outside the list of
//! modifiable ones are modified.
// Each test file uses a part; and this file is no test by itself to clippy.
#![allow(dead_code, clippy::unwrap_used)]

mod feeds;
mod run;
mod script;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use run::{Ended, Run};
use textbed_litmus::kinds::Kind;
use textbed_litmus::{Final, Quantifier, Test};

/// Where a fetch of a modified word gets it from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetches {
    /// The machine's instruction side.
    Machine,
    /// Anything that was ever in that word: what no rule restricts.
    Anything,
}

/// What a search came to.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// `None`: the bound was reached before an answer.
    pub(crate) kind: Option<Kind>,
    /// Runs made.
    pub(crate) runs: u64,
    /// Decisions of a run that meets the condition (for `forall`: that does not).
    pub(crate) witness: Option<Vec<usize>>,
}

/// What a walk over all runs came to.
pub(crate) struct Walk {
    /// Every run was made; else the bound was reached, or the visitor stopped it.
    pub(crate) whole: bool,
    pub(crate) runs: u64,
    /// Decisions of the run at which the visitor stopped.
    pub(crate) stopped: Option<Vec<usize>>,
}

/// Shows every final state to `visit`, until it says stop (`true`), at most so many runs.
pub(crate) fn walk(
    test: &Test,
    fetches: Fetches,
    most: u64,
    mut visit: impl FnMut(&dyn Final) -> bool,
) -> Walk {
    let mut words = BTreeMap::new();
    for t in &test.threads {
        words.extend(t.all().map(|i| (i.virt.0, i.word)));
    }
    let (mut modified, mut ever) = (BTreeSet::new(), BTreeSet::new());
    let mut runs = 0;
    'again: loop {
        let mut given = Vec::new();
        let mut known = HashSet::new();
        loop {
            if runs >= most {
                return Walk { whole: false, runs, stopped: None };
            }
            runs += 1;
            let mut run = Run::new(test, given, &modified, &words, &ever, fetches);
            let ended = run.go(&mut known);
            if !run.found.is_empty() || !run.stored.is_subset(&ever) {
                let (mut found, mut stored) = (run.found, run.stored);
                modified.append(&mut found);
                ever.append(&mut stored);
                continue 'again;
            }
            if ended == Ended::Whole && visit(&run) {
                let taken = run.script.borrow().taken.iter().map(|(a, _)| *a).collect();
                return Walk { whole: false, runs, stopped: Some(taken) };
            }
            let next = run.script.borrow().next();
            match next {
                Some(next) => given = next,
                None => return Walk { whole: true, runs, stopped: None },
            }
        }
    }
}

/// Enumerates runs until the answer is known, at most so many.
pub(crate) fn decide(test: &Test, fetches: Fetches, most: u64) -> Verdict {
    let forall = test.condition.quantifier == Quantifier::ForAll;
    let mut all = true;
    let walk = walk(test, fetches, most, |state| {
        let holds = test.condition.formula.holds(state);
        all &= holds;
        holds != forall
    });
    let kind = match (walk.whole, &walk.stopped) {
        (false, None) => None,
        (_, stopped) => {
            let any = stopped.is_some() != forall;
            Some(Kind::of(test.condition.quantifier, any, all))
        }
    };
    Verdict { kind, runs: walk.runs, witness: walk.stopped }
}
