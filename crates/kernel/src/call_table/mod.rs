//! The rows of the call table, by topic.
//!
//! A topic is a file: allocation, permissions, flushes, patching by architecture, and who patches.
//! What each body does and leaves out stands in its own file. Here is what the rows are written
//! with, and the one table that they make.

mod allocation;
mod arm64;
mod bpf;
mod caching;
mod flushes;
mod hotplug;
mod keys;
mod modules;
mod not_modelled;
mod permissions;
mod plain;
mod powerpc;
mod probes;
mod tracing;
mod x86;

use textbed_arch::{Arch, Cite};
use textbed_event::Need;

use crate::calls::ParamKind::{Addr, Bytes, Code, Insn, Pages};
use crate::calls::{Body, CallNeed, CallSpec, Param, ParamKind, Returns};
use crate::cross_calls::By;
use crate::hotplug::HOTPLUG_LOCK;
use crate::version::Version;

pub(crate) use allocation::EXECMEM_TYPES;
pub use not_modelled::NOT_MODELLED;

joined! {
    /// Every call.
    pub CALLS: CallSpec =
        allocation::ROWS,
        permissions::ROWS,
        caching::ROWS,
        flushes::ROWS,
        x86::ROWS,
        arm64::ROWS,
        powerpc::ROWS,
        keys::ROWS,
        modules::ROWS,
        probes::ROWS,
        tracing::ROWS,
        bpf::ROWS,
        plain::ROWS,
        hotplug::ROWS,
}

const ALL: &[Arch] = &Arch::ALL;
/// Of those who patch: on 32-bit powerpc the patcher alone is modelled ([`crate::find_call`]).
const ALL_64: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const NOT_ARM64: &[Arch] = &[Arch::X86_64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const NOT_POWER: &[Arch] = &[Arch::X86_64, Arch::Arm64];
const NOT_X86: &[Arch] = &[Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const POWER_64: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64];
const NOT_ARM64_OF_64: &[Arch] = &[Arch::X86_64, Arch::Ppc64le, Arch::Ppc64];
const V6_13: Version = Version::candidate(6, 13, 1);
const V6_3: Version = Version::candidate(6, 3, 1);
const V5_19: Option<Version> = Some(Version::candidate(5, 19, 1));
const SMP_NAMES: Option<Version> = Some(Version::candidate(6, 16, 1));

const fn p(name: &'static str, kind: ParamKind) -> Param {
    Param { name, kind }
}

const fn call(
    name: &'static str,
    params: &'static [Param],
    returns: Returns,
    archs: &'static [Arch],
    doc: &'static str,
    cite: Cite,
    run: Body,
) -> CallSpec {
    CallSpec {
        name,
        params,
        returns,
        archs,
        since: None,
        until: None,
        doc,
        cite,
        counterfactual: None,
        needs: &[],
        takes: &[],
        sends: &[],
        steps: &[],
        run,
    }
}

/// With what a call needs of its context.
const fn needs(mut spec: CallSpec, needs: &'static [CallNeed]) -> CallSpec {
    spec.needs = needs;
    spec
}

/// With locks that a call takes, for which it may have to wait (so it may sleep).
const fn takes(mut spec: CallSpec, locks: &'static [&'static str]) -> CallSpec {
    spec.takes = locks;
    spec.needs = SLEEPS;
    spec
}

/// For what calls interrupt others, and where.
type Sends = &'static [(By, &'static [Arch])];

const FLUSHES: Sends = &[(By::Flush, ALL)];
const PURGES: Sends = &[(By::Unmapped, ALL)];
const POWER_FLUSHES: Sends = &[(By::Flush, POWER)];
const CROSS: Sends = &[(By::Itself, ALL)];
const X86_CROSS: Sends = &[(By::Itself, X86)];
const ARM64_CROSS: Sends = &[(By::Itself, ARM64)];
const POWER_CROSS: Sends = &[(By::Itself, POWER)];
/// What makes or frees code: arm64's cache maintenance tells others.
const CODE: Sends = &[(By::Itself, ARM64), (By::Flush, ALL)];
const BPF_TEXT: Sends = &[(By::Itself, ARM64), (By::Flush, POWER)];
/// Changes of where programs attach.
const LINKS: Sends = &[(By::Itself, ARM64), (By::Itself, POWER), (By::Flush, ALL)];

const SLEEPS: &[CallNeed] = &[CallNeed::Context(Need::MaySleep)];
const CPUS_HELD: &[CallNeed] = &[CallNeed::Lock(HOTPLUG_LOCK), CallNeed::Context(Need::MaySleep)];
const TEXT_MUTEX: &[CallNeed] = &[CallNeed::Lock("text_mutex")];
const SYNCS_TEXT: &[CallNeed] = &[CallNeed::Lock("text_mutex"), CallNeed::Context(Need::IrqsOn)];
const IRQS_ON: &[CallNeed] = &[CallNeed::Context(Need::IrqsOn)];
const STOPPED: &[CallNeed] = &[CallNeed::Context(Need::OthersStopped)];

const fn since(mut spec: CallSpec, since: Option<Version>) -> CallSpec {
    spec.since = since;
    spec
}

const fn until(mut spec: CallSpec, until: Option<Version>) -> CallSpec {
    spec.until = until;
    spec
}

const fn never(mut spec: CallSpec, what: &'static str) -> CallSpec {
    spec.counterfactual = Some(what);
    spec
}

const SIZE: &[Param] = &[p("size", Bytes)];
const ADDR: &[Param] = &[p("addr", Addr)];
const ADDR_PAGES: &[Param] = &[p("addr", Addr), p("numpages", Pages)];
const START_END: &[Param] = &[p("start", Addr), p("end", Addr)];
const ADDR_INSN: &[Param] = &[p("addr", Addr), p("insn", Insn)];
const ADDR_CODE: &[Param] = &[p("addr", Addr), p("code", Code)];

/// Page protections, as calls name them; the last two are arm64's, for single entries.
pub(crate) const PROTS: &[(&str, u64)] = &[
    ("PAGE_KERNEL", 1),
    ("PAGE_KERNEL_RO", 2),
    ("PAGE_KERNEL_ROX", 4),
    ("PAGE_KERNEL_EXEC", 8),
    ("PTE_CONT", 16),
    ("PROT_NORMAL_NC", 32),
];
