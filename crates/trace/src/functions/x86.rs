//! Rows of x86's own functions.

use super::Meaning::*;
use super::{Function, On, Ret, Runs, row};
use crate::perms::Action;
use textbed_arch::Cite;

const PAT: Cite = Cite::read("Linux 6.12 arch/x86/mm/pat/set_memory.c");
const ALTERNATIVE: Cite = Cite::read("Linux 6.12 arch/x86/kernel/alternative.c");
const ALTERNATIVE_NEW: Cite = Cite::read("Linux 7.0 arch/x86/kernel/alternative.c");
const TLB: Cite = Cite::read("Linux 6.12 arch/x86/mm/tlb.c");
const SYNC: Cite = Cite::read("Linux 6.12 arch/x86/include/asm/sync_core.h");
const STATIC_CALL: Cite = Cite::memory("Linux 6.12 arch/x86/kernel/static_call.c");
const INIT: Cite = Cite::memory("Linux 6.12 arch/x86/mm/init.c");

#[rustfmt::skip]
pub(super) const ROWS: &[Function] = &[
    row("change_page_attr_set_clr", On::X86, CpaCall, &["addr", "numpages", "set", "clr"], Ret::Errno, PAT),
    row("__change_page_attr_set_clr", On::X86, CpaWalk, &["vaddr"], Ret::Errno, PAT),
    row("cpa_flush", On::X86, CpaFlush, &[], Ret::Void, PAT),
    row("set_memory_np", On::X86, SetMemory(Action::Np), &["addr", "numpages"], Ret::Errno, PAT),
    row("set_memory_np_noalias", On::X86, SetMemory(Action::Np), &["addr", "numpages"], Ret::Errno, PAT),
    row("set_memory_p", On::X86, SetMemory(Action::P), &["addr", "numpages"], Ret::Errno, PAT).since(6, 6),
    row("set_memory_4k", On::X86, Call, &[], Ret::Errno, PAT),
    row("set_memory_global", On::X86, Call, &[], Ret::Errno, PAT),
    row("set_memory_nonglobal", On::X86, Call, &[], Ret::Errno, PAT),
    row("set_pages_ro", On::X86, Call, &[], Ret::Errno, PAT),
    row("set_pages_rw", On::X86, Call, &[], Ret::Errno, PAT),
    row("__text_poke", On::X86Arm64, TextPoke, &["addr", "len"], Ret::Void, ALTERNATIVE),
    row("text_poke", On::X86, PatchStep, &[], Ret::Void, ALTERNATIVE),
    row("text_poke_kgdb", On::X86, Call, &[], Ret::Void, ALTERNATIVE),
    row("text_poke_copy", On::X86, Call, &[], Ret::Pointer, ALTERNATIVE).since(5, 18),
    row("text_poke_copy_locked", On::X86, Call, &[], Ret::Pointer, ALTERNATIVE).since(6, 2),
    row("text_poke_set", On::X86, Call, &[], Ret::Pointer, ALTERNATIVE).since(5, 18),
    row("text_poke_early", On::X86, StoreDirect, &["addr", "len"], Ret::Void, ALTERNATIVE),
    row("text_poke_bp", On::X86, PatchTrap, &["addr", "len"], Ret::Void, ALTERNATIVE).until(6, 15),
    row("text_poke_queue", On::X86, PatchTrap, &["addr", "len"], Ret::Void, ALTERNATIVE).until(6, 15),
    row("smp_text_poke_single", On::X86, PatchTrap, &["addr", "len"], Ret::Void, ALTERNATIVE_NEW).since(6, 16),
    row("smp_text_poke_batch_add", On::X86, PatchTrap, &["addr", "len"], Ret::Void, ALTERNATIVE_NEW).since(6, 16),
    row("smp_text_poke_batch_finish", On::X86, PatchBatch, &[], Ret::Void, ALTERNATIVE_NEW).since(6, 16),
    row("smp_text_poke_sync_each_cpu", On::X86, PatchStep, &[], Ret::Void, ALTERNATIVE_NEW).since(6, 16),
    row("text_poke_bp_batch", On::X86, PatchBatch, &[], Ret::Void, ALTERNATIVE),
    row("text_poke_finish", On::X86, Call, &[], Ret::Void, ALTERNATIVE),
    row("text_poke_loc_init", On::X86, Call, &[], Ret::Void, ALTERNATIVE),
    row("text_poke_sync", On::X86, PatchStep, &[], Ret::Void, ALTERNATIVE),
    row("do_sync_core", On::X86, Remote(Runs::SyncCore), &[], Ret::Void, SYNC),
    row("do_flush_tlb_all", On::X86, Remote(Runs::FlushAll), &[], Ret::Void, TLB),
    row("do_kernel_range_flush", On::X86, Remote(Runs::FlushRange), &["start", "end"], Ret::Void, TLB),
    row("__flush_tlb_all", On::X86, LocalFlushAll, &[], Ret::Void, TLB),
    row("flush_tlb_one_kernel", On::X86, LocalFlushOne, &["addr"], Ret::Void, TLB),
    row("flush_tlb_all", On::X86, FreeStep, &[], Ret::Void, TLB),
    row("flush_tlb_kernel_range", On::X86, FreeStep, &[], Ret::Void, TLB),
    // User address spaces, and without an address.
    row("tlb_flush", On::X86, NotNeeded, &[], Ret::Void, TLB),
    row("__static_call_update", On::X86, Call, &[], Ret::Void, STATIC_CALL),
    row("arch_static_call_transform", On::X86, Call, &[], Ret::Void, STATIC_CALL),
    row("free_init_pages", On::X86, Call, &[], Ret::Void, INIT),
    row("free_kernel_image_pages", On::X86, Call, &[], Ret::Void, INIT),
];
