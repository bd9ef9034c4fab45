//! The other way round: what a disassembler says of each instruction, assembled by the GNU
//! assembler, gives the same bytes. So an encoding means what its text says to two programs that
//! were not written here, and on x86-64 none is longer than it has to be.
//!
//! An assembler that is not on this machine is said, and its architecture left out; that of the
//! machine itself comes with its C compiler.

#![allow(clippy::unwrap_used)] // test helpers

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use capstone::prelude::*;
use textbed_arch::Arch;
use textbed_codegen::{Bases, Format, compile};

/// Assemblers, with what makes them read a disassembler's text.
const ASSEMBLERS: [(Arch, &[&str], &str); 4] = [
    (Arch::X86_64, &["as", "x86_64-linux-gnu-as"], "-msyntax=intel -mnaked-reg"),
    (Arch::Arm64, &["aarch64-linux-gnu-as"], ""),
    (Arch::Ppc64le, &["powerpc64le-linux-gnu-as"], "-mregnames -mpower8 -mlittle"),
    (
        Arch::Ppc64,
        &["powerpc64-linux-gnu-as", "powerpc64le-linux-gnu-as"],
        "-mregnames -mpower8 -mbig",
    ),
];

fn disassembler(arch: Arch) -> Capstone {
    let cs = Capstone::new();
    let built = match arch {
        Arch::X86_64 => cs.x86().mode(arch::x86::ArchMode::Mode64).build(),
        Arch::Arm64 => cs.arm64().mode(arch::arm64::ArchMode::Arm).build(),
        _ => {
            let little = arch.is_little_endian();
            let endian = if little { capstone::Endian::Little } else { capstone::Endian::Big };
            cs.ppc().mode(arch::ppc::ArchMode::Mode64).endian(endian).build()
        }
    };
    built.unwrap()
}

/// Every distinct instruction of many functions, with its text.
fn instructions(arch: Arch) -> BTreeMap<Vec<u8>, String> {
    let cs = disassembler(arch);
    let mut all = BTreeMap::new();
    for seed in 0..400 {
        for bases in [Bases::Immediate, Bases::Table] {
            let code = compile(arch, &Format::seeded(seed), bases).unwrap();
            for insn in cs.disasm_all(&code, 0).unwrap().iter() {
                let text = format!("{} {}", insn.mnemonic().unwrap(), insn.op_str().unwrap_or(""));
                all.insert(insn.bytes().to_vec(), text);
            }
        }
    }
    all
}

/// The program of that name that runs here and makes code for the architecture.
fn found(arch: Arch, names: &[&'static str]) -> Option<&'static str> {
    names.iter().copied().find(|name| {
        let output = Command::new(name).arg("--version").output();
        let said = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        said.is_ok_and(|text| arch != Arch::X86_64 || text.contains("x86_64"))
    })
}

/// The code of each line, by assembling them with labels in between.
fn assembled(assembler: &str, options: &str, lines: &[String]) -> Result<Vec<Vec<u8>>, String> {
    let folder = tempfile::tempdir().unwrap();
    let (source, object) = (folder.path().join("a.s"), folder.path().join("a.o"));
    let mut text = ".text\n".to_owned();
    for (i, line) in lines.iter().enumerate() {
        let _ = writeln!(text, ".globl at{i}\nat{i}: {line}");
    }
    let _ = writeln!(text, ".globl at{}\nat{}:", lines.len(), lines.len());
    std::fs::write(&source, text).unwrap();
    let mut command = Command::new(assembler);
    command.args(options.split_whitespace()).arg("-o").arg(&object).arg(&source);
    let output = command.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let file = std::fs::read(object).unwrap();
    let elf = goblin::elf::Elf::parse(&file).unwrap();
    let mut labels: BTreeMap<usize, u64> = BTreeMap::new();
    let mut section = 0;
    for symbol in &elf.syms {
        let name = elf.strtab.get_at(symbol.st_name).unwrap_or("");
        if let Some(index) = name.strip_prefix("at").and_then(|n| n.parse().ok()) {
            labels.insert(index, symbol.st_value);
            section = symbol.st_shndx;
        }
    }
    let from = elf.section_headers[section].sh_offset;
    let part = |i: usize| {
        let (a, b) = ((from + labels[&i]) as usize, (from + labels[&(i + 1)]) as usize);
        file[a..b].to_vec()
    };
    Ok((0..lines.len()).map(part).collect())
}

#[test]
fn an_assembler_makes_the_same_of_a_disassemblers_text() {
    for (arch, names, options) in ASSEMBLERS {
        let Some(assembler) = found(arch, names) else {
            println!("SKIPPED {arch}: none of {} on this machine", names.join(", "));
            continue;
        };
        let all = instructions(arch);
        let lines: Vec<String> = all.values().cloned().collect();
        let made = assembled(assembler, options, &lines).unwrap_or_else(|e| panic!("{arch}: {e}"));
        let (mut compared, mut equal, mut other) = (0, 0, Vec::new());
        for ((bytes, text), made) in all.iter().zip(made) {
            compared += 1;
            if *bytes == made {
                equal += 1;
            } else {
                other.push(format!("{text}: {bytes:02x?}, the assembler makes {made:02x?}"));
            }
        }
        assert!(other.is_empty(), "{arch}, {} differ:\n{}", other.len(), other.join("\n"));
        println!("{arch}: {compared} instructions compared, {equal} equal");
    }
}
