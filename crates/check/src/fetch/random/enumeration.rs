//! Every order of what a program leaves open: a version is in the window of a fetch iff one of them
//! leaves the graph without a cycle, the other fetches keeping the edge from the store that they
//! returned and proving nothing else; an outcome can be iff one of them does with all fetches as
//! they returned.
//!
//! What a barrier orders that is not shareable, or an invalidation of one CPU alone, counts for
//! that CPU's fetches only, and only at the end of a chain: it is no order for anybody else.

use textbed_arch::effect::{Barrier, Domain};

use super::Op::{self, *};
use super::Step;
use crate::fetch::caches::Caches;

/// Pairs without an order beyond which a program is left out: it would take too long.
const MAX_CHOICES: usize = 10;

/// The graph: for each step the set of steps after it.
#[derive(Clone)]
pub(crate) struct Graph(Vec<u64>);

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
pub(crate) struct Model<'a> {
    pub(crate) caches: Caches,
    pub(crate) steps: &'a [Step],
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

    /// Whether invalidation `i` reaches fetch `f`.
    fn reaches(&self, i: usize, f: usize) -> bool {
        match self.steps[i].op {
            Invalidate(_) => self.same_line(i, f),
            InvalidateAll(alone) => !alone || self.steps[i].cpu == self.steps[f].cpu,
            _ => false,
        }
    }

    /// Whether a DSB between orders `a` before `b`, or what comes after it on that CPU; `narrow`:
    /// those that are not shareable count.
    fn dsb(&self, a: usize, b: usize, narrow: bool) -> bool {
        let x = self.steps[a].op;
        let any = x.accesses() || x.cleans() || x.invalidates();
        self.between(a, b, |op| match op {
            Barrier(_, Domain::NonShareable) if !narrow => false,
            Barrier(Barrier::DsbFull, _) => any,
            Barrier(Barrier::DsbLoad, _) => x.loads(),
            Barrier(Barrier::DsbStore, _) => x.stores(),
            _ => false,
        })
    }

    /// The load that fed `at`, for what names the last load of its CPU.
    pub(crate) fn fed_by(&self, at: usize) -> Option<usize> {
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

    /// Whether an address between was fed by `a`.
    fn addressed(&self, a: usize, b: usize) -> bool {
        let fed = |m: usize| matches!(self.steps[m].op, LoadAfter(_)) && self.fed_by(m) == Some(a);
        (a + 1..b).any(fed)
    }

    /// Whether an ISB between puts `a` before everything after it.
    fn synchronised(&self, a: usize, b: usize, narrow: bool) -> bool {
        (a + 1..b).any(|isb| {
            self.steps[isb].op == Sync
                && self.steps[isb].cpu == self.steps[a].cpu
                && (self.dsb(a, isb, narrow) || self.branch(a, isb) || self.addressed(a, isb))
        })
    }

    /// Whether `a` is before `b` by what one CPU guarantees.
    fn local(&self, a: usize, b: usize, narrow: bool) -> bool {
        let (x, y) = (self.steps[a].op, self.steps[b].op);
        let to = |op: Op| op.accesses() || op.cleans();
        let dmb = self.between(a, b, |op| match op {
            Barrier(_, Domain::NonShareable) if !narrow => false,
            Barrier(Barrier::DmbFull | Barrier::DsbFull, _) => to(x) && to(y),
            Barrier(Barrier::DmbLoad | Barrier::DsbLoad, _) => x.loads() && y.accesses(),
            Barrier(Barrier::DmbStore | Barrier::DsbStore, _) => x.stores() && y.stores(),
            _ => false,
        });
        let fed = self.fed_by(b) == Some(a);
        let controlled = y.stores() || y.cleans() || y.invalidates();
        // The value of an own store that was fed comes back by forwarding.
        let forwarded = y.loads()
            && (a + 1..b)
                .rev()
                .find(|m| self.steps[*m].op.stores() && self.same_word(*m, b))
                .is_some_and(|m| {
                    self.steps[m].cpu == self.steps[a].cpu && self.fed_by(m) == Some(a)
                });
        let acquire = matches!(x, Acquire(_) | AcquirePc(_)) && y.accesses();
        let release = matches!(y, Release(_)) && x.accesses();
        let both = matches!((x, y), (Release(_), Acquire(_)));
        x.fetches() && !y.fetches()
            || x.accesses() && y.stores() && self.same_word(a, b)
            || to(x) && to(y) && (x.cleans() || y.cleans()) && self.same_line(a, b)
            || dmb
            || !y.fetches() && self.dsb(a, b, narrow)
            || self.synchronised(a, b, narrow)
            || fed
            || x.loads() && controlled && self.branch(a, b)
            || y.stores() && self.addressed(a, b)
            || forwarded
            || acquire
            || release
            || both
    }

    /// Stores of the word, in coherence order: that of the stream.
    pub(crate) fn stores(&self, word: u64) -> Vec<usize> {
        let of =
            |at: &usize| self.steps[*at].op.stores() && self.steps[*at].op.word() == Some(word);
        (0..self.steps.len()).filter(of).collect()
    }

    /// Order by what CPUs guarantee, by loads, by coherence and other fetches than `but`.
    fn base(&self, but: Option<usize>) -> Graph {
        let n = self.steps.len();
        let mut g = Graph(vec![0; n]);
        for b in 0..n {
            let effects = |a: &usize| self.steps[*a].op.is_effect() && self.steps[b].op.is_effect();
            for a in (0..b).filter(effects) {
                let (x, y) = (self.steps[a], self.steps[b]);
                if x.cpu == y.cpu {
                    if self.local(a, b, false) {
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
                && Some(b) != but
                && let Some(r) = self.steps[b].returned.checked_sub(1)
                && let Some(word) = self.steps[b].op.word()
            {
                g.edge(self.stores(word)[r], b);
            }
        }
        g
    }

    /// What comes before each step as its own CPU's fetches see it, within that CPU.
    fn narrow(&self) -> Graph {
        let n = self.steps.len();
        let mut g = Graph(vec![0; n]);
        for b in (0..n).filter(|b| self.steps[*b].op.is_effect()) {
            let own = |a: &usize| {
                self.steps[*a].op.is_effect() && self.steps[*a].cpu == self.steps[b].cpu
            };
            (0..b).filter(own).filter(|a| self.local(*a, b, true)).for_each(|a| g.edge(a, b));
        }
        g.closed()
    }

    /// Whether fetch `f` can return version `v`; nothing if there is too much to try.
    pub(crate) fn can_return(&self, f: usize, v: usize) -> Option<bool> {
        let mut g = self.base(Some(f));
        let stores = self.stores(self.steps[f].op.word()?);
        if let Some(v) = v.checked_sub(1) {
            g.edge(stores[v], f);
        }
        self.can(&g, &[(f, v)])
    }

    /// Whether all fetches can return what they did; nothing if there is too much to try.
    pub(crate) fn can_be(&self) -> Option<bool> {
        let fetches = (0..self.steps.len()).filter(|f| self.steps[*f].op.fetches());
        let all: Vec<(usize, usize)> = fetches.map(|f| (f, self.steps[f].returned)).collect();
        self.can(&self.base(None), &all)
    }

    /// Whether some order of what is open has no cycle, these fetches returning these versions.
    fn can(&self, g: &Graph, fetches: &[(usize, usize)]) -> Option<bool> {
        let n = self.steps.len();
        let newer = |f: usize, v: usize| {
            let stores = self.steps[f].op.word().map_or_else(Vec::new, |w| self.stores(w));
            stores.get(v..).unwrap_or(&[]).to_vec()
        };
        let earlier = |f: usize| {
            let mine = |at: &usize| {
                self.steps[*at].op.fetches() && self.steps[*at].cpu == self.steps[f].cpu
            };
            (0..=f).filter(mine).collect::<Vec<usize>>()
        };
        let narrow = self.narrow();
        if !self.caches.invalidate {
            let mut more = g.clone();
            for (f, v) in fetches {
                for w in newer(*f, *v) {
                    earlier(*f).iter().for_each(|e| more.edge(*e, w));
                }
            }
            let order = more.closed();
            let own = |w: usize, f: usize| {
                (0..n).any(|x| narrow.has(x, f) && (x == w || order.has(w, x)))
            };
            let missed = fetches.iter().any(|(f, v)| newer(*f, *v).iter().any(|w| own(*w, *f)));
            return Some(!order.has_cycle() && !missed);
        }
        let dcs: Vec<usize> = (0..n).filter(|d| self.steps[*d].op.cleans()).collect();
        let known = g.clone().closed();
        if known.has_cycle() {
            return Some(false);
        }
        // Pairs in whose order the program has no say: (clean, newer store), (invalidation, fetch).
        let mut open: Vec<(usize, usize)> = Vec::new();
        let mut ask = |a: usize, b: usize| {
            if !known.has(a, b) && !known.has(b, a) && !open.contains(&(a, b)) {
                open.push((a, b));
            }
        };
        let stale: Vec<(usize, Vec<usize>)> = fetches
            .iter()
            .map(|(f, v)| (*f, newer(*f, *v)))
            .filter(|(_, newer)| !newer.is_empty())
            .collect();
        let ics = |f: usize| (0..n).filter(move |i| self.reaches(*i, f));
        for (f, newer) in &stale {
            for w in newer.iter().filter(|_| self.caches.clean) {
                dcs.iter().filter(|d| self.same_line(**d, *w)).for_each(|d| ask(*d, *w));
            }
            ics(*f).for_each(|i| ask(i, *f));
        }
        if open.len() > MAX_CHOICES {
            return None;
        }
        Some((0..1u32 << open.len()).any(|choice| {
            let mut g = g.clone();
            for (at, (a, b)) in open.iter().enumerate() {
                if choice >> at & 1 == 0 { g.edge(*a, *b) } else { g.edge(*b, *a) }
            }
            let order = g.clone().closed();
            if order.has_cycle() {
                return false;
            }
            for (f, newer) in &stale {
                // For fetches of this CPU: by an order of all, then by what it orders for itself.
                let cpu = self.steps[*f].cpu;
                let before = |a: usize, b: usize| {
                    let own = self.steps[b].cpu == cpu;
                    order.has(a, b)
                        || own && (0..n).any(|x| narrow.has(x, b) && (x == a || order.has(a, x)))
                };
                for i in ics(*f) {
                    if before(i, *f) {
                        // Invalidated before: then not after a clean of what it misses.
                        for w in newer {
                            let late: Vec<usize> = if self.caches.clean {
                                let line = |d: &&usize| self.same_line(**d, *w);
                                dcs.iter()
                                    .filter(line)
                                    .copied()
                                    .filter(|d| before(*w, *d))
                                    .collect()
                            } else {
                                vec![*w]
                            };
                            for d in late {
                                if before(d, i) {
                                    return false;
                                }
                                g.edge(i, d);
                            }
                        }
                    } else {
                        // Fetched before it was complete, and so was all that the CPU fetched
                        // before.
                        for after in (i + 1..n).filter(|at| self.steps[*at].op.is_effect()) {
                            let ours = self.steps[after].cpu == self.steps[i].cpu;
                            let done = !self.steps[after].op.fetches() && self.dsb(i, after, false)
                                || self.synchronised(i, after, false);
                            if ours && done {
                                earlier(*f).iter().for_each(|e| g.edge(*e, after));
                            }
                        }
                    }
                }
            }
            // What was added may show that an invalidation came before a fetch by what the CPU of
            // the fetch orders for itself alone.
            let order = g.closed();
            let before = |i: usize, f: usize| {
                (0..n).any(|x| narrow.has(x, f) && (x == i || order.has(i, x)))
            };
            let both =
                |(f, _): &(usize, Vec<usize>)| ics(*f).any(|i| order.has(*f, i) && before(i, *f));
            !order.has_cycle() && !stale.iter().any(both)
        }))
    }
}
