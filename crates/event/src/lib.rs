//! What can happen: the one vocabulary that every source speaks and every rule reads.
//!
//! A source (simulator, recorded log, watched kernel) emits [`Event`]s in [`Batch`]es to a
//! [`Sink`]; rules read them through typed [`View`]s. Linux reaches rules as promises, windows,
//! regions and interned names, never as behaviour attached to a function's name.
//!
//! Modelled: mappings, maintenance, order, bytes, execution, calls and their promises. Not
//! modelled: values of ordinary data that nobody executes, and register contents.
//!
//! Layout: an event is 64 bytes and `Copy`; variable parts are byte ranges of its batch. Ranges are
//! half open. A range event is legal only for uniform attributes, so that a direct map of a
//! tebibyte is a handful of events.

mod batch;
pub mod elide;
mod flags;
mod header;
mod kind;
mod pack;
mod stream;
pub mod tbe;
mod values;
mod view;

pub use batch::{Batch, Bytes, NameId, NameTable, Origin, OriginId};
pub use flags::{Context, Flags, Order, Provenance};
pub use header::{Facts, Header, Source};
pub use kind::{Kind, KindSet};
pub use stream::{Collect, Recorder, Sink, Tee};
pub use values::{
    Access, ControlRegister, CpuState, FaultReason, LeafChange, MemOrder, Need, Promise,
    RcuFlavour, RefusalReason, WarnReason, WindowPurpose,
};
pub use view::View;

use textbed_arch::{CpuId, PhysAddr, SpaceId, VirtAddr};

/// A call instance, numbered in order of entry; [`CallRef::NONE`] outside any call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct CallRef(pub u32);

impl CallRef {
    /// Not inside a recorded call.
    pub const NONE: CallRef = CallRef(0);
}

/// A row of `arch`'s instruction table, or [`OpId::NONE`] where no single instruction stands
/// behind the event (a log, a kernel call that a log shows whole).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct OpId(pub u16);

impl OpId {
    /// No instruction known.
    pub const NONE: OpId = OpId(0);
}

/// One thing that happened. Read it with [`Event::view`], make it with [`Event::new`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Event {
    /// Place in the stream, from 0, without holes.
    pub seq: u64,
    /// Nanoseconds of the source's clock; [`Event::NO_TIME`] = unknown.
    pub at_ns: u64,
    /// First word of the payload; its meaning is [`View`]'s affair.
    pub a: u64,
    /// Second word.
    pub b: u64,
    /// Third word.
    pub c: u64,
    /// Where in the scenario or log it comes from: an index into the batch's origins.
    pub origin: OriginId,
    /// The innermost call inside which it happened.
    pub cause: CallRef,
    /// The address space it concerns; the kernel's where it concerns none.
    pub space: SpaceId,
    /// Context, provenance and order.
    pub flags: Flags,
    /// The CPU that did it.
    pub cpu: CpuId,
    /// The instruction behind it.
    pub op: OpId,
    /// What it is.
    pub kind: Kind,
}

const _: () = assert!(size_of::<Event>() <= 64, "an event fits a cache line");

impl Event {
    /// Value of [`Event::at_ns`] where the time is not known.
    pub const NO_TIME: u64 = u64::MAX;

    /// An event of `cpu` with nothing else known; fill the other fields with struct update.
    #[inline]
    #[must_use]
    pub fn new(cpu: CpuId, view: View) -> Self {
        let (kind, [a, b, c]) = pack::pack(view);
        Self {
            seq: 0,
            at_ns: Self::NO_TIME,
            a,
            b,
            c,
            origin: OriginId::NONE,
            cause: CallRef::NONE,
            space: SpaceId::KERNEL,
            flags: Flags::default(),
            cpu,
            op: OpId::NONE,
            kind,
        }
    }

    /// What happened, typed. Fields that hold an unknown number (a damaged file) come out as the
    /// variant's most general value; [`Event::is_valid`] tells.
    #[must_use]
    pub fn view(&self) -> View {
        pack::unpack(self.kind, [self.a, self.b, self.c])
    }

    /// [`Event::view`] of a fetch, without looking at what else it could be.
    #[must_use]
    #[inline]
    pub fn as_fetch(&self) -> Option<(VirtAddr, PhysAddr, u32)> {
        let fetch = self.kind == Kind::Fetch;
        fetch.then_some((VirtAddr(self.a), PhysAddr(self.b), self.c as u32))
    }

    /// [`Event::view`] of a plain store, without looking at what else it could be.
    #[must_use]
    #[inline]
    pub fn as_plain_store(&self) -> Option<(VirtAddr, PhysAddr, Bytes)> {
        let store = self.kind == Kind::Store;
        let (bytes, order) = pack::stored(self.c);
        let plain = store && order == MemOrder::Plain;
        plain.then_some((VirtAddr(self.a), PhysAddr(self.b), bytes))
    }

    /// Whether packing the view again gives the same words: false for words that no source makes.
    #[must_use]
    #[inline]
    pub fn is_valid(&self) -> bool {
        // The kinds of which streams consist: a length of 32 bits, or nothing that could be wrong.
        match self.kind {
            Kind::Fetch | Kind::FetchLate => self.c >> 32 == 0,
            Kind::Store | Kind::StoreLate => true,
            _ => self.packs_again(),
        }
    }

    fn packs_again(&self) -> bool {
        pack::pack(self.view()) == (self.kind, [self.a, self.b, self.c])
    }
}
