//! Cross-calls, and which calls send one.
//!
//! Modelled: an interrupt to every other CPU that is waited for; a sender with interrupts off warns
//! (as with CONFIG_PROVE_LOCKING) and sends all the same; a receiver with interrupts off is waited
//! for. From: Linux 5.18 to 7.0 kernel/smp.c smp_call_function_many_cond(), which asserts with
//! lockdep since 5.13. Not modelled: callbacks that nobody waits for; a wait in the middle of a
//! call that is not made of steps: such a call begins when all others take interrupts, as if it had
//! come later, so what others do while it waits is not seen from inside. Who can never begin is
//! begun all the same ([`Kernel::begin_anyway`]), which shows whether it has to wait.

use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::WarnReason;
use textbed_machine::{CpuMask, Machine, MachineError};

use crate::calls::CallSpec;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::phases::Wait;

/// What runs on each CPU of a cross-call.
pub(crate) type OnCpu<'a> = &'a mut dyn FnMut(&mut Machine, CpuId) -> Result<(), MachineError>;

/// For what a call interrupts others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// To invalidate translations, where the hardware does not broadcast that.
    Flush,
    /// To have code run there.
    Itself,
    /// To invalidate translations of what was freed before, or of a table that this left empty:
    /// not before anything was unmapped.
    Unmapped,
}

const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];

/// Names of calls.
type Names = &'static [&'static str];

/// Changes of permissions by address.
pub(crate) const SET_MEMORY: Names = &[
    "set_memory_ro",
    "set_memory_rw",
    "set_memory_x",
    "set_memory_nx",
    "set_memory_rox",
    "set_memory_np",
    "set_memory_np_noalias",
    "set_memory_p",
    "set_memory_global",
    "set_memory_nonglobal",
    "set_memory_4k",
];

/// What allocates kernel addresses, and looks once more after a purge where there are none.
pub(crate) const ALLOCATES: Names = &[
    "vmalloc",
    "vmalloc_huge",
    "vmalloc_no_huge",
    "vmalloc_exec",
    "__vmalloc_node_range",
    "vmap",
    "module_alloc",
    "module_alloc_huge",
    "execmem_alloc",
    "execmem_alloc_rw",
];

/// arm64's patchers that interrupt or stop others.
const ARM64_PATCHES: Names =
    &["aarch64_insn_copy", "aarch64_insn_set", "aarch64_insn_patch_text", "apply_alternatives_all"];

/// powerpc's patchers through an alias.
const POWER_PATCHES: Names =
    &["patch_instruction", "patch_instructions", "patch_branch", "patch_uint", "patch_ulong"];

/// What writes the text of BPF programs.
pub(crate) const BPF_TEXT: Names = &["bpf_arch_text_copy", "bpf_arch_text_invalidate"];

/// Calls on packs that write their text.
const PACKS_WRITTEN: Names = &[
    "bpf_prog_pack_free",
    "bpf_jit_binary_pack_alloc",
    "bpf_jit_binary_pack_finalize",
    "bpf_jit_binary_pack_free",
];

/// Calls that change where BPF programs attach.
const LINKS: Names = &["bpf_trampoline_link_prog", "bpf_trampoline_unlink_prog"];

/// Calls that write or free what such a change left behind.
const IMAGES: Names = &["__bpf_tramp_image_put_deferred", "bpf_dispatcher_change_prog"];

/// Calls that interrupt others on some of their ways, in one piece or before their first step; what
/// a step waits for stands there. What sends and is not here fails where it is begun, in debug
/// builds.
const SENDERS: &[(By, &[Arch], &[Names])] = &[
    (By::Itself, ALL, &[&["kick_all_cpus_sync", "stop_machine", "stop_machine_cpuslocked"]]),
    (By::Itself, X86, &[&["text_poke_sync", "smp_text_poke_sync_each_cpu"]]),
    (
        By::Itself,
        ARM64,
        &[
            &[
                "flush_icache_range",
                "static_key_enable",
                "static_key_disable",
                "static_key_enable_cpuslocked",
                "static_key_disable_cpuslocked",
                "load_module",
            ],
            ARM64_PATCHES,
            BPF_TEXT,
            PACKS_WRITTEN,
            LINKS,
            IMAGES,
        ],
    ),
    (By::Itself, POWER, &[&["bpf_arch_text_poke"], LINKS]),
    (
        By::Flush,
        ALL,
        &[
            &[
                "flush_tlb_kernel_range",
                "set_direct_map_valid_noflush",
                "set_direct_map_invalid_noflush",
                "set_direct_map_default_noflush",
                "vfree",
                "vunmap",
                "vm_unmap_aliases",
                "vmalloc_exec_v1",
                "vfree_exec",
                "module_memfree",
                "execmem_alloc",
                "execmem_alloc_rw",
                "execmem_restore_rox",
                "execmem_free",
                "load_module",
                "do_init_module",
                "do_free_init",
                "free_module",
                "register_kprobe",
                "register_kretprobe",
                "bpf_prog_pack_alloc",
                "register_ftrace_function",
            ],
            SET_MEMORY,
            PACKS_WRITTEN,
            LINKS,
            IMAGES,
        ],
    ),
    (By::Unmapped, ALL, &[ALLOCATES]),
    (By::Flush, POWER, &[POWER_PATCHES, BPF_TEXT]),
];

/// Calls made of steps that each wait for the CPUs that they interrupt: they begin at once.
/// (`execmem_free` and its kind are not here: what they do for x86's cache of text is in one
/// piece.)
const STEPWISE: &[(&[Arch], &[Names])] = &[
    (ALL, &[SET_MEMORY, &["vfree", "vunmap", "vm_unmap_aliases", "stop_machine"]]),
    (ARM64, &[ARM64_PATCHES, BPF_TEXT]),
    (POWER, &[POWER_PATCHES, BPF_TEXT]),
];

impl Kernel {
    /// Whether a flush of kernel translations interrupts other CPUs.
    pub(crate) fn flushes_by_interrupt(&self) -> bool {
        match self.arch {
            Arch::X86_64 => !self.uses_invlpgb(),
            Arch::Arm64 => false,
            _ => !self.features.contains(textbed_arch::Features::PPC_TLBIE),
        }
    }

    /// Whether a call may interrupt other CPUs, in one piece or before its first step.
    pub(crate) fn may_interrupt(&self, call: &str) -> bool {
        SENDERS.iter().any(|(by, archs, groups)| {
            archs.contains(&self.arch)
                && groups.iter().any(|calls| calls.contains(&call))
                && match by {
                    By::Itself => true,
                    By::Flush => self.flushes_by_interrupt(),
                    By::Unmapped => self.flushes_by_interrupt() && self.unmapped,
                }
        })
    }

    /// What a call waits for before it begins.
    pub(crate) fn held_back(&self, cpu: CpuId, spec: &CallSpec) -> Option<Wait> {
        let stepwise = STEPWISE.iter().any(|(archs, groups)| {
            archs.contains(&self.arch) && groups.iter().any(|calls| calls.contains(&spec.name))
        });
        let waits = self.may_interrupt(spec.name) && !stepwise;
        if waits { self.receivers_off(cpu) } else { None }
    }

    /// What is to stand where others are interrupted: `Waits` unless all of them take it now.
    pub(crate) fn interrupts_others(&self, cpu: CpuId) -> Result<(), Stop> {
        debug_assert!(
            self.beginning.is_none_or(|call| self.may_interrupt(call)),
            "{:?} interrupts others on {} and is not among those that do",
            self.beginning,
            self.arch
        );
        self.receivers_off(cpu).map_or(Ok(()), |wait| Err(Stop::Waits(wait)))
    }

    /// `on_each_cpu(function, wait)`.
    pub(crate) fn on_each_cpu(
        &mut self,
        cpu: CpuId,
        function: &str,
        handler: OnCpu<'_>,
    ) -> Result<(), Stop> {
        self.on_other_cpus(cpu, function, handler)?;
        Ok(handler(&mut self.machine, cpu)?)
    }

    /// `smp_call_function(function, wait)`.
    pub(crate) fn on_other_cpus(
        &mut self,
        cpu: CpuId,
        function: &str,
        handler: OnCpu<'_>,
    ) -> Result<(), Stop> {
        let targets = self.online().collect::<CpuMask>().without(cpu);
        if targets == CpuMask::EMPTY {
            return Ok(());
        }
        if !self.machine.irqs_on(cpu) {
            self.warn_once(cpu, "smp: irqs off", WarnReason::WrongContext, VirtAddr(0));
        }
        self.interrupts_others(cpu)?;
        Ok(self.machine.ipi(cpu, targets, function, true, handler)?)
    }
}

#[cfg(test)]
mod tests {
    use textbed_event::Need;

    use super::*;
    use crate::calls::CALLS;
    use crate::needs::NEEDS;

    #[test]
    fn senders_are_calls() {
        let stepwise = STEPWISE.iter().map(|(archs, groups)| (*archs, *groups));
        let senders = SENDERS.iter().map(|(_, archs, groups)| (*archs, *groups));
        for (archs, groups) in senders.chain(stepwise) {
            for call in groups.iter().copied().flatten() {
                let known =
                    |c: &CallSpec| c.name == *call && c.archs.iter().any(|a| archs.contains(a));
                assert!(CALLS.iter().any(known), "{call}");
            }
        }
    }

    #[test]
    fn who_needs_interrupts_on_is_a_sender() {
        for row in NEEDS.iter().filter(|row| row.need == Need::IrqsOn) {
            for (call, arch) in row.calls.iter().flat_map(|c| row.archs.iter().map(move |a| (c, a)))
            {
                let sends = SENDERS.iter().any(|(_, archs, groups)| {
                    archs.contains(arch) && groups.iter().any(|calls| calls.contains(call))
                });
                assert!(sends, "{call} on {arch}");
            }
        }
    }
}
