//! x86: bits of an entry and what the calls do to them.

use super::{Action, Change, change};
use textbed_arch::Cite;
use textbed_kernel::Version;

const P: u64 = 1;
const RW: u64 = 1 << 1;
const NX: u64 = 1 << 63;

/// PAGE_KERNEL without memory encryption.
pub(super) const PAGE_KERNEL: u64 = 0x8000_0000_0000_0163;

const PAT: Cite = Cite::read("Linux 6.12 arch/x86/mm/pat/set_memory.c");

// From 6.6 on RW is cleared together with DIRTY, which decides no permission.
pub(super) const CHANGES: &[Change] = &[
    change(Action::Ro, 0, RW, PAT),
    change(Action::Rw, RW, 0, PAT),
    change(Action::X, 0, NX, PAT),
    change(Action::Nx, NX, 0, PAT),
    Change { since: Some(Version::candidate(6, 2, 1)), ..change(Action::Rox, 0, RW | NX, PAT) },
    change(Action::Np, 0, P, PAT),
    change(Action::P, P, 0, PAT),
    change(Action::DirectInvalid, 0, P | RW, PAT),
    change(Action::DirectDefault, P | RW, 0, PAT),
];
