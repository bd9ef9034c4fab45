//! Every instruction of compiled functions against capstone: each is known to it, they fill the
//! function, and only the instructions that the generators mean are there.

#![allow(clippy::unwrap_used)] // test helpers

use capstone::prelude::*;
use textbed_arch::Arch;
use textbed_codegen::{Bases, Field, Format, compile};

const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];

/// What each generator emits, as capstone writes it.
fn meant(arch: Arch) -> &'static [&'static str] {
    match arch {
        Arch::X86_64 => &[
            "mov", "movabs", "movzx", "shl", "shr", "shrd", "add", "sub", "inc", "and", "xor",
            "lea", "ret",
        ],
        Arch::Arm64 => &[
            "ldr", "ldur", "ldrb", "ldurh", "ubfx", "lsr", "uxtb", "uxth", "extr", "mov", "movk",
            "movn", "movz", "add", "sub", "str", "stur", "stp", "and", "ror", "ret", "ldp",
            "bfxil", "orr",
        ],
        _ => &[
            "ld", "lwz", "lhz", "lbz", "std", "stw", "li", "lis", "addi", "addis", "ori", "oris",
            "rldicl", "clrldi", "rotldi", "rldicr", "sldi", "rldimi", "srdi", "add", "blr", "mr",
            "rldic",
        ],
    }
}

fn capstone_for(arch: Arch) -> Capstone {
    let cs = Capstone::new();
    match arch {
        Arch::X86_64 => cs.x86().mode(arch::x86::ArchMode::Mode64).build().unwrap(),
        Arch::Arm64 => cs.arm64().mode(arch::arm64::ArchMode::Arm).build().unwrap(),
        _ => {
            let endian = match arch.is_little_endian() {
                true => capstone::Endian::Little,
                false => capstone::Endian::Big,
            };
            cs.ppc().mode(arch::ppc::ArchMode::Mode64).endian(endian).build().unwrap()
        }
    }
}

#[test]
fn a_disassembler_knows_every_instruction() {
    for arch in ARCHES {
        let cs = capstone_for(arch);
        let (mut instructions, mut bytes) = (0, 0);
        for seed in 0..500 {
            for bases in [Bases::Immediate, Bases::Table] {
                let code = compile(arch, &Format::seeded(seed), bases).unwrap();
                let list = cs.disasm_all(&code, 0x1000).unwrap();
                let length: usize = list.iter().map(|i| i.bytes().len()).sum();
                assert_eq!(length, code.len(), "{arch}, seed {seed}: {code:02x?}");
                for insn in list.iter() {
                    let name = insn.mnemonic().unwrap();
                    let operands = insn.op_str().unwrap_or("");
                    assert!(meant(arch).contains(&name), "{arch}, seed {seed}: {name} {operands}");
                }
                instructions += list.len();
                bytes += code.len();
            }
        }
        println!("{arch}: {instructions} instructions, {bytes} bytes, all known");
    }
}

/// What a node of extents has in most file systems: one inode, one snapshot, no versions. The mail
/// of 2023 says about 50 bytes.
#[test]
fn a_usual_function_is_short() {
    let field = |bits, base| Field { bits, base };
    let fields = [
        field(0, 4134),
        field(32, 0),
        field(0, 0xffff_fffb),
        field(16, 0),
        field(0, 0),
        field(0, 0),
    ];
    let format = Format::new(fields).unwrap();
    let bytes = |arch| compile(arch, &format, Bases::Immediate).unwrap().len();
    let lengths = ARCHES.map(bytes);
    for (length, most) in lengths.into_iter().zip([55, 48, 64, 64]) {
        assert!(length <= most, "{ARCHES:?}: {lengths:?} bytes");
    }
    // Four fields with bits, three of them with a base.
    let code = textbed_codegen::made(Arch::X86_64, "bkey_a").unwrap().unwrap();
    println!("{lengths:?} bytes, bkey_a {} on x86-64", code.len());
    assert!((60..=80).contains(&code.len()), "{} bytes", code.len());
}
