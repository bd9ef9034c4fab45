//! The one shape that all messages about a scenario file have, whoever made them.
//!
//! It holds what a compiler's diagnostic needs (message, place, label, help); drawing it is not
//! done here.

use crate::span::Span;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth a look; the file can be run.
    Warning,
    /// The file can't be run.
    Error,
}

/// A message about a place in a scenario file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// One sentence, no full stop.
    pub message: String,
    /// The place it is about.
    pub span: Span,
    /// What to write at that place.
    pub label: String,
    /// Other places with a label each.
    pub related: Vec<(Span, String)>,
    /// What to do about it.
    pub help: Option<String>,
}
