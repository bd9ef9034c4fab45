//! x86-64: RDI destination, RSI packed key, RDX table; RAX, RCX and R8 are used up.
//!
//! Each field is loaded by itself, where it can at an address that puts its upper or lower end at
//! that of the register, so that one shift or one zero extension extracts it. Loads stay inside
//! the packed key. The encoder is iced-x86's. Not done: stores of two fields at once, BMI2, SSE
//! (kernel code has neither without asking).

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};

use crate::format::ones;
use crate::{Bases, CompileError, FIELDS, Format};

const VALUE: (Register, Register) = (Register::EAX, Register::RAX);

struct Out {
    encoder: Encoder,
    /// RAX is known to be zero.
    zero: bool,
}

type Done = Result<(), CompileError>;

fn refused(e: iced_x86::IcedError) -> CompileError {
    CompileError::Encode(e.to_string())
}

fn at(base: Register, offset: u32) -> MemoryOperand {
    MemoryOperand::with_base_displ(base, i64::from(offset))
}

impl Out {
    fn put(&mut self, made: Result<Instruction, iced_x86::IcedError>) -> Done {
        let insn = made.map_err(refused)?;
        self.encoder.encode(&insn, 0).map_err(refused)?;
        Ok(())
    }

    fn load(&mut self, code: Code, register: Register, offset: u32) -> Done {
        self.put(Instruction::with2(code, register, at(Register::RSI, offset)))
    }

    /// SHL or SHR of RAX or EAX by an immediate.
    fn shift(&mut self, code: Code, register: Register, by: u32) -> Done {
        if by == 0 {
            return Ok(());
        }
        self.put(Instruction::with2(code, register, by))
    }

    /// The bits of a field into RAX, nothing above them.
    fn extract(&mut self, position: u32, bits: u32, key_bytes: u32) -> Done {
        let (eax, rax) = VALUE;
        let (first, shift) = (position / 8, position % 8);
        let end = position + bits;
        if shift == 0 {
            match bits {
                8 => return self.load(Code::Movzx_r32_rm8, eax, first),
                16 => return self.load(Code::Movzx_r32_rm16, eax, first),
                32 => return self.load(Code::Mov_r32_rm32, eax, first),
                64 => return self.load(Code::Mov_r64_rm64, rax, first),
                _ => {}
            }
        }
        for (room, load, register, shl, shr) in [
            (32, Code::Mov_r32_rm32, eax, Code::Shl_rm32_imm8, Code::Shr_rm32_imm8),
            (64, Code::Mov_r64_rm64, rax, Code::Shl_rm64_imm8, Code::Shr_rm64_imm8),
        ] {
            // The upper end of the register at that of the field's last byte.
            let last = end.div_ceil(8);
            let Some(start) = last.checked_sub(room / 8).filter(|s| s * 8 <= position) else {
                continue;
            };
            self.load(load, register, start)?;
            let above = last * 8 - end;
            self.shift(shl, register, above)?;
            return self.shift(shr, register, room - bits);
        }
        self.extract_across(first, shift, bits, key_bytes)
    }

    /// A field of 58 bits or more that lies in nine bytes: nine bytes by two loads.
    fn extract_across(&mut self, first: u32, shift: u32, bits: u32, key_bytes: u32) -> Done {
        let (eax, rax) = VALUE;
        debug_assert!(first + 9 <= key_bytes, "nine bytes of a field lie in the key");
        self.load(Code::Mov_r64_rm64, rax, first)?;
        self.load(Code::Movzx_r32_rm8, Register::ECX, first + 8)?;
        let rcx = Register::RCX;
        self.put(Instruction::with3(Code::Shrd_rm64_r64_imm8, rax, rcx, shift))?;
        self.shift(Code::Shl_rm64_imm8, rax, 64 - bits)?;
        self.shift(Code::Shr_rm64_imm8, rax, 64 - bits)?;
        let _ = eax;
        Ok(())
    }

    /// Adds a base; `wide` if the sum can need more than 32 bits.
    fn add(&mut self, base: u64, wide: bool) -> Done {
        let (eax, rax) = VALUE;
        if base == 0 {
            return Ok(());
        }
        let signed = if wide { base as i64 } else { i64::from(base as u32 as i32) };
        let (register, inc, add8, sub8, add32) = if wide {
            let add32 = (Code::Add_RAX_imm32, Code::Sub_RAX_imm32);
            (rax, Code::Inc_rm64, Code::Add_rm64_imm8, Code::Sub_rm64_imm8, add32)
        } else {
            let add32 = (Code::Add_EAX_imm32, Code::Sub_EAX_imm32);
            (eax, Code::Inc_rm32, Code::Add_rm32_imm8, Code::Sub_rm32_imm8, add32)
        };
        match signed {
            1 => self.put(Instruction::with1(inc, register)),
            -128..=127 => self.put(Instruction::with2(add8, register, signed as i32)),
            128 => self.put(Instruction::with2(sub8, register, -128)),
            -0x8000_0000..=0x7fff_ffff => {
                self.put(Instruction::with2(add32.0, register, signed as i32))
            }
            0x8000_0000 => self.put(Instruction::with2(add32.1, register, i32::MIN)),
            _ => {
                self.constant(Register::ECX, Register::RCX, base)?;
                self.put(Instruction::with2(Code::Add_r64_rm64, rax, Register::RCX))
            }
        }
    }

    fn constant(&mut self, narrow: Register, wide: Register, value: u64) -> Done {
        match u32::try_from(value) {
            Ok(value) => self.put(Instruction::with2(Code::Mov_r32_imm32, narrow, value)),
            Err(_) => self.put(Instruction::with2(Code::Mov_r64_imm64, wide, value)),
        }
    }

    /// Stores RAX.
    fn store(&mut self, bits: u32, offset: u32) -> Done {
        let (eax, rax) = VALUE;
        let (code, register) =
            if bits == 64 { (Code::Mov_rm64_r64, rax) } else { (Code::Mov_rm32_r32, eax) };
        self.put(Instruction::with2(code, at(Register::RDI, offset), register))
    }

    /// Stores a value that no key changes.
    fn store_constant(&mut self, bits: u32, offset: u32, value: u64) -> Done {
        let to = at(Register::RDI, offset);
        if value == 0 {
            if !self.zero {
                let eax = VALUE.0;
                self.put(Instruction::with2(Code::Xor_r32_rm32, eax, eax))?;
                self.zero = true;
            }
            return self.store(bits, offset);
        }
        if bits == 32 {
            return self.put(Instruction::with2(Code::Mov_rm32_imm32, to, value as u32));
        }
        if let Ok(value) = i32::try_from(value as i64) {
            return self.put(Instruction::with2(Code::Mov_rm64_imm32, to, value));
        }
        self.zero = false;
        self.constant(VALUE.0, VALUE.1, value)?;
        self.store(bits, offset)
    }
}

pub(crate) fn compile(format: &Format, bases: Bases) -> Result<Vec<u8>, CompileError> {
    let mut out = Out { encoder: Encoder::new(64), zero: false };
    let (eax, rax) = VALUE;
    out.load(Code::Mov_r32_rm32, eax, 0)?;
    out.put(Instruction::with2(Code::Add_EAX_imm32, eax, format.header_addend()))?;
    out.put(Instruction::with2(Code::And_EAX_imm32, eax, 0xff_ffff_u32))?;
    out.store(32, 0)?;
    let key_bytes = format.key_words() * 8;
    for (i, (f, spec)) in format.fields().iter().zip(&FIELDS).enumerate() {
        let table = at(Register::RDX, 8 * i as u32);
        match (bases, f.bits) {
            (Bases::Immediate, 0) => out.store_constant(spec.bits, spec.offset, f.base)?,
            (Bases::Immediate, bits) => {
                out.zero = false;
                out.extract(format.position(i), bits, key_bytes)?;
                let wide = f.base + ones(bits) > u64::from(u32::MAX);
                out.add(f.base, wide)?;
                out.store(spec.bits, spec.offset)?;
            }
            (Bases::Table, bits) => {
                let (mov, add, register) = if spec.bits == 64 {
                    (Code::Mov_r64_rm64, Code::Add_r64_rm64, rax)
                } else {
                    (Code::Mov_r32_rm32, Code::Add_r32_rm32, eax)
                };
                if bits == 0 {
                    out.put(Instruction::with2(mov, register, table))?;
                } else {
                    out.extract(format.position(i), bits, key_bytes)?;
                    out.put(Instruction::with2(add, register, table))?;
                }
                out.store(spec.bits, spec.offset)?;
            }
        }
    }
    out.put(Ok(Instruction::with(Code::Retnq)))?;
    Ok(out.encoder.take_buffer())
}
