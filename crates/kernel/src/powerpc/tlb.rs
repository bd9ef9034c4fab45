//! powerpc TLB flushes of kernel addresses: with radix the whole of PID 0, whatever the range (and
//! that of an address space, by its PID); with hashed tables of 32 bits the entries that were made;
//! on 8xx a page, or everything.
//!
//! Modelled: tlbie with its barriers, and one more on POWER9 whose tlbie passes stores; without
//! tlbie an interrupt to all CPUs and tlbiel. From: Linux 6.12 and 6.19
//! arch/powerpc/mm/book3s64/radix_tlb.c (`_tlbie_pid`, `fixup_tlbie_pid`), radix_pgtable.c; 5.19
//! and 6.12 arch/powerpc/include/asm/book3s/32/tlbflush.h, asm/nohash/tlbflush.h. Not modelled:
//! H_RPT_INVALIDATE, the sets that tlbiel steps through on POWER9.

use textbed_arch::{CpuId, FRAME_BYTES, Features, VirtAddr};
use textbed_machine::{Machine, MachineError};

use crate::error::Stop;
use crate::generic::instruction;
use crate::kernel::Kernel;
use crate::powerpc::PowerMmu;

/// RB of a tlbie that names a PID and no address (IS = 1).
const RB_IS_PID: u64 = 1 << 10;
/// The address of the second tlbie, rounded to its page: one that is hardly in use.
const UNUSED: VirtAddr = VirtAddr((1 << 52) - 1);

impl Kernel {
    /// The size of a page in RB of a tlbie or tlbiel by address (AP; `radix_init_page_sizes`).
    pub(crate) fn power_page_ap(&self) -> u64 {
        let ap = if self.pages.shift() == 16 { 5 } else { 0 };
        ap << 5
    }

    /// `flush_tlb_kernel_range`; with hashed tables of 64 bits an empty function.
    pub(crate) fn power_flush_kernel(
        &mut self,
        cpu: CpuId,
        start: u64,
        end: u64,
    ) -> Result<(), Stop> {
        match self.power_mmu() {
            Some(PowerMmu::Radix) => self.radix_flush_pid(cpu, 0),
            // Nothing: leaves that change flush their entries.
            Some(PowerMmu::Hash64) | None => Ok(()),
            Some(PowerMmu::Hash32) => self.hash32_flush(cpu, start, end),
            Some(PowerMmu::Soft8xx) => self.mpc8xx_flush_kernel(cpu, start, end),
        }
    }

    /// On 8xx, which has one CPU.
    fn mpc8xx_flush_kernel(&mut self, cpu: CpuId, start: u64, end: u64) -> Result<(), Stop> {
        let start = start & !(FRAME_BYTES - 1);
        if end.saturating_sub(start) <= FRAME_BYTES {
            self.machine.tlbi(cpu, "tlbie", VirtAddr(start), FRAME_BYTES, 0)?;
            return Ok(self.machine.op_named(cpu, "sync", 0)?);
        }
        for op in ["sync", "tlbia", "isync"] {
            self.machine.op_named(cpu, op, 0)?;
        }
        Ok(())
    }

    /// `radix__flush_tlb_kernel_range` (PID 0), `radix__flush_tlb_mm` of a space that more than one
    /// CPU has used.
    pub(crate) fn radix_flush_pid(&mut self, cpu: CpuId, pid: u16) -> Result<(), Stop> {
        if self.features.contains(Features::PPC_TLBIE) {
            self.machine.op_named(cpu, "ptesync", 0)?;
            let row = instruction(self.arch, "tlbie")?;
            self.machine.op_with(cpu, row, &[RB_IS_PID, u64::from(pid)])?;
            if self.features.contains(Features::PPC_TLBIE_STQ) {
                self.machine.op_named(cpu, "ptesync", 0)?;
                let unused = self.pages.start_of(UNUSED);
                self.machine.tlbi(cpu, "tlbie", unused, self.pages.bytes(), pid)?;
            }
            self.machine.op_named(cpu, "eieio", 0)?;
            self.machine.op_named(cpu, "tlbsync", 0)?;
            self.machine.op_named(cpu, "ptesync", 0)?;
            return Ok(());
        }
        let tlbiel = instruction(self.arch, "tlbiel")?;
        let mut local = |m: &mut Machine, on: CpuId| -> Result<(), MachineError> {
            m.op_named(on, "ptesync", 0)?;
            m.op_with(on, tlbiel, &[RB_IS_PID, u64::from(pid)])?;
            m.op_named(on, "ptesync", 0)?;
            Ok(())
        };
        self.on_each_cpu(cpu, "do_tlbiel_kernel", &mut local)
    }
}
