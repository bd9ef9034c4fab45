//! Generated programs, run by this crate instruction by instruction on a machine and by the bare
//! engine in one go on flat memory: registers and memory must be equal.
//!
//! What is compared is what this crate adds: single steps, loads given one by one, stores taken at
//! the end, pages, byte order. Arithmetic is the engine's on both sides.

#![allow(clippy::unwrap_used)]

mod bed;
mod programs;

use bed::{ARCHES, Bed, CPU0, DATA, PAGE, newest};
use programs::{LENGTH, Random, initial, program};
use textbed_arch::{Arch, VirtAddr};
use textbed_machine::{Cpu, Step};
use unicorn_engine::{
    Arch as UcArch, Mode, Prot, RegisterARM64, RegisterPPC, RegisterX86, TlbEntry, TlbType, Unicorn,
};

const PROGRAMS: u64 = 30;
const DATA_BYTES: usize = 3 * PAGE as usize;

fn register(arch: Arch, n: u8) -> i32 {
    match arch {
        Arch::X86_64 => [
            RegisterX86::RAX,
            RegisterX86::RCX,
            RegisterX86::RDX,
            RegisterX86::RBX,
            RegisterX86::RSP,
            RegisterX86::RBP,
            RegisterX86::RSI,
            RegisterX86::RDI,
            RegisterX86::R8,
        ][usize::from(n)] as i32,
        Arch::Arm64 => RegisterARM64::X0 as i32 + i32::from(n),
        _ => RegisterPPC::R0 as i32 + i32::from(n),
    }
}

/// What a run leaves: registers in the order of `initial`, and the data.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    registers: Vec<u64>,
    data: Vec<u8>,
}

struct Setup<'a> {
    arch: Arch,
    code: &'a [u8],
    code_at: u64,
    data: &'a [u8],
    data_at: u64,
    stack_at: u64,
    registers: &'a [(u8, u64)],
}

/// The bare engine, all memory in one piece behind identity-like fills, all at once.
fn bare(s: &Setup<'_>) -> Outcome {
    let (uc_arch, mode) = match s.arch {
        Arch::X86_64 => (UcArch::X86, Mode::MODE_64),
        Arch::Arm64 => (UcArch::ARM64, Mode::LITTLE_ENDIAN),
        _ => (UcArch::PPC, Mode::PPC64 | Mode::BIG_ENDIAN),
    };
    let mut uc = Unicorn::new(uc_arch, mode).unwrap();
    if s.arch == Arch::Arm64 {
        uc.ctl_set_cpu_model(3).unwrap();
        uc.ctl_set_page_size(4096).unwrap();
    }
    let low = 0xff_ffff;
    uc.mem_map(0, low + 1, Prot::ALL).unwrap();
    uc.ctl_set_tlb_type(TlbType::VIRTUAL).unwrap();
    uc.add_tlb_hook(0, u64::MAX, move |_, page, _| {
        Some(TlbEntry { paddr: page & low, perms: Prot::ALL })
    })
    .unwrap();
    uc.mem_write(s.code_at & low, s.code).unwrap();
    uc.mem_write(s.data_at & low, s.data).unwrap();
    match s.arch {
        Arch::X86_64 => uc.reg_write(RegisterX86::RSP, s.stack_at).unwrap(),
        Arch::Arm64 => uc.reg_write(RegisterARM64::CPACR_EL1, 3 << 20).unwrap(),
        arch => {
            let msr = 1 << 63 | 1 << 25 | 1 << 23 | 1 << 13 | u64::from(arch.is_little_endian());
            uc.reg_write(RegisterPPC::MSR, msr).unwrap();
        }
    }
    if s.arch == Arch::X86_64 {
        uc.reg_write(RegisterX86::RFLAGS, 0x202).unwrap();
    }
    for (n, value) in s.registers {
        uc.reg_write(register(s.arch, *n), *value).unwrap();
    }
    let ended = uc.emu_start(s.code_at, s.code_at + s.code.len() as u64, 0, 0);
    let pc = match s.arch {
        Arch::X86_64 => uc.reg_read(RegisterX86::RIP),
        Arch::Arm64 => uc.reg_read(RegisterARM64::PC),
        _ => uc.reg_read(RegisterPPC::PC),
    };
    assert_eq!(ended, Ok(()), "{} at +{:#x}: {:02x?}", s.arch, pc.unwrap() - s.code_at, s.code);
    Outcome {
        registers: s
            .registers
            .iter()
            .map(|(n, _)| uc.reg_read(register(s.arch, *n)).unwrap())
            .collect(),
        data: uc.mem_read_as_vec(s.data_at & low, s.data.len()).unwrap(),
    }
}

/// This crate, instruction by instruction.
fn stepped(bed: &mut Bed, s: &Setup<'_>) -> Outcome {
    bed.store(s.data_at, s.data);
    bed.cpus[0].start(&mut bed.m, VirtAddr(s.code_at), VirtAddr(s.stack_at), &[]).unwrap();
    for (n, value) in s.registers {
        bed.cpus[0].set_general(*n, *value).unwrap();
    }
    let end = s.code_at + s.code.len() as u64;
    while bed.cpus[0].pc().unwrap().0 != end {
        assert_eq!(bed.step(CPU0), Step::Ran, "{} at {}", s.arch, bed.cpus[0].pc().unwrap());
    }
    let mut data = vec![0; s.data.len()];
    bed.m.load(CPU0, VirtAddr(s.data_at), &mut data).unwrap();
    Outcome {
        registers: s.registers.iter().map(|(n, _)| bed.cpus[0].general(*n).unwrap()).collect(),
        data,
    }
}

#[test]
fn generated_programs_end_as_on_the_bare_engine() {
    for arch in ARCHES {
        let mut instructions = 0;
        for seed in 0..PROGRAMS {
            let mut r = Random(seed << 8 | arch as u64);
            let mut bed = newest(arch);
            let code = program(arch, &mut r);
            let code_at = bed.install_bytes(&code);
            let data_at = bed.at(DATA, PAGE / 2);
            let registers = initial(arch, &mut r, data_at + DATA_BYTES as u64 / 2);
            let data: Vec<u8> = (0..DATA_BYTES).map(|_| r.number() as u8).collect();
            let stack_at = bed.stack(CPU0).0 - 8;
            let registers = &registers;
            let (code, data) = (&code, &data);
            let s = Setup { arch, code, code_at, data, data_at, stack_at, registers };
            let (expected, got) = (bare(&s), stepped(&mut bed, &s));
            assert_eq!(expected.registers, got.registers, "{arch} seed {seed}: {code:02x?}");
            let differ: Vec<_> = (0..DATA_BYTES)
                .filter(|i| expected.data[*i] != got.data[*i])
                .map(|i| (i, expected.data[i], got.data[i]))
                .collect();
            assert_eq!(differ, [], "{arch} seed {seed}: data of {code:02x?}");
            assert!(expected.data != *data, "{arch} seed {seed}: a program that stores nothing");
            instructions += LENGTH;
        }
        println!("{arch}: {PROGRAMS} programs, {instructions} units, all equal");
    }
}
