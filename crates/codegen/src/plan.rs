//! Where the fields of a packed key come from on machines whose instructions are words: windows of
//! eight bytes that are loaded once and serve several fields, fields that a narrow load reads
//! whole, and fields that lie in two windows.
//!
//! [`plans`] gives a few ways; a generator compiles each and keeps the shortest. Windows lie inside
//! the key. Not done: windows of four bytes, a search over all ways.

use crate::Format;

/// Where a field's bits are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A load of exactly the field, at this byte.
    Narrow(u32),
    /// Bits of a window, from this one on.
    Window { window: usize, shift: u32 },
    /// From this bit of a window into the next one.
    Across { window: usize, shift: u32 },
}

/// One way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plan {
    /// Where windows begin, in bytes from the key's beginning, ascending.
    pub(crate) windows: Vec<u32>,
    /// For each field, in the order of [`crate::FIELDS`]; `None`: it has no bits.
    pub(crate) sources: [Option<Source>; 6],
}

/// What a machine's loads can do.
#[derive(Clone, Copy)]
pub(crate) struct Loads {
    /// Windows begin at multiples of this; 8: words of the key.
    pub(crate) grain: u32,
    /// Words lie in memory with the lowest bits first.
    pub(crate) little: bool,
    /// A load of 64 bits by itself begins at a multiple of this.
    pub(crate) wide_grain: u32,
}

/// A field's position and width.
type Bits = (u32, u32);

impl Loads {
    /// The byte at which a narrow load reads exactly these bits.
    fn narrow(self, (position, bits): Bits) -> Option<u32> {
        if !position.is_multiple_of(8) || !matches!(bits, 8 | 16 | 32 | 64) {
            return None;
        }
        let byte = if self.little {
            position / 8
        } else {
            let (word, shift) = (position / 64, position % 64);
            8 * word + 8_u32.checked_sub((shift + bits) / 8)?
        };
        (bits < 64 || byte.is_multiple_of(self.wide_grain)).then_some(byte)
    }
}

/// The window that holds all of these bits.
fn inside(windows: &[u32], (position, bits): Bits) -> Option<(usize, u32)> {
    windows.iter().enumerate().find_map(|(window, byte)| {
        let shift = position.checked_sub(8 * byte)?;
        (shift + bits <= 64).then_some((window, shift))
    })
}

/// The window in which these bits begin, if the one eight bytes on is there too.
fn across(windows: &[u32], (position, _): Bits) -> Option<(usize, u32)> {
    windows.iter().enumerate().find_map(|(window, byte)| {
        let shift = position.checked_sub(8 * byte).filter(|s| *s < 64)?;
        (windows.get(window + 1) == Some(&(byte + 8))).then_some((window, shift))
    })
}

/// A few ways to get at the fields of a format, each of them right.
pub(crate) fn plans(format: &Format, loads: Loads) -> Vec<Plan> {
    let bits = |i: usize| (format.position(i), format.fields().get(i).map_or(0, |f| f.bits));
    let mut all: Vec<Bits> = (0..6).map(bits).filter(|b| b.1 > 0).collect();
    all.sort_unstable();
    let wide: Vec<Bits> = all.iter().copied().filter(|b| loads.narrow(*b).is_none()).collect();
    let words = |b: &Bits| [8 * (b.0 / 64), 8 * ((b.0 + b.1 - 1) / 64)];

    let mut ways: Vec<Vec<u32>> = Vec::new();
    let last = 8 * format.key_words() - 8;
    // Windows for what no narrow load reads, or for all.
    for fields in [&wide, &all] {
        ways.push(fields.iter().flat_map(words).collect());
        if loads.grain == 8 {
            continue;
        }
        for first in [None, Some(0)] {
            // What no window holds needs two; then each window as far on as it may begin.
            let begins = |b: &Bits| (b.0 / 8 / loads.grain * loads.grain).min(last);
            let fits = |b: &Bits| b.0 - 8 * begins(b) + b.1 <= 64;
            let mut windows: Vec<u32> =
                fields.iter().filter(|b| !fits(b)).flat_map(words).chain(first).collect();
            for b in fields {
                if inside(&windows, *b).is_none() && fits(b) {
                    windows.push(begins(b));
                }
            }
            ways.push(windows);
        }
    }
    for windows in &mut ways {
        windows.sort_unstable();
        windows.dedup();
    }
    ways.sort_unstable();
    ways.dedup();
    ways.into_iter()
        .filter_map(|windows| {
            let mut sources = [None; 6];
            for (i, source) in sources.iter_mut().enumerate() {
                let bits = bits(i);
                if bits.1 == 0 {
                    continue;
                }
                let narrow = loads.narrow(bits).map(Source::Narrow);
                let window = || {
                    inside(&windows, bits).map(|(window, shift)| Source::Window { window, shift })
                };
                // At an end of its window a field can go straight into an addition.
                let at_end = |source: &Source| match source {
                    Source::Window { shift, .. } => *shift == 0 || shift + bits.1 == 64,
                    _ => false,
                };
                let both = || {
                    across(&windows, bits).map(|(window, shift)| Source::Across { window, shift })
                };
                let best = window().filter(at_end).or(narrow).or_else(window).or_else(both);
                *source = Some(best?);
            }
            Some(Plan { windows, sources })
        })
        .collect()
}
