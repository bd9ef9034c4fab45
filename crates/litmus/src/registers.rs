//! The registers of a CPU, and what an instruction does to them.
//!
//! Not modelled: carry and overflow beyond what addition and subtraction set.

use textbed_arch::VirtAddr;
use textbed_arch::effect::{Barrier, CacheScope, Domain, Reach};

use crate::op::{Alu, If, Op, Order, Rhs, Width};

/// Registers, flags, program counter and return address of exceptions.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Registers {
    /// X0 to X30.
    pub x: [u64; 31],
    /// N, Z, C, V.
    pub flags: (bool, bool, bool, bool),
    /// The next instruction.
    pub pc: u64,
    /// ELR_EL1.
    pub elr: u64,
}

/// What an instruction asks of memory and caches; the program counter is moved already, but for
/// [`Next::Trap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing.
    Go,
    /// Load so many bytes into the register, then go on.
    Load {
        /// Register.
        t: u8,
        /// Address.
        virt: VirtAddr,
        /// Bytes.
        bytes: u8,
        /// Order.
        order: Order,
    },
    /// Store so many low bytes of the value.
    Store {
        /// Address.
        virt: VirtAddr,
        /// Value.
        value: u64,
        /// Bytes.
        bytes: u8,
        /// Order.
        order: Order,
    },
    /// A barrier.
    Barrier(Barrier, Domain),
    /// A clean at an address.
    Clean(CacheScope, VirtAddr),
    /// An instruction cache invalidation.
    InvalidateIcache(CacheScope, Reach, VirtAddr),
    /// `isb`.
    Isb,
    /// `eret`.
    Eret,
    /// An exception; `true`: the instruction is undefined.
    Trap(bool),
}

impl Registers {
    /// A register; 31 is zero.
    #[must_use]
    pub fn get(&self, n: u8) -> u64 {
        self.x.get(usize::from(n)).copied().unwrap_or(0)
    }

    /// Sets a register; 31 stays zero.
    pub fn set(&mut self, n: u8, value: u64) {
        if let Some(x) = self.x.get_mut(usize::from(n)) {
            *x = value;
        }
    }

    /// Whether a condition code holds (Arm ARM C1.2.4).
    #[must_use]
    pub fn holds(&self, cond: u8) -> bool {
        let (n, z, c, v) = self.flags;
        let base = match cond >> 1 {
            0 => z,
            1 => c,
            2 => n,
            3 => v,
            4 => c && !z,
            5 => n == v,
            6 => n == v && !z,
            _ => return true,
        };
        base != (cond & 1 == 1)
    }

    /// Carries out the instruction at the program counter, and says what it asks for.
    pub fn step(&mut self, op: Op) -> Next {
        let pc = self.pc;
        let mut to = pc.wrapping_add(4);
        let by = |offset: i64| pc.wrapping_add(offset as u64);
        let at = |r: &Self, a: crate::Address| {
            let index = a.index.map_or(0, |(m, signed)| match signed {
                true => r.get(m) as u32 as i32 as i64 as u64,
                false => r.get(m),
            });
            VirtAddr(r.get(a.base).wrapping_add(index).wrapping_add(a.disp))
        };
        let mut next = Next::Go;
        match op {
            Op::Nop => {}
            Op::Isb => next = Next::Isb,
            Op::Barrier(barrier, domain) => next = Next::Barrier(barrier, domain),
            Op::Clean(scope, t) => next = Next::Clean(scope, VirtAddr(self.get(t))),
            Op::InvalidateIcache(scope, reach, t) => {
                next = Next::InvalidateIcache(scope, reach, VirtAddr(self.get(t)));
            }
            Op::Move(d, value) => self.set(d, value),
            Op::Alu(kind, width, d, n, rhs, flags) => {
                let b = match rhs {
                    Rhs::Reg(m) => self.get(m),
                    Rhs::Imm(value) => value,
                };
                let value = self.alu(kind, width, self.get(n), b, flags);
                self.set(d, value);
            }
            Op::Select(width, d, n, m, cond, increment) => {
                let value = match self.holds(cond) {
                    true => self.get(n),
                    false => self.get(m).wrapping_add(u64::from(increment)),
                };
                self.set(d, cut(width, value));
            }
            Op::Adr(d, offset) => self.set(d, by(offset)),
            Op::Load(t, address, bytes, order) => {
                next = Next::Load { t, virt: at(self, address), bytes, order };
            }
            Op::Store(t, address, bytes, order) => {
                let value = self.get(t);
                next = Next::Store { virt: at(self, address), value, bytes, order };
            }
            Op::Jump(offset, link) => {
                if link {
                    self.set(30, to);
                }
                to = by(offset);
            }
            Op::JumpIf(test, offset) => {
                let taken = match test {
                    If::Flags(cond) => self.holds(cond),
                    If::Zero(t, width, not) => (cut(width, self.get(t)) == 0) != not,
                    If::Bit(t, bit, one) => (self.get(t) >> (bit & 63) & 1 == 1) == one,
                };
                if taken {
                    to = by(offset);
                }
            }
            Op::JumpReg(n, link) => {
                let target = self.get(n);
                if link {
                    self.set(30, to);
                }
                to = target;
            }
            Op::SetElr(t) => self.elr = self.get(t),
            Op::Eret => (next, to) = (Next::Eret, self.elr),
            Op::Trap(undefined) => (next, to) = (Next::Trap(undefined), pc),
        }
        self.pc = to;
        next
    }

    fn alu(&mut self, kind: Alu, width: Width, a: u64, b: u64, flags: bool) -> u64 {
        let (a, b) = (cut(width, a), cut(width, b));
        let top = if width == Width::W { 31 } else { 63 };
        let value = cut(
            width,
            match kind {
                Alu::Add => a.wrapping_add(b),
                Alu::Sub => a.wrapping_sub(b),
                Alu::And => a & b,
                Alu::Or => a | b,
                Alu::Xor => a ^ b,
            },
        );
        if flags {
            let sign = |v: u64| v >> top & 1 == 1;
            let (c, v) = match kind {
                Alu::Add => (value < a, sign(a) == sign(b) && sign(value) != sign(a)),
                Alu::Sub => (a >= b, sign(a) != sign(b) && sign(value) != sign(a)),
                _ => (false, false),
            };
            self.flags = (sign(value), value == 0, c, v);
        }
        value
    }
}

fn cut(width: Width, value: u64) -> u64 {
    if width == Width::W { value & 0xffff_ffff } else { value }
}
