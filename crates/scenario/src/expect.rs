//! The `expect` lines: which of them applies to a run, and what differs from it.
//!
//! A line applies if every kind of selector it has (architecture, kernel, reading) names the run;
//! several selectors of one kind mean any of them. Of the lines that apply the most specific one
//! counts: with more kinds of selectors; then with fewer architectures; then with single kernel
//! versions instead of ranges; then with fewer readings. Two that are equal in all that are an
//! ambiguity, which the analysis refuses beforehand.
//!
//! The chosen line must match exactly: each item stands for `xN` findings (one if not given) of its
//! rule, as certain or as possible, with that operation among the missing ones if it names one and
//! at that label if it names one; each finding belongs to one item. Where several ways to assign
//! findings to items exist, the one that leaves least over counts (a maximum flow).

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use textbed_arch::Arch;

use crate::arches;
use crate::ops;
use crate::span::{Span, Spanned};
use crate::syntax::ast::{Block, Expect, Expected, File, Item, Reading, Selector};
use textbed_kernel::{Version, VersionError};

/// A finding, as far as `expect` lines can tell findings apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name.
    pub rule: String,
    /// Possible instead of certain.
    pub possible: bool,
    /// The operations that are missing; blanks in them are `_` in a scenario.
    pub missing: Vec<String>,
    /// The label of the statement it is about, if that has one.
    pub label: Option<String>,
    /// How many findings this row stands for.
    pub count: u64,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All programs ended.
    Ended,
    /// A CPU waits for what nobody will publish.
    Blocked,
    /// A limit was reached or something is not modelled: what was found is not the whole.
    Unfinished,
}

/// What to compare.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    /// The architecture it ran on.
    pub arch: Arch,
    /// The kernel version it ran on.
    pub kernel: &'a Version,
    /// The reading under which the findings hold.
    pub reading: Reading,
    /// How it ended.
    pub end: End,
    /// What was found.
    pub findings: &'a [Finding],
}

/// The result of looking for a run's `expect` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No line applies to this run.
    NothingExpected,
    /// Lines that apply and are equally specific, by their places.
    Ambiguous(Vec<Span>),
    /// The line at this place applies.
    Compared {
        /// The line's place.
        line: Span,
        /// What differs; empty if nothing.
        difference: Difference,
    },
}

/// What differs between a run and its `expect` line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Expected and not found.
    pub missing: Vec<MissingItem>,
    /// Found and not expected.
    pub unexpected: Vec<Unexpected>,
    /// The run ended otherwise than expected: what was expected, what happened.
    pub end: Option<(End, End)>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.end.is_none()
    }
}

/// An item with fewer findings than it expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingItem {
    /// The item.
    pub item: Spanned<Item>,
    /// How many it expects.
    pub expected: u64,
    /// How many there are.
    pub found: u64,
}

/// A finding that no item expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexpected {
    /// Which, counted from 0 in the run's findings.
    pub index: usize,
    /// The finding; its `count` is how many are too many.
    pub finding: Finding,
}

/// When an `expect` line applies. `None`: no selector of that kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applies {
    arches: Option<BTreeSet<Arch>>,
    kernels: Option<Vec<(Version, Version)>>,
    readings: Option<BTreeSet<Reading>>,
}

/// Why selectors can't be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectorError {
    /// A name that is no architecture.
    Arch(Spanned<String>),
    /// A text that is no version.
    Version(Spanned<String>, VersionError),
    /// A range that ends before it begins.
    EmptyRange(Span),
}

/// How specific a line is; larger is more so.
type Specificity = (usize, Reverse<usize>, bool, Reverse<usize>);

impl Applies {
    /// Understands the selectors of a line, or says what can't be.
    pub fn resolve(selectors: &[Spanned<Selector>]) -> Result<Self, Vec<SelectorError>> {
        let mut applies = Applies { arches: None, kernels: None, readings: None };
        let mut errors = Vec::new();
        for selector in selectors {
            match &selector.value {
                Selector::Arch(name) => match arches::resolve(name) {
                    Some(members) => applies.arches.get_or_insert_default().extend(members),
                    None => {
                        errors.push(SelectorError::Arch(Spanned::new(name.clone(), selector.span)));
                    }
                },
                Selector::Kernel { from, to } => match range(from, to.as_ref()) {
                    Ok((from, to)) if from <= to => {
                        applies.kernels.get_or_insert_default().push((from, to));
                    }
                    Ok(_) => errors.push(SelectorError::EmptyRange(selector.span)),
                    Err(error) => errors.push(error),
                },
                Selector::Reading(reading) => {
                    applies.readings.get_or_insert_default().insert(*reading);
                }
            }
        }
        if errors.is_empty() { Ok(applies) } else { Err(errors) }
    }

    /// Whether the line applies to such a run.
    pub fn to_run(&self, arch: Arch, kernel: &Version, reading: Reading) -> bool {
        let in_range = |(from, to): &(Version, Version)| from <= kernel && kernel <= to;
        self.arches.as_ref().is_none_or(|set| set.contains(&arch))
            && self.kernels.as_ref().is_none_or(|ranges| ranges.iter().any(in_range))
            && self.readings.as_ref().is_none_or(|set| set.contains(&reading))
    }

    /// Whether the line names this architecture, or none at all.
    pub fn to_arch(&self, arch: Arch) -> bool {
        self.arches.as_ref().is_none_or(|set| set.contains(&arch))
    }

    /// Whether there is a run to which both lines apply and neither is more specific.
    pub fn collides_with(&self, other: &Applies) -> bool {
        let kernels = match (&self.kernels, &other.kernels) {
            (Some(a), Some(b)) => a.iter().any(|(a_from, a_to)| {
                b.iter().any(|(b_from, b_to)| a_from.max(b_from) <= a_to.min(b_to))
            }),
            _ => true,
        };
        self.specificity() == other.specificity()
            && kernels
            && meet(self.arches.as_ref(), other.arches.as_ref())
            && meet(self.readings.as_ref(), other.readings.as_ref())
    }

    fn specificity(&self) -> Specificity {
        let kinds = usize::from(self.arches.is_some())
            + usize::from(self.kernels.is_some())
            + usize::from(self.readings.is_some());
        let single = |ranges: &Vec<(Version, Version)>| ranges.iter().all(|(a, b)| a == b);
        (
            kinds,
            Reverse(self.arches.as_ref().map_or(Arch::ALL.len(), BTreeSet::len)),
            self.kernels.as_ref().is_some_and(single),
            Reverse(self.readings.as_ref().map_or(Reading::ALL.len(), BTreeSet::len)),
        )
    }
}

fn meet<T: Ord>(a: Option<&BTreeSet<T>>, b: Option<&BTreeSet<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => !a.is_disjoint(b),
        _ => true,
    }
}

fn range(
    from: &Spanned<String>,
    to: Option<&Spanned<String>>,
) -> Result<(Version, Version), SelectorError> {
    let parse = |text: &Spanned<String>| {
        Version::parse(&text.value).map_err(|e| SelectorError::Version(text.clone(), e))
    };
    let first = parse(from)?;
    let last = to.map(parse).transpose()?.unwrap_or(first);
    Ok((first, last))
}

/// Finds the line of `file` that applies to `run`, and compares. Lines whose selectors can't be
/// understood apply to nothing; the analysis names them.
pub fn check(file: &File, run: &Run<'_>) -> Verdict {
    match applying(file, run.arch, run.kernel, run.reading).as_slice() {
        [] => Verdict::NothingExpected,
        [(line, expect)] => Verdict::Compared {
            line: *line,
            difference: compare(&expect.expected.value, run.end, run.findings),
        },
        several => Verdict::Ambiguous(several.iter().map(|(span, _)| *span).collect()),
    }
}

/// The most specific lines of `file` that apply to such a run, with their places.
pub fn applying<'a>(
    file: &'a File,
    arch: Arch,
    kernel: &Version,
    reading: Reading,
) -> Vec<(Span, &'a Expect)> {
    let lines = file.blocks.iter().filter_map(|block| match &block.value {
        Block::Expect(expect) => Some((block.span, expect)),
        _ => None,
    });
    let mut best: Vec<(Span, &Expect)> = Vec::new();
    let mut so_far: Option<Specificity> = None;
    for (span, expect) in lines {
        let Ok(applies) = Applies::resolve(&expect.selectors) else { continue };
        if !applies.to_run(arch, kernel, reading) {
            continue;
        }
        let specificity = applies.specificity();
        if so_far.is_some_and(|s| s > specificity) {
            continue;
        }
        if so_far.is_some_and(|s| s < specificity) {
            best.clear();
        }
        so_far = Some(specificity);
        best.push((span, expect));
    }
    best
}

/// What differs between what is expected and what happened.
pub fn compare(expected: &Expected, end: End, findings: &[Finding]) -> Difference {
    let (items, expected_end): (&[Spanned<Item>], End) = match expected {
        Expected::None | Expected::Open => (&[], End::Ended),
        Expected::Blocked => (&[], End::Blocked),
        Expected::Items(items) => (items, End::Ended),
    };
    let wanted: Vec<u64> =
        items.iter().map(|i| i.value.count.as_ref().map_or(1, |n| n.value)).collect();
    let given: Vec<u64> = findings.iter().map(|f| f.count).collect();
    let flow = assign(&given, &wanted, |finding, item| {
        matches_item(findings.get(finding), items.get(item).map(|i| &i.value))
    });
    let mut difference = Difference::default();
    for (i, (item, expected)) in items.iter().zip(wanted).enumerate() {
        let found = flow.iter().filter_map(|row| row.get(i)).sum();
        if found < expected {
            difference.missing.push(MissingItem { item: item.clone(), expected, found });
        }
    }
    for (index, (finding, row)) in findings.iter().zip(&flow).enumerate() {
        let over = finding.count.saturating_sub(row.iter().sum());
        if over > 0 {
            let finding = Finding { count: over, ..finding.clone() };
            difference.unexpected.push(Unexpected { index, finding });
        }
    }
    if end != expected_end {
        difference.end = Some((expected_end, end));
    }
    difference
}

fn matches_item(finding: Option<&Finding>, item: Option<&Item>) -> bool {
    let (Some(finding), Some(item)) = (finding, item) else { return false };
    item.rule.value == finding.rule
        && item.possible == finding.possible
        && item.missing.as_ref().is_none_or(|op| {
            let written = ops::spelling(&op.value);
            finding.missing.iter().any(|missing| ops::spelling(operation(missing)) == written)
        })
        && item.at.as_ref().is_none_or(|at| finding.label.as_ref() == Some(&at.value))
}

/// A missing operation without the CPUs on or for which it is missing: a scenario names it alone.
pub(crate) fn operation(missing: &str) -> &str {
    let ends = [" on cpu", " on every cpu", " for cpu", " for every cpu"];
    let end = ends.iter().filter_map(|place| missing.find(place)).min();
    end.and_then(|at| missing.get(..at)).unwrap_or(missing)
}

/// A maximum flow from findings to items: how many of each finding go to each item. Shortest
/// augmenting paths (Edmonds and Karp); there are few of either.
fn assign(given: &[u64], wanted: &[u64], fits: impl Fn(usize, usize) -> bool) -> Vec<Vec<u64>> {
    let mut flow = vec![vec![0u64; wanted.len()]; given.len()];
    let mut left: Vec<u64> = given.to_vec();
    let mut open: Vec<u64> = wanted.to_vec();
    while let Some((path, amount)) = augmenting_path(&left, &open, &flow, &fits) {
        // The path alternates: finding -> item (adds), item -> finding (takes back), ...
        for (step, pair) in path.windows(2).enumerate() {
            let &[a, b] = pair else { continue };
            let (finding, item) = if step % 2 == 0 { (a, b) } else { (b, a) };
            if let Some(cell) = flow.get_mut(finding).and_then(|row| row.get_mut(item)) {
                *cell = if step % 2 == 0 {
                    cell.saturating_add(amount)
                } else {
                    cell.saturating_sub(amount)
                };
            }
        }
        for (ends, place) in [(&mut left, path.first()), (&mut open, path.last())] {
            if let Some(rest) = place.and_then(|i| ends.get_mut(*i)) {
                *rest = rest.saturating_sub(amount);
            }
        }
    }
    flow
}

/// The shortest path from a finding with something left to an item with something open, as indices
/// of findings and items in turn, and how much can go along it.
fn augmenting_path(
    left: &[u64],
    open: &[u64],
    flow: &[Vec<u64>],
    fits: &impl Fn(usize, usize) -> bool,
) -> Option<(Vec<usize>, u64)> {
    let mut seen_finding = vec![false; left.len()];
    let mut seen_item = vec![false; open.len()];
    let mut queue = VecDeque::new();
    for (finding, rest) in left.iter().enumerate().filter(|(_, rest)| **rest > 0) {
        seen_finding[finding] = true;
        queue.push_back((vec![finding], *rest));
    }
    while let Some((path, amount)) = queue.pop_front() {
        let finding = *path.last()?;
        for item in 0..open.len() {
            if seen_item[item] || !fits(finding, item) {
                continue;
            }
            seen_item[item] = true;
            let mut path = path.clone();
            path.push(item);
            if open[item] > 0 {
                return Some((path, amount.min(open[item])));
            }
            for (other, row) in flow.iter().enumerate() {
                let back = row.get(item).copied().unwrap_or(0);
                if back > 0 && !seen_finding[other] {
                    seen_finding[other] = true;
                    let mut path = path.clone();
                    path.push(other);
                    queue.push_back((path, amount.min(back)));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
