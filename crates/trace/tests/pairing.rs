//! Calls and returns belong together whatever runs in between: tasks that are preempted and go on
//! elsewhere, interrupts, softirqs and NMIs on top of them, idle CPUs, and probes that miss hits.
//!
//! A schedule is made at random with what is true of it; the log that it would leave is replayed,
//! and the stream is held against that.

#![allow(clippy::unwrap_used)] // tests may

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use textbed_arch::Arch;
use textbed_event::{Kind, View};
use textbed_trace::functions::{self, Meaning};
use textbed_trace::side::SideFiles;

mod common;
use common::run_as;

const CPUS: u32 = 3;
const TASKS: usize = 4;

/// Whose stack a call is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// A task, wherever it runs.
    Task(usize),
    /// What a CPU does when it has none.
    Idle(u32),
    /// On top of whatever runs on a CPU: softirq, interrupt, NMI.
    Above(u32, char),
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        6 => (0..TASKS).prop_map(Who::Task),
        1 => (0..CPUS).prop_map(Who::Idle),
        2 => (0..CPUS, prop::sample::select(vec!['s', 'h', 'z'])).prop_map(|(c, k)| Who::Above(c, k)),
    ]
}

/// A step of a schedule: who goes on, where if it is a task, in or out, which function, and
/// whether the probe misses it.
type Step = (Who, u32, bool, usize, bool);

fn steps(missed: f64) -> impl Strategy<Value = Vec<Step>> {
    let step =
        (who(), 0..CPUS, prop::bool::weighted(0.55), any::<usize>(), prop::bool::weighted(missed));
    prop::collection::vec(step, 1..150)
}

/// Functions that are calls and nothing else.
fn calls() -> Vec<&'static str> {
    functions::all()
        .filter(|f| f.on.has(Arch::X86_64) && f.meaning == Meaning::Call)
        .map(|f| f.name)
        .take(6)
        .collect()
}

/// What is true of one call: its lines, numbered by their time stamps, and the call around it.
#[derive(Debug, Clone)]
struct Call {
    function: &'static str,
    enter: u64,
    leave: Option<u64>,
    around: Option<usize>,
    who: Who,
}

/// A log, and what is true of it.
#[derive(Debug, Default)]
struct Made {
    text: String,
    calls: Vec<Call>,
    /// Times whose lines the log has.
    kept: BTreeSet<u64>,
}

impl Made {
    fn line(&mut self, (who, cpu): (Who, u32), at: u64, missed: bool, what: &str) {
        if missed {
            return;
        }
        let (task, cpu, flags) = match who {
            Who::Task(n) => (format!("task {n}-{}", 100 + n), cpu, "....."),
            Who::Idle(cpu) => ("<idle>-0".to_owned(), cpu, "d..1."),
            // The columns are those of the task below.
            Who::Above(cpu, 's') => (format!("task 0-{}", 100 + at % 4), cpu, "..s1."),
            Who::Above(cpu, 'h') => ("<idle>-0".to_owned(), cpu, "d.h1."),
            Who::Above(cpu, _) => (format!("task 1-{}", 100 + at % 4), cpu, "d.z1."),
        };
        let (name, pid) = task.rsplit_once('-').unwrap();
        self.text += &format!("{name:>16}-{pid:<7} [{cpu:03}] {flags}    10.{at:06}: {what}\n");
        self.kept.insert(at);
    }
}

fn made(steps: &[Step]) -> Made {
    let mut made = Made::default();
    let functions = calls();
    // Which have a probe at their return is read from the first lines.
    for (i, f) in functions.iter().enumerate() {
        let what = format!("{f}__ret: (f+0x1/0x2 <- {f}) ret=0x0");
        made.line((Who::Task(99), 0), i as u64, false, &what);
    }
    let mut open: BTreeMap<Who, Vec<usize>> = BTreeMap::new();
    let mut missed_once = BTreeSet::new();
    for (i, (who, cpu, enter, function, missed)) in steps.iter().enumerate() {
        let at = 1000 + i as u64;
        let stack = open.entry(*who).or_default();
        let place = (*who, *cpu);
        let missed = *missed && !missed_once.contains(who);
        let function = functions[function % functions.len()];
        let inside = stack.iter().any(|call| made.calls[*call].function == function);
        if *enter && !inside && stack.len() < 5 {
            let around = stack.last().copied();
            let call = Call { function, enter: at, leave: None, around, who: *who };
            stack.push(made.calls.len());
            made.calls.push(call);
            made.line(place, at, missed, &format!("{function}: ({function}+0x4/0x50)"));
        } else if let Some(call) = stack.pop() {
            let f = made.calls[call].function;
            made.calls[call].leave = Some(at);
            let what = format!("{f}__ret: (f+0x1/0x2 <- {f}) ret=0x0");
            made.line(place, at, missed, &what);
        } else {
            continue;
        }
        if missed {
            missed_once.insert(*who);
        }
    }
    made
}

/// What the stream says: by call, the time of its entry with the call around it, and of its return.
#[derive(Debug, Default)]
struct Found {
    entered: BTreeMap<u32, (u64, u32)>,
    returned: BTreeMap<u32, u64>,
}

fn found(text: &str) -> (Found, u64) {
    let (done, keep) = run_as(Arch::X86_64, "6.12", SideFiles::default(), text);
    let mut found = Found::default();
    for event in &keep.events {
        let micros = event.at_ns / 1000 % 1_000_000;
        match (event.kind, event.view()) {
            (Kind::CallEntered, View::CallEntered { call, .. }) => {
                assert!(found.entered.insert(call.0, (micros, event.cause.0)).is_none());
            }
            (Kind::CallReturned, View::CallReturned { call, .. }) => {
                assert!(found.returned.insert(call.0, micros).is_none(), "returned twice");
            }
            _ => {}
        }
    }
    let counted = done.summary.calls.values().map(|c| c.returned).sum();
    (found, counted)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing is missed: every call has its own return and the call around it.
    #[test]
    fn each_return_is_of_its_call(steps in steps(0.0)) {
        let made = made(&steps);
        let (found, counted) = found(&made.text);
        prop_assert_eq!(found.entered.len(), made.calls.len());
        let by_time: BTreeMap<u64, u32> =
            found.entered.iter().map(|(call, (at, _))| (*at, *call)).collect();
        for call in &made.calls {
            let id = by_time[&call.enter];
            prop_assert_eq!(found.returned.get(&id).copied(), call.leave, "{:?}", call);
            let around = call.around.map_or(0, |outer| by_time[&made.calls[outer].enter]);
            prop_assert_eq!(found.entered[&id].1, around, "{:?}", call);
        }
        let returned = made.calls.iter().filter(|c| c.leave.is_some()).count() as u64;
        prop_assert_eq!(counted, returned);
    }

    /// The probes miss one hit of each stack: every call both of whose lines are there still has
    /// its own return, and no return goes to a call of another function, task or context.
    #[test]
    fn what_is_missed_takes_nothing_else_with_it(steps in steps(0.15)) {
        let made = made(&steps);
        let (found, _) = found(&made.text);
        let entered: BTreeMap<u64, &Call> = made.calls.iter().map(|c| (c.enter, c)).collect();
        let left: BTreeMap<u64, &Call> =
            made.calls.iter().filter_map(|c| Some((c.leave?, c))).collect();
        for (id, at) in &found.returned {
            let (enter, leave) = (entered[&found.entered[id].0], left[at]);
            prop_assert_eq!((enter.function, enter.who), (leave.function, leave.who));
        }
        let pairs: BTreeSet<(u64, u64)> =
            found.returned.iter().map(|(id, at)| (found.entered[id].0, *at)).collect();
        for call in &made.calls {
            let Some(leave) = call.leave else { continue };
            if made.kept.contains(&call.enter) && made.kept.contains(&leave) {
                prop_assert!(pairs.contains(&(call.enter, leave)), "{:?} in {:?}", call, pairs);
            }
        }
    }
}
