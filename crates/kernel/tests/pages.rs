//! Kernels by the size of their pages: traces worked out by hand from Linux 6.1, 6.12 and 6.18.2,
//! with the page as their unit, and what else the size decides.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, arm64_fixmap_write, boot, boot_with, expect};
use textbed_arch::{Arch, Features, SpaceId, VirtAddr};
use textbed_kernel::{BootArgs, Config, Kernel, PAGE_SIZES};
use textbed_machine::Newest;

const ARM64: Arch = Arch::Arm64;
const POWER: Arch = Arch::Ppc64le;

/// Names and `log2` of an architecture's sizes.
const ARM64_SIZES: [(&str, u32); 3] = [("4K", 12), ("16K", 14), ("64K", 16)];
const POWER_SIZES: [(&str, u32); 2] = [("4K", 12), ("64K", 16)];

fn leaf(bed: &Bed, at: u64) -> (&'static str, u8) {
    let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).unwrap();
    (leaf.perm.letters(), leaf.shift as u8)
}

fn with_memory(version: &str, arch: Arch, size: &str, mib: &str) -> Bed {
    boot(version, arch, &[("page_size", size), ("memory_mib", mib)])
}

/// `change_memory_common` of 2 of 3 pages (6.12): an entry, a flush and a frame are a page's.
#[test]
fn arm64_permissions_change_page_by_page() {
    for (size, shift) in ARM64_SIZES {
        let mut bed = boot("6.12", ARM64, &[("page_size", size)]);
        let page = 1u64 << shift;
        let a = bed.area("a", "vmalloc", 3 * page);
        bed.trace();
        assert_eq!(bed.call("set_memory_ro", &[a, 2]), 0);
        let alias: String = (0..3)
            .map(|n| {
                format!(
                    "
        0 leaf dm(a)+{0:#x} 1x{size} rw->r--
        0 dsb ishst
        0 sync Instruction isb
        0 dsb ishst
        0 tlbi vaale1is: tlb AddressLastLevel broadcast dm(a)+{0:#x}
        0 dsb ish
        0 sync Instruction isb",
                    n * page
                )
            })
            .collect();
        let golden = format!(
            "
        0 call set_memory_ro
        {alias}
        0 lock vmap_purge_lock
        0 unlock vmap_purge_lock
        0 leaf a+0x0 1x{size} rw->r--
        0 dsb ishst
        0 sync Instruction isb
        0 leaf a+{page:#x} 1x{size} rw->r--
        0 dsb ishst
        0 sync Instruction isb
        0 dsb ishst
        0 tlbi vaale1is: tlb AddressLastLevel broadcast a+0x0
        0 tlbi vaale1is: tlb AddressLastLevel broadcast a+{page:#x}
        0 dsb ish
        0 sync Instruction isb
        0 promised NoWrite a+0x0 {:#x}
        0 return 0",
            2 * page
        );
        expect(&bed.trace(), &golden);
    }
}

/// `__aarch64_insn_write` (6.12): one fixmap slot of a page, the offset is the one in that page.
#[test]
fn arm64_patches_through_a_slot_of_a_page() {
    for (size, shift) in ARM64_SIZES {
        let mut bed = boot("6.12", ARM64, &[("page_size", size)]);
        let page = 1u64 << shift;
        let a = bed.area("a", "vmalloc", 2 * page);
        bed.trace();
        let at = page + page / 2 + 8;
        assert_eq!(bed.call("aarch64_insn_patch_text_nosync", &[a + at, 0xd503_201f]), 0);
        let offset = page / 2 + 8;
        let write = arm64_fixmap_write(page, size, &format!("store alias+{offset:#x} 4"));
        let golden = format!(
            "
        0 call aarch64_insn_patch_text_nosync
        0 patch site a+{at:#x}
        0-lock patch_lock
        {write}
        0-unlock patch_lock
        0 dc cvau a+{line:#x}
        0 dsb ish
        0 ic ivau a+{line:#x}
        0 dsb ish
        0 sync Instruction isb
        0 return 0",
            line = at & !63
        );
        expect(&bed.trace(), &golden);
    }
}

/// `change_memory_attr` of 2 pages (6.12), each with a flush of the whole PID.
#[test]
fn power_permissions_change_page_by_page() {
    for (size, shift) in POWER_SIZES {
        let mut bed = boot("6.12", POWER, &[("page_size", size)]);
        let page = 1u64 << shift;
        let a = bed.area("a", "vmalloc", 3 * page);
        bed.trace();
        assert_eq!(bed.call("set_memory_rox", &[a, 2]), 0);
        let pages: String = (0..2)
            .map(|n| {
                format!(
                    "
        0 leaf a+{:#x} 1x{size} rw->r-x
        0 ptesync
        0 ptesync
        0 tlbie: tlb Address broadcast text+0x0
        0 eieio
        0 tlbsync
        0 ptesync",
                    n * page
                )
            })
            .collect();
        let golden = format!(
            "
        0 call set_memory_rox
        {pages}
        0 promised ReadOnlyExec a+0x0 {:#x}
        0 return 0",
            2 * page
        );
        expect(&bed.trace(), &golden);
    }
}

/// `__do_patch_mem_mm` (6.12): a page of the CPU's own space, flushed as a page of that size.
#[test]
fn power_patches_through_a_page_of_its_own_space() {
    for (size, shift) in POWER_SIZES {
        let mut bed = boot("6.12", POWER, &[("page_size", size)]);
        let page = 1u64 << shift;
        let a = bed.area("a", "vmalloc", 2 * page);
        bed.trace();
        let (at, offset) = (page + page / 2 + 8, page / 2 + 8);
        assert_eq!(bed.call("patch_instruction", &[a + at, 0x6000_0000]), 0);
        let golden = common::power_patch_at(at, offset, size, page);
        expect(&bed.trace(), &golden);
        // More than a page of instructions goes page by page.
        let code = [0x00, 0x00, 0x00, 0x60].repeat(6);
        let args = [
            textbed_kernel::Arg::Value(a + page - 8),
            textbed_kernel::Arg::Code(code),
            textbed_kernel::Arg::Value(0),
            textbed_kernel::Arg::Value(24),
        ];
        assert_eq!(bed.try_call("patch_instructions", &args).unwrap().value, 0);
        let stores: Vec<String> = bed.trace().into_iter().filter(|l| l.contains("store")).collect();
        let first = format!("0-store alias+{:#x} 8", page - 8);
        assert_eq!(stores, [first.as_str(), "0-store alias+0x0 16"]);
    }
}

/// An area is whole pages with a page behind it, and so is what the allocator gives and gets.
#[test]
fn areas_and_frames_are_pages() {
    for (arch, sizes) in [(ARM64, &ARM64_SIZES[..]), (POWER, &POWER_SIZES[..])] {
        for (size, shift) in sizes {
            let mut bed = boot("6.12", arch, &[("page_size", size)]);
            let page = 1u64 << shift;
            // Gaps between the stacks go first.
            for _ in 0..8 {
                bed.call("vmalloc", &[1]);
            }
            bed.trace();
            let a = bed.call("vmalloc", &[1]) as u64;
            assert!(bed.trace().contains(&format!("0 frames +{}", page / 4096)), "{size}");
            let b = bed.call("vmalloc", &[1]) as u64;
            assert_eq!((a % page, b - a), (0, 2 * page), "{arch} {size}");
            let frames = |bed: &Bed, at| {
                bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).unwrap().phys
            };
            let (of_a, of_b) = (frames(&bed, a), frames(&bed, b));
            assert_eq!((of_a.0 % page, of_b.0 % page), (0, 0), "{arch} {size}");
            // What is freed comes back as the same page.
            bed.call("vfree", &[a]);
            assert!(bed.trace().contains(&format!("0 frames -{}", page / 4096)), "{size}");
            let c = bed.call("vmalloc", &[page]) as u64;
            assert_eq!(frames(&bed, c), of_a, "{arch} {size}");
            // Inside a page is not a page.
            if page > 4096 {
                bed.call("vfree", &[c + 4096]);
                assert!(bed.trace().contains(&"0 WARN Unaligned".to_owned()), "{arch} {size}");
                assert_eq!(leaf(&bed, c), ("rw-", *shift as u8));
            }
        }
    }
}

/// An address inside a page of 64 KiB: arm64 rounds and warns, powerpc rounds.
#[test]
fn a_page_begins_at_a_multiple_of_its_size() {
    for (arch, warns) in [(ARM64, true), (POWER, false)] {
        let mut bed = boot("6.12", arch, &[("page_size", "64K")]);
        let a = bed.area("a", "vmalloc", 2 << 16);
        bed.trace();
        assert_eq!(bed.call("set_memory_ro", &[a + 0x1000, 1]), 0);
        assert_eq!(bed.trace().contains(&"0 WARN Unaligned".to_owned()), warns, "{arch}");
        assert_eq!((leaf(&bed, a), leaf(&bed, a + (1 << 16))), (("r--", 16), ("rw-", 16)));
        // 16 pages of 4 KiB are one of 64 KiB: 3 are beyond the guard page.
        let beyond = if arch == ARM64 { -22 } else { 0 };
        assert_eq!(bed.call("set_memory_ro", &[a, 4]), beyond, "{arch}");
    }
}

/// `vmap_shift` by page: a PMD where it fits, a contiguous group (arm64, 6.16 on), else pages.
#[test]
fn large_leaves_are_the_pmd_of_the_page() {
    for (version, arch, size, mib, bytes, leaf_shift, aligned) in [
        ("6.12", ARM64, "4K", "256", 2u64 << 20, 21u8, 21u32),
        ("6.12", ARM64, "16K", "256", 2 << 20, 14, 14),
        ("6.18", ARM64, "16K", "256", 2 << 20, 14, 21),
        ("6.12", ARM64, "16K", "256", 32 << 20, 25, 25),
        ("6.12", ARM64, "64K", "256", 32 << 20, 16, 16),
        ("6.18", ARM64, "64K", "256", 1 << 20, 16, 16),
        ("6.18", ARM64, "64K", "256", 32 << 20, 16, 21),
        ("6.12", ARM64, "64K", "2048", 512 << 20, 29, 29),
        ("6.1", POWER, "4K", "256", 2 << 20, 21, 21),
        ("6.12", POWER, "64K", "256", 2 << 20, 21, 21),
        ("6.12", POWER, "64K", "256", 1 << 20, 16, 16),
    ] {
        let mut bed = with_memory(version, arch, size, mib);
        bed.call("vmalloc", &[1]);
        let a = bed.call("vmalloc_huge", &[bytes]) as u64;
        let what = format!("{version} {arch} {size} {bytes:#x}");
        assert_ne!(a, 0, "{what}");
        assert_eq!(leaf(&bed, a).1, leaf_shift, "{what}");
        assert!(VirtAddr(a).is_aligned(aligned), "{what}");
        let made = bed.trace();
        let area = made.iter().find(|l| l.contains(&format!(" {bytes:#x} ")));
        let shift = if aligned == 21 && leaf_shift < 21 { 21 } else { leaf_shift };
        assert!(area.is_some_and(|l| l.ends_with(&format!(" {shift}"))), "{what}: {area:?}");
    }
}

/// A block is split in none of these versions' linear maps; without rodata=full it is made of the
/// blocks that the page allows, and arm64's image is in blocks where it is aligned to one.
#[test]
fn linear_map_and_image_are_mapped_by_what_fits() {
    for (size, mib, text, first, later) in
        [("4K", "256", 21u8, 12u8, 21u8), ("16K", "256", 14, 14, 25), ("64K", "1024", 16, 16, 29)]
    {
        let options = [("page_size", size), ("memory_mib", mib), ("rodata", "on")];
        let bed = boot("6.12", ARM64, &options);
        let layout = *bed.kernel.layout();
        assert_eq!(leaf(&bed, layout.text.start.0), ("r-x", text), "{size}");
        // The image begins at 2 MiB; memory below it has blocks where these fit.
        let first = if size == "4K" { 21 } else { first };
        assert_eq!(leaf(&bed, layout.direct_map.start.0).1, first, "{size}");
        let last = layout.direct_map.end() - 4096;
        assert_eq!(leaf(&bed, last), ("rw-", later), "{size}");
        let bed = boot("6.12", ARM64, &[("page_size", size), ("memory_mib", mib)]);
        let last = bed.kernel.layout().direct_map.end() - 4096;
        let page = bed.kernel.pages().shift() as u8;
        assert_eq!(leaf(&bed, last), ("rw-", page), "rodata=full, {size}");
    }
    let bed = boot("6.12", POWER, &[("page_size", "64K")]);
    let layout = *bed.kernel.layout();
    assert_eq!(leaf(&bed, layout.text.start.0), ("r-x", 21));
    assert_eq!(leaf(&bed, layout.direct_map.end() - 4096), ("rw-", 21));
}

/// MAX_DVM_OPS is PTRS_PER_PTE: more pages than a table has entries go by one invalidation, with
/// 6.18 as many do. Ends inside a page: 6.12 steps by pages from a number of 4 KiB and stops there,
/// 6.18 rounds both.
#[test]
fn arm64_flushes_all_beyond_as_many_pages_as_a_table_has() {
    for (size, shift) in ARM64_SIZES {
        for (version, extra, across) in [("6.12", 0, 2), ("6.18", 1, 3)] {
            let mut bed = boot(version, ARM64, &[("page_size", size)]);
            let (page, most) = (1u64 << shift, (1u64 << (shift - 3)) - extra);
            let start = bed.kernel.layout().vmalloc.start.0 + (1 << 36);
            let mut flushes = |from: u64, to: u64| {
                bed.trace();
                bed.call("flush_tlb_kernel_range", &[start + from, start + to]);
                let trace = bed.trace();
                let by_page = trace.iter().filter(|l| l.contains("vaale1is")).count() as u64;
                (by_page, trace.iter().any(|l| l.contains("vmalle1is")))
            };
            assert_eq!(flushes(0, most * page), (most, false), "{version} {size}");
            assert_eq!(flushes(0, (most + 1) * page), (0, true), "{version} {size}");
            // From the last 4 KiB of a page to the first of the next but one.
            let (from, to) = (page - 4096, 2 * page + 4096);
            if page > 4096 {
                assert_eq!(flushes(from, to), (across, false), "{version} {size}");
            }
        }
    }
}

/// BPF_PROG_PACK_SIZE: a PMD a node up to 6.9, 2 MiB a node later; before 6.0 a page, where no
/// large leaf was got.
#[test]
fn packs_are_as_large_as_the_version_says() {
    for (version, arch, size, bytes) in [
        ("5.18", POWER, "64K", 1u64 << 16),
        ("5.18", ARM64, "16K", 1 << 14),
        ("6.1", ARM64, "16K", 32 << 20),
        ("6.6", POWER, "64K", 2 << 20),
        ("6.12", ARM64, "16K", 2 << 20),
        ("6.12", ARM64, "64K", 2 << 20),
        ("6.12", POWER, "64K", 2 << 20),
    ] {
        let mut bed = boot(version, arch, &[("page_size", size)]);
        let pack = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
        let what = format!("{version} {arch} {size}");
        assert_ne!(pack, 0, "{what}");
        let area = bed.kernel.areas().find(VirtAddr(pack)).unwrap();
        assert_eq!(area.len, bytes, "{what}");
        // The next one lies in the same pack.
        assert_eq!(bed.call("bpf_prog_pack_alloc", &[64]) as u64, pack + 64, "{what}");
    }
    // A PMD of 512 MiB is more than the module area has.
    let mut bed = with_memory("6.1", ARM64, "64K", "2048");
    assert_eq!(bed.call("bpf_prog_pack_alloc", &[64]), 0);
}

/// debug_pagealloc unmaps and maps the linear map by pages.
#[test]
fn free_pages_leave_the_linear_map_whole() {
    for (size, shift) in ARM64_SIZES {
        let mut bed = boot("6.12", ARM64, &[("page_size", size), ("debug_pagealloc", "y")]);
        let page = 1u64 << shift;
        let a = bed.area("a", "vmalloc", page);
        bed.trace();
        bed.call("vfree", &[a]);
        let trace = bed.trace();
        let gone = format!("0 leaf dm(a)+0x0 1x{size} rw->---");
        assert_eq!(trace.iter().filter(|l| **l == gone).count(), 1, "{size}: {trace:#?}");
        assert!(!trace.iter().any(|l| l.contains("leaf dm(a)+0x1000")), "{size}");
    }
}

/// vm_reset_perms takes each page out of the linear map once, and back.
#[test]
fn reset_permissions_go_by_pages() {
    for (size, shift) in ARM64_SIZES {
        let mut bed = boot("6.12", ARM64, &[("page_size", size)]);
        let a = bed.area("a", "vmalloc", 2 << shift);
        bed.call("set_vm_flush_reset_perms", &[a]);
        bed.trace();
        bed.call("vfree", &[a]);
        let trace = bed.trace();
        let changes = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
        assert_eq!(changes(&format!("1x{size} rw->---")), 2, "{size}: {trace:#?}");
        assert_eq!(changes(&format!("1x{size} --->rw-")), 2, "{size}: {trace:#?}");
    }
}

/// Stacks are at least a page, one page of instruction slots has as many as fit.
#[test]
fn what_is_given_by_pages_has_the_room_of_one() {
    let bed = boot("6.12", ARM64, &[("page_size", "64K")]);
    let top = bed.kernel.stack_of(textbed_arch::CpuId(0)).unwrap().0;
    assert_eq!((leaf(&bed, top - 8), leaf(&bed, top - (1 << 16))), (("rw-", 16), ("rw-", 16)));
    assert_eq!(top % (1 << 16), 0);
}

/// What a real kernel of these pages had: Debian's 6.1.0-50 for powerpc64le (64 KiB, radix), by its
/// /proc/vmallocinfo and its page tables.
#[test]
fn areas_and_leaves_are_those_of_a_recorded_kernel() {
    let mut bed = boot("6.1", POWER, &[("page_size", "64K")]);
    let layout = *bed.kernel.layout();
    // text_area_cpu_up, the first: 0xc008000000000000-0xc008000000020000, 131072 bytes.
    let first = bed.kernel.areas().find(layout.vmalloc.start).unwrap();
    assert_eq!((first.start.0, first.size), (0xc008_0000_0000_0000, 131_072));
    let (mut compared, mut equal) = (0, 0);
    for (pages, bytes) in [
        (1u64, 131_072u64),
        (2, 196_608),
        (3, 262_144),
        (4, 327_680),
        (5, 393_216),
        (6, 458_752),
        (17, 1_179_648),
        (20, 1_376_256),
        (32, 2_162_688),
    ] {
        let at = bed.call("vmalloc", &[pages << 16]) as u64;
        let area = bed.kernel.areas().find(VirtAddr(at)).unwrap();
        compared += 1;
        equal += u32::from(area.size == bytes && leaf(&bed, at) == ("rw-", 16));
    }
    println!("{compared} compared, {equal} equal");
    assert_eq!((compared, equal), (9, 9));
    // linear 2 MiB -RW-, linear(text) 2 MiB -R-X.
    assert_eq!(leaf(&bed, layout.text.start.0), ("r-x", 21));
    assert_eq!(leaf(&bed, layout.direct_map.end() - 4096), ("rw-", 21));
}

/// Kernels that do not exist are refused, by what does not exist.
#[test]
fn kernels_that_nobody_can_build_are_refused_by_name() {
    let refused = |arch, option: (&str, &str)| Config::new(arch).set(option.0, option.1).is_err();
    assert!(refused(Arch::X86_64, ("page_size", "64K")));
    assert!(refused(POWER, ("page_size", "16K")));
    assert!(refused(POWER, ("CONFIG_ARM64_64K_PAGES", "y")));
    // No configuration that is accepted lacks a kernel, with a tree or with hashed tables.
    for row in PAGE_SIZES {
        for arch in row.archs.iter().filter(|a| **a != Arch::Ppc32) {
            let mut features = vec![Features::default_for(*arch)];
            if arch.is_powerpc() {
                features.push(Features::default_for(*arch) - Features::PPC_RADIX);
            }
            for features in features {
                for version in textbed_kernel::simulated() {
                    let mut config = Config::new(*arch);
                    config.set("page_size", row.word).unwrap();
                    let args = BootArgs { version, arch: *arch, config, features, cpus: 1 };
                    let kernel = Kernel::boot(args, Box::new(Newest));
                    assert!(kernel.is_ok(), "{arch} {} {version}: {:?}", row.word, kernel.err());
                }
            }
        }
    }
    let bed = boot_with("6.12", POWER, &[("page_size", "64K")], Features::default_for(POWER), 1);
    assert_eq!(bed.kernel.pages().bytes(), 65536);
}

/// Linux's names and figures: where a kernel with so many bits of addresses has its direct map and
/// its vmalloc area (`PAGE_OFFSET`, `VMALLOC_START` by hand from memory.h of 6.12, mm.rst), and
/// that it works there: memory mapped, executed by nobody before it may be, and freed.
#[test]
fn kernels_with_other_bits_of_addresses() {
    for (arch, size, option, direct_map, vmalloc) in [
        (Arch::X86_64, "4K", "X86_5LEVEL", 0xff11_0000_0000_0000, 0xffa0_0000_0000_0000u64),
        (ARM64, "4K", "ARM64_VA_BITS_39", 0xffff_ff80_0000_0000, 0xffff_ffc0_8000_0000),
        (ARM64, "4K", "ARM64_VA_BITS_52", 0xfff0_0000_0000_0000, 0xffff_8000_8000_0000),
        (ARM64, "16K", "ARM64_VA_BITS_36", 0xffff_fff0_0000_0000, 0xffff_fff8_8000_0000),
        (ARM64, "16K", "ARM64_VA_BITS_47", 0xffff_8000_0000_0000, 0xffff_c000_8000_0000),
        (ARM64, "16K", "ARM64_VA_BITS_52", 0xfff0_0000_0000_0000, 0xffff_c000_8000_0000),
        (ARM64, "64K", "ARM64_VA_BITS_42", 0xffff_fc00_0000_0000, 0xffff_fe00_8000_0000),
        (ARM64, "64K", "ARM64_VA_BITS_52", 0xfff0_0000_0000_0000, 0xffff_8000_8000_0000),
    ] {
        let mut bed = boot("6.12", arch, &[("page_size", size), (option, "y")]);
        let layout = *bed.kernel.layout();
        let starts = (layout.direct_map.start.0, layout.vmalloc.start.0);
        assert_eq!(starts, (direct_map, vmalloc), "{option}");
        let page = bed.kernel.pages().bytes();
        let a = bed.area("a", "vmalloc", 3 * page);
        assert!(layout.vmalloc.contains(VirtAddr(a)), "{option}");
        assert_eq!(leaf(&bed, a).0, "rw-");
        assert_eq!(bed.call("set_memory_ro", &[a, 3]), 0);
        assert_eq!(bed.call("set_memory_x", &[a, 3]), 0);
        assert_eq!(leaf(&bed, a + page).0, "r-x", "{option}");
        assert_eq!(bed.call("vfree", &[a]), 0);
    }
}

/// A choice that a version or a size of pages does not have is refused by name.
#[test]
fn bits_of_addresses_that_no_kernel_has() {
    for (version, size, bits, wanted) in [
        ("6.6", "4K", "52", "Linux 6.6 on arm64 with 52 bits of addresses and pages of 4 KiB"),
        ("6.12", "4K", "42", "arm64 with 42 bits of addresses and pages of 4 KiB"),
        ("6.12", "64K", "39", "arm64 with 39 bits of addresses and pages of 64 KiB"),
    ] {
        let mut config = Config::new(ARM64);
        config.set("page_size", size).unwrap();
        config.set("va_bits", bits).unwrap();
        let features = Features::default_for(ARM64);
        let version = version.parse().unwrap();
        let args = BootArgs { version, arch: ARM64, config, features, cpus: 1 };
        let Err(error) = Kernel::boot(args, Box::new(Newest)) else { panic!("{bits} booted") };
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let mut config = Config::new(POWER);
    assert!(config.set("va_bits", "39").unwrap_err().to_string().contains("takes 52, not '39'"));
    assert!(config.set("ARM64_VA_BITS", "39").is_err());
}
