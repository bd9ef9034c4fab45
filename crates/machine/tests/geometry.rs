//! Line sizes of a machine: what they may be, and that a clean and an invalidation reach one line.

#![allow(clippy::unwrap_used)]

use textbed_arch::cache::CacheGeometry;
use textbed_arch::{Arch, CpuId, Perm, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_machine::{Machine, MachineConfig, MachineError, Newest, Stalest};

const CPU: CpuId = CpuId(0);
const CODE: VirtAddr = VirtAddr(0xffff_8000_8000_0000);

fn config(dline_bytes: u32, iline_bytes: u32) -> MachineConfig {
    let geometry = CacheGeometry { dline_bytes, iline_bytes };
    MachineConfig { geometry, ..MachineConfig::new(Arch::Arm64) }
}

#[test]
fn lines_are_powers_of_two_that_ctr_can_express() {
    for (d, i) in [(0, 64), (64, 0), (2, 64), (48, 64), (64, 4096)] {
        let refused = Machine::new(config(d, i), Box::new(Newest));
        assert!(matches!(refused, Err(MachineError::Config(_))), "{d} {i}");
    }
    assert_eq!(Machine::new(config(4, 128), Box::new(Newest)).unwrap().header().iline_bytes, 128);
}

/// Whether the second word is old after maintenance of the first one's address.
fn neighbour_is_old(dline: u32, iline: u32) -> bool {
    let mut m = Machine::new(config(dline, iline), Box::new(Stalest)).unwrap();
    let phys = m.alloc_frames(CPU, 1, 12, false).unwrap().addr();
    m.load_image(phys, &[0; 64]).unwrap();
    m.map(CPU, SpaceId::KERNEL, CODE, phys, 4096, 12, Perm::KERNEL_RWX).unwrap();
    m.op_named(CPU, "dsb ish", 0).unwrap();
    m.op_named(CPU, "isb", 0).unwrap();
    m.store(CPU, CODE.offset(4), &[1; 4], MemOrder::Plain).unwrap();
    for name in ["dc cvau", "dsb ish", "ic ivau", "dsb ish", "isb"] {
        m.op_named(CPU, name, CODE.0).unwrap();
    }
    m.fetch(CPU, CODE.offset(4), 4).unwrap().bytes == [0; 4]
}

#[test]
fn maintenance_reaches_the_line_of_its_address_and_no_more() {
    assert!(!neighbour_is_old(64, 64));
    assert!(neighbour_is_old(4, 64), "not cleaned");
    assert!(neighbour_is_old(64, 4), "not invalidated");
    assert!(neighbour_is_old(4, 4));
}
