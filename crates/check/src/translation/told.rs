//! powerpc: changes of the tables that a CPU was told of by an interrupt.
//!
//! The interrupt comes behind what its sender stored, and a ptesync orders that for the walks of
//! the CPU that executes it, too, not what this CPU stored alone (its barrier is cumulative). So
//! the invalidations that a receiver issues for itself behind a ptesync come in time, though the
//! CPU that made the change executed none. From: Linux 6.12 arch/powerpc/kernel/smp.c
//! `smp_muxed_ipi_set_message()`, arch/powerpc/mm/book3s64/radix_tlb.c
//! `_tlbiel_kernel_broadcast()`; Power ISA 3.1B Book II 1.7.1 and Book III 6.9.2 from memory.
//!
//! Not modelled: other ways to be told (locks, published values).

use std::collections::{BTreeMap, VecDeque};

use textbed_arch::CpuId;

/// Interrupts kept that nobody took yet.
const MAX_SENT: usize = 64;

/// Who told whom.
#[derive(Default, Debug)]
pub(crate) struct Told {
    /// Interrupts, their senders, and the events that sent them.
    sent: VecDeque<(u32, CpuId, u64)>,
    /// By receiver and sender, what the receiver's next ptesync orders: up to which event.
    taken: BTreeMap<(CpuId, CpuId), u64>,
}

impl Told {
    pub(crate) fn sent(&mut self, ipi: u32, by: CpuId, seq: u64) {
        if self.sent.len() >= MAX_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back((ipi, by, seq));
    }

    pub(crate) fn taken(&mut self, ipi: u32, on: CpuId) {
        if let Some((_, by, seq)) = self.sent.iter().rev().find(|(id, ..)| *id == ipi) {
            self.taken.insert((on, *by), *seq);
        }
    }

    /// What a ptesync of `cpu` makes its own walks see: of which CPU, up to which event.
    pub(crate) fn ordered(&mut self, cpu: CpuId) -> Vec<(CpuId, u64)> {
        let all: Vec<(CpuId, CpuId)> =
            self.taken.keys().filter(|(on, _)| *on == cpu).copied().collect();
        all.into_iter().filter_map(|key| Some((key.1, self.taken.remove(&key)?))).collect()
    }
}
