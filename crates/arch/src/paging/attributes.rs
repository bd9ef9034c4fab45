//! What a leaf says besides its frame, its size and its rights: memory type and contiguous bit.
//!
//! Modelled: the types that Linux programs (x86-64's PAT and arm64's MAIR_EL1 by index; 64-bit
//! Power's ATT field, in radix trees and in those beside hashed tables), and how many entries stand
//! behind arm64's contiguous bit at each level. Shareability counts as part of the type, as in what
//! Arm wants a break for (D8.17.1 RWHZWS). x86's write-combining counts as non-cacheable, its two
//! uncached types as a device's. Not modelled: types of other formats, which read as write-back, of
//! another MAIR_EL1 or PAT, and MTRRs.

use super::Format;
use super::field::Field;
use crate::cite::Cite;
use crate::isa::Arch;

/// How memory is accessed through a leaf. The numbers are part of the encoding of streams.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(u8)]
pub enum MemoryType {
    /// Ordinary cacheable memory, or a source that does not say.
    #[default]
    WriteBack = 0,
    /// Memory that is not cached.
    NonCacheable = 1,
    /// A device's registers.
    Device = 2,
    /// Any other.
    Other = 3,
}

impl MemoryType {
    /// The type with this number, of which the two low bits count.
    #[must_use]
    pub const fn from_bits(number: u8) -> MemoryType {
        match number & 3 {
            0 => MemoryType::WriteBack,
            1 => MemoryType::NonCacheable,
            2 => MemoryType::Device,
            _ => MemoryType::Other,
        }
    }

    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            MemoryType::WriteBack => "write-back memory",
            MemoryType::NonCacheable => "non-cacheable memory",
            MemoryType::Device => "device memory",
            MemoryType::Other => "memory of another type",
        }
    }
}

/// Contiguous bit and memory type of a leaf. The default is what most leaves have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Attributes {
    /// It may be cached with the others of its group ([`Format::group_shift`]).
    pub contiguous: bool,
    /// How memory is accessed.
    pub memory: MemoryType,
}

/// How many entries translate together at a level of a granule of arm64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupRow {
    /// The granule, as `log2` of bytes.
    pub page_shift: u32,
    /// Levels above the last.
    pub above_last: usize,
    /// `log2` of the entries; each group is aligned to its size.
    pub entries_log2: u32,
}

const fn group(page_shift: u32, above_last: usize, entries_log2: u32) -> GroupRow {
    GroupRow { page_shift, above_last, entries_log2 }
}

/// Where the contiguous bit counts; it is RES0 in larger blocks, which LPA2 and LPA have.
pub const GROUP_ROWS: &[GroupRow] = &[
    group(12, 0, 4),
    group(12, 1, 4),
    group(12, 2, 4),
    group(14, 0, 7),
    group(14, 1, 5),
    group(16, 0, 5),
    group(16, 1, 5),
];

/// Where [`GROUP_ROWS`] stand.
pub const GROUPS: Cite = Cite::read(
    "Arm ARM DDI 0487 D8.7.1 RCBXXM and table D8-104; Linux 7.0 arch/arm64/include/asm/\
     pgtable-hwdef.h (CONT_PTE_SHIFT, CONT_PMD_SHIFT)",
);

/// Fields of a memory type, from the low bits up (those that a level has), with what their values
/// are.
struct Types {
    fields: &'static [&'static str],
    of: &'static [MemoryType],
    cite: Cite,
}

const MAIR: Types = Types {
    fields: &["ATTR"],
    // Normal, Normal-Tagged (ordinary memory to all that do not look at tags), Normal-NC,
    // Device-nGnRnE, Device-nGnRE.
    of: &[
        MemoryType::WriteBack,
        MemoryType::WriteBack,
        MemoryType::NonCacheable,
        MemoryType::Device,
        MemoryType::Device,
    ],
    cite: Cite::read(
        "Linux 6.12 arch/arm64/include/asm/memory.h (MT_*), arch/arm64/mm/mmu.c \
         pgattr_change_is_safe(): Normal and Normal-Tagged may be exchanged",
    ),
};

const POWER: Types = Types {
    fields: &["ATT"],
    // Normal, SAO, non-idempotent I/O, tolerant I/O.
    of: &[MemoryType::WriteBack, MemoryType::Other, MemoryType::Device, MemoryType::NonCacheable],
    cite: Cite::read("Linux 7.0 arch/powerpc/include/asm/book3s/64/pgtable.h (_PAGE_TOLERANT)"),
};

const PAT: Types = Types {
    fields: &["PWT", "PCD", "PAT", "PAT_LARGE"],
    // WB, WC, UC-, UC, WB, WP, UC-, WT.
    of: &[
        MemoryType::WriteBack,
        MemoryType::NonCacheable,
        MemoryType::Device,
        MemoryType::Device,
        MemoryType::WriteBack,
        MemoryType::Other,
        MemoryType::Device,
        MemoryType::Other,
    ],
    cite: Cite::read("Linux 6.12 arch/x86/mm/pat/memtype.c pat_bp_init(): full PAT support"),
};

/// `log2` of the bytes that leaves translate together if their contiguous bit is set, by granule
/// and size of leaf; `None` where it does not count, or there is none.
#[must_use]
pub fn group_shift(arch: Arch, page_shift: u32, leaf_shift: u32) -> Option<u32> {
    if arch != Arch::Arm64 {
        return None;
    }
    let index_bits = page_shift.checked_sub(3).filter(|bits| *bits > 0)?;
    let above = leaf_shift.checked_sub(page_shift)?;
    let of =
        |r: &&GroupRow| (r.page_shift, r.above_last as u32 * index_bits) == (page_shift, above);
    GROUP_ROWS.iter().find(of).map(|row| leaf_shift + row.entries_log2)
}

impl Format {
    fn types(&self) -> Option<&'static Types> {
        let has = |types: &&Types| types.fields.iter().all(|name| self.field(name).is_some());
        [&MAIR, &POWER, &PAT].into_iter().find(has)
    }

    /// The number that the fields of a type hold in a leaf of `level`.
    fn type_index(&self, types: &Types, level: usize, raw: u64) -> u64 {
        let mut bit = 0;
        let mut index = 0;
        for field in self.type_fields(types, level) {
            index |= field.get(raw) << bit;
            bit += field.bits;
        }
        index
    }

    /// `raw` with another number there.
    fn with_type_index(&self, types: &Types, level: usize, mut raw: u64, mut index: u64) -> u64 {
        for field in self.type_fields(types, level) {
            raw = field.put(raw, index);
            index >>= field.bits;
        }
        raw
    }

    fn type_fields(&self, types: &Types, level: usize) -> impl Iterator<Item = &'static Field> {
        let fields = self.fields;
        let names = types.fields;
        names
            .iter()
            .filter_map(move |name| fields.iter().find(|f| f.name == *name && f.is_in(level, true)))
    }

    /// `raw`, a leaf of `level`, with bits of its index into x86's PAT cleared, and then others
    /// set; the same where there is no PAT.
    #[must_use]
    pub fn with_pat_bits(&self, level: usize, raw: u64, set: u8, clear: u8) -> u64 {
        let Some(types) = self.types().filter(|types| types.fields == PAT.fields) else {
            return raw;
        };
        let index = self.type_index(types, level, raw) & !u64::from(clear) | u64::from(set);
        self.with_type_index(types, level, raw, index)
    }

    /// Where this format's memory types are from; `None` if they are not interpreted.
    #[must_use]
    pub fn types_cite(&self) -> Option<Cite> {
        self.types().map(|types| types.cite)
    }

    /// `log2` of the bytes that a leaf of `level` translates together with its neighbours if its
    /// contiguous bit is set; `None` where there is no such bit, or it does not count.
    #[must_use]
    pub fn group_shift(&self, level: usize) -> Option<u32> {
        let shape = self.shape(level, true)?;
        if shape.contiguous == 0 {
            return None;
        }
        group_shift(self.arch, self.page_shift, self.levels.get(level)?.index_shift)
    }

    /// The same by the size of a leaf.
    #[must_use]
    pub fn group_shift_of(&self, leaf_shift: u32) -> Option<u32> {
        self.group_shift(self.level_for_shift(leaf_shift)?)
    }

    /// The attributes of a leaf of `level`.
    #[must_use]
    pub fn attributes(&self, level: usize, raw: u64) -> Attributes {
        let Some(shape) = self.shape(level, true) else { return Attributes::default() };
        let contiguous = raw & shape.contiguous != 0 && self.group_shift(level).is_some();
        let usual = (raw ^ self.style.leaf_bits) & shape.memory == 0;
        let memory = if usual { MemoryType::WriteBack } else { self.unusual(level, raw) };
        Attributes { contiguous, memory }
    }

    /// The memory type of an entry that is not as the kernel's are.
    fn unusual(&self, level: usize, raw: u64) -> MemoryType {
        let Some(types) = self.types() else { return MemoryType::WriteBack };
        let index = self.type_index(types, level, raw) as usize;
        let memory = types.of.get(index).copied().unwrap_or(MemoryType::Other);
        // Other than inner shareable. Of what is not write-back it is ignored (D8.6.2).
        let shared = self.field("SH").is_none_or(|sh| sh.get(raw ^ self.style.leaf_bits) == 0);
        if memory == MemoryType::WriteBack && !shared { MemoryType::Other } else { memory }
    }

    /// `raw`, a leaf of `level`, with other attributes; `None` if the format cannot say them.
    #[must_use]
    pub fn with_attributes(&self, level: usize, raw: u64, to: Attributes) -> Option<u64> {
        let shape = self.shape(level, true)?;
        let mut new = raw & !shape.contiguous;
        if to.contiguous {
            self.group_shift(level)?;
            new |= shape.contiguous;
        }
        if self.attributes(level, raw).memory != to.memory {
            let types = self.types()?;
            let value = types.of.iter().position(|memory| *memory == to.memory)?;
            let usual = self.style.leaf_bits & shape.memory;
            let usual = new & !shape.memory | usual;
            new = self.with_type_index(types, level, usual, value as u64);
        }
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        ARM64_4K, ARM64_4K_LPA2, ARM64_16K, ARM64_64K, ARM64_64K_LPA, FORMATS, X86_64_4LEVEL,
    };
    use super::*;
    use crate::addr::PhysAddr;
    use crate::perm::Perm;

    #[test]
    fn groups_are_of_the_bytes_that_the_manual_has() {
        let kib = |n: u64| n << 10;
        let rows: &[(&Format, &[(u64, u64)])] = &[
            (&ARM64_4K, &[(kib(4), kib(64)), (2 << 20, 32 << 20), (1 << 30, 16 << 30)]),
            (&ARM64_16K, &[(kib(16), 2 << 20), (32 << 20, 1 << 30)]),
            (&ARM64_64K, &[(kib(64), 2 << 20), (512 << 20, 16 << 30)]),
        ];
        for (format, sizes) in rows {
            for (leaf, group) in *sizes {
                let shift = format.group_shift_of(leaf.trailing_zeros());
                assert_eq!(shift.map(|s| 1 << s), Some(*group), "{} {leaf:#x}", format.name);
            }
        }
        assert_eq!(ARM64_4K_LPA2.group_shift_of(39), None, "RES0 in a block of 512 GiB");
        assert_eq!(ARM64_64K_LPA.group_shift_of(42), None, "RES0 in a block of 4 TiB");
        let others = FORMATS.iter().filter(|f| f.arch != Arch::Arm64);
        assert!(others.flat_map(|f| (0..5).map(|l| f.group_shift(l))).all(|g| g.is_none()));
    }

    #[test]
    fn attributes_come_out_as_they_went_in_and_touch_nothing_else() {
        let mut said = 0;
        for format in FORMATS {
            let last = format.last_level();
            let phys = PhysAddr(1 << 26);
            let Ok(plain) = format.encode_leaf(last, phys, Perm::KERNEL_RW) else { continue };
            assert_eq!(format.attributes(last, plain), Attributes::default(), "{}", format.name);
            for bits in 0..8 {
                let to =
                    Attributes { contiguous: bits & 4 != 0, memory: MemoryType::from_bits(bits) };
                let Some(raw) = format.with_attributes(last, plain, to) else { continue };
                said += 1;
                assert_eq!(format.attributes(last, raw), to, "{} {to:?}", format.name);
                assert_eq!(format.entry_perm(last, raw, &super::super::Controls::LINUX), {
                    format.entry_perm(last, plain, &super::super::Controls::LINUX)
                });
                let back = format.with_attributes(last, raw, Attributes::default());
                assert_eq!(back, Some(plain), "{} {to:?}", format.name);
            }
        }
        // Ten of arm64 with three types each with and without the bit, four of 64-bit Power and two
        // of x86-64 with four types; the other formats' one.
        assert_eq!(said, 10 * 6 + 6 * 4 + FORMATS.len() as u32 - 16);
    }

    #[test]
    fn types_that_are_interpreted_were_read() {
        use crate::cite::Evidence;
        for format in FORMATS {
            let interpreted = matches!(format.arch, Arch::Arm64 | Arch::X86_64)
                || format.arch == Arch::Ppc64le && format.levels.len() > 2;
            let cite = format.types_cite();
            assert_eq!(cite.is_some(), interpreted, "{}", format.name);
            assert!(cite.is_none_or(|cite| cite.evidence == Evidence::Read), "{}", format.name);
        }
        assert_eq!(GROUPS.evidence, Evidence::Read);
    }

    /// Linux 6.12 arch/x86/include/asm/pgtable_types.h: _PAGE_BIT_PAT is 7, _PAGE_BIT_PAT_LARGE 12.
    #[test]
    fn pats_index_is_three_bits_of_which_one_moves() {
        let (large, small) = (X86_64_4LEVEL.last_level() - 1, X86_64_4LEVEL.last_level());
        let types =
            [0, 1, 2, 3, 4, 5, 6, 7].map(|n| MemoryType::from_bits([0, 1, 2, 2, 0, 3, 2, 3][n]));
        for (level, pat) in [(small, 7), (large, 12)] {
            for (index, memory) in (0..8u64).zip(types) {
                let raw = 1 | (index & 3) << 3 | (index >> 2) << pat;
                assert_eq!(X86_64_4LEVEL.attributes(level, raw).memory, memory, "{level} {index}");
                assert_eq!(X86_64_4LEVEL.with_pat_bits(level, 1, index as u8, 0), raw);
                assert_eq!(X86_64_4LEVEL.with_pat_bits(level, raw, 0, 7), 1);
            }
        }
        // Uncached over write-combining is the other uncached.
        assert_eq!(X86_64_4LEVEL.with_pat_bits(small, 1 | 1 << 3, 2, 0), 1 | 3 << 3);
        assert_eq!(ARM64_4K.with_pat_bits(3, 3, 7, 0), 3);
    }

    #[test]
    fn another_shareability_is_another_type_of_write_back_memory_alone() {
        let last = ARM64_4K.last_level();
        let outer = |index: u64| index << 2 | 2 << 8 | 0x3;
        let memory = |raw| ARM64_4K.attributes(last, raw).memory;
        assert_eq!(memory(outer(0)), MemoryType::Other);
        assert_eq!(memory(outer(1)), MemoryType::Other);
        assert_eq!(memory(outer(2)), MemoryType::NonCacheable);
        assert_eq!(memory(outer(4)), MemoryType::Device);
        assert_eq!(memory(outer(7)), MemoryType::Other);
        assert_eq!(memory(1 << 2 | 3 << 8 | 0x3), MemoryType::WriteBack, "tagged");
    }
}
