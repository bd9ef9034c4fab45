//! BPF trampolines: what a function's site calls when programs are attached to it.
//!
//! Modelled: programs that run before a function, behind it, or instead of it (fentry, fexit,
//! fmod_ret), a new image for each change of the set ([`crate::trampoline_image`]), the change of
//! the site (ftrace's direct call, or `bpf_arch_text_poke`), the jump that is put into an old image
//! that calls the function, over the programs that may be gone when it returns, and the grace
//! periods after which an old image is freed by a work item. From: Linux 6.1, 6.6 and 6.12
//! kernel/bpf/trampoline.c. Not modelled: extension programs, and the count of those who are in an
//! image or in the function that it called: `__bpf_tramp_image_put_deferred` is to be called when
//! they have left.

use std::collections::BTreeMap;

use textbed_arch::{CpuId, VirtAddr};
use textbed_event::WarnReason;

use crate::call::Args;
use crate::caps::Fact;
use crate::errno::{E2BIG, EBUSY, EINVAL, ENOTSUPP};
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::steps::{Step, call_step, call_then, lock_step, once, pause, unlock_step};
use crate::trampoline_image::{Image, Progs, When};

/// The lock of a trampoline, of which there is one for all here.
const MUTEX: &str = "bpf_trampoline.mutex";
/// Most programs at one function (`BPF_MAX_TRAMP_LINKS`).
const MAX_LINKS: usize = 38;
/// Ops of the direct calls of trampolines: far from those that scenarios name.
const OPS: u64 = 1 << 48;

/// A function with programs attached.
#[derive(Clone, Default, Debug)]
struct Trampoline {
    progs: Vec<u64>,
    /// The image in use.
    image: Image,
    /// The site is one of ftrace's.
    ftrace: bool,
}

/// Every trampoline, by its site.
#[derive(Clone, Default, Debug)]
pub(crate) struct Trampolines {
    by_site: BTreeMap<u64, Trampoline>,
    /// When a program runs; fentry if nothing was said.
    when: BTreeMap<u64, When>,
    /// Images that wait for grace periods.
    put: Vec<Image>,
}

impl Trampolines {
    /// Whether an address is the jump in an image that waits, behind the function that it called.
    pub(crate) fn is_after_call(&self, at: VirtAddr) -> bool {
        self.put.iter().any(|image| image.after_call.is_some_and(|(jump, _)| jump == at.0))
    }
}

/// Attach types of programs, as calls name them.
pub(crate) const ATTACH_TYPES: &[(&str, u64)] =
    &[("BPF_TRACE_FENTRY", 1), ("BPF_TRACE_FEXIT", 2), ("BPF_MODIFY_RETURN", 4)];

/// `prog_attach_type(prog, type)`: stands for what a program says when it is loaded.
pub(crate) fn prog_attach_type(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let when = match args.get(1) {
        1 => When::Fentry,
        2 => When::Fexit,
        4 => When::ModifyReturn,
        _ => return Err(Stop::not_modelled("a program of several attach types, or of none")),
    };
    k.users.trampolines.when.insert(args.get(0), when);
    Ok(0)
}

/// `bpf_trampoline_link_prog(link, tr)`, given by the site and the program's entry.
pub(crate) fn link_prog(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (site, prog) = (args.get(0), args.get(1));
    let link = once(move |k, cpu| {
        let progs = k.users.trampolines.by_site.entry(site).or_default().progs.clone();
        if progs.contains(&prog) {
            k.returns(-EBUSY);
        } else if progs.len() >= MAX_LINKS {
            k.returns(-E2BIG);
        } else {
            k.update_trampoline(cpu, site, [&progs[..], &[prog]].concat(), None)?;
        }
        Ok(())
    });
    k.with_steps(vec![lock_step(MUTEX), link, unlock_step(MUTEX)])
}

/// `bpf_trampoline_unlink_prog(link, tr)`.
pub(crate) fn unlink_prog(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (site, prog) = (args.get(0), args.get(1));
    let unlink = once(move |k, cpu| {
        let known = k.users.trampolines.by_site.get(&site).map(|t| t.progs.clone());
        let Some(progs) = known.filter(|p| p.contains(&prog)) else {
            k.returns(-EINVAL);
            return Ok(());
        };
        // The program is off the list whatever comes of the site.
        let left: Vec<u64> = progs.into_iter().filter(|p| *p != prog).collect();
        k.update_trampoline(cpu, site, left.clone(), Some(left))
    });
    k.with_steps(vec![lock_step(MUTEX), unlink, unlock_step(MUTEX)])
}

/// `__bpf_tramp_image_put_deferred()`: what runs after the grace periods that `bpf_tramp_image_put`
/// asked for: the images go.
pub(crate) fn put_deferred(k: &mut Kernel, _cpu: CpuId, _args: &Args) -> Result<i64, Stop> {
    let images = std::mem::take(&mut k.users.trampolines.put);
    if images.is_empty() {
        return Ok(0);
    }
    let grace = |name| call_step(name, Args::default());
    let mut steps = Vec::new();
    // Those that call the function wait for who is on the way in, then for who is in it.
    if images.iter().any(|image| image.after_call.is_some()) {
        steps.push(grace("synchronize_rcu_tasks"));
    }
    if images.iter().any(|image| image.after_call.is_none()) {
        steps.push(grace("synchronize_rcu_tasks_trace"));
    }
    steps.push(grace("synchronize_rcu_tasks"));
    for image in images {
        steps.push(pause());
        steps.extend(k.free_image_steps(image));
    }
    k.with_steps(steps)
}

impl Kernel {
    /// `bpf_trampoline_update`: the image for a new set of programs, and then the site; if that
    /// fails, `anyway` are those on the list, or the old ones.
    fn update_trampoline(
        &mut self,
        cpu: CpuId,
        site: u64,
        progs: Vec<u64>,
        anyway: Option<Vec<u64>>,
    ) -> Result<(), Stop> {
        let at = VirtAddr(site);
        let old = self.users.trampolines.by_site.get(&site).map(|t| t.image).unwrap_or_default();
        let ftrace = self.users.ftrace.is_site(at);
        let by_when = self.by_when(&progs);
        let mut next = Trampoline { progs, ftrace, image: Image::default() };
        if next.progs.is_empty() {
            return self.change_site(site, old, next, anyway);
        }
        let built = move |k: &mut Kernel, _, built| match built {
            Ok(image) => {
                next.image = image;
                k.later([pause()]);
                k.change_site(site, old, next, anyway)
            }
            Err(error) => {
                k.not_attached(site, anyway, error);
                Ok(())
            }
        };
        self.build_image(cpu, (at, by_when), Box::new(built))
    }

    /// The site changes from one image to another. Behind the last program the image goes even
    /// where the site still calls it.
    fn change_site(
        &mut self,
        site: u64,
        old: Image,
        next: Trampoline,
        anyway: Option<Vec<u64>>,
    ) -> Result<(), Stop> {
        let new = next.image;
        // Without direct calls there are no ops to register (tr->fops).
        let lacking = next.ftrace && !self.has_direct_calls(VirtAddr(site));
        if !lacking {
            let steps = self.attach_steps(site, old.at, new.at, next.ftrace)?;
            self.later(steps);
        }
        self.later([once(move |k, cpu| {
            let result = k.nested_result(cpu).unwrap_or(0);
            let error = if lacking { -ENOTSUPP } else { result.min(0) };
            if error < 0 && new.at != 0 {
                k.not_attached(site, anyway, error);
                if k.caps.yes(Fact::ImageFreedOnError) {
                    let free = k.free_image_steps(new);
                    k.later(free);
                }
                return Ok(());
            }
            if old.at != 0 {
                k.put_image(old);
            }
            k.users.trampolines.by_site.insert(site, next);
            k.returns(error);
            Ok(())
        })]);
        Ok(())
    }

    /// The site stays as it was, with those programs on the list that are there anyway.
    fn not_attached(&mut self, site: u64, anyway: Option<Vec<u64>>, error: i64) {
        if let (Some(progs), Some(there)) = (anyway, self.users.trampolines.by_site.get_mut(&site))
        {
            there.progs = progs;
        }
        self.returns(error);
    }

    /// Programs by when they run.
    fn by_when(&self, progs: &[u64]) -> Progs {
        let of = |which: When| {
            let when = |prog: &u64| self.users.trampolines.when.get(prog).copied();
            progs.iter().copied().filter(|p| when(p).unwrap_or_default() == which).collect()
        };
        Progs {
            fentry: of(When::Fentry),
            modify_return: of(When::ModifyReturn),
            fexit: of(When::Fexit),
        }
    }

    /// `bpf_tramp_image_put`: whoever comes back from the function jumps over the programs.
    fn put_image(&mut self, image: Image) {
        self.users.trampolines.put.push(image);
        if let Some((after_call, epilogue)) = image.after_call {
            let jump = Args::of(&[after_call, 0, 0, epilogue]);
            self.later(call_then("bpf_arch_text_poke", jump, move |k, cpu, error| {
                if error != 0 {
                    k.warn(cpu, WarnReason::NotPatched, VirtAddr(after_call));
                }
                Ok(())
            }));
        }
    }

    /// What changes the site from one image to another (0 = none).
    fn attach_steps(
        &mut self,
        site: u64,
        old: u64,
        new: u64,
        ftrace: bool,
    ) -> Result<Vec<Step>, Stop> {
        let call = |name: &'static str, args: Args| vec![call_step(name, args)];
        if !ftrace {
            return Ok(call("bpf_arch_text_poke", Args::of(&[site, 1, old, new])));
        }
        let ops = OPS | (site >> 2 & 0xffff_ffff);
        match (old, new) {
            (0, _) => Ok(call("register_ftrace_direct", Args::of(&[ops, site, new]))),
            (_, 0) => Ok(call("unregister_ftrace_direct", Args::of(&[ops]))),
            _ => Ok(call("modify_ftrace_direct", Args::of(&[ops, new]))),
        }
    }
}
