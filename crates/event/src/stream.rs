//! Streams: who makes batches, who takes them.

use std::collections::HashMap;
use std::ops::ControlFlow;

use textbed_arch::CpuId;

use crate::{Batch, Bytes, CallRef, Event, Header, NameId, Origin, OriginId, View};

/// Takes a stream: the header once, then batches in order. `Break` asks the source to stop; the
/// source may send what it already has.
pub trait Sink {
    /// The stream begins.
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        let _ = header;
        ControlFlow::Continue(())
    }

    /// The next events.
    fn batch(&mut self, batch: &Batch) -> ControlFlow<()>;
}

/// A sink that keeps everything.
#[derive(Clone, Default, Debug)]
pub struct Collect {
    /// The header, once the stream began.
    pub header: Option<Header>,
    /// The batches in order.
    pub batches: Vec<Batch>,
}

impl Sink for Collect {
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        self.header = Some(header.clone());
        ControlFlow::Continue(())
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        self.batches.push(batch.clone());
        ControlFlow::Continue(())
    }
}

/// A sink that passes everything on to two others; it goes on as long as one of them wants more.
pub struct Tee<'a>(pub &'a mut dyn Sink, pub &'a mut dyn Sink);

impl Sink for Tee<'_> {
    fn begin(&mut self, header: &Header) -> ControlFlow<()> {
        both(self.0.begin(header), self.1.begin(header))
    }

    fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
        both(self.0.batch(batch), self.1.batch(batch))
    }
}

fn both(a: ControlFlow<()>, b: ControlFlow<()>) -> ControlFlow<()> {
    if a.is_break() && b.is_break() { a } else { ControlFlow::Continue(()) }
}

/// Builds batches: numbers events, interns names, remembers the current origin and call.
#[derive(Clone, Default, Debug)]
pub struct Recorder {
    batch: Batch,
    interned: HashMap<String, NameId>,
    next_seq: u64,
    next_call: u32,
    origin: Option<(Origin, OriginId)>,
}

impl Recorder {
    /// An empty recorder; the first event gets number 0.
    #[must_use]
    pub fn new() -> Self {
        Self { batch: Batch { name_base: 1, ..Batch::default() }, ..Self::default() }
    }

    /// The number of a name, interning it at first use. The empty name is [`NameId::NONE`].
    pub fn name(&mut self, name: &str) -> NameId {
        if name.is_empty() {
            return NameId::NONE;
        }
        if let Some(id) = self.interned.get(name) {
            return *id;
        }
        let id = NameId(self.batch.name_base + self.batch.names.len() as u32);
        self.interned.insert(name.to_owned(), id);
        self.batch.names.push(name.to_owned());
        id
    }

    /// A number for a new call instance.
    pub fn new_call(&mut self) -> CallRef {
        self.next_call += 1;
        CallRef(self.next_call)
    }

    /// Later events come from this place, until the next call of this function.
    pub fn set_origin(&mut self, origin: Option<Origin>) {
        match (origin, self.origin) {
            (Some(new), Some((old, _))) if new == old => {}
            (Some(new), _) => {
                self.batch.origins.push(new);
                self.origin = Some((new, OriginId(self.batch.origins.len() as u32)));
            }
            (None, _) => self.origin = None,
        }
    }

    /// The place in the source of the events to come.
    #[must_use]
    pub fn origin(&self) -> Option<Origin> {
        self.origin.map(|(origin, _)| origin)
    }

    /// The number of the next event.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Puts payload bytes into the current batch; the range is good for events pushed before the
    /// next [`Recorder::take`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Bytes {
        let offset = self.batch.bytes.len() as u32;
        self.batch.bytes.extend_from_slice(bytes);
        Bytes { offset, len: bytes.len() as u32 }
    }

    /// Appends an event: its number and, where it has none, its origin are filled in here.
    #[inline]
    pub fn push(&mut self, mut event: Event) -> u64 {
        event.seq = self.next_seq;
        if event.origin == OriginId::NONE
            && let Some((_, id)) = self.origin
        {
            event.origin = id;
        }
        self.next_seq += 1;
        self.batch.events.push(event);
        event.seq
    }

    /// Appends an event of `cpu` with nothing but its view.
    pub fn emit(&mut self, cpu: CpuId, view: View) -> u64 {
        self.push(Event::new(cpu, view))
    }

    /// Number of events that wait in the current batch.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.batch.events.len()
    }

    /// Payload bytes that wait in the current batch.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.batch.bytes.len()
    }

    /// Takes the batch built so far; names stay interned, the origin stays current.
    pub fn take(&mut self) -> Batch {
        let name_base = self.batch.name_base + self.batch.names.len() as u32;
        let taken = std::mem::replace(&mut self.batch, Batch { name_base, ..Batch::default() });
        if let Some((origin, _)) = self.origin.take() {
            self.set_origin(Some(origin));
        }
        taken
    }

    /// Takes a batch back that nobody needs any more: its memory serves the next events.
    pub fn recycle(&mut self, batch: Batch) {
        reuse(&mut self.batch.events, batch.events);
        reuse(&mut self.batch.bytes, batch.bytes);
        reuse(&mut self.batch.origins, batch.origins);
    }
}

/// Lets `now` go on in the memory of `old`, where that has room.
fn reuse<T: Copy>(now: &mut Vec<T>, mut old: Vec<T>) {
    if now.len() < old.capacity() && now.capacity() < old.capacity() {
        old.clear();
        old.extend_from_slice(now);
        *now = old;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NameTable;

    #[test]
    fn names_and_origins_survive_batches() {
        let mut r = Recorder::new();
        let file = r.name("a.tb");
        let origin = Origin { file, line: 7, offset: 90, len: 3 };
        r.set_origin(Some(origin));
        r.emit(CpuId(0), View::Marker { name: file });
        let first = r.take();
        let other = r.name("b.tb");
        assert_eq!(r.name("a.tb"), file);
        r.emit(CpuId(1), View::Marker { name: other });
        let second = r.take();
        let mut names = NameTable::default();
        names.absorb(&first);
        names.absorb(&second);
        assert_eq!((names.get(file), names.get(other)), ("a.tb", "b.tb"));
        assert_eq!(second.events[0].seq, 1);
        assert_eq!(second.origin(second.events[0].origin), Some(origin));
    }

    #[test]
    fn a_batch_given_back_leaves_nothing_behind() {
        let mut r = Recorder::new();
        let file = r.name("a.tb");
        let origin = Origin { file, line: 7, offset: 90, len: 3 };
        r.set_origin(Some(origin));
        for _ in 0..100 {
            r.bytes(b"payload");
            r.emit(CpuId(0), View::Marker { name: file });
        }
        let first = r.take();
        let at = r.bytes(b"next");
        r.recycle(first);
        let second = r.name("b.tb");
        r.emit(CpuId(1), View::Marker { name: second });
        let next = r.take();
        assert_eq!((next.events.len(), next.origins.len(), next.bytes(at)), (1, 1, &b"next"[..]));
        assert_eq!((next.events[0].seq, next.name_base), (100, 2));
        assert_eq!(next.origin(next.events[0].origin), Some(origin));
    }
}
