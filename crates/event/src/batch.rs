//! Batches: events with the bytes, origins and names that they refer to.
//!
//! Origins are local to their batch; names are numbered over the whole stream, and each batch
//! carries the names that it is the first to use.

use crate::Event;

/// A range of a batch's payload bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Bytes {
    /// First byte.
    pub offset: u32,
    /// Number of bytes.
    pub len: u32,
}

/// An interned name: a call, an owner, a symbol. Names are for people; no rule looks at one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct NameId(pub u32);

impl NameId {
    /// The empty name.
    pub const NONE: NameId = NameId(0);
}

/// An index into a batch's origins, from 1; [`OriginId::NONE`] = unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct OriginId(pub u32);

impl OriginId {
    /// No origin known.
    pub const NONE: OriginId = OriginId(0);
}

/// A place in a scenario or log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Origin {
    /// The file, as a name.
    pub file: NameId,
    /// Line, from 1.
    pub line: u32,
    /// Byte offset in the file of the first byte meant.
    pub offset: u64,
    /// Number of bytes meant; 0 = the line.
    pub len: u32,
}

/// A run of events of one stream.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Batch {
    /// The events, in stream order.
    pub events: Vec<Event>,
    /// Payload bytes that events refer to.
    pub bytes: Vec<u8>,
    /// Origins that events refer to.
    pub origins: Vec<Origin>,
    /// Number of the first of `names`; numbers from 1 on, 0 is the empty name.
    pub name_base: u32,
    /// Names first used here.
    pub names: Vec<String>,
}

impl Batch {
    /// The payload bytes of `range`; empty if the range lies outside (a damaged file).
    #[must_use]
    pub fn bytes(&self, range: Bytes) -> &[u8] {
        let start = range.offset as usize;
        start
            .checked_add(range.len as usize)
            .and_then(|end| self.bytes.get(start..end))
            .unwrap_or(&[])
    }

    /// The origin with this number.
    #[must_use]
    pub fn origin(&self, id: OriginId) -> Option<Origin> {
        let index = (id.0 as usize).checked_sub(1)?;
        self.origins.get(index).copied()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.names.is_empty()
    }
}

/// The names of a stream, gathered from its batches.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NameTable {
    names: Vec<String>,
}

impl NameTable {
    /// Takes over the new names of a batch.
    pub fn absorb(&mut self, batch: &Batch) {
        if !batch.names.is_empty() && batch.name_base as usize == self.names.len() + 1 {
            self.names.extend_from_slice(&batch.names);
        }
    }

    /// The name with this number, or the empty string.
    #[must_use]
    pub fn get(&self, id: NameId) -> &str {
        (id.0 as usize).checked_sub(1).and_then(|i| self.names.get(i)).map_or("", String::as_str)
    }
}
