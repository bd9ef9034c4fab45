//! Generated code: unpack functions for formats of packed keys, as a file system makes one for
//! each btree node.
//!
//! Modelled: a table of six fields (width, base value), compiled to x86-64, arm64 and 64-bit Power
//! of either byte order; an interpreter of the same table; a variant whose bases come from a table
//! in memory. The idea and the fields are bcachefs's (Linux 6.12 fs/bcachefs/bkey.c, read), the
//! code is not. Not modelled: its big-endian key order (words are in the CPU's order here, fields
//! in the same bits everywhere), comparison functions, values behind keys, 32-bit Power.
//!
//! A compiled function takes (destination, packed key) and, with [`Bases::Table`], (table) as its
//! third argument; it returns nothing.

mod arm64;
mod format;
mod names;
mod plan;
mod powerpc;
mod x86;

pub use format::{
    FIELDS, Field, FieldSpec, Format, FormatError, HEADER_BITS, UNPACKED_BYTES, UNPACKED_WORDS,
    Unpacked,
};
pub use names::{NAMES_HELP, PARTS, SAMPLE, is_name, known_names, made};

use textbed_arch::Arch;

/// Where a function takes the fields' base values from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bases {
    /// From its own immediates.
    Immediate,
    /// From a table of six 64-bit words in memory, in the order of [`FIELDS`].
    Table,
}

/// Why there is no code.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompileError {
    /// An architecture without a code generator.
    #[error("no code generator for {0}")]
    NoGenerator(Arch),
    /// An instruction could not be encoded; a bug of this crate.
    #[error("an instruction could not be encoded: {0}")]
    Encode(String),
}

/// Compiles a format to machine code in the byte order of `arch`.
///
/// # Errors
/// There is no generator for 32-bit Power.
pub fn compile(arch: Arch, format: &Format, bases: Bases) -> Result<Vec<u8>, CompileError> {
    match arch {
        Arch::X86_64 => x86::compile(format, bases),
        Arch::Arm64 => Ok(bytes(arch, &arm64::compile(format, bases))),
        Arch::Ppc64le | Arch::Ppc64 => {
            Ok(bytes(arch, &powerpc::compile(format, bases, arch.is_little_endian())))
        }
        Arch::Ppc32 => Err(CompileError::NoGenerator(arch)),
    }
}

/// Instruction words in an architecture's byte order.
fn bytes(arch: Arch, words: &[u32]) -> Vec<u8> {
    let order = |w: &u32| {
        if arch.is_little_endian() { w.to_le_bytes() } else { w.to_be_bytes() }
    };
    words.iter().flat_map(order).collect()
}
