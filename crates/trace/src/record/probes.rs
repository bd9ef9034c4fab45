//! What is recorded of each function: the arguments, by name and place.
//!
//! A field is `NAME=PLACE:TYPE`; `$N` is the N-th argument (from 1), `+8($1)` the memory 8 bytes
//! behind where it points. Types are those of kprobe events. Sources: the functions' parameters in
//! Linux 6.1 and 6.12, as the recordings in `tests/logs` use them; for `smp_text_poke_*` Linux
//! 7.0, arch/x86/kernel/alternative.c. The offset of a module's name (24) holds on 64-bit kernels:
//! a state of 4 bytes, padding and a list head of 16 bytes stand before it
//! (include/linux/module.h).

/// A function to be probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Its name.
    pub function: &'static str,
    /// The fields recorded at its entry.
    pub fields: &'static str,
    /// Whether its return is recorded too.
    pub returns: bool,
}

/// A tracepoint to be enabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracepoint {
    /// Its folder below `events/`.
    pub system: &'static str,
    /// Its name.
    pub event: &'static str,
    /// The function while which it is recorded, where all of its hits would be too many.
    pub within: Option<&'static str>,
}

const fn entry(function: &'static str, fields: &'static str) -> Probe {
    Probe { function, fields, returns: false }
}

const fn both(function: &'static str, fields: &'static str) -> Probe {
    Probe { function, fields, returns: true }
}

const fn tracepoint(system: &'static str, event: &'static str) -> Tracepoint {
    Tracepoint { system, event, within: None }
}

/// Recorded from the entry of a probed function to its return.
const fn within(function: &'static str, system: &'static str, event: &'static str) -> Tracepoint {
    Tracepoint { system, event, within: Some(function) }
}

/// Every probe, in the order of arming: what makes and changes mappings first.
#[rustfmt::skip]
pub static PROBES: &[Probe] = &[
    both("execmem_alloc", "type=$1:s32 size=$2:x64"),
    entry("execmem_free", "addr=$1:x64"),
    both("__vmalloc_node_range_noprof", "size=$1:x64 align=$2:x64 start=$3:x64 end=$4:x64 gfp=$5:x32 prot=$6:x64 vmflags=$7:x64 node=$8:s32"),
    both("vfree", "addr=$1:x64"),
    entry("vfree_atomic", "addr=$1:x64"),
    entry("vunmap", "addr=$1:x64"),
    both("vmap", "pages=$1:x64 count=$2:u32 flags=$3:x64 prot=$4:x64"),
    entry("remove_vm_area", "addr=$1:x64"),
    entry("vm_unmap_aliases", ""),
    entry("_vm_unmap_aliases", "start=$1:x64 end=$2:x64 flush=$3:s32"),
    entry("__purge_vmap_area_lazy", "start=$1:x64 end=$2:x64"),
    entry("free_vmap_area_noflush", "va=$1:x64"),
    entry("vunmap_range_noflush", "start=$1:x64 end=$2:x64"),
    entry("__vunmap_range_noflush", "start=$1:x64 end=$2:x64"),
    entry("vmap_pages_range_noflush", "start=$1:x64 end=$2:x64 prot=$3:x64"),
    entry("__vmap_pages_range_noflush", "start=$1:x64 end=$2:x64 prot=$3:x64"),
    both("set_memory_ro", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_rw", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_x", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_nx", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_rox", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_np", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_np_noalias", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_p", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_4k", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_nonglobal", "addr=$1:x64 numpages=$2:s32"),
    both("set_memory_global", "addr=$1:x64 numpages=$2:s32"),
    both("set_direct_map_invalid_noflush", "page=$1:x64"),
    both("set_direct_map_default_noflush", "page=$1:x64"),
    both("change_page_attr_set_clr", "addr=+0($1):x64 numpages=$2:s32 set=$3:x64 clr=$4:x64 force_split=$5:s32 in_flag=$6:s32"),
    entry("__change_page_attr_set_clr", "cpa=$1:x64 primary=$2:s32 vaddr=+0(+0($1)):x64 numpages=+24($1):u64"),
    entry("cpa_flush", "cpa=$1:x64 cache=$2:s32"),
    entry("flush_tlb_kernel_range", "start=$1:x64 end=$2:x64"),
    entry("do_kernel_range_flush", "start=+8($1):x64 end=+16($1):x64"),
    entry("do_flush_tlb_all", ""),
    entry("flush_tlb_all", ""),
    entry("__flush_tlb_all", ""),
    entry("flush_tlb_one_kernel", "addr=$1:x64"),
    entry("text_poke", "addr=$1:x64 len=$3:u64 op=+0($2):x8[8]"),
    entry("__text_poke", "func=$1:symbol addr=$2:x64 src=$3:x64 len=$4:u64"),
    entry("text_poke_kgdb", "addr=$1:x64 len=$3:u64"),
    entry("text_poke_copy", "addr=$1:x64 opcode=$2:x64 len=$3:u64"),
    entry("text_poke_copy_locked", "addr=$1:x64 opcode=$2:x64 len=$3:u64 core_ok=$4:u8"),
    entry("text_poke_set", "addr=$1:x64 c=$2:x32 len=$3:u64"),
    entry("text_poke_bp", "addr=$1:x64 len=$3:u64 op=+0($2):x8[8]"),
    both("text_poke_bp_batch", "tp=$1:x64 n=$2:u32"),
    entry("text_poke_queue", "addr=$1:x64 len=$3:u64 op=+0($2):x8[8]"),
    entry("text_poke_finish", ""),
    entry("text_poke_loc_init", "tp=$1:x64 addr=$2:x64 opcode=$3:x64 len=$4:u64"),
    entry("text_poke_sync", ""),
    entry("text_poke_early", "addr=$1:x64 len=$3:u64"),
    entry("do_sync_core", ""),
    entry("on_each_cpu_cond_mask", "cond=$1:symbol func=$2:symbol info=$3:x64 wait=$4:u8"),
    entry("smp_call_function_many_cond", "func=$2:symbol info=$3:x64"),
    entry("bpf_int_jit_compile", "prog=$1:x64"),
    both("bpf_prog_select_runtime", "prog=$1:x64"),
    both("bpf_prog_pack_alloc", "size=$1:u32"),
    entry("bpf_prog_pack_free", "hdr=$1:x64 size=$2:u32"),
    both("bpf_jit_binary_pack_alloc", "proglen=$1:u32 image_ptr=$2:x64 align=$3:u32"),
    both("bpf_jit_binary_pack_finalize", "a1=$1:x64 a2=$2:x64 a3=$3:x64"),
    entry("bpf_jit_binary_pack_free", "ro=$1:x64 rw=$2:x64"),
    both("bpf_jit_binary_alloc", "proglen=$1:u32 align=$3:u32"),
    entry("bpf_jit_binary_free", "hdr=$1:x64"),
    both("bpf_jit_alloc_exec", "size=$1:x64"),
    entry("bpf_jit_free_exec", "addr=$1:x64"),
    entry("bpf_jit_free", "prog=$1:x64"),
    entry("bpf_prog_free", "prog=$1:x64"),
    entry("bpf_prog_free_deferred", "work=$1:x64"),
    entry("__bpf_prog_free", "prog=$1:x64"),
    both("bpf_arch_text_copy", "dst=$1:x64 src=$2:x64 len=$3:u64"),
    entry("bpf_arch_text_invalidate", "dst=$1:x64 len=$2:u64"),
    both("bpf_arch_text_poke", "ip=$1:x64 t=$2:u32 old=$3:x64 new=$4:x64"),
    entry("__bpf_arch_text_poke", "ip=$1:x64 t=$2:u32 old=$3:x64 new=$4:x64"),
    entry("arch_prepare_bpf_trampoline", "im=$1:x64 image=$2:x64 image_end=$3:x64"),
    both("arch_alloc_bpf_trampoline", "size=$1:u32"),
    entry("arch_free_bpf_trampoline", "image=$1:x64 size=$2:u32"),
    entry("arch_protect_bpf_trampoline", "image=$1:x64 size=$2:u32"),
    entry("bpf_image_ksym_add", "a1=$1:x64 a2=$2:x64 a3=$3:x64"),
    entry("bpf_dispatcher_change_prog", "d=$1:x64 from=$2:x64 to=$3:x64"),
    entry("module_enable_rodata_ro", "mod=$1:x64 after_init=$2:u8 name=+24($1):string"),
    entry("module_enable_text_rox", "mod=$1:x64 name=+24($1):string"),
    entry("module_enable_data_nx", "mod=$1:x64 name=+24($1):string"),
    entry("do_init_module", "mod=$1:x64 name=+24($1):string"),
    entry("free_module", "mod=$1:x64 name=+24($1):string"),
    entry("module_finalize", "hdr=$1:x64 sechdrs=$2:x64 mod=$3:x64 name=+24($3):string"),
    entry("apply_relocate_add", "sechdrs=$1:x64 relsec=$4:u32 mod=$5:x64 name=+24($5):string"),
    entry("do_free_init", "work=$1:x64"),
    entry("__jump_label_update", "key=$1:x64"),
    entry("arch_jump_label_transform", "entry=$1:x64 type=$2:u32"),
    entry("arch_jump_label_transform_queue", "entry=$1:x64 type=$2:u32"),
    entry("arch_jump_label_transform_apply", ""),
    entry("__static_call_update", "key=$1:x64 tramp=$2:symbol func=$3:symbol"),
    entry("arch_static_call_transform", "site=$1:x64 tramp=$2:symbol func=$3:symbol tail=$4:u8"),
    both("alloc_insn_page", ""),
    entry("free_insn_page", "addr=$1:x64"),
    both("__get_insn_slot", ""),
    entry("__free_insn_slot", "c=$1:x64 slot=$2:x64"),
    entry("arch_prepare_optimized_kprobe", "op=$1:x64"),
    entry("arch_optimize_kprobes", "list=$1:x64"),
    entry("arch_unoptimize_kprobe", "op=$1:x64"),
    entry("arch_unoptimize_kprobes", "list=$1:x64"),
    both("arch_arm_kprobe", "p=$1:x64"),
    both("arch_disarm_kprobe", "p=$1:x64"),
    entry("arch_remove_kprobe", "p=$1:x64"),
    entry("stop_machine", "fn=$1:symbol data=$2:x64"),
    entry("stop_machine_cpuslocked", "fn=$1:symbol data=$2:x64"),
    entry("kick_all_cpus_sync", ""),
    entry("do_nothing", ""),
    entry("set_pages_rw", "page=$1:x64 n=$2:s32"),
    entry("set_pages_ro", "page=$1:x64 n=$2:s32"),
    entry("mark_rodata_ro", ""),
    entry("free_initmem", ""),
    entry("free_init_pages", "what=+0($1):string begin=$2:x64 end=$3:x64"),
    entry("free_kernel_image_pages", "what=+0($1):string begin=$2:x64 end=$3:x64"),
    both("module_alloc", "size=$1:x64"),
    both("module_memfree", "addr=$1:x64"),
    both("__vmalloc_node_range", "size=$1:x64 align=$2:x64 start=$3:x64 end=$4:x64 gfp=$5:x32 prot=$6:x64 vmflags=$7:x64 node=$8:s32"),
    entry("module_enable_ro", "mod=$1:x64 after_init=$2:u8 name=+24($1):string"),
    entry("module_enable_x", "mod=$1:x64 name=+24($1):string"),
    entry("module_enable_nx", "mod=$1:x64 name=+24($1):string"),
    both("set_memory_valid", "addr=$1:x64 numpages=$2:s32 enable=$3:s32"),
    entry("change_memory_common", "addr=$1:x64 numpages=$2:s32 set=$3:x64 clr=$4:x64"),
    entry("__change_memory_common", "start=$1:x64 size=$2:x64 set=$3:x64 clr=$4:x64"),
    entry("update_mapping_prot", "phys=$1:x64 virt=$2:x64 size=$3:x64 prot=$4:x64"),
    entry("sync_icache_aliases", "start=$1:x64 end=$2:x64"),
    both("change_memory_attr", "addr=$1:x64 numpages=$2:s32 action=$3:x64"),
    entry("change_page_attr", "ptep=$1:x64 addr=$2:x64 data=$3:x64"),
    entry("flush_icache_range", "start=$1:x64 end=$2:x64"),
    entry("radix__change_memory_range", "start=$1:x64 end=$2:x64 clear=$3:x64"),
    entry("radix__flush_tlb_kernel_range", "start=$1:x64 end=$2:x64"),
    entry("hash__change_memory_range", "start=$1:x64 end=$2:x64 newpp=$3:x64"),
    entry("__flush_hash_table_range", "start=$1:x64 end=$2:x64"),
    entry("smp_text_poke_single", "addr=$1:x64 len=$3:u64 op=+0($2):x8[8]"),
    entry("smp_text_poke_batch_add", "addr=$1:x64 len=$3:u64 op=+0($2):x8[8]"),
    both("smp_text_poke_batch_finish", ""),
    entry("smp_text_poke_sync_each_cpu", ""),
];

/// Every tracepoint.
pub static TRACEPOINTS: &[Tracepoint] = &[
    tracepoint("vmalloc", "alloc_vmap_area"),
    tracepoint("vmalloc", "purge_vmap_area_lazy"),
    tracepoint("ipi", "ipi_send_cpu"),
    tracepoint("ipi", "ipi_send_cpumask"),
    tracepoint("ipi", "ipi_raise"),
    tracepoint("module", "module_load"),
    tracepoint("module", "module_free"),
    within("vfree", "kmem", "mm_page_free"),
];

impl Tracepoint {
    /// What a log without it cannot tell.
    #[must_use]
    pub fn purpose(&self) -> super::Purpose {
        crate::functions::by_name(self.event.as_bytes())
            .map_or(super::Purpose::Context, |f| super::Purpose::of(f.meaning))
    }
}

/// A field of a probe, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name in the log.
    pub name: &'a str,
    /// Where it is: `$1`, `+8($1)`, `+0(+0($1))`.
    pub place: &'a str,
    /// Its type: `x64`, `s32`, `symbol`, `string`, `x8[8]`.
    pub kind: &'a str,
}

impl Probe {
    /// Its fields. Each entry of the table has the form that this takes apart; a test sees to it.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.fields.split(' ').filter_map(|field| {
            let (name, rest) = field.split_once('=')?;
            let (place, kind) = rest.rsplit_once(':')?;
            Some(Field { name, place, kind })
        })
    }
}
