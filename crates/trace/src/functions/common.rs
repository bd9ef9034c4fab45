//! Rows of functions and tracepoints that are not one architecture's.

use super::Meaning::*;
use super::{Function, On, Owner, Ret, row};
use crate::perms::Action;
use textbed_arch::Cite;

const VMALLOC: Cite = Cite::read("Linux 6.12 mm/vmalloc.c");
const VMALLOC_OLD: Cite = Cite::read("Linux 6.1 mm/vmalloc.c");
const VMALLOC_EVENTS: Cite = Cite::read("Linux 6.12 include/trace/events/vmalloc.h");
const KMEM_EVENTS: Cite = Cite::read("Linux 6.12 include/trace/events/kmem.h");
const SET_MEMORY: Cite = Cite::read("Linux 6.12 include/linux/set_memory.h");
const EXECMEM: Cite = Cite::read("Linux 6.12 mm/execmem.c");
const MODULE: Cite = Cite::read("Linux 6.12 kernel/module/main.c, strict_rwx.c");
const BPF: Cite = Cite::read("Linux 6.12 kernel/bpf/core.c");
const TRAMPOLINE: Cite = Cite::read("Linux 6.12 kernel/bpf/trampoline.c, dispatcher.c");
const KPROBES: Cite = Cite::memory("Linux 6.12 kernel/kprobes.c");
const JUMP_LABEL: Cite = Cite::memory("Linux 6.12 kernel/jump_label.c");
const SMP: Cite = Cite::memory("Linux 6.12 kernel/smp.c");
const IPI_EVENTS: Cite = Cite::memory("Linux 6.12 include/trace/events/ipi.h");
const TRACE: Cite = Cite::memory("Linux 6.12 kernel/trace/trace_printk.c, trace.c");
const INIT: Cite = Cite::memory("Linux 6.12 init/main.c");

#[rustfmt::skip]
pub(super) const ROWS: &[Function] = &[
    // Areas and their page tables.
    row("__vmalloc_node_range", On::All, VmallocRange, &["size", "prot", "vmflags"], Ret::Pointer, VMALLOC_OLD).until(6, 9),
    row("__vmalloc_node_range_noprof", On::All, VmallocRange, &["size", "prot", "vmflags"], Ret::Pointer, VMALLOC).since(6, 10),
    row("alloc_vmap_area", On::All, AllocArea, &["va_start", "size", "failed"], Ret::Void, VMALLOC_EVENTS).since(6, 2),
    row("__vmap_pages_range_noflush", On::All, MapPages, &["start", "end", "prot"], Ret::Void, VMALLOC),
    row("vmap_pages_range_noflush", On::All, MapPages, &["start", "end", "prot"], Ret::Void, VMALLOC),
    row("__vunmap_range_noflush", On::All, UnmapPages, &["start", "end"], Ret::Void, VMALLOC),
    row("vunmap_range_noflush", On::All, UnmapPages, &["start", "end"], Ret::Void, VMALLOC),
    row("remove_vm_area", On::All, RemoveArea, &["addr"], Ret::Void, VMALLOC),
    row("__purge_vmap_area_lazy", On::All, PurgeCall, &["start", "end"], Ret::Void, VMALLOC),
    row("purge_vmap_area_lazy", On::All, Purged, &["start", "end", "num_purged"], Ret::Void, VMALLOC_EVENTS).since(6, 2),
    row("vmap", On::All, Vmap, &["count"], Ret::Pointer, VMALLOC),
    row("vunmap", On::All, Call, &[], Ret::Void, VMALLOC),
    row("vfree", On::All, GiveBack, &["addr"], Ret::Void, VMALLOC),
    row("vfree_atomic", On::All, GiveBack, &["addr"], Ret::Void, VMALLOC),
    row("vm_unmap_aliases", On::All, FreeStep, &[], Ret::Void, VMALLOC),
    row("_vm_unmap_aliases", On::All, FreeStep, &[], Ret::Void, VMALLOC),
    // A probe of the function and a tracepoint bear this name; the area is known by then.
    row("free_vmap_area_noflush", On::All, NotNeeded, &[], Ret::Void, VMALLOC_EVENTS),
    row("mm_page_free", On::All, PagesFreed, &["pfn", "order"], Ret::Void, KMEM_EVENTS),
    row("mm_page_free_batched", On::All, PagesFreed, &["pfn", "order"], Ret::Void, KMEM_EVENTS),
    row("mm_page_alloc", On::All, PagesTaken, &["pfn", "order"], Ret::Void, KMEM_EVENTS),
    // Permissions.
    row("set_memory_ro", On::X86Arm64, SetMemory(Action::Ro), &["addr", "numpages"], Ret::Errno, SET_MEMORY),
    row("set_memory_rw", On::X86Arm64, SetMemory(Action::Rw), &["addr", "numpages"], Ret::Errno, SET_MEMORY),
    row("set_memory_x", On::X86Arm64, SetMemory(Action::X), &["addr", "numpages"], Ret::Errno, SET_MEMORY),
    row("set_memory_nx", On::X86Arm64, SetMemory(Action::Nx), &["addr", "numpages"], Ret::Errno, SET_MEMORY),
    row("set_memory_rox", On::X86Arm64, SetMemory(Action::Rox), &["addr", "numpages"], Ret::Errno, SET_MEMORY).since(6, 2),
    row("set_direct_map_invalid_noflush", On::X86Arm64, DirectMap(Action::DirectInvalid), &["page"], Ret::Errno, SET_MEMORY),
    row("set_direct_map_default_noflush", On::X86Arm64, DirectMap(Action::DirectDefault), &["page"], Ret::Errno, SET_MEMORY),
    // Executable memory and its owners.
    row("execmem_alloc", On::All, ExecmemAlloc, &["type", "size"], Ret::Pointer, EXECMEM).since(6, 10),
    row("execmem_free", On::All, Call, &[], Ret::Void, EXECMEM).since(6, 10),
    row("module_alloc", On::All, ExecAlloc(None), &["size"], Ret::Pointer, VMALLOC_OLD).until(6, 9),
    row("module_memfree", On::All, Call, &[], Ret::Void, VMALLOC_OLD).until(6, 9),
    row("bpf_jit_alloc_exec", On::All, ExecAlloc(Some(Owner::Bpf)), &["size"], Ret::Pointer, BPF),
    row("bpf_jit_free_exec", On::All, Call, &[], Ret::Void, BPF),
    row("bpf_prog_pack_alloc", On::All, ExecPiece(Owner::Bpf), &["size"], Ret::Pointer, BPF).since(5, 18),
    row("bpf_prog_pack_free", On::All, Call, &[], Ret::Void, BPF).since(5, 18),
    row("bpf_jit_binary_alloc", On::All, Call, &[], Ret::Pointer, BPF),
    row("bpf_jit_binary_free", On::All, Call, &[], Ret::Void, BPF),
    row("bpf_jit_binary_pack_alloc", On::All, Call, &[], Ret::Pointer, BPF).since(5, 18),
    row("bpf_jit_binary_pack_finalize", On::All, Call, &[], Ret::Errno, BPF).since(5, 18),
    row("bpf_jit_binary_pack_free", On::All, Call, &[], Ret::Void, BPF).since(5, 18),
    row("bpf_int_jit_compile", On::All, Call, &[], Ret::Pointer, BPF),
    row("bpf_prog_select_runtime", On::All, Call, &[], Ret::PointerErr, BPF),
    row("bpf_jit_free", On::All, Call, &[], Ret::Void, BPF),
    row("bpf_prog_free", On::All, Call, &[], Ret::Void, BPF),
    row("bpf_prog_free_deferred", On::All, Call, &[], Ret::Void, BPF),
    row("__bpf_prog_free", On::All, Call, &[], Ret::Void, BPF),
    row("bpf_arch_text_copy", On::All, TextCopy, &["dst", "len"], Ret::PointerErr, BPF).since(5, 18),
    row("bpf_arch_text_invalidate", On::All, TextCopy, &["dst", "len"], Ret::Errno, BPF),
    row("bpf_arch_text_poke", On::All, Call, &[], Ret::Errno, BPF),
    row("__bpf_arch_text_poke", On::All, Call, &[], Ret::Errno, BPF),
    row("arch_alloc_bpf_trampoline", On::All, ExecPiece(Owner::BpfTrampoline), &["size"], Ret::Pointer, TRAMPOLINE),
    row("arch_free_bpf_trampoline", On::All, Call, &[], Ret::Void, TRAMPOLINE),
    row("arch_prepare_bpf_trampoline", On::All, Call, &[], Ret::Errno, TRAMPOLINE),
    row("arch_protect_bpf_trampoline", On::All, Call, &[], Ret::Errno, TRAMPOLINE),
    row("bpf_image_ksym_add", On::All, Call, &[], Ret::Void, TRAMPOLINE),
    row("bpf_dispatcher_change_prog", On::All, Call, &[], Ret::Void, TRAMPOLINE),
    row("module_enable_rodata_ro", On::All, ModuleStep, &["name"], Ret::Errno, MODULE).since(6, 10),
    row("module_enable_text_rox", On::All, ModuleStep, &["name"], Ret::Errno, MODULE).since(6, 10),
    row("module_enable_data_nx", On::All, ModuleStep, &["name"], Ret::Errno, MODULE).since(6, 10),
    row("module_enable_ro", On::All, ModuleStep, &["name"], Ret::Void, MODULE).until(6, 9),
    row("module_enable_nx", On::All, ModuleStep, &["name"], Ret::Void, MODULE).until(6, 9),
    row("module_enable_x", On::All, ModuleStep, &["name"], Ret::Void, MODULE).until(6, 9),
    row("module_finalize", On::All, ModuleStep, &["name"], Ret::Errno, MODULE),
    row("apply_relocate_add", On::All, ModuleStep, &["name"], Ret::Errno, MODULE),
    row("do_init_module", On::All, ModuleStep, &["name"], Ret::Errno, MODULE),
    row("free_module", On::All, Call, &[], Ret::Void, MODULE),
    row("do_free_init", On::All, Call, &[], Ret::Void, MODULE),
    row("module_load", On::All, NotNeeded, &[], Ret::Void, MODULE),
    row("module_free", On::All, NotNeeded, &[], Ret::Void, MODULE),
    row("module_get", On::All, NotNeeded, &[], Ret::Void, MODULE),
    row("module_put", On::All, NotNeeded, &[], Ret::Void, MODULE),
    row("module_request", On::All, NotNeeded, &[], Ret::Void, MODULE),
    row("alloc_insn_page", On::All, ExecPage(Owner::Kprobes), &[], Ret::Pointer, KPROBES),
    row("free_insn_page", On::All, Call, &[], Ret::Void, KPROBES),
    row("__get_insn_slot", On::All, Call, &[], Ret::Pointer, KPROBES),
    row("__free_insn_slot", On::All, Call, &[], Ret::Void, KPROBES),
    row("arch_prepare_optimized_kprobe", On::All, Call, &[], Ret::Errno, KPROBES),
    row("arch_optimize_kprobes", On::All, Call, &[], Ret::Void, KPROBES),
    row("arch_unoptimize_kprobe", On::All, Call, &[], Ret::Void, KPROBES),
    row("arch_unoptimize_kprobes", On::All, Call, &[], Ret::Void, KPROBES),
    row("arch_arm_kprobe", On::All, PatchBatch, &[], Ret::Void, KPROBES),
    row("arch_disarm_kprobe", On::All, PatchBatch, &[], Ret::Void, KPROBES),
    row("arch_remove_kprobe", On::All, Call, &[], Ret::Void, KPROBES),
    row("__jump_label_update", On::All, Call, &[], Ret::Void, JUMP_LABEL),
    row("arch_jump_label_transform", On::All, Call, &[], Ret::Void, JUMP_LABEL),
    row("arch_jump_label_transform_queue", On::All, Call, &[], Ret::Void, JUMP_LABEL),
    row("arch_jump_label_transform_apply", On::All, Call, &[], Ret::Void, JUMP_LABEL),
    row("mark_rodata_ro", On::All, Call, &[], Ret::Void, INIT),
    row("free_initmem", On::All, Call, &[], Ret::Void, INIT),
    // Order between CPUs.
    row("on_each_cpu_cond_mask", On::All, CrossCall { inner: false }, &["func", "wait"], Ret::Void, SMP),
    row("smp_call_function_many_cond", On::All, CrossCall { inner: true }, &["func"], Ret::Void, SMP),
    row("kick_all_cpus_sync", On::All, Call, &[], Ret::Void, SMP),
    row("do_nothing", On::All, Remote(super::Runs::Nothing), &[], Ret::Void, SMP),
    row("stop_machine", On::All, Call, &[], Ret::Errno, SMP),
    row("stop_machine_cpuslocked", On::All, StopMachine, &[], Ret::Errno, SMP),
    row("ipi_send_cpu", On::All, IpiSend, &[], Ret::Void, IPI_EVENTS).since(6, 4),
    row("ipi_send_cpumask", On::All, IpiSend, &[], Ret::Void, IPI_EVENTS).since(6, 4),
    row("ipi_raise", On::All, IpiSend, &[], Ret::Void, IPI_EVENTS),
    row("ipi_entry", On::All, NotNeeded, &[], Ret::Void, IPI_EVENTS),
    row("ipi_exit", On::All, NotNeeded, &[], Ret::Void, IPI_EVENTS),
    row("call_function_entry", On::All, NotNeeded, &[], Ret::Void, IPI_EVENTS),
    row("call_function_exit", On::All, NotNeeded, &[], Ret::Void, IPI_EVENTS),
    row("call_function_single_entry", On::All, NotNeeded, &[], Ret::Void, IPI_EVENTS),
    row("call_function_single_exit", On::All, NotNeeded, &[], Ret::Void, IPI_EVENTS),
    row("csd_function_entry", On::All, NotNeeded, &[], Ret::Void, IPI_EVENTS),
    row("csd_function_exit", On::All, NotNeeded, &[], Ret::Void, IPI_EVENTS),
    row("csd_queue_cpu", On::All, NotNeeded, &[], Ret::Void, IPI_EVENTS),
    row("page_fault_kernel", On::All, NotNeeded, &[], Ret::Void, TRACE),
    row("page_fault_user", On::All, NotNeeded, &[], Ret::Void, TRACE),
    row("tracing_mark_write", On::All, Marker, &[], Ret::Void, TRACE),
    row("print", On::All, NotNeeded, &[], Ret::Void, TRACE),
    row("sched_switch", On::All, NotNeeded, &[], Ret::Void, TRACE),
    row("sched_waking", On::All, NotNeeded, &[], Ret::Void, TRACE),
    row("sched_wakeup", On::All, NotNeeded, &[], Ret::Void, TRACE),
    row("sched_migrate_task", On::All, NotNeeded, &[], Ret::Void, TRACE),
];
