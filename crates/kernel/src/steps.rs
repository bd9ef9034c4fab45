//! What calls are made of: steps, and how they are put together.
//!
//! Modelled: each step is atomic and says whether others may run behind it, or what it waits for; a
//! step may make a call, whose own steps come before the next one, and may leave further steps
//! behind ([`Kernel::later`]). How they are carried out is [`crate::phases`]. Not modelled:
//! preemption inside a step.

use std::collections::VecDeque;

use textbed_arch::CpuId;

use crate::call::Args;
use crate::calls::find_call;
use crate::error::{CallError, Stop};
use crate::kernel::Kernel;
use crate::phases::Wait;

/// What a step says.
pub(crate) enum Turn {
    /// The next step follows at once.
    Next,
    /// Others may run first.
    Others,
    /// The step did nothing and has to be tried again.
    Wait(Wait),
}

/// A step of a call.
pub(crate) type Step = Box<dyn FnMut(&mut Kernel, CpuId) -> Result<Turn, Stop>>;

/// A step that runs once and lets the next follow at once.
pub(crate) fn step(mut run: impl FnMut(&mut Kernel, CpuId) -> Result<(), Stop> + 'static) -> Step {
    Box::new(move |k, cpu| run(k, cpu).map(|()| Turn::Next))
}

/// A step behind which others may run.
pub(crate) fn step_then_others(
    mut run: impl FnMut(&mut Kernel, CpuId) -> Result<(), Stop> + 'static,
) -> Step {
    Box::new(move |k, cpu| run(k, cpu).map(|()| Turn::Others))
}

/// A step with parts that it gives away; it never waits.
pub(crate) fn once(run: impl FnOnce(&mut Kernel, CpuId) -> Result<(), Stop> + 'static) -> Step {
    let mut run = Some(run);
    Box::new(move |k, cpu| match run.take() {
        Some(run) => run(k, cpu).map(|()| Turn::Next),
        None => Ok(Turn::Next),
    })
}

/// A step that does nothing: others may run here.
pub(crate) fn pause() -> Step {
    Box::new(|_, _| Ok(Turn::Others))
}

/// A flush of kernel translations, behind which others may run; where it interrupts CPUs, it begins
/// when all of them take that.
pub(crate) fn flush_step(
    mut run: impl FnMut(&mut Kernel, CpuId) -> Result<(), Stop> + 'static,
) -> Step {
    Box::new(move |k, cpu| match k.flush_waits(cpu) {
        Some(wait) => Ok(Turn::Wait(wait)),
        None => run(k, cpu).map(|()| Turn::Others),
    })
}

/// A step that waits for whom the flush in the next one interrupts.
pub(crate) fn flush_listen_step() -> Step {
    Box::new(|k, cpu| Ok(k.flush_waits(cpu).map_or(Turn::Next, Turn::Wait)))
}

/// Steps by which a spin lock is taken with interrupts off (`raw_spin_lock_irqsave`): they are off
/// while it spins, too.
pub(crate) fn lock_irqsave_steps(name: &'static str) -> Vec<Step> {
    vec![
        step(|k, cpu| {
            k.machine.set_irqs(cpu, false);
            Ok(())
        }),
        lock_step(name),
    ]
}

/// A step that waits for a lock and takes it.
pub(crate) fn lock_step(name: &'static str) -> Step {
    Box::new(move |k, cpu| {
        if k.lock_waits(cpu, name, false) {
            return Ok(Turn::Wait(Wait::Lock(name.to_owned())));
        }
        k.lock(cpu, name).map(|()| Turn::Next)
    })
}

/// A step that releases a lock.
pub(crate) fn unlock_step(name: &'static str) -> Step {
    step(move |k, cpu| k.unlock(cpu, name))
}

/// A step that makes a call, whose own steps follow before the next one. As one that nobody else
/// makes, it begins when it can have its locks, and those listen whom it interrupts in one piece.
pub(crate) fn call_step(name: &'static str, args: Args) -> Step {
    Box::new(move |k, cpu| {
        let spec = find_call(name, k.version, k.arch).map_err(inner)?;
        match k.locked_out(cpu, spec).or_else(|| k.held_back(cpu, spec)) {
            Some(wait) => Ok(Turn::Wait(wait)),
            None => k.step_call(cpu, name, &args).map(|()| Turn::Next),
        }
    })
}

/// What follows a value that earlier steps worked out; it runs in a step.
pub(crate) type Then<T> = Box<dyn FnOnce(&mut Kernel, CpuId, T) -> Result<(), Stop>>;

/// Steps that make a call, look at what it returned, and go on with that.
pub(crate) fn call_then(
    name: &'static str,
    args: Args,
    then: impl FnOnce(&mut Kernel, CpuId, i64) -> Result<(), Stop> + 'static,
) -> [Step; 2] {
    let look = once(move |k, cpu| {
        let value = k.nested_result(cpu).unwrap_or(0);
        then(k, cpu, value)
    });
    [call_step(name, args), look]
}

/// What becomes of the result of a call that another one makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It returns nothing.
    Void,
    /// An error ends what the caller does.
    Checked,
    /// Nobody looks at it.
    Dropped,
}

/// A call that another one makes.
pub(crate) type Made = (&'static str, Args, Fate);

/// Steps that make one call after the other, others let in between; the first checked error ends
/// it. `then` gets that error, or 0.
pub(crate) fn calls_then(calls: Vec<Made>, then: Then<i64>) -> Step {
    let mut calls = VecDeque::from(calls);
    once(move |k, cpu| {
        let Some((name, args, result)) = calls.pop_front() else { return then(k, cpu, 0) };
        let rest = once(move |k, cpu| {
            let value = match result {
                Fate::Checked => k.nested_result(cpu).unwrap_or(0),
                Fate::Dropped => {
                    if let Some(value) = k.nested.take() {
                        k.dropped(cpu, value);
                    }
                    0
                }
                Fate::Void => 0,
            };
            if value != 0 {
                return then(k, cpu, value);
            }
            k.later((!calls.is_empty()).then(pause));
            k.later([calls_then(calls.into(), then)]);
            Ok(())
        });
        k.later([call_step(name, args), rest]);
        Ok(())
    })
}

/// The same with nothing behind them.
pub(crate) fn calls_step(calls: Vec<Made>) -> Step {
    calls_then(calls, Box::new(|_, _, _| Ok(())))
}

/// A step that begins when all other CPUs take interrupts, and behind which others may run.
pub(crate) fn cross_step(
    mut run: impl FnMut(&mut Kernel, CpuId) -> Result<(), Stop> + 'static,
) -> Step {
    Box::new(move |k, cpu| match k.receivers_off(cpu) {
        Some(wait) => Ok(Turn::Wait(wait)),
        None => run(k, cpu).map(|()| Turn::Others),
    })
}

fn inner(error: CallError) -> Stop {
    Stop::Inner(Box::new(error))
}

impl Kernel {
    /// A call made by a step: its own steps come before the next one of the caller.
    pub(crate) fn step_call(&mut self, cpu: CpuId, name: &str, args: &Args) -> Result<(), Stop> {
        let spec = find_call(name, self.version, self.arch).map_err(inner)?;
        self.nested = self.open(cpu, spec, args).map_err(inner)?;
        Ok(())
    }

    /// What the call of the step before this one returned; it counts as looked at.
    pub(crate) fn nested_result(&mut self, cpu: CpuId) -> Option<i64> {
        let value = self.nested.take()?;
        Some(self.used(cpu, value))
    }
}
