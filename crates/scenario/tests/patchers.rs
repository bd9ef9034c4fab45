//! Patchers that a scenario writes out, and tasks that are preempted in the code that they patch.
#![allow(clippy::unwrap_used)] // tests may

mod common;

use common::run_on;
use textbed_arch::Arch;
use textbed_event::{Event, View};
use textbed_scenario::Outcome;

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
