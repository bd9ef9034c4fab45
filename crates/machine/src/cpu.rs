//! Something that executes code on a machine, and a call of a function on it.
//!
//! Modelled: one step at a time, until the called function returns. Not modelled: snapshots.

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
    /// It waits for an interrupt, and none is there: the instruction at this address halted it.
    /// Nothing happens until one is sent, however often it is stepped.
    Waits {
        /// Its address.
        virt: VirtAddr,
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
