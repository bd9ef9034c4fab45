//! The command as a user meets it: exit statuses, messages with places, reports, the same bytes
//! twice.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn textbed(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_textbed"))
        .args(args)
        .current_dir(root())
        .env_remove("NO_COLOR")
        .output()
        .expect("the command starts")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs over a file with this content and this name.
fn over(name: &str, content: &[u8], command: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("writing the input");
    let mut args = command.to_vec();
    let path = path.display().to_string();
    args.push(&path);
    textbed(&args)
}

const LOG: &str = "tests/logs/amd64-6.12/trace.txt.zst";

#[test]
fn an_assertion_that_fails_though_nothing_was_found_is_a_difference() {
    let story = |right: &str| {
        format!(
            "scenario \"x\"\narch x86_64\nkernel 6.12\ncpu 0 {{\n  a = vmalloc(4K)\n  \
             memcpy(a, jit(bkey_a_key))\n  n = load_u8(a)\n  assert n == {right}\n}}\n\
             expect: none\n"
        )
    };
    // The first byte of a key is its length in words.
    let output = over("story.tb", story("2").as_bytes(), &["test"]);
    assert_eq!(status(&output), 0, "{}", stdout(&output));
    let output = over("story.tb", story("7").as_bytes(), &["test"]);
    assert_eq!(status(&output), 1, "{}", stdout(&output));
    assert!(stderr(&output).contains("assert n == 7 failed: 2 on the left"), "{}", stderr(&output));
    assert!(stderr(&output).contains(":8:3"), "{}", stderr(&output));
    // Where the architecture leaves both open, it is none.
    for right in ["2", "7"] {
        let open = story(right).replace("none", "open");
        let output = over("story.tb", open.as_bytes(), &["test"]);
        assert_eq!(status(&output), 0, "{}", stdout(&output));
    }
}

#[test]
fn input_that_cannot_be_used_is_exit_2_with_place_and_reason() {
    let scenario = |text: &str| format!("scenario \"x\"\narch x86_64\n{text}\n");
    let cases = [
        (scenario("cpu 0 {\n  awiat x\n}"), "awiat", ":4:"),
        (scenario("cpu 0 {\n  set_memory_rp(0, 1)\n}"), "set_memory_rp", ":4:"),
        (scenario("cpu 0 {\n  a = vmalloc(4K"), "", ":"),
        ("scenario \"x\"\narch vax\ncpu 0 { }\n".to_owned(), "vax", ":2:6"),
        ("\0\u{1}\u{2}".to_owned(), "", ":1:1"),
        (String::new(), "", ""),
    ];
    for (text, word, place) in cases {
        let output = over("story.tb", text.as_bytes(), &["run"]);
        assert_eq!(status(&output), 2, "{text:?}");
        let said = stderr(&output);
        assert!(said.starts_with("error: ") && said.contains("story.tb"), "{said}");
        assert!(said.contains(word) && said.contains(place), "{word} {place} in {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let noise = over("story.tb", &[0xff, 0xfe, 0x00, 0x80], &["run"]);
    assert_eq!(status(&noise), 2);
    assert!(stderr(&noise).contains("UTF-8"), "{}", stderr(&noise));
}

#[test]
fn logs_that_cannot_be_used_are_exit_2() {
    let whole = std::fs::read(root().join(LOG)).expect("a committed log");
    let cases: [(&str, &[u8], &str); 4] = [
        ("trace.txt", b"", "empty"),
        ("trace.txt.zst", &whole[..whole.len() / 2], "trace.txt.zst"),
        ("trace.txt", &[0x7f, 0x00, 0xff, 0x0a, 0x80, 0x0a], "trace.txt"),
        ("trace.txt", b"no event here\nnor here\n", "no ftrace log"),
    ];
    for (name, content, word) in cases {
        let output = over(name, content, &["replay", "--arch", "x86_64", "--kernel", "6.12"]);
        let said = stderr(&output);
        assert_eq!(status(&output), 2, "{word}: {said}");
        assert!(said.contains(word), "{word} in {said}");
    }
}

#[test]
fn a_cpu_that_waits_for_ever_is_exit_1_unless_it_is_expected_to() {
    let story = |expect: &str| {
        format!(
            "scenario \"x\"\narch x86_64\ncpu 0 {{\n  await nothing\n}}\n\
                 cpu 1 {{\n  if 1 == 2 {{ publish nothing = 1 }}\n}}\n{expect}\n"
        )
    };
    let cases =
        [("", 1), ("expect: none", 1), ("expect: blocked", 0), ("expect arm64: blocked", 1)];
    for (expect, want) in cases {
        let output = over("story.tb", story(expect).as_bytes(), &["run"]);
        assert_eq!(status(&output), want, "{expect}: {}", stdout(&output));
        assert!(stdout(&output).contains("waits for `nothing`"), "{}", stdout(&output));
    }
}

#[test]
fn an_allow_is_for_its_own_rule_and_says_why() {
    // The level of what is found with these headers, and the exit status.
    let run = |allows: &str| {
        let text = format!("scenario \"s\"\n{allows}cpu 0 {{ p = vmalloc_exec(4096) }}\n");
        let output = over("s.tb", text.as_bytes(), &["run", "--arch", "arm64", "--format", "json"]);
        let report: Value = serde_json::from_str(&stdout(&output)).expect("a report");
        let findings = report["runs"][0]["findings"].as_array().expect("findings");
        let level = |rule: &str| {
            let finding = findings.iter().find(|f| f["rule"] == rule).expect("a finding of it");
            finding["level"].as_str().expect("a level").to_owned()
        };
        (level("wx-mapping"), level("missing-trap-fill"), status(&output))
    };
    let (wx, fill) = ("allow wx-mapping \"why\"\n", "allow missing-trap-fill \"why\"\n");
    for (allows, levels, ended) in [
        (String::new(), ["deny", "deny"], 1),
        (wx.to_owned(), ["allow", "deny"], 1),
        (fill.to_owned(), ["deny", "allow"], 1),
        (format!("{wx}{fill}"), ["allow", "allow"], 0),
    ] {
        let [of_wx, of_fill] = levels.map(str::to_owned);
        assert_eq!(run(&allows), (of_wx, of_fill, ended), "{allows}");
    }
    let silent = over("s.tb", b"scenario \"s\"\nallow wx-mapping\ncpu 0 { }\n", &["run"]);
    assert_eq!(status(&silent), 2);
    let said = stderr(&silent);
    assert!(said.contains("s.tb:2:") && said.contains("expected the reason"), "{said}");
}

#[test]
fn a_log_that_records_too_little_for_any_rule_is_not_clean() {
    let log = b"     a-1     [000] .....     1.000000: do_init_module: (do_init_module+0x4/0x40) \
                mod=0xffffffffc0201000 name=\"x\"\n";
    let command = |format: &'static str| {
        let more = ["replay", "--arch", "x86_64", "--kernel", "6.12", "--format", format];
        over("trace", log, &more)
    };
    let output = command("json");
    assert_eq!(status(&output), 3, "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["runs"][0]["outcome"], "unchecked");
    let output = command("text");
    // The headline may break anywhere: the path is as long as that of the temporary folder.
    let words = stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("nothing could be checked"), "{words}");
}

#[test]
fn arguments_that_cannot_be_used_are_exit_2() {
    let story = "scenarios/bpf-prog-pack.tb";
    for (args, word) in [
        (&["run", "no/such/file.tb"][..], "no/such/file.tb"),
        (&["replay", "no/such/log"], "no/such/log"),
        (&["run", story, "--arch", "vax"], "vax"),
        (&["run", story, "--kernel", "six"], "six"),
        (&["run", story, "--reading", "loose"], "loose"),
        (&["run", story, "--deny", "no-such-rule"], "no-such-rule"),
        (&["run", story, "--format", "yaml"], "yaml"),
        (&["run", story, "--cpu", "idc"], "idc"),
        (&["run", story, "--cpu", "warp=9"], "warp"),
        (&["explain", "no-such-rule"], "no-such-rule"),
        (&["frobnicate"], "frobnicate"),
        (&["run"], "FILE"),
    ] {
        let output = textbed(args);
        assert_eq!(status(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(word), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn one_unusable_input_does_not_stop_the_others() {
    let output = textbed(&["run", "no/such/file.tb", "scenarios/bpf-prog-pack-fixed.tb"]);
    assert_eq!(status(&output), 2);
    assert!(stdout(&output).contains("bpf-prog-pack-fixed"));
}

#[test]
fn tables_of_facts_can_be_listed_and_explained() {
    let rules = stdout(&textbed(&["list", "rules"]));
    let names: Vec<&str> =
        rules.lines().skip(2).filter_map(|l| l.split_whitespace().next()).collect();
    assert!(names.len() >= 12, "{rules}");
    for name in names {
        let page = textbed(&["explain", name]);
        assert_eq!(status(&page), 0, "{name}");
        assert!(stdout(&page).contains(name) && stdout(&page).lines().count() > 10, "{name}");
    }
    for what in ["scenarios", "calls", "ops", "options"] {
        let list = textbed(&["list", what]);
        assert_eq!(status(&list), 0, "{what}: {}", stderr(&list));
        assert!(stdout(&list).lines().count() > 5, "{what}");
    }
    let caps = stdout(&textbed(&["caps", "--arch", "arm64", "--kernel", "6.12"]));
    assert!(caps.contains("huge-area-refusal") && !caps.contains("x86_64, kernel"), "{caps}");
    for (of, id) in [(&["schema"][..], "textbed-report/1"), (&["schema", "test"], "textbed-test/1")]
    {
        let schema: Value = serde_json::from_slice(&textbed(of).stdout).expect("JSON");
        assert_eq!(schema["$id"], id);
    }
}

#[test]
fn a_recorded_log_is_accounted_for_line_by_line() {
    let output = textbed(&["replay", LOG, "--format", "json"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let run = &report["runs"][0];
    assert_eq!((&run["arch"], &run["kernel"]), (&"x86_64".into(), &"6.12.117+deb12-amd64".into()));
    let coverage = run["coverage"].as_array().expect("coverage");
    let state =
        |rule: &str| coverage.iter().find(|c| c["rule"] == rule).expect(rule)["state"].clone();
    assert_eq!(state("wx-mapping"), "checked");
    assert_eq!(state("missing-trap-fill"), "not-checkable");
    assert!(run["windows"].as_array().expect("windows").iter().all(|w| w["status"] != "violation"));
}

#[cfg(feature = "vcpu")]
mod with_cpus {
    use super::*;

    fn rules_by_arch(story: &str) -> Vec<(String, Vec<String>, Vec<String>)> {
        let path = format!("scenarios/{story}.tb");
        let output = textbed(&["run", &path, "--arch", "all", "--format", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let runs = report["runs"].as_array().expect("runs");
        assert_eq!(runs.len(), 3);
        runs.iter()
            .map(|run| {
                let at = |level: &str| -> Vec<String> {
                    let findings = run["findings"].as_array().expect("findings").iter();
                    let of_level = findings.filter(|f| f["level"] == level);
                    of_level.map(|f| f["rule"].as_str().expect("a name").to_owned()).collect()
                };
                (run["arch"].as_str().expect("a name").to_owned(), at("deny"), at("warn"))
            })
            .collect()
    }

    #[test]
    fn the_story_of_the_mail_differs_by_architecture() {
        for (arch, denied, _) in rules_by_arch("bpf-prog-pack") {
            let has = |rule: &str| denied.iter().any(|r| r == rule);
            let powerpc = arch == "ppc64le";
            assert_eq!(has("huge-mapping-refused"), powerpc, "{arch}");
            assert_eq!(has("ignored-error"), arch != "x86_64", "{arch}");
            assert_eq!(has("missing-trap-fill"), !powerpc, "{arch}");
        }
    }

    #[test]
    fn the_mended_story_has_nothing_at_deny_level() {
        for (arch, denied, _) in rules_by_arch("bpf-prog-pack-fixed") {
            assert!(denied.is_empty(), "{arch}: {denied:?}");
        }
        let output = textbed(&["run", "scenarios/bpf-prog-pack-fixed.tb"]);
        assert_eq!(status(&output), 0);
        assert_eq!(stdout(&output).matches("call(entry) returned 42").count(), 3);
    }

    /// Fingerprints of a story's findings in order.
    fn fingerprints(path: &str, more: &[&str]) -> Vec<String> {
        let mut args = vec!["run", path, "--format", "json"];
        args.extend(more);
        let report: Value = serde_json::from_slice(&textbed(&args).stdout).expect("JSON");
        let runs = report["runs"].as_array().expect("runs").iter();
        let findings = runs.flat_map(|r| r["findings"].as_array().expect("findings").clone());
        findings.map(|f| f["fingerprint"].as_str().expect("text").to_owned()).collect()
    }

    #[test]
    fn fingerprints_survive_lines_that_move_and_another_name() {
        let story = "scenarios/bpf-prog-pack.tb";
        let text = std::fs::read_to_string(root().join(story)).expect("a committed story");
        let moved = text.replacen("cpu 0 {", "# a\n# b\n\ncpu 0 {\n    # c", 1);
        assert_ne!(text, moved);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("renamed.tb");
        std::fs::write(&path, moved).expect("writing the input");
        let before = fingerprints(story, &[]);
        assert!(before.len() >= 8, "{before:?}");
        assert_eq!(fingerprints(&path.display().to_string(), &[]), before);
        // Another architecture is another fault.
        let [x86, arm] = ["x86_64", "arm64"].map(|arch| fingerprints(story, &["--arch", arch]));
        assert!(x86.iter().all(|f| !arm.contains(f)), "{x86:?} {arm:?}");
    }

    #[test]
    fn help_names_the_call_of_the_kernel_at_hand() {
        let run = |kernel: &str| {
            let story = "scenarios/bpf-prog-pack-fixed.tb";
            let args = ["run", story, "--arch", "x86_64", "--kernel", kernel];
            stdout(&textbed(&args)).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let (old, new) = (run("6.12"), run("6.18"));
        assert!(old.contains("in Linux 6.12 on x86_64: text_poke_sync()"), "{old}");
        assert!(new.contains("in Linux 6.18 on x86_64: smp_text_poke_sync_each_cpu()"), "{new}");
    }

    /// In the usual order CPU 1 is interrupted before it runs the code.
    const PUBLISHED_EARLY: &[u8] = b"scenario \"published-early\"
        arch arm64
        cpus 2
        cpu 0 {
            p = execmem_alloc(EXECMEM_BPF, 4096)
            bpf_fill_ill_insns(p, 4096)
            memcpy(p, code(ret42))
            try set_memory_rox(p, 1 pages)
            publish function = p
            flush_icache_range(p, p + 4096)
            kick_all_cpus_sync()
        }
        cpu 1 {
            await function
            r = call(function)
        }
        ";

    #[test]
    fn other_orders_add_what_they_find_once() {
        let run = |command: &[&str]| over("early.tb", PUBLISHED_EARLY, command);
        let one = run(&["run"]);
        assert_eq!(status(&one), 0);
        assert!(stderr(&one).contains("--seeds 20 tries others"), "{}", stderr(&one));
        let more = run(&["run", "--seeds", "6", "--format", "json"]);
        assert_eq!(status(&more), 1);
        let report: Value = serde_json::from_slice(&more.stdout).expect("JSON");
        let runs = report["runs"].as_array().expect("runs");
        assert!(runs[0]["seed"].is_null() && runs[0]["outcome"] == "clean", "{}", runs[0]);
        let mut seen = std::collections::BTreeSet::new();
        for run in &runs[1..] {
            let findings = run["findings"].as_array().expect("findings");
            assert!(run["seed"].is_u64() && !findings.is_empty(), "{run}");
            for finding in findings {
                assert!(seen.insert(finding["fingerprint"].to_string()), "{finding}");
            }
        }
        assert!(!seen.is_empty() && runs.len() < 7, "{}", runs.len());
        let text = stdout(&run(&["run", "--seeds", "6"]));
        let table = text.split("\n\n").next().unwrap_or_default();
        assert!(
            table.contains("findings") && table.contains("missing-icache-maintenance"),
            "{text}"
        );
    }

    /// Some orders of its CPUs are a deadlock, the usual one is not.
    const TWO_LOCKS: &[u8] = b"scenario \"two-locks\"
        arch arm64
        cpus 2
        cpu 0 {
            with lock a {
                with lock b { }
            }
        }
        cpu 1 {
            with lock b {
                with lock a { }
            }
        }
        ";

    #[test]
    fn another_order_that_does_not_end_is_shown_once() {
        let command = ["run", "--seeds", "20", "--format", "json"];
        let report: Value =
            serde_json::from_slice(&over("locks.tb", TWO_LOCKS, &command).stdout).expect("JSON");
        let runs = report["runs"].as_array().expect("runs");
        let outcomes: Vec<&Value> = runs.iter().map(|run| &run["outcome"]).collect();
        assert_eq!(outcomes, ["clean", "blocked"]);
    }

    #[test]
    fn two_runs_give_the_same_bytes() {
        for args in [
            &["run", "scenarios", "--format", "json"][..],
            &["run", "scenarios", "--policy", "random", "--seed", "7"],
            &["replay", "tests/logs/ppc64el-6.12/trace.txt.zst"],
        ] {
            let (first, second) = (textbed(args), textbed(args));
            assert!(!first.stdout.is_empty());
            assert_eq!(first.stdout, second.stdout, "{args:?}");
        }
    }

    #[test]
    fn flags_change_levels_in_the_order_given() {
        let story = "scenarios/bpf-prog-pack-fixed.tb";
        let run = |more: &[&str]| {
            let mut args = vec!["run", story, "--arch", "x86_64"];
            args.extend(more);
            status(&textbed(&args))
        };
        assert_eq!(run(&[]), 0);
        assert_eq!(run(&["--deny", "missing-context-sync"]), 1);
        let rule = "missing-context-sync";
        assert_eq!(run(&["--deny", rule, "--allow", rule]), 0);
        assert_eq!(run(&["--allow", rule, "--deny", rule]), 1);
        assert_eq!(run(&["--reading", "fresh", "--deny", rule]), 0);
    }

    #[test]
    fn a_difference_from_what_is_expected_is_exit_1() {
        let text = std::fs::read_to_string(root().join("scenarios/bpf-prog-pack-fixed.tb"))
            .expect("a committed story");
        let spoilt = text.replace("expect arm64: none", "expect arm64: wx-mapping");
        assert_ne!(text, spoilt);
        let output = over("story.tb", spoilt.as_bytes(), &["test"]);
        assert_eq!(status(&output), 1);
        assert!(stderr(&output).contains("expected and not found: wx-mapping on arm64"));
        assert!(stdout(&output).ends_with("0 passed, 1 failed\n"));
    }
}

#[test]
fn the_recorder_is_printed_and_what_a_kernel_lacks_is_said() {
    let script = textbed(&["record", "--arch", "x86_64", "--kernel", "6.12"]);
    assert_eq!(status(&script), 0);
    assert!(stdout(&script).starts_with("#!/bin/sh\n"));
    let program = textbed(&["record", "--arch", "arm64", "--via", "bpftrace"]);
    assert_eq!(status(&program), 0);
    assert!(stdout(&program).contains("kprobe:change_memory_common /@armed/ {"));

    let config = "tests/logs/amd64-6.12/config-6.12.117+deb12-amd64.zst";
    let found = textbed(&["record", "--arch", "amd64", "--kernel", "6.12", "--check", config]);
    assert_eq!(status(&found), 0);
    assert!(stdout(&found).contains(" of 6 things that a recording asks of a configuration"));
    let none = over(
        "config",
        b"# CONFIG_KPROBE_EVENTS is not set\nCONFIG_FTRACE=y\n",
        &["record", "--arch", "x86_64", "--check"],
    );
    assert_eq!(status(&none), 3);
    assert!(stdout(&none).contains("this kernel cannot be recorded"));
    let text = over("notes", b"nothing of the kind\n", &["record", "--arch", "x86_64", "--check"]);
    assert_eq!(status(&text), 2);
    assert!(stderr(&text).contains("neither a list of symbols"));
    // A list of symbols: what is not in it is left out of the program, or named.
    let symbols = b"ffffffff81000000 T vfree\nffffffff81000100 t remove_vm_area\n";
    let record = ["record", "--arch", "x86_64", "--kernel", "6.12"];
    let with = |more: &[&'static str]| [&record[..], more].concat();
    let program = over("kallsyms", symbols, &with(&["--via", "bpftrace", "--symbols"]));
    assert_eq!(status(&program), 0, "{}", stderr(&program));
    let probes = |text: &str| text.lines().filter(|l| l.contains("probe:")).count();
    assert_eq!(probes(&stdout(&program)), 5, "{}", stdout(&program));
    assert!(stdout(&program).contains("kretprobe:vfree /@armed/ {"));
    let script = over("kallsyms", symbols, &with(&["--symbols"]));
    assert!(stdout(&script).contains("\nvfree|") && !stdout(&script).contains("\nvunmap|"));
    let config = over("config", b"CONFIG_FTRACE=y\n", &with(&["--symbols"]));
    assert_eq!(status(&config), 2);
    assert!(stderr(&config).contains("a configuration, not a list of symbols"));
    let lacks = over("kallsyms", symbols, &with(&["--check"]));
    assert_eq!(status(&lacks), 0, "{}", stderr(&lacks));
    let text = stdout(&lacks);
    assert!(text.contains(": 2 of ") && text.contains("functions to probe are there"), "{text}");
    assert!(text.contains("the log will not show which code is replaced"), "{text}");
    let version = textbed(&["record", "--arch", "x86_64", "--kernel", "new"]);
    assert_eq!(status(&version), 2);
    assert!(stderr(&version).contains("is no kernel version"));
}

#[test]
fn every_format_and_the_timeline_go_to_files_side_by_side() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let formats = ["json", "sarif", "junit", "ktap"].map(|f| format!("--format={f}={}", at(f)));
    let timeline = format!("--timeline={}", at("trace"));
    let mut args = vec!["run", "scenarios/bpf-prog-pack.tb", "--format=text", &timeline];
    args.extend(formats.iter().map(String::as_str));
    let done = textbed(&args);
    assert_eq!(status(&done), 1, "{}", stderr(&done));
    let read = |name: &str| std::fs::read_to_string(at(name)).expect("the file was written");
    let json: Value = serde_json::from_str(&read("json")).expect("JSON");
    let sarif: Value = serde_json::from_str(&read("sarif")).expect("JSON");
    let fingerprints = |v: &Value, runs: &str, key: &str| {
        let mut all: Vec<String> = v["runs"]
            .as_array()
            .expect("runs")
            .iter()
            .flat_map(|r| r[runs].as_array().expect("findings").clone())
            .map(|f| f.pointer(key).expect("a fingerprint").to_string())
            .collect();
        all.sort();
        all
    };
    let found = fingerprints(&json, "findings", "/fingerprint");
    assert!(found.len() >= 5);
    assert_eq!(found, fingerprints(&sarif, "results", "/partialFingerprints/textbed~11"));
    assert!(read("junit").contains("<testsuites name=\"textbed\" tests=\"3\""));
    assert!(read("ktap").starts_with("KTAP version 1\n1..1\n"));
    let trace: Value = serde_json::from_str(&read("trace")).expect("JSON");
    assert!(trace["traceEvents"].as_array().expect("entries").len() > 100);

    // What an earlier report had is known; what it alone had is said.
    let known = textbed(&["run", "scenarios/bpf-prog-pack.tb", "--baseline", &at("json")]);
    assert_eq!(status(&known), 0, "{}", stdout(&known));
    assert!(stdout(&known).contains("findings are known: the baseline has them"));
    assert!(!stdout(&known).contains("error["));
    let other = textbed(&["run", "scenarios/bpf-prog-pack-fixed.tb", "--baseline", &at("json")]);
    assert!(stderr(&other).contains("of the baseline were not found again"), "{}", stderr(&other));
    let wrong = textbed(&["run", "scenarios/bpf-prog-pack.tb", "--baseline", &at("sarif")]);
    assert_eq!(status(&wrong), 2);
    assert!(stderr(&wrong).contains("no JSON report of textbed"), "{}", stderr(&wrong));
}

/// The command in a folder with that `textbed.toml`, over a story of the repository.
fn configured(toml: &str, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("textbed.toml"), toml).expect("writing the configuration");
    let story = root().join("scenarios/bpf-prog-pack.tb").display().to_string();
    Command::new(env!("CARGO_BIN_EXE_textbed"))
        .args(["run", &story, "--arch", "x86_64", "--format", "json"])
        .args(more)
        .current_dir(folder.path())
        .output()
        .expect("the command starts")
}

#[test]
fn levels_come_from_the_nearest_configuration_and_flags_win() {
    let level = |output: &Output| {
        let json: Value = serde_json::from_str(&stdout(output)).expect("JSON");
        let findings = json["runs"][0]["findings"].as_array().expect("findings").clone();
        let fill = findings.iter().find(|f| f["rule"] == "missing-trap-fill").expect("the rule");
        fill["level"].as_str().expect("a level").to_owned()
    };
    let soft = "[levels]\nmissing-trap-fill = \"warn\"\n";
    let done = configured(soft, &[]);
    assert_eq!((status(&done), level(&done)), (0, "warn".to_owned()));
    let done = configured(soft, &["--deny", "missing-trap-fill"]);
    assert_eq!((status(&done), level(&done)), (1, "deny".to_owned()));
    let fresh = configured("reading = \"fresh\"\n", &[]);
    assert!(stdout(&fresh).contains("\"reading\": \"fresh\""));
    let over = configured("reading = \"fresh\"\n", &["--reading", "strict"]);
    assert!(stdout(&over).contains("\"reading\": \"strict\""));
    for (wrong, said) in [
        ("[levels]\nno-such-rule = \"warn\"\n", "unknown rule 'no-such-rule'"),
        ("[levels]\nwx-alias = \"loud\"\n", "not deny, warn or allow"),
        ("reading = \"quick\"\n", "unknown reading 'quick'"),
        ("cmodx = \"maybe\"\n", "unknown live patching 'maybe' (known: on, off"),
        ("level = 3\n", "unknown field"),
        ("[levels\n", "textbed.toml"),
    ] {
        let done = configured(wrong, &[]);
        assert_eq!(status(&done), 2, "{wrong}");
        assert!(stderr(&done).contains(said), "{wrong}: {}", stderr(&done));
    }
}

#[test]
fn the_manual_and_completions_name_every_command() {
    let manual = stdout(&textbed(&["man"]));
    let bash = stdout(&textbed(&["completions", "bash"]));
    for command in ["run", "test", "replay", "record", "explain", "list", "caps", "schema"] {
        assert!(
            manual.contains(&format!(".SH \"TEXTBED {}\"", command.to_uppercase())),
            "{command}"
        );
        assert!(bash.contains(command), "{command}");
    }
}
