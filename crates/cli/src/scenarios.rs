//! `textbed run` and `textbed test`: scenarios.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use textbed_arch::Arch;
use textbed_check::rules::RuleId;
use textbed_check::{Confidence, Level, Report, rules};
use textbed_event::Tee;
use textbed_kernel::Version;
use textbed_report::text::Problem;
use textbed_report::timeline::Timeline;
use textbed_report::{Excerpt, Input, InputKind, Note, Outcome, Run};
use textbed_scenario::diagnostic::{Diagnostic, Severity};
use textbed_scenario::syntax::ast::Reading;
use textbed_scenario::{
    Loaded, Outcome as Ended, PolicyChoice, RunEnd, RunError, RunOptions, expect,
};

use crate::args::{MachineArgs, PolicyArg, ScenarioArgs, TestArgs};
use crate::baseline::Baseline;
use crate::options::Check;
use crate::output::{self, Out};
use crate::status::Status;
use crate::watch::Watch;
use crate::{inputs, options, results};

/// Guest instructions that one call may take.
const MAX_STEPS: u64 = 1_000_000;

/// `textbed run`.
pub(crate) fn run(args: &ScenarioArgs, out: &mut Out) -> Result<Status> {
    let formats = output::formats(&args.output.format)?;
    let check = options::check(&args.check)?;
    let machine = Machines::new(&args.machine)?;
    let policy = match args.policy {
        PolicyArg::Newest => PolicyChoice::Newest,
        PolicyArg::Stalest => PolicyChoice::Stalest,
        PolicyArg::Random => PolicyChoice::Random(args.seed),
    };
    let mut baseline = Baseline::read(args.output.baseline.as_deref())?;
    let mut timelines = output::Timelines::new(args.output.timeline.clone());
    let mut status = Status::Clean;
    let mut runs = Vec::new();
    for input in &args.inputs {
        for loaded in load_all(input, out, &mut status) {
            if args.results {
                let options = |arch, kernel| machine.run_options(arch, kernel, policy);
                let printed = results::print(&loaded, &machine.of(&loaded), options, out)?;
                status = status.and(printed);
                continue;
            }
            for (arch, kernel) in machine.of(&loaded) {
                let mut timeline = timelines.next();
                match one(&loaded, arch, kernel, policy, &machine, &check, timeline.as_mut()) {
                    Ok((mut run, _)) => {
                        baseline.apply(&mut run);
                        timelines.keep(timeline, &run);
                        status = status.and(status_of(&run));
                        runs.push(run);
                    }
                    Err(problems) => {
                        problems.iter().for_each(|p| out.problem(p));
                        status = status.and(Status::Unusable);
                    }
                }
            }
        }
    }
    if !runs.is_empty() {
        output::reports(&runs, &formats, out)?;
    }
    timelines.write()?;
    if let Some(stale) = baseline.stale() {
        out.note(&stale);
    }
    Ok(status)
}

/// `textbed test`: one line a scenario, then a total; each difference as a diagnostic.
pub(crate) fn test(args: &TestArgs, out: &mut Out) -> Result<Status> {
    let machine = Machines::new(&args.machine)?;
    let mut policies = vec![PolicyChoice::Newest, PolicyChoice::Stalest];
    policies.extend((1..=args.seeds).map(PolicyChoice::Random));
    let mut status = Status::Clean;
    let (mut passed, mut failed) = (0u64, 0u64);
    for input in &args.inputs {
        for loaded in load_all(input, out, &mut status) {
            let mut differences = Vec::new();
            let mut runs = 0;
            for (arch, kernel) in machine.of(&loaded) {
                for reading in loaded.readings() {
                    for policy in &policies {
                        runs += 1;
                        let known = differences.len();
                        let on = (arch, kernel, reading);
                        test_one(&loaded, on, *policy, &machine, &mut differences);
                        // The same difference under every policy is told once.
                        let (old, new) = differences.split_at_mut(known);
                        let told = |d: &Problem| old.iter().any(|o| same(o, d));
                        let fresh: Vec<Problem> =
                            new.iter().filter(|d| !told(d)).cloned().collect();
                        differences.truncate(known);
                        differences.extend(fresh);
                    }
                }
            }
            let verdict = if differences.is_empty() { "ok" } else { "DIFFERS" };
            out.text(&format!("{verdict:8}{} ({runs} runs)\n", loaded.path()))?;
            for difference in &differences {
                out.problem(difference);
            }
            if differences.is_empty() {
                passed += 1;
            } else {
                failed += 1;
                status = status.and(Status::Findings);
            }
        }
    }
    out.text(&format!("{passed} passed, {failed} failed\n"))?;
    Ok(status)
}

fn same(a: &Problem, b: &Problem) -> bool {
    let bare = |p: &Problem| p.message.split(" (policy").next().map(str::to_owned);
    a.span == b.span && a.path == b.path && bare(a) == bare(b)
}

/// One run against what the file expects; differences are appended.
fn test_one(
    loaded: &Loaded,
    (arch, kernel, reading): (Arch, Version, Reading),
    policy: PolicyChoice,
    machine: &Machines,
    differences: &mut Vec<Problem>,
) {
    let check = Check::plain(reading.name());
    let (run, end) = match one(loaded, arch, kernel, policy, machine, &check, None) {
        Ok(done) => done,
        Err(problems) => return differences.extend(problems),
    };
    let found: Vec<expect::Finding> = run
        .report
        .findings
        .iter()
        .filter(|f| f.level != Level::Allow)
        .map(|f| expect::Finding {
            rule: f.rule.name().to_owned(),
            possible: f.confidence == Confidence::Possible,
            missing: f.missing.clone(),
            label: f.at.origin.and_then(|o| loaded.label_at(o.offset)).map(str::to_owned),
            // An expectation counts findings, not how often a loop came by.
            count: 1,
        })
        .collect();
    let ended = end.outcome.end();
    let mut differs = |message: &str, span: textbed_scenario::span::Span| {
        let (reading, policy) = (reading.name(), policy_name(policy));
        differences.push(Problem {
            message: format!(
                "{message} on {arch}, kernel {kernel}, reading {reading} (policy {policy})"
            ),
            path: loaded.path().to_owned(),
            source: Some(loaded.text().to_owned()),
            span: Some(span.range()),
            label: String::new(),
            help: None,
            fatal: true,
        });
    };
    for d in textbed_scenario::compare(loaded, arch, kernel, reading, ended, &found) {
        differs(&d.message, d.span);
    }
    // What a finding says may go wrong may go wrong. Where nothing is found, every assertion holds.
    for note in end.notes.iter().filter(|n| n.failed_assert && found.is_empty()) {
        differs(&format!("nothing was found, and {}", note.text), note.span);
    }
}

/// What `--arch`, `--kernel` and `--cpu` ask for.
pub(crate) struct Machines {
    archs: Option<Vec<Arch>>,
    kernel: Option<Version>,
    features: Vec<(String, String)>,
    given: Vec<String>,
}

impl Machines {
    pub(crate) fn new(args: &MachineArgs) -> Result<Self> {
        let mut given = Vec::new();
        given.extend((!args.arch.is_empty()).then(|| format!("--arch {}", args.arch.join(","))));
        given.extend(args.kernel.as_ref().map(|k| format!("--kernel {k}")));
        given.extend(args.cpu.iter().map(|c| format!("--cpu {c}")));
        Ok(Self {
            archs: options::archs(&args.arch)?,
            kernel: args.kernel.as_deref().map(options::kernel).transpose()?,
            features: options::features(&args.cpu)?,
            given,
        })
    }

    /// How to run on one of them.
    fn run_options(&self, arch: Arch, kernel: Version, policy: PolicyChoice) -> RunOptions {
        let features = self.features.clone();
        RunOptions { arch, kernel, features, policy, max_steps: MAX_STEPS, left_out: None }
    }

    /// The features that options name.
    pub(crate) fn features(&self) -> Vec<(String, String)> {
        self.features.clone()
    }

    /// The machines on which to run a scenario: its own, unless options say otherwise.
    pub(crate) fn of(&self, loaded: &Loaded) -> Vec<(Arch, Version)> {
        let archs = self.archs.clone().unwrap_or_else(|| loaded.archs());
        let kernels = self.kernel.map_or_else(|| loaded.kernels(), |k| vec![k]);
        kernels.iter().flat_map(|k| archs.iter().map(|a| (*a, *k))).collect()
    }
}

/// Reads the scenarios of one argument; problems are printed and count as unusable input.
pub(crate) fn load_all(input: &Path, out: &mut Out, status: &mut Status) -> Vec<Loaded> {
    let files = match inputs::scenarios(input) {
        Ok(files) => files,
        Err(error) => {
            out.error(&format!("{error:#}"));
            *status = status.and(Status::Unusable);
            return Vec::new();
        }
    };
    let rule_names: Vec<&str> = rules::RULES.iter().map(|row| row.name).collect();
    let mut all = Vec::new();
    for file in files {
        let text = match inputs::text(&file) {
            Ok(text) => text,
            Err(error) => {
                out.error(&format!("{error:#}"));
                *status = status.and(Status::Unusable);
                continue;
            }
        };
        let path = file.display().to_string();
        match textbed_scenario::load(&path, text.clone(), &rule_names) {
            Ok((loaded, warnings)) => {
                for warning in warnings {
                    out.problem(&problem(warning, &path, &text));
                }
                all.push(loaded);
            }
            Err(errors) => {
                for error in errors {
                    out.problem(&problem(error, &path, &text));
                }
                *status = status.and(Status::Unusable);
            }
        }
    }
    all
}

fn problem(d: Diagnostic, path: &str, text: &str) -> Problem {
    Problem {
        message: d.message,
        path: path.to_owned(),
        source: Some(text.to_owned()),
        span: Some(d.span.range()),
        label: d.label,
        help: d.help,
        fatal: d.severity == Severity::Error,
    }
}

/// What is to be said about a scenario that cannot be run so.
pub(crate) fn failed(error: RunError, loaded: &Loaded) -> Vec<Problem> {
    match error {
        RunError::Input(all) => {
            all.into_iter().map(|d| problem(d, loaded.path(), loaded.text())).collect()
        }
        RunError::Option(message) => vec![Problem {
            message,
            path: loaded.path().to_owned(),
            source: None,
            span: None,
            label: String::new(),
            help: None,
            fatal: true,
        }],
    }
}

/// The rules whose findings a scenario allows.
pub(crate) fn allowed(loaded: &Loaded) -> Vec<RuleId> {
    let allows = loaded.allows();
    allows.iter().filter_map(|(name, _)| rules::by_name(name)).map(|row| row.id).collect()
}

/// Runs one scenario on one machine and checks it.
fn one(
    loaded: &Loaded,
    arch: Arch,
    kernel: Version,
    policy: PolicyChoice,
    machine: &Machines,
    check: &Check,
    timeline: Option<&mut Timeline>,
) -> std::result::Result<(Run, RunEnd), Vec<Problem>> {
    let options = machine.run_options(arch, kernel, policy);
    let check = check.with(allowed(loaded));
    let reading = check.reading.name().to_owned();
    let cmodx = check.cmodx;
    let mut watch = Watch::new(check);
    let end = match timeline {
        Some(timeline) => textbed_scenario::run(loaded, &options, &mut Tee(&mut watch, timeline)),
        None => textbed_scenario::run(loaded, &options, &mut watch),
    }
    .map_err(|error| failed(error, loaded))?;
    let (mut report, names) = watch.finish();
    crate::remedy::complete(&mut report, arch, kernel);
    let place = |line: u32| Some((loaded.path().to_owned(), line));
    let notes =
        end.notes.iter().map(|n| Note { text: n.text.clone(), place: place(n.line) }).collect();
    let run = Run {
        input: Input {
            kind: InputKind::Scenario,
            path: loaded.path().to_owned(),
            sha256: inputs::sha256(loaded.text().as_bytes()),
        },
        name: loaded.name().to_owned(),
        arch,
        kernel: Some(kernel.to_string()),
        policy: Some(policy_name(policy).to_owned()),
        seed: match policy {
            PolicyChoice::Random(seed) => Some(seed),
            _ => None,
        },
        reading,
        cmodx,
        overrides: machine.given.clone(),
        outcome: outcome(&end, &report),
        notes,
        report,
        names,
        excerpts: BTreeMap::from([(
            loaded.path().to_owned(),
            Excerpt::Whole(loaded.text().to_owned()),
        )]),
        summary: Vec::new(),
        log: None,
    };
    Ok((run, end))
}

fn policy_name(policy: PolicyChoice) -> &'static str {
    match policy {
        PolicyChoice::Newest => "newest",
        PolicyChoice::Stalest => "stalest",
        PolicyChoice::Random(_) => "random",
    }
}

fn outcome(end: &RunEnd, report: &Report) -> Outcome {
    match &end.outcome {
        Ended::Limit(what) => Outcome::Limit(what.clone()),
        Ended::NotModelled(what) => Outcome::NotModelled(what.clone()),
        Ended::Blocked => Outcome::Blocked,
        Ended::Ended if report.findings.iter().any(|f| f.level != Level::Allow) => {
            Outcome::Findings
        }
        Ended::Ended => Outcome::Clean,
    }
}

fn status_of(run: &Run) -> Status {
    let limits = match run.outcome {
        Outcome::Limit(_) | Outcome::NotModelled(_) => Status::NotModelled,
        _ => Status::Clean,
    };
    limits.and(if run.denied() { Status::Findings } else { Status::Clean })
}
