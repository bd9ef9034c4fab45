//! Scenarios held against what they expect: the results of `textbed test`.
//!
//! Modelled: a [`Tested`] for each file, in it a [`Case`] for each architecture, kernel, reading,
//! policy and seed, with the line that applied, what came, and each [`Difference`] with its place.
//! Its forms are text ([`text`]), the schema `textbed-test/1` ([`json`]), [`junit`], [`ktap`] and
//! [`sarif`]. Not here: which line applies and what differs from it, which `textbed-scenario` says.

pub mod json;
pub mod junit;
pub mod ktap;
pub mod sarif;
pub mod text;

use textbed_arch::Arch;

use crate::text::Problem;

/// One scenario file.
#[derive(Clone, Debug)]
pub struct Tested {
    /// Path as the user gave it.
    pub path: String,
    /// The scenario's name; empty if the file could not be used.
    pub name: String,
    /// SHA-256 of its text, in hex; empty if the file could not be read.
    pub sha256: String,
    /// Why the file could not be used. Then it has no cases.
    pub unusable: Vec<Problem>,
    /// Its runs, in the order in which they were made.
    pub cases: Vec<Case>,
}

/// One run of a file.
#[derive(Clone, Debug)]
pub struct Case {
    /// The architecture.
    pub arch: Arch,
    /// The kernel version.
    pub kernel: String,
    /// The reading.
    pub reading: &'static str,
    /// The policy that answered hardware's choices.
    pub policy: &'static str,
    /// The seed of a random policy.
    pub seed: Option<u64>,
    /// What the line that applies says; none if no line applies, or none alone.
    pub expected: Option<Expected>,
    /// What came; none if it could not be run so.
    pub came: Option<Came>,
    /// What differs.
    pub differences: Vec<Difference>,
}

/// An `expect` line.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its number in the file, from 1.
    pub line: u32,
    /// Its items, as the file has them.
    pub items: Vec<String>,
    /// How the run is to end.
    pub end: Ending,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Came {
    /// How it ended.
    pub end: Ending,
    /// The limit, or what is not modelled, if it was cut short.
    pub reason: Option<String>,
    /// What was found at warn level or above.
    pub found: Vec<Found>,
}

/// A finding, as far as an `expect` line can tell findings apart, and where it is.
#[derive(Clone, Debug)]
pub struct Found {
    /// As an item of an `expect` line would say it.
    pub item: String,
    /// The rule's name.
    pub rule: &'static str,
    /// Certain or possible.
    pub confidence: &'static str,
    /// The operations that are missing.
    pub missing: Vec<String>,
    /// The line in the file where it shows.
    pub line: Option<u32>,
    /// Its message.
    pub message: String,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// How a run ended, as `expect` lines tell endings apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// All programs ended.
    Ended,
    /// A CPU waits for what nobody will publish.
    Blocked,
    /// A limit was reached or something is not modelled.
    Unfinished,
}

/// Something in which a run differs from what is expected of it.
#[derive(Clone, Debug)]
pub struct Difference {
    /// In which way.
    pub kind: DifferenceKind,
    /// The line of the file, from 1, where it has a place.
    pub line: Option<u32>,
    /// What, with its place; the message does not say in which case.
    pub problem: Problem,
}

/// In which way a run differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DifferenceKind {
    /// A finding is expected, and not found or not so often.
    NotFound,
    /// A finding is not expected.
    NotExpected,
    /// The run ended otherwise.
    Ending,
    /// Two `expect` lines apply that are equally specific.
    Ambiguous,
    /// Nothing was found, and an assertion of the scenario failed.
    Assertion,
    /// The scenario cannot be run so.
    NotRun,
}

/// What became of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// What came is what the line says.
    Agrees,
    /// Something differs.
    Differs,
    /// No line applies to it, and nothing else is wrong.
    NothingExpected,
    /// It could not be run.
    NotRun,
}

/// What became of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileVerdict {
    /// It could be used and no case differs.
    Agrees,
    /// A case differs.
    Differs,
    /// It could not be used, or no case differs and some could not be run.
    Unusable,
}

impl Tested {
    /// What became of it.
    #[must_use]
    pub fn verdict(&self) -> FileVerdict {
        let is = |verdict| self.cases.iter().any(|c| c.verdict() == verdict);
        if is(Verdict::Differs) {
            FileVerdict::Differs
        } else if self.usable() {
            FileVerdict::Agrees
        } else {
            FileVerdict::Unusable
        }
    }

    /// Whether it could be used, and every case of it could be run.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.unusable.is_empty() && self.cases.iter().all(|c| c.verdict() != Verdict::NotRun)
    }

    /// The differences, each with the cases that have it: those that differ in policy and seed
    /// alone have one together.
    #[must_use]
    pub fn joined(&self) -> Vec<(&Difference, Vec<&Case>)> {
        let mut all: Vec<(&Difference, Vec<&Case>)> = Vec::new();
        for case in &self.cases {
            for difference in &case.differences {
                let same = |(d, of): &&mut (&Difference, Vec<&Case>)| {
                    d.kind == difference.kind
                        && d.problem == difference.problem
                        && of.iter().all(|c| c.machine() == case.machine())
                };
                match all.iter_mut().find(same) {
                    Some((_, of)) => of.push(case),
                    None => all.push((difference, vec![case])),
                }
            }
        }
        all
    }
}

impl Case {
    /// What became of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (&self.came, &self.expected) {
            (None, _) => Verdict::NotRun,
            _ if !self.differences.is_empty() => Verdict::Differs,
            (_, None) => Verdict::NothingExpected,
            _ => Verdict::Agrees,
        }
    }

    /// Which case of its file it is.
    #[must_use]
    pub fn title(&self) -> String {
        let seed = self.seed.map_or_else(String::new, |seed| format!(" (seed {seed})"));
        let (arch, kernel, reading) = self.machine();
        format!("{arch}, kernel {kernel}, reading {reading}, policy {}{seed}", self.policy)
    }

    fn machine(&self) -> (Arch, &str, &'static str) {
        (self.arch, &self.kernel, self.reading)
    }

    /// What was expected and what came, a line each.
    fn compared(&self) -> [String; 2] {
        let side = |end: Ending, items: Vec<&str>| match (end, items.as_slice()) {
            (Ending::Ended, []) => "none".to_owned(),
            (Ending::Ended, items) => items.join(", "),
            (end, []) => end.name().to_owned(),
            (end, items) => format!("{}; {}", end.name(), items.join(", ")),
        };
        let expected = match &self.expected {
            Some(e) => {
                let items = e.items.iter().map(String::as_str).collect();
                format!("{} (line {})", side(e.end, items), e.line)
            }
            None => "nothing said".to_owned(),
        };
        let came = match &self.came {
            Some(came) => side(came.end, came.found.iter().map(|f| f.item.as_str()).collect()),
            None => "not run".to_owned(),
        };
        [format!("expected: {expected}"), format!("came: {came}")]
    }
}

impl Difference {
    /// The problem, with the case in its message.
    #[must_use]
    pub fn problem(&self, case: &Case) -> Problem {
        let (arch, kernel, reading) = case.machine();
        let message = format!(
            "{} on {arch}, kernel {kernel}, reading {reading} (policy {})",
            self.problem.message, case.policy
        );
        Problem { message, ..self.problem.clone() }
    }
}

impl Ending {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Ending::Ended => "ended",
            Ending::Blocked => "blocked",
            Ending::Unfinished => "unfinished",
        }
    }
}

impl DifferenceKind {
    /// All of them, in the order of reports.
    pub const ALL: [DifferenceKind; 6] = [
        DifferenceKind::NotFound,
        DifferenceKind::NotExpected,
        DifferenceKind::Ending,
        DifferenceKind::Ambiguous,
        DifferenceKind::Assertion,
        DifferenceKind::NotRun,
    ];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.text().0
    }

    /// What it is, in a sentence.
    #[must_use]
    pub fn describe(self) -> &'static str {
        self.text().1
    }

    fn text(self) -> (&'static str, &'static str) {
        match self {
            DifferenceKind::NotFound => {
                ("not-found", "A finding is expected, and not found or not so often.")
            }
            DifferenceKind::NotExpected => {
                ("not-expected", "A finding that no item of the line expects.")
            }
            DifferenceKind::Ending => ("ending", "The run ended otherwise than expected."),
            DifferenceKind::Ambiguous => {
                ("ambiguous", "Two expect lines apply that are equally specific.")
            }
            DifferenceKind::Assertion => {
                ("assertion", "Nothing was found, and an assertion of the scenario failed.")
            }
            DifferenceKind::NotRun => ("not-run", "The scenario cannot be run so."),
        }
    }
}

impl FileVerdict {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileVerdict::Agrees => "agrees",
            FileVerdict::Differs => "differs",
            FileVerdict::Unusable => "unusable",
        }
    }
}

impl Verdict {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Agrees => "agrees",
            Verdict::Differs => "differs",
            Verdict::NothingExpected => "nothing-expected",
            Verdict::NotRun => "not-run",
        }
    }
}
