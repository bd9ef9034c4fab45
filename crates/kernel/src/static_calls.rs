//! Static calls: direct calls that are patched when their function changes.
//!
//! Modelled: x86's inline sites and trampolines, each replaced by the INT3 protocol after a check
//! of what lies there; elsewhere (64 bits) the call goes through a pointer, and no text changes.
//! From: Linux 6.1 and 6.12 kernel/static_call_inline.c, arch/x86/kernel/static_call.c. Not
//! modelled: sites in init text, tail calls by conditional jumps, __static_call_return0,
//! call thunks, ppc32's trampolines, arm64's literals with CFI (7.0).

use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, VirtAddr};

use crate::call::Args;
use crate::caps::Fact;
use crate::error::Stop;
use crate::insns::{X86_NOP5, branch};
use crate::kernel::Kernel;
use crate::steps::{Step, lock_step, step, unlock_step};

/// One key.
#[derive(Clone, Default, Debug)]
struct Key {
    func: u64,
    tramp: Option<VirtAddr>,
    sites: Vec<VirtAddr>,
}

/// Every key, by a number.
#[derive(Clone, Default, Debug)]
pub(crate) struct StaticCalls {
    keys: BTreeMap<u64, Key>,
}

impl StaticCalls {
    /// Whether a site is such.
    pub(crate) fn any_site(&self, such: impl Fn(VirtAddr) -> bool) -> bool {
        self.keys.values().flat_map(|key| &key.sites).any(|site| such(*site))
    }

    /// Forgets sites in text that goes away.
    pub(crate) fn forget(&mut self, gone: impl Fn(VirtAddr) -> bool) {
        for key in self.keys.values_mut() {
            key.sites.retain(|site| !gone(*site));
            key.tramp = key.tramp.filter(|tramp| !gone(*tramp));
        }
    }
}

/// `static_call_site(key, site)`: stands for a row of the table of sites.
pub(crate) fn static_call_site(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.listed_site(cpu, args.addr(1), true);
    k.users.static_calls.keys.entry(args.get(0)).or_default().sites.push(args.addr(1));
    Ok(0)
}

/// `static_call_tramp(key, tramp)`: stands for `DEFINE_STATIC_CALL`'s trampoline.
pub(crate) fn static_call_tramp(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    k.listed_site(cpu, args.addr(1), true);
    k.users.static_calls.keys.entry(args.get(0)).or_default().tramp = Some(args.addr(1));
    Ok(0)
}

/// `static_call_update(key, func)`; 0 as a function is none.
pub(crate) fn static_call_update(k: &mut Kernel, cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let func = args.get(1);
    k.lock(cpu, "static_call_mutex")?;
    let key = k.users.static_calls.keys.entry(args.get(0)).or_default();
    let mut steps = Vec::new();
    if key.func != func {
        key.func = func;
        let (tramp, sites) = (key.tramp, key.sites.clone());
        if k.caps.word(Fact::StaticCall) == "inline" {
            let func = Some(VirtAddr(func)).filter(|f| f.0 != 0);
            for (at, is_tramp) in
                tramp.map(|t| (t, true)).into_iter().chain(sites.into_iter().map(|s| (s, false)))
            {
                steps.extend(transform_steps(at, func, is_tramp));
            }
        }
    }
    if steps.is_empty() {
        k.unlock(cpu, "static_call_mutex")?;
        return Ok(0);
    }
    steps.push(unlock_step("static_call_mutex"));
    k.with_steps(steps)
}

/// `arch_static_call_transform` of one place.
fn transform_steps(at: VirtAddr, func: Option<VirtAddr>, tramp: bool) -> Vec<Step> {
    vec![
        lock_step("text_mutex"),
        step(move |k, cpu| {
            let Some(new) = k.static_call_insn(cpu, at, func, tramp)? else { return Ok(()) };
            let name = k.smp_name("text_poke_bp", "smp_text_poke_single");
            let args = Args::with_code(&[at.0], &new);
            k.later([step(move |k, cpu| k.step_call(cpu, name, &args))]);
            Ok(())
        }),
        unlock_step("text_mutex"),
    ]
}

impl Kernel {
    /// What is to lie at a site; `None` if it does already. What lies there and is none of a static
    /// call's is a BUG.
    fn static_call_insn(
        &mut self,
        cpu: CpuId,
        at: VirtAddr,
        func: Option<VirtAddr>,
        tramp: bool,
    ) -> Result<Option<Vec<u8>>, Stop> {
        self.listed_site(cpu, at, false);
        let mut found = [0; 5];
        self.machine.load(cpu, at, &mut found)?;
        let known = match found.first() {
            Some(0xe9 | 0xc3) => tramp,
            Some(0xe8) => !tramp,
            _ => !tramp && found == X86_NOP5,
        };
        if !known {
            return Err(Stop::died("BUG in __static_call_validate", at));
        }
        let new = match func {
            None if tramp => vec![0xc3, 0xcc, 0xcc, 0xcc, 0xcc],
            func => branch(Arch::X86_64, at, func, !tramp)?,
        };
        Ok((!self.machine.compare(cpu, at, &new)?).then_some(new))
    }
}
