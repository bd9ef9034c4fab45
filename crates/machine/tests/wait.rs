//! What waits wait for: event registers, watched lines, reservations.

#![allow(clippy::unwrap_used)]

mod common;

use common::{KERNEL, P0, P1, P2, Rig};
use textbed_arch::effect::Wake;
use textbed_arch::{Arch, Features, VirtAddr};
use textbed_event::{Access, FaultReason, MemOrder};
use textbed_machine::{CpuMask, Newest, OpError};

fn rig(arch: Arch) -> Rig {
    Rig::new(arch, Features::default_for(arch), Box::new(Newest))
}

#[test]
fn an_event_is_there_once_for_whom_it_was_sent() {
    let mut r = rig(Arch::Arm64);
    let events = |r: &mut Rig| [P0, P1, P2].map(|cpu| r.m.wait_ends(cpu, Wake::Event));
    assert_eq!(events(&mut r), [false; 3]);
    r.m.op_named(P1, "sev", 0).unwrap();
    assert_eq!(events(&mut r), [true; 3]);
    assert_eq!(events(&mut r), [false; 3], "used up");
    r.m.op_named(P1, "sevl", 0).unwrap();
    assert_eq!(events(&mut r), [false, true, false]);
    r.m.op_named(P2, "eret", 0).unwrap();
    assert_eq!(events(&mut r), [false, false, true]);
    // A handler returns.
    r.m.ipi(P0, CpuMask::one(P1), "function", true, &mut |_, _| Ok(())).unwrap();
    assert_eq!(events(&mut r), [false, true, false]);
    r.m.op_named(P0, "sev", 0).unwrap();
    r.m.op_named(P0, "wfe", 0).unwrap();
    assert_eq!(events(&mut r), [false, true, true], "by the instruction, too");
}

#[test]
fn another_cpus_store_ends_a_reservation_and_is_an_event() {
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        let mut r = rig(arch);
        let line = r.m.config().geometry.dline_bytes.into();
        let ends = |r: &mut Rig| [Wake::Reservation, Wake::Event].map(|w| r.m.wait_ends(P1, w));
        for (by, offset, lost) in [(P1, 0, false), (P0, line, false), (P0, line - 4, true)] {
            r.m.reserve(P1, r.alias);
            assert_eq!(ends(&mut r), [false, false], "{arch}");
            r.str(by, offset, 1);
            assert_eq!(ends(&mut r), [lost, lost], "{arch}: {by} stores at {offset}");
        }
    }
}

#[test]
fn a_store_to_the_watched_line_ends_the_watch_whoever_stores() {
    let mut r = rig(Arch::X86_64);
    let over = |r: &mut Rig| r.m.wait_ends(P1, Wake::Line);
    assert!(over(&mut r), "nothing is watched");
    let line = r.m.config().geometry.dline_bytes.into();
    let watched = r.alias.offset(8).0;
    for (by, offset, ends) in
        [(P0, 0, true), (P1, 4, true), (P2, line - 4, true), (P0, line, false), (P1, line, false)]
    {
        r.m.op_named(P1, "monitor", watched).unwrap();
        assert!(!over(&mut r));
        r.str(by, offset, 1);
        assert_eq!(over(&mut r), ends, "{by} stores at {offset}");
    }
    // A fill, by an alias.
    let alias = VirtAddr(r.alias.0 + (1 << 30));
    r.m.map(P0, KERNEL, alias, r.phys, 1 << 12, 12, textbed_arch::Perm::KERNEL_RW).unwrap();
    r.m.fill(P0, alias, 64, &[0xcc]).unwrap();
    assert!(over(&mut r));
    // Another CPU's watch is its own.
    r.m.op_named(P1, "monitor", watched).unwrap();
    assert!(r.m.wait_ends(P2, Wake::Line));
    // What the CPU takes meanwhile ends it, so that MWAIT behind it does not wait for ever.
    r.m.ipi(P0, CpuMask::one(P1), "function", true, &mut |_, _| Ok(())).unwrap();
    assert!(over(&mut r));
}

#[test]
fn what_is_watched_has_to_be_readable() {
    let mut r = rig(Arch::X86_64);
    let nowhere = VirtAddr(r.alias.0 + (1 << 30));
    let Err(OpError::Fault(fault)) = r.m.op_named(P1, "monitor", nowhere.0) else { panic!() };
    assert_eq!((fault.virt, fault.access), (nowhere, Access::Read));
    assert_eq!(fault.reason, FaultReason::NotPresent);
    assert!(r.m.wait_ends(P1, Wake::Line));
}

#[test]
fn what_cannot_come_does_not_end_a_wait() {
    let mut r = rig(Arch::X86_64);
    r.m.store(P0, r.alias, &[1], MemOrder::Plain).unwrap();
    let ends = [Wake::Taken, Wake::Interrupt, Wake::Anything].map(|w| r.m.wait_ends(P0, w));
    assert_eq!(ends, [false, false, true], "interrupts are not the machine's");
}
