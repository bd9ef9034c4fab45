//! What calls promise, by architecture and version, with the source.
//!
//! No row, no promise: a call that flushes only this CPU, or none, is not in the table. The
//! promise is made when the call succeeded, at its end.

use textbed_arch::{Arch, Cite, Evidence};
use textbed_event::{Flags, Promise};

use crate::facts::{V6_2, V6_9, V6_10, V6_11};
use crate::version::{Version, in_range};

/// Which addresses a promise is about, by the call's arguments (counted from 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// From an address argument on, so many pages as another says.
    Pages(usize, usize),
    /// From an address argument on, so many bytes as another says.
    Bytes(usize, usize),
    /// Between two address arguments.
    Between(usize, usize),
    /// From an address argument on, as long as a code argument.
    Code(usize, usize),
    /// A breakpoint at an address argument: a byte on x86, an instruction elsewhere.
    Breakpoint(usize),
    /// The frames of the area that the call freed, by physical address.
    AreaFrames,
    /// What the call found out on its way: the sites that it replaced, the areas that it flushed.
    Noted,
}

/// One promise.
#[derive(Clone, Copy, Debug)]
pub struct PromiseRow {
    /// The call.
    pub call: &'static str,
    /// Architectures.
    pub archs: &'static [Arch],
    /// First version.
    pub since: Option<Version>,
    /// First version without it.
    pub until: Option<Version>,
    /// What it promises.
    pub promise: Promise,
    /// Of which addresses.
    pub extent: Extent,
    /// The source.
    pub cite: Cite,
}

const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const NOT_ARM64: &[Arch] = &[Arch::X86_64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const NOT_POWER: &[Arch] = &[Arch::X86_64, Arch::Arm64];
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];

const fn row(
    call: &'static str,
    archs: &'static [Arch],
    since: Option<Version>,
    promise: Promise,
    extent: Extent,
    cite: Cite,
) -> PromiseRow {
    PromiseRow { call, archs, since, until: None, promise, extent, cite }
}

const FREED: Cite =
    Cite::read("Linux 6.1, 6.12 mm/vmalloc.c, for areas with VM_FLUSH_RESET_PERMS alone");
const ARMED: Cite = Cite::read(
    "Linux 6.1, 6.12, 6.18.2: x86 synchronises all CPUs behind the breakpoint and behind what \
     replaces it, arm64 stops them; powerpc does neither",
);
const BATCH_OLD: Cite = Cite::read(
    "Linux 5.19, 6.12 arch/x86/kernel/alternative.c, jump_label.c (text_poke_sync behind each \
     phase)",
);
const BATCH: Cite =
    Cite::read("Linux 7.0 arch/x86/kernel/alternative.c (a synchronisation behind each phase)");
const KICKS: Cite = Cite::read(
    "cfb00a357864 arm64: jump_label: Ensure patched jump_labels are visible to all CPUs",
);
const SET_MEMORY: Cite =
    Cite::read("Linux 5.19, 6.12: each implementation flushes all CPUs before it returns 0");
const ENABLE_LOCKED: &str = "static_key_enable_cpuslocked";
const DISABLE_LOCKED: &str = "static_key_disable_cpuslocked";
const SELF_PAGES: Extent = Extent::Pages(0, 1);

/// Every promise.
pub const PROMISES: &[PromiseRow] = &[
    row("set_memory_ro", ALL, None, Promise::NoWrite, SELF_PAGES, SET_MEMORY),
    row("set_memory_nx", ALL, None, Promise::NoExec, SELF_PAGES, SET_MEMORY),
    row("set_memory_rw", ALL, None, Promise::Write, SELF_PAGES, SET_MEMORY),
    row("set_memory_x", ALL, None, Promise::Exec, SELF_PAGES, SET_MEMORY),
    row("set_memory_rox", ALL, Some(V6_2), Promise::ReadOnlyExec, SELF_PAGES, SET_MEMORY),
    row(
        "vfree",
        ALL,
        None,
        Promise::NoAccess,
        Extent::AreaFrames,
        Cite::read("Linux 5.19, 6.12 mm/vmalloc.c, for areas with VM_FLUSH_RESET_PERMS alone"),
    ),
    row(
        "flush_icache_range",
        ARM64,
        None,
        Promise::NoStaleCode,
        Extent::Between(0, 1),
        Cite::read("Linux 5.19, 6.12 arch/arm64/include/asm/cacheflush.h (maintenance and IPI)"),
    ),
    row(
        "aarch64_insn_copy",
        ARM64,
        Some(V6_9),
        Promise::NoStaleCode,
        Extent::Code(0, 1),
        Cite::read("Linux 6.12 arch/arm64/kernel/patching.c (flush_icache_range at the end)"),
    ),
    row(
        "aarch64_insn_set",
        ARM64,
        Some(V6_9),
        Promise::NoStaleCode,
        Extent::Bytes(0, 2),
        Cite::read("Linux 6.12 arch/arm64/kernel/patching.c (flush_icache_range at the end)"),
    ),
    row(
        "bpf_arch_text_copy",
        ARM64,
        Some(V6_10),
        Promise::NoStaleCode,
        Extent::Code(0, 1),
        Cite::read("Linux 6.12 arch/arm64/net/bpf_jit_comp.c (aarch64_insn_copy)"),
    ),
    row(
        "bpf_arch_text_invalidate",
        ARM64,
        Some(V6_10),
        Promise::NoStaleCode,
        Extent::Bytes(0, 1),
        Cite::read("Linux 6.12 arch/arm64/net/bpf_jit_comp.c (aarch64_insn_set)"),
    ),
    row("text_poke_bp", X86, None, Promise::NoStaleCode, Extent::Noted, BATCH_OLD),
    row("text_poke_queue", X86, None, Promise::NoStaleCode, Extent::Noted, BATCH_OLD),
    row("text_poke_finish", X86, None, Promise::NoStaleCode, Extent::Noted, BATCH_OLD),
    row("smp_text_poke_single", X86, None, Promise::NoStaleCode, Extent::Noted, BATCH),
    row("smp_text_poke_batch_add", X86, None, Promise::NoStaleCode, Extent::Noted, BATCH),
    row("smp_text_poke_batch_finish", X86, None, Promise::NoStaleCode, Extent::Noted, BATCH),
    row("static_key_enable", X86, None, Promise::NoStaleCode, Extent::Noted, BATCH_OLD),
    row("static_key_disable", X86, None, Promise::NoStaleCode, Extent::Noted, BATCH_OLD),
    row(ENABLE_LOCKED, X86, None, Promise::NoStaleCode, Extent::Noted, BATCH_OLD),
    row(DISABLE_LOCKED, X86, None, Promise::NoStaleCode, Extent::Noted, BATCH_OLD),
    row("static_key_enable", ARM64, Some(V6_11), Promise::NoStaleCode, Extent::Noted, KICKS),
    row("static_key_disable", ARM64, Some(V6_11), Promise::NoStaleCode, Extent::Noted, KICKS),
    row(ENABLE_LOCKED, ARM64, Some(V6_11), Promise::NoStaleCode, Extent::Noted, KICKS),
    row(DISABLE_LOCKED, ARM64, Some(V6_11), Promise::NoStaleCode, Extent::Noted, KICKS),
    row(
        "aarch64_insn_patch_text",
        ARM64,
        None,
        Promise::NoStaleCode,
        Extent::Code(0, 1),
        Cite::read("Linux 5.19, 6.12 arch/arm64/kernel/patching.c (every other CPU executes isb)"),
    ),
    row("execmem_free", ALL, Some(V6_10), Promise::NoAccess, Extent::AreaFrames, FREED),
    row("module_memfree", ALL, None, Promise::NoAccess, Extent::AreaFrames, FREED),
    row("register_kprobe", NOT_POWER, None, Promise::NoStaleCode, Extent::Breakpoint(0), ARMED),
    row("enable_kprobe", NOT_POWER, None, Promise::NoStaleCode, Extent::Breakpoint(0), ARMED),
    row("disable_kprobe", NOT_POWER, None, Promise::NoStaleCode, Extent::Breakpoint(0), ARMED),
    row("unregister_kprobe", NOT_POWER, None, Promise::NoStaleCode, Extent::Breakpoint(0), ARMED),
    row(
        "vm_unmap_aliases",
        ALL,
        None,
        Promise::NoAccess,
        Extent::Noted,
        Cite::read("Linux 5.19, 6.12 mm/vmalloc.c: one flush over all areas that wait for it"),
    ),
    row("set_memory_np", NOT_ARM64, None, Promise::NoAccess, Extent::Pages(0, 1), SET_MEMORY),
    row("set_memory_np_noalias", X86, None, Promise::NoAccess, Extent::Pages(0, 1), SET_MEMORY),
];

impl PromiseRow {
    /// What events say of where it is from.
    pub(crate) fn flags(&self) -> Flags {
        match self.cite.evidence {
            Evidence::Memory => Flags::FROM_MEMORY,
            _ => Flags::default(),
        }
    }
}

/// The promises of a call on an architecture in a version.
pub fn promises_of(
    call: &str,
    arch: Arch,
    version: Version,
) -> impl Iterator<Item = &'static PromiseRow> {
    PROMISES.iter().filter(move |row| {
        row.call == call && row.archs.contains(&arch) && in_range(version, row.since, row.until)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::CALLS;
    use crate::calls::ParamKind;

    #[test]
    fn extents_name_arguments_of_the_right_kind() {
        for row in PROMISES {
            let spec = CALLS.iter().find(|c| c.name == row.call).expect(row.call);
            let kind = |i: usize| spec.params[i].kind;
            let fits = match row.extent {
                Extent::Pages(a, n) => kind(a) == ParamKind::Addr && kind(n) == ParamKind::Pages,
                Extent::Bytes(a, n) => kind(a) == ParamKind::Addr && kind(n) == ParamKind::Bytes,
                Extent::Between(a, b) => kind(a) == ParamKind::Addr && kind(b) == ParamKind::Addr,
                Extent::Code(a, c) => kind(a) == ParamKind::Addr && kind(c) == ParamKind::Code,
                Extent::Breakpoint(a) => kind(a) == ParamKind::Addr,
                Extent::AreaFrames | Extent::Noted => true,
            };
            assert!(fits, "{}", row.call);
        }
    }
}
