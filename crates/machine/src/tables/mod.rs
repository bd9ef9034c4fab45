//! Page tables: bits in modelled memory, made, edited and read for every format alike.
//!
//! [`edit`] maps, unmaps and changes leaves, [`groups`] has what the contiguous bit joins,
//! [`limits`] changes what entries of upper levels leave possible below, [`resize`] splits and
//! collapses; what the tables say is read here. [`hashed`] has the table of entries that CPUs read
//! instead of trees, where there is one, and [`blocks`] what goes before that. Not modelled: the
//! hardware's accessed and dirty bits.

mod blocks;
mod edit;
mod groups;
mod hashed;
mod limits;
mod resize;

use textbed_arch::paging::{Attributes, Controls, Entry};
use textbed_arch::{CpuId, FRAME_BYTES, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::LeafChange;

pub(crate) use groups::Groups;
pub(crate) use hashed::Hashed;
pub use hashed::{HashBarriers, HashSoftware, Made};

use crate::{Machine, MachineError, MapError};

/// One leaf as the tables have it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First address.
    pub virt: VirtAddr,
    /// First byte of its frame.
    pub phys: PhysAddr,
    /// `log2` of its bytes.
    pub shift: u32,
    /// What all levels together grant; empty if the entry is not valid but keeps its bits.
    pub perm: Perm,
    /// The entry.
    pub raw: u64,
    /// Contiguous bit and memory type.
    pub attributes: Attributes,
    /// What the entry would grant besides, and those above take away.
    pub denied: Perm,
}

impl Mapping {
    /// The same without any permission: what is there before it is mapped, or behind that.
    pub(super) fn absent(self) -> Mapping {
        Mapping { perm: Perm::empty(), denied: Perm::empty(), ..self }
    }
}

/// A part of a range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Span {
    /// A leaf, whole, even where the range asked for covers it in part.
    Mapped(Mapping),
    /// Nothing is mapped here.
    Gap {
        /// First address.
        virt: VirtAddr,
        /// Bytes; 0 stands for 2^64.
        len: u64,
    },
}

/// An entry that was found: a leaf, or an invalid entry that is not zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) virt: u64,
    pub(super) entry: PhysAddr,
    pub(super) level: usize,
    pub(super) raw: u64,
    pub(super) limits: Perm,
}

/// A uniform run of changed leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) virt: u64,
    /// After the change; before it, if nothing is left.
    pub(crate) phys: u64,
    /// Before the change.
    pub(crate) old_phys: u64,
    pub(crate) old_attributes: Attributes,
    pub(crate) change: LeafChange,
}

impl Machine {
    /// An empty table of a level.
    pub(crate) fn new_table(&mut self, level: usize) -> Result<PhysAddr, MachineError> {
        let frames = self.table_frames(level);
        let pfn = self
            .frames
            .alloc_table(frames)
            .ok_or(MachineError::OutOfMemory { frames, align_shift: 12 })?;
        self.memory.fill(pfn.addr(), frames * FRAME_BYTES, &[0])?;
        Ok(pfn.addr())
    }

    pub(super) fn table_frames(&self, level: usize) -> u64 {
        let bytes = self.format.levels.get(level).map_or(FRAME_BYTES, |l| l.table_bytes());
        bytes.div_ceil(FRAME_BYTES)
    }

    pub(crate) fn entry(&self, addr: PhysAddr) -> Option<u64> {
        if self.format.entry_bytes(0) == 4 {
            return self.memory.half_word(addr, self.format.big_endian).map(u64::from);
        }
        self.memory.word(addr).map(|bytes| self.format.entry_from_bytes(bytes))
    }

    pub(super) fn set_entry(&mut self, addr: PhysAddr, raw: u64) -> Result<(), MapError> {
        let bytes = self.format.entry_to_bytes(raw);
        let stored = self.format.stored(&bytes);
        self.memory.write(addr, stored).map_err(|_| MapError::OutsideMemory { phys: addr })
    }

    /// Checks a range of a space; returns who owns it and its last address.
    pub(super) fn range(
        &self,
        cpu: Option<CpuId>,
        space: SpaceId,
        virt: VirtAddr,
        len: u64,
    ) -> Result<(SpaceId, u64), MapError> {
        if let Some(cpu) = cpu.filter(|c| c.index() >= self.cpus.len()) {
            return Err(MapError::NoCpu(cpu));
        }
        if self.spaces.get(space.0 as usize).is_none() {
            return Err(MapError::NoSpace(space));
        }
        let bad = MapError::BadRange { virt, len };
        let Some(last) = len.checked_sub(1).and_then(|n| virt.0.checked_add(n)) else {
            return Err(bad);
        };
        let span = 1u64.checked_shl(self.format.va_bits).unwrap_or(u64::MAX);
        let whole = self.format.is_canonical(virt)
            && self.format.is_canonical(VirtAddr(last))
            && self.is_kernel(virt) == self.is_kernel(VirtAddr(last))
            && len <= span;
        match self.owner(space, virt).filter(|_| whole) {
            Some(owner) => Ok((owner, last)),
            None => Err(bad),
        }
    }

    pub(super) fn root_of(&self, space: SpaceId) -> Result<PhysAddr, MapError> {
        self.root(space).ok_or(MapError::NoSpace(space))
    }

    /// Every entry that is not empty in a range of addresses.
    pub(super) fn collect(
        &self,
        space: SpaceId,
        virt: u64,
        last: u64,
    ) -> Result<Vec<Found>, MapError> {
        let mut found = Vec::new();
        let root = self.root_of(space)?;
        self.collect_table(root, 0, (virt, last), Perm::all(), &mut found)?;
        Ok(found)
    }

    /// As [`Self::collect`] below one table, for addresses that all lie below it. Recursion is as
    /// deep as the format has levels.
    fn collect_table(
        &self,
        table: PhysAddr,
        level: usize,
        (virt, last): (u64, u64),
        limits: Perm,
        found: &mut Vec<Found>,
    ) -> Result<(), MapError> {
        let Some(l) = self.format.levels.get(level) else { return Ok(()) };
        let mut at = virt & !(l.span_bytes() - 1);
        loop {
            let here = VirtAddr(at.max(virt));
            let malformed = MapError::Malformed { virt: here };
            let Some(entry) = self.format.entry_addr(table, level, here) else {
                return Err(malformed);
            };
            let Some(raw) = self.entry(entry) else { return Err(malformed) };
            match self.format.decode(level, raw) {
                Entry::None if raw == 0 => {}
                Entry::None | Entry::Leaf { .. } => {
                    found.push(Found { virt: at, entry, level, raw, limits });
                }
                Entry::Table { next, limits: below } => {
                    let end = last.min(at | (l.span_bytes() - 1));
                    self.collect_table(next, level + 1, (here.0, end), limits & below, found)?;
                }
                Entry::Malformed { .. } => return Err(malformed),
            }
            match at.checked_add(l.span_bytes()) {
                Some(next) if next <= last => at = next,
                _ => return Ok(()),
            }
        }
    }

    /// The leaf of an entry: physical address, size, effective permission (empty if not valid).
    pub(super) fn mapping(&self, f: &Found) -> Mapping {
        let shift = self.format.levels.get(f.level).map_or(0, |l| l.index_shift);
        let virt = VirtAddr(f.virt);
        let attributes = self.format.attributes(f.level, f.raw);
        match self.format.decode(f.level, f.raw) {
            Entry::Leaf { phys, shift, perm, raw } => {
                let granted = |limits| self.format.effective(virt, perm, limits, &Controls::LINUX);
                let perm = granted(f.limits);
                let whole = f.limits == Perm::all();
                let denied = if whole { Perm::empty() } else { granted(Perm::all()) - perm };
                Mapping { virt, phys, shift, perm, raw, attributes, denied }
            }
            // Not valid: where it would lead if it were.
            _ => {
                let valid = self.format.with_perm(f.level, f.raw, Perm::PRESENT, Perm::empty());
                let phys = match self.format.decode(f.level, valid) {
                    Entry::Leaf { phys, .. } => phys,
                    _ => PhysAddr(0),
                };
                let none = Perm::empty();
                Mapping { virt, phys, shift, perm: none, raw: f.raw, attributes, denied: none }
            }
        }
    }

    /// Every entry that is not empty in a range that covers none in part; whose tables they are.
    pub(super) fn whole_leaves(
        &self,
        cpu: CpuId,
        space: SpaceId,
        virt: VirtAddr,
        len: u64,
    ) -> Result<(SpaceId, Vec<Found>), MapError> {
        let (owner, last) = self.range(Some(cpu), space, virt, len)?;
        let found = self.collect(owner, virt.0, last)?;
        for f in [found.first(), found.last()].into_iter().flatten() {
            let m = self.mapping(f);
            let f_last = f.virt + ((1u64 << m.shift) - 1);
            if f.virt < virt.0 || f_last > last {
                return Err(MapError::PartlyCovered { virt: m.virt, shift: m.shift });
            }
        }
        Ok((owner, found))
    }

    /// What the tables say now for one address; of a hashed table, bolted entries too.
    #[must_use]
    pub fn lookup(&self, space: SpaceId, virt: VirtAddr) -> Option<Mapping> {
        let (owner, last) = self.range(None, space, virt, 1).ok()?;
        let found = self.collect(owner, virt.0, last).ok()?;
        let leaf = found.first().map(|f| self.mapping(f));
        leaf.or_else(|| self.bolted(virt)).filter(|m| m.perm.contains(Perm::PRESENT))
    }

    /// Every leaf and every gap of a range, in order. Entries that are not valid but keep their
    /// bits are leaves without permission. A range that the tables do not translate, or malformed
    /// tables, give one gap.
    pub fn leaves(&self, space: SpaceId, virt: VirtAddr, len: u64) -> std::vec::IntoIter<Span> {
        let found = self
            .range(None, space, virt, len)
            .and_then(|(owner, last)| Ok((self.collect(owner, virt.0, last)?, last)));
        let Ok((found, last)) = found else { return vec![Span::Gap { virt, len }].into_iter() };
        let mut spans = Vec::with_capacity(found.len() + 1);
        let mut at = Some(virt.0);
        for f in &found {
            let m = self.mapping(f);
            if let Some(from) = at.filter(|from| *from < f.virt) {
                spans.push(Span::Gap { virt: VirtAddr(from), len: f.virt - from });
            }
            spans.push(Span::Mapped(m));
            at = f.virt.checked_add(1u64 << m.shift);
        }
        if let Some(from) = at.filter(|from| *from <= last) {
            spans.push(Span::Gap { virt: VirtAddr(from), len: (last - from).wrapping_add(1) });
        }
        spans.into_iter()
    }
}
