//! What running freely costs, beside a bare instance of the engine: its code in a mapping to read
//! and execute, its data in another to read and write, the same settings otherwise.
//!
//! Four loops, each in turn on both, several rounds in one run, the fastest of each: nanoseconds a
//! turn, and the bare instance's time over ours, without a limit on instructions and with one. Then
//! two CPUs that alternate after every instruction, beside two bare instances that do; alone with
//! `interleaved` as an argument, and in two rounds with `twice` beside it: callgrind counts the
//! second (`counted_bare`, `counted_ours`). Names of architectures and of loops choose among them.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/bed/mod.rs"]
mod bed;
#[path = "../tests/loops/mod.rs"]
mod loops;

use std::time::Instant;

use bed::{Bed, CPU0, CPU1, newest};
use loops::{LOOPS, Loop};
use textbed_arch::{Arch, CpuId};
use textbed_machine::Step;
use unicorn_engine::{
    Arch as UcArch, MemType, Mode, Prot, RegisterARM64, RegisterPPC, RegisterX86, TlbEntry,
    TlbType, Unicorn,
};

const ARCHES: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];
const ROUNDS: usize = 40;
/// Turns of a loop that runs freely, of one that has to be stepped, and of interleaved ones.
const MANY: u64 = 400_000;
const FEW: u64 = 200;

const CODE: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;
const STACK: u64 = DATA + 0x7ff0;
/// Where the loop returns to.
const END: u64 = 0x1f_0000;

/// The engine by itself.
struct Bare {
    uc: Unicorn<'static, ()>,
    arch: Arch,
}

impl Bare {
    fn new(arch: Arch, l: &Loop) -> Self {
        let (uc_arch, mode) = match arch {
            Arch::X86_64 => (UcArch::X86, Mode::MODE_64),
            Arch::Arm64 => (UcArch::ARM64, Mode::LITTLE_ENDIAN),
            _ => (UcArch::PPC, Mode::PPC64 | Mode::BIG_ENDIAN),
        };
        let mut uc = Unicorn::new(uc_arch, mode).unwrap();
        if arch == Arch::Arm64 {
            uc.ctl_set_cpu_model(3).unwrap();
            uc.ctl_set_page_size(4096).unwrap();
        }
        uc.mem_map(CODE, 0x4000, Prot::READ | Prot::EXEC).unwrap();
        uc.mem_map(DATA, 0x8000, Prot::READ | Prot::WRITE).unwrap();
        uc.ctl_set_tlb_type(TlbType::VIRTUAL).unwrap();
        uc.add_tlb_hook(0, u64::MAX, |_, paddr, kind| {
            let code = kind == MemType::FETCH;
            let perms = Prot::READ | if code { Prot::EXEC } else { Prot::WRITE };
            Some(TlbEntry { paddr, perms })
        })
        .unwrap();
        uc.mem_write(CODE, &l.bytes(arch)).unwrap();
        if uc_arch == UcArch::PPC {
            uc.reg_write(RegisterPPC::MSR, 1 << 63 | u64::from(arch.is_little_endian())).unwrap();
        }
        Self { uc, arch }
    }

    fn start(&mut self, turns: u64) {
        let (uc, target) = (&mut self.uc, DATA + 0x1000);
        let mut set = |r: i32, value| uc.reg_write(r, value).unwrap();
        match self.arch {
            Arch::X86_64 => {
                set(RegisterX86::RSP as i32, STACK);
                set(RegisterX86::RDI as i32, DATA);
                set(RegisterX86::RSI as i32, turns);
                set(RegisterX86::RDX as i32, target);
                self.uc.mem_write(STACK, &END.to_le_bytes()).unwrap();
            }
            Arch::Arm64 => {
                set(RegisterARM64::SP as i32, STACK);
                set(RegisterARM64::X0 as i32, DATA);
                set(RegisterARM64::X1 as i32, turns);
                set(RegisterARM64::X2 as i32, target);
                set(RegisterARM64::X30 as i32, END);
            }
            _ => {
                set(RegisterPPC::R1 as i32, STACK - 0x100);
                set(RegisterPPC::R3 as i32, DATA);
                set(RegisterPPC::R4 as i32, turns);
                set(RegisterPPC::R5 as i32, target);
                set(RegisterPPC::LR as i32, END);
            }
        }
    }

    fn pc(&self) -> u64 {
        let register = match self.arch {
            Arch::X86_64 => RegisterX86::RIP as i32,
            Arch::Arm64 => RegisterARM64::PC as i32,
            _ => RegisterPPC::PC as i32,
        };
        self.uc.reg_read(register).unwrap()
    }
}

/// Rounds of what is interleaved.
fn rounds() -> usize {
    if has_argument("twice") { 2 } else { ROUNDS }
}

fn has_argument(what: &str) -> bool {
    std::env::args().any(|arg| arg == what)
}

/// Nanoseconds of one of `n` things that `work` does.
fn timed(n: u64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / n as f64
}

/// One call, to its end, in one slice.
fn run_free(bed: &mut Bed, entry: u64, turns: u64, slice: u64) {
    let args = [bed.at(bed::DATA, 0), turns, bed.at(bed::RWX, 0xf00)];
    bed.start(CPU0, entry, &args);
    let end = bed.run_free(CPU0, slice);
    assert!(matches!(end, Step::Returned(_)), "{end:?}");
    bed.forget_events();
}

/// Nanoseconds a turn: bare and freely without a limit, bare and freely with one, single steps.
fn turns(arch: Arch, l: &Loop) -> [f64; 5] {
    let mut best = [f64::MAX; 5];
    let (mut bare, mut limited) = (Bare::new(arch, l), Bare::new(arch, l));
    let mut beds = [newest(arch), newest(arch), newest(arch)];
    let entries: Vec<u64> = beds.iter_mut().map(|b| b.install_bytes(&l.bytes(arch))).collect();
    let many = if l.name == "own code page" { FEW } else { MANY };
    for _ in 0..ROUNDS {
        bare.start(MANY);
        let uc = &mut bare.uc;
        let [free, counted, stepped] = &mut beds;
        let round = [
            timed(MANY, || uc.emu_start(CODE, END, 0, 0).unwrap()),
            timed(many, || run_free(free, entries[0], many, u64::MAX)),
            timed(FEW, || {
                limited.start(FEW);
                limited.uc.emu_start(CODE, END, 0, usize::MAX >> 1).unwrap();
            }),
            timed(many, || run_free(counted, entries[1], many, u64::MAX - 1)),
            timed(FEW, || {
                let args = [stepped.at(bed::DATA, 0), FEW, stepped.at(bed::RWX, 0xf00)];
                stepped.start(CPU0, entries[2], &args);
                while stepped.step(CPU0) == Step::Ran {}
                stepped.forget_events();
            }),
        ];
        best.iter_mut().zip(round).for_each(|(best, now)| *best = best.min(now));
    }
    best
}

/// Two bare instances that alternate. What is counted has a name of its own, here and below.
#[inline(never)]
fn counted_bare(bare: &mut [Bare; 2], steps: u64) {
    alternate_bare(bare, steps);
}

#[inline(always)]
fn alternate_bare(bare: &mut [Bare; 2], steps: u64) {
    let mut pcs = [CODE; 2];
    for _ in 0..steps {
        for (b, pc) in bare.iter_mut().zip(&mut pcs) {
            b.uc.emu_start(*pc, 0, 0, 1).unwrap();
            *pc = b.pc();
        }
    }
}

/// Two CPUs that alternate.
#[inline(never)]
fn counted_ours(bed: &mut Bed, steps: u64) {
    alternate_ours(bed, steps);
}

#[inline(always)]
fn alternate_ours(bed: &mut Bed, steps: u64) {
    for _ in 0..steps {
        for cpu in 0..2 {
            assert_eq!(bed.step(CpuId(cpu)), Step::Ran);
        }
    }
}

/// Nanoseconds an instruction, two alternating: bare, and ours.
fn interleaved(arch: Arch, l: &Loop) -> [f64; 2] {
    let mut best = [f64::MAX; 2];
    let mut bare = [Bare::new(arch, l), Bare::new(arch, l)];
    let mut bed = newest(arch);
    let entry = bed.install_bytes(&l.bytes(arch));
    let steps = FEW * l.by_turn(arch);
    for round in 0..rounds() {
        bare.iter_mut().for_each(|b| b.start(FEW));
        let bare = timed(2 * steps, || match round {
            0 => alternate_bare(&mut bare, steps),
            _ => counted_bare(&mut bare, steps),
        });
        for cpu in [CPU0, CPU1] {
            let data = bed.at(bed::DATA, 0x800 * u64::from(cpu.0));
            bed.start(cpu, entry, &[data, 2 * FEW, bed.at(bed::RWX, 0xf00)]);
        }
        let ours = timed(2 * steps, || match round {
            0 => alternate_ours(&mut bed, steps),
            _ => counted_ours(&mut bed, steps),
        });
        bed.forget_events();
        best = [best[0].min(bare), best[1].min(ours)];
    }
    best
}

fn main() {
    if !has_argument("interleaved") {
        print_turns();
    }
    print_interleaved();
}

fn print_turns() {
    println!("ns a turn             bare     free  (ratio)  with a limit:   free  (ratio)    step");
    for arch in ARCHES {
        for l in &LOOPS {
            let [bare, free, limited, counted, step] = turns(arch, l);
            println!(
                "{:8}{:14}{bare:6.2}{free:9.2}{:9.3}{limited:9.1}{counted:9.2}{:9.3}{step:8.0}",
                arch.to_string(),
                l.name,
                bare / free,
                limited / counted
            );
        }
    }
}

fn print_interleaved() {
    println!("ns an instruction, two alternating: bare, ours, ratio");
    let chosen = |arch: &Arch| {
        let all = !ARCHES.iter().any(|a| has_argument(&a.to_string()));
        all || has_argument(&arch.to_string())
    };
    let loops = |l: &&Loop| {
        let all = !LOOPS.iter().any(|l| has_argument(l.name));
        all || has_argument(l.name)
    };
    for arch in ARCHES.into_iter().filter(chosen) {
        for l in LOOPS.iter().filter(loops) {
            let [bare, ours] = interleaved(arch, l);
            let arch = arch.to_string();
            println!("{arch:8}{:14}{bare:6.0}{ours:8.0}{:8.2}", l.name, ours / bare);
        }
    }
}
