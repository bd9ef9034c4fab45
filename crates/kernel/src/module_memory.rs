//! Memory for code: module_alloc, its huge variant that was posted in 2022, and execmem.
//!
//! Modelled: range, protection and flags by architecture and version. From: Linux 5.19 and 6.8
//! arch/*/kernel/module.c, 6.12 mm/execmem.c and arch/*/mm/init*.c, and the posted series. Not
//! modelled: randomised load offsets, arm64's second try in its PLT window. x86's cache of
//! executable memory is in `rox_cache`.

use textbed_arch::{Arch, CpuId, Perm, VirtAddr};

use crate::area::vm_flags;
use crate::call::Args;
use crate::call_table::EXECMEM_TYPES;
use crate::caps::Fact;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::layout::Range;
use crate::steps::{Made, Step, Then, call_step, calls_then, once};
use crate::vmalloc::Request;

/// `module_alloc(size)`.
pub(crate) fn module_alloc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let mut flags = 0;
    if k.caps.yes(Fact::ModuleAllocResets) {
        flags |= vm_flags::VM_FLUSH_RESET_PERMS;
    }
    if k.caps.yes(Fact::ModuleAllocNoHuge) {
        flags |= vm_flags::VM_NO_HUGE_VMAP;
    }
    let (range, perm) = (k.layout.module_window, k.module_perm());
    module_range(k, args.get(0), range, perm, flags)
}

/// `module_alloc_huge(size)` as posted: x86 had its own, everybody else the weak default.
pub(crate) fn module_alloc_huge(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let huge = vm_flags::VM_ALLOW_HUGE_VMAP;
    if k.arch == Arch::X86_64 {
        let range = k.layout.module_window;
        module_range(k, args.get(0), range, Perm::KERNEL_RW, huge)
    } else {
        let flags = huge | vm_flags::VM_FLUSH_RESET_PERMS;
        let range = k.layout.vmalloc;
        module_range(k, args.get(0), range, Perm::KERNEL_RWX, flags)
    }
}

/// `execmem_alloc(type, size)`.
pub(crate) fn execmem_alloc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let names: Vec<&str> = EXECMEM_TYPES
        .iter()
        .filter(|(_, bit)| args.get(0) & bit != 0)
        .map(|(name, _)| *name)
        .collect();
    let [kind] = names.as_slice() else {
        return Err(Stop::not_modelled("execmem_alloc of not exactly one type"));
    };
    k.execmem_alloc(kind, args.get(1))
}

/// `execmem_free(addr)`, `module_memfree(addr)`: vfree.
pub(crate) fn free(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    match k.rox_free_steps(args.get(0)) {
        Some(steps) => k.with_steps(steps),
        None => k.vfree(cpu, args.addr(0)),
    }
}

fn module_range(
    k: &mut Kernel,
    size: u64,
    range: Range,
    perm: Perm,
    flags: u64,
) -> Result<i64, Stop> {
    let made = move |k: &mut Kernel, cpu, start| {
        if start != 0 {
            k.region(cpu, VirtAddr(start), size, "module memory", "");
        }
        k.returns(start as i64);
        Ok(())
    };
    let request = Request { size, align: 1, range, perm, flags };
    k.with_steps(vec![request.steps(Box::new(made))])
}

/// A step that gives memory for code its permissions by `calls`; where a checked one fails it is
/// freed. `then` gets its address, or 0.
pub(crate) fn protect_step(at: u64, calls: Vec<Made>, then: Then<u64>) -> Step {
    calls_then(
        calls,
        Box::new(move |k, cpu, error| {
            if error == 0 {
                return then(k, cpu, at);
            }
            let (name, args) = k.text_memory_free(at);
            k.later([call_step(name, args), once(move |k, cpu| then(k, cpu, 0))]);
            Ok(())
        }),
    )
}

impl Kernel {
    /// Protection of fresh module memory: powerpc makes it executable at once without
    /// STRICT_MODULE_RWX.
    fn module_perm(&self) -> Perm {
        let strict = self.config.on("STRICT_MODULE_RWX")
            && self.config.on("STRICT_KERNEL_RWX")
            && self.config.rodata_enabled();
        if self.arch.is_powerpc() && !strict { Perm::KERNEL_RWX } else { Perm::KERNEL_RW }
    }

    /// `execmem_alloc` of a type by its name.
    pub(crate) fn execmem_alloc(&mut self, kind: &str, size: u64) -> Result<i64, Stop> {
        if self.uses_rox_cache(kind) {
            return self.rox_alloc(size);
        }
        let (modules, vmalloc) = (self.layout.module_window, self.layout.vmalloc);
        let text = self.module_perm();
        let (range, perm) = match (self.arch, kind) {
            (Arch::X86_64, "EXECMEM_KPROBES") if self.caps.yes(Fact::ExecmemKprobes) => {
                (modules, Perm::KERNEL_ROX)
            }
            (Arch::X86_64, _) => (modules, Perm::KERNEL_RW),
            (Arch::Arm64, "EXECMEM_KPROBES") => (vmalloc, Perm::KERNEL_ROX),
            (Arch::Arm64, "EXECMEM_BPF") => (vmalloc, Perm::KERNEL_RW),
            (Arch::Arm64, _) => (modules, Perm::KERNEL_RW),
            (_, "EXECMEM_KPROBES") if text == Perm::KERNEL_RW => (vmalloc, Perm::KERNEL_ROX),
            (_, "EXECMEM_KPROBES") => (vmalloc, text),
            (_, "EXECMEM_MODULE_DATA") => (vmalloc, Perm::KERNEL_RW),
            // The vmalloc area on 64-bit.
            _ => (modules, text),
        };
        let flags = vm_flags::VM_FLUSH_RESET_PERMS;
        module_range(self, size, range, perm, flags)
    }

    /// The call that gives memory for BPF programs: module_alloc, or execmem where that has
    /// replaced it.
    pub(crate) fn bpf_jit_alloc_exec(&self, size: u64) -> (&'static str, Args) {
        if self.caps.yes(Fact::Execmem) {
            let bpf =
                EXECMEM_TYPES.iter().find(|(n, _)| *n == "EXECMEM_BPF").map_or(0, |(_, b)| *b);
            ("execmem_alloc", Args::of(&[bpf, size]))
        } else {
            ("module_alloc", Args::of(&[size]))
        }
    }

    /// The call that frees memory for code.
    pub(crate) fn text_memory_free(&self, addr: u64) -> (&'static str, Args) {
        let name = if self.caps.yes(Fact::Execmem) { "execmem_free" } else { "module_memfree" };
        (name, Args::of(&[addr]))
    }
}
