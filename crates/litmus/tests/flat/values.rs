//! Registers, flags and addresses: what an instruction's operands are, as far as they are known.

use textbed_litmus::{Address, If, Next, Op, Registers, Rhs};

use super::{Instruction, Model, State, World};

/// Registers that feed an instruction's result, and whether flags do.
pub(super) fn sources(op: Op) -> (Vec<u8>, bool) {
    let of = |a: Address| {
        let mut all = vec![a.base];
        all.extend(a.index.map(|(m, _)| m));
        all
    };
    match op {
        Op::Alu(_, _, _, n, Rhs::Reg(m), _) => (vec![n, m], false),
        Op::Alu(_, _, _, n, Rhs::Imm(_), _) => (vec![n], false),
        Op::Select(_, _, n, m, _, _) => (vec![n, m], true),
        Op::Load(_, a, _, _) | Op::Store(_, a, _, _) => (of(a), false),
        Op::Clean(_, n) | Op::InvalidateIcache(_, _, n) | Op::JumpReg(n, _) => (vec![n], false),
        Op::JumpIf(If::Flags(_), _) => (vec![], true),
        Op::JumpIf(If::Zero(t, _, _) | If::Bit(t, _, _), _) => (vec![t], false),
        _ => (vec![], false),
    }
}

pub(super) fn writes_register(op: Op, n: u8) -> bool {
    match op {
        Op::Move(d, _) | Op::Alu(_, _, d, _, _, _) | Op::Select(_, d, _, _, _, _) => d == n,
        Op::Adr(d, _) | Op::Load(d, _, _, _) => d == n,
        Op::Jump(_, link) | Op::JumpReg(_, link) => link && n == 30,
        _ => false,
    }
}

pub(super) fn is_branch(op: Op) -> bool {
    matches!(op, Op::JumpIf(..) | Op::JumpReg(..))
}

impl Model<'_> {
    /// A register before instruction `i` of a thread; `None` while it is not known.
    pub(super) fn register(&self, w: &World, t: usize, i: usize, n: u8) -> Option<u64> {
        if n >= 31 {
            return Some(0);
        }
        let decoded = &w.threads[t].decoded;
        match (0..i).rev().find(|j| writes_register(decoded[*j].op.1, n)) {
            Some(j) => match (&decoded[j].op.1, &decoded[j].state) {
                (Op::Load(_, _, bytes, _), State::Read(write, _)) => Some(cut(write.value, *bytes)),
                (Op::Load(..), _) => None,
                // The link is known before the target is.
                (Op::Jump(..) | Op::JumpReg(..), _) => Some(decoded[j].pc + 4),
                (op, _) => Some(self.result(w, t, j, *op)?.get(n)),
            },
            None => {
                let initial = self.test.threads[t].registers.iter().find(|(r, _)| *r == n);
                Some(initial.map_or(0, |(_, value)| *value))
            }
        }
    }

    /// The registers after an instruction, as far as it concerns them.
    pub(super) fn result(&self, w: &World, t: usize, i: usize, op: Op) -> Option<Registers> {
        let pc = w.threads[t].decoded[i].pc;
        let mut r = Registers { pc, ..Registers::default() };
        let (registers, flags) = sources(op);
        for n in registers {
            let value = self.register(w, t, i, n)?;
            r.set(n, value);
        }
        if flags {
            r.flags = self.flags(w, t, i)?;
        }
        let _ = r.step(op);
        Some(r)
    }

    pub(super) fn flags(&self, w: &World, t: usize, i: usize) -> Option<(bool, bool, bool, bool)> {
        let decoded = &w.threads[t].decoded;
        let sets = |j: &usize| matches!(decoded[*j].op.1, Op::Alu(_, _, _, _, _, true));
        match (0..i).rev().find(sets) {
            Some(j) => Some(self.result(w, t, j, decoded[j].op.1)?.flags),
            None => Some((false, false, false, false)),
        }
    }

    /// The word that a memory access or a maintenance instruction is about; `None` while that is
    /// not known, or for one that is about everything.
    pub(super) fn address(&self, w: &World, t: usize, i: usize) -> Option<u64> {
        let op = w.threads[t].decoded[i].op.1;
        let mut r = Registers::default();
        for n in sources(op).0 {
            r.set(n, self.register(w, t, i, n)?);
        }
        let at = match r.step(op) {
            Next::Load { virt, .. }
            | Next::Store { virt, .. }
            | Next::Clean(_, virt)
            | Next::InvalidateIcache(_, _, virt) => virt.0,
            _ => return None,
        };
        Some(self.location(at))
    }

    /// Where an instruction leads; `None` while that is not known.
    pub(super) fn leads(&self, w: &World, t: usize, i: usize) -> Option<u64> {
        let Instruction { pc, op, .. } = &w.threads[t].decoded[i];
        match op.1 {
            Op::Jump(offset, _) => Some(pc.wrapping_add(offset as u64)),
            op if is_branch(op) => Some(self.result(w, t, i, op)?.pc),
            _ => Some(pc + 4),
        }
    }
}

pub(super) fn cut(value: u64, bytes: u8) -> u64 {
    if bytes >= 8 { value } else { value & ((1 << (8 * bytes)) - 1) }
}
