//! One version of a range, and the versions of it that are kept, oldest first.

use std::cell::Cell;
use std::rc::Rc;

use textbed_arch::{Arch, CpuId, trap};

use super::clock::Clock;
use super::views::View;
use crate::mark::Mark;

/// Versions kept for one range.
const MAX_VERSIONS: usize = 8;

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

    /// Whether its bytes are, or hold, a trap.
    pub(super) fn may_trap(&self, arch: Arch) -> bool {
        self.unit.is_some_and(|u| may_trap(arch, u.bytes.get(..usize::from(u.len)).unwrap_or(&[])))
    }
}

/// See [`Version::key`].
#[inline]
pub(crate) fn key_of(stamp: u64, cpu: CpuId) -> u64 {
    stamp << 16 | u64::from(cpu.0)
}

/// Whether bytes are, or hold, a trap.
pub(super) fn may_trap(arch: Arch, bytes: &[u8]) -> bool {
    match arch {
        Arch::X86_64 => {
            let trap = trap::trap_pattern(arch);
            bytes.iter().any(|byte| trap.contains(byte))
        }
        _ => bytes.windows(4).any(|word| trap::is_trap_fill(arch, word)),
    }
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
    pub(crate) forgotten: u32,
    pub(crate) versions: Kept,
}

/// The versions kept of a history: most memory is stored to once between two looks.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    One(Rc<Version>),
    Many(Rc<Vec<Rc<Version>>>),
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
        if known == 0 { 0 } else { self.forgotten + known }
    }

    /// Number of the newest version.
    pub(crate) fn newest_number(&self) -> u32 {
        self.forgotten + self.versions.len() as u32
    }

    /// One version more; the oldest is forgotten where there are too many.
    pub(super) fn push(&mut self, version: &Rc<Version>) {
        match &mut self.versions {
            Kept::One(first) => {
                let mut versions = Vec::with_capacity(2);
                versions.extend([Rc::clone(first), Rc::clone(version)]);
                self.versions = Kept::Many(Rc::new(versions));
            }
            Kept::Many(versions) => {
                let versions = Rc::make_mut(versions);
                if versions.len() >= MAX_VERSIONS {
                    versions.remove(0);
                    self.forgotten += 1;
                }
                versions.push(Rc::clone(version));
            }
        }
    }
}
