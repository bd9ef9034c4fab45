//! A machine with a page of code and a writable alias of it, and the runs of a program on it.

// Each test file uses a part; and this file is no test by itself to clippy.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeSet;

use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_machine::{Machine, MachineConfig, Newest, Policy, Random, Stalest};

pub(crate) const P0: CpuId = CpuId(0);
pub(crate) const P1: CpuId = CpuId(1);
pub(crate) const P2: CpuId = CpuId(2);
pub(crate) const KERNEL: SpaceId = SpaceId::KERNEL;

/// Where code is executed, by architecture.
pub(crate) fn code(arch: Arch) -> VirtAddr {
    VirtAddr(match arch {
        Arch::X86_64 => 0xffff_ffff_c000_0000,
        Arch::Arm64 => 0xffff_8000_8000_0000,
        _ => 0xc008_0000_0000_0000,
    })
}

/// Where its writable alias is.
pub(crate) fn alias(arch: Arch) -> VirtAddr {
    VirtAddr(match arch {
        Arch::X86_64 => 0xffff_8880_0000_0000,
        Arch::Arm64 => 0xffff_0000_0000_0000,
        _ => 0xc000_0000_0000_0000,
    })
}

pub(crate) struct Rig {
    pub(crate) m: Machine,
    pub(crate) code: VirtAddr,
    pub(crate) alias: VirtAddr,
    pub(crate) phys: PhysAddr,
}

impl Rig {
    /// Four pages of code, whose words are all 0x1000 (version 0) before anything runs.
    pub(crate) fn new(arch: Arch, features: Features, policy: Box<dyn Policy>) -> Rig {
        let config = MachineConfig { cpus: 3, features, ..MachineConfig::new(arch) };
        Rig::of(Machine::new(config, policy).unwrap())
    }

    /// The same on a machine made elsewhere.
    pub(crate) fn of(mut m: Machine) -> Rig {
        let arch = m.arch();
        let pfn = m.alloc_frames(P0, 4, 12, false).unwrap();
        let phys = pfn.addr();
        m.load_image(phys, &0x1000u32.to_le_bytes().repeat(4096)).unwrap();
        let (code, alias) = (code(arch), alias(arch));
        m.map(P0, KERNEL, code, phys, 4 << 12, 12, Perm::KERNEL_ROX).unwrap();
        m.map(P0, KERNEL, alias, phys, 4 << 12, 12, Perm::KERNEL_RW).unwrap();
        Rig { m, code, alias, phys }
    }

    pub(crate) fn arm(features: Features, policy: Box<dyn Policy>) -> Rig {
        let features = features | Features::ARM_EIS | Features::ARM_EOS;
        Rig::new(Arch::Arm64, features, policy)
    }

    /// Stores version `version` of the word at `offset` through the alias.
    pub(crate) fn str(&mut self, cpu: CpuId, offset: u64, version: u32) {
        let bytes = (0x1000 + version).to_le_bytes();
        self.m.store(cpu, self.alias.offset(offset), &bytes, MemOrder::Plain).unwrap();
    }

    /// Fetches the word at `offset`; returns its version.
    pub(crate) fn fetch(&mut self, cpu: CpuId, offset: u64) -> u32 {
        self.fetch_at(cpu, self.code.offset(offset))
    }

    pub(crate) fn fetch_at(&mut self, cpu: CpuId, virt: VirtAddr) -> u32 {
        let f = self.m.fetch(cpu, virt, 4).unwrap();
        u32::from_le_bytes(f.bytes.try_into().unwrap()) - 0x1000
    }

    pub(crate) fn load(&mut self, cpu: CpuId, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.m.load(cpu, self.alias.offset(offset), &mut bytes).unwrap();
        u32::from_le_bytes(bytes) - 0x1000
    }

    /// Carries out an instruction; addresses are offsets into the alias (`dc`, `dcbst`) or the
    /// code.
    pub(crate) fn op(&mut self, cpu: CpuId, name: &str, offset: u64) {
        let at = if name.starts_with("dc") { self.alias } else { self.code };
        self.m.op_named(cpu, name, at.offset(offset).0).unwrap();
    }

    pub(crate) fn ops(&mut self, cpu: CpuId, names: &[&str], offset: u64) {
        for name in names {
            self.op(cpu, name, offset);
        }
    }
}

/// What a program fetched, under `newest`, `stalest` and many seeds.
pub(crate) struct Seen<T> {
    pub(crate) newest: T,
    pub(crate) stalest: T,
    pub(crate) all: BTreeSet<T>,
}

pub(crate) const SEEDS: u64 = 400;

/// Runs a program under every policy.
pub(crate) fn runs<T: Ord + Clone>(
    make: impl Fn(Box<dyn Policy>) -> Rig,
    program: impl Fn(&mut Rig) -> T,
) -> Seen<T> {
    let run = |policy: Box<dyn Policy>| program(&mut make(policy));
    let (newest, stalest) = (run(Box::new(Newest)), run(Box::new(Stalest)));
    let mut all: BTreeSet<T> = (0..SEEDS).map(|seed| run(Box::new(Random::new(seed)))).collect();
    all.insert(newest.clone());
    all.insert(stalest.clone());
    Seen { newest, stalest, all }
}
