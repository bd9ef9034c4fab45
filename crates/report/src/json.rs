//! The document of the schema `textbed-report/1`.
//!
//! Addresses are strings in hexadecimal, so that no reader rounds them; numbers are numbers. The
//! schema is [`SCHEMA`], a file of the repository; tests hold documents to it.

use serde::Serialize;
use textbed_check::{Coverage, Finding, Site, Window, WxWindow};
use textbed_event::NameTable;

use crate::log::LogSummary;
use crate::run::{Outcome, Run};

/// The schema, as JSON text.
pub const SCHEMA: &str = include_str!("../schema/textbed-report-1.schema.json");

/// The runs as one JSON document, indented, with a final newline.
///
/// # Errors
/// None in practice: every value has a JSON form; the serialiser's type says otherwise.
pub fn document(runs: &[Run]) -> Result<String, serde_json::Error> {
    let runs = runs.iter().map(run).collect();
    let document =
        Document { schema: "textbed-report/1", version: env!("CARGO_PKG_VERSION"), runs };
    pretty(&document)
}

/// Any document as this crate writes JSON: indented, with a final newline.
pub(crate) fn pretty(document: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    version: &'static str,
    runs: Vec<RunJson<'a>>,
}

#[derive(Serialize)]
struct RunJson<'a> {
    input: InputJson<'a>,
    name: &'a str,
    arch: &'static str,
    kernel: Option<&'a str>,
    policy: Option<&'a str>,
    seed: Option<u64>,
    reading: &'a str,
    cmodx: bool,
    overrides: &'a [String],
    outcome: &'static str,
    reason: Option<&'a str>,
    events: u64,
    notes: Vec<NoteJson<'a>>,
    findings: Vec<FindingJson<'a>>,
    findings_left_off: u64,
    windows: Vec<WxJson<'a>>,
    coverage: Vec<CoverageJson>,
    limits: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a LogSummary>,
}

#[derive(Serialize)]
struct InputJson<'a> {
    kind: &'static str,
    path: &'a str,
    sha256: &'a str,
}

#[derive(Serialize)]
struct NoteJson<'a> {
    text: &'a str,
    place: Option<PlaceJson>,
}

#[derive(Serialize)]
struct PlaceJson {
    file: String,
    line: u32,
}

#[derive(Serialize)]
struct FindingJson<'a> {
    rule: &'static str,
    level: &'static str,
    confidence: &'static str,
    blame: &'static str,
    operation: &'static str,
    fingerprint: &'a str,
    message: &'a str,
    missing: &'a [String],
    window: WindowJson,
    chain: Vec<StepJson>,
    notes: &'a [String],
    help: Option<&'a str>,
    cite: Vec<CiteJson>,
    count: u64,
    less_sure: u64,
    events: Vec<SiteJson<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum WindowJson {
    Fetch { cpu: u16, virt: String, low: u32, high: u32 },
    Translation { cpu: u16, virt: String, granted: &'static str, tables: &'static str },
    WriteExec { write_at: String, exec_at: String, pfn: String, frames: u64 },
    Other,
}

#[derive(Serialize)]
struct StepJson {
    what: &'static str,
    operation: String,
    state: &'static str,
    event: Option<u64>,
    cite: CiteJson,
}

#[derive(Serialize)]
struct CiteJson {
    source: &'static str,
    verified: String,
}

#[derive(Serialize)]
struct SiteJson<'a> {
    seq: u64,
    at_ns: Option<u64>,
    kind: String,
    cpu: u16,
    virt: Option<String>,
    symbol: Option<&'a str>,
    place: Option<PlaceJson>,
    calls: &'a [String],
    label: &'a str,
}

#[derive(Serialize)]
struct WxJson<'a> {
    status: &'static str,
    rule: &'static str,
    pfn: Option<String>,
    frames: u64,
    write_at: String,
    exec_at: String,
    owner: &'a str,
    count: u64,
    longest_ns: Option<u64>,
    opened: SiteJson<'a>,
    closed: Option<SiteJson<'a>>,
}

#[derive(Serialize)]
struct CoverageJson {
    rule: &'static str,
    state: &'static str,
    times: Option<u64>,
    why: Option<&'static str>,
}

fn run(run: &Run) -> RunJson<'_> {
    let names = &run.names;
    RunJson {
        input: InputJson {
            kind: run.input.kind.text(),
            path: &run.input.path,
            sha256: &run.input.sha256,
        },
        name: &run.name,
        arch: run.arch.name(),
        kernel: run.kernel.as_deref(),
        policy: run.policy.as_deref(),
        seed: run.seed,
        reading: &run.reading,
        cmodx: run.cmodx,
        overrides: &run.overrides,
        outcome: run.outcome.text(),
        reason: match &run.outcome {
            Outcome::Limit(why) | Outcome::NotModelled(why) => Some(why),
            _ => None,
        },
        events: run.report.events,
        notes: run
            .notes
            .iter()
            .map(|n| NoteJson {
                text: &n.text,
                place: n.place.clone().map(|(file, line)| PlaceJson { file, line }),
            })
            .collect(),
        findings: run.report.findings.iter().map(|f| finding(names, f)).collect(),
        findings_left_off: run.report.left_off,
        windows: run.report.windows.iter().map(|w| wx(names, w)).collect(),
        coverage: run.report.coverage.iter().map(|(rule, c)| coverage(rule.name(), *c)).collect(),
        limits: &run.report.notes,
        log: run.log.as_ref(),
    }
}

fn finding<'a>(names: &NameTable, f: &'a Finding) -> FindingJson<'a> {
    FindingJson {
        rule: f.rule.name(),
        level: f.level.name(),
        confidence: f.confidence.name(),
        blame: f.blame.name(),
        operation: f.operation.name(),
        fingerprint: &f.fingerprint,
        message: &f.message,
        missing: &f.missing,
        window: window(&f.window),
        chain: f
            .chain
            .iter()
            .map(|s| StepJson {
                what: s.what,
                operation: s.operation.clone(),
                state: s.state.name(),
                event: s.site.as_ref().map(|site| site.seq),
                cite: cite(&s.cite),
            })
            .collect(),
        notes: &f.notes,
        help: f.help.as_deref(),
        cite: f.cites.iter().map(cite).collect(),
        count: f.count,
        less_sure: f.less_sure,
        events: [&f.at].into_iter().chain(&f.because).map(|s| site(names, s)).collect(),
    }
}

fn window(window: &Window) -> WindowJson {
    match *window {
        Window::Fetch { cpu, virt, low, high } => {
            WindowJson::Fetch { cpu: cpu.0, virt: virt.to_string(), low, high }
        }
        Window::Translation { cpu, virt, granted, tables } => {
            WindowJson::Translation { cpu: cpu.0, virt: virt.to_string(), granted, tables }
        }
        Window::WriteExec { write_at, exec_at, pfn, frames } => WindowJson::WriteExec {
            write_at: write_at.to_string(),
            exec_at: exec_at.to_string(),
            pfn: format!("{:#x}", pfn.0),
            frames,
        },
        Window::Other => WindowJson::Other,
    }
}

fn cite(cite: &textbed_arch::Cite) -> CiteJson {
    CiteJson { source: cite.source, verified: cite.evidence.to_string() }
}

fn place(names: &NameTable, origin: textbed_event::Origin) -> PlaceJson {
    PlaceJson { file: names.get(origin.file).to_owned(), line: origin.line }
}

fn site<'a>(names: &NameTable, s: &'a Site) -> SiteJson<'a> {
    SiteJson {
        seq: s.seq,
        at_ns: s.at_ns,
        kind: format!("{:?}", s.kind),
        cpu: s.cpu.0,
        virt: s.virt.map(|v| v.to_string()),
        symbol: s.symbol.as_deref(),
        place: s.origin.map(|o| place(names, o)),
        calls: &s.calls,
        label: &s.label,
    }
}

fn wx<'a>(names: &NameTable, w: &'a WxWindow) -> WxJson<'a> {
    WxJson {
        status: w.status.name(),
        rule: w.rule.name(),
        pfn: w.pfn.map(|p| format!("{:#x}", p.0)),
        frames: w.frames,
        write_at: w.write_at.to_string(),
        exec_at: w.exec_at.to_string(),
        owner: &w.owner,
        count: w.count,
        longest_ns: w.longest_ns,
        opened: site(names, &w.opened),
        closed: w.closed.as_ref().map(|s| site(names, s)),
    }
}

fn coverage(rule: &'static str, coverage: Coverage) -> CoverageJson {
    let (times, why) = match coverage {
        Coverage::Checked(times) => (Some(times), None),
        Coverage::NotCheckable(why) => (None, Some(why)),
        Coverage::NotExercised => (None, None),
    };
    CoverageJson { rule, state: coverage.name(), times, why }
}
