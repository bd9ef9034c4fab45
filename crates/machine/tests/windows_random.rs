//! Random arm64 programs: no fetch of the machine returns less than the window's low end.
//!
//! The low ends come from a second computation that knows no cache, queue or moment: knowledge in
//! views (newest version known stored, cleaned, invalidated), handed on by barriers, publication
//! and fetches. A machine steps through one order of events, so it cannot reach every low end; how
//! often it does is counted, so that a machine that is never stale fails too.

// Functions beside the tests may fail a test, too.
#![allow(clippy::unwrap_used)]

mod common;

use common::{P0, Rig};
use proptest::prelude::*;
use textbed_arch::{Arch, CpuId, Features};
use textbed_machine::{InstructionCache, Machine, MachineConfig, Policy, Random, Stalest};

const CPUS: usize = 3;
/// Code words: two on one line, one on another.
const WORDS: [u64; 3] = [0x40, 0x44, 0x200];

/// Newest version of each word known stored, cleaned, invalidated.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct View {
    w: [u32; 3],
    c: [u32; 3],
    i: [u32; 3],
}

impl View {
    fn join(&mut self, other: &View) {
        for n in 0..3 {
            self.w[n] = self.w[n].max(other.w[n]);
            self.c[n] = self.c[n].max(other.c[n]);
            self.i[n] = self.i[n].max(other.i[n]);
        }
    }

    fn with(mut self, other: &View) -> View {
        self.join(other);
        self
    }
}

const R: usize = 0;
const W: usize = 1;
const D: usize = 2;
const I: usize = 3;
const F: usize = 4;

#[derive(Clone, Default)]
struct Cpu {
    /// What each later effect of a kind inherits.
    base: [View; 5],
    /// What the earlier effects of a kind knew.
    seen: [View; 4],
    /// What the next ISB hands to fetches.
    complete: View,
    branch: View,
    /// By word: own accesses, own cleans of its line.
    accessed: [View; 3],
    cleaned: [View; 3],
    /// Loads of each word.
    loaded: [View; 3],
}

struct Oracle {
    idc: bool,
    dic: bool,
    cpus: Vec<Cpu>,
    /// By word: the view and writer of each version from 1 on.
    versions: [Vec<(View, usize)>; 3],
    flags: [Option<(View, usize)>; 2],
    flag_readers: [View; 2],
}

fn same_line(a: usize, b: usize) -> bool {
    WORDS[a] / 64 == WORDS[b] / 64
}

impl Oracle {
    fn new(features: Features) -> Self {
        Self {
            idc: features.contains(Features::ARM_IDC),
            dic: features.contains(Features::ARM_DIC),
            cpus: vec![Cpu::default(); CPUS],
            versions: Default::default(),
            flags: [None; 2],
            flag_readers: [View::default(); 2],
        }
    }

    fn store(&mut self, p: usize, word: usize) {
        let mut k = self.cpus[p].base[W].with(&self.cpus[p].branch);
        k.join(&self.cpus[p].accessed[word]);
        k.join(&self.cpus[p].cleaned[word]);
        for (q, cpu) in self.cpus.iter().enumerate().filter(|(q, _)| *q != p) {
            k.join(&cpu.loaded[word]);
            for (view, _) in self.versions[word].iter().filter(|(_, by)| *by == q) {
                k.join(view);
            }
        }
        k.w[word] = self.versions[word].len() as u32 + 1;
        self.versions[word].push((k, p));
        let c = &mut self.cpus[p];
        c.seen[W].join(&k);
        c.accessed[word].join(&k);
    }

    fn load(&mut self, p: usize, word: usize) {
        let mut k = self.cpus[p].base[R];
        if let Some((view, by)) = self.versions[word].last().filter(|(_, by)| *by != p) {
            let _ = by;
            k.join(view);
        }
        let c = &mut self.cpus[p];
        c.seen[R].join(&k);
        c.accessed[word].join(&k);
        c.loaded[word].join(&k);
    }

    fn publish(&mut self, p: usize, flag: usize) {
        let c = &self.cpus[p];
        let mut k = c.base[W].with(&c.branch).with(&c.seen[R]).with(&c.seen[W]);
        k.join(&self.flag_readers[flag]);
        if let Some((view, _)) = &self.flags[flag] {
            k.join(view);
        }
        self.flags[flag] = Some((k, p));
        self.cpus[p].seen[W].join(&k);
    }

    /// A load-acquire whose value decides a branch.
    fn observe(&mut self, p: usize, flag: usize) {
        let mut k = self.cpus[p].base[R];
        if let Some((view, by)) = &self.flags[flag]
            && *by != p
        {
            k.join(view);
        }
        self.flag_readers[flag].join(&k);
        let c = &mut self.cpus[p];
        c.base[R].join(&k);
        c.base[W].join(&k);
        c.seen[R].join(&k);
        c.branch.join(&k);
    }

    fn clean(&mut self, p: usize, word: usize) {
        let c = &mut self.cpus[p];
        let mut k = c.base[D].with(&c.branch);
        for n in (0..3).filter(|n| same_line(*n, word)) {
            k.join(&c.accessed[n]);
            k.join(&c.cleaned[n]);
        }
        for n in (0..3).filter(|n| same_line(*n, word)) {
            k.c[n] = k.c[n].max(k.w[n]);
        }
        c.seen[D].join(&k);
        for n in (0..3).filter(|n| same_line(*n, word)) {
            c.cleaned[n].join(&k);
        }
    }

    fn invalidate(&mut self, p: usize, word: Option<usize>) {
        let idc = self.idc;
        let c = &mut self.cpus[p];
        let mut k = c.base[I].with(&c.branch);
        for n in (0..3).filter(|n| word.is_none_or(|word| same_line(*n, word))) {
            k.i[n] = k.i[n].max(if idc { k.w[n] } else { k.c[n] });
        }
        c.seen[I].join(&k);
    }

    fn dmb(&mut self, p: usize) {
        let c = &mut self.cpus[p];
        let k = c.seen[R].with(&c.seen[W]).with(&c.seen[D]);
        for base in [R, W, D] {
            c.base[base].join(&k);
        }
    }

    fn dsb(&mut self, p: usize) {
        let c = &mut self.cpus[p];
        let k = c.seen[R].with(&c.seen[W]).with(&c.seen[D]).with(&c.seen[I]);
        for base in [R, W, D, I] {
            c.base[base].join(&k);
        }
        c.complete.join(&k);
    }

    fn isb(&mut self, p: usize) {
        let c = &mut self.cpus[p];
        let k = c.complete.with(&c.branch);
        for base in &mut c.base {
            base.join(&k);
        }
    }

    fn low(&self, p: usize, word: usize) -> u32 {
        let base = &self.cpus[p].base[F];
        if self.dic { base.w[word] } else { base.i[word] }
    }

    fn fetched(&mut self, p: usize, word: usize, version: u32) {
        let mut k = self.cpus[p].base[F];
        if let Some((view, _)) =
            (version as usize).checked_sub(1).and_then(|n| self.versions[word].get(n))
        {
            k.join(view);
        }
        for base in &mut self.cpus[p].base {
            base.join(&k);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Store(usize),
    Load(usize),
    Clean(usize),
    Invalidate(usize),
    InvalidateAll,
    Dsb,
    Dmb,
    Isb,
    Publish(usize),
    Observe(usize),
    Fetch(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let word = 0usize..3;
    let flag = 0usize..2;
    prop_oneof![
        3 => word.clone().prop_map(Act::Store),
        1 => word.clone().prop_map(Act::Load),
        3 => word.clone().prop_map(Act::Clean),
        3 => word.clone().prop_map(Act::Invalidate),
        1 => Just(Act::InvalidateAll),
        4 => Just(Act::Dsb),
        1 => Just(Act::Dmb),
        3 => Just(Act::Isb),
        2 => flag.clone().prop_map(Act::Publish),
        2 => flag.prop_map(Act::Observe),
        6 => word.prop_map(Act::Fetch),
    ]
}

fn cpus() -> impl Strategy<Value = (usize, usize, usize)> {
    (0..CPUS, 0..CPUS, 0..CPUS)
}

/// Fragments of protocols, with single acts between and some parts left out.
fn program() -> impl Strategy<Value = Vec<(usize, Act)>> {
    let cpu = 0usize..CPUS;
    let single = (cpu.clone(), act()).prop_map(|(p, a)| vec![(p, a)]);
    let sync = (cpu.clone(), 0usize..3, 0u8..64).prop_map(|(p, word, mask)| {
        let acts = [
            Act::Store(word),
            Act::Clean(word),
            Act::Dsb,
            Act::Invalidate(word),
            Act::Dsb,
            Act::Publish(0),
        ];
        let kept = acts
            .into_iter()
            .enumerate()
            .filter(|(n, _)| *n == 0 || mask & (1 << n) == 0 || mask < 8);
        kept.map(|(_, a)| (p, a)).collect()
    });
    let reader = (cpu.clone(), 0usize..3, 0u8..32).prop_map(|(p, word, mask)| {
        let acts = [Act::Observe(0), Act::Isb, Act::Fetch(word)];
        let kept = acts.into_iter().enumerate().filter(|(n, _)| mask & (1 << n) == 0 || *n == 2);
        kept.map(|(_, a)| (p, a)).collect()
    });
    // Written by one, run by the other.
    let whole = (cpu.clone(), cpu, 0usize..3).prop_map(|(p, q, word)| {
        let writer = [
            Act::Store(word),
            Act::Clean(word),
            Act::Dsb,
            Act::Invalidate(word),
            Act::Dsb,
            Act::Publish(0),
        ];
        let reader = [Act::Observe(0), Act::Isb, Act::Fetch(word)];
        writer.into_iter().map(|a| (p, a)).chain(reader.into_iter().map(|a| (q, a))).collect()
    });
    // Written by one, made visible by another, run by a third; some parts left out.
    let split = (cpus(), 0usize..3, 0u16..4096).prop_map(|((p, q, r), word, mask)| {
        let acts = [
            (p, Act::Store(word)),
            (p, Act::Publish(0)),
            (q, Act::Observe(0)),
            (q, Act::Clean(word)),
            (q, Act::Dsb),
            (q, Act::Invalidate(word)),
            (q, Act::Dsb),
            (q, Act::Publish(1)),
            (r, Act::Observe(1)),
            (r, Act::Isb),
            (r, Act::Fetch(word)),
        ];
        let kept = acts.into_iter().enumerate();
        kept.filter(|(n, _)| mask < 2048 || mask & (1 << n) != 0).map(|(_, act)| act).collect()
    });
    let parts = prop_oneof![3 => single, 2 => sync, 2 => reader, 2 => whole, 2 => split];
    prop::collection::vec(parts, 1..24).prop_map(|parts: Vec<Vec<(usize, Act)>>| parts.concat())
}

/// Counts of a test: fetches; of these with a low end above 0; that returned the low end; an old
/// version.
#[derive(Default, Debug)]
struct Count {
    fetches: u64,
    closed: u64,
    at_low: u64,
    old: u64,
}

fn run(
    features: Features,
    icache: InstructionCache,
    policy: Box<dyn Policy>,
    program: &[(usize, Act)],
    count: &mut Count,
) -> Result<(), TestCaseError> {
    let all = features | Features::ARM_EIS | Features::ARM_EOS;
    let config =
        MachineConfig { cpus: 3, features: all, icache, ..MachineConfig::new(Arch::Arm64) };
    let mut rig = Rig::of(Machine::new(config, policy).unwrap());
    let mut oracle = Oracle::new(features);
    for (step, (p, a)) in program.iter().enumerate() {
        let (p, cpu) = (*p, CpuId(*p as u16));
        match *a {
            Act::Store(word) => {
                oracle.store(p, word);
                rig.str(cpu, WORDS[word], oracle.versions[word].len() as u32);
            }
            Act::Load(word) => {
                oracle.load(p, word);
                rig.load(cpu, WORDS[word]);
            }
            Act::Clean(word) => {
                oracle.clean(p, word);
                rig.op(cpu, "dc cvau", WORDS[word]);
            }
            Act::Invalidate(word) => {
                oracle.invalidate(p, Some(word));
                rig.op(cpu, "ic ivau", WORDS[word]);
            }
            Act::InvalidateAll => {
                oracle.invalidate(p, None);
                rig.op(cpu, "ic ialluis", 0);
            }
            Act::Dsb => {
                oracle.dsb(p);
                rig.op(cpu, "dsb ish", 0);
            }
            Act::Dmb => {
                oracle.dmb(p);
                rig.op(cpu, "dmb ish", 0);
            }
            Act::Isb => {
                oracle.isb(p);
                rig.op(cpu, "isb", 0);
            }
            Act::Publish(flag) => {
                oracle.publish(p, flag);
                rig.m.publish(cpu, ["a", "b"][flag], step as u64);
            }
            Act::Observe(flag) => {
                if rig.m.observe(cpu, ["a", "b"][flag]).is_some() {
                    oracle.observe(p, flag);
                }
            }
            Act::Fetch(word) => {
                let (low, newest) = (oracle.low(p, word), oracle.versions[word].len() as u32);
                let got = rig.fetch(cpu, WORDS[word]);
                prop_assert!(
                    low <= got && got <= newest,
                    "step {step}: cpu {p} got version {got} of [{low}, {newest}] of word {word}"
                );
                oracle.fetched(p, word, got);
                count.fetches += 1;
                count.closed += u64::from(low > 0);
                count.at_low += u64::from(got == low);
                count.old += u64::from(got < newest);
            }
        }
    }
    Ok(())
}

fn agree(features: Features, cases: u32) {
    agree_with(features, InstructionCache::Adversarial, cases);
}

/// Both kinds of caches obey the windows; one that forgets by itself is old less often.
fn agree_with(features: Features, icache: InstructionCache, cases: u32) {
    let cases = std::env::var("WINDOWS_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    });
    let count = std::cell::RefCell::new((Count::default(), Count::default()));
    let result = runner.run(&(program(), any::<u64>()), |(program, seed)| {
        let mut count = count.borrow_mut();
        run(features, icache, Box::new(Stalest), &program, &mut count.0)?;
        for n in 0..4 {
            let policy = Box::new(Random::new(seed.wrapping_add(n)));
            run(features, icache, policy, &program, &mut count.1)?;
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{features:?}: {e}"));
    let (stalest, random) = count.into_inner();
    // Seen with `--nocapture`; what was compared, not how long it took.
    #[allow(clippy::print_stdout)]
    {
        println!("{features:?}, {icache:?}: stalest {stalest:?}, random {random:?}");
    }
    if icache != InstructionCache::Adversarial {
        assert!(stalest.old * 50 > stalest.fetches, "{stalest:?}");
        return;
    }
    // The test has teeth only if windows close and versions are old often enough.
    assert!(stalest.closed * 10 > stalest.fetches, "{stalest:?}");
    assert!(stalest.at_low * 2 > stalest.fetches, "{stalest:?}");
    assert!(random.old * 50 > random.fetches, "{random:?}");
}

#[test]
fn nothing_below_the_low_end_without_idc_and_dic() {
    agree(Features::empty(), 400);
}

#[test]
fn nothing_below_the_low_end_with_idc() {
    agree(Features::ARM_IDC, 400);
}

#[test]
fn nothing_below_the_low_end_with_dic() {
    agree(Features::ARM_IDC | Features::ARM_DIC, 400);
}

#[test]
fn nothing_below_the_low_end_with_sets_and_ways() {
    for features in [Features::empty(), Features::ARM_IDC, Features::ARM_IDC | Features::ARM_DIC] {
        for (sets, ways) in [(64, 2), (1, 1)] {
            agree_with(features, InstructionCache::Sets { sets, ways }, 150);
        }
    }
}

/// Found by the random programs: a clean is before the next store to its line by program order
/// alone, so who knows of that store knows of the clean.
#[test]
fn a_clean_comes_before_the_next_store_to_its_line() {
    use Act::{Clean, Dsb, Fetch, Invalidate, Isb, Observe, Publish, Store};
    let writer = [Store(2), Clean(2), Store(2), Publish(0)].map(|act| (0, act));
    let reader = [Observe(0), Invalidate(2), Dsb, Isb, Fetch(2)].map(|act| (2, act));
    let program = [&writer[..], &reader[..]].concat();
    for icache in [InstructionCache::Adversarial, InstructionCache::Sets { sets: 1, ways: 1 }] {
        let run = |policy| {
            run(Features::empty(), icache, policy, &program, &mut Count::default()).unwrap();
        };
        run(Box::new(Stalest));
        (0..50).for_each(|seed| run(Box::new(Random::new(seed))));
    }
}

#[test]
fn the_second_computation_knows_the_protocol() {
    let p0 = usize::from(P0.0);
    let mut o = Oracle::new(Features::empty());
    o.store(p0, 0);
    o.clean(p0, 0);
    o.dsb(p0);
    o.invalidate(p0, Some(0));
    o.dsb(p0);
    assert_eq!(o.low(p0, 0), 0);
    o.isb(p0);
    assert_eq!((o.low(p0, 0), o.low(1, 0)), (1, 0));
}
