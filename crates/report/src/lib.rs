//! Findings, windows and coverage as text and JSON.
//!
//! Modelled: one [`Run`] for each input, architecture and policy; diagnostics in a compiler's form
//! with the source line of a scenario or log ([`text`]); a document that follows the schema
//! `textbed-report/1` ([`json`]). Not modelled yet: SARIF, JUnit, KTAP and Chrome traces.
//!
//! Nothing here decides anything: verdicts come from `textbed-check`, outcomes from the runner.

pub mod json;
mod run;
pub mod text;

pub use run::{Excerpt, Input, InputKind, Note, Outcome, Run};
