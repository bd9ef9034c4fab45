//! The data side: loads that see less than memory has, and stores that are performed later.
//!
//! Everything happens at a moment, and memory is what the stores performed until then made of it,
//! the same for every CPU. With [`DataOrder::Architecture`] a load returns what memory held at some
//! moment between what its CPU has to know (`base`, and what the load depends on) and now, own
//! stores included: that is a load ahead of its turn, and as well a store of the CPU that still
//! waits in its store buffer while later loads go on. On x86-64 loads keep their order among each
//! other (TSO), elsewhere only barriers, acquire loads, dependencies and accesses to the same bytes
//! order them. Where stores need not keep their order (arm64, powerpc; on x86-64 non-temporal ones)
//! a plain store may also be performed later than younger ones: it waits, and is seen by loads of
//! its own CPU alone. Sources: Arm ARM DDI 0487 B2.3 as in herdtools7 `aarch64.cat`; Intel SDM 3A
//! 8.2.2; Power ISA 3.1B Book II 1.7 (from memory).
//!
//! Nothing stays unseen for ever: after [`PATIENCE`] loads of the same old bytes a load returns the
//! newest, and after so many loads of others that miss it a waiting store is performed.
//!
//! A CPU's user may say what an operation depends on ([`Machine::depends`]); if nobody says, every
//! operation depends on all loads before it, as if each fed an address and a branch.
//!
//! Not modelled: loads that see a store younger than a later store of their CPU (load buffering),
//! storage that is not multi-copy-atomic (powerpc), tables read by a walk at an earlier moment, a
//! change of the tables ahead of the CPU's earlier stores, stores longer than
//! [`MAX_WAITING_BYTES`] that wait, fills (all see them at once).

mod past;
mod waiting;

use rustc_hash::FxHashMap;
use textbed_arch::effect::Barrier;
use textbed_arch::{Arch, CpuId, PhysAddr, VirtAddr};
use textbed_event::MemOrder;

use crate::choice::Choice;
use crate::state::{Part, Take};
use crate::{Machine, MachineError};
use past::lay;
use waiting::Waiting;

pub(crate) use past::Past;
pub use waiting::MAX_WAITING_BYTES;

/// In which order the CPUs see each other's loads and stores.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum DataOrder {
    /// One after the other, as the machine's user makes them.
    #[default]
    Sequential,
    /// As the architecture allows: each load that could see less is a choice, and so is each store
    /// that could be performed later.
    Architecture,
}

/// A moment of a run: what a CPU knew when it carried something out. Later ones are larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Moment(pub(crate) u64);

/// So often a load may return the same old bytes, and so many loads may miss a waiting store.
pub(crate) const PATIENCE: u32 = 64;

/// Words of which a CPU's last load is kept.
const MOST_SEEN: usize = 4096;

/// What orders a CPU's data accesses.
#[derive(Clone, Default, Debug)]
pub(crate) struct DataSide {
    /// A load is carried out at this moment or later.
    pub(crate) base: u64,
    /// Latest moment of a load.
    pub(crate) loads: u64,
    /// Moments of the last store and of the last store-release.
    pub(crate) stored: u64,
    pub(crate) released: u64,
    /// What loads that decided a branch saw, what loads that fed an address saw, and what barriers
    /// hand to the next context synchronisation.
    pub(crate) branch: u64,
    pub(crate) address: u64,
    pub(crate) to_sync: u64,
    /// By aligned 8 bytes: moment of the last load, and how often in a row it was old.
    pub(crate) seen: FxHashMap<u64, (u64, u32)>,
    pub(crate) waiting: Vec<Waiting>,
    /// What the next operation depends on; `None` = on every load before it.
    pub(crate) depends: Option<u64>,
    /// The moment of the last load.
    pub(crate) last: u64,
}

impl DataSide {
    /// Loads from here on see at least what was at `moment`.
    pub(crate) fn at_least(&mut self, moment: u64) {
        self.base = self.base.max(moment);
    }

    /// The moment of the loads that fed the address of the next operation.
    pub(crate) fn fed(&self) -> u64 {
        self.depends.unwrap_or(self.loads)
    }

    /// Every part, for [`Machine::fingerprint`].
    pub(crate) fn visit(&self, take: Take<'_>) {
        let moments = [
            self.base,
            self.loads,
            self.stored,
            self.released,
            self.branch,
            self.address,
            self.to_sync,
            self.last,
        ];
        moments.into_iter().for_each(|moment| take(Part::Known(moment)));
        take(Part::Value(u64::from(self.depends.is_some())));
        take(Part::Known(self.depends.unwrap_or(0)));
        // What the base covers anyway is no difference; nor is patience that is far from its end.
        let mut seen: Vec<_> = self.seen.iter().filter(|(_, (m, _))| *m > self.base).collect();
        seen.sort_unstable();
        take(Part::Value(seen.len() as u64));
        for (word, (moment, times)) in seen {
            take(Part::Value(*word));
            take(Part::Known(*moment));
            take(Part::Value(u64::from(times.saturating_sub(PATIENCE / 2))));
        }
        take(Part::Value(self.waiting.len() as u64));
        for w in &self.waiting {
            take(Part::Value(w.phys));
            take(Part::Bytes(&w.bytes));
            take(Part::Value(u64::from(w.patience.min(PATIENCE / 2))));
            take(Part::Value(u64::from(w.clean.is_some())));
            take(Part::Known(w.clean.map_or(0, |clean| clean.base)));
        }
    }

    /// A load may go back to here.
    fn seen_at(&self, phys: u64, len: u64) -> (u64, u32) {
        let words = phys >> 3..=(phys + len.max(1) - 1) >> 3;
        let all = words.filter_map(|w| self.seen.get(&w));
        all.fold((0, 0), |(moment, times), (m, t)| (moment.max(*m), times.max(*t)))
    }

    fn note_seen(&mut self, phys: u64, len: u64, moment: u64, old: bool) {
        if self.seen.len() > MOST_SEEN {
            let base = self.base;
            self.seen.retain(|_, (m, _)| *m > base);
            if self.seen.len() > MOST_SEEN / 2 {
                self.seen.clear();
                self.base = self.base.max(self.loads);
            }
        }
        for word in phys >> 3..=(phys + len.max(1) - 1) >> 3 {
            let slot = self.seen.entry(word).or_default();
            slot.0 = slot.0.max(moment);
            slot.1 = if old { slot.1 + 1 } else { 0 };
        }
    }
}

impl Machine {
    /// Whether data accesses may be seen out of order at all.
    pub(crate) fn reorders(&self) -> bool {
        self.reorders
    }

    /// What the CPU's next operations depend on: loads up to this moment feed their addresses.
    /// `None`, as it is without this call: every load before them does, and a branch as well.
    pub fn depends(&mut self, cpu: CpuId, on: Option<Moment>) {
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.data.depends = on.map(|m| m.0);
        }
    }

    /// The CPU branched on what loads up to this moment returned.
    pub fn branched(&mut self, cpu: CpuId, on: Moment) {
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.data.branch = c.data.branch.max(on.0);
            c.pending.knows(on.0);
        }
    }

    /// The moment of a CPU's last load.
    #[must_use]
    pub fn last_load(&self, cpu: CpuId) -> Moment {
        Moment(self.cpus.get(cpu.index()).map_or(0, |c| c.data.last))
    }

    /// Bytes that a load of `cpu` gets, with the number of the event up to which it saw every
    /// store, if it does not see them all. `newest`: it has to (atomic operations).
    pub(crate) fn see(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        phys: PhysAddr,
        out: &mut [u8],
        order: MemOrder,
        newest: bool,
    ) -> Result<Option<u64>, MachineError> {
        self.memory.read(phys, out)?;
        if !self.reorders() {
            return Ok(None);
        }
        self.lose_patience(cpu, phys.0, out.len() as u64);
        let x86 = self.arch() == Arch::X86_64;
        let in_order = self.fetches_in_order();
        let len = out.len() as u64;
        let Some(c) = self.cpus.get(cpu.index()) else { return Ok(None) };
        let d = &c.data;
        let (last, old_times) = d.seen_at(phys.0, len);
        let acquire = matches!(order, MemOrder::Acquire | MemOrder::Full);
        let mut floor = d.base.max(last).max(self.past.floor);
        floor = floor.max(match d.depends {
            _ if x86 => d.loads,
            None => d.loads,
            Some(moment) => moment,
        });
        if in_order {
            floor = floor.max(c.pending.fetched());
        }
        if acquire {
            floor = floor.max(d.released);
        }
        let mut found = self.visible(cpu, phys.0, out, floor);
        if newest || order == MemOrder::Full || old_times >= PATIENCE {
            found.truncate(1);
        }
        let options = found.len();
        let answer = self.choices.ask(Choice::LoadSees { cpu, virt, options });
        let Some(seen) = found.into_iter().nth(answer) else { return Ok(None) };
        let old = answer > 0;
        out.copy_from_slice(&seen.bytes);
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return Ok(None) };
        for w in &c.data.waiting {
            lay(out, phys.0, &w.bytes, w.phys);
        }
        let d = &mut c.data;
        d.note_seen(phys.0, len, seen.moment, old);
        d.loads = d.loads.max(seen.moment);
        d.last = seen.moment;
        match d.depends {
            None => {
                d.branch = d.branch.max(seen.moment);
                d.address = d.address.max(seen.moment);
            }
            Some(moment) => d.address = d.address.max(moment),
        }
        if acquire {
            d.at_least(seen.moment);
        }
        // An acquire orders loads and stores alone, no maintenance.
        if d.depends.is_none() {
            c.pending.knows(seen.moment);
        }
        if order == MemOrder::Full {
            self.stores_before(cpu, Barrier::Mfence);
            self.data_barrier(cpu, Barrier::Mfence);
        }
        // Of the stores before the first one that it misses it saw every one.
        Ok((seen.misses < u64::MAX).then(|| seen.misses.saturating_sub(1)))
    }

    /// Before a store changes memory: notes what it replaces.
    pub(crate) fn will_replace(&mut self, cpu: CpuId, phys: PhysAddr, len: u64) {
        if !self.reorders() {
            return;
        }
        let now = self.tick;
        let mut old = vec![0; len as usize];
        if len > 4096 || self.memory.read(phys, &mut old).is_err() {
            self.past.overwritten(phys.0, len, now);
            return;
        }
        self.past.replace(phys.0, &old, now, cpu);
        let floor = self.cpus.iter().map(|c| c.data.base).min().unwrap_or(now);
        self.past.sweep(floor, now);
    }

    /// A store changed memory just now, by this event.
    pub(crate) fn has_replaced(
        &mut self,
        cpu: CpuId,
        phys: u64,
        len: u64,
        order: MemOrder,
        seq: u64,
    ) {
        if !self.reorders() {
            return;
        }
        let now = self.tick;
        self.past.name(phys, len, now, seq);
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.data.stored = now;
            if matches!(order, MemOrder::Release | MemOrder::Full) {
                c.data.released = now;
            }
        }
    }

    /// Before a barrier: performs the stores that it waits for.
    pub(crate) fn stores_before(&mut self, cpu: CpuId, barrier: Barrier) {
        let loads_only = [Barrier::DmbLoad, Barrier::DsbLoad, Barrier::Lfence, Barrier::Tlbsync];
        if !loads_only.contains(&barrier) {
            self.perform_all(cpu);
        }
    }

    /// What a barrier, which happens now, does to the data side.
    pub(crate) fn data_barrier(&mut self, cpu: CpuId, barrier: Barrier) {
        if !self.reorders() {
            return;
        }
        let now = self.tick;
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return };
        let d = &mut c.data;
        match barrier {
            Barrier::DmbFull | Barrier::Mfence => d.at_least(d.loads.max(d.stored)),
            Barrier::DsbFull | Barrier::Sync | Barrier::Ptesync => {
                d.at_least(d.loads.max(d.stored));
                d.to_sync = now;
            }
            Barrier::DmbLoad | Barrier::Lwsync | Barrier::Lfence => d.at_least(d.loads),
            Barrier::DsbLoad => {
                d.at_least(d.loads);
                d.to_sync = d.to_sync.max(d.loads);
            }
            Barrier::DsbStore => {
                d.at_least(d.stored);
                d.to_sync = d.to_sync.max(d.stored);
            }
            Barrier::DmbStore | Barrier::Eieio | Barrier::Sfence | Barrier::Tlbsync => {}
        }
        let loads = d.loads;
        match barrier {
            // Loads before it are known to maintenance after it.
            Barrier::DsbLoad | Barrier::DsbFull | Barrier::Sync | Barrier::Ptesync => {
                c.pending.knows(loads);
            }
            _ => {}
        }
    }

    /// What context synchronisation does to the data side; returns how far back the fetches after
    /// it may lie, if that is known better than "now".
    pub(crate) fn data_sync(&mut self, cpu: CpuId) -> Option<u64> {
        if !self.reorders() {
            return None;
        }
        let x86 = self.arch() == Arch::X86_64;
        if x86 {
            // Serialising instructions drain the store buffer; the same is taken of entries.
            self.perform_all(cpu);
        }
        let c = self.cpus.get_mut(cpu.index())?;
        let d = &mut c.data;
        if x86 {
            d.at_least(d.loads.max(d.stored));
            return None;
        }
        let handed = d.branch.max(d.address).max(d.to_sync);
        d.at_least(handed);
        c.pending.knows(handed);
        c.data.depends.map(|_| handed)
    }

    /// The CPU learned of everything until now (a lock, a cross-call): its loads see it.
    pub(crate) fn data_learned(&mut self, cpu: CpuId) {
        if !self.reorders() {
            return;
        }
        self.perform_all(cpu);
        let now = self.tick;
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.data.at_least(now);
            c.data.branch = now;
            c.data.loads = now;
        }
    }
}
