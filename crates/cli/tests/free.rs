//! Code that runs freely gives the findings of code that is stepped: every scenario of the
//! repository that calls code, on each of its machines, under two policies and a seed.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may
#![cfg(feature = "vcpu")]

mod common;

use common::{POLICIES, check, files, machines, read, root};
use textbed_check::{Finding, Reading};
use textbed_event::{Collect, Kind};
use textbed_scenario::{Loaded, PolicyChoice, RunEnd, RunOptions, run};

/// What a report says, but for the numbers of events.
fn said(f: &Finding) -> String {
    let place = |site: &textbed_check::Site| site.origin;
    let chain: Vec<String> = f.chain.iter().map(|step| format!("{:?}", step.state)).collect();
    format!(
        "{:?} {:?} {:?} {:?} at {:?} because {:?}: {}; missing {:?}, chain {chain:?}, count {}, {}",
        f.rule,
        f.level,
        f.confidence,
        f.blame,
        place(&f.at),
        f.because.as_ref().map(place),
        f.message,
        f.missing,
        f.count,
        f.fingerprint
    )
}

/// Findings, in order; the end; and how many instructions were fetched.
fn outcome(loaded: &Loaded, options: &RunOptions) -> (Vec<String>, RunEnd, usize) {
    let mut seen = Collect::default();
    let end = run(loaded, options, &mut seen).unwrap();
    let fetches = seen.batches.iter().flat_map(|b| &b.events).filter(|e| e.kind == Kind::Fetch);
    let fetches = fetches.count();
    let report = check(&seen, Reading::Mapped);
    (report.findings.iter().map(said).collect(), end, fetches)
}

#[test]
fn findings_of_free_code_are_those_of_stepped_code() {
    let (mut compared, mut found, mut stepped, mut free) = (0, 0, 0, 0);
    for path in files(&root().join("scenarios")) {
        let text = std::fs::read_to_string(&path).unwrap();
        if !["call(", "preempt("].iter().any(|word| text.contains(word)) {
            continue;
        }
        let loaded = read(&path);
        for on in machines(&loaded) {
            for policy in POLICIES.into_iter().take(3) {
                let options = RunOptions { policy, ..RunOptions::new(on.0, on.1) };
                let by_steps = outcome(&loaded, &options);
                let freely = outcome(&loaded, &RunOptions { free: true, ..options });
                let which = format!("{} on {} {} {policy:?}", loaded.path(), on.0, on.1);
                assert_eq!(freely.0, by_steps.0, "{which}");
                assert_eq!(freely.1, by_steps.1, "{which}");
                compared += 1;
                found += by_steps.0.len();
                (stepped, free) = (stepped + by_steps.2, free + freely.2);
            }
        }
    }
    println!("{compared} runs with {found} findings, all equal; {free} of {stepped} fetched");
    assert!(compared > 600 && found > 500, "{compared} runs, {found} findings");
    assert!(free < stepped, "nothing ran freely");
}

/// Two CPUs that sum up words of their own, with code that was made known, or was not.
fn sums(flush: &str) -> Loaded {
    let text = format!(
        "scenario \"sums\"\nabout \"sums of words\"\nkernel 6.12\narch x86_64, arm64, ppc64le\ncpu 0 {{\n\
         page = execmem_alloc(EXECMEM_MODULE_TEXT, 4K)\nmemset(page, 0, 4K)\n\
         memcpy(page, code(sum_loop))\n{flush}\ntry set_memory_rox(page, 1 pages)\n\
         own = vmalloc(4K)\nmemset(own, 1, 4K)\nr = call(page, own, 900)\n\
         publish function = page\n}}\n\
         cpu 1 {{ own = vmalloc(4K)\nmemset(own, 2, 4K)\nawait function\n\
         r = call(function, own, 900)\nagain = call(function, own, 900) }}\n"
    );
    let rules: Vec<&str> = textbed_check::rules::RULES.iter().map(|r| r.name).collect();
    textbed_scenario::load("sums.tb", text, &rules).unwrap().0
}

#[test]
fn loops_run_freely_and_come_to_the_same() {
    let mut found = 0;
    for flush in ["flush_icache_range(page, page + 4K)", ""] {
        let loaded = sums(flush);
        for on in machines(&loaded) {
            for policy in POLICIES {
                let options = RunOptions { policy, ..RunOptions::new(on.0, on.1) };
                let (findings, end, stepped) = outcome(&loaded, &options);
                let freely = outcome(&loaded, &RunOptions { free: true, ..options });
                let which = format!("{} {policy:?} {flush}", on.0);
                assert_eq!((&freely.0, &freely.1), (&findings, &end), "{which}");
                let returned = end.notes.iter().filter(|n| n.text.contains(") returned"));
                assert!(returned.count() == 3 || !findings.is_empty(), "{which}: {:?}", end.notes);
                // Under others an older translation may lead to the code: then it is stepped.
                if policy == PolicyChoice::Newest && stepped > 3000 {
                    assert!(freely.2 * 20 < stepped, "{which}: {} of {stepped}", freely.2);
                }
                found += findings.len();
            }
        }
    }
    assert!(found > 0, "code that was not made known is found");
}
