//! Rows of arm64's own functions.
//!
//! No log can have `aarch64_insn_patch_text_nosync` or `caches_clean_inval_pou`: the kernel does
//! not let them be probed. Their absence says nothing.

use super::Meaning::*;
use super::{Function, On, Ret, row};
use crate::perms::Action;
use textbed_arch::Cite;

const PAGEATTR: Cite = Cite::read("Linux 6.12 arch/arm64/mm/pageattr.c");
const FLUSH: Cite = Cite::memory("Linux 6.12 arch/arm64/mm/flush.c");
const MMU: Cite = Cite::memory("Linux 6.12 arch/arm64/mm/mmu.c");

#[rustfmt::skip]
pub(super) const ROWS: &[Function] = &[
    row("change_memory_common", On::Arm64, ChangeMemoryCall, &["addr", "numpages", "set", "clr"], Ret::Errno, PAGEATTR),
    row("__change_memory_common", On::Arm64, ChangeMemoryApply, &["start", "size", "set", "clr"], Ret::Errno, PAGEATTR),
    row("set_memory_valid", On::Arm64, SetMemory(Action::P), &["addr", "numpages"], Ret::Errno, PAGEATTR),
    row("sync_icache_aliases", On::Arm64, IcacheRange, &["start", "end"], Ret::Void, FLUSH),
    row("update_mapping_prot", On::Arm64, Call, &[], Ret::Void, MMU),
];
