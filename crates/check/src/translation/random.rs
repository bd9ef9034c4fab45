//! Random programs on the simulator, whose accesses tell what a CPU can still use, held against the
//! windows that this module keeps.
//!
//! The simulator knows nothing of windows: it has a TLB for each CPU that holds whatever it may,
//! and an invalidation that reaches it as early as barriers allow. Each access is tried in every
//! way that the simulator has for it, on copies of the machine. Two things are asked. *Sound*: it
//! leads to a frame, or is granted a store, only by what the tables say or by an old answer that is
//! still open for its CPU. *Tight*: whatever is open can be shown so. All architectures, with and
//! without the errata of their invalidations.
//!
//! The last page stands for 512 in a table of their own, which a collapse takes out of the tables
//! as it is: CPUs go on through it as long as they hold the entry above. Entries of both levels
//! above the last lose the right to store and get it back; by one as it was the right is there, for
//! leaves that are made or changed below it, too, and by several of them together.
//!
//! On arm64 two runs of pages make a group that translates together: mapped, unmapped, protected
//! and given the contiguous bit each by itself, so that one is found by the other's entries.
//!
//! Not generated: rights given back above a table that nothing points to and a CPU holds; flushes
//! of one CPU before it knows of a change of another and of its barrier (whether the change came
//! first is open then; the checker goes by the stream's order), user spaces, splits, tables that go
//! back (`scenarios/rules/walk-after-free` has those).

use proptest::prelude::*;
use textbed_arch::{Arch, CpuId, Features};

use super::bench::{Bench, CPUS, HALVES, LARGE, PAGES, Start, Step, full};

/// A step of a CPU, and whether barriers stand behind it that complete everything.
type Move = (u16, Step, bool);

fn step() -> impl Strategy<Value = Move> {
    let (upper, half) = (|| 0..PAGES, || HALVES[0]..=HALVES[1]);
    let page = || prop_oneof![2 => 0..PAGES, 1 => HALVES[0]..=HALVES[1]];
    let one = prop_oneof![
        4 => (page(), 0..PAGES - 1, any::<bool>())
            .prop_map(|(page, frame, writable)| Step::Map { page, frame, writable }),
        1 => Just(Step::Collapse),
        1 => (half(), any::<bool>())
            .prop_map(|(page, contiguous)| Step::Join { page, contiguous }),
        3 => (1..=2_usize, upper(), any::<bool>())
            .prop_map(|(level, page, writable)| Step::Limit { level, page, writable }),
        3 => page().prop_map(|page| Step::Unmap { page }),
        3 => (page(), any::<bool>()).prop_map(|(page, writable)| Step::Protect { page, writable }),
        4 => (proptest::option::weighted(0.8, page()), any::<bool>(), any::<bool>())
            .prop_map(|(page, local, last)| Step::Flush { page, local, last }),
        6 => (0..12_usize).prop_map(Step::Barrier),
        2 => Just(Step::Tell),
        4 => page().prop_map(|page| Step::Load { page }),
        3 => page().prop_map(|page| Step::Store { page }),
    ];
    (0..CPUS, one, any::<bool>())
}

fn run((arch, features): (Arch, Features), start: Start, steps: &[Move]) {
    let mut bench = start.bench(arch, features);
    for (cpu, step, closed) in steps {
        bench.step(CpuId(*cpu), *step);
        if *closed {
            bench.closed(CpuId(*cpu));
        }
    }
}

#[test]
fn each_barrier_completes_what_it_may_and_no_more() {
    // Behind an unmapping and a broadcast invalidation of CPU 0: barriers by their place in the
    // architecture's list, and whether another CPU may still load there.
    let [ishst, ish, nsh, isb] = [0, 1, 2, 4];
    let [ptesync, tlbsync, sync, eieio] = [0, 1, 2, 3];
    let rows: &[(Arch, &[usize], bool)] = &[
        (Arch::Arm64, &[ish], false),
        (Arch::Arm64, &[nsh], true),
        (Arch::Arm64, &[ishst, isb], true),
        (Arch::Ppc64le, &[eieio, tlbsync, ptesync], false),
        (Arch::Ppc64le, &[sync, tlbsync, ptesync], false),
        (Arch::Ppc64le, &[tlbsync, ptesync], true),
        (Arch::Ppc64le, &[tlbsync, eieio, ptesync], true),
        (Arch::Ppc64le, &[ptesync], true),
        (Arch::Ppc64le, &[eieio, tlbsync, sync], true),
        (Arch::Ppc64le, &[ptesync, eieio, tlbsync], true),
    ];
    for (arch, barriers, left) in rows {
        let mut bench = Bench::new(*arch, Features::default_for(*arch));
        let seen = if *arch == Arch::Arm64 { ish } else { ptesync };
        let (p0, p1) = (CpuId(0), CpuId(1));
        bench.step(p0, Step::Map { page: 0, frame: 0, writable: true });
        bench.step(p0, Step::Barrier(seen));
        bench.step(p0, Step::Unmap { page: 0 });
        bench.step(p0, Step::Barrier(seen));
        bench.step(p0, Step::Flush { page: Some(0), local: false, last: false });
        for n in *barriers {
            bench.step(p0, Step::Barrier(*n));
        }
        assert_eq!(!bench.open(p1, 0).is_empty(), *left, "{arch}, {barriers:?}");
        // And so says the simulator.
        bench.step(p1, Step::Load { page: 0 });
    }
}

#[test]
fn who_was_told_flushes_for_a_change_without_a_barrier_and_who_made_it_does_not() {
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        for by in [CpuId(0), CpuId(1)] {
            let mut bench = Bench::new(arch, Features::default_for(arch));
            bench.step(CpuId(0), Step::Map { page: 0, frame: 0, writable: true });
            bench.step(CpuId(0), full(arch));
            bench.step(CpuId(0), Step::Unmap { page: 0 });
            bench.step(CpuId(0), Step::Tell);
            bench.step(by, Step::Flush { page: Some(0), local: false, last: false });
            if arch == Arch::Ppc64le {
                bench.step(by, Step::Barrier(3));
                bench.step(by, Step::Barrier(1));
            }
            bench.step(by, full(arch));
            assert_eq!(bench.open(CpuId(1), 0).is_empty(), by == CpuId(1), "{arch} {by}");
            // And so says the simulator.
            bench.step(CpuId(1), Step::Load { page: 0 });
        }
    }
}

#[test]
fn what_a_table_held_is_open_until_the_way_to_it_is_closed() {
    // Behind a collapse, an unmapping and an invalidation of every CPU: whether the other CPU still
    // loads what the table has, which nothing points to.
    let arm = Features::default_for(Arch::Arm64) | Features::ARM_BBML2_NOABORT;
    let x86 = Features::default_for(Arch::X86_64);
    for (arch, features, last, left) in [
        (Arch::Arm64, arm, true, true),
        (Arch::Arm64, arm, false, false),
        (Arch::X86_64, x86, false, false),
    ] {
        let mut bench = Start::Collapsed.bench(arch, features);
        let others: &[u16] = if arch == Arch::X86_64 { &[0, 1] } else { &[0] };
        bench.step(CpuId(0), Step::Unmap { page: LARGE });
        bench.step(CpuId(0), full(arch));
        for cpu in others {
            bench.step(CpuId(*cpu), Step::Flush { page: Some(LARGE), local: false, last });
            bench.step(CpuId(*cpu), full(arch));
        }
        assert_eq!(!bench.open(CpuId(1), LARGE).is_empty(), left, "{arch}, last level: {last}");
        bench.step(CpuId(1), Step::Load { page: LARGE });
    }
}

#[test]
fn rights_that_an_entry_lost_are_there_as_long_as_they_can_be_found_again() {
    let arm = Features::default_for(Arch::Arm64) | Features::ARM_BBML2_NOABORT;
    let flush = |page, last| (Step::Flush { page: Some(page), local: false, last }, true);
    let unmap = |page| Step::Unmap { page };
    let limit = |level, page, writable| (Step::Limit { level, page, writable }, true);
    let made = |writable| (Step::Map { page: 0, frame: 0, writable }, true);
    let protected = |page| (Step::Protect { page, writable: false }, true);
    let collapse = (Step::Collapse, true);
    let issued = (Step::Flush { page: None, local: false, last: false }, false);
    // Behind an entry of a level that lost the right to store: steps of CPU 0, each with barriers
    // or without, and whether another CPU may still store to a page.
    type Row<'a> = (usize, &'a [(Step, bool)], u64, bool);
    let rows: &[Row<'_>] = &[
        (2, &[], LARGE, true),
        (2, &[flush(LARGE, true)], LARGE, true),
        (2, &[flush(LARGE, false)], LARGE, false),
        // The entry was read again before it was dropped, with the leaf of another page.
        (1, &[flush(0, true), flush(1, false)], 0, true),
        (1, &[flush(1, false), flush(0, true)], 0, false),
        // That of another table is another one, with the rights of the one above.
        (1, &[flush(1, false), flush(LARGE, true)], LARGE, true),
        // It may have been read until walks see that the leaf is gone.
        (1, &[(unmap(0), true), flush(0, true)], 0, false),
        (1, &[(unmap(0), false), flush(0, false)], 0, true),
        // The leaf stays where it is if the table goes.
        (1, &[collapse, (unmap(LARGE), true), flush(LARGE, true)], LARGE, true),
        (1, &[collapse, (unmap(LARGE), true), flush(LARGE, false)], LARGE, false),
        // By what is in its place the right was there, too.
        (1, &[collapse, (unmap(LARGE), false), flush(LARGE, false)], LARGE, true),
        // When that goes the table's leaves do not, so that a flush before it was one for them.
        (1, &[collapse, protected(LARGE), issued, (unmap(LARGE), true)], LARGE, false),
        // An entry that takes rights away itself keeps its table.
        (2, &[flush(LARGE, false), collapse], LARGE, false),
        (2, &[flush(LARGE, false), limit(1, 0, false), collapse], LARGE, false),
        // A leaf that is made below, and one that loses rights of its own.
        (1, &[(unmap(0), true), flush(0, true), made(true)], 0, true),
        (1, &[(unmap(0), true), flush(0, false), made(true)], 0, false),
        (1, &[(unmap(0), true), flush(0, true), made(false)], 0, false),
        (1, &[protected(0)], 0, true),
        (1, &[protected(0), flush(0, true)], 0, false),
        // What the one above gives back is found by the other one as it was.
        (1, &[flush(LARGE, false), limit(2, LARGE, false)], LARGE, false),
        (1, &[flush(LARGE, false), limit(2, LARGE, false), limit(1, 0, true)], LARGE, true),
        (1, &[flush(LARGE, false), limit(1, 0, true), limit(2, LARGE, false)], LARGE, true),
    ];
    for (level, steps, page, left) in rows {
        let mut bench = Start::Limited(*level).bench(Arch::Arm64, arm);
        for (step, closed) in *steps {
            bench.step(CpuId(0), *step);
            if *closed {
                bench.closed(CpuId(0));
            }
        }
        let open = bench.open(CpuId(1), *page).iter().any(|(_, perm)| perm.writable());
        assert_eq!(open, *left, "{level} {steps:?}");
        // And so says the simulator.
        bench.step(CpuId(1), Step::Store { page: *page });
    }
}

#[test]
fn an_invalidation_behind_a_change_is_not_one_with_that_before_it() {
    let mut bench = Start::Limited(1).bench(Arch::Arm64, Features::default_for(Arch::Arm64));
    let flush = |page| Step::Flush { page: Some(page), local: true, last: true };
    bench.step(CpuId(1), flush(0));
    bench.step(CpuId(2), Step::Unmap { page: 1 });
    bench.step(CpuId(2), Step::Barrier(0));
    bench.step(CpuId(1), flush(1));
    bench.step(CpuId(1), Step::Barrier(1));
    bench.step(CpuId(1), Step::Load { page: 1 });
    assert!(bench.open(CpuId(1), 1).is_empty());
}

#[test]
fn an_entry_that_lost_rights_twice_was_two_ways() {
    let arch = Arch::Arm64;
    let mut bench = Start::Limited(1).bench(arch, Features::default_for(arch));
    let limit = |level, writable| Step::Limit { level, page: 0, writable };
    for step in [limit(1, true), limit(2, false), full(arch)] {
        bench.step(CpuId(0), step);
    }
    bench.step(CpuId(0), Step::Flush { page: None, local: false, last: false });
    // What the one above grants from here on, the other one takes away.
    bench.step(CpuId(0), limit(1, false));
    bench.step(CpuId(0), full(arch));
    assert!(bench.open(CpuId(1), 0).is_empty());
    bench.step(CpuId(1), Step::Store { page: 0 });
}

#[test]
fn a_large_leaf_does_not_come_back_by_a_table_of_small_ones() {
    // The table leads where the leaf did that took its place.
    let arm = Features::default_for(Arch::Arm64) | Features::ARM_BBML2_NOABORT;
    let mut bench = Start::Collapsed.bench(Arch::Arm64, arm);
    bench.step(CpuId(0), Step::Flush { page: None, local: false, last: false });
    bench.step(CpuId(2), Step::Unmap { page: LARGE });
    bench.closed(CpuId(2));
    bench.step(CpuId(2), Step::Flush { page: Some(LARGE), local: false, last: true });
    bench.closed(CpuId(2));
    bench.closed(CpuId(0));
    assert!(bench.open(CpuId(0), LARGE).is_empty());
    bench.step(CpuId(0), Step::Load { page: LARGE });
}

#[test]
fn what_two_held_entries_lead_to_goes_with_the_older_of_them() {
    let arch = Arch::Arm64;
    let mut bench = Start::Limited(2).bench(arch, Features::default_for(arch));
    bench.step(CpuId(2), Step::Flush { page: None, local: false, last: false });
    bench.step(CpuId(0), Step::Limit { level: 1, page: 0, writable: false });
    bench.step(CpuId(0), Step::Protect { page: LARGE, writable: true });
    bench.closed(CpuId(2));
    bench.step(CpuId(0), Step::Store { page: LARGE });
}

#[test]
fn a_page_fault_drops_the_way_to_a_table() {
    // A read-only answer of the table itself: the store faults, and drops the way there.
    let mut bench = Bench::new(Arch::X86_64, Features::default_for(Arch::X86_64));
    bench.step(CpuId(0), Step::Map { page: LARGE, frame: 0, writable: false });
    bench.step(CpuId(0), Step::Collapse);
    bench.step(CpuId(0), Step::Unmap { page: LARGE });
    assert!(!bench.open(CpuId(0), LARGE).is_empty());
    bench.step(CpuId(0), Step::Store { page: LARGE });
    assert!(bench.open(CpuId(0), LARGE).is_empty());
    bench.step(CpuId(0), Step::Load { page: LARGE });
}

/// Each architecture as it is, and with its erratum.
fn machines() -> impl Strategy<Value = (Arch, Features)> {
    prop_oneof![
        Just((Arch::X86_64, Features::empty())),
        Just((Arch::X86_64, Features::X86_INVLPG_MISS)),
        Just((Arch::Arm64, Features::empty())),
        Just((Arch::Arm64, Features::ARM_REPEAT_TLBI)),
        Just((Arch::Arm64, Features::ARM_BBML2_NOABORT)),
        Just((Arch::Ppc64le, Features::empty())),
    ]
    .prop_map(|(arch, erratum)| (arch, Features::default_for(arch) | erratum))
}

fn starts() -> impl Strategy<Value = Start> {
    prop_oneof![
        Just(Start::Nothing),
        Just(Start::Collapsed),
        (1..=2_usize).prop_map(Start::Limited),
    ]
}

proptest! {
    // More of them by `PROPTEST_CASES`.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(2000),
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn what_a_cpu_can_still_use_is_what_is_kept_open(
        machine in machines(),
        start in starts(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        run(machine, start, &steps);
    }
}
