//! Address spaces: which tree of tables translates an address, and which space a CPU has loaded.
//!
//! Modelled: kernel addresses (highest bit set) belong to the kernel's space whatever is loaded: on
//! x86-64 every root has the kernel's root entries, on arm64 TTBR1 and on powerpc process 0's
//! tables serve them. Identifiers (PCID, ASID, PID) tag translations. Not modelled: rollover of
//! identifiers; a user of the machine hands them out.

use textbed_arch::effect::SyncCause;
use textbed_arch::{Arch, CpuId, Features, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Flags, OpId, View};

use crate::exec_map::ExecMap;
use crate::leave_out::SyncKind;
use crate::{Machine, MachineError};

/// One tree of tables.
#[derive(Clone)]
pub(crate) struct Space {
    pub(crate) root: PhysAddr,
    pub(crate) exec: ExecMap,
}

impl Space {
    pub(crate) fn new(root: PhysAddr) -> Self {
        Self { root, exec: ExecMap::default() }
    }
}

impl Machine {
    /// Whether an address is in the kernel's half.
    pub(crate) fn is_kernel(&self, virt: VirtAddr) -> bool {
        self.arch().is_kernel_address(virt)
    }

    /// A new address space: its own user half, the kernel's kernel half.
    ///
    /// # Errors
    /// No memory for the root table.
    pub fn new_space(&mut self, cpu: CpuId) -> Result<SpaceId, MachineError> {
        self.cpu(cpu)?;
        let root = self.new_table(0)?;
        if self.arch() == Arch::X86_64 {
            let kernel = self.space(SpaceId::KERNEL)?.root;
            let mut upper = [0; 2048];
            self.memory.read(kernel.offset(2048), &mut upper)?;
            self.memory.write(root.offset(2048), &upper)?;
        }
        let id = SpaceId(self.spaces.len() as u32);
        self.spaces.push(Space::new(root));
        Ok(id)
    }

    pub(crate) fn space(&self, space: SpaceId) -> Result<&Space, MachineError> {
        self.spaces.get(space.0 as usize).ok_or(MachineError::NoSpace(space))
    }

    /// Root table of a space.
    #[must_use]
    pub fn root(&self, space: SpaceId) -> Option<PhysAddr> {
        self.spaces.get(space.0 as usize).map(|s| s.root)
    }

    /// The space whose root is at `root`.
    #[must_use]
    pub fn space_with_root(&self, root: PhysAddr) -> Option<SpaceId> {
        self.spaces.iter().position(|s| s.root == root).map(|n| SpaceId(n as u32))
    }

    /// The space that `virt` belongs to when `space` is meant; `None` for a user address of the
    /// kernel's space where that has none (arm64, powerpc).
    pub(crate) fn owner(&self, space: SpaceId, virt: VirtAddr) -> Option<SpaceId> {
        if self.is_kernel(virt) {
            Some(SpaceId::KERNEL)
        } else if space == SpaceId::KERNEL && self.arch() != Arch::X86_64 {
            None
        } else {
            Some(space)
        }
    }

    /// The space that a CPU has loaded; the kernel's for a CPU that does not exist.
    #[must_use]
    pub fn space_of(&self, cpu: CpuId) -> SpaceId {
        self.cpus.get(cpu.index()).map_or(SpaceId::KERNEL, |c| c.space)
    }

    /// The identifier (PCID, ASID, PID) under which it is loaded.
    #[must_use]
    pub fn asid_of(&self, cpu: CpuId) -> u16 {
        self.cpus.get(cpu.index()).map_or(0, |c| c.asid)
    }

    /// The space that an identifier stands for on a CPU; the kernel's if it is not known there.
    pub(crate) fn space_tagged(&self, cpu: CpuId, asid: u16) -> SpaceId {
        let Some(c) = self.cpus.get(cpu.index()) else { return SpaceId::KERNEL };
        let known = c.known.iter().rev().find(|(_, known)| *known == asid).map(|(s, _)| *s);
        if c.asid == asid { c.space } else { known.unwrap_or(SpaceId::KERNEL) }
    }

    /// Loads an address space on a CPU. On x86 this is MOV to CR3: it serialises, and unless
    /// `no_flush` (which needs PCIDs) it drops the translations of that identifier that are not
    /// global. Elsewhere nothing is dropped, and nothing synchronised, by the load itself.
    ///
    /// # Errors
    /// No such CPU or space.
    pub fn load_space(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        asid: u16,
        no_flush: bool,
    ) -> Result<(), MachineError> {
        self.load_space_by(cpu, space, asid, no_flush, OpId::NONE)
    }

    pub(crate) fn load_space_by(
        &mut self,
        cpu: CpuId,
        space: SpaceId,
        asid: u16,
        no_flush: bool,
        op: OpId,
    ) -> Result<(), MachineError> {
        let root = self.space(space)?.root;
        let x86 = self.arch() == Arch::X86_64;
        let pcid = self.has(Features::X86_PCID);
        // Without PCIDs there is one identifier, and every load flushes it.
        let asid = if x86 && !pcid { 0 } else { asid };
        let no_flush = no_flush && (!x86 || pcid);
        self.perform_all(cpu);
        let now = self.advance();
        let c = self.cpu_mut(cpu)?;
        let old = (c.space, c.asid);
        if x86 && !no_flush {
            c.tlb.drop_space(asid);
            c.uppers.retain(|u| u.tag != Some(asid));
            c.known.retain(|(_, known)| *known != asid);
        }
        let kept = old != (space, asid) && (!x86 || no_flush || old.1 != asid);
        if kept && !c.known.contains(&old) {
            c.known.push(old);
        }
        c.known.retain(|k| *k != (space, asid));
        (c.space, c.asid) = (space, asid);
        let no_flush = no_flush || !x86;
        let view = View::SpaceLoaded { root, asid, no_flush };
        self.emit_in(cpu, space, Flags::default(), op, view);
        if x86 && !self.left_out(cpu, || SyncKind::SpaceSwitch) {
            self.context_sync_at(cpu, now, SyncCause::SpaceSwitch, op);
        }
        Ok(())
    }
}
