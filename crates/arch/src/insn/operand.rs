//! Operands of a decoded instruction, with memory operands as effective-address descriptions.

/// Most operands of a row.
pub(super) const MAX_OPERANDS: usize = 5;

/// One operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A general register by number (x86: 0 RAX .. 15 R15, 4 RSP; arm64: 31 is XZR).
    Reg(u8),
    /// A control, debug or special register by number (x86 CRn or DRn; powerpc SPR).
    SysReg(u16),
    /// An immediate: trap code, barrier option, condition, bit number, TO field.
    Imm(i64),
    /// A branch target relative to the first byte of the instruction.
    Offset(i64),
    /// An absolute branch target (powerpc AA = 1).
    Absolute(u64),
    /// Memory.
    Mem(MemRef),
}

/// Base of an effective address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BaseReg {
    /// None: zero.
    None,
    /// A general register (arm64: 31 is SP).
    Reg(u8),
    /// The address of the next instruction (x86).
    NextInsn,
}

/// x86 segment override that adds a base in 64-bit mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// None, or one that is ignored in 64-bit mode.
    Flat,
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// An effective address: segment base + base + index × scale + displacement, cut to `bits`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemRef {
    /// Segment whose base is added after the cut.
    pub segment: Segment,
    /// Base.
    pub base: BaseReg,
    /// Index register and its factor.
    pub index: Option<(u8, u8)>,
    /// Displacement in bytes.
    pub disp: i64,
    /// Width of the address in bits: 64 or 32.
    pub bits: u8,
}

impl MemRef {
    /// The address `[reg]` or `[reg + index]` with 64 bits.
    pub(super) const fn simple(base: BaseReg, index: Option<u8>) -> MemRef {
        let index = match index {
            Some(i) => Some((i, 1)),
            None => None,
        };
        MemRef { segment: Segment::Flat, base, index, disp: 0, bits: 64 }
    }

    /// The address, given the registers by number, the base of a segment, and the address of the
    /// next instruction.
    #[must_use]
    pub fn address(
        &self,
        reg: &mut dyn FnMut(u8) -> u64,
        segment_base: &mut dyn FnMut(Segment) -> u64,
        next_insn: u64,
    ) -> u64 {
        let base = match self.base {
            BaseReg::None => 0,
            BaseReg::Reg(r) => reg(r),
            BaseReg::NextInsn => next_insn,
        };
        let index = self.index.map_or(0, |(r, scale)| reg(r).wrapping_mul(u64::from(scale)));
        let mut ea = base.wrapping_add(index).wrapping_add(self.disp as u64);
        if self.bits == 32 {
            ea &= 0xffff_ffff;
        }
        match self.segment {
            Segment::Flat => ea,
            segment => ea.wrapping_add(segment_base(segment)),
        }
    }
}

/// The operands of an instruction, in the order of its assembly text where it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Operands {
    list: [Option<Operand>; MAX_OPERANDS],
}

impl Operands {
    /// None.
    pub const NONE: Operands = Operands { list: [None; MAX_OPERANDS] };

    pub(super) fn of(operands: &[Operand]) -> Operands {
        let mut list = [None; MAX_OPERANDS];
        for (slot, operand) in list.iter_mut().zip(operands) {
            *slot = Some(*operand);
        }
        Operands { list }
    }

    /// The operands.
    pub fn iter(&self) -> impl Iterator<Item = Operand> {
        self.list.into_iter().flatten()
    }

    /// Operand number `n`.
    #[must_use]
    pub fn get(&self, n: usize) -> Option<Operand> {
        self.list.get(n).copied().flatten()
    }

    /// Number of the first general register.
    #[must_use]
    pub fn reg(&self) -> Option<u8> {
        self.iter().find_map(|o| if let Operand::Reg(r) = o { Some(r) } else { None })
    }

    /// The first memory operand.
    #[must_use]
    pub fn mem(&self) -> Option<MemRef> {
        self.iter().find_map(|o| if let Operand::Mem(m) = o { Some(m) } else { None })
    }

    /// The first immediate.
    #[must_use]
    pub fn imm(&self) -> Option<i64> {
        self.iter().find_map(|o| if let Operand::Imm(i) = o { Some(i) } else { None })
    }

    /// Target of a direct branch at `pc`.
    #[must_use]
    pub fn target(&self, pc: u64) -> Option<u64> {
        self.iter().find_map(|o| match o {
            Operand::Offset(d) => Some(pc.wrapping_add(d as u64)),
            Operand::Absolute(a) => Some(a),
            _ => None,
        })
    }
}
