//! Registers by the manuals' numbers, and which of them the calling conventions use.
//!
//! Conventions: System V x86-64, AAPCS64, and the 64-bit ELF V2 ABI of Power in both byte orders
//! (what the firmware is written for). Not modelled: arguments on the stack, vector arguments,
//! results in more than one register.

use textbed_arch::Arch;
use unicorn_engine::{RegisterARM64, RegisterPPC, RegisterX86};

/// How functions are called.
pub(crate) struct Convention {
    /// Registers of the first arguments, by the manual's number.
    pub(crate) arguments: &'static [u8],
    /// Register of the result.
    pub(crate) result: u8,
    /// Register that holds the return address at entry; on the stack if there is none.
    pub(crate) link: Option<i32>,
    /// Register that holds the callee's own address at entry.
    pub(crate) own_address: Option<u8>,
    /// Bytes between the stack pointer at entry and the top of the stack: what a callee may write
    /// to above its stack pointer.
    pub(crate) reserve: u64,
    /// The stack pointer.
    pub(crate) stack_pointer: i32,
}

/// The convention of `arch`.
pub(crate) fn convention(arch: Arch) -> &'static Convention {
    match arch {
        Arch::X86_64 => &X86_64,
        Arch::Arm64 => &ARM64,
        Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => &POWER,
    }
}

static X86_64: Convention = Convention {
    arguments: &[7, 6, 2, 1, 8, 9],
    result: 0,
    link: None,
    own_address: None,
    reserve: 0,
    stack_pointer: RegisterX86::RSP as i32,
};

static ARM64: Convention = Convention {
    arguments: &[0, 1, 2, 3, 4, 5, 6, 7],
    result: 0,
    link: Some(RegisterARM64::X30 as i32),
    own_address: None,
    reserve: 0,
    stack_pointer: RegisterARM64::SP as i32,
};

// The caller's frame: back chain, CR save, LR save, TOC save (32 bytes), then room for eight
// arguments that a callee without a prototype may spill.
static POWER: Convention = Convention {
    arguments: &[3, 4, 5, 6, 7, 8, 9, 10],
    result: 3,
    link: Some(RegisterPPC::LR as i32),
    own_address: Some(12),
    reserve: 32 + 64,
    stack_pointer: RegisterPPC::R1 as i32,
};

const X86_GENERAL: [RegisterX86; 16] = [
    RegisterX86::RAX,
    RegisterX86::RCX,
    RegisterX86::RDX,
    RegisterX86::RBX,
    RegisterX86::RSP,
    RegisterX86::RBP,
    RegisterX86::RSI,
    RegisterX86::RDI,
    RegisterX86::R8,
    RegisterX86::R9,
    RegisterX86::R10,
    RegisterX86::R11,
    RegisterX86::R12,
    RegisterX86::R13,
    RegisterX86::R14,
    RegisterX86::R15,
];

/// The engine's number of general register `n`; `None` if there is none (arm64: 31, which is zero
/// or the stack pointer).
pub(crate) fn general(arch: Arch, n: u8) -> Option<i32> {
    let n32 = i32::from(n);
    match arch {
        Arch::X86_64 => X86_GENERAL.get(usize::from(n)).map(|r| *r as i32),
        Arch::Arm64 => match n {
            0..=28 => Some(RegisterARM64::X0 as i32 + n32),
            29 => Some(RegisterARM64::X29 as i32),
            30 => Some(RegisterARM64::X30 as i32),
            _ => None,
        },
        Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => {
            (n < 32).then_some(RegisterPPC::R0 as i32 + n32)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_reach_the_engine_s_registers() {
        assert_eq!(general(Arch::X86_64, 15), Some(RegisterX86::R15 as i32));
        assert_eq!(general(Arch::X86_64, 16), None);
        assert_eq!(general(Arch::Arm64, 28), Some(RegisterARM64::X28 as i32));
        assert_eq!(general(Arch::Arm64, 31), None);
        assert_eq!(general(Arch::Ppc64, 31), Some(RegisterPPC::R31 as i32));
        assert_eq!(general(Arch::Ppc64, 32), None);
    }
}
