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
//! An allocator of pages hands on under locks of its own, which no stream shows: who is given a
//! frame has learned what the one did who gave it back.
//!
//! Not modelled: ordinary memory as a way to learn (loads of what another CPU stored), and what the
//! sender of a cross-call learns from its receivers.

use textbed_arch::CpuId;
use textbed_event::{Kind, KindSet, View};

use crate::fetch::clock::Clock;
use crate::fetch::edges::Edges;
use crate::mark::Mark;
use crate::per_cpu::PerCpu;

/// By which events CPUs learn of each other.
pub(crate) const EDGES: KindSet = KindSet::of(&[
    Kind::IpiSent,
    Kind::IpiTaken,
    Kind::IpiDone,
    Kind::LockAcquired,
    Kind::LockReleased,
    Kind::Publish,
    Kind::Observe,
    Kind::StopMachine,
    Kind::GracePeriod,
]);

/// Who knows of what others did, up to which event of each.
#[derive(Default, Debug)]
pub(crate) struct Told {
    known: PerCpu<Clock>,
    /// What a CPU knew at its last barrier that walks of all go by.
    shown: PerCpu<Clock>,
    edges: Edges<Clock>,
}

impl Told {
    /// Event `seq` of `p`, one of `cpus`; `shared`: the lock is held with others.
    pub(crate) fn hear(&mut self, view: &View, (p, seq): (CpuId, u64), shared: bool, cpus: u16) {
        let Told { known, edges, .. } = self;
        let mine = known.of(p);
        let mut knows = mine.clone();
        knows.set(p, seq);
        match *view {
            View::IpiSent { ipi, .. } => edges.ipi_sent(ipi, knows),
            View::IpiTaken { ipi, .. } => {
                edges.ipi_taken(ipi).into_iter().for_each(|c| mine.join(c))
            }
            View::IpiDone { ipi, waited: false } => edges.ipi_served(ipi, &knows),
            View::IpiDone { ipi, waited: true } => {
                edges.ipi_waited(ipi).iter().for_each(|c| mine.join(c));
            }
            View::LockReleased { lock } => edges.lock_released(lock, shared, knows),
            View::LockAcquired { lock } => {
                edges.lock_acquired(lock, shared).for_each(|c| mine.join(c));
            }
            View::Publish { slot, value } => edges.published(slot, value, knows),
            View::Observe { slot, value } => {
                edges.observed(slot, value).into_iter().for_each(|c| mine.join(c));
            }
            View::StopMachine { .. } | View::GracePeriod { .. } => {
                let mut all = Clock::default();
                (0..cpus).for_each(|cpu| all.set(CpuId(cpu), seq));
                (0..cpus).for_each(|cpu| known.set(CpuId(cpu), all.clone()));
            }
            _ => {}
        }
    }

    /// `cpu` is given a frame that went back at `freed`.
    pub(crate) fn given(&mut self, cpu: CpuId, freed: &Mark) {
        self.known.of(cpu).set(freed.cpu, freed.seq);
    }

    /// Up to which event of `other` something tells `cpu` of it, whether or not a barrier followed.
    pub(crate) fn knows(&self, cpu: CpuId, other: CpuId) -> u64 {
        self.known.get(cpu).map_or(0, |known| known.of(other))
    }

    /// A barrier of `cpu` that walks go by.
    pub(crate) fn barrier(&mut self, cpu: CpuId) {
        if let Some(known) = self.known.get(cpu) {
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
            told.hear(&view, (cpu, seq), false, 3);
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
        hear(&mut told, q, View::StopMachine { begin: false });
        told.barrier(p);
        assert_eq!([shown(&told, p, r), shown(&told, q, r)], [60, 0]);
    }
}
