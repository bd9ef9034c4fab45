//! The rows of the call table.
//!
//! Order: allocation, permissions, direct map, flushes, patching by architecture, BPF, plain
//! stores, grace periods. What each body does and leaves out stands in its own file.

use textbed_arch::{Arch, Cite};
use textbed_event::Need;

use crate::area::vm_flags;
use crate::calls::ParamKind::{Addr, Byte, Bytes, Code, Flag, Flags, Insn, Pages};
use crate::calls::{Body, CallNeed, CallSpec, NotModelled, Param, ParamKind, Returns};
use crate::facts::{OPT_IN, V6_2, V6_7, V6_9, V6_10, V6_18};
use crate::version::Version;
use crate::{
    arm64, bpf, generic, module_memory, page_table, powerpc, rox_cache, set_memory, stores,
    text_users, vfree, vmalloc, x86,
};

const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64];
const NOT_ARM64: &[Arch] = &[Arch::X86_64, Arch::Ppc64le, Arch::Ppc64];
const V6_13: Version = Version::candidate(6, 13, 1);
const V6_3: Version = Version::candidate(6, 3, 1);
const V6_11: Version = Version::candidate(6, 11, 1);
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

const SLEEPS: &[CallNeed] = &[CallNeed::Context(Need::MaySleep)];
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

const VMALLOC: Cite = Cite::read("Linux 5.19, 6.12 mm/vmalloc.c");
const SET_MEMORY: Cite = Cite::read(
    "Linux 5.19, 6.12 arch/x86/mm/pat/set_memory.c, arch/arm64/mm/pageattr.c, \
     arch/powerpc/mm/pageattr.c",
);
const ALTERNATIVE: Cite = Cite::read("Linux 5.19, 6.12 arch/x86/kernel/alternative.c");
const SMP_POKE: Cite = Cite::read("Linux 7.0 arch/x86/kernel/alternative.c");
const PATCHING: Cite = Cite::read("Linux 5.19, 6.12 arch/arm64/kernel/patching.c");
const CODE_PATCHING: Cite = Cite::read("Linux 6.1, 6.8, 6.12 arch/powerpc/lib/code-patching.c");
const CORE: Cite = Cite::read("Linux 5.19, 6.12 kernel/bpf/core.c");
const JIT: Cite = Cite::read("Linux 5.19, 6.12 arch/*/net/bpf_jit_comp*.c, kernel/bpf/core.c");
const PGTABLE: Cite = Cite::read(
    "Linux 6.12 arch/arm64/include/asm/pgtable.h, arch/powerpc/include/asm/book3s/64/radix.h",
);
const ENTRY: &[Param] = &[p("addr", Addr), p("page", Addr), p("prot", Flags(PROTS))];
const EXECMEM: Cite = Cite::read("Linux 6.18.2, 7.0 mm/execmem.c");
const JUMP_LABEL: Cite = Cite::read("Linux 6.12 kernel/jump_label.c, arch/*/kernel/jump_label.c");
const KEY: &[Param] = &[p("key", Bytes)];
const KEY_LOCKS: &[&str] = &["jump_label_mutex", "text_mutex"];
const SIZE: &[Param] = &[p("size", Bytes)];
const ADDR: &[Param] = &[p("addr", Addr)];
const ADDR_PAGES: &[Param] = &[p("addr", Addr), p("numpages", Pages)];
const START_END: &[Param] = &[p("start", Addr), p("end", Addr)];
const ADDR_INSN: &[Param] = &[p("addr", Addr), p("insn", Insn)];
const ADDR_CODE: &[Param] = &[p("addr", Addr), p("code", Code)];

/// Kinds of executable memory, as calls name them.
pub(crate) const EXECMEM_TYPES: &[(&str, u64)] = &[
    ("EXECMEM_MODULE_TEXT", 1),
    ("EXECMEM_KPROBES", 2),
    ("EXECMEM_FTRACE", 4),
    ("EXECMEM_BPF", 8),
    ("EXECMEM_MODULE_DATA", 16),
];

/// Page protections, as calls name them.
pub(crate) const PROTS: &[(&str, u64)] =
    &[("PAGE_KERNEL", 1), ("PAGE_KERNEL_RO", 2), ("PAGE_KERNEL_ROX", 4), ("PAGE_KERNEL_EXEC", 8)];

/// Every call.
pub const CALLS: &[CallSpec] = &[
    call(
        "vmalloc",
        SIZE,
        Returns::PointerOrNull,
        ALL,
        "kernel memory, writable, not executable",
        VMALLOC,
        vmalloc::vmalloc,
    ),
    until(
        never(
            call(
                "vmalloc_huge",
                SIZE,
                Returns::PointerOrNull,
                ALL,
                "as vmalloc, which maps large leaves by default in this version",
                Cite::read("559089e0a93d: vmalloc_no_huge replaced by vmalloc_huge"),
                vmalloc::vmalloc,
            ),
            "vmalloc, which is huge by default before 5.18-rc4; vmalloc_huge came with the opt-in",
        ),
        Some(OPT_IN),
    ),
    since(
        call(
            "vmalloc_huge",
            SIZE,
            Returns::PointerOrNull,
            ALL,
            "as vmalloc, by large leaves where size and architecture allow",
            VMALLOC,
            vmalloc::vmalloc_huge,
        ),
        Some(OPT_IN),
    ),
    until(
        call(
            "vmalloc_no_huge",
            SIZE,
            Returns::PointerOrNull,
            ALL,
            "as vmalloc, by small pages only",
            Cite::read("mails of April 2022 on 559089e0a93d, which removed it"),
            vmalloc::vmalloc_no_huge,
        ),
        Some(OPT_IN),
    ),
    call(
        "__vmalloc_node_range",
        &[
            p("size", Bytes),
            p("align", Bytes),
            p("start", Addr),
            p("end", Addr),
            p("prot", Flags(PROTS)),
            p("vm_flags", Flags(vm_flags::NAMES)),
        ],
        Returns::PointerOrNull,
        ALL,
        "an area between two addresses, with protection and flags",
        VMALLOC,
        vmalloc::vmalloc_node_range,
    ),
    until(
        call(
            "module_alloc",
            SIZE,
            Returns::PointerOrNull,
            ALL,
            "memory for code, in the module area",
            Cite::read("Linux 5.19, 6.8 arch/*/kernel/module.c"),
            module_memory::module_alloc,
        ),
        Some(V6_10),
    ),
    never(
        call(
            "module_alloc_huge",
            SIZE,
            Returns::PointerOrNull,
            ALL,
            "memory for code by large leaves; x86 PAGE_KERNEL, the posted default elsewhere \
             PAGE_KERNEL_EXEC",
            Cite::read("series of April to June 2022 on vmalloc and bpf_prog_pack, not merged"),
            module_memory::module_alloc_huge,
        ),
        "posted in 2022, never merged",
    ),
    until(
        call(
            "module_memfree",
            ADDR,
            Returns::Void,
            ALL,
            "frees what module_alloc gave",
            Cite::read("Linux 5.19, 6.8 kernel/module"),
            module_memory::free,
        ),
        Some(V6_10),
    ),
    since(
        call(
            "execmem_alloc",
            &[p("type", Flags(EXECMEM_TYPES)), p("size", Bytes)],
            Returns::PointerOrNull,
            ALL,
            "memory for code of a type",
            Cite::read("Linux 6.12 mm/execmem.c, arch/*/mm/init*.c"),
            module_memory::execmem_alloc,
        ),
        Some(V6_10),
    ),
    since(
        call(
            "execmem_free",
            ADDR,
            Returns::Void,
            ALL,
            "frees what execmem_alloc gave",
            Cite::read("Linux 6.12 mm/execmem.c"),
            module_memory::free,
        ),
        Some(V6_10),
    ),
    since(
        call(
            "execmem_alloc_rw",
            &[p("type", Flags(EXECMEM_TYPES)), p("size", Bytes)],
            Returns::PointerOrNull,
            X86,
            "as execmem_alloc, writable and not executable for now",
            EXECMEM,
            rox_cache::execmem_alloc_rw,
        ),
        Some(V6_18),
    ),
    since(
        call(
            "execmem_restore_rox",
            &[p("ptr", Addr), p("size", Bytes)],
            Returns::Errno,
            X86,
            "makes memory of execmem read-only and executable again",
            EXECMEM,
            rox_cache::execmem_restore_rox,
        ),
        Some(V6_18),
    ),
    never(
        call(
            "vmalloc_exec",
            SIZE,
            Returns::PointerOrNull,
            ALL,
            "kernel memory, writable and executable at once",
            Cite::read("mails of June 2020 (removed in 5.8) and May 2023 (proposed again)"),
            vmalloc::vmalloc_exec,
        ),
        "removed in 5.8; proposed again in 2023 and refused",
    ),
    call(
        "vmap",
        &[p("pages", Addr), p("count", Bytes)],
        Returns::PointerOrNull,
        ALL,
        "maps the pages behind an address once more",
        VMALLOC,
        vmalloc::vmap,
    ),
    call("vunmap", ADDR, Returns::Void, ALL, "takes what vmap mapped away", VMALLOC, vfree::vfree),
    call("vfree", ADDR, Returns::Void, ALL, "frees an area", VMALLOC, vfree::vfree),
    call(
        "set_vm_flush_reset_perms",
        ADDR,
        Returns::Void,
        ALL,
        "marks an area so that vfree resets the direct map and flushes before freeing",
        VMALLOC,
        vmalloc::set_vm_flush_reset_perms,
    ),
    call(
        "is_vm_area_hugepages",
        ADDR,
        Returns::Bool,
        ALL,
        "whether an area was allocated by huge pages",
        VMALLOC,
        vmalloc::is_vm_area_hugepages,
    ),
    call(
        "vm_unmap_aliases",
        &[],
        Returns::Void,
        ALL,
        "flushes translations of all freed areas",
        VMALLOC,
        vfree::vm_unmap_aliases_call,
    ),
    call(
        "set_memory_ro",
        ADDR_PAGES,
        Returns::Errno,
        ALL,
        "makes pages read-only",
        SET_MEMORY,
        set_memory::ro,
    ),
    call(
        "set_memory_rw",
        ADDR_PAGES,
        Returns::Errno,
        ALL,
        "makes pages writable",
        SET_MEMORY,
        set_memory::rw,
    ),
    call(
        "set_memory_x",
        ADDR_PAGES,
        Returns::Errno,
        ALL,
        "makes pages executable",
        SET_MEMORY,
        set_memory::x,
    ),
    call(
        "set_memory_nx",
        ADDR_PAGES,
        Returns::Errno,
        ALL,
        "makes pages not executable",
        SET_MEMORY,
        set_memory::nx,
    ),
    since(
        call(
            "set_memory_rox",
            ADDR_PAGES,
            Returns::Errno,
            ALL,
            "makes pages read-only and executable",
            SET_MEMORY,
            set_memory::rox,
        ),
        Some(V6_2),
    ),
    call(
        "set_memory_np",
        ADDR_PAGES,
        Returns::Errno,
        NOT_ARM64,
        "makes pages not present",
        SET_MEMORY,
        set_memory::np,
    ),
    call(
        "set_memory_p",
        ADDR_PAGES,
        Returns::Errno,
        NOT_ARM64,
        "makes pages present again",
        SET_MEMORY,
        set_memory::p,
    ),
    call(
        "set_memory_valid",
        &[p("addr", Addr), p("numpages", Pages), p("enable", Flag)],
        Returns::Errno,
        ARM64,
        "makes pages invalid or valid",
        SET_MEMORY,
        set_memory::valid,
    ),
    since(
        call(
            "set_direct_map_valid_noflush",
            &[p("page", Addr), p("nr", Bytes), p("valid", Flag)],
            Returns::Errno,
            ALL,
            "the direct map's pages of frames that follow each other: away, or back",
            Cite::deduced("Linux 6.13.2 arch/*/mm; not in 6.12"),
            set_memory::direct_map_valid,
        ),
        Some(V6_13),
    ),
    call(
        "set_direct_map_invalid_noflush",
        ADDR,
        Returns::Errno,
        ALL,
        "takes the direct map's page of the frame behind an address away",
        SET_MEMORY,
        set_memory::direct_map_invalid,
    ),
    call(
        "set_direct_map_default_noflush",
        ADDR,
        Returns::Errno,
        ALL,
        "makes the direct map's page of the frame behind an address present and writable",
        SET_MEMORY,
        set_memory::direct_map_default,
    ),
    call(
        "flush_tlb_kernel_range",
        START_END,
        Returns::Void,
        ALL,
        "invalidates kernel translations on all CPUs",
        Cite::read("Linux 5.19, 6.12 arch/*/mm, arch/arm64/include/asm/tlbflush.h"),
        generic::flush_tlb_kernel_range,
    ),
    call(
        "flush_icache_range",
        START_END,
        Returns::Void,
        ALL,
        "makes stored code visible to instruction fetches, as far as the architecture does",
        Cite::read(
            "Linux 5.19, 6.12 arch/*/include/asm/cacheflush.h, arch/powerpc/mm/cacheflush.c",
        ),
        generic::flush_icache_range,
    ),
    needs(
        call(
            "kick_all_cpus_sync",
            &[],
            Returns::Void,
            ALL,
            "interrupts all other CPUs and waits",
            Cite::read("Linux 6.12 kernel/smp.c"),
            generic::kick_all_cpus_sync,
        ),
        IRQS_ON,
    ),
    needs(
        call(
            "text_poke",
            ADDR_CODE,
            Returns::PointerOrNull,
            X86,
            "writes to text through a private alias; two pages at most; text_mutex is the caller's",
            ALTERNATIVE,
            x86::text_poke::text_poke,
        ),
        TEXT_MUTEX,
    ),
    takes(
        call(
            "text_poke_copy",
            ADDR_CODE,
            Returns::PointerOrNull,
            X86,
            "writes code of any length to text that is not the core kernel's",
            ALTERNATIVE,
            x86::text_poke::text_poke_copy,
        ),
        &["text_mutex"],
    ),
    since(
        takes(
            call(
                "text_poke_set",
                &[p("addr", Addr), p("c", Byte), p("len", Bytes)],
                Returns::PointerOrNull,
                X86,
                "fills text that is not the core kernel's with a byte",
                ALTERNATIVE,
                x86::text_poke::text_poke_set,
            ),
            &["text_mutex"],
        ),
        V5_19,
    ),
    until(
        needs(
            call(
                "text_poke_sync",
                &[],
                Returns::Void,
                X86,
                "serialises all CPUs",
                ALTERNATIVE,
                x86::text_poke::text_poke_sync,
            ),
            IRQS_ON,
        ),
        SMP_NAMES,
    ),
    until(
        needs(
            call(
                "text_poke_bp",
                ADDR_CODE,
                Returns::Void,
                X86,
                "replaces a live instruction in three phases behind INT3, each synchronised",
                ALTERNATIVE,
                x86::batch::single,
            ),
            SYNCS_TEXT,
        ),
        SMP_NAMES,
    ),
    since(
        needs(
            call(
                "smp_text_poke_single",
                ADDR_CODE,
                Returns::Void,
                X86,
                "replaces a live instruction in three phases behind INT3, each synchronised",
                SMP_POKE,
                x86::batch::single,
            ),
            SYNCS_TEXT,
        ),
        SMP_NAMES,
    ),
    until(
        needs(
            call(
                "text_poke_queue",
                ADDR_CODE,
                Returns::Void,
                X86,
                "adds an instruction to those that are replaced together",
                ALTERNATIVE,
                x86::batch::queue,
            ),
            TEXT_MUTEX,
        ),
        SMP_NAMES,
    ),
    since(
        needs(
            call(
                "smp_text_poke_batch_add",
                ADDR_CODE,
                Returns::Void,
                X86,
                "adds an instruction to those that are replaced together",
                SMP_POKE,
                x86::batch::queue,
            ),
            TEXT_MUTEX,
        ),
        SMP_NAMES,
    ),
    until(
        needs(
            call(
                "text_poke_finish",
                &[],
                Returns::Void,
                X86,
                "replaces all that were added, in three phases behind INT3",
                ALTERNATIVE,
                x86::batch::finish,
            ),
            IRQS_ON,
        ),
        SMP_NAMES,
    ),
    since(
        needs(
            call(
                "smp_text_poke_batch_finish",
                &[],
                Returns::Void,
                X86,
                "replaces all that were added, in three phases behind INT3",
                SMP_POKE,
                x86::batch::finish,
            ),
            IRQS_ON,
        ),
        SMP_NAMES,
    ),
    since(
        needs(
            call(
                "smp_text_poke_sync_each_cpu",
                &[],
                Returns::Void,
                X86,
                "serialises all CPUs",
                SMP_POKE,
                x86::text_poke::text_poke_sync,
            ),
            IRQS_ON,
        ),
        SMP_NAMES,
    ),
    call(
        "text_poke_early",
        ADDR_CODE,
        Returns::Void,
        X86,
        "plain stores to text; this CPU alone is synchronised, if the text is executable",
        ALTERNATIVE,
        x86::text_poke::text_poke_early,
    ),
    needs(
        call(
            "text_poke_kgdb",
            ADDR_CODE,
            Returns::PointerOrNull,
            X86,
            "as text_poke, by a debugger that holds all other CPUs still",
            ALTERNATIVE,
            x86::text_poke::text_poke,
        ),
        STOPPED,
    ),
    since(
        needs(
            call(
                "text_poke_copy_locked",
                &[p("addr", Addr), p("code", Code), p("core_ok", Flag)],
                Returns::PointerOrNull,
                X86,
                "as text_poke_copy, with text_mutex held by the caller; core_ok allows kernel text",
                SMP_POKE,
                x86::text_poke::text_poke_copy_locked,
            ),
            TEXT_MUTEX,
        ),
        Some(V6_2),
    ),
    since(
        call(
            "aarch64_insn_copy",
            &[p("dst", Addr), p("code", Code)],
            Returns::PointerOrNull,
            ARM64,
            "writes code to text, then cleans, invalidates and interrupts all CPUs",
            PATCHING,
            arm64::patching::insn_copy,
        ),
        Some(V6_9),
    ),
    since(
        call(
            "aarch64_insn_set",
            &[p("dst", Addr), p("insn", Insn), p("len", Bytes)],
            Returns::PointerOrNull,
            ARM64,
            "fills text with an instruction, then cleans, invalidates and interrupts all CPUs",
            PATCHING,
            arm64::patching::insn_set,
        ),
        Some(V6_9),
    ),
    call(
        "aarch64_insn_patch_text_nosync",
        &[p("addr", Addr), p("insn", Insn)],
        Returns::Errno,
        ARM64,
        "writes one instruction to text, then cleans and invalidates its line",
        PATCHING,
        arm64::patching::patch_text_nosync,
    ),
    call(
        "patch_instruction",
        &[p("addr", Addr), p("instr", Insn)],
        Returns::Errno,
        POWER,
        "writes one instruction to text through an alias",
        CODE_PATCHING,
        powerpc::patching::patch_instruction,
    ),
    since(
        call(
            "patch_instructions",
            &[p("addr", Addr), p("code", Code), p("repeat_instr", Flag), p("len", Bytes)],
            Returns::Errno,
            POWER,
            "writes code to text, or one instruction again and again",
            CODE_PATCHING,
            powerpc::patching::patch_instructions,
        ),
        Some(V6_7),
    ),
    call(
        "aarch64_insn_write",
        ADDR_INSN,
        Returns::Errno,
        ARM64,
        "writes one instruction to text, without any maintenance",
        PATCHING,
        arm64::patching::insn_write,
    ),
    since(
        call(
            "aarch64_insn_write_literal_u64",
            &[p("addr", Addr), p("val", Insn)],
            Returns::Errno,
            ARM64,
            "writes eight bytes of data in text, without any maintenance",
            Cite::memory("with the call operations of ftrace, 6.3"),
            arm64::patching::write_literal,
        ),
        Some(V6_3),
    ),
    needs(
        call(
            "aarch64_insn_patch_text",
            ADDR_CODE,
            Returns::Errno,
            ARM64,
            "writes instructions that follow each other while all other CPUs stand still",
            PATCHING,
            arm64::patching::patch_text,
        ),
        SLEEPS,
    ),
    call(
        "caches_clean_inval_pou",
        START_END,
        Returns::Void,
        ARM64,
        "cleans to the point of unification and invalidates instruction caches; tells no CPU",
        Cite::read("Linux 5.19, 6.12 arch/arm64/mm/cache.S"),
        arm64::patching::clean_inval,
    ),
    call(
        "raw_patch_instruction",
        ADDR_INSN,
        Returns::Errno,
        POWER,
        "writes one instruction in place",
        CODE_PATCHING,
        powerpc::patching::raw_patch_instruction,
    ),
    call(
        "patch_branch",
        &[p("addr", Addr), p("target", Addr), p("flags", Flag)],
        Returns::Errno,
        POWER,
        "writes a branch to text; flags 1 makes it a call",
        CODE_PATCHING,
        powerpc::patching::patch_branch,
    ),
    since(
        call(
            "patch_uint",
            ADDR_INSN,
            Returns::Errno,
            POWER,
            "writes four bytes of data in text",
            Cite::deduced("Linux 6.12 arch/powerpc/lib/code-patching.c; not in 6.8"),
            powerpc::patching::patch_uint,
        ),
        Some(V6_11),
    ),
    since(
        call(
            "patch_ulong",
            ADDR_INSN,
            Returns::Errno,
            POWER,
            "writes eight bytes of data in text",
            Cite::deduced("Linux 6.12 arch/powerpc/lib/code-patching.c; not in 6.8"),
            powerpc::patching::patch_ulong,
        ),
        Some(V6_11),
    ),
    takes(
        call(
            "bpf_arch_text_poke",
            &[p("ip", Addr), p("t", Flag), p("old_addr", Addr), p("new_addr", Addr)],
            Returns::Errno,
            ALL,
            "replaces a no-operation, jump (t 0) or call (t 1) at an attach point by another",
            JIT,
            text_users::arch_text_poke,
        ),
        &["text_mutex"],
    ),
    never(
        call(
            "jump_entry",
            &[p("key", Bytes), p("code", Addr), p("target", Addr)],
            Returns::Void,
            ALL,
            "says that a static key has a site; the site holds a no-operation",
            JUMP_LABEL,
            text_users::jump_entry,
        ),
        "a row of the jump table of a module",
    ),
    takes(
        call(
            "static_key_enable",
            KEY,
            Returns::Void,
            ALL,
            "makes the sites of a static key jump",
            JUMP_LABEL,
            text_users::static_key_enable,
        ),
        KEY_LOCKS,
    ),
    takes(
        call(
            "static_key_disable",
            KEY,
            Returns::Void,
            ALL,
            "makes the sites of a static key no-operations",
            JUMP_LABEL,
            text_users::static_key_disable,
        ),
        KEY_LOCKS,
    ),
    call(
        "bpf_prog_pack_alloc",
        SIZE,
        Returns::PointerOrNull,
        ALL,
        "room for a program in a pack",
        CORE,
        bpf::pack_alloc,
    ),
    call(
        "bpf_prog_pack_free",
        &[p("ptr", Addr), p("size", Bytes)],
        Returns::Void,
        ALL,
        "gives the room back",
        CORE,
        bpf::pack_free,
    ),
    call(
        "bpf_jit_binary_pack_alloc",
        &[p("proglen", Bytes)],
        Returns::PointerOrNull,
        ALL,
        "room for a program with its header; the program starts 8 bytes behind it",
        CORE,
        bpf::binary_pack_alloc,
    ),
    call(
        "bpf_jit_binary_pack_finalize",
        &[p("ro_header", Addr), p("code", Code)],
        Returns::Errno,
        ALL,
        "copies header and program to their room",
        CORE,
        bpf::binary_pack_finalize,
    ),
    call(
        "bpf_jit_binary_pack_free",
        &[p("ro_header", Addr)],
        Returns::Void,
        ALL,
        "gives the room of a program back, by the size in its header",
        CORE,
        bpf::binary_pack_free,
    ),
    call(
        "bpf_arch_text_copy",
        &[p("dst", Addr), p("code", Code)],
        Returns::PointerOrErr,
        ALL,
        "writes a program to text; -ENOTSUPP where the architecture has nothing of its own",
        JIT,
        bpf::arch_text_copy,
    ),
    since(
        call(
            "bpf_arch_text_invalidate",
            &[p("dst", Addr), p("len", Bytes)],
            Returns::Nonzero,
            ALL,
            "overwrites a program with trap instructions; -ENOTSUPP where the architecture has \
             nothing of its own",
            JIT,
            bpf::arch_text_invalidate,
        ),
        V5_19,
    ),
    call(
        "bpf_fill_ill_insns",
        &[p("area", Addr), p("size", Bytes)],
        Returns::Void,
        ALL,
        "fills memory with trap instructions by plain stores (the JIT's fill function)",
        JIT,
        bpf::fill_ill_insns,
    ),
    call(
        "memset",
        &[p("addr", Addr), p("c", Byte), p("len", Bytes)],
        Returns::Void,
        ALL,
        "plain stores",
        Cite::deduced("ordinary stores"),
        stores::memset,
    ),
    call(
        "memcpy",
        ADDR_CODE,
        Returns::Void,
        ALL,
        "plain stores",
        Cite::deduced("ordinary stores"),
        stores::memcpy,
    ),
    call(
        "set_pte",
        ENTRY,
        Returns::Void,
        ALL,
        "stores one kernel entry: addr gets the frame that an area has at page",
        PGTABLE,
        page_table::set_pte,
    ),
    since(
        call(
            "__set_pte_nosync",
            ENTRY,
            Returns::Void,
            ARM64,
            "as set_pte, with its barriers left to the caller",
            Cite::read("arm64/mm: batch dsb and isb when populating pgtables (6.10)"),
            page_table::set_pte_nosync,
        ),
        Some(V6_10),
    ),
    call(
        "pte_clear",
        ADDR,
        Returns::Void,
        ALL,
        "makes one kernel entry invalid, with neither barrier nor flush",
        PGTABLE,
        page_table::pte_clear,
    ),
    call(
        "synchronize_rcu",
        &[],
        Returns::Void,
        ALL,
        "waits for a grace period",
        Cite::read("Linux 6.12 Documentation/RCU"),
        generic::synchronize_rcu,
    ),
    call(
        "synchronize_rcu_tasks",
        &[],
        Returns::Void,
        ALL,
        "waits for a grace period of RCU tasks",
        Cite::read("Linux 6.12 Documentation/RCU"),
        generic::synchronize_rcu_tasks,
    ),
];

const fn not(name: &'static str, what: &'static str) -> NotModelled {
    NotModelled { name, what }
}

/// Calls of this subject that are known and not modelled.
pub const NOT_MODELLED: &[NotModelled] = &[
    not("stop_machine", "stopping all CPUs"),
    not("static_call_update", "static calls"),
    not("kvmalloc", "allocation that may come from slabs"),
    not("set_memory_4k", "forced splitting"),
    not("execmem_update_copy", "the ROX cache (6.13 and later)"),
    not("bpf_jit_binary_alloc", "programs on pages of their own"),
    not("bpf_jit_binary_lock_ro", "programs on pages of their own"),
    not("arch_prepare_bpf_trampoline", "trampolines"),
    not("register_kprobe", "probes"),
    not("load_module", "module loading"),
    not("call_rcu", "callbacks"),
    not("flush_icache_all", "use flush_icache_range"),
    not("flush_cache_vmap", "part of vmalloc"),
];
