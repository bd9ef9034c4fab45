//! Instructions of `arch`'s table carried out: maintenance, barriers, synchronisation, space
//! switches and control registers. Each emits the event of its effect with its row's number.
//!
//! Operands are what the instruction's registers hold. Not modelled: what drops dirty data (INVD,
//! DC IVAC, DCBI), maintenance by set and way, second-stage translation, the contents of memory
//! operands (an INVPCID descriptor is given as numbers).

use textbed_arch::effect::{CacheScope, Effect, Reach, SyncCause, TlbScope};
use textbed_arch::insn::{self, Row};
use textbed_arch::{Arch, CpuId, Features, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Access, ControlRegister, OpId};

use crate::leave_out::SyncKind;
use crate::tlb::TlbTarget;
use crate::{Machine, OpError};

/// Number of EFER among the model-specific registers (SDM vol 4).
const MSR_EFER: u32 = 0xc000_0080;

impl Machine {
    /// Carries out an instruction with one operand: an address, a register's new value; 0 where it
    /// has none.
    ///
    /// # Errors
    /// See [`Machine::op_with`].
    pub fn op(&mut self, cpu: CpuId, row: &Row, operand: u64) -> Result<(), OpError> {
        self.op_with(cpu, row, &[operand])
    }

    /// Carries out the instruction called `name` in `arch`'s table.
    ///
    /// # Errors
    /// No such instruction, or as [`Machine::op_with`].
    pub fn op_named(&mut self, cpu: CpuId, name: &str, operand: u64) -> Result<(), OpError> {
        let row = self.row(name)?;
        self.op_with(cpu, row, &[operand])
    }

    fn row(&self, name: &str) -> Result<&'static Row, OpError> {
        let arch = self.arch();
        insn::by_name(arch, name).ok_or_else(|| OpError::Unknown { name: name.to_owned(), arch })
    }

    /// Carries out an instruction.
    ///
    /// Operands by instruction, missing ones are 0: an address (`dc cvau`, `ic ivau`, `dcbst`,
    /// `icbi`, `invlpg`, `monitor`); the register of an arm64 `tlbi` (`ASID:48..64,
    /// VA[55:12]:0..44`, ranges as the manual packs them); RB and the PID of `tlbie` and `tlbiel`;
    /// type, PCID and address of `invpcid`; address, count - 1 and PCID of `invlpgb`, and 1 if no
    /// address is given (everything); the MSR's number and the value of `wrmsr`; the new value of a
    /// control register or root.
    ///
    /// # Errors
    /// What has no effect on the machine (traps, branches, loads and stores are the CPU's own
    /// business), what is not modelled, an address that does not translate.
    pub fn op_with(&mut self, cpu: CpuId, row: &Row, operands: &[u64]) -> Result<(), OpError> {
        if cpu.index() >= self.cpus.len() {
            return Err(OpError::NoCpu(cpu));
        }
        if self.leaves_out(cpu, row) {
            return Ok(());
        }
        let arg = |n: usize| operands.get(n).copied().unwrap_or(0);
        let op = OpId(row.id.0);
        let not_modelled =
            || OpError::NotModelled { name: row.name.to_owned(), arch: self.config.arch };
        let by_way = ["dc isw", "dc csw", "dc cisw"].contains(&row.name);
        match row.effect {
            Effect::CacheClean(_) if by_way => return Err(not_modelled()),
            Effect::CacheClean(scope) => {
                let (virt, phys) = self.cache_address(cpu, scope, arg(0))?;
                self.clean(cpu, scope, virt, phys, op);
            }
            Effect::IcacheInvalidate(scope, reach) => {
                let (virt, phys) = self.cache_address(cpu, scope, arg(0))?;
                let reach = self.forced(reach);
                self.invalidate_icache(cpu, scope, reach, virt, phys, op);
            }
            Effect::TlbInvalidate(scope, reach) => {
                let target = self.tlb_target(cpu, row, scope, operands).ok_or_else(not_modelled)?;
                self.invalidate_tlb(cpu, target, self.forced(reach), op);
            }
            Effect::Barrier(barrier, domain) => self.barrier(cpu, barrier, domain, op),
            Effect::ContextSync(cause) => {
                if self.arch() != Arch::X86_64 || row.serialises(self.features()) {
                    self.context_sync(cpu, cause, op);
                }
                return Ok(());
            }
            Effect::SpaceSwitch => return self.space_switch(cpu, row, arg(0)),
            Effect::Control if matches!(row.name, "wrmsr" | "wrmsrns") => {
                // Whether it serialises depends on the register's number.
                let msr = arg(0) as u32;
                if msr == MSR_EFER {
                    self.write_control(cpu, ControlRegister::Efer, arg(1), op);
                }
                let serialises = row.serialises(self.features())
                    && insn::msr_write_serialises(self.has(Features::X86_AMD), msr);
                if serialises && !self.left_out(cpu, || SyncKind::Aside(row.name)) {
                    self.context_sync(cpu, SyncCause::Serialising, op);
                }
                return Ok(());
            }
            Effect::Control => {
                let register = control_of(row.name);
                self.write_control(cpu, register, arg(0), op);
            }
            Effect::ExceptionReturn => {
                self.exception_return(cpu, row.serialises(self.features()), op);
                return Ok(());
            }
            Effect::Nop => {}
            Effect::Watch => self.watch(cpu, VirtAddr(arg(0)))?,
            Effect::SendEvent(reach) => self.send_event(cpu, reach),
            // Whether the CPU goes on is for those to decide who run it.
            Effect::Wait(wake) => {
                self.wait_ends(cpu, wake);
            }
            Effect::CacheInvalidate(_)
            | Effect::Trap
            | Effect::Branch(_)
            | Effect::Exclusive
            | Effect::Atomic
            | Effect::LoadAcquire
            | Effect::StoreRelease
            | Effect::NonTemporalStore => return Err(not_modelled()),
        }
        // Maintenance that serialises was asked about as a whole.
        let aside = matches!(row.effect, Effect::Control);
        if row.serialises(self.features())
            && !(aside && self.left_out(cpu, || SyncKind::Aside(row.name)))
        {
            self.context_sync(cpu, SyncCause::Serialising, op);
        }
        Ok(())
    }

    /// Whether this instruction is there to synchronise, and is to be left out.
    fn leaves_out(&mut self, cpu: CpuId, row: &Row) -> bool {
        let looped = match row.effect {
            Effect::CacheClean(scope) | Effect::IcacheInvalidate(scope, _) => {
                scope == CacheScope::Line
            }
            Effect::TlbInvalidate(..) => true,
            Effect::Barrier(..) | Effect::ContextSync(_) | Effect::ExceptionReturn => false,
            _ => return false,
        };
        self.left_out_op(cpu, row.name, looped)
    }

    /// Invalidates translations by the instruction called `name`, for a range given as addresses
    /// instead of in its register's format: `len` bytes from `virt` in the space `asid`, as far as
    /// the instruction's scope has an address or a space.
    ///
    /// # Errors
    /// No such instruction, or one that does something else.
    pub fn tlbi(
        &mut self,
        cpu: CpuId,
        name: &str,
        virt: VirtAddr,
        len: u64,
        asid: u16,
    ) -> Result<(), OpError> {
        let row = self.row(name)?;
        if cpu.index() >= self.cpus.len() {
            return Err(OpError::NoCpu(cpu));
        }
        let Effect::TlbInvalidate(scope, reach) = row.effect else {
            return Err(OpError::NotModelled { name: name.to_owned(), arch: self.arch() });
        };
        if self.leaves_out(cpu, row) {
            return Ok(());
        }
        let any = any_asid(row.name);
        let op = OpId(row.id.0);
        let target = TlbTarget { scope, virt: virt.0, len: len.max(1), asid, any, leaf: None };
        self.invalidate_tlb(cpu, target, self.forced(reach), op);
        if row.serialises(self.features()) {
            self.context_sync(cpu, SyncCause::Serialising, op);
        }
        Ok(())
    }

    /// An exception was taken: synchronises where the architecture has it so (arm64 with EIS,
    /// Power always, x86 never).
    pub fn exception_entry(&mut self, cpu: CpuId) {
        let synchronises = match self.arch() {
            Arch::X86_64 => false,
            Arch::Arm64 => self.has(Features::ARM_EIS),
            Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => true,
        };
        self.watch_nothing(cpu);
        if synchronises && !self.left_out(cpu, || SyncKind::Entry) {
            self.context_sync(cpu, SyncCause::ExceptionEntry, OpId::NONE);
        }
    }

    /// A return from an exception: synchronises where the architecture has it so (arm64 with EOS,
    /// Power always, x86 if the instruction serialises).
    pub(crate) fn exception_return(&mut self, cpu: CpuId, serialises: bool, op: OpId) {
        if self.arch() == Arch::Arm64 {
            self.clear_reservation(cpu);
            self.send_event(cpu, Reach::Local);
        }
        let synchronises = match self.arch() {
            Arch::X86_64 => serialises,
            Arch::Arm64 => self.has(Features::ARM_EOS),
            Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => true,
        };
        // A return that is an instruction of the program was asked about as that.
        let aside = op == OpId::NONE;
        if synchronises && !(aside && self.left_out(cpu, || SyncKind::Return)) {
            self.context_sync(cpu, SyncCause::ExceptionReturn, op);
        }
    }

    /// arm64 HCR_EL2.FB: what is local becomes broadcast.
    fn forced(&self, reach: Reach) -> Reach {
        let forced = self.arch() == Arch::Arm64 && self.has(Features::ARM_FB);
        if forced { Reach::Broadcast } else { reach }
    }

    /// Address used and address reached by cache maintenance.
    fn cache_address(
        &mut self,
        cpu: CpuId,
        scope: CacheScope,
        operand: u64,
    ) -> Result<(VirtAddr, PhysAddr), OpError> {
        if scope == CacheScope::All {
            return Ok((VirtAddr(0), PhysAddr(0)));
        }
        let virt = VirtAddr(operand);
        match self.translate(cpu, virt, Access::Read) {
            Ok((phys, _)) => Ok((virt, phys)),
            Err(reason) => Err(self.fault(cpu, virt, Access::Read, reason).into()),
        }
    }

    /// What a TLB invalidation names, from its operands; `None` if that is not modelled.
    fn tlb_target(
        &self,
        cpu: CpuId,
        row: &Row,
        scope: TlbScope,
        operands: &[u64],
    ) -> Option<TlbTarget> {
        let arg = |n: usize| operands.get(n).copied().unwrap_or(0);
        let current = self.asid_of(cpu);
        let page = 1u64 << self.format.page_shift;
        let any = any_asid(row.name);
        let target =
            |scope, virt, len, asid| Some(TlbTarget { scope, virt, len, asid, any, leaf: None });
        match self.arch() {
            Arch::X86_64 => match row.name {
                "invpcid" => {
                    let pcid = (arg(1) & 0xfff) as u16;
                    match arg(0) {
                        0 => target(TlbScope::Address, arg(2), page, pcid),
                        1 => target(TlbScope::Space, 0, 0, pcid),
                        2 => target(TlbScope::All, 0, 0, 0),
                        3 => target(TlbScope::AllButGlobal, 0, 0, 0),
                        _ => None,
                    }
                }
                "invlpgb" if arg(3) == 1 => target(TlbScope::All, 0, 0, 0),
                "invlpgb" => {
                    let count = (arg(1) & 0xffff) + 1;
                    let pcid = (arg(2) & 0xfff) as u16;
                    target(scope, arg(0) & !(page - 1), count.saturating_mul(page), pcid)
                }
                "invept" | "invvpid" | "invlpga" => None,
                _ => target(scope, arg(0) & !(page - 1), page, current),
            },
            Arch::Arm64 => {
                let x = arg(0);
                let asid = (x >> 48) as u16;
                if ["ipas2", "e2", "e3"].iter().any(|other| row.name.contains(other)) {
                    return None;
                }
                if matches!(scope, TlbScope::All | TlbScope::AllButGlobal | TlbScope::Space) {
                    return target(scope, 0, 0, asid);
                }
                if row.name.starts_with("tlbi r") {
                    // BaseADDR, NUM and SCALE of a range operation, in units of TG's granule; one
                    // that is not the tables' need not invalidate anything.
                    let shift = [None, Some(12), Some(14), Some(16)][(x >> 46 & 3) as usize]?;
                    if shift != self.format.page_shift {
                        return None;
                    }
                    // BaseADDR alone is in units of 64 KiB with 52 bits (TCR_EL1.DS).
                    let unit = if self.format.has_lpa2() { 16 } else { shift };
                    let base = ((x << 27) as i64 >> 27 << unit) as u64;
                    let (num, scale) = ((x >> 39) & 31, (x >> 44) & 3);
                    let len = ((num + 1) << (5 * scale + 1)) << shift;
                    let leaf = self.hinted(x >> 46 & 3, x >> 37 & 3).filter(|_| x >> 37 & 3 != 0);
                    return target(scope, base, len, asid).map(|t| TlbTarget { leaf, ..t });
                }
                // Bits of an address below the granule are not looked at.
                let virt = ((x << 20) as i64 >> 20 << 12) as u64;
                let hinted = self.has(Features::ARM_TTL);
                let leaf = self.hinted(x >> 46 & 3, x >> 44 & 3).filter(|_| hinted);
                target(scope, virt & !(page - 1), page, asid).map(|t| TlbTarget { leaf, ..t })
            }
            // 32-bit: an effective address, and nothing else.
            Arch::Ppc32 if scope == TlbScope::Address => {
                target(scope, arg(0) & 0xffff_f000, page, current)
            }
            // By virtual address, which the machine keeps no translations by.
            _ if self.is_hashed() && scope == TlbScope::Address && (arg(0) >> 10) & 3 == 0 => None,
            Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => {
                let (rb, pid) = (arg(0), operands.get(1).map_or(current, |pid| *pid as u16));
                match (scope, (rb >> 10) & 3) {
                    (TlbScope::Address, 0) => {
                        // AP: the size of the page. Radix alone comes here.
                        let shift = match rb >> 5 & 7 {
                            0 => 12,
                            5 => 16,
                            1 => 21,
                            2 => 30,
                            _ => return None,
                        };
                        target(scope, rb >> shift << shift, 1 << shift, pid)
                    }
                    // Process 0 is the kernel: its translations are all of quadrant 3.
                    (TlbScope::Address, 1) if pid == 0 => target(scope, 3 << 62, 1 << 62, 0),
                    (TlbScope::Address, 1) => target(TlbScope::Space, 0, 0, pid),
                    (TlbScope::Address, _) => target(TlbScope::All, 0, 0, pid),
                    _ => target(scope, 0, 0, pid),
                }
            }
        }
    }

    /// `log2` of the leaves of a level of tables of a granule, as arm64's TTL names them; `None` if
    /// it says nothing (Arm ARM DDI 0487, TLBI VAE1IS and RVAE1IS). One of another granule than the
    /// tables' fits no leaf of theirs.
    fn hinted(&self, granule: u64, level: u64) -> Option<u8> {
        let lpa2 = self.format.has_lpa2();
        let (shift, first) = match granule {
            1 => (12, u64::from(!lpa2)),
            2 => (14, 2 - u64::from(lpa2)),
            3 => (16, 1),
            _ => return None,
        };
        (level >= first).then(|| shift + (shift - 3) * (3 - level as u8))
    }

    /// A write to the register that names the address space.
    fn space_switch(&mut self, cpu: CpuId, row: &Row, value: u64) -> Result<(), OpError> {
        let op = OpId(row.id.0);
        let unknown = OpError::UnknownSpace(value);
        let by_root = |m: &Machine, root: u64| m.space_with_root(PhysAddr(root));
        let (space, asid, no_flush) = match (self.arch(), row.name) {
            (Arch::X86_64, _) => {
                let root = value & 0x000f_ffff_ffff_f000;
                (by_root(self, root), (value & 0xfff) as u16, value >> 63 == 1)
            }
            (Arch::Arm64, "msr ttbr0_el1") => {
                let root = value & 0x0000_ffff_ffff_fffe;
                // Root 0 stands for the reserved, empty tables.
                let space = if root == 0 { Some(SpaceId::KERNEL) } else { by_root(self, root) };
                (space, (value >> 48) as u16, true)
            }
            (Arch::Ppc64le | Arch::Ppc64, "mtspr pid") => {
                let space = SpaceId(value as u32);
                let known = self.root(space).is_some();
                (known.then_some(space), value as u16, true)
            }
            _ => {
                let (name, arch) = (row.name.to_owned(), self.arch());
                return Err(OpError::NotModelled { name, arch });
            }
        };
        let space = space.ok_or(unknown.clone())?;
        self.load_space_by(cpu, space, asid, no_flush, op).map_err(|_| unknown)
    }
}

/// arm64 operations that name an address in every space.
fn any_asid(name: &str) -> bool {
    name.starts_with("tlbi vaa") || name.starts_with("tlbi rvaa")
}

/// The control register that an instruction writes.
fn control_of(name: &str) -> ControlRegister {
    match name {
        "mov cr0" | "lmsw" => ControlRegister::Cr0,
        "mov cr4" => ControlRegister::Cr4,
        "msr sctlr_el1" => ControlRegister::Sctlr,
        "msr tcr_el1" => ControlRegister::Tcr,
        "mtspr lpcr" => ControlRegister::Lpcr,
        "mtspr amr" | "mtspr iamr" => ControlRegister::Keys,
        _ => ControlRegister::Other,
    }
}
