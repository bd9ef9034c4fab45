//! Marks: what is kept of an event so that a finding can point at it later.
//!
//! An event lives in its batch; a mark outlives it. Call chains are interned, because thousands of
//! marks share a few chains.

use std::collections::HashMap;

use textbed_arch::{CpuId, VirtAddr};
use textbed_event::{Batch, CallRef, Event, Flags, Kind, NameId, Origin, Provenance, View};

/// An interned chain of calls, outermost first; [`ChainId::EMPTY`] = no call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct ChainId(u32);

impl ChainId {
    pub(crate) const EMPTY: ChainId = ChainId(0);
}

/// What is kept of an event.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Mark {
    pub(crate) seq: u64,
    pub(crate) at_ns: u64,
    pub(crate) virt: Option<VirtAddr>,
    pub(crate) origin: Option<Origin>,
    pub(crate) cause: CallRef,
    pub(crate) chain: ChainId,
    pub(crate) cpu: CpuId,
    pub(crate) kind: Kind,
    /// See [`Mark::is_sure`].
    pub(crate) sure: bool,
}

impl Mark {
    pub(crate) fn of(event: &Event, batch: &Batch, chain: ChainId) -> Self {
        Self {
            seq: event.seq,
            at_ns: event.at_ns,
            virt: address_of(event),
            origin: batch.origin(event.origin),
            cause: event.cause,
            chain,
            cpu: event.cpu,
            kind: event.kind,
            sure: Self::is_sure(event),
        }
    }

    /// Whether somebody saw it happen, and no fact behind it rests on memory.
    #[inline]
    pub(crate) fn is_sure(event: &Event) -> bool {
        event.flags.provenance() != Provenance::Modelled && !event.flags.has(Flags::FROM_MEMORY)
    }

    /// Of a marker that stands in no stream.
    pub(crate) fn by_hand(seq: u64, cpu: CpuId) -> Self {
        let marker = View::Marker { name: NameId::NONE };
        let event = Event { seq, ..Event::new(cpu, marker) };
        Self::of(&event, &Batch::default(), ChainId::EMPTY)
    }

    /// When it happened, if that is known.
    pub(crate) fn time(&self) -> Option<u64> {
        (self.at_ns != Event::NO_TIME).then_some(self.at_ns)
    }

    /// Nanoseconds from `from` to this, where both have a time, this not the earlier one.
    pub(crate) fn ns_since(&self, from: &Mark) -> Option<u64> {
        self.time()?.checked_sub(from.time()?)
    }

    /// The same event, about another address.
    pub(crate) fn about(self, virt: u64) -> Self {
        Self { virt: Some(VirtAddr(virt)), ..self }
    }

    /// Whether both happened inside one and the same call.
    pub(crate) fn same_call(&self, other: &Mark) -> bool {
        self.seq == other.seq || self.cause != CallRef::NONE && self.cause == other.cause
    }
}

/// The virtual address that an event is about, for kinds whose first word is one.
fn address_of(event: &Event) -> Option<VirtAddr> {
    use Kind::*;
    match event.kind {
        Region | Leaf | AreaMade | AreaRemoved | CacheClean | IcacheInvalidate | TlbInvalidate
        | Store | Fill | StoreLate | PatchSite | Load | Fetch | FetchLate | Fault | Trap
        | TrapHandler | Compared | ListedSite => Some(VirtAddr(event.a)),
        Warned | Refused | Promised => Some(VirtAddr(event.b)),
        Branch => Some(VirtAddr(event.b)),
        _ => None,
    }
}

/// Number of distinct chains that are kept; past it a chain is cut to its innermost known part.
const MAX_CHAINS: usize = 1 << 16;

/// Interned call chains.
#[derive(Default, Debug)]
pub(crate) struct Chains {
    nodes: Vec<(ChainId, NameId)>,
    index: HashMap<(ChainId, NameId), ChainId>,
}

impl Chains {
    /// `chain` with one more call inside.
    pub(crate) fn push(&mut self, chain: ChainId, name: NameId) -> ChainId {
        if let Some(id) = self.index.get(&(chain, name)) {
            return *id;
        }
        if self.nodes.len() >= MAX_CHAINS {
            return chain;
        }
        self.nodes.push((chain, name));
        let id = ChainId(self.nodes.len() as u32);
        self.index.insert((chain, name), id);
        id
    }

    /// The names of a chain, outermost first.
    pub(crate) fn names(&self, mut chain: ChainId) -> Vec<NameId> {
        let mut names = Vec::new();
        while let Some((parent, name)) =
            (chain.0 as usize).checked_sub(1).and_then(|i| self.nodes.get(i))
        {
            names.push(*name);
            chain = *parent;
            if names.len() >= 64 {
                break;
            }
        }
        names.reverse();
        names
    }
}
