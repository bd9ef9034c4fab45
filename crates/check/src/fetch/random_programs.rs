//! Fetch windows of random programs against an enumeration that shares nothing with the views: the
//! effects of a program as a graph, its edges written down from the architecture's machine-readable
//! model, and every order of cleans against stores and of invalidations against the fetch tried.
//!
//! A version is in the window of a fetch iff one of these choices leaves the graph without a cycle,
//! the other fetches keeping the edge from the store that they returned and proving nothing else.
//! Two stored words share a line, so cleans and invalidations act on more than one word.
//!
//! The comparison is sharp if deliberate errors show: the last test seeds them. Not generated:
//! releases and acquires, load buffering, IALLU, lines reached by two names.
//!
//! Source: herdtools7 `aarch64.cat`, `aarch64hwreqs.cat`, `enumerations.cat` (5feffe4e8), read.

use textbed_arch::{CpuId, effect::Barrier};

use super::arm64::Caches;
use super::views::View;
use super::worked_examples::{CONFIGURATIONS, Litmus};

/// Code words, the first two on one line; and two flags.
const CODE: [u64; 3] = [0, 4, 64];
const FLAGS: [u64; 2] = [128, 192];
/// Pairs without an order beyond which a program is left out: it would take too long.
const MAX_CHOICES: usize = 10;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Op {
    Store(u64),
    /// A store whose data the CPU's last load fed.
    StoreAfter(u64),
    Load(u64),
    /// A load whose address the CPU's last load fed.
    LoadAfter(u64),
    Clean(u64),
    Invalidate(u64),
    Fetch(u64),
    Barrier(Barrier),
    Sync,
    /// A branch on the CPU's last load.
    Branch,
}

use Op::*;

impl Op {
    fn word(self) -> Option<u64> {
        match self {
            Store(w) | StoreAfter(w) | Load(w) | LoadAfter(w) | Clean(w) | Invalidate(w)
            | Fetch(w) => Some(w),
            _ => None,
        }
    }
    fn stores(self) -> bool {
        matches!(self, Store(_) | StoreAfter(_))
    }
    fn loads(self) -> bool {
        matches!(self, Load(_) | LoadAfter(_))
    }
    fn accesses(self) -> bool {
        self.stores() || self.loads()
    }
    fn cleans(self) -> bool {
        matches!(self, Clean(_))
    }
    fn invalidates(self) -> bool {
        matches!(self, Invalidate(_))
    }
    fn fetches(self) -> bool {
        matches!(self, Fetch(_))
    }
}

/// A step of a program as it ran: who, what, and for fetches which version came back.
#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: u16,
    op: Op,
    returned: usize,
}

/// A small generator, so that a failure can be run again from its seed.
struct Mix(u64);

impl Mix {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// Fragments of protocols with events dropped, interleaved.
fn program(mix: &mut Mix) -> Vec<(u16, Op)> {
    let dmbs = [Barrier::DmbFull, Barrier::DmbStore, Barrier::DmbLoad];
    let cpus = 2 + mix.below(2);
    let mut queues: Vec<Vec<Op>> = Vec::new();
    for _ in 0..cpus {
        let mut ops = Vec::new();
        for _ in 0..1 + mix.below(2) {
            let (code, flag) = (CODE[mix.below(3)], FLAGS[mix.below(2)]);
            let near = if mix.below(3) == 0 { code ^ 4 & !code >> 4 } else { code };
            let dmb = Barrier(dmbs[mix.below(3)]);
            let full = Barrier(Barrier::DsbFull);
            let weak = Barrier([Barrier::DsbLoad, Barrier::DsbStore][mix.below(2)]);
            let fragment: Vec<Op> = match mix.below(8) {
                0 | 1 => {
                    vec![Store(code), Clean(near), full, Invalidate(near), full, Store(flag)]
                }
                2 | 3 => vec![Load(flag), Branch, Sync, Fetch(code), Fetch(near)],
                4 => vec![Store(code), Clean(near), dmb, Store(flag)],
                5 => vec![Load(flag), full, Invalidate(near), full, Sync, Fetch(code)],
                6 => vec![
                    Fetch(code),
                    [Load(code), LoadAfter(flag)][mix.below(2)],
                    dmb,
                    [StoreAfter(flag), Store(CODE[mix.below(3)])][mix.below(2)],
                ],
                _ => vec![
                    Load(flag),
                    [weak, dmb, Branch][mix.below(3)],
                    Clean(near),
                    full,
                    Invalidate(near),
                    full,
                    Sync,
                    Fetch(code),
                ],
            };
            ops.extend(fragment.into_iter().filter(|_| mix.below(7) != 0));
        }
        ops.truncate(9);
        ops.reverse();
        queues.push(ops);
    }
    let mut steps = Vec::new();
    while queues.iter().any(|q| !q.is_empty()) {
        let cpu = mix.below(cpus);
        // In bursts, so that a protocol is often whole.
        for _ in 0..1 + mix.below(6) {
            if let Some(op) = queues[cpu].pop() {
                steps.push((cpu as u16, op));
            }
        }
    }
    steps
}

/// What is done wrong on purpose, beside or instead of an event.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Error {
    None,
    DmbCompletesIc,
    DsbOrdersFetches,
    SyncTakesAllLoads,
    CompletionCloses,
    NoAnchor,
    DmbStoreCarriesClean,
    CleanOfOneWord,
}

/// Runs a program through the views. Returns its steps and the windows of its fetches.
fn run(caches: Caches, steps: &[(u16, Op)], mix: &mut Mix, error: Error) -> (Vec<Step>, Windows) {
    let mut t = Litmus::new(caches);
    let mut taints: Vec<View> = vec![View::default(); 3];
    let mut all: Vec<View> = vec![View::default(); 3];
    let (mut ran, mut ids) = (Vec::new(), Vec::new());
    for &(cpu, op) in steps {
        let p = usize::from(cpu);
        let mut returned = 0;
        match op {
            Store(at) => t.str(cpu, at),
            StoreAfter(at) => t.str_after(cpu, at, &taints[p].clone()),
            Load(at) => taints[p] = t.ldr(cpu, at),
            LoadAfter(at) => {
                let taint = taints[p].clone();
                taints[p] = t.ldr_after(cpu, at, &taint);
            }
            Clean(at) if error == Error::CleanOfOneWord => t.dc(cpu, at),
            Clean(at) => t.dc_line(cpu, at),
            Invalidate(at) => t.ic_line(cpu, at),
            Branch => t.stream.weak.branch(CpuId(cpu), &taints[p]),
            Sync => {
                if error == Error::SyncTakesAllLoads {
                    t.stream.weak.branch(CpuId(cpu), &all[p]);
                }
                t.isb(cpu);
            }
            Barrier(b) => {
                t.barrier(
                    cpu,
                    match b {
                        Barrier::DmbFull if error == Error::DmbCompletesIc => Barrier::DsbFull,
                        Barrier::DmbStore if error == Error::DmbStoreCarriesClean => {
                            Barrier::DmbFull
                        }
                        other => other,
                    },
                );
                let everybody = error == Error::CompletionCloses;
                if b == Barrier::DsbFull && (everybody || error == Error::DsbOrdersFetches) {
                    t.isb(cpu);
                }
            }
            Fetch(at) => {
                let [low, high] = t.would(cpu, at);
                returned = low + mix.below(high - low + 1);
                let told = if error == Error::NoAnchor { 0 } else { returned };
                ids.push((ran.len(), t.fetch(cpu, at, told)));
            }
        }
        if op.loads() {
            all[p] = all[p].clone().with(&taints[p]);
        }
        ran.push(Step { cpu, op, returned });
    }
    (ran, ids.into_iter().map(|(at, id)| (at, t.window(id))).collect())
}

/// Place of a fetch in the program, and its window.
type Windows = Vec<(usize, [usize; 2])>;

/// The graph: for each step the set of steps after it.
#[derive(Clone)]
struct Graph(Vec<u64>);

impl Graph {
    fn edge(&mut self, a: usize, b: usize) {
        self.0[a] |= 1 << b;
    }

    fn closed(mut self) -> Self {
        for via in 0..self.0.len() {
            let more = self.0[via];
            for from in &mut self.0 {
                if *from >> via & 1 != 0 {
                    *from |= more;
                }
            }
        }
        self
    }

    fn has(&self, a: usize, b: usize) -> bool {
        self.0[a] >> b & 1 != 0
    }

    fn has_cycle(&self) -> bool {
        self.0.iter().enumerate().any(|(at, after)| after >> at & 1 != 0)
    }
}

fn line(word: u64) -> u64 {
    word >> 6
}

/// A program, and what does not depend on the fetch that is asked about.
struct Model<'a> {
    caches: Caches,
    steps: &'a [Step],
}

impl Model<'_> {
    fn between(&self, a: usize, b: usize, what: impl Fn(Op) -> bool) -> bool {
        (a + 1..b).any(|at| self.steps[at].cpu == self.steps[a].cpu && what(self.steps[at].op))
    }

    fn same_word(&self, a: usize, b: usize) -> bool {
        self.steps[a].op.word() == self.steps[b].op.word()
    }

    fn same_line(&self, a: usize, b: usize) -> bool {
        let line = |at: usize| self.steps[at].op.word().map(line);
        line(a) == line(b)
    }

    /// Whether a DSB between orders `a` before `b`, or what comes after it on that CPU.
    fn dsb(&self, a: usize, b: usize) -> bool {
        let x = self.steps[a].op;
        let any = x.accesses() || x.cleans() || x.invalidates();
        self.between(a, b, |op| match op {
            Barrier(Barrier::DsbFull) => any,
            Barrier(Barrier::DsbLoad) => x.loads(),
            Barrier(Barrier::DsbStore) => x.stores(),
            _ => false,
        })
    }

    /// The load that fed `at`, for what names the last load of its CPU.
    fn fed_by(&self, at: usize) -> Option<usize> {
        let feeds = matches!(self.steps[at].op, StoreAfter(_) | LoadAfter(_) | Branch);
        let mine =
            |l: &usize| self.steps[*l].cpu == self.steps[at].cpu && self.steps[*l].op.loads();
        (0..at).rev().find(mine).filter(|_| feeds)
    }

    fn branch(&self, a: usize, b: usize) -> bool {
        (a + 1..b).any(|at| {
            self.steps[at].cpu == self.steps[a].cpu
                && self.steps[at].op == Branch
                && self.fed_by(at) == Some(a)
        })
    }

    /// Whether `a` is a load that an ISB between puts before everything after it.
    fn synchronised(&self, a: usize, b: usize) -> bool {
        (a + 1..b).any(|isb| {
            let is = self.steps[isb].op == Sync && self.steps[isb].cpu == self.steps[a].cpu;
            let address = (a + 1..isb)
                .any(|m| matches!(self.steps[m].op, LoadAfter(_)) && self.fed_by(m) == Some(a));
            is && (self.dsb(a, isb) || self.branch(a, isb) || address)
        })
    }

    /// Whether `a` is before `b` by what one CPU guarantees.
    fn local(&self, a: usize, b: usize) -> bool {
        let (x, y) = (self.steps[a].op, self.steps[b].op);
        let to = |op: Op| op.accesses() || op.cleans();
        let dmb = self.between(a, b, |op| match op {
            Barrier(Barrier::DmbFull | Barrier::DsbFull) => to(x) && to(y),
            Barrier(Barrier::DmbLoad | Barrier::DsbLoad) => x.loads() && y.accesses(),
            Barrier(Barrier::DmbStore | Barrier::DsbStore) => x.stores() && y.stores(),
            _ => false,
        });
        let fed = self.fed_by(b) == Some(a);
        let controlled = y.stores() || y.cleans() || y.invalidates();
        let address_before_store = y.stores()
            && (a + 1..b)
                .any(|m| matches!(self.steps[m].op, LoadAfter(_)) && self.fed_by(m) == Some(a));
        // The value of an own store that was fed comes back by forwarding.
        let forwarded = y.loads()
            && (a + 1..b)
                .rev()
                .find(|m| self.steps[*m].op.stores() && self.same_word(*m, b))
                .is_some_and(|m| {
                    self.steps[m].cpu == self.steps[a].cpu && self.fed_by(m) == Some(a)
                });
        x.fetches() && !y.fetches()
            || x.accesses() && y.stores() && self.same_word(a, b)
            || to(x) && to(y) && (x.cleans() || y.cleans()) && self.same_line(a, b)
            || dmb
            || !y.fetches() && self.dsb(a, b)
            || self.synchronised(a, b)
            || fed
            || x.loads() && controlled && self.branch(a, b)
            || address_before_store
            || forwarded
    }

    fn is_effect(&self, at: usize) -> bool {
        self.steps[at].op.word().is_some()
    }

    /// Stores of the word, in coherence order: that of the stream.
    fn stores(&self, word: u64) -> Vec<usize> {
        let of =
            |at: &usize| self.steps[*at].op.stores() && self.steps[*at].op.word() == Some(word);
        (0..self.steps.len()).filter(of).collect()
    }

    /// Order by what CPUs guarantee, by loads, by coherence and other fetches than `but`.
    fn base(&self, but: usize) -> Graph {
        let n = self.steps.len();
        let mut g = Graph(vec![0; n]);
        for b in 0..n {
            for a in (0..b).filter(|a| self.is_effect(*a) && self.is_effect(b)) {
                let (x, y) = (self.steps[a], self.steps[b]);
                if x.cpu == y.cpu {
                    if self.local(a, b) {
                        g.edge(a, b);
                    }
                } else if self.same_word(a, b)
                    && x.op.accesses()
                    && y.op.accesses()
                    && (x.op.stores() || y.op.stores())
                {
                    // Loads return the newest version, so all three relations follow the stream; a
                    // load of an own newer store reads from no older one.
                    let own = y.op.loads()
                        && (a + 1..b).any(|m| self.steps[m].op.stores() && self.same_word(m, b));
                    if !own {
                        g.edge(a, b);
                    }
                }
            }
            if self.steps[b].op.fetches()
                && b != but
                && let Some(r) = self.steps[b].returned.checked_sub(1)
                && let Some(word) = self.steps[b].op.word()
            {
                g.edge(self.stores(word)[r], b);
            }
        }
        g
    }

    /// Whether fetch `f` can return version `v`; nothing if there is too much to try.
    fn can_return(&self, f: usize, v: usize) -> Option<bool> {
        let mut g = self.base(f);
        let stores = self.stores(self.steps[f].op.word()?);
        if let Some(v) = v.checked_sub(1) {
            g.edge(stores[v], f);
        }
        let newer = &stores[v..];
        let cpu = self.steps[f].cpu;
        let before =
            |at: &usize| self.steps[*at].op.fetches() && self.steps[*at].cpu == cpu && *at <= f;
        let earlier: Vec<usize> = (0..=f).filter(before).collect();
        if !self.caches.invalidate {
            for w in newer {
                earlier.iter().for_each(|e| g.edge(*e, *w));
            }
            return Some(!g.closed().has_cycle());
        }
        let n = self.steps.len();
        let completing = |i: &usize| {
            self.steps[*i].op.invalidates()
                && self.same_line(*i, f)
                && self.between(*i, n, |op| op == Barrier(Barrier::DsbFull))
        };
        let ics: Vec<usize> = (0..n).filter(completing).collect();
        let dcs: Vec<usize> = (0..n).filter(|d| self.steps[*d].op.cleans()).collect();
        let known = g.clone().closed();
        if known.has_cycle() {
            return Some(false);
        }
        // Pairs in whose order the program has no say: (clean, newer store), (invalidation, fetch).
        let mut open: Vec<(usize, usize)> = Vec::new();
        if self.caches.clean {
            let pairs = dcs.iter().flat_map(|d| newer.iter().map(move |w| (*d, *w)));
            open.extend(pairs.filter(|(d, w)| {
                self.same_line(*d, *w) && !known.has(*d, *w) && !known.has(*w, *d)
            }));
        }
        open.extend(
            ics.iter().map(|i| (*i, f)).filter(|(i, f)| !known.has(*i, *f) && !known.has(*f, *i)),
        );
        if open.len() > MAX_CHOICES {
            return None;
        }
        Some((0..1u32 << open.len()).any(|choice| {
            let mut g = g.clone();
            for (at, (a, b)) in open.iter().enumerate() {
                if choice >> at & 1 == 0 { g.edge(*a, *b) } else { g.edge(*b, *a) }
            }
            let order = g.clone().closed();
            for i in &ics {
                if order.has(*i, f) {
                    // Invalidated before: then not after a clean of what it misses.
                    for w in newer {
                        if !self.caches.clean {
                            g.edge(*i, *w);
                        }
                        let late =
                            dcs.iter().filter(|d| self.same_line(**d, *w) && order.has(*w, **d));
                        late.filter(|_| self.caches.clean).for_each(|d| g.edge(*i, *d));
                    }
                } else {
                    // Fetched before it was complete, and so was all that the CPU fetched before.
                    for after in (*i + 1..n).filter(|at| self.is_effect(*at)) {
                        let ours = self.steps[after].cpu == self.steps[*i].cpu;
                        let done = !self.steps[after].op.fetches() && self.dsb(*i, after)
                            || self.synchronised(*i, after);
                        if ours && done {
                            earlier.iter().for_each(|e| g.edge(*e, after));
                        }
                    }
                }
            }
            !g.closed().has_cycle()
        }))
    }
}

/// What a comparison came to.
#[derive(Default, Debug)]
struct Tally {
    windows: u32,
    equal: u32,
    narrow: u32,
    low: u32,
    left_out: u32,
    first: Option<String>,
}

fn compare(seeds: std::ops::Range<u64>, error: Error) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let mut mix = Mix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let steps = program(&mut mix);
        let (name, caches) = CONFIGURATIONS[mix.below(3)];
        let (ran, windows) = run(caches, &steps, &mut mix, error);
        let model = Model { caches, steps: &ran };
        for (f, [low, high]) in windows {
            let count = model.stores(ran[f].op.word().unwrap_or(0)).len();
            let can: Option<Vec<bool>> = (0..=count).map(|v| model.can_return(f, v)).collect();
            let Some(can) = can else {
                tally.left_out += 1;
                continue;
            };
            tally.windows += 1;
            tally.narrow += u32::from(high - low < count);
            tally.low += u32::from(low > 0);
            let ours: Vec<bool> = (0..=count).map(|v| (low..=high).contains(&v)).collect();
            if ours == can {
                tally.equal += 1;
            } else if tally.first.is_none() {
                let text =
                    format!("seed {seed}, {name}, fetch {f}: {ours:?} but {can:?}\n{ran:#?}");
                tally.first = Some(text);
            }
        }
    }
    tally
}

#[test]
fn windows_of_random_programs_are_those_of_the_enumeration() {
    let tally = compare(0..6000, Error::None);
    println!(
        "{} windows compared, {} equal; {} narrower than all versions, {} not from 0; {} left out",
        tally.windows, tally.equal, tally.narrow, tally.low, tally.left_out
    );
    assert_eq!(tally.windows, tally.equal, "{}", tally.first.unwrap_or_default());
    assert!(tally.windows > 8000 && tally.narrow > 1000 && tally.low > 300, "{tally:?}");
    assert!(tally.left_out * 20 < tally.windows, "{tally:?}");
}

#[test]
fn deliberate_errors_are_found() {
    for error in [
        Error::DmbCompletesIc,
        Error::DsbOrdersFetches,
        Error::SyncTakesAllLoads,
        Error::CompletionCloses,
        Error::NoAnchor,
        Error::DmbStoreCarriesClean,
        Error::CleanOfOneWord,
    ] {
        let tally = compare(0..6000, error);
        assert!(tally.equal < tally.windows, "{error:?} was not found: {tally:?}");
    }
}
