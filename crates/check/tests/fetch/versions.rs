//! What makes a version, and what old ones are reported as.

use super::*;

/// arm64: what was unmapped is seen by walks, and gone from all TLBs.
fn shootdown(s: &mut Story) {
    s.barrier(0, Barrier::DsbStore);
    s.tlb_all(0, Reach::Broadcast);
    s.dsb(0);
}

#[test]
fn a_stale_line_of_a_recycled_frame_is_a_version_too() {
    // CPU 1 ran other code in the frame, at another address, before it was freed.
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.fetch(1, AREA, P, 4);
    s.leaf(0, AREA, P, 1, ROX, NONE);
    shootdown(&mut s);
    s.leaf(0, AREA + 0x8000, P, 1, NONE, RW);
    s.store(0, AREA + 0x8000, P, &[1, 2, 3, 4]);
    s.leaf(0, AREA + 0x8000, P, 1, RW, RO);
    shootdown(&mut s);
    s.leaf(0, AREA + 0x8000, P, 1, RO, ROX);
    s.publish(0, "entry");
    s.observe(1, "entry");
    s.sync(1);
    s.fetch(1, AREA + 0x8000, P, 4);
    assert_eq!(rules(&s.run()), [MAINTENANCE]);
}

#[test]
fn another_frame_under_the_same_address_needs_a_sync() {
    for synchronised in [false, true] {
        let mut s = Story::new(Arch::Arm64);
        s.leaf(0, AREA, P, 1, NONE, ROX);
        s.fetch(1, AREA, P, 4);
        s.leaf(0, AREA, P, 1, ROX, NONE);
        shootdown(&mut s);
        s.leaf(0, AREA, P + 0x1000, 1, NONE, ROX);
        if synchronised {
            s.sync(1);
        }
        s.fetch(1, AREA, P + 0x1000, 4);
        let report = s.run();
        match synchronised {
            true => assert!(report.findings.is_empty(), "{:#?}", report.findings),
            false => assert!(!certain(only(&report, SYNC))),
        }
    }
}

#[test]
fn equal_bytes_make_no_version() {
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    s.flags = Flags::EQUAL_BYTES;
    s.store(0, DM + P, P, &[1, 2, 3, 4]);
    s.flags = Flags::default();
    s.fetch(1, AREA, P, 4);
    assert!(s.run().findings.is_empty());
}

#[test]
fn a_copy_loop_is_one_version_and_each_line_is_looked_at() {
    // 256 bytes in 8-byte stores; the third of four lines is not cleaned.
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    for at in (0..256).step_by(8) {
        s.store(0, DM + P + at, P + at, &[7; 8]);
    }
    for line in [0, 64, 192] {
        s.clean(0, DM + P + line, P + line);
    }
    s.dsb(0);
    for line in [0, 64, 128, 192] {
        s.icache(0, AREA + line, P + line);
    }
    s.dsb(0);
    s.publish(0, "entry");
    s.observe(1, "entry");
    s.sync(1);
    s.fetch(1, AREA, P, 128);
    s.fetch(1, AREA + 128, P + 128, 64);
    s.fetch(1, AREA + 192, P + 192, 64);
    let report = s.run();
    let f: &Finding = only(&report, MAINTENANCE);
    assert_eq!(f.at.virt.map(|v| v.0), Some(AREA + 128));
    assert_eq!(f.count, 1);
}

#[test]
fn a_source_that_records_no_maintenance_is_not_judged() {
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    s.header.facts -= Facts::MAINTENANCE;
    s.store(0, DM + P, P, &[1, 2, 3, 4]);
    s.fetch(1, AREA, P, 4);
    let report = s.run();
    assert!(report.findings.is_empty());
    for rule in [MAINTENANCE, SYNC] {
        assert!(matches!(coverage(&report, rule), Coverage::NotCheckable(_)));
    }
}

#[test]
fn a_loop_over_old_code_is_one_finding() {
    let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
    s.store(0, DM + P, P, &[1, 2, 3, 4]);
    s.publish(0, "entry");
    s.observe(1, "entry");
    for _ in 0..1000 {
        s.fetch(1, AREA, P, 4);
    }
    let report = s.run();
    assert_eq!(only(&report, MAINTENANCE).count, 1);
}

/// What may have been fetched ahead is other code where another frame was mapped, not where the
/// same frame was away for a while.
#[test]
fn code_that_was_not_mapped_for_a_while_is_no_other_code() {
    // Frames mapped one after the other, each unmapped before the next.
    for (frames, found) in [
        (&[P, P][..], false),
        (&[P, P + 0x1000], true),
        (&[P + 0x1000, P, P], true),
        (&[P, P + 0x1000, P], true),
        (&[P, P, P], false),
    ] {
        let mut s = Story::new(Arch::Arm64);
        s.sync(1);
        for (n, frame) in frames.iter().enumerate() {
            if n > 0 {
                s.leaf(0, AREA, frames[n - 1], 1, ROX, NONE);
                s.dsb(0);
                s.tlb_all(0, Reach::Broadcast);
                s.dsb(0);
            }
            s.leaf(0, AREA, *frame, 1, NONE, ROX);
            s.dsb(0);
        }
        s.fetch(1, AREA + 64, frames[frames.len() - 1] + 64, 4);
        let report = s.run();
        let seen = rules(&report).contains(&RuleId::MissingContextSync);
        assert_eq!(seen, found, "{frames:x?}: {:#?}", report.findings);
    }
    // What was fetched ahead comes from the frame that was mapped before.
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.sync(1);
    s.leaf(0, AREA, P, 1, ROX, NONE);
    s.dsb(0);
    s.tlb_all(0, Reach::Broadcast);
    s.dsb(0);
    s.leaf(0, AREA, P + 0x1000, 1, NONE, ROX);
    s.dsb(0);
    s.fetch(1, AREA, P, 4);
    assert!(rules(&s.run()).contains(&RuleId::MissingContextSync));
}

#[test]
fn a_promise_of_no_stale_code_is_a_promise_to_every_cpu() {
    use textbed_event::Promise;
    for (interrupts, kept) in [(true, true), (false, false)] {
        let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
        s.fetch(1, AREA, P, 8);
        s.call(0, "patch", |s, call| {
            let steps = protocol(Arch::Arm64, Features::empty());
            steps.iter().take_while(|(n, _)| *n != "publish").for_each(|(_, step)| step(s));
            s.sync(0);
            if interrupts {
                s.ipi(1, 0, 1, true);
            }
            s.promise(0, call, Promise::NoStaleCode, AREA, 8);
        });
        let report = s.run();
        if kept {
            assert!(report.findings.is_empty(), "{:#?}", report.findings);
        } else {
            let f = only(&report, RuleId::BrokenPromise);
            assert!(f.message.contains("cpu 1"), "{}", f.message);
            assert_eq!(f.blame, textbed_check::Blame::Callee);
        }
    }
}

#[test]
fn arm64_an_invalidation_of_everything_counts_where_it_reaches() {
    // B2.7.4: IC IALLU acts on its own CPU, IC IALLUIS on all; HCR_EL2.FB makes the one the other.
    use textbed_arch::effect::CacheScope;
    for mode in Mode::ALL {
        for (reach, runs_on, fb, found) in [
            (Reach::Broadcast, 1, false, false),
            (Reach::Local, 1, false, true),
            (Reach::Local, 1, true, false),
            (Reach::Local, 0, false, false),
        ] {
            let mut s = patched_area(Arch::Arm64, Features::empty(), Features::empty());
            s.header.features.set(Features::ARM_FB, fb);
            s.fetch(runs_on, AREA, P, 8);
            s.store(0, DM + P, P, &[1, 2, 3, 4, 5, 6, 7, 8]);
            s.clean(0, DM + P, P);
            s.dsb(0);
            let (virt, phys) = (textbed_arch::VirtAddr(0), textbed_arch::PhysAddr(0));
            s.emit(0, View::IcacheInvalidate { scope: CacheScope::All, reach, virt, phys });
            s.dsb(0);
            s.publish(0, "entry");
            if runs_on == 1 {
                s.observe(1, "entry");
            }
            s.sync(runs_on);
            s.fetch(runs_on, AREA, P, 8);
            let report = s.run_with(Options { mode, ..Options::default() });
            let what = format!("{mode:?} {reach:?} runs on {runs_on}, FB {fb}");
            if found {
                let f = only(&report, MAINTENANCE);
                assert!(f.missing[0].starts_with("ic ivau"), "{what}: {:?}", f.missing);
            } else {
                assert!(report.findings.is_empty(), "{what}: {:#?}", report.findings);
            }
        }
    }
}
