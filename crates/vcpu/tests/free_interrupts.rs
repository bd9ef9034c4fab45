//! Interrupts of CPUs that run freely: taken between the same two instructions as by single steps.

#![allow(clippy::unwrap_used)]

mod bed;
mod handlers;
mod loops;

use bed::{ARCHES, Bed, CPU0, CPU1, DATA, newest};
use handlers::{calls, interrupt_number, prepare, vectors};
use loops::CALLS;
use textbed_arch::{Arch, VirtAddr};
use textbed_event::Kind;
use textbed_machine::{CpuMask, Step};

/// What a run with interrupts comes to.
#[derive(PartialEq, Debug)]
struct Came {
    /// Where CPU 1 was after each slice and an instruction more, with what was counted and pending
    /// then.
    at: Vec<(VirtAddr, u32, usize)>,
    registers: Vec<u64>,
    calls: Vec<Kind>,
}

/// CPU 1 runs `code` in slices of so many instructions, each with a cross-call from CPU 0 before it
/// unless one is pending. Also how many of its instructions were fetched.
fn called_at_slices(
    arch: Arch,
    code: &[u8],
    args: &[u64],
    slice: u64,
    freely: bool,
) -> (Came, usize) {
    let mut bed = newest(arch);
    vectors(&mut bed, "handler_skip", "handler_count");
    let f = bed.install_bytes(code);
    prepare(&mut bed);
    let receiver = &mut bed.cpus[1];
    receiver.set_ipi_vector(Some(interrupt_number(arch)));
    receiver.enable_interrupts(true).unwrap();
    bed.start(CPU1, f, args);
    bed.forget_events();
    let mut at = Vec::new();
    // One instruction by itself, so that a call which is taken too late shows.
    let parts = [1, slice - 1];
    let mut n = 0;
    let end = loop {
        let part = parts[n % 2];
        let step = match freely {
            true => bed.run_free(CPU1, part),
            false => (0..part).fold(Step::Ran, |step, _| match step {
                Step::Ran => bed.step(CPU1),
                end => end,
            }),
        };
        n += 1;
        let (pc, pending) = (bed.cpus[1].pc().unwrap(), bed.m.pending_ipis(CPU1));
        at.push((pc, counted(&bed), pending));
        if step != Step::Ran {
            break step;
        }
        assert!(n < 1000, "{arch}: it does not get on");
        if n % 2 == 0 && pending == 0 {
            bed.m.send_ipi(CPU0, CpuMask::one(CPU1), "function").unwrap().unwrap();
        }
    };
    assert!(matches!(end, Step::Returned(_)), "{arch}: {end:?}");
    let registers = (0..16).map(|n| bed.cpus[1].general(n).unwrap()).collect();
    let events = bed.events().events;
    let fetched = events.iter().filter(|e| e.cpu == CPU1 && e.kind == Kind::Fetch).count();
    let calls = calls(&events, CPU1);
    assert!(counted(&bed) > 10, "{arch}: they were taken");
    (Came { at, registers, calls }, fetched)
}

/// What the handlers counted, without a load, which would make the page a shared one.
fn counted(bed: &Bed) -> u32 {
    let at = bed.m.probe(CPU0, VirtAddr(bed.at(DATA, 0))).unwrap();
    let mut bytes = [0; 4];
    bed.m.read_phys(at, &mut bytes).unwrap();
    bed.to_word(bytes)
}

fn same_as_stepped(arch: Arch, code: &[u8], args: &[u64], slices: &[u64]) {
    for slice in slices {
        let (stepped, all) = called_at_slices(arch, code, args, *slice, false);
        let (free, fetched) = called_at_slices(arch, code, args, *slice, true);
        assert_eq!(free, stepped, "{arch} slices of {slice}");
        assert!(fetched * 4 < all * 3, "{arch} slices of {slice}: {fetched} of {all} fetched");
    }
}

#[test]
fn a_cross_call_between_two_stretches_is_taken_where_a_step_would() {
    for arch in ARCHES {
        let code = CALLS.bytes(arch);
        same_as_stepped(arch, &code, &[0, 400, 0], &[37, 64, 101]);
    }
}

/// A loop that keeps interrupts out for a part of each turn, and adds to a register there and
/// behind; its arguments.
fn masking(arch: Arch, turns: u64) -> (Vec<u8>, [u64; 3]) {
    match arch {
        Arch::X86_64 => (
            vec![
                0xfa, // cli
                0x48, 0x83, 0xc0, 0x01, // add rax, 1
                0x48, 0x83, 0xc0, 0x02, // add rax, 2
                0xfb, // sti
                0x48, 0x83, 0xc0, 0x04, // add rax, 4
                0x48, 0x83, 0xc0, 0x08, // add rax, 8
                0x48, 0xff, 0xce, // dec rsi
                0x75, 0xe9, // jne to the start
                0xc3,
            ],
            [0, turns, 0],
        ),
        Arch::Arm64 => {
            let words: [u32; 9] = [
                0xd503_42df, // msr daifset, #2
                0x9100_0442, // add x2, x2, #1
                0x9100_0842, // add x2, x2, #2
                0xd503_42ff, // msr daifclr, #2
                0x9100_1042, // add x2, x2, #4
                0x9100_2042, // add x2, x2, #8
                0xf100_0421, // subs x1, x1, #1
                0x54ff_ff41, // b.ne to the start
                0xd65f_03c0, // ret
            ];
            (words.map(u32::to_le_bytes).concat(), [0, turns, 0])
        }
        _ => {
            let words: [u32; 9] = [
                0x7ca9_03a6, // mtctr 5
                0x7c61_0164, // mtmsrd 3, 1
                0x38c6_0001, // addi 6, 6, 1
                0x38c6_0002, // addi 6, 6, 2
                0x7c81_0164, // mtmsrd 4, 1
                0x38c6_0004, // addi 6, 6, 4
                0x38c6_0008, // addi 6, 6, 8
                0x4200_ffe8, // bdnz to the second
                0x4e80_0020, // blr
            ];
            let bytes = if arch == Arch::Ppc64le { u32::to_le_bytes } else { u32::to_be_bytes };
            // RI is 2, EE 0x8000.
            (words.map(bytes).concat(), [2, 0x8002, turns])
        }
    }
}

#[test]
fn a_cross_call_that_the_guest_keeps_out_is_taken_where_a_step_would() {
    for arch in ARCHES {
        let (code, args) = masking(arch, 400);
        same_as_stepped(arch, &code, &args, &[37, 64, 101]);
    }
}
