//! Which loads fed which registers: what an address, a value or a branch carries of a load's
//! moment.

use textbed_litmus::{Address, If, Op, Rhs};
use textbed_machine::Moment;

/// When the loads were carried out that fed a value: by its data, or by the choice between two.
#[derive(Clone, Copy, Default)]
pub(super) struct By {
    pub(super) data: Moment,
    pub(super) choice: Moment,
}

impl By {
    pub(super) fn with(self, other: By) -> By {
        By { data: self.data.max(other.data), choice: self.choice.max(other.choice) }
    }

    pub(super) fn all(self) -> Moment {
        self.data.max(self.choice)
    }
}

/// What fed each register and the flags.
#[derive(Clone, Default)]
pub(super) struct Fed {
    pub(super) x: [By; 32],
    pub(super) flags: By,
}

impl Fed {
    pub(super) fn of(&self, n: u8) -> By {
        if n >= 31 { By::default() } else { self.x[usize::from(n)] }
    }

    pub(super) fn set(&mut self, n: u8, by: By) {
        if n < 31 {
            self.x[usize::from(n)] = by;
        }
    }

    pub(super) fn address(&self, a: Address) -> By {
        a.index.map_or(self.of(a.base), |(m, _)| self.of(a.base).with(self.of(m)))
    }

    /// What an instruction makes of it; what decided a branch, if it is one.
    pub(super) fn step(&mut self, op: Op) -> Option<Moment> {
        match op {
            Op::Move(d, _) | Op::Adr(d, _) => self.set(d, By::default()),
            Op::Alu(_, _, d, n, rhs, flags) => {
                let by = match rhs {
                    Rhs::Reg(m) => self.of(n).with(self.of(m)),
                    Rhs::Imm(_) => self.of(n),
                };
                self.set(d, by);
                if flags {
                    self.flags = by;
                }
            }
            Op::Select(_, d, n, m, _, _) => {
                let by = self.of(n).with(self.of(m));
                let choice = by.choice.max(self.flags.all());
                self.set(d, By { choice, ..by });
            }
            Op::Jump(_, true) => self.set(30, By::default()),
            Op::JumpIf(test, _) => {
                return Some(match test {
                    If::Flags(_) => self.flags.all(),
                    If::Zero(t, _, _) | If::Bit(t, _, _) => self.of(t).all(),
                });
            }
            Op::JumpReg(n, link) => {
                let on = self.of(n).all();
                if link {
                    self.set(30, By::default());
                }
                return Some(on);
            }
            _ => {}
        }
        None
    }
}
