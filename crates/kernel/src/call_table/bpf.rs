//! Rows: BPF's room for programs and its attach points.

use textbed_arch::Cite;

use super::{
    ALL_64 as ALL, BPF_TEXT, CODE, FLUSHES, LINKS, POWER_64, POWER_CROSS, SIZE, SLEEPS, V5_19,
    call, needs, never, p, since, takes,
};
use crate::calls::ParamKind::{Addr, Bytes, Code, Flag};
use crate::calls::{CallSpec, Param, ParamKind, Returns};
use crate::facts::V6_2;
use crate::{bpf, dispatcher, text_users, trampolines};

const CORE: Cite = Cite::read("Linux 5.19, 6.12 kernel/bpf/core.c");
const JIT: Cite = Cite::read("Linux 5.19, 6.12 arch/*/net/bpf_jit_comp*.c, kernel/bpf/core.c");

const TRAMPOLINE: Cite = Cite::read(
    "Linux 6.1, 6.12 kernel/bpf/trampoline.c, arch/*/net/bpf_jit_comp*.c; 6.18.2 arch/powerpc/net",
);
const ATTACHED: &[Param] = &[p("ip", Addr), p("prog", Addr)];

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    takes(
        call(
            "bpf_arch_text_poke",
            &[p("ip", Addr), p("t", Flag), p("old_addr", Addr), p("new_addr", Addr)],
            Returns::Errno,
            ALL,
            "replaces a no-operation, jump (t 0) or call (t 1) at an attach point by another",
            JIT,
            text_users::arch_text_poke,
        )
        .steps(ALL)
        .sends(POWER_CROSS),
        &["text_mutex"],
    ),
    never(
        call(
            "bpf_ool_stub",
            &[p("ip", Addr), p("stub", Addr)],
            Returns::Void,
            POWER_64,
            "says where the out-of-line stub of an attach point lies; its second word holds a \
             no-operation",
            Cite::read("Linux 6.18.2, 7.0 arch/powerpc/net/bpf_jit_comp.c"),
            text_users::bpf_ool_stub,
        ),
        "laid out by the JIT at the end of a program",
    ),
    call(
        "bpf_prog_pack_alloc",
        SIZE,
        Returns::PointerOrNull,
        ALL,
        "room for a program in a pack",
        CORE,
        bpf::pack_alloc,
    )
    .steps(ALL)
    .sends(FLUSHES),
    call(
        "bpf_prog_pack_free",
        &[p("ptr", Addr), p("size", Bytes)],
        Returns::Void,
        ALL,
        "gives the room back",
        CORE,
        bpf::pack_free,
    )
    .steps(ALL)
    .sends(CODE),
    call(
        "bpf_jit_binary_pack_alloc",
        &[p("proglen", Bytes)],
        Returns::PointerOrNull,
        ALL,
        "room for a program with its header; the program starts 8 bytes behind it",
        CORE,
        bpf::binary_pack_alloc,
    )
    .steps(ALL)
    .sends(CODE),
    call(
        "bpf_jit_binary_pack_finalize",
        &[p("ro_header", Addr), p("code", Code)],
        Returns::Errno,
        ALL,
        "copies header and program to their room",
        CORE,
        bpf::binary_pack_finalize,
    )
    .steps(ALL)
    .sends(CODE),
    call(
        "bpf_jit_binary_pack_free",
        &[p("ro_header", Addr)],
        Returns::Void,
        ALL,
        "gives the room of a program back, by the size in its header",
        CORE,
        bpf::binary_pack_free,
    )
    .steps(ALL)
    .sends(CODE),
    call(
        "bpf_arch_text_copy",
        &[p("dst", Addr), p("code", Code)],
        Returns::PointerOrErr,
        ALL,
        "writes a program to text; -ENOTSUPP where the architecture has nothing of its own",
        JIT,
        bpf::arch_text_copy,
    )
    .steps(ALL)
    .sends(BPF_TEXT),
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
        )
        .steps(ALL)
        .sends(BPF_TEXT),
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
    never(
        call(
            "prog_attach_type",
            &[p("prog", Addr), p("type", ParamKind::Flags(trampolines::ATTACH_TYPES))],
            Returns::Void,
            ALL,
            "says when a program runs: before the function (if nothing is said), behind it, or \
             before and perhaps instead of it",
            TRAMPOLINE,
            trampolines::prog_attach_type,
        ),
        "the expected_attach_type of a program that is loaded",
    ),
    needs(
        call(
            "bpf_trampoline_link_prog",
            ATTACHED,
            Returns::Errno,
            ALL,
            "attaches a program to a function's site by a new trampoline",
            TRAMPOLINE,
            trampolines::link_prog,
        )
        .steps(ALL)
        .sends(LINKS),
        SLEEPS,
    ),
    needs(
        call(
            "bpf_trampoline_unlink_prog",
            ATTACHED,
            Returns::Errno,
            ALL,
            "detaches a program; the old trampoline is freed after grace periods",
            TRAMPOLINE,
            trampolines::unlink_prog,
        )
        .steps(ALL)
        .sends(LINKS),
        SLEEPS,
    ),
    since(
        needs(
            call(
                "bpf_dispatcher_change_prog",
                &[p("d", Bytes), p("from", Addr), p("to", Addr)],
                Returns::Void,
                ALL,
                "puts a program into a dispatcher in the place of another; d is also the key of \
                 the static call that leads there",
                Cite::read(
                    "Linux 6.12 kernel/bpf/dispatcher.c, arch/x86/net/bpf_jit_comp.c; before 6.2 \
                     the dispatcher was reached otherwise (c86df29d11df)",
                ),
                dispatcher::change_prog,
            )
            .steps(ALL)
            .sends(CODE),
            SLEEPS,
        ),
        Some(V6_2),
    ),
    needs(
        call(
            "__bpf_tramp_image_put_deferred",
            &[],
            Returns::Void,
            ALL,
            "what frees old trampolines, behind the grace periods that it waits for",
            TRAMPOLINE,
            trampolines::put_deferred,
        )
        .steps(ALL)
        .sends(CODE),
        SLEEPS,
    ),
];
