//! Places of probes, and pointers to functions, that were looked up before.
//!
//! Only what follows from the text alone is kept, a function of the table with an offset; what
//! symbols or the event's name tell is asked anew.

use super::{Function, Hit, Symbols, at, by_name, classify, symbol};
use crate::ftrace::{Event, Location};
use crate::memo::{self, Memo};

/// See the module's header.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    places: Memo<Hit>,
    pointers: Memo<Option<&'static Function>>,
}

/// The slot of a text: by its ends and its length.
fn slot(text: &[u8]) -> Option<usize> {
    let (first, last) = (text.first_chunk()?, text.last_chunk()?);
    let word = u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(23);
    Some(memo::hash(word ^ text.len() as u64))
}

impl Recent {
    /// As [`classify`].
    pub(crate) fn classify(&mut self, event: &Event<'_>, symbols: &Symbols) -> Hit {
        let Some(Location::At(place)) = event.location() else { return classify(event, symbols) };
        let Some(slot) = slot(place) else { return classify(event, symbols) };
        if let Some(hit) = self.places.whole(slot, place) {
            return hit;
        }
        let (name, offset) = symbol(place);
        let Some(function) = by_name(name) else { return classify(event, symbols) };
        let hit = at(function, offset);
        self.places.keep(slot, place, hit);
        hit
    }

    /// The function of the table that a printed pointer (`do_sync_core+0x0/0x30`) names.
    pub(crate) fn pointer(&mut self, text: &[u8]) -> Option<&'static Function> {
        let find = || by_name(symbol(text).0);
        let Some(slot) = slot(text) else { return find() };
        if let Some(known) = self.pointers.whole(slot, text) {
            return known;
        }
        let found = find();
        self.pointers.keep(slot, text, found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ftrace::{Parsed, parse};
    use crate::functions::all;

    #[test]
    fn whatever_came_before_a_pointer_names_the_same() {
        let mut recent = Recent::default();
        let names: Vec<_> = all().map(|f| f.name).chain(["nobody", "a.part.0", ""]).collect();
        for round in 0..3 {
            for name in &names {
                for rest in ["", "+0x0/0x30", "+0x40/0x90 [m]"] {
                    let text = format!("{name}{rest}");
                    let wanted = by_name(symbol(text.as_bytes()).0).map(|f| f.name);
                    let found = recent.pointer(text.as_bytes()).map(|f| f.name);
                    assert_eq!(found, wanted, "{round}: {text}");
                }
            }
        }
    }

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
