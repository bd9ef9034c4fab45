//! The modelled hardware: memory, page tables in it, TLBs, instruction sides, CPUs, interrupts.
//!
//! A [`Machine`] carries out operations and emits the events of `textbed-event` for them. Whatever
//! hardware is free to do is a [`Choice`] that a [`Policy`] answers; the machine never says what is
//! right or wrong. One machine runs in one thread; CPUs are interleaved by its user, operation by
//! operation.
//!
//! Modelled: loads ahead of their turn and stores that wait, as the architecture orders them
//! ([`DataOrder`]); tables with real bits, trees or powerpc's hashed ones; per-CPU TLB entries that
//! outlive the tables until an invalidation completes; per-CPU instruction lines, of whatever an
//! architecture allows or of sets and ways ([`InstructionCache`]), and instructions fetched ahead;
//! cleaning to the point of unification; maintenance that takes effect somewhere between its issue
//! and its barrier.
//!
//! Not modelled: load buffering, storage that is not multi-copy-atomic, invalid entries that stay
//! unseen after a mapping was made, amalgamated entries, accessed and dirty bits set by hardware,
//! memory types, user privilege, caches of data as such, second-stage
//! translation. Nothing about Linux is here.

mod access;
mod alone;
mod choice;
mod controls;
mod copy;
mod cpu;
mod data;
mod error;
mod exec_map;
mod fetch;
mod frames;
mod icache;
mod ipi;
mod iside;
mod leave_out;
mod lines;
mod locks;
mod machine;
mod maintain;
mod mask;
mod memory;
mod numbers;
mod op;
mod power;
mod quiet;
mod reserve;
mod spaces;
mod state;
mod stream;
mod sync;
mod tables;
mod tlb;
mod torn;
mod translate;
mod upper;
mod wait;

pub use access::MAX_ACCESS_BYTES;
pub use alone::{Side, Stamped};
pub use choice::{Choice, Choices, Newest, Policy, Random, Scripted, Stalest, Taken};
pub use cpu::{CallEnd, Cpu, CpuError, Step, call, together};
pub use data::{DataOrder, MAX_WAITING_BYTES, Moment};
pub use error::{Fault, MachineError, MapError, OpError};
pub use fetch::{Again, Fetched};
pub use icache::InstructionCache;
pub use ipi::{Handler, Ipi};
pub use leave_out::{SyncKind, SyncSeen, SyncSite};
pub use machine::{Machine, MachineConfig};
pub use mask::{CpuMask, MAX_CPUS};
pub use memory::junk_word;
pub use numbers::SplitMix64;
pub use quiet::Stays;
pub use tables::{HashBarriers, HashSoftware, Made, Mapping, Span};
pub use torn::Integrity;
