//! Observed against predicted, over random programs of two CPUs and two lines.

mod common;

use common::*;
use proptest::prelude::*;
use textbed_arch::{Arch, Features, effect::Barrier};
use textbed_check::rules::Family;
use textbed_check::{Finding, Mode, Options, Reading};

/// One step: what, on which CPU, on which line.
fn step(s: &mut Story, (what, cpu, line): (u8, u16, u64)) {
    let at = line * 64;
    match what {
        0 | 1 => {
            s.store(cpu, DM + P + at, P + at, &[1, 2, 3, 4]);
        }
        2 => s.clean(cpu, DM + P + at, P + at),
        3 => s.icache(cpu, AREA + at, P + at),
        4 | 5 => s.barrier(cpu, full(s.arch())),
        6 => s.barrier(
            cpu,
            if s.arch() == Arch::Arm64 { Barrier::DmbStore } else { Barrier::Lwsync },
        ),
        7 => s.sync(cpu),
        8 => s.publish(cpu, "flag"),
        9 => s.observe(cpu, "flag"),
        _ => s.fetch(cpu, AREA + at, P + at, 4),
    }
}

fn full(arch: Arch) -> Barrier {
    match arch {
        Arch::X86_64 => Barrier::Mfence,
        Arch::Arm64 => Barrier::DsbFull,
        _ => Barrier::Sync,
    }
}

fn story(arch: usize, features: u64, steps: &[(u8, u16, u64)]) -> Story {
    let arch = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le][arch];
    let mut s = Story::new(arch);
    let all =
        Features::ARM_IDC | Features::ARM_DIC | Features::PPC_COHERENT_ICACHE | Features::X86_AMD;
    s.header.features = (s.header.features - all) | (Features::from_bits_retain(features) & all);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    steps.iter().for_each(|st| step(&mut s, *st));
    s
}

/// Features drawn so that every combination that decides a rule comes up.
fn features() -> impl Strategy<Value = u64> {
    let bits =
        [Features::ARM_IDC, Features::ARM_DIC, Features::PPC_COHERENT_ICACHE, Features::X86_AMD];
    prop::bits::u8::between(0, 4)
        .prop_map(move |n| (0..4).filter(|i| n & (1 << i) != 0).map(|i| bits[i].bits()).sum())
}

fn steps() -> impl Strategy<Value = Vec<(u8, u16, u64)>> {
    prop::collection::vec((0u8..12, 0u16..2, 0u64..2), 0..40)
}

fn options(mode: Mode) -> Options {
    Options { mode, cmodx: false, reading: Reading::Strict, ..Options::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Real edges are edges of the stream: what the order of the stream leaves open is open.
    #[test]
    fn what_is_observed_is_predicted(arch in 0usize..3, features in features(), steps in steps()) {
        let mut s = story(arch, features, &steps);
        s.fetch(1, AREA, P, 4);
        let mut t = story(arch, features, &steps);
        t.fetch(1, AREA, P, 4);
        let at_the_end = |report: &textbed_check::Report| {
            report.findings.iter().any(|f| f.at.seq + 1 == report.events)
        };
        let observed = s.run_with(options(Mode::Observed));
        let predicted = t.run_with(options(Mode::Predicted));
        // Equal findings are merged under the first event: count all of them, also those that are
        // less sure than the others of their finding. What is said of a window may differ (a race
        // is no maintenance beside the store), so windows alone count.
        let side = |f: &&Finding| f.rule.row().family == Family::InstructionSide;
        let count = |r: &textbed_check::Report| {
            r.findings.iter().filter(side).map(|f| f.count + f.less_sure).sum::<u64>()
        };
        if at_the_end(&observed) {
            prop_assert!(count(&predicted) > 0, "{:#?}", observed.findings);
        }
        prop_assert!(count(&predicted) >= count(&observed));
    }

    /// After the whole protocol nothing is left open, whatever was done before.
    #[test]
    fn the_protocol_closes_the_window(
        arch in 0usize..3,
        features in features(),
        steps in steps(),
        observed in any::<bool>(),
    ) {
        let mode = if observed { Mode::Observed } else { Mode::Predicted };
        let before = story(arch, features, &steps).run_with(options(mode));
        let mut s = story(arch, features, &steps);
        let barrier = full(s.arch());
        // Nobody else touches the line from here on, and nothing is left over from before.
        s.barrier(1, barrier);
        s.publish(1, "start");
        s.observe(0, "start");
        s.store(0, DM + P, P, &[9, 9, 9, 9]);
        s.clean(0, DM + P, P);
        s.barrier(0, barrier);
        s.icache(0, AREA, P);
        s.barrier(0, barrier);
        s.publish(0, "done");
        s.observe(1, "done");
        s.sync(1);
        s.fetch(1, AREA, P, 4);
        let after = s.run_with(options(mode));
        prop_assert_eq!(before.findings, after.findings);
    }
}
