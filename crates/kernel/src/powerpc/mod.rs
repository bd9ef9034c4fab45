//! What Linux does on powerpc: on 64-bit with radix translation and with hashed tables, on 32-bit
//! book3s with hashed tables, and on 8xx.

pub(crate) mod cache;
pub(crate) mod hash;
pub(crate) mod hash32;
pub(crate) mod pageattr;
pub(crate) mod patching;
pub(crate) mod tlb;

use textbed_arch::{Arch, Features};

use crate::kernel::Kernel;

/// How CPUs translate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PowerMmu {
    /// They walk trees.
    Radix,
    /// 64-bit hashed tables.
    Hash64,
    /// 32-bit hashed tables, segments, blocks.
    Hash32,
    /// 8xx: a miss of the TLB loads the tree's leaf.
    Soft8xx,
}

impl PowerMmu {
    /// That of an architecture's CPUs with these features; `None` of another architecture's.
    pub(crate) fn of(arch: Arch, features: Features) -> Option<PowerMmu> {
        let has = |feature| features.contains(feature);
        match arch {
            Arch::X86_64 | Arch::Arm64 => None,
            Arch::Ppc64le | Arch::Ppc64 if has(Features::PPC_RADIX) => Some(Self::Radix),
            Arch::Ppc64le | Arch::Ppc64 => Some(Self::Hash64),
            Arch::Ppc32 if has(Features::PPC_8XX) => Some(Self::Soft8xx),
            Arch::Ppc32 => Some(Self::Hash32),
        }
    }

    /// Whether the table of entries is what CPUs read.
    pub(crate) fn is_hashed(self) -> bool {
        matches!(self, Self::Hash64 | Self::Hash32)
    }
}

impl Kernel {
    /// That of this kernel's CPUs.
    pub(crate) fn power_mmu(&self) -> Option<PowerMmu> {
        PowerMmu::of(self.arch, self.features)
    }
}
