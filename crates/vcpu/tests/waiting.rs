//! CPUs that wait for each other, and for what never comes.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{ARCHES, Bed, CPU0, CPU1, DATA, newest};
use textbed_arch::effect::Wake;
use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::{CpuState, View};
use textbed_machine::{Cpu, CpuError, DataOrder, MachineConfig, Stalest, Step};

fn words(arch: Arch, words: &[u32]) -> Vec<u8> {
    let bytes = |w: &u32| if arch.is_little_endian() { w.to_le_bytes() } else { w.to_be_bytes() };
    words.iter().flat_map(bytes).collect()
}

/// Takes a place in a list.
type Turn<'a> = &'a mut dyn FnMut(&[usize]) -> usize;

/// Waits until the word at the first argument is not 0, and returns it; where its wait is, and
/// what for.
fn consumer(arch: Arch) -> (Vec<u8>, u64, Wake) {
    match arch {
        // mov rax, rdi; xor ecx, ecx; xor edx, edx; monitor; mov eax, [rdi]; test eax, eax;
        // jnz 1f; xor eax, eax; mwait; jmp to the start; 1: ret
        Arch::X86_64 => (
            vec![
                0x48, 0x89, 0xf8, 0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xc8, 0x8b, 0x07, 0x85, 0xc0,
                0x75, 0x07, 0x31, 0xc0, 0x0f, 0x01, 0xc9, 0xeb, 0xe9, 0xc3,
            ],
            18,
            Wake::Line,
        ),
        Arch::Arm64 => (words(arch, &arm64_consumer(LDAXR)), 8, Wake::Event),
        // lwarx r5, 0, r3; cmpwi r5, 0; bne 1f; waitrsv; b to the start; 1: mr r3, r5; blr
        _ => {
            let code = [
                0x7ca0_1828,
                0x2c05_0000,
                0x4082_000c,
                0x7c20_003c,
                0x4bff_fff0,
                0x7ca3_2b78,
                0x4e80_0020,
            ];
            (words(arch, &code), 12, Wake::Reservation)
        }
    }
}

const LDAXR: u32 = 0x885f_fc01;
const LDR: u32 = 0xb940_0001;
const SEV: u32 = 0xd503_209f;
const SEVL: u32 = 0xd503_20bf;
const WFE: u32 = 0xd503_205f;
const RET: u32 = 0xd65f_03c0;

/// A load of w1; cbnz w1, 1f; wfe; b to the start; 1: mov w0, w1; ret
fn arm64_consumer(load: u32) -> [u32; 6] {
    [load, 0x3500_0061, WFE, 0x17ff_fffd, 0x2a01_03e0, RET]
}

/// Stores the second argument to the first, and returns it.
fn producer(arch: Arch) -> Vec<u8> {
    match arch {
        Arch::X86_64 => vec![0x89, 0x37, 0x89, 0xf0, 0xc3],
        Arch::Arm64 => words(arch, &[0xb900_0001, 0x2a01_03e0, RET]),
        _ => words(arch, &[0x9083_0000, 0x7c83_2378, 0x4e80_0020]),
    }
}

/// Runs both CPUs, by turns that `turn` gives; how they ended, with the number of steps.
fn both(bed: &mut Bed, turn: &mut dyn FnMut(&[usize]) -> usize) -> Vec<(Step, u64)> {
    bed.together(turn, 200).into_iter().map(|e| (e.end, e.steps)).collect()
}

#[test]
fn who_waits_for_a_store_lets_others_run_and_goes_on_when_it_comes() {
    for arch in ARCHES {
        // Always the first, which would go round for ever if it did not wait; by turns; the last.
        let mut n = 0;
        let mut turns: [Turn<'_>; 3] = [
            &mut |_| 0,
            &mut |_| {
                n += 1;
                n
            },
            &mut |ready| ready.len() - 1,
        ];
        for (kind, turn) in turns.iter_mut().enumerate() {
            let mut bed = newest(arch);
            let (wait, store) = (consumer(arch).0, producer(arch));
            let (consumer, producer) = (bed.install_bytes(&wait), bed.install_bytes(&store));
            let flag = bed.at(DATA, 0x40);
            bed.set_word(flag, 0);
            bed.start(CPU0, consumer, &[flag]);
            bed.start(CPU1, producer, &[flag, 5]);
            bed.forget_events();
            let ends = both(&mut bed, turn);
            let results: Vec<Step> = ends.iter().map(|(end, _)| end.clone()).collect();
            assert_eq!(results, [Step::Returned(5), Step::Returned(5)], "{arch} {kind}");
            let idle = bed.events().events.iter().any(|e| {
                e.cpu == CPU0 && matches!(e.view(), View::Cpu { state: CpuState::Idle, .. })
            });
            if kind != 1 {
                assert_eq!(idle, kind == 0, "{arch} {kind}: unless the store came first");
            }
        }
    }
}

#[test]
fn waits_for_what_nobody_does_end_the_run() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let (code, at, until) = consumer(arch);
        let f = bed.install_bytes(&code);
        let flag = bed.at(DATA, 0x40);
        bed.set_word(flag, 0);
        bed.start(CPU0, f, &[flag]);
        bed.start(CPU1, f, &[flag]);
        let waits = Step::Waits { virt: VirtAddr(f + at), until };
        let ends = both(&mut bed, &mut |_| 1);
        assert!(ends.iter().all(|(end, steps)| *end == waits && *steps < 20), "{arch}: {ends:?}");
    }
}

#[test]
fn a_limit_cuts_who_runs_and_not_who_waits() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let (code, at, until) = consumer(arch);
        let (f, spin) = (bed.install_bytes(&code), bed.install("spin"));
        let flag = bed.at(DATA, 0x40);
        bed.set_word(flag, 0);
        bed.start(CPU0, f, &[flag]);
        bed.start(CPU1, spin, &[]);
        let waits = Step::Waits { virt: VirtAddr(f + at), until };
        let ends = both(&mut bed, &mut |_| 0);
        assert_eq!(ends[0].0, waits, "{arch}");
        let all = ends[0].1 + ends[1].1;
        assert_eq!((&ends[1].0, all), (&Step::Limit, 200), "{arch}");
    }
}

#[test]
fn who_waits_is_woken_while_the_other_goes_on() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        // The store, and then a jump to itself.
        let store = match arch {
            Arch::X86_64 => vec![0x89, 0x37, 0xeb, 0xfe],
            Arch::Arm64 => words(arch, &[0xb900_0001, 0x1400_0000]),
            _ => words(arch, &[0x9083_0000, 0x4800_0000]),
        };
        let (f, g) = (bed.install_bytes(&consumer(arch).0), bed.install_bytes(&store));
        let flag = bed.at(DATA, 0x40);
        bed.set_word(flag, 0);
        bed.start(CPU0, f, &[flag]);
        bed.start(CPU1, g, &[flag, 5]);
        let ends = both(&mut bed, &mut |_| 0);
        let ends = [&ends[0].0, &ends[1].0];
        assert_eq!(ends, [&Step::Returned(5), &Step::Limit], "{arch}");
    }
}

#[test]
fn a_store_that_is_still_on_its_way_is_waited_for() {
    for arch in ARCHES {
        let data_order = DataOrder::Architecture;
        let config = MachineConfig { data_order, ..MachineConfig::new(arch) };
        let mut bed = Bed::new(config, Box::new(Stalest));
        let (wait, store) = (consumer(arch).0, producer(arch));
        let (consumer, producer) = (bed.install_bytes(&wait), bed.install_bytes(&store));
        let flag = bed.at(DATA, 0x40);
        bed.set_word(flag, 0);
        bed.m.settle_data();
        bed.start(CPU0, consumer, &[flag]);
        bed.start(CPU1, producer, &[flag, 5]);
        let ends = both(&mut bed, &mut |_| 0);
        assert!(ends.iter().all(|(end, _)| *end == Step::Returned(5)), "{arch}: {ends:?}");
    }
}

#[test]
fn a_store_without_reservation_needs_an_event() {
    // With a plain load, the store by itself wakes nobody.
    for (load, event, wakes) in [(LDR, false, false), (LDR, true, true), (LDAXR, false, true)] {
        let mut bed = newest(Arch::Arm64);
        let f = bed.install_bytes(&words(Arch::Arm64, &arm64_consumer(load)));
        let last: &[u32] = if event { &[SEV, RET] } else { &[RET] };
        let g = bed.install_bytes(&words(Arch::Arm64, &[&[0xb900_0001][..], last].concat()));
        let flag = bed.at(DATA, 0x40);
        bed.set_word(flag, 0);
        bed.start(CPU0, f, &[flag]);
        bed.start(CPU1, g, &[flag, 5]);
        let ends = both(&mut bed, &mut |_| 0);
        let woken = ends[0].0 == Step::Returned(5);
        assert_eq!(woken, wakes, "{load:#x} {event}: {ends:?}");
        assert!(woken || matches!(ends[0].0, Step::Waits { until: Wake::Event, .. }));
    }
}

/// Calls `code` on CPU 0: whether it waits.
fn waits(bed: &mut Bed, code: &[u8], args: &[u64]) -> bool {
    let f = bed.install_bytes(code);
    match bed.call_on(CPU0, f, args).end {
        Step::Waits { .. } => true,
        Step::Returned(_) => false,
        other => panic!("{}: {other:?}", bed.arch()),
    }
}

#[test]
fn an_event_that_came_before_is_waited_for_once() {
    let mut bed = newest(Arch::Arm64);
    let wait = |bed: &mut Bed, code: &[u32]| waits(bed, &words(Arch::Arm64, code), &[]);
    assert!(wait(&mut bed, &[WFE, RET]));
    assert!(!wait(&mut bed, &[SEVL, WFE, RET]));
    assert!(wait(&mut bed, &[SEVL, WFE, WFE, RET]));
    bed.m.op_named(CPU1, "sev", 0).unwrap();
    assert!(!wait(&mut bed, &[WFE, RET]));
    assert!(wait(&mut bed, &[WFE, RET]), "a new call on a CPU that waited runs, and waits again");
    assert!(!wait(&mut bed, &[RET]));
    assert_eq!(bed.m.cpu_state(CPU0), Some(CpuState::Running));
}

#[test]
fn known_code_behind_a_wait_is_not_run_freely_before_that_ends() {
    let mut bed = newest(Arch::Arm64);
    // wfe; add w0, w0, #1; b to the start
    let f = bed.install_bytes(&words(Arch::Arm64, &[WFE, 0x1100_0400, 0x17ff_fffe]));
    bed.start(CPU0, f, &[0]);
    for round in 0..6 {
        // The second time there is no event.
        for _ in 0..2 {
            let end = bed.run_free(CPU0, u64::MAX);
            assert_eq!(end, Step::Waits { virt: VirtAddr(f), until: Wake::Event });
            assert_eq!(bed.cpus[0].general(0).unwrap(), round);
        }
        bed.m.op_named(CPU1, "sev", 0).unwrap();
    }
}

#[test]
fn mwait_waits_for_what_was_watched_and_not_overtaken() {
    // mov rax, rdi; mov ecx, esi; xor edx, edx; monitor; ...; mwait; ret
    let code = |between: &[u8]| {
        [&[0x48, 0x89, 0xf8, 0x31, 0xc9, 0x31, 0xd2, 0x0f, 0x01, 0xc8], between, &MWAIT].concat()
    };
    // mov ecx, esi; mwait; ret
    const MWAIT: [u8; 6] = [0x89, 0xf1, 0x0f, 0x01, 0xc9, 0xc3];
    let mut bed = newest(Arch::X86_64);
    let at = bed.at(DATA, 0x40);
    assert!(!waits(&mut bed, &MWAIT, &[0, 0]), "nothing is watched");
    assert!(waits(&mut bed, &code(&[]), &[at, 0]));
    // mov [rdi], eax, and to the next line.
    assert!(!waits(&mut bed, &code(&[0x89, 0x07]), &[at, 0]));
    assert!(waits(&mut bed, &code(&[0x89, 0x47, 0x40]), &[at, 0]));
    // Two waits for one MONITOR: the second one is for nothing.
    let f = bed.install_bytes(&code(&[0x0f, 0x01, 0xc9]));
    bed.start(CPU0, f, &[at, 0]);
    assert!(matches!(bed.step_on(CPU0).0, Step::Waits { .. }));
    bed.store(at, &[1]);
    assert!(matches!(bed.step_on(CPU0).0, Step::Returned(_)));
    // An address without a page.
    let hole = bed.at(bed::HOLE, 0);
    let f = bed.install_bytes(&code(&[]));
    assert!(matches!(bed.call_on(CPU0, f, &[hole, 0]).end, Step::Faulted(_)));
    // Interrupts that are masked end it by bit 0 of ECX alone.
    bed.cpus[0].interrupt(0x40);
    for (ecx, enabled, expected) in [(0, false, true), (1, false, false), (0, true, false)] {
        bed.cpus[0].enable_interrupts(enabled).unwrap();
        assert_eq!(waits(&mut bed, &code(&[]), &[at, ecx]), expected, "{ecx} {enabled}");
    }
}

#[test]
fn an_interrupt_that_is_let_in_ends_every_wait_and_one_that_is_masked_some() {
    let cases: [(Arch, Vec<u8>, bool); 6] = [
        (Arch::X86_64, vec![0xf4, 0xc3], false),
        (Arch::Arm64, words(Arch::Arm64, &[0xd503_207f, RET]), true),
        (Arch::Arm64, words(Arch::Arm64, &[WFE, RET]), false),
        (Arch::Ppc64le, words(Arch::Ppc64le, &[0x7c00_003c, 0x4e80_0020]), true),
        (Arch::Ppc64, words(Arch::Ppc64, &[0x4c00_02e4, 0x4e80_0020]), true),
        // lwarx r5, 0, r3; waitrsv; blr
        (Arch::Ppc64, words(Arch::Ppc64, &[0x7ca0_1828, 0x7c20_003c, 0x4e80_0020]), true),
    ];
    for (arch, code, by_masked) in cases {
        let mut bed = newest(arch);
        let at = bed.at(DATA, 0);
        bed.cpus[0].enable_interrupts(false).unwrap();
        assert!(waits(&mut bed, &code, &[at]), "{arch}: {code:x?}");
        bed.cpus[0].interrupt(0x500);
        assert_eq!(waits(&mut bed, &code, &[at]), !by_masked, "{arch}: {code:x?}");
        bed.cpus[0].enable_interrupts(true).unwrap();
        assert!(!waits(&mut bed, &code, &[at]), "{arch}: {code:x?}");
    }
}

#[test]
fn pauses_do_not_wait_and_reserved_waits_are_refused() {
    for (arch, code) in [
        (Arch::X86_64, vec![0xf3, 0x90, 0xc3]),
        (Arch::Arm64, words(Arch::Arm64, &[0xd503_203f, RET])),
        (Arch::Ppc64le, words(Arch::Ppc64le, &[0x7c40_003c, 0x4e80_0020])),
        // Nothing is reserved.
        (Arch::Ppc64le, words(Arch::Ppc64le, &[0x7c20_003c, 0x4e80_0020])),
    ] {
        assert!(!waits(&mut newest(arch), &code, &[]), "{arch}: {code:x?}");
    }
    let mut bed = newest(Arch::Ppc64le);
    let f = bed.install_bytes(&words(Arch::Ppc64le, &[0x7c60_003c]));
    bed.start(CPU0, f, &[]);
    assert!(matches!(bed.cpus[0].step(&mut bed.m), Err(CpuError::NotModelled(_))));
    assert_eq!(bed.cpus[0].id(), CpuId(0));
}
