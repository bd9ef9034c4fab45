//! Pieces of synchronisation: how they are told, and that one that is left out has no effect, no
//! event, and nothing else changes.
#![allow(clippy::unwrap_used)] // tests may

mod common;

use common::{P0, P1, Rig};
use textbed_arch::{Arch, Features};
use textbed_event::{Kind, View};
use textbed_machine::{CpuMask, Stalest, SyncKind, SyncSite};

fn rig() -> Rig {
    Rig::arm(Features::empty(), Box::new(Stalest))
}

/// Version 1 of two lines is written and maintained, and the other CPU is interrupted.
fn story(r: &mut Rig) -> Vec<u32> {
    let call = r.m.enter_call(P0, "maintain", &[]);
    for line in 0..2 {
        r.str(P0, line * 64, 1);
    }
    for op in ["dc cvau", "ic ivau"] {
        for line in 0..2 {
            r.m.op_named(P0, op, r.code.offset(line * 64).0).unwrap();
        }
        r.m.op_named(P0, "dsb ish", 0).unwrap();
    }
    r.m.lock(P0, "l").unwrap();
    r.m.unlock(P0, "l").unwrap();
    r.m.ipi(P0, CpuMask::one(P1), "f", true, &mut |m, cpu| {
        m.op_named(cpu, "isb", 0).map_err(|e| textbed_machine::MachineError::Handler(e.to_string()))
    })
    .unwrap();
    r.m.leave_call(P0, call, 0, false);
    vec![r.fetch(P1, 0), r.fetch(P1, 64)]
}

fn sites(r: &Rig) -> Vec<SyncSite> {
    r.m.syncs().iter().map(|s| s.site.clone()).collect()
}

fn with_all() -> Vec<SyncSite> {
    let mut r = rig();
    r.m.watch_syncs(&[]);
    assert_eq!(story(&mut r), [1, 1]);
    sites(&r)
}

fn without(left_out: &[SyncSite]) -> (Vec<u32>, Rig) {
    let mut r = rig();
    r.m.take_batch();
    r.m.watch_syncs(left_out);
    (story(&mut r), r)
}

#[test]
fn each_piece_is_told_once_and_a_loop_is_one() {
    let told: Vec<String> =
        with_all().iter().map(|s| format!("{} {} {}", s.cpu.0, s.kind, s.nth)).collect();
    assert_eq!(
        told,
        [
            "0 dc cvau 1",
            "0 dsb ish 1",
            "0 ic ivau 1",
            "0 dsb ish 2",
            "0 lock l 1",
            "0 interrupt for f 1",
            "1 entry to the interrupt 1",
            "1 isb 1",
            "1 return from the interrupt 1",
        ]
    );
    let all = with_all();
    assert!(all.iter().all(|s| s.calls == ["maintain"]), "{all:?}");
    assert_eq!(all[7].serves, Some(P0));
    assert_eq!(all.iter().filter(|s| s.kind.incidental()).count(), 2);
}

#[test]
fn what_is_left_out_has_neither_effect_nor_event() {
    let all = with_all();
    for (at, kind) in [(0, Kind::CacheClean), (2, Kind::IcacheInvalidate), (5, Kind::IpiSent)] {
        let (fetched, mut r) = without(&all[at..=at]);
        assert_eq!(fetched, [0, 0], "without {}", all[at].kind);
        let batch = r.m.take_batch();
        assert!(batch.events.iter().all(|e| e.kind != kind), "without {}", all[at].kind);
    }
    // One of three that synchronise the receiver is enough, none is not.
    assert_eq!(without(&all[6..8]).0, [1, 1]);
    assert_eq!(without(&all[6..9]).0, [0, 0]);
}

#[test]
fn a_lock_left_out_still_keeps_others_out_and_nobody_is_told() {
    let all = with_all();
    let (_, mut r) = without(&all[4..5]);
    let batch = r.m.take_batch();
    let locks = [Kind::LockAcquired, Kind::LockReleased];
    assert!(batch.events.iter().all(|e| !locks.contains(&e.kind)));
    assert_eq!(r.m.lock_holder("l"), None);
}

#[test]
fn what_else_there_is_keeps_its_place() {
    let all = with_all();
    for piece in &all {
        let (_, r) = without(std::slice::from_ref(piece));
        let mut rest = sites(&r);
        // Who takes no interrupt serves none.
        let served = matches!(piece.kind, SyncKind::Ipi(_));
        let kept = |s: &&SyncSite| !(served && s.serves.is_some());
        let wanted: Vec<SyncSite> = all.iter().filter(kept).cloned().collect();
        rest.retain(|s| wanted.contains(s));
        assert_eq!(rest, wanted, "without {}", piece.kind);
    }
}

#[test]
fn many_repetitions_at_one_place_are_one() {
    let mut r = rig();
    r.m.watch_syncs(&[]);
    for _ in 0..10 {
        r.m.op_named(P0, "isb", 0).unwrap();
    }
    assert_eq!(sites(&r).iter().map(|s| s.nth).collect::<Vec<_>>(), [1, 2, 3, 4, SyncSite::REST]);
    let every = SyncSite { nth: SyncSite::ALL, ..sites(&r).remove(0) };
    let mut r = rig();
    r.m.take_batch();
    r.m.watch_syncs(&[every]);
    (0..10).for_each(|_| r.m.op_named(P0, "isb", 0).unwrap());
    assert!(r.m.take_batch().events.is_empty());
}

#[test]
fn stops_and_releases_are_left_out_in_pairs_and_where_stores_release_there_is_none() {
    let run = |arch: Arch, without: &[SyncSite]| {
        let mut r = Rig::new(arch, Features::default_for(arch), Box::new(Stalest));
        r.m.take_batch();
        r.m.watch_syncs(without);
        r.m.emit(P0, View::StopMachine { begin: true });
        r.m.emit(P0, View::StopMachine { begin: false });
        r.m.publish(P0, "slot", 7);
        let seen = r.m.observe(P1, "slot");
        let kinds: Vec<Kind> = r.m.take_batch().events.iter().map(|e| e.kind).collect();
        (sites(&r), seen, kinds)
    };
    let (all, _, kinds) = run(Arch::Arm64, &[]);
    assert_eq!(kinds, [Kind::StopMachine, Kind::StopMachine, Kind::Publish, Kind::Observe]);
    let (_, seen, kinds) = run(Arch::Arm64, &all);
    assert_eq!((seen, kinds), (Some(7), vec![Kind::Observe]));
    let (x86, ..) = run(Arch::X86_64, &[]);
    assert_eq!(x86.len(), 1, "every store releases on x86: {x86:?}");
}
