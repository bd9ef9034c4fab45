//! A CPU of the machine that runs real machine code.
//!
//! One step is one instruction: its bytes come from the machine's instruction side, are decoded
//! through the instruction table, and are then carried out by the engine, the machine, or both
//! (`special`). The engine's loads return what the machine loads, and its stores reach the
//! machine only when the whole instruction is known to succeed.
//!
//! A trap or fault ends the step, and whoever runs the CPU goes on, unless the guest has handlers
//! of its own ([`Vcpu::set_vectors`]), which interrupts need. Not modelled: user privilege,
//! instructions that the engine does not know (said by name).

use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::MemOrder;
use textbed_machine::{Cpu, CpuError, Machine, Step};

use unicorn_engine::Context;

use crate::{
    decoded::Known,
    engine::{Engine, EngineError},
    exceptions::Interrupts,
    free::Free,
    registers::{self, Convention, convention},
};

/// Where a called function returns to. Nothing is ever mapped there: it lies in the page of
/// addresses that Linux uses for error pointers, and is aligned for every architecture.
pub const RETURN_ADDRESS: VirtAddr = VirtAddr(0xffff_ffff_ffff_f000);

/// A CPU with an execution engine of its own.
pub struct Vcpu {
    pub(crate) id: CpuId,
    pub(crate) arch: Arch,
    pub(crate) engine: Engine,
    pub(crate) known: Known,
    pub(crate) convention: &'static Convention,
    pub(crate) running: bool,
    pub(crate) budget: Option<u64>,
    pub(crate) interrupts: Interrupts,
    /// For running freely, once that was asked for.
    pub(crate) free: Option<Box<Free>>,
}

/// A CPU's registers and what it was doing, as [`Vcpu::save`] noted them.
pub struct SavedVcpu {
    registers: Context,
    running: bool,
    budget: Option<u64>,
    interrupts: Interrupts,
}

impl From<EngineError> for CpuError {
    fn from(e: EngineError) -> Self {
        match e {
            EngineError::NotModelled(arch) => CpuError::NotModelled(format!("CPUs of {arch}")),
            other => CpuError::Engine(other.to_string()),
        }
    }
}

impl Vcpu {
    /// CPU `id` of a machine of architecture `arch`.
    ///
    /// # Errors
    /// ppc32 is not modelled; the engine cannot be made.
    pub fn new(arch: Arch, id: CpuId) -> Result<Self, CpuError> {
        let engine = Engine::new(arch)?;
        let convention = convention(arch);
        Ok(Self {
            id,
            arch,
            engine,
            known: Known::new(arch),
            convention,
            running: false,
            budget: None,
            interrupts: Interrupts::default(),
            free: None,
        })
    }

    /// Notes registers and what the CPU is doing: with a copy of the machine
    /// ([`Machine::copy`]) a state to which one can come back.
    ///
    /// # Errors
    /// The engine failed.
    pub fn save(&mut self) -> Result<SavedVcpu, CpuError> {
        Ok(SavedVcpu {
            registers: self.engine.registers()?,
            running: self.running,
            budget: self.budget,
            interrupts: self.interrupts.clone(),
        })
    }

    /// Goes back to what this CPU noted. Nothing that it learnt about the machine's code since then
    /// counts any more: the machine is taken to be another one.
    ///
    /// # Errors
    /// The engine failed.
    pub fn restore(&mut self, saved: &SavedVcpu) -> Result<(), CpuError> {
        self.engine.take_over(&saved.registers)?;
        self.running = saved.running;
        self.budget = saved.budget;
        self.interrupts = saved.interrupts.clone();
        self.known.fetch_anew();
        self.forget_known();
        Ok(())
    }

    /// Lets the CPU execute at most this many instructions from now on; then steps end with
    /// [`Step::Limit`]. `None`: no limit.
    pub fn set_budget(&mut self, instructions: Option<u64>) {
        self.budget = instructions;
    }

    /// What is left of [`Vcpu::set_budget`].
    #[must_use]
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// The program counter: the next instruction, or the one that faulted or trapped (behind it
    /// where the architecture reports it so).
    ///
    /// # Errors
    /// The engine failed.
    pub fn pc(&self) -> Result<VirtAddr, CpuError> {
        Ok(VirtAddr(self.engine.pc()?))
    }

    /// Sets the program counter: what a trap handler does before the CPU goes on.
    ///
    /// # Errors
    /// The engine failed.
    pub fn set_pc(&mut self, pc: VirtAddr) -> Result<(), CpuError> {
        self.engine.set_pc(pc.0);
        Ok(())
    }

    /// General register `n` by the manual's number (x86-64: 0 RAX .. 4 RSP .. 15 R15; arm64: 31
    /// reads as zero).
    ///
    /// # Errors
    /// There is no such register.
    pub fn general(&self, n: u8) -> Result<u64, CpuError> {
        match registers::general(self.arch, n) {
            Some(number) => Ok(self.engine.register(number)?),
            None if self.arch == Arch::Arm64 && n == 31 => Ok(0),
            None => Err(self.no_register(n)),
        }
    }

    /// Sets a general register; a write to arm64's 31 is ignored.
    ///
    /// # Errors
    /// There is no such register.
    pub fn set_general(&mut self, n: u8, value: u64) -> Result<(), CpuError> {
        match registers::general(self.arch, n) {
            Some(number) => Ok(self.engine.set_register(number, value)?),
            None if self.arch == Arch::Arm64 && n == 31 => Ok(()),
            None => Err(self.no_register(n)),
        }
    }

    /// Whether an x86 condition code (0 to 15, as in Jcc; SDM vol 1 appendix B) holds for the
    /// flags.
    ///
    /// # Errors
    /// The engine failed, or this is no x86 CPU.
    pub fn condition_holds(&self, condition: u8) -> Result<bool, CpuError> {
        if self.arch != Arch::X86_64 {
            return Err(CpuError::NotModelled(format!("condition codes of {}", self.arch)));
        }
        let flags = self.engine.register(unicorn_engine::RegisterX86::RFLAGS as i32)?;
        let flag = |n: u32| flags >> n & 1 == 1;
        let (carry, parity, zero, sign, overflow) = (flag(0), flag(2), flag(6), flag(7), flag(11));
        let holds = match condition >> 1 & 7 {
            0 => overflow,
            1 => carry,
            2 => zero,
            3 => carry || zero,
            4 => sign,
            5 => parity,
            6 => sign != overflow,
            _ => zero || sign != overflow,
        };
        Ok(holds != (condition & 1 == 1))
    }

    fn no_register(&self, n: u8) -> CpuError {
        CpuError::NotModelled(format!("general register {n} of {}", self.arch))
    }

    /// The stack pointer.
    ///
    /// # Errors
    /// The engine failed.
    pub fn stack_pointer(&self) -> Result<VirtAddr, CpuError> {
        Ok(VirtAddr(self.engine.register(self.convention.stack_pointer)?))
    }
}

impl Cpu for Vcpu {
    fn id(&self) -> CpuId {
        self.id
    }

    fn start(
        &mut self,
        machine: &mut Machine,
        entry: VirtAddr,
        stack: VirtAddr,
        args: &[u64],
    ) -> Result<(), CpuError> {
        if machine.arch() != self.arch {
            let text = format!("a CPU of {} in a machine of {}", self.arch, machine.arch());
            return Err(CpuError::NotModelled(text));
        }
        let most = self.convention.arguments.len();
        if args.len() > most {
            return Err(CpuError::TooManyArguments { given: args.len(), most });
        }
        for (register, value) in self.convention.arguments.iter().zip(args) {
            self.set_general(*register, *value)?;
        }
        let mut sp = stack.align_down(4).0.wrapping_sub(self.convention.reserve);
        match self.convention.link {
            Some(link) => self.engine.set_register(link, RETURN_ADDRESS.0)?,
            None => {
                // What a call instruction pushes.
                sp = sp.wrapping_sub(8);
                let pushed = RETURN_ADDRESS.0.to_le_bytes();
                machine
                    .store(self.id, VirtAddr(sp), &pushed, MemOrder::Plain)
                    .map_err(|fault| CpuError::Machine(Box::new(fault.into())))?;
            }
        }
        self.engine.set_register(self.convention.stack_pointer, sp)?;
        if let Some(own) = self.convention.own_address {
            self.set_general(own, entry.0)?;
        }
        self.engine.set_pc(entry.0);
        self.running = true;
        self.stop_waiting(machine)?;
        Ok(())
    }

    fn step(&mut self, machine: &mut Machine) -> Result<Step, CpuError> {
        if !self.running {
            return Err(CpuError::NotStarted);
        }
        if let Some(waits) = self.still_waits(machine)? {
            return Ok(waits);
        }
        match &mut self.budget {
            Some(0) => return Ok(Step::Limit),
            Some(left) => *left -= 1,
            None => {}
        }
        let pc = self.engine.pc()?;
        let before = self.interrupts_enabled()?;
        let step = match self.take_interrupt(machine, pc)? {
            Some(taken) => taken,
            None => self.step_at(machine, pc)?,
        };
        // What the guest lets in, the machine may send; what it does not, has to wait there, too.
        let after = self.interrupts_enabled()?;
        if after != before {
            machine.set_irqs(self.id, after);
        }
        Ok(step)
    }
}
