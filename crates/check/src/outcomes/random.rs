//! Outcomes of random programs by the joint rule, against the enumeration.
//!
//! The programs are those of `fetch::random`, each fetch returning any version; so most outcomes
//! can't be, for one fetch or for several together. Windows by the graph are compared too.

use super::class::Class;
use super::local::Local;
use super::step::{Deps, Lines, Order, Side, Step};
use crate::fetch::random::enumeration::Model;
use crate::fetch::random::{CODE, Mix, Op, Step as Ran, program};
use crate::mistakes::{self, Mistake};
use textbed_arch::effect::{Barrier, Domain};

/// A flag.
const FLAG: u64 = 128;
/// Programs tried.
const CASES: u64 = 24_000;
/// A program in which a load after a clean of its line decides; none of the others has that.
const LOAD_AFTER_CLEAN: u64 = 1_304_940;

/// Fragments in which CPUs repair code and run code of each other, most of them whole: what makes
/// several fetches depend on one another.
fn dense(mix: &mut Mix) -> Vec<(u16, Op)> {
    let full = Op::Barrier(Barrier::DsbFull, Domain::Inner);
    let dmb = Op::Barrier(Barrier::DmbFull, Domain::Inner);
    let mut steps = Vec::new();
    for cpu in 0..2 + mix.below(2) as u16 {
        for _ in 0..1 + mix.below(2) {
            let weak = [Barrier::DmbStore, Barrier::DmbLoad, Barrier::DsbLoad][mix.below(3)];
            let weak = Op::Barrier(weak, Domain::Inner);
            let mut word = || CODE[mix.below(3)];
            let (a, b, c) = (word(), word(), word());
            let fragment = match mix.below(7) {
                0 | 1 => vec![
                    Op::Store(a),
                    Op::Clean(a),
                    full,
                    Op::Invalidate(a),
                    full,
                    Op::Sync,
                    Op::Fetch(b),
                ],
                2 => vec![Op::Clean(a), full, Op::Invalidate(a), full, Op::Sync, Op::Fetch(a)],
                3 => vec![Op::Fetch(a), dmb, Op::Store(b), Op::Clean(c)],
                4 => vec![Op::Store(a), dmb, Op::Clean(b), full, Op::Invalidate(b), full],
                5 => vec![Op::Store(a), Op::Clean(b), weak, Op::Store(FLAG)],
                _ => vec![
                    Op::Load(FLAG),
                    weak,
                    Op::Clean(a),
                    full,
                    Op::Invalidate(a),
                    full,
                    Op::Sync,
                    Op::Fetch(a),
                ],
            };
            let kept = fragment.into_iter().filter(|_| mix.below(16) != 0);
            steps.extend(kept.map(|op| (cpu, op)));
        }
    }
    // Which store is first is by chance, each CPU's order is kept.
    for at in (1..steps.len()).rev() {
        let to = mix.below(at + 1);
        let mut place = at;
        while place > to && steps[place - 1].0 != steps[place].0 {
            steps.swap(place - 1, place);
            place -= 1;
        }
    }
    steps
}

/// The program with a version for each fetch. Loads return the newest one.
fn outcome(mix: &mut Mix) -> Vec<Ran> {
    let dense = mix.below(3) != 0;
    let steps = if dense { self::dense(mix) } else { program(mix) };
    let stores = |word: u64, upto: usize| {
        let of = |(_, op): &&(u16, Op)| op.stores() && op.word() == Some(word);
        steps[..upto].iter().filter(of).count()
    };
    let mut ran = Vec::new();
    for (at, (cpu, op)) in steps.iter().enumerate() {
        let word = op.word().unwrap_or(0);
        let returned = match op {
            op if op.fetches() && dense && mix.below(3) != 0 => 0,
            op if op.fetches() && mix.below(3) == 0 => mix.below(stores(word, steps.len()) + 1),
            op if op.fetches() => mix.below(stores(word, at) + 1),
            op if op.loads() => stores(word, at),
            _ => 0,
        };
        ran.push(Ran { cpu: *cpu, op: *op, returned });
    }
    ran
}

/// The steps of each thread, and for each step of the program its thread and place.
fn threads(ran: &[Ran]) -> (Vec<Vec<Step>>, Vec<(usize, usize)>) {
    let model = Model { caches: Side::ALL[0].caches(), steps: ran };
    let mut threads: Vec<Vec<Step>> = vec![Vec::new(); 3];
    let mut loads: Vec<Vec<usize>> = vec![Vec::new(); 3];
    let mut places = Vec::new();
    for (at, step) in ran.iter().enumerate() {
        let p = usize::from(step.cpu);
        let fed = model.fed_by(at).and_then(|l| loads[p].iter().position(|x| *x == l));
        let fed = fed.map_or(Deps::NONE, Deps::load);
        let none = Deps::NONE;
        let line = |word: u64| Lines::Of(word & !63, word | 63);
        let load = |at, order, address| Step::Load { at, order, address };
        let store = |at, order, data| Step::Store { at, value: 0, order, address: none, data };
        let invalidate = |lines, alone| Step::Invalidate { lines, alone, address: none };
        let made = match step.op {
            Op::Store(at) => store(at, Order::Plain, none),
            Op::StoreAfter(at) => store(at, Order::Plain, fed),
            Op::Release(at) => store(at, Order::Release, none),
            Op::Load(at) => load(at, Order::Plain, none),
            Op::LoadAfter(at) => load(at, Order::Plain, fed),
            Op::Acquire(at) => load(at, Order::Acquire, none),
            Op::AcquirePc(at) => load(at, Order::AcquirePc, none),
            Op::Clean(at) => Step::Clean { lines: line(at), address: none },
            Op::Invalidate(at) => invalidate(line(at), false),
            Op::InvalidateAll(alone) => invalidate(Lines::All, alone),
            Op::Fetch(at) => Step::Fetch { at },
            Op::Barrier(barrier, domain) => Step::Barrier(barrier, domain),
            Op::Sync => Step::Sync,
            Op::Branch => Step::Branch { on: fed },
        };
        if step.op.loads() {
            loads[p].push(at);
        }
        places.push((p, threads[p].len()));
        threads[p].push(made);
    }
    (threads, places)
}

/// A program with what the enumeration says of it.
struct Case {
    seed: u64,
    ran: Vec<Ran>,
    side: Side,
    /// Whether the outcome can be.
    can: bool,
    /// The last fetch, and what it can return.
    window: Option<(usize, Vec<bool>)>,
}

/// The cases of some seeds, but for those that leave too much open.
fn cases(seeds: std::ops::Range<u64>) -> impl Iterator<Item = Case> {
    seeds.filter_map(|seed| {
        let mut mix = Mix::of(seed);
        let ran = outcome(&mut mix);
        let side = Side::ALL[mix.below(3)];
        let model = Model { caches: side.caches(), steps: &ran };
        let can = model.can_be()?;
        let window = ran.iter().rposition(|s| s.op.fetches()).and_then(|fetch| {
            let count = model.stores(ran[fetch].op.word()?).len();
            let can: Option<Vec<bool>> = (0..=count).map(|v| model.can_return(fetch, v)).collect();
            Some((fetch, can?))
        });
        Some(Case { seed, ran, side, can, window })
    })
}

/// What a comparison came to.
#[derive(Default, Debug)]
struct Tally {
    outcomes: u32,
    equal: u32,
    possible: u32,
    /// Each fetch alone can, all together can't.
    joint: u32,
    windows: u32,
    equal_windows: u32,
    first: Option<String>,
}

impl Tally {
    fn add(&mut self, case: &Case) {
        let Case { seed, ran, side, can, window } = case;
        let model = Model { caches: side.caches(), steps: ran };
        let (threads, places) = threads(ran);
        let cpus = threads.iter().enumerate();
        let locals: Vec<Local> = cpus.map(|(cpu, steps)| Local::of(cpu as u16, steps)).collect();
        let mut class = Class::by_hand(*side, &threads, &locals);
        let effect = |step: usize| {
            let (cpu, place) = places[step];
            class.effects.iter().position(|e| e.place() == (cpu as u16, place))
        };
        let mut words: Vec<u64> = ran.iter().filter_map(|s| s.op.word()).collect();
        words.sort_unstable();
        words.dedup();
        let stores_of = |word: &u64| model.stores(*word).into_iter().filter_map(effect).collect();
        let stores: Vec<(u64, Vec<usize>)> = words.iter().map(|w| (*w, stores_of(w))).collect();
        let returned = ran.iter().enumerate();
        let returned: Vec<(usize, usize)> =
            returned.filter_map(|(at, s)| Some((effect(at)?, s.returned))).collect();
        let fetch = window.as_ref().and_then(|(fetch, _)| effect(*fetch));
        class.stores = stores;
        returned.iter().for_each(|(e, version)| class.returned[*e] = *version);

        let ours = class.possible();
        self.outcomes += 1;
        self.possible += u32::from(*can);
        self.joint += u32::from(!can && class.possible_one_by_one());
        self.equal += u32::from(ours == *can);
        if ours != *can && self.first.is_none() {
            self.first = Some(format!("seed {seed}, {side:?}: {ours} but {can}\n{ran:#?}"));
        }
        if let (Some((_, can)), Some(ours)) = (window, fetch.and_then(|f| class.window(f))) {
            self.windows += 1;
            self.equal_windows += u32::from(*can == ours);
            if *can != ours && self.first.is_none() {
                let text = format!("seed {seed}, {side:?}: window {ours:?} but {can:?}");
                self.first = Some(format!("{text}\n{ran:#?}"));
            }
        }
    }
}

impl Tally {
    fn tell(&self) {
        println!(
            "{} outcomes compared, {} equal; {} can be, {} can't only together; {} windows by the \
             graph compared, {} equal",
            self.outcomes, self.equal, self.possible, self.joint, self.windows, self.equal_windows
        );
        let text = self.first.as_deref().unwrap_or_default();
        assert_eq!(self.outcomes, self.equal, "{text}");
        assert_eq!(self.windows, self.equal_windows, "{text}");
    }
}

#[test]
#[ignore = "takes minutes; in make conform, by TEXTBED_LONG"]
fn outcomes_of_very_many_random_programs() {
    let mut tally = Tally::default();
    cases(1_000_000..1_400_000).for_each(|case| tally.add(&case));
    tally.tell();
}

/// The joint rule agrees with the enumeration, and with each mistake it does not: cases are
/// enumerated once for all of that.
#[test]
fn outcomes_of_random_programs_are_those_of_the_enumeration() {
    let one = cases(LOAD_AFTER_CLEAN..LOAD_AFTER_CLEAN + 1);
    let cases: Vec<Case> = cases(0..CASES).chain(one).collect();
    let mut tally = Tally::default();
    cases.iter().for_each(|case| tally.add(case));
    tally.tell();
    let no = tally.outcomes - tally.possible;
    assert!(no > 1000 && tally.joint > 100 && u64::from(tally.outcomes) > CASES / 10 * 9);

    for mistake in [
        Mistake::NoFromReads,
        Mistake::NoOrderOfLine,
        Mistake::DsbOrdersFetches,
        Mistake::SyncTakesAllLoads,
        Mistake::CompletionCloses,
        Mistake::FetchOrdersNothing,
        Mistake::DmbCompletes,
        Mistake::DmbStoreCarriesClean,
        Mistake::DmbLoadCarriesLoadToClean,
        Mistake::NoReadsFromByFetch,
        Mistake::AllProgramOrder,
        Mistake::StoresPublishAll,
        Mistake::JointOnce,
        Mistake::JointWithoutEarlier,
        Mistake::JointWithoutCleans,
        Mistake::NarrowIsWide,
        Mistake::AloneReachesAll,
    ] {
        let differs = |case: &Case| {
            let mut tally = Tally::default();
            mistakes::with(Some(mistake), || tally.add(case));
            tally.first.is_some()
        };
        let after = cases.iter().position(differs);
        println!("{mistake:?}: noticed after {} programs", after.map_or(0, |n| n + 1));
        assert!(after.is_some(), "{mistake:?} was not noticed");
    }
}
