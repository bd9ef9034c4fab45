//! Page-table pages that no entry points to any more, and who may still walk through them.
//!
//! A CPU may hold the entry that pointed to such a page (Intel SDM 3A 4.10.3, Arm ARM D8.17, Power
//! ISA: page walk caches) and go on from there. Until it is told otherwise, what the page holds is
//! translations for it. An invalidation of an address takes the entries above that address with
//! it, but on arm64 those of the last level alone do not; INVLPG takes all of them (SDM 3A
//! 4.10.4.1), but on AMD with EFER.TCE those of its address (APM vol 2 5.5.3).
//!
//! Not modelled: upper entries that changed and still point to a table; the kind of powerpc's
//! invalidation (RIC), which is taken to reach the page walk cache.

use textbed_arch::{CpuId, SpaceId, effect::TlbScope};

use super::Flush;
use super::complete::Leaves;
use crate::mark::Mark;
use crate::span::Span;

/// A page-table page that nothing points to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unlinked {
    pub(crate) space: SpaceId,
    /// The addresses that it served.
    pub(crate) span: Span,
    pub(crate) phys: u64,
    /// CPUs that may still walk through it.
    pub(crate) cpus: u64,
    /// Number of the event from which on no new walk comes there; MAX = not yet.
    pub(crate) unwalkable_at: u64,
    /// CPUs whose own walks do not come there any more, earlier than others'.
    pub(crate) unwalkable_for: u64,
    pub(crate) since: Mark,
}

/// Pages watched at once; past it nothing new is.
const MAX_UNLINKED: usize = 4096;

/// The pages that are watched.
#[derive(Default, Debug)]
pub(crate) struct UnlinkedTables(Vec<Unlinked>);

impl UnlinkedTables {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, table: Unlinked) {
        if table.cpus != 0 && self.0.len() < MAX_UNLINKED {
            self.0.push(table);
        }
    }

    /// An invalidation is complete.
    pub(super) fn close(&mut self, flush: &Flush) {
        let Flush { target, cpus, own, issued, leaves, every_upper } = *flush;
        let off = if leaves == Leaves::Others { own } else { cpus };
        for table in &mut self.0 {
            let same = table.space == target.space || table.space == SpaceId::KERNEL;
            let near = target.span.is_none_or(|span| span.meet(table.span).is_some());
            let hits = match target.scope {
                TlbScope::AddressLastLevel => every_upper,
                TlbScope::Address => same && (every_upper || near),
                TlbScope::Space => same,
                TlbScope::AllButGlobal | TlbScope::All => true,
            };
            let in_time = table.unwalkable_at <= issued || table.unwalkable_for & cpus == cpus;
            if hits && in_time {
                table.cpus &= !off;
            }
        }
        self.0.retain(|table| table.cpus != 0);
    }

    /// CPUs that may still walk through a page.
    pub(super) fn walkers(&self, phys: u64) -> u64 {
        self.0.iter().filter(|table| table.phys == phys).fold(0, |cpus, table| cpus | table.cpus)
    }

    /// `cpus` forgot every way that their translations of `space` took.
    pub(super) fn forgotten(&mut self, space: SpaceId, cpus: u64) {
        for table in &mut self.0 {
            if table.space == space || table.space == SpaceId::KERNEL {
                table.cpus &= !cpus;
            }
        }
        self.0.retain(|table| table.cpus != 0);
    }

    /// What `cpu` stored to the tables is visible to every later walk.
    pub(crate) fn stores_done(&mut self, cpu: CpuId, now: u64) {
        for table in self.0.iter_mut().filter(|table| table.since.cpu == cpu) {
            table.unwalkable_at = table.unwalkable_at.min(now);
        }
    }

    /// The walks of the CPU of a bit see what `by` stored to the tables before the event `until`.
    pub(super) fn seen_by(&mut self, bit: u64, by: CpuId, until: u64) {
        for table in self.0.iter_mut().filter(|t| t.since.cpu == by && t.since.seq < until) {
            table.unwalkable_for |= bit;
        }
    }

    /// The page went back; what was known of it, if a CPU may still walk there.
    pub(crate) fn freed(&mut self, phys: u64) -> Option<Unlinked> {
        let at = self.0.iter().position(|table| table.phys == phys)?;
        Some(self.0.swap_remove(at))
    }
}
