//! What mends a finding in a given kernel: the call to add, by rule, kind of operation that is
//! missing, architecture and version.
//!
//! The checker says which kind of operation is missing; which function of Linux carries it out, and
//! under which name in which version, is this table's affair. A row holds for the rules that it
//! names (all, if none) from `since` to before `until`.
//!
//! No row: `promise` and `agreement`, which the author of the call that promised, or of the two
//! descriptions that differ, mends: no call does. Where a rule speaks of patchers of any kind, the
//! row names the call of the one that has such sites in every kernel.
//!
//! Not modelled: whether the function is exported to modules, and calls of configurations other
//! than SMP with the options that protect text. Of powerpc's configurations the rows of 64 bits are
//! radix: with hashed tables `flush_tlb_mm()` and `flush_tlb_kernel_range()` do nothing there.

use textbed_arch::{Arch, Cite};

use crate::calls::{Returns, find_call};
use crate::facts::OPT_IN;
use crate::version::{Version, in_range};

/// A call that mends what a rule finds.
#[derive(Clone, Copy, Debug)]
pub struct Remedy {
    /// The name of the kind of operation.
    pub operation: &'static str,
    /// The names of the rules that it is for; all, if there are none.
    pub rules: &'static [&'static str],
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

const RADIX: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const POWER32: &[Arch] = &[Arch::Ppc32];
const TRACKED: &[Arch] = &[Arch::X86_64, Arch::Arm64];

const V5_13: Version = Version::candidate(5, 13, 8);
const V5_19: Version = Version::candidate(5, 19, 1);
const V6_2: Version = Version::candidate(6, 2, 1);
const V6_8: Version = Version::candidate(6, 8, 1);
const V6_10: Version = Version::candidate(6, 10, 1);
const V6_16: Version = Version::candidate(6, 16, 1);

const fn row(
    operation: &'static str,
    archs: &'static [Arch],
    (since, until): (Option<Version>, Option<Version>),
    call: &'static str,
    does: &'static str,
    cite: Cite,
) -> Remedy {
    Remedy { operation, rules: &[], archs, since, until, call, does, cite }
}

impl Remedy {
    const fn of(self, rules: &'static [&'static str]) -> Self {
        Self { rules, ..self }
    }
}

const ALWAYS: (Option<Version>, Option<Version>) = (None, None);

const SYNC: &[&str] = &["missing-context-sync"];
const SYNC_IN_PATCH: &[&str] = &["torn-patch"];
const FLUSHED: &[&str] =
    &["stale-translation", "wx-stale-translation", "direct-map-leak", "wrong-range", "wrong-alias"];
const FREED: &[&str] = &["exec-after-free"];
const READ_ONLY: &[&str] = &["write-through-read-only"];
const STAND: &[&str] = &["no-quiescence"];

const FLUSH: Cite =
    Cite::read("Linux 5.19 to 7.0: x86 mm/tlb.c, arm64 asm/tlbflush.h, powerpc radix_tlb.c");
const ICACHE: Cite =
    Cite::read("Linux 5.19 to 7.0: arm64 asm/cacheflush.h, mm/cache.S; powerpc mm/cacheflush.c");
const X86_SYNC: Cite = Cite::read("Linux 5.19 to 6.14, arch/x86/kernel/alternative.c");
const X86_SYNC_6_16: Cite = Cite::read("Linux 6.18 and 7.0, arch/x86/kernel/alternative.c");
const KICK: Cite =
    Cite::deduced("Linux 5.19 to 7.0, arch/arm64/include/asm/cacheflush.h: flush_icache_range");
const NO_CROSS_CALL: Cite =
    Cite::deduced("Linux 5.19 to 7.0, arch/powerpc/mm/cacheflush.c: no cross-call");
const STOPPED: Cite = Cite::read("Linux 6.12 to 7.0, include/linux/stop_machine.h");
const TASKS: Cite =
    Cite::read("Linux kernel/rcu/tasks.h: what synchronize_rcu_tasks() says of itself");

/// The rows.
#[rustfmt::skip]
pub const REMEDIES: &[Remedy] = &[
    row("store-fence", X86, ALWAYS, "wmb()",
        "is sfence: the non-temporal stores before it come before what is published after it",
        Cite::read("Linux 5.19 to 7.0, arch/x86/include/asm/barrier.h: __wmb")),
    row("maintenance", NOT_X86, ALWAYS, "flush_icache_range(start, end)",
        "cleans and invalidates the range, and completes both", ICACHE)
        .of(&["missing-icache-maintenance"]),
    row("maintenance", NOT_X86, ALWAYS, "flush_icache_range(start, end)",
        "maintains by the addresses it is given: those at which the code runs", ICACHE)
        .of(&["wrong-alias"]),
    row("maintenance", NOT_X86, ALWAYS, "flush_icache_range(start, end)",
        "takes the address behind the last byte, not a length, and goes by the smallest line",
        ICACHE).of(&["wrong-range"]),
    row("context-sync", X86, (None, Some(V6_16)), "text_poke_sync()",
        "makes every CPU execute a serialising instruction, and waits", X86_SYNC).of(SYNC),
    row("context-sync", X86, (Some(V6_16), None), "smp_text_poke_sync_each_cpu()",
        "makes every CPU execute a serialising instruction, and waits", X86_SYNC_6_16).of(SYNC),
    row("context-sync", X86, (None, Some(V6_16)), "text_poke_sync()",
        "between the two stores has every CPU drop what it fetched, and waits", X86_SYNC)
        .of(SYNC_IN_PATCH),
    row("context-sync", X86, (Some(V6_16), None), "smp_text_poke_sync_each_cpu()",
        "between the two stores has every CPU drop what it fetched, and waits", X86_SYNC_6_16)
        .of(SYNC_IN_PATCH),
    row("context-sync", ARM64, ALWAYS, "kick_all_cpus_sync()",
        "interrupts every other CPU: exception entry and return synchronise its context", KICK)
        .of(SYNC),
    row("context-sync", POWER, ALWAYS, "smp_call_function() of a function with isync()",
        "makes every other CPU execute isync; flush_icache_range() does so on its own CPU alone",
        NO_CROSS_CALL).of(SYNC),
    row("own-context-sync", X86, ALWAYS, "sync_core()",
        "executes a serialising instruction on the CPU that runs what it stored itself",
        Cite::read("Linux arch/x86/include/asm/sync_core.h: what sync_core() says of itself"))
        .of(SYNC),
    row("own-context-sync", ARM64, ALWAYS, "isb()",
        "synchronises the context of the CPU that runs what it stored itself",
        Cite::read("Linux 5.19 to 7.0, arch/arm64/include/asm/barrier.h: isb")).of(SYNC),
    row("own-context-sync", POWER, ALWAYS, "isync()",
        "synchronises the context of the CPU that runs what it stored itself",
        Cite::read("Linux 5.19 to 7.0, arch/powerpc/include/asm/synch.h: isync")).of(SYNC),
    row("own-context-sync", ARM64, ALWAYS, "set_pte(ptep, pte)",
        "executes dsb(ishst) and isb() after a valid entry of the kernel",
        Cite::read("Linux 6.12 and 7.0, arch/arm64/include/asm/pgtable.h"))
        .of(&["missing-pte-order"]),
    row("own-context-sync", POWER, ALWAYS, "flush_cache_vmap(start, end)",
        "executes ptesync after new entries, before their first use",
        Cite::read("Linux 6.12 to 7.0, arch/powerpc/include/asm/cacheflush.h"))
        .of(&["missing-pte-order"]),
    row("publication", ALL, ALWAYS,
        "smp_store_release() after the last step, smp_load_acquire() before the call",
        "orders what comes before the store for whoever sees it",
        Cite::read("Linux Documentation/memory-barriers.txt: implications of RELEASE, ACQUIRE")),
    row("write-away", ALL, (None, Some(V6_2)),
        "set_memory_ro(addr, numpages), then set_memory_x(addr, numpages)",
        "takes the write permission away before it grants execution",
        Cite::read("Linux 5.19 and 6.1, include/linux/set_memory.h")),
    row("write-away", ALL, (Some(V6_2), None), "set_memory_rox(addr, numpages)",
        "makes the range read-only and executable, never both writable and executable",
        Cite::read("Linux 6.4 to 7.0, include/linux/set_memory.h")),
    row("alias-away", TRACKED, ALWAYS,
        "set_memory_ro(addr, numpages) of the area, or vunmap(alias) and vm_unmap_aliases(),",
        "take the right to write from its alias in the direct map, or away an alias that vmap() made",
        Cite::read("Linux 6.12 to 7.0, mm/vmalloc.c; x86 mm/pat/set_memory.c, arm64 mm/pageattr.c")),
    row("alias-away", POWER, ALWAYS, "vunmap(alias), then vm_unmap_aliases()",
        "take an alias that vmap() made away, and flush what vunmap() leaves for later",
        Cite::read("Linux 6.12 to 7.0, mm/vmalloc.c: vm_unmap_aliases")),
    row("flush", ALL, ALWAYS, "flush_tlb_kernel_range(start, end)",
        "invalidates the range on every CPU, and waits", FLUSH).of(FLUSHED),
    row("flush", ALL, ALWAYS, "set_vm_flush_reset_perms(addr) before vfree(addr)",
        "lets vfree() flush the range before the frames go back",
        Cite::read("Linux 5.19 to 7.0, mm/vmalloc.c: vm_reset_perms")).of(FREED),
    row("flush-of-space", ALL, ALWAYS, "flush_tlb_mm(mm)",
        "invalidates what CPUs hold of that address space, and waits",
        Cite::read("Linux 5.19 to 7.0, asm/tlbflush.h of x86, arm64 and powerpc: flush_tlb_mm")),
    row("flush-of-globals", X86, ALWAYS, "flush_tlb_all()",
        "drops global entries, too, by INVPCID or CR4.PGE; flush_tlb_kernel_range() uses INVLPG, \
         which leaves them on these CPUs while there are PCIDs (nopcid on the command line)",
        Cite::deduced("Linux 5.19 to 7.0, arch/x86/mm/tlb.c; ce0b15d11ad8, which switches PCIDs off")),
    row("second-flush", ARM64, ALWAYS,
        "flush_tlb_kernel_range(start, end), with CONFIG_ARM64_WORKAROUND_REPEAT_TLBI",
        "repeats TLBI and DSB on CPUs that need it, which a sequence of one's own does not",
        Cite::read("Linux 6.12 arch/arm64/include/asm/tlbflush.h: __TLBI_0")),
    row("second-flush", POWER, ALWAYS, "flush_tlb_kernel_range(start, end)",
        "repeats tlbie and ptesync on CPUs that need it, which a sequence of one's own does not",
        Cite::read("Linux 6.12 arch/powerpc/mm/book3s64/radix_tlb.c: fixup_tlbie_pid")),
    row("flush-of-table", RADIX, ALWAYS, "pmd_free_pte_page(pmd, addr)",
        "clears the entry, invalidates its addresses, and gives the page back then",
        Cite::read("Linux 5.19 to 7.0: x86 mm/pgtable.c, arm64 mm/mmu.c, powerpc radix_pgtable.c")),
    row("flush-of-table", POWER32, ALWAYS,
        "pmd_clear(pmd), flush_tlb_kernel_range(start, end), then pte_free_kernel(&init_mm, pte)",
        "clear the entry, invalidate its addresses, and give the page back then",
        Cite::deduced("Linux 5.19 to 7.0, include/linux/pgtable.h: pmd_free_pte_page is a stub")),
    row("order-of-entry", ARM64, ALWAYS, "set_pte(ptep, pte)",
        "executes dsb(ishst) and isb() after a valid entry of the kernel",
        Cite::read("Linux 6.12 and 7.0, arch/arm64/include/asm/pgtable.h")),
    row("order-of-entry", POWER, ALWAYS, "flush_cache_vmap(start, end)",
        "executes ptesync after new entries, before their first use",
        Cite::read("Linux 6.12 to 7.0, arch/powerpc/include/asm/cacheflush.h")),
    row("order-before-flush", ARM64, ALWAYS, "flush_tlb_kernel_range(start, end) behind the change",
        "begins with dsb(ishst): walks see the change before anything is invalidated", FLUSH),
    row("order-before-flush", POWER, ALWAYS, "flush_tlb_kernel_range(start, end) behind the change",
        "begins with ptesync: walks see the change before anything is invalidated", FLUSH),
    row("break", ALL, ALWAYS, "pte_clear(mm, addr, ptep), then flush_tlb_kernel_range(start, end)",
        "before set_pte(ptep, pte) break the entry, as clear_flush() of arm64's huge pages does",
        Cite::deduced("Linux 6.12 to 7.0, arch/arm64/mm/hugetlbpage.c: clear_flush")),
    row("change-in-place", ALL, ALWAYS, "set_memory_ro(addr, numpages) and its like",
        "change each valid entry by one store, and flush after it",
        Cite::read("Linux 6.12, mm/pageattr.c of arm64 and powerpc, x86 mm/pat/set_memory.c")),
    row("restore", TRACKED, ALWAYS, "set_vm_flush_reset_perms(addr) before vfree(addr)",
        "lets vfree() reset the direct map before the frames go back",
        Cite::read("Linux 5.19 to 7.0, mm/vmalloc.c: vm_reset_perms")),
    row("restore", POWER, ALWAYS, "set_memory_nx(addr, numpages), then set_memory_rw(addr, numpages)",
        "give the range its default permissions back before the frames are freed",
        Cite::deduced("Linux 6.12 arch/powerpc/mm/pageattr.c: no direct map is reset")),
    row("unmap", ALL, ALWAYS, "set_vm_flush_reset_perms(addr) before vfree(addr)",
        "lets vfree() unmap and flush the range before the frames go back",
        Cite::read("Linux 5.19 to 7.0, mm/vmalloc.c: vm_reset_perms")),
    row("quiescence", ALL, ALWAYS, "synchronize_rcu_tasks()",
        "waits until no task is preempted inside the old code", TASKS).of(STAND),
    row("quiescence", ALL, ALWAYS, "synchronize_rcu_tasks() before vfree(addr)",
        "waits until nobody is in code whose address nobody gets any more", TASKS).of(FREED),
    row("protocol", X86, (None, Some(V6_16)), "text_poke_bp(addr, opcode, len, emulate)",
        "replaces the instruction through INT3, with a handler", X86_SYNC),
    row("protocol", X86, (Some(V6_16), None), "smp_text_poke_single(addr, opcode, len, emulate)",
        "replaces the instruction through INT3, with a handler", X86_SYNC_6_16),
    row("protocol", ARM64, ALWAYS, "aarch64_insn_patch_text(addrs, insns, cnt)",
        "patches while all other CPUs stand still",
        Cite::read("Linux 5.19 to 7.0, arch/arm64/kernel/patching.c")),
    row("protocol", POWER, ALWAYS, "stop_machine(fn, data, cpus)",
        "runs the function that patches while all other CPUs stand still", STOPPED),
    row("alignment", X86, (None, Some(V6_16)), "text_poke_bp(addr, opcode, len, emulate)",
        "guards the place with INT3 until all of it is written and seen", X86_SYNC),
    row("alignment", X86, (Some(V6_16), None), "smp_text_poke_single(addr, opcode, len, emulate)",
        "guards the place with INT3 until all of it is written and seen", X86_SYNC_6_16),
    row("alignment", NOT_X86, ALWAYS, "stop_machine(fn, data, cpus)",
        "runs the function that patches while nobody can fetch half of it", STOPPED),
    row("lock", ALL, ALWAYS, "mutex_lock(&text_mutex)",
        "keeps other patchers of text away",
        Cite::read("Linux 5.19 to 7.0, arch/x86/kernel/alternative.c, kernel/kprobes.c")),
    row("own-code", ALL, ALWAYS, "NOKPROBE_SYMBOL(fn)",
        "keeps probes out of what a patcher runs, as notrace keeps the function tracer out",
        Cite::read("Linux include/asm-generic/kprobes.h")),
    row("handler", X86, (None, Some(V6_16)), "text_poke_sync() before the handler goes",
        "makes every CPU leave the trap behind, after it was replaced", X86_SYNC),
    row("handler", X86, (Some(V6_16), None), "smp_text_poke_sync_each_cpu() before the handler goes",
        "makes every CPU leave the trap behind, after it was replaced", X86_SYNC_6_16),
    row("handler", ARM64, ALWAYS, "kick_all_cpus_sync() before the handler goes",
        "makes every CPU leave the trap behind, after it was replaced", KICK),
    row("handler", POWER, ALWAYS, "smp_call_function() of a function with isync()",
        "makes every other CPU leave the trap behind, before the handler goes", NO_CROSS_CALL),
    row("site-removal", ALL, ALWAYS, "ftrace_free_mem(mod, start, end)",
        "takes the function tracer's sites in a range off its lists, before the memory goes back",
        Cite::read("Linux kernel/trace/ftrace.c: ftrace_free_mem")),
    row("writable-alias", X86, (None, Some(V5_19)), "text_poke(addr, opcode, len)",
        "writes through a temporary mapping of its own, under text_mutex",
        Cite::deduced("Linux 5.19, arch/x86/kernel/alternative.c: text_poke is older than the copy"))
        .of(READ_ONLY),
    row("writable-alias", X86, (Some(V5_19), None), "text_poke_copy(addr, opcode, len)",
        "writes through a temporary mapping of its own, where nobody runs yet",
        Cite::read("Linux 5.19 to 7.0, arch/x86/kernel/alternative.c")).of(READ_ONLY),
    row("writable-alias", X86, ALWAYS, "text_poke(addr, opcode, len)",
        "maps the frames of the text by vmalloc_to_page(), which knows leaves of each size",
        Cite::read("Linux 5.19 to 7.0, arch/x86/kernel/alternative.c, mm/vmalloc.c"))
        .of(&["wrong-alias"]),
    row("writable-alias", ARM64, ALWAYS, "aarch64_insn_patch_text_nosync(addr, insn)",
        "writes one instruction through a fixmap alias, and maintains caches",
        Cite::read("Linux 5.19 to 7.0, arch/arm64/kernel/patching.c")),
    row("writable-alias", POWER, ALWAYS, "patch_instruction(addr, instr)",
        "writes one instruction through an alias, and maintains caches",
        Cite::read("Linux 5.19 to 7.0, arch/powerpc/lib/code-patching.c")),
    row("trap-fill", X86, (Some(V5_19), None), "bpf_arch_text_invalidate(addr, len)",
        "fills code that is already read-only with int3",
        Cite::read("Linux 5.19 to 7.0, arch/x86/net/bpf_jit_comp.c")),
    row("trap-fill", POWER, (Some(V6_8), None), "bpf_arch_text_invalidate(addr, len)",
        "fills code that is already read-only with trap",
        Cite::read("Linux 6.8 to 7.0, arch/powerpc/net/bpf_jit_comp.c")),
    row("trap-fill", ARM64, (Some(V6_10), None), "bpf_arch_text_invalidate(addr, len)",
        "fills code that is already read-only with brk",
        Cite::read("Linux 6.10 to 7.0, arch/arm64/net/bpf_jit_comp.c")),
    row("trap-fill", X86, (None, Some(V5_19)), FILL, FILLS, FILL_CITE),
    row("trap-fill", POWER, (None, Some(V6_8)), FILL, FILLS, FILL_CITE),
    row("trap-fill", ARM64, (None, Some(V6_10)), FILL, FILLS, FILL_CITE),
    row("landing-pad", X86, ALWAYS, "gen_endbr()",
        "gives the bytes of endbr64 to whoever generates code",
        Cite::read("Linux 6.12 to 7.0, arch/x86/include/asm/ibt.h")),
    row("landing-pad", ARM64, ALWAYS, "aarch64_insn_gen_hint(AARCH64_INSN_HINT_BTIC)",
        "gives bti c to whoever generates code",
        Cite::read("Linux 6.12 to 7.0, arch/arm64/include/asm/insn.h")),
    row("result", ALL, ALWAYS, "if (set_memory_ro(addr, numpages))", FAILED,
        Cite::read("Linux 5.19 and 6.1, include/linux/set_memory.h")),
    row("base-pages", ALL, (Some(V5_13), Some(OPT_IN)), "vmalloc_no_huge(size)",
        "maps by base pages, so that permissions can change later",
        Cite::read("15a64f5a8870 mm/vmalloc: add vmalloc_no_huge; among the fixes of 5.13-rc8")),
    row("base-pages", ALL, (Some(OPT_IN), None), "vmalloc(size)",
        "maps by base pages, so that permissions can change later: vmalloc_huge() allows large ones",
        Cite::read("Linux 6.12 to 7.0, mm/vmalloc.c: VM_ALLOW_HUGE_VMAP")),
    row("room", ALL, ALWAYS, "bpf_prog_pack_alloc(size), and no copy of more than size bytes",
        "gives room in units of 64 bytes, with the next program right behind it",
        Cite::deduced("Linux 5.19 to 7.0, kernel/bpf/core.c: BPF_PROG_CHUNK_SIZE, pack_alloc")),
    row("task-context", ALL, ALWAYS, "schedule_work(work)",
        "has a kernel thread make the call later, which may sleep and has interrupts on",
        Cite::read("Linux Documentation/core-api/workqueue.rst: introduction, threaded workqueues")),
    row("irqs-off", ALL, ALWAYS, "local_irq_save(flags), and local_irq_restore(flags) behind it",
        "keeps interrupts of this CPU off around the call",
        Cite::read("Linux 5.19 to 7.0, include/linux/irqflags.h: local_irq_save")),
    row("outside-nmi", ALL, ALWAYS, "irq_work_queue(work)",
        "has an interrupt make the call as soon as the non-maskable one is over",
        Cite::read("Linux 5.19 to 7.0, kernel/irq_work.c: safe in NMIs, run in interrupts")),
    row("others-stopped", ALL, ALWAYS, "stop_machine(fn, data, cpus)",
        "makes the call while all other CPUs stand still", STOPPED),
];

const FILL: &str = "bpf_jit_binary_alloc(proglen, &image, alignment, fill)";
const FILLS: &str = "has all of it filled by a function of the caller's while it can be written";
const FILL_CITE: Cite = Cite::read("Linux 5.19 to 7.0, kernel/bpf/core.c: bpf_jit_binary_alloc");

/// Of a call that failed.
const FAILED: &str = "tells that it failed: then nothing may go on that it was for";

/// The look at the result of this very call, as C; `None` for a call that is not in the table, or
/// that cannot fail.
#[must_use]
pub fn look_at_result(
    name: &str,
    arch: Arch,
    version: Version,
) -> Option<(String, &'static str, Cite)> {
    let spec = find_call(name, version, arch).ok()?;
    let params: Vec<&str> = spec.params.iter().map(|p| p.name).collect();
    let call = format!("{name}({})", params.join(", "));
    let test = match spec.returns {
        Returns::Errno | Returns::Nonzero => format!("if ({call})"),
        Returns::PointerOrNull => format!("if (!{call})"),
        Returns::PointerOrErr => format!("if (IS_ERR({call}))"),
        Returns::Bool | Returns::Void => return None,
    };
    Some((test, FAILED, spec.cite))
}

/// The rows that mend it on this architecture in this version where `rule` found that an operation
/// of this kind is missing.
pub fn remedies(
    rule: &str,
    operation: &str,
    arch: Arch,
    version: Version,
) -> impl Iterator<Item = &'static Remedy> {
    REMEDIES.iter().filter(move |r| {
        r.operation == operation
            && (r.rules.is_empty() || r.rules.contains(&rule))
            && r.archs.contains(&arch)
            && in_range(version, r.since, r.until)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_version() {
        let one = |rule, operation, arch, version: &str| {
            let version = Version::parse(version).unwrap();
            remedies(rule, operation, arch, version).map(|r| r.call).collect::<Vec<_>>()
        };
        let sync = |arch, version| one("missing-context-sync", "context-sync", arch, version);
        assert_eq!(sync(Arch::X86_64, "6.12"), ["text_poke_sync()"]);
        assert_eq!(sync(Arch::X86_64, "6.18"), ["smp_text_poke_sync_each_cpu()"]);
        assert_eq!(sync(Arch::Arm64, "6.12"), ["kick_all_cpus_sync()"]);
        let own = one("missing-context-sync", "own-context-sync", Arch::Arm64, "6.12");
        assert_eq!(own, ["isb()"]);
        let stale = |operation| one("stale-translation", operation, Arch::X86_64, "6.12");
        assert_eq!(stale("flush"), ["flush_tlb_kernel_range(start, end)"]);
        assert_eq!(stale("flush-of-globals"), ["flush_tlb_all()"]);
        let icache = "missing-icache-maintenance";
        assert_eq!(one(icache, "maintenance", Arch::X86_64, "6.12"), [""; 0]);
        let fill = |arch, version| one("missing-trap-fill", "trap-fill", arch, version);
        assert_eq!(fill(Arch::Arm64, "6.12"), ["bpf_arch_text_invalidate(addr, len)"]);
        assert!(fill(Arch::Arm64, "5.19")[0].starts_with("bpf_jit_binary_alloc("));
        let pages = |version| one("huge-mapping-refused", "base-pages", Arch::Ppc64le, version);
        assert_eq!(
            (pages("6.12"), pages("5.18-rc3")),
            (vec!["vmalloc(size)"], vec!["vmalloc_no_huge(size)"])
        );
        let look = |name| {
            let look = look_at_result(name, Arch::X86_64, Version::parse("6.12").unwrap());
            look.map(|(call, ..)| call)
        };
        let of = |call: &str| Some(call.to_owned());
        assert_eq!(look("set_memory_ro"), of("if (set_memory_ro(addr, numpages))"));
        assert_eq!(look("vmalloc"), of("if (!vmalloc(size))"));
        assert_eq!(look("bpf_arch_text_copy"), of("if (IS_ERR(bpf_arch_text_copy(dst, code)))"));
        assert_eq!((look("vfree"), look("no_such_call")), (None, None));
        for row in REMEDIES {
            assert!(!row.archs.is_empty() && !row.cite.source.is_empty(), "{}", row.call);
            assert!(row.since.is_none() || row.until.is_none() || row.since < row.until);
        }
    }
}
