//! Locks: held by one CPU, or by several that share.
//!
//! Modelled: who holds a lock and how, and what its holders learn: who takes it alone learns what
//! all before released; who shares it learns what the last that had it alone released, and nothing
//! of the others that share. Not modelled: contention and fairness; and a lock that is shared is
//! not left out on trial ([`crate::leave_out`]).

use textbed_arch::{CpuId, SpaceId};
use textbed_event::{Flags, OpId, View};

use crate::leave_out::SyncKind;
use crate::state::{Part, Take};
use crate::{Machine, MachineError};

/// Who holds a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// One CPU.
    Alone(CpuId),
    /// Several; a CPU as often as it took the lock. Never empty.
    Shared(Vec<CpuId>),
}

impl Held {
    pub(crate) fn visit(&self, take: Take<'_>) {
        match self {
            Held::Alone(cpu) => take(Part::Value(u64::from(cpu.0))),
            Held::Shared(cpus) => {
                take(Part::Value(1 << 16 | (cpus.len() as u64) << 32));
                let mut cpus = cpus.clone();
                cpus.sort_unstable();
                cpus.iter().for_each(|cpu| take(Part::Value(u64::from(cpu.0))));
            }
        }
    }

    /// One that holds it.
    fn holder(&self) -> Option<CpuId> {
        match self {
            Held::Alone(cpu) => Some(*cpu),
            Held::Shared(cpus) => cpus.first().copied(),
        }
    }
}

impl Machine {
    /// Takes a lock for this CPU alone.
    ///
    /// # Errors
    /// Somebody holds it, perhaps the caller itself.
    pub fn lock(&mut self, cpu: CpuId, name: &str) -> Result<(), MachineError> {
        self.cpu(cpu)?;
        if let Some(by) = self.locks.get(name).and_then(Held::holder) {
            return Err(MachineError::LockHeld { name: name.to_owned(), by });
        }
        self.locks.insert(name.to_owned(), Held::Alone(cpu));
        if self.begins_untold(cpu, || SyncKind::Lock(name.to_owned())) {
            return Ok(());
        }
        self.learned(cpu);
        let lock = self.recorder.name(name);
        self.emit(cpu, View::LockAcquired { lock });
        Ok(())
    }

    /// Releases a lock that this CPU holds alone.
    ///
    /// # Errors
    /// This CPU does not hold it so.
    pub fn unlock(&mut self, cpu: CpuId, name: &str) -> Result<(), MachineError> {
        self.cpu(cpu)?;
        if self.locks.get(name) != Some(&Held::Alone(cpu)) {
            return Err(MachineError::LockNotHeld { name: name.to_owned(), cpu });
        }
        if self.ends_untold(|| SyncKind::Lock(name.to_owned())) {
            self.locks.remove(name);
            return Ok(());
        }
        self.perform_all(cpu);
        self.locks.remove(name);
        let lock = self.recorder.name(name);
        self.emit(cpu, View::LockReleased { lock });
        Ok(())
    }

    /// Takes a lock together with others that share it, or once more.
    ///
    /// # Errors
    /// Somebody holds it alone.
    pub fn lock_shared(&mut self, cpu: CpuId, name: &str) -> Result<(), MachineError> {
        self.cpu(cpu)?;
        match self.locks.get_mut(name) {
            Some(Held::Alone(by)) => {
                return Err(MachineError::LockHeld { name: name.to_owned(), by: *by });
            }
            Some(Held::Shared(cpus)) => cpus.push(cpu),
            None => {
                self.locks.insert(name.to_owned(), Held::Shared(vec![cpu]));
            }
        }
        self.learned(cpu);
        let lock = self.recorder.name(name);
        let view = View::LockAcquired { lock };
        self.emit_in(cpu, SpaceId::KERNEL, Flags::SHARED, OpId::NONE, view);
        Ok(())
    }

    /// Gives back a lock that this CPU shares.
    ///
    /// # Errors
    /// This CPU is not among those that share it.
    pub fn unlock_shared(&mut self, cpu: CpuId, name: &str) -> Result<(), MachineError> {
        self.cpu(cpu)?;
        let not_held = || MachineError::LockNotHeld { name: name.to_owned(), cpu };
        let Some(Held::Shared(cpus)) = self.locks.get_mut(name) else { return Err(not_held()) };
        let at = cpus.iter().rposition(|c| *c == cpu).ok_or_else(not_held)?;
        cpus.remove(at);
        let last = cpus.is_empty();
        if last {
            self.locks.remove(name);
        }
        self.perform_all(cpu);
        let lock = self.recorder.name(name);
        let view = View::LockReleased { lock };
        self.emit_in(cpu, SpaceId::KERNEL, Flags::SHARED, OpId::NONE, view);
        Ok(())
    }

    /// Who holds a lock alone.
    #[must_use]
    pub fn lock_holder(&self, name: &str) -> Option<CpuId> {
        match self.locks.get(name) {
            Some(Held::Alone(cpu)) => Some(*cpu),
            _ => None,
        }
    }

    /// Who shares a lock, a CPU as often as it took it.
    #[must_use]
    pub fn lock_sharers(&self, name: &str) -> &[CpuId] {
        match self.locks.get(name) {
            Some(Held::Shared(cpus)) => cpus,
            _ => &[],
        }
    }
}
