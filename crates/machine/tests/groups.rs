//! Leaves that translate together by arm64's contiguous bit: what a CPU makes of one of them, and
//! what the stream tells.

#![allow(clippy::unwrap_used)]

use textbed_arch::paging::{Attributes, MemoryType};
use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{FaultReason, LeafChange, MemOrder, View};
use textbed_machine::{Machine, MachineConfig, MapError, Newest, Policy, Stalest};

const P0: CpuId = CpuId(0);
const P1: CpuId = CpuId(1);
const KERNEL: SpaceId = SpaceId::KERNEL;
const PAGE: u64 = 4096;
const ENTRIES: u64 = 16;
const AT: VirtAddr = VirtAddr(0xffff_8000_8000_0000);
const JOINED: Attributes = Attributes { contiguous: true, memory: MemoryType::WriteBack };
const BBML2: Features = Features::ARM_BBML2_NOABORT;

fn page(n: u64) -> VirtAddr {
    AT.offset(n * PAGE)
}

/// A group of writable pages, each of which begins with its number, and two frames more.
fn group(on: Features, policy: Box<dyn Policy>) -> (Machine, PhysAddr) {
    let features = Features::default_for(Arch::Arm64) | on;
    let config = MachineConfig { features, ..MachineConfig::new(Arch::Arm64) };
    let mut m = Machine::new(config, policy).unwrap();
    let phys = m.alloc_frames(P0, 2 * ENTRIES, 17, false).unwrap().addr();
    for n in 0..2 * ENTRIES {
        m.load_image(PhysAddr(phys.0 + n * PAGE), &[n as u8]).unwrap();
    }
    let to = (AT, phys, ENTRIES * PAGE);
    m.map_as(P0, KERNEL, to, 12, (Perm::KERNEL_RW, JOINED)).unwrap();
    (m, phys)
}

fn flush(m: &mut Machine, n: u64) {
    m.op_named(P0, "dsb ishst", 0).unwrap();
    m.tlbi(P0, "tlbi vaale1is", page(n), PAGE, 0).unwrap();
    m.op_named(P0, "dsb ish", 0).unwrap();
}

fn read_only(m: &mut Machine, n: u64, count: u64) {
    m.protect(P0, KERNEL, page(n), count * PAGE, Perm::empty(), Perm::WRITE).unwrap();
}

fn load(m: &mut Machine, n: u64) -> Result<u8, FaultReason> {
    let mut byte = [0];
    m.load(P1, page(n), &mut byte).map(|()| byte[0]).map_err(|fault| fault.reason)
}

fn store(m: &mut Machine, n: u64) -> Result<(), FaultReason> {
    let stored = m.store(P1, page(n).offset(64), &[1], MemOrder::Plain);
    stored.map_err(|fault| fault.reason)
}

#[test]
fn a_leaf_that_lost_a_right_gets_it_from_its_neighbours() {
    let (mut m, _) = group(Features::empty(), Box::new(Stalest));
    read_only(&mut m, 3, 1);
    flush(&mut m, 3);
    assert_eq!(store(&mut m, 3), Ok(()), "by the neighbours");
    read_only(&mut m, 0, ENTRIES);
    // What they said is held for all of the group, and goes page by page.
    flush(&mut m, 4);
    assert_eq!(store(&mut m, 4), Err(FaultReason::Permission));
    assert_eq!(store(&mut m, 3), Ok(()));
    flush(&mut m, 3);
    assert_eq!(store(&mut m, 3), Err(FaultReason::Permission));

    let (mut m, _) = group(Features::empty(), Box::new(Newest));
    read_only(&mut m, 3, 1);
    flush(&mut m, 3);
    assert_eq!(store(&mut m, 3), Err(FaultReason::Permission), "newest goes by its own leaf");
    assert_eq!(store(&mut m, 4), Ok(()));
}

#[test]
fn a_flush_need_not_take_more_than_one_leaf_of_a_group() {
    let (mut m, _) = group(Features::empty(), Box::new(Stalest));
    m.unmap(P0, KERNEL, AT, ENTRIES * PAGE).unwrap();
    flush(&mut m, 3);
    assert_eq!(load(&mut m, 3), Err(FaultReason::NotPresent));
    assert_eq!(load(&mut m, 4), Ok(4));
}

#[test]
fn a_leaf_that_is_not_valid_is_found_by_its_neighbours() {
    let (mut m, _) = group(Features::empty(), Box::new(Stalest));
    m.unmap(P0, KERNEL, page(3), PAGE).unwrap();
    flush(&mut m, 3);
    assert_eq!(load(&mut m, 3), Ok(3));
    m.unmap(P0, KERNEL, AT, ENTRIES * PAGE).unwrap();
    (0..ENTRIES).for_each(|n| flush(&mut m, n));
    assert_eq!(load(&mut m, 3), Err(FaultReason::NotPresent));
}

#[test]
fn bits_that_differ_may_end_in_a_conflict() {
    for (on, result) in [(Features::empty(), Err(FaultReason::Conflict)), (BBML2, Ok(3))] {
        let (mut m, _) = group(on, Box::new(Stalest));
        m.set_contiguous(P0, KERNEL, page(5), PAGE, false).unwrap();
        (0..ENTRIES).for_each(|n| flush(&mut m, n));
        assert_eq!(load(&mut m, 3), result);
        // All without it, and nothing held of what was.
        m.set_contiguous(P0, KERNEL, AT, ENTRIES * PAGE, false).unwrap();
        (0..ENTRIES).for_each(|n| flush(&mut m, n));
        assert_eq!(load(&mut m, 3), Ok(3));
    }
}

#[test]
fn a_bit_or_type_that_changes_in_use_conflicts_with_what_is_held() {
    let device = Attributes { contiguous: true, memory: MemoryType::Device };
    for on in [Features::empty(), BBML2] {
        let (mut m, _) = group(on, Box::new(Stalest));
        m.set_contiguous(P0, KERNEL, AT, ENTRIES * PAGE, false).unwrap();
        let result = if on == BBML2 { Ok(7) } else { Err(FaultReason::Conflict) };
        assert_eq!(load(&mut m, 7), result, "{on:?}");
        let (mut m, phys) = group(on, Box::new(Stalest));
        for n in 0..ENTRIES {
            let to = (page(n), PhysAddr(phys.0 + n * PAGE));
            m.replace_as(P0, KERNEL, to, 12, (Perm::KERNEL_RW, device)).unwrap();
        }
        assert_eq!(load(&mut m, 7), Err(FaultReason::Conflict), "{on:?}");
        (0..ENTRIES).for_each(|n| flush(&mut m, n));
        assert_eq!(load(&mut m, 7), Ok(7));
    }
}

#[test]
fn a_frame_of_its_own_is_one_of_two() {
    let (mut m, phys) = group(BBML2, Box::new(Stalest));
    let other = PhysAddr(phys.0 + (ENTRIES + 9) * PAGE);
    m.unmap(P0, KERNEL, page(3), PAGE).unwrap();
    flush(&mut m, 3);
    m.map_as(P0, KERNEL, (page(3), other, PAGE), 12, (Perm::KERNEL_RW, JOINED)).unwrap();
    flush(&mut m, 3);
    // By its own leaf 25, by those before it 3; and by it the next one is 26.
    assert_eq!(load(&mut m, 3), Ok(3));
    assert_eq!(load(&mut m, 4), Ok(26));
}

#[test]
fn the_stream_tells_of_bits_and_types() {
    let (mut m, phys) = group(Features::empty(), Box::new(Newest));
    m.take_batch();
    m.set_contiguous(P0, KERNEL, page(2), 2 * PAGE, false).unwrap();
    let plain = Attributes { contiguous: false, memory: MemoryType::NonCacheable };
    m.replace_as(P0, KERNEL, (page(2), phys), 12, (Perm::KERNEL_RW, plain)).unwrap();
    m.unmap(P0, KERNEL, page(4), PAGE).unwrap();
    let told = m.take_batch();
    let leaves = told.events.iter().filter_map(|e| match e.view() {
        View::Leaf { virt, change, .. } => Some((virt, change)),
        _ => None,
    });
    let (rw, none) = (Perm::KERNEL_RW, Perm::empty());
    let changes = [
        (page(2), LeafChange { was_contiguous: true, ..LeafChange::usual(2, 12, rw, rw) }),
        (page(2), LeafChange { attributes: plain, ..LeafChange::usual(1, 12, rw, rw) }),
        (page(4), LeafChange { was_contiguous: true, ..LeafChange::usual(1, 12, rw, none) }),
    ];
    assert_eq!(leaves.collect::<Vec<_>>(), changes);
}

#[test]
fn what_has_no_such_bit_says_so() {
    for arch in [Arch::X86_64, Arch::Ppc64le] {
        let mut m = Machine::new(MachineConfig::new(arch), Box::new(Newest)).unwrap();
        let phys = m.alloc_frames(P0, ENTRIES, 16, false).unwrap().addr();
        let at = VirtAddr(if arch == Arch::X86_64 { 0xffff_ffff_8000_0000 } else { 0xc008 << 48 });
        let to = (at, phys, ENTRIES * PAGE);
        let refused = m.map_as(P0, KERNEL, to, 12, (Perm::KERNEL_RW, JOINED));
        assert_eq!(refused, Err(MapError::Attributes { attributes: JOINED }), "{arch}");
        assert_eq!(m.lookup(KERNEL, at), None);
    }
}
