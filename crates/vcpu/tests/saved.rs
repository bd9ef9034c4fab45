//! Going back: a CPU's noted registers and a copy of the machine are a state like any other.

#![allow(clippy::unwrap_used)]

mod bed;

use bed::{ALIAS, ARCHES, Bed, CODE, CPU0, DATA, newest};
use textbed_arch::{Arch, VirtAddr};
use textbed_event::{Event, MemOrder};
use textbed_machine::{Newest, Step};

/// Code that adds up the function's number turn by turn, by the number at `number`: its bytes, the
/// register that it adds to, and where the number stands, with what makes it another.
struct Adds {
    code: Vec<u8>,
    sum: u8,
    /// The instruction, or on x86-64 its last byte, as it is for a number.
    at: u64,
    word: fn(u32) -> u32,
    bytes: usize,
}

fn adds(bed: &Bed) -> Adds {
    let words = |w: [u32; 4]| w.iter().flat_map(|w| bed.word_bytes(*w)).collect();
    match bed.arch() {
        Arch::X86_64 => Adds {
            // add rax, 3; dec rsi; jne to the start; ret
            code: vec![0x48, 0x83, 0xc0, 3, 0x48, 0xff, 0xce, 0x75, 0xf7, 0xc3],
            sum: 0,
            at: 3,
            word: |n| n,
            bytes: 1,
        },
        Arch::Arm64 => Adds {
            // add x2, x2, #3; subs x1, x1, #1; b.ne to the start; ret
            code: words([0x9100_0c42, 0xf100_0421, 0x54ff_ffc1, 0xd65f_03c0]),
            sum: 2,
            at: 0,
            word: |n| 0x9100_0042 | n << 10,
            bytes: 4,
        },
        _ => Adds {
            // addi r5, r5, 3; addic. r4, r4, -1; bne to the start; blr
            code: words([0x38a5_0003, 0x3484_ffff, 0x4082_fff8, 0x4e80_0020]),
            sum: 5,
            at: 0,
            word: |n| 0x38a5_0000 | n,
            bytes: 4,
        },
    }
}

/// Runs so many instructions.
fn go(bed: &mut Bed, n: u64) -> Step {
    match bed.slice {
        Some(_) => bed.run_free(CPU0, n),
        None => (0..n).fold(Step::Ran, |step, _| match step {
            Step::Ran => bed.step(CPU0),
            end => end,
        }),
    }
}

/// Makes the function add `n`, known to all CPUs.
fn patch(bed: &mut Bed, f: u64, adds: &Adds, n: u32) {
    let alias = VirtAddr(f + adds.at - bed.at(CODE, 0) + bed.at(ALIAS, 0));
    let word = bed.word_bytes((adds.word)(n));
    let word = if bed.arch() == Arch::X86_64 { [n as u8, 0, 0, 0] } else { word };
    bed.m.store(CPU0, alias, &word[..adds.bytes], MemOrder::Plain).unwrap();
    bed.publish(f, 16);
}

#[test]
fn a_state_that_was_noted_is_come_back_to() {
    for arch in ARCHES {
        for mut bed in [newest(arch), newest(arch).freely()] {
            let which = format!("{arch} {:?}", bed.slice);
            let adds = adds(&bed);
            let f = bed.install_bytes(&adds.code);
            bed.start(CPU0, f, &[bed.at(DATA, 0), 100, 0]);
            bed.cpus[0].set_general(adds.sum, 0).unwrap();
            assert_eq!(go(&mut bed, 150), Step::Ran);
            bed.forget_events();
            let saved = bed.cpus[0].save().unwrap();
            let machine = bed.m.copy(Box::new(Newest));
            let sum = bed.cpus[0].general(adds.sum).unwrap();
            assert_eq!(sum, 150, "{which}: 50 turns");

            // The rest of it as it is, and twice with another number, each from there.
            let rest = |bed: &mut Bed, number: Option<u32>| -> (u64, Vec<Event>) {
                bed.m = machine.copy(Box::new(Newest));
                bed.cpus[0].restore(&saved).unwrap();
                if let Some(n) = number {
                    patch(bed, f, &adds, n);
                }
                bed.forget_events();
                let end = go(bed, 1000);
                assert!(matches!(end, Step::Returned(_)), "{which}: {end:?}");
                (bed.cpus[0].general(adds.sum).unwrap(), bed.events().events)
            };
            let first = rest(&mut bed, None);
            assert_eq!(first.0, 300, "{which}");
            // Both leave the same counts in the machine, and other code.
            assert_eq!(rest(&mut bed, Some(5)).0, 150 + 50 * 5, "{which}");
            assert_eq!(rest(&mut bed, Some(7)).0, 150 + 50 * 7, "{which}");
            let again = rest(&mut bed, None);
            assert!(first == again, "{which}: {} and {}", first.0, again.0);
        }
    }
}

/// A CPU that was not started when it was noted is not running afterwards.
#[test]
fn what_the_cpu_was_doing_is_noted_too() {
    let mut bed = newest(Arch::X86_64);
    let f = bed.install_bytes(&[0xc3]);
    bed.cpus[0].set_budget(Some(5));
    let saved = bed.cpus[0].save().unwrap();
    bed.start(CPU0, f, &[]);
    bed.step(CPU0);
    bed.start(CPU0, f, &[]);
    bed.cpus[0].restore(&saved).unwrap();
    assert_eq!(bed.cpus[0].budget(), Some(5));
    let step = textbed_machine::Cpu::step(&mut bed.cpus[0], &mut bed.m);
    assert!(step.is_err(), "{step:?}");
}
