//! The engine against a world that writes down what it is asked.

use textbed_event::CallRef;
use textbed_machine::SplitMix64;

use super::*;
use crate::span::Span;
use crate::syntax::ast::{Arg, Call};
use crate::syntax::parse;
use crate::value::Environment;

/// Calls return their number of arguments, but: `fails` -EINVAL, `null` 0 as a failure,
/// `unmodelled` and `dies` what they say. All but `quiet` have a result that callers have to look
/// at.
#[derive(Default)]
struct Scribe {
    log: Vec<String>,
    calls: u32,
    places: Vec<Span>,
    /// Of the call `slow`: how often it has to be resumed, and its result.
    phases: u32,
    slow: Option<Returned>,
}

impl Scribe {
    fn args(args: &[Arg], env: &dyn Environment) -> Result<String, Stop> {
        let shown = args.iter().map(|arg| match arg {
            Arg::Expr(expr) => Ok(value::expr(expr, env)?.to_string()),
            other => Ok(other.to_string()),
        });
        Ok(shown.collect::<Result<Vec<_>, Stop>>()?.join(","))
    }
}

impl Bare for Scribe {
    fn at(&mut self, place: Span) {
        self.places.push(place);
    }

    fn op(
        &mut self,
        cpu: CpuId,
        op: &Name,
        args: &[Arg],
        env: &dyn Environment,
    ) -> Result<(), Stop> {
        let args = Self::args(args, env)?;
        self.log.push(format!("{} op {}({args})", cpu.0, op.value));
        if op.value == "bad" { Err(Stop::Died("a fault".to_owned())) } else { Ok(()) }
    }

    fn publish(&mut self, cpu: CpuId, name: &str, value: Value) -> Result<(), Stop> {
        self.log.push(format!("{} publish {name}={value}", cpu.0));
        Ok(())
    }
}

impl World for Scribe {
    fn page_bytes(&self) -> u64 {
        4096
    }

    fn call(
        &mut self,
        cpu: CpuId,
        call: &Call,
        env: &dyn Environment,
        _anyway: bool,
    ) -> Result<Called, Stop> {
        let name = call.name.value.as_str();
        let args = Self::args(&call.args, env)?;
        self.calls += 1;
        self.log.push(format!("{} {name}({args})", cpu.0));
        let (value, failed) = match name {
            "fails" => (Value::error(22).unwrap(), true),
            "null" => (Value::number(0), true),
            "unmodelled" => return Err(Stop::NotModelled("that".to_owned())),
            "dies" => return Err(Stop::Died("oops".to_owned())),
            _ => (Value::number(call.args.len() as u64), false),
        };
        let instance = (name != "quiet").then_some(CallRef(self.calls));
        let returned = Returned { value, failed, call: instance, note: None };
        if name == "slow" && self.phases == 0 {
            self.phases = 2;
            self.slow = Some(returned);
            return Ok(Called::More);
        }
        Ok(Called::Returned(returned))
    }

    fn resume(&mut self, cpu: CpuId) -> Result<Called, Stop> {
        self.log.push(format!("{} resume", cpu.0));
        self.phases -= 1;
        match self.slow.clone().filter(|_| self.phases == 0) {
            Some(returned) => Ok(Called::Returned(returned)),
            None => Ok(Called::More),
        }
    }

    fn observe(&mut self, cpu: CpuId, name: &str) -> Result<(), Stop> {
        self.log.push(format!("{} observe {name}", cpu.0));
        Ok(())
    }

    fn enter(&mut self, cpu: CpuId, inside: Inside<'_>) -> Result<(), Stop> {
        self.log.push(format!("{} enter {inside:?}", cpu.0));
        Ok(())
    }

    fn leave(&mut self, cpu: CpuId, inside: Inside<'_>) -> Result<(), Stop> {
        self.log.push(format!("{} leave {inside:?}", cpu.0));
        Ok(())
    }

    fn ipi(
        &mut self,
        cpu: CpuId,
        targets: &[CpuId],
        name: &str,
        handler: &mut dyn FnMut(&mut dyn Bare, CpuId) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.log.push(format!("{} ipi {name}", cpu.0));
        targets.iter().try_for_each(|target| handler(self, *target))
    }

    fn result(&mut self, cpu: CpuId, call: CallRef, looked_at: bool) {
        let what = if looked_at { "used" } else { "dropped" };
        self.log.push(format!("{} {what} {}", cpu.0, call.0));
    }

    fn between(&mut self) -> bool {
        true
    }

    fn take_notes(&mut self) -> Vec<Note> {
        Vec::new()
    }
}

struct Ran {
    finish: Finish,
    log: Vec<String>,
    notes: Vec<Note>,
}

fn run_with(lines: &str, scheduler: Scheduler, steps: u64) -> Ran {
    let text = format!("scenario \"s\"\n{lines}");
    let file = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut engine = Engine::new(&file, Arch::Arm64, 3, Scribe::default(), scheduler, steps);
    let finish = engine.run();
    for place in &engine.world.places {
        assert!(!place.text(&text).is_empty(), "{place:?}");
    }
    Ran { finish, log: engine.world.log, notes: engine.notes }
}

fn run(lines: &str) -> Ran {
    run_with(lines, Scheduler::Lowest, 1000)
}

fn texts(ran: &Ran) -> Vec<&str> {
    ran.notes.iter().map(|n| n.text.as_str()).collect()
}

#[test]
fn setup_first_then_the_lowest_until_it_waits() {
    let ran = run("cpu 1 { await b\nquiet(b)\npublish a = 7 }\n\
        cpu 0 { quiet(area)\npublish b = area + 1\nawait a\nquiet(a) }\n\
        setup { area = quiet(1, 2) }");
    assert_eq!(ran.finish, Finish::Ended);
    assert_eq!(
        ran.log,
        [
            "0 quiet(1,2)",
            "0 quiet(2)",
            "0 publish b=3",
            "1 observe b",
            "1 quiet(3)",
            "1 publish a=7",
            "0 observe a",
            "0 quiet(7)"
        ]
    );
}

#[test]
fn chance_is_decided_by_the_seed_and_keeps_each_cpus_order() {
    let lines = "cpu 0 { quiet(1)\nquiet(2)\nquiet(3) }\ncpu 1 { quiet(1)\nquiet(2)\nquiet(3) }";
    let with = |seed| run_with(lines, Scheduler::Random(SplitMix64(seed)), 1000).log;
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let log = with(seed);
        assert_eq!(log, with(seed), "seed {seed}");
        for cpu in ["0", "1"] {
            let own: Vec<&String> = log.iter().filter(|l| l.starts_with(cpu)).collect();
            let mut sorted = own.clone();
            sorted.sort();
            assert_eq!(own, sorted);
        }
        orders.insert(log);
    }
    assert!(orders.len() > 10, "{} of 20 orders", orders.len());
}

#[test]
fn waiting_for_what_nobody_publishes() {
    let ran = run("cpu 0 { quiet()\nawait never\nquiet() }\ncpu 1 { quiet(1) }");
    assert_eq!(ran.finish, Finish::Blocked);
    assert_eq!(ran.log, ["0 quiet()", "1 quiet(1)"]);
    assert_eq!(texts(&ran), ["cpu 0 waits for `never`, which nobody publishes"]);
}

#[test]
fn results_are_looked_at_or_dropped() {
    let log = |lines: &str| -> Vec<String> {
        let ran = run(lines);
        ran.log.into_iter().filter(|l| l.contains("used") || l.contains("dropped")).collect()
    };
    assert_eq!(log("cpu 0 { f() }"), ["0 dropped 1"]);
    assert_eq!(log("cpu 0 { try f() }"), ["0 used 1"]);
    assert_eq!(log("cpu 0 { r = f() }"), ["0 dropped 1"]);
    assert_eq!(log("cpu 0 { r = f()\ng(r) }"), ["0 dropped 2", "0 dropped 1"]);
    assert_eq!(log("cpu 0 { r = f()\nif r == 0 { } }"), ["0 used 1"]);
    assert_eq!(log("cpu 0 { r = f()\nassert 3 > (r + 1) }"), ["0 used 1"]);
    assert_eq!(log("cpu 0 { r = f()\ntry g(r) }"), ["0 used 1", "0 used 2"]);
    assert_eq!(log("cpu 0 { r = f()\nr = f()\nassert r == 0 }"), ["0 dropped 1", "0 used 2"]);
    assert_eq!(log("cpu 0 { repeat 2 { r = f() }\nassert r == 0 }"), ["0 dropped 1", "0 used 2"]);
    // Looked at only where the flow doesn't come.
    assert_eq!(log("cpu 0 { r = f()\nif 1 == 2 { assert r == 0 } }"), ["0 dropped 1"]);
    // setup's result, looked at by another CPU, or by none.
    assert_eq!(log("setup { r = f() }\ncpu 0 { }\ncpu 1 { assert r == 0 }"), ["0 used 1"]);
    assert_eq!(
        log("setup { r = f() }\ncpu 0 { r = g()\nassert r == 0 }\ncpu 1 { }"),
        ["0 used 2", "0 dropped 1"]
    );
    // Blocked or dead before it would have looked: nothing is said.
    assert_eq!(log("cpu 0 { r = f()\nawait x\nassert r == 0 }"), [""; 0]);
    assert_eq!(log("cpu 0 { r = f()\ndies()\nassert r == 0 }"), [""; 0]);
    assert_eq!(log("cpu 0 { r = f()\ndies()\nassert 1 == 1 }"), ["0 dropped 1"]);
    assert_eq!(log("setup { r = f() }\ncpu 0 { await x\nassert r == 0 }"), [""; 0]);
    assert_eq!(log("cpu 0 { quiet()\nr = quiet() }"), [""; 0]);
}

#[test]
fn try_ends_the_program_on_failure_only() {
    let ran = run("cpu 0 { with lock l { with irqs_off { try r = fails()\nquiet() } } }\n\
        cpu 1 { with lock l { } }");
    assert_eq!(ran.finish, Finish::Ended);
    assert_eq!(
        ran.log,
        [
            "0 enter Lock(\"l\")",
            "0 enter IrqsOff",
            "0 fails()",
            "0 used 1",
            "0 leave IrqsOff",
            "0 leave Lock(\"l\")",
            "1 enter Lock(\"l\")",
            "1 leave Lock(\"l\")"
        ]
    );
    assert_eq!(texts(&ran), ["cpu 0: fails() returned -EINVAL"]);
    let ran = run("cpu 0 { try null()\nquiet() }");
    assert_eq!(ran.log, ["0 null()", "0 used 1"]);
    let ran = run("cpu 0 { try f()\nquiet() }");
    assert_eq!(ran.log, ["0 f()", "0 used 1", "0 quiet()"]);
    let ran = run("setup { try fails() }\ncpu 0 { quiet() }");
    assert_eq!(ran.log, ["0 fails()", "0 used 1"]);
    assert_eq!(texts(&ran)[1], "setup did not come to its end, so no CPU's program was started");
}

#[test]
fn dropped_failures_are_noted_as_such() {
    let ran = run("cpu 0 { fails()\nr = fails()\nassert r == -EINVAL }");
    assert_eq!(
        texts(&ran),
        ["cpu 0: fails() returned -EINVAL, result dropped", "cpu 0: fails() returned -EINVAL"]
    );
}

#[test]
fn loops_branches_and_counters() {
    let ran = run("cpu 0 { i = quiet(1, 2, 3)\n\
        repeat 2 as i { if i == 1 { quiet(i, 9) } else { quiet(i) } }\n\
        quiet(i)\nrepeat 0 { quiet() }\nwhen x86_64 { quiet() }\nwhen x86_64, aarch64 { quiet(5) } }");
    assert_eq!(
        ran.log,
        ["0 quiet(1,2,3)", "0 quiet(0)", "0 quiet(1,9)", "0 quiet(3)", "0 quiet(5)"]
    );
}

#[test]
fn asserts_go_on_and_are_noted() {
    let ran = run("cpu 0 { r = quiet(1)\nassert r + 1 == 3\nassert r == 1\nquiet() }");
    assert_eq!(ran.finish, Finish::Ended);
    assert_eq!(ran.log, ["0 quiet(1)", "0 quiet()"]);
    assert_eq!(texts(&ran), ["cpu 0: assert r + 1 == 3 failed: 2 on the left, 3 on the right"]);
    assert!(ran.notes[0].failed_assert);
}

#[test]
fn locks_are_waited_for() {
    let ran = run("cpu 0 { with lock l { await go\nquiet() } }\n\
        cpu 1 { publish go = 1\nwith lock l { quiet(1) } }");
    assert_eq!(ran.finish, Finish::Ended);
    let order: Vec<&str> =
        ran.log.iter().map(String::as_str).filter(|l| l.contains("Lock")).collect();
    assert_eq!(
        order,
        [
            "0 enter Lock(\"l\")",
            "0 leave Lock(\"l\")",
            "1 enter Lock(\"l\")",
            "1 leave Lock(\"l\")"
        ]
    );
    let ran = run("cpu 0 { with lock l { with lock l { } } }");
    assert_eq!(ran.finish, Finish::Blocked);
    assert_eq!(texts(&ran), ["cpu 0 waits for the lock `l`, which is never released"]);
}

#[test]
fn a_stopped_machine_runs_one_program() {
    let lines = "cpu 0 { quiet(1)\nquiet(2)\nquiet(3) }\n\
        cpu 1 { with stop_machine { quiet(4)\nquiet(5)\nquiet(6) }\nquiet(7) }";
    for seed in 0..40 {
        let log = run_with(lines, Scheduler::Random(SplitMix64(seed)), 1000).log;
        let at = log.iter().position(|l| l == "1 enter StopMachine").unwrap();
        assert_eq!(
            &log[at + 1..at + 5],
            ["1 quiet(4)", "1 quiet(5)", "1 quiet(6)", "1 leave StopMachine"]
        );
        assert_eq!(log.len(), 9);
    }
}

#[test]
fn interrupts_wait_until_they_are_taken() {
    let lines = "cpu 0 { with irqs_off { quiet(1)\nquiet(2) } }\n\
        cpu 1 { ipi others h }\nhandler ipi h { op isb }";
    let mut both = [false; 2];
    for seed in 0..40 {
        let log = run_with(lines, Scheduler::Random(SplitMix64(seed)), 1000).log;
        let sent = log.iter().position(|l| l == "1 ipi h").unwrap();
        let off = log.iter().position(|l| l == "0 enter IrqsOff").unwrap();
        let on = log.iter().position(|l| l == "0 leave IrqsOff").unwrap();
        assert!(sent < off || sent > on, "seed {seed}: {log:?}");
        assert_eq!(log[sent + 1..sent + 3], ["0 op isb()", "2 op isb()"]);
        both[usize::from(sent > on)] = true;
    }
    assert_eq!(both, [true; 2], "both orders happen");
    let ran = run("cpu 0 { with irqs_off { await x } }\ncpu 1 { ipi 0 h }\nhandler ipi h { }");
    assert_eq!(ran.finish, Finish::Blocked);
    assert_eq!(texts(&ran)[1], "cpu 1 waits for cpu 0, which never takes interrupts again");
}

#[test]
fn handlers_see_what_is_published_and_can_publish() {
    let ran = run("setup { area = quiet(1, 2) }\n\
        cpu 0 { publish p = area + 1\nipi 1, 1, 2 h\nawait done\nquiet(done) }\n\
        handler ipi h {\n repeat 2 as i { op dc(p + i) }\n if p == 4 { op no } else { op yes }\n\
        when x86_64 { op no }\nassert p == 3\n}\n\
        cpu 1 { publish done = 5 }");
    assert_eq!(ran.finish, Finish::Ended, "{:?}", ran.log);
    assert_eq!(
        ran.log[2..],
        [
            "0 ipi h",
            "1 op dc(3)",
            "1 op dc(4)",
            "1 op yes()",
            "2 op dc(3)",
            "2 op dc(4)",
            "2 op yes()",
            "1 publish done=5",
            "0 observe done",
            "0 quiet(5)"
        ]
    );
    for (inside, what) in [
        ("f()", "the call `f`"),
        ("with rcu { }", "`with`"),
        ("ipi all h", "`ipi`"),
        ("await x", "`await`"),
    ] {
        let ran = run(&format!("cpu 0 {{ ipi 0 h }}\nhandler ipi h {{ {inside} }}"));
        let said = format!("{what} in the interrupt handler `h`");
        assert_eq!(ran.finish, Finish::NotModelled(said));
    }
}

#[test]
fn what_a_handler_publishes_can_be_awaited() {
    let ran = run("cpu 0 { await p\nquiet(p) }\ncpu 1 { ipi 2 h }\n\
        handler ipi h { publish p = 6\nassert p == 6 }");
    assert_eq!(ran.finish, Finish::Ended);
    assert_eq!(ran.log, ["1 ipi h", "2 publish p=6", "0 observe p", "0 quiet(6)"]);
    assert!(ran.notes.is_empty());
}

#[test]
fn interrupts_are_off_until_the_outermost_with_ends() {
    let ran = run("cpu 0 { with irqs_off { with irqs_off { ipi 0 h }\nquiet() } }\n\
        handler ipi h { }");
    assert_eq!(ran.log, ["0 enter IrqsOff", "0 ipi h", "0 quiet()", "0 leave IrqsOff"]);
}

#[test]
fn endless_programs_reach_a_limit() {
    let limit = Finish::Limit("the limit of statements was reached".to_owned());
    for lines in [
        "cpu 0 { repeat 18446744073709551615 { } }",
        "cpu 0 { repeat 99999 { repeat 99999 { repeat 99999 { quiet() } } } }",
        "cpu 0 { ipi all h }\nhandler ipi h { repeat 18446744073709551615 { } }",
    ] {
        assert_eq!(run(lines).finish, limit, "{lines}");
    }
}

#[test]
fn what_ends_a_program_and_what_ends_all() {
    let ran = run("cpu 0 { with stop_machine { dies()\nquiet() } }\ncpu 1 { op bad\nquiet() }\n\
        cpu 2 { quiet(2) }");
    assert_eq!(ran.finish, Finish::Ended);
    assert_eq!(
        ran.log,
        [
            "0 enter StopMachine",
            "0 dies()",
            "0 leave IrqsOff",
            "1 op bad()",
            "1 leave IrqsOff",
            "2 quiet(2)"
        ]
    );
    assert_eq!(
        texts(&ran),
        ["cpu 0: oops; its program ends here", "cpu 1: a fault; its program ends here"]
    );
    let ran = run("cpu 0 { unmodelled() }\ncpu 1 { quiet() }");
    assert_eq!(ran.finish, Finish::NotModelled("that".to_owned()));
    assert_eq!(ran.log.len(), 1);
}

#[test]
fn mistakes_that_show_only_now() {
    let input = |lines: &str| match run(lines).finish {
        Finish::Input(diagnostic) => diagnostic.message,
        other => panic!("{other:?}"),
    };
    assert_eq!(input("cpu 0 { quiet(1 - 2) }"), "1 - 2 is below zero");
    assert_eq!(input("cpu 0 { quiet(x) }"), "`x` has no value here");
    assert_eq!(input("cpu 0 { repeat 2 { publish p = 1 } }"), "`p` is published twice");
    assert_eq!(
        input("cpu 0 { r = fails()\nquiet(r + 1) }"),
        "-EINVAL is an error, not a number to calculate with"
    );
}

#[test]
fn others_run_between_the_phases_of_a_call() {
    let lines = "cpu 0 {\n r = slow(1)\n assert r == 1\n quiet()\n}\ncpu 1 {\n quiet(2)\n}\n";
    let orders: Vec<Vec<String>> = (0..40)
        .map(|seed| run_with(lines, Scheduler::Random(SplitMix64(seed)), 100))
        .map(|ran| {
            assert_eq!(ran.finish, Finish::Ended);
            ran.log
        })
        .collect();
    let between = |log: &&Vec<String>| {
        let at = |what: &str| log.iter().position(|l| l == what).unwrap();
        let last = log.iter().rposition(|l| l == "0 resume").unwrap();
        at("0 slow(1)") < at("1 quiet(2)") && at("1 quiet(2)") < last
    };
    assert!(orders.iter().any(|log| between(&log)), "{orders:?}");
    for log in &orders {
        assert_eq!(log.iter().filter(|l| *l == "0 resume").count(), 2, "{log:?}");
        let end = log.iter().position(|l| l == "0 quiet()").unwrap();
        assert!(log.iter().rposition(|l| l == "0 resume").unwrap() < end, "{log:?}");
    }
}
