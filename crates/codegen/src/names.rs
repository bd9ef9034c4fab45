//! Names of formats, functions and data, as scenarios say them.
//!
//! `bkey_a` and `bkey_b` have the same widths and other bases, so that the code of one run on a key
//! of the other gives values that are wrong and look right. `bkey_N` with a number is
//! [`Format::seeded`]. Behind the format's name: nothing for its function, or one of [`PARTS`].

use textbed_arch::Arch;

use crate::format::ones;
use crate::{Bases, CompileError, Field, Format, compile};

/// What the key of a built-in format holds, in the order of [`crate::FIELDS`], as far as the format
/// can hold it.
pub const SAMPLE: [u64; 6] = [4134, 1_250_629, 4_294_967_291, 8, 0, 77];

/// What names there are, for messages.
pub const NAMES_HELP: &str = "bkey_a, bkey_b or bkey_NUMBER, and behind it nothing (the unpack \
                              function), _pregenerated, _table, _key or _unpacked";

/// What may stand behind a format's name, and what it is.
pub const PARTS: [(&str, &str); 5] = [
    ("", "the function that unpacks a key, bases in its instructions"),
    ("_pregenerated", "the function whose bases come from a table, its third argument"),
    ("_table", "that table: six words of 64 bits"),
    ("_key", "a packed key that holds the sample"),
    ("_unpacked", "that key as the interpreter of the format unpacks it: 40 bytes"),
];

fn format(name: &str) -> Option<Format> {
    let fields = |inode, offset| {
        let f = |bits, base| Field { bits, base };
        [f(8, inode), f(24, offset), f(8, 0xffff_ff00), f(16, 0), f(0, 0), f(24, 0)]
    };
    match name {
        "a" => Format::new(fields(4096, 0x10_0000)).ok(),
        "b" => Format::new(fields(4000, 0x11_0000)).ok(),
        number if number.bytes().all(|b| b.is_ascii_digit()) => {
            number.parse().ok().map(Format::seeded)
        }
        _ => None,
    }
}

/// Format and part of a name.
fn split(name: &str) -> Option<(Format, &'static str)> {
    let rest = name.strip_prefix("bkey_")?;
    let end = rest.find('_').unwrap_or(rest.len());
    let (name, part) = rest.split_at_checked(end)?;
    let (part, _) = PARTS.iter().find(|(known, _)| *known == part)?;
    Some((format(name)?, part))
}

/// Whether a name stands for something.
#[must_use]
pub fn is_name(name: &str) -> bool {
    split(name).is_some()
}

/// The names that have no number in them, for suggestions.
#[must_use]
pub fn known_names() -> Vec<&'static str> {
    vec![
        "bkey_a",
        "bkey_b",
        "bkey_a_pregenerated",
        "bkey_b_pregenerated",
        "bkey_a_table",
        "bkey_b_table",
        "bkey_a_key",
        "bkey_b_key",
        "bkey_a_unpacked",
        "bkey_b_unpacked",
    ]
}

/// The bytes that a name stands for on an architecture; `None` for a name that is none.
#[must_use]
pub fn made(arch: Arch, name: &str) -> Option<Result<Vec<u8>, CompileError>> {
    let (format, part) = split(name)?;
    let data = |words: &[u64]| -> Vec<u8> {
        let order = |w: &u64| match arch.is_little_endian() {
            true => w.to_le_bytes(),
            false => w.to_be_bytes(),
        };
        words.iter().flat_map(order).collect()
    };
    let key = || {
        let mut values = SAMPLE;
        for (value, f) in values.iter_mut().zip(format.fields()) {
            *value = (*value).clamp(f.base, f.base + ones(f.bits));
        }
        format.pack(1, &values)
    };
    Some(match part {
        "" => compile(arch, &format, Bases::Immediate),
        "_pregenerated" => compile(arch, &format, Bases::Table),
        "_table" => Ok(data(&format.fields().map(|f| f.base))),
        "_key" => Ok(data(&key()?)),
        _ => Ok(format.unpack(&key()?).bytes(arch).to_vec()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // test helpers

    use super::*;

    #[test]
    fn names_stand_for_what_they_say() {
        let arch = Arch::X86_64;
        for name in known_names() {
            assert!(is_name(name), "{name}");
            assert!(made(arch, name).unwrap().is_ok(), "{name}");
        }
        for format in ["bkey_a", "bkey_b", "bkey_7"] {
            for (part, _) in PARTS {
                assert!(made(arch, &format!("{format}{part}")).unwrap().is_ok(), "{format}{part}");
            }
        }
        for name in ["bkey_", "bkey_c", "bkey_a_", "bkey_a_keys", "bkey__key", "a", "bkey_+1", ""] {
            assert!(!is_name(name), "{name}");
            assert!(made(arch, name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_sample_fits_both_formats_and_they_differ() {
        for name in ["bkey_a_unpacked", "bkey_b_unpacked"] {
            for arch in [Arch::X86_64, Arch::Ppc64] {
                let bytes = made(arch, name).unwrap().unwrap();
                let inode = bytes[32..].try_into().unwrap();
                let little = arch.is_little_endian();
                let inode =
                    if little { u64::from_le_bytes(inode) } else { u64::from_be_bytes(inode) };
                assert_eq!(inode, SAMPLE[0], "{name} {arch}");
            }
        }
        let code = |name| made(Arch::X86_64, name).unwrap().unwrap();
        assert_ne!(code("bkey_a"), code("bkey_b"));
        assert_ne!(code("bkey_a_key"), code("bkey_b_key"));
        assert_eq!(code("bkey_a_pregenerated"), code("bkey_b_pregenerated"));
    }
}
