//! Something that executes code on a machine, and calls of functions on it: one by itself, or one
//! on each of several CPUs by turns.
//!
//! Modelled: one step at a time, until the called function returns.

use textbed_arch::effect::Wake;
use textbed_arch::{CpuId, VirtAddr};

use crate::{Fault, Machine, MachineError};

/// A CPU that runs machine code: fetches from the machine's instruction side, loads and stores
/// through its TLB, and lets it carry out maintenance, barriers and the like.
pub trait Cpu {
    /// Which CPU of the machine it is.
    fn id(&self) -> CpuId;

    /// Prepares a call of the function at `entry` with `args` in the calling convention's argument
    /// registers and the stack pointer at `stack` (the highest address, exclusive).
    ///
    /// # Errors
    /// More arguments than registers, or what starting needs is not there.
    fn start(
        &mut self,
        machine: &mut Machine,
        entry: VirtAddr,
        stack: VirtAddr,
        args: &[u64],
    ) -> Result<(), CpuError>;

    /// Executes one instruction.
    ///
    /// # Errors
    /// The engine failed, or met something not modelled; a guest's fault or trap is a [`Step`].
    fn step(&mut self, machine: &mut Machine) -> Result<Step, CpuError>;
}

/// What came of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// An instruction was executed.
    Ran,
    /// The called function returned this.
    Returned(u64),
    /// A fetch, load or store faulted; the instruction did not execute.
    Faulted(Fault),
    /// The instruction raised an exception.
    Trapped {
        /// Its address.
        virt: VirtAddr,
        /// The architecture's number of the exception.
        vector: u16,
        /// Its name.
        name: String,
    },
    /// The architecture leaves open what the instruction at this address does: another CPU changed
    /// it meanwhile, and neither the old one nor the new one is promised. The CPU may do anything
    /// from here on; it stands before the instruction.
    Unpredictable {
        /// Its address.
        virt: VirtAddr,
    },
    /// It waits, by the instruction at this address, for what is not there. Nothing happens until
    /// it comes, however often it is stepped.
    Waits {
        /// Its address.
        virt: VirtAddr,
        /// What it waits for.
        until: Wake,
    },
    /// A limit of the CPU itself was reached.
    Limit,
}

/// Why a CPU cannot go on; never the guest's doing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// Something that the CPU model does not have.
    #[error("not modelled: {0}")]
    NotModelled(String),
    /// Arguments that the calling convention cannot pass in registers.
    #[error("{given} arguments do not fit {most} registers")]
    TooManyArguments {
        /// How many were given.
        given: usize,
        /// How many there can be.
        most: usize,
    },
    /// `step` without `start`, or after the end.
    #[error("the CPU is not running a call")]
    NotStarted,
    /// The engine below failed.
    #[error("execution engine: {0}")]
    Engine(String),
    /// The machine refused.
    #[error(transparent)]
    Machine(#[from] Box<MachineError>),
}

impl From<MachineError> for CpuError {
    fn from(e: MachineError) -> Self {
        Self::Machine(Box::new(e))
    }
}

/// How a call ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallEnd {
    /// The last step: never [`Step::Ran`].
    pub end: Step,
    /// Instructions executed, the last one included where it was.
    pub steps: u64,
}

/// Runs a call to its end, or for `max_steps` instructions: then it ends with [`Step::Limit`].
///
/// # Errors
/// See [`CpuError`].
pub fn call(
    cpu: &mut dyn Cpu,
    machine: &mut Machine,
    entry: VirtAddr,
    stack: VirtAddr,
    args: &[u64],
    max_steps: u64,
) -> Result<CallEnd, CpuError> {
    cpu.start(machine, entry, stack, args)?;
    for steps in 1..=max_steps {
        match cpu.step(machine)? {
            Step::Ran => {}
            end => return Ok(CallEnd { end, steps }),
        }
    }
    Ok(CallEnd { end: Step::Limit, steps: max_steps })
}

/// Runs calls that were started on several CPUs, one instruction at a time, until all have ended.
/// Whose turn it is `turn` says: by a place in the list that it is given, of those that go on
/// (their places among `cpus`). A CPU that waits leaves the turn to the others. If all that are
/// left wait, and no store that was still to be performed wakes one, nothing will: they end as
/// waiting ([`Step::Waits`]). After `max_steps` instructions, what goes on ends with
/// [`Step::Limit`].
///
/// # Errors
/// See [`CpuError`].
pub fn together(
    cpus: &mut [&mut dyn Cpu],
    machine: &mut Machine,
    turn: &mut dyn FnMut(&[usize]) -> usize,
    max_steps: u64,
) -> Result<Vec<CallEnd>, CpuError> {
    // How each ended or waits; `Ran` = it goes on.
    let mut ends = vec![CallEnd { end: Step::Ran, steps: 0 }; cpus.len()];
    // What waits has looked since anything came that is waited for.
    let mut looked = vec![false; cpus.len()];
    let mut stirs = machine.stirs();
    let (mut left, mut settled) = (max_steps, false);
    loop {
        let turns = ends.iter().zip(&looked).enumerate().filter(|(_, (e, looked))| match e.end {
            Step::Ran => true,
            Step::Waits { .. } => !**looked,
            _ => false,
        });
        let ready: Vec<usize> = turns.map(|(n, _)| n).collect();
        if ready.is_empty() {
            machine.settle_data();
            let waits = ends.iter().any(|e| matches!(e.end, Step::Waits { .. }));
            if std::mem::replace(&mut settled, true) || !waits {
                return Ok(ends);
            }
            looked.fill(false);
            continue;
        }
        if left == 0 {
            let cut = ends.iter_mut().filter(|e| e.end == Step::Ran);
            cut.for_each(|e| e.end = Step::Limit);
            return Ok(ends);
        }
        let Some(&n) = ready.get(turn(&ready) % ready.len()) else { continue };
        let (Some(cpu), Some(own)) = (cpus.get_mut(n), ends.get_mut(n)) else { continue };
        own.end = cpu.step(machine)?;
        if matches!(own.end, Step::Waits { .. }) {
            looked.iter_mut().skip(n).take(1).for_each(|l| *l = true);
        } else {
            own.steps += 1;
            left -= 1;
            settled = false;
        }
        if std::mem::replace(&mut stirs, machine.stirs()) != machine.stirs() {
            looked.fill(false);
        }
    }
}
