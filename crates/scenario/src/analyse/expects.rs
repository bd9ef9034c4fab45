//! The `expect` lines: selectors that can be understood, no two that nobody could choose between,
//! and items with names that exist.

use super::structure::not_for;
use super::{Known, Problem, ProblemKind, Sort, architectures, bodies, check_name};
use super::{check_arch, problem};
use crate::expect::{Applies, SelectorError};
use crate::span::Span;
use crate::syntax::ast::{Block, Body, Expect, Expected, File, Selector};

pub(super) fn check(file: &File, known: &Known<'_>, problems: &mut Vec<Problem>) {
    let labels = labels(file);
    let arches = architectures(file);
    let mut lines: Vec<(Span, Applies)> = Vec::new();
    for block in &file.blocks {
        let Block::Expect(expect) = &block.value else { continue };
        items(expect, &labels, known, problems);
        match Applies::resolve(&expect.selectors) {
            Ok(applies) => {
                for selector in &expect.selectors {
                    if let Selector::Arch(name) = &selector.value {
                        not_for(name, selector.span, &arches, problems);
                    }
                }
                let other = lines.iter().find(|(_, other)| other.collides_with(&applies));
                if let Some((span, _)) = other {
                    problems.push(Problem {
                        kind: ProblemKind::AmbiguousExpect,
                        span: block.span,
                        related: Some((*span, "and this one")),
                        on: Vec::new(),
                    });
                }
                lines.push((block.span, applies));
            }
            Err(errors) => errors.into_iter().for_each(|error| selector(error, problems)),
        }
    }
}

fn selector(error: SelectorError, problems: &mut Vec<Problem>) {
    match error {
        SelectorError::Arch(name) => {
            check_arch(&name.value, name.span, problems);
        }
        SelectorError::Version(text, error) => {
            let kind = ProblemKind::BadVersion(error);
            problems.push(problem(kind, text.span));
        }
        SelectorError::EmptyRange(span) => problems.push(problem(ProblemKind::EmptyRange, span)),
    }
}

fn items(expect: &Expect, labels: &[&str], known: &Known<'_>, problems: &mut Vec<Problem>) {
    let Expected::Items(items) = &expect.expected.value else { return };
    for item in items {
        let item = &item.value;
        check_name(Sort::Rule, &item.rule, known.rules, problems);
        if let Some(count) = item.count.as_ref().filter(|count| count.value == 0) {
            problems.push(problem(ProblemKind::ExpectsZero, count.span));
        }
        if let Some(label) = &item.at {
            check_name(Sort::Label, label, Some(labels), problems);
        }
    }
}

/// All labels of a file.
fn labels(file: &File) -> Vec<&str> {
    fn collect<'a>(body: &'a Body, labels: &mut Vec<&'a str>) {
        for stmt in body {
            labels.extend(stmt.value.label.as_ref().map(|label| label.value.as_str()));
            for inner in stmt.value.kind.bodies() {
                collect(inner, labels);
            }
        }
    }
    let mut labels = Vec::new();
    bodies(file).for_each(|body| collect(body, &mut labels));
    labels
}
