//! Rows: modules.

use textbed_arch::Cite;

use super::{ALL_64 as ALL, CODE, FLUSHES, SLEEPS, call, needs, never, p};
use crate::calls::ParamKind::{Addr, Bytes, Code, Flags};
use crate::calls::{CallSpec, Param, Returns};
use crate::modules;

const MODULE: Cite =
    Cite::read("Linux 6.1, 6.4, 6.12, 6.18.2 kernel/module/main.c, kernel/module/strict_rwx.c");
const WRITES: Cite = Cite::read(
    "Linux 6.1, 6.12, 6.18.2, 7.0 kernel/module/main.c, arch/*/kernel/module*.c, \
     arch/{x86,arm64}/kernel/alternative.c, arch/powerpc/lib/feature-fixups.c",
);
const WRITE: &[Param] = &[p("offset", Bytes), p("code", Code)];
const MOD: &[Param] = &[p("mod", Addr)];

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    needs(
        call(
            "load_module",
            &[p("code", Code)],
            Returns::PointerOrErr,
            ALL,
            "loads a module whose text and init text are this code, up to its init function; gives \
             the text's address",
            MODULE,
            modules::load_module,
        )
        .steps(ALL)
        .sends(CODE),
        SLEEPS,
    ),
    never(
        call(
            "module_relocation",
            WRITE,
            Returns::Void,
            ALL,
            "says what relocation writes to the text of the module that is loaded next",
            WRITES,
            modules::module_relocation,
        ),
        "a row of a module's relocations",
    ),
    never(
        call(
            "module_alternative",
            WRITE,
            Returns::Void,
            ALL,
            "says which alternative goes into the text of the module that is loaded next",
            WRITES,
            modules::module_alternative,
        ),
        "a row of a module's .altinstructions",
    ),
    never(
        call(
            "module_section",
            &[p("mod", Addr), p("type", Flags(modules::SECTIONS))],
            Returns::PointerOrNull,
            ALL,
            "where a part of a module lies",
            MODULE,
            modules::module_section,
        ),
        "a field of struct module",
    ),
    needs(
        call(
            "do_init_module",
            MOD,
            Returns::Errno,
            ALL,
            "what follows the init function: ro_after_init becomes read-only, init memory is \
             handed to a work item",
            MODULE,
            modules::do_init_module,
        )
        .steps(ALL)
        .sends(FLUSHES),
        SLEEPS,
    ),
    needs(
        call(
            "do_free_init",
            &[],
            Returns::Void,
            ALL,
            "the work item that frees init memory of modules after a grace period",
            MODULE,
            modules::do_free_init,
        )
        .steps(ALL)
        .sends(FLUSHES),
        SLEEPS,
    ),
    needs(
        call(
            "free_module",
            MOD,
            Returns::Void,
            ALL,
            "unlinks a module and frees its memory",
            MODULE,
            modules::free_module,
        )
        .steps(ALL)
        .sends(FLUSHES),
        SLEEPS,
    ),
];
