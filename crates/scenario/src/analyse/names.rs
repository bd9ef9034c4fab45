//! Follows names through the programs: what has a value where, and what is published and awaited.
//!
//! Done for each architecture by itself, because `when` gives each its own programs. A problem that
//! all of them have is reported once; one that only some have says which.

use std::collections::{BTreeMap, BTreeSet};

use textbed_arch::Arch;

use super::{Problem, ProblemKind, Sort, architectures, problem};
use crate::span::Span;
use crate::syntax::ast::{Arg, Block, Body, Cond, Context, Expr, File, Name, StmtKind};
use crate::{arches, ops, suggest};

pub(super) fn check(file: &File, problems: &mut Vec<Problem>) {
    let arches = architectures(file);
    let mut found: Vec<(Problem, Vec<Arch>)> = Vec::new();
    let mut index: BTreeMap<(Span, String), usize> = BTreeMap::new();
    for arch in &arches {
        for problem in on(file, *arch) {
            let key = (problem.span, problem.kind.to_string());
            let place = *index.entry(key).or_insert_with(|| {
                found.push((problem, Vec::new()));
                found.len() - 1
            });
            if let Some((_, on)) = found.get_mut(place)
                && !on.contains(arch)
            {
                on.push(*arch);
            }
        }
    }
    problems.extend(found.into_iter().map(|(problem, on)| {
        let everywhere = on.len() == arches.len();
        Problem { on: if everywhere { Vec::new() } else { on }, ..problem }
    }));
}

/// How sure it is that a name has a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sure {
    Perhaps,
    Certainly,
}

type Values = BTreeMap<String, Sure>;

/// A place where a name is published.
struct Publisher {
    program: usize,
    span: Span,
    /// The branches of `if`s that it is in: the `if`'s place, and whether it is the `else`.
    branches: Vec<(usize, bool)>,
}

type Publishers = BTreeMap<String, Vec<Publisher>>;

fn on(file: &File, arch: Arch) -> Vec<Problem> {
    let mut problems = Vec::new();
    let publishers = publishers(file, arch, &mut problems);
    let flow = Flow { arch, publishers: &publishers, program: 0, in_handler: false };
    let mut setup = State::default();
    for (program, block) in file.blocks.iter().enumerate() {
        if let Block::Setup(body) = &block.value {
            Flow { program, ..flow }.body(body, &mut setup, &mut problems);
        }
    }
    for (program, block) in file.blocks.iter().enumerate() {
        let mut state = setup.clone();
        match &block.value {
            Block::Cpu { body, .. } => {
                Flow { program, ..flow }.body(body, &mut state, &mut problems);
            }
            Block::Handler { body, .. } => {
                // An IPI orders what its sender did before it, so a handler sees what is published.
                let published = publishers.keys().map(|name| (name.clone(), Sure::Certainly));
                state.values.extend(published);
                let flow = Flow { program, in_handler: true, ..flow };
                flow.body(body, &mut state, &mut problems);
            }
            Block::Setup(_) | Block::Expect(_) => {}
        }
    }
    problems
}

fn taken(names: &[Name], arch: Arch) -> bool {
    names.iter().any(|name| arches::resolve(&name.value).is_some_and(|m| m.contains(&arch)))
}

fn publishers(file: &File, arch: Arch, problems: &mut Vec<Problem>) -> Publishers {
    let mut all = Publishers::new();
    for (program, block) in file.blocks.iter().enumerate() {
        let (Block::Setup(body) | Block::Cpu { body, .. } | Block::Handler { body, .. }) =
            &block.value
        else {
            continue;
        };
        let mut collect =
            Collect { arch, program, branches: Vec::new(), repeated: false, all: &mut all };
        collect.body(body, problems);
    }
    all
}

struct Collect<'a> {
    arch: Arch,
    program: usize,
    branches: Vec<(usize, bool)>,
    repeated: bool,
    all: &'a mut Publishers,
}

impl Collect<'_> {
    fn body(&mut self, body: &Body, problems: &mut Vec<Problem>) {
        for stmt in body {
            match &stmt.value.kind {
                StmtKind::Publish { name, .. } => self.publish(name, problems),
                StmtKind::If { then, otherwise, .. } => {
                    for (inner, is_else) in [(Some(then), false), (otherwise.as_ref(), true)] {
                        self.branches.push((stmt.span.start, is_else));
                        inner.into_iter().for_each(|inner| self.body(inner, problems));
                        self.branches.pop();
                    }
                }
                StmtKind::Repeat { count, body, .. } => {
                    let before = self.repeated;
                    self.repeated |= count.value > 1;
                    self.body(body, problems);
                    self.repeated = before;
                }
                StmtKind::When { arches, body } if taken(arches, self.arch) => {
                    self.body(body, problems);
                }
                StmtKind::With { body, .. } => self.body(body, problems),
                _ => {}
            }
        }
    }

    fn publish(&mut self, name: &Name, problems: &mut Vec<Problem>) {
        if self.repeated {
            let kind = ProblemKind::PublishedInRepeat { name: name.value.clone() };
            problems.push(problem(kind, name.span));
        }
        let places = self.all.entry(name.value.clone()).or_default();
        let either = |a: &Publisher| {
            self.branches.iter().any(|(at, is_else)| a.branches.contains(&(*at, !is_else)))
        };
        if let Some(first) = places.iter().find(|place| !either(place)) {
            problems.push(Problem {
                kind: ProblemKind::PublishedTwice { name: name.value.clone() },
                span: name.span,
                related: Some((first.span, "first here")),
                on: Vec::new(),
            });
            return;
        }
        let branches = self.branches.clone();
        places.push(Publisher { program: self.program, span: name.span, branches });
    }
}

/// What is known at one point of a program.
#[derive(Clone, Default)]
struct State {
    values: Values,
    /// What this program (or `setup`) published before.
    published: BTreeSet<String>,
}

impl State {
    fn give(&mut self, name: &str) {
        self.values.insert(name.to_owned(), Sure::Certainly);
    }

    /// The state after one of two ways.
    fn join(&mut self, other: State) {
        let State { values, published } = other;
        let both = |name: &String| values.get(name).copied();
        for (name, sure) in &mut self.values {
            *sure = (*sure).min(both(name).unwrap_or(Sure::Perhaps));
        }
        for name in values.into_keys() {
            self.values.entry(name).or_insert(Sure::Perhaps);
        }
        self.published.retain(|name| published.contains(name));
    }
}

#[derive(Clone, Copy)]
struct Flow<'a> {
    arch: Arch,
    publishers: &'a Publishers,
    program: usize,
    in_handler: bool,
}

impl Flow<'_> {
    fn body(&self, body: &Body, state: &mut State, problems: &mut Vec<Problem>) {
        for stmt in body {
            self.statement(&stmt.value.kind, stmt.span, state, problems);
        }
    }

    fn statement(
        &self,
        kind: &StmtKind,
        span: Span,
        state: &mut State,
        problems: &mut Vec<Problem>,
    ) {
        match kind {
            StmtKind::Call { assign, call, .. } => {
                self.args(&call.args, state, problems);
                if let Some(name) = assign {
                    state.give(&name.value);
                }
            }
            StmtKind::Op { op, args } => {
                self.op(op, problems);
                self.args(args, state, problems);
            }
            StmtKind::Publish { name, value } => {
                self.expr(value, state, problems);
                state.give(&name.value);
                state.published.insert(name.value.clone());
            }
            StmtKind::Await(name) => {
                self.wait(name, span, state, problems);
                state.give(&name.value);
            }
            StmtKind::Assert(cond) => self.cond(cond, state, problems),
            StmtKind::If { cond, then, otherwise } => {
                self.cond(cond, state, problems);
                let mut other = state.clone();
                self.body(then, state, problems);
                if let Some(body) = otherwise {
                    self.body(body, &mut other, problems);
                }
                state.join(other);
            }
            StmtKind::Repeat { count, var, body } => {
                let mut inside = state.clone();
                if let Some(var) = var {
                    inside.give(&var.value);
                }
                self.body(body, &mut inside, problems);
                if let Some(var) = var {
                    // The counter ends with the loop; what it hid comes back.
                    inside.values.remove(&var.value);
                    if let Some(sure) = state.values.get(&var.value) {
                        inside.values.insert(var.value.clone(), *sure);
                    }
                }
                if count.value == 0 { state.join(inside) } else { *state = inside }
            }
            StmtKind::When { arches, body } => {
                if taken(arches, self.arch) {
                    self.body(body, state, problems);
                }
            }
            StmtKind::With { context, body } => {
                if let Context::Patch { addr, len } = &context.value {
                    self.expr(addr, state, problems);
                    self.expr(len, state, problems);
                }
                self.body(body, state, problems);
            }
            StmtKind::Ipi { .. } => {}
        }
    }

    /// An instruction has to be one of the architecture.
    fn op(&self, op: &Name, problems: &mut Vec<Problem>) {
        let name = op.value.clone();
        if ops::resolve(self.arch, &name).is_none() {
            let kind = match ops::elsewhere(&name).as_slice() {
                [] => {
                    let nearest = ops::suggest(self.arch, &name);
                    ProblemKind::Unknown { sort: Sort::Op, name, nearest }
                }
                others => {
                    let others: Vec<&str> = others.iter().map(|arch| arch.name()).collect();
                    ProblemKind::OpElsewhere { name, others: others.join(", ") }
                }
            };
            problems.push(problem(kind, op.span));
        }
    }

    fn wait(&self, name: &Name, span: Span, state: &State, problems: &mut Vec<Problem>) {
        if self.in_handler {
            problems.push(problem(ProblemKind::AwaitInHandler, span));
            return;
        }
        let text = name.value.clone();
        match self.publishers.get(&name.value) {
            None => {
                let known = self.publishers.keys().map(String::as_str);
                let nearest = suggest::nearest(&name.value, known).map(str::to_owned);
                let kind = ProblemKind::NeverPublished { name: text, nearest };
                problems.push(problem(kind, name.span));
            }
            Some(places) => {
                let own = places.iter().all(|place| place.program == self.program);
                if own && !state.published.contains(&name.value) {
                    problems.push(Problem {
                        kind: ProblemKind::WaitsForItself { name: text },
                        span: name.span,
                        related: places.first().map(|p| (p.span, "published here")),
                        on: Vec::new(),
                    });
                }
            }
        }
    }

    fn args(&self, args: &[Arg], state: &State, problems: &mut Vec<Problem>) {
        for arg in args {
            if let Arg::Expr(expr) = arg {
                self.expr(expr, state, problems);
            }
        }
    }

    fn cond(&self, cond: &Cond, state: &State, problems: &mut Vec<Problem>) {
        self.expr(&cond.left, state, problems);
        self.expr(&cond.right, state, problems);
    }

    fn expr(&self, expr: &Expr, state: &State, problems: &mut Vec<Problem>) {
        for (name, span) in expr.names() {
            let text = name.to_owned();
            match (state.values.get(name), self.publishers.get(name)) {
                (Some(Sure::Certainly), _) => {}
                (Some(Sure::Perhaps), _) => {
                    problems.push(problem(ProblemKind::MaybeUndefined { name: text }, span));
                }
                (None, Some(places)) if places.iter().any(|p| p.program != self.program) => {
                    problems.push(Problem {
                        kind: ProblemKind::NotAwaited { name: text },
                        span,
                        related: places.first().map(|p| (p.span, "published here")),
                        on: Vec::new(),
                    });
                }
                (None, _) => {
                    let known = state.values.keys().chain(self.publishers.keys());
                    let nearest = suggest::nearest(name, known.map(String::as_str));
                    let nearest = nearest.filter(|n| *n != name).map(str::to_owned);
                    problems.push(problem(ProblemKind::Undefined { name: text, nearest }, span));
                }
            }
        }
    }
}
