//! arm64: X0 destination, X1 packed key, X2 table.
//!
//! Fields that a narrow load reads whole are loaded so; for the others each word of the key is
//! loaded once and fields are extracted from it. Neighbouring values are stored in pairs. The
//! encodings are from the Arm ARM's A64 pages, by memory, and held against a disassembler. Not
//! done: bitmask immediates, stores of parts of several fields at once.

use crate::{Bases, FIELDS, Format};

const DESTINATION: u32 = 0;
const KEY: u32 = 1;
const TABLE: u32 = 2;
/// X3 to X7 hold words of the key.
const WORDS: u32 = 3;
/// A constant on its way.
const SCRATCH: u32 = 8;
/// The first of two values that are stored as a pair, and the other.
const VALUES: [u32; 2] = [9, 10];
const ZERO: u32 = 31;

struct Out {
    code: Vec<u32>,
    loaded: [bool; 5],
}

/// `rt` in 4:0, `rn` in 9:5, an immediate in 21:10.
const fn memory(op: u32, rt: u32, rn: u32, imm12: u32) -> u32 {
    op | (imm12 & 0xfff) << 10 | rn << 5 | rt
}

/// An unscaled load or store (LDUR, STUR): a signed offset in 20:12.
const fn unscaled(op: u32, rt: u32, rn: u32, imm9: u32) -> u32 {
    op | (imm9 & 0x1ff) << 12 | rn << 5 | rt
}

impl Out {
    fn put(&mut self, word: u32) {
        self.code.push(word);
    }

    /// UBFX Xd, Xn, #lsb, #width.
    fn ubfx(&mut self, rd: u32, rn: u32, lsb: u32, width: u32) {
        self.put(0xd340_0000 | lsb << 16 | (lsb + width - 1) << 10 | rn << 5 | rd);
    }

    fn word(&mut self, n: u32) -> u32 {
        let register = WORDS + n;
        if let Some(loaded) = self.loaded.get_mut(n as usize)
            && !*loaded
        {
            *loaded = true;
            self.put(memory(0xf940_0000, register, KEY, n));
        }
        register
    }

    fn extract(&mut self, rd: u32, position: u32, bits: u32) {
        if position.is_multiple_of(8) {
            let byte = position / 8;
            // (LDRB, LDURH, LDUR W, LDUR X)
            match bits {
                8 => return self.put(memory(0x3940_0000, rd, KEY, byte)),
                16 => return self.put(unscaled(0x7840_0000, rd, KEY, byte)),
                32 => return self.put(unscaled(0xb840_0000, rd, KEY, byte)),
                64 => return self.put(unscaled(0xf840_0000, rd, KEY, byte)),
                _ => {}
            }
        }
        let (word, shift) = (position / 64, position % 64);
        let low = self.word(word);
        if shift + bits <= 64 {
            return self.ubfx(rd, low, shift, bits);
        }
        let high = self.word(word + 1);
        // EXTR Xd, Xhigh, Xlow, #shift
        self.put(0x93c0_0000 | low << 16 | shift << 10 | high << 5 | rd);
        // Keep its base for the whole of a field of 64 bits.
        if bits < 64 {
            self.ubfx(rd, rd, 0, bits);
        }
    }

    /// MOVZ or MOVN, then MOVK.
    fn constant(&mut self, rd: u32, value: u64) {
        let parts: Vec<(u32, u32)> =
            (0..4).map(|n| (n, (value >> (16 * n)) as u32 & 0xffff)).collect();
        let count = |with: u32| parts.iter().filter(|(_, p)| *p != with).count();
        let inverted = count(0xffff) < count(0);
        let skip = if inverted { 0xffff } else { 0 };
        let mut first = true;
        for (n, part) in &parts {
            let last_chance = first && *n == 3;
            if *part == skip && !last_chance {
                continue;
            }
            let (op, part) = match (first, inverted) {
                (true, false) => (0xd280_0000, *part),
                (true, true) => (0x9280_0000, *part ^ 0xffff),
                (false, _) => (0xf280_0000, *part),
            };
            self.put(op | n << 21 | part << 5 | rd);
            first = false;
        }
    }

    fn add(&mut self, rd: u32, base: u64) {
        // ADD or SUB, immediate of 12 bits, shifted by 12 or not.
        let immediate = |out: &mut Out, op: u32, value: u64| {
            let (low, high) = (value as u32 & 0xfff, (value >> 12) as u32);
            if high != 0 {
                out.put(op | 1 << 22 | high << 10 | rd << 5 | rd);
            }
            if low != 0 {
                out.put(op | low << 10 | rd << 5 | rd);
            }
        };
        let negative = base.wrapping_neg();
        match (base, negative) {
            (0..0x100_0000, _) => immediate(self, 0x9100_0000, base),
            (_, 0..0x100_0000) => immediate(self, 0xd100_0000, negative),
            _ => {
                self.constant(SCRATCH, base);
                self.put(0x8b00_0000 | SCRATCH << 16 | rd << 5 | rd);
            }
        }
    }

    /// The value of a field in `rd`, or the zero register.
    fn value(&mut self, rd: u32, format: &Format, bases: Bases, index: usize) -> u32 {
        let Some(field) = format.fields().get(index) else { return ZERO };
        let table = memory(0xf940_0000, SCRATCH, TABLE, index as u32);
        match (bases, field.bits) {
            (Bases::Immediate, 0) if field.base == 0 => return ZERO,
            (Bases::Immediate, 0) => self.constant(rd, field.base),
            (Bases::Immediate, bits) => {
                self.extract(rd, format.position(index), bits);
                self.add(rd, field.base);
            }
            (Bases::Table, 0) => self.put(memory(0xf940_0000, rd, TABLE, index as u32)),
            (Bases::Table, bits) => {
                self.extract(rd, format.position(index), bits);
                self.put(table);
                self.put(0x8b00_0000 | SCRATCH << 16 | rd << 5 | rd);
            }
        }
        rd
    }
}

pub(crate) fn compile(format: &Format, bases: Bases) -> Vec<u32> {
    let mut out = Out { code: Vec::new(), loaded: [false; 5] };
    let [first, second] = VALUES;
    // LDR W; ADD; AND with 0xffffff; STR W.
    let addend = format.header_addend();
    out.put(memory(0xb940_0000, first, KEY, 0));
    out.add(first, u64::from(addend));
    out.ubfx(first, first, 0, 24);
    out.put(memory(0xb900_0000, first, DESTINATION, 0));
    // Pairs of fields that lie side by side, the lower address first: STP W at 12, STP X at 24.
    for (low, high, op, scale) in [(4, 3, 0x2900_0000, 4), (1, 0, 0xa900_0000, 8)] {
        let a = out.value(first, format, bases, low);
        let b = out.value(second, format, bases, high);
        let offset = FIELDS.get(low).map_or(0, |f| f.offset) / scale;
        out.put(op | offset << 15 | b << 10 | DESTINATION << 5 | a);
    }
    // STR W (snapshot), STUR X (version_lo, not at a multiple of 8).
    for (index, spec) in [(2, FIELDS.get(2)), (5, FIELDS.get(5))] {
        let Some(spec) = spec else { continue };
        let value = out.value(first, format, bases, index);
        out.put(match spec.bits {
            32 => memory(0xb900_0000, value, DESTINATION, spec.offset / 4),
            _ => unscaled(0xf800_0000, value, DESTINATION, spec.offset),
        });
    }
    // RET
    out.put(0xd65f_03c0);
    out.code
}
