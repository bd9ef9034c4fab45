//! Cases, where they lie in memory, and what our tables say of them.

use textbed_arch::paging::{Attempt, Controls, Format, Privilege, Refusal, Role};
use textbed_arch::{PhysAddr, VirtAddr};

/// Most levels of a case.
pub const LEVELS: usize = 5;

/// Physical addresses of the tables by level, as far apart as the largest table is large; level 0
/// is the root.
pub const TABLES: [u64; LEVELS] = [0x80_0000, 0x81_0000, 0x82_0000, 0x83_0000, 0x84_0000];
/// And of those below root entry 0, which lead to the code.
pub const CODE_TABLES: [u64; LEVELS] = [0x80_0000, 0x91_0000, 0x92_0000, 0x93_0000, 0x94_0000];
/// The page of the code, which is at this virtual address for the kernel.
pub const CODE: u64 = 0x1_0000;
/// Distance of the virtual address at which a process has the same page.
pub const USER_CODE: u64 = 0x10_0000;
/// Bytes of physical memory.
pub const MEMORY: u64 = 16 << 20;

/// The address that is accessed: below root entry 1, and the same offset in every leaf. `base`:
/// where physical memory begins.
#[must_use]
pub fn va(format: &Format, base: u64) -> u64 {
    1 << format.levels[0].index_shift | base | 0x20_4128
}

/// The frame that a leaf of `level` maps: large ones start at an address of their size.
#[must_use]
pub fn frame(format: &Format, level: usize, base: u64) -> u64 {
    let offset = match format.levels[level].index_shift {
        0..=16 => 0x30_0000,
        17..=21 => 0x20_0000,
        _ => 0,
    };
    (base | offset) & !(format.levels[level].span_bytes() - 1)
}

/// The physical address that the access reaches through a leaf of `level`.
#[must_use]
pub fn reached(format: &Format, level: usize, base: u64) -> u64 {
    frame(format, level, base) | va(format, base) & (format.levels[level].span_bytes() - 1)
}

/// Levels that have leaves.
pub fn leaves(format: &'static Format) -> impl Iterator<Item = usize> {
    (0..format.levels.len()).filter(|level| format.levels[*level].leaf_allowed)
}

/// One access of one set of entries.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Level of the leaf.
    pub leaf: usize,
    /// Entries of the levels down to the leaf; 0 below it.
    pub entries: [u64; LEVELS],
    /// Bits of the address above the tree's.
    pub high: u64,
    /// Control bits.
    pub controls: Controls,
    /// Who accesses.
    pub who: Privilege,
    /// What is tried.
    pub what: Attempt,
}

impl Case {
    /// What our tables say: the physical address reached, or why it faults.
    ///
    /// # Errors
    /// The refusal.
    pub fn access(&self, format: &Format, base: u64) -> Result<u64, Refusal> {
        let va = VirtAddr(va(format, base) | self.high);
        let mut read = |addr: PhysAddr| {
            let table = addr.0 & !0xffff;
            let level = TABLES.iter().position(|t| base + t == table)?;
            let here = format.index(level, va) * 8 == addr.0 & 0xffff;
            Some(if here { self.entries[level] } else { 0 })
        };
        let root = PhysAddr(base + TABLES[0]);
        format.access(root, va, self.who, self.what, &self.controls, &mut read).map(|p| p.0)
    }

    /// The physical address reached, or nothing.
    #[must_use]
    pub fn predict(&self, format: &Format) -> Option<u64> {
        self.access(format, 0).ok()
    }

    /// What it is counted under.
    #[must_use]
    pub fn column(&self, format: &Format) -> String {
        let size = format.levels[self.leaf].index_shift;
        format!("1 << {size} {:?} {:?}", self.who, self.what).to_lowercase()
    }
}

/// Accesses by a process with one reserved bit each, of entries and under control bits that are
/// `open` for a leaf of that level.
pub fn reserved(
    f: &'static Format,
    open: impl Fn(&'static Format, usize) -> ([u64; LEVELS], Controls),
) -> Vec<Case> {
    let mut cases = Vec::new();
    for leaf in leaves(f) {
        let (plain, controls) = open(f, leaf);
        for level in 0..=leaf {
            let here = f.fields.iter().filter(|field| field.is_in(level, level == leaf));
            for field in here.filter(|field| field.role == Role::Reserved) {
                for bit in field.lo_bit..field.lo_bit + field.bits {
                    let mut entries = plain;
                    entries[level] |= 1 << bit;
                    let who = Privilege::User;
                    let case = |what| Case { leaf, entries, high: 0, controls, who, what };
                    cases.extend(WHAT.map(case));
                }
            }
        }
    }
    cases
}

/// A small generator (xorshift): deterministic, and no more is asked of it.
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Both privileges.
pub const WHO: [Privilege; 2] = [Privilege::Kernel, Privilege::User];
/// Every access.
pub const WHAT: [Attempt; 3] = [Attempt::Read, Attempt::Write, Attempt::Exec];

/// Sets and clears bits of `entry` as the bits of `choice`, lowest first.
pub fn choose(entry: u64, bits: &[u32], choice: &mut u64) -> u64 {
    bits.iter().fold(entry, |e, bit| {
        let on = *choice & 1;
        *choice >>= 1;
        e & !(1 << bit) | on << bit
    })
}
