//! Fetch windows: versions of code, what each CPU's fetch view holds, and the verdict at a fetch.
//!
//! [`versions`] keeps what was stored; a model by architecture says which versions a fetch may
//! still return: [`observed`] in the order of the stream, [`arm64`] (with [`powerpc`]) and [`x86`]
//! by real edges. [`judge`] compares at each fetch, and [`verdict`] names the first step of the
//! chain that is missing. [`looks`] remembers what was found of which block ([`blocks`]), so that a
//! loop costs one look-up a turn.
//!
//! A source that does not record stores, fetches, barriers and physical addresses is not judged at
//! all (its coverage says so), and nothing is kept for it.

pub(crate) mod arm64;
mod blocks;
pub(crate) mod caches;
pub(crate) mod clock;
mod completed;
pub(crate) mod edges;
mod events;
mod history;
pub(crate) mod index;
mod judge;
mod knowledge;
mod known;
pub(crate) mod looks;
mod notes;
pub(crate) mod observed;
pub(crate) mod powerpc;
mod ran;
mod regions;
mod stores;
mod touched;
pub(crate) mod verdict;
pub(crate) mod versions;
pub(crate) mod views;
pub(crate) mod x86;

#[cfg(test)]
mod manuals;
#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
mod worked_examples;

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use textbed_arch::effect::SyncCause;
use textbed_arch::insn::CmodxRevision;
use textbed_arch::{Arch, CpuId, Features, SpaceId};
use textbed_event::{Facts, Header, Kind, KindSet};

use crate::coverage::lacking;
use crate::mark::Mark;
use crate::options::{Mode, Options};
use crate::per_cpu::PerCpu;
use crate::rules::RuleId;
use crate::span::{Piece, Span, SpanMap};
use crate::tables::UNKNOWN_PHYS;

use arm64::Weak;
use caches::Caches;
use clock::Clock;
use edges::Edges;
use index::Fetched;
use looks::Looks;
use observed::Observed;
use touched::Touched;
use versions::{Forgotten, Versions};
use views::View;
use x86::X86;

/// The architecture's way to derive fetch windows.
#[derive(Debug)]
pub(crate) enum Model {
    /// The source does not record enough.
    Off,
    X86 {
        machine: X86,
        edges: Edges<Clock>,
    },
    Weak {
        observed: Box<Observed>,
        /// By real edges, if they are recorded and asked for.
        predicted: Option<Box<Weak>>,
        edges: Edges<View>,
    },
}

impl Model {
    /// The moment of a CPU's last context synchronisation (with what stands for one).
    pub(crate) fn moment(&self, cpu: CpuId) -> u64 {
        match self {
            Model::Off => 0,
            Model::X86 { machine, .. } => machine.moment(cpu),
            Model::Weak { observed, .. } => observed.moment(cpu),
        }
    }
}

/// Until which event an address was executable, and by which frame.
#[derive(Clone, Copy, Debug)]
struct Until {
    last: u64,
    phys: u64,
    /// Until which event by another frame than that; 0 = never.
    elsewhere: u64,
}

impl Piece for Until {
    fn skip(&mut self, bytes: u64) {
        self.phys = self.phys.wrapping_add(bytes);
    }
    fn goes_on_as(&self, len: u64, next: &Self) -> bool {
        (self.last, self.elsewhere) == (next.last, next.elsewhere)
            && self.phys.wrapping_add(len) == next.phys
    }
}

/// Ranges kept that were executable; past it they are forgotten, and the notes say so.
const MAX_PAST: usize = 1 << 16;

/// Barriers to which findings may point.
const MAX_COMPLETIONS: usize = 1024;

/// Which versions no verdict can reach any more once they are not the newest. Those that may be
/// traps stay in any case (a handler that is taken back asks for them), and those that wait for a
/// fence.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Settling {
    /// Nothing is said (where lines need not be cleaned, but caches must be invalidated).
    No,
    /// x86 by real edges: those before one that every CPU knew of when it last serialised. No
    /// window begins before that one, which stays to say where it does.
    InView,
    /// By real edges on weakly ordered architectures: those before one that every CPU knows, in
    /// what its loads come after and either in what its fetches do (where stores are all that they
    /// need) or, in memory that nobody ever cleaned, in what its cleans do. In the one case no
    /// window begins before that version; in the other each begins before all of them, and whoever
    /// cleans finds that version or a younger one. No load returns an older one, and of an older
    /// one no verdict is: loads know of that version at least.
    Known,
    /// x86 in the order of the stream: those up to this event. Every CPU synchronised its context
    /// since, so none may run what was there before, and where they are not the newest they bound
    /// no window. Without this bound neighbours that have the newest version in common would be one
    /// piece sooner, and what ran in one would count for the other.
    Synchronised(u64),
    /// Where lines must be cleaned, in the order of the stream: those in memory that nobody ever
    /// cleaned. A window there begins before the first store, whatever its stores are.
    Unmaintained,
}

impl Settling {
    fn of(model: &Model, predicted: bool, caches: impl FnOnce() -> Caches) -> Self {
        match model {
            Model::X86 { .. } if !predicted => Settling::Synchronised(0),
            Model::X86 { .. } => Settling::InView,
            Model::Weak { predicted: None, .. } => {
                let caches = caches();
                if caches.clean && caches.invalidate {
                    Settling::Unmaintained
                } else {
                    Settling::No
                }
            }
            Model::Weak { predicted: Some(_), .. } => {
                let caches = caches();
                if caches.clean || !caches.invalidate { Settling::Known } else { Settling::No }
            }
            Model::Off => Settling::No,
        }
    }
}

impl Settling {
    /// What is forgotten with the version after one with this key, wherever that is.
    #[inline]
    pub(crate) fn at(self, machine: &X86, key: u64) -> Forgotten {
        match self {
            Settling::Synchronised(floor) if key >> 16 <= floor => Forgotten::All,
            Settling::InView if machine.in_every_view(key) => Forgotten::Older,
            _ => Forgotten::None,
        }
    }

    /// The same on a weakly ordered architecture, where the version is that of `part`.
    #[inline]
    pub(crate) fn within(
        self,
        observed: &Observed,
        predicted: Option<&Weak>,
        part: Span,
        key: u64,
    ) -> Forgotten {
        match self {
            Settling::Unmaintained if !observed.was_cleaned(part) => Forgotten::All,
            Settling::Known
                if predicted.is_some_and(|weak| weak.everybody_knows(key))
                    && (!observed.needs_maintenance() || !observed.was_cleaned(part)) =>
            {
                Forgotten::Older
            }
            _ => Forgotten::None,
        }
    }
}

/// What is known for fetch windows.
#[derive(Debug)]
pub(crate) struct Fetches {
    pub(crate) model: Model,
    pub(crate) versions: Versions,
    pub(crate) looks: Looks,
    /// Real edges count (else the order of the stream).
    pub(crate) predicted: bool,
    /// The source shows what is executed; else versions are asked for by promises alone.
    pub(crate) fetches_are_seen: bool,
    pub(crate) cmodx: bool,
    pub(crate) cmodx_list: CmodxRevision,
    /// The instruction cache is indexed by virtual address.
    by_virt: bool,
    dline: u64,
    iline: u64,
    /// CPUs of the machine, as far as the header tells.
    cpus: u16,
    pub(crate) settling: Settling,
    /// Every CPU synchronised its context after this event.
    synced: u64,
    /// Context synchronisations since these two were brought up to date.
    syncs: u32,
    /// Stores of which no call had promised anything were forgotten.
    pub(crate) unpromised_forgotten: bool,
    /// Addresses that were executable and are not, or lead elsewhere now.
    past_exec: BTreeMap<SpaceId, SpanMap<Until>>,
    past_forgotten: bool,
    /// The barriers that completed invalidations, by number; the youngest ones.
    pub(crate) completions: BTreeMap<u64, Mark>,
    /// Each CPU's last context synchronisation.
    pub(crate) last_sync: PerCpu<(Mark, Option<SyncCause>)>,
    /// x86: CR4 by CPU.
    pub(crate) cr4: FxHashMap<CpuId, u64>,
}

/// Whether a source that does not show what is executed shows enough to judge what calls promise
/// of it: stores, and which CPU synchronised when.
fn promises_are_judged(header: &Header) -> bool {
    let needs = KindSet::of(&[Kind::StoreLate, Kind::ContextSync]);
    header.records.contains_all(needs) && !header.records.contains(Kind::Fetch)
}

/// A line size that can be a mask, whatever a header says.
fn line(bytes: u32) -> u64 {
    u64::from(bytes.clamp(4, 4096).next_power_of_two())
}

impl Fetches {
    pub(crate) fn new(header: &Header, options: &Options) -> Self {
        let predicted =
            options.mode == Mode::Predicted && header.facts.contains(Facts::SYNCHRONISATION);
        let model = if lacking(header, RuleId::MissingContextSync).is_some()
            && !promises_are_judged(header)
        {
            Model::Off
        } else if header.arch == Arch::X86_64 {
            let amd = header.features.contains(Features::X86_AMD);
            Model::X86 { machine: X86::new(amd, predicted), edges: Edges::default() }
        } else {
            let caches = Caches::of(header);
            Model::Weak {
                observed: Box::new(Observed::new(header.arch, caches)),
                predicted: predicted.then(|| Box::new(Weak::new(caches))),
                edges: Edges::default(),
            }
        };
        let settling = Settling::of(&model, predicted, || Caches::of(header));
        Self {
            model,
            settling,
            synced: 0,
            syncs: 0,
            versions: Versions::default(),
            looks: Looks::default(),
            predicted,
            fetches_are_seen: header.records.contains(Kind::Fetch),
            cmodx: options.cmodx,
            cmodx_list: options.cmodx_list,
            by_virt: header.arch == Arch::Arm64 && header.features.contains(Features::ARM_VIPT),
            dline: line(header.dline_bytes),
            iline: line(header.iline_bytes),
            cpus: header.cpus.min(1024),
            past_exec: BTreeMap::new(),
            past_forgotten: false,
            unpromised_forgotten: false,
            completions: BTreeMap::new(),
            last_sync: PerCpu::default(),
            cr4: FxHashMap::default(),
        }
    }

    /// What CPUs knew that touched words, where somebody asks.
    #[inline]
    pub(crate) fn touched(&self) -> Option<&Touched> {
        match &self.model {
            Model::Weak { predicted: Some(weak), .. } => Some(weak.touched()),
            _ => None,
        }
    }

    /// A CPU synchronises its context: from time to time it is looked up how far all have come.
    pub(crate) fn settle(&mut self) {
        self.syncs += 1;
        if self.syncs < u32::from(self.cpus) {
            return;
        }
        self.syncs = 0;
        let everybody = (0..self.cpus).map(CpuId);
        self.synced = everybody.clone().map(|p| self.model.moment(p)).min().unwrap_or(0);
        match (&mut self.settling, &mut self.model) {
            (Settling::Synchronised(floor), _) => *floor = self.synced,
            (Settling::InView, Model::X86 { machine, .. }) => machine.settle(everybody),
            (Settling::Known, Model::Weak { predicted: Some(weak), .. }) => weak.settle(everybody),
            _ => {}
        }
    }

    /// A barrier completed invalidations: findings may point at it.
    pub(crate) fn remember_completion(&mut self, mark: Mark) {
        self.completions.insert(mark.seq, mark);
        if self.completions.len() > MAX_COMPLETIONS {
            self.completions.pop_first();
        }
    }

    /// Physical bytes that are fetched by the virtual address.
    pub(crate) fn fetched(&self, span: Span, virt: u64) -> Fetched {
        Fetched::of(span, self.by_virt.then_some(virt))
    }

    pub(crate) fn is_off(&self) -> bool {
        matches!(self.model, Model::Off)
    }

    /// `span` of `space`, which led to `phys`, is not executable any more, or leads elsewhere,
    /// since event `now`.
    pub(crate) fn was_executable(&mut self, space: SpaceId, span: Span, phys: u64, now: u64) {
        if self.is_off() {
            return;
        }
        let map = self.past_exec.entry(space).or_default();
        if map.entries() >= MAX_PAST {
            *map = SpanMap::default();
            self.past_forgotten = true;
            self.looks.everything_changed();
        }
        map.update(span, |part, before| {
            let phys = phys.wrapping_add(part.first - span.first);
            let elsewhere = |b: &Until| if b.phys == phys { b.elsewhere } else { b.last };
            Some(Until { last: now, phys, elsewhere: before.map_or(0, elsewhere) })
        });
    }

    /// Until which event `virt` was executable with what it led to before; 0 = never.
    pub(crate) fn executable_until(&self, space: SpaceId, virt: u64) -> u64 {
        self.past(space, virt).map(|(_, until)| until.last).max().unwrap_or(0)
    }

    /// Until which event `virt` was executable and led elsewhere than to `phys`, where it leads
    /// now; 0 = never.
    pub(crate) fn elsewhere_until(&self, space: SpaceId, virt: u64, phys: u64) -> u64 {
        let same = |at: Span, u: &Until| {
            phys < UNKNOWN_PHYS && u.phys.wrapping_add(virt - at.first) == phys
        };
        let until = |(at, u): (Span, &Until)| if same(at, u) { u.elsewhere } else { u.last };
        self.past(space, virt).map(until).max().unwrap_or(0)
    }

    /// What is known of `virt` in `space` and in the kernel's.
    fn past(&self, space: SpaceId, virt: u64) -> impl Iterator<Item = (Span, &Until)> {
        let spaces = [Some(SpaceId::KERNEL), (space != SpaceId::KERNEL).then_some(space)];
        spaces.into_iter().flatten().filter_map(move |s| self.past_exec.get(&s)?.get(virt))
    }

    /// Whether a CPU that did not synchronise its context since may run what `virt` led to before,
    /// in any space. CPUs that the header does not count are not asked.
    pub(crate) fn may_run_what_was_there(&self, virt: u64) -> bool {
        let since = |map: &SpanMap<Until>| map.get(virt).is_some_and(|(_, u)| u.last > self.synced);
        self.past_exec.values().any(since)
    }

    /// Whether the header counts this CPU, or none.
    pub(crate) fn counts(&self, cpu: CpuId) -> bool {
        cpu.0 < self.cpus || self.cpus == 0
    }

    /// The mapping of `virt` changed; it led or leads to `frames`.
    pub(crate) fn mapping_changed(&mut self, virt: Span, frames: &[Span]) {
        self.looks.remapped(virt);
        frames.iter().for_each(|span| self.looks.stored(*span));
    }

    /// The frames of `span` were handed out or went back.
    pub(crate) fn frames_changed(&mut self, span: Span) {
        self.looks.stored(span);
    }

    /// Everybody knows what everybody knew.
    pub(crate) fn meet(&mut self, now: u64) {
        let everybody = (0..self.cpus).map(CpuId);
        match &mut self.model {
            Model::X86 { machine, .. } if machine.by_edges => machine.meet(everybody, now),
            Model::Weak { predicted: Some(weak), .. } => weak.meet(everybody),
            _ => {}
        }
    }

    /// A CPU came up: it has fetched nothing, and starts with its context synchronised.
    pub(crate) fn came_up(&mut self, cpu: CpuId, now: u64) {
        self.meet(now);
        match &mut self.model {
            Model::Off => {}
            Model::X86 { machine, .. } => machine.sync(cpu, now),
            Model::Weak { observed, predicted, .. } => {
                observed.sync(cpu, now);
                if let Some(weak) = predicted {
                    weak.sync(cpu);
                }
            }
        }
    }

    /// The moment of a CPU's last context synchronisation (with what stands for one).
    pub(crate) fn moment(&self, cpu: CpuId) -> u64 {
        self.model.moment(cpu)
    }

    /// What a reader must know of the fetch windows.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Model::Weak { predicted: Some(weak), .. } = &self.model
            && weak.given_up
        {
            notes.push("too much was stored to follow what each CPU knows of it".to_owned());
        }
        if self.past_forgotten {
            notes.push("not every range that was once executable is remembered".to_owned());
        }
        if self.unpromised_forgotten {
            notes.push(
                "not every store to code was kept until a call promised something".to_owned(),
            );
        }
        notes
    }
}
