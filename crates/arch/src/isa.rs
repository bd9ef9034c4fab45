//! The architectures by name.
//!
//! Modelled: the five targets and the spellings that people use for them. Not modelled here: their
//! features ([`crate::features`]) and formats ([`crate::paging`]).

use std::{fmt, str::FromStr};

use crate::addr::VirtAddr;

/// A target architecture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Arch {
    /// x86-64 in long mode.
    X86_64,
    /// Arm AArch64, little-endian.
    Arm64,
    /// 64-bit Power, little-endian.
    Ppc64le,
    /// 64-bit Power, big-endian.
    Ppc64,
    /// 32-bit Power, big-endian.
    Ppc32,
}

impl Arch {
    /// Every architecture, in the order in which reports list them.
    pub const ALL: [Arch; 5] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];

    /// The name used in scenarios, options and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Arm64 => "arm64",
            Arch::Ppc64le => "ppc64le",
            Arch::Ppc64 => "ppc64",
            Arch::Ppc32 => "ppc32",
        }
    }

    /// Whether this is one of the Power architectures.
    #[must_use]
    pub fn is_powerpc(self) -> bool {
        matches!(self, Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32)
    }

    /// Whether data and instructions are stored with the least significant byte first.
    #[must_use]
    pub fn is_little_endian(self) -> bool {
        matches!(self, Arch::X86_64 | Arch::Arm64 | Arch::Ppc64le)
    }

    /// Whether an address lies in the half of the address space in which the kernel is: its highest
    /// bit, which is number 31 on 32-bit Power. (A process may have more there than half; it is not
    /// asked about such addresses.)
    #[must_use]
    pub fn is_kernel_address(self, virt: VirtAddr) -> bool {
        virt.0 >> if self == Arch::Ppc32 { 31 } else { 63 } == 1
    }

    /// Unit in which code is versioned, in bytes: what one fetch reads without tearing. A byte on
    /// x86-64, a word elsewhere (Power prefixed instructions are two words).
    #[must_use]
    pub fn code_unit_bytes(self) -> u64 {
        if self == Arch::X86_64 { 1 } else { 4 }
    }

    /// The architectures that a name stands for: one, or the three Powers for `powerpc`. Accepts
    /// the aliases `amd64`, `x86-64`, `aarch64`, `ppc64el`, and `all`.
    #[must_use]
    pub fn group(name: &str) -> Option<&'static [Arch]> {
        Some(match name {
            "x86_64" | "amd64" | "x86-64" => &[Arch::X86_64],
            "arm64" | "aarch64" => &[Arch::Arm64],
            "ppc64le" | "ppc64el" => &[Arch::Ppc64le],
            "ppc64" => &[Arch::Ppc64],
            "ppc32" => &[Arch::Ppc32],
            "powerpc" => &[Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32],
            "all" => &Arch::ALL,
            _ => return None,
        })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no architecture.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown architecture '{0}' (known: x86_64, arm64, ppc64le, ppc64, ppc32)")]
pub struct UnknownArch(pub String);

impl FromStr for Arch {
    type Err = UnknownArch;

    /// One architecture by name or alias; a group such as `powerpc` is refused.
    fn from_str(s: &str) -> Result<Self, UnknownArch> {
        match Arch::group(s) {
            Some([one]) => Ok(*one),
            _ => Err(UnknownArch(s.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_aliases_resolve() {
        for arch in Arch::ALL {
            assert_eq!(arch.name().parse(), Ok(arch));
        }
        assert_eq!("ppc64el".parse(), Ok(Arch::Ppc64le));
        assert_eq!(Arch::group("powerpc").map(<[Arch]>::len), Some(3));
        assert!("powerpc".parse::<Arch>().is_err());
    }
}
