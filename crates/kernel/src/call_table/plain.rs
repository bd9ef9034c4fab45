//! Rows: plain stores and grace periods.

use textbed_arch::Cite;

use super::{ADDR_CODE, ALL, SLEEPS, call, needs, never, p};
use crate::calls::ParamKind::{Addr, Byte, Bytes};
use crate::calls::{CallSpec, Returns};
use crate::{generic, stores};

const RCU: Cite = Cite::read("Linux 6.12 Documentation/RCU, kernel/rcu/tasks.h");

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    call(
        "memset",
        &[p("addr", Addr), p("c", Byte), p("len", Bytes)],
        Returns::Void,
        ALL,
        "plain stores",
        Cite::deduced("ordinary stores"),
        stores::memset,
    ),
    call(
        "memcpy",
        ADDR_CODE,
        Returns::Void,
        ALL,
        "plain stores",
        Cite::deduced("ordinary stores"),
        stores::memcpy,
    ),
    needs(
        call(
            "synchronize_rcu",
            &[],
            Returns::Void,
            ALL,
            "waits for a grace period",
            RCU,
            generic::synchronize_rcu,
        )
        .steps(ALL),
        SLEEPS,
    ),
    needs(
        call(
            "synchronize_rcu_tasks",
            &[],
            Returns::Void,
            ALL,
            "waits for a grace period of RCU tasks",
            RCU,
            generic::synchronize_rcu_tasks,
        )
        .steps(ALL),
        SLEEPS,
    ),
    needs(
        call(
            "synchronize_rcu_tasks_rude",
            &[],
            Returns::Void,
            ALL,
            "waits until every CPU has scheduled",
            RCU,
            generic::synchronize_rcu_rude,
        ),
        SLEEPS,
    ),
    needs(
        call(
            "synchronize_rcu_tasks_trace",
            &[],
            Returns::Void,
            ALL,
            "waits for a grace period of RCU tasks trace",
            RCU,
            generic::synchronize_rcu_trace,
        ),
        SLEEPS,
    ),
    call(
        "page_address",
        &[p("page", Addr)],
        Returns::PointerOrNull,
        ALL,
        "where the direct map has the page behind an address",
        Cite::read("Linux 6.12 include/linux/mm.h"),
        stores::page_address,
    ),
    never(
        call(
            "_stext",
            &[],
            Returns::PointerOrNull,
            ALL,
            "where the kernel's text begins",
            Cite::deduced("a symbol of the linker script"),
            stores::stext,
        ),
        "a symbol",
    ),
];
