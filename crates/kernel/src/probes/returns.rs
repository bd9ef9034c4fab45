//! Return probes: a probe at the entry of a function that has the function return to a trampoline.
//!
//! Modelled: the return address that the handler replaces (whoever runs the code asks here), how
//! many of a probe's may be under way (the others are missed, in silence), and the trampoline in
//! the kernel's text: code that puts the address back and returns, on arm64 from 6.9 on a
//! breakpoint whose handler goes on there. Who comes back after the probe is gone still does so by
//! the trampoline. From: Linux 5.19, 6.1, 6.6, 6.12 and 7.0 kernel/kprobes.c, kernel/trace/
//! rethook.c, arch/x86/kernel/rethook.c, arch/arm64/kernel/probes/kprobes.c and
//! kprobes_trampoline.S, arch/powerpc/kernel/kprobes.c and rethook.c. Not modelled: what the
//! handlers do, which addresses are entries of functions (each counts as one), powerpc's probe on
//! its trampoline and its link register, so that none may be hit there.

use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, VirtAddr};

use super::Probes;
use crate::call::Args;
use crate::caps::Fact;
use crate::error::Stop;
use crate::insns::{ARM64_NOP, ARM64_RETURN_PROBE, word_bytes};
use crate::kernel::Kernel;
use crate::steps::{call_step, step};

/// Where the trampoline lies in the kernel's text: behind ftrace_caller.
const TRAMPOLINE_OFFSET: u64 = 0x40;
/// Returns of one probe that may be under way at least (`maxactive`).
const LEAST_ACTIVE: usize = 10;
/// arm64 `ret`, powerpc `nop` and `blr`.
const ARM64_RET: u32 = 0xd65f_03c0;
const POWER: [u32; 2] = [0x6000_0000, 0x4e80_0020];

/// A return that goes to the trampoline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hooked {
    probe: VirtAddr,
    cpu: CpuId,
    /// The stack pointer at the function's entry.
    stack: u64,
    back: VirtAddr,
}

/// Return probes and returns under way.
#[derive(Clone, Default, Debug)]
pub(super) struct Returns {
    /// Probed functions, with how many registered each.
    users: BTreeMap<u64, u32>,
    hooked: Vec<Hooked>,
    /// One was registered: the trampoline is there.
    any: bool,
}

/// How a return goes on at the trampoline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rethook {
    /// The address is put back where the function found it, and the code at `then` returns by it.
    PutBack {
        /// The address.
        back: VirtAddr,
        /// The rest of the trampoline.
        then: VirtAddr,
    },
    /// The handler of the trampoline's breakpoint goes on there.
    GoOn(VirtAddr),
}

/// `register_kretprobe(rp)`, given by the address.
pub(crate) fn register_kretprobe(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    k.with_steps(vec![
        step(move |k, cpu| k.step_call(cpu, "register_kprobe", &Args::of(&[addr.0]))),
        step(move |k, cpu| {
            let error = k.nested_result(cpu).unwrap_or(0);
            if error == 0 {
                k.add_return_probe(addr)?;
            }
            k.returns(error);
            Ok(())
        }),
    ])
}

/// `unregister_kretprobe(rp)`.
pub(crate) fn unregister_kretprobe(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    let users = &mut k.users.probes.returns.users;
    let Some(count) = users.get_mut(&addr.0) else { return Ok(0) };
    *count -= 1;
    if *count == 0 {
        users.remove(&addr.0);
    }
    let kprobe = Args::of(&[addr.0]);
    k.with_steps(vec![call_step("unregister_kprobe", kprobe)])
}

impl Probes {
    /// Forgets return probes in text that goes away; who is on the way back still comes back.
    pub(super) fn forget_returns(&mut self, gone: impl Fn(VirtAddr) -> bool) {
        self.returns.users.retain(|addr, _| !gone(VirtAddr(*addr)));
    }
}

impl Kernel {
    fn add_return_probe(&mut self, addr: VirtAddr) -> Result<(), Stop> {
        let code = match (self.arch, self.caps.word(Fact::ReturnProbe)) {
            (Arch::X86_64, _) => vec![0x90, 0xc3], // nop; ret
            (Arch::Arm64, "kretprobe-brk") => word_bytes(self.arch, ARM64_RETURN_PROBE),
            (Arch::Arm64, _) => {
                [ARM64_NOP, ARM64_RET].iter().flat_map(|w| word_bytes(Arch::Arm64, *w)).collect()
            }
            (arch, _) => POWER.iter().flat_map(|w| word_bytes(arch, *w)).collect(),
        };
        if !self.users.probes.returns.any {
            let text = self.image.pfn.addr().offset(TRAMPOLINE_OFFSET);
            self.machine.preload(text, &code)?;
            self.users.probes.returns.any = true;
        }
        *self.users.probes.returns.users.entry(addr.0).or_insert(0) += 1;
        Ok(())
    }

    /// Where returns are sent, if there was a return probe.
    #[must_use]
    pub fn return_trampoline(&self) -> Option<VirtAddr> {
        let start = self.layout.text.start;
        self.users.probes.returns.any.then(|| start.offset(TRAMPOLINE_OFFSET))
    }

    /// Whether who runs into a probe, or into the detour of an optimised one, at this address has
    /// his return sent to the trampoline: the function. More than may be under way are missed.
    #[must_use]
    pub fn return_probe(&self, at: VirtAddr) -> Option<VirtAddr> {
        let probes = &self.users.probes;
        let detours = |(addr, _): &(&u64, &u32)| {
            let detour = probes.by_addr.get(addr).and_then(|p| p.detour.as_ref());
            detour.is_some_and(|d| d.slot == at.0)
        };
        let users = &probes.returns.users;
        let here = users.contains_key(&at.0).then_some(at.0);
        let probe = here.or_else(|| users.iter().find(detours).map(|(addr, _)| *addr))?;
        let active = probes.returns.hooked.iter().filter(|h| h.probe.0 == probe).count();
        let most = LEAST_ACTIVE.max(2 * usize::from(self.cpus));
        (active < most).then_some(VirtAddr(probe))
    }

    /// A return that would have gone to `back` goes to the trampoline; `stack` is the stack pointer
    /// at the function's entry.
    pub fn hook_return(&mut self, cpu: CpuId, probe: VirtAddr, stack: VirtAddr, back: VirtAddr) {
        let hooked = Hooked { probe, cpu, stack: stack.0, back };
        self.users.probes.returns.hooked.push(hooked);
    }

    /// Whether the trampoline is a breakpoint.
    #[must_use]
    pub fn unhooks_by_trap(&self) -> bool {
        self.caps.word(Fact::ReturnProbe) == "kretprobe-brk"
    }

    /// Who comes to the trampoline with this stack pointer (as at the function's entry): how it
    /// goes on. `None` if nobody sent it there.
    pub fn unhook_return(&mut self, cpu: CpuId, stack: VirtAddr) -> Option<Rethook> {
        let brk = self.unhooks_by_trap();
        let at = self.return_trampoline()?;
        let hooked = &mut self.users.probes.returns.hooked;
        let n = hooked.iter().rposition(|h| h.cpu == cpu && h.stack == stack.0)?;
        let back = hooked.remove(n).back;
        let nop = if self.arch == Arch::X86_64 { 1 } else { 4 };
        Some(if brk {
            Rethook::GoOn(back)
        } else {
            Rethook::PutBack { back, then: at.offset(nop) }
        })
    }
}
