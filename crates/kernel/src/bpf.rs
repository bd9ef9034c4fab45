//! BPF's room for programs: packs, their permissions, and how code gets into them.
//!
//! Modelled: size of a pack by version, first fit in chunks of 64 bytes, fill and permissions of a
//! new pack, invalidation, the header with the program's size, errors and whether they are looked
//! at. pack_mutex is held from the choice of a pack to its protection, and from the invalidation of
//! a program to the end of an empty pack; others run inside of both. From: Linux 5.19, 6.4 and 6.12
//! kernel/bpf/core.c, arch/*/net/bpf_jit_comp*.c, and the mails of 2022 on 5.18. Not modelled: the
//! limit on JIT memory (bpf_jit_limit), random start offsets (a program starts 8 bytes behind its
//! header), the verifier and the JIT itself, trampolines.
//!
//! The allocator is generic code, so it can be called on every architecture; whose JIT used it is
//! [`Fact::PackUsed`].

use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::{Flags, View, WarnReason};

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::{EINVAL, ENOTSUPP, is_err_pointer};
use crate::error::Stop;
use crate::insns::{ARM64_BREAK_FAULT, POWER_TRAP};
use crate::kernel::Kernel;
use crate::module_memory::protect_step;
use crate::powerpc::patching::Run;
use crate::steps::{
    Fate, Step, Then, call_step, call_then, calls_step, lock_step, once, pause, step, unlock_step,
};

/// The lock of the packs.
const PACK_MUTEX: &str = "pack_mutex";
/// Unit of allocation in a pack (`BPF_PROG_CHUNK_SIZE`).
pub(crate) const CHUNK_BYTES: u64 = 1 << CHUNK_SHIFT;
const CHUNK_SHIFT: u8 = 6;
/// Bytes before a program's first instruction (`struct bpf_binary_header`).
pub(crate) const HEADER_BYTES: u64 = 8;
/// Room that the JIT asks for beside header and program.
const SPARE_BYTES: u64 = 16;

/// One pack.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pack {
    ptr: u64,
    size: u64,
    /// Chunks in use.
    used: Vec<bool>,
}

/// Every pack.
#[derive(Clone, Default, Debug)]
pub(crate) struct Packs {
    /// Size of a pack, once it was decided.
    size: Option<u64>,
    packs: Vec<Pack>,
    /// Who asks now wants zeros as the fill of a new pack (`bpf_jit_fill_hole_with_zero`).
    zeros: bool,
    /// Programs whose writable twin exists: header to size.
    twins: BTreeMap<u64, u64>,
}

impl Packs {
    /// The pack that an address lies in.
    fn holding(&self, ptr: u64) -> Option<usize> {
        self.packs.iter().position(|p| ptr.checked_sub(p.ptr).is_some_and(|at| at < p.size))
    }

    /// Says how a new pack is filled while a caller asks for room.
    pub(crate) fn fill_with_zeros(&mut self, zeros: bool) {
        self.zeros = zeros;
    }
}

/// `bpf_prog_pack_alloc(size)`.
pub(crate) fn pack_alloc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let size = program_size(args.get(0))?;
    let zeros = k.packs.zeros;
    let given: Then<u64> = Box::new(|k, cpu, ptr| {
        k.returns(ptr as i64);
        k.unlock(cpu, PACK_MUTEX)
    });
    let sized = move |k: &mut Kernel, cpu, pack_size| {
        if size > pack_size {
            let whole = size.next_multiple_of(k.pages.bytes());
            k.later([new_memory_step(whole, zeros, given)]);
            return Ok(());
        }
        k.pack_slice(cpu, (size, pack_size, zeros), given)
    };
    k.with_steps(vec![lock_step(PACK_MUTEX), pack_size_step(Box::new(sized))])
}

/// `bpf_prog_pack_free(ptr, size)`; before 6.0 Linux reads the size from the header itself.
pub(crate) fn pack_free(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (ptr, size) = (args.get(0), args.get(1));
    if u32::try_from(size).is_err() {
        return Err(Stop::not_modelled(format!("a program of {size:#x} bytes, more than a u32")));
    }
    let free = once(move |k, cpu| k.free_slice(cpu, ptr, size));
    k.with_steps(vec![lock_step(PACK_MUTEX), free, unlock_step(PACK_MUTEX)])
}

/// `bpf_jit_binary_pack_alloc(proglen)`.
pub(crate) fn binary_pack_alloc(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let proglen = program_size(args.get(0))?;
    let size = (proglen + HEADER_BYTES + SPARE_BYTES).next_multiple_of(CHUNK_BYTES);
    let got = call_then("bpf_prog_pack_alloc", Args::of(&[size]), move |k, _, ptr| {
        // The writable twin.
        if ptr != 0 && k.allocation_fails() {
            // Where the size is read from the header it is written there for that.
            if k.caps.yes(Fact::PackFreeReads) {
                let written = Args::with_code(&[ptr as u64], &k.word_bytes(size));
                k.later([calls_step(vec![("bpf_arch_text_copy", written, Fate::Dropped)])]);
            }
            k.later([call_step("bpf_prog_pack_free", Args::of(&[ptr as u64, size]))]);
        } else if ptr != 0 {
            k.packs.twins.insert(ptr as u64, size);
            k.returns(ptr);
        }
        Ok(())
    });
    k.with_steps(got.into())
}

/// `bpf_jit_binary_pack_finalize(ro_header, rw_header)`: the twin holds trap instructions, its size
/// and the program.
pub(crate) fn binary_pack_finalize(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let header = args.addr(0);
    let code = args.code();
    let Some(size) = k.packs.twins.get(&header.0).copied() else {
        return Err(Stop::not_modelled("a header that bpf_jit_binary_pack_alloc did not give"));
    };
    let mut twin = k.trap_bytes(size);
    let word = k.word_bytes(size);
    let room = twin.get_mut(HEADER_BYTES as usize..).and_then(|r| r.get_mut(..code.len()));
    match room {
        Some(room) => room.copy_from_slice(code),
        None => return Err(Stop::not_modelled("a program longer than was asked room for")),
    }
    if let Some(start) = twin.get_mut(..word.len()) {
        start.copy_from_slice(&word);
    }
    k.packs.twins.remove(&header.0);
    let copy = Args::with_code(&[header.0], &twin);
    let copied = call_then("bpf_arch_text_copy", copy, move |k, cpu, value| {
        if is_err_pointer(value) {
            // The size in the header was never written; what lies there is taken for it.
            let size = k.header_size(cpu, header)?;
            k.later([call_step("bpf_prog_pack_free", Args::of(&[header.0, size]))]);
            k.returns(value);
            return Ok(());
        }
        k.region(cpu, header, size, "bpf", "program");
        Ok(())
    });
    k.with_steps(copied.into())
}

/// `bpf_jit_binary_pack_free(ro_header)`.
pub(crate) fn binary_pack_free(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let header = args.addr(0);
    let size = k.header_size(cpu, header)?;
    k.packs.twins.remove(&header.0);
    k.with_steps(vec![call_step("bpf_prog_pack_free", Args::of(&[header.0, size]))])
}

/// `bpf_arch_text_copy(dst, src, len)`: the architecture's own, or the weak default.
pub(crate) fn arch_text_copy(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    if !k.caps.yes(Fact::TextCopy) {
        return Ok(-ENOTSUPP);
    }
    let dst = args.addr(0);
    let name = match k.arch {
        Arch::X86_64 => "text_poke_copy",
        Arch::Arm64 => "aarch64_insn_copy",
        _ => return power_text_copy(k, cpu, dst, args.code()),
    };
    let copy = call_step(name, Args::with_code(&[dst.0], args.code()));
    k.with_steps(vec![
        copy,
        step(move |k, cpu| {
            let copied = k.nested_result(cpu).unwrap_or(0);
            k.returns(if copied == 0 { -EINVAL } else { dst.0 as i64 });
            Ok(())
        }),
    ])
}

fn power_text_copy(k: &mut Kernel, cpu: CpuId, dst: VirtAddr, code: &[u8]) -> Result<i64, Stop> {
    if k.is_core_text(dst) {
        k.warn_once(cpu, "bpf_arch_text_copy", WarnReason::BadArgument, dst);
        return Ok(-EINVAL);
    }
    locked_run(k, dst, Run::Bytes(code.to_vec()), dst.0 as i64)
}

/// powerpc: a run of instructions under the lock; `good` is what success returns.
fn locked_run(k: &mut Kernel, dst: VirtAddr, run: Run, good: i64) -> Result<i64, Stop> {
    let mut steps = vec![lock_step("text_mutex")];
    match k.run_steps(dst, run)? {
        Ok(run) => steps.extend(run),
        Err(error) => steps.push(step(move |k, _| {
            k.returns(error);
            Ok(())
        })),
    }
    steps.push(unlock_step("text_mutex"));
    steps.push(step(move |k, _| {
        if k.value.is_none_or(|value| value == 0) {
            k.returns(good);
        }
        Ok(())
    }));
    k.with_steps(steps)
}

/// `bpf_arch_text_invalidate(dst, len)`.
pub(crate) fn arch_text_invalidate(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    if !k.caps.yes(Fact::TextInvalidate) {
        return Ok(-ENOTSUPP);
    }
    let (dst, len) = (args.addr(0), args.get(1));
    match k.arch {
        Arch::X86_64 => filled(k, "text_poke_set", &[dst.0, 0xcc, len], 1),
        Arch::Arm64 => {
            let brk = u64::from(ARM64_BREAK_FAULT);
            filled(k, "aarch64_insn_set", &[dst.0, brk, len], -EINVAL)
        }
        _ => {
            if k.is_core_text(dst) {
                k.warn_once(cpu, "bpf_arch_text_invalidate", WarnReason::BadArgument, dst);
                return Ok(-EINVAL);
            }
            let trap = k.trap_bytes(4);
            locked_run(k, dst, Run::Repeat(trap, len), 0)
        }
    }
}

/// A call that fills, and what it returns where that gives NULL.
fn filled(k: &mut Kernel, name: &'static str, args: &[u64], bad: i64) -> Result<i64, Stop> {
    k.with_steps(vec![
        call_step(name, Args::of(args)),
        step(move |k, cpu| {
            let got = k.nested_result(cpu).unwrap_or(0);
            k.returns(if got == 0 { bad } else { 0 });
            Ok(())
        }),
    ])
}

/// `bpf_fill_ill_insns(area, size)`: the JIT's fill function, plain stores.
pub(crate) fn fill_ill_insns(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.fill_traps(cpu, args.addr(0), args.get(1))?;
    Ok(0)
}

/// Programs are counted in `u32`.
fn program_size(size: u64) -> Result<u64, Stop> {
    const MOST: u64 = 1 << 30;
    if size == 0 || size > MOST {
        return Err(Stop::not_modelled(format!("a program of {size:#x} bytes")));
    }
    Ok(size)
}

impl Kernel {
    /// One trap instruction as it lies in memory.
    fn trap_insn(&self) -> Vec<u8> {
        match self.arch {
            Arch::X86_64 => vec![0xcc],
            Arch::Arm64 => ARM64_BREAK_FAULT.to_le_bytes().to_vec(),
            Arch::Ppc64le => POWER_TRAP.to_le_bytes().to_vec(),
            Arch::Ppc64 | Arch::Ppc32 => POWER_TRAP.to_be_bytes().to_vec(),
        }
    }

    /// A size as it lies in a program's header.
    fn word_bytes(&self, size: u64) -> [u8; 4] {
        let word = u32::try_from(size).unwrap_or(u32::MAX);
        if self.arch.is_little_endian() { word.to_le_bytes() } else { word.to_be_bytes() }
    }

    /// `len` bytes of trap instructions.
    fn trap_bytes(&self, len: u64) -> Vec<u8> {
        self.trap_insn().into_iter().cycle().take(usize::try_from(len).unwrap_or(0)).collect()
    }

    pub(crate) fn fill_traps(&mut self, cpu: CpuId, addr: VirtAddr, len: u64) -> Result<(), Stop> {
        let trap = self.trap_insn();
        let whole = len - len % (trap.len() as u64).max(1);
        self.fill_plain(cpu, addr, whole, &trap)
    }

    /// The size in a program's header.
    fn header_size(&mut self, cpu: CpuId, header: VirtAddr) -> Result<u64, Stop> {
        let mut word = [0; 4];
        self.machine.load(cpu, header, &mut word)?;
        let size = if self.arch.is_little_endian() {
            u32::from_le_bytes(word)
        } else {
            u32::from_be_bytes(word)
        };
        Ok(u64::from(size))
    }

    /// Room in a pack that has some, or in a new one.
    fn pack_slice(
        &mut self,
        cpu: CpuId,
        (size, pack_size, zeros): (u64, u64, bool),
        then: Then<u64>,
    ) -> Result<(), Stop> {
        let chunks = size.div_ceil(CHUNK_BYTES) as usize;
        let fit = self.packs.packs.iter_mut().find_map(|pack| {
            let at = first_fit(&pack.used, chunks)?;
            mark(&mut pack.used, at, chunks, true);
            Some(pack.ptr + at as u64 * CHUNK_BYTES)
        });
        if let Some(ptr) = fit {
            self.room(cpu, ptr, chunks);
            return then(self, cpu, ptr);
        }
        // What describes the pack, then the pack.
        if self.allocation_fails() {
            return then(self, cpu, 0);
        }
        let made = move |k: &mut Kernel, cpu, ptr| {
            if ptr != 0 {
                let mut used = vec![false; (pack_size / CHUNK_BYTES) as usize];
                mark(&mut used, 0, chunks, true);
                k.packs.packs.push(Pack { ptr, size: pack_size, used });
                k.room(cpu, ptr, chunks);
            }
            then(k, cpu, ptr)
        };
        self.later([new_memory_step(pack_size, zeros, Box::new(made))]);
        Ok(())
    }

    /// Tells that a part of a pack has an owner.
    fn room(&mut self, cpu: CpuId, ptr: u64, chunks: usize) {
        let (virt, len, shift) = (VirtAddr(ptr), chunks as u64 * CHUNK_BYTES, CHUNK_SHIFT);
        self.emit(cpu, Flags::default(), View::AreaMade { virt, len, shift });
    }

    /// The room's instructions go first, then its chunks, then a pack that is empty.
    fn free_slice(&mut self, cpu: CpuId, ptr: u64, size: u64) -> Result<(), Stop> {
        let pack_size = self.packs.size.unwrap_or(u64::MAX);
        if size > pack_size {
            let (name, args) = self.text_memory_free(ptr);
            self.later([call_step(name, args)]);
            return Ok(());
        }
        // Of a pack for several nodes, only rooms in the first large page are found so.
        let block = if pack_size > self.pages.bytes() { self.pages.pmd_bytes() } else { pack_size };
        let by_mask = self.caps.yes(Fact::PackFreeByMask);
        let found = |pack: &Pack| !by_mask || pack.ptr == ptr & !(block - 1);
        let held = self.packs.holding(ptr).and_then(|n| self.packs.packs.get(n));
        if !held.is_some_and(found) {
            self.warn_once(cpu, "bpf_prog_pack bug", WarnReason::NoArea, VirtAddr(ptr));
            return Ok(());
        }
        if self.caps.yes(Fact::PackInvalidated) {
            let args = Args::of(&[ptr, size]);
            self.later(call_then("bpf_arch_text_invalidate", args, move |k, cpu, error| {
                if error != 0 {
                    k.warn_once(cpu, "bpf_prog_pack invalidate", WarnReason::Other, VirtAddr(ptr));
                }
                Ok(())
            }));
        }
        self.later([pause(), once(move |k, cpu| k.free_chunks(cpu, ptr, size))]);
        Ok(())
    }

    fn free_chunks(&mut self, cpu: CpuId, ptr: u64, size: u64) -> Result<(), Stop> {
        let Some(index) = self.packs.holding(ptr) else { return Ok(()) };
        let Some(pack) = self.packs.packs.get_mut(index) else { return Ok(()) };
        let first = ((ptr - pack.ptr) / CHUNK_BYTES) as usize;
        let chunks = size.div_ceil(CHUNK_BYTES) as usize;
        if first.saturating_add(chunks) > pack.used.len() {
            return Err(Stop::not_modelled("freeing past the end of a pack's bitmap"));
        }
        mark(&mut pack.used, first, chunks, false);
        if pack.used.iter().all(|used| !used) {
            let ptr = pack.ptr;
            self.packs.packs.remove(index);
            let (name, args) = self.text_memory_free(ptr);
            self.later([call_step(name, args)]);
            return Ok(());
        }
        let (virt, len) = (VirtAddr(ptr), chunks as u64 * CHUNK_BYTES);
        self.emit(cpu, Flags::default(), View::AreaRemoved { virt, len });
        Ok(())
    }
}

/// The size of a pack; up to 5.19 found out at first use by trying.
fn pack_size_step(then: Then<u64>) -> Step {
    once(move |k, cpu| {
        if let Some(size) = k.packs.size {
            return then(k, cpu, size);
        }
        let how = k.caps.word(Fact::PackSize);
        let block = if how == "2m-by-node" { 2 << 20 } else { k.pages.pmd_bytes() };
        let huge = block * k.config.count("nr_nodes").max(1);
        if how != "probe" {
            k.packs.size = Some(huge);
            return then(k, cpu, huge);
        }
        let (name, args) = k.bpf_jit_alloc_exec(huge);
        k.later(call_then(name, args, move |k, _, tried| {
            let tried = tried as u64;
            let large = tried != 0 && k.is_vm_area_hugepages(VirtAddr(tried))?;
            let size = if large { huge } else { k.pages.bytes() };
            let sized = once(move |k, cpu| {
                k.packs.size = Some(size);
                then(k, cpu, size)
            });
            k.later([call_step("vfree", Args::of(&[tried])), sized]);
            Ok(())
        }));
        Ok(())
    })
}

/// Memory for a pack or for one big program, filled and protected as the version does it; `then`
/// gets 0 where it cannot be had.
fn new_memory_step(size: u64, zeros: bool, then: Then<u64>) -> Step {
    once(move |k, _| {
        let (name, args) = k.bpf_jit_alloc_exec(size);
        k.later(call_then(name, args, move |k, cpu, ptr| {
            let ptr = ptr as u64;
            if ptr == 0 {
                return then(k, cpu, 0);
            }
            k.zone(cpu, VirtAddr(ptr), size, "bpf", "pack");
            if k.caps.yes(Fact::PackFilled) && zeros {
                k.fill_plain(cpu, VirtAddr(ptr), size, &[0])?;
            } else if k.caps.yes(Fact::PackFilled) {
                k.fill_traps(cpu, VirtAddr(ptr), size)?;
            }
            let checked = k.caps.yes(Fact::PackChecked);
            let both = k.there("set_memory_rox");
            let names: &[&str] =
                if both { &["set_memory_rox"] } else { &["set_memory_ro", "set_memory_x"] };
            let range = Args::of(&[ptr, k.pages.holding(size)]);
            let fate = if checked { Fate::Checked } else { Fate::Dropped };
            let mut calls = vec![("set_vm_flush_reset_perms", Args::of(&[ptr]), Fate::Void)];
            calls.extend(names.iter().map(|name| (*name, range.clone(), fate)));
            k.later([pause(), protect_step(ptr, calls, then)]);
            Ok(())
        }));
        Ok(())
    })
}

/// The first run of `chunks` free chunks.
fn first_fit(used: &[bool], chunks: usize) -> Option<usize> {
    let mut free = 0;
    for (at, taken) in used.iter().enumerate() {
        free = if *taken { 0 } else { free + 1 };
        if free == chunks {
            return Some(at + 1 - chunks);
        }
    }
    None
}

fn mark(used: &mut [bool], at: usize, chunks: usize, value: bool) {
    used.iter_mut().skip(at).take(chunks).for_each(|chunk| *chunk = value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_fit_finds_the_first_run_that_is_long_enough() {
        let mut used = vec![true, false, true, false, false, false];
        assert_eq!(first_fit(&used, 1), Some(1));
        assert_eq!(first_fit(&used, 2), Some(3));
        mark(&mut used, 3, 2, true);
        assert_eq!(first_fit(&used, 2), None);
        assert_eq!(first_fit(&used, 1), Some(1));
    }
}
