//! Rows: text patching of arm64.

use textbed_arch::Cite;

use super::{
    ADDR_CODE, ADDR_INSN, ARM64, ARM64_CROSS, CPUS_HELD, START_END, V6_3, call, needs, p, since,
};
use crate::arm64;
use crate::calls::ParamKind::{Addr, Bytes, Code, Insn};
use crate::calls::{CallSpec, Returns};
use crate::facts::V6_9;

const PATCHING: Cite = Cite::read("Linux 5.19, 6.12 arch/arm64/kernel/patching.c");

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    since(
        call(
            "aarch64_insn_copy",
            &[p("dst", Addr), p("code", Code)],
            Returns::PointerOrNull,
            ARM64,
            "writes code to text, then cleans, invalidates and interrupts all CPUs",
            PATCHING,
            arm64::patching::insn_copy,
        )
        .steps(ARM64)
        .sends(ARM64_CROSS),
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
        )
        .steps(ARM64)
        .sends(ARM64_CROSS),
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
    )
    .steps(ARM64),
    call(
        "aarch64_insn_write",
        ADDR_INSN,
        Returns::Errno,
        ARM64,
        "writes one instruction to text, without any maintenance",
        PATCHING,
        arm64::patching::insn_write,
    )
    .steps(ARM64),
    since(
        call(
            "aarch64_insn_write_literal_u64",
            &[p("addr", Addr), p("val", Insn)],
            Returns::Errno,
            ARM64,
            "writes eight bytes of data in text, without any maintenance",
            Cite::read(
                "arm64: patching: Add aarch64_insn_write_literal_u64(); pull request of arm64 for \
                 6.3 (2023-02-21)",
            ),
            arm64::patching::write_literal,
        )
        .steps(ARM64),
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
        )
        .steps(ARM64)
        .sends(ARM64_CROSS),
        CPUS_HELD,
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
];
