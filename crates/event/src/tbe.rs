//! `.tbe` files: a stream on disk, readable up to a tear.
//!
//! Layout, all numbers little-endian: the magic `TBE\0`, a u16 version, then records. A record is a
//! u8 type (1 header, 2 batch), a u32 payload length, the payload's CRC-32 and the payload. The
//! header comes first and once. Unknown record types are an error: a reader that skipped them would
//! lose data silently.
//!
//! Not modelled: compression (wrap the file), random access.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;

use textbed_arch::{Arch, CpuId, Features, SpaceId};

use crate::{
    Batch, CallRef, Event, Facts, Flags, Header, Kind, KindSet, NameId, OpId, Origin, OriginId,
    Sink, Source,
};

const MAGIC: [u8; 4] = *b"TBE\0";
/// The version that this module writes, and the only one that it reads.
pub const VERSION: u16 = 1;
const RECORD_HEADER: u8 = 1;
const RECORD_BATCH: u8 = 2;
const EVENT_BYTES: usize = 64;
/// Payloads above this are taken for damage: no writer makes them.
const MAX_PAYLOAD: u32 = 1 << 28;

/// Why a `.tbe` file could not be read to its end. `offset` is where in the file, in bytes.
#[derive(Debug, thiserror::Error)]
pub enum TbeError {
    /// Not a `.tbe` file at all.
    #[error("not a .tbe file: it does not begin with the magic number")]
    NotTbe,
    /// A version that this program does not know.
    #[error("version {0} of the .tbe format; this program reads version {VERSION}")]
    Version(u16),
    /// The file ends inside a record; what came before was delivered.
    #[error("the file is torn: it ends inside a record at byte {offset}")]
    Torn {
        /// Start of the record.
        offset: u64,
    },
    /// A record is damaged; what came before was delivered.
    #[error("damaged record at byte {offset}: {why}")]
    Damaged {
        /// Start of the record.
        offset: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file could not be read.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
}

/// Writes a stream as a `.tbe` file. Errors are kept until [`Writer::finish`], since a sink can
/// only stop a stream.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    error: Option<io::Error>,
}

impl<W: Write> Writer<W> {
    /// Writes to `out`; nothing is written before the stream begins.
    pub fn new(out: W) -> Self {
        Self { out, error: None }
    }

    /// Flushes.
    ///
    /// # Errors
    /// The first error of any write.
    pub fn finish(mut self) -> io::Result<W> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.out.flush().map(|()| self.out),
        }
    }

    fn put(&mut self, result: io::Result<()>) -> ControlFlow<()> {
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.error.get_or_insert(error);
                ControlFlow::Break(())
            }
        }
    }

    fn record(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let len = u32::try_from(payload.len()).ok().filter(|len| *len <= MAX_PAYLOAD);
        let len = len.ok_or_else(|| io::Error::other("a batch is too large for a record"))?;
        self.out.write_all(&[kind])?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(payload).to_le_bytes())?;
        self.out.write_all(payload)
    }
}

impl<W: Write> Sink for Writer<W> {
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        let result = self
            .out
            .write_all(&MAGIC)
            .and_then(|()| self.out.write_all(&VERSION.to_le_bytes()))
            .and_then(|()| self.record(RECORD_HEADER, &encode_header(header)));
        self.put(result)
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        let result = self.record(RECORD_BATCH, &encode_batch(batch));
        self.put(result)
    }
}

/// Reads a `.tbe` file into `sink`; stops early if the sink asks for it. Returns the number of
/// events delivered.
///
/// # Errors
/// [`TbeError`]; everything before the place of the error was delivered.
pub fn read(mut from: impl Read, sink: &mut dyn Sink) -> Result<u64, TbeError> {
    let mut start = [0; 6];
    if read_up_to(&mut from, &mut start)? < start.len() || start[..4] != MAGIC {
        return Err(TbeError::NotTbe);
    }
    let version = u16::from_le_bytes([start[4], start[5]]);
    if version != VERSION {
        return Err(TbeError::Version(version));
    }
    let mut offset = start.len() as u64;
    let (mut events, mut begun) = (0, false);
    loop {
        let mut head = [0; 9];
        match read_up_to(&mut from, &mut head)? {
            0 => return Ok(events),
            n if n < head.len() => return Err(TbeError::Torn { offset }),
            _ => {}
        }
        let damaged = |why| TbeError::Damaged { offset, why };
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (len, crc) = (word(1), word(5));
        if len > MAX_PAYLOAD {
            return Err(damaged("its length is impossible"));
        }
        let mut payload = Vec::new();
        // `take` keeps a wrong length from allocating more than the file has.
        if (&mut from).take(u64::from(len)).read_to_end(&mut payload)? < len as usize {
            return Err(TbeError::Torn { offset });
        }
        if crc32fast::hash(&payload) != crc {
            return Err(damaged("its checksum does not match"));
        }
        let flow = match (head[0], begun) {
            (RECORD_HEADER, false) => {
                begun = true;
                sink.begin(&decode_header(&payload).ok_or_else(|| damaged("not a header"))?)
            }
            (RECORD_HEADER, true) => return Err(damaged("a second header")),
            (RECORD_BATCH, true) => {
                let batch = decode_batch(&payload).ok_or_else(|| damaged("not a batch"))?;
                events += batch.events.len() as u64;
                sink.batch(&batch)
            }
            (RECORD_BATCH, false) => return Err(damaged("events before the header")),
            _ => return Err(damaged("an unknown type of record")),
        };
        if flow.is_break() {
            return Ok(events);
        }
        offset += head.len() as u64 + u64::from(len);
    }
}

fn read_up_to(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A cursor over a payload; every getter is `None` past the end.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let len = self.u32()? as usize;
        String::from_utf8(self.take(len)?.to_vec()).ok()
    }

    /// A count of things that take `size` bytes each; `None` if they cannot all be there.
    fn count(&mut self, size: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count.checked_mul(size)? <= self.0.len()).then_some(count)
    }
}

fn encode_header(h: &Header) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, h.arch.name());
    out.push(u8::from(h.kernel.is_some()));
    put_text(&mut out, h.kernel.as_deref().unwrap_or(""));
    out.push(match h.source {
        Source::Simulator => 0,
        Source::Log => 1,
        Source::Watch => 2,
    });
    out.extend_from_slice(&h.cpus.to_le_bytes());
    out.push(h.page_shift);
    out.extend_from_slice(&h.features.bits().to_le_bytes());
    out.extend_from_slice(&h.dline_bytes.to_le_bytes());
    out.extend_from_slice(&h.iline_bytes.to_le_bytes());
    out.extend_from_slice(&h.records.0.to_le_bytes());
    out.extend_from_slice(&h.facts.bits().to_le_bytes());
    out
}

fn decode_header(payload: &[u8]) -> Option<Header> {
    let mut c = Cursor(payload);
    let arch: Arch = c.text()?.parse().ok()?;
    let has_kernel = c.u8()? != 0;
    let kernel = c.text()?;
    let source = match c.u8()? {
        0 => Source::Simulator,
        1 => Source::Log,
        2 => Source::Watch,
        _ => return None,
    };
    let header = Header {
        arch,
        kernel: has_kernel.then_some(kernel),
        source,
        cpus: c.u16()?,
        page_shift: c.u8().filter(|shift| (12..=24).contains(shift))?,
        features: Features::from_bits_retain(c.u64()?),
        dline_bytes: c.u32()?,
        iline_bytes: c.u32()?,
        records: KindSet(c.u64()?),
        facts: Facts::from_bits_retain(c.u32()?),
    };
    c.0.is_empty().then_some(header)
}

fn encode_batch(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::with_capacity(batch.events.len() * EVENT_BYTES + batch.bytes.len() + 64);
    out.extend_from_slice(&batch.name_base.to_le_bytes());
    out.extend_from_slice(&(batch.names.len() as u32).to_le_bytes());
    for name in &batch.names {
        put_text(&mut out, name);
    }
    out.extend_from_slice(&(batch.origins.len() as u32).to_le_bytes());
    for o in &batch.origins {
        for word in [o.file.0, o.line, o.len] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&o.offset.to_le_bytes());
    }
    out.extend_from_slice(&(batch.bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&batch.bytes);
    out.extend_from_slice(&(batch.events.len() as u32).to_le_bytes());
    for e in &batch.events {
        for word in [e.seq, e.at_ns, e.a, e.b, e.c] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [e.origin.0, e.cause.0, e.space.0, e.flags.0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&e.cpu.0.to_le_bytes());
        out.extend_from_slice(&e.op.0.to_le_bytes());
        out.extend_from_slice(&[e.kind as u8, 0, 0, 0]);
    }
    out
}

fn decode_batch(payload: &[u8]) -> Option<Batch> {
    let mut c = Cursor(payload);
    let mut batch = Batch { name_base: c.u32()?, ..Batch::default() };
    for _ in 0..c.count(4)? {
        batch.names.push(c.text()?);
    }
    for _ in 0..c.count(20)? {
        let (file, line, len) = (NameId(c.u32()?), c.u32()?, c.u32()?);
        batch.origins.push(Origin { file, line, len, offset: c.u64()? });
    }
    let bytes = c.count(1)?;
    batch.bytes = c.take(bytes)?.to_vec();
    let events = c.count(EVENT_BYTES)?;
    batch.events.reserve_exact(events);
    for _ in 0..events {
        let (seq, at_ns, a, b, c_word) = (c.u64()?, c.u64()?, c.u64()?, c.u64()?, c.u64()?);
        let (origin, cause) = (OriginId(c.u32()?), CallRef(c.u32()?));
        let (space, flags) = (SpaceId(c.u32()?), Flags(c.u32()?));
        let (cpu, op) = (CpuId(c.u16()?), OpId(c.u16()?));
        let [kind, _, _, _] = c.array()?;
        let kind = Kind::from_number(kind)?;
        let event =
            Event { seq, at_ns, a, b, c: c_word, origin, cause, space, flags, cpu, op, kind };
        if !event.is_valid() {
            return None;
        }
        batch.events.push(event);
    }
    c.0.is_empty().then_some(batch)
}
