//! Places of probes that were looked up before.
//!
//! A log has a few dozen of them, each some thousand times, printed the same: what a place says is
//! kept under its text. Only what follows from the text alone is kept, a function of the table with
//! an offset; what symbols or the event's name tell is asked anew.

use super::{Hit, Symbols, at, by_name, classify, symbol};
use crate::ftrace::{Event, Location};

/// Places that are kept: a new one takes the slot of another.
const SLOTS: usize = 256;
/// Bytes of a place that is kept, at least and at most.
const BYTES: std::ops::RangeInclusive<usize> = 8..=56;

#[derive(Debug, Clone, Copy)]
struct Slot {
    text: [u8; *BYTES.end()],
    length: usize,
    hit: Hit,
}

/// See the module's header.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    slots: Vec<Slot>,
}

impl Default for Recent {
    fn default() -> Self {
        let none = Slot { text: [0; *BYTES.end()], length: 0, hit: Hit::Unknown };
        Self { slots: vec![none; SLOTS] }
    }
}

/// The slot of a place: by its ends and its length.
fn slot(place: &[u8]) -> Option<usize> {
    let (first, last) = (place.first_chunk()?, place.last_chunk()?);
    let word = u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(23);
    let mixed = (word ^ place.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some((mixed >> (u64::BITS - SLOTS.ilog2())) as usize)
}

impl Recent {
    /// As [`classify`].
    pub(crate) fn classify(&mut self, event: &Event<'_>, symbols: &Symbols) -> Hit {
        let Some(Location::At(place)) = event.location() else { return classify(event, symbols) };
        let known = slot(place).filter(|_| BYTES.contains(&place.len()));
        let Some(known) = known.and_then(|slot| self.slots.get_mut(slot)) else {
            return classify(event, symbols);
        };
        if known.text.get(..known.length) == Some(place) {
            return known.hit;
        }
        let (name, offset) = symbol(place);
        let Some(function) = by_name(name) else { return classify(event, symbols) };
        let hit = at(function, offset);
        if let Some(text) = known.text.get_mut(..place.len()) {
            text.copy_from_slice(place);
            (known.length, known.hit) = (place.len(), hit);
        }
        hit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ftrace::{Parsed, parse};
    use crate::functions::all;

    #[test]
    fn whatever_came_before_a_place_says_the_same() {
        let mut recent = Recent::default();
        let mut symbols = Symbols::default();
        symbols.add_probe("mine", "vmap");
        let functions: Vec<_> = all().map(|f| f.name).chain(["nobody", "a.part.0"]).collect();
        for round in 0..3 {
            for name in &functions {
                for place in ["0x4/0x90", "0x40/0x90", "0x0/0x1 [m]", "0xffff/0x10000"] {
                    for event in ["mine", "vfree", "other"] {
                        let line = format!("  a-1 [000] 1.5: {event}: ({name}+{place}) addr=0x0");
                        let Parsed::Event(e) = parse(line.as_bytes()) else { panic!("{line}") };
                        let wanted = classify(&e, &symbols);
                        let found = recent.classify(&e, &symbols);
                        assert_eq!(format!("{found:?}"), format!("{wanted:?}"), "{round}: {line}");
                    }
                }
            }
        }
    }
}
