//! Lines of a recorder that writes what each CPU's buffer holds in turn, put in order of time.
//!
//! bpftrace reads one buffer of a CPU to its end and then that of the next (recorded: 0.17, a
//! second and more out of order). A line is late by no more than what a buffer holds, so a heap of
//! so many lines gives them back in order, and memory stays bounded. Lines of equal times keep
//! their order in the file; one without a time stays behind the line that it follows. A line that
//! comes too late for that is given back at once, and counted.
//!
//! Not modelled: buffers larger than the window (bpftrace's default is 256 KiB a CPU).

use crate::foreign::Decoder;
use crate::merge::{Head, Key, key};
use crate::reader::{Line, LineReader, ReadError};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Lines that wait at most: the buffers of 64 CPUs, of some 100 bytes an event.
const WINDOW_LINES: usize = 1 << 18;
/// The same in bytes.
const WINDOW_BYTES: usize = 64 << 20;

/// Whether a log that begins with this line is of that kind: it says how many probes were attached,
/// in text or as JSON, or it is the line with which our program begins.
pub(crate) fn begins_so(line: &[u8]) -> bool {
    let text = line.trim_ascii();
    text.starts_with(b"Attach") && (text.ends_with(b"probes...") || text.ends_with(b"probes"))
        || text.starts_with(b"{\"type\"")
        || text.starts_with(b"# textbed: recorded by bpftrace")
}

#[derive(Debug)]
struct Waiting {
    /// When, and which line of the file: lines without a time have that of the one before.
    at: (Option<Key>, u64),
    head: Head,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// One file whose lines are put in order. See the module's header.
#[derive(Debug)]
pub struct Sorted {
    pub(crate) reader: LineReader,
    decoder: Decoder,
    waiting: BinaryHeap<Reverse<Waiting>>,
    bytes: usize,
    window: usize,
    last_read: Option<Key>,
    last_given: Option<Key>,
    /// Lines that came too late to be put in order.
    pub(crate) late: u64,
    done: bool,
    out: Head,
}

impl Sorted {
    /// The rest of a file of which one line was read.
    pub(crate) fn new(reader: LineReader, first: Head) -> Self {
        let mut sorted = Self {
            reader,
            decoder: Decoder::default(),
            waiting: BinaryHeap::new(),
            bytes: 0,
            window: WINDOW_LINES,
            last_read: None,
            last_given: None,
            late: 0,
            done: false,
            out: Head::default(),
        };
        sorted.take(first);
        sorted
    }

    fn take(&mut self, head: Head) {
        let time = key(&mut self.decoder, &head.bytes);
        self.last_read = time.or(self.last_read);
        self.bytes += head.bytes.len();
        let at = (self.last_read, head.number);
        self.waiting.push(Reverse(Waiting { at, head }));
    }

    pub(crate) fn next_line(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        while !self.done && self.waiting.len() < self.window && self.bytes < WINDOW_BYTES {
            match self.reader.next_line()? {
                Some(line) => {
                    let head = Head::of(&line);
                    self.take(head);
                }
                None => self.done = true,
            }
        }
        let Some(Reverse(Waiting { at: (time, _), head })) = self.waiting.pop() else {
            return Ok(None);
        };
        self.bytes = self.bytes.saturating_sub(head.bytes.len());
        self.late += u64::from(time < self.last_given);
        self.last_given = self.last_given.max(time);
        self.out = head;
        Ok(Some(self.out.line(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(text: &str, window: usize) -> (Vec<u64>, u64) {
        let text = std::io::Cursor::new(text.to_owned());
        let mut reader = LineReader::from_read("x", text).expect("text");
        let first = Head::of(&reader.next_line().expect("a line").expect("one"));
        let mut sorted = Sorted { window, ..Sorted::new(reader, first) };
        let mut order = Vec::new();
        while let Some(line) = sorted.next_line().expect("a line") {
            order.push(line.number);
        }
        (order, sorted.late)
    }

    #[test]
    fn buffers_of_cpus_are_woven_together() {
        let line =
            |cpu: u32, time: &str| format!("   a-1   [00{cpu}] {time}: vfree: (vfree+0x0/0x9)\n");
        let text = [
            "Attaching 2 probes...\n".to_owned(),
            line(1, "2.000000001"),
            line(1, "2.000000005"),
            "Lost 3 events\n".to_owned(),
            line(0, "1.5"),
            line(0, "2.000000005"),
        ]
        .concat();
        // What has no time stays behind what it follows.
        assert_eq!(sorted(&text, 100), (vec![1, 5, 2, 3, 4, 6], 0));
        let (order, late) = sorted(&text, 2);
        assert_eq!((order.len(), late), (6, 1), "{order:?}");
        assert!(begins_so(b"Attaching 2 probes...") && begins_so(b"Attached 2 probes"));
        assert!(begins_so(br#"{"type": "attached_probes", "data": {"probes": 142}}"#));
        assert!(!begins_so(b"# tracer: nop") && !begins_so(line(0, "1.0").as_bytes()));
    }
}
