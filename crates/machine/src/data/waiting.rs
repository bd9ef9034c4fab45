//! Stores that were issued and are performed later.
//!
//! The event of a store stands where it was issued, in program order; loads of other CPUs that miss
//! it say so. Stores to the same bytes keep the order of their events: another CPU's store to what
//! waits has it performed first (so that two CPUs' pairs of stores do not cross).

use textbed_arch::{Arch, CpuId, PhysAddr, VirtAddr};
use textbed_event::{Flags, MemOrder};

use super::PATIENCE;
use super::past::overlap;
use crate::Machine;
use crate::choice::Choice;
use crate::maintain::PendingClean;

/// Longest store that may wait, in bytes.
pub const MAX_WAITING_BYTES: usize = 64;
/// Stores of one CPU that wait at the same time.
const MAX_WAITING: usize = 8;

/// A store that was issued and waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiting {
    virt: VirtAddr,
    pub(crate) phys: u64,
    pub(crate) bytes: Box<[u8]>,
    /// Number of its event.
    pub(crate) seq: u64,
    /// Loads of others that may still miss it.
    pub(crate) patience: u32,
    /// A clean of its line that was issued after it: it comes after the store.
    pub(crate) clean: Option<PendingClean>,
}

impl Machine {
    /// Whether a store waits instead of being performed. If so, [`Machine::keep_waiting`] is to be
    /// told of its event.
    pub(crate) fn store_waits(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        phys: PhysAddr,
        bytes: &[u8],
        (order, flags): (MemOrder, Flags),
    ) -> bool {
        if !self.reorders() {
            return false;
        }
        // Program order of stores to the same bytes is kept, and that of a clean and later stores
        // to its line.
        self.perform_overlapping(cpu, phys.0, bytes.len() as u64);
        self.perform_before_clean(cpu, phys.0, bytes.len() as u64);
        if matches!(order, MemOrder::Release | MemOrder::Full) {
            self.perform_all(cpu);
            return false;
        }
        self.ask_waiting(cpu);
        let may = match self.arch() {
            Arch::X86_64 => flags.has(Flags::NONTEMPORAL),
            Arch::Arm64 | Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => true,
        };
        let table = self.frames.is_table(phys.pfn());
        if !may || table || bytes.is_empty() || bytes.len() > MAX_WAITING_BYTES {
            return false;
        }
        self.conflicts(cpu, phys.0, bytes.len() as u64);
        let mut old = vec![0; bytes.len()];
        let changes = self.memory.read(phys, &mut old).is_ok() && old != bytes;
        let code = self.may_be_executed(phys.0, bytes.len() as u64);
        changes && self.choices.yes(Choice::StoreWaits { cpu, virt, still: false, code })
    }

    /// A store waits, with its event in the stream.
    pub(crate) fn keep_waiting(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        phys: PhysAddr,
        bytes: &[u8],
        seq: u64,
    ) {
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return };
        let (phys, bytes) = (phys.0, bytes.into());
        c.data.waiting.push(Waiting { virt, phys, bytes, seq, patience: PATIENCE, clean: None });
        if c.data.waiting.len() > MAX_WAITING {
            self.perform(cpu, 0);
        }
    }

    /// A store of `by` is about to be performed: what others have waiting there goes first.
    pub(crate) fn conflicts(&mut self, by: CpuId, phys: u64, len: u64) {
        if !self.reorders() {
            return;
        }
        for cpu in self.all_cpus().filter(|cpu| *cpu != by) {
            self.perform_overlapping(cpu, phys, len);
        }
    }

    /// The oldest event of a store of another CPU that waits and touches a physical range.
    pub(crate) fn waits_for(&self, by: CpuId, phys: u64, len: u64) -> Option<u64> {
        if !self.reorders() {
            return None;
        }
        let others = self.cpus.iter().enumerate().filter(|(n, _)| *n != by.index());
        let all = others.flat_map(|(_, c)| &c.data.waiting);
        let here = all.filter(|w| overlap(w.phys, w.bytes.len() as u64, phys, len).is_some());
        here.map(|w| w.seq).min()
    }

    /// Number of stores that wait and touch a physical range.
    pub(crate) fn waiting_over(&self, phys: u64, len: u64) -> u32 {
        if !self.reorders() {
            return 0;
        }
        let all = self.cpus.iter().flat_map(|c| &c.data.waiting);
        all.filter(|w| overlap(w.phys, w.bytes.len() as u64, phys, len).is_some()).count() as u32
    }

    /// A chance for each waiting store to be performed.
    fn ask_waiting(&mut self, cpu: CpuId) {
        let count = self.waiting_stores(cpu);
        for n in (0..count).rev() {
            let Some((virt, phys, len)) = self.waiting_at(cpu, n) else { continue };
            let code = self.may_be_executed(phys, len);
            if !self.choices.yes(Choice::StoreWaits { cpu, virt, still: true, code }) {
                self.perform(cpu, n);
            }
        }
    }

    fn waiting_at(&self, cpu: CpuId, n: usize) -> Option<(VirtAddr, u64, u64)> {
        let w = self.cpus.get(cpu.index())?.data.waiting.get(n)?;
        Some((w.virt, w.phys, w.bytes.len() as u64))
    }

    /// Whether the tables of some space lead to these bytes for execution.
    fn may_be_executed(&self, phys: u64, len: u64) -> bool {
        self.spaces.iter().any(|s| s.exec.reaching(phys, len).is_some())
    }

    /// Number of a CPU's stores that were issued and wait.
    #[must_use]
    pub fn waiting_stores(&self, cpu: CpuId) -> usize {
        self.cpus.get(cpu.index()).map_or(0, |c| c.data.waiting.len())
    }

    /// Performs the `n`th waiting store of a CPU, the oldest being 0. Nothing, if there is none.
    pub fn perform(&mut self, cpu: CpuId, n: usize) {
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return };
        if n >= c.data.waiting.len() {
            return;
        }
        let w = c.data.waiting.remove(n);
        let (phys, len) = (PhysAddr(w.phys), w.bytes.len() as u64);
        // Its address was in memory when it was issued.
        if let Ok(true) = self.put(cpu, Some(w.virt), phys, &w.bytes) {
            self.has_replaced(cpu, phys.0, len, MemOrder::Plain, w.seq);
        }
        if let Some(clean) = w.clean {
            self.clean_follows(cpu, clean);
        }
    }

    /// A CPU issues a clean of a line: it waits for the stores to the line that wait. Whether there
    /// is one.
    pub(crate) fn clean_waits(&mut self, cpu: CpuId, clean: PendingClean) -> bool {
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return false };
        let mut any = false;
        for w in &mut c.data.waiting {
            if clean.covers(w.phys, w.bytes.len() as u64) {
                w.clean = Some(clean);
                any = true;
            }
        }
        any
    }

    /// Performs the stores behind which a clean waits that comes before a store to this range.
    fn perform_before_clean(&mut self, cpu: CpuId, phys: u64, len: u64) {
        loop {
            let Some(c) = self.cpus.get(cpu.index()) else { return };
            let before = |w: &Waiting| w.clean.is_some_and(|clean| clean.covers(phys, len));
            match c.data.waiting.iter().position(before) {
                Some(n) => self.perform(cpu, n),
                None => return,
            }
        }
    }

    /// Performs every waiting store of a CPU, in program order.
    pub(crate) fn perform_all(&mut self, cpu: CpuId) {
        while self.waiting_stores(cpu) > 0 {
            self.perform(cpu, 0);
        }
    }

    /// Performs every waiting store of every CPU, and has all later loads see them and what was
    /// stored before: where one part of a run ends (boot, a setup, the whole).
    pub fn settle_data(&mut self) {
        if !self.reorders() {
            return;
        }
        for cpu in self.all_cpus() {
            self.perform_all(cpu);
        }
        let now = self.tick;
        for c in &mut self.cpus {
            c.data.at_least(now);
        }
    }

    /// Performs the waiting stores of a CPU that touch a physical range.
    pub(crate) fn perform_overlapping(&mut self, cpu: CpuId, phys: u64, len: u64) {
        loop {
            let Some(c) = self.cpus.get(cpu.index()) else { return };
            let touches = |w: &Waiting| overlap(w.phys, w.bytes.len() as u64, phys, len).is_some();
            match c.data.waiting.iter().position(touches) {
                Some(n) => self.perform(cpu, n),
                None => return,
            }
        }
    }

    /// A load of `by`: stores of others to these bytes that waited for long enough are performed.
    pub(crate) fn lose_patience(&mut self, by: CpuId, phys: u64, len: u64) {
        for cpu in self.all_cpus().filter(|cpu| *cpu != by) {
            let Some(c) = self.cpus.get_mut(cpu.index()) else { continue };
            if c.data.waiting.is_empty() {
                continue;
            }
            let touches =
                |w: &&mut Waiting| overlap(w.phys, w.bytes.len() as u64, phys, len).is_some();
            for w in c.data.waiting.iter_mut().filter(touches) {
                w.patience = w.patience.saturating_sub(1);
            }
            while let Some(n) = self
                .cpus
                .get(cpu.index())
                .and_then(|c| c.data.waiting.iter().position(|w| w.patience == 0))
            {
                self.perform(cpu, n);
            }
        }
    }
}
