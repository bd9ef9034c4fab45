//! The simulator's choices against recorded verdicts, and against what is known of each shape.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod catalogue;
mod search;
mod shapes;

use catalogue::catalogue;
use search::{Fetches, decide};
use shapes::{CONFIGURATIONS, MORE_SHAPES, SHAPES, text};
use std::collections::BTreeMap;
use textbed_litmus::kinds::Kind;
use textbed_litmus::parse;

/// Most runs of one test.
const MOST: u64 = 60_000;

/// Tests whose recorded verdict rests on `ic iallu` being broadcast, which it is not (Arm ARM DDI
/// 0487 G8.2.80): the simulator reaches what is recorded as forbidden.
const LOCAL_IALLU: [&str; 2] = ["SB-bnop-cachesyncs3", "IDC1.SB-bnop-cachesyncs3"];

/// Shapes with too many runs to show that an outcome is not reached. FOW2 is FOW with a second
/// reader: where one reader cannot get an old word, two cannot.
const LARGE: [&str; 1] = ["FOW2"];

#[test]
fn the_simulator_decides_the_known_shapes() {
    let (mut compared, mut equal, mut wrong) = (0, 0, Vec::new());
    for shape in SHAPES.iter().chain(MORE_SHAPES) {
        for (caches, allowed) in CONFIGURATIONS.iter().zip(shape.allowed) {
            if LARGE.contains(&shape.name) && !allowed {
                continue;
            }
            compared += 1;
            let test = parse(&text(shape, caches)).unwrap();
            let found = decide(&test, Fetches::Machine, MOST);
            let expected = if allowed { Kind::Allowed } else { Kind::Forbidden };
            if found.kind == Some(expected) {
                equal += 1;
            } else {
                let name = shape.name;
                wrong.push(format!("{name} [{caches}]: {expected:?} expected, {found:?}"));
            }
        }
    }
    println!("shapes: {compared} compared, {equal} equal");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// No shape is vacuous: with fetches that no rule restricts, each outcome is reached.
#[test]
fn no_shape_is_vacuous() {
    for shape in SHAPES {
        let test = parse(&text(shape, "")).unwrap();
        let found = decide(&test, Fetches::Anything, MOST);
        assert_eq!(found.kind, Some(Kind::Allowed), "{}: {found:?}", shape.name);
    }
}

/// Every recorded verdict of the catalogue, by configuration. What differs is said by name; an
/// outcome that is recorded as forbidden must not be reached, and one that is allowed must be.
#[test]
#[ignore = "reads the directory named by TEXTBED_LITMUS"]
fn the_simulator_decides_the_catalogue() {
    let (tests, verdicts) = catalogue();
    let mut table: BTreeMap<(bool, bool), [u32; 6]> = BTreeMap::new();
    let mut reached = Vec::new();
    for test in tests {
        let row = table.entry((test.dic, test.idc)).or_default();
        let Some(recorded) = verdicts.get(&test.name) else {
            row[0] += 1;
            continue;
        };
        row[1] += 1;
        let found = decide(&test, Fetches::Machine, MOST);
        match found.kind {
            None => {
                println!("{}: undecided after {} runs", test.name, found.runs);
                row[2] += 1;
            }
            Some(kind) if kind == *recorded => {
                row[3] += 1;
                let free = decide(&test, Fetches::Anything, MOST).kind;
                if kind == Kind::Forbidden && free == Some(Kind::Forbidden) {
                    println!("{}: vacuous", test.name);
                    row[5] += 1;
                }
            }
            Some(kind) => {
                println!("{}: recorded {recorded:?}, simulator {kind:?}", test.name);
                row[4] += 1;
                let known = LOCAL_IALLU.contains(&test.name.as_str());
                if !known {
                    reached.push(test.name);
                }
            }
        }
    }
    for ((dic, idc), [without, run, undecided, equal, other, vacuous]) in table {
        println!(
            "DIC{}-IDC{}: {run} run, {equal} equal ({vacuous} of them vacuous), {other} not \
             equal, {undecided} undecided, {without} without a record",
            u8::from(dic),
            u8::from(idc),
        );
    }
    assert!(reached.is_empty(), "verdicts differ: {}", reached.join(", "));
}
