//! Searches in the short pieces of a line: eight bytes at a time.
//!
//! `memchr` is made for long texts; most of what is looked for in a line is a few bytes away.

/// As many bytes as one word has.
const WORD: usize = 8;

/// The same byte in all places of a word.
const fn all(byte: u8) -> u64 {
    u64::from_le_bytes([byte; WORD])
}

/// A word whose lowest marked byte is where the word has `byte` first; none if it has it nowhere.
const fn marks(word: u64, byte: u8) -> u64 {
    let zeros = word ^ all(byte);
    zeros.wrapping_sub(all(1)) & !zeros & all(0x80)
}

/// The place that a mark stands for.
const fn place(marks: u64) -> usize {
    (marks.trailing_zeros() / u8::BITS) as usize
}

/// Where either byte is first.
#[inline]
pub(crate) fn either(text: &[u8], a: u8, b: u8) -> Option<usize> {
    let mut at = 0;
    let mut rest = text;
    while let Some((word, behind)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        let found = marks(word, a) | marks(word, b);
        if found != 0 {
            return Some(at + place(found));
        }
        at += WORD;
        rest = behind;
    }
    rest.iter().position(|c| *c == a || *c == b).map(|behind| at + behind)
}

/// Where the byte is first.
#[inline]
pub(crate) fn byte(text: &[u8], wanted: u8) -> Option<usize> {
    either(text, wanted, wanted)
}

/// What is behind the spaces in front, and behind other white space that follows them.
#[inline]
pub(crate) fn trimmed(text: &[u8]) -> &[u8] {
    if text.first().is_some_and(u8::is_ascii_graphic) {
        return text;
    }
    let spaces = match text.first_chunk() {
        Some(word) => place(u64::from_le_bytes(*word) ^ all(b' ')),
        None => 0,
    };
    text.get(spaces..).unwrap_or_default().trim_ascii_start()
}

/// Decimal digits at the front, and what is behind them. `None` where there are none or where they
/// do not fit.
#[inline]
pub(crate) fn digits(text: &[u8]) -> (Option<u64>, &[u8]) {
    if let Some(word) = text.first_chunk() {
        let digits = u64::from_le_bytes(*word) ^ all(b'0');
        // A byte above 9 gets its highest bit, or had it; a carry changes only those behind.
        let others = (digits | digits.wrapping_add(all(0x76))) & all(0x80);
        let count = place(others);
        if count == 0 {
            return (None, text);
        }
        if others != 0 {
            let value = eight_digits(digits << (u64::BITS as usize - WORD * count));
            return (Some(value), text.get(count..).unwrap_or_default());
        }
    }
    let length = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(length);
    let value = number
        .iter()
        .try_fold(0u64, |value, c| value.checked_mul(10)?.checked_add(u64::from(c - b'0')));
    (value.filter(|_| length > 0), rest)
}

/// Of `.` with six digits and `:`, the number of the digits.
#[inline]
pub(crate) fn six_decimals(text: [u8; WORD]) -> Option<u64> {
    let [b'.', .., b':'] = text else { return None };
    // The digits alone, and two zeros before them.
    let digits = (u64::from_le_bytes(text) ^ all(b'0')) >> 8 << 16;
    // As in `digits`.
    let others = (digits | digits.wrapping_add(all(0x76))) & all(0x80);
    (others == 0).then(|| eight_digits(digits))
}

/// The number of eight digits, the first in the lowest byte: pairs, fours, all.
const fn eight_digits(digits: u64) -> u64 {
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = pairs & 0x0000_00ff_0000_00ff;
    let high = (pairs >> 16) & 0x0000_00ff_0000_00ff;
    let low = low.wrapping_mul(100 + (1_000_000 << 32));
    let high = high.wrapping_mul(1 + (10_000 << 32));
    low.wrapping_add(high) >> 32
}

/// The number of eight hexadecimal digits, the first in the lowest byte; none if one is no digit.
pub(crate) fn hexadecimal(text: u64) -> Option<u64> {
    // Letters have bit 6, and stand 9 above the digit that their low bits are.
    let letters = (text >> 6) & all(1);
    let digits = (text & all(0x0f)).wrapping_add(letters * 9);
    // Back to text, in the case that it had: what is then otherwise was no digit.
    let above = (digits.wrapping_add(all(6)) >> 4) & all(1);
    let upper = all(b'0').wrapping_add(digits).wrapping_add(above * 7);
    let lower_case = (text & all(0x20)) & (letters << 5);
    if upper | lower_case != text || digits & all(0xf0) != 0 {
        return None;
    }
    // Pairs, fours, all.
    let pairs = (digits << 4 | digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs << 8 | pairs >> 16) & 0x0000_ffff_0000_ffff;
    Some((fours << 16 | fours >> 32) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_byte_by_byte(text in "[ 0-9:=a\u{e9}\t]{0,40}", padding in "[0-9 ]{0,24}") {
            let text = (padding + &text).into_bytes();
            let simple = |a: u8, b: u8| text.iter().position(|c| *c == a || *c == b);
            prop_assert_eq!(either(&text, b'=', b' '), simple(b'=', b' '));
            prop_assert_eq!(byte(&text, 0xa9), simple(0xa9, 0xa9));
            prop_assert_eq!(trimmed(&text), text.trim_ascii_start());
            let length = text.iter().take_while(|c| c.is_ascii_digit()).count();
            let number = std::str::from_utf8(&text[..length]).unwrap().parse::<u64>().ok();
            prop_assert_eq!(digits(&text), (number, &text[length..]));
        }
    }

    proptest! {
        #[test]
        fn hexadecimal_as_byte_by_byte(
            digits in "[0-9a-fA-F]{8}", other in any::<u8>(), at in 0usize..8,
        ) {
            let mut text: [u8; 8] = digits.as_bytes().try_into().unwrap();
            let wanted = u64::from_str_radix(&digits, 16).ok();
            prop_assert_eq!(hexadecimal(u64::from_le_bytes(text)), wanted);
            text[at] = other;
            let digits = text.iter().map(|c| char::from(*c).to_digit(16));
            let wanted = digits.collect::<Option<Vec<_>>>();
            let wanted = wanted.map(|all| all.iter().fold(0, |v, d| v << 4 | u64::from(*d)));
            prop_assert_eq!(hexadecimal(u64::from_le_bytes(text)), wanted);
        }
    }

    proptest! {
        #[test]
        fn six_decimals_as_byte_by_byte(
            digits in "[0-9]{6}", other in any::<u8>(), at in 0usize..8,
        ) {
            let mut text: [u8; 8] = format!(".{digits}:").into_bytes().try_into().unwrap();
            prop_assert_eq!(six_decimals(text), digits.parse().ok());
            text[at] = other;
            let wanted = std::str::from_utf8(&text).ok().and_then(|text| {
                let digits = text.strip_prefix('.')?.strip_suffix(':')?;
                digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok())?
            });
            prop_assert_eq!(six_decimals(text), wanted);
        }
    }

    #[test]
    fn numbers_of_any_length() {
        for text in ["", "7", "12345678", "1234567", "18446744073709551615", "18446744073709551616"]
        {
            for behind in ["", "x", ":        ", "/0x10 "] {
                let whole = format!("{text}{behind}");
                let wanted = (text.parse().ok(), behind.as_bytes());
                assert_eq!(digits(whole.as_bytes()), wanted, "{whole}");
            }
        }
    }
}
