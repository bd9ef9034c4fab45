//! Rows: text patching of powerpc.

use textbed_arch::Cite;

use super::{ADDR_INSN, POWER, POWER_64, POWER_FLUSHES, call, p, since};
use crate::calls::ParamKind::{Addr, Bytes, Code, Flag, Insn};
use crate::calls::{CallSpec, Returns};
use crate::facts::{V6_7, V6_12};
use crate::powerpc;

const CODE_PATCHING: Cite = Cite::read(
    "Linux 5.18.12, 6.1, 6.2, 6.6, 6.7.3, 6.10, 6.12, 6.13.2, 7.0 arch/powerpc/lib/code-patching.c",
);

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    call(
        "patch_instruction",
        &[p("addr", Addr), p("instr", Insn)],
        Returns::Errno,
        POWER,
        "writes one instruction to text through an alias",
        CODE_PATCHING,
        powerpc::patching::patch_instruction,
    )
    .steps(POWER)
    .sends(POWER_FLUSHES),
    since(
        call(
            "patch_instructions",
            &[p("addr", Addr), p("code", Code), p("repeat_instr", Flag), p("len", Bytes)],
            Returns::Errno,
            POWER,
            "writes code to text, or one instruction again and again",
            CODE_PATCHING,
            powerpc::patching::patch_instructions,
        )
        .steps(POWER)
        .sends(POWER_FLUSHES),
        Some(V6_7),
    ),
    call(
        "hash__mark_rodata_ro",
        &[],
        Returns::Void,
        POWER_64,
        "makes the image's entries of hashed tables read-only and executable, as at the end of boot",
        Cite::read(
            "Linux 5.19, 6.1, 6.12, 7.0 arch/powerpc/mm/book3s64/hash_pgtable.c, 6.12 hash_native.c \
             native_hpte_updateboltedpp()",
        ),
        powerpc::hash::mark_rodata_ro,
    ),
    call(
        "raw_patch_instruction",
        ADDR_INSN,
        Returns::Errno,
        POWER,
        "writes one instruction in place",
        CODE_PATCHING,
        powerpc::patching::raw_patch_instruction,
    )
    .steps(POWER),
    call(
        "patch_branch",
        &[p("addr", Addr), p("target", Addr), p("flags", Flag)],
        Returns::Errno,
        POWER,
        "writes a branch to text; flags 1 makes it a call",
        CODE_PATCHING,
        powerpc::patching::patch_branch,
    )
    .steps(POWER)
    .sends(POWER_FLUSHES),
    since(
        call(
            "patch_uint",
            ADDR_INSN,
            Returns::Errno,
            POWER,
            "writes four bytes of data in text",
            Cite::read("Linux 6.12 arch/powerpc/lib/code-patching.c; not in 6.11.11"),
            powerpc::patching::patch_uint,
        )
        .steps(POWER)
        .sends(POWER_FLUSHES),
        Some(V6_12),
    ),
    since(
        call(
            "patch_ulong",
            ADDR_INSN,
            Returns::Errno,
            POWER,
            "writes eight bytes of data in text",
            Cite::read("Linux 6.12 arch/powerpc/lib/code-patching.c; not in 6.11.11"),
            powerpc::patching::patch_ulong,
        )
        .steps(POWER)
        .sends(POWER_FLUSHES),
        Some(V6_12),
    ),
];
