//! The function-graph tracer: calls as a tree, `fn(args) {` … `} /* fn ret=0x0 */`.
//!
//! Read: the columns CPU, task (`funcgraph-proc`), absolute time (`funcgraph-abstime`), flags and
//! duration, in the order in which the kernel prints them; arguments (`funcgraph-args`, since
//! 6.15); results (`funcgraph-retval`, since 6.5) in both forms, `/* = 0x0 */` and `/* fn ret=0x0
//! */`; events printed as comments; lines that say which task a CPU runs now. Sources: Linux 6.12
//! Documentation/trace/ftrace.rst (functiongraph), kernel/trace/trace_functions_graph.c.
//!
//! A call that is printed as one line (`fn();`) returned when its duration was over.
//!
//! What is not printed is not made up: without `funcgraph-abstime` there are no times, without
//! `funcgraph-retval` no returns, without the task's name the task is the CPU's.

use super::Foreign;
use crate::bounds::{Bound, Dropped};
use crate::functions;
use std::collections::BTreeMap;
use std::io::Write as _;

/// CPUs that are told apart at most: lines of others are not understood.
const MAX_CPUS: u32 = 8192;
/// Bytes of `NAME-PID` at most: the kernel's names have 15.
const MAX_TASK_BYTES: usize = 64;

/// What the lines leave out.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    cpus: BTreeMap<u32, Cpu>,
    /// Functions that are open, of all CPUs.
    open: usize,
    pub(super) dropped: Dropped,
    /// Where in the lines that were written one begins whose time lies ahead.
    pub(super) ahead: Option<usize>,
}

#[derive(Debug, Clone, Default)]
struct Cpu {
    /// Calls of functions with arguments, printed without.
    bare: u64,
    /// `NAME-PID` of the task, where a line said it.
    task: Option<String>,
    /// Open functions, innermost last, by task: a switch leaves them open. The name, where the
    /// table has it.
    open: BTreeMap<Option<String>, Vec<Option<&'static str>>>,
}

/// The columns before the function.
#[derive(Debug, Clone, Copy)]
struct Columns<'a> {
    cpu: u32,
    time: Option<&'a str>,
    task: Option<&'a str>,
    /// How long the call took, in nanoseconds, where the line ends one.
    duration_ns: Option<u64>,
    text: &'a str,
}

impl State {
    /// Reads a line; `None` if it is none of this tracer's.
    pub(super) fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Foreign> {
        let line = std::str::from_utf8(line).ok()?;
        let bare = line.trim();
        if bare.len() >= 8 && bare.bytes().all(|c| c == b'-') {
            return Some(Foreign::NotNeeded);
        }
        if let Some((cpu, task)) = switch(line) {
            self.cpu(cpu)?.task = Some(task.to_owned());
            return Some(Foreign::NotNeeded);
        }
        let columns = columns(line)?;
        if self.open >= Bound::GraphOpen.most() {
            self.dropped.add(Bound::GraphOpen, self.open);
            self.open = 0;
            self.cpus.values_mut().for_each(|cpu| cpu.open.clear());
        }
        let cpu = self.cpu(columns.cpu)?;
        if let Some(task) = columns.task {
            cpu.task = Some(task.to_owned());
        }
        let before = out.len();
        let was_open = cpu.depth();
        let ahead = cpu.text(&columns, out);
        let is_open = cpu.depth();
        self.open = self.open + is_open - was_open;
        self.ahead = ahead;
        Some(if out.len() > before { Foreign::Lines } else { Foreign::NotNeeded })
    }

    /// Calls of functions with arguments, printed without.
    pub(super) fn without_arguments(&self) -> u64 {
        self.cpus.values().map(|c| c.bare).sum()
    }

    fn cpu(&mut self, number: u32) -> Option<&mut Cpu> {
        (number < MAX_CPUS).then(|| self.cpus.entry(number).or_default())
    }
}

impl Cpu {
    /// Functions that the task at hand has open.
    fn depth(&self) -> usize {
        self.open.get(&self.task).map_or(0, Vec::len)
    }

    /// Writes what the line says; where a line begins whose time lies ahead.
    fn text(&mut self, columns: &Columns<'_>, out: &mut Vec<u8>) -> Option<usize> {
        let text = columns.text;
        let head = Head { columns: *columns, task: self.task.as_deref() };
        if let Some(rest) = text.strip_prefix('}') {
            let (named, result) = comment(rest);
            let open = self.open.get_mut(&self.task).and_then(Vec::pop).flatten();
            if let (Some(name), Some(result)) = (named.or(open), result) {
                head.returned(name, result, out);
            }
            if self.depth() == 0 {
                self.open.remove(&self.task);
            }
        } else if let Some(inner) = text.strip_prefix("/*") {
            // An event, printed as a comment.
            let inner = inner.trim_end().strip_suffix("*/").unwrap_or(inner).trim();
            if let Some((name, body)) = inner.split_once(':')
                && functions::by_name(name.as_bytes()).is_some()
            {
                head.event(name, body.trim_start(), out);
            }
        } else if let Some((name, rest)) = text.split_once('(') {
            let name = name.split(' ').next().unwrap_or(name);
            let close = rest.rfind(')')?;
            let (args, behind) = (&rest[..close], rest[close + 1..].trim_start());
            // A result's comment may hold parentheses of its own: the call ends at `)` and `;` or
            // `{`, whichever comes first.
            let (args, behind) = match (rest.find(");"), rest.find(") {")) {
                (Some(a), None) => (&rest[..a], &rest[a + 1..]),
                (None, Some(b)) => (&rest[..b], rest[b + 1..].trim_start()),
                (Some(a), Some(b)) => (&rest[..a.min(b)], rest[a.min(b) + 1..].trim_start()),
                (None, None) => (args, behind),
            };
            head.entered(name, args, out);
            let bare = args.trim().is_empty()
                && functions::by_name(name.as_bytes()).is_some_and(|f| !f.args.is_empty());
            self.bare += u64::from(bare);
            if behind.starts_with('{') {
                let name = functions::by_name(name.as_bytes()).map(|f| f.name);
                self.open.entry(self.task.clone()).or_default().push(name);
            } else if let Some(rest) = behind.strip_prefix(';')
                && let (_, Some(result)) = comment(rest)
            {
                let begin = out.len();
                let end = columns.time.and_then(|t| later(t, columns.duration_ns?));
                let time = end.as_deref().or(columns.time);
                let head = Head { columns: Columns { time, ..*columns }, ..head };
                head.returned(name, result, out);
                return end.is_some().then_some(begin);
            }
        }
        None
    }
}

/// What stands in front of the lines that are written.
#[derive(Clone, Copy)]
struct Head<'a> {
    columns: Columns<'a>,
    task: Option<&'a str>,
}

impl Head<'_> {
    fn start(&self, out: &mut Vec<u8>) {
        let cpu = self.columns.cpu;
        let time = self.columns.time.unwrap_or("0");
        // Without a task's name its number is one that no task has.
        let unknown = format!("cpu-{}", 4_000_000 + u64::from(cpu));
        let task = self.task.unwrap_or(&unknown);
        let _ = write!(out, "{task} [{cpu:03}] {time}: ");
    }

    fn entered(&self, name: &str, args: &str, out: &mut Vec<u8>) {
        if functions::by_name(name.as_bytes()).is_none() {
            return;
        }
        self.start(out);
        let _ = write!(out, "{name}: ({name}+0x0/0x0)");
        for arg in args.split(", ").filter(|a| !a.is_empty()) {
            // The kernel's name where the recorder has another.
            let arg = match arg.strip_prefix("vm_flags=") {
                Some(value) => format!("vmflags={value}"),
                None => arg.to_owned(),
            };
            let _ = write!(out, " {arg}");
        }
        out.push(b'\n');
    }

    fn returned(&self, name: &str, result: &str, out: &mut Vec<u8>) {
        if functions::by_name(name.as_bytes()).is_none() {
            return;
        }
        self.start(out);
        let _ = writeln!(out, "{name}__ret: (0x0 <- {name}) ret={result}");
    }

    fn event(&self, name: &str, body: &str, out: &mut Vec<u8>) {
        self.start(out);
        let _ = writeln!(out, "{name}: {body}");
    }
}

/// `/* fn ret=0x0 */`, `/* fn = 0x0 */`, `/* = 0x0 */`, `/* fn */`: the name and the result.
fn comment(text: &str) -> (Option<&str>, Option<&str>) {
    let inner = text.trim().trim_start_matches(';').trim();
    let Some(inner) = inner.strip_prefix("/*").and_then(|t| t.strip_suffix("*/")) else {
        return (None, None);
    };
    let mut name = None;
    let mut result = None;
    let mut words = inner.split_whitespace();
    while let Some(word) = words.next() {
        if word == "=" {
            result = words.next();
        } else if let Some(value) = word.strip_prefix("ret=") {
            result = Some(value);
        } else if name.is_none() && !word.starts_with('[') && !word.starts_with("<-") {
            name = Some(word);
        }
    }
    (name, result.map(|r| r.trim_end_matches(',')))
}

/// ` 0)   bash-123    =>    kworker-45`: the CPU and its next task.
fn switch(line: &str) -> Option<(u32, &str)> {
    let (before, after) = line.split_once("=>")?;
    let (cpu, from) = before.trim_start().split_once(')')?;
    let next = after.trim();
    task(from.trim())?;
    task(next)?;
    Some((cpu.trim().parse().ok()?, next))
}

/// `NAME-PID`, as it is.
fn task(text: &str) -> Option<&str> {
    let (name, pid) = text.rsplit_once('-')?;
    let short = text.len() <= MAX_TASK_BYTES;
    (short && !name.is_empty() && !pid.is_empty() && pid.bytes().all(|c| c.is_ascii_digit()))
        .then_some(text)
}

/// A time as printed, so many nanoseconds later.
fn later(time: &str, ns: u64) -> Option<String> {
    let (seconds, fraction) = time.split_once('.')?;
    let scale = 10u64.checked_pow(9u32.checked_sub(u32::try_from(fraction.len()).ok()?)?)?;
    let at = seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?;
    let at = at.checked_add(fraction.parse::<u64>().ok()?.checked_mul(scale)?)?;
    let at = at.checked_add(ns)?;
    Some(format!("{}.{:09}", at / 1_000_000_000, at % 1_000_000_000))
}

/// `12.345` microseconds in nanoseconds.
fn micros(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return None;
    }
    let scale = [1000, 100, 10, 1].get(fraction.len())?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction.parse::<u64>().ok()? * scale)
}

fn columns(line: &str) -> Option<Columns<'_>> {
    // At most four columns end with a bar: time, CPU and task, duration, flags.
    let (at, _) = line.match_indices('|').take(4).last()?;
    let text = line[at + 1..].trim();
    let mut found = Columns { cpu: 0, time: None, task: None, duration_ns: None, text };
    let mut has_cpu = false;
    for segment in line[..at].split('|') {
        if let Some(before) = segment.trim_end().strip_suffix(" us") {
            found.duration_ns = before.split_whitespace().next_back().and_then(micros);
        }
        for word in segment.split_whitespace() {
            if let Some(number) = word.strip_suffix(')')
                && let Ok(cpu) = number.parse()
                && !has_cpu
            {
                found.cpu = cpu;
                has_cpu = true;
            } else if let Some((seconds, fraction)) = word.split_once('.')
                && found.time.is_none()
                && !has_cpu
                && [seconds, fraction].iter().all(|p| p.bytes().all(|c| c.is_ascii_digit()))
            {
                found.time = Some(word);
            }
        }
        let behind = segment.rsplit(')').next().unwrap_or(segment).trim();
        if has_cpu && found.task.is_none() {
            found.task = task(behind);
        }
    }
    has_cpu.then_some(found)
}
