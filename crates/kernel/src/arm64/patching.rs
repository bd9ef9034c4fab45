//! arm64 text patching through the fixmap.
//!
//! Modelled: one page at FIX_TEXT_POKE0 for every CPU to see, under patch_lock with interrupts off,
//! the store, its unmapping with a broadcast flush, cache maintenance through the executable
//! address, the interrupt where there is one, patching with all CPUs stopped. From: Linux 5.19 and
//! 6.12 arch/arm64/kernel/patching.c. Not modelled: writing in place without STRICT_MODULE_RWX
//! (before 6.1); the threads and interrupts by which stop_machine gets hold of the CPUs.

use textbed_arch::{CpuId, Perm, SpaceId, VirtAddr};
use textbed_event::{Flags, View, WindowPurpose};

use crate::call::Args;
use crate::errno::EINVAL;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::stores::by_page;

/// `aarch64_insn_copy(dst, src, len)`: NULL for an address that is no multiple of 4.
pub(crate) fn insn_copy(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let dst = args.addr(0);
    if !dst.is_aligned(2) {
        return Ok(0);
    }
    let code = args.code();
    if code.is_empty() {
        return Ok(dst.0 as i64);
    }
    let irqs = k.patch_lock(cpu)?;
    let mut at = dst;
    for part in by_page(k.pages, dst, code) {
        k.through_fixmap(cpu, at, Write::Bytes(part))?;
        at = at.offset(part.len() as u64);
    }
    k.patch_unlock(cpu, irqs)?;
    k.arm64_flush_icache(cpu, dst, code.len() as u64)?;
    Ok(dst.0 as i64)
}

/// `aarch64_insn_set(dst, insn, len)`.
pub(crate) fn insn_set(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (dst, len) = (args.addr(0), args.get(2));
    let insn = insn_bytes(args.get(1))?;
    if !dst.is_aligned(2) {
        return Ok(0);
    }
    if len == 0 {
        return Ok(dst.0 as i64);
    }
    if len % 4 != 0 {
        return Err(Stop::not_modelled("a length that is no multiple of 4"));
    }
    let end = dst.0.checked_add(len);
    let end = end.ok_or_else(|| Stop::not_modelled("text that wraps around the address space"))?;
    let irqs = k.patch_lock(cpu)?;
    let mut at = dst;
    while at.0 < end {
        let part = k.pages.room_at(at).min(end - at.0);
        k.through_fixmap(cpu, at, Write::Fill(&insn, part))?;
        at = at.offset(part);
    }
    k.patch_unlock(cpu, irqs)?;
    k.arm64_flush_icache(cpu, dst, len)?;
    Ok(dst.0 as i64)
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
    let irqs = k.patch_lock(cpu)?;
    k.through_fixmap(cpu, addr, Write::Bytes(&insn))?;
    k.patch_unlock(cpu, irqs)?;
    k.arm64_clean_inval(cpu, addr, 4)?;
    Ok(0)
}

/// An instruction as it lies in memory: little-endian whatever the data order.
fn insn_bytes(insn: u64) -> Result<[u8; 4], Stop> {
    let word = u32::try_from(insn)
        .map_err(|_| Stop::not_modelled(format!("{insn:#x} as an instruction of 32 bits")))?;
    Ok(word.to_le_bytes())
}

/// What is written through the alias.
enum Write<'a> {
    Bytes(&'a [u8]),
    Fill(&'a [u8], u64),
}

impl Kernel {
    fn patch_lock(&mut self, cpu: CpuId) -> Result<bool, Stop> {
        let irqs = self.machine.irqs_on(cpu);
        self.machine.set_irqs(cpu, false);
        self.lock(cpu, "patch_lock")?;
        Ok(irqs)
    }

    fn patch_unlock(&mut self, cpu: CpuId, irqs: bool) -> Result<(), Stop> {
        self.unlock(cpu, "patch_lock")?;
        self.machine.set_irqs(cpu, irqs);
        Ok(())
    }

    /// Maps the page of a text address at the fixmap, writes, unmaps and flushes.
    fn through_fixmap(&mut self, cpu: CpuId, addr: VirtAddr, write: Write<'_>) -> Result<(), Stop> {
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
        let at = alias.offset(self.pages.offset_of(addr));
        match write {
            Write::Bytes(code) => self.store_plain(cpu, at, code)?,
            Write::Fill(pattern, len) => self.machine.fill(cpu, at, len, pattern)?,
        }
        self.machine.unmap(cpu, SpaceId::KERNEL, alias, bytes)?;
        self.arm64_flush_kernel_range(cpu, alias.0, alias.0 + bytes)?;
        self.close_window(cpu, window);
        Ok(())
    }
}

/// `aarch64_insn_write(addr, insn)`: the store alone, no maintenance.
pub(crate) fn insn_write(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    let insn = insn_bytes(args.get(1))?;
    k.write_text(cpu, addr, &insn)?;
    Ok(0)
}

/// `aarch64_insn_write_literal_u64(addr, val)`: the store alone, no maintenance.
pub(crate) fn write_literal(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.write_text(cpu, args.addr(0), &args.get(1).to_le_bytes())?;
    Ok(0)
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
    k.interrupts_others(cpu)?;
    let irqs = k.machine.irqs_on(cpu);
    k.emit(cpu, Flags::default(), View::StopMachine { begin: true });
    let everyone: Vec<CpuId> = k.online().collect();
    for one in &everyone {
        k.machine.set_irqs(*one, false);
    }
    let mut result = 0;
    for (at, insn) in (addr.0..).step_by(4).zip(code.chunks(4)) {
        let word = insn.try_into().map_or(0, u32::from_le_bytes);
        let inner = Args::of(&[at, u64::from(word)]);
        let done = k.inner(cpu, "aarch64_insn_patch_text_nosync", &inner)?;
        result = k.used(cpu, done);
        if result != 0 {
            break;
        }
    }
    k.patch_rounds += 1;
    let slot = format!("stop_machine round {}", k.patch_rounds);
    k.machine.publish(cpu, &slot, 1);
    for other in everyone.iter().filter(|c| **c != cpu) {
        k.machine.observe(*other, &slot);
        k.machine.op_named(*other, "isb", 0)?;
    }
    for one in &everyone {
        k.machine.set_irqs(*one, *one != cpu || irqs);
    }
    k.emit(cpu, Flags::default(), View::StopMachine { begin: false });
    Ok(result)
}

impl Kernel {
    /// `__aarch64_insn_write`: through the fixmap.
    fn write_text(&mut self, cpu: CpuId, addr: VirtAddr, bytes: &[u8]) -> Result<(), Stop> {
        if bytes.len() as u64 > self.pages.room_at(addr) {
            return Err(Stop::not_modelled("a write across two pages"));
        }
        let irqs = self.patch_lock(cpu)?;
        self.through_fixmap(cpu, addr, Write::Bytes(bytes))?;
        self.patch_unlock(cpu, irqs)
    }
}
