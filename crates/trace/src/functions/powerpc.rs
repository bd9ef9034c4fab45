//! Rows of powerpc's own functions.
//!
//! `patch_instruction` and its kin cannot be probed; `set_memory_*` are inline and show as
//! `change_memory_attr`.

use super::Meaning::*;
use super::{Function, On, Ret, row};
use textbed_arch::Cite;

const PAGEATTR: Cite = Cite::read("Linux 6.12 arch/powerpc/mm/pageattr.c");
const RADIX: Cite = Cite::read("Linux 6.12 arch/powerpc/mm/book3s64/radix_tlb.c");
const RADIX_PGTABLE: Cite = Cite::memory("Linux 6.12 arch/powerpc/mm/book3s64/radix_pgtable.c");
const HASH: Cite = Cite::memory("Linux 6.12 arch/powerpc/mm/book3s64/hash_pgtable.c");
const CACHE: Cite = Cite::memory("Linux 6.12 arch/powerpc/mm/cacheflush.c");

#[rustfmt::skip]
pub(super) const ROWS: &[Function] = &[
    row("change_memory_attr", On::Power, AttrCall, &["addr", "numpages", "action"], Ret::Errno, PAGEATTR),
    row("change_page_attr", On::Power, AttrPage, &["addr", "data"], Ret::Errno, PAGEATTR),
    row("radix__flush_tlb_kernel_range", On::Power, BroadcastFlush, &[], Ret::Void, RADIX),
    row("radix__change_memory_range", On::Power, Call, &[], Ret::Void, RADIX_PGTABLE),
    row("hash__change_memory_range", On::Power, Call, &[], Ret::Void, HASH),
    row("__flush_hash_table_range", On::Power, Call, &[], Ret::Void, HASH),
    row("flush_icache_range", On::Power, IcacheRange, &["start", "end"], Ret::Void, CACHE),
];
