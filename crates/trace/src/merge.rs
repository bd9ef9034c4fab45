//! Lines out of one file, or out of several that are one recording, in order of time. (One file
//! whose own lines are not in order is [`crate::sorted`]'s affair.)
//!
//! The kernel keeps a buffer for each CPU, and a recording may be saved so
//! (`per_cpu/cpu0/trace`, `per_cpu/cpu1/trace`, …). Each file keeps its own order; of the next
//! events of all files the earliest comes first, at equal times that of the file named first. A
//! line without a time (a comment, a stack trace, a notice of lost events) stays behind the line
//! that it follows in its file.
//!
//! Not modelled: clocks that differ between the files; files with times and files without are
//! refused together.

use crate::foreign::{Decoder, Foreign};
use crate::ftrace::{self, Parsed, Time};
use crate::reader::{Line, LineReader, ReadError};
use crate::sorted::{self, Sorted};
use std::path::{Path, PathBuf};

/// Files merged at most: a file for each of the CPUs that Linux can have.
pub const MAX_FILES: usize = 8192;

/// What happened while files were merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MergeCounts {
    /// Files.
    pub files: u64,
    /// Lines at the very time of a line of another file: their order is that of the files.
    pub ties: u64,
    /// Lines that their own file has behind a later one: they come as early as they can.
    pub late: u64,
}

/// Where a log's lines come from.
#[derive(Debug)]
pub enum Lines {
    /// One file or stream of which nothing was read.
    Fresh(Option<LineReader>),
    /// One file or stream, and its first line until that was given out.
    One(LineReader, Option<Head>, Head),
    /// One that was not written in order of time.
    Sorted(Box<Sorted>),
    /// Several files.
    Merged(Merged),
}

impl From<LineReader> for Lines {
    fn from(reader: LineReader) -> Self {
        Self::Fresh(Some(reader))
    }
}

impl Lines {
    /// Opens the files of one recording.
    ///
    /// # Errors
    /// As [`LineReader::open`]; more than [`MAX_FILES`] files.
    pub fn open(paths: &[PathBuf]) -> Result<Self, ReadError> {
        match paths {
            [one] => Ok(LineReader::open(one)?.into()),
            many => Ok(Self::Merged(Merged::open(many)?)),
        }
    }

    /// The next line. As [`LineReader::next_line`].
    ///
    /// # Errors
    /// Those of [`LineReader::next_line`]; [`ReadError::Unmergeable`].
    #[inline]
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        if let Self::One(reader, None, _) = self {
            return reader.next_line();
        }
        self.next_of_any()
    }

    fn next_of_any(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        if let Self::Fresh(reader) = self {
            let Some(mut reader) = reader.take() else { return Ok(None) };
            let Some(line) = reader.next_line()? else { return Ok(None) };
            let first = Head::of(&line);
            *self = match sorted::begins_so(&first.bytes) {
                true => Self::Sorted(Box::new(Sorted::new(reader, first))),
                false => Self::One(reader, Some(first), Head::default()),
            };
        }
        match self {
            Self::Fresh(_) => Ok(None),
            Self::One(reader, first, out) => match first.take() {
                None => reader.next_line(),
                Some(first) => {
                    *out = first;
                    Ok(Some(out.line(0)))
                }
            },
            Self::Sorted(sorted) => sorted.next_line(),
            Self::Merged(merged) => merged.next_line(),
        }
    }

    /// What errors and reports call each file.
    pub fn inputs(&self) -> Vec<String> {
        match self {
            Self::Fresh(reader) => reader.iter().map(|r| r.input().to_string()).collect(),
            Self::One(reader, ..) => vec![reader.input().to_string()],
            Self::Sorted(sorted) => vec![sorted.reader.input().to_string()],
            Self::Merged(m) => m.files.iter().map(|f| f.reader.input().to_string()).collect(),
        }
    }

    /// What the merging met; nothing for one file.
    pub fn counts(&self) -> Option<MergeCounts> {
        match self {
            Self::Fresh(_) | Self::One(..) => None,
            Self::Sorted(sorted) => {
                Some(MergeCounts { files: 1, late: sorted.late, ..MergeCounts::default() })
            }
            Self::Merged(merged) => Some(merged.counts),
        }
    }
}

/// A time as far as it orders: seconds, or ticks of a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Nanos(u64),
    Ticks(u64),
}

/// A line that waits to be given out.
#[derive(Debug, Default)]
pub struct Head {
    pub(crate) number: u64,
    offset: u64,
    pub(crate) bytes: Vec<u8>,
    taken: u64,
    terminated: bool,
    key: Option<Key>,
}

impl Head {
    /// A copy of a line.
    pub(crate) fn of(line: &Line<'_>) -> Self {
        Self {
            number: line.number,
            offset: line.offset,
            bytes: line.bytes.to_vec(),
            taken: line.taken,
            terminated: line.terminated,
            key: None,
        }
    }

    /// The line again, of the file of that number.
    pub(crate) fn line(&self, file: u32) -> Line<'_> {
        Line {
            file,
            number: self.number,
            offset: self.offset,
            bytes: &self.bytes,
            taken: self.taken,
            terminated: self.terminated,
        }
    }
}

#[derive(Debug)]
struct File {
    reader: LineReader,
    decoder: Decoder,
    /// `None`: at its end.
    head: Option<Head>,
    /// The time of its last line.
    last: Option<Key>,
}

/// Several files as one. See the module's header.
#[derive(Debug)]
pub struct Merged {
    files: Vec<File>,
    counts: MergeCounts,
    /// The line handed out last: its buffer is what it borrows.
    out: Head,
}

impl Merged {
    fn open(paths: &[PathBuf]) -> Result<Self, ReadError> {
        let input = paths.first().map_or_else(String::new, |p| p.display().to_string());
        if paths.len() > MAX_FILES {
            let why = "more files than a machine has CPUs";
            return Err(ReadError::Unmergeable { input, why });
        }
        if paths.iter().any(|p| p.as_os_str() == "-") {
            let why = "standard input has one log, and cannot be merged with others";
            return Err(ReadError::Unmergeable { input: "-".into(), why });
        }
        let mut files = Vec::new();
        for path in paths {
            let reader = LineReader::open(path)?;
            let (decoder, head, last) = (Decoder::default(), None, None);
            files.push(File { reader, decoder, head, last });
        }
        Self::of(files)
    }

    /// Merges streams.
    ///
    /// # Errors
    /// Those of [`LineReader::next_line`]; [`ReadError::Unmergeable`].
    pub fn from_readers(readers: Vec<LineReader>) -> Result<Self, ReadError> {
        let file = |reader| File { reader, decoder: Decoder::default(), head: None, last: None };
        Self::of(readers.into_iter().map(file).collect())
    }

    fn of(mut files: Vec<File>) -> Result<Self, ReadError> {
        for file in &mut files {
            file.advance()?;
        }
        let counts = MergeCounts { files: files.len() as u64, ..MergeCounts::default() };
        Ok(Self { files, counts, out: Head::default() })
    }

    fn next_line(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        let Some(next) = self.choose()? else { return Ok(None) };
        let Some(file) = self.files.get_mut(next) else { return Ok(None) };
        let Some(head) = file.head.take() else { return Ok(None) };
        if head.key.is_some() {
            self.counts.late += u64::from(file.last > head.key);
            file.last = head.key;
        }
        self.out = head;
        file.advance()?;
        Ok(Some(self.out.line(u32::try_from(next).unwrap_or(u32::MAX))))
    }

    /// The file whose line comes next.
    fn choose(&mut self) -> Result<Option<usize>, ReadError> {
        let mut best: Option<(usize, Key)> = None;
        let mut tie = false;
        for (i, file) in self.files.iter().enumerate() {
            let Some(head) = &file.head else { continue };
            let Some(key) = head.key else { return Ok(Some(i)) };
            match best {
                None => best = Some((i, key)),
                Some((_, b)) if std::mem::discriminant(&b) != std::mem::discriminant(&key) => {
                    return Err(ReadError::Unmergeable {
                        input: file.reader.input().to_string(),
                        why: "its times are of another kind than those of the files before it",
                    });
                }
                Some((_, b)) => {
                    tie = (key == b) || (tie && key >= b);
                    if key < b {
                        best = Some((i, key));
                    }
                }
            }
        }
        self.counts.ties += u64::from(tie);
        Ok(best.map(|(i, _)| i))
    }
}

impl File {
    /// Reads the next line and finds its time.
    fn advance(&mut self) -> Result<(), ReadError> {
        let Some(line) = self.reader.next_line()? else {
            if self.last.is_none() && self.head.is_none() && self.reader.lines() > 0 {
                return Err(ReadError::Unmergeable {
                    input: self.reader.input().to_string(),
                    why: "no line of it has a time",
                });
            }
            self.head = None;
            return Ok(());
        };
        let key = key(&mut self.decoder, line.bytes);
        self.head = Some(Head { key, ..Head::of(&line) });
        Ok(())
    }
}

/// The time of a line in any format that is read.
pub(crate) fn key(decoder: &mut Decoder, line: &[u8]) -> Option<Key> {
    let of = |time: Time| match time {
        Time::Nanos(ns) => Key::Nanos(ns),
        Time::Ticks(n) => Key::Ticks(n),
    };
    match ftrace::parse(line) {
        Parsed::Event(e) => Some(of(e.time)),
        Parsed::Unknown => match decoder.line(line) {
            Foreign::Lines => decoder.lines().find_map(|text| match ftrace::parse(text) {
                Parsed::Event(e) => Some(of(e.time)),
                _ => None,
            }),
            _ => None,
        },
        _ => None,
    }
}

/// The logs of a folder that are one recording: a file called `trace`, `trace.txt` or `trace.log`,
/// or a file for each CPU (`cpu0/trace` as in tracefs' `per_cpu`, `trace.cpu0`, `cpu0.txt`), packed
/// or not. The order is that of the CPUs. Empty: there is none.
pub fn in_folder(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut whole = Vec::new();
    let mut by_cpu: Vec<(u32, PathBuf)> = Vec::new();
    let mut search = vec![(folder.to_owned(), None)];
    // `per_cpu` itself, or the folder that it was copied into.
    let per_cpu = folder.join("per_cpu");
    if per_cpu.is_dir() {
        search.push((per_cpu, None));
    }
    while let Some((at, cpu)) = search.pop() {
        for entry in std::fs::read_dir(&at)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
            if path.is_dir() {
                if let (None, Some(cpu)) = (cpu, name.strip_prefix("cpu").and_then(decimal)) {
                    search.push((path, Some(cpu)));
                }
                continue;
            }
            let base = name.trim_end_matches(".zst").trim_end_matches(".gz");
            let stem = base.trim_end_matches(".txt").trim_end_matches(".log");
            match (cpu, stem) {
                (Some(cpu), "trace" | "trace_pipe") => by_cpu.push((cpu, path)),
                (Some(_), _) => {}
                (None, "trace" | "trace_pipe") => whole.push(path),
                (None, stem) => {
                    let cpu = stem
                        .trim_start_matches("trace_pipe")
                        .trim_start_matches("trace")
                        .trim_start_matches(['.', '-', '_'])
                        .strip_prefix("cpu")
                        .and_then(decimal);
                    by_cpu.extend(cpu.map(|cpu| (cpu, path)));
                }
            }
        }
    }
    by_cpu.sort();
    whole.sort();
    whole.truncate(1);
    Ok(if whole.is_empty() { by_cpu.into_iter().map(|(_, p)| p).collect() } else { whole })
}

fn decimal(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|c| c.is_ascii_digit())).then(|| text.parse().ok())?
}
