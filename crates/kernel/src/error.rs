//! Why a kernel could not boot, or a call could not be carried out.
//!
//! An error code that Linux returns is no error here: it is the call's value.

use textbed_arch::{Arch, VirtAddr};
use textbed_machine::{MachineError, MapError, OpError};
use thiserror::Error;

use crate::config::ConfigError;
use crate::phases::Wait;
use crate::suggest::did_you_mean;
use crate::version::Version;

/// Why there is no kernel.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum KernelError {
    /// The model does not have it.
    #[error("not modelled: {what}")]
    NotModelled {
        /// What.
        what: String,
    },
    /// Options for another architecture.
    #[error("the options are for {config}, the kernel for {arch}")]
    ConfigArch {
        /// The options' architecture.
        config: Arch,
        /// The kernel's.
        arch: Arch,
    },
    /// An option.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A step of the boot failed.
    #[error("while booting: {0}")]
    Boot(String),
}

/// Why a call could not be carried out.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum CallError {
    /// No such call in any version that the table knows.
    #[error("unknown call '{name}'{}", did_you_mean(*suggestion))]
    Unknown {
        /// As asked for.
        name: String,
        /// The nearest name.
        suggestion: Option<&'static str>,
    },
    /// The call exists, but not in this version or on this architecture.
    #[error("{call} does not exist on {arch} in {version}: {when}")]
    Absent {
        /// The call.
        call: &'static str,
        /// The architecture asked for.
        arch: Arch,
        /// The version asked for.
        version: Version,
        /// Where it does exist.
        when: String,
    },
    /// Arguments that the call's parameters cannot take.
    #[error("{call}: {param}: {reason}")]
    Arguments {
        /// The call.
        call: &'static str,
        /// The parameter.
        param: String,
        /// What is wrong.
        reason: String,
    },
    /// The model does not say what happens.
    #[error("{call}: not modelled: {what}")]
    NotModelled {
        /// The call.
        call: String,
        /// What is not.
        what: String,
    },
    /// It waits in its middle, where others cannot run in the model.
    #[error("{call}: not modelled: waiting for {wait}, in the middle of the call")]
    Waits {
        /// The call.
        call: String,
        /// For what.
        wait: Wait,
    },
    /// The kernel oopses or stops in a BUG there: the calling task is gone.
    #[error("{call}: the kernel dies: {how} at {virt}")]
    Died {
        /// The call.
        call: String,
        /// How.
        how: String,
        /// At or about which address.
        virt: VirtAddr,
    },
    /// The machine refused what the call did.
    #[error("{call}: {error}")]
    Machine {
        /// The call.
        call: String,
        /// What it said.
        error: Box<MachineError>,
    },
}

/// How a call's body ends early; [`crate::Kernel::call`] adds the call's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Not modelled.
    NotModelled(String),
    /// A wait in the middle of a call.
    Waits(Wait),
    /// Oops or BUG.
    Died {
        /// How.
        how: String,
        /// At or about which address.
        virt: VirtAddr,
    },
    /// The machine.
    Machine(MachineError),
    /// No error: the call goes on by steps (see `phases`).
    Later,
    /// An inner call already said it.
    Inner(Box<CallError>),
}

impl Stop {
    /// Something that the model does not have.
    pub(crate) fn not_modelled(what: impl Into<String>) -> Self {
        Self::NotModelled(what.into())
    }

    /// An oops or BUG.
    pub(crate) fn died(how: impl Into<String>, virt: VirtAddr) -> Self {
        Self::Died { how: how.into(), virt }
    }

    /// As an error of `call`.
    pub(crate) fn of(self, call: &str) -> CallError {
        let call = call.to_owned();
        match self {
            Self::NotModelled(what) => CallError::NotModelled { call, what },
            Self::Waits(wait) => CallError::Waits { call, wait },
            Self::Died { how, virt } => CallError::Died { call, how, virt },
            Self::Machine(error) => CallError::Machine { call, error: Box::new(error) },
            Self::Later => CallError::NotModelled { call, what: "steps inside a step".to_owned() },
            Self::Inner(error) => *error,
        }
    }
}

impl From<MachineError> for Stop {
    /// A fault inside kernel code is an oops.
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Fault(fault) => Self::died(fault.to_string(), fault.virt),
            MachineError::Op(op) => Self::from(*op),
            other => Self::Machine(other),
        }
    }
}

impl From<MapError> for Stop {
    fn from(error: MapError) -> Self {
        Self::Machine(error.into())
    }
}

impl From<OpError> for Stop {
    fn from(error: OpError) -> Self {
        match error {
            OpError::Fault(fault) => Self::died(fault.to_string(), fault.virt),
            other => Self::Machine(other.into()),
        }
    }
}

impl From<textbed_machine::Fault> for Stop {
    fn from(fault: textbed_machine::Fault) -> Self {
        Self::died(fault.to_string(), fault.virt)
    }
}
