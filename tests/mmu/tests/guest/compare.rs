//! Cases that a guest answers, compared with what we say; and whether these answers tell a wrong
//! table from ours. For trees (`ask`) and hashed tables (`hashed`) alike.

use std::fmt::Debug;
use std::time::Instant;

use textbed_mmu::tally::Tally;

use crate::ask::{Outcome, Seen};
use crate::qemu::{Answer, BATCH, Guest, Raw};

/// A format and a machine that translates by it.
pub(crate) trait Subject {
    /// One access.
    type Case: Copy + Debug;
    /// The format's name.
    fn name(&self) -> &'static str;
    /// What the guest is asked.
    fn ask(&self, case: &Self::Case) -> Raw;
    /// What its answer says.
    fn read(&self, case: &Self::Case, answer: &Answer) -> Outcome;
    /// What we say.
    fn ours(&self, case: &Self::Case) -> Outcome;
    /// What this MMU makes of it by what we say: the same, but for known differences.
    fn taken(&self, case: &Self::Case) -> Outcome;
    /// What the case is counted under.
    fn column(&self, case: &Self::Case) -> String;
}

/// A case with the guest's answer.
pub(crate) struct Answered<C> {
    pub(crate) case: C,
    pub(crate) theirs: Outcome,
}

/// Compares cases; returns them with the guest's answers.
pub(crate) fn compare<S: Subject>(
    subject: &S,
    guest: &mut Guest,
    cases: impl Iterator<Item = S::Case>,
) -> Vec<Answered<S::Case>> {
    let (began, name) = (Instant::now(), subject.name());
    let (mut tally, mut kinds) = (Tally::default(), Tally::default());
    let (mut all, mut wrong, mut differences) = (Vec::new(), Vec::new(), 0);
    let mut cases = cases.peekable();
    while cases.peek().is_some() {
        let batch: Vec<S::Case> = cases.by_ref().take(BATCH).collect();
        let raw: Vec<Raw> = batch.iter().map(|case| subject.ask(case)).collect();
        for (case, answer) in batch.into_iter().zip(guest.run(&raw)) {
            let theirs = subject.read(&case, &answer);
            let (ours, known) = (subject.ours(&case), subject.taken(&case));
            if ours == known {
                tally.add(subject.column(&case), ours == theirs);
                if let Some(kind) = kind(&ours) {
                    kinds.add(kind, ours == theirs);
                }
            } else {
                // Not counted as equal; but it must be this difference and no other.
                differences += 1;
            }
            if known != theirs && wrong.len() < 10 {
                wrong.push(format!("{case:x?}:\n  ours {known:x?}\n  theirs {theirs:x?}"));
            }
            all.push(Answered { case, theirs });
        }
    }
    let (faults, _) = kinds.report(&format!("{name} faults"));
    let (compared, equal) = tally.report(name);
    let seconds = began.elapsed().as_secs_f64();
    println!("{name}: {differences} known differences, not among those; {seconds:.1} s");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(faults > 0 && compared > faults && compared == equal);
    all
}

/// What a fault is counted under.
fn kind(outcome: &Outcome) -> Option<String> {
    match outcome.seen {
        Seen::Fault(told, _) => Some(format!("vector {:#x} code {:#x}", told.vector, told.code)),
        Seen::Nowhere => Some("no memory there".to_owned()),
        Seen::Reached(_) | Seen::Strange(_) => None,
    }
}

/// Every wrong table must be caught by some answered case.
pub(crate) fn catch<'a, S: Subject>(
    seeds: impl Iterator<Item = (&'a str, S)>,
    answered: &[Answered<S::Case>],
) {
    let mut wrong = 0;
    for (what, subject) in seeds {
        told_apart(subject.name(), &format!("with {what}"), answered, |a| {
            subject.taken(&a.case) != a.theirs
        });
        wrong += 1;
    }
    println!("{wrong} wrong tables, {wrong} caught");
}

/// Some answered case must differ from what is said where something is wrong.
pub(crate) fn told_apart<C>(
    name: &str,
    what: &str,
    answered: &[Answered<C>],
    differs: impl Fn(&Answered<C>) -> bool,
) {
    let n = answered.iter().filter(|a| differs(a)).count();
    println!("  {name} {what}: caught by {n} of {} cases", answered.len());
    assert!(n > 0, "{name}: no case tells a table {what}");
}
