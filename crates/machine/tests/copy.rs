//! Copies of machines: they go the way of what they were copied from, and leave it alone.

#![allow(clippy::unwrap_used)]

mod common;

use common::{P0, Rig};
use textbed_arch::{Arch, CpuId, Features};
use textbed_event::MemOrder;
use textbed_machine::{
    DataOrder, Machine, MachineConfig, Newest, Policy, Random, SplitMix64, Stalest,
};

const CPUS: u64 = 3;

fn rig(arch: Arch, policy: Box<dyn Policy>) -> Rig {
    let features = match arch {
        Arch::Arm64 => Features::ARM_EIS | Features::ARM_EOS,
        _ => Features::default_for(arch),
    };
    let data_order = DataOrder::Architecture;
    let cpus = CPUS as u16;
    let config = MachineConfig { cpus, features, data_order, ..MachineConfig::new(arch) };
    Rig::of(Machine::new(config, policy).unwrap())
}

fn copy(of: &Rig, policy: Box<dyn Policy>) -> Rig {
    Rig { m: of.m.copy(policy), code: of.code, alias: of.alias, phys: of.phys }
}

fn operations(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &["mfence", "cpuid", "invlpg"],
        Arch::Arm64 => &["dc cvau", "dsb ish", "ic ivau", "isb", "dmb ish"],
        _ => &["dcbst", "sync", "icbi", "isync"],
    }
}

/// Loads, stores, fetches, maintenance and cross-calls by chance.
fn act(rig: &mut Rig, numbers: &mut SplitMix64, times: usize) {
    let arch = rig.m.arch();
    for _ in 0..times {
        let cpu = CpuId(numbers.below(CPUS) as u16);
        let offset = 4 * numbers.below(64);
        let (code, alias) = (rig.code.offset(offset), rig.alias.offset(offset));
        match numbers.below(5) {
            0 => {
                let word = (numbers.number() as u32).to_le_bytes();
                rig.m.store(cpu, alias, &word, MemOrder::Plain).unwrap();
            }
            1 => rig.m.load(cpu, alias, &mut [0; 4]).unwrap(),
            2 => drop(rig.m.fetch(cpu, code, 4).unwrap()),
            3 => {
                let to = CpuId(numbers.below(CPUS) as u16);
                rig.m.send_ipi(cpu, [to].into_iter().collect(), "function").unwrap();
                rig.m.serve_ipis(to, &mut |_, _| Ok(())).unwrap();
            }
            _ => {
                let all = operations(arch);
                let name = all[numbers.below(all.len() as u64) as usize];
                rig.m.op_named(cpu, name, code.0).unwrap();
            }
        }
    }
}

/// What a machine says of itself: its state, what memory has, and the events of what it does next.
fn left(rig: &mut Rig) -> (u128, Vec<u8>, Vec<String>) {
    let state = rig.m.fingerprint(&[(rig.phys, 0x4000)], &[]).unwrap();
    let mut bytes = vec![0; 256];
    rig.m.read_phys(rig.phys, &mut bytes).unwrap();
    let events = rig.m.take_batch().events;
    (state, bytes, events.iter().map(|e| format!("{e:?}")).collect())
}

type Make = fn() -> Box<dyn Policy>;

#[test]
fn a_machine_and_its_copies_go_the_same_way() {
    let policies: [Make; 3] =
        [|| Box::new(Newest), || Box::new(Stalest), || Box::new(Random::new(7))];
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        for seed in 0..5 {
            for make in policies {
                let mut rig = rig(arch, make());
                act(&mut rig, &mut SplitMix64(seed), 200);
                rig.m.take_batch();
                let mut copies = [copy(&rig, make()), copy(&rig, make())];
                let ends = copies.each_mut().map(|copy| {
                    act(copy, &mut SplitMix64(seed + 100), 200);
                    left(copy)
                });
                assert!(ends[0] == ends[1], "{arch} seed {seed}");
                // Where equal choices are answered alike, the machine itself does the same.
                if make().is_steady() {
                    act(&mut rig, &mut SplitMix64(seed + 100), 200);
                    assert!(left(&mut rig) == ends[0], "{arch} seed {seed}");
                }
            }
        }
    }
}

#[test]
fn what_a_copy_does_leaves_the_machine_alone() {
    for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
        let mut rig = rig(arch, Box::new(Stalest));
        act(&mut rig, &mut SplitMix64(1), 200);
        let mut other = copy(&rig, Box::new(Newest));
        let before = left(&mut rig);
        assert_eq!(left(&mut other), before, "{arch}: the same, with the same events");
        act(&mut other, &mut SplitMix64(2), 200);
        let after = left(&mut rig);
        assert_eq!((after.0, &after.1, after.2.len()), (before.0, &before.1, 0), "{arch}");
        assert_ne!(left(&mut other).1, before.1, "{arch}: it did store");
        assert!(rig.m.irqs_on(P0));
    }
}
