//! Locks, contexts and who patches.

use super::*;

#[test]
fn a_lock_that_a_call_needs_is_held_or_not() {
    let story = |taken: &str| {
        let mut s = running(Arch::X86_64);
        let (need, taken) = (s.rec.name("a"), s.rec.name(taken));
        s.emit(0, View::LockAcquired { lock: taken });
        s.call(0, "patch", |s, call| {
            s.emit(0, View::Needs { call, what: Need::LockHeld, lock: need });
        });
        s.emit(0, View::LockReleased { lock: taken });
        s
    };
    assert!(certain(only(&story("b").run(), RuleId::UnlockedPatch)));
    assert_eq!(found(story("a")), []);
}

#[test]
fn two_patchers_at_one_place_have_no_common_lock() {
    let story = |after: bool| {
        let mut s = running(Arch::Arm64);
        let one = s.enter(0, "patch");
        site(&mut s, 0, AREA, 4, false);
        if after {
            s.leave(0, one, 0);
        }
        s.call(1, "patch", |s, _| site(s, 1, AREA, 4, false));
        s
    };
    assert!(has(story(false), RuleId::UnlockedPatch));
    assert!(!has(story(true), RuleId::UnlockedPatch));
}

#[test]
fn a_patcher_that_runs_half_of_its_patch() {
    let story = |at: u64| {
        let mut s = running(Arch::Ppc64le);
        s.call(0, "patch", |s, _| {
            site(s, 0, AREA, 8, false);
            put(s, 0, 0, &[1, 2, 3, 4]);
            s.fetch(0, AREA + at, FRAME + at, 4);
            put(s, 0, 4, &[5, 6, 7, 8]);
        });
        s
    };
    assert!(has(story(4), RuleId::SelfPatch));
    assert!(!has(story(12), RuleId::SelfPatch));
}

#[test]
fn a_call_in_a_context_that_it_cannot_have() {
    let story = |what: Need, flags: Flags, stopped: bool| {
        let mut s = running(Arch::X86_64);
        s.emit(0, View::StopMachine { begin: stopped });
        s.flags = flags;
        s.call(0, "work", |s, call| {
            let lock = textbed_event::NameId::NONE;
            s.emit(0, View::Needs { call, what, lock });
        });
        has(s, RuleId::WrongContext)
    };
    let (on, off) = (Flags::default(), Flags::IRQS_OFF);
    let nmi = Flags::default().in_context(textbed_event::Context::Nmi);
    assert!(story(Need::MaySleep, off, false) && !story(Need::MaySleep, on, false));
    assert!(story(Need::MaySleep, on, true));
    assert!(story(Need::IrqsOn, off, false) && !story(Need::IrqsOn, on, false));
    assert!(story(Need::IrqsOff, on, false) && !story(Need::IrqsOff, off, false));
    assert!(story(Need::NotInNmi, nmi, false) && !story(Need::NotInNmi, on, false));
    assert!(story(Need::TaskContext, nmi, false) && !story(Need::TaskContext, on, false));
    assert!(story(Need::OthersStopped, on, false) && !story(Need::OthersStopped, on, true));
    assert!(story(Need::AloneAtBoot, on, false) && !story(Need::AloneAtBoot, Flags::BOOT, false));
}
