//! What can be wrong with the text of a scenario.

use thiserror::Error;

use crate::diagnostic::{Diagnostic, Severity};
use crate::span::{Position, Span};

/// A text that is no scenario: what is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{position}: {kind}")]
pub struct SyntaxError {
    /// What is wrong.
    pub kind: Box<SyntaxErrorKind>,
    /// The offending text's place.
    pub span: Span,
    /// Line and column of its beginning.
    pub position: Position,
    /// The offending text, at most one line of it; empty at the end of the file.
    pub found: String,
}

/// What is wrong with the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SyntaxErrorKind {
    /// Something else has to stand here.
    #[error("expected {}, found {found}", one_of(expected))]
    Unexpected {
        /// What may stand here; never empty.
        expected: Vec<&'static str>,
        /// What does, as a message shows it.
        found: String,
        /// The keyword that may have been meant.
        nearest: Option<&'static str>,
        /// What to do about it, where more can be said than what is expected.
        hint: Option<&'static str>,
    },
    /// A string without its closing quote.
    #[error("this string is not closed on its line")]
    UnclosedString,
    /// A backslash with a character that makes no escape.
    #[error("`\\{escape}` is no escape")]
    UnknownEscape {
        /// The character after the backslash.
        escape: char,
    },
    /// A number beyond 64 bits.
    #[error("`{digits}` is larger than 64 bits can hold")]
    NumberTooLarge {
        /// As written.
        digits: String,
    },
    /// Digits followed by letters that are no unit.
    #[error("`{word}` is no number")]
    BadNumber {
        /// As written.
        word: String,
    },
    /// A name in capitals where a value or a variable has to stand.
    #[error("`{name}` is in capitals, so it is a flag, and no flag can stand here")]
    FlagAsValue {
        /// The name.
        name: String,
    },
    /// An operator on bits beside another operator.
    #[error("`{second}` beside `{first}`: which of them comes first is not defined here")]
    MixedOperators {
        /// The operator before it.
        first: &'static str,
        /// This one.
        second: &'static str,
    },
    /// A word of the language used as a name.
    #[error("`{word}` is a word of the language and can't be a name")]
    Reserved {
        /// The word.
        word: String,
    },
    /// A brace that is never closed.
    #[error("this `{{` is never closed")]
    UnclosedBrace,
    /// Braces or parentheses nested too deeply.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// The file is not UTF-8 text.
    #[error("this is not UTF-8 text")]
    NotText,
}

impl SyntaxError {
    /// What is wrong, in one sentence.
    pub fn message(&self) -> String {
        self.kind.to_string()
    }

    /// What to write at the place.
    pub fn label(&self) -> String {
        match &*self.kind {
            SyntaxErrorKind::Unexpected { expected, .. } => {
                format!("expected {}", one_of(expected))
            }
            SyntaxErrorKind::UnclosedString => "begins here".to_owned(),
            SyntaxErrorKind::UnknownEscape { .. } => "unknown escape".to_owned(),
            SyntaxErrorKind::NumberTooLarge { .. } => "too large".to_owned(),
            SyntaxErrorKind::BadNumber { .. } => "not a number".to_owned(),
            SyntaxErrorKind::FlagAsValue { .. } => "a flag".to_owned(),
            SyntaxErrorKind::MixedOperators { .. } => "this one".to_owned(),
            SyntaxErrorKind::Reserved { .. } => "reserved".to_owned(),
            SyntaxErrorKind::UnclosedBrace => "opened here".to_owned(),
            SyntaxErrorKind::TooDeep { .. } => "one level too many".to_owned(),
            SyntaxErrorKind::NotText => "first byte that can't be read".to_owned(),
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match &*self.kind {
            SyntaxErrorKind::Unexpected { nearest: Some(word), .. } => {
                Some(format!("did you mean `{word}`?"))
            }
            SyntaxErrorKind::Unexpected { hint, .. } => hint.map(str::to_owned),
            SyntaxErrorKind::UnknownEscape { .. } => {
                Some("escapes are `\\\"`, `\\\\`, `\\n`, `\\r` and `\\t`".to_owned())
            }
            SyntaxErrorKind::UnclosedString => {
                Some("strings end with `\"` on the line they begin on".to_owned())
            }
            SyntaxErrorKind::BadNumber { .. } => {
                Some("numbers are decimal or `0x…`, then `K`, `M`, `G` or ` pages`".to_owned())
            }
            SyntaxErrorKind::MixedOperators { .. } => {
                Some("put what belongs together into parentheses".to_owned())
            }
            SyntaxErrorKind::FlagAsValue { .. } => {
                Some("variables have a lower-case letter in their names".to_owned())
            }
            SyntaxErrorKind::NumberTooLarge { .. } => {
                Some(format!("the largest value is {}", u64::MAX))
            }
            SyntaxErrorKind::NotText
            | SyntaxErrorKind::Reserved { .. }
            | SyntaxErrorKind::UnclosedBrace
            | SyntaxErrorKind::TooDeep { .. } => None,
        }
    }

    /// The same in the shape that all messages have.
    pub fn diagnostic(&self) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            message: self.message(),
            span: self.span,
            label: self.label(),
            related: Vec::new(),
            help: self.help(),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
fn one_of(expected: &[&'static str]) -> String {
    match expected {
        [] => "something else".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
