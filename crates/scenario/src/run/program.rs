//! One CPU's program while it runs: where it is, what it has, what it waits for.

use std::borrow::Cow;
use std::collections::BTreeSet;

use textbed_arch::CpuId;
use textbed_machine::Stays;

use super::world::{Variable, Variables};
use crate::span::{Span, Spanned};
use crate::syntax::ast::{Arg, Body, Call, Context, Name, Stmt, StmtKind};

/// A program.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) cpu: CpuId,
    pub(crate) frames: Vec<Frame<'a>>,
    pub(crate) variables: Variables,
    pub(crate) state: State<'a>,
    /// A `try` ended it.
    pub(crate) gave_up: bool,
    /// How many `with irqs_off` and `with stop_machine` it is in.
    pub(crate) irqs_off: u32,
    /// The call that is under way.
    pub(crate) calling: Option<Calling<'a>>,
    /// Names that some `if`, `assert` or `try` of it reads, wherever that stands.
    pub(crate) looks_at: BTreeSet<&'a str>,
}

/// What a program is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State<'a> {
    /// It can run.
    Ready,
    /// It waits for a name to be published, at this place.
    Awaits(&'a str, Span),
    /// It waits for a lock, for itself or (true) together with others.
    WantsLock(Cow<'a, str>, bool, Span),
    /// Its call, begun at this place, waits for the end of the call under way on that CPU.
    WantsCallEnd(CpuId, Span),
    /// The grace period of its call, begun at this place, waits for somebody.
    WantsQuiet(Stays, Span),
    /// It waits until these CPUs take interrupts again.
    WantsCpus(Vec<CpuId>, Span),
    /// The call at this place may have to wait for these CPUs, and was not begun.
    HeldBack(Vec<CpuId>, Span),
    /// It waits for these CPUs in the middle of the call at this place, and for ever.
    Hangs(Vec<CpuId>, Span),
    /// It came to its end, or a `try` ended it.
    Ended,
    /// It could not go on.
    Died,
}

/// A call under way, and what is to become of its result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calling<'a> {
    pub(crate) propagate: bool,
    pub(crate) assign: Option<&'a Name>,
    pub(crate) call: &'a Call,
    pub(crate) place: Span,
}

/// A body that is being run.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) body: &'a Body,
    pub(crate) next: usize,
    pub(crate) after: After<'a>,
}

/// What is to be done at the end of a body.
#[derive(Debug)]
pub(crate) enum After<'a> {
    /// Nothing.
    Nothing,
    /// Run it again until it ran `count` times.
    Repeat {
        done: u64,
        count: u64,
        /// The counter, and the variable that it hides.
        var: Option<(&'a str, Option<Variable>)>,
    },
    /// End what a `with` began.
    Leave(&'a Context, Span),
}

impl<'a> Program<'a> {
    pub(crate) fn new(cpu: CpuId, body: &'a Body, variables: Variables) -> Self {
        let mut looks_at = BTreeSet::new();
        collect_looks(body, &mut looks_at);
        Program {
            cpu,
            frames: vec![Frame { body, next: 0, after: After::Nothing }],
            variables,
            state: State::Ready,
            gave_up: false,
            irqs_off: 0,
            calling: None,
            looks_at,
        }
    }

    /// The statement that comes next in the innermost body; `None` at that body's end.
    pub(crate) fn upcoming(&self) -> Option<&'a Spanned<Stmt>> {
        let frame = self.frames.last()?;
        frame.body.get(frame.next)
    }

    /// Goes past the statement that comes next.
    pub(crate) fn advance(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.next = frame.next.saturating_add(1);
        }
    }

    /// Whether it has nothing left to do.
    pub(crate) fn is_through(&self) -> bool {
        self.is_over()
            || (self.frames.len() < 2 && self.upcoming().is_none() && self.calling.is_none())
    }

    /// Where it stands.
    pub(crate) fn place(&self) -> Span {
        let upcoming = || self.upcoming().map(head);
        self.calling.map(|calling| calling.place).or_else(upcoming).unwrap_or_default()
    }

    /// Whether it will never run again.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Died)
    }
}

/// The part of a statement that events are said to come from: all of it, or what stands before its
/// first brace.
pub(crate) fn head(stmt: &Spanned<Stmt>) -> Span {
    let end = match &stmt.value.kind {
        StmtKind::If { cond, .. } => cond.span().end,
        StmtKind::Repeat { count, var, .. } => var.as_ref().map_or(count.span, |v| v.span).end,
        StmtKind::When { arches, .. } => arches.last().map_or(stmt.span, |a| a.span).end,
        StmtKind::With { context, .. } => context.span.end,
        _ => stmt.span.end,
    };
    Span::new(stmt.span.start, end)
}

/// The names that a statement looks at: those in an `if`'s or `assert`'s condition, and those that
/// a `try` passes on.
pub(crate) fn looked_at(kind: &StmtKind) -> Vec<&str> {
    match kind {
        StmtKind::Assert(cond) | StmtKind::If { cond, .. } => {
            cond.left.names().into_iter().chain(cond.right.names()).map(|(name, _)| name).collect()
        }
        StmtKind::Call { propagate: true, call, .. } => call
            .args
            .iter()
            .filter_map(|arg| match arg {
                Arg::Expr(expr) => Some(expr.names()),
                _ => None,
            })
            .flatten()
            .map(|(name, _)| name)
            .collect(),
        _ => Vec::new(),
    }
}

fn collect_looks<'a>(body: &'a Body, names: &mut BTreeSet<&'a str>) {
    for stmt in body {
        names.extend(looked_at(&stmt.value.kind));
        for inner in stmt.value.kind.bodies() {
            collect_looks(inner, names);
        }
    }
}
