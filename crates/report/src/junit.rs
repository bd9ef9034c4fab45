//! JUnit XML: runs as test cases, for CI systems.
//!
//! A suite for each input, a case for each run of it. Findings at deny level are one failure of the
//! case, with the diagnostics as text, and so is an end in which a CPU waits for ever; a run that
//! was not whole is an error, one of which nothing could be checked is skipped; what was found at
//! warn level is the case's output. No times: the same input gives the same bytes.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use textbed_check::Level;

use crate::run::{Outcome, Run, by_input};
use crate::text::{Style, finding};

pub(crate) const STYLE: Style = Style { width: 100, colour: false, detail: 1 };

/// The document could not be written.
#[derive(Debug)]
pub struct JunitError(quick_junit::SerializeError);

impl std::fmt::Display for JunitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot write JUnit XML: {}", self.0)
    }
}

impl std::error::Error for JunitError {}

/// The runs as one JUnit document.
///
/// # Errors
/// [`JunitError`] if the XML writer refuses.
pub fn document(runs: &[Run]) -> Result<String, JunitError> {
    let mut report = Report::new("textbed");
    for (path, runs) in by_input(runs) {
        let mut suite = TestSuite::new(path);
        for run in runs {
            suite.add_test_case(case(path, run));
        }
        report.add_test_suite(suite);
    }
    write(&report)
}

/// A report as the readers of such files want it.
pub(crate) fn write(report: &Report) -> Result<String, JunitError> {
    let text = report.to_string().map_err(JunitError)?;
    // Jenkins's schema (junit-10.xsd) has no such attribute of the root element.
    let end = text.find("<testsuite ").unwrap_or(text.len());
    let (root, rest) = text.split_at(end);
    let root = match root.split_once(" skipped=\"") {
        Some((before, behind)) => {
            let behind = behind.split_once('"').map_or("", |(_, behind)| behind);
            format!("{before}{behind}")
        }
        None => root.to_owned(),
    };
    Ok(root + rest)
}

fn case(path: &str, run: &Run) -> TestCase {
    let findings = |level: Level| {
        run.report.findings.iter().filter(move |f| f.level == level).collect::<Vec<_>>()
    };
    let text = |level: Level| {
        findings(level).iter().map(|f| finding(run, f, STYLE)).collect::<Vec<_>>().join("\n")
    };
    let denied = findings(Level::Deny);
    let broken = match &run.outcome {
        Outcome::Limit(what) => Some(format!("a limit was reached: {what}")),
        Outcome::NotModelled(what) => Some(format!("not modelled: {what}")),
        _ => None,
    };
    let status = if let Some(first) = denied.first() {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        let more = match denied.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        status
            .set_type(first.rule.name())
            .set_message(format!("{}{more}", first.message))
            .set_description(text(Level::Deny));
        status
    } else if let Some(why) = run.blocked() {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
        status.set_type(run.outcome.text()).set_message(why);
        status
    } else if let Some(why) = broken {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_type(run.outcome.text()).set_message(why);
        status
    } else if run.outcome == Outcome::Unchecked {
        let mut status = TestCaseStatus::skipped();
        status.set_type(run.outcome.text()).set_message("nothing could be checked");
        status
    } else {
        TestCaseStatus::success()
    };
    let mut case = TestCase::new(run.title(), status);
    case.set_classname(path);
    let warned = text(Level::Warn);
    if !warned.is_empty() {
        case.set_system_out(warned);
    }
    case
}
