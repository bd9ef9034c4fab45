//! 64-bit Power: R3 destination, R4 packed key, R5 table; R0 and R6 to R12 are used up.
//!
//! Fields that a narrow load reads whole are loaded so; the others are extracted (`rldicl`, and
//! `rldimi` where a field lies in two words) from windows of the key that are loaded once. Two
//! neighbouring constants are stored as one where that is shorter. The encodings are from Power ISA
//! Book I, by memory, and held against a disassembler. Not done: prefixed instructions, constants
//! from a table beside the code (a compiler has its TOC for that), equal constants shared.

use crate::plan::{Loads, Plan, Source, plans};
use crate::{Bases, FIELDS, Format};

const DESTINATION: u32 = 3;
const KEY: u32 = 4;
const TABLE: u32 = 5;
/// R6 to R10 hold windows of the key.
const WINDOWS: u32 = 6;
const VALUE: u32 = 11;
const SCRATCH: u32 = 12;

/// D-form and DS-form: opcode, RT, RA, 16 bits.
const fn d(opcode: u32, rt: u32, ra: u32, imm: u32) -> u32 {
    opcode << 26 | rt << 21 | ra << 16 | (imm & 0xffff)
}

/// MD-form: RS, RA, shift, mask begin or end.
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
const RLDIC: u32 = 2;
const RLDIMI: u32 = 3;

/// `li`, `lis` or `lis` and `ori`: what fits in 32 bits with its sign.
fn small(rt: u32, value: u64) -> Option<Vec<u32>> {
    let signed = value as i64;
    let (low, high) = (value as u32 & 0xffff, (value >> 16) as u32 & 0xffff);
    if i16::try_from(signed).is_ok() {
        return Some(vec![d(ADDI, rt, 0, low)]);
    }
    i32::try_from(signed).ok()?;
    let mut code = vec![d(ADDIS, rt, 0, high)];
    if low != 0 {
        code.push(d(ORI, rt, rt, low));
    }
    Some(code)
}

/// A small constant and one rotation with a mask.
fn rotated(rt: u32, value: u64) -> Option<Vec<u32>> {
    let (lz, tz) = (value.leading_zeros(), value.trailing_zeros());
    if value == 0 {
        return None;
    }
    let top = if lz == 0 { 0 } else { u64::MAX << (64 - lz) };
    let bottom = if tz == 0 { 0 } else { u64::MAX >> (64 - tz) };
    // What the mask takes away may be anything: zeros, or ones.
    let ways = (0..64).flat_map(|by| {
        [
            (value, md(RLDICL, rt, rt, by, 0)),
            (value | top, md(RLDICL, rt, rt, by, lz)),
            (value | bottom, md(RLDICR, rt, rt, by, 63 - tz)),
        ]
        .map(|(v, insn)| (v.rotate_right(by), insn))
    });
    // RLDIC clears below its rotation too.
    let both = (value | top | bottom).rotate_right(tz);
    let ways = ways.chain([(both, md(RLDIC, rt, rt, tz, lz))]);
    ways.filter_map(|(from, insn)| {
        let mut code = small(rt, from)?;
        code.push(insn);
        Some(code)
    })
    .min_by_key(Vec::len)
}

/// The shortest sequence known that makes a constant.
fn constant(rt: u32, value: u64) -> Vec<u32> {
    if let Some(code) = small(rt, value) {
        return code;
    }
    let mut best = in_halves(rt, value);
    let mut offer = |code: Vec<u32>| {
        if code.len() < best.len() {
            best = code;
        }
    };
    rotated(rt, value).into_iter().for_each(&mut offer);
    // The low half put into the high one.
    if value >> 32 == value & 0xffff_ffff
        && let Some(mut code) = small(rt, value as i32 as i64 as u64)
    {
        code.push(md(RLDIMI, rt, rt, 32, 0));
        offer(code);
    }
    // One or two quarters by themselves at the end.
    for (opcode, shift) in [(ORI, 0), (ORIS, 16)] {
        let quarter = (value >> shift) as u32 & 0xffff;
        let rest = value & !(0xffff << shift);
        if quarter == 0 || rest == 0 {
            continue;
        }
        let insn = d(opcode, rt, rt, quarter);
        let mut code =
            small(rt, rest).or_else(|| rotated(rt, rest)).unwrap_or_else(|| in_halves(rt, rest));
        code.push(insn);
        offer(code);
        let other = (value >> (16 - shift)) as u32 & 0xffff;
        let rest = value & !0xffff_ffff;
        if let Some(mut code) = rotated(rt, rest).filter(|_| other != 0) {
            code.push(insn);
            code.push(d(if opcode == ORI { ORIS } else { ORI }, rt, rt, other));
            offer(code);
        }
    }
    best
}

/// The upper half, shifted, and the lower one in quarters.
fn in_halves(rt: u32, value: u64) -> Vec<u32> {
    let upper = (value >> 32) as i32 as i64 as u64;
    let mut code = small(rt, upper).unwrap_or_default();
    code.push(md(RLDICR, rt, rt, 32, 31));
    for (opcode, shift) in [(ORIS, 16), (ORI, 0)] {
        let quarter = (value >> shift) as u32 & 0xffff;
        if quarter != 0 {
            code.push(d(opcode, rt, rt, quarter));
        }
    }
    code
}

/// A constant of which only the lower 32 bits matter.
fn constant32(rt: u32, value: u64) -> Vec<u32> {
    constant(rt, value as u32 as i32 as i64 as u64)
}

/// `addis` and `addi`, if they are enough.
fn add_immediates(rt: u32, base: u64, bits: u32) -> Option<Vec<u32>> {
    let signed = if bits == 32 { i64::from(base as u32 as i32) } else { base as i64 };
    let low = signed as i16;
    let high = signed.wrapping_sub(i64::from(low)) >> 16;
    // Of 32 bits a carry out of the upper half is nobody's.
    let high = if bits == 32 { i64::from(high as i16) } else { high };
    i16::try_from(high).ok()?;
    let mut code = Vec::new();
    if high != 0 {
        code.push(d(ADDIS, rt, rt, high as u32));
    }
    if low != 0 {
        code.push(d(ADDI, rt, rt, low as u32));
    }
    Some(code)
}

struct Out<'a> {
    code: Vec<u32>,
    format: &'a Format,
    bases: Bases,
    plan: &'a Plan,
    little: bool,
    /// R0 holds zero.
    zero: bool,
}

impl Out<'_> {
    fn put(&mut self, word: u32) {
        self.code.push(word);
    }

    fn load_windows(&mut self) {
        for (n, byte) in self.plan.windows.iter().enumerate() {
            self.code.push(d(LD, WINDOWS + n as u32, KEY, *byte));
        }
    }

    /// The bits of a field in the value's register, nothing above them as far as the store goes.
    fn extract(&mut self, source: Source, bits: u32, room: u32) {
        match source {
            Source::Narrow(byte) => self.put(match bits {
                8 => d(LBZ, VALUE, KEY, byte),
                16 => d(LHZ, VALUE, KEY, byte),
                32 => d(LWZ, VALUE, KEY, byte),
                _ => d(LD, VALUE, KEY, byte),
            }),
            Source::Window { window, shift } => {
                let from = WINDOWS + window as u32;
                self.put(md(RLDICL, from, VALUE, (64 - shift) % 64, 64 - bits));
            }
            Source::Across { window, shift } => {
                let low = WINDOWS + window as u32;
                self.put(md(RLDICL, low, VALUE, 64 - shift, shift));
                // What lies above the field stays if the store leaves it out.
                let mask = if bits == room { 0 } else { 64 - bits };
                self.put(md(RLDIMI, low + 1, VALUE, 64 - shift, mask));
            }
        }
    }

    /// VALUE += SCRATCH.
    fn sum(&mut self) {
        self.put(31 << 26 | VALUE << 21 | VALUE << 16 | SCRATCH << 11 | 266 << 1);
    }

    fn zero(&mut self) -> u32 {
        if !self.zero {
            self.put(d(ADDI, 0, 0, 0));
            self.zero = true;
        }
        0
    }

    /// The value of a field in a register.
    fn value(&mut self, index: usize) -> u32 {
        let (Some(field), Some(spec)) = (self.format.fields().get(index), FIELDS.get(index)) else {
            return 0;
        };
        let offset = 8 * index as u32;
        let source = self.plan.sources.get(index).copied().flatten();
        match (self.bases, source) {
            (Bases::Immediate, None) if field.base == 0 => return self.zero(),
            (Bases::Immediate, None) if spec.bits == 32 => {
                self.code.extend(constant32(VALUE, field.base));
            }
            (Bases::Immediate, None) => self.code.extend(constant(VALUE, field.base)),
            (Bases::Immediate, Some(source)) => {
                self.extract(source, field.bits, spec.bits);
                match add_immediates(VALUE, field.base, spec.bits) {
                    Some(adds) => self.code.extend(adds),
                    None => {
                        self.code.extend(constant(SCRATCH, field.base));
                        self.sum();
                    }
                }
            }
            (Bases::Table, None) => self.put(d(LD, VALUE, TABLE, offset)),
            (Bases::Table, Some(source)) => {
                self.extract(source, field.bits, spec.bits);
                self.put(d(LD, SCRATCH, TABLE, offset));
                self.sum();
            }
        }
        VALUE
    }

    fn store(&mut self, bits: u32, offset: u32, value: u32) {
        self.put(d(if bits == 64 { STD } else { STW }, value, DESTINATION, offset));
    }

    /// The value of a field that no key changes.
    fn fixed(&self, index: usize) -> Option<u64> {
        let field = self.format.fields().get(index)?;
        (self.bases == Bases::Immediate && field.bits == 0).then_some(field.base)
    }

    /// Two neighbouring constants of 32 bits as one of 64, if that is shorter.
    fn joined(&self, low: usize, high: usize) -> Option<u64> {
        let (a, b) = (self.fixed(low)?, self.fixed(high)?);
        // The first zero has to be made.
        let zero = usize::from(!self.zero);
        let length = |v: u64| match v {
            0 => zero,
            _ => constant32(VALUE, v).len(),
        };
        let both = if self.little { b << 32 | a } else { a << 32 | b };
        let joined = if both == 0 { zero } else { constant(VALUE, both).len() };
        (joined < length(a) + length(b) + 1).then_some(both)
    }

    fn header(&mut self) {
        let from = match self.plan.windows.first() {
            Some(0) => WINDOWS,
            _ => {
                self.put(d(LWZ, VALUE, KEY, if self.little { 0 } else { 4 }));
                VALUE
            }
        };
        self.put(d(ADDI, VALUE, from, self.format.header_addend()));
        // Keep 24 bits.
        self.put(md(RLDICL, VALUE, VALUE, 0, 40));
        self.store(32, 0, VALUE);
    }

    fn stores(&mut self) {
        self.header();
        let mut index = 0;
        // By ascending addresses: version_lo 5, version_hi 4, size 3, snapshot 2, offset, inode.
        let order = [5, 4, 3, 2, 1, 0];
        while let Some(field) = order.get(index).copied() {
            let Some(spec) = FIELDS.get(field) else { break };
            let next = order.get(index + 1).copied().filter(|_| matches!(field, 4 | 3));
            let next = next.filter(|n| FIELDS.get(*n).is_some_and(|s| s.bits == 32));
            // Where three lie in a row the pair that gains more goes together.
            if let Some(both) = next.and_then(|n| self.joined(field, n))
                && (field != 4 || self.joined(3, 2) != Some(0) || both == 0)
            {
                let value = if both == 0 {
                    self.zero()
                } else {
                    self.code.extend(constant(VALUE, both));
                    VALUE
                };
                self.store(64, spec.offset, value);
                index += 2;
                continue;
            }
            let value = self.value(field);
            self.store(spec.bits, spec.offset, value);
            index += 1;
        }
    }
}

pub(crate) fn compile(format: &Format, bases: Bases, little: bool) -> Vec<u32> {
    let loads = Loads { grain: if little { 4 } else { 8 }, little, wide_grain: 4 };
    let one = |plan: &Plan| {
        let mut out = Out { code: Vec::new(), format, bases, plan, little, zero: false };
        out.load_windows();
        out.stores();
        // blr
        out.put(0x4e80_0020);
        out.code
    };
    plans(format, loads).iter().map(one).min_by_key(Vec::len).unwrap_or_default()
}
