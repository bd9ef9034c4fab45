//! Who stands in code and will go on there, and who reads under RCU: what grace periods wait for.
//!
//! A grace period of the tasks flavour waits for tasks that were preempted before it began, until
//! each runs again (Linux kernel/rcu/tasks.h); one of the plain flavour for read-side sections that
//! began before it. Not modelled: what else holds one up (a CPU that never leaves a loop), and
//! tasks of the CPU that waits, which nobody could let go on meanwhile.

use std::collections::BTreeSet;

use textbed_arch::{CpuId, VirtAddr};
use textbed_event::{NameId, RcuFlavour, View};

use crate::leave_out::SyncKind;
use crate::machine::Machine;

/// Somebody for whom a grace period waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stays {
    /// A task of that CPU that was preempted.
    Task(CpuId, NameId),
    /// A section of that CPU's program, by its number.
    Reads(CpuId, u64),
}

impl Stays {
    /// Where.
    #[must_use]
    pub fn cpu(self) -> CpuId {
        match self {
            Stays::Task(cpu, _) | Stays::Reads(cpu, _) => cpu,
        }
    }
}

/// All of them.
#[derive(Clone, Default, Debug)]
pub(crate) struct Quiet {
    stays: BTreeSet<Stays>,
    sections: u64,
}

impl Machine {
    /// A task stands in code that it will go on with at `virt`, or runs again from there.
    pub fn task_stands(&mut self, cpu: CpuId, task: &str, virt: VirtAddr, stands: bool) {
        let task = self.recorder.name(task);
        let stay = Stays::Task(cpu, task);
        if stands {
            self.quiet.stays.insert(stay);
        } else {
            self.quiet.stays.remove(&stay);
        }
        self.emit(cpu, View::TaskStands { task, virt, stands });
    }

    /// A read-side section of a CPU begins, or the last one that began there ends.
    pub fn read_side(&mut self, cpu: CpuId, begin: bool) {
        if begin {
            self.quiet.sections += 1;
            self.quiet.stays.insert(Stays::Reads(cpu, self.quiet.sections));
        } else {
            let mine = |stay: &&Stays| matches!(stay, Stays::Reads(by, _) if *by == cpu);
            if let Some(last) = self.quiet.stays.iter().rev().find(mine).copied() {
                self.quiet.stays.remove(&last);
            }
        }
        self.emit(cpu, View::ReadSide { flavour: RcuFlavour::Normal, begin });
    }

    /// Whom a grace period that `cpu` begins now has to wait for; `None` if it is left out.
    pub fn grace_begins(&mut self, cpu: CpuId, flavour: RcuFlavour) -> Option<Vec<Stays>> {
        if self.left_out(cpu, || SyncKind::GracePeriod) {
            return None;
        }
        let waits = |stay: &&Stays| {
            let counts = match stay {
                Stays::Task(..) => flavour == RcuFlavour::Tasks,
                Stays::Reads(..) => flavour == RcuFlavour::Normal,
            };
            counts && stay.cpu() != cpu
        };
        Some(self.quiet.stays.iter().filter(waits).copied().collect())
    }

    /// Whether somebody is where he was.
    #[must_use]
    pub fn still_stays(&self, stay: Stays) -> bool {
        self.quiet.stays.contains(&stay)
    }
}
