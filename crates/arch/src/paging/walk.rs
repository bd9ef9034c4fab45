//! One virtual address followed through a tree.
//!
//! Modelled: the path of entries, the permissions of all levels combined, and why a walk ends.
//! Not modelled: caches of any kind (this reads memory as it is), and memory types.

use std::fmt;

use super::codec::{Entry, Why};
use super::{Attempt, Canonical, Controls, Format, MAX_LEVELS, Privilege, Refusal};
use crate::addr::{PhysAddr, VirtAddr};
use crate::isa::Arch;
use crate::perm::Perm;

/// Where Linux's own addresses begin on 32-bit Power: PAGE_OFFSET, and the segment below it for
/// modules (its default; other configurations have other ones).
const KERNEL_32: u64 = 0xb000_0000;

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
    /// What all levels together grant, before the control bits.
    pub rights: Perm,
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
    /// The entry's address is beyond the physical size that is set (arm64).
    AddressSize {
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
            WalkFault::AddressSize { level } => write!(f, "address too large (level {level})"),
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
    /// value of the entry at an address (see [`Format::entry_from_bytes`]), or `None` where
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
                Entry::Table { next: addr, .. } | Entry::Leaf { phys: addr, .. }
                    if self.too_large(addr, controls) =>
                {
                    walk.result = Err(WalkFault::AddressSize { level });
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
                            rights: self.rights(va, perm, limits, controls),
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

    /// Whether an address is beyond arm64's physical size.
    fn too_large(&self, addr: PhysAddr, controls: &Controls) -> bool {
        self.arch == Arch::Arm64 && addr.0.checked_shr(controls.arm_pa_bits).unwrap_or(0) != 0
    }

    /// Whether the Access flag lets the leaf be used.
    pub(super) fn accessible(&self, level: usize, raw: u64, controls: &Controls) -> bool {
        let flag = self.shape(level, true).map_or(0, |s| s.accessed);
        flag == 0 || raw & flag != 0 || controls.arm_ha
    }

    /// What a leaf that grants `leaf` gives at `va` below tables that left `limits` possible: READ,
    /// WRITE and EXEC are the kernel's, USER says that a process may load, USER_EXEC that it may
    /// fetch.
    #[must_use]
    pub fn effective(&self, va: VirtAddr, leaf: Perm, limits: Perm, controls: &Controls) -> Perm {
        let rights = self.rights(va, leaf, limits, controls);
        let rwx = Perm::READ | Perm::WRITE | Perm::EXEC;
        // No leaf: keys are not part of what a mapping is said to grant, and numbers of permissions
        // were looked up in the leaf.
        let in_force = controls.in_force(self.arch);
        let no_keys =
            Controls { x86_pkru: None, x86_pkrs: None, arm_indirection: None, ..in_force };
        let level = self.last_level();
        let kernel = self.granted(level, 0, rights, Privilege::Kernel, &no_keys);
        let user = self.granted(level, 0, rights, Privilege::User, &no_keys);
        let mut perm = rights.difference(rwx).union(kernel);
        perm.set(Perm::USER_EXEC, user.contains(Perm::EXEC));
        perm
    }

    /// What all levels together grant, before control bits.
    fn rights(&self, va: VirtAddr, leaf: Perm, limits: Perm, controls: &Controls) -> Perm {
        let hierarchical = self.arch != Arch::Arm64 || !controls.in_force(self.arch).arm_hpd;
        let mut rights = if hierarchical { leaf & limits } else { leaf };
        if self.arch.is_powerpc() {
            let kernel = match self.canonical {
                Canonical::ZeroAbove => va.0 >= KERNEL_32,
                _ => va.0 >> 62 == 3,
            };
            rights.set(Perm::GLOBAL, kernel);
        }
        rights
    }

    /// One access: the physical address that it reaches, or why it faults.
    ///
    /// # Errors
    /// The refusal; [`Format::syndrome`] has what the CPU says of it.
    pub fn access(
        &self,
        root: PhysAddr,
        va: VirtAddr,
        who: Privilege,
        what: Attempt,
        controls: &Controls,
        read: &mut dyn FnMut(PhysAddr) -> Option<u64>,
    ) -> Result<PhysAddr, Refusal> {
        let t = self.walk_with(root, va, controls, read).result.map_err(Refusal::Walk)?;
        let granted = self.granted(t.level, t.raw, t.rights, who, controls);
        if granted.contains(what.needs()) {
            return Ok(t.phys);
        }
        let by_key = self.key_takes(t.level, t.raw, t.rights, who, controls);
        Err(Refusal::Rights { level: t.level, key: by_key.contains(what.needs()) })
    }
}
