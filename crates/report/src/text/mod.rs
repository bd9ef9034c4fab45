//! Reports for people: diagnostics, tables, summaries.
//!
//! Width is the caller's; colour is a switch of [`Style`], so that the same code serves terminals,
//! pipes and golden files.

mod diagnostic;
mod notes;
mod page;
mod run;
mod table;
mod wrap;

pub use diagnostic::{Problem, finding, problem};
pub use page::page;
pub use run::{coverage, run_report, windows};
pub use table::{Table, stories};
pub use wrap::wrap;

/// How text is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// Columns to stay within, as far as words allow; at least 40.
    pub width: usize,
    /// ANSI colours.
    pub colour: bool,
    /// 0 = findings at deny level only, 1 = all findings, 2 = also windows and coverage in full.
    pub detail: u8,
}

impl Default for Style {
    fn default() -> Self {
        Self { width: 100, colour: false, detail: 1 }
    }
}
