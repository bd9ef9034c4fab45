//! Rows: permissions of pages, the direct map, single entries.

use textbed_arch::Cite;

use super::{
    ADDR, ADDR_PAGES, ALL, ARM64, FLUSHES, NOT_ARM64, NOT_POWER, NOT_X86, POWER, PROTS, V6_13, X86,
    call, p, since, until,
};
use crate::calls::ParamKind::{Addr, Bytes, Flag, Flags, Pages};
use crate::calls::{CallSpec, Param, Returns};
use crate::facts::{V6_2, V6_8, V6_9, V6_10};
use crate::{page_table, ptdump, set_memory};

const SET_MEMORY: Cite = Cite::read(
    "Linux 5.19, 6.12 arch/x86/mm/pat/set_memory.c, arch/arm64/mm/pageattr.c, \
     arch/powerpc/mm/pageattr.c",
);
const CPA: Cite =
    Cite::read("Linux 5.19, 6.1, 6.6, 6.12, 6.18.2, 7.0 arch/x86/mm/pat/set_memory.c");
const PGTABLE: Cite = Cite::read(
    "Linux 6.1, 6.12, 6.18, 7.0 arch/arm64/include/asm/pgtable.h set_pte(), __set_pte_complete(); \
     6.12 arch/powerpc/include/asm/book3s/64/radix.h radix__set_pte_at() (set_pte_at: no ptesync), \
     arch/x86/include/asm/pgtable_64.h native_set_pte()",
);
const PTDUMP: Cite = Cite::read(
    "Linux 6.8, 6.12 mm/ptdump.c, 6.12 include/linux/ptdump.h, arch/x86/mm/dump_pagetables.c, \
     arch/arm64/mm/ptdump.c, arch/powerpc/mm/ptdump/ptdump.c",
);
const ENTRY: &[Param] = &[p("addr", Addr), p("page", Addr), p("prot", Flags(PROTS))];

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    call(
        "set_memory_ro",
        ADDR_PAGES,
        Returns::Errno,
        ALL,
        "makes pages read-only",
        SET_MEMORY,
        set_memory::ro,
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "set_memory_rw",
        ADDR_PAGES,
        Returns::Errno,
        ALL,
        "makes pages writable",
        SET_MEMORY,
        set_memory::rw,
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "set_memory_x",
        ADDR_PAGES,
        Returns::Errno,
        ALL,
        "makes pages executable",
        SET_MEMORY,
        set_memory::x,
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "set_memory_nx",
        ADDR_PAGES,
        Returns::Errno,
        ALL,
        "makes pages not executable",
        SET_MEMORY,
        set_memory::nx,
    )
    .steps(ALL)
    .sends(FLUSHES),
    since(
        call(
            "set_memory_rox",
            ADDR_PAGES,
            Returns::Errno,
            ALL,
            "makes pages read-only and executable",
            SET_MEMORY,
            set_memory::rox,
        )
        .steps(ALL)
        .sends(FLUSHES),
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
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "set_memory_np_noalias",
        ADDR_PAGES,
        Returns::Errno,
        X86,
        "makes pages not present at this address alone: the direct map keeps them",
        CPA,
        set_memory::np_noalias,
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "set_memory_p",
        ADDR_PAGES,
        Returns::Errno,
        POWER,
        "makes pages present again",
        SET_MEMORY,
        set_memory::p,
    )
    .steps(ALL)
    .sends(FLUSHES),
    since(
        call(
            "set_memory_p",
            ADDR_PAGES,
            Returns::Errno,
            X86,
            "makes pages present again",
            Cite::read("Linux 6.7.3 (static there), 6.8, 6.12 arch/x86/mm/pat/set_memory.c"),
            set_memory::p,
        )
        .steps(ALL)
        .sends(FLUSHES),
        Some(V6_8),
    ),
    call(
        "set_memory_global",
        ADDR_PAGES,
        Returns::Errno,
        X86,
        "has switches of address spaces keep translations of pages",
        CPA,
        set_memory::global,
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "set_memory_nonglobal",
        ADDR_PAGES,
        Returns::Errno,
        X86,
        "has them forget these",
        CPA,
        set_memory::nonglobal,
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "set_memory_4k",
        ADDR_PAGES,
        Returns::Errno,
        X86,
        "splits large leaves into pages",
        SET_MEMORY,
        set_memory::small,
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "set_memory_valid",
        &[p("addr", Addr), p("numpages", Pages), p("enable", Flag)],
        Returns::Errno,
        ARM64,
        "makes pages invalid or valid",
        SET_MEMORY,
        set_memory::valid,
    )
    .steps(ARM64),
    since(
        call(
            "set_direct_map_valid_noflush",
            &[p("page", Addr), p("nr", Bytes), p("valid", Flag)],
            Returns::Errno,
            ALL,
            "the direct map's pages of frames that follow each other: away, or back",
            Cite::read("Linux 6.13.2, 6.18.2 arch/*/mm, include/linux/set_memory.h; not in 6.12"),
            set_memory::direct_map_valid,
        )
        .steps(NOT_POWER)
        .sends(FLUSHES),
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
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "set_direct_map_default_noflush",
        ADDR,
        Returns::Errno,
        ALL,
        "makes the direct map's page of the frame behind an address present and writable",
        SET_MEMORY,
        set_memory::direct_map_default,
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "kernel_page_present",
        ADDR,
        Returns::Bool,
        ALL,
        "whether the direct map has the page behind an address; always where no architecture says",
        Cite::read(
            "Linux 6.12 arch/x86/mm/pat/set_memory.c, arch/arm64/mm/pageattr.c, \
             include/linux/set_memory.h",
        ),
        set_memory::kernel_page_present,
    ),
    call(
        "debug_checkwx",
        &[],
        Returns::Void,
        NOT_POWER,
        "looks for mappings that are writable and executable; complains once a boot",
        PTDUMP,
        ptdump::debug_checkwx,
    ),
    since(
        call(
            "debug_checkwx",
            &[],
            Returns::Void,
            POWER,
            "looks for mappings that are writable and executable; complains once a boot",
            PTDUMP,
            ptdump::debug_checkwx,
        ),
        Some(V6_9),
    ),
    until(
        call(
            "ptdump_check_wx",
            &[],
            Returns::Void,
            NOT_X86,
            "looks for mappings that are writable and executable; complains once a boot",
            PTDUMP,
            ptdump::debug_checkwx,
        ),
        Some(V6_9),
    ),
    since(
        call(
            "ptdump_check_wx",
            &[],
            Returns::Bool,
            ALL,
            "as debug_checkwx; 1 if nothing was found",
            Cite::read(
                "6cdc82db0c04 mm: ptdump: have ptdump_check_wx() return bool (mails of \
                 2024-01-30); include/linux/ptdump.h",
            ),
            ptdump::ptdump_check_wx,
        ),
        Some(V6_9),
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
            Cite::read("Linux 6.12, 6.18, 7.0 arch/arm64/include/asm/pgtable.h; not in 6.1"),
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
];
