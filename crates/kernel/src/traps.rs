//! Traps that a CPU takes in kernel code, and which of the kernel's handlers knows them.
//!
//! Modelled: the handler of the x86 patcher (first in line, as in exc_int3), then that of kprobes;
//! what no handler knows is the end of the task. From: Linux 6.12 arch/x86/kernel/traps.c
//! exc_int3, kprobes/core.c, arch/arm64/kernel/debug-monitors.c, arch/powerpc/kernel/kprobes.c, 7.0
//! arch/x86/kernel/alternative.c. Not modelled: notifier chains, debuggers.

use textbed_arch::{Arch, CpuId, SpaceId, VirtAddr};

use crate::error::CallError;
use crate::kernel::Kernel;

/// x86 vector of INT3.
const BREAKPOINT: u16 = 3;
/// arm64 exception class of BRK.
const BRK: u16 = 0x3c;
/// powerpc program interrupt.
const PROGRAM: u16 = 0x700;

/// What a handler makes of the registers of who trapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    /// It goes on at an address.
    At(VirtAddr),
    /// As a call of `to` that returns to `back`: `back` is pushed.
    Call {
        /// The function called.
        to: VirtAddr,
        /// The return address.
        back: VirtAddr,
    },
    /// As a return: the address is popped.
    Return,
    /// One instruction is executed at an address, then it goes on at another (unless that
    /// instruction branched or trapped).
    Step {
        /// The instruction.
        at: VirtAddr,
        /// Where to go on.
        next: VirtAddr,
    },
    /// As a conditional jump.
    Jump {
        /// x86 condition code, 0 to 15.
        condition: u8,
        /// Where it leads if the condition holds.
        to: VirtAddr,
        /// Else.
        next: VirtAddr,
    },
}

impl Kernel {
    /// A CPU trapped at `virt` with this vector (the trap itself is already an event): what its
    /// handler does; `None` if none knows it, which ends the task.
    pub fn trap(&mut self, cpu: CpuId, virt: VirtAddr, vector: u16) -> Option<Resume> {
        if cpu.0 >= self.cpus {
            return None;
        }
        match (self.arch, vector) {
            (Arch::X86_64, BREAKPOINT) => {
                self.batch.handle(virt).or_else(|| self.kprobe_trap(virt))
            }
            (Arch::Arm64, BRK) => self.kprobe_trap(virt),
            (Arch::Ppc64le | Arch::Ppc64, PROGRAM) => {
                let known = self.kprobe_trap(virt);
                known.or_else(|| self.trap_is_gone(virt).then_some(Resume::At(virt)))
            }
            _ => None,
        }
    }

    /// Whether text holds no trap any more: powerpc's handler then tries again, since somebody took
    /// it away while this CPU was on its way.
    fn trap_is_gone(&self, virt: VirtAddr) -> bool {
        let mapped = self.machine.lookup(SpaceId::KERNEL, virt);
        let phys = mapped.and_then(|m| m.phys.checked_add(virt.0.wrapping_sub(m.virt.0)));
        let mut now = [0; 4];
        let read = phys.is_some_and(|phys| self.machine.read_phys(phys, &mut now).is_ok());
        let insn = crate::insns::word_of(self.arch, &now);
        // tw, td, twi and tdi, as is_trap() has them.
        let traps = matches!(insn & 0xfc00_07fe, 0x7c00_0008 | 0x7c00_0088)
            || matches!(insn & 0xfc00_0000, 0x0800_0000 | 0x0c00_0000);
        read && !traps
    }

    /// The handler returns to who trapped; this synchronises where a return does.
    ///
    /// # Errors
    /// The machine refused.
    pub fn return_from_trap(&mut self, cpu: CpuId) -> Result<(), CallError> {
        let name = match self.arch {
            Arch::X86_64 => "iretq",
            Arch::Arm64 => "eret",
            _ => "rfid",
        };
        let done = self.machine.op_named(cpu, name, 0);
        done.map_err(|e| crate::error::Stop::from(e).of("trap"))
    }
}
