//! The columns in front of an event's text: task, PID, TGID, CPU, flags, time.
//!
//! The task name may hold anything, also what looks like the columns behind it. The kernel writes
//! it right-aligned into 16 columns (8 in the latency format), so the dash behind it has a fixed
//! place: a line that has its dash there is read by that place; any other line (trimmed, or from
//! trace-cmd, whose columns are wider) by the first place from which all the rest reads well. `perf
//! script` writes spaces where others have the dash (tools/perf/builtin-script.c, Linux 6.12).

use super::Event;
use super::scan::{self, digits};

/// What the flag characters say. Not told apart: kinds of need-resched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// Interrupts were off (`d`, `D`). On arm64 a kprobe's breakpoint sets this always.
    pub irqs_off: bool,
    /// Bottom halves were off (`b`, `D`).
    pub bh_off: bool,
    /// Any kind of need-resched was set.
    pub need_resched: bool,
    /// What was interrupted.
    pub context: Context,
    /// Preemption depth, 0 to 15.
    pub preempt_depth: u8,
    /// Migrate-disable depth, where the log has that column (since 5.16 or so).
    pub migrate_disable: Option<u8>,
}

/// The third flag character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Context {
    /// `.`: a task.
    #[default]
    Task,
    /// `s`: softirq.
    Softirq,
    /// `h`: hard interrupt.
    Irq,
    /// `H`: hard interrupt inside a softirq.
    IrqInSoftirq,
    /// `z`: NMI.
    Nmi,
    /// `Z`: NMI inside a hard interrupt.
    NmiInIrq,
}

/// A time stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Nanoseconds, of a clock that the log does not name. The latency format counts from the
    /// start of the trace.
    Nanos(u64),
    /// A count without a unit (trace clocks `counter`, `x86-tsc`).
    Ticks(u64),
}

impl Time {
    /// Nanoseconds, where the unit is known.
    pub fn nanos(self) -> Option<u64> {
        match self {
            Time::Nanos(ns) => Some(ns),
            Time::Ticks(_) => None,
        }
    }
}

/// Width of the task name in the default format.
const TASK_COLUMNS: usize = 16;
/// The same in the latency format.
const LATENCY_TASK_COLUMNS: usize = 8;

/// Reads an event out of a line.
pub(super) fn event(line: &[u8]) -> Option<Event<'_>> {
    if line.get(TASK_COLUMNS) == Some(&b'-')
        && let Some(event) = usual(line).or_else(|| default_format(line, Some(TASK_COLUMNS)))
    {
        return Some(event);
    }
    if line.get(LATENCY_TASK_COLUMNS) == Some(&b'-')
        && let Some(event) = latency_at(line, LATENCY_TASK_COLUMNS)
    {
        return Some(event);
    }
    if let Some(event) = default_format(line, None) {
        return Some(event);
    }
    memchr::memchr_iter(b'-', line).find_map(|dash| latency_at(line, dash))
}

/// What stands before the time in nearly every line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Spaces before the task's name.
    padding: usize,
    pid: i32,
    cpu: u32,
    pub(super) flags: Option<Flags>,
    /// Where the time begins.
    pub(super) length: usize,
}

/// Reads the columns before the time as [`default_format`] has them, with the dash in its place and
/// no TGID: each once, from the left. What does not read so may still be an event.
pub(super) fn head(line: &[u8]) -> Option<Head> {
    let (task, rest) = line.split_first_chunk::<TASK_COLUMNS>()?;
    let (pid, rest) = digits(rest.strip_prefix(b"-")?);
    let pid = i32::try_from(pid?).ok()?;
    let (cpu, rest) = digits(scan::trimmed(rest).strip_prefix(b"[")?);
    let cpu = u32::try_from(cpu?).ok()?;
    let (flags, rest) = flags_column(rest.strip_prefix(b"]")?)?;
    // The spaces of a column are the low bytes of a number that the first other byte ends.
    let padding = (u128::from_le_bytes(*task) ^ u128::from_le_bytes([b' '; TASK_COLUMNS]))
        .trailing_zeros()
        / u8::BITS;
    Some(Head { padding: padding as usize, pid, cpu, flags, length: line.len() - rest.len() })
}

/// The event of a line that begins so; `told` makes one of what stands behind the time.
#[inline]
pub(super) fn behind<'a>(
    head: &Head,
    line: &'a [u8],
    told: impl FnOnce(&'a [u8]) -> Event<'a>,
) -> Option<Event<'a>> {
    let (time, text) = time(line.get(head.length..)?)?;
    let task = line.get(head.padding..TASK_COLUMNS)?.trim_ascii_start();
    let Head { pid, cpu, flags, .. } = *head;
    Some(Event { task, pid, cpu, flags, time, ..told(text) })
}

/// An event of which only its text is known.
pub(super) fn told(text: &[u8]) -> Event<'_> {
    let (name, body) = name_and_body(text);
    Event::new(name, body)
}

/// What nearly every line is.
fn usual(line: &[u8]) -> Option<Event<'_>> {
    behind(&head(line)?, line, told)
}

/// `TASK-PID (TGID) [CPU] FLAGS TIME: TEXT`, with the dash at a given place or anywhere.
fn default_format(line: &[u8], dash: Option<usize>) -> Option<Event<'_>> {
    let skip = dash.unwrap_or(0);
    memchr::memchr_iter(b'[', line.get(skip..)?).find_map(|open| {
        let open = skip + open;
        let (cpu, rest) = digits(line.get(open + 1..)?);
        let cpu = u32::try_from(cpu?).ok()?;
        let rest = rest.strip_prefix(b"]")?;
        let (flags, time, text) = flags_and_time(rest)?;
        let before = line.get(..open)?.trim_ascii_end();
        let (before, tgid) = without_tgid(before);
        let digits_begin = before.iter().rposition(|c| !c.is_ascii_digit())?;
        let pid = i32::try_from(digits(before.get(digits_begin + 1..)?).0?).ok()?;
        let (task, tgid) = match before.get(digits_begin)? {
            b'-' if dash.is_none_or(|d| d == digits_begin) => (before.get(..digits_begin)?, tgid),
            // perf script: `TASK PID` or `TASK PID/TID`.
            b' ' if dash.is_none() => (before.get(..digits_begin)?.trim_ascii_end(), tgid),
            b'/' if dash.is_none() => {
                let before = before.get(..digits_begin)?;
                let end = before.iter().rposition(|c| !c.is_ascii_digit())?;
                let process = i32::try_from(digits(before.get(end + 1..)?).0?).ok()?;
                (before.get(..=end)?.strip_suffix(b" ")?.trim_ascii_end(), Some(process))
            }
            _ => return None,
        };
        let task = task.trim_ascii_start();
        let (name, body) = name_and_body(text);
        Some(Event { task, pid, tgid, cpu, flags, time, ..Event::new(name, body) })
    })
}

/// `TASK-PID CPUFLAGS TIMEus+: TEXT` with its dash at a given place.
fn latency_at(line: &[u8], dash: usize) -> Option<Event<'_>> {
    let (pid, rest) = digits(line.get(dash + 1..)?);
    let pid = i32::try_from(pid?).ok()?;
    let (cpu, rest) = digits(rest.strip_prefix(b" ")?.trim_ascii_start());
    let cpu = u32::try_from(cpu?).ok()?;
    let word = memchr::memchr(b' ', rest)?;
    let flags = flags(rest.get(..word)?)?;
    let after = rest.get(word..)?.trim_ascii_start();
    let (micros, rest) = digits(after);
    let (time, text) = match rest.strip_prefix(b"us") {
        // One character that marks a long delay, or a space.
        Some(rest) => {
            (Time::Nanos(micros?.checked_mul(1000)?), rest.get(1..)?.strip_prefix(b": ")?)
        }
        // `trace-cmd report -l` has seconds there.
        None => time(after)?,
    };
    let task = line.get(..dash)?.trim_ascii_start();
    let (name, body) = name_and_body(text);
    Some(Event { task, pid, cpu, flags: Some(flags), time, ..Event::new(name, body) })
}

/// Where the parenthesis of the TGID column is looked for: it has 7 columns, more for long numbers.
const TGID_COLUMNS: usize = 24;

/// Takes ` (  77)` or ` (-------)` off the end.
fn without_tgid(before: &[u8]) -> (&[u8], Option<i32>) {
    let split = || {
        let inner = before.strip_suffix(b")")?;
        let (front, column) = inner.split_at(inner.len().saturating_sub(TGID_COLUMNS));
        let open = memchr::memrchr(b'(', column)?;
        let text = column.get(open + 1..)?.trim_ascii();
        let rest = inner.get(..front.len() + open)?.trim_ascii_end();
        if !text.is_empty() && text.iter().all(|c| *c == b'-') {
            return Some((rest, None));
        }
        let (tgid, tail) = digits(text);
        let tgid = i32::try_from(tgid?).ok()?;
        tail.is_empty().then_some((rest, Some(tgid)))
    };
    split().unwrap_or((before, None))
}

/// ` FLAGS `, or without flags: what stands behind them.
fn flags_column(rest: &[u8]) -> Option<(Option<Flags>, &[u8])> {
    let rest = scan::trimmed(rest.strip_prefix(b" ")?);
    if rest.first()?.is_ascii_digit() {
        return Some((None, rest));
    }
    let word = scan::byte(rest, b' ')?;
    let flags = flags(rest.get(..word)?)?;
    Some((Some(flags), scan::trimmed(rest.get(word..)?)))
}

/// ` FLAGS TIME: TEXT`, or without flags.
fn flags_and_time(rest: &[u8]) -> Option<(Option<Flags>, Time, &[u8])> {
    let (flags, rest) = flags_column(rest)?;
    let (time, text) = time(rest)?;
    Some((flags, time, text))
}

/// Nanoseconds of the last place of a fraction, by its length.
const NANOS: [u64; 10] =
    [1_000_000_000, 100_000_000, 10_000_000, 1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];

/// `SECONDS.FRACTION: TEXT` or `COUNT: TEXT`.
#[inline]
fn time(rest: &[u8]) -> Option<(Time, &[u8])> {
    let (whole, rest) = digits(rest);
    let whole = whole?;
    // Microseconds are what the tracer prints.
    if let Some((word, text)) = rest.split_first_chunk()
        && let Some(micros) = scan::six_decimals(*word)
        && let Some(text) = text.strip_prefix(b" ")
    {
        let nanos = whole.checked_mul(1_000_000_000)?.checked_add(micros * 1000)?;
        return Some((Time::Nanos(nanos), text));
    }
    let (time, rest) = match rest.strip_prefix(b".") {
        None => (Time::Ticks(whole), rest),
        Some(fraction) => {
            let (value, after) = digits(fraction);
            let length = fraction.len() - after.len();
            let scale = NANOS.get(length)?;
            let nanos = whole.checked_mul(1_000_000_000)?.checked_add(value? * scale)?;
            (Time::Nanos(nanos), after)
        }
    };
    let rest = rest.strip_prefix(b":")?;
    match rest.strip_prefix(b" ") {
        Some(text) => Some((time, text)),
        None => rest.is_empty().then_some((time, rest)),
    }
}

/// The flag characters: irqs-off, need-resched, hardirq/softirq, preempt-depth, then
/// migrate-disable (5), or with the columns of PREEMPT_RT's lazy preemption in between (6, 7).
fn flags(word: &[u8]) -> Option<Flags> {
    // What most lines have: a task that may be preempted, with interrupts on.
    if word == b"....." {
        return Some(Flags { migrate_disable: Some(0), ..Flags::default() });
    }
    let at = |i: usize| word.get(i).copied();
    let (resched_lazy, context, depth, migrate) = match word.len() {
        4 => (None, at(2)?, at(3)?, None),
        5 => (None, at(2)?, at(3)?, at(4)),
        6 => (at(2), at(3)?, at(4)?, None),
        7 => (at(2), at(3)?, at(4)?, at(6)),
        _ => return None,
    };
    let (irqs_off, bh_off) = match at(0)? {
        b'd' => (true, false),
        b'D' => (true, true),
        b'b' => (false, true),
        b'.' | b'X' => (false, false),
        _ => return None,
    };
    let resched = |c: u8| match c {
        b'N' | b'n' | b'p' | b'B' | b'b' | b'L' | b'l' => Some(true),
        b'.' => Some(false),
        _ => None,
    };
    let need_resched = resched(at(1)?)? | resched_lazy.map_or(Some(false), resched)?;
    let context = match context {
        b'.' => Context::Task,
        b's' => Context::Softirq,
        b'h' => Context::Irq,
        b'H' => Context::IrqInSoftirq,
        b'z' => Context::Nmi,
        b'Z' => Context::NmiInIrq,
        _ => return None,
    };
    let count = |c: u8| match c {
        b'.' => Some(0),
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let migrate_disable = match migrate {
        Some(c) => Some(count(c)?),
        None => None,
    };
    let preempt_depth = count(depth)?;
    Some(Flags { irqs_off, bh_off, need_resched, context, preempt_depth, migrate_disable })
}

/// Splits `NAME: BODY`. trace-cmd and perf write `SYSTEM:NAME:`; the system is left out.
fn name_and_body(text: &[u8]) -> (&[u8], &[u8]) {
    let text = scan::trimmed(text);
    // Nearly always the first colon ends the name.
    if let Some(at) = scan::either(text, b':', b' ')
        && let (name, [b':', body @ ..]) = text.split_at(at)
        && matches!(body, [] | [b' ', ..])
    {
        return (name, body.strip_prefix(b" ").unwrap_or(body));
    }
    let word = memchr::memchr(b' ', text).unwrap_or(text.len());
    let Some((token, body)) = text.split_at_checked(word) else { return (b"", text) };
    let Some(name) = token.strip_suffix(b":") else { return (b"", text) };
    let name = match memchr::memrchr(b':', name) {
        Some(colon) => name.get(colon + 1..).unwrap_or(name),
        None => name,
    };
    (name, body.strip_prefix(b" ").unwrap_or(body))
}

/// The rest behind a printk time stamp `[   15.123456] ` (perhaps with a level `<6>` before it and
/// a caller `[    T1]` behind it).
pub(super) fn printk(text: &[u8]) -> Option<&[u8]> {
    let text = match text.strip_prefix(b"<") {
        Some(level) => digits(level).1.strip_prefix(b">")?,
        None => text,
    };
    let (seconds, rest) = digits(text.strip_prefix(b"[")?.trim_ascii_start());
    seconds?;
    let (fraction, rest) = digits(rest.strip_prefix(b".")?);
    fraction?;
    let rest = rest.strip_prefix(b"]")?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let caller = rest.strip_prefix(b"[").and_then(|r| {
        let end = memchr::memchr(b']', r)?;
        let inner = r.get(..end)?.trim_ascii_start();
        matches!(inner.first(), Some(b'T' | b'C')).then(|| r.get(end + 1..))?
    });
    Some(match caller {
        Some(rest) => rest.strip_prefix(b" ").unwrap_or(rest),
        None => rest,
    })
}
