//! break-before-make, missing-pte-order, live-mapping-hole: what triggers each, what does not, and
//! the calibration by architecture.

mod common;

use common::*;
use textbed_arch::{
    Arch, Features, PhysAddr, VirtAddr,
    effect::{Barrier, Reach},
};
use textbed_check::{Report, rules::RuleId};
use textbed_event::{Access, FaultReason, Flags, LeafChange, Promise, View};

const Q: u64 = 0x40_0000;
const PAGE: u64 = 0x1000;

fn flush(s: &mut Story) {
    match s.arch() {
        Arch::X86_64 => {
            s.tlbi(0, Reach::Local, AREA, PAGE);
            s.tlbi(1, Reach::Local, AREA, PAGE);
        }
        Arch::Arm64 => {
            s.barrier(0, Barrier::DsbStore);
            s.tlbi(0, Reach::Broadcast, AREA, PAGE);
            s.dsb(0);
        }
        _ => {
            s.barrier(0, Barrier::Ptesync);
            s.tlbi(0, Reach::Broadcast, AREA, PAGE);
            s.barrier(0, Barrier::Eieio);
            s.barrier(0, Barrier::Tlbsync);
            s.barrier(0, Barrier::Ptesync);
        }
    }
}

/// What makes a new entry visible to walks and to the fetches of its maker.
fn order(s: &mut Story) {
    match s.arch() {
        Arch::X86_64 => {}
        Arch::Arm64 => {
            s.barrier(0, Barrier::DsbStore);
            s.sync(0);
        }
        _ => s.barrier(0, Barrier::Ptesync),
    }
}

const WITH_BREAKS: [Arch; 3] = [Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];

#[test]
fn another_frame_needs_a_break_but_not_on_x86() {
    for arch in Arch::ALL {
        let mut s = Story::new(arch);
        s.leaf(0, AREA, P, 1, NONE, RW);
        order(&mut s);
        s.leaf(0, AREA, Q, 1, RW, RW);
        flush(&mut s);
        let report = s.run();
        if arch == Arch::X86_64 {
            assert!(report.findings.is_empty(), "{:#?}", report.findings);
            continue;
        }
        let f = only(&report, RuleId::BreakBeforeMake);
        assert!(certain(f), "{arch}");
        assert!(f.message.contains("another frame"), "{}", f.message);
        assert!(f.missing[0].contains("before the new entry"), "{:?}", f.missing);
    }
}

#[test]
fn every_step_of_a_break_is_needed() {
    for arch in WITH_BREAKS {
        // 0: the whole sequence; 1: no invalidation; 2: nothing completes it.
        for left_out in 0..3 {
            let mut s = Story::new(arch);
            s.leaf(0, AREA, P, 1, NONE, RW);
            order(&mut s);
            s.leaf(0, AREA, P, 1, RW, NONE);
            let power = arch != Arch::Arm64;
            s.barrier(0, if power { Barrier::Ptesync } else { Barrier::DsbStore });
            if left_out != 1 {
                s.tlbi(0, Reach::Broadcast, AREA, PAGE);
            }
            if left_out != 2 {
                if power {
                    s.barrier(0, Barrier::Eieio);
                    s.barrier(0, Barrier::Tlbsync);
                }
                s.barrier(0, if power { Barrier::Ptesync } else { Barrier::DsbFull });
            }
            s.leaf(0, AREA, Q, 1, NONE, RW);
            order(&mut s);
            let report = s.run();
            let found = rules(&report).contains(&RuleId::BreakBeforeMake);
            assert_eq!(found, left_out != 0, "{arch} {left_out}: {:#?}", report.findings);
        }
    }
}

#[test]
fn a_change_of_permissions_needs_no_break() {
    for arch in Arch::ALL {
        for (old, new) in [(RW, RO), (RO, RW), (RO, ROX), (ROX, RO)] {
            let mut s = Story::new(arch);
            s.leaf(0, AREA, P, 1, NONE, old);
            order(&mut s);
            s.leaf(0, AREA, P, 1, old, new);
            flush(&mut s);
            assert!(s.run().findings.is_empty(), "{arch} {old:?} {new:?}");
        }
    }
}

#[test]
fn read_only_frames_are_possible_on_arm64() {
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, AREA, P, 1, NONE, RO);
    order(&mut s);
    s.leaf(0, AREA, Q, 1, RO, RO);
    flush(&mut s);
    assert!(!certain(only(&s.run(), RuleId::BreakBeforeMake)));
}

/// A large leaf is split; the parts say `new`.
fn split(arch: Arch, on: Features, new: textbed_arch::Perm) -> Vec<RuleId> {
    let mut s = Story::with(arch, on, Features::empty());
    s.huge_leaf(0, AREA, P, 21, 1, RW);
    order(&mut s);
    let change = LeafChange { old_shift: 21, ..LeafChange::usual(512, 12, RW, new) };
    s.emit(0, View::Leaf { virt: VirtAddr(AREA), phys: PhysAddr(P), change });
    flush(&mut s);
    rules(&s.run())
}

#[test]
fn sizes_by_architecture() {
    let none = Features::empty();
    assert_eq!(split(Arch::Arm64, none, RW), [RuleId::BreakBeforeMake]);
    assert_eq!(split(Arch::Arm64, Features::ARM_BBML2_NOABORT, RW), []);
    assert_eq!(split(Arch::X86_64, none, RW), []);
    assert_eq!(split(Arch::X86_64, none, RO), []);
    // AMD: what says the same is what kernels do; with other rights the table must not be there.
    assert_eq!(split(Arch::X86_64, Features::X86_AMD, RW), []);
    assert_eq!(split(Arch::X86_64, Features::X86_AMD, RO), [RuleId::BreakBeforeMake]);
}

#[test]
fn an_invalidation_before_the_store_is_visible_is_no_invalidation() {
    for arch in WITH_BREAKS {
        for ordered in [true, false] {
            for promised in [true, false] {
                let mut s = Story::new(arch);
                s.leaf(0, AREA, P, 1, NONE, RW);
                order(&mut s);
                s.call(0, "protect", |s, call| {
                    s.leaf(0, AREA, P, 1, RW, RO);
                    if ordered {
                        order(s);
                    }
                    s.tlbi(0, Reach::Broadcast, AREA, PAGE);
                    s.barrier(0, Barrier::Eieio);
                    s.barrier(0, Barrier::Tlbsync);
                    let power = arch != Arch::Arm64;
                    s.barrier(0, if power { Barrier::Ptesync } else { Barrier::DsbFull });
                    if promised {
                        s.promise(0, call, Promise::NoWrite, AREA, PAGE);
                    }
                });
                let report = s.run();
                if ordered {
                    assert!(report.findings.is_empty(), "{arch}: {:#?}", report.findings);
                } else {
                    let f = only(&report, RuleId::MissingPteOrder);
                    assert!(certain(f), "{arch} {promised}");
                    assert_eq!(report.findings.len(), 1, "{arch} {promised}");
                }
            }
        }
    }
}

/// Linux powerpc without tlbie: the CPU that made the change interrupts others, and executes its
/// own ptesync after that.
#[test]
fn a_ptesync_of_who_was_told_orders_the_change_for_its_own_walks() {
    let local = |s: &mut Story, cpu, ptesync: bool| {
        if ptesync {
            s.barrier(cpu, Barrier::Ptesync);
        }
        s.tlbi(cpu, Reach::Local, AREA, PAGE);
        s.barrier(cpu, Barrier::Ptesync);
    };
    for arch in [Arch::Ppc64le, Arch::Ppc64] {
        // Told before the change, behind it, or never; with a barrier of its own, or without.
        for (told, ptesync, want) in [
            (Some(true), true, true),
            (Some(true), false, false),
            (Some(false), true, false),
            (None, true, false),
        ] {
            let mut s = Story::new(arch);
            s.leaf(0, AREA, P, 1, NONE, RW);
            order(&mut s);
            s.call(0, "protect", |s, _| {
                if told == Some(false) {
                    s.ipi(1, 0, 1, true);
                }
                s.leaf(0, AREA, P, 1, RW, RO);
                if told == Some(true) {
                    s.ipi(1, 0, 1, true);
                }
                local(s, 1, ptesync);
                local(s, 0, true);
            });
            let report = s.run();
            let rules: Vec<RuleId> = report.findings.iter().map(|f| f.rule).collect();
            let expected: &[RuleId] = if want { &[] } else { &[RuleId::MissingPteOrder] };
            assert_eq!(rules, expected, "{arch} {told:?} {ptesync}");
        }
    }
}

/// A purge takes what another CPU unmapped without a barrier of its own: the barrier of who flushes
/// orders what it learned of.
#[test]
fn a_barrier_orders_changes_that_its_cpu_learned_of() {
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        let barrier = if arch == Arch::Arm64 { Barrier::DsbStore } else { Barrier::Ptesync };
        for (learns, ordered, own) in [
            (true, true, false),
            (true, false, false),
            (false, true, false),
            (true, true, true), // and who unmapped flushes, which had no barrier
        ] {
            let mut s = Story::new(arch);
            s.leaf(0, AREA, P, 1, NONE, RW);
            order(&mut s);
            s.call(0, "unmap", |s, _| {
                s.leaf(0, AREA, P, 1, RW, RO);
            });
            s.publish(0, "freed");
            if learns {
                s.observe(1, "freed");
            }
            if ordered {
                s.barrier(1, barrier);
            }
            let flusher = if own { 0 } else { 1 };
            s.call(flusher, "purge", |s, _| {
                s.tlbi(flusher, Reach::Broadcast, AREA, PAGE);
                if arch == Arch::Arm64 {
                    s.dsb(flusher);
                } else {
                    s.barrier(flusher, Barrier::Eieio);
                    s.barrier(flusher, Barrier::Tlbsync);
                    s.barrier(flusher, Barrier::Ptesync);
                }
            });
            let report = s.run();
            let rules: Vec<RuleId> = report.findings.iter().map(|f| f.rule).collect();
            let good = learns && ordered && !own;
            let expected: &[RuleId] = if good { &[] } else { &[RuleId::MissingPteOrder] };
            assert_eq!(rules, expected, "{arch} {learns} {ordered} {own}");
        }
    }
}

/// In the middle of a change another CPU invalidates, or some time later everything, for reasons of
/// its own. What that leaves over has to be gone by the end of the call that changes the tables.
#[test]
fn an_invalidation_amid_a_change_is_judged_when_its_call_ends() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Then {
        Nothing,
        OwnAlone,
        Everywhere,
        TooEarly,
    }
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        let power = arch != Arch::Arm64;
        let barrier = if power { Barrier::Ptesync } else { Barrier::DsbStore };
        let flush = |s: &mut Story, cpu, reach, all| {
            if all && power {
                // Process 0 of powerpc has a quadrant.
                s.tlbi(cpu, reach, 3 << 62, 1 << 62);
            } else if all {
                s.tlb_all(cpu, reach);
            } else {
                s.tlbi(cpu, reach, AREA, PAGE);
            }
            if power && reach == Reach::Broadcast {
                s.barrier(cpu, Barrier::Eieio);
                s.barrier(cpu, Barrier::Tlbsync);
            }
            s.barrier(cpu, if power { Barrier::Ptesync } else { Barrier::DsbFull });
        };
        for (over, all) in [(false, true), (false, false), (true, true), (true, false)] {
            for then in [Then::Nothing, Then::OwnAlone, Then::Everywhere, Then::TooEarly] {
                let mut s = Story::new(arch);
                s.leaf(0, AREA, P, 1, NONE, RW);
                order(&mut s);
                let call = s.enter(0, "protect");
                s.leaf(0, AREA, P, 1, RW, RO);
                if over {
                    s.leave(0, call, 0);
                }
                let other = s.enter(1, "flush all");
                s.barrier(1, barrier);
                flush(&mut s, 1, Reach::Broadcast, all);
                s.leave(1, other, 0);
                if matches!(then, Then::OwnAlone | Then::Everywhere) {
                    s.barrier(0, barrier);
                }
                match then {
                    Then::Nothing => {}
                    Then::OwnAlone => flush(&mut s, 0, Reach::Local, true),
                    Then::Everywhere | Then::TooEarly => flush(&mut s, 0, Reach::Broadcast, true),
                }
                if !over {
                    s.leave(0, call, 0);
                }
                let found = !s.run().findings.is_empty();
                // Who names the page of a change that is over means that change.
                let named = over && !all;
                let bad = named || matches!(then, Then::OwnAlone | Then::TooEarly);
                assert_eq!(found, bad, "{arch} {then:?} over={over} all={all}");
            }
        }
    }
}

/// Who invalidates a range for what it unmapped may take an area with it that another CPU unmapped
/// meanwhile, behind no barrier, and that is somebody's concern later. Whoever names nothing else
/// means that one.
#[test]
fn a_range_with_changes_of_its_own_is_not_about_others_between_them() {
    const AREAS: [u64; 3] = [AREA, AREA + PAGE, AREA + 2 * PAGE];
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        let power = arch != Arch::Arm64;
        let barrier = if power { Barrier::Ptesync } else { Barrier::DsbStore };
        let flush = |s: &mut Story, cpu, at, len| {
            s.barrier(cpu, barrier);
            s.tlbi(cpu, Reach::Broadcast, at, len);
            if power {
                s.barrier(cpu, Barrier::Eieio);
                s.barrier(cpu, Barrier::Tlbsync);
            }
            s.barrier(cpu, if power { Barrier::Ptesync } else { Barrier::DsbFull });
        };
        for (own, later, freed) in [
            (true, true, true),
            (true, false, false),
            (true, false, true),
            (false, true, true),
            (false, false, false),
        ] {
            let mut s = Story::new(arch);
            for (i, at) in AREAS.into_iter().enumerate() {
                s.leaf(0, at, P + i as u64 * PAGE, 1, NONE, ROX);
            }
            order(&mut s);
            s.call(1, "unmap", |s, _| {
                s.leaf(1, AREAS[1], P + PAGE, 1, ROX, NONE);
            });
            if own {
                s.call(0, "unmap", |s, _| {
                    s.leaf(0, AREAS[0], P, 1, ROX, NONE);
                    s.leaf(0, AREAS[2], P + 2 * PAGE, 1, ROX, NONE);
                });
            }
            s.call(0, "purge", |s, _| flush(s, 0, AREA, 3 * PAGE));
            if later {
                s.call(1, "purge", |s, _| flush(s, 1, AREAS[1], PAGE));
            }
            if freed {
                s.free(1, P + PAGE, 1);
            }
            let report = s.run();
            let rules: Vec<RuleId> = report.findings.iter().map(|f| f.rule).collect();
            let expected = match (own, later, freed) {
                (true, true, _) | (true, false, false) => vec![],
                (true, false, true) => vec![RuleId::ExecAfterFree],
                (false, ..) => vec![RuleId::MissingPteOrder],
            };
            assert_eq!(rules, expected, "{arch} {own} {later} {freed}");
        }
    }
}

/// One CPU invalidates page after page and waits once; between two of them another CPU's change of
/// the second page comes to be seen by walks, so the second one comes in time.
#[test]
fn an_invalidation_beside_another_one_has_its_own_time() {
    for between in [false, true] {
        let mut s = Story::new(Arch::Arm64);
        s.leaf(0, AREA, P, 2, NONE, RW);
        order(&mut s);
        s.call(0, "protect", |s, _| {
            s.leaf(0, AREA, P, 1, RW, RO);
            s.barrier(0, Barrier::DsbStore);
        });
        let flush = s.enter(0, "flush");
        s.tlbi(0, Reach::Broadcast, AREA, PAGE);
        s.leaf(1, AREA + PAGE, P + PAGE, 1, RW, RO);
        if between {
            s.barrier(1, Barrier::DsbStore);
        }
        s.tlbi(0, Reach::Broadcast, AREA + PAGE, PAGE);
        s.dsb(0);
        s.leave(0, flush, 0);
        let report = s.run();
        let rules: Vec<RuleId> = report.findings.iter().map(|f| f.rule).collect();
        let expected: &[RuleId] = if between { &[] } else { &[RuleId::MissingPteOrder] };
        assert_eq!(rules, expected, "{between}");
    }
}

#[test]
fn a_second_invalidation_makes_an_early_one_good() {
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, AREA, P, 1, NONE, RW);
    order(&mut s);
    s.call(0, "protect", |s, _| {
        s.leaf(0, AREA, P, 1, RW, RO);
        s.tlbi(0, Reach::Broadcast, AREA, PAGE);
        s.dsb(0);
        s.tlbi(0, Reach::Broadcast, AREA, PAGE);
        s.dsb(0);
    });
    assert!(s.run().findings.is_empty());
}

#[test]
fn a_new_entry_is_ordered_before_its_use() {
    // (barrier, synchronisation, cpu that uses it, execution) -> found
    let (none, ets2) = (Features::empty(), Features::ARM_ETS2);
    for (arch, on) in WITH_BREAKS.map(|arch| (arch, none)).into_iter().chain([(Arch::Arm64, ets2)])
    {
        for (barrier, sync, cpu, exec) in [
            (true, true, 0, true),
            (true, true, 0, false),
            (true, false, 0, false),
            (true, false, 0, true),
            (true, false, 1, true),
            (true, false, 1, false),
            (false, true, 1, false),
            (false, false, 0, true),
        ] {
            let mut s = Story::with(arch, on, none);
            let call = s.enter(0, "map");
            s.leaf(0, AREA, P, 1, NONE, ROX);
            let power = arch != Arch::Arm64;
            if barrier {
                s.barrier(0, if power { Barrier::Ptesync } else { Barrier::DsbStore });
            }
            if sync {
                s.sync(0);
            }
            s.leave(0, call, 0);
            if exec {
                s.fetch(cpu, AREA, P, 4);
            } else {
                let (virt, phys) = (VirtAddr(AREA), PhysAddr(P));
                let order = textbed_event::MemOrder::Plain;
                s.emit(cpu, View::Load { virt, phys, len: 4, order });
            }
            let found = rules(&s.run()).contains(&RuleId::MissingPteOrder);
            let ahead = cpu == 0 && !sync && !power && (exec || on == none);
            assert_eq!(found, !barrier || ahead, "{arch} {on:?} {barrier} {sync} {cpu} {exec}");
        }
    }
}

#[test]
fn x86_needs_no_order_for_new_entries() {
    let mut s = Story::new(Arch::X86_64);
    s.call(0, "map", |s, _| {
        s.leaf(0, AREA, P, 1, NONE, ROX);
    });
    s.fetch(0, AREA, P, 4);
    assert!(!rules(&s.run()).contains(&RuleId::MissingPteOrder));
}

/// Permissions of executable memory changed through an invalid entry; `inside` runs meanwhile.
fn hole(arch: Arch, inside: impl FnOnce(&mut Story), after: impl FnOnce(&mut Story)) -> Story {
    let mut s = Story::new(arch);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    order(&mut s);
    s.call(0, "change", |s, _| {
        s.leaf(0, AREA, P, 1, ROX, NONE);
        flush(s);
        inside(s);
        s.leaf(0, AREA, P, 1, NONE, RO);
        order(s);
    });
    after(&mut s);
    s
}

fn fault(s: &mut Story, cpu: u16) {
    let (access, reason) = (Access::Exec, FaultReason::NotPresent);
    s.emit(cpu, View::Fault { virt: VirtAddr(AREA), access, reason });
}

#[test]
fn a_hole_that_somebody_met() {
    for arch in Arch::ALL {
        let report = hole(arch, |s| fault(s, 1), |_| {}).run();
        let f = only(&report, RuleId::LiveMappingHole);
        assert!(certain(f), "{arch}");
        assert!(f.message.contains("cpu 1 used"), "{}", f.message);
        // Its own CPU knows what it does.
        assert!(hole(arch, |s| fault(s, 0), |_| {}).run().findings.is_empty(), "{arch}");
        // Nobody there, nobody hurt.
        assert!(hole(arch, |_| {}, |_| {}).run().findings.is_empty(), "{arch}");
        // With everybody else stopped there is no hole.
        let stopped = |s: &mut Story| {
            s.emit(0, View::StopMachine { begin: false });
            s.emit(0, View::StopMachine { begin: true });
            fault(s, 1);
        };
        let mut s = Story::new(arch);
        s.leaf(0, AREA, P, 1, NONE, ROX);
        order(&mut s);
        s.emit(0, View::StopMachine { begin: true });
        s.call(0, "change", |s, _| {
            s.leaf(0, AREA, P, 1, ROX, NONE);
            flush(s);
            stopped(s);
            s.leaf(0, AREA, P, 1, NONE, RO);
            order(s);
        });
        assert!(!rules(&s.run()).contains(&RuleId::LiveMappingHole), "{arch}");
    }
}

/// A call of CPU 0 takes the entry of code away that CPU 1 runs, and `back` puts it there again.
fn taken_away_and_put_back(arch: Arch, back: impl Fn(&mut Story)) -> Report {
    let mut s = Story::new(arch);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    order(&mut s);
    s.fetch(1, AREA, P, 4);
    s.call(0, "change", |s, _| {
        s.leaf(0, AREA, P, 1, ROX, NONE);
        flush(s);
        back(s);
        order(s);
    });
    s.run()
}

#[test]
fn a_hole_under_a_cpu_that_executes_there_is_possible() {
    for arch in Arch::ALL {
        let report = taken_away_and_put_back(arch, |s| {
            s.leaf(0, AREA, P, 1, NONE, ROX);
        });
        assert!(!certain(only(&report, RuleId::LiveMappingHole)), "{arch}");
    }
}

/// Hashed tables of powerpc: the exception of the access that finds no entry makes it again. One
/// that whoever changes it puts back is a hole there as everywhere.
#[test]
fn what_is_made_again_on_demand_was_no_hole() {
    for (arch, on_demand) in [(Arch::Ppc64le, true), (Arch::Ppc64le, false), (Arch::Ppc32, true)] {
        let report = taken_away_and_put_back(arch, |s| {
            if on_demand {
                fault(s, 1);
                s.flags = Flags::ON_DEMAND;
                s.leaf(1, AREA, P, 1, NONE, ROX);
                s.flags = Flags::default();
            } else {
                s.leaf(0, AREA, P, 1, NONE, ROX);
            }
        });
        let found = rules(&report).contains(&RuleId::LiveMappingHole);
        assert_eq!(found, !on_demand, "{arch}");
    }
}
