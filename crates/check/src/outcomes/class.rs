//! A class: what each thread executed, which store each load and fetch returned, and the order of
//! the stores of each address.

use super::explore::Run;
use super::graph::Graph;
use super::local::Local;
use super::step::{Lines, Side, Step};
use crate::mistakes::{Mistake, made};

/// What an effect is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Load(u64),
    Store(u64),
    Clean(Lines),
    /// The second: on its own CPU alone.
    Invalidate(Lines, bool),
    Fetch(u64),
}

impl Kind {
    pub(super) fn of(step: &Step) -> Option<Kind> {
        Some(match *step {
            Step::Load { at, .. } => Kind::Load(at),
            Step::Store { at, .. } => Kind::Store(at),
            Step::Clean { lines, .. } => Kind::Clean(lines),
            Step::Invalidate { lines, alone, .. } => Kind::Invalidate(lines, alone),
            Step::Fetch { at } => Kind::Fetch(at),
            Step::Barrier(..) | Step::Branch { .. } | Step::Sync => return None,
        })
    }

    /// The address of a load or store.
    pub(super) fn access(&self) -> Option<u64> {
        match self {
            Kind::Load(at) | Kind::Store(at) => Some(*at),
            _ => None,
        }
    }

    pub(super) fn cleans(&self, at: u64) -> bool {
        matches!(self, Kind::Clean(lines) if lines.cover(at))
    }
}

/// A step that takes part in the order: not a barrier, a branch, a synchronisation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effect {
    pub(super) cpu: u16,
    pub(super) kind: Kind,
    /// Its place among the steps of its thread.
    pub(super) step: usize,
}

impl Effect {
    /// Its thread, and its place among that one's steps.
    #[must_use]
    pub fn place(&self) -> (u16, usize) {
        (self.cpu, self.step)
    }

    /// The address fetched from, if it is a fetch.
    #[must_use]
    pub fn fetched(&self) -> Option<u64> {
        match self.kind {
            Kind::Fetch(at) => Some(at),
            _ => None,
        }
    }
}

/// One class. Its loads and stores of each address follow coherence.
#[derive(Clone, Debug)]
pub struct Class<'a> {
    pub(super) side: Side,
    /// The steps of each thread.
    pub(super) steps: Vec<&'a [Step]>,
    pub(super) locals: Vec<&'a Local>,
    pub(super) effects: Vec<Effect>,
    /// The number of the version that a load or fetch returned: 0 = initial.
    pub(super) returned: Vec<usize>,
    /// Stores of each address in coherence order, sorted by address.
    pub(super) stores: Vec<(u64, Vec<usize>)>,
    /// Place of each thread's first effect.
    pub(super) first: Vec<usize>,
}

/// The order of a class.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    pub(super) public: Graph,
    /// For each effect those of its own CPU that are before it for that CPU's fetches only; empty
    /// if no CPU has such.
    private: Vec<u128>,
    /// A fetch returned what it can't have.
    pub(super) impossible: bool,
}

impl Orders {
    pub(super) fn add(&mut self, a: usize, b: usize) -> bool {
        self.public.add(a, b)
    }

    pub(super) fn fails(&self) -> bool {
        self.impossible || self.public.is_cyclic()
    }

    /// Whether `a` is before `b` as fetches of `b`'s CPU see it: in the order of all, or by a
    /// chain that ends with what the CPU orders for itself alone.
    pub(super) fn before(&self, a: usize, b: usize) -> bool {
        let own = || {
            let reached = self.public.after(a) | 1 << a;
            self.private.get(b).is_some_and(|own| own & reached != 0)
        };
        self.public.has(a, b) || own()
    }
}

impl<'a> Class<'a> {
    pub(super) fn of<T>(side: Side, runs: &[&'a Run<T>]) -> Self {
        let mut effects = Vec::new();
        let mut first = Vec::new();
        for run in runs {
            first.push(effects.len());
            effects.extend_from_slice(&run.local.effects);
        }
        Class {
            side,
            steps: runs.iter().map(|r| r.steps.as_slice()).collect(),
            locals: runs.iter().map(|r| &r.local).collect(),
            returned: vec![0; effects.len()],
            effects,
            stores: Vec::new(),
            first,
        }
    }

    /// A class whose stores and returned versions are still to be filled in.
    #[cfg(test)]
    pub(super) fn by_hand(side: Side, steps: &'a [Vec<Step>], locals: &'a [Local]) -> Self {
        let (mut effects, mut first) = (Vec::new(), Vec::new());
        for local in locals {
            first.push(effects.len());
            effects.extend_from_slice(&local.effects);
        }
        Class {
            side,
            steps: steps.iter().map(Vec::as_slice).collect(),
            locals: locals.iter().collect(),
            returned: vec![0; effects.len()],
            effects,
            stores: Vec::new(),
            first,
        }
    }

    /// Its effects: thread by thread, in program order.
    #[must_use]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// The number of the version that an effect returned, if it is a load or fetch.
    #[must_use]
    pub fn returned(&self, effect: usize) -> Option<usize> {
        let kind = self.effects.get(effect)?.kind;
        matches!(kind, Kind::Load(_) | Kind::Fetch(_)).then(|| self.returned[effect])
    }

    /// The value that an address holds in the end, if anything was stored there.
    #[must_use]
    pub fn last(&self, at: u64) -> Option<u64> {
        let last = *self.stores_of(at).last()?;
        let effect = self.effects[last];
        match self.steps[usize::from(effect.cpu)][effect.step] {
            Step::Store { value, .. } => Some(value),
            _ => None,
        }
    }

    pub(super) fn stores_of(&self, at: u64) -> &[usize] {
        let found = self.stores.binary_search_by_key(&at, |(word, _)| *word);
        found.map_or(&[], |place| &self.stores[place].1)
    }

    /// The version number of a store.
    pub(super) fn number(&self, at: u64, store: usize) -> usize {
        self.stores_of(at).iter().position(|s| *s == store).map_or(0, |n| n + 1)
    }

    /// The store that a load or fetch returned.
    pub(super) fn source(&self, effect: usize) -> Option<usize> {
        let at = match self.effects[effect].kind {
            Kind::Load(at) | Kind::Fetch(at) => at,
            _ => return None,
        };
        self.stores_of(at).get(self.returned[effect].checked_sub(1)?).copied()
    }

    /// What threads guarantee, and what loads, stores and fetches show; but not what fetch `but`
    /// returned.
    pub(super) fn orders(&self, but: Option<usize>) -> Orders {
        let n = self.effects.len();
        let mut rows = vec![0u128; n];
        let mut private = Vec::new();
        for (local, first) in self.locals.iter().zip(&self.first) {
            for (at, row) in local.after.iter().enumerate() {
                rows[first + at] = row << first;
            }
            for (at, row) in local.private.iter().flatten().enumerate() {
                private.resize(n, 0);
                private[first + at] = row << first;
            }
        }
        let mut orders = Orders { public: Graph::of(rows), private, impossible: false };
        for (_, stores) in &self.stores {
            for pair in stores.windows(2) {
                if self.effects[pair[0]].cpu != self.effects[pair[1]].cpu {
                    orders.add(pair[0], pair[1]);
                }
            }
        }
        for (at, effect) in self.effects.iter().enumerate() {
            match effect.kind {
                Kind::Load(word) => {
                    let stores = self.stores_of(word);
                    let number = self.returned[at];
                    if let Some(from) = self.source(at) {
                        if self.effects[from].cpu != effect.cpu {
                            orders.add(from, at);
                        } else {
                            // Forwarded: what fed the store fed the load.
                            let first = self.first[usize::from(effect.cpu)];
                            let fed = self.locals[usize::from(effect.cpu)].fed[from - first];
                            super::graph::bits(fed).for_each(|a| {
                                orders.add(first + a, at);
                            });
                        }
                    }
                    let newer = stores.get(number).filter(|s| self.effects[**s].cpu != effect.cpu);
                    if let Some(newer) = newer.filter(|_| !made(Mistake::NoFromReads)) {
                        orders.add(at, *newer);
                    }
                }
                Kind::Fetch(_) if but != Some(at) && !made(Mistake::NoReadsFromByFetch) => {
                    if let Some(from) = self.source(at) {
                        orders.add(from, at);
                    }
                }
                _ => {}
            }
        }
        orders
    }

    /// Loads and stores of one address, of one CPU, follow coherence.
    pub(super) fn is_coherent(&self) -> bool {
        let mut seen: Vec<(u16, u64, usize)> = Vec::new();
        for (at, effect) in self.effects.iter().enumerate() {
            let Some(word) = effect.kind.access() else { continue };
            let stores = matches!(effect.kind, Kind::Store(_));
            let number = if stores { self.number(word, at) } else { self.returned[at] };
            match seen.iter_mut().find(|(cpu, w, _)| (*cpu, *w) == (effect.cpu, word)) {
                Some((_, _, last)) if number < *last || stores && number == *last => return false,
                Some((_, _, last)) => *last = number,
                None => seen.push((effect.cpu, word, number)),
            }
        }
        true
    }
}
