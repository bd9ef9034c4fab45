//! Instruction caches of sets and ways, and CPUs with lines of two sizes.

// Functions beside the tests may fail a test, too.
#![allow(clippy::unwrap_used)]

mod common;

use common::{P0, P1, Rig};
use textbed_arch::cache::CacheGeometry;
use textbed_arch::{Arch, CpuId, Features};
use textbed_machine::{
    Choice, InstructionCache, Machine, MachineConfig, MachineError, Newest, Policy, Random, Stalest,
};

const ARM: Features = Features::ARM_EIS.union(Features::ARM_EOS);

fn config(arch: Arch, sets: u32, ways: u32) -> MachineConfig {
    let icache = InstructionCache::Sets { sets, ways };
    let features = if arch == Arch::Arm64 { ARM } else { Features::default_for(arch) };
    MachineConfig { icache, features, ..MachineConfig::new(arch) }
}

fn rig(config: MachineConfig, policy: Box<dyn Policy>) -> Rig {
    Rig::of(Machine::new(config, policy).unwrap())
}

/// The word at 0 is in the cache, and old: cleaned, but not invalidated.
fn old_at_zero(sets: u32, ways: u32, policy: Box<dyn Policy>) -> Rig {
    let mut r = rig(config(Arch::Arm64, sets, ways), policy);
    assert_eq!(r.fetch(P0, 0), 0);
    r.str(P0, 0, 1);
    r.ops(P0, &["dc cvau", "dsb ish", "isb"], 0);
    r
}

#[test]
fn a_line_is_evicted_by_as_many_others_of_its_set_as_there_are_ways() {
    for (sets, ways) in [(1, 1), (1, 4), (2, 2), (4, 1), (8, 3), (16, 2)] {
        let stride = 64 * u64::from(sets);
        for others in 0..=ways {
            let mut r = old_at_zero(sets, ways, Box::new(Newest));
            // Every line of the other sets: they are no rivals.
            for line in (0..64).filter(|n| n % u64::from(sets) != 0) {
                r.fetch(P0, line * 64);
            }
            for n in 1..=u64::from(others) {
                r.fetch(P0, n * stride + 4);
            }
            r.op(P0, "isb", 0);
            let expected = u32::from(others == ways);
            assert_eq!(r.fetch(P0, 0), expected, "{sets} sets of {ways}, {others} others");
        }
    }
}

#[test]
fn what_is_evicted_stays_in_the_fetch_queue_until_it_is_emptied() {
    let mut r = old_at_zero(4, 1, Box::new(Stalest));
    r.fetch(P0, 256);
    assert_eq!(r.fetch(P0, 0), 0);
    r.op(P0, "isb", 0);
    assert_eq!(r.fetch(P0, 0), 1);
}

#[test]
fn the_policy_chooses_the_way_and_can_keep_what_is_old() {
    // As often as is wanted: the other way is taken each time.
    let mut r = old_at_zero(4, 2, Box::new(Stalest));
    for n in 1..30 {
        r.fetch(P0, n * 256);
        r.op(P0, "isb", 0);
        assert_eq!(r.fetch(P0, 0), 0, "after {n}");
    }
    let evictions = |r: &Rig| {
        let taken = r.m.choices().taken().iter();
        taken.filter(|t| matches!(t.choice, Choice::Evict { options: 2, .. })).count()
    };
    assert_eq!(evictions(&r), 28, "the first one found a free way");
    // Any order of replacement: sooner or later it goes, and not with the first.
    let mut gone = [0; 30];
    for seed in 0..100 {
        let mut r = old_at_zero(4, 2, Box::new(Random::new(seed)));
        r.op(P0, "isb", 0);
        let first = (1..30u64).find(|n| {
            r.fetch(P0, n * 256);
            r.op(P0, "isb", 0);
            r.fetch(P0, 0) == 1
        });
        gone[first.unwrap() as usize] += 1;
    }
    assert_eq!(gone[1], 0);
    assert!(gone[2] > 20 && gone[3] > 5, "{gone:?}");
}

#[test]
fn a_line_is_as_old_as_its_last_fill_and_what_was_not_executed_is_not_old() {
    // Not executed before the store: nothing is there to be old.
    for policy in [Box::new(Newest) as Box<dyn Policy>, Box::new(Stalest)] {
        let mut r = rig(config(Arch::Arm64, 64, 4), policy);
        r.str(P0, 0, 1);
        r.ops(P0, &["dc cvau", "dsb ish", "isb"], 0);
        assert_eq!(r.fetch(P0, 0), 1);
    }
    // An invalidation of any address in the line drops it; of the next line does not.
    for (at, expected) in [(60, 1), (64, 0)] {
        let mut r = old_at_zero(64, 4, Box::new(Stalest));
        r.ops(P0, &["ic ivau", "dsb ish", "isb"], at);
        assert_eq!(r.fetch(P0, 0), expected, "ic ivau of {at}");
    }
    // Filled between two stores, and again by no one.
    let mut r = old_at_zero(64, 4, Box::new(Newest));
    r.ops(P0, &["ic ivau", "dsb ish", "isb"], 0);
    assert_eq!(r.fetch(P0, 0), 1);
    r.str(P0, 0, 2);
    r.ops(P0, &["dc cvau", "dsb ish", "isb"], 0);
    assert_eq!(r.fetch(P0, 0), 1);
    // A neighbour that was not old shares the line's fate.
    r.str(P0, 8, 5);
    r.ops(P0, &["dc cvau", "dsb ish", "isb"], 8);
    assert_eq!((r.fetch(P0, 8), r.fetch(P0, 0)), (0, 1));
}

#[test]
fn each_cpu_has_a_cache_of_its_own() {
    let mut r = rig(config(Arch::Arm64, 4, 1), Box::new(Newest));
    r.fetch(P0, 0);
    r.fetch(P1, 0);
    r.str(P0, 0, 1);
    r.ops(P0, &["dc cvau", "dsb ish"], 0);
    // P0 evicts it, P1 does not.
    r.fetch(P0, 256);
    r.op(P0, "isb", 0);
    r.op(P1, "isb", 0);
    assert_eq!((r.fetch(P0, 0), r.fetch(P1, 0)), (1, 0));
    // `ic iallu` is local, `ic ialluis` is not.
    r.ops(P0, &["ic iallu", "dsb ish"], 0);
    r.op(P1, "isb", 0);
    assert_eq!(r.fetch(P1, 0), 0);
    r.ops(P0, &["ic ialluis", "dsb ish"], 0);
    r.op(P1, "isb", 0);
    assert_eq!(r.fetch(P1, 0), 1);
}

#[test]
fn without_a_clean_a_fill_may_return_what_the_data_cache_hides() {
    let fetched = |policy: Box<dyn Policy>| {
        let mut r = rig(config(Arch::Arm64, 4, 1), policy);
        r.str(P0, 0, 1);
        r.ops(P0, &["dsb ish", "isb"], 0);
        let first = r.fetch(P0, 0);
        // Now it is in the cache, and a clean does not change it.
        r.ops(P0, &["dc cvau", "dsb ish", "isb"], 0);
        (first, r.fetch(P0, 0))
    };
    assert_eq!(fetched(Box::new(Stalest)), (0, 0));
    assert_eq!(fetched(Box::new(Newest)), (1, 1));
}

#[test]
fn where_caches_follow_stores_only_what_was_executed_can_be_fetched_ahead() {
    for arch in [Arch::X86_64, Arch::Ppc64le] {
        let old = |executed: bool, others: u64| {
            let mut r = rig(config(arch, 4, 2), Box::new(Stalest));
            if executed {
                r.fetch(P1, 0);
            }
            (1..=others).for_each(|n| {
                r.fetch(P1, n * 4 * if arch == Arch::X86_64 { 64 } else { 128 });
            });
            r.str(P0, 0, 1);
            let before = r.fetch(P1, 0);
            r.op(P1, if arch == Arch::X86_64 { "cpuid" } else { "isync" }, 0);
            assert_eq!(r.fetch(P1, 0), 1, "{arch}");
            before == 0
        };
        assert!(old(true, 0) && !old(false, 0), "{arch}");
        // Stalest replaces what is not old, and nothing is yet: the one used last.
        assert!(old(true, 1), "{arch}");
    }
}

/// CPU 0 has instruction lines of 128 bytes, CPU 1 of 64. CPU 0 changes two words 64 bytes apart
/// and invalidates by `stride`; what CPU 1 then has of the second.
fn migrated(stride: u64, icache: InstructionCache) -> u32 {
    let big = CacheGeometry { dline_bytes: 64, iline_bytes: 128 };
    let own_geometry = vec![(P0, big)];
    let config = MachineConfig { own_geometry, icache, ..config(Arch::Arm64, 64, 4) };
    let mut r = rig(config, Box::new(Stalest));
    for cpu in [P0, P1] {
        r.fetch(cpu, 0);
        r.fetch(cpu, 64);
    }
    r.str(P0, 0, 1);
    r.str(P0, 64, 1);
    r.op(P0, "dc cvau", 0);
    r.op(P0, "dc cvau", 64);
    r.op(P0, "dsb ish", 0);
    (0..128).step_by(stride as usize).for_each(|at| r.op(P0, "ic ivau", at));
    r.op(P0, "dsb ish", 0);
    r.op(P0, "isb", 0);
    r.op(P1, "isb", 0);
    assert_eq!((r.fetch(P0, 0), r.fetch(P0, 64), r.fetch(P1, 0)), (1, 1, 1));
    r.fetch(P1, 64)
}

#[test]
fn invalidating_by_the_lines_of_another_cpu_misses_some() {
    let real = InstructionCache::Sets { sets: 64, ways: 4 };
    for icache in [InstructionCache::Adversarial, real] {
        assert_eq!(migrated(128, icache), 0, "by CPU 0's own line: {icache:?}");
        assert_eq!(migrated(64, icache), 1, "by the smallest: {icache:?}");
    }
}

#[test]
fn the_stream_says_the_smallest_line_of_any_cpu() {
    let geometry = |d, i| CacheGeometry { dline_bytes: d, iline_bytes: i };
    let own_geometry = vec![(P0, geometry(128, 32)), (P1, geometry(16, 256))];
    let m = MachineConfig { own_geometry, ..MachineConfig::new(Arch::Arm64) };
    let header = Machine::new(m, Box::new(Newest)).unwrap().header();
    assert_eq!((header.dline_bytes, header.iline_bytes), (16, 32));
}

#[test]
fn caches_that_there_cannot_be_are_refused() {
    for (sets, ways) in [(0, 1), (3, 1), (1 << 17, 1), (4, 0), (4, 65)] {
        let refused = Machine::new(config(Arch::Arm64, sets, ways), Box::new(Newest));
        let Err(MachineError::Config(text)) = refused.map(|_| ()) else { panic!("{sets} {ways}") };
        assert!(text.contains("sets") && text.contains("ways"));
    }
    let own_geometry = vec![(CpuId(2), CacheGeometry::default_for(Arch::Arm64))];
    let config = MachineConfig { own_geometry, ..MachineConfig::new(Arch::Arm64) };
    assert!(matches!(Machine::new(config, Box::new(Newest)), Err(MachineError::Config(_))));
}
