//! Rights of entries that point to tables: what they leave possible below.
//!
//! Modelled: rights taken away and given back in one store, on x86-64 (RW, US, NX) and arm64
//! (APTable, UXNTable, PXNTable). Not modelled: x86-64's root entries, of which each space has a
//! copy. Entries of powerpc's radix trees have no such rights.

use textbed_arch::paging::Entry;
use textbed_arch::{Arch, CpuId, Perm, SpaceId, VirtAddr};
use textbed_event::{Flags, OpId, View};

use super::edit::Runs;
use crate::{Machine, MapError};

impl Machine {
    /// Takes `clear` away from the entry of `level` that points to a table for an address, and then
    /// gives it `set`. Leaves below keep their bits.
    ///
    /// # Errors
    /// No such entry there, or one that has no bits for that.
    pub fn protect_table(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        level: usize,
        (set, clear): (Perm, Perm),
    ) -> Result<(), MapError> {
        let (owner, _) = self.range(Some(cpu), space, virt, 1)?;
        let none = MapError::NotMapped { virt };
        if level == 0 && self.arch() == Arch::X86_64 {
            return Err(none);
        }
        let entry = self.path(owner, virt, level).ok_or(none.clone())?;
        let raw = self.entry(entry).ok_or(none.clone())?;
        let limits = |raw: u64| match self.format.decode(level, raw) {
            Entry::Table { limits, .. } => Some(limits),
            _ => None,
        };
        let new = self.format.with_perm(level, raw, set, clear);
        let (Some(before), Some(after)) = (limits(raw), limits(new)) else { return Err(none) };
        if after.intersects(clear.difference(set)) || !after.contains(set) {
            return Err(MapError::Permission { perm: after });
        }
        let span = self.format.levels.get(level).map_or(0, |l| l.span_bytes());
        let start = VirtAddr(virt.0 & !(span - 1));
        let last = start.0 | (span - 1);
        let old: Vec<_> =
            self.collect(owner, start.0, last)?.iter().map(|f| self.mapping(f)).collect();
        let lost = before.difference(after);
        if !lost.is_empty() {
            self.uppers_notice(cpu, owner, entry, raw, (start, span), true);
        }
        self.set_entry(entry, new)?;
        if before != after {
            let view = View::TableRights { virt: start, len: span, entry, before, after };
            self.emit_in(cpu, owner, Flags::default(), OpId::NONE, view);
        }
        let mut runs = Runs::default();
        let found = self.collect(owner, start.0, last)?;
        for (found, before) in found.iter().zip(&old) {
            let now = self.mapping(found);
            self.note(&mut runs, before, &now);
        }
        self.tree_changed(cpu, owner, runs);
        if !after.difference(before).is_empty() {
            self.fill_found(owner, found.iter().map(|f| f.virt), None);
        }
        Ok(())
    }
}
