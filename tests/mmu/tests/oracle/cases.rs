//! Cases, and what an MMU is asked.

use textbed_arch::paging::{Attempt, Controls, Format, Privilege};
use textbed_arch::{PhysAddr, VirtAddr};

/// Most levels of a case.
pub(crate) const LEVELS: usize = 5;

/// Physical addresses of the tables by level, as far apart as the largest table is large; level 0
/// is the root.
pub(crate) const TABLES: [u64; LEVELS] = [0x80_0000, 0x81_0000, 0x82_0000, 0x83_0000, 0x84_0000];
/// And of those below root entry 0, which lead to the code.
pub(crate) const CODE_TABLES: [u64; LEVELS] =
    [0x80_0000, 0x91_0000, 0x92_0000, 0x93_0000, 0x94_0000];
/// The page of the code, which is at this virtual address for the kernel.
pub(crate) const CODE: u64 = 0x1_0000;
/// Distance of the virtual address at which a process has the same page.
pub(crate) const USER_CODE: u64 = 0x10_0000;
/// Bytes of physical memory.
pub(crate) const MEMORY: u64 = 16 << 20;

/// The address that is accessed: below root entry 1, and the same offset in every leaf.
pub(crate) fn va(format: &Format) -> u64 {
    1 << format.levels[0].index_shift | 0x20_4128
}

/// The frame that a leaf of `level` maps: large ones start at an address of their size.
pub(crate) fn frame(format: &Format, level: usize) -> u64 {
    match format.levels[level].index_shift {
        0..=16 => 0x30_0000,
        17..=21 => 0x20_0000,
        _ => 0,
    }
}

/// The physical address that the access reaches through a leaf of `level`.
pub(crate) fn reached(format: &Format, level: usize) -> u64 {
    frame(format, level) | va(format) & (format.levels[level].span_bytes() - 1)
}

/// One access of one set of entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// Level of the leaf.
    pub(crate) leaf: usize,
    /// Entries of the levels down to the leaf; 0 below it.
    pub(crate) entries: [u64; LEVELS],
    pub(crate) controls: Controls,
    pub(crate) who: Privilege,
    pub(crate) what: Attempt,
}

impl Case {
    /// What our tables say: the physical address reached, or nothing.
    pub(crate) fn predict(&self, format: &Format, root: u64) -> Option<u64> {
        let mut read = |addr: PhysAddr| {
            let table = addr.0 & !0xffff;
            let level = TABLES.iter().position(|t| *t == table)?;
            let here = format.index(level, VirtAddr(va(format))) * 8 == addr.0 & 0xffff;
            Some(if here { self.entries[level] } else { 0 })
        };
        let (root, va) = (PhysAddr(root), VirtAddr(va(format)));
        format.access(root, va, self.who, self.what, &self.controls, &mut read).map(|p| p.0)
    }

    /// What it is counted under.
    pub(crate) fn column(&self, format: &Format) -> String {
        let size = format.levels[self.leaf].index_shift;
        format!("1 << {size} {:?} {:?}", self.who, self.what).to_lowercase()
    }
}

/// A case with the MMU's answer.
pub(crate) struct Answered {
    pub(crate) case: Case,
    pub(crate) theirs: Option<u64>,
}

/// An MMU that answers cases.
pub(crate) trait Mmu {
    /// Performs the access: the physical address reached, or nothing if it faulted.
    fn answer(&mut self, case: &Case) -> Option<u64>;
    /// Address of the root table.
    fn root(&self) -> u64 {
        TABLES[0]
    }
}

/// A small generator (xorshift): deterministic, and no more is asked of it.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }

    /// True once in `n`.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

pub(crate) const WHO: [Privilege; 2] = [Privilege::Kernel, Privilege::User];
pub(crate) const WHAT: [Attempt; 3] = [Attempt::Read, Attempt::Write, Attempt::Exec];

/// Sets and clears bits of `entry` as the bits of `choice`, lowest first.
pub(crate) fn choose(entry: u64, bits: &[u32], choice: &mut u64) -> u64 {
    bits.iter().fold(entry, |e, bit| {
        let on = *choice & 1;
        *choice >>= 1;
        e & !(1 << bit) | on << bit
    })
}
