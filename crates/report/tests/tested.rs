//! Test results in every format: what was expected, what came, what differs, and where.

use serde_json::Value;
use textbed_arch::Arch;
use textbed_report::tested::{
    Came, Case, Difference, DifferenceKind, Ending, Expected, Found, Tested, Verdict, json, junit,
    ktap, sarif, text,
};
use textbed_report::text::{Problem, Style};

const SOURCE: &str = "scenario \"s\"\nexpect: wx-alias?\n";

fn problem(message: &str) -> Problem {
    Problem {
        message: message.into(),
        path: "a b.tb".into(),
        source: Some(SOURCE.into()),
        span: Some(21..30),
        label: String::new(),
        help: None,
        fatal: true,
    }
}

fn found() -> Found {
    Found {
        item: "missing-context-sync missing isb".into(),
        rule: "missing-context-sync",
        confidence: "certain",
        missing: vec!["isb on cpu 1".into()],
        line: Some(1),
        message: "CPU 1 runs a < b".into(),
        fingerprint: "0123456789abcdef".into(),
    }
}

/// Agrees.
fn good() -> Case {
    Case {
        arch: Arch::Arm64,
        kernel: "6.12".into(),
        reading: "mapped",
        policy: "newest",
        seed: None,
        expected: Some(Expected { line: 2, items: vec![], end: Ending::Ended }),
        came: Some(Came { end: Ending::Ended, reason: None, found: vec![] }),
        differences: vec![],
    }
}

fn wrong(policy: &'static str, seed: Option<u64>) -> Case {
    let difference =
        |kind, message: &str| Difference { kind, line: Some(2), problem: problem(message) };
    Case {
        policy,
        seed,
        expected: Some(Expected { line: 2, items: vec!["wx-alias?".into()], end: Ending::Ended }),
        came: Some(Came { end: Ending::Ended, reason: None, found: vec![found()] }),
        differences: vec![
            difference(DifferenceKind::NotFound, "expected and not found: wx-alias?"),
            difference(DifferenceKind::NotExpected, "found and not expected: a < b # SKIP"),
        ],
        ..good()
    }
}

fn silent() -> Case {
    Case { expected: None, arch: Arch::X86_64, ..good() }
}

fn not_run() -> Case {
    let problem = problem("the story needs a feature");
    Case {
        arch: Arch::Ppc64le,
        came: None,
        differences: vec![Difference { kind: DifferenceKind::NotRun, line: None, problem }],
        ..good()
    }
}

fn file(path: &str, cases: Vec<Case>) -> Tested {
    let (path, name) = (path.to_owned(), "s".to_owned());
    Tested { path, name, sha256: "0".repeat(64), unusable: vec![], cases }
}

/// A file that differs, one that agrees, one that cannot be used, one of which nothing is said.
fn all() -> Vec<Tested> {
    let unusable =
        Tested { unusable: vec![problem("unknown word `awiat`")], ..file("broken.tb", vec![]) };
    vec![
        file("a b.tb", vec![wrong("newest", None), wrong("random", Some(3)), good(), not_run()]),
        file("good.tb", vec![good()]),
        unusable,
        file("silent.tb", vec![silent()]),
    ]
}

fn validator() -> jsonschema::Validator {
    let schema = serde_json::from_str(json::SCHEMA).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is a schema")
}

#[test]
fn the_document_follows_the_schema_and_has_both_sides() {
    let document: Value = serde_json::from_str(&json::document(&all()).unwrap()).unwrap();
    let errors: Vec<String> = validator().iter_errors(&document).map(|e| e.to_string()).collect();
    assert_eq!(errors, [] as [String; 0]);
    let files = document["files"].as_array().unwrap();
    let verdicts: Vec<&str> = files.iter().map(|f| f["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["differs", "agrees", "unusable", "agrees"]);
    let case = &files[0]["cases"][1];
    assert_eq!((&case["policy"], &case["seed"]), (&"random".into(), &3.into()));
    assert_eq!(case["expected"]["items"][0], "wx-alias?");
    assert_eq!(case["came"]["found"][0]["rule"], "missing-context-sync");
    assert_eq!(case["differences"][1]["kind"], "not-expected");
    assert_eq!(files[3]["cases"][0]["verdict"], "nothing-expected");
}

#[test]
fn the_schema_refuses_what_the_contract_forbids() {
    let good: Value = serde_json::from_str(&json::document(&all()).unwrap()).unwrap();
    let validator = validator();
    let spoil: [(&str, Value); 8] = [
        ("/schema", "textbed-test/2".into()),
        ("/files/0/verdict", "fine".into()),
        ("/files/0/cases/0/policy", "slow".into()),
        ("/files/0/cases/0/expected/line", 0.into()),
        ("/files/0/cases/0/came/found/0/fingerprint", "0x12".into()),
        ("/files/0/cases/0/differences/0/kind", "odd".into()),
        // What agrees has no differences, and what did not run gave nothing.
        ("/files/0/cases/0/verdict", "agrees".into()),
        ("/files/0/cases/0/came", Value::Null),
    ];
    for (place, wrong) in spoil {
        let mut document = good.clone();
        *document.pointer_mut(place).unwrap_or_else(|| panic!("{place} is not there")) = wrong;
        assert!(!validator.is_valid(&document), "{place}");
    }
}

#[test]
fn junit_has_a_case_a_run_and_nothing_fails_but_what_differs() {
    let xml = junit::document(&all()).unwrap();
    let root = xml.lines().find(|l| l.starts_with("<testsuites ")).expect("a root element");
    assert!(root.contains("tests=\"7\" failures=\"2\" errors=\"2\""), "{root}");
    assert!(xml.contains("<testsuite name=\"silent.tb\" tests=\"1\" skipped=\"1\""), "{xml}");
    let name = "name=\"arm64, kernel 6.12, reading mapped, policy random (seed 3)\"";
    assert!(xml.contains(&format!("{name} classname=\"a b.tb\"")), "{xml}");
    assert!(xml.contains("expected: wx-alias? (line 2)\ncame: missing-context-sync"), "{xml}");
    assert!(xml.contains("a &lt; b") && xml.contains("type=\"not-found\""), "{xml}");
    assert!(xml.contains("unknown word `awiat`"), "{xml}");
}

#[test]
fn ktap_plans_are_kept_and_messages_hold_no_directive() {
    let text = ktap::document(&all());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..5],
        ["KTAP version 1", "1..4", "  KTAP version 1", "  # Subtest: a b.tb", "  1..4"]
    );
    let results = |prefix: &str| {
        let result = |l: &&str| {
            let rest = l.strip_prefix(prefix).unwrap_or(" ");
            rest.starts_with("ok ") || rest.starts_with("not ok ")
        };
        lines.iter().copied().filter(result).collect::<Vec<_>>()
    };
    assert_eq!(
        results(""),
        [
            "not ok 1 a b.tb",
            "ok 2 good.tb",
            "not ok 3 broken.tb",
            "ok 4 silent.tb # SKIP no expect line applies"
        ]
    );
    let inner: Vec<bool> = results("  ").iter().map(|l| l.starts_with("  ok")).collect();
    assert_eq!(inner, [false, false, true, false, true, true]);
    assert!(text.contains("  # came: missing-context-sync missing isb\n"), "{text}");
    assert!(text.contains("  # not-found at line 2: expected and not found: wx-alias?\n"));
    // A directive counts in a result line only.
    assert!(results("  ").iter().all(|l| !l.contains("a < b")));
}

#[test]
fn sarif_has_one_result_for_what_every_policy_shows() {
    let log: Value = serde_json::from_str(&sarif::document(&all()).unwrap()).unwrap();
    let run = &log["runs"][0];
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    let first = &results[0];
    assert_eq!((&first["ruleId"], &first["occurrenceCount"]), (&"not-found".into(), &2.into()));
    let index = usize::try_from(first["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "not-found");
    let place = &first["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a%20b.tb");
    assert_eq!(place["region"]["startLine"], 2);
    assert_eq!(first["properties"]["cases"].as_array().unwrap().len(), 2);
    let invocation = &run["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], false);
    let said = invocation["toolExecutionNotifications"].to_string();
    assert!(said.contains("cannot be used: unknown word") && said.contains("applies to 1 runs"));
}

#[test]
fn text_has_a_line_a_file_and_tells_a_difference_once() {
    let said = text::document(&all(), Style::default());
    assert!(said.contains("DIFFERS a b.tb (4 runs)\nerror: expected and not found: wx-alias? on"));
    assert_eq!(said.matches("expected and not found").count(), 1, "{said}");
    assert!(said.contains("ok      good.tb (1 runs)\n") && said.contains("UNUSED  broken.tb\n"));
    assert!(said.ends_with("2 passed, 1 failed, 1 unusable\n"), "{said}");
    let verdicts = all()[0].cases.iter().map(Case::verdict).collect::<Vec<_>>();
    assert_eq!(verdicts[1..], [Verdict::Differs, Verdict::Agrees, Verdict::NotRun]);
}
