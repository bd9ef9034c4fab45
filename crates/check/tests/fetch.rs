//! Fetch windows through events: the chain by architecture, readings, live patching, races.

mod common;

use common::*;
use textbed_arch::{
    Arch, CpuId, Features,
    effect::{Barrier, Reach},
};
use textbed_check::{
    Coverage, Finding, Mode, Options, Reading, Report, StepState, Window, rules::RuleId,
};
use textbed_event::{Facts, Flags, Kind, View};

const SYNC: RuleId = RuleId::MissingContextSync;

fn with_reading(reading: Reading) -> Options {
    Options { reading, ..Options::default() }
}

type Step = (&'static str, fn(&mut Story));

/// CPU 0 stores and maintains, CPU 1 learns of it, synchronises and runs it.
fn protocol(arch: Arch, features: Features) -> Vec<Step> {
    const STORE: Step = ("store", |s| {
        s.store(0, DM + P, P, &[1, 2, 3, 4, 5, 6, 7, 8]);
    });
    const CLEAN: Step = ("clean", |s| s.clean(0, DM + P, P));
    const IC: Step = ("ic", |s| s.icache(0, AREA, P));
    const PUBLISH: Step = ("publish", |s| s.publish(0, "entry"));
    const OBSERVE: Step = ("observe", |s| s.observe(1, "entry"));
    const SYNC: Step = ("sync", |s| s.sync(1));
    const DSB1: Step = ("barrier 1", |s| s.dsb(0));
    const DSB2: Step = ("barrier 2", |s| s.dsb(0));
    const SYNC1: Step = ("barrier 1", |s| s.barrier(0, Barrier::Sync));
    const SYNC2: Step = ("barrier 2", |s| s.barrier(0, Barrier::Sync));
    match arch {
        Arch::X86_64 => vec![STORE, PUBLISH, OBSERVE, SYNC],
        Arch::Arm64 if features.contains(DIC) => vec![STORE, PUBLISH, OBSERVE, SYNC],
        Arch::Arm64 if features.contains(IDC) => {
            vec![STORE, DSB1, IC, DSB2, PUBLISH, OBSERVE, SYNC]
        }
        Arch::Arm64 => vec![STORE, CLEAN, DSB1, IC, DSB2, PUBLISH, OBSERVE, SYNC],
        _ if features.contains(COHERENT) => vec![STORE, SYNC1, IC, SYNC2, PUBLISH, OBSERVE, SYNC],
        _ => vec![STORE, CLEAN, SYNC1, IC, SYNC2, PUBLISH, OBSERVE, SYNC],
    }
}

fn configurations() -> Vec<(Arch, Features)> {
    let base = |arch| Features::default_for(arch);
    vec![
        (Arch::X86_64, base(Arch::X86_64)),
        (Arch::Arm64, base(Arch::Arm64)),
        (Arch::Arm64, base(Arch::Arm64) | IDC),
        (Arch::Arm64, base(Arch::Arm64) | IDC | DIC),
        (Arch::Ppc64le, base(Arch::Ppc64le)),
        (Arch::Ppc64le, base(Arch::Ppc64le) - COHERENT),
        (Arch::Ppc32, base(Arch::Ppc32) - COHERENT),
    ]
}

fn run_without(arch: Arch, features: Features, dropped: &str, options: Options) -> Report {
    let mut s = patched_area(arch, Features::empty(), Features::empty());
    s.header.features = features;
    for (name, step) in protocol(arch, features) {
        if name != dropped {
            step(&mut s);
        }
    }
    s.fetch(1, AREA, P, 8);
    s.run_with(options)
}

#[test]
fn the_whole_protocol_is_clean_in_every_reading() {
    for (arch, features) in configurations() {
        for reading in Reading::ALL {
            let report = run_without(arch, features, "", with_reading(reading));
            assert!(report.findings.is_empty(), "{arch} {reading:?}: {:#?}", report.findings);
            assert_eq!(coverage(&report, SYNC), Coverage::Checked(1));
        }
    }
}

#[test]
fn each_step_that_is_missing_is_named() {
    for (arch, features) in configurations() {
        for (name, _) in protocol(arch, features) {
            // (rule, start of the operation that is missing, on which CPU, certain)
            let (rule, operation, cpu, sure) = match (name, arch) {
                ("store", _) => continue,
                ("clean", Arch::Arm64) => (MAINTENANCE, "dc cvau", 0, true),
                ("clean", _) => (MAINTENANCE, "dcbst", 0, true),
                ("ic", Arch::Arm64) => (MAINTENANCE, "ic ivau", 0, true),
                ("ic", _) => (MAINTENANCE, "icbi", 0, true),
                ("barrier 1" | "barrier 2", Arch::Arm64) => (MAINTENANCE, "dsb ish", 0, true),
                ("barrier 1" | "barrier 2", _) => (MAINTENANCE, "sync", 0, true),
                ("publish" | "observe", Arch::X86_64) => (ORDER, "reads-from", 0, false),
                ("publish" | "observe", Arch::Arm64) => (ORDER, "stlr", 0, false),
                ("publish" | "observe", _) => (ORDER, "", 0, false),
                // Whether it was executed before is not known on x86: possible.
                (_, Arch::X86_64) => (SYNC, "serialize", 1, false),
                (_, Arch::Arm64) => (SYNC, "isb", 1, true),
                (_, _) => (SYNC, "isync", 1, true),
            };
            let report = run_without(arch, features, name, Options::default());
            let f = only(&report, rule);
            assert!(f.missing[0].starts_with(operation), "{arch} -{name}: {:?}", f.missing);
            assert!(f.missing[0].ends_with(&format!("on cpu {cpu}")), "{:?}", f.missing);
            assert_eq!(certain(f), sure, "{arch} {features:?} -{name}: {f:#?}");
            assert_eq!(report.findings.len(), 1, "{arch} -{name}");
            let first = f.chain.iter().find(|s| s.state == StepState::Missing).unwrap();
            assert!(f.missing[0].starts_with(&first.operation));
            assert!(f.because.as_ref().is_some_and(|b| b.cpu == CpuId(0)));
        }
    }
}

#[test]
fn the_window_counts_versions() {
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    for byte in 1..=3 {
        s.store(0, DM + P, P, &[byte; 4]);
        s.dsb(0);
    }
    s.publish(0, "entry");
    s.observe(1, "entry");
    s.fetch(1, AREA, P, 4);
    let report = s.run();
    let Window::Fetch { low, high, virt, .. } = only(&report, MAINTENANCE).window else { panic!() };
    assert_eq!((low, high, virt.0), (0, 3, AREA));
}

#[test]
fn an_interrupt_from_the_writer_orders_and_synchronises() {
    for (arch, features) in configurations() {
        for by_interrupt in [true, false] {
            let mut s = patched_area(arch, Features::empty(), Features::empty());
            s.header.features = features;
            let steps = protocol(arch, features);
            let writer = steps.iter().take_while(|(name, _)| *name != "publish");
            writer.for_each(|(_, step)| step(&mut s));
            s.ipi(1, 0, 1, by_interrupt);
            s.fetch(1, AREA, P, 8);
            // A polling CPU picks it up without synchronising.
            let want: &[RuleId] = if by_interrupt { &[] } else { &[SYNC] };
            assert_eq!(rules(&s.run()), want, "{arch} {features:?} by interrupt {by_interrupt}");
        }
    }
}

#[test]
fn a_context_sync_that_nothing_orders_saves_the_run_only() {
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    for (name, step) in protocol(Arch::Arm64, Features::empty()) {
        match name {
            "observe" => s.sync(1),
            "sync" => s.observe(1, "entry"),
            _ => step(&mut s),
        }
    }
    s.fetch(1, AREA, P, 8);
    let (header, batch) = s.batch();
    let run = |mode| {
        let mut checker = textbed_check::Checker::new(Options { mode, ..Options::default() });
        let _ = textbed_event::Sink::begin(&mut checker, &header);
        let _ = textbed_event::Sink::batch(&mut checker, &batch);
        checker.finish()
    };
    let predicted = run(Mode::Predicted);
    let f = only(&predicted, SYNC);
    assert!(!certain(f));
    // The chain points at the second barrier and at the synchronisation that came too early.
    let sites: Vec<_> = f.chain.iter().filter_map(|s| Some(s.site.as_ref()?.kind)).collect();
    assert_eq!(sites, [Kind::Barrier, Kind::ContextSync]);
    assert!(f.notes.iter().any(|n| n.contains("saved in this run")), "{:?}", f.notes);
    assert!(run(Mode::Observed).findings.is_empty());
}

#[test]
fn without_synchronisation_in_the_stream_its_order_counts() {
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    s.header.facts -= Facts::SYNCHRONISATION;
    for (name, step) in protocol(Arch::Arm64, Features::empty()) {
        if name != "publish" && name != "observe" {
            step(&mut s);
        }
    }
    s.fetch(1, AREA, P, 8);
    let report = s.run();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert!(report.notes.iter().any(|n| n.contains("taken to have happened")));
    assert!(matches!(coverage(&report, ORDER), Coverage::NotCheckable(_)));
}

#[test]
fn code_that_becomes_executable_after_it_was_written_needs_no_sync_unless_strict() {
    for (arch, features) in configurations() {
        for reading in Reading::ALL {
            let mut s = Story::new(arch);
            s.header.features = features;
            s.leaf(0, AREA, P, 1, NONE, RW);
            let steps = protocol(arch, features);
            steps.iter().take_while(|(n, _)| *n != "publish").for_each(|(_, step)| step(&mut s));
            s.leaf(0, AREA, P, 1, RW, RO);
            s.tlb_all(0, Reach::Local);
            s.leaf(0, AREA, P, 1, RO, ROX);
            s.publish(0, "entry");
            s.observe(1, "entry");
            s.fetch(1, AREA, P, 8);
            let found = rules(&s.run_with(with_reading(reading)));
            let strict = reading == Reading::Strict;
            assert_eq!(found.contains(&SYNC), strict, "{arch} {features:?} {reading:?} {found:?}");
            assert!(!found.contains(&MAINTENANCE));
        }
    }
}

#[test]
fn an_address_that_was_executable_but_never_run_is_what_mapped_and_fresh_quarrel_about() {
    for (executed, reading, want) in [
        (false, Reading::Fresh, None),
        (false, Reading::Mapped, Some(false)),
        (true, Reading::Fresh, Some(true)),
        (true, Reading::Mapped, Some(true)),
    ] {
        let mut s = patched_area(Arch::X86_64, Features::empty(), Features::empty());
        if executed {
            s.fetch(1, AREA, P, 4);
        }
        s.store(0, DM + P, P, &[1, 2, 3, 4]);
        s.publish(0, "entry");
        s.observe(1, "entry");
        s.fetch(1, AREA, P, 4);
        let report = s.run_with(with_reading(reading));
        match want {
            None => assert!(report.findings.is_empty(), "{:#?}", report.findings),
            Some(sure) => assert_eq!(certain(only(&report, SYNC)), sure, "{executed} {reading:?}"),
        }
    }
}

#[test]
fn x86_own_stores() {
    // (address used, AMD, finding)
    for (virt, amd, found) in
        [(AREA, false, false), (DM + P, false, true), (DM + P, true, false), (AREA, true, false)]
    {
        let mut s = patched_area(Arch::X86_64, Features::empty(), Features::empty());
        s.header.features.set(Features::X86_AMD, amd);
        s.fetch(1, AREA, P, 8);
        s.store(1, virt, P, &[1, 2, 3, 4, 5]);
        s.fetch(1, AREA, P, 8);
        let report = s.run();
        assert_eq!(rules(&report) == [SYNC], found, "{virt:#x} AMD {amd}: {:#?}", report.findings);
    }
}

#[test]
fn x86_interrupt_entry_does_not_serialise_and_iret_does() {
    use textbed_arch::effect::SyncCause;
    for (cause, found) in [(SyncCause::ExceptionEntry, true), (SyncCause::ExceptionReturn, false)] {
        let mut s = patched_area(Arch::X86_64, Features::empty(), Features::empty());
        s.fetch(1, AREA, P, 4);
        s.store(0, DM + P, P, &[1, 2, 3, 4]);
        s.publish(0, "entry");
        s.observe(1, "entry");
        s.emit(1, View::ContextSync { cause });
        s.fetch(1, AREA, P, 4);
        assert_eq!(!s.run().findings.is_empty(), found, "{cause:?}");
    }
}

#[test]
fn x86_non_temporal_stores_need_a_fence() {
    for fence in [false, true] {
        let mut s = patched_area(Arch::X86_64, Features::empty(), Features::empty());
        s.flags = Flags::NONTEMPORAL;
        s.store(0, DM + P, P, &[1, 2, 3, 4]);
        s.flags = Flags::default();
        if fence {
            s.barrier(0, Barrier::Sfence);
        }
        s.publish(0, "entry");
        s.observe(1, "entry");
        s.sync(1);
        s.fetch(1, AREA, P, 4);
        let report = s.run();
        if fence {
            assert!(report.findings.is_empty(), "{:#?}", report.findings);
        } else {
            assert_eq!(only(&report, MAINTENANCE).missing, ["sfence on cpu 0"]);
        }
    }
}

#[test]
fn x86_one_byte_may_be_patched_live_and_five_may_not() {
    let found = |len: usize, cmodx: bool, amd: bool| {
        let mut s = patched_area(Arch::X86_64, Features::empty(), Features::empty());
        s.header.features.set(Features::X86_AMD, amd);
        s.fetch(1, AREA, P, 8);
        s.store(0, DM + P, P, &[0xcc; 8][..len]);
        s.fetch(1, AREA, P, 8);
        rules(&s.run_with(Options { cmodx, ..Options::default() }))
    };
    assert!(found(1, true, false).is_empty());
    assert_eq!(found(1, false, false), [ORDER]);
    assert_eq!(found(5, true, false), [ORDER, RuleId::TornPatch]);
    assert!(found(5, true, true).is_empty());
}

#[test]
fn x86_int3_protocol_is_clean() {
    let mut s = patched_area(Arch::X86_64, Features::empty(), Features::empty());
    s.fetch(1, AREA, P, 5);
    s.store(0, DM + P, P, &[0xcc]);
    s.fetch(1, AREA, P, 5);
    s.ipi(1, 0, 1, true);
    s.fetch(1, AREA, P, 1);
    s.store(0, DM + P + 1, P + 1, &[1, 2, 3, 4]);
    s.fetch(1, AREA, P, 1);
    s.ipi(2, 0, 1, true);
    s.store(0, DM + P, P, &[0xe9]);
    s.fetch(1, AREA, P, 5);
    s.ipi(3, 0, 1, true);
    s.fetch(1, AREA, P, 5);
    let report = s.run();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}

#[test]
fn x86_int3_protocol_without_its_second_interrupt() {
    let mut s = patched_area(Arch::X86_64, Features::empty(), Features::empty());
    s.fetch(1, AREA, P, 5);
    s.store(0, DM + P, P, &[0xcc]);
    s.ipi(1, 0, 1, true);
    s.store(0, DM + P + 1, P + 1, &[1, 2, 3, 4]);
    s.store(0, DM + P, P, &[0xe9]);
    s.fetch(1, AREA, P, 5);
    // At the store, whoever comes by; and at the fetch.
    assert_eq!(rules(&s.run()), [RuleId::TornPatch, ORDER, RuleId::TornPatch]);
}

/// Whoever ran a place while it was replaced, which was legal, ran the old or the new code there.
/// Once he learns that it is done the old one is too old, though nothing else happened.
#[test]
fn what_was_met_live_is_not_known_to_be_new() {
    for (arch, new) in [(Arch::X86_64, &[0xcc][..]), (Arch::Arm64, &0x1400_0004_u32.to_le_bytes())]
    {
        let story = |synced: bool, legal: bool| {
            let mut s = patched_area(arch, Features::empty(), Features::empty());
            s.fetch(1, AREA, P, 4);
            s.store(0, DM + P, P, if legal { new } else { &[1, 2, 3, 4] });
            if arch != Arch::X86_64 {
                s.clean(0, DM + P, P);
                s.dsb(0);
                s.icache(0, AREA, P);
                s.dsb(0);
            }
            s.fetch(1, AREA, P, 4);
            s.publish(0, "done");
            s.observe(1, "done");
            if synced {
                s.sync(1);
            }
            s.fetch(1, AREA, P, 4);
            s.run()
        };
        assert!(story(true, true).findings.is_empty(), "{arch}");
        assert_eq!(rules(&story(false, true)), [RuleId::MissingContextSync], "{arch}");
        // What was found before does not hide it either.
        assert!(rules(&story(false, false)).contains(&RuleId::MissingContextSync), "{arch}");
        assert!(!rules(&story(true, false)).contains(&RuleId::MissingContextSync), "{arch}");
    }
}

/// Code that is mapped when it is complete needs no synchronisation where a CPU meets it for the
/// first time. That says nothing about a store that races with it there: one that is not listed is
/// found at the first execution, and one that is listed is not taken for known by that.
#[test]
fn a_race_is_found_also_where_what_was_there_before_needs_no_synchronisation() {
    const NOP: u32 = 0xd503_201f;
    const BRANCH: u32 = 0x1400_0002;
    let maintained = |s: &mut Story| {
        s.clean(0, DM + P, P);
        s.dsb(0);
        s.icache(0, DM + P, P);
        s.dsb(0);
    };
    for (new, listed) in [(BRANCH, true), (0x5280_0540, false)] {
        for again in [None, Some(false), Some(true)] {
            let mut s = Story::new(Arch::Arm64);
            s.store(0, DM + P, P, &[0; 4]);
            s.store(0, DM + P, P, &NOP.to_le_bytes());
            maintained(&mut s);
            s.leaf(0, AREA, P, 1, NONE, ROX);
            s.dsb(0);
            s.publish(0, "entry");
            s.observe(1, "entry");
            s.store(0, DM + P, P, &new.to_le_bytes());
            s.fetch(1, AREA, P, 4);
            // Once more, before or behind the maintenance.
            if again == Some(true) {
                maintained(&mut s);
            }
            if again.is_some() {
                s.fetch(1, AREA, P, 4);
            }
            let found = rules(&s.run());
            let wanted = if listed { vec![] } else { vec![ORDER] };
            assert_eq!(found, wanted, "{new:#x} {again:?}");
        }
    }
}

#[test]
fn arm64_branches_may_be_patched_live_and_loads_may_not() {
    let found = |new: u32, cmodx: bool| {
        let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
        s.fetch(1, AREA, P, 4);
        s.store(0, DM + P, P, &new.to_le_bytes());
        s.clean(0, DM + P, P);
        s.dsb(0);
        s.icache(0, AREA, P);
        s.dsb(0);
        s.fetch(1, AREA, P, 4);
        s.run_with(Options { cmodx, ..Options::default() })
    };
    assert!(found(0x1400_0004, true).findings.is_empty()); // b
    assert!(found(0xd503_201f, true).findings.is_empty()); // nop
    let report = found(0xf940_0000, true); // ldr x0, [x0]
    assert!(certain(only(&report, ORDER)));
    assert!(certain(only(&found(0x1400_0004, false), ORDER)));
}

#[test]
fn a_stale_line_of_a_recycled_frame_is_a_version_too() {
    // CPU 1 ran other code in the frame, at another address, before it was freed.
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.fetch(1, AREA, P, 4);
    s.leaf(0, AREA, P, 1, ROX, NONE);
    s.barrier(0, Barrier::DsbStore);
    s.tlb_all(0, Reach::Broadcast);
    s.dsb(0);
    s.leaf(0, AREA + 0x8000, P, 1, NONE, RW);
    s.store(0, AREA + 0x8000, P, &[1, 2, 3, 4]);
    s.leaf(0, AREA + 0x8000, P, 1, RW, RO);
    s.barrier(0, Barrier::DsbStore);
    s.tlb_all(0, Reach::Broadcast);
    s.dsb(0);
    s.leaf(0, AREA + 0x8000, P, 1, RO, ROX);
    s.publish(0, "entry");
    s.observe(1, "entry");
    s.sync(1);
    s.fetch(1, AREA + 0x8000, P, 4);
    assert_eq!(rules(&s.run()), [MAINTENANCE]);
}

#[test]
fn another_frame_under_the_same_address_needs_a_sync() {
    for synchronised in [false, true] {
        let mut s = Story::new(Arch::Arm64);
        s.leaf(0, AREA, P, 1, NONE, ROX);
        s.fetch(1, AREA, P, 4);
        s.leaf(0, AREA, P, 1, ROX, NONE);
        s.barrier(0, Barrier::DsbStore);
        s.tlb_all(0, Reach::Broadcast);
        s.dsb(0);
        s.leaf(0, AREA, P + 0x1000, 1, NONE, ROX);
        if synchronised {
            s.sync(1);
        }
        s.fetch(1, AREA, P + 0x1000, 4);
        let report = s.run();
        match synchronised {
            true => assert!(report.findings.is_empty(), "{:#?}", report.findings),
            false => assert!(!certain(only(&report, SYNC))),
        }
    }
}

#[test]
fn equal_bytes_make_no_version() {
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    s.flags = Flags::EQUAL_BYTES;
    s.store(0, DM + P, P, &[1, 2, 3, 4]);
    s.flags = Flags::default();
    s.fetch(1, AREA, P, 4);
    assert!(s.run().findings.is_empty());
}

#[test]
fn a_grace_period_or_a_lock_is_an_edge() {
    type Edge = fn(&mut Story);
    let lock: Edge = |s| {
        let lock = s.rec.name("text_mutex");
        s.emit(0, View::LockReleased { lock });
        s.emit(1, View::LockAcquired { lock });
    };
    let grace: Edge = |s| {
        s.emit(1, View::GracePeriod { flavour: textbed_event::RcuFlavour::Tasks });
    };
    for (arch, features) in configurations() {
        for edge in [lock, grace] {
            let mut s = patched_area(arch, Features::empty(), Features::empty());
            s.header.features = features;
            for (name, step) in protocol(arch, features) {
                match name {
                    "publish" => edge(&mut s),
                    "observe" => {}
                    _ => step(&mut s),
                }
            }
            s.fetch(1, AREA, P, 8);
            let report = s.run();
            assert!(report.findings.is_empty(), "{arch}: {:#?}", report.findings);
        }
    }
}

#[test]
fn those_who_share_a_lock_learn_nothing_from_each_other() {
    for (arch, features) in configurations() {
        for (released, taken) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut s = patched_area(arch, Features::empty(), Features::empty());
            s.header.features = features;
            for (name, step) in protocol(arch, features) {
                match name {
                    "publish" => {
                        let lock = s.rec.name("cpu_hotplug_lock");
                        let shared = |yes| if yes { Flags::SHARED } else { Flags::default() };
                        s.flags = shared(released);
                        s.emit(0, View::LockReleased { lock });
                        s.flags = shared(taken);
                        s.emit(1, View::LockAcquired { lock });
                        s.flags = Flags::default();
                    }
                    "observe" => {}
                    _ => step(&mut s),
                }
            }
            s.fetch(1, AREA, P, 8);
            let report = s.run();
            let edge = !(released && taken);
            assert_eq!(report.findings.is_empty(), edge, "{arch} {released} {taken}");
        }
    }
}

#[test]
fn a_copy_loop_is_one_version_and_each_line_is_looked_at() {
    // 256 bytes in 8-byte stores; the third of four lines is not cleaned.
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    for at in (0..256).step_by(8) {
        s.store(0, DM + P + at, P + at, &[7; 8]);
    }
    for line in [0, 64, 192] {
        s.clean(0, DM + P + line, P + line);
    }
    s.dsb(0);
    for line in [0, 64, 128, 192] {
        s.icache(0, AREA + line, P + line);
    }
    s.dsb(0);
    s.publish(0, "entry");
    s.observe(1, "entry");
    s.sync(1);
    s.fetch(1, AREA, P, 128);
    s.fetch(1, AREA + 128, P + 128, 64);
    s.fetch(1, AREA + 192, P + 192, 64);
    let report = s.run();
    let f: &Finding = only(&report, MAINTENANCE);
    assert_eq!(f.at.virt.map(|v| v.0), Some(AREA + 128));
    assert_eq!(f.count, 1);
}

#[test]
fn a_source_that_records_no_maintenance_is_not_judged() {
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    s.header.facts -= Facts::MAINTENANCE;
    s.store(0, DM + P, P, &[1, 2, 3, 4]);
    s.fetch(1, AREA, P, 4);
    let report = s.run();
    assert!(report.findings.is_empty());
    for rule in [MAINTENANCE, SYNC] {
        assert!(matches!(coverage(&report, rule), Coverage::NotCheckable(_)));
    }
}

#[test]
fn a_loop_over_old_code_is_one_finding() {
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    s.store(0, DM + P, P, &[1, 2, 3, 4]);
    s.publish(0, "entry");
    s.observe(1, "entry");
    for _ in 0..1000 {
        s.fetch(1, AREA, P, 4);
    }
    let report = s.run();
    assert_eq!(only(&report, MAINTENANCE).count, 1);
}

#[test]
fn a_promise_of_no_stale_code_is_a_promise_to_every_cpu() {
    use textbed_event::Promise;
    for (interrupts, kept) in [(true, true), (false, false)] {
        let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
        s.fetch(1, AREA, P, 8);
        s.call(0, "patch", |s, call| {
            let steps = protocol(Arch::Arm64, Features::empty());
            steps.iter().take_while(|(n, _)| *n != "publish").for_each(|(_, step)| step(s));
            s.sync(0);
            if interrupts {
                s.ipi(1, 0, 1, true);
            }
            s.promise(0, call, Promise::NoStaleCode, AREA, 8);
        });
        let report = s.run();
        if kept {
            assert!(report.findings.is_empty(), "{:#?}", report.findings);
        } else {
            let f = only(&report, RuleId::BrokenPromise);
            assert!(f.message.contains("cpu 1"), "{}", f.message);
            assert_eq!(f.blame, textbed_check::Blame::Callee);
        }
    }
}

#[test]
fn arm64_an_invalidation_of_everything_counts_where_it_reaches() {
    // B2.7.4: IC IALLU acts on its own CPU, IC IALLUIS on all; HCR_EL2.FB makes the one the other.
    use textbed_arch::effect::CacheScope;
    for mode in Mode::ALL {
        for (reach, runs_on, fb, found) in [
            (Reach::Broadcast, 1, false, false),
            (Reach::Local, 1, false, true),
            (Reach::Local, 1, true, false),
            (Reach::Local, 0, false, false),
        ] {
            let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
            s.header.features.set(Features::ARM_FB, fb);
            s.fetch(runs_on, AREA, P, 8);
            s.store(0, DM + P, P, &[1, 2, 3, 4, 5, 6, 7, 8]);
            s.clean(0, DM + P, P);
            s.dsb(0);
            let (virt, phys) = (textbed_arch::VirtAddr(0), textbed_arch::PhysAddr(0));
            s.emit(0, View::IcacheInvalidate { scope: CacheScope::All, reach, virt, phys });
            s.dsb(0);
            s.publish(0, "entry");
            if runs_on == 1 {
                s.observe(1, "entry");
            }
            s.sync(runs_on);
            s.fetch(runs_on, AREA, P, 8);
            let report = s.run_with(Options { mode, ..Options::default() });
            let what = format!("{mode:?} {reach:?} runs on {runs_on}, FB {fb}");
            if found {
                let f = only(&report, MAINTENANCE);
                assert!(f.missing[0].starts_with("ic ivau"), "{what}: {:?}", f.missing);
            } else {
                assert!(report.findings.is_empty(), "{what}: {:#?}", report.findings);
            }
        }
    }
}
