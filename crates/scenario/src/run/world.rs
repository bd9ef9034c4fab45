//! What programs act on: calls, instructions, other CPUs. The engine knows a world only through
//! this; the real one is a modelled kernel, tests have one that writes down what it was asked.

use std::collections::BTreeMap;

use textbed_arch::CpuId;
use textbed_event::CallRef;
use textbed_machine::Stays;

use super::engine::Note;
use crate::diagnostic::Diagnostic;
use crate::span::Span;
use crate::syntax::ast::{Arg, Call, Name};
use crate::value::{Environment, EvalError, Value};

/// What a call gave back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Returned {
    /// Its result.
    pub(crate) value: Value,
    /// Whether the result says that it failed, by the callee's own convention.
    pub(crate) failed: bool,
    /// The instance, if its result is one that callers have to look at.
    pub(crate) call: Option<CallRef>,
    /// What a reader should be told about it whatever becomes of the result.
    pub(crate) note: Option<String>,
}

/// How far a call got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// It returned.
    Returned(Returned),
    /// It is under way: other programs may run before [`World::resume`].
    More,
    /// It waits for a lock, for itself or (`shared`) together with others. `begun`: it is under
    /// way; else it has to be called again.
    WantsLock { name: String, shared: bool, begun: bool },
    /// It is under way, and waits for the end of a call that is under way on that CPU.
    WantsCallEnd(CpuId),
    /// It is under way: a grace period that waits for somebody.
    WantsQuiet(Stays),
    /// It waits until these CPUs take interrupts. `begun` as above.
    WantsCpus { cpus: Vec<CpuId>, begun: bool },
}

/// Why a statement did not end as usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The scenario is wrong in a way that shows only now.
    Input(Diagnostic),
    /// Something is not modelled.
    NotModelled(String),
    /// A limit was reached.
    Limit(String),
    /// This program can't go on: a fault, an oops.
    Died(String),
    /// A call waits in its middle for CPUs that will never take an interrupt.
    Hangs(Vec<CpuId>),
}

impl From<EvalError> for Stop {
    fn from(error: EvalError) -> Self {
        Stop::Input(error.diagnostic())
    }
}

/// What holds inside a `with`, for the world (locks that wait are the engine's affair).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inside<'a> {
    /// Interrupts are off.
    IrqsOff,
    /// This lock is held.
    Lock(&'a str),
    /// This address space is loaded.
    Mm(&'a str),
    /// The other CPUs stand still.
    StopMachine,
    /// A read-side section.
    Rcu,
    /// The CPU idles.
    Idle {
        /// It polls its task's flags.
        polls: bool,
    },
    /// A patcher that the scenario writes out replaces bytes: the first one, and how many.
    Patch(u64, u64),
}

/// The part of a world that an interrupt handler can reach too.
pub(crate) trait Bare {
    /// What follows comes from this place.
    fn at(&mut self, place: Span);

    /// Executes one instruction.
    fn op(
        &mut self,
        cpu: CpuId,
        op: &Name,
        args: &[Arg],
        env: &dyn Environment,
    ) -> Result<(), Stop>;

    /// A release store of a value that others can await.
    fn publish(&mut self, cpu: CpuId, name: &str, value: Value) -> Result<(), Stop>;
}

/// All that programs act on.
pub(crate) trait World: Bare {
    /// The size of a base page in bytes.
    fn page_bytes(&self) -> u64;

    /// Runs a call to its end, or to where others may run. `anyway`: even if it may have to wait
    /// for CPUs that take no interrupts, because nobody else can run.
    fn call(
        &mut self,
        cpu: CpuId,
        call: &Call,
        env: &dyn Environment,
        anyway: bool,
    ) -> Result<Called, Stop>;

    /// Goes on with the call that is under way on a CPU.
    fn resume(&mut self, cpu: CpuId) -> Result<Called, Stop> {
        Err(Stop::NotModelled(format!("going on on {cpu}, where no call is under way")))
    }

    /// Whether a CPU cannot have a lock now, for itself or together with others, because of what a
    /// call on another CPU holds or waits for.
    fn lock_waits(&self, _cpu: CpuId, _lock: &str, _shared: bool) -> bool {
        false
    }

    /// Whether a call is under way on a CPU.
    fn is_calling(&self, _cpu: CpuId) -> bool {
        false
    }

    /// Whether somebody is where he was when a grace period began to wait for him.
    fn still_stays(&self, _stay: Stays) -> bool {
        false
    }

    /// Whether a call on another CPU has this one stand still.
    fn is_held(&self, _cpu: CpuId) -> bool {
        false
    }

    /// Whether a call under way on a CPU is where nothing else gets in there, no interrupt either.
    fn is_shut(&self, _cpu: CpuId) -> bool {
        false
    }

    /// Whether a CPU is there to run anything.
    fn is_online(&self, _cpu: CpuId) -> bool {
        true
    }

    /// The load-acquire of a published value.
    fn observe(&mut self, cpu: CpuId, name: &str) -> Result<(), Stop>;

    /// Begins what a `with` says.
    fn enter(&mut self, cpu: CpuId, inside: Inside<'_>) -> Result<(), Stop>;

    /// Ends it.
    fn leave(&mut self, cpu: CpuId, inside: Inside<'_>) -> Result<(), Stop>;

    /// Sends an interrupt and waits until all receivers served it; `handler` is what each runs.
    fn ipi(
        &mut self,
        cpu: CpuId,
        targets: &[CpuId],
        name: &str,
        handler: &mut dyn FnMut(&mut dyn Bare, CpuId) -> Result<(), Stop>,
    ) -> Result<(), Stop>;

    /// The result of a call was looked at, or never will be.
    fn result(&mut self, cpu: CpuId, call: CallRef, looked_at: bool);

    /// The setup came to its end: what it stored is stored.
    fn setup_ended(&mut self) {}

    /// Called between statements: may hand events on; `false` if nobody wants more.
    fn between(&mut self) -> bool;

    /// What the world itself has to say about what happened since the last time.
    fn take_notes(&mut self) -> Vec<Note>;
}

/// A variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) value: Value,
    /// The result that it holds, as an index, while that is not looked at.
    pub(crate) result: Option<usize>,
    /// Copied from `setup`, so other programs have it too.
    pub(crate) from_setup: bool,
}

impl Variable {
    pub(crate) fn plain(value: Value) -> Self {
        Variable { value, result: None, from_setup: false }
    }
}

/// A program's variables by name.
pub(crate) type Variables = BTreeMap<String, Variable>;

/// Variables and page size together: what expressions need.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) variables: &'a Variables,
    pub(crate) page_bytes: u64,
}

impl Environment for Scope<'_> {
    fn variable(&self, name: &str) -> Option<Value> {
        self.variables.get(name).map(|variable| variable.value)
    }

    fn page_bytes(&self) -> u64 {
        self.page_bytes
    }
}
