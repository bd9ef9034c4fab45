//! Exceptions and interrupts taken to handlers of the guest, and returned from by its own
//! `iretq`, `eret` and `rfid`.

#![allow(clippy::unwrap_used)]

mod bed;
mod handlers;

use bed::{ARCHES, Bed, CODE, CPU0, CPU1, DATA, HOLE, newest};
use handlers::{calls, count, interrupt_number, prepare, vectors};
use textbed_arch::effect::Wake;
use textbed_arch::{Arch, VirtAddr};
use textbed_event::{CpuState, Kind, View};
use textbed_machine::{Cpu, CpuMask, MachineError, Step};

#[test]
fn a_trap_goes_to_its_handler_and_the_code_goes_on_behind_it() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        vectors(&mut bed, "handler_skip", "handler_count");
        let f = bed.install("trap_undefined");
        prepare(&mut bed);
        bed.start(CPU0, f, &[]);
        bed.forget_events();
        let (end, _) = bed.step_on(CPU0);
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
        let (end, _) = bed.step_on(CPU0);
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

#[test]
fn a_cross_call_waits_until_the_guest_lets_it_in() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        vectors(&mut bed, "handler_skip", "handler_count");
        // It uses no register of the handler's.
        let f = bed.install("sum_loop");
        prepare(&mut bed);
        let words = bed.at(DATA, 0x100);
        (0..5).for_each(|i| bed.set_word(words + 4 * i, 1));
        let receiver = &mut bed.cpus[1];
        receiver.set_ipi_vector(Some(interrupt_number(arch)));
        receiver.enable_interrupts(false).unwrap();
        bed.start(CPU1, f, &[words, 5]);
        bed.forget_events();
        let ipi = bed.m.send_ipi(CPU0, CpuMask::one(CPU1), "function").unwrap().unwrap();
        for _ in 0..8 {
            assert_eq!(bed.step(CPU1), Step::Ran);
        }
        assert_eq!((bed.m.pending_ipis(CPU1), bed.m.ipi_is_served(ipi)), (1, false), "{arch}");
        assert!(!bed.m.join_ipi(ipi), "{arch}: the sender still waits");
        assert_eq!(calls(&bed.events().events, CPU1), [], "{arch}");
        bed.cpus[1].set_budget(Some(200));
        bed.cpus[1].enable_interrupts(true).unwrap();
        assert_eq!(bed.step(CPU1), Step::Ran);
        assert_eq!((bed.m.pending_ipis(CPU1), bed.m.ipi_is_served(ipi)), (0, false), "{arch}");
        assert!(!bed.m.irqs_on(CPU1), "{arch}: the handler is not interrupted");
        // The handler returns by its own instruction, and with that the call is done.
        let mut steps = 0;
        while !bed.m.ipi_is_served(ipi) {
            assert_eq!(bed.step(CPU1), Step::Ran);
            steps += 1;
        }
        assert!((2..=4).contains(&steps), "{arch}: {steps}");
        assert!(bed.m.irqs_on(CPU1), "{arch}");
        assert!(bed.m.join_ipi(ipi), "{arch}");
        let events = bed.events().events;
        assert_eq!(calls(&events, CPU1), [Kind::IpiTaken, Kind::IpiDone], "{arch}");
        assert_eq!(calls(&events, CPU0), [Kind::IpiDone], "{arch}");
        // Between the two, what the handler did; after them, the function goes on.
        let at = |kind: Kind| events.iter().position(|e| e.cpu == CPU1 && e.kind == kind).unwrap();
        let handled = events.get(at(Kind::IpiTaken)..at(Kind::IpiDone)).unwrap();
        assert!(handled.iter().any(|e| e.cpu == CPU1 && e.kind == Kind::Store), "{arch}");
        let (end, _) = bed.step_on(CPU1);
        assert_eq!((end, count(&mut bed)), (Step::Returned(5), 1), "{arch}");
    }
}

#[test]
fn what_the_guest_masks_is_masked_for_the_machine() {
    // CLI and STI; MSR DAIFSet and DAIFClr, #2; MTMSRD of R3, which has EE or not, with L = 1.
    let cases: [(Arch, &[u8], &[u8]); 3] = [
        (Arch::X86_64, &[0xfa], &[0xfb]),
        (Arch::Arm64, &0xd503_42df_u32.to_le_bytes(), &0xd503_42ff_u32.to_le_bytes()),
        (Arch::Ppc64le, &0x7c61_0164_u32.to_le_bytes(), &0x7c81_0164_u32.to_le_bytes()),
    ];
    for (arch, off, on) in cases {
        let mut bed = newest(arch);
        let f = bed.install_bytes(&[off, on].concat());
        bed.cpus[1].enable_interrupts(true).unwrap();
        // RI is 2, EE 0x8000.
        bed.start(CPU1, f, &[2, 0x8002]);
        let send = |bed: &mut Bed| {
            bed.m.ipi(CPU0, CpuMask::one(CPU1), "function", true, &mut |_, _| Ok(()))
        };
        assert_eq!(send(&mut bed), Ok(()), "{arch}");
        assert_eq!(bed.step(CPU1), Step::Ran);
        assert_eq!(send(&mut bed), Err(MachineError::WrongContext { cpu: CPU1 }), "{arch}");
        assert_eq!(bed.step(CPU1), Step::Ran);
        assert_eq!(send(&mut bed), Ok(()), "{arch}");
    }
}

#[test]
fn an_idle_loop_goes_round_once_for_each_interrupt() {
    // HLT; JMP to it. WFI; B to it. STOP; B to it.
    let cases: [(Arch, Vec<u8>); 4] = [
        (Arch::X86_64, vec![0xf4, 0xeb, 0xfd]),
        (Arch::Arm64, [0xd503_207f_u32, 0x17ff_ffff].map(u32::to_le_bytes).concat()),
        (Arch::Ppc64le, [0x4c00_02e4_u32, 0x4bff_fffc].map(u32::to_le_bytes).concat()),
        (Arch::Ppc64, [0x4c00_02e4_u32, 0x4bff_fffc].map(u32::to_be_bytes).concat()),
    ];
    for (arch, code) in cases {
        let mut bed = newest(arch);
        vectors(&mut bed, "handler_skip", "handler_count");
        let idle = bed.install_bytes(&code);
        prepare(&mut bed);
        bed.cpus[1].set_ipi_vector(Some(interrupt_number(arch)));
        bed.cpus[1].enable_interrupts(true).unwrap();
        bed.cpus[1].set_budget(Some(100));
        bed.start(CPU1, idle, &[]);
        let until = if arch == Arch::X86_64 { Wake::Taken } else { Wake::Interrupt };
        let waits = Step::Waits { virt: VirtAddr(idle), until };
        for round in 1..=5 {
            let (end, steps) = bed.step_on(CPU1);
            assert!(end == waits && steps <= 6, "{arch}: {end:?} after {steps}");
            // However often it is stepped: no step of the budget, no event.
            bed.forget_events();
            assert!((0..1000).all(|_| bed.step(CPU1) == waits), "{arch}");
            assert!(bed.events().events.is_empty(), "{arch}");
            assert_eq!(bed.m.cpu_state(CPU1), Some(CpuState::Idle), "{arch}");
            assert_eq!(count(&mut bed), round - 1, "{arch}");
            bed.m.send_ipi(CPU0, CpuMask::one(CPU1), "function").unwrap().unwrap();
        }
        // An interrupt that x86-64 cannot take does not wake it; elsewhere it does.
        bed.cpus[1].enable_interrupts(false).unwrap();
        let wakes = bed.step(CPU1) != waits;
        assert_eq!(wakes, arch != Arch::X86_64, "{arch}");
    }
}

#[test]
fn a_call_that_only_waits_ends_as_waiting() {
    let mut bed = newest(Arch::Arm64);
    let wfi = bed.install_bytes(&0xd503_207f_u32.to_le_bytes());
    let end = bed.call_on(CPU0, wfi, &[]);
    let waits = Step::Waits { virt: VirtAddr(wfi), until: Wake::Interrupt };
    assert_eq!((end.end, end.steps), (waits, 1));
}
