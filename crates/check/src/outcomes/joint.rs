//! The joint rule R14: whether the fetches of a class can return what they did, all together.
//!
//! A fetch that returned a version older than one that is provably stored, cleaned and invalidated
//! adds order: it happened before that invalidation, and so did all that its CPU had fetched
//! before. A cycle means that the class can't happen. The rule is repeated until nothing changes,
//! because what one stale fetch adds can make another one's version superseded.
//!
//! With one fetch alone adding order it decides that fetch's window (R13).

use super::class::{Class, Kind, Orders};
use crate::mistakes::{Mistake, made};

impl Class<'_> {
    /// Whether the class can happen: R14.
    #[must_use]
    pub fn possible(&self) -> bool {
        let fetches: Vec<usize> = self.fetches().collect();
        self.acyclic(self.orders(None), &fetches, |f| self.returned[f])
    }

    /// Whether it can happen if each fetch is judged alone: R1 to R13, without the joint rule.
    #[must_use]
    pub fn possible_one_by_one(&self) -> bool {
        let alone = |f| self.acyclic(self.orders(None), &[f], |f| self.returned[f]);
        !self.orders(None).fails() && self.fetches().all(alone)
    }

    /// For each version of the fetched word, from the initial one on, whether the fetch could
    /// return it, the other fetches proving nothing by being stale. Nothing if it is no fetch.
    #[must_use]
    pub fn window(&self, fetch: usize) -> Option<Vec<bool>> {
        let at = self.effects.get(fetch)?.fetched()?;
        let stores = self.stores_of(at);
        let can = |version: usize| {
            let mut orders = self.orders(Some(fetch));
            if let Some(from) = version.checked_sub(1) {
                orders.add(stores[from], fetch);
            }
            self.acyclic(orders, &[fetch], |_| version)
        };
        Some((0..=stores.len()).map(can).collect())
    }

    fn fetches(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.effects.len()).filter(|at| matches!(self.effects[*at].kind, Kind::Fetch(_)))
    }

    /// Adds what the fetches named show by being stale; whether there is no cycle.
    fn acyclic(
        &self,
        mut orders: Orders,
        fetches: &[usize],
        returned: impl Fn(usize) -> usize,
    ) -> bool {
        loop {
            let mut changed = false;
            for f in fetches {
                let Some(at) = self.effects[*f].fetched() else { continue };
                let newer = self.stores_of(at).get(returned(*f)..).unwrap_or(&[]);
                for store in newer {
                    changed |= self.missed(&mut orders, *f, at, *store);
                    if orders.fails() {
                        return false;
                    }
                }
            }
            if !changed || made(Mistake::JointOnce) {
                return !orders.fails();
            }
        }
    }

    /// The effects that come after the completion of invalidation `i`, by what its CPU orders.
    fn completed(&self, i: usize) -> u128 {
        let cpu = usize::from(self.effects[i].cpu);
        let first = self.first[cpu];
        self.locals[cpu].after[i - first] << first
    }

    /// Fetch `f` of `at` returned something older than `store`.
    fn missed(&self, orders: &mut Orders, f: usize, at: u64, store: usize) -> bool {
        let cpu = self.effects[f].cpu;
        let first = self.first[usize::from(cpu)];
        let first = if made(Mistake::JointWithoutEarlier) { f } else { first };
        let earlier: Vec<usize> = self.fetches().filter(|e| (first..=f).contains(e)).collect();
        let mut changed = false;
        if self.side.dic {
            orders.impossible |= orders.before(store, f);
            for e in earlier {
                changed |= orders.add(e, store);
            }
            return changed;
        }
        let cleans: Vec<usize> = if self.side.idc {
            Vec::new()
        } else {
            (0..self.effects.len()).filter(|d| self.effects[*d].kind.cleans(at)).collect()
        };
        for (i, effect) in self.effects.iter().enumerate() {
            let Kind::Invalidate(lines, alone) = effect.kind else { continue };
            let elsewhere = effect.cpu != cpu && !made(Mistake::AloneReachesAll);
            if !lines.cover(at) || alone && elsewhere {
                continue;
            }
            // What the CPU of the fetch orders for itself alone counts only for its own effects.
            let before = |orders: &Orders, a: usize, b: usize| {
                orders.public.has(a, b) || self.effects[b].cpu == cpu && orders.before(a, b)
            };
            let excludes = if self.side.idc {
                before(orders, store, i)
            } else {
                let chain = |d: &usize| before(orders, store, *d) && before(orders, *d, i);
                cleans.iter().any(chain)
            };
            if excludes {
                // Fetched before it was complete, and so was all that the CPU had fetched before.
                orders.impossible |= before(orders, i, f);
                changed |= orders.add(f, i);
                // Only its own CPU's barrier completes it; what it merely precedes is not enough.
                let done = self.completed(i);
                for e in &earlier {
                    for after in super::graph::bits(done) {
                        changed |= orders.add(*e, after);
                    }
                }
            }
            if !before(orders, i, f) || made(Mistake::JointWithoutCleans) {
                continue;
            }
            // Complete before the fetch: then not after a clean of what it missed.
            if self.side.idc {
                changed |= orders.add(i, store);
            }
            for d in &cleans {
                if before(orders, *d, i) {
                    changed |= orders.add(*d, store);
                }
                if before(orders, store, *d) {
                    changed |= orders.add(i, *d);
                }
            }
        }
        changed
    }
}
