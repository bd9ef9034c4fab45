//! The one decoder: bytes to row and operands.

use super::operand::Operands;
use super::row::{Family, Row};
use super::{word, x86};
use crate::isa::Arch;

/// A decoded instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insn {
    /// Its row.
    pub row: &'static Row,
    /// Its length in bytes.
    pub len: u8,
    /// Its operands.
    pub operands: Operands,
}

/// Decodes the instruction that starts at `bytes[0]`, in the byte order in which `arch` stores
/// instructions. `None` if it is not in the table, is not an instruction, or is not wholly in
/// `bytes`. What is returned is never a guess: an instruction outside the table is never taken for
/// one in it.
#[must_use]
pub fn decode(arch: Arch, bytes: &[u8]) -> Option<Insn> {
    match Family::of(arch) {
        Family::X86 => x86::decode(bytes),
        Family::Arm64 | Family::Powerpc => word::decode(arch, bytes),
    }
}
