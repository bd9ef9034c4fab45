//! Translations that outlive the tables: who may still use them, and what ends that.

// Functions beside the tests may fail a test, too.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{KERNEL, P0, P1, Rig, runs};
use textbed_arch::{Arch, Features, Perm, PhysAddr, VirtAddr};
use textbed_event::{Access, ControlRegister, FaultReason, MemOrder};
use textbed_machine::{Machine, MachineConfig, Newest, Random, Stalest};

const ARM: Features = Features::ARM_EIS.union(Features::ARM_EOS);
const PPC: Features = Features::PPC_RADIX.union(Features::PPC_COHERENT_ICACHE);
const X86: Features = Features::X86_PSE.union(Features::X86_PCID);

/// Whether a store by `cpu` after a downgrade and `flush` can succeed, over all policies.
fn still_writable(
    (arch, features): (Arch, Features),
    flush: impl Fn(&mut Rig),
    cpu: textbed_arch::CpuId,
) -> BTreeSet<bool> {
    let seen = runs(
        |policy| Rig::new(arch, features, policy),
        |r| {
            let v = r.alias;
            r.m.protect(P0, KERNEL, v, 4 << 12, Perm::empty(), Perm::WRITE).unwrap();
            flush(r);
            r.m.store(cpu, v.offset(0x1008), &[1], MemOrder::Plain).is_ok()
        },
    );
    assert!(!seen.newest, "newest uses the tables");
    seen.all
}

fn tlbi(r: &mut Rig, cpu: textbed_arch::CpuId, name: &str) {
    let v = r.alias;
    r.m.tlbi(cpu, name, v, 4 << 12, 0).unwrap();
}

#[test]
fn a_downgrade_needs_the_whole_sequence() {
    type Row = (Arch, Features, &'static [&'static str], [bool; 2]);
    // Instructions on CPU 0; whether CPU 0 and CPU 1 may still store.
    let rows: &[Row] = &[
        (Arch::X86_64, X86, &[], [true, true]),
        (Arch::X86_64, X86, &["invlpg"], [false, true]),
        (Arch::Arm64, ARM, &[], [true, true]),
        (Arch::Arm64, ARM, &["dsb ishst", "tlbi vaale1is", "dsb ish"], [false, false]),
        (Arch::Arm64, ARM, &["tlbi vaale1is", "dsb ish"], [true, true]),
        (Arch::Arm64, ARM, &["dsb ishst", "tlbi vaale1is"], [true, true]),
        (Arch::Arm64, ARM, &["dsb ishst", "tlbi vaale1is", "dsb ishst"], [true, true]),
        (Arch::Arm64, ARM, &["dsb ishst", "tlbi vaale1is", "dmb ish", "isb"], [true, true]),
        (Arch::Arm64, ARM, &["dsb ishst", "tlbi vaale1is", "dsb nsh"], [true, true]),
        (Arch::Arm64, ARM, &["dsb ishst", "tlbi vaale1", "dsb nsh"], [false, true]),
        (Arch::Arm64, ARM, &["dsb ishst", "tlbi vmalle1is", "dsb ish"], [false, false]),
        (Arch::Ppc64le, PPC, &["ptesync", "tlbie", "eieio", "tlbsync", "ptesync"], [false, false]),
        (Arch::Ppc64le, PPC, &["tlbie", "eieio", "tlbsync", "ptesync"], [true, true]),
        (Arch::Ppc64le, PPC, &["ptesync", "tlbie", "ptesync"], [true, true]),
        (Arch::Ppc64le, PPC, &["ptesync", "tlbie", "tlbsync", "ptesync"], [true, true]),
        (Arch::Ppc64le, PPC, &["ptesync", "tlbie", "tlbsync", "eieio", "ptesync"], [true, true]),
        (Arch::Ppc64le, PPC, &["ptesync", "tlbie", "lwsync", "tlbsync", "ptesync"], [true, true]),
        (Arch::Ppc64le, PPC, &["ptesync", "tlbie", "sync", "tlbsync", "ptesync"], [false, false]),
        (Arch::Ppc64le, PPC, &["ptesync", "tlbie", "eieio", "tlbsync"], [true, true]),
        (Arch::Ppc64le, PPC, &["ptesync", "tlbie", "eieio", "tlbsync", "sync"], [true, true]),
        (Arch::Ppc64le, PPC, &["ptesync", "tlbiel", "ptesync"], [false, true]),
    ];
    for (arch, features, sequence, stale) in rows {
        for (cpu, stale) in [(P0, stale[0]), (P1, stale[1])] {
            let flush = |r: &mut Rig| {
                for name in *sequence {
                    if name.starts_with("tlbi") || *name == "invlpg" {
                        tlbi(r, P0, name);
                    } else {
                        r.op(P0, name, 0);
                    }
                }
            };
            let seen = still_writable((*arch, *features), flush, cpu);
            assert_eq!(seen.contains(&true), stale, "{arch} {sequence:?} {cpu}");
        }
    }
}

/// Arm ARM DDI 0487, TLBI VAE1IS: with a wrong TTL no entries need go.
#[test]
fn an_invalidation_that_names_another_level_leaves_the_leaf_to_who_wants_it() {
    // Leaf size, TTL, and whether the old leaf may still be used. Levels 3 and 2 of 4 KiB are 7
    // and 6; 15 and 11 are of other granules.
    for (shift, ttl, stale) in [
        (12, 0, false),
        (12, 7, false),
        (12, 6, true),
        (12, 15, true),
        (21, 0, false),
        (21, 6, false),
        (21, 7, true),
        (21, 11, true),
    ] {
        for heeded in [false, true] {
            let more = if heeded { Features::ARM_TTL } else { Features::empty() };
            let (len, full) = (2 << 20, Perm::KERNEL_RW);
            let seen = runs(
                |policy| {
                    let mut r = Rig::new(Arch::Arm64, ARM | more, policy);
                    r.alias = r.alias.offset(len);
                    r.m.map(P0, KERNEL, r.alias, PhysAddr(len), len, shift, full).unwrap();
                    r
                },
                |r| {
                    let v = r.alias;
                    r.m.protect(P0, KERNEL, v, len, Perm::empty(), Perm::WRITE).unwrap();
                    r.op(P0, "dsb ishst", 0);
                    let operand = v.0 >> 12 & ((1 << 44) - 1) | ttl << 44;
                    r.m.op_named(P0, "tlbi vaae1is", operand).unwrap();
                    r.op(P0, "dsb ish", 0);
                    r.m.store(P1, v, &[7], MemOrder::Plain).is_ok()
                },
            );
            assert!(!seen.newest, "newest uses the tables");
            assert_eq!(seen.all.contains(&true), stale && heeded, "{shift} {ttl} {heeded}");
        }
    }
}

#[test]
fn one_invalidation_takes_one_page_or_one_whole_large_leaf() {
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        for large in [false, true] {
            let features = Features::default_for(arch);
            let mut m = Machine::new(
                MachineConfig { features, ..MachineConfig::new(arch) },
                Box::new(Stalest),
            )
            .unwrap();
            let (v, len) = (common::alias(arch), 2 << 20);
            let shift = if large { 21 } else { 12 };
            m.map(P0, KERNEL, v, PhysAddr(len), len, shift, Perm::KERNEL_RW).unwrap();
            m.protect(P0, KERNEL, v, len, Perm::empty(), Perm::WRITE).unwrap();
            let at = v.offset(5 << 12);
            match arch {
                Arch::X86_64 => m.op_named(P0, "invlpg", at.0).unwrap(),
                Arch::Arm64 => {
                    m.op_named(P0, "dsb ishst", 0).unwrap();
                    m.op_named(P0, "tlbi vaae1is", at.0 >> 12 & ((1 << 44) - 1)).unwrap();
                    m.op_named(P0, "dsb ish", 0).unwrap();
                }
                _ => {
                    for name in ["ptesync", "tlbie", "eieio", "tlbsync", "ptesync"] {
                        m.op_named(P0, name, if name == "tlbie" { at.0 } else { 0 }).unwrap();
                    }
                }
            }
            let mut stores =
                |page: u64| m.store(P0, v.offset(page << 12), &[7], MemOrder::Plain).is_ok();
            assert!(!stores(5), "{arch} {large}");
            assert_eq!(stores(4), !large, "{arch}");
            assert_eq!(stores(6), !large, "{arch}");
        }
    }
}

#[test]
fn an_upgrade_faults_as_the_architecture_has_it() {
    // (architecture, features, what stalest's first store says, what its second says)
    let rows = [
        (Arch::X86_64, X86, Some(FaultReason::Spurious), None),
        (Arch::X86_64, X86 | Features::X86_AMD, None, None),
        (Arch::Ppc64le, PPC, None, None),
        (Arch::Arm64, ARM, Some(FaultReason::Permission), Some(FaultReason::Permission)),
    ];
    for (arch, features, first, second) in rows {
        let mut r = Rig::new(arch, features, Box::new(Stalest));
        let v = r.code;
        r.m.protect(P0, KERNEL, v, 4096, Perm::WRITE, Perm::empty()).unwrap();
        for reason in [first, second] {
            let got = r.m.store(P1, v, &[1], MemOrder::Plain);
            assert_eq!(got.err().map(|f| f.reason), reason, "{arch} {features:?}");
        }
        // A machine that held nothing sees the new permission at once.
        let mut r = Rig::new(arch, features, Box::new(Newest));
        r.m.protect(P0, KERNEL, v, 4096, Perm::WRITE, Perm::empty()).unwrap();
        r.m.store(P1, v, &[1], MemOrder::Plain).unwrap();
    }
}

#[test]
fn what_was_never_valid_is_never_held() {
    for seed in 0..50 {
        let mut r = Rig::new(Arch::Arm64, ARM, Box::new(Random::new(seed)));
        let v = r.alias.offset(1 << 30);
        let mut byte = [0];
        let fault = r.m.load(P1, v, &mut byte).unwrap_err();
        assert_eq!(
            (fault.virt, fault.access, fault.reason),
            (v, Access::Read, FaultReason::NotPresent)
        );
        r.m.map(P0, KERNEL, v, r.phys, 4096, 12, Perm::KERNEL_RO).unwrap();
        r.m.load(P1, v, &mut byte).unwrap();
    }
}

#[test]
fn power_invalidates_the_kernels_translations_by_process_0() {
    for (pid, stale) in [(0, false), (5, true)] {
        let mut r = Rig::new(Arch::Ppc64le, PPC, Box::new(Stalest));
        let v = r.alias;
        r.m.protect(P0, KERNEL, v, 4096, Perm::empty(), Perm::WRITE).unwrap();
        r.op(P0, "ptesync", 0);
        let row = textbed_arch::insn::by_name(Arch::Ppc64le, "tlbie").unwrap();
        r.m.op_with(P0, row, &[1 << 10, pid]).unwrap();
        r.ops(P0, &["eieio", "tlbsync", "ptesync"], 0);
        assert_eq!(r.m.store(P1, v, &[1], MemOrder::Plain).is_ok(), stale);
    }
}

/// A machine with a user space whose page at 0x10000 leads to frame 1, then to frame 2.
fn remapped(arch: Arch, between: impl Fn(&mut Machine, textbed_arch::SpaceId)) -> u8 {
    let config =
        MachineConfig { features: Features::default_for(arch), ..MachineConfig::new(arch) };
    let mut m = Machine::new(config, Box::new(Stalest)).unwrap();
    let space = m.new_space(P0).unwrap();
    let (v, frame) = (VirtAddr(0x10000), |n: u64| PhysAddr(n << 12));
    for n in 1..=2u8 {
        m.load_image(frame(u64::from(n)), &[n; 16]).unwrap();
    }
    // Read-only, so that no access ends in a conflict.
    let perm = Perm::KERNEL_RO - Perm::GLOBAL;
    m.map(P0, space, v, frame(1), 4096, 12, perm).unwrap();
    m.load_space(P0, space, 7, false).unwrap();
    m.replace(P0, space, v, frame(2), 12, perm).unwrap();
    between(&mut m, space);
    let mut byte = [0];
    m.load(P0, v, &mut byte).unwrap();
    byte[0]
}

#[test]
fn identifiers_and_loads_of_spaces() {
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        let x86 = arch == Arch::X86_64;
        assert_eq!(remapped(arch, |_, _| {}), 1);
        // A load of the space drops its translations on x86, unless it says not to.
        let again = |m: &mut Machine, s| m.load_space(P0, s, 7, false).unwrap();
        assert_eq!(remapped(arch, again), if x86 { 2 } else { 1 });
        assert_eq!(remapped(arch, |m, s| m.load_space(P0, s, 7, true).unwrap()), 1);
        // Another identifier, another translation.
        assert_eq!(remapped(arch, |m, s| m.load_space(P0, s, 8, true).unwrap()), 2);
        // Away and back.
        let away = |m: &mut Machine, s| {
            m.load_space(P0, KERNEL, 0, true).unwrap();
            m.load_space(P0, s, 7, true).unwrap();
        };
        assert_eq!(remapped(arch, away), 1);
    }
    let invpcid = |kind: u64, pcid: u64| {
        move |m: &mut Machine, _| {
            let row = textbed_arch::insn::by_name(Arch::X86_64, "invpcid").unwrap();
            m.op_with(P0, row, &[kind, pcid, 0x10000]).unwrap();
        }
    };
    for (kind, pcid, stale) in [(0, 7, 2), (0, 8, 1), (1, 7, 2), (1, 8, 1), (2, 0, 2), (3, 0, 2)] {
        assert_eq!(remapped(Arch::X86_64, invpcid(kind, pcid)), stale, "type {kind} of {pcid}");
    }
}

#[test]
fn a_space_used_before_is_still_held_and_one_never_used_is_not() {
    for (used, expected) in [(true, 1), (false, 2)] {
        let arch = Arch::Arm64;
        let config = MachineConfig { features: ARM, ..MachineConfig::new(arch) };
        let mut m = Machine::new(config, Box::new(Stalest)).unwrap();
        let space = m.new_space(P0).unwrap();
        let (v, perm) = (VirtAddr(0x10000), Perm::KERNEL_RO - Perm::GLOBAL);
        for n in 1..=2u8 {
            m.load_image(PhysAddr(u64::from(n) << 12), &[n; 16]).unwrap();
        }
        m.map(P0, space, v, PhysAddr(1 << 12), 4096, 12, perm).unwrap();
        if used {
            m.load_space(P1, space, 7, true).unwrap();
            m.load_space(P1, KERNEL, 0, true).unwrap();
        }
        m.replace(P0, space, v, PhysAddr(2 << 12), 12, perm).unwrap();
        m.load_space(P1, space, 7, true).unwrap();
        let mut byte = [0];
        m.load(P1, v, &mut byte).unwrap();
        assert_eq!(byte[0], expected);
    }
}

#[test]
fn a_flushing_load_forgets_what_its_identifier_stood_for() {
    for (no_flush, expected) in [(true, 1), (false, 2)] {
        let config = MachineConfig { features: X86, ..MachineConfig::new(Arch::X86_64) };
        let mut m = Machine::new(config, Box::new(Stalest)).unwrap();
        let (a, b) = (m.new_space(P0).unwrap(), m.new_space(P0).unwrap());
        let (v, perm) = (VirtAddr(0x10000), Perm::KERNEL_RW - Perm::GLOBAL);
        for n in 1..=2u8 {
            m.load_image(PhysAddr(u64::from(n) << 12), &[n; 16]).unwrap();
        }
        m.map(P0, a, v, PhysAddr(1 << 12), 4096, 12, perm).unwrap();
        m.load_space(P0, a, 7, false).unwrap();
        m.load_space(P0, b, 8, true).unwrap();
        m.load_space(P0, b, 7, no_flush).unwrap();
        m.replace(P0, a, v, PhysAddr(2 << 12), 12, perm).unwrap();
        m.load_space(P0, a, 7, true).unwrap();
        let mut byte = [0];
        m.load(P0, v, &mut byte).unwrap();
        assert_eq!(byte[0], expected);
    }
}

#[test]
fn global_entries_survive_a_space_load_and_end_with_pge() {
    let stale = |flush: &dyn Fn(&mut Rig)| {
        let mut r = Rig::new(Arch::X86_64, X86, Box::new(Stalest));
        let v = r.alias;
        r.m.protect(P0, KERNEL, v, 4096, Perm::empty(), Perm::WRITE).unwrap();
        flush(&mut r);
        r.m.store(P0, v, &[1], MemOrder::Plain).is_ok()
    };
    assert!(stale(&|r| r.m.load_space(P0, KERNEL, 0, false).unwrap()));
    let row = textbed_arch::insn::by_name(Arch::X86_64, "invpcid").unwrap();
    assert!(stale(&|r| r.m.op_with(P0, row, &[3]).unwrap()));
    assert!(!stale(&|r| r.m.op_with(P0, row, &[2]).unwrap()));
    assert!(!stale(&|r| {
        let cr4 = r.m.cr4(P0);
        r.m.set_control(P0, ControlRegister::Cr4, cr4 & !(1 << 7));
        r.m.set_control(P0, ControlRegister::Cr4, cr4);
    }));
}

#[test]
fn write_protect_off_ignores_read_only() {
    let mut r = Rig::new(Arch::X86_64, X86, Box::new(Newest));
    let v = r.code;
    assert!(r.m.store(P0, v, &[1], MemOrder::Plain).is_err());
    r.m.set_control(P0, ControlRegister::Cr0, 0x8000_0033);
    r.m.store(P0, v, &[1], MemOrder::Plain).unwrap();
    assert!(r.m.store(P1, v, &[1], MemOrder::Plain).is_err());
    r.m.set_control(P0, ControlRegister::Cr0, 0x8001_0033);
    assert!(r.m.store(P0, v, &[1], MemOrder::Plain).is_err());
}

#[test]
fn invlpgb_is_done_with_tlbsync() {
    let features = X86 | Features::X86_AMD | Features::X86_INVLPGB;
    for (sync, stale) in [(true, false), (false, true)] {
        let mut r = Rig::new(Arch::X86_64, features, Box::new(Stalest));
        let v = r.alias;
        r.m.protect(P0, KERNEL, v, 4096, Perm::empty(), Perm::WRITE).unwrap();
        r.m.op_named(P0, "invlpgb", v.0).unwrap();
        if sync {
            r.op(P0, "tlbsync", 0);
        }
        assert_eq!(r.m.store(P1, v, &[1], MemOrder::Plain).is_ok(), stale);
    }
}

/// Faults of a load by the other CPU after another frame was put under an address, with a break or
/// without, over all policies.
fn after_another_frame(arch: Arch, features: Features, broken: bool) -> BTreeSet<String> {
    let seen = runs(
        |policy| Rig::new(arch, features, policy),
        |r| {
            let (v, page) = (r.alias, PhysAddr(0x80_0000));
            if broken {
                r.m.unmap(P0, KERNEL, v, 4096).unwrap();
                let steps: &[&str] = match arch {
                    Arch::Arm64 => &["dsb ishst", "tlbi vmalle1is", "dsb ish"],
                    _ => &["ptesync", "tlbie", "eieio", "tlbsync", "ptesync"],
                };
                steps.iter().for_each(|step| tlb_step(r, step));
                r.m.map(P0, KERNEL, v, page, 4096, 12, Perm::KERNEL_RW).unwrap();
            } else {
                r.m.replace(P0, KERNEL, v, page, 12, Perm::KERNEL_RW).unwrap();
            }
            match r.m.load(P1, v, &mut [0; 4]) {
                Ok(_) => "fine".to_owned(),
                Err(fault) => fault.reason.text().to_owned(),
            }
        },
    );
    seen.all
}

fn tlb_step(r: &mut Rig, step: &str) {
    match step {
        "tlbie" | "tlbi vmalle1is" => tlbi(r, P0, step),
        barrier => r.m.op_named(P0, barrier, 0).unwrap(),
    }
}

#[test]
fn a_missing_break_may_end_in_a_conflict() {
    let conflict = |seen: &BTreeSet<String>| seen.iter().any(|s| s.contains("conflict"));
    for (arch, features) in [(Arch::Arm64, ARM), (Arch::Ppc64le, PPC | Features::PPC_TLBIE)] {
        let seen = after_another_frame(arch, features, false);
        assert!(conflict(&seen) && seen.contains("fine"), "{arch}: {seen:?}");
        let seen = after_another_frame(arch, features, true);
        assert_eq!(seen, BTreeSet::from(["fine".to_owned()]), "{arch}");
    }
    let seen = after_another_frame(Arch::X86_64, X86, false);
    assert!(!conflict(&seen), "x86: {seen:?}");
}
