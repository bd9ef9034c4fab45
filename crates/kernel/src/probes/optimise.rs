//! Optimised probes: a jump to a detour in place of the breakpoint.
//!
//! Modelled: preparing the detour, the list of those that wait, the work item (first those to take
//! back, then a grace period of RCU tasks, then the jumps, then what is unused is freed), the jump
//! by x86's INT3 protocol or by one word on powerpc. From: Linux 6.12 kernel/kprobes.c
//! kprobe_optimizer(), arch/x86/kernel/kprobes/opt.c, arch/powerpc/kernel/optprobes.c. Not
//! modelled: jumps into the replaced instructions from elsewhere (Linux decodes the whole function
//! and refuses), the 5 jiffies before the work item runs (the scenario runs it), the code that
//! saves registers and calls back (no-operations here), powerpc's check that the instruction can be
//! emulated.

use textbed_arch::{Arch, CpuId, VirtAddr};

use super::arming::{power_insn, power_patch_warned};
use super::decode::{How, Probed, x86_relocated, x86_replaced};
use super::slots::{Cache, TEMPLATE_BYTES, TEMPLATE_WORDS, free_slot_steps, get_slot_step};
use super::{Detour, Optimised};
use crate::call::Args;
use crate::caps::Fact;
use crate::error::Stop;
use crate::hotplug::shareable_step;
use crate::insns::{POWER_NOP, try_branch, word_of};
use crate::kernel::Kernel;
use crate::steps::{
    Fate, Made, Step, Then, call_step, calls_step, lock_step, once, pause, step, unlock_step,
};

/// Longest run of instructions that a jump replaces, with one more to look at.
const MAX_REPLACED_BYTES: usize = 24;

/// `kprobe_optimizer()`: the work item.
pub(crate) fn kprobe_optimizer(k: &mut Kernel, cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    k.lock(cpu, "kprobe_mutex")?;
    k.share(cpu)?;
    k.lock(cpu, "text_mutex")?;
    let mut steps = Vec::new();
    let (leaving, freeing) = (k.detours_in(Optimised::Leaving), k.detours_in(Optimised::Freeing));
    // do_unoptimize_kprobes: up to 6.2 it looks at the one list only, and goes home if it is empty.
    let looks = k.caps.yes(Fact::OptimiserSeesForced) || !leaving.is_empty();
    for addr in leaving {
        steps.extend(k.unoptimise_steps(addr));
    }
    for addr in freeing.into_iter().filter(|_| looks) {
        steps.extend(k.disarm_forced_steps(addr));
    }
    steps.push(call_step("synchronize_rcu_tasks", Args::default()));
    steps.push(step(|k, cpu| {
        let mut steps = Vec::new();
        for addr in k.detours_in(Optimised::Queued) {
            steps.extend(k.optimise_steps(cpu, addr)?);
        }
        k.later(steps);
        Ok(())
    }));
    steps.push(step(|k, _| {
        let unused: Vec<u64> = {
            let all = k.users.probes.by_addr.iter();
            all.filter(|(_, p)| p.users == 0).map(|(addr, _)| *addr).collect()
        };
        for addr in unused {
            k.later([once(move |k, cpu| k.remove_kprobe(cpu, VirtAddr(addr))), pause()]);
        }
        Ok(())
    }));
    steps.push(step(|k, cpu| {
        k.unlock(cpu, "text_mutex")?;
        k.unshare(cpu)?;
        k.unlock(cpu, "kprobe_mutex")
    }));
    k.with_steps(steps)
}

/// `wait_for_kprobe_optimizer()`: runs the work item until nothing waits.
pub(crate) fn wait_for_kprobe_optimizer(
    k: &mut Kernel,
    _cpu: CpuId,
    _args: &Args,
) -> Result<i64, Stop> {
    if k.detours_in(Optimised::Leaving).is_empty() && k.detours_in(Optimised::Queued).is_empty() {
        return Ok(0);
    }
    let wait = vec![
        lock_step("kprobe_mutex"),
        step(|k, cpu| k.unlock(cpu, "kprobe_mutex")),
        shareable_step(),
        step(|k, cpu| k.step_call(cpu, "kprobe_optimizer", &Args::default())),
    ];
    k.with_steps(wait)
}

impl Kernel {
    /// Addresses whose detours are in a state.
    fn detours_in(&self, state: Optimised) -> Vec<VirtAddr> {
        let all = self.users.probes.by_addr.iter();
        let fits = all.filter(|(_, p)| p.detour.as_ref().is_some_and(|d| d.state == state));
        fits.map(|(addr, _)| VirtAddr(*addr)).collect()
    }

    /// Whether the work item has the probe's jump to take back.
    pub(super) fn waits_for_optimizer(&self, addr: VirtAddr) -> bool {
        self.detours_in(Optimised::Leaving).contains(&addr)
    }

    fn detour(&mut self, addr: VirtAddr) -> Option<&mut Detour> {
        self.users.probes.by_addr.get_mut(&addr.0)?.detour.as_mut()
    }

    /// Puts a prepared detour on the list of those to optimise.
    pub(super) fn queue_optimise(&mut self, addr: VirtAddr) {
        if !self.config.on("kprobes_optimization") {
            return;
        }
        if let Some(detour) = self.detour(addr) {
            detour.state = match detour.state {
                Optimised::No => Optimised::Queued,
                Optimised::Leaving => Optimised::Yes,
                other => other,
            };
        }
    }

    /// `try_to_optimize_kprobe`: prepares the detour; a probe that can't have one stays as it is.
    pub(super) fn optimise_locked_steps(addr: VirtAddr) -> Vec<Step> {
        let prepared: Then<Option<Detour>> = Box::new(move |k, _, detour| {
            if let Some(probe) = k.users.probes.by_addr.get_mut(&addr.0) {
                probe.detour = detour;
            }
            k.queue_optimise(addr);
            Ok(())
        });
        let prepare = once(move |k, cpu| match k.arch {
            Arch::X86_64 => k.x86_prepare_detour(cpu, addr, prepared),
            _ => k.power_prepare_detour(cpu, addr, prepared),
        });
        vec![
            lock_step("jump_label_mutex"),
            lock_step("text_mutex"),
            prepare,
            unlock_step("text_mutex"),
            unlock_step("jump_label_mutex"),
            pause(),
        ]
    }

    fn x86_prepare_detour(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        then: Then<Option<Detour>>,
    ) -> Result<(), Stop> {
        let probe = self.users.probes.by_addr.get(&addr.0);
        if probe.is_none_or(|probe| probe.users == 0) {
            return then(self, cpu, None);
        }
        let bytes = self.text_at(cpu, addr, MAX_REPLACED_BYTES);
        let Some(replaced) = x86_replaced(addr, &bytes) else { return then(self, cpu, None) };
        let (inside, end) = (addr.0 + 1, addr.0 + replaced as u64);
        let taken = |at: VirtAddr| (addr.0..end).contains(&at.0);
        let reserved = self.jump_entries.iter().any(|e| taken(e.site()))
            || self.users.ftrace.any_site(taken)
            || self.users.static_calls.any_site(taken);
        if reserved || self.users.probes.any_in(inside, end) {
            return then(self, cpu, None);
        }
        let written = move |_: &Kernel, slot| {
            let code = x86_detour(addr, &bytes, replaced, slot)?;
            Some(vec![("text_poke", Args::with_code(&[slot], &code), Fate::Void)])
        };
        self.later([detour_step(replaced, written, then)]);
        Ok(())
    }

    /// powerpc: word by word, in the one page that the kernel's text has for it.
    fn power_prepare_detour(
        &mut self,
        cpu: CpuId,
        addr: VirtAddr,
        then: Then<Option<Detour>>,
    ) -> Result<(), Stop> {
        let insn = self.users.probes.by_addr.get(&addr.0).map(|probe| probe.insn.clone());
        let fits = |insn: &Probed| insn.bytes.len() == 4 && insn.how != How::Elsewhere;
        let Some(insn) = insn.filter(fits) else { return then(self, cpu, None) };
        let written = move |k: &Kernel, slot: u64| {
            let ret = slot + TEMPLATE_WORDS * 4;
            try_branch(k.arch, addr, VirtAddr(slot), false)?;
            let back = try_branch(k.arch, VirtAddr(ret), addr.offset(4), false)?;
            let emulated = u64::from(word_of(k.arch, &insn.bytes));
            let word = |n: u64| match n {
                TEMPLATE_WORDS => power_insn(k.arch, &back),
                // Linux calls emulate_step() there.
                n if n + 1 == TEMPLATE_WORDS => emulated,
                _ => u64::from(POWER_NOP),
            };
            let patch = |n: u64| {
                let args = Args::of(&[slot + n * 4, word(n)]);
                ("patch_instruction", args, Fate::Dropped)
            };
            let mut calls: Vec<Made> = (0..=TEMPLATE_WORDS).map(patch).collect();
            calls.push(("flush_icache_range", Args::of(&[slot, ret + 4]), Fate::Void));
            Some(calls)
        };
        self.later([detour_step(4, written, then)]);
        Ok(())
    }

    /// Jumps that stand over an address that is about to get a breakpoint of its own are taken back
    /// at once (`get_optimized_kprobe`, `force_unoptimize_kprobe`).
    pub(super) fn make_way_steps(&mut self, addr: VirtAddr) -> Vec<Step> {
        let before = self.users.probes.by_addr.range_mut(addr.0.saturating_sub(24)..addr.0);
        let mut over = None;
        for (at, probe) in before {
            let Some(detour) = &mut probe.detour else { continue };
            if at.saturating_add(detour.replaced as u64) <= addr.0 {
                continue;
            }
            let jumped = detour.jumps();
            detour.state = match detour.state {
                Optimised::Leaving => Optimised::Freeing,
                _ => Optimised::No,
            };
            if jumped {
                over = Some((VirtAddr(*at), detour.copied.clone()));
            }
        }
        over.map(|(at, copied)| self.x86_unoptimise_steps(at, copied)).unwrap_or_default()
    }

    /// `arch_optimize_kprobes`, one probe.
    fn optimise_steps(&mut self, cpu: CpuId, addr: VirtAddr) -> Result<Vec<Step>, Stop> {
        let arch = self.arch;
        let behind = self.text_at(cpu, addr.offset(1), 4);
        let Some(detour) = self.detour(addr) else { return Ok(Vec::new()) };
        detour.state = Optimised::Yes;
        detour.copied = behind;
        let slot = VirtAddr(detour.slot);
        let Some(jump) = try_branch(arch, addr, slot, false) else { return Ok(Vec::new()) };
        if arch == Arch::X86_64 {
            let name = self.smp_name("text_poke_bp", "smp_text_poke_single");
            let args = Args::with_code(&[addr.0], &jump);
            return Ok(vec![step(move |k, cpu| k.step_call(cpu, name, &args))]);
        }
        let args = Args::of(&[addr.0, power_insn(arch, &jump)]);
        let patch = vec![("patch_instruction", args, Fate::Dropped)];
        Ok(vec![calls_step(patch), pause()])
    }

    /// `do_unoptimize_kprobes`, a probe that was taken back by force: its breakpoint goes, if it is
    /// disabled or unused.
    fn disarm_forced_steps(&mut self, addr: VirtAddr) -> Vec<Step> {
        let Some(detour) = self.detour(addr) else { return Vec::new() };
        detour.state = Optimised::No;
        let probe = self.users.probes.by_addr.get(&addr.0);
        let gone = probe.is_some_and(|p| p.disabled || p.users == 0);
        if gone { self.restore_steps(addr) } else { Vec::new() }
    }

    /// `do_unoptimize_kprobes`, one probe: the breakpoint again, and if it is disabled or unused
    /// the instruction.
    fn unoptimise_steps(&mut self, addr: VirtAddr) -> Vec<Step> {
        let arch = self.arch;
        let Some(detour) = self.detour(addr) else { return Vec::new() };
        detour.state = Optimised::No;
        let copied = detour.copied.clone();
        let mut steps = if arch == Arch::X86_64 {
            self.x86_unoptimise_steps(addr, copied)
        } else {
            let trap = crate::insns::KPROBE.bytes(arch);
            let args = Args::of(&[addr.0, power_insn(arch, &trap)]);
            power_patch_warned(args).into()
        };
        let gone =
            self.users.probes.by_addr.get(&addr.0).is_some_and(|p| p.disabled || p.users == 0);
        if gone {
            steps.extend(self.restore_steps(addr));
        }
        steps
    }
}

/// A step that takes a slot for a detour and makes the calls that write it, as `written` says of
/// the slot: `None` where the code cannot be there. `then` gets the detour, if there is one.
fn detour_step(
    replaced: usize,
    written: impl FnOnce(&Kernel, u64) -> Option<Vec<Made>> + 'static,
    then: Then<Option<Detour>>,
) -> Step {
    let filled: Then<u64> = Box::new(move |k, cpu, slot| {
        if slot == 0 {
            return then(k, cpu, None);
        }
        let detour = match written(k, slot) {
            Some(calls) => {
                k.later([calls_step(calls), pause()]);
                Some(Detour { slot, replaced, copied: Vec::new(), state: Optimised::No })
            }
            None => {
                k.later(free_slot_steps(Cache::Optinsn, slot, false));
                None
            }
        };
        k.later([once(move |k, cpu| then(k, cpu, detour))]);
        Ok(())
    });
    get_slot_step(Cache::Optinsn, filled)
}

/// The code of a detour in its slot: what saves registers and calls back, the instructions that the
/// jump replaces, and the jump back. `None` where one of them cannot be there.
fn x86_detour(addr: VirtAddr, bytes: &[u8], replaced: usize, slot: u64) -> Option<Vec<u8>> {
    let arch = Arch::X86_64;
    let mut code = vec![0x90; TEMPLATE_BYTES as usize];
    let mut at = 0;
    while at < replaced {
        let here = VirtAddr(slot + code.len() as u64);
        let copy = x86_relocated(addr.offset(at as u64), bytes.get(at..).unwrap_or(&[]), here)?;
        at += copy.len();
        code.extend(copy);
    }
    try_branch(arch, addr, VirtAddr(slot), false)?;
    let here = VirtAddr(slot + code.len() as u64);
    code.extend(try_branch(arch, here, addr.offset(replaced as u64), false)?);
    Some(code)
}
