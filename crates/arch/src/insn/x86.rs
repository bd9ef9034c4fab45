//! Decoder for x86-64 in 64-bit mode: prefixes, REX, opcode map, ModRM, SIB, displacement,
//! immediate.
//!
//! Only instructions of the table are decoded; VEX, EVEX and XOP encodings are not. Where Intel and
//! AMD read the same bytes differently (a near branch with the prefix 66 and no REX.W), nothing is
//! decoded. Source: Intel SDM 2A chapter 2 'Instruction Format'.

use std::sync::LazyLock;

use super::decode::Insn;
use super::operand::{BaseReg, MemRef, Operand, Operands, Segment};
use super::row::{Imm, Lock, Mandatory, ModRm, OpcodeMap, Pattern, Row, Shape, X86Pattern};
use super::x86_rows::ROWS;

/// Longest instruction, in bytes.
const MAX_BYTES: usize = 15;

/// Rows by (map, opcode byte).
static BY_OPCODE: LazyLock<Vec<Vec<(&'static Row, X86Pattern)>>> = LazyLock::new(|| {
    let mut table = vec![Vec::new(); 3 * 256];
    for row in ROWS {
        let Pattern::X86(p) = row.pattern else { continue };
        for opcode in 0..=255u8 {
            if opcode & p.mask == p.opcode
                && let Some(slot) = table.get_mut(p.map as usize * 256 + usize::from(opcode))
            {
                slot.push((row, p));
            }
        }
    }
    table
});

#[derive(Clone, Copy, Default)]
struct Prefixes {
    p66: bool,
    p67: bool,
    lock: bool,
    /// The last of F2 and F3.
    repeat: Option<u8>,
    /// The last of FS (64) and GS (65).
    segment: Option<u8>,
    /// REX, if it stood right before the opcode.
    rex: u8,
}

impl Prefixes {
    fn w(&self) -> bool {
        self.rex & 8 != 0
    }

    /// A register number extended by a bit of REX.
    fn extend(&self, low: u8, rex_bit: u8) -> u8 {
        if self.rex & rex_bit != 0 { low | 8 } else { low }
    }

    fn r(&self, low: u8) -> u8 {
        self.extend(low, 4)
    }

    fn x(&self, low: u8) -> u8 {
        self.extend(low, 2)
    }

    fn b(&self, low: u8) -> u8 {
        self.extend(low, 1)
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        if self.at < MAX_BYTES { self.bytes.get(self.at).copied() } else { None }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// A signed little-endian number of `n` bytes.
    fn signed(&mut self, n: u32) -> Option<i64> {
        let mut value = 0u64;
        for i in 0..n {
            value |= u64::from(self.next()?) << (8 * i);
        }
        let unused = 64 - 8 * n;
        Some(if n == 0 { 0 } else { ((value << unused) as i64) >> unused })
    }
}

/// Decodes one instruction; see [`super::decode`].
pub(super) fn decode(bytes: &[u8]) -> Option<Insn> {
    let mut cursor = Cursor { bytes, at: 0 };
    let prefixes = prefixes(&mut cursor)?;
    let (map, opcode) = match cursor.next()? {
        0x0f => match cursor.next()? {
            0x38 => (OpcodeMap::Of38, cursor.next()?),
            0x3a => return None,
            opcode => (OpcodeMap::Of, opcode),
        },
        opcode => (OpcodeMap::Primary, opcode),
    };
    let modrm = cursor.peek();
    let candidates = BY_OPCODE.get(map as usize * 256 + usize::from(opcode))?;
    let (row, pattern) = candidates.iter().find(|(_, p)| matches(p, &prefixes, modrm))?;
    operands(row, pattern, &prefixes, opcode, cursor)
}

/// Legacy prefixes in any order and number, then REX; a REX before a legacy prefix is void.
fn prefixes(cursor: &mut Cursor<'_>) -> Option<Prefixes> {
    let mut p = Prefixes::default();
    loop {
        let byte = cursor.peek()?;
        match byte {
            0x66 => p.p66 = true,
            0x67 => p.p67 = true,
            0xf0 => p.lock = true,
            0xf2 | 0xf3 => p.repeat = Some(byte),
            0x64 | 0x65 => p.segment = Some(byte),
            0x26 | 0x2e | 0x36 | 0x3e => {}
            0x40..=0x4f => {
                p.rex = byte;
                cursor.at += 1;
                continue;
            }
            _ => return Some(p),
        }
        p.rex = 0;
        cursor.at += 1;
    }
}

fn matches(p: &X86Pattern, prefixes: &Prefixes, modrm: Option<u8>) -> bool {
    let mandatory = match p.mandatory {
        Mandatory::Any => true,
        Mandatory::None => !prefixes.p66 && prefixes.repeat.is_none(),
        Mandatory::P66 => prefixes.p66 && prefixes.repeat.is_none(),
        Mandatory::Pf2 => prefixes.repeat == Some(0xf2),
        Mandatory::Pf3 => prefixes.repeat == Some(0xf3),
        Mandatory::NoRepeat => prefixes.repeat.is_none(),
    };
    let lock = match p.lock {
        Lock::Absent => !prefixes.lock,
        Lock::Required => prefixes.lock,
        Lock::Allowed => true,
    };
    let width = p.rex_w.is_none_or(|w| w == prefixes.w());
    // Vendors differ in what 66 does to a near branch.
    let branch = !matches!(p.imm, Imm::Rel8 | Imm::Rel32) && !p.near_branch;
    let size = branch || !prefixes.p66 || prefixes.w();
    let rex_b = !p.no_rex_b || prefixes.rex & 1 == 0;
    mandatory && lock && width && size && rex_b && modrm_matches(p.modrm, prefixes, modrm)
}

fn modrm_matches(want: ModRm, prefixes: &Prefixes, modrm: Option<u8>) -> bool {
    let Some(byte) = modrm else { return want == ModRm::Absent };
    let (memory, ext) = (byte < 0xc0, (byte >> 3) & 7);
    match want {
        ModRm::Absent | ModRm::Any => true,
        ModRm::Memory => memory,
        ModRm::Register => !memory,
        ModRm::MemoryExt(n) => memory && ext == n,
        ModRm::RegisterExt(n) => !memory && ext == n,
        ModRm::AnyExt(n) => ext == n,
        ModRm::Fixed(b) => byte == b,
        ModRm::ForcedRegister => prefixes.rex & 4 == 0,
        ModRm::ForcedRegisterExt(n) => prefixes.r(ext) == n,
    }
}

fn operands(
    row: &'static Row,
    pattern: &X86Pattern,
    prefixes: &Prefixes,
    opcode: u8,
    mut cursor: Cursor<'_>,
) -> Option<Insn> {
    let mut list = Vec::with_capacity(3);
    if pattern.modrm != ModRm::Absent {
        let modrm = cursor.next()?;
        let forced = matches!(pattern.modrm, ModRm::ForcedRegister | ModRm::ForcedRegisterExt(_));
        let reg = prefixes.r((modrm >> 3) & 7);
        let rm = if forced || modrm >= 0xc0 {
            Operand::Reg(prefixes.b(modrm & 7))
        } else {
            Operand::Mem(memory(modrm, prefixes, &mut cursor)?)
        };
        match row.shape {
            Shape::X86Rm => list.push(rm),
            Shape::X86RegRm => list.extend([Operand::Reg(reg), rm]),
            Shape::X86SysReg => list.extend([Operand::SysReg(u16::from(reg)), rm]),
            _ => {}
        }
    }
    let bytes = match pattern.imm {
        Imm::None => 0,
        Imm::I8 | Imm::Rel8 => 1,
        Imm::I16 => 2,
        Imm::Iz if prefixes.p66 && !prefixes.w() => 2,
        Imm::Iz | Imm::Rel32 => 4,
    };
    let imm = cursor.signed(bytes)?;
    let len = cursor.at;
    match pattern.imm {
        Imm::None => {}
        Imm::Rel8 | Imm::Rel32 => list.push(Operand::Offset(imm.wrapping_add(len as i64))),
        Imm::I8 if row.shape == Shape::X86Imm => list.push(Operand::Imm(imm & 0xff)),
        Imm::I8 | Imm::I16 | Imm::Iz => list.push(Operand::Imm(imm)),
    }
    // A condition is part of the opcode byte; rows with a mask name it by an operand.
    if pattern.mask == 0xf0 {
        list.push(Operand::Imm(i64::from(opcode & 15)));
    }
    Some(Insn { row, len: u8::try_from(len).ok()?, operands: Operands::of(&list) })
}

fn memory(modrm: u8, prefixes: &Prefixes, cursor: &mut Cursor<'_>) -> Option<MemRef> {
    let (mode, rm) = (modrm >> 6, modrm & 7);
    let mut base = BaseReg::Reg(prefixes.b(rm));
    let mut index = None;
    let mut disp_bytes = match mode {
        1 => 1,
        2 => 4,
        _ => 0,
    };
    if rm == 4 {
        let sib = cursor.next()?;
        let number = prefixes.x((sib >> 3) & 7);
        // Index 4 without REX.X means none; R12 is a proper index.
        if number != 4 {
            index = Some((number, 1 << (sib >> 6)));
        }
        base = BaseReg::Reg(prefixes.b(sib & 7));
        if sib & 7 == 5 && mode == 0 {
            base = BaseReg::None;
            disp_bytes = 4;
        }
    } else if rm == 5 && mode == 0 {
        base = BaseReg::NextInsn;
        disp_bytes = 4;
    }
    let disp = cursor.signed(disp_bytes)?;
    let segment = match prefixes.segment {
        Some(0x64) => Segment::Fs,
        Some(0x65) => Segment::Gs,
        _ => Segment::Flat,
    };
    Some(MemRef { segment, base, index, disp, bits: if prefixes.p67 { 32 } else { 64 } })
}

/// MSRs whose write by WRMSR is not serialising, by vendor: (first, last, name).
#[must_use]
pub fn serialising_msr_exceptions(amd: bool) -> &'static [(u32, u32, &'static str)] {
    // Intel SDM 3A 10.3 (SDM10), AMD APM vol 2 7.6.4 (24593 rev 3.44); the numbers are SDM vol 4's.
    const INTEL: &[(u32, u32, &str)] = &[
        (0x48, 0x48, "IA32_SPEC_CTRL"),
        (0x49, 0x49, "IA32_PRED_CMD"),
        (0x122, 0x122, "IA32_TSX_CTRL"),
        (0x6e0, 0x6e0, "IA32_TSC_DEADLINE"),
        (0x6e1, 0x6e1, "IA32_PKRS"),
        (0x774, 0x774, "IA32_HWP_REQUEST"),
        (0x800, 0x8ff, "x2APIC"),
    ];
    const AMD: &[(u32, u32, &str)] =
        &[(0x48, 0x48, "SPEC_CTRL"), (0x49, 0x49, "PRED_CMD"), (0x800, 0x8ff, "x2APIC")];
    if amd { AMD } else { INTEL }
}

/// Whether WRMSR to register `msr` is serialising. Sending an interrupt through the x2APIC is not.
#[must_use]
pub fn msr_write_serialises(amd: bool, msr: u32) -> bool {
    !serialising_msr_exceptions(amd).iter().any(|&(first, last, _)| (first..=last).contains(&msr))
}
