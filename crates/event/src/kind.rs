//! The kinds of event, as a dense number and as a set.
//!
//! The numbers are part of the `.tbe` format: a kind is added at the end, never renumbered.

/// Declares the kinds and the list of all of them, so that neither lacks one.
macro_rules! kinds {
    ($($kind:ident),* $(,)?) => {
        /// What an event is; [`crate::View`] has the fields of each.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        #[allow(missing_docs)] // documented at the variants of `View`, which have the same names
        pub enum Kind {
            $($kind),*
        }

        impl Kind {
            /// Every kind, in numeric order.
            pub const ALL: [Kind; [$(Kind::$kind),*].len()] = [$(Kind::$kind),*];
        }
    };
}

// In numeric order, from 0 on.
kinds! {
    Gap,
    Marker,
    CallEntered,
    CallReturned,
    ResultUsed,
    ResultDropped,
    Warned,
    Refused,
    Promised,
    WindowOpened,
    WindowClosed,
    Region,
    Leaf,
    TableFreed,
    AreaMade,
    AreaRemoved,
    SpaceLoaded,
    Control,
    CacheClean,
    IcacheInvalidate,
    TlbInvalidate,
    Barrier,
    ContextSync,
    Store,
    Fill,
    StoreLate,
    FrameAlloc,
    FrameFree,
    PatchSite,
    Dma,
    IpiSent,
    IpiTaken,
    IpiDone,
    LockAcquired,
    LockReleased,
    Publish,
    Observe,
    Load,
    StopMachine,
    GracePeriod,
    ReadSide,
    Cpu,
    Fetch,
    FetchLate,
    Branch,
    Fault,
    Trap,
    Observed,
    TrapHandler,
    Needs,
    Compared,
    TaskStands,
    LoadOld,
    TableUnlinked,
    ListedSite,
    TableRights,
}

impl Kind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Kind> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A set of kinds: what a source records, what a rule needs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct KindSet(pub u64);

impl KindSet {
    /// No kind.
    pub const EMPTY: KindSet = KindSet(0);
    /// Every kind.
    pub const ALL: KindSet = KindSet((1 << Kind::ALL.len()) - 1);

    /// The set of these kinds.
    #[must_use]
    pub const fn of(kinds: &[Kind]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < kinds.len() {
            bits |= 1 << kinds[i] as u64;
            i += 1;
        }
        Self(bits)
    }

    /// Whether `kind` is in it.
    #[must_use]
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u64) != 0
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains_all(self, other: KindSet) -> bool {
        other.0 & !self.0 == 0
    }

    /// Both together.
    #[must_use]
    pub const fn union(self, other: KindSet) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub const fn without(self, other: KindSet) -> Self {
        Self(self.0 & !other.0)
    }

    /// The kinds in it, in numeric order.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |k| self.contains(*k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_fit_the_set() {
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i);
            assert_eq!(Kind::from_number(i as u8), Some(kind));
        }
        assert_eq!(Kind::from_number(Kind::ALL.len() as u8), None);
        assert_eq!(KindSet::ALL.iter().count(), Kind::ALL.len());
        let two = KindSet::of(&[Kind::Store, Kind::Fetch]);
        assert_eq!(two.iter().collect::<Vec<_>>(), [Kind::Store, Kind::Fetch]);
        assert!(KindSet::ALL.contains_all(two) && !two.contains_all(KindSet::ALL));
    }
}
