//! Verdicts of the checker's rules over a test: every class of its threads, decided by the joint
//! rule.
//!
//! Not modelled: what instructions outside the list of concurrently modifiable ones may do (a fetch
//! of such a one is old or new here, as in the recorded verdicts).

use std::ops::ControlFlow;

use textbed_arch::VirtAddr;
use textbed_check::outcomes::{Class, Limits, Side, TooMuch, explore};

use crate::condition::{Atom, FaultKind, Final, Formula, Quantifier};
use crate::kinds::Kind;
use crate::parse::Test;
use crate::program::{Image, Program};

/// How classes are decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum By {
    /// All fetches together: R14.
    Joint,
    /// Each fetch alone in its window: R1 to R13.
    Windows,
    /// Every class whose loads and stores follow coherence: what no other rule restricts.
    Anything,
}

/// What a decision came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The verdict.
    pub kind: Kind,
    /// Classes looked at.
    pub classes: u64,
    /// Runs of threads that did not end.
    pub cut: u64,
}

/// The end of a class.
struct End<'a, 'c> {
    image: &'a Image,
    class: &'c Class<'c>,
    threads: &'c [&'c Program<'a>],
}

impl Final for End<'_, '_> {
    fn register(&self, thread: usize, n: u8) -> u64 {
        self.threads.get(thread).map_or(0, |t| t.registers.get(n))
    }

    fn memory(&self, virt: VirtAddr, bytes: u8) -> u64 {
        let at = self.image.phys(virt.0);
        let whole = self.class.last(at).unwrap_or_else(|| self.image.initial(at));
        if bytes >= 8 { whole } else { whole & ((1 << (8 * u32::from(bytes))) - 1) }
    }

    fn faulted(&self, thread: usize, virt: VirtAddr, kind: FaultKind) -> bool {
        self.threads.get(thread).is_some_and(|t| t.faulted(virt, kind))
    }
}

/// Whether a formula holds for what is known of threads; memory is not yet.
fn known(formula: &Formula, threads: &[&Program<'_>]) -> Option<bool> {
    match formula {
        Formula::True => Some(true),
        Formula::Atom(Atom::Register(thread, n, value)) => {
            Some(threads.get(*thread).is_some_and(|t| t.registers.get(*n) == *value))
        }
        Formula::Atom(Atom::Fault(thread, virt, kind)) => {
            Some(threads.get(*thread).is_some_and(|t| t.faulted(*virt, *kind)))
        }
        Formula::Atom(Atom::Memory(..)) => None,
        Formula::Not(a) => known(a, threads).map(|a| !a),
        Formula::And(a, b) => match (known(a, threads), known(b, threads)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), b) => b,
            (None, _) => None,
        },
        Formula::Or(a, b) => match (known(a, threads), known(b, threads)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), b) => b,
            (None, _) => None,
        },
    }
}

/// The verdict on a test. `broadcast`: `ic iallu` reaches every CPU, as with HCR_EL2.FB.
///
/// # Errors
/// More runs, values or classes than are tried.
pub fn decide(test: &Test, by: By, broadcast: bool) -> Result<Decision, TooMuch> {
    let image = Image::of(test, broadcast);
    let threads: Vec<Program<'_>> =
        (0..test.threads.len()).map(|n| Program::of(&image, test, n)).collect();
    let side = Side { idc: test.idc, dic: test.dic };
    let formula = &test.condition.formula;
    let for_all = test.condition.quantifier == Quantifier::ForAll;
    // Looked for is an end that meets the formula, or for `forall` one that does not.
    let wanted = |ends: &[&Program<'_>]| known(formula, ends) != Some(for_all);
    let mut found = false;
    let mut visit = |class: &Class<'_>, ends: &[&Program<'_>]| {
        let end = End { image: &image, class, threads: ends };
        let can = || match by {
            By::Joint => class.possible(),
            By::Windows => class.possible_one_by_one(),
            By::Anything => true,
        };
        found = formula.holds(&end) != for_all && can();
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let memory = |at| image.initial(at);
    let explored = explore(&threads, side, &memory, Limits::default(), &wanted, &mut visit)?;
    let kind = Kind::of(test.condition.quantifier, found, !found);
    Ok(Decision { kind, classes: explored.classes, cut: explored.cut })
}

/// Visits every class of a test.
///
/// # Errors
/// As [`decide`].
pub fn classes(
    test: &Test,
    broadcast: bool,
    visit: &mut dyn FnMut(&Class<'_>) -> ControlFlow<()>,
) -> Result<(), TooMuch> {
    let image = Image::of(test, broadcast);
    let threads: Vec<Program<'_>> =
        (0..test.threads.len()).map(|n| Program::of(&image, test, n)).collect();
    let side = Side { idc: test.idc, dic: test.dic };
    let memory = |at| image.initial(at);
    let all = |_: &[&Program<'_>]| true;
    explore(&threads, side, &memory, Limits::default(), &all, &mut |class, _| visit(class))?;
    Ok(())
}
