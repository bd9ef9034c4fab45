//! How long the machine's everyday operations take. Run with `cargo bench -p textbed-machine`.

use divan::{Bencher, black_box};
use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_machine::{CpuMask, Machine, MachineConfig, Newest, Stalest};

const P0: CpuId = CpuId(0);
const KERNEL: SpaceId = SpaceId::KERNEL;
const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

fn main() {
    divan::main();
}

fn base(arch: Arch) -> VirtAddr {
    VirtAddr(match arch {
        Arch::X86_64 => 0xffff_8880_0000_0000,
        Arch::Arm64 => 0xffff_0000_0000_0000,
        _ => 0xc000_0000_0000_0000,
    })
}

fn machine(arch: Arch, stalest: bool) -> Machine {
    let config = MachineConfig { memory_bytes: 1 << 40, ..MachineConfig::new(arch) };
    let policy: Box<dyn textbed_machine::Policy> =
        if stalest { Box::new(Stalest) } else { Box::new(Newest) };
    Machine::new(config, policy).expect("a machine")
}

/// 2 MiB of code at the base, in pages; and its writable alias 1 GiB further on.
fn with_code(arch: Arch, stalest: bool) -> Machine {
    let mut m = machine(arch, stalest);
    let (v, len) = (base(arch), 2 << 20);
    m.map(P0, KERNEL, v, PhysAddr(len), len, 12, Perm::KERNEL_ROX).expect("code");
    m.map(P0, KERNEL, v.offset(1 << 30), PhysAddr(len), len, 12, Perm::KERNEL_RW).expect("alias");
    m.take_batch();
    m
}

#[divan::bench(args = ARCHS)]
fn map_1_tib_in_1_gib_leaves(bencher: Bencher<'_, '_>, arch: Arch) {
    bencher.with_inputs(|| machine(arch, false)).bench_local_values(|mut m| {
        m.map(P0, KERNEL, base(arch), PhysAddr(0), 1 << 40, 30, Perm::KERNEL_RW).expect("mapped");
        m
    });
}

#[divan::bench(args = ARCHS)]
fn protect_1_tib_in_1_gib_leaves(bencher: Bencher<'_, '_>, arch: Arch) {
    let mut m = machine(arch, false);
    m.map(P0, KERNEL, base(arch), PhysAddr(0), 1 << 40, 30, Perm::KERNEL_RW).expect("mapped");
    let mut n = 0u32;
    bencher.bench_local(|| {
        n += 1;
        let (none, write) = (Perm::empty(), Perm::WRITE);
        let (set, clear) = if n.is_multiple_of(2) { (write, none) } else { (none, write) };
        m.protect(P0, KERNEL, base(arch), 1 << 40, set, clear).expect("changed");
        m.take_batch()
    });
}

/// One page made read-only or writable, and dropped by every CPU in an interrupt.
#[divan::bench(args = [2, 64])]
fn shootdown_x86(bencher: Bencher<'_, '_>, cpus: u16) {
    let mut config = MachineConfig::new(Arch::X86_64);
    config.cpus = cpus;
    let mut m = Machine::new(config, Box::new(Stalest)).expect("a machine");
    let v = base(Arch::X86_64);
    m.map(P0, KERNEL, v, PhysAddr(0x20_0000), 4096, 12, Perm::KERNEL_RW).expect("mapped");
    let mut n = 0u32;
    bencher.bench_local(|| {
        n += 1;
        let (none, write) = (Perm::empty(), Perm::WRITE);
        let (set, clear) = if n.is_multiple_of(2) { (write, none) } else { (none, write) };
        m.protect(P0, KERNEL, v, 4096, set, clear).expect("changed");
        m.op_named(P0, "invlpg", v.0).expect("dropped");
        let others = CpuMask::first(cpus).without(P0);
        m.ipi(P0, others, "flush", true, &mut |m, on| Ok(m.op_named(on, "invlpg", v.0)?))
            .expect("delivered");
        m.take_batch()
    });
}

#[divan::bench(args = ARCHS)]
fn map_and_unmap_512_pages(bencher: Bencher<'_, '_>, arch: Arch) {
    let mut m = machine(arch, false);
    let (v, len) = (base(arch), 2 << 20);
    bencher.bench_local(|| {
        m.map(P0, KERNEL, v, PhysAddr(0), len, 12, Perm::KERNEL_RW).expect("mapped");
        m.unmap(P0, KERNEL, v, len).expect("unmapped");
        m.take_batch()
    });
}

#[divan::bench(args = ARCHS)]
fn walk(bencher: Bencher<'_, '_>, arch: Arch) {
    let m = with_code(arch, false);
    let v = base(arch).offset(5 << 12);
    bencher.bench_local(|| m.lookup(KERNEL, black_box(v)));
}

#[divan::bench(args = ARCHS)]
fn fill_2_mib(bencher: Bencher<'_, '_>, arch: Arch) {
    bencher.with_inputs(|| with_code(arch, true)).bench_local_values(|mut m| {
        m.fill(P0, base(arch).offset(1 << 30), 2 << 20, &[0xcc]).expect("filled");
        m
    });
}

#[divan::bench(args = ARCHS)]
fn fetch_a_word(bencher: Bencher<'_, '_>, arch: Arch) {
    let mut m = with_code(arch, false);
    let v = base(arch);
    let mut n = 0u64;
    bencher.bench_local(|| {
        n += 1;
        if n.is_multiple_of(4096) {
            m.take_batch();
        }
        m.fetch(P0, v.offset(n % 1024 * 4), 4).expect("fetched").bytes
    });
}

#[divan::bench(args = ARCHS)]
fn store_and_fetch_stale(bencher: Bencher<'_, '_>, arch: Arch) {
    let mut m = with_code(arch, true);
    let sync = if arch == Arch::Arm64 { "isb" } else { "isync" };
    let sync = if arch == Arch::X86_64 { "cpuid" } else { sync };
    let v = base(arch);
    let mut n = 0u32;
    bencher.bench_local(|| {
        n += 1;
        if n.is_multiple_of(4096) {
            m.take_batch();
        }
        let bytes = n.to_le_bytes();
        m.store(P0, v.offset(1 << 30), &bytes, MemOrder::Plain).expect("stored");
        m.op_named(P0, sync, 0).expect("synchronised");
        m.fetch(P0, v, 4).expect("fetched").behind
    });
}

#[divan::bench]
fn cachesync_a_line(bencher: Bencher<'_, '_>) {
    let mut config = MachineConfig::new(Arch::Arm64);
    config.features = Features::ARM_EIS;
    let mut m = with_code(Arch::Arm64, true);
    let v = base(Arch::Arm64);
    let mut n = 0u32;
    bencher.bench_local(|| {
        n += 1;
        if n.is_multiple_of(4096) {
            m.take_batch();
        }
        m.store(P0, v.offset(1 << 30), &n.to_le_bytes(), MemOrder::Plain).expect("stored");
        for name in ["dc cvau", "dsb ish", "ic ivau", "dsb ish", "isb"] {
            m.op_named(P0, name, v.0).expect("carried out");
        }
        m.fetch(P0, v, 4).expect("fetched").behind
    });
}
