//! The codec of events and files: what is packed comes out again, and nothing that a file can hold
//! makes a reader panic.

use std::ops::ControlFlow;

use proptest::prelude::*;
use textbed_arch::paging::{Attributes, MemoryType};
use textbed_arch::{Arch, CpuId, Perm, PhysAddr, VirtAddr};
use textbed_event::{
    Batch, CallRef, Collect, Event, Header, Kind, LeafChange, NameId, OpId, Origin, OriginId,
    Recorder, Sink, View, tbe,
};

/// Any words under any kind, made valid by one trip through the view.
fn any_event() -> impl Strategy<Value = Event> {
    let kinds = prop::sample::select(Kind::ALL.to_vec());
    (kinds, any::<[u64; 3]>(), any::<u16>(), any::<u32>()).prop_map(|(kind, words, cpu, n)| {
        let mut raw = Event::new(CpuId(cpu), View::Marker { name: NameId(0) });
        raw.kind = kind;
        [raw.a, raw.b, raw.c] = words;
        let mut event = Event::new(CpuId(cpu), raw.view());
        event.seq = u64::from(n);
        event.cause = CallRef(n / 3);
        event.op = OpId(cpu / 2);
        event.origin = OriginId(n % 3);
        event
    })
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let origin = (any::<u32>(), any::<u64>()).prop_map(|(n, offset)| Origin {
        file: NameId(n),
        line: n / 2,
        offset,
        len: n % 80,
    });
    (
        prop::collection::vec(any_event(), 0..40),
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(origin, 0..4),
        prop::collection::vec(".{0,12}", 0..4),
        any::<u32>(),
    )
        .prop_map(|(events, bytes, origins, names, name_base)| Batch {
            events,
            bytes,
            origins,
            name_base,
            names,
        })
}

fn file_of(header: &Header, batches: &[Batch]) -> Vec<u8> {
    let mut writer = tbe::Writer::new(Vec::new());
    assert_eq!(writer.begin(header), ControlFlow::Continue(()));
    for batch in batches {
        assert_eq!(writer.batch(batch), ControlFlow::Continue(()));
    }
    writer.finish().expect("writing to memory")
}

proptest! {
    #[test]
    fn a_view_packs_and_unpacks_to_itself(event in any_event()) {
        prop_assert!(event.is_valid());
        let again = Event::new(event.cpu, event.view());
        prop_assert_eq!(again.view(), event.view());
        prop_assert_eq!((again.kind, again.a, again.b, again.c), (event.kind, event.a, event.b, event.c));
    }

    #[test]
    fn a_file_gives_back_its_stream(batches in prop::collection::vec(any_batch(), 0..4)) {
        let header = Header { kernel: Some("6.12".into()), ..Header::all_seeing(Arch::Arm64, 4) };
        let file = file_of(&header, &batches);
        let mut got = Collect::default();
        let events = tbe::read(file.as_slice(), &mut got).expect("a file that was just written");
        prop_assert_eq!(events, batches.iter().map(|b| b.events.len() as u64).sum::<u64>());
        prop_assert_eq!(got.header, Some(header));
        prop_assert_eq!(got.batches, batches);
    }

    #[test]
    fn a_torn_file_gives_its_whole_batches(batches in prop::collection::vec(any_batch(), 1..4), cut in any::<prop::sample::Index>()) {
        let header = Header::all_seeing(Arch::X86_64, 2);
        let file = file_of(&header, &batches);
        let cut = cut.index(file.len());
        let mut got = Collect::default();
        match tbe::read(&file[..cut], &mut got) {
            // A cut between two records cannot be told from a shorter stream.
            Ok(_) | Err(tbe::TbeError::Torn { .. }) => {}
            Err(tbe::TbeError::NotTbe) => prop_assert!(cut < 6),
            Err(other) => prop_assert!(false, "{other}"),
        }
        prop_assert!(got.batches.len() <= batches.len());
        prop_assert_eq!(&got.batches[..], &batches[..got.batches.len()]);
    }

    #[test]
    fn a_flipped_byte_is_noticed(batch in any_batch(), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut file = file_of(&Header::all_seeing(Arch::Ppc64le, 2), std::slice::from_ref(&batch));
        let at = at.index(file.len());
        file[at] ^= flip;
        prop_assert!(tbe::read(file.as_slice(), &mut Collect::default()).is_err());
    }

    #[test]
    fn noise_is_an_error(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut file = file_of(&Header::all_seeing(Arch::X86_64, 1), &[]);
        prop_assert!(tbe::read(noise.as_slice(), &mut Collect::default()).is_err() || noise == file);
        if !noise.is_empty() {
            file.extend_from_slice(&noise);
            prop_assert!(tbe::read(file.as_slice(), &mut Collect::default()).is_err());
        }
    }
}

#[test]
fn a_leaf_of_an_older_file_has_neither_bit_nor_type() {
    let (virt, phys) = (VirtAddr(0xffff_8000_0000_0000), PhysAddr(0x20_0000));
    let old = Perm::KERNEL_RW;
    let change = LeafChange { old_shift: 21, ..LeafChange::usual(512, 12, old, Perm::KERNEL_RO) };
    let event = Event::new(CpuId(0), View::Leaf { virt, phys, change });
    // Count, sizes and permissions, a byte each for what is no count.
    let bits = |perm: Perm| u64::from(perm.bits());
    let word = 512 | 12 << 32 | 21 << 40 | bits(old) << 48 | bits(Perm::KERNEL_RO) << 56;
    assert_eq!(event.c, word);
    // What has them needs no more room, and differs from it there alone.
    let attributes = Attributes { contiguous: true, memory: MemoryType::Other };
    let change = LeafChange { attributes, was_contiguous: true, ..change };
    let more = Event::new(CpuId(0), View::Leaf { virt, phys, change });
    assert_eq!(more.c ^ event.c, 0b11 << 38 | 0b11 << 46);
    assert_eq!(more.view(), View::Leaf { virt, phys, change });
}

#[test]
fn an_event_is_one_cache_line() {
    assert_eq!(size_of::<Event>(), 64);
}

#[test]
fn every_kind_has_a_view_of_its_own() {
    for kind in Kind::ALL {
        let mut event = Event::new(CpuId(0), View::Marker { name: NameId(0) });
        event.kind = kind;
        [event.a, event.b, event.c] = [0; 3];
        assert_eq!(Event::new(CpuId(0), event.view()).kind, kind);
    }
}

#[test]
fn payload_is_reached_through_the_batch() {
    let mut r = Recorder::new();
    let bytes = r.bytes(&[1, 2, 3]);
    let store = View::Store {
        virt: textbed_arch::VirtAddr(0x1000),
        phys: textbed_arch::PhysAddr(0x2000),
        bytes,
        order: textbed_event::MemOrder::Release,
    };
    r.emit(CpuId(1), store);
    let batch = r.take();
    let View::Store { bytes, order, .. } = batch.events[0].view() else { panic!("a store") };
    assert_eq!(batch.bytes(bytes), [1, 2, 3]);
    assert_eq!(order, textbed_event::MemOrder::Release);
    let outside = textbed_event::Bytes { offset: 2, len: u32::MAX };
    assert_eq!(batch.bytes(outside), []);
}

#[test]
fn a_comparison_keeps_its_verdict_beside_its_payload() {
    let mut r = Recorder::new();
    r.bytes(&[9]);
    let (virt, phys) = (textbed_arch::VirtAddr(0x1000), textbed_arch::PhysAddr(0x2000));
    for equal in [true, false] {
        let bytes = r.bytes(&[1, 2, 3]);
        let view = View::Compared { virt, phys, bytes, equal };
        assert_eq!(Event::new(CpuId(0), view).view(), view);
        assert_eq!(bytes.len, 3);
    }
}
