//! The machine's part of an instruction: its operands, computed from registers, and its effect.
//!
//! Not modelled: hash and partition-scoped `tlbie`, and what [`Machine::op_with`] refuses.

use textbed_arch::{
    Arch, VirtAddr,
    insn::{BaseReg, Insn, MemRef, Operand, Segment, Shape},
};
use textbed_machine::{CpuError, Fault, Machine, OpError};
use unicorn_engine::RegisterX86;

use crate::{special, vcpu::Vcpu};

impl Vcpu {
    /// Lets the machine carry out an instruction; the fault, if its address has none.
    pub(crate) fn operate(
        &self,
        m: &mut Machine,
        insn: &Insn,
        operands: &[u64],
    ) -> Result<Option<Fault>, CpuError> {
        match m.op_with(self.id, insn.row, operands) {
            Ok(()) => Ok(None),
            Err(OpError::Fault(fault)) => Ok(Some(fault)),
            Err(OpError::NotModelled { name, arch }) => {
                Err(CpuError::NotModelled(format!("effect of '{name}' on {arch}")))
            }
            Err(other) => Err(CpuError::Machine(Box::new(other.into()))),
        }
    }

    /// The operands of an instruction in the order in which [`Machine::op_with`] takes them: its
    /// effective address, or what its registers hold. A fault, if an operand lies in memory.
    pub(crate) fn operands(
        &self,
        m: &mut Machine,
        insn: &Insn,
        next: u64,
    ) -> Result<Result<Vec<u64>, Fault>, CpuError> {
        let immediate = |n: usize| match insn.operands.get(n) {
            Some(Operand::Imm(value)) => value,
            _ => 0,
        };
        let register = |n: usize| match insn.operands.get(n) {
            Some(Operand::Reg(number)) => self.general(number),
            _ => Ok(0),
        };
        let row = insn.row;
        Ok(Ok(match row.name {
            "invpcid" => {
                let kind = register(0)?;
                let at = match insn.operands.mem() {
                    Some(memory) => VirtAddr(self.effective_address(&memory, next)?),
                    None => return Err(self.unmodelled("operand", row.name)),
                };
                let mut descriptor = [0; 16];
                if let Err(fault) = m.load(self.id, at, &mut descriptor) {
                    return Ok(Err(fault));
                }
                let value = u128::from_le_bytes(descriptor);
                vec![kind, value as u64 & 0xfff, (value >> 64) as u64]
            }
            // RAX: address and what it is combined with; ECX: count; EDX: PCID in the upper half.
            "invlpgb" => {
                let (rax, ecx, edx) = (self.general(0)?, self.general(1)?, self.general(2)?);
                vec![rax, ecx & 0xffff, edx >> 16 & 0xffff]
            }
            "monitor" | "monitorx" => vec![self.general(0)?],
            "wrmsr" | "wrmsrns" => {
                let (eax, ecx, edx) = (self.general(0)?, self.general(1)?, self.general(2)?);
                vec![ecx & 0xffff_ffff, edx << 32 | eax & 0xffff_ffff]
            }
            _ if insn.row.shape == Shape::Tlbie => {
                // PRS = 1 and R = 1: radix, process scoped. The PID is RS's upper half.
                if (immediate(3), immediate(4)) != (1, 1) {
                    return Err(self.unmodelled("partition-scoped or hash", row.name));
                }
                vec![register(0)?, register(1)? >> 32]
            }
            _ => vec![match insn.operands.mem() {
                Some(memory) => self.effective_address(&memory, next)?,
                None => insn.operands.reg().map_or(Ok(0), |r| self.general(r))?,
            }],
        }))
    }

    fn unmodelled(&self, what: &str, name: &str) -> CpuError {
        CpuError::NotModelled(format!("{what} '{name}' on {}", self.arch))
    }

    fn effective_address(&self, memory: &MemRef, next: u64) -> Result<u64, CpuError> {
        // arm64: 31 as a base is the stack pointer.
        if self.arch == Arch::Arm64 && memory.base == BaseReg::Reg(31) {
            return Ok(self.stack_pointer()?.0.wrapping_add(memory.disp as u64));
        }
        let mut failed = None;
        let mut note = |value: Result<u64, CpuError>| {
            value.unwrap_or_else(|e| {
                failed = Some(e);
                0
            })
        };
        let bases = [RegisterX86::FS_BASE, RegisterX86::GS_BASE];
        let [fs, gs] = match self.arch {
            Arch::X86_64 => bases.map(|r| note(self.engine.register(r as i32).map_err(Into::into))),
            _ => [0; 2],
        };
        let address = memory.address(
            &mut |r| note(self.general(r)),
            &mut |segment| match segment {
                Segment::Fs => fs,
                Segment::Gs => gs,
                Segment::Flat => 0,
            },
            next,
        );
        failed.map_or(Ok(address), Err)
    }

    /// Address operand of `dc zva` (Xt) and `dcbz` (RA or zero, plus RB).
    pub(crate) fn zero_block_address(&self, bytes: &[u8]) -> Result<u64, CpuError> {
        let word = special::word_of(self.arch, bytes).unwrap_or(0);
        let field = |shift: u32| (word >> shift & 0x1f) as u8;
        if self.arch == Arch::Arm64 {
            return self.general(field(0));
        }
        let base = if field(16) == 0 { 0 } else { self.general(field(16))? };
        Ok(base.wrapping_add(self.general(field(11))?))
    }
}
