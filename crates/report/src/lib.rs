//! Findings, windows and coverage as text, JSON, SARIF, JUnit, KTAP and timelines.
//!
//! Modelled: one [`Run`] for each input, architecture and policy; diagnostics in a compiler's form
//! with the source line of a scenario or log ([`text`]); a document that follows the schema
//! `textbed-report/1` ([`json`]); the formats of other tools ([`sarif`], [`junit`], [`ktap`]); the
//! events on a time axis ([`timeline`]); scenarios held against what they expect ([`tested`]).
//!
//! Nothing here decides anything: verdicts come from `textbed-check`, outcomes from the runner.

pub mod json;
pub mod junit;
pub mod ktap;
pub mod log;
mod run;
pub mod sarif;
pub mod tested;
pub mod text;
pub mod timeline;

pub use run::{Excerpt, Input, InputKind, Note, Outcome, Run};
