//! Rows: plain stores and grace periods.

use textbed_arch::Cite;

use super::{ADDR_CODE, ALL, call, p};
use crate::calls::ParamKind::{Addr, Byte, Bytes};
use crate::calls::{CallSpec, Returns};
use crate::{generic, stores};

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
    call(
        "synchronize_rcu",
        &[],
        Returns::Void,
        ALL,
        "waits for a grace period",
        Cite::read("Linux 6.12 Documentation/RCU"),
        generic::synchronize_rcu,
    ),
    call(
        "synchronize_rcu_tasks",
        &[],
        Returns::Void,
        ALL,
        "waits for a grace period of RCU tasks",
        Cite::read("Linux 6.12 Documentation/RCU"),
        generic::synchronize_rcu_tasks,
    ),
];
