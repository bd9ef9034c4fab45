//! What a CPU waits for besides interrupts.
//!
//! - arm64: its event register. SEV sets every CPU's, SEVL and an exception return its own, the
//!   loss of a reservation to another CPU's store that CPU's; WFE uses it up (DDI 0487 E2.10.2.1.1;
//!   copies of the pseudocode of the hints and of ExceptionReturn).
//! - x86-64: the line that MONITOR watches. A store to it by any CPU and an exception that the CPU
//!   takes end that, and MWAIT uses it up: without a MONITOR before it, it does not wait (SDM 2B,
//!   MONITOR and MWAIT; 3A, 'Multiple-Processor Management').
//! - powerpc: `waitrsv` its reservation (Power ISA 3.1 Book II, as QEMU's translate.c tells it).
//!
//! All of them may end at any time for no reason, so software looks again in a loop; here none
//! does. Not modelled: timers (event streams, MWAITX's), and what else ends MONITOR's watch:
//! invalidations and control registers.

use textbed_arch::effect::{Reach, Wake};
use textbed_arch::{CpuId, VirtAddr};
use textbed_event::Access;

use crate::state::{Part, Take};
use crate::{Fault, Machine};

/// What a CPU may wait for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Waiting {
    /// The event register.
    pub(crate) event: bool,
    /// Number of the line that is watched.
    pub(crate) watched: Option<u64>,
}

impl Waiting {
    pub(crate) fn visit(self, take: Take<'_>) {
        take(Part::Value(u64::from(self.event)));
        take(Part::Value(self.watched.unwrap_or(u64::MAX)));
    }
}

impl Machine {
    /// Whether a wait ends now by what it is for; that is used up then. Interrupts are left to
    /// those who deliver them.
    pub fn wait_ends(&mut self, cpu: CpuId, wake: Wake) -> bool {
        let Some(c) = self.cpus.get_mut(cpu.index()) else { return false };
        match wake {
            Wake::Anything => true,
            Wake::Taken | Wake::Interrupt => false,
            Wake::Event => std::mem::take(&mut c.waiting.event),
            Wake::Line => c.waiting.watched.is_none(),
            Wake::Reservation => c.reserved.is_none(),
        }
    }

    /// A number that changes when anything comes that a CPU may wait for: while it stays, who waits
    /// need not look again.
    #[must_use]
    pub fn stirs(&self) -> u64 {
        self.stirs
    }

    /// A wait for a store was ended by something else: nothing is watched any more.
    pub fn watch_nothing(&mut self, cpu: CpuId) {
        if let Some(c) = self.cpus.get_mut(cpu.index())
            && c.waiting.watched.take().is_some()
        {
            self.stirs += 1;
        }
    }

    /// Sets event registers.
    pub(crate) fn send_event(&mut self, from: CpuId, reach: Reach) {
        self.stirs += 1;
        for (n, c) in self.cpus.iter_mut().enumerate() {
            c.waiting.event |= reach == Reach::Broadcast || n == from.index();
        }
    }

    /// The CPU watches the line of an address; its access is that of a load of a byte.
    pub(crate) fn watch(&mut self, cpu: CpuId, virt: VirtAddr) -> Result<(), Fault> {
        let phys = match self.translate(cpu, virt, Access::Read) {
            Ok((phys, _)) => phys,
            Err(reason) => return Err(self.fault(cpu, virt, Access::Read, reason)),
        };
        let line = phys.0 / u64::from(self.lines.geometry().0);
        let now = self.tick;
        self.users.note(cpu, phys.0, 1, false);
        if let Some(c) = self.cpus.get_mut(cpu.index()) {
            c.waiting.watched = Some(line);
            // It is a load of what is there now, which later loads do not pass.
            c.data.at_least(now);
            self.watchers = true;
        }
        Ok(())
    }
}
