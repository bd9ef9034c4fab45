//! Tests of page-table formats against MMUs that were not written here; see `ORACLE.md`.
//!
//! Here is what the tests have in common: cases, counts, and formats with one wrong bit.

// A wrong case fails by panicking, and the counts are what the tests are for.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::missing_panics_doc)]

pub mod arm64;
pub mod cases;
pub mod seeds;
pub mod tally;
pub mod x86;
