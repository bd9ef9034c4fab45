//! Reservations: what a load-exclusive or load-and-reserve notes, and what loses it.
//!
//! One per CPU, for a granule as large as a data line. It is lost when any other CPU stores to the
//! granule, whatever it stores; by the CPU's own conditional store; on arm64 by an exception return
//! and CLREX (DDI 0487 B2.12). Not modelled: that it may be lost at any time for no reason, and
//! that a plain store of the CPU itself may lose it.

use textbed_arch::{CpuId, VirtAddr};

use crate::Machine;

impl Machine {
    /// The CPU has a reservation for the granule at `virt`; the one that it had is gone.
    pub fn reserve(&mut self, cpu: CpuId, virt: VirtAddr) {
        let granule = self.granule(cpu, virt);
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.reserved = granule;
            self.watchers |= granule.is_some();
        }
    }

    /// Whether a conditional store to `virt` may be made. The reservation is gone then.
    pub fn take_reservation(&mut self, cpu: CpuId, virt: VirtAddr) -> bool {
        let granule = self.granule(cpu, virt);
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return false };
        granule.is_some() && c.reserved.take() == granule
    }

    /// The CPU gives its reservation up.
    pub fn clear_reservation(&mut self, cpu: CpuId) {
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.reserved = None;
        }
    }

    fn granule(&self, cpu: CpuId, virt: VirtAddr) -> Option<u64> {
        let bytes = u64::from(self.lines.geometry().0);
        Some(self.probe(cpu, virt)?.0 / bytes)
    }

    /// A store of `by`: others lose their reservations of what it touches, which is an event on
    /// arm64, and whoever watches a line of it sees the store.
    pub(crate) fn tell_watchers(&mut self, by: CpuId, phys: u64, len: u64) {
        if !self.watchers || len == 0 {
            return;
        }
        let bytes = u64::from(self.lines.geometry().0);
        let touched = phys / bytes..=(phys + (len - 1)) / bytes;
        for (n, c) in self.cpus.iter_mut().enumerate() {
            if n != by.index() && c.reserved.is_some_and(|granule| touched.contains(&granule)) {
                c.reserved = None;
                c.waiting.event = true;
                self.stirs += 1;
            }
            if c.waiting.watched.is_some_and(|line| touched.contains(&line)) {
                c.waiting.watched = None;
                self.stirs += 1;
            }
        }
        self.watchers = self.cpus.iter().any(|c| c.reserved.or(c.waiting.watched).is_some());
    }
}
