//! Conditions on final states: `exists`, `~exists` and `forall` over registers, memory and faults.

use textbed_arch::VirtAddr;

/// How a formula is quantified over final states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantifier {
    /// Some final state meets it.
    Exists,
    /// No final state meets it.
    NotExists,
    /// Every final state meets it.
    ForAll,
}

/// A fault that a condition asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Any.
    Any,
    /// An undefined instruction.
    Undefined,
}

/// One equation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Atom {
    /// A register of a thread has this value.
    Register(usize, u8, u64),
    /// The location at an address, of so many bytes, has this value.
    Memory(VirtAddr, u8, u64),
    /// A thread faulted at an address.
    Fault(usize, VirtAddr, FaultKind),
}

/// A formula.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Formula {
    /// Always true: a test without a condition.
    True,
    /// An equation.
    Atom(Atom),
    /// Not.
    Not(Box<Formula>),
    /// Both.
    And(Box<Formula>, Box<Formula>),
    /// One or both.
    Or(Box<Formula>, Box<Formula>),
}

/// A test's condition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// Over which final states.
    pub quantifier: Quantifier,
    /// What is asked of one.
    pub formula: Formula,
}

/// A final state.
pub trait Final {
    /// A register of a thread.
    fn register(&self, thread: usize, n: u8) -> u64;
    /// So many bytes at an address, little-endian.
    fn memory(&self, virt: VirtAddr, bytes: u8) -> u64;
    /// Whether the thread took a fault of this kind there.
    fn faulted(&self, thread: usize, virt: VirtAddr, kind: FaultKind) -> bool;
}

impl Formula {
    /// Whether a final state meets it.
    #[must_use]
    pub fn holds(&self, state: &dyn Final) -> bool {
        match self {
            Formula::True => true,
            Formula::Atom(Atom::Register(thread, n, value)) => {
                state.register(*thread, *n) == *value
            }
            Formula::Atom(Atom::Memory(virt, bytes, value)) => {
                state.memory(*virt, *bytes) == *value
            }
            Formula::Atom(Atom::Fault(thread, virt, kind)) => state.faulted(*thread, *virt, *kind),
            Formula::Not(a) => !a.holds(state),
            Formula::And(a, b) => a.holds(state) && b.holds(state),
            Formula::Or(a, b) => a.holds(state) || b.holds(state),
        }
    }
}
