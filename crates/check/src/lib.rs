//! Rules over events: what is wrong, which operation is missing, on which CPU, by which text.
//!
//! # What is decided
//!
//! A stream of events is a header, which says what its source can see, and events in order. The
//! checker reads it once, keeps only live state, and reports findings, W+X windows, and for each
//! rule what of it could be checked. It never looks at a cache: everything follows from events.
//!
//! **Translation window** of (CPU, address space, page): what the tables say now, and every earlier
//! answer that lost a right or its frame and that no *completed* invalidation has taken off this
//! CPU. Complete is: x86-64 INVLPG at once and for this CPU alone, INVLPGB at TLBSYNC; arm64 at the
//! issuer's full DSB; powerpc tlbie at tlbsync and ptesync, tlbiel at ptesync. On arm64 and powerpc
//! the changed entry must be visible to walks before the invalidation is issued.
//!
//! **Fetch window** of (CPU, code unit): the interval of *versions* from the newest that the CPU's
//! *fetch view* excludes everything below of, up to the newest that is not ordered after the fetch.
//! A version is a store (or a run of them); its chain is store, clean, completion, invalidation,
//! completion, publication, context synchronisation, with the arrows that the architecture and its
//! features ask for (`arch::sync`).
//!
//! **Happens-before.** *Predicted*: only real edges count, carried in views (arm64, powerpc) or
//! clocks (x86-64). *Observed*: the order of the stream; a fetch view is a moment of it. What both
//! show can be certain; what only *predicted* shows is possible, unless a step is missing on the
//! CPU that wrote. A source that does not record synchronisation is read as observed.
//!
//! **Readings** of "fetched ahead": context synchronisation is needed, *strict*: always; *mapped*:
//! iff the address was executable with other bytes since the CPU's last one; *fresh*: iff the CPU
//! executed other bytes there since. What *mapped* finds beyond *fresh* is possible on x86-64.
//!
//! **W+X window**: frames with a write grant and an execute grant, each in the translation window
//! of a CPU that uses the address space. Status: platform, protocol, in-call, violation.
//!
//! What each event does:
//!
//! | event | effect | |---|---| | leaf | changes the tables; the old answer becomes stale; W+X is
//! looked at; what becomes executable is judged when its call returns | | invalidation, barrier,
//! space loaded, x86 fault, CPU off | take CPUs off stale answers | | store, fill | makes a
//! version; accounts for bytes | | clean, IC, barrier, context synchronisation | moves views by
//! rules R4 to R8 | | load, publish, observe, lock, interrupt, grace period, stop | carries views
//! from CPU to CPU | | fetch | is judged against the window of each code unit, and against freed
//! frames | | frames handed out, taken back | aliases are noted, then compared; executable windows
//! on them | | promise | is compared with tables and with stale answers | | refusal, return, result
//! dropped | findings about calls | | permit opened, closed; region | status of windows; names in
//! messages |
//!
//! A finding is *certain* if the source has the facts that its rule names, nothing that it used
//! rests on memory or on a model, no events that bear on it were lost, and the reading makes it so.
//!
//! Not modelled: see the header of each module; above all stale upper levels, break-before-make,
//! values of data, and which version a simulator really fed (events of that kind are never read).

pub use checker::Checker;
pub use finding::{
    Blame, ChainStep, Confidence, Coverage, Finding, Level, Report, Site, StepState, Window,
    WindowStatus, WxWindow,
};
pub use options::{Levels, Mode, Options, Reading, UnknownName};

mod book;
mod calls;
mod checker;
mod coverage;
mod entries;
mod fetch;
pub mod finding;
mod fingerprint;
mod frames;
mod live;
mod mappings;
mod mark;
mod memory;
mod options;
mod refusals;
pub mod rules;
mod span;
mod symbols;
mod tables;
mod translation;
mod words;
mod wx;
