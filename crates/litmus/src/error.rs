//! What can be wrong with a test's text, and where.

/// A test that can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LitmusError {
    /// Line of the text, from 1.
    pub line: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The first line names another architecture, or none.
    #[error("a test begins with 'AArch64 NAME', found '{0}'")]
    Header(String),
    /// The text ends too early.
    #[error("the text ends before {0}")]
    End(&'static str),
    /// An initial value that can't be read.
    #[error("initial state: {0}")]
    Init(String),
    /// A row with more or fewer columns than there are threads.
    #[error("{found} columns, but there are {threads} threads")]
    Columns {
        /// In this row.
        found: usize,
        /// In the first row.
        threads: usize,
    },
    /// A thread's name that is not `P` and its number, or `P`, a number and `.F`.
    #[error("'{0}' is not the name of a thread (P0, P1, ..., or P0.F for a fault handler)")]
    Thread(String),
    /// An instruction that is not known.
    #[error("instruction '{0}' is not one that this loader knows")]
    Instruction(String),
    /// An operand that can't be read, or is out of range.
    #[error("operand '{operand}' of '{text}': {why}")]
    Operand {
        /// The instruction.
        text: String,
        /// Its operand.
        operand: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A label that is defined twice or nowhere.
    #[error("label '{0}' is {1}")]
    Label(String, &'static str),
    /// A condition that can't be read.
    #[error("condition: {0}")]
    Condition(String),
    /// Something that is known and not modelled.
    #[error("not modelled: {0}")]
    NotModelled(String),
    /// A line of verdicts that is not `NAME Allowed|Forbidden|Required`, or contradicts another.
    #[error("verdicts: {0}")]
    Kinds(String),
}

impl Problem {
    /// The error at a line, counted from 1.
    pub(crate) fn at(self, line: usize) -> LitmusError {
        LitmusError { line, problem: self }
    }
}
