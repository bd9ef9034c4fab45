//! Refused accesses: where, what kind, why, and that nothing of the instruction happened.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{ALIAS, ARCHES, AREA_PAGES, Bed, CODE, CPU0, DATA, HOLE, PAGE, READ_ONLY, newest, views};
use textbed_arch::{Arch, CpuId, Perm, SpaceId, VirtAddr};
use textbed_event::{Access, FaultReason, View};
use textbed_machine::{Cpu, CpuError, Fault, Machine, MachineConfig, Newest, Step};
use textbed_vcpu::Vcpu;

fn faulted(virt: u64, access: Access, reason: FaultReason) -> Step {
    Step::Faulted(Fault { virt: VirtAddr(virt), access, reason })
}

fn stores(bed: &mut Bed) -> usize {
    let events = bed.events();
    views(&events, CPU0).iter().filter(|v| matches!(v, View::Store { .. })).count()
}

#[test]
fn a_store_through_a_read_only_mapping_faults_at_its_address() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let f = bed.install("store_word");
        let target = bed.at(READ_ONLY, 0x124);
        bed.start(CPU0, f, &[target, 0xdead_beef]);
        bed.forget_events();
        let end = bed.step(CPU0);
        assert_eq!(end, faulted(target, Access::Write, FaultReason::Permission), "{arch}");
        assert_eq!(bed.cpus[0].pc().unwrap(), VirtAddr(f), "{arch}: at the store");
        let events = bed.events();
        let seen = views(&events, CPU0);
        let fault = View::Fault {
            virt: VirtAddr(target),
            access: Access::Write,
            reason: FaultReason::Permission,
        };
        assert_eq!(seen.iter().filter(|v| **v == fault).count(), 1, "{arch}: one event");
        assert!(!seen.iter().any(|v| matches!(v, View::Store { .. })), "{arch}");
        assert_eq!(bed.word(target), 0, "{arch}: unchanged");
    }
}

#[test]
fn a_faulted_instruction_can_be_tried_again() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let f = bed.install("store_word");
        let target = bed.at(HOLE, 0x20);
        let end = bed.call_on(CPU0, f, &[target, 7]).end;
        assert_eq!(end, faulted(target, Access::Write, FaultReason::NotPresent), "{arch}");
        let frame = bed.m.alloc_frames(CPU0, 1, 12, true).unwrap();
        let page = VirtAddr(bed.at(HOLE, 0));
        let (kernel, perm) = (SpaceId::KERNEL, Perm::KERNEL_RW);
        bed.m.map(CPU0, kernel, page, frame.addr(), PAGE, 12, perm).unwrap();
        loop {
            match bed.step(CPU0) {
                Step::Ran => {}
                end => break assert_eq!(end, Step::Returned(0), "{arch}"),
            }
        }
        assert_eq!(bed.word(target), 7, "{arch}");
    }
}

#[test]
fn a_store_that_faults_half_way_leaves_nothing() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let f = bed.install("store_two");
        let edge = bed.at(DATA, AREA_PAGES * PAGE);
        let target = edge - 8;
        bed.forget_events();
        bed.start(CPU0, f, &[target, u64::MAX, u64::MAX]);
        let pushed = stores(&mut bed);
        let end = loop {
            match bed.step(CPU0) {
                Step::Ran => {}
                end => break end,
            }
        };
        assert_eq!(end, faulted(edge, Access::Write, FaultReason::NotPresent), "{arch}");
        assert_eq!(stores(&mut bed), 0, "{arch}: no store event (before: {pushed})");
        assert_eq!((bed.word(target), bed.word(target + 4)), (0, 0), "{arch}: unchanged");
        // The same for one that is not split into parts by the architecture.
        let f = bed.install("store_word");
        let end = bed.call_on(CPU0, f, &[edge - 2, 0x5555_5555]).end;
        assert_eq!(end, faulted(edge, Access::Write, FaultReason::NotPresent), "{arch}");
        assert_eq!(bed.word(edge - 4), 0, "{arch}: unchanged");
    }
}

#[test]
fn a_load_faults_at_its_own_address_not_at_its_page() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let f = bed.install("load_word");
        let target = bed.at(HOLE, 0xabc);
        let end = bed.call_on(CPU0, f, &[target]).end;
        assert_eq!(end, faulted(target, Access::Read, FaultReason::NotPresent), "{arch}");
        let edge = bed.at(DATA, AREA_PAGES * PAGE);
        let end = bed.call_on(CPU0, f, &[edge - 1]).end;
        assert_eq!(end, faulted(edge, Access::Read, FaultReason::NotPresent), "{arch}: crossing");
        assert_eq!(bed.cpus[0].pc().unwrap(), VirtAddr(f), "{arch}");
    }
}

#[test]
fn of_two_loads_that_fault_the_first_is_reported() {
    // ldp x1, x2, [x0]; movdqu xmm0, [rdi]; lxvd2x vs0, 0, r3: two loads of 8 bytes each.
    let cases = [
        (Arch::Arm64, 0xa940_0801_u32.to_le_bytes()),
        (Arch::X86_64, [0xf3, 0x0f, 0x6f, 0x07]),
        (Arch::Ppc64le, 0x7c00_1e98_u32.to_le_bytes()),
    ];
    for (arch, code) in cases {
        let mut bed = newest(arch);
        let f = bed.install_bytes(&code);
        let target = bed.at(HOLE, PAGE - 8);
        let end = bed.call_on(CPU0, f, &[target]).end;
        assert_eq!(end, faulted(target, Access::Read, FaultReason::NotPresent), "{arch}");
    }
}

#[test]
fn a_fetch_from_data_or_from_nowhere_faults_at_the_target() {
    for arch in ARCHES {
        for (area, reason) in [(DATA, FaultReason::Permission), (HOLE, FaultReason::NotPresent)] {
            let mut bed = newest(arch);
            let target = bed.at(area, 0x40);
            let end = bed.call_on(CPU0, target, &[]);
            assert_eq!(end.end, faulted(target, Access::Exec, reason), "{arch}: direct");
            assert_eq!(end.steps, 1);
            let f = bed.install("call0");
            let end = bed.call_on(CPU0, f, &[target]).end;
            assert_eq!(end, faulted(target, Access::Exec, reason), "{arch}: called");
            assert_eq!(bed.cpus[0].pc().unwrap(), VirtAddr(target), "{arch}");
        }
    }
}

#[test]
fn an_x86_instruction_needs_no_byte_behind_it_and_every_byte_in_it() {
    let mut bed = newest(Arch::X86_64);
    let edge = AREA_PAGES * PAGE;
    // RET as the last byte of the last page.
    bed.store(bed.at(ALIAS, edge - 1), &[0xc3]);
    bed.publish(bed.at(CODE, edge - 1), 1);
    let end = bed.call_on(CPU0, bed.at(CODE, edge - 1), &[]);
    assert!(matches!(end.end, Step::Returned(_)), "{end:?}");
    // MOV EAX, imm32 that goes on behind it.
    bed.store(bed.at(ALIAS, edge - 2), &[0xb8, 42]);
    bed.publish(bed.at(CODE, edge - 2), 2);
    let end = bed.call_on(CPU0, bed.at(CODE, edge - 2), &[]).end;
    let expected = faulted(bed.at(CODE, edge), Access::Exec, FaultReason::NotPresent);
    assert_eq!(end, expected, "the page behind");
    assert_eq!(bed.cpus[0].pc().unwrap(), VirtAddr(bed.at(CODE, edge - 2)));
    // The same across two pages that are both there.
    let inner = 2 * PAGE - 2;
    bed.store(bed.at(ALIAS, inner), &[0xb8, 42, 0]);
    bed.store(bed.at(ALIAS, 2 * PAGE + 1), &[0, 0, 0xc3]);
    bed.publish(bed.at(CODE, inner), 6);
    assert_eq!(bed.run(bed.at(CODE, inner), &[]), 42);
}

#[test]
fn what_cannot_be_run_is_refused_by_name() {
    let mut bed = newest(Arch::Arm64);
    let mut vcpu = Vcpu::new(Arch::Arm64, CPU0).unwrap();
    assert_eq!(vcpu.step(&mut bed.m), Err(CpuError::NotStarted));
    let (entry, stack) = (VirtAddr(bed.at(CODE, 0)), bed.stack(CPU0));
    let nine = [0; 9];
    let too_many = Err(CpuError::TooManyArguments { given: 9, most: 8 });
    assert_eq!(vcpu.start(&mut bed.m, entry, stack, &nine), too_many);
    let mut other = Machine::new(MachineConfig::new(Arch::X86_64), Box::new(Newest)).unwrap();
    assert!(matches!(
        vcpu.start(&mut other, entry, stack, &[]),
        Err(CpuError::NotModelled(text)) if text.contains("arm64") && text.contains("x86_64")
    ));
    assert!(matches!(
        Vcpu::new(Arch::Ppc32, CpuId(0)).map(|_| ()),
        Err(CpuError::NotModelled(text)) if text.contains("ppc32")
    ));
    assert!(matches!(vcpu.general(32), Err(CpuError::NotModelled(_))));
    // An instruction that exists and that the engine cannot be trusted with.
    let mut bed = newest(Arch::Ppc64);
    let lmw = bed.install_bytes(&0xbba1_0000_u32.to_be_bytes());
    bed.start(CPU0, lmw, &[]);
    let result = bed.cpus[0].step(&mut bed.m);
    assert!(
        matches!(&result, Err(CpuError::NotModelled(text)) if text.contains("bb a1 00 00")),
        "{result:?}"
    );
}
