//! Rules over events: what is wrong, which operation is missing, on which CPU, by which text.
//!
//! What each word means, and what each event does, is defined first.
//!
#![doc = include_str!("definition.md")]

pub use checker::Checker;
pub use finding::{
    Blame, ChainStep, Confidence, Coverage, Finding, Level, Place, Report, Site, StepState, Window,
    WindowStatus, WxWindow,
};
pub use operation::Operation;
pub use options::{Levels, Mode, Options, Reading, UnknownName};

mod ahead;
mod book;
pub mod calibration;
mod calls;
mod checker;
mod coverage;
mod entries;
mod fetch;
pub mod finding;
mod fingerprint;
mod frames;
mod groups;
mod hashed;
mod joining;
mod live;
mod mappings;
mod mark;
mod memory;
mod mistakes;
pub mod operation;
mod options;
pub mod outcomes;
mod patching;
mod per_cpu;
mod permits;
mod refusals;
pub mod rules;
mod shortcuts;
mod span;
mod steady;
mod symbols;
mod tables;
mod translation;
mod words;
mod wx;
