//! The trees that Linux keeps on 32-bit powerpc: book3s with a hashed table (6xx, 7xx, 74xx), and
//! 8xx. Two levels, entries of 4 bytes, pages of 4 KiB.
//!
//! No CPU walks them. On book3s a fault makes a hashed entry of a leaf ([`crate::hashed`]); blocks
//! (BATs) map the kernel's image and the direct map, which are not in the tree. On 8xx a TLB miss
//! loads the leaf, nearly as it is. What such a leaf grants is the kernel's intention: a hashed
//! entry of book3s has no bit against execution, which is a segment's, and makes what the kernel
//! may read writable to it (see there).
//!
//! Which pages are a process's: up to 6.6 a bit of book3s says so, later the address does and the
//! leaf does not tell; whether a process may execute is not told on book3s.
//!
//! A page of 512 KiB of 8xx, and from 6.11 on one of 8 MiB, has an entry for each of its pieces of
//! 4 KiB, with that piece's frame; the leaf (SPS, HUGE) or the entry of its table says what a TLB
//! miss makes of it. Up to 6.10 the two tables of 8 MiB have one entry each, which is no tree and
//! told to be malformed. Not modelled: entries of 64 bits (CONFIG_PTE_64BIT), base pages of 16 KiB,
//! how much of a larger page of 8xx an invalidation takes, and its user pages without any access.

use super::codec::{DirtyRule, KernelStyle};
use super::field::{Field, Kinds, Role, field as f};
use super::shape::shapes;
use super::{Canonical, Format, Level, level};
use crate::cite::Cite;
use crate::isa::Arch;
use crate::perm::Perm;

const OLD: Cite = Cite::read(
    "Linux arch/powerpc/include/asm/book3s/32/hash.h, pgtable.h (as of 5.10: _PAGE_USER, _PAGE_RW)",
);
const NEW: Cite = Cite::read(
    "linuxppc-dev 2023-09-25, powerpc/32s: Introduce _PAGE_READ and remove _PAGE_USER (6.7)",
);
const MPC8XX: Cite = Cite::read("Linux 5.19, 6.12 arch/powerpc/include/asm/nohash/32/pte-8xx.h");
const WITHOUT_HUGEPD: Cite = Cite::deduced(
    "linux-mm 2024-07, pull request for 6.11: Reimplement huge pages without hugepd on powerpc; \
     pte-8xx.h behind it (__pte_leaf_size, number_of_cells_per_pte)",
);

/// book3s from 6.7 on.
pub static BOOK3S32_TREE: Format =
    Format { name: "powerpc book3s32", fields: BOOK3S, shapes: shapes(BOOK3S), ..COMMON };

/// book3s up to 6.6.
pub static BOOK3S32_TREE_6_6: Format = Format {
    name: "powerpc book3s32 to 6.6",
    fields: BOOK3S_6_6,
    shapes: shapes(BOOK3S_6_6),
    cite: OLD,
    ..COMMON
};

/// 8xx from 6.11 on.
pub static MPC8XX_TREE: Format = Format {
    name: "powerpc 8xx",
    fields: FIELDS_8XX,
    shapes: shapes(FIELDS_8XX),
    style: KernelStyle { leaf_bits: 1 << 5, ..STYLE },
    cite: MPC8XX,
    ..COMMON
};

/// 8xx up to 6.10.
pub static MPC8XX_TREE_6_10: Format = Format {
    name: "powerpc 8xx to 6.10",
    fields: FIELDS_8XX_6_10,
    shapes: shapes(FIELDS_8XX_6_10),
    ..MPC8XX_TREE
};

const COMMON: Format = Format {
    name: "",
    arch: Arch::Ppc32,
    page_shift: 12,
    va_bits: 32,
    pa_bits: 32,
    big_endian: true,
    levels: &[
        Level { entry_bytes: 4, ..level("PGD", "PGD", 22, 10, false, true) },
        Level { entry_bytes: 4, ..level("PTE", "PTE", 12, 10, true, false) },
    ],
    fields: &[],
    style: STYLE,
    shapes: shapes(&[]),
    canonical: Canonical::ZeroAbove,
    cite: NEW,
};

/// Kernel leaves are coherent and have ACCESSED, and DIRTY where writable.
const STYLE: KernelStyle = KernelStyle {
    leaf_bits: 0x110,
    table_bits: 0,
    table_denies: Perm::empty(),
    dirty_recent: DirtyRule::IfWritable,
    dirty_older: DirtyRule::IfWritable,
};

const PGD: u8 = 0b01;
const PTE: u8 = 0b10;
const BOTH: u8 = 0b11;
const EXECUTE: Perm = Perm::EXEC.union(Perm::USER_EXEC);
const USER: Perm = Perm::USER.union(Perm::USER_EXEC);
const STORE: Perm = Perm::READ.union(Perm::WRITE);

macro_rules! book3s {
    ($cite:expr, $($own:expr),+) => {
        &[
            f("LOW", 0, 12, PGD, Kinds::Table, Role::Reserved, "must be 0 (_PMD_BAD)", OLD),
            f("TABLE", 12, 20, PGD, Kinds::Table, Role::AddressIfValid, "table, valid unless 0",
                OLD),
            f("PRESENT", 0, 1, PTE, Kinds::Leaf, Role::Valid, "valid", OLD),
            f("HASHPTE", 1, 1, PTE, Kinds::Leaf, Role::Software, "a hashed entry was made", OLD),
            $($own,)+
            f("WIMG", 3, 4, PTE, Kinds::Leaf, Role::MemoryType, "G, M, I, W", OLD),
            f("DIRTY", 7, 1, PTE, Kinds::Leaf, Role::Dirty, "changed", OLD),
            f("ACCESSED", 8, 1, PTE, Kinds::Leaf, Role::Ignored, "referenced", OLD),
            f("EXEC", 9, 1, PTE, Kinds::Leaf, Role::Grant(Perm::EXEC),
                "software: not in a hashed entry", OLD),
            f("SPECIAL", 11, 1, PTE, Kinds::Leaf, Role::Software, "special", OLD),
            f("RPN", 12, 20, PTE, Kinds::Leaf, Role::Address, "4 KiB frame", OLD),
            f("NONE", 32, 32, BOTH, Kinds::Both, Role::Reserved, "no such bits", $cite),
        ]
    };
}

#[rustfmt::skip]
const BOOK3S: &[Field] = book3s!(NEW,
    f("READ", 2, 1, PTE, Kinds::Leaf, Role::Grant(Perm::READ), "read", NEW),
    f("WRITE", 10, 1, PTE, Kinds::Leaf, Role::Grant(STORE), "read and write", NEW)
);
#[rustfmt::skip]
const BOOK3S_6_6: &[Field] = book3s!(OLD,
    f("USER", 2, 1, PTE, Kinds::Leaf, Role::Grant(Perm::USER), "a process's too", OLD),
    f("WRITE", 10, 1, PTE, Kinds::Leaf, Role::Grant(Perm::WRITE), "write (_PAGE_RW)", OLD)
);

macro_rules! mpc8xx {
    ($page_size:expr, $says:expr, $cite:expr) => {
        &[
            f("PRESENT", 0, 1, BOTH, Kinds::Both, Role::Valid, "valid", MPC8XX),
            f("PMD_1", 1, 1, PGD, Kinds::Table, Role::Ignored, "of no use", MPC8XX),
            f("PAGE_SIZE", 2, 2, PGD, Kinds::Table, $page_size, $says, $cite),
            f("PMD_4", 4, 1, PGD, Kinds::Table, Role::Reserved, "must be 0 (_PMD_BAD)", MPC8XX),
            f("APG", 5, 2, PGD, Kinds::Table, Role::Attribute, "2: a process's table", MPC8XX),
            f("PMD_7", 7, 5, PGD, Kinds::Table, Role::Reserved, "must be 0 (_PMD_BAD)", MPC8XX),
            f("TABLE", 12, 20, PGD, Kinds::Table, Role::Address, "table", MPC8XX),
            f("NO_CACHE", 1, 1, PTE, Kinds::Leaf, Role::MemoryType, "CI: cache inhibited", MPC8XX),
            f(
                "SH",
                2,
                1,
                PTE,
                Kinds::Leaf,
                Role::Deny(USER),
                "shared by all contexts: the kernel's",
                MPC8XX,
            ),
            f("SPS", 3, 1, PTE, Kinds::Leaf, Role::Attribute, "a piece of a larger page", MPC8XX),
            f("GUARDED", 4, 1, PTE, Kinds::Leaf, Role::MemoryType, "guarded", MPC8XX),
            f("ACCESSED", 5, 1, PTE, Kinds::Leaf, Role::Ignored, "referenced", MPC8XX),
            f("EXEC", 6, 1, PTE, Kinds::Leaf, Role::Grant(EXECUTE), "execute", MPC8XX),
            f("SPECIAL", 7, 1, PTE, Kinds::Leaf, Role::Software, "special", MPC8XX),
            f("DIRTY", 8, 1, PTE, Kinds::Leaf, Role::Dirty, "changed", MPC8XX),
            f(
                "RO",
                9,
                2,
                PTE,
                Kinds::Leaf,
                Role::Deny(Perm::WRITE),
                "3: read only; 0: writable",
                MPC8XX,
            ),
            f("HUGE", 11, 1, PTE, Kinds::Leaf, Role::Attribute, "of 512 KiB or 8 MiB", MPC8XX),
            f("RPN", 12, 20, PTE, Kinds::Leaf, Role::Address, "4 KiB frame", MPC8XX),
            f("NONE", 32, 32, BOTH, Kinds::Both, Role::Reserved, "no such bits", MPC8XX),
        ]
    };
}

const FIELDS_8XX: &[Field] =
    mpc8xx!(Role::Attribute, "3: half of a page of 8 MiB, in pieces; else 0", WITHOUT_HUGEPD);
const FIELDS_8XX_6_10: &[Field] = mpc8xx!(Role::Reserved, "0 for a table", MPC8XX);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::addr::{PhysAddr, VirtAddr};

    /// A page of 8 MiB behind one of 512 KiB, as a kernel from 6.11 on keeps them.
    fn memory() -> BTreeMap<u64, u64> {
        let (root, kernel) = (0x1000, 0xc000_0000 >> 22);
        let mut memory = BTreeMap::new();
        for (n, (entry, pieces, frame)) in
            [(0x3001, 128, 0x0010_0000), (0x400d, 1024, 0x0080_0000), (0x500d, 1024, 0x00c0_0000)]
                .into_iter()
                .enumerate()
        {
            // PRESENT, SH, SPS, ACCESSED, EXEC, RO, HUGE.
            let leaf = |piece: u64| (frame + piece * 0x1000) | 0xe6d;
            memory.insert(root + (kernel + n as u64) * 4, entry);
            memory.extend((0..pieces).map(|piece| ((entry & !0xfff) + piece * 4, leaf(piece))));
        }
        memory
    }

    #[test]
    fn larger_pages_of_8xx_are_walked_in_their_pieces() {
        let memory = memory();
        let walk = |format: &Format, at: u64| {
            let mut read = |addr: PhysAddr| memory.get(&addr.0).copied().or(Some(0));
            let walk = format.walk(PhysAddr(0x1000), VirtAddr(at), &mut read);
            walk.result.ok().map(|t| (t.frame.0, t.perm))
        };
        let rows = [
            (0xc000_0000, Some(0x0010_0000)),
            (0xc007_f000, Some(0x0017_f000)),
            (0xc008_0000, None),
            (0xc040_0000, Some(0x0080_0000)),
            (0xc07f_f000, Some(0x00bf_f000)),
            (0xc080_0000, Some(0x00c0_0000)),
            (0xc0bf_f000, Some(0x00ff_f000)),
        ];
        for (at, frame) in rows {
            let found = walk(&MPC8XX_TREE, at);
            assert_eq!(found, frame.map(|frame| (frame, Perm::KERNEL_ROX)), "{at:#x}");
            // The tables of 8 MiB were not of this kind.
            let before = found.filter(|_| at < 0xc040_0000);
            assert_eq!(walk(&MPC8XX_TREE_6_10, at), before, "{at:#x}");
        }
    }

    #[test]
    fn tables_of_processes_have_their_access_group() {
        for format in [&MPC8XX_TREE, &MPC8XX_TREE_6_10] {
            let table = |raw| matches!(format.decode(0, raw), crate::paging::Entry::Table { .. });
            assert!(table(0x3041) && table(0x3021) && !table(0x3081) && !table(0x3011));
        }
    }
}
