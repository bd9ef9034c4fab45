//! The facts by version and architecture, with their sources.
//!
//! A row holds from `since` (first version) to before `until`. Evidence: *read* where a tree on
//! both sides of the bound, or the commit's mail or push log, was read; *deduced* where trees on
//! both sides were, but not those next to it; *memory* otherwise. Trees of stable series
//! (5.18.12, 6.1.20, 6.3.8, 6.7.3, 6.8.1, 6.11.11, 6.13.2, 6.18.2) may have later fixes; where one
//! does, the row says so. Topics are files: memory and permissions, BPF, patching, and
//! those who patch.

mod bpf;
mod memory;
mod patching;
mod users;

use textbed_arch::{Arch, Cite};

use crate::caps::{Fact, FactRow, Value};
use crate::version::Version;

/// Architectures that boot.
const ALL: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const X86: &[Arch] = &[Arch::X86_64];
const ARM64: &[Arch] = &[Arch::Arm64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const POWER_64: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64];
const NOT_PPC32: &[Arch] = &[Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const PPC32: &[Arch] = &[Arch::Ppc32];
const NOT_X86: &[Arch] = &[Arch::Arm64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];
const NOT_POWER: &[Arch] = &[Arch::X86_64, Arch::Arm64];

/// The version that has the opt-in (559089e0a93d, first head after 5.18-rc3).
pub(crate) const OPT_IN: Version = Version::candidate(5, 18, 4);
const V5_19: Version = Version::candidate(5, 19, 1);
const V6_0: Version = Version::candidate(6, 0, 1);
pub(crate) const V6_1: Version = Version::candidate(6, 1, 1);
pub(crate) const V6_2: Version = Version::candidate(6, 2, 1);
const V6_3: Version = Version::candidate(6, 3, 1);
const V6_4: Version = Version::candidate(6, 4, 1);
pub(crate) const V6_7: Version = Version::candidate(6, 7, 1);
pub(crate) const V6_8: Version = Version::candidate(6, 8, 1);
pub(crate) const V6_9: Version = Version::candidate(6, 9, 1);
pub(crate) const V6_10: Version = Version::candidate(6, 10, 1);
const V6_6: Version = Version::candidate(6, 6, 1);
pub(crate) const V6_11: Version = Version::candidate(6, 11, 1);
pub(crate) const V6_12: Version = Version::candidate(6, 12, 1);
pub(crate) const V6_13: Version = Version::candidate(6, 13, 1);
const V6_16: Version = Version::candidate(6, 16, 1);
pub(crate) const V6_15: Version = Version::candidate(6, 15, 1);
pub(crate) const V6_18: Version = Version::candidate(6, 18, 1);
/// The stable release that has fixes of 6.19.
const V6_18_2: Version = Version::point(6, 18, 2);
const V6_19: Version = Version::candidate(6, 19, 1);
const V7_0: Version = Version::candidate(7, 0, 1);

const NOT_ARM64: &[Arch] = &[Arch::X86_64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32];

/// What one architecture alone has, where the others are asked.
const X86_ALONE: Cite = Cite::read(
    "Linux 5.18.12, 6.1, 6.6, 6.12, 6.18.2, 7.0 arch/arm64, arch/powerpc: neither has it or its name",
);
const ARM64_ALONE: Cite = Cite::read(
    "Linux 5.18.12, 6.1, 6.6, 6.12, 6.18.2, 7.0 arch/x86, arch/powerpc: neither has it or its name",
);
const POWER_ALONE: Cite = Cite::read(
    "Linux 5.18.12, 6.1, 6.6, 6.12, 6.18.2, 7.0 arch/x86, arch/arm64: neither has it or its name",
);

const fn row(
    fact: Fact,
    archs: &'static [Arch],
    since: Option<Version>,
    until: Option<Version>,
    value: Value,
    cite: Cite,
) -> FactRow {
    FactRow { fact, archs, since, until, value, cite }
}

joined! {
    /// Every fact.
    pub FACTS: FactRow = memory::ROWS, bpf::ROWS, patching::ROWS, users::ROWS
}
