//! What stands behind an event's name: the place of a probe and the arguments.
//!
//! Modelled: the text forms that kprobe events and tracepoints' `TP_printk` use. Not modelled:
//! free text (`tracing_mark_write`, `trace_printk`); it yields whatever looks like an argument.

use super::scan;
use crate::calls::MAX_ARGS;

/// Where a kprobe event was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location<'a> {
    /// `(sym+0x4/0x50)`: entry (or somewhere inside) of `sym`; the offset may be that of an
    /// `endbr64` or of powerpc's local entry. The symbol's text as printed, with offset.
    At(&'a [u8]),
    /// `(caller+0x2a/0x40 <- func)`: `func` returns into `caller`.
    Return {
        /// Where it returns to, as printed.
        to: &'a [u8],
        /// The function.
        from: &'a [u8],
    },
}

/// The place in front of the arguments and what follows it.
pub(super) fn location(body: &[u8]) -> Option<(Location<'_>, &[u8])> {
    // trace-cmd pads the event's name to a column.
    let inner = body.trim_ascii_start().strip_prefix(b"(")?;
    // Few places have a `<`: only those are searched for the arrow.
    let first = memchr::memchr2(b')', b'<', inner)?;
    let plain = inner.get(first) == Some(&b')');
    let end = if plain { first } else { first + memchr::memchr(b')', inner.get(first..)?)? };
    let (place, rest) = (inner.get(..end)?, inner.get(end + 1..)?);
    // Tracepoints may begin with a parenthesis too; after a probe's place stands a space.
    if !(rest.is_empty() || rest.starts_with(b" ")) {
        return None;
    }
    let arrow = if plain { None } else { memchr::memmem::find(place, ARROW) };
    let location = match arrow {
        Some(at) => Location::Return { to: place.get(..at)?, from: place.get(at + ARROW.len()..)? },
        None => Location::At(place),
    };
    Some((location, rest))
}

/// Between where a function returns to and its name.
const ARROW: &[u8] = b" <- ";

/// One argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arg<'a> {
    /// Its name.
    pub key: &'a [u8],
    /// Its value; a string without its quotes, an array with its braces.
    pub value: &'a [u8],
}

/// The arguments of an event, in order.
#[derive(Debug, Clone)]
pub struct Args<'a> {
    rest: &'a [u8],
}

impl<'a> Args<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// The next one, if it is `key=value` behind one space; otherwise nothing is taken.
    #[inline]
    fn named(&mut self, key: &[u8]) -> Option<Arg<'a>> {
        let (b' ', text) = self.rest.split_first()? else { return None };
        let (key, after) = (text.get(..key.len()).filter(|k| *k == key)?, text.get(key.len()..)?);
        let (b'=', after) = after.split_first()? else { return None };
        self.valued(key, after)
    }

    /// The argument of which `after` is what stands behind the `=`.
    #[inline]
    fn valued(&mut self, key: &'a [u8], after: &'a [u8]) -> Option<Arg<'a>> {
        let (value, taken) = match after.first() {
            Some(b'"') => {
                let inner = after.get(1..)?;
                match memchr::memchr(b'"', inner) {
                    Some(end) => (inner.get(..end)?, end + 2),
                    None => (inner, after.len()),
                }
            }
            Some(b'{') => {
                let end = memchr::memchr(b'}', after).map_or(after.len(), |e| e + 1);
                (after.get(..end)?, end)
            }
            _ => {
                let end = scan::byte(after, b' ').unwrap_or(after.len());
                (after.get(..end)?, end)
            }
        };
        self.rest = after.get(taken..)?;
        Some(Arg { key, value })
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = Arg<'a>;

    #[inline]
    fn next(&mut self) -> Option<Arg<'a>> {
        loop {
            // Between two arguments stands one space, nearly always.
            self.rest = match self.rest {
                [b' ', after @ ..] if after.first().is_some_and(u8::is_ascii_graphic) => after,
                rest => scan::trimmed(rest),
            };
            if self.rest.is_empty() {
                return None;
            }
            // The end of the word, or the first `=` in it.
            let at = scan::either(self.rest, b'=', b' ').unwrap_or(self.rest.len());
            let (key, after) = self.rest.split_at_checked(at)?;
            let Some(after) = after.strip_prefix(b"=") else {
                self.rest = after;
                let Some(colon) = memchr::memchr(b':', key) else { continue };
                let (key, value) = (key.get(..colon)?, key.get(colon + 1..)?);
                if !value.is_empty() {
                    return Some(Arg { key, value });
                }
                // `key: value`
                self.rest = self.rest.trim_ascii_start();
                let word = memchr::memchr(b' ', self.rest).unwrap_or(self.rest.len());
                let value = self.rest.get(..word)?;
                self.rest = self.rest.get(word..)?;
                return Some(Arg { key, value });
            };
            return self.valued(key, after);
        }
    }
}

/// An event with the arguments that its function is known for, each looked for once.
///
/// They stand in their order, nearly always: each is looked for where the last one ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    event: &'a super::Event<'a>,
    wanted: &'static [&'static str],
    values: [Option<&'a [u8]>; MAX_ARGS],
}

impl<'a> Fields<'a> {
    /// Of that event, whose function has arguments called `wanted`, at most [`MAX_ARGS`].
    pub(crate) fn of(event: &'a super::Event<'a>, wanted: &'static [&'static str]) -> Self {
        let mut fields = Self { event, wanted, values: [None; MAX_ARGS] };
        let mut args = event.args();
        let mut rest = wanted;
        let mut in_order = true;
        for slot in &mut fields.values {
            let Some((key, later)) = rest.split_first() else { break };
            rest = later;
            let key = key.as_bytes();
            *slot = loop {
                if !in_order {
                    break event.arg(key);
                }
                if let Some(arg) = args.named(key) {
                    break Some(arg.value);
                }
                let Some(arg) = args.next() else { break None };
                if arg.key == key {
                    break Some(arg.value);
                }
                // One that is passed over may be the first of its name.
                in_order = !later.iter().any(|wanted| wanted.as_bytes() == arg.key);
            };
        }
        fields
    }

    /// The numbers among the arguments, in the order in which the function's are called.
    pub(crate) fn numbers(&self) -> [Option<u64>; MAX_ARGS] {
        self.values.map(|value| value.and_then(number))
    }

    /// As [`super::Event::arg`].
    #[inline]
    pub(crate) fn arg(&self, key: &[u8]) -> Option<&'a [u8]> {
        match self.wanted.iter().zip(self.values).find(|(wanted, _)| wanted.as_bytes() == key) {
            Some((_, value)) => value,
            None => self.event.arg(key),
        }
    }

    /// As [`super::Event::number`].
    #[inline]
    pub(crate) fn number(&self, key: &[u8]) -> Option<u64> {
        self.arg(key).and_then(number)
    }
}

impl<'a> std::ops::Deref for Fields<'a> {
    type Target = super::Event<'a>;

    fn deref(&self) -> &super::Event<'a> {
        self.event
    }
}

/// A number as the tracer prints it: `0x…` in hexadecimal, otherwise decimal, perhaps negative
/// (then in two's complement of 64 bits). `None` for anything else, and for what does not fit.
pub fn number(text: &[u8]) -> Option<u64> {
    if let Some(hex) = text.strip_prefix(b"0x") {
        return hexadecimal(hex);
    }
    if let Some(digits) = text.strip_prefix(b"-") {
        let value = decimal(digits)?;
        return (value <= 1 << 63).then(|| value.wrapping_neg());
    }
    decimal(text)
}

fn decimal(text: &[u8]) -> Option<u64> {
    match scan::digits(text) {
        (value, []) => value,
        _ => None,
    }
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    // Most are addresses: sixteen digits.
    if let Ok([high, low]) = text.as_chunks::<8>().0.try_into().map(|words: &[[u8; 8]; 2]| words)
        && text.len() == 16
    {
        let high = scan::hexadecimal(u64::from_le_bytes(*high))?;
        let low = scan::hexadecimal(u64::from_le_bytes(*low))?;
        return Some(high << 32 | low);
    }
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter()
        .try_fold(0u64, |value, c| Some(value << 4 | u64::from(char::from(*c).to_digit(16)?)))
}
