//! arm64: X0 destination, X1 packed key, X2 table.
//!
//! Fields that a narrow load reads whole are loaded so; the others are extracted from windows of
//! the key that are loaded once, in pairs where they follow each other. Values are stored in pairs
//! wherever two lie side by side; two neighbouring constants go as one where that is shorter. The
//! encodings are from the Arm ARM's A64 pages, by memory, and held against a disassembler. Not
//! done: equal constants shared between fields.

use crate::plan::{Loads, Plan, Source, plans};
use crate::{Bases, FIELDS, Format};

const DESTINATION: u32 = 0;
const KEY: u32 = 1;
const TABLE: u32 = 2;
/// X3 to X7 hold windows of the key.
const WINDOWS: u32 = 3;
/// A constant on its way.
const SCRATCH: u32 = 8;
/// The first of two values that are stored as a pair, and the other.
const VALUES: [u32; 2] = [9, 10];
const ZERO: u32 = 31;

const LOADS: Loads = Loads { grain: 1, little: true, wide_grain: 1 };

/// `rt` in 4:0, `rn` in 9:5, an immediate in 21:10.
const fn memory(op: u32, rt: u32, rn: u32, imm12: u32) -> u32 {
    op | (imm12 & 0xfff) << 10 | rn << 5 | rt
}

/// An unscaled load or store (LDUR, STUR): a signed offset in 20:12.
const fn unscaled(op: u32, rt: u32, rn: u32, imm9: u32) -> u32 {
    op | (imm9 & 0x1ff) << 12 | rn << 5 | rt
}

/// A pair: `rt` in 4:0, `rn` in 9:5, `rt2` in 14:10, a scaled offset in 21:15.
const fn pair(op: u32, rt: u32, rt2: u32, rn: u32, imm7: u32) -> u32 {
    op | (imm7 & 0x7f) << 15 | rt2 << 10 | rn << 5 | rt
}

/// N, immr and imms of a value that is a bitmask immediate of 64 bits (Arm ARM, DecodeBitMasks): a
/// run of ones, rotated, in an element that repeats.
fn bitmask(value: u64) -> Option<u32> {
    if value == 0 || value == u64::MAX {
        return None;
    }
    let size = [2, 4, 8, 16, 32, 64]
        .into_iter()
        .find(|size| *size == 64 || value == value.rotate_right(*size))?;
    let mask = u64::MAX >> (64 - size);
    let element = value & mask;
    let ones = element.count_ones();
    let run = u64::MAX >> (64 - ones);
    // The rotation to the right that makes the element of a run of ones at the bottom.
    let rotate = |by: u32| (run >> by | run << ((size - by) % size)) & mask;
    let by = (0..size).find(|by| if *by == 0 { run == element } else { rotate(*by) == element })?;
    let (n, high) = if size == 64 { (1, 0) } else { (0, (!(size * 2 - 1)) & 0x3f) };
    Some(n << 22 | by << 16 | (high | (ones - 1)) << 10)
}

/// The shortest sequence known that makes a constant of 32 or 64 bits.
fn constant(rd: u32, value: u64, bits: u32) -> Vec<u32> {
    let sf = if bits == 64 { 1 << 31 } else { 0 };
    let halves = bits / 16;
    let value = if bits == 64 { value } else { value & 0xffff_ffff };
    let part = |v: u64, n: u32| (v >> (16 * n)) as u32 & 0xffff;
    let orr = |v: u64| {
        let repeated = if bits == 64 { v } else { v | v << 32 };
        // An element of 64 bits has no place in an operation of 32.
        bitmask(repeated).filter(|n| bits == 64 || n >> 22 & 1 == 0)
    };
    let put_orr = |fields: u32| sf | 0x3200_0000 | fields | ZERO << 5 | rd;
    let movk = |n: u32, v: u64| sf | 0x7280_0000 | n << 21 | part(v, n) << 5 | rd;

    // MOVZ or MOVN, then MOVK.
    let count = |with: u32| (0..halves).filter(|n| part(value, *n) != with).count();
    let inverted = count(0xffff) < count(0);
    let skip = if inverted { 0xffff } else { 0 };
    let mut named: Vec<u32> = (0..halves).filter(|n| part(value, *n) != skip).collect();
    if named.is_empty() {
        named.push(0);
    }
    let moves: Vec<u32> = named
        .iter()
        .enumerate()
        .map(|(i, n)| match (i, inverted) {
            (0, false) => sf | 0x5280_0000 | n << 21 | part(value, *n) << 5 | rd,
            (0, true) => sf | 0x1280_0000 | n << 21 | (part(value, *n) ^ 0xffff) << 5 | rd,
            _ => movk(*n, value),
        })
        .collect();
    if moves.len() == 1 {
        return moves;
    }
    if let Some(fields) = orr(value) {
        return vec![put_orr(fields)];
    }
    if moves.len() > 2 {
        // A bitmask with one quarter wrong, then that quarter.
        for n in 0..halves {
            let others = (0..halves).map(|m| part(value, m));
            for quarter in others.chain([0, 0xffff]) {
                let hole = value & !(0xffff << (16 * n)) | u64::from(quarter) << (16 * n);
                if let Some(fields) = orr(hole) {
                    return vec![put_orr(fields), movk(n, value)];
                }
            }
        }
    }
    moves
}

/// ADD or SUB of immediates, if two are enough.
fn add_immediates(rd: u32, base: u64, bits: u32) -> Option<Vec<u32>> {
    let sf = if bits == 64 { 1 << 31 } else { 0 };
    let mask = if bits == 64 { u64::MAX } else { 0xffff_ffff };
    let (up, down) = (base & mask, base.wrapping_neg() & mask);
    let (op, value) = match (up, down) {
        (0..0x100_0000, _) => (0x1100_0000, up as u32),
        (_, 0..0x100_0000) => (0x5100_0000, down as u32),
        _ => return None,
    };
    let (low, high) = (value & 0xfff, value >> 12);
    let mut out = Vec::new();
    if high != 0 {
        out.push(sf | op | 1 << 22 | high << 10 | rd << 5 | rd);
    }
    if low != 0 {
        out.push(sf | op | low << 10 | rd << 5 | rd);
    }
    Some(out)
}

struct Out<'a> {
    code: Vec<u32>,
    format: &'a Format,
    bases: Bases,
    plan: &'a Plan,
}

impl Out<'_> {
    fn put(&mut self, word: u32) {
        self.code.push(word);
    }

    /// UBFX Xd, Xn, #lsb, #width.
    fn ubfx(&mut self, rd: u32, rn: u32, lsb: u32, width: u32) {
        self.put(0xd340_0000 | lsb << 16 | (lsb + width - 1) << 10 | rn << 5 | rd);
    }

    fn load_windows(&mut self) {
        let mut n = 0;
        while let Some(byte) = self.plan.windows.get(n) {
            let register = WINDOWS + n as u32;
            let aligned = byte.is_multiple_of(8);
            if aligned && self.plan.windows.get(n + 1) == Some(&(byte + 8)) {
                // LDP
                self.put(pair(0xa940_0000, register, register + 1, KEY, byte / 8));
                n += 2;
                continue;
            }
            self.put(match aligned {
                true => memory(0xf940_0000, register, KEY, byte / 8),
                false => unscaled(0xf840_0000, register, KEY, *byte),
            });
            n += 1;
        }
    }

    /// The bits of a field in `rd`, nothing above them as far as the store goes.
    fn extract(&mut self, rd: u32, source: Source, bits: u32, room: u32) {
        match source {
            Source::Narrow(byte) => self.put(match bits {
                // LDRB, LDURH, LDUR W, LDUR X
                8 => memory(0x3940_0000, rd, KEY, byte),
                16 => unscaled(0x7840_0000, rd, KEY, byte),
                32 => unscaled(0xb840_0000, rd, KEY, byte),
                _ => unscaled(0xf840_0000, rd, KEY, byte),
            }),
            Source::Window { window, shift } => {
                self.ubfx(rd, WINDOWS + window as u32, shift, bits);
            }
            Source::Across { window, shift } => {
                let low = WINDOWS + window as u32;
                // EXTR Xd, Xhigh, Xlow, #shift
                self.put(0x93c0_0000 | low << 16 | shift << 10 | (low + 1) << 5 | rd);
                if bits < room {
                    self.ubfx(rd, rd, 0, bits);
                }
            }
        }
    }

    /// The value of a field in `rd`, or the zero register.
    fn value(&mut self, rd: u32, index: usize) -> u32 {
        let (Some(field), Some(spec)) = (self.format.fields().get(index), FIELDS.get(index)) else {
            return ZERO;
        };
        let source = self.plan.sources.get(index).copied().flatten();
        let word = |rd| memory(0xf940_0000, rd, TABLE, index as u32);
        match (self.bases, source) {
            (Bases::Immediate, None) if field.base == 0 => return ZERO,
            (Bases::Immediate, None) => self.code.extend(constant(rd, field.base, spec.bits)),
            (Bases::Immediate, Some(source)) => self.with_base(rd, index, source),
            (Bases::Table, None) => self.put(word(rd)),
            (Bases::Table, Some(source)) => {
                self.extract(rd, source, field.bits, spec.bits);
                self.put(word(SCRATCH));
                self.put(0x8b00_0000 | SCRATCH << 16 | rd << 5 | rd);
            }
        }
        rd
    }

    /// A field's bits plus its base.
    fn with_base(&mut self, rd: u32, index: usize, source: Source) {
        let (Some(field), Some(spec)) = (self.format.fields().get(index), FIELDS.get(index)) else {
            return;
        };
        let immediates = add_immediates(rd, field.base, spec.bits);
        let made = constant(rd, field.base, spec.bits);
        // Where the base leaves the bits free, they can be put into it: BFXIL Xd, Xn, #lsb, #width.
        if let Source::Window { window, shift } = source
            && field.base & crate::format::ones(field.bits) == 0
            && immediates.as_ref().is_none_or(|adds| made.len() < adds.len())
        {
            self.code.extend(made);
            let (rn, last) = (WINDOWS + window as u32, shift + field.bits - 1);
            self.put(0xb340_0000 | shift << 16 | last << 10 | rn << 5 | rd);
            return;
        }
        if let Some(adds) = immediates {
            self.extract(rd, source, field.bits, spec.bits);
            self.code.extend(adds);
            return;
        }
        // At an end of its window a field goes into the addition as it is: ADD of a register that
        // is shifted to the right, or extended from a byte, half or word.
        let extracted = match source {
            Source::Window { window, shift } => {
                let rm = (WINDOWS + window as u32) << 16;
                match (shift, field.bits) {
                    (0, 64) => Some(0x8b00_0000 | rm),
                    (0, 8) => Some(0x8b20_0000 | rm),
                    (0, 16) => Some(0x8b20_2000 | rm),
                    (0, 32) => Some(0x8b20_4000 | rm),
                    (shift, bits) if shift + bits == 64 => Some(0x8b40_0000 | rm | shift << 10),
                    _ => None,
                }
            }
            _ => None,
        };
        if extracted.is_none() {
            self.extract(rd, source, field.bits, spec.bits);
        }
        self.code.extend(constant(SCRATCH, field.base, spec.bits));
        self.put(extracted.unwrap_or(0x8b00_0000 | rd << 16) | SCRATCH << 5 | rd);
    }

    /// The value of a field that no key changes.
    fn fixed(&self, index: usize) -> Option<u64> {
        let field = self.format.fields().get(index)?;
        (self.bases == Bases::Immediate && field.bits == 0).then_some(field.base)
    }

    /// Two neighbouring constants of 32 bits as one of 64, if that is shorter.
    fn joined(&self, low: usize, high: usize) -> Option<u64> {
        let (a, b) = (self.fixed(low)?, self.fixed(high)?);
        let apart: usize = [a, b]
            .into_iter()
            .map(|v| if v == 0 { 0 } else { constant(SCRATCH, v, 32).len() })
            .sum();
        let both = b << 32 | a;
        (both != 0 && constant(SCRATCH, both, 64).len() < apart).then_some(both)
    }

    fn header(&mut self) -> u32 {
        let [first, _] = VALUES;
        let from = match self.plan.windows.first() {
            Some(0) => WINDOWS,
            _ => {
                self.put(memory(0xb940_0000, first, KEY, 0));
                first
            }
        };
        // ADD W; AND with 0xffffff (as UBFX).
        self.put(0x1100_0000 | self.format.header_addend() << 10 | from << 5 | first);
        self.ubfx(first, first, 0, 24);
        first
    }

    /// STP W or X.
    fn store_pair(&mut self, bits: u32, offset: u32, a: u32, b: u32) {
        let (op, scale) = if bits == 64 { (0xa900_0000, 8) } else { (0x2900_0000, 4) };
        self.put(pair(op, a, b, DESTINATION, offset / scale));
    }

    fn store(&mut self, bits: u32, offset: u32, value: u32) {
        self.put(match (bits, offset % 8) {
            (32, _) => memory(0xb900_0000, value, DESTINATION, offset / 4),
            (_, 0) => memory(0xf900_0000, value, DESTINATION, offset / 8),
            _ => unscaled(0xf800_0000, value, DESTINATION, offset),
        });
    }

    /// All fields: inode 0, offset 1, snapshot 2, size 3, version_hi 4, version_lo 5.
    fn stores(&mut self) {
        let [first, second] = VALUES;
        let header = self.header();
        // A version_lo that never needs its upper half goes with the header, and its upper half
        // with version_hi.
        let short = self.bases == Bases::Immediate
            && self.format.fields().get(5).is_some_and(|f| {
                f.base.saturating_add(crate::format::ones(f.bits)) <= u64::from(u32::MAX)
            });
        if short {
            let low = self.value(second, 5);
            self.store_pair(32, 0, header, low);
        } else {
            self.store(32, 0, header);
            let value = self.value(first, 5);
            self.store(64, 4, value);
        }
        let upper = |out: &mut Self| {
            let value = out.value(second, 4);
            if short { out.store_pair(32, 8, ZERO, value) } else { out.store(32, 12, value) }
        };
        if let Some(both) = self.joined(3, 2) {
            // size and snapshot as one, beside offset; inode alone.
            upper(self);
            self.code.extend(constant(first, both, 64));
            let offset = self.value(second, 1);
            self.store_pair(64, 16, first, offset);
            let inode = self.value(first, 0);
            self.store(64, 32, inode);
            return;
        }
        if let Some(both) = self.joined(4, 3).filter(|_| !short) {
            // version_hi and size as one; snapshot alone.
            self.code.extend(constant(first, both, 64));
            self.store(64, 12, first);
            let snapshot = self.value(first, 2);
            self.store(32, 20, snapshot);
        } else {
            upper(self);
            let (size, snapshot) = (self.value(first, 3), self.value(second, 2));
            self.store_pair(32, 16, size, snapshot);
        }
        let (offset, inode) = (self.value(first, 1), self.value(second, 0));
        self.store_pair(64, 24, offset, inode);
    }
}

pub(crate) fn compile(format: &Format, bases: Bases) -> Vec<u32> {
    let one = |plan: &Plan| {
        let mut out = Out { code: Vec::new(), format, bases, plan };
        out.load_windows();
        out.stores();
        // RET
        out.put(0xd65f_03c0);
        out.code
    };
    plans(format, LOADS).iter().map(one).min_by_key(Vec::len).unwrap_or_default()
}
