//! Rows: memory types of pages (x86 alone).

use textbed_arch::Cite;

use super::{ADDR_PAGES, ALL, FLUSHES, X86, call, p};
use crate::calls::ParamKind::{Addr, Pages};
use crate::calls::{Body, CallSpec, Param, Returns};
use crate::x86::caching;

const CACHING: Cite = Cite::read(
    "Linux 5.19, 6.1, 6.6, 6.12, 6.18.2, 7.0 arch/x86/mm/pat/set_memory.c, memtype.c; no such \
     function in arch/arm64, arch/powerpc",
);
const PAGE: &[Param] = &[p("page", Addr), p("numpages", Pages)];
const ARRAY: &[Param] = &[p("pages", Addr), p("numpages", Pages)];

const fn type_call(
    name: &'static str,
    params: &'static [Param],
    doc: &'static str,
    run: Body,
) -> CallSpec {
    call(name, params, Returns::Errno, X86, doc, CACHING, run).steps(ALL).sends(FLUSHES)
}

/// The rows.
pub(super) const ROWS: &[CallSpec] = &[
    type_call(
        "set_memory_uc",
        ADDR_PAGES,
        "reserves uncached memory, and makes pages that",
        caching::set_memory_uc,
    ),
    type_call(
        "set_memory_wc",
        ADDR_PAGES,
        "reserves write-combining memory, and makes pages that, by way of uncached",
        caching::set_memory_wc,
    ),
    type_call(
        "set_memory_wb",
        ADDR_PAGES,
        "makes pages write-back again, and gives the reservation back",
        caching::set_memory_wb,
    ),
    type_call(
        "set_pages_uc",
        PAGE,
        "set_memory_uc of the direct map's pages from that of an address on",
        caching::set_pages_uc,
    ),
    type_call(
        "set_pages_wb",
        PAGE,
        "set_memory_wb of the direct map's pages from that of an address on",
        caching::set_pages_wb,
    ),
    type_call(
        "set_pages_array_uc",
        ARRAY,
        "makes the direct map's pages of those that addresses map uncached, each by itself",
        caching::set_pages_array_uc,
    ),
    type_call(
        "set_pages_array_wc",
        ARRAY,
        "makes the direct map's pages of those that addresses map write-combining",
        caching::set_pages_array_wc,
    ),
    type_call(
        "set_pages_array_wb",
        ARRAY,
        "makes the direct map's pages of those that addresses map write-back again",
        caching::set_pages_array_wb,
    ),
];
