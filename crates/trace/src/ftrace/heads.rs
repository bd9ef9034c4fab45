//! Columns before the time that were read before.
//!
//! A few tasks make most lines of a log, and what stands before the time in their lines is printed
//! the same each time: task, PID, CPU, flags. The rest of the line is read anew.

use super::columns::{self, Head};
use super::{Parsed, parse};
use crate::memo::{self, Memo};

/// Bytes that a head has at least: a task, a dash, columns for PID and CPU. The hash looks at them.
const LEAST: usize = 32;

/// See the module's header.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heads {
    known: Memo<Head>,
}

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
            Some(head) => columns::behind(&head, line).map_or_else(|| parse(line), Parsed::Event),
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

    proptest! {
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
