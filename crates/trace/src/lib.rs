//! Logs recorded on real kernels, read as they are.
//!
//! Two layers. The first knows the *format* and nothing of the kernel: [`reader`] streams lines
//! out of a file, a pipe or a compressed stream, [`ftrace`] takes the lines of tracefs `trace` and
//! `trace_pipe`, `trace-cmd report` and `perf script` apart, [`foreign`] reads function-graph and
//! bpftrace output, [`accounting`] answers for every line.
//!
//! Not read here: `trace.dat`, `perf.data` (their tools print them as text). A line of a format
//! that is not read is counted as not understood, never dropped.

pub mod accounting;
pub mod areas;
pub mod bounds;
pub mod calls;
pub mod conflicts;
pub mod coverage;
pub mod detect;
pub mod foreign;
pub mod ftrace;
pub mod functions;
mod limits;
mod lower;
pub mod mappings;
mod memo;
pub mod merge;
mod model;
pub mod modules;
pub mod perms;
pub mod reader;
pub mod record;
pub mod replay;
pub mod sections;
pub mod side;
pub mod sorted;
pub mod summary;
pub mod tables;

pub use detect::Options;
pub use replay::{ReplayError, Replayed, replay, replay_files};
pub use summary::Summary;
