//! Reads expressions, conditions, arguments and calls.

use winnow::stream::Stream;

use super::ast::*;
use super::error::SyntaxErrorKind;
use super::lex::*;
use crate::span::{Span, Spanned};

/// `expr = product {('+'|'-'|'|'|'^') product}`; an operator on bits stands with itself alone.
pub(super) fn expr(input: &mut Input<'_>) -> Result<Expr> {
    let mut seen = None;
    let first = product(input, &mut seen)?;
    let mut rest = Vec::new();
    loop {
        let start = begin(input)?;
        let mut op = None;
        for (text, is) in SumOp::ALL {
            if op.is_none() && skip(input, text)? {
                op = Some((text, is));
            }
        }
        let Some((text, op)) = op else { return Ok(Expr { first, rest }) };
        mixes(&mut seen, (text, op.is_bitwise()), since(input, start))?;
        rest.push((op, product(input, &mut seen)?));
    }
}

/// `product = atom {('*'|'/'|'%'|'&'|'<<'|'>>') atom}`
fn product(input: &mut Input<'_>, seen: &mut Option<Seen>) -> Result<Product> {
    let first = atom(input)?;
    let mut rest = Vec::new();
    loop {
        let start = begin(input)?;
        let mut op = None;
        for (text, is) in MulOp::ALL {
            if op.is_none() && skip(input, text)? {
                op = Some((text, is));
            }
        }
        let Some((text, op)) = op else { return Ok(Product { first, rest }) };
        mixes(seen, (text, op.is_bitwise()), since(input, start))?;
        rest.push((op, atom(input)?));
    }
}

/// The first operator between two parentheses, and whether it works on bits.
type Seen = (&'static str, bool);

/// Where the next operator begins.
fn begin(input: &mut Input<'_>) -> Result<usize> {
    blanks(input)?;
    Ok(at(input))
}

/// An operator beside another one: C, Go and others do not agree on what that would mean, unless
/// both calculate or are the same.
fn mixes(seen: &mut Option<Seen>, (text, bits): Seen, span: Span) -> Result<()> {
    match *seen {
        Some((first, of_bits)) if (bits || of_bits) && first != text => {
            fail(SyntaxErrorKind::MixedOperators { first, second: text }, span)
        }
        _ => {
            *seen = Some((text, bits));
            Ok(())
        }
    }
}

fn atom(input: &mut Input<'_>) -> Result<Spanned<Atom>> {
    if digit_ahead(input)? {
        return integer(input, "a number");
    }
    let start = at(input);
    if skip(input, "(")? {
        let inner = deeper(input, |input| {
            let inner = expr(input)?;
            symbol(input, ")", "`)`")?;
            Ok(inner)
        })?;
        return Ok(Spanned::new(Atom::Paren(Box::new(inner)), since(input, start)));
    }
    if skip(input, "-")? {
        let errno = errno(input)?;
        return Ok(Spanned::new(Atom::Errno(errno.value), Span::new(start, errno.span.end)));
    }
    let before = input.checkpoint();
    if RESERVED.contains(&peek_word(input)?) {
        return unexpected(input, &["a value"]);
    }
    let name = variable(input, "a value")?;
    if rest(input).starts_with('(') {
        input.reset(&before);
        return unexpected_hint(
            input,
            &["a value"],
            "calls do not nest: keep the result in a variable first",
        );
    }
    Ok(Spanned::new(Atom::Name(name.value), name.span))
}

/// The name of an error, as in `-EINVAL` and `with ENOMEM`.
pub(super) fn errno(input: &mut Input<'_>) -> Result<Name> {
    let word = peek_word(input)?;
    if !(word.starts_with('E') && is_flag(word)) {
        return unexpected_hint(input, &["an error's name"], "as in `ENOMEM`");
    }
    name(input, "an error's name")
}

/// `cond = expr cmp expr`
pub(super) fn cond(input: &mut Input<'_>) -> Result<Cond> {
    const OPS: [(&str, CmpOp); 6] = [
        ("==", CmpOp::Eq),
        ("!=", CmpOp::Ne),
        ("<=", CmpOp::Le),
        (">=", CmpOp::Ge),
        ("<", CmpOp::Lt),
        (">", CmpOp::Gt),
    ];
    let left = expr(input)?;
    blanks(input)?;
    let start = at(input);
    for (text, op) in OPS {
        if skip(input, text)? {
            let op = Spanned::new(op, since(input, start));
            return Ok(Cond { left, op, right: expr(input)? });
        }
    }
    if rest(input).starts_with('=') {
        return unexpected_hint(input, &["a comparison"], "equality is `==`");
    }
    unexpected_hint(input, &["a comparison"], "one of `==`, `!=`, `<`, `<=`, `>`, `>=`")
}

/// `call = NAME '(' [arg {',' arg}] ')'`
pub(super) fn call(input: &mut Input<'_>) -> Result<Call> {
    blanks(input)?;
    let before = input.checkpoint();
    if peek_word(input)?.is_empty() {
        return not_a_call(input);
    }
    let mut called = name(input, "a call")?;
    let arguments = rest(input).trim_start_matches([' ', '\t']).starts_with('(');
    // Capitals before arguments are a macro of the kernel's; elsewhere they are a flag.
    if !(arguments && is_flag(&called.value)) {
        input.reset(&before);
        called = variable(input, "a call")?;
    }
    if !arguments {
        input.reset(&before);
        return not_a_call(input);
    }
    symbol(input, "(", "`(`")?;
    let args = args_in_parentheses(input)?;
    Ok(Call { name: called, args })
}

fn not_a_call<T>(input: &Input<'_>) -> Result<T> {
    unexpected_hint(
        input,
        &["a call"],
        "variables hold results of calls; `publish NAME = …` gives a value a name",
    )
}

/// The arguments after `(`, and the `)`.
pub(super) fn args_in_parentheses(input: &mut Input<'_>) -> Result<Vec<Arg>> {
    if skip(input, ")")? {
        return Ok(Vec::new());
    }
    let mut args = vec![arg(input)?];
    loop {
        if skip(input, ")")? {
            return Ok(args);
        }
        if !skip(input, ",")? {
            return unexpected(input, &["`,`", "`)`"]);
        }
        args.push(arg(input)?);
    }
}

/// `arg = expr | FLAG {'|' FLAG} | code(NAME) | jit(NAME)`
pub(super) fn arg(input: &mut Input<'_>) -> Result<Arg> {
    let word = peek_word(input)?;
    if is_flag(word) {
        return flags(input);
    }
    let before = input.checkpoint();
    if !word.is_empty() && !RESERVED.contains(&word) {
        let name = name(input, "an argument")?;
        if skip(input, "(")? {
            let content = match name.value.as_str() {
                "code" => Arg::Code as fn(Name) -> Arg,
                "jit" => Arg::Jit,
                _ => {
                    input.reset(&before);
                    return unexpected_hint(
                        input,
                        &["a value", "flags", "`code`", "`jit`"],
                        "calls do not nest: keep the result in a variable first",
                    );
                }
            };
            let inner = self::name(input, "a name")?;
            symbol(input, ")", "`)`")?;
            return Ok(content(inner));
        }
        input.reset(&before);
    }
    expr(input).map(Arg::Expr)
}

fn flags(input: &mut Input<'_>) -> Result<Arg> {
    let mut flags = Vec::new();
    loop {
        if !is_flag(peek_word(input)?) {
            return unexpected_hint(input, &["a flag"], "flags are in capitals");
        }
        flags.push(name(input, "a flag")?);
        if !skip(input, "|")? {
            break;
        }
    }
    blanks(input)?;
    if let (Some(flag), true) =
        (flags.first(), rest(input).starts_with(['+', '-', '*', '/', '%', '&', '^']))
    {
        // Reads as arithmetic: say that the name is taken for a flag.
        let kind = SyntaxErrorKind::FlagAsValue { name: flag.value.clone() };
        return fail(kind, flag.span);
    }
    Ok(Arg::Flags(flags))
}
