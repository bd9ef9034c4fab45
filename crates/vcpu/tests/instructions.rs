//! Single instructions that the model treats in a way of their own, from hand-assembled words.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{ALIAS, ARCHES, AREA_PAGES, Bed, CODE, CPU0, DATA, HOLE, PAGE, READ_ONLY, newest, views};
use textbed_arch::{Arch, Features, Perm, SpaceId, VirtAddr, effect::SyncCause};
use textbed_event::{Access, FaultReason, Flags, Kind, View};
use textbed_machine::{Cpu, CpuError, Fault, MachineConfig, Newest, Step};

const ARM64_RET: u32 = 0xd65f_03c0;
const POWER_BLR: u32 = 0x4e80_0020;

/// Installs 32-bit words of code.
fn words(bed: &mut Bed, words: &[u32]) -> u64 {
    let bytes: Vec<u8> = words.iter().flat_map(|w| bed.word_bytes(*w)).collect();
    bed.install_bytes(&bytes)
}

/// Steps CPU 0 from `entry` until something but [`Step::Ran`] comes.
fn outcome(bed: &mut Bed, entry: u64, args: &[u64]) -> Result<Step, CpuError> {
    bed.start(CPU0, entry, args);
    loop {
        match bed.cpus[0].step(&mut bed.m) {
            Ok(Step::Ran) => {}
            other => return other,
        }
    }
}

fn refused_with(result: Result<Step, CpuError>, part: &str) {
    match result {
        Err(CpuError::NotModelled(text)) if text.contains(part) => {}
        other => panic!("{part}: {other:?}"),
    }
}

#[test]
fn blocks_are_zeroed_whole_and_nothing_else_is() {
    let cases = [
        (Arch::Arm64, [0xd50b_7420, ARM64_RET], 64), // dc zva, x0
        (Arch::Ppc64le, [0x7c00_1fec, POWER_BLR], 128), // dcbz 0, r3
        (Arch::Ppc64, [0x7c00_1fec, POWER_BLR], 128),
    ];
    for (arch, code, size) in cases {
        let mut bed = newest(arch);
        let f = words(&mut bed, &code);
        let (start, len) = (bed.at(DATA, 0), 3 * size);
        bed.store(start, &vec![0xff; len]);
        assert!(matches!(outcome(&mut bed, f, &[start + size as u64 + 5]), Ok(Step::Returned(_))));
        let mut data = vec![0; len];
        bed.m.load(CPU0, VirtAddr(start), &mut data).unwrap();
        let zeros: Vec<usize> = (0..len).filter(|i| data[*i] == 0).collect();
        assert_eq!(zeros, (size..2 * size).collect::<Vec<_>>(), "{arch}");
        let hole = bed.at(HOLE, 0x105);
        let end = outcome(&mut bed, f, &[hole]);
        let first = hole & !(size as u64 - 1);
        let reason = FaultReason::NotPresent;
        let fault = Fault { virt: VirtAddr(first), access: Access::Write, reason };
        assert_eq!(end, Ok(Step::Faulted(fault)), "{arch}");
    }
}

#[test]
fn the_cache_type_register_describes_the_modelled_caches() {
    for (features, idc, dic) in [
        (Features::empty(), 0, 0),
        (Features::ARM_IDC, 1, 0),
        (Features::ARM_IDC | Features::ARM_DIC, 1, 1),
    ] {
        let mut config = MachineConfig::new(Arch::Arm64);
        config.features |= features;
        let mut bed = Bed::new(config, Box::new(Newest));
        let f = words(&mut bed, &[0xd53b_0020, ARM64_RET]); // mrs x0, ctr_el0
        let value = bed.run(f, &[]);
        assert_eq!((value >> 28 & 1, value >> 29 & 1), (idc, dic), "IDC, DIC");
        let header = bed.m.header();
        assert_eq!(4u64 << (value & 15), u64::from(header.iline_bytes), "IminLine");
        assert_eq!(4u64 << (value >> 16 & 15), u64::from(header.dline_bytes), "DminLine");
    }
}

/// TLB invalidations in the events of the last run: scope aside, address and identifier.
fn invalidations(bed: &mut Bed) -> Vec<(u64, u16)> {
    let events = bed.events();
    let all = views(&events, CPU0).into_iter();
    all.filter_map(|v| match v {
        View::TlbInvalidate { virt, asid, .. } => Some((virt.0, asid)),
        _ => None,
    })
    .collect()
}

#[test]
fn operands_of_invalidations_come_from_registers_and_memory() {
    // tlbie r3, r4, RIC = 0, PRS = 1, R = 1: the process is the upper half of RS.
    let mut bed = newest(Arch::Ppc64le);
    let tlbie = 0x7c83_1a64;
    let f = words(&mut bed, &[tlbie, POWER_BLR]);
    bed.forget_events();
    outcome(&mut bed, f, &[0x1234_5000, 7 << 32]).unwrap();
    assert_eq!(invalidations(&mut bed), [(0x1234_5000, 7)]);
    // PRS = 0: partition scoped.
    let f = words(&mut bed, &[tlbie & !(1 << 17), POWER_BLR]);
    refused_with(outcome(&mut bed, f, &[0, 0]), "tlbie");

    let mut bed = newest(Arch::X86_64);
    let f = bed.install_bytes(&[0x66, 0x0f, 0x38, 0x82, 0x3e, 0xc3]); // invpcid rdi, [rsi]
    let descriptor = bed.at(DATA, 0);
    bed.store(descriptor, &5u64.to_le_bytes());
    bed.store(descriptor + 8, &0x7000u64.to_le_bytes());
    bed.forget_events();
    outcome(&mut bed, f, &[0, descriptor]).unwrap();
    assert_eq!(invalidations(&mut bed), [(0x7000, 5)]);
    let hole = bed.at(HOLE, 8);
    let reason = FaultReason::NotPresent;
    let fault = Fault { virt: VirtAddr(hole), access: Access::Read, reason };
    assert_eq!(outcome(&mut bed, f, &[0, hole]), Ok(Step::Faulted(fault)));
}

#[test]
fn segment_bases_count_in_loads_and_in_operands() {
    let mut bed = newest(Arch::X86_64);
    let f = bed.install_bytes(&[
        0x48, 0x89, 0xf8, // mov rax, rdi
        0x48, 0x89, 0xfa, // mov rdx, rdi
        0x48, 0xc1, 0xea, 0x20, // shr rdx, 32
        0xb9, 0x01, 0x01, 0x00, 0xc0, // mov ecx, 0xc0000101 (GS base)
        0x0f, 0x30, // wrmsr
        0x65, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0, // mov eax, gs:[0x10]
        0x65, 0x0f, 0x01, 0x3c, 0x25, 0x20, 0x10, 0, 0, // invlpg gs:[0x1020]
        0xc3,
    ]);
    let data = bed.at(DATA, 0);
    bed.set_word(data + 0x10, 4711);
    bed.forget_events();
    assert_eq!(bed.run(f, &[data]), 4711);
    assert_eq!(invalidations(&mut bed), [(data + 0x1000, 0)]);
}

#[test]
fn a_write_to_an_msr_serialises_by_its_number() {
    for (msr, serialises) in [(0xc000_0101_u32, true), (0x6e0, false), (0x808, false)] {
        let mut bed = newest(Arch::X86_64);
        let mut code = vec![0x31, 0xc0, 0x31, 0xd2, 0xb9]; // xor eax, eax; xor edx, edx; mov ecx
        code.extend(msr.to_le_bytes());
        code.extend([0x0f, 0x30, 0xc3]);
        let f = bed.install_bytes(&code);
        bed.forget_events();
        bed.run(f, &[]);
        let events = bed.events();
        let sync = View::ContextSync { cause: SyncCause::Serialising };
        assert_eq!(views(&events, CPU0).contains(&sync), serialises, "{msr:#x}");
    }
}

#[test]
fn returns_to_another_privilege_are_refused_and_change_nothing() {
    let mut bed = newest(Arch::X86_64);
    let f = bed.install_bytes(&[0x48, 0x89, 0xfc, 0x48, 0xcf]); // mov rsp, rdi; iretq
    let frame = bed.at(DATA, 0);
    for (i, word) in [f, 0x33, 0x202, frame, 0x2b].into_iter().enumerate() {
        bed.store(frame + 8 * i as u64, &u64::to_le_bytes(word));
    }
    refused_with(outcome(&mut bed, f, &[frame]), "CS 0x33");
    assert_eq!(bed.cpus[0].pc(), Ok(VirtAddr(f + 3)));
    assert_eq!(bed.cpus[0].stack_pointer(), Ok(VirtAddr(frame)));

    let mut bed = newest(Arch::Arm64);
    // msr spsr_el1, x0; msr elr_el1, x1; eret
    let f = words(&mut bed, &[0xd518_4000, 0xd518_4021, 0xd69f_03e0]);
    refused_with(outcome(&mut bed, f, &[0, f]), "eret");
    assert_eq!(bed.cpus[0].pc(), Ok(VirtAddr(f + 8)));

    let mut bed = newest(Arch::Ppc64);
    // mtsrr0 r3; mtsrr1 r4; rfid
    let f = words(&mut bed, &[0x7c7a_03a6, 0x7c9b_03a6, 0x4c00_0024]);
    let problem_state = 1 << 63 | 1 << 14;
    refused_with(outcome(&mut bed, f, &[f, problem_state]), "rfid");
    assert_eq!(bed.cpus[0].pc(), Ok(VirtAddr(f + 8)));
}

fn trapped(bed: &mut Bed, code: &[u8], args: &[u64]) -> (u64, u16, u64) {
    let f = bed.install_bytes(code);
    match outcome(bed, f, args) {
        Ok(Step::Trapped { virt, vector, .. }) => {
            (virt.0 - f, vector, bed.cpus[0].pc().unwrap().0 - f)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn exceptions_have_the_architecture_s_vector_and_address() {
    let mut bed = newest(Arch::X86_64);
    assert_eq!(trapped(&mut bed, &[0x90, 0xcd, 0x80], &[]), (1, 0x80, 3), "int 0x80");
    assert_eq!(trapped(&mut bed, &[0x31, 0xc9, 0xf7, 0xf1], &[]), (2, 0, 2), "div by zero");
    assert_eq!(trapped(&mut bed, &[0x90, 0x06, 0x90], &[]), (1, 6, 1), "no instruction");
    // div dword [rdi], of zero: the load comes first.
    let data = bed.at(DATA, 0x20);
    assert_eq!(trapped(&mut bed, &[0xf7, 0x37], &[data]), (0, 0, 0), "div by zero in memory");
    bed.set_word(data, 3);
    let f = bed.install_bytes(&[0xb8, 12, 0, 0, 0, 0x31, 0xd2, 0xf7, 0x37, 0xc3]);
    assert_eq!(bed.run(f, &[data]), 4, "and by three");

    for arch in [Arch::Ppc64le, Arch::Ppc64] {
        let mut bed = newest(arch);
        // twi TO = 12 (equal or greater), r3, 5
        let f = words(&mut bed, &[3 << 26 | 12 << 21 | 3 << 16 | 5, POWER_BLR]);
        assert_eq!(outcome(&mut bed, f, &[4]), Ok(Step::Returned(4)), "{arch}");
        let end = outcome(&mut bed, f, &[5]);
        assert!(matches!(end, Ok(Step::Trapped { vector: 0x700, virt, .. }) if virt.0 == f));
    }
}

#[test]
fn what_exists_but_is_not_modelled_is_named() {
    let mut bed = newest(Arch::X86_64);
    let f = bed.install_bytes(&[0x0f, 0x05]);
    refused_with(outcome(&mut bed, f, &[]), "syscall");
    let f = bed.install_bytes(&[0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0]); // vaddps zmm0, zmm0, zmm0
    refused_with(outcome(&mut bed, f, &[]), "62 f1 7c 48 58 c0");
    let f = bed.install_bytes(&[0xcb]);
    refused_with(outcome(&mut bed, f, &[]), "retf");
    let mut bed = newest(Arch::Ppc64le);
    let f = words(&mut bed, &[0x0610_0000, 0x3860_002a, POWER_BLR]); // pli r3, 42
    refused_with(outcome(&mut bed, f, &[]), "06");
}

#[test]
fn a_prefixed_instruction_across_64_bytes_is_an_alignment_interrupt() {
    for arch in [Arch::Ppc64le, Arch::Ppc64] {
        let (nop, prefix, pnop) = (0x6000_0000, 0x0700_0000, 0);
        for before in [14, 15] {
            let mut bed = newest(arch);
            let code = [&vec![nop; before][..], &[prefix, pnop, POWER_BLR]].concat();
            let f = words(&mut bed, &code);
            let end = outcome(&mut bed, f, &[7]);
            match before {
                14 => assert_eq!(end, Ok(Step::Returned(7)), "{arch}: up to the boundary"),
                _ => assert!(
                    matches!(&end, Ok(Step::Trapped { vector: 0x600, virt, .. })
                        if virt.0 == f + 60),
                    "{arch}: {end:?}"
                ),
            }
        }
    }
}

#[test]
fn a_repeated_string_instruction_faults_between_iterations() {
    let mut bed = newest(Arch::X86_64);
    // mov ecx, 5; rep movsb
    let f = bed.install_bytes(&[0xb9, 5, 0, 0, 0, 0xf3, 0xa4, 0xc3]);
    let edge = bed.at(DATA, AREA_PAGES * PAGE);
    let source = bed.at(DATA, 0);
    bed.store(source, b"abcde");
    let end = outcome(&mut bed, f, &[edge - 2, source]);
    let reason = FaultReason::NotPresent;
    let fault = Fault { virt: VirtAddr(edge), access: Access::Write, reason };
    assert_eq!(end, Ok(Step::Faulted(fault)));
    assert_eq!(bed.cpus[0].general(1), Ok(3), "RCX: two are done");
    assert_eq!(bed.cpus[0].general(6), Ok(source + 2), "RSI");
    let mut stored = [0; 2];
    bed.m.load(CPU0, VirtAddr(edge - 2), &mut stored).unwrap();
    assert_eq!(&stored, b"ab");
}

#[test]
fn more_pages_than_the_engine_has_windows() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let (store, load) = (bed.install("store_word"), bed.install("load_word"));
        let pages = 150;
        let area = bed.at(0x100_0000, 0);
        let phys = bed.m.alloc_frames(CPU0, pages, 12, true).unwrap().addr();
        let (at, perm) = (VirtAddr(area), Perm::KERNEL_RW);
        bed.m.map(CPU0, SpaceId::KERNEL, at, phys, pages * PAGE, 12, perm).unwrap();
        for round in 0..2 {
            for page in 0..pages {
                bed.run(store, &[area + page * PAGE, round * 1000 + page]);
            }
            for page in 0..pages {
                let word = bed.run(load, &[area + page * PAGE]);
                assert_eq!(word, round * 1000 + page, "{arch}");
            }
        }
    }
}

#[test]
fn more_code_pages_than_the_engine_has_slots() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let ret42 = bed.install("ret42");
        let pages = 50;
        let area = bed.at(0x200_0000, 0);
        for page in 0..pages {
            let (at, perm) = (VirtAddr(area + page * PAGE), Perm::KERNEL_ROX);
            bed.m.map(CPU0, SpaceId::KERNEL, at, bed.code, PAGE, 12, perm).unwrap();
        }
        let offset = ret42 - bed.at(CODE, 0);
        for expected in [42, 43] {
            for _ in 0..2 {
                for page in 0..pages {
                    assert_eq!(bed.run(area + page * PAGE + offset, &[]), expected, "{arch}");
                }
            }
            let word = bed.word(ret42);
            let changed = match arch {
                Arch::X86_64 => word ^ (42 ^ 43) << 8,
                Arch::Arm64 => word ^ (42 ^ 43) << 5,
                _ => word ^ (42 ^ 43),
            };
            bed.set_word(bed.at(ALIAS, offset), changed);
            bed.publish(ret42, 8);
        }
    }
}

#[test]
fn a_guest_that_clears_cr0_wp_stores_to_read_only_pages() {
    let mut bed = newest(Arch::X86_64);
    let f = bed.install_bytes(&[
        0x0f, 0x20, 0xc0, // mov rax, cr0
        0x48, 0x89, 0xc2, // mov rdx, rax
        0x48, 0x0f, 0xba, 0xf0, 0x10, // btr rax, 16 (WP)
        0x0f, 0x22, 0xc0, // mov cr0, rax
        0x89, 0x37, // mov [rdi], esi
        0x0f, 0x22, 0xc2, // mov cr0, rdx
        0x89, 0x37, // mov [rdi], esi
        0xc3,
    ]);
    let target = bed.at(READ_ONLY, 8);
    bed.forget_events();
    let end = outcome(&mut bed, f, &[target, 77]);
    let reason = FaultReason::Permission;
    let fault = Fault { virt: VirtAddr(target), access: Access::Write, reason };
    assert_eq!(end, Ok(Step::Faulted(fault)), "the second store");
    assert_eq!(bed.word(target), 77, "the first store");
    let events = bed.events();
    let controls: Vec<u64> = views(&events, CPU0)
        .into_iter()
        .filter_map(|v| if let View::Control { value, .. } = v { Some(value) } else { None })
        .collect();
    assert_eq!(controls, [0x8004_0033, 0x8005_0033]);
}

#[test]
fn what_linux_has_in_control_registers_is_what_a_guest_reads() {
    let mut bed = newest(Arch::X86_64);
    let cr4 = bed.install_bytes(&[0x0f, 0x20, 0xe0, 0xc3]); // mov rax, cr4
    assert_eq!(bed.run(cr4, &[]), 0x6f0);
    // mov ecx, 0xc0000080; rdmsr; wrmsr; ret: written back as it is, NX stays.
    let efer = bed.install_bytes(&[0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0x0f, 0x30, 0xc3]);
    assert_eq!(bed.run(efer, &[]) & 0xffff_ffff, 0xd01);
    let data = bed.at(DATA, 0);
    assert!(matches!(bed.call_on(CPU0, data, &[]).end, Step::Faulted(_)), "NX");
    let f = bed.install_bytes(&[0x0f, 0x20, 0xd8, 0xc3]); // mov rax, cr3
    refused_with(outcome(&mut bed, f, &[]), "0f 20 d8");
}

#[test]
fn a_power_function_finds_its_own_address_in_r12() {
    for arch in [Arch::Ppc64le, Arch::Ppc64] {
        let mut bed = newest(arch);
        let f = words(&mut bed, &[0x7d83_6378, POWER_BLR]); // mr r3, r12
        assert_eq!(bed.run(f, &[]), f, "{arch}");
    }
}

#[test]
fn taking_an_exception_synchronises_where_the_architecture_does() {
    for arch in ARCHES {
        for eis in [true, false] {
            let mut config = MachineConfig::new(arch);
            config.features.set(Features::ARM_EIS, eis);
            let mut bed = Bed::new(config, Box::new(Newest));
            let (trap, load) = (bed.install("trap_breakpoint"), bed.install("load_word"));
            let hole = bed.at(HOLE, 0);
            for (f, args) in [(trap, vec![]), (load, vec![hole])] {
                bed.forget_events();
                bed.call_on(CPU0, f, &args);
                let events = bed.events();
                let entry = View::ContextSync { cause: SyncCause::ExceptionEntry };
                let synchronised = views(&events, CPU0).contains(&entry);
                let expected = arch != Arch::X86_64 && (eis || arch != Arch::Arm64);
                assert_eq!(synchronised, expected, "{arch} EIS {eis} {args:?}");
            }
        }
    }
}

#[test]
fn non_temporal_stores_say_so() {
    let mut bed = newest(Arch::X86_64);
    let cases = [(&[0x0f, 0xc3, 0x37, 0xc3][..], true), (&[0x89, 0x37, 0xc3][..], false)];
    for (code, non_temporal) in cases {
        let f = bed.install_bytes(code);
        let target = bed.at(DATA, 0x40);
        bed.start(CPU0, f, &[target, 5]);
        bed.forget_events();
        bed.step_on(CPU0);
        let events = bed.events();
        let store = events.events.iter().find(|e| e.kind == Kind::Store).unwrap();
        assert_eq!(store.flags.has(Flags::NONTEMPORAL), non_temporal);
    }
}
