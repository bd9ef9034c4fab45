//! Any bytes in a `.tbe` file: nothing panics, hangs or grows without bound.

#![allow(clippy::unwrap_used)] // tests may

mod common;

use common::*;
use proptest::prelude::*;
use textbed_arch::{Arch, CpuId, Features, SpaceId};
use textbed_check::{Checker, Mode, Options, Reading};
use textbed_event::{
    Batch, CallRef, Event, Facts, Flags, Header, Kind, KindSet, OpId, OriginId, Sink, Source,
};

/// A word that is now and then something that fits.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0u64..8,
        (0u64..64).prop_map(|n| 0xffff_ffff_c000_0000 + n * 0x800),
        (0u64..64).prop_map(|n| n * 0x800),
        (0u64..64, 0u64..4).prop_map(|(n, x)| n << 32 | x),
        // Leaves: count, shift, old shift, old and new permission.
        (1u64..5, 12u64..31, any::<u8>(), any::<u8>()).prop_map(|(n, s, old, new)| n
            | s << 32
            | s << 40
            | u64::from(old) << 48
            | u64::from(new) << 56),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let numbers = (0u8..48, 0u16..4, 0u32..3, 0u32..6, any::<u32>(), any::<bool>());
    (numbers, word(), word(), word()).prop_map(|((kind, cpu, space, call, flags, op), a, b, c)| {
        Event {
            seq: 0,
            at_ns: a,
            a,
            b,
            c,
            origin: OriginId(call),
            cause: CallRef(call),
            space: SpaceId(space),
            flags: Flags(if op { flags } else { 0 }),
            cpu: CpuId(if kind == 47 { 65535 } else { cpu }),
            op: OpId(u16::from(op)),
            kind: Kind::from_number(kind).unwrap(),
        }
    })
}

/// Most events with words that a source could have made, some as they are.
fn mostly_valid() -> impl Strategy<Value = Event> {
    (event(), 0u8..10).prop_map(|(raw, keep)| {
        let made = Event::new(raw.cpu, raw.view());
        if keep == 0 { raw } else { Event { a: made.a, b: made.b, c: made.c, ..raw } }
    })
}

fn header(arch: usize, features: u64, facts: u32, odd: u32) -> Header {
    let mut header = Header::all_seeing(Arch::ALL[arch % 5], (odd % 70) as u16);
    header.features = Features::from_bits_retain(features);
    header.facts = Facts::from_bits_retain(facts);
    header.page_shift = odd as u8;
    header.dline_bytes = odd;
    header.iline_bytes = odd.rotate_left(7);
    header.source = Source::Watch;
    if odd.is_multiple_of(3) {
        header.records = KindSet(u64::from(odd) << 20 | u64::from(odd));
    }
    header
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)))]
    #[test]
    fn any_events_are_survived_and_give_the_same_report_twice(
        events in prop::collection::vec(mostly_valid(), 0..300),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        arch in 0usize..5,
        features in any::<u64>(),
        facts in prop_oneof![Just(u32::MAX), any::<u32>()],
        odd in any::<u32>(),
        settings in (0usize..3, any::<bool>(), any::<bool>()),
    ) {
        let header = header(arch, features, facts, odd);
        let events: Vec<Event> =
            events.into_iter().enumerate().map(|(i, e)| Event { seq: i as u64, ..e }).collect();
        let batch = Batch { events, bytes: payload, name_base: 1, ..Batch::default() };
        let run = || {
            let (reading, cmodx, observed) = settings;
            let mode = if observed { Mode::Observed } else { Mode::Predicted };
            let reading = Reading::ALL[reading];
            let mut checker = Checker::new(Options { reading, cmodx, mode, ..Options::default() });
            let _ = checker.begin(&header);
            let _ = checker.batch(&batch);
            checker.finish()
        };
        prop_assert_eq!(run(), run());
    }
}

#[test]
fn no_header_is_said_and_checks_nothing() {
    let (_, batch) = {
        let mut s = Story::new(Arch::X86_64);
        s.leaf(0, AREA, 0, 1, NONE, RWX);
        s.batch()
    };
    let mut checker = Checker::new(Options::default());
    let _ = checker.batch(&batch);
    let report = checker.finish();
    assert!(report.findings.is_empty() && report.arch.is_none());
    assert!(report.notes[0].contains("no header"));
}

#[test]
fn ranges_over_the_whole_space_cost_one_entry() {
    // A tebibyte mapped, filled, protected, flushed and freed: quick, or this test hangs.
    let mut s = Story::new(Arch::Arm64);
    let gib = 1 << 30;
    s.huge_leaf(0, DM, 0, 30, 1024, RW);
    s.alloc(0, 0, 1 << 28, false);
    s.fill(0, DM, 0, 1024 * gib, &[0]);
    for i in 0..1000 {
        s.store(0, DM + i * gib, i * gib, &[1; 8]);
        s.clean(0, DM + i * gib, i * gib);
    }
    s.tlb_all(0, textbed_arch::effect::Reach::Broadcast);
    s.dsb(0);
    s.free(0, 0, u64::MAX);
    let report = s.run();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}
