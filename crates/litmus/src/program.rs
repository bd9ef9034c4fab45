//! A litmus test's threads as programs for [`textbed_check::outcomes`], with what fed each
//! register.
//!
//! A condition of CSEL and CSET taints its result for stores, maintenance and branches, not for the
//! addresses of loads (pick dependencies). Only the register that was selected is read.

use std::collections::BTreeMap;

use textbed_arch::VirtAddr;
use textbed_arch::effect::{CacheScope, Reach};
use textbed_check::outcomes::{self, Answer, Ask, Deps, Lines, Step};

use crate::condition::FaultKind;
use crate::op::{If, Op, Order, Rhs};
use crate::parse::Test;
use crate::registers::{Next, Registers};

/// What does not change while a test runs.
#[derive(Debug)]
pub(crate) struct Image {
    /// Initial values by physical address: code words and locations.
    memory: BTreeMap<u64, u64>,
    /// Pages that lead elsewhere, and where.
    aliases: Vec<(u64, u64)>,
    /// Handlers by thread.
    handlers: Vec<Option<VirtAddr>>,
    code: BTreeMap<u64, u32>,
    /// `ic iallu` reaches every CPU, as with HCR_EL2.FB.
    broadcast: bool,
}

impl Image {
    pub(crate) fn of(test: &Test, broadcast: bool) -> Self {
        let mut code = BTreeMap::new();
        for thread in &test.threads {
            code.extend(thread.all().map(|i| (i.virt.0, i.word)));
        }
        let mut memory: BTreeMap<u64, u64> =
            code.iter().map(|(at, word)| (*at, u64::from(*word))).collect();
        let mut aliases = Vec::new();
        for place in &test.places {
            match place.alias_of {
                Some(of) => aliases.push((place.virt.0 & !0xfff, of.0 & !0xfff)),
                None => {
                    memory.insert(place.virt.0, place.value);
                }
            }
        }
        let handlers = test.threads.iter().map(crate::parse::Thread::handler_entry).collect();
        Self { memory, aliases, handlers, code, broadcast }
    }

    /// The initial value at a physical address.
    pub(crate) fn initial(&self, at: u64) -> u64 {
        self.memory.get(&at).copied().unwrap_or(0)
    }

    /// Where a virtual address leads. Pages without an alias lead to themselves.
    pub(crate) fn phys(&self, virt: u64) -> u64 {
        let page = self.aliases.iter().find(|(from, _)| *from == virt & !0xfff);
        page.map_or(virt, |(_, to)| to | virt & 0xfff)
    }
}

/// What fed a register: for every use, and for uses other than addresses of loads.
#[derive(Clone, Copy, Default, Debug)]
struct Fed {
    always: Deps,
    picked: Deps,
}

impl Fed {
    fn all(self) -> Deps {
        self.always.with(self.picked)
    }

    fn with(self, other: Fed) -> Fed {
        Fed { always: self.always.with(other.always), picked: self.picked.with(other.picked) }
    }
}

/// What a thread waits for.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// Nothing: it fetches next.
    Nothing,
    /// The instruction word.
    Word,
    /// A value of so many bytes for a register.
    Value(u8, u8),
}

/// A thread as it runs.
#[derive(Clone, Debug)]
pub(crate) struct Program<'a> {
    image: &'a Image,
    thread: usize,
    pub(crate) registers: Registers,
    fed: [Fed; 32],
    flags: Fed,
    wait: Wait,
    faults: Vec<(VirtAddr, bool)>,
    done: bool,
}

impl<'a> Program<'a> {
    pub(crate) fn of(image: &'a Image, test: &Test, thread: usize) -> Self {
        let mut registers = Registers::default();
        if let Some(t) = test.threads.get(thread) {
            registers.pc = t.entry.0;
            t.registers.iter().for_each(|(n, value)| registers.set(*n, *value));
        }
        let fed = [Fed::default(); 32];
        let (flags, wait) = (Fed::default(), Wait::Nothing);
        Self { image, thread, registers, fed, flags, wait, faults: Vec::new(), done: false }
    }

    pub(crate) fn faulted(&self, virt: VirtAddr, kind: FaultKind) -> bool {
        self.faults.iter().any(|(at, und)| *at == virt && (kind == FaultKind::Any || *und))
    }

    fn of_register(&self, n: u8) -> Fed {
        // Register 31 is zero, and its entry is never set.
        self.fed.get(usize::from(n)).copied().unwrap_or_default()
    }

    fn set_fed(&mut self, n: u8, fed: Fed) {
        if n < 31 {
            self.fed[usize::from(n)] = fed;
        }
    }

    fn address(&self, address: crate::Address) -> Fed {
        let index = address.index.map_or(Fed::default(), |(m, _)| self.of_register(m));
        self.of_register(address.base).with(index)
    }

    /// Takes an exception: to the thread's handler, or the thread ends.
    fn fault(&mut self, pc: u64, undefined: bool) -> Ask {
        self.faults.push((VirtAddr(pc), undefined));
        match self.image.handlers.get(self.thread).copied().flatten() {
            Some(at) => {
                self.registers.elr = pc;
                self.registers.pc = at.0;
                Ask::Do(Step::Sync)
            }
            None => {
                self.done = true;
                Ask::End
            }
        }
    }

    /// The bytes that maintenance at an address is about: one word, as in the models that the
    /// recorded verdicts come from.
    fn lines(&self, scope: CacheScope, virt: VirtAddr) -> Lines {
        match scope {
            CacheScope::All => Lines::All,
            CacheScope::Line => {
                let at = self.image.phys(virt.0) & !3;
                Lines::Of(at, at + 3)
            }
        }
    }

    /// Executes an instruction. `None`: nothing that anybody else could see.
    fn execute(&mut self, op: Op) -> Option<Ask> {
        let pc = self.registers.pc;
        // Dependencies are of registers as they were before.
        let (address, data, branch) = match op {
            Op::Load(_, a, ..) => (self.address(a), Fed::default(), None),
            Op::Store(t, a, ..) => (self.address(a), self.of_register(t), None),
            Op::Clean(_, t) | Op::InvalidateIcache(_, _, t) => {
                (self.of_register(t), Fed::default(), None)
            }
            Op::JumpIf(test, _) => {
                let on = match test {
                    If::Flags(_) => self.flags,
                    If::Zero(t, ..) | If::Bit(t, ..) => self.of_register(t),
                };
                (Fed::default(), Fed::default(), Some(on))
            }
            Op::JumpReg(n, _) => (Fed::default(), Fed::default(), Some(self.of_register(n))),
            _ => Default::default(),
        };
        match op {
            Op::Alu(_, _, d, n, rhs, flags) => {
                let m = match rhs {
                    Rhs::Reg(m) => self.of_register(m),
                    Rhs::Imm(_) => Fed::default(),
                };
                let fed = self.of_register(n).with(m);
                self.set_fed(d, fed);
                if flags {
                    self.flags = fed;
                }
            }
            Op::Select(_, d, n, m, cond, _) => {
                let chosen = if self.registers.holds(cond) { n } else { m };
                let picked = Fed { always: Deps::NONE, picked: self.flags.all() };
                let fed = self.of_register(chosen).with(picked);
                self.set_fed(d, fed);
            }
            Op::Move(d, _) | Op::Adr(d, _) => self.set_fed(d, Fed::default()),
            Op::Jump(_, true) | Op::JumpReg(_, true) => self.set_fed(30, Fed::default()),
            _ => {}
        }
        let step = match self.registers.step(op) {
            Next::Go => Step::Branch { on: branch.filter(|b| b.all() != Deps::NONE)?.all() },
            Next::Load { t, virt, bytes, order } => {
                self.wait = Wait::Value(t, bytes);
                let order = match order {
                    Order::Acquire => outcomes::Order::Acquire,
                    Order::AcquirePc => outcomes::Order::AcquirePc,
                    Order::Plain | Order::Release => outcomes::Order::Plain,
                };
                Step::Load { at: self.image.phys(virt.0), order, address: address.always }
            }
            Next::Store { virt, value, bytes, order } => Step::Store {
                at: self.image.phys(virt.0),
                value: cut(value, bytes),
                order: match order {
                    Order::Release => outcomes::Order::Release,
                    _ => outcomes::Order::Plain,
                },
                address: address.all(),
                data: data.all(),
            },
            Next::Barrier(barrier, domain) => Step::Barrier(barrier, domain),
            Next::Clean(scope, virt) => {
                Step::Clean { lines: self.lines(scope, virt), address: address.all() }
            }
            Next::InvalidateIcache(scope, reach, virt) => Step::Invalidate {
                lines: self.lines(scope, virt),
                alone: (scope, reach) == (CacheScope::All, Reach::Local) && !self.image.broadcast,
                address: address.all(),
            },
            Next::Isb | Next::Eret => Step::Sync,
            Next::Trap(undefined) => return Some(self.fault(pc, undefined)),
        };
        Some(Ask::Do(step))
    }
}

fn cut(value: u64, bytes: u8) -> u64 {
    if bytes >= 8 { value } else { value & ((1 << (8 * u32::from(bytes))) - 1) }
}

impl outcomes::Thread for Program<'_> {
    fn next(&mut self, answer: Option<Answer>) -> Ask {
        match (std::mem::replace(&mut self.wait, Wait::Nothing), answer) {
            (Wait::Word, Some(word)) => {
                let ask = match Op::decode(word.value as u32) {
                    Some(op) => self.execute(op),
                    None => Some(self.fault(self.registers.pc, true)),
                };
                if let Some(ask) = ask {
                    return ask;
                }
            }
            (Wait::Value(t, bytes), Some(value)) => {
                self.registers.set(t, cut(value.value, bytes));
                self.set_fed(t, Fed { always: value.deps, picked: Deps::NONE });
            }
            _ => {}
        }
        if self.done || !self.image.code.contains_key(&self.registers.pc) {
            return Ask::End;
        }
        self.wait = Wait::Word;
        Ask::Do(Step::Fetch { at: self.registers.pc })
    }
}
