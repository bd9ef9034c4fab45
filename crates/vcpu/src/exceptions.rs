//! Exceptions and interrupts taken to the guest's own handlers, and when an interrupt can be taken.
//!
//! With [`Vcpu::set_vectors`] a trap, a fault or an interrupt no longer ends a step: the CPU goes
//! to the guest's handler with the state that its return instruction (`iretq`, `eret`, `rfid`)
//! takes back.
//!
//! - x86-64: the gate of the IDT (SDM 3A 6.14.1) names the handler; SS, RSP, RFLAGS, CS, RIP and an
//!   error code go to the stack, aligned to 16; an interrupt gate clears IF. An interrupt is taken
//!   if RFLAGS.IF is set.
//! - arm64: VBAR_EL1 + 0x200, for an IRQ + 0x280 (DDI 0487 D1.3.5); ELR_EL1, SPSR_EL1, ESR_EL1 and
//!   FAR_EL1 are set, PSTATE.DAIF too. An interrupt is taken if PSTATE.I is clear.
//! - powerpc: a base plus the interrupt's offset (Book III 7.5); SRR0, SRR1 and DAR are set, MSR.EE
//!   and RI cleared. An interrupt is taken if MSR.EE is set.
//!
//! An interrupt that cannot be taken waits until it can. On x86-64 that is one instruction after
//! `sti` (its shadow), elsewhere at once. With [`Vcpu::set_ipi_vector`] the machine's cross-calls
//! are such interrupts: taken when the handler is entered, done when it has returned.
//!
//! Not modelled: interrupt stacks, gates to other segments, SP_EL0, other privilege, priorities
//! among interrupts (they are taken in the order of their arrival), NMIs, machine checks. Registers
//! that the engine's interface has no name for are set by an instruction of the guest's own kind.

use std::cell::Cell;

use textbed_arch::{Arch, VirtAddr};
use textbed_event::{Access, FaultReason, Flags, MemOrder};
use textbed_machine::{CpuError, Fault, Machine, Step};
use unicorn_engine::{RegisterARM64, RegisterPPC, RegisterX86};

use crate::vcpu::Vcpu;
use crate::wait::Wait;

/// Where a register is set from by an instruction: nothing of the guest is there.
const SCRATCH: u64 = 0xffff_ffff_ffff_e000;

const IF: u64 = 1 << 9;
const TF_NT_RF: u64 = 1 << 8 | 1 << 14 | 1 << 16;
const DAIF: u64 = 0xf << 6;
const PSTATE_I: u64 = 1 << 7;
const MSR_EE: u64 = 1 << 15;
const MSR_RI: u64 = 1 << 1;
/// SRR1 bits that tell why: page fault of a fetch without translation, and without permission.
const SRR1_NO_PAGE: u64 = 1 << 30;
const SRR1_GUARDED: u64 = 1 << 28;

/// What is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// A trap with the architecture's number; the address it returns to.
    Trap(u16, u64),
    /// A fault at the instruction at this address.
    Fault(Fault, u64),
    /// An interrupt.
    Interrupt(u16, u64),
}

/// Interrupts, and where their handlers are.
#[derive(Clone, Default)]
pub(crate) struct Interrupts {
    /// IDT, VBAR_EL1, or what powerpc's offsets are added to.
    pub(crate) vectors: Option<VirtAddr>,
    /// Sent and not taken.
    pending: Vec<u16>,
    /// The instruction after `sti` runs first.
    pub(crate) shadow: bool,
    /// What the machine's cross-calls come as.
    ipi_vector: Option<u16>,
    /// Handlers that were entered and not left.
    depth: usize,
    /// Depths of the handlers that serve cross-calls.
    serving: Vec<usize>,
    /// What the CPU waits for, if it does.
    pub(crate) wait: Option<Wait>,
    /// Whether the CPU's own state lets an interrupt in, if nothing changed it since it was asked.
    enabled: Cell<Option<bool>>,
}

impl Vcpu {
    /// Where the guest's handlers are: the IDT's address, VBAR_EL1, or the address that powerpc's
    /// vector offsets are added to. `None`, as it is in the beginning: exceptions end the step.
    pub fn set_vectors(&mut self, base: Option<VirtAddr>) {
        self.interrupts.vectors = base;
    }

    /// Sends an interrupt: x86-64 vector, powerpc offset (0x500 external, 0xa00 doorbell), on arm64
    /// an IRQ whatever the number. It is taken by the first step that can take it.
    pub fn interrupt(&mut self, vector: u16) {
        self.interrupts.pending.push(vector);
    }

    /// What the machine's cross-calls come as: a number as [`Vcpu::interrupt`] takes it. `None`, as
    /// it is in the beginning: whoever runs the CPU serves them.
    pub fn set_ipi_vector(&mut self, vector: Option<u16>) {
        self.interrupts.ipi_vector = vector;
    }

    /// Interrupts that were sent and not taken.
    #[must_use]
    pub fn pending_interrupts(&self) -> usize {
        self.interrupts.pending.len()
    }

    /// Whether the CPU's own state lets an interrupt in.
    ///
    /// # Errors
    /// The engine failed.
    #[inline]
    pub fn interrupts_enabled(&self) -> Result<bool, CpuError> {
        match self.interrupts.enabled.get() {
            Some(enabled) => Ok(enabled),
            None => self.look_whether_enabled(),
        }
    }

    fn look_whether_enabled(&self) -> Result<bool, CpuError> {
        let enabled = match self.arch {
            Arch::X86_64 => self.engine.register(RegisterX86::RFLAGS as i32)? & IF != 0,
            Arch::Arm64 => self.engine.register(RegisterARM64::PSTATE as i32)? & PSTATE_I == 0,
            _ => self.engine.register(RegisterPPC::MSR as i32)? & MSR_EE != 0,
        };
        self.interrupts.enabled.set(Some(enabled));
        Ok(enabled)
    }

    /// What lets interrupts in may change from here on.
    pub(crate) fn control_changes(&self) {
        self.interrupts.enabled.set(None);
    }

    /// Lets interrupts in, or keeps them out, as the guest's own instructions would.
    ///
    /// # Errors
    /// The engine failed.
    pub fn enable_interrupts(&mut self, on: bool) -> Result<(), CpuError> {
        let (register, bit, set_is_on) = match self.arch {
            Arch::X86_64 => (RegisterX86::RFLAGS as i32, IF, true),
            Arch::Arm64 => (RegisterARM64::PSTATE as i32, PSTATE_I, false),
            _ => (RegisterPPC::MSR as i32, MSR_EE, true),
        };
        let now = self.engine.register(register)?;
        let next = if on == set_is_on { now | bit } else { now & !bit };
        self.control_changes();
        Ok(self.engine.set_register(register, next)?)
    }

    /// x86-64: the selector in CS, which an IDT's gates have to name; 0 elsewhere.
    ///
    /// # Errors
    /// The engine failed.
    pub fn code_selector(&self) -> Result<u64, CpuError> {
        match self.arch {
            Arch::X86_64 => Ok(self.engine.register(RegisterX86::CS as i32)?),
            _ => Ok(0),
        }
    }

    /// Whether an interrupt is there and can be taken.
    pub(crate) fn is_interrupted(&self, m: &Machine) -> Result<bool, CpuError> {
        let ipi = self.interrupts.ipi_vector.is_some() && m.pending_ipis(self.id) > 0;
        let any = ipi || !self.interrupts.pending.is_empty();
        Ok(any && self.interrupts.vectors.is_some() && self.interrupts_enabled()?)
    }

    /// Takes the oldest interrupt, if there is one and it can be taken now.
    pub(crate) fn take_interrupt(
        &mut self,
        m: &mut Machine,
        pc: u64,
    ) -> Result<Option<Step>, CpuError> {
        let ipi = self.interrupts.ipi_vector.filter(|_| m.pending_ipis(self.id) > 0);
        let none = ipi.is_none() && self.interrupts.pending.is_empty();
        if none || self.interrupts.vectors.is_none() {
            return Ok(None);
        }
        if std::mem::take(&mut self.interrupts.shadow) || !self.interrupts_enabled()? {
            return Ok(None);
        }
        if let Some(vector) = ipi {
            let step = self.take(m, Taken::Interrupt(vector, pc))?;
            if m.accept_ipi(self.id) {
                self.interrupts.serving.push(self.interrupts.depth);
            }
            return Ok(Some(step));
        }
        let vector = self.interrupts.pending.remove(0);
        self.take(m, Taken::Interrupt(vector, pc)).map(Some)
    }

    /// Goes to the guest's handler.
    pub(crate) fn take(&mut self, m: &mut Machine, what: Taken) -> Result<Step, CpuError> {
        let Some(base) = self.interrupts.vectors else {
            return Err(CpuError::NotModelled("an exception without handlers".to_owned()));
        };
        m.exception_entry(self.id);
        self.control_changes();
        let step = match self.arch {
            Arch::X86_64 => self.take_x86(m, base, what),
            Arch::Arm64 => self.take_arm64(base, what),
            _ => self.take_power(base, what),
        }?;
        self.interrupts.depth += 1;
        Ok(step)
    }

    /// An exception return was executed: a cross-call whose handler this ends is done.
    pub(crate) fn left_handler(&mut self, m: &mut Machine) {
        let interrupts = &mut self.interrupts;
        if interrupts.serving.pop_if(|depth| *depth == interrupts.depth).is_some() {
            m.finish_ipi(self.id);
        }
        interrupts.depth = interrupts.depth.saturating_sub(1);
    }

    fn take_x86(&mut self, m: &mut Machine, idt: VirtAddr, what: Taken) -> Result<Step, CpuError> {
        let (vector, back, error) = match what {
            Taken::Trap(vector, back) => {
                // These push an error code (SDM 3A table 6-1).
                let pushes = [8, 10, 11, 12, 13, 14, 17, 21].contains(&vector);
                (vector, back, pushes.then_some(0))
            }
            Taken::Interrupt(vector, back) => (vector, back, None),
            Taken::Fault(fault, back) if fault.reason == FaultReason::BadAddress => {
                (13, back, Some(0))
            }
            Taken::Fault(fault, back) => {
                let present =
                    matches!(fault.reason, FaultReason::Permission | FaultReason::Spurious);
                let code = u64::from(present)
                    | u64::from(fault.access == Access::Write) << 1
                    | u64::from(fault.reason == FaultReason::Malformed) << 3
                    | u64::from(fault.access == Access::Exec) << 4;
                self.engine.set_register(RegisterX86::CR2 as i32, fault.virt.0)?;
                (14, back, Some(code))
            }
        };
        let mut gate = [0; 16];
        let at = idt.0.wrapping_add(16 * u64::from(vector));
        if m.load(self.id, VirtAddr(at), &mut gate).is_err() {
            return Err(CpuError::NotModelled(format!("vector {vector}: the IDT is not mapped")));
        }
        let raw = u128::from_le_bytes(gate);
        let offset = (raw & 0xffff) as u64
            | ((raw >> 48 & 0xffff) as u64) << 16
            | ((raw >> 64) as u64) << 32;
        let (selector, kind) = ((raw >> 16) as u64 & 0xffff, (raw >> 40) as u64 & 0xff);
        let current = |r: RegisterX86| self.engine.register(r as i32);
        let (cs, ss) = (current(RegisterX86::CS)?, current(RegisterX86::SS)?);
        // Present, an interrupt (e) or trap (f) gate, no stack of its own.
        if kind & 0x9e != 0x8e || raw >> 32 & 7 != 0 || selector != cs {
            let text = format!("vector {vector}: an IDT gate of type {kind:#x} to {selector:#x}");
            return Err(CpuError::NotModelled(text));
        }
        let flags = current(RegisterX86::RFLAGS)?;
        let rsp = current(RegisterX86::RSP)?;
        let mut frame: Vec<u64> = error.into_iter().collect();
        frame.extend([back, cs, flags, rsp, ss]);
        let sp = (rsp & !15).wrapping_sub(8 * frame.len() as u64);
        let bytes: Vec<u8> = frame.iter().flat_map(|word| word.to_le_bytes()).collect();
        let pieces: Vec<_> = bytes
            .chunks(8)
            .enumerate()
            .map(|(n, piece)| (VirtAddr(sp.wrapping_add(8 * n as u64)), piece.to_vec()))
            .collect();
        if m.store_all(self.id, &pieces, MemOrder::Plain, Flags::default()).is_err() {
            return Err(CpuError::NotModelled(format!("vector {vector}: no stack to push to")));
        }
        let masked = if kind & 1 == 0 { IF } else { 0 };
        self.engine.set_register(RegisterX86::RFLAGS as i32, flags & !(masked | TF_NT_RF))?;
        self.engine.set_register(RegisterX86::RSP as i32, sp)?;
        self.engine.set_pc(offset);
        Ok(Step::Ran)
    }

    fn take_arm64(&mut self, vbar: VirtAddr, what: Taken) -> Result<Step, CpuError> {
        let pstate = self.engine.register(RegisterARM64::PSTATE as i32)?;
        let (offset, back) = match what {
            Taken::Interrupt(_, back) => (0x280, back),
            Taken::Trap(class, back) => {
                let esr = u64::from(class) << 26 | 1 << 25;
                self.engine.set_register(RegisterARM64::ESR_EL1 as i32, esr)?;
                (0x200, back)
            }
            Taken::Fault(fault, back) => {
                let class: u64 = if fault.access == Access::Exec { 0x21 } else { 0x25 };
                // Fault status of the last level (D24.2.37, ISS encodings).
                let status: u64 = match fault.reason {
                    FaultReason::NotPresent | FaultReason::BadAddress => 0b00_0111,
                    FaultReason::Permission | FaultReason::Spurious => 0b00_1111,
                    FaultReason::Malformed | FaultReason::NoMemory => 0b01_0000,
                    FaultReason::Conflict => 0b11_0000,
                };
                let write = u64::from(fault.access == Access::Write) << 6;
                let esr = class << 26 | 1 << 25 | write | status;
                self.engine.set_register(RegisterARM64::ESR_EL1 as i32, esr)?;
                self.engine.set_register(RegisterARM64::FAR_EL1 as i32, fault.virt.0)?;
                (0x200, back)
            }
        };
        self.engine.set_register(RegisterARM64::ELR_EL1 as i32, back)?;
        // MSR SPSR_EL1, X0.
        self.by_instruction(0xd518_4000, RegisterARM64::X0 as i32, pstate)?;
        self.engine.set_register(RegisterARM64::PSTATE as i32, pstate | DAIF)?;
        self.engine.set_pc(vbar.0.wrapping_add(offset));
        Ok(Step::Ran)
    }

    fn take_power(&mut self, base: VirtAddr, what: Taken) -> Result<Step, CpuError> {
        let msr = self.engine.register(RegisterPPC::MSR as i32)?;
        let (offset, back, why) = match what {
            Taken::Interrupt(offset, back) | Taken::Trap(offset, back) => {
                // A program interrupt by `trap`, or of an unknown instruction.
                let why = if offset == 0x700 { 1 << 17 } else { 0 };
                (offset, back, why)
            }
            Taken::Fault(fault, back) if fault.access == Access::Exec => {
                let denied =
                    matches!(fault.reason, FaultReason::Permission | FaultReason::Spurious);
                (0x400, back, if denied { SRR1_GUARDED } else { SRR1_NO_PAGE })
            }
            Taken::Fault(fault, back) => {
                // MTSPR DAR, R0.
                self.by_instruction(mtspr(19), RegisterPPC::R0 as i32, fault.virt.0)?;
                (0x300, back, 0)
            }
        };
        // SRR0 and SRR1.
        self.by_instruction(mtspr(26), RegisterPPC::R0 as i32, back)?;
        self.by_instruction(mtspr(27), RegisterPPC::R0 as i32, msr | why)?;
        self.engine.set_register(RegisterPPC::MSR as i32, msr & !(MSR_EE | MSR_RI))?;
        self.engine.set_pc(base.0.wrapping_add(u64::from(offset)));
        Ok(Step::Ran)
    }

    /// Has the engine execute one instruction that sets a register of its own from `from`, whose
    /// contents are then as before.
    fn by_instruction(&mut self, word: u32, from: i32, value: u64) -> Result<(), CpuError> {
        let little = self.arch.is_little_endian();
        let bytes = if little { word.to_le_bytes() } else { word.to_be_bytes() };
        let (kept, pc) = (self.engine.register(from)?, self.engine.pc()?);
        self.engine.set_register(from, value)?;
        self.engine.begin()?;
        self.engine.place(SCRATCH, &bytes)?;
        let ended = self.engine.run(SCRATCH)?;
        self.engine.set_register(from, kept)?;
        self.engine.set_pc(pc);
        match ended {
            crate::engine::Ended::Done => Ok(()),
            other => Err(CpuError::Engine(format!("setting a register: {other:?}"))),
        }
    }
}

/// `mtspr SPR, r0`.
const fn mtspr(spr: u32) -> u32 {
    31 << 26 | (spr & 31) << 16 | (spr >> 5) << 11 | 467 << 1
}
