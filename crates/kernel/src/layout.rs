//! Where things lie in the kernel's address space.
//!
//! Modelled: direct map, vmalloc, module area, kernel image and the patcher's fixed addresses, as
//! they are without address-space randomisation, by the size of the kernel's pages and the bits
//! of an address that its tables translate ([`Paging`]). Not modelled: KASLR, vmemmap, per-CPU
//! areas, high memory, a second try of 32-bit powerpc's module_alloc beyond the reach of a branch.

use textbed_arch::{Arch, Cite, VirtAddr};

use crate::pages::{Paging, arm64_fallback};
use crate::version::{Version, in_range};

/// A half-open range of virtual addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First address.
    pub start: VirtAddr,
    /// Bytes.
    pub len: u64,
}

impl Range {
    /// From its ends; empty if `end` is not behind `start`.
    #[must_use]
    pub fn between(start: u64, end: u64) -> Self {
        Self { start: VirtAddr(start), len: end.saturating_sub(start) }
    }

    /// First address behind it, saturated.
    #[must_use]
    pub fn end(self) -> u64 {
        self.start.0.saturating_add(self.len)
    }

    /// Whether it holds the address.
    #[must_use]
    pub fn contains(self, virt: VirtAddr) -> bool {
        virt.0.checked_sub(self.start.0).is_some_and(|offset| offset < self.len)
    }
}

/// A row of addresses: an architecture's map from one version to another.
#[derive(Clone, Copy, Debug)]
pub struct MapRow {
    /// Architectures.
    pub archs: &'static [Arch],
    /// Of a kernel that translates by hashed tables (powerpc; on 32-bit the other kind is 8xx).
    pub hashed: bool,
    /// `log2` of the bytes of the pages of the kernels that it is the map of.
    pub page_shifts: &'static [u32],
    /// Bits of an address that they translate; `None` where there is no choice.
    pub va_bits: Option<u32>,
    /// First version.
    pub since: Option<Version>,
    /// First version with another map.
    pub until: Option<Version>,
    /// Start of the direct map.
    pub direct_map: u64,
    /// Start and end of the vmalloc area; [`BEHIND_MEMORY`] as its start: behind the direct map.
    pub vmalloc: (u64, u64),
    /// Start and end of the module area; equal to `vmalloc` where modules live there.
    pub modules: (u64, u64),
    /// Start of the kernel image; `None` = it is run from the direct map.
    pub image: Option<u64>,
    /// Address of the patcher's alias: the fixmap slot on arm64, a page of the patching address
    /// space elsewhere.
    pub patch: u64,
    /// Where this is to be seen.
    pub cite: Cite,
}

impl MapRow {
    /// Whether it is the map of that version with such page tables.
    fn is_of(&self, version: Version, paging: Paging) -> bool {
        self.archs.contains(&paging.arch)
            && self.hashed == paging.hashed
            && self.page_shifts.contains(&paging.page_shift)
            && self.va_bits.is_none_or(|bits| bits == paging.va_bits)
            && in_range(version, self.since, self.until)
    }
}

/// The start of a vmalloc area that begins behind the direct map, with a hole of
/// 16 MiB or more between.
pub const BEHIND_MEMORY: u64 = 0;
/// That hole on 32-bit powerpc, which ends at a multiple of it.
const VMALLOC_OFFSET: u64 = 16 << 20;
/// 32-bit powerpc's option for the size of its module area.
const MODULES_SIZE: Version = Version::candidate(6, 12, 1);
/// Where 32-bit powerpc's vmalloc area ends: IOREMAP_TOP, with the fixed maps' size chosen here.
const PPC32_TOP: u64 = 0xff00_0000;
const PPC32: &[Arch] = &[Arch::Ppc32];

/// A map of 32-bit powerpc.
const fn ppc32(
    hashed: bool,
    since: Option<Version>,
    until: Option<Version>,
    modules: u64,
    cite: Cite,
) -> MapRow {
    const PAGE_OFFSET: u64 = 0xc000_0000;
    MapRow {
        archs: PPC32,
        hashed,
        page_shifts: &[12],
        va_bits: None,
        since,
        until,
        direct_map: PAGE_OFFSET,
        vmalloc: (BEHIND_MEMORY, PPC32_TOP),
        modules: (modules, PAGE_OFFSET),
        image: None,
        // None is used: patchers have a page of the vmalloc area.
        patch: 0,
        cite,
    }
}

/// A map of 64-bit powerpc with hashed tables, whose modules lie in the vmalloc area.
const fn ppc64(vmalloc: (u64, u64), cite: Cite) -> MapRow {
    MapRow {
        archs: &[Arch::Ppc64le, Arch::Ppc64],
        hashed: true,
        page_shifts: &[],
        va_bits: None,
        since: None,
        until: None,
        direct_map: 0xc000_0000_0000_0000,
        vmalloc,
        modules: vmalloc,
        image: None,
        // None is used: patchers have a page of the vmalloc area.
        patch: 0,
        cite,
    }
}

const BOOK3S_32: Cite = Cite::read(
    "Linux 5.19, 6.6, 6.11.11 (MODULES_VADDR: 256 MiB), 6.12, 6.18 \
     arch/powerpc/include/asm/book3s/32/pgtable.h, 7.0 asm/task_size_32.h, arch/powerpc/Kconfig \
     (MODULES_SIZE)",
);
const MPC8XX: Cite = Cite::read(
    "Linux 6.1, 6.6, 6.11.11 (MODULES_VADDR: 256 MiB), 6.12, 6.18 \
     arch/powerpc/include/asm/nohash/32/mmu-8xx.h, 7.0 asm/task_size_32.h, arch/powerpc/Kconfig \
     (MODULES_SIZE)",
);

/// arm64 enlarged its module area and moved what lies behind it.
const MODULES_2G: Version = Version::candidate(6, 5, 1);
/// arm64 moved its fixmap and the space of PCI I/O above the array of pages.
const VMEMMAP_BELOW_1G: Version = Version::candidate(6, 9, 1);

/// An arm64 map by the macros of the headers, which count in pages: the array of pages ends the
/// vmalloc area, and fixmap slots are pages. A kernel with 52 bits has everything but its linear
/// map where one with the bits has it that it falls back to.
const fn arm64_map(
    page_shift: u32,
    va_bits: u32,
    since: Option<Version>,
    until: Option<Version>,
) -> MapRow {
    const STRUCT_PAGE_BYTES: u64 = 64;
    let page = 1u64 << page_shift;
    let least_bits = match arm64_fallback(page_shift, va_bits) {
        Some(bits) => bits,
        None => va_bits,
    };
    // _PAGE_END, PAGE_OFFSET.
    let modules = (1u64 << (least_bits - 1)).wrapping_neg();
    let direct_map = (1u64 << va_bits).wrapping_neg();
    let linear_bytes = modules - direct_map;
    let image = modules + if since.is_none() { 128 << 20 } else { 2 << 30 };
    // VMEMMAP_START, VMALLOC_END, FIXADDR_TOP.
    let (vmemmap, vmalloc_end, top) = if until.is_some() {
        let start = ((1 << va_bits) / page * STRUCT_PAGE_BYTES).wrapping_neg();
        (start, start - (256 << 20), start - (32 << 20))
    } else {
        let start = (1u64 << 30).wrapping_neg() - linear_bytes / page * STRUCT_PAGE_BYTES;
        (start, start - (8 << 20), (8u64 << 20).wrapping_neg())
    };
    // FIX_TEXT_POKE0 is the second slot behind that of the device tree, which takes 4 MiB and
    // later 2 MiB and two pages more.
    let slot = if since.is_none() { (4 << 20) + 2 * page } else { (2 << 20) + 4 * page };
    assert!(vmalloc_end < vmemmap);
    MapRow {
        archs: &[Arch::Arm64],
        hashed: false,
        page_shifts: match page_shift {
            12 => &[12],
            14 => &[14],
            _ => &[16],
        },
        va_bits: Some(va_bits),
        since,
        until,
        direct_map,
        vmalloc: (image, vmalloc_end),
        modules: (modules, image),
        image: Some(image),
        patch: top - slot,
        cite: Cite::read(
            "Linux 5.19, 6.1, 6.4, 6.6, 6.8, 6.9, 6.12, 6.18.2, 7.0 arch/arm64/include/asm/memory.h, \
             pgtable.h, fixmap.h; arm64: module: rework module VA range selection (6.5)",
        ),
    }
}

/// A map of x86-64: the ends of the address space differ by the levels, the rest does not.
const fn x86_map(direct_map: u64, vmalloc: (u64, u64)) -> MapRow {
    MapRow {
        archs: &[Arch::X86_64],
        hashed: false,
        page_shifts: &[12],
        va_bits: None,
        since: None,
        until: None,
        direct_map,
        vmalloc,
        modules: (0xffff_ffff_c000_0000, 0xffff_ffff_ff00_0000),
        image: Some(0xffff_ffff_8100_0000),
        patch: 0x0000_5555_5555_4000,
        cite: Cite::read(
            "Linux 7.0 Documentation/arch/x86/x86_64/mm.rst; modules as in a recorded 6.12.117 \
             with RANDOMIZE_BASE and nokaslr; the poking address is random in Linux and fixed here",
        ),
    }
}

/// Every map.
pub const MAPS: &[MapRow] = &[
    MapRow {
        va_bits: Some(48),
        ..x86_map(0xffff_8880_0000_0000, (0xffff_c900_0000_0000, 0xffff_e900_0000_0000))
    },
    MapRow {
        va_bits: Some(57),
        ..x86_map(0xff11_0000_0000_0000, (0xffa0_0000_0000_0000, 0xffd2_0000_0000_0000))
    },
    arm64_map(12, 39, None, Some(MODULES_2G)),
    arm64_map(12, 39, Some(MODULES_2G), Some(VMEMMAP_BELOW_1G)),
    arm64_map(12, 39, Some(VMEMMAP_BELOW_1G), None),
    arm64_map(12, 48, None, Some(MODULES_2G)),
    arm64_map(12, 48, Some(MODULES_2G), Some(VMEMMAP_BELOW_1G)),
    arm64_map(12, 48, Some(VMEMMAP_BELOW_1G), None),
    arm64_map(14, 36, None, Some(MODULES_2G)),
    arm64_map(14, 36, Some(MODULES_2G), Some(VMEMMAP_BELOW_1G)),
    arm64_map(14, 36, Some(VMEMMAP_BELOW_1G), None),
    arm64_map(14, 47, None, Some(MODULES_2G)),
    arm64_map(14, 47, Some(MODULES_2G), Some(VMEMMAP_BELOW_1G)),
    arm64_map(14, 47, Some(VMEMMAP_BELOW_1G), None),
    arm64_map(14, 48, None, Some(MODULES_2G)),
    arm64_map(14, 48, Some(MODULES_2G), Some(VMEMMAP_BELOW_1G)),
    arm64_map(14, 48, Some(VMEMMAP_BELOW_1G), None),
    arm64_map(16, 42, None, Some(MODULES_2G)),
    arm64_map(16, 42, Some(MODULES_2G), Some(VMEMMAP_BELOW_1G)),
    arm64_map(16, 42, Some(VMEMMAP_BELOW_1G), None),
    arm64_map(16, 48, None, Some(MODULES_2G)),
    arm64_map(16, 48, Some(MODULES_2G), Some(VMEMMAP_BELOW_1G)),
    arm64_map(16, 48, Some(VMEMMAP_BELOW_1G), None),
    arm64_map(16, 52, None, Some(MODULES_2G)),
    arm64_map(16, 52, Some(MODULES_2G), Some(VMEMMAP_BELOW_1G)),
    arm64_map(16, 52, Some(VMEMMAP_BELOW_1G), None),
    // LPA2 came with the last map.
    arm64_map(12, 52, Some(VMEMMAP_BELOW_1G), None),
    arm64_map(14, 52, Some(VMEMMAP_BELOW_1G), None),
    MapRow {
        hashed: false,
        page_shifts: &[12, 16],
        patch: 0x0000_0100_0000_0000,
        ..ppc64(
            (0xc008_0000_0000_0000, 0xc00a_0000_0000_0000),
            Cite::read(
                "Linux 6.12, 7.0 arch/powerpc/include/asm/book3s/64/radix.h, the same for both \
                 sizes of pages; the patching address is random in Linux and fixed here",
            ),
        )
    },
    MapRow {
        page_shifts: &[12],
        ..ppc64(
            (0xc000_3d00_0000_0000, 0xc000_3e00_0000_0000),
            Cite::read(
                "Linux arch/powerpc/include/asm/book3s/64/hash-4k.h (H_KERN_VIRT_START, \
                 REGION_SHIFT, as of 5.11)",
            ),
        )
    },
    MapRow {
        page_shifts: &[16],
        ..ppc64(
            (0xc008_0000_0000_0000, 0xc00a_0000_0000_0000),
            Cite::read(
                "Linux 5.19, 6.12, 7.0 arch/powerpc/include/asm/book3s/64/hash-64k.h \
                 (H_KERN_VIRT_START, H_KERN_MAP_SIZE)",
            ),
        )
    },
    ppc32(true, None, Some(MODULES_SIZE), 0xb000_0000, BOOK3S_32),
    ppc32(true, Some(MODULES_SIZE), None, 0xbc00_0000, BOOK3S_32),
    ppc32(false, None, Some(MODULES_SIZE), 0xb000_0000, MPC8XX),
    ppc32(false, Some(MODULES_SIZE), None, 0xbe00_0000, MPC8XX),
];

/// Addresses of one booted kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The direct map; as long as memory.
    pub direct_map: Range,
    /// The vmalloc area.
    pub vmalloc: Range,
    /// The module area.
    pub modules: Range,
    /// Where module_alloc looks: the module area, or what of it direct branches of the image reach:
    /// on arm64 the 128 MiB that end with the image, on 32-bit powerpc from 32 MiB before the
    /// image's end on.
    pub module_window: Range,
    /// The kernel's text (on powerpc inside the direct map).
    pub text: Range,
    /// The patcher's alias address.
    pub patch: VirtAddr,
}

/// How far an arm64 branch reaches.
const DIRECT_BRANCH_BYTES: u64 = 128 << 20;
/// How far a powerpc branch reaches.
const POWER_BRANCH_BYTES: u64 = 32 << 20;

/// Bytes of kernel text: two large leaves.
pub(crate) const TEXT_BYTES: u64 = 4 << 20;

impl Layout {
    /// The layout of a version with so much memory; `None` where it is not modelled.
    #[must_use]
    pub fn of(version: Version, paging: Paging, memory_bytes: u64) -> Option<Self> {
        let (row, arch) = (Self::row(version, paging)?, paging.arch);
        let modules = Range::between(row.modules.0, row.modules.1);
        let module_window = match (arch, row.image) {
            (Arch::Arm64, Some(image)) => {
                let end = image + TEXT_BYTES;
                Range::between(end.saturating_sub(DIRECT_BRANCH_BYTES), end)
            }
            (Arch::Ppc32, _) => {
                let etext = row.direct_map + TEXT_BYTES;
                Range::between(row.modules.0.max(etext - POWER_BRANCH_BYTES), row.modules.1)
            }
            _ => modules,
        };
        let high_memory = row.direct_map.saturating_add(memory_bytes);
        let vmalloc = match row.vmalloc {
            (BEHIND_MEMORY, end) => {
                let hole = VMALLOC_OFFSET;
                let start = high_memory.saturating_add(hole) & !(hole - 1);
                if start >= end {
                    return None;
                }
                (start, end)
            }
            both => both,
        };
        Some(Self {
            direct_map: Range { start: VirtAddr(row.direct_map), len: memory_bytes },
            vmalloc: Range::between(vmalloc.0, vmalloc.1),
            modules,
            module_window,
            text: Range { start: VirtAddr(row.image.unwrap_or(row.direct_map)), len: TEXT_BYTES },
            patch: VirtAddr(row.patch),
        })
    }

    /// The map that it is made by.
    #[must_use]
    pub fn row(version: Version, paging: Paging) -> Option<&'static MapRow> {
        MAPS.iter().find(|row| row.is_of(version, paging))
    }

    /// Whether the kernel takes the address for one of vmalloc or modules
    /// (`is_vmalloc_or_module_addr`).
    #[must_use]
    pub fn is_vmalloc_or_module(&self, virt: VirtAddr) -> bool {
        self.vmalloc.contains(virt) || self.modules.contains(virt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::ADDRESS_SIZES;
    use crate::version::simulated;

    #[test]
    fn every_simulated_kernel_has_one_map_without_overlaps() {
        for paging in Arch::ALL.into_iter().flat_map(Paging::all) {
            let tree = paging.tree().unwrap();
            let since = ADDRESS_SIZES
                .iter()
                .find(|a| {
                    (a.arch, a.page_shift, a.bits)
                        == (paging.arch, paging.page_shift, paging.va_bits)
                })
                .and_then(|row| row.since);
            for version in simulated() {
                let at = format!("{} {version}", tree.name);
                let rows = MAPS.iter().filter(|row| row.is_of(version, paging)).count();
                assert_eq!(rows, usize::from(in_range(version, since, None)), "{at}");
                let memory = if paging.arch == Arch::Ppc32 { 256 << 20 } else { 1 << 30 };
                let Some(layout) = Layout::of(version, paging, memory) else { continue };
                let (dm, vm) = (layout.direct_map, layout.vmalloc);
                assert!(dm.end() <= vm.start.0 && vm.len >= memory, "{at}");
                assert!(!layout.is_vmalloc_or_module(dm.start));
                assert!(!vm.contains(layout.patch) && !dm.contains(layout.patch), "{at}");
                assert!(layout.patch.is_aligned(paging.page_shift), "{at}");
                assert!(vm.start.is_aligned(paging.page_shift), "{at}");
                assert!(VirtAddr(vm.end()).is_aligned(16), "{at}");
                if !paging.hashed {
                    for end in [dm.start.0, vm.start.0, vm.end() - 1, layout.patch.0] {
                        assert!(tree.is_canonical(VirtAddr(end)), "{at} {end:x}");
                    }
                }
            }
        }
        // High memory.
        let of =
            |major, minor, paging, bytes| Layout::of(Version::release(major, minor), paging, bytes);
        assert!(of(6, 12, Paging::new(Arch::Ppc32, 12), 1 << 30).is_none());
        let at = |v: (u16, u16), hashed| {
            let paging = if hashed { Paging::hashed } else { Paging::new };
            of(v.0, v.1, paging(Arch::Ppc32, 12), 256 << 20).unwrap()
        };
        assert_eq!(at((6, 6), true).module_window, Range::between(0xbe40_0000, 0xc000_0000));
        assert_eq!(at((6, 6), true).modules.start, VirtAddr(0xb000_0000));
        assert_eq!(at((6, 12), false).modules.start, VirtAddr(0xbe00_0000));
        assert_eq!(at((6, 12), true).vmalloc, Range::between(0xd100_0000, 0xff00_0000));
        assert!(of(6, 12, Paging::new(Arch::X86_64, 16), 1 << 30).is_none());
    }

    /// Ends of arm64's vmalloc area and the patcher's fixmap slot, by hand from the headers.
    #[test]
    fn arm64_places_depend_on_the_page() {
        for ((major, minor), page_shift, vmalloc_end, patch) in [
            ((6, 1), 12, 0xffff_fbff_f000_0000, 0xffff_fbff_fdbf_e000),
            ((6, 1), 14, 0xffff_feff_f000_0000, 0xffff_feff_fdbf_8000),
            ((6, 1), 16, 0xffff_ffbf_f000_0000, 0xffff_ffbf_fdbe_0000),
            ((6, 6), 12, 0xffff_fbff_f000_0000, 0xffff_fbff_fddf_c000),
            ((6, 6), 14, 0xffff_feff_f000_0000, 0xffff_feff_fddf_0000),
            ((6, 6), 16, 0xffff_ffbf_f000_0000, 0xffff_ffbf_fddc_0000),
            ((6, 12), 12, 0xffff_fdff_bf80_0000, 0xffff_ffff_ff5f_c000),
            ((6, 12), 14, 0xffff_ff7f_bf80_0000, 0xffff_ffff_ff5f_0000),
            ((6, 12), 16, 0xffff_ffdf_bf80_0000, 0xffff_ffff_ff5c_0000),
        ] {
            let version = Version::release(major, minor);
            let paging = Paging::new(Arch::Arm64, page_shift);
            let layout = Layout::of(version, paging, 1 << 30).unwrap();
            let found = (layout.vmalloc.end(), layout.patch.0);
            assert_eq!(found, (vmalloc_end, patch), "{version} {page_shift}");
        }
    }
}
