//! Expressions and arguments of scenarios that are written in Rust.

use std::ops::{Add, Mul, Sub};

use super::{at, name};
use crate::syntax::ast::{self, Arg, Atom, MulOp, Product, Radix, SumOp, Unit};

/// An expression: a number, a variable (`"name".into()`), or a sum or product of such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr(pub(super) ast::Expr);

/// An argument: an expression, [`flags`], [`code`] or [`jit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument(pub(super) Arg);

fn atom(atom: Atom) -> Expr {
    Expr(ast::Expr { first: Product { first: at(atom), rest: Vec::new() }, rest: Vec::new() })
}

fn int(value: u64, unit: Unit) -> Expr {
    atom(Atom::Int { value, radix: Radix::Decimal, unit })
}

/// `N pages`
pub fn pages(count: u64) -> Expr {
    int(count, Unit::Pages)
}

/// `NK`
pub fn kib(count: u64) -> Expr {
    int(count, Unit::Kibi)
}

/// `NM`
pub fn mib(count: u64) -> Expr {
    int(count, Unit::Mebi)
}

/// `NG`
pub fn gib(count: u64) -> Expr {
    int(count, Unit::Gibi)
}

/// `-ENAME`
pub fn errno(error: impl Into<String>) -> Expr {
    atom(Atom::Errno(error.into()))
}

/// `A | B`
pub fn flags(names: &[&str]) -> Argument {
    Argument(Arg::Flags(names.iter().map(|flag| name(*flag)).collect()))
}

/// `code(NAME)`
pub fn code(routine: impl Into<String>) -> Argument {
    Argument(Arg::Code(name(routine)))
}

/// `jit(NAME)`
pub fn jit(program: impl Into<String>) -> Argument {
    Argument(Arg::Jit(name(program)))
}

impl From<u64> for Expr {
    fn from(value: u64) -> Self {
        int(value, Unit::One)
    }
}

impl From<&str> for Expr {
    fn from(variable: &str) -> Self {
        atom(Atom::Name(variable.to_owned()))
    }
}

impl<T: Into<Expr>> From<T> for Argument {
    fn from(expr: T) -> Self {
        Argument(Arg::Expr(expr.into().0))
    }
}

/// The expression as a summand: a sum gets parentheses if anything follows or precedes it.
fn product(expr: ast::Expr) -> Product {
    if expr.rest.is_empty() { expr.first } else { parenthesised(expr) }
}

fn parenthesised(expr: ast::Expr) -> Product {
    Product { first: at(Atom::Paren(Box::new(expr))), rest: Vec::new() }
}

fn sum(left: Expr, op: SumOp, right: Expr) -> Expr {
    let mut left = left.0;
    left.rest.push((op, product(right.0)));
    Expr(left)
}

impl<T: Into<Expr>> Add<T> for Expr {
    type Output = Expr;

    fn add(self, right: T) -> Expr {
        sum(self, SumOp::Add, right.into())
    }
}

impl<T: Into<Expr>> Sub<T> for Expr {
    type Output = Expr;

    fn sub(self, right: T) -> Expr {
        sum(self, SumOp::Sub, right.into())
    }
}

impl<T: Into<Expr>> Mul<T> for Expr {
    type Output = Expr;

    fn mul(self, right: T) -> Expr {
        let mut left = product(self.0);
        let right = right.into().0;
        let single = right.rest.is_empty() && right.first.rest.is_empty();
        let factor = if single { right.first } else { parenthesised(right) };
        left.rest.push((MulOp::Mul, factor.first));
        Expr(ast::Expr { first: left, rest: Vec::new() })
    }
}
