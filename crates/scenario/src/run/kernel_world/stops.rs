//! What errors of the kernel and of the machine mean for the program that met them.

use textbed_kernel::CallError;
use textbed_machine::{MachineError, OpError};

use crate::run::preflight::diagnostic;
use crate::run::world::Stop;
use crate::span::Span;
use crate::syntax::ast::Name;

pub(super) fn op_stopped(error: OpError, op: &Name) -> Stop {
    match error {
        OpError::Fault(fault) => Stop::Died(format!("{}: {fault}", op.value)),
        OpError::NotModelled { .. } | OpError::NoCpu(_) => Stop::NotModelled(error.to_string()),
        other => Stop::Input(diagnostic(other.to_string(), op.span, "here", None)),
    }
}

pub(super) fn call_stopped(error: CallError, span: Span) -> Stop {
    match error {
        CallError::NotModelled { call, what } => Stop::NotModelled(format!("{call}: {what}")),
        CallError::Died { call, how, virt } => {
            let at = virt.to_string();
            let at = if how.contains(&at) { String::new() } else { format!(" at {at}") };
            Stop::Died(format!("{call}: the kernel dies: {how}{at}"))
        }
        CallError::Machine { call, error } => match machine_stopped(*error) {
            Stop::NotModelled(what) => Stop::NotModelled(format!("{call}: {what}")),
            other => other,
        },
        error @ CallError::Waits { .. } => Stop::NotModelled(error.to_string()),
        CallError::Unknown { .. } | CallError::Absent { .. } | CallError::Arguments { .. } => {
            Stop::Input(diagnostic(error.to_string(), span, "here", None))
        }
    }
}

pub(super) fn machine_stopped(error: MachineError) -> Stop {
    match error {
        MachineError::OutOfMemory { .. } => {
            Stop::Limit(format!("the modelled machine's memory is used up: {error}"))
        }
        MachineError::Fault(fault) => Stop::Died(fault.to_string()),
        other => Stop::NotModelled(other.to_string()),
    }
}
