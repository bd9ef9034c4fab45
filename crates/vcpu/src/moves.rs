//! Loads and stores that only move something between memory and general registers: the machine
//! carries them out alone, without the engine.
//!
//! An instruction of this kind has nothing to compute but an address, and asking the engine for
//! that costs more than all the rest of its step. What is here is what kernels' code consists of:
//! moves of one register or constant, arm64's pairs, x86's `push`, `pop`, `call` and `ret`, with
//! the usual addressing. Whatever is not recognised is left to the engine, which gives the same
//! (its tests compare).
//!
//! Sources: SDM vol 2 (MOV, MOVZX, MOVSX, PUSH, POP, CALL, RET), DDI 0487 C4.1.66 (loads and
//! stores), Power ISA 3.1B Book I 3.3.2 and 3.3.3.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind, Register};
use textbed_arch::{Arch, VirtAddr};
use textbed_event::{Flags, MemOrder};
use textbed_machine::{CpuError, Machine};

use crate::native::Native;
use crate::special::word_of;
use crate::vcpu::Vcpu;
use crate::windows::Access;

#[cfg(test)]
mod tests;

/// Most bytes of one piece, and most pieces.
const WIDEST: usize = 8;
const MOST: usize = 2;

/// What an address is counted from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Base {
    /// Zero.
    Zero,
    /// A general register; arm64's 31 is the stack pointer.
    Register(u8),
    /// The address of the instruction.
    Own,
}

/// A value that is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Value {
    /// A general register; arm64's 31 is zero.
    Register(u8),
    Number(u64),
    /// The address behind the instruction.
    Next,
}

/// What becomes of a value that was loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Into {
    /// A general register, with zeros above.
    Zeros(u8),
    /// A general register, with copies of the sign above, and zeros above so many bits.
    Signs(u8, u32),
    /// The program counter.
    Jump,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    Load(Into),
    Store(Value),
}

/// A move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Move {
    base: Base,
    /// A general register, and by how many bits it is shifted.
    index: Option<(u8, u32)>,
    offset: i64,
    /// Bytes of each piece.
    width: usize,
    /// One behind the other in memory: all load or all store.
    pieces: [Option<Piece>; MOST],
    /// What is added to the base register.
    back: i64,
    /// Where it goes on, from its own address; `None`: behind it.
    jump: Option<i64>,
}

/// The move that an instruction is, if it is one of these.
pub(crate) fn decode(arch: Arch, bytes: &[u8]) -> Option<Move> {
    match (arch, word_of(arch, bytes)) {
        (Arch::X86_64, _) => x86(bytes),
        (Arch::Arm64, Some(word)) => arm64(word),
        (Arch::Ppc64le | Arch::Ppc64, Some(word)) if bytes.len() == 4 => power(word),
        _ => None,
    }
}

impl Move {
    fn one(base: Base, offset: i64, width: usize, piece: Piece) -> Self {
        let pieces = [Some(piece), None];
        Move { base, index: None, offset, width, pieces, back: 0, jump: None }
    }
}

/// Number of RSP.
const RSP: u8 = 4;

fn x86(bytes: &[u8]) -> Option<Move> {
    let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    if insn.has_lock_prefix() || insn.has_rep_prefix() || insn.has_repne_prefix() {
        return None;
    }
    let general = |n: u32| {
        let register = insn.op_register(n);
        let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
        (!high).then_some(register.full_register().number() as u8)
    };
    let push =
        |value| Move { back: -8, ..Move::one(Base::Register(RSP), -8, 8, Piece::Store(value)) };
    let pop = |into| Move { back: 8, ..Move::one(Base::Register(RSP), 0, 8, Piece::Load(into)) };
    let load = |width, into| x86_memory(&insn, width, Piece::Load(into));
    let store = |width, value| x86_memory(&insn, width, Piece::Store(value));
    match insn.code() {
        Code::Mov_r32_rm32 => load(4, Into::Zeros(general(0)?)),
        Code::Mov_r64_rm64 => load(8, Into::Zeros(general(0)?)),
        Code::Movzx_r32_rm8 | Code::Movzx_r64_rm8 => load(1, Into::Zeros(general(0)?)),
        Code::Movzx_r32_rm16 | Code::Movzx_r64_rm16 => load(2, Into::Zeros(general(0)?)),
        Code::Movsx_r32_rm8 => load(1, Into::Signs(general(0)?, 32)),
        Code::Movsx_r64_rm8 => load(1, Into::Signs(general(0)?, 64)),
        Code::Movsx_r32_rm16 => load(2, Into::Signs(general(0)?, 32)),
        Code::Movsx_r64_rm16 => load(2, Into::Signs(general(0)?, 64)),
        Code::Movsxd_r64_rm32 => load(4, Into::Signs(general(0)?, 64)),
        Code::Mov_rm8_r8 => store(1, Value::Register(general(1)?)),
        Code::Mov_rm16_r16 => store(2, Value::Register(general(1)?)),
        Code::Mov_rm32_r32 => store(4, Value::Register(general(1)?)),
        Code::Mov_rm64_r64 => store(8, Value::Register(general(1)?)),
        Code::Mov_rm8_imm8 => store(1, Value::Number(insn.immediate(1))),
        Code::Mov_rm16_imm16 => store(2, Value::Number(insn.immediate(1))),
        Code::Mov_rm32_imm32 => store(4, Value::Number(insn.immediate(1))),
        Code::Mov_rm64_imm32 => store(8, Value::Number(insn.immediate(1))),
        Code::Push_r64 => general(0).filter(|n| *n != RSP).map(|n| push(Value::Register(n))),
        Code::Pop_r64 => general(0).filter(|n| *n != RSP).map(|n| pop(Into::Zeros(n))),
        // Without prefixes, of which some have no meaning here and others make it another one.
        Code::Call_rel32_64 if bytes.len() == 5 => {
            let jump = Some(insn.near_branch_target() as i64);
            Some(Move { jump, ..push(Value::Next) })
        }
        Code::Retnq if bytes.len() == 1 => Some(pop(Into::Jump)),
        _ => None,
    }
}

/// A move to or from the memory operand.
fn x86_memory(insn: &Instruction, width: usize, piece: Piece) -> Option<Move> {
    let memory = (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory);
    let segment = matches!(insn.memory_segment(), Register::FS | Register::GS);
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let base = match base {
        Register::RIP => Base::Own,
        base if base.is_gpr64() => Base::Register(base.number() as u8),
        _ => return None,
    };
    let index = match index {
        Register::None => None,
        index if index.is_gpr64() => {
            Some((index.number() as u8, insn.memory_index_scale().trailing_zeros()))
        }
        _ => return None,
    };
    // Relative to RIP this is the distance from the instruction, which was decoded at 0.
    let offset = insn.memory_displacement64() as i64;
    (memory && !segment).then(|| Move { index, ..Move::one(base, offset, width, piece) })
}

/// A field of a word as a signed number.
fn signed(word: u32, low: u32, bits: u32) -> i64 {
    i64::from(((word << (32 - low - bits)) as i32) >> (32 - bits))
}

fn arm64(word: u32) -> Option<Move> {
    let field = |low: u32| (word >> low & 0x1f) as u8;
    let (rt, rn) = (field(0), field(5));
    match word >> 24 & 0b11_1111 {
        // One register: unsigned offset, and what has bits 11:10 for its kind.
        0b11_1001 | 0b11_1000 => {
            let size = word >> 30;
            let width = 1usize << size;
            let piece = match (word >> 22 & 3, size) {
                (0, _) => Piece::Store(Value::Register(rt)),
                (1, _) => Piece::Load(Into::Zeros(rt)),
                (2, 0..=2) => Piece::Load(Into::Signs(rt, 64)),
                (3, 0..=1) => Piece::Load(Into::Signs(rt, 32)),
                _ => return None,
            };
            if word >> 24 & 1 == 1 {
                let offset = i64::from(word >> 10 & 0xfff) << size;
                return Some(Move::one(Base::Register(rn), offset, width, piece));
            }
            let by_register = word >> 21 & 1 == 1;
            let (offset, back) = match (by_register, word >> 10 & 3) {
                (false, 0b00) => (signed(word, 12, 9), 0),
                (false, 0b01) => (0, signed(word, 12, 9)),
                (false, 0b11) => (signed(word, 12, 9), signed(word, 12, 9)),
                // LSL and SXTX alone.
                (true, 0b10) if word >> 13 & 0b011 == 0b011 => (0, 0),
                _ => return None,
            };
            let shift = if word >> 12 & 1 == 1 { size } else { 0 };
            let index = by_register.then_some((field(16), shift));
            // Which of the two it keeps is not defined.
            let written_twice = !by_register && word >> 10 & 1 == 1 && rt == rn && rn != 31;
            let moved = Move::one(Base::Register(rn), offset, width, piece);
            (!written_twice).then_some(Move { index, back, ..moved })
        }
        // Pairs of 32 or 64 bits.
        0b10_1000 | 0b10_1001 if matches!(word >> 30, 0b00 | 0b10) => {
            let width: usize = if word >> 31 == 1 { 8 } else { 4 };
            let by = signed(word, 15, 7) * width as i64;
            let (offset, back) = match word >> 23 & 3 {
                0b01 => (0, by),
                0b10 => (by, 0),
                0b11 => (by, by),
                _ => return None,
            };
            let second = field(10);
            let load = word >> 22 & 1 == 1;
            let clash = word >> 23 & 1 == 1 && (rt == rn || second == rn) && rn != 31;
            if clash || load && rt == second {
                return None;
            }
            let pieces = [rt, second].map(|n| match load {
                true => Some(Piece::Load(Into::Zeros(n))),
                false => Some(Piece::Store(Value::Register(n))),
            });
            let base = Base::Register(rn);
            Some(Move { base, index: None, offset, width, pieces, back, jump: None })
        }
        _ => None,
    }
}

fn power(word: u32) -> Option<Move> {
    let field = |low: u32| (word >> low & 0x1f) as u8;
    let (rt, ra) = (field(21), field(16));
    let store = Piece::Store(Value::Register(rt));
    let (zeros, signs) = (Piece::Load(Into::Zeros(rt)), Piece::Load(Into::Signs(rt, 64)));
    let base = if ra == 0 { Base::Zero } else { Base::Register(ra) };
    let (d, ds) = (signed(word, 0, 16), signed(word, 2, 14) << 2);
    let (offset, width, piece, update) = match (word >> 26, word & 3) {
        (32, _) => (d, 4, zeros, false),
        (33, _) => (d, 4, zeros, true),
        (34, _) => (d, 1, zeros, false),
        (35, _) => (d, 1, zeros, true),
        (36, _) => (d, 4, store, false),
        (37, _) => (d, 4, store, true),
        (38, _) => (d, 1, store, false),
        (39, _) => (d, 1, store, true),
        (40, _) => (d, 2, zeros, false),
        (41, _) => (d, 2, zeros, true),
        (42, _) => (d, 2, signs, false),
        (43, _) => (d, 2, signs, true),
        (44, _) => (d, 2, store, false),
        (45, _) => (d, 2, store, true),
        (58, 0) => (ds, 8, zeros, false),
        (58, 1) => (ds, 8, zeros, true),
        (58, 2) => (ds, 4, signs, false),
        (62, 0) => (ds, 8, store, false),
        (62, 1) => (ds, 8, store, true),
        (31, _) => {
            let (width, piece) = match word >> 1 & 0x3ff {
                21 => (8, zeros),
                23 => (4, zeros),
                87 => (1, zeros),
                279 => (2, zeros),
                341 => (4, signs),
                343 => (2, signs),
                149 => (8, store),
                151 => (4, store),
                215 => (1, store),
                407 => (2, store),
                _ => return None,
            };
            let index = Some((field(11), 0));
            // Bit 31 is reserved.
            let known = word & 1 == 0;
            return known.then(|| Move { index, ..Move::one(base, 0, width, piece) });
        }
        _ => return None,
    };
    // With update these forms are invalid.
    let invalid = update && (ra == 0 || piece != store && ra == rt);
    let back = if update { offset } else { 0 };
    (!invalid).then(|| Move { back, ..Move::one(base, offset, width, piece) })
}

impl Vcpu {
    /// Carries out a move at `pc`, which is followed by `next`.
    pub(crate) fn moved(
        &mut self,
        m: &mut Machine,
        (pc, next): (u64, u64),
        what: &Move,
    ) -> Result<Native, CpuError> {
        let base = match what.base {
            Base::Zero => 0,
            Base::Register(n) => self.based(n)?,
            Base::Own => pc,
        };
        let index = match what.index {
            Some((n, shift)) => self.general(n)? << shift,
            None => 0,
        };
        let first = base.wrapping_add(index).wrapping_add(what.offset as u64);
        let pieces = || what.pieces.iter().flatten().copied();
        let at = |n: usize| first.wrapping_add((n * what.width) as u64);
        let write = matches!(what.pieces, [Some(Piece::Store(_)), _]);
        let accesses = pieces().enumerate();
        let accesses = accesses.map(|(n, _)| Access { virt: at(n), len: what.width, write });
        self.engine.note_accesses(accesses);
        let mut values = [[0; WIDEST]; MOST];
        let mut stores: [(VirtAddr, &[u8]); MOST] = [(VirtAddr(0), &[]); MOST];
        let mut behind = what.jump.map_or(next, |by| pc.wrapping_add(by as u64));
        for ((n, piece), value) in pieces().enumerate().zip(&mut values) {
            let Some(bytes) = value.get_mut(..what.width) else { continue };
            match piece {
                Piece::Load(_) => {
                    let from = VirtAddr(at(n));
                    if let Err(fault) = m.load_ordered(self.id, from, bytes, MemOrder::Plain) {
                        return Ok(Native::Faulted(fault));
                    }
                }
                Piece::Store(value) => {
                    let value = match value {
                        Value::Register(n) => self.general(n)?,
                        Value::Number(number) => number,
                        Value::Next => next,
                    };
                    match self.arch.is_little_endian() {
                        true => bytes.copy_from_slice(&value.to_le_bytes()[..what.width]),
                        false => bytes.copy_from_slice(&value.to_be_bytes()[8 - what.width..]),
                    }
                }
            }
        }
        if write {
            let count = pieces().count();
            for (n, (store, value)) in stores.iter_mut().zip(&values).take(count).enumerate() {
                *store = (VirtAddr(at(n)), &value[..what.width]);
            }
            let done = m.store_all(self.id, &stores[..count], MemOrder::Plain, Flags::default());
            if let Err(fault) = done {
                return Ok(Native::Faulted(fault));
            }
        }
        if let Base::Register(n) = what.base
            && what.back != 0
        {
            let back = base.wrapping_add(what.back as u64);
            match self.arch == Arch::Arm64 && n == 31 {
                true => self.engine.set_register(self.convention.stack_pointer, back)?,
                false => self.set_general(n, back)?,
            }
        }
        for (piece, value) in pieces().zip(&values) {
            let Piece::Load(into) = piece else { continue };
            let mut wide = [0; WIDEST];
            let value = match self.arch.is_little_endian() {
                true => {
                    wide[..what.width].copy_from_slice(&value[..what.width]);
                    u64::from_le_bytes(wide)
                }
                false => {
                    wide[WIDEST - what.width..].copy_from_slice(&value[..what.width]);
                    u64::from_be_bytes(wide)
                }
            };
            match into {
                Into::Zeros(n) => self.set_general(n, value)?,
                Into::Signs(n, bits) => {
                    let above = 64 - 8 * what.width as u32;
                    let value = ((value << above) as i64 >> above) as u64;
                    self.set_general(n, value & (u64::MAX >> (64 - bits)))?;
                }
                Into::Jump => behind = value,
            }
        }
        self.engine.set_pc(behind);
        Ok(Native::Done)
    }

    /// A base register.
    fn based(&self, n: u8) -> Result<u64, CpuError> {
        match self.arch == Arch::Arm64 && n == 31 {
            true => Ok(self.stack_pointer()?.0),
            false => self.general(n),
        }
    }
}
