//! Free running: many instructions between two looks of the machine.
//!
//! Single steps are the reference, and whatever is special is one here too: each instruction is
//! stepped when it is met for the first time, with its events. If it is plain ([`crate::plain`])
//! and would be fetched alike again, it is known, and when the CPU comes to a known instruction
//! once more a second instance of the engine runs from there until it meets something else: an
//! instruction that is not known (a trap stands there), or data that the CPU has not to itself. Old
//! code stays as old as the instruction side has it, because its bytes came from there, and is
//! looked up again as soon as anything may have changed.
//!
//! What the CPU stored meanwhile is told to the machine, as ordinary stores, before the next step:
//! so barriers, maintenance and stores that others can see come after it. Of values that were
//! stored to the same bytes in between only the last is told, and the order of a stretch's stores
//! among themselves is not. Loads from pages that the CPU alone uses, fetches and branches of known
//! code are no events. Where nothing can be known (caches of sets and ways, data accesses out of
//! order) everything is stepped.

mod code;
mod data;
mod engine;

use textbed_arch::{Arch, PhysAddr, VirtAddr};
use textbed_event::MemOrder;
use textbed_machine::{Cpu, CpuError, Machine, Side, Step};

use crate::engine::EngineError;
use crate::vcpu::{RETURN_ADDRESS, Vcpu};
use engine::{FreeEngine, Hooked, Stopped};

/// Windows that may have been stored to, beyond which the engine is made to say again to which.
const MOST_WRITTEN: usize = 8;
/// So often an access is refused at an instruction before it is always stepped.
const PATIENCE: u32 = 3;

/// A plain instruction that was stepped.
#[derive(Clone, Copy)]
struct Stepped {
    virt: u64,
    bytes: [u8; 15],
    len: usize,
    /// Where its bytes were, with the stamp of their lines.
    phys: PhysAddr,
    stamp: u64,
    side: Side,
}

/// What a CPU has for running freely.
pub(crate) struct Free {
    engine: FreeEngine,
    /// What translations and fetches were decided by when everything known was learnt.
    side: Option<Side>,
    /// What the present step fetched.
    fetched: Option<Stepped>,
    /// The same, if the engine carried it out and it may run freely.
    plain: Option<Stepped>,
    /// The last instruction at which an access was refused, and how often in vain.
    refused: (u64, u32),
}

impl Free {
    fn new(arch: Arch) -> Result<Self, EngineError> {
        let engine = FreeEngine::new(arch)?;
        Ok(Self { engine, side: None, fetched: None, plain: None, refused: (0, 0) })
    }
}

impl Vcpu {
    /// Runs until something happens that [`Cpu::step`] would report, or for a slice of so many
    /// instructions: then the last step is [`Step::Ran`]. Meanwhile no other CPU of the machine
    /// may run; interrupts are taken as by single steps.
    ///
    /// A slice ends where so many single steps would, and so does a budget
    /// ([`Vcpu::set_budget`]). With `u64::MAX` and no budget nothing is counted, which is faster,
    /// and a guest that loops for ever does not come back.
    ///
    /// # Errors
    /// As of [`Cpu::step`].
    pub fn run_free(&mut self, machine: &mut Machine, slice: u64) -> Result<Step, CpuError> {
        if self.free.is_none() {
            self.free = Some(Box::new(Free::new(self.arch)?));
        }
        let mut left = slice;
        self.look_again(machine)?;
        while left > 0 {
            let pc = self.engine.pc()?;
            let mut refused = None;
            if self.runs_freely_from(machine, pc)? {
                let limit = left.min(self.budget.unwrap_or(u64::MAX));
                let (stopped, used) = self.stretch(machine, pc, limit)?;
                left = left.saturating_sub(used);
                self.budget = self.budget.map(|budget| budget.saturating_sub(used));
                let at = self.engine.pc()?;
                if at == RETURN_ADDRESS.0 {
                    self.running = false;
                    return Ok(Step::Returned(self.general(self.convention.result)?));
                }
                if left == 0 {
                    break;
                }
                refused = match stopped {
                    Stopped::Access { virt, write } => Some((at, virt, write)),
                    Stopped::Met | Stopped::Limit => None,
                };
            }
            let step = self.step(machine)?;
            left -= 1;
            self.look_again(machine)?;
            self.learn(machine)?;
            if let Some((at, virt, write)) = refused {
                self.bar_in_vain(at, virt, write);
            }
            if step != Step::Ran {
                return Ok(step);
            }
        }
        Ok(Step::Ran)
    }

    /// Forgets what is known: each instruction is stepped once more, with its events, before it may
    /// run freely. For whoever lets something happen after which a fetch means something else to
    /// those who read the events, though it gets the same: that its memory was given back, say.
    pub fn forget_known(&mut self) {
        if let Some(free) = self.free.as_mut() {
            (free.side, free.fetched, free.plain) = (None, None, None);
        }
    }

    /// Whether the next instruction is known, the CPU does not wait before it, and no interrupt is
    /// to be taken. Behind `sti` one instruction is stepped, and with it its shadow is over.
    fn runs_freely_from(&self, m: &Machine, pc: u64) -> Result<bool, CpuError> {
        let known = self.free.as_ref().is_some_and(|f| f.engine.shown().code.starts(pc));
        let stands = !self.running || self.waits() || self.interrupts.shadow;
        Ok(known && !stands && !self.is_interrupted(m)?)
    }

    /// Runs freely from a known instruction, and tells the machine what was stored.
    fn stretch(
        &mut self,
        m: &mut Machine,
        pc: u64,
        limit: u64,
    ) -> Result<(Stopped, u64), CpuError> {
        let Some(free) = self.free.as_mut() else { return Ok((Stopped::Met, 0)) };
        let limit = (limit < u64::MAX).then_some(limit);
        free.engine.count(limit)?;
        self.engine.save()?;
        let (stopped, at) = free.engine.run(self.engine.saved(), pc)?;
        self.engine.take_over(free.engine.registers()?)?;
        self.engine.set_pc(at);
        let used = match (limit, free.engine.left()) {
            (Some(limit), Some(left)) => limit - left,
            _ => 0,
        };
        self.tell(m)?;
        Ok((stopped, used))
    }

    /// Tells the machine what the engine stored.
    fn tell(&mut self, m: &mut Machine) -> Result<(), CpuError> {
        let Some(free) = self.free.as_mut() else { return Ok(()) };
        let written = free.engine.shown().data.written();
        for window in &written {
            let now = free.engine.window(*window)?;
            if free.engine.shown().data.of_machine(*window) == Some(&now) {
                continue;
            }
            for store in free.engine.hooked().data.stores(*window, &now) {
                m.store(self.id, VirtAddr(store.virt), &store.bytes, MemOrder::Plain)
                    .map_err(|fault| CpuError::Machine(Box::new(fault.into())))?;
            }
        }
        let Hooked { data, .. } = free.engine.hooked();
        data.told(m, self.id);
        if written.len() > MOST_WRITTEN {
            data.unwritten();
            free.engine.flush()?;
        }
        Ok(())
    }

    /// Forgets what is known and granted as far as the machine has moved on.
    fn look_again(&mut self, m: &Machine) -> Result<(), CpuError> {
        let Some(free) = self.free.as_mut() else { return Ok(()) };
        let side = m.side(self.id);
        let Hooked { code, data, .. } = free.engine.hooked();
        if side != free.side {
            free.side = side;
            code.forget();
            let any = !data.is_empty();
            data.forget();
            return if any { Ok(free.engine.flush()?) } else { Ok(()) };
        }
        code.check(m);
        match data.check(m, self.id)? {
            Some(shows) => {
                for show in shows {
                    free.engine.show(&show)?;
                }
            }
            None => {
                data.forget();
                free.engine.flush()?;
            }
        }
        Ok(())
    }

    /// A step fetched these bytes.
    pub(crate) fn note_fetched(&mut self, m: &mut Machine, virt: u64, bytes: &[u8]) {
        let id = self.id;
        let Some(free) = self.free.as_mut() else { return };
        (free.fetched, free.plain) = (None, None);
        let mut kept = [0; 15];
        let Some(room) = kept.get_mut(..bytes.len()) else { return };
        room.copy_from_slice(bytes);
        let len = bytes.len();
        let phys = m.fetch_repeats(id, VirtAddr(virt), len as u64);
        if let (Some(phys), Some(side)) = (phys, m.side(id)) {
            let stamp = m.lines_stamp(phys, len as u64);
            free.fetched = Some(Stepped { virt, bytes: kept, len, phys, stamp, side });
        }
    }

    /// The engine carried out what the step fetched, which is plain.
    pub(crate) fn note_plain(&mut self) {
        if let Some(free) = self.free.as_mut() {
            free.plain = free.fetched.take();
        }
    }

    /// The plain instruction that was stepped last is known from now on, and so are the pages that
    /// it used, if the CPU has them to itself.
    fn learn(&mut self, m: &mut Machine) -> Result<(), CpuError> {
        let Some(free) = self.free.as_mut() else { return Ok(()) };
        let Some(stepped) = free.plain.take() else { return Ok(()) };
        let same = free.side == Some(stepped.side)
            && m.lines_stamp(stepped.phys, stepped.len as u64) == stepped.stamp;
        if !same {
            return Ok(());
        }
        let Hooked { code, .. } = free.engine.hooked();
        if code.note(m, stepped.virt, &stepped.bytes[..stepped.len], stepped.phys) {
            free.engine.flush()?;
        }
        for access in self.engine.accesses() {
            let last = access.virt.wrapping_add(access.len.saturating_sub(1) as u64);
            for virt in [access.virt, last] {
                let Hooked { data, .. } = free.engine.hooked();
                if data.grants(virt, access.write) {
                    continue;
                }
                if data.is_full() {
                    data.forget();
                    free.engine.flush()?;
                }
                let Hooked { data, .. } = free.engine.hooked();
                if let Some(show) = data.ask(m, self.id, virt, access.write)? {
                    free.engine.show(&show)?;
                }
            }
        }
        Ok(())
    }

    /// An access was refused at an instruction, which was stepped then. If that gave the CPU no
    /// right to it, again and again, it is not worth trying.
    fn bar_in_vain(&mut self, at: u64, virt: u64, write: bool) {
        let Some(free) = self.free.as_mut() else { return };
        let Hooked { code, data, .. } = free.engine.hooked();
        if data.grants(virt, write) {
            return;
        }
        let times = if free.refused.0 == at { free.refused.1 + 1 } else { 1 };
        if times >= PATIENCE {
            code.bar(at);
        }
        free.refused = (at, times);
    }
}
