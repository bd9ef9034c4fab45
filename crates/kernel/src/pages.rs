//! Base pages: with which sizes kernels can be built, and what follows from each.
//!
//! A frame ([`textbed_arch::Pfn`]) is 4 KiB everywhere; a page is what the kernel allocates, maps
//! and counts. Modelled: the sizes of [`PAGE_SIZES`] with the trees of [`Format::for_kernel`], by
//! the bits of an address that they translate ([`ADDRESS_SIZES`]), the leaf above a page (PMD),
//! groups of contiguous entries. Not modelled: kernels built for more bits than their CPU has,
//! which fall back to fewer; the 16 KiB and 256 KiB pages of embedded powerpc (44x, 8xx), which are
//! other kernels.

use textbed_arch::paging::{BOOK3S32_TREE, Format, HASH_TREE_4K, HASH_TREE_64K};
use textbed_arch::{Arch, Cite, FRAME_SHIFT, VirtAddr};

use crate::version::Version;

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
    /// Where this is to be seen.
    pub cite: Cite,
}

const ARM64: &[Arch] = &[Arch::Arm64];
const POWER: &[Arch] = &[Arch::Ppc64le, Arch::Ppc64];
const ARM64_CITE: Cite = Cite::read(
    "Linux 5.19, 6.1, 6.12, 6.18.2, 7.0 arch/arm64/Kconfig (ARM64_*_PAGES, ARM64_CONT_PTE_SHIFT), \
     arch/arm64/include/asm/pgtable-hwdef.h",
);
const X86_CITE: Cite =
    Cite::read("Linux 7.0 Documentation/arch/x86/x86_64/mm.rst (4-level and 5-level page tables)");
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
        cite: Cite::read("Linux 6.12 arch/x86/include/asm/page_types.h PAGE_SHIFT"),
    },
    PageRow {
        archs: ARM64,
        word: "4K",
        switch: Some("ARM64_4K_PAGES"),
        shift: 12,
        cite: ARM64_CITE,
    },
    PageRow {
        archs: ARM64,
        word: "16K",
        switch: Some("ARM64_16K_PAGES"),
        shift: 14,
        cite: ARM64_CITE,
    },
    PageRow {
        archs: ARM64,
        word: "64K",
        switch: Some("ARM64_64K_PAGES"),
        shift: 16,
        cite: ARM64_CITE,
    },
    PageRow { archs: POWER, word: "4K", switch: Some("PPC_4K_PAGES"), shift: 12, cite: POWER_CITE },
    PageRow {
        archs: POWER,
        word: "64K",
        switch: Some("PPC_64K_PAGES"),
        shift: 16,
        cite: POWER_CITE,
    },
];

/// How many bits of a virtual address the kernels of an architecture can be built to translate.
#[derive(Clone, Copy, Debug)]
pub struct AddressRow {
    /// The architecture.
    pub arch: Arch,
    /// `log2` of the bytes of the pages with which there is the choice.
    pub page_shift: u32,
    /// The value of the option `va_bits`.
    pub word: &'static str,
    /// The bits.
    pub bits: u32,
    /// What such a kernel translates on a CPU that has not so many.
    pub fallback: Option<u32>,
    /// Linux's own switch; on x86-64 one that asks for LA57, too, which is taken as given.
    pub switch: Option<&'static str>,
    /// The first version that has it.
    pub since: Option<Version>,
    /// Where this is to be seen.
    pub cite: Cite,
}

/// What a kernel translates where nothing is said.
pub(crate) const USUAL_VA_BITS: &str = "48";
/// arm64's trees with LPA2: 52 bits with pages of 4 and 16 KiB.
const LPA2: Version = Version::candidate(6, 9, 1);

/// What an arm64 kernel of so many bits falls back to (`VA_BITS_MIN`).
pub(crate) const fn arm64_fallback(page_shift: u32, bits: u32) -> Option<u32> {
    match (bits, page_shift) {
        (52, 14) => Some(47),
        (52, _) => Some(48),
        _ => None,
    }
}

/// A choice of arm64.
const fn arm64_bits(
    page_shift: u32,
    (word, bits): (&'static str, u32),
    since: Option<Version>,
    switch: &'static str,
) -> AddressRow {
    let switch = Some(switch);
    let cite = Cite::read(
        "Linux 5.19, 6.8, 6.9, 6.12, 7.0 arch/arm64/Kconfig (ARM64_VA_BITS_*, with 52 by LPA2 from \
         6.9 on), asm/memory.h",
    );
    let fallback = arm64_fallback(page_shift, bits);
    AddressRow { arch: Arch::Arm64, page_shift, word, bits, fallback, switch, since, cite }
}

/// Every choice.
pub const ADDRESS_SIZES: &[AddressRow] = &[
    AddressRow {
        arch: Arch::X86_64,
        page_shift: 12,
        word: "48",
        bits: 48,
        fallback: None,
        switch: None,
        since: None,
        cite: X86_CITE,
    },
    AddressRow {
        arch: Arch::X86_64,
        page_shift: 12,
        word: "57",
        bits: 57,
        fallback: Some(48),
        switch: Some("X86_5LEVEL"),
        since: None,
        cite: X86_CITE,
    },
    arm64_bits(12, ("39", 39), None, "ARM64_VA_BITS_39"),
    arm64_bits(12, ("48", 48), None, "ARM64_VA_BITS_48"),
    arm64_bits(12, ("52", 52), Some(LPA2), "ARM64_VA_BITS_52"),
    arm64_bits(14, ("36", 36), None, "ARM64_VA_BITS_36"),
    arm64_bits(14, ("47", 47), None, "ARM64_VA_BITS_47"),
    arm64_bits(14, ("48", 48), None, "ARM64_VA_BITS_48"),
    arm64_bits(14, ("52", 52), Some(LPA2), "ARM64_VA_BITS_52"),
    arm64_bits(16, ("42", 42), None, "ARM64_VA_BITS_42"),
    arm64_bits(16, ("48", 48), None, "ARM64_VA_BITS_48"),
    arm64_bits(16, ("52", 52), None, "ARM64_VA_BITS_52"),
];

/// What the page tables of a kernel are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paging {
    /// The architecture.
    pub arch: Arch,
    /// `log2` of the bytes of a page.
    pub page_shift: u32,
    /// The bits of an address that the tree translates; those of [`ADDRESS_SIZES`], or the ones
    /// that the architecture has.
    pub va_bits: u32,
    /// Powerpc: translation by hashed tables, beside which the tree stands.
    pub hashed: bool,
}

impl Paging {
    /// A tree, and the bits that are usual (48 on x86-64 and arm64).
    #[must_use]
    pub fn new(arch: Arch, page_shift: u32) -> Self {
        let va_bits = Format::for_kernel(arch, page_shift).map_or(0, |format| format.va_bits);
        Self { arch, page_shift, va_bits, hashed: false }
    }

    /// Powerpc's hashed tables.
    #[must_use]
    pub fn hashed(arch: Arch, page_shift: u32) -> Self {
        let hashed = Self { arch, page_shift, va_bits: 0, hashed: true };
        let va_bits = hashed.tree().map_or(0, |format| format.va_bits);
        Self { va_bits, ..hashed }
    }

    /// What the kernels of an architecture can be built with: trees first, small pages first.
    pub fn all(arch: Arch) -> impl Iterator<Item = Self> {
        let sizes = || PAGE_SIZES.iter().filter(move |row| row.archs.contains(&arch));
        let trees = sizes().flat_map(move |row| {
            let usual = Self::new(arch, row.shift);
            let choices: Vec<u32> = ADDRESS_SIZES
                .iter()
                .filter(|a| (a.arch, a.page_shift) == (arch, row.shift))
                .map(|a| a.bits)
                .collect();
            let bits = if choices.is_empty() { vec![usual.va_bits] } else { choices };
            bits.into_iter().map(move |va_bits| Self { va_bits, ..usual })
        });
        let hashed = sizes().map(move |row| Self::hashed(arch, row.shift));
        trees.chain(hashed).filter(|paging| paging.tree().is_some())
    }

    /// The tree, which with hashed tables stands beside them; `None` where no such kernel is
    /// simulated.
    #[must_use]
    pub fn tree(self) -> Option<&'static Format> {
        match (self.hashed, self.arch, self.page_shift) {
            (false, arch, shift) => Format::for_kernel(arch, shift)?.with_va_bits(self.va_bits),
            (true, Arch::Ppc64le | Arch::Ppc64, 12) => Some(&HASH_TREE_4K),
            (true, Arch::Ppc64le | Arch::Ppc64, 16) => Some(&HASH_TREE_64K),
            // Up to 6.6 another of the same shape.
            (true, Arch::Ppc32, 12) => Some(&BOOK3S32_TREE),
            _ => None,
        }
    }
}

/// The pages of one kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pages {
    shift: u32,
    pmd_shift: u32,
    cont_shift: Option<u32>,
}

impl Pages {
    /// The pages of a kernel; `None` where no such kernel is simulated.
    #[must_use]
    pub fn of(paging: Paging) -> Option<Self> {
        let Paging { arch, page_shift: shift, .. } = paging;
        PAGE_SIZES.iter().find(|r| r.archs.contains(&arch) && r.shift == shift)?;
        let format = paging.tree()?;
        let pmd_shift = format.levels.get(format.last_level().checked_sub(1)?)?.index_shift;
        Some(Self { shift, pmd_shift, cont_shift: format.group_shift_of(shift) })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// By the headers: PMD_SHIFT, CONT_PTE_SHIFT and PTRS_PER_PTE worked out by hand.
    #[test]
    fn sizes_follow_from_the_page() {
        let of = |arch, shift, hashed| {
            let paging = if hashed { Paging::hashed } else { Paging::new };
            Pages::of(paging(arch, shift))
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
    fn every_choice_has_a_tree_of_that_page_and_those_bits() {
        let mut found = Vec::new();
        for arch in Arch::ALL {
            for paging in Paging::all(arch) {
                let tree = paging.tree().unwrap();
                assert_eq!((tree.page_shift, tree.va_bits), (paging.page_shift, paging.va_bits));
                assert!(Pages::of(paging).is_some(), "{}", tree.name);
                found.push((arch, tree.name));
            }
        }
        for row in PAGE_SIZES {
            for arch in row.archs {
                let one = |(a, name)| {
                    a == *arch && Format::by_name(name).unwrap().page_shift == row.shift
                };
                assert!(found.iter().copied().any(one), "{arch} {}", row.word);
            }
        }
        for row in ADDRESS_SIZES {
            assert_eq!(row.word, row.bits.to_string());
            let usual = Paging::new(row.arch, row.page_shift);
            let tree = Paging { va_bits: row.bits, ..usual }.tree().unwrap();
            assert!(found.contains(&(row.arch, tree.name)), "{}", tree.name);
        }
        found.dedup();
        assert_eq!(found.iter().filter(|(a, _)| *a == Arch::Arm64).count(), 10);
    }

    /// PGDIR_SHIFT and PMD_SHIFT of kernels with fewer levels, by hand.
    #[test]
    fn sizes_do_not_depend_on_the_levels_above() {
        for (shift, bits, pmd) in [(12, 39, 21), (14, 36, 25), (14, 47, 25), (16, 42, 29)] {
            let paging = Paging { va_bits: bits, ..Paging::new(Arch::Arm64, shift) };
            assert_eq!(Pages::of(paging).unwrap().pmd_shift(), pmd, "{bits}");
        }
    }
}
