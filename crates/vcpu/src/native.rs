//! The engine's part of an instruction, with its loads and stores made by the machine.

use textbed_arch::{Arch, VirtAddr, effect::Effect, insn};
use textbed_event::Flags;
use textbed_machine::{CpuError, Fault, Machine};
use unicorn_engine::RegisterPPC;

use crate::{
    decoded::Decoded,
    engine::Ended,
    special::{self, Order},
    traps::{self, Trap},
    vcpu::Vcpu,
    x86,
};

/// An instruction makes at most so many loads; a safeguard against a loop that does not end.
const MAX_ROUNDS: usize = 64;

/// How the engine's part of an instruction ended.
pub(crate) enum Native {
    /// Executed: registers moved on, stores were taken by the machine.
    Done,
    /// A load or store faulted; nothing happened.
    Faulted(Fault),
    /// It raised an exception; registers are those before it.
    Trapped(Trap),
}

impl Vcpu {
    /// Lets the engine execute the instruction, and the machine take its loads and stores.
    ///
    /// The engine is run again and again from the same registers: each time the first load whose
    /// bytes it was not given yet is looked up in the machine. Its address is right, because it
    /// depends on registers and on loads given before only; what follows it in that run does not
    /// count. The last run knows every load, and its stores are what the instruction stores.
    pub(crate) fn native(
        &mut self,
        m: &mut Machine,
        pc: u64,
        what: &Decoded,
        order: Order,
    ) -> Result<Native, CpuError> {
        let bytes = what.bytes();
        self.engine.begin()?;
        self.engine.place_known(pc, bytes, what.key())?;
        if what.registers_only {
            self.engine.save_pc(pc);
            return match self.engine.run(pc)? {
                Ended::Done => Ok(Native::Done),
                ended => self.raised(bytes, ended),
            };
        }
        self.engine.save()?;
        let mut known: Vec<(u64, Vec<u8>)> = Vec::new();
        for _ in 0..MAX_ROUNDS {
            for (virt, loaded) in &known {
                self.engine.supply(*virt, loaded)?;
            }
            let ended = self.engine.run(pc)?;
            let missing = self
                .engine
                .accesses()
                .iter()
                .find(|a| !a.write && !known.iter().any(|(v, b)| *v == a.virt && b.len() == a.len))
                .copied();
            let Some(load) = missing else {
                if order.reserves && ended == Ended::Done {
                    match known.first() {
                        Some((virt, _)) => m.reserve(self.id, VirtAddr(*virt)),
                        // CLREX has no load.
                        None => m.clear_reservation(self.id),
                    }
                }
                return self.finish(m, bytes, order, ended);
            };
            self.engine.restore()?;
            let mut loaded = vec![0; load.len];
            let at = VirtAddr(load.virt);
            let result = match order.atomic {
                true => m.load_newest(self.id, at, &mut loaded, order.load),
                false => m.load_ordered(self.id, at, &mut loaded, order.load),
            };
            if let Err(fault) = result {
                return Ok(Native::Faulted(fault));
            }
            known.push((load.virt, loaded));
        }
        self.engine.restore()?;
        Err(CpuError::NotModelled(format!("more than {MAX_ROUNDS} loads by one instruction")))
    }

    /// Ends the run that knew every load.
    fn finish(
        &mut self,
        m: &mut Machine,
        bytes: &[u8],
        order: Order,
        ended: Ended,
    ) -> Result<Native, CpuError> {
        if ended != Ended::Done {
            return self.raised(bytes, ended);
        }
        if order.conditional && !self.may_store(m, bytes)? {
            return Ok(Native::Done);
        }
        let stores: Vec<_> = self.engine.accesses().iter().filter(|a| a.write).copied().collect();
        if stores.is_empty() {
            return Ok(Native::Done);
        }
        let mut pieces = Vec::with_capacity(stores.len());
        for store in stores {
            let mut stored = vec![0; store.len];
            self.engine.shown(store.virt, &mut stored)?;
            pieces.push((VirtAddr(store.virt), stored));
        }
        let flags = if order.non_temporal { Flags::NONTEMPORAL } else { Flags::default() };
        match m.store_all(self.id, &pieces, order.store, flags) {
            Ok(()) => Ok(Native::Done),
            Err(fault) => {
                self.engine.restore()?;
                Ok(Native::Faulted(fault))
            }
        }
    }

    /// Ends a run that raised something: nothing happened but that.
    fn raised(&mut self, bytes: &[u8], ended: Ended) -> Result<Native, CpuError> {
        self.engine.restore()?;
        match ended {
            Ended::Done => Ok(Native::Done),
            Ended::Exception(number) => match traps::of_engine(self.arch, number) {
                Some(trap) => self.trapped(bytes, trap),
                None => {
                    let what = format!("{} engine exception {number}", self.arch);
                    Err(CpuError::NotModelled(what))
                }
            },
            Ended::Invalid => self.trapped(bytes, traps::undefined(self.arch)),
        }
    }

    /// An exception of the engine, unless it stands for an instruction that exists and that only
    /// the engine does not know.
    fn trapped(&self, bytes: &[u8], trap: Trap) -> Result<Native, CpuError> {
        let undefined = trap == traps::undefined(self.arch);
        let exists = match self.arch {
            Arch::X86_64 => x86::is_defined(bytes),
            _ => insn::decode(self.arch, bytes).is_some_and(|i| i.row.effect != Effect::Trap),
        };
        if undefined && exists { Err(self.unknown(bytes)) } else { Ok(Native::Trapped(trap)) }
    }

    /// Whether the conditional store that ran did store. The engine knows a change of the value,
    /// the machine every store of another CPU, for which the instruction fails, too.
    fn may_store(&mut self, m: &mut Machine, bytes: &[u8]) -> Result<bool, CpuError> {
        if !self.conditional_succeeded(bytes)? {
            m.clear_reservation(self.id);
            return Ok(false);
        }
        let store = self.engine.accesses().iter().find(|a| a.write).map(|a| VirtAddr(a.virt));
        if store.is_some_and(|virt| m.take_reservation(self.id, virt)) {
            return Ok(true);
        }
        if self.arch == Arch::Arm64 {
            let word = special::word_of(self.arch, bytes).unwrap_or(0);
            self.set_general((word >> 16 & 0x1f) as u8, 1)?;
        } else {
            let cr0 = self.engine.register(RegisterPPC::CR0 as i32)?;
            self.engine.set_register(RegisterPPC::CR0 as i32, cr0 & !0b0010)?;
        }
        Ok(false)
    }

    /// Whether the conditional store that ran did store.
    fn conditional_succeeded(&self, bytes: &[u8]) -> Result<bool, CpuError> {
        if self.arch == Arch::Arm64 {
            let word = special::word_of(self.arch, bytes).unwrap_or(0);
            // Rs, bits 20:16, is 0 on success.
            let status = (word >> 16 & 0x1f) as u8;
            return Ok(status == 31 || self.general(status)? == 0);
        }
        // CR0 is LT, GT, EQ, SO from left to right.
        Ok(self.engine.register(RegisterPPC::CR0 as i32)? & 0b0010 != 0)
    }
}
