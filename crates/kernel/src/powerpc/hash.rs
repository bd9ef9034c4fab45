//! Linux on 64-bit powerpc with hashed tables, 4 KiB or 64 KiB pages: what its fault handler makes
//! of a leaf, which entries are bolted, and how entries are flushed.
//!
//! A page of 64 KiB has an entry of 64 KiB, in a segment of such; its place is kept in the second
//! half of the leaf's table, one of 4 KiB keeps it in the leaf. From: Linux
//! arch/powerpc/mm/book3s64/hash_utils.c (`htab_convert_pte_flags`, `hash_page_mm`,
//! `htab_bolt_mapping`, `htab_init_page_sizes`), hash_4k.c (`__hash_page_4K`), hash_64k.c
//! (`__hash_page_64K`), hash_tlb.c (`hpte_need_flush`), hash_native.c (`native_hpte_invalidate`,
//! `native_flush_hash_range`, `native_hpte_updatepp`), include/asm/book3s/64/hash-64k.h
//! (`pte_set_hidx`), of 5.2 to 7.0, which differ in nothing that is modelled. Not modelled: an
//! LPAR's hypervisor calls, pages of 64 KiB by entries of 4 KiB (COMBO: CPUs without entries of 64
//! KiB, uncached memory, subpage protection), virtual segment numbers as Linux scrambles them (any
//! will do that differ), the lock around `tlbie`.

use textbed_arch::hashed::{HPT_3_0, Placed, Rights, Segment};
use textbed_arch::paging::{Field, Format, HASH_TREE_4K, HASH_TREE_64K};
use textbed_arch::{CpuId, Perm, Pfn, PhysAddr, SpaceId, VirtAddr};
use textbed_event::Access;
use textbed_machine::{HashBarriers, HashSoftware, Made, Span};

use crate::call::Args;
use crate::error::Stop;
use crate::kernel::Kernel;
use crate::layout::Range;
use crate::pages::Pages;
use crate::powerpc::PowerMmu;

/// What the machine needs to know of it; `by_pages`: debug_pagealloc has the linear map made of
/// the kernel's pages (`htab_init_page_sizes`).
pub(crate) fn software(pages: Pages, by_pages: bool) -> HashSoftware {
    let large = pages.shift() == HASH_TREE_64K.page_shift;
    HashSoftware {
        tree: if large { &HASH_TREE_64K } else { &HASH_TREE_4K },
        entries: &HPT_3_0,
        barriers: &BARRIERS,
        segment: match (large, by_pages) {
            (false, false) => segment_of_4k,
            (false, true) => small_segment,
            (true, false) => segment_of_64k,
            (true, true) => medium_segment,
        },
        refill,
        made: if large { made_beside } else { made_inside },
        bolted: HPTE_V_BOLTED,
    }
}

/// `native_hpte_insert()`, `native_flush_hash_range()`.
const BARRIERS: HashBarriers = HashBarriers {
    before_new: &[],
    behind_new: &["ptesync"],
    before_tlbie: &["ptesync"],
    behind_tlbie: &["eieio", "tlbsync", "ptesync"],
};

/// HPTE_V_BOLTED among the four bits that are software's.
const HPTE_V_BOLTED: u64 = 2;
/// `log2` of the pages of the linear map, and of the kernel's image with its read-only data, which
/// begins and ends at such a page.
pub(crate) const LINEAR_SHIFT: u32 = 24;
/// The class of the kernel's pages, which no register of it shuts: as it stands in the tables of
/// Debian's 6.1 and 6.12.
const HASH_DEFAULT_KERNEL_KEY: u64 = 3;
/// PPC64_TLB_BATCH_NR.
const BATCH: usize = 192;

/// Bits of a leaf that are the same in both trees.
const EXEC: u64 = bits(&HASH_TREE_4K, "EXEC");
const WRITE: u64 = bits(&HASH_TREE_4K, "WRITE");
const READ: u64 = bits(&HASH_TREE_4K, "READ");
const PRIVILEGED: u64 = bits(&HASH_TREE_4K, "PRIVILEGED");
const DIRTY: u64 = bits(&HASH_TREE_4K, "DIRTY");
const ACCESSED: u64 = bits(&HASH_TREE_4K, "ACCESSED");
/// That an entry was made.
const HASHED_4K: u64 = bits(&HASH_TREE_4K, "H_HASHED");
const HASHED_64K: u64 = bits(&HASH_TREE_64K, "H_HASHED");
/// The slot in the group, and whether that is the secondary one.
const SLOT: &Field = field(&HASH_TREE_4K, "H_SLOT");
const SECOND: &Field = field(&HASH_TREE_4K, "H_SECOND");

const fn field(tree: &Format, name: &str) -> &'static Field {
    tree.field(name).expect("a field of the format")
}

const fn bits(tree: &Format, name: &str) -> u64 {
    field(tree, name).mask()
}

/// The first address of the vmalloc region, H_KERN_VIRT_START; the linear map lies below.
const VIRT_START_4K: u64 = 0xc000_3d00_0000_0000;
const VIRT_START_64K: u64 = 0xc008_0000_0000_0000;

/// `get_kernel_vsid()`: segments of 1 TiB, key 0 for the kernel.
fn kernel_segment(virt: VirtAddr, base_shift: u32) -> Segment {
    const SHIFT: u32 = 40;
    Segment {
        first: virt.align_down(SHIFT),
        shift: SHIFT,
        id: 1 << 20 | (virt.0 >> SHIFT & 0xf_ffff),
        kernel_key: false,
        user_key: true,
        no_execute: false,
        base_shift,
        direct_store: false,
    }
}

/// Base pages of 4 KiB everywhere.
fn small_segment(virt: VirtAddr) -> Option<Segment> {
    Some(kernel_segment(virt, HASH_TREE_4K.page_shift))
}

/// Base pages of 64 KiB everywhere.
fn medium_segment(virt: VirtAddr) -> Option<Segment> {
    Some(kernel_segment(virt, HASH_TREE_64K.page_shift))
}

/// The kernel's pages, and base pages of 16 MiB in the linear map.
fn segment_of_4k(virt: VirtAddr) -> Option<Segment> {
    let linear = virt.0 < VIRT_START_4K;
    Some(kernel_segment(virt, if linear { LINEAR_SHIFT } else { HASH_TREE_4K.page_shift }))
}

/// The same with pages of 64 KiB.
fn segment_of_64k(virt: VirtAddr) -> Option<Segment> {
    let linear = virt.0 < VIRT_START_64K;
    Some(kernel_segment(virt, if linear { LINEAR_SHIFT } else { HASH_TREE_64K.page_shift }))
}

/// `htab_convert_pte_flags()` of a kernel's page.
fn rights(leaf: u64) -> Rights {
    // The kernel's read-only pages have pp0, which CPUs since POWER7 know (MMU_FTR_KERNEL_RO).
    let protection = if leaf & WRITE != 0 { 0b000 } else { 0b110 };
    let key = HASH_DEFAULT_KERNEL_KEY;
    Rights { protection, no_execute: leaf & EXEC == 0, guarded: false, key }
}

/// The rights of a mapping that stands for no leaf.
pub(crate) fn bolted_rights(perm: Perm) -> Rights {
    let write = if perm.writable() { WRITE } else { 0 };
    let exec = if perm.executable() { EXEC } else { 0 };
    rights(write | exec)
}

/// `check_pte_access()`, and the leaf that `__hash_page_4K()` and `__hash_page_64K()` store.
fn refill(leaf: u64, access: Access) -> Option<(u64, Rights)> {
    let wanted = READ
        | PRIVILEGED
        | match access {
            Access::Read => 0,
            Access::Write => WRITE,
            Access::Exec => EXEC,
        };
    if leaf & wanted != wanted {
        return None;
    }
    let dirty = if access == Access::Write { DIRTY } else { 0 };
    let leaf = leaf | ACCESSED | dirty;
    Some((leaf, rights(leaf)))
}

/// The leaf with the place of its entry.
fn made_inside(leaf: u64, placed: &Placed) -> Made {
    let leaf = SECOND.put(SLOT.put(leaf | HASHED_4K, placed.slot), u64::from(placed.secondary));
    Made { leaf, beside: None }
}

/// The place of its entry beside the leaf: one more than the slot, so that 0 is none; of the parts
/// that a page could have, the first.
fn made_beside(leaf: u64, placed: &Placed) -> Made {
    let index = placed.slot | u64::from(placed.secondary) << 3;
    Made { leaf: leaf | HASHED_64K, beside: Some((index + 1) & 0xf) }
}

/// `hash__mark_rodata_ro()`: the bolted entries of the image, from its text to the end of its
/// read-only data, become read-only and executable, each with a flush of its own
/// (`native_hpte_updateboltedpp`).
pub(crate) fn mark_rodata_ro(k: &mut Kernel, cpu: CpuId, _: &Args) -> Result<i64, Stop> {
    if k.power_mmu() != Some(PowerMmu::Hash64) || !k.config.on("STRICT_KERNEL_RWX") {
        let what = "hash__mark_rodata_ro without hashed tables or STRICT_KERNEL_RWX";
        return Err(Stop::not_modelled(what));
    }
    let shift = k.linear_shift();
    let start = k.layout.text.start.align_down(shift);
    for offset in (0..1 << LINEAR_SHIFT).step_by(1 << shift) {
        let rights = bolted_rights(Perm::KERNEL_ROX);
        if !k.machine.hash_protect(cpu, start.offset(offset), &rights)? {
            return Err(Stop::died("could not find page to bolt", start.offset(offset)));
        }
    }
    Ok(0)
}

impl Kernel {
    /// `log2` of the pages that the linear map is made of.
    fn linear_shift(&self) -> u32 {
        if self.config.on("debug_pagealloc") { self.pages.shift() } else { LINEAR_SHIFT }
    }

    /// The linear map and the image in it, bolted: none of it is in the tree. Up to the end of a
    /// page the image's read-only data follows its text, so that is all of the image's.
    pub(crate) fn hash_bolt_linear(&mut self, cpu: CpuId, text: Perm) -> Result<(), Stop> {
        let Range { start, len } = self.layout.direct_map;
        let image = 1u64 << LINEAR_SHIFT;
        if !len.is_multiple_of(image) {
            return Err(Stop::not_modelled("a linear map that is not made of pages of 16 MiB"));
        }
        let shift = self.linear_shift();
        for (from, to, perm) in [(0, image, text), (image, len, Perm::KERNEL_RW)] {
            let (virt, phys) = (start.offset(from), PhysAddr(from));
            let rights = bolted_rights(perm);
            self.machine.hash_bolt(cpu, virt, phys, to - from, shift, &rights)?;
        }
        Ok(())
    }

    /// `hash__kernel_map_pages()` of one page: its bolted entry made, or taken away everywhere.
    pub(crate) fn hash_map_linear(
        &mut self,
        cpu: CpuId,
        pfn: Pfn,
        present: bool,
    ) -> Result<(), Stop> {
        let Some(virt) = self.direct_map_of(pfn) else { return Ok(()) };
        let there = self.machine.lookup(SpaceId::KERNEL, virt).is_some();
        if present && !there {
            let rights = bolted_rights(Perm::KERNEL_RW);
            let (bytes, shift) = (self.pages.bytes(), self.pages.shift());
            self.machine.hash_bolt(cpu, virt, pfn.addr(), bytes, shift, &rights)?;
            self.machine.op_named(cpu, "ptesync", 0)?;
        } else if there && !present {
            self.machine.hash_drop(cpu, virt)?;
            self.machine.hash_invalidate(cpu, &[virt]);
        }
        Ok(())
    }

    /// Pages of a range whose leaf says that an entry was made of it.
    pub(crate) fn hash_made(&self, start: VirtAddr, len: u64) -> Vec<VirtAddr> {
        if self.power_mmu() != Some(PowerMmu::Hash64) {
            return Vec::new();
        }
        let hashed = self.machine.format().field("H_HASHED").map_or(0, Field::mask);
        let spans = self.machine.leaves(SpaceId::KERNEL, start, len);
        let made = spans.filter_map(|span| match span {
            Span::Mapped(leaf) if leaf.raw & hashed != 0 => Some(leaf.virt),
            _ => None,
        });
        made.collect()
    }

    /// `flush_hash_page()` of each page, or of a batch `flush_hash_range()`: entries go first, then
    /// what is cached of them.
    pub(crate) fn hash_flush(
        &mut self,
        cpu: CpuId,
        pages: &[VirtAddr],
        batched: bool,
    ) -> Result<(), Stop> {
        for batch in pages.chunks(if batched { BATCH } else { 1 }) {
            for page in batch {
                self.machine.hash_drop(cpu, *page)?;
            }
            self.machine.hash_invalidate(cpu, batch);
        }
        Ok(())
    }

    /// Takes kernel mappings away: on hashed tables of 64 bits each cleared leaf that has an entry
    /// flushes it (`pte_update`).
    pub(crate) fn unmap_kernel(
        &mut self,
        cpu: CpuId,
        start: VirtAddr,
        len: u64,
    ) -> Result<(), Stop> {
        let made = self.hash_made(start, len);
        self.machine.unmap(cpu, SpaceId::KERNEL, start, len)?;
        self.hash_flush(cpu, &made, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry grants the kernel what its leaf does, and a process nothing.
    #[test]
    fn entries_grant_what_leaves_do() {
        let format = &textbed_arch::hashed::HPT_3_0;
        for (tree, segment) in [
            (&HASH_TREE_4K, segment_of_4k(VirtAddr(VIRT_START_4K))),
            (&HASH_TREE_64K, segment_of_64k(VirtAddr(VIRT_START_64K))),
        ] {
            let segment = segment.unwrap();
            for perm in [Perm::KERNEL_RW, Perm::KERNEL_RO, Perm::KERNEL_ROX, Perm::KERNEL_RWX] {
                let last = tree.last_level();
                let leaf = tree.encode_leaf(last, PhysAddr(0x5_0000), perm).unwrap();
                let (now, rights) = refill(leaf, Access::Read).unwrap();
                assert_eq!(now, leaf);
                assert_eq!(format.effective(&rights, &segment) | Perm::GLOBAL, perm);
                assert_eq!(rights, bolted_rights(perm));
                assert_eq!(refill(leaf, Access::Write).is_some(), perm.writable());
                assert_eq!(refill(leaf, Access::Exec).is_some(), perm.executable());
            }
            assert_eq!(segment.base_shift, tree.page_shift);
            for (name, bit) in [
                ("EXEC", EXEC),
                ("WRITE", WRITE),
                ("READ", READ),
                ("PRIVILEGED", PRIVILEGED),
                ("DIRTY", DIRTY),
                ("ACCESSED", ACCESSED),
            ] {
                assert_eq!(bits(tree, name), bit, "{name}");
            }
        }
        // PAGE_NONE of a process: not the kernel's.
        assert!(refill(READ, Access::Read).is_none());
    }

    /// H_PAGE_F_SECOND, H_PAGE_F_GIX and H_PAGE_HASHPTE of hash-4k.h; HIDX_SHIFT_BY_ONE and
    /// H_PAGE_HASHPTE of hash-64k.h.
    #[test]
    fn the_place_of_an_entry_is_kept() {
        let placed = |slot, secondary| Placed { addr: PhysAddr(0), slot, secondary };
        let inside = made_inside(0, &placed(5, true));
        assert_eq!(inside, Made { leaf: 1 << 60 | 13 << 53, beside: None });
        for (slot, secondary, beside) in [(0, false, 1), (5, true, 14), (7, true, 0)] {
            let made = made_beside(0, &placed(slot, secondary));
            assert_eq!(made, Made { leaf: 1 << 55, beside: Some(beside) });
        }
    }
}
