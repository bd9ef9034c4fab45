//! Return probes as emulated code meets them: the return address that the handler replaces, and the
//! trampoline that puts it back. Not modelled: powerpc's link register, so that none is hit there.

use textbed_arch::{Arch, VirtAddr};
use textbed_event::MemOrder;
use textbed_kernel::{Kernel, Resume, Rethook};
use textbed_vcpu::Vcpu;

use super::guest::{GuestCall, STACK_POINTER, refused};
use super::world::Stop;

/// Bytes of a return address on x86's stack.
const SLOT: u64 = 8;
/// arm64's link register.
const LINK: u8 = 30;

/// What the kernel's handlers do about a trap.
pub(super) fn trapped(
    cpu: &mut Vcpu,
    kernel: &mut Kernel,
    call: &GuestCall<'_>,
    virt: VirtAddr,
    vector: u16,
) -> Result<Option<Resume>, Stop> {
    if kernel.return_trampoline() == Some(virt) {
        let stack = cpu.stack_pointer().map_err(refused)?;
        if let Some(Rethook::GoOn(back)) = kernel.unhook_return(call.cpu, stack) {
            return Ok(Some(Resume::At(back)));
        }
    }
    let resume = kernel.trap(call.cpu, virt, vector);
    if resume.is_some()
        && let Some(probe) = kernel.return_probe(virt)
    {
        hook(cpu, kernel, call, probe)?;
    }
    Ok(resume)
}

/// The handler of a return probe that is hit: the function returns to the trampoline.
fn hook(
    cpu: &mut Vcpu,
    kernel: &mut Kernel,
    call: &GuestCall<'_>,
    probe: VirtAddr,
) -> Result<(), Stop> {
    let Some(to) = kernel.return_trampoline() else { return Ok(()) };
    let stack = cpu.stack_pointer().map_err(refused)?;
    let died = |fault| Stop::Died(format!("{}: guest fault: {fault}", call.written));
    let back = match kernel.arch() {
        Arch::X86_64 => {
            let mut bytes = [0; SLOT as usize];
            let machine = kernel.machine_mut();
            machine.load(call.cpu, stack, &mut bytes).map_err(died)?;
            let plain = MemOrder::Plain;
            machine.store(call.cpu, stack, &to.0.to_le_bytes(), plain).map_err(died)?;
            u64::from_le_bytes(bytes)
        }
        Arch::Arm64 => {
            let back = cpu.general(LINK).map_err(refused)?;
            cpu.set_general(LINK, to.0).map_err(refused)?;
            back
        }
        arch => return Err(Stop::NotModelled(format!("a return probe that is hit on {arch}"))),
    };
    kernel.hook_return(call.cpu, probe, stack, VirtAddr(back));
    Ok(())
}

/// Return probes where no trap leads to them: the detour of an optimised one, and the trampoline.
pub(super) fn come_to(
    cpu: &mut Vcpu,
    kernel: &mut Kernel,
    call: &GuestCall<'_>,
    at: VirtAddr,
) -> Result<(), Stop> {
    // At the function itself there is a breakpoint, or a jump.
    if let Some(probe) = kernel.return_probe(at).filter(|probe| *probe != at) {
        return hook(cpu, kernel, call, probe);
    }
    if kernel.return_trampoline() != Some(at) || kernel.unhooks_by_trap() {
        return Ok(());
    }
    let sp = cpu.stack_pointer().map_err(refused)?;
    let x86 = kernel.arch() == Arch::X86_64;
    let entry = if x86 { VirtAddr(sp.0.wrapping_sub(SLOT)) } else { sp };
    let Some(Rethook::PutBack { back, then }) = kernel.unhook_return(call.cpu, entry) else {
        return Ok(());
    };
    if x86 {
        let plain = MemOrder::Plain;
        let stored = kernel.machine_mut().store(call.cpu, entry, &back.0.to_le_bytes(), plain);
        stored.map_err(|fault| Stop::Died(format!("{}: guest fault: {fault}", call.written)))?;
        cpu.set_general(STACK_POINTER, entry.0).map_err(refused)?;
    } else {
        cpu.set_general(LINK, back.0).map_err(refused)?;
    }
    cpu.set_pc(then).map_err(refused)
}
