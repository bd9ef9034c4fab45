//! Patchers that a scenario writes out, and tasks that are preempted in the code that they patch.
#![allow(clippy::unwrap_used)] // tests may

mod common;

use common::{loaded, options, run_on, try_run};
use textbed_arch::Arch;
use textbed_event::{Event, View};
use textbed_scenario::{Outcome, PolicyChoice, RunOptions};

#[test]
fn a_patcher_written_out_names_its_site() {
    let lines = "cpu 0 { p = vmalloc(4096)\nwith patch(p + 4, 8) { memset(p + 4, 0, 8) }\n}\n";
    let ran = run_on(Arch::Arm64, "6.12", lines);
    let names = ran.names();
    let mut calls = Vec::new();
    let site = ran.events().find_map(|(event, _)| match event.view() {
        View::CallEntered { call, name, .. } => {
            calls.push((call, names.get(name).to_owned()));
            None
        }
        View::PatchSite { virt, old_len, handler, .. } => {
            Some((event.cause, virt.0 & 0xfff, old_len, handler))
        }
        _ => None,
    });
    let patch = calls.last().filter(|(_, name)| name == "patch").map(|(call, _)| *call);
    assert_eq!(site, patch.map(|call| (call, 4, 8, false)));
    let closed =
        |e: &Event| matches!(e.view(), View::CallReturned { call, .. } if Some(call) == patch);
    assert!(ran.events().any(|(event, _)| closed(event)));
    let long = "cpu 0 { p = vmalloc(4096)\nwith patch(p, 1M) { }\n}\n";
    let ran = run_on(Arch::Arm64, "6.12", long);
    assert!(matches!(ran.end.outcome, Outcome::NotModelled(_)), "{:?}", ran.end.outcome);
}

/// Whoever frees waits for tasks that were preempted before, and for readers, whatever the order in
/// which CPUs run; what never goes on is waited for for ever.
#[cfg(feature = "vcpu")]
#[test]
fn a_grace_period_waits_for_who_was_there_before() {
    let code = "setup { p = vmalloc(4096)\n memcpy(p, code(patched_site))\n \
        flush_icache_range(p, p + 4096)\n set_memory_ro(p, 1)\n set_memory_x(p, 1) }\n";
    let tasks = "cpu 0 { await there\n synchronize_rcu_tasks()\n publish gone = 1 }\n\
        cpu 1 { preempt(p, p + 8)\n publish there = 1\n r = resume() }\n";
    let reads = "cpu 0 { await there\n synchronize_rcu()\n publish gone = 1 }\n\
        cpu 1 { with rcu { publish there = 1\n r = call(p) } }\n";
    for (lines, ends) in [(tasks, "stands"), (reads, "reads")] {
        for seed in 0..12 {
            let policy = PolicyChoice::Random(seed);
            let options = RunOptions { policy, ..options(Arch::Arm64, "6.12") };
            let ran = try_run(&loaded(&format!("{code}{lines}")), &options).unwrap();
            assert_eq!(ran.end.outcome, Outcome::Ended, "{ends} {:?}", ran.notes());
            let at = |is: &dyn Fn(View) -> bool| ran.events().position(|(e, _)| is(e.view()));
            let left = at(&|v| match v {
                View::TaskStands { stands, .. } => !stands,
                View::ReadSide { begin, .. } => !begin,
                _ => false,
            });
            let over = at(&|v| matches!(v, View::GracePeriod { .. }));
            assert!(left < over && left.is_some(), "{ends}, seed {seed}: {left:?} {over:?}");
        }
    }
    let never = tasks.replace("r = resume()", "await gone");
    let ran = run_on(Arch::Arm64, "6.12", &format!("{code}{never}"));
    assert_eq!(ran.end.outcome, Outcome::Blocked, "{:?}", ran.notes());
    assert!(ran.notes().iter().any(|n| n.contains("preempted on cpu 1")), "{:?}", ran.notes());
}

#[cfg(feature = "vcpu")]
#[test]
fn a_preempted_task_stands_where_it_was_and_goes_on_there() {
    let lines = "cpu 0 {\n p = vmalloc(4096)\n memcpy(p, code(patched_site))\n \
         memcpy(p + 64, code(ret42))\n flush_icache_range(p, p + 4096)\n \
         set_memory_rox(p, 1)\n preempt(p, p + 8)\n r = call(p + 64)\n assert r == 42\n \
         s = resume()\n assert s == 1\n}\n";
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        let ran = run_on(arch, "6.12", lines);
        assert_eq!(ran.end.asserts_failed, 0, "{arch} {:?}", ran.notes());
        assert!(ran.notes().contains(&"cpu 0: resume() returned 1"), "{:?}", ran.notes());
        let stays: Vec<(u64, bool)> = ran
            .events()
            .filter_map(|(event, _)| match event.view() {
                View::TaskStands { virt, stands, .. } => Some((virt.0 & 0xfff, stands)),
                _ => None,
            })
            .collect();
        assert_eq!(stays, [(8, true), (8, false)], "{arch}");
    }
    let lost = run_on(Arch::Arm64, "6.12", "cpu 0 { r = resume() }\n");
    assert!(lost.notes()[0].contains("no task was preempted"), "{:?}", lost.notes());
    let never = lines.replace("p + 8", "p + 16");
    let never = run_on(Arch::Arm64, "6.12", &never);
    assert!(never.notes()[0].contains("never came to"), "{:?}", never.notes());
}
