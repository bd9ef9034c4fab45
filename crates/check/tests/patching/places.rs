//! Where a store, a branch or maintenance goes: protection, landing pads, aliases.

use super::*;

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

/// A patch whose bytes went to the site's place in another page.
#[test]
fn a_patch_of_another_frame() {
    let story = |at: u64, bytes: &[u8], then: fn(&mut Story)| {
        let mut s = running(Arch::Arm64);
        s.leaf(0, DM + FRAME + 0x1000, FRAME + 0x1000, 1, NONE, RW);
        s.call(0, "patch", |s, _| {
            site(s, 0, AREA + 128, 4, false);
            s.store(0, DM + FRAME + 0x1000 + at, FRAME + 0x1000 + at, bytes);
            then(s);
        });
        s.run()
    };
    let word = [1, 2, 3, 4];
    let report = story(128, &word, |_| {});
    let found = only(&report, RuleId::WrongAlias);
    assert!(!certain(found) && found.message.contains("went to another frame"));
    assert!(found.because.is_some());
    let rules = |report| rules(&report);
    assert!(!rules(story(132, &word, |_| {})).contains(&RuleId::WrongAlias), "another place");
    assert!(!rules(story(128, &[0; 64], |_| {})).contains(&RuleId::WrongAlias), "much more");
    let both = story(128, &word, |s| put(s, 0, 128, &[1, 2, 3, 4]));
    assert!(!rules(both).contains(&RuleId::WrongAlias), "the site was patched, too");
    // It is another site's, whose patch comes first.
    let mut s = running(Arch::Arm64);
    s.leaf(0, AREA + 0x1000, FRAME + 0x1000, 1, NONE, ROX);
    s.leaf(0, DM + FRAME + 0x1000, FRAME + 0x1000, 1, NONE, RW);
    s.call(0, "patch", |s, _| {
        site(s, 0, AREA + 128, 4, false);
        site(s, 0, AREA + 0x1080, 4, false);
        s.store(0, DM + FRAME + 0x1080, FRAME + 0x1080, &[1, 2, 3, 4]);
    });
    assert!(!has(s, RuleId::WrongAlias));
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
