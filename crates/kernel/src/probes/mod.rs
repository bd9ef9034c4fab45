//! kprobes: registering, arming, optimising, and back.
//!
//! Modelled: which addresses are refused, the copy of the instruction in a slot, the breakpoint by
//! architecture (x86 one byte and a synchronisation of all CPUs, arm64 with all CPUs stopped,
//! powerpc one word and nothing else), several probes at one address, disabling, the handler of who
//! runs into it, slots that are freed after a grace period, optimised probes (x86, and powerpc in
//! kernel text); others run between any two of what these are made of. From: Linux 6.1, 6.12 and
//! 6.18.2 kernel/kprobes.c, arch/*/kernel/kprobes*. Not modelled: probes on ftrace locations
//! (refused here; Linux hands them to ftrace), handlers' own code, blacklists, symbols, probes hit
//! inside a probe, arming and disarming of all probes at once.

pub(crate) mod arming;
mod decode;
mod optimise;
mod returns;
mod slots;

use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, VirtAddr};

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::{EINVAL, ENOENT, ENOMEM};
use crate::error::Stop;
use crate::hotplug::{share_step, unshare_step};
use crate::insns::word_of;
use crate::kernel::Kernel;
use crate::steps::{Step, Then, call_step, lock_step, once, pause, step, unlock_step};
use crate::traps::Resume;

use decode::{How, MAX_X86_BYTES, Probed};
use returns::Returns;
use slots::{Cache, Slots, free_slot_steps, get_slot_step};

pub(crate) use optimise::{kprobe_optimizer, wait_for_kprobe_optimizer};
pub use returns::Rethook;
pub(crate) use returns::{register_kretprobe, unregister_kretprobe};

/// A detour that replaces the breakpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Detour {
    slot: u64,
    /// Bytes of whole instructions that the jump replaces.
    replaced: usize,
    /// What lay behind the breakpoint when the jump was written.
    copied: Vec<u8>,
    state: Optimised,
}

impl Detour {
    /// Whether the jump stands in the text.
    fn jumps(&self) -> bool {
        matches!(self.state, Optimised::Yes | Optimised::Leaving)
    }
}

/// How far the work item is with a detour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Optimised {
    /// Prepared, not asked for.
    No,
    /// On the list of those to optimise.
    Queued,
    /// The jump is there.
    Yes,
    /// On the list of those to take back.
    Leaving,
    /// It was on that list and was taken back by force: on the list of those to free.
    Freeing,
}

/// One probed address.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Probe {
    insn: Probed,
    /// Slot of the copy; 0 where the handler does without.
    slot: u64,
    /// Bytes written to the slot.
    slot_len: u64,
    /// The breakpoint is there.
    armed: bool,
    disabled: bool,
    /// How many registered it; 0 = waits for the work item to free it.
    users: u32,
    detour: Option<Detour>,
}

/// Every probe.
#[derive(Clone, Default, Debug)]
pub(crate) struct Probes {
    by_addr: BTreeMap<u64, Probe>,
    insn_slots: Slots,
    optinsn_slots: Slots,
    returns: Returns,
}

impl Probes {
    /// Forgets probes in text that goes away; their code is not touched any more.
    pub(crate) fn forget(&mut self, gone: impl Fn(VirtAddr) -> bool) {
        self.by_addr.retain(|addr, _| !gone(VirtAddr(*addr)));
        self.forget_returns(gone);
    }

    /// Whether a probe lies in a range.
    pub(crate) fn any_in(&self, start: u64, end: u64) -> bool {
        self.by_addr.range(start..end).next().is_some()
    }
}

/// `register_kprobe(p)`, the probe given by its address.
pub(crate) fn register_kprobe(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    if let Some(error) = k.kprobe_refused(addr)? {
        return Ok(error);
    }
    k.lock(cpu, "kprobe_mutex")?;
    let known = k.users.probes.by_addr.get_mut(&addr.0);
    if let Some(probe) = known.filter(|p| p.users > 0) {
        // register_aggr_kprobe: one more handler; a disabled probe is armed again.
        probe.users += 1;
        let again = probe.disabled && !probe.armed;
        probe.disabled = false;
        let mut steps = if again { k.arm_steps(addr) } else { Vec::new() };
        steps.push(done_step("kprobe_mutex"));
        return k.with_steps(steps);
    }
    if k.users.probes.by_addr.contains_key(&addr.0) {
        return Err(Stop::not_modelled("a probe where an unused optimised one waits to be freed"));
    }
    let prepared: Then<Result<Probe, i64>> = Box::new(move |k, _, prepared| {
        k.later([unlock_step("text_mutex"), unshare_step()]);
        k.later([once(move |k, cpu| {
            k.later([pause()]);
            match prepared {
                Ok(probe) => k.prepared_steps(cpu, addr, probe),
                Err(error) => k.later([step(move |k, cpu| {
                    k.unlock(cpu, "kprobe_mutex")?;
                    k.returns(error);
                    Ok(())
                })]),
            }
            Ok(())
        })]);
        Ok(())
    });
    let prepare = once(move |k, cpu| k.arch_prepare_kprobe(cpu, addr, prepared));
    k.with_steps(vec![share_step(), lock_step("text_mutex"), prepare])
}

/// `unregister_kprobe(p)`.
pub(crate) fn unregister_kprobe(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let addr = args.addr(0);
    k.lock(cpu, "kprobe_mutex")?;
    let probe = k.users.probes.by_addr.get_mut(&addr.0).filter(|p| p.users > 0);
    let Some(probe) = probe else {
        k.unlock(cpu, "kprobe_mutex")?;
        return Ok(0);
    };
    probe.users -= 1;
    if probe.users > 0 {
        k.unlock(cpu, "kprobe_mutex")?;
        return k.with_steps(vec![call_step("synchronize_rcu", Args::default())]);
    }
    let mut steps = k.disarm_steps(addr);
    steps.push(unlock_step("kprobe_mutex"));
    steps.push(call_step("synchronize_rcu", Args::default()));
    steps.push(step(move |k, _| {
        // A jump that is still there belongs to the work item from here on.
        if !k.waits_for_optimizer(addr) {
            k.later([pause(), once(move |k, cpu| k.remove_kprobe(cpu, addr))]);
        }
        Ok(())
    }));
    k.with_steps(steps)
}

/// `disable_kprobe(kp)`.
pub(crate) fn disable_kprobe(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    switch(k, cpu, args.addr(0), false)
}

/// `enable_kprobe(kp)`.
pub(crate) fn enable_kprobe(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    switch(k, cpu, args.addr(0), true)
}

fn switch(k: &mut Kernel, cpu: CpuId, addr: VirtAddr, on: bool) -> Result<i64, Stop> {
    k.lock(cpu, "kprobe_mutex")?;
    let probe = k.users.probes.by_addr.get_mut(&addr.0).filter(|p| p.users > 0);
    let Some(probe) = probe else {
        k.unlock(cpu, "kprobe_mutex")?;
        return Ok(-EINVAL);
    };
    let change = probe.disabled == on;
    probe.disabled = !on;
    let mut steps = match (change, on) {
        (false, _) => Vec::new(),
        (true, true) => k.arm_steps(addr),
        (true, false) => k.disarm_steps(addr),
    };
    if change && on {
        steps.push(step(move |k, _| {
            k.queue_optimise(addr);
            Ok(())
        }));
    }
    steps.push(done_step("kprobe_mutex"));
    k.with_steps(steps)
}

/// The last step: the lock goes, the call returns 0.
fn done_step(lock: &'static str) -> Step {
    step(move |k, cpu| {
        k.unlock(cpu, lock)?;
        k.returns(0);
        Ok(())
    })
}

impl Kernel {
    /// `check_kprobe_address_safe`: what is refused; any byte of a site that is listed.
    fn kprobe_refused(&self, addr: VirtAddr) -> Result<Option<i64>, Stop> {
        let (text, site) = (self.is_probed_text(addr), self.users.ftrace.is_site(addr));
        if text && site && self.arch != Arch::Arm64 {
            return Err(Stop::not_modelled(
                "a probe on a call site of ftrace, by which it is reached (KPROBES_ON_FTRACE)",
            ));
        }
        let bytes = if self.arch == Arch::X86_64 { 5 } else { 4 };
        let inside = |at: VirtAddr| addr.0.wrapping_sub(at.0) < bytes;
        let calls = self.caps.word(Fact::StaticCall) == "inline"
            && self.users.static_calls.any_site(inside);
        let reserved = self.jump_entries.iter().any(|e| inside(e.site())) || site || calls;
        if !text || reserved {
            return Ok(Some(-EINVAL));
        }
        Ok(self.users.modules.is_spent_init(addr).then_some(-ENOENT))
    }

    /// powerpc: the second word of a prefixed instruction, by the word before it, if that lies on
    /// the same page, or by a probe there.
    fn is_suffix(&mut self, cpu: CpuId, addr: VirtAddr) -> bool {
        let before = VirtAddr(addr.0.wrapping_sub(4));
        let probed = self.users.probes.by_addr.get(&before.0);
        let probed = probed.is_some_and(|probe| probe.insn.bytes.len() == 8);
        let mut word = [0; 4];
        let read = self.pages.offset_of(addr) != 0
            && self.machine.load(cpu, before, &mut word).is_ok()
            && word_of(self.arch, &word) >> 26 == 1;
        probed || read
    }

    /// Bytes of a breakpoint.
    fn breakpoint_bytes(&self) -> u64 {
        if self.arch == Arch::X86_64 { 1 } else { 4 }
    }

    /// A probe whose slot is ready: it becomes known, gets its breakpoint, and maybe a detour.
    fn prepared_steps(&mut self, cpu: CpuId, addr: VirtAddr, probe: Probe) {
        let len = u32::try_from(self.breakpoint_bytes()).unwrap_or(4);
        self.machine.trap_handler(cpu, addr, len, true);
        self.users.probes.by_addr.insert(addr.0, probe);
        let steps = self.arm_steps(addr);
        self.later(steps);
        if self.caps.yes(Fact::KprobesOptimise) {
            self.later([share_step()]);
            self.later(Kernel::optimise_locked_steps(addr));
            self.later([unshare_step()]);
        }
        self.later([done_step("kprobe_mutex")]);
    }

    /// `arch_prepare_kprobe`; `then` gets the probe with its slot, or an error number.
    fn arch_prepare_kprobe(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        then: Then<Result<Probe, i64>>,
    ) -> Result<(), Stop> {
        let odd = self.arch != Arch::X86_64 && !addr.is_aligned(2);
        if odd || self.arch.is_powerpc() && self.is_suffix(cpu, addr) {
            return then(self, cpu, Err(-EINVAL));
        }
        let bytes = self.text_at(cpu, addr, MAX_X86_BYTES);
        let how = decode::Looks {
            simulates_nop: self.caps.yes(Fact::Arm64SimulatesNop),
            if_steppable: self.caps.yes(Fact::KprobeSteppable),
        };
        let insn = match decode::decode(self.arch, addr, &bytes, how) {
            Ok(insn) => insn,
            Err(error) => return then(self, cpu, Err(error)),
        };
        // arm64 has no slot for what its handler simulates.
        let slotless = self.arch == Arch::Arm64 && insn.how != How::Step;
        let mut probe = Probe {
            insn,
            slot: 0,
            slot_len: 0,
            armed: false,
            disabled: false,
            users: 1,
            detour: None,
        };
        if slotless {
            return then(self, cpu, Ok(probe));
        }
        let got: Then<u64> = Box::new(move |k, cpu, slot| {
            if slot == 0 {
                return then(k, cpu, Err(-ENOMEM));
            }
            probe.slot = slot;
            let filled = probe.clone();
            let written: Then<Result<u64, i64>> = Box::new(move |k, cpu, written| match written {
                Ok(len) => {
                    probe.slot_len = len;
                    then(k, cpu, Ok(probe))
                }
                Err(error) => {
                    k.later(free_slot_steps(Cache::Insn, slot, false));
                    k.later([once(move |k, cpu| then(k, cpu, Err(error)))]);
                    Ok(())
                }
            });
            k.write_slot(cpu, addr, &filled, written)
        });
        self.later([get_slot_step(Cache::Insn, got)]);
        Ok(())
    }

    /// Text as the handler's code reads it: as much as is mapped, at most `len` bytes.
    fn text_at(&mut self, cpu: CpuId, addr: VirtAddr, len: usize) -> Vec<u8> {
        let on_page = usize::try_from(self.pages.room_at(addr)).unwrap_or(0);
        let mut bytes = vec![0; len.min(on_page)];
        if self.machine.load(cpu, addr, &mut bytes).is_err() {
            return Vec::new();
        }
        let next = addr.offset(on_page as u64);
        if len > on_page && self.is_probed_text(next) {
            let mut more = vec![0; len - on_page];
            if self.machine.load(cpu, next, &mut more).is_ok() {
                bytes.extend(more);
            }
        }
        self.recover(addr, &mut bytes);
        bytes
    }

    /// Puts back, in a copy of text, what breakpoints and jumps of probes stand over
    /// (`recover_probed_instruction`).
    fn recover(&self, addr: VirtAddr, bytes: &mut [u8]) {
        let (start, end) = (addr.0.saturating_sub(4), addr.0.saturating_add(bytes.len() as u64));
        for (at, probe) in self.users.probes.by_addr.range(start..end) {
            let mut under = Vec::new();
            if probe.armed {
                let len = usize::try_from(self.breakpoint_bytes()).unwrap_or(0);
                under.extend(probe.insn.bytes.iter().take(len));
            }
            if let Some(detour) = probe.detour.as_ref().filter(|d| d.jumps()) {
                under.extend(&detour.copied);
            }
            for (n, byte) in (*at..).zip(under) {
                let index = n.checked_sub(addr.0).and_then(|i| usize::try_from(i).ok());
                if let Some(place) = index.and_then(|i| bytes.get_mut(i)) {
                    *place = byte;
                }
            }
        }
    }

    /// `arch_remove_kprobe` and what is freed with it.
    fn remove_kprobe(&mut self, cpu: CpuId, addr: VirtAddr) -> Result<(), Stop> {
        let Some(probe) = self.users.probes.by_addr.remove(&addr.0) else { return Ok(()) };
        // powerpc's handler also knows a trap that is gone when it looks, whoever took it away.
        if !self.arch.is_powerpc() {
            let len = u32::try_from(self.breakpoint_bytes()).unwrap_or(4);
            self.machine.trap_handler(cpu, addr, len, false);
        }
        if let Some(detour) = probe.detour {
            self.later(free_slot_steps(Cache::Optinsn, detour.slot, true));
        }
        if probe.slot != 0 {
            self.later(free_slot_steps(Cache::Insn, probe.slot, false));
        }
        Ok(())
    }

    /// What the probe's handler does about a trap; `None` if it is none of a probe's.
    pub(crate) fn kprobe_trap(&self, virt: VirtAddr) -> Option<Resume> {
        let probes = &self.users.probes.by_addr;
        if let Some(probe) = probes.get(&virt.0) {
            let next = virt.offset(probe.insn.bytes.len() as u64);
            return match &probe.insn.how {
                How::Emulate(resume) => Some(*resume),
                How::Step if self.arch.is_powerpc() => {
                    Some(Resume::Step { at: VirtAddr(probe.slot), next })
                }
                How::Step => Some(Resume::At(VirtAddr(probe.slot))),
                How::Elsewhere => None,
            };
        }
        // The breakpoint behind the copy.
        let (addr, probe) = probes.iter().find(|(_, p)| {
            p.slot != 0 && p.slot + p.insn.bytes.len() as u64 == virt.0 && !self.arch.is_powerpc()
        })?;
        Some(Resume::At(VirtAddr(addr + probe.insn.bytes.len() as u64)))
    }
}
