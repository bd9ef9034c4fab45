//! Old versions of lines of memory, and who still holds them.
//!
//! Memory itself has the newest bytes. A line that is stored to leaves a version behind here as
//! long as some fetch may still get it: because it was not cleaned to the point of unification
//! (`cleaned`), or because a CPU's instruction cache or fetch queue holds it (`held`). Every moment
//! is a count of the machine's events.
//!
//! A bound on memory: of one line at most [`MOST`] versions are kept; beyond it one from the middle
//! goes (as if it had never been visible outside the writer's data cache), so that the oldest and
//! the youngest stay.

use rustc_hash::FxHashMap;
use textbed_arch::{Arch, CpuId, Features};

use crate::MachineConfig;

/// Versions kept of one line.
const MOST: usize = 16;
/// Lines beyond which a sweep looks for some that nobody can reach any more.
const SWEEP: usize = 8192;
/// No end is known yet.
pub(crate) const OPEN: u64 = u64::MAX;

/// A CPU's hold on a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) cpu: CpuId,
    /// Moment from which a fetch does not get it any more.
    pub(crate) until: u64,
    /// Intel: linear lines at which this CPU's own store was seen by its fetch queue.
    pub(crate) not_at: Vec<u64>,
    /// The store that ended the version is this CPU's own, and nothing says yet that it was
    /// performed: then `until` is open.
    pub(crate) waits: bool,
    /// Last moment at which a fetch got it: an invalidation cannot have reached the CPU before.
    pub(crate) got: u64,
    /// The CPU's instruction cache of sets and ways has it.
    pub(crate) resident: bool,
}

impl Held {
    /// A hold until some moment.
    pub(crate) fn new(cpu: CpuId, until: u64) -> Self {
        Self { cpu, until, not_at: Vec::new(), waits: false, got: 0, resident: false }
    }
}

/// What a line held before a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Version {
    pub(crate) bytes: Box<[u8]>,
    /// When it became the newest.
    pub(crate) born: u64,
    /// When the next one did.
    pub(crate) ended: u64,
    /// Who stored the next one.
    pub(crate) by: CpuId,
    /// First byte of the line that the next one changed, and the byte after the last.
    pub(crate) changed: (usize, usize),
    /// When the point of unification ceased to return it.
    pub(crate) cleaned: Option<u64>,
    pub(crate) held: Vec<Held>,
}

/// A line with a past.
#[derive(Clone, Default, Debug)]
pub(crate) struct Line {
    /// The oldest first; without what memory has.
    pub(crate) versions: Vec<Version>,
    /// When memory's bytes became the newest.
    pub(crate) newest_born: u64,
    /// Last access of a CPU to the line: it orders the CPU's own cleans.
    pub(crate) accessed: Vec<(CpuId, u64)>,
}

impl Line {
    /// Notes an access of a CPU.
    pub(crate) fn touch(&mut self, cpu: CpuId, now: u64) {
        match self.accessed.iter_mut().find(|(c, _)| *c == cpu) {
            Some((_, at)) => *at = now.max(*at),
            None => self.accessed.push((cpu, now)),
        }
    }

    /// When a CPU last accessed it.
    pub(crate) fn last_access(&self, cpu: CpuId) -> u64 {
        self.accessed.iter().find(|(c, _)| *c == cpu).map_or(0, |(_, at)| *at)
    }

    /// Forgets what no CPU can get any more; `floors` has each CPU's earliest possible fetch.
    fn prune(&mut self, floors: &[u64]) {
        for v in &mut self.versions {
            v.held.retain(|h| floors.get(h.cpu.index()).is_none_or(|floor| h.until > *floor));
        }
        let gone = self.versions.iter().take_while(|v| v.cleaned.is_some() && v.held.is_empty());
        let gone = gone.count();
        self.versions.drain(..gone);
        if self.versions.len() > MOST {
            let in_cache = |v: &Version| v.held.iter().any(|h| h.resident);
            let middle = (MOST / 2..=MOST).find(|n| !self.versions.get(*n).is_some_and(in_cache));
            self.versions.remove(middle.unwrap_or(MOST / 2).min(MOST));
        }
    }

    /// Whether nothing is left to know.
    fn is_idle(&self, floors: &[u64]) -> bool {
        self.versions.is_empty() && floors.iter().all(|floor| self.newest_born <= *floor)
    }
}

/// Every line with a past.
#[derive(Clone)]
pub(crate) struct Lines {
    map: FxHashMap<u64, Line>,
    shift: u32,
    dline: u32,
    iline: u32,
    /// Stores reach the point of unification at once.
    pub(crate) unified: bool,
    /// Instruction caches follow stores by themselves.
    pub(crate) coherent: bool,
    sweep_at: usize,
    /// Lines that changed in what fetches may get of them, and the last such change.
    stamps: FxHashMap<u64, u64>,
    /// What lines have that are not in there.
    stamp: u64,
    changes: u64,
}

impl Lines {
    pub(crate) fn new(config: &MachineConfig) -> Self {
        let has = |feature| config.features.contains(feature);
        let (unified, coherent) = match config.arch {
            Arch::X86_64 => (true, true),
            Arch::Arm64 => (has(Features::ARM_IDC), has(Features::ARM_DIC)),
            Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => {
                let coherent = has(Features::PPC_COHERENT_ICACHE);
                (coherent, coherent)
            }
        };
        let all = || (0..config.cpus).map(|n| config.geometry_of(CpuId(n)));
        let dline = all().map(|g| g.dline_bytes).min().unwrap_or(4);
        let iline = all().map(|g| g.iline_bytes).min().unwrap_or(4);
        Self {
            map: FxHashMap::default(),
            // Sizes are powers of two; a larger line is several of these.
            shift: u32::ilog2(dline.min(iline).max(4)),
            dline,
            iline,
            unified,
            coherent,
            sweep_at: SWEEP,
            stamps: FxHashMap::default(),
            stamp: 0,
            changes: 0,
        }
    }

    /// The smallest data and instruction line of a CPU, in bytes.
    pub(crate) fn geometry(&self) -> (u32, u32) {
        (self.dline, self.iline)
    }

    /// `log2` of the line in bytes.
    pub(crate) fn shift(&self) -> u32 {
        self.shift
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Line> {
        self.map.get(&number)
    }

    /// A line, to change what fetches may get of it.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Line> {
        if self.map.contains_key(&number) {
            self.stamp_line(number);
        }
        self.map.get_mut(&number)
    }

    /// A line, to note something that no fetch depends on.
    pub(crate) fn note_mut(&mut self, number: u64) -> Option<&mut Line> {
        self.map.get_mut(&number)
    }

    /// Notes a CPU's access to the lines with a past in a range, on which no fetch depends.
    pub(crate) fn touch(&mut self, phys: u64, len: u64, cpu: CpuId, now: u64) {
        if self.map.is_empty() || len == 0 {
            return;
        }
        let (first, last) = (phys >> self.shift, (phys + (len - 1)) >> self.shift);
        if first == last {
            if let Some(line) = self.map.get_mut(&first) {
                line.touch(cpu, now);
            }
            return;
        }
        for number in self.in_range(Some((phys, len))) {
            if let Some(line) = self.map.get_mut(&number) {
                line.touch(cpu, now);
            }
        }
    }

    pub(crate) fn entry(&mut self, number: u64) -> &mut Line {
        self.stamp_line(number);
        self.map.entry(number).or_default()
    }

    /// Grows whenever a line of a range changes in what fetches may get of it.
    pub(crate) fn stamp(&self, phys: u64, len: u64) -> u64 {
        let lines = phys >> self.shift..=(phys + len.max(1) - 1) >> self.shift;
        let stamps = lines.filter_map(|number| self.stamps.get(&number).copied());
        stamps.fold(self.stamp, u64::max)
    }

    /// Grows whenever any stamp does.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The bytes of a range changed.
    pub(crate) fn stamp_range(&mut self, phys: u64, len: u64) {
        let (first, last) = (phys >> self.shift, (phys + len.max(1) - 1) >> self.shift);
        if last - first > SWEEP as u64 {
            return self.stamp_all();
        }
        (first..=last).for_each(|number| self.stamp_line(number));
    }

    fn stamp_line(&mut self, number: u64) {
        if self.stamps.len() > 4 * SWEEP {
            self.stamp_all();
        }
        self.changes += 1;
        self.stamps.insert(number, self.changes);
    }

    fn stamp_all(&mut self) {
        self.changes += 1;
        self.stamp = self.changes;
        self.stamps.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Lines with a past.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Forgets what can be forgotten of one line.
    pub(crate) fn prune(&mut self, number: u64, floors: &[u64]) {
        if let Some(line) = self.map.get_mut(&number) {
            line.prune(floors);
            if line.is_idle(floors) {
                self.map.remove(&number);
            }
        }
    }

    /// Forgets what can be forgotten of all lines, if there are many.
    pub(crate) fn sweep(&mut self, floors: impl FnOnce() -> Vec<u64>) {
        if self.map.len() < self.sweep_at {
            return;
        }
        let floors = floors();
        self.map.retain(|_, line| {
            line.prune(&floors);
            !line.is_idle(&floors)
        });
        self.sweep_at = SWEEP.max(self.map.len() * 2);
        self.stamp_all();
    }

    /// Numbers of the lines with a past in a physical range, in order; of all, without a range.
    pub(crate) fn in_range(&self, range: Option<(u64, u64)>) -> Vec<u64> {
        let mut numbers: Vec<u64> = match range {
            None => self.map.keys().copied().collect(),
            Some((_, 0)) => Vec::new(),
            Some((phys, len)) => {
                let (first, last) = (phys >> self.shift, (phys + (len - 1)) >> self.shift);
                if last - first < self.map.len() as u64 {
                    (first..=last).filter(|n| self.map.contains_key(n)).collect()
                } else {
                    self.map.keys().copied().filter(|n| (first..=last).contains(n)).collect()
                }
            }
        };
        numbers.sort_unstable();
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(born: u64, cleaned: Option<u64>, until: Option<u64>) -> Version {
        let held = until.map(|until| Held::new(CpuId(0), until));
        Version {
            bytes: Box::new([0; 64]),
            born,
            ended: born + 1,
            by: CpuId(0),
            changed: (0, 4),
            cleaned,
            held: held.into_iter().collect(),
        }
    }

    #[test]
    fn only_what_nobody_can_get_is_forgotten() {
        let mut line = Line {
            versions: vec![
                version(1, Some(2), Some(5)),
                version(2, Some(3), Some(OPEN)),
                version(3, None, None),
            ],
            newest_born: 4,
            ..Line::default()
        };
        line.prune(&[4]);
        assert_eq!(line.versions.len(), 3);
        line.prune(&[5]);
        assert_eq!(line.versions.len(), 2);
        for v in &mut line.versions {
            v.cleaned = Some(6);
            v.held.clear();
        }
        line.prune(&[5]);
        assert!(line.versions.is_empty() && line.is_idle(&[5, 4]) && !line.is_idle(&[3, 5]));
    }

    #[test]
    fn the_bound_keeps_both_ends() {
        let mut line =
            Line { versions: (0..40).map(|n| version(n, None, None)).collect(), ..Line::default() };
        while line.versions.len() > MOST {
            line.prune(&[0]);
        }
        assert_eq!((line.versions[0].born, line.versions[MOST - 1].born), (0, 39));
    }
}
