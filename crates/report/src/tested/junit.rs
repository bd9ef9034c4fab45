//! JUnit XML: a suite for each file, a case for each of its runs.
//!
//! What differs is the failure of its case, a run that was not possible an error, one of which
//! nothing is expected is skipped. What was expected and what came is the case's output. A file
//! that cannot be used is a suite with one case, an error.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Case, Difference, Tested, Verdict};
use crate::junit::{JunitError, STYLE, write};
use crate::text::{Problem, problem};

/// The results as one JUnit document.
///
/// # Errors
/// [`JunitError`] if the XML writer refuses.
pub fn document(all: &[Tested]) -> Result<String, JunitError> {
    let mut report = Report::new("textbed test");
    for tested in all {
        let mut suite = TestSuite::new(&tested.path);
        if !tested.unusable.is_empty() {
            let status = told(NonSuccessKind::Error, "unusable", &tested.unusable);
            suite.add_test_case(TestCase::new("can be used", status));
        }
        for case in &tested.cases {
            suite.add_test_case(self::case(case));
        }
        for case in &mut suite.test_cases {
            case.set_classname(&tested.path);
        }
        report.add_test_suite(suite);
    }
    write(&report)
}

fn case(case: &Case) -> TestCase {
    let problems: Vec<Problem> = case.differences.iter().map(|d| d.problem.clone()).collect();
    let kind = case.differences.first().map_or("", |d: &Difference| d.kind.name());
    let status = match case.verdict() {
        Verdict::Agrees => TestCaseStatus::success(),
        Verdict::Differs => told(NonSuccessKind::Failure, kind, &problems),
        Verdict::NotRun => told(NonSuccessKind::Error, kind, &problems),
        Verdict::NothingExpected => {
            let mut status = TestCaseStatus::skipped();
            status.set_type(Verdict::NothingExpected.name()).set_message("no expect line applies");
            status
        }
    };
    let mut out = TestCase::new(case.title(), status);
    out.set_system_out(case.compared().join("\n"));
    out
}

fn told(kind: NonSuccessKind, name: &str, problems: &[Problem]) -> TestCaseStatus {
    let first = problems.first().map_or("", |p| p.message.as_str());
    let more = match problems.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    let mut status = TestCaseStatus::non_success(kind);
    status
        .set_type(name)
        .set_message(format!("{first}{more}"))
        .set_description(problems.iter().map(|p| problem(p, STYLE)).collect::<Vec<_>>().join("\n"));
    status
}
