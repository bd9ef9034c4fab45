//! kgdb's software breakpoints, set while every other CPU is held.
//!
//! Modelled: x86's plain store first, and its patcher where that faults (-EBUSY if text_mutex is
//! held by whoever was stopped); arm64's write without maintenance; powerpc's patch. From: Linux
//! 6.12 arch/x86/kernel/kgdb.c, arch/arm64/kernel/kgdb.c, arch/powerpc/kernel/kgdb.c. Not
//! modelled: how CPUs are rounded up, the flush of the breakpoint's line that the core does
//! afterwards (kgdb_flush_swbreak_addr), hardware breakpoints.

use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::MemOrder;

use crate::call::Args;
use crate::errno::{EBUSY, EFAULT, EINVAL};
use crate::error::Stop;
use crate::insns::{KGDB, word_of};
use crate::kernel::Kernel;

/// A breakpoint that is set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SwBreak {
    saved: Vec<u8>,
    /// Set through the patcher.
    poked: bool,
}

/// `kgdb_arch_set_breakpoint(bpt)`, given by its address.
pub(crate) fn set_breakpoint(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    let breakpoint = KGDB.bytes(k.arch);
    let mut saved = vec![0; breakpoint.len()];
    if k.machine.load(cpu, addr, &mut saved).is_err() {
        return Ok(-EFAULT);
    }
    match k.kgdb_write(cpu, addr, &breakpoint, None)? {
        Ok(poked) => {
            k.users.sw_breaks.insert(addr.0, SwBreak { saved, poked });
            Ok(0)
        }
        Err(error) => Ok(error),
    }
}

/// `kgdb_arch_remove_breakpoint(bpt)`.
pub(crate) fn remove_breakpoint(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    let Some(set) = k.users.sw_breaks.get(&addr.0).cloned() else { return Ok(-EINVAL) };
    match k.kgdb_write(cpu, addr, &set.saved, Some(set.poked))? {
        Ok(_) => {
            k.users.sw_breaks.remove(&addr.0);
            Ok(0)
        }
        Err(error) => Ok(error),
    }
}

impl Kernel {
    /// Writes a breakpoint or what lay under it: whether the patcher did it, or an error number.
    /// `poked`: how it had been set.
    fn kgdb_write(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        bytes: &[u8],
        poked: Option<bool>,
    ) -> Result<Result<bool, i64>, Stop> {
        let insn = Args::of(&[addr.0, u64::from(word_of(self.arch, bytes))]);
        match self.arch {
            Arch::X86_64 => {
                let locked = self.machine.lock_holder("text_mutex").is_some();
                let poke = poked == Some(true) && !locked;
                if !poke && self.machine.store(cpu, addr, bytes, MemOrder::Plain).is_ok() {
                    return Ok(Ok(false));
                }
                match (poked, locked) {
                    (None, true) => return Ok(Err(-EBUSY)),
                    (Some(false), _) | (Some(true), true) => return Ok(Err(-EFAULT)),
                    _ => {}
                }
                self.inner(cpu, "text_poke_kgdb", &Args::with_code(&[addr.0], bytes))?;
                Ok(Ok(true))
            }
            Arch::Arm64 => {
                let done = self.inner(cpu, "aarch64_insn_write", &insn)?;
                let error = self.used(cpu, done);
                Ok(if error == 0 { Ok(true) } else { Err(error) })
            }
            _ => {
                let done = self.inner(cpu, "patch_instruction", &insn)?;
                let failed = self.used(cpu, done) != 0;
                Ok(if failed { Err(-EFAULT) } else { Ok(true) })
            }
        }
    }
}
