//! `textbed test`: scenarios held against what they expect, under several policies and seeds.

use anyhow::Result;
use textbed_arch::Arch;
use textbed_check::{Confidence, Level};
use textbed_kernel::Version;
use textbed_report::tested::{
    Came, Case, Difference, DifferenceKind, Ending, Expected, FileVerdict, Found, Tested, text,
};
use textbed_report::text::Problem;
use textbed_report::{Outcome, Run};
use textbed_scenario::expect::{End, Finding};
use textbed_scenario::loaded::shown;
use textbed_scenario::span::Span;
use textbed_scenario::syntax::ast::Reading;
use textbed_scenario::{DifferenceKind as Kind, Loaded, PolicyChoice, RunEnd, compare};

use crate::args::TestArgs;
use crate::inputs;
use crate::options::Check;
use crate::output::{self, Form, Out};
use crate::scenarios::{Machines, Unusable, one, policy_name, read_all};
use crate::status::Status;

/// `textbed test`. As text on standard output it is a line a scenario, as soon as that is known,
/// then a total, and on standard error each difference as a diagnostic.
pub(crate) fn test(args: &TestArgs, out: &mut Out) -> Result<Status> {
    let formats = output::formats(&args.format)?;
    let live = formats.iter().any(|f| f.form == Form::Text && f.is_stdout());
    let machine = Machines::new(&args.machine)?;
    let mut policies = vec![PolicyChoice::Newest, PolicyChoice::Stalest];
    policies.extend((1..=args.seeds).map(PolicyChoice::Random));
    let mut status = Status::Clean;
    let mut all = Vec::new();
    for input in &args.inputs {
        for read in read_all(input, out, &mut status) {
            let tested = match read {
                Ok(loaded) => file(&loaded, &machine, &policies),
                Err(unusable) => not_used(unusable),
            };
            if live {
                show(&tested, out)?;
            }
            if tested.verdict() == FileVerdict::Differs {
                status = status.and(Status::Findings);
            }
            if !tested.usable() {
                status = status.and(Status::Unusable);
            }
            all.push(tested);
        }
    }
    if live {
        out.text(&text::total(&all))?;
    }
    output::test_results(&all, &formats, out)?;
    Ok(status)
}

/// What is on the terminal of one file; what makes it unusable is there already.
fn show(tested: &Tested, out: &mut Out) -> Result<()> {
    if !tested.unusable.is_empty() {
        return Ok(());
    }
    out.text(&text::line(tested))?;
    for (difference, cases) in tested.joined() {
        if let Some(case) = cases.first() {
            out.problem(&difference.problem(case));
        }
    }
    Ok(())
}

fn not_used(unusable: Unusable) -> Tested {
    Tested {
        path: unusable.path,
        name: String::new(),
        sha256: unusable.text.map_or_else(String::new, |text| inputs::sha256(text.as_bytes())),
        unusable: unusable.problems,
        cases: Vec::new(),
    }
}

/// All runs of one file.
fn file(loaded: &Loaded, machine: &Machines, policies: &[PolicyChoice]) -> Tested {
    let mut cases = Vec::new();
    for (arch, kernel) in machine.of(loaded) {
        for reading in loaded.readings() {
            for policy in policies {
                cases.push(case(loaded, (arch, kernel, reading), *policy, machine));
            }
        }
    }
    Tested {
        path: loaded.path().to_owned(),
        name: loaded.name().to_owned(),
        sha256: inputs::sha256(loaded.text().as_bytes()),
        unusable: Vec::new(),
        cases,
    }
}

/// One run against what the file expects.
fn case(
    loaded: &Loaded,
    (arch, kernel, reading): (Arch, Version, Reading),
    policy: PolicyChoice,
    machine: &Machines,
) -> Case {
    let check = Check::plain(reading.name());
    let ran = one(loaded, arch, kernel, policy, machine, &check, None);
    let expected = loaded.expectation(arch, kernel, reading).map(|e| Expected {
        line: line_of(loaded, e.span.start),
        items: e.items,
        end: ending(e.end),
    });
    let (came, differences) = match ran {
        Ok((run, end)) => judged(loaded, (arch, kernel, reading), &run, &end),
        Err(problems) => {
            let line = |p: &Problem| p.span.as_ref().map(|span| line_of(loaded, span.start));
            let kind = DifferenceKind::NotRun;
            let not_run = |p: Problem| Difference { kind, line: line(&p), problem: p };
            (None, problems.into_iter().map(not_run).collect())
        }
    };
    Case {
        arch,
        kernel: kernel.to_string(),
        reading: reading.name(),
        policy: policy_name(policy),
        seed: match policy {
            PolicyChoice::Random(seed) => Some(seed),
            _ => None,
        },
        expected,
        came,
        differences,
    }
}

/// What came of a run, and what of that differs.
fn judged(
    loaded: &Loaded,
    (arch, kernel, reading): (Arch, Version, Reading),
    run: &Run,
    end: &RunEnd,
) -> (Option<Came>, Vec<Difference>) {
    let mut items = Vec::new();
    let mut found = Vec::new();
    for f in run.report.findings.iter().filter(|f| f.level != Level::Allow) {
        let item = Finding {
            rule: f.rule.name().to_owned(),
            possible: f.confidence == Confidence::Possible,
            missing: f.missing.clone(),
            label: f.at.origin.and_then(|o| loaded.label_at(o.offset)).map(str::to_owned),
            // An expectation counts findings, not how often a loop came by.
            count: 1,
        };
        found.push(Found {
            item: shown(&item),
            rule: f.rule.name(),
            confidence: f.confidence.name(),
            missing: f.missing.clone(),
            line: f.at.origin.filter(|o| o.line > 0).map(|o| o.line),
            message: f.message.clone(),
            fingerprint: f.fingerprint.clone(),
        });
        items.push(item);
    }
    let ended = end.outcome.end();
    let mut differences: Vec<Difference> = compare(loaded, arch, kernel, reading, ended, &items)
        .into_iter()
        .map(|d| difference(loaded, kind(d.kind), d.message, d.span))
        .collect();
    // What a finding says may go wrong may go wrong. Where nothing is found, every assertion holds,
    // unless the file says that the architecture leaves that open.
    let open = loaded.expectation(arch, kernel, reading).is_some_and(|e| e.asserts_open);
    let holds = items.is_empty() && !open;
    for note in end.notes.iter().filter(|n| n.failed_assert && holds) {
        let message = format!("nothing was found, and {}", note.text);
        differences.push(difference(loaded, DifferenceKind::Assertion, message, note.span));
    }
    let reason = match &run.outcome {
        Outcome::Limit(why) | Outcome::NotModelled(why) => Some(why.clone()),
        _ => None,
    };
    (Some(Came { end: ending(ended), reason, found }), differences)
}

fn difference(loaded: &Loaded, kind: DifferenceKind, message: String, span: Span) -> Difference {
    Difference {
        kind,
        line: Some(line_of(loaded, span.start)),
        problem: Problem {
            message,
            path: loaded.path().to_owned(),
            source: Some(loaded.text().to_owned()),
            span: Some(span.range()),
            label: String::new(),
            help: None,
            fatal: true,
        },
    }
}

fn line_of(loaded: &Loaded, offset: usize) -> u32 {
    u32::try_from(loaded.position(offset).line).unwrap_or(u32::MAX)
}

fn kind(kind: Kind) -> DifferenceKind {
    match kind {
        Kind::NotFound => DifferenceKind::NotFound,
        Kind::NotExpected => DifferenceKind::NotExpected,
        Kind::Ending => DifferenceKind::Ending,
        Kind::Ambiguous => DifferenceKind::Ambiguous,
    }
}

fn ending(end: End) -> Ending {
    match end {
        End::Ended => Ending::Ended,
        End::Blocked => Ending::Blocked,
        End::Unfinished => Ending::Unfinished,
    }
}
