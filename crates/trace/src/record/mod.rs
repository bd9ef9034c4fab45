//! The recorder: what to probe on a kernel, as a shell script for tracefs or a bpftrace program.
//!
//! One table ([`probes`]) says which arguments of which function are recorded; what an event means
//! is in [`crate::functions`], and a test holds the two together: every argument that the reader
//! looks at is recorded under the name by which it looks.
//!
//! The script decides on the machine itself what exists there: a kernel's version and architecture
//! only choose the list that it tries. [`survey`] answers the same question beforehand, from
//! `kallsyms` or a configuration.
//!
//! Not recorded: single instructions that arm64 and powerpc patch, and their cache maintenance
//! (the kernel lets nobody probe these functions); executed code; contents of stores.

pub mod bpftrace;
pub mod probes;
pub mod survey;
pub mod tracefs;

use crate::functions::{Function, Meaning, by_name};
use probes::{PROBES, Probe, TRACEPOINTS, Tracepoint};
use textbed_arch::Arch;
use textbed_kernel::Version;

/// What a probe is recorded for: what a log without it cannot tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Areas and the pages mapped in them.
    Mappings,
    /// Changes of permissions.
    Permissions,
    /// Code that is stored or replaced.
    Patching,
    /// Invalidation of translations.
    Translations,
    /// Maintenance of instruction caches.
    InstructionCache,
    /// What orders CPUs: cross-calls, interrupts, stop-machine.
    Order,
    /// Who owns executable memory.
    Owners,
    /// Which call others are made in.
    Context,
}

impl Purpose {
    /// Every purpose, in the order in which a list shows them.
    pub const ALL: [Purpose; 8] = [
        Purpose::Mappings,
        Purpose::Permissions,
        Purpose::Patching,
        Purpose::Translations,
        Purpose::InstructionCache,
        Purpose::Order,
        Purpose::Owners,
        Purpose::Context,
    ];

    /// One word for lists and for the script.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Mappings => "mappings",
            Purpose::Permissions => "permissions",
            Purpose::Patching => "patching",
            Purpose::Translations => "translations",
            Purpose::InstructionCache => "icache",
            Purpose::Order => "order",
            Purpose::Owners => "owners",
            Purpose::Context => "context",
        }
    }

    /// What a log in which none of its probes fired cannot show.
    #[must_use]
    pub fn without(self) -> &'static str {
        match self {
            Purpose::Mappings => "what is mapped, and when it is gone",
            Purpose::Permissions => "which mappings become writable or executable",
            Purpose::Patching => "which code is replaced, and by which protocol",
            Purpose::Translations => "whether old translations were invalidated",
            Purpose::InstructionCache => "whether instruction caches were told",
            Purpose::Order => "which CPU was told of a change, and when",
            Purpose::Owners => "whose memory it is: module, BPF program, probe",
            Purpose::Context => "in which call something happened",
        }
    }

    fn of(meaning: Meaning) -> Self {
        use Meaning::*;
        match meaning {
            VmallocRange | AllocArea | MapPages | UnmapPages | RemoveArea | Vmap | GiveBack
            | PagesFreed | PagesTaken => Self::Mappings,
            SetMemory(_) | CpaCall | CpaWalk | ChangeMemoryCall | ChangeMemoryApply | AttrCall
            | AttrPage | DirectMap(_) => Self::Permissions,
            TextPoke | StoreDirect | PatchTrap | PatchBatch | TextCopy => Self::Patching,
            PurgeCall | Purged | LocalFlushAll | LocalFlushOne | BroadcastFlush | CpaFlush => {
                Self::Translations
            }
            IcacheRange => Self::InstructionCache,
            CrossCall { .. } | IpiSend | Remote(_) | StopMachine => Self::Order,
            ExecAlloc(_) | ExecmemAlloc | ExecPiece(_) | ExecPage(_) | ModuleStep => Self::Owners,
            Marker | Call | PatchStep | FreeStep | NotNeeded => Self::Context,
        }
    }
}

/// What is to be recorded on one kind of kernel.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The architecture that it is for.
    pub arch: Arch,
    /// The version that it is for; `None`: the probes of all versions are tried.
    pub version: Option<Version>,
    /// Probes, in the order in which they are armed.
    pub probes: Vec<Planned>,
    /// Tracepoints.
    pub tracepoints: Vec<&'static Tracepoint>,
}

/// A probe and what the reader makes of it.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    /// What is recorded.
    pub probe: &'static Probe,
    /// What it means.
    pub function: &'static Function,
}

impl Planned {
    /// What a log without this probe cannot tell.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        Purpose::of(self.function.meaning)
    }
}

impl Plan {
    /// The plan for an architecture and, if it is known, a kernel version.
    #[must_use]
    pub fn new(arch: Arch, version: Option<Version>) -> Self {
        let wanted =
            |f: &Function| f.on.has(arch) && version.is_none_or(|version| f.in_version(version));
        let probes = PROBES
            .iter()
            .filter_map(|probe| {
                let function = by_name(probe.function.as_bytes())?;
                wanted(function).then_some(Planned { probe, function })
            })
            .collect();
        let tracepoints = TRACEPOINTS
            .iter()
            .filter(|t| by_name(t.event.as_bytes()).is_some_and(wanted))
            .collect();
        Self { arch, version, probes, tracepoints }
    }

    /// How the plan's kernel is called in headers: `6.12` or `any version`.
    #[must_use]
    pub fn version_text(&self) -> String {
        self.version.map_or_else(|| "any version".into(), |v| v.to_string())
    }
}

/// How `uname -m` calls the architecture.
#[must_use]
pub fn machine(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "x86_64",
        Arch::Arm64 => "aarch64",
        Arch::Ppc64le => "ppc64le",
        Arch::Ppc64 => "ppc64",
        Arch::Ppc32 => "ppc",
    }
}

#[cfg(test)]
mod tests;
