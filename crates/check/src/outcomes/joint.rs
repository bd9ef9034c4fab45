//! The joint rule R14: whether the fetches of a class can return what they did, all together.
//!
//! A fetch that returned a version older than one that is provably stored, cleaned and invalidated
//! adds order: it happened before that invalidation, and so did all that its CPU had fetched
//! before. A cycle means that the class can't happen. The rule is repeated until nothing changes,
//! because what one stale fetch adds can make another one's version superseded.
//!
//! With one fetch alone adding order it decides that fetch's window (R13).

use super::class::{Class, Kind, Orders};

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
        !self.orders(None).is_cyclic() && self.fetches().all(alone)
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
                    if orders.is_cyclic() {
                        return false;
                    }
                }
            }
            if !changed {
                return !orders.is_cyclic();
            }
        }
    }

    /// Fetch `f` of `at` returned something older than `store`.
    fn missed(&self, orders: &mut Orders, f: usize, at: u64, store: usize) -> bool {
        let cpu = self.effects[f].cpu;
        let first = self.first[usize::from(cpu)];
        let earlier: Vec<usize> = self.fetches().filter(|e| (first..=f).contains(e)).collect();
        let mut changed = false;
        if self.side.dic {
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
            if !lines.cover(at) || alone && effect.cpu != cpu {
                continue;
            }
            let order = orders.of(cpu);
            let excludes = if self.side.idc {
                order.has(store, i)
            } else {
                cleans.iter().any(|d| order.has(store, *d) && order.has(*d, i))
            };
            if excludes {
                // Fetched before it was complete, and so was all that the CPU had fetched before.
                changed |= orders.add_for(cpu, f, i);
                let done = orders.of(cpu).after(i);
                for e in &earlier {
                    for after in super::graph::bits(done) {
                        changed |= orders.add_for(cpu, *e, after);
                    }
                }
            }
            if !orders.of(cpu).has(i, f) {
                continue;
            }
            // Complete before the fetch: then not after a clean of what it missed.
            if self.side.idc {
                changed |= orders.add(i, store);
            }
            for d in &cleans {
                if orders.of(cpu).has(*d, i) {
                    changed |= orders.add(*d, store);
                }
                if orders.of(cpu).has(store, *d) {
                    changed |= orders.add(i, *d);
                }
            }
        }
        changed
    }
}
