//! What a permission change does to a leaf entry, by architecture and version.
//!
//! Logs give protection bits as the kernel has them (`prot=0x8000000000000163`, masks, action
//! numbers). [`Bits`] keeps of them what decides permissions, and reads them through the
//! page-table formats of `textbed-arch`, so that no bit is stated twice.
//!
//! Not modelled: memory types, keys, software bits.

mod arm64;
mod powerpc;
mod x86;

pub use powerpc::action_from_number;

use textbed_arch::paging::{Controls, Format, Role};
use textbed_arch::{Arch, Cite, Perm, VirtAddr};
use textbed_kernel::Version;

/// A change of permissions, as a function's name or argument asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Not writable.
    Ro,
    /// Writable.
    Rw,
    /// Executable.
    X,
    /// Not executable.
    Nx,
    /// Not writable, executable.
    Rox,
    /// Not present.
    Np,
    /// Present.
    P,
    /// A direct map page is made invalid.
    DirectInvalid,
    /// A direct map page is made valid and writable.
    DirectDefault,
}

impl Action {
    /// All.
    pub const ALL: [Action; 9] = [
        Action::Ro,
        Action::Rw,
        Action::X,
        Action::Nx,
        Action::Rox,
        Action::Np,
        Action::P,
        Action::DirectInvalid,
        Action::DirectDefault,
    ];
}

/// Bits that a change sets and clears in an entry; clearing comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Masks {
    /// Set.
    pub set: u64,
    /// Cleared.
    pub clear: u64,
}

/// A row: what an action does to an entry.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    /// The action.
    pub action: Action,
    /// The masks.
    pub masks: Masks,
    /// First kernel version with the action.
    pub since: Option<Version>,
    /// Where it is from.
    pub cite: Cite,
}

const fn change(action: Action, set: u64, clear: u64, cite: Cite) -> Change {
    Change { action, masks: Masks { set, clear }, since: None, cite }
}

/// The rows of an architecture; empty where it is not modelled.
pub fn table(arch: Arch) -> &'static [Change] {
    match arch {
        Arch::X86_64 => x86::CHANGES,
        Arch::Arm64 => arm64::CHANGES,
        Arch::Ppc64le | Arch::Ppc64 => powerpc::CHANGES,
        Arch::Ppc32 => &[],
    }
}

/// The masks of an action; `None` if the architecture has no such action.
pub fn masks(arch: Arch, action: Action) -> Option<Masks> {
    table(arch).iter().find(|c| c.action == action).map(|c| c.masks)
}

/// Protection bits of PAGE_KERNEL: what a mapping is taken to have had that was made before the
/// log began and of which no page tables were given.
pub fn page_kernel(arch: Arch) -> u64 {
    match arch {
        Arch::X86_64 => x86::PAGE_KERNEL,
        Arch::Arm64 => arm64::PAGE_KERNEL,
        Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => powerpc::PAGE_KERNEL,
    }
}

/// What of an entry decides permissions, for one format.
#[derive(Debug, Clone, Copy)]
pub struct Bits {
    format: &'static Format,
    /// Bits that grant, deny or make valid, in a leaf of the last level.
    keep: u64,
}

impl Bits {
    /// For a format.
    pub fn new(format: &'static Format) -> Self {
        let level = format.last_level();
        let keep = format
            .fields
            .iter()
            .filter(|f| f.is_in(level, true))
            .filter(|f| {
                matches!(
                    f.role,
                    Role::Valid | Role::Grant(_) | Role::Deny(_) | Role::GrantIfHardwareDirty(_)
                )
            })
            .fold(0, |mask, f| mask | f.mask());
        Self { format, keep }
    }

    /// The format.
    pub fn format(&self) -> &'static Format {
        self.format
    }

    /// The deciding bits of an entry, or of protection bits as a log prints them.
    pub fn of(&self, raw: u64) -> u64 {
        raw & self.keep
    }

    /// After a change.
    pub fn apply(&self, bits: u64, masks: Masks) -> u64 {
        self.of((bits & !masks.clear) | masks.set)
    }

    /// What a leaf with these bits grants at `virt`; empty if it is not valid. READ and the like
    /// that no bit grants come with validity.
    pub fn perm(&self, virt: VirtAddr, bits: u64) -> Perm {
        let level = self.format.last_level();
        let leaf_type = self
            .format
            .fields
            .iter()
            .filter(|f| f.is_in(level, true))
            .find_map(|f| match f.role {
                Role::LeafIf(value) => Some(value << f.lo_bit),
                _ => None,
            })
            .unwrap_or(0);
        let perm = self.format.entry_perm(level, bits | leaf_type, &Controls::LINUX);
        if !perm.contains(Perm::PRESENT) {
            return Perm::empty();
        }
        self.format.effective(virt, perm, Perm::all(), &Controls::LINUX)
    }
}

#[cfg(test)]
mod tests;
