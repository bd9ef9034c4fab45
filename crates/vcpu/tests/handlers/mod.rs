//! Handlers of the guest that count, and what is left of the interrupts that they served.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::{Event, Kind};

use crate::bed::{Bed, CPU0, CPU1, DATA};

/// Register that the handlers count through.
fn counter_register(arch: Arch) -> u8 {
    match arch {
        Arch::X86_64 => 15,
        Arch::Arm64 => 27,
        _ => 30,
    }
}

/// x86-64: the interrupt that is used here; powerpc: an external one.
pub(crate) fn interrupt_number(arch: Arch) -> u16 {
    if arch == Arch::X86_64 { 0x40 } else { 0x500 }
}

/// Puts handlers where the architecture looks for them: `trap` for exceptions of an instruction,
/// `irq` for interrupts; both count at the start of the data area.
pub(crate) fn vectors(bed: &mut Bed, trap: &str, irq: &str) -> u64 {
    let arch = bed.arch();
    let base = if arch == Arch::X86_64 {
        let (trap, irq) = (bed.install(trap), bed.install(irq));
        let idt = bed.at(DATA, 0x1000);
        let selector = u128::from(bed.cpus[0].code_selector().unwrap());
        for (vector, handler) in [(3, irq), (6, trap), (14, trap), (0x40, irq)] {
            let at = u128::from(handler);
            let gate = at & 0xffff
                | selector << 16
                | 0x8e << 40
                | (at >> 16 & 0xffff) << 48
                | (at >> 32) << 64;
            bed.store(idt + 16 * vector, &gate.to_le_bytes());
        }
        idt
    } else {
        let mut blob = vec![0; 0x1000];
        let places: &[(usize, &str)] = match arch {
            Arch::Arm64 => &[(0x200, trap), (0x280, irq)],
            _ => &[(0x300, trap), (0x500, irq), (0x700, trap), (0xe40, trap)],
        };
        for (at, name) in places {
            let bytes = bed.routine(name).bytes;
            blob[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        bed.install_bytes(&blob)
    };
    for cpu in [CPU0, CPU1] {
        bed.cpus[cpu.index()].set_vectors(Some(VirtAddr(base)));
    }
    base
}

/// What they counted.
pub(crate) fn count(bed: &mut Bed) -> u32 {
    let at = bed.at(DATA, 0);
    bed.word(at)
}

/// From here on they count from 0.
pub(crate) fn prepare(bed: &mut Bed) {
    let (register, counter) = (counter_register(bed.arch()), bed.at(DATA, 0));
    bed.set_word(counter, 0);
    for cpu in [CPU0, CPU1] {
        bed.cpus[cpu.index()].set_general(register, counter).unwrap();
    }
}

/// Kinds of the events that cross-calls leave on a CPU.
pub(crate) fn calls(events: &[Event], cpu: CpuId) -> Vec<Kind> {
    let kinds = [Kind::IpiTaken, Kind::IpiDone];
    let own = events.iter().filter(|e| e.cpu == cpu && kinds.contains(&e.kind));
    own.map(|e| e.kind).collect()
}
