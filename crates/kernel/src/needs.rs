//! What calls ask of the context that they are called in, by architecture and version, with the
//! source: beside the locks that a row of the call table names.
//!
//! A need becomes an event where the call begins. Not here: what a call asks for only on some of
//! its ways (a split of a large leaf allocates; without tlbie powerpc interrupts other CPUs). Which
//! calls interrupt others is a list of its own: a need of interrupts holds only where they do.

use textbed_arch::{Arch, Cite};
use textbed_event::Need;

use crate::facts::{V6_9, V6_10};
use crate::version::{Version, in_range};

/// One need of some calls.
#[derive(Clone, Copy, Debug)]
pub struct NeedRow {
    /// The calls.
    pub calls: &'static [&'static str],
    /// Architectures.
    pub archs: &'static [Arch],
    /// First version.
    pub since: Option<Version>,
    /// First version without it.
    pub until: Option<Version>,
    /// What they need.
    pub need: Need,
    /// The source.
    pub cite: Cite,
}

/// Changes of permissions by address.
const SET_MEMORY: &[&str] = &[
    "set_memory_ro",
    "set_memory_rw",
    "set_memory_x",
    "set_memory_nx",
    "set_memory_rox",
    "set_memory_np",
    "set_memory_np_noalias",
    "set_memory_p",
    "set_memory_global",
    "set_memory_nonglobal",
    "set_memory_4k",
    "set_memory_uc",
    "set_memory_wc",
    "set_memory_wb",
    "set_pages_uc",
    "set_pages_wb",
    "set_pages_array_uc",
    "set_pages_array_wc",
    "set_pages_array_wb",
];

/// What allocates kernel addresses.
const ALLOCATES: &[&str] = &[
    "vmalloc",
    "vmalloc_huge",
    "vmalloc_no_huge",
    "vmalloc_exec",
    "__vmalloc_node_range",
    "vmap",
    "module_alloc",
    "module_alloc_huge",
    "execmem_alloc",
    "execmem_alloc_rw",
];

/// What writes the text of BPF programs.
const BPF_TEXT: &[&str] = &["bpf_arch_text_copy", "bpf_arch_text_invalidate"];

const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const NOT_POWER: &[Arch] = &[Arch::X86_64, Arch::Arm64];
const NOT_ARM64: &[Arch] = &[Arch::X86_64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];

const fn row(
    calls: &'static [&'static str],
    archs: &'static [Arch],
    need: Need,
    cite: Cite,
) -> NeedRow {
    NeedRow { calls, archs, since: None, until: None, need, cite }
}

/// Every need that is not in the call table.
pub const NEEDS: &[NeedRow] = &[
    row(
        ALLOCATES,
        ALL,
        Need::MaySleep,
        Cite::read("Linux 6.12 mm/vmalloc.c: GFP_KERNEL, BUG_ON(in_interrupt())"),
    ),
    row(
        &["vunmap", "vm_unmap_aliases"],
        ALL,
        Need::MaySleep,
        Cite::read("Linux 6.12 mm/vmalloc.c: might_sleep(), vmap_purge_lock is a mutex"),
    ),
    row(
        &["vfree"],
        ALL,
        Need::NotInNmi,
        Cite::read("Linux 6.12 mm/vmalloc.c vfree(): BUG_ON(in_nmi())"),
    ),
    row(
        &["execmem_free", "module_memfree"],
        ALL,
        Need::TaskContext,
        Cite::read("Linux 6.12 mm/execmem.c, 6.1 kernel/module/main.c: WARN_ON(in_interrupt())"),
    ),
    row(
        SET_MEMORY,
        NOT_POWER,
        Need::MaySleep,
        Cite::read(
            "Linux 6.12 arch/x86/mm/pat/set_memory.c, arch/arm64/mm/pageattr.c: vm_unmap_aliases()",
        ),
    ),
    row(
        &["flush_tlb_kernel_range"],
        X86,
        Need::IrqsOn,
        Cite::read("Linux 6.12 arch/x86/mm/tlb.c: on_each_cpu() waits"),
    ),
    row(
        &["flush_tlb_mm"],
        X86,
        Need::IrqsOn,
        Cite::read(
            "Linux 6.18 arch/x86/mm/tlb.c: lockdep_assert_irqs_enabled(), on_each_cpu_mask()",
        ),
    ),
    row(
        &["flush_icache_range"],
        ARM64,
        Need::IrqsOn,
        Cite::read("Linux 6.12 arch/arm64/include/asm/cacheflush.h: kick_all_cpus_sync()"),
    ),
    NeedRow {
        since: Some(V6_9),
        ..row(
            &["aarch64_insn_copy", "aarch64_insn_set"],
            ARM64,
            Need::IrqsOn,
            Cite::read("Linux 6.12 arch/arm64/kernel/patching.c: flush_icache_range() at the end"),
        )
    },
    NeedRow {
        since: Some(V6_10),
        ..row(
            BPF_TEXT,
            ARM64,
            Need::IrqsOn,
            Cite::read("Linux 6.12 arch/arm64/net/bpf_jit_comp.c, kernel/patching.c"),
        )
    },
    row(
        BPF_TEXT,
        NOT_ARM64,
        Need::MaySleep,
        Cite::read("Linux 6.12 arch/x86/net, arch/powerpc/net: text_mutex"),
    ),
    row(
        &[
            "bpf_prog_pack_alloc",
            "bpf_prog_pack_free",
            "bpf_jit_binary_pack_alloc",
            "bpf_jit_binary_pack_free",
        ],
        ALL,
        Need::MaySleep,
        Cite::read("Linux 6.12 kernel/bpf/core.c: pack_mutex"),
    ),
];

/// The needs of a call on an architecture in a version, beside those of its row.
pub fn needs_of(
    call: &str,
    arch: Arch,
    version: Version,
) -> impl Iterator<Item = &'static NeedRow> {
    NEEDS.iter().filter(move |row| {
        row.calls.contains(&call)
            && row.archs.contains(&arch)
            && in_range(version, row.since, row.until)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::CALLS;

    #[test]
    fn rows_name_calls_that_exist_and_none_twice() {
        for row in NEEDS {
            for call in row.calls {
                let known = CALLS.iter().filter(|c| c.name == *call);
                assert!(known.clone().count() > 0, "{call}");
                let of_table = known.flat_map(|c| c.needs).any(
                    |n| matches!(n, crate::calls::CallNeed::Context(what) if *what == row.need),
                );
                assert!(!of_table, "{call} needs {:?} by its row already", row.need);
            }
        }
    }
}
