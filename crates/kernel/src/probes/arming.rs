//! Breakpoints of kprobes, and the slots that they lead to.
//!
//! From: Linux 6.1, 6.12 and 6.18.2 arch_arm_kprobe(), arch_disarm_kprobe() and what prepares the
//! slot, in arch/x86/kernel/kprobes/core.c, arch/arm64/kernel/probes/kprobes.c and
//! arch/powerpc/kernel/kprobes.c. On x86 with CONFIG_PREEMPTION: the copy ends with a breakpoint,
//! not with a jump back.

use textbed_arch::{Arch, CpuId, VirtAddr};

use super::decode::x86_relocated;
use super::{Optimised, Probe};
use crate::call::Args;
use crate::caps::Fact;
use crate::errno::EINVAL;
use crate::error::Stop;
use crate::hotplug::{share_step, unshare_step};
use crate::insns::{ARM64_KPROBE_STEP, INT3, KPROBE, word_of};
use crate::kernel::Kernel;
use crate::steps::{
    Fate, Step, Then, call_step, call_then, calls_step, calls_then, cross_step, lock_step, pause,
    step, step_then_others, unlock_step,
};

impl Kernel {
    /// Copies the instruction to its slot; `then` gets the bytes written, or an error number.
    pub(super) fn write_slot(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        probe: &Probe,
        then: Then<Result<u64, i64>>,
    ) -> Result<(), Stop> {
        let (slot, bytes) = (probe.slot, &probe.insn.bytes);
        let (calls, len) = match self.arch {
            Arch::X86_64 => {
                let Some(mut copy) = x86_relocated(addr, bytes, VirtAddr(slot)) else {
                    return then(self, cpu, Err(-EINVAL));
                };
                copy.push(INT3);
                if copy.len() > super::MAX_X86_BYTES {
                    return Err(Stop::not_modelled("an instruction that fills its slot (-ENOSPC)"));
                }
                let len = copy.len() as u64;
                (vec![("text_poke", Args::with_code(&[slot], &copy), Fate::Void)], len)
            }
            Arch::Arm64 if self.caps.yes(Fact::KprobeSlotStops) => {
                let code = [&bytes[..], &ARM64_KPROBE_STEP.to_le_bytes()].concat();
                let patch =
                    ("aarch64_insn_patch_text", Args::with_code(&[slot], &code), Fate::Dropped);
                let flush = ("flush_icache_range", Args::of(&[slot, slot + 8]), Fate::Void);
                (vec![patch, flush], 8)
            }
            Arch::Arm64 => {
                let copy = u64::from(word_of(self.arch, bytes));
                let end = u64::from(ARM64_KPROBE_STEP);
                let write = |(at, word): (u64, u64)| {
                    ("aarch64_insn_patch_text_nosync", Args::of(&[at, word]), Fate::Dropped)
                };
                ([(slot, copy), (slot + 4, end)].map(write).into(), 8)
            }
            arch => {
                let insn = Args::of(&[slot, power_insn(arch, bytes)]);
                (vec![("patch_instruction", insn, Fate::Dropped)], bytes.len() as u64)
            }
        };
        self.later([calls_then(calls, Box::new(move |k, cpu, _| then(k, cpu, Ok(len))))]);
        Ok(())
    }

    /// `arm_kprobe`: the breakpoint, under text_mutex.
    pub(super) fn arm_steps(&mut self, addr: VirtAddr) -> Vec<Step> {
        let breakpoint = KPROBE.bytes(self.arch);
        let mut steps = vec![share_step(), lock_step("text_mutex")];
        if self.arch == Arch::X86_64 {
            steps.extend(self.make_way_steps(addr));
        }
        steps.extend(self.replace_steps(addr, breakpoint));
        steps.push(step(move |k, _| {
            if let Some(probe) = k.users.probes.by_addr.get_mut(&addr.0) {
                probe.armed = true;
            }
            Ok(())
        }));
        steps.extend([unlock_step("text_mutex"), unshare_step()]);
        steps
    }

    /// `disarm_kprobe`: the first instruction again, unless the jump of an optimised probe has to
    /// be taken back first.
    pub(super) fn disarm_steps(&mut self, addr: VirtAddr) -> Vec<Step> {
        let Some(probe) = self.users.probes.by_addr.get_mut(&addr.0) else { return Vec::new() };
        if let Some(detour) = &mut probe.detour {
            match detour.state {
                Optimised::Yes => {
                    detour.state = Optimised::Leaving;
                    return Vec::new();
                }
                Optimised::Leaving | Optimised::Freeing => return Vec::new(),
                Optimised::Queued => detour.state = Optimised::No,
                Optimised::No => {}
            }
        }
        if !probe.armed {
            return Vec::new();
        }
        let mut steps = vec![share_step(), lock_step("text_mutex")];
        steps.extend(self.restore_steps(addr));
        steps.extend([unlock_step("text_mutex"), unshare_step()]);
        steps
    }

    /// `arch_disarm_kprobe`, under text_mutex.
    pub(super) fn restore_steps(&mut self, addr: VirtAddr) -> Vec<Step> {
        let probe = self.users.probes.by_addr.get(&addr.0);
        let mut original = probe.map(|p| p.insn.bytes.clone()).unwrap_or_default();
        // Of a prefixed instruction the prefix alone: the breakpoint was no longer.
        original.truncate(if self.arch == Arch::X86_64 { 1 } else { 4 });
        let mut steps = self.replace_steps(addr, original);
        steps.push(step(move |k, _| {
            if let Some(probe) = k.users.probes.by_addr.get_mut(&addr.0) {
                probe.armed = false;
            }
            Ok(())
        }));
        steps
    }

    /// How each architecture replaces the first byte or word of a probed instruction.
    fn replace_steps(&self, addr: VirtAddr, bytes: Vec<u8>) -> Vec<Step> {
        match self.arch {
            Arch::X86_64 => {
                let sync = self.smp_name("text_poke_sync", "smp_text_poke_sync_each_cpu");
                let args = Args::with_code(&[addr.0], &bytes);
                vec![
                    step_then_others(move |k, cpu| k.step_call(cpu, "text_poke", &args)),
                    cross_step(move |k, cpu| k.step_call(cpu, sync, &Args::default())),
                ]
            }
            Arch::Arm64 => {
                let args = Args::with_code(&[addr.0], &bytes);
                let patch = vec![("aarch64_insn_patch_text", args, Fate::Dropped)];
                vec![calls_step(patch), pause()]
            }
            arch => power_patch_warned(Args::of(&[addr.0, power_insn(arch, &bytes)])).into(),
        }
    }

    /// x86: the breakpoint before a jump goes, then what the jump overwrote comes back, each with
    /// a synchronisation of all CPUs.
    pub(super) fn x86_unoptimise_steps(&self, addr: VirtAddr, copied: Vec<u8>) -> Vec<Step> {
        let sync = self.smp_name("text_poke_sync", "smp_text_poke_sync_each_cpu");
        let first = Args::with_code(&[addr.0], &[INT3]);
        let rest = Args::with_code(&[addr.0 + 1], &copied);
        vec![
            call_step("text_poke", first),
            cross_step(move |k, cpu| k.step_call(cpu, sync, &Args::default())),
            call_step("text_poke", rest),
            cross_step(move |k, cpu| k.step_call(cpu, sync, &Args::default())),
        ]
    }
}

/// `WARN_ON_ONCE(patch_instruction(...))`.
pub(super) fn power_patch_warned(args: Args) -> [Step; 3] {
    let at = args.addr(0);
    let [patch, look] = call_then("patch_instruction", args, move |k, cpu, error| {
        if error != 0 {
            let reason = textbed_event::WarnReason::NotPatched;
            k.warn_once(cpu, "kprobes: patch_instruction", reason, at);
        }
        Ok(())
    });
    [patch, look, pause()]
}

/// A powerpc instruction as `patch_instruction` takes it: a prefix in the upper half.
pub(super) fn power_insn(arch: Arch, bytes: &[u8]) -> u64 {
    let first = u64::from(word_of(arch, bytes));
    match bytes.get(4..8) {
        Some(suffix) => first << 32 | u64::from(word_of(arch, suffix)),
        None => first,
    }
}
