//! The checker's rules against recorded verdicts and against what is known of each shape; and the
//! windows of its one-pass form against the same rules as a graph.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod catalogue;
mod shapes;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use catalogue::catalogue;
use shapes::{CONFIGURATIONS, MORE_SHAPES, SHAPES, Shape, text};
use textbed_litmus::kinds::Kind;
use textbed_litmus::{By, Test, classes, decide, parse};

/// Tests whose recorded verdict comes from a model in which `ic iallu` is broadcast. By the manual
/// (Arm ARM DDI 0487, IC IALLU: "of this PE", unless HCR_EL2.FB) it is not, and each has another
/// verdict then.
const LOCAL_IALLU: [&str; 2] = ["SB-bnop-cachesyncs3", "IDC1.SB-bnop-cachesyncs3"];

/// Tests in which each fetch alone can return what the condition asks for, but not both together:
/// those that need the joint rule.
const JOINT: [&str; 13] = [
    "SB-bnop-cachesyncs",
    "SB-bnop-cachesyncs1",
    "SB-bnop-cachesyncs2",
    "SB-bnop-cachesyncs3",
    "IDC1.SB-bnop-cachesyncs",
    "IDC1.SB-bnop-cachesyncs1",
    "IDC1.SB-bnop-cachesyncs2",
    "IDC1.SB-bnop-cachesyncs3",
    "DIC1.SB-bnop-cachesyncs",
    "DIC1.SB-bnop-cachesyncs1",
    "DIC1.SB-bnop-cachesyncs1-reordered",
    "DIC1.SB-bnop-cachesyncs2",
    "DIC1.SB-bnop-cachesyncs3",
];

fn all_shapes() -> impl Iterator<Item = &'static Shape> {
    SHAPES.iter().chain(MORE_SHAPES)
}

#[test]
fn the_checker_decides_the_known_shapes() {
    let (mut equal, mut joint, mut wrong) = (0, 0, Vec::new());
    for shape in all_shapes() {
        for (caches, allowed) in CONFIGURATIONS.iter().zip(shape.allowed) {
            let test = parse(&text(shape, caches)).unwrap();
            let found = decide(&test, By::Joint, false).unwrap();
            let expected = if allowed { Kind::Allowed } else { Kind::Forbidden };
            if found.kind == expected {
                equal += 1;
            } else {
                wrong.push(format!("{} [{caches}]: {expected:?} expected, {found:?}", shape.name));
            }
            joint += usize::from(decide(&test, By::Windows, false).unwrap().kind != expected);
        }
    }
    let all = all_shapes().count() * 3;
    println!("shapes: {all} compared, {equal} equal; {joint} by the joint rule only");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(joint, 5, "code in both directions: each fetch alone is not enough");
}

/// No shape is vacuous: with fetches that no rule restricts, each outcome is reached.
#[test]
fn no_shape_is_vacuous() {
    for shape in all_shapes() {
        let test = parse(&text(shape, "")).unwrap();
        let found = decide(&test, By::Anything, false).unwrap();
        assert_eq!(found.kind, Kind::Allowed, "{}: {found:?}", shape.name);
    }
}

/// What a comparison of windows came to.
#[derive(Default, Debug)]
struct Windows {
    classes: u32,
    without_stream: u32,
    compared: u32,
    equal: u32,
    narrow: u32,
    first: Option<String>,
}

/// Compares the windows of every class of a test that can happen.
fn compare(test: &Test, windows: &mut Windows) {
    let visit = &mut |class: &textbed_check::outcomes::Class<'_>| {
        if !class.possible() {
            return ControlFlow::Continue(());
        }
        windows.classes += 1;
        let Some(stream) = class.stream_windows() else {
            windows.without_stream += 1;
            return ControlFlow::Continue(());
        };
        for (fetch, [low, high]) in stream {
            let graph = class.window(fetch).unwrap();
            let ours: Vec<bool> = (0..graph.len()).map(|v| (low..=high).contains(&v)).collect();
            windows.compared += 1;
            windows.narrow += u32::from(graph.contains(&false));
            if ours == graph {
                windows.equal += 1;
            } else if windows.first.is_none() {
                let text = format!("{}: fetch {fetch}: {ours:?} but {graph:?}", test.name);
                windows.first = Some(format!("{text}\n{class:#?}"));
            }
        }
        ControlFlow::Continue(())
    };
    classes(test, true, visit).unwrap();
}

impl Windows {
    fn tell(&self, of: &str) {
        println!(
            "windows of {of}: {} compared, {} equal, {} of them narrower than all versions; {} \
             classes, {} without a serial stream",
            self.compared, self.equal, self.narrow, self.classes, self.without_stream
        );
        assert_eq!(self.compared, self.equal, "{}", self.first.as_deref().unwrap_or(""));
    }
}

#[test]
fn windows_of_the_shapes_are_those_of_the_graph() {
    let mut windows = Windows::default();
    for shape in all_shapes() {
        for caches in CONFIGURATIONS {
            compare(&parse(&text(shape, caches)).unwrap(), &mut windows);
        }
    }
    windows.tell("shapes");
    assert!(windows.compared > 150 && windows.narrow > 60, "{windows:?}");
}

/// Every recorded verdict, by configuration: with `ic iallu` broadcast as in the model that they
/// come from all are equal, each of them; by the manual all but the two known ones.
#[test]
#[ignore = "reads the directory named by TEXTBED_LITMUS"]
fn the_checker_decides_the_catalogue() {
    let (tests, verdicts) = catalogue();
    let mut table: BTreeMap<(bool, bool), [u32; 4]> = BTreeMap::new();
    let (mut wrong, mut joint, mut local) = (Vec::new(), Vec::new(), Vec::new());
    for test in &tests {
        let row = table.entry((test.dic, test.idc)).or_default();
        let Some(recorded) = verdicts.get(&test.name) else {
            println!("{}: no record", test.name);
            row[0] += 1;
            continue;
        };
        row[1] += 1;
        let kind = |by, broadcast| decide(test, by, broadcast).unwrap().kind;
        if kind(By::Joint, true) == *recorded {
            row[2] += 1;
        } else {
            wrong.push(test.name.clone());
        }
        if kind(By::Windows, true) != *recorded {
            joint.push(test.name.as_str());
        }
        if kind(By::Joint, false) != *recorded {
            local.push(test.name.as_str());
        }
        if *recorded == Kind::Forbidden && kind(By::Anything, true) == Kind::Forbidden {
            row[3] += 1;
        }
    }
    let (mut run, mut equal) = (0, 0);
    for ((dic, idc), [without, with, same, vacuous]) in table {
        let (d, i) = (u8::from(dic), u8::from(idc));
        println!(
            "checker DIC{d}-IDC{i}: {with} compared, {same} equal ({vacuous} of them vacuous), \
             {without} without a record"
        );
        (run, equal) = (run + with, equal + same);
    }
    println!("checker: {run} compared, {equal} equal; {} by the joint rule only", joint.len());
    for name in &local {
        println!("{name}: another verdict with `ic iallu` of one CPU, as the manual has it");
    }
    assert!(wrong.is_empty(), "not equal: {}", wrong.join(", "));
    joint.sort_unstable();
    let mut known = JOINT;
    known.sort_unstable();
    assert_eq!(joint, known, "tests that need the joint rule");
    assert_eq!(local, LOCAL_IALLU, "tests that differ if `ic iallu` is local");
}

/// The windows of every class that can happen.
#[test]
#[ignore = "reads the directory named by TEXTBED_LITMUS"]
fn windows_of_the_catalogue_are_those_of_the_graph() {
    let mut windows = Windows::default();
    for test in catalogue().0 {
        compare(&test, &mut windows);
    }
    windows.tell("the catalogue");
    assert!(windows.compared > 1500, "{windows:?}");
}
