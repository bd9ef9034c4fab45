//! CPUs interleaved instruction by instruction: atomics stay atomic, plain code does not.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{ARCHES, Bed, CPU0, CPU1, DATA, newest};
use textbed_arch::{Arch, VirtAddr};
use textbed_event::{Kind, MemOrder};
use textbed_machine::Step;

/// Steps both CPUs in turns given by the bits of `pattern` (repeating, lowest first), until both
/// have returned; their results and the number of steps.
fn interleave(bed: &mut Bed, pattern: u32) -> ([u64; 2], u64) {
    let (arch, mut n) = (bed.arch(), 0);
    let mut turn = |ready: &[usize]| {
        let cpu = (pattern >> (n % 32) & 1) as usize;
        n += 1;
        ready.iter().position(|r| *r == cpu).unwrap_or(0)
    };
    let ends = bed.together(&mut turn, 100_000);
    let results = [0, 1].map(|cpu| match &ends[cpu].end {
        Step::Returned(value) => *value,
        other => panic!("{arch}: {other:?}"),
    });
    (results, ends.iter().map(|e| e.steps).sum())
}

const PATTERNS: [u32; 6] =
    [0xaaaa_aaaa, 0xcccc_cccc, 0xf0f0_f0f0, 0x1248_1248, 0xb5ad_4ece, 0x7fff_0001];

#[test]
fn atomic_increments_are_never_lost() {
    for arch in ARCHES {
        let mut retried = false;
        for pattern in PATTERNS {
            let mut bed = newest(arch);
            let f = bed.install("atomic_inc");
            let counter = bed.at(DATA, 0);
            let uncontended = bed.call_on(CPU0, f, &[counter, 40]).steps;
            bed.set_word(counter, 0);
            bed.start(CPU0, f, &[counter, 40]);
            bed.start(CPU1, f, &[counter, 40]);
            bed.forget_events();
            let (results, steps) = interleave(&mut bed, pattern);
            let events = bed.events();
            let stores = events.events.iter().filter(|e| e.kind == Kind::Store).count();
            assert_eq!(stores, 80, "{arch}: a failed conditional store is no store");
            assert_eq!(results, [40, 40], "{arch}");
            assert_eq!(bed.word(counter), 80, "{arch} {pattern:#x}");
            retried |= steps > 2 * uncontended;
        }
        let by_reservation = arch != Arch::X86_64;
        assert_eq!(retried, by_reservation, "{arch}: conditional stores did fail on the way");
    }
}

#[test]
fn plain_increments_can_be_lost() {
    // The twin that shows that the interleaving is real: a word summed up in place by both.
    for arch in ARCHES {
        let lost = PATTERNS.iter().any(|pattern| {
            let mut bed = newest(arch);
            let f = bed.install("sum_loop");
            let words = bed.at(DATA, 0);
            for i in 0..16 {
                bed.set_word(words + 4 * i, 1);
            }
            bed.start(CPU0, f, &[words, 16]);
            bed.start(CPU1, f, &[words, 16]);
            let (results, _) = interleave(&mut bed, *pattern);
            results[0] != 16 || results[1] != 136
        });
        assert!(lost, "{arch}");
    }
}

#[test]
fn fetch_and_add_sees_every_value_once() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let f = bed.install("fetch_add");
        let counter = bed.at(DATA, 0);
        let mut seen = Vec::new();
        for pattern in PATTERNS {
            bed.start(CPU0, f, &[counter, 1]);
            bed.start(CPU1, f, &[counter, 1]);
            seen.extend(interleave(&mut bed, pattern).0);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..12).collect::<Vec<u64>>(), "{arch}");
    }
}

#[test]
fn a_flag_published_by_one_cpu_is_seen_by_the_other() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let (publish, reader) = (bed.install("publish_word"), bed.install("reader"));
        let (flag, ret42) = (bed.at(DATA, 0x100), bed.install("ret42"));
        let mut outcomes = std::collections::BTreeSet::new();
        for ahead in 0..20 {
            bed.set_word(flag, 0);
            bed.start(CPU0, publish, &[flag, 1]);
            bed.start(CPU1, reader, &[flag, ret42]);
            let mut end = None;
            for _ in 0..ahead {
                if end.is_none() {
                    end = match bed.step(CPU1) {
                        Step::Ran => None,
                        other => Some(other),
                    };
                }
            }
            bed.step_on(CPU0);
            while end.is_none() {
                end = match bed.step(CPU1) {
                    Step::Ran => None,
                    other => Some(other),
                };
            }
            match end {
                Some(Step::Returned(value)) => outcomes.insert(value),
                other => panic!("{arch}: {other:?}"),
            };
        }
        assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [42, u64::MAX], "{arch}");
    }
}

/// A conditional store fails if another CPU stored in between, even what was there before.
#[test]
fn a_change_back_and_forth_costs_the_reservation() {
    for arch in ARCHES.into_iter().filter(|arch| *arch != Arch::X86_64) {
        let loads = |disturbed: Option<u32>| {
            let mut bed = newest(arch);
            let f = bed.install("atomic_inc");
            let counter = bed.at(DATA, 0);
            bed.set_word(counter, 7);
            bed.start(CPU0, f, &[counter, 1]);
            bed.forget_events();
            let mut loads = 0;
            loop {
                let end = bed.step(CPU0);
                let events = bed.events();
                let seen = events.events.iter().any(|e| e.cpu == CPU0 && e.kind == Kind::Load);
                loads += u32::from(seen);
                if let (true, 1, Some(other)) = (seen, loads, disturbed) {
                    for word in [other, 7] {
                        let bytes = bed.word_bytes(word);
                        let at = VirtAddr(counter);
                        bed.m.store(CPU1, at, &bytes, MemOrder::Plain).unwrap();
                    }
                }
                match end {
                    Step::Ran => {}
                    Step::Returned(_) => break,
                    other => panic!("{arch}: {other:?}"),
                }
            }
            assert_eq!(bed.word(counter), 8, "{arch}");
            loads
        };
        assert!(loads(Some(9)) > loads(None), "{arch}: it was tried again");
    }
}
