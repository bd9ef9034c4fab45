//! BPF's dispatcher: code that compares the program to be run with those that it knows and jumps
//! there directly (XDP).
//!
//! Modelled: the page in a pack of which one half is in use and the other is written, the copy, the
//! static call that leads from one half to the other, the grace period between two changes,
//! programs counted by their users; that the page is asked for with zeros instead of traps as the
//! fill of a new pack. From: Linux 6.12 kernel/bpf/dispatcher.c, include/linux/bpf.h
//! (__BPF_DISPATCHER_UPDATE), arch/x86/net/bpf_jit_comp.c emit_bpf_dispatcher(). Not modelled: the
//! tree of comparisons (they follow each other here), return thunks for the indirect jump, the
//! writable page's own contents (zeros here). Elsewhere than on x86 there is no such code, and the
//! call goes on as it did.

use std::collections::BTreeMap;

use textbed_arch::{Arch, CpuId, FRAME_BYTES, VirtAddr};

use crate::call::Args;
use crate::errno::is_err_pointer;
use crate::error::Stop;
use crate::insns::ftrace_caller;
use crate::kernel::Kernel;
use crate::steps::{Step, Then, call_step, call_then, lock_step, once, pause, step, unlock_step};

/// Its lock, of which there is one for all here.
const MUTEX: &str = "bpf_dispatcher.mutex";
/// Most programs of a dispatcher (`BPF_DISPATCHER_MAX`).
const MAX_PROGS: usize = 48;
/// Bytes of one half of its page.
const HALF_BYTES: u64 = FRAME_BYTES / 2;

/// One dispatcher.
#[derive(Clone, Default, Debug)]
pub(crate) struct Dispatcher {
    image: u64,
    rw_image: u64,
    /// Offset of the half in use.
    offset: u64,
    /// Programs in their slots, with their users.
    progs: BTreeMap<u64, u32>,
}

/// `bpf_dispatcher_change_prog(d, from, to)`, the dispatcher by a number that is its static call's
/// key too, programs by their entries; 0 as a program is none.
pub(crate) fn change_prog(k: &mut Kernel, _cpu: CpuId, args: &Args) -> Result<i64, Stop> {
    let (key, from, to) = (args.get(0), args.get(1), args.get(2));
    if from == to {
        return Ok(0);
    }
    let change = once(move |k, _| {
        let it = k.users.dispatchers.get(&key).cloned().unwrap_or_default();
        let paged = Box::new(move |k: &mut Kernel, cpu, it: Dispatcher| {
            k.dispatcher_change(cpu, key, it, (from, to))
        });
        match it.image {
            0 => k.later([page_step(it, paged)]),
            _ => k.later([once(move |k, cpu| paged(k, cpu, it))]),
        }
        Ok(())
    });
    k.with_steps(vec![lock_step(MUTEX), change, unlock_step(MUTEX)])
}

/// The page in a pack and its writable twin; where either is not to be had, nothing follows.
fn page_step(mut it: Dispatcher, then: Then<Dispatcher>) -> Step {
    // bpf_jit_fill_hole_with_zero fills a pack that has to be made.
    let ask = step(|k, cpu| {
        k.packs.fill_with_zeros(true);
        let asked = k.step_call(cpu, "bpf_prog_pack_alloc", &Args::of(&[FRAME_BYTES]));
        k.packs.fill_with_zeros(false);
        asked
    });
    let given = once(move |k, cpu| {
        let image = k.nested_result(cpu).unwrap_or(0) as u64;
        if image == 0 {
            return Ok(());
        }
        let (name, args) = k.bpf_jit_alloc_exec(FRAME_BYTES);
        k.later(call_then(name, args, move |k, cpu, rw_image| {
            if rw_image == 0 {
                let room = Args::of(&[image, FRAME_BYTES]);
                k.later([call_step("bpf_prog_pack_free", room)]);
                return Ok(());
            }
            k.region(cpu, VirtAddr(image), FRAME_BYTES, "bpf", "dispatcher");
            (it.image, it.rw_image) = (image, rw_image as u64);
            then(k, cpu, it)
        }));
        Ok(())
    });
    once(move |k, _| {
        k.later([ask, given]);
        Ok(())
    })
}

impl Dispatcher {
    /// `bpf_dispatcher_remove_prog`: whether it is gone.
    fn remove(&mut self, prog: u64) -> bool {
        match self.progs.get_mut(&prog) {
            Some(users) if *users > 1 => {
                *users -= 1;
                false
            }
            Some(_) => self.progs.remove(&prog).is_some(),
            None => false,
        }
    }

    /// `bpf_dispatcher_add_prog`: whether it is new.
    fn add(&mut self, prog: u64) -> bool {
        if prog == 0 {
            return false;
        }
        if let Some(users) = self.progs.get_mut(&prog) {
            *users += 1;
            return false;
        }
        self.progs.len() < MAX_PROGS && self.progs.insert(prog, 1).is_none()
    }

    /// `arch_prepare_bpf_dispatcher`: one half, to lie at an address; `None` where a program is out
    /// of reach of a comparison or a jump.
    fn code(&self, at: u64) -> Option<Vec<u8>> {
        let mut code = Vec::new();
        for prog in self.progs.keys() {
            // cmp $func, %rdx; je func
            let func = i32::try_from(*prog as i64).ok()?;
            code.extend([0x48, 0x81, 0xfa]);
            code.extend(func.to_le_bytes());
            let next = at.wrapping_add(code.len() as u64 + 6);
            let offset = i32::try_from(prog.wrapping_sub(next) as i64).ok()?;
            code.extend([0x0f, 0x84]);
            code.extend(offset.to_le_bytes());
        }
        // jmp *%rdx
        code.extend([0xff, 0xe2]);
        code.resize(HALF_BYTES as usize, 0);
        Some(code)
    }
}

impl Kernel {
    /// Programs come and go, and the code with them.
    fn dispatcher_change(
        &mut self,
        cpu: CpuId,
        key: u64,
        mut it: Dispatcher,
        (from, to): (u64, u64),
    ) -> Result<(), Stop> {
        let before = it.progs.len();
        let changed = it.remove(from) | it.add(to);
        self.users.dispatchers.insert(key, it.clone());
        if changed { self.dispatcher_update(cpu, key, it, before > 0) } else { Ok(()) }
    }

    /// `bpf_dispatcher_update`: the other half is written, then led to, then waited for.
    fn dispatcher_update(
        &mut self,
        cpu: CpuId,
        key: u64,
        mut it: Dispatcher,
        had_progs: bool,
    ) -> Result<(), Stop> {
        let offset = if had_progs { it.offset ^ HALF_BYTES } else { 0 };
        if it.progs.is_empty() {
            return self.lead_to(key, 0);
        }
        let at = it.image + offset;
        let code = it.code(at).filter(|_| self.arch == Arch::X86_64);
        let Some(code) = code else { return Ok(()) };
        self.store_plain(cpu, VirtAddr(it.rw_image + offset), &code)?;
        self.later([pause()]);
        let copy = Args::with_code(&[at], &code);
        self.later(call_then("bpf_arch_text_copy", copy, move |k, _, done| {
            if is_err_pointer(done) {
                return Ok(());
            }
            it.offset = offset;
            k.users.dispatchers.insert(key, it);
            k.lead_to(key, at)
        }));
        Ok(())
    }

    /// The static call leads to code, 0 = to `bpf_dispatcher_nop_func`; nobody is in the other half
    /// any more after that.
    fn lead_to(&mut self, key: u64, code: u64) -> Result<(), Stop> {
        // bpf_dispatcher_nop_func, which stands where ftrace_caller does.
        let nop = self.layout.text.start.0;
        self.machine.preload(self.image.pfn.addr(), &ftrace_caller(self.arch))?;
        let args = Args::of(&[key, if code == 0 { nop } else { code }]);
        self.later([
            call_step("static_call_update", args),
            call_step("synchronize_rcu", Args::default()),
        ]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_compares_and_jumps() {
        let (at, first, second) =
            (0xffff_ffff_c000_0800, 0xffff_ffff_c000_1000, 0xffff_ffff_c000_2000);
        let mut it = Dispatcher::default();
        assert!(it.add(second) && it.add(first) && !it.add(first) && !it.add(0));
        let code = it.code(at).unwrap();
        // as(1): cmp $0xffffffffc0001000,%rdx; je; the same for the second; jmp *%rdx
        let jump = |n: usize, to: u64| (to - (at + n as u64)) as u32;
        let mut want = vec![0x48, 0x81, 0xfa, 0x00, 0x10, 0x00, 0xc0, 0x0f, 0x84];
        want.extend(jump(13, first).to_le_bytes());
        want.extend([0x48, 0x81, 0xfa, 0x00, 0x20, 0x00, 0xc0, 0x0f, 0x84]);
        want.extend(jump(26, second).to_le_bytes());
        want.extend([0xff, 0xe2]);
        assert_eq!(code[..28], want);
        assert_eq!(code.len() as u64, HALF_BYTES);
        assert!(!it.remove(first) && it.remove(first) && !it.remove(first));
        it.add(0x1_0000_0000);
        assert_eq!(it.code(at), None, "no comparison reaches that");
    }
}
