//! Loads and stores seen out of order: the shapes of weak memory, by architecture and barrier.
//!
//! Each program runs in every interleaving of its CPUs' operations, with every list of choices.
//! Expected: Intel SDM 3A 8.2.3 (examples 8-1 to 8-10); Arm ARM DDI 0487 B2.3 and K11, as decided
//! by herdtools7 `aarch64.cat`; for Power what its barriers are for (multi-copy-atomic storage).

// Functions beside the tests may fail a test, too.
#![allow(clippy::unwrap_used)]

mod common;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use common::Rig;
use textbed_arch::{Arch, CpuId, Features};
use textbed_event::{Flags, MemOrder};
use textbed_machine::{Choice, DataOrder, Machine, MachineConfig, Moment, Policy};

/// One operation. Words are numbered; each has a line of its own.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// Store 1.
    W(usize),
    /// Store-release 1.
    Rel(usize),
    /// Store 1, non-temporal.
    Nt(usize),
    /// Load; its result is part of the outcome.
    R(usize),
    /// Load-acquire.
    Acq(usize),
    /// Load whose address depends on the load before it.
    Dep(usize),
    /// Store 1 to the word beside a word, in the same line.
    Near(usize),
    /// Load-acquire of the word beside a word.
    RNear(usize),
    /// Clean of a word's line to the point of unification (arm64).
    Clean(usize),
    /// An instruction by name.
    I(&'static str),
}
use Op::{Acq, Clean, Dep, I, Near, Nt, R, RNear, Rel, W};

#[derive(Default)]
struct Script {
    given: Vec<usize>,
    taken: Vec<(usize, usize)>,
}

impl Script {
    fn ask(&mut self, options: usize) -> usize {
        if options < 2 {
            return 0;
        }
        let answer = self.given.get(self.taken.len()).copied().unwrap_or(0);
        self.taken.push((answer, options));
        answer
    }

    fn next(&self) -> Option<Vec<usize>> {
        let last = self.taken.iter().rposition(|(a, n)| a + 1 < *n)?;
        let mut given: Vec<usize> = self.taken[..=last].iter().map(|(a, _)| *a).collect();
        given[last] += 1;
        Some(given)
    }
}

/// Answers from the script. A store that is its CPU's only one need not wait: loads go back in time
/// as it is.
struct Shared(Rc<RefCell<Script>>, Vec<bool>);

impl Policy for Shared {
    fn choose(&mut self, choice: &Choice) -> usize {
        match choice {
            Choice::LoadSees { options, .. } => self.0.borrow_mut().ask(*options),
            // The schedule says when a waiting store is performed.
            Choice::StoreWaits { still: true, .. } => 1,
            Choice::StoreWaits { cpu, .. } if self.1[cpu.index()] => self.0.borrow_mut().ask(2),
            // Nothing is fetched here.
            _ => 0,
        }
    }
}

/// Every outcome: what the loads returned, in the order of CPUs and of each CPU's program.
fn outcomes(arch: Arch, program: &[&[Op]]) -> BTreeSet<Vec<u32>> {
    let (mut given, mut all) = (Vec::new(), BTreeSet::new());
    loop {
        let script = Rc::new(RefCell::new(Script { given, taken: Vec::new() }));
        all.insert(one(arch, program, &script));
        let next = script.borrow().next();
        match next {
            Some(next) => given = next,
            None => return all,
        }
    }
}

fn one(arch: Arch, program: &[&[Op]], script: &Rc<RefCell<Script>>) -> Vec<u32> {
    let config = MachineConfig {
        cpus: program.len() as u16,
        data_order: DataOrder::Architecture,
        memory_bytes: 4 << 20,
        features: Features::default_for(arch),
        ..MachineConfig::new(arch)
    };
    let stores =
        |ops: &&[Op]| ops.iter().filter(|op| matches!(op, W(_) | Near(_) | Rel(_) | Nt(_))).count();
    let several = program.iter().map(|ops| stores(ops) > 1).collect();
    let m = Machine::new(config, Box::new(Shared(Rc::clone(script), several))).unwrap();
    let mut rig = Rig::of(m);
    let mut at = vec![0; program.len()];
    let mut loaded: Vec<Vec<u32>> = vec![Vec::new(); program.len()];
    loop {
        let mut ways: Vec<(usize, Option<usize>)> = Vec::new();
        for (p, ops) in program.iter().enumerate() {
            if at[p] < ops.len() {
                ways.push((p, None));
            }
            ways.extend((0..rig.m.waiting_stores(CpuId(p as u16))).map(|n| (p, Some(n))));
        }
        if ways.is_empty() {
            return loaded.concat();
        }
        let n = script.borrow_mut().ask(ways.len());
        let (p, waiting) = ways[n];
        let cpu = CpuId(p as u16);
        if let Some(n) = waiting {
            rig.m.perform(cpu, n);
            continue;
        }
        let op = program[p][at[p]];
        at[p] += 1;
        let word = |n: usize| rig.alias.offset(n as u64 * 64);
        let one = 0x1001u32.to_le_bytes();
        match op {
            W(n) => rig.m.store(cpu, word(n), &one, MemOrder::Plain).unwrap(),
            Near(n) => rig.m.store(cpu, word(n).offset(4), &one, MemOrder::Plain).unwrap(),
            Rel(n) => rig.m.store(cpu, word(n), &one, MemOrder::Release).unwrap(),
            Nt(n) => {
                let flags = Flags::NONTEMPORAL;
                rig.m.store_flagged(cpu, word(n), &one, MemOrder::Plain, flags).unwrap();
            }
            R(n) | Acq(n) | Dep(n) | RNear(n) => {
                let on =
                    if matches!(op, Dep(_)) { rig.m.last_load(cpu) } else { Moment::default() };
                rig.m.depends(cpu, Some(on));
                let order = if matches!(op, Acq(_) | RNear(_)) {
                    MemOrder::Acquire
                } else {
                    MemOrder::Plain
                };
                let mut bytes = [0; 4];
                let beside = u64::from(matches!(op, RNear(_))) * 4;
                rig.m.load_ordered(cpu, word(n).offset(beside), &mut bytes, order).unwrap();
                loaded[p].push(u32::from_le_bytes(bytes) & 1);
            }
            Clean(n) => rig.m.op_named(cpu, "dc cvau", word(n).0).unwrap(),
            I(name) => rig.m.op_named(cpu, name, 0).unwrap(),
        }
    }
}

/// Whether an outcome is among those of a program.
#[track_caller]
fn check(arch: Arch, program: &[&[Op]], outcome: &[u32], allowed: bool) {
    let all = outcomes(arch, program);
    assert_eq!(all.contains(outcome), allowed, "{arch} {program:?}: {all:?}");
    assert!(all.len() > 1, "nothing was decided: {program:?}");
}

const X86: Arch = Arch::X86_64;
const ARM: Arch = Arch::Arm64;
const PPC: Arch = Arch::Ppc64le;

#[test]
fn store_buffering() {
    for arch in [X86, ARM, PPC] {
        check(arch, &[&[W(0), R(1)], &[W(1), R(0)]], &[0, 0], true);
    }
    for (arch, fence) in [(X86, "mfence"), (ARM, "dmb ish"), (PPC, "sync")] {
        check(arch, &[&[W(0), I(fence), R(1)], &[W(1), I(fence), R(0)]], &[0, 0], false);
        check(arch, &[&[W(0), I(fence), R(1)], &[W(1), R(0)]], &[0, 0], true);
    }
    for (arch, weak) in [(X86, "sfence"), (X86, "lfence"), (ARM, "dmb ishst"), (PPC, "lwsync")] {
        check(arch, &[&[W(0), I(weak), R(1)], &[W(1), I(weak), R(0)]], &[0, 0], true);
    }
    // Each CPU sees its own store first (8-6 of the Intel text).
    for arch in [X86, ARM] {
        let own = [&[W(0), R(0), R(1)][..], &[W(1), R(1), R(0)]];
        check(arch, &own, &[1, 0, 1, 0], true);
        check(arch, &own, &[0, 0, 1, 0], false);
    }
    // A release is before a later acquire of the same CPU.
    check(ARM, &[&[Rel(0), Acq(1)], &[Rel(1), Acq(0)]], &[0, 0], false);
    check(ARM, &[&[W(0), Acq(1)], &[W(1), Acq(0)]], &[0, 0], true);
}

#[test]
fn message_passing() {
    check(X86, &[&[W(0), W(1)], &[R(1), R(0)]], &[1, 0], false);
    check(X86, &[&[Nt(0), W(1)], &[R(1), R(0)]], &[1, 0], true);
    check(X86, &[&[Nt(0), I("sfence"), W(1)], &[R(1), R(0)]], &[1, 0], false);
    for (arch, store, load) in [(ARM, "dmb ishst", "dmb ishld"), (PPC, "lwsync", "lwsync")] {
        check(arch, &[&[W(0), W(1)], &[R(1), R(0)]], &[1, 0], true);
        check(arch, &[&[W(0), I(store), W(1)], &[R(1), R(0)]], &[1, 0], true);
        check(arch, &[&[W(0), W(1)], &[R(1), I(load), R(0)]], &[1, 0], true);
        check(arch, &[&[W(0), I(store), W(1)], &[R(1), I(load), R(0)]], &[1, 0], false);
        check(arch, &[&[W(0), I(store), W(1)], &[R(1), Dep(0)]], &[1, 0], false);
    }
    check(ARM, &[&[W(0), Rel(1)], &[Acq(1), R(0)]], &[1, 0], false);
    check(ARM, &[&[W(0), Rel(1)], &[R(1), R(0)]], &[1, 0], true);
    check(ARM, &[&[W(0), I("dmb ishld"), W(1)], &[Acq(1), R(0)]], &[1, 0], true);
}

/// A clean comes after stores to its line, but orders them with nothing else; later stores to the
/// line come after both.
#[test]
fn a_clean_waits_with_the_store_before_it() {
    let reader: &[Op] = &[Acq(1), R(0)];
    check(ARM, &[&[W(0), Clean(0), W(1)], reader], &[1, 0], true);
    check(ARM, &[&[W(0), Clean(0), I("isb"), W(1)], reader], &[1, 0], true);
    check(ARM, &[&[W(0), Clean(0), I("dmb ishst"), W(1)], reader], &[1, 0], false);
    check(ARM, &[&[W(0), Clean(0), I("dsb ish"), W(1)], reader], &[1, 0], false);
    check(ARM, &[&[W(0), Clean(0), Near(0)], &[RNear(0), R(0)]], &[1, 0], false);
}

#[test]
fn one_word_is_coherent_and_storage_is_one() {
    for arch in [X86, ARM, PPC] {
        check(arch, &[&[W(0)], &[R(0), R(0)]], &[1, 0], false);
        check(arch, &[&[W(0)], &[R(0), R(0)]], &[0, 1], true);
        let all = outcomes(arch, &[&[W(0), R(0)], &[R(1)]]);
        assert_eq!(all, BTreeSet::from([vec![1, 0]]));
    }
    for (arch, fence) in [(X86, "lfence"), (ARM, "dmb ish"), (PPC, "sync")] {
        let readers: [&[Op]; 2] = [&[R(0), I(fence), R(1)], &[R(1), I(fence), R(0)]];
        let program = [&[W(0)][..], &[W(1)], readers[0], readers[1]];
        check(arch, &program, &[1, 0, 1, 0], false);
    }
    let program = [&[W(0)][..], &[W(1)], &[R(0), R(1)], &[R(1), R(0)]];
    check(ARM, &program, &[1, 0, 1, 0], true);
}

#[test]
fn an_atomic_load_sees_the_newest_and_nothing_stays_old_for_ever() {
    let stalest = Box::new(textbed_machine::Stalest);
    let config = MachineConfig {
        data_order: DataOrder::Architecture,
        memory_bytes: 4 << 20,
        ..MachineConfig::new(ARM)
    };
    let mut r = Rig::of(Machine::new(config, stalest).unwrap());
    let (p0, p1, at) = (CpuId(0), CpuId(1), r.alias);
    let mut bytes = [0; 4];
    r.m.load(p1, at, &mut bytes).unwrap();
    r.m.store(p0, at, &[7; 4], MemOrder::Release).unwrap();
    r.m.load(p1, at, &mut bytes).unwrap();
    assert_ne!(bytes, [7; 4], "the stalest load misses it");
    r.m.load_newest(p1, at, &mut bytes, MemOrder::Plain).unwrap();
    assert_eq!(bytes, [7; 4]);
    // A plain store waits; a CPU that polls for it sees it in the end.
    r.m.store(p0, at, &[8; 4], MemOrder::Plain).unwrap();
    assert_eq!(r.m.waiting_stores(p0), 1);
    r.m.load(p0, at, &mut bytes).unwrap();
    assert_eq!(bytes, [8; 4], "its own CPU sees it");
    let polls = (0..1000).find(|_| {
        r.m.load(p1, at, &mut bytes).unwrap();
        bytes == [8; 4]
    });
    assert!(polls.is_some_and(|n| n > 2), "{polls:?}");
    r.m.store(p0, at, &[9; 4], MemOrder::Plain).unwrap();
    r.m.settle_data();
    assert_eq!(r.m.waiting_stores(p0), 0);
}
