//! Traces on 32-bit powerpc, worked out by hand from Linux's book3s32/hash_low.S, mmu.c and tlb.c,
//! nohash/8xx.c, pageattr.c and code-patching.c.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot_with, expect, mark_power_alias};
use textbed_arch::{Arch, CpuId, Features, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{FaultReason, MemOrder};
use textbed_kernel::{Arg, BootArgs, CallError, Config, Kernel, KernelError};
use textbed_machine::{Newest, Span};

const PPC32: Arch = Arch::Ppc32;
const ZERO: CpuId = CpuId(0);
const ONE: CpuId = CpuId(1);

fn boot(version: &str, options: &[(&str, &str)]) -> Bed {
    boot_with(version, PPC32, options, Features::default_for(PPC32), 2)
}

fn boot_8xx(version: &str) -> Bed {
    boot_with(version, PPC32, &[], Features::default_for(PPC32) | Features::PPC_8XX, 1)
}

fn load(bed: &mut Bed, cpu: CpuId, virt: u64) -> Result<(), FaultReason> {
    let mut bytes = [0; 4];
    bed.kernel.machine_mut().load(cpu, VirtAddr(virt), &mut bytes).map_err(|f| f.reason)
}

fn store(bed: &mut Bed, cpu: CpuId, virt: u64) -> Result<(), FaultReason> {
    let m = bed.kernel.machine_mut();
    m.store(cpu, VirtAddr(virt), &[1; 4], MemOrder::Plain).map_err(|f| f.reason)
}

fn fetch(bed: &mut Bed, cpu: CpuId, virt: u64) -> Result<(), FaultReason> {
    let got = bed.kernel.machine_mut().fetch(cpu, VirtAddr(virt), 4);
    got.map(|_| ()).map_err(|f| f.reason)
}

/// `execmem_alloc` of a page.
fn execmem(bed: &mut Bed, kind: &str) -> u64 {
    let args = [Arg::Flags(vec![kind.to_owned()]), Arg::Value(1 << 12)];
    bed.try_call("execmem_alloc", &args).unwrap().value as u64
}

/// What the kernel's records and blocks say of an address.
fn letters(bed: &Bed, virt: u64) -> (String, u32) {
    let found = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(virt)).unwrap();
    (found.perm.letters().to_owned(), found.shift)
}

/// An entry is made by the access that misses it, invalid until all of it is stored; a change of
/// permissions flushes each page by itself, and a page without an entry is only looked at.
#[test]
fn entries_are_made_at_a_fault_and_flushed_by_page() {
    let mut bed = boot("6.12", &[]);
    let a = bed.area("a", "vmalloc", 2 << 12);
    bed.trace();
    load(&mut bed, ONE, a).unwrap();
    load(&mut bed, ONE, a + 8).unwrap();
    expect(
        &bed.trace(),
        "
        1 sync ExceptionEntry
        1 sync
        1 tlbsync
        1 sync
        1 sync
        1 leaf a+0x0 1x4K --->rw-
        1 sync
        1 sync ExceptionReturn
        1 load a+0x0 4
        1 load a+0x8 4
        ",
    );
    assert_eq!(bed.call("set_memory_ro", &[a, 2]), 0);
    expect(
        &bed.trace(),
        "
        0 call set_memory_ro
        0 sync Instruction isync
        0 leaf a+0x0 1x4K rw->---
        0 sync
        0 tlbie: tlb Address broadcast a+0x0
        0 sync
        0 tlbsync
        0 sync
        0 sync Instruction isync
        0 sync Instruction isync
        0 sync Instruction isync
        0 promised NoWrite a+0x0 0x2000
        0 return 0
        ",
    );
}

/// What the kernel warns of at boot: STRICT_MODULE_RWX won't work. A leaf's permission is looked at
/// when its entry is made; the entry of a load grants stores.
#[test]
fn read_only_lasts_until_the_first_load() {
    for version in ["5.18", "6.6", "6.12", "7.0"] {
        let mut bed = boot(version, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        assert_eq!(bed.call("set_memory_ro", &[a, 1]), 0);
        assert_eq!(store(&mut bed, ONE, a), Err(FaultReason::NotPresent), "{version}");
        load(&mut bed, ONE, a).unwrap();
        store(&mut bed, ONE, a).unwrap();
        // And of the kernel's own search nothing is to be seen.
        assert_eq!(letters(&bed, a), ("r--".to_owned(), 12));
    }
}

/// Execution goes by segment: nothing outside of the modules' is executed, whatever a leaf says;
/// inside, a leaf is asked from 6.7 on, and by the access that makes the entry alone.
#[test]
fn execution_is_a_matter_of_segments() {
    let never = FaultReason::Permission;
    for version in ["6.6", "6.12"] {
        let mut bed = boot(version, &[]);
        let v = bed.area("v", "vmalloc", 1 << 12);
        assert_eq!(bed.call("set_memory_x", &[v, 1]), 0);
        load(&mut bed, ONE, v).unwrap();
        assert_eq!(fetch(&mut bed, ONE, v), Err(never), "{version}");
        let checks = version == "6.12";
        let m = if checks {
            execmem(&mut bed, "EXECMEM_MODULE_TEXT")
        } else {
            bed.call("module_alloc", &[1 << 12]) as u64
        };
        assert_eq!(m, 0xbe40_0000, "from 32 MiB before the end of the text on");
        assert_eq!(letters(&bed, m).0, "rw-");
        let early = fetch(&mut bed, ONE, m);
        assert_eq!(early, if checks { Err(FaultReason::NotPresent) } else { Ok(()) });
        load(&mut bed, ONE, m).unwrap();
        fetch(&mut bed, ONE, m).unwrap();
        let trace = bed.trace();
        assert!(trace.iter().any(|l| l.ends_with("1x4K --->rwx")), "{trace:#?}");
    }
    // Slots of kprobes lie in the vmalloc area from 6.10 on.
    let mut bed = boot("6.12", &[]);
    let slot = execmem(&mut bed, "EXECMEM_KPROBES");
    assert!(bed.kernel.layout().vmalloc.contains(VirtAddr(slot)));
    assert_eq!(letters(&bed, slot).0, "r-x");
    assert_eq!(fetch(&mut bed, ONE, slot), Err(FaultReason::NotPresent));
    load(&mut bed, ONE, slot).unwrap();
    assert_eq!(fetch(&mut bed, ONE, slot), Err(never));
}

/// Low memory is in blocks as far as registers go; these have no leaves, and changes of their
/// permissions do nothing and say 0.
#[test]
fn blocks_hold_low_memory_and_the_text() {
    let eight = Features::default_for(PPC32);
    let mut bed = boot_with("6.12", PPC32, &[], eight - Features::PPC_HIGH_BATS, 2);
    let start = bed.kernel.layout().direct_map.start.0;
    assert_eq!(letters(&bed, start), ("r-x".to_owned(), 17));
    assert_eq!(letters(&bed, start + (4 << 20)), ("rw-".to_owned(), 17));
    assert_eq!(letters(&bed, start + (31 << 20)), ("rw-".to_owned(), 17));
    assert_eq!(letters(&bed, start + (32 << 20)), ("rw-".to_owned(), 12));
    bed.trace();
    fetch(&mut bed, ONE, start).unwrap();
    load(&mut bed, ONE, start).unwrap();
    assert_eq!(store(&mut bed, ONE, start), Err(FaultReason::Permission));
    assert_eq!(fetch(&mut bed, ONE, start + (5 << 20)), Err(FaultReason::Permission));
    let trace = bed.trace();
    assert!(!trace.iter().any(|l| l.contains("leaf")), "no entry is made: {trace:#?}");
    for at in [start, start + (8 << 20)] {
        assert_eq!(bed.call("set_memory_ro", &[at, 1]), 0);
        assert_eq!(bed.call("set_memory_rw", &[at, 1]), 0);
    }
    assert_eq!(store(&mut bed, ONE, start), Err(FaultReason::Permission));
    store(&mut bed, ONE, start + (8 << 20)).unwrap();
    // Beyond the blocks there are leaves.
    let page = start + (200 << 20);
    assert_eq!(bed.call("set_memory_ro", &[page, 1]), 0);
    assert_eq!(store(&mut bed, ONE, page), Err(FaultReason::NotPresent));
    // With eight pairs, and without STRICT_KERNEL_RWX one block of 256 MiB.
    let bed = boot("6.12", &[]);
    assert_eq!(letters(&bed, page), ("rw-".to_owned(), 17));
    let bed = boot("6.12", &[("STRICT_KERNEL_RWX", "n")]);
    assert_eq!(letters(&bed, start), ("rwx".to_owned(), 17));
    let spans = bed.kernel.machine().leaves(SpaceId::KERNEL, VirtAddr(start), 256 << 20);
    assert!(spans.into_iter().all(|span| matches!(span, Span::Gap { .. })));
}

#[test]
fn patching_goes_through_a_vmalloc_page() {
    for version in ["6.1", "6.12"] {
        let mut bed = boot(version, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        bed.trace();
        assert_eq!(bed.call("patch_instruction", &[a + 8, 0x6000_0000]), 0);
        mark_power_alias(&mut bed, 8);
        assert_eq!(bed.call("patch_instruction", &[a + 8, 0x6000_0000]), 0);
        expect(
            &bed.trace(),
            "
        0 call patch_instruction
        0 patch site a+0x8
        0-window PatchShared 0x1000
        0-sync ExceptionEntry
        0-sync
        0-tlbsync
        0-sync
        0-sync
        0-leaf alias+0x0 1x4K --->rw-
        0-sync
        0-sync ExceptionReturn
        0-store alias+0x8 4
        0-dcbst alias+0x8
        0-sync
        0-icbi a+0x8
        0-sync
        0-sync Instruction isync
        0-sync Instruction isync
        0-leaf alias+0x0 1x4K rw->---
        0-sync
        0-tlbie: tlb Address broadcast alias+0x0
        0-sync
        0-tlbsync
        0-sync
        0-sync Instruction isync
        0-window closed
        0 return 0
            ",
        );
    }
}

/// Entries outlive their leaves: vfree clears these, and the purge flushes the entries.
#[test]
fn an_area_that_was_freed_is_reached_until_the_purge() {
    let mut bed = boot("6.12", &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    load(&mut bed, ONE, a).unwrap();
    bed.trace();
    assert_eq!(bed.call("vfree", &[a]), 0);
    assert!(!bed.trace().iter().any(|l| l.contains("leaf")));
    store(&mut bed, ONE, a).unwrap();
    assert_eq!(bed.call("vm_unmap_aliases", &[]), 0);
    let trace = bed.trace();
    assert!(trace.contains(&"0 leaf a+0x0 1x4K rw->---".to_owned()), "{trace:#?}");
    assert_eq!(store(&mut bed, ONE, a), Err(FaultReason::NotPresent));
    // A whole area at its end, too, where the flags say so.
    let m = execmem(&mut bed, "EXECMEM_MODULE_TEXT");
    load(&mut bed, ONE, m).unwrap();
    assert_eq!(bed.call("execmem_free", &[m]), 0);
    assert_eq!(load(&mut bed, ONE, m), Err(FaultReason::NotPresent));
}

/// The caches are not coherent: lines of 32 bytes, by address.
#[test]
fn caches_are_maintained_by_line() {
    let mut bed = boot("6.12", &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    store(&mut bed, ZERO, a).unwrap();
    bed.trace();
    bed.call("flush_icache_range", &[a, a + 64]);
    expect(
        &bed.trace(),
        "
        0 call flush_icache_range
        0 dcbst a+0x0
        0 dcbst a+0x20
        0 sync
        0 icbi a+0x0
        0 icbi a+0x20
        0 sync
        0 sync Instruction isync
        0 return 0
        ",
    );
}

/// On 8xx a leaf is what the TLB is loaded with: permissions are what they say.
#[test]
fn on_8xx_permissions_hold() {
    let mut bed = boot_8xx("6.12");
    let a = bed.area("a", "vmalloc", 2 << 12);
    store(&mut bed, ZERO, a).unwrap();
    bed.trace();
    assert_eq!(bed.call("set_memory_ro", &[a, 1]), 0);
    expect(
        &bed.trace(),
        "
        0 call set_memory_ro
        0 leaf a+0x0 1x4K rw->r--
        0 tlbie: tlb Address broadcast a+0x0
        0 sync
        0 promised NoWrite a+0x0 0x1000
        0 return 0
        ",
    );
    load(&mut bed, ZERO, a).unwrap();
    assert_eq!(store(&mut bed, ZERO, a), Err(FaultReason::Permission));
    assert_eq!(fetch(&mut bed, ZERO, a), Err(FaultReason::Permission));
    assert_eq!(bed.call("set_memory_rox", &[a, 1]), 0);
    fetch(&mut bed, ZERO, a).unwrap();
    bed.trace();
    bed.call("flush_tlb_kernel_range", &[a, a + 0x2000]);
    expect(
        &bed.trace(),
        "
        0 call flush_tlb_kernel_range
        0 sync
        0 tlbia: tlb All local
        0 sync Instruction isync
        0 return 0
        ",
    );
    let text = bed.kernel.layout().text.start.0;
    assert_eq!(letters(&bed, text).0, "r-x");
    assert_eq!(
        bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(text)).unwrap().phys,
        PhysAddr(0)
    );
    // Larger pages than the model has are what low memory is made of.
    let refused = bed.try_call("set_memory_ro", &common::values(&[text, 1])).unwrap_err();
    assert!(matches!(refused, CallError::NotModelled { .. }), "{refused}");
}

#[test]
fn what_is_not_modelled_is_refused_by_name() {
    let boot = |options: &[(&str, &str)], features, cpus| {
        let mut config = Config::new(PPC32);
        for (name, value) in options {
            config.set(name, value).unwrap();
        }
        let version = "6.12".parse().unwrap();
        let args = BootArgs { version, arch: PPC32, config, features, cpus };
        match Kernel::boot(args, Box::new(Newest)) {
            Err(KernelError::NotModelled { what }) => what,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("booted"),
        }
    };
    let default = Features::default_for(PPC32);
    assert_eq!(boot(&[], default | Features::PPC_8XX, 2), "2 CPUs on an 8xx, which has one");
    assert!(boot(&[], default - Features::PPC_TLBIE, 1).contains("without tlbie"));
    assert!(boot(&[("debug_pagealloc", "y")], default, 1).contains("debug_pagealloc"));
    assert!(boot(&[("memory_mib", "1024")], default, 1).contains("layout of ppc32"));
    let mut bed = boot_with("6.12", PPC32, &[], default, 2);
    let no = bed.try_call("bpf_prog_pack_alloc", &common::values(&[64])).unwrap_err();
    assert!(no.to_string().contains("32-bit powerpc"), "{no}");
    let v = bed.try_call("vmalloc_huge", &common::values(&[2 << 20])).unwrap().value;
    assert_eq!(letters(&bed, v as u64).1, 12);
}
