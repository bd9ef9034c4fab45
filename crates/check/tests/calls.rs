//! Rules about calls, contents and freed frames.

mod common;

use common::*;
use textbed_arch::{Arch, CpuId, effect::Reach};
use textbed_check::{Blame, Coverage, Window, rules::RuleId};
use textbed_event::{Facts, Flags, Promise, View};

const LEN: u64 = 0x4000;

#[test]
fn a_refusal_of_a_huge_mapping_and_the_error_that_nobody_looked_at() {
    let mut s = Story::new(Arch::Ppc64le);
    s.region(AREA, 2 << 20, "bpf", "pack");
    s.huge_leaf(0, AREA, 0x4000_0000, 21, 1, RW);
    let call = s.enter(0, "make_executable");
    s.refuse(0, call, Promise::Exec, AREA, 2 << 20);
    s.leave(0, call, -22);
    s.emit(0, View::ResultDropped { call });
    let report = s.run();
    let refused = only(&report, RuleId::HugeMappingRefused);
    assert!(certain(refused) && refused.blame == Blame::Caller);
    assert!(refused.message.contains("'make_executable'") && refused.message.contains("2 MiB"));
    assert!(refused.notes.iter().any(|n| n.contains("stays rw-")), "{:?}", refused.notes);
    assert!(refused.notes.iter().any(|n| n.contains("cannot be executed")));
    assert_eq!(refused.at.symbol.as_deref(), Some("bpf pack+0x0"));
    let ignored = only(&report, RuleId::IgnoredError);
    assert!(certain(ignored) && ignored.message.contains("-EINVAL"));
    assert!(ignored.notes[0].contains("they stay rw-"), "{:?}", ignored.notes);
    assert_eq!(report.findings.len(), 2);
}

#[test]
fn a_result_that_is_looked_at_is_not_ignored() {
    let mut s = Story::new(Arch::Arm64);
    let failing = s.enter(0, "f");
    s.leave(0, failing, -12);
    s.emit(0, View::ResultUsed { call: failing });
    s.emit(0, View::ResultDropped { call: failing });
    let working = s.enter(0, "f");
    s.leave(0, working, 0);
    s.emit(0, View::ResultDropped { call: working });
    let report = s.run();
    assert!(report.findings.is_empty());
    assert_eq!(coverage(&report, RuleId::IgnoredError), Coverage::Checked(2));
}

#[test]
fn without_knowing_the_use_of_results_nothing_is_said() {
    let mut s = Story::new(Arch::Arm64);
    s.header.facts -= Facts::RESULT_USE;
    let call = s.enter(0, "f");
    s.leave(0, call, -12);
    s.emit(0, View::ResultDropped { call });
    let report = s.run();
    assert!(report.findings.is_empty());
    assert!(matches!(coverage(&report, RuleId::IgnoredError), Coverage::NotCheckable(_)));
}

#[test]
fn a_refusal_inside_an_inner_call_reaches_the_outer_ones_failure() {
    let mut s = Story::new(Arch::Ppc64le);
    let outer = s.enter(0, "outer");
    let inner = s.enter(0, "inner");
    s.refuse(0, inner, Promise::NoWrite, AREA, LEN);
    s.leave(0, inner, -22);
    s.emit(0, View::ResultUsed { call: inner });
    s.leave(0, outer, -22);
    s.emit(0, View::ResultDropped { call: outer });
    let report = s.run();
    let ignored = only(&report, RuleId::IgnoredError);
    assert!(ignored.message.contains("'outer'"));
    assert_eq!(ignored.notes.len(), 1);
}

#[test]
fn a_refusal_is_a_finding_only_where_nobody_answers_for_it() {
    // (inner looked at, outer's result: None = no outer call, outer looked at, reported)
    let cases = [
        (true, None, false, false),
        (false, None, false, true),
        (true, Some(0), false, false),
        (true, Some(-22), true, false),
        (true, Some(-22), false, true),
        (false, Some(0), true, true),
    ];
    for (inner_used, outer_value, outer_used, reported) in cases {
        let mut s = Story::new(Arch::Ppc64le);
        s.huge_leaf(0, AREA, 0x4000_0000, 21, 1, RW);
        let outer = outer_value.map(|_| s.enter(0, "outer"));
        let inner = s.enter(0, "inner");
        s.refuse(0, inner, Promise::NoWrite, AREA, 2 << 20);
        s.leave(0, inner, -22);
        let looked = |used, call| match used {
            true => View::ResultUsed { call },
            false => View::ResultDropped { call },
        };
        s.emit(0, looked(inner_used, inner));
        if let (Some(outer), Some(value)) = (outer, outer_value) {
            s.leave(0, outer, value);
            s.emit(0, looked(outer_used, outer));
        }
        let found = s.run().findings.iter().any(|f| f.rule == RuleId::HugeMappingRefused);
        assert_eq!(found, reported, "{inner_used} {outer_value:?} {outer_used}");
    }
}

#[test]
fn promises_are_compared_with_the_tables() {
    // (promise, what the tables say, broken)
    let cases = [
        (Promise::NoWrite, RW, true),
        (Promise::NoWrite, RO, false),
        (Promise::NoWrite, NONE, false),
        (Promise::NoExec, ROX, true),
        (Promise::NoExec, RO, false),
        (Promise::NoAccess, RO, true),
        (Promise::NoAccess, NONE, false),
        (Promise::Write, RO, true),
        (Promise::Write, NONE, true),
        (Promise::Write, RW, false),
        (Promise::Exec, RO, true),
        (Promise::Exec, ROX, false),
        (Promise::ReadOnlyExec, ROX, false),
        (Promise::ReadOnlyExec, RO, true),
        (Promise::ReadOnlyExec, RWX, true),
    ];
    for (what, perm, broken) in cases {
        let mut s = Story::new(Arch::X86_64);
        s.leaf(0, AREA, P, 3, NONE, RO);
        // The last page only.
        s.leaf(0, AREA, P, 3, RO, if broken { good(what) } else { perm });
        s.leaf(0, AREA + 0x3000, P + 0x3000, 1, NONE, perm);
        s.tlb_all(0, Reach::Local);
        s.tlb_all(1, Reach::Local);
        s.call(0, "promise", |s, call| s.promise(0, call, what, AREA, LEN));
        let report = s.run();
        let found = rules(&report).contains(&RuleId::BrokenPromise);
        assert_eq!(found, broken, "{what:?} over {}: {:#?}", perm.letters(), report.findings);
        if broken {
            let f = only(&report, RuleId::BrokenPromise);
            assert_eq!(f.blame, Blame::Callee);
            assert!(f.message.contains("4 KiB"), "{}", f.message);
        }
    }
}

/// What keeps a promise.
fn good(what: Promise) -> textbed_arch::Perm {
    match what {
        Promise::Write => RW,
        Promise::NoAccess => NONE,
        Promise::Exec | Promise::ReadOnlyExec => ROX,
        _ => RO,
    }
}

#[test]
fn a_promise_is_broken_by_a_translation_that_one_cpu_still_holds() {
    let mut s = Story::new(Arch::X86_64);
    s.leaf(0, AREA, P, 4, NONE, RW);
    s.call(0, "make_read_only", |s, call| {
        s.leaf(0, AREA, P, 4, RW, RO);
        s.tlbi(0, Reach::Local, AREA, LEN);
        s.promise(0, call, Promise::NoWrite, AREA, LEN);
    });
    let report = s.run();
    let f = only(&report, RuleId::StaleTranslation);
    assert!(certain(f) && f.blame == Blame::Callee);
    assert_eq!(f.missing, ["invlpg for cpu 1"]);
    let Window::Translation { cpu, granted, tables, .. } = f.window else { panic!() };
    assert_eq!((cpu, granted, tables), (CpuId(1), "rw-", "r--"));
    assert_eq!(report.findings.len(), 1);
}

/// A right that was given and promised, where CPUs may still hold the narrower entry: on arm64 an
/// access by that faults until it is invalidated, elsewhere the tables are read again.
#[test]
fn a_promised_right_may_still_be_refused_on_arm64() {
    let cases = [(Promise::Exec, RO, ROX), (Promise::Write, RO, RW), (Promise::NoWrite, RO, ROX)];
    for arch in Arch::ALL {
        for (what, old, new) in cases {
            for flushed in [false, true] {
                let mut s = Story::new(arch);
                s.leaf(0, AREA, P, 4, NONE, old);
                let step = |s: &mut Story| {
                    s.dsb(0);
                    s.sync(0);
                };
                step(&mut s);
                s.call(0, "change", |s, call| {
                    s.leaf(0, AREA, P, 4, old, new);
                    step(s);
                    if flushed {
                        [0, 1].into_iter().for_each(|cpu| s.tlb_all(cpu, Reach::Local));
                        s.tlb_all(0, Reach::Broadcast);
                        step(s);
                    }
                    s.promise(0, call, what, AREA, LEN);
                });
                let report = s.run();
                let found = rules(&report).contains(&RuleId::StaleTranslation);
                let wanted = arch == Arch::Arm64 && !flushed && what != Promise::NoWrite;
                assert_eq!(found, wanted, "{arch} {what:?} {flushed}: {:#?}", report.findings);
                if found {
                    let f = only(&report, RuleId::StaleTranslation);
                    assert!(certain(f) && f.notes.iter().any(|n| n.contains("it refuses")));
                    let Window::Translation { granted, .. } = f.window else { panic!() };
                    assert_eq!(granted, "r--");
                }
            }
        }
    }
}

/// What CPUs hold of another frame is no matter of a right that the new one has.
#[test]
fn an_old_translation_to_another_frame_refuses_nothing_that_was_promised() {
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, AREA, P, 1, NONE, RO);
    s.dsb(0);
    s.leaf(0, AREA, P, 1, RO, NONE);
    s.dsb(0);
    s.call(0, "map", |s, call| {
        s.leaf(0, AREA, P + 0x1000, 1, NONE, ROX);
        s.dsb(0);
        s.sync(0);
        s.promise(0, call, Promise::Exec, AREA, 0x1000);
    });
    assert!(!rules(&s.run()).contains(&RuleId::StaleTranslation));
}

#[test]
fn bytes_that_nobody_wrote_are_executable() {
    for arch in Arch::ALL {
        let mut s = Story::new(arch);
        s.alloc(0, P, 4, false);
        s.leaf(0, AREA, P, 4, NONE, RW);
        s.store(0, AREA + 64, P + 64, &[0x90; 32]);
        s.leaf(0, AREA, P, 4, RW, RO);
        s.tlb_all(0, Reach::Local);
        s.call(0, "make_executable", |s, _| {
            s.leaf(0, AREA, P, 4, RO, ROX);
        });
        let report = s.run();
        let f = only(&report, RuleId::MissingTrapFill);
        assert!(certain(f), "{arch}");
        assert!(f.message.contains("16352 bytes in 2 places"), "{arch}: {}", f.message);
    }
}

#[test]
fn a_filled_range_is_no_finding_and_zeros_are_one_only_where_they_run() {
    for arch in Arch::ALL {
        for zeroed in [false, true] {
            let mut s = Story::new(arch);
            s.alloc(0, P, 4, zeroed);
            s.leaf(0, AREA, P, 4, NONE, RO);
            if !zeroed {
                s.fill(0, DM + P, P, LEN, &[0xcc]);
            }
            s.call(0, "make_executable", |s, _| {
                s.leaf(0, AREA, P, 4, RO, ROX);
            });
            let found = rules(&s.run()).contains(&RuleId::MissingTrapFill);
            assert_eq!(found, zeroed && arch == Arch::X86_64, "{arch} zeroed {zeroed}");
        }
    }
}

#[test]
fn filled_before_the_call_returns_is_in_time() {
    let mut s = Story::new(Arch::X86_64);
    s.alloc(0, P, 4, false);
    s.call(0, "allocate_executable", |s, _| {
        s.leaf(0, AREA, P, 4, NONE, ROX);
        s.fill(0, DM + P, P, LEN, &[0xcc]);
    });
    assert!(s.run().findings.is_empty());
}

#[test]
fn frames_nobody_saw_handed_out_are_not_judged() {
    let mut s = Story::new(Arch::X86_64);
    s.leaf(0, AREA, P, 4, NONE, ROX);
    assert!(s.run().findings.is_empty());
}

#[test]
fn executable_frames_that_go_back() {
    // Mapped still, held by a TLB only, or gone everywhere.
    for (unmap, flush, want) in
        [(false, false, Some(true)), (true, false, Some(false)), (true, true, None)]
    {
        let mut s = Story::new(Arch::X86_64);
        s.alloc(0, P, 1, true);
        s.fill(0, DM + P, P, 0x1000, &[0xcc]);
        s.leaf(0, AREA, P, 1, NONE, ROX);
        if unmap {
            s.leaf(0, AREA, P, 1, ROX, NONE);
        }
        if flush {
            s.tlb_all(0, Reach::Local);
            s.tlb_all(1, Reach::Local);
        }
        s.free(0, P, 1);
        let report = s.run();
        match want {
            Some(sure) => assert_eq!(certain(only(&report, RuleId::ExecAfterFree)), sure),
            None => assert!(report.findings.is_empty(), "{:#?}", report.findings),
        }
    }
}

#[test]
fn code_that_runs_in_a_free_frame() {
    let mut s = Story::new(Arch::Arm64);
    s.alloc(0, P, 1, true);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.leaf(0, AREA, P, 1, ROX, NONE);
    s.free(0, P, 1);
    s.fetch(1, AREA + 8, P + 8, 4);
    s.fetch(1, AREA + 8, P + 8, 4);
    let report = s.run();
    let used: Vec<_> =
        report.findings.iter().filter(|f| f.message.contains("is executed in a frame")).collect();
    assert_eq!(used.len(), 1);
    assert!(certain(used[0]) && used[0].at.cpu == CpuId(1));
}

#[test]
fn equal_faults_are_counted_and_addresses_do_not_matter() {
    let story = |base: u64| {
        let mut s = Story::new(Arch::X86_64);
        s.region(base, 0x4000, "module", "m");
        for _ in 0..3 {
            s.call(0, "make_executable", |s, _| {
                s.leaf(0, base, P, 1, RW, RWX);
            });
            s.call(0, "undo", |s, _| {
                s.leaf(0, base, P, 1, RWX, NONE);
            });
            s.tlb_all(0, Reach::Local);
            s.tlb_all(1, Reach::Local);
        }
        s.run()
    };
    let (a, b) = (story(AREA), story(AREA + 0x100_0000));
    let (fa, fb) = (only(&a, RuleId::WxMapping), only(&b, RuleId::WxMapping));
    assert_eq!((fa.count, &fa.fingerprint), (3, &fb.fingerprint));
    assert_ne!(fa.message, fb.message);
}

/// The home of a frame went away and came back, as vfree has it, while an old translation leads
/// there: what is promised of the frame is broken by that, not by the home.
#[test]
fn a_home_that_came_back_is_a_home() {
    for stale in [false, true] {
        let mut s = Story::new(Arch::X86_64);
        s.leaf(0, DM + P, P, 1, NONE, RW);
        s.leaf(0, AREA, P, 1, NONE, RW);
        let call = s.enter(0, "free");
        s.leaf(0, AREA, P, 1, RW, NONE);
        s.leaf(0, DM + P, P, 1, RW, NONE);
        for cpu in [0, 1] {
            s.tlbi(cpu, Reach::Local, DM + P, 0x1000);
        }
        s.leaf(0, DM + P, P, 1, NONE, RW);
        if !stale {
            for cpu in [0, 1] {
                s.tlbi(cpu, Reach::Local, AREA, 0x1000);
            }
        }
        s.flags = s.flags.with(Flags::BY_PHYS);
        s.promise(0, call, Promise::NoAccess, P, 0x1000);
        s.flags = Flags::default();
        s.leave(0, call, 0);
        let found = rules(&s.run());
        assert_eq!(found, if stale { vec![RuleId::StaleTranslation] } else { vec![] });
    }
}

/// A patcher's alias in an address space of its own: who has left that holds translations of it and
/// cannot use them.
#[test]
fn what_is_held_of_a_space_that_is_not_loaded_reaches_nothing() {
    const ALIAS: u64 = 0x5555_5555_4000;
    for left in [false, true] {
        let mut s = Story::new(Arch::X86_64);
        s.leaf(0, DM + P, P, 1, NONE, RW);
        s.load_space(1, 5, 7);
        s.in_space(5, |s| {
            s.leaf(1, ALIAS, P, 1, NONE, RW);
            s.leaf(1, ALIAS, P, 1, RW, NONE);
        });
        if left {
            s.load_space(1, 0, 0);
        }
        let call = s.enter(0, "free");
        s.flags = s.flags.with(Flags::BY_PHYS);
        s.promise(0, call, Promise::NoAccess, P, 0x1000);
        s.flags = Flags::default();
        s.leave(0, call, 0);
        let found = rules(&s.run());
        assert_eq!(found, if left { vec![] } else { vec![RuleId::StaleTranslation] });
    }
}
