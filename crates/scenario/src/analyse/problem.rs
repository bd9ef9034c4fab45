//! What the analysis can find wrong with a scenario.

use textbed_arch::Arch;
use thiserror::Error;

use crate::diagnostic::{Diagnostic, Severity};
use crate::span::Span;
use textbed_kernel::VersionError;

/// One thing that is wrong or odd, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub kind: ProblemKind,
    /// Where.
    pub span: Span,
    /// The other place that it has to do with.
    pub related: Option<(Span, &'static str)>,
    /// The architectures on which it is so; empty: on all that the scenario is for.
    pub on: Vec<Arch>,
}

/// What is wrong or odd.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProblemKind {
    /// A variable that nothing gave a value before.
    #[error("`{name}` is used before anything gives it a value")]
    Undefined {
        /// The name.
        name: String,
        /// The name that may have been meant.
        nearest: Option<String>,
    },
    /// A variable that has a value on some ways to here only.
    #[error("`{name}` may have no value here")]
    MaybeUndefined {
        /// The name.
        name: String,
    },
    /// Another CPU's published name, used without waiting for it.
    #[error("`{name}` is published elsewhere and has to be awaited before it is used")]
    NotAwaited {
        /// The name.
        name: String,
    },
    /// Waiting for what nobody publishes.
    #[error("nobody publishes `{name}`, so this CPU is blocked here")]
    NeverPublished {
        /// The name.
        name: String,
        /// The name that may have been meant.
        nearest: Option<String>,
    },
    /// Waiting for what only this program publishes, later.
    #[error("only this program publishes `{name}`, and not before this, so it is blocked here")]
    WaitsForItself {
        /// The name.
        name: String,
    },
    /// A handler that waits.
    #[error("a handler can't wait: the CPU it interrupts can't go on meanwhile")]
    AwaitInHandler,
    /// An idle CPU that does something.
    #[error("a CPU that idles can only `publish` and `await`")]
    BusyIdle,
    /// A CPU that idles while something else holds.
    #[error("a CPU does not idle inside of `with {context}`")]
    IdleInside {
        /// What holds there.
        context: String,
    },
    /// A second publication.
    #[error("`{name}` is published twice")]
    PublishedTwice {
        /// The name.
        name: String,
    },
    /// A publication that is repeated.
    #[error("`{name}` is published once, and this is repeated")]
    PublishedInRepeat {
        /// The name.
        name: String,
    },
    /// A second `setup`, or a second program for a CPU, or a second handler of a name.
    #[error("{what} is here twice")]
    Duplicate {
        /// What, as in ``label `here` ``.
        what: String,
    },
    /// A CPU that there is not.
    #[error("there is no CPU {number}: the CPUs are 0 to {last}")]
    NoSuchCpu {
        /// Its number.
        number: u64,
        /// The last that there is.
        last: u64,
    },
    /// A number of CPUs that can't be had.
    #[error("{count} CPUs can't be had: it must be 1 to {most}")]
    BadCpuCount {
        /// How many.
        count: u64,
        /// The most that can be had.
        most: u64,
    },
    /// A name that is in no list of that sort.
    #[error("there is no {sort} `{name}`")]
    Unknown {
        /// The sort of name.
        sort: Sort,
        /// The name.
        name: String,
        /// The name that may have been meant.
        nearest: Option<String>,
    },
    /// An instruction of other architectures.
    #[error("`{name}` is an instruction of other architectures")]
    OpElsewhere {
        /// The name.
        name: String,
        /// Whose it is.
        others: String,
    },
    /// A handler of the other kind.
    #[error("`{name}` handles traps, not interrupts from other CPUs")]
    WrongHandler {
        /// Its name.
        name: String,
    },
    /// A handler that no `ipi` names.
    #[error("nothing sends an IPI to the handler `{name}`")]
    UnusedHandler {
        /// Its name.
        name: String,
    },
    /// A text that is no kernel version.
    #[error("{0}")]
    BadVersion(VersionError),
    /// A range of versions that ends before it begins.
    #[error("this range of versions ends before it begins")]
    EmptyRange,
    /// A count that has to be 1 at least.
    #[error("{what} counts from 1")]
    CountsFromOne {
        /// What counts.
        what: &'static str,
    },
    /// An expected finding that is to be there zero times.
    #[error("`x0` expects nothing")]
    ExpectsZero,
    /// A loop that does nothing.
    #[error("`repeat 0` does nothing")]
    RepeatZero,
    /// Two `expect` lines of which neither is more specific.
    #[error("two `expect` lines apply to the same run, and neither is more specific")]
    AmbiguousExpect,
    /// Something for an architecture that the scenario is not for.
    #[error("the scenario's `arch` line does not name {arch}, so this is never used")]
    NotForThisArch {
        /// The architectures.
        arch: String,
    },
    /// No program at all.
    #[error("no CPU has a program, so nothing happens")]
    NoProgram,
}

/// A sort of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// Architectures.
    Arch,
    /// Features of an architecture.
    Feature,
    /// Rules of the checker.
    Rule,
    /// Calls.
    Call,
    /// Rows of the instruction table.
    Op,
    /// Guest routines.
    Routine,
    /// Generated code and its data.
    Generated,
    /// Errors.
    Errno,
    /// Handlers.
    Handler,
    /// Labels.
    Label,
}

impl std::fmt::Display for Sort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Sort::Arch => "architecture",
            Sort::Feature => "feature",
            Sort::Rule => "rule",
            Sort::Call => "call",
            Sort::Op => "instruction",
            Sort::Routine => "guest routine",
            Sort::Generated => "generated code",
            Sort::Errno => "error",
            Sort::Handler => "handler",
            Sort::Label => "label",
        })
    }
}

impl Problem {
    /// Whether the scenario can't be run with it.
    pub fn severity(&self) -> Severity {
        match self.kind {
            ProblemKind::MaybeUndefined { .. }
            | ProblemKind::NeverPublished { .. }
            | ProblemKind::WaitsForItself { .. }
            | ProblemKind::UnusedHandler { .. }
            | ProblemKind::RepeatZero
            | ProblemKind::NotForThisArch { .. }
            | ProblemKind::NoProgram => Severity::Warning,
            _ => Severity::Error,
        }
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> String {
        if self.on.is_empty() {
            return self.kind.to_string();
        }
        let names: Vec<&str> = self.on.iter().map(|arch| arch.name()).collect();
        format!("{} (on {})", self.kind, names.join(", "))
    }

    /// What to write at the place.
    pub fn label(&self) -> &'static str {
        match &self.kind {
            ProblemKind::Undefined { .. } => "no value yet",
            ProblemKind::MaybeUndefined { .. } => "given a value on some ways to here only",
            ProblemKind::NotAwaited { .. } => "not awaited",
            ProblemKind::NeverPublished { .. } | ProblemKind::WaitsForItself { .. } => {
                "waits for ever"
            }
            ProblemKind::AwaitInHandler => "waits",
            ProblemKind::BusyIdle => "does something",
            ProblemKind::IdleInside { .. } => "idles",
            ProblemKind::PublishedTwice { .. } | ProblemKind::Duplicate { .. } => "again here",
            ProblemKind::PublishedInRepeat { .. } => "in a `repeat`",
            ProblemKind::NoSuchCpu { .. } => "no such CPU",
            ProblemKind::BadCpuCount { .. } => "can't be had",
            ProblemKind::Unknown { .. } => "unknown",
            ProblemKind::OpElsewhere { .. } => "not here",
            ProblemKind::WrongHandler { .. } => "a trap's handler",
            ProblemKind::UnusedHandler { .. } => "never runs",
            ProblemKind::BadVersion(_) => "no version",
            ProblemKind::EmptyRange => "holds no version",
            ProblemKind::CountsFromOne { .. } => "begin with 1",
            ProblemKind::ExpectsZero => "leave the item out",
            ProblemKind::RepeatZero => "zero times",
            ProblemKind::AmbiguousExpect => "this one",
            ProblemKind::NotForThisArch { .. } => "never used",
            ProblemKind::NoProgram => "no `cpu` block",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match &self.kind {
            ProblemKind::Undefined { nearest: Some(name), .. }
            | ProblemKind::NeverPublished { nearest: Some(name), .. }
            | ProblemKind::Unknown { nearest: Some(name), .. } => {
                Some(format!("did you mean `{name}`?"))
            }
            ProblemKind::Unknown { sort: Sort::Generated, .. } => {
                Some(format!("names are {}", textbed_codegen::NAMES_HELP))
            }
            ProblemKind::NotAwaited { name } => Some(format!("add `await {name}` before it")),
            ProblemKind::OpElsewhere { others, .. } => {
                Some(format!("put it into `when {others} {{ … }}`"))
            }
            ProblemKind::AmbiguousExpect => {
                Some("add a line with the selectors of both, or make one narrower".to_owned())
            }
            ProblemKind::NoSuchCpu { number, .. } => number
                .checked_add(1)
                .map(|count| format!("the `cpus` line would have to say {count}")),
            _ => None,
        }
    }

    /// The same in the shape that all messages have.
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            severity: self.severity(),
            message: self.message(),
            span: self.span,
            label: self.label().to_owned(),
            related: self
                .related
                .iter()
                .map(|(span, label)| (*span, (*label).to_owned()))
                .collect(),
            help: self.help(),
        }
    }
}
