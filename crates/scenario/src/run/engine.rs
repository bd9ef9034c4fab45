//! Runs the programs of a scenario against a world, one statement at a time.
//!
//! `setup` runs on CPU 0 before the others. Each CPU's program has variables of its own; those of
//! `setup` are copied into each, and what is published is copied in by `await`. A statement is
//! atomic, but for calls of several phases (text patching): others may run between these. Which CPU
//! goes next is the [`Scheduler`]'s affair. `with stop_machine` holds all others still; a lock that
//! another CPU holds is waited for; an IPI waits until its receivers take interrupts.
//!
//! An interrupt handler runs on the receiver between two statements of its program, sees what
//! `setup` and publications gave names to, and can execute instructions, publish, compute and
//! compare. Not modelled, and said so: calls, `with` and IPIs inside a handler; what a trap handler
//! would do (the guest's program ends at the trap).

use std::borrow::Cow;
use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId};

use super::program::{After, Calling, Frame, Program, State, head, looked_at};
use super::results::Results;
use super::schedule::Scheduler;
use super::world::{Bare, Called, Inside, Returned, Scope, Stop, Variable, Variables, World};
use crate::arches;
use crate::span::{Span, Spanned};
use crate::syntax::ast::{Block, Body, Cond, Context, Expr, File, Name, Stmt, StmtKind, Targets};
use crate::value::{self, Value};

/// Something that a reader of the run wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) text: String,
    pub(crate) place: Span,
    pub(crate) failed_assert: bool,
}

/// How it all ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    Ended,
    Blocked,
    Limit(String),
    NotModelled(String),
    Input(crate::diagnostic::Diagnostic),
}

/// A run in progress.
pub(crate) struct Engine<'a, W> {
    file: &'a File,
    arch: Arch,
    cpus: u16,
    pub(crate) world: W,
    scheduler: Scheduler,
    steps_left: u64,
    programs: Vec<Program<'a>>,
    published: BTreeMap<String, Value>,
    setup_variables: Variables,
    locks: BTreeMap<String, CpuId>,
    /// The program that holds all others still.
    alone: Option<usize>,
    /// The statement that is being run.
    place: Span,
    results: Results,
    pub(crate) notes: Vec<Note>,
}

impl<'a, W: World> Engine<'a, W> {
    /// A run of `file` on `arch` with `cpus` CPUs that may take `steps` statements.
    pub(crate) fn new(
        file: &'a File,
        arch: Arch,
        cpus: u16,
        world: W,
        scheduler: Scheduler,
        steps: u64,
    ) -> Self {
        Engine {
            file,
            arch,
            cpus,
            world,
            scheduler,
            steps_left: steps,
            programs: Vec::new(),
            published: BTreeMap::new(),
            setup_variables: Variables::new(),
            locks: BTreeMap::new(),
            alone: None,
            place: Span::default(),
            results: Results::default(),
            notes: Vec::new(),
        }
    }

    /// Runs everything.
    pub(crate) fn run(&mut self) -> Finish {
        match self.run_all() {
            Ok(finish) => finish,
            Err(Stop::Input(diagnostic)) => Finish::Input(diagnostic),
            Err(Stop::NotModelled(what)) => Finish::NotModelled(what),
            Err(Stop::Limit(what)) => Finish::Limit(what),
            Err(Stop::Hangs(_)) => Finish::Blocked,
            // A death ends one program and is noted there; none gets here.
            Err(Stop::Died(how)) => Finish::NotModelled(how),
        }
    }

    fn run_all(&mut self) -> Result<Finish, Stop> {
        for block in &self.file.blocks {
            if let Block::Setup(body) = &block.value {
                self.programs.push(Program::new(CpuId(0), body, Variables::new()));
            }
        }
        let finish = self.run_programs();
        let complete = self.programs.iter().all(|p| p.state == State::Ended && !p.gave_up);
        let finish = match finish {
            Ok(Finish::Ended) if complete => {
                let setup = self.programs.iter_mut().flat_map(|p| std::mem::take(&mut p.variables));
                self.setup_variables =
                    setup.map(|(name, v)| (name, Variable { from_setup: true, ..v })).collect();
                self.world.setup_ended();
                self.start_programs();
                self.run_programs()
            }
            Ok(Finish::Ended) => {
                let text = "setup did not come to its end, so no CPU's program was started";
                self.note(text, self.setup_place());
                Ok(Finish::Ended)
            }
            other => other,
        };
        self.settle()?;
        finish
    }

    /// The place of `setup`, for notes about it.
    fn setup_place(&self) -> Span {
        let setup = self.file.blocks.iter().find(|b| matches!(b.value, Block::Setup(_)));
        setup.map_or(self.file.name.span, |b| Span::new(b.span.start, b.span.start + 5))
    }

    fn start_programs(&mut self) {
        let mut cpus: Vec<(CpuId, &'a Body)> = Vec::new();
        for block in &self.file.blocks {
            if let Block::Cpu { number, body } = &block.value
                && let Ok(number) = u16::try_from(number.value)
            {
                cpus.push((CpuId(number), body));
            }
        }
        cpus.sort_by_key(|(cpu, _)| *cpu);
        let variables = &self.setup_variables;
        self.programs = cpus
            .into_iter()
            .map(|(cpu, body)| Program::new(cpu, body, variables.clone()))
            .collect();
    }

    fn run_programs(&mut self) -> Result<Finish, Stop> {
        let mut current = None;
        loop {
            let ready = self.ready();
            let next = self.scheduler.next(&ready, current);
            let Some(next) = next.or_else(|| self.held_back()) else { break };
            current = Some(next);
            let more = self.world.between();
            self.collect_notes();
            if !more {
                return Err(Stop::Limit("whoever reads the events asked to stop".to_owned()));
            }
            match self.step(next, ready.is_empty()) {
                Ok(()) => {}
                Err(Stop::Died(how)) => self.died(next, how)?,
                Err(stop) => return Err(stop),
            }
        }
        self.nobody_can_run()
    }

    /// Takes over what the world has to say.
    pub(crate) fn collect_notes(&mut self) {
        self.notes.extend(self.world.take_notes());
    }

    fn note(&mut self, text: impl Into<String>, place: Span) -> usize {
        self.notes.push(Note { text: text.into(), place, failed_assert: false });
        self.notes.len() - 1
    }

    fn program(&mut self, index: usize) -> Result<&mut Program<'a>, Stop> {
        self.programs.get_mut(index).ok_or_else(|| Stop::Limit("no such program".to_owned()))
    }

    fn take_step(&mut self) -> Result<(), Stop> {
        self.steps_left = self
            .steps_left
            .checked_sub(1)
            .ok_or_else(|| Stop::Limit("the limit of statements was reached".to_owned()))?;
        Ok(())
    }

    /// Runs the next statement of a program, or ends its innermost body. `anyway`: begins a call
    /// that was held back, since nobody else can run.
    fn step(&mut self, index: usize, anyway: bool) -> Result<(), Stop> {
        self.take_step()?;
        let program = self.program(index)?;
        program.state = State::Ready;
        if let Some(calling) = program.calling {
            let cpu = program.cpu;
            self.place = calling.place;
            self.world.at(calling.place);
            let called = self.world.resume(cpu);
            return self.called(index, calling, called);
        }
        match program.upcoming() {
            Some(stmt) => self.statement(index, stmt, anyway),
            None => self.end_of_body(index),
        }
    }

    fn end_of_body(&mut self, index: usize) -> Result<(), Stop> {
        let program = self.program(index)?;
        let Some(frame) = program.frames.last_mut() else {
            program.state = State::Ended;
            return Ok(());
        };
        if let After::Repeat { done, count, var, .. } = &mut frame.after {
            *done = done.saturating_add(1);
            if *done < *count {
                frame.next = 0;
                if let Some((name, _)) = var {
                    let counter = Variable::plain(Value::number(*done));
                    program.variables.insert((*name).to_owned(), counter);
                }
                return Ok(());
            }
        }
        self.pop_frame(index)?;
        let program = self.program(index)?;
        if program.frames.is_empty() {
            program.state = State::Ended;
        }
        Ok(())
    }

    /// Leaves the innermost body, undoing what began it.
    fn pop_frame(&mut self, index: usize) -> Result<(), Stop> {
        let program = self.program(index)?;
        let Some(frame) = program.frames.pop() else { return Ok(()) };
        match frame.after {
            After::Nothing => {}
            After::Repeat { var, .. } => {
                if let Some((name, hidden)) = var {
                    match hidden {
                        Some(variable) => program.variables.insert(name.to_owned(), variable),
                        None => program.variables.remove(name),
                    };
                }
            }
            After::Leave(context, place) => self.leave(index, context, place)?,
        }
        Ok(())
    }

    fn statement(
        &mut self,
        index: usize,
        stmt: &'a Spanned<Stmt>,
        anyway: bool,
    ) -> Result<(), Stop> {
        let place = head(stmt);
        self.world.at(place);
        self.place = place;
        let kind = &stmt.value.kind;
        self.look(index, looked_at(kind))?;
        let arch = self.arch;
        let cpu = self.program(index)?.cpu;
        match kind {
            StmtKind::Call { propagate, assign, call } => {
                let (propagate, assign) = (*propagate, assign.as_ref());
                return self.call(index, Calling { propagate, assign, call, place }, anyway);
            }
            StmtKind::Publish { name, value } => {
                let value = self.eval(index, value)?;
                self.publish(cpu, name, value)?;
                self.set(index, &name.value, Variable::plain(value))?;
            }
            StmtKind::Await(name) => match self.published.get(&name.value).copied() {
                Some(value) => {
                    self.world.observe(cpu, &name.value)?;
                    self.set(index, &name.value, Variable::plain(value))?;
                }
                None => {
                    self.program(index)?.state = State::Awaits(&name.value, place);
                    return Ok(());
                }
            },
            StmtKind::Assert(cond) => self.assert(index, cond, place)?,
            StmtKind::If { cond, then, otherwise } => {
                let holds = self.holds(index, cond)?;
                let program = self.program(index)?;
                program.advance();
                let body = if holds { Some(then) } else { otherwise.as_ref() };
                if let Some(body) = body {
                    program.frames.push(Frame { body, next: 0, after: After::Nothing });
                }
                return Ok(());
            }
            StmtKind::Repeat { count, var, body } => {
                let program = self.program(index)?;
                program.advance();
                if count.value > 0 {
                    let var = var.as_ref().map(|name| {
                        let counter = Variable::plain(Value::number(0));
                        (name.value.as_str(), program.variables.insert(name.value.clone(), counter))
                    });
                    let after = After::Repeat { done: 0, count: count.value, var };
                    program.frames.push(Frame { body, next: 0, after });
                }
                return Ok(());
            }
            StmtKind::When { arches, body } => {
                let program = self.program(index)?;
                program.advance();
                if is_for(arches, arch) {
                    program.frames.push(Frame { body, next: 0, after: After::Nothing });
                }
                return Ok(());
            }
            StmtKind::Op { op, args } => {
                let page_bytes = self.world.page_bytes();
                let program = self.programs.get(index);
                let empty = Variables::new();
                let variables = program.map_or(&empty, |p| &p.variables);
                self.world.op(cpu, op, args, &Scope { variables, page_bytes })?;
            }
            StmtKind::With { context, body } => {
                if !self.enter(index, &context.value, place)? {
                    return Ok(());
                }
                let program = self.program(index)?;
                program.advance();
                let after = After::Leave(&context.value, place);
                program.frames.push(Frame { body, next: 0, after });
                return Ok(());
            }
            StmtKind::Ipi { targets, handler } => {
                let targets = self.targets(&targets.value, cpu);
                if self.any_irqs_off(&targets, cpu) {
                    self.program(index)?.state = State::WantsCpus(targets, place);
                    return Ok(());
                }
                self.ipi(cpu, &targets, handler)?;
            }
        }
        self.program(index)?.advance();
        Ok(())
    }

    fn eval(&mut self, index: usize, expr: &Expr) -> Result<Value, Stop> {
        let page_bytes = self.world.page_bytes();
        let variables = &self.program(index)?.variables;
        Ok(value::expr(expr, &Scope { variables, page_bytes })?)
    }

    fn holds(&mut self, index: usize, cond: &Cond) -> Result<bool, Stop> {
        let page_bytes = self.world.page_bytes();
        let variables = &self.program(index)?.variables;
        Ok(value::cond(cond, &Scope { variables, page_bytes })?)
    }

    fn assert(&mut self, index: usize, cond: &Cond, place: Span) -> Result<(), Stop> {
        let page_bytes = self.world.page_bytes();
        let program = self.program(index)?;
        let scope = Scope { variables: &program.variables, page_bytes };
        let text = failed_assert(cond, &scope)?.map(|t| format!("cpu {}: {t}", program.cpu.0));
        if let Some(text) = text {
            self.notes.push(Note { text, place, failed_assert: true });
        }
        Ok(())
    }

    fn publish(&mut self, cpu: CpuId, name: &Name, value: Value) -> Result<(), Stop> {
        if self.published.contains_key(&name.value) {
            return Err(Stop::Input(published_twice(name)));
        }
        self.world.publish(cpu, &name.value, value)?;
        self.published.insert(name.value.clone(), value);
        Ok(())
    }

    /// Gives a variable a value; a result that it held and that nobody can look at any more is
    /// dropped.
    fn set(&mut self, index: usize, name: &str, variable: Variable) -> Result<(), Stop> {
        let old = self.program(index)?.variables.insert(name.to_owned(), variable);
        let old = old.filter(|old| !old.from_setup);
        match old.and_then(|old| old.result) {
            Some(result) => self.drop_result(result),
            None => Ok(()),
        }
    }

    fn call(&mut self, index: usize, calling: Calling<'a>, anyway: bool) -> Result<(), Stop> {
        let page_bytes = self.world.page_bytes();
        let Some(program) = self.programs.get(index) else { return Ok(()) };
        let scope = Scope { variables: &program.variables, page_bytes };
        let called = self.world.call(program.cpu, calling.call, &scope, anyway);
        self.called(index, calling, called)
    }

    /// What becomes of a call that returned, or did not yet.
    fn called(
        &mut self,
        index: usize,
        calling: Calling<'a>,
        called: Result<Called, Stop>,
    ) -> Result<(), Stop> {
        self.collect_notes();
        let program = self.program(index)?;
        let begun = program.calling.take().is_some();
        let called = match called {
            Err(Stop::Hangs(cpus)) => {
                program.state = State::Hangs(cpus, calling.place);
                return Ok(());
            }
            called => called?,
        };
        let returned = match called {
            Called::WantsLock { name, shared, begun: false } => {
                program.state = State::WantsLock(Cow::Owned(name), shared, calling.place);
                return Ok(());
            }
            Called::WantsLock { name, shared, begun: true } => {
                program.state = State::WantsLock(Cow::Owned(name), shared, calling.place);
                None
            }
            Called::WantsCallEnd(cpu) => {
                program.state = State::WantsCallEnd(cpu, calling.place);
                None
            }
            Called::WantsQuiet(stay) => {
                program.state = State::WantsQuiet(stay, calling.place);
                None
            }
            Called::WantsCpus { cpus, begun: false } => {
                program.state = State::HeldBack(cpus, calling.place);
                return Ok(());
            }
            Called::WantsCpus { cpus, begun: true } => {
                program.state = State::WantsCpus(cpus, calling.place);
                None
            }
            Called::More => None,
            Called::Returned(returned) => Some(returned),
        };
        if !begun {
            program.advance();
        }
        match returned {
            Some(returned) => self.call_returned(index, calling, returned),
            None => {
                self.program(index)?.calling = Some(calling);
                Ok(())
            }
        }
    }

    fn call_returned(
        &mut self,
        index: usize,
        calling: Calling<'a>,
        returned: Returned,
    ) -> Result<(), Stop> {
        let Calling { propagate, assign, call, place } = calling;
        let cpu = self.program(index)?.cpu;
        // A value that goes nowhere is nobody's: code that returns nothing leaves one behind.
        let unheard = format!(" {}", returned.value);
        let mut note = returned.note.map(|text| {
            let text = match text.strip_suffix(&unheard) {
                Some(rest) if assign.is_none() => rest,
                _ => &text,
            };
            self.note(format!("cpu {}: {text}", cpu.0), place)
        });
        if returned.failed {
            let text = format!("cpu {}: {call} returned {}", cpu.0, returned.value);
            note = Some(self.note(text, place));
        }
        let result = returned.call.map(|instance| {
            self.results.open(instance, cpu, place, note.filter(|_| returned.failed))
        });
        match (assign, result) {
            (Some(name), result) => {
                let variable = Variable { value: returned.value, result, from_setup: false };
                self.set(index, &name.value, variable)?;
                if let Some(result) = result.filter(|_| propagate) {
                    self.use_result(result)?;
                }
            }
            (None, Some(result)) if propagate => self.use_result(result)?,
            (None, Some(result)) => self.drop_result(result)?,
            (None, None) => {}
        }
        if propagate && returned.failed {
            // What the `with`s around it began ends, as the error paths of kernel code do it.
            while self.program(index)?.frames.len() > 1 {
                self.pop_frame(index)?;
            }
            let program = self.program(index)?;
            program.gave_up = true;
            program.state = State::Ended;
        }
        Ok(())
    }

    /// A program can't go on. What locks it holds it keeps, as a task that dies in the kernel does;
    /// its CPU takes interrupts again (`make_task_dead` in Linux 6.12 kernel/exit.c).
    fn died(&mut self, index: usize, how: String) -> Result<(), Stop> {
        let program = self.program(index)?;
        program.state = State::Died;
        let cpu = self.program(index)?.cpu.0;
        if self.alone == Some(index) {
            self.alone = None;
        }
        self.world.leave(CpuId(cpu), Inside::IrqsOff)?;
        self.note(format!("cpu {cpu}: {how}; its program ends here"), self.place);
        Ok(())
    }
}

/// What to say about an assertion, if it fails.
fn failed_assert(cond: &Cond, scope: &Scope<'_>) -> Result<Option<String>, Stop> {
    if value::cond(cond, scope)? {
        return Ok(None);
    }
    let (left, right) = value::sides(cond, scope)?;
    Ok(Some(format!("assert {cond} failed: {left} on the left, {right} on the right")))
}

fn published_twice(name: &Name) -> crate::diagnostic::Diagnostic {
    let kind = crate::analyse::ProblemKind::PublishedTwice { name: name.value.clone() };
    crate::analyse::Problem { kind, span: name.span, related: None, on: Vec::new() }.diagnostic()
}

/// Whether one of the names stands for `arch`.
pub(crate) fn is_for(names: &[Name], arch: Arch) -> bool {
    names.iter().any(|name| arches::resolve(&name.value).is_some_and(|m| m.contains(&arch)))
}

mod fates;
mod inside;
mod waits;

#[cfg(test)]
mod tests;
