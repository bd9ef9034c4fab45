//! Values, and the arithmetic of expressions and conditions.
//!
//! A value is a 64-bit number, or the error that a call returned. Sums and products are checked: a
//! result that doesn't fit 64 bits, or is below zero, is an error with its place, and so is any
//! arithmetic with an error in it. Comparisons are those of mathematics, so an error (`-EINVAL`) is
//! less than every number.

use std::fmt;

use thiserror::Error;

use crate::diagnostic::{Diagnostic, Severity};
use crate::errno;
use crate::span::{Span, Spanned};
use crate::syntax::ast::{Atom, CmpOp, Cond, Expr, MulOp, Product, SumOp, Unit};

/// A number of 64 bits, or an error between -4095 and -1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(i128);

impl Value {
    /// A number.
    pub fn number(value: u64) -> Self {
        Value(i128::from(value))
    }

    /// What a kernel call returned: from -4095 to -1 an error, else a number or an address (whose
    /// upper half is negative as `i64`). The kernel tells them apart in the same way
    /// (`IS_ERR_VALUE`).
    pub fn returned(value: i64) -> Self {
        if (-i64::from(errno::MAX_ERRNO)..0).contains(&value) {
            Value(i128::from(value))
        } else {
            Value::number(value.cast_unsigned())
        }
    }

    /// The error with this number, 1 to 4095; `None` for others.
    pub fn error(number: u16) -> Option<Self> {
        (1..=errno::MAX_ERRNO).contains(&number).then(|| Value(-i128::from(number)))
    }

    /// The number, unless it is an error.
    pub fn as_number(self) -> Option<u64> {
        u64::try_from(self.0).ok()
    }

    /// The 64 bits that C passes on: the number, or the error as a two's complement.
    pub fn bits(self) -> u64 {
        self.as_number().unwrap_or_else(|| u64::MAX - u64::from(self.errno().unwrap_or(1)) + 1)
    }

    /// The error's number, if it is one.
    pub fn errno(self) -> Option<u16> {
        if self.0 < 0 { u16::try_from(-self.0).ok() } else { None }
    }
}

impl fmt::Display for Value {
    /// Small numbers in decimal, others in hexadecimal; errors by name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.as_number(), self.errno()) {
            (Some(number), _) if number < 0x10000 => write!(f, "{number}"),
            (Some(number), _) => write!(f, "{number:#x}"),
            (None, Some(errno)) => match errno::name(errno) {
                Some(name) => write!(f, "-{name}"),
                None => write!(f, "-{errno}"),
            },
            (None, None) => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct EvalError {
    /// What is wrong.
    pub kind: EvalErrorKind,
    /// The part of the expression that it is about.
    pub span: Span,
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvalErrorKind {
    /// No variable of that name has a value here.
    #[error("`{name}` has no value here")]
    Undefined {
        /// The name.
        name: String,
    },
    /// The result is above 2^64 - 1.
    #[error("{left} {op} {right} is larger than 64 bits can hold")]
    Overflow {
        /// Left operand.
        left: u64,
        /// As it is written.
        op: &'static str,
        /// Right operand.
        right: u64,
    },
    /// The result is below zero.
    #[error("{left} - {right} is below zero")]
    BelowZero {
        /// Left operand.
        left: u64,
        /// Right operand.
        right: u64,
    },
    /// A division by zero.
    #[error("{left} divided by 0")]
    ByZero {
        /// Left operand.
        left: u64,
    },
    /// An error where a number is needed.
    #[error("{value} is an error, not a number to calculate with")]
    NotANumber {
        /// The error.
        value: Value,
    },
    /// A name of an error that nobody knows.
    #[error("`{name}` is no error's name")]
    UnknownErrno {
        /// The name.
        name: String,
    },
}

impl EvalError {
    /// The same in the shape that all messages have.
    pub fn diagnostic(&self) -> Diagnostic {
        let label = match self.kind {
            EvalErrorKind::Undefined { .. } => "no value",
            EvalErrorKind::Overflow { .. } => "too large",
            EvalErrorKind::BelowZero { .. } => "below zero",
            EvalErrorKind::ByZero { .. } => "zero",
            EvalErrorKind::NotANumber { .. } => "an error",
            EvalErrorKind::UnknownErrno { .. } => "unknown",
        };
        Diagnostic {
            severity: Severity::Error,
            message: self.to_string(),
            span: self.span,
            label: label.to_owned(),
            related: Vec::new(),
            help: None,
        }
    }
}

/// What an expression's names and units stand for.
pub trait Environment {
    /// The value of a variable, if it has one.
    fn variable(&self, name: &str) -> Option<Value>;

    /// The size of a base page, in bytes: what `pages` multiplies by.
    fn page_bytes(&self) -> u64;
}

/// The value of an expression.
pub fn expr(expr: &Expr, env: &dyn Environment) -> Result<Value, EvalError> {
    let mut value = product(&expr.first, env)?;
    let mut so_far = expr.first.span();
    for (op, right) in &expr.rest {
        let right_value = number(product(right, env)?, right.span())?;
        let left = number(value, so_far)?;
        so_far = so_far.to(right.span());
        let (result, kind) = match op {
            SumOp::Add => (
                left.checked_add(right_value),
                EvalErrorKind::Overflow { left, op: "+", right: right_value },
            ),
            SumOp::Sub => (
                left.checked_sub(right_value),
                EvalErrorKind::BelowZero { left, right: right_value },
            ),
            SumOp::Or | SumOp::Xor => {
                let xor = *op == SumOp::Xor;
                let bits = if xor { left ^ right_value } else { left | right_value };
                value = Value::number(bits);
                continue;
            }
        };
        value = Value::number(result.ok_or(EvalError { kind, span: so_far })?);
    }
    Ok(value)
}

/// Whether a condition holds.
pub fn cond(cond: &Cond, env: &dyn Environment) -> Result<bool, EvalError> {
    let (left, right) = sides(cond, env)?;
    Ok(match cond.op.value {
        CmpOp::Eq => left == right,
        CmpOp::Ne => left != right,
        CmpOp::Lt => left < right,
        CmpOp::Le => left <= right,
        CmpOp::Gt => left > right,
        CmpOp::Ge => left >= right,
    })
}

/// The values of a condition's two sides, for messages.
pub fn sides(cond: &Cond, env: &dyn Environment) -> Result<(Value, Value), EvalError> {
    Ok((expr(&cond.left, env)?, expr(&cond.right, env)?))
}

fn product(product: &Product, env: &dyn Environment) -> Result<Value, EvalError> {
    let mut value = atom(&product.first, env)?;
    let mut so_far = product.first.span;
    for (op, factor) in &product.rest {
        let right = number(atom(factor, env)?, factor.span)?;
        let left = number(value, so_far)?;
        so_far = so_far.to(factor.span);
        let divided = |result: Option<u64>, span| {
            result.ok_or(EvalError { kind: EvalErrorKind::ByZero { left }, span })
        };
        value = Value::number(match op {
            MulOp::Mul => multiply(left, right, so_far)?,
            MulOp::Div => divided(left.checked_div(right), so_far)?,
            MulOp::Rem => divided(left.checked_rem(right), so_far)?,
            MulOp::And => left & right,
            MulOp::Shl => shifted(left, right, so_far)?,
            MulOp::Shr => {
                u32::try_from(right).ok().and_then(|by| left.checked_shr(by)).unwrap_or(0)
            }
        });
    }
    Ok(value)
}

fn atom(atom: &Spanned<Atom>, env: &dyn Environment) -> Result<Value, EvalError> {
    let span = atom.span;
    match &atom.value {
        Atom::Int { value, unit, .. } => {
            let unit = match unit {
                Unit::One => 1,
                Unit::Kibi => 1 << 10,
                Unit::Mebi => 1 << 20,
                Unit::Gibi => 1 << 30,
                Unit::Pages => env.page_bytes(),
            };
            multiply(*value, unit, span).map(Value::number)
        }
        Atom::Name(name) => env.variable(name).ok_or_else(|| EvalError {
            kind: EvalErrorKind::Undefined { name: name.clone() },
            span,
        }),
        Atom::Errno(name) => errno::number(name).and_then(Value::error).ok_or_else(|| EvalError {
            kind: EvalErrorKind::UnknownErrno { name: name.clone() },
            span,
        }),
        Atom::Paren(inner) => expr(inner, env),
    }
}

fn number(value: Value, span: Span) -> Result<u64, EvalError> {
    value.as_number().ok_or(EvalError { kind: EvalErrorKind::NotANumber { value }, span })
}

/// Bits that would fall out at the upper end are an overflow.
fn shifted(left: u64, right: u64, span: Span) -> Result<u64, EvalError> {
    let result = u32::try_from(right).ok().and_then(|by| left.checked_shl(by).map(|r| (r, by)));
    let whole = result.filter(|(result, by)| result >> by == left).map(|(result, _)| result);
    let whole = whole.or((left == 0).then_some(0));
    whole.ok_or(EvalError { kind: EvalErrorKind::Overflow { left, op: "<<", right }, span })
}

fn multiply(left: u64, right: u64, span: Span) -> Result<u64, EvalError> {
    let kind = EvalErrorKind::Overflow { left, op: "*", right };
    left.checked_mul(right).ok_or(EvalError { kind, span })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::syntax::ast::{Block, StmtKind};

    struct Env;

    impl Environment for Env {
        fn variable(&self, name: &str) -> Option<Value> {
            match name {
                "seven" => Some(Value::number(7)),
                "top" => Some(Value::number(u64::MAX)),
                "failed" => Value::error(22),
                _ => None,
            }
        }

        fn page_bytes(&self) -> u64 {
            4096
        }
    }

    fn eval(source: &str) -> Result<Value, (String, String)> {
        let text = format!("scenario \"s\"\ncpu 0 {{ publish p = {source} }}");
        let file = crate::syntax::parse(&text).unwrap();
        let Block::Cpu { body, .. } = &file.blocks[0].value else { panic!() };
        let StmtKind::Publish { value, .. } = &body[0].value.kind else { panic!() };
        expr(value, &Env).map_err(|e| (e.to_string(), e.span.text(&text).to_owned()))
    }

    fn holds(source: &str) -> bool {
        let text = format!("scenario \"s\"\ncpu 0 {{ assert {source} }}");
        let file = crate::syntax::parse(&text).unwrap();
        let Block::Cpu { body, .. } = &file.blocks[0].value else { panic!() };
        let StmtKind::Assert(c) = &body[0].value.kind else { panic!() };
        cond(c, &Env).unwrap()
    }

    #[test]
    fn units_and_precedence() {
        let number = |source| eval(source).unwrap().as_number().unwrap();
        assert_eq!(number("2M"), 2 << 20);
        assert_eq!(number("3G + 1K"), (3 << 30) + 1024);
        assert_eq!(number("512 pages"), 2 << 20);
        assert_eq!(number("0x10K"), 16384);
        assert_eq!(number("20 - 2 * 3 - 4"), 10);
        assert_eq!(number("20 - (2 * 3 - 4)"), 18);
        assert_eq!(number("seven * seven"), 49);
        assert_eq!(number("top - 1 + 1"), u64::MAX);
    }

    #[test]
    fn errors_point_at_what_overflowed() {
        let at = |source| eval(source).unwrap_err().1;
        assert_eq!(at("1 + top + 5"), "1 + top");
        assert_eq!(at("5 + 2 * top"), "2 * top");
        assert_eq!(at("1 + 18446744073709551615K"), "18446744073709551615K");
        assert_eq!(at("9 - 3 - seven"), "9 - 3 - seven");
        assert_eq!(at("9 + nobody"), "nobody");
        assert_eq!(at("9 + (failed)"), "(failed)");
        assert_eq!(at("failed * 2"), "failed");
        assert_eq!(at("-EBANANA"), "-EBANANA");
        assert_eq!(eval("3 - 4").unwrap_err().0, "3 - 4 is below zero");
        let said = eval("failed + 1").unwrap_err().0;
        assert_eq!(said, "-EINVAL is an error, not a number to calculate with");
    }

    #[test]
    fn errors_compare_below_numbers() {
        for yes in
            ["failed == -EINVAL", "failed < 0", "failed != top", "-ENOMEM > failed", "7 >= seven"]
        {
            assert!(holds(yes), "{yes}");
        }
        for no in ["top < 0", "failed >= 0", "0 != 0", "seven <= 6", "7 > seven", "7 < seven"] {
            assert!(!holds(no), "{no}");
        }
    }

    #[test]
    fn what_calls_return() {
        assert_eq!(Value::returned(-22), Value::error(22).unwrap());
        assert_eq!(Value::returned(-4095).errno(), Some(4095));
        assert_eq!(Value::returned(-4096).as_number(), Some(u64::MAX - 4095));
        assert_eq!(Value::returned(0).as_number(), Some(0));
        assert_eq!(Value::returned(-12).bits(), (-12i64).cast_unsigned());
        assert_eq!(Value::number(7).bits(), 7);
        assert_eq!(Value::error(0), None);
        assert_eq!(Value::error(4096), None);
        assert_eq!(Value::returned(-12).to_string(), "-ENOMEM");
        assert_eq!(Value::returned(-4000).to_string(), "-4000");
    }

    proptest! {
        /// The flat evaluation against 128-bit arithmetic with the usual precedence.
        #[test]
        fn sums_of_products_agree_with_wide_arithmetic(
            terms in prop::collection::vec((any::<bool>(), 0..1u64 << 33, 0..1u64 << 33), 1..6),
        ) {
            let mut source = String::new();
            let mut wanted: Option<i128> = Some(0);
            for (i, (minus, a, b)) in terms.iter().enumerate() {
                let minus = *minus && i > 0;
                if i > 0 {
                    source += if minus { " - " } else { " + " };
                }
                source += &format!("{a} * {b}");
                let term = i128::from(*a) * i128::from(*b);
                let fits = |v: i128| u64::try_from(v).is_ok().then_some(v);
                wanted = wanted
                    .and_then(|w| Some(if minus { w - fits(term)? } else { w + fits(term)? }))
                    .and_then(fits);
            }
            let got = eval(&source).ok().and_then(Value::as_number).map(i128::from);
            prop_assert_eq!(got, wanted, "{}", source);
        }
    }
}
