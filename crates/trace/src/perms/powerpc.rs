//! powerpc, Book3S-64 radix: bits of an entry and what the calls do to them.
//!
//! Hash tables: the same bits in the software entries, but the hardware's are elsewhere; not
//! modelled.

use super::{Action, Change, change};
use textbed_arch::Cite;
use textbed_kernel::Version;

const EXEC: u64 = 1;
const WRITE: u64 = 1 << 1;
const READ: u64 = 1 << 2;
const PRESENT: u64 = 1 << 63;

/// PAGE_KERNEL.
pub(super) const PAGE_KERNEL: u64 = 0xc000_0000_0000_018e;

const PAGEATTR: Cite = Cite::read("Linux 6.12 arch/powerpc/mm/pageattr.c");

pub(super) const CHANGES: &[Change] = &[
    change(Action::Ro, READ, WRITE, PAGEATTR),
    change(Action::Rw, READ | WRITE, 0, PAGEATTR),
    change(Action::X, EXEC, 0, PAGEATTR),
    change(Action::Nx, 0, EXEC, PAGEATTR),
    Change {
        since: Some(Version::candidate(6, 10, 1)),
        ..change(Action::Rox, READ | EXEC, WRITE, PAGEATTR)
    },
    change(Action::Np, 0, PRESENT, PAGEATTR),
    change(Action::P, PRESENT, 0, PAGEATTR),
];

/// The action with the number that `change_memory_attr` takes (`arch/powerpc/include/asm/
/// set_memory.h`: SET_MEMORY_RO 0, RW 1, NX 2, X 3, NP 4, P 5, ROX 6).
pub fn action_from_number(number: u64) -> Option<Action> {
    Some(match number {
        0 => Action::Ro,
        1 => Action::Rw,
        2 => Action::Nx,
        3 => Action::X,
        4 => Action::Np,
        5 => Action::P,
        6 => Action::Rox,
        _ => return None,
    })
}
