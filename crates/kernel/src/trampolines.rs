//! BPF trampolines: what a function's site calls when programs are attached to it.
//!
//! Modelled: programs of the fentry kind attached to a site, a new image for each change of the
//! set (a page of its own, or room in a pack, by version), its permissions and whether results are
//! looked at, the change of the site (ftrace's direct call, or `bpf_arch_text_poke`), and the
//! grace periods after which an old image is freed by a work item. From: Linux 6.1, 6.6 and 6.12
//! kernel/bpf/trampoline.c, 6.1, 6.12 and 6.18.2 arch/*/net/bpf_jit_comp*.c. Not modelled: fexit
//! and fmod_ret (their images jump over what is gone and are counted), extension programs, the
//! image's code (no-operations, on x86 the calls of its programs, and the way back).

use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, FRAME_BYTES, VirtAddr};

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::{E2BIG, EBUSY, EINVAL, ENOMEM, ENOTSUPP};
use crate::error::Stop;
use crate::insns::{branch, ftrace_caller};
use crate::kernel::Kernel;
use crate::phases::{Step, step};

/// Most programs at one function (`BPF_MAX_TRAMP_LINKS`).
const MAX_LINKS: usize = 38;
/// Ops of the direct calls of trampolines: far from those that scenarios name.
const OPS: u64 = 1 << 48;

/// A function with programs attached.
#[derive(Clone, Default, Debug)]
struct Trampoline {
    progs: Vec<u64>,
    /// The image in use, 0 = none, and its bytes.
    image: u64,
    size: u64,
    /// The site is one of ftrace's.
    ftrace: bool,
}

/// Every trampoline, by its site.
#[derive(Clone, Default, Debug)]
pub(crate) struct Trampolines {
    by_site: BTreeMap<u64, Trampoline>,
    /// Images that wait for grace periods, with their bytes.
    put: Vec<(u64, u64)>,
}

/// `bpf_trampoline_link_prog(link, tr)`, given by the site and the program's entry.
pub(crate) fn link_prog(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (site, prog) = (args.get(0), args.get(1));
    k.lock(cpu, "bpf_trampoline.mutex")?;
    let progs = k.users.trampolines.by_site.entry(site).or_default().progs.clone();
    let refused = if progs.contains(&prog) {
        -EBUSY
    } else if progs.len() >= MAX_LINKS {
        -E2BIG
    } else {
        0
    };
    if refused != 0 {
        k.unlock(cpu, "bpf_trampoline.mutex")?;
        return Ok(refused);
    }
    let steps = k.update_trampoline(cpu, site, [&progs[..], &[prog]].concat())?;
    k.with_steps(steps)
}

/// `bpf_trampoline_unlink_prog(link, tr)`.
pub(crate) fn unlink_prog(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (site, prog) = (args.get(0), args.get(1));
    k.lock(cpu, "bpf_trampoline.mutex")?;
    let known = k.users.trampolines.by_site.get(&site).map(|t| t.progs.clone());
    let Some(progs) = known.filter(|p| p.contains(&prog)) else {
        k.unlock(cpu, "bpf_trampoline.mutex")?;
        return Ok(-EINVAL);
    };
    let left = progs.into_iter().filter(|p| *p != prog).collect();
    let steps = k.update_trampoline(cpu, site, left)?;
    k.with_steps(steps)
}

/// `__bpf_tramp_image_put_deferred()`: what runs after the grace periods that `bpf_tramp_image_put`
/// asked for: the images go.
pub(crate) fn put_deferred(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    let images = std::mem::take(&mut k.users.trampolines.put);
    if images.is_empty() {
        return Ok(0);
    }
    k.inner(cpu, "synchronize_rcu_tasks_trace", &Args::default())?;
    k.inner(cpu, "synchronize_rcu_tasks", &Args::default())?;
    for (image, size) in images {
        k.free_image(cpu, image, size)?;
    }
    Ok(0)
}

impl Kernel {
    /// `bpf_trampoline_update`: the steps to a new set of programs.
    fn update_trampoline(
        &mut self,
        cpu: CpuId,
        site: u64,
        progs: Vec<u64>,
    ) -> Result<Vec<Step>, Stop> {
        let at = VirtAddr(site);
        let now = self.users.trampolines.by_site.get(&site).cloned().unwrap_or_default();
        let mut next = Trampoline { progs, ftrace: self.users.ftrace.is_site(at), ..now.clone() };
        (next.image, next.size) = (0, 0);
        if !next.progs.is_empty() {
            match self.build_image(cpu, at, &next.progs)? {
                Ok((image, size)) => (next.image, next.size) = (image, size),
                Err(error) => {
                    return Ok(vec![step(move |k, cpu| {
                        k.unlock(cpu, "bpf_trampoline.mutex")?;
                        k.returns(error);
                        Ok(())
                    })]);
                }
            }
        }
        let (old, new) = (now.image, next.image);
        let mut steps = self.attach_steps(site, old, new, next.ftrace)?;
        steps.push(step(move |k, cpu| {
            let error = k.nested_result(cpu).unwrap_or(0);
            if error < 0 {
                if next.image != 0 {
                    k.free_image(cpu, next.image, next.size)?;
                }
                k.unlock(cpu, "bpf_trampoline.mutex")?;
                k.returns(error);
                return Ok(());
            }
            if old != 0 {
                k.users.trampolines.put.push((old, now.size));
            }
            k.users.trampolines.by_site.insert(site, next.clone());
            k.unlock(cpu, "bpf_trampoline.mutex")?;
            k.returns(0);
            Ok(())
        }));
        Ok(steps)
    }

    /// What changes the site from one image to another (0 = none).
    fn attach_steps(
        &mut self,
        site: u64,
        old: u64,
        new: u64,
        ftrace: bool,
    ) -> Result<Vec<Step>, Stop> {
        let call = |name: &'static str, args: Args| {
            vec![step(move |k: &mut Kernel, cpu| k.step_call(cpu, name, &args))]
        };
        if !ftrace {
            return Ok(call("bpf_arch_text_poke", Args::of(&[site, 1, old, new])));
        }
        let ops = OPS | (site >> 2 & 0xffff_ffff);
        match (old, new) {
            (0, _) => Ok(call("register_ftrace_direct", Args::of(&[ops, site, new]))),
            (_, 0) => Ok(call("unregister_ftrace_direct", Args::of(&[ops]))),
            _ => Ok(call("modify_ftrace_direct", Args::of(&[ops, new]))),
        }
    }

    /// `bpf_tramp_image_alloc`, `arch_prepare_bpf_trampoline`, protection: the image, or an error.
    fn build_image(
        &mut self,
        cpu: CpuId,
        site: VirtAddr,
        progs: &[u64],
    ) -> Result<Result<(u64, u64), i64>, Stop> {
        let how = self.caps.word(Fact::TrampolineImage);
        if how == "none" {
            return Ok(Err(-ENOTSUPP));
        }
        let return_bytes = ftrace_caller(self.arch).len() as u64;
        let size = (32 + 8 * progs.len() as u64 + return_bytes).next_multiple_of(8);
        if self.allocation_fails() {
            return Ok(Err(-ENOMEM));
        }
        let image = if how == "pack" {
            let got = self.inner(cpu, "bpf_prog_pack_alloc", &Args::of(&[size]))?;
            self.used(cpu, got) as u64
        } else {
            let page = if self.pages_by_vmalloc() {
                let got = self.inner(cpu, "vmalloc", &Args::of(&[FRAME_BYTES]))?;
                self.used(cpu, got) as u64
            } else {
                self.bpf_jit_alloc_exec(cpu, FRAME_BYTES)?
            };
            if page != 0 {
                self.inner(cpu, "set_vm_flush_reset_perms", &Args::of(&[page]))?;
            }
            page
        };
        if image == 0 {
            return Ok(Err(-ENOMEM));
        }
        self.region(cpu, VirtAddr(image), size, "bpf", "trampoline");
        let code = self.image_code(VirtAddr(image), progs, size)?;
        if how == "pack" {
            let done = self.inner(cpu, "bpf_arch_text_copy", &Args::with_code(&[image], &code))?;
            let value = self.used(cpu, done);
            if crate::errno::is_err_pointer(value) {
                self.free_image(cpu, image, size)?;
                return Ok(Err(value));
            }
            if self.arch == Arch::Arm64 {
                let range = Args::of(&[image, image + size]);
                self.inner(cpu, "flush_icache_range", &range)?;
            }
            return Ok(Ok((image, size)));
        }
        self.fill_traps(cpu, VirtAddr(image), FRAME_BYTES)?;
        self.store_plain(cpu, VirtAddr(image), &code)?;
        if self.arch == Arch::Arm64 {
            self.inner(cpu, "flush_icache_range", &Args::of(&[image, image + size]))?;
        }
        let calls: &[&str] = if self.there("set_memory_rox") {
            &["set_memory_rox"]
        } else {
            &["set_memory_ro", "set_memory_x"]
        };
        for call in calls {
            let done = self.inner(cpu, call, &Args::of(&[image, 1]))?;
            self.dropped(cpu, done);
        }
        let _ = site;
        Ok(Ok((image, size)))
    }

    /// The image: on x86 a call of each program, elsewhere no-operations in their place; the way
    /// back to the function.
    fn image_code(&self, image: VirtAddr, progs: &[u64], size: u64) -> Result<Vec<u8>, Stop> {
        let mut code = Vec::new();
        for prog in progs.iter().filter(|_| self.arch == Arch::X86_64) {
            let at = image.offset(code.len() as u64);
            code.extend(branch(self.arch, at, Some(VirtAddr(*prog)), true)?);
        }
        let tail = ftrace_caller(self.arch);
        let nop = if self.arch == Arch::X86_64 { vec![0x90] } else { crate::insns::nop(self.arch) };
        while code.len() + tail.len() + nop.len() <= size as usize {
            code.extend(&nop);
        }
        code.extend(tail);
        Ok(code)
    }

    /// arm64's own `bpf_jit_alloc_exec()` before execmem (6.1 arch/arm64/net/bpf_jit_comp.c).
    fn pages_by_vmalloc(&self) -> bool {
        self.arch == Arch::Arm64 && !self.caps.yes(Fact::Execmem)
    }

    /// `arch_free_bpf_trampoline`.
    fn free_image(&mut self, cpu: CpuId, image: u64, size: u64) -> Result<(), Stop> {
        if self.caps.word(Fact::TrampolineImage) == "pack" {
            self.inner(cpu, "bpf_prog_pack_free", &Args::of(&[image, size]))?;
            return Ok(());
        }
        if self.pages_by_vmalloc() {
            self.inner(cpu, "vfree", &Args::of(&[image]))?;
            return Ok(());
        }
        self.text_memory_free(cpu, image)
    }
}
