//! Whom maintenance reaches, through events: other words of a line, aliases, CPUs beyond the
//! barrier's domain; which instructions may be replaced live; and where an old translation leads.

mod common;

use common::*;
use textbed_arch::{
    Arch, Features,
    effect::{Barrier, CacheScope, Domain, Reach},
};
use textbed_check::{Options, rules::RuleId};
use textbed_event::{OpId, View};

/// CPU 1 learns of what CPU 0 did, and synchronises.
fn learn(s: &mut Story) {
    s.publish(0, "entry");
    s.observe(1, "entry");
    s.sync(1);
}

/// `ic ialluis`.
const IALLUIS: View = View::IcacheInvalidate {
    scope: CacheScope::All,
    reach: Reach::Broadcast,
    virt: textbed_arch::VirtAddr(0),
    phys: textbed_arch::PhysAddr(0),
};

#[test]
fn arm64_the_list_of_live_replacements_is_that_of_the_revision_asked_for() {
    use textbed_arch::insn::CmodxRevision;
    // DDI 0487 B2.2.5 (B2.6.5 in A.a): the list grew. From a NOP to another instruction.
    const NOP: u32 = 0xd503_201f;
    let rows = [
        (0x1400_0004u32, "b", CmodxRevision::Aa),
        (0xd503_3fdf, "isb", CmodxRevision::Da),
        (0x5400_0080, "b.eq", CmodxRevision::Middle),
        (0xb400_0080, "cbz", CmodxRevision::Middle),
        (0x0000_0000, "udf", CmodxRevision::Latest),
    ];
    for (new, name, since) in rows {
        for list in CmodxRevision::ALL {
            let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
            for word in [NOP, new] {
                s.store(0, DM + P, P, &word.to_le_bytes());
                s.clean(0, DM + P, P);
                s.dsb(0);
                s.icache(0, AREA, P);
                s.dsb(0);
                if word == NOP {
                    learn(&mut s);
                }
            }
            s.fetch(1, AREA, P, 4);
            let options = Options { cmodx_list: list, ..Options::default() };
            let found = rules(&s.run_with(options)).contains(&ORDER);
            assert_eq!(found, list < since, "{name} by the list of {}", list.name());
        }
    }
}

#[test]
fn every_version_that_may_be_met_has_to_be_in_the_list() {
    // A branch, then a load, then a branch: the load between may be met as well.
    let found = |between: u32| {
        let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
        for word in [0x1400_0004u32, between, 0x1400_0008] {
            s.store(0, DM + P, P, &word.to_le_bytes());
            s.barrier(0, Barrier::DmbFull);
        }
        s.fetch(1, AREA, P, 4);
        rules(&s.run()).contains(&ORDER)
    };
    assert!(found(0xf940_0000), "ldr x0, [x0]");
    assert!(!found(0xd503_201f), "nop");
}

#[test]
fn power_patch_class_is_branches_and_the_no_op() {
    // Power ISA 2.03 Book II 1.8.1: I-form branches and ori 0,0,0, stored as one aligned word.
    let found = |old: u32, new: u32, len: usize| {
        let mut s = patched_area(Arch::Ppc64le, Features::empty(), COHERENT);
        s.store(0, DM + P, P, &old.to_le_bytes());
        s.barrier(0, Barrier::Sync);
        let new = u64::from(new) | u64::from(old) << 32;
        s.store(0, DM + P, P, &new.to_le_bytes()[..len]);
        s.fetch(1, AREA, P, 4);
        rules(&s.run()).contains(&ORDER)
    };
    const NOP: u32 = 0x6000_0000;
    const BRANCH: u32 = 0x4800_0010;
    assert!(!found(NOP, BRANCH, 4));
    assert!(!found(BRANCH, NOP, 4));
    assert!(found(NOP, BRANCH, 8), "two words at once, as for a prefixed instruction");
    assert!(found(NOP, 0x4182_0008, 4), "a conditional branch is none");
    assert!(found(0x3860_0000, NOP, 4), "nor is the li that was there");
}

#[test]
fn one_maintenance_of_a_line_serves_every_word_in_it() {
    // The data line has 64 bytes, the instruction line 32: one clean, two invalidations.
    let run = |word: u64, second: bool| {
        let mut s = patched_area(Arch::Arm64, Features::empty(), IDC | DIC);
        s.header.iline_bytes = 32;
        for word in [0, 8, 40] {
            s.store(0, DM + P + word, P + word, &[1, 2, 3, 4]);
        }
        s.clean(0, DM + P + 16, P + 16);
        s.dsb(0);
        s.icache(0, AREA + 4, P + 4);
        if second {
            s.icache(0, AREA + 60, P + 60);
        }
        s.dsb(0);
        learn(&mut s);
        s.fetch(1, AREA + word, P + word, 4);
        rules(&s.run())
    };
    for word in [0, 8, 40] {
        assert!(run(word, true).is_empty(), "{word}");
    }
    assert!(run(0, false).is_empty() && run(8, false).is_empty());
    assert_eq!(run(40, false), [MAINTENANCE]);
}

#[test]
fn an_alias_of_a_virtually_indexed_icache_stays() {
    // CTR_EL0.L1Ip: PIPT, an invalidation by one address serves every alias; VIPT, only itself.
    const OTHER: u64 = AREA + 0x10_0000;
    let run = |vipt: bool, invalidate: u64, all: bool| {
        let on = if vipt { Features::ARM_VIPT } else { Features::empty() };
        let mut s = patched_area(Arch::Arm64, on, IDC | DIC);
        s.leaf(0, OTHER, P, 1, NONE, ROX);
        s.store(0, DM + P, P, &[1, 2, 3, 4]);
        s.clean(0, DM + P, P);
        s.dsb(0);
        if all {
            s.emit_op(0, OpId(0x2011), IALLUIS);
        } else {
            s.icache(0, invalidate, P);
        }
        s.dsb(0);
        learn(&mut s);
        s.fetch(1, OTHER, P, 4);
        rules(&s.run())
    };
    assert!(run(false, AREA, false).is_empty());
    assert_eq!(run(true, AREA, false), [MAINTENANCE]);
    assert!(run(true, OTHER, false).is_empty());
    assert!(run(true, AREA, true).is_empty(), "an invalidation of everything");
}

#[test]
fn a_clean_serves_whatever_address_wrote() {
    // DC CVAU acts on the physical line: by the executable alias it serves as well.
    let mut s = patched_area(Arch::Arm64, Features::empty(), IDC | DIC);
    s.store(0, DM + P, P, &[1, 2, 3, 4]);
    s.clean(0, AREA, P);
    s.dsb(0);
    s.icache(0, AREA, P);
    s.dsb(0);
    learn(&mut s);
    s.fetch(1, AREA, P, 4);
    assert!(rules(&s.run()).is_empty());
}

#[test]
fn arm64_a_barrier_for_one_cpu_completes_nothing_for_others() {
    // DSB NSH orders and completes for its own CPU: that one may run the code, others may not.
    let run = |cpu: u16, second: Domain| {
        let mut s = patched_area(Arch::Arm64, Features::empty(), IDC | DIC);
        s.store(0, DM + P, P, &[1, 2, 3, 4]);
        s.clean(0, DM + P, P);
        s.dsb(0);
        s.icache(0, AREA, P);
        s.emit(0, View::Barrier { barrier: Barrier::DsbFull, domain: second });
        s.publish(0, "entry");
        if cpu == 1 {
            s.observe(1, "entry");
        }
        s.sync(cpu);
        s.fetch(cpu, AREA, P, 4);
        rules(&s.run())
    };
    for (cpu, domain, clean) in [
        (0, Domain::NonShareable, true),
        (1, Domain::NonShareable, false),
        (1, Domain::Inner, true),
        (1, Domain::Outer, true),
        (1, Domain::System, true),
    ] {
        assert_eq!(run(cpu, domain).is_empty(), clean, "CPU {cpu}, {domain:?}");
    }
}

#[test]
fn power_for_oneself_isync_is_enough_behind_the_icbi() {
    // 603e UM 2.3.4.3.1, 405 UM: dcbst, sync, icbi, isync; 750GX UM 3.2: others need a sync more.
    let run = |cpu: u16| {
        let mut s = patched_area(Arch::Ppc64le, Features::empty(), COHERENT);
        s.store(0, DM + P, P, &[1, 2, 3, 4]);
        s.clean(0, DM + P, P);
        s.barrier(0, Barrier::Sync);
        s.icache(0, AREA, P);
        s.sync(0);
        s.publish(0, "entry");
        s.observe(cpu, "entry");
        s.sync(cpu);
        s.fetch(cpu, AREA, P, 4);
        rules(&s.run())
    };
    assert!(run(0).is_empty());
    assert_eq!(run(1), [MAINTENANCE]);
}

#[test]
fn a_fetch_by_an_old_translation_may_come_from_the_old_frame() {
    // Both frames are in the window of the address until the old translation is off the CPU.
    for flushed in [false, true] {
        let mut s = Story::new(Arch::Arm64);
        s.leaf(0, AREA, P, 1, NONE, ROX);
        s.fetch(1, AREA, P, 4);
        s.leaf(0, AREA, P, 1, ROX, NONE);
        s.dsb(0);
        if flushed {
            s.tlb_all(0, Reach::Broadcast);
            s.dsb(0);
        }
        s.leaf(0, AREA, P + 0x1000, 1, NONE, ROX);
        s.dsb(0);
        s.sync(1);
        s.fetch(1, AREA, P + 0x1000, 4);
        let report = s.run();
        let stale = rules(&report).contains(&RuleId::StaleTranslation);
        assert_eq!(stale, !flushed, "{:#?}", report.findings);
    }
}
