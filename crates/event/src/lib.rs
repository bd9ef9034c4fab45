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
pub mod errno;
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

use textbed_arch::{
    CpuId, PhysAddr, SpaceId, VirtAddr,
    effect::{Barrier, Domain, SyncCause, TlbScope},
};

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
        // The kinds of which streams consist, by what a wrong word of theirs has and no other.
        let only = |word: u64, bits: u64| word & !bits == 0;
        let [low, high] = [self.a as u8, (self.a >> 8) as u8];
        match self.kind {
            Kind::Fetch | Kind::FetchLate => self.c >> 32 == 0,
            Kind::Store | Kind::StoreLate | Kind::Leaf => true,
            Kind::Barrier => {
                low <= Barrier::Tlbsync as u8
                    && high <= Domain::System as u8
                    && self.a >> 16 | self.b | self.c == 0
            }
            Kind::ContextSync => self.a <= SyncCause::Reset as u64 && self.b | self.c == 0,
            Kind::TlbInvalidate => {
                self.c as u8 <= TlbScope::All as u8 && only(self.c >> 8, 0x3fff_ff01)
            }
            Kind::CacheClean => only(self.c, 1),
            Kind::IcacheInvalidate => only(self.c, 0x101),
            Kind::Load => only(self.c, 0x3_ffff),
            _ => self.packs_again(),
        }
    }

    fn packs_again(&self) -> bool {
        pack::pack(self.view()) == (self.kind, [self.a, self.b, self.c])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind, its words whatever they may be: mostly small numbers in each byte, for these are
    /// what the answer depends on.
    #[test]
    fn what_is_valid_is_what_packs_again() {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let mut seen = [[0; 2]; Kind::ALL.len()];
        for _ in 0..4000 {
            let mut word = || match next() & 7 {
                0 => next(),
                1..=3 => 0,
                _ => {
                    let byte = |at: u64, bits: u64| (bits & 15) << (8 * (at & 7));
                    byte(next(), next()) | byte(next(), next()) | next() & 1
                }
            };
            let (a, b, c) = (word(), word(), word());
            for kind in Kind::ALL {
                let marker = View::Marker { name: NameId::NONE };
                let event = Event { kind, a, b, c, ..Event::new(CpuId(0), marker) };
                assert_eq!(event.is_valid(), event.packs_again(), "{event:?}");
                seen[kind as usize][usize::from(event.is_valid())] += 1;
            }
        }
        for kind in [Kind::Barrier, Kind::ContextSync, Kind::TlbInvalidate, Kind::Load] {
            let [wrong, right] = seen[kind as usize];
            assert!(wrong > 100 && right > 100, "{kind:?}: {wrong} wrong, {right} right");
        }
    }
}
