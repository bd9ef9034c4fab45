//! Assembly text to A64 words: the instructions that litmus tests of instruction fetch are made of.
//!
//! System operations and barriers take their encoding from the instruction table.

use textbed_arch::Arch;
use textbed_arch::insn::{self, Pattern};

use crate::error::Problem;

/// Condition codes in the order of their numbers (Arm ARM C1.2.4).
const CONDITIONS: [&str; 16] = [
    "eq", "ne", "cs", "cc", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le", "al", "nv",
];

/// What a name stands for at the instruction that uses it.
pub(crate) type Labels<'a> = &'a dyn Fn(&str) -> Option<u64>;

/// An instruction's text, split.
struct Text<'a> {
    whole: &'a str,
    operands: Vec<String>,
    pc: u64,
    labels: Labels<'a>,
}

/// A register operand: number and whether it is 64 bits wide.
type Register = (u32, bool);

/// The word of one instruction at address `pc`. A branch's operand is a label or `.+N`, `.-N`.
///
/// # Errors
/// An instruction that is not known, an operand that can't be read or is out of range, a label
/// that is nowhere.
pub fn assemble(text: &str, pc: u64, labels: Labels<'_>) -> Result<u32, Problem> {
    let text = text.trim();
    let (mnemonic, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let mnemonic = mnemonic.to_ascii_lowercase();
    let t = Text { whole: text, operands: split(rest), pc, labels };
    t.word(&mnemonic)
}

/// Operands, split at commas outside of brackets.
fn split(rest: &str) -> Vec<String> {
    let (mut out, mut depth) = (vec![String::new()], 0);
    for c in rest.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ => {}
        }
        match (c, out.last_mut()) {
            (',', _) if depth == 0 => out.push(String::new()),
            (_, Some(last)) => last.push(c),
            _ => {}
        }
    }
    let out: Vec<String> = out.iter().map(|o| o.trim().to_owned()).collect();
    if out.len() == 1 && out[0].is_empty() { Vec::new() } else { out }
}

impl Text<'_> {
    fn word(&self, mnemonic: &str) -> Result<u32, Problem> {
        if let Some(word) = self.table(mnemonic)? {
            return Ok(word);
        }
        let wide = |w: bool| u32::from(w) << 31;
        match mnemonic {
            "mov" => {
                let (d, x) = self.reg(0)?;
                if let Ok((m, _)) = self.reg(1) {
                    return Ok(0x2a00_03e0 | wide(x) | m << 16 | d);
                }
                let value = self.number(1)?;
                match (value, !value) {
                    (0..=0xffff, _) => Ok(0x5280_0000 | wide(x) | (value as u32) << 5 | d),
                    (_, 0..=0xffff) => Ok(0x1280_0000 | wide(x) | (!value as u32) << 5 | d),
                    _ => Err(self.bad(1, "a constant of 16 bits, or its complement")),
                }
            }
            "add" => self.arithmetic(0x0b00_0000, Some(0x1100_0000)),
            "adds" => self.arithmetic(0x2b00_0000, Some(0x3100_0000)),
            "sub" => self.arithmetic(0x4b00_0000, Some(0x5100_0000)),
            "subs" => self.arithmetic(0x6b00_0000, Some(0x7100_0000)),
            "and" => self.arithmetic(0x0a00_0000, None),
            "ands" => self.arithmetic(0x6a00_0000, None),
            "orr" => self.arithmetic(0x2a00_0000, None),
            "eor" => self.arithmetic(0x4a00_0000, None),
            "cmp" => self.compare(),
            "csel" | "csinc" => {
                let ((d, x), (n, _), (m, _)) = (self.reg(0)?, self.reg(1)?, self.reg(2)?);
                let base = if mnemonic == "csel" { 0x1a80_0000 } else { 0x1a80_0400 };
                Ok(base | wide(x) | m << 16 | self.condition(3)? << 12 | n << 5 | d)
            }
            "cset" => {
                let (d, x) = self.reg(0)?;
                Ok(0x1a9f_07e0 | wide(x) | (self.condition(1)? ^ 1) << 12 | d)
            }
            "ldr" | "str" => self.access(mnemonic == "ldr", None),
            "ldrb" | "strb" => self.access(mnemonic == "ldrb", Some(0)),
            "ldrh" | "strh" => self.access(mnemonic == "ldrh", Some(1)),
            "ldar" | "ldapr" | "stlr" => {
                let (t, x) = self.reg(0)?;
                let (n, _, _) = self.memory(1)?;
                let base = match mnemonic {
                    "ldar" => 0x88df_fc00,
                    "ldapr" => 0xb8bf_c000,
                    _ => 0x889f_fc00,
                };
                Ok(base | u32::from(x) << 30 | n << 5 | t)
            }
            "b" => Ok(0x1400_0000 | self.offset(0, 26)?),
            "bl" => Ok(0x9400_0000 | self.offset(0, 26)?),
            "cbz" | "cbnz" => {
                let (t, x) = self.reg(0)?;
                let base = if mnemonic == "cbz" { 0x3400_0000 } else { 0x3500_0000 };
                Ok(base | wide(x) | self.offset(1, 19)? << 5 | t)
            }
            "tbz" | "tbnz" => {
                let (t, x) = self.reg(0)?;
                let bit = self.number(1)? as u32;
                if bit > if x { 63 } else { 31 } {
                    return Err(self.bad(1, "a bit of the register"));
                }
                let base = if mnemonic == "tbz" { 0x3600_0000 } else { 0x3700_0000 };
                let offset = self.offset(2, 14)? << 5;
                Ok(base | (bit >> 5) << 31 | (bit & 31) << 19 | offset | t)
            }
            "br" => Ok(0xd61f_0000 | self.reg(0)?.0 << 5),
            "blr" => Ok(0xd63f_0000 | self.reg(0)?.0 << 5),
            "ret" if self.operands.is_empty() => Ok(0xd65f_03c0),
            "ret" => Ok(0xd65f_0000 | self.reg(0)?.0 << 5),
            "adr" => {
                let (d, _) = self.reg(0)?;
                let offset = self.distance(1)?;
                if !(-(1 << 20)..1 << 20).contains(&offset) {
                    return Err(self.bad(1, "too far away"));
                }
                let low = (offset as u32 & 3) << 29;
                Ok(0x1000_0000 | low | ((offset >> 2) as u32 & 0x7_ffff) << 5 | d)
            }
            "msr" if self.operand(0)?.eq_ignore_ascii_case("elr_el1") => {
                Ok(0xd518_4020 | self.reg(1)?.0)
            }
            _ => match mnemonic.strip_prefix("b.") {
                Some(cond) => {
                    let number = CONDITIONS.iter().position(|c| *c == cond);
                    let Some(number) = number else { return Err(self.unknown()) };
                    Ok(0x5400_0000 | self.offset(0, 19)? << 5 | number as u32)
                }
                None => Err(self.unknown()),
            },
        }
    }

    /// Instructions whose name, or name and first operand, is a row of the table.
    fn table(&self, mnemonic: &str) -> Result<Option<u32>, Problem> {
        let first = self.operands.first().map(|o| o.to_ascii_lowercase()).unwrap_or_default();
        let value = |name: &str| match insn::by_name(Arch::Arm64, name)?.pattern {
            Pattern::Word { value, .. } => Some(value),
            _ => None,
        };
        let known = match mnemonic {
            "isb" => value("isb").map(|v| v | 0xf00),
            "nop" | "eret" => value(mnemonic),
            "dsb" | "dmb" => value(&format!("{mnemonic} {first}")),
            // `DC CVAU,X1`: the operation is the first operand, the address the second.
            "dc" | "ic" => {
                let Some(word) = value(&format!("{mnemonic} {first}")) else { return Ok(None) };
                let all = word & 31 == 31;
                Some(if all { word } else { word | self.reg(1)?.0 })
            }
            "udf" | "brk" | "svc" | "hvc" | "smc" => {
                let imm = self.number(0)?;
                if imm > 0xffff {
                    return Err(self.bad(0, "a constant of 16 bits"));
                }
                let shift = if mnemonic == "udf" { 0 } else { 5 };
                value(mnemonic).map(|v| v | (imm as u32) << shift)
            }
            _ => None,
        };
        Ok(known)
    }

    fn arithmetic(&self, by_register: u32, by_number: Option<u32>) -> Result<u32, Problem> {
        let ((d, x), (n, _)) = (self.reg(0)?, self.reg(1)?);
        self.second(by_register, by_number, (d, x), n, 2)
    }

    fn compare(&self) -> Result<u32, Problem> {
        let (n, x) = self.reg(0)?;
        self.second(0x6b00_0000, Some(0x7100_0000), (31, x), n, 1)
    }

    fn second(
        &self,
        by_register: u32,
        by_number: Option<u32>,
        (d, x): Register,
        n: u32,
        at: usize,
    ) -> Result<u32, Problem> {
        let wide = u32::from(x) << 31;
        if let Ok((m, _)) = self.reg(at) {
            return Ok(by_register | wide | m << 16 | n << 5 | d);
        }
        let value = self.number(at)?;
        match by_number {
            Some(base) if value <= 0xfff => Ok(base | wide | (value as u32) << 10 | n << 5 | d),
            Some(_) => Err(self.bad(at, "a constant of 12 bits")),
            None => Err(self.bad(at, "a register")),
        }
    }

    fn access(&self, load: bool, size: Option<u32>) -> Result<u32, Problem> {
        let (t, x) = self.reg(0)?;
        let size = size.unwrap_or(if x { 3 } else { 2 });
        let (n, index, disp) = self.memory(1)?;
        let head = size << 30 | u32::from(load) << 22 | n << 5 | t;
        if let Some((m, extended)) = index {
            return Ok(0x3820_0800 | head | m << 16 | if extended { 6 } else { 3 } << 13);
        }
        if disp & ((1 << size) - 1) != 0 || disp >> size > 0xfff {
            return Err(self.bad(1, "a multiple of the access, of 12 bits"));
        }
        Ok(0x3900_0000 | head | ((disp >> size) as u32) << 10)
    }

    /// `[Xn]`, `[Xn,#d]`, `[Xn,Xm]` or `[Xn,Wm,SXTW]`.
    #[allow(clippy::type_complexity)]
    fn memory(&self, n: usize) -> Result<(u32, Option<(u32, bool)>, u64), Problem> {
        let bad = || self.bad(n, "[Xn], [Xn,#d], [Xn,Xm] or [Xn,Wm,SXTW]");
        let inner = self.operand(n)?.strip_prefix('[').and_then(|o| o.strip_suffix(']'));
        let parts: Vec<&str> = inner.ok_or_else(bad)?.split(',').map(str::trim).collect();
        let base = |text: &str| match register(text) {
            Some((n, true)) if n != 31 => Ok(n),
            _ => Err(bad()),
        };
        match parts.as_slice() {
            [b] => Ok((base(b)?, None, 0)),
            [b, second] => match register(second) {
                Some((m, true)) => Ok((base(b)?, Some((m, false)), 0)),
                Some(_) => Err(bad()),
                None => Ok((base(b)?, None, number(second).ok_or_else(bad)?)),
            },
            [b, m, extend] if extend.eq_ignore_ascii_case("sxtw") => match register(m) {
                Some((m, false)) => Ok((base(b)?, Some((m, true)), 0)),
                _ => Err(bad()),
            },
            _ => Err(bad()),
        }
    }

    /// Distance of a label, or `.+N`.
    fn distance(&self, n: usize) -> Result<i64, Problem> {
        let name = self.operand(n)?;
        if let Some(rest) = name.strip_prefix('.') {
            let (sign, digits) = match rest.split_at_checked(1) {
                Some(("+", d)) => (1, d),
                Some(("-", d)) => (-1, d),
                _ => return Err(self.bad(n, "'.+N' or '.-N'")),
            };
            let bytes = number(digits).and_then(|v| i64::try_from(v).ok());
            return bytes.map(|v| v * sign).ok_or_else(|| self.bad(n, "a distance"));
        }
        match (self.labels)(name) {
            Some(at) => Ok(at.wrapping_sub(self.pc) as i64),
            None => Err(Problem::Label(name.to_owned(), "not defined in this thread")),
        }
    }

    /// A branch offset in words, in a field of `bits`.
    fn offset(&self, n: usize, bits: u32) -> Result<u32, Problem> {
        let words = self.distance(n)?;
        if words % 4 != 0 || !(-(1i64 << (bits + 1))..1i64 << (bits + 1)).contains(&words) {
            return Err(self.bad(n, "not a multiple of 4, or too far away"));
        }
        Ok((words >> 2) as u32 & ((1 << bits) - 1))
    }

    fn condition(&self, n: usize) -> Result<u32, Problem> {
        let name = self.operand(n)?.to_ascii_lowercase();
        let number = CONDITIONS.iter().position(|c| *c == name);
        number.map(|n| n as u32).ok_or_else(|| self.bad(n, "a condition"))
    }

    fn operand(&self, n: usize) -> Result<&str, Problem> {
        self.operands.get(n).map(String::as_str).ok_or_else(|| self.unknown())
    }

    fn reg(&self, n: usize) -> Result<Register, Problem> {
        register(self.operand(n)?).ok_or_else(|| self.bad(n, "a register, W0 to X30 or a zero"))
    }

    fn number(&self, n: usize) -> Result<u64, Problem> {
        number(self.operand(n)?).ok_or_else(|| self.bad(n, "a number"))
    }

    fn bad(&self, n: usize, why: &'static str) -> Problem {
        let operand = self.operands.get(n).cloned().unwrap_or_default();
        Problem::Operand { text: self.whole.to_owned(), operand, why }
    }

    fn unknown(&self) -> Problem {
        Problem::Instruction(self.whole.to_owned())
    }
}

/// A register by name: its number, and whether it has 64 bits.
pub(crate) fn register(name: &str) -> Option<Register> {
    let lower = name.trim().to_ascii_lowercase();
    let wide = match lower.as_bytes().first()? {
        b'x' => true,
        b'w' => false,
        _ => return None,
    };
    let rest = lower.get(1..)?;
    if rest == "zr" {
        return Some((31, wide));
    }
    if rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    rest.parse::<u32>().ok().filter(|n| *n <= 30).map(|n| (n, wide))
}

/// A number, with or without `#`; negative ones in two's complement.
pub(crate) fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_prefix('#').unwrap_or(text);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let value = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16),
        None if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse(),
        _ => return None,
    };
    value.ok().map(|v| if negative { v.wrapping_neg() } else { v })
}
