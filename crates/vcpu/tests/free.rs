//! Free running against single steps: the same end, whatever the code does, and as old.

#![allow(clippy::unwrap_used)]

mod bed;
mod loops;
mod programs;

use bed::{ALIAS, ARCHES, Bed, CODE, CPU0, CPU1, DATA, PAGE, RWX, STACK, newest, stalest};
use loops::{ALU, CALLS, LOOPS, Loop};
use programs::{Random, initial, program};
use textbed_arch::{Arch, CpuId, VirtAddr};
use textbed_event::{Batch, Kind, MemOrder};
use textbed_machine::{MachineConfig, Step};

/// What a run leaves: registers, and the bytes of code, data and stacks.
#[derive(PartialEq, Eq)]
struct Left {
    registers: Vec<u64>,
    memory: Vec<u8>,
}

fn left(bed: &Bed, cpu: CpuId) -> Left {
    let general = if bed.arch() == Arch::X86_64 { 16 } else { 31 };
    let registers = (0..general).map(|n| bed.cpus[cpu.index()].general(n).unwrap()).collect();
    let mut memory = Vec::new();
    for area in [CODE, DATA, STACK] {
        for page in 0..bed::AREA_PAGES {
            let at = bed.m.probe(cpu, VirtAddr(bed.at(area, page * PAGE))).unwrap();
            let mut bytes = vec![0; PAGE as usize];
            bed.m.read_phys(at, &mut bytes).unwrap();
            memory.extend(bytes);
        }
    }
    Left { registers, memory }
}

fn fetches(batch: &Batch) -> usize {
    batch.events.iter().filter(|e| e.kind == Kind::Fetch).count()
}

#[test]
fn loops_end_as_they_do_step_by_step() {
    for arch in ARCHES {
        for l in &LOOPS {
            let run = |mut bed: Bed| {
                let f = bed.install_bytes(&l.bytes(arch));
                bed.store(bed.at(DATA, 0), &[7; 256]);
                let args = [bed.at(DATA, 0), 400, bed.at(RWX, 0xf00)];
                bed.forget_events();
                let end = bed.call_on(CPU0, f, &args).end;
                let fetches = fetches(&bed.events());
                (end, left(&bed, CPU0), fetches)
            };
            let (stepped, free) = (run(newest(arch)), run(newest(arch).freely()));
            assert_eq!(stepped.0, free.0, "{arch} {}", l.name);
            assert!(stepped.1 == free.1, "{arch} {}", l.name);
            // Where the store has to be stepped, the rest of the turn is not.
            let most = if l.name == "own code page" { stepped.2 / 2 } else { 60 };
            assert!(free.2 < most, "{arch} {}: {} fetches", l.name, free.2);
        }
    }
}

/// The same program again and again: stepped at first, then free.
#[test]
fn generated_programs_end_as_they_do_step_by_step() {
    for arch in ARCHES {
        let (mut stepped, mut free) = (0, 0);
        for seed in 0..10 {
            let run = |freely: bool| {
                let mut r = Random(seed << 8 | arch as u64);
                let mut bed = newest(arch);
                bed.slice = freely.then_some(100);
                let mut code = program(arch, &mut r);
                code.extend(match arch {
                    Arch::X86_64 => vec![0xc3],
                    Arch::Arm64 => 0xd65f_03c0u32.to_le_bytes().to_vec(),
                    _ => bed.word_bytes(0x4e80_0020).to_vec(),
                });
                let at = bed.install_bytes(&code);
                let data = bed.at(DATA, 2 * PAGE);
                let registers = initial(arch, &mut r, data);
                let bytes: Vec<u8> = (0..3 * PAGE).map(|_| r.number() as u8).collect();
                bed.store(bed.at(DATA, PAGE / 2), &bytes);
                bed.forget_events();
                let mut ends = Vec::new();
                for _ in 0..4 {
                    bed.start(CPU0, at, &[]);
                    for (n, value) in &registers {
                        bed.cpus[0].set_general(*n, *value).unwrap();
                    }
                    let end = bed.finish(CPU0);
                    ends.push((end, left(&bed, CPU0)));
                }
                let fetches = fetches(&bed.events());
                (ends, fetches)
            };
            let (expected, got) = (run(false), run(true));
            for (n, (e, g)) in expected.0.iter().zip(&got.0).enumerate() {
                assert_eq!(e.0, g.0, "{arch} seed {seed} round {n}");
                assert_eq!(e.1.registers, g.1.registers, "{arch} seed {seed} round {n}");
                assert!(e.1 == g.1, "{arch} seed {seed} round {n}: memory");
            }
            (stepped, free) = (stepped + expected.1, free + got.1);
        }
        println!("{arch}: 40 runs, 40 equal; {free} of {stepped} instructions fetched");
        assert!(free < stepped * 7 / 10, "{arch}: {free} of {stepped}");
    }
}

/// Code with a number in it, in the word or byte at `number`, and the number two more.
struct Patch {
    number: u64,
    bytes: Vec<u8>,
}

/// Where the called function of [`CALLS`] adds three to a register, and the code that adds five.
fn patch(bed: &Bed, f: u64) -> Patch {
    match bed.arch() {
        Arch::X86_64 => Patch { number: f + 0xf, bytes: vec![5] },
        Arch::Arm64 => Patch { number: f + 0x18, bytes: bed.word_bytes(0x9100_1442).into() },
        _ => Patch { number: f + 0x24, bytes: bed.word_bytes(0x38a5_0005).into() },
    }
}

/// The register in which [`CALLS`] adds up, and the one that counts its turns down.
fn registers_of_calls(arch: Arch) -> u8 {
    match arch {
        Arch::X86_64 => 0,
        Arch::Arm64 => 2,
        _ => 5,
    }
}

/// CPU 1 goes round; in the middle CPU 0 overwrites what it executes. What CPU 1 adds up to, and
/// again after it synchronised.
fn overwritten_meanwhile(mut bed: Bed) -> ([u64; 2], Step) {
    let arch = bed.arch();
    let f = bed.install_bytes(&CALLS.bytes(arch));
    let (sync, core) = (bed.install("cachesync"), bed.install("sync_core"));
    let slice = bed.slice.unwrap_or(1);
    let patch = patch(&bed, f);
    let sum = registers_of_calls(arch);
    bed.start(CPU1, f, &[bed.at(DATA, 0), 100, 0]);
    bed.cpus[1].set_general(sum, 0).unwrap();
    let run = |bed: &mut Bed, slices: usize| {
        (0..slices).fold(Step::Ran, |step, _| match (step, bed.slice) {
            (Step::Ran, Some(slice)) => bed.run_free(CPU1, slice),
            (Step::Ran, None) => bed.step(CPU1),
            (other, _) => other,
        })
    };
    let half = 50 * CALLS.by_turn(arch);
    assert_eq!(run(&mut bed, (half / slice) as usize), Step::Ran);
    let alias = patch.number - bed.at(CODE, 0) + bed.at(ALIAS, 0);
    bed.m.store(CPU0, VirtAddr(alias), &patch.bytes, MemOrder::Plain).unwrap();
    let slice = bed.slice.take();
    bed.run(sync, &[alias]);
    bed.slice = slice;
    let end = run(&mut bed, 100_000);
    let first = bed.cpus[1].general(sum).unwrap();
    bed.call_on(CPU1, core, &[]);
    bed.start(CPU1, f, &[bed.at(DATA, 0), 100, 0]);
    bed.cpus[1].set_general(sum, 0).unwrap();
    run(&mut bed, 100_000);
    ([first, bed.cpus[1].general(sum).unwrap()], end)
}

#[test]
fn a_loop_that_is_overwritten_stays_as_old_as_it_may() {
    for arch in ARCHES {
        let [old, new] = [stalest, newest].map(|make: fn(Arch) -> Bed| {
            let stepped = overwritten_meanwhile(make(arch));
            for turns in [1, 10, 25] {
                let mut bed = make(arch).freely();
                bed.slice = Some(turns * CALLS.by_turn(arch));
                assert_eq!(overwritten_meanwhile(bed), stepped, "{arch} slices of {turns} turns");
            }
            stepped.0
        });
        // Old or new as it comes: the same choices are asked for in the same order.
        let random =
            |seed| Bed::new(MachineConfig::new(arch), Box::new(textbed_machine::Random::new(seed)));
        for seed in 0..3 {
            let mut bed = random(seed).freely();
            bed.slice = Some(10 * CALLS.by_turn(arch));
            let stepped = overwritten_meanwhile(random(seed));
            assert_eq!(overwritten_meanwhile(bed), stepped, "{arch} seed {seed}");
        }
        assert_eq!((old[0], old[1]), (300, 500), "{arch}: old to the end, then new");
        assert!(new[0] > 390 && new[0] < 410 && new[1] == 500, "{arch}: {new:?}");
    }
}

/// Each turn changes the number that the next instruction adds.
const SELF: [(Arch, &[u8]); 2] = [
    (
        Arch::X86_64,
        &[
            0x88, 0x0a, // mov [rdx], cl
            0x48, 0x83, 0xc0, 0x01, // add rax, 1
            0xff, 0xc1, // inc ecx
            0x80, 0xe1, 0x3f, // and cl, 63
            0x48, 0xff, 0xce, // dec rsi
            0x75, 0xf0, // jne to the start
            0xc3,
        ],
    ),
    (
        Arch::Arm64,
        &[
            0x43, 0x00, 0x00, 0xb9, // str w3, [x2]
            0x84, 0x04, 0x00, 0x91, // add x4, x4, #1
            0x63, 0x04, 0x10, 0x11, // add w3, w3, #0x401 (see below)
            0x21, 0x04, 0x00, 0xf1, // subs x1, x1, #1
            0x81, 0xff, 0xff, 0x54, // b.ne to the start
            0xc0, 0x03, 0x5f, 0xd6, // ret
        ],
    ),
];

#[test]
fn code_that_writes_over_itself_is_as_new_as_step_by_step() {
    for (arch, code) in SELF {
        let mut code = code.to_vec();
        if arch == Arch::Arm64 {
            // add w3, w3, #0x400: one more in the immediate of the word in w3.
            code[8..12].copy_from_slice(&0x1110_0063u32.to_le_bytes());
            code[8..12].copy_from_slice(&0x1100_0063u32.wrapping_add(0x400 << 10).to_le_bytes());
        }
        let (at, start) = if arch == Arch::X86_64 { (5, 1) } else { (4, 0x9100_0484) };
        for stale in [false, true] {
            let make = if stale { stalest } else { newest };
            let run = |mut bed: Bed| {
                let f = bed.install_bytes(&code) - bed.at(CODE, 0) + bed.at(RWX, 0);
                bed.start(CPU0, f, &[0, 40, f + at]);
                let (value, sum) = if arch == Arch::X86_64 { (1, 0) } else { (3, 4) };
                bed.cpus[0].set_general(value, start).unwrap();
                bed.cpus[0].set_general(sum, 0).unwrap();
                let end = bed.finish(CPU0);
                assert!(matches!(end, Step::Returned(_)), "{arch} {end:?}");
                (left(&bed, CPU0), bed.cpus[0].general(sum).unwrap())
            };
            let (stepped, free) = (run(make(arch)), run(make(arch).freely()));
            assert!(stepped.0 == free.0, "{arch}: {} {}", stepped.1, free.1);
            let coherent = (1..=40).sum::<u64>();
            let old = arch == Arch::Arm64 && stale;
            assert_eq!(stepped.1, if old { 40 } else { coherent }, "{arch}");
        }
    }
}

#[test]
fn a_slice_and_a_budget_end_where_that_many_steps_do() {
    let run = |arch, n: u64, how: u8| {
        let mut bed = newest(arch);
        let f = bed.install_bytes(&ALU.bytes(arch));
        bed.start(CPU0, f, &[0, 1 << 40, 0]);
        let end = match how {
            0 => (0..n).fold(Step::Ran, |_, _| bed.step(CPU0)),
            1 => bed.run_free(CPU0, n),
            _ => {
                bed.cpus[0].set_budget(Some(n));
                bed.run_free(CPU0, u64::MAX)
            }
        };
        (end, bed.cpus[0].pc().unwrap(), left(&bed, CPU0))
    };
    for arch in ARCHES {
        for n in [1, 9, 1003] {
            let stepped = run(arch, n, 0);
            let slice = run(arch, n, 1);
            assert!(slice == stepped, "{arch} {n}: {:?} {:?}", slice.1, stepped.1);
            let budget = run(arch, n, 2);
            assert_eq!((budget.0, budget.1), (Step::Limit, stepped.1), "{arch} {n}");
            assert!(budget.2 == stepped.2, "{arch} {n}");
        }
    }
}

/// What another CPU stores is seen, and what a CPU stored is there when another one looks.
#[test]
fn data_is_shared_at_the_end_of_a_slice() {
    for arch in ARCHES {
        let mut bed = newest(arch);
        let f = bed.install("sum_loop");
        let data = bed.at(DATA, 0);
        let sums = |bed: &mut Bed, cpu| {
            bed.start(cpu, f, &[data, 8]);
            while bed.run_free(cpu, 5) == Step::Ran {}
            let words: Vec<u32> = (0..8).map(|n| bed.word(data + 4 * n)).collect();
            words
        };
        // The page is CPU 0's, then shared: each adds up what the other left.
        let mut expected: Vec<u32> = (1..9).collect();
        for (n, word) in expected.iter().enumerate() {
            bed.set_word(data + 4 * n as u64, *word);
        }
        for cpu in [CPU0, CPU0, CPU1, CPU0, CPU1, CPU1] {
            for n in 1..8 {
                expected[n] = expected[n].wrapping_add(expected[n - 1]);
            }
            assert_eq!(sums(&mut bed, cpu), expected, "{arch} {cpu}");
            // And by another CPU between two slices of its owner.
            bed.m.store(CPU1, VirtAddr(data), &bed.word_bytes(7), MemOrder::Plain).unwrap();
            expected[0] = 7;
        }
        // Whose loads of what the other stored are events, each of them.
        bed.forget_events();
        sums(&mut bed, CPU0);
        let events = bed.events().events;
        let loads = events.iter().filter(|e| e.cpu == CPU0 && e.kind == Kind::Load).count();
        assert!(loads >= 8 + 8, "{arch}: {loads} by the loop, and by the test");
    }
}

/// A page that goes away while it is used freely.
#[test]
fn a_mapping_that_changes_is_seen_at_once() {
    for arch in ARCHES {
        let run = |freely: bool| {
            let mut bed = newest(arch);
            let l: &Loop = &LOOPS[1];
            let f = bed.install_bytes(&l.bytes(arch));
            bed.start(CPU0, f, &[bed.at(DATA, 0), 50, 0]);
            let step = |bed: &mut Bed, n: u64| match freely {
                true => bed.run_free(CPU0, n),
                false => (0..n).fold(Step::Ran, |s, _| match s {
                    Step::Ran => bed.step(CPU0),
                    other => other,
                }),
            };
            assert_eq!(step(&mut bed, 70), Step::Ran);
            let virt = VirtAddr(bed.at(DATA, 0));
            bed.m.unmap(CPU0, textbed_arch::SpaceId::KERNEL, virt, PAGE).unwrap();
            let (end, pc) = (step(&mut bed, 1000), bed.cpus[0].pc().unwrap());
            (end, pc, left_registers(&bed))
        };
        let (stepped, free) = (run(false), run(true));
        assert!(matches!(stepped.0, Step::Faulted(_)), "{arch} {stepped:?}");
        assert_eq!(stepped, free, "{arch}");
    }
}

fn left_registers(bed: &Bed) -> Vec<u64> {
    (0..16).map(|n| bed.cpus[0].general(n).unwrap()).collect()
}

/// A store to data; then, five times or so, a store that writes over itself at its first turn, with
/// one of another register, and stores to data from then on.
struct Overwriting {
    code: Vec<u8>,
    /// Where what is overwritten begins, and what is stored there.
    at: u64,
    new: u64,
    /// The registers that the store has first and then.
    registers: [u8; 2],
}

fn overwriting(arch: Arch) -> Overwriting {
    let words = |w: [u32; 6]| match arch.is_little_endian() {
        true => w.map(u32::to_le_bytes).concat(),
        false => w.map(u32::to_be_bytes).concat(),
    };
    match arch {
        Arch::X86_64 => Overwriting {
            code: vec![
                0x88, 0x1f, // mov [rdi], bl
                0x88, 0x0a, // mov [rdx], cl; then mov [rdx], bl
                0x48, 0x89, 0xfa, // mov rdx, rdi
                0xff, 0xce, // dec esi
                0x75, 0xf7, // jne to the second
                0xc3,
            ],
            at: 3,
            new: 0x1a,
            registers: [1, 3],
        },
        // str w4, [x0]; str w3, [x2]; mov x2, x0; subs x1, x1, #1; b.ne to the second; ret.
        Arch::Arm64 => Overwriting {
            code: words([
                0xb900_0004,
                0xb900_0043,
                0xaa00_03e2,
                0xf100_0421,
                0x54ff_ffa1,
                0xd65f_03c0,
            ]),
            at: 4,
            new: 0xb900_0044,
            registers: [3, 4],
        },
        // stw r7, 0(r3); stw r6, 0(r5); mr r5, r3; addic. r4, r4, -1; bne to the second; blr.
        _ => Overwriting {
            code: words([
                0x90e3_0000,
                0x90c5_0000,
                0x7c65_1b78,
                0x3484_ffff,
                0x4082_fff4,
                0x4e80_0020,
            ]),
            at: 4,
            new: 0x90e5_0000,
            registers: [6, 7],
        },
    }
}

#[test]
fn what_a_step_fetched_is_not_known_if_the_step_overwrote_it() {
    for arch in ARCHES {
        for mut bed in [newest(arch), newest(arch).freely()] {
            let o = overwriting(arch);
            let f = bed.install_bytes(&o.code) - bed.at(CODE, 0) + bed.at(RWX, 0);
            let data = bed.at(DATA, 0);
            // A translation that is new would have everything forgotten.
            bed.set_word(data, 0);
            bed.word(f);
            bed.start(CPU0, f, &[data, 6, f + o.at]);
            for (register, value) in o.registers.into_iter().zip([o.new, 0x55]) {
                bed.cpus[0].set_general(register, value).unwrap();
            }
            let end = bed.finish(CPU0);
            assert!(matches!(end, Step::Returned(_)), "{arch}: {end:?}");
            let left = bed.word(data);
            let left = if arch == Arch::X86_64 { left & 0xff } else { left };
            assert_eq!(left, 0x55, "{arch}: {:?}", bed.slice);
        }
    }
}

/// x86-64: a jump into the middle of an instruction that is known, where a special one is.
#[test]
fn code_in_the_middle_of_other_code_is_executed_as_it_is() {
    let code = [
        0xb8, 0x0f, 0xae, 0xf0, 0xc3, // 0: mov eax, 0xc3f0ae0f; at 1: mfence; ret
        0xff, 0xce, // dec esi
        0x75, 0xf7, // jne 0
        0xe8, 0xf3, 0xff, 0xff, 0xff, // call 1
        0xc3,
    ];
    let run = |mut bed: Bed| {
        let f = bed.install_bytes(&code);
        bed.forget_events();
        let ends: Vec<Step> = (0..4).map(|_| bed.call_on(CPU0, f, &[0, 3, 0]).end).collect();
        let events = bed.events().events;
        let fences = events.iter().filter(|e| e.kind == Kind::Barrier).count();
        (ends, fences, left(&bed, CPU0))
    };
    let (stepped, free) = (run(newest(Arch::X86_64)), run(newest(Arch::X86_64).freely()));
    assert_eq!((&stepped.0, stepped.1), (&free.0, free.1));
    assert_eq!(free.1, 4, "mfence, four times");
    assert!(stepped.2 == free.2);
}
