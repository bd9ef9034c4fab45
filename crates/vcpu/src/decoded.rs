//! What an instruction is, by its bytes: worked out once, for code runs over the same bytes again
//! and again.
//!
//! The address of an instruction only says where to look. What is found there counts if the bytes
//! are those that are fetched now, or if the machine says that they would be ([`Again`]), so
//! nothing here is ever old.

use std::rc::Rc;

use textbed_arch::Arch;
use textbed_arch::insn::{self, Insn};
use textbed_machine::Again;

use crate::moves::{self, Move};
use crate::plain;
use crate::special::{self, Plan};
use crate::x86;

/// Longest instruction of any architecture, rounded up.
pub(crate) const MOST_BYTES: usize = 16;

/// Instructions that are kept, each where its address says.
const SLOTS: usize = 256;

/// An instruction, and what was worked out of its bytes.
pub(crate) struct Decoded {
    bytes: [u8; MOST_BYTES],
    len: usize,
    /// Its row of the table, with operands, if it is in the table.
    pub(crate) insn: Option<Insn>,
    /// Who carries it out.
    pub(crate) plan: Plan,
    /// It changes nothing but registers and memory and orders nothing ([`plain`]).
    pub(crate) plain: bool,
    /// It does not reach memory either: whatever it raises, registers are as before.
    pub(crate) registers_only: bool,
    /// It only moves something, for which the engine is not needed.
    pub(crate) moves: Option<Move>,
}

impl Decoded {
    fn new(arch: Arch, bytes: &[u8]) -> Self {
        let mut kept = [0; MOST_BYTES];
        kept.iter_mut().zip(bytes).for_each(|(kept, byte)| *kept = *byte);
        let insn = insn::decode(arch, bytes);
        let plan = match &insn {
            Some(insn) => special::plan(arch, insn, bytes),
            None => special::plan_other(arch, bytes),
        };
        let by_engine = plan == Plan::Engine(special::Order::PLAIN);
        let plain = by_engine && plain::is_plain(arch, insn.as_ref(), bytes);
        let registers_only = plain && plain::in_registers(arch, bytes);
        let moves = moves::decode(arch, bytes).filter(|_| plain);
        Self { bytes: kept, len: bytes.len(), insn, plan, plain, registers_only, moves }
    }

    /// Its bytes and their number as one value.
    pub(crate) fn key(&self) -> (u128, usize) {
        (u128::from_le_bytes(self.bytes), self.len)
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// An instruction that was met before.
#[derive(Clone)]
struct Slot {
    pc: u64,
    what: Rc<Decoded>,
    /// When a fetch from there gets it once more, if that is known.
    again: Option<Again>,
}

/// Instructions met before.
pub(crate) struct Known {
    arch: Arch,
    slots: Vec<Option<Slot>>,
}

impl Known {
    pub(crate) fn new(arch: Arch) -> Self {
        Self { arch, slots: vec![None; SLOTS] }
    }

    fn slot(pc: u64) -> usize {
        (pc ^ pc >> 8) as usize % SLOTS
    }

    /// Length of the instruction at the start of `bytes`, which were fetched from `pc`; `None` if
    /// more are needed.
    pub(crate) fn length(&self, pc: u64, bytes: &[u8]) -> Option<usize> {
        match self.arch {
            Arch::X86_64 => match self.slots.get(Self::slot(pc)) {
                // What it is does not depend on what is behind it.
                Some(Some(slot)) if bytes.starts_with(slot.what.bytes()) => Some(slot.what.len),
                _ => x86::length(bytes),
            },
            Arch::Arm64 => (bytes.len() >= 4).then_some(4),
            // A prefix, and the word that it belongs to.
            arch => special::word_of(arch, bytes)
                .and_then(|word| insn::word_insn_len(arch, word))
                .map(usize::from),
        }
    }

    /// What was met at `pc` last, and what a fetch that gets it again is.
    pub(crate) fn met(&self, pc: u64) -> Option<(&Rc<Decoded>, &Again)> {
        let slot = self.slots.get(Self::slot(pc))?.as_ref().filter(|slot| slot.pc == pc)?;
        Some((&slot.what, slot.again.as_ref()?))
    }

    /// What was fetched may not be what is fetched again.
    pub(crate) fn fetch_anew(&mut self) {
        self.slots.iter_mut().flatten().for_each(|slot| slot.again = None);
    }

    /// What `bytes`, fetched from `pc`, are.
    pub(crate) fn decode(&mut self, pc: u64, bytes: &[u8], again: Option<Again>) -> Rc<Decoded> {
        let slot = self.slots.get_mut(Self::slot(pc));
        let what = match &slot {
            Some(Some(slot)) if slot.what.bytes() == bytes => Rc::clone(&slot.what),
            _ => Rc::new(Decoded::new(self.arch, bytes)),
        };
        if let Some(slot) = slot {
            *slot = Some(Slot { pc, what: Rc::clone(&what), again });
        }
        what
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_at_the_same_address_are_another_instruction() {
        let mut known = Known::new(Arch::X86_64);
        let call = known.decode(0x10, &[0xe8, 0, 0, 0, 0], None);
        assert!(call.insn.is_some() && call.plain && !call.registers_only);
        assert_eq!(known.length(0x10, &[0xe8, 0, 0, 0, 0, 0x90]), Some(5), "known");
        assert_eq!(known.length(0x10, &[0xe8, 0, 0]), None);
        assert_eq!(known.length(0x10, &[0xc3, 0, 0, 0, 0]), Some(1), "not what is known");
        assert!(Rc::ptr_eq(&call, &known.decode(0x10, &[0xe8, 0, 0, 0, 0], None)));
        assert_eq!(known.decode(0x10, &[0xe8, 1, 0, 0, 0], None).bytes()[1], 1);
        assert!(known.decode(0x10, &[0x48, 0x01, 0xc8], None).registers_only, "add rax, rcx");
        // A slot serves many addresses.
        let other = (0..).map(|n| 0x11 + n).find(|pc| Known::slot(*pc) == Known::slot(0x10));
        assert_eq!(known.decode(other.unwrap(), &[0x90], None).bytes(), [0x90]);
    }
}
