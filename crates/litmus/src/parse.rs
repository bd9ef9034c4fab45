//! The text of a test, from its first line to its condition.

use std::collections::BTreeMap;

use textbed_arch::VirtAddr;

use crate::asm::assemble;
use crate::condition::Condition;
use crate::error::{LitmusError, Problem};
use crate::init::{self, Names};
use crate::op::Op;
use crate::source::without_comments;

/// Address of the first thread's code.
pub const CODE_BASE: u64 = 0xffff_8000_0800_0000;
/// Bytes from one thread's code to the next; its fault handler is in the second half.
pub const STRIDE: u64 = 0x1_0000;
/// Address of the first location; each has a page of its own.
pub const DATA_BASE: u64 = 0xffff_8000_0900_0000;
/// Most threads, and most instructions of one.
const MOST_THREADS: usize = 16;
const MOST_CODE: usize = 2048;

/// An instruction of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Insn {
    /// Its address.
    pub virt: VirtAddr,
    /// Its encoding.
    pub word: u32,
    /// What it does.
    pub op: Op,
    /// Its text.
    pub text: String,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// One thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Thread {
    /// Its code, from [`Thread::entry`] on. It ends when it reaches the address behind the last.
    pub code: Vec<Insn>,
    /// First address.
    pub entry: VirtAddr,
    /// Its fault handler, if it has one; it ends likewise.
    pub handler: Vec<Insn>,
    /// Labels of both.
    pub labels: BTreeMap<String, VirtAddr>,
    /// Initial registers; the others are zero.
    pub registers: Vec<(u8, u64)>,
}

impl Thread {
    /// First address of the handler.
    #[must_use]
    pub fn handler_entry(&self) -> Option<VirtAddr> {
        self.handler.first().map(|i| i.virt)
    }

    /// Code and handler.
    pub fn all(&self) -> impl Iterator<Item = &Insn> {
        self.code.iter().chain(&self.handler)
    }
}

/// A location of data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its address.
    pub virt: VirtAddr,
    /// Its initial value, 8 bytes little-endian.
    pub value: u64,
    /// Its virtual address leads to the physical bytes of this one.
    pub alias_of: Option<VirtAddr>,
}

/// A test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Test {
    /// Its name, as verdicts know it.
    pub name: String,
    /// CTR_EL0.IDC.
    pub idc: bool,
    /// CTR_EL0.DIC; then IDC is set too.
    pub dic: bool,
    /// Other `Key=Value` lines of the header.
    pub keys: Vec<(String, String)>,
    /// The threads.
    pub threads: Vec<Thread>,
    /// The locations.
    pub places: Vec<Place>,
    /// The condition.
    pub condition: Condition,
}

/// A cell of a program: which thread, whether of its handler, line, text.
struct Cell<'a> {
    column: usize,
    line: usize,
    text: &'a str,
}

/// Reads a test.
///
/// # Errors
/// See [`Problem`]; the line is in the error.
pub fn parse(text: &str) -> Result<Test, LitmusError> {
    let text = without_comments(text)?;
    let mut lines = text.lines().enumerate().map(|(n, l)| (n + 1, l)).peekable();
    let (at, first) =
        lines.find(|(_, l)| !l.trim().is_empty()).ok_or(Problem::End("its first line").at(1))?;
    let name = first.trim().strip_prefix("AArch64").map(str::trim).filter(|n| !n.is_empty());
    let name = name.ok_or_else(|| Problem::Header(first.trim().to_owned()).at(at))?.to_owned();

    let mut keys = Vec::new();
    while let Some((_, line)) = lines.next_if(|(_, l)| !l.contains('{')) {
        if let Some((key, value)) = line.split_once('=') {
            keys.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    let mut initial: Vec<(usize, String)> = Vec::new();
    let mut closed = None;
    for (number, line) in lines.by_ref() {
        let (inside, after) = match line.split_once('}') {
            Some((inside, after)) => (inside, Some(after)),
            None => (line, None),
        };
        let inside = inside.trim().trim_start_matches('{');
        initial.extend(inside.split(';').map(|s| (number, s.trim().to_owned())));
        if let Some(after) = after {
            closed = Some((number, after));
            break;
        }
    }
    let (number, after) = closed.ok_or(Problem::End("the initial state does ('}')").at(at))?;
    let rest: Vec<(usize, &str)> = std::iter::once((number, after))
        .chain(lines)
        .filter(|(_, l)| !l.trim().is_empty())
        .collect();

    // Rows of the program end with ';'; what follows them is the condition.
    let is_tail = |l: &str| {
        let word = l.trim_start();
        ["exists", "~exists", "forall", "locations", "filter"].iter().any(|k| word.starts_with(k))
    };
    let tail_at = rest.iter().position(|(_, l)| is_tail(l)).unwrap_or(rest.len());
    let (rows, tail) = rest.split_at(tail_at);
    let [(head_line, head), rows @ ..] = rows else {
        return Err(Problem::End("its program").at(number));
    };
    let columns = columns(head, *head_line)?;
    let mut cells = Vec::new();
    for (line, row) in rows {
        let Some(row) = row.trim().strip_suffix(';') else {
            return Err(Problem::End("the row does (';')").at(*line));
        };
        let texts: Vec<&str> = row.split('|').collect();
        if texts.len() != columns.len() {
            let (found, threads) = (texts.len(), columns.len());
            return Err(Problem::Columns { found, threads }.at(*line));
        }
        let texts = texts.into_iter().enumerate();
        cells.extend(texts.map(|(column, text)| Cell { column, line: *line, text: text.trim() }));
    }
    let mut threads = layout(&columns, &cells)?;
    let caches = keys.iter().find(|(k, _)| k == "CacheType").map_or("", |(_, v)| v);
    let dic = caches.split_whitespace().any(|w| w == "DIC");
    let idc = dic || caches.split_whitespace().any(|w| w == "IDC");
    let mut names = Names::new(&threads);
    init::read(&initial, &mut names, &mut threads)?;
    let condition = crate::init::condition(tail, &mut names, threads.len())?;
    Ok(Test { name, idc, dic, keys, threads, places: names.places, condition })
}

/// The first row: which thread each column is, and whether its fault handler.
fn columns(head: &str, line: usize) -> Result<Vec<(usize, bool)>, LitmusError> {
    let names = head.trim().trim_end_matches(';').split('|').map(str::trim);
    let mut columns = Vec::new();
    for name in names {
        let bad = || Problem::Thread(name.to_owned()).at(line);
        let (number, handler) = match name.strip_suffix(".F") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let number: usize =
            number.strip_prefix('P').and_then(|n| n.parse().ok()).ok_or_else(bad)?;
        if number >= MOST_THREADS || columns.contains(&(number, handler)) {
            return Err(bad());
        }
        columns.push((number, handler));
    }
    let count = columns.iter().filter(|(_, h)| !h).count();
    let all = columns.iter().all(|(n, _)| *n < count)
        && (0..count).all(|n| columns.contains(&(n, false)));
    if all { Ok(columns) } else { Err(Problem::Thread(head.trim().to_owned()).at(line)) }
}

/// Gives each instruction its address, then assembles.
fn layout(columns: &[(usize, bool)], cells: &[Cell<'_>]) -> Result<Vec<Thread>, LitmusError> {
    let count = columns.iter().filter(|(_, h)| !h).count();
    let mut placed: Vec<(usize, bool, u64, usize, &str)> = Vec::new();
    let mut labels: Vec<BTreeMap<String, VirtAddr>> = vec![BTreeMap::new(); count];
    for (column, (thread, handler)) in columns.iter().enumerate() {
        let base = CODE_BASE + *thread as u64 * STRIDE + if *handler { STRIDE / 2 } else { 0 };
        let mut at = base;
        for cell in cells.iter().filter(|c| c.column == column) {
            let mut text = cell.text;
            while let Some((label, after)) = text.split_once(':') {
                let label = label.trim();
                let word = label.chars().all(|c| c.is_alphanumeric() || "_.$".contains(c));
                if label.is_empty() || !word {
                    return Err(Problem::Label(label.to_owned(), "not a name").at(cell.line));
                }
                if labels[*thread].insert(label.to_owned(), VirtAddr(at)).is_some() {
                    return Err(Problem::Label(label.to_owned(), "defined twice").at(cell.line));
                }
                text = after.trim();
            }
            if !text.is_empty() {
                placed.push((*thread, *handler, at, cell.line, text));
                at += 4;
            }
            if at - base > MOST_CODE as u64 * 4 {
                let what = format!("more than {MOST_CODE} instructions in a thread");
                return Err(Problem::NotModelled(what).at(cell.line));
            }
        }
    }
    let mut threads: Vec<Thread> = (0..count)
        .map(|n| Thread {
            code: Vec::new(),
            entry: VirtAddr(CODE_BASE + n as u64 * STRIDE),
            handler: Vec::new(),
            labels: labels[n].clone(),
            registers: Vec::new(),
        })
        .collect();
    for (thread, handler, at, line, text) in placed {
        let find = |name: &str| labels[thread].get(name).map(|v| v.0);
        let word = assemble(text, at, &find).map_err(|p| p.at(line))?;
        let op = Op::decode(word).ok_or_else(|| Problem::Instruction(text.to_owned()).at(line))?;
        let insn = Insn { virt: VirtAddr(at), word, op, text: text.to_owned(), line };
        let list = if handler { &mut threads[thread].handler } else { &mut threads[thread].code };
        list.push(insn);
    }
    Ok(threads)
}
