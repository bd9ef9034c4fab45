//! An account of every line of a log.
//!
//! Each line is exactly one of: used, understood but not needed, not understood, notice of lost
//! events, comment. The counts add up to the number of lines ([`Accounting::adds_up`]); the first
//! few lines of the kinds that matter to a reader are kept with their numbers.

use std::fmt;

/// How many lines of a kind are kept as examples.
pub const EXAMPLES: usize = 5;

/// Examples are cut to this many bytes.
pub const EXAMPLE_BYTES: usize = 200;

/// What became of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Something was made of it.
    Used,
    /// Understood, and nothing in it is needed.
    NotNeeded,
    /// Not understood, for this reason.
    NotUnderstood(Reason),
    /// The log says that events are missing here. `None`: it does not say how many.
    Lost(Option<u64>),
    /// The header says that so many events were overwritten by later ones.
    Overwritten(u64),
    /// A comment or a blank line.
    Comment,
}

/// Why a line was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It is no line of an ftrace log at all.
    NoEvent,
    /// The last line of the input has no newline: it may be cut in the middle of a number.
    Unterminated,
    /// The event's name is known, but an argument that it needs is missing or does not read as a
    /// number.
    BadArguments,
    /// The event's name is not in any table.
    UnknownEvent,
}

impl Reason {
    /// All reasons, in the order of reports.
    pub const ALL: [Reason; 4] =
        [Reason::NoEvent, Reason::Unterminated, Reason::BadArguments, Reason::UnknownEvent];

    /// Whether an event that is needed may be lost with the line.
    pub fn may_be_lost(self) -> bool {
        matches!(self, Reason::NoEvent | Reason::BadArguments)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NoEvent => "no line of an ftrace log",
            Reason::Unterminated => "the last line has no newline and may be cut",
            Reason::BadArguments => "an argument is missing or is no number",
            Reason::UnknownEvent => "an event of unknown name",
        })
    }
}

/// A kept line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Which of the files that are read as one.
    pub file: u32,
    /// Line number in it, from 1.
    pub line: u64,
    /// Its text, cut to [`EXAMPLE_BYTES`]; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Lines of one kind: how many, and the first few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many lines.
    pub lines: u64,
    /// The first [`EXAMPLES`] of them.
    pub first: Vec<Example>,
}

impl Tally {
    fn add(&mut self, (file, line): (u32, u64), text: &[u8]) {
        self.lines += 1;
        if self.first.len() < EXAMPLES {
            let cut = text.get(..EXAMPLE_BYTES).unwrap_or(text);
            self.first.push(Example {
                file,
                line,
                text: String::from_utf8_lossy(cut).into_owned(),
            });
        }
    }
}

/// The account. See the module's header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounting {
    /// All lines.
    pub lines: u64,
    /// All bytes of text, with newlines.
    pub bytes: u64,
    /// Lines that something was made of.
    pub used: u64,
    /// Lines understood and not needed.
    pub not_needed: u64,
    /// Comments and blank lines.
    pub comments: u64,
    /// Lines not understood, by reason, in the order of [`Reason::ALL`].
    pub not_understood: [Tally; 4],
    /// Notices of lost events.
    pub lost_notices: Tally,
    /// Events that the notices and the header say were lost. A notice without a number adds none:
    /// see `lost_unknown`.
    pub lost_events: u64,
    /// Of these, overwritten by later ones, as the header says.
    pub overwritten: u64,
    /// Events that the headers count and the log does not have.
    pub missing: u64,
    /// Changes of permissions of which the log has an entry and no return, or a return and no
    /// entry, with neither end of the log between.
    pub torn: u64,
    /// Notices that give no number.
    pub lost_unknown: u64,
}

impl Accounting {
    /// Counts one line, of a file and with a number in it.
    pub fn add(&mut self, class: Class, line: (u32, u64), text: &[u8]) {
        self.lines += 1;
        match class {
            Class::Used => self.used += 1,
            Class::NotNeeded => self.not_needed += 1,
            Class::Comment => self.comments += 1,
            Class::NotUnderstood(reason) => {
                if let Some(tally) = self.not_understood.get_mut(reason as usize) {
                    tally.add(line, text);
                }
            }
            Class::Overwritten(count) => {
                self.lost_notices.add(line, text);
                self.overwritten = self.overwritten.saturating_add(count);
                self.lost_events = self.lost_events.saturating_add(count);
            }
            Class::Lost(count) => {
                self.lost_notices.add(line, text);
                match count {
                    Some(n) => self.lost_events = self.lost_events.saturating_add(n),
                    None => self.lost_unknown += 1,
                }
            }
        }
    }

    /// Lines not understood, all reasons together.
    pub fn not_understood_lines(&self) -> u64 {
        self.not_understood.iter().map(|t| t.lines).sum()
    }

    /// Reasons that occurred, with their lines.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, &Tally)> {
        Reason::ALL.into_iter().zip(&self.not_understood).filter(|(_, t)| t.lines > 0)
    }

    /// Whether the counts add up to the number of lines.
    pub fn adds_up(&self) -> bool {
        let parts = self.used
            + self.not_needed
            + self.comments
            + self.not_understood_lines()
            + self.lost_notices.lines;
        parts == self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_count() {
        let mut a = Accounting::default();
        let classes = [
            Class::Used,
            Class::NotNeeded,
            Class::Comment,
            Class::Lost(Some(7)),
            Class::Lost(None),
            Class::NotUnderstood(Reason::NoEvent),
            Class::NotUnderstood(Reason::UnknownEvent),
        ];
        for (i, c) in classes.into_iter().enumerate() {
            a.add(c, (0, i as u64 + 1), b"text");
        }
        assert!(a.adds_up());
        assert_eq!((a.lines, a.used, a.not_needed, a.comments), (7, 1, 1, 1));
        assert_eq!((a.lost_notices.lines, a.lost_events, a.lost_unknown), (2, 7, 1));
        let reasons: Vec<_> = a.reasons().map(|(r, t)| (r, t.lines, t.first[0].line)).collect();
        assert_eq!(reasons, [(Reason::NoEvent, 1, 6), (Reason::UnknownEvent, 1, 7)]);
        a.used += 1;
        assert!(!a.adds_up());
    }

    #[test]
    fn reasons_index_their_own_slot() {
        for (i, r) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(r as usize, i);
        }
    }

    #[test]
    fn examples_are_few_and_short() {
        let mut a = Accounting::default();
        for i in 0..20 {
            a.add(Class::NotUnderstood(Reason::NoEvent), (0, i + 1), &[0xff; 1000]);
        }
        let t = &a.not_understood[0];
        assert_eq!((t.lines, t.first.len()), (20, EXAMPLES));
        assert_eq!(t.first[0].text.chars().count(), EXAMPLE_BYTES);
    }
}
