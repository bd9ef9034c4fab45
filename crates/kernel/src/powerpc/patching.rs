//! powerpc text patching.
//!
//! Modelled: writing in place without STRICT_KERNEL_RWX, the per-CPU vmalloc page (before 6.2, and
//! on hashed tables), the per-CPU address space (radix, 6.2 on), the store with its cache
//! maintenance through both addresses, -EPERM where the store faults, the flush of a patched run
//! through the alias (whether text is protected or not); others may run before the store, before
//! the maintenance and behind. From: Linux 5.18.12, 5.19, 6.1, 6.2, 6.4, 6.7, 6.8, 6.10, 6.12, 6.14
//! and 7.0 arch/powerpc/lib/code-patching.c. Not modelled: machines with one CPU (which keep the
//! vmalloc page after 6.2), patching while booting, freed init text, hardware breakpoints,
//! patch_instructions of an older kernel that oopses on a fault.
//!
//! None of these functions tells another CPU anything.

use textbed_arch::{Arch, CpuId, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Flags, View, WindowPurpose};

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::{EFAULT, EINVAL, EPERM, ERANGE};
use crate::error::Stop;
use crate::generic::instruction;
use crate::kernel::Kernel;
use crate::powerpc::PowerMmu;
use crate::steps::{Step, Turn, call_step, once, pause, step};

/// PID of the first CPU's patching space; each CPU has the next.
pub(crate) const PATCH_PID: u16 = 1;

/// `patch_instruction(addr, instr)`.
pub(crate) fn patch_instruction(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    let bytes = insn_bytes(k.arch, args.get(1));
    let len = bytes.len() as u16;
    let site = View::PatchSite { virt: addr, old_len: len, new_len: len, handler: false };
    k.emit(cpu, Flags::default(), site);
    k.patch_memory(addr, &bytes)
}

/// `raw_patch_instruction(addr, instr)`: in place, with the same maintenance.
pub(crate) fn raw_patch_instruction(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let part = Part::Instruction(insn_bytes(k.arch, args.get(1)));
    k.with_steps(vec![parts_step([(args.addr(0), part)].into_iter(), true)])
}

/// `patch_branch(addr, target, flags)`: an I-form branch, -ERANGE beyond 32 MiB.
pub(crate) fn patch_branch(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (addr, target, link) = (args.get(0), args.get(1), args.get(2));
    let offset = target.wrapping_sub(addr) as i64;
    if !(-0x200_0000..=0x1ff_fffc).contains(&offset) || offset & 3 != 0 {
        return Ok(-ERANGE);
    }
    let insn = 0x4800_0000 | (offset as u64 & 0x03ff_fffc) | (link & 1);
    let patch = call_step("patch_instruction", Args::of(&[addr, insn]));
    let end = step(|k, cpu| {
        let result = k.nested_result(cpu).unwrap_or(0);
        k.returns(result);
        Ok(())
    });
    k.with_steps(vec![patch, end])
}

/// `patch_uint(addr, val)`: -EINVAL unless aligned.
pub(crate) fn patch_uint(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let word = u32::try_from(args.get(1))
        .map_err(|_| Stop::not_modelled("a value of more than 32 bits"))?;
    let little = k.arch.is_little_endian();
    let bytes = if little { word.to_le_bytes() } else { word.to_be_bytes() };
    patch_value(k, args.addr(0), &bytes)
}

/// `patch_ulong(addr, val)`: -EINVAL unless aligned; on 32-bit `patch_uint`.
pub(crate) fn patch_ulong(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    if k.arch == Arch::Ppc32 {
        return patch_uint(k, cpu, args);
    }
    let value = args.get(1);
    let little = k.arch.is_little_endian();
    let bytes = if little { value.to_le_bytes() } else { value.to_be_bytes() };
    patch_value(k, args.addr(0), &bytes)
}

fn patch_value(k: &mut Kernel, addr: VirtAddr, bytes: &[u8]) -> Result<i64, Stop> {
    if !addr.0.is_multiple_of(bytes.len() as u64) {
        return Ok(-EINVAL);
    }
    k.patch_memory(addr, bytes)
}

/// `patch_instructions(addr, code, repeat_instr, len)`: `len` bytes of code, or its first
/// instruction again and again over `len` bytes.
pub(crate) fn patch_instructions(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (addr, repeat, len) = (args.addr(0), args.get(2) == 1, args.get(3));
    let code = args.code();
    let unit = if prefixed(k.arch, code) { 8 } else { 4 };
    let room = u64::try_from(code.len()).unwrap_or(u64::MAX);
    if (!repeat && len > room) || (repeat && room < unit) {
        return Err(Stop::not_modelled("patching with less code than is asked for"));
    }
    let run = if repeat {
        Run::Repeat(code.get(..unit as usize).unwrap_or(&[]).to_vec(), len)
    } else {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        Run::Bytes(code.get(..len).unwrap_or(&[]).to_vec())
    };
    let steps = match k.run_steps(addr, run)? {
        Ok(steps) => steps,
        Err(error) => return Ok(error),
    };
    k.with_steps(steps)
}

/// Whether code begins with a prefixed instruction (primary opcode 1).
fn prefixed(arch: Arch, code: &[u8]) -> bool {
    let word: Option<[u8; 4]> = code.get(..4).and_then(|b| b.try_into().ok());
    word.is_some_and(|b| {
        let word =
            if arch == Arch::Ppc64le { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) };
        word >> 26 == 1 && arch != Arch::Ppc32
    })
}

/// An instruction as it lies in memory: each word in the kernel's byte order, a prefix first.
fn insn_bytes(arch: Arch, insn: u64) -> Vec<u8> {
    let word = |w: u32| if arch == Arch::Ppc64le { w.to_le_bytes() } else { w.to_be_bytes() };
    let (prefix, suffix) = ((insn >> 32) as u32, insn as u32);
    if prefix == 0 { word(suffix).to_vec() } else { [word(prefix), word(suffix)].concat() }
}

/// What patch_instructions writes.
pub(crate) enum Run {
    Bytes(Vec<u8>),
    Repeat(Vec<u8>, u64),
}

/// What goes into one page, and how.
enum Part {
    /// One instruction, with its own maintenance (`__patch_mem`).
    Instruction(Vec<u8>),
    /// A part of a run (`__patch_instructions`).
    Bytes(Vec<u8>),
    Fill(Vec<u8>, u64),
}

impl Part {
    /// The store: whether it was one, or a fault.
    fn store(&self, k: &mut Kernel, cpu: CpuId, at: VirtAddr) -> bool {
        let order = textbed_event::MemOrder::Plain;
        match self {
            Part::Instruction(bytes) | Part::Bytes(bytes) => {
                k.machine.store(cpu, at, bytes, order).is_ok()
            }
            Part::Fill(insn, len) => k.machine.fill(cpu, at, *len, insn).is_ok(),
        }
    }

    /// What follows the store: 0, or the error of a fault.
    fn maintain(
        &self,
        k: &mut Kernel,
        cpu: CpuId,
        (at, exec): (VirtAddr, VirtAddr),
        stored: bool,
    ) -> Result<i64, Stop> {
        match self {
            Part::Instruction(_) if stored => {
                k.machine.op_named(cpu, "dcbst", at.0)?;
                k.machine.op_named(cpu, "sync", 0)?;
                k.machine.op_named(cpu, "icbi", exec.0)?;
                k.machine.op_named(cpu, "sync", 0)?;
                k.machine.op_named(cpu, "isync", 0)?;
            }
            Part::Instruction(_) => {
                let by_space = at != exec && k.patch_alias() == "mm-if-radix-smp";
                if by_space || k.caps.yes(Fact::PatchFaultSyncs) {
                    k.machine.op_named(cpu, "sync", 0)?;
                }
            }
            Part::Bytes(bytes) if stored => k.run_maintained(cpu, at, bytes.len() as u64)?,
            Part::Fill(_, len) if stored => k.run_maintained(cpu, at, *len)?,
            _ => {}
        }
        let fault = if k.caps.word(Fact::PatchFault) == "EFAULT" { EFAULT } else { EPERM };
        Ok(if stored { 0 } else { -fault })
    }

    /// Writes to a text address through an alias of its page, or in place: others may run before
    /// the store (where they see the alias) and before the maintenance. `behind` says what follows
    /// the result.
    fn step(
        self,
        exec: VirtAddr,
        in_place: bool,
        behind: impl FnOnce(&mut Kernel, i64) -> Vec<Step> + 'static,
    ) -> Step {
        once(move |k, cpu| {
            let alias = if in_place { None } else { Some(k.open_alias(cpu, exec)?) };
            let at = alias.as_ref().map_or(exec, |a| a.at.offset(k.pages.offset_of(exec)));
            if alias.as_ref().is_some_and(|a| a.back.is_none()) {
                k.later([pause()]);
            }
            let rest = once(move |k, cpu| {
                let stored = self.store(k, cpu, at);
                let rest = once(move |k, cpu| {
                    let result = self.maintain(k, cpu, (at, exec), stored)?;
                    k.later(alias.map(close_step));
                    k.later([pause()]);
                    let steps = behind(k, result);
                    k.later(steps);
                    Ok(())
                });
                k.later([pause(), rest]);
                Ok(())
            });
            k.later([rest]);
            Ok(())
        })
    }
}

/// Takes an alias away, once all CPUs that this interrupts take that.
fn close_step(alias: Alias) -> Step {
    let mut alias = Some(alias);
    Box::new(move |k, cpu| {
        let shared = alias.as_ref().is_some_and(|a| a.back.is_none());
        if let Some(wait) = k.receivers_off(cpu).filter(|_| shared && k.flushes_by_interrupt()) {
            return Ok(Turn::Wait(wait));
        }
        match alias.take() {
            Some(alias) => k.close_alias(cpu, alias).map(|()| Turn::Next),
            None => Ok(Turn::Next),
        }
    })
}

/// Parts of a run, one page after another, to the first error.
fn parts_step(mut parts: impl Iterator<Item = (VirtAddr, Part)> + 'static, in_place: bool) -> Step {
    once(move |k, _| {
        if let Some((at, part)) = parts.next() {
            k.later([part.step(at, in_place, move |k, result| {
                k.returns(result);
                if result == 0 { vec![parts_step(parts, in_place)] } else { Vec::new() }
            })]);
        }
        Ok(())
    })
}

/// An alias that is open.
struct Alias {
    /// Its address.
    at: VirtAddr,
    window: u32,
    irqs: bool,
    /// Space and identifier to go back to; `None` for the vmalloc page.
    back: Option<(SpaceId, u16)>,
    space: SpaceId,
    pid: u16,
}

impl Kernel {
    /// One store of an instruction: 0, or an error where it faults.
    fn patch_memory(&mut self, addr: VirtAddr, bytes: &[u8]) -> Result<i64, Stop> {
        if bytes.len() as u64 > self.pages.room_at(addr) {
            return Err(Stop::not_modelled("an instruction across two pages"));
        }
        let in_place = !self.config.on("STRICT_KERNEL_RWX");
        let part = Part::Instruction(bytes.to_vec());
        self.with_steps(vec![parts_step([(addr, part)].into_iter(), in_place)])
    }

    fn run_maintained(&mut self, cpu: CpuId, at: VirtAddr, len: u64) -> Result<(), Stop> {
        self.machine.op_named(cpu, "lwsync", 0)?;
        self.power_flush_icache(cpu, at, len)
    }

    /// patch_instructions, page by page: what was written before an error stays. An error at once,
    /// or steps.
    pub(crate) fn run_steps(
        &self,
        addr: VirtAddr,
        run: Run,
    ) -> Result<Result<Vec<Step>, i64>, Stop> {
        let len = match &run {
            Run::Bytes(bytes) => bytes.len() as u64,
            Run::Repeat(_, len) => *len,
        };
        if addr.0.checked_add(len).is_none() {
            return Err(Stop::not_modelled("text that wraps around the address space"));
        }
        if let Run::Repeat(insn, len) = &run
            && len % (insn.len() as u64).max(1) != 0
        {
            return Err(Stop::not_modelled("a length that is no multiple of the instruction"));
        }
        let across = len > self.pages.room_at(addr);
        if matches!(run, Run::Repeat(..)) && !addr.is_aligned(2) && across {
            return Err(Stop::not_modelled("instructions that two pages share"));
        }
        let (mut done, pages) = (0, self.pages);
        let parts = std::iter::from_fn(move || {
            let at = addr.offset(done);
            let room = pages.room_at(at).min(len - done);
            let part = match &run {
                Run::Bytes(bytes) => {
                    let from = done as usize;
                    Part::Bytes(bytes.get(from..from + room as usize).unwrap_or(&[]).to_vec())
                }
                Run::Repeat(insn, _) => Part::Fill(insn.clone(), room),
            };
            done += room;
            (room > 0).then_some((at, part))
        });
        Ok(Ok(vec![parts_step(parts, false)]))
    }

    /// Where the alias lives: without radix in the vmalloc page.
    pub(crate) fn patch_alias(&self) -> &'static str {
        match self.caps.word(Fact::PatchAlias) {
            "mm-if-radix-smp" if self.power_mmu() != Some(PowerMmu::Radix) => "vm-area",
            word => word,
        }
    }

    /// Maps the page of a text address for this CPU's patching.
    fn open_alias(&mut self, cpu: CpuId, addr: VirtAddr) -> Result<Alias, Stop> {
        let phys = self.patched_frame(addr)?;
        let irqs = self.machine.irqs_on(cpu);
        self.machine.set_irqs(cpu, false);
        let (bytes, shift) = (self.pages.bytes(), self.pages.shift());
        let missing = || Stop::not_modelled("patching before the patch area exists");
        if self.patch_alias() == "vm-area" {
            let at = self.patch_areas.get(cpu.index()).copied().ok_or_else(missing)?;
            let window = self.open_window(cpu, WindowPurpose::PatchShared, phys, bytes);
            let perm = Perm::KERNEL_RW;
            let space = SpaceId::KERNEL;
            self.machine.map(cpu, space, at, phys, bytes, shift, perm)?;
            // A hashed entry has its own, when it is made.
            if self.power_mmu() == Some(PowerMmu::Radix) {
                self.machine.op_named(cpu, "ptesync", 0)?;
            }
            return Ok(Alias { at, window, irqs, back: None, space, pid: 0 });
        }
        let space = self.patch_spaces.get(cpu.index()).copied().ok_or_else(missing)?;
        let at = self.layout.patch;
        let window = self.open_window(cpu, WindowPurpose::PatchPrivate, phys, bytes);
        let perm = Perm::PRESENT | Perm::READ | Perm::WRITE;
        self.machine.map(cpu, space, at, phys, bytes, shift, perm)?;
        self.machine.op_named(cpu, "ptesync", 0)?;
        self.machine.op_named(cpu, "isync", 0)?;
        let back = Some((self.machine.space_of(cpu), self.machine.asid_of(cpu)));
        let pid = PATCH_PID.saturating_add(cpu.0);
        self.machine.load_space(cpu, space, pid, true)?;
        self.machine.op_named(cpu, "isync", 0)?;
        Ok(Alias { at, window, irqs, back, space, pid })
    }

    /// Takes it away again: locally for the private space, everywhere for the vmalloc page.
    fn close_alias(&mut self, cpu: CpuId, alias: Alias) -> Result<(), Stop> {
        if let Some((space, pid)) = alias.back {
            self.machine.load_space(cpu, space, pid, true)?;
            self.machine.op_named(cpu, "isync", 0)?;
        }
        if alias.back.is_none() {
            self.unmap_kernel(cpu, alias.at, self.pages.bytes())?;
        } else {
            self.machine.unmap(cpu, alias.space, alias.at, self.pages.bytes())?;
        }
        if alias.back.is_some() {
            self.machine.op_named(cpu, "ptesync", 0)?;
            let tlbiel = instruction(self.arch, "tlbiel")?;
            let rb = alias.at.0 | self.power_page_ap();
            self.machine.op_with(cpu, tlbiel, &[rb, u64::from(alias.pid)])?;
            self.machine.op_named(cpu, "ptesync", 0)?;
        } else {
            self.power_flush_kernel(cpu, alias.at.0, alias.at.0 + self.pages.bytes())?;
        }
        self.close_window(cpu, alias.window);
        self.machine.set_irqs(cpu, alias.irqs);
        Ok(())
    }

    /// The frame of a text address: by the tables for areas, by arithmetic for the rest.
    fn patched_frame(&self, addr: VirtAddr) -> Result<PhysAddr, Stop> {
        let page = self.pages.start_of(addr);
        if self.layout.direct_map.contains(page) {
            return Ok(PhysAddr(page.0 - self.layout.direct_map.start.0));
        }
        let found = self.machine.lookup(SpaceId::KERNEL, page);
        let phys = found.and_then(|m| m.phys.checked_add(page.0.wrapping_sub(m.virt.0)));
        phys.ok_or_else(|| Stop::not_modelled(format!("patching of {addr}, which maps nothing")))
    }
}
