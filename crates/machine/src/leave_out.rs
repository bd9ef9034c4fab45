//! Synchronisation that is left out on purpose: what a run synchronises with, each piece told by
//! where it stands, and some of it not carried out.
//!
//! Modelled: an instruction (a barrier, maintenance, what synchronises the context), an interrupt
//! to other CPUs with all that it runs, a lock, a release, a grace period, the stop of all CPUs,
//! and what synchronises the context on the side (entry to and return from an interrupt, a change
//! of the address space, an instruction for something else). What is left out has no effect and no
//! event; whoever waits for it goes on. Not modelled: what a lock keeps out besides (others still
//! wait), an acquire that becomes a plain load.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use textbed_arch::CpuId;
use textbed_event::{CallRef, View};

use crate::Machine;

/// What synchronises.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SyncKind {
    /// An instruction, by its name in the instruction table; a loop over lines or pages is one.
    Op(&'static str),
    /// An interrupt to other CPUs, by what they run.
    Ipi(String),
    /// A lock, from taking it to its release.
    Lock(String),
    /// A store that releases, by what it publishes.
    Release(String),
    /// A grace period.
    GracePeriod,
    /// All other CPUs stand still.
    StopMachine,
    /// Entry to an exception or interrupt.
    Entry,
    /// The return from it.
    Return,
    /// A change of the address space.
    SpaceSwitch,
    /// An instruction that is there for something else.
    Aside(&'static str),
}

impl SyncKind {
    /// Whether it synchronises on the side, and nobody wrote it down for that.
    #[must_use]
    pub fn incidental(&self) -> bool {
        matches!(
            self,
            SyncKind::Entry | SyncKind::Return | SyncKind::SpaceSwitch | SyncKind::Aside(_)
        )
    }
}

impl fmt::Display for SyncKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncKind::Op(name) | SyncKind::Aside(name) => f.write_str(name),
            SyncKind::Ipi(function) => write!(f, "interrupt for {function}"),
            SyncKind::Lock(name) => write!(f, "lock {name}"),
            SyncKind::Release(slot) => write!(f, "release of {slot}"),
            SyncKind::GracePeriod => f.write_str("grace period"),
            SyncKind::StopMachine => f.write_str("stop of all CPUs"),
            SyncKind::Entry => f.write_str("entry to the interrupt"),
            SyncKind::Return => f.write_str("return from the interrupt"),
            SyncKind::SpaceSwitch => f.write_str("change of the address space"),
        }
    }
}

/// One piece of synchronisation, told by what is the same in a run without another piece.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SyncSite {
    /// On which CPU.
    pub cpu: CpuId,
    /// The CPU whose interrupt it serves, if it serves one.
    pub serves: Option<CpuId>,
    /// Line of what was going on, 0 = unknown.
    pub line: u32,
    /// The calls around it, outermost first; of the sender, where an interrupt is served.
    pub calls: Vec<String>,
    /// What it is.
    pub kind: SyncKind,
    /// The how manieth of its kind there, from 1; [`SyncSite::REST`] stands for all from that on,
    /// and, where something is to be left out, [`SyncSite::ALL`] for every one.
    pub nth: u32,
}

impl SyncSite {
    /// From this one on repetitions at one place are one piece: a loop.
    pub const REST: u32 = 5;

    /// Every one of a kind at one place.
    pub const ALL: u32 = 0;
}

/// A piece of synchronisation and where a run came by it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncSeen {
    /// Which.
    pub site: SyncSite,
    /// Number of the event that followed its beginning.
    pub seq: u64,
}

/// Site without its number.
type Key = (CpuId, Option<CpuId>, u32, Vec<String>, SyncKind);

/// What was seen, and what is to be left out.
#[derive(Clone, Default)]
pub(crate) struct Watch {
    without: BTreeSet<SyncSite>,
    seen: Vec<SyncSeen>,
    counts: BTreeMap<Key, u32>,
    /// The last key of each CPU, with the call that it stood in: a loop goes on.
    last: BTreeMap<CpuId, (Key, CallRef)>,
    names: BTreeMap<CallRef, String>,
    /// Locks that are held, or a stop that goes on, without anybody being told.
    untold: BTreeSet<SyncKind>,
    /// The CPU whose interrupt is being served.
    serving: Option<CpuId>,
}

impl Watch {
    pub(crate) fn entered(&mut self, call: CallRef, name: &str) {
        self.names.insert(call, name.to_owned());
    }
}

impl Machine {
    /// From here on notes what synchronises, and leaves out what is in `without`.
    pub fn watch_syncs(&mut self, without: &[SyncSite]) {
        let without = without.iter().cloned().collect();
        self.syncs = Some(Box::new(Watch { without, ..Watch::default() }));
    }

    /// What synchronised since [`Machine::watch_syncs`], left out or not, in order.
    #[must_use]
    pub fn syncs(&self) -> &[SyncSeen] {
        self.syncs.as_ref().map_or(&[], |watch| &watch.seen)
    }

    /// Notes a piece of synchronisation; whether it is to be left out.
    pub(crate) fn left_out(&mut self, cpu: CpuId, kind: impl FnOnce() -> SyncKind) -> bool {
        self.syncs.is_some() && self.note_sync(cpu, kind(), false)
    }

    /// As [`Self::left_out`], for an instruction that names one line or page of several.
    pub(crate) fn left_out_op(&mut self, cpu: CpuId, name: &'static str, looped: bool) -> bool {
        self.syncs.is_some() && self.note_sync(cpu, SyncKind::Op(name), looped)
    }

    fn note_sync(&mut self, cpu: CpuId, kind: SyncKind, looped: bool) -> bool {
        let line = self.recorder.origin().map_or(0, |o| o.line);
        let seq = self.recorder.next_seq();
        let Some(watch) = self.syncs.as_mut() else { return false };
        let serves = watch.serving.filter(|from| *from != cpu);
        let from = serves.unwrap_or(cpu);
        let stack = self.cpus.get(from.index()).map_or(&[][..], |c| &c.calls);
        let calls = stack.iter().filter_map(|c| watch.names.get(c)).cloned().collect();
        let call = stack.last().copied().unwrap_or(CallRef::NONE);
        let key: Key = (cpu, serves, line, calls, kind);
        let goes_on = looped && watch.last.get(&cpu).is_some_and(|l| *l == (key.clone(), call));
        let count = watch.counts.entry(key.clone()).or_default();
        let goes_on = goes_on || *count == SyncSite::REST;
        if !goes_on {
            *count += 1;
        }
        let (cpu, serves, line, calls, kind) = key.clone();
        let site = SyncSite { cpu, serves, line, calls, kind, nth: *count };
        watch.last.insert(cpu, (key, call));
        let every = || SyncSite { nth: SyncSite::ALL, ..site.clone() };
        let skip = watch.without.contains(&site) || watch.without.contains(&every());
        if !goes_on {
            watch.seen.push(SyncSeen { site, seq });
        }
        skip
    }

    /// Whether an event that alone tells of synchronisation is to be left out.
    pub(crate) fn leaves_out_event(&mut self, cpu: CpuId, view: View) -> bool {
        match view {
            View::StopMachine { begin: true } => self.begins_untold(cpu, || SyncKind::StopMachine),
            View::StopMachine { begin: false } => self.ends_untold(|| SyncKind::StopMachine),
            _ => false,
        }
    }

    /// From here on CPUs serve an interrupt of `from`; whose it was before.
    pub(crate) fn serves_for(&mut self, from: Option<CpuId>) -> Option<CpuId> {
        self.syncs.as_mut().and_then(|watch| std::mem::replace(&mut watch.serving, from))
    }

    /// Something begins that has an end (a lock, a stop); whether it is left out.
    pub(crate) fn begins_untold(&mut self, cpu: CpuId, kind: impl Fn() -> SyncKind) -> bool {
        let skip = self.left_out(cpu, &kind);
        if skip && let Some(watch) = self.syncs.as_mut() {
            watch.untold.insert(kind());
        }
        skip
    }

    /// Whether what ends now began left out.
    pub(crate) fn ends_untold(&mut self, kind: impl Fn() -> SyncKind) -> bool {
        self.syncs.as_mut().is_some_and(|watch| watch.untold.remove(&kind()))
    }
}
