//! Where things lie in the kernel's address space.
//!
//! Modelled: direct map, vmalloc, module area, kernel image and the patcher's fixed addresses, as
//! they are without address-space randomisation (x86-64 4-level, arm64 48 bits, powerpc radix and
//! hashed tables with 4 KiB pages). Not modelled: KASLR, vmemmap, per-CPU areas, 5-level layouts,
//! ppc32.

use textbed_arch::{Arch, Cite, VirtAddr};

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
    /// Of a kernel that translates by hashed tables (powerpc).
    pub hashed: bool,
    /// First version.
    pub since: Option<Version>,
    /// First version with another map.
    pub until: Option<Version>,
    /// Start of the direct map.
    pub direct_map: u64,
    /// Start and end of the vmalloc area.
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

/// arm64 doubled its module area and moved what lies behind it.
const MODULES_2G: Version = Version::candidate(6, 5, 1);

/// Every map.
pub const MAPS: &[MapRow] = &[
    MapRow {
        archs: &[Arch::X86_64],
        hashed: false,
        since: None,
        until: None,
        direct_map: 0xffff_8880_0000_0000,
        vmalloc: (0xffff_c900_0000_0000, 0xffff_e900_0000_0000),
        modules: (0xffff_ffff_c000_0000, 0xffff_ffff_ff00_0000),
        image: Some(0xffff_ffff_8100_0000),
        patch: 0x0000_5555_5555_4000,
        cite: Cite::read(
            "Linux 7.0 Documentation/arch/x86/x86_64/mm.rst; modules as in a recorded 6.12.117 \
             with RANDOMIZE_BASE and nokaslr; the poking address is random in Linux and fixed here",
        ),
    },
    MapRow {
        archs: &[Arch::Arm64],
        hashed: false,
        since: None,
        until: Some(MODULES_2G),
        direct_map: 0xffff_0000_0000_0000,
        vmalloc: (0xffff_8000_0800_0000, 0xffff_fbff_f000_0000),
        modules: (0xffff_8000_0000_0000, 0xffff_8000_0800_0000),
        image: Some(0xffff_8000_0800_0000),
        patch: 0xffff_fbff_fdbf_f000,
        cite: Cite::deduced(
            "Linux 5.19, 6.1 arch/arm64/include/asm/memory.h; the fixmap slot's \
                             place is chosen here",
        ),
    },
    MapRow {
        archs: &[Arch::Arm64],
        hashed: false,
        since: Some(MODULES_2G),
        until: None,
        direct_map: 0xffff_0000_0000_0000,
        vmalloc: (0xffff_8000_8000_0000, 0xffff_fdff_bf80_0000),
        modules: (0xffff_8000_0000_0000, 0xffff_8000_8000_0000),
        image: Some(0xffff_8000_8000_0000),
        patch: 0xffff_ffff_fddf_f000,
        cite: Cite::deduced(
            "Linux 6.8, 7.0 arch/arm64/include/asm/memory.h; the fixmap slot's \
                             place is chosen here",
        ),
    },
    MapRow {
        archs: &[Arch::Ppc64le, Arch::Ppc64],
        hashed: false,
        since: None,
        until: None,
        direct_map: 0xc000_0000_0000_0000,
        vmalloc: (0xc008_0000_0000_0000, 0xc00a_0000_0000_0000),
        modules: (0xc008_0000_0000_0000, 0xc00a_0000_0000_0000),
        image: None,
        patch: 0x0000_0100_0000_0000,
        cite: Cite::read(
            "Linux 7.0 arch/powerpc/include/asm/book3s/64/radix.h; the patching \
                          address is random in Linux and fixed here",
        ),
    },
    MapRow {
        archs: &[Arch::Ppc64le, Arch::Ppc64],
        hashed: true,
        since: None,
        until: None,
        direct_map: 0xc000_0000_0000_0000,
        vmalloc: (0xc000_3d00_0000_0000, 0xc000_3e00_0000_0000),
        modules: (0xc000_3d00_0000_0000, 0xc000_3e00_0000_0000),
        image: None,
        // None is used: patchers have a page of the vmalloc area.
        patch: 0,
        cite: Cite::read(
            "Linux arch/powerpc/include/asm/book3s/64/hash-4k.h (H_KERN_VIRT_START, REGION_SHIFT, \
             as of 5.11)",
        ),
    },
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
    /// Where module_alloc looks: the module area, or on arm64 the 128 MiB that end with the image
    /// (direct branches reach it).
    pub module_window: Range,
    /// The kernel's text (on powerpc inside the direct map).
    pub text: Range,
    /// The patcher's alias address.
    pub patch: VirtAddr,
}

/// How far an arm64 branch reaches.
const DIRECT_BRANCH_BYTES: u64 = 128 << 20;

/// Bytes of kernel text: two large leaves.
pub(crate) const TEXT_BYTES: u64 = 4 << 20;

impl Layout {
    /// The layout of a version on an architecture with so much memory; `None` where it is not
    /// modelled. `text` is the address of the image; powerpc passes its place in the direct map.
    #[must_use]
    pub fn new(version: Version, arch: Arch, memory_bytes: u64) -> Option<Self> {
        Self::of(version, arch, false, memory_bytes)
    }

    /// The same of a kernel that translates by hashed tables, or does not.
    #[must_use]
    pub fn of(version: Version, arch: Arch, hashed: bool, memory_bytes: u64) -> Option<Self> {
        let fits = |r: &&MapRow| r.archs.contains(&arch) && in_range(version, r.since, r.until);
        let row = MAPS.iter().filter(fits).find(|r| r.hashed == hashed)?;
        let modules = Range::between(row.modules.0, row.modules.1);
        let module_window = match (arch, row.image) {
            (Arch::Arm64, Some(image)) => {
                let end = image + TEXT_BYTES;
                Range::between(end.saturating_sub(DIRECT_BRANCH_BYTES), end)
            }
            _ => modules,
        };
        Some(Self {
            direct_map: Range { start: VirtAddr(row.direct_map), len: memory_bytes },
            vmalloc: Range::between(row.vmalloc.0, row.vmalloc.1),
            modules,
            module_window,
            text: Range { start: VirtAddr(row.image.unwrap_or(row.direct_map)), len: TEXT_BYTES },
            patch: VirtAddr(row.patch),
        })
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
    use crate::version::simulated;

    #[test]
    fn every_simulated_kernel_has_one_map_without_overlaps() {
        use Arch::{Arm64, Ppc64, Ppc64le, X86_64};
        let kinds = [X86_64, Arm64, Ppc64le, Ppc64].map(|a| (a, false));
        for (arch, hashed) in kinds.into_iter().chain([(Ppc64le, true), (Ppc64, true)]) {
            for version in simulated() {
                let rows = MAPS
                    .iter()
                    .filter(|r| r.archs.contains(&arch) && in_range(version, r.since, r.until))
                    .filter(|r| r.hashed == hashed);
                assert_eq!(rows.count(), 1, "{arch} {version}");
                let layout = Layout::of(version, arch, hashed, 1 << 30).unwrap();
                let (dm, vm) = (layout.direct_map, layout.vmalloc);
                assert!(dm.end() <= vm.start.0 && vm.len > 1 << 30, "{arch} {version}");
                assert!(!layout.is_vmalloc_or_module(dm.start));
                assert!(!vm.contains(layout.patch) && !dm.contains(layout.patch));
            }
        }
        assert!(Layout::new(Version::release(6, 12), Arch::Ppc32, 1 << 30).is_none());
    }
}
