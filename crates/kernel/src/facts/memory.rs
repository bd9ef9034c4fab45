//! Facts: areas, permissions, memory for code.

use textbed_arch::Cite;

use super::{
    ALL, ARM64, ARM64_ALONE, NOT_ARM64, NOT_POWER, NOT_PPC32, NOT_X86, OPT_IN, POWER, POWER_64,
    PPC32, V6_1, V6_2, V6_3, V6_4, V6_6, V6_7, V6_9, V6_10, V6_13, V6_15, V6_16, V6_18, V6_18_2,
    V6_19, V7_0, X86, X86_ALONE, row,
};
use crate::caps::Value::{No, Word, Yes};
use crate::caps::{Fact, FactRow};
use crate::version::Version;

const COLLAPSE: Cite = Cite::read(
    "41d88484c71c x86/mm/pat: restore large ROX pages after fragmentation; Linux 6.18.2, 7.0",
);
const ROX_OFF: Cite = Cite::read("a9bbe3413331 x86: Disable EXECMEM_ROX support; Linux 6.14");
const ROX_ON: Cite = Cite::read("64f6a4e10c05 (6.15) switched it on again; Linux 6.18.2, 7.0");
const KFENCE: Cite = Cite::read(
    "Linux 6.0-rc1 (no), 6.1, 6.2, 6.3.8 (yes) arch/arm64/mm/pageattr.c can_set_direct_map(); \
     arm64/mm: fold check for KFENCE into can_set_direct_map()",
);
const KFENCE_EARLY: Cite = Cite::read(
    "Linux 6.3.8 (none), 6.4, 6.6, 6.12, 6.18.2, 7.0 arch/arm64/include/asm/kfence.h \
     arm64_kfence_can_set_direct_map(), mm/mmu.c kfence_early_init",
);
const EXECMEM_X86: Cite =
    Cite::read("Linux 6.12 (no), 6.13.2, 6.18.2 (yes) arch/x86/mm/init.c execmem_arch_setup()");
const OPT_IN_CITE: Cite = Cite::read(
    "559089e0a93d vmalloc: replace VM_NO_HUGE_VMAP with VM_ALLOW_HUGE_VMAP; push log of master \
     2022-04-20: b2d229d4ddb1 (5.18-rc3) to 559089e0a93d",
);
const VMALLOC: Cite = Cite::read("Linux 5.19 and 6.12 mm/vmalloc.c");
const VUNMAP: Cite = Cite::read(
    "Linux 5.19, 6.1, 6.2 mm/vmalloc.c vm_remove_mappings(), 6.3.8, 6.6, 6.12, 7.0 vunmap()",
);
const CPA: Cite = Cite::read(
    "Linux 5.18.12, 6.0-rc1, 6.1, 6.2, 6.4, 6.6, 6.9, 6.12, 6.14, 6.18.2, 7.0 \
     arch/x86/mm/pat/set_memory.c",
);
const ARM_PAGEATTR: Cite = Cite::read(
    "Linux 5.18.12, 6.1, 6.6, 6.12, 6.13.2, 6.14, 6.18.2, 6.19 arch/arm64/mm/pageattr.c",
);
const CPA_FLUSH: Cite = Cite::deduced(
    "Linux 6.12, 6.14, master of 2025-10-02 (__cpa_flush_tlb(), page by page), 6.18.2, 7.0 \
     (flush_tlb_kernel_range()) arch/x86/mm/pat/set_memory.c cpa_flush()",
);
const HASH_PAGE: Cite = Cite::read(
    "Linux 6.6, 6.12 arch/powerpc/mm/book3s32/hash_low.S hash_page; linuxppc-dev 2023-09-25, \
     powerpc/32s: Introduce _PAGE_READ and remove _PAGE_USER (6.7)",
);
const FLUSH_RANGE: Cite = Cite::read(
    "Linux 5.19, 6.1, 6.6, 6.12 (no), 6.13.2, 6.18.2, 7.0 (yes) arch/arm64/include/asm/tlbflush.h \
     flush_tlb_kernel_range(); a923705c69f7 arm64: optimize flush tlb kernel range (arm64 for \
     6.13)",
);
const SET_PTE: Cite = Cite::read(
    "Linux 5.19, 6.12, 6.14 (behind each), 6.18.2, 7.0 (queue_pte_barriers(), put off in lazy MMU \
     mode) arch/arm64/include/asm/pgtable.h; arm64/mm: Batch barriers when updating kernel mappings; \
     pull request of arm64 for 6.16 (2025-05-28)",
);
const ALIAS_ERROR: Cite = Cite::read(
    "Linux 6.14 (no), 6.18.2, 6.19 (yes) arch/arm64/mm/pageattr.c; e5efd56fa157 arm64/pageattr: \
     Propagate return value from __change_memory_common (6.19; in stable 6.18 from its review of \
     2025-12-16 on)",
);
const RODATA: Cite = Cite::read(
    "Linux 5.18.12, 6.0-rc1 arch/arm64/mm/mmu.c parse_rodata(), 6.1, 6.6, 6.7.3, 6.14, 6.18.2, 7.0 \
     arch/arm64/include/asm/setup.h arch_parse_debug_rodata(), arch/arm64/Kconfig \
     (RODATA_FULL_DEFAULT_ENABLED: y)",
);
const PPC_PAGEATTR: Cite = Cite::read("Linux 5.19, 6.8, 6.12 arch/powerpc/mm/pageattr.c");

/// The rows.
pub(super) const ROWS: &[FactRow] = &[
    row(
        Fact::HugeVmalloc,
        X86,
        Some(Version::candidate(5, 18, 1)),
        None,
        Yes,
        Cite::read(
            "Linux 5.17-rc5 (no), 5.18.12 (yes) arch/x86/Kconfig; mails of April 2022 on 5.18-rc",
        ),
    ),
    row(
        Fact::HugeVmalloc,
        X86,
        None,
        Some(Version::candidate(5, 18, 1)),
        No,
        Cite::read(
            "fac54e2bfb5b x86/Kconfig: Select HAVE_ARCH_HUGE_VMALLOC with HAVE_ARCH_HUGE_VMAP; \
             mails of 2022-02-04 (bpf-next) to 2022-04-20",
        ),
    ),
    row(
        Fact::HugeVmalloc,
        ARM64,
        None,
        Some(V6_1),
        No,
        Cite::read("Linux 5.19, 6.0-rc1 arch/arm64/Kconfig"),
    ),
    row(
        Fact::HugeVmalloc,
        ARM64,
        Some(V6_1),
        None,
        Yes,
        Cite::read("Linux 6.1 arch/arm64/Kconfig"),
    ),
    row(
        Fact::HugeVmalloc,
        POWER_64,
        None,
        None,
        Yes,
        Cite::read("Linux 5.19 arch/powerpc/Kconfig"),
    ),
    row(
        Fact::HugeVmalloc,
        PPC32,
        None,
        None,
        No,
        Cite::read(
            "Linux 5.19, 7.0 arch/powerpc/Kconfig (HAVE_ARCH_HUGE_VMAP: of 32-bit 8xx alone)",
        ),
    ),
    row(
        Fact::HashPageExec,
        NOT_PPC32,
        None,
        None,
        No,
        Cite::read(
            "Linux 5.19 to 7.0 arch/powerpc/mm/book3s32/hash_low.S: 32-bit powerpc alone has it",
        ),
    ),
    row(Fact::HashPageExec, PPC32, None, Some(V6_7), No, HASH_PAGE),
    row(Fact::HashPageExec, PPC32, Some(V6_7), None, Yes, HASH_PAGE),
    row(Fact::HugeVmallocOptOut, ALL, None, Some(OPT_IN), Yes, OPT_IN_CITE),
    row(Fact::HugeVmallocOptOut, ALL, Some(OPT_IN), None, No, OPT_IN_CITE),
    row(Fact::SizePerNode, ALL, None, Some(V6_13), Yes, VMALLOC),
    row(Fact::SizePerNode, ALL, Some(V6_13), None, No, Cite::read("Linux 6.13.2 mm/vmalloc.c")),
    row(
        Fact::ModuleAllocResets,
        X86,
        None,
        Some(V6_2),
        No,
        Cite::read("Linux 5.19, 6.1 arch/x86/kernel/module.c"),
    ),
    row(
        Fact::ModuleAllocResets,
        X86,
        Some(V6_2),
        None,
        Yes,
        Cite::read("Linux 6.4 arch/x86/kernel/module.c; 6.12 mm/execmem.c"),
    ),
    row(
        Fact::ModuleAllocResets,
        ARM64,
        None,
        Some(V6_10),
        No,
        Cite::read("Linux 6.8 arch/arm64/kernel/module.c"),
    ),
    row(
        Fact::ModuleAllocResets,
        ARM64,
        Some(V6_10),
        None,
        Yes,
        Cite::read("Linux 6.10-rc1 mm/execmem.c"),
    ),
    row(
        Fact::ModuleAllocResets,
        POWER,
        None,
        None,
        Yes,
        Cite::read("mail: powerpc __module_alloc passes VM_FLUSH_RESET_PERMS | VM_NO_HUGE_VMAP"),
    ),
    row(
        Fact::ModuleAllocNoHuge,
        NOT_POWER,
        None,
        None,
        No,
        Cite::read("Linux 5.17-rc5, 5.18.12 arch/{x86,arm64}/kernel/module.c"),
    ),
    row(
        Fact::ModuleAllocNoHuge,
        POWER,
        None,
        Some(OPT_IN),
        Yes,
        Cite::read("mail: powerpc __module_alloc passes VM_FLUSH_RESET_PERMS | VM_NO_HUGE_VMAP"),
    ),
    row(
        Fact::ModuleAllocNoHuge,
        POWER,
        Some(OPT_IN),
        None,
        No,
        Cite::read("Linux 5.19 arch/powerpc/kernel/module.c"),
    ),
    row(Fact::Execmem, ALL, None, Some(V6_10), No, Cite::read("Linux 6.8 kernel/module")),
    row(Fact::Execmem, ALL, Some(V6_10), None, Yes, Cite::read("Linux 6.10-rc1 mm/execmem.c")),
    row(Fact::WarnsWriteExec, X86, None, Some(V6_1), No, CPA),
    row(Fact::WarnsWriteExec, X86, Some(V6_1), None, Yes, CPA),
    row(
        Fact::WarnsWriteExec,
        NOT_X86,
        None,
        None,
        No,
        Cite::read("Linux 5.19 and 6.12 arch/{arm64,powerpc}/mm/pageattr.c"),
    ),
    row(Fact::AliasFollows, X86, None, None, Yes, CPA),
    row(Fact::AliasFollows, ARM64, None, None, Word("if-rodata-full"), ARM_PAGEATTR),
    row(Fact::AliasFollows, POWER, None, None, No, PPC_PAGEATTR),
    row(Fact::RodataOnFull, NOT_ARM64, None, None, No, ARM64_ALONE),
    row(Fact::RodataOnFull, ARM64, None, Some(V6_1), No, RODATA),
    row(Fact::RodataOnFull, ARM64, Some(V6_1), Some(V6_7), Yes, RODATA),
    row(Fact::RodataOnFull, ARM64, Some(V6_7), Some(V6_18), No, RODATA),
    row(Fact::RodataOnFull, ARM64, Some(V6_18), None, Yes, RODATA),
    row(Fact::KfenceByPages, ARM64, None, Some(V6_1), No, KFENCE),
    row(Fact::KfenceByPages, ARM64, Some(V6_1), Some(V6_4), Yes, KFENCE),
    row(Fact::KfenceByPages, ARM64, Some(V6_4), None, Word("if-late"), KFENCE_EARLY),
    row(Fact::KfenceByPages, NOT_ARM64, None, None, No, KFENCE),
    row(Fact::ExecmemKprobes, X86, None, Some(V6_13), No, EXECMEM_X86),
    row(Fact::ExecmemKprobes, X86, Some(V6_13), None, Yes, EXECMEM_X86),
    row(Fact::ExecmemKprobes, NOT_X86, None, None, No, EXECMEM_X86),
    row(Fact::AliasSkipsNx, X86, None, Some(V6_2), Yes, CPA),
    row(Fact::AliasSkipsNx, X86, Some(V6_2), None, No, CPA),
    row(Fact::AliasSkipsNx, ARM64, None, None, Yes, ARM_PAGEATTR),
    row(Fact::AliasSkipsNx, POWER, None, None, Yes, PPC_PAGEATTR),
    row(Fact::AliasWholeArea, X86, None, None, No, CPA),
    row(Fact::AliasWholeArea, ARM64, None, Some(V6_19), Yes, ARM_PAGEATTR),
    row(Fact::AliasWholeArea, ARM64, Some(V6_19), None, No, Cite::read("Linux 6.19.10 pageattr.c")),
    row(Fact::AliasWholeArea, POWER, None, None, No, PPC_PAGEATTR),
    row(
        Fact::ValidFlushed,
        NOT_ARM64,
        None,
        None,
        No,
        Cite::read("Linux 6.12 arch/arm64/include/asm/set_memory.h: arm64 alone has the call"),
    ),
    row(Fact::ValidFlushed, ARM64, None, Some(V6_13), Yes, ARM_PAGEATTR),
    row(
        Fact::ValidFlushed,
        ARM64,
        Some(V6_13),
        None,
        No,
        Cite::read("Linux 6.18.2, 7.0 arch/arm64/mm/pageattr.c __change_memory_common()"),
    ),
    row(Fact::AliasErrorChecked, X86, None, None, Yes, CPA),
    row(Fact::AliasErrorChecked, ARM64, None, Some(V6_18_2), No, ALIAS_ERROR),
    row(Fact::AliasErrorChecked, ARM64, Some(V6_18_2), None, Yes, ALIAS_ERROR),
    row(Fact::AliasErrorChecked, POWER, None, None, No, PPC_PAGEATTR),
    row(Fact::HugeRefusal, X86, None, None, Word("never"), CPA),
    row(Fact::HugeRefusal, ARM64, None, Some(V6_16), Word("walker-warns"), ARM_PAGEATTR),
    row(
        Fact::HugeRefusal,
        ARM64,
        Some(V6_16),
        None,
        Word("silent-by-flag"),
        Cite::read(
            "fcf8dda8cc48 arm64: pageattr: Explicitly bail out when changing permissions for \
             vmalloc_huge mappings; applied for 6.16 (2025-04-29)",
        ),
    ),
    row(Fact::HugeRefusal, POWER, None, None, Word("warns-by-order"), PPC_PAGEATTR),
    row(Fact::SetMemoryPurges, NOT_POWER, None, None, Yes, CPA),
    row(Fact::SetMemoryPurges, POWER, None, None, No, PPC_PAGEATTR),
    row(Fact::RoxOnePass, X86, None, None, Yes, Cite::read("Linux 6.4 set_memory_rox()")),
    row(
        Fact::RoxOnePass,
        ARM64,
        None,
        None,
        No,
        Cite::read("Linux 6.12 include/linux/set_memory.h"),
    ),
    row(
        Fact::RoxOnePass,
        POWER,
        None,
        Some(V6_9),
        No,
        Cite::read("Linux 6.8 include/linux/set_memory.h"),
    ),
    row(
        Fact::RoxOnePass,
        POWER,
        Some(V6_9),
        None,
        Yes,
        Cite::read("Linux 6.9, 6.12 SET_MEMORY_ROX"),
    ),
    row(Fact::SetDirectMap, X86, None, None, Yes, CPA),
    row(Fact::SetDirectMap, ARM64, None, None, Word("if-can-set-direct-map"), ARM_PAGEATTR),
    row(
        Fact::SetDirectMap,
        POWER,
        None,
        None,
        No,
        Cite::read("Linux 5.19 and 6.12 include/linux/set_memory.h (no ARCH_HAS_SET_DIRECT_MAP)"),
    ),
    row(Fact::CpaCollapse, NOT_X86, None, None, No, X86_ALONE),
    row(Fact::CpaCollapse, X86, None, Some(V6_15), No, Cite::read("Linux 6.14 set_memory.c")),
    row(Fact::CpaCollapse, X86, Some(V6_15), None, Yes, COLLAPSE),
    row(Fact::CpaFlushesRange, NOT_X86, None, None, No, X86_ALONE),
    row(Fact::CpaFlushesRange, X86, None, Some(V6_18), No, CPA_FLUSH),
    row(Fact::CpaFlushesRange, X86, Some(V6_18), None, Yes, CPA_FLUSH),
    row(
        Fact::RoxCache,
        NOT_X86,
        None,
        None,
        No,
        Cite::read("Linux 6.18.2, 7.0 arch/*/Kconfig: only x86 selects ARCH_HAS_EXECMEM_ROX"),
    ),
    row(Fact::RoxCache, X86, None, Some(V6_15), No, ROX_OFF),
    row(Fact::RoxCache, X86, Some(V6_15), None, Yes, ROX_ON),
    row(Fact::ClearsDirty, NOT_X86, None, None, No, X86_ALONE),
    row(Fact::ClearsDirty, X86, None, Some(V6_6), No, CPA),
    row(
        Fact::ClearsDirty,
        X86,
        Some(V6_6),
        None,
        Yes,
        Cite::read("Linux 6.6, 6.12 arch/x86/mm/pat/set_memory.c set_memory_ro(); 6.4 without"),
    ),
    row(Fact::LooksAtUpperLevels, NOT_X86, None, None, No, X86_ALONE),
    row(Fact::LooksAtUpperLevels, X86, None, Some(V6_10), No, CPA),
    row(
        Fact::LooksAtUpperLevels,
        X86,
        Some(V6_10),
        None,
        Yes,
        Cite::read("Linux 6.9, 6.10, 6.12 arch/x86/mm/pat/set_memory.c verify_rwx()"),
    ),
    row(Fact::Invlpgb, NOT_X86, None, None, No, X86_ALONE),
    row(Fact::Invlpgb, X86, None, Some(V6_15), No, Cite::read("Linux 6.14 arch/x86/mm/tlb.c")),
    row(
        Fact::Invlpgb,
        X86,
        Some(V6_15),
        None,
        Word("if-the-cpu-has-it"),
        Cite::read(
            "Linux 6.14 (none), 6.18.2 arch/x86/mm/tlb.c; 82378c6c2f43 x86/mm: Use INVLPGB for \
             kernel TLB flushes, in linux-next of 2025-03-20, before the merge window of 6.15",
        ),
    ),
    row(Fact::PcidOffByErratum, NOT_X86, None, None, No, X86_ALONE),
    row(
        Fact::PcidOffByErratum,
        X86,
        None,
        Some(V6_4),
        No,
        Cite::read("Linux 6.1.20, 6.2 arch/x86/mm/init.c; 6.3.8 has it as a fix of later"),
    ),
    row(
        Fact::PcidOffByErratum,
        X86,
        Some(V6_4),
        None,
        Yes,
        Cite::read("Linux 6.4, 6.12 arch/x86/mm/init.c setup_pcid(), commit ce0b15d11ad8"),
    ),
    row(Fact::RepeatTlbi, NOT_ARM64, None, None, No, ARM64_ALONE),
    row(
        Fact::RepeatTlbi,
        ARM64,
        None,
        Some(V7_0),
        Word("each-twice"),
        Cite::read("Linux 6.12 arch/arm64/include/asm/tlbflush.h __TLBI_0, __TLBI_1"),
    ),
    row(
        Fact::RepeatTlbi,
        ARM64,
        Some(V7_0),
        None,
        Word("one-more"),
        Cite::read(
            "Linux 6.19 (each), 7.0 arch/arm64/include/asm/tlbflush.h __repeat_tlbi_sync(); the \
             message of a8f78680ee6b",
        ),
    ),
    row(Fact::LazyBarriers, NOT_ARM64, None, None, No, ARM64_ALONE),
    row(Fact::LazyBarriers, ARM64, None, Some(V6_16), No, SET_PTE),
    row(Fact::LazyBarriers, ARM64, Some(V6_16), None, Yes, SET_PTE),
    row(Fact::FlushRounds, NOT_ARM64, None, None, No, ARM64_ALONE),
    row(Fact::FlushRounds, ARM64, None, Some(V6_13), No, FLUSH_RANGE),
    row(Fact::FlushRounds, ARM64, Some(V6_13), None, Yes, FLUSH_RANGE),
    row(Fact::FlushByRange, NOT_ARM64, None, None, No, ARM64_ALONE),
    row(Fact::FlushByRange, ARM64, None, Some(V6_13), No, FLUSH_RANGE),
    row(Fact::FlushByRange, ARM64, Some(V6_13), None, Word("if-tlbirange"), FLUSH_RANGE),
    row(Fact::VunmapPurges, ALL, None, Some(V6_3), Yes, VUNMAP),
    row(Fact::VunmapPurges, ALL, Some(V6_3), None, No, VUNMAP),
    row(Fact::VmapNodes, ALL, None, Some(V6_9), No, Cite::read("Linux 6.8 mm/vmalloc.c")),
    row(
        Fact::VmapNodes,
        ALL,
        Some(V6_9),
        None,
        Yes,
        Cite::read("Linux 6.9, 6.12 mm/vmalloc.c; 6.8 has none"),
    ),
    row(
        Fact::ContPte,
        NOT_ARM64,
        None,
        None,
        No,
        Cite::read(
            "Linux 5.18.12 to 7.0 arch/{x86,powerpc}/include/asm: arch_vmap_pte_range_map_size() is \
             8xx's alone, for pages of 512 KiB",
        ),
    ),
    row(Fact::ContPte, ARM64, None, Some(V6_16), No, Cite::read("Linux 6.14 arch/arm64")),
    row(
        Fact::ContPte,
        ARM64,
        Some(V6_16),
        None,
        Yes,
        Cite::read(
            "Linux 6.14 (none), 6.18.2 arch/arm64/include/asm/vmalloc.h; arm64/mm: Support huge \
             pte-mapped pages in vmap; pull request of arm64 for 6.16 (2025-05-28)",
        ),
    ),
    row(Fact::SplitsLive, NOT_ARM64, None, None, No, ARM64_ALONE),
    row(Fact::SplitsLive, ARM64, None, Some(V6_18), No, ARM_PAGEATTR),
    row(
        Fact::SplitsLive,
        ARM64,
        Some(V6_18),
        None,
        Word("if-bbml2-noabort"),
        Cite::read("Linux 6.18.2 arch/arm64/mm/mmu.c split_kernel_leaf_mapping()"),
    ),
];
