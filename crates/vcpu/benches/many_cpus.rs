//! What emulated CPUs cost by their number: to make, in resident memory, and for each instruction
//! when all run by turns, or when all but one wait.
//!
//! Prints a table; each time is the least of several, and the second column of each pair is the
//! ratio to the same for one CPU, measured in this run.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/bed/mod.rs"]
mod bed;

use std::time::{Duration, Instant};

use bed::{Bed, DATA};
use textbed_arch::{Arch, CpuId, Perm, SpaceId, VirtAddr};
use textbed_machine::{Cpu, MachineConfig, Newest, Step};

const ARCHES: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];
const CPUS: [u16; 3] = [1, 8, 64];
const ROUNDS: usize = 5;
/// Instructions of a run.
const STEPS: u64 = 6400;
/// Stacks, one page each, from here on.
const STACKS: u64 = 0x10_0000;

/// What one number of CPUs costs.
struct Cost {
    make: Duration,
    resident: u64,
    by_turns: Duration,
    others_wait: Duration,
    noted: Duration,
}

fn main() {
    for arch in ARCHES {
        println!(
            "{arch}: CPUs | make, ms | ratio | resident, KiB a CPU | ns an instruction, all \
             run | ratio | one runs, others wait | ratio | all noted and restored, us"
        );
        let mut one: Option<Cost> = None;
        for cpus in CPUS {
            let cost = measure(arch, cpus);
            let first = one.as_ref().unwrap_or(&cost);
            let ratio =
                |of: fn(&Cost) -> Duration| of(&cost).as_secs_f64() / of(first).as_secs_f64();
            let each = |time: Duration| time.as_nanos() / u128::from(STEPS);
            println!(
                "{cpus} | {:.1} | {:.1} | {} | {} | {:.2} | {} | {:.2} | {:.1}",
                cost.make.as_secs_f64() * 1e3,
                ratio(|c| c.make),
                cost.resident / 1024 / u64::from(cpus),
                each(cost.by_turns),
                ratio(|c| c.by_turns),
                each(cost.others_wait),
                ratio(|c| c.others_wait),
                cost.noted.as_secs_f64() * 1e6,
            );
            one.get_or_insert(cost);
        }
    }
}

fn measure(arch: Arch, cpus: u16) -> Cost {
    let config = || MachineConfig { cpus, ..MachineConfig::new(arch) };
    let before = resident();
    let started = Instant::now();
    let mut bed = Bed::new(config(), Box::new(Newest));
    let mut make = started.elapsed();
    let len = u64::from(cpus) << 12;
    let phys = bed.m.alloc_frames(CpuId(0), u64::from(cpus), 12, true).unwrap().addr();
    let stacks = VirtAddr(bed.at(STACKS, 0));
    bed.m.map(CpuId(0), SpaceId::KERNEL, stacks, phys, len, 12, Perm::KERNEL_RW).unwrap();
    let by_turns = run(&mut bed, cpus, &mut |_| "sum_loop");
    // By now every engine has translated code.
    let resident = resident().saturating_sub(before);
    let mut noted = Duration::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for cpu in &mut bed.cpus {
            let saved = cpu.save().unwrap();
            cpu.restore(&saved).unwrap();
        }
        noted = noted.min(started.elapsed());
    }
    let others_wait = run(&mut bed, cpus, &mut |n| if n == 0 { "sum_loop" } else { "wait" });
    for _ in 1..ROUNDS {
        let started = Instant::now();
        drop(std::hint::black_box(Bed::new(config(), Box::new(Newest))));
        make = make.min(started.elapsed());
    }
    Cost { make, resident, by_turns, others_wait, noted }
}

/// The least time for [`STEPS`] instructions of the routines that `routine` names by CPU.
fn run(bed: &mut Bed, cpus: u16, routine: &mut dyn FnMut(u16) -> &'static str) -> Duration {
    let (sum, wait) = (bed.install("sum_loop"), bed.install_bytes(&halt(bed.arch())));
    let words = bed.at(DATA, 0);
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        for n in 0..cpus {
            let entry = if routine(n) == "wait" { wait } else { sum };
            let stack = VirtAddr(bed.at(STACKS, (u64::from(n) + 1) << 12));
            let cpu = &mut bed.cpus[usize::from(n)];
            cpu.enable_interrupts(true).unwrap();
            cpu.start(&mut bed.m, VirtAddr(entry), stack, &[words, 3000]).unwrap();
        }
        bed.forget_events();
        let mut n = 0;
        let mut turn = |ready: &[usize]| {
            n += 1;
            n % ready.len()
        };
        let started = Instant::now();
        let ends = bed.together(&mut turn, STEPS);
        least = least.min(started.elapsed());
        assert_eq!(ends.iter().map(|e| e.steps).sum::<u64>(), STEPS);
        let waiting = ends.iter().filter(|e| matches!(e.end, Step::Waits { .. })).count();
        assert_eq!(waiting, (0..cpus).filter(|n| routine(*n) == "wait").count());
    }
    least
}

/// HLT, WFI, STOP.
fn halt(arch: Arch) -> Vec<u8> {
    match arch {
        Arch::X86_64 => vec![0xf4],
        Arch::Arm64 => 0xd503_207f_u32.to_le_bytes().to_vec(),
        _ => 0x4c00_02e4_u32.to_le_bytes().to_vec(),
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0u64) * 4096
}
