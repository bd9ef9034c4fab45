//! Moves by the machine against the same instructions by the engine: registers, memory, events.

use textbed_arch::{CpuId, Perm, PhysAddr, SpaceId};
use textbed_event::Batch;
use textbed_machine::{MachineConfig, Newest, SplitMix64};

use super::*;
use crate::decoded::{Decoded, Known};
use crate::special::Order;

const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const CPU: CpuId = CpuId(0);
/// Data: two pages, and nothing behind them.
const DATA: u64 = 0xffff_8000_1020_0000;
const BYTES: u64 = 2 * 4096;
/// Where the instruction is said to be, so that what is relative to it lies in the data.
const PC: u64 = DATA + 0x800;

/// Some instruction, often a move.
fn some(arch: Arch, r: &mut SplitMix64) -> Vec<u8> {
    let word = match arch {
        Arch::X86_64 => {
            let opcodes: [&[u8]; 15] = [
                &[0x8b],
                &[0x89],
                &[0x88],
                &[0xc6],
                &[0xc7],
                &[0x63],
                &[0x0f, 0xb6],
                &[0x0f, 0xb7],
                &[0x0f, 0xbe],
                &[0x0f, 0xbf],
                &[0x50],
                &[0x58],
                &[0xe8],
                &[0xc3],
                &[0x8a],
            ];
            let mut bytes = Vec::new();
            if r.below(4) == 0 {
                bytes.push([0x66, 0xf3, 0x64, 0x67, 0x65][r.below(5) as usize]);
            }
            let opcode = opcodes[r.below(15) as usize];
            if r.below(2) == 0 {
                // REX.R, which these have no use for, is an error to the engine.
                let unused = if matches!(opcode, [0xc6 | 0xc7]) { 4 } else { 0 };
                bytes.push(0x40 | r.below(16) as u8 & !unused);
            }
            bytes.extend(opcode);
            if let [0x50 | 0x58] = opcode {
                *bytes.last_mut().unwrap() |= r.below(8) as u8;
            }
            bytes.extend((0..10).map(|_| r.number() as u8));
            // Displacements of 32 bits that stay in the neighbourhood.
            let at = bytes.len() - 7;
            bytes[at..at + 3].copy_from_slice(&[0, 0, 0]);
            bytes.truncate(crate::x86::length(&bytes).unwrap_or(1));
            return bytes;
        }
        Arch::Arm64 => {
            let class = [0x3900_0000, 0x3800_0000, 0x2800_0000, 0x2900_0000][r.below(4) as usize];
            r.number() as u32 & 0xc0ff_ffff | class
        }
        _ => {
            let primary = 31 + r.below(32) as u32;
            let extended = [21, 23, 87, 279, 341, 343, 149, 151, 215, 407][r.below(10) as usize];
            let low = if primary == 31 {
                31 << 11 & r.number() as u32 | extended << 1
            } else {
                r.number() as u32 & 0xff
            };
            primary << 26 | r.number() as u32 & 0x03ff_0000 | low
        }
    };
    if arch.is_little_endian() { word.to_le_bytes().into() } else { word.to_be_bytes().into() }
}

struct Bed {
    m: Machine,
    cpu: Vcpu,
    phys: PhysAddr,
}

impl Bed {
    fn new(arch: Arch) -> Self {
        let mut m = Machine::new(MachineConfig::new(arch), Box::new(Newest)).unwrap();
        let at = VirtAddr(address(arch));
        let phys = m.alloc_frames(CPU, 2, 12, true).unwrap().addr();
        m.map(CPU, SpaceId::KERNEL, at, phys, BYTES, 12, Perm::KERNEL_RW).unwrap();
        Self { m, cpu: Vcpu::new(arch, CPU).unwrap(), phys }
    }

    fn registers(&self) -> Vec<u64> {
        let count = if self.cpu.arch == Arch::X86_64 { 16 } else { 31 };
        let all = (0..count).map(|n| self.cpu.general(n).unwrap());
        all.chain([self.cpu.stack_pointer().unwrap().0, self.cpu.pc().unwrap().0]).collect()
    }

    /// What is left of an instruction that either carried out.
    fn left(&mut self, end: Result<Native, CpuError>) -> (String, Vec<u64>, Vec<u8>, Batch) {
        let end = match end {
            Ok(Native::Done) => "done".to_owned(),
            Ok(Native::Faulted(fault)) => format!("{fault:?}"),
            Ok(Native::Trapped(trap)) => trap.name.to_owned(),
            Err(error) => error.to_string(),
        };
        let mut memory = vec![0; BYTES as usize];
        self.m.read_phys(self.phys, &mut memory).unwrap();
        (end, self.registers(), memory, self.m.take_batch())
    }
}

/// Where the data is: in the kernel's half, wherever that begins.
fn address(arch: Arch) -> u64 {
    if arch.is_powerpc() { DATA & 0x0fff_ffff | 0xc008_0000_0000_0000 } else { DATA }
}

#[test]
fn moves_by_the_machine_are_those_of_the_engine() {
    for arch in ARCHES {
        let mut r = SplitMix64(arch as u64 + 7);
        let (mut moved, mut done) = (0, 0);
        let (mut by_machine, mut by_engine) = (Bed::new(arch), Bed::new(arch));
        let base = address(arch);
        let (pc, mut known) = (base + (PC - DATA), Known::new(arch));
        for _ in 0..2_500 {
            let bytes = some(arch, &mut r);
            let what: std::rc::Rc<Decoded> = known.decode(pc, &bytes, None);
            let Some(moves) = what.moves else { continue };
            moved += 1;
            // Pointers, small numbers, and some that lead nowhere.
            let count = if arch == Arch::X86_64 { 16 } else { 31 };
            let values: Vec<u64> = (0..count)
                .map(|_| match r.below(8) {
                    0 => r.number(),
                    1..=3 => r.below(64),
                    _ => base + r.below(BYTES),
                })
                .collect();
            let stack = base + 0x1000 + r.below(128);
            for bed in [&mut by_machine, &mut by_engine] {
                for (n, value) in values.iter().enumerate() {
                    bed.cpu.set_general(n as u8, *value).unwrap();
                }
                bed.cpu.engine.set_register(bed.cpu.convention.stack_pointer, stack).unwrap();
                bed.cpu.engine.set_pc(pc);
            }
            let next = pc + bytes.len() as u64;
            let end = by_machine.cpu.moved(&mut by_machine.m, (pc, next), &moves);
            let got = by_machine.left(end);
            let end = by_engine.cpu.native(&mut by_engine.m, pc, &what, Order::PLAIN);
            let expected = by_engine.left(end);
            let text = format!("{arch} {bytes:02x?} {moves:?} with {values:x?}");
            assert_eq!(got.0, expected.0, "{text}");
            assert_eq!(got.1, expected.1, "{text}: registers");
            assert!(got.2 == expected.2, "{text}: memory");
            assert_eq!(got.3.events, expected.3.events, "{text}: events");
            done += usize::from(got.0 == "done");
        }
        println!("{arch}: {moved} moves, {done} done, all equal");
        assert!(moved > 400 && done > moved / 3 && done < moved, "{arch}: {done} of {moved}");
    }
}

#[test]
fn what_computes_or_is_special_is_left_to_the_engine() {
    let x86: [&[u8]; 11] = [
        &[0x48, 0x01, 0x07],       // add [rdi], rax
        &[0x64, 0x48, 0x8b, 0x07], // mov rax, fs:[rdi]
        &[0x67, 0x48, 0x8b, 0x07], // mov rax, [edi]
        &[0xf3, 0x48, 0x89, 0x07], // xrelease mov [rdi], rax
        &[0x88, 0x27],             // mov [rdi], ah
        &[0x8a, 0x07],             // mov al, [rdi]
        &[0x54],                   // push rsp
        &[0x5c],                   // pop rsp
        &[0x66, 0xc3],             // ret, of 16 bits to some
        &[0xc2, 8, 0],             // ret 8
        &[0x48, 0x89, 0xc8],       // mov rax, rcx
    ];
    assert!(x86.iter().all(|bytes| decode(Arch::X86_64, bytes).is_none()));
    // ldr q, ldr of a literal, ldtr, prfm, swp, ldr with uxtw, ldr x0, [x0], #8, ldp x0, x0, ldnp,
    // ldpsw, ldxr.
    let words = [
        0x3dc0_0000,
        0x5800_0040,
        0xf840_0800,
        0xf980_0000,
        0xf8e0_8000,
        0xb860_4800,
        0xf840_8400,
        0xa940_0020,
        0xa840_0020,
        0x6940_0420,
        0xc85f_7c00,
    ];
    assert!(words.iter().all(|word: &u32| decode(Arch::Arm64, &word.to_le_bytes()).is_none()));
    // lfd, lq, lwzu r3, 0(r3), lwzu with r0, lbzux, lwbrx, ldarx, lmw, stq.
    let words = [
        0xc803_0000,
        0xe003_0000,
        0x8463_0000,
        0x8460_0000,
        0x7c64_28ee,
        0x7c64_2c2c,
        0x7c64_28a8,
        0xb861_0000,
        0xf803_0002,
    ];
    assert!(words.iter().all(|word: &u32| decode(Arch::Ppc64, &word.to_be_bytes()).is_none()));
}
