//! Leaves made, removed and changed.
//!
//! An edit checks its whole range first, changes entries, and then tells TLBs and the stream about
//! each uniform run of leaves. It invalidates nothing. Not modelled: tables freed by unmapping, as
//! kernels keep theirs.

use textbed_arch::paging::{Attributes, Controls, EncodeError, Entry};
use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Flags, LeafChange, OpId, View};

use super::{Found, Mapping, Run};
use crate::tlb::Replaced;
use crate::{Machine, MapError};

/// Collects changes into uniform runs.
#[derive(Default)]
pub(super) struct Runs(pub(super) Vec<Run>);

impl Runs {
    pub(super) fn add(&mut self, next: Run) {
        if let Some(last) = self.0.last_mut() {
            let (len, c, n) = (last.change.len(), &mut last.change, next.change);
            let same = LeafChange { count: n.count, ..*c } == n
                && last.old_attributes == next.old_attributes;
            let follows = last.virt.wrapping_add(len) == next.virt
                && last.phys.wrapping_add(len) == next.phys
                && last.old_phys.wrapping_add(len) == next.old_phys;
            if same && follows && c.count.checked_add(n.count).is_some() {
                c.count += n.count;
                return;
            }
        }
        self.0.push(next);
    }
}

impl Machine {
    /// Maps `len` bytes from `virt` to `phys` in leaves of `1 << leaf_shift` bytes of usual memory.
    /// Tables are made where they are missing; an empty table in the way of a larger leaf is
    /// unlinked, and waits for [`Machine::free_tables`].
    ///
    /// # Errors
    /// See [`MapError`]; no leaf was made.
    #[allow(clippy::too_many_arguments)]
    pub fn map(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        phys: PhysAddr,
        len: u64,
        leaf_shift: u32,
        perm: Perm,
    ) -> Result<(), MapError> {
        let as_usual = (perm, Attributes::default());
        self.map_as(cpu, space, (virt, phys, len), leaf_shift, as_usual)
    }

    /// The same with a contiguous bit in each leaf, or memory of another type. Whether groups are
    /// whole is the caller's business.
    ///
    /// # Errors
    /// See [`MapError`]; no leaf was made.
    pub fn map_as(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        (virt, phys, len): (VirtAddr, PhysAddr, u64),
        leaf_shift: u32,
        (perm, attributes): (Perm, Attributes),
    ) -> Result<(), MapError> {
        let (owner, last) = self.range(Some(cpu), space, virt, len)?;
        let level = self.leaf_level(leaf_shift)?;
        for addr in [virt.0, phys.0, len] {
            if !VirtAddr(addr).is_aligned(leaf_shift) {
                return Err(MapError::Unaligned { addr, shift: leaf_shift });
            }
        }
        self.memory.check(phys, len).map_err(|_| MapError::OutsideMemory { phys })?;
        let first = self.encode(level, phys, perm, attributes)?;
        if let Some(f) = self.collect(owner, virt.0, last)?.first() {
            return Err(MapError::AlreadyMapped { virt: VirtAddr(f.virt.max(virt.0)) });
        }
        let mut runs = Runs::default();
        let mut at = virt.0;
        loop {
            let (table, limits) = self.make_table(owner, VirtAddr(at), level)?;
            // All leaves of this table in one store.
            let l = self
                .format
                .levels
                .get(level)
                .copied()
                .ok_or(MapError::LeafSize { shift: leaf_shift })?;
            let table_last = at | ((l.span_bytes() << l.index_bits).wrapping_sub(1));
            let end = last.min(table_last);
            let count = ((end - at) >> leaf_shift) + 1;
            let frame = phys.0 + (at - virt.0);
            let mut bytes = Vec::with_capacity(count as usize * 8);
            for n in 0..count {
                let here = at + (n << leaf_shift);
                self.clear_way(cpu, table, level, VirtAddr(here))?;
                let raw = first & !phys.0 | (frame + (n << leaf_shift));
                let entry = self.format.entry_to_bytes(raw);
                bytes.extend_from_slice(self.format.stored(&entry));
            }
            let entry = self.format.entry_addr(table, level, VirtAddr(at));
            let entry = entry.ok_or(MapError::OutsideMemory { phys: table })?;
            self.memory
                .write(entry, &bytes)
                .map_err(|_| MapError::OutsideMemory { phys: entry })?;
            let leaf = match self.format.decode(level, first) {
                Entry::Leaf { perm, .. } => perm,
                _ => Perm::empty(),
            };
            let granted =
                |limits| self.format.effective(VirtAddr(at), leaf, limits, &Controls::LINUX);
            let new = granted(limits);
            let denied = granted(Perm::all()) - new;
            let shift = leaf_shift as u8;
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let usual = LeafChange::usual(count, shift, Perm::empty(), new);
            let change = LeafChange { attributes, denied, ..usual };
            let old_attributes = Attributes::default();
            runs.add(Run { virt: at, phys: frame, old_phys: frame, old_attributes, change });
            match end.checked_add(1) {
                Some(next) if end < last => at = next,
                _ => break,
            }
        }
        self.tree_changed(cpu, owner, runs);
        let leaves = (0..=(last - virt.0) >> leaf_shift).map(|n| virt.0 + (n << leaf_shift));
        self.fill_found(owner, leaves, None);
        Ok(())
    }

    /// Level of a leaf size that this CPU has.
    pub(super) fn leaf_level(&self, shift: u32) -> Result<usize, MapError> {
        let x86 = self.arch() == Arch::X86_64;
        let missing = x86
            && (shift == 21 && !self.has(Features::X86_PSE)
                || shift == 30 && !self.has(Features::X86_GBPAGES));
        match self.format.level_for_shift(shift) {
            Some(level) if !missing => Ok(level),
            _ => Err(MapError::LeafSize { shift }),
        }
    }

    fn encode(
        &self,
        level: usize,
        phys: PhysAddr,
        perm: Perm,
        attributes: Attributes,
    ) -> Result<u64, MapError> {
        let raw = self.format.encode_leaf(level, phys, perm).map_err(|e| match e {
            EncodeError::Address { phys, .. } => MapError::OutsideMemory { phys },
            _ => MapError::Permission { perm },
        })?;
        let raw = self.format.with_attributes(level, raw, attributes);
        raw.ok_or(MapError::Attributes { attributes })
    }

    /// Makes the table of the last level for an address where nothing is mapped, with those above
    /// it, as a walker does that may allocate; whether there was none.
    ///
    /// # Errors
    /// A bad address, a large leaf there, or no memory: tables made before that stay.
    pub fn make_last_table(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
    ) -> Result<bool, MapError> {
        let (owner, _) = self.range(Some(cpu), space, virt, 1)?;
        let lacking = self.lacks_table(owner, virt);
        if lacking {
            self.make_table(owner, virt, self.format.last_level())?;
        }
        Ok(lacking)
    }

    /// Whether an address where nothing is mapped has no table of the last level.
    #[must_use]
    pub fn lacks_table(&self, space: SpaceId, virt: VirtAddr) -> bool {
        self.path(space, virt, self.format.last_level()).is_none()
    }

    /// The table of `level` for an address, made with those above it if need be, and what they
    /// leave possible.
    fn make_table(
        &mut self,
        space: SpaceId,
        virt: VirtAddr,
        level: usize,
    ) -> Result<(PhysAddr, Perm), MapError> {
        let (mut table, mut limits) = (self.root_of(space)?, Perm::all());
        for above in 0..level {
            let malformed = MapError::Malformed { virt };
            let Some(addr) = self.format.entry_addr(table, above, virt) else {
                return Err(malformed);
            };
            let mut raw = self.entry(addr).ok_or(malformed.clone())?;
            if raw == 0 {
                let next = self.new_table(above + 1).map_err(|_| MapError::OutOfMemory)?;
                raw = self.format.encode_table(above, next).map_err(|_| malformed.clone())?;
                self.set_entry(addr, raw)?;
                if above == 0 {
                    self.share_root_entry(space, virt, raw)?;
                }
            }
            match self.format.decode(above, raw) {
                Entry::Table { next, limits: below } => {
                    table = next;
                    limits &= below;
                }
                Entry::Leaf { .. } => return Err(MapError::AlreadyMapped { virt }),
                _ => return Err(malformed),
            }
        }
        Ok((table, limits))
    }

    /// x86-64: a new entry for the kernel's half goes into every root.
    fn share_root_entry(
        &mut self,
        space: SpaceId,
        virt: VirtAddr,
        raw: u64,
    ) -> Result<(), MapError> {
        if self.arch() != Arch::X86_64 || space != SpaceId::KERNEL || !self.is_kernel(virt) {
            return Ok(());
        }
        let roots: Vec<PhysAddr> = self.spaces.iter().skip(1).map(|s| s.root).collect();
        for root in roots {
            if let Some(addr) = self.format.entry_addr(root, 0, virt) {
                self.set_entry(addr, raw)?;
            }
        }
        Ok(())
    }

    /// Removes every leaf of a range; gaps are skipped.
    ///
    /// # Errors
    /// A leaf that the range covers in part, or a bad range; nothing was changed.
    pub fn unmap(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        len: u64,
    ) -> Result<(), MapError> {
        let (owner, found) = self.whole_leaves(cpu, space, virt, len)?;
        self.fill_by_uppers(cpu, owner, found.iter().map(|f| f.virt));
        self.fill_by_groups(cpu, owner, &found);
        let mut runs = Runs::default();
        for f in &found {
            let m = self.mapping(f);
            self.set_entry(f.entry, 0)?;
            self.note(&mut runs, &m, &m.absent());
        }
        self.tree_changed(cpu, owner, runs);
        Ok(())
    }

    /// Takes `clear` away from every leaf of a range and then gives it `set`; gaps are skipped, and
    /// entries that are not valid are changed too (PRESENT makes them valid again). Returns the
    /// number of entries whose bits changed.
    ///
    /// # Errors
    /// A leaf that the range covers in part ([`MapError::PartlyCovered`]: split it first), or a bad
    /// range; nothing was changed.
    pub fn protect(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        len: u64,
        set: Perm,
        clear: Perm,
    ) -> Result<u64, MapError> {
        self.protect_as(cpu, space, (virt, len), (set, clear), (0, 0))
    }

    /// The same with bits of the index into x86's PAT, which is the memory type: those of the first
    /// come, those of the second go before.
    ///
    /// # Errors
    /// As there.
    pub fn protect_as(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        (virt, len): (VirtAddr, u64),
        (set, clear): (Perm, Perm),
        (pat_set, pat_clear): (u8, u8),
    ) -> Result<u64, MapError> {
        let (owner, found) = self.whole_leaves(cpu, space, virt, len)?;
        let format = self.format;
        let changed = |f: &Found| {
            let raw = format.with_perm(f.level, f.raw, set, clear);
            let raw = format.with_pat_bits(f.level, raw, pat_set, pat_clear);
            (raw != f.raw).then_some(raw)
        };
        let leaves = found.iter().filter(|f| changed(f).is_some());
        self.fill_by_uppers(cpu, owner, leaves.map(|f| f.virt));
        self.fill_by_groups(cpu, owner, &found);
        let mut runs = Runs::default();
        let mut count = 0;
        for f in &found {
            let m = self.mapping(f);
            let Some(raw) = changed(f) else { continue };
            count += 1;
            self.set_entry(f.entry, raw)?;
            let after = self.mapping(&Found { raw, ..*f });
            self.note(&mut runs, &m, &after);
        }
        self.tree_changed(cpu, owner, runs);
        self.fill_found(owner, found.iter().map(|f| f.virt), None);
        Ok(count)
    }

    /// Gives what is empty in a range the bits of a change of permissions, as a walker does that
    /// does not look whether an entry is one: it stays invalid, and is empty no more if the change
    /// has bits of its own. Addresses without a table of the last level are left alone. Returns how
    /// many entries are empty no more.
    ///
    /// # Errors
    /// A bad range; nothing was changed.
    pub fn stain(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        len: u64,
        set: Perm,
        clear: Perm,
    ) -> Result<u64, MapError> {
        let (owner, last) = self.range(Some(cpu), space, virt, len)?;
        let level = self.format.last_level();
        let shift = self.format.levels.get(level).map_or(0, |l| l.index_shift);
        let raw = self.format.with_perm(level, 0, set - Perm::PRESENT, clear);
        if raw == 0 {
            return Ok(0);
        }
        let mut count = 0;
        let mut at = virt.0 & !((1u64 << shift) - 1);
        loop {
            let entry = self.path(owner, VirtAddr(at), level);
            if let Some(entry) = entry.filter(|e| self.entry(*e) == Some(0)) {
                self.set_entry(entry, raw)?;
                count += 1;
            }
            match at.checked_add(1 << shift) {
                Some(next) if next <= last => at = next,
                _ => return Ok(count),
            }
        }
    }

    /// Replaces one leaf by another of the same size, of usual memory, in one store: what
    /// break-before-make forbids on some architectures.
    ///
    /// # Errors
    /// No leaf of that size is there, or the new one cannot be.
    pub fn replace(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        phys: PhysAddr,
        leaf_shift: u32,
        perm: Perm,
    ) -> Result<(), MapError> {
        let as_usual = (perm, Attributes::default());
        self.replace_as(cpu, space, (virt, phys), leaf_shift, as_usual)
    }

    /// The same by a leaf with a contiguous bit, or memory of another type.
    ///
    /// # Errors
    /// No leaf of that size is there, or the new one cannot be.
    pub fn replace_as(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        (virt, phys): (VirtAddr, PhysAddr),
        leaf_shift: u32,
        (perm, attributes): (Perm, Attributes),
    ) -> Result<(), MapError> {
        let level = self.leaf_level(leaf_shift)?;
        let (owner, found) = self.whole_leaves(cpu, space, virt, 1u64 << leaf_shift)?;
        self.memory.check(phys, 1 << leaf_shift).map_err(|_| MapError::OutsideMemory { phys })?;
        let raw = self.encode(level, phys, perm, attributes)?;
        let [f] = found.as_slice() else { return Err(MapError::NotMapped { virt }) };
        if f.level != level {
            return Err(MapError::LeafSize { shift: leaf_shift });
        }
        let m = self.mapping(f);
        self.fill_by_uppers(cpu, owner, std::iter::once(f.virt));
        self.fill_by_groups(cpu, owner, &found);
        self.set_entry(f.entry, raw)?;
        let after = self.mapping(&Found { raw, ..*f });
        let mut runs = Runs::default();
        self.note(&mut runs, &m, &after);
        self.tree_changed(cpu, owner, runs);
        self.fill_found(owner, std::iter::once(f.virt), None);
        Ok(())
    }

    /// Adds the change of one leaf, unless nothing that counts changed.
    pub(super) fn note(&self, runs: &mut Runs, before: &Mapping, after: &Mapping) {
        let (gone, attributes) = (after.perm.is_empty(), after.attributes);
        let same = after.phys == before.phys && attributes == before.attributes;
        let rights = (before.perm, before.denied) == (after.perm, after.denied);
        if rights && (same || gone) {
            return;
        }
        let usual = LeafChange::usual(1, before.shift as u8, before.perm, after.perm);
        let change = LeafChange {
            attributes: if gone { Attributes::default() } else { attributes },
            was_contiguous: before.attributes.contiguous && !before.perm.is_empty(),
            denied: after.denied,
            ..usual
        };
        let phys = if gone { before.phys } else { after.phys };
        runs.add(Run {
            virt: before.virt.0,
            phys: phys.0,
            old_phys: before.phys.0,
            old_attributes: before.attributes,
            change,
        });
    }

    /// Tells everybody about edits of a tree, if CPUs walk it.
    pub(super) fn tree_changed(&mut self, cpu: CpuId, space: SpaceId, runs: Runs) {
        if self.is_hashed() {
            self.perform_all(cpu);
            self.advance();
        } else {
            self.changed(cpu, space, runs);
        }
    }

    /// Tells everybody about edits that were made.
    pub(super) fn changed(&mut self, cpu: CpuId, space: SpaceId, runs: Runs) {
        self.changed_so(cpu, space, runs, Flags::default());
    }

    /// As [`Self::changed`], told with these flags.
    pub(super) fn changed_so(&mut self, cpu: CpuId, space: SpaceId, runs: Runs, flags: Flags) {
        // What the CPU stored before it is performed before tables lead there.
        self.perform_all(cpu);
        for run in runs.0 {
            let now = self.advance();
            let replaced = Replaced { at: now, by: cpu };
            self.tlbs_notice(space, &run, replaced);
            self.groups_changed(space, &run, replaced);
            let len = run.change.len();
            let to = run.change.new.executable().then_some(run.phys);
            if let Some(s) = self.spaces.get_mut(space.0 as usize) {
                s.exec.set(run.virt, len, to, now);
            }
            let (virt, phys) = (VirtAddr(run.virt), PhysAddr(run.phys));
            let view = View::Leaf { virt, phys, change: run.change };
            self.emit_in(cpu, space, flags, OpId::NONE, view);
        }
    }
}
