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
use crate::errno::{ENOMEM, ENOTSUPP, is_err_pointer};
use crate::error::Stop;
use crate::insns::{X86_NOP5, branch, ftrace_caller, nop};
use crate::kernel::Kernel;
use crate::steps::{Fate, Made, Step, Then, call_step, call_then, calls_then, once, pause};

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
    /// `bpf_tramp_image_alloc`, `arch_prepare_bpf_trampoline`, protection: `then` gets the image,
    /// or an error.
    pub(crate) fn build_image(
        &mut self,
        cpu: CpuId,
        (site, progs): (VirtAddr, Progs),
        then: Then<Result<Image, i64>>,
    ) -> Result<(), Stop> {
        let how = self.caps.word(Fact::TrampolineImage);
        if how == "none" {
            return then(self, cpu, Err(-ENOTSUPP));
        }
        let return_bytes = ftrace_caller(self.arch).len() as u64;
        // Of each program the most that a kind takes, 14 bytes.
        let function = if progs.calls_function() { 24 } else { 0 };
        let size = (32 + function + 14 * progs.count() + return_bytes).next_multiple_of(8);
        if self.allocation_fails() {
            return then(self, cpu, Err(-ENOMEM));
        }
        let pack = how == "pack";
        let page = self.pages.bytes();
        let (name, args) = match pack {
            true => ("bpf_prog_pack_alloc", Args::of(&[size])),
            false if self.pages_by_vmalloc() => ("vmalloc", Args::of(&[page])),
            false => self.bpf_jit_alloc_exec(page),
        };
        self.later(call_then(name, args, move |k, _, at| {
            let at = at as u64;
            let reset = ("set_vm_flush_reset_perms", Args::of(&[at]), Fate::Void);
            let reset = (!pack && at != 0).then_some(reset);
            let there = move |k: &mut Kernel, cpu, _| {
                if at == 0 {
                    return then(k, cpu, Err(-ENOMEM));
                }
                k.region(cpu, VirtAddr(at), size, "bpf", "trampoline");
                let (code, after_call) = k.image_code(VirtAddr(at), site, &progs, size)?;
                let image = Image { at, size, after_call };
                match pack {
                    true => k.copy_image(image, code, then),
                    false => k.write_image(cpu, image, &code, then)?,
                }
                Ok(())
            };
            k.later([calls_then(reset.into_iter().collect(), Box::new(there))]);
            Ok(())
        }));
        Ok(())
    }

    /// arm64: what tells others of new code.
    fn image_flush(&self, at: u64, size: u64) -> Option<Made> {
        let flush = ("flush_icache_range", Args::of(&[at, at + size]), Fate::Void);
        (self.arch == Arch::Arm64).then_some(flush)
    }

    /// Code goes to its place in a pack.
    fn copy_image(&mut self, image: Image, code: Vec<u8>, then: Then<Result<Image, i64>>) {
        let Image { at, size, .. } = image;
        let copy = Args::with_code(&[at], &code);
        self.later(call_then("bpf_arch_text_copy", copy, move |k, _, value| {
            if is_err_pointer(value) {
                let free = k.free_image_steps(image);
                k.later(free);
                k.later([once(move |k, cpu| then(k, cpu, Err(value)))]);
                return Ok(());
            }
            let flush = k.image_flush(at, size).into_iter().collect();
            let told = Box::new(move |k: &mut Kernel, cpu, _| then(k, cpu, Ok(image)));
            k.later([calls_then(flush, told)]);
            Ok(())
        }));
    }

    /// Code is stored to a page of its own, which is protected then.
    fn write_image(
        &mut self,
        cpu: CpuId,
        image: Image,
        code: &[u8],
        then: Then<Result<Image, i64>>,
    ) -> Result<(), Stop> {
        let Image { at, size, .. } = image;
        self.fill_traps(cpu, VirtAddr(at), self.pages.bytes())?;
        self.store_plain(cpu, VirtAddr(at), code)?;
        let names: &[&str] = if self.there("set_memory_rox") {
            &["set_memory_rox"]
        } else {
            &["set_memory_ro", "set_memory_x"]
        };
        let mut calls: Vec<Made> = self.image_flush(at, size).into_iter().collect();
        calls.extend(names.iter().map(|name| (*name, Args::of(&[at, 1]), Fate::Dropped)));
        let made = Box::new(move |k: &mut Kernel, cpu, _| then(k, cpu, Ok(image)));
        self.later([pause(), calls_then(calls, made)]);
        Ok(())
    }

    /// `arch_free_bpf_trampoline`.
    pub(crate) fn free_image_steps(&self, image: Image) -> [Step; 1] {
        let Image { at, size, .. } = image;
        let (name, args) = if self.caps.word(Fact::TrampolineImage) == "pack" {
            ("bpf_prog_pack_free", Args::of(&[at, size]))
        } else if self.pages_by_vmalloc() {
            ("vfree", Args::of(&[at]))
        } else {
            self.text_memory_free(at)
        };
        [call_step(name, args)]
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
