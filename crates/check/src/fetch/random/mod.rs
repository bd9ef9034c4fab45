//! Random programs, and an enumeration of what their fetches can return that shares nothing with
//! the views. This module and the two named next are arm64's; [`tso`] is x86-64's, with every
//! execution of a machine, [`power`] has Power's chains.
//!
//! [`enumeration`] writes the effects of a program down as a graph, its edges from the
//! architecture's machine-readable model, and tries every order of cleans against stores and of
//! invalidations against fetches that the program leaves open. [`windows`] compares the windows of
//! single fetches; `outcomes::random` compares whole outcomes.
//!
//! Two stored words share a line, so cleans and invalidations act on more than one word. Not
//! generated: load buffering, lines reached by two names.
//!
//! Source: herdtools7 `aarch64.cat`, `aarch64hwreqs.cat`, `enumerations.cat` (5feffe4e8), read.

pub(crate) mod enumeration;
mod power;
mod tso;
mod windows;

use textbed_arch::effect::{Barrier, Domain};

/// Code words, the first two on one line; and two flags.
pub(crate) const CODE: [u64; 3] = [0, 4, 64];
const FLAGS: [u64; 2] = [128, 192];

/// What a CPU does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Op {
    Store(u64),
    /// A store whose data the CPU's last load fed.
    StoreAfter(u64),
    /// A store-release.
    Release(u64),
    Load(u64),
    /// A load whose address the CPU's last load fed.
    LoadAfter(u64),
    /// A load-acquire that is also after own releases.
    Acquire(u64),
    /// A load-acquire that is not.
    AcquirePc(u64),
    Clean(u64),
    Invalidate(u64),
    /// Of everything; on its own CPU alone if set.
    InvalidateAll(bool),
    Fetch(u64),
    Barrier(Barrier, Domain),
    Sync,
    /// A branch on the CPU's last load.
    Branch,
}

use Op::*;

impl Op {
    /// The word that it is about.
    pub(crate) fn word(self) -> Option<u64> {
        match self {
            Store(w) | StoreAfter(w) | Release(w) | Load(w) | LoadAfter(w) | Acquire(w)
            | AcquirePc(w) | Clean(w) | Invalidate(w) | Fetch(w) => Some(w),
            InvalidateAll(_) | Barrier(..) | Sync | Branch => None,
        }
    }
    pub(crate) fn is_effect(self) -> bool {
        self.word().is_some() || self.invalidates()
    }
    pub(crate) fn stores(self) -> bool {
        matches!(self, Store(_) | StoreAfter(_) | Release(_))
    }
    pub(crate) fn loads(self) -> bool {
        matches!(self, Load(_) | LoadAfter(_) | Acquire(_) | AcquirePc(_))
    }
    fn accesses(self) -> bool {
        self.stores() || self.loads()
    }
    fn cleans(self) -> bool {
        matches!(self, Clean(_))
    }
    fn invalidates(self) -> bool {
        matches!(self, Invalidate(_) | InvalidateAll(_))
    }
    pub(crate) fn fetches(self) -> bool {
        matches!(self, Fetch(_))
    }
}

/// A step of a program as it ran: who, what, and for fetches which version came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) cpu: u16,
    pub(crate) op: Op,
    pub(crate) returned: usize,
}

/// A small generator, so that a failure can be run again from its seed.
pub(crate) struct Mix(u64);

impl Mix {
    pub(crate) fn of(seed: u64) -> Self {
        Mix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        ((self.0 >> 33) % n as u64) as usize
    }
}

/// Fragments of protocols with events dropped, interleaved.
pub(crate) fn program(mix: &mut Mix) -> Vec<(u16, Op)> {
    let cpus = 2 + mix.below(2);
    let mut queues: Vec<Vec<Op>> = Vec::new();
    for _ in 0..cpus {
        let mut ops = Vec::new();
        for _ in 0..1 + mix.below(2) {
            let fragment = fragment(mix);
            ops.extend(fragment.into_iter().filter(|_| mix.below(7) != 0));
        }
        ops.truncate(9);
        queues.push(ops);
    }
    interleave(mix, queues, 6)
}

/// Brings the programs of CPUs into one order: in bursts of up to `most` tries, so that a protocol
/// is often whole.
fn interleave<T>(mix: &mut Mix, mut queues: Vec<Vec<T>>, most: usize) -> Vec<(u16, T)> {
    queues.iter_mut().for_each(|queue| queue.reverse());
    let mut steps = Vec::new();
    while queues.iter().any(|q| !q.is_empty()) {
        let cpu = mix.below(queues.len());
        for _ in 0..1 + mix.below(most) {
            if let Some(op) = queues[cpu].pop() {
                steps.push((cpu as u16, op));
            }
        }
    }
    steps
}

/// What a comparison of windows with an oracle came to.
#[derive(Default, Debug)]
struct Tally {
    windows: u32,
    equal: u32,
    /// Larger than the oracle's, where that is known to happen.
    wider: u32,
    /// Narrower than all versions, and without the oldest.
    narrow: u32,
    low: u32,
    first: Option<String>,
}

/// How a window compares with the oracle's.
#[derive(Clone, Copy)]
enum Outcome {
    Equal,
    Wider,
    Different,
}

impl Tally {
    /// Counts a window from `low` to `high` of `count` versions beside the first; `text` says of
    /// one that differs where it is.
    fn add(
        &mut self,
        [low, high]: [usize; 2],
        count: usize,
        outcome: Outcome,
        text: impl FnOnce() -> String,
    ) {
        self.windows += 1;
        self.narrow += u32::from(high - low < count);
        self.low += u32::from(low > 0);
        match outcome {
            Outcome::Equal => self.equal += 1,
            Outcome::Wider => self.wider += 1,
            Outcome::Different => {
                self.first.get_or_insert_with(text);
            }
        }
    }

    /// Fails with the first one that differs.
    fn all_compare(&self) {
        let text = self.first.as_deref().unwrap_or_default();
        assert_eq!(self.windows, self.equal + self.wider, "{text}");
    }
}

fn fragment(mix: &mut Mix) -> Vec<Op> {
    let dmbs = [Barrier::DmbFull, Barrier::DmbStore, Barrier::DmbLoad];
    let (code, flag) = (CODE[mix.below(3)], FLAGS[mix.below(2)]);
    let near = if mix.below(3) == 0 { code ^ 4 & !code >> 4 } else { code };
    // Seldom a barrier, or an invalidation, of this CPU alone.
    let wide = if mix.below(12) == 0 { Domain::NonShareable } else { Domain::Inner };
    let dmb = Barrier(dmbs[mix.below(3)], wide);
    let full = Barrier(Barrier::DsbFull, wide);
    let weak = Barrier([Barrier::DsbLoad, Barrier::DsbStore][mix.below(2)], wide);
    let ic = match mix.below(10) {
        0 => InvalidateAll(true),
        1 => InvalidateAll(false),
        _ => Invalidate(near),
    };
    let set = [Store(flag), Store(flag), Release(flag)][mix.below(3)];
    let get = [Load(flag), Load(flag), Acquire(flag), AcquirePc(flag)][mix.below(4)];
    let other = CODE[mix.below(3)];
    match mix.below(9) {
        0 | 1 => vec![Store(code), Clean(near), full, ic, full, set],
        2 | 3 => vec![get, Branch, Sync, Fetch(code), Fetch(near)],
        4 => vec![Store(code), Clean(near), dmb, set],
        5 => vec![get, full, ic, full, Sync, Fetch(code)],
        6 => vec![
            Fetch(code),
            [Load(code), LoadAfter(flag), get][mix.below(3)],
            dmb,
            [StoreAfter(flag), Store(other)][mix.below(2)],
        ],
        7 => vec![Store(code), Clean(near), full, ic, full, Sync, Fetch(other)],
        _ => vec![
            get,
            [weak, dmb, Branch][mix.below(3)],
            Clean(near),
            full,
            ic,
            full,
            Sync,
            Fetch(code),
        ],
    }
}
