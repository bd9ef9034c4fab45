//! Reports of a made-up run: the document follows the schema, the text shows what a person needs.

mod fixture;

use std::collections::BTreeMap;

use fixture::run;
use textbed_arch::Arch;
use textbed_report::{Excerpt, Outcome, Run, json, text};

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
    let spoil: [(&str, serde_json::Value); 7] = [
        ("/runs/0/outcome", "fine".into()),
        ("/runs/0/findings/0/window/virt", 64.into()),
        ("/runs/0/findings/0/fingerprint", "0x12".into()),
        ("/runs/0/findings/0/cite", serde_json::json!([])),
        ("/runs/0/findings/0/less_sure", "some".into()),
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
        "note: certain; on arm64, kernel 6.12; 10 events after event 20; 2 times\n",
        "note: event 30, 1.500000 s, cpu 1: label of line 3: 0xffffc90000000040 (bpf pack+0x40), in",
        "\n          event 20, 1.500000 s, cpu 1: label of line 2: 0xffffc90000000040 (bpf pack+0x40)",
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
    let other = Run { arch: Arch::X86_64, outcome: Outcome::Blocked { expected: false }, ..run() };
    let table = text::stories(&[run(), other], 100);
    let header = table.lines().next().unwrap();
    assert!(header.contains("x86_64") && header.contains("arm64"));
    assert!(table.contains("blocked") && table.contains("missing-context-sync x2"), "{table}");
    let list = text::stories(&[run()], 32);
    let expected = "a story on arm64, kernel 6.12:\n    findings,\n    missing-context-sync x2\n";
    assert_eq!(list, expected);
}
