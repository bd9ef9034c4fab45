//! Windows of single fetches, by the one-pass form, against the enumeration.
//!
//! The comparison is sharp if mistakes show: the last test makes them.

use std::collections::BTreeMap;

use textbed_arch::CpuId;

use super::super::caches::Caches;
use super::super::views::View;
use super::super::worked_examples::{CONFIGURATIONS, Litmus};
use super::enumeration::Model;
use super::{Mix, Op, Outcome, Step, Tally, program};
use crate::mistakes::{self, Mistake};
use textbed_arch::effect::Domain;
use textbed_event::MemOrder;

/// Runs a program through the views. Returns its steps and the windows of its fetches.
fn run(caches: Caches, steps: &[(u16, Op)], mix: &mut Mix) -> (Vec<Step>, Windows) {
    let mut t = Litmus::new(caches);
    let mut taints: Vec<View> = vec![View::default(); 3];
    let (mut ran, mut ids) = (Vec::new(), Vec::new());
    let none = View::default();
    // Who stored a word last, and what fed that: a load of the same CPU has it by forwarding.
    let mut stored: BTreeMap<u64, (u16, View)> = BTreeMap::new();
    for &(cpu, op) in steps {
        let p = usize::from(cpu);
        let mut returned = 0;
        let forwarded = op.word().and_then(|at| stored.get(&at)).filter(|(by, _)| *by == cpu);
        let forwarded = forwarded.map_or_else(View::default, |(_, fed)| fed.clone());
        if let Some(at) = op.word().filter(|_| op.stores()) {
            let fed = matches!(op, Op::StoreAfter(_));
            stored.insert(at, (cpu, if fed { taints[p].clone() } else { View::default() }));
        }
        let mut load = |at, order, fed: &View| t.stream.load(cpu, at, order, fed);
        match op {
            Op::Load(at) => taints[p] = load(at, MemOrder::Plain, &forwarded),
            // Of the two the first is also ordered after own releases.
            Op::Acquire(at) => taints[p] = load(at, MemOrder::Full, &forwarded),
            Op::AcquirePc(at) => taints[p] = load(at, MemOrder::Acquire, &forwarded),
            Op::LoadAfter(at) => {
                let address = taints[p].clone();
                taints[p] = load(at, MemOrder::Plain, &address.clone().with(&forwarded));
                t.stream.weak.address(CpuId(cpu), &address);
            }
            Op::Store(at) => t.str(cpu, at),
            Op::StoreAfter(at) => t.str_after(cpu, at, &taints[p].clone()),
            Op::Release(at) => t.stream.store(cpu, at, MemOrder::Release, &none),
            Op::Clean(at) => t.dc_line(cpu, at),
            Op::Invalidate(at) => t.ic_line(cpu, at),
            Op::InvalidateAll(true) => t.stream.invalidate_own(cpu),
            Op::InvalidateAll(false) => t.stream.invalidate(cpu, None, &none),
            Op::Branch => t.stream.weak.branch(CpuId(cpu), &taints[p]),
            Op::Sync => t.isb(cpu),
            Op::Barrier(barrier, domain) => t.stream.barrier(cpu, barrier, domain),
            Op::Fetch(at) => {
                let [low, high] = t.would(cpu, at);
                returned = low + mix.below(high - low + 1);
                ids.push((ran.len(), t.fetch(cpu, at, returned)));
            }
        }
        ran.push(Step { cpu, op, returned });
    }
    (ran, ids.into_iter().map(|(at, id)| (at, t.window(id))).collect())
}

/// Place of a fetch in the program, and its window.
type Windows = Vec<(usize, [usize; 2])>;

/// What a comparison came to: windows may be wider in programs in which something reaches one CPU
/// alone.
#[derive(Default, Debug)]
struct Compared {
    tally: Tally,
    alone: u32,
    left_out: u32,
}

fn compare(seeds: impl IntoIterator<Item = u64>) -> Compared {
    let mut compared = Compared::default();
    for seed in seeds {
        let mut mix = Mix::of(seed);
        let steps = program(&mut mix);
        let (name, caches) = CONFIGURATIONS[mix.below(3)];
        let (ran, windows) = run(caches, &steps, &mut mix);
        let model = Model { caches, steps: &ran };
        let alone = ran.iter().any(|s| {
            matches!(s.op, Op::InvalidateAll(true) | Op::Barrier(_, Domain::NonShareable))
        });
        for (f, [low, high]) in windows {
            let count = model.stores(ran[f].op.word().unwrap_or(0)).len();
            let can: Option<Vec<bool>> = (0..=count).map(|v| model.can_return(f, v)).collect();
            let Some(can) = can else {
                compared.left_out += 1;
                continue;
            };
            compared.alone += u32::from(alone);
            let ours: Vec<bool> = (0..=count).map(|v| (low..=high).contains(&v)).collect();
            let covered = ours.iter().zip(&can).all(|(o, c)| *o || !*c);
            let outcome = match ours == can {
                true => Outcome::Equal,
                false if alone && covered => Outcome::Wider,
                false => Outcome::Different,
            };
            compared.tally.add([low, high], count, outcome, || {
                format!("seed {seed}, {name}, fetch {f}: {ours:?} but {can:?}\n{ran:#?}")
            });
        }
    }
    compared
}

impl Compared {
    fn tell(&self) {
        let t = &self.tally;
        println!(
            "arm64: {} windows compared, {} equal, {} wider of {} with what reaches one CPU alone; \
             {} narrower than all versions, {} not from 0; {} left out",
            t.windows, t.equal, t.wider, self.alone, t.narrow, t.low, self.left_out
        );
        t.all_compare();
        assert!(self.left_out * 20 < t.windows, "{self:?}");
        assert!(t.wider * 200 < self.alone, "{self:?}");
    }
}

#[test]
fn windows_of_random_programs_are_those_of_the_enumeration() {
    // The last has an acquire of what its CPU stored, which a load had fed: seldom made.
    let compared = compare((0..5000).chain([1_013_856]));
    compared.tell();
    let tally = compared.tally;
    assert!(tally.windows > 8000 && tally.narrow > 1000 && tally.low > 300, "{tally:?}");
}

#[test]
#[ignore = "takes minutes; in make conform, by TEXTBED_LONG"]
fn windows_of_very_many_random_programs() {
    compare(1_000_000..1_200_000).tell();
}

#[test]
fn mistakes_in_the_one_pass_form_are_found() {
    for mistake in [
        Mistake::NoAnchor,
        Mistake::NoLateStores,
        Mistake::NoFromReads,
        Mistake::NoOrderOfLine,
        Mistake::DsbOrdersFetches,
        Mistake::SyncTakesAllLoads,
        Mistake::CompletionCloses,
        Mistake::FetchOrdersNothing,
        Mistake::DmbCompletes,
        Mistake::DmbStoreCarriesClean,
        Mistake::DmbLoadCarriesLoadToClean,
        Mistake::CleanOfOneWord,
        Mistake::NarrowIsWide,
        Mistake::AloneReachesAll,
    ] {
        // In parts, so that most are found soon.
        let found = (0..20).any(|part| {
            let seeds = part * 1000..(part + 1) * 1000;
            mistakes::with(Some(mistake), || compare(seeds)).tally.first.is_some()
        });
        assert!(found, "{mistake:?} was not found");
    }
}
