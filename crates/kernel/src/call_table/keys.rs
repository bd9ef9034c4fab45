//! Rows: static keys.

use textbed_arch::Cite;

use super::{ALL_64 as ALL, ARM64_CROSS, call, never, p, takes};
use crate::calls::ParamKind::{Addr, Bytes};
use crate::calls::{CallSpec, Param, Returns};
use crate::text_users;

const JUMP_LABEL: Cite = Cite::read("Linux 6.12 kernel/jump_label.c, arch/*/kernel/jump_label.c");
pub(super) const KEY: &[Param] = &[p("key", Bytes)];
pub(super) const KEY_LOCKS: &[&str] = &["jump_label_mutex", "text_mutex"];

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
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
        )
        .steps(ALL)
        .sends(ARM64_CROSS),
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
        )
        .steps(ALL)
        .sends(ARM64_CROSS),
        KEY_LOCKS,
    ),
];
