//! Traps that a CPU takes in kernel code, and which of the kernel's handlers knows them.
//!
//! Modelled: the handler of the x86 patcher (first in line, as in exc_int3); what no handler knows
//! is the end of the task. From: Linux 6.12 arch/x86/kernel/traps.c exc_int3, 7.0
//! arch/x86/kernel/alternative.c. Not modelled: notifier chains, debuggers, probes.

use textbed_arch::{Arch, CpuId, VirtAddr};

use crate::error::CallError;
use crate::kernel::Kernel;

/// x86 vector of INT3.
const BREAKPOINT: u16 = 3;

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
        if self.arch == Arch::X86_64 && vector == BREAKPOINT && cpu.0 < self.cpus {
            return self.batch.handle(virt);
        }
        None
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
