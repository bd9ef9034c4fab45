//! Rows: ftrace and static calls.

use textbed_arch::Cite;

use super::{
    ALL_64 as ALL, FLUSHES, POWER_64, POWER_FLUSHES, V6_13, X86, call, never, p, since, takes,
};
use crate::calls::ParamKind::{Addr, Bytes};
use crate::calls::{CallSpec, Param, Returns};
use crate::{ftrace, static_calls};

const FTRACE: Cite = Cite::read(
    "Linux 6.1, 6.12, 6.18.2 kernel/trace/ftrace.c, arch/x86/kernel/ftrace.c, \
     arch/arm64/kernel/ftrace.c, arch/powerpc/kernel/trace/ftrace.c",
);
const STATIC_CALL: Cite = Cite::read(
    "Linux 6.1, 6.12 kernel/static_call_inline.c, arch/x86/kernel/static_call.c, arch/*/Kconfig",
);
const OPS: &[Param] = &[p("ops", Bytes)];
const TRACER: &[&str] = &["ftrace_lock", "text_mutex"];
const DIRECT: &[&str] = &["direct_mutex", "ftrace_lock", "text_mutex"];

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    never(
        call(
            "ftrace_site",
            &[p("ip", Addr)],
            Returns::Errno,
            ALL,
            "says that a function has a call site; the site holds a no-operation",
            FTRACE,
            ftrace::ftrace_site,
        ),
        "a row of the table of call sites (__mcount_loc) of a module",
    ),
    since(
        never(
            call(
                "ftrace_ool_stub",
                &[p("ip", Addr), p("stub", Addr)],
                Returns::Errno,
                POWER_64,
                "sets up the out-of-line stub of a call site, by which it reaches what it calls",
                Cite::read(
                    "Linux 6.13.2, 7.0 arch/powerpc/kernel/trace/ftrace.c ftrace_init_ool_stub()",
                ),
                ftrace::ftrace_ool_stub,
            )
            .steps(POWER_64)
            .sends(POWER_FLUSHES),
            "done for each call site of the kernel or a module when it is found",
        ),
        Some(V6_13),
    ),
    takes(
        call(
            "register_ftrace_function",
            &[p("ops", Bytes), p("ip", Addr), p("func", Addr)],
            Returns::Errno,
            ALL,
            "makes a site call a tracer, on x86 by a trampoline of its own",
            FTRACE,
            ftrace::register_ftrace_function,
        )
        .steps(ALL)
        .sends(FLUSHES),
        TRACER,
    ),
    takes(
        call(
            "unregister_ftrace_function",
            OPS,
            Returns::Errno,
            ALL,
            "makes the site a no-operation again, waits, and frees the trampoline",
            FTRACE,
            ftrace::unregister_ftrace_function,
        )
        .steps(ALL),
        TRACER,
    ),
    takes(
        call(
            "register_ftrace_direct",
            &[p("ops", Bytes), p("ip", Addr), p("addr", Addr)],
            Returns::Errno,
            ALL,
            "makes a site call an address",
            FTRACE,
            ftrace::register_ftrace_direct,
        )
        .steps(ALL),
        DIRECT,
    ),
    takes(
        call(
            "unregister_ftrace_direct",
            OPS,
            Returns::Errno,
            ALL,
            "makes the site a no-operation again, and waits",
            FTRACE,
            ftrace::unregister_ftrace_direct,
        )
        .steps(ALL),
        DIRECT,
    ),
    takes(
        call(
            "modify_ftrace_direct",
            &[p("ops", Bytes), p("addr", Addr)],
            Returns::Errno,
            ALL,
            "makes the site of a direct call call another address, by way of ftrace_caller",
            Cite::read("Linux 6.12, 7.0 kernel/trace/ftrace.c __modify_ftrace_direct()"),
            ftrace::modify_ftrace_direct,
        )
        .steps(ALL),
        DIRECT,
    ),
    never(
        call(
            "static_call_site",
            &[p("key", Bytes), p("site", Addr)],
            Returns::Void,
            ALL,
            "says that a static call has a site; the site holds a call or a no-operation",
            STATIC_CALL,
            static_calls::static_call_site,
        ),
        "a row of the table of static call sites of a module",
    ),
    never(
        call(
            "static_call_tramp",
            &[p("key", Bytes), p("tramp", Addr)],
            Returns::Void,
            ALL,
            "says that a static call has a trampoline; it holds a jump or a return",
            STATIC_CALL,
            static_calls::static_call_tramp,
        ),
        "what DEFINE_STATIC_CALL makes",
    ),
    takes(
        call(
            "static_call_update",
            &[p("key", Bytes), p("func", Addr)],
            Returns::Void,
            ALL,
            "makes the sites of a static call call another function (x86; elsewhere a pointer is \
             changed)",
            STATIC_CALL,
            static_calls::static_call_update,
        )
        .steps(X86),
        &["static_call_mutex", "text_mutex"],
    ),
];
