//! Instruction caches with sets and ways.
//!
//! A machine's instruction caches are one of two kinds ([`InstructionCache`]). The adversarial one
//! keeps whatever it may: what an architecture allows at most. The one of this module has lines of
//! each CPU's size in sets and ways, physically indexed and tagged, so what it holds is what was
//! executed: a fetch that misses fills a line with what the point of unification returns, a fetch
//! that hits gets what the line has, however old, and a line goes by an invalidation of an address
//! in it, or because another line takes its way. Which way that is is a choice of the policy
//! ([`Choice::Evict`]): every replacement strategy is one way of answering it. Where instruction
//! caches follow stores by themselves, a store takes the line out of all of them.
//!
//! What a CPU fetched ahead of an eviction or invalidation stays in its fetch queue until context
//! synchronisation, as everywhere. So everything that such a cache does the adversarial one can do
//! too.
//!
//! Not modelled: lines filled by speculation along paths that are not executed, virtually indexed
//! caches, caches that CPUs share, lower levels (the point of unification is behind this cache).

use rustc_hash::FxHashMap;
use textbed_arch::{CpuId, PhysAddr};

use crate::Machine;
use crate::choice::Choice;
use crate::lines::OPEN;
use crate::state::{Part, Take};

/// How instruction caches are modelled.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum InstructionCache {
    /// They keep whatever the architecture lets them keep, as the policy has it.
    #[default]
    Adversarial,
    /// They have sets and ways, and keep what was executed until its way is taken.
    Sets {
        /// Sets: a power of two, at most 65,536.
        sets: u32,
        /// Lines of a set, 1 to 64.
        ways: u32,
    },
}

impl InstructionCache {
    /// Whether there can be such a cache.
    pub(crate) fn is_valid(self) -> bool {
        match self {
            Self::Adversarial => true,
            Self::Sets { sets, ways } => {
                sets.is_power_of_two() && sets <= 1 << 16 && (1..=64).contains(&ways)
            }
        }
    }

    /// An empty one with lines of `bytes`.
    pub(crate) fn build(self, bytes: u32) -> Option<Icache> {
        let Self::Sets { sets, ways } = self else { return None };
        let (sets, ways) = (u64::from(sets), ways as usize);
        Some(Icache { shift: bytes.ilog2(), sets, ways, lines: FxHashMap::default() })
    }
}

/// A line in a cache.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Physical address of its first byte, shifted.
    number: u64,
    /// When it was filled.
    filled: u64,
    /// When a fetch last hit it.
    used: u64,
}

/// One CPU's cache of sets and ways. What a line holds is noted at the versions
/// ([`crate::lines::Held::resident`]): the one that says so, else the newest.
#[derive(Clone, Debug)]
pub(crate) struct Icache {
    shift: u32,
    sets: u64,
    ways: usize,
    lines: FxHashMap<u64, Vec<Way>>,
}

impl Icache {
    fn set_of(&self, number: u64) -> u64 {
        number & (self.sets - 1)
    }

    /// When the line that holds an address was filled, if it is there.
    pub(crate) fn filled(&self, phys: u64) -> Option<u64> {
        let number = phys >> self.shift;
        let set = self.lines.get(&self.set_of(number))?;
        set.iter().find(|way| way.number == number).map(|way| way.filled)
    }

    /// A fetch hit the line.
    fn hit(&mut self, phys: u64, now: u64) {
        let number = phys >> self.shift;
        let set = self.set_of(number);
        let ways = self.lines.get_mut(&set).into_iter().flatten();
        ways.filter(|way| way.number == number).for_each(|way| way.used = now);
    }

    /// Lines that a fill of this address would have to choose from; none while a way is free.
    fn rivals(&self, phys: u64) -> Vec<Way> {
        let set = self.lines.get(&self.set_of(phys >> self.shift));
        set.filter(|ways| ways.len() >= self.ways).cloned().unwrap_or_default()
    }

    fn insert(&mut self, phys: u64, filled: u64, used: u64) {
        let number = phys >> self.shift;
        let set = self.set_of(number);
        self.lines.entry(set).or_default().push(Way { number, filled, used });
    }

    fn remove(&mut self, number: u64) {
        let set = self.set_of(number);
        if let Some(ways) = self.lines.get_mut(&set) {
            ways.retain(|way| way.number != number);
        }
    }

    /// First bytes of the lines in a physical range (all without one) that were there at `moment`.
    fn in_range(&self, range: Option<(u64, u64)>, moment: u64) -> Vec<u64> {
        let inside = |number: u64| {
            range.is_none_or(|(first, len)| {
                let (start, end) = (number << self.shift, (number + 1) << self.shift);
                first < end && start < first + len
            })
        };
        let all = self.lines.values().flatten();
        let mut found: Vec<u64> = all
            .filter(|way| way.filled <= moment && inside(way.number))
            .map(|way| way.number << self.shift)
            .collect();
        found.sort_unstable();
        found
    }

    /// Every part, for [`Machine::fingerprint`].
    pub(crate) fn visit(&self, take: Take<'_>) {
        let mut ways: Vec<Way> = self.lines.values().flatten().copied().collect();
        ways.sort_unstable_by_key(|way| way.number);
        take(Part::Value(ways.len() as u64));
        for way in ways {
            take(Part::Value(way.number));
            take(Part::Event(way.filled));
            take(Part::Event(way.used));
        }
    }
}

impl Machine {
    /// Whether instruction caches have sets and ways.
    pub(crate) fn has_sets(&self) -> bool {
        self.config.icache != InstructionCache::Adversarial
    }

    /// When a CPU's cache was filled with the line of an address, if it has it.
    pub(crate) fn line_filled(&self, cpu: CpuId, phys: u64) -> Option<u64> {
        self.cpus.get(cpu.index())?.icache.as_ref()?.filled(phys)
    }

    /// Whether a cache has a line of a physical range.
    pub(crate) fn has_line(&self, cpu: CpuId, phys: u64, len: u64) -> bool {
        let first = phys >> self.lines.shift();
        let last = (phys + len.saturating_sub(1)) >> self.lines.shift();
        (first..=last).any(|n| self.line_filled(cpu, n << self.lines.shift()).is_some())
    }

    /// A store is about to change a piece of a line: the CPUs whose caches then hold what it was.
    pub(crate) fn caches_with_newest(&self, number: u64) -> Vec<CpuId> {
        let phys = number << self.lines.shift();
        let older = |cpu: CpuId| {
            let line = self.lines.get(number);
            let held = line.into_iter().flat_map(|l| &l.versions).flat_map(|v| &v.held);
            held.into_iter().any(|h| h.cpu == cpu && h.resident)
        };
        let all = self.all_cpus();
        all.filter(|cpu| self.line_filled(*cpu, phys).is_some() && !older(*cpu)).collect()
    }

    /// A store takes a physical range out of every cache.
    pub(crate) fn snoop(&mut self, phys: u64, len: u64) {
        for c in &mut self.cpus {
            let Some(icache) = c.icache.as_mut() else { continue };
            for number in phys >> icache.shift..=(phys + (len - 1)) >> icache.shift {
                icache.remove(number);
            }
        }
    }

    /// An invalidation reached a CPU at `moment`: what its cache had then of a range is gone.
    pub(crate) fn drop_ways(&mut self, cpu: CpuId, range: Option<(u64, u64)>, moment: u64) {
        let icache = self.cpus.get(cpu.index()).and_then(|c| c.icache.as_ref());
        let gone = icache.map(|i| i.in_range(range, moment)).unwrap_or_default();
        for phys in gone {
            self.drop_way(cpu, phys, moment);
        }
    }

    /// A line leaves a cache. What was fetched ahead from it until then stays fetched.
    fn drop_way(&mut self, cpu: CpuId, phys: u64, moment: u64) {
        let icache = self.cpus.get_mut(cpu.index()).and_then(|c| c.icache.as_mut());
        let Some(icache) = icache else { return };
        icache.remove(phys >> icache.shift);
        let size = 1 << icache.shift;
        for number in self.lines.in_range(Some((phys, size))) {
            let line = self.lines.get_mut(number).into_iter();
            let held = line.flat_map(|l| &mut l.versions).flat_map(|v| &mut v.held);
            for h in held.filter(|h| h.cpu == cpu && h.resident) {
                (h.until, h.resident) = (h.until.min(moment), false);
            }
        }
    }

    /// A fetch got something from the line of `phys`, of which `born` is the version's beginning:
    /// it hit the line, or filled it, or came out of the fetch queue, which changes nothing.
    /// The fetch was made at `moment`.
    pub(crate) fn cache_fetched(&mut self, cpu: CpuId, phys: PhysAddr, born: u64, moment: u64) {
        if !self.has_sets() {
            return;
        }
        let shift = self.lines.shift();
        let number = phys.0 >> shift;
        let now = self.advance();
        if self.line_filled(cpu, phys.0).is_some() {
            if let Some(c) = self.cpus.get_mut(cpu.index()).and_then(|c| c.icache.as_mut()) {
                c.hit(phys.0, now);
            }
            return;
        }
        let newest = self.lines.get(number).map_or(0, |line| line.newest_born);
        let unified = |born: u64| {
            let line = self.lines.get(number);
            line.into_iter()
                .flat_map(|l| &l.versions)
                .any(|v| v.born == born && v.cleaned.is_none())
        };
        if born != newest && !unified(born) {
            return;
        }
        self.make_room(cpu, phys, now);
        let Some(icache) = self.cpus.get_mut(cpu.index()).and_then(|c| c.icache.as_mut()) else {
            return;
        };
        icache.insert(phys.0, moment, now);
        let (first, count) = {
            let start = phys.0 >> icache.shift << icache.shift;
            (start >> shift, 1u64 << (icache.shift - shift))
        };
        for piece in first..first + count {
            let got = if piece == number { Some(born) } else { self.unified_returns(cpu, piece) };
            self.hold_resident(cpu, piece, got);
        }
    }

    /// What the point of unification returns for another piece of a line that is filled, by the
    /// beginning of the version: `None` = the newest.
    fn unified_returns(&mut self, cpu: CpuId, number: u64) -> Option<u64> {
        let line = self.lines.get(number)?;
        let mut born: Vec<u64> =
            line.versions.iter().filter(|v| v.cleaned.is_none()).map(|v| v.born).collect();
        born.reverse();
        let (phys, options) = (PhysAddr(number << self.lines.shift()), born.len() + 1);
        let answer = self.choices.ask(Choice::LineFill { cpu, phys, options });
        answer.checked_sub(1).and_then(|n| born.get(n).copied())
    }

    /// Notes which version of a piece a CPU's cache has.
    fn hold_resident(&mut self, cpu: CpuId, number: u64, born: Option<u64>) {
        let versions = self.lines.get_mut(number).map(|line| &mut line.versions);
        let old = versions.into_iter().flatten().find(|v| Some(v.born) == born);
        let Some(version) = old else { return };
        let at = version.held.iter().position(|h| h.cpu == cpu).unwrap_or_else(|| {
            version.held.push(crate::lines::Held::new(cpu, OPEN));
            version.held.len() - 1
        });
        if let Some(h) = version.held.get_mut(at) {
            (h.until, h.resident) = (OPEN, true);
        }
    }

    /// One line of a full set goes: those with an old version and those not used for long are
    /// offered first.
    fn make_room(&mut self, cpu: CpuId, phys: PhysAddr, now: u64) {
        let icache = self.cpus.get(cpu.index()).and_then(|c| c.icache.as_ref());
        let Some((shift, mut rivals)) = icache.map(|i| (i.shift, i.rivals(phys.0))) else { return };
        let is_old = |way: &Way| {
            let numbers = self.lines.in_range(Some((way.number << shift, 1 << shift)));
            let lines = numbers.into_iter().filter_map(|n| self.lines.get(n));
            let mut held = lines.flat_map(|l| &l.versions).flat_map(|v| &v.held);
            held.any(|h| h.cpu == cpu && h.resident)
        };
        rivals.sort_by_key(|way| (!is_old(way), way.used));
        if rivals.is_empty() {
            return;
        }
        let answer = self.choices.ask(Choice::Evict { cpu, phys, options: rivals.len() });
        if let Some(way) = rivals.get(answer) {
            self.drop_way(cpu, way.number << shift, now);
        }
    }
}
