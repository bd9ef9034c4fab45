//! Base pages: with which sizes kernels can be built, and what follows from each.
//!
//! A frame ([`textbed_arch::Pfn`]) is 4 KiB everywhere; a page is what the kernel allocates, maps
//! and counts. Modelled: the sizes of [`PAGE_SIZES`] with the trees of
//! [`Format::for_kernel`], the leaf above a page (PMD), groups of contiguous entries. Not modelled:
//! arm64 with 36, 39, 42, 47 or 52 bits of virtual addresses, and the 16 KiB and 256 KiB pages of
//! embedded powerpc (44x, 8xx), which are other kernels.

use textbed_arch::paging::{BOOK3S32_TREE, Format, HASH_TREE_4K, HASH_TREE_64K};
use textbed_arch::{Arch, Cite, FRAME_SHIFT, VirtAddr};

/// Sizes of base pages with which the kernels of some architectures are built.
#[derive(Clone, Copy, Debug)]
pub struct PageRow {
    /// Architectures.
    pub archs: &'static [Arch],
    /// The value of the option `page_size`.
    pub word: &'static str,
    /// Linux's own switch; `None` where there is no choice.
    pub switch: Option<&'static str>,
    /// `log2` of its bytes.
    pub shift: u32,
    /// `log2` of the bytes of a group of entries with the contiguous bit (`CONT_PTE_SHIFT`).
    pub cont_shift: Option<u32>,
    /// Where this is to be seen.
    pub cite: Cite,
}

const ARM64: &[Arch] = &[Arch::Arm64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64];
const ARM64_CITE: Cite = Cite::read(
    "Linux 5.19, 6.1, 6.12, 6.18.2, 7.0 arch/arm64/Kconfig (ARM64_*_PAGES, ARM64_CONT_PTE_SHIFT), \
     arch/arm64/include/asm/pgtable-hwdef.h",
);
const POWER_CITE: Cite = Cite::read(
    "Linux 6.12 arch/powerpc/Kconfig (PPC_*_PAGES: Book3S has 4k and 64k), \
     arch/powerpc/include/asm/book3s/64/radix-64k.h, hash-64k.h",
);

/// Every size of every architecture's pages.
pub const PAGE_SIZES: &[PageRow] = &[
    PageRow {
        archs: &[Arch::X86_64, Arch::Ppc32],
        word: "4K",
        switch: None,
        shift: 12,
        cont_shift: None,
        cite: Cite::read("Linux 6.12 arch/x86/include/asm/page_types.h PAGE_SHIFT"),
    },
    PageRow {
        archs: ARM64,
        word: "4K",
        switch: Some("ARM64_4K_PAGES"),
        shift: 12,
        cont_shift: Some(16),
        cite: ARM64_CITE,
    },
    PageRow {
        archs: ARM64,
        word: "16K",
        switch: Some("ARM64_16K_PAGES"),
        shift: 14,
        cont_shift: Some(21),
        cite: ARM64_CITE,
    },
    PageRow {
        archs: ARM64,
        word: "64K",
        switch: Some("ARM64_64K_PAGES"),
        shift: 16,
        cont_shift: Some(21),
        cite: ARM64_CITE,
    },
    PageRow {
        archs: POWER,
        word: "4K",
        switch: Some("PPC_4K_PAGES"),
        shift: 12,
        cont_shift: None,
        cite: POWER_CITE,
    },
    PageRow {
        archs: POWER,
        word: "64K",
        switch: Some("PPC_64K_PAGES"),
        shift: 16,
        cont_shift: None,
        cite: POWER_CITE,
    },
];

/// The pages of one kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pages {
    shift: u32,
    pmd_shift: u32,
    cont_shift: Option<u32>,
}

impl Pages {
    /// Pages of `1 << shift` bytes on an architecture, translated by a tree or by hashed tables;
    /// `None` where no such kernel is simulated.
    #[must_use]
    pub fn of(arch: Arch, shift: u32, hashed: bool) -> Option<Self> {
        let row = PAGE_SIZES.iter().find(|r| r.archs.contains(&arch) && r.shift == shift)?;
        let format = tree_of(arch, shift, hashed)?;
        let pmd_shift = format.levels.get(format.last_level().checked_sub(1)?)?.index_shift;
        Some(Self { shift, pmd_shift, cont_shift: row.cont_shift })
    }

    /// `log2` of a page's bytes (`PAGE_SHIFT`).
    #[must_use]
    pub const fn shift(self) -> u32 {
        self.shift
    }

    /// A page's bytes (`PAGE_SIZE`).
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.shift
    }

    /// Frames of a page.
    #[must_use]
    pub const fn frames(self) -> u64 {
        1 << (self.shift - FRAME_SHIFT)
    }

    /// `log2` of the bytes that the last table maps, which may be a leaf (`PMD_SHIFT`).
    #[must_use]
    pub const fn pmd_shift(self) -> u32 {
        self.pmd_shift
    }

    /// Those bytes (`PMD_SIZE`).
    #[must_use]
    pub const fn pmd_bytes(self) -> u64 {
        1 << self.pmd_shift
    }

    /// Entries of the last table (`PTRS_PER_PTE`).
    #[must_use]
    pub const fn per_table(self) -> u64 {
        1 << (self.pmd_shift - self.shift)
    }

    /// `log2` of the bytes of a group of contiguous entries, where there are such.
    #[must_use]
    pub const fn cont_shift(self) -> Option<u32> {
        self.cont_shift
    }

    /// The page that an address lies in.
    #[must_use]
    pub fn start_of(self, virt: VirtAddr) -> VirtAddr {
        virt.align_down(self.shift)
    }

    /// An address's place in its page (`offset_in_page`).
    #[must_use]
    pub const fn offset_of(self, virt: VirtAddr) -> u64 {
        virt.0 & (self.bytes() - 1)
    }

    /// Bytes from an address to the end of its page.
    #[must_use]
    pub const fn room_at(self, virt: VirtAddr) -> u64 {
        self.bytes() - self.offset_of(virt)
    }

    /// Whole pages that bytes take.
    #[must_use]
    pub const fn holding(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    /// Bytes of pages, saturated.
    #[must_use]
    pub const fn in_bytes(self, pages: u64) -> u64 {
        pages.saturating_mul(self.bytes())
    }
}

/// The tree of a kernel with pages of `1 << shift` bytes, which with hashed tables stands beside
/// them; `None` where no such kernel is simulated.
#[must_use]
pub fn tree_of(arch: Arch, shift: u32, hashed: bool) -> Option<&'static Format> {
    match (hashed, arch, shift) {
        (false, ..) => Format::for_kernel(arch, shift),
        (true, Arch::Ppc64le | Arch::Ppc64, 12) => Some(&HASH_TREE_4K),
        (true, Arch::Ppc64le | Arch::Ppc64, 16) => Some(&HASH_TREE_64K),
        // Up to 6.6 another of the same shape.
        (true, Arch::Ppc32, 12) => Some(&BOOK3S32_TREE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the headers: PMD_SHIFT, CONT_PTE_SHIFT and PTRS_PER_PTE worked out by hand.
    #[test]
    fn sizes_follow_from_the_page() {
        let of = |arch, shift, hashed| {
            Pages::of(arch, shift, hashed)
                .map(|p| (p.pmd_shift(), p.cont_shift(), p.per_table(), p.frames()))
        };
        assert_eq!(of(Arch::X86_64, 12, false), Some((21, None, 512, 1)));
        assert_eq!(of(Arch::Arm64, 12, false), Some((21, Some(16), 512, 1)));
        assert_eq!(of(Arch::Arm64, 14, false), Some((25, Some(21), 2048, 4)));
        assert_eq!(of(Arch::Arm64, 16, false), Some((29, Some(21), 8192, 16)));
        assert_eq!(of(Arch::Ppc64le, 12, false), Some((21, None, 512, 1)));
        assert_eq!(of(Arch::Ppc64, 16, false), Some((21, None, 32, 16)));
        assert_eq!(of(Arch::Ppc64le, 12, true), Some((21, None, 512, 1)));
        assert_eq!(of(Arch::Ppc64le, 16, true), Some((24, None, 256, 16)));
        for (arch, shift, hashed) in [
            (Arch::X86_64, 12, true),
            (Arch::X86_64, 16, false),
            (Arch::Arm64, 13, false),
            (Arch::Ppc64le, 14, false),
            (Arch::Ppc64le, 14, true),
        ] {
            assert_eq!(of(arch, shift, hashed), None, "{arch} {shift} {hashed}");
        }
    }

    #[test]
    fn every_size_has_a_format_of_that_page() {
        for row in PAGE_SIZES {
            for arch in row.archs.iter().filter(|a| **a != Arch::Ppc32) {
                let format = tree_of(*arch, row.shift, false).unwrap();
                assert_eq!(format.page_shift, row.shift, "{arch} {}", row.word);
                assert_eq!(format.va_bits, if arch.is_powerpc() { 52 } else { 48 });
            }
        }
    }
}
