//! The image of a BPF trampoline: what it is made of, how it is made and how it goes.
//!
//! Modelled: on x86 calls of the programs, and for fexit and fmod_ret the call of the function
//! itself, from behind its site, with the no-operation behind that call which `bpf_tramp_image_put`
//! replaces by a jump over the programs that are gone; memory, permissions and whether results are
//! looked at, by version. From: Linux 5.19, 6.1, 6.6, 6.12 and 7.0 arch/x86/net/bpf_jit_comp.c,
//! 6.12 arch/arm64/net/bpf_jit_comp.c, 7.0 arch/powerpc/net/bpf_jit_comp.c, 6.12
//! kernel/bpf/trampoline.c. Not modelled: `__bpf_tramp_enter` and `__bpf_tramp_exit`, saved
//! registers but for the result; elsewhere than on x86 all calls (no-operations stand for them, and
//! the function is gone on with).

use textbed_arch::{Arch, CpuId, VirtAddr};

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::{ENOMEM, ENOTSUPP};
use crate::error::Stop;
use crate::insns::{X86_NOP5, branch, ftrace_caller, nop};
use crate::kernel::Kernel;

/// When a program runs (`enum bpf_tramp_prog_type`).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum When {
    /// Before the function.
    #[default]
    Fentry,
    /// Behind it.
    Fexit,
    /// Before it, and instead of it if the program says so.
    ModifyReturn,
}

/// Programs of a function by when they run, in the order in which they are called.
#[derive(Clone, Default, Debug)]
pub(crate) struct Progs {
    pub(crate) fentry: Vec<u64>,
    pub(crate) modify_return: Vec<u64>,
    pub(crate) fexit: Vec<u64>,
}

impl Progs {
    /// Whether the image calls the function (`BPF_TRAMP_F_CALL_ORIG`).
    fn calls_function(&self) -> bool {
        !self.fexit.is_empty() || !self.modify_return.is_empty()
    }

    fn count(&self) -> u64 {
        (self.fentry.len() + self.modify_return.len() + self.fexit.len()) as u64
    }
}

/// What is patched when an image is put, and where that jumps to, if the image calls the function.
pub(crate) type AfterCall = Option<(u64, u64)>;

/// An image.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Image {
    /// Where it is, 0 = there is none.
    pub(crate) at: u64,
    pub(crate) size: u64,
    pub(crate) after_call: AfterCall,
}

/// Code that is being written.
struct Code {
    arch: Arch,
    at: VirtAddr,
    bytes: Vec<u8>,
}

impl Code {
    fn here(&self) -> VirtAddr {
        self.at.offset(self.bytes.len() as u64)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    fn call(&mut self, target: u64) -> Result<(), Stop> {
        let call = branch(self.arch, self.here(), Some(VirtAddr(target)), true)?;
        self.put(&call);
        Ok(())
    }
}

impl Kernel {
    /// `bpf_tramp_image_alloc`, `arch_prepare_bpf_trampoline`, protection: the image, or an error.
    pub(crate) fn build_image(
        &mut self,
        cpu: CpuId,
        site: VirtAddr,
        progs: &Progs,
    ) -> Result<Result<Image, i64>, Stop> {
        let how = self.caps.word(Fact::TrampolineImage);
        if how == "none" {
            return Ok(Err(-ENOTSUPP));
        }
        let return_bytes = ftrace_caller(self.arch).len() as u64;
        // Of each program the most that a kind takes, 14 bytes.
        let function = if progs.calls_function() { 24 } else { 0 };
        let size = (32 + function + 14 * progs.count() + return_bytes).next_multiple_of(8);
        if self.allocation_fails() {
            return Ok(Err(-ENOMEM));
        }
        let at = if how == "pack" {
            let got = self.inner(cpu, "bpf_prog_pack_alloc", &Args::of(&[size]))?;
            self.used(cpu, got) as u64
        } else {
            let page = if self.pages_by_vmalloc() {
                let got = self.inner(cpu, "vmalloc", &Args::of(&[self.pages.bytes()]))?;
                self.used(cpu, got) as u64
            } else {
                self.bpf_jit_alloc_exec(cpu, self.pages.bytes())?
            };
            if page != 0 {
                self.inner(cpu, "set_vm_flush_reset_perms", &Args::of(&[page]))?;
            }
            page
        };
        if at == 0 {
            return Ok(Err(-ENOMEM));
        }
        self.region(cpu, VirtAddr(at), size, "bpf", "trampoline");
        let (code, after_call) = self.image_code(VirtAddr(at), site, progs, size)?;
        let image = Image { at, size, after_call };
        if how == "pack" {
            let done = self.inner(cpu, "bpf_arch_text_copy", &Args::with_code(&[at], &code))?;
            let value = self.used(cpu, done);
            if crate::errno::is_err_pointer(value) {
                self.free_image(cpu, image)?;
                return Ok(Err(value));
            }
            if self.arch == Arch::Arm64 {
                self.inner(cpu, "flush_icache_range", &Args::of(&[at, at + size]))?;
            }
            return Ok(Ok(image));
        }
        self.fill_traps(cpu, VirtAddr(at), self.pages.bytes())?;
        self.store_plain(cpu, VirtAddr(at), &code)?;
        if self.arch == Arch::Arm64 {
            self.inner(cpu, "flush_icache_range", &Args::of(&[at, at + size]))?;
        }
        let calls: &[&str] = if self.there("set_memory_rox") {
            &["set_memory_rox"]
        } else {
            &["set_memory_ro", "set_memory_x"]
        };
        for call in calls {
            let done = self.inner(cpu, call, &Args::of(&[at, 1]))?;
            self.dropped(cpu, done);
        }
        Ok(Ok(image))
    }

    /// `arch_free_bpf_trampoline`.
    pub(crate) fn free_image(&mut self, cpu: CpuId, image: Image) -> Result<(), Stop> {
        let Image { at, size, .. } = image;
        if self.caps.word(Fact::TrampolineImage) == "pack" {
            self.inner(cpu, "bpf_prog_pack_free", &Args::of(&[at, size]))?;
            return Ok(());
        }
        if self.pages_by_vmalloc() {
            self.inner(cpu, "vfree", &Args::of(&[at]))?;
            return Ok(());
        }
        self.text_memory_free(cpu, at)
    }

    /// The bytes of an image, and what [`Image::after_call`] says.
    fn image_code(
        &self,
        at: VirtAddr,
        site: VirtAddr,
        progs: &Progs,
        size: u64,
    ) -> Result<(Vec<u8>, AfterCall), Stop> {
        let mut code = Code { arch: self.arch, at, bytes: Vec::new() };
        let after_call = match self.arch {
            Arch::X86_64 => x86_code(&mut code, site, progs)?,
            _ if progs.calls_function() => {
                let nop = nop(self.arch);
                let after = code.here().offset(nop.len() as u64 * progs.count());
                while code.here() <= after {
                    code.put(&nop);
                }
                Some((after.0, code.here().0))
            }
            _ => None,
        };
        let skips_site = self.arch == Arch::X86_64 && after_call.is_some();
        let mut tail = if skips_site { vec![0x48, 0x83, 0xc4, 8] } else { Vec::new() };
        tail.extend(ftrace_caller(self.arch));
        let pad = if self.arch == Arch::X86_64 { vec![0x90] } else { nop(self.arch) };
        while code.bytes.len() + tail.len() + pad.len() <= size as usize {
            code.put(&pad);
        }
        code.put(&tail);
        Ok((code.bytes, after_call))
    }

    /// arm64's own `bpf_jit_alloc_exec()` before execmem (6.1 arch/arm64/net/bpf_jit_comp.c).
    fn pages_by_vmalloc(&self) -> bool {
        self.arch == Arch::Arm64 && !self.caps.yes(Fact::Execmem)
    }
}

/// x86's calls. The site's call left the address behind the site on the stack: where the function
/// is called from here, that is dropped at the end.
fn x86_code(code: &mut Code, site: VirtAddr, progs: &Progs) -> Result<AfterCall, Stop> {
    for prog in &progs.fentry {
        code.call(*prog)?;
    }
    if !progs.calls_function() {
        return Ok(None);
    }
    let mut leave = Vec::new();
    for prog in &progs.modify_return {
        code.call(*prog)?;
        code.put(&[0x48, 0x85, 0xc0, 0x0f, 0x85]); // test rax, rax; jne
        leave.push(code.bytes.len());
        code.put(&[0; 4]);
    }
    code.call(site.0 + X86_NOP5.len() as u64)?;
    let after = code.here();
    code.put(&X86_NOP5);
    let do_fexit = code.bytes.len();
    for at in leave {
        let disp = (do_fexit - (at + 4)) as u32;
        if let Some(place) = code.bytes.get_mut(at..at + 4) {
            place.copy_from_slice(&disp.to_le_bytes());
        }
    }
    for prog in &progs.fexit {
        code.put(&[0x50]); // push rax
        code.call(*prog)?;
        code.put(&[0x58]); // pop rax
    }
    Ok(Some((after.0, code.here().0)))
}
