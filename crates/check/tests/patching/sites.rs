//! Sites and traps: who knows of them, and the memory that they are in.

use super::*;

#[test]
fn a_task_inside_of_what_is_replaced_or_freed() {
    let story = |at: u64, leaves: bool| {
        let mut s = running(Arch::Arm64);
        let task = s.rec.name("worker");
        let virt = VirtAddr(AREA + at);
        s.emit(1, View::TaskStands { task, virt, stands: true });
        if leaves {
            s.emit(1, View::TaskStands { task, virt, stands: false });
        }
        s
    };
    let patch = |mut s: Story| {
        s.call(0, "patch", |s, _| {
            site(s, 0, AREA, 8, false);
            put(s, 0, 0, &[1, 2, 3, 4]);
        });
        has(s, RuleId::NoQuiescence)
    };
    assert!(patch(story(4, false)));
    assert!(!patch(story(0, false)), "it runs all of the new code");
    assert!(!patch(story(4, true)));
    let free = |mut s: Story| {
        s.free(0, FRAME, 1);
        has(s, RuleId::NoQuiescence)
    };
    assert!(free(story(0, false)));
    assert!(!free(story(0, true)));
}

#[test]
fn a_trap_that_nobody_knows() {
    let story = |registered: bool| {
        let mut s = running(Arch::X86_64);
        for registered in [true, registered] {
            s.emit(0, View::TrapHandler { virt: VirtAddr(AREA), len: 5, registered });
        }
        s.emit(1, View::Trap { virt: VirtAddr(AREA), vector: 3 });
        s
    };
    assert!(certain(only(&story(false).run(), RuleId::PatchMetadata)));
    assert_eq!(found(story(true)), []);
}

#[test]
fn a_trap_that_no_handler_finds() {
    let story = |registered: bool, handler: bool, at: u64| {
        let mut s = running(Arch::X86_64);
        s.call(0, "patch", |s, _| {
            if registered {
                let virt = VirtAddr(AREA);
                s.emit(0, View::TrapHandler { virt, len: 5, registered });
            }
            site(s, 0, AREA, 5, handler);
            put(s, 0, at, &[0xcc]);
        });
        s
    };
    let report = story(false, true, 0).run();
    let found = only(&report, RuleId::PatchMetadata);
    assert!(certain(found) && found.message.contains("no handler finds"));
    assert!(!has(story(true, true, 0), RuleId::PatchMetadata));
    assert!(!has(story(false, false, 0), RuleId::PatchMetadata), "nobody said that there is one");
    assert!(!has(story(false, true, 1), RuleId::PatchMetadata), "no trap in the first byte");
}

/// Whose memory it is by then may have traps of his own.
#[test]
fn a_trap_in_memory_that_has_a_new_owner() {
    let story = |removed: bool| {
        let mut s = running(Arch::X86_64);
        for registered in [true, false] {
            s.emit(0, View::TrapHandler { virt: VirtAddr(AREA), len: 5, registered });
        }
        let (virt, len) = (VirtAddr(AREA), 0x1000);
        if removed {
            s.emit(0, View::AreaRemoved { virt, len });
            s.emit(0, View::AreaMade { virt, len, shift: 12 });
        }
        s.emit(1, View::Trap { virt: VirtAddr(AREA), vector: 3 });
        has(s, RuleId::PatchMetadata)
    };
    assert!(story(false) && !story(true));
}

/// A site is mapped from its first byte to its last.
#[test]
fn a_site_that_goes_on_past_what_is_mapped() {
    let story = |at: u64| {
        let mut s = running(Arch::X86_64);
        site(&mut s, 0, AREA + at, 5, true);
        s.run()
    };
    let long = story(0xffc);
    let f = only(&long, RuleId::PatchMetadata);
    assert!(certain(f) && f.message.contains("mapped for 4 bytes alone"), "{}", f.message);
    assert!(f.because.is_some());
    let none = story(0x4000);
    assert!(only(&none, RuleId::PatchMetadata).message.contains("nothing is mapped there"));
    assert!(story(0xffb).findings.iter().all(|f| f.rule != RuleId::PatchMetadata));
}

/// Versions that nobody can reach are not kept, nor more than a few others: that one of them was a
/// trap is.
#[test]
fn a_trap_that_is_not_kept_is_known_by_its_place() {
    let story = |arch, old: &[u8], many| {
        let new = [0x90; 4];
        let mut s = running(arch);
        s.emit(0, View::TrapHandler { virt: VirtAddr(AREA), len: 4, registered: true });
        put(&mut s, 0, 0, old);
        [0, 1, 0, 1].into_iter().for_each(|p| s.sync(p));
        for byte in 1..=many {
            put(&mut s, 0, 0, &new.map(|b| b ^ byte));
            s.dsb(0);
        }
        s.emit(0, View::TrapHandler { virt: VirtAddr(AREA), len: 4, registered: false });
        let report = s.run_with(Options { mode: Mode::Observed, ..Options::default() });
        report.findings.iter().any(|f| f.rule == RuleId::PatchMetadata)
    };
    let traps = [(Arch::X86_64, [0xcc; 4]), (Arch::Arm64, [0x00, 0x20, 0x20, 0xd4])];
    for (arch, trap) in traps {
        for many in [1, 12] {
            assert!(story(arch, &trap, many), "{arch}, {many} stores behind the trap");
            assert!(!story(arch, &[7; 4], many), "{arch}: no trap");
        }
    }
}

#[test]
fn a_site_in_memory_that_went_back() {
    let story = |freed: bool| {
        let mut s = running(Arch::X86_64);
        if freed {
            s.free(0, FRAME, 1);
        }
        site(&mut s, 0, AREA, 5, true);
        has(s, RuleId::PatchMetadata)
    };
    assert!(story(true) && !story(false));
}

/// A list that named a place before its memory was given back means what lay there then, also where
/// the memory is in use again; one that got it since means what lies there now.
#[test]
fn a_list_that_outlives_the_memory_of_its_sites() {
    let area = |s: &mut Story, made: bool| {
        let (virt, len) = (VirtAddr(AREA), 0x1000);
        s.emit(
            0,
            if made {
                View::AreaMade { virt, len, shift: 12 }
            } else {
                View::AreaRemoved { virt, len }
            },
        );
    };
    let list = |s: &mut Story, begins| {
        s.emit(0, View::ListedSite { virt: VirtAddr(AREA), begins });
    };
    // What happens between the entry and its use, and how many findings there are.
    for (freed, reused, again, wanted) in [
        (false, false, false, 0),
        (true, false, false, 1),
        (true, true, false, 1),
        (true, true, true, 0),
    ] {
        let mut s = running(Arch::X86_64);
        area(&mut s, true);
        list(&mut s, true);
        if freed {
            area(&mut s, false);
        }
        if reused {
            area(&mut s, true);
        }
        if again {
            list(&mut s, true);
        }
        list(&mut s, false);
        site(&mut s, 0, AREA, 5, true);
        let report = s.run();
        let told = report.findings.iter().filter(|f| f.rule == RuleId::PatchMetadata);
        let told: Vec<bool> = told.map(certain).collect();
        assert_eq!(told, vec![true; wanted], "{freed} {reused} {again}");
    }
}

/// A list that outlives its memory: the frame went back, or nothing is mapped there any more.
#[test]
fn a_site_whose_memory_is_gone() {
    let story = |removed: bool, then: fn(&mut Story)| {
        let mut s = running(Arch::Arm64);
        if removed {
            s.emit(0, View::AreaRemoved { virt: VirtAddr(AREA), len: 64 });
        }
        then(&mut s);
        s.call(0, "patch", |s, _| site(s, 0, AREA, 4, false));
        has(s, RuleId::PatchMetadata)
    };
    assert!(story(true, |_| {}), "an allocator inside of the area has it");
    assert!(story(true, |s| {
        s.leaf(0, AREA, FRAME, 1, ROX, NONE);
    }));
    assert!(!story(false, |_| {}));
    assert!(
        !story(true, |s| {
            s.emit(0, View::AreaMade { virt: VirtAddr(AREA), len: 64, shift: 6 });
        }),
        "it was handed out again"
    );
    assert!(
        !story(true, |s| {
            s.leaf(0, AREA, FRAME, 1, ROX, NONE);
            s.leaf(0, AREA, FRAME, 1, NONE, ROX);
        }),
        "somebody has mapped the address again"
    );
    // Who runs there is after its end, whether the fetch goes through or not.
    let runs = |made: bool, fault: bool| {
        let mut s = running(Arch::Arm64);
        s.emit(0, View::AreaRemoved { virt: VirtAddr(AREA), len: 64 });
        if made {
            s.emit(0, View::AreaMade { virt: VirtAddr(AREA), len: 64, shift: 6 });
            s.leaf(0, AREA, FRAME, 1, ROX, NONE);
        }
        if fault {
            let (virt, access) = (VirtAddr(AREA), Access::Exec);
            s.emit(1, View::Fault { virt, access, reason: FaultReason::NotPresent });
        } else {
            s.fetch(1, AREA, FRAME, 16);
        }
        s.run()
    };
    let found = |made, fault| certain(only(&runs(made, fault), RuleId::ExecAfterFree));
    assert!(found(false, false) && found(false, true));
    // Handed out again it may be code of somebody else; if it is none, it was code before.
    let none = |report: &textbed_check::Report| {
        report.findings.iter().all(|f| f.rule != RuleId::ExecAfterFree)
    };
    assert!(none(&runs(true, false)) && !found(true, true));
    let mut s = running(Arch::Arm64);
    s.emit(0, View::AreaRemoved { virt: VirtAddr(AREA), len: 64 });
    s.emit(0, View::AreaMade { virt: VirtAddr(AREA), len: 64, shift: 6 });
    s.leaf(0, AREA, FRAME, 1, ROX, NONE);
    s.leaf(0, AREA, FRAME, 1, NONE, ROX);
    let (virt, access) = (VirtAddr(AREA), Access::Exec);
    s.emit(1, View::Fault { virt, access, reason: FaultReason::NotPresent });
    assert!(none(&s.run()), "the fault was spurious");
}

#[test]
fn a_comparison_that_fails_is_settled_refused_or_ignored() {
    let compare = |s: &mut Story, equal| {
        let bytes = s.rec.bytes(&[0x0f, 0x1f]);
        let (virt, phys) = (VirtAddr(AREA), textbed_arch::PhysAddr(FRAME));
        s.emit(0, View::Compared { virt, phys, bytes, equal });
    };
    let story = |settled: bool, stored: bool| {
        let mut s = running(Arch::X86_64);
        s.call(0, "patch", |s, _| {
            compare(s, false);
            if settled {
                compare(s, true);
            }
            if stored {
                put(s, 0, 0, &[0xcc]);
            }
        });
        s
    };
    assert!(!certain(only(&story(false, false).run(), RuleId::VerifyMismatch)));
    assert!(certain(only(&story(false, true).run(), RuleId::VerifyMismatch)));
    assert!(!has(story(true, true), RuleId::VerifyMismatch));
    // Whoever died of it does not return.
    let mut s = running(Arch::X86_64);
    put(&mut s, 0, 0, &[0x66, 0x90]);
    s.enter(0, "patch");
    compare(&mut s, false);
    let report = s.run();
    let found = only(&report, RuleId::VerifyMismatch);
    let stored = found.because.as_ref().unwrap();
    assert!(!certain(found) && stored.label == "stored here, so that 66 90 is there");
    assert_eq!(stored.virt, Some(VirtAddr(AREA)));
    // As expected, and not yet what it will be: the usual case of a patcher that asks for both.
    let mut s = running(Arch::X86_64);
    s.call(0, "patch", |s, _| {
        compare(s, true);
        compare(s, false);
        put(s, 0, 0, &[0xcc]);
    });
    assert!(!has(s, RuleId::VerifyMismatch));
}
