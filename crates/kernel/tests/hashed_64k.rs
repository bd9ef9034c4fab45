//! Traces on 64-bit powerpc with hashed tables and pages of 64 KiB, worked out by hand from Linux's
//! hash_64k.c, hash-64k.h, hash_tlb.c and hash_utils.c.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot_with, expect};
use textbed_arch::paging::HASH_TREE_64K;
use textbed_arch::{Arch, CpuId, Features, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{FaultReason, MemOrder};
use textbed_machine::Span;

const POWER: Arch = Arch::Ppc64le;
const ONE: CpuId = CpuId(1);
const PAGE: u64 = 1 << 16;

fn boot(version: &str, options: &[(&str, &str)]) -> Bed {
    let features = Features::default_for(POWER) - Features::PPC_RADIX;
    let options = [&[("page_size", "64K")], options].concat();
    boot_with(version, POWER, &options, features, 2)
}

fn load(bed: &mut Bed, virt: u64) -> Result<(), FaultReason> {
    let mut bytes = [0; 8];
    bed.kernel.machine_mut().load(ONE, VirtAddr(virt), &mut bytes).map_err(|f| f.reason)
}

fn store(bed: &mut Bed, virt: u64) -> Result<(), FaultReason> {
    let m = bed.kernel.machine_mut();
    m.store(ONE, VirtAddr(virt), &[1; 8], MemOrder::Plain).map_err(|f| f.reason)
}

/// One entry for a page, whichever of its sixteen parts is used, and one tlbie.
#[test]
fn a_page_has_one_entry() {
    let mut bed = boot("6.12", &[]);
    let a = bed.area("a", "vmalloc", 3 * PAGE);
    bed.trace();
    load(&mut bed, a + 0x3000).unwrap();
    store(&mut bed, a + 0xf000).unwrap();
    store(&mut bed, a + 2 * PAGE).unwrap();
    expect(
        &bed.trace(),
        "
        1 sync ExceptionEntry
        1 leaf a+0x0 1x64K --->rw-
        1 ptesync
        1 sync ExceptionReturn
        1 load a+0x3000 8
        1 store a+0xf000 8
        1 sync ExceptionEntry
        1 leaf a+0x20000 1x64K --->rw-
        1 ptesync
        1 sync ExceptionReturn
        1 store a+0x20000 8
        ",
    );
    assert_eq!(bed.call("set_memory_ro", &[a, 3]), 0);
    expect(
        &bed.trace(),
        "
        0 call set_memory_ro
        0 leaf a+0x0 1x64K rw->---
        0 leaf a+0x20000 1x64K rw->---
        0 ptesync
        0 tlbie: tlb Address broadcast a+0x0
        0 tlbie: tlb Address broadcast a+0x20000
        0 eieio
        0 tlbsync
        0 ptesync
        0 promised NoWrite a+0x0 0x30000
        0 return 0
        ",
    );
    load(&mut bed, a + 0x8000).unwrap();
    assert_eq!(store(&mut bed, a + 0x8000), Err(FaultReason::Permission));
}

/// The leaf says that there is an entry, the table's second half which: one more than its slot.
/// Neither says that the page was divided.
#[test]
fn the_place_of_the_entry_is_in_the_second_half_of_the_table() {
    let mut bed = boot("6.12", &[]);
    let a = bed.area("a", "vmalloc", PAGE);
    store(&mut bed, a).unwrap();
    let m = bed.kernel.machine();
    let root = m.root(SpaceId::KERNEL).unwrap();
    let word = |at: PhysAddr| {
        let mut bytes = [0; 8];
        m.read_phys(at, &mut bytes).ok()?;
        Some(u64::from_be_bytes(bytes))
    };
    // By hand: 8, 10, 10 and 8 bits of index.
    let mut table = root;
    for shift in [44, 34, 24] {
        let bits = if shift == 44 { 8 } else { 10 };
        let entry = word(PhysAddr(table.0 + (a >> shift & ((1 << bits) - 1)) * 8)).unwrap();
        table = PhysAddr(entry & 0x3fff_ffff_ffff_ff00);
    }
    let at = PhysAddr(table.0 + (a >> 16 & 0xff) * 8);
    let (leaf, beside) = (word(at).unwrap(), word(PhysAddr(at.0 + 256 * 8)).unwrap());
    let field = |name: &str| HASH_TREE_64K.field(name).unwrap().get(leaf);
    assert_eq!((field("H_HASHED"), field("H_COMBO"), field("DIRTY")), (1, 0, 1));
    assert!((1..=8).contains(&beside), "a slot of the primary group: {beside:#x}");
    assert!(m.leaves(SpaceId::KERNEL, VirtAddr(a), PAGE).all(|s| matches!(s, Span::Mapped(_))));
}

/// The linear map has pages of 16 MiB, of 64 KiB with debug_pagealloc, and none is ever changed.
#[test]
fn the_linear_map_has_large_pages_or_the_kernels() {
    for (debug, shift) in [("n", 24), ("y", 16)] {
        let mut bed = boot("6.12", &[("debug_pagealloc", debug), ("memory_mib", "64")]);
        let layout = *bed.kernel.layout();
        let m = bed.kernel.machine();
        let text = m.lookup(SpaceId::KERNEL, layout.text.start).unwrap();
        assert_eq!((text.perm.letters(), text.shift), ("r-x", shift));
        let a = bed.area("a", "vmalloc", PAGE);
        let line = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
        assert_eq!(bed.call("set_memory_ro", &[line, 1]), -22);
        store(&mut bed, line + 0x4000).unwrap();
        bed.trace();
        bed.call("vfree", &[a]);
        let gone = bed.trace().contains(&"0 leaf dm(a)+0x0 1x64K rw->---".to_owned());
        assert_eq!(gone, debug == "y");
        assert_eq!(store(&mut bed, line + 0x4000).is_ok(), debug == "n");
    }
}

/// Text is patched by a page of the vmalloc area, which gets an entry of 64 KiB.
#[test]
fn patching_maps_a_page_of_64_kib() {
    for version in ["6.1", "6.12"] {
        let mut bed = boot(version, &[]);
        let a = bed.area("a", "vmalloc", PAGE);
        bed.trace();
        assert_eq!(bed.call("patch_instruction", &[a + 0x9008, 0x6000_0000]), 0);
        let trace = bed.trace();
        let made = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
        // The alias's, and that of the address whose instruction cache is invalidated.
        assert_eq!((made("1x64K --->rw-"), made("1x64K rw->---")), (2, 1), "{trace:#?}");
        assert!(made("window PatchShared 0x10000") == 1, "{trace:#?}");
        let store = trace.iter().find(|l| l.contains("store")).unwrap();
        assert!(store.ends_with("9008 4"), "{store}");
    }
}

/// No large leaves in the vmalloc area; up to 6.9 a pack has as much as a table of the last level.
#[test]
fn areas_are_made_of_small_pages() {
    let mut bed = boot("6.12", &[]);
    let a = bed.call("vmalloc_huge", &[16 << 20]) as u64;
    load(&mut bed, a).unwrap();
    assert_eq!(bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap().shift, 16);
    for (version, bytes) in [("5.18", PAGE), ("6.1", 16 << 20), ("6.12", 2 << 20)] {
        let mut bed = boot(version, &[]);
        let pack = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
        let area = bed.kernel.areas().find(VirtAddr(pack)).unwrap();
        assert_eq!(area.len, bytes, "{version}");
    }
}
