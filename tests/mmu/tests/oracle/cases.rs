//! Cases, and what an MMU is asked.

use textbed_arch::paging::{Attempt, Controls, Format, Privilege};
use textbed_arch::{PhysAddr, VirtAddr};

/// Most levels of a case.
pub(crate) const LEVELS: usize = 4;

/// Physical addresses of the tables by level; level 0 is the root.
pub(crate) const TABLES: [u64; LEVELS] = [0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000];

/// The address that is accessed: index 2 of the root, 1 below it, 1, then page 4.
pub(crate) const VA: u64 = 2 << 39 | 1 << 30 | 1 << 21 | 4 << 12 | 0x128;

/// Frames that leaves map, by level: large ones start at an address of their size.
pub(crate) const FRAMES: [u64; LEVELS] = [0, 0, 0x20_0000, 0x30_4000];

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
            let table = addr.0 & !0xfff;
            let level = TABLES.iter().position(|t| *t == table)?;
            let here = format.index(level, VirtAddr(VA)) * 8 == addr.0 & 0xfff;
            Some(if here { self.entries[level] } else { 0 })
        };
        let (root, va) = (PhysAddr(root), VirtAddr(VA));
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
