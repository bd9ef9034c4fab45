//! What stands behind an event's name: the place of a probe and the arguments.
//!
//! Modelled: the text forms that kprobe events and tracepoints' `TP_printk` use. Not modelled:
//! free text (`tracing_mark_write`, `trace_printk`); it yields whatever looks like an argument.

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
    let end = memchr::memchr(b')', inner)?;
    let (place, rest) = (inner.get(..end)?, inner.get(end + 1..)?);
    // Tracepoints may begin with a parenthesis too; after a probe's place stands a space.
    if !(rest.is_empty() || rest.starts_with(b" ")) {
        return None;
    }
    let location = match memchr::memmem::find(place, b" <- ") {
        Some(at) => Location::Return { to: place.get(..at)?, from: place.get(at + 4..)? },
        None => Location::At(place),
    };
    Some((location, rest))
}

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
}

impl<'a> Iterator for Args<'a> {
    type Item = Arg<'a>;

    fn next(&mut self) -> Option<Arg<'a>> {
        loop {
            self.rest = self.rest.trim_ascii_start();
            if self.rest.is_empty() {
                return None;
            }
            let word = memchr::memchr(b' ', self.rest).unwrap_or(self.rest.len());
            let token = self.rest.get(..word)?;
            let Some(equals) = memchr::memchr(b'=', token) else {
                self.rest = self.rest.get(word..)?;
                let Some(colon) = memchr::memchr(b':', token) else { continue };
                let (key, value) = (token.get(..colon)?, token.get(colon + 1..)?);
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
            let key = token.get(..equals)?;
            let after = self.rest.get(equals + 1..)?;
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
                    let end = memchr::memchr(b' ', after).unwrap_or(after.len());
                    (after.get(..end)?, end)
                }
            };
            self.rest = after.get(taken..)?;
            return Some(Arg { key, value });
        }
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
    match super::columns::digits(text) {
        (value, []) => value,
        _ => None,
    }
}

fn hexadecimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter().try_fold(0u64, |n, c| {
        let digit = match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            b'A'..=b'F' => c - b'A' + 10,
            _ => return None,
        };
        Some(n << 4 | u64::from(digit))
    })
}
