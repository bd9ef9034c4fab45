//! What an A64 word does, as far as these tests go.
//!
//! Words of the instruction table are read by its decoder; the ordinary instructions that are not
//! in it (moves, additions, loads, stores) are read here. Encodings: Arm ARM DDI 0487 C4, C6; they
//! are compared with a disassembler in `tests/encodings.rs`.

use textbed_arch::Arch;
use textbed_arch::effect::{Barrier, CacheScope, Domain, Effect, Reach};
use textbed_arch::insn::{self, Operand};

/// 32 or 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// W registers.
    W,
    /// X registers.
    X,
}

/// Second operand of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rhs {
    /// A register; 31 is zero.
    Reg(u8),
    /// A number.
    Imm(u64),
}

/// An operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alu {
    /// Addition.
    Add,
    /// Subtraction.
    Sub,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
}

/// The address of a load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// Base register.
    pub base: u8,
    /// Index register, with sign extension from 32 bits if set.
    pub index: Option<(u8, bool)>,
    /// Displacement in bytes.
    pub disp: u64,
}

/// Order that an access has by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// None.
    Plain,
    /// `ldar`.
    Acquire,
    /// `ldapr`.
    AcquirePc,
    /// `stlr`.
    Release,
}

/// When a conditional branch is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum If {
    /// By the flags: a condition code of 4 bits.
    Flags(u8),
    /// The register is zero, or (`true`) is not.
    Zero(u8, Width, bool),
    /// The bit of the register is 0, or (`true`) is 1.
    Bit(u8, u8, bool),
}

/// What an instruction does. Registers are numbers, 31 reads as zero and ignores writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Nothing.
    Nop,
    /// `isb`.
    Isb,
    /// `dmb`, `dsb`.
    Barrier(Barrier, Domain),
    /// Data cache clean: the register has the address.
    Clean(CacheScope, u8),
    /// Instruction cache invalidation: the register has the address, unless it covers all.
    InvalidateIcache(CacheScope, Reach, u8),
    /// A constant.
    Move(u8, u64),
    /// `d = n op m`; sets flags if the last is set.
    Alu(Alu, Width, u8, u8, Rhs, bool),
    /// `d = if cond { n } else { m (+ 1 if the last is set) }`.
    Select(Width, u8, u8, u8, u8, bool),
    /// Address of the instruction plus this.
    Adr(u8, i64),
    /// Loads so many bytes.
    Load(u8, Address, u8, Order),
    /// Stores so many bytes.
    Store(u8, Address, u8, Order),
    /// A branch by so many bytes; with link if set.
    Jump(i64, bool),
    /// A conditional branch.
    JumpIf(If, i64),
    /// A branch to a register; with link if set.
    JumpReg(u8, bool),
    /// `msr elr_el1`.
    SetElr(u8),
    /// `eret`.
    Eret,
    /// Raises an exception: `udf` and what is no instruction (`true`), or a call or breakpoint.
    Trap(bool),
}

/// A register field.
const fn r(word: u32, low: u32) -> u8 {
    ((word >> low) & 31) as u8
}

impl Op {
    /// What a word does; `None` for an instruction that is not modelled.
    #[must_use]
    pub fn decode(word: u32) -> Option<Op> {
        match insn::decode(Arch::Arm64, &word.to_le_bytes()) {
            Some(insn) => Op::of_row(&insn, word),
            None => Op::ordinary(word),
        }
    }

    fn of_row(insn: &insn::Insn, word: u32) -> Option<Op> {
        let offset = || match insn.operands.iter().last() {
            Some(Operand::Offset(offset)) => Some(offset),
            _ => None,
        };
        let width = if word >> 31 == 1 { Width::X } else { Width::W };
        let address = Address { base: r(word, 5), index: None, disp: 0 };
        let bytes = 1u8 << (word >> 30);
        Some(match insn.row.effect {
            Effect::CacheClean(scope) => Op::Clean(scope, r(word, 0)),
            Effect::IcacheInvalidate(scope, reach) => {
                Op::InvalidateIcache(scope, reach, r(word, 0))
            }
            Effect::Barrier(barrier, domain) => Op::Barrier(barrier, domain),
            Effect::ContextSync(_) => Op::Isb,
            Effect::Nop | Effect::Wait(_) | Effect::SendEvent(_) => Op::Nop,
            Effect::Trap => Op::Trap(insn.row.name == "udf"),
            Effect::ExceptionReturn if insn.row.name == "eret" => Op::Eret,
            Effect::LoadAcquire => {
                let acquire = insn.row.name.starts_with("ldar");
                let order = if acquire { Order::Acquire } else { Order::AcquirePc };
                Op::Load(r(word, 0), address, bytes, order)
            }
            Effect::StoreRelease => Op::Store(r(word, 0), address, bytes, Order::Release),
            Effect::Branch(_) => match insn.row.name {
                "b" => Op::Jump(offset()?, false),
                "bl" => Op::Jump(offset()?, true),
                "b.cond" => Op::JumpIf(If::Flags((word & 15) as u8), offset()?),
                "cbz" => Op::JumpIf(If::Zero(r(word, 0), width, false), offset()?),
                "cbnz" => Op::JumpIf(If::Zero(r(word, 0), width, true), offset()?),
                "tbz" | "tbnz" => {
                    let bit = ((word >> 31) << 5 | (word >> 19) & 31) as u8;
                    Op::JumpIf(If::Bit(r(word, 0), bit, insn.row.name == "tbnz"), offset()?)
                }
                "br" | "ret" => Op::JumpReg(r(word, 5), false),
                "blr" => Op::JumpReg(r(word, 5), true),
                _ => return None,
            },
            _ => return None,
        })
    }

    fn ordinary(word: u32) -> Option<Op> {
        let width = if word >> 31 == 1 { Width::X } else { Width::W };
        let (d, n, m) = (r(word, 0), r(word, 5), r(word, 16));
        let imm12 = u64::from(word >> 10 & 0xfff);
        let size = word >> 30;
        let load = word >> 22 & 1 == 1;
        let access = |address| {
            let bytes = 1u8 << size;
            match load {
                true => Op::Load(d, address, bytes, Order::Plain),
                false => Op::Store(d, address, bytes, Order::Plain),
            }
        };
        // MSR ELR_EL1, Xt.
        if word & 0xffff_ffe0 == 0xd518_4020 {
            return Some(Op::SetElr(d));
        }
        match word & 0x7f80_0000 {
            // MOVZ and MOVN without shift.
            0x5280_0000 if word & 0x0060_0000 == 0 => {
                return Some(Op::Move(d, u64::from(word >> 5 & 0xffff)));
            }
            0x1280_0000 if word & 0x0060_0000 == 0 => {
                let value = !u64::from(word >> 5 & 0xffff);
                let cut = if width == Width::W { value & 0xffff_ffff } else { value };
                return Some(Op::Move(d, cut));
            }
            _ => {}
        }
        // Register 31 is the stack pointer in ADD and SUB (immediate), which is not modelled; it
        // is zero as the destination of SUBS, as in CMP.
        let alu = |kind, flags| Some(Op::Alu(kind, width, d, n, Rhs::Imm(imm12), flags));
        let plain = n != 31 && d != 31;
        match word & 0x7fc0_0000 {
            0x1100_0000 if plain => return alu(Alu::Add, false),
            0x5100_0000 if plain => return alu(Alu::Sub, false),
            0x3100_0000 if n != 31 => return alu(Alu::Add, true),
            0x7100_0000 if n != 31 => return alu(Alu::Sub, true),
            _ => {}
        }
        let alu = |kind, flags| Some(Op::Alu(kind, width, d, n, Rhs::Reg(m), flags));
        match word & 0x7fe0_fc00 {
            0x0b00_0000 => return alu(Alu::Add, false),
            0x2b00_0000 => return alu(Alu::Add, true),
            0x4b00_0000 => return alu(Alu::Sub, false),
            0x6b00_0000 => return alu(Alu::Sub, true),
            0x0a00_0000 => return alu(Alu::And, false),
            0x6a00_0000 => return alu(Alu::And, true),
            0x2a00_0000 => return alu(Alu::Or, false),
            0x4a00_0000 => return alu(Alu::Xor, false),
            _ => {}
        }
        if let cs @ (0x1a80_0000 | 0x1a80_0400) = word & 0x7fe0_0c00 {
            let cond = (word >> 12 & 15) as u8;
            return Some(Op::Select(width, d, n, m, cond, cs & 0x400 != 0));
        }
        if word & 0x9f00_0000 == 0x1000_0000 {
            let high = ((word << 8) as i32 >> 13) as i64;
            return Some(Op::Adr(d, high << 2 | i64::from(word >> 29 & 3)));
        }
        // Base 31 is the stack pointer.
        if word & 0x3f80_0000 == 0x3900_0000 && n != 31 {
            return Some(access(Address { base: n, index: None, disp: imm12 << size }));
        }
        match word & 0x3fa0_fc00 {
            // Register offset without shift: LSL and SXTW.
            0x3820_6800 if n != 31 => {
                return Some(access(Address { base: n, index: Some((m, false)), disp: 0 }));
            }
            0x3820_c800 if n != 31 => {
                return Some(access(Address { base: n, index: Some((m, true)), disp: 0 }));
            }
            _ => {}
        }
        None
    }

    /// Whether executing it may change what another CPU or a later fetch sees, or is changed by
    /// it: all but what concerns the CPU's registers.
    #[must_use]
    pub fn is_local(&self) -> bool {
        !matches!(
            self,
            Op::Isb
                | Op::Barrier(..)
                | Op::Clean(..)
                | Op::InvalidateIcache(..)
                | Op::Load(..)
                | Op::Store(..)
                | Op::Eret
                | Op::Trap(_)
        )
    }
}
