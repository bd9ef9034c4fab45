//! ftrace: the call sites of functions, and the trampolines of tracers.
//!
//! Modelled: sites that hold a no-operation or a call, checked before they are changed; tracers
//! (ops) with one site each; on x86 a trampoline of its own for each tracer, all sites of an update
//! in one vector of the INT3 protocol; on arm64 and powerpc one word a site, others in between, and
//! nobody told; arm64's literal of the ops before the function; powerpc's out-of-line stub, where a
//! site has one (6.13 on): the ops before it, the call in it, the branch to it; direct calls, which
//! powerpc has by such stubs; the grace periods before a trampoline goes; the change of a direct
//! call; what fails disables ftrace. From: Linux 6.1, 6.12, 6.13.2 and 6.18.2
//! kernel/trace/ftrace.c, arch/*/kernel/ftrace.c, arch/powerpc/kernel/trace/ftrace.c. Not modelled:
//! filters and hashes, several tracers' list function, updates of ftrace_caller's own calls, PLTs,
//! the graph tracer, saved registers; the trampoline's code but for its call. Elsewhere than on x86
//! the site calls ftrace_caller, which returns at once (it lies where the kernel's text begins; a
//! powerpc module has a stub of the same code).

use std::collections::{BTreeMap, VecDeque};

use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::WarnReason;

use crate::call::Args;
use crate::call_table::EXECMEM_TYPES;
use crate::caps::Fact;
use crate::errno::{EBUSY, EFAULT, EINVAL, ENODEV, EPERM};
use crate::error::Stop;
use crate::insns::{
    POWER_MFLR, POWER_MTLR, branch, ftrace_caller, nop, try_branch, word_bytes, word_of,
};
use crate::kernel::Kernel;
use crate::steps::{
    Fate, Step, Then, call_step, call_then, calls_then, lock_step, once, pause, step, unlock_step,
};
use crate::text_users::attach_step;

/// One tracer.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Ops {
    site: VirtAddr,
    /// What its site calls.
    target: VirtAddr,
    /// Its trampoline, 0 = none.
    trampoline: u64,
    direct: bool,
}

/// Sites and tracers.
#[derive(Clone, Default, Debug)]
pub(crate) struct Ftrace {
    /// Each site with what it calls.
    sites: BTreeMap<u64, Option<VirtAddr>>,
    ops: BTreeMap<u64, Ops>,
    /// A site did not hold what it should: ftrace is off for good.
    disabled: bool,
}

impl Ftrace {
    /// Whether an address is a site.
    pub(crate) fn is_site(&self, addr: VirtAddr) -> bool {
        self.sites.contains_key(&addr.0)
    }

    /// Whether a site is such.
    pub(crate) fn any_site(&self, such: impl Fn(VirtAddr) -> bool) -> bool {
        self.sites.keys().any(|site| such(VirtAddr(*site)))
    }

    /// Forgets sites in text that goes away.
    pub(crate) fn forget(&mut self, gone: impl Fn(VirtAddr) -> bool) {
        self.sites.retain(|site, _| !gone(VirtAddr(*site)));
    }
}

/// Bytes of a trampoline: the template, a return and the ops; the call stands at
/// [`CALL_OFFSET`]. The template's length is of that order in Linux.
const TRAMPOLINE_BYTES: u64 = 0x100;
const CALL_OFFSET: u64 = 0x80;

/// `ftrace_site(ip)`: stands for a row of the table of call sites; the site holds a no-operation.
pub(crate) fn ftrace_site(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let ip = args.addr(0);
    if !k.is_probed_text(ip) {
        return Ok(-EINVAL);
    }
    let text = k.image.pfn.addr();
    k.machine.preload(text, &ftrace_caller(k.arch))?;
    k.users.ftrace.sites.insert(ip.0, None);
    Ok(0)
}

/// `ftrace_ool_stub(ip, stub)`: stands for what powerpc sets up for a call site when it finds it
/// (`ftrace_init_ool_stub`): `mflr r0`, a call of ftrace_caller, `mtlr r0`, a branch back behind
/// the site; eight bytes before it the ops.
pub(crate) fn ftrace_ool_stub(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (site, stub) = (args.addr(0), args.addr(1));
    let (begin, end) = (VirtAddr(stub.0.wrapping_sub(8)), VirtAddr(stub.0.wrapping_add(15)));
    let there = k.is_probed_text(begin) && k.is_probed_text(end) && stub.is_aligned(3);
    if !there || !k.users.ftrace.is_site(site) {
        return Ok(-EINVAL);
    }
    let branches = [
        try_branch(k.arch, stub.offset(4), k.ftrace_caller_for(site), true),
        try_branch(k.arch, stub.offset(12), site.offset(4), false),
        try_branch(k.arch, site, stub, false),
    ];
    let [Some(call), Some(back), Some(_)] = branches else { return Ok(-EINVAL) };
    let [save, restore] = [POWER_MFLR, POWER_MTLR].map(|word| word_bytes(k.arch, word));
    let code = [save, call, restore, back].concat();
    let calls = vec![
        ("patch_instructions", Args::with_code(&[stub.0], &code).and(&[0, 16]), Fate::Checked),
        ("patch_ulong", Args::of(&[begin.0, 0]), Fate::Checked),
    ];
    k.ool_stubs.insert(site, stub);
    k.with_steps(vec![calls_then(
        calls,
        Box::new(|k, _, error| {
            k.returns(error);
            Ok(())
        }),
    )])
}

/// `register_ftrace_function(ops, ip, func)`, the ops by a number, with one site in its filter.
pub(crate) fn register_ftrace_function(
    k: &mut Kernel,
    _cpu: CpuId,
    args: &Args,
) -> Result<i64, Stop> {
    let (ops, site, func) = (args.get(0), args.addr(1), args.addr(2));
    let made = move |k: &mut Kernel, cpu, trampoline| {
        // Without a trampoline of its own the tracer is reached through ftrace_caller.
        let target = if trampoline == 0 { k.ftrace_caller_for(site) } else { VirtAddr(trampoline) };
        k.users.ftrace.ops.insert(ops, Ops { site, target, trampoline, direct: false });
        let steps = k.site_steps(cpu, site, Some(target), ops)?;
        k.later(steps);
        Ok(())
    };
    let register = once(move |k, cpu| {
        if let Some(error) = k.ftrace_refused(ops, site) {
            k.returns(error);
            return Ok(());
        }
        if k.caps.word(Fact::FtraceTrampoline) == "none" {
            return made(k, cpu, 0);
        }
        k.later([trampoline_step(func, Box::new(made))]);
        Ok(())
    });
    k.with_steps(vec![lock_step("ftrace_lock"), register, unlock_step("ftrace_lock")])
}

/// `unregister_ftrace_function(ops)`.
pub(crate) fn unregister_ftrace_function(
    k: &mut Kernel,
    cpu: CpuId,
    args: &Args,
) -> Result<i64, Stop> {
    k.unregister_ops(cpu, args.get(0), false)
}

/// `register_ftrace_direct(ops, ip, addr)`: the site calls an address directly.
pub(crate) fn register_ftrace_direct(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (ops, site, target) = (args.get(0), args.addr(1), args.addr(2));
    if !k.has_direct_calls(site) {
        return Ok(-ENODEV);
    }
    k.lock(cpu, "direct_mutex")?;
    k.lock(cpu, "ftrace_lock")?;
    if let Some(error) = k.ftrace_refused(ops, site) {
        k.unlock(cpu, "ftrace_lock")?;
        k.unlock(cpu, "direct_mutex")?;
        return Ok(error);
    }
    k.users.ftrace.ops.insert(ops, Ops { site, target, trampoline: 0, direct: true });
    let mut steps = k.site_steps(cpu, site, Some(target), ops)?;
    steps.push(unlock_step("ftrace_lock"));
    steps.push(unlock_step("direct_mutex"));
    k.with_steps(steps)
}

/// `unregister_ftrace_direct(ops)`.
pub(crate) fn unregister_ftrace_direct(
    k: &mut Kernel,
    cpu: CpuId,
    args: &Args,
) -> Result<i64, Stop> {
    k.unregister_ops(cpu, args.get(0), true)
}

/// The tracer that `modify_ftrace_direct` registers for a moment.
const TMP_OPS: u64 = 1 << 49;

/// `modify_ftrace_direct(ops, addr)`: the site calls ftrace_caller while the address changes, and
/// then the new one. Nobody waits for those who are in the old one: that is its owner's business.
pub(crate) fn modify_ftrace_direct(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (ops, target) = (args.get(0), args.addr(1));
    if k.users.ftrace.disabled || !k.caps.yes(Fact::FtraceDirect) {
        return Ok(-ENODEV);
    }
    let known = k.users.ftrace.ops.get(&ops).filter(|o| o.direct).map(|o| o.site);
    let Some(site) = known.filter(|site| k.users.ftrace.is_site(*site)) else {
        return Ok(-EINVAL);
    };
    k.lock(cpu, "direct_mutex")?;
    k.lock(cpu, "ftrace_lock")?;
    let caller = k.ftrace_caller_for(site);
    let mut steps = k.site_steps(cpu, site, Some(caller), TMP_OPS)?;
    steps.push(step(move |k, cpu| {
        if k.users.ftrace.disabled {
            return Ok(());
        }
        if let Some(tracer) = k.users.ftrace.ops.get_mut(&ops) {
            tracer.target = target;
        }
        let back = k.site_steps(cpu, site, Some(target), ops)?;
        k.later(back);
        Ok(())
    }));
    steps.push(unlock_step("ftrace_lock"));
    steps.push(unlock_step("direct_mutex"));
    k.with_steps(steps)
}

impl Kernel {
    /// `ftrace_caller`, or the stub of the site's module that leads there.
    fn ftrace_caller_for(&self, site: VirtAddr) -> VirtAddr {
        let text = self.layout.text.start;
        if !self.arch.is_powerpc() {
            return text;
        }
        let len = ftrace_caller(self.arch).len() as u64;
        self.users.modules.stub_of(site, len).unwrap_or(text)
    }

    /// Whether a site can call an address directly: on powerpc by its out-of-line stub alone.
    pub(crate) fn has_direct_calls(&self, site: VirtAddr) -> bool {
        let by_stub = !self.arch.is_powerpc() || self.ool_stubs.contains_key(&site);
        self.caps.yes(Fact::FtraceDirect) && (by_stub || !self.users.ftrace.is_site(site))
    }

    fn ftrace_refused(&self, ops: u64, site: VirtAddr) -> Option<i64> {
        let ftrace = &self.users.ftrace;
        if ftrace.disabled {
            return Some(-ENODEV);
        }
        match ftrace.sites.get(&site.0) {
            None => Some(-EINVAL),
            Some(_) if ftrace.ops.contains_key(&ops) => Some(-EBUSY),
            // Two tracers of one function share ftrace_ops_list_func().
            Some(Some(_)) => Some(-EBUSY),
            Some(None) => None,
        }
    }

    fn unregister_ops(&mut self, cpu: CpuId, ops: u64, direct: bool) -> Result<i64, Stop> {
        if self.users.ftrace.disabled || direct && !self.caps.yes(Fact::FtraceDirect) {
            return Ok(-ENODEV);
        }
        let known = self.users.ftrace.ops.get(&ops).filter(|o| o.direct == direct).cloned();
        let Some(tracer) = known else {
            if direct {
                return Ok(-EINVAL);
            }
            self.warn(cpu, WarnReason::BadArgument, VirtAddr(0));
            return Ok(-EBUSY);
        };
        if direct {
            self.lock(cpu, "direct_mutex")?;
        }
        self.lock(cpu, "ftrace_lock")?;
        let mut steps = if self.users.ftrace.is_site(tracer.site) {
            self.site_steps(cpu, tracer.site, None, ops)?
        } else {
            Vec::new()
        };
        let grace = |name| call_step(name, Args::default());
        // Callers may be anywhere in the trampoline: preempted there, or where RCU does not watch.
        steps.extend([grace("synchronize_rcu_tasks_rude"), grace("synchronize_rcu_tasks")]);
        steps.push(step(move |k, _| {
            k.users.ftrace.ops.remove(&ops);
            Ok(())
        }));
        if tracer.trampoline != 0 {
            // ftrace_remove_trampoline_from_kallsyms.
            let (name, args) = self.text_memory_free(tracer.trampoline);
            steps.extend([grace("synchronize_rcu"), call_step(name, args)]);
        }
        steps.push(unlock_step("ftrace_lock"));
        if direct {
            steps.push(unlock_step("direct_mutex"));
        }
        self.with_steps(steps)
    }

    /// `ftrace_run_update_code` for one site: from what it calls now to `new`.
    fn site_steps(
        &mut self,
        cpu: CpuId,
        site: VirtAddr,
        new: Option<VirtAddr>,
        ops: u64,
    ) -> Result<Vec<Step>, Stop> {
        let old = self.users.ftrace.sites.get(&site.0).copied().flatten();
        let stub = self.ool_stubs.get(&site).copied().filter(|_| self.arch.is_powerpc());
        if let Some(stub) = stub {
            return self.stub_steps((site, stub), (old, new), ops);
        }
        let before = branch(self.arch, site, old, true)?;
        let after = branch(self.arch, site, new, true)?;
        if self.arch != Arch::X86_64 {
            let ops = new.map_or(0, |_| ops);
            let done = Box::new(move |k: &mut Kernel, cpu, error| {
                k.site_done(cpu, site, new, error);
                Ok(())
            });
            return self.word_steps(site, (before, after), ops, done);
        }
        let _ = cpu;
        Ok(vec![
            lock_step("text_mutex"),
            step(move |k, cpu| {
                let error = match k.compare_text(cpu, site, &before)? {
                    None => -EFAULT,
                    Some(false) => -EINVAL,
                    Some(true) => 0,
                };
                if error == 0 {
                    let pending = k.batch_entry(site, &after)?;
                    let mut steps = k.batch_add(pending);
                    let finish = k.smp_name("text_poke_finish", "smp_text_poke_batch_finish");
                    steps.push(step(move |k, cpu| k.step_call(cpu, finish, &Args::default())));
                    k.later(steps);
                }
                k.site_done(cpu, site, new, error);
                Ok(())
            }),
            // Once more in ftrace_arch_code_modify_post_process(): nothing is pending then.
            unlock_step("text_mutex"),
        ])
    }

    /// powerpc's `ftrace_replace_code` where the site has its stub: the ops, the call in the stub,
    /// and the branch to the stub where that comes or goes. What the stub does not reach is left to
    /// ftrace_caller, which finds it by the ops.
    fn stub_steps(
        &mut self,
        (site, stub): (VirtAddr, VirtAddr),
        (old, new): (Option<VirtAddr>, Option<VirtAddr>),
        ops: u64,
    ) -> Result<Vec<Step>, Stop> {
        let (arch, at, caller) = (self.arch, stub.offset(4), self.ftrace_caller_for(site));
        let call = |to: Option<VirtAddr>| match to.and_then(|to| try_branch(arch, at, to, true)) {
            Some(call) => Ok(call),
            None => branch(arch, at, Some(caller), true),
        };
        let mut parts = VecDeque::from([(at, call(old)?, call(new)?)]);
        let to_stub = branch(arch, site, Some(stub), false)?;
        match (old, new) {
            (None, Some(_)) => parts.push_back((site, nop(arch), to_stub)),
            (Some(_), None) => parts.push_back((site, to_stub, nop(arch))),
            _ => {}
        }
        let ops = Args::of(&[stub.0 - 8, new.map_or(0, |_| ops)]);
        let patched = Box::new(move |k: &mut Kernel, cpu, error| {
            if error != 0 {
                k.site_done(cpu, site, new, error);
                return Ok(());
            }
            let done = once(move |k, cpu| {
                let error = k.value.take().unwrap_or(0);
                k.site_done(cpu, site, new, error);
                Ok(())
            });
            k.later([pause(), attach_step(parts), done]);
            Ok(())
        });
        Ok(vec![calls_then(vec![("patch_ulong", ops, Fate::Checked)], patched), pause()])
    }

    /// Remembers what a site calls, or that ftrace is at its end (`ftrace_bug`).
    fn site_done(&mut self, cpu: CpuId, site: VirtAddr, new: Option<VirtAddr>, error: i64) {
        if error == 0 {
            self.users.ftrace.sites.insert(site.0, new);
        } else {
            self.warn(cpu, WarnReason::NotPatched, site);
            self.users.ftrace.disabled = true;
            self.returns(-ENODEV);
        }
    }

    /// Whether text holds these bytes; `None` if it can't be read.
    pub(crate) fn compare_text(
        &mut self,
        cpu: CpuId,
        at: VirtAddr,
        bytes: &[u8],
    ) -> Result<Option<bool>, Stop> {
        let mut found = vec![0; bytes.len()];
        if self.machine.load(cpu, at, &mut found).is_err() {
            return Ok(None);
        }
        Ok(Some(self.machine.compare(cpu, at, bytes)?))
    }

    /// arm64 and powerpc: one site, one word; `then` gets 0 or an error number.
    fn word_steps(
        &mut self,
        site: VirtAddr,
        (before, after): (Vec<u8>, Vec<u8>),
        ops: u64,
        then: Then<i64>,
    ) -> Result<Vec<Step>, Stop> {
        let arm = self.arch == Arch::Arm64;
        let mut literal = Vec::new();
        if arm && self.caps.yes(Fact::FtraceCallOps) && self.config.on("ftrace_call_ops") {
            let at = VirtAddr(site.0.saturating_sub(12) & !7);
            if !self.is_probed_text(at) {
                return Err(Stop::not_modelled(
                    "a site without room for the literal of its ops before it (option \
                     ftrace_call_ops=n leaves that out)",
                ));
            }
            let args = Args::of(&[at.0, ops]);
            literal.push(("aarch64_insn_write_literal_u64", args, Fate::Checked));
        }
        let written = move |k: &mut Kernel, cpu, error| {
            if error != 0 {
                return then(k, cpu, error);
            }
            match k.compare_text(cpu, site, &before)? {
                None => return then(k, cpu, -EFAULT),
                Some(false) => return then(k, cpu, -EINVAL),
                Some(true) => {}
            }
            let name = if arm { "aarch64_insn_patch_text_nosync" } else { "patch_instruction" };
            let word = u64::from(word_of(k.arch, &after));
            k.later(call_then(name, Args::of(&[site.0, word]), move |k, cpu, error| {
                then(k, cpu, if error != 0 && arm { -EPERM } else { error })
            }));
            Ok(())
        };
        Ok(vec![calls_then(literal, Box::new(written)), pause()])
    }
}

/// x86's `create_trampoline`; `then` gets 0 where memory fails, and then ftrace_caller is used.
fn trampoline_step(func: VirtAddr, then: Then<u64>) -> Step {
    once(move |k, _| {
        let kind = EXECMEM_TYPES.iter().find(|(name, _)| *name == "EXECMEM_FTRACE");
        let request = Args::of(&[kind.map_or(0, |(_, bit)| *bit), TRAMPOLINE_BYTES]);
        let how = k.caps.word(Fact::FtraceTrampoline);
        let (name, args) = match how {
            "alloc-rw-rox" => ("execmem_alloc_rw", request),
            _ if k.caps.yes(Fact::Execmem) => ("execmem_alloc", request),
            _ => ("module_alloc", Args::of(&[TRAMPOLINE_BYTES])),
        };
        k.later(call_then(name, args, move |k, cpu, at| {
            let at = at as u64;
            if at == 0 {
                return then(k, cpu, 0);
            }
            k.region(cpu, VirtAddr(at), TRAMPOLINE_BYTES, "ftrace", "trampoline");
            let mut template = vec![0x90; CALL_OFFSET as usize + 5];
            template.extend([0xc3, 0xcc]);
            k.store_plain(cpu, VirtAddr(at), &template)?;
            let write = once(move |k, cpu| {
                let site = VirtAddr(at + CALL_OFFSET);
                let call = branch(k.arch, site, Some(func), true)?;
                k.store_plain(cpu, site, &call)
            });
            let range = Args::of(&[at, k.pages.holding(TRAMPOLINE_BYTES)]);
            let mut calls = Vec::new();
            let names: &[&str] = if how == "alloc-ro-x" {
                calls.push(("set_vm_flush_reset_perms", Args::of(&[at]), Fate::Void));
                &["set_memory_ro", "set_memory_x"]
            } else {
                &["set_memory_rox"]
            };
            calls.extend(names.iter().map(|name| (*name, range.clone(), Fate::Dropped)));
            let protected = Box::new(move |k: &mut Kernel, cpu, _| then(k, cpu, at));
            k.later([pause(), lock_step("text_mutex"), write, unlock_step("text_mutex")]);
            k.later([calls_then(calls, protected)]);
            Ok(())
        }));
        Ok(())
    })
}

const _: () = assert!(CALL_OFFSET + 5 + 2 <= TRAMPOLINE_BYTES);
