//! Which instructions are plain: the engine executes them by itself, they order nothing, change
//! nothing but registers and memory, and lead where their bytes or a return say. They may run
//! without the machine looking on. And which of them do not reach memory either.
//!
//! What is not named here is carried out by single steps, which is always right: indirect branches
//! (their targets are events), what touches control state or interrupts, system registers,
//! segments, whatever saves or restores many registers at once.

use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic, OpAccess};
use textbed_arch::{Arch, effect::Effect, insn::Insn};

use crate::special::word_of;

/// Whether an instruction whose plan is the engine's, without any order, is plain.
pub(crate) fn is_plain(arch: Arch, insn: Option<&Insn>, bytes: &[u8]) -> bool {
    if insn.is_some_and(|i| !matches!(i.row.effect, Effect::Branch(_) | Effect::Nop)) {
        return false;
    }
    match (arch, word_of(arch, bytes)) {
        (Arch::X86_64, _) => x86(bytes),
        (Arch::Arm64, Some(word)) => arm64(word),
        (Arch::Ppc64le | Arch::Ppc64, Some(word)) => power(word),
        _ => false,
    }
}

/// Whether a plain instruction reaches no memory. If it raises an exception, it has changed
/// nothing. Only what is known to be so.
pub(crate) fn in_registers(arch: Arch, bytes: &[u8]) -> bool {
    match (arch, word_of(arch, bytes)) {
        (Arch::X86_64, _) => {
            let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
            let mut factory = InstructionInfoFactory::new();
            let memory = factory.info(&insn).used_memory();
            // An exception leaves a note in the engine, which makes another one a double fault.
            let raises = matches!(insn.mnemonic(), Mnemonic::Div | Mnemonic::Idiv);
            !raises && memory.iter().all(|m| m.access() == OpAccess::NoMemAccess)
        }
        // Loads and stores have bit 27 set and bit 25 clear (DDI 0487 C4.1).
        (Arch::Arm64, Some(word)) => word >> 27 & 1 == 0 || word >> 25 & 1 == 1,
        (Arch::Ppc64le | Arch::Ppc64, Some(word)) => match word >> 26 {
            // Arithmetic, comparison and logic with immediates, rotations, branches.
            7 | 8 | 10..=16 | 18..=21 | 23..=30 => true,
            // By the lower half of the extended opcode (Book I, appendix of opcode maps): cmp,
            // isel, the special registers, arithmetic, shifts and logic.
            31 => matches!(word >> 1 & 0x1f, 0 | 8..=11 | 15 | 19 | 24 | 26..=28),
            _ => false,
        },
        _ => false,
    }
}

fn x86(bytes: &[u8]) -> bool {
    let insn = Decoder::new(64, bytes, DecoderOptions::NONE).decode();
    let flow = matches!(
        insn.flow_control(),
        FlowControl::Next
            | FlowControl::UnconditionalBranch
            | FlowControl::ConditionalBranch
            | FlowControl::Call
            | FlowControl::Return
    );
    let state = insn.is_privileged()
        || insn.is_save_restore_instruction()
        || (0..insn.op_count()).any(|n| {
            let register = insn.op_register(n);
            register.is_segment_register() || register.is_cr() || register.is_dr()
        });
    let other = matches!(
        insn.mnemonic(),
        Mnemonic::Popf
            | Mnemonic::Popfq
            | Mnemonic::Rdtsc
            | Mnemonic::Rdtscp
            | Mnemonic::Rdrand
            | Mnemonic::Rdseed
            | Mnemonic::Rdfsbase
            | Mnemonic::Rdgsbase
            | Mnemonic::Wrfsbase
            | Mnemonic::Wrgsbase
            | Mnemonic::Stac
            | Mnemonic::Clac
            | Mnemonic::Enter
            | Mnemonic::Xlatb
    );
    !insn.is_invalid() && flow && !state && !other
}

/// Everything but exceptions and system instructions (`nop` is none), and of the branches to
/// registers plain `ret` (DDI 0487 C4.1.65).
fn arm64(word: u32) -> bool {
    match word >> 24 {
        0xd4 => false,
        0xd5 => word == 0xd503_201f,
        0xd6 | 0xd7 => word & 0xffff_fc1f == 0xd65f_0000,
        _ => true,
    }
}

/// Not among the branches to registers but `blr` and its conditional forms without link (Power ISA
/// 3.1B Book I 2.4); of moves to and from special registers LR, CTR and XER alone.
fn power(word: u32) -> bool {
    let (primary, extended) = (word >> 26, word >> 1 & 0x3ff);
    match primary {
        // sc, and prefixes.
        17 | 1 => false,
        19 => match extended {
            16 => word & 1 == 0,
            // Logic on CR bits, mcrf, addpcis.
            0 | 33 | 129 | 193 | 225 | 257 | 289 | 417 | 449 => true,
            _ => false,
        },
        31 => match extended {
            // mfspr, mtspr.
            339 | 467 => matches!(word >> 11 & 0x3ff, 0x020 | 0x100 | 0x120),
            // What reads or writes the MSR, segments, the time base, or waits.
            83 | 146 | 178 | 210 | 242 | 371 | 595 | 659 | 30 => false,
            // Cache management of every kind.
            22 | 54 | 86 | 246 | 278 | 470 | 982 | 1014 => false,
            _ => true,
        },
        // Traps on a comparison may raise one, and are then carried out once more, alone.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use textbed_arch::insn::decode;

    use super::*;

    #[test]
    fn what_reaches_memory_is_told_from_what_does_not() {
        let x86 = |bytes: &[u8]| in_registers(Arch::X86_64, bytes);
        let inside: [&[u8]; 5] =
            [&[0x48, 0x01, 0xc8], &[0x48, 0x8d, 0x07], &[0x75, 0xfe], &[0x48, 0xf7, 0xe1], &[0x90]];
        assert!(inside.iter().all(|bytes| x86(bytes)), "add, lea, jne, mul, nop");
        let outside: [&[u8]; 6] =
            [&[0x48, 0x8b, 0x07], &[0x53], &[0xc3], &[0xa4], &[0xe8, 0, 0, 0, 0], &[0xf7, 0xf1]];
        assert!(!outside.iter().any(|bytes| x86(bytes)), "mov, push, ret, movsb, call, div");
        let arm = |word: u32| in_registers(Arch::Arm64, &word.to_le_bytes());
        // add, mul, b.ne, fadd; ldr, stp, ldr of a literal, ld1, swp.
        assert!([0x8b02_0020, 0x9b02_7c20, 0x54ff_ff21, 0x1e62_2820].into_iter().all(arm));
        let outside = [0xf940_0002, 0xa9bf_7bfd, 0x5800_0040, 0x4c40_a000, 0xf8e0_8000];
        assert!(!outside.into_iter().any(arm));
        let power = |word: u32| in_registers(Arch::Ppc64, &word.to_be_bytes());
        // addi, add, mflr, rldicl, bdnz, cmpd, extsw, isel.
        let inside = [
            0x38a5_0003,
            0x7ca5_3214,
            0x7c08_02a6,
            0x78c6_8800,
            0x4200_ffe4,
            0x7c23_2000,
            0x7c63_07b4,
            0x7c64_281e,
        ];
        assert!(inside.into_iter().all(power));
        // ld, stdu, lwzx, stdx, lvx, lxvd2x, lwbrx, lfd, tw, lq, stfdx.
        let outside = [
            0xe8a3_0000,
            0xf821_ffc1,
            0x7c64_282e,
            0x7c64_292a,
            0x7c00_40ce,
            0x7c00_4698,
            0x7c64_2c2c,
            0xc803_0000,
            0x7c83_2808,
            0xe003_0000,
            0x7c64_2dae,
        ];
        assert!(!outside.into_iter().any(power));
    }

    fn free(arch: Arch, bytes: &[u8]) -> bool {
        is_plain(arch, decode(arch, bytes).as_ref(), bytes)
    }

    #[test]
    fn what_touches_control_state_or_branches_to_registers_is_stepped() {
        let x86 = |bytes: &[u8]| free(Arch::X86_64, bytes);
        for plain in [&[0x48, 0x01, 0xc8][..], &[0x75, 0xfe], &[0xe8, 0, 0, 0, 0], &[0xc3], &[0x90]]
        {
            assert!(x86(plain), "{plain:x?}");
        }
        let stepped: [&[u8]; 10] = [
            &[0xff, 0xe0],       // jmp rax
            &[0xff, 0xd0],       // call rax
            &[0xfa],             // cli
            &[0x9d],             // popfq
            &[0x8e, 0xd8],       // mov ds, ax
            &[0x0f, 0x20, 0xe0], // mov rax, cr4
            &[0x0f, 0xa2],       // cpuid
            &[0xf0, 0xff, 0x07], // lock inc
            &[0xcc],             // int3
            &[0x0f, 0xae, 0x07], // fxsave
        ];
        for bytes in stepped {
            assert!(!x86(bytes), "{bytes:x?}");
        }
        let arm = |word: u32| free(Arch::Arm64, &word.to_le_bytes());
        assert!(arm(0x8b02_0020) && arm(0xd65f_03c0) && arm(0xd503_201f) && arm(0x9400_0001));
        for word in [0xd61f_0000, 0xd63f_0000, 0xd503_3fdf, 0xd503_42df, 0xd53b_0020, 0xd420_0000] {
            assert!(!arm(word), "{word:#x}");
        }
        let power = |word: u32| free(Arch::Ppc64, &word.to_be_bytes());
        for word in [0x7ca5_3214, 0x4e80_0020, 0x4200_ffe4, 0x7c08_02a6, 0x7c89_03a6, 0x6000_0000] {
            assert!(power(word), "{word:#x}");
        }
        // bctr, bctrl, mtmsrd, mfspr PID, sc, isync, lwarx, dcbst.
        for word in [
            0x4e80_0420,
            0x4e80_0421,
            0x7c60_0164,
            0x7c70_0aa6,
            0x4400_0002,
            0x4c00_012c,
            0x7c60_1828,
            0x7c00_186c,
        ] {
            assert!(!power(word), "{word:#x}");
        }
    }
}
