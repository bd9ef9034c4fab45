//! The INT3 protocol on x86, its events in order and what its handler does, from Linux 7.0 and 5.19
//! arch/x86/kernel/alternative.c.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, expect};
use textbed_arch::{Arch, CpuId, SpaceId, VirtAddr};
use textbed_kernel::{Arg, CallError, Progress, Resume, Wait};

const CALL: [u8; 5] = [0xe8, 0x10, 0, 0, 0];
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];

fn bed(options: &[(&str, &str)]) -> (Bed, u64) {
    let mut bed = boot("6.12", Arch::X86_64, options);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.call_code("memcpy", &[a], &NOP5);
    bed.kernel.machine_mut().lock(CpuId(0), "text_mutex").unwrap();
    bed.trace();
    (bed, a)
}

/// The writes, cross-calls and promises among the events.
fn outline(bed: &mut Bed) -> Vec<String> {
    let kept = [
        "store",
        "ipi",
        "handler",
        "patch site",
        "compared",
        "call",
        "return",
        "needs",
        "promised",
    ];
    let trace = bed.trace();
    trace.into_iter().filter(|l| kept.iter().any(|k| l[2..].starts_with(k))).collect()
}

#[test]
fn t4_one_instruction_is_three_writes_and_three_rounds_of_interrupts() {
    let (mut bed, a) = bed(&[]);
    bed.call_code("text_poke_bp", &[a], &CALL);
    expect(
        &outline(&mut bed),
        "
        0 call text_poke_bp
        0 needs LockHeld text_mutex
        0 needs IrqsOn
        0 needs LockHeld text_mutex
        0 handler a+0x0 5 known
        0 patch site a+0x0
        0-store alias+0x0 1
        0-compared a+0x0 1 equal
        0 ipi do_sync_core to 0b10
        0-store alias+0x1 4
        0-compared a+0x1 4 equal
        0 ipi do_sync_core to 0b10
        0-store alias+0x0 1
        0-compared a+0x0 1 equal
        0 ipi do_sync_core to 0b10
        0 handler a+0x0 5 forgotten
        0 promised NoStaleCode a+0x0 0x5
        0 return 0
        ",
    );
    let mut now = [0; 5];
    bed.kernel.machine_mut().load(CpuId(1), VirtAddr(a), &mut now).unwrap();
    assert_eq!(now, CALL);
}

/// Bytes at an address, as the data side has them, and what a trap there gets, after each phase.
fn phases(bed: &mut Bed, a: u64, code: &[u8]) -> Vec<(Vec<u8>, Option<Resume>)> {
    let args = [Arg::Value(a), Arg::Code(code.to_vec())];
    let mut progress = bed.kernel.begin(CpuId(0), "text_poke_bp", &args).unwrap();
    let mut seen = Vec::new();
    loop {
        let mut now = vec![0; code.len()];
        let mapped = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap();
        bed.kernel.machine().read_phys(mapped.phys, &mut now).unwrap();
        seen.push((now, bed.kernel.trap(CpuId(1), VirtAddr(a), 3)));
        match progress {
            Progress::Done(_) => return seen,
            _ => progress = bed.kernel.resume(CpuId(0)).unwrap(),
        }
    }
}

#[test]
fn a_cpu_that_traps_between_the_phases_does_what_the_new_instruction_does() {
    let (mut bed, a) = bed(&[]);
    let call = Resume::Call { to: VirtAddr(a + 0x15), back: VirtAddr(a + 5) };
    let half = [0xcc, 0x1f, 0x44, 0, 0];
    let tail = [0xcc, 0x10, 0, 0, 0];
    let got = phases(&mut bed, a, &CALL);
    let want: Vec<(Vec<u8>, Option<Resume>)> = vec![
        (half.to_vec(), Some(call)),
        (half.to_vec(), Some(call)),
        (tail.to_vec(), Some(call)),
        (tail.to_vec(), Some(call)),
        (CALL.to_vec(), Some(call)),
        (CALL.to_vec(), Some(call)),
        (CALL.to_vec(), None),
    ];
    assert_eq!(got, want);
    // Elsewhere, and for other traps, nobody handles anything.
    assert_eq!(bed.kernel.trap(CpuId(1), VirtAddr(a + 1), 3), None);
}

#[test]
fn what_stands_in_for_each_instruction() {
    let at = |offset: i64, a: u64| VirtAddr(a.wrapping_add_signed(offset));
    type Row = (&'static [u8], fn(u64) -> Option<Resume>);
    let rows: [Row; 7] = [
        (&NOP5, |a| Some(Resume::At(VirtAddr(a + 5)))),
        (&[0x66, 0x90], |a| Some(Resume::At(VirtAddr(a + 2)))),
        (&[0xeb, 0xfe], |a| Some(Resume::At(VirtAddr(a)))),
        // A short jump padded to five bytes: the handler counts from behind the padding.
        (&[0xeb, 0x00, 0xcc, 0xcc, 0xcc], |a| Some(Resume::At(VirtAddr(a + 5)))),
        (&[0xc3, 0xcc, 0xcc, 0xcc, 0xcc], |_| Some(Resume::Return)),
        (&[0xcc], |_| None),
        (&[0x0f, 0x84, 0x04, 0, 0, 0], |a| {
            let (to, next) = (VirtAddr(a + 10), VirtAddr(a + 6));
            Some(Resume::Jump { condition: 4, to, next })
        }),
    ];
    for (code, want) in rows {
        let (mut bed, a) = bed(&[]);
        let seen = phases(&mut bed, a, code);
        assert_eq!(seen[0].1, want(at(0, a).0), "{code:02x?}");
        assert_eq!(seen.last().unwrap().0, code, "{code:02x?}");
    }
}

#[test]
fn what_the_protocol_does_not_know_is_a_bug() {
    let bad: [&[u8]; 6] = [
        &[0x90],
        &[0xe8, 0, 0],
        &[0xe8, 0, 0, 0, 0, 0xcc],
        &[0xeb, 0, 0x90],
        &[0x0f, 0x1f, 0x44, 0, 1],
        &[],
    ];
    for code in bad {
        let (mut bed, a) = bed(&[]);
        let args = [Arg::Value(a), Arg::Code(code.to_vec())];
        let died = bed.try_call("text_poke_bp", &args);
        assert!(matches!(died, Err(CallError::Died { .. })), "{code:02x?}: {died:?}");
    }
    let mut old = boot("6.1", Arch::X86_64, &[]);
    let a = old.area("a", "vmalloc", 1 << 12);
    let jcc = [Arg::Value(a), Arg::Code(vec![0x0f, 0x84, 0, 0, 0, 0])];
    assert!(matches!(old.try_call("text_poke_bp", &jcc), Err(CallError::Died { .. })));
}

#[test]
fn a_batch_goes_through_each_phase_together_and_is_finished_early_out_of_order() {
    let (mut bed, a) = bed(&[]);
    bed.call_code("text_poke_queue", &[a], &CALL);
    bed.call_code("text_poke_queue", &[a + 8], &[0xcc]);
    bed.trace();
    bed.call("text_poke_finish", &[]);
    let lines = outline(&mut bed);
    let count = |what: &str| lines.iter().filter(|l| l[2..].starts_with(what)).count();
    // Two breakpoints, one tail, one first byte (the other one stays a breakpoint).
    assert_eq!((count("store"), count("ipi")), (4, 3), "{lines:#?}");
    let promised: Vec<&str> =
        lines.iter().filter_map(|l| l[2..].strip_prefix("promised NoStaleCode ")).collect();
    assert_eq!(promised, ["a+0x0 0x5", "a+0x8 0x1"]);
    bed.call_code("text_poke_queue", &[a + 8], &CALL);
    bed.trace();
    bed.call_code("text_poke_queue", &[a], &NOP5);
    let early = outline(&mut bed);
    assert!(early.iter().any(|l| l.contains("handler a+0x8 5 known")), "{early:#?}");
    assert!(early.iter().any(|l| l.contains("promised NoStaleCode a+0x8 0x5")), "{early:#?}");
    assert!(!early.iter().any(|l| l.contains("handler a+0x0")), "{early:#?}");
    bed.call("text_poke_finish", &[]);
    assert!(outline(&mut bed).iter().any(|l| l.contains("handler a+0x0 5 known")));
    bed.call("text_poke_finish", &[]);
    assert_eq!(outline(&mut bed).len(), 2, "an empty vector does nothing");
}

#[test]
fn a_synchronisation_can_be_left_out_as_a_seeded_mistake() {
    for skipped in ["1", "2", "3"] {
        let (mut bed, a) = bed(&[("skip_text_poke_sync", skipped)]);
        bed.call_code("text_poke_bp", &[a], &CALL);
        let lines = outline(&mut bed);
        let kinds: String = lines
            .iter()
            .filter_map(|l| match &l[2..7] {
                "store" => Some('w'),
                "ipi d" => Some('s'),
                _ => None,
            })
            .collect();
        let want = match skipped {
            "1" => "wwsws",
            "2" => "wswws",
            _ => "wswsw",
        };
        assert_eq!(kinds, want, "{skipped}");
    }
}

#[test]
fn the_protocol_waits_for_cpus_that_take_no_interrupts_and_others_wait_for_its_lock() {
    let (mut bed, a) = bed(&[]);
    let args = [Arg::Value(a), Arg::Code(CALL.to_vec())];
    bed.kernel.machine_mut().set_irqs(CpuId(1), false);
    assert_eq!(bed.kernel.begin(CpuId(0), "text_poke_bp", &args), Ok(Progress::More));
    let waits = Progress::Waits(Wait::Cpus(vec![CpuId(1)]));
    assert_eq!(bed.kernel.resume(CpuId(0)), Ok(waits.clone()));
    assert_eq!(bed.kernel.resume(CpuId(0)), Ok(waits));
    let other = [Arg::Value(a + 64), Arg::Code(vec![0xc3])];
    let held = bed.kernel.begin(CpuId(1), "text_poke_copy", &other);
    assert_eq!(held, Ok(Progress::Waits(Wait::Lock("text_mutex".to_owned()))));
    bed.kernel.machine_mut().set_irqs(CpuId(1), true);
    let mut rest = 0;
    while !matches!(bed.kernel.resume(CpuId(0)).unwrap(), Progress::Done(_)) {
        rest += 1;
    }
    assert_eq!(rest, 5);
    bed.kernel.machine_mut().unlock(CpuId(0), "text_mutex").unwrap();
    // Others may run while its alias is there.
    let mut progress = bed.kernel.begin(CpuId(1), "text_poke_copy", &other).unwrap();
    while progress == Progress::More {
        progress = bed.kernel.resume(CpuId(1)).unwrap();
    }
    assert!(matches!(progress, Progress::Done(_)), "{progress:?}");
}

/// text_poke_bp() has a vector of its own; smp_text_poke_single() adds to the one there is.
#[test]
fn what_is_queued_stays_so_until_6_15_when_one_instruction_is_replaced() {
    for (version, queue, single, finish, stays) in [
        ("6.1", "text_poke_queue", "text_poke_bp", "text_poke_finish", true),
        ("6.12", "text_poke_queue", "text_poke_bp", "text_poke_finish", true),
        (
            "6.18",
            "smp_text_poke_batch_add",
            "smp_text_poke_single",
            "smp_text_poke_batch_finish",
            false,
        ),
    ] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        bed.call_code("memcpy", &[a], &[NOP5, NOP5].concat());
        bed.kernel.machine_mut().lock(CpuId(0), "text_mutex").unwrap();
        let first = |bed: &mut Bed, at: u64| {
            let mut byte = [0];
            bed.kernel.machine_mut().load(CpuId(0), VirtAddr(at), &mut byte).unwrap();
            byte[0]
        };
        bed.call_code(queue, &[a], &CALL);
        bed.call_code(single, &[a + 5], &CALL);
        assert_eq!(first(&mut bed, a + 5), CALL[0], "{version}");
        assert_eq!(first(&mut bed, a) == NOP5[0], stays, "{version}");
        bed.call(finish, &[]);
        assert_eq!(first(&mut bed, a), CALL[0], "{version}");
    }
}
