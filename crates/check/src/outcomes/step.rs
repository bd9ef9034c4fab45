//! The vocabulary of programs: what a thread does, as far as others can see it or it orders
//! something.

use textbed_arch::effect::{Barrier, Domain};

use crate::fetch::caches::Caches;
use crate::span::Span;

/// A set of loads of one thread: what fed a value, an address or a branch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Deps(pub(super) u128);

impl Deps {
    /// No load.
    pub const NONE: Deps = Deps(0);

    /// Both together.
    #[must_use]
    pub fn with(self, other: Deps) -> Deps {
        Deps(self.0 | other.0)
    }

    /// The `n`th load of a thread; nothing past the 128th.
    pub(super) fn load(n: usize) -> Deps {
        Deps(u32::try_from(n).ok().and_then(|n| 1u128.checked_shl(n)).unwrap_or(0))
    }
}

/// Order that an access has by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum Order {
    /// None.
    #[default]
    Plain,
    /// A load before all later accesses, and after own earlier releases (`ldar`).
    Acquire,
    /// A load before all later accesses (`ldapr`).
    AcquirePc,
    /// A store after all earlier accesses (`stlr`).
    Release,
}

/// Bytes that maintenance is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lines {
    /// Everything.
    All,
    /// Physical addresses from the first to the last, both in it.
    Of(u64, u64),
}

impl Lines {
    pub(super) fn cover(self, at: u64) -> bool {
        match self {
            Lines::All => true,
            Lines::Of(first, last) => (first..=last).contains(&at),
        }
    }

    pub(super) fn meets(self, other: Lines) -> bool {
        match (self, other) {
            (Lines::Of(a, b), Lines::Of(c, d)) => a <= d && c <= b,
            _ => true,
        }
    }

    pub(super) fn span(self) -> Option<Span> {
        match self {
            Lines::All => None,
            Lines::Of(first, last) => Some(Span { first, last: last.max(first) }),
        }
    }
}

/// One step of a thread. Addresses are physical; two accesses are to the same bytes iff they are
/// equal. Fetches are of code units (4 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A load.
    Load {
        /// Its address.
        at: u64,
        /// Its order.
        order: Order,
        /// What fed the address.
        address: Deps,
    },
    /// A store.
    Store {
        /// Its address.
        at: u64,
        /// The value.
        value: u64,
        /// Its order.
        order: Order,
        /// What fed the address.
        address: Deps,
        /// What fed the value.
        data: Deps,
    },
    /// The fetch of an instruction, which is executed.
    Fetch {
        /// Its address.
        at: u64,
    },
    /// A clean to where fetches look.
    Clean {
        /// Of what.
        lines: Lines,
        /// What fed the address.
        address: Deps,
    },
    /// An invalidation of instruction caches.
    Invalidate {
        /// Of what.
        lines: Lines,
        /// It reaches its own CPU alone.
        alone: bool,
        /// What fed the address.
        address: Deps,
    },
    /// A barrier.
    Barrier(Barrier, Domain),
    /// A conditional branch.
    Branch {
        /// What fed its condition.
        on: Deps,
    },
    /// Context synchronisation: an `isb`, an exception, a return from one.
    Sync,
}

/// What a load or fetch returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The value.
    pub value: u64,
    /// For a load: itself, for [`Deps`] of later steps.
    pub deps: Deps,
}

/// The instruction side of the CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Side {
    /// CTR_EL0.IDC: no clean is needed.
    pub idc: bool,
    /// CTR_EL0.DIC: no invalidation is needed (nor a clean).
    pub dic: bool,
}

impl Side {
    /// The three that exist.
    pub const ALL: [Side; 3] = [
        Side { idc: false, dic: false },
        Side { idc: true, dic: false },
        Side { idc: true, dic: true },
    ];

    pub(crate) fn caches(self) -> Caches {
        Caches { clean: !self.idc && !self.dic, invalidate: !self.dic, ..Caches::ARM }
    }
}
