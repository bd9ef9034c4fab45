//! The instruction table, and the one decoder that reads it.
//!
//! Rows: maintenance, barriers, TLB invalidation, traps, returns, serialising and live-patchable
//! instructions, control flow, exclusives and atomics of x86-64, arm64 and powerpc. Each row has an
//! encoding, an effect and a citation; [`decode()`] gives the row and its operands.
//!
//! Not in the table: ordinary computation, loads and stores. [`decode`] returns `None` for those,
//! and their length on x86 comes from elsewhere. Not modelled: 32-bit Arm and x86, Thumb.

mod arm64;
mod decode;
mod encoding;
mod example;
mod operand;
mod powerpc;
mod row;
mod word;
mod x86;
mod x86_rows;

pub use decode::{Insn, decode};
pub use operand::{BaseReg, MemRef, Operand, Operands, Segment};
pub use row::{
    CmodxRevision, Family, Imm, LivePatch, Lock, Mandatory, ModRm, OpId, OpcodeMap, PatchList,
    Pattern, Row, Serialising, Shape, X86Pattern,
};
pub use word::word_insn_len;
pub(crate) use word::{ARM64_TRAPS, POWERPC_TRAPS};
pub use x86::{msr_write_serialises, serialising_msr_exceptions};

use crate::isa::Arch;

/// The rows of an architecture, in the order in which they are listed.
#[must_use]
pub fn rows(arch: Arch) -> &'static [Row] {
    match Family::of(arch) {
        Family::X86 => x86_rows::ROWS,
        Family::Arm64 => arm64::ROWS,
        Family::Powerpc => powerpc::ROWS,
    }
}

/// The row called `name` (mnemonic and, for system operations, the operation: `dc cvau`). Where
/// several encodings share a name, the first.
#[must_use]
pub fn by_name(arch: Arch, name: &str) -> Option<&'static Row> {
    rows(arch).iter().find(|r| r.name == name)
}

/// The row with this id.
#[must_use]
pub fn by_id(id: OpId) -> Option<&'static Row> {
    let table = match id.0 >> 12 {
        1 => x86_rows::ROWS,
        2 => arm64::ROWS,
        3 => powerpc::ROWS,
        _ => return None,
    };
    table.iter().find(|r| r.id == id)
}

#[cfg(test)]
mod tests;
