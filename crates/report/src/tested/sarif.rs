//! SARIF 2.1.0: what differs from what a scenario expects, as results on the line that says
//! otherwise.
//!
//! A kind of difference is a rule of this log; the checker's rules are named in the messages. A
//! difference that only policy and seed tell apart is one result, counted. Files that cannot be
//! used and runs of which nothing is expected are notifications.

use serde_json::{Value, json};

use super::{Case, Difference, DifferenceKind, Tested, Verdict};
use crate::sarif::{Log, physical};

/// The results as one SARIF log, indented, with a final newline.
///
/// # Errors
/// None in practice: every value has a JSON form; the serialiser's type says otherwise.
pub fn document(all: &[Tested]) -> Result<String, serde_json::Error> {
    let results = all.iter().flat_map(|tested| {
        tested.joined().into_iter().map(|(difference, cases)| result(tested, difference, &cases))
    });
    let log = Log {
        rules: DifferenceKind::ALL.into_iter().map(rule).collect(),
        whole: all.iter().all(Tested::usable),
        notifications: all.iter().flat_map(notifications).collect(),
        results: results.collect(),
    };
    log.text()
}

fn rule(kind: DifferenceKind) -> Value {
    json!({
        "id": kind.name(),
        "shortDescription": {"text": kind.describe()},
        "defaultConfiguration": {"level": "error"},
    })
}

fn result(tested: &Tested, difference: &Difference, cases: &[&Case]) -> Value {
    let on = cases.first().map_or_else(String::new, |case| {
        let (arch, kernel, reading) = case.machine();
        format!(" on {arch}, kernel {kernel}, reading {reading}")
    });
    json!({
        "ruleId": difference.kind.name(),
        "ruleIndex": DifferenceKind::ALL.iter().position(|k| *k == difference.kind),
        "level": "error",
        "kind": "fail",
        "message": {"text": format!("{}{on}", difference.problem.message)},
        "locations": [physical(&difference.problem.path, difference.line.unwrap_or(1))],
        "occurrenceCount": cases.len(),
        "properties": {
            "scenario": tested.name,
            "cases": cases.iter().map(|case| case.title()).collect::<Vec<_>>(),
        },
    })
}

fn notifications(tested: &Tested) -> Vec<Value> {
    let mut all = Vec::new();
    let mut say = |level: &str, text: String| {
        all.push(json!({
            "level": level,
            "message": {"text": text},
            "locations": [physical(&tested.path, 1)],
        }));
    };
    for problem in &tested.unusable {
        say("error", format!("cannot be used: {}", problem.message));
    }
    let silent = |c: &&Case| c.verdict() == Verdict::NothingExpected;
    let silent = tested.cases.iter().filter(silent).count();
    if silent > 0 {
        say("note", format!("no expect line applies to {silent} runs"));
    }
    all
}
