//! arm64 and powerpc: changes of the tables that a CPU learned of, and then executed a barrier.
//!
//! A barrier orders for walks what its CPU stored, and what it had observed of others' stores: a
//! DSB completes what a DMB would order, with what was observed before it, and ptesync is
//! cumulative. So what a CPU invalidates behind such a barrier comes in time for changes that it
//! learned of before, though whoever made them executed none: a kernel may unmap without a barrier
//! and have one CPU flush for all, or have the receivers of an interrupt flush for its sender
//! (Linux 6.12 `__purge_vmap_area_lazy()`, arch/powerpc/kernel/smp.c `smp_muxed_ipi_set_message()`,
//! arch/powerpc/mm/book3s64/radix_tlb.c `_tlbiel_kernel_broadcast()`). From: for arm64 the
//! axiomatic model of Simner et al., ESOP 2022, as in rems-project/archsem
//! ArchSemArm/VMSA22Arm.v, read: a store that a load saw (`rfe`), a DSB behind that load and the
//! TLBI behind the DSB (`bob`) are ordered before each other, so the TLBI follows the store in
//! `wco`, and a walk that misses the store is ordered before the TLBI (`obtlbi_translate`). For
//! powerpc: Power ISA 3.1B Book II 1.7.1 and Book III 6.9.2, from memory.
//!
//! Not modelled: ordinary memory as a way to learn (loads of what another CPU stored), and what the
//! sender of a cross-call learns from its receivers.

use textbed_arch::CpuId;
use textbed_event::View;

use crate::fetch::clock::Clock;
use crate::fetch::edges::{Edges, Knows};
use crate::per_cpu::PerCpu;

/// Up to which event of each CPU every one knows of.
#[derive(Default, Debug)]
struct Known(PerCpu<Clock>);

impl Knows<Clock> for Known {
    fn release(&mut self, p: CpuId, seq: u64, _full: bool) -> Clock {
        let mut knows = self.0.of(p).clone();
        knows.set(p, seq);
        knows
    }

    fn acquire(&mut self, p: CpuId, from: &Clock) {
        self.0.of(p).join(from);
    }
}

/// Who knows of what others did, up to which event of each.
#[derive(Default, Debug)]
pub(crate) struct Told {
    known: Known,
    /// What a CPU knew at its last barrier that walks of all go by.
    shown: PerCpu<Clock>,
    edges: Edges<Clock>,
}

impl Told {
    /// An event, by its CPU and number; `shared`: the lock is held with others.
    pub(crate) fn hear(&mut self, view: &View, at: (CpuId, u64), shared: bool) {
        self.edges.hear(view, at, shared, &mut self.known);
    }

    /// Everybody knows what everybody did up to event `seq`.
    pub(crate) fn all_meet(&mut self, seq: u64, cpus: u16) {
        let mut all = Clock::default();
        (0..cpus).for_each(|cpu| all.set(CpuId(cpu), seq));
        (0..cpus).for_each(|cpu| self.known.0.set(CpuId(cpu), all.clone()));
    }

    /// Up to which event of `other` something tells `cpu` of it, whether or not a barrier followed.
    pub(crate) fn knows(&self, cpu: CpuId, other: CpuId) -> u64 {
        self.known.0.get(cpu).map_or(0, |known| known.of(other))
    }

    /// A barrier of `cpu` that walks go by.
    pub(crate) fn barrier(&mut self, cpu: CpuId) {
        if let Some(known) = self.known.0.get(cpu) {
            self.shown.set(cpu, known.clone());
        }
    }

    /// Up to which event of each CPU what `cpu` invalidates from here on comes in time.
    pub(crate) fn shown(&self, cpu: CpuId) -> Clock {
        self.shown.get(cpu).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use textbed_arch::Pfn;
    use textbed_event::NameId;

    use super::*;

    #[test]
    fn what_is_learned_before_a_barrier_is_shown_by_it_and_handed_on() {
        let [p, q, r] = [0, 1, 2].map(CpuId);
        let (lock, ipi) = (NameId(7), 1);
        let mut told = Told::default();
        let mut seq = 0;
        let mut hear = |told: &mut Told, cpu, view: View| {
            seq += 10;
            told.hear(&view, (cpu, seq), false);
        };
        let shown = |told: &Told, on, by| told.shown(on).of(by);
        hear(&mut told, p, View::LockReleased { lock });
        told.barrier(q);
        assert_eq!(shown(&told, q, p), 0, "it did not have the lock");
        hear(&mut told, q, View::LockAcquired { lock });
        hear(&mut told, r, View::Observe { slot: lock, value: 0 });
        assert_eq!(shown(&told, q, p), 0, "it had no barrier since");
        hear(&mut told, q, View::IpiSent { ipi, function: lock, targets: 0b100 });
        told.barrier(q);
        hear(&mut told, r, View::IpiTaken { ipi, by_interrupt: true });
        told.barrier(r);
        assert_eq!([shown(&told, q, p), shown(&told, r, p), shown(&told, r, q)], [10, 10, 40]);
        let part = |pfn, count| View::FrameAlloc { pfn: Pfn(pfn), count, zeroed: false };
        hear(&mut told, r, View::FrameFree { pfn: Pfn(4), count: 4 });
        for pfn in [3, 6] {
            hear(&mut told, p, part(pfn, 1));
            told.barrier(p);
            assert_eq!(shown(&told, p, r), if pfn == 3 { 0 } else { 60 });
        }
        hear(&mut told, q, part(6, 1));
        told.barrier(q);
        assert_eq!(shown(&told, q, r), 0, "that was another one's");
        told.all_meet(110, 3);
        told.barrier(p);
        assert_eq!([shown(&told, p, r), shown(&told, q, r)], [110, 0]);
    }
}
