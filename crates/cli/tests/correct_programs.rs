//! Programs that use the kernel's calls as they are meant, put together by chance: several CPUs
//! that allocate, protect, alias, load, patch and free, each inside of the calls of the others, and
//! others that run what they are given. Nothing is anybody's mistake, so nothing that is certain
//! may be found, every CPU comes to its end, and code does what it should. With a part of the
//! synchronisations left out code goes wrong here and there, and where it does something is found.
//!
//! Code also changes while others run it (probes, static keys and calls, tracers, trampolines),
//! CPUs go and come, and those who run code may have a process's space. Not generated: large leaves
//! that are split, tracers and trampolines elsewhere than on x86-64, probes of live code on
//! powerpc. What is only possible is not looked at, and neither are the faults that kernels have
//! there ([`KNOWN`]).
#![allow(clippy::unwrap_used)] // tests may

mod units;

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};
use textbed_arch::Arch;
use textbed_check::{Checker, Confidence, Finding, Options};
use textbed_event::{Collect, Sink};
use textbed_scenario::{
    Loaded, Outcome, PolicyChoice, RunEnd, RunNote, RunOptions, SyncSite, Version, load, run,
};
use units::{Code, On, Unit, lines, unit};

const PRODUCERS: usize = 3;

/// Whether something was seen in a case.
type TestResult = Result<bool, TestCaseError>;

/// Faults of the kernels themselves: the rule and whose memory it is (`BUGS-FOUND.md`: x86's cache
/// of text frees before it flushes, a page of slots may have a writable alias or old translations;
/// and pages of slots and trampolines of which a part is used).
const KNOWN: [(&str, &str); 5] = [
    ("wx-stale-translation", "kprobes slots"),
    ("wx-stale-translation", "(modules+"),
    ("wx-alias", "kprobes slots"),
    ("missing-trap-fill", "kprobes slots"),
    ("missing-trap-fill", "ftrace trampoline"),
];

/// What is found of a CPU that comes up while others patch or flush without the lock against that.
const MISSED: [&str; 4] =
    ["broken-promise", "missing-context-sync", "stale-translation", "wx-stale-translation"];

fn is_known(finding: &Finding, program: &str) -> bool {
    let rule = finding.rule.name();
    let message = &finding.message;
    let moved = program.contains("remove_cpu") && message.contains(&format!("cpu {PRODUCERS} "));
    KNOWN.iter().any(|(known, owner)| rule == *known && message.contains(owner))
        || moved && MISSED.contains(&rule)
}

/// The text of a scenario: units by their CPUs, each given back at once or at the end. `readers`
/// run all code in the order of the units, so that nobody waits for ever; the last one in a space
/// of its own.
fn program(units: &[(usize, Unit, bool)], readers: usize, on: On, config: &str) -> String {
    let (mut cpus, mut ends) = (vec![String::new(); PRODUCERS + readers], [(); 3].map(|()| vec![]));
    for (n, (cpu, unit, at_once)) in units.iter().enumerate() {
        let (mut take, mut back, code) = lines(unit, n, on);
        if let Some(Code { entry, argument, result, change }) = code {
            take.push(format!("publish u{n}p = {entry}"));
            let mut reads = format!("await u{n}p\nr{n} = call(u{n}p{argument})\n");
            match change {
                None => reads += &format!("assert r{n} == {result}\n"),
                // What is called meanwhile is the old code or the new one.
                Some((lines, then)) => {
                    take.extend(lines);
                    take.push(format!("publish u{n}q = {entry}"));
                    reads += &format!(
                        "await u{n}q\ns{n} = call(u{n}q{argument})\nassert s{n} == {then}\n"
                    );
                }
            }
            for (reader, lines) in cpus.iter_mut().enumerate().skip(PRODUCERS) {
                let (open, close) = match reader + 1 == PRODUCERS + readers && readers > 1 {
                    true => ("with mm own {\n", "}\n"),
                    false => ("", ""),
                };
                *lines += &format!("{open}{reads}{close}publish u{n}d{reader} = 1\n");
                back.insert(0, format!("await u{n}d{reader}"));
            }
        }
        cpus[*cpu] += &(take.join("\n") + "\n");
        if *at_once {
            cpus[*cpu] += &(back.join("\n") + "\n");
        } else {
            ends[*cpu].extend(back);
        }
    }
    let mut text = format!("scenario \"s\"\n{config}cpus {}\n", cpus.len());
    for (cpu, lines) in cpus.iter().enumerate() {
        let end = ends.get(cpu).map(|end| end.join("\n")).unwrap_or_default();
        text += &format!("cpu {cpu} {{\n{lines}{end}\n}}\n");
    }
    text
}

/// What a run gave: the end, and what is found in it.
fn checked(loaded: &Loaded, options: &RunOptions) -> (RunEnd, Vec<Finding>) {
    let mut seen = Collect::default();
    let end = run(loaded, options, &mut seen).unwrap();
    let mut checker = Checker::new(Options::default());
    let _ = checker.begin(seen.header.as_ref().unwrap());
    seen.batches.iter().for_each(|batch| {
        let _ = checker.batch(batch);
    });
    (end, checker.finish().findings)
}

/// A program and how it is run.
fn programs() -> impl Strategy<Value = (Arch, String, RunOptions)> {
    let units = prop::collection::vec((0..PRODUCERS, unit(), prop::bool::weighted(0.7)), 1..14);
    let policy = prop_oneof![
        1 => Just(PolicyChoice::Newest),
        4 => Just(PolicyChoice::Stalest),
        4 => any::<u64>().prop_map(PolicyChoice::Random),
    ];
    let arch = prop::sample::select(vec![Arch::X86_64, Arch::Arm64, Arch::Ppc64le]);
    let version = prop::sample::select(vec!["6.12", "6.18", "7.0"]);
    let config = prop_oneof![
        4 => Just(""),
        1 => Just("config debug_pagealloc = y\n"),
        1 => Just("config kfence = y\n"),
        1 => Just("config nohugevmalloc = y\n"),
    ];
    (units, 1..=2usize, arch, version, config, policy).prop_map(
        |(units, readers, arch, version, config, policy)| {
            let version = Version::parse(version).unwrap();
            let usual = RunOptions::new(arch, version);
            let config =
                if arch == Arch::Arm64 || !config.contains("kfence") { config } else { "" };
            let on = On { arch, version, moves: PRODUCERS };
            (arch, program(&units, readers, on, config), RunOptions { policy, ..usual })
        },
    )
}

/// Tries as many cases of a strategy, and says in how many the answer was yes. They are the same
/// ones each time, so that what a change breaks is told from what was never found;
/// `TEXTBED_TIMES=20` tries twenty times as many, others each time.
fn count<S: Strategy>(cases: u32, of: S, is: impl Fn(S::Value) -> TestResult) -> u32 {
    let times = std::env::var("TEXTBED_TIMES").ok().and_then(|t| t.parse().ok()).unwrap_or(1);
    let cases = cases.saturating_mul(times);
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let yes = Cell::new(0);
    let rng = TestRng::deterministic_rng(RngAlgorithm::default());
    let mut runner = match times {
        1 => TestRunner::new_with_rng(config, rng),
        _ => TestRunner::new(config),
    };
    let tried = runner.run(&of, |value| {
        yes.set(yes.get() + u32::from(is(value)?));
        Ok(())
    });
    tried.unwrap_or_else(|e| panic!("{e}"));
    yes.get()
}

#[test]
fn nothing_certain_is_found_in_what_is_right() {
    let ran = count(48, programs(), |(arch, text, options)| {
        let (loaded, _) = load("s.tb", text.clone(), &[]).unwrap();
        let (end, mut findings) = checked(&loaded, &options);
        prop_assert_eq!(&end.outcome, &Outcome::Ended, "{}\n{:?}", text, end.notes);
        prop_assert_eq!(end.asserts_failed, 0, "{}\n{:?}", text, end.notes);
        findings.retain(|finding| {
            finding.confidence == Confidence::Certain && !is_known(finding, &text)
        });
        prop_assert!(findings.is_empty(), "{arch}\n{text}\n{findings:#?}");
        Ok(end.notes.iter().any(|note| note.text.contains("returned")))
    });
    assert!(ran >= 24, "{ran} of 48 programs ran code");
}

/// A part of the synchronisations is left out, of the program and inside of calls: where code goes
/// wrong by that, something is found.
#[test]
fn what_goes_wrong_is_found() {
    let part = prop::collection::vec(any::<bool>(), 1..12);
    let wrong = count(96, (programs(), part), |((arch, text, options), part)| {
        let (loaded, _) = load("s.tb", text.clone(), &[]).unwrap();
        let all = RunOptions { left_out: Some(Vec::new()), ..options.clone() };
        let (end, _) = checked(&loaded, &all);
        let mut sites: Vec<SyncSite> = Vec::new();
        for seen in end.syncs {
            let every = SyncSite { nth: SyncSite::ALL, ..seen.site };
            if !sites.contains(&every) {
                sites.push(every);
            }
        }
        let mut out = part.iter().cycle();
        sites.retain(|_| *out.next().unwrap());
        let without = RunOptions { left_out: Some(sites.clone()), ..options };
        let (end, mut findings) = checked(&loaded, &without);
        findings.retain(|finding| !is_known(finding, &text));
        let told = |note: &RunNote| {
            let says = ["fault", "unpredictable"].iter().any(|word| note.text.contains(word));
            note.failed_assert || says
        };
        let wrong = end.notes.iter().any(told);
        prop_assert!(
            !wrong || !findings.is_empty(),
            "{arch} without {sites:#?}\n{text}\n{:#?}",
            end.notes
        );
        Ok(wrong)
    });
    assert!(wrong >= 8, "code goes wrong in {wrong} of 96 programs");
}
