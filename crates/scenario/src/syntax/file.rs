//! Reads headers, blocks and `expect` lines.

use super::ast::*;
use super::error::SyntaxErrorKind;
use super::expr::errno;
use super::lex::*;
use super::stmt::{arches, body, next_in_list};
use crate::span::{Span, Spanned};

const HEADERS: [&str; 8] =
    ["about", "kernel", "arch", "cpus", "config", "feature", "fail", "allow"];

/// `file = 'scenario' STR NL {header NL} {block}`
pub(super) fn file(input: &mut Input<'_>) -> Result<File> {
    skip(input, "\u{feff}")?; // a byte order mark
    empty_lines(input)?;
    keyword(input, "scenario", "`scenario`")?;
    let name = string(input, "the scenario's name")?;
    end_of_statement(input, false)?;
    let mut headers = Vec::new();
    let mut blocks = Vec::new();
    loop {
        empty_lines(input)?;
        if rest(input).is_empty() {
            return Ok(File { name, headers, blocks });
        }
        let start = at(input);
        let word = peek_word(input)?;
        if HEADERS.contains(&word) {
            if !blocks.is_empty() {
                return unexpected_hint(input, &["a block"], "headers stand before the blocks");
            }
            let header = header(input, word)?;
            headers.push(Spanned::new(header, since(input, start)));
        } else {
            let block = block(input, word, blocks.is_empty())?;
            blocks.push(Spanned::new(block, since(input, start)));
        }
        end_of_statement(input, false)?;
    }
}

fn header(input: &mut Input<'_>, word: &str) -> Result<Header> {
    name(input, "a header")?;
    Ok(match word {
        "about" => Header::About(string(input, "the text")?),
        "kernel" => {
            let mut versions = vec![version(input)?];
            while next_in_list(input)? {
                versions.push(version(input)?);
            }
            Header::Kernel(versions)
        }
        "arch" => Header::Arch(arches(input)?),
        "cpus" => Header::Cpus(count(input, "how many CPUs")?),
        "config" => {
            let name = name(input, "an option's name")?;
            symbol(input, "=", "`=`")?;
            Header::Config { name, value: value_word(input)? }
        }
        "feature" => {
            let arch = word_with(input, &['-'], "an architecture")?;
            symbol(input, ".", "`.` and the feature's name")?;
            let name = name(input, "a feature's name")?;
            symbol(input, "=", "`=`")?;
            Header::Feature { arch, name, value: value_word(input)? }
        }
        "fail" => {
            let call = variable(input, "a call's name")?;
            let nth =
                if skip(input, "#")? { Some(count(input, "which of its calls")?) } else { None };
            let allocation = if skip_word(input, "allocation")? {
                Some(count(input, "which of the call's allocations")?)
            } else {
                None
            };
            if !skip_word(input, "with")? {
                let expected: &[&'static str] = match (&nth, &allocation) {
                    (_, Some(_)) => &["`with`"],
                    (Some(_), None) => &["`allocation` and a number", "`with`"],
                    (None, None) => &["`#` and a number", "`with`"],
                };
                return unexpected(input, expected);
            }
            Header::Fail { call, nth, allocation, errno: errno(input)? }
        }
        "allow" => {
            let rule = rule(input)?;
            Header::Allow { rule, reason: string(input, "the reason")? }
        }
        _ => return unexpected(input, &["a header"]),
    })
}

fn block(input: &mut Input<'_>, word: &str, headers_too: bool) -> Result<Block> {
    Ok(match word {
        "setup" => {
            keyword(input, "setup", "`setup`")?;
            Block::Setup(body(input)?)
        }
        "cpu" => {
            keyword(input, "cpu", "`cpu`")?;
            let number = count(input, "a CPU number")?;
            Block::Cpu { number, body: body(input)? }
        }
        "handler" => {
            keyword(input, "handler", "`handler`")?;
            let start = {
                blanks(input)?;
                at(input)
            };
            let kind = if skip_word(input, "ipi")? {
                HandlerKind::Ipi
            } else if skip_word(input, "trap")? {
                HandlerKind::Trap
            } else {
                return unexpected(input, &["`ipi`", "`trap`"]);
            };
            let kind = Spanned::new(kind, since(input, start));
            let name = variable(input, "the handler's name")?;
            Block::Handler { kind, name, body: body(input)? }
        }
        "expect" => {
            keyword(input, "expect", "`expect`")?;
            Block::Expect(expect(input)?)
        }
        "scenario" => {
            return unexpected_hint(input, &["a header", "a block"], "one scenario a file");
        }
        _ if rest(input).starts_with('}') => {
            return unexpected_hint(input, &["a block"], "there is no open `{` for this");
        }
        _ => return not_a_block(input, headers_too),
    })
}

fn not_a_block<T>(input: &Input<'_>, headers_too: bool) -> Result<T> {
    const BLOCKS: [&str; 4] = ["`setup`", "`cpu`", "`handler`", "`expect`"];
    const BOTH: [&str; 12] = [
        "`setup`",
        "`cpu`",
        "`handler`",
        "`expect`",
        "`about`",
        "`kernel`",
        "`arch`",
        "`cpus`",
        "`config`",
        "`feature`",
        "`fail`",
        "`allow`",
    ];
    let all = if headers_too { &BOTH[..] } else { &BLOCKS[..] };
    match unexpected::<T>(input, all) {
        Err(winnow::error::ErrMode::Cut(mut failure)) => {
            // Twelve words are no help to read; the nearest of them is.
            if let SyntaxErrorKind::Unexpected { expected, .. } = &mut failure.kind {
                *expected = if headers_too { vec!["a header", "a block"] } else { vec!["a block"] };
            }
            Err(winnow::error::ErrMode::Cut(failure))
        }
        other => other,
    }
}

/// `[sel] ':' ('none' | 'open' | 'blocked' | item {',' item})`
fn expect(input: &mut Input<'_>) -> Result<Expect> {
    let mut selectors = Vec::new();
    while !skip(input, ":")? {
        selectors.push(selector(input)?);
    }
    blanks(input)?;
    let start = at(input);
    let expected = if skip_word_alone(input, "none")? {
        Expected::None
    } else if skip_word_alone(input, "open")? {
        Expected::Open
    } else if skip_word_alone(input, "blocked")? {
        Expected::Blocked
    } else {
        let mut items = Vec::new();
        loop {
            blanks(input)?;
            let start = at(input);
            let item = item(input)?;
            items.push(Spanned::new(item, since(input, start)));
            if !next_in_list(input)? {
                break;
            }
            // A list that ends a line with a comma goes on in the next one.
            empty_lines(input)?;
        }
        Expected::Items(items)
    };
    Ok(Expect { selectors, expected: Spanned::new(expected, since(input, start)) })
}

/// Like [`skip_word`], but not if the word is the beginning of a rule's name.
fn skip_word_alone(input: &mut Input<'_>, word: &'static str) -> Result<bool> {
    blanks(input)?;
    let after = rest(input).strip_prefix(word);
    if after.is_none_or(|after| after.starts_with('-')) {
        return Ok(false);
    }
    skip_word(input, word)
}

fn selector(input: &mut Input<'_>) -> Result<Spanned<Selector>> {
    let word = peek_word(input)?;
    let start = at(input);
    let selector = match word {
        "kernel" => {
            keyword(input, "kernel", "`kernel`")?;
            let from = version(input)?;
            let to = if skip(input, "..")? { Some(version(input)?) } else { None };
            Selector::Kernel { from, to }
        }
        "reading" => {
            keyword(input, "reading", "`reading`")?;
            let word = peek_word(input)?;
            let Some(reading) = Reading::by_name(word) else {
                return unexpected(input, &["`strict`", "`mapped`", "`fresh`"]);
            };
            name(input, "a reading")?;
            Selector::Reading(reading)
        }
        "" => {
            return unexpected(input, &["an architecture", "`kernel`", "`reading`", "`:`"]);
        }
        _ => Selector::Arch(word_with(input, &['-'], "an architecture")?.value),
    };
    Ok(Spanned::new(selector, since(input, start)))
}

fn rule(input: &mut Input<'_>) -> Result<Name> {
    word_with(input, &['-'], "a rule's name")
}

/// `item = RULE ['?'] ['missing' OP] ['x'INT] ['at' LABEL]`
fn item(input: &mut Input<'_>) -> Result<Item> {
    let rule = rule(input)?;
    let possible = skip(input, "?")?;
    let mut missing = None;
    let mut count = None;
    let mut at_label = None;
    loop {
        let word = peek_word(input)?;
        let is_count = word.strip_prefix('x').is_some_and(|digits| {
            !digits.is_empty() && digits.starts_with(|c: char| c.is_ascii_digit())
        });
        match word {
            "missing" if missing.is_none() && count.is_none() && at_label.is_none() => {
                keyword(input, "missing", "`missing`")?;
                missing = Some(word_with(input, &['-', '.'], "an operation")?);
            }
            _ if is_count && count.is_none() && at_label.is_none() => {
                let start = at(input);
                skip(input, "x")?;
                let number = self::count(input, "how many")?;
                count = Some(Spanned::new(number.value, Span::new(start, number.span.end)));
            }
            "at" if at_label.is_none() => {
                keyword(input, "at", "`at`")?;
                at_label = Some(variable(input, "a label")?);
            }
            "" => {
                return Ok(Item { rule, possible, missing, count, at: at_label });
            }
            _ => {
                let after_all = ["`missing`", "`x` and a number", "`at`", "`,`"];
                let given = if at_label.is_some() {
                    3
                } else if count.is_some() {
                    2
                } else if missing.is_some() {
                    1
                } else {
                    0
                };
                return unexpected_hint(
                    input,
                    after_all.get(given..).unwrap_or(&["`,`"]),
                    "the order is: rule, `?`, `missing OP`, `xN`, `at LABEL`",
                );
            }
        }
    }
}
