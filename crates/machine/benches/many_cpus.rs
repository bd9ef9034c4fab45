//! What CPUs cost by their number, in time and in memory: made, in use, patched under, compared,
//! copied. Run with `cargo bench -p textbed-machine --bench many_cpus`.

use divan::{AllocProfiler, Bencher};
use textbed_arch::{Arch, CpuId, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_machine::{CpuMask, Machine, MachineConfig, Stalest};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const P0: CpuId = CpuId(0);
const KERNEL: SpaceId = SpaceId::KERNEL;
const CPUS: [u16; 3] = [1, 8, 64];
const PAGES: u64 = 64;
/// From code to its writable alias.
const ALIAS: u64 = 1 << 30;

fn main() {
    divan::main();
}

fn machine(cpus: u16) -> Machine {
    let config = MachineConfig { cpus, ..MachineConfig::new(Arch::Arm64) };
    Machine::new(config, Box::new(Stalest)).expect("a machine")
}

fn code() -> VirtAddr {
    VirtAddr(0xffff_8000_8000_0000)
}

/// Code and its alias, which every CPU has executed and read a word of each page of.
fn in_use(cpus: u16) -> Machine {
    let mut m = machine(cpus);
    let (phys, len) = (PhysAddr(2 << 20), PAGES << 12);
    m.map(P0, KERNEL, code(), phys, len, 12, Perm::KERNEL_ROX).expect("code");
    m.map(P0, KERNEL, code().offset(ALIAS), phys, len, 12, Perm::KERNEL_RW).expect("alias");
    for cpu in (0..cpus).map(CpuId) {
        for page in 0..PAGES {
            let at = code().offset(page << 12);
            m.fetch(cpu, at, 4).expect("fetched");
            m.load(cpu, at.offset(ALIAS), &mut [0; 4]).expect("loaded");
        }
    }
    m.take_batch();
    m
}

#[divan::bench(args = CPUS)]
fn make(cpus: u16) -> Machine {
    machine(cpus)
}

#[divan::bench(args = CPUS)]
fn make_and_use(cpus: u16) -> Machine {
    in_use(cpus)
}

/// A word of code replaced, cleaned and invalidated, and every CPU synchronised in an interrupt.
#[divan::bench(args = CPUS)]
fn patch_a_word(bencher: Bencher<'_, '_>, cpus: u16) {
    let mut m = in_use(cpus);
    let mut n = 0u32;
    bencher.bench_local(|| {
        n += 1;
        let alias = code().offset(ALIAS);
        m.store(P0, alias, &n.to_le_bytes(), MemOrder::Plain).expect("stored");
        for (name, at) in [("dc cvau", alias), ("dsb ish", alias)] {
            m.op_named(P0, name, at.0).expect("cleaned");
        }
        for name in ["ic ivau", "dsb ish", "isb"] {
            m.op_named(P0, name, code().0).expect("invalidated");
        }
        m.ipi(P0, CpuMask::first(cpus), "sync", true, &mut |m, on| Ok(m.op_named(on, "isb", 0)?))
            .expect("delivered");
        for cpu in (0..cpus).map(CpuId) {
            m.fetch(cpu, code(), 4).expect("fetched");
        }
        m.take_batch()
    });
}

/// A number for the whole state.
#[divan::bench(args = CPUS)]
fn fingerprint(bencher: Bencher<'_, '_>, cpus: u16) {
    let m = in_use(cpus);
    bencher.bench_local(|| m.fingerprint(&[], &[]).expect("a number"));
}

/// A copy, for a search that goes on in several ways.
#[divan::bench(args = CPUS)]
fn copy(bencher: Bencher<'_, '_>, cpus: u16) {
    let m = in_use(cpus);
    bencher.bench_local(|| m.copy(Box::new(Stalest)));
}
