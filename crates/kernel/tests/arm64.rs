//! Traces on arm64, worked out by hand from the descriptions of Linux 5.19 and 6.12.

mod common;

use common::{arm64_fixmap_write, boot, boot_with, expect};
use textbed_arch::{Arch, CpuId, Features, SpaceId, VirtAddr};

const ARM64: Arch = Arch::Arm64;

/// What stands behind the store of a valid kernel entry.
const SET_PTE: &str = "
        0 dsb ishst
        0 sync Instruction isb
";

/// One page of the direct map changed, with what `set_pte` and the flush add.
fn alias_page(n: u64, change: &str) -> String {
    format!(
        "
        0 leaf dm(a)+{0:#x} 1x4K {change}
        0 dsb ishst
        0 sync Instruction isb
        0 dsb ishst
        0 tlbi vaale1is: tlb AddressLastLevel broadcast dm(a)+{0:#x}
        0 dsb ish
        0 sync Instruction isb
        ",
        n << 12
    )
}

/// T5 as of 6.12: the direct map of the whole area of 10 pages, then the 3 pages asked for, twice.
#[test]
fn set_memory_rox_changes_the_direct_map_of_the_whole_area() {
    let mut bed = boot("6.12", ARM64, &[]);
    let a = bed.area("a", "vmalloc", 10 << 12);
    bed.trace();
    assert_eq!(bed.call("set_memory_rox", &[a, 3]), 0);
    let alias: String = (0..10).map(|n| alias_page(n, "rw->r--")).collect();
    let pass = |change: &str| {
        let page = |n: u64| format!("0 leaf a+{:#x} 1x4K {change}{SET_PTE}", n << 12);
        format!(
            "
        0 lock vmap_purge_lock
        0 unlock vmap_purge_lock
        {}
        0 dsb ishst
        0 tlbi vaale1is: tlb AddressLastLevel broadcast a+0x0
        0 tlbi vaale1is: tlb AddressLastLevel broadcast a+0x1000
        0 tlbi vaale1is: tlb AddressLastLevel broadcast a+0x2000
        0 dsb ish
        0 sync Instruction isb
            ",
            (0..3).map(page).collect::<String>()
        )
    };
    let golden = format!(
        "
        0 call set_memory_rox
        0 call set_memory_ro
        {alias}
        {}
        0 promised NoWrite a+0x0 0x3000
        0 return 0
        0 result used
        0 call set_memory_x
        {}
        0 promised Exec a+0x0 0x3000
        0 return 0
        0 result used
        0 promised ReadOnlyExec a+0x0 0x3000
        0 return 0
        ",
        pass("rw->r--"),
        pass("r-->r-x"),
    );
    expect(&bed.trace(), &golden);
}

#[test]
fn without_rodata_full_the_direct_map_stays_writable_and_large() {
    let mut bed = boot("6.12", ARM64, &[("rodata", "on")]);
    let a = bed.area("a", "vmalloc", 4 << 12);
    bed.trace();
    assert_eq!(bed.call("set_memory_ro", &[a, 4]), 0);
    assert!(!bed.trace().iter().any(|l| l.contains("dm")));
    let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
    let alias = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(dm)).unwrap();
    assert_eq!((alias.perm.letters(), alias.shift), ("rw-", 21));
    assert_eq!(bed.call("set_direct_map_invalid_noflush", &[dm]), 0);
    assert!(bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(dm)).is_some());
}

#[test]
fn refusals_say_why_and_do_not_warn() {
    let mut bed = boot("6.12", ARM64, &[]);
    let a = bed.area("a", "vmalloc", 2 << 12);
    let dm = bed.kernel.layout().direct_map.start.0;
    let text = bed.kernel.layout().text.start.0;
    bed.trace();
    for (addr, pages, reason) in [
        (dm, 1, "NotAnArea"),
        (text, 1, "NotAnArea"),
        (0x1000, 1, "NotAnArea"),
        (a, 4, "OutOfArea"),
        (a, i32::MAX as u64, "OutOfArea"),
    ] {
        assert_eq!(bed.call("set_memory_ro", &[addr, pages]), -22, "{addr:#x}");
        let trace = bed.trace();
        assert!(trace[1].contains(reason), "{trace:?}");
        assert_eq!(trace.len(), 3, "{trace:?}");
    }
    // The guard page belongs to the area: accepted. Nothing to do, but in an area: accepted too.
    assert_eq!(bed.call("set_memory_ro", &[a, 3]), 0);
    assert_eq!(bed.call("set_memory_ro", &[a, 0]), 0);
    assert_eq!(bed.call("set_memory_ro", &[dm, 0]), -22);
}

/// A huge area (6.12): the direct map is made read-only before the walker refuses the area itself.
#[test]
fn a_huge_area_is_refused_after_its_direct_map_was_changed() {
    let mut bed = boot("6.12", ARM64, &[]);
    let a = bed.area("a", "vmalloc_huge", 2 << 20);
    bed.trace();
    assert_eq!(bed.call("set_memory_ro", &[a, 512]), -22);
    let trace = bed.trace();
    assert!(trace.contains(&"0 WARN HugeMapping".to_owned()));
    assert!(trace.iter().any(|l| l.contains("refused NoWrite HugeMapping a+0x0 0x200000")));
    let perm = |bed: &common::Bed, at| {
        bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).unwrap().perm.letters()
    };
    let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
    assert_eq!((perm(&bed, a), perm(&bed, dm), perm(&bed, dm + 0x1ff000)), ("rw-", "r--", "r--"));
    // 5.18 has no huge vmalloc on this architecture.
    let mut bed = boot("5.18", ARM64, &[]);
    let a = bed.area("a", "vmalloc_huge", 2 << 20);
    assert_eq!(bed.call("set_memory_ro", &[a, 512]), 0);
}

/// T6: program and header go in by one copy; the JIT's own flush afterwards repeats the second
/// half.
#[test]
fn bpf_finalize_writes_through_the_fixmap_then_maintains_and_interrupts() {
    let mut bed = boot("6.12", ARM64, &[]);
    let header = bed.call("bpf_jit_binary_pack_alloc", &[8]) as u64;
    bed.mark("p", header, 2 << 20);
    bed.trace();
    let code = [0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6];
    assert_eq!(bed.call_code("bpf_jit_binary_pack_finalize", &[header], &code), 0);
    let maintain = "
        0 dc cvau p+0x0
        0 dsb ish
        0 ic ivau p+0x0
        0 dsb ish
        0 sync Instruction isb
        0 dmb ish
        0 ipi do_nothing to 0b10
        1-sync ExceptionEntry
        1-taken
        1-done
        1-sync ExceptionReturn
        0 waited
    ";
    let write = arm64_fixmap_write(0x1000, "4K", "store alias+0x0 64");
    let golden = format!(
        "
        0 call bpf_jit_binary_pack_finalize
        0 call bpf_arch_text_copy
        0 call aarch64_insn_copy
        0-lock patch_lock
        {write}
        0-unlock patch_lock
        {maintain}
        0 promised NoStaleCode p+0x0 0x40
        0 return p+0x0
        0 result used
        0 promised NoStaleCode p+0x0 0x40
        0 return p+0x0
        0 result used
        0 region bpf program
        0 return 0
        "
    );
    expect(&bed.trace(), &golden);
    bed.call("flush_icache_range", &[header, header + 64]);
    let golden = format!(
        "
        0 call flush_icache_range
        {maintain}
        0 promised NoStaleCode p+0x0 0x40
        0 return 0
        "
    );
    expect(&bed.trace(), &golden);
    // Header and program lie where they should: size 64, then the code.
    let frame = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(header)).unwrap().phys;
    let mut bytes = [0; 16];
    bed.kernel.machine().read_phys(frame, &mut bytes).unwrap();
    assert_eq!(bytes[..4], 64u32.to_le_bytes());
    assert_eq!(bytes[8..], code);
}

#[test]
fn idc_and_dic_leave_less_to_do() {
    let features = Features::default_for(ARM64) | Features::ARM_IDC | Features::ARM_DIC;
    let mut bed = boot_with("6.12", ARM64, &[], features, 1);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.trace();
    bed.call("flush_icache_range", &[a, a + 4096]);
    expect(
        &bed.trace(),
        "
        0 call flush_icache_range
        0 dsb ishst
        0 sync Instruction isb
        0 dmb ish
        0 promised NoStaleCode a+0x0 0x1000
        0 return 0
        ",
    );
}

#[test]
fn nosync_tells_no_other_cpu() {
    let mut bed = boot("5.18", ARM64, &[]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    bed.trace();
    assert_eq!(bed.call("aarch64_insn_patch_text_nosync", &[a + 8, 0xd503201f]), 0);
    let write = arm64_fixmap_write(0x1000, "4K", "store alias+0x8 4");
    let golden = format!(
        "
        0 call aarch64_insn_patch_text_nosync
        0 patch site a+0x8
        0-lock patch_lock
        {write}
        0-unlock patch_lock
        0 dc cvau a+0x0
        0 dsb ish
        0 ic ivau a+0x0
        0 dsb ish
        0 sync Instruction isb
        0 return 0
        "
    );
    expect(&bed.trace(), &golden);
    assert_eq!(bed.call("aarch64_insn_patch_text_nosync", &[a + 2, 0]), -22);
}

#[test]
fn vfree_with_reset_needs_a_direct_map_of_pages() {
    for (rodata, touched) in [("full", true), ("on", false)] {
        let mut bed = boot("6.12", ARM64, &[("rodata", rodata)]);
        let a = bed.area("a", "vmalloc", 1 << 12);
        bed.call("set_vm_flush_reset_perms", &[a]);
        bed.trace();
        bed.call("vfree", &[a]);
        let trace = bed.trace();
        assert_eq!(trace.iter().any(|l| l.contains("leaf dm(a)")), touched, "{trace:#?}");
        assert!(trace.iter().any(|l| l.contains("tlbi")), "{trace:#?}");
    }
}

#[test]
fn t5_the_direct_map_of_the_whole_area_until_6_18_of_the_pages_asked_for_later() {
    for (version, pages) in [("6.12", 10), ("6.18", 10), ("7.0", 3)] {
        let mut bed = boot(version, Arch::Arm64, &[]);
        let a = bed.area("a", "vmalloc", 10 << 12);
        bed.trace();
        assert_eq!(bed.call("set_memory_rox", &[a, 3]), 0);
        let trace = bed.trace();
        let changes = |to: &str| trace.iter().filter(|l| l[2..].starts_with(to)).count();
        assert_eq!(changes("leaf dm(a)"), pages, "{version}");
        assert_eq!(changes("ipi"), 0, "{version}");
        assert_eq!(changes("lock vmap_purge_lock"), 2, "{version}");
    }
}

/// `__text_poke` of 6.12 and 6.18.2: one lock and interrupts off over any length.
#[test]
fn text_of_any_length_is_written_with_interrupts_off() {
    let mut bed = boot("6.12", ARM64, &[]);
    let a = bed.area("a", "vmalloc", 2 << 20);
    bed.call("set_memory_rox", &[a, 512]);
    bed.trace();
    assert_eq!(bed.call("bpf_arch_text_invalidate", &[a, 2 << 20]), 0);
    let trace = bed.trace();
    let at = |what: &str| trace.iter().position(|l| l[2..].starts_with(what)).unwrap();
    let inside = &trace[at("lock patch_lock")..=at("unlock patch_lock")];
    assert!(inside.iter().all(|l| l.starts_with("0-")));
    assert_eq!(inside.iter().filter(|l| l.contains("tlbi")).count(), 512);
}

/// One page of a block of the linear map (7.0, BBML2_NOABORT): the block is split where it is into
/// groups of contiguous pages, and the page's group into pages, with no invalidation, and then the
/// page is changed. The area itself has pages already.
#[test]
fn a_live_block_is_split_in_place_with_bbml2() {
    let features = Features::default_for(ARM64) | Features::ARM_BBML2_NOABORT;
    let mut bed = boot_with("7.0", ARM64, &[], features, 2);
    let a = bed.area("a", "vmalloc", 1 << 12);
    let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
    bed.mark("block", dm & !0x1f_ffff, 2 << 20);
    let leaf = |bed: &common::Bed, at| {
        let found = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).unwrap();
        (found.perm.letters(), found.shift)
    };
    assert_eq!(leaf(&bed, dm), ("rw-", 21));
    bed.trace();
    assert_eq!(bed.call("set_memory_ro", &[a, 1]), 0);
    let ungrouped = |n: u64| {
        let at = (dm & 0x1f_0000) + (n << 12);
        let own = at == dm & 0x1f_f000;
        let place = if own { "dm(a)+0x0".to_owned() } else { format!("block+{at:#x}") };
        format!("0 leaf {place} 1x4K rw-c>rw-\n")
    };
    let flush = |at: &str| {
        format!(
            "
        0 dsb ishst
        0 tlbi vaale1is: tlb AddressLastLevel broadcast {at}
        0 dsb ish
        0 sync Instruction isb
            "
        )
    };
    let golden = format!(
        "
        0 call set_memory_ro
        0 lock pgtable_split_lock
        0 dsb ishst
        0 leaf block+0x0 512x2M>4K rw->rw-c
        {group}
        {SET_PTE}
        0 unlock pgtable_split_lock
        0 leaf dm(a)+0x0 1x4K rw->r--
        {SET_PTE}
        {}
        0 lock vmap_purge_lock
        0 unlock vmap_purge_lock
        0 lock pgtable_split_lock
        0 unlock pgtable_split_lock
        0 leaf a+0x0 1x4K rw->r--
        {SET_PTE}
        {}
        0 promised NoWrite a+0x0 0x1000
        0 return 0
        ",
        flush("dm(a)+0x0"),
        flush("a+0x0"),
        group = (0..16).map(ungrouped).collect::<String>(),
    );
    expect(&bed.trace(), &golden);
    assert_eq!(leaf(&bed, dm), ("r--", 12));
}

/// A table that is not to be had for the direct map: the WARN, and from 6.18.2 on the error, with
/// nothing changed (e5efd56fa157). 6.18 goes on and returns 0: the pages are still writable there.
#[test]
fn an_alias_that_cannot_be_split_fails_the_call_after_6_18() {
    for (version, result, perm) in [("6.18", 0, "r--"), ("7.0", -12, "rw-")] {
        let features = Features::default_for(ARM64) | Features::ARM_BBML2_NOABORT;
        let mut bed = boot_with(version, ARM64, &[], features, 1);
        let at = bed.call("vmalloc", &[4096]) as u64;
        let dm = bed.call("page_address", &[at]) as u64;
        let leaf = |bed: &common::Bed, at| {
            let found = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).unwrap();
            found.perm.letters()
        };
        bed.kernel.fail_allocation("set_memory_ro", 1, 1).unwrap();
        bed.trace();
        assert_eq!(bed.call("set_memory_ro", &[at, 1]), result, "{version}");
        assert!(bed.trace().contains(&"0 WARN Other".to_owned()), "{version}");
        assert_eq!(leaf(&bed, at), perm, "{version}");
        assert_eq!(leaf(&bed, dm), "rw-", "{version}");
    }
}

/// What `rodata=` says of the direct map: on leaves it as the configuration has it in 6.1 and 6.6
/// (which is full), takes that back in others, and is full from 6.18 on.
#[test]
fn rodata_is_read_as_the_version_reads_it() {
    for (version, word, follows) in [
        ("5.18", "full", true),
        ("5.18", "on", false),
        ("6.1", "on", true),
        ("6.1", "noalias", false),
        ("6.6", "on", true),
        ("6.6", "off", false),
        ("6.12", "on", false),
        ("6.12", "full", true),
        ("6.18", "on", true),
        ("6.18", "noalias", false),
        ("7.0", "on", true),
        ("7.0", "off", false),
    ] {
        let mut bed = boot(version, ARM64, &[("rodata", word)]);
        let a = bed.area("a", "vmalloc", 4096);
        assert_eq!(bed.call("set_memory_ro", &[a, 1]), 0, "{version} {word}");
        let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").unwrap().1;
        let alias = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(dm)).unwrap();
        let found = (alias.perm.letters().to_string(), alias.shift);
        let expected = if follows { ("r--".to_owned(), 12) } else { ("rw-".to_owned(), 21) };
        assert_eq!(found, expected, "{version} {word}");
    }
}

/// 6.18 on: a whole block changes in place, with or without BBML2; a part of it is refused without.
#[test]
fn a_whole_block_changes_and_a_part_only_if_it_can_be_split() {
    for bbml2 in [false, true] {
        let more = if bbml2 { Features::ARM_BBML2_NOABORT } else { Features::empty() };
        let features = Features::default_for(ARM64) | more;
        let mut bed = boot_with("6.18", ARM64, &[("rodata", "noalias")], features, 1);
        let block = bed.kernel.layout().direct_map.start.0 + (64 << 20);
        bed.mark("block", block, 2 << 20);
        bed.trace();
        assert_eq!(bed.call("set_memory_valid", &[block, 512, 0]), 0);
        let made = if bbml2 { "rw->---" } else { "rw-c>---" };
        assert!(bed.trace().contains(&format!("0 leaf block+0x0 1x2M {made}")), "{bbml2}");
        // What is not valid has no block's type: the walker passes it, and it stays so.
        assert_eq!(bed.call("set_memory_valid", &[block, 512, 1]), 0);
        assert!(!bed.trace().iter().any(|l| l.contains("leaf")), "{bbml2}");
        let block = block + (2 << 20);
        bed.mark("next", block, 2 << 20);
        let part = bed.call("set_memory_valid", &[block + 0x3000, 2, 0]);
        let trace = bed.trace();
        assert_eq!(part, if bbml2 { 0 } else { -22 });
        let split = trace.iter().filter(|l| l.contains("512x2M>4K")).count();
        assert_eq!(split, usize::from(bbml2));
        assert_eq!(trace.contains(&"0 WARN HugeMapping".to_owned()), !bbml2);
    }
}

/// 6.16 on: areas that allow large leaves and have 64 KiB go by groups of 16 pages, and count as
/// huge (`arch_vmap_pte_supported_shift`).
#[test]
fn groups_of_sixteen_pages() {
    for (version, group) in [("6.12", false), ("6.18", true)] {
        let mut bed = boot(version, ARM64, &[]);
        bed.call("vmalloc", &[4096]);
        for (size, grouped) in [(0x1_0000, group), (0xf000, false)] {
            let a = bed.call("vmalloc_huge", &[size]) as u64;
            assert_eq!(bed.call("is_vm_area_hugepages", &[a]), i64::from(grouped), "{version}");
            let aligned = a.is_multiple_of(0x1_0000);
            assert!(!grouped || aligned, "{version} {size:#x}: {a:#x}");
            let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap();
            assert_eq!((leaf.shift, leaf.attributes.contiguous), (12, grouped), "{version}");
            assert!(!grouped || leaf.phys.0.is_multiple_of(0x1_0000));
        }
    }
}

/// Where the linear map is made of blocks, whole groups of these and of pages have the contiguous
/// bit, but not in the image's alias; where it is made of pages none has (`alloc_init_cont_pmd`,
/// `alloc_init_cont_pte`, NO_CONT_MAPPINGS). A split takes the bits of the group that it cuts.
#[test]
fn the_linear_map_goes_by_groups_where_it_is_made_of_blocks() {
    let bbml2 = Features::ARM_BBML2_NOABORT;
    for (version, rodata, more, blocks) in [
        ("6.12", "on", Features::empty(), true),
        ("6.12", "full", Features::empty(), false),
        ("6.18", "noalias", Features::empty(), true),
        ("6.18", "full", Features::empty(), false),
        ("6.18", "full", bbml2, true),
        ("7.0", "full", bbml2, true),
    ] {
        let features = Features::default_for(ARM64) | more;
        let mut bed = boot_with(version, ARM64, &[("rodata", rodata)], features, 1);
        let start = bed.kernel.layout().direct_map.start.0;
        let leaf = |bed: &common::Bed, at| {
            let found = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(start + at)).unwrap();
            (found.shift, found.attributes.contiguous)
        };
        let block = 64 << 20;
        let size = if blocks { 21 } else { 12 };
        assert_eq!(leaf(&bed, block), (size, blocks), "{version} {rodata}");
        // The image is from 2 to 6 MiB, always by blocks: around it no group of these is whole.
        for (at, size) in [(0, size), (2 << 20, 21), (8 << 20, size)] {
            assert_eq!(leaf(&bed, at), (size, false), "{version} {rodata} {at:#x}");
        }
        if !more.is_empty() {
            bed.mark("block", start + block, 32 << 20);
            bed.trace();
            assert_eq!(bed.call("set_memory_valid", &[start + block + 0x3000, 2, 0]), 0);
            let changes: Vec<String> =
                bed.trace().into_iter().filter(|line| line.contains(" leaf ")).collect();
            // Each entry of a group loses its bit by itself.
            let ungrouped = |size: u64, name: &str| {
                let one = |n| format!("0 leaf block+{:#x} 1x{name} rw-c>rw-", n * size);
                (0..16).map(one).collect::<Vec<_>>()
            };
            let mut golden = ungrouped(2 << 20, "2M");
            golden.push("0 leaf block+0x0 512x2M>4K rw->rw-c".to_owned());
            golden.extend(ungrouped(4096, "4K"));
            golden.extend(["0x3000", "0x4000"].map(|at| format!("0 leaf block+{at} 1x4K rw->---")));
            assert_eq!(changes, golden, "{version}");
            assert_eq!(leaf(&bed, block + (1 << 20)), (12, true));
            assert_eq!(leaf(&bed, block + (2 << 20)), (21, false));
            assert_eq!(leaf(&bed, block + (32 << 20)), (21, true));
        }
    }
}

/// With pages of 16 KiB blocks have 32 MiB and a group of pages 2 MiB: the block that the image
/// lies in is made of pages, and those before and behind the image of groups.
#[test]
fn pages_around_the_image_go_by_groups() {
    let options = [("rodata", "noalias"), ("page_size", "16K")];
    let bed = boot("6.18", ARM64, &options);
    let start = bed.kernel.layout().direct_map.start.0;
    let rows = [(0, 14, true), (2, 14, false), (5, 14, false), (6, 14, true), (32, 25, false)];
    for (mib, shift, contiguous) in rows {
        let at = VirtAddr(start + (mib << 20));
        let found = bed.kernel.machine().lookup(SpaceId::KERNEL, at).unwrap();
        assert_eq!((found.shift, found.attributes.contiguous), (shift, contiguous), "{mib} MiB");
    }
}

/// Linux 6.12 arch/arm64/kernel/patching.c text_poke_memset(): whole instructions of each page, and
/// the maintenance of all that was asked for.
#[test]
fn a_fill_of_no_whole_instructions_writes_less_than_it_maintains() {
    for version in ["6.12", "7.0"] {
        let mut bed = boot(version, ARM64, &[]);
        let a = bed.area("a", "vmalloc", 2 << 12);
        let brk = 0xd420_2000u64;
        bed.trace();
        assert_eq!(bed.call("aarch64_insn_set", &[a + 0xff8, brk, 10]), (a + 0xff8) as i64);
        let trace = bed.trace();
        let count = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
        assert_eq!((count("fill"), count("window PatchShared")), (1, 2), "{version}: {trace:#?}");
        let ends = trace.iter().any(|l| l.contains("dc cvau a+0x1000"));
        assert!(ends, "{version}: {trace:#?}");
        let mut word = [0; 4];
        bed.kernel.machine_mut().load(CpuId(0), VirtAddr(a + 0xffc), &mut word).unwrap();
        assert_eq!(u64::from(u32::from_le_bytes(word)), brk);
    }
}
