//! Lines of other readers and tracers, put into the form of tracefs `trace`.
//!
//! A line that is no line of `trace` comes here. What it says is written as one or two such lines,
//! which go the ordinary way; so every format means the same. Read: the function-graph tracer
//! (`graph`), and the output of bpftrace as text and with `-f json` (`json`), where it prints the
//! lines of our recorder. `trace-cmd report` and `perf script` have columns like tracefs and
//! are read in [`crate::ftrace`]; their own lines beside the events are told here.
//!
//! Not read: `trace.dat`, `perf.data` (let their tools print them), maps and stacks of bpftrace.

mod graph;
mod json;

use crate::bounds::Dropped;

/// What a line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// The lines of [`Decoder::lines`] say the same.
    Lines,
    /// Events were lost: how many, where it says so.
    Lost(Option<u64>),
    /// Understood, and no event.
    NotNeeded,
    /// The machine has that many CPUs.
    Cpus(u32),
    /// None of these formats.
    Unknown,
}

/// Reads lines of other formats. It remembers what they leave out: which functions are open, which
/// task a CPU runs.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    graph: graph::State,
    out: Vec<u8>,
}

impl Decoder {
    /// Reads a line that [`crate::ftrace::parse`] does not know.
    pub fn line(&mut self, line: &[u8]) -> Foreign {
        self.out.clear();
        self.graph.ahead = None;
        let text = line.trim_ascii();
        if text.first() == Some(&b'{') {
            return json::line(text, &mut self.out);
        }
        if let Some(done) = self.graph.line(line, &mut self.out) {
            return done;
        }
        beside(line, text)
    }

    /// Calls of the function-graph tracer that were printed without their arguments.
    pub fn without_arguments(&self) -> u64 {
        self.graph.without_arguments()
    }

    /// What was too much.
    pub(crate) fn dropped(&self) -> Dropped {
        self.graph.dropped
    }

    /// The lines that say what the last line said.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.timed_lines().map(|(line, _)| line)
    }

    /// The same, each with whether its time lies ahead of the log's: a call that is printed as one
    /// line returns when its duration is over.
    pub fn timed_lines(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let ahead = self.graph.ahead.unwrap_or(usize::MAX);
        let mut at = 0;
        self.out.split(|c| *c == b'\n').filter_map(move |line| {
            let begin = at;
            at += line.len() + 1;
            (!line.is_empty()).then_some((line, begin >= ahead))
        })
    }
}

/// What trace-cmd, perf and bpftrace print beside the events.
fn beside(line: &[u8], text: &[u8]) -> Foreign {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.trim().parse::<u64>().ok();
    if let Some(cpus) = text.strip_prefix(b"cpus=").and_then(number) {
        return u32::try_from(cpus).map_or(Foreign::Unknown, Foreign::Cpus);
    }
    // trace-cmd: `CPU 1 is empty`, `version = 7`; bpftrace: `Attaching 12 probes...`.
    let cpu_empty = text.strip_prefix(b"CPU ").and_then(|r| r.strip_suffix(b" is empty"));
    if cpu_empty.and_then(number).is_some()
        || text.strip_prefix(b"version = ").and_then(number).is_some()
        || (text.starts_with(b"Attach") && text.ends_with(b"..."))
        || (text.starts_with(b"Attached ") && text.ends_with(b" probes"))
    {
        return Foreign::NotNeeded;
    }
    // bpftrace: `Lost 12 events`, or with a word on the ring buffer behind it.
    if let Some(rest) = text.strip_prefix(b"Lost ")
        && let Some(at) = memchr::memmem::find(rest, b" events")
    {
        return Foreign::Lost(rest.get(..at).and_then(number));
    }
    // perf: a frame of a call chain, `\tADDRESS SYMBOL+OFFSET (OBJECT)`.
    if line.starts_with(b"\t") || line.starts_with(b"        ") {
        let address = text.split(|c| *c == b' ').next().unwrap_or_default();
        let hexadecimal = address.len() >= 4 && address.iter().all(u8::is_ascii_hexdigit);
        if hexadecimal && text.ends_with(b")") {
            return Foreign::NotNeeded;
        }
    }
    Foreign::Unknown
}

#[cfg(test)]
mod tests;
