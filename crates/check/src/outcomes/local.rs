//! What one thread orders by itself: rules R1 to R9, with sets of effects for views.
//!
//! Where the stream checker joins what an effect knows, this collects which effects come before it.
//! A barrier that is not shareable, and an invalidation of one CPU alone, count for that CPU's own
//! fetches only; hence a second, *private* order where a thread has such barriers.

use textbed_arch::effect::{Barrier, Domain};

use super::class::{Effect, Kind};
use super::step::{Deps, Order, Step};
use crate::mistakes::{Mistake, made};

/// Types of effect, as indexes of bases.
const LOAD: usize = 0;
const STORE: usize = 1;
const CLEAN: usize = 2;
const INVALIDATE: usize = 3;
const FETCH: usize = 4;

/// The effects of one run of a thread, and its own order.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) effects: Vec<Effect>,
    /// For each effect those after it; closed.
    pub(super) after: Vec<u128>,
    /// For each effect those before it as this CPU's own fetches see it, if that is more.
    pub(super) private: Option<Vec<u128>>,
    /// For each store the loads that fed its address or value.
    pub(super) fed: Vec<u128>,
}

impl Local {
    pub(super) fn of(cpu: u16, steps: &[Step]) -> Self {
        let mut effects = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            if let Some(kind) = Kind::of(step) {
                effects.push(Effect { cpu, kind, step: at });
            }
        }
        let (before, fed) = order(&effects, steps, false);
        let mut after = vec![0u128; effects.len()];
        for (e, set) in before.iter().enumerate() {
            super::graph::bits(*set).for_each(|a| after[a] |= 1 << e);
        }
        let narrow = |s: &Step| matches!(s, Step::Barrier(_, Domain::NonShareable));
        let private = steps.iter().any(narrow).then(|| order(&effects, steps, true).0);
        Self { effects, after, private, fed }
    }
}

/// What a CPU has gathered so far.
#[derive(Default)]
struct State {
    base: [u128; 5],
    gathered: [u128; 4],
    to_sync: u128,
    branch: u128,
    address: u128,
    releases: u128,
}

impl State {
    fn hand(&mut self, from: u128, to: &[usize]) {
        to.iter().for_each(|t| self.base[*t] |= from);
    }

    fn barrier(&mut self, barrier: Barrier) {
        let [r, w, d, i] = self.gathered;
        const DATA: &[usize] = &[LOAD, STORE, CLEAN];
        const ALL: &[usize] = &[LOAD, STORE, CLEAN, INVALIDATE];
        let all = match barrier {
            Barrier::DmbStore if made(Mistake::DmbStoreCarriesClean) => {
                return self.hand(w | d, &[STORE]);
            }
            Barrier::DmbLoad if made(Mistake::DmbLoadCarriesLoadToClean) => {
                return self.hand(r, DATA);
            }
            Barrier::DmbFull if made(Mistake::DmbCompletes) => r | w | d | i,
            Barrier::DmbFull => return self.hand(r | w | d, DATA),
            Barrier::DmbLoad => return self.hand(r, &[LOAD, STORE]),
            Barrier::DmbStore => return self.hand(w, &[STORE]),
            Barrier::DsbFull => r | w | d | i,
            Barrier::DsbLoad => r,
            Barrier::DsbStore => w,
            _ => return,
        };
        self.hand(all, ALL);
        if made(Mistake::DsbOrdersFetches) {
            self.hand(all, &[FETCH]);
        }
        self.to_sync |= all;
    }
}

/// The effects before each effect, closed, and what fed stores.
fn order(effects: &[Effect], steps: &[Step], private: bool) -> (Vec<u128>, Vec<u128>) {
    let mut s = State::default();
    let mut before = vec![0u128; effects.len()];
    let mut fed = vec![0u128; effects.len()];
    let mut loads: Vec<usize> = Vec::new();
    let mut next = 0;
    for step in steps {
        let of = |deps: Deps, loads: &[usize]| {
            let fed = loads.iter().enumerate().filter(|(n, _)| deps.0 & Deps::load(*n).0 != 0);
            fed.fold(0u128, |set, (_, e)| set | 1 << e)
        };
        let me = next;
        let bit = 1u128.checked_shl(me as u32).unwrap_or(0);
        next += usize::from(Kind::of(step).is_some());
        let own = |what: &dyn Fn(&Kind) -> bool| {
            let earlier = effects[..me].iter().enumerate().filter(|(_, e)| what(&e.kind));
            earlier.fold(0u128, |set, (at, _)| set | 1 << at)
        };
        match *step {
            Step::Load { at, order, address } => {
                let address = of(address, &loads);
                before[me] = s.base[LOAD] | address;
                if !made(Mistake::NoOrderOfLine) {
                    before[me] |= own(&|k| k.cleans(at));
                }
                if order == Order::Acquire {
                    before[me] |= s.releases;
                }
                if matches!(order, Order::Acquire | Order::AcquirePc) {
                    s.hand(bit, &[LOAD, STORE]);
                }
                s.gathered[LOAD] |= bit;
                s.address |= address;
                loads.push(me);
            }
            Step::Store { at, order, address, data, .. } => {
                let address = of(address, &loads);
                fed[me] = address | of(data, &loads);
                before[me] = s.base[STORE] | fed[me] | s.branch | s.address;
                before[me] |= own(&|k| k.access() == Some(at) || k.cleans(at));
                if made(Mistake::StoresPublishAll) {
                    before[me] |= bit.wrapping_sub(1);
                }
                if order == Order::Release {
                    before[me] |= s.gathered[LOAD] | s.gathered[STORE];
                    s.releases |= bit;
                }
                s.gathered[STORE] |= bit;
                s.address |= address;
            }
            Step::Clean { lines, address } => {
                before[me] = s.base[CLEAN] | of(address, &loads) | s.branch;
                if !made(Mistake::NoOrderOfLine) {
                    before[me] |= own(&|k| k.access().is_some_and(|at| lines.cover(at)));
                    before[me] |= own(&|k| matches!(k, Kind::Clean(other) if other.meets(lines)));
                }
                s.gathered[CLEAN] |= bit;
            }
            Step::Invalidate { address, .. } => {
                before[me] = s.base[INVALIDATE] | of(address, &loads) | s.branch;
                s.gathered[INVALIDATE] |= bit;
            }
            Step::Fetch { .. } => {
                before[me] = s.base[FETCH];
                if made(Mistake::CompletionCloses) {
                    before[me] |= s.base[LOAD];
                }
                if !made(Mistake::FetchOrdersNothing) {
                    s.hand(bit, &[LOAD, STORE, CLEAN, INVALIDATE]);
                }
            }
            Step::Barrier(_, Domain::NonShareable) if !private && !made(Mistake::NarrowIsWide) => {}
            Step::Barrier(barrier, _) => s.barrier(barrier),
            Step::Branch { on } => s.branch |= of(on, &loads),
            Step::Sync => {
                let mut handed = s.to_sync | s.branch | s.address;
                if made(Mistake::SyncTakesAllLoads) {
                    handed |= s.gathered[LOAD];
                }
                s.base.iter_mut().for_each(|base| *base |= handed);
            }
        }
        if made(Mistake::AllProgramOrder) && bit != 0 && Kind::of(step).is_some() {
            before[me] |= bit - 1;
        }
    }
    for e in 0..effects.len() {
        // Program order is the order of places, so what is before is closed already.
        let direct = before[e];
        for a in super::graph::bits(direct) {
            before[e] |= before[a];
        }
    }
    (before, fed)
}
