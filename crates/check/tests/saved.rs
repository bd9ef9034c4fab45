//! What the order of one stream closes and no edge does: possible, with what saved the run.
#![allow(clippy::unwrap_used)] // tests may

mod common;

use common::{AREA, DM, NONE, ROX, RW, Story, certain, only};
use textbed_arch::Arch;
use textbed_arch::effect::SyncCause;
use textbed_check::rules::RuleId;
use textbed_event::View;

const P: u64 = 0x40_0000;

/// Code that CPU 1 ran is replaced, maintained and published; CPU 1 synchronises for `cause` before
/// it learns of that, or after.
fn story(arch: Arch, cause: SyncCause, in_time: bool) -> Story {
    let mut s = Story::new(arch);
    s.leaf(0, DM + P, P, 1, NONE, RW);
    s.fill(0, DM + P, P, 64, &[0x90]);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.fetch(1, AREA, P, 4);
    s.store(0, DM + P, P, &[1, 2, 3, 4]);
    if arch != Arch::X86_64 {
        s.clean(0, DM + P, P);
        s.dsb(0);
        s.icache(0, AREA, P);
        s.dsb(0);
    }
    s.publish(0, "slot");
    if in_time {
        s.observe(1, "slot");
    }
    s.emit(1, View::ContextSync { cause });
    if !in_time {
        s.observe(1, "slot");
    }
    s.fetch(1, AREA, P, 4);
    s
}

#[test]
fn an_interrupt_that_came_by_saved_this_run() {
    for (cause, told) in [
        (SyncCause::ExceptionReturn, "saved in this run by a return from an interrupt"),
        (SyncCause::SpaceSwitch, "saved in this run by a change of its address space"),
    ] {
        for arch in [Arch::X86_64, Arch::Arm64] {
            let report = story(arch, cause, false).run();
            let f = report
                .findings
                .iter()
                .find(|f| f.rule == RuleId::MissingContextSync)
                .unwrap_or_else(|| panic!("{arch}: {:?}", report.findings));
            assert!(!certain(f), "{arch}");
            assert!(f.notes.iter().any(|n| n.contains(told)), "{arch}: {:?}", f.notes);
            let after = story(arch, cause, true).run();
            assert!(after.findings.iter().all(|f| f.rule != RuleId::MissingContextSync), "{arch}");
        }
    }
    // Without any, it is certain.
    let mut s = story(Arch::X86_64, SyncCause::Serialising, true);
    s.store(0, DM + P, P, &[5, 6, 7, 8]);
    s.publish(0, "again");
    s.observe(1, "again");
    s.fetch(1, AREA, P, 4);
    assert!(certain(only(&s.run(), RuleId::MissingContextSync)));
}
