//! arm64 text patching through the fixmap.
//!
//! Modelled: one page at FIX_TEXT_POKE0 for every CPU to see, under patch_lock with interrupts off,
//! the store, its unmapping with a broadcast flush, cache maintenance through the executable
//! address, the interrupt where there is one, patching with all CPUs stopped; others may run
//! between any two of these, but for what the lock and the interrupts that are off keep out. From:
//! Linux 5.19 and 6.12 arch/arm64/kernel/patching.c. Not modelled: writing in place without
//! STRICT_MODULE_RWX (before 6.1); the threads and interrupts by which stop_machine gets hold of
//! the CPUs.

use textbed_arch::{CpuId, Perm, SpaceId, VirtAddr};
use textbed_event::{Flags, View, WindowPurpose};

use crate::call::Args;
use crate::errno::EINVAL;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{
    Step, call_step, cross_step, lock_irqsave_steps, once, pause, step, step_then_others,
    unlock_step,
};
use crate::stores::by_page;

/// `aarch64_insn_copy(dst, src, len)`: NULL for an address that is no multiple of 4.
pub(crate) fn insn_copy(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let dst = args.addr(0);
    if !dst.is_aligned(2) {
        return Ok(0);
    }
    let code = args.code();
    let mut at = dst;
    let mut writes = Vec::new();
    for part in by_page(k.pages, dst, code) {
        writes.push((at, Write::Bytes(part.to_vec())));
        at = at.offset(part.len() as u64);
    }
    k.copying(cpu, writes.into_iter(), (dst, code.len() as u64))
}

/// `aarch64_insn_set(dst, insn, len)`.
pub(crate) fn insn_set(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (dst, len) = (args.addr(0), args.get(2));
    let insn = insn_bytes(args.get(1))?;
    if !dst.is_aligned(2) {
        return Ok(0);
    }
    let end = dst.0.checked_add(len);
    let end = end.ok_or_else(|| Stop::not_modelled("text that wraps around the address space"))?;
    let (mut next, pages) = (dst, k.pages);
    // Whole instructions of each page; a page with none is mapped all the same.
    let writes = std::iter::from_fn(move || {
        let at = next;
        let part = pages.room_at(at).min(end - at.0);
        next = at.offset(part);
        (part > 0).then(|| (at, Write::Fill(insn.to_vec(), part & !3)))
    });
    k.copying(cpu, writes, (dst, len))
}

/// `aarch64_insn_patch_text_nosync(addr, insn)`: no other CPU is told.
pub(crate) fn patch_text_nosync(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    let insn = insn_bytes(args.get(1))?;
    if !addr.is_aligned(2) {
        return Ok(-EINVAL);
    }
    k.emit(
        cpu,
        Flags::default(),
        View::PatchSite { virt: addr, old_len: 4, new_len: 4, handler: false },
    );
    let mut steps = k.write_steps(cpu, [(addr, Write::Bytes(insn.to_vec()))].into_iter());
    steps.push(step_then_others(move |k, cpu| k.arm64_clean_inval(cpu, addr, 4)));
    k.with_steps(steps)
}

/// An instruction as it lies in memory: little-endian whatever the data order.
fn insn_bytes(insn: u64) -> Result<[u8; 4], Stop> {
    let word = u32::try_from(insn)
        .map_err(|_| Stop::not_modelled(format!("{insn:#x} as an instruction of 32 bits")))?;
    Ok(word.to_le_bytes())
}

/// What is written through the alias.
#[derive(Clone)]
enum Write {
    Bytes(Vec<u8>),
    Fill(Vec<u8>, u64),
}

/// The lock of those who use the fixmap.
const PATCH_LOCK: &str = "patch_lock";

impl Kernel {
    /// Writes, then `caches_clean_inval_pou` and `kick_all_cpus_sync`, as `flush_icache_range`
    /// does.
    fn copying(
        &mut self,
        cpu: CpuId,
        writes: impl Iterator<Item = (VirtAddr, Write)> + 'static,
        (dst, len): (VirtAddr, u64),
    ) -> Result<i64, Stop> {
        let mut steps = self.write_steps(cpu, writes);
        steps.extend([
            step_then_others(move |k, cpu| k.arm64_clean_inval(cpu, dst, len)),
            cross_step(|k, cpu| k.kick_all_cpus(cpu)),
            step(move |k, _| {
                k.returns(dst.0 as i64);
                Ok(())
            }),
        ]);
        self.with_steps(steps)
    }

    /// Writes through the fixmap under its lock, with interrupts off.
    fn write_steps(
        &self,
        cpu: CpuId,
        writes: impl Iterator<Item = (VirtAddr, Write)> + 'static,
    ) -> Vec<Step> {
        let irqs = self.machine.irqs_on(cpu);
        let mut steps = lock_irqsave_steps(PATCH_LOCK);
        steps.push(writes_step(writes));
        steps.push(unlock_step(PATCH_LOCK));
        steps.push(step_then_others(move |k, cpu| {
            k.machine.set_irqs(cpu, irqs);
            Ok(())
        }));
        steps
    }

    /// Maps the page of a text address at the fixmap, where all CPUs can see it.
    fn map_fixmap(&mut self, cpu: CpuId, addr: VirtAddr) -> Result<u32, Stop> {
        let page = self.pages.start_of(addr);
        let mapping = self.machine.lookup(SpaceId::KERNEL, page);
        let phys = mapping.and_then(|m| m.phys.checked_add(page.0.wrapping_sub(m.virt.0)));
        let Some(phys) = phys else {
            return Err(Stop::died("BUG_ON(!page) in patch_map", addr));
        };
        if !self.is_core_text(addr) && self.layout.direct_map.contains(addr) {
            return Err(Stop::not_modelled("patching through an address of the direct map"));
        }
        let (alias, bytes, shift) = (self.layout.patch, self.pages.bytes(), self.pages.shift());
        let window = self.open_window(cpu, WindowPurpose::PatchShared, phys, bytes);
        let perm = Perm::KERNEL_RW;
        self.machine.map(cpu, SpaceId::KERNEL, alias, phys, bytes, shift, perm)?;
        self.arm64_after_set_pte(cpu)?;
        Ok(window)
    }
}

/// One write after another.
fn writes_step(mut writes: impl Iterator<Item = (VirtAddr, Write)> + 'static) -> Step {
    once(move |k, _| {
        if let Some((addr, write)) = writes.next() {
            k.later([fixmap_step(addr, write), writes_step(writes)]);
        }
        Ok(())
    })
}

/// Maps the page of a text address at the fixmap, writes, unmaps and flushes: others may run
/// between these.
fn fixmap_step(addr: VirtAddr, write: Write) -> Step {
    once(move |k, cpu| {
        let window = k.map_fixmap(cpu, addr)?;
        let (alias, page_bytes) = (k.layout.patch, k.pages.bytes());
        let at = alias.offset(k.pages.offset_of(addr));
        k.later([
            pause(),
            step_then_others(move |k, cpu| match &write {
                Write::Bytes(bytes) => k.store_plain(cpu, at, bytes),
                Write::Fill(_, 0) => Ok(()),
                Write::Fill(pattern, len) => Ok(k.machine.fill(cpu, at, *len, pattern)?),
            }),
            step_then_others(move |k, cpu| {
                Ok(k.machine.unmap(cpu, SpaceId::KERNEL, alias, page_bytes)?)
            }),
            step(move |k, cpu| {
                k.arm64_flush_kernel_range(cpu, alias.0, alias.0 + page_bytes)?;
                k.close_window(cpu, window);
                Ok(())
            }),
        ]);
        Ok(())
    })
}

/// `aarch64_insn_write(addr, insn)`: the store alone, no maintenance.
pub(crate) fn insn_write(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    let insn = insn_bytes(args.get(1))?;
    k.write_text(cpu, addr, &insn)
}

/// `aarch64_insn_write_literal_u64(addr, val)`: the store alone, no maintenance.
pub(crate) fn write_literal(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.write_text(cpu, args.addr(0), &args.get(1).to_le_bytes())
}

/// `caches_clean_inval_pou(start, end)`.
pub(crate) fn clean_inval(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let len = args.get(1).saturating_sub(args.get(0));
    k.check_maintained(len)?;
    k.arm64_clean_inval(cpu, args.addr(0), len)?;
    Ok(0)
}

/// `aarch64_insn_patch_text(addrs, insns, cnt)`: every CPU stops; the last to arrive patches, the
/// others synchronise when they see that it is done. Which CPU is last is free: here the caller.
/// The addresses follow each other, one instruction each.
pub(crate) fn patch_text(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (addr, code) = (args.addr(0), args.code().to_vec());
    if code.is_empty() {
        return Ok(-EINVAL);
    }
    if !code.len().is_multiple_of(4) {
        return Err(Stop::not_modelled("a part of an instruction"));
    }
    let patch = patch_step(addr, code);
    let steps = k.stop_steps(cpu, Some("isb"), vec![patch]);
    k.with_steps(steps)
}

/// Patches one instruction after another, to the first that fails.
fn patch_step(at: VirtAddr, mut code: Vec<u8>) -> Step {
    once(move |k, _| {
        let rest = code.split_off(4.min(code.len()));
        let word = code.try_into().map_or(0, u32::from_le_bytes);
        let one = Args::of(&[at.0, u64::from(word)]);
        k.later([
            call_step("aarch64_insn_patch_text_nosync", one),
            once(move |k, cpu| {
                let error = k.nested_result(cpu).unwrap_or(0);
                k.returns(error);
                if error == 0 && !rest.is_empty() {
                    k.later([patch_step(at.offset(4), rest)]);
                }
                Ok(())
            }),
        ]);
        Ok(())
    })
}

impl Kernel {
    /// `__aarch64_insn_write`: through the fixmap.
    fn write_text(&mut self, cpu: CpuId, addr: VirtAddr, bytes: &[u8]) -> Result<i64, Stop> {
        if bytes.len() as u64 > self.pages.room_at(addr) {
            return Err(Stop::not_modelled("a write across two pages"));
        }
        let steps = self.write_steps(cpu, [(addr, Write::Bytes(bytes.to_vec()))].into_iter());
        self.with_steps(steps)
    }
}
