//! Columns before the time that were read before.
//!
//! A few tasks make most lines of a log, and what stands before the time in their lines is printed
//! the same each time: task, PID, CPU, flags. What follows from those bytes alone is kept under
//! them; the rest of the line is read anew.

use super::columns::{self, Head};
use super::{Parsed, parse};

/// Heads that are kept: a new one takes the slot of another.
const SLOTS: usize = 256;
/// Bytes that a head has at least (a task, a dash, columns for PID and CPU) and at most.
const BYTES: std::ops::RangeInclusive<usize> = 32..=48;

#[derive(Debug, Clone, Copy)]
struct Slot {
    text: [u8; *BYTES.end()],
    head: Head,
}

/// See the module's header.
#[derive(Debug, Clone)]
pub(crate) struct Heads {
    slots: Vec<Option<Slot>>,
}

impl Default for Heads {
    fn default() -> Self {
        Self { slots: vec![None; SLOTS] }
    }
}

/// The slot of a line: by the end of the task's name, the PID, the CPU and the flags.
fn slot(line: &[u8]) -> Option<usize> {
    let (words, behind) = line.get(8..)?.split_first_chunk::<24>()?;
    let word = |at: usize| {
        let bytes = words.get(at..at + 8).and_then(|w| w.try_into().ok()).unwrap_or_default();
        u64::from_le_bytes(bytes)
    };
    let last = u64::from(u32::from_le_bytes(*behind.first_chunk()?));
    let mixed = (word(0) ^ word(8).rotate_left(17) ^ word(16).rotate_left(34) ^ last << 9)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Some((mixed >> (u64::BITS - SLOTS.ilog2())) as usize)
}

impl Heads {
    /// As [`parse`].
    #[inline]
    pub(crate) fn parse<'a>(&mut self, line: &'a [u8]) -> Parsed<'a> {
        let slot = slot(line).and_then(|slot| self.slots.get_mut(slot));
        match slot {
            Some(Some(Slot { text, head }))
                if line.get(..head.length) == text.get(..head.length) =>
            {
                columns::behind(head, line).map_or_else(|| parse(line), Parsed::Event)
            }
            Some(slot) => Self::read(slot, line),
            None => parse(line),
        }
    }

    /// Reads a line whose head is not in its slot, and puts it there.
    fn read<'a>(slot: &mut Option<Slot>, line: &'a [u8]) -> Parsed<'a> {
        let parsed = parse(line);
        if matches!(parsed, Parsed::Event(_))
            && let Some(head) = columns::head(line)
            && head.flags.is_some()
            && BYTES.contains(&head.length)
            && let Some(bytes) = line.get(..head.length)
        {
            let mut text = [0; *BYTES.end()];
            if let Some(text) = text.get_mut(..head.length) {
                text.copy_from_slice(bytes);
            }
            *slot = Some(Slot { text, head });
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
