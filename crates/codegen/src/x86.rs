//! x86-64: RDI destination, RSI packed key, RDX table; RAX and RCX are used up, and without a table
//! RDX.
//!
//! Each field is loaded by itself, where it can at an address that puts its upper or lower end at
//! that of the register, so that one shift, one mask or one zero extension extracts it. Loads stay
//! inside the packed key. Two neighbouring constants are stored as one where that is shorter. The
//! encoder is iced-x86's. Not done: loads that serve several fields, BMI2, SSE (kernel code has
//! neither without asking).

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, Register};

use crate::format::ones;
use crate::{Bases, CompileError, FIELDS, Format};

const VALUE: (Register, Register) = (Register::EAX, Register::RAX);
const OTHER: (Register, Register) = (Register::ECX, Register::RCX);
const ZERO: (Register, Register) = (Register::EDX, Register::RDX);

struct Out {
    encoder: Encoder,
    /// RDX holds zero.
    zero: bool,
}

type Done = Result<(), CompileError>;

fn refused(e: iced_x86::IcedError) -> CompileError {
    CompileError::Encode(e.to_string())
}

fn at(base: Register, offset: u32) -> MemoryOperand {
    match offset {
        0 => MemoryOperand::with_base(base),
        _ => MemoryOperand::with_base_displ(base, i64::from(offset)),
    }
}

/// A way to get a field's bits into RAX.
#[derive(Clone, Copy)]
enum Way {
    /// One load that extends with zeros.
    Load(Code, bool),
    /// A load of this many bits at a byte, a shift to the left, one to the right.
    Shifts { room: u32, byte: u32, left: u32, right: u32 },
    /// A load of this many bits at a byte, a shift to the right, a mask.
    Mask { room: u32, byte: u32, right: u32 },
}

impl Way {
    /// Instructions, then bytes.
    fn cost(self, bits: u32) -> (u32, u32) {
        let parts = |room: u32, loads: u32, shifts: &[u32]| {
            let shifts = shifts.iter().filter(|by| **by != 0).count() as u32;
            let each = if room == 64 { 4 } else { 3 };
            (1 + shifts, loads + each * shifts)
        };
        let load = |room: u32| if room == 32 { 3 } else { 4 };
        match self {
            Way::Load(_, wide) => (1, if wide { 4 } else { 3 }),
            Way::Shifts { room, left, right, .. } => parts(room, load(room), &[left, right]),
            Way::Mask { room, right, .. } => {
                let (count, bytes) = parts(room, load(room), &[right]);
                (count + 1, bytes + if bits < 8 { 3 } else { 5 })
            }
        }
    }
}

/// The ways that there are for a field; `bits` of `room` that are stored.
fn ways(position: u32, bits: u32, room: u32, key_bytes: u32) -> Vec<(Way, u32)> {
    let (first, shift, end) = (position / 8, position % 8, position + bits);
    let mut all = Vec::new();
    let exact = match bits {
        8 => Some((Code::Movzx_r32_rm8, true)),
        16 => Some((Code::Movzx_r32_rm16, true)),
        32 => Some((Code::Mov_r32_rm32, false)),
        64 => Some((Code::Mov_r64_rm64, true)),
        _ => None,
    };
    if let Some((code, wide)) = exact.filter(|_| shift == 0) {
        all.push((Way::Load(code, wide), first));
    }
    for load in [16, 32, 64] {
        // Every byte at which a load of this width holds the field.
        let low = (end.div_ceil(8)).saturating_sub(load / 8);
        let high = first.min(key_bytes.saturating_sub(load / 8));
        for byte in low..=high {
            let right = position - 8 * byte;
            if right + bits > load || byte + load / 8 > key_bytes {
                continue;
            }
            let left = load - right - bits;
            // Bits above the field that the store leaves out need no care.
            let left = if bits == room { 0 } else { left };
            // A load of 16 bits extends with zeros: only what is above in it matters.
            if load != 16 || left == 0 {
                all.push((Way::Shifts { room: load, byte, left, right: right + left }, byte));
            }
            if bits < 32 {
                all.push((Way::Mask { room: load, byte, right }, byte));
            }
        }
    }
    all
}

/// The shortest way for a field; `None` if it lies in nine bytes.
fn best(position: u32, bits: u32, room: u32, key_bytes: u32) -> Option<(Way, u32)> {
    ways(position, bits, room, key_bytes).into_iter().min_by_key(|(way, _)| way.cost(bits))
}

/// A field, and a way for it that begins with the load that the header needs too, where that is no
/// longer than the best one: how many bits that load has.
fn beside_header(format: &Format) -> Option<(usize, (Way, u32), u32)> {
    let key_bytes = format.key_words() * 8;
    let fields = format.fields().iter().zip(&FIELDS).enumerate();
    fields.filter(|(_, (f, _))| f.bits > 0).find_map(|(i, (f, spec))| {
        let position = format.position(i);
        let (shortest, _) = best(position, f.bits, spec.bits, key_bytes)?;
        let from_start = |(way, byte): &(Way, u32)| {
            let (Way::Shifts { room, .. } | Way::Mask { room, .. }) = *way else {
                return None;
            };
            let fits = *byte == 0 && room >= 32 && way.cost(f.bits).0 == shortest.cost(f.bits).0;
            fits.then_some((i, (*way, *byte), room))
        };
        let all = ways(position, f.bits, spec.bits, key_bytes);
        all.iter().filter_map(from_start).min_by_key(|(_, (way, _), _)| way.cost(f.bits))
    })
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

    /// A load of 16, 32 or 64 bits into RAX.
    fn load_bits(&mut self, room: u32, byte: u32) -> Done {
        let (eax, rax) = VALUE;
        match room {
            16 => self.load(Code::Movzx_r32_rm16, eax, byte),
            32 => self.load(Code::Mov_r32_rm32, eax, byte),
            _ => self.load(Code::Mov_r64_rm64, rax, byte),
        }
    }

    /// SHL or SHR of RAX or EAX by an immediate.
    fn shift(&mut self, left: bool, room: u32, by: u32) -> Done {
        let (eax, rax) = VALUE;
        let (code, by_one, register) = match (left, room) {
            (true, 64) => (Code::Shl_rm64_imm8, Code::Shl_rm64_1, rax),
            (false, 64) => (Code::Shr_rm64_imm8, Code::Shr_rm64_1, rax),
            (true, _) => (Code::Shl_rm32_imm8, Code::Shl_rm32_1, eax),
            (false, _) => (Code::Shr_rm32_imm8, Code::Shr_rm32_1, eax),
        };
        match by {
            0 => Ok(()),
            1 => self.put(Instruction::with2(by_one, register, 1)),
            _ => self.put(Instruction::with2(code, register, by)),
        }
    }

    /// The bits of a field into RAX, nothing above them as far as the store goes.
    fn extract(&mut self, position: u32, bits: u32, room: u32, key_bytes: u32) -> Done {
        match best(position, bits, room, key_bytes) {
            Some(way) => self.by(way, bits, true),
            None => self.extract_across(position / 8, position % 8, bits),
        }
    }

    /// The same in this way; `load`: RAX does not hold what the way loads yet.
    fn by(&mut self, (way, byte): (Way, u32), bits: u32, load: bool) -> Done {
        let (eax, rax) = VALUE;
        match way {
            Way::Load(code, _) => {
                let register = if bits == 64 { rax } else { eax };
                self.load(code, register, byte)
            }
            Way::Shifts { room, byte, left, right } => {
                if load {
                    self.load_bits(room, byte)?;
                }
                self.shift(true, room, left)?;
                self.shift(false, room, right)
            }
            Way::Mask { room, byte, right } => {
                if load {
                    self.load_bits(room, byte)?;
                }
                self.shift(false, room, right)?;
                let mask = ones(bits) as u32;
                self.put(match bits {
                    0..8 => Instruction::with2(Code::And_rm32_imm8, eax, mask),
                    _ => Instruction::with2(Code::And_EAX_imm32, eax, mask),
                })
            }
        }
    }

    /// A field of 58 bits or more that lies in nine bytes: nine bytes by two loads.
    fn extract_across(&mut self, first: u32, shift: u32, bits: u32) -> Done {
        let rax = VALUE.1;
        self.load_bits(64, first)?;
        self.load(Code::Movzx_r32_rm8, OTHER.0, first + 8)?;
        self.put(Instruction::with3(Code::Shrd_rm64_r64_imm8, rax, OTHER.1, shift))?;
        self.shift(true, 64, 64 - bits)?;
        self.shift(false, 64, 64 - bits)
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
                self.constant(OTHER, base)?;
                self.put(Instruction::with2(Code::Add_rm64_r64, rax, OTHER.1))
            }
        }
    }

    fn constant(&mut self, register: (Register, Register), value: u64) -> Done {
        match u32::try_from(value) {
            Ok(value) => self.put(Instruction::with2(Code::Mov_r32_imm32, register.0, value)),
            Err(_) => self.put(Instruction::with2(Code::Mov_r64_imm64, register.1, value)),
        }
    }

    /// Stores a register.
    fn store(&mut self, (narrow, wide): (Register, Register), bits: u32, offset: u32) -> Done {
        let (code, register) =
            if bits == 64 { (Code::Mov_rm64_r64, wide) } else { (Code::Mov_rm32_r32, narrow) };
        self.put(Instruction::with2(code, at(Register::RDI, offset), register))
    }

    /// Stores a value that no key changes.
    fn store_constant(&mut self, bits: u32, offset: u32, value: u64) -> Done {
        let to = at(Register::RDI, offset);
        if value == 0 && self.zero {
            return self.store(ZERO, bits, offset);
        }
        if bits == 32 {
            return self.put(Instruction::with2(Code::Mov_rm32_imm32, to, value as u32));
        }
        if let Ok(value) = i32::try_from(value as i64) {
            return self.put(Instruction::with2(Code::Mov_rm64_imm32, to, value));
        }
        self.constant(VALUE, value)?;
        self.store(VALUE, bits, offset)
    }
}

/// A value that no key changes: its width, where it goes, and what it is.
#[derive(Clone, Copy)]
struct Constant {
    bits: u32,
    offset: u32,
    value: u64,
}

/// The constants of a format, by ascending address, two narrow neighbours joined where one store
/// is shorter than two.
fn constants(format: &Format) -> Vec<Constant> {
    let mut all: Vec<Constant> = Vec::new();
    // From the last field to the first addresses ascend.
    for (f, spec) in format.fields().iter().zip(&FIELDS).rev().filter(|(f, _)| f.bits == 0) {
        let own = Constant { bits: spec.bits, offset: spec.offset, value: f.base };
        let joined = all
            .last()
            .filter(|last| last.bits == 32 && own.bits == 32 && last.offset + 4 == own.offset);
        let joined = joined.map(|last| own.value << 32 | last.value);
        match joined.filter(|v| i32::try_from(*v as i64).is_ok()) {
            Some(value) => {
                if let Some(last) = all.last_mut() {
                    *last = Constant { bits: 64, value, ..*last };
                }
            }
            None => all.push(own),
        }
    }
    all
}

pub(crate) fn compile(format: &Format, bases: Bases) -> Result<Vec<u8>, CompileError> {
    let mut out = Out { encoder: Encoder::new(64), zero: false };
    let (eax, rax) = VALUE;
    let addend = format.header_addend();
    let beside = beside_header(format);
    if let Some((_, _, room)) = beside {
        // LEA leaves RAX as it was loaded, for the field that comes next.
        out.load_bits(room, 0)?;
        let sum = MemoryOperand::with_base_displ(rax, i64::from(addend));
        out.put(Instruction::with2(Code::Lea_r32_m, OTHER.0, sum))?;
        out.put(Instruction::with2(Code::And_rm32_imm32, OTHER.0, 0xff_ffff_u32))?;
        out.store(OTHER, 32, 0)?;
    } else {
        out.load(Code::Mov_r32_rm32, eax, 0)?;
        out.put(Instruction::with2(Code::Add_EAX_imm32, eax, addend))?;
        out.put(Instruction::with2(Code::And_EAX_imm32, eax, 0xff_ffff_u32))?;
        out.store(VALUE, 32, 0)?;
    }
    let key_bytes = format.key_words() * 8;
    let first = beside.map_or(0, |(i, _, _)| i);
    let order = std::iter::once(first).chain((0..FIELDS.len()).filter(|i| *i != first));
    for i in order {
        let (Some(f), Some(spec)) = (format.fields().get(i), FIELDS.get(i)) else {
            continue;
        };
        let bits_of = |out: &mut Out| match beside {
            Some((beside, way, _)) if beside == i => out.by(way, f.bits, false),
            _ => out.extract(format.position(i), f.bits, spec.bits, key_bytes),
        };
        let table = at(Register::RDX, 8 * i as u32);
        match (bases, f.bits) {
            (Bases::Immediate, 0) => {}
            (Bases::Immediate, bits) => {
                bits_of(&mut out)?;
                let most = f.base + ones(bits);
                let half = f.base & 0xffff_ffff;
                if spec.bits == 64
                    && i32::try_from(f.base as i64).is_err()
                    && f.base >> 32 != 0
                    && most >> 32 == f.base >> 32
                {
                    // No carry reaches the upper half: it is a constant of its own.
                    out.add(half, false)?;
                    out.store(VALUE, 32, spec.offset)?;
                    out.store_constant(32, spec.offset + 4, f.base >> 32)?;
                    continue;
                }
                out.add(f.base, most > u64::from(u32::MAX))?;
                out.store(VALUE, spec.bits, spec.offset)?;
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
                    bits_of(&mut out)?;
                    out.put(Instruction::with2(add, register, table))?;
                }
                out.store(VALUE, spec.bits, spec.offset)?;
            }
        }
    }
    if bases == Bases::Immediate {
        let constants = constants(format);
        // A register of zeros pays from the second store on.
        if constants.iter().filter(|c| c.value == 0).count() > 1 {
            out.put(Instruction::with2(Code::Xor_rm32_r32, ZERO.0, ZERO.0))?;
            out.zero = true;
        }
        for c in constants {
            out.store_constant(c.bits, c.offset, c.value)?;
        }
    }
    out.put(Ok(Instruction::with(Code::Retnq)))?;
    Ok(out.encoder.take_buffer())
}
