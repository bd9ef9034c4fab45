//! The tables of the formats.

use super::field::{HashField, Part, field as f};
use super::{HashFormat, PageSize};
use crate::cite::Cite;

const LINUX: Cite =
    Cite::read("Linux arch/powerpc/include/asm/book3s/64/mmu-hash.h (HPTE_V_, HPTE_R_, as of 5.2)");
/// The second form: what changed.
const LINUX_3_0: Cite = Cite::read(
    "Linux arch/powerpc/include/asm/book3s/64/mmu-hash.h (hpte_old_to_new_v, hpte_old_to_new_r)",
);
const SLB: Cite =
    Cite::read("Linux arch/powerpc/include/asm/book3s/64/mmu-hash.h (SLB_ESID_, SLB_VSID_)");
const BITS_32: Cite = Cite::read("QEMU target/ppc/mmu-hash32.h (HPTE32_, SR32_, BATU32_, BATL32_)");

/// Entries of Power ISA 2.07 (POWER7, POWER8), which a hypervisor's calls keep on later CPUs.
pub static HPT_2_07: HashFormat =
    HashFormat { name: "powerpc HPT 2.07", entry: ENTRY_2_07, ..COMMON_64 };

/// Entries of Power ISA 3.0 (POWER9, POWER10): a shorter tag and frame, and B in the second word.
pub static HPT_3_0: HashFormat =
    HashFormat { name: "powerpc HPT 3.0", entry: ENTRY_3_0, cite: LINUX_3_0, ..COMMON_64 };

const COMMON_64: HashFormat = HashFormat {
    name: "",
    word_bytes: 8,
    entry: &[],
    segment: SLB_FIELDS,
    block: &[],
    sizes: SIZES_64,
    tag_shift: 23,
    cite: LINUX,
};

/// Entries of 32-bit Power (6xx, 7xx, 74xx), segment registers, blocks.
pub static HPT_32: HashFormat = HashFormat {
    name: "powerpc HPT 32-bit",
    word_bytes: 4,
    entry: ENTRY_32,
    segment: SEGMENT_REGISTER,
    block: BAT,
    sizes: &[size(12, 12, 0, 0)],
    tag_shift: 22,
    cite: BITS_32,
};

const fn size(base_shift: u32, shift: u32, segment: u64, entry: u64) -> PageSize {
    PageSize { base_shift, shift, segment, entry }
}

/// What POWER7 to POWER10 have: QEMU target/ppc/mmu-hash64.c, ppc_hash64_opts_POWER7 (read).
const SIZES_64: &[PageSize] = &[
    size(12, 12, 0b000, 0),
    size(12, 16, 0b000, 0x7),
    size(12, 24, 0b000, 0x38),
    size(16, 16, 0b101, 0x1),
    size(16, 24, 0b101, 0x8),
    size(24, 24, 0b100, 0),
    size(34, 34, 0b110, 0x3),
];

macro_rules! entry64 {
    ($($own:expr),+) => {
        &[
            f("V", 0, 0, 1, 0, Part::Valid, "valid", LINUX),
            f("H", 0, 1, 1, 0, Part::Secondary, "in the secondary group", LINUX),
            f("L", 0, 2, 1, 0, Part::Large, "larger than 4 KiB", LINUX),
            f("SW", 0, 3, 4, 0, Part::Software, "locked, bolted", LINUX),
            $($own,)+
            f("PP", 1, 0, 2, 0, Part::Protection, "protection, low bits", LINUX),
            f("N", 1, 2, 1, 0, Part::NoExecute, "no execution", LINUX),
            f("G", 1, 3, 1, 0, Part::Guarded, "guarded", LINUX),
            f("WIM", 1, 4, 3, 0, Part::MemoryType, "write through, inhibited, coherent", LINUX),
            f("C", 1, 7, 1, 0, Part::Changed, "changed", LINUX),
            f("R", 1, 8, 1, 0, Part::Referenced, "referenced", LINUX),
            f("KEY", 1, 9, 3, 0, Part::Key, "key, low bits", LINUX),
            f("KEY", 1, 60, 2, 3, Part::Key, "key, high bits", LINUX),
            f("TS", 1, 62, 1, 0, Part::Reserved, "of no use", LINUX),
            f("PP0", 1, 63, 1, 2, Part::Protection, "protection, high bit", LINUX),
        ]
    };
}

const ENTRY_2_07: &[HashField] = entry64!(
    f("AVPN", 0, 7, 55, 0, Part::Tag, "virtual address from bit 23 on", LINUX),
    f("B", 0, 62, 2, 0, Part::SegmentSize, "segment size", LINUX),
    f("RPN", 1, 12, 48, 12, Part::Frame, "frame, or size code below it", LINUX)
);

const ENTRY_3_0: &[HashField] = entry64!(
    f("AVPN", 0, 7, 45, 0, Part::Tag, "virtual address from bit 23 on", LINUX_3_0),
    f("RESERVED", 0, 52, 12, 0, Part::Reserved, "to be 0", LINUX_3_0),
    f("RPN", 1, 12, 45, 12, Part::Frame, "frame, or size code below it", LINUX_3_0),
    f("RESERVED", 1, 57, 1, 0, Part::Reserved, "to be 0", LINUX_3_0),
    f("B", 1, 58, 2, 0, Part::SegmentSize, "segment size", LINUX_3_0)
);

/// RB and RS of `slbmte`.
const SLB_FIELDS: &[HashField] = &[
    f("INDEX", 0, 0, 12, 0, Part::Attribute, "number of the entry", SLB),
    f("RESERVED", 0, 12, 15, 0, Part::Reserved, "to be 0", SLB),
    f("V", 0, 27, 1, 0, Part::Valid, "valid", SLB),
    f("ESID", 0, 28, 36, 28, Part::Address, "first address", SLB),
    f("RESERVED", 1, 0, 4, 0, Part::Reserved, "to be 0", SLB),
    f("LP", 1, 4, 2, 0, Part::PageSize, "base page size", SLB),
    f("RESERVED", 1, 6, 1, 0, Part::Reserved, "to be 0", SLB),
    f("C", 1, 7, 1, 0, Part::Attribute, "class: for slbie alone", SLB),
    f("L", 1, 8, 1, 2, Part::PageSize, "base page size", SLB),
    f("N", 1, 9, 1, 0, Part::NoExecute, "no execution", SLB),
    f("Kp", 1, 10, 1, 0, Part::UserKey, "key of a process", SLB),
    f("Ks", 1, 11, 1, 0, Part::KernelKey, "key of the kernel", SLB),
    f("VSID", 1, 12, 50, 0, Part::Id, "virtual segment; of 1 TiB from bit 12 on", SLB),
    f("B", 1, 62, 2, 0, Part::SegmentSize, "segment size", SLB),
];

const ENTRY_32: &[HashField] = &[
    f("API", 0, 0, 6, 0, Part::Tag, "page's address from bit 22 on", BITS_32),
    f("H", 0, 6, 1, 0, Part::Secondary, "in the secondary group", BITS_32),
    f("VSID", 0, 7, 24, 6, Part::Tag, "virtual segment", BITS_32),
    f("V", 0, 31, 1, 0, Part::Valid, "valid", BITS_32),
    f("PP", 1, 0, 2, 0, Part::Protection, "protection", BITS_32),
    f("RESERVED", 1, 2, 1, 0, Part::Reserved, "to be 0", BITS_32),
    f("G", 1, 3, 1, 0, Part::Guarded, "guarded", BITS_32),
    f("WIM", 1, 4, 3, 0, Part::MemoryType, "write through, inhibited, coherent", BITS_32),
    f("C", 1, 7, 1, 0, Part::Changed, "changed", BITS_32),
    f("R", 1, 8, 1, 0, Part::Referenced, "referenced", BITS_32),
    f("RESERVED", 1, 9, 3, 0, Part::Reserved, "to be 0", BITS_32),
    f("RPN", 1, 12, 20, 12, Part::Frame, "frame", BITS_32),
];

/// RB and RS of `mtsrin`. A segment register is always valid.
const SEGMENT_REGISTER: &[HashField] = &[
    f("RESERVED", 0, 0, 28, 0, Part::Reserved, "not looked at", BITS_32),
    f("ESID", 0, 28, 4, 28, Part::Address, "which of the sixteen", BITS_32),
    f("VSID", 1, 0, 24, 0, Part::Id, "virtual segment", BITS_32),
    f("RESERVED", 1, 24, 4, 0, Part::Reserved, "to be 0", BITS_32),
    f("N", 1, 28, 1, 0, Part::NoExecute, "no execution", BITS_32),
    f("Kp", 1, 29, 1, 0, Part::UserKey, "key of a process", BITS_32),
    f("Ks", 1, 30, 1, 0, Part::KernelKey, "key of the kernel", BITS_32),
    f("T", 1, 31, 1, 0, Part::DirectStore, "direct store", BITS_32),
];

/// A pair of registers.
const BAT: &[HashField] = &[
    f("Vp", 0, 0, 1, 0, Part::UserValid, "valid for a process", BITS_32),
    f("Vs", 0, 1, 1, 0, Part::KernelValid, "valid for the kernel", BITS_32),
    f("BL", 0, 2, 11, 17, Part::BlockLength, "bits that are not compared", BITS_32),
    f("RESERVED", 0, 13, 4, 0, Part::Reserved, "to be 0", BITS_32),
    f("BEPI", 0, 17, 15, 17, Part::BlockAddress, "first address", BITS_32),
    f("PP", 1, 0, 2, 0, Part::Protection, "protection", BITS_32),
    f("RESERVED", 1, 2, 1, 0, Part::Reserved, "to be 0", BITS_32),
    f("WIMG", 1, 3, 4, 0, Part::MemoryType, "memory type", BITS_32),
    f("RESERVED", 1, 7, 10, 0, Part::Reserved, "to be 0", BITS_32),
    f("BRPN", 1, 17, 15, 17, Part::Frame, "frame", BITS_32),
];
