//! The formats of other tools: SARIF, JUnit, KTAP and Chrome traces of the made-up run.
//!
//! SARIF was also held against its publisher's validator and JUnit against `junitparser`:
//! docs/outputs.md says how. Here: what these formats ask for, and what may not get lost.

mod fixture;

use fixture::run;
use serde_json::Value;
use textbed_arch::{Arch, CpuId, Perm, PhysAddr, VirtAddr};
use textbed_check::{Level, WindowStatus};
use textbed_event::{Batch, LeafChange, Recorder, Sink, View};
use textbed_report::timeline::{self, Timeline};
use textbed_report::{Outcome, Run, junit, ktap, sarif};

fn clean() -> Run {
    let mut run = run();
    run.arch = Arch::X86_64;
    run.report.findings.clear();
    run.outcome = Outcome::Clean;
    run
}

fn unchecked() -> Run {
    Run { outcome: Outcome::Unchecked, ..clean() }
}

fn blocked(expected: bool) -> Run {
    let mut run = Run { outcome: Outcome::Blocked { expected }, ..clean() };
    run.notes[0].text = "cpu 0 waits for `never`, which nobody publishes".into();
    run
}

fn not_modelled() -> Run {
    Run { outcome: Outcome::NotModelled("jit #1".into()), ..clean() }
}

#[test]
fn sarif_says_what_was_found_where_and_what_could_not_be_checked() {
    let log: Value = serde_json::from_str(&sarif::document(&[run(), clean()]).unwrap()).unwrap();
    assert_eq!(log["version"], "2.1.0");
    let sarif_run = &log["runs"][0];
    let results = sarif_run["results"].as_array().unwrap();
    assert_eq!(results.len(), 1);
    let result = &results[0];
    assert_eq!(result["level"], "error");
    let index = result["ruleIndex"].as_u64().unwrap() as usize;
    let rules = &sarif_run["tool"]["driver"]["rules"];
    assert_eq!(rules[index]["id"], "missing-context-sync");
    assert_eq!(result["partialFingerprints"]["textbed/1"], "0123456789abcdef");
    assert_eq!(result["occurrenceCount"], 2);
    let message = result["message"]["text"].as_str().unwrap();
    assert!(message.contains(". Missing: ") && message.contains(". Help: execute"), "{message}");
    let name = &result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"];
    assert_eq!(name, "bpf pack+0x40");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a.tb");
    assert_eq!(place["region"]["startLine"], 3);
    assert_eq!(result["relatedLocations"][0]["physicalLocation"]["region"]["startLine"], 2);
    // Conflict, two steps of the chain, and where it shows.
    let flow = &result["codeFlows"][0]["threadFlows"][0]["locations"];
    assert_eq!(flow.as_array().unwrap().len(), 4);
    assert!(flow[2]["location"]["message"]["text"].as_str().unwrap().starts_with("missing: "));
    let invocation = &sarif_run["invocations"][0];
    assert_eq!(invocation["executionSuccessful"], true);
    let said = invocation["toolExecutionNotifications"].to_string();
    assert!(said.contains("could not be checked: no frames"), "{said}");

    let limit = Run { outcome: Outcome::Limit("steps".into()), ..clean() };
    for broken in [not_modelled(), limit] {
        let log: Value = serde_json::from_str(&sarif::document(&[broken]).unwrap()).unwrap();
        assert_eq!(log["runs"][0]["invocations"][0]["executionSuccessful"], false);
    }
    let mut piped = clean();
    piped.input.path = "-".into();
    piped.outcome = Outcome::Unchecked;
    let log: Value = serde_json::from_str(&sarif::document(&[piped]).unwrap()).unwrap();
    let said = &log["runs"][0]["invocations"][0]["toolExecutionNotifications"][0];
    assert_eq!(said["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "stdin");
    let mut allowed = run();
    allowed.report.findings[0].level = Level::Allow;
    let log: Value = serde_json::from_str(&sarif::document(&[allowed]).unwrap()).unwrap();
    assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), 0);
}

#[test]
fn junit_counts_failures_and_errors_and_escapes_what_xml_reserves() {
    let mut broken = run();
    broken.report.findings[0].message = "a < b && \"c\"".into();
    let xml = junit::document(&[broken, clean(), not_modelled()]).unwrap();
    assert!(xml.contains("tests=\"3\""), "{xml}");
    assert!(xml.contains("failures=\"1\"") && xml.contains("errors=\"1\""), "{xml}");
    assert!(xml.contains("a &lt; b &amp;&amp;"), "{xml}");
    let root = xml.lines().find(|l| l.starts_with("<testsuites ")).expect("a root element");
    assert!(!root.contains("skipped"), "{root}");
    assert!(xml.contains("type=\"missing-context-sync\""));
    assert!(xml.contains("not modelled: jit #1"));
    assert!(!xml.contains(" more)"), "one failure alone: {xml}");
    // The same input gives the same bytes: no time, no random number.
    assert_eq!(xml, {
        let mut again = run();
        again.report.findings[0].message = "a < b && \"c\"".into();
        junit::document(&[again, clean(), not_modelled()]).unwrap()
    });
}

#[test]
fn what_is_only_warned_of_and_what_is_allowed_fails_nothing() {
    let mut mixed = run();
    let finding = mixed.report.findings[0].clone();
    mixed.report.findings.extend(vec![finding; 3]);
    let levels = [Level::Deny, Level::Deny, Level::Warn, Level::Allow];
    for (n, (f, level)) in mixed.report.findings.iter_mut().zip(levels).enumerate() {
        (f.level, f.message) = (level, format!("number {n}."));
    }
    let xml = junit::document(std::slice::from_ref(&mixed)).unwrap();
    assert!(xml.contains("failures=\"1\"") && xml.contains("number 0. (and 1 more)"), "{xml}");
    let (failure, output) = xml.split_once("<system-out>").expect("what was warned of");
    assert!(failure.contains("number 1.") && !failure.contains("number 2."), "{failure}");
    assert!(output.contains("number 2.") && !output.contains("number 3."), "{output}");

    let text = ktap::document(std::slice::from_ref(&mixed));
    let said = |what: &str| text.lines().filter(|l| l.contains(what)).count();
    assert_eq!((said("# error["), said("# warning["), said("number 3")), (2, 1, 0), "{text}");
    let missing = &mixed.report.findings[0].missing;
    assert!(!missing.is_empty() && said(&missing.join("; ")) == 3, "{text}");

    mixed.report.findings.drain(..2);
    let xml = junit::document(std::slice::from_ref(&mixed)).unwrap();
    assert!(xml.contains("failures=\"0\"") && !xml.contains("<failure"), "{xml}");
    assert!(!ktap::document(&[mixed]).contains("not ok"));
}

#[test]
fn a_log_of_which_nothing_could_be_checked_is_skipped_and_not_passed() {
    let xml = junit::document(&[unchecked(), clean()]).unwrap();
    assert!(xml.contains("tests=\"2\"") && xml.contains("skipped=\"1\""), "{xml}");
    let root = xml.lines().find(|l| l.starts_with("<testsuites ")).expect("a root element");
    assert!(!root.contains("skipped") && root.contains("failures=\"0\""), "{root}");
    assert!(xml.contains("<skipped") && xml.contains("nothing could be checked"), "{xml}");

    let text = ktap::document(&[unchecked()]);
    let skipped = text.lines().filter(|l| l.ends_with("# SKIP nothing could be checked")).count();
    assert_eq!(skipped, 2, "the run and its input: {text}");
    let both = ktap::document(&[unchecked(), clean()]);
    assert_eq!(both.matches("# SKIP").count(), 1, "{both}");

    let log: Value = serde_json::from_str(&sarif::document(&[unchecked()]).unwrap()).unwrap();
    let invocation = &log["runs"][0]["invocations"][0];
    let first = &invocation["toolExecutionNotifications"][0];
    assert_eq!(first["level"], "warning");
    assert!(first["message"]["text"].as_str().unwrap().ends_with("nothing could be checked"));
}

#[test]
fn a_cpu_that_waits_for_ever_fails_unless_that_is_expected() {
    let xml = junit::document(&[blocked(false), blocked(true)]).unwrap();
    assert!(xml.contains("tests=\"2\"") && xml.contains("failures=\"1\""), "{xml}");
    assert!(xml.contains("type=\"blocked\"") && xml.contains("waits for `never`"), "{xml}");

    let text = ktap::document(&[blocked(false), blocked(true)]);
    let failed = text.lines().filter(|l| l.trim_start().starts_with("not ok ")).count();
    assert_eq!(failed, 2, "the run and its input: {text}");
    assert!(text.contains("# blocked: cpu 0 waits for `never`"), "{text}");
    assert!(!ktap::document(&[blocked(true)]).contains("not ok"));

    let read = |run| serde_json::from_str::<Value>(&sarif::document(&[run]).unwrap()).unwrap();
    let log = read(blocked(false));
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 1);
    let index = results[0]["ruleIndex"].as_u64().unwrap() as usize;
    assert_eq!(log["runs"][0]["tool"]["driver"]["rules"][index]["id"], results[0]["ruleId"]);
    assert_eq!(results[0]["level"], "error");
    assert!(results[0]["message"]["text"].as_str().unwrap().contains("waits for `never`"));
    let log = read(blocked(true));
    assert!(log["runs"][0]["results"].as_array().unwrap().is_empty());
    let said = log["runs"][0]["invocations"][0]["toolExecutionNotifications"].to_string();
    assert!(said.contains("blocked, as expected"), "{said}");
}

#[test]
fn ktap_plans_are_kept_and_names_hold_no_directive() {
    let text = ktap::document(&[run(), clean(), not_modelled()]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..5],
        ["KTAP version 1", "1..1", "  KTAP version 1", "  # Subtest: a.tb", "  1..3",]
    );
    let results = |prefix: &str| {
        lines
            .iter()
            .filter(|l| {
                l.starts_with(&format!("{prefix}ok ")) || l.starts_with(&format!("{prefix}not ok "))
            })
            .copied()
            .collect::<Vec<_>>()
    };
    let inner = results("  ");
    assert_eq!(inner.len(), 3, "{text}");
    assert!(inner[0].starts_with("  not ok 1 a story on arm64"));
    assert!(inner[1].starts_with("  ok 2 a story on x86_64"));
    assert!(inner[2].ends_with("# SKIP not modelled: jit #1"));
    assert_eq!(results(""), ["not ok 1 a.tb"]);
    assert!(text.contains("  # error[missing-context-sync] at a.tb:3: CPU 1 runs code"));
    let mut odd = clean();
    odd.name = "a # SKIP everything".into();
    assert!(ktap::document(&[odd]).contains("  ok 1 a - SKIP everything"));
}

/// A call, a leaf that becomes executable, and an interrupt that another CPU takes.
fn events() -> Batch {
    let mut recorder = Recorder::new();
    let name = recorder.name("set_memory_x");
    let call = recorder.new_call();
    let args = recorder.bytes(&[]);
    recorder.emit(CpuId(0), View::AreaMade { virt: VirtAddr(0x4000), len: 0x2000, shift: 12 });
    let leaf = |old, new| View::Leaf {
        virt: VirtAddr(0x4000),
        phys: PhysAddr(0x9000),
        change: LeafChange::usual(2, 12, old, new),
    };
    recorder.emit(CpuId(0), leaf(Perm::empty(), Perm::KERNEL_RW));
    recorder.emit(CpuId(0), View::CallEntered { call, name, args });
    recorder.emit(CpuId(0), View::IpiSent { ipi: 5, function: name, targets: 2 });
    recorder.emit(CpuId(1), View::IpiTaken { ipi: 5, by_interrupt: true });
    recorder.emit(CpuId(0), leaf(Perm::KERNEL_RW, Perm::KERNEL_RWX));
    recorder.emit(CpuId(0), View::CallReturned { call, value: 0, failed: false });
    recorder.take()
}

/// Entries of a trace of one phase, in one process.
fn entries_of<'a>(entries: &'a [Value], ph: &str, pid: u64) -> Vec<&'a Value> {
    entries.iter().filter(|e| e["ph"] == ph && e["pid"] == pid).collect()
}

#[test]
fn a_timeline_has_calls_flows_permissions_findings_and_windows() {
    let mut one = Timeline::new(0);
    let mut two = Timeline::new(1);
    for timeline in [&mut one, &mut two] {
        let _ = timeline.batch(&events());
        timeline.finish(&run());
    }
    let trace: Value = serde_json::from_str(&timeline::document(&[one, two])).unwrap();
    let entries = trace["traceEvents"].as_array().unwrap();
    let of = |ph: &str, pid: u64| entries_of(entries, ph, pid);
    let slices = of("X", 1);
    let named = |name: &str| slices.iter().filter(|e| e["name"] == name).collect::<Vec<_>>();
    let calls = named("set_memory_x");
    assert_eq!((slices.len(), calls.len()), (3, 1));
    // Arrows are drawn between slices: one begins where the interrupt is sent, and ends where it is
    // taken.
    for (ph, slice) in [("s", "sends set_memory_x"), ("f", "takes an interrupt")] {
        assert_eq!(of(ph, 1)[0]["ts"], named(slice)[0]["ts"]);
        assert_eq!(of(ph, 1)[0]["tid"], named(slice)[0]["tid"]);
    }
    assert_ne!(of("s", 1)[0]["id"], of("s", 11)[0]["id"], "arrows stay within their run");
    assert_eq!((&calls[0]["name"], &calls[0]["dur"]), (&"set_memory_x".into(), &4.0.into()));
    assert_eq!((of("s", 1)[0]["tid"].clone(), of("f", 1)[0]["tid"].clone()), (0.into(), 1.into()));
    assert_eq!(of("s", 1)[0]["id"], of("f", 1)[0]["id"]);
    let spans = of("X", 2);
    assert_eq!(
        spans.iter().map(|s| s["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["rw-", "rwx"]
    );
    assert_eq!(spans[1]["cname"], "terrible");
    assert!(of("i", 1).iter().any(|e| e["name"] == "missing-context-sync"));
    assert_eq!(of("X", 3).len(), 2);
    // The second run has process numbers of its own.
    assert_eq!(of("X", 12).len(), 2);
    assert_eq!(trace["otherData"]["entries left off"], "0");
    for e in entries {
        assert!(e["ph"].is_string() && e["pid"].is_u64() && e["tid"].is_u64(), "{e}");
        assert!(e["ph"] == "M" || e["ts"].is_number(), "{e}");
    }
}

/// What is open at the end, what lies outside of every area, and what is allowed.
#[test]
fn a_timeline_ends_what_is_open_and_leaves_off_what_has_no_track() {
    let mut recorder = Recorder::new();
    let name = recorder.name("set_memory_x");
    let (call, args) = (recorder.new_call(), recorder.bytes(&[]));
    recorder.emit(CpuId(0), View::AreaMade { virt: VirtAddr(0x4000), len: 0x2000, shift: 12 });
    recorder.emit(CpuId(0), View::CallEntered { call, name, args });
    let (old, new) = (Perm::empty(), Perm::KERNEL_RW);
    let change = LeafChange::usual(1, 12, old, new);
    let (virt, phys) = (VirtAddr(0x6000), PhysAddr(0x9000));
    recorder.emit(CpuId(0), View::Leaf { virt, phys, change });
    let mut allowed = run();
    allowed.report.findings[0].level = Level::Allow;
    // The last moment of the run: windows that stay open end there.
    let opened = allowed.report.windows[0].opened.at_ns.unwrap();
    let mut events = recorder.take();
    events.events.last_mut().unwrap().at_ns = opened + 3000;
    let mut timeline = Timeline::new(0);
    let _ = timeline.batch(&events);
    timeline.finish(&allowed);
    let trace: Value = serde_json::from_str(&timeline::document(&[timeline])).unwrap();
    let entries = trace["traceEvents"].as_array().unwrap();
    let of = |ph: &str, pid: u64| entries_of(entries, ph, pid);
    let notes: Vec<&str> = of("i", 1).iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert_eq!(notes, ["set_memory_x (its return is not seen)"]);
    assert_eq!(of("X", 2).len(), 0, "the leaf lies behind the area");
    let windows = of("X", 3);
    let tid = WindowStatus::Platform as u64 + 1;
    let open = windows.iter().find(|e| e["tid"] == tid).unwrap();
    assert_eq!(open["dur"], 3.0);
}
