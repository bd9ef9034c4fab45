//! Headers and blocks: what is there twice, what is not there, what has a wrong name.

use std::collections::{BTreeMap, BTreeSet};

use textbed_arch::Arch;
use textbed_arch::features;

use super::{
    Known, MOST_CPUS, Problem, ProblemKind, Sort, architectures, bodies, check_arch, check_name,
    cpu_count, problem,
};
use crate::span::{Span, Spanned};
use crate::syntax::ast::{
    Arg, Atom, Block, Body, Context, Expr, File, HandlerKind, Header, Name, Product, StmtKind,
    Targets,
};
use crate::{errno, suggest};
use textbed_kernel::Version;

pub(super) fn check(file: &File, known: &Known<'_>, problems: &mut Vec<Problem>) {
    headers(file, known, problems);
    let handlers = blocks(file, problems);
    let mut walk = Walk {
        known,
        handlers: &handlers,
        cpus: cpu_count(file),
        arches: architectures(file),
        labels: Once::default(),
        used_handlers: BTreeSet::new(),
        inside: Vec::new(),
    };
    for body in bodies(file) {
        walk.body(body, problems);
    }
    for (name, (kind, span)) in &handlers {
        if *kind == HandlerKind::Ipi && !walk.used_handlers.contains(*name) {
            let kind = ProblemKind::UnusedHandler { name: (*name).to_owned() };
            problems.push(problem(kind, *span));
        }
    }
}

/// Things that may be there once, and where they were first.
#[derive(Default)]
struct Once(BTreeMap<String, Span>);

impl Once {
    /// Notes `what` and complains if it was there before.
    fn note(&mut self, what: String, span: Span, problems: &mut Vec<Problem>) {
        if let Some(first) = self.0.get(&what) {
            let related = Some((*first, "first here"));
            let kind = ProblemKind::Duplicate { what };
            problems.push(Problem { kind, span, related, on: Vec::new() });
        } else {
            self.0.insert(what, span);
        }
    }
}

fn headers(file: &File, known: &Known<'_>, problems: &mut Vec<Problem>) {
    let mut once = Once::default();
    let mut versions: Vec<Version> = Vec::new();
    for header in &file.headers {
        let span = header.span;
        match &header.value {
            Header::About(_) => once.note("the `about` line".to_owned(), span, problems),
            Header::Kernel(texts) => {
                for text in texts {
                    match Version::parse(&text.value) {
                        Ok(version) if versions.contains(&version) => {
                            let what = format!("kernel {version}");
                            problems.push(problem(ProblemKind::Duplicate { what }, text.span));
                        }
                        Ok(version) => versions.push(version),
                        Err(error) => {
                            let kind = ProblemKind::BadVersion(error);
                            problems.push(problem(kind, text.span));
                        }
                    }
                }
            }
            Header::Arch(names) => {
                for name in names {
                    for arch in check_arch(&name.value, name.span, problems).unwrap_or_default() {
                        once.note(format!("architecture {arch}"), name.span, problems);
                    }
                }
            }
            Header::Cpus(count) => {
                once.note("the `cpus` line".to_owned(), span, problems);
                if !(1..=MOST_CPUS).contains(&count.value) {
                    let kind = ProblemKind::BadCpuCount { count: count.value, most: MOST_CPUS };
                    problems.push(problem(kind, count.span));
                }
            }
            Header::Config { name, .. } => {
                once.note(format!("option `{}`", name.value), name.span, problems);
            }
            Header::Feature { arch, name, .. } => feature(arch, name, &mut once, problems),
            Header::Fail { call, nth, allocation, errno } => {
                check_name(Sort::Call, call, known.calls, problems);
                for (what, number) in [("`#`", nth), ("`allocation`", allocation)] {
                    if let Some(number) = number.as_ref().filter(|n| n.value == 0) {
                        problems.push(problem(ProblemKind::CountsFromOne { what }, number.span));
                    }
                }
                let which = nth.as_ref().map_or(String::new(), |n| format!(" #{}", n.value));
                once.note(format!("`fail {}{which}`", call.value), span, problems);
                check_errno(&errno.value, errno.span, problems);
            }
            Header::Allow { rule, .. } => {
                check_name(Sort::Rule, rule, known.rules, problems);
                once.note(format!("`allow {}`", rule.value), rule.span, problems);
            }
        }
    }
}

fn feature(arch: &Name, name: &Name, once: &mut Once, problems: &mut Vec<Problem>) {
    let members = check_arch(&arch.value, arch.span, problems).unwrap_or_default();
    if members.is_empty() {
        return;
    }
    for member in members {
        once.note(format!("feature {member}.{}", name.value), name.span, problems);
    }
    // Of a group somebody has it.
    let of_each = members.iter().flat_map(|member| features::named(*member));
    let known: Vec<&str> = of_each.map(|f| f.name).collect();
    check_name(Sort::Feature, name, Some(&known), problems);
}

fn check_errno(name: &str, span: Span, problems: &mut Vec<Problem>) {
    if errno::number(name).is_none() {
        let nearest = suggest::nearest(name, errno::names()).map(str::to_owned);
        let kind = ProblemKind::Unknown { sort: Sort::Errno, name: name.to_owned(), nearest };
        problems.push(problem(kind, span));
    }
}

type Handlers<'a> = BTreeMap<&'a str, (HandlerKind, Span)>;

/// Checks the blocks against each other, and collects the handlers.
fn blocks<'a>(file: &'a File, problems: &mut Vec<Problem>) -> Handlers<'a> {
    let mut once = Once::default();
    let mut handlers = Handlers::new();
    let cpus = cpu_count(file);
    let mut programs = false;
    for block in &file.blocks {
        match &block.value {
            Block::Setup(_) => {
                programs = true;
                once.note("`setup`".to_owned(), first_line(block.span), problems);
            }
            Block::Cpu { number, .. } => {
                programs = true;
                once.note(format!("CPU {}", number.value), number.span, problems);
                check_cpu(number, cpus, problems);
            }
            Block::Handler { kind, name, .. } => {
                once.note(format!("handler `{}`", name.value), name.span, problems);
                handlers.entry(&name.value).or_insert((kind.value, name.span));
            }
            Block::Expect(_) => {}
        }
    }
    if !programs {
        problems.push(problem(ProblemKind::NoProgram, file.name.span));
    }
    handlers
}

/// The keyword of a block that begins with `setup`.
fn first_line(span: Span) -> Span {
    Span::new(span.start, span.end.min(span.start + "setup".len()))
}

fn check_cpu(number: &Spanned<u64>, cpus: u64, problems: &mut Vec<Problem>) {
    if number.value >= cpus.clamp(1, MOST_CPUS) {
        let last = cpus.clamp(1, MOST_CPUS) - 1;
        problems.push(problem(ProblemKind::NoSuchCpu { number: number.value, last }, number.span));
    }
}

/// A walk over all statements, whatever the flow.
struct Walk<'a> {
    known: &'a Known<'a>,
    handlers: &'a Handlers<'a>,
    cpus: u64,
    arches: Vec<Arch>,
    labels: Once,
    used_handlers: BTreeSet<String>,
    /// The contexts of the `with`s around the statement, outermost first.
    inside: Vec<String>,
}

impl Walk<'_> {
    fn body(&mut self, body: &Body, problems: &mut Vec<Problem>) {
        for stmt in body {
            if let Some(label) = &stmt.value.label {
                self.labels.note(format!("label `{}`", label.value), label.span, problems);
            }
            self.statement(&stmt.value.kind, problems);
            if let StmtKind::With { context, body } = &stmt.value.kind {
                self.idles(context, body, problems);
                self.inside.push(context.value.to_string());
            }
            for inner in stmt.value.kind.bodies() {
                self.body(inner, problems);
            }
            if matches!(stmt.value.kind, StmtKind::With { .. }) {
                self.inside.pop();
            }
        }
    }

    fn statement(&mut self, kind: &StmtKind, problems: &mut Vec<Problem>) {
        match kind {
            StmtKind::Call { call, .. } => {
                check_name(Sort::Call, &call.name, self.known.calls, problems);
                self.args(&call.args, problems);
            }
            StmtKind::Op { args, .. } => self.args(args, problems),
            StmtKind::Publish { value, .. } => errnos(value, problems),
            StmtKind::Assert(cond) | StmtKind::If { cond, .. } => {
                errnos(&cond.left, problems);
                errnos(&cond.right, problems);
            }
            StmtKind::Repeat { count, .. } if count.value == 0 => {
                problems.push(problem(ProblemKind::RepeatZero, count.span));
            }
            StmtKind::When { arches, .. } => {
                for name in arches {
                    not_for(&name.value, name.span, &self.arches, problems);
                }
            }
            StmtKind::Ipi { targets, handler } => self.ipi(&targets.value, handler, problems),
            StmtKind::Repeat { .. } | StmtKind::Await(_) | StmtKind::With { .. } => {}
        }
    }

    /// An idle CPU holds nothing and does nothing.
    fn idles(&self, context: &Spanned<Context>, body: &Body, problems: &mut Vec<Problem>) {
        if !matches!(context.value, Context::Idle | Context::PollingIdle) {
            return;
        }
        if let Some(context_around) = self.inside.last() {
            let kind = ProblemKind::IdleInside { context: context_around.clone() };
            problems.push(problem(kind, context.span));
        }
        let rests = |s: &StmtKind| matches!(s, StmtKind::Await(_) | StmtKind::Publish { .. });
        for stmt in body.iter().filter(|stmt| !rests(&stmt.value.kind)) {
            problems.push(problem(ProblemKind::BusyIdle, stmt.span));
        }
    }

    fn args(&self, args: &[Arg], problems: &mut Vec<Problem>) {
        for arg in args {
            match arg {
                Arg::Expr(expr) => errnos(expr, problems),
                Arg::Code(name) => check_name(Sort::Routine, name, self.known.routines, problems),
                Arg::Jit(name) if !textbed_codegen::is_name(&name.value) => {
                    let list = textbed_codegen::known_names();
                    check_name(Sort::Generated, name, Some(&list), problems);
                }
                Arg::Flags(_) | Arg::Jit(_) => {}
            }
        }
    }

    fn ipi(&mut self, targets: &Targets, handler: &Name, problems: &mut Vec<Problem>) {
        if let Targets::Cpus(cpus) = targets {
            for cpu in cpus {
                check_cpu(cpu, self.cpus, problems);
            }
        }
        match self.handlers.get(handler.value.as_str()) {
            Some((HandlerKind::Ipi, _)) => {}
            Some((HandlerKind::Trap, span)) => problems.push(Problem {
                kind: ProblemKind::WrongHandler { name: handler.value.clone() },
                span: handler.span,
                related: Some((*span, "declared here")),
                on: Vec::new(),
            }),
            None => {
                let names: Vec<&str> = self.handlers.keys().copied().collect();
                check_name(Sort::Handler, handler, Some(&names), problems);
            }
        }
        self.used_handlers.insert(handler.value.clone());
    }
}

/// Checks an architecture's name and that the scenario is for it.
pub(super) fn not_for(name: &str, span: Span, arches: &[Arch], problems: &mut Vec<Problem>) {
    let Some(members) = check_arch(name, span, problems) else { return };
    if !members.iter().any(|arch| arches.contains(arch)) {
        let kind = ProblemKind::NotForThisArch { arch: name.to_owned() };
        problems.push(problem(kind, span));
    }
}

/// Checks the errors that an expression names.
fn errnos(expr: &Expr, problems: &mut Vec<Problem>) {
    let products = std::iter::once(&expr.first).chain(expr.rest.iter().map(|(_, p)| p));
    for atom in products.flat_map(Product::factors) {
        match &atom.value {
            Atom::Errno(name) => check_errno(name, atom.span, problems),
            Atom::Paren(inner) => errnos(inner, problems),
            Atom::Int { .. } | Atom::Name(_) => {}
        }
    }
}
