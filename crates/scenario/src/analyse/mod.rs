//! What can be said about a scenario without running it.
//!
//! [`names`](self) follow the flow of each program: what has a value, what is published and
//! awaited, for each architecture that the scenario is for (`when` decides differently on each).
//! The blocks, headers and `expect` lines are checked once. Names of rules, calls and routines are
//! compared with lists that the caller has; those of instructions and features with the
//! architectures' tables.
//!
//! Not checked here: argument counts and kinds of calls (the calls say so when they run), and
//! whether locks are taken in an order that can end.

mod expects;
mod names;
mod problem;
mod structure;

use std::collections::BTreeSet;

use textbed_arch::Arch;

pub use problem::{Problem, ProblemKind, Sort};

use crate::diagnostic::Severity;
use crate::span::{Span, Spanned};
use crate::syntax::ast::{Block, Body, File, Header};
use crate::{arches, suggest};

/// The most CPUs that a scenario can have.
pub const MOST_CPUS: u64 = textbed_machine::MAX_CPUS as u64;

/// The architectures that a scenario without an `arch` line is for.
pub const USUAL_ARCHES: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

/// The names that a scenario may use. A list that is `None` is not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// The checker's rules.
    pub rules: Option<&'a [&'a str]>,
    /// Calls, the runner's own among them.
    pub calls: Option<&'a [&'a str]>,
    /// Guest routines, for `code(…)`.
    pub routines: Option<&'a [&'a str]>,
}

/// All problems of a scenario, in the order of their places.
pub fn analyse(file: &File, known: &Known<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    structure::check(file, known, &mut problems);
    names::check(file, &mut problems);
    expects::check(file, known, &mut problems);
    problems.sort_by_key(|p| (p.span.start, p.span.end, p.severity() == Severity::Warning));
    problems
}

/// The architectures that a scenario is for, in the usual order: those of its `arch` lines, or
/// [`USUAL_ARCHES`]. Names that are none are left out (the analysis names them).
pub fn architectures(file: &File) -> Vec<Arch> {
    let named: BTreeSet<Arch> = arch_names(file)
        .filter_map(|name| arches::resolve(&name.value))
        .flatten()
        .copied()
        .collect();
    if named.is_empty() { USUAL_ARCHES.to_vec() } else { named.into_iter().collect() }
}

fn arch_names(file: &File) -> impl Iterator<Item = &Spanned<String>> {
    let lines = file.headers.iter().filter_map(|header| match &header.value {
        Header::Arch(names) => Some(names),
        _ => None,
    });
    lines.flatten()
}

/// How many CPUs a scenario has: what its `cpus` line says, or as many as it has programs for, and
/// two at least.
pub fn cpu_count(file: &File) -> u64 {
    let said = file.headers.iter().find_map(|header| match &header.value {
        Header::Cpus(count) => Some(count.value),
        _ => None,
    });
    let highest = file.blocks.iter().filter_map(|block| match &block.value {
        Block::Cpu { number, .. } => Some(number.value.saturating_add(1)),
        _ => None,
    });
    said.unwrap_or_else(|| highest.max().unwrap_or(0).max(2))
}

/// The bodies of a file.
pub(crate) fn bodies(file: &File) -> impl Iterator<Item = &Body> {
    file.blocks.iter().filter_map(|block| match &block.value {
        Block::Setup(body) | Block::Cpu { body, .. } | Block::Handler { body, .. } => Some(body),
        Block::Expect(_) => None,
    })
}

fn problem(kind: ProblemKind, span: Span) -> Problem {
    Problem { kind, span, related: None, on: Vec::new() }
}

/// Checks a name against a list, if there is one.
fn check_name(
    sort: Sort,
    name: &Spanned<String>,
    list: Option<&[&str]>,
    problems: &mut Vec<Problem>,
) {
    let Some(list) = list else { return };
    if !list.contains(&name.value.as_str()) {
        let nearest = suggest::nearest(&name.value, list.iter().copied()).map(str::to_owned);
        let kind = ProblemKind::Unknown { sort, name: name.value.clone(), nearest };
        problems.push(problem(kind, name.span));
    }
}

/// Checks an architecture's name; `None` (and a problem) if it is none.
fn check_arch(name: &str, span: Span, problems: &mut Vec<Problem>) -> Option<&'static [Arch]> {
    let members = arches::resolve(name);
    if members.is_none() {
        let nearest = arches::suggest(name).map(str::to_owned);
        let kind = ProblemKind::Unknown { sort: Sort::Arch, name: name.to_owned(), nearest };
        problems.push(problem(kind, span));
    }
    members
}

#[cfg(test)]
mod tests;
