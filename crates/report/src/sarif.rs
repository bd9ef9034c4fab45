//! SARIF 2.1.0: findings for code-scanning services and editors.
//!
//! One `run` of this tool; each finding is a result with its rule, the place where it shows, the
//! place that it conflicts with, the chain of steps as a code flow, and the fingerprint. A run that
//! ends in a CPU that waits for ever, which was not expected, is a result too. What could not be
//! checked is a notification of the invocation, so that an empty result list is not read as a
//! proof. Source: OASIS, Static Analysis Results Interchange Format 2.1.0.
//!
//! Not there: fixes as edits (a missing barrier is described, its place in real code is not known),
//! and findings at level `allow`.

use serde::Serialize;
use serde_json::{Value, json};
use textbed_check::{Coverage, Finding, Level, Site, rules};

use crate::json::pretty;
use crate::run::{Outcome, Run};

/// What a result is called that no rule of the checker found.
const BLOCKED: &str = "blocked";

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The runs as one SARIF log, indented, with a final newline.
///
/// # Errors
/// None in practice: every value has a JSON form; the serialiser's type says otherwise.
pub fn document(runs: &[Run]) -> Result<String, serde_json::Error> {
    let results: Vec<Value> = runs
        .iter()
        .flat_map(|run| {
            run.report
                .findings
                .iter()
                .filter(|f| f.level != Level::Allow)
                .map(|f| result(run, f))
                .chain(run.blocked().map(|why| blocked(run, why)))
        })
        .collect();
    let ended = json!({
        "id": BLOCKED,
        "shortDescription": {"text": "a CPU waits for what nobody will publish"},
        "defaultConfiguration": {"level": "error"},
    });
    let log = Log {
        rules: rules::RULES.iter().map(rule).chain([ended]).collect(),
        whole: !runs
            .iter()
            .any(|r| matches!(r.outcome, Outcome::Limit(_) | Outcome::NotModelled(_))),
        notifications: runs.iter().flat_map(notifications).collect(),
        results,
    };
    log.text()
}

/// What a log of this tool has.
pub(crate) struct Log {
    pub(crate) rules: Vec<Value>,
    /// Whether every run came to its end.
    pub(crate) whole: bool,
    pub(crate) notifications: Vec<Value>,
    pub(crate) results: Vec<Value>,
}

impl Log {
    /// The log as text, indented, with a final newline.
    pub(crate) fn text(self) -> Result<String, serde_json::Error> {
        pretty(&json!({
            "$schema": SCHEMA,
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "textbed",
                    "semanticVersion": env!("CARGO_PKG_VERSION"),
                    "rules": self.rules,
                }},
                "columnKind": "unicodeCodePoints",
                "invocations": [{
                    "executionSuccessful": self.whole,
                    "toolExecutionNotifications": self.notifications,
                }],
                "results": self.results,
            }],
        }))
    }
}

fn rule(row: &rules::RuleRow) -> Value {
    json!({
        "id": row.name,
        "shortDescription": {"text": row.summary},
        "help": {"text": row.explain, "markdown": row.explain},
        "defaultConfiguration": {"level": level(row.certain)},
        "properties": {"tags": [row.family.name()]},
    })
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Deny => "error",
        Level::Warn => "warning",
        Level::Allow => "none",
    }
}

fn result(run: &Run, f: &Finding) -> Value {
    let index = rules::RULES.iter().position(|row| row.id == f.rule);
    let mut result = json!({
        "ruleId": f.rule.name(),
        "level": level(f.level),
        "kind": "fail",
        "message": {"text": message(f)},
        "locations": [location(run, &f.at, None)],
        "partialFingerprints": {"textbed/1": f.fingerprint},
        "occurrenceCount": f.count.max(1),
        "properties": {
            "arch": f.arch.name(),
            "kernel": f.kernel,
            "confidence": f.confidence.name(),
            "blame": f.blame.name(),
            "operation": f.operation.name(),
            "missing": f.missing,
            "policy": run.policy,
            "scenario": run.name,
        },
    });
    if let Some(index) = index {
        result["ruleIndex"] = json!(index);
    }
    if let Some(because) = &f.because {
        result["relatedLocations"] = json!([location(run, because, Some(&because.label))]);
    }
    if !f.chain.is_empty() {
        result["codeFlows"] = json!([code_flow(run, f)]);
    }
    result
}

/// A run that ended with a CPU that waits for ever.
fn blocked(run: &Run, why: String) -> Value {
    let noted = run.notes.iter().find_map(|note| note.place.as_ref());
    let (path, line) = noted.map_or((run.input.path.as_str(), 1), |(path, line)| (path, *line));
    json!({
        "ruleId": BLOCKED,
        "ruleIndex": rules::RULES.len(),
        "level": "error",
        "kind": "fail",
        "message": {"text": format!("{}: {why}", run.title())},
        "locations": [physical(path, line)],
        "properties": {"arch": run.arch.name(), "kernel": run.kernel, "policy": run.policy},
    })
}

/// The message with what is missing and the help: services show little else.
fn message(f: &Finding) -> String {
    let mut text = f.message.clone();
    if !f.missing.is_empty() {
        text += &format!(". Missing: {}", f.missing.join("; "));
    }
    if let Some(help) = &f.help {
        text += &format!(". Help: {help}");
    }
    text
}

fn code_flow(run: &Run, f: &Finding) -> Value {
    let mut steps: Vec<Value> = Vec::new();
    if let Some(because) = &f.because {
        steps.push(json!({"location": location(run, because, Some(&because.label))}));
    }
    for step in &f.chain {
        let text = format!("{}: {} ({})", step.state.name(), step.what, step.operation);
        // A missing step happened nowhere: it is shown where it is missed.
        let site = step.site.as_ref().unwrap_or(&f.at);
        steps.push(json!({
            "location": location(run, site, Some(&text)),
            "state": {"step": {"text": step.state.name()}},
        }));
    }
    steps.push(json!({"location": location(run, &f.at, Some(&f.at.label))}));
    json!({"threadFlows": [{"locations": steps}]})
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
}

fn location(run: &Run, site: &Site, text: Option<&str>) -> Value {
    let (path, line) = site
        .origin
        .filter(|o| o.line > 0)
        .map_or((run.input.path.as_str(), 1), |o| (run.names.get(o.file), o.line));
    let mut location = physical(path, line);
    let symbol = site.symbol.as_deref().or(site.calls.last().map(String::as_str));
    if let Some(name) = symbol {
        location["logicalLocations"] = json!([{"fullyQualifiedName": name}]);
    }
    if let Some(text) = text {
        location["message"] = json!({"text": text});
    }
    location
}

/// A line of a file.
pub(crate) fn physical(path: &str, line: u32) -> Value {
    json!({
        "physicalLocation": {
            "artifactLocation": {"uri": uri(path)},
            "region": Region { start_line: line },
        },
    })
}

/// A path as a relative or absolute URI reference: what has a meaning in URIs is escaped.
fn uri(path: &str) -> String {
    let path = if path == "-" { "stdin" } else { path };
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

fn notifications(run: &Run) -> Vec<Value> {
    let mut all = Vec::new();
    let mut say = |level: &str, text: String| {
        all.push(json!({
            "level": level,
            "message": {"text": text},
            "locations": [{
                "physicalLocation": {"artifactLocation": {"uri": uri(&run.input.path)}},
            }],
        }));
    };
    let on = format!("{} on {}", run.name, run.arch);
    match &run.outcome {
        Outcome::Limit(what) => say("error", format!("{on}: a limit was reached: {what}")),
        Outcome::NotModelled(what) => say("error", format!("{on}: not modelled: {what}")),
        Outcome::Blocked { expected: true } => say("note", format!("{on}: blocked, as expected")),
        Outcome::Blocked { expected: false } => {}
        Outcome::Unchecked => say("warning", format!("{on}: nothing could be checked")),
        Outcome::Clean | Outcome::Findings => {}
    }
    for (rule, coverage) in &run.report.coverage {
        if let Coverage::NotCheckable(why) = coverage {
            say("note", format!("{on}: {} could not be checked: {why}", rule.name()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("scenarios/a b#1.tb"), "scenarios/a%20b%231.tb");
        assert_eq!(uri("-"), "stdin");
    }
}
