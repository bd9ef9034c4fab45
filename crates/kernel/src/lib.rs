//! Linux's executable-memory calls, by architecture and version, on a modelled machine.
//!
//! A [`Kernel`] boots on a [`textbed_machine::Machine`] and carries out the calls of [`CALLS`] as
//! that version does on that architecture: checks in their order, page-table edits, flushes,
//! maintenance and interrupts by the CPU that calls. All of it becomes events. What calls promise
//! ([`PROMISES`]), which aliases are authorised and what a range belongs to become events too, so
//! that nobody downstream needs a function's name.
//!
//! Facts that differ by version stand in tables with their sources: [`FACTS`], [`CALLS`],
//! [`PROMISES`], [`MAPS`], [`OPTIONS`]. Simulated are the versions of [`simulated`]; others have
//! facts but do not boot.
//!
//! Not modelled: tasks, scheduling, memory pressure, modules as such, KASLR, on ppc32 all who patch
//! but the patcher, and the calls of [`NOT_MODELLED`].

#[macro_use]
mod tables;

mod area;
mod arm64;
mod boot;
mod bpf;
mod call;
mod call_table;
mod calls;
mod caps;
mod config;
mod cross_calls;
mod dispatcher;
mod empty_tables;
pub use textbed_event::errno;
mod error;
mod facts;
mod free_ranges;
mod ftrace;
mod generic;
mod hotplug;
mod insns;
mod kernel;
mod kgdb;
mod layout;
mod module_memory;
mod modules;
mod needs;
mod page_table;
mod pages;
mod phases;
mod pools;
mod powerpc;
mod probes;
mod promise;
mod ptdump;
mod remedy;
mod rox_cache;
mod set_memory;
mod static_calls;
mod steps;
mod stop_machine;
mod stores;
pub mod suggest;
mod text_users;
mod trampoline_image;
mod trampolines;
mod traps;
mod users;
mod version;
mod vfree;
mod vmalloc;
mod vmalloc_exec;
mod x86;

pub use area::{Area, Areas, Frames, vm_flags};
pub use boot::{BootArgs, booted_formats};
pub use call::Arg;
pub use calls::{
    CALLS, CallNeed, CallSpec, NOT_MODELLED, NotModelled, Param, ParamKind, Returns, find_call,
};
pub use caps::{Caps, Fact, FactRow, Value};
pub use config::{Config, ConfigError, OPTIONS, OptionKind, OptionSpec};
pub use error::{CallError, KernelError};
pub use facts::FACTS;
pub use hotplug::HOTPLUG_LOCK;
pub use kernel::{CallValue, Kernel};
pub use layout::{BEHIND_MEMORY, Layout, MAPS, MapRow, Range};
pub use needs::{NEEDS, NeedRow, needs_of};
pub use pages::{ADDRESS_SIZES, AddressRow, PAGE_SIZES, PageRow, Pages, Paging};
pub use phases::{Progress, Wait};
pub use probes::Rethook;
pub use promise::{Extent, PROMISES, PromiseRow, promises_of};
pub use remedy::{REMEDIES, Remedy, look_at_result, remedies};
pub use traps::Resume;
pub use version::{KERNELS, KnownKernel, Version, VersionError, in_range, simulated};
