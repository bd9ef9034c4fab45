//! x86-64: own stores, interrupts, non-temporal stores, and what may be patched live.

use super::*;

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
