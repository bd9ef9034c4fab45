//! The document of the schema `textbed-test/1`.
//!
//! The schema is [`SCHEMA`], a file of the repository; tests hold documents to it.

use serde::Serialize;

use super::{Case, Difference, Expected, Found, Tested};
use crate::json::pretty;

/// The schema, as JSON text.
pub const SCHEMA: &str = include_str!("../../schema/textbed-test-1.schema.json");

/// The results as one JSON document, indented, with a final newline.
///
/// # Errors
/// None in practice: every value has a JSON form; the serialiser's type says otherwise.
pub fn document(all: &[Tested]) -> Result<String, serde_json::Error> {
    let document = Document {
        schema: "textbed-test/1",
        version: env!("CARGO_PKG_VERSION"),
        files: all.iter().map(file).collect(),
    };
    pretty(&document)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    version: &'static str,
    files: Vec<FileJson<'a>>,
}

#[derive(Serialize)]
struct FileJson<'a> {
    path: &'a str,
    name: &'a str,
    sha256: &'a str,
    verdict: &'static str,
    unusable: Vec<&'a str>,
    cases: Vec<CaseJson<'a>>,
}

#[derive(Serialize)]
struct CaseJson<'a> {
    arch: &'static str,
    kernel: &'a str,
    reading: &'static str,
    policy: &'static str,
    seed: Option<u64>,
    verdict: &'static str,
    expected: Option<ExpectedJson<'a>>,
    came: Option<CameJson<'a>>,
    differences: Vec<DifferenceJson<'a>>,
}

#[derive(Serialize)]
struct ExpectedJson<'a> {
    line: u32,
    end: &'static str,
    items: &'a [String],
}

#[derive(Serialize)]
struct CameJson<'a> {
    end: &'static str,
    reason: Option<&'a str>,
    found: Vec<FoundJson<'a>>,
}

#[derive(Serialize)]
struct FoundJson<'a> {
    item: &'a str,
    rule: &'static str,
    confidence: &'static str,
    missing: &'a [String],
    line: Option<u32>,
    message: &'a str,
    fingerprint: &'a str,
}

#[derive(Serialize)]
struct DifferenceJson<'a> {
    kind: &'static str,
    message: &'a str,
    line: Option<u32>,
}

fn file(tested: &Tested) -> FileJson<'_> {
    FileJson {
        path: &tested.path,
        name: &tested.name,
        sha256: &tested.sha256,
        verdict: tested.verdict().name(),
        unusable: tested.unusable.iter().map(|p| p.message.as_str()).collect(),
        cases: tested.cases.iter().map(case).collect(),
    }
}

fn case(case: &Case) -> CaseJson<'_> {
    CaseJson {
        arch: case.arch.name(),
        kernel: &case.kernel,
        reading: case.reading,
        policy: case.policy,
        seed: case.seed,
        verdict: case.verdict().name(),
        expected: case.expected.as_ref().map(expected),
        came: case.came.as_ref().map(|came| CameJson {
            end: came.end.name(),
            reason: came.reason.as_deref(),
            found: came.found.iter().map(found).collect(),
        }),
        differences: case.differences.iter().map(difference).collect(),
    }
}

fn expected(e: &Expected) -> ExpectedJson<'_> {
    ExpectedJson { line: e.line, end: e.end.name(), items: &e.items }
}

fn found(f: &Found) -> FoundJson<'_> {
    FoundJson {
        item: &f.item,
        rule: f.rule,
        confidence: f.confidence,
        missing: &f.missing,
        line: f.line,
        message: &f.message,
        fingerprint: &f.fingerprint,
    }
}

fn difference(d: &Difference) -> DifferenceJson<'_> {
    DifferenceJson { kind: d.kind.name(), message: &d.problem.message, line: d.line }
}
