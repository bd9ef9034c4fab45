//! A machine of the simulator with the checker behind it: steps of programs, each of whose accesses
//! is held against the windows that the checker keeps ([`super::random`] says what is asked).

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use textbed_arch::paging::Attributes;
use textbed_arch::sync::translation::{Change, wants_break};
use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{MemOrder, Sink, View};
use textbed_machine::{Choice, Machine, MachineConfig, Policy};

use crate::Checker;
use crate::options::Options;
use crate::span::Span;
use crate::translation::ways::Way;

pub(super) const CPUS: u16 = 3;
/// Pages that are asked for; the last is one of the large range.
pub(super) const PAGES: u64 = 4;
pub(super) const LARGE: u64 = PAGES - 1;
const PAGE: u64 = 4096;
/// Halves of a group of pages that translate together (arm64).
pub(super) const HALVES: [u64; 2] = [PAGES, PAGES + 1];
const HALF: u64 = 8 * PAGE;
/// Where they stand: below no entry of an upper level that leads to the others.
const APART: u64 = 1 << 30;
/// Bytes of the large range, and where the page that is asked for stands in it.
const RANGE: u64 = 512 * PAGE;
const WITHIN: u64 = 7 * PAGE;
/// Bytes at which frames begin: one for each page but the last, two for that, and two for each
/// half.
const FRAMES: u64 = 9;
/// The first of those for halves.
const OF_HALVES: u64 = 5;
const KERNEL: SpaceId = SpaceId::KERNEL;

/// One step of a program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Maps a page to a frame, if it is not mapped.
    Map {
        page: u64,
        frame: u64,
        writable: bool,
    },
    Unmap {
        page: u64,
    },
    /// Takes the right to store away, or gives it back.
    Protect {
        page: u64,
        writable: bool,
    },
    /// Makes one leaf of the large range.
    Collapse,
    /// Gives what is mapped of the group the contiguous bit, or takes it away.
    Join {
        page: u64,
        contiguous: bool,
    },
    /// Takes the right to store away from all below the entry of a level that leads to a page, or
    /// gives it back.
    Limit {
        level: usize,
        page: u64,
        writable: bool,
    },
    /// Invalidates a page, by its last level or all, or everything.
    Flush {
        page: Option<u64>,
        local: bool,
        last: bool,
    },
    /// A barrier: of its architecture's list, modulo its length.
    Barrier(usize),
    /// The others learn what this CPU changed, and each executes a barrier that walks go by.
    Tell,
    /// A load that uses the oldest translation that it can, and a store.
    Load {
        page: u64,
    },
    Store {
        page: u64,
    },
}

/// Holds whatever it may, completes invalidations as early as it may, and uses the oldest
/// translation while `old` is set.
struct Keeps {
    old: Rc<Cell<bool>>,
}

impl Policy for Keeps {
    fn choose(&mut self, choice: &Choice) -> usize {
        match choice {
            Choice::TlbFill { .. } | Choice::UpperFill { .. } => 1,
            Choice::TlbiReached { options, .. } => options - 1,
            Choice::Translation { options, .. } if self.old.get() => options - 1,
            _ => 0,
        }
    }
}

/// The same, and uses one of the translations that there are.
struct Nth {
    n: usize,
    options: Rc<Cell<usize>>,
}

impl Policy for Nth {
    fn choose(&mut self, choice: &Choice) -> usize {
        if let Choice::Translation { options, .. } = choice {
            self.options.set(*options);
            return self.n;
        }
        Keeps { old: Rc::default() }.choose(choice)
    }
}

/// A program on a machine, with the checker behind it.
pub(super) struct Bench {
    machine: Machine,
    checker: Checker,
    old: Rc<Cell<bool>>,
    base: VirtAddr,
    /// The frames that pages lead to, by the byte that each begins with, less one.
    frames: [u64; FRAMES as usize],
    /// Whether a leaf may take the place of a table without a break.
    collapses: bool,
    /// CPUs whose last change of the tables has no barrier behind it; and those of which in
    /// addition nobody was told.
    unseen: [bool; CPUS as usize],
    untold: [bool; CPUS as usize],
}

impl Bench {
    pub(super) fn new(arch: Arch, features: Features) -> Self {
        let old = Rc::new(Cell::new(false));
        let policy = Keeps { old: Rc::clone(&old) };
        let config = MachineConfig { features, cpus: CPUS, ..MachineConfig::new(arch) };
        let mut machine = Machine::new(config, Box::new(policy)).unwrap();
        let small = machine.alloc_frames(CpuId(0), LARGE, 12, true).unwrap().addr().0;
        let large = machine.alloc_frames(CpuId(0), 2 * RANGE / PAGE, 21, false).unwrap().addr().0;
        let halves = machine.alloc_frames(CpuId(0), 4 * HALF / PAGE, 16, false).unwrap().addr().0;
        let mut frames = [0; FRAMES as usize];
        for (n, at) in frames.iter_mut().enumerate() {
            let n = n as u64;
            *at = match n.checked_sub(LARGE) {
                None => small + n * PAGE,
                Some(n) if n < OF_HALVES - LARGE => large + n * RANGE + WITHIN,
                Some(_) => halves + (n - OF_HALVES) * HALF + PAGE,
            };
            machine.load_image(PhysAddr(*at), &[n as u8 + 1]).unwrap();
        }
        let collapses = wants_break(arch, features, Change::Size).is_none();
        let mut checker = Checker::new(Options::default());
        assert!(checker.begin(&machine.header()).is_continue());
        let base = VirtAddr(match arch {
            Arch::X86_64 => 0xffff_ffff_8000_0000,
            Arch::Arm64 => 0xffff_8000_8000_0000,
            _ => 0xc008_0000_0000_0000,
        });
        let unseen = [false; CPUS as usize];
        let untold = unseen;
        let mut bench = Self { machine, checker, old, base, frames, collapses, unseen, untold };
        bench.told();
        bench
    }

    /// An address of a page, where it is loaded from.
    fn virt(&self, page: u64) -> VirtAddr {
        match page {
            LARGE => self.base.offset(RANGE + WITHIN),
            page if HALVES.contains(&page) => self.range(page).0.offset(PAGE),
            page => self.base.offset(page * PAGE),
        }
    }

    /// What is mapped, unmapped and protected for it: first address and bytes.
    fn range(&self, page: u64) -> (VirtAddr, u64) {
        match page {
            LARGE => (self.base.offset(RANGE), RANGE),
            page if HALVES.contains(&page) => {
                (self.base.offset(APART + (page - HALVES[0]) * HALF), HALF)
            }
            page => (self.virt(page), PAGE),
        }
    }

    /// The checker hears of what happened.
    fn told(&mut self) {
        let batch = self.machine.take_batch();
        assert!(self.checker.batch(&batch).is_continue());
    }

    /// Frames and rights of the old answers that the checker holds open for a CPU.
    pub(super) fn open(&self, cpu: CpuId, page: u64) -> Vec<(u64, Perm)> {
        let live = self.checker.live.as_ref().unwrap();
        let at = Span::of(self.virt(page).0, 1).unwrap();
        let held = live.stale.within(KERNEL, at);
        let mine = |old: &&super::Old| old.cpus & View::cpu_bit(cpu) != 0;
        held.flat_map(|(_, olds)| {
            olds.0.iter().filter(mine).map(|old| (old.phys, old.perm)).collect::<Vec<_>>()
        })
        .collect()
    }

    /// The frame and rights that the tables give.
    fn now(&self, page: u64) -> Option<(u64, Perm)> {
        let at = self.virt(page).0;
        let m = self.machine.lookup(KERNEL, VirtAddr(at))?;
        Some((m.phys.0 + (at - m.virt.0), m.perm))
    }

    fn frame_of(&self, byte: u8) -> u64 {
        self.frames[usize::from(byte) - 1]
    }

    pub(super) fn step(&mut self, cpu: CpuId, step: Step) {
        let arch = self.machine.config().arch;
        let others = |of: &[bool]| (0..CPUS).any(|c| c != cpu.0 && of[usize::from(c)]);
        let changes = matches!(
            step,
            Step::Map { .. }
                | Step::Unmap { .. }
                | Step::Protect { .. }
                | Step::Limit { .. }
                | Step::Collapse
                | Step::Join { .. }
        );
        let flushes = matches!(step, Step::Flush { .. });
        if changes && others(&self.unseen) || flushes && others(&self.untold) {
            return;
        }
        if changes && arch != Arch::X86_64 {
            (self.unseen[cpu.index()], self.untold[cpu.index()]) = (true, true);
        }
        match step {
            Step::Map { page, frame, writable } => {
                let (at, len) = self.range(page);
                let half = page.checked_sub(HALVES[0]);
                let phys = match page {
                    _ if let Some(half) = half => {
                        self.frames[(OF_HALVES + 2 * (frame % 2) + half) as usize] - PAGE
                    }
                    LARGE => self.frames[(LARGE + frame % 2) as usize] - WITHIN,
                    _ => self.frames[frame as usize],
                };
                let perm = if writable { Perm::KERNEL_RW } else { Perm::KERNEL_RO };
                // Over an open answer on a table's own entry no conflict is asked for here.
                if self.now(page).is_none() && self.nobody_holds(page) {
                    let to = (at, PhysAddr(phys), len);
                    let contiguous = half.is_some() && arch == Arch::Arm64;
                    let attributes = Attributes { contiguous, ..Attributes::default() };
                    self.machine.map_as(cpu, KERNEL, to, 12, (perm, attributes)).unwrap();
                }
            }
            Step::Unmap { page } => {
                let (at, len) = self.range(page);
                let _ = self.machine.unmap(cpu, KERNEL, at, len);
            }
            Step::Join { page, contiguous } => {
                let (at, len) = self.range(page);
                let _ = self.machine.set_contiguous(cpu, KERNEL, at, len, contiguous);
            }
            Step::Collapse => {
                if self.collapses {
                    let _ = self.machine.collapse(cpu, KERNEL, self.virt(LARGE));
                }
            }
            Step::Limit { level, page, writable } => {
                let all = [Perm::WRITE, Perm::empty()];
                let [set, clear] = if writable { all } else { [all[1], all[0]] };
                let at = self.range(page).0;
                if !writable || !self.page_out(level, page) {
                    let _ = self.machine.protect_table(cpu, KERNEL, at, level, (set, clear));
                }
            }
            Step::Protect { page, writable } => {
                let (set, clear) = if writable {
                    (Perm::WRITE, Perm::empty())
                } else {
                    (Perm::empty(), Perm::WRITE)
                };
                let (at, len) = self.range(page);
                let _ = self.machine.protect(cpu, KERNEL, at, len, set, clear);
            }
            Step::Flush { page, local, last } => self.flush(cpu, arch, page, (local, last)),
            Step::Barrier(n) => {
                let names: &[&str] = match arch {
                    Arch::X86_64 => &["mfence"],
                    Arch::Arm64 => {
                        &["dsb ishst", "dsb ish", "dsb nsh", "dsb ishld", "isb", "dsb ish"]
                    }
                    _ => &["ptesync", "tlbsync", "sync", "eieio", "ptesync"],
                };
                let name = names[n % names.len()];
                let sees = ["dsb ishst", "dsb ish", "dsb nsh", "ptesync"];
                self.machine.op_named(cpu, name, 0).unwrap();
                if self.unseen[cpu.index()] && sees.contains(&name) {
                    self.unseen[cpu.index()] = false;
                    self.others_learn(cpu);
                }
            }
            Step::Tell => {
                self.others_learn(cpu);
                for other in (0..CPUS).map(CpuId).filter(|other| *other != cpu) {
                    self.step(other, full(arch));
                }
            }
            Step::Load { page } => self.load(cpu, page),
            Step::Store { page } => self.store(cpu, page),
        }
        self.told();
    }

    /// Barriers that let walks see what a CPU changed and complete what it issued.
    pub(super) fn closed(&mut self, cpu: CpuId) {
        let arch = self.machine.config().arch;
        if arch == Arch::Ppc64le {
            // eieio; tlbsync
            self.step(cpu, Step::Barrier(3));
            self.step(cpu, Step::Barrier(1));
        }
        self.step(cpu, full(arch));
    }

    /// The other CPUs learn that this one changed the tables, so that what they invalidate from
    /// here on comes after it.
    fn others_learn(&mut self, cpu: CpuId) {
        self.untold[cpu.index()] = false;
        self.machine.publish(cpu, "tables", 1);
        for other in (0..CPUS).map(CpuId).filter(|other| *other != cpu) {
            self.machine.observe(other, "tables").unwrap();
        }
    }

    /// Whether CPUs hold the way to a table that nothing points to, below the entry of a level that
    /// leads to a page.
    fn page_out(&self, level: usize, page: u64) -> bool {
        let ways = &self.checker.live.as_ref().unwrap().stale.ways;
        let below = if level == 1 { vec![0, LARGE] } else { vec![page] };
        let held = below.into_iter().flat_map(|page| ways.held(self.virt(page).0));
        held.into_iter().any(|way| matches!(way, Way::Page(_)))
    }

    /// Whether no CPU has an old answer there: else a new frame is a missing break, whose outcome
    /// is open.
    fn nobody_holds(&self, page: u64) -> bool {
        (0..CPUS).all(|cpu| self.open(CpuId(cpu), page).is_empty())
    }

    fn flush(&mut self, cpu: CpuId, arch: Arch, page: Option<u64>, (local, last): (bool, bool)) {
        let at = page.map(|page| self.virt(page));
        let m = &mut self.machine;
        match (arch, at) {
            (Arch::X86_64, Some(at)) => m.op_named(cpu, "invlpg", at.0).unwrap(),
            (Arch::X86_64, None) => {
                let cr4 = m.cr4(cpu);
                m.op_named(cpu, "mov cr4", cr4 ^ 1 << 7).unwrap();
                m.op_named(cpu, "mov cr4", cr4).unwrap();
            }
            (Arch::Arm64, Some(at)) => {
                let name = match (local, last) {
                    (true, true) => "tlbi vaale1",
                    (true, false) => "tlbi vaae1",
                    (false, true) => "tlbi vaale1is",
                    (false, false) => "tlbi vaae1is",
                };
                m.tlbi(cpu, name, at, PAGE, 0).unwrap();
            }
            (Arch::Arm64, None) => {
                let name = if local { "tlbi vmalle1" } else { "tlbi vmalle1is" };
                m.op_named(cpu, name, 0).unwrap();
            }
            (_, at) => {
                let name = if local { "tlbiel" } else { "tlbie" };
                m.tlbi(cpu, name, at.unwrap_or(self.base), PAGE, 0).unwrap();
            }
        }
    }

    /// What an access gives in each way that there is for it: on copies.
    fn each_way<T>(&self, access: impl Fn(&mut Machine) -> T) -> Vec<T> {
        let mut outcomes = Vec::new();
        let options = Rc::new(Cell::new(1));
        while outcomes.len() < options.get() {
            let policy = Nth { n: outcomes.len(), options: Rc::clone(&options) };
            outcomes.push(access(&mut self.machine.copy(Box::new(policy))));
        }
        outcomes
    }

    /// What a CPU finds by the tables: the page's own entry, and those that translate with it.
    fn answers(&self, page: u64) -> Vec<(u64, Perm)> {
        let live = self.checker.live.as_ref().unwrap();
        let by_group = live.group_answers(KERNEL, self.virt(page).0);
        self.now(page).into_iter().chain(by_group).collect()
    }

    fn load(&mut self, cpu: CpuId, page: u64) {
        let (open, now, at) = (self.open(cpu, page), self.answers(page), self.virt(page));
        let loaded = self.each_way(|machine| {
            let mut byte = [0];
            machine.load(cpu, at, &mut byte).ok().map(|()| byte[0])
        });
        let shown: BTreeSet<u64> =
            loaded.into_iter().flatten().map(|byte| self.frame_of(byte)).collect();
        let kept: BTreeSet<u64> = open.iter().chain(&now).map(|(phys, _)| *phys).collect();
        assert_eq!(shown, kept, "{cpu} loads, by the tables {now:x?}, and {open:x?}");
        self.old.set(true);
        let _ = self.machine.load(cpu, at, &mut [0]);
        self.old.set(false);
    }

    fn store(&mut self, cpu: CpuId, page: u64) {
        let (open, now) = (self.open(cpu, page), self.answers(page));
        let at = self.virt(page).offset(64);
        let store = |machine: &mut Machine| machine.store(cpu, at, &[1], MemOrder::Plain).is_ok();
        let stored = self.each_way(store).contains(&true);
        let kept = open.iter().chain(&now).any(|(_, perm)| perm.writable());
        assert_eq!(stored, kept, "{cpu} stores, by the tables {now:x?}, and {open:x?}");
        self.old.set(true);
        let _ = store(&mut self.machine);
        self.old.set(false);
    }
}

/// Place, in the list of its architecture, of a barrier that lets walks see what its CPU changed
/// and completes what it issued (on powerpc, behind a tlbsync).
pub(super) fn full(arch: Arch) -> Step {
    Step::Barrier(if arch == Arch::Arm64 { 1 } else { 0 })
}

/// How a program begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Start {
    Nothing,
    /// The large range becomes one leaf, and nobody is told that its table is out.
    Collapsed,
    /// Everything is mapped, and an entry of this level above it lost the right to store.
    Limited(usize),
}

impl Start {
    pub(super) fn bench(self, arch: Arch, features: Features) -> Bench {
        let mut bench = Bench::new(arch, features);
        let map = |page| Step::Map { page, frame: 0, writable: true };
        let steps = match self {
            Start::Nothing => Vec::new(),
            Start::Collapsed => vec![map(LARGE), Step::Collapse],
            Start::Limited(level) => {
                let limit = Step::Limit { level, page: LARGE, writable: false };
                (0..PAGES).map(map).chain([limit]).collect()
            }
        };
        for step in steps {
            bench.step(CpuId(0), step);
            bench.step(CpuId(0), full(arch));
        }
        bench
    }
}
