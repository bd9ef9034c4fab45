//! `textbed run`, and what every command that reads scenarios shares: loading them, the machines to
//! run them on, one run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use textbed_arch::Arch;
use textbed_check::rules::RuleId;
use textbed_check::{Level, Report, rules};
use textbed_event::Tee;
use textbed_kernel::Version;
use textbed_report::text::Problem;
use textbed_report::timeline::Timeline;
use textbed_report::{Excerpt, Input, InputKind, Note, Outcome, Run};
use textbed_scenario::diagnostic::{Diagnostic, Severity};
use textbed_scenario::expect::End;
use textbed_scenario::syntax::ast::{Block, Reading};
use textbed_scenario::{Loaded, Outcome as Ended, PolicyChoice, RunEnd, RunError, RunOptions};

use crate::args::{MachineArgs, PolicyArg, ScenarioArgs};
use crate::baseline::Baseline;
use crate::options::Check;
use crate::output::{self, Out};
use crate::status::Status;
use crate::watch::Watch;
use crate::{inputs, options, results};

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
    let mut other_orders = false;
    for input in &args.inputs {
        for loaded in load_all(input, out, &mut status) {
            if args.results {
                let options = |arch, kernel| machine.run_options(arch, kernel, policy);
                let printed = results::print(&loaded, &machine.of(&loaded), options, out)?;
                status = status.and(printed);
                continue;
            }
            for (arch, kernel) in machine.of(&loaded) {
                let mut told = Told::default();
                let more = (1..=args.seeds).map(PolicyChoice::Random);
                for policy in std::iter::once(policy).chain(more) {
                    let mut timeline = timelines.next();
                    match one(&loaded, arch, kernel, policy, &machine, &check, timeline.as_mut()) {
                        Ok((mut run, _)) => {
                            baseline.apply(&mut run);
                            status = status.and(status_of(&run));
                            other_orders |= run.outcome == Outcome::Clean && programs(&loaded) > 1;
                            if told.adds(&mut run) {
                                timelines.keep(timeline, &run);
                                runs.push(run);
                            }
                        }
                        Err(problems) => {
                            problems.iter().for_each(|p| out.problem(p));
                            status = status.and(Status::Unusable);
                            break;
                        }
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
    if args.seeds > 0 {
        out.note(&format!(
            "runs under seeds 1 to {} are shown where they add a finding or an end",
            args.seeds
        ));
    } else if other_orders && !matches!(policy, PolicyChoice::Random(_)) {
        out.note("each was run in one order of its CPUs; --seeds 20 tries others");
    }
    Ok(status)
}

/// How many CPUs of a scenario have a program.
fn programs(loaded: &Loaded) -> usize {
    loaded.file().blocks.iter().filter(|b| matches!(b.value, Block::Cpu { .. })).count()
}

/// What the runs of one scenario on one machine have shown.
#[derive(Default)]
struct Told {
    outcomes: Vec<Outcome>,
    findings: BTreeSet<String>,
}

impl Told {
    /// Leaves in a run what those before it did not show; whether it is the first, has any, or did
    /// not come to its end in a way that is new.
    fn adds(&mut self, run: &mut Run) -> bool {
        let first = self.outcomes.is_empty();
        let whole = matches!(run.outcome, Outcome::Clean | Outcome::Findings);
        let ended = !whole && !self.outcomes.contains(&run.outcome);
        self.outcomes.push(run.outcome.clone());
        run.report.findings.retain(|f| self.findings.insert(f.fingerprint.clone()));
        first || ended || run.report.findings.iter().any(|f| f.level != Level::Allow)
    }
}

/// What `--arch`, `--kernel`, `--cpu` and `--config` ask for.
pub(crate) struct Machines {
    archs: Option<Vec<Arch>>,
    kernel: Option<Version>,
    features: Vec<(String, String)>,
    config: Vec<(String, String)>,
    max_steps: u64,
    free: bool,
    given: Vec<String>,
}

impl Machines {
    pub(crate) fn new(args: &MachineArgs) -> Result<Self> {
        let mut given = Vec::new();
        given.extend(args.free.then(|| "--free".to_owned()));
        given.extend((!args.arch.is_empty()).then(|| format!("--arch {}", args.arch.join(","))));
        given.extend(args.kernel.as_ref().map(|k| format!("--kernel {k}")));
        given.extend(args.cpu.iter().map(|c| format!("--cpu {c}")));
        given.extend(args.config.iter().map(|c| format!("--config {c}")));
        Ok(Self {
            archs: options::archs(&args.arch)?,
            kernel: args.kernel.as_deref().map(options::kernel).transpose()?,
            features: options::features(&args.cpu)?,
            config: options::kernel_options(&args.config)?,
            max_steps: args.max_steps,
            free: args.free,
            given,
        })
    }

    /// How to run on one of them.
    pub(crate) fn run_options(
        &self,
        arch: Arch,
        kernel: Version,
        policy: PolicyChoice,
    ) -> RunOptions {
        let (features, config) = (self.features.clone(), self.config.clone());
        let (max_steps, free) = (self.max_steps, self.free);
        RunOptions { arch, kernel, features, config, policy, max_steps, free, left_out: None }
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
    read_all(input, out, status).into_iter().filter_map(Result::ok).collect()
}

/// A scenario file that cannot be used.
pub(crate) struct Unusable {
    pub(crate) path: String,
    /// Its text, where it could be read.
    pub(crate) text: Option<String>,
    pub(crate) problems: Vec<Problem>,
}

/// As [`load_all`], with the files that cannot be used.
pub(crate) fn read_all(
    input: &Path,
    out: &mut Out,
    status: &mut Status,
) -> Vec<std::result::Result<Loaded, Unusable>> {
    let unread = |path: &Path, error: &anyhow::Error, out: &mut Out| {
        let message = format!("{error:#}");
        out.error(&message);
        let path = path.display().to_string();
        let problem = plain(message, &path);
        Err(Unusable { path, text: None, problems: vec![problem] })
    };
    let files = match inputs::scenarios(input) {
        Ok(files) => files,
        Err(error) => {
            *status = status.and(Status::Unusable);
            return vec![unread(input, &error, out)];
        }
    };
    let rule_names: Vec<&str> = rules::RULES.iter().map(|row| row.name).collect();
    let mut all = Vec::new();
    for file in files {
        let text = match inputs::text(&file) {
            Ok(text) => text,
            Err(error) => {
                *status = status.and(Status::Unusable);
                all.push(unread(&file, &error, out));
                continue;
            }
        };
        let path = file.display().to_string();
        match textbed_scenario::load(&path, text.clone(), &rule_names) {
            Ok((loaded, warnings)) => {
                for warning in warnings {
                    out.problem(&problem(warning, &path, &text));
                }
                all.push(Ok(loaded));
            }
            Err(errors) => {
                let problem = |error| problem(error, &path, &text);
                let problems: Vec<Problem> = errors.into_iter().map(problem).collect();
                problems.iter().for_each(|p| out.problem(p));
                *status = status.and(Status::Unusable);
                all.push(Err(Unusable { path, text: Some(text), problems }));
            }
        }
    }
    all
}

/// A problem without a place.
fn plain(message: String, path: &str) -> Problem {
    Problem {
        message,
        path: path.to_owned(),
        source: None,
        span: None,
        label: String::new(),
        help: None,
        fatal: true,
    }
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
        RunError::Option(message) => vec![plain(message, loaded.path())],
    }
}

/// The rules whose findings a scenario allows.
pub(crate) fn allowed(loaded: &Loaded) -> Vec<RuleId> {
    let allows = loaded.allows();
    allows.iter().filter_map(|(name, _)| rules::by_name(name)).map(|row| row.id).collect()
}

/// Runs one scenario on one machine and checks it.
pub(crate) fn one(
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
    let expected = Reading::by_name(&reading).and_then(|r| loaded.expectation(arch, kernel, r));
    let cmodx = check.cmodx;
    let may_block = expected.is_some_and(|e| e.end == End::Blocked);
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
        outcome: outcome(&end, &report, may_block),
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

pub(crate) fn policy_name(policy: PolicyChoice) -> &'static str {
    match policy {
        PolicyChoice::Newest => "newest",
        PolicyChoice::Stalest => "stalest",
        PolicyChoice::Random(_) => "random",
    }
}

fn outcome(end: &RunEnd, report: &Report, expected: bool) -> Outcome {
    match &end.outcome {
        Ended::Limit(what) => Outcome::Limit(what.clone()),
        Ended::NotModelled(what) => Outcome::NotModelled(what.clone()),
        Ended::Blocked => Outcome::Blocked { expected },
        Ended::Ended if report.findings.iter().any(|f| f.level != Level::Allow) => {
            Outcome::Findings
        }
        Ended::Ended => Outcome::Clean,
    }
}

fn status_of(run: &Run) -> Status {
    let ended = match run.outcome {
        Outcome::Limit(_) | Outcome::NotModelled(_) => Status::NotModelled,
        Outcome::Blocked { expected: false } => Status::Findings,
        _ => Status::Clean,
    };
    ended.and(if run.denied() { Status::Findings } else { Status::Clean })
}
