//! Fetch windows through events: the chain by architecture, readings, live patching, races.

#[path = "../common/mod.rs"]
mod common;
mod live;
mod versions;
mod x86;

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
                ("publish" | "observe", Arch::X86_64) => (ORDER, "reads-from", 1, false),
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
