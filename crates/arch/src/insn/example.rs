//! One encoding of each row, built from the row alone.

use super::row::{Imm, Lock, Mandatory, ModRm, OpcodeMap, Pattern, Row, X86Pattern};
use crate::isa::Arch;

impl Row {
    /// Bytes of one instruction of this row as `arch` stores them, with free fields zero but for
    /// registers and immediates that make it plain (arm64 Rt = 0, x86 `[rax]`).
    #[must_use]
    pub fn example(&self, arch: Arch) -> Vec<u8> {
        let word = |w: u32| {
            if arch.is_little_endian() {
                w.to_le_bytes().to_vec()
            } else {
                w.to_be_bytes().to_vec()
            }
        };
        match self.pattern {
            Pattern::Word { value, .. } => word(value),
            Pattern::Prefixed { prefix, value, .. } => [word(prefix), word(value)].concat(),
            Pattern::X86(p) => x86(&p),
        }
    }
}

fn x86(p: &X86Pattern) -> Vec<u8> {
    let mut bytes = Vec::new();
    if p.lock == Lock::Required {
        bytes.push(0xf0);
    }
    match p.mandatory {
        Mandatory::P66 => bytes.push(0x66),
        Mandatory::Pf2 => bytes.push(0xf2),
        Mandatory::Pf3 => bytes.push(0xf3),
        Mandatory::Any | Mandatory::None | Mandatory::NoRepeat => {}
    }
    let extended = matches!(p.modrm, ModRm::ForcedRegisterExt(8..));
    let rex = 0x40 | if p.rex_w == Some(true) { 8 } else { 0 } | if extended { 4 } else { 0 };
    if rex != 0x40 {
        bytes.push(rex);
    }
    match p.map {
        OpcodeMap::Primary => {}
        OpcodeMap::Of => bytes.push(0x0f),
        OpcodeMap::Of38 => bytes.extend([0x0f, 0x38]),
    }
    bytes.push(p.opcode);
    match p.modrm {
        ModRm::Absent => {}
        ModRm::Memory | ModRm::Any => bytes.push(0x00),
        ModRm::Register | ModRm::ForcedRegister => bytes.push(0xc0),
        ModRm::MemoryExt(n) => bytes.push(n << 3),
        ModRm::RegisterExt(n) => bytes.push(0xc0 | n << 3),
        ModRm::AnyExt(n) => bytes.push(0xc0 | n << 3),
        ModRm::ForcedRegisterExt(n) => bytes.push(0xc0 | (n & 7) << 3),
        ModRm::Fixed(b) => bytes.push(b),
    }
    let zeros = match p.imm {
        Imm::None => 0,
        Imm::I8 | Imm::Rel8 => 1,
        Imm::I16 => 2,
        Imm::Iz | Imm::Rel32 => 4,
    };
    bytes.resize(bytes.len() + zeros, 0);
    bytes
}
