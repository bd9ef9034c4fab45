//! Linux on 32-bit book3s with a hashed table (604, 7xx, 74xx): what its fault handler makes of a
//! leaf, segments, blocks, and how entries are flushed.
//!
//! An entry has no bit against execution, and one of the kernel's grants it every store: what a
//! leaf says is looked at when its entry is made, by the access that misses it, and not again. What
//! is executed is a matter of segments: once init memory was freed, only those of modules are
//! without N. Low memory and the kernel's text are in blocks as far as these reach.
//!
//! From: Linux 5.19, 6.1, 6.6, 6.12, 6.18 and 7.0 arch/powerpc/mm/book3s32/hash_low.S (`hash_page`,
//! `create_hpte`, `flush_hash_pages`, as with CONFIG_SMP), tlb.c (`hash__flush_range`), mmu.c
//! (`mmu_mapin_ram`, `mmu_mark_initmem_nx`, `mmu_mark_rodata_ro`), mm/pgtable_32.c,
//! kernel/head_book3s_32.S (`load_segment_registers`). Not modelled: 603 (no table), processes and
//! the keys that keep the kernel from them (KUAP, KUEP), `mmu_hash_lock`, entries of 64 bits, high
//! memory, debug_pagealloc, text that ends inside of a block of 128 KiB.

use textbed_arch::hashed::{Block, HPT_32, HashFormat, Placed, Rights, Segment};
use textbed_arch::paging::{BOOK3S32_TREE, BOOK3S32_TREE_6_6, Format};
use textbed_arch::{CpuId, FRAME_BYTES, FRAME_SHIFT, Features, Perm, PhysAddr, SpaceId, VirtAddr};
use textbed_event::Access;
use textbed_machine::{HashBarriers, HashSoftware, Made};

use crate::error::Stop;
use crate::kernel::Kernel;

/// The format of entries.
pub(crate) const ENTRIES: &HashFormat = &HPT_32;

/// What becomes of a leaf at a fault.
type Refill = fn(u64, Access) -> Option<(u64, Rights)>;

/// What the machine needs to know of it; `checks_exec`: a fetch makes an entry only of a leaf that
/// grants it.
pub(crate) fn software(checks_exec: bool) -> HashSoftware {
    let (tree, refill): (_, Refill) =
        if checks_exec { (&BOOK3S32_TREE, refill) } else { (&BOOK3S32_TREE_6_6, refill_6_6) };
    let (entries, barriers) = (ENTRIES, &BARRIERS);
    HashSoftware { tree, entries, barriers, segment, refill, made, bolted: 0 }
}

/// The tree of a kernel.
pub(crate) fn tree(checks_exec: bool) -> &'static Format {
    software(checks_exec).tree
}

/// `create_hpte`: the entry is invalid while its second word is stored; `flush_hash_pages`.
const BARRIERS: HashBarriers = HashBarriers {
    before_new: &["sync", "tlbsync", "sync", "sync"],
    behind_new: &["sync"],
    before_tlbie: &["sync"],
    behind_tlbie: &["sync"],
};

const SEGMENT_SHIFT: u32 = 28;
/// Segments of modules: [`crate::layout`] has modules in this one in every version.
const MODULE_SEGMENT: u64 = 0xb;

/// A segment's register once `mmu_mark_initmem_nx()` ran: Ks = 0, Kp = 1, the number skewed, N but
/// in segments of modules (`is_module_segment`).
fn segment(virt: VirtAddr) -> Option<Segment> {
    let number = virt.0 >> SEGMENT_SHIFT & 0xf;
    Some(Segment {
        first: virt.align_down(SEGMENT_SHIFT),
        shift: SEGMENT_SHIFT,
        id: number * 0x111,
        kernel_key: false,
        user_key: true,
        no_execute: number != MODULE_SEGMENT,
        base_shift: FRAME_SHIFT,
        direct_store: false,
    })
}

const fn bits(tree: &'static Format, name: &str) -> u64 {
    tree.field(name).expect("a field of the format").mask()
}

/// Bits that both trees have, and that of one.
const PRESENT: u64 = bits(&BOOK3S32_TREE, "PRESENT");
const HASHED: u64 = bits(&BOOK3S32_TREE, "HASHPTE");
const WRITE: u64 = bits(&BOOK3S32_TREE, "WRITE");
const EXEC: u64 = bits(&BOOK3S32_TREE, "EXEC");
const DIRTY: u64 = bits(&BOOK3S32_TREE, "DIRTY");
const ACCESSED: u64 = bits(&BOOK3S32_TREE, "ACCESSED");
const READ: u64 = bits(&BOOK3S32_TREE, "READ");

/// `hash_page` from 6.7 on: a fetch needs EXEC, a load READ, a store both READ and WRITE.
fn refill(leaf: u64, access: Access) -> Option<(u64, Rights)> {
    let wanted = match access {
        Access::Read => READ,
        Access::Write => READ | WRITE,
        Access::Exec => EXEC,
    };
    granted(leaf, wanted, access)
}

/// `hash_page` up to 6.6, which does not ask whether there is a fetch.
fn refill_6_6(leaf: u64, access: Access) -> Option<(u64, Rights)> {
    let wanted = if access == Access::Write { WRITE } else { 0 };
    granted(leaf, wanted, access)
}

fn granted(leaf: u64, wanted: u64, access: Access) -> Option<(u64, Rights)> {
    let wanted = wanted | PRESENT;
    if leaf & wanted != wanted {
        return None;
    }
    let dirty = if access == Access::Write { DIRTY } else { 0 };
    // PP of a kernel's page is 0, which under Ks = 0 grants everything.
    Some((leaf | ACCESSED | dirty, Rights::default()))
}

fn made(leaf: u64, _: &Placed) -> Made {
    Made { leaf: leaf | HASHED, beside: None }
}

/// `bat_block_size()`: the largest block at `base` that does not pass `top`.
fn block_size(base: u64, top: u64) -> u64 {
    const LARGEST: u64 = 256 << 20;
    let aligned = if base == 0 { LARGEST } else { 1 << base.trailing_zeros() };
    let fits = (top - base).checked_ilog2().map_or(0, |bits| 1 << bits);
    LARGEST.min(aligned).min(fits)
}

/// The smallest block.
const SMALLEST: u64 = 128 << 10;

/// `__mmu_mapin_ram()`: blocks from `base` on while there are registers; where they end.
fn blocks_over(blocks: &mut Vec<(u64, u64)>, most: usize, mut base: u64, top: u64) -> u64 {
    while blocks.len() < most && base != top {
        let size = block_size(base, top);
        if size < SMALLEST {
            break;
        }
        blocks.push((base, size));
        base += size;
    }
    base
}

/// PP of a block: read-only (BPP_RX), and writable (BPP_RW).
const BPP_RX: u64 = 0b01;
const BPP_RW: u64 = 0b10;

impl Kernel {
    /// Low memory as blocks, and what these leave as pages (`mapin_ram`), after
    /// `mmu_mark_initmem_nx()` and, where text is protected, `mmu_mark_rodata_ro()`.
    pub(crate) fn hash32_map_low(&mut self, cpu: CpuId, protected: bool) -> Result<(), Stop> {
        let (start, top) = (self.layout.direct_map.start, self.layout.direct_map.len);
        // Text and read-only data end where a block of CONFIG_DATA_SHIFT begins.
        let border = self.layout.text.len;
        let most = if self.features.contains(Features::PPC_HIGH_BATS) { 8 } else { 4 };
        let mut blocks = Vec::new();
        let mut done = 0;
        if protected {
            done = blocks_over(&mut blocks, most, 0, border);
        }
        if !protected || done == border {
            done = blocks_over(&mut blocks, most, done, top);
        }
        let block = |(base, size): (u64, u64), protection: u64| Block {
            first: start.offset(base),
            phys: PhysAddr(base),
            mask: size - 1,
            kernel: true,
            user: false,
            protection,
        };
        let read_only = |base: u64| protected && base < border;
        let data = blocks.iter().map(|b| block(*b, if read_only(b.0) { BPP_RX } else { BPP_RW }));
        let mut text = Vec::new();
        if blocks_over(&mut text, most, 0, border) != border {
            return Err(Stop::not_modelled("text that the block registers cannot hold"));
        }
        let fetch = text.iter().map(|b| block(*b, BPP_RX));
        let (data, fetch): (Vec<_>, Vec<_>) = (data.collect(), fetch.collect());
        self.machine.set_blocks(cpu, data, fetch)?;
        if done < top {
            let (virt, phys, perm) = (start.offset(done), PhysAddr(done), Perm::KERNEL_RW);
            let len = top - done;
            self.machine.map(cpu, SpaceId::KERNEL, virt, phys, len, FRAME_SHIFT, perm)?;
        }
        Ok(())
    }

    /// `hash__flush_range()`: by each page of which an entry was made, with translation off in
    /// between.
    pub(crate) fn hash32_flush(&mut self, cpu: CpuId, start: u64, end: u64) -> Result<(), Stop> {
        let start = start & !(FRAME_BYTES - 1);
        if start >= end {
            return Ok(());
        }
        let made = self.machine.hash_made(VirtAddr(start), end - start);
        self.machine.op_named(cpu, "isync", 0)?;
        for page in &made {
            self.machine.hash_drop(cpu, *page)?;
            self.machine.hash_invalidate(cpu, &[*page]);
        }
        if !made.is_empty() {
            self.machine.op_named(cpu, "tlbsync", 0)?;
            self.machine.op_named(cpu, "sync", 0)?;
        }
        Ok(self.machine.op_named(cpu, "isync", 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mmu_mapin_ram()` worked out by hand for 256 MiB with text up to 4 MiB.
    #[test]
    fn blocks_are_as_large_as_their_place_lets_them_be() {
        const MIB: u64 = 1 << 20;
        let sizes = |most: usize| {
            let mut blocks = Vec::new();
            let done = blocks_over(&mut blocks, most, 0, 4 * MIB);
            let done = blocks_over(&mut blocks, most, done, 256 * MIB);
            let sizes = blocks.iter().map(|(_, size)| size / MIB).collect::<Vec<_>>();
            (sizes, done / MIB)
        };
        assert_eq!(sizes(4), (vec![4, 4, 8, 16], 32));
        assert_eq!(sizes(8), (vec![4, 4, 8, 16, 32, 64, 128], 256));
        assert_eq!(block_size(0, 256 * MIB), 256 * MIB);
        assert_eq!(block_size(0, 3 * MIB), 2 * MIB);
    }

    /// What a leaf does not grant is refused where its entry is made; the entry grants every store,
    /// and fetches by segment.
    #[test]
    fn an_entry_grants_more_than_its_leaf() {
        let (vmalloc, module) = (segment(VirtAddr(0xd100_0000)), segment(VirtAddr(0xbf00_0000)));
        for (tree, refill) in [(&BOOK3S32_TREE, refill as Refill), (&BOOK3S32_TREE_6_6, refill_6_6)]
        {
            let leaf = |perm| tree.encode_leaf(1, PhysAddr(0x5000), perm).unwrap();
            let ro = leaf(Perm::KERNEL_RO);
            assert!(refill(ro, Access::Write).is_none());
            let (now, rights) = refill(ro, Access::Read).unwrap();
            assert_eq!(now, ro);
            let grants = |s: Option<Segment>| ENTRIES.effective(&rights, &s.unwrap()).letters();
            assert_eq!((grants(vmalloc), grants(module)), ("rw-", "rwx"));
            let old = std::ptr::eq(tree, &BOOK3S32_TREE_6_6);
            assert_eq!(refill(ro, Access::Exec).is_some(), old);
            assert!(refill(leaf(Perm::KERNEL_ROX), Access::Exec).is_some());
            assert!(refill(ro & !1, Access::Read).is_none());
            let (written, _) = refill(leaf(Perm::KERNEL_RW), Access::Write).unwrap();
            assert_eq!(written & (DIRTY | WRITE), DIRTY | WRITE);
        }
    }
}
