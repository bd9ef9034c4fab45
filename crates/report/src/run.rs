//! What a report is made of: one run of one input.

use std::collections::BTreeMap;

use textbed_arch::Arch;
use textbed_check::{Coverage, Level, Report, WindowStatus};
use textbed_event::NameTable;

use crate::log::LogSummary;

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Input {
    /// Scenario or log.
    pub kind: InputKind,
    /// Path as the user gave it; `-` for standard input.
    pub path: String,
    /// SHA-256 of its bytes as stored, in hex; empty for standard input, and where no report that
    /// was asked for shows it.
    pub sha256: String,
}

/// Kind of input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InputKind {
    /// A `.tb` scenario.
    Scenario,
    /// A recorded log.
    Log,
}

impl InputKind {
    /// The word used in reports.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            InputKind::Scenario => "scenario",
            InputKind::Log => "log",
        }
    }
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// To the end, and nothing was found at warn level or above.
    Clean,
    /// To the end, with findings.
    Findings,
    /// To the end, but not one rule could be checked: the input records too little.
    Unchecked,
    /// Every CPU that had more to do waited for something that nobody will publish.
    Blocked {
        /// The input says that this run ends so.
        expected: bool,
    },
    /// A limit on steps or memory was reached.
    Limit(String),
    /// Something that the run needs is not modelled.
    NotModelled(String),
}

impl Outcome {
    /// The word used in reports.
    #[must_use]
    pub fn text(&self) -> &'static str {
        match self {
            Outcome::Clean => "clean",
            Outcome::Findings => "findings",
            Outcome::Unchecked => "unchecked",
            Outcome::Blocked { .. } => "blocked",
            Outcome::Limit(_) => "limit",
            Outcome::NotModelled(_) => "not-modelled",
        }
    }
}

/// Something that happened in a run and that a person wants to know: a call that failed, a guest
/// fault, a failed assertion, a limit of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// What, in one line.
    pub text: String,
    /// Where: path and line.
    pub place: Option<(String, u32)>,
}

/// The text of an input, as far as diagnostics need it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Excerpt {
    /// All of it.
    Whole(String),
    /// Single lines by number, from 1 (a log is too long to keep).
    Lines(BTreeMap<u32, String>),
}

/// One run of one input.
#[derive(Clone, Debug)]
pub struct Run {
    /// The input.
    pub input: Input,
    /// The scenario's name, or the log's.
    pub name: String,
    /// The architecture.
    pub arch: Arch,
    /// The kernel version, where known.
    pub kernel: Option<String>,
    /// The policy that answered hardware's choices; none for logs.
    pub policy: Option<String>,
    /// The seed of a random policy.
    pub seed: Option<u64>,
    /// Reading of the architecture, as named on the command line.
    pub reading: String,
    /// Whether live-patching rows were in force.
    pub cmodx: bool,
    /// Options that override the input, as the user gave them.
    pub overrides: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// What happened.
    pub notes: Vec<Note>,
    /// The checker's report.
    pub report: Report,
    /// Names of the stream.
    pub names: NameTable,
    /// Text of the inputs by path.
    pub excerpts: BTreeMap<String, Excerpt>,
    /// A summary of a log, in lines of text; empty for scenarios.
    pub summary: Vec<String>,
    /// The same for machines; none for scenarios.
    pub log: Option<LogSummary>,
}

impl Run {
    /// Findings at this level.
    #[must_use]
    pub fn count_at(&self, level: Level) -> usize {
        self.report.findings.iter().filter(|f| f.level == level).count()
    }

    /// Which run of its input it is: architecture, kernel, policy and seed.
    #[must_use]
    pub fn title(&self) -> String {
        let mut title = format!("{} on {}", self.name, self.arch);
        if let Some(kernel) = &self.kernel {
            title += &format!(", kernel {kernel}");
        }
        if let Some(policy) = &self.policy {
            title += &format!(", policy {policy}");
        }
        if let Some(seed) = self.seed {
            title += &format!(" (seed {seed})");
        }
        title
    }

    /// What the notes say of a run that ended blocked and was not expected to: a failure, though
    /// nothing was found.
    #[must_use]
    pub fn blocked(&self) -> Option<String> {
        let said = || self.notes.iter().map(|n| n.text.as_str()).collect::<Vec<_>>().join("; ");
        match self.outcome {
            Outcome::Blocked { expected: false } if self.notes.is_empty() => {
                Some("a CPU waits for ever".to_owned())
            }
            Outcome::Blocked { expected: false } => Some(format!("blocked: {}", said())),
            _ => None,
        }
    }

    /// Whether anything was found at deny level.
    #[must_use]
    pub fn denied(&self) -> bool {
        self.count_at(Level::Deny) > 0
    }

    /// How many W+X windows there were of each status, in the order of [`WindowStatus`].
    #[must_use]
    pub fn windows_by_status(&self) -> BTreeMap<WindowStatus, u64> {
        let mut by_status = BTreeMap::new();
        for window in &self.report.windows {
            *by_status.entry(window.status).or_insert(0) += window.count;
        }
        by_status
    }

    /// How many rules were checked, not exercised and not checkable.
    #[must_use]
    pub fn coverage_counts(&self) -> [usize; 3] {
        self.report.coverage.iter().fold([0; 3], |mut counts, (_, coverage)| {
            counts[match coverage {
                Coverage::Checked(_) => 0,
                Coverage::NotExercised => 1,
                Coverage::NotCheckable(_) => 2,
            }] += 1;
            counts
        })
    }
}

/// The runs by input, in the order in which the inputs first come.
pub(crate) fn by_input(runs: &[Run]) -> Vec<(&str, Vec<&Run>)> {
    let mut inputs: Vec<(&str, Vec<&Run>)> = Vec::new();
    for run in runs {
        match inputs.iter_mut().find(|(path, _)| *path == run.input.path) {
            Some((_, all)) => all.push(run),
            None => inputs.push((&run.input.path, vec![run])),
        }
    }
    inputs
}
