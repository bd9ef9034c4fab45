//! x86 text patching through the poking address space.
//!
//! Modelled: chunks of at most two pages, interrupts off, entries of the private space, the switch
//! to it (with a flush of what it left the last time) and back (both serialise this CPU), the
//! stores, the read-back through the executable mapping, text_mutex; others may run between chunks
//! (inside one there is nothing that they could see but its stores). From: Linux 5.19 and 6.12
//! arch/x86/kernel/alternative.c. Not modelled: hardware breakpoints, lazy TLB mode, whether the
//! caller of text_poke holds text_mutex, the interrupt that a later flush may send to a CPU that
//! poked before (before 6.14; it does nothing there), LASS. The INT3 protocol is in `batch`.

use textbed_arch::{CpuId, FRAME_BYTES, FRAME_SHIFT, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Flags, View, WarnReason, WindowPurpose};
use textbed_machine::{Machine, MachineError};

use crate::call::Args;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{Step, lock_step, once, pause, step, unlock_step};
use crate::stores::by_page;

/// PCID under which the poking space is loaded.
pub(crate) const POKING_PCID: u16 = 2;

/// What is written.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    Bytes(&'a [u8]),
    Fill(u8, u64),
}

impl What<'_> {
    fn len(self) -> u64 {
        match self {
            What::Bytes(bytes) => bytes.len() as u64,
            What::Fill(_, len) => len,
        }
    }

    /// `len` bytes from `offset` on.
    fn part(&self, offset: u64, len: u64) -> What<'_> {
        match self {
            What::Bytes(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let to = from.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
                What::Bytes(bytes.get(from..to).unwrap_or(&[]))
            }
            What::Fill(byte, _) => What::Fill(*byte, len),
        }
    }
}

/// `text_poke(addr, opcode, len)`.
pub(crate) fn text_poke(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    let room = 2 * FRAME_BYTES - addr.page_offset();
    if args.code().len() as u64 > room {
        return Err(Stop::not_modelled(
            "text_poke of more than reaches the end of the second page",
        ));
    }
    if !args.code().is_empty() {
        let len = u16::try_from(args.code().len()).unwrap_or(u16::MAX);
        let site = View::PatchSite { virt: addr, old_len: len, new_len: len, handler: false };
        k.emit(cpu, Flags::default(), site);
        k.poke(cpu, addr, What::Bytes(args.code()))?;
    }
    Ok(addr.0 as i64)
}

/// `text_poke_early(addr, opcode, len)`: plain stores; but for text of a module (which it is once
/// the module is formed) with interrupts off and a synchronisation of this CPU alone.
pub(crate) fn text_poke_early(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    if k.users.modules.is_text(addr) {
        k.store_plain(cpu, addr, args.code())?;
        return Ok(0);
    }
    let irqs = k.machine.irqs_on(cpu);
    k.machine.set_irqs(cpu, false);
    k.store_plain(cpu, addr, args.code())?;
    k.sync_core(cpu)?;
    k.machine.set_irqs(cpu, irqs);
    Ok(0)
}

/// `text_poke_copy_locked(addr, opcode, len, core_ok)`.
pub(crate) fn text_poke_copy_locked(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    if args.get(2) == 0 && k.is_core_text(addr) {
        k.warn_once(cpu, "text_poke_copy", WarnReason::BadArgument, addr);
        return Ok(0);
    }
    k.with_steps(vec![chunks_step(addr, Owned::Bytes(args.code().to_vec()), 0), gives(addr)])
}

/// `text_poke_copy(addr, opcode, len)`.
pub(crate) fn text_poke_copy(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.poke_chunks(cpu, "text_poke_copy", args.addr(0), Owned::Bytes(args.code().to_vec()))
}

/// `text_poke_set(addr, c, len)`.
pub(crate) fn text_poke_set(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let byte = u8::try_from(args.get(1)).unwrap_or(0);
    k.poke_chunks(cpu, "text_poke_set", args.addr(0), Owned::Fill(byte, args.get(2)))
}

/// `text_poke_sync()`: an interrupt to every CPU whose handler serialises.
pub(crate) fn text_poke_sync(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    let serialize = k.features.contains(Features::X86_SERIALIZE);
    let mut local = move |m: &mut Machine, on: CpuId| -> Result<(), MachineError> {
        m.op_named(on, if serialize { "serialize" } else { "iretq" }, 0)?;
        Ok(())
    };
    k.on_each_cpu(cpu, "do_sync_core", &mut local)?;
    Ok(0)
}

/// The same to keep.
enum Owned {
    Bytes(Vec<u8>),
    Fill(u8, u64),
}

impl Owned {
    fn what(&self) -> What<'_> {
        match self {
            Owned::Bytes(bytes) => What::Bytes(bytes),
            Owned::Fill(byte, len) => What::Fill(*byte, *len),
        }
    }
}

/// Writes from `done` on in chunks that end with their second page; others may run behind each.
fn chunks_step(addr: VirtAddr, what: Owned, done: u64) -> Step {
    once(move |k, cpu| {
        let len = what.what().len();
        if addr.0.checked_add(len).is_none() {
            return Err(Stop::not_modelled("text that wraps around the address space"));
        }
        if done < len {
            let at = addr.offset(done);
            let chunk = (2 * FRAME_BYTES - at.page_offset()).min(len - done);
            k.poke(cpu, at, what.what().part(done, chunk))?;
            k.later([pause(), chunks_step(addr, what, done + chunk)]);
        }
        Ok(())
    })
}

/// The call returns the address that it was given.
fn gives(addr: VirtAddr) -> Step {
    step(move |k, _| {
        k.returns(addr.0 as i64);
        Ok(())
    })
}

impl Kernel {
    fn poke_chunks(
        &mut self,
        cpu: CpuId,
        site: &'static str,
        addr: VirtAddr,
        what: Owned,
    ) -> Result<i64, Stop> {
        if self.is_core_text(addr) {
            self.warn_once(cpu, site, WarnReason::BadArgument, addr);
            return Ok(0);
        }
        let (lock, unlock) = (lock_step("text_mutex"), unlock_step("text_mutex"));
        self.with_steps(vec![lock, chunks_step(addr, what, 0), unlock, gives(addr)])
    }

    /// `sync_core()` on this CPU: SERIALIZE, or a return to itself.
    fn sync_core(&mut self, cpu: CpuId) -> Result<(), Stop> {
        let serialize = self.features.contains(Features::X86_SERIALIZE);
        self.machine.op_named(cpu, if serialize { "serialize" } else { "iretq" }, 0)?;
        Ok(())
    }

    /// `__text_poke`: one chunk inside two pages.
    pub(crate) fn poke(&mut self, cpu: CpuId, addr: VirtAddr, what: What<'_>) -> Result<(), Stop> {
        let first = addr.align_down(FRAME_SHIFT);
        let offset = addr.page_offset();
        let pages = (offset + what.len()).div_ceil(FRAME_BYTES);
        let mut frames = Vec::new();
        for page in 0..pages {
            frames.push(self.poked_frame(first.offset(page * FRAME_BYTES))?);
        }
        let space = self
            .patch_spaces
            .first()
            .copied()
            .ok_or_else(|| Stop::not_modelled("patching before the poking space exists"))?;
        let alias = self.layout.patch;
        let irqs = self.machine.irqs_on(cpu);
        self.machine.set_irqs(cpu, false);
        let windows: Vec<u32> = frames
            .iter()
            .map(|f| self.open_window(cpu, WindowPurpose::PatchPrivate, *f, FRAME_BYTES))
            .collect();
        let perm = Perm::PRESENT | Perm::READ | Perm::WRITE;
        for (page, frame) in frames.iter().enumerate() {
            let virt = alias.offset(page as u64 * FRAME_BYTES);
            self.machine.map(cpu, space, virt, *frame, FRAME_BYTES, FRAME_SHIFT, perm)?;
        }
        let (before, pcid) = (self.machine.space_of(cpu), self.machine.asid_of(cpu));
        // flush_tlb_mm_range after each use finds the space loaded nowhere: it moves the space's
        // generation on, so that the next load is one with a flush. Recorded kernels show these two
        // switches and no other flush.
        self.machine.load_space(cpu, space, POKING_PCID, false)?;
        match what {
            What::Bytes(bytes) => self.store_plain(cpu, alias.offset(offset), bytes)?,
            What::Fill(byte, len) => {
                self.machine.fill(cpu, alias.offset(offset), len, &[byte])?;
            }
        }
        self.machine.unmap(cpu, space, alias, pages * FRAME_BYTES)?;
        self.machine.load_space(cpu, before, pcid, self.features.contains(Features::X86_PCID))?;
        for window in windows {
            self.close_window(cpu, window);
        }
        if let What::Bytes(bytes) = what {
            self.read_back(cpu, addr, bytes)?;
        }
        self.machine.set_irqs(cpu, irqs);
        Ok(())
    }

    /// The frame of a page that is to be patched; a page that is not present is a BUG.
    fn poked_frame(&self, virt: VirtAddr) -> Result<PhysAddr, Stop> {
        let found = self.machine.lookup(SpaceId::KERNEL, virt);
        let frame = found.and_then(|m| m.phys.checked_add(virt.0.wrapping_sub(m.virt.0)));
        frame.ok_or_else(|| Stop::died("BUG_ON(!pages[0]) in __text_poke", virt))
    }

    /// The comparison through the executable mapping.
    fn read_back(&mut self, cpu: CpuId, addr: VirtAddr, bytes: &[u8]) -> Result<(), Stop> {
        let mut at = addr;
        for part in by_page(self.pages, addr, bytes) {
            if !self.machine.compare(cpu, at, part)? {
                return Err(Stop::died("BUG_ON(memcmp) in __text_poke", at));
            }
            at = at.offset(part.len() as u64);
        }
        Ok(())
    }
}
