//! Mistakes that tests make on purpose, to see that a comparison notices.
//!
//! Each is a rule that is left out or bent at the place where it is carried out. Outside of tests
//! [`made`] is always false and costs nothing. Not here: wrong rows of tables; their tests change a
//! copy of the table.

/// A rule left out or bent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) enum Mistake {
    /// What the writer of a fetched version knew does not bind later fetches (R10).
    NoAnchor,
    /// A later store does not widen the window of a fetch (R11).
    NoLateStores,
    /// A load is not before the store of a newer version (R2).
    NoFromReads,
    /// Cleans and accesses of one line need a barrier between them (R2, R4).
    NoOrderOfLine,
    /// A full DSB orders later fetches (R7).
    DsbOrdersFetches,
    /// An ISB puts all earlier loads before later fetches (R8).
    SyncTakesAllLoads,
    /// A completed invalidation closes every CPU's window, without an ISB there (R8).
    CompletionCloses,
    /// A fetch is not before later effects of its CPU (R9).
    FetchOrdersNothing,
    /// A full DMB completes an invalidation (R6).
    DmbCompletes,
    /// A DMB ST carries a clean (R6).
    DmbStoreCarriesClean,
    /// A DMB LD orders a load before a clean (R6).
    DmbLoadCarriesLoadToClean,
    /// A clean reaches only the bytes at its address (R4).
    CleanOfOneWord,
    /// The store that a fetch returned is not before the fetch (R9).
    NoReadsFromByFetch,
    /// All of program order is order.
    AllProgramOrder,
    /// A store comes after everything before it in program order.
    StoresPublishAll,
    /// The joint rule is applied once to each fetch, not until nothing changes (R14).
    JointOnce,
    /// The joint rule says nothing about earlier fetches of the stale one's CPU (R14).
    JointWithoutEarlier,
    /// The joint rule says nothing about cleans and stores (R14).
    JointWithoutCleans,
    /// x86: the store before a store of the same bytes is not before it.
    NoCoherence,
    /// x86: an own store counts whatever its linear address (Intel).
    LinearIsPhysical,
    /// x86: MFENCE serialises (Intel).
    FenceSerialises,
    /// x86: a serialising instruction knows all that stands before it in the stream.
    SyncTakesStream,
    /// Power: `isync` completes an `icbi` for every CPU.
    IsyncCompletesForAll,
    /// Power: `isync` completes no `icbi` of its own CPU.
    IsyncCompletesNothing,
    /// Power: `lwsync` is a `sync`.
    LwsyncCompletes,
    /// Power: `lwsync` carries a `dcbst`.
    LwsyncCarriesClean,
    /// Power: from-reads and coherence are order between CPUs.
    FromReadsOnPower,
    /// Power with a coherent instruction cache: an `icbi` counts for its line alone.
    IcbiOfOneLine,
    /// A barrier for one CPU alone orders for all.
    NarrowIsWide,
    /// An invalidation of one CPU alone reaches all.
    AloneReachesAll,
}

#[cfg(test)]
thread_local! {
    static NOW: std::cell::Cell<Option<Mistake>> = const { std::cell::Cell::new(None) };
}

/// Whether this mistake is to be made now.
#[cfg(test)]
pub(crate) fn made(mistake: Mistake) -> bool {
    NOW.get() == Some(mistake)
}

/// Whether this mistake is to be made now.
#[cfg(not(test))]
pub(crate) const fn made(_: Mistake) -> bool {
    false
}

/// Makes a mistake while `f` runs.
#[cfg(test)]
pub(crate) fn with<T>(mistake: Option<Mistake>, f: impl FnOnce() -> T) -> T {
    NOW.set(mistake);
    let result = f();
    NOW.set(None);
    result
}
