//! One version of a range, and the versions of it that are kept, oldest first.

use std::cell::Cell;
use std::rc::Rc;

use textbed_arch::{Arch, CpuId, trap};

use super::clock::Clock;
use super::views::View;
use crate::mark::Mark;

/// Versions kept for one range.
pub(super) const MAX_VERSIONS: usize = 8;

/// What a store made.
#[derive(Debug)]
pub(crate) struct Version {
    /// Number of its first event.
    pub(crate) stamp: u64,
    pub(crate) cpu: CpuId,
    pub(crate) mark: Mark,
    /// The virtual address used minus the physical one.
    pub(crate) delta: u64,
    /// x86: a non-temporal store, which needs a fence.
    pub(crate) nontemporal: bool,
    /// Number of the fence after it; 0 = none yet.
    pub(crate) fenced: Cell<u64>,
    /// The bytes, if they are one code unit.
    pub(crate) unit: Option<Unit>,
    /// What its CPU knew (weakly ordered architectures, predicted).
    pub(crate) view: Option<View>,
    /// What its CPU knew of others (x86).
    pub(crate) clock: Option<Clock>,
}

impl Version {
    /// A plain store of which nothing is known, for whoever feeds a machine by hand.
    pub(crate) fn by_hand(stamp: u64, cpu: CpuId) -> Self {
        Self {
            stamp,
            cpu,
            mark: Mark::by_hand(stamp, cpu),
            delta: 0,
            nontemporal: false,
            fenced: Cell::new(0),
            unit: None,
            view: None,
            clock: None,
        }
    }

    /// Its stamp and its CPU in one word; keys of one byte ascend as stamps do. Stamps are below
    /// 2^48: the checker takes no other events.
    #[inline]
    pub(crate) fn key(&self) -> u64 {
        key_of(self.stamp, self.cpu)
    }

    /// A non-temporal store that no fence followed.
    pub(crate) fn waits_for_fence(&self) -> bool {
        self.nontemporal && self.fenced.get() == 0
    }

    /// What of it is kept when it is forgotten; nothing where that does not say all of it.
    fn traps(&self, arch: Arch) -> Option<Traps> {
        self.unit.map_or(Some(Traps::NONE), |unit| Traps::of(arch, &unit))
    }
}

/// See [`Version::key`].
#[inline]
pub(crate) fn key_of(stamp: u64, cpu: CpuId) -> u64 {
    stamp << 16 | u64::from(cpu.0)
}

/// Where, of the eight aligned bytes around an address, instructions were that trap: a bit for each
/// byte at which one may begin. A handler that is taken back asks for these.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Traps(u8);

impl Traps {
    /// Nowhere.
    pub(super) const NONE: Self = Self(0);

    /// Of a unit; nothing if it does not lie in eight aligned bytes and may trap.
    #[inline]
    pub(super) fn of(arch: Arch, unit: &Unit) -> Option<Self> {
        let bytes = unit.bytes.get(..usize::from(unit.len)).unwrap_or(&[]);
        match (arch, bytes) {
            _ if !trap::may_trap(arch, bytes) => Some(Self::NONE),
            // As most stores are, where instructions are words: two of them.
            (arch, &[a, b, c, d, e, f, g, h]) if arch != Arch::X86_64 && unit.phys & 7 == 0 => {
                let traps = |word| u8::from(trap::is_trap_word(arch, word));
                Some(Self(traps([a, b, c, d]) | traps([e, f, g, h]) << 4))
            }
            _ => Self::of_some(arch, unit, bytes),
        }
    }

    /// Of a unit of any size at any place.
    #[inline(never)]
    fn of_some(arch: Arch, unit: &Unit, bytes: &[u8]) -> Option<Self> {
        let phys = unit.phys as usize;
        let mut traps = 0;
        if arch == Arch::X86_64 {
            for (at, byte) in bytes.iter().enumerate() {
                traps |= u8::from(trap::is_trap_fill(arch, &[*byte])) << ((phys + at) & 7);
            }
        } else {
            // Where instructions have four bytes they begin at multiples of these.
            let first = phys.wrapping_neg() & 3;
            let (words, _) = bytes.get(first..).unwrap_or(&[]).as_chunks::<4>();
            for (at, word) in words.iter().enumerate() {
                traps |= u8::from(trap::is_trap_word(arch, *word)) << ((phys + first + at * 4) & 7);
            }
        }
        let crosses = (unit.phys & 7) as usize + bytes.len() > 8;
        (!crosses || traps == 0).then_some(Self(traps))
    }

    /// Whether one was at `phys`.
    pub(crate) fn at(self, phys: u64) -> bool {
        self.0 >> (phys & 7) & 1 != 0
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is known of versions that are not kept any more.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Past {
    /// How many there were.
    pub(crate) count: u32,
    /// Where any of them was a trap.
    pub(crate) traps: Traps,
}

/// A stored code unit: address and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Unit {
    pub(crate) phys: u64,
    pub(crate) len: u8,
    pub(crate) bytes: [u8; 8],
}

/// The versions of one range, oldest first; version 0, what was there before the first one, has no
/// entry.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Versions that are not kept any more.
    pub(crate) forgotten: Past,
    pub(crate) versions: Kept,
}

/// The versions kept of a history: most memory is stored to once between two looks.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    One(Rc<Version>),
    Many(Rc<Vec<Rc<Version>>>),
}

impl Kept {
    /// Some versions, at least one.
    pub(super) fn of(mut versions: impl ExactSizeIterator<Item = Rc<Version>>) -> Self {
        match (versions.len(), versions.next()) {
            (1, Some(one)) => Kept::One(one),
            (_, first) => Kept::Many(Rc::new(first.into_iter().chain(versions).collect())),
        }
    }
}

impl std::ops::Deref for Kept {
    type Target = [Rc<Version>];

    fn deref(&self) -> &[Rc<Version>] {
        match self {
            Kept::One(version) => std::slice::from_ref(version),
            Kept::Many(versions) => versions,
        }
    }
}

impl History {
    pub(crate) fn newest(&self) -> Option<&Rc<Version>> {
        self.versions.last()
    }

    /// Number of the newest version known at `stamp`, counted from 0 = before all stores.
    pub(crate) fn number_at(&self, stamp: u64) -> u32 {
        let known = self.versions.iter().filter(|v| v.stamp <= stamp).count() as u32;
        if known == 0 { 0 } else { self.forgotten.count + known }
    }

    /// Number of the newest version.
    pub(crate) fn newest_number(&self) -> u32 {
        self.forgotten.count + self.versions.len() as u32
    }

    /// Whether an instruction at `phys` was a trap that is not kept any more.
    pub(crate) fn trapped_before(&self, phys: u64) -> bool {
        self.forgotten.traps.at(phys)
    }

    /// It as the past of what comes next; nothing where something about it has to stay.
    pub(super) fn past(&self, arch: Arch) -> Option<Past> {
        let mut traps = self.forgotten.traps;
        for version in self.versions.iter() {
            traps = traps.and(version.traps(arch)?);
        }
        let waits = self.newest().is_none_or(|version| version.waits_for_fence());
        (!waits).then(|| Past { count: self.newest_number(), traps })
    }

    /// One version more; the oldest is forgotten where there are too many.
    pub(super) fn push(&mut self, arch: Arch, version: &Rc<Version>) {
        match &mut self.versions {
            Kept::One(first) => {
                let mut versions = Vec::with_capacity(2);
                versions.extend([Rc::clone(first), Rc::clone(version)]);
                self.versions = Kept::Many(Rc::new(versions));
            }
            Kept::Many(versions) => {
                let versions = Rc::make_mut(versions);
                if versions.len() >= MAX_VERSIONS {
                    let oldest = versions.remove(0);
                    let traps = oldest.traps(arch).unwrap_or_default();
                    self.forgotten.traps = self.forgotten.traps.and(traps);
                    self.forgotten.count += 1;
                }
                versions.push(Rc::clone(version));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traps(arch: Arch, phys: u64, bytes: &[u8]) -> Option<Vec<u64>> {
        let mut unit = Unit { phys, len: bytes.len() as u8, bytes: [0; 8] };
        unit.bytes[..bytes.len()].copy_from_slice(bytes);
        let traps = Traps::of(arch, &unit)?;
        Some((0..8).filter(|at| traps.at(*at)).collect())
    }

    #[test]
    fn where_instructions_trap_is_kept_by_their_places() {
        let int3 = |phys, bytes: &[u8]| traps(Arch::X86_64, phys, bytes);
        assert_eq!(int3(0x1003, &[0xcc, 0x90, 0xcc]), Some(vec![3, 5]));
        assert_eq!(int3(0x1006, &[1, 2, 3, 4]), Some(vec![]), "nothing to keep");
        assert_eq!(int3(0x1006, &[1, 2, 0xcc, 4]), None, "in two blocks of eight bytes");
        let brk = [0x00, 0x20, 0x20, 0xd4];
        let arm = |phys, bytes: &[u8]| traps(Arch::Arm64, phys, bytes);
        assert_eq!(arm(0x1004, &brk), Some(vec![4]));
        assert_eq!(arm(0x1000, &[0x1f, 0x20, 3, 0xd5, 0, 0, 0, 0]), Some(vec![4]), "udf #0");
        // What begins at no multiple of four is no instruction.
        assert_eq!(arm(0x1002, &[0; 4]), Some(vec![]));
        assert_eq!(arm(0x1002, &[1, 1, 0, 0, 0, 0]), Some(vec![4]));
    }
}
