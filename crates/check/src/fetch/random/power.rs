//! Fetch windows on Power of random programs, against chains that are looked for one by one.
//!
//! What one CPU orders is written down pair by pair from the texts, and a version is excluded iff a
//! younger store has a path to the fetch that passes, in this order, a `dcbst` of its line, an
//! `icbi` of its line and a `sync` behind that (coherent instruction cache: any `icbi` and its
//! `sync`); for the CPU that did the `icbi`, its `isync` will do for the last one. Nothing is
//! shared with the views.
//!
//! Order between CPUs is reads-from alone: storage is not multi-copy-atomic, so a load that missed
//! a store, and coherence, hand nothing on. Not generated: `eieio` between cacheable and
//! caching-inhibited storage, prefixed instructions, reservations.
//!
//! Sources: Power ISA 2.03 Book II 1.7, 1.8; 'isync' and 'icbi' of the current ISA; IBM 750GX UM
//! 3.2, 603e UM 2.3.4.3.1; Linux 6.19 `powerpc/mm/cacheflush.c` (coherent instruction cache).

use textbed_arch::effect::{Barrier, Domain};
use textbed_arch::{CpuId, Features};
use textbed_event::MemOrder;

use super::super::powerpc;
use super::super::views::View;
use super::{Mix, Outcome, Tally, interleave};
use crate::fetch::caches::Caches;
use crate::mistakes::{self, Mistake};
use crate::outcomes::Stream;
use crate::span::Span;

/// Code words, the first two on one line of 64 bytes; flags.
const CODE: [u64; 3] = [0, 4, 64];
const FLAGS: [u64; 2] = [128, 192];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Op {
    Store(u64),
    Load(u64),
    /// A branch on the CPU's last load.
    Branch,
    Dcbst(u64),
    Icbi(u64),
    Fence(Barrier),
    Isync,
    Fetch(u64),
}

use Op::*;

#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: u16,
    op: Op,
}

fn program(mix: &mut Mix) -> Vec<Step> {
    let cpus = 2 + mix.below(2);
    let (sync, lwsync) = (Fence(Barrier::Sync), Fence(Barrier::Lwsync));
    let mut queues: Vec<Vec<Op>> = Vec::new();
    for _ in 0..cpus {
        let mut ops = Vec::new();
        for _ in 0..1 + mix.below(2) {
            let (code, flag) = (CODE[mix.below(3)], FLAGS[mix.below(2)]);
            let near = if mix.below(3) == 0 { code ^ 4 & !code >> 4 } else { code };
            let other = CODE[mix.below(3)];
            let some = [sync, lwsync, lwsync, Fence(Barrier::Eieio)][mix.below(4)];
            let fragment: Vec<Op> = match mix.below(7) {
                0 | 1 => {
                    vec![Store(code), Dcbst(near), sync, Icbi(near), sync, Store(flag)]
                }
                2 => vec![Load(flag), Branch, Isync, Fetch(code), Fetch(near)],
                3 => vec![Store(code), Dcbst(near), some, Store(flag)],
                4 => vec![Load(flag), some, Icbi(near), sync, Isync, Fetch(code)],
                5 => vec![Store(code), Dcbst(near), sync, Icbi(near), Isync, Fetch(near)],
                _ => vec![Fetch(code), Load(flag), some, Store([flag, other][mix.below(2)])],
            };
            ops.extend(fragment.into_iter().filter(|_| mix.below(8) != 0));
        }
        ops.truncate(10);
        queues.push(ops);
    }
    interleave(mix, queues, 6).into_iter().map(|(cpu, op)| Step { cpu, op }).collect()
}

/// The windows of the fetches, by the views.
fn run(caches: Caches, steps: &[Step]) -> Vec<(usize, [usize; 2])> {
    let mut t = Stream::new(caches);
    let mut taints: Vec<View> = vec![View::default(); 3];
    let mut ids = Vec::new();
    let none = View::default();
    let line = |at: u64| Some(Span { first: at & !63, last: at | 63 });
    for (at, Step { cpu, op }) in steps.iter().enumerate() {
        let p = usize::from(*cpu);
        match *op {
            Store(word) => t.store(*cpu, word, MemOrder::Plain, &none),
            Load(word) => taints[p] = t.load(*cpu, word, MemOrder::Plain, &none),
            Branch => t.weak.branch(CpuId(*cpu), &taints[p]),
            Dcbst(word) => t.clean(*cpu, line(word), &none),
            Icbi(word) => t.invalidate(*cpu, line(word), &none),
            Fence(barrier) => t.barrier(*cpu, barrier, Domain::System),
            Isync => t.sync(*cpu),
            Fetch(word) => {
                let [_, newest] = t.would(*cpu, word);
                ids.push((at, t.fetch(*cpu, word, newest)));
            }
        }
    }
    ids.into_iter().map(|(at, id)| (at, t.window(id))).collect()
}

/// A program with what its order is made of.
struct Model<'a> {
    steps: &'a [Step],
    coherent: bool,
}

impl Model<'_> {
    fn same_cpu(&self, a: usize, b: usize) -> bool {
        self.steps[a].cpu == self.steps[b].cpu
    }

    fn between(&self, a: usize, b: usize, what: impl Fn(usize) -> bool) -> bool {
        (a + 1..b).any(|at| self.same_cpu(at, a) && what(at))
    }

    fn fence(&self, a: usize, b: usize, barrier: Barrier) -> bool {
        self.between(a, b, |at| self.steps[at].op == Fence(barrier))
    }

    fn line(&self, at: usize) -> Option<u64> {
        match self.steps[at].op {
            Store(w) | Load(w) | Dcbst(w) | Icbi(w) | Fetch(w) => Some(w >> 6),
            _ => None,
        }
    }

    fn word(&self, at: usize) -> Option<u64> {
        match self.steps[at].op {
            Store(w) | Load(w) | Fetch(w) => Some(w),
            _ => None,
        }
    }

    /// The branch on load `a` is before `b`.
    fn controls(&self, a: usize, b: usize) -> bool {
        (a + 1..b).any(|at| {
            let last = (0..at)
                .rev()
                .find(|l| self.same_cpu(*l, at) && matches!(self.steps[*l].op, Load(_)));
            self.same_cpu(at, a) && self.steps[at].op == Branch && last == Some(a)
        })
    }

    /// Whether `a` is before `b`, both of one CPU. An `icbi` is before nothing but by `sync`.
    fn local(&self, a: usize, b: usize) -> bool {
        let (x, y) = (self.steps[a].op, self.steps[b].op);
        let (load, store) = (matches!(x, Load(_)), matches!(x, Store(_)));
        let to_store = matches!(y, Store(_));
        let full = |end: usize| self.fence(a, end, Barrier::Sync) && !matches!(x, Fetch(_));
        // What an isync hands to all that follows: what a sync ordered, and loads that decided a
        // branch.
        let isync = (a + 1..b).any(|at| {
            self.same_cpu(at, a)
                && self.steps[at].op == Isync
                && (full(at) || load && self.controls(a, at))
        });
        let lines = matches!(x, Store(_) | Load(_)) && matches!(y, Dcbst(_))
            || matches!(x, Dcbst(_)) && matches!(y, Store(_) | Dcbst(_));
        let lwsync = self.fence(a, b, Barrier::Lwsync);
        isync
            || !matches!(y, Fetch(_)) && full(b)
            || matches!(x, Fetch(_)) && to_store
            || lines && self.line(a) == self.line(b)
            || (load || store) && to_store && self.word(a) == self.word(b)
            || lwsync && (load && matches!(y, Load(_) | Store(_)) || store && to_store)
            || store && to_store && self.fence(a, b, Barrier::Eieio)
            || load && (to_store || matches!(y, Dcbst(_) | Icbi(_))) && self.controls(a, b)
    }

    /// For each step those after it: what CPUs order, and reads-from. Loads return the newest.
    fn after(&self) -> Vec<u64> {
        let n = self.steps.len();
        let mut after = vec![0u64; n];
        let effect = |at: &usize| self.line(*at).is_some();
        for b in (0..n).filter(effect) {
            for a in (0..b).filter(effect) {
                if self.same_cpu(a, b) && self.local(a, b) {
                    after[a] |= 1 << b;
                }
            }
            if matches!(self.steps[b].op, Load(_)) {
                let from = (0..b).rev().find(|a| {
                    matches!(self.steps[*a].op, Store(_)) && self.word(*a) == self.word(b)
                });
                if let Some(a) = from.filter(|a| !self.same_cpu(*a, b)) {
                    after[a] |= 1 << b;
                }
            }
        }
        for via in 0..n {
            let more = after[via];
            for row in &mut after {
                if *row >> via & 1 != 0 {
                    *row |= more;
                }
            }
        }
        after
    }

    /// Whether the store is below every window of the fetch that follows from what is known.
    fn closed(&self, after: &[u64], store: usize, fetch: usize) -> bool {
        let n = self.steps.len();
        let has = |a: usize, b: usize| after[a] >> b & 1 != 0;
        let icbis = (0..n).filter(|i| matches!(self.steps[*i].op, Icbi(_)));
        icbis
            .filter(|i| {
                let covers = self.coherent || self.line(*i) == self.line(store);
                let known = if self.coherent {
                    has(store, *i)
                } else {
                    (0..n).any(|d| {
                        matches!(self.steps[d].op, Dcbst(_))
                            && self.line(d) == self.line(store)
                            && has(store, d)
                            && has(d, *i)
                    })
                };
                covers && known
            })
            .any(|i| {
                let own = self.same_cpu(i, fetch)
                    && i < fetch
                    && self.between(i, fetch, |at| self.steps[at].op == Isync);
                own || has(i, fetch)
            })
    }

    fn stores(&self, word: u64) -> Vec<usize> {
        (0..self.steps.len()).filter(|at| self.steps[*at].op == Store(word)).collect()
    }

    /// The versions that a fetch can return.
    fn window(&self, fetch: usize) -> Vec<bool> {
        let after = self.after();
        let stores = self.word(fetch).map_or_else(Vec::new, |word| self.stores(word));
        let closed = |v: usize| stores[v..].iter().any(|w| self.closed(&after, *w, fetch));
        let later = |v: usize| stores[..v].iter().any(|w| after[fetch] >> w & 1 != 0);
        (0..=stores.len()).map(|v| !closed(v) && !later(v)).collect()
    }
}

fn compare(seeds: std::ops::Range<u64>) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let mut mix = Mix::of(seed);
        let steps = program(&mut mix);
        let coherent = mix.below(2) == 0;
        let features = if coherent { Features::PPC_COHERENT_ICACHE } else { Features::empty() };
        let model = Model { steps: &steps, coherent };
        for (fetch, [low, high]) in run(powerpc::caches(features), &steps) {
            let can = model.window(fetch);
            let ours: Vec<bool> = (0..can.len()).map(|v| (low..=high).contains(&v)).collect();
            let outcome = if ours == can { Outcome::Equal } else { Outcome::Different };
            tally.add([low, high], can.len() - 1, outcome, || {
                let text = format!("seed {seed}, coherent {coherent}, fetch {fetch}");
                format!("{text}: {ours:?} but {can:?}\n{steps:#?}")
            });
        }
    }
    tally
}

#[test]
fn windows_of_random_programs_are_those_of_every_chain() {
    let tally = compare(0..4000);
    println!(
        "powerpc: {} windows compared, {} equal; {} narrower than all versions, {} not from 0",
        tally.windows, tally.equal, tally.narrow, tally.low
    );
    tally.all_compare();
    assert!(tally.windows > 4000 && tally.narrow > 500 && tally.low > 200, "{tally:?}");
}

#[test]
#[ignore = "takes minutes; in make conform, by TEXTBED_LONG"]
fn chains_of_very_many_random_programs() {
    let tally = compare(1_000_000..1_400_000);
    println!("powerpc: {} windows compared, {} equal", tally.windows, tally.equal);
    tally.all_compare();
}

#[test]
fn mistakes_on_power_are_found() {
    for mistake in [
        Mistake::NoLateStores,
        Mistake::NoOrderOfLine,
        Mistake::DsbOrdersFetches,
        Mistake::SyncTakesAllLoads,
        Mistake::FetchOrdersNothing,
        Mistake::CleanOfOneWord,
        Mistake::IsyncCompletesForAll,
        Mistake::IsyncCompletesNothing,
        Mistake::LwsyncCompletes,
        Mistake::LwsyncCarriesClean,
        Mistake::FromReadsOnPower,
        Mistake::IcbiOfOneLine,
    ] {
        let found = (0..20).any(|part| {
            let seeds = part * 1000..(part + 1) * 1000;
            mistakes::with(Some(mistake), || compare(seeds)).first.is_some()
        });
        assert!(found, "{mistake:?} was not found");
    }
}
