//! What the checker says of a run that was free: the same as of one that was stepped.
//!
//! CPU 0 changes code that CPU 1 executed, sums up data of its own before and behind it, and sets a
//! flag that CPU 1 waits for. Each link of the chain may be missing.

#![allow(clippy::unwrap_used)]

mod bed;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bed::{ALIAS, ARCHES, Bed, CODE, CPU0, CPU1, DATA, PAGE, newest, stalest};
use textbed_arch::Arch;
use textbed_check::{Checker, Options};
use textbed_event::Sink;
use textbed_machine::Step;

/// Which links are there: maintenance by CPU 0, synchronisation by CPU 1.
type Links = (bool, bool);

/// Rule, confidence and what is missing, of every finding; what CPU 1 returned; events.
type Said = (BTreeSet<(String, String, Vec<String>)>, Step, usize);

fn story(mut bed: Bed, (maintains, synchronises): Links) -> Said {
    let mut install = |name| bed.install(name);
    let (ret42, store, sync) = (install("ret42"), install("store_word"), install("cachesync"));
    let (sum, publish) = (install("sum_loop"), install("publish_word"));
    let reader = install(if synchronises { "reader_wait" } else { "reader_nosync" });
    let (flag, own) = (bed.at(DATA, 0), bed.at(DATA, PAGE));
    let alias = ret42 - bed.at(CODE, 0) + bed.at(ALIAS, 0);
    let new = match bed.arch() {
        Arch::X86_64 => bed.word(ret42) ^ (42 ^ 43) << 8,
        Arch::Arm64 => bed.word(ret42) ^ (42 ^ 43) << 5,
        _ => bed.word(ret42) ^ (42 ^ 43),
    };
    for cpu in [CPU0, CPU1] {
        assert_eq!(bed.call_on(cpu, ret42, &[]).end, Step::Returned(42));
    }
    let turn = |bed: &mut Bed, cpu| match bed.slice {
        Some(slice) => bed.run_free(cpu, slice),
        None => (0..20).fold(Step::Ran, |step, _| match step {
            Step::Ran => bed.step(cpu),
            end => end,
        }),
    };
    let mut end = Step::Ran;
    if synchronises {
        bed.start(CPU1, reader, &[flag, ret42]);
        end = turn(&mut bed, CPU1);
    }
    let sum_up = |bed: &mut Bed| drop(bed.call_on(CPU0, sum, &[own, 40]));
    for _ in 0..2 {
        sum_up(&mut bed);
    }
    bed.run(store, &[alias, new.into()]);
    sum_up(&mut bed);
    if maintains {
        bed.run(sync, &[alias]);
    }
    sum_up(&mut bed);
    bed.run(publish, &[flag, 1]);
    if !synchronises {
        bed.start(CPU1, reader, &[flag, ret42]);
    }
    while end == Step::Ran {
        end = turn(&mut bed, CPU1);
    }
    let mut checker = Checker::new(Options::default());
    let header = bed.m.header();
    let batch = bed.events();
    assert_eq!(checker.begin(&header), ControlFlow::Continue(()));
    assert_eq!(checker.batch(&batch), ControlFlow::Continue(()));
    let findings = checker.finish().findings.into_iter();
    let said =
        findings.map(|f| (format!("{:?}", f.rule), format!("{:?}", f.confidence), f.missing));
    (said.collect(), end, batch.events.len())
}

#[test]
fn free_runs_have_the_findings_of_stepped_ones() {
    for arch in ARCHES {
        let mut sets = BTreeSet::new();
        for links in [(true, true), (true, false), (false, true), (false, false)] {
            for make in [newest, stalest] {
                let stepped = story(make(arch), links);
                let free = story(make(arch).freely(), links);
                assert_eq!(stepped.0, free.0, "{arch} {links:?}");
                assert_eq!(stepped.1, free.1, "{arch} {links:?}");
                assert!(free.2 < stepped.2, "{arch} {links:?}: it did run freely");
                sets.insert(stepped.0);
            }
        }
        // On powerpc, whose instruction caches are coherent here, the same is missing in all.
        assert!(
            sets.len() > 1 || arch.is_powerpc(),
            "{arch}: it makes a difference what is missing"
        );
    }
}
