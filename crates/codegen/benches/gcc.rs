//! Unpack functions against what `gcc -O2` makes of a function for the same table.
//!
//! `cargo bench -p textbed-codegen --bench gcc`: 50 generated formats (`--formats N` for another
//! number), for each architecture whose compiler is on this machine; a compiler that is not there
//! is said, and its architecture left out. Compared are bytes and instructions, counted by a
//! disassembler in the object file; where ours is longer by either, the format is listed. Both
//! sides take the same arguments; gcc is told that destination and key don't overlap, and may load
//! whole words of the key as it likes. Not compared: speed, the variant with a table.

#![allow(clippy::print_stdout, clippy::unwrap_used)] // a program for readers

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use capstone::prelude::*;
use textbed_arch::Arch;
use textbed_codegen::{Bases, FIELDS, Format, compile};

const COMPILERS: [(Arch, &str); 3] = [
    (Arch::X86_64, "x86_64-linux-gnu-gcc"),
    (Arch::Arm64, "aarch64-linux-gnu-gcc"),
    (Arch::Ppc64le, "powerpc64le-linux-gnu-gcc"),
];

/// Where no compiler has the long name: this machine's own.
const NATIVE: &str = "gcc";

fn main() {
    let formats = formats();
    for (arch, compiler) in COMPILERS {
        match found(arch, compiler) {
            Some(compiler) => one(arch, &compiler, formats),
            None => println!("SKIPPED {arch}: no {compiler} on this machine\n"),
        }
    }
}

fn formats() -> u64 {
    let mut args = std::env::args().skip_while(|a| a != "--formats").skip(1);
    args.next().and_then(|n| n.parse().ok()).unwrap_or(50)
}

/// The compiler's name, if it runs and compiles for the architecture.
fn found(arch: Arch, compiler: &str) -> Option<String> {
    let machine = |name: &str| {
        let output = Command::new(name).arg("-dumpmachine").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let own = machine(compiler).map(|_| compiler.to_owned());
    own.or_else(|| {
        let native = machine(NATIVE)?;
        (arch == Arch::X86_64 && native.starts_with("x86_64")).then(|| NATIVE.to_owned())
    })
}

/// The function in C: each field is its bits of the key plus its base.
fn source(seed: u64, format: &Format) -> String {
    let mut c = format!("void f{seed}(struct out *restrict o, const u64 *restrict k) {{\n");
    let words = format.key_words();
    let addend = 5 - words + 0x100;
    let _ = writeln!(c, "  o->header = ((u32)k[0] + {addend}u) & 0xffffff;");
    for (i, (field, spec)) in format.fields().iter().zip(&FIELDS).enumerate() {
        let position = format.position(i);
        let (word, shift) = (position / 64, position % 64);
        let mask = if field.bits == 0 { 0 } else { u64::MAX >> (64 - field.bits) };
        let mut bits = format!("k[{word}] >> {shift}");
        if shift + field.bits > 64 {
            bits = format!("({bits} | k[{}] << {})", word + 1, 64 - shift);
        } else {
            bits = format!("({bits})");
        }
        let value = match field.bits {
            0 => format!("{:#x}ull", field.base),
            64 => format!("{bits} + {:#x}ull", field.base),
            _ => format!("({bits} & {mask:#x}ull) + {:#x}ull", field.base),
        };
        let _ = writeln!(c, "  o->{} = {value};", spec.name);
    }
    c.push_str("}\n");
    c
}

const HEAD: &str = "typedef unsigned int u32; typedef unsigned long u64;\n\
                    struct __attribute__((packed, aligned(8))) out { u32 header; u64 version_lo;\n\
                    u32 version_hi, size, snapshot; u64 offset, inode; };\n";

/// Bytes and instructions of a function.
#[derive(Clone, Copy, Default)]
struct Size {
    bytes: usize,
    instructions: usize,
}

fn size(arch: Arch, code: &[u8]) -> Size {
    let cs = Capstone::new();
    let cs = match arch {
        Arch::X86_64 => cs.x86().mode(arch::x86::ArchMode::Mode64).build(),
        Arch::Arm64 => cs.arm64().mode(arch::arm64::ArchMode::Arm).build(),
        _ => cs.ppc().mode(arch::ppc::ArchMode::Mode64).endian(capstone::Endian::Little).build(),
    };
    let list = cs.unwrap().disasm_all(code, 0).map(|l| l.len()).unwrap_or(0);
    Size { bytes: code.len(), instructions: list }
}

/// The code of each function in an object file that was compiled with a section for each.
fn functions(object: &Path, seeds: u64) -> Vec<Vec<u8>> {
    let file = std::fs::read(object).unwrap();
    let elf = goblin::elf::Elf::parse(&file).unwrap();
    (0..seeds)
        .map(|seed| {
            let name = format!("f{seed}");
            let symbol = elf.syms.iter().find(|s| elf.strtab.get_at(s.st_name) == Some(&name));
            let symbol = symbol.unwrap();
            let section = &elf.section_headers[symbol.st_shndx];
            let from = (section.sh_offset + symbol.st_value) as usize;
            file[from..from + symbol.st_size as usize].to_vec()
        })
        .collect()
}

fn one(arch: Arch, compiler: &str, formats: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (c, o) = (folder.path().join("f.c"), folder.path().join("f.o"));
    let mut text = HEAD.to_owned();
    (0..formats).for_each(|seed| text.push_str(&source(seed, &Format::seeded(seed))));
    std::fs::write(&c, text).unwrap();
    // As kernels are compiled: no vector registers, no guard of branches at the entry.
    let mut flags = vec!["-O2", "-c", "-ffunction-sections", "-fno-asynchronous-unwind-tables"];
    match arch {
        Arch::X86_64 => flags.extend(["-mgeneral-regs-only", "-fcf-protection=none"]),
        Arch::Arm64 => flags.extend(["-mgeneral-regs-only", "-mbranch-protection=none"]),
        _ => flags.extend(["-mno-vsx", "-mno-altivec"]),
    }
    let status = Command::new(compiler).args(&flags).arg(&c).arg("-o").arg(&o).status().unwrap();
    assert!(status.success(), "{compiler} {flags:?}");
    let version = Command::new(compiler).arg("-dumpfullversion").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version).trim().to_owned();

    let theirs = functions(&o, formats);
    let (mut sum, mut lost) = ([Size::default(); 2], Vec::new());
    for (seed, code) in theirs.iter().enumerate() {
        let format = Format::seeded(seed as u64);
        let own = compile(arch, &format, Bases::Immediate).unwrap();
        let sizes = [size(arch, &own), size(arch, code)];
        for (sum, size) in sum.iter_mut().zip(sizes) {
            sum.bytes += size.bytes;
            sum.instructions += size.instructions;
        }
        let [a, b] = sizes;
        if a.bytes > b.bytes || a.instructions > b.instructions {
            lost.push((seed, a, b, format));
        }
        if std::env::var_os("SHOW").is_some_and(|s| s.to_string_lossy() == seed.to_string()) {
            show(arch, &own);
            show(arch, code);
        }
    }
    let [a, b] = sum;
    println!("{arch}, {compiler} {version} -O2, {formats} formats");
    println!("  ours  {:5} bytes  {:4} instructions", a.bytes, a.instructions);
    println!("  gcc   {:5} bytes  {:4} instructions", b.bytes, b.instructions);
    println!("  longer than gcc's: {} of {formats}", lost.len());
    for (seed, a, b, format) in lost {
        let fields: Vec<String> =
            format.fields().iter().map(|f| format!("{}:{:#x}", f.bits, f.base)).collect();
        println!(
            "    format {seed:2}: {:3} against {:3} bytes, {:2} against {:2} instructions; {}",
            a.bytes,
            b.bytes,
            a.instructions,
            b.instructions,
            fields.join(" ")
        );
    }
    println!();
}

fn show(arch: Arch, code: &[u8]) {
    let cs = Capstone::new();
    let cs = match arch {
        Arch::X86_64 => cs.x86().mode(arch::x86::ArchMode::Mode64).build(),
        Arch::Arm64 => cs.arm64().mode(arch::arm64::ArchMode::Arm).build(),
        _ => cs.ppc().mode(arch::ppc::ArchMode::Mode64).endian(capstone::Endian::Little).build(),
    };
    for insn in cs.unwrap().disasm_all(code, 0).unwrap().iter() {
        println!("    {insn}");
    }
    println!("    --");
}
