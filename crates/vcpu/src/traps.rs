//! Exceptions that an instruction raises, by the architecture's own number and name.
//!
//! Numbers: x86-64 vector (SDM 3A 6.3.1); arm64 exception class ESR_ELx.EC (DDI 0487 D24.2.37);
//! powerpc offset of the interrupt vector (Book III 7.5). Not modelled: the transfer to a handler;
//! whoever runs the CPU decides what comes next.

use textbed_arch::Arch;

/// An exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trap {
    /// The architecture's number.
    pub(crate) vector: u16,
    /// Its name.
    pub(crate) name: &'static str,
    /// The program counter that is reported is behind the instruction (else it is the
    /// instruction's).
    pub(crate) after: bool,
}

const fn at(vector: u16, name: &'static str) -> Trap {
    Trap { vector, name, after: false }
}

const fn after(vector: u16, name: &'static str) -> Trap {
    Trap { vector, name, after: true }
}

/// x86-64 vectors that an instruction can raise by itself.
const X86: [Trap; 12] = [
    at(0, "#DE divide error"),
    after(1, "#DB debug exception"),
    after(3, "#BP breakpoint"),
    after(4, "#OF overflow"),
    at(5, "#BR bound range exceeded"),
    at(6, "#UD invalid opcode"),
    at(7, "#NM device not available"),
    at(10, "#TS invalid TSS"),
    at(11, "#NP segment not present"),
    at(12, "#SS stack fault"),
    at(13, "#GP general protection"),
    at(16, "#MF floating-point error"),
];

const X86_INT: Trap = after(0, "software interrupt");

/// The exception of x86-64 vector `vector`.
pub(crate) fn x86(vector: u8) -> Trap {
    let known = X86.iter().find(|t| t.vector == u16::from(vector)).copied();
    known.unwrap_or(Trap { vector: u16::from(vector), ..X86_INT })
}

/// `int n`: whatever the vector is, a trap behind the instruction.
pub(crate) fn x86_int(vector: u8) -> Trap {
    Trap { after: true, ..x86(vector) }
}

const ARM_UNKNOWN: Trap = at(0x00, "undefined instruction");
const ARM_SVC: Trap = after(0x15, "svc");
const ARM_HVC: Trap = after(0x16, "hvc");
const ARM_SMC: Trap = after(0x17, "smc");
const ARM_BRK: Trap = at(0x3c, "brk");

pub(crate) const PPC_ALIGNMENT: Trap = at(0x600, "alignment interrupt");
const PPC_PROGRAM: Trap = at(0x700, "program interrupt");
const PPC_FP: Trap = at(0x800, "floating-point unavailable");
const PPC_SC: Trap = after(0xc00, "system call");
const PPC_SCV: Trap = after(0x3000, "system call vectored");
const PPC_EMULATION: Trap = at(0xe40, "emulation assistance: unknown instruction");

/// What the instruction called `name` (a row of the table with the effect `Trap`) always raises;
/// `None` if it depends on registers, or is not modelled.
pub(crate) fn of_row(arch: Arch, name: &str, immediate: Option<i64>) -> Option<Trap> {
    let trap = match (arch, name) {
        (Arch::X86_64, "int3") => x86(3),
        (Arch::X86_64, "int1") => x86(1),
        (Arch::X86_64, "int") => x86_int(immediate.unwrap_or(0) as u8),
        (Arch::X86_64, "ud0" | "ud1" | "ud2") => x86(6),
        (Arch::Arm64, "brk") => ARM_BRK,
        (Arch::Arm64, "svc") => ARM_SVC,
        (Arch::Arm64, "hvc") => ARM_HVC,
        (Arch::Arm64, "smc") => ARM_SMC,
        // `hlt` is undefined while halting debug is off; `dcpsN` outside debug state.
        (Arch::Arm64, "udf" | "hlt" | "dcps1" | "dcps2" | "dcps3") => ARM_UNKNOWN,
        (Arch::Ppc64le | Arch::Ppc64, "sc") => PPC_SC,
        (Arch::Ppc64le | Arch::Ppc64, "scv") => PPC_SCV,
        (Arch::Ppc64le | Arch::Ppc64, "illegal") => PPC_EMULATION,
        _ => return None,
    };
    Some(trap)
}

/// What the engine's exception number stands for; `None` if it is none that an instruction raises
/// by itself.
pub(crate) fn of_engine(arch: Arch, number: u32) -> Option<Trap> {
    let trap = match (arch, number) {
        (Arch::X86_64, 0..=31) => x86(number as u8),
        (Arch::Arm64, 1) => ARM_UNKNOWN,
        (Arch::Arm64, 2) => ARM_SVC,
        (Arch::Arm64, 7) => ARM_BRK,
        (Arch::Arm64, 11) => ARM_HVC,
        (Arch::Arm64, 13) => ARM_SMC,
        (Arch::Ppc64le | Arch::Ppc64, 5) => PPC_ALIGNMENT,
        (Arch::Ppc64le | Arch::Ppc64, 6) => PPC_PROGRAM,
        (Arch::Ppc64le | Arch::Ppc64, 7) => PPC_FP,
        (Arch::Ppc64le | Arch::Ppc64, 8) => PPC_SC,
        (Arch::Ppc64le | Arch::Ppc64, 96) => PPC_EMULATION,
        _ => return None,
    };
    Some(trap)
}

/// An instruction that the architecture does not define.
pub(crate) fn undefined(arch: Arch) -> Trap {
    match arch {
        Arch::X86_64 => x86(6),
        Arch::Arm64 => ARM_UNKNOWN,
        Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => PPC_EMULATION,
    }
}

#[cfg(test)]
mod tests {
    use textbed_arch::{effect::Effect, insn};

    use super::*;

    #[test]
    fn every_trap_row_is_known_or_named_here() {
        // Those whose trap depends on registers, and those that leave the kernel's world.
        let others = [
            "trap", "tw", "td", "twi", "tdi", "attn", "syscall", "sysenter", "vmcall", "vmmcall",
            "vmlaunch", "vmresume", "vmrun",
        ];
        for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64] {
            for row in insn::rows(arch).iter().filter(|r| r.effect == Effect::Trap) {
                let known = of_row(arch, row.name, Some(0x80)).is_some();
                assert_eq!(known, !others.contains(&row.name), "{arch} {}", row.name);
            }
        }
        assert_eq!(of_row(Arch::X86_64, "int", Some(0x80)).map(|t| t.vector), Some(0x80));
    }

    #[test]
    fn int_reports_the_next_instruction_whatever_the_vector() {
        assert!(x86_int(13).after && !x86(13).after);
        assert!(!x86(6).after && x86(3).after);
    }
}
