//! Withheld events change no verdict: random streams in which everything meets everything, with
//! and without elision, under every reading and both ways to order events.

use proptest::prelude::*;
use textbed_arch::{
    Arch, CpuId, Features, Perm, Pfn, PhysAddr, VirtAddr,
    effect::{Barrier, CacheScope, Domain, Reach, SyncCause, TlbScope},
};
use textbed_check::{Checker, Mode, Options, Reading, Report};
use textbed_event::{
    Batch, CallRef, Event, Header, LeafChange, MemOrder, Recorder, Sink, View, elide::Elided,
};

const CODE: u64 = 0xffff_ffff_c000_0000;
const ALIAS: u64 = 0xffff_8880_0000_0000;
const PHYS: u64 = 0x20_0000;
const FRAMES: u64 = 2;

/// One thing that happens; numbers are cut to what there is.
#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: u16,
    what: u8,
    frame: u64,
    unit: u64,
    other: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Loops are what elision is about: short bodies, many turns, something in between.
    let step = (0u16..2, 0u8..40, 0..FRAMES, 0u64..3, any::<u8>())
        .prop_map(|(cpu, what, frame, unit, other)| Step { cpu, what, frame, unit, other });
    let body = prop::collection::vec(step, 1..5);
    prop::collection::vec((body, 1usize..6), 1..16).prop_map(|bodies| {
        bodies.into_iter().flat_map(|(body, turns)| body.repeat(turns)).collect()
    })
}

fn leaf(virt: u64, phys: u64, old: Perm, new: Perm) -> View {
    let change = LeafChange::usual(1, 12, old, new);
    View::Leaf { virt: VirtAddr(virt), phys: PhysAddr(phys), change }
}

fn stream(arch: Arch, amd: bool, steps: &[Step]) -> (Header, Vec<Batch>) {
    let mut header = Header::all_seeing(arch, 2);
    if amd {
        header.features |= Features::X86_AMD;
    }
    let mut rec = Recorder::new();
    let mut batches = Vec::new();
    let mut call = CallRef::NONE;
    let slot = rec.name("slot");
    for frame in 0..FRAMES {
        let (at, phys) = (frame * 4096, PHYS + frame * 4096);
        rec.emit(CpuId(0), leaf(CODE + at, phys, Perm::empty(), Perm::KERNEL_ROX));
        rec.emit(CpuId(0), leaf(ALIAS + at, phys, Perm::empty(), Perm::KERNEL_RO));
    }
    for step in steps {
        let at = step.frame * 4096 + step.unit * 4;
        let (virt, phys) = (VirtAddr(CODE + at), PhysAddr(PHYS + at));
        let alias = VirtAddr(ALIAS + at);
        let page = step.frame * 4096;
        let barrier = |barrier| View::Barrier { barrier, domain: Domain::Inner };
        let (scope, reach) = (CacheScope::Line, Reach::Broadcast);
        let view = match step.what {
            0..12 => View::Fetch { virt, phys, len: 4 },
            12 => View::Fetch { virt: alias, phys, len: 4 },
            13..17 => View::Load { virt: alias, phys, len: 4, order: MemOrder::Plain },
            17 => View::Load { virt: alias, phys, len: 4, order: MemOrder::Acquire },
            18..22 => {
                let bytes = rec.bytes(&[step.other & 3, 0, 0x90, 0x14]);
                let orders = [MemOrder::Plain, MemOrder::Plain, MemOrder::Plain, MemOrder::Release];
                let order = orders[usize::from(step.other >> 6)];
                View::Store { virt: alias, phys, bytes, order }
            }
            22..25 => {
                let causes = [
                    SyncCause::Instruction,
                    SyncCause::Serialising,
                    SyncCause::ExceptionEntry,
                    SyncCause::ExceptionReturn,
                ];
                View::ContextSync { cause: causes[usize::from(step.other & 3)] }
            }
            25 | 26 => barrier(match arch {
                Arch::X86_64 => Barrier::Mfence,
                Arch::Arm64 => Barrier::DsbFull,
                _ => Barrier::Sync,
            }),
            27 => View::CacheClean { scope, virt, phys },
            28 | 29 => View::IcacheInvalidate { scope, reach, virt, phys },
            30 => View::Publish { slot, value: u64::from(step.other & 1) },
            31 => View::Observe { slot, value: u64::from(step.other & 1) },
            32 => leaf(CODE + page, PHYS + page, Perm::KERNEL_ROX, Perm::empty()),
            33 => leaf(CODE + page, PHYS + page, Perm::empty(), Perm::KERNEL_ROX),
            34 => leaf(ALIAS + page, PHYS + page, Perm::KERNEL_RO, Perm::KERNEL_RW),
            35 => View::TlbInvalidate {
                scope: TlbScope::Address,
                reach,
                virt: VirtAddr(CODE + page),
                len: 4096,
                asid: 0,
                leaf: None,
            },
            36 => View::FrameFree { pfn: Pfn((PHYS + page) >> 12), count: 1 },
            37 => View::PatchSite { virt, old_len: 4, new_len: 4, handler: false },
            38 if call == CallRef::NONE => {
                call = rec.new_call();
                View::CallEntered { call, name: slot, args: rec.bytes(&[]) }
            }
            38 => {
                let ended = std::mem::replace(&mut call, CallRef::NONE);
                View::CallReturned { call: ended, value: 0, failed: false }
            }
            _ => View::StoreLate { virt: alias, phys, len: 4 },
        };
        rec.push(Event { cause: call, ..Event::new(CpuId(step.cpu), view) });
        if rec.pending() >= 16 {
            batches.push(rec.take());
        }
    }
    batches.push(rec.take());
    (header, batches)
}

/// The report over a stream, and how many events were withheld.
fn report(header: &Header, batches: &[Batch], options: &Options, elide: bool) -> (Report, u64) {
    let mut checker = Checker::new(options.clone());
    let mut withheld = 0;
    if elide {
        let mut elided = Elided::new(&mut checker);
        let _ = elided.begin(header);
        batches.iter().for_each(|b| {
            let _ = elided.batch(b);
        });
        withheld = elided.finish();
    } else {
        let _ = checker.begin(header);
        batches.iter().for_each(|b| {
            let _ = checker.batch(b);
        });
    }
    (checker.finish(), withheld)
}

/// What a report says but for how much was looked at.
fn said(report: &Report) -> String {
    format!("{:#?}\n{:#?}\n{:?}", report.findings, report.windows, report.notes)
}

fn compare(arch: Arch, amd: bool, steps: &[Step]) -> Result<(), TestCaseError> {
    let (header, batches) = stream(arch, amd, steps);
    for mode in [Mode::Observed, Mode::Predicted] {
        for reading in [Reading::Strict, Reading::Mapped, Reading::Fresh] {
            let options = Options { mode, reading, ..Options::default() };
            let (full, _) = report(&header, &batches, &options, false);
            let (elided, withheld) = report(&header, &batches, &options, true);
            prop_assert_eq!(said(&full), said(&elided), "{} {:?} {:?}", arch, mode, reading);
            // Each event is passed on, withheld, or told late instead of one withheld.
            prop_assert!(elided.events <= full.events && full.events <= elided.events + withheld);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn x86_findings_are_the_same(steps in steps(), amd: bool) {
        compare(Arch::X86_64, amd, &steps)?;
    }

    #[test]
    fn arm64_findings_are_the_same(steps in steps()) {
        compare(Arch::Arm64, false, &steps)?;
    }

    #[test]
    fn powerpc_findings_are_the_same(steps in steps()) {
        compare(Arch::Ppc64le, false, &steps)?;
    }
}

#[test]
fn a_loop_over_one_block_is_almost_all_withheld() {
    let fetch = Step { cpu: 0, what: 0, frame: 0, unit: 0, other: 0 };
    let (header, batches) = stream(Arch::Arm64, false, &vec![fetch; 1000]);
    let (report, withheld) = report(&header, &batches, &Options::default(), true);
    // The mappings, the first fetch and the last.
    assert_eq!((withheld, report.events), (999, 2 * FRAMES + 2));
}
