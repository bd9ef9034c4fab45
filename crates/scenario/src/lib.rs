//! The scenario language: files that read like the kernel code they stand for, and their runner.
//!
//! | module | what it does |
//! |---|---|
//! | [`syntax`] | text -> syntax tree with spans, and back |
//! | [`analyse`] | what can be said about a tree without running it |
//! | [`value`] | the arithmetic of expressions and conditions |
//! | [`expect`] | chooses the `expect` line of a run and compares it with the findings |
//! | [`builder`] | the same tree from Rust calls |
//! | [`loaded`] | a scenario that was read and checked |
//! | [`mod@run`] | runs it on the modelled kernel and machine |
//! | [`diagnostic`] | the one shape that all messages about a file have |
//! | [`arches`], [`errno`], [`ops`] | names that the language knows |
//!
//! Not here: what is wrong with what ran (the checker says that, from the events), and drawing
//! diagnostics.

pub mod analyse;
pub mod arches;
pub mod builder;
pub mod diagnostic;
pub mod errno;
pub mod expect;
pub mod loaded;
pub mod ops;
pub mod run;
pub mod span;
pub mod suggest;
pub mod syntax;
pub mod value;

pub use loaded::{
    BuiltError, Difference, DifferenceKind, Expectation, Loaded, compare, load, load_built,
    load_bytes,
};
pub use run::{Outcome, PolicyChoice, RunEnd, RunError, RunNote, RunOptions, run};
pub use textbed_kernel::Version;
pub use textbed_machine::{SyncKind, SyncSeen, SyncSite};
