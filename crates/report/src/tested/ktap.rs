//! KTAP version 1: a test for each file, a subtest for each of its runs.
//!
//! What was expected, what came and what differs stand before a run's line as diagnostics. A run of
//! which nothing is expected is skipped; a file that cannot be used is `not ok` without subtests.

use super::{FileVerdict, Tested, Verdict};
use crate::ktap::{Subtest, Test, write};

/// The results as one KTAP document.
#[must_use]
pub fn document(all: &[Tested]) -> String {
    let tests = all.iter().map(|tested| Test {
        name: &tested.path,
        ok: tested.verdict() == FileVerdict::Agrees,
        said: tested.unusable.iter().map(|p| p.message.clone()).collect(),
        subtests: tested.cases.iter().map(subtest).collect(),
    });
    write(&tests.collect::<Vec<_>>())
}

fn subtest(case: &super::Case) -> Subtest {
    let differs = case.differences.iter().map(|d| {
        let at = d.line.map_or_else(String::new, |line| format!(" at line {line}"));
        format!("{}{at}: {}", d.kind.name(), d.problem.message)
    });
    Subtest {
        name: case.title(),
        ok: case.differences.is_empty(),
        said: case.compared().into_iter().chain(differs).collect(),
        skip: (case.verdict() == Verdict::NothingExpected)
            .then(|| "no expect line applies".to_owned()),
    }
}
