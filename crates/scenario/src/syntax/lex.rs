//! The words of the language: names, numbers, strings, versions, blanks and ends of lines.
//!
//! There is no separate list of tokens: what a word may be depends on where it stands (`5.18-rc3`
//! after `kernel`, `missing-trap-fill` after `expect`, `#2` after `fail vmalloc`).

use winnow::ModalResult;
use winnow::Parser;
use winnow::error::{ErrMode, ParserError};
use winnow::stream::{LocatingSlice, Location, Stateful, Stream};
use winnow::token::{literal, take_while};

use super::ast::{Atom, Name, Radix, Unit};
use super::error::SyntaxErrorKind;
use crate::span::{Span, Spanned};
use crate::suggest;

/// The text that is still to be read, with its place and how deep we are in it.
pub(super) type Input<'a> = Stateful<LocatingSlice<&'a str>, State<'a>>;

/// What is carried along while reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State<'a> {
    /// The whole text.
    pub(super) text: &'a str,
    /// How many braces and parentheses are open.
    pub(super) depth: usize,
}

/// More open braces and parentheses than this are refused: reading, running and dropping a tree
/// take stack for each.
pub(super) const DEPTH_LIMIT: usize = 64;

/// An error before its line and column are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: SyntaxErrorKind,
    pub(super) span: Span,
}

pub(super) type Result<T> = ModalResult<T, Failure>;

impl<'a> ParserError<Input<'a>> for Failure {
    type Inner = Self;

    fn from_input(input: &Input<'a>) -> Self {
        unexpected_failure(input, &["something else"], None)
    }

    fn into_inner(self) -> std::result::Result<Self::Inner, Self> {
        Ok(self)
    }
}

/// Ends the reading with an error.
pub(super) fn fail<T>(kind: SyntaxErrorKind, span: Span) -> Result<T> {
    Err(ErrMode::Cut(Failure { kind, span }))
}

/// Ends the reading: one of `expected` has to stand here. Words in backquotes among them are
/// offered as "did you mean".
pub(super) fn unexpected<T>(input: &Input<'_>, expected: &[&'static str]) -> Result<T> {
    Err(ErrMode::Cut(unexpected_failure(input, expected, None)))
}

/// The same, with advice for when no word is near.
pub(super) fn unexpected_hint<T>(
    input: &Input<'_>,
    expected: &[&'static str],
    hint: &'static str,
) -> Result<T> {
    Err(ErrMode::Cut(unexpected_failure(input, expected, Some(hint))))
}

fn unexpected_failure(
    input: &Input<'_>,
    expected: &[&'static str],
    hint: Option<&'static str>,
) -> Failure {
    let rest = rest(input);
    let length = token_length(rest);
    let start = at(input);
    let token = rest.get(..length).unwrap_or("");
    let found = match rest.chars().next() {
        None => "the end of the file".to_owned(),
        Some('\n' | '\r' | '#') => "the end of the line".to_owned(),
        Some(_) => {
            let shown: String = token.chars().take(40).flat_map(char::escape_debug).collect();
            let more = if token.chars().count() > 40 { "…" } else { "" };
            format!("`{shown}{more}`")
        }
    };
    let words = expected.iter().filter_map(|e| e.strip_prefix('`')?.strip_suffix('`'));
    let nearest = suggest::nearest(token, words);
    let kind = SyntaxErrorKind::Unexpected { expected: expected.to_vec(), found, nearest, hint };
    Failure { kind, span: Span::new(start, start + length) }
}

/// The length in bytes of what a message should show as "found".
fn token_length(rest: &str) -> usize {
    let mut chars = rest.chars();
    match chars.next() {
        None | Some('\n' | '\r' | '#') => 0,
        Some('"') => {
            let line = rest.find('\n').unwrap_or(rest.len());
            let inner = rest.get(1..line).unwrap_or("");
            inner.find('"').map_or(line, |end| end + 2)
        }
        Some(c) if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
        Some(c) => c.len_utf8(),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What is still to be read.
pub(super) fn rest<'a>(input: &Input<'a>) -> &'a str {
    input.peek_finish()
}

/// Where we are, in bytes from the beginning of the file.
pub(super) fn at(input: &Input<'_>) -> usize {
    input.current_token_start()
}

/// What was read since `start`, without blanks at its end.
pub(super) fn since(input: &Input<'_>, start: usize) -> Span {
    let read = Span::new(start, at(input)).text(input.state.text);
    Span::new(start, start + read.trim_end_matches([' ', '\t', '\r']).len())
}

/// Reads as much as `accept` takes; never fails.
fn take<'a>(input: &mut Input<'a>, accept: fn(char) -> bool) -> Result<&'a str> {
    take_while(0.., accept).parse_next(input)
}

/// Skips blanks. A carriage return counts as one.
pub(super) fn blanks(input: &mut Input<'_>) -> Result<()> {
    take(input, |c| matches!(c, ' ' | '\t' | '\r')).map(|_| ())
}

/// Skips blanks and a comment.
fn blanks_and_comment(input: &mut Input<'_>) -> Result<()> {
    blanks(input)?;
    if rest(input).starts_with('#') {
        take(input, |c| c != '\n')?;
    }
    Ok(())
}

/// Skips blanks, comments and ends of lines.
pub(super) fn empty_lines(input: &mut Input<'_>) -> Result<()> {
    loop {
        blanks_and_comment(input)?;
        if !rest(input).starts_with('\n') {
            return Ok(());
        }
        take(input, |c| c == '\n')?;
    }
}

/// Reads the end of a statement: the end of its line or of the file, or a closing brace ahead.
pub(super) fn end_of_statement(input: &mut Input<'_>, in_body: bool) -> Result<()> {
    blanks(input)?;
    match rest(input).chars().next() {
        None | Some('\n' | '#') => empty_lines(input),
        Some('}') if in_body => Ok(()),
        Some(_) if in_body => unexpected(input, &["the end of the line", "`}`"]),
        Some(_) => unexpected(input, &["the end of the line"]),
    }
}

/// Whether `text` comes next after blanks; if so, skips it.
pub(super) fn skip(input: &mut Input<'_>, text: &'static str) -> Result<bool> {
    blanks(input)?;
    let found = rest(input).starts_with(text);
    if found {
        literal(text).void().parse_next(input)?;
    }
    Ok(found)
}

/// Reads `text`, which `shown` names in the message if it is not there.
pub(super) fn symbol(input: &mut Input<'_>, text: &'static str, shown: &'static str) -> Result<()> {
    if skip(input, text)? { Ok(()) } else { unexpected(input, &[shown]) }
}

/// The word that comes next after blanks, without reading it; empty if there is none.
pub(super) fn peek_word<'a>(input: &mut Input<'a>) -> Result<&'a str> {
    blanks(input)?;
    let rest = rest(input);
    let starts = rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
    Ok(if starts { rest.get(..end).unwrap_or("") } else { "" })
}

/// Whether the word `word` comes next after blanks; if so, skips it.
pub(super) fn skip_word(input: &mut Input<'_>, word: &'static str) -> Result<bool> {
    let found = peek_word(input)? == word;
    if found {
        literal(word).void().parse_next(input)?;
    }
    Ok(found)
}

/// Reads the word `word`, which `shown` is in backquotes.
pub(super) fn keyword(
    input: &mut Input<'_>,
    word: &'static str,
    shown: &'static str,
) -> Result<()> {
    if skip_word(input, word)? { Ok(()) } else { unexpected(input, &[shown]) }
}

/// Reads a word of letters, digits, underscores and whatever `more` adds, beginning with a letter
/// or an underscore; `what` names it in the message if there is none.
pub(super) fn word_with(
    input: &mut Input<'_>,
    more: &'static [char],
    what: &'static str,
) -> Result<Name> {
    blanks(input)?;
    let start = at(input);
    if !rest(input).starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return unexpected(input, &[what]);
    }
    let text: &str =
        take_while(0.., |c: char| is_name(c) || more.contains(&c)).parse_next(input)?;
    Ok(Spanned::new(text.to_owned(), Span::new(start, at(input))))
}

/// Reads a name: letters, digits and underscores.
pub(super) fn name(input: &mut Input<'_>, what: &'static str) -> Result<Name> {
    word_with(input, &[], what)
}

/// The words that can't be names of variables, labels or calls.
pub(super) const RESERVED: [&str; 11] =
    ["try", "publish", "await", "assert", "if", "else", "repeat", "when", "op", "with", "ipi"];

/// Reads the name of a variable, label or call: not a word of the language, and with a lower-case
/// letter, because names in capitals are flags.
pub(super) fn variable(input: &mut Input<'_>, what: &'static str) -> Result<Name> {
    let name = name(input, what)?;
    if RESERVED.contains(&name.value.as_str()) {
        return fail(SyntaxErrorKind::Reserved { word: name.value }, name.span);
    }
    if is_flag(&name.value) {
        return fail(SyntaxErrorKind::FlagAsValue { name: name.value }, name.span);
    }
    Ok(name)
}

/// Names in capitals are flags.
pub(super) fn is_flag(name: &str) -> bool {
    name.contains(|c: char| c.is_ascii_uppercase()) && !name.contains(|c: char| c.is_lowercase())
}

/// Reads the value of a `config` or `feature` line.
pub(super) fn value_word(input: &mut Input<'_>) -> Result<Spanned<String>> {
    blanks(input)?;
    let start = at(input);
    let text = take(input, |c| is_name(c) || matches!(c, '.' | '-' | '+' | '/'))?;
    if text.is_empty() {
        return unexpected(input, &["a value"]);
    }
    Ok(Spanned::new(text.to_owned(), Span::new(start, at(input))))
}

/// Reads a kernel version as text: a digit, then letters, digits, `_`, `+`, and single dots and
/// hyphens between those.
pub(super) fn version(input: &mut Input<'_>) -> Result<Spanned<String>> {
    blanks(input)?;
    let start = at(input);
    let rest = rest(input);
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return unexpected(input, &["a kernel version"]);
    }
    let mut length = 0usize;
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        let joined = || chars.clone().peek().is_some_and(char::is_ascii_alphanumeric);
        let belongs = is_name(c) || c == '+' || (matches!(c, '.' | '-') && joined());
        if !belongs {
            break;
        }
        length += 1; // all of them are one byte long
    }
    let text: &str = winnow::token::take(length).parse_next(input)?;
    Ok(Spanned::new(text.to_owned(), Span::new(start, at(input))))
}

/// Reads a string in double quotes.
pub(super) fn string(input: &mut Input<'_>, what: &'static str) -> Result<Spanned<String>> {
    blanks(input)?;
    let start = at(input);
    let source = rest(input);
    if !source.starts_with('"') {
        return unexpected_hint(input, &[what], "it stands in double quotes");
    }
    let mut value = String::new();
    let mut chars = source.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => {
                winnow::token::take(source.get(..=i).map_or(0, |s| s.chars().count()))
                    .void()
                    .parse_next(input)?;
                return Ok(Spanned::new(value, Span::new(start, at(input))));
            }
            '\n' => break,
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                None | Some((_, '\n')) => break,
                Some((_, escape)) => {
                    let span = Span::new(start + i, start + i + 1 + escape.len_utf8());
                    return fail(SyntaxErrorKind::UnknownEscape { escape }, span);
                }
            },
            c => value.push(c),
        }
    }
    let line = source.find('\n').unwrap_or(source.len());
    let line = source.get(..line).unwrap_or("").trim_end_matches('\r').len();
    fail(SyntaxErrorKind::UnclosedString, Span::new(start, start + line))
}

/// Whether a number comes next after blanks.
pub(super) fn digit_ahead(input: &mut Input<'_>) -> Result<bool> {
    blanks(input)?;
    Ok(rest(input).starts_with(|c: char| c.is_ascii_digit()))
}

/// Reads a number with its unit.
pub(super) fn integer(input: &mut Input<'_>, what: &'static str) -> Result<Spanned<Atom>> {
    if !digit_ahead(input)? {
        return unexpected(input, &[what]);
    }
    let start = at(input);
    let word = take(input, is_word)?;
    let mut span = Span::new(start, at(input));
    let (digits, mut unit) = match word.char_indices().next_back() {
        Some((last, 'K')) => (word.get(..last).unwrap_or(""), Unit::Kibi),
        Some((last, 'M')) => (word.get(..last).unwrap_or(""), Unit::Mebi),
        Some((last, 'G')) => (word.get(..last).unwrap_or(""), Unit::Gibi),
        _ => (word, Unit::One),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(hexadecimal) => {
            let written = u8::try_from(hexadecimal.len()).unwrap_or(u8::MAX);
            (hexadecimal, Radix::Hexadecimal(written))
        }
        None => (digits, Radix::Decimal),
    };
    let base = if radix == Radix::Decimal { 10 } else { 16 };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return fail(SyntaxErrorKind::BadNumber { word: word.to_owned() }, span);
    }
    let Ok(value) = u64::from_str_radix(digits, base) else {
        return fail(SyntaxErrorKind::NumberTooLarge { digits: word.to_owned() }, span);
    };
    if unit == Unit::One {
        let before = input.checkpoint();
        if skip_word(input, "pages")? {
            unit = Unit::Pages;
            span.end = at(input);
        } else {
            input.reset(&before);
        }
    }
    Ok(Spanned::new(Atom::Int { value, radix, unit }, span))
}

/// Reads a number without a unit.
pub(super) fn count(input: &mut Input<'_>, what: &'static str) -> Result<Spanned<u64>> {
    blanks(input)?;
    let before = input.checkpoint();
    let number = integer(input, what)?;
    match number.value {
        Atom::Int { value, unit: Unit::One, .. } => Ok(Spanned::new(value, number.span)),
        _ => {
            input.reset(&before);
            unexpected_hint(input, &[what], "no unit here")
        }
    }
}

/// Runs `inner` one level deeper.
pub(super) fn deeper<'a, T>(
    input: &mut Input<'a>,
    inner: impl FnOnce(&mut Input<'a>) -> Result<T>,
) -> Result<T> {
    if input.state.depth >= DEPTH_LIMIT {
        let here = at(input);
        return fail(
            SyntaxErrorKind::TooDeep { limit: DEPTH_LIMIT },
            Span::new(here.saturating_sub(1), here),
        );
    }
    input.state.depth += 1;
    let result = inner(input);
    input.state.depth = input.state.depth.saturating_sub(1);
    result
}
