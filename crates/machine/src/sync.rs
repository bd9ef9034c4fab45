//! What orders CPUs among each other: published values, their state; frames changing hands; and
//! what patchers say about their work (handlers of traps, needs of a call).
//!
//! Modelled: a published value is seen by whoever looks later, as by a load-acquire whose result
//! decides a branch. Not modelled: looking at a slot without depending on it. Locks are in
//! [`crate::locks`].

use textbed_arch::{Arch, CpuId, FRAME_BYTES, Pfn, VirtAddr};
use textbed_event::{CpuState, NameId, Need, View};

use crate::leave_out::SyncKind;
use crate::{CpuMask, Machine, MachineError};

impl Machine {
    /// Publishes a value by a release store.
    pub fn publish(&mut self, cpu: CpuId, slot: &str, value: u64) {
        // Where every store releases there is nothing to leave out.
        let weak = self.arch() != Arch::X86_64;
        if weak && self.left_out(cpu, || SyncKind::Release(slot.to_owned())) {
            self.slots.insert(slot.to_owned(), value);
            return;
        }
        self.perform_all(cpu);
        self.advance();
        self.slots.insert(slot.to_owned(), value);
        let slot = self.recorder.name(slot);
        self.emit(cpu, View::Publish { slot, value });
    }

    /// Looks at a slot by a load-acquire and a branch on its value; `None`, without an event, while
    /// nothing is published.
    pub fn observe(&mut self, cpu: CpuId, slot: &str) -> Option<u64> {
        let value = self.slots.get(slot).copied()?;
        self.learned(cpu);
        let slot = self.recorder.name(slot);
        self.emit(cpu, View::Observe { slot, value });
        Some(value)
    }

    /// Notes what a CPU is doing.
    ///
    /// # Errors
    /// There is no such CPU.
    pub fn set_cpu_state(&mut self, cpu: CpuId, state: CpuState) -> Result<(), MachineError> {
        self.cpu_mut(cpu)?.state = state;
        self.emit(cpu, View::Cpu { state });
        Ok(())
    }

    /// What a CPU is doing.
    #[must_use]
    pub fn cpu_state(&self, cpu: CpuId) -> Option<CpuState> {
        self.cpus.get(cpu.index()).map(|c| c.state)
    }

    /// A patcher made known (or took back) how a trap in this range is to be resolved.
    pub fn trap_handler(&mut self, cpu: CpuId, virt: VirtAddr, len: u32, registered: bool) {
        self.emit(cpu, View::TrapHandler { virt, len, registered });
    }

    /// The innermost call of the CPU needs this of its context.
    pub fn needs(&mut self, cpu: CpuId, what: Need) {
        let call = self.current_call(cpu);
        self.emit(cpu, View::Needs { call, what, lock: NameId::NONE });
    }

    /// The innermost call of the CPU needs this lock held.
    pub fn needs_lock(&mut self, cpu: CpuId, lock: &str) {
        let (call, lock) = (self.current_call(cpu), self.recorder.name(lock));
        self.emit(cpu, View::Needs { call, what: Need::LockHeld, lock });
    }

    /// Takes `count` contiguous 4 KiB frames from the page allocator, aligned to
    /// `1 << align_shift` bytes. Their contents are what they were, or zero. An allocator has
    /// locks: who gets what another CPU gave back knows what that one did before.
    ///
    /// # Errors
    /// Memory is used up, or the request makes no block.
    pub fn alloc_frames(
        &mut self,
        cpu: CpuId,
        count: u64,
        align_shift: u32,
        zeroed: bool,
    ) -> Result<Pfn, MachineError> {
        self.cpu(cpu)?;
        let (pfn, from) = self.frames.alloc(count, align_shift)?;
        if from.without(cpu) != CpuMask::EMPTY {
            self.learned(cpu);
        }
        self.emit(cpu, View::FrameAlloc { pfn, count, zeroed });
        if zeroed {
            self.write_filled(cpu, pfn.addr(), count.saturating_mul(FRAME_BYTES), &[0], None)?;
        }
        Ok(pfn)
    }

    /// Gives frames back.
    ///
    /// # Errors
    /// Not all of them are allocated.
    pub fn free_frames(&mut self, cpu: CpuId, pfn: Pfn, count: u64) -> Result<(), MachineError> {
        self.cpu(cpu)?;
        self.frames.free(cpu, pfn, count)?;
        self.users.forget(pfn, count);
        self.emit(cpu, View::FrameFree { pfn, count });
        Ok(())
    }

    /// Takes exactly these frames out of the allocator without an event: where a kernel image or
    /// firmware lies before the kernel has an allocator.
    ///
    /// # Errors
    /// Not all of them are free.
    pub fn claim_frames(&mut self, pfn: Pfn, count: u64) -> Result<(), MachineError> {
        self.frames.claim(pfn, count)
    }

    /// Whether the allocator has handed out this frame.
    #[must_use]
    pub fn is_allocated(&self, pfn: Pfn) -> bool {
        self.frames.is_allocated(pfn)
    }
}
