//! Rules about code that is replaced: for each a stream that breaks it and a twin that does not.
#![allow(clippy::unwrap_used)] // tests may

#[path = "../common/mod.rs"]
mod common;
mod context;
mod places;
mod rooms;
mod sites;

use common::{AREA, DM, NONE, ROX, RW, Story, certain, only, rules};
use textbed_arch::{Arch, Perm, VirtAddr, effect::Reach};
use textbed_check::{Mode, Options, rules::RuleId};
use textbed_event::{Access, ControlRegister, FaultReason, Flags, Need, View};

const FRAME: u64 = 0x40_0000;

/// A page of code at `AREA` with a writable alias, code of 64 bytes that both CPUs know and CPU 1
/// has run.
fn running(arch: Arch) -> Story {
    let mut s = Story::new(arch);
    s.leaf(0, DM + FRAME, FRAME, 1, NONE, RW);
    s.fill(0, DM + FRAME, FRAME, 64, &[0x90]);
    s.leaf(0, AREA, FRAME, 1, NONE, ROX);
    everywhere(&mut s, 1);
    s.fetch(1, AREA, FRAME, 16);
    s
}

/// Maintenance of the first line, and an interrupt to CPU 1 that synchronises it.
fn everywhere(s: &mut Story, ipi: u32) {
    if s.arch() != Arch::X86_64 {
        s.clean(0, AREA, FRAME);
        s.dsb(0);
        s.icache(0, AREA, FRAME);
        s.dsb(0);
    }
    s.sync(0);
    s.ipi(ipi, 0, 1, true);
}

fn site(s: &mut Story, cpu: u16, at: u64, len: u16, handler: bool) {
    let virt = VirtAddr(at);
    s.emit(cpu, View::PatchSite { virt, old_len: len, new_len: len, handler });
}

fn put(s: &mut Story, cpu: u16, at: u64, bytes: &[u8]) {
    s.store(cpu, DM + FRAME + at, FRAME + at, bytes);
}

/// What is found, but for the writable alias that these streams patch through.
fn found(s: Story) -> Vec<RuleId> {
    rules(&s.run()).into_iter().filter(|r| *r != RuleId::WxAlias).collect()
}

fn has(s: Story, rule: RuleId) -> bool {
    rules(&s.run()).contains(&rule)
}

#[test]
fn a_cpu_inside_a_half_written_site_is_torn() {
    let story = |ordered: bool| {
        let mut s = running(Arch::X86_64);
        let call = s.enter(0, "patch");
        site(&mut s, 0, AREA, 3, false);
        put(&mut s, 0, 0, &[0x8d]);
        if !ordered {
            s.fetch(1, AREA, FRAME, 3);
        }
        put(&mut s, 0, 1, &[0x76]);
        put(&mut s, 0, 2, &[0]);
        s.leave(0, call, 0);
        everywhere(&mut s, 7);
        s.fetch(1, AREA, FRAME, 3);
        s
    };
    let report = story(false).run();
    assert!(report.findings.iter().any(|f| f.rule == RuleId::TornPatch && certain(f)));
    assert!(!has(story(true), RuleId::TornPatch));
}

/// The protocol: a trap, synchronise, the tail, synchronise, the first byte, synchronise; without
/// one of the three, or with the tail first.
fn protocol(skip: usize) -> Story {
    let mut s = running(Arch::X86_64);
    let call = s.enter(0, "patch");
    s.emit(0, View::TrapHandler { virt: VirtAddr(AREA), len: 5, registered: true });
    site(&mut s, 0, AREA, 5, true);
    for (i, (at, bytes)) in
        [(0, &[0xcc][..]), (1, &[1, 2, 3, 4]), (0, &[0xe9])].into_iter().enumerate()
    {
        put(&mut s, 0, at, bytes);
        if skip != i + 1 {
            everywhere(&mut s, 10 + i as u32);
        }
        let len = if i < 2 && skip == 0 { 1 } else { 5 };
        s.fetch(1, AREA, FRAME, len);
    }
    s.emit(0, View::TrapHandler { virt: VirtAddr(AREA), len: 5, registered: false });
    s.leave(0, call, 0);
    s
}

#[test]
fn the_protocol_with_a_trap_is_known_by_its_bytes_and_order() {
    assert_eq!(found(protocol(0)), []);
    assert!(has(protocol(2), RuleId::TornPatch), "the tail is not synchronised");
    assert!(has(protocol(3), RuleId::PatchMetadata), "the trap may still be fetched");
}

#[test]
fn a_wide_store_to_code_that_runs_is_torn_and_one_unit_is_not() {
    let story = |arch, bytes: &[u8]| {
        let mut s = running(arch);
        put(&mut s, 0, 4, bytes);
        s.fetch(1, AREA, FRAME, 16);
        s
    };
    assert!(has(story(Arch::X86_64, &[1, 2, 3, 4]), RuleId::TornPatch));
    assert!(!has(story(Arch::X86_64, &[0xcc]), RuleId::TornPatch));
    assert!(has(story(Arch::Arm64, &[1, 2, 3, 4, 5, 6, 7, 8]), RuleId::TornPatch));
    assert!(!has(story(Arch::Arm64, &[1, 2, 3, 4]), RuleId::TornPatch));
    // Told of it, but not synchronised: that is said, and nothing of a mixture.
    let mut s = running(Arch::X86_64);
    put(&mut s, 0, 4, &[1, 2, 3, 4]);
    s.publish(0, "slot");
    s.observe(1, "slot");
    s.fetch(1, AREA, FRAME, 16);
    assert_eq!(found(s), [RuleId::MissingContextSync]);
}

#[test]
fn a_store_across_a_unit_is_misaligned_where_others_run() {
    let story = |arch, at, bytes: &[u8], stopped: bool| {
        let mut s = running(arch);
        s.fetch(1, AREA + 48, FRAME + 48, 16);
        s.fill(0, DM + FRAME + 64, FRAME + 64, 64, &[0x90]);
        s.emit(0, View::StopMachine { begin: stopped });
        put(&mut s, 0, at, bytes);
        has(s, RuleId::MisalignedPatch)
    };
    assert!(story(Arch::X86_64, 62, &[1, 2, 3, 4], false));
    assert!(!story(Arch::X86_64, 56, &[1, 2, 3, 4], false));
    assert!(!story(Arch::X86_64, 62, &[1, 2, 3, 4], true));
    assert!(story(Arch::Arm64, 50, &[1, 2, 3, 4], false));
    assert!(!story(Arch::Arm64, 52, &[1, 2, 3, 4], false));
    let mut s = running(Arch::Arm64);
    site(&mut s, 0, AREA + 2, 4, false);
    assert!(certain(only(&s.run(), RuleId::MisalignedPatch)));
}

/// The protocol where CPU 1 never comes by while it goes on: a trap, the rest, the first byte, each
/// with or without a synchronisation of CPU 1 that CPU 0 is told of.
fn protocol_alone(syncs: [bool; 3], told: bool) -> Story {
    let mut s = running(Arch::X86_64);
    let stores: [(u64, &[u8]); 3] = [(0, &[0xcc]), (1, &[1, 2, 3, 4]), (0, &[0xe9])];
    for (i, ((at, bytes), sync)) in stores.into_iter().zip(syncs).enumerate() {
        put(&mut s, 0, at, bytes);
        if sync && told {
            everywhere(&mut s, 10 + i as u32);
        } else if sync {
            s.sync(1);
        }
    }
    s
}

#[test]
fn behind_a_trap_nothing_is_replaced_before_the_trap_is_known_to_be_there() {
    let torn = |syncs, told| {
        let report = protocol_alone(syncs, told).run();
        let torn = report.findings.into_iter().filter(|f| f.rule == RuleId::TornPatch);
        torn.map(|f| (f.confidence, f.message, f.missing)).collect::<Vec<_>>()
    };
    assert_eq!(torn([true, true, true], true), []);
    assert_eq!(torn([true, true, false], true), []);
    for (syncs, words) in [
        ([false, true, true], "replaces the rest of an instruction"),
        ([true, false, true], "replaces the first byte of an instruction"),
    ] {
        let found = torn(syncs, true);
        let [(confidence, message, missing)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(*confidence, textbed_check::Confidence::Possible);
        assert!(message.contains(words), "{message}");
        assert_eq!(missing, &["serialize on cpu 1"]);
    }
    // That CPU 1 happened to serialise is not known to CPU 0.
    assert_eq!(torn([true, true, true], false).len(), 1);
    // A grace period tells of nothing that was not there.
    let mut s = running(Arch::X86_64);
    put(&mut s, 0, 0, &[0xcc]);
    s.emit(0, View::GracePeriod { flavour: textbed_event::RcuFlavour::Normal });
    put(&mut s, 0, 1, &[1, 2, 3, 4]);
    assert!(has(s, RuleId::TornPatch));
    // Nobody runs in between.
    let mut s = running(Arch::X86_64);
    put(&mut s, 0, 0, &[0xcc]);
    s.emit(0, View::StopMachine { begin: true });
    put(&mut s, 0, 1, &[1, 2, 3, 4]);
    assert!(!has(s, RuleId::TornPatch));
}

#[test]
fn a_site_of_two_words_is_torn_where_another_cpu_ran() {
    let story = |arch, len: u16, at: u64, stopped: bool| {
        let mut s = running(arch);
        s.emit(0, View::StopMachine { begin: stopped });
        s.call(0, "patch", |s, _| site(s, 0, AREA + at, len, false));
        has(s, RuleId::TornPatch)
    };
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        assert!(story(arch, 8, 0, false), "{arch}");
        assert!(!story(arch, 4, 0, false), "{arch}: one word");
        assert!(!story(arch, 8, 128, false), "{arch}: nobody ran it");
        assert!(!story(arch, 8, 0, true), "{arch}: nobody runs");
    }
}
