//! What a probed instruction is: refused, stepped out of line, or carried out by the handler.
//!
//! From: Linux 6.12 arch/x86/kernel/kprobes/core.c (prepare_emulation, can_boost,
//! __copy_instruction), arch/arm64/kernel/probes/decode-insn.c with insn.h,
//! arch/powerpc/include/asm/probes.h (can_single_step). Lengths and operands of x86 instructions
//! come from iced. Not modelled: exception tables, blacklists, arm64's search backwards for
//! exclusive loads, whether the address is the start of an instruction.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use textbed_arch::{Arch, VirtAddr};

use crate::errno::{EILSEQ, EINVAL, EOPNOTSUPP};
use crate::traps::Resume;

/// Longest x86 instruction.
pub(crate) const MAX_X86_BYTES: usize = 15;

/// What is done about a probed instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// A copy is executed in a slot.
    Step,
    /// The handler does it.
    Emulate(Resume),
    /// The handler does it in Linux; what it does is not modelled.
    Elsewhere,
}

/// A probed instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Probed {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    pub(crate) how: How,
}

/// What a version looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    /// arm64: a no-operation is simulated.
    pub(crate) simulates_nop: bool,
    /// powerpc: an instruction has to be one that can be stepped.
    pub(crate) if_steppable: bool,
}

/// Decodes what lies at an address; an error number (negative) if it can't be probed.
pub(crate) fn decode(arch: Arch, at: VirtAddr, bytes: &[u8], looks: Looks) -> Result<Probed, i64> {
    match arch {
        Arch::X86_64 => x86(at, bytes),
        Arch::Arm64 => arm64(at, bytes, looks.simulates_nop),
        _ => powerpc(arch, at, bytes, looks.if_steppable),
    }
}

fn x86(at: VirtAddr, bytes: &[u8]) -> Result<Probed, i64> {
    let insn = one(at, bytes).ok_or(-EILSEQ)?;
    let next = at.offset(insn.len() as u64);
    let target = VirtAddr(insn.near_branch_target());
    let emulate = |resume| How::Emulate(resume);
    let how = match insn.mnemonic() {
        Mnemonic::Int3 | Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
            return Err(-EOPNOTSUPP);
        }
        Mnemonic::Ret if insn.op_count() == 0 => emulate(Resume::Return),
        Mnemonic::Ret | Mnemonic::Retf => How::Elsewhere,
        Mnemonic::Cli | Mnemonic::Sti | Mnemonic::Pushfq | Mnemonic::Popfq => How::Elsewhere,
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jrcxz | Mnemonic::Jecxz => {
            How::Elsewhere
        }
        Mnemonic::Call if insn.op0_kind() == OpKind::NearBranch64 => {
            emulate(Resume::Call { to: target, back: next })
        }
        Mnemonic::Jmp if insn.op0_kind() == OpKind::NearBranch64 => emulate(Resume::At(target)),
        Mnemonic::Call | Mnemonic::Jmp if insn.op0_kind() == OpKind::Register => How::Elsewhere,
        Mnemonic::Call | Mnemonic::Jmp => return Err(-EOPNOTSUPP),
        _ if insn.is_jcc_short_or_near() => {
            // iced counts conditions from 1 in the order of the encoding.
            let condition = condition_of(bytes);
            emulate(Resume::Jump { condition, to: target, next })
        }
        _ => How::Step,
    };
    let bytes = bytes.get(..insn.len()).unwrap_or(bytes).to_vec();
    Ok(Probed { bytes, how })
}

/// The condition code of a conditional jump: the low half of its opcode's last byte.
fn condition_of(bytes: &[u8]) -> u8 {
    let opcode = match bytes {
        [0x0f, second, ..] => *second,
        [first, ..] => *first,
        [] => 0,
    };
    opcode & 0xf
}

fn one(at: VirtAddr, bytes: &[u8]) -> Option<Instruction> {
    let mut decoder = Decoder::with_ip(64, bytes, at.0, DecoderOptions::NONE);
    let insn = decoder.decode();
    (insn.code() != Code::INVALID).then_some(insn)
}

/// A copy of an x86 instruction for another address: what is relative to the instruction pointer
/// stays where it was. `None` where it does not reach.
pub(crate) fn x86_relocated(from: VirtAddr, bytes: &[u8], to: VirtAddr) -> Option<Vec<u8>> {
    let mut decoder = Decoder::with_ip(64, bytes, from.0, DecoderOptions::NONE);
    let insn = decoder.decode();
    let mut copy = bytes.get(..insn.len())?.to_vec();
    if !insn.is_ip_rel_memory_operand() {
        return Some(copy);
    }
    let offset = decoder.get_constant_offsets(&insn).displacement_offset();
    let field = copy.get_mut(offset..offset + 4)?;
    let old = i32::from_le_bytes(field.try_into().ok()?);
    let moved = (from.0.wrapping_sub(to.0) as i64).checked_add(i64::from(old))?;
    field.copy_from_slice(&i32::try_from(moved).ok()?.to_le_bytes());
    Some(copy)
}

/// How many bytes of whole instructions, from `at` on, a jump of five bytes replaces; `None` if one
/// of them can't be executed elsewhere.
pub(crate) fn x86_replaced(at: VirtAddr, bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    while len < 5 {
        let insn = one(at.offset(len as u64), bytes.get(len..)?)?;
        if !can_boost(bytes.get(len..)?, &insn) {
            return None;
        }
        len += insn.len();
    }
    Some(len)
}

/// `can_boost`, for opcodes of one byte; of the two-byte ones those that are no jumps or calls.
fn can_boost(bytes: &[u8], insn: &Instruction) -> bool {
    let skip = |b: &&u8| matches!(b, 0x66 | 0xf2 | 0xf3 | 0x40..=0x4f);
    let mut opcode = bytes.iter().skip_while(skip);
    match opcode.next() {
        Some(0x2e | 0x67) => false,
        Some(0x0f) => !insn.is_jcc_short_or_near() && insn.mnemonic() != Mnemonic::Syscall,
        Some(0x62 | 0x70..=0x7f | 0x9a | 0xcc..=0xce | 0xd6 | 0xd8..=0xdf) => false,
        Some(0xe0..=0xe3 | 0xe8 | 0xe9 | 0xeb | 0xf0..=0xf4) => false,
        Some(0xff) => matches!(insn.mnemonic(), Mnemonic::Inc | Mnemonic::Dec | Mnemonic::Jmp),
        Some(_) => true,
        None => false,
    }
}

/// A class of 32-bit instructions.
struct Class {
    mask: u32,
    value: u32,
}

const fn class(mask: u32, value: u32) -> Class {
    Class { mask, value }
}

impl Class {
    fn has(&self, insn: u32) -> bool {
        insn & self.mask == self.value
    }
}

const A64_BRANCH_SYS: Class = class(0x1c00_0000, 0x1400_0000);
const A64_B: Class = class(0xfc00_0000, 0x1400_0000);
const A64_BL: Class = class(0xfc00_0000, 0x9400_0000);
const A64_MRS: Class = class(0xfff0_0000, 0xd530_0000);
const A64_HINT: Class = class(0xffff_f01f, 0xd503_201f);
const A64_NOP: u32 = 0xd503_201f;
/// Simulated by the handler: conditional and register branches, adr, literal loads.
const A64_SIMULATED: [Class; 11] = [
    A64_B,
    A64_BL,
    class(0x7e00_0000, 0x3400_0000),
    class(0x7e00_0000, 0x3600_0000),
    class(0xff00_0010, 0x5400_0000),
    class(0xffff_fc1f, 0xd61f_0000),
    class(0xffff_fc1f, 0xd63f_0000),
    class(0xffff_fc1f, 0xd65f_0000),
    class(0x1f00_0000, 0x1000_0000),
    class(0xbf00_0000, 0x1800_0000),
    class(0xff00_0000, 0x9800_0000),
];
/// Refused: exceptions and returns from them, authenticated branches, msr, prefetch of a literal,
/// exclusives.
const A64_REFUSED: [Class; 10] = [
    class(0xff00_0000, 0xd400_0000),
    class(0xffff_ffff, 0xd69f_03e0),
    class(0xffff_fbff, 0xd69f_0bff),
    class(0xfeff_f800, 0xd61f_0800),
    class(0xfeff_f800, 0xd63f_0800),
    class(0xffff_fbff, 0xd65f_0bff),
    class(0xfff8_f01f, 0xd500_401f),
    class(0xfff0_0000, 0xd510_0000),
    class(0xff00_0000, 0xd800_0000),
    class(0x3f80_0000, 0x0800_0000),
];
/// Hints that may be stepped (bits 11 to 5).
const A64_STEPPABLE_HINTS: [u32; 12] =
    [0x00, 0x07, 0x08, 0x0a, 0x18, 0x19, 0x1a, 0x1b, 0x20, 0x22, 0x24, 0x26];
/// DAIF as a system register: op0 to op2 as they lie in the instruction.
const A64_DAIF: u32 = 0x1b_4220;

fn arm64(at: VirtAddr, bytes: &[u8], simulates_nop: bool) -> Result<Probed, i64> {
    let insn = crate::insns::word_of(Arch::Arm64, bytes);
    let next = at.offset(4);
    let refused = A64_REFUSED.iter().any(|c| c.has(insn))
        || (A64_HINT.has(insn) && !A64_STEPPABLE_HINTS.contains(&(insn >> 5 & 0x7f)))
        || (A64_MRS.has(insn) && insn & 0x1f_ffe0 == A64_DAIF && A64_BRANCH_SYS.has(insn));
    if refused {
        return Err(-EINVAL);
    }
    let how = if insn == A64_NOP && simulates_nop {
        How::Emulate(Resume::At(next))
    } else if A64_B.has(insn) {
        let offset = i64::from((insn << 6) as i32 >> 4);
        How::Emulate(Resume::At(VirtAddr(at.0.wrapping_add_signed(offset))))
    } else if A64_SIMULATED.iter().any(|c| c.has(insn)) {
        How::Elsewhere
    } else {
        How::Step
    };
    Ok(Probed { bytes: bytes.get(..4).unwrap_or(bytes).to_vec(), how })
}

/// powerpc: what can't be stepped, by opcode and extended opcode.
const POWER_REFUSED: [(u32, Option<u32>); 19] = [
    (2, None),  // tdi
    (3, None),  // twi
    (17, None), // sc, scv
    (19, Some(18)),
    (19, Some(38)),
    (19, Some(39)),
    (19, Some(50)),
    (19, Some(51)),
    (19, Some(82)),
    (19, Some(274)),
    (19, Some(306)),
    (19, Some(370)),
    (19, Some(402)),
    (19, Some(434)),
    (19, Some(466)),
    (19, Some(498)),
    (31, Some(4)),   // tw
    (31, Some(68)),  // td
    (31, Some(146)), // mtmsr
];
const POWER_MTMSRD: (u32, u32) = (31, 178);
/// mtmsr(d) and rfi(d) by their masks: all that 5.18 refuses.
const POWER_ALWAYS_REFUSED: (u32, [u32; 2]) = (0xfc00_07be, [0x7c00_0124, 0x4c00_0024]);

fn powerpc(arch: Arch, at: VirtAddr, bytes: &[u8], steppable: bool) -> Result<Probed, i64> {
    let insn = crate::insns::word_of(arch, bytes);
    let (op, xop) = (insn >> 26, insn >> 1 & 0x3ff);
    let listed = POWER_REFUSED.iter().any(|(o, x)| op == *o && x.is_none_or(|x| x == xop))
        || (op, xop) == POWER_MTMSRD;
    let (mask, always) = POWER_ALWAYS_REFUSED;
    if listed && steppable || always.contains(&(insn & mask)) {
        return Err(-EINVAL);
    }
    let len = if op == 1 { 8 } else { 4 };
    let bytes = bytes.get(..len).ok_or(-EINVAL)?.to_vec();
    let next = at.offset(len as u64);
    // What emulate_step carries out; of other instructions the effect is had by stepping the slot.
    let how = match insn {
        0x6000_0000 => How::Emulate(Resume::At(next)),
        _ if op == 18 && insn & 3 == 0 => {
            let offset = i64::from((insn << 6) as i32 >> 6);
            How::Emulate(Resume::At(VirtAddr(at.0.wrapping_add_signed(offset))))
        }
        _ if listed || matches!(op, 16 | 18) || (op == 19 && matches!(xop, 16 | 528)) => {
            How::Elsewhere
        }
        _ => How::Step,
    };
    Ok(Probed { bytes, how })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(arch: Arch, bytes: &[u8]) -> Result<How, i64> {
        let looks = Looks { simulates_nop: true, if_steppable: true };
        decode(arch, VirtAddr(0x1000), bytes, looks).map(|p| p.how)
    }

    #[test]
    fn x86_instructions_by_kind() {
        let jump = |to: u64| How::Emulate(Resume::At(VirtAddr(to)));
        let rows: [(&[u8], Result<How, i64>); 9] = [
            (&[0x0f, 0x1f, 0x44, 0, 0], Ok(How::Step)),
            (&[0xe9, 0x10, 0, 0, 0], Ok(jump(0x1015))),
            (&[0xeb, 0xfe], Ok(jump(0x1000))),
            (&[0xc3], Ok(How::Emulate(Resume::Return))),
            (&[0xcc], Err(-EOPNOTSUPP)),
            (&[0xff, 0xd0], Ok(How::Elsewhere)),
            (&[0xff, 0x10], Err(-EOPNOTSUPP)),
            (&[0x06], Err(-EILSEQ)),
            (&[0xfa], Ok(How::Elsewhere)),
        ];
        for (bytes, want) in rows {
            assert_eq!(how(Arch::X86_64, bytes), want, "{bytes:02x?}");
        }
        let jcc = how(Arch::X86_64, &[0x75, 0x02]);
        let (to, next) = (VirtAddr(0x1004), VirtAddr(0x1002));
        assert_eq!(jcc, Ok(How::Emulate(Resume::Jump { condition: 5, to, next })));
    }

    #[test]
    fn what_is_relative_stays_where_it_was() {
        // mov rax, [rip + 0x10] at 0x1000 reads 0x1017.
        let bytes = [0x48, 0x8b, 0x05, 0x10, 0, 0, 0];
        let copy = x86_relocated(VirtAddr(0x1000), &bytes, VirtAddr(0x1100)).unwrap();
        assert_eq!(copy, [0x48, 0x8b, 0x05, 0x10, 0xff, 0xff, 0xff]);
        assert!(x86_relocated(VirtAddr(0x1000), &bytes, VirtAddr(1 << 40)).is_none());
        let five = [0x55, 0x48, 0x89, 0xe5, 0x90, 0x90];
        assert_eq!(x86_replaced(VirtAddr(0), &five), Some(5));
        assert_eq!(x86_replaced(VirtAddr(0), &[0x55, 0xe8, 0, 0, 0, 0]), None);
        assert_eq!(x86_replaced(VirtAddr(0), &[0x55, 0x90]), None);
    }

    #[test]
    fn words_by_kind() {
        let a64 = |w: u32| how(Arch::Arm64, &w.to_le_bytes());
        let jump = |to: u64| Ok(How::Emulate(Resume::At(VirtAddr(to))));
        assert_eq!(a64(0x1400_0004), jump(0x1010));
        assert_eq!(a64(0x17ff_ffff), jump(0xffc));
        assert_eq!(a64(A64_NOP), jump(0x1004));
        assert_eq!(a64(0x5280_0540), Ok(How::Step)); // mov w0, #42
        assert_eq!(a64(0xd65f_03c0), Ok(How::Elsewhere)); // ret
        for refused in [0xd420_0080, 0xc85f_7c00, 0xd503_207f, 0xd51b_4220, 0xd53b_4220] {
            assert_eq!(a64(refused), Err(-EINVAL), "{refused:#x}");
        }
        assert_eq!(a64(0xd53b_d040), Ok(How::Step)); // mrs x0, tpidr_el0
        let ppc = |w: u32| how(Arch::Ppc64le, &w.to_le_bytes());
        assert_eq!(ppc(0x6000_0000), jump(0x1004));
        assert_eq!(ppc(0x4bff_fffc), jump(0xffc));
        assert_eq!(ppc(0x3860_002a), Ok(How::Step));
        assert_eq!(ppc(0x4e80_0020), Ok(How::Elsewhere));
        for refused in [0x7fe0_0008, 0x4c00_0024, 0x7c00_0164, 0x4400_0002] {
            assert_eq!(ppc(refused), Err(-EINVAL), "{refused:#x}");
        }
        // 5.18: mtmsrd, rfid and no more; what a trap or a system call does is not modelled.
        let before = |w: u32| {
            let looks = Looks { simulates_nop: false, if_steppable: false };
            decode(Arch::Ppc64le, VirtAddr(0x1000), &w.to_le_bytes(), looks).map(|p| p.how)
        };
        assert_eq!(before(0x7fe0_0008), Ok(How::Elsewhere));
        assert_eq!(before(0x4400_0002), Ok(How::Elsewhere));
        for refused in [0x4c00_0024, 0x7c00_0164] {
            assert_eq!(before(refused), Err(-EINVAL), "{refused:#x}");
        }
    }
}
