//! Leaves split and collapsed by one level, and the tables that come and go with that.
//!
//! The entry above is replaced in one store. A table that no entry points to any more stays
//! allocated until its owner gives it back ([`Machine::free_tables`]): CPUs may still walk through
//! it until they are told. Not modelled here: break-before-make and the flush between, which are
//! the caller's sequence of edits and invalidations.

use textbed_arch::paging::{Attributes, Controls, Entry};
use textbed_arch::{CpuId, FRAME_BYTES, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Flags, LeafChange, OpId, View};

use super::edit::Runs;
use super::{Found, Mapping, Run};
use crate::{Machine, MapError};

/// Where leaves of that size begin.
fn parts_of(virt: u64, shift: u32, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |n| virt + (n << shift))
}

impl Machine {
    /// Replaces the leaf at an address by a table of leaves of the next smaller size, which say the
    /// same.
    ///
    /// # Errors
    /// Nothing is mapped there, or the leaf is of the smallest size.
    pub fn split(&mut self, cpu: CpuId, space: SpaceId, virt: VirtAddr) -> Result<(), MapError> {
        self.split_as(cpu, space, virt, false)
    }

    /// The same, by leaves with contiguous bits or without.
    ///
    /// # Errors
    /// As there, or these leaves have no such bit.
    pub fn split_as(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        contiguous: bool,
    ) -> Result<(), MapError> {
        let (owner, last) = self.range(Some(cpu), space, virt, 1)?;
        let found = self.collect(owner, virt.0, last)?;
        let Some(f) = found.first().copied() else { return Err(MapError::NotMapped { virt }) };
        let m = self.mapping(&f);
        let none = MapError::NoNextSize { virt, shift: m.shift };
        let below = f.level + 1;
        let Some(l) = self.format.levels.get(below).copied() else { return Err(none) };
        let mut bytes = Vec::with_capacity(l.table_bytes() as usize);
        let attributes = Attributes { contiguous, ..m.attributes };
        for n in 0..l.entries() {
            let part = self.format.leaf_at_level(f.raw, f.level, below, n);
            let part = part.map_err(|_| none.clone())?;
            let part = self.format.with_attributes(below, part, attributes);
            let part = part.ok_or(MapError::Attributes { attributes })?;
            let entry = self.format.entry_to_bytes(part);
            bytes.extend_from_slice(self.format.stored(&entry));
        }
        let table = self.new_table(below).map_err(|_| MapError::OutOfMemory)?;
        let raw = self.format.encode_table(f.level, table).map_err(|_| none)?;
        self.memory.write(table, &bytes).map_err(|_| MapError::OutsideMemory { phys: table })?;
        self.set_entry(f.entry, raw)?;
        let parts = self.collect(owner, m.virt.0, m.virt.0)?;
        let none = (Perm::empty(), Perm::empty());
        let rights = |m: Mapping| (m.perm, m.denied);
        let (new, denied) = parts.first().map_or(none, |f| rights(self.mapping(f)));
        let change = LeafChange {
            count: l.entries() as u32,
            shift: l.index_shift as u8,
            old_shift: m.shift as u8,
            old: m.perm,
            new,
            attributes,
            was_contiguous: m.attributes.contiguous,
            denied,
        };
        let (phys, old_attributes) = (m.phys.0, m.attributes);
        let run = Run { virt: m.virt.0, phys, old_phys: phys, old_attributes, change };
        self.changed(cpu, owner, Runs(vec![run]));
        self.fill_found(owner, parts_of(m.virt.0, l.index_shift, l.entries()), None);
        Ok(())
    }

    /// Replaces the table that holds the leaf at an address by one leaf of the next larger size, if
    /// all its leaves are contiguous and agree in every attribute. The table waits for
    /// [`Machine::free_tables`].
    ///
    /// # Errors
    /// They do not agree, or no leaf has the larger size.
    pub fn collapse(&mut self, cpu: CpuId, space: SpaceId, virt: VirtAddr) -> Result<(), MapError> {
        let (owner, last) = self.range(Some(cpu), space, virt, 1)?;
        let found = self.collect(owner, virt.0, last)?;
        let Some(f) = found.first().copied() else { return Err(MapError::NotMapped { virt }) };
        let m = self.mapping(&f);
        let none = MapError::NoNextSize { virt, shift: m.shift };
        let Some(above) = f.level.checked_sub(1) else { return Err(none) };
        let up = self.format.levels.get(above).copied().ok_or(none.clone())?;
        self.leaf_level(up.index_shift).map_err(|_| none.clone())?;
        let start = VirtAddr(virt.0 & !(up.span_bytes() - 1));
        let all = self.collect(owner, start.0, start.0 | (up.span_bytes() - 1))?;
        let large = |f: &Found| {
            self.format.leaf_at_level(f.raw, f.level, above, 0).map_err(|_| none.clone())
        };
        let base = all.first().map(|f| (self.mapping(f), large(f)));
        let Some((first, Ok(raw))) = base else { return Err(none) };
        if !VirtAddr(first.phys.0).is_aligned(up.index_shift) {
            return Err(MapError::NotUniform { virt: start });
        }
        for n in 0..up.span_bytes() >> m.shift {
            let here = VirtAddr(start.0 + (n << m.shift));
            let fits = all.get(n as usize).is_some_and(|g| {
                let mg = self.mapping(g);
                g.virt == here.0
                    && g.level == f.level
                    && mg.phys.0 == first.phys.0 + (n << m.shift)
                    && large(g) == Ok(raw)
            });
            if !fits {
                return Err(MapError::NotUniform { virt: here });
            }
        }
        // The entry above: found on the path of a walk.
        let path = self.path(owner, start, above);
        let Some(entry) = path else { return Err(MapError::Malformed { virt }) };
        let table_bytes = self.format.levels.get(f.level).map_or(FRAME_BYTES, |l| l.table_bytes());
        let table = PhysAddr(f.entry.0 & !(table_bytes - 1));
        let before = self.entry(entry).unwrap_or(0);
        // Rights that the table's entry takes away would come back with it.
        if let (Entry::Table { limits, .. }, Entry::Leaf { perm, .. }) =
            (self.format.decode(above, before), self.format.decode(f.level, f.raw))
        {
            let given = |limits| self.format.effective(start, perm, limits, &Controls::LINUX);
            if given(limits) != given(Perm::all()) {
                return Err(MapError::NotUniform { virt: start });
            }
        }
        self.uppers_notice(cpu, owner, entry, before, (start, up.span_bytes()), false);
        self.set_entry(entry, raw)?;
        let old = first.perm;
        let after = self.collect(owner, start.0, start.0)?;
        let none = (Perm::empty(), Perm::empty());
        let rights = |m: Mapping| (m.perm, m.denied);
        let (new, denied) = after.first().map_or(none, |f| rights(self.mapping(f)));
        let (shift, old_shift) = (up.index_shift as u8, m.shift as u8);
        let change = LeafChange {
            attributes: Attributes { contiguous: false, ..first.attributes },
            was_contiguous: first.attributes.contiguous,
            old_shift,
            denied,
            ..LeafChange::usual(1, shift, old, new)
        };
        let (phys, old_attributes) = (first.phys.0, first.attributes);
        let run = Run { virt: start.0, phys, old_phys: phys, old_attributes, change };
        // First that the table is out: up to then the stream has told of the leaves that it holds.
        self.unlinked(cpu, owner, table, f.level, (start, up.span_bytes()));
        self.changed(cpu, owner, Runs(vec![run]));
        self.fill_found(owner, std::iter::once(start.0), None);
        Ok(())
    }

    /// Clears the entries that point to empty tables where leaves of `1 << leaf_shift` bytes are to
    /// come: what is in the way of [`Machine::map`], which else overwrites these entries. Returns
    /// how many there were; the tables wait for [`Machine::free_tables`].
    ///
    /// # Errors
    /// See [`MapError`].
    pub fn unlink_empty_tables(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        len: u64,
        leaf_shift: u32,
    ) -> Result<usize, MapError> {
        let (owner, last) = self.range(Some(cpu), space, virt, len)?;
        let level = self.leaf_level(leaf_shift)?;
        let before = self.frames.unlinked_tables();
        let mut at = virt.0 & !((1 << leaf_shift) - 1);
        loop {
            if let Some(entry) = self.path(owner, VirtAddr(at), level)
                && let Entry::Table { .. } =
                    self.format.decode(level, self.entry(entry).unwrap_or(0))
            {
                let bytes = self.format.levels.get(level).map_or(0, |l| l.table_bytes());
                let table = PhysAddr(entry.0 & !(bytes.max(1) - 1));
                if self.collect(owner, at, at | ((1 << leaf_shift) - 1))?.is_empty() {
                    self.clear_way(cpu, table, level, VirtAddr(at))?;
                    self.set_entry(entry, 0)?;
                }
            }
            match at.checked_add(1 << leaf_shift) {
                Some(next) if next <= last => at = next,
                _ => break,
            }
        }
        Ok(self.frames.unlinked_tables() - before)
    }

    /// Gives page-table pages back that a CPU unlinked, so that nothing points to them any more.
    pub fn free_tables(&mut self, cpu: CpuId) {
        for (phys, level, frames) in self.frames.take_unlinked(cpu) {
            self.frames.free_table(phys.pfn(), frames);
            self.emit(cpu, View::TableFreed { phys, level });
        }
    }

    /// Address of the entry of `level` that translates an address.
    pub(super) fn path(&self, space: SpaceId, virt: VirtAddr, level: usize) -> Option<PhysAddr> {
        let root = self.root(space)?;
        let walk = self.format.walk(root, virt, &mut |addr| self.entry(addr));
        walk.path().get(level).map(|step| step.addr)
    }

    /// Unlinks the empty tables below an entry that is to become something else.
    pub(super) fn clear_way(
        &mut self,
        cpu: CpuId,
        table: PhysAddr,
        level: usize,
        virt: VirtAddr,
    ) -> Result<(), MapError> {
        let addr = self.format.entry_addr(table, level, virt);
        let raw = addr.and_then(|a| self.entry(a)).unwrap_or(0);
        if raw == 0 {
            return Ok(());
        }
        if let Entry::Table { next, .. } = self.format.decode(level, raw) {
            let below = level + 1;
            let l = self.format.levels.get(below).copied();
            for n in 0..l.map_or(0, |l| l.entries()) {
                let at = VirtAddr(virt.0 + (n << l.map_or(0, |l| l.index_shift)));
                self.clear_way(cpu, next, below, at)?;
            }
            let span = self.format.levels.get(level).map_or(0, |l| l.span_bytes());
            let owner = self.owner(SpaceId::KERNEL, virt).unwrap_or(SpaceId::KERNEL);
            if let Some(entry) = addr {
                self.uppers_notice(cpu, owner, entry, raw, (virt, span), false);
            }
            self.unlinked(cpu, owner, next, below, (virt, span));
        }
        Ok(())
    }

    /// Nothing points to a table any more; it served these addresses.
    fn unlinked(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        phys: PhysAddr,
        level: usize,
        (virt, len): (VirtAddr, u64),
    ) {
        let frames = self.table_frames(level);
        let level = level as u8;
        self.frames.unlink_table(cpu, phys, level, frames);
        let view = View::TableUnlinked { virt, len, phys, level };
        self.emit_in(cpu, space, Flags::default(), OpId::NONE, view);
    }
}
