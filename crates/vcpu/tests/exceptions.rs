//! Exceptions and interrupts taken to handlers of the guest, and returned from by its own
//! `iretq`, `eret` and `rfid`.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{ARCHES, Bed, CODE, CPU0, CPU1, DATA, HOLE, newest};
use textbed_arch::{Arch, VirtAddr};
use textbed_event::{Kind, View};
use textbed_machine::{Cpu, Step};

/// Register that the handlers count through.
fn counter_register(arch: Arch) -> u8 {
    match arch {
        Arch::X86_64 => 15,
        Arch::Arm64 => 27,
        _ => 30,
    }
}

/// x86-64: the interrupt that is used here; powerpc: an external one.
fn interrupt_number(arch: Arch) -> u16 {
    if arch == Arch::X86_64 { 0x40 } else { 0x500 }
}

/// Puts handlers where the architecture looks for them: `trap` for exceptions of an instruction,
/// `irq` for interrupts; both count at the start of the data area.
fn vectors(bed: &mut Bed, trap: &str, irq: &str) -> u64 {
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

fn count(bed: &mut Bed) -> u32 {
    let at = bed.at(DATA, 0);
    bed.word(at)
}

fn prepare(bed: &mut Bed) {
    let (register, counter) = (counter_register(bed.arch()), bed.at(DATA, 0));
    bed.set_word(counter, 0);
    for cpu in [CPU0, CPU1] {
        bed.cpus[cpu.index()].set_general(register, counter).unwrap();
    }
}

#[test]
fn a_trap_goes_to_its_handler_and_the_code_goes_on_behind_it() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        vectors(&mut bed, "handler_skip", "handler_count");
        let f = bed.install("trap_undefined");
        prepare(&mut bed);
        bed.start(CPU0, f, &[]);
        bed.forget_events();
        let mut end = bed.step(CPU0);
        while end == Step::Ran {
            end = bed.step(CPU0);
        }
        assert_eq!(end, Step::Returned(7), "{arch}");
        assert_eq!(count(&mut bed), 1, "{arch}");
        let events = bed.events();
        let kinds: Vec<Kind> = events.events.iter().map(|e| e.kind).collect();
        assert!(kinds.contains(&Kind::Trap), "{arch}");
        assert!(kinds.contains(&Kind::ContextSync), "{arch}: the return synchronises");
    }
}

#[test]
fn an_interrupt_between_any_two_instructions_changes_nothing_but_the_count() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        vectors(&mut bed, "handler_skip", "handler_count");
        let f = bed.install("sum_loop");
        prepare(&mut bed);
        let words = bed.at(DATA, 0x100);
        for i in 0..5 {
            bed.set_word(words + 4 * i, 1);
        }
        bed.cpus[0].enable_interrupts(true).unwrap();
        bed.start(CPU0, f, &[words, 5]);
        let mut sent = 0u32;
        let result = loop {
            if bed.cpus[0].pending_interrupts() == 0 && sent < 20 {
                bed.cpus[0].interrupt(interrupt_number(arch));
                sent += 1;
            }
            match bed.step(CPU0) {
                Step::Ran => {}
                Step::Returned(value) => break value,
                other => panic!("{arch}: {other:?}"),
            }
        };
        assert_eq!(result, 5, "{arch}");
        assert!(sent > 10, "{arch}: {sent}");
        let taken = sent - bed.cpus[0].pending_interrupts() as u32;
        assert_eq!(count(&mut bed), taken, "{arch}");
    }
}

#[test]
fn a_masked_interrupt_waits_and_handlers_are_not_interrupted() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        vectors(&mut bed, "handler_skip", "handler_count");
        let f = bed.install("fib");
        prepare(&mut bed);
        bed.cpus[0].enable_interrupts(false).unwrap();
        bed.cpus[0].interrupt(interrupt_number(arch));
        bed.start(CPU0, f, &[3]);
        for _ in 0..5 {
            assert_eq!(bed.step(CPU0), Step::Ran);
        }
        assert_eq!((bed.cpus[0].pending_interrupts(), count(&mut bed)), (1, 0), "{arch}");
        // Two at once: the second is taken when the first one's handler has returned.
        bed.cpus[0].interrupt(interrupt_number(arch));
        bed.cpus[0].enable_interrupts(true).unwrap();
        assert_eq!(bed.step(CPU0), Step::Ran);
        assert_eq!(bed.cpus[0].pending_interrupts(), 1, "{arch}");
        assert!(!bed.cpus[0].interrupts_enabled().unwrap(), "{arch}: masked in the handler");
        assert_eq!(bed.step(CPU0), Step::Ran);
        assert_eq!(bed.cpus[0].pending_interrupts(), 1, "{arch}");
        let mut end = Step::Ran;
        while end == Step::Ran {
            end = bed.step(CPU0);
        }
        assert_eq!((end, count(&mut bed)), (Step::Returned(2), 2), "{arch}");
    }
}

#[test]
fn a_fault_goes_to_its_handler() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        vectors(&mut bed, "handler_count", "handler_count");
        let f = bed.install("store_word");
        prepare(&mut bed);
        let hole = bed.at(HOLE, 0x18);
        bed.start(CPU0, f, &[hole, 1]);
        bed.forget_events();
        let mut pcs = Vec::new();
        // The fault, and the handler's first instruction.
        for _ in 0..2 {
            assert_eq!(bed.step(CPU0), Step::Ran, "{arch}");
            pcs.push(bed.cpus[0].pc().unwrap().0);
        }
        let code = bed.at(CODE, 0);
        assert!(pcs.iter().any(|pc| pc - code < 0x1000 && *pc != f), "{arch}: {pcs:x?}");
        let faults: Vec<View> = bed.events().events.iter().map(|e| e.view()).collect();
        let there = faults.iter().any(|v| matches!(v, View::Fault { virt, .. } if virt.0 == hole));
        assert!(there, "{arch}");
    }
}

#[test]
fn without_handlers_an_exception_ends_the_step_and_a_bad_table_is_said() {
    let mut bed = newest(Arch::X86_64);
    let f = bed.install("trap_undefined");
    bed.start(CPU0, f, &[]);
    assert!(matches!(bed.step(CPU0), Step::Trapped { vector: 6, .. }));
    let hole = bed.at(HOLE, 0);
    bed.cpus[0].set_vectors(Some(VirtAddr(hole)));
    bed.start(CPU0, f, &[]);
    let error = bed.cpus[0].step(&mut bed.m).unwrap_err().to_string();
    assert!(error.contains("vector 6: the IDT is not mapped"), "{error}");
    // A gate that is not present.
    let table = bed.at(DATA, 0x1000);
    bed.cpus[0].set_vectors(Some(VirtAddr(table)));
    bed.start(CPU0, f, &[]);
    let error = bed.cpus[0].step(&mut bed.m).unwrap_err().to_string();
    assert!(error.contains("vector 6: an IDT gate of type 0x0"), "{error}");
}
