//! What programs and interrupt handlers alike do to the machine, without a kernel.

use textbed_arch::CpuId;
use textbed_event::{NameId, Origin};
use textbed_machine::Machine;

use super::stops::op_stopped;
use crate::ops;
use crate::run::arguments::plain;
use crate::run::preflight::{arg_span, diagnostic};
use crate::run::world::{Bare, Stop};
use crate::span::{LineIndex, Span};
use crate::syntax::ast::{Arg, Name};
use crate::value::{Environment, Value};

/// Turns places into origins.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) file: NameId,
    pub(super) text: &'a str,
    pub(super) lines: &'a LineIndex,
}

impl Places<'_> {
    fn origin(&self, place: Span) -> Origin {
        Origin {
            file: self.file,
            line: u32::try_from(self.lines.position(self.text, place.start).line)
                .unwrap_or(u32::MAX),
            offset: u64::try_from(place.start).unwrap_or(u64::MAX),
            len: u32::try_from(place.end.saturating_sub(place.start)).unwrap_or(u32::MAX),
        }
    }
}

/// What an interrupt handler can reach: the machine alone.
pub(super) struct OnMachine<'m, 'a> {
    pub(super) machine: &'m mut Machine,
    pub(super) places: Places<'a>,
}

impl Bare for OnMachine<'_, '_> {
    fn at(&mut self, place: Span) {
        let origin = self.places.origin(place);
        self.machine.recorder().set_origin(Some(origin));
    }

    fn op(
        &mut self,
        cpu: CpuId,
        op: &Name,
        args: &[Arg],
        env: &dyn Environment,
    ) -> Result<(), Stop> {
        execute(self.machine, cpu, op, args, env)
    }

    fn publish(&mut self, cpu: CpuId, name: &str, value: Value) -> Result<(), Stop> {
        self.machine.publish(cpu, name, value.bits());
        Ok(())
    }
}

/// Carries out one instruction.
fn execute(
    machine: &mut Machine,
    cpu: CpuId,
    op: &Name,
    args: &[Arg],
    env: &dyn Environment,
) -> Result<(), Stop> {
    let arch = machine.arch();
    let Some(row) = ops::resolve(arch, &op.value) else {
        let message = format!("{arch} has no instruction `{}`", op.value);
        return Err(Stop::Input(diagnostic(message, op.span, "not here", None)));
    };
    let operand = match args {
        [] => 0,
        [one] => plain(one, env, op.span)?,
        [_, second, ..] => {
            let message = "an instruction takes one operand at most here".to_owned();
            let span = arg_span(second).unwrap_or(op.span);
            return Err(Stop::Input(diagnostic(message, span, "one too many", None)));
        }
    };
    machine.op(cpu, row, operand).map_err(|error| op_stopped(error, op))
}
