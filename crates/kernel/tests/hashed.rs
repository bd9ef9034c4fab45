//! Traces on 64-bit powerpc with hashed tables, worked out by hand from Linux's hash_utils.c,
//! hash_tlb.c, hash_native.c and pageattr.c.

mod common;

use common::{Bed, boot_with, expect, mark_power_alias, power_patch_shared, values};
use proptest::prelude::*;
use textbed_arch::paging::HASH_TREE_4K;
use textbed_arch::{Arch, CpuId, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{FaultReason, MemOrder};
use textbed_kernel::{BootArgs, Config, Kernel, KernelError, Version};
use textbed_machine::{Machine, Newest, Random, Span, Stalest};

const POWER: Arch = Arch::Ppc64le;
const ONE: CpuId = CpuId(1);

fn hashed() -> Features {
    Features::default_for(POWER) - Features::PPC_RADIX
}

fn boot(version: &str, options: &[(&str, &str)]) -> Bed {
    boot_with(version, POWER, options, hashed(), 2)
}

fn load(bed: &mut Bed, virt: u64) -> Result<(), FaultReason> {
    let mut bytes = [0; 8];
    bed.kernel.machine_mut().load(ONE, VirtAddr(virt), &mut bytes).map_err(|f| f.reason)
}

fn store(bed: &mut Bed, virt: u64) -> Result<(), FaultReason> {
    let m = bed.kernel.machine_mut();
    m.store(ONE, VirtAddr(virt), &[1; 8], MemOrder::Plain).map_err(|f| f.reason)
}

/// The entry is made by the access that misses it, and goes with the change of its leaf.
#[test]
fn entries_are_made_at_a_fault_and_flushed_with_the_leaf() {
    let mut bed = boot("6.12", &[]);
    let a = bed.area("a", "vmalloc", 3 << 12);
    bed.trace();
    load(&mut bed, a).unwrap();
    load(&mut bed, a + 8).unwrap();
    store(&mut bed, a + 0x2000).unwrap();
    expect(
        &bed.trace(),
        "
        1 sync ExceptionEntry
        1 leaf a+0x0 1x4K --->rw-
        1 ptesync
        1 sync ExceptionReturn
        1 load a+0x0 8
        1 load a+0x8 8
        1 sync ExceptionEntry
        1 leaf a+0x2000 1x4K --->rw-
        1 ptesync
        1 sync ExceptionReturn
        1 store a+0x2000 8
        ",
    );
    // Page 1 was never used: nothing is flushed for it. The others go together.
    assert_eq!(bed.call("set_memory_ro", &[a, 3]), 0);
    expect(
        &bed.trace(),
        "
        0 call set_memory_ro
        0 leaf a+0x0 1x4K rw->---
        0 leaf a+0x2000 1x4K rw->---
        0 ptesync
        0 tlbie: tlb Address broadcast a+0x0
        0 tlbie: tlb Address broadcast a+0x2000
        0 eieio
        0 tlbsync
        0 ptesync
        0 promised NoWrite a+0x0 0x3000
        0 return 0
        ",
    );
    // Without an entry: the handler makes none for it.
    assert_eq!(store(&mut bed, a), Err(FaultReason::NotPresent));
    load(&mut bed, a).unwrap();
    assert_eq!(store(&mut bed, a), Err(FaultReason::Permission));
    let trace = bed.trace();
    assert!(trace.contains(&"1 leaf a+0x0 1x4K --->r--".to_owned()), "{trace:#?}");
    // A fetch of what is not executable makes no entry; the change makes the leaf grant it.
    assert_eq!(bed.call("set_memory_x", &[a, 1]), 0);
    load(&mut bed, a).unwrap();
    let trace = bed.trace();
    assert!(trace.contains(&"1 leaf a+0x0 1x4K --->r-x".to_owned()), "{trace:#?}");
}

/// What is granted appears when it is used; what is taken away is gone at once.
#[test]
fn calls_promise_what_they_take_away() {
    let mut bed = boot("6.12", &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    let mut promised = |call: &str| {
        bed.trace();
        assert_eq!(bed.call(call, &[a, 1]), 0);
        let trace = bed.trace();
        trace.iter().find_map(|l| l.strip_prefix("0 promised ")).unwrap_or("").to_owned()
    };
    assert_eq!(promised("set_memory_rox"), "NoWrite a+0x0 0x1000");
    assert_eq!(promised("set_memory_nx"), "NoExec a+0x0 0x1000");
    assert_eq!(
        (promised("set_memory_x"), promised("set_memory_rw")),
        (String::new(), String::new())
    );
}

#[test]
fn what_is_not_vmallocs_is_refused_and_never_changes() {
    for version in ["6.1", "6.6", "6.12"] {
        let mut bed = boot(version, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        let line = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
        bed.trace();
        assert_eq!(bed.call("set_memory_ro", &[line, 1]), -22);
        expect(
            &bed.trace(),
            "
        0 call set_memory_ro
        0 WARN BadArgument
        0 refused NoWrite NotAnArea dm(a)+0x0 0x1000
        0 return -22 failed
            ",
        );
        // Once a boot.
        assert_eq!(bed.call("set_memory_nx", &[bed.kernel.layout().text.start.0, 1]), -22);
        assert!(!bed.trace().iter().any(|l| l.contains("WARN")));
        store(&mut bed, line).unwrap();
        assert_eq!(bed.call("set_memory_ro", &[a, 0]), 0);
    }
}

/// The linear map has entries of 16 MiB without leaves; the image's is read-only.
#[test]
fn the_linear_map_is_bolted() {
    let mut bed = boot("6.12", &[]);
    let layout = *bed.kernel.layout();
    let m = bed.kernel.machine();
    let text = m.lookup(SpaceId::KERNEL, layout.text.start).unwrap();
    assert_eq!((text.perm.letters(), text.shift, text.phys), ("r-x", 24, PhysAddr(0)));
    let data = m.lookup(SpaceId::KERNEL, layout.direct_map.start.offset(0x123_4567)).unwrap();
    assert_eq!((data.perm.letters(), data.phys), ("rw-", PhysAddr(0x100_0000)));
    assert!(
        m.leaves(SpaceId::KERNEL, layout.direct_map.start, 1 << 30)
            .all(|span| matches!(span, Span::Gap { .. }))
    );
    assert_eq!(store(&mut bed, layout.text.start.0), Err(FaultReason::Permission));
    load(&mut bed, layout.text.start.0).unwrap();
    let trace = bed.trace();
    assert!(!trace.iter().any(|l| l.contains("leaf")), "no entry is made: {trace:#?}");
    // The kernel's own search sees leaves alone.
    assert_eq!(bed.call("ptdump_check_wx", &[]), 1);
}

/// With `rodata=off` boot leaves the image writable; the call makes it what boot else does.
#[test]
fn the_image_becomes_read_only_entry_by_entry() {
    let mut bed = boot("6.12", &[("rodata", "off")]);
    let text = bed.kernel.layout().text.start;
    let letters = |bed: &Bed| {
        bed.kernel.machine().lookup(SpaceId::KERNEL, text).unwrap().perm.letters().to_owned()
    };
    store(&mut bed, text.0).unwrap();
    assert_eq!(letters(&bed), "rwx");
    bed.trace();
    bed.call("hash__mark_rodata_ro", &[]);
    let flush = "
        0 ptesync
        0 tlbie: tlb Address broadcast text+0x0
        0 eieio
        0 tlbsync
        0 ptesync
        0 return 0
        ";
    let call = "        0 call hash__mark_rodata_ro\n";
    expect(&bed.trace(), &format!("{call}        0 leaf text+0x0 1x16M rwx>r-x{flush}"));
    assert_eq!((letters(&bed).as_str(), store(&mut bed, text.0).is_err()), ("r-x", true));
    // Once more: nothing changes, and it is flushed all the same.
    bed.trace();
    bed.call("hash__mark_rodata_ro", &[]);
    expect(&bed.trace(), &format!("{call}{flush}"));
    // Neither with radix, nor where the function is not built.
    let unbuilt = boot("6.12", &[("STRICT_KERNEL_RWX", "n")]);
    let radix = boot_with("6.12", POWER, &[], Features::default_for(POWER), 1);
    for mut bed in [unbuilt, radix] {
        let refused = bed.try_call("hash__mark_rodata_ro", &[]).unwrap_err();
        assert!(refused.to_string().contains("without hashed tables"), "{refused}");
    }
}

#[test]
fn patching_goes_through_a_vmalloc_page_in_every_version() {
    for version in ["6.1", "6.12"] {
        let mut bed = boot(version, &[]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        bed.trace();
        assert_eq!(bed.call("patch_instruction", &[a + 8, 0x6000_0000]), 0);
        mark_power_alias(&mut bed, 8);
        assert_eq!(bed.call("patch_instruction", &[a + 8, 0x6000_0000]), 0);
        expect(&bed.trace(), &power_patch_shared(8, "alias", "alias", true));
    }
}

#[test]
fn an_entry_that_went_stays_in_use_until_it_is_invalidated() {
    let args = BootArgs {
        version: Version::release(6, 12),
        arch: POWER,
        config: Config::new(POWER),
        features: hashed(),
        cpus: 2,
    };
    let mut kernel = Kernel::boot(args, Box::new(Stalest)).unwrap();
    let a = kernel.call(CpuId(0), "vmalloc", &values(&[1 << 12])).unwrap().value as u64;
    let m = kernel.machine_mut();
    let mut bytes = [0; 8];
    m.load(ONE, VirtAddr(a), &mut bytes).unwrap();
    let ro = (Perm::empty(), Perm::WRITE);
    m.protect(CpuId(0), SpaceId::KERNEL, VirtAddr(a), 1 << 12, ro.0, ro.1).unwrap();
    m.store(ONE, VirtAddr(a), &[1; 8], MemOrder::Plain).unwrap();
    assert!(m.hash_drop(CpuId(0), VirtAddr(a)).unwrap());
    m.store(ONE, VirtAddr(a), &[2; 8], MemOrder::Plain).unwrap();
    m.hash_invalidate(CpuId(0), &[VirtAddr(a)]);
    let refused = m.store(ONE, VirtAddr(a), &[3; 8], MemOrder::Plain).unwrap_err();
    assert_eq!(refused.reason, FaultReason::NotPresent);
    assert!(!m.hash_drop(CpuId(0), VirtAddr(a)).unwrap(), "there is none any more");
}

/// With debug_pagealloc the linear map has an entry for each page, and free pages have none.
#[test]
fn free_pages_have_no_entry_with_debug_pagealloc() {
    let mut bed = boot("6.12", &[("debug_pagealloc", "y"), ("memory_mib", "64")]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    let line = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
    store(&mut bed, line).unwrap();
    store(&mut bed, a).unwrap();
    bed.trace();
    bed.call("vfree", &[a]);
    expect(
        &bed.trace(),
        "
        0 call vfree
        0 leaf a+0x0 1x4K rw->---
        0 ptesync
        0 tlbie: tlb Address broadcast a+0x0
        0 eieio
        0 tlbsync
        0 ptesync
        0 area gone a+0x0 0x1000
        0 frames -1
        0 leaf dm(a)+0x0 1x4K rw->---
        0 ptesync
        0 tlbie: tlb Address broadcast dm(a)+0x0
        0 eieio
        0 tlbsync
        0 ptesync
        0 return 0
        ",
    );
    assert_eq!(store(&mut bed, line), Err(FaultReason::NotPresent));
    bed.trace();
    assert_ne!(bed.call("vmalloc", &[1 << 12]), 0);
    let trace = bed.trace();
    let made = trace.iter().position(|l| l == "0 leaf dm(a)+0x0 1x4K --->rw-");
    assert_eq!(made.map(|n| trace[n + 1].as_str()), Some("0 ptesync"), "{trace:#?}");
    store(&mut bed, line).unwrap();
}

/// Seventeen pages of one hash: the last one's entry takes the place of another's, which nobody is
/// told of.
#[test]
fn a_full_group_gives_an_entry_up() {
    let mut bed = boot("6.12", &[("memory_mib", "64")]);
    let base = bed.kernel.layout().vmalloc.start.0 + (1 << 38);
    // As many groups as two pages each fill memory: pages so far apart hash alike.
    let at = |n: u64| base + (n << (26 - 13 + 12));
    let m = bed.kernel.machine_mut();
    for n in 0..17 {
        let phys = PhysAddr(0x200_0000 + (n << 12));
        let perm = Perm::KERNEL_RW;
        m.map(CpuId(0), SpaceId::KERNEL, VirtAddr(at(n)), phys, 1 << 12, 12, perm).unwrap();
    }
    bed.trace();
    for n in 0..16 {
        load(&mut bed, at(n)).unwrap();
    }
    let made = bed.trace().iter().filter(|l| l.contains("--->rw-")).count();
    assert_eq!(made, 16);
    bed.mark("first", at(0), 1 << 12);
    bed.mark("last", at(16), 1 << 12);
    load(&mut bed, at(16)).unwrap();
    expect(
        &bed.trace(),
        "
        1 sync ExceptionEntry
        1 leaf first+0x0 1x4K rw->---
        1 leaf last+0x0 1x4K --->rw-
        1 ptesync
        1 sync ExceptionReturn
        1 load last+0x0 8
        ",
    );
    for n in 0..17 {
        load(&mut bed, at(n)).unwrap();
    }
}

/// A leaf that grants more than its entry, as after a change that flushes nothing: the entry gets
/// the rights, and the leaf says that the page was written to.
#[test]
fn a_refused_store_updates_the_entry_and_the_leaf() {
    let mut bed = boot("6.12", &[]);
    let page = VirtAddr(bed.kernel.layout().vmalloc.start.0 + (1 << 38));
    let m = bed.kernel.machine_mut();
    let phys = PhysAddr(0x200_0000);
    m.map(CpuId(0), SpaceId::KERNEL, page, phys, 1 << 12, 12, Perm::KERNEL_RO).unwrap();
    m.load(ONE, page, &mut [0; 8]).unwrap();
    let rw = (Perm::WRITE, Perm::empty());
    m.protect(CpuId(0), SpaceId::KERNEL, page, 1 << 12, rw.0, rw.1).unwrap();
    let dirty = |m: &Machine| match m.leaves(SpaceId::KERNEL, page, 1 << 12).next() {
        Some(Span::Mapped(leaf)) => HASH_TREE_4K.field("DIRTY").unwrap().get(leaf.raw),
        other => panic!("{other:?}"),
    };
    assert_eq!(dirty(m), 0);
    m.store(ONE, page, &[1; 8], MemOrder::Plain).unwrap();
    assert_eq!(dirty(m), 1);
    bed.mark("page", page.0, 1 << 12);
    let trace = bed.trace();
    assert!(trace.contains(&"1 leaf page+0x0 1x4K r-->rw-".to_owned()), "{trace:#?}");
}

#[test]
fn what_is_not_modelled_is_refused_by_name() {
    let args = BootArgs {
        version: Version::release(6, 12),
        arch: POWER,
        config: Config::new(POWER),
        features: hashed() - Features::PPC_TLBIE,
        cpus: 2,
    };
    let error = Kernel::boot(args, Box::new(Newest)).err().unwrap();
    assert!(matches!(error, KernelError::NotModelled { .. }), "{error}");
    assert!(error.to_string().contains("tlbie"), "{error}");
    let mut bed = boot("6.12", &[]);
    let m = bed.kernel.machine_mut();
    let by_number = m.op_named(CpuId(0), "tlbie", 0x1234_5000).unwrap_err();
    assert!(by_number.to_string().contains("not modelled"), "{by_number}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None,
        ..ProptestConfig::default() })]

    /// Whatever the hardware chooses: once a call returned, each CPU may do with each page what its
    /// leaf grants, whether it used it before or not.
    #[test]
    fn accesses_follow_the_leaves(
        seed: u64,
        size in 0..2usize,
        steps in prop::collection::vec((0u8..7, 0u64..4, 0u16..2), 1..80),
    ) {
        let (word, shift) = [("4K", 12), ("64K", 16)][size];
        let mut config = Config::new(POWER);
        config.set("page_size", word).unwrap();
        let args = BootArgs {
            version: Version::release(6, 12),
            arch: POWER,
            config,
            features: hashed(),
            cpus: 2,
        };
        let mut kernel = Kernel::boot(args, Box::new(Random::new(seed))).unwrap();
        let a = kernel.call(CpuId(0), "vmalloc", &values(&[4 << shift])).unwrap().value as u64;
        let (mut grants, mut ever) = ([(true, false); 4], [false; 4]);
        for (what, page, cpu) in steps {
            let (cpu, virt) = (CpuId(cpu), VirtAddr(a + (page << shift)));
            let (writes, executes) = &mut grants[page as usize];
            let call = match what {
                0 => { *writes = false; "set_memory_ro" }
                1 => { *writes = true; "set_memory_rw" }
                2 => {
                    *executes = true;
                    ever[page as usize] = true;
                    "set_memory_x"
                }
                3 => { *executes = false; "set_memory_nx" }
                4 => {
                    let done = kernel.machine_mut().store(cpu, virt, &[0; 8], MemOrder::Plain);
                    prop_assert_eq!(done.is_ok(), *writes);
                    continue;
                }
                5 => {
                    let done = kernel.machine_mut().fetch(cpu, virt, 4);
                    // What was fetched ahead may still be executed.
                    let may = if done.is_ok() { ever[page as usize] } else { !*executes };
                    prop_assert!(may);
                    continue;
                }
                _ => {
                    prop_assert!(kernel.machine_mut().load(cpu, virt, &mut [0; 8]).is_ok());
                    continue;
                }
            };
            let done = kernel.call(cpu, call, &values(&[virt.0, 1])).unwrap();
            prop_assert_eq!(done.value, 0);
        }
    }
}
