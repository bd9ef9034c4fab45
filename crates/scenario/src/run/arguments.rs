//! Arguments: from what a scenario says to what the kernel's parameters take.
//!
//! A parameter that counts pages takes `512 pages` as 512, and refuses a number in bytes; anything
//! else takes it in bytes. An error value is passed on as its bits, as C code would.

use textbed_arch::Arch;
use textbed_kernel::{Arg as KernelArg, CallError, CallSpec, ParamKind};

use super::preflight::{arg_span, code_bytes, diagnostic};
use super::world::Stop;
use crate::span::Span;
use crate::syntax::ast::{Arg, Atom, Call, Expr, Product, Radix, Unit};
use crate::value::{self, Environment, Value};

/// The argument that an error is about, or the call's name.
pub(super) fn place_of_argument(spec: &CallSpec, call: &Call, error: &CallError) -> Span {
    let wrong = match error {
        CallError::Arguments { param, .. } => spec.params.iter().position(|p| p.name == param),
        _ => None,
    };
    wrong.and_then(|index| call.args.get(index)).and_then(arg_span).unwrap_or(call.name.span)
}

/// An argument that is a number or an address; an error value as the bits that C would pass.
pub(super) fn plain(arg: &Arg, env: &dyn Environment, span: Span) -> Result<u64, Stop> {
    match arg {
        Arg::Expr(expr) => Ok(value::expr(expr, env)?.bits()),
        other => {
            let span = arg_span(other).unwrap_or(span);
            let message = "a number or an address has to stand here".to_owned();
            Err(Stop::Input(diagnostic(message, span, "not a number", None)))
        }
    }
}

/// An argument in the form that the kernel takes.
pub(super) fn lower(
    spec: &CallSpec,
    index: usize,
    arg: &Arg,
    env: &dyn Environment,
    arch: Arch,
) -> Result<KernelArg, Stop> {
    let kind = spec.params.get(index).map(|param| param.kind);
    match arg {
        Arg::Expr(expr) if kind == Some(ParamKind::Pages) => {
            if let Some(span) = sized(expr) {
                let message = format!("`{}` counts pages here, not bytes", spec.name);
                let help = Some("write `512 pages`, or just the number".to_owned());
                return Err(Stop::Input(diagnostic(message, span, "bytes", help)));
            }
            let counted = InPages(env);
            Ok(KernelArg::Value(value::expr(expr, &counted)?.bits()))
        }
        Arg::Expr(expr) => match written_bytes(expr) {
            Some(bytes) if kind == Some(ParamKind::Code) && arch == Arch::X86_64 => {
                Ok(KernelArg::Code(bytes))
            }
            _ => Ok(KernelArg::Value(value::expr(expr, env)?.bits())),
        },
        Arg::Flags(names) => {
            Ok(KernelArg::Flags(names.iter().map(|name| name.value.clone()).collect()))
        }
        Arg::Code(_) | Arg::Jit(_) => bytes(arch, arg).map(KernelArg::Code),
    }
}

/// The bytes of `code(NAME)` or `jit(NAME)`.
pub(super) fn bytes(arch: Arch, arg: &Arg) -> Result<Vec<u8>, Stop> {
    match code_bytes(arch, arg) {
        Some(bytes) => bytes.map_err(Stop::Input),
        None => {
            let message = "`code(NAME)` or `jit(NAME)` has to stand here".to_owned();
            let span = arg_span(arg).unwrap_or_default();
            Err(Stop::Input(diagnostic(message, span, "not code", None)))
        }
    }
}

/// The bytes of a hexadecimal number that stands alone, in order and as many as are written.
fn written_bytes(expr: &Expr) -> Option<Vec<u8>> {
    let alone = expr.rest.is_empty() && expr.first.rest.is_empty();
    match expr.first.first.value {
        Atom::Int { value, radix: Radix::Hexadecimal(digits), unit: Unit::One } if alone => {
            let zeros = 8usize.saturating_sub(usize::from(digits).div_ceil(2));
            value.to_be_bytes().get(zeros..).map(<[u8]>::to_vec)
        }
        _ => None,
    }
}

/// The first number in an expression that has a unit of bytes.
fn sized(expr: &Expr) -> Option<Span> {
    let products = std::iter::once(&expr.first).chain(expr.rest.iter().map(|(_, p)| p));
    let mut atoms = products.flat_map(Product::factors);
    atoms.find_map(|atom| match &atom.value {
        Atom::Int { unit: Unit::Kibi | Unit::Mebi | Unit::Gibi, .. } => Some(atom.span),
        Atom::Paren(inner) => sized(inner),
        _ => None,
    })
}

/// Where `512 pages` is 512.
struct InPages<'a>(&'a dyn Environment);

impl Environment for InPages<'_> {
    fn variable(&self, name: &str) -> Option<Value> {
        self.0.variable(name)
    }

    fn page_bytes(&self) -> u64 {
        1
    }
}
