//! Parts of a line that were read before: the columns before the time, and a probe's name and
//! place.
//!
//! A few tasks make most lines of a log, and what stands before the time in their lines is printed
//! the same each time: task, PID, CPU, flags. A few dozen probes make most events, and each prints
//! its name and its place the same. The rest of the line is read anew.

use super::columns::{self, Head};
use super::{Event, Location, Parsed, parse};
use crate::memo::{self, Memo};

/// Bytes that a head has at least: a task, a dash, columns for PID and CPU. The hash looks at them.
const LEAST: usize = 32;

/// `NAME: (PLACE)`, which a space or nothing follows.
#[derive(Debug, Clone, Copy)]
struct Probe {
    name: usize,
    length: usize,
}

/// See the module's header.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heads {
    known: Memo<Head>,
    probes: Probes,
}

/// The names and places that were read.
#[derive(Debug, Clone, Default)]
struct Probes(Memo<Probe>);

/// The slot of a line: by the end of the task's name, the PID, the CPU and the flags.
fn slot(line: &[u8]) -> Option<usize> {
    let (words, behind) = line.get(8..)?.split_first_chunk::<24>()?;
    let word = |at: usize| {
        let bytes = words.get(at..at + 8).and_then(|w| w.try_into().ok()).unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    let last = u64::from(u32::from_le_bytes(*behind.first_chunk()?));
    Some(memo::hash(word(0) ^ word(8).rotate_left(17) ^ word(16).rotate_left(34) ^ last << 9))
}

impl Heads {
    /// As [`parse`].
    #[inline]
    pub(crate) fn parse<'a>(&mut self, line: &'a [u8]) -> Parsed<'a> {
        let Some(slot) = slot(line) else { return parse(line) };
        match self.known.prefix(slot, line) {
            Some(head) => columns::behind(&head, line, |text| self.probes.told(text))
                .map_or_else(|| parse(line), Parsed::Event),
            None => self.read(slot, line),
        }
    }

    /// Reads a line whose head is not known, and keeps it.
    fn read<'a>(&mut self, slot: usize, line: &'a [u8]) -> Parsed<'a> {
        let parsed = parse(line);
        if matches!(parsed, Parsed::Event(_))
            && let Some(head) = columns::head(line)
            && head.flags.is_some()
            && head.length >= LEAST
            && let Some(text) = line.get(..head.length)
        {
            self.known.keep(slot, text, head);
        }
        parsed
    }
}

impl Probes {
    /// As [`columns::told`].
    #[inline]
    fn told<'a>(&mut self, text: &'a [u8]) -> Event<'a> {
        // Names differ in their first characters, or at least in these.
        let Some(first) = text.first_chunk::<16>() else { return columns::told(text) };
        let words = u128::from_le_bytes(*first);
        let slot = memo::hash(words as u64 ^ ((words >> 64) as u64).rotate_left(23));
        if let Some(probe) = self.0.prefix(slot, text)
            && let Some((known, rest)) = text.split_at_checked(probe.length)
            && matches!(rest, [] | [b' ', ..])
            && let Some((name, [b':', b' ', body @ ..])) = text.split_at_checked(probe.name)
            && let Some(place) = known.get(probe.name + 3..probe.length - 1)
        {
            return Event::placed(name, body, (Location::At(place), rest));
        }
        let event = columns::told(text);
        if let Some((Location::At(_), rest)) = event.place
            && let name = event.name.len()
            && text.get(..name) == Some(event.name)
            && text.get(name..).is_some_and(|behind| behind.starts_with(b": ("))
        {
            let length = text.len() - rest.len();
            self.0.keep(slot, text.get(..length).unwrap_or_default(), Probe { name, length });
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lines that share most of their bytes, as those of a log do; few of them are damaged.
    fn line() -> impl Strategy<Value = String> {
        let task = prop::sample::select(vec![
            "            bash-12     ",
            "            bash-123456789 ",
            "          <idle>-0      ",
            "sixteen-columns1-77     ",
            "   a-1 [000] b-3-9      ",
            "#           bash-12     ",
            " bash-12 ",
        ]);
        let cpu = prop::sample::select(vec!["[000]", "[001]", "[0000012]", "(12) [000]", "[x]"]);
        let flags = prop::sample::select(vec![
            " ..... ",
            " d..1. ",
            " d.h1.  ",
            " .... ",
            " ",
            " ......1 ",
            " quite ",
            "  ....",
        ]);
        let time = prop::sample::select(vec![
            "   1.500000: ",
            "12.000001: ",
            " 7: ",
            " 1.5 ",
            "x",
            " 1.25:",
            "123456.000000: ",
        ]);
        let text = prop::sample::select(vec![
            "vfree: (vfree+0x4/0x90) addr=0xffff",
            "tlb_flush: pages:-1",
            "",
            "a: b",
            ": ",
        ]);
        (task, cpu, flags, time, text).prop_map(|(a, b, c, d, e)| format!("{a}{b}{c}{d}{e}"))
    }

    /// What stands behind the time, of events that differ little.
    fn told() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec!["vfree: ", "vfree:", " vfree: ", "sys:vfree: ", ""]);
        let place = prop::sample::select(vec![
            "(vfree+0x4/0x90)",
            "(vfree+0x4/0x90 <- b)",
            " (vfree+0x4/0x90)",
            "(vfree+0x4/0x9)0)",
            "(vfree+0x4/0x90",
        ]);
        let rest = prop::sample::select(vec!["", " ", " addr=0x1", "addr=0x1", ")", ") a=1"]);
        (name, place, rest).prop_map(|(a, b, c)| format!("{a}{b}{c}"))
    }

    proptest! {
        #[test]
        fn whatever_came_before_a_probe_reads_the_same(
            texts in prop::collection::vec(told(), 1..20),
        ) {
            let mut probes = Probes::default();
            for text in &texts {
                let (found, wanted) = (probes.told(text.as_bytes()), columns::told(text.as_bytes()));
                prop_assert_eq!(found, wanted, "{:?}", text);
            }
        }

        #[test]
        fn whatever_came_before_a_line_reads_the_same(
            lines in prop::collection::vec(line(), 1..80),
        ) {
            let mut heads = Heads::default();
            for line in &lines {
                prop_assert_eq!(heads.parse(line.as_bytes()), parse(line.as_bytes()), "{}", line);
            }
        }
    }
}
