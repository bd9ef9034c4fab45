//! arm64: bits of an entry and what the calls do to them.
//!
//! GP (bit 50), which X and NX change on kernels with BTI, decides no permission here.

use super::{Action, Change, change};
use textbed_arch::Cite;
use textbed_kernel::Version;

const VALID: u64 = 1;
const RDONLY: u64 = 1 << 7;
const WRITE: u64 = 1 << 51;
const PXN: u64 = 1 << 53;

/// PAGE_KERNEL as recorded on 6.12 (`prot=0xe8000000000703`).
pub(super) const PAGE_KERNEL: u64 = 0x00e8_0000_0000_0703;

const PAGEATTR: Cite = Cite::read("Linux 6.12 arch/arm64/mm/pageattr.c");
const GENERIC: Cite = Cite::read("Linux 6.12 include/linux/set_memory.h (ro, then x)");

pub(super) const CHANGES: &[Change] = &[
    change(Action::Ro, RDONLY, WRITE, PAGEATTR),
    change(Action::Rw, WRITE, RDONLY, PAGEATTR),
    change(Action::X, 0, PXN, PAGEATTR),
    change(Action::Nx, PXN, 0, PAGEATTR),
    Change {
        since: Some(Version::candidate(6, 2, 1)),
        ..change(Action::Rox, RDONLY, WRITE | PXN, GENERIC)
    },
    change(Action::Np, 0, VALID, PAGEATTR),
    change(Action::P, VALID, 0, PAGEATTR),
    change(Action::DirectInvalid, 0, VALID, PAGEATTR),
    change(Action::DirectDefault, VALID | WRITE, RDONLY, PAGEATTR),
];
