//! Random programs on the simulator, whose accesses tell what a CPU can still use, held against the
//! windows that this module keeps.
//!
//! The simulator knows nothing of windows: it has a TLB for each CPU that holds whatever it may,
//! and an invalidation that reaches it as early as barriers allow. Two things are asked of every
//! access. *Sound*: it leads to a frame, or is granted a store, only by what the tables say or by
//! an old answer that is still open for its CPU. *Tight*: as long as an old answer is open that
//! leads elsewhere, or grants more, an access of that CPU can be made to show it. All
//! architectures, with and without the errata of their invalidations.
//!
//! The last page stands for 512 in a table of their own, which a collapse takes out of the tables
//! as it is: CPUs go on through it as long as they hold the entry above.
//!
//! Not generated: flushes of one CPU before it knows of a change of another and of its barrier
//! (whether the change came first is open then; the checker goes by the stream's order), user
//! spaces, splits, tables that go back (`scenarios/rules/walk-after-free` has those).

use std::cell::Cell;
use std::rc::Rc;

use proptest::prelude::*;
use textbed_arch::sync::translation::{Change, TlbAction, changes};
use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{MemOrder, Sink, View};
use textbed_machine::{Choice, Machine, MachineConfig, Policy};

use crate::Checker;
use crate::options::Options;
use crate::span::Span;

const CPUS: u16 = 3;
/// Pages that are asked for; the last is one of the large range.
const PAGES: u64 = 4;
const LARGE: u64 = PAGES - 1;
const PAGE: u64 = 4096;
/// Bytes of the large range, and where the page that is asked for stands in it.
const RANGE: u64 = 512 * PAGE;
const WITHIN: u64 = 7 * PAGE;
/// Bytes at which frames begin: one for each page but the last, and two for that.
const FRAMES: u64 = 5;
const KERNEL: SpaceId = SpaceId::KERNEL;

/// One step of a program.
#[derive(Clone, Copy, Debug)]
enum Step {
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

fn step() -> impl Strategy<Value = (u16, Step)> {
    let page = || 0..PAGES;
    let one = prop_oneof![
        4 => (page(), 0..PAGES - 1, any::<bool>())
            .prop_map(|(page, frame, writable)| Step::Map { page, frame, writable }),
        1 => Just(Step::Collapse),
        3 => page().prop_map(|page| Step::Unmap { page }),
        3 => (page(), any::<bool>()).prop_map(|(page, writable)| Step::Protect { page, writable }),
        4 => (proptest::option::weighted(0.8, page()), any::<bool>(), any::<bool>())
            .prop_map(|(page, local, last)| Step::Flush { page, local, last }),
        6 => (0..12_usize).prop_map(Step::Barrier),
        2 => Just(Step::Tell),
        4 => page().prop_map(|page| Step::Load { page }),
        3 => page().prop_map(|page| Step::Store { page }),
    ];
    (0..CPUS, one)
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

/// A program on a machine, with the checker behind it.
struct Bench {
    machine: Machine,
    checker: Checker,
    old: Rc<Cell<bool>>,
    base: VirtAddr,
    /// The frames that pages lead to, by the byte that each begins with, less one.
    frames: [u64; FRAMES as usize],
    /// Whether a leaf may take the place of a table without a break.
    collapses: bool,
    /// Pages that were ever made writable after they were not.
    upgraded: [bool; PAGES as usize],
    /// CPUs whose last change of the tables has no barrier behind it; and those of which in
    /// addition nobody was told.
    unseen: [bool; CPUS as usize],
    untold: [bool; CPUS as usize],
}

impl Bench {
    fn new(arch: Arch, features: Features) -> Self {
        let old = Rc::new(Cell::new(false));
        let policy = Keeps { old: Rc::clone(&old) };
        let config = MachineConfig { features, cpus: CPUS, ..MachineConfig::new(arch) };
        let mut machine = Machine::new(config, Box::new(policy)).unwrap();
        let small = machine.alloc_frames(CpuId(0), LARGE, 12, true).unwrap().addr().0;
        let large = machine.alloc_frames(CpuId(0), 2 * RANGE / PAGE, 21, true).unwrap().addr().0;
        let mut frames = [0; FRAMES as usize];
        for (n, at) in frames.iter_mut().enumerate() {
            let n = n as u64;
            *at = match n.checked_sub(LARGE) {
                None => small + n * PAGE,
                Some(n) => large + n * RANGE + WITHIN,
            };
            machine.load_image(PhysAddr(*at), &[n as u8 + 1]).unwrap();
        }
        let breaks = |action| matches!(action, TlbAction::BreakBeforeMake(_));
        let collapses = !changes(arch, features, Change::Size).any(|row| breaks(row.action));
        let mut checker = Checker::new(Options::default());
        assert!(checker.begin(&machine.header()).is_continue());
        let base = VirtAddr(match arch {
            Arch::X86_64 => 0xffff_ffff_8000_0000,
            Arch::Arm64 => 0xffff_8000_8000_0000,
            _ => 0xc008_0000_0000_0000,
        });
        let (upgraded, unseen) = ([false; PAGES as usize], [false; CPUS as usize]);
        let untold = unseen;
        let mut bench =
            Self { machine, checker, old, base, frames, collapses, upgraded, unseen, untold };
        bench.told();
        bench
    }

    /// An address of a page, where it is loaded from.
    fn virt(&self, page: u64) -> VirtAddr {
        if page == LARGE { self.base.offset(RANGE + WITHIN) } else { self.base.offset(page * PAGE) }
    }

    /// What is mapped, unmapped and protected for it: first address and bytes.
    fn range(&self, page: u64) -> (VirtAddr, u64) {
        if page == LARGE { (self.base.offset(RANGE), RANGE) } else { (self.virt(page), PAGE) }
    }

    /// The checker hears of what happened.
    fn told(&mut self) {
        let batch = self.machine.take_batch();
        assert!(self.checker.batch(&batch).is_continue());
    }

    /// Frames and rights of the old answers that the checker holds open for a CPU.
    fn open(&self, cpu: CpuId, page: u64) -> Vec<(u64, Perm)> {
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

    fn step(&mut self, cpu: CpuId, step: Step) {
        let arch = self.machine.config().arch;
        let others = |of: &[bool]| (0..CPUS).any(|c| c != cpu.0 && of[usize::from(c)]);
        let changes = matches!(
            step,
            Step::Map { .. } | Step::Unmap { .. } | Step::Protect { .. } | Step::Collapse
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
                let phys = match page {
                    LARGE => self.frames[(LARGE + frame % 2) as usize] - WITHIN,
                    _ => self.frames[frame as usize],
                };
                let perm = if writable { Perm::KERNEL_RW } else { Perm::KERNEL_RO };
                // Over an open answer on a table's own entry no conflict is asked for here.
                if self.now(page).is_none() && self.nobody_holds(page) {
                    self.machine.map(cpu, KERNEL, at, PhysAddr(phys), len, 12, perm).unwrap();
                }
            }
            Step::Unmap { page } => {
                let (at, len) = self.range(page);
                let _ = self.machine.unmap(cpu, KERNEL, at, len);
            }
            Step::Collapse => {
                if self.collapses {
                    let _ = self.machine.collapse(cpu, KERNEL, self.virt(LARGE));
                }
            }
            Step::Protect { page, writable } => {
                self.upgraded[page as usize] |= writable;
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

    /// The other CPUs learn that this one changed the tables, so that what they invalidate from
    /// here on comes after it.
    fn others_learn(&mut self, cpu: CpuId) {
        self.untold[cpu.index()] = false;
        self.machine.publish(cpu, "tables", 1);
        for other in (0..CPUS).map(CpuId).filter(|other| *other != cpu) {
            self.machine.observe(other, "tables").unwrap();
        }
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

    fn load(&mut self, cpu: CpuId, page: u64) {
        let (open, now) = (self.open(cpu, page), self.now(page));
        let mut byte = [0];
        self.old.set(true);
        let loaded = self.machine.load(cpu, self.virt(page), &mut byte);
        self.old.set(false);
        let elsewhere = open.iter().any(|(phys, _)| now.is_none_or(|(here, _)| here != *phys));
        match loaded {
            Ok(()) => {
                let frame = self.frame_of(byte[0]);
                let known = now.is_some_and(|(here, _)| here == frame)
                    || open.iter().any(|(phys, _)| *phys == frame);
                assert!(known, "{cpu} loads {frame:#x}: {now:x?}, {open:x?}");
                let here = now.is_some_and(|(here, _)| here == frame);
                assert!(!(elsewhere && here), "{cpu} cannot show {open:x?}");
            }
            Err(fault) => assert!(!elsewhere && now.is_none(), "{cpu} {fault:?}: {open:x?}"),
        }
    }

    fn store(&mut self, cpu: CpuId, page: u64) {
        let (open, now) = (self.open(cpu, page), self.now(page));
        let at = self.virt(page).offset(64);
        self.old.set(true);
        let stored = self.machine.store(cpu, at, &[1], MemOrder::Plain);
        self.old.set(false);
        let granted = now.is_some_and(|(_, perm)| perm.writable());
        let by_old = open.iter().any(|(_, perm)| perm.writable());
        if stored.is_ok() {
            assert!(granted || by_old, "{cpu} stores: {now:x?}, {open:x?}");
        } else if !self.upgraded[page as usize] {
            // A narrower answer from before an upgrade can be the oldest, and is not kept.
            assert!(!granted && !by_old, "{cpu} cannot store: {now:x?}, {open:x?}");
        }
    }
}

/// Place, in the list of its architecture, of a barrier that lets walks see what its CPU changed
/// and completes what it issued (on powerpc, behind a tlbsync).
fn full(arch: Arch) -> Step {
    Step::Barrier(if arch == Arch::Arm64 { 1 } else { 0 })
}

/// The large range becomes one leaf, and nobody is told that its table is out.
fn collapsed(arch: Arch, features: Features) -> Bench {
    let mut bench = Bench::new(arch, features);
    for step in [Step::Map { page: LARGE, frame: 0, writable: true }, Step::Collapse] {
        bench.step(CpuId(0), step);
        bench.step(CpuId(0), full(arch));
    }
    bench
}

fn run((arch, features): (Arch, Features), table: bool, steps: &[(u16, Step)]) {
    let mut bench = if table { collapsed(arch, features) } else { Bench::new(arch, features) };
    for (cpu, step) in steps {
        bench.step(CpuId(*cpu), *step);
    }
}

#[test]
fn each_barrier_completes_what_it_may_and_no_more() {
    // Behind an unmapping and a broadcast invalidation of CPU 0: barriers by their place in the
    // architecture's list, and whether another CPU may still load there.
    let [ishst, ish, nsh, isb] = [0, 1, 2, 4];
    let [ptesync, tlbsync, sync, eieio] = [0, 1, 2, 3];
    let rows: &[(Arch, &[usize], bool)] = &[
        (Arch::Arm64, &[ish], false),
        (Arch::Arm64, &[nsh], true),
        (Arch::Arm64, &[ishst, isb], true),
        (Arch::Ppc64le, &[tlbsync, ptesync], false),
        (Arch::Ppc64le, &[ptesync], true),
        (Arch::Ppc64le, &[tlbsync, sync], true),
        (Arch::Ppc64le, &[ptesync, eieio, tlbsync], true),
    ];
    for (arch, barriers, left) in rows {
        let mut bench = Bench::new(*arch, Features::default_for(*arch));
        let seen = if *arch == Arch::Arm64 { ish } else { ptesync };
        let (p0, p1) = (CpuId(0), CpuId(1));
        bench.step(p0, Step::Map { page: 0, frame: 0, writable: true });
        bench.step(p0, Step::Barrier(seen));
        bench.step(p0, Step::Unmap { page: 0 });
        bench.step(p0, Step::Barrier(seen));
        bench.step(p0, Step::Flush { page: Some(0), local: false, last: false });
        for n in *barriers {
            bench.step(p0, Step::Barrier(*n));
        }
        assert_eq!(!bench.open(p1, 0).is_empty(), *left, "{arch}, {barriers:?}");
        // And so says the simulator.
        bench.step(p1, Step::Load { page: 0 });
    }
}

#[test]
fn who_was_told_flushes_for_a_change_without_a_barrier_and_who_made_it_does_not() {
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        for by in [CpuId(0), CpuId(1)] {
            let mut bench = Bench::new(arch, Features::default_for(arch));
            bench.step(CpuId(0), Step::Map { page: 0, frame: 0, writable: true });
            bench.step(CpuId(0), full(arch));
            bench.step(CpuId(0), Step::Unmap { page: 0 });
            bench.step(CpuId(0), Step::Tell);
            bench.step(by, Step::Flush { page: Some(0), local: false, last: false });
            if arch == Arch::Ppc64le {
                bench.step(by, Step::Barrier(1));
            }
            bench.step(by, full(arch));
            assert_eq!(bench.open(CpuId(1), 0).is_empty(), by == CpuId(1), "{arch} {by}");
            // And so says the simulator.
            bench.step(CpuId(1), Step::Load { page: 0 });
        }
    }
}

#[test]
fn what_a_table_held_is_open_until_the_way_to_it_is_closed() {
    // Behind a collapse, an unmapping and an invalidation of every CPU: whether the other CPU still
    // loads what the table has, which nothing points to.
    let arm = Features::default_for(Arch::Arm64) | Features::ARM_BBML2_NOABORT;
    let x86 = Features::default_for(Arch::X86_64);
    for (arch, features, last, left) in [
        (Arch::Arm64, arm, true, true),
        (Arch::Arm64, arm, false, false),
        (Arch::X86_64, x86, false, false),
    ] {
        let mut bench = collapsed(arch, features);
        let others: &[u16] = if arch == Arch::X86_64 { &[0, 1] } else { &[0] };
        bench.step(CpuId(0), Step::Unmap { page: LARGE });
        bench.step(CpuId(0), full(arch));
        for cpu in others {
            bench.step(CpuId(*cpu), Step::Flush { page: Some(LARGE), local: false, last });
            bench.step(CpuId(*cpu), full(arch));
        }
        assert_eq!(!bench.open(CpuId(1), LARGE).is_empty(), left, "{arch}, last level: {last}");
        bench.step(CpuId(1), Step::Load { page: LARGE });
    }
}

#[test]
fn a_page_fault_drops_the_way_to_a_table() {
    // A read-only answer of the table itself: the store faults, and drops the way there.
    let mut bench = Bench::new(Arch::X86_64, Features::default_for(Arch::X86_64));
    bench.step(CpuId(0), Step::Map { page: LARGE, frame: 0, writable: false });
    bench.step(CpuId(0), Step::Collapse);
    bench.step(CpuId(0), Step::Unmap { page: LARGE });
    assert!(!bench.open(CpuId(0), LARGE).is_empty());
    bench.step(CpuId(0), Step::Store { page: LARGE });
    assert!(bench.open(CpuId(0), LARGE).is_empty());
    bench.step(CpuId(0), Step::Load { page: LARGE });
}

/// Each architecture as it is, and with its erratum.
fn machines() -> impl Strategy<Value = (Arch, Features)> {
    prop_oneof![
        Just((Arch::X86_64, Features::empty())),
        Just((Arch::X86_64, Features::X86_INVLPG_MISS)),
        Just((Arch::Arm64, Features::empty())),
        Just((Arch::Arm64, Features::ARM_REPEAT_TLBI)),
        Just((Arch::Arm64, Features::ARM_BBML2_NOABORT)),
        Just((Arch::Ppc64le, Features::empty())),
    ]
    .prop_map(|(arch, erratum)| (arch, Features::default_for(arch) | erratum))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_cpu_can_still_use_is_what_is_kept_open(
        machine in machines(),
        table in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run(machine, table, &steps);
    }
}
