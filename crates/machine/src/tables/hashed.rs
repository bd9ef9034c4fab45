//! Hashed translation on a machine: a table of entries in memory, which the CPUs read, beside the
//! trees that software keeps for itself.
//!
//! An access that finds no entry, or one that refuses it, is an interrupt whose handler looks into
//! the tree and makes an entry ([`Machine::refill`]); what it makes of a leaf is the software's
//! ([`HashSoftware`]). To everybody else a translation appears when its entry is made and goes when
//! that is removed: the tree's edits concern no CPU and emit nothing. Bolted entries stand for no
//! leaf. The format of tree and entries is the software's, too. Blocks, which go before the table
//! on 32-bit, are in `blocks`.
//!
//! Modelled: both groups, entries given up where these are full, an interrupt's context
//! synchronisation, barriers around new entries and invalidations. Not modelled: processes (the
//! kernel's addresses alone), misses of segments, hypervisors' calls, the lock of an entry.

use std::collections::{BTreeMap, BTreeSet};

use textbed_arch::hashed::{
    Block, GROUP, HashEntry, HashError, HashFormat, HashMemory, HashRefusal, HashTable, Placed,
    Rights, Segment, Slot,
};
use textbed_arch::paging::{Attributes, Format};
use textbed_arch::{CpuId, FRAME_BYTES, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Access, FaultReason, Flags, LeafChange, OpId};

use super::edit::Runs;
use super::{Mapping, Run};
use crate::memory::Memory;
use crate::spaces::Space;
use crate::tlb::TlbEntry;
use crate::{Machine, MachineError, MapError};

/// What software does with hashed entries.
#[derive(Clone, Copy, Debug)]
pub struct HashSoftware {
    /// The tree that it keeps. Each entry is made for a page of that.
    pub tree: &'static Format,
    /// The entries that the CPUs read.
    pub entries: &'static HashFormat,
    /// Its barriers.
    pub barriers: &'static HashBarriers,
    /// The segment of an address; `None` where it makes none.
    pub segment: fn(VirtAddr) -> Option<Segment>,
    /// What its handler makes of a leaf for an access: the leaf as it is then, and the entry's
    /// rights; `None` if the leaf does not grant the access.
    pub refill: fn(u64, Access) -> Option<(u64, Rights)>,
    /// The leaf once an entry for it was made there.
    pub made: fn(u64, &Placed) -> Made,
    /// Software bits of a bolted entry.
    pub bolted: u64,
}

/// A leaf for which an entry was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Made {
    /// The leaf.
    pub leaf: u64,
    /// What is kept of it in the second half of its table, if there is one.
    pub beside: Option<u64>,
}

/// Instructions without operands that software executes around its changes of entries.
#[derive(Clone, Copy, Debug)]
pub struct HashBarriers {
    /// Before a new entry is valid.
    pub before_new: &'static [&'static str],
    /// Behind it.
    pub behind_new: &'static [&'static str],
    /// Between entries that were made invalid and the `tlbie`s of their pages.
    pub before_tlbie: &'static [&'static str],
    /// Behind these.
    pub behind_tlbie: &'static [&'static str],
}

/// The table, and what it was made for.
#[derive(Clone)]
pub(crate) struct Hashed {
    table: HashTable,
    software: HashSoftware,
    /// For which address each entry is: an entry does not tell.
    homes: BTreeMap<u64, VirtAddr>,
    /// Pages for which an entry was made since it was last dropped by name, given up or not.
    made: BTreeSet<VirtAddr>,
    /// Blocks of loads and stores, and of fetches, of every CPU.
    pub(super) data_blocks: Vec<Block>,
    pub(super) fetch_blocks: Vec<Block>,
}

/// The machine's memory as the table's words.
struct Words<'a>(&'a mut Memory, &'static HashFormat);

impl HashMemory for Words<'_> {
    fn word(&self, addr: PhysAddr) -> Option<u64> {
        word(self.0, self.1, addr)
    }

    fn set_word(&mut self, addr: PhysAddr, value: u64) -> bool {
        let bytes = value.to_be_bytes();
        let from = bytes.len() - self.1.word_bytes as usize;
        self.0.write(addr, &bytes[from..]).is_ok()
    }
}

fn word(memory: &Memory, format: &HashFormat, addr: PhysAddr) -> Option<u64> {
    if format.word_bytes == 4 {
        memory.half_word(addr, true).map(u64::from)
    } else {
        memory.word(addr).map(u64::from_be_bytes)
    }
}

fn no_room(error: HashError) -> MapError {
    match error {
        HashError::Full => MapError::OutOfMemory,
        HashError::OutsideMemory { phys } => MapError::OutsideMemory { phys },
        _ => MapError::OutsideMemory { phys: PhysAddr(u64::MAX) },
    }
}

impl Machine {
    /// Makes a machine on which nothing was mapped yet one with a hashed table of
    /// `1 << group_bits` groups.
    ///
    /// # Errors
    /// No memory for it.
    pub fn use_hashed(
        &mut self,
        software: HashSoftware,
        group_bits: u32,
    ) -> Result<(), MachineError> {
        let format = software.entries;
        let group_bits = group_bits.max(format.least_group_bits());
        let mut table = HashTable { base: PhysAddr(0), group_bits };
        let frames = format.table_bytes(table) / FRAME_BYTES;
        // Its address is a multiple of its size.
        let align_shift = format.table_bytes(table).trailing_zeros();
        let none = MachineError::OutOfMemory { frames, align_shift };
        let above = self.frames.alloc_table(2 * frames).ok_or(none)?.addr();
        table.base = PhysAddr(above.0.next_multiple_of(format.table_bytes(table)));
        self.memory.fill(table.base, format.table_bytes(table), &[0])?;
        self.format = software.tree;
        let root = self.new_table(0)?;
        self.spaces = vec![Space::new(root)];
        let (homes, made) = (BTreeMap::new(), BTreeSet::new());
        let (data_blocks, fetch_blocks) = (Vec::new(), Vec::new());
        let hashed = Hashed { table, software, homes, made, data_blocks, fetch_blocks };
        self.hashed = Some(hashed);
        Ok(())
    }

    /// Whether CPUs translate by a hashed table.
    #[must_use]
    pub fn is_hashed(&self) -> bool {
        self.hashed.is_some()
    }

    /// The entry for an address, and its segment.
    fn hash_find(&self, virt: VirtAddr) -> Result<(Segment, Slot), FaultReason> {
        let h = self.hashed.as_ref().filter(|_| self.is_kernel(virt));
        let h = h.ok_or(FaultReason::NotPresent)?;
        let segment = (h.software.segment)(virt).ok_or(FaultReason::NotPresent)?;
        let format = h.software.entries;
        let mut read = |addr| word(&self.memory, format, addr);
        match format.find(h.table, &segment, virt, &mut read) {
            Ok(slot) => Ok((segment, slot)),
            Err(HashRefusal::OutsideMemory { .. }) => Err(FaultReason::NoMemory),
            Err(_) => Err(FaultReason::NotPresent),
        }
    }

    /// What an entry maps.
    fn hash_mapping(&self, virt: VirtAddr, segment: &Segment, slot: &Slot) -> Option<Mapping> {
        let h = self.hashed.as_ref()?;
        let format = h.software.entries;
        let entry = format.decode_entry(slot.words, segment)?;
        // The kernel's segments are every process's.
        let perm = format.effective(&entry.rights, segment) | Perm::GLOBAL;
        let (phys, shift, raw) = (entry.frame, entry.shift, slot.words[1]);
        let (virt, attributes) = (virt.align_down(shift), Attributes::default());
        Some(Mapping { virt, phys, shift, perm, raw, attributes, denied: Perm::empty() })
    }

    /// The translation that the hashed table gives now.
    pub(crate) fn walk_hashed(&self, virt: VirtAddr) -> Result<TlbEntry, FaultReason> {
        let m = match self.block_at(virt) {
            Some(block) => block,
            None => {
                let (segment, slot) = self.hash_find(virt)?;
                self.hash_mapping(virt, &segment, &slot).ok_or(FaultReason::NotPresent)?
            }
        };
        if self.memory.check(m.phys, 1 << m.shift).is_err() {
            return Err(FaultReason::NoMemory);
        }
        let space = SpaceId::KERNEL;
        let exec = self.spaces.get(space.0 as usize).and_then(|s| s.exec.lookup(virt.0));
        Ok(TlbEntry {
            virt: m.virt.0,
            len: 1 << m.shift,
            phys: m.phys.0,
            shift: m.shift as u8,
            attributes: m.attributes,
            perm: m.perm,
            tag: None,
            space,
            since: exec.map_or(self.tick, |(_, since)| since),
            replaced: None,
        })
    }

    /// The block or the bolted entry for an address.
    pub(super) fn bolted(&self, virt: VirtAddr) -> Option<Mapping> {
        if let Some(block) = self.block_at(virt) {
            return Some(block);
        }
        let h = self.hashed.as_ref()?;
        let (segment, slot) = self.hash_find(virt).ok()?;
        let bolted = h.software.entries.software(slot.words) & h.software.bolted != 0;
        self.hash_mapping(virt, &segment, &slot).filter(|_| bolted)
    }

    /// The interrupt of an access that no entry grants: its handler makes one from the tree's leaf,
    /// if that does. Whether it did.
    pub(crate) fn refill(&mut self, cpu: CpuId, virt: VirtAddr, access: Access) -> bool {
        let Some(h) = self.hashed.as_ref().filter(|_| self.is_kernel(virt)) else { return false };
        let software = h.software;
        // What a block or a segment refuses is no matter of an entry.
        let barred = (software.segment)(virt).is_none_or(|s| s.no_execute);
        if self.block_at(virt).is_some() || access == Access::Exec && barred {
            return false;
        }
        let page = virt.align_down(self.format.page_shift);
        let Ok(found) = self.collect(SpaceId::KERNEL, page.0, page.0) else { return false };
        let Some(f) = found.first().filter(|f| f.level == self.format.last_level()) else {
            return false;
        };
        let leaf = self.mapping(f);
        let granted = (software.refill)(f.raw, access);
        let Some((raw, rights)) = granted.filter(|_| leaf.perm.contains(Perm::PRESENT)) else {
            return false;
        };
        self.exception_entry(cpu);
        let done = match self.hash_find(page) {
            Ok((segment, slot)) => {
                let made = Made { leaf: raw, beside: None };
                self.hash_update(cpu, page, &segment, &slot, &rights).map(|()| made)
            }
            Err(_) => {
                let placed = self.hash_make(cpu, page, leaf.phys, &rights);
                placed.map(|placed| (software.made)(raw, &placed))
            }
        };
        if let Ok(made) = done {
            // Who reads the leaf finds what is kept of it.
            let half = self.format.levels.last().map_or(0, |level| level.table_bytes());
            if let Some((at, beside)) = f.entry.checked_add(half).zip(made.beside) {
                let _ = self.set_entry(at, beside);
            }
            let _ = self.set_entry(f.entry, made.leaf);
        }
        self.exception_return(cpu, true, OpId::NONE);
        done.is_ok()
    }

    /// Gives an entry that there is other rights, and drops what is cached of it.
    fn hash_update(
        &mut self,
        cpu: CpuId,
        page: VirtAddr,
        segment: &Segment,
        slot: &Slot,
        rights: &Rights,
    ) -> Result<(), MapError> {
        let Some(h) = self.hashed.as_ref() else { return Ok(()) };
        let format = h.software.entries;
        let before = self.hash_mapping(page, segment, slot);
        format.protect(&mut Words(&mut self.memory, format), slot, rights).map_err(no_room)?;
        if let (Some(before), Ok((_, now))) = (before, self.hash_find(page))
            && let Some(after) = self.hash_mapping(page, segment, &now)
        {
            self.hash_changed(cpu, &before, after.perm, Flags::default());
        }
        self.hash_invalidate(cpu, &[page]);
        Ok(())
    }

    /// Gives the entry for an address other rights, and drops what is cached of it on every CPU;
    /// whether there was one.
    ///
    /// # Errors
    /// Rights that an entry cannot have, or a table outside of memory.
    pub fn hash_protect(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        rights: &Rights,
    ) -> Result<bool, MapError> {
        let Ok((segment, slot)) = self.hash_find(virt) else { return Ok(false) };
        self.hash_update(cpu, virt, &segment, &slot, rights)?;
        Ok(true)
    }

    /// Makes an entry for a page, with the barrier behind it. Where both groups are full
    /// another one goes, which nobody is told of: it stays in use where it is cached.
    fn hash_make(
        &mut self,
        cpu: CpuId,
        page: VirtAddr,
        phys: PhysAddr,
        rights: &Rights,
    ) -> Result<Placed, MapError> {
        let entry = HashEntry {
            frame: phys,
            shift: self.format.page_shift,
            rights: *rights,
            referenced: true,
            changed: true,
            software: 0,
        };
        let barriers = self.hashed.as_ref().map(|h| h.software.barriers);
        self.hash_barriers(cpu, barriers.map_or(&[], |b| b.before_new));
        let mut placed = self.hash_insert(page, &entry);
        if placed == Err(MapError::OutOfMemory) {
            self.hash_evict(cpu, page)?;
            placed = self.hash_insert(page, &entry);
        }
        let placed = placed?;
        if let Some(h) = self.hashed.as_mut() {
            h.made.insert(page);
        }
        let Ok((segment, slot)) = self.hash_find(page) else { return Ok(placed) };
        if let Some(m) = self.hash_mapping(page, &segment, &slot) {
            self.hash_changed(cpu, &m.absent(), m.perm, Flags::ON_DEMAND);
        }
        self.hash_barriers(cpu, barriers.map_or(&[], |b| b.behind_new));
        Ok(placed)
    }

    /// Instructions of the table, without operands.
    fn hash_barriers(&mut self, cpu: CpuId, names: &[&str]) {
        for name in names {
            let _ = self.op_named(cpu, name, 0);
        }
    }

    fn hash_insert(&mut self, virt: VirtAddr, entry: &HashEntry) -> Result<Placed, MapError> {
        let range = MapError::BadRange { virt, len: 1 << entry.shift };
        let Some(h) = self.hashed.as_mut() else { return Err(range) };
        let segment = (h.software.segment)(virt).ok_or(range)?;
        let format = h.software.entries;
        let mut memory = Words(&mut self.memory, format);
        let placed = format.insert(&mut memory, h.table, &segment, virt, entry);
        let placed = placed.map_err(no_room)?;
        h.homes.insert(placed.addr.0, virt);
        Ok(placed)
    }

    /// Gives up the first entry of the primary group of an address that is not bolted, else of the
    /// secondary one.
    fn hash_evict(&mut self, cpu: CpuId, virt: VirtAddr) -> Result<(), MapError> {
        let Some(h) = self.hashed.as_ref() else { return Ok(()) };
        let segment = (h.software.segment)(virt).ok_or(MapError::OutOfMemory)?;
        for secondary in [false, true] {
            let format = h.software.entries;
            let group = format.group(h.table, &segment, virt, secondary);
            let group = group.ok_or(MapError::OutOfMemory)?.0;
            let places = (0..GROUP).map(|n| group + n * format.entry_bytes());
            let mut homes = places.filter_map(|at| h.homes.get(&at).copied());
            if let Some(home) = homes.find(|home| self.bolted(*home).is_none()) {
                self.hash_remove(cpu, home)?;
                return Ok(());
            }
        }
        Err(MapError::OutOfMemory)
    }

    /// Makes bolted entries of `1 << shift` bytes each for a range of the kernel's addresses.
    ///
    /// # Errors
    /// Not whole pages, or no room.
    #[allow(clippy::too_many_arguments)]
    pub fn hash_bolt(
        &mut self,
        cpu: CpuId,
        virt: VirtAddr,
        phys: PhysAddr,
        len: u64,
        shift: u32,
        rights: &Rights,
    ) -> Result<(), MapError> {
        for addr in [virt.0, phys.0, len] {
            if !VirtAddr(addr).is_aligned(shift) {
                return Err(MapError::Unaligned { addr, shift });
            }
        }
        self.memory.check(phys, len).map_err(|_| MapError::OutsideMemory { phys })?;
        let software = self.hashed.as_ref().map_or(0, |h| h.software.bolted);
        let mut runs = Runs::default();
        for offset in (0..len).step_by(1 << shift) {
            let at = virt.offset(offset);
            let entry = HashEntry {
                frame: phys.offset(offset),
                shift,
                rights: *rights,
                referenced: true,
                changed: true,
                software,
            };
            self.hash_insert(at, &entry)?;
            let Ok((segment, slot)) = self.hash_find(at) else { continue };
            if let Some(m) = self.hash_mapping(at, &segment, &slot) {
                runs.add(run_of(&m.absent(), m.perm));
            }
        }
        self.changed(cpu, SpaceId::KERNEL, runs);
        Ok(())
    }

    /// Makes the entry for an address invalid; whether there was one. What is cached of it stays.
    ///
    /// # Errors
    /// The table lies outside of memory.
    pub fn hash_drop(&mut self, cpu: CpuId, virt: VirtAddr) -> Result<bool, MapError> {
        let page = virt.align_down(self.format.page_shift);
        if let Some(h) = self.hashed.as_mut() {
            h.made.remove(&page);
        }
        self.hash_remove(cpu, virt)
    }

    /// Pages of a range for which an entry was made that was not dropped by name since.
    pub fn hash_made(&self, virt: VirtAddr, len: u64) -> Vec<VirtAddr> {
        let end = VirtAddr(virt.0.saturating_add(len));
        let made = self.hashed.iter().flat_map(|h| h.made.range(virt..end.max(virt)));
        made.copied().collect()
    }

    fn hash_remove(&mut self, cpu: CpuId, virt: VirtAddr) -> Result<bool, MapError> {
        let Ok((segment, slot)) = self.hash_find(virt) else { return Ok(false) };
        let mapping = self.hash_mapping(virt, &segment, &slot);
        let Some(h) = self.hashed.as_mut() else { return Ok(false) };
        let format = h.software.entries;
        format.remove(&mut Words(&mut self.memory, format), &slot).map_err(no_room)?;
        h.homes.remove(&slot.addr.0);
        if let Some(m) = mapping {
            self.hash_changed(cpu, &m, Perm::empty(), Flags::default());
        }
        Ok(true)
    }

    /// Drops what is cached of pages on every CPU: `tlbie` of each, with the second one that an
    /// erratum wants.
    pub fn hash_invalidate(&mut self, cpu: CpuId, pages: &[VirtAddr]) {
        let Some(barriers) = self.hashed.as_ref().map(|h| h.software.barriers) else { return };
        self.hash_barriers(cpu, barriers.before_tlbie);
        let bytes = 1u64 << self.format.page_shift;
        for page in pages {
            // An instruction of the table, and a page of the kernel.
            let _ = self.tlbi(cpu, "tlbie", *page, bytes, 0);
        }
        if let Some(last) = pages.last().filter(|_| self.has(Features::PPC_TLBIE_STQ)) {
            let _ = self.op_named(cpu, "ptesync", 0);
            let _ = self.tlbi(cpu, "tlbie", *last, bytes, 0);
        }
        self.hash_barriers(cpu, barriers.behind_tlbie);
    }

    /// Tells everybody about an entry that changed.
    fn hash_changed(&mut self, cpu: CpuId, before: &Mapping, new: Perm, flags: Flags) {
        let mut runs = Runs::default();
        if before.perm != new {
            runs.add(run_of(before, new));
        }
        self.changed_so(cpu, SpaceId::KERNEL, runs, flags);
    }
}

pub(super) fn run_of(before: &Mapping, new: Perm) -> Run {
    let change = LeafChange::usual(1, before.shift as u8, before.perm, new);
    let (phys, old_attributes) = (before.phys.0, before.attributes);
    Run { virt: before.virt.0, phys, old_phys: phys, old_attributes, change }
}
