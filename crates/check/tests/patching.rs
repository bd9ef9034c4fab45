//! Rules about code that is replaced: for each a stream that breaks it and a twin that does not.
#![allow(clippy::unwrap_used)] // tests may

mod common;

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

#[test]
fn a_lock_that_a_call_needs_is_held_or_not() {
    let story = |taken: &str| {
        let mut s = running(Arch::X86_64);
        let (need, taken) = (s.rec.name("a"), s.rec.name(taken));
        s.emit(0, View::LockAcquired { lock: taken });
        s.call(0, "patch", |s, call| {
            s.emit(0, View::Needs { call, what: Need::LockHeld, lock: need });
        });
        s.emit(0, View::LockReleased { lock: taken });
        s
    };
    assert!(certain(only(&story("b").run(), RuleId::UnlockedPatch)));
    assert_eq!(found(story("a")), []);
}

#[test]
fn two_patchers_at_one_place_have_no_common_lock() {
    let story = |after: bool| {
        let mut s = running(Arch::Arm64);
        let one = s.enter(0, "patch");
        site(&mut s, 0, AREA, 4, false);
        if after {
            s.leave(0, one, 0);
        }
        s.call(1, "patch", |s, _| site(s, 1, AREA, 4, false));
        s
    };
    assert!(has(story(false), RuleId::UnlockedPatch));
    assert!(!has(story(true), RuleId::UnlockedPatch));
}

#[test]
fn a_patcher_that_runs_half_of_its_patch() {
    let story = |at: u64| {
        let mut s = running(Arch::Ppc64le);
        s.call(0, "patch", |s, _| {
            site(s, 0, AREA, 8, false);
            put(s, 0, 0, &[1, 2, 3, 4]);
            s.fetch(0, AREA + at, FRAME + at, 4);
            put(s, 0, 4, &[5, 6, 7, 8]);
        });
        s
    };
    assert!(has(story(4), RuleId::SelfPatch));
    assert!(!has(story(12), RuleId::SelfPatch));
}

#[test]
fn a_task_inside_of_what_is_replaced_or_freed() {
    let story = |at: u64, leaves: bool| {
        let mut s = running(Arch::Arm64);
        let task = s.rec.name("worker");
        let virt = VirtAddr(AREA + at);
        s.emit(1, View::TaskStands { task, virt, stands: true });
        if leaves {
            s.emit(1, View::TaskStands { task, virt, stands: false });
        }
        s
    };
    let patch = |mut s: Story| {
        s.call(0, "patch", |s, _| {
            site(s, 0, AREA, 8, false);
            put(s, 0, 0, &[1, 2, 3, 4]);
        });
        has(s, RuleId::NoQuiescence)
    };
    assert!(patch(story(4, false)));
    assert!(!patch(story(0, false)), "it runs all of the new code");
    assert!(!patch(story(4, true)));
    let free = |mut s: Story| {
        s.free(0, FRAME, 1);
        has(s, RuleId::NoQuiescence)
    };
    assert!(free(story(0, false)));
    assert!(!free(story(0, true)));
}

#[test]
fn a_trap_that_nobody_knows() {
    let story = |registered: bool| {
        let mut s = running(Arch::X86_64);
        for registered in [true, registered] {
            s.emit(0, View::TrapHandler { virt: VirtAddr(AREA), len: 5, registered });
        }
        s.emit(1, View::Trap { virt: VirtAddr(AREA), vector: 3 });
        s
    };
    assert!(certain(only(&story(false).run(), RuleId::PatchMetadata)));
    assert_eq!(found(story(true)), []);
}

/// Versions that nobody can reach are not kept, nor more than a few others: that one of them was a
/// trap is.
#[test]
fn a_trap_that_is_not_kept_is_known_by_its_place() {
    let story = |arch, old: &[u8], many| {
        let new = [0x90; 4];
        let mut s = running(arch);
        s.emit(0, View::TrapHandler { virt: VirtAddr(AREA), len: 4, registered: true });
        put(&mut s, 0, 0, old);
        [0, 1, 0, 1].into_iter().for_each(|p| s.sync(p));
        for byte in 1..=many {
            put(&mut s, 0, 0, &new.map(|b| b ^ byte));
            s.dsb(0);
        }
        s.emit(0, View::TrapHandler { virt: VirtAddr(AREA), len: 4, registered: false });
        let report = s.run_with(Options { mode: Mode::Observed, ..Options::default() });
        report.findings.iter().any(|f| f.rule == RuleId::PatchMetadata)
    };
    let traps = [(Arch::X86_64, [0xcc; 4]), (Arch::Arm64, [0x00, 0x20, 0x20, 0xd4])];
    for (arch, trap) in traps {
        for many in [1, 12] {
            assert!(story(arch, &trap, many), "{arch}, {many} stores behind the trap");
            assert!(!story(arch, &[7; 4], many), "{arch}: no trap");
        }
    }
}

#[test]
fn a_site_in_memory_that_went_back() {
    let story = |freed: bool| {
        let mut s = running(Arch::X86_64);
        if freed {
            s.free(0, FRAME, 1);
        }
        site(&mut s, 0, AREA, 5, true);
        has(s, RuleId::PatchMetadata)
    };
    assert!(story(true) && !story(false));
}

/// A list that named a place before its memory was given back means what lay there then, also where
/// the memory is in use again; one that got it since means what lies there now.
#[test]
fn a_list_that_outlives_the_memory_of_its_sites() {
    let area = |s: &mut Story, made: bool| {
        let (virt, len) = (VirtAddr(AREA), 0x1000);
        s.emit(
            0,
            if made {
                View::AreaMade { virt, len, shift: 12 }
            } else {
                View::AreaRemoved { virt, len }
            },
        );
    };
    let list = |s: &mut Story, begins| {
        s.emit(0, View::ListedSite { virt: VirtAddr(AREA), begins });
    };
    // What happens between the entry and its use, and how many findings there are.
    for (freed, reused, again, wanted) in [
        (false, false, false, 0),
        (true, false, false, 1),
        (true, true, false, 1),
        (true, true, true, 0),
    ] {
        let mut s = running(Arch::X86_64);
        area(&mut s, true);
        list(&mut s, true);
        if freed {
            area(&mut s, false);
        }
        if reused {
            area(&mut s, true);
        }
        if again {
            list(&mut s, true);
        }
        list(&mut s, false);
        site(&mut s, 0, AREA, 5, true);
        let report = s.run();
        let told = report.findings.iter().filter(|f| f.rule == RuleId::PatchMetadata);
        let told: Vec<bool> = told.map(certain).collect();
        assert_eq!(told, vec![true; wanted], "{freed} {reused} {again}");
    }
}

#[test]
fn a_store_that_protection_should_stop() {
    let story = |wp: bool, virt: u64| {
        let mut s = running(Arch::X86_64);
        let value = if wp { 0x8001_0033 } else { 0x8000_0033 };
        s.emit(0, View::Control { register: ControlRegister::Cr0, value });
        s.store(0, virt, FRAME, &[0xcc]);
        s
    };
    let report = story(false, AREA).run();
    assert!(only(&report, RuleId::WriteThroughReadOnly).message.contains("CR0.WP"));
    assert!(!has(story(true, DM + FRAME), RuleId::WriteThroughReadOnly));
    let fault = |access| {
        let mut s = running(Arch::Arm64);
        let reason = FaultReason::Permission;
        s.emit(0, View::Fault { virt: VirtAddr(AREA), access, reason });
        has(s, RuleId::WriteThroughReadOnly)
    };
    assert!(fault(Access::Write) && !fault(Access::Read));
}

#[test]
fn an_indirect_branch_needs_its_pad() {
    let story = |on: bool, pad: &[u8], indirect: bool| {
        let mut s = Story::new(Arch::X86_64);
        let value = if on { 1 << 23 } else { 0 };
        s.emit(1, View::Control { register: ControlRegister::Cr4, value });
        s.leaf(0, DM + FRAME, FRAME, 1, NONE, RW);
        put(&mut s, 0, 0, pad);
        s.leaf(0, AREA, FRAME, 1, NONE, ROX);
        s.emit(1, View::Branch { from: VirtAddr(AREA + 64), to: VirtAddr(AREA), indirect });
        has(s, RuleId::MissingLandingPad)
    };
    let endbr = [0xf3, 0x0f, 0x1e, 0xfa];
    assert!(story(true, &[0x90; 4], true));
    assert!(!story(true, &endbr, true));
    assert!(!story(true, &[0x90; 4], false));
    assert!(!story(false, &[0x90; 4], true));
}

/// Returns may arrive anywhere, calls on arm64 not at a pad for jumps (Arm ARM C6.2.41).
#[test]
fn a_return_needs_no_pad_and_a_call_the_right_one() {
    let story = |insn: u32, pad: [u8; 4]| {
        let row = textbed_arch::insn::decode(Arch::Arm64, &insn.to_le_bytes()).unwrap().row;
        let mut s = Story::new(Arch::Arm64);
        s.emit(1, View::Control { register: ControlRegister::Sctlr, value: 1 << 36 });
        s.leaf(0, DM + FRAME, FRAME, 1, NONE, RW);
        put(&mut s, 0, 0, &pad);
        s.leaf(0, AREA, FRAME, 1, NONE, ROX);
        let (from, to, indirect) = (VirtAddr(AREA + 64), VirtAddr(AREA), true);
        s.emit_op(1, textbed_event::OpId(row.id.0), View::Branch { from, to, indirect });
        has(s, RuleId::MissingLandingPad)
    };
    let (blr, br, ret) = (0xd63f_0140, 0xd61f_0140, 0xd65f_03c0);
    let (c, j, nop) =
        ([0x5f, 0x24, 0x03, 0xd5], [0x9f, 0x24, 0x03, 0xd5], [0x1f, 0x20, 0x03, 0xd5]);
    let found: Vec<bool> =
        [(blr, c), (blr, j), (blr, nop), (br, c), (br, j), (br, nop), (ret, nop)]
            .map(|(insn, pad)| story(insn, pad))
            .to_vec();
    assert_eq!(found, [false, true, true, false, false, true, false]);
}

/// A list that outlives its memory: the frame went back, or nothing is mapped there any more.
#[test]
fn a_site_whose_memory_is_gone() {
    let story = |removed: bool, then: fn(&mut Story)| {
        let mut s = running(Arch::Arm64);
        if removed {
            s.emit(0, View::AreaRemoved { virt: VirtAddr(AREA), len: 64 });
        }
        then(&mut s);
        s.call(0, "patch", |s, _| site(s, 0, AREA, 4, false));
        has(s, RuleId::PatchMetadata)
    };
    assert!(story(true, |_| {}), "an allocator inside of the area has it");
    assert!(story(true, |s| {
        s.leaf(0, AREA, FRAME, 1, ROX, NONE);
    }));
    assert!(!story(false, |_| {}));
    assert!(
        !story(true, |s| {
            s.emit(0, View::AreaMade { virt: VirtAddr(AREA), len: 64, shift: 6 });
        }),
        "it was handed out again"
    );
    assert!(
        !story(true, |s| {
            s.leaf(0, AREA, FRAME, 1, ROX, NONE);
            s.leaf(0, AREA, FRAME, 1, NONE, ROX);
        }),
        "somebody has mapped the address again"
    );
    // Who runs there is after its end, whether the fetch goes through or not.
    let runs = |made: bool, fault: bool| {
        let mut s = running(Arch::Arm64);
        s.emit(0, View::AreaRemoved { virt: VirtAddr(AREA), len: 64 });
        if made {
            s.emit(0, View::AreaMade { virt: VirtAddr(AREA), len: 64, shift: 6 });
            s.leaf(0, AREA, FRAME, 1, ROX, NONE);
        }
        if fault {
            let (virt, access) = (VirtAddr(AREA), Access::Exec);
            s.emit(1, View::Fault { virt, access, reason: FaultReason::NotPresent });
        } else {
            s.fetch(1, AREA, FRAME, 16);
        }
        s.run()
    };
    let found = |made, fault| certain(only(&runs(made, fault), RuleId::ExecAfterFree));
    assert!(found(false, false) && found(false, true));
    // Handed out again it may be code of somebody else; if it is none, it was code before.
    let none = |report: &textbed_check::Report| {
        report.findings.iter().all(|f| f.rule != RuleId::ExecAfterFree)
    };
    assert!(none(&runs(true, false)) && !found(true, true));
    let mut s = running(Arch::Arm64);
    s.emit(0, View::AreaRemoved { virt: VirtAddr(AREA), len: 64 });
    s.emit(0, View::AreaMade { virt: VirtAddr(AREA), len: 64, shift: 6 });
    s.leaf(0, AREA, FRAME, 1, ROX, NONE);
    s.leaf(0, AREA, FRAME, 1, NONE, ROX);
    let (virt, access) = (VirtAddr(AREA), Access::Exec);
    s.emit(1, View::Fault { virt, access, reason: FaultReason::NotPresent });
    assert!(none(&s.run()), "the fault was spurious");
}

#[test]
fn a_comparison_that_fails_is_settled_refused_or_ignored() {
    let compare = |s: &mut Story, equal| {
        let bytes = s.rec.bytes(&[0x0f, 0x1f]);
        let (virt, phys) = (VirtAddr(AREA), textbed_arch::PhysAddr(FRAME));
        s.emit(0, View::Compared { virt, phys, bytes, equal });
    };
    let story = |settled: bool, stored: bool| {
        let mut s = running(Arch::X86_64);
        s.call(0, "patch", |s, _| {
            compare(s, false);
            if settled {
                compare(s, true);
            }
            if stored {
                put(s, 0, 0, &[0xcc]);
            }
        });
        s
    };
    assert!(!certain(only(&story(false, false).run(), RuleId::VerifyMismatch)));
    assert!(certain(only(&story(false, true).run(), RuleId::VerifyMismatch)));
    assert!(!has(story(true, true), RuleId::VerifyMismatch));
    // As expected, and not yet what it will be: the usual case of a patcher that asks for both.
    let mut s = running(Arch::X86_64);
    s.call(0, "patch", |s, _| {
        compare(s, true);
        compare(s, false);
        put(s, 0, 0, &[0xcc]);
    });
    assert!(!has(s, RuleId::VerifyMismatch));
}

#[test]
fn maintenance_beside_the_code_or_of_another_frame() {
    let story = |virt: u64, phys: u64| {
        let mut s = Story::new(Arch::Arm64);
        s.leaf(0, DM + FRAME, FRAME, 4, NONE, RW);
        s.fill(0, DM + FRAME, FRAME, 256, &[1, 2, 3, 4]);
        s.leaf(0, AREA, FRAME, 1, NONE, ROX);
        s.clean(0, virt, phys);
        s.dsb(0);
        s.icache(0, virt, phys);
        s.dsb(0);
        s.sync(0);
        s.ipi(1, 0, 1, true);
        s.fetch(1, AREA + 64, FRAME + 64, 4);
        found(s)
    };
    assert!(story(AREA, FRAME).contains(&RuleId::WrongRange));
    let beside = 0x1000;
    assert!(story(AREA + beside + 64, FRAME + beside + 64).contains(&RuleId::WrongAlias));
    assert_eq!(story(AREA + 64, FRAME + 64), []);
    // The right lines, but only cleaned: what is missing is not a matter of where.
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, DM + FRAME, FRAME, 1, NONE, RW);
    s.fill(0, DM + FRAME, FRAME, 128, &[1, 2, 3, 4]);
    s.leaf(0, AREA, FRAME, 1, NONE, ROX);
    s.clean(0, AREA, FRAME);
    s.clean(0, AREA + 64, FRAME + 64);
    s.dsb(0);
    s.ipi(1, 0, 1, true);
    s.fetch(1, AREA + 64, FRAME + 64, 4);
    assert_eq!(found(s), [RuleId::MissingIcacheMaintenance]);
}

#[test]
fn a_flush_of_one_alias_only_or_of_a_part() {
    let ro = Perm::KERNEL_RO;
    let story = |pages: u32, flushes: &[(u64, u64)]| {
        let mut s = Story::new(Arch::X86_64);
        s.leaf(0, DM + FRAME, FRAME, pages, NONE, RW);
        s.leaf(0, AREA, FRAME, pages, NONE, ROX);
        s.call(0, "protect", |s, _| {
            s.leaf(0, DM + FRAME, FRAME, pages, RW, ro);
            for (virt, len) in flushes {
                for cpu in [0, 1] {
                    s.tlbi(cpu, Reach::Local, *virt, *len);
                }
            }
        });
        rules(&s.run())
    };
    assert!(story(1, &[(AREA, 4096)]).contains(&RuleId::WrongAlias));
    assert!(story(2, &[(DM + FRAME, 4096)]).contains(&RuleId::WrongRange));
    let whole = story(2, &[(DM + FRAME, 4096), (DM + FRAME + 4096, 4096)]);
    assert!(!whole.contains(&RuleId::WrongRange) && !whole.contains(&RuleId::WrongAlias));
    // All of it was flushed, and not waited for: what is missing is not a matter of where.
    let mut s = Story::new(Arch::Arm64);
    s.leaf(0, DM + FRAME, FRAME, 1, NONE, RW);
    s.leaf(0, AREA, FRAME, 1, NONE, ROX);
    s.call(0, "protect", |s, _| {
        s.leaf(0, DM + FRAME, FRAME, 1, RW, ro);
        s.dsb(0);
        s.tlbi(0, Reach::Broadcast, DM + FRAME, 4096);
    });
    let waited = found(s);
    assert!(!waited.contains(&RuleId::WrongRange) && !waited.contains(&RuleId::WrongAlias));
}

#[test]
fn a_call_in_a_context_that_it_cannot_have() {
    let story = |what: Need, flags: Flags, stopped: bool| {
        let mut s = running(Arch::X86_64);
        s.emit(0, View::StopMachine { begin: stopped });
        s.flags = flags;
        s.call(0, "work", |s, call| {
            let lock = textbed_event::NameId::NONE;
            s.emit(0, View::Needs { call, what, lock });
        });
        has(s, RuleId::WrongContext)
    };
    let (on, off) = (Flags::default(), Flags::IRQS_OFF);
    let nmi = Flags::default().in_context(textbed_event::Context::Nmi);
    assert!(story(Need::MaySleep, off, false) && !story(Need::MaySleep, on, false));
    assert!(story(Need::MaySleep, on, true));
    assert!(story(Need::IrqsOn, off, false) && !story(Need::IrqsOn, on, false));
    assert!(story(Need::IrqsOff, on, false) && !story(Need::IrqsOff, off, false));
    assert!(story(Need::NotInNmi, nmi, false) && !story(Need::NotInNmi, on, false));
    assert!(story(Need::TaskContext, nmi, false) && !story(Need::TaskContext, on, false));
    assert!(story(Need::OthersStopped, on, false) && !story(Need::OthersStopped, on, true));
    assert!(story(Need::AloneAtBoot, on, false) && !story(Need::AloneAtBoot, Flags::BOOT, false));
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
