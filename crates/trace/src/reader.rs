//! Lines of a log, one at a time, out of a file or standard input, plain, gzip or zstd.
//!
//! The stream is never held in memory as a whole: one buffer holds the line at hand and what was
//! read ahead (64 KiB, more only for one line that is longer). The compression is found by its
//! magic number, never by the file's name.
//!
//! What is refused, each with the place: an empty input, a compressed stream that ends early or
//! does not decode, a NUL byte (text of tracefs has none; zeros are what a file system leaves
//! behind after a crash), a line longer than [`MAX_LINE_BYTES`].
//!
//! Not modelled: other compressions (xz, lz4, bzip2: named in the error), UTF-16.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

/// The longest line that is accepted, in bytes without its newline. The kernel's `trace_seq`
/// holds one page of text for a line (8 KiB in later versions), so this leaves much room.
pub const MAX_LINE_BYTES: usize = 1 << 20;

const READ_BYTES: usize = 64 * 1024;

/// How the input is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain text.
    None,
    /// gzip (RFC 1952), several members allowed.
    Gzip,
    /// Zstandard (RFC 8878), several frames allowed.
    Zstd,
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Compression::None => "plain text",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

/// Why an input cannot be read. `input` is the path as given, or `-` for standard input.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened.
    #[error("{input}: cannot open: {source}")]
    Open {
        /// The input as named by the user.
        input: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing at all in it (or nothing after decompression).
    #[error("{input}: empty input ({compression})")]
    Empty {
        /// The input as named by the user.
        input: String,
        /// How it is packed.
        compression: Compression,
    },
    /// A compression that this program does not unpack.
    #[error("{input}: compressed with {name}, which is not supported: unpack it first")]
    UnsupportedCompression {
        /// The input as named by the user.
        input: String,
        /// The compression's name.
        name: &'static str,
    },
    /// The compressed stream stops before its end mark.
    #[error(
        "{input}: {compression} stream is cut off at byte {packed_bytes} of the file \
         (after {text_bytes} bytes, {lines} whole lines of text)"
    )]
    Truncated {
        /// The input as named by the user.
        input: String,
        /// How it is packed.
        compression: Compression,
        /// Bytes of the packed stream that were read.
        packed_bytes: u64,
        /// Bytes of text that came out.
        text_bytes: u64,
        /// Whole lines among them.
        lines: u64,
    },
    /// The compressed stream does not decode.
    #[error(
        "{input}: {compression} stream is damaged near byte {packed_bytes} of the file \
         (after {text_bytes} bytes, {lines} whole lines of text): {source}"
    )]
    Damaged {
        /// The input as named by the user.
        input: String,
        /// How it is packed.
        compression: Compression,
        /// Bytes of the packed stream that were read.
        packed_bytes: u64,
        /// Bytes of text that came out.
        text_bytes: u64,
        /// Whole lines among them.
        lines: u64,
        /// What the decoder said.
        source: io::Error,
    },
    /// A byte that no text has.
    #[error("{input}:{line}: binary data: byte {byte:#04x} at column {column} (offset {offset})")]
    Binary {
        /// The input as named by the user.
        input: String,
        /// Line number, from 1.
        line: u64,
        /// Column, from 1, in bytes.
        column: u64,
        /// Offset in the text, from 0.
        offset: u64,
        /// The byte.
        byte: u8,
    },
    /// A line longer than [`MAX_LINE_BYTES`].
    #[error("{input}:{line}: line longer than {limit} bytes (starts at offset {offset})")]
    LineTooLong {
        /// The input as named by the user.
        input: String,
        /// Line number, from 1.
        line: u64,
        /// Offset of its first byte in the text.
        offset: u64,
        /// The limit.
        limit: usize,
    },
    /// More text than a file beside a log has.
    #[error("{input}: more than {limit} bytes of text: no file beside a log is that long")]
    FileTooLong {
        /// The input as named by the user.
        input: String,
        /// The limit.
        limit: u64,
    },
    /// A file that cannot be merged with the others that it was given with.
    #[error("{input}: cannot be merged: {why}")]
    Unmergeable {
        /// The input as named by the user.
        input: String,
        /// Why not.
        why: &'static str,
    },
    /// Reading failed.
    #[error("{input}: read error at byte {packed_bytes}: {source}")]
    Io {
        /// The input as named by the user.
        input: String,
        /// Bytes of the file that were read.
        packed_bytes: u64,
        /// What the system said.
        source: io::Error,
    },
}

/// One line, without its newline (and without a carriage return before it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which of the files that are read as one; 0 where there is one.
    pub file: u32,
    /// Line number in its file, from 1.
    pub number: u64,
    /// Offset of its first byte in the (unpacked) text.
    pub offset: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Bytes of text that it takes, with its end.
    pub taken: u64,
    /// Whether a newline ended it. `false` only for the last line of an input, which may be cut.
    pub terminated: bool,
}

/// Counts what it hands on, so that errors can name a place in the packed file.
struct Counting<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.set(self.count.get().saturating_add(n as u64));
        Ok(n)
    }
}

/// A streaming reader of lines. See the module's header.
pub struct LineReader {
    input: String,
    compression: Compression,
    inner: Box<dyn Read>,
    packed_bytes: Rc<Cell<u64>>,
    buf: Vec<u8>,
    /// `buf[start..end]` is unread text.
    start: usize,
    end: usize,
    /// Where the first NUL of `buf[start..end]` is: each piece is searched once, when it is read.
    nul: Option<usize>,
    /// Text bytes handed out or skipped so far: the offset of `buf[start]`.
    offset: u64,
    lines: u64,
    at_end: bool,
}

impl std::fmt::Debug for LineReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineReader")
            .field("input", &self.input)
            .field("compression", &self.compression)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

impl LineReader {
    /// Opens a path, or standard input for `-`.
    ///
    /// # Errors
    /// [`ReadError::Open`], [`ReadError::Empty`], [`ReadError::UnsupportedCompression`],
    /// [`ReadError::Io`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let input = path.display().to_string();
        if input == "-" {
            return Self::from_read(input, io::stdin());
        }
        let file = File::open(path)
            .and_then(|f| match f.metadata()?.is_dir() {
                true => Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")),
                false => Ok(f),
            })
            .map_err(|source| ReadError::Open { input: input.clone(), source })?;
        Self::from_read(input, file)
    }

    /// Reads from any stream; `input` is what errors call it.
    ///
    /// # Errors
    /// [`ReadError::Empty`], [`ReadError::UnsupportedCompression`], [`ReadError::Io`].
    pub fn from_read(
        input: impl Into<String>,
        mut stream: impl Read + 'static,
    ) -> Result<Self, ReadError> {
        let input = input.into();
        let mut magic = [0u8; 6];
        let mut have = 0;
        while have < magic.len() {
            let Some(room) = magic.get_mut(have..) else { break };
            match stream.read(room) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ReadError::Io { input, packed_bytes: have as u64, source });
                }
            }
        }
        let magic = magic.get(..have).unwrap_or_default().to_vec();
        let compression = match magic.as_slice() {
            [] => return Err(ReadError::Empty { input, compression: Compression::None }),
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame may come first (RFC 8878, 3.1.2).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', ..] => {
                return Err(ReadError::UnsupportedCompression { input, name: "xz" });
            }
            [b'B', b'Z', b'h', ..] => {
                return Err(ReadError::UnsupportedCompression { input, name: "bzip2" });
            }
            [0x04, 0x22, 0x4d, 0x18, ..] => {
                return Err(ReadError::UnsupportedCompression { input, name: "lz4" });
            }
            _ => Compression::None,
        };
        let packed_bytes = Rc::new(Cell::new(0));
        let raw = Counting {
            inner: io::Cursor::new(magic).chain(stream),
            count: Rc::clone(&packed_bytes),
        };
        let inner: Box<dyn Read> = match compression {
            Compression::None => Box::new(raw),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(
                BufReader::with_capacity(READ_BYTES, raw),
            )),
            Compression::Zstd => match zstd::stream::read::Decoder::new(raw) {
                Ok(d) => Box::new(d),
                Err(source) => return Err(ReadError::Io { input, packed_bytes: 0, source }),
            },
        };
        Ok(Self {
            input,
            compression,
            inner,
            packed_bytes,
            buf: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            nul: None,
            offset: 0,
            lines: 0,
            at_end: false,
        })
    }

    /// How the input is packed.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// What errors call the input.
    pub fn input(&self) -> &str {
        &self.input
    }

    /// Lines handed out so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The unpacked bytes as they are, for a file that is not text; from the start if no line was
    /// read yet.
    pub fn into_unpacked(self) -> impl Read {
        let ahead = self.buf.get(self.start..self.end).unwrap_or_default().to_vec();
        io::Cursor::new(ahead).chain(self.inner)
    }

    /// The next line, or `None` at the end.
    ///
    /// # Errors
    /// All of [`ReadError`] but `Open`. After an error the reader is at its end.
    #[inline]
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        let unread = self.buf.get(self.start..self.end).unwrap_or_default();
        // Most lines are in the buffer.
        let (length, terminated) = match memchr::memchr(b'\n', unread) {
            Some(length) => (length, true),
            None => match self.more()? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        if self.nul.is_some() {
            self.refuse_nul(length)?;
        }
        let offset = self.offset;
        let taken = length + usize::from(terminated);
        let mut bytes = self.buf.get(self.start..self.start + length).unwrap_or_default();
        self.start += taken;
        self.offset += taken as u64;
        self.lines += 1;
        if let Some((b'\r', rest)) = bytes.split_last() {
            bytes = rest;
        }
        Ok(Some(Line {
            file: 0,
            number: self.lines,
            offset,
            bytes,
            taken: taken as u64,
            terminated,
        }))
    }

    /// The length of a line of which the buffer has no end yet, and whether one was found.
    fn more(&mut self) -> Result<Option<(usize, bool)>, ReadError> {
        loop {
            // Searched for a newline already.
            let searched = self.end - self.start;
            if searched > MAX_LINE_BYTES {
                self.at_end = true;
                return Err(ReadError::LineTooLong {
                    input: self.input.clone(),
                    line: self.lines + 1,
                    offset: self.offset,
                    limit: MAX_LINE_BYTES,
                });
            }
            if self.at_end || !self.fill()? {
                return match (searched, self.lines) {
                    (0, 0) => Err(ReadError::Empty {
                        input: self.input.clone(),
                        compression: self.compression,
                    }),
                    (0, _) => Ok(None),
                    _ => Ok(Some((searched, false))),
                };
            }
            let from = self.start.saturating_add(searched);
            let new = self.buf.get(from..self.end).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', new) {
                return Ok(Some((searched + at, true)));
            }
        }
    }

    /// An error if the line at hand, of that length, has a NUL.
    #[cold]
    fn refuse_nul(&mut self, length: usize) -> Result<(), ReadError> {
        let begin = self.start;
        let Some(column) = self.nul.filter(|at| *at < begin + length).map(|at| at - begin) else {
            return Ok(());
        };
        self.at_end = true;
        self.start = self.end;
        self.lines += 1;
        Err(ReadError::Binary {
            input: self.input.clone(),
            line: self.lines,
            column: column as u64 + 1,
            offset: self.offset + column as u64,
            byte: 0,
        })
    }

    /// Reads more text behind `end`. `false` at the end of the stream.
    fn fill(&mut self) -> Result<bool, ReadError> {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.nul = self.nul.map(|at| at - self.start);
            self.start = 0;
        }
        if self.end == self.buf.len() {
            self.buf.resize(self.buf.len() * 2, 0);
        }
        loop {
            let room = self.buf.get_mut(self.end..).unwrap_or_default();
            match self.inner.read(room) {
                Ok(0) => {
                    self.at_end = true;
                    return Ok(false);
                }
                Ok(n) => {
                    if self.nul.is_none() {
                        let new = self.buf.get(self.end..self.end + n).unwrap_or_default();
                        self.nul = memchr::memchr(0, new).map(|at| self.end + at);
                    }
                    self.end += n;
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.at_end = true;
                    return Err(self.read_error(e));
                }
            }
        }
    }

    fn read_error(&self, source: io::Error) -> ReadError {
        let input = self.input.clone();
        let compression = self.compression;
        let packed_bytes = self.packed_bytes.get();
        let text_bytes = self.offset + (self.end - self.start) as u64;
        let lines = self.lines;
        if compression == Compression::None {
            return ReadError::Io { input, packed_bytes, source };
        }
        match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                ReadError::Truncated { input, compression, packed_bytes, text_bytes, lines }
            }
            _ => ReadError::Damaged { input, compression, packed_bytes, text_bytes, lines, source },
        }
    }
}

#[cfg(test)]
mod tests;
