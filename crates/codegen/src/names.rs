//! Names of formats, functions and data, as scenarios say them.
//!
//! `bkey_a` and `bkey_b` have the same widths and other bases, so that the code of one run on a key
//! of the other gives values that are wrong and look right. `bkey_N` with a number is
//! [`Format::seeded`]. Behind the format's name: nothing for its function, `_pregenerated` for the
//! function whose bases come from a table, `_key` for a packed key that holds [`SAMPLE`] (as far as
//! the format can), `_table` for the bases.

use textbed_arch::Arch;

use crate::format::ones;
use crate::{Bases, CompileError, Field, Format, compile};

/// What the key of a built-in format holds, in the order of [`crate::FIELDS`].
pub const SAMPLE: [u64; 6] = [4134, 1_250_629, 4_294_967_291, 8, 0, 77];

/// What names there are, for messages.
pub const NAMES_HELP: &str =
    "bkey_a, bkey_b or bkey_NUMBER, then nothing, _pregenerated, _key or _table";

fn format(name: &str) -> Option<Format> {
    let fields = |inode, offset| {
        let f = |bits, base| Field { bits, base };
        [f(8, inode), f(24, offset), f(8, 0xffff_ff00), f(16, 0), f(0, 0), f(24, 0)]
    };
    match name {
        "a" => Format::new(fields(4096, 0x10_0000)).ok(),
        "b" => Format::new(fields(4000, 0x11_0000)).ok(),
        number => number.parse().ok().map(Format::seeded),
    }
}

/// The bytes that a name stands for on an architecture; `None` for a name that is none.
#[must_use]
pub fn made(arch: Arch, name: &str) -> Option<Result<Vec<u8>, CompileError>> {
    let rest = name.strip_prefix("bkey_")?;
    let (name, what) = rest.split_once('_').unwrap_or((rest, ""));
    let format = format(name)?;
    let data = |words: &[u64]| -> Vec<u8> {
        let order = |w: &u64| match arch.is_little_endian() {
            true => w.to_le_bytes(),
            false => w.to_be_bytes(),
        };
        words.iter().flat_map(order).collect()
    };
    Some(match what {
        "" => compile(arch, &format, Bases::Immediate),
        "pregenerated" => compile(arch, &format, Bases::Table),
        "table" => Ok(data(&format.fields().map(|f| f.base))),
        "key" => {
            let mut values = SAMPLE;
            for (value, f) in values.iter_mut().zip(format.fields()) {
                *value = (*value).clamp(f.base, f.base + ones(f.bits));
            }
            Ok(data(&format.pack(1, &values)?))
        }
        _ => return None,
    })
}
