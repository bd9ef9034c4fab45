//! Errata as switches: what the manuals promise of an invalidation, and what some parts do.
//!
//! Workarounds as in Linux 6.18: arch/x86/mm/init.c (PCID is not used), arch/arm64/include/asm/
//! tlbflush.h (TLBI; DSB; TLBI), arch/powerpc/mm/book3s64/radix_tlb.c (ptesync; tlbie).

#![allow(clippy::unwrap_used)]

use textbed_arch::{Arch, CpuId, Features, Perm, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_machine::{Choice, DataOrder, Machine, MachineConfig, Policy};

const P0: CpuId = CpuId(0);
const P1: CpuId = CpuId(1);
const KERNEL: SpaceId = SpaceId::KERNEL;

/// The oldest translation, and every store waits as long as it may.
struct Old;

impl Policy for Old {
    fn choose(&mut self, choice: &Choice) -> usize {
        choice.options() - 1
    }
}

/// A page that both CPUs have written through, and that was made read-only in the tables.
fn rig(arch: Arch, erratum: Features) -> (Machine, VirtAddr) {
    let at = VirtAddr(match arch {
        Arch::X86_64 => 0xffff_ffff_c000_0000,
        Arch::Arm64 => 0xffff_8000_8000_0000,
        _ => 0xc008_0000_0000_0000,
    });
    let config = MachineConfig {
        features: Features::default_for(arch) | erratum,
        data_order: DataOrder::Architecture,
        ..MachineConfig::new(arch)
    };
    let mut m = Machine::new(config, Box::new(Old)).unwrap();
    let phys = m.alloc_frames(P0, 1, 12, true).unwrap().addr();
    m.map(P0, KERNEL, at, phys, 4096, 12, Perm::KERNEL_RW | Perm::GLOBAL).unwrap();
    for cpu in [P0, P1] {
        m.store(cpu, at, &[1], MemOrder::Release).unwrap();
    }
    m.protect(P0, KERNEL, at, 4096, Perm::empty(), Perm::WRITE).unwrap();
    (m, at)
}

fn writes(m: &mut Machine, cpu: CpuId, at: VirtAddr) -> bool {
    m.store(cpu, at, &[2], MemOrder::Release).is_ok()
}

#[test]
fn invlpg_may_leave_global_entries_while_pcids_are_on() {
    for (erratum, without_pcid, left) in [
        (Features::empty(), false, false),
        (Features::X86_INVLPG_MISS, false, true),
        (Features::X86_INVLPG_MISS, true, false),
    ] {
        let mut features = Features::default_for(Arch::X86_64) | erratum;
        features.set(Features::X86_PCID, !without_pcid);
        let (mut m, at) = rig_with(Arch::X86_64, features);
        assert!(writes(&mut m, P0, at), "the old entry serves");
        m.op_named(P0, "invlpg", at.0).unwrap();
        assert_eq!(writes(&mut m, P0, at), left, "{erratum:?} {without_pcid}");
    }
}

fn rig_with(arch: Arch, features: Features) -> (Machine, VirtAddr) {
    let (m, at) = rig(arch, Features::empty());
    let config = MachineConfig { features, ..m.config().clone() };
    let mut m = Machine::new(config, Box::new(Old)).unwrap();
    let phys = m.alloc_frames(P0, 1, 12, true).unwrap().addr();
    m.map(P0, KERNEL, at, phys, 4096, 12, Perm::KERNEL_RW | Perm::GLOBAL).unwrap();
    m.store(P0, at, &[1], MemOrder::Release).unwrap();
    m.protect(P0, KERNEL, at, 4096, Perm::empty(), Perm::WRITE).unwrap();
    (m, at)
}

#[test]
fn a_broadcast_tlbi_may_have_to_be_repeated() {
    for (erratum, left) in [(Features::empty(), false), (Features::ARM_REPEAT_TLBI, true)] {
        let (mut m, at) = rig(Arch::Arm64, erratum);
        let flush = |m: &mut Machine| {
            m.op_named(P0, "dsb ishst", 0).unwrap();
            m.op_named(P0, "tlbi vaae1is", at.0 >> 12 & ((1 << 44) - 1)).unwrap();
            m.op_named(P0, "dsb ish", 0).unwrap();
        };
        flush(&mut m);
        assert!(!writes(&mut m, P0, at), "its own CPU is never left out");
        assert_eq!(writes(&mut m, P1, at), left, "{erratum:?}");
        flush(&mut m);
        assert!(!writes(&mut m, P1, at), "{erratum:?}: the second one is enough");
    }
}

#[test]
fn the_second_tlbi_may_be_of_any_address_behind_a_barrier() {
    // What comes between the first and the second, and whether CPU 1 may still write then.
    for (between, left) in [(Some("dsb ish"), false), (Some("dsb nsh"), true), (None, true)] {
        let (mut m, at) = rig(Arch::Arm64, Features::ARM_REPEAT_TLBI);
        m.op_named(P0, "dsb ishst", 0).unwrap();
        m.op_named(P0, "tlbi vaae1is", at.0 >> 12 & ((1 << 44) - 1)).unwrap();
        if let Some(barrier) = between {
            m.op_named(P0, barrier, 0).unwrap();
        }
        m.op_named(P0, "tlbi vale1is", 0).unwrap();
        m.op_named(P0, "dsb ish", 0).unwrap();
        assert_eq!(writes(&mut m, P1, at), left, "{between:?}");
    }
}

#[test]
fn tlbie_may_not_wait_for_stores_of_other_threads() {
    for (erratum, left) in [(Features::empty(), 0), (Features::PPC_TLBIE_STQ, 1)] {
        let (mut m, at) = rig(Arch::Ppc64le, erratum);
        m.store(P1, at, &[3], MemOrder::Plain).unwrap();
        assert_eq!(m.waiting_stores(P1), 1);
        let flush = |m: &mut Machine| {
            m.op_named(P0, "ptesync", 0).unwrap();
            m.tlbi(P0, "tlbie", at, 4096, 0).unwrap();
            for name in ["eieio", "tlbsync", "ptesync"] {
                m.op_named(P0, name, 0).unwrap();
            }
        };
        flush(&mut m);
        assert_eq!(m.waiting_stores(P1), left, "{erratum:?}");
        flush(&mut m);
        assert_eq!(m.waiting_stores(P1), 0, "{erratum:?}: the second one is enough");
    }
}
