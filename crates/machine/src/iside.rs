//! The instruction side of a CPU: what a fetch may get, and what a store leaves behind for it.
//!
//! Modelled, for each CPU: an instruction cache that may hold several old versions of a physical
//! line (only where it is not coherent), and a fetch queue: what was fetched ahead since the last
//! context synchronisation, by the translations of that time. The queue is not a list of bytes but
//! of possibilities, each with the moments between which it could have been fetched. Where fetches
//! of a CPU are made in program order (arm64; AMD, APM vol 2 7.6.1) a fetch moves the earliest
//! moment of all later ones (`cursor`): an instruction cache line or queue entry older than that is
//! out of reach, which is the fetch anchor. On Intel and Power only context synchronisation does.
//!
//! A store that the CPU makes to what it fetched ahead: AMD compares physical addresses and drops
//! it; Intel compares linear addresses, so an alias stays old (SDM 3A 11.6); elsewhere it is as any
//! other CPU's store, and where nothing orders it before a later fetch (arm64 with DIC, Power with
//! a coherent instruction cache) a context synchronisation does not either: a barrier between the
//! two does, or what shows that the store was performed. A bound on memory: of the translations
//! that went away since a CPU's last synchronisation the last 512 are kept.
//!
//! A cache here keeps whatever it may: a version that is not taken at a fetch was evicted. Sets and
//! ways, where a machine has them, are in [`crate::icache`]. Not modelled: the jump that the Intel
//! text asks for after a store to code.

use textbed_arch::effect::SyncCause;
use textbed_arch::{Arch, CpuId, Features, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Flags, OpId, View};

use crate::choice::Choice;
use crate::exec_map::overlap;
use crate::lines::{Held, OPEN, Version};
use crate::{Machine, MachineError};

/// A translation that could be used for fetches until it went away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Past {
    pub(crate) virt: u64,
    pub(crate) len: u64,
    pub(crate) phys: u64,
    pub(crate) tag: Option<u16>,
    pub(crate) since: u64,
    pub(crate) until: u64,
}

/// Translations that went away, kept for one CPU; the oldest goes first.
const MOST_PAST: usize = 512;

/// What one CPU fetched ahead.
#[derive(Clone, Default, Debug)]
pub(crate) struct Ahead {
    /// Last context synchronisation.
    pub(crate) floor: u64,
    /// Earliest moment of the next fetch where fetches are in order; at least `floor`.
    pub(crate) cursor: u64,
    /// Translations that went away since then.
    pub(crate) past: Vec<Past>,
    /// Lines that the CPU stored to, without anything that says that the store was performed.
    pub(crate) waiting: Vec<u64>,
}

/// What shows that a CPU's own stores were performed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Performed {
    /// A fetch saw what was stored up to this moment: each of those when it happened.
    Seen(u64),
    /// Something known to be after those up to this moment.
    Before(u64),
    /// All of them, some time until now.
    ByNow,
}

impl Ahead {
    /// A translation for fetches went away.
    pub(crate) fn went(&mut self, past: Past) {
        if past.until <= self.floor || self.past.contains(&past) {
            return;
        }
        if self.past.len() >= MOST_PAST {
            self.past.remove(0);
        }
        self.past.push(past);
    }
}

/// Something that a fetch may get.
pub(crate) struct Candidate {
    pub(crate) bytes: Vec<u8>,
    /// Stores to these bytes that it misses.
    pub(crate) behind: u32,
    /// Earliest moment at which it could have been fetched.
    pub(crate) start: u64,
    /// When it was stored: the fetch knows of that.
    pub(crate) born: u64,
    /// Who stored it, where something older is known.
    pub(crate) by: Option<CpuId>,
    /// When the version of the whole line began that it is from.
    version: u64,
    /// The version by the moment at which it ended; `None` = the newest.
    ended: Option<u64>,
}

impl Machine {
    /// Whether each CPU's fetches are made in program order.
    pub(crate) fn fetches_in_order(&self) -> bool {
        match self.arch() {
            Arch::X86_64 => self.has(Features::X86_AMD),
            Arch::Arm64 => true,
            Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => false,
        }
    }

    /// Earliest moment at which the next fetch of a CPU can have been made.
    pub(crate) fn fetch_floor(&self, cpu: CpuId) -> u64 {
        let in_order = self.fetches_in_order();
        self.cpus.get(cpu.index()).map_or(
            0,
            |c| {
                if in_order { c.ahead.cursor } else { c.ahead.floor }
            },
        )
    }

    pub(crate) fn fetch_floors(&self) -> Vec<u64> {
        self.all_cpus().map(|cpu| self.fetch_floor(cpu)).collect()
    }

    /// An address at which a CPU can have fetched from a physical range until now: by its tables,
    /// by what its TLB holds, or by a translation that went away since its last synchronisation.
    /// `kernel` is what the kernel's tables, which all share, have for it.
    pub(crate) fn reaches(
        &self,
        cpu: CpuId,
        phys: u64,
        len: u64,
        kernel: Option<u64>,
    ) -> Option<VirtAddr> {
        let c = self.cpus.get(cpu.index())?;
        let own = self.spaces.get(c.space.0 as usize).filter(|_| c.space != SpaceId::KERNEL);
        let tables = kernel.or_else(|| own.and_then(|s| s.exec.reaching(phys, len)));
        let held = || {
            let mut entries = c.tlb.entries().iter().filter(|e| {
                e.replaced.is_some() && e.perm.executable() && e.tag.is_none_or(|tag| tag == c.asid)
            });
            entries.find_map(|e| overlap(e.phys, e.len, phys, len).map(|at| e.virt + (at - e.phys)))
        };
        let floor = self.fetch_floor(cpu);
        let past = || {
            let mut past = c.ahead.past.iter().filter(|p| p.until > floor);
            past.find_map(|p| overlap(p.phys, p.len, phys, len).map(|at| p.virt + (at - p.phys)))
        };
        tables.or_else(held).or_else(past).map(VirtAddr)
    }

    /// The CPUs that (as the policy has it) fetched a physical range ahead. A CPU's own store is
    /// taken into account where its queue notices it by physical address.
    fn prefetched(&mut self, phys: u64, len: u64, own: Option<CpuId>) -> (bool, Vec<CpuId>) {
        let mut any = false;
        let mut who = Vec::new();
        let kernel = self.spaces.first().and_then(|s| s.exec.reaching(phys, len));
        for cpu in self.all_cpus() {
            // What was executed may be in a cache that no translation leads to any more.
            let has = self.has_sets() && self.has_line(cpu, phys, len);
            any |= has;
            let Some(virt) = self.reaches(cpu, phys, len, kernel) else { continue };
            any = true;
            // Caches of sets and ways are filled by fetches alone.
            if self.has_sets() && !(has && self.lines.coherent) {
                continue;
            }
            if own == Some(cpu) && self.sees_own_stores() {
                continue;
            }
            if self.choices.yes(Choice::Prefetch { cpu, virt, phys: PhysAddr(phys), len }) {
                who.push(cpu);
            }
        }
        (any, who)
    }

    /// AMD: a CPU's own stores reach its fetches at once, by physical address.
    fn sees_own_stores(&self) -> bool {
        self.arch() == Arch::X86_64 && self.has(Features::X86_AMD)
    }

    /// Before `bytes` replace what is at `phys`, by a store of `cpu` at `virt` (`None`: not by
    /// address). Returns whether anything changes.
    pub(crate) fn before_store(
        &mut self,
        cpu: CpuId,
        virt: Option<VirtAddr>,
        phys: PhysAddr,
        bytes: &[u8],
    ) -> Result<bool, MachineError> {
        let now = self.advance();
        let mut room = [0; 16];
        let mut more = Vec::new();
        let old = match room.get_mut(..bytes.len()) {
            Some(few) => few,
            None => {
                more.resize(bytes.len(), 0);
                &mut more[..]
            }
        };
        self.memory.read(phys, old)?;
        if old == bytes {
            return Ok(false);
        }
        let len = bytes.len() as u64;
        // Where stores have to be cleaned first, what was fetched ahead is decided at the clean.
        let (reached, who) = if self.lines.unified {
            self.prefetched(phys.0, len, Some(cpu))
        } else {
            (true, Vec::new())
        };
        if !reached && self.lines.is_empty() {
            return Ok(true);
        }
        if !self.lines.unified {
            self.clean_before_store(cpu, phys.0, len);
        }
        let shift = self.lines.shift();
        let size = 1u64 << shift;
        for number in phys.0 >> shift..=(phys.0 + (len - 1)) >> shift {
            let start = number << shift;
            let (a, b) = (phys.0.max(start), (phys.0 + len).min(start + size));
            let (from, to) = ((a - phys.0) as usize, (b - phys.0) as usize);
            let (was, is) = (&old[from..to], &bytes[from..to]);
            let Some(first) = was.iter().zip(is).position(|(x, y)| x != y) else { continue };
            // A translation made later cannot have led to what was here before.
            if !reached && self.lines.get(number).is_none() {
                continue;
            }
            let last = was.iter().zip(is).rposition(|(x, y)| x != y).unwrap_or(first);
            let at = (a - start) as usize;
            let changed = (at + first, at + last + 1);
            let holders = self.holders(number, &who);
            let at = virt.map(|v| v.0 + (a - phys.0));
            if self.line_stored(cpu, at, number, changed, &holders, now)? {
                let mut floors = std::mem::take(&mut self.floors);
                floors.clear();
                floors.extend(self.all_cpus().map(|cpu| self.fetch_floor(cpu)));
                self.lines.prune(number, &floors);
                self.floors = floors;
            }
        }
        if self.has_sets() && self.lines.coherent {
            self.snoop(phys.0, len);
        }
        Ok(true)
    }

    /// Of the CPUs that fetched ahead, those that did from this line; and whose cache has it.
    fn holders(&self, number: u64, who: &[CpuId]) -> Vec<CpuId> {
        if !self.has_sets() {
            return who.to_vec();
        }
        if !self.lines.coherent {
            return self.caches_with_newest(number);
        }
        let phys = number << self.lines.shift();
        who.iter().copied().filter(|cpu| self.line_filled(*cpu, phys).is_some()).collect()
    }

    /// A line is about to change: keeps what it was for those who may still get it. Whether
    /// anything old is kept of it.
    fn line_stored(
        &mut self,
        cpu: CpuId,
        virt: Option<u64>,
        number: u64,
        changed: (usize, usize),
        who: &[CpuId],
        now: u64,
    ) -> Result<bool, MachineError> {
        let (unified, coherent) = (self.lines.unified, self.lines.coherent);
        let sets = self.has_sets();
        let shift = self.lines.shift();
        let seen = self.sees_own_stores();
        let x86 = self.arch() == Arch::X86_64;
        let mut waits = false;
        let line = self.lines.entry(number);
        line.touch(cpu, now);
        if !unified || !who.is_empty() || !line.versions.is_empty() {
            let mut bytes = vec![0; 1 << shift];
            self.memory.read(PhysAddr(number << shift), &mut bytes)?;
            let until = if coherent { now } else { OPEN };
            line.versions.push(Version {
                bytes: bytes.into_boxed_slice(),
                born: line.newest_born,
                ended: now,
                by: cpu,
                changed,
                cleaned: unified.then_some(now),
                held: who
                    .iter()
                    .map(|cpu| Held { resident: sets && !coherent, ..Held::new(*cpu, until) })
                    .collect(),
            });
            // Where stores are not ordered before fetches, the CPU's own one may still wait.
            let own = line.versions.last_mut().map(|v| &mut v.held).into_iter().flatten();
            for h in own.filter(|h| h.cpu == cpu && coherent && !x86) {
                (h.until, h.waits) = (OPEN, true);
                waits = true;
            }
        }
        line.newest_born = now;
        let kept = !line.versions.is_empty();
        if let Some(c) = self.cpus.get_mut(cpu.index()).filter(|_| waits) {
            c.ahead.waiting.push(number);
        }
        if x86 {
            for v in &mut line.versions {
                if seen {
                    v.held.retain(|h| h.cpu != cpu);
                } else if let Some(at) = virt {
                    for h in v.held.iter_mut().filter(|h| h.cpu == cpu) {
                        h.not_at.push(at >> shift);
                    }
                }
            }
        }
        Ok(kept)
    }

    /// After old versions of a line left the point of unification: who had fetched them?
    pub(crate) fn hold_cleaned(&mut self, number: u64, from: usize, to: usize) {
        let shift = self.lines.shift();
        let until = if self.lines.coherent { self.tick } else { OPEN };
        let (_, who) = self.prefetched(number << shift, 1 << shift, None);
        let floors = self.fetch_floors();
        if let Some(line) = self.lines.get_mut(number) {
            for v in line.versions.iter_mut().take(to).skip(from) {
                for cpu in &who {
                    if !v.held.iter().any(|h| h.cpu == *cpu) {
                        v.held.push(Held::new(*cpu, until));
                    }
                }
            }
        }
        self.lines.prune(number, &floors);
    }

    /// An invalidation reached a CPU at `moment`: of the lines in `range` (all without one) it
    /// holds no longer what the point of unification did not return then.
    pub(crate) fn drop_lines(&mut self, cpu: CpuId, range: Option<(u64, u64)>, moment: u64) {
        let floors = self.fetch_floors();
        if self.has_sets() {
            self.drop_ways(cpu, range, moment);
        }
        for number in self.lines.in_range(range) {
            if let Some(line) = self.lines.get_mut(number) {
                for v in &mut line.versions {
                    if v.cleaned.is_some_and(|cleaned| cleaned <= moment) {
                        for h in v.held.iter_mut().filter(|h| h.cpu == cpu && !h.resident) {
                            h.until = h.until.min(moment);
                        }
                    }
                }
            }
            self.lines.prune(number, &floors);
        }
    }

    /// What a fetch of `len` bytes at `virt`, all in one line, may get by a translation that led to
    /// `phys` from `since` until `until`: the newest first.
    pub(crate) fn candidates(
        &self,
        cpu: CpuId,
        virt: VirtAddr,
        phys: PhysAddr,
        len: usize,
        (since, until): (u64, u64),
    ) -> Result<Vec<Candidate>, MachineError> {
        let mut bytes = vec![0; len];
        self.memory.read(phys, &mut bytes)?;
        let floor = self.fetch_floor(cpu).max(since);
        let shift = self.lines.shift();
        let Some(line) = self.lines.get(phys.0 >> shift) else {
            // It never changed, as far as any fetch can tell.
            let newest = Candidate {
                bytes,
                behind: 0,
                start: floor,
                born: 0,
                by: None,
                version: 0,
                ended: None,
            };
            return Ok(if floor < until { vec![newest] } else { Vec::new() });
        };
        let at = (phys.0 & ((1 << shift) - 1)) as usize;
        let mut out = Vec::new();
        // A line in the cache is what fetches get from when it was filled.
        let filled = self.line_filled(cpu, phys.0).unwrap_or(OPEN);
        let in_cache = |v: &Version| v.held.iter().any(|h| h.cpu == cpu && h.resident);
        let old = filled != OPEN && line.versions.iter().any(in_cache);
        let start = floor.max(line.newest_born);
        if start < until.min(if old { filled } else { OPEN }) {
            let born = line.newest_born;
            let by = line.versions.last().map(|v| v.by);
            out.push(Candidate { bytes, behind: 0, start, born, by, version: born, ended: None });
        }
        let mut behind = 0;
        for (n, v) in line.versions.iter().enumerate().rev() {
            let by = n.checked_sub(1).and_then(|n| line.versions.get(n)).map(|v| v.by);
            if v.changed.0 < at + len && at < v.changed.1 {
                behind += 1;
            }
            if let Some(last) = out.last_mut().filter(|last| last.behind == behind) {
                // The same bytes, stored earlier.
                (last.born, last.by) = (v.born, by);
            }
            let held = v.held.iter().find(|h| h.cpu == cpu);
            let held = held.filter(|h| !h.not_at.contains(&(virt.0 >> shift)));
            let end = match v.cleaned {
                None => OPEN,
                Some(_) => held.map_or(0, |h| h.until),
            };
            let end = if in_cache(v) { end } else { end.min(filled) };
            let start = floor.max(v.born);
            if start >= end.min(until) {
                continue;
            }
            match out.last_mut() {
                // The same bytes, fetched earlier.
                Some(last) if last.behind == behind => {
                    if start < last.start {
                        (last.start, last.ended) = (start, Some(v.ended));
                    }
                }
                _ => {
                    let Some(old) = v.bytes.get(at..at + len) else { continue };
                    let (bytes, ended) = (old.to_vec(), Some(v.ended));
                    let (born, version) = (v.born, v.born);
                    out.push(Candidate { bytes, behind, start, born, by, version, ended });
                }
            }
        }
        Ok(out)
    }

    /// A fetch from `phys` got a candidate, at its earliest moment or later. Own stores up to then
    /// were performed.
    pub(crate) fn fetched(&mut self, cpu: CpuId, phys: PhysAddr, candidate: &Candidate) {
        let start = candidate.start;
        if let Some(line) = self.lines.note_mut(phys.0 >> self.lines.shift()) {
            let version = line.versions.iter_mut().find(|v| Some(v.ended) == candidate.ended);
            for h in version.into_iter().flat_map(|v| &mut v.held).filter(|h| h.cpu == cpu) {
                h.got = h.got.max(start);
            }
        }
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.ahead.cursor = c.ahead.cursor.max(start);
            c.pending.saw(candidate.born);
        }
        self.cache_fetched(cpu, phys, candidate.version, start);
        self.stores_performed(cpu, Performed::Seen(start));
    }

    /// Something says that the CPU's own stores were performed. Until then its own fetches need not
    /// see them, where fetches are not ordered after stores (arm64 with DIC, Power with a coherent
    /// instruction cache).
    pub(crate) fn stores_performed(&mut self, cpu: CpuId, which: Performed) {
        let now = self.tick;
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return };
        if c.ahead.waiting.is_empty() {
            return;
        }
        let floor = c.ahead.floor;
        let mut waiting = std::mem::take(&mut c.ahead.waiting);
        waiting.retain(|number| {
            let mut left = false;
            let versions = self.lines.get_mut(*number).map(|line| &mut line.versions);
            for v in versions.into_iter().flatten() {
                let ended = v.ended;
                for h in v.held.iter_mut().filter(|h| h.cpu == cpu && h.waits) {
                    match which {
                        Performed::Seen(moment) if ended <= moment => {
                            (h.until, h.waits) = (ended, false);
                        }
                        // Some moment until then; a fetch may still show that it was earlier.
                        Performed::Before(moment) if ended <= moment => {
                            h.until = h.until.min(moment);
                        }
                        Performed::ByNow => h.until = h.until.min(now),
                        Performed::Seen(_) | Performed::Before(_) => {}
                    }
                    h.waits &= h.until > floor;
                    left |= h.waits;
                }
            }
            left
        });
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.ahead.waiting = waiting;
        }
    }

    /// A CPU drops what it had fetched ahead, and emits why.
    pub(crate) fn context_sync(&mut self, cpu: CpuId, cause: SyncCause, op: OpId) {
        let now = self.advance();
        self.context_sync_at(cpu, now, cause, op);
    }

    /// As [`Self::context_sync`], at a moment that began already.
    pub(crate) fn context_sync_at(&mut self, cpu: CpuId, now: u64, cause: SyncCause, op: OpId) {
        let back_to = self.data_sync(cpu);
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            let floor = back_to.unwrap_or(now).max(c.ahead.floor);
            c.ahead.floor = floor;
            c.ahead.cursor = c.ahead.cursor.max(floor);
            c.ahead.past.clear();
        }
        self.stores_performed(cpu, Performed::Seen(0));
        let space = self.space_of(cpu);
        self.emit_in(cpu, space, Flags::default(), op, View::ContextSync { cause });
        let floors = self.fetch_floors();
        self.lines.sweep(move || floors);
    }

    /// Lines of memory with a past that some fetch might still see.
    #[must_use]
    pub fn lines_kept(&self) -> usize {
        self.lines.len()
    }
}
