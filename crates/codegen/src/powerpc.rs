//! 64-bit Power: R3 destination, R4 packed key, R5 table; R0 and R6 to R12 are used up.
//!
//! Each word of the key is loaded once and fields are extracted from it (`rldicl`, and `rldimi`
//! where a field lies in two words); in little-endian keys a field that a narrow load reads whole
//! is loaded so. The encodings are from Power ISA Book I, by memory, and held against a
//! disassembler. Not done: stores of two fields at once, prefixed instructions.

use crate::{Bases, FIELDS, Format};

const DESTINATION: u32 = 3;
const KEY: u32 = 4;
const TABLE: u32 = 5;
/// R6 to R10 hold words of the key.
const WORDS: u32 = 6;
const VALUE: u32 = 11;
const SCRATCH: u32 = 12;

struct Out {
    code: Vec<u32>,
    loaded: [bool; 5],
    /// R0 holds zero.
    zero: bool,
    little: bool,
}

/// D-form and DS-form: opcode, RT, RA, 16 bits.
const fn d(opcode: u32, rt: u32, ra: u32, imm: u32) -> u32 {
    opcode << 26 | rt << 21 | ra << 16 | (imm & 0xffff)
}

/// MD-form: RS, RA, shift, mask begin.
const fn md(extended: u32, rs: u32, ra: u32, sh: u32, mb: u32) -> u32 {
    let split = (mb & 31) << 1 | mb >> 5;
    30 << 26 | rs << 21 | ra << 16 | (sh & 31) << 11 | split << 5 | extended << 2 | (sh >> 5) << 1
}

const LD: u32 = 58;
const LWZ: u32 = 32;
const LHZ: u32 = 40;
const LBZ: u32 = 34;
const STD: u32 = 62;
const STW: u32 = 36;
const ADDI: u32 = 14;
const ADDIS: u32 = 15;
const ORI: u32 = 24;
const ORIS: u32 = 25;
const RLDICL: u32 = 0;
const RLDICR: u32 = 1;
const RLDIMI: u32 = 3;

impl Out {
    fn put(&mut self, word: u32) {
        self.code.push(word);
    }

    fn word(&mut self, n: u32) -> u32 {
        let register = WORDS + n;
        if let Some(loaded) = self.loaded.get_mut(n as usize)
            && !*loaded
        {
            *loaded = true;
            self.put(d(LD, register, KEY, 8 * n));
        }
        register
    }

    fn extract(&mut self, position: u32, bits: u32) {
        let byte = position / 8;
        if self.little && position.is_multiple_of(8) {
            match bits {
                8 => return self.put(d(LBZ, VALUE, KEY, byte)),
                16 => return self.put(d(LHZ, VALUE, KEY, byte)),
                32 => return self.put(d(LWZ, VALUE, KEY, byte)),
                64 if byte.is_multiple_of(4) => return self.put(d(LD, VALUE, KEY, byte)),
                _ => {}
            }
        }
        let (word, shift) = (position / 64, position % 64);
        let low = self.word(word);
        if shift + bits <= 64 {
            return self.put(md(RLDICL, low, VALUE, (64 - shift) % 64, 64 - bits));
        }
        let high = self.word(word + 1);
        self.put(md(RLDICL, low, VALUE, 64 - shift, shift));
        self.put(md(RLDIMI, high, VALUE, 64 - shift, 64 - bits));
    }

    fn constant(&mut self, rt: u32, value: u64) {
        let part = |n: u32| (value >> (16 * n)) as u32 & 0xffff;
        let or_low = |out: &mut Out| {
            if part(0) != 0 {
                out.put(d(ORI, rt, rt, part(0)));
            }
        };
        if i16::try_from(value as i64).is_ok() {
            self.put(d(ADDI, rt, 0, part(0)));
        } else if i32::try_from(value as i64).is_ok() {
            self.put(d(ADDIS, rt, 0, part(1)));
            or_low(self);
        } else if value >> 48 == 0 && part(2) < 0x8000 {
            self.put(d(ADDI, rt, 0, part(2)));
            self.shifted_low(rt, part(1));
            or_low(self);
        } else {
            if part(3) != 0 || part(2) >= 0x8000 {
                self.put(d(ADDIS, rt, 0, part(3)));
                if part(2) != 0 {
                    self.put(d(ORI, rt, rt, part(2)));
                }
            }
            self.shifted_low(rt, part(1));
            or_low(self);
        }
    }

    /// Shifts by 32 and fills in bits 16 to 31.
    fn shifted_low(&mut self, rt: u32, part: u32) {
        self.put(md(RLDICR, rt, rt, 32, 31));
        if part != 0 {
            self.put(d(ORIS, rt, rt, part));
        }
    }

    fn add(&mut self, base: u64) {
        let (low, signed) = (base as i16, base as i64);
        let high = signed.wrapping_sub(i64::from(low)) >> 16;
        if i16::try_from(high).is_ok() {
            if high != 0 {
                self.put(d(ADDIS, VALUE, VALUE, high as u32));
            }
            if low != 0 {
                self.put(d(ADDI, VALUE, VALUE, low as u32));
            }
            return;
        }
        self.constant(SCRATCH, base);
        self.sum();
    }

    /// VALUE += SCRATCH.
    fn sum(&mut self) {
        self.put(31 << 26 | VALUE << 21 | VALUE << 16 | SCRATCH << 11 | 266 << 1);
    }

    /// The value of a field in a register.
    fn value(&mut self, format: &Format, bases: Bases, index: usize) -> u32 {
        let Some(field) = format.fields().get(index) else { return 0 };
        let offset = 8 * index as u32;
        match (bases, field.bits) {
            (Bases::Immediate, 0) if field.base == 0 => {
                if !self.zero {
                    self.put(d(ADDI, 0, 0, 0));
                    self.zero = true;
                }
                return 0;
            }
            (Bases::Immediate, 0) => self.constant(VALUE, field.base),
            (Bases::Immediate, bits) => {
                self.extract(format.position(index), bits);
                self.add(field.base);
            }
            (Bases::Table, 0) => self.put(d(LD, VALUE, TABLE, offset)),
            (Bases::Table, bits) => {
                self.extract(format.position(index), bits);
                self.put(d(LD, SCRATCH, TABLE, offset));
                self.sum();
            }
        }
        VALUE
    }
}

pub(crate) fn compile(format: &Format, bases: Bases, little: bool) -> Vec<u32> {
    let mut out = Out { code: Vec::new(), loaded: [false; 5], zero: false, little };
    // The low half of word 0; add; keep 24 bits; store.
    out.put(d(LWZ, VALUE, KEY, if little { 0 } else { 4 }));
    out.put(d(ADDI, VALUE, VALUE, format.header_addend()));
    out.put(md(RLDICL, VALUE, VALUE, 0, 40));
    out.put(d(STW, VALUE, DESTINATION, 0));
    for (index, spec) in FIELDS.iter().enumerate() {
        let value = out.value(format, bases, index);
        out.put(d(if spec.bits == 64 { STD } else { STW }, value, DESTINATION, spec.offset));
    }
    // blr
    out.put(0x4e80_0020);
    out.code
}
