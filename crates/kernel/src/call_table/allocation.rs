//! Rows: areas, module memory, execmem.

use textbed_arch::Cite;

use super::{ADDR, ALL, FLUSHES, PROTS, PURGES, SIZE, X86, call, never, p, since, until};
use crate::area::vm_flags;
use crate::calls::ParamKind::{Addr, Bytes, Code, Flags};
use crate::calls::{CallSpec, Returns};
use crate::facts::{OPT_IN, V6_10, V6_18};
use crate::{module_memory, rox_cache, vfree, vmalloc, vmalloc_exec};

const VMALLOC: Cite = Cite::read("Linux 5.19, 6.12 mm/vmalloc.c");
const EXECMEM: Cite = Cite::read("Linux 6.18.2, 7.0 mm/execmem.c");

/// Kinds of executable memory, as calls name them.
pub(crate) const EXECMEM_TYPES: &[(&str, u64)] = &[
    ("EXECMEM_MODULE_TEXT", 1),
    ("EXECMEM_KPROBES", 2),
    ("EXECMEM_FTRACE", 4),
    ("EXECMEM_BPF", 8),
    ("EXECMEM_MODULE_DATA", 16),
];

const POSTED: Cite = Cite::read(
    "mail of 2022-10-31: vmalloc: introduce vmalloc_exec, vfree_exec, and vcopy_exec (v1 RESEND)",
);

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    call(
        "vmalloc",
        SIZE,
        Returns::PointerOrNull,
        ALL,
        "kernel memory, writable, not executable",
        VMALLOC,
        vmalloc::vmalloc,
    )
    .steps(ALL)
    .sends(PURGES),
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
            )
            .steps(ALL)
            .sends(PURGES),
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
        )
        .steps(ALL)
        .sends(PURGES),
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
        )
        .steps(ALL)
        .sends(PURGES),
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
    )
    .steps(ALL)
    .sends(PURGES),
    until(
        call(
            "module_alloc",
            SIZE,
            Returns::PointerOrNull,
            ALL,
            "memory for code, in the module area",
            Cite::read("Linux 5.19, 6.8 arch/*/kernel/module.c"),
            module_memory::module_alloc,
        )
        .steps(ALL)
        .sends(PURGES),
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
        )
        .steps(ALL)
        .sends(PURGES),
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
        )
        .steps(ALL)
        .sends(FLUSHES),
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
        )
        .steps(ALL)
        .sends(FLUSHES),
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
        )
        .steps(ALL)
        .sends(FLUSHES),
        Some(V6_10),
    ),
    since(
        call(
            "execmem_alloc_rw",
            &[p("type", Flags(EXECMEM_TYPES)), p("size", Bytes)],
            Returns::PointerOrNull,
            ALL,
            "as execmem_alloc, on x86-64 writable and not executable for now",
            EXECMEM,
            rox_cache::execmem_alloc_rw,
        )
        .steps(ALL)
        .sends(FLUSHES),
        Some(V6_18),
    ),
    since(
        call(
            "execmem_restore_rox",
            &[p("ptr", Addr), p("size", Bytes)],
            Returns::Errno,
            ALL,
            "makes memory of execmem read-only and executable again; elsewhere than on x86-64 0",
            EXECMEM,
            rox_cache::execmem_restore_rox,
        )
        .steps(X86)
        .sends(FLUSHES),
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
        )
        .steps(ALL)
        .sends(PURGES),
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
    )
    .steps(ALL)
    .sends(PURGES),
    call("vunmap", ADDR, Returns::Void, ALL, "takes what vmap mapped away", VMALLOC, vfree::vunmap)
        .steps(ALL)
        .sends(FLUSHES),
    call("vfree", ADDR, Returns::Void, ALL, "frees an area", VMALLOC, vfree::vfree)
        .steps(ALL)
        .sends(FLUSHES),
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
    )
    .steps(ALL)
    .sends(FLUSHES),
    never(
        call(
            "vmalloc_exec_v1",
            &[p("size", Bytes), p("align", Bytes)],
            Returns::PointerOrNull,
            ALL,
            "vmalloc_exec as posted in 2022: read-only and executable memory out of 2 MiB blocks",
            POSTED,
            vmalloc_exec::vmalloc_exec,
        )
        .steps(ALL)
        .sends(FLUSHES),
        "posted in 2022, never merged",
    ),
    never(
        call(
            "vcopy_exec",
            &[p("dst", Addr), p("src", Code)],
            Returns::PointerOrErr,
            ALL,
            "writes code to memory of vmalloc_exec_v1; -EOPNOTSUPP but on x86",
            POSTED,
            vmalloc_exec::vcopy_exec,
        ),
        "posted in 2022, never merged",
    ),
    never(
        call(
            "vfree_exec",
            ADDR,
            Returns::Void,
            ALL,
            "frees memory of vmalloc_exec_v1",
            POSTED,
            vmalloc_exec::vfree_exec,
        )
        .steps(ALL)
        .sends(FLUSHES),
        "posted in 2022, never merged",
    ),
];
