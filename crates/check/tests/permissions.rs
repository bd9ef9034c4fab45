//! wx-mapping, wx-alias, wx-stale-translation, direct-map-leak, and statuses of windows.

mod common;

use common::*;
use textbed_arch::{
    Arch, VirtAddr,
    effect::{Barrier, Reach},
};
use textbed_check::{Coverage, Level, Options, WindowStatus, rules::RuleId};
use textbed_event::{Access, Facts, FaultReason, Flags, View, WindowPurpose};

#[test]
fn a_writable_mapping_that_becomes_executable_is_reported_when_its_call_returns() {
    let mut s = Story::new(Arch::X86_64);
    s.region(AREA, 0x4000, "bpf", "pack");
    s.leaf(0, AREA, P, 4, NONE, RW);
    s.call(0, "make_executable", |s, _| {
        s.leaf(0, AREA, P, 4, RW, RWX);
    });
    let report = s.run();
    let f = only(&report, RuleId::WxMapping);
    assert!(certain(f) && f.level == Level::Deny);
    assert_eq!(f.at.symbol.as_deref(), Some("bpf pack+0x0"));
    assert_eq!(f.at.calls, ["make_executable"]);
    assert!(f.message.contains("16 KiB"), "{}", f.message);
    assert_eq!(report.windows.len(), 1);
    assert_eq!(report.windows[0].frames, 4);
    assert_eq!(report.windows[0].status, WindowStatus::Violation);
    assert_eq!(report.windows[0].owner, "bpf pack");
}

#[test]
fn read_only_first_and_executable_then_is_no_window() {
    for arch in Arch::ALL {
        let mut s = Story::new(arch);
        s.leaf(0, AREA, P, 4, NONE, RW);
        s.call(0, "protect", |s, _| {
            s.leaf(0, AREA, P, 4, RW, RO);
            flush_everywhere(s);
            s.leaf(0, AREA, P, 4, RO, ROX);
        });
        let report = s.run();
        assert!(report.findings.is_empty(), "{arch}: {:#?}", report.findings);
        assert!(report.windows.is_empty(), "{arch}: {:#?}", report.windows);
    }
}

/// What drops every translation on both CPUs on each architecture.
fn flush_everywhere(s: &mut Story) {
    match s.arch() {
        Arch::X86_64 => {
            s.tlbi(0, Reach::Local, AREA, 0x4000);
            s.tlbi(1, Reach::Local, AREA, 0x4000);
        }
        Arch::Arm64 => {
            s.barrier(0, Barrier::DsbStore);
            s.tlbi(0, Reach::Broadcast, AREA, 0x4000);
            s.dsb(0);
        }
        _ => {
            s.barrier(0, Barrier::Ptesync);
            s.tlbi(0, Reach::Broadcast, AREA, 0x4000);
            s.barrier(0, Barrier::Eieio);
            s.barrier(0, Barrier::Tlbsync);
            s.barrier(0, Barrier::Ptesync);
        }
    }
}

#[test]
fn a_flip_without_flush_stays_open_through_the_old_translation() {
    for arch in Arch::ALL {
        let mut s = Story::new(arch);
        s.leaf(0, AREA, P, 4, NONE, RW);
        s.call(0, "protect", |s, _| {
            s.leaf(0, AREA, P, 4, RW, ROX);
        });
        let report = s.run();
        let f = only(&report, RuleId::WxStaleTranslation);
        assert!(certain(f), "{arch}");
        assert!(f.missing[0].contains("every cpu"), "{arch}: {:?}", f.missing);
        assert_eq!(report.findings.len(), 1);
    }
}

#[test]
fn a_writable_alias_does_not_hide_that_a_flush_is_missing() {
    for arch in Arch::ALL {
        for flushed in [false, true] {
            let mut s = Story::new(arch);
            s.leaf(0, DM + P, P, 4, NONE, RW);
            s.leaf(0, AREA, P, 4, NONE, RW);
            s.call(0, "protect", |s, _| {
                s.leaf(0, AREA, P, 4, RW, RO);
                if flushed {
                    flush_everywhere(s);
                }
                s.leaf(0, AREA, P, 4, RO, ROX);
            });
            let report = s.run();
            assert!(certain(only(&report, RuleId::WxAlias)), "{arch}");
            let stale = report.findings.iter().filter(|f| f.rule == RuleId::WxStaleTranslation);
            assert_eq!(stale.count(), usize::from(!flushed), "{arch}: {:#?}", report.findings);
        }
    }
}

#[test]
fn an_old_answer_that_gives_no_more_than_the_tables_is_no_window_of_its_own() {
    for arch in Arch::ALL {
        let mut s = Story::new(arch);
        s.leaf(0, AREA, P, 4, NONE, RW);
        s.call(0, "protect", |s, _| {
            s.leaf(0, AREA, P, 4, RW, RO); // old, and in force again below
            s.leaf(0, AREA, P, 4, RO, RWX);
        });
        assert_eq!(rules(&s.run()), [RuleId::WxMapping], "{arch}");
    }
}

#[test]
fn a_flip_that_is_flushed_inside_the_call_is_an_in_call_window() {
    for arch in Arch::ALL {
        let mut s = Story::new(arch);
        s.leaf(0, AREA, P, 4, NONE, RW);
        s.call(0, "protect", |s, _| {
            s.leaf(0, AREA, P, 4, RW, ROX);
            flush_everywhere(s);
        });
        let report = s.run();
        assert!(report.findings.is_empty(), "{arch}: {:#?}", report.findings);
        let [window] = report.windows.as_slice() else { panic!("{:#?}", report.windows) };
        assert_eq!(window.status, WindowStatus::InCall);
        assert!(window.closed.is_some() && window.longest_ns.is_some());
    }
}

#[test]
fn each_step_of_the_flush_is_needed() {
    // (architecture, the steps of a flush; dropping any one leaves the window open)
    type Step = fn(&mut Story);
    let x86: &[Step] =
        &[|s| s.tlbi(0, Reach::Local, AREA, 0x4000), |s| s.tlbi(1, Reach::Local, AREA, 0x4000)];
    let arm: &[Step] = &[
        |s| s.barrier(0, Barrier::DsbStore),
        |s| s.tlbi(0, Reach::Broadcast, AREA, 0x4000),
        |s| s.dsb(0),
    ];
    let ppc: &[Step] = &[
        |s| s.barrier(0, Barrier::Ptesync),
        |s| s.tlbi(0, Reach::Broadcast, AREA, 0x4000),
        |s| s.barrier(0, Barrier::Eieio),
        |s| s.barrier(0, Barrier::Tlbsync),
        |s| s.barrier(0, Barrier::Ptesync),
    ];
    for (arch, steps) in [(Arch::X86_64, x86), (Arch::Arm64, arm), (Arch::Ppc64le, ppc)] {
        for dropped in 0..=steps.len() {
            let mut s = Story::new(arch);
            s.leaf(0, AREA, P, 4, NONE, RW);
            s.call(0, "protect", |s, _| {
                s.leaf(0, AREA, P, 4, RW, ROX);
                for (i, step) in steps.iter().enumerate() {
                    if i != dropped {
                        step(s);
                    }
                }
            });
            let found = rules(&s.run());
            // Without the first barrier of arm64 and powerpc the invalidation came too early.
            let want: &[RuleId] = match dropped {
                0 if arch != Arch::X86_64 => &[RuleId::WxStaleTranslation, RuleId::MissingPteOrder],
                n if n < steps.len() => &[RuleId::WxStaleTranslation],
                _ => &[],
            };
            assert_eq!(found, want, "{arch} without step {dropped}");
        }
    }
}

#[test]
fn a_right_that_a_cpu_is_refused_though_the_tables_grant_it_lacks_a_flush_on_arm64() {
    for arch in Arch::ALL {
        for (access, granted) in [(Access::Exec, true), (Access::Write, false)] {
            let mut s = Story::new(arch);
            s.leaf(0, AREA, P, 4, NONE, RO);
            s.call(0, "protect", |s, _| {
                s.leaf(0, AREA, P, 4, RO, ROX);
            });
            let (virt, reason) = (VirtAddr(AREA + 8), FaultReason::Permission);
            s.emit(1, View::Fault { virt, access, reason });
            let report = s.run();
            let wanted = arch == Arch::Arm64 && granted;
            let stale = report.findings.iter().find(|f| f.rule == RuleId::StaleTranslation);
            assert_eq!(stale.is_some(), wanted, "{arch}");
            if let Some(stale) = stale {
                assert!(certain(stale) && stale.missing[0].contains("cpu 1"), "{stale:#?}");
            }
        }
    }
}

/// A CPU unmaps pages without a barrier, and they go back; where another CPU is given them, it
/// knows of that, and its barrier and flush end what is left of the old mapping.
#[test]
fn who_is_given_a_frame_flushes_for_who_unmapped_it() {
    for arch in [Arch::Arm64, Arch::Ppc64le] {
        for given_to in [0, 1] {
            let mut s = Story::new(arch);
            s.leaf(1, AREA, P, 4, NONE, RW);
            s.barrier(1, if arch == Arch::Arm64 { Barrier::DsbStore } else { Barrier::Ptesync });
            s.call(1, "free", |s, _| {
                s.leaf(1, AREA, P, 4, RW, NONE);
            });
            s.free(1, P, 4);
            s.alloc(given_to, P, 4, false);
            s.call(0, "protect", |s, _| {
                s.leaf(0, AREA + 0x10_0000, P, 4, NONE, ROX);
                flush_everywhere(s);
            });
            let stale = rules(&s.run()).contains(&RuleId::WxStaleTranslation);
            assert_eq!(stale, given_to == 1, "{arch}");
        }
    }
}

#[test]
fn an_invalidation_anywhere_in_a_large_leaf_drops_all_of_it() {
    let mut s = Story::new(Arch::X86_64);
    s.huge_leaf(0, AREA, 0x4000_0000, 21, 1, RW);
    s.call(0, "protect", |s, _| {
        let change = textbed_event::LeafChange::usual(1, 21, RW, ROX);
        s.emit(
            0,
            textbed_event::View::Leaf {
                virt: textbed_arch::VirtAddr(AREA),
                phys: textbed_arch::PhysAddr(0x4000_0000),
                change,
            },
        );
        s.tlbi(0, Reach::Local, AREA + 0x5000, 0x1000);
        s.tlbi(1, Reach::Local, AREA, 0x1000);
    });
    assert!(s.run().findings.is_empty());
}

#[test]
fn an_invalidation_that_names_another_leaf_size_leaves_the_old_answer() {
    for (shift, other) in [(12, 21), (21, 12)] {
        for leaf in [None, Some(shift), Some(other), Some(39)] {
            let mut s = Story::new(Arch::Arm64);
            s.huge_leaf(0, AREA, 0x4000_0000, shift, 1, RW);
            s.call(0, "protect", |s, _| {
                for (old, new) in [(RW, RO), (RO, ROX)] {
                    let change = textbed_event::LeafChange::usual(1, shift, old, new);
                    let virt = textbed_arch::VirtAddr(AREA);
                    let phys = textbed_arch::PhysAddr(0x4000_0000);
                    s.emit(0, textbed_event::View::Leaf { virt, phys, change });
                    s.barrier(0, Barrier::DsbStore);
                    s.tlbi_of(0, AREA, leaf);
                    s.dsb(0);
                }
            });
            let report = s.run();
            let fits = leaf.is_none_or(|leaf| leaf == shift);
            let stale = report.findings.iter().filter(|f| f.rule == RuleId::WxStaleTranslation);
            assert_eq!(stale.count(), usize::from(!fits), "{shift} {leaf:?}: {report:#?}");
        }
    }
}

#[test]
fn a_writable_direct_map_alias_of_code_is_an_alias_window() {
    let mut s = Story::new(Arch::Arm64);
    s.huge_leaf(0, DM, 0, 30, 1024, RW); // a tebibyte
    s.call(0, "load_module", |s, _| {
        s.leaf(0, AREA, P, 2, NONE, ROX);
    });
    let report = s.run();
    let f = only(&report, RuleId::WxAlias);
    assert!(certain(f));
    let textbed_check::Window::WriteExec { write_at, exec_at, frames, .. } = f.window else {
        panic!("{:?}", f.window)
    };
    assert_eq!((write_at.0, exec_at.0, frames), (DM + P, AREA, 2));
}

/// A right that a change leaves was one before, which is news where nobody told of the mapping.
#[test]
fn an_alias_that_is_told_of_by_its_change_is_a_window() {
    for (old, new) in [(NONE, RW), (RO, RW), (RW, RW), (RWX, RW)] {
        let mut s = Story::new(Arch::X86_64);
        s.leaf(0, AREA, P, 1, NONE, ROX);
        s.call(0, "change", |s, _| {
            s.leaf(0, DM + P, P, 1, old, new);
        });
        let report = s.run();
        let alias = report.findings.iter().find(|f| f.rule == RuleId::WxAlias);
        assert!(alias.is_some_and(certain), "{old:?} {new:?}: {report:#?}");
    }
}

/// The same rights as before are news where they lead elsewhere, or to more than before.
#[test]
fn an_alias_of_as_many_rights_is_a_window_where_it_leads_to_other_frames() {
    for (told, pages) in [(P + 0x10_0000, 1), (P - 0x1000, 2)] {
        let mut s = Story::new(Arch::X86_64);
        s.leaf(0, AREA, P, 1, NONE, ROX);
        let first = if pages == 2 { told } else { P };
        s.leaf(0, DM, told, 1, NONE, RW);
        s.call(0, "change", |s, _| {
            s.leaf(0, DM, first, pages, RW, RW);
        });
        let report = s.run();
        let alias = report.findings.iter().find(|f| f.rule == RuleId::WxAlias);
        assert!(alias.is_some_and(certain), "{told:x}: {report:#?}");
    }
}

#[test]
fn aliases_need_known_frames_and_one_mapping_does_not() {
    let mut s = Story::new(Arch::X86_64);
    s.header.facts -= Facts::PHYS;
    s.flags = Flags::PHYS_UNKNOWN;
    s.leaf(0, DM, 0, 16, NONE, RW);
    s.leaf(0, AREA, 0, 1, NONE, ROX);
    s.leaf(0, AREA + 0x10000, 0, 1, NONE, RWX);
    let report = s.run();
    assert_eq!(rules(&report), [RuleId::WxMapping]);
    assert_eq!(report.windows[0].pfn, None);
    assert!(matches!(coverage(&report, RuleId::WxAlias), Coverage::NotCheckable(_)));
    assert_eq!(coverage(&report, RuleId::WxMapping), Coverage::Checked(3));
}

#[test]
fn what_the_platform_never_protects_is_platform() {
    let mut s = Story::new(Arch::Ppc64le);
    s.huge_leaf(0, DM, 0, 30, 1, RW);
    s.permit(0, 1, WindowPurpose::Platform, 0, 1 << 30);
    s.leaf(0, AREA, P, 2, NONE, ROX);
    // A second writable mapping is none of the platform's.
    s.leaf(0, AREA + 0x10_0000, P + 0x1000, 1, NONE, RW);
    let report = s.run();
    let status: Vec<_> = report.windows.iter().map(|w| (w.status, w.frames)).collect();
    assert!(status.contains(&(WindowStatus::Platform, 2)), "{status:?}");
    assert!(status.contains(&(WindowStatus::Violation, 1)), "{status:?}");
    assert_eq!(rules(&report), [RuleId::WxAlias]);
}

#[test]
fn a_patchers_private_alias_is_protocol_and_only_where_it_is_loaded() {
    let mut s = Story::new(Arch::X86_64);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.permit(0, 1, WindowPurpose::PatchPrivate, P, 0x1000);
    s.in_space(5, |s| {
        s.leaf(0, 0x7000_0000, P, 1, NONE, RW);
    });
    s.load_space(0, 5, 1);
    s.load_space(0, 0, 0);
    s.in_space(5, |s| {
        s.leaf(0, 0x7000_0000, P, 1, RW, NONE);
        s.tlbi(0, Reach::Local, 0x7000_0000, 0x1000);
    });
    s.emit(0, textbed_event::View::WindowClosed { window: 1 });
    let report = s.run();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let [window] = report.windows.as_slice() else { panic!("{:#?}", report.windows) };
    assert_eq!(window.status, WindowStatus::Protocol);
    assert!(window.closed.is_some());
}

#[test]
fn the_same_alias_without_a_permit_is_a_violation() {
    let mut s = Story::new(Arch::X86_64);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.in_space(5, |s| {
        s.leaf(0, 0x7000_0000, P, 1, NONE, RW);
    });
    let closed = |s: Story| rules(&s.run());
    let mut loaded = Story::new(Arch::X86_64);
    std::mem::swap(&mut loaded, &mut s);
    loaded.load_space(0, 5, 1);
    assert_eq!(closed(loaded), [RuleId::WxAlias]);
}

#[test]
fn an_alias_in_a_space_that_nobody_uses_is_no_window() {
    let mut s = Story::new(Arch::X86_64);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.in_space(5, |s| {
        s.leaf(0, 0x7000_0000, P, 1, NONE, RW);
    });
    let report = s.run();
    assert!(report.windows.is_empty() && report.findings.is_empty());
}

#[test]
fn an_alias_left_behind_when_the_permit_ends_is_a_violation() {
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.permit(0, 1, WindowPurpose::PatchShared, P, 0x1000);
    s.leaf(0, AREA + 0x10_0000, P, 1, NONE, RW);
    s.emit(0, textbed_event::View::WindowClosed { window: 1 });
    assert_eq!(rules(&s.run()), [RuleId::WxAlias]);
}

#[test]
fn like_windows_are_counted() {
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    for round in 0..50 {
        s.permit(0, round, WindowPurpose::PatchShared, P, 0x1000);
        s.leaf(0, AREA + 0x10_0000, P, 1, NONE, RW);
        s.leaf(0, AREA + 0x10_0000, P, 1, RW, NONE);
        s.barrier(0, Barrier::DsbStore);
        s.tlbi(0, Reach::Broadcast, AREA + 0x10_0000, 0x1000);
        s.dsb(0);
        s.emit(0, textbed_event::View::WindowClosed { window: round });
    }
    let report = s.run();
    // While the leaf is there it is an alias, after that an old translation.
    assert_eq!(report.windows.len(), 2, "{:#?}", report.windows);
    assert!(report.windows.iter().all(|w| w.status == WindowStatus::Protocol && w.count == 50));
}

#[test]
fn frames_that_go_back_with_a_read_only_alias_leak() {
    let mut s = Story::new(Arch::X86_64);
    s.leaf(0, DM, 0, 1024, NONE, RW);
    s.alloc(0, P, 2, false);
    s.leaf(0, AREA, P, 2, NONE, RW);
    s.call(0, "make_read_only", |s, _| {
        s.leaf(0, AREA, P, 2, RW, RO);
        s.leaf(0, DM + P, P, 2, RW, RO);
        s.tlb_all(0, Reach::Local);
        s.tlb_all(1, Reach::Local);
    });
    s.call(0, "free_area", |s, _| {
        s.leaf(0, AREA, P, 2, RO, NONE);
        s.free(0, P, 2);
    });
    let report = s.run();
    let f = only(&report, RuleId::DirectMapLeak);
    assert!(certain(f));
    assert!(f.message.contains("8 KiB") && f.message.contains("r--"), "{}", f.message);
    assert!(f.notes[0].contains("faults at its first store"));
}

/// Where a translation that refuses is used until it is invalidated, the tables alone do not tell.
#[test]
fn frames_that_go_back_with_a_held_translation_of_their_alias_leak() {
    let story = |arch, flushed: u64| {
        let mut s = Story::new(arch);
        s.leaf(0, DM, 0, 1024, NONE, RW);
        s.alloc(0, P, 1, false);
        s.call(0, "hide", |s, _| {
            s.leaf(0, DM + P, P, 1, RW, RO);
            s.dsb(0);
            s.tlbi(0, Reach::Broadcast, DM + P, 4096);
            s.dsb(0);
            s.leaf(0, DM + P, P, 1, RO, NONE);
            s.dsb(0);
            s.tlbi(0, Reach::Broadcast, flushed, 4096);
            s.dsb(0);
            s.leaf(0, DM + P, P, 1, NONE, RW);
            s.dsb(0);
        });
        s.free(0, P, 1);
        s.run()
    };
    let report = story(Arch::Arm64, AREA);
    let f = only(&report, RuleId::DirectMapLeak);
    assert!(certain(f) && f.message.contains("older translation"), "{}", f.message);
    let other = f.notes.iter().find(|n| n.contains("invalidated another address"));
    assert!(other.is_some(), "{:?}", f.notes);
    assert!(story(Arch::Arm64, DM + P).findings.is_empty());
    // Whoever is refused looks again.
    assert!(story(Arch::Ppc64le, AREA).findings.iter().all(|f| f.rule != RuleId::DirectMapLeak));
}

#[test]
fn frames_that_go_back_as_they_came_do_not_leak() {
    let mut s = Story::new(Arch::X86_64);
    s.leaf(0, DM, 0, 1024, NONE, RW);
    s.alloc(0, P, 2, false);
    s.leaf(0, DM + P, P, 2, RW, RO);
    s.leaf(0, DM + P, P, 2, RO, NONE);
    s.tlb_all(0, Reach::Local);
    s.tlb_all(1, Reach::Local);
    s.leaf(0, DM + P, P, 2, NONE, RW);
    s.free(0, P, 2);
    let report = s.run();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(coverage(&report, RuleId::DirectMapLeak), Coverage::Checked(1));
}

#[test]
fn a_level_can_be_overridden() {
    let mut options = Options::default();
    options.levels.set(RuleId::WxMapping, Level::Warn);
    let mut s = Story::new(Arch::X86_64);
    s.leaf(0, AREA, P, 1, NONE, RWX);
    let report = s.run_with(options);
    assert_eq!(only(&report, RuleId::WxMapping).level, Level::Warn);
}

#[test]
fn a_mapping_that_rests_on_memory_is_possible() {
    let mut s = Story::new(Arch::X86_64);
    s.flags = Flags::FROM_MEMORY;
    s.leaf(0, AREA, P, 1, NONE, RWX);
    let report = s.run();
    let f = only(&report, RuleId::WxMapping);
    assert!(!certain(f) && f.level == Level::Warn);
}

#[test]
fn outside_calls_a_change_and_its_flush_are_one_act() {
    for between in [false, true] {
        let mut s = Story::new(Arch::Ppc64le);
        s.leaf(0, AREA, P, 1, NONE, RW);
        s.leaf(0, AREA, P, 1, RW, ROX);
        if between {
            s.fetch(0, DM, 0, 4);
        }
        flush_everywhere(&mut s);
        let report = s.run();
        let want = if between { WindowStatus::Violation } else { WindowStatus::InCall };
        assert_eq!(report.windows[0].status, want);
        assert_eq!(report.findings.len(), usize::from(between));
    }
}
