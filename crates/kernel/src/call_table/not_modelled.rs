//! Calls that are known by name alone.

use crate::calls::NotModelled;

const fn not(name: &'static str, what: &'static str) -> NotModelled {
    NotModelled { name, what }
}

/// Calls of this subject that are known and not modelled.
pub const NOT_MODELLED: &[NotModelled] = &[
    not("kvmalloc", "allocation that may come from slabs"),
    not("execmem_update_copy", "the ROX cache (6.13 and later)"),
    not("bpf_jit_binary_alloc", "programs on pages of their own"),
    not("bpf_jit_binary_lock_ro", "programs on pages of their own"),
    not("arch_prepare_bpf_trampoline", "part of bpf_trampoline_link_prog"),
    not("call_rcu", "callbacks"),
    not("flush_icache_all", "use flush_icache_range"),
    not("flush_cache_vmap", "part of vmalloc"),
    not("_set_memory_wt", "part of ioremap_wt"),
    not("set_memory_encrypted", "memory encryption"),
    not("set_memory_decrypted", "memory encryption"),
    not("set_pages_ro", "pages by their struct page: set_memory_ro of page_address"),
    not("set_pages_rw", "pages by their struct page: set_memory_rw of page_address"),
];
