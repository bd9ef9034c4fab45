//! Users of text patching that are calls of their own: static keys and BPF's attach points.
//!
//! Modelled: `bpf_arch_text_poke` with its comparison, its errors and "already done" by
//! architecture, and what each does about other CPUs, powerpc's with the out-of-line stub that a
//! scenario names (two words), else with the attach point's own; static keys with the sites that a
//! scenario names, patched as each architecture does it. From: Linux 6.1, 6.12 and 7.0
//! arch/x86/net/bpf_jit_comp.c __bpf_arch_text_poke(), arch/arm64/net/bpf_jit_comp.c, 6.14, 6.18.2
//! and 7.0 arch/powerpc/net/bpf_jit_comp.c;
//! 6.12 kernel/jump_label.c, arch/*/kernel/jump_label.c. Not modelled: PLTs and long-branch stubs
//! (a target out of reach is said by name), programs with ENDBR or BTI at their start (the site is
//! the address given), reference counts of keys, keys while booting, jump entries in init text.

use std::collections::VecDeque;

use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::{Flags, View};

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::{EBUSY, EFAULT, EINVAL, ENOTSUPP, EOPNOTSUPP, ERANGE};
use crate::error::Stop;
use crate::insns::{X86_NOP5, branch, word_of};
use crate::kernel::Kernel;
use crate::steps::{
    Fate, Step, call_then, calls_step, cross_step, lock_step, once, pause, step, unlock_step,
};

/// A site of a static key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct JumpEntry {
    key: u64,
    site: VirtAddr,
    target: VirtAddr,
}

impl JumpEntry {
    /// Where it is.
    pub(crate) fn site(&self) -> VirtAddr {
        self.site
    }
}

/// `jump_entry(key, code, target)`: stands for a row of a module's jump table.
pub(crate) fn jump_entry(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let entry = JumpEntry { key: args.get(0), site: args.addr(1), target: args.addr(2) };
    branch(k.arch, entry.site, Some(entry.target), false)?;
    k.jump_entries.push(entry);
    k.listed_site(cpu, entry.site, true);
    Ok(0)
}

/// `static_key_enable(key)`: the sites jump.
pub(crate) fn static_key_enable(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    set_key(k, cpu, args.get(0), true)
}

/// `static_key_disable(key)`: the sites are no-operations.
pub(crate) fn static_key_disable(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    set_key(k, cpu, args.get(0), false)
}

fn set_key(k: &mut Kernel, cpu: CpuId, key: u64, enable: bool) -> Result<i64, Stop> {
    if k.keys_on.contains(&key) == enable {
        return Ok(0);
    }
    if enable {
        k.keys_on.insert(key);
    } else {
        k.keys_on.remove(&key);
    }
    let mut entries: Vec<JumpEntry> =
        k.jump_entries.iter().copied().filter(|e| e.key == key).collect();
    entries.sort_by_key(|e| e.site);
    if k.arch == Arch::X86_64 {
        k.lock(cpu, "jump_label_mutex")?;
        return k.x86_set_key(cpu, &entries, enable);
    }
    let mut steps = vec![lock_step("jump_label_mutex")];
    for JumpEntry { site, target, .. } in entries.iter().copied() {
        let insn = branch(k.arch, site, enable.then_some(target), false)?;
        let insn = word(k.arch, &insn);
        let (name, args) = match k.arch {
            Arch::Arm64 => ("aarch64_insn_patch_text_nosync", Args::of(&[site.0, insn])),
            _ if enable => ("patch_branch", Args::of(&[site.0, target.0, 0])),
            _ => ("patch_instruction", Args::of(&[site.0, insn])),
        };
        let patch = vec![(name, args, Fate::Dropped)];
        let listed = step(move |k, cpu| {
            k.listed_site(cpu, site, false);
            Ok(())
        });
        steps.extend([listed, calls_step(patch), pause()]);
    }
    let kicks = k.arch == Arch::Arm64 && k.caps.yes(Fact::JumpLabelKicks) && !entries.is_empty();
    if kicks {
        steps.push(cross_step(|k, cpu| k.kick_all_cpus(cpu)));
    }
    steps.push(unlock_step("jump_label_mutex"));
    steps.push(step(move |k, _| {
        if kicks {
            k.noted = sites(&entries, 4);
        }
        Ok(())
    }));
    k.with_steps(steps)
}

/// `bpf_arch_text_poke(ip, t, old_addr, new_addr)`; 0 as an address is none.
pub(crate) fn arch_text_poke(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (ip, call) = (args.addr(0), args.get(1) == 1);
    let target = |n: usize| Some(args.addr(n)).filter(|a| a.0 != 0);
    let (old, new) = (target(2), target(3));
    let absent = match k.arch {
        Arch::X86_64 => EINVAL,
        Arch::Arm64 => ENOTSUPP,
        _ => EOPNOTSUPP,
    };
    if !k.caps.yes(Fact::TextPoke) {
        return Ok(-ENOTSUPP);
    }
    let known = k.is_core_text(ip) || k.areas.find(ip).is_some();
    if !known {
        return Ok(-absent);
    }
    let (Ok(old), Ok(new)) = (branch(k.arch, ip, old, call), branch(k.arch, ip, new, call)) else {
        return if k.arch == Arch::X86_64 {
            Ok(-ERANGE)
        } else {
            Err(Stop::not_modelled("a target that needs a PLT or a stub"))
        };
    };
    if k.arch == Arch::X86_64 {
        return k.x86_attach(cpu, ip, &old, &new);
    }
    // arm64 compares the two first: nothing to do is no error whatever lies there.
    if k.arch == Arch::Arm64 && old == new {
        return Ok(0);
    }
    // In the middle of code others are told whatever was there.
    let inside = k.users.trampolines.is_after_call(ip);
    let detaches = k.arch != Arch::Arm64 && (args.get(2) != 0 || inside);
    let mut parts = vec![(ip, old.clone(), new.clone())];
    if let Some(stub) = k.ool_stubs.get(&ip).copied().filter(|_| k.arch != Arch::Arm64) {
        // The branch to the target is in the stub, behind its first instruction; that to the stub
        // is there while there is a target.
        let at = stub.offset(4);
        let place = |n: usize| branch(k.arch, at, target(n), call);
        let (Ok(old), Ok(new)) = (place(2), place(3)) else {
            return Err(Stop::not_modelled("a target that needs a PLT or a stub"));
        };
        let nop = branch(k.arch, ip, None, false)?;
        let to_stub = branch(k.arch, ip, Some(stub), false)?;
        parts = vec![(at, old, new)];
        match (target(2), target(3)) {
            (None, _) => parts.push((ip, nop, to_stub)),
            (_, None) => parts.push((ip, to_stub, nop)),
            _ => {}
        }
    }
    let mut steps = vec![lock_step("text_mutex"), attach_step(parts.into())];
    steps.push(unlock_step("text_mutex"));
    if detaches {
        // A branch that was there may still be fetched ahead by others, whatever came of this.
        steps.push(cross_step(|k, cpu| {
            k.on_other_cpus(cpu, "do_isync", &mut |m, on| {
                m.op_named(on, "isync", 0)?;
                Ok(())
            })
        }));
    }
    k.with_steps(steps)
}

/// One word at an attach point: where it lies, what has to be there, and what comes.
pub(crate) type Part = (VirtAddr, Vec<u8>, Vec<u8>);

/// arm64 and powerpc: one word after the other, each compared first, to the first error.
pub(crate) fn attach_step(mut parts: VecDeque<Part>) -> Step {
    once(move |k, cpu| {
        let Some((at, old, new)) = parts.pop_front() else { return Ok(()) };
        let arm = k.arch == Arch::Arm64;
        let mut found = [0; 4];
        if k.machine.load(cpu, at, &mut found).is_err() {
            k.returns(-EFAULT);
            return Ok(());
        }
        if !k.machine.compare(cpu, at, &old)? {
            k.returns(if arm { -EFAULT } else { -EINVAL });
            return Ok(());
        }
        if old == new {
            k.later([attach_step(parts)]);
            return Ok(());
        }
        let name = if arm { "aarch64_insn_patch_text_nosync" } else { "patch_instruction" };
        let insn = Args::of(&[at.0, word(k.arch, &new)]);
        k.later(call_then(name, insn, move |k, _, error| {
            k.returns(error);
            k.later((error == 0).then(|| attach_step(parts)));
            Ok(())
        }));
        Ok(())
    })
}

/// `bpf_ool_stub(ip, stub)`: stands for what powerpc's JIT lays out at the end of a program.
pub(crate) fn bpf_ool_stub(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    branch(k.arch, args.addr(0), Some(args.addr(1)), false)?;
    k.ool_stubs.insert(args.addr(0), args.addr(1));
    Ok(0)
}

/// The ranges of some sites.
fn sites(entries: &[JumpEntry], len: u64) -> Vec<(VirtAddr, u64)> {
    entries.iter().map(|entry| (entry.site, len)).collect()
}

/// An instruction as a number.
fn word(arch: Arch, bytes: &[u8]) -> u64 {
    u64::from(word_of(arch, bytes))
}

impl Kernel {
    /// Static keys on x86: all sites of the key in one vector, each checked for its old bytes.
    fn x86_set_key(
        &mut self,
        cpu: CpuId,
        entries: &[JumpEntry],
        enable: bool,
    ) -> Result<i64, Stop> {
        let mut steps = Vec::new();
        self.lock(cpu, "text_mutex")?;
        for entry in entries {
            let jump = branch(self.arch, entry.site, Some(entry.target), false)?;
            let (old, new) =
                if enable { (X86_NOP5.to_vec(), jump) } else { (jump, X86_NOP5.to_vec()) };
            self.listed_site(cpu, entry.site, false);
            if !self.machine.compare(cpu, entry.site, &old)? {
                return Err(Stop::died("BUG in __jump_label_patch: unexpected op", entry.site));
            }
            let pending = self.batch_entry(entry.site, &new)?;
            steps.extend(self.batch_add(pending));
        }
        let finish = self.smp_name("text_poke_finish", "smp_text_poke_batch_finish");
        steps.push(step(move |k, cpu| k.step_call(cpu, finish, &Args::default())));
        let entries = entries.to_vec();
        steps.push(step(move |k, cpu| {
            k.unlock(cpu, "text_mutex")?;
            k.unlock(cpu, "jump_label_mutex")?;
            k.noted = sites(&entries, X86_NOP5.len() as u64);
            Ok(())
        }));
        self.with_steps(steps)
    }

    /// A list names a site from here on (`begins`), or goes through to replace it.
    pub(crate) fn listed_site(&mut self, cpu: CpuId, virt: VirtAddr, begins: bool) {
        self.emit(cpu, Flags::default(), View::ListedSite { virt, begins });
    }

    /// The x86 name of a call before or from 6.16 on.
    pub(crate) fn smp_name(&self, old: &'static str, new: &'static str) -> &'static str {
        let there = crate::calls::find_call(new, self.version, self.arch).is_ok();
        if there { new } else { old }
    }

    /// x86: -EBUSY if other bytes lie there, 1 if the new ones do already.
    fn x86_attach(
        &mut self,
        cpu: CpuId,
        ip: VirtAddr,
        old: &[u8],
        new: &[u8],
    ) -> Result<i64, Stop> {
        self.lock(cpu, "text_mutex")?;
        let early = if !self.machine.compare(cpu, ip, old)? {
            Some(-EBUSY)
        } else if self.machine.compare(cpu, ip, new)? {
            Some(1)
        } else {
            None
        };
        if let Some(value) = early {
            self.unlock(cpu, "text_mutex")?;
            return Ok(value);
        }
        let poke = self.smp_name("text_poke_bp", "smp_text_poke_single");
        let args = Args::with_code(&[ip.0], new);
        let steps = vec![
            step(move |k, cpu| k.step_call(cpu, poke, &args)),
            step(|k, cpu| {
                k.unlock(cpu, "text_mutex")?;
                k.returns(0);
                Ok(())
            }),
        ];
        self.with_steps(steps)
    }
}
