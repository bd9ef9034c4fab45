//! Calls that other CPUs may run between: a call whose work has several phases is carried out step
//! by step, and whoever runs the CPUs decides who goes on.
//!
//! Modelled: a body may leave steps behind instead of a value ([`Stop::Later`]); each step is
//! atomic and says whether others may run now, or what it waits for. Calls inside such a call nest.
//! A call that is not made of steps runs whole; where it meets a lock that a call under way on
//! another CPU holds, that one goes on until it releases it, as while somebody spins or sleeps.
//! Not modelled: preemption inside a step, and more than one call under way on a CPU (other than
//! nested ones).

use std::collections::VecDeque;
use std::fmt;

use textbed_arch::CpuId;
use textbed_event::{CallRef, Origin};
use textbed_machine::Stays;

use crate::call::{Arg, Args, check_args};
use crate::calls::{CallSpec, find_call};
use crate::error::{CallError, Stop};
use crate::hotplug::shares;
use crate::kernel::{CallValue, Kernel};
use crate::steps::{Step, Turn};

/// Locks inside calls whose holder is not preempted.
const SPIN_LOCKS: &[&str] = &["cpa_lock", "patch_lock"];

/// What a call waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wait {
    /// A lock that another CPU holds, or that others share.
    Lock(String),
    /// A lock that several share, and that another CPU has alone or waits to have.
    SharedLock(String),
    /// The end of the call that is under way on a CPU.
    CallOf(CpuId),
    /// Other CPUs whose interrupts are off.
    Cpus(Vec<CpuId>),
    /// Somebody whom a grace period waits for.
    Stays(Stays),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Lock(name) | Wait::SharedLock(name) => f.write_str(name),
            Wait::CallOf(cpu) => write!(f, "the call that is under way on {cpu}"),
            Wait::Stays(Stays::Task(cpu, _)) => write!(f, "a task that was preempted on {cpu}"),
            Wait::Stays(Stays::Reads(cpu, _)) => write!(f, "the reader on {cpu}"),
            Wait::Cpus(cpus) => {
                let names: Vec<String> = cpus.iter().map(ToString::to_string).collect();
                write!(f, "{}, with interrupts off there", names.join(", "))
            }
        }
    }
}

/// How far a call got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// It returned.
    Done(CallValue),
    /// It is under way; other CPUs may run before [`Kernel::resume`].
    More,
    /// It cannot go on before this is over. Where nothing of it was done yet (a lock at its
    /// beginning, CPUs that it may interrupt) it has to be begun again; else it is resumed.
    Waits(Wait),
}

/// A call under way.
pub(crate) struct UnderWay {
    pub(crate) spec: &'static CallSpec,
    pub(crate) args: Args,
    pub(crate) call: CallRef,
    /// Where it stands in the source.
    pub(crate) origin: Option<Origin>,
    /// It keeps CPUs where they are until its end.
    pub(crate) keeps_cpus: bool,
    /// The injected failure that its next allocation meets.
    pub(crate) armed: Option<usize>,
    pub(crate) steps: VecDeque<Step>,
    pub(crate) value: i64,
}

impl Kernel {
    /// Begins a call on a CPU. What is not made of phases is done at once.
    ///
    /// # Errors
    /// As [`Kernel::call`].
    pub fn begin(&mut self, cpu: CpuId, name: &str, args: &[Arg]) -> Result<Progress, CallError> {
        self.start(cpu, name, args, false)
    }

    /// As [`Kernel::begin`], but without waiting first for CPUs that take no interrupts: where
    /// nobody else can run, this shows whether the call has to wait for them.
    ///
    /// # Errors
    /// As [`Kernel::call`]; `Waits` where it has to, and so for ever.
    pub fn begin_anyway(
        &mut self,
        cpu: CpuId,
        name: &str,
        args: &[Arg],
    ) -> Result<Progress, CallError> {
        self.start(cpu, name, args, true)
    }

    fn start(
        &mut self,
        cpu: CpuId,
        name: &str,
        args: &[Arg],
        anyway: bool,
    ) -> Result<Progress, CallError> {
        let spec = find_call(name, self.version, self.arch)?;
        self.check_cpu(cpu, spec)?;
        let checked = check_args(spec, self.arch, args)?;
        if self.is_under_way(cpu) {
            let what = format!("a call on {cpu} while another is under way there");
            return Err(CallError::NotModelled { call: spec.name.to_owned(), what });
        }
        if let Some(wait) = self.locked_out(cpu, spec) {
            return Ok(Progress::Waits(wait));
        }
        if let Some(wait) = self.held_back(cpu, spec).filter(|_| !anyway) {
            return Ok(Progress::Waits(wait));
        }
        match self.open_first(cpu, spec, &checked)? {
            Some(value) => Ok(Progress::Done(value)),
            None => self.resume(cpu),
        }
    }

    /// The lock that a call takes at its beginning and cannot have.
    pub(crate) fn locked_out(&self, cpu: CpuId, spec: &CallSpec) -> Option<Wait> {
        let held = spec.takes.iter().find(|lock| self.lock_waits(cpu, lock, false));
        let lock = held.map(|lock| Wait::Lock((*lock).to_owned()));
        let shares = shares(spec.name, self.arch).is_some();
        lock.or_else(|| self.share_waits(cpu).filter(|_| shares))
    }

    /// Goes on with the call that is under way on a CPU.
    ///
    /// # Errors
    /// As [`Kernel::call`]; nothing under way counts as not modelled.
    pub fn resume(&mut self, cpu: CpuId) -> Result<Progress, CallError> {
        if let Some(ended) = self.ended.remove(&cpu) {
            return ended.map(Progress::Done);
        }
        let done = self.advance(cpu, 0);
        if done.is_err() {
            self.under_way.remove(&cpu);
        }
        done
    }

    /// Whether a CPU has a call under way.
    #[must_use]
    pub fn is_under_way(&self, cpu: CpuId) -> bool {
        self.under_way.get(&cpu).is_some_and(|calls| !calls.is_empty())
            || self.ended.contains_key(&cpu)
    }

    /// Whether a CPU stands still in `stop_machine`, so that its program cannot go on.
    #[must_use]
    pub fn is_held(&self, cpu: CpuId) -> bool {
        self.held.has(cpu)
    }

    /// Whether a CPU is where no interrupt and no other task gets in: inside a call that has
    /// interrupts off or a spin lock.
    #[must_use]
    pub fn is_shut(&self, cpu: CpuId) -> bool {
        let spins = || SPIN_LOCKS.iter().any(|lock| self.machine.lock_holder(lock) == Some(cpu));
        self.is_under_way(cpu) && (!self.machine.irqs_on(cpu) || spins())
    }

    /// As [`Kernel::wait_out`], for a step that waits; `false` if no call under way
    /// elsewhere holds the lock.
    fn holder_goes_on(&mut self, cpu: CpuId, lock: &str) -> Result<bool, CallError> {
        let by = self.machine.lock_holder(lock).filter(|by| *by != cpu && self.is_under_way(*by));
        let Some(by) = by else { return Ok(false) };
        let call = self.under_way.get(&cpu).and_then(|c| c.last()).map_or("call", |u| u.spec.name);
        self.wait_out(lock, by).map(|()| true).map_err(|stop| stop.of(call))
    }

    /// Gets a lock free that a call under way on another CPU holds, for a call in one piece: the
    /// other one goes on until it releases it.
    pub(crate) fn wait_out(&mut self, name: &str, by: CpuId) -> Result<(), Stop> {
        let stuck = || Stop::not_modelled(format!("waiting for {name}, held by {by}"));
        if self.waited_for.contains(&by) {
            return Err(stuck());
        }
        self.waited_for.push(by);
        // What the call that waits has in hand.
        let nested = self.nested.take();
        let beginning = self.beginning.take();
        let noted = std::mem::take(&mut self.noted);
        let place = self.machine.recorder().origin();
        let theirs = self.under_way.get(&by).and_then(|c| c.first()).and_then(|u| u.origin);
        self.machine.recorder().set_origin(theirs);
        let mut stop = (self.machine.lock_holder(name) != Some(by)).then(stuck);
        while self.machine.lock_holder(name) == Some(by) && stop.is_none() {
            let can = !self.running.iter().any(|(cpu, _)| *cpu == by) && !self.is_held(by);
            if !can || self.ended.contains_key(&by) || !self.is_under_way(by) {
                stop = Some(stuck());
                break;
            }
            match self.advance(by, 0) {
                Ok(Progress::More) => {}
                Ok(Progress::Done(value)) => {
                    self.ended.insert(by, Ok(value));
                }
                // Its holder goes on first, if that is a call under way, too.
                Ok(Progress::Waits(Wait::Lock(lock))) => {
                    let holder = self.machine.lock_holder(&lock);
                    let third = holder.filter(|third| *third != by && self.is_under_way(*third));
                    stop = match third {
                        Some(third) => self.wait_out(&lock, third).err(),
                        None => Some(Stop::Waits(Wait::Lock(lock))),
                    };
                }
                Ok(Progress::Waits(wait)) => stop = Some(Stop::Waits(wait)),
                Err(error) => {
                    self.under_way.remove(&by);
                    self.ended.insert(by, Err(error));
                }
            }
        }
        self.waited_for.pop();
        self.nested = nested;
        self.beginning = beginning;
        self.noted = noted;
        self.machine.recorder().set_origin(place);
        stop.map_or(Ok(()), Err)
    }

    /// Runs the calls of a CPU above `floor` to their end without letting anybody in between.
    pub(crate) fn run_whole(&mut self, cpu: CpuId, floor: usize) -> Result<CallValue, CallError> {
        loop {
            match self.advance(cpu, floor)? {
                Progress::Done(value) => return Ok(value),
                Progress::More => {}
                Progress::Waits(Wait::Lock(lock)) if self.holder_goes_on(cpu, &lock)? => {}
                Progress::Waits(wait) => {
                    let name = self.under_way.get(&cpu).and_then(|c| c.last());
                    let call = name.map_or("call", |u| u.spec.name).to_owned();
                    return Err(CallError::Waits { call, wait });
                }
            }
        }
    }

    /// Steps of the innermost call of a CPU, until others may run or the calls above `floor` ended.
    fn advance(&mut self, cpu: CpuId, floor: usize) -> Result<Progress, CallError> {
        loop {
            let Some(mut top) = self.under_way.get_mut(&cpu).and_then(Vec::pop) else {
                let what = format!("going on on {cpu}, where no call is under way");
                return Err(CallError::NotModelled { call: "resume".to_owned(), what });
            };
            let Some(mut step) = top.steps.pop_front() else {
                let value = self.close(cpu, &top)?;
                let depth = self.under_way.get(&cpu).map_or(0, Vec::len);
                if depth <= floor {
                    return Ok(Progress::Done(value));
                }
                self.nested = Some(value);
                continue;
            };
            let name = top.spec.name;
            let outer = std::mem::replace(&mut self.armed, top.armed);
            let staged = std::mem::take(&mut self.staged);
            let value = self.value.replace(top.value);
            let depth = self.under_way.get(&cpu).map_or(0, Vec::len);
            self.running.push((cpu, top.spec));
            let turn = step(self, cpu);
            self.running.pop();
            top.armed = std::mem::replace(&mut self.armed, outer);
            let mut more = std::mem::replace(&mut self.staged, staged);
            top.value = std::mem::replace(&mut self.value, value).unwrap_or(0);
            let turn = turn.map_err(|stop| self.error(stop, name))?;
            let waits = match turn {
                Turn::Wait(wait) => {
                    more.push_back(step);
                    Some(Progress::Waits(wait))
                }
                Turn::Others => Some(Progress::More),
                Turn::Next => None,
            };
            more.append(&mut top.steps);
            top.steps = more;
            // Calls that the step began lie above this one.
            self.under_way.entry(cpu).or_default().insert(depth, top);
            if let Some(progress) = waits {
                return Ok(progress);
            }
        }
    }

    /// Leaves steps behind for the call whose body or step runs now.
    pub(crate) fn later(&mut self, steps: impl IntoIterator<Item = Step>) {
        self.staged.extend(steps);
    }

    /// Runs a step and what it leaves behind, letting nobody in between: while booting, and inside
    /// of another step. It must not have to wait.
    pub(crate) fn at_once(&mut self, cpu: CpuId, first: Step) -> Result<(), Stop> {
        let outer = std::mem::take(&mut self.staged);
        let mut steps = VecDeque::from([first]);
        while let Some(mut step) = steps.pop_front() {
            if let Turn::Wait(wait) = step(self, cpu)? {
                return Err(Stop::Waits(wait));
            }
            let mut more = std::mem::take(&mut self.staged);
            more.append(&mut steps);
            steps = more;
        }
        self.staged = outer;
        Ok(())
    }

    /// Ends a body whose steps were left behind; the call returns `value` unless a step says else.
    pub(crate) fn with_steps(&mut self, steps: Vec<Step>) -> Result<i64, Stop> {
        self.later(steps);
        Err(Stop::Later)
    }

    /// Sets what the call of the step that runs now returns.
    pub(crate) fn returns(&mut self, value: i64) {
        self.value = Some(value);
    }

    /// Receivers of a flush by interrupts that do not take them now.
    pub(crate) fn flush_waits(&self, cpu: CpuId) -> Option<Wait> {
        if self.flushes_by_interrupt() { self.receivers_off(cpu) } else { None }
    }

    /// Receivers of a cross-call that do not take interrupts now.
    pub(crate) fn receivers_off(&self, cpu: CpuId) -> Option<Wait> {
        let others = self.online().filter(|c| *c != cpu);
        let off: Vec<CpuId> = others.filter(|c| !self.machine.irqs_on(*c)).collect();
        (!off.is_empty()).then_some(Wait::Cpus(off))
    }
}
