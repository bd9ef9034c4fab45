//! The simulator's choices against the operational model taken literally: the shapes, random small
//! programs, and the catalogue as far as the slow model comes.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod catalogue;
mod flat;
mod search;
mod shapes;

use std::collections::{BTreeMap, BTreeSet};

use catalogue::catalogue;
use search::Fetches;
use shapes::{CONFIGURATIONS, SHAPES, text};
use textbed_litmus::kinds::Kind;
use textbed_litmus::{Final, Test, parse};

/// Most runs of the simulator, and states of the model, for one test; fewer states for each test of
/// the catalogue, of which many are larger than anything that is walked in reasonable time.
const MOST_RUNS: u64 = 200_000;
const MOST_STATES: usize = 200_000;
const CATALOGUE_STATES: usize = 10_000;

/// Shapes that the model decides within so many states: how many, how many as known.
fn decide_shapes(most: usize) -> (usize, usize) {
    let (mut equal, mut wrong, mut large) = (0, Vec::new(), 0);
    for shape in SHAPES {
        for (caches, allowed) in CONFIGURATIONS.iter().zip(shape.allowed) {
            let test = parse(&text(shape, caches)).unwrap();
            let expected = if allowed { Kind::Allowed } else { Kind::Forbidden };
            match flat::decide(&test, most) {
                Ok(None) => large += 1,
                Ok(Some(kind)) if kind == expected => equal += 1,
                found => {
                    let name = shape.name;
                    wrong.push(format!("{name} [{caches}]: {expected:?} expected, {found:?}"));
                }
            }
        }
    }
    let all = SHAPES.len() * 3;
    println!("operational model, shapes: {} compared, {equal} equal, {large} larger", all - large);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    (all, equal)
}

#[test]
fn the_model_decides_the_small_shapes() {
    let (all, equal) = decide_shapes(3_000);
    assert!(equal * 3 > all, "{equal} of {all}");
}

#[test]
#[ignore = "takes long; TEXTBED_LONG"]
fn the_model_decides_the_known_shapes() {
    let (all, equal) = decide_shapes(MOST_STATES);
    assert!(equal * 10 > all * 9, "{equal} of {all}");
}

/// splitmix64.
struct Seed(u64);

impl Seed {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// A writer that follows the protocol with parts left out or exchanged, and a reader likewise.
fn program(seed: u64, caches: &str) -> String {
    let mut s = Seed(seed);
    let writer = ["DC CVAU,X1", "DSB ISH", "IC IVAU,X1", "DSB ISH", "@flag"];
    let barriers = ["DSB ISH", "DMB ISH", "DMB ISHST", "DMB ISHLD", "DSB ISHST", "ISB"];
    let flags = ["STR W2,[X3]", "STLR W2,[X3]"];
    let mut p0 = vec!["STR W0,[X1]"];
    for part in writer {
        match (s.below(6), part) {
            (0, part) if part != "@flag" => {}
            (1, "DSB ISH") => p0.push(barriers[s.below(barriers.len())]),
            (_, "@flag") => p0.push(flags[s.below(flags.len())]),
            (_, part) => p0.push(part),
        }
    }
    let loads = ["LDR W4,[X3]", "LDAR W4,[X3]"];
    let mut p1 = Vec::new();
    match s.below(4) {
        // The reader repairs the code by itself.
        0 => {
            p1.push(loads[s.below(2)]);
            for part in ["*", "DC CVAU,X1", "DSB ISH", "IC IVAU,X1", "DSB ISH", "ISB"] {
                match (s.below(5), part) {
                    (0, _) => {}
                    (_, "*") => p1.push(barriers[s.below(barriers.len())]),
                    (_, part) => p1.push(part),
                }
            }
        }
        // It runs, then looks.
        1 => {}
        _ => {
            p1.push(loads[s.below(2)]);
            match s.below(4) {
                0 => p1.push(barriers[s.below(barriers.len())]),
                1 => p1.extend(["DSB ISHLD"]),
                _ => p1.extend(["CBNZ W4,c", "c: NOP"]),
            }
            if s.below(4) > 0 {
                p1.push("ISB");
            }
        }
    }
    let body = ["MOV X10,#1", "f: B f1", "MOV X10,#2", "f1: NOP"];
    p1.extend(body);
    if p1.len() == body.len() || s.below(5) == 0 {
        p1.push(["LDR W6,[X1]", "LDR W6,[X3]"][s.below(2)]);
    }
    let rows = p0.len().max(p1.len());
    let mut out = format!(
        "AArch64 random-{seed}\nCacheType={caches}\n{{ 0:X0=NOP; 0:X1=P1:f; 0:X2=1; 0:X3=y; \
         1:X1=P1:f; 1:X3=y; }}\n P0 | P1 ;\n"
    );
    for row in 0..rows {
        let cell = |p: &[&str]| p.get(row).map_or(String::new(), |i| (*i).to_owned());
        out += &format!(" {} | {} ;\n", cell(&p0), cell(&p1));
    }
    out + "exists (1:X10=1)"
}

type Outcomes = BTreeSet<[u64; 3]>;

fn outcome(state: &dyn Final) -> [u64; 3] {
    [4, 6, 10].map(|n| state.register(1, n))
}

fn by_model(test: &Test) -> Option<Outcomes> {
    let mut all = Outcomes::new();
    let states = flat::walk(test, MOST_STATES, |state| {
        all.insert(outcome(state));
    });
    states.unwrap().map(|_| all)
}

fn by_simulator(test: &Test, fetches: Fetches) -> Option<Outcomes> {
    let mut all = Outcomes::new();
    let walk = search::walk(test, fetches, MOST_RUNS, |state| {
        all.insert(outcome(state));
        false
    });
    walk.whole.then_some(all)
}

fn compare(seeds: std::ops::Range<u64>) {
    let (mut compared, mut equal, mut undecided, mut narrow) = (0, 0, 0, 0);
    let mut wrong = Vec::new();
    for seed in seeds {
        for caches in CONFIGURATIONS {
            let text = program(seed, caches);
            let test = parse(&text).unwrap();
            let (Some(model), Some(simulator)) =
                (by_model(&test), by_simulator(&test, Fetches::Machine))
            else {
                undecided += 1;
                continue;
            };
            compared += 1;
            narrow += u32::from(by_simulator(&test, Fetches::Anything) != Some(simulator.clone()));
            if model == simulator {
                equal += 1;
            } else if wrong.len() < 5 {
                wrong.push(format!("{text}\nmodel {model:?}\nsimulator {simulator:?}"));
            }
        }
    }
    println!(
        "operational model, random programs: {compared} compared, {equal} equal ({narrow} of them \
         with an outcome that only the rules exclude), {undecided} undecided"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(narrow * 4 > compared, "{narrow} of {compared}");
}

#[test]
fn random_programs_have_the_outcomes_of_the_model() {
    compare(0..20);
}

#[test]
#[ignore = "takes long; TEXTBED_LONG"]
fn many_random_programs_have_the_outcomes_of_the_model() {
    compare(1000..1600);
}

/// The recorded verdicts by the model; what it has not (exceptions) or what is too large is said.
#[test]
#[ignore = "reads the directory named by TEXTBED_LITMUS"]
fn the_model_decides_the_catalogue() {
    let (tests, verdicts) = catalogue();
    let mut differ = Vec::new();
    let mut table: BTreeMap<(bool, bool), [u32; 4]> = BTreeMap::new();
    for test in &tests {
        let Some(recorded) = verdicts.get(&test.name) else { continue };
        let row = table.entry((test.dic, test.idc)).or_default();
        row[0] += 1;
        match flat::decide(test, CATALOGUE_STATES) {
            Err(what) => {
                println!("{}: not modelled: {what}", test.name);
                row[3] += 1;
            }
            Ok(None) => {
                println!("{}: more than {CATALOGUE_STATES} states", test.name);
                row[3] += 1;
            }
            Ok(Some(kind)) if kind == *recorded => row[1] += 1,
            Ok(Some(kind)) => {
                differ.push(format!("{}: recorded {recorded:?}, model {kind:?}", test.name));
                row[2] += 1;
            }
        }
    }
    for ((dic, idc), [run, equal, other, left]) in table {
        println!(
            "operational model DIC{}-IDC{}: {run} run, {equal} equal, {other} not equal, {left} \
             not decided",
            u8::from(dic),
            u8::from(idc)
        );
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
