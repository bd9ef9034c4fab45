//! x86-64 against iced (both ways, with lengths and operands) and capstone (every example).

use super::{Rng, effort};
use capstone::prelude::*;
use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, Instruction, OpKind, Register};
use std::collections::{BTreeMap, BTreeSet};
use textbed_arch::Arch;
use textbed_arch::insn::{self, BaseReg, Insn, MemRef, Operand, Row, Segment};

const AT: u64 = 0xffff_ffff_8100_0000;

fn iced(bytes: &[u8]) -> Instruction {
    Decoder::with_ip(64, bytes, AT, DecoderOptions::NONE).decode()
}

/// The name that the table gives to what iced decoded; `None` if it is not a row's.
fn name_of(i: &Instruction) -> Option<String> {
    if i.is_invalid() || i.code().encoding() != EncodingKind::Legacy {
        return None;
    }
    let mnemonic = format!("{:?}", i.mnemonic()).to_lowercase();
    let memory = (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory);
    let name = match i.code() {
        Code::Mov_cr_r64 => format!("mov {:?}", i.op0_register()).to_lowercase(),
        Code::Mov_dr_r64 => "mov dr".to_owned(),
        _ => match mnemonic.as_str() {
            "sysretq" => "sysret".to_owned(),
            "sysexitq" => "sysexit".to_owned(),
            // The address size prefix selects the counter, not another instruction.
            "jecxz" => "jrcxz".to_owned(),
            "xchg" if memory => "xchg".to_owned(),
            "xchg" => return None,
            m if i.has_lock_prefix() => format!("lock {m}"),
            m => m.to_owned(),
        },
    };
    insn::by_name(Arch::X86_64, &name).map(|_| name)
}

/// Why the table says nothing of an instruction that iced knows.
fn excused(bytes: &[u8], i: &Instruction) -> bool {
    let prefixes: Vec<u8> = bytes
        .iter()
        .copied()
        .take_while(|b| {
            matches!(
                b,
                0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x40
                    ..=0x4f
            )
        })
        .collect();
    let near = i.is_jmp_short_or_near()
        || i.is_jmp_near_indirect()
        || i.is_call_near()
        || i.is_call_near_indirect()
        || i.is_jcc_short_or_near()
        || i.is_loop()
        || i.is_loopcc()
        || i.is_jcx_short()
        || matches!(format!("{:?}", i.mnemonic()).as_str(), "Ret");
    let rex_w = prefixes.last().is_some_and(|b| b & 0xf8 == 0x48);
    // Vendors differ.
    let operand_size = near && prefixes.contains(&0x66) && !rex_w;
    // A repeat prefix that other encodings of the opcode use is not taken as ignored.
    let repeat = prefixes.contains(&0xf2) || prefixes.contains(&0xf3);
    let strict = [
        "Wbinvd",
        "Wbnoinvd",
        "Wrmsr",
        "Rsm",
        "Nop",
        "Invpcid",
        "Invept",
        "Invvpid",
        "Iretd",
        "Iret",
        "Clflushopt",
        "Clwb",
        "Vmmcall",
    ];
    // F3 90 with REX.B: PAUSE on some, XCHG R8 on others.
    let pause = format!("{:?}", i.mnemonic()) == "Pause"
        && prefixes.last().is_some_and(|b| b & 0xf1 == 0x41);
    operand_size || pause || (repeat && strict.contains(&format!("{:?}", i.mnemonic()).as_str()))
}

fn register(number: u8) -> Register {
    const NAMES: [Register; 16] = [
        Register::RAX,
        Register::RCX,
        Register::RDX,
        Register::RBX,
        Register::RSP,
        Register::RBP,
        Register::RSI,
        Register::RDI,
        Register::R8,
        Register::R9,
        Register::R10,
        Register::R11,
        Register::R12,
        Register::R13,
        Register::R14,
        Register::R15,
    ];
    NAMES[usize::from(number)]
}

fn same_memory(m: &MemRef, i: &Instruction) -> Result<(), String> {
    let next = i.next_ip();
    let base = match m.base {
        BaseReg::None => Register::None,
        BaseReg::Reg(r) => register(r),
        BaseReg::NextInsn => Register::RIP,
    };
    let index = m.index.map_or(Register::None, |(r, _)| register(r));
    let theirs = (i.memory_base().full_register(), i.memory_index().full_register());
    if (base, index) != theirs {
        return Err(format!("base, index {base:?}, {index:?} against {theirs:?}"));
    }
    let scale = m.index.map_or(1, |(_, s)| u32::from(s));
    if index != Register::None && scale != i.memory_index_scale() {
        return Err(format!("scale {scale}"));
    }
    let segment = match i.segment_prefix() {
        Register::FS => Segment::Fs,
        Register::GS => Segment::Gs,
        _ => Segment::Flat,
    };
    if segment != m.segment {
        return Err(format!("segment {:?}", m.segment));
    }
    // One set of register values, and the whole address with it.
    let value = |r: Register| 0x1234_5678_9abc_def1u64.rotate_left(4 * r as u32);
    let (mut reg, mut seg) = (|n: u8| value(register(n)), |_| 0x7000_0000);
    let ours = m.address(&mut reg, &mut seg, next);
    let theirs = i.virtual_address(op_of_memory(i), 0, |r, _, _| {
        Some(match r {
            Register::FS | Register::GS => 0x7000_0000,
            r if r.is_segment_register() => 0,
            r if r.is_gpr32() => value(r.full_register()) & 0xffff_ffff,
            r => value(r),
        })
    });
    if Some(ours) != theirs { Err(format!("address {ours:x} against {theirs:x?}")) } else { Ok(()) }
}

fn op_of_memory(i: &Instruction) -> u32 {
    (0..i.op_count()).find(|n| i.op_kind(*n) == OpKind::Memory).unwrap()
}

/// Compares length and operands of an instruction that both know.
fn same_operands(ours: &Insn, i: &Instruction) -> Result<(), String> {
    if usize::from(ours.len) != i.len() {
        return Err(format!("length {} against {}", ours.len, i.len()));
    }
    if let Some(m) = ours.operands.mem() {
        same_memory(&m, i)?;
    }
    for operand in ours.operands.iter() {
        match operand {
            Operand::Offset(d) => {
                let target = AT.wrapping_add(d as u64);
                if target != i.near_branch_target() {
                    return Err(format!("target {target:x} against {:x}", i.near_branch_target()));
                }
            }
            Operand::SysReg(n) => {
                let theirs = i.op0_register();
                if n as usize != theirs.number() {
                    return Err(format!("register {n} against {theirs:?}"));
                }
                if ours.operands.reg().map(register) != Some(i.op1_register()) {
                    return Err("source register".to_owned());
                }
            }
            Operand::Imm(v)
                if i.op_count() > 0
                    && ours.row.name.starts_with("int")
                    && v as u64 != i.immediate(0) =>
            {
                return Err(format!("immediate {v}"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[test]
fn iced_on_every_example() {
    let mut n = 0;
    for row in insn::rows(Arch::X86_64) {
        let bytes = row.example(Arch::X86_64);
        let i = iced(&bytes);
        assert_eq!(name_of(&i).as_deref(), Some(row.name), "{} {bytes:02x?} {i}", row.title());
        let ours = insn::decode(Arch::X86_64, &bytes).unwrap();
        same_operands(&ours, &i).unwrap_or_else(|e| panic!("{}: {e}", row.title()));
        n += 1;
    }
    println!("x86_64 with iced: {n} compared, {n} equal");
}

/// Rows that capstone 5 does not know.
const CAPSTONE_LACKS: &[&str] = &["serialize", "wrmsrns", "invlpgb", "tlbsync", "erets", "eretu"];

#[test]
fn capstone_on_every_example() {
    let cs = Capstone::new().x86().mode(arch::x86::ArchMode::Mode64).build().unwrap();
    let (mut n, mut lacks, mut wrong) = (0, BTreeSet::new(), Vec::new());
    for row in insn::rows(Arch::X86_64) {
        let bytes = row.example(Arch::X86_64);
        let list = cs.disasm_count(&bytes, AT, 1).unwrap();
        let text = list.iter().next().map_or(String::new(), |i| {
            format!("{} {}", i.mnemonic().unwrap_or(""), i.op_str().unwrap_or(""))
        });
        let equal = capstone_accepts(row, text.trim());
        if CAPSTONE_LACKS.contains(&row.name) {
            assert!(!equal, "capstone does know {}", row.title());
            lacks.insert(row.name);
            continue;
        }
        n += 1;
        if !equal {
            wrong.push(format!("{} {bytes:02x?}: {text}", row.title()));
        }
    }
    println!("x86_64 with capstone: {n} compared, {} equal; lacks {lacks:?}", n - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn capstone_accepts(row: &Row, text: &str) -> bool {
    let name = match row.name {
        "mov dr" => return text.starts_with("mov dr"),
        "sysret" if row.form == "64-bit" => "sysretq",
        "sysexit" if row.form == "64-bit" => "sysexitq",
        name => name,
    };
    let rest = text.strip_prefix(name);
    rest.is_some_and(|r| r.is_empty() || r.starts_with([' ', ',']))
}

/// Bytes around a row's example: prefixes before it, ModRM and the rest at random.
fn around(rng: &mut Rng, example: &[u8]) -> Vec<u8> {
    const PREFIXES: [u8; 20] = [
        0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x40, 0x41, 0x42, 0x44,
        0x48, 0x49, 0x4c, 0x4f, 0x66,
    ];
    let mut bytes = Vec::new();
    for _ in 0..rng.below(5) {
        bytes.push(PREFIXES[rng.below(PREFIXES.len())]);
    }
    bytes.extend_from_slice(example);
    let last = bytes.len() - 1;
    if rng.below(4) == 0 {
        bytes[last] = rng.next() as u8;
    }
    if rng.below(16) == 0 {
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
    }
    bytes.extend((0..12).map(|_| rng.next() as u8));
    // Sometimes too short.
    if rng.below(8) == 0 {
        bytes.truncate(1 + rng.below(bytes.len()));
    }
    bytes
}

/// An example without its operand bytes, so that ModRM, SIB, displacement and immediate vary.
fn opcode_only(row: &Row) -> Vec<u8> {
    use textbed_arch::insn::{Imm, ModRm, Pattern};
    let mut bytes = row.example(Arch::X86_64);
    let Pattern::X86(p) = row.pattern else { panic!("not an x86 row") };
    let tail = match p.imm {
        Imm::None => 0,
        Imm::I8 | Imm::Rel8 => 1,
        Imm::I16 => 2,
        Imm::Iz | Imm::Rel32 => 4,
    };
    bytes.truncate(bytes.len() - tail - usize::from(p.modrm != ModRm::Absent));
    bytes
}

#[test]
fn iced_both_ways() {
    let mut rng = Rng::new(0x5eed_0f86);
    let examples: Vec<Vec<u8>> = insn::rows(Arch::X86_64)
        .iter()
        .flat_map(|r| [r.example(Arch::X86_64), opcode_only(r)])
        .collect();
    let (mut n, mut hits, mut excuses) = (0u64, 0u64, 0u64);
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for round in 0..150_000 * effort() {
        let bytes = if round % 8 == 0 {
            (0..16).map(|_| rng.next() as u8).collect()
        } else {
            around(&mut rng, &examples[round % examples.len()])
        };
        let i = iced(&bytes);
        let (ours, theirs) = (insn::decode(Arch::X86_64, &bytes), name_of(&i));
        if ours.is_none() && theirs.is_some() && excused(&bytes, &i) {
            excuses += 1;
            continue;
        }
        n += 1;
        let problem = match (&ours, &theirs) {
            (None, None) => None,
            (Some(o), Some(t)) if o.row.name == t => {
                hits += 1;
                same_operands(o, &i).err()
            }
            _ => Some("another row".to_owned()),
        };
        if let Some(problem) = problem {
            let key = format!("ours {:?}, iced {theirs:?}", ours.map(|o| o.row.title()));
            wrong.entry(key).or_default().push(format!("{problem}: {bytes:02x?} = {i}"));
        }
    }
    let bad: usize = wrong.values().map(Vec::len).sum();
    println!(
        "x86_64: {n} compared ({hits} in the table), {} equal, {excuses} excused",
        n - bad as u64
    );
    for (key, list) in &wrong {
        println!("{key}: {}, e.g. {:?}", list.len(), &list[..list.len().min(2)]);
    }
    assert!(wrong.is_empty());
    assert!(hits > n / 4 && excuses < n / 10);
}
