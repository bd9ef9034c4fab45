//! Code that is replaced while it may run: what was met then, races, what arm64 lists.

use super::*;

/// Whoever ran a place while it was replaced, which was legal, ran the old or the new code there.
/// Once he learns that it is done the old one is too old, though nothing else happened.
#[test]
fn what_was_met_live_is_not_known_to_be_new() {
    for (arch, new) in [(Arch::X86_64, &[0xcc][..]), (Arch::Arm64, &0x1400_0004_u32.to_le_bytes())]
    {
        let story = |synced: bool, legal: bool| {
            let mut s = patched_area(arch, Features::empty(), Features::empty());
            s.fetch(1, AREA, P, 4);
            s.store(0, DM + P, P, if legal { new } else { &[1, 2, 3, 4] });
            if arch != Arch::X86_64 {
                s.clean(0, DM + P, P);
                s.dsb(0);
                s.icache(0, AREA, P);
                s.dsb(0);
            }
            s.fetch(1, AREA, P, 4);
            s.publish(0, "done");
            s.observe(1, "done");
            if synced {
                s.sync(1);
            }
            s.fetch(1, AREA, P, 4);
            s.run()
        };
        assert!(story(true, true).findings.is_empty(), "{arch}");
        assert_eq!(rules(&story(false, true)), [RuleId::MissingContextSync], "{arch}");
        // What was found before does not hide it either.
        assert!(rules(&story(false, false)).contains(&RuleId::MissingContextSync), "{arch}");
        assert!(!rules(&story(true, false)).contains(&RuleId::MissingContextSync), "{arch}");
    }
}

/// Code that is mapped when it is complete needs no synchronisation where a CPU meets it for the
/// first time. That says nothing about a store that races with it there: one that is not listed is
/// found at the first execution, and one that is listed is not taken for known by that.
#[test]
fn a_race_is_found_also_where_what_was_there_before_needs_no_synchronisation() {
    const NOP: u32 = 0xd503_201f;
    const BRANCH: u32 = 0x1400_0002;
    let maintained = |s: &mut Story| {
        s.clean(0, DM + P, P);
        s.dsb(0);
        s.icache(0, DM + P, P);
        s.dsb(0);
    };
    for (new, listed) in [(BRANCH, true), (0x5280_0540, false)] {
        for again in [None, Some(false), Some(true)] {
            let mut s = Story::new(Arch::Arm64);
            s.store(0, DM + P, P, &[0; 4]);
            s.store(0, DM + P, P, &NOP.to_le_bytes());
            maintained(&mut s);
            s.leaf(0, AREA, P, 1, NONE, ROX);
            s.dsb(0);
            s.publish(0, "entry");
            s.observe(1, "entry");
            s.store(0, DM + P, P, &new.to_le_bytes());
            s.fetch(1, AREA, P, 4);
            // Once more, before or behind the maintenance.
            if again == Some(true) {
                maintained(&mut s);
            }
            if again.is_some() {
                s.fetch(1, AREA, P, 4);
            }
            let found = rules(&s.run());
            let wanted = if listed { vec![] } else { vec![ORDER] };
            assert_eq!(found, wanted, "{new:#x} {again:?}");
        }
    }
}

#[test]
fn arm64_branches_may_be_patched_live_and_loads_may_not() {
    let found = |new: u32, cmodx: bool| {
        let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
        s.fetch(1, AREA, P, 4);
        s.store(0, DM + P, P, &new.to_le_bytes());
        s.clean(0, DM + P, P);
        s.dsb(0);
        s.icache(0, AREA, P);
        s.dsb(0);
        s.fetch(1, AREA, P, 4);
        s.run_with(Options { cmodx, ..Options::default() })
    };
    assert!(found(0x1400_0004, true).findings.is_empty()); // b
    assert!(found(0xd503_201f, true).findings.is_empty()); // nop
    let report = found(0xf940_0000, true); // ldr x0, [x0]
    assert!(certain(only(&report, ORDER)));
    assert!(certain(only(&found(0x1400_0004, false), ORDER)));
}
