//! Rows: text patching of x86.

use textbed_arch::Cite;

use super::{
    ADDR_CODE, IRQS_ON, SMP_NAMES, STOPPED, SYNCS_TEXT, TEXT_MUTEX, V5_19, X86, X86_CROSS, call,
    needs, p, since, takes, until,
};
use crate::calls::ParamKind::{Addr, Byte, Bytes, Code, Flag};
use crate::calls::{CallSpec, Returns};
use crate::facts::V6_2;
use crate::x86;

const ALTERNATIVE: Cite = Cite::read("Linux 5.19, 6.12 arch/x86/kernel/alternative.c");
const SMP_POKE: Cite = Cite::read("Linux 7.0 arch/x86/kernel/alternative.c");

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
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
        )
        .steps(X86),
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
            )
            .steps(X86),
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
            )
            .sends(X86_CROSS),
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
            )
            .steps(X86),
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
            )
            .steps(X86),
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
            )
            .steps(X86),
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
            )
            .steps(X86),
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
            )
            .steps(X86),
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
            )
            .steps(X86),
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
            )
            .sends(X86_CROSS),
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
            )
            .steps(X86),
            TEXT_MUTEX,
        ),
        Some(V6_2),
    ),
];
