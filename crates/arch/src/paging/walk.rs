//! One virtual address followed through a tree.
//!
//! Modelled: the path of entries, the permissions of all levels combined, and why a walk ends.
//! Not modelled: caches of any kind (this reads memory as it is), and memory types.

use std::fmt;

use super::codec::{Entry, Why};
use super::{Controls, Format, MAX_LEVELS};
use crate::addr::{PhysAddr, VirtAddr};
use crate::isa::Arch;
use crate::perm::Perm;

/// One entry read on the way.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Step {
    /// Its level.
    pub level: usize,
    /// Its address.
    pub addr: PhysAddr,
    /// Its value.
    pub raw: u64,
}

/// Where a walk arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Physical address of the byte asked for.
    pub phys: PhysAddr,
    /// First byte of the leaf's frame.
    pub frame: PhysAddr,
    /// `log2` of the leaf's bytes.
    pub shift: u32,
    /// The leaf's level.
    pub level: usize,
    /// What all levels and the controls together grant.
    pub perm: Perm,
    /// What the leaf grants by itself.
    pub leaf_perm: Perm,
    /// The leaf.
    pub raw: u64,
}

/// Why a walk found no translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalkFault {
    /// The address is none that the tables translate.
    NonCanonical,
    /// The entry at this level is not valid.
    NotPresent {
        /// The level.
        level: usize,
    },
    /// The entry at this level is valid but malformed.
    Malformed {
        /// The level.
        level: usize,
        /// What is wrong.
        why: Why,
    },
    /// The leaf's Access flag is 0 and hardware does not set it (arm64).
    AccessFlag {
        /// The level.
        level: usize,
    },
    /// The table lies where memory cannot be read.
    OutsideMemory {
        /// The level whose entry was to be read.
        level: usize,
        /// The entry's address.
        addr: PhysAddr,
    },
}

impl fmt::Display for WalkFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalkFault::NonCanonical => write!(f, "address is not canonical"),
            WalkFault::NotPresent { level } => write!(f, "nothing mapped (level {level})"),
            WalkFault::Malformed { level, why } => write!(f, "malformed at level {level}: {why}"),
            WalkFault::AccessFlag { level } => write!(f, "Access flag clear (level {level})"),
            WalkFault::OutsideMemory { level, addr } => {
                write!(f, "entry of level {level} at {addr} is outside memory")
            }
        }
    }
}

/// The result of a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Walk {
    /// The address asked for.
    pub va: VirtAddr,
    steps: [Step; MAX_LEVELS],
    n_steps: usize,
    /// The translation, or why there is none.
    pub result: Result<Translation, WalkFault>,
}

impl Walk {
    /// The entries read, root first; the last one is the leaf or the one that failed.
    #[must_use]
    pub fn path(&self) -> &[Step] {
        &self.steps[..self.n_steps]
    }

    /// The translation, if there is one.
    #[must_use]
    pub fn translation(&self) -> Option<&Translation> {
        self.result.as_ref().ok()
    }

    /// The effective permissions; empty if there is no translation.
    #[must_use]
    pub fn perm(&self) -> Perm {
        self.result.map_or(Perm::empty(), |t| t.perm)
    }
}

impl Format {
    /// Follows `va` from the root table at `root`, under [`Controls::LINUX`]. `read` returns the
    /// value of the 8-byte entry at an address (see [`Format::entry_from_bytes`]), or `None` where
    /// there is no memory. At most one entry a level is read, so no table can make it loop.
    pub fn walk(
        &self,
        root: PhysAddr,
        va: VirtAddr,
        read: &mut dyn FnMut(PhysAddr) -> Option<u64>,
    ) -> Walk {
        self.walk_with(root, va, &Controls::LINUX, read)
    }

    /// As [`Format::walk`] with other control bits.
    pub fn walk_with(
        &self,
        root: PhysAddr,
        va: VirtAddr,
        controls: &Controls,
        read: &mut dyn FnMut(PhysAddr) -> Option<u64>,
    ) -> Walk {
        let fault = Err(WalkFault::NonCanonical);
        let mut walk = Walk { va, steps: [Step::default(); MAX_LEVELS], n_steps: 0, result: fault };
        if !self.is_canonical(va) {
            return walk;
        }
        let (mut table, mut limits) = (root, Perm::all());
        for (level, step) in walk.steps.iter_mut().enumerate().take(self.levels.len()) {
            let addr = self.entry_addr(table, level, va).unwrap_or(PhysAddr(u64::MAX));
            let Some(raw) = read(addr) else {
                walk.result = Err(WalkFault::OutsideMemory { level, addr });
                return walk;
            };
            *step = Step { level, addr, raw };
            walk.n_steps = level + 1;
            match self.decode_with(level, raw, controls) {
                Entry::None => walk.result = Err(WalkFault::NotPresent { level }),
                Entry::Malformed { why } => {
                    walk.result = Err(WalkFault::Malformed { level, why });
                }
                Entry::Table { next, limits: here } => {
                    table = next;
                    limits &= here;
                    continue;
                }
                Entry::Leaf { phys: frame, shift, perm, raw } => {
                    walk.result = if self.accessible(level, raw, controls) {
                        let offset = va.0 & ((1u64 << shift) - 1);
                        Ok(Translation {
                            phys: PhysAddr(frame.0 | offset),
                            frame,
                            shift,
                            level,
                            perm: self.effective(va, perm, limits, controls),
                            leaf_perm: perm,
                            raw,
                        })
                    } else {
                        Err(WalkFault::AccessFlag { level })
                    };
                }
            }
            return walk;
        }
        walk
    }

    /// Whether the Access flag lets the leaf be used.
    pub(super) fn accessible(&self, level: usize, raw: u64, controls: &Controls) -> bool {
        let flag = self.shape(level, true).map_or(0, |s| s.accessed);
        flag == 0 || raw & flag != 0 || controls.arm_ha
    }

    /// What a leaf that grants `leaf` gives at `va` below tables that left `limits` possible.
    #[must_use]
    pub fn effective(&self, va: VirtAddr, leaf: Perm, limits: Perm, controls: &Controls) -> Perm {
        let hierarchical = self.arch != Arch::Arm64 || !controls.arm_hpd;
        let mut perm = if hierarchical { leaf & limits } else { leaf };
        match self.arch {
            Arch::X86_64 => {
                if !controls.x86_wp {
                    perm |= Perm::WRITE;
                }
                if controls.x86_smep && perm.contains(Perm::USER) {
                    perm -= Perm::EXEC;
                }
            }
            Arch::Arm64 => {
                // What EL0 may write, EL1 may not execute.
                if perm.contains(Perm::USER | Perm::WRITE) {
                    perm -= Perm::EXEC;
                }
                if controls.arm_wxn && perm.contains(Perm::WRITE) {
                    perm -= Perm::EXEC | Perm::USER_EXEC;
                }
            }
            Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => {
                if controls.ppc_kuep && perm.contains(Perm::USER) {
                    perm -= Perm::EXEC;
                }
                perm.set(Perm::GLOBAL, va.0 >> 62 == 3);
            }
        }
        perm
    }
}
