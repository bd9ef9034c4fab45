//! Decoder for the 32-bit instruction sets: arm64 and powerpc.
//!
//! Rows are found by the top byte of the word, then by mask; where two rows match, the one with
//! more fixed bits is meant (`nop` among the hints, `trap` among `tw`).

use std::sync::LazyLock;

use super::decode::Insn;
use super::operand::{BaseReg, MemRef, Operand, Operands};
use super::row::{Family, Pattern, Row, Shape};
use super::{arm64, powerpc};
use crate::isa::Arch;

/// Rows by the top byte of the (first) word, most specific first.
struct Buckets(Vec<Vec<&'static Row>>);

static ARM64: LazyLock<Buckets> = LazyLock::new(|| Buckets::of(arm64::ROWS));
static POWERPC: LazyLock<Buckets> = LazyLock::new(|| Buckets::of(powerpc::ROWS));

/// Mask and value of the word by which a row is found.
const fn key(pattern: &Pattern) -> Option<(u32, u32)> {
    match *pattern {
        Pattern::Word { mask, value } => Some((mask, value)),
        Pattern::Prefixed { prefix_mask, prefix, .. } => Some((prefix_mask, prefix)),
        Pattern::X86(_) => None,
    }
}

/// Instructions of one word that always raise an exception, by mask and value of their rows. The
/// decoder takes such a word for no other row (a test of [`crate::trap`]).
pub(crate) const ARM64_TRAPS: [(u32, u32); 2] =
    [named(arm64::ROWS, "brk"), named(arm64::ROWS, "udf")];
pub(crate) const POWERPC_TRAPS: [(u32, u32); 2] =
    [named(powerpc::ROWS, "trap"), named(powerpc::ROWS, "illegal")];

/// Mask and value of the row with this name, which there has to be.
const fn named(rows: &[Row], name: &str) -> (u32, u32) {
    let (mut at, name) = (0, name.as_bytes());
    loop {
        let (row, mut same) = (&rows[at], 0);
        let there = row.name.as_bytes();
        while same < name.len() && same < there.len() && name[same] == there[same] {
            same += 1;
        }
        if same == name.len()
            && same == there.len()
            && let Some(key) = key(&row.pattern)
        {
            return key;
        }
        at += 1;
    }
}

impl Buckets {
    fn of(rows: &'static [Row]) -> Self {
        let mut by_byte = vec![Vec::new(); 256];
        for (top, bucket) in (0u32..).zip(by_byte.iter_mut()) {
            for row in rows {
                if let Some((mask, value)) = key(&row.pattern)
                    && (top << 24) & mask == value & 0xff00_0000 & mask
                {
                    bucket.push(row);
                }
            }
            bucket.retain(|r| {
                key(&r.pattern).is_some_and(|(m, v)| (top << 24) & m == v & m & 0xff00_0000)
            });
            bucket.sort_by_key(|r| {
                let fixed = key(&r.pattern).map_or(0, |(mask, _)| mask.count_ones());
                (std::cmp::Reverse(fixed), r.id)
            });
        }
        Buckets(by_byte)
    }

    fn find(&self, word: u32, suffix: Option<u32>) -> Option<(&'static Row, u8)> {
        let bucket = self.0.get((word >> 24) as usize)?;
        bucket.iter().find_map(|row| match row.pattern {
            Pattern::Word { mask, value } if word & mask == value => Some((*row, 4)),
            Pattern::Prefixed { prefix_mask, prefix, mask, value }
                if word & prefix_mask == prefix && suffix? & mask == value =>
            {
                Some((*row, 8))
            }
            _ => None,
        })
    }
}

fn word_at(arch: Arch, bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    Some(if arch.is_little_endian() { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
}

/// Decodes one instruction; see [`super::decode`].
pub(super) fn decode(arch: Arch, bytes: &[u8]) -> Option<Insn> {
    let word = word_at(arch, bytes, 0)?;
    let buckets = match Family::of(arch) {
        Family::Arm64 => &*ARM64,
        Family::Powerpc => &*POWERPC,
        Family::X86 => return None,
    };
    let (row, len) = buckets.find(word, word_at(arch, bytes, 4))?;
    Some(Insn { row, len, operands: operands(row.shape, word) })
}

/// Bits `hi:lo` of a word.
const fn bits(word: u32, hi: u32, lo: u32) -> u32 {
    (word >> lo) & (u32::MAX >> (31 - (hi - lo)))
}

const fn reg(word: u32, lo: u32) -> u8 {
    bits(word, lo + 4, lo) as u8
}

/// Bits `hi:lo` as a signed number.
const fn signed(word: u32, hi: u32, lo: u32) -> i64 {
    (((word << (31 - hi)) as i32) >> (31 - hi + lo)) as i64
}

fn base(word: u32, lo: u32) -> MemRef {
    MemRef::simple(BaseReg::Reg(reg(word, lo)), None)
}

fn operands(shape: Shape, w: u32) -> Operands {
    use Operand::{Imm, Mem, Offset, Reg};
    let imm = |hi, lo| Imm(i64::from(bits(w, hi, lo)));
    // powerpc: RA = 0 in an effective address stands for zero.
    let ra = match reg(w, 16) {
        0 => BaseReg::None,
        r => BaseReg::Reg(r),
    };
    let ea = MemRef::simple(ra, Some(reg(w, 11)));
    let branch = |offset: i64| {
        if w & 2 == 0 { Offset(offset) } else { Operand::Absolute(offset as u64) }
    };
    match shape {
        Shape::None => Operands::NONE,
        Shape::Xt => Operands::of(&[Reg(reg(w, 0))]),
        Shape::Xn => Operands::of(&[Reg(reg(w, 5))]),
        Shape::Imm16 => Operands::of(&[imm(20, 5)]),
        Shape::Udf => Operands::of(&[imm(15, 0)]),
        Shape::Branch26 => Operands::of(&[Offset(signed(w, 25, 0) * 4)]),
        Shape::CompareBranch => Operands::of(&[Reg(reg(w, 0)), Offset(signed(w, 23, 5) * 4)]),
        Shape::CondBranch => Operands::of(&[imm(3, 0), Offset(signed(w, 23, 5) * 4)]),
        Shape::TestBranch => {
            let bit = bits(w, 31, 31) << 5 | bits(w, 23, 19);
            let offset = Offset(signed(w, 18, 5) * 4);
            Operands::of(&[Reg(reg(w, 0)), Imm(i64::from(bit)), offset])
        }
        Shape::CompareRegBranch => {
            let second = if w & 1 << 24 == 0 { Reg(reg(w, 16)) } else { imm(20, 15) };
            Operands::of(&[Reg(reg(w, 0)), second, Offset(signed(w, 13, 5) * 4)])
        }
        Shape::Exclusive => Operands::of(&[Reg(reg(w, 16)), Reg(reg(w, 0)), Mem(base(w, 5))]),
        Shape::LoadStoreXn => Operands::of(&[Reg(reg(w, 0)), Mem(base(w, 5))]),
        Shape::BarrierOption => Operands::of(&[imm(11, 8)]),
        Shape::RaRb => Operands::of(&[Mem(ea)]),
        Shape::RtRaRb => Operands::of(&[Reg(reg(w, 21)), Mem(ea)]),
        Shape::Tlbie => {
            let (rb, rs) = (Reg(reg(w, 11)), Reg(reg(w, 21)));
            Operands::of(&[rb, rs, imm(19, 18), imm(17, 17), imm(16, 16)])
        }
        Shape::TrapRegs => Operands::of(&[imm(25, 21), Reg(reg(w, 16)), Reg(reg(w, 11))]),
        Shape::TrapImm => Operands::of(&[imm(25, 21), Reg(reg(w, 16)), Imm(signed(w, 15, 0))]),
        Shape::BranchI => Operands::of(&[branch(signed(w, 25, 2) * 4)]),
        Shape::BranchB => Operands::of(&[imm(25, 21), imm(20, 16), branch(signed(w, 15, 2) * 4)]),
        Shape::BranchXl => Operands::of(&[imm(25, 21), imm(20, 16)]),
        Shape::Rs => Operands::of(&[Reg(reg(w, 21))]),
        Shape::RsRb => Operands::of(&[Reg(reg(w, 21)), Reg(reg(w, 11))]),
        Shape::Level => Operands::of(&[imm(11, 5)]),
        Shape::X86None
        | Shape::X86Rm
        | Shape::X86RegRm
        | Shape::X86SysReg
        | Shape::X86Imm
        | Shape::X86Rel => Operands::NONE,
    }
}

/// Length in bytes of the instruction whose first word is `word`: 8 for a Power prefix (primary
/// opcode 1), else 4; `None` on x86-64.
#[must_use]
pub fn word_insn_len(arch: Arch, word: u32) -> Option<u8> {
    match Family::of(arch) {
        Family::X86 => None,
        Family::Arm64 => Some(4),
        Family::Powerpc => Some(if word >> 26 == 1 && arch != Arch::Ppc32 { 8 } else { 4 }),
    }
}
