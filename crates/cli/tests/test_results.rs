//! `textbed test --format`: every run with what was expected and what came, in each format; what
//! the command ends with does not depend on the format.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const AGREES: &str = "scenario \"x\"\narch x86_64, arm64\ncpu 0 {\n  a = vmalloc(4K)\n}\n\
                      expect: none\n";

fn textbed(args: &[&str], folder: &Path) -> Output {
    let command = Path::new(env!("CARGO_BIN_EXE_textbed"));
    let mut command = Command::new(command);
    command.args(args).current_dir(folder).output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with those files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("writing a scenario");
    }
    folder
}

#[test]
fn every_format_has_every_run_and_the_status_stays() {
    let differs = AGREES.replace("none", "wx-mapping").replace("arch", "kernel 6.1, 6.12\narch");
    let silent = AGREES.replace("expect: none\n", "");
    let broken = AGREES.replace("vmalloc", "vmaloc");
    let files: [(&str, &str, i32); 4] =
        [("a.tb", AGREES, 0), ("b.tb", &differs, 1), ("c.tb", &silent, 0), ("d.tb", &broken, 2)];
    for (name, story, status) in files {
        let folder = folder(&[(name, story)]);
        let plain = textbed(&["test", name], folder.path());
        assert_eq!(plain.status.code(), Some(status), "{}", text(&plain.stderr));
        for form in ["text", "json", "junit", "ktap", "sarif"] {
            let output = textbed(&["test", name, "--format", form], folder.path());
            assert_eq!(output.status.code(), Some(status), "{form}: {}", text(&output.stderr));
            let to_file = format!("{form}=out");
            let filed = textbed(&["test", name, "--format", &to_file], folder.path());
            assert_eq!(filed.status.code(), Some(status), "{form}: {}", text(&filed.stderr));
            assert!(filed.stdout.is_empty(), "{form}");
            let written = std::fs::read(folder.path().join("out")).expect("the file was written");
            if form == "text" {
                assert_eq!(output.stdout, plain.stdout);
                let total = |bytes: &[u8]| text(bytes).lines().last().map(str::to_owned);
                assert_eq!(total(&written), total(&plain.stdout));
                assert!(total(&written).is_some_and(|line| line.contains(" passed, ")));
            } else {
                assert_eq!(text(&written), text(&output.stdout), "{form}");
            }
        }
    }
    let stories: Vec<(&str, &str)> = files.iter().map(|(name, story, _)| (*name, *story)).collect();
    let folder = folder(&stories);
    let all: Vec<String> =
        ["json", "junit", "ktap", "sarif"].map(|f| format!("--format={f}={f}")).into();
    let mut args = vec!["test", ".", "--seeds", "2"];
    args.extend(all.iter().map(String::as_str));
    assert_eq!(textbed(&args, folder.path()).status.code(), Some(2));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("written");

    let json: Value = serde_json::from_str(&read("json")).expect("JSON");
    let schema = textbed(&["schema", "test"], folder.path()).stdout;
    let schema: Value = serde_json::from_slice(&schema).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors: Vec<String> = validator.iter_errors(&json).map(|e| e.to_string()).collect();
    assert_eq!(errors, [] as [String; 0]);
    let files = json["files"].as_array().expect("files");
    let cases: Vec<usize> =
        files.iter().map(|f| f["cases"].as_array().expect("cases").len()).collect();
    // Architectures, kernels, and newest, stalest and two seeds; the last file was not run.
    assert_eq!(cases, [2 * 4, 2 * 2 * 4, 2 * 4, 0]);
    let verdicts: Vec<&str> =
        files.iter().map(|f| f["verdict"].as_str().expect("a word")).collect();
    assert_eq!(verdicts, ["agrees", "differs", "agrees", "unusable"]);
    let case = &files[1]["cases"][7];
    assert_eq!((&case["policy"], &case["seed"]), (&"random".into(), &2.into()));
    let (expected, came) = (&case["expected"], &case["came"]);
    assert_eq!((&expected["items"][0], &expected["line"]), (&"wx-mapping".into(), &7.into()));
    assert_eq!((&came["end"], &came["found"]), (&"ended".into(), &Value::Array(vec![])));
    assert_eq!(case["differences"][0]["kind"], "not-found");
    assert_eq!(case["differences"][0]["line"], 7);

    let junit = read("junit");
    assert!(junit.contains("tests=\"33\" failures=\"16\" errors=\"1\""), "{junit}");
    let ktap = read("ktap");
    assert!(ktap.starts_with("KTAP version 1\n1..4\n"), "{ktap}");
    assert_eq!(ktap.lines().filter(|l| l.starts_with("  not ok ")).count(), 16);
    let sarif: Value = serde_json::from_str(&read("sarif")).expect("JSON");
    let results = sarif["runs"][0]["results"].as_array().expect("results");
    // Four policies together, once for each architecture and kernel.
    assert_eq!(results.len(), 4);
    assert!(results.iter().all(|r| r["occurrenceCount"] == 4));
}

/// What cannot be run is no difference, in no format, and the exit status is that of `run`.
#[test]
fn an_option_that_cannot_be_used_is_exit_2() {
    let differs = AGREES.replace("none", "wx-mapping");
    let folder = folder(&[("a.tb", AGREES), ("b.tb", &differs)]);
    let wrong: [&[&str]; 4] = [
        &["--config", "nonsense=1"],
        &["--config", "page_size=3K"],
        &["--cpu", "nonsense=1"],
        &["--cpu", "x86_65.nonsense=1"],
    ];
    for option in wrong {
        for file in ["a.tb", "b.tb"] {
            let args = |command| [&[command, file], option].concat();
            let run = textbed(&args("run"), folder.path());
            assert_eq!(run.status.code(), Some(2), "{option:?}: {}", text(&run.stderr));
            let test = textbed(&args("test"), folder.path());
            assert_eq!(test.status.code(), Some(2), "{option:?}: {}", text(&test.stderr));
            assert_eq!(
                text(&test.stdout),
                format!(
                    "UNUSED  {file} (12 runs)\n\
                0 passed, 0 failed, 1 unusable\n"
                )
            );
            assert!(text(&test.stderr).contains("error: "), "{option:?}");
        }
    }
    // On one of the machines alone: the others still differ, and the worse of both is the status.
    let some = textbed(&["test", "b.tb", "--cpu", "arm64.nonsense=1"], folder.path());
    assert_eq!(some.status.code(), Some(2), "{}", text(&some.stderr));
    assert!(text(&some.stdout).starts_with("DIFFERS b.tb"), "{}", text(&some.stdout));
    let sarif = ["test", "a.tb", "--cpu", "nonsense=1", "--format", "sarif"];
    let sarif: Value =
        serde_json::from_slice(&textbed(&sarif, folder.path()).stdout).expect("JSON");
    assert_eq!(sarif["runs"][0]["invocations"][0]["executionSuccessful"], false);
}

#[test]
fn a_format_that_is_none_is_exit_2() {
    let folder = folder(&[("a.tb", AGREES)]);
    let output = textbed(&["test", "a.tb", "--format", "yaml"], folder.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("unknown format 'yaml'"), "{}", text(&output.stderr));
}
