//! Fetch windows on x86-64 of random programs, against every execution of a machine.
//!
//! The machine has store buffers (TSO) and CPUs that read code ahead at any moment after their last
//! serialising instruction; nothing of it is shared with the clocks. An execution counts if its
//! loads return what they did in the stream and stores of a word commit in that order. The union of
//! what the fetch asked about returns is its window.
//!
//! A read ahead is dropped by a serialising instruction, and by an own store to it: on Intel if
//! the store used the same linear address, on AMD by the physical one. On AMD a CPU reads code in
//! program order, so what an earlier fetch returned counts; on Intel it says nothing.
//!
//! Not generated: non-temporal stores, locked operations, self-modification inside one block.
//!
//! Sources: SDM 3A 8.1.3, 8.2.2, 8.3, 11.6 (325384-059); APM vol 2 7.6.1, 7.6.4 (3.44); read.

use rustc_hash::FxHashMap;

use textbed_arch::effect::Barrier;
use textbed_arch::{Arch, CpuId};

use super::{Mix, Outcome, Tally, interleave};
use crate::fetch::versions::{Forgotten, Made, Newest, Version, Versions};
use crate::fetch::x86::X86;
use crate::mistakes::{self, Mistake};
use crate::span::Span;

/// Code words, and flags.
const CODE: [u8; 2] = [0, 1];
const FLAGS: [u8; 2] = [2, 3];

/// What a CPU does to a word. Fetches use linear address 0.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Op {
    /// By one of two linear addresses.
    Store(u8, u64),
    Load(u8),
    Fetch(u8),
    Mfence,
    Serialise,
}

/// A step as it ran: the version number that it made or returned.
#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: u16,
    op: Op,
    version: u8,
}

fn program(mix: &mut Mix) -> Vec<(u16, Op)> {
    let cpus = 2 + mix.below(2);
    let mut queues: Vec<Vec<Op>> = Vec::new();
    for _ in 0..cpus {
        let mut ops = Vec::new();
        for _ in 0..1 + mix.below(2) {
            let (code, flag) = (CODE[mix.below(2)], FLAGS[mix.below(2)]);
            let linear = mix.below(2) as u64;
            let fence = [Op::Mfence, Op::Serialise][mix.below(2)];
            let other = CODE[mix.below(2)];
            let fragment: Vec<Op> = match mix.below(6) {
                0 | 1 => vec![Op::Store(code, linear), Op::Store(flag, 0)],
                2 => vec![Op::Load(flag), fence, Op::Fetch(code), Op::Fetch(other)],
                3 => vec![Op::Store(code, linear), fence, Op::Fetch(code)],
                4 => vec![Op::Fetch(code), Op::Load(flag), Op::Store(flag, 0), Op::Fetch(other)],
                _ => vec![Op::Fetch(code), Op::Store(other, linear), Op::Fetch(other)],
            };
            ops.extend(fragment.into_iter().filter(|_| mix.below(8) != 0));
        }
        ops.truncate(6);
        queues.push(ops);
    }
    interleave(mix, queues, 4)
}

fn span(word: u8) -> Span {
    Span { first: u64::from(word) * 64, last: u64::from(word) * 64 + 3 }
}

/// Runs a program through the checker's machine.
fn run(amd: bool, steps: &[(u16, Op)], mix: &mut Mix) -> (Vec<Step>, Vec<(usize, [usize; 2])>) {
    let (mut machine, mut versions) = (X86::new(amd, true), Versions::default());
    let (mut ran, mut windows): (Vec<Step>, Vec<(usize, [usize; 2])>) = Default::default();
    for (at, (cpu, op)) in steps.iter().enumerate() {
        let (p, seq) = (CpuId(*cpu), at as u64 + 1);
        let mut version = 0;
        match *op {
            Op::Store(word, linear) => {
                let older = versions.newest(span(word).first).filter(|v| v.cpu != p);
                let clock = machine.store(p, seq, older.as_deref().map(Newest::from));
                let knew = Some(clock.clone());
                let made = Version { delta: linear, clock: knew, ..Version::by_hand(seq, p) };
                for fetch in machine.late_store(p, span(word), &clock) {
                    let (at, window) =
                        windows.iter_mut().find(|(at, _)| *at as u64 + 1 == fetch).unwrap();
                    debug_assert!(matches!(ran[*at].op, Op::Fetch(w) if w == word));
                    window[1] += 1;
                }
                versions.store(Arch::X86_64, span(word), Made::New(made), false, |_, _| {
                    Forgotten::None
                });
                version = versions.within(span(word)).next().unwrap().1.newest_number() as u8;
            }
            Op::Load(word) => {
                if let Some(newest) = versions.newest(span(word).first) {
                    version = versions.within(span(word)).next().unwrap().1.newest_number() as u8;
                    if newest.cpu != p {
                        machine.saw(p, &newest);
                    }
                }
            }
            Op::Fetch(word) => {
                let history = versions.within(span(word)).next().map(|(_, h)| h);
                let low = history.as_ref().map_or(0, |h| h.number_at(machine.low(p, h, 0)));
                let high = history.as_ref().map_or(0, |h| h.newest_number());
                let returned = low as usize + mix.below((high - low) as usize + 1);
                version = returned as u8;
                let from = returned.checked_sub(1);
                if let Some(from) = from.and_then(|r| history?.versions.get(r).cloned()) {
                    machine.fetched(p, &from);
                }
                machine.remember_fetch(p, span(word), seq);
                windows.push((at, [low as usize, high as usize]));
            }
            Op::Mfence => machine.barrier(p, Barrier::Mfence, seq),
            Op::Serialise => machine.sync(p, seq),
        }
        ran.push(Step { cpu: *cpu, op: *op, version });
    }
    (ran, windows)
}

/// The machine while it runs.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// Steps executed by each CPU.
    at: [u8; 3],
    /// Stores that wait: word and version.
    buffers: [Vec<(u8, u8)>; 3],
    /// Stores of each word in memory.
    memory: [u8; 4],
    /// What was read ahead for the fetches of the CPU, by their place; the last is the one asked
    /// about.
    ahead: Vec<Option<u8>>,
    /// What the fetch asked about returned.
    returned: Option<u8>,
}

/// Every execution.
struct Oracle<'a> {
    amd: bool,
    threads: [Vec<Step>; 3],
    cpu: usize,
    /// Places, in its thread, of the fetches that are followed; the last is asked about.
    fetches: Vec<usize>,
    seen: FxHashMap<State, u32>,
    _steps: &'a [Step],
}

impl<'a> Oracle<'a> {
    fn of(amd: bool, steps: &'a [Step], fetch: usize) -> Self {
        let mut threads: [Vec<Step>; 3] = Default::default();
        let cpu = usize::from(steps[fetch].cpu);
        let mut fetches = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let thread = &mut threads[usize::from(step.cpu)];
            let fetches_here = usize::from(step.cpu) == cpu && matches!(step.op, Op::Fetch(_));
            if at == fetch || fetches_here && amd && at < fetch {
                fetches.push(thread.len());
            }
            thread.push(*step);
        }
        Self { amd, threads, cpu, fetches, seen: FxHashMap::default(), _steps: steps }
    }

    /// What the fetch can return from a state on, as bits.
    fn from(&mut self, s: State) -> u32 {
        if let Some(known) = self.seen.get(&s) {
            return *known;
        }
        let mut can = 0;
        let done = (0..3)
            .all(|c| usize::from(s.at[c]) == self.threads[c].len() && s.buffers[c].is_empty());
        if done {
            can = s.returned.map_or(0, |v| 1 << v);
        }
        for c in 0..3 {
            if let Some(next) = self.executed(&s, c) {
                can |= self.from(next);
            }
            if let Some((word, version)) = s.buffers[c].first().copied()
                && s.memory[usize::from(word)] + 1 == version
            {
                let mut next = s.clone();
                next.buffers[c].remove(0);
                next.memory[usize::from(word)] = version;
                can |= self.from(next);
            }
        }
        for n in 0..self.fetches.len() {
            if let Some(next) = self.read_ahead(&s, n) {
                can |= self.from(next);
            }
        }
        self.seen.insert(s, can);
        can
    }

    fn start(&self) -> State {
        State {
            at: [0; 3],
            buffers: Default::default(),
            memory: [0; 4],
            ahead: vec![None; self.fetches.len()],
            returned: None,
        }
    }

    fn executed(&self, s: &State, c: usize) -> Option<State> {
        let place = usize::from(s.at[c]);
        let step = self.threads[c].get(place)?;
        let mut next = s.clone();
        next.at[c] += 1;
        match step.op {
            Op::Store(word, linear) => {
                next.buffers[c].push((word, step.version));
                for (n, fetch) in self.fetches.iter().enumerate() {
                    let same = self.threads[c].get(*fetch).map(|f| f.op) == Some(Op::Fetch(word));
                    if c == self.cpu && *fetch > place && same && (self.amd || linear == 0) {
                        self.drop(&mut next, n);
                    }
                }
            }
            Op::Load(word) => {
                let own = s.buffers[c].iter().rev().find(|(w, _)| *w == word);
                let value = own.map_or(s.memory[usize::from(word)], |(_, v)| *v);
                if value != step.version {
                    return None;
                }
            }
            Op::Fetch(_) => {
                let n = self.fetches.iter().position(|f| *f == place);
                if let Some(n) = n.filter(|_| c == self.cpu) {
                    let value = s.ahead[n]?;
                    if n + 1 == self.fetches.len() {
                        next.returned = Some(value);
                    } else if value != step.version {
                        return None;
                    }
                }
            }
            Op::Mfence | Op::Serialise => {
                if !s.buffers[c].is_empty() {
                    return None;
                }
                if c == self.cpu && (self.amd || step.op == Op::Serialise) {
                    for n in 0..self.fetches.len() {
                        if self.fetches[n] > place {
                            self.drop(&mut next, n);
                        }
                    }
                }
            }
        }
        Some(next)
    }

    /// What was read for fetch `n` is dropped, and on AMD all that was read after it.
    fn drop(&self, s: &mut State, n: usize) {
        let to = if self.amd { self.fetches.len() } else { n + 1 };
        s.ahead[n..to].fill(None);
    }

    fn read_ahead(&self, s: &State, n: usize) -> Option<State> {
        let place = self.fetches[n];
        if usize::from(s.at[self.cpu]) > place || n > 0 && self.amd && s.ahead[n - 1].is_none() {
            return None;
        }
        let Op::Fetch(word) = self.threads[self.cpu][place].op else { return None };
        // Own stores that are still buffered count where the CPU compares them with its fetches.
        let own = s.buffers[self.cpu].iter().rev().find(|(w, v)| {
            let made = |x: &&Step| matches!(x.op, Op::Store(to, _) if to == *w) && x.version == *v;
            let linear = self.threads[self.cpu].iter().find(made).map(|x| x.op);
            *w == word && (self.amd || linear == Some(Op::Store(word, 0)))
        });
        let memory = s.memory[usize::from(word)];
        let value = own.map_or(memory, |(_, v)| (*v).max(memory));
        // Read again only if there is something newer.
        if s.ahead[n] == Some(value) {
            return None;
        }
        let mut next = s.clone();
        self.drop(&mut next, n);
        next.ahead[n] = Some(value);
        Some(next)
    }
}

fn compare(seeds: std::ops::Range<u64>) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let mut mix = Mix::of(seed);
        let steps = program(&mut mix);
        let amd = mix.below(2) == 0;
        let (ran, windows) = run(amd, &steps, &mut mix);
        for (fetch, [low, high]) in windows {
            let mut oracle = Oracle::of(amd, &ran, fetch);
            let start = oracle.start();
            let can = oracle.from(start);
            let Op::Fetch(word) = ran[fetch].op else { continue };
            let count = ran.iter().filter(|s| matches!(s.op, Op::Store(w, _) if w == word)).count();
            let ours = (low..=high).fold(0, |set, v| set | 1 << v);
            // A load that missed a store: that the load comes first no clock has.
            let missed = ran.iter().enumerate().any(|(at, s)| {
                let Op::Load(w) = s.op else { return false };
                ran[at..].iter().any(|x| matches!(x.op, Op::Store(to, _) if to == w))
            });
            let outcome = match ours == can {
                true => Outcome::Equal,
                false if missed && ours & can == can => Outcome::Wider,
                false => Outcome::Different,
            };
            tally.add([low, high], count, outcome, || {
                let text = format!("seed {seed}, amd {amd}, fetch {fetch}: {ours:b} but {can:b}");
                format!("{text}\n{ran:#?}")
            });
        }
    }
    tally
}

#[test]
fn windows_of_random_programs_are_those_of_every_execution() {
    let tally = compare(0..1000);
    println!(
        "x86-64: {} windows compared, {} equal, {} wider; {} narrower than all versions",
        tally.windows, tally.equal, tally.wider, tally.narrow
    );
    tally.all_compare();
    assert!(tally.windows > 3000 && tally.narrow > 500, "{tally:?}");
    assert!(tally.wider * 50 < tally.windows, "{tally:?}");
}

#[test]
#[ignore = "takes minutes; in make conform, by TEXTBED_LONG"]
fn windows_of_very_many_random_programs() {
    let tally = compare(1_000_000..1_030_000);
    println!(
        "x86-64: {} windows compared, {} equal, {} wider",
        tally.windows, tally.equal, tally.wider
    );
    tally.all_compare();
}

#[test]
fn mistakes_on_x86_are_found() {
    for mistake in [
        Mistake::NoAnchor,
        Mistake::NoLateStores,
        Mistake::LinearIsPhysical,
        Mistake::FenceSerialises,
        Mistake::SyncTakesStream,
        Mistake::FetchOrdersNothing,
        Mistake::NoCoherence,
    ] {
        let found = (0..20).any(|part| {
            let seeds = part * 200..(part + 1) * 200;
            mistakes::with(Some(mistake), || compare(seeds)).first.is_some()
        });
        assert!(found, "{mistake:?} was not found");
    }
}
