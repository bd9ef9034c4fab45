//! Which instructions may run without the machine looking on: those that the engine executes by
//! itself, that order nothing, change nothing but registers and memory, and lead where their bytes
//! or a return say.
//!
//! What is not named here is carried out by single steps, which is always right: indirect branches
//! (their targets are events), what touches control state or interrupts, system registers,
//! segments, whatever saves or restores many registers at once.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic};
use textbed_arch::{Arch, effect::Effect, insn::Insn};

use crate::special::word_of;

/// Whether the instruction may run freely. Its plan is the engine's, without any order.
pub(crate) fn may_run_free(arch: Arch, insn: Option<&Insn>, bytes: &[u8]) -> bool {
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

    fn free(arch: Arch, bytes: &[u8]) -> bool {
        may_run_free(arch, decode(arch, bytes).as_ref(), bytes)
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
