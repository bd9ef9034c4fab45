//! What mends a finding in a given kernel: the call to add, by rule, architecture and version.
//!
//! The checker says which operation is missing in the architecture's terms; which function of
//! Linux carries it out, and under which name in which version, is this table's affair. A row holds
//! from `since` to before `until`.
//!
//! No row: `broken-promise`, which the call's own author mends. Where a rule speaks of patchers of
//! any kind, the row names the call of the one that has such sites in every kernel.
//!
//! Not modelled: whether the function is exported to modules, and calls of configurations other
//! than SMP with the options that protect text.

use textbed_arch::{Arch, Cite};

use crate::facts::OPT_IN;
use crate::version::{Version, in_range};

/// A call that mends what a rule finds.
#[derive(Clone, Copy, Debug)]
pub struct Remedy {
    /// The rule's name.
    pub rule: &'static str,
    /// Where it does.
    pub archs: &'static [Arch],
    /// First version with it under this name.
    pub since: Option<Version>,
    /// First version without it.
    pub until: Option<Version>,
    /// The call, as C.
    pub call: &'static str,
    /// What it does for this.
    pub does: &'static str,
    /// Where that is from.
    pub cite: Cite,
}

const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const NOT_X86: &[Arch] = &[Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];

const V5_2: Version = Version::candidate(5, 2, 1);
const V5_13: Version = Version::candidate(5, 13, 8);
const V5_19: Version = Version::candidate(5, 19, 1);
const V6_2: Version = Version::candidate(6, 2, 1);
const V6_8: Version = Version::candidate(6, 8, 1);
const V6_10: Version = Version::candidate(6, 10, 1);
const V6_16: Version = Version::candidate(6, 16, 1);

const fn row(
    rule: &'static str,
    archs: &'static [Arch],
    (since, until): (Option<Version>, Option<Version>),
    call: &'static str,
    does: &'static str,
    cite: Cite,
) -> Remedy {
    Remedy { rule, archs, since, until, call, does, cite }
}

const ALWAYS: (Option<Version>, Option<Version>) = (None, None);

/// The rows.
#[rustfmt::skip]
pub const REMEDIES: &[Remedy] = &[
    row("missing-icache-maintenance", NOT_X86, ALWAYS, "flush_icache_range(start, end)",
        "cleans and invalidates the range, and completes both",
        Cite::read("Linux 5.19 to 7.0: arm64 asm/cacheflush.h, mm/cache.S; powerpc mm/cacheflush.c")),
    row("missing-context-sync", X86, (None, Some(V6_16)), "text_poke_sync()",
        "makes every CPU execute a serialising instruction, and waits",
        Cite::read("Linux 5.19 to 6.14, arch/x86/kernel/alternative.c")),
    row("missing-context-sync", X86, (Some(V6_16), None), "smp_text_poke_sync_each_cpu()",
        "makes every CPU execute a serialising instruction, and waits",
        Cite::read("Linux 6.18 and 7.0, arch/x86/kernel/alternative.c")),
    row("missing-context-sync", ARM64, ALWAYS, "kick_all_cpus_sync()",
        "interrupts every other CPU: exception entry and return synchronise its context",
        Cite::deduced("Linux 5.19 to 7.0, arch/arm64/include/asm/cacheflush.h: flush_icache_range")),
    row("missing-context-sync", POWER, ALWAYS, "smp_call_function() of a function with isync()",
        "makes every other CPU execute isync; flush_icache_range() does so on its own CPU alone",
        Cite::deduced("Linux 5.19 to 7.0, arch/powerpc/mm/cacheflush.c: no cross-call")),
    row("missing-publication-order", ALL, ALWAYS,
        "smp_store_release() after the last step, smp_load_acquire() before the call",
        "orders what comes before the store for whoever sees it",
        Cite::read("Linux Documentation/memory-barriers.txt: implications of RELEASE, ACQUIRE")),
    row("wx-mapping", ALL, (None, Some(V6_2)),
        "set_memory_ro(addr, numpages), then set_memory_x(addr, numpages)",
        "takes the write permission away before it grants execution",
        Cite::read("Linux 5.19 and 6.1, include/linux/set_memory.h")),
    row("wx-mapping", ALL, (Some(V6_2), None), "set_memory_rox(addr, numpages)",
        "makes the range read-only and executable, never both writable and executable",
        Cite::read("Linux 6.4 to 7.0, include/linux/set_memory.h")),
    row("missing-trap-fill", X86, (Some(V5_19), None), "bpf_arch_text_invalidate(addr, len)",
        "fills code that is already read-only with int3",
        Cite::read("Linux 5.19 to 7.0, arch/x86/net/bpf_jit_comp.c")),
    row("missing-trap-fill", POWER, (Some(V6_8), None), "bpf_arch_text_invalidate(addr, len)",
        "fills code that is already read-only with trap",
        Cite::read("Linux 6.8 to 7.0, arch/powerpc/net/bpf_jit_comp.c")),
    row("missing-trap-fill", ARM64, (Some(V6_10), None), "bpf_arch_text_invalidate(addr, len)",
        "fills code that is already read-only with brk",
        Cite::read("Linux 6.10 to 7.0, arch/arm64/net/bpf_jit_comp.c")),
    row("direct-map-leak", &[Arch::X86_64, Arch::Arm64], (Some(V5_2), None),
        "set_vm_flush_reset_perms(addr) before vfree(addr)",
        "lets vfree() reset the direct map before the frames go back",
        Cite::read("Linux 5.19 to 7.0, mm/vmalloc.c: vm_reset_perms")),
    row("exec-after-free", ALL, (Some(V5_2), None),
        "set_vm_flush_reset_perms(addr) before vfree(addr)",
        "lets vfree() flush the range before the frames go back",
        Cite::read("Linux 5.19 to 7.0, mm/vmalloc.c: vm_reset_perms")),
    row("stale-translation", ALL, ALWAYS, "flush_tlb_kernel_range(start, end)",
        "invalidates the range on every CPU, and waits",
        Cite::read("Linux 5.19 to 7.0: x86 mm/tlb.c, arm64 asm/tlbflush.h, powerpc radix_tlb.c")),
    row("wx-stale-translation", ALL, ALWAYS, "flush_tlb_kernel_range(start, end)",
        "invalidates the range on every CPU, and waits",
        Cite::read("Linux 5.19 to 7.0: x86 mm/tlb.c, arm64 asm/tlbflush.h, powerpc radix_tlb.c")),
    row("huge-mapping-refused", ALL, (Some(V5_13), Some(OPT_IN)), "vmalloc_no_huge(size)",
        "maps by base pages, so that permissions can change later",
        Cite::read("15a64f5a8870 mm/vmalloc: add vmalloc_no_huge; among the fixes of 5.13-rc8")),
    row("huge-mapping-refused", ALL, (Some(OPT_IN), None), "vmalloc(size)",
        "maps by base pages, so that permissions can change later: vmalloc_huge() allows large ones",
        Cite::read("Linux 6.12 to 7.0, mm/vmalloc.c: VM_ALLOW_HUGE_VMAP")),
    row("unlocked-patch", ALL, ALWAYS, "mutex_lock(&text_mutex)",
        "keeps other patchers of text away",
        Cite::read("Linux 5.19 to 7.0, arch/x86/kernel/alternative.c, kernel/kprobes.c")),
    row("torn-patch", X86, (None, Some(V6_16)), "text_poke_bp(addr, opcode, len, emulate)",
        "replaces the instruction through INT3, with a handler",
        Cite::read("Linux 5.19 to 6.14, arch/x86/kernel/alternative.c")),
    row("torn-patch", X86, (Some(V6_16), None), "smp_text_poke_single(addr, opcode, len, emulate)",
        "replaces the instruction through INT3, with a handler",
        Cite::read("Linux 6.18 and 7.0, arch/x86/kernel/alternative.c")),
    row("torn-patch", ARM64, ALWAYS, "aarch64_insn_patch_text(addrs, insns, cnt)",
        "patches while all other CPUs stand still",
        Cite::read("Linux 5.19 to 7.0, arch/arm64/kernel/patching.c")),
    row("torn-patch", POWER, ALWAYS, "stop_machine(fn, data, cpus)",
        "runs the function that patches while all other CPUs stand still",
        Cite::read("Linux 6.12 to 7.0, include/linux/stop_machine.h")),
    row("misaligned-patch", X86, (None, Some(V6_16)), "text_poke_bp(addr, opcode, len, emulate)",
        "guards the place with INT3 until all of it is written and seen",
        Cite::read("Linux 5.19 to 6.14, arch/x86/kernel/alternative.c")),
    row("misaligned-patch", X86, (Some(V6_16), None),
        "smp_text_poke_single(addr, opcode, len, emulate)",
        "guards the place with INT3 until all of it is written and seen",
        Cite::read("Linux 6.18 and 7.0, arch/x86/kernel/alternative.c")),
    row("no-quiescence", ALL, ALWAYS, "synchronize_rcu_tasks()",
        "waits until no task is preempted inside the old code",
        Cite::read("Linux kernel/rcu/tasks.h: what synchronize_rcu_tasks() says of itself")),
    row("wx-alias", ALL, ALWAYS, "vunmap(alias), then vm_unmap_aliases()",
        "take an alias that vmap() made away, and flush what vunmap() leaves for later",
        Cite::read("Linux 6.12 to 7.0, mm/vmalloc.c: vm_unmap_aliases")),
    row("wrong-alias", NOT_X86, ALWAYS, "flush_icache_range(start, end)",
        "maintains by the addresses it is given: those at which the code runs",
        Cite::read("Linux 5.19 to 7.0: arm64 asm/cacheflush.h, mm/cache.S; powerpc mm/cacheflush.c")),
    row("wrong-range", NOT_X86, ALWAYS, "flush_icache_range(start, end)",
        "takes the address behind the last byte, not a length, and goes by the smallest line",
        Cite::read("Linux 5.19 to 7.0: arm64 asm/cacheflush.h, mm/cache.S; powerpc mm/cacheflush.c")),
    row("break-before-make", ARM64, ALWAYS,
        "pte_clear(mm, addr, ptep), then flush_tlb_kernel_range(start, end)",
        "before set_pte(ptep, pte) break the entry, as clear_flush() of huge pages does",
        Cite::deduced("Linux 6.12 to 7.0, arch/arm64/mm/hugetlbpage.c: clear_flush")),
    row("missing-pte-order", ARM64, ALWAYS, "set_pte(ptep, pte)",
        "executes dsb(ishst) and isb() after a valid entry of the kernel",
        Cite::read("Linux 6.12 and 7.0, arch/arm64/include/asm/pgtable.h")),
    row("missing-pte-order", POWER, ALWAYS, "flush_cache_vmap(start, end)",
        "executes ptesync after new entries, before their first use",
        Cite::read("Linux 6.12 to 7.0, arch/powerpc/include/asm/cacheflush.h")),
    row("live-mapping-hole", ALL, ALWAYS, "set_memory_ro(addr, numpages) and its like",
        "change each valid entry by one store, and flush after it",
        Cite::read("Linux 6.12, mm/pageattr.c of arm64 and powerpc, x86 mm/pat/set_memory.c")),
    row("missing-landing-pad", X86, (Some(V5_19), None), "gen_endbr()",
        "gives the bytes of endbr64 to whoever generates code",
        Cite::read("Linux 6.12 to 7.0, arch/x86/include/asm/ibt.h")),
    row("missing-landing-pad", ARM64, (Some(V5_19), None),
        "aarch64_insn_gen_hint(AARCH64_INSN_HINT_BTIC)",
        "gives bti c to whoever generates code",
        Cite::read("Linux 6.12 to 7.0, arch/arm64/include/asm/insn.h")),
    row("ignored-error", ALL, (Some(V6_10), None),
        "if (bpf_jit_binary_lock_ro(hdr)) bpf_jit_binary_free(hdr)",
        "gives up code whose permissions could not be changed; its like goes for set_memory_ro()",
        Cite::deduced("Linux, the patches of 2024 that made bpf_jit_binary_lock_ro() __must_check")),
    row("self-patch", ALL, ALWAYS, "NOKPROBE_SYMBOL(fn)",
        "keeps probes out of what a patcher runs, as notrace keeps the function tracer out",
        Cite::read("Linux include/asm-generic/kprobes.h")),
    row("wrong-context", ALL, ALWAYS, "schedule_work(work)",
        "has a kernel thread make the call later, which may sleep and has interrupts on",
        Cite::read("Linux Documentation/core-api/workqueue.rst: introduction, threaded workqueues")),
    row("write-through-read-only", X86, (Some(V5_19), None), "text_poke_copy(addr, opcode, len)",
        "writes through a temporary mapping of its own, where nobody runs yet",
        Cite::read("Linux 5.19 to 7.0, arch/x86/kernel/alternative.c")),
    row("write-through-read-only", ARM64, ALWAYS, "aarch64_insn_patch_text_nosync(addr, insn)",
        "writes one instruction through a fixmap alias, and maintains caches",
        Cite::read("Linux 5.19 to 7.0, arch/arm64/kernel/patching.c")),
    row("write-through-read-only", POWER, ALWAYS, "patch_instruction(addr, instr)",
        "writes one instruction through an alias, and maintains caches",
        Cite::read("Linux 5.19 to 7.0, arch/powerpc/lib/code-patching.c")),
];

/// The rows that mend what `rule` found on this architecture in this version.
pub fn remedies(rule: &str, arch: Arch, version: Version) -> impl Iterator<Item = &'static Remedy> {
    REMEDIES.iter().filter(move |r| {
        r.rule == rule && r.archs.contains(&arch) && in_range(version, r.since, r.until)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_version_and_no_two_rows_answer_at_once() {
        let one = |rule, arch, version: &str| {
            let version = Version::parse(version).unwrap();
            remedies(rule, arch, version).map(|r| r.call).collect::<Vec<_>>()
        };
        let sync = "missing-context-sync";
        assert_eq!(one(sync, Arch::X86_64, "6.12"), ["text_poke_sync()"]);
        assert_eq!(one(sync, Arch::X86_64, "6.18"), ["smp_text_poke_sync_each_cpu()"]);
        assert_eq!(one(sync, Arch::Arm64, "6.12"), ["kick_all_cpus_sync()"]);
        assert_eq!(one("missing-icache-maintenance", Arch::X86_64, "6.12"), [""; 0]);
        assert_eq!(one("missing-trap-fill", Arch::Arm64, "5.19"), [""; 0]);
        assert!(one("wx-mapping", Arch::Arm64, "6.1")[0].starts_with("set_memory_ro("));
        assert_eq!(one("huge-mapping-refused", Arch::Ppc64le, "6.12"), ["vmalloc(size)"]);
        let before = one("huge-mapping-refused", Arch::Ppc64le, "5.18-rc3");
        assert_eq!(before, ["vmalloc_no_huge(size)"]);
        let mut asked = 0;
        for kernel in crate::KERNELS {
            for arch in Arch::ALL {
                for row in REMEDIES {
                    assert!(remedies(row.rule, arch, kernel.version).count() <= 1, "{}", row.rule);
                    asked += 1;
                }
            }
        }
        assert!(asked > 500, "{asked}");
        for row in REMEDIES {
            assert!(!row.archs.is_empty() && !row.cite.source.is_empty(), "{}", row.rule);
            assert!(row.since.is_none() || row.until.is_none() || row.since < row.until);
        }
    }
}
