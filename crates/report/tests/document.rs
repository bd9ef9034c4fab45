//! Reports of a made-up run: the document follows the schema, the text shows what a person needs.

use std::collections::BTreeMap;

use textbed_arch::{Arch, Cite, CpuId, Pfn, VirtAddr};
use textbed_check::{
    Blame, ChainStep, Confidence, Coverage, Finding, Level, Report, Site, StepState, Window,
    WindowStatus, WxWindow, rules::RuleId,
};
use textbed_event::{CpuState, Kind, NameTable, Origin, Recorder, View};
use textbed_report::{Excerpt, Input, InputKind, Note, Outcome, Run, json, text};

const SOURCE: &str = "cpu 0 {\n    set_memory_ro(pack, 512 pages)\n    f(pack)\n}\n";

fn site(line: u32, offset: u64, len: u32, names: &Names) -> Site {
    Site {
        seq: u64::from(line) * 10,
        at_ns: Some(1_500_000_123),
        kind: Kind::CallReturned,
        cpu: CpuId(1),
        virt: Some(VirtAddr(0xffff_c900_0000_0040)),
        symbol: Some("bpf pack+0x40".into()),
        origin: Some(Origin { file: names.file, line, offset, len }),
        calls: vec!["outer".into(), "inner".into()],
        label: format!("label of line {line}"),
    }
}

struct Names {
    table: NameTable,
    file: textbed_event::NameId,
}

fn names() -> Names {
    let mut recorder = Recorder::new();
    let file = recorder.name("a.tb");
    recorder.emit(CpuId(0), View::Cpu { state: CpuState::Online });
    let mut table = NameTable::default();
    table.absorb(&recorder.take());
    Names { table, file }
}

fn finding(names: &Names) -> Finding {
    Finding {
        rule: RuleId::MissingContextSync,
        level: Level::Deny,
        confidence: Confidence::Certain,
        blame: Blame::Caller,
        arch: Arch::Arm64,
        kernel: Some("6.12".into()),
        message: "CPU 1 runs code that it may have fetched before it was written".into(),
        at: site(3, 47, 7, names),
        because: Some(site(2, 12, 30, names)),
        missing: vec!["isb on cpu 1".into()],
        window: Window::Fetch { cpu: CpuId(1), virt: VirtAddr(0x40), low: 0, high: 1 },
        chain: vec![
            ChainStep {
                what: "old lines leave the instruction caches",
                operation: "ic ivau; dsb ish".into(),
                state: StepState::Done,
                site: Some(site(2, 12, 30, names)),
                cite: Cite::read("Arm ARM B2.7.4.2"),
            },
            ChainStep {
                what: "the CPU drops what it fetched ahead",
                operation: "isb".into(),
                state: StepState::Missing,
                site: None,
                cite: Cite::memory("somewhere"),
            },
        ],
        notes: vec!["a note".into()],
        help: Some("execute an isb on cpu 1 before the call".into()),
        cites: vec![Cite::read("Arm ARM K11.5.2.2")],
        count: 2,
        fingerprint: "0123456789abcdef".into(),
    }
}

fn run() -> Run {
    let names = names();
    let window = |status, closed| WxWindow {
        status,
        rule: RuleId::WxAlias,
        pfn: Some(Pfn(0x1234)),
        frames: 3,
        write_at: VirtAddr(0x1000),
        exec_at: VirtAddr(0x2000),
        owner: "bpf pack".into(),
        count: 5,
        longest_ns: None,
        opened: site(1, 0, 0, &names),
        closed,
    };
    let report = Report {
        arch: Some(Arch::Arm64),
        kernel: Some("6.12".into()),
        findings: vec![finding(&names)],
        left_off: 0,
        windows: vec![
            window(WindowStatus::Platform, None),
            window(
                WindowStatus::Protocol,
                Some(Site { at_ns: Some(1_500_002_000), ..site(2, 0, 0, &names) }),
            ),
        ],
        coverage: RuleId::ALL
            .iter()
            .zip(
                [Coverage::Checked(7), Coverage::NotExercised, Coverage::NotCheckable("no frames")]
                    .iter()
                    .cycle(),
            )
            .map(|(rule, coverage)| (*rule, *coverage))
            .collect(),
        events: 99,
        notes: vec!["step 3 was not recorded".into()],
    };
    Run {
        input: Input { kind: InputKind::Scenario, path: "a.tb".into(), sha256: "ab".repeat(32) },
        name: "a story".into(),
        arch: Arch::Arm64,
        kernel: Some("6.12".into()),
        policy: Some("random".into()),
        seed: Some(7),
        reading: "mapped".into(),
        cmodx: true,
        overrides: vec!["--arch arm64".into()],
        outcome: Outcome::Findings,
        notes: vec![Note { text: "call returned 42".into(), place: Some(("a.tb".into(), 3)) }],
        report,
        names: names.table,
        excerpts: BTreeMap::from([("a.tb".to_owned(), Excerpt::Whole(SOURCE.into()))]),
        summary: Vec::new(),
    }
}

fn validator() -> jsonschema::Validator {
    let schema = serde_json::from_str(json::SCHEMA).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is a schema")
}

#[test]
fn the_document_follows_the_schema() {
    let document: serde_json::Value =
        serde_json::from_str(&json::document(&[run(), run()]).unwrap()).unwrap();
    let errors: Vec<String> = validator().iter_errors(&document).map(|e| e.to_string()).collect();
    assert_eq!(errors, [] as [String; 0]);
    assert_eq!(document["runs"][0]["findings"][0]["window"]["virt"], "0x40");
    assert_eq!(document["runs"][0]["findings"][0]["events"][1]["place"]["line"], 2);
}

#[test]
fn the_schema_refuses_what_the_contract_forbids() {
    let good: serde_json::Value = serde_json::from_str(&json::document(&[run()]).unwrap()).unwrap();
    let validator = validator();
    let spoil: [(&str, serde_json::Value); 6] = [
        ("/runs/0/outcome", "fine".into()),
        ("/runs/0/findings/0/window/virt", 64.into()),
        ("/runs/0/findings/0/fingerprint", "0x12".into()),
        ("/runs/0/findings/0/cite", serde_json::json!([])),
        ("/runs/0/coverage/0/state", "ok".into()),
        ("/schema", "textbed-report/2".into()),
    ];
    for (place, wrong) in spoil {
        let mut document = good.clone();
        *document.pointer_mut(place).unwrap_or_else(|| panic!("{place} is not there")) = wrong;
        assert!(!validator.is_valid(&document), "{place}");
    }
}

#[test]
fn a_finding_reads_like_a_compilers() {
    let run = run();
    let shown = text::finding(&run, &run.report.findings[0], text::Style::default());
    for expected in [
        "error[missing-context-sync]: CPU 1 runs code",
        "--> a.tb:3:5",
        "3 |     f(pack)\n  |     ^^^^^^^ label of line 3",
        "------------------------------ label of line 2",
        "at 1.500000 s, 2 times, in outer > inner; certain",
        "missing: isb on cpu 1",
        "done     old lines leave the instruction caches: ic ivau; dsb ish (cpu 1 at event 20)",
        "MISSING  the CPU drops what it fetched ahead: isb",
        "help: execute an isb on cpu 1 before the call",
        "see Arm ARM K11.5.2.2 [read]",
    ] {
        assert!(shown.contains(expected), "missing {expected:?} in:\n{shown}");
    }
    assert!(!shown.contains('\x1b'));
    let coloured = text::Style { colour: true, ..text::Style::default() };
    assert!(text::finding(&run, &run.report.findings[0], coloured).contains('\x1b'));
}

#[test]
fn a_line_of_a_log_is_quoted_with_its_number() {
    let mut run = run();
    let lines = BTreeMap::from([(3, "  task-1 [001] 5.0: f: (f+0x4)".to_owned())]);
    run.excerpts = BTreeMap::from([("a.tb".to_owned(), Excerpt::Lines(lines))]);
    let shown = text::finding(&run, &run.report.findings[0], text::Style::default());
    assert!(shown.contains("3 |   task-1 [001] 5.0: f: (f+0x4)"), "{shown}");
}

#[test]
fn windows_are_counted_by_status_and_limits_are_said() {
    let shown = text::run_report(&run(), text::Style::default());
    let row = |word: &str| {
        let line = shown.lines().find(|l| l.trim_start().starts_with(word));
        line.unwrap_or_else(|| panic!("no {word} in:\n{shown}")).to_owned()
    };
    assert!(row("platform").contains("still open"));
    assert!(row("protocol").contains("1.877 us"), "{}", row("protocol"));
    assert!(shown.contains("step 3 was not recorded"));
    assert!(shown.contains("not checkable"));
    assert!(shown.contains("[--arch arm64]"));
}

#[test]
fn the_table_has_a_cell_for_each_architecture() {
    let other = Run { arch: Arch::X86_64, outcome: Outcome::Blocked, ..run() };
    let table = text::stories(&[run(), other]);
    let header = table.lines().next().unwrap();
    assert!(header.contains("x86_64") && header.contains("arm64"));
    assert!(table.contains("blocked") && table.contains("missing-context-sync x2"), "{table}");
}
