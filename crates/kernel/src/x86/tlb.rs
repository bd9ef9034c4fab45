//! x86 kernel TLB flushes: by interrupts to every CPU, always waited for, or from 6.15 on by
//! INVLPGB where the CPU has it, which interrupts nobody.
//!
//! From: Linux 5.19, 6.3, 6.12 and 6.18.2 arch/x86/mm/tlb.c, 6.18.2 arch/x86/include/asm/tlb.h. As
//! there, the flush of a range by INVLPGB names no address to the CPU (the flag is not set), and so
//! invalidates everything. Not modelled: paravirtual flushes; of an address space lazy TLB mode,
//! global ASIDs, and the second PCID of page-table isolation.

use textbed_arch::{Arch, CpuId, FRAME_BYTES, FRAME_SHIFT, Features, SpaceId, VirtAddr};
use textbed_machine::{CpuMask, Machine, MachineError};

use crate::caps::Fact;
use crate::error::Stop;
use crate::generic::instruction;
use crate::kernel::Kernel;
use crate::x86::cpa::FLUSH_CEILING_PAGES;

/// INVPCID type that drops everything.
const INVPCID_ALL_AND_GLOBAL: u64 = 2;
/// Pages that one INVLPGB takes (CPUID 0x80000008 EDX gives it; this is a usual answer).
const INVLPGB_MAX_PAGES: u64 = 8;
/// CR4.PGE; its change drops everything.
const CR4_PGE: u64 = 1 << 7;

impl Kernel {
    /// `flush_tlb_all`: everything, global entries too, on all CPUs.
    pub(crate) fn flush_tlb_all(&mut self, cpu: CpuId) -> Result<(), Stop> {
        if self.uses_invlpgb() {
            return self.invlpgb(cpu, 1);
        }
        let pcid = self.features.contains(Features::X86_PCID);
        let mut local = move |m: &mut Machine, on: CpuId| flush_everything(m, on, pcid);
        self.on_each_cpu(cpu, "do_flush_tlb_all", &mut local)
    }

    /// `cpa_flush_all`: the same, always by interrupts, and all that is cached with it if asked
    /// for.
    pub(crate) fn cpa_flush_all(&mut self, cpu: CpuId, cache: bool) -> Result<(), Stop> {
        let pcid = self.features.contains(Features::X86_PCID);
        let mut local = move |m: &mut Machine, on: CpuId| {
            flush_everything(m, on, pcid)?;
            if cache {
                m.op_named(on, "wbinvd", 0)?;
            }
            Ok(())
        };
        self.on_each_cpu(cpu, "__cpa_flush_all", &mut local)
    }

    /// `__flush_tlb_all`: this CPU alone.
    pub(crate) fn x86_flush_local(&mut self, cpu: CpuId) -> Result<(), Stop> {
        let pcid = self.features.contains(Features::X86_PCID);
        Ok(flush_everything(&mut self.machine, cpu, pcid)?)
    }

    /// Whether kernel flushes are broadcast by hardware.
    pub(crate) fn uses_invlpgb(&self) -> bool {
        self.caps.word(Fact::Invlpgb) == "if-the-cpu-has-it"
            && self.features.contains(Features::X86_INVLPGB)
    }

    /// Broadcast invalidations, and the wait for them.
    fn invlpgb(&mut self, cpu: CpuId, times: u64) -> Result<(), Stop> {
        let row = instruction(Arch::X86_64, "invlpgb")?;
        for _ in 0..times {
            self.machine.op_with(cpu, row, &[0, 0, 0, 1])?;
        }
        self.machine.op_named(cpu, "tlbsync", 0)?;
        Ok(())
    }

    /// Single pages on all CPUs.
    pub(crate) fn flush_tlb_pages(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        pages: u64,
    ) -> Result<(), Stop> {
        if self.uses_invlpgb() {
            return self.invlpgb(cpu, pages.div_ceil(INVLPGB_MAX_PAGES).max(1));
        }
        self.invlpg_each(
            cpu,
            "do_kernel_range_flush",
            (0..pages).map(|n| start.offset(n * FRAME_BYTES)),
        )
    }

    /// `__cpa_flush_tlb`: pages that need not follow each other, on all CPUs.
    pub(crate) fn flush_tlb_each(&mut self, cpu: CpuId, pages: &[VirtAddr]) -> Result<(), Stop> {
        self.invlpg_each(cpu, "__cpa_flush_tlb", pages.iter().copied())
    }

    fn invlpg_each(
        &mut self,
        cpu: CpuId,
        function: &str,
        pages: impl Iterator<Item = VirtAddr> + Clone,
    ) -> Result<(), Stop> {
        let mut local = move |m: &mut Machine, on: CpuId| -> Result<(), MachineError> {
            pages.clone().try_for_each(|page| Ok(m.op_named(on, "invlpg", page.0)?))
        };
        self.on_each_cpu(cpu, function, &mut local)
    }

    /// `flush_tlb_mm_range` of everything: the CPUs that have the space loaded store to CR3. One
    /// that has it no more flushes when it loads it again, as each load of it does here.
    pub(crate) fn x86_flush_space(&mut self, cpu: CpuId, space: SpaceId) -> Result<(), Stop> {
        let others: CpuMask =
            self.online().filter(|on| *on != cpu && self.machine.space_of(*on) == space).collect();
        let mut local = |m: &mut Machine, on: CpuId| m.load_space(on, space, m.asid_of(on), false);
        local(&mut self.machine, cpu)?;
        if others == CpuMask::EMPTY {
            return Ok(());
        }
        self.interrupts_others(cpu)?;
        Ok(self.machine.ipi(cpu, others, "flush_tlb_func", true, &mut local)?)
    }

    /// `flush_tlb_kernel_range` on x86.
    pub(crate) fn x86_flush_kernel_range(
        &mut self,
        cpu: CpuId,
        start: u64,
        end: u64,
    ) -> Result<(), Stop> {
        if end.saturating_sub(start) > FLUSH_CEILING_PAGES << FRAME_SHIFT {
            self.flush_tlb_all(cpu)
        } else {
            let pages = end.saturating_sub(start).div_ceil(FRAME_BYTES);
            self.flush_tlb_pages(cpu, VirtAddr(start), pages)
        }
    }
}

/// `__flush_tlb_all` on one CPU: INVPCID for all contexts where it is there (taken to come with
/// PCIDs), else CR4.PGE off and on.
fn flush_everything(m: &mut Machine, on: CpuId, pcid: bool) -> Result<(), MachineError> {
    if pcid {
        let row = instruction(Arch::X86_64, "invpcid")?;
        m.op_with(on, row, &[INVPCID_ALL_AND_GLOBAL, 0, 0])?;
    } else {
        let cr4 = m.cr4(on);
        m.op_named(on, "mov cr4", cr4 & !CR4_PGE)?;
        m.op_named(on, "mov cr4", cr4)?;
    }
    Ok(())
}
