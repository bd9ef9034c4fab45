//! What can be said about a scenario once architecture and version are known, before it runs: calls
//! that do not exist there, wrong numbers of arguments, guest routines that the architecture lacks.
//!
//! Calls that are known and not modelled are left to the run: what comes before them still happens.

use textbed_arch::Arch;
use textbed_kernel::{CallError, find_call};

use super::builtin;
use super::engine::is_for;
use crate::analyse;
use crate::diagnostic::{Diagnostic, Severity};
use crate::ops;
use crate::span::Span;
use crate::syntax::ast::{Arg, Body, Call, File, Name, StmtKind};
use textbed_kernel::Version;

/// All that is wrong, in the order of the text.
pub(super) fn check(file: &File, arch: Arch, version: Version) -> Result<(), Vec<Diagnostic>> {
    let mut wrong = Vec::new();
    for body in analyse::bodies(file) {
        check_body(body, arch, version, &mut wrong);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn check_body(body: &Body, arch: Arch, version: Version, wrong: &mut Vec<Diagnostic>) {
    for stmt in body {
        match &stmt.value.kind {
            StmtKind::Call { call, .. } => {
                check_call(call, arch, version, wrong);
                check_args(&call.args, arch, wrong);
            }
            StmtKind::Op { op, args } => {
                if ops::resolve(arch, &op.value).is_none() {
                    let message = format!("{arch} has no instruction `{}`", op.value);
                    wrong.push(diagnostic(message, op.span, "not here", None));
                }
                if let Some(second) = args.get(1) {
                    let message = "an instruction takes one operand at most here".to_owned();
                    let span = arg_span(second).unwrap_or(op.span);
                    wrong.push(diagnostic(message, span, "one too many", None));
                }
                check_args(args, arch, wrong);
            }
            StmtKind::When { arches, .. } if !is_for(arches, arch) => continue,
            _ => {}
        }
        for inner in stmt.value.kind.bodies() {
            check_body(inner, arch, version, wrong);
        }
    }
}

fn check_call(call: &Call, arch: Arch, version: Version, wrong: &mut Vec<Diagnostic>) {
    let name = &call.name.value;
    if let Some(built_in) = builtin::by_name(name) {
        wrong.extend(built_in.check(call));
        return;
    }
    match find_call(name, version, arch) {
        Ok(spec) if spec.params.len() != call.args.len() => {
            let params: Vec<&str> = spec.params.iter().map(|p| p.name).collect();
            let message = format!(
                "`{name}` takes {} ({}), not {}",
                arguments(params.len()),
                params.join(", "),
                call.args.len()
            );
            wrong.push(diagnostic(message, call.name.span, "wrong number of arguments", None));
        }
        Ok(_) | Err(CallError::NotModelled { .. }) => {}
        Err(error @ CallError::Absent { .. }) => {
            let help = "put it into a `when`, or leave the architecture out of `arch`".to_owned();
            wrong.push(diagnostic(error.to_string(), call.name.span, "not here", Some(help)));
        }
        Err(CallError::Unknown { suggestion, .. }) => {
            let help = suggestion.map(|s| format!("did you mean `{s}`?"));
            let message = format!("there is no call `{name}`");
            wrong.push(diagnostic(message, call.name.span, "unknown", help));
        }
        Err(error) => wrong.push(diagnostic(error.to_string(), call.name.span, "here", None)),
    }
}

fn arguments(count: usize) -> String {
    match count {
        0 => "no argument".to_owned(),
        1 => "1 argument".to_owned(),
        n => format!("{n} arguments"),
    }
}

fn check_args(args: &[Arg], arch: Arch, wrong: &mut Vec<Diagnostic>) {
    for arg in args {
        if let Some(Err(error)) = code_bytes(arch, arg) {
            wrong.push(error);
        }
    }
}

/// The bytes of `code(NAME)` or `jit(NAME)`; `None` for other arguments.
pub(super) fn code_bytes(arch: Arch, arg: &Arg) -> Option<Result<Vec<u8>, Diagnostic>> {
    let none = |message: String, name: &Name, help: Option<&str>| {
        diagnostic(message, name.span, "no such code", help.map(str::to_owned))
    };
    match arg {
        Arg::Code(name) => Some(match textbed_firmware::load(arch, &name.value) {
            Ok(routine) => Ok(routine.bytes.to_vec()),
            Err(error) => Err(none(error.to_string(), name, None)),
        }),
        Arg::Jit(name) => Some(match textbed_codegen::made(arch, &name.value) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(none(error.to_string(), name, None)),
            None => {
                let message = format!("there is no generated code `{}`", name.value);
                Err(none(message, name, Some(textbed_codegen::NAMES_HELP)))
            }
        }),
        Arg::Expr(_) | Arg::Flags(_) => None,
    }
}

pub(super) fn arg_span(arg: &Arg) -> Option<Span> {
    match arg {
        Arg::Expr(expr) => Some(expr.span()),
        Arg::Flags(names) => names.first().zip(names.last()).map(|(a, b)| a.span.to(b.span)),
        Arg::Code(name) | Arg::Jit(name) => Some(name.span),
    }
}

pub(super) fn diagnostic(
    message: String,
    span: Span,
    label: &str,
    help: Option<String>,
) -> Diagnostic {
    let severity = Severity::Error;
    Diagnostic { severity, message, span, label: label.to_owned(), related: Vec::new(), help }
}
