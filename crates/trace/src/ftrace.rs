//! Lines of tracefs `trace` and `trace_pipe`, taken apart without copying.
//!
//! Read: the default format with 4 to 7 flag characters or none, the TGID column, the latency
//! format (also behind a printk time stamp, as `ftrace_dump` writes it), time stamps as seconds
//! with a fraction or as plain counts, notices of lost events of the kernel and of trace-cmd,
//! stack traces below an event, printk lines in between. A task name may hold any byte. The
//! columns are those of `trace_print_context` and `trace_print_lat_fmt` in
//! `kernel/trace/trace_output.c` (from memory of 5.x and 6.x, and checked against recorded logs).
//!
//! `trace-cmd report` and `perf script` have the same columns but for spaces, and are read too.
//!
//! Not read: the verbose latency format. It is [`Parsed::Unknown`], as are lines of other formats:
//! see [`crate::foreign`].

mod args;
mod columns;
mod heads;
pub(crate) mod scan;

pub(crate) use args::Fields;
pub use args::{Arg, Args, Location, number};
pub use columns::{Context, Flags, Time};
pub(crate) use heads::Heads;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// An event.
    Event(Event<'a>),
    /// A line of the header, or another line that begins with `#`.
    Comment(Comment<'a>),
    /// The tracer lost events here. The CPU and the count, where the line says them.
    Lost(Option<u32>, Option<u64>),
    /// A line of a stack trace below an event.
    Stack,
    /// A line of the kernel's own log in between.
    Printk,
    /// Nothing on it.
    Blank,
    /// None of these.
    Unknown,
}

/// A line that begins with `#`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comment<'a> {
    /// `# tracer: NAME`.
    Tracer(&'a [u8]),
    /// `# entries-in-buffer/entries-written: IN/WRITTEN   #P:CPUS`. More written than in the
    /// buffer: the oldest were overwritten.
    Entries {
        /// Entries that the log has.
        in_buffer: u64,
        /// Entries that were ever written.
        written: u64,
        /// CPUs of the machine.
        cpus: Option<u32>,
    },
    /// `##### CPU n buffer started ####`: of that CPU nothing older is left.
    BufferStarted(u32),
    /// Anything else.
    Other,
}

/// An event as the line has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Task name, without the spaces before it. Any byte but newline and NUL.
    pub task: &'a [u8],
    /// Process id of the task (the kernel's `pid`, a thread).
    pub pid: i32,
    /// Thread group id, where the log has that column and knows it.
    pub tgid: Option<i32>,
    /// CPU.
    pub cpu: u32,
    /// The flag characters, where the log has them.
    pub flags: Option<Flags>,
    /// Time stamp.
    pub time: Time,
    /// Name of the event (what stands before the first `: `), empty for a line of the function
    /// tracer.
    pub name: &'a [u8],
    /// What stands behind the name.
    pub body: &'a [u8],
    /// The place of a probe at the front of the body, and what stands behind it.
    place: Option<(Location<'a>, &'a [u8])>,
}

impl<'a> Event<'a> {
    /// An event of which only the name and what stands behind it are known.
    pub(crate) fn new(name: &'a [u8], body: &'a [u8]) -> Self {
        Self { place: args::location(body), ..Self::bare(name, body) }
    }

    /// The same of which the place is known, too.
    fn placed(name: &'a [u8], body: &'a [u8], place: (Location<'a>, &'a [u8])) -> Self {
        Self { place: Some(place), ..Self::bare(name, body) }
    }

    fn bare(name: &'a [u8], body: &'a [u8]) -> Self {
        let (flags, time) = (None, Time::Ticks(0));
        Self { task: b"", pid: 0, tgid: None, cpu: 0, flags, time, name, body, place: None }
    }

    /// Where the probe sits, if this is a kprobe's or a kretprobe's event.
    pub fn location(&self) -> Option<Location<'a>> {
        self.place.map(|(l, _)| l)
    }

    /// The arguments: `key=value` (kprobes, most tracepoints), `key: value` and `key:value`.
    pub fn args(&self) -> Args<'a> {
        Args::new(self.place.map_or(self.body, |(_, rest)| rest))
    }

    /// The value of the first argument of that name.
    pub fn arg(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.args().find(|a| a.key == key).map(|a| a.value)
    }

    /// The value of an argument as a number: `0x…`, decimal, or negative decimal (two's
    /// complement, as for a printed `s32` or `s64`).
    pub fn number(&self, key: &[u8]) -> Option<u64> {
        self.arg(key).and_then(number)
    }
}

/// Takes a line apart. Never fails: what is no line of an ftrace log is [`Parsed::Unknown`].
pub fn parse(line: &[u8]) -> Parsed<'_> {
    match line.first() {
        None => return Parsed::Blank,
        Some(b'#') => return Parsed::Comment(comment(line)),
        // An object of JSON, which may hold a line of this format: see `crate::foreign`.
        Some(b'{') if line.starts_with(b"{\"type\"") => return Parsed::Unknown,
        _ => {}
    }
    if let Some(event) = columns::event(line) {
        return Parsed::Event(event);
    }
    let text = line.trim_ascii();
    if text.is_empty() {
        return Parsed::Blank;
    }
    if let Some((cpu, count)) = lost(text) {
        return Parsed::Lost(cpu, count);
    }
    if line.starts_with(b" => ") || text == b"<stack trace>" || text == b"<user stack trace>" {
        return Parsed::Stack;
    }
    if let Some(rest) = columns::printk(text) {
        return match columns::event(rest) {
            Some(event) => Parsed::Event(event),
            None => Parsed::Printk,
        };
    }
    Parsed::Unknown
}

fn comment(line: &[u8]) -> Comment<'_> {
    if let Some(rest) = line.strip_prefix(b"# tracer:") {
        return Comment::Tracer(rest.trim_ascii());
    }
    if let Some(rest) = line.strip_prefix(b"##### CPU ") {
        let (cpu, rest) = scan::digits(rest);
        if let (Some(cpu), true) = (cpu, rest.starts_with(b" buffer started")) {
            return u32::try_from(cpu).map_or(Comment::Other, Comment::BufferStarted);
        }
    }
    if let Some(rest) = line.strip_prefix(b"# entries-in-buffer/entries-written:") {
        let (in_buffer, rest) = scan::digits(rest.trim_ascii_start());
        let (written, rest) = scan::digits(rest.strip_prefix(b"/").unwrap_or_default());
        let cpus = rest.trim_ascii_start().strip_prefix(b"#P:").and_then(|r| scan::digits(r).0);
        if let (Some(in_buffer), Some(written)) = (in_buffer, written) {
            let cpus = cpus.and_then(|n| u32::try_from(n).ok());
            return Comment::Entries { in_buffer, written, cpus };
        }
    }
    Comment::Other
}

/// `CPU:1 [LOST 123 EVENTS]`, `CPU:1 [LOST EVENTS]`; trace-cmd: `CPU:1 [123 EVENTS DROPPED]`,
/// `CPU:1 [EVENTS DROPPED]`.
fn lost(text: &[u8]) -> Option<(Option<u32>, Option<u64>)> {
    let rest = text.strip_prefix(b"CPU")?;
    let (cpu, rest) = scan::digits(rest.strip_prefix(b":").or(rest.strip_prefix(b" "))?);
    let cpu = u32::try_from(cpu?).ok()?;
    let words = rest.trim_ascii().strip_prefix(b"[")?.strip_suffix(b"]")?;
    let count = match words {
        b"LOST EVENTS" | b"EVENTS DROPPED" => None,
        _ => {
            let inner = match words.strip_prefix(b"LOST ") {
                Some(r) => r.strip_suffix(b" EVENTS")?,
                None => words.strip_suffix(b" EVENTS DROPPED")?,
            };
            let (count, rest) = scan::digits(inner);
            if !rest.is_empty() {
                return None;
            }
            Some(count?)
        }
    };
    Some((Some(cpu), count))
}

#[cfg(test)]
mod tests;
