//! Reads statements and the bodies that hold them.

use winnow::stream::Stream;

use super::ast::*;
use super::error::SyntaxErrorKind;
use super::expr::{arg, args_in_parentheses, call, cond, expr};
use super::lex::*;
use crate::span::{Span, Spanned};

/// Words that begin a block or a header and therefore no statement.
const BLOCKS: [&str; 5] = ["setup", "cpu", "handler", "expect", "scenario"];

/// `body = '{' {stmt} '}'`
pub(super) fn body(input: &mut Input<'_>) -> Result<Body> {
    blanks(input)?;
    let open = Span::new(at(input), at(input) + 1);
    symbol(input, "{", "`{`")?;
    deeper(input, |input| {
        let mut body = Vec::new();
        loop {
            empty_lines(input)?;
            if skip(input, "}")? {
                return Ok(body);
            }
            if rest(input).is_empty() {
                return fail(SyntaxErrorKind::UnclosedBrace, open);
            }
            let start = at(input);
            let stmt = statement(input)?;
            body.push(Spanned::new(stmt, since(input, start)));
            end_of_statement(input, true)?;
        }
    })
}

fn statement(input: &mut Input<'_>) -> Result<Stmt> {
    let label = label(input)?;
    let kind = match peek_word(input)? {
        "publish" => {
            keyword(input, "publish", "`publish`")?;
            let name = variable(input, "the name to publish")?;
            symbol(input, "=", "`=`")?;
            StmtKind::Publish { name, value: expr(input)? }
        }
        "await" => {
            keyword(input, "await", "`await`")?;
            StmtKind::Await(variable(input, "the name to wait for")?)
        }
        "assert" => {
            keyword(input, "assert", "`assert`")?;
            StmtKind::Assert(cond(input)?)
        }
        "if" => if_else(input)?,
        "repeat" => {
            keyword(input, "repeat", "`repeat`")?;
            let count = count(input, "how often")?;
            blanks(input)?;
            let var = match peek_word(input)? {
                "as" => {
                    keyword(input, "as", "`as`")?;
                    Some(variable(input, "the name of the counter")?)
                }
                "" => None,
                _ => return unexpected(input, &["`as`", "`{`"]),
            };
            StmtKind::Repeat { count, var, body: body(input)? }
        }
        "when" => {
            keyword(input, "when", "`when`")?;
            let arches = arches(input)?;
            StmtKind::When { arches, body: body(input)? }
        }
        "op" => op(input)?,
        "with" => {
            keyword(input, "with", "`with`")?;
            let context = context(input)?;
            StmtKind::With { context, body: body(input)? }
        }
        "ipi" => ipi(input)?,
        "try" => {
            keyword(input, "try", "`try`")?;
            call_or_assignment(input, true)?
        }
        "else" => {
            return unexpected_hint(
                input,
                &["a statement"],
                "`else` stands on the line of the `}` that ends the `if`",
            );
        }
        _ => call_or_assignment(input, false)?,
    };
    Ok(Stmt { label, kind })
}

/// `NAME ':'`, if the statement begins with it.
fn label(input: &mut Input<'_>) -> Result<Option<Name>> {
    let word = peek_word(input)?;
    let after = rest(input).get(word.len()..).unwrap_or("").trim_start_matches([' ', '\t']);
    if word.is_empty() || !after.starts_with(':') {
        return Ok(None);
    }
    let label = variable(input, "a label")?;
    symbol(input, ":", "`:`")?;
    Ok(Some(label))
}

/// `[NAME '='] call`, after `try` or not.
fn call_or_assignment(input: &mut Input<'_>, propagate: bool) -> Result<StmtKind> {
    let word = peek_word(input)?;
    let after = rest(input).get(word.len()..).unwrap_or("").trim_start_matches([' ', '\t']);
    let assigns = after.starts_with('=') && !after.starts_with("==");
    if word.is_empty() || !(assigns || after.starts_with('(')) {
        return not_a_statement(input, word, propagate);
    }
    let assign = if assigns {
        let name = variable(input, "a variable")?;
        symbol(input, "=", "`=`")?;
        Some(name)
    } else {
        None
    };
    Ok(StmtKind::Call { propagate, assign, call: call(input)? })
}

fn not_a_statement<T>(input: &mut Input<'_>, word: &str, after_try: bool) -> Result<T> {
    if after_try {
        return unexpected(input, &["a call"]);
    }
    if BLOCKS.contains(&word) {
        return unexpected_hint(
            input,
            &["a statement"],
            "blocks do not nest: is a `}` missing before this line?",
        );
    }
    let words: Vec<&'static str> = RESERVED.into_iter().filter(|word| *word != "else").collect();
    let nearest = crate::suggest::nearest(word, words);
    if let Some(nearest) = nearest {
        let span = Span::new(at(input), at(input) + word.len());
        let kind = SyntaxErrorKind::Unexpected {
            expected: vec!["a statement"],
            found: format!("`{word}`"),
            nearest: Some(nearest),
            hint: None,
        };
        return fail(kind, span);
    }
    if word.is_empty() {
        return unexpected(input, &["a statement"]);
    }
    let before = input.checkpoint();
    variable(input, "a statement")?;
    blanks(input)?;
    if rest(input).starts_with(['\n', '#']) || rest(input).is_empty() {
        return unexpected(input, &["`(` after the name of a call", "`=`", "`:`"]);
    }
    input.reset(&before);
    unexpected_hint(
        input,
        &["a statement"],
        "a name begins a call `f(…)`, an assignment `r = f(…)` or a label `here:`",
    )
}

fn if_else(input: &mut Input<'_>) -> Result<StmtKind> {
    keyword(input, "if", "`if`")?;
    let cond = cond(input)?;
    let then = body(input)?;
    if !skip_word(input, "else")? {
        return Ok(StmtKind::If { cond, then, otherwise: None });
    }
    if peek_word(input)? == "if" {
        return unexpected_hint(input, &["`{`"], "write `else { if … { … } }`");
    }
    Ok(StmtKind::If { cond, then, otherwise: Some(body(input)?) })
}

/// `ARCH {',' ARCH}`
pub(super) fn arches(input: &mut Input<'_>) -> Result<Vec<Name>> {
    let mut arches = Vec::new();
    loop {
        arches.push(word_with(input, &['-'], "an architecture")?);
        if !next_in_list(input)? {
            return Ok(arches);
        }
    }
}

/// Whether a comma follows; if so, skips it.
pub(super) fn next_in_list(input: &mut Input<'_>) -> Result<bool> {
    skip(input, ",")
}

/// `'op' OPNAME [args]`, with the operands in parentheses or bare.
fn op(input: &mut Input<'_>) -> Result<StmtKind> {
    keyword(input, "op", "`op`")?;
    let op = word_with(input, &['.'], "an instruction")?;
    if rest(input).starts_with('(') {
        symbol(input, "(", "`(`")?;
        return Ok(StmtKind::Op { op, args: args_in_parentheses(input)? });
    }
    blanks(input)?;
    if rest(input).is_empty() || rest(input).starts_with(['\n', '#', '}']) {
        return Ok(StmtKind::Op { op, args: Vec::new() });
    }
    let mut args = vec![arg(input)?];
    while next_in_list(input)? {
        args.push(arg(input)?);
    }
    Ok(StmtKind::Op { op, args })
}

fn context(input: &mut Input<'_>) -> Result<Spanned<Context>> {
    let word = peek_word(input)?;
    let start = at(input);
    let context = match word {
        "irqs_off" => skip_word(input, "irqs_off").map(|_| Context::IrqsOff)?,
        "stop_machine" => skip_word(input, "stop_machine").map(|_| Context::StopMachine)?,
        "rcu" => skip_word(input, "rcu").map(|_| Context::Rcu)?,
        "idle" => skip_word(input, "idle").map(|_| Context::Idle)?,
        "polling_idle" => skip_word(input, "polling_idle").map(|_| Context::PollingIdle)?,
        "lock" => {
            keyword(input, "lock", "`lock`")?;
            Context::Lock(name(input, "the lock's name")?)
        }
        "mm" => {
            keyword(input, "mm", "`mm`")?;
            Context::Mm(name(input, "the address space's name")?)
        }
        "patch" => {
            keyword(input, "patch", "`patch`")?;
            symbol(input, "(", "`(`")?;
            let addr = expr(input)?;
            symbol(input, ",", "`,`")?;
            let len = expr(input)?;
            symbol(input, ")", "`)`")?;
            Context::Patch { addr, len }
        }
        _ => {
            let known = [
                "`irqs_off`",
                "`lock`",
                "`mm`",
                "`stop_machine`",
                "`rcu`",
                "`idle`",
                "`polling_idle`",
                "`patch`",
            ];
            return unexpected(input, &known);
        }
    };
    Ok(Spanned::new(context, since(input, start)))
}

/// `'ipi' CPUS NAME`; CPUS is `all`, `others`, or numbers with commas.
fn ipi(input: &mut Input<'_>) -> Result<StmtKind> {
    keyword(input, "ipi", "`ipi`")?;
    let word = peek_word(input)?;
    let start = at(input);
    let targets = match word {
        "all" => skip_word(input, "all").map(|_| Targets::All)?,
        "others" => skip_word(input, "others").map(|_| Targets::Others)?,
        _ => {
            if !digit_ahead(input)? {
                return unexpected(input, &["CPU numbers", "`all`", "`others`"]);
            }
            let mut cpus = vec![count(input, "a CPU number")?];
            while next_in_list(input)? {
                cpus.push(count(input, "a CPU number")?);
            }
            Targets::Cpus(cpus)
        }
    };
    let targets = Spanned::new(targets, since(input, start));
    let handler = variable(input, "the handler's name")?;
    Ok(StmtKind::Ipi { targets, handler })
}
