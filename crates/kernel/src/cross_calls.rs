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
}

const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64];
const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];

/// Calls in one piece that interrupt others on some of their ways; what a call of steps waits for
/// stands at its steps. A test holds this against what random calls send.
const SENDERS: &[(By, &[Arch], &[&str])] = &[
    (By::Itself, ALL, &["kick_all_cpus_sync", "stop_machine"]),
    (By::Itself, X86, &["text_poke_sync", "smp_text_poke_sync_each_cpu"]),
    (
        By::Itself,
        ARM64,
        &[
            "flush_icache_range",
            "aarch64_insn_copy",
            "aarch64_insn_set",
            "aarch64_insn_patch_text",
            "apply_alternatives_all",
            "static_key_enable",
            "static_key_disable",
            "load_module",
            "bpf_arch_text_copy",
            "bpf_arch_text_invalidate",
            "bpf_prog_pack_free",
            "bpf_jit_binary_pack_finalize",
            "bpf_jit_binary_pack_free",
            "bpf_trampoline_link_prog",
            "bpf_trampoline_unlink_prog",
            "__bpf_tramp_image_put_deferred",
            "bpf_dispatcher_change_prog",
        ],
    ),
    (
        By::Itself,
        POWER,
        &["bpf_arch_text_poke", "bpf_trampoline_link_prog", "bpf_trampoline_unlink_prog"],
    ),
    (
        By::Flush,
        ALL,
        &[
            "flush_tlb_kernel_range",
            "set_memory_ro",
            "set_memory_rw",
            "set_memory_x",
            "set_memory_nx",
            "set_memory_rox",
            "set_memory_np",
            "set_memory_p",
            "set_memory_4k",
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
            "bpf_prog_pack_alloc",
            "bpf_prog_pack_free",
            "bpf_jit_binary_pack_alloc",
            "bpf_jit_binary_pack_finalize",
            "bpf_jit_binary_pack_free",
            "bpf_trampoline_link_prog",
            "bpf_trampoline_unlink_prog",
            "__bpf_tramp_image_put_deferred",
            "bpf_dispatcher_change_prog",
        ],
    ),
    (
        By::Flush,
        POWER,
        &[
            "patch_instruction",
            "patch_instructions",
            "patch_branch",
            "patch_uint",
            "patch_ulong",
            "bpf_arch_text_copy",
            "bpf_arch_text_invalidate",
        ],
    ),
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

    /// Whether a call may interrupt other CPUs, if it is carried out in one piece.
    #[must_use]
    pub fn may_interrupt(&self, spec: &CallSpec) -> bool {
        SENDERS.iter().any(|(by, archs, calls)| {
            calls.contains(&spec.name)
                && archs.contains(&self.arch)
                && (*by == By::Itself || self.flushes_by_interrupt())
        })
    }

    /// What a call in one piece waits for before it begins.
    pub(crate) fn held_back(&self, cpu: CpuId, spec: &CallSpec) -> Option<Wait> {
        if self.may_interrupt(spec) { self.receivers_off(cpu) } else { None }
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
        let targets = CpuMask::first(self.cpus).without(cpu);
        if targets == CpuMask::EMPTY {
            return Ok(());
        }
        if !self.machine.irqs_on(cpu) {
            self.warn_once(cpu, "smp: irqs off", WarnReason::WrongContext, VirtAddr(0));
        }
        match self.receivers_off(cpu) {
            Some(wait) => Err(Stop::Waits(wait)),
            None => Ok(self.machine.ipi(cpu, targets, function, true, handler)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::CALLS;

    #[test]
    fn senders_are_calls() {
        for (_, archs, calls) in SENDERS {
            for call in *calls {
                let known =
                    |c: &CallSpec| c.name == *call && c.archs.iter().any(|a| archs.contains(a));
                assert!(CALLS.iter().any(known), "{call}");
            }
        }
    }
}
