//! Linux on 64-bit powerpc with hashed tables, 4 KiB pages: what its fault handler makes of a leaf,
//! which entries are bolted, and how entries are flushed.
//!
//! From: Linux arch/powerpc/mm/book3s64/hash_utils.c (`htab_convert_pte_flags`, `hash_page_mm`,
//! `htab_bolt_mapping`), hash_4k.c (`__hash_page_4K`), hash_tlb.c (`hpte_need_flush`),
//! hash_native.c (`native_hpte_invalidate`, `native_flush_hash_range`, `native_hpte_updatepp`), of
//! 5.2 to 5.11, which 6.x has not changed in what is modelled. Not modelled: an LPAR's hypervisor
//! calls, 64 KiB pages, virtual segment numbers as Linux scrambles them (any will do that differ),
//! the lock around `tlbie`.

use textbed_arch::hashed::{Placed, Rights, Segment};
use textbed_arch::paging::{Field, HASH_TREE_4K};
use textbed_arch::{CpuId, FRAME_BYTES, FRAME_SHIFT, Perm, Pfn, PhysAddr, SpaceId, VirtAddr};
use textbed_event::Access;
use textbed_machine::{HashSoftware, Span};

use crate::error::Stop;
use crate::kernel::Kernel;
use crate::layout::Range;

/// What the machine needs to know of it; `by_pages`: debug_pagealloc has the linear map made of
/// pages of 4 KiB (`htab_init_page_sizes`).
pub(crate) fn software(by_pages: bool) -> HashSoftware {
    let segment = if by_pages { small_segment } else { segment };
    HashSoftware { segment, refill, made, bolted: HPTE_V_BOLTED }
}

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

/// Bits of a leaf.
const EXEC: u64 = bits("EXEC");
const WRITE: u64 = bits("WRITE");
const READ: u64 = bits("READ");
const PRIVILEGED: u64 = bits("PRIVILEGED");
const DIRTY: u64 = bits("DIRTY");
const ACCESSED: u64 = bits("ACCESSED");
const HASHED: u64 = bits("H_HASHED");
/// The slot in the group, and whether that is the secondary one.
const SLOT: &Field = field("H_SLOT");
const SECOND: &Field = field("H_SECOND");

const fn field(name: &str) -> &'static Field {
    HASH_TREE_4K.field(name).expect("a field of the format")
}

const fn bits(name: &str) -> u64 {
    field(name).mask()
}

/// The first address of the vmalloc region, H_KERN_VIRT_START; the linear map lies below.
const VIRT_START: u64 = 0xc000_3d00_0000_0000;

/// `get_kernel_vsid()`: segments of 1 TiB, key 0 for the kernel. Base pages are of 4 KiB.
fn small_segment(virt: VirtAddr) -> Option<Segment> {
    const SHIFT: u32 = 40;
    Some(Segment {
        first: virt.align_down(SHIFT),
        shift: SHIFT,
        id: 1 << 20 | (virt.0 >> SHIFT & 0xf_ffff),
        kernel_key: false,
        user_key: true,
        no_execute: false,
        base_shift: FRAME_SHIFT,
        direct_store: false,
    })
}

/// The same with base pages of 16 MiB in the linear map.
fn segment(virt: VirtAddr) -> Option<Segment> {
    let base_shift = if virt.0 < VIRT_START { LINEAR_SHIFT } else { FRAME_SHIFT };
    small_segment(virt).map(|segment| Segment { base_shift, ..segment })
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

/// `check_pte_access()`, and the leaf that `__hash_page_4K()` stores.
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
fn made(leaf: u64, placed: &Placed) -> u64 {
    SECOND.put(SLOT.put(leaf | HASHED, placed.slot), u64::from(placed.secondary))
}

impl Kernel {
    /// The linear map and the image in it, bolted: none of it is in the tree. Up to the end of a
    /// page the image's read-only data follows its text, so that is all of the image's.
    pub(crate) fn hash_bolt_linear(&mut self, cpu: CpuId, text: Perm) -> Result<(), Stop> {
        let Range { start, len } = self.layout.direct_map;
        let image = 1u64 << LINEAR_SHIFT;
        if !len.is_multiple_of(image) {
            return Err(Stop::not_modelled("a linear map that is not made of pages of 16 MiB"));
        }
        let by_pages = self.config.on("debug_pagealloc");
        let shift = if by_pages { FRAME_SHIFT } else { LINEAR_SHIFT };
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
            self.machine.hash_bolt(cpu, virt, pfn.addr(), FRAME_BYTES, FRAME_SHIFT, &rights)?;
            self.machine.op_named(cpu, "ptesync", 0)?;
        } else if there && !present {
            self.machine.hash_drop(cpu, virt)?;
            self.machine.hash_invalidate(cpu, &[virt]);
        }
        Ok(())
    }

    /// Pages of a range whose leaf says that an entry was made of it.
    pub(crate) fn hash_made(&self, start: VirtAddr, len: u64) -> Vec<VirtAddr> {
        if !self.machine.is_hashed() {
            return Vec::new();
        }
        let spans = self.machine.leaves(SpaceId::KERNEL, start, len);
        let made = spans.filter_map(|span| match span {
            Span::Mapped(leaf) if leaf.raw & HASHED != 0 => Some(leaf.virt),
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

    /// Takes kernel mappings away: on hashed tables each cleared leaf that has an entry flushes it
    /// (`pte_update`).
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
        let segment = segment(VirtAddr(VIRT_START)).unwrap();
        let format = &textbed_arch::hashed::HPT_3_0;
        for perm in [Perm::KERNEL_RW, Perm::KERNEL_RO, Perm::KERNEL_ROX, Perm::KERNEL_RWX] {
            let leaf = HASH_TREE_4K.encode_leaf(3, PhysAddr(0x5000), perm).unwrap();
            let (now, rights) = refill(leaf, Access::Read).unwrap();
            assert_eq!(now, leaf);
            assert_eq!(format.effective(&rights, &segment) | Perm::GLOBAL, perm);
            assert_eq!(rights, bolted_rights(perm));
            assert_eq!(refill(leaf, Access::Write).is_some(), perm.writable());
            assert_eq!(refill(leaf, Access::Exec).is_some(), perm.executable());
            let placed = Placed { addr: PhysAddr(0), slot: 5, secondary: true };
            assert_eq!(made(leaf, &placed), leaf | 1 << 60 | 13 << 53);
        }
        // PAGE_NONE of a process: not the kernel's.
        assert!(refill(READ, Access::Read).is_none());
    }
}
